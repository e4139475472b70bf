"""A chain of weight layers -> NeuronGraph: magnitudes, folded scales, sizes, what is left out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ncut.errors import InputError
from ncut.graphs import NeuronGraph, build_graph
from ncut.types import Initial, LeftOut

Scope = Literal["paper", "all"]
Norm = Literal["l1", "l2", "column-sum"]

MAX_SAMPLE = 2**16
"""Initial weights that are kept of a layer."""

SINGLE_MATRIX_HINT = (
    "to cluster a single weight matrix W, pass its bipartite adjacency: "
    "scipy.sparse.csr_array(scipy.sparse.block_array([[None, abs(W)], [abs(W).T, None]]))"
)


@dataclass(frozen=True, slots=True, eq=False)
class ChainLayer:
    """The weights of one layer of a chain, and the scales that normalizations give them.

    Attributes
    ----------
    name : str
        The layer's name in the model.
    weight : ndarray
        (fan_in, fan_out) for a linear layer, (out, in / groups, positions...) for a
        convolution.
    kind : {"linear", "conv"}
        Which of the two it is.
    groups : int
        Groups of the convolution.
    input_scale : ndarray of shape (c,), optional
        Factors of the incoming values, one per input; for a linear layer that reads a
        flattened convolution also one per channel (fan_in a multiple of c).
    output_scale : ndarray of shape (n_out,), optional
        Factors of the outputs.
    rescalable : bool or None
        Whether everything between this layer and the next commutes with positive factors per
        neuron; None where that is not known.
    module : str
        Name of the module that holds the weights, where it differs from `name`.
    initial : ndarray of the shape of `weight`, optional
        Weights as the layer is initialized.
    """

    name: str
    weight: NDArray[np.floating]
    kind: Literal["linear", "conv"]
    groups: int = 1
    input_scale: NDArray[np.floating] | None = None
    output_scale: NDArray[np.floating] | None = None
    rescalable: bool | None = None
    module: str = ""
    initial: NDArray[np.floating] | None = None

    @property
    def n_in(self) -> int:
        """Inputs of a linear layer, input channels of a convolution."""
        if self.kind == "linear":
            return int(self.weight.shape[0])
        return int(self.weight.shape[1]) * self.groups

    @property
    def n_out(self) -> int:
        """Outputs of a linear layer, output channels of a convolution."""
        return int(self.weight.shape[1 if self.kind == "linear" else 0])


def chain_to_graph(
    layers: Sequence[ChainLayer],
    *,
    scope: str = "paper",
    norm: str = "l1",
    name: str = "",
    left_out: Iterable[LeftOut] = (),
) -> NeuronGraph:
    """Connect the neurons of a chain by the magnitudes of its weights.

    The edge between input i and output j of a linear layer weighs |w_ij|, that between two
    channels the norm of the slice of the kernel that maps one to the other. Between a channel
    and a fully connected neuron it is the norm over the channel's positions (flattened channel
    by channel). The scales of a layer multiply its weights before the norm is taken.

    Parameters
    ----------
    layers : sequence of ChainLayer
        The layers in order; each reads the outputs of the one before.
    scope : {"paper", "all"}
        `"paper"`: every neuron of a network without convolutions; with convolutions only their
        output channels, so that the image's channels and the fully connected layers are left
        out. `"all"`: every neuron and channel.
    norm : {"l1", "l2", "column-sum"}
        Norm of a kernel slice: the sum of its magnitudes, its Euclidean norm, or the largest sum
        of a column's magnitudes, which the paper's code takes for the first.
    name : str
        The model's name.
    left_out : iterable of LeftOut
        What was left out before, for the graph's list.

    Raises
    ------
    InputError
        If scope or norm is unknown, fewer than two layers remain, two successive layers do not
        fit, or a layer's weights are not finite or all zero.

    Source: Filan et al. (2021), Clusterability in Neural Networks, section 2.
    """
    check_options(scope, norm)
    prefix = f"{name}: " if name else ""
    if not layers:
        raise InputError(f"{prefix}no weights found")
    gap = first_gap(layers)
    if gap:
        raise InputError(f"{prefix}{gap}")
    only_convolutions = scope == "paper" and any(layer.kind == "conv" for layer in layers)
    kept = [layer for layer in layers if layer.kind == "conv"] if only_convolutions else [*layers]
    if len(kept) < 2:
        raise InputError(prefix + _too_short(layers, only_convolutions))
    if only_convolutions:
        dropped = _dropped_by_paper_scope(layers)
        vertices, readers = [(layer.name, layer.n_out) for layer in kept], kept[1:]
    else:
        dropped = []
        vertices = [("input", kept[0].n_in), *((layer.name, layer.n_out) for layer in kept)]
        readers = kept
    blocks = (
        (at, at + 1, edge_weights(layer, norm, vertices[at][1]), layer.name)
        for at, layer in enumerate(readers)
    )
    graph = build_graph(vertices, blocks, left_out=[*left_out, *dropped], name=name)
    return _with_roles(graph, [None, *layers] if readers is kept else layers, readers, norm)


def _with_roles(
    graph: NeuronGraph,
    writers: Sequence[ChainLayer | None],
    readers: Sequence[ChainLayer],
    norm: str,
) -> NeuronGraph:
    """Tell the graph's layers who reads them and may be rescaled, its blocks which are copies.

    `writers` begin with those of the graph's layers in order, None for the network's input.
    """
    ties = _ties(readers)
    # Copies of weights count for what may be rescaled also where the graph leaves them out.
    chain = [layer for layer in writers if layer is not None]
    copies = {layer for layer, tie in zip(chain, _ties(chain), strict=True) if tie}
    layers = []
    for number, layer in enumerate(graph.layers):
        writer, reader = writers[number], next(iter(writers[number + 1 : number + 2]), None)
        # Factors of a neuron of a shared weight would have to be those of its other copies.
        shared = writer in copies or reader in copies
        is_hidden = writer is not None and reader is not None and not shared
        layers.append(
            replace(
                layer,
                rescalable=writer.rescalable if writer and is_hidden else False,
                read_by=(reader.module or reader.name,) if reader else (),
            )
        )
    blocks = []
    for block, reader, tie in zip(graph.blocks, readers, ties, strict=True):
        initial = _initial(reader, norm, graph.layers[block.source].size)
        name, transposed = tie or ("", False)
        blocks.append(replace(block, tie=name, tie_transposed=transposed, initial=initial))
    return replace(graph, layers=tuple(layers), blocks=tuple(blocks))


def _initial(layer: ChainLayer, norm: str, n_before: int) -> Initial | None:
    """A sample of the edge weights that a layer has as it is initialized.

    A batch norm has no say in it: as it starts, its scale is 1, to within its eps.
    """
    if layer.initial is None:
        return None
    plain = replace(layer, weight=layer.initial, input_scale=None, output_scale=None)
    matrix = edge_weights(plain, norm, n_before)
    everywhere = layer.kind == "linear" or layer.groups == 1
    values = matrix.ravel() if everywhere else matrix[matrix > 0]
    step = -(-values.size // MAX_SAMPLE)
    # Initial weights are independent of each other, so any of them are a random sample.
    sample = values[::step]
    dtype = np.float64 if sample.dtype == np.float64 else np.float32
    return Initial(np.ascontiguousarray(sample, dtype=dtype), everywhere)


def _ties(layers: Sequence[ChainLayer]) -> list[tuple[str, bool] | None]:
    """For each layer that has the weights of others, the first one's name, and if transposed."""
    ties: list[tuple[str, bool] | None] = [None] * len(layers)
    for at, layer in enumerate(layers):
        for before, first in enumerate(layers[:at]):
            if ties[before] is not None and ties[before] != (first.name, False):
                continue  # a copy itself: its original has been compared
            transposed = not _equal(layer.weight, first.weight)
            if transposed and not (layer.kind == "linear" and _equal(layer.weight.T, first.weight)):
                continue
            ties[before], ties[at] = (first.name, False), (first.name, transposed)
            break
    return ties


def _equal(first: NDArray[np.floating], second: NDArray[np.floating]) -> bool:
    """Whether two arrays of weights are the same; weights trained apart never are."""
    if first.shape != second.shape or not np.array_equal(first[0], second[0]):
        return False
    return np.array_equal(first, second)


def check_options(scope: str, norm: str) -> None:
    """Refuse an unknown scope or norm."""
    for option, value, known in (
        ("scope", scope, get_args(Scope)),
        ("norm", norm, get_args(Norm)),
    ):
        if value not in known:
            names = " or ".join(repr(choice) for choice in known)
            raise InputError(f"{option}: must be {names}, got {value!r}")


def first_gap(layers: Sequence[ChainLayer]) -> str | None:
    """Say where a sequence of layers stops being a chain; None if it is one."""
    for layer in layers:
        if not layer.weight.size:
            return f"layer {layer.name!r} has weights of shape {layer.weight.shape}: no neurons"
    for before, after in pairwise(layers):
        if before.kind == "linear" and after.kind == "conv":
            return (
                f"convolution {after.name!r} follows the fully connected {before.name!r}; "
                "only the other order is understood"
            )
        flattened = before.kind == "conv" and after.kind == "linear"
        if after.n_in != before.n_out and not (flattened and after.n_in % before.n_out == 0):
            return (
                f"layer {after.name!r} reads {after.n_in} values, but {before.name!r} before it "
                f"gives {before.n_out}{' channels' if before.kind == 'conv' else ''}"
            )
    return None


def with_depthwise_groups(layers: Iterable[ChainLayer]) -> list[ChainLayer]:
    """Set the groups of convolutions that have one input channel per group.

    A weight array does not tell its groups. One input channel after a layer of several
    channels means that each group reads one of them.
    """
    result: list[ChainLayer] = []
    for layer in layers:
        channels = result[-1].n_out if result else 1
        one_each = layer.kind == "conv" and layer.weight.shape[1] == 1 and channels > 1
        if one_each and layer.n_out % channels == 0:
            layer = replace(layer, groups=channels)
        result.append(layer)
    return result


def edge_weights(layer: ChainLayer, norm: str, n_before: int) -> NDArray[np.floating]:
    """Magnitudes of a layer as a matrix of shape (n_before, n_out).

    `n_before` is the number of vertices that the layer reads: its inputs, or the channels of
    the convolution whose flattened output it reads. Where weights are summed or scaled, 16 bits
    become 32.
    """
    scaled = layer.input_scale is not None or layer.output_scale is not None
    if layer.weight.itemsize == 2 and (layer.kind == "conv" or scaled or layer.n_in != n_before):
        layer = replace(layer, weight=layer.weight.astype(np.float32))
    # Infinite and NaN entries are not an error here: the graph reports them by layer.
    with np.errstate(invalid="ignore", over="ignore"):
        matrix = _between_channels(layer, norm) if layer.kind == "conv" else np.abs(layer.weight)
        if layer.input_scale is not None:
            repeats = matrix.shape[0] // layer.input_scale.size
            factors = np.abs(np.repeat(layer.input_scale, repeats)).astype(matrix.dtype)
            matrix = matrix * factors[:, None]
        if layer.output_scale is not None:
            matrix = matrix * np.abs(layer.output_scale).astype(matrix.dtype)
        if matrix.shape[0] == n_before:
            return matrix
        return _norm(matrix.reshape(n_before, -1, matrix.shape[1]), norm, axis=1)


def normalization_scale(
    gamma: NDArray[np.floating] | None, variance: NDArray[np.floating], eps: float
) -> NDArray[np.float64]:
    """Factor gamma / sqrt(variance + eps) of a batch norm, per channel, shape (c,)."""
    # A negative variance gives NaN, which the graph reports by layer.
    with np.errstate(invalid="ignore", divide="ignore"):
        scale = 1.0 / np.sqrt(variance.astype(np.float64) + eps)
    return scale if gamma is None else scale * gamma


def _between_channels(layer: ChainLayer, norm: str) -> NDArray[np.floating]:
    """Norms of the kernel slices, shape (in, out); block-diagonal if there are groups."""
    weight, groups = layer.weight, layer.groups
    if norm == "column-sum":
        slices = _column_sum(layer)
    else:
        slices = _norm(np.abs(weight).reshape(*weight.shape[:2], -1), norm, axis=2)
    if groups == 1:
        return slices.T
    per_group = slices.reshape(groups, -1, weight.shape[1]).transpose(0, 2, 1)
    _, n_in, n_out = per_group.shape
    matrix = np.zeros((groups, n_in, groups, n_out), dtype=slices.dtype)
    group = np.arange(groups)
    matrix[group, :, group, :] = per_group
    return matrix.reshape(groups * n_in, groups * n_out)


def _norm(magnitudes: NDArray[np.floating], norm: str, axis: int) -> NDArray[np.floating]:
    """Norm of non-negative values along an axis; those of one row have columns of one entry."""
    if norm == "l2":
        return np.asarray(np.sqrt(np.square(magnitudes).sum(axis=axis)))
    return np.asarray(magnitudes.sum(axis=axis))


def _column_sum(layer: ChainLayer) -> NDArray[np.floating]:
    """Largest sum of a column's magnitudes in each kernel slice, shape (out, in)."""
    if layer.weight.ndim != 4:
        raise InputError(
            f"norm: 'column-sum' is for kernels with two axes of positions, not for {layer.name!r} "
            f"of shape {layer.weight.shape}; use 'l1'"
        )
    return np.asarray(np.abs(layer.weight).sum(axis=2).max(axis=2))


def _dropped_by_paper_scope(layers: Sequence[ChainLayer]) -> list[LeftOut]:
    first = next(layer for layer in layers if layer.kind == "conv")
    dropped = [
        LeftOut(first.name, first.weight.shape, "edges from the image's channels (scope='paper')")
    ]
    dropped += [
        LeftOut(layer.name, layer.weight.shape, "fully connected layer (scope='paper')")
        for layer in layers
        if layer.kind == "linear"
    ]
    return dropped


def _too_short(layers: Sequence[ChainLayer], only_convolutions: bool) -> str:
    if only_convolutions and len(layers) > 1:
        return (
            "only one convolution, and scope='paper' keeps nothing but the channels between two "
            "convolutions; use scope='all' to include the image's channels and the fully "
            "connected layers"
        )
    return (
        f"a chain needs at least two weight layers, found only {layers[0].name!r} with weights "
        f"of shape {layers[0].weight.shape}; {SINGLE_MATRIX_HINT}"
    )
