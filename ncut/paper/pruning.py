"""Magnitude pruning as in the paper, for custom training loops.

Source: Zhu and Gupta (2017), To prune, or not to prune, equation 1; Filan et al. (2021), appendix
A.2; for the order of events, TensorFlow Model Optimization 0.1.1, which the paper used.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

INITIAL_SPARSITY, FINAL_SPARSITY = 0.5, 0.9
STEPS_BETWEEN_MASKS = 10


def sparsity(step: int, n_steps: int) -> float:
    """The share of a layer's weights that is pruned: a cubic from 0.5 to 0.9."""
    left = max(0.0, 1 - step / n_steps) ** 3
    return FINAL_SPARSITY + (INITIAL_SPARSITY - FINAL_SPARSITY) * left


class Masks:
    """Masks of the remaining weights of each layer, by magnitude.

    Parameters
    ----------
    weights : sequence of Tensor
        Changed in place.
    n_steps : int
        Total number of training steps.
    """

    def __init__(self, weights: Sequence[Tensor], n_steps: int) -> None:
        self.weights = [weight.detach() for weight in weights]
        self.n_steps = n_steps
        self.masks = [torch.ones_like(weight) for weight in self.weights]
        self.thresholds = [0.0] * len(self.weights)
        """The smallest magnitude that each mask kept when it was made; 0 before the first mask."""

    @torch.no_grad()
    def renew(self, step: int) -> None:
        """Renew the masks from the current weights, if this step is due.

        A pruned weight returns only if it has grown since.
        """
        if step % STEPS_BETWEEN_MASKS:
            return
        share = sparsity(step, self.n_steps)
        for number, (weight, mask) in enumerate(zip(self.weights, self.masks, strict=True)):
            magnitudes = weight.abs()
            n_left = round(weight.numel() * (1 - share))
            threshold = magnitudes.flatten().kthvalue(weight.numel() - n_left + 1).values
            # If fewer weights are non-zero than allowed, the zeros stay pruned.
            mask.copy_((magnitudes >= threshold) & (magnitudes > 0))
            self.thresholds[number] = float(threshold)

    @torch.no_grad()
    def apply(self) -> None:
        """Set the pruned weights to zero."""
        torch._foreach_mul_(self.weights, self.masks)
