"""Recurrent layers: gates as positions of one kernel, edges within the layer."""

from __future__ import annotations

from collections.abc import Sequence

from ncut.extract.program.weights import Expression, combined, joined
from ncut.extract.signal import Signal, concatenated, expanded
from ncut.extract.wiring import Wiring


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

    A hidden unit is one vertex. The edge from an input to it is the norm over its gates, as
    over the positions of a kernel; that between two units is the norm of both directions'
    weights, and what a unit's own state does to it (a self-loop) is left out.

    Neurons of a first state come in where later the layer's own do: by the recurrent weights.
    Those that a gate lets through to the unit of the same number (the first state of a GRU, the
    first cell of an LSTM) reach whoever reads it as well.
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
        # What comes back to a unit came from all units by way of the projection.
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
