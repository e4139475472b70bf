"""Layers that merge several tensors, and functions called between layers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np

from ncut.errors import ModelError
from ncut.extract.program.values import (
    Operand,
    Value,
    concatenated,
    indexed,
    permuted,
    reshaped,
    squeezed,
    stacked,
    unsqueezed,
)
from ncut.extract.readers.keras.activations import applied, is_known
from ncut.extract.readers.keras.calls import Call, Rule, checked
from ncut.extract.readers.keras.config import among
from ncut.extract.readers.keras.dense import known
from ncut.extract.registry import table


def _several(call: Call) -> list[Value]:
    """Tensors that broadcast with each other."""
    signals = call.signals
    if not signals:
        raise ModelError("it is called with no tensors")
    try:
        checked(np.broadcast_shapes(*(signal.shape for signal in signals)))
    except ValueError as error:
        shapes = ", ".join(str(signal.shape) for signal in signals)
        raise ModelError(f"its inputs have shapes {shapes}, which do not fit") from error
    return signals


def _subtract(call: Call) -> Value:
    """A difference, of tensors or of a tensor and a constant."""
    first, *others = _operands(call)
    return call.program.add(first, *map(call.program.negative, others))


def _average(call: Call) -> Value:
    signals = _several(call)
    return call.program.add(*(call.program.gain(signal, 1 / len(signals)) for signal in signals))


def _concatenate(call: Call) -> Value:
    axis = call.config.get("axis", call.argument(1, "axis", -1))
    return _joined(call.signals, axis if isinstance(axis, int) else -1)


def _joined(signals: Sequence[Value], axis: int) -> Value:
    """Tensors concatenated along an axis."""
    if not signals:
        raise ModelError("it is called with no tensors")
    made = concatenated(signals, axis)
    checked(made.shape)
    return made


def _dot(call: Call) -> Value:
    """Scalar products along an axis of each operand."""
    signals = call.signals
    if len(signals) != 2:
        raise ModelError(f"it reads {len(signals)} tensors, not two")
    if call.config.get("normalize"):
        signals = [call.program.normalization(signal, "unit norm") for signal in signals]
    axes = call.config.get("axes", -1)
    both = [axes, axes] if isinstance(axes, int) else axes
    if not isinstance(both, list) or not all(isinstance(axis, int) for axis in both):
        raise ModelError(f"axes is {axes!r}")
    first, second = (
        permuted(s, [at for at in range(s.ndim) if at != s.axis(axis)] + [s.axis(axis)])
        for s, axis in zip(signals, both, strict=True)
    )
    if first.shape[-1] != second.shape[-1] or not (1 < first.ndim < 4 and 1 < second.ndim < 4):
        raise ModelError(f"it reads tensors of shapes {signals[0].shape} and {signals[1].shape}")
    flat = [signal.ndim == 2 for signal in (first, second)]
    first, second = (unsqueezed(s, 1) if s.ndim == 2 else s for s in (first, second))
    result = call.program.matmul(first, permuted(second, [0, 2, 1]), f"heads of {call.path}")
    kept = [n for n, is_flat in zip(result.shape[1:], flat, strict=True) if not is_flat]
    return reshaped(result, [result.shape[0], *(kept or [1])])


MERGES: dict[str, Rule] = {
    "Add": lambda call: call.program.add(*_several(call)),
    "Subtract": _subtract,
    "Multiply": lambda call: reduce(call.program.multiply, _several(call)),
    "Average": _average,
    "Maximum": lambda call: call.program.extremum(*_several(call)),
    "Minimum": lambda call: call.program.extremum(*_several(call)),
    "Concatenate": _concatenate,
    "Dot": _dot,
}


# --- functions ----------------------------------------------------------------------------------


def operation(call: Call) -> Rule | None:
    """The rule of a function: an operation of Keras 3, or of TensorFlow in Keras 2."""
    name = call.layer.cls
    if name in ("TFOpLambda", "SlicingOpLambda"):
        name = str(call.config.get("function", ""))
    elif not call.layer.is_operation:
        return None
    short = re.sub(r"[^a-z0-9]", "", name.rpartition(".")[2].lower())
    if short in _FUNCTIONS:
        return _FUNCTIONS[short]
    spelled = name.rpartition(".")[2].lower()
    activation = next((n for n in (spelled, short) if is_known(n)), None)
    if activation is None:
        return None
    return lambda c: applied(c, c.signal, {"class_name": activation, "config": c.config})


def _operands(call: Call) -> list[Operand]:
    """Several tensors, or one and the constant beside it, in order."""
    signals: list[Operand] = [*_several(call)]
    names = ("x1", "x2", "x", "y", "a", "b")
    more = (v for name, v in call.kwargs.items() if name in names and v is not None)
    given = [*call.args, *more]
    value = next((v for v in given if not isinstance(v, Value)), None)
    if len(signals) > 1 or value is None:
        return signals
    try:
        constant = np.asarray(value, dtype=np.float64)
    except (ValueError, TypeError) as error:
        raise ModelError(f"its constant {str(value)[:60]!r} is not a number") from error
    operands = [*signals, known(call, call.signal, constant)]
    return operands if isinstance(given[0], Value) else operands[::-1]


def _reduced(call: Call) -> Value:
    signal = call.signal
    axes = _setting(call, 1, "axis", "axes")
    keep = bool(_setting(call, 2, "keepdims", "keep_dims"))
    chosen = list(range(signal.ndim)) if axes is None else axes
    name = str(call.config.get("function", call.layer.cls)).rpartition(".")[2].lower()
    kind = next((k for k in ("mean", "sum", "max", "min", "var", "std", "norm") if k in name), name)
    return call.program.reduce(
        signal, [chosen] if isinstance(chosen, int) else chosen, keepdim=keep, kind=kind,
        name=call.path,
    )  # fmt: skip


def _setting(call: Call, at: int, *names: str) -> Any:
    for name in names:
        for source in (call.config, call.kwargs):
            if source.get(name) is not None:
                return source[name]
    return call.args[at] if len(call.args) > at else None


def _to_shape(call: Call) -> Value:
    signal = call.signal
    shape = _setting(call, 1, "newshape", "shape")
    if not isinstance(shape, list | tuple) or not shape:
        raise ModelError(f"its new shape is {shape!r}")
    sizes = [-1 if size is None else size for size in shape]
    if not all(isinstance(size, int) for size in sizes):
        raise ModelError("its new shape depends on the data")
    if sizes[0] == -1 and sizes.count(-1) > 1:
        sizes[0] = signal.shape[0]
    return reshaped(signal, sizes)


def _axis(call: Call, default: int) -> int:
    axis = _setting(call, 1, "axis")
    return axis if isinstance(axis, int) else default


def _transposed(call: Call) -> Value:
    axes = _setting(call, 1, "axes", "perm")
    return permuted(call.signal, [*range(call.signal.ndim)][::-1] if axes is None else axes)


def _unsqueezed(call: Call) -> Value:
    axis = _setting(call, 1, "axis")
    if not isinstance(axis, int):
        raise ModelError(f"axis is {axis!r}")
    return unsqueezed(call.signal, axis)


def _squeezed(call: Call) -> Value:
    signal, axes = call.signal, _setting(call, 1, "axis")
    if axes is None:
        axes = [at for at in range(1, signal.ndim) if signal.shape[at] == 1]
    return squeezed(signal, axes if isinstance(axes, list) else [axes])


def _multiplied(call: Call) -> Value:
    signals = call.signals
    if len(signals) != 2:
        raise ModelError("a product of a tensor and a constant matrix")
    return call.program.matmul(signals[0], signals[1], f"heads of {call.path}")


def _taken(call: Call) -> Value:
    """`tensor[...]` with slices and integers."""
    signal = call.signal
    key = _setting(call, 1, "key", "slice_spec")
    parts = [*key] if isinstance(key, list | tuple) else [key]
    axis = 0
    for at, part in enumerate(parts):
        if part is None:
            signal = unsqueezed(signal, axis)
            axis += 1
        elif part == "..." or (isinstance(part, dict) and part.get("class_name") == "__ellipsis__"):
            axis = signal.ndim - sum(p is not None for p in parts[at + 1 :])
        elif isinstance(part, int):
            n = signal.shape[signal.axis(axis)]
            if not -n <= part < n:
                raise ModelError(f"entry {part} of an axis of length {n}")
            signal = indexed(signal, axis, part % n)
        else:
            signal = indexed(signal, axis, _slice(part))
            checked(signal.shape)
            axis += 1
    return signal


def _slice(part: Any) -> slice:
    if isinstance(part, dict):
        content = part.get("config", part)
        if isinstance(content, dict):
            values = [content.get(name) for name in ("start", "stop", "step")]
            if all(v is None or (isinstance(v, int) and v is not False) for v in values):
                if values[2] == 0:
                    raise ModelError("a slice of step 0")
                return slice(*values)
    raise ModelError(f"an index that is not understood: {str(part)[:60]}")


def _clipped(call: Call) -> Value:
    """`clip(x, low, high)`."""
    low = _setting(call, 1, "x_min", "clip_value_min", "min_value")
    high = _setting(call, 2, "x_max", "clip_value_max", "max_value")
    return call.program.bounded(call.signal, low, high)


def _entrywise(call: Call) -> Value:
    signals = [*among([call.args, call.kwargs], Value)]
    if len(signals) == 1:
        return call.program.activation(signals[0], homogeneous=False)
    return call.program.combine(*_several(call))


_FUNCTIONS: dict[str, Rule] = table(
    ("add addv2 biasadd", lambda call: call.program.add(*_operands(call))),
    ("sub subtract", _subtract),
    ("mul multiply", lambda call: reduce(call.program.multiply, _operands(call))),
    (
        "div divide truediv realdiv truedivide",
        lambda call: reduce(call.program.divide, _operands(call)[:2]),
    ),
    ("maximum minimum", lambda call: call.program.extremum(*_operands(call))),
    ("clip clipbyvalue", _clipped),
    (
        "power pow square sqrt rsqrt exp log log1p expm1 sin cos where "
        "reciprocal arctan floor round sign logaddexp squareddifference",
        _entrywise,
    ),
    ("concatenate concat concatv2", lambda call: _joined(call.signals, _axis(call, 0))),
    ("stack", lambda call: stacked(call.signals, _axis(call, 0))),
    (
        "mean reducemean sum reducesum max reducemax amax min amin reducemin var reducevariance "
        "std reducestd prod reduceprod logsumexp reducelogsumexp norm",
        _reduced,
    ),
    ("reshape", _to_shape),
    ("transpose permute", _transposed),
    ("expanddims", _unsqueezed),
    ("squeeze", _squeezed),
    ("matmul batchmatmul batchmatmulv2", _multiplied),
    ("getitem slicingoplambda", _taken),
    ("cast identity stopgradient copy converttotensor", lambda call: call.signal),
    ("negative neg", lambda call: call.program.gain(call.signal, -1)),
    (
        "softmax logsoftmax",
        lambda call: call.program.softmax(call.signal, _axis(call, -1)),
    ),
    (
        # Comparisons and shapes: numbers that carry no neurons.
        "equal notequal greater greaterequal less lessequal logicaland logicalor logicalnot any "
        "all argmax argmin shape zeroslike oneslike reduceany reduceall isnan",
        lambda call: Value(call.signal.shape),
    ),
)
