"""Argument checks shared by silencing and correlation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ncut.errors import InputError
from ncut.types import Layer


def n_vertices(layers: Sequence[Layer]) -> int:
    """Number of vertices of the layers, which are numbered layer after layer."""
    if not layers:
        raise InputError("layers: empty; pass the layers of the graph, graph.layers")
    return layers[-1].start + layers[-1].size


def check_labels(labels: ArrayLike, layers: Sequence[Layer]) -> NDArray[np.intp]:
    """The cluster of each vertex, -1 for a vertex in no cluster; refuse invalid labels."""
    array = np.asarray(labels)
    n = n_vertices(layers)
    if array.shape != (n,) or array.dtype.kind not in "iu":
        raise InputError(
            f"labels: must be {n} whole numbers, one per vertex, got shape {array.shape} of dtype "
            f"{array.dtype}"
        )
    if not (array >= 0).any():
        raise InputError("labels: no vertex is in a cluster")
    labels = np.where(array < 0, -1, array).astype(np.intp)
    return labels


def check_vertices(vertices: ArrayLike, layers: Sequence[Layer]) -> NDArray[np.intp]:
    """Sorted numbers of vertices, each once; refuse masks and numbers that do not exist."""
    array = np.asarray(vertices)
    n = n_vertices(layers)
    if array.ndim == 1 and not array.size:
        return np.zeros(0, dtype=np.intp)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise InputError(
            "vertices: must be the numbers of vertices (of a mask: numpy.flatnonzero(mask)), got "
            f"shape {array.shape} of dtype {array.dtype}"
        )
    if array.min() < 0 or array.max() >= n:
        raise InputError(
            f"vertices: numbers must lie between 0 and {n - 1}, got {array.min()} to {array.max()}"
        )
    return np.unique(array).astype(np.intp)


def check_unshared(reader: str, layer: Layer, layers: Sequence[Layer]) -> None:
    """Refuse a part of the model that reads more than one layer, as its inputs are ambiguous."""
    read = [other.name for other in layers if reader in other.read_by]
    called_again = any(other.name.startswith(f"{reader} (call ") for other in layers)
    if len(read) > 1 or called_again:
        names = ", ".join(map(repr, read)) if len(read) > 1 else f"{layer.name!r} and others"
        raise InputError(
            f"model: {reader!r} reads the values of several layers ({names}), so the values of "
            f"{layer.name!r} cannot be identified; use a separate module for each call"
        )


def check_evaluate(evaluate: object) -> None:
    """Refuse what is no function."""
    if not callable(evaluate):
        raise InputError(f"evaluate: must be a function of the model, got {evaluate!r}")


def check_number(value: Any, argument: str, what: str) -> float:
    """A finite number, or the entry of a 0-dimensional array or tensor; refuse anything else."""
    number = value.item() if getattr(value, "ndim", None) == 0 else value
    if isinstance(number, bool) or not isinstance(number, Real) or not math.isfinite(number):
        shown = repr(number) if isinstance(number, Real) else type(value).__name__
        raise InputError(f"{argument}: must {what}; got {shown}")
    return float(number)


def check_random_sets(random_sets: object) -> int:
    """The number of random sets; refuse invalid numbers."""
    whole = isinstance(random_sets, int | np.integer) and not isinstance(random_sets, bool)
    if not whole or random_sets < 0:  # type: ignore[operator]
        raise InputError(f"random_sets: must be a whole number of at least 0, got {random_sets!r}")
    return int(random_sets)  # type: ignore[call-overload, no-any-return]
