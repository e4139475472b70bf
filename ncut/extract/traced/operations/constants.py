"""What makes no traced tensor: known values, and choices by values."""

from __future__ import annotations

from typing import Any

import torch

from ncut.extract.traced.operations.common import table
from ncut.extract.traced.tracing import Call, DependsOnDataError


def _like(call: Call) -> Any:
    """A tensor of known values: zeros, ones, or noise of the shape of another."""
    source = call.args[0]
    kwargs = {k: v for k, v in call.kwargs.items() if k in ("dtype", "layout") and v is not None}
    kwargs.setdefault("dtype", source.dtype)
    device = call.kwargs.get("device") or call.tracing.device
    if call.function.startswith("new_"):
        shape, fill = call.args[1], call.args[2:3]
    else:
        shape, fill = tuple(source.shape), call.args[1:2]
    kind = call.function.removeprefix("new_").removesuffix("_like").removesuffix("_strided")
    if kind in ("rand", "randn", "empty"):
        kind = "zeros"
    if kind == "full":
        return torch.full(tuple(shape), fill[0], device=device, **kwargs)
    return getattr(torch, kind)(tuple(shape), device=device, **kwargs)


def _control_flow(call: Call) -> Any:
    raise DependsOnDataError(
        f"{call.tracing.place()} chooses what to do by values that depend on the data. Pass a "
        "model without that choice, or the weights of a chain in it as a list"
    )


def _math_attention(call: Call) -> Any:
    return 0  # SDPBackend.MATH: falls apart into products of matrices


def _no_result(call: Call) -> Any:
    return None


EARLY = table(
    (
        "zeros_like ones_like full_like empty_like rand_like randn_like new_zeros new_ones "
        "new_full new_empty new_empty_strided",
        _like,
    ),
    (
        "_local_scalar_dense item is_nonzero equal allclose nonzero unique_dim _unique2",
        _control_flow,
    ),
    ("_fused_sdp_choice", _math_attention),
    ("_assert_async _functional_assert_async _assert_tensor_metadata", _no_result),
)
"""Operations whose results are no traced tensors."""
