"""Operations without traced results: known values, and choices by values."""

from __future__ import annotations

from typing import Any

import torch

from ncut.extract.program.values import expanded, permuted, reshaped, unsqueezed
from ncut.extract.readers.traced.operations.common import is_known
from ncut.extract.readers.traced.tensor import is_traced
from ncut.extract.readers.traced.tracing import Call, DependsOnDataError
from ncut.extract.registry import table


def _like(call: Call) -> Any:
    """Zeros, ones or noise of the shape of another tensor."""
    source = call.args[0]
    kwargs = {k: v for k, v in call.kwargs.items() if k in ("dtype", "layout") and v is not None}
    kwargs.setdefault("dtype", source.dtype)
    device = call.kwargs.get("device") or call.tracing.device
    if call.function.startswith("new_"):
        shape, fill = call.args[1], call.args[2:3]
    else:
        shape, fill = tuple(source.shape), call.args[1:2]
    kind = call.function.removeprefix("new_").removesuffix("_like").removesuffix("_strided")
    if kind in ("rand", "randn", "randint"):
        meta = torch.empty(tuple(shape), dtype=kwargs["dtype"], device="meta")
        return call.tracing.noise(meta)
    if kind == "empty":
        kind = "zeros"
    if kind == "full":
        return torch.full(tuple(shape), fill[0], device=device, **kwargs)
    return getattr(torch, kind)(tuple(shape), device=device, **kwargs)


def _masked_select(call: Call) -> Any:
    """`masked_select(x, mask)` with a known mask."""
    if not is_known(call, call.args[1]):
        _control_flow(call)
    broadcast: Any = torch.broadcast_tensors
    value, mask = broadcast(*call.args)
    return value[mask]


def _control_flow(call: Call) -> Any:
    raise DependsOnDataError(
        f"{call.tracing.place()} chooses what to do by values that depend on the data. Pass a "
        "model without that choice, or the weights of a chain in it as a list"
    )


def _packed(call: Call) -> Any:
    """`pack_padded_sequence(padded, lengths)`: the steps of all examples, concatenated."""
    padded, lengths, batch_first = call.args[:3]
    if is_traced(lengths):
        raise DependsOnDataError(f"{call.tracing.place()} packs by lengths that depend on the data")
    signal = padded.value
    if not batch_first:
        signal = permuted(signal, [1, 0, *range(2, signal.ndim)])
    rest = signal.shape[2:]
    steps = call.program.positions(signal, (1, 1, *rest), axis=2)
    flat = reshaped(steps, (1, *rest))
    whole = [int(n) for n in lengths]
    batch_sizes = torch.tensor([sum(n > step for n in whole) for step in range(max(whole))])
    made = call.tracing.made(expanded(flat, (sum(whole), *rest)), padded)
    return made, batch_sizes


def _unpacked(call: Call) -> Any:
    """`pad_packed_sequence`: the steps of each example, padded."""
    data, batch_sizes, batch_first, _, total = call.args[:5]
    time, n = len(batch_sizes), int(batch_sizes[0])
    lengths = torch.tensor([int((batch_sizes > at).sum()) for at in range(n)])
    time = max(time, int(total))
    rest = data.shape[1:]
    single = call.program.positions(data.value, (1, *rest), axis=1)
    wide = unsqueezed(single, 0)
    shape = (n, time, *rest) if batch_first else (time, n, *rest)
    return call.tracing.made(expanded(wide, shape), data), lengths


EARLY = table(
    (
        "zeros_like ones_like full_like empty_like rand_like randn_like randint_like new_zeros "
        "new_ones new_full new_empty new_empty_strided",
        _like,
    ),
    (
        "_local_scalar_dense item is_nonzero equal allclose nonzero unique_dim _unique2",
        _control_flow,
    ),
    ("masked_select", _masked_select),
    ("_pack_padded_sequence", _packed),
    ("_pad_packed_sequence", _unpacked),
    ("_fused_sdp_choice", lambda _: 0),  # SDPBackend.MATH: decomposes into matrix products
    # Distributions validate their parameters.
    ("_is_all_true", lambda _: torch.ones((), dtype=torch.bool)),
    ("_assert_async _functional_assert_async _assert_tensor_metadata", lambda _: None),
)
"""Operations whose results are not traced tensors."""
