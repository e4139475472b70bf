"""Recurrent layers: gates as positions of one kernel, edges within the layer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ncut.extract.signal import Signal
from ncut.extract.wiring import Wiring


def recurrent_layer(
    wiring: Wiring,
    signal: Signal,
    weight_input: NDArray[np.floating],
    weight_hidden: NDArray[np.floating],
    weight_projection: NDArray[np.floating] | None = None,
    *,
    n_hidden: int,
    name: str,
    module: str = "",
    parameters: Sequence[str] = (),
) -> Signal:
    """One direction of an RNN, LSTM or GRU layer.

    A hidden unit is one vertex. The edge from an input to it is the norm over its gates, as
    over the positions of a kernel; that between two units is the norm of both directions'
    weights, and what a unit's own state does to it (a self-loop) is left out.

    Parameters
    ----------
    signal : Signal
        The sequence, features along the last axis.
    weight_input, weight_hidden : ndarray, shapes (gates * n_hidden, n_in or n_state)
        The gates one after the other.
    weight_projection : ndarray of shape (n_state, n_hidden), optional
        Projects hidden units to the state that is fed back.

    Returns
    -------
    Signal
        The states, along the last axis.
    """
    gates = weight_input.shape[0] // n_hidden
    kernel = weight_input.reshape(gates, n_hidden, -1).transpose(1, 2, 0)
    within = np.abs(weight_hidden.reshape(gates, n_hidden, -1)).sum(axis=0).T
    shape = (*signal.shape[:-1], n_hidden)
    if weight_projection is None:
        output = wiring.convolution(
            signal, kernel, shape, axis=-1, name=name, module=module, parameters=parameters,
            within=within,
        )  # fmt: skip
        return wiring.activation(output, homogeneous=False)
    hidden = wiring.convolution(
        signal, kernel, shape, axis=-1, name=name, module=module, parameters=parameters,
        # What comes back to a unit came from all units by way of the projection.
        within=np.abs(weight_projection).T @ within,
    )  # fmt: skip
    hidden = wiring.activation(hidden, homogeneous=False)
    return wiring.linear(hidden, weight_projection.T, name=f"{name} projection")
