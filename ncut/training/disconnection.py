"""Disconnection of a network in training: detection, warnings, and holding the term back."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ncut.training.live_graph import LiveGraph
from ncut.training.spectrum_types import Spectrum

DISCONNECTED = 1e-3
"""A second eigenvalue below this means that the network is about to disconnect."""

CHECK_DEGREES = 16
"""Calls between checks of the degrees."""

VANISHING = 1e-6
"""Degrees below this share of their mean count as vanishing."""

NEGLIGIBLE = 1e-3
"""Parts with less than this share of all edge weight do not count as parts."""

Reaction: TypeAlias = Literal["warn", "hold", "ignore"]


class DisconnectionWatch:
    """Detects that a graph disconnects further than at its first call; warns once for each kind.

    Parameters
    ----------
    graph : LiveGraph
    reaction : {"warn", "hold", "ignore"}
        The argument `disconnect` of `ncut.EigenvalueRegularizer`.
    """

    def __init__(self, graph: LiveGraph, reaction: Reaction) -> None:
        self._graph = graph
        self._reaction = reaction
        # At the first call: the number of parts, and the neurons with vanishing weights.
        self._initial_parts: int | None = None
        self._initially_faded: list[int] = []
        self._warned: set[str] = set()

    def holds_back(self, spectrum: Spectrum, n_calls: int) -> bool:
        """Check the graph in one call; return whether its term is to be held back.

        `n_calls`: the number of calls so far, this one included.
        """
        if self._reaction == "ignore":
            return False
        first = self._initial_parts is None
        separated = self._check_parts(spectrum)
        if n_calls % CHECK_DEGREES == 1 and "degrees" not in self._warned:
            self._check_degrees(spectrum, first)
        return self._reaction == "hold" and separated and not first

    def state_dict(self) -> dict[str, Any]:
        """Parts and faded neurons at the first call, and the kinds of warnings given."""
        return {
            "parts": self._initial_parts,
            "faded": list(self._initially_faded),
            "warned": sorted(self._warned),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a `state_dict`."""
        self._initial_parts = state["parts"]
        self._initially_faded = list(state["faded"])
        self._warned = set(state["warned"])

    def _check_parts(self, spectrum: Spectrum) -> bool:
        """Warn of new parts; return whether they separate inputs from outputs."""
        parts = _parts(spectrum)
        first = self._initial_parts is None
        if self._initial_parts is None:
            self._initial_parts = len(parts)
        if len(parts) <= (1 if first else max(self._initial_parts, 1)):
            return False
        separated = _separated(self._graph, spectrum, parts)
        if "parts" not in self._warned:
            self._warned.add("parts")
            text = _description(self._graph, spectrum, parts, separated)
            warnings.warn(self._advice(text, first, separated), stacklevel=5)
        return separated

    def _check_degrees(self, spectrum: Spectrum, first: bool) -> None:
        """Warn of the first neuron that has lost its weights."""
        found = [int(vertex) for vertex in _vanishing(spectrum)]
        if first:
            self._initially_faded = found
        fading = [vertex for vertex in found if vertex not in self._initially_faded]
        if fading:
            self._warned.add("degrees")
            warnings.warn(
                f"a neuron of {self._graph.layer_of(fading[0])!r} has almost no weight left: the "
                "regularizer or the task is cutting it off",
                stacklevel=5,
            )

    def _advice(self, text: str, first: bool, separated: bool) -> str:
        """The warning for a network that disconnects."""
        if first:
            return f"the network was in parts before the regularizer changed it: {text}"
        advice = "disconnect='hold' omits the term while inputs are separated from outputs"
        if self._reaction == "hold":
            advice = "the term is held back" if separated else "inputs still reach outputs"
        return (
            f"the regularizer is cutting the network apart: {text}; {advice}. Lower its weight "
            "unless this is intended"
        )


def _vanishing(spectrum: Spectrum) -> NDArray[np.intp]:
    """Neurons with a vanishing degree; neurons without any weights are already cut off."""
    degrees = spectrum.degrees
    return np.flatnonzero((degrees < VANISHING * degrees.mean()) & (degrees > 0))


def _parts(spectrum: Spectrum) -> list[NDArray[np.bool_]]:
    """The vertices of each nearly disconnected part, heaviest first.

    Parts of negligible weight are left out; there are at most as many parts as eigenvectors.
    """
    degrees = spectrum.degrees
    n_small = int((1.0 - spectrum.values < DISCONNECTED).sum())
    left = degrees > 0
    if not n_small:
        return [left]
    # With the first eigenvector they span the parts' indicators: vertices of one part have parallel
    # rows, vertices of two parts orthogonal ones, for parts of any sizes.
    constant = np.full((len(degrees), 1), degrees.sum() ** -0.5)
    rows = np.hstack([constant, spectrum.vectors[:, :n_small].double().cpu().numpy()])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    parts = []
    while degrees[left].sum() >= NEGLIGIBLE * degrees.sum():
        leader = int(np.argmax(np.where(left, degrees, -1.0)))
        part = left & (rows @ rows[leader] > 0.5)
        left = left & ~part
        if degrees[part].sum() >= NEGLIGIBLE * degrees.sum():
            parts.append(part)
    return sorted(parts, key=lambda part: -degrees[part].sum())


def _separated(graph: LiveGraph, spectrum: Spectrum, parts: list[NDArray[np.bool_]]) -> bool:
    """Return whether no part has a tenth of the inputs' and of the outputs' weights."""
    ends = [graph.layers[0].slice, graph.layers[-1].slice]
    volumes = [max(float(spectrum.degrees[at].sum()), 1e-300) for at in ends]
    weights = [np.where(part, spectrum.degrees, 0.0) for part in parts]
    shared = [
        min(own[at].sum() / volume for at, volume in zip(ends, volumes, strict=True))
        for own in weights
    ]
    return bool(sum(shared) < 0.1)


def _description(
    graph: LiveGraph, spectrum: Spectrum, parts: list[NDArray[np.bool_]], separated: bool
) -> str:
    """The neurons of the lightest part."""
    small = parts[-1]
    shares = {layer.name: int(small[layer.slice].sum()) for layer in graph.layers}
    where = ", ".join(f"{n} of {name!r}" for name, n in shares.items() if n)
    apart = "; inputs are on one side, outputs on the other" if separated else ""
    return (
        f"the second eigenvalue is {spectrum.eigenvalue(2):.1e}, a part of {int(small.sum())} "
        f"neurons ({where}) is almost cut off{apart}"
    )
