"""Plain data of the training code: weights between vertices, and a spectrum."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

WIDTH = 16
"""Number of tracked eigenvectors: more than requested, to detect crossings early."""


class EdgeWeights(NamedTuple):
    """Weights between vertices of a graph.

    Attributes
    ----------
    weights : Tensor
        (rows, columns) of any sign, dense; or (entries,) with the vertices of each.
    first_row, first_column : int
        The first vertex along each axis, of a dense matrix.
    rows, columns : Tensor of int64, shape (entries,), optional
        The vertices that each entry joins.
    """

    weights: Tensor
    first_row: int = 0
    first_column: int = 0
    rows: Tensor | None = None
    columns: Tensor | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Spectrum:
    """The smallest eigenvalues of a graph's normalized Laplacian after the first.

    Attributes
    ----------
    values : ndarray of float64, shape (m,)
        Eigenvalues mu = 1 - lambda of D^-1/2 A D^-1/2, descending, without the first, 1.
    residuals : ndarray of float64, shape (m,)
        Norms of M v - mu v.
    vectors : Tensor, shape (n, m)
        D^-1/2 v for unit eigenvectors v; zero for vertices without edges.
    degrees : ndarray of float64, shape (n,)
    n_products : int
        Number of products with the weights.
    """

    values: NDArray[np.float64]
    residuals: NDArray[np.float64]
    vectors: Tensor
    degrees: NDArray[np.float64]
    n_products: int

    def eigenvalue(self, number: int) -> float:
        """lambda of the given number, counted from 1; 1 if there are fewer."""
        if number == 1:
            return 0.0
        if number - 2 >= len(self.values):
            return 1.0
        return max(1.0 - float(self.values[number - 2]), 0.0)


_kept: dict[tuple[int, torch.device, torch.dtype | None], Tensor] = {}


def constant(array: NDArray[Any], device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """A constant array as a tensor; copied to another device only the first time.

    Parameters
    ----------
    array : ndarray
    device : torch.device
    dtype : torch.dtype, optional
        By default the dtype of the array.

    Returns
    -------
    Tensor
        Read-only: on the CPU it may share the array's memory.
    """
    if device.type == "cpu":
        return torch.as_tensor(array, dtype=dtype)
    key = (id(array), device, dtype)
    found = _kept.get(key)
    if found is None:
        found = _kept[key] = torch.as_tensor(array, dtype=dtype, device=device)
        weakref.finalize(array, _kept.pop, key, None)
    return found
