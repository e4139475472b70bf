"""Assembles a NeuronGraph from the record of a forward pass: vertices, blocks, roles, left_out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ncut.errors import InputError
from ncut.extract.arrays import SINGLE_MATRIX_HINT
from ncut.extract.assembly.by_reader import by_reader
from ncut.extract.assembly.by_stream import by_stream
from ncut.extract.assembly.layout import Edges, Layout, blocks, grouped
from ncut.extract.assembly.magnitudes import Norm, of_weight
from ncut.extract.assembly.parts import part_of
from ncut.extract.lowering.signal import NOTHING, Part, Units
from ncut.extract.lowering.wiring import Operation, Residual, Wiring
from ncut.extract.program.weights import Expression, Place
from ncut.graphs import NeuronGraph, build_graph
from ncut.types import Block, Initial, Parameter

if TYPE_CHECKING:
    from ncut.extract.lowering.signal import Group
    from ncut.types import Weights

Scope = Literal["paper", "all"]

MAX_SAMPLE = 2**16
"""Largest sample of a layer's initial weights."""

ALL_ZERO = "all its weights are zero"


def check_options(
    scope: str = "paper",
    norm: str = "l1",
    residual: str | None = None,
    unknown: str = "error",
) -> None:
    """Refuse an unknown value of `scope`, `norm`, `residual` or `unknown`."""
    for option, value, known in (
        ("scope", scope, get_args(Scope)),
        ("norm", norm, get_args(Norm)),
        ("residual", residual or "readers", get_args(Residual)),
        ("unknown", unknown, ("error", "elementwise")),
    ):
        if value not in known:
            names = " or ".join(repr(choice) for choice in known)
            raise InputError(f"{option}: must be {names}, got {value!r}")


def assemble(
    wiring: Wiring,
    *,
    scope: str = "paper",
    norm: str = "l1",
    name: str = "",
    parameters: Mapping[str, tuple[int, ...]] | None = None,
    initial: bool = False,
    scratch: Path | None = None,
    part: str | None = None,
) -> NeuronGraph:
    """Connect the neurons of a model by the magnitudes of its weights.

    Parameters
    ----------
    wiring : Wiring
        The record of its forward pass.
    scope : {"paper", "all"}
        `"paper"`: every neuron of a network without convolutions, or with attention or recurrent
        layers; in a convolutional network only the channels that its convolutions write, without
        the edges from the image's channels and the fully connected layers after the last
        convolution. `"all"`: every neuron and channel.
    norm : {"l1", "l2", "column-sum"}
        Norm of a kernel slice.
    name : str
        The model's name.
    parameters : mapping from str to shape, optional
        All of the model's parameters, to list their roles in the graph.
    initial : bool
        Whether to add a sample of each layer's initial weights.
    scratch : Path, optional
        A folder for large blocks, instead of memory.
    part : str, optional
        The part of the model to keep, see `ncut.extract.assembly.parts`; weights of the rest are
        not read.

    Raises
    ------
    InputError
        If there are fewer than two weight layers, no such part, or a layer's weights are not
        finite or all zero.

    Source: Filan et al. (2021), Clusterability in Neural Networks, section 2.
    """
    layout = plan(wiring, scope=scope, norm=norm, name=name)
    if part is not None:
        layout = part_of(layout, wiring, part)
    layout.edges = [*_with_weights(layout, wiring)] if _branches(wiring) else layout.edges
    joining: list[Edges] = []
    graph = build_graph(
        [(layer.name, layer.size) for layer in layout.layers],
        _joining_blocks(layout, wiring, norm, joining),
        name=name,
        scratch=scratch,
    )
    layout.edges = joining
    wiring.finish()
    for operation in _weighted(wiring):
        _note_left_out(wiring, operation, layout, part)
    if part is None and wiring.residual == "readers":
        _note_unread_neurons(wiring, layout)
    graph = _with_roles(graph, layout, wiring, norm, initial)
    return replace(
        graph,
        left_out=_left_out(wiring, parameters or {}),
        parameters=_parameters(wiring, layout, parameters or {}),
        sums=wiring.residual if wiring.sums or wiring.attends else "",
    )


def plan(wiring: Wiring, *, scope: str = "paper", norm: str = "l1", name: str = "") -> Layout:
    """Plan the layers of vertices and the edges of the graph of a forward pass.

    Parameters and errors as for `assemble`; weights are not read.
    """
    check_options(scope, norm)
    weighted = _weighted(wiring)
    prefix = f"{name}: " if name else ""
    if not weighted:
        raise InputError(f"{prefix}no weights found")
    convolutional = scope == "paper" and _is_convolutional(wiring)
    kept = _channels(weighted, wiring) if convolutional else set(weighted)
    unread = _with_ends(weighted, wiring)
    kept -= unread
    if len(kept) < 2:
        raise InputError(prefix + _too_short(weighted, convolutional))
    make = by_reader if wiring.residual == "readers" else by_stream
    layout = make(wiring, kept, inputs=not convolutional)
    if not layout.edges:
        raise InputError(prefix + _too_short(weighted, convolutional))
    layout.kept, layout.unread, layout.convolutional = kept, unread, convolutional
    return layout


def _weighted(wiring: Wiring) -> list[Operation]:
    return [operation for operation in wiring.operations if operation.weight is not None]


def _is_convolutional(wiring: Wiring) -> bool:
    operations = wiring.operations
    recurrent = any(operation.within is not None for operation in operations)
    return not (wiring.attends or recurrent) and any(
        o.kind == "conv" and o.on_positions for o in operations
    )


def _channels(weighted: Sequence[Operation], wiring: Wiring) -> set[Operation]:
    """Convolutions, layers that act at each position, and layers followed by either."""
    kept: set[Operation] = set()
    read: set[Group] = set()
    for operation in reversed(weighted):
        on_channels = operation.kind == "conv" or operation.on_positions
        if on_channels or operation.writes in read:
            kept.add(operation)
            read |= {part.group for part in operation.parts}
    return kept


def _with_ends(weighted: Sequence[Operation], wiring: Wiring) -> set[Operation]:
    """Operations whose neurons have no reader, including reductions to a number.

    A reduction of neurons to a number (a distance, a returned norm) counts as their reader if
    they have no other.
    """
    unread = _unread(weighted, wiring)
    read: dict[Group, NDArray[np.bool_]] = {}
    if wiring.ends and wiring.residual == "readers":
        _note_read((part for operation in wiring.operations for part in operation.parts), read)
    while wiring.ends:
        end = wiring.ends.pop()
        groups = {operation.writes for operation in unread}
        parts = [part for part in end.parts if part.group in groups]
        for part in end.parts:
            # Other neurons of the same layer may have readers, as values beside queries.
            units = np.where(_is_read(part.units, read.get(part.group)), NOTHING, part.units)
            if part.group not in groups and (units != NOTHING).any():
                parts.append(replace(part, units=units))
        if parts:
            wiring.end(end.name, end.n_in, parts)
            _note_read(parts, read)
            unread = _unread(weighted, wiring)
    return unread


def _note_read(parts: Iterable[Part], read: dict[Group, NDArray[np.bool_]]) -> None:
    """Record the neurons that are read."""
    for part in parts:
        mask = read.setdefault(part.group, np.zeros(part.group.size, dtype=np.bool_))
        mask[part.units[part.units != NOTHING]] = True


def _is_read(units: Units, read: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    seen: NDArray[np.bool_] = (units == NOTHING) | (True if read is None else read[units])
    return seen


def _unread(weighted: Sequence[Operation], wiring: Wiring) -> set[Operation]:
    """Operations whose neurons have no reader: biases of attention scores, auxiliary heads."""
    read = wiring.joined | wiring.merging.sums
    read |= {p.group for o in wiring.operations if o.weight is None for p in o.parts}
    unread = set()
    for operation in reversed(weighted):
        if operation.writes in read:
            read |= {part.group for part in operation.parts}
        else:
            unread.add(operation)
    return unread


def _branches(wiring: Wiring) -> bool:
    """Check whether neurons have several readers, so that no block is their only connection."""
    read = [part.group for operation in wiring.operations for part in operation.parts]
    return len(set(read)) < len(read) or bool(wiring.merging.sums)


def _with_weights(layout: Layout, wiring: Wiring) -> Iterator[Edges]:
    """The edges without operations whose weights are all zero, such as heads before training."""
    empty: dict[Operation, bool] = {}
    for edges in layout.edges:
        operation = edges.operation
        if operation not in empty:
            weight = operation.weight
            assert weight is not None
            empty[operation] = not (weight.values[:1, :8].any() or weight.values.any())
            if empty[operation]:
                wiring.leave_out(operation.name, weight.shape, ALL_ZERO)
                layout.placed.add(operation)
        if not empty[operation]:
            yield edges


def _joining_blocks(
    layout: Layout, wiring: Wiring, norm: str, joining: list[Edges]
) -> Iterator[tuple[int, int, Weights, str]]:
    """The blocks of edges; empty blocks are dropped unless the graph would be disconnected.

    Weights within a layer may connect no two neurons, e.g. with a single hidden unit or a
    depthwise kernel on a residual stream; a norm's factors may all be initialized as zeros.
    """
    branches = _branches(wiring)
    empty: dict[str, tuple[Edges, tuple[int, ...]]] = {}
    for edges, weights in blocks(layout.edges, norm):
        within = edges.source == edges.target
        if branches or within:
            values: Any = weights if isinstance(weights, np.ndarray) else weights.data
            if not (values[:1].any() or values.any()):
                empty[edges.label] = (edges, weights.shape)
                continue
        joining.append(edges)
        yield edges.source, edges.target, weights, edges.label
        del weights
    labels = {edges.label for edges in joining}
    for label, (edges, shape) in empty.items():
        if label not in labels:
            within = edges.source == edges.target
            why = "no weights between different neurons" if within else ALL_ZERO
            wiring.leave_out(label, shape, why)


def _note_left_out(wiring: Wiring, operation: Operation, layout: Layout, part: str | None) -> None:
    assert operation.weight is not None
    shape = operation.weight.shape
    if operation in layout.outside:
        wiring.leave_out(operation.name, shape, f"not in the part {part!r}")
    elif operation not in layout.kept and operation not in layout.unread:
        wiring.leave_out(operation.name, shape, "fully connected layer (scope='paper')")
    elif operation not in layout.placed:
        from_image = layout.convolutional and all(
            part.group in wiring.inputs for part in operation.parts
        )
        reason = (
            "edges from the image's channels (scope='paper')"
            if from_image
            else "nothing that is in the graph reads what it writes"
        )
        wiring.leave_out(operation.name, shape, reason)


def _note_unread_neurons(wiring: Wiring, layout: Layout) -> None:
    """List neurons without a vertex, of layers whose other neurons have one."""
    landed: dict[Operation, NDArray[np.bool_]] = {}
    for edges in layout.edges:
        group = edges.operation.writes
        if group is not None and not edges.recurrent:
            mask = landed.setdefault(edges.operation, np.zeros(group.size, dtype=np.bool_))
            mask[edges.units[edges.units != NOTHING]] = True
    for operation, mask in landed.items():
        if not mask.all():
            n = int(np.count_nonzero(~mask))
            reason = "nothing that is in the graph reads these neurons"
            wiring.leave_out(f"neurons of {operation.name}", (n,), reason)


def _with_roles(
    graph: NeuronGraph, layout: Layout, wiring: Wiring, norm: str, initial: bool
) -> NeuronGraph:
    """Record readers and rescaling invariance of the graph's layers, and copies of its blocks."""
    weighted = _weighted(wiring)
    ties = dict(zip(weighted, _ties(weighted), strict=True))
    copies = {operation for operation, tie in ties.items() if tie}
    layers = []
    for layer, planned in zip(graph.layers, layout.layers, strict=True):
        # A shared weight's neurons would need the same factors in all copies.
        shared = any(operation in copies for operation in planned.touches)
        layers.append(
            replace(
                layer,
                rescalable=False if shared else planned.rescalable,
                read_by=planned.read_by,
            )
        )
    landed: dict[Operation, int] = {}
    for edges in layout.edges:
        landed[edges.operation] = landed.get(edges.operation, 0) + edges.whole
    order = sorted(layout.edges, key=lambda e: (min(e.source, e.target), max(e.source, e.target)))
    blocks = [
        _with_tie(
            block,
            edges,
            ties,
            landed[edges.operation] > 1,
            _initial(edges, norm, graph.exponent) if initial else None,
        )
        for block, edges in zip(graph.blocks, order, strict=True)
    ]
    # The other copy may be outside the graph: a tie needs two members.
    n_tied = Counter(block.tie for block in blocks)
    blocks = [b if n_tied[b.tie] > 1 else replace(b, tie="", tie_transposed=False) for b in blocks]
    return replace(graph, layers=tuple(layers), blocks=tuple(blocks))


def _with_tie(
    block: Block,
    edges: Edges,
    ties: Mapping[Operation, tuple[str, bool] | None],
    lands_often: bool,
    initial: Initial | None,
) -> Block:
    tie = ties[edges.operation] if edges.whole else None
    if tie is None and edges.whole and lands_often:
        tie = (edges.operation.name, False)
    name, transposed = tie or ("", False)
    if edges.whole and edges.source > edges.target and name:
        transposed = not transposed
    return replace(block, tie=name, tie_transposed=transposed, initial=initial)


def _initial(edges: Edges, norm: str, exponent: int) -> Initial | None:
    """A sample of a layer's initial edge weights, in units of 2^exponent.

    Batch norms are ignored: their initial scale is 1, up to eps.
    """
    operation = edges.operation
    weight = operation.initial() if operation.initial else None
    if weight is None or edges.label != operation.name:
        return None
    plain = of_weight(weight, operation.kind, operation.groups, norm, operation.name)
    matrix: Any = grouped(edges, plain, norm)
    everywhere = operation.kind != "conv" or operation.groups == 1
    dense = matrix if isinstance(matrix, np.ndarray) else matrix.data
    values = dense.ravel() if everywhere else dense[dense > 0]
    step = max(-(-values.size // MAX_SAMPLE), 1)
    # Initial weights are independent, so any subset is a random sample.
    sample = values[::step]
    if exponent:
        sample = np.ldexp(sample.astype(np.float64), -exponent)
    dtype = np.float64 if sample.dtype == np.float64 else np.float32
    return Initial(np.ascontiguousarray(sample, dtype=dtype), everywhere)


def _ties(operations: Sequence[Operation]) -> list[tuple[str, bool] | None]:
    """For each operation with tied weights, the original's name, and whether it is transposed."""
    ties: list[tuple[str, bool] | None] = [None] * len(operations)
    alike: dict[tuple[Any, ...], list[int]] = {}
    weights = [operation.weight for operation in operations]
    places = [None if weight is None else weight.place() for weight in weights]
    for at, operation in enumerate(operations):
        weight = weights[at]
        assert weight is not None
        # Equal weights, or transposes of each other, share their first number.
        begins = (tuple(sorted(weight.shape)), float(weight.values[(0,) * weight.ndim]))
        earlier = alike.setdefault(begins, [])
        for before in earlier:
            first, known = operations[before], weights[before]
            if ties[before] is not None and ties[before] != (first.name, False):
                continue  # itself a copy, whose original has been compared
            assert known is not None
            matrices = "conv" not in (operation.kind, first.kind)
            transposed = not _one(weight, known, places[at], places[before])
            if transposed and not (
                matrices and _one(weight.T, known, _turned(places[at]), places[before])
            ):
                continue
            ties[before], ties[at] = (first.name, False), (first.name, transposed)
            break
        earlier.append(at)
    return ties


def _turned(place: Place | None) -> Place | None:
    return None if place is None else (*place[:2], place[2][::-1])


def _one(first: Expression, second: Expression, place: Place | None, other: Place | None) -> bool:
    """Check whether two arrays are the same weights.

    Two views are the same if they share their place in a module's tensor. Values are compared if
    they were computed twice from one parameter, or if names do not identify parameters: lists of
    arrays have no names, state dicts hold tied weights under several names, and ONNX exporters
    write transposed copies. Weights that were trained separately are never equal.
    """
    if place is not None and other is not None:
        return place == other
    return first.leaves == second.leaves and _equal(first.values, second.values)


def _equal(first: NDArray[np.floating], second: NDArray[np.floating]) -> bool:
    return (
        first.shape == second.shape
        and np.array_equal(first[:1, :8], second[:1, :8])
        and np.array_equal(first, second)
    )


def _left_out(wiring: Wiring, parameters: Mapping[str, tuple[int, ...]]) -> tuple[Any, ...]:
    known = {item.name for item in wiring.left_out}
    for name, shape in parameters.items():
        # Biases and other vectors add no edges.
        layer = name.rpartition(".")[0]
        used = name in wiring.placed or name in wiring.ignored or known & {name, layer}
        if len(shape) >= 2 and not used:
            wiring.leave_out(name, shape, "the forward pass does not use it")
    return tuple(wiring.left_out)


def _parameters(
    wiring: Wiring, layout: Layout, parameters: Mapping[str, tuple[int, ...]]
) -> tuple[Parameter, ...]:
    """The role of each of the model's parameters."""
    reasons = {item.name: item.reason for item in wiring.left_out}
    edges: dict[str, set[str]] = {}
    for operation in _weighted(wiring):
        # A layer is placed under its own name, which differs from its weights' names.
        why = reasons.get(operation.name, "")
        kept = operation in layout.placed and operation not in layout.outside
        lost = "" if kept and why != ALL_ZERO else why
        for name in operation.parameters:
            edges.setdefault(name, set()).add(lost)
    found = []
    for name, shape in parameters.items():
        layer = name.rpartition(".")[0]
        reason = reasons.get(name) or (reasons.get(layer) if len(shape) >= 2 else None)
        if name in edges:
            # A part of it may be left out, as the projection of a query that is a parameter.
            reason = None if "" in edges[name] else reason or next(iter(edges[name]))
        if reason is None and name in wiring.placed:
            found.append(Parameter(name, shape, True, wiring.placed[name]))
        else:
            vector = "a bias or another vector" if len(shape) < 2 else "not used"
            role = reason or wiring.ignored.get(name) or vector
            found.append(Parameter(name, shape, False, role))
    return tuple(found)


def _too_short(operations: Sequence[Operation], convolutional: bool) -> str:
    if convolutional and len(operations) > 1:
        return (
            "only one convolution, and scope='paper' keeps nothing but the channels between two "
            "convolutions; use scope='all' to include the image's channels and the fully "
            "connected layers"
        )
    first = operations[0]
    assert first.weight is not None
    return (
        f"a chain needs at least two weight layers, found only {first.name!r} with weights "
        f"of shape {first.weight.shape}; {SINGLE_MATRIX_HINT}"
    )
