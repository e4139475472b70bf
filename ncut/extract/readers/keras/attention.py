"""Attention layers: scalar products of queries and keys select values."""

from __future__ import annotations

import math

import numpy as np

from ncut.errors import ModelError
from ncut.extract.program.einsum import einsum
from ncut.extract.program.values import Value, permuted, reshaped, unsqueezed
from ncut.extract.readers.keras.calls import Call, Rule


def _multi_head(call: Call) -> Value:
    query, value, key = _three(call)
    axes = call.config.get("attention_axes")
    inner = [*range(1, query.ndim - 1)]
    if axes is not None and sorted(query.axis(a) for a in np.ravel(axes).tolist()) != inner:
        raise ModelError(f"attention_axes {axes!r}, which are not all axes of positions")
    shape = query.shape
    query, value, key = (
        reshaped(s, (s.shape[0], math.prod(s.shape[1:-1]), s.shape[-1]))
        for s in (query, value, key)
    )
    sides = [
        permuted(_projected(call, s, part), [0, 2, 1, 3])
        for s, part in ((query, "query"), (key, "key"), (value, "value"))
    ]
    result = permuted(call.program.attention(*sides, name=f"heads of {call.path}"), [0, 2, 1, 3])
    if call.config.get("use_gate"):
        gate = call.program.activation(_projected(call, query, "gate"), homogeneous=False)
        result = call.program.multiply(result, gate)
    made = _projected(call, result, "output", "abcd,cde->abe")
    return reshaped(made, (*shape[:-1], made.shape[-1]))


def _projected(call: Call, signal: Value, side: str, equation: str = "abc,cde->abde") -> Value:
    """A dense layer of heads, or of their outputs."""
    part = f"{side}_dense"
    kernel = call.weight("kernel", "bias", part=part)
    return einsum(call.program, equation, [signal, kernel], **call.layer_of("kernel", part=part))


def _three(call: Call) -> tuple[Value, Value, Value]:
    """Query, value and key; the key defaults to the value."""
    signals = call.signals
    named = [call.kwargs.get(name) for name in ("query", "value", "key")]
    positional = [s for s in signals if not any(s is other for other in named)]
    query, value, key = (
        given if isinstance(given, Value) else positional[at] if at < len(positional) else None
        for at, given in enumerate(named)
    )
    if query is None or value is None:
        # A tensor passed twice appears as one signal.
        query = query or signals[0]
        value = value or signals[min(1, len(signals) - 1)]
    return query, value, key if key is not None else value


def _attention(call: Call) -> Value:
    """`Attention`: no weights except a factor of the scores."""
    query, value, key = _three(call)
    found = call.weights("scale", "concat_score_weight")
    call.program.ignore([call.parameter(name) for name in found], "a factor of scores")
    return call.program.attention(query, key, value, name=f"heads of {call.path}")


def _additive(call: Call) -> Value:
    """`AdditiveAttention`: scores are sums of tanh(query + key), weighted by a vector."""
    query, value, key = _three(call)
    program = call.program
    scale = call.weights("scale").get("scale")
    rows, columns = unsqueezed(query, query.ndim - 1), unsqueezed(key, key.ndim - 2)
    both = program.activation(program.add(rows, columns), homogeneous=False)
    if scale is not None:
        program.linear(both, scale[:, None], **call.layer_of("scale"))
    scores = Value((*query.shape[:-1], key.shape[-2]))
    return program.matmul(scores, value, f"heads of {call.path}")


ATTENTION: dict[str, Rule] = {
    "MultiHeadAttention": _multi_head,
    "GroupedQueryAttention": _multi_head,
    "GroupQueryAttention": _multi_head,
    "Attention": _attention,
    "AdditiveAttention": _additive,
}
