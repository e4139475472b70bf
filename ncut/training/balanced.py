"""Partitions of a network's neurons: a balanced one, and one given by the user."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ncut.errors import InputError
from ncut.extract.references import References


def balanced_labels(places: References, k: int) -> NDArray[np.int64]:
    """Labels with inputs spread over clusters, other layers in k contiguous blocks; shape (n,).

    A layer that concatenates several outputs, such as queries and values made by one matrix, is
    divided within each output.
    """
    parts = []
    for number, (name, size) in enumerate(zip(places.names, places.sizes, strict=True)):
        if number == 0 and name == "input":
            parts.append(_spread(size, k))
            continue
        runs = np.split(np.arange(size), _ends(places, number, k))
        parts += [np.arange(run.size) * k // run.size for run in runs]
    return np.concatenate(parts)


def _spread(n: int, k: int) -> NDArray[np.int64]:
    """n inputs in k clusters of equal size, each spread over an image of any width.

    Inputs are ordered by their multiples of an irrational number: dealt out in turn, clusters would
    be columns of pixels if k divides the width.
    """
    ranks = np.empty(n, dtype=np.int64)
    ranks[np.argsort(np.arange(n) * np.sqrt(2) % 1)] = np.arange(n)
    return ranks * k // n


def _ends(places: References, layer: int, k: int) -> NDArray[np.int64]:
    """Positions where a layer's neurons are not adjacent in the weights that write them."""
    for join in places.joins:
        outputs, way = np.nonzero(join.outputs >= 0)
        vertices, first = np.unique(join.outputs[outputs, way], return_index=True)
        if join.target != layer or len(vertices) < places.sizes[layer]:
            continue
        ends = np.flatnonzero(np.diff(outputs[first]) != 1) + 1
        runs = np.diff([0, *ends, places.sizes[layer]])
        if runs.min() >= k:
            return ends
    return np.zeros(0, dtype=np.int64)


def checked_labels(
    places: References, k: int, given: Mapping[str, ArrayLike] | ArrayLike | None
) -> NDArray[np.int64]:
    """The balanced labels, with the given ones in place of some; shape (n,).

    Raises
    ------
    InputError
        If a layer does not exist, or its labels are not whole numbers below k, one per neuron.
    """
    labels = balanced_labels(places, k)
    ends = np.cumsum(places.sizes)
    slices = {
        name: slice(end - size, end)
        for name, size, end in zip(places.names, places.sizes, ends, strict=True)
    }
    if given is None:
        return labels
    if not isinstance(given, Mapping):
        given, slices = {"labels": given}, {"labels": slice(0, len(labels))}
    for name, values in given.items():
        if name not in slices:
            raise InputError(f"labels: no layer {name!r}; there are {[*slices]}")
        array = np.asarray(values)
        size = slices[name].stop - slices[name].start
        if array.shape != (size,) or array.dtype.kind not in "iu":
            raise InputError(
                f"labels: {name!r} needs {size} whole numbers, got shape {array.shape} of dtype "
                f"{array.dtype}"
            )
        if array.max() >= k:
            raise InputError(f"labels: must be below k, which is {k}, got {array.max()}")
        labels[slices[name]] = np.where(array < 0, -1, array)
    return labels
