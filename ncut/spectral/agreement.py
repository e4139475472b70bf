"""Agreement of two partitions of the same neurons."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ncut.errors import InputError


def adjusted_rand_index(a: ArrayLike, b: ArrayLike) -> float:
    """Adjusted Rand index of two partitions: 1 if they are the same, 0 on average by chance.

    Chance: one partition's clusters keep their sizes and get random members.

    Parameters
    ----------
    a, b : array_like of int, shape (n,)
        The cluster of each of n objects in each partition, n at least 1, as any whole numbers; only
        equality matters.

    Returns
    -------
    float
        At most 1; also 1 if both have a single cluster, or both have only singletons.

    Raises
    ------
    InputError
        If they are not whole numbers, are empty, or differ in length.

    Source: Hubert and Arabie (1985), Comparing partitions.
    """
    first, second = np.asarray(a), np.asarray(b)
    if first.ndim != 1 or first.shape != second.shape or not first.size:
        raise InputError(
            f"a, b: must be the labels of the same things, got shapes {first.shape} and "
            f"{second.shape}"
        )
    if first.dtype.kind not in "iu" or second.dtype.kind not in "iu":
        raise InputError(
            f"a, b: labels must be whole numbers, got dtypes {first.dtype} and {second.dtype}"
        )
    table = _contingency(first, second)
    together = _pairs(table)
    in_first, in_second = _pairs(table.sum(axis=1)), _pairs(table.sum(axis=0))
    expected = in_first * in_second / max(_pairs(np.array([first.size])), 1)
    largest = (in_first + in_second) / 2
    if together == in_first == in_second:
        return 1.0
    return float((together - expected) / (largest - expected))


def _contingency(a: NDArray[np.integer], b: NDArray[np.integer]) -> NDArray[np.int64]:
    """Contingency table of two partitions."""
    values_a, rows = np.unique(a, return_inverse=True)
    values_b, columns = np.unique(b, return_inverse=True)
    shape = (values_a.size, values_b.size)
    counts = np.bincount(rows * shape[1] + columns, minlength=shape[0] * shape[1])
    return counts.astype(np.int64).reshape(shape)


def _pairs(counts: NDArray[np.int64]) -> int:
    """Number of pairs within groups of these sizes."""
    return int((counts * (counts - 1) // 2).sum())
