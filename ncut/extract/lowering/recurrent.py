"""Recurrent layers, with gates as kernel positions and edges within the layer."""

from __future__ import annotations

from collections.abc import Sequence

from ncut.extract.lowering.signal import Signal, concatenated, expanded
from ncut.extract.lowering.wiring import Wiring
from ncut.extract.program.weights import Expression, combined, joined


def recurrent_layer(
    wiring: Wiring,
    signal: Signal,
    weight_input: Expression,
    weight_hidden: Expression,
    weight_projection: Expression | None = None,
    *,
    n_hidden: int,
    name: str,
    module: str = "",
    parameters: Sequence[str] = (),
    kind: str = "",
    state: Signal | None = None,
    cell: Signal | None = None,
) -> Signal:
    """One direction of an RNN, LSTM or GRU layer.

    A hidden unit is one vertex. The edge from an input to a unit is the norm over its gates, as
    over the positions of a kernel; the edge between two units is the norm of the weights in both
    directions, and self-loops are left out.

    Neurons of a first state enter through the recurrent weights, like the layer's own neurons
    later. First states that a gate passes to the unit of the same number (the first state of a
    GRU, the first cell of an LSTM) also reach the layer's readers.
    """
    gates = weight_input.shape[0] // n_hidden
    passes = cell
    if state is not None and state.terms:
        wide = expanded(state, (*signal.shape[:-1], state.shape[-1]))
        signal = concatenated([signal, wide], -1)
        weight_input = joined(weight_input, weight_hidden, 1)
        passes = state if kind == "GRU" else cell
    kernel = weight_input.reshape(gates, n_hidden, -1).transpose((1, 2, 0))
    within = combined(
        lambda hidden: abs(hidden.reshape(gates, n_hidden, -1)).sum(0).T, weight_hidden
    )
    if weight_projection is not None:
        # The state fed back to a unit comes from all units through the projection.
        within = combined(lambda back, own: abs(back).T @ own, weight_projection, within)
    output = wiring.convolution(
        signal, kernel, (*signal.shape[:-1], n_hidden), axis=-1, name=name, module=module,
        parameters=parameters, within=within,
    )  # fmt: skip
    output = wiring.activation(output, homogeneous=False)
    if passes is not None and passes.terms:
        output = wiring.combine(output, expanded(passes, output.shape))
    if weight_projection is None:
        return output
    return wiring.linear(output, weight_projection.T, name=f"{name} projection")
