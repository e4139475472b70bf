"""Checks a graph's edges by perturbing single neurons of the network.

With `residual="readers"` and `scope="all"` a vertex is an input channel of a module or node that
holds weights. The network runs on random data, one input channel is changed before it is read,
and the changed input channels of every other reader are recorded. Once recorded, each reader's
input is reset to its value in the unchanged run, so changes pass a single layer of weights, and
the changed channels must be the vertex's neighbours.

Statistics that couple all channels (of layer norms, the weights of an attention) are not in the
graph, and are held constant here; activations are replaced by functions that cannot hide a
change. An edge is reported only if its end did not move for a change of either sign, with softmax
along the last axis as gates, and with all comparisons true.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ncut.types import Check

Read: TypeAlias = dict[tuple[str, int], NDArray[Any]]
"""The input of each call of a reader."""

# A product of the same matrices may differ in its last digits.
TOLERANCE = 1e-12
TOLERANCE_SINGLE = 1e-4

SCORES = re.compile(r"(heads|sum|mean)( |$)")
"""Names of layers of scalar products."""
CALL = re.compile(r" \(call \d+\)$")

Mode: TypeAlias = Literal["plain", "gates", "open"]
"""Mode of a run: softmax along the last axis constant, as in attention; softmax as a function of
its entries, as in gates; or all comparisons and selections true."""

AGAIN: tuple[tuple[int, Mode], ...] = ((-1, "gates"), (1, "open"))
"""Sign of the change and mode of further runs, for changes that the first run may have hidden."""

LARGE = 1e6
"""Size of a change, in units of the reader's largest input."""


@dataclass(frozen=True)
class Reader:
    """A layer of vertices that a module or node reads."""

    layer: int  # position of the layer in the graph
    size: int
    module: str  # the module's or node's name
    call: int  # number of the call

    @property
    def key(self) -> tuple[str, int]:
        """The module and the number of its call."""
        return self.module, self.call


@dataclass
class Outcome:
    """The result of a check."""

    n_vertices: int = 0  # number of vertices changed
    n_readers: int = 0  # number of watched calls of modules or nodes
    # Number of the graph's layers that these read, and of all its layers.
    n_watched: int = 0
    n_layers: int = 0
    n_edges: int = 0  # number of edges checked
    # Channels that changed without an edge in the graph
    missing: list[str] = field(default_factory=list)
    # Channels with an edge in the graph that did not change
    surplus: list[str] = field(default_factory=list)

    @property
    def agrees(self) -> bool:
        """Check whether the changed channels were exactly the neighbours, for all vertices."""
        return self.n_edges > 0 and not (self.missing or self.surplus)

    @property
    def summary(self) -> Check:
        """The result in the form stored in a graph."""
        return Check(
            self.n_vertices, self.n_watched, self.n_layers,
            tuple(self.missing), tuple(self.surplus),
        )  # fmt: skip


class Watch(ABC):
    """A network that runs with replaced inputs of some readers.

    Attributes
    ----------
    graph : NeuronGraph
        With residual="readers", scope="all".
    by_call : dict from (str, int) to Reader
        The readers of the graph's layers, in call order.
    n_calls, calls : dict from str to int
        Number of calls of each reader in the graph, and in the last run.
    exact : bool
        Whether the network runs in double precision.
    attends : bool
        Whether a run had a softmax over positions, as in attention.
    """

    exact = True
    attends = False

    def __init__(self, graph: Any) -> None:
        self.graph = graph
        self.by_call: dict[tuple[str, int], Reader] = {}
        self.n_calls: dict[str, int] = {}
        self.calls: dict[str, int] = {}

    def add(self, layer: int, module: str) -> None:
        """Watch one more call of a module or node."""
        call = self.n_calls.get(module, 0)
        self.n_calls[module] = call + 1
        size = self.graph.layers[layer].size
        self.by_call[module, call] = Reader(layer, size, module, call)

    @abstractmethod
    def run(self, instead: Read, mode: Mode = "plain") -> Read:
        """The inputs of all readers, some of them replaced; see `compared`."""

    @abstractmethod
    def axis(self, reader: Reader, ndim: int) -> int:
        """The channel axis of a reader's input."""

    def usable(self) -> list[Reader]:
        """Readers called as often as in the graph."""
        return [
            reader for reader in self.by_call.values()
            if self.calls.get(reader.module) == self.n_calls[reader.module]
        ]  # fmt: skip

    def by_vertex(self, reader: Reader, values: NDArray[Any]) -> NDArray[Any]:
        """The entries of each vertex, shape (vertices, ...), a view if possible."""
        first = np.moveaxis(values, self.axis(reader, values.ndim), 0)
        per, rest = divmod(len(first), reader.size)
        assert rest == 0, (reader, values.shape)
        return first.reshape(reader.size, per, *first.shape[1:]).reshape(reader.size, -1)

    def with_change(
        self, origin: Reader, vertex: int, baseline: Read, change: Callable[[Any], Any],
        mode: Mode = "plain",
    ) -> Read:  # fmt: skip
        """The inputs of all readers with one vertex changed, each then reset to its old input."""
        instead = {reader.key: baseline[reader.key] for reader in self.usable()}
        for reader in self.usable():
            if reader.layer == origin.layer:
                values = instead[reader.key].copy()
                first = np.moveaxis(values, self.axis(reader, values.ndim), 0)
                per = len(first) // reader.size
                part = first[vertex * per : (vertex + 1) * per]
                part += change(part)
                instead[reader.key] = values
        return self.run(instead, mode)

    def changed(
        self, origin: Reader, vertex: int, baseline: Read, rng: np.random.Generator,
        sign: int = 1, mode: Mode = "plain",
    ) -> dict[tuple[str, int], NDArray[np.bool_]]:  # fmt: skip
        """For each reader, the vertices that change with a given vertex."""
        size = sign * LARGE * float(np.abs(baseline[origin.key]).max() + 1)

        def noise(part: NDArray[Any]) -> NDArray[Any]:
            return np.asarray(rng.uniform(0.5, 1.5, part.shape) * size, dtype=part.dtype)

        read = self.with_change(origin, vertex, baseline, noise, mode)
        tolerance = TOLERANCE if self.exact else TOLERANCE_SINGLE
        found = {}
        for reader in self.usable():
            before = baseline[reader.key]
            with np.errstate(invalid="ignore"):
                differs = ~(np.abs(read[reader.key] - before) <= tolerance * np.abs(before).max())
            found[reader.key] = np.asarray(self.by_vertex(reader, differs).any(axis=1))
        return found


def compared(watch: Watch, graph: Any, *, n: int, seed: int) -> Outcome:
    """Change `n` vertices of a graph, and compare the vertices that move with the neighbours."""
    rng = np.random.default_rng(seed)
    outcome = Outcome(n_layers=len(graph.layers))
    baselines: dict[Mode, Read] = {"plain": watch.run({})}
    # What overflows cannot be compared.
    found = [one for one in watch.usable() if np.isfinite(baselines["plain"][one.key]).all()]
    outcome.n_readers = len(found)
    outcome.n_watched = len({one.layer for one in found})
    reads = _reading(graph, found)
    # One vertex from as many layers as possible, and several per layer if layers are few.
    chosen = [found[at] for at in rng.permutation(len(found))]
    for origin in (chosen * (n // max(len(chosen), 1) + 1))[:n]:
        vertex = int(rng.integers(origin.size))
        if not watch.by_vertex(origin, baselines["plain"][origin.key])[vertex].any():
            continue  # removed by a mask before this reader
        theirs = watch.changed(origin, vertex, baselines["plain"], rng)
        expected = _neighbours(graph, origin, vertex, found)
        ours = {reader.key: expected[reader.layer] for reader in found}
        surplus = {key: ours[key] & ~theirs[key] & reads[key] for key in ours}
        for sign, mode in AGAIN:
            if not any(mask.any() for mask in surplus.values()):
                break
            if mode not in baselines:
                baselines[mode] = watch.run({}, mode)
            again = watch.changed(origin, vertex, baselines[mode], rng, sign, mode)
            surplus = {key: mask & ~again[key] for key, mask in surplus.items()}
        outcome.n_vertices += 1
        # Without a softmax, which is held constant, queries and keys act on the values' readers.
        scored = not watch.attends and _is_scored(graph, origin.module)
        for reader in found:
            outcome.n_edges += int(np.count_nonzero(ours[reader.key]))
            if reader == origin:
                continue
            where = f"{origin.module}[{vertex}] -> {reader.module} "
            where += f"({graph.layers[reader.layer].name})"
            missing = theirs[reader.key] & ~ours[reader.key] & ~scored
            pairs = ((missing, outcome.missing), (surplus[reader.key], outcome.surplus))
            for wrong, kind in pairs:
                if wrong.any():
                    kind.append(f"{where}: {np.flatnonzero(wrong)[:8].tolist()}")
    return outcome


def _reading(graph: Any, readers: Sequence[Reader]) -> dict[tuple[str, int], NDArray[np.bool_]]:
    """Vertices of each reader's layer with outgoing edges; overwritten vertices have none."""
    found = {}
    for reader in readers:
        reaches = np.zeros(reader.size, dtype=bool)
        for block in graph.blocks:
            if block.source == reader.layer:
                reaches |= _any_column(block.weights)
        found[reader.key] = reaches if reaches.any() else ~reaches
    return found


def _neighbours(
    graph: Any, origin: Reader, vertex: int, watched: Sequence[Reader]
) -> list[NDArray[np.bool_]]:
    """Vertices that a change reaches, by layer; it passes through unwatched readers."""
    reached = [np.zeros(layer.size, dtype=bool) for layer in graph.layers]
    start = np.zeros(origin.size, dtype=bool)
    start[vertex] = True
    readers: dict[int, set[str]] = {}
    for reader in watched:
        readers.setdefault(reader.layer, set()).add(reader.module)
    by_block: dict[tuple[int, str], NDArray[np.bool_]] = {}
    for position in range(origin.layer, len(graph.layers)):
        own = position == origin.layer
        here = readers.get(position, set())
        out = [b for b in graph.blocks if b.source == position != b.target]
        named = {id(b): CALL.sub("", b.name) in here for b in out}
        if own:
            out = [b for b in out if named[id(b)]] or out
        elif here:
            # Other readers of these neurons get the changed values.
            out = [b for b in out if not named[id(b)]] if any(named.values()) else []
        inside = [b for b in graph.blocks if b.source == b.target == position]
        if not own:
            for block in inside:
                # A recurrent layer passes on changes of its inputs, not those of a gate after it.
                name = _layer_of(block)
                outside = [b for b in graph.blocks if b.target == position != b.source]
                own_inputs = any(_layer_of(b) == name for b in outside)
                changed = by_block.get((position, name), reached[position] & (not own_inputs))
                both = block.weights + block.weights.T
                for _ in range(graph.layers[position].size):
                    grown = changed | _any_row(both, changed)
                    if (grown == changed).all():
                        break
                    changed = grown
                reached[position] |= changed
        mask = start if own else reached[position]
        for block in out if mask.any() else ():
            rows = _any_row(block.weights, mask)
            reached[block.target] |= rows
            key = block.target, _layer_of(block)
            by_block[key] = rows | by_block.get(key, False)
    return reached


def _layer_of(block: Any) -> str:
    """Name of the layer of a block, the same for its recurrent weights."""
    return str(block.name).removesuffix(" (recurrent)")


def _is_scored(graph: Any, module: str) -> bool:
    """Check whether a module writes to vertices of scalar products, such as queries and keys."""
    ends = {at for at, layer in enumerate(graph.layers) if SCORES.match(layer.name)}
    ends -= {block.source for block in graph.blocks}
    return any(b.target in ends and CALL.sub("", b.name) == module for b in graph.blocks)


def _any_row(weights: Any, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    rows = weights[np.flatnonzero(mask)]
    if not isinstance(rows, np.ndarray):
        rows = rows.toarray()
    return np.asarray((rows > 0).any(axis=0))


def _any_column(weights: Any) -> NDArray[np.bool_]:
    if isinstance(weights, np.ndarray):
        return np.asarray((weights > 0).any(axis=1))
    return np.asarray(weights.sum(axis=1)).ravel() > 0


def summary(outcome: Outcome, limit: int = 5) -> str:
    """The first disagreements in words."""
    lines: Sequence[str] = [f"changed, no edge: {line}" for line in outcome.missing[:limit]]
    lines = [*lines, *(f"edge, not changed: {line}" for line in outcome.surplus[:limit])]
    return "\n".join([f"{outcome.n_vertices} vertices, {outcome.n_edges} edges", *lines])
