"""Plain data shared by all rooms: layers, blocks, a clustering."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scipy import sparse

    Weights: TypeAlias = NDArray[np.floating] | sparse.csr_array
    """Edge weights of a block: a C-contiguous array where it is dense, CSR where it is not."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A group of vertices that lie side by side in the graph's numbering.

    Attributes
    ----------
    name : str
        The layer's name in the model, or one made from its position.
    start : int
        Number of its first vertex.
    size : int
        How many vertices it has.
    """

    name: str
    start: int
    size: int

    @property
    def slice(self) -> slice:
        """The layer's vertices, to index any array with an entry per vertex."""
        return slice(self.start, self.start + self.size)


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """All edges between two layers.

    Attributes
    ----------
    source, target : int
        Positions of the two layers in `NeuronGraph.layers`, `source <= target`.
    weights : ndarray or scipy.sparse.csr_array, shape (size of source, size of target)
        Non-negative edge weights, float32 or float64, if dense also float16 or bfloat16 (of
        the package ml_dtypes). Where `source == target`, only the
        entries above the diagonal are set: each stands for one undirected edge.
    name : str
        The parameter the weights come from.
    """

    source: int
    target: int
    weights: Weights
    name: str = ""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A parameter (or a group of neurons) of the model that is not in the graph, and why."""

    name: str
    shape: tuple[int, ...]
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Clustering:
    """A partition of a graph's vertices into `k` clusters.

    Attributes
    ----------
    labels : ndarray of int32, shape (n,)
        Cluster of each vertex, 0 to k - 1; -1 for a vertex without edges, which is left out.
    ncut : float
        Normalized cut of the partition, between 0 and k.
    spectral_ncut : float
        The same before refinement; equal to `ncut` without.
    eigenvalues : ndarray of float64, shape (k,)
        The k smallest eigenvalues of the normalized Laplacian, ascending.
    k : int
        Number of clusters asked for.
    solver : str
        The eigensolver used (what `"auto"` chose).
    residual : float
        Largest norm of M u - mu u over the unit eigenvectors u of M = D^-1/2 A D^-1/2.
    converged : bool
        Whether the residual reached the solver's tolerance.
    n_init : int
        Restarts of k-means.
    """

    labels: NDArray[np.int32]
    ncut: float
    spectral_ncut: float
    eigenvalues: NDArray[np.float64]
    k: int
    solver: str
    residual: float
    converged: bool
    n_init: int
