"""Functions of torch that are followed as a whole, before torch decomposes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812

from ncut.errors import ModelError
from ncut.extract.program.values import Value, expanded
from ncut.extract.program.weights import combined
from ncut.extract.readers.traced.initial import initial_weight
from ncut.extract.readers.traced.layers import cell_function, recurrent_function
from ncut.extract.readers.traced.operations.common import note_bias
from ncut.extract.readers.traced.operations.weights import attention, norm_of_last_axes
from ncut.extract.readers.traced.tensor import is_traced
from ncut.extract.readers.traced.tracing import Call
from ncut.extract.registry import Rule


def linear(call: Call) -> Any:
    """`F.linear(input, weight, bias)`; weights that depend on the data make it a product."""
    tensor = call.arg(1, "weight")
    if is_traced(tensor):
        bias, made = call.arg(2, "bias"), call.arg(0, "input") @ tensor.t()
        return made if bias is None else made + bias
    weight = call.tracing.weight(tensor)
    note_bias(call, call.arg(2, "bias"))
    return call.program.linear(
        call.signal(), weight.values.T,
        initial=initial_weight(weight.holder, np.transpose), **weight.named,
    )  # fmt: skip


def bilinear(call: Call) -> Value:
    """`F.bilinear(input1, input2, weight, bias)`: reads each input, summed over the other."""
    first, second, tensor = (call.arg(at, f"input{at + 1}") for at in range(3))
    weight = call.tracing.weight(call.arg(2, "weight") if tensor is None else tensor)
    note_bias(call, call.arg(3, "bias"))
    signals = [
        call.program.linear(
            call.tracing.signal_of(value),
            combined(lambda kernel, axis=axis: abs(kernel).sum(axis).T, weight.values),
            **weight.named,
        )
        for value, axis in ((first, 2), (second, 1))
        if is_traced(value)
    ]  # fmt: skip
    return call.program.activation(call.program.add(*signals), homogeneous=False)


def embedding(call: Call) -> Any:
    """`F.embedding(indices, table)`, also for indices that do not depend on the data."""
    indices, table = call.arg(0, "input"), call.arg(1, "weight")
    if is_traced(table):
        raise NotImplementedError
    return _rows(call, table, indices.shape)


def _rows(call: Call, table: torch.Tensor, shape: tuple[int, ...]) -> Any:
    """A tensor of rows of a table."""
    weight, shape = call.tracing.weight(table), (*shape, table.shape[-1])
    made = call.program.embedding(weight.values, shape, **weight.named)
    return call.tracing.made(made, table)


def embedding_bag(call: Call) -> Any:
    """`F.embedding_bag`: a row per bag."""
    indices, table, offsets = call.arg(0, "input"), call.arg(1, "weight"), call.arg(2, "offsets")
    shares = call.arg(8, "per_sample_weights")
    if is_traced(shares):
        if offsets is not None:
            raise ModelError("its rows have weights from the data, and bags of several lengths")
        rows = embedding(replace(call, args=(indices, table), kwargs={}))
        return (rows * shares[..., None]).sum(1)
    last = bool(call.arg(9, "include_last_offset"))
    return _rows(call, table, (len(indices) if offsets is None else len(offsets) - last,))


def table_rows(take: Callable[..., Any], at: int) -> Rule:
    """`table[indices]` with indices from an input or chosen by the data: an embedding."""

    def rule(call: Call) -> Any:
        table, axis, indices = call.args[0], call.arg(1, "dim", 0), call.arg(at, "index")
        provenance = call.tracing.provenance
        if torch.is_tensor(table) and not is_traced(table) and table.is_floating_point():
            if at == 1:
                table, axis, indices = _one_index(table, indices)
            chosen = is_traced(indices)
            whole = torch.is_tensor(indices) and not indices.is_floating_point() and table.ndim > 1
            known = whole and not chosen and provenance.leaves(table) and provenance.inputs(indices)
            if whole and indices.dtype != torch.bool and (chosen or known):
                rows = table.movedim(axis, 0)
                flat_rows = rows.reshape(len(rows), -1)
                found = embedding(replace(call, args=(indices, flat_rows), kwargs={}))
                found = found.reshape(*indices.shape, *rows.shape[1:])
                back = range(axis, axis + indices.ndim)
                return found.movedim(tuple(range(indices.ndim)), tuple(back))
        return take(*call.args, **call.kwargs)

    return rule


def entries_of_table(take: Callable[..., Any]) -> Rule:
    """`table.gather(dim, indices)`, refused for a parameter indexed by an input."""

    def rule(call: Call) -> Any:
        table, indices = call.args[0], call.arg(2, "index")
        if take is torch.take_along_dim:
            indices = call.arg(1, "indices")
        provenance = call.tracing.provenance
        known = is_traced(table) or not torch.is_tensor(indices) or not table.is_floating_point()
        if not known and provenance.leaves(table) and provenance.inputs(indices):
            raise ModelError("it looks entries of a parameter up; look up rows: table[indices]")
        return take(*call.args, **call.kwargs)

    return rule


def _one_index(table: torch.Tensor, index: Any) -> tuple[torch.Tensor, int, Any]:
    """`table[index]` as an index along one axis of a table; None for no axis or several."""
    if not isinstance(index, tuple):
        return table, 0, index
    if index and index[-1] is ...:
        index = index[:-1]
    places = [at for at, one in enumerate(index) if torch.is_tensor(one)]
    others = [one for one in index if not torch.is_tensor(one)]
    if len(places) != 1 or not all(isinstance(one, int | slice) for one in others):
        return table, 0, None
    before = index[: places[0]]
    rest = tuple(slice(None) if torch.is_tensor(one) else one for one in index)
    axis = sum(isinstance(one, slice) for one in before)
    return table[rest], axis, index[places[0]]


def lp_pool(average: Callable[..., Any]) -> Rule:
    """`F.lp_pool2d(input, norm_type, kernel_size, stride)`, which commutes with factors."""

    def rule(call: Call) -> Any:
        # It decomposes into powers and roots, which do not commute individually.
        kernel, stride = call.arg(2, "kernel_size"), call.arg(3, "stride")
        ceil_mode = call.arg(4, "ceil_mode", False)
        return average(call.arg(0, "input"), kernel, stride, 0, ceil_mode)

    return rule


def pad(call: Call) -> Any:
    """`F.pad(input, pad, mode, value)`; circular padding is a concatenation."""
    tensor, widths, mode = call.arg(0, "input"), call.arg(1, "pad"), call.arg(2, "mode", "constant")
    if mode != "circular":
        return F.pad(tensor, widths, mode, call.arg(3, "value"))
    for number in range(len(widths) // 2):
        axis = tensor.ndim - 1 - number
        before, after = widths[2 * number : 2 * number + 2]
        n = tensor.shape[axis]
        index = torch.arange(-before, n + after, device=tensor.device) % n
        tensor = tensor.index_select(axis, index)
    return tensor


def one_hot(call: Call) -> Any:
    """`F.one_hot(numbers, n)`: each class of an integer input is a separate input.

    Classes that the data choose select rows of what multiplies them.
    """
    numbers, n = call.arg(0, "tensor"), int(call.arg(1, "num_classes", -1))
    names = call.tracing.provenance.inputs(numbers)
    if is_traced(numbers) and n > 0:
        return call.tracing.made(Value((*numbers.shape, n), number="classes"), numbers)
    if is_traced(numbers) or not names:
        return F.one_hot(numbers, n)
    n = n if n > 0 else int(numbers.max()) + 1
    classes = call.program.input(f"classes of {', '.join(sorted(names))}", (1, n))
    return call.tracing.made(expanded(classes, (*numbers.shape, n)), numbers)


FUNCTIONS: dict[Any, Rule] = {
    F.linear: linear,
    torch._C._nn.linear: linear,
    F.bilinear: bilinear,
    F.scaled_dot_product_attention: attention,
    F.lp_pool1d: lp_pool(F.avg_pool1d),
    F.lp_pool2d: lp_pool(F.avg_pool2d),
    F.lp_pool3d: lp_pool(F.avg_pool3d),
    F.pad: pad,
    # torch may decompose it into products.
    F.rms_norm: lambda call: norm_of_last_axes(call, "RMS norm"),
    F.local_response_norm: lambda c: c.program.normalization(c.signal(), "local response norm"),
    torch.lstm: recurrent_function("LSTM"),
    torch.gru: recurrent_function("GRU"),
    **dict.fromkeys([torch.rnn_tanh, torch.rnn_relu], recurrent_function("RNN")),
    torch.lstm_cell: cell_function("LSTM"),
    torch.gru_cell: cell_function("GRU"),
    **dict.fromkeys([torch.rnn_tanh_cell, torch.rnn_relu_cell], cell_function("RNN")),
}
"""Rules of functions, for calls with a traced argument."""

ALWAYS: dict[Any, Rule] = {
    F.one_hot: one_hot,
    F.embedding: embedding,
    F.embedding_bag: embedding_bag,
    torch.Tensor.__getitem__: table_rows(torch.Tensor.__getitem__, 1),
    **dict.fromkeys(
        [torch.Tensor.index_select, torch.index_select], table_rows(torch.index_select, 2)
    ),
    **dict.fromkeys([torch.Tensor.gather, torch.gather], entries_of_table(torch.gather)),
    torch.take_along_dim: entries_of_table(torch.take_along_dim),
}
"""Rules of functions, for any call."""
