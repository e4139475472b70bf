"""The paper's data augmentation: rotations, shifts and flips. Source: appendix A.2."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

MAX_ROTATION = math.radians(15)
MAX_SHIFT = 0.1
"""Largest shift, as a share of an image's side."""


def augmented(images: Tensor) -> Tensor:
    """Each image rotated and shifted at random, half of them flipped left to right.

    Linear interpolation; beyond the border the nearest pixel. (images, channels, rows, columns).
    Random numbers are drawn on the CPU for every device.
    """
    n = len(images)
    angles = torch.empty(n).uniform_(-MAX_ROTATION, MAX_ROTATION)
    flips = torch.randint(2, (n,)) * 2.0 - 1
    # affine_grid's coordinates go from -1 to 1: a shift of the whole side is 2.
    shifts = torch.empty(n, 2).uniform_(-2 * MAX_SHIFT, 2 * MAX_SHIFT)
    sines, cosines = angles.sin(), angles.cos()
    rows = [torch.stack([cosines * flips, -sines]), torch.stack([sines * flips, cosines])]
    maps = torch.cat([torch.stack(rows).permute(2, 0, 1), shifts[:, :, None]], dim=2)
    grid = functional.affine_grid(maps.to(images.device), list(images.shape), align_corners=False)
    return functional.grid_sample(
        images, grid, mode="bilinear", padding_mode="border", align_corners=False
    )
