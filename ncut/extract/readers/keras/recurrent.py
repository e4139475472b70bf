"""Recurrent layers, and wrappers of layers that read sequences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from ncut.errors import ModelError
from ncut.extract.program.values import (
    Value,
    concatenated,
    expanded,
    indexed,
    reshaped,
    squeezed,
    unsqueezed,
)
from ncut.extract.readers.keras.calls import Call, Rule
from ncut.extract.readers.keras.config import among, parsed_layer
from ncut.extract.readers.keras.dense import convolved
from ncut.extract.readers.keras.weights import snake_case

_GATES = {"SimpleRNN": 1, "LSTM": 4, "GRU": 3, "CuDNNLSTM": 4, "CuDNNGRU": 3}
_STATES = {"SimpleRNN": 1, "LSTM": 2, "GRU": 1, "CuDNNLSTM": 2, "CuDNNGRU": 1}
_ORDER = ("kernel", "recurrent_kernel", "bias")


def _recurrent(call: Call) -> list[Value]:
    """`SimpleRNN`, `LSTM`, `GRU`: the sequence or its last state, and optionally the states."""
    cls = call.layer.cls
    output = _cell(call, call.signal, _GATES[cls], "cell", call.path)
    return _returned(call, output, _STATES[cls])


def _cell(call: Call, sequence: Value, gates: int, part: str, name: str) -> Value:
    if sequence.ndim != 3:
        raise ModelError(
            f"it reads a tensor of shape {sequence.shape}, not (batch, time, features)"
        )
    # Versions of Keras without cells store the variables with the layer.
    part = part if call.weights(*_ORDER, part=part) else ""
    found = call.weights(*_ORDER, part=part)
    missing = {"kernel", "recurrent_kernel"} - found.keys()
    if missing:
        raise ModelError(f"the file holds no {' and no '.join(sorted(missing))} of it")
    kernel, recurrent = found["kernel"], found["recurrent_kernel"]
    n_hidden = recurrent.shape[0]
    if kernel.shape[1] != gates * n_hidden or recurrent.shape != (n_hidden, gates * n_hidden):
        raise ModelError(f"its kernels have shapes {kernel.shape} and {recurrent.shape}")
    names = [call.parameter(n, part) for n in ("kernel", "recurrent_kernel")]
    states = [*among(call.kwargs.get("initial_state"), Value)] or call.signals[1:]
    first = [unsqueezed(state, 1) for state in states]
    return call.program.recurrence(
        sequence, kernel.T, np.ascontiguousarray(recurrent.T), n_hidden=n_hidden,
        name=name, module=name, parameters=names, kind="GRU" if gates == 3 else "",
        state=first[0] if first else None,
        cell=first[1] if gates == 4 and len(first) > 1 else None,
    )  # fmt: skip


def _returned(call: Call, output: Value, n_states: int) -> list[Value]:
    last = indexed(output, 1, output.shape[1] - 1)
    first = output if call.config.get("return_sequences") else last
    return [first, *[last] * n_states] if call.config.get("return_state") else [first]


def _with_cells(call: Call) -> list[Value]:
    """`RNN(cell)` and `RNN([cell, ...])`."""
    cell = parsed_layer(call.config.get("cell"))
    stacked = cell.cls == "StackedRNNCells"
    listed = cell.config.get("cells", []) if stacked else [call.config["cell"]]
    signal, counts = call.signal, Counter[str]()
    for number, one in enumerate(map(parsed_layer, listed)):
        gates = _GATES.get(one.cls.removesuffix("Cell"))
        if gates is None:
            raise ModelError(f"its cell is of class {one.cls!r}, which is not known")
        part, name, seen = "cell", call.path, counts[one.cls]
        if stacked:
            part = f"cell/cells/{snake_case(one.cls)}" + (f"_{seen}" if seen else "")
            name = f"{call.path}/{number}"
        counts[one.cls] += 1
        signal = _cell(call, signal, gates, part, name)
    result = _returned(call, signal, 0)
    return result if not call.config.get("return_state") else [*result[:1], *result[:1] * 2]


def _bidirectional(call: Call) -> list[Value]:
    forward = parsed_layer(call.config.get("layer"))
    content = call.config.get("backward_layer")
    backward = parsed_layer(content) if isinstance(content, Mapping) else forward
    signals = call.signals
    n_states = (len(signals) - 1) // 2
    own = [signals[:1] + signals[1 : 1 + n_states], signals[:1] + signals[1 + n_states :]]
    first, *states = call.follow(call, forward, "forward_layer", f"{call.path}/forward", own[0])
    second, *more = call.follow(call, backward, "backward_layer", f"{call.path}/backward", own[1])
    mode = call.config.get("merge_mode", "concat")
    program = call.program
    if mode == "concat":
        merged = [program.activation(concatenated([first, second], -1), homogeneous=False)]
    elif mode in ("sum", "ave"):
        total = program.add(first, second)
        merged = [total if mode == "sum" else program.gain(total, 0.5)]
    elif mode == "mul":
        merged = [program.multiply(first, second)]
    elif mode is None:
        merged = [first, second]
    else:
        raise ModelError(f"merge_mode {mode!r} is not known")
    return [*merged, *states, *more]


def _time_distributed(call: Call) -> list[Value]:
    """A layer applied to each step separately: steps are examples."""
    inner = parsed_layer(call.config.get("layer"))
    signal = call.signal
    if signal.ndim < 2:
        raise ModelError(f"it reads a tensor of shape {signal.shape}")
    n, time = signal.shape[:2]
    flat = reshaped(signal, (n * time, *signal.shape[2:]))
    results = call.follow(call, inner, "layer", call.path, [flat])
    return [reshaped(result, (n, time, *result.shape[1:])) for result in results]


def _convolutional(call: Call) -> list[Value]:
    """`ConvLSTM1D` and variants: channels of hidden states are neurons."""
    part = "cell" if call.weights(*_ORDER, part="cell") else ""
    kernel, found = call.weight(*_ORDER, part=part), call.weights(*_ORDER, part=part)
    recurrent = found.get("recurrent_kernel")
    signal = call.signal
    if len(call.signals) > 1 or call.kwargs.get("initial_state") is not None:
        raise ModelError("it is given a first state, which is not followed; leave it out")
    n_hidden = kernel.shape[-1] // 4
    sound = recurrent is not None and recurrent.shape[-2:] == (n_hidden, 4 * n_hidden)
    if recurrent is None or not sound or kernel.ndim != signal.ndim - 1:
        raise ModelError(f"its kernel has shape {kernel.shape}, its input {signal.shape}")
    sizes = (signal.shape[0], 1, *signal.shape[2:])
    one_step = call.program.positions(signal, sizes, axis=2 if call.channels == 1 else -1)
    single = squeezed(one_step, [1])
    shape = convolved(call, single, kernel.shape[:-2], n_hidden)
    rows = _gates_last(kernel, n_hidden)
    within = np.abs(_gates_last(recurrent, n_hidden)).reshape(n_hidden, n_hidden, -1).sum(axis=2).T
    output = call.program.convolution(
        single, rows, shape, axis=call.channels, name=call.path, module=call.path,
        parameters=[call.parameter(n, part) for n in ("kernel", "recurrent_kernel")],
        within=within,
    )  # fmt: skip
    output = call.program.activation(output, homogeneous=False)
    wide = expanded(unsqueezed(output, 1), (shape[0], signal.shape[1], *shape[1:]))
    return _returned(call, wide, 2)


def _gates_last(kernel: Any, n_hidden: int) -> Any:
    """(positions..., in, gates * out) as (out, in, gates * positions)."""
    split = kernel.reshape(*kernel.shape[:-1], 4, n_hidden)
    moved = np.moveaxis(split, (-1, -3), (0, 1))
    return np.ascontiguousarray(moved.reshape(*moved.shape[:2], -1))


RECURRENT: dict[str, Rule] = {
    **dict.fromkeys(_GATES, _recurrent),
    "RNN": _with_cells,
    "Bidirectional": _bidirectional,
    "TimeDistributed": _time_distributed,
    "SpectralNormalization": lambda call: call.follow(
        call, parsed_layer(call.config.get("layer")), "layer", call.path, [call.signal]
    ),
    **{f"ConvLSTM{n}D": _convolutional for n in (1, 2, 3)},
}
