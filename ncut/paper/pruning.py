"""Magnitude pruning as the paper's networks were pruned, in a training loop of one's own.

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
    """Which weights of each layer are left, by their magnitudes.

    Parameters
    ----------
    weights : sequence of Tensor
        Changed in place.
    n_steps : int
        Training steps in all.
    """

    def __init__(self, weights: Sequence[Tensor], n_steps: int) -> None:
        self.weights = [weight.detach() for weight in weights]
        self.n_steps = n_steps
        self.masks = [torch.ones_like(weight) for weight in self.weights]
        self.thresholds = [0.0] * len(self.weights)
        """The smallest magnitude that each mask left when it was made; 0 before the first."""

    @torch.no_grad()
    def renew(self, step: int) -> None:
        """Make masks anew where this step is one for it, from the weights as they are.

        A weight that was pruned comes back only if it has grown since.
        """
        if step % STEPS_BETWEEN_MASKS:
            return
        share = sparsity(step, self.n_steps)
        for number, (weight, mask) in enumerate(zip(self.weights, self.masks, strict=True)):
            magnitudes = weight.abs()
            n_left = round(weight.numel() * (1 - share))
            threshold = magnitudes.flatten().kthvalue(weight.numel() - n_left + 1).values
            # Where fewer are left than may be, those that are zero stay pruned.
            mask.copy_((magnitudes >= threshold) & (magnitudes > 0))
            self.thresholds[number] = float(threshold)

    @torch.no_grad()
    def apply(self) -> None:
        """Set the pruned weights to zero."""
        torch._foreach_mul_(self.weights, self.masks)
