"""Maps the entries of a model's weight tensors to the edges of its graph.

Parameters are replaced by entry numbers and the graph's weights recomputed: each weight is then
the number of its source entry, through any transposition, split or concatenation. A chain of
arrays is read with numbers in place of the arrays. The weights themselves verify the mapping.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from ncut.errors import InputError
from ncut.extract.arrays import as_array
from ncut.extract.assembly.assemble import Scope, plan
from ncut.extract.assembly.layout import Edges
from ncut.extract.lowering.kinds import lower
from ncut.extract.lowering.signal import NOTHING
from ncut.extract.lowering.wiring import Wiring
from ncut.extract.modules import is_module, unwrapped
from ncut.extract.readers.chain import ChainLayer, chain_program, read_sequence
from ncut.extract.readers.state_dict import read_arrays

if TYPE_CHECKING:
    from torch import nn

    from ncut.types import Layer

Key: TypeAlias = Any
"""A module's path and its tensor's name; for arrays, the number or the name."""

Numbers: TypeAlias = dict[Key, NDArray[np.int64]]
"""A number for each entry of each tensor."""

NO_CLUSTER, ALONE = -1, -2
"""Labels of a vertex in no cluster, and of a vertex in a cluster that is not kept."""


class Marks(NamedTuple):
    """Masks of one tensor's entries for a set of clusters.

    Attributes
    ----------
    between, inside : ndarray of bool, of the tensor's shape
        Whether an entry makes an edge between two clusters, and an edge inside a cluster; an
        entry that reads a sum of several layers may make both.
    """

    between: NDArray[np.bool_]
    inside: NDArray[np.bool_]


class Join(NamedTuple):
    """The vertices connected by one operation's weights, and the weights' source entries.

    entries: shape of the weights, numbers of entries; 0 for none.
    inputs, outputs: the vertices of each input and output, `NOTHING` for none, (n, m).
    """

    name: str
    module: str
    source: int
    target: int
    groups: int | None
    entries: NDArray[np.int64]
    inputs: NDArray[np.int64]
    outputs: NDArray[np.int64]

    @property
    def names(self) -> set[str]:
        """Names of the operation."""
        return {self.name, self.module}

    def block(self, values: NDArray[np.floating], n_source: int, n_target: int) -> Any:
        """Numbers for the entries, shape of the weights -> sums between vertices, sparse."""
        from scipy import sparse

        n_in, n_out = len(self.inputs), len(self.outputs)
        if self.groups is None:
            matrix = sparse.csr_array(values)
        else:
            kernels = values.reshape(*values.shape[:2], -1).sum(2)
            output, own = np.indices(kernels.shape)
            row = output // (n_out // self.groups) * kernels.shape[1] + own
            flat = (row.ravel(), output.ravel())
            matrix = sparse.csr_array((kernels.ravel(), flat), shape=(n_in, n_out))
        sides = []
        for vertices, n in ((self.inputs, n_source), (self.outputs, n_target)):
            at, way = np.nonzero(vertices >= 0)
            place = (at, vertices[at, way])
            sides.append(sparse.csr_array((np.ones(at.size), place), shape=(len(vertices), n)))
        return sides[0].T @ matrix @ sides[1]

    def marked(
        self, labels: NDArray[np.integer], starts: NDArray[np.int64]
    ) -> Iterator[NDArray[np.int64]]:
        """Numbers of the entries between clusters, and of the entries inside clusters."""
        ends = []
        for layer, vertices in ((self.source, self.inputs), (self.target, self.outputs)):
            own = labels[starts[layer] : starts[layer + 1]]
            ends.append(np.where(vertices >= 0, own[vertices], NO_CLUSTER))
        axes = self.entries.shape[:2]
        between, inside = np.zeros(axes, dtype=bool), np.zeros(axes, dtype=bool)
        for sender in ends[0].T:
            for receiver in ends[1].T:
                a, b = self._sides(sender, receiver)
                known = (a != NO_CLUSTER) & (b != NO_CLUSTER)
                same = (a == b) & (a != ALONE)
                between |= known & ~same
                inside |= known & same
        for found in (between, inside):
            entries = self.entries[found]
            yield entries[entries > 0]

    def _sides(
        self, sender: NDArray[np.integer], receiver: NDArray[np.integer]
    ) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
        """Labels of both ends, broadcastable to the first two axes of the weights."""
        if self.groups is None:
            return sender[:, None], receiver
        by_group = sender.reshape(self.groups, -1)
        return np.repeat(by_group, len(receiver) // self.groups, axis=0), receiver[:, None]


@dataclass(frozen=True, slots=True, eq=False)
class References:
    """The weight tensors of a model's graph, and the edges made by their entries."""

    names: tuple[str, ...]  # names of the graph's layers
    sizes: tuple[int, ...]  # number of vertices of each layer
    shapes: dict[Key, tuple[int, ...]]  # the shape of each weight tensor, by its key
    starts: dict[Key, int]  # the number of each tensor's first entry
    joins: tuple[Join, ...]  # connections of the entries, by operation and pair of layers

    @property
    def operations(self) -> set[str]:
        """Names of the layers and modules with these weights."""
        return set().union(*(join.names for join in self.joins))

    def marks(
        self,
        labels: NDArray[np.integer],
        keep: Sequence[int] | None = None,
        free: Sequence[str] = (),
    ) -> dict[Key, Marks]:
        """The masks of each tensor for a partition.

        Parameters
        ----------
        labels : ndarray of int, shape (n,)
            The cluster of each vertex; negative for none, and its edges count as neither.
        keep : sequence of int, optional
            Clusters; edges inside other clusters count as between clusters. By default all.
        free : sequence of str
            Names of operations whose edges count as neither.
        """
        starts = np.concatenate([[0], np.cumsum(self.sizes)])
        last = max(self.starts[key] + math.prod(shape) for key, shape in self.shapes.items())
        flags = np.zeros((2, last), dtype=bool)
        labels = np.where(labels < 0, NO_CLUSTER, labels)
        if keep is not None:
            labels = np.where(np.isin(labels, [NO_CLUSTER, *keep]), labels, ALONE)
        for join in self.joins:
            if join.names.isdisjoint(free):
                for kind, entries in zip(flags, join.marked(labels, starts), strict=True):
                    kind[entries] = True
        return {
            key: Marks(
                *(
                    kind[self.starts[key] :][: math.prod(shape)].reshape(shape).copy()
                    for kind in flags
                )
            )
            for key, shape in self.shapes.items()
        }


def references(
    model: Any,
    layers: Sequence[Layer] | None = None,
    *,
    scope: str = "paper",
    residual: str | None = None,
    example_inputs: Any = None,
) -> References:
    """Find the source entries of the weights of a model's graph.

    Parameters
    ----------
    model : torch.nn.Module, sequence or mapping of weight arrays
        The model. A module is read from a copy, and unchanged.
    layers : sequence of Layer, optional
        Layers of a graph of the model; `scope` and `residual` are then chosen to match them.
    scope, residual, example_inputs
        Options of reading; see `ncut.graph`.

    Raises
    ------
    InputError
        If the model has other layers, or computes weights of its graph from others.
    """
    reading = _reading(model, example_inputs)
    if layers is None:
        return _found(reading, residual, scope)
    wanted = [(layer.name, layer.size) for layer in layers]
    failure: Exception | None = None
    for convention in (None, "readers", "stream") if reading.has_sums else (None,):
        wiring = reading.wiring(convention)
        for choice in get_args(Scope):
            try:
                layout = plan(wiring, scope=choice)
            except InputError as error:
                failure = error
                continue
            if [(layer.name, layer.size) for layer in layout.layers] == wanted:
                return _found(reading, convention, choice)
    raise InputError(
        "model: its graph does not have the layers of the report; pass the model that was "
        "analysed, and example_inputs= as they were given then"
    ) from failure


class _Reading(NamedTuple):
    """A model, with functions to find the source entries of its weights.

    tensors: the weight tensors by their keys, as float64 arrays. wiring: gets a convention of
    sums, returns the record. entries: gets planned edges, arrays of numbers in place of the
    tensors, and a scope, and returns the numbers that lie in each weight, None where it is
    computed. has_sums: whether conventions of sums can differ.
    """

    tensors: dict[Key, NDArray[np.floating]]
    wiring: Callable[[str | None], Wiring]
    entries: Callable[[Sequence[Edges], Numbers, str], Iterator[NDArray[np.int64] | None]]
    has_sums: bool = False


def _found(reading: _Reading, residual: str | None, scope: str) -> References:
    starts, total = {}, 1  # 0 stands for no entry
    numbers: Numbers = {}
    for key, array in reading.tensors.items():
        starts[key] = total
        numbers[key] = np.arange(total, total + array.size).reshape(array.shape)
        total += array.size
    values = np.concatenate([np.zeros(1), *(a.ravel() for a in reading.tensors.values())])
    layout = plan(reading.wiring(residual), scope=scope)
    joins = []
    for edges, own in zip(layout.edges, reading.entries(layout.edges, numbers, scope), strict=True):
        known = own is not None and own.min(initial=0) >= 0 and own.max(initial=0) < total
        if (
            own is None
            or not known
            or not np.array_equal(edges.weight.values, values[own], equal_nan=True)
        ):
            raise InputError(
                f"model: the weights of {edges.label!r} are computed from its parameters, so that "
                "single ones cannot be taken out"
            )
        joins.append(_join(edges, own))
    places = np.array([*starts.values()])
    used = {
        [*starts][at]
        for join in joins
        for at in np.unique(np.searchsorted(places, join.entries[join.entries > 0], "right") - 1)
    }
    return References(
        tuple(layer.name for layer in layout.layers),
        tuple(layer.size for layer in layout.layers),
        {key: array.shape for key, array in reading.tensors.items() if key in used},
        starts,
        tuple(joins),
    )


def _join(edges: Edges, entries: NDArray[np.int64]) -> Join:
    operation = edges.operation
    is_kernel = operation.kind == "conv" and not edges.recurrent
    n_out = entries.shape[0 if is_kernel else 1]
    outputs = _by_output(edges.units, n_out)
    inputs = outputs if edges.recurrent else edges.places
    return Join(
        name=operation.name,
        module=operation.module,
        source=edges.source,
        target=edges.target,
        groups=operation.groups if is_kernel else None,
        entries=entries,
        inputs=np.arange(edges.n_source)[:, None] if inputs is None else inputs,
        outputs=outputs,
    )


def _by_output(units: NDArray[np.int64], n_out: int) -> NDArray[np.int64]:
    """The vertices of each output, (n_out, m), by inverting the outputs of each vertex."""
    vertices, columns = np.nonzero(units >= 0)
    outputs = units[vertices, columns]
    order = np.argsort(outputs, kind="stable")
    outputs, vertices = outputs[order], vertices[order]
    first = np.searchsorted(outputs, outputs)  # first occurrence of each output
    rank = np.arange(outputs.size) - first
    found = np.full((n_out, int(rank.max(initial=0)) + 1), NOTHING, dtype=np.int64)
    found[outputs, rank] = vertices
    return found


def _reading(model: Any, example_inputs: Any) -> _Reading:
    if is_module(model):
        return _of_module(unwrapped(model), example_inputs)
    if isinstance(model, Mapping):
        return _of_mapping(model)
    if isinstance(model, Sequence) and not isinstance(model, str):
        return _of_list(model)
    raise InputError(
        f"model: weights of a {type(model).__name__} cannot be taken out; pass the model itself: a "
        "torch.nn.Module, a list of weight arrays, or a mapping of names to weight arrays"
    )


def _of_list(model: Sequence[Any]) -> _Reading:
    tensors: dict[Key, NDArray[np.floating]] = {
        n: np.asarray(as_array(values, f"model: weights {n}"), dtype=np.float64)
        for n, values in enumerate(model)
    }
    return _of_arrays(tensors, lambda arrays: read_sequence([*arrays.values()]))


def _of_mapping(model: Mapping[Any, Any]) -> _Reading:
    arrays = {key: values for key, values in model.items() if hasattr(values, "ndim")}
    # A masked entry has no number.
    tensors: dict[Key, NDArray[np.floating]] = {
        key: np.asarray(as_array(values, f"model: {key}"), dtype=np.float64)
        for key, values in arrays.items()
        if values.ndim >= 2 and not str(key).endswith("weight_mask")
    }
    if not tensors:
        raise InputError("model: holds no weight arrays; of a checkpoint pass the state dict in it")
    return _of_arrays(tensors, lambda made: read_arrays({**model, **made}, where="the mapping")[0])


def _of_arrays(
    tensors: dict[Key, NDArray[np.floating]],
    read: Callable[[dict[Key, NDArray[np.floating]]], list[ChainLayer]],
) -> _Reading:
    """A chain of arrays, read with numbers in their place."""

    def entries(
        _: Sequence[Edges], numbers: Numbers, scope: str
    ) -> Iterator[NDArray[np.int64] | None]:
        given: dict[Key, NDArray[np.floating]] = {
            key: array.astype(np.float64) for key, array in numbers.items()
        }
        for edges in plan(lower(chain_program(read(given))), scope=scope).edges:
            yield np.rint(np.nan_to_num(edges.weight.values)).astype(np.int64)

    return _Reading(tensors, lambda _: lower(chain_program(read(tensors))), entries)


def _of_module(model: nn.Module, example_inputs: Any) -> _Reading:
    """A module, whose weights are expressions of its parameters."""
    import torch

    from ncut.extract.readers.traced.module import read_module
    from ncut.extract.readers.traced.plain import plain_copy

    plain = plain_copy(model, "finding its weights", hooks=True)
    # A tensor shared by several modules is named after the first module.
    places: dict[Key, Any] = {}
    for full_name, parameter in plain.named_parameters():
        if parameter.ndim >= 2 and parameter.is_floating_point():
            path, _, name = full_name.rpartition(".")
            places[path, name] = parameter
    tensors = {key: p.detach().double().numpy() for key, p in places.items()}

    def entries(
        planned: Sequence[Edges], numbers: Numbers, scope: str
    ) -> Iterator[NDArray[np.int64] | None]:
        numbered = {id(places[key]): torch.from_numpy(array) for key, array in numbers.items()}
        for edges in planned:
            weight, made = edges.weight, None
            if weight.known:
                with suppress(RuntimeError), torch.no_grad():  # not defined for integers
                    made = weight.tensor(lambda tensor: numbered.get(id(tensor), tensor))
            whole = made is not None and made.dtype == torch.int64
            yield made.numpy() if made is not None and whole else None

    def wiring(residual: str | None) -> Wiring:
        return read_module(plain, partial(lower, residual=residual), example_inputs=example_inputs)

    return _Reading(tensors, wiring, entries, has_sums=True)
