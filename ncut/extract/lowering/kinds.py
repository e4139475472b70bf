"""Lowers a program to a record of its effect on neurons, under either convention of sums."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ncut.errors import InputError, ModelError
from ncut.extract.lowering import (
    choices,
    constants,
    contraction,
    layers,
    moves,
    pointwise,
    sums,
    writing,
)
from ncut.extract.lowering.signal import Signal
from ncut.extract.lowering.wiring import Residual, Wiring
from ncut.extract.program.record import Program
from ncut.extract.program.values import Node, Value, located


def _note(wiring: Wiring, *, what: str, **attributes: Any) -> None:
    getattr(wiring, what)(**attributes)


def _pointwise(wiring: Wiring, *signals: Signal, homogeneous: bool | None) -> Signal:
    if len(signals) > 1:
        return sums.combine(wiring, *signals)
    return pointwise.activation(wiring, signals[0], homogeneous=homogeneous)


def _moved(change: Callable[..., Signal]) -> Callable[..., Signal]:
    """Wrap a change that only moves entries and needs no record."""
    return lambda _, signal, **attributes: change(signal, **attributes)


KINDS: Mapping[str, Callable[..., Signal | None]] = {
    # where values come from
    "input": Wiring.input,
    "embed": layers.embedding,
    # weights
    "linear": layers.linear,
    "convolution": layers.convolution,
    "recurrence": layers.recurrence,
    # constants
    "scale": constants.scaled,
    "dequantize": constants.dequantized,
    "await scale": constants.awaiting_scale,
    # functions of entries
    "pointwise": _pointwise,
    "choose between": choices.choice,
    "normalize": pointwise.normalization,
    "softmax": pointwise.softmax,
    # positions and moves
    "pool": pointwise.positions,
    "pad": pointwise.pad,
    "order": choices.ordered,
    "permute": _moved(moves.permuted),
    "reshape": _moved(moves.reshaped),
    "expand": _moved(moves.expanded),
    "index": _moved(moves.taken),
    "gather": choices.gathered,
    "merge": _moved(moves.merged),
    "concatenate": lambda _, *signals, axis: moves.concatenated(signals, axis),
    # several values
    "add": sums.add,
    "multiply": sums.multiply,
    "reduce": contraction.reduce,
    "forget": lambda _, signal: Signal(signal.shape),
    "matmul": contraction.matmul,
    # writing in place
    "write": writing.written,
    "scatter": writing.scattered,
    # ends and notes
    "output": Wiring.output,
    "note": _note,
}
"""All kinds of nodes, and the effect of each on neurons."""


def lower(program: Program, residual: str | None = None) -> Wiring:
    """The record of a program under a convention of sums.

    Parameters
    ----------
    program : Program
        The program that a reader made from a model.
    residual : {"readers", "stream"}, optional
        Convention of sums; by default "stream" in a model with attention, else "readers".

    Raises
    ------
    ModelError
        If no graph can represent a node's effect on neurons; it names the node's place.
    """
    if residual is not None:
        return _lowered(program, "readers" if residual == "readers" else "stream")
    # Whether a model attends is known at the end; a product of two values nearly always does.
    products = any(node.kind == "matmul" for node in program.nodes)
    likely: Residual = "stream" if products else "readers"
    wiring = _lowered(program, likely)
    right: Residual = "stream" if wiring.attends else "readers"
    # Without sums, heads and choices the two conventions agree.
    if right != likely and (wiring.attends or wiring.merging.sums or wiring.joined):
        wiring = _lowered(program, right)
    wiring.residual = right
    return wiring


def _lowered(program: Program, residual: Residual, without: frozenset[str] = frozenset()) -> Wiring:
    """The record, with the inputs named in `without` taken as a single example."""
    try:
        return _recorded(program, residual, without)
    except layers.WithoutExamplesError as error:
        if error.input in without:
            raise
        return _lowered(program, residual, without | {error.input})


def _recorded(program: Program, residual: Residual, without: frozenset[str]) -> Wiring:
    wiring = Wiring(residual, program=program)
    signals: dict[int, Signal] = {}
    nodes = _read(program.nodes)
    last = {id(value): at for at, node in enumerate(nodes) for value in node.inputs}
    for at, node in enumerate(nodes):
        try:
            made = _followed(wiring, node, signals, without)
        except layers.WithoutExamplesError:
            raise
        except (ModelError, InputError) as error:
            raise located(error, node.place) from error
        except Exception as error:
            error.place = node.place  # type: ignore[attr-defined]
            raise
        if node.output is not None and id(node.output) in last:
            assert made is not None
            signals[id(node.output)] = made
        for value in node.inputs:
            if last[id(value)] == at:
                signals.pop(id(value), None)
    wiring.check_scales()
    return wiring


def _read(nodes: Sequence[Node]) -> list[Node]:
    """The nodes without sums and their factors that nothing reads, such as a part of a sum."""
    read: set[int] = set()
    kept = []
    for node in reversed(nodes):
        if node.kind not in ("add", "scale") or id(node.output) in read:
            kept.append(node)
            read.update(map(id, node.inputs))
    return kept[::-1]


def _followed(
    wiring: Wiring, node: Node, signals: Mapping[int, Signal], without: frozenset[str]
) -> Signal | None:
    given = [_signal_of(value, signals) for value in node.inputs]
    if node.kind == "input" and node.attributes["name"] in without:
        made: Signal | None = wiring.input(**node.attributes, examples=False)
    else:
        made = KINDS[node.kind](wiring, *given, **node.attributes)
    if made is not None and node.output is not None and made.shape != node.output.shape:
        raise ModelError(
            f"a node {node.kind!r} makes a tensor of shape {made.shape}, not {node.output.shape}"
        )
    return made


def _signal_of(value: Value, signals: Mapping[int, Signal]) -> Signal:
    """A value's neurons; numbers that no node makes carry none."""
    found = signals.get(id(value))
    return Signal(value.shape, number=value.number) if found is None else found
