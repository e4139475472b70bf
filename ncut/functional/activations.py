"""correlate(): the agreement of weight clusters with clusters of correlated activations."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ncut.arguments import suggests_names
from ncut.clusters import cluster
from ncut.errors import InputError
from ncut.functional.arguments import check_labels, n_vertices
from ncut.functional.record import record
from ncut.functional.results import Agreement
from ncut.graphs import NeuronGraph, from_adjacency
from ncut.randomness import check_seed
from ncut.spectral import normalized_cut
from ncut.spectral.agreement import adjusted_rand_index
from ncut.threads import single_threaded_blas
from ncut.types import Layer

MIN_EXAMPLES = 3
N_PERMUTATIONS = 200

# The second half of a Philox key. Streams of an analysis are numbered with 32 bits: none is this.
PERMUTATIONS = (1 << 32) + 1


def activation_graph(
    model: Any,
    layers: Sequence[Layer],
    inputs: Any = None,
    activations: Sequence[ArrayLike] | None = None,
) -> NeuronGraph:
    """The graph of the correlations between neurons' activations.

    The weight of an edge is the absolute Pearson correlation of two neurons over the examples.
    A neuron that does not vary has no edges. A neuron's activation is the value that the next layer
    reads (after activation function, batch norm, dropout in evaluation), or, for the network's
    outputs, the output of their layer; a channel's activation is the mean over its positions.

    Parameters
    ----------
    model : torch.nn.Module
        The model that the layers were read from; ignored if `activations` are given.
    layers : sequence of Layer
        The layers of the model's graph, n vertices in total.
    inputs : Tensor or tuple of Tensor, optional
        The argument, or the arguments, of one forward pass over a batch of examples. It runs in
        evaluation mode without gradients; the module's mode is restored.
    activations : sequence of array_like, each of shape (n_examples, size), optional
        The activations of each layer, instead of `inputs`, for models other than torch modules.

    Returns
    -------
    NeuronGraph
        A graph of one layer with n vertices, numbered like those of `layers`.

    Raises
    ------
    InputError
        If not exactly one of `inputs` and `activations` is given, there are fewer than 3 examples,
        activations do not fit the layers or are not finite, no two neurons vary, or a module
        reads several layers or none.

    Notes
    -----
    Memory: several (n, n) matrices of float64.
    """
    graph, _ = _activation_graph(model, layers, inputs, activations)
    return graph


@suggests_names(name="ncut.functional.correlate")
def correlate(
    model: Any,
    layers: Sequence[Layer],
    labels: ArrayLike,
    k: int,
    inputs: Any = None,
    activations: Sequence[ArrayLike] | None = None,
    *,
    seed: int = 0,
    n_init: int | Literal["auto"] = "auto",
    threads: int | None = None,
    device: str = "cpu",
) -> Agreement:
    """Cluster neurons by their activations, and compare with the clusters of the weights.

    Vertices without edges in the weight graph are left out of the activation graph. Both graphs may
    follow the layers, so some agreement is expected; `p_value` and `within_layers` discount it.

    Parameters
    ----------
    model, layers, inputs, activations
        As for `activation_graph`.
    labels : array_like of int, shape (n,)
        The partition found in the weights; negative for a vertex without edges.
    k : int
        Number of clusters to find in the activations.
    seed, n_init, threads, device
        As for `ncut.cluster`.

    Returns
    -------
    Agreement

    Raises
    ------
    InputError
        If an argument cannot be used, or as for `activation_graph`.
    """
    checked = check_labels(labels, layers)
    seed = check_seed(seed)
    graph, n_examples = _activation_graph(model, layers, inputs, activations, checked >= 0)
    found = cluster(graph, k, n_init=n_init, seed=seed, threads=threads, device=device)
    compared = np.flatnonzero((checked >= 0) & (found.labels >= 0))
    ours, theirs = checked[compared], found.labels[compared]
    ends = [layer.start for layer in layers] + [n_vertices(layers)]
    places = [slice(*pair) for pair in pairwise(np.searchsorted(compared, ends).tolist())]
    index = adjusted_rand_index(ours, theirs)
    permuted = _permuted(ours, theirs, places, seed)
    return Agreement(
        k=found.k,
        ncut=found.ncut,
        weight_partition_ncut=normalized_cut(graph, checked),
        labels=found.labels,
        adjusted_rand_index=index,
        p_value=(int((permuted >= index).sum()) + 1) / (permuted.size + 1),
        permuted=permuted,
        layers=tuple(layer.name for layer in layers),
        within_layers=tuple(
            adjusted_rand_index(ours[place], theirs[place]) if _length(place) > 1 else None
            for place in places
        ),
        n_compared=compared.size,
        n_examples=n_examples,
        seed=seed,
    )


def _length(place: slice) -> int:
    return int(place.stop - place.start)


def _permuted(
    ours: NDArray[np.intp], theirs: NDArray[np.int32], places: Sequence[slice], seed: int
) -> NDArray[np.float64]:
    """Agreement after permuting `ours` within each layer, shape (n_permutations,)."""
    key = np.array([seed, PERMUTATIONS], dtype=np.uint64)
    rng = np.random.Generator(np.random.Philox(key=key))
    indices = []
    for _ in range(N_PERMUTATIONS):
        mixed = np.concatenate([rng.permutation(ours[place]) for place in places])
        indices.append(adjusted_rand_index(mixed, theirs))
    return np.array(indices)


def _activation_graph(
    model: Any,
    layers: Sequence[Layer],
    inputs: Any,
    activations: Sequence[ArrayLike] | None,
    kept: NDArray[np.bool_] | None = None,
) -> tuple[NeuronGraph, int]:
    """The graph, with edges between the `kept` vertices only, and the number of examples."""
    if (inputs is None) == (activations is None):
        raise InputError("inputs, activations: give one of the two")
    if activations is None:
        activations = record(model, layers, inputs)
    values = _checked(activations, layers)
    varying = np.concatenate([_varies(layer_values) for layer_values in values])
    if kept is not None:
        varying &= kept
    if np.count_nonzero(varying) < 2:
        raise InputError("activations: no two neurons vary over the examples; pass other examples")
    whole = np.concatenate([layer_values.astype(np.float64) for layer_values in values], axis=1)
    graph = from_adjacency(_correlations(whole, varying), name="activations")
    return graph, whole.shape[0]


def _checked(activations: Sequence[ArrayLike], layers: Sequence[Layer]) -> list[NDArray[Any]]:
    """The activations of each layer as arrays that fit the layers and each other."""
    n_vertices(layers)
    if len(activations) != len(layers):
        raise InputError(
            f"activations: {len(activations)} arrays for {len(layers)} layers; give one per layer"
        )
    arrays = [_as_matrix(values, layer) for values, layer in zip(activations, layers, strict=True)]
    n_examples = {array.shape[0] for array in arrays}
    if len(n_examples) > 1:
        raise InputError(
            f"activations: layers have different numbers of examples: {sorted(n_examples)}"
        )
    if min(n_examples) < MIN_EXAMPLES:
        raise InputError(
            f"{min(n_examples)} examples are too few for correlations, which need at least "
            f"{MIN_EXAMPLES}, better hundreds"
        )
    return arrays


def _as_matrix(values: Any, layer: Layer) -> NDArray[Any]:
    array = np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)
    if array.ndim != 2 or array.shape[1] != layer.size or array.dtype.kind not in "fiub":
        raise InputError(
            f"activations: those of layer {layer.name!r} have shape {array.shape} and dtype "
            f"{array.dtype}; must be real numbers of shape (n_examples, {layer.size})"
        )
    if not np.isfinite(array).all():
        raise InputError(f"activations: those of layer {layer.name!r} are not all finite")
    return array


def _varies(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Mark the columns that vary by more than the rounding of their type."""
    if not values.shape[1]:
        return np.zeros(0, dtype=np.bool_)
    epsilon = np.finfo(values.dtype).eps if values.dtype.kind == "f" else 0.0
    high, low = values.max(axis=0).astype(np.float64), values.min(axis=0).astype(np.float64)
    largest = np.maximum(np.abs(high), np.abs(low))
    return np.asarray(high - low > 8 * float(epsilon) * largest)


def _correlations(values: NDArray[np.float64], varying: NDArray[np.bool_]) -> NDArray[np.float64]:
    """|Pearson correlation| of columns, zero for those that do not vary, and on the diagonal."""
    columns = values[:, varying]
    columns = columns - columns.mean(axis=0)
    # First to a largest of 1, so that squares neither overflow nor vanish.
    columns /= np.abs(columns).max(axis=0)
    columns /= np.linalg.norm(columns, axis=0)
    with single_threaded_blas():
        products = columns.T @ columns
    inner = np.minimum(np.abs(products + products.T) / 2, 1.0)
    np.fill_diagonal(inner, 0.0)
    whole = np.zeros((varying.size, varying.size))
    whole[np.ix_(varying, varying)] = inner
    return whole
