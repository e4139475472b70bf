"""The normalization that the paper's authors' code does while it prunes."""

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
    sqrt(|m w|^2 + b^2) / sqrt(2), m the mask. The authors' code takes the layer's threshold in
    the mask's place, a number: 0 before the first mask. What the network computes is the same,
    which weights are the smallest of a layer is not.
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
            # As there, a neuron whose norm is 0 loses its outgoing weights.
            following.weight.mul_(divisors)
            divisors = torch.where(divisors > 0, divisors, 1.0)
            layer.weight.div_(divisors[:, None])
            layer.bias.div_(divisors)
