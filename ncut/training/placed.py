"""Plain data of the training side: weights between vertices, and a spectrum."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

WIDTH = 16
"""Eigenvectors that are kept: some more than wanted, so that one that comes up is seen early."""


class Placed(NamedTuple):
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
    """The smallest eigenvalues of a graph's normalized Laplacian but the first.

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
        Products with the weights that it took.
    """

    values: NDArray[np.float64]
    residuals: NDArray[np.float64]
    vectors: Tensor
    degrees: NDArray[np.float64]
    n_products: int

    def eigenvalue(self, number: int) -> float:
        """lambda of the number given, counted from 1; 1 if there are not as many."""
        if number == 1:
            return 0.0
        if number - 2 >= len(self.values):
            return 1.0
        return max(1.0 - float(self.values[number - 2]), 0.0)


@dataclass(eq=False)
class LateSpectrum:
    """A spectrum that stays on its device; what is asked for on the host is copied, and waited for.

    Attributes
    ----------
    mu, errors : Tensor of float64, shape (m,)
        Values and residuals; see `Spectrum`.
    vectors : Tensor, shape (n, m)
    sums : Tensor of float64, shape (n,)
        Degrees.
    n_products : int
    """

    mu: Tensor
    errors: Tensor
    vectors: Tensor
    sums: Tensor
    n_products: int

    @classmethod
    def of(cls, spectrum: Spectrum) -> LateSpectrum:
        """A spectrum of the host moved to where its vectors are."""
        values, residuals, degrees = (
            torch.as_tensor(array, device=spectrum.vectors.device)
            for array in (spectrum.values, spectrum.residuals, spectrum.degrees)
        )
        return cls(values, residuals, spectrum.vectors, degrees, spectrum.n_products)

    @cached_property
    def values(self) -> NDArray[np.float64]:
        """On the host."""
        return np.asarray(self.mu.cpu().numpy())

    @cached_property
    def residuals(self) -> NDArray[np.float64]:
        """On the host."""
        return np.asarray(self.errors.cpu().numpy())

    @cached_property
    def degrees(self) -> NDArray[np.float64]:
        """On the host."""
        return np.asarray(self.sums.cpu().numpy())

    def eigenvalue(self, number: int) -> float:
        """As that of `Spectrum`, on the host."""
        if number == 1:
            return 0.0
        if number - 2 >= len(self.mu):
            return 1.0
        return max(1.0 - float(self.values[number - 2]), 0.0)

    def eigenvalues(self, numbers: tuple[int, ...]) -> Tensor:
        """Those of the numbers given, on the device, shape (len(numbers),)."""
        first, last = (constant(end, self.mu.device) for end in _ENDS)
        every = (1.0 - torch.cat([first, self.mu, last])).clamp_min(0.0)
        return every[self._places(numbers)]

    def by_vector(self, numbers: tuple[int, ...], slopes: Tensor) -> Tensor:
        """Slopes for eigenvalues -> slopes for the m eigenvectors, shape (m,)."""
        every = self.mu.new_zeros(len(self.mu) + 2)
        return every.index_add_(0, self._places(numbers), slopes)[1:-1]

    def _places(self, numbers: tuple[int, ...]) -> Tensor:
        """Where the numbers are among 0, the eigenvalues that are known, and 1."""
        return constant(_clipped(numbers, len(self.mu) + 1), self.mu.device)


_ENDS = np.ones(1), np.zeros(1)
"""The eigenvalue mu of the first eigenvector, and of those that there are none of."""


@lru_cache
def _clipped(numbers: tuple[int, ...], last: int) -> NDArray[np.int64]:
    return np.minimum(np.array(numbers, dtype=np.int64) - 1, last)


_kept: dict[tuple[int, torch.device, torch.dtype | None], Tensor] = {}


def constant(array: NDArray[Any], device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """An array that never changes as a tensor; copied to another device the first time only.

    Parameters
    ----------
    array : ndarray
    device : torch.device
    dtype : torch.dtype, optional
        That of the array by default.

    Returns
    -------
    Tensor
        Not to be written to: on the CPU it may share the array's memory.
    """
    if device.type == "cpu":
        return torch.as_tensor(array, dtype=dtype)
    key = (id(array), device, dtype)
    found = _kept.get(key)
    if found is None:
        found = _kept[key] = torch.as_tensor(array, dtype=dtype, device=device)
        weakref.finalize(array, _kept.pop, key, None)
    return found
