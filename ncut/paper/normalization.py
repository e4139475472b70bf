"""The normalization in the paper's code during pruning."""

from __future__ import annotations

import itertools
import math

import torch
from torch import nn

from ncut.paper.networks import layers_of
from ncut.paper.pruning import Masks


class ThresholdNormalization:
    """Rescale hidden neurons by their weights times the layer's pruning threshold.

    The paper's text divides the incoming weights w and the bias b of a hidden neuron by
    sqrt(|m w|^2 + b^2) / sqrt(2), m the mask. The authors' code uses the layer's threshold instead
    of the mask, a number that is 0 before the first mask. The network's function is the same, but
    different weights are the smallest of a layer.
    """

    def __init__(self, model: nn.Sequential, masks: Masks) -> None:
        self.layers = layers_of(model)
        self.masks = masks

    @torch.no_grad()
    def apply_(self) -> None:
        for number, (layer, following) in enumerate(itertools.pairwise(self.layers)):
            assert layer.bias is not None
            norms = self.masks.thresholds[number] * layer.weight.norm(dim=1)
            divisors = torch.hypot(norms, layer.bias)
            divisors /= math.sqrt(2)
            # As in that code, a neuron of norm 0 loses its outgoing weights.
            following.weight.mul_(divisors)
            divisors = torch.where(divisors > 0, divisors, 1.0)
            layer.weight.div_(divisors[:, None])
            layer.bias.div_(divisors)
