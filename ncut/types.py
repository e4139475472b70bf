"""Plain data shared by all subpackages: layers, blocks, a clustering."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scipy import sparse

    Weights: TypeAlias = NDArray[np.floating] | sparse.csr_array
    """Edge weights of a block: a C-contiguous array if dense, otherwise CSR."""


# The closed sets of names that public arguments take.
Null: TypeAlias = Literal[
    "layer", "layer-nonzero", "layer-nonzero-kde", "layer-kde", "strength", "residual",
    "alignment", "tied", "init",
]  # fmt: skip
Normalization: TypeAlias = Literal["none", "l2", "l1", "balanced", "residual"]
Solver: TypeAlias = Literal["auto", "krylov", "gram", "shift-invert", "dense", "arpack", "lobpcg"]
Sequential: TypeAlias = Literal["betting", "besag-clifford"]
PresetName: TypeAlias = Literal["filan2021", "hcai-torch"]
Scope: TypeAlias = Literal["paper", "all"]
KernelNorm: TypeAlias = Literal["l1", "l2", "column-sum"]
Unknown: TypeAlias = Literal["error", "elementwise"]
EdgeKind: TypeAlias = Literal["weights", "attribution"]


@dataclass(frozen=True, slots=True)
class Layer:
    """A group of consecutively numbered vertices.

    Attributes
    ----------
    name : str
        The layer's name in the model, or a name made from its position.
    start : int
        Number of the first vertex.
    size : int
        Number of vertices.
    rescalable : bool or None
        Whether multiplying a vertex's incoming weights by a positive factor and dividing its
        outgoing weights by it preserves the network's function, as with a positively homogeneous
        activation such as ReLU. None: the activation is unknown.
    read_by : tuple of str
        Names of the parts of the model (modules, or weight arrays) that read the layer's values.
    """

    name: str
    start: int
    size: int
    rescalable: bool | None = None
    read_by: tuple[str, ...] = ()

    @property
    def slice(self) -> slice:
        """The layer's vertices as a slice, for any array with an entry per vertex."""
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
    tie : str
        Name of the first block with the same weights; empty if no other block has them.
    tie_transposed : bool
        Whether the weights are the transpose of those of that block.
    initial : Initial or None
        The weights' distribution before training, if requested and known.
    """

    source: int
    target: int
    weights: Weights
    name: str = ""
    tie: str = ""
    tie_transposed: bool = False
    initial: Initial | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Initial:
    """The distribution that a block's edge weights had at initialization, as a sample.

    Attributes
    ----------
    sample : ndarray of float32 or float64, shape (s,)
        Independent draws of a single edge weight.
    everywhere : bool
        Whether every pair of vertices had an edge; false for a grouped convolution, whose
        edges are where its weights are.
    """

    sample: NDArray[np.floating]
    everywhere: bool = True


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A parameter (or group of neurons) of the model that is not in the graph, with the reason."""

    name: str
    shape: tuple[int, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter tensor of the model and its role in the graph.

    Attributes
    ----------
    name : str
        Its name in the model.
    shape : tuple of int
        Its shape.
    placed : bool
        Whether it is in the graph, as edges or as a factor of edges.
    role : str
        Its role in the graph, or why it is left out.
    """

    name: str
    shape: tuple[int, ...]
    placed: bool
    role: str


@dataclass(frozen=True, slots=True)
class Check:
    """Result of changing single neurons of a model and observing which others change.

    Attributes
    ----------
    n_vertices : int
        Number of changed neurons.
    n_watched, n_layers : int
        Number of observed layers of neurons, and of all layers of the graph.
    missing : tuple of str
        Neurons that changed although the graph has no edge to them.
    surplus : tuple of str
        Neurons that did not change although the graph has an edge to them.
    """

    n_vertices: int
    n_watched: int
    n_layers: int
    missing: tuple[str, ...] = ()
    surplus: tuple[str, ...] = ()

    @property
    def agrees(self) -> bool:
        """True if neurons were changed, and each changed exactly its neighbours in the graph."""
        return self.n_vertices > 0 and not (self.missing or self.surplus)

    def __str__(self) -> str:
        """The result in one line, with the first differences if there are any."""
        if not self.n_vertices:
            return (
                f"nothing was checked: the neurons of none of {self.n_layers} layers are read by a "
                "layer or a parameter that can be watched"
            )
        what = (
            f"{self.n_vertices} neurons changed one at a time, in {self.n_watched} of "
            f"{self.n_layers} layers"
        )
        if self.agrees:
            return f"{what}: those that changed with them are their neighbours in the graph"
        lines = [f"changed, no edge: {line}" for line in self.missing[:3]]
        lines += [f"edge, not changed: {line}" for line in self.surplus[:3]]
        return f"{what}: the graph differs from the model; {'; '.join(lines)}"


@dataclass(frozen=True, slots=True, eq=False)
class Clustering:
    """A partition of a graph's vertices into `k` clusters.

    Attributes
    ----------
    labels : ndarray of int32, shape (n,)
        Cluster of each vertex, 0 to k - 1; -1 for a vertex without edges, which is left out.
    ncut : float
        Normalized cut of the partition, between 0 and k.
    spectral_ncut, refined_ncut : float
        The normalized cut of the partition that spectral clustering finds, and the normalized cut
        after refinement by moves of single vertices; `ncut` is one of the two.
    lower_bound : float
        Every partition into k clusters has a normalized cut of at least this, unless the
        eigensolver missed an eigenvalue without any known partition revealing it; 0 if an
        eigenvalue is known to be missing.
    modularity : float
        Newman's modularity of the partition.
    bipartite_modularity : float or None
        Barber's modularity of the partition; None where edges join layers of one colour.
    clusterability : float
        Share of squared weight inside clusters, averaged over the blocks.
    eigenvalues : ndarray of float64, shape (k,)
        The k smallest eigenvalues of the normalized Laplacian, ascending.
    k : int
        Number of clusters requested.
    solver : str
        The eigensolver used (what `"auto"` chose).
    residual : float
        Largest norm of M u - mu u over the unit eigenvectors u of M = D^-1/2 A D^-1/2.
    converged : bool
        Whether the eigenvectors are accurate enough for clustering: each residual is small relative
        to its eigenvalue or to the gap after the k-th (see `ncut.spectral.accuracy`), and no
        eigenvalue is known to be missing.
    n_init : int
        Restarts of k-means.
    repeated_ncuts : ndarray of float64, shape (n_repeats,)
        `ncut` for independent repeats of k-means on the same embedding, if requested.
    repeated_labels : tuple of ndarray of int32, each of shape (n,)
        The partitions of these repeats, restricted to the vertices with edges.
    cut_share, chance_share : float or None
        Share of the edge weight that the refined partition cuts, and its expectation if edges
        joined vertices in proportion to their degrees; None for shuffles.
    """

    labels: NDArray[np.int32]
    ncut: float
    spectral_ncut: float
    refined_ncut: float
    lower_bound: float
    modularity: float
    bipartite_modularity: float | None
    clusterability: float
    eigenvalues: NDArray[np.float64]
    k: int
    solver: str
    residual: float
    converged: bool
    n_init: int
    repeated_ncuts: NDArray[np.float64]
    repeated_labels: tuple[NDArray[np.int32], ...] = ()
    cut_share: float | None = None
    chance_share: float | None = None

    def __repr__(self) -> str:
        return (
            f"Clustering({self.labels.size:,} vertices, k={self.eigenvalues.size}, "
            f"ncut={self.ncut:.6g}, solver={self.solver!r})"
        )


@dataclass(frozen=True, slots=True)
class ShuffledNetwork:
    """The stored results of clustering a shuffled network.

    Attributes
    ----------
    statistics : dict of str to float
        By their names in `ncut.axes.STATISTICS`; only those defined for the graph.
    repeated_ncut : float or None
        The n-cut with k-means repeated on the same embedding, if requested.
    converged : bool
        Whether the eigensolver reached its tolerance.
    """

    statistics: dict[str, float]
    repeated_ncut: float | None
    converged: bool


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """A statistic of a network compared with its shuffles.

    Attributes
    ----------
    value : float
        The network's value.
    shuffled : ndarray of float64, shape (n_shuffles,)
        The shuffles' values, in the order of their numbers.
    mean, std : float or None
        Mean and population standard deviation of the shuffles; None without shuffles.
    p_value : float or None
        One-sided, in the direction of "more clusterable": (r + 1) / (n + 1), where r of n
        shuffles are at least as clusterable; valid at any time with shuffles="auto". None without
        shuffles.
    z_score : float or None
        (value - mean) / std; None without shuffles, or if they do not differ.
    """

    value: float
    shuffled: NDArray[np.float64]
    mean: float | None
    std: float | None
    p_value: float | None
    z_score: float | None

    def __repr__(self) -> str:
        parts = [f"{self.value:.6g}"]
        if self.mean is not None and self.std is not None:
            parts.append(f"{self.shuffled.size} shuffles: {self.mean:.6g} ± {self.std:.2g}")
        parts += [
            f"{name} = {value:.3g}"
            for name, value in (("Z", self.z_score), ("p", self.p_value))
            if value is not None
        ]
        return f"Comparison({'; '.join(parts)})"
