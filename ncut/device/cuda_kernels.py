"""CUDA kernels in numba; its simulator runs them without a GPU. Importing this needs numba."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numba import cuda as untyped

from ncut.device.random import LOW, MULTIPLIERS, ROUNDS, STEPS

cuda: Any = untyped

# Every constant has its type: a product of mixed ones would be a floating-point number.
M0, M1 = (np.uint64(multiplier) for multiplier in MULTIPLIERS)
W0, W1 = (np.uint64(step) for step in STEPS)
LOW_HALF, HALF = np.uint64(LOW), np.uint64(32)


@cuda.jit
def keys(key0, key1, stream, substream, first, out):  # type: ignore[no-untyped-def]
    """`out` (n,) of uint64: Philox4x32-10, two numbers from each counter, a thread for each."""
    i = cuda.grid(1)
    if 2 * i < out.shape[0]:
        counter = first + np.uint64(i)
        x0, x1, x2, x3 = counter & LOW_HALF, counter >> HALF, stream, substream
        for _ in range(ROUNDS):
            a = M0 * x0
            b = M1 * x2
            x0 = (b >> HALF) ^ x1 ^ key0
            x2 = (a >> HALF) ^ x3 ^ key1
            x1 = b & LOW_HALF
            x3 = a & LOW_HALF
            key0 = (key0 + W0) & LOW_HALF
            key1 = (key1 + W1) & LOW_HALF
        out[2 * i] = (x0 << HALF) | x1
        if 2 * i + 1 < out.shape[0]:
            out[2 * i + 1] = (x2 << HALF) | x3


@cuda.jit
def nearer(columns, rows, nearest, trials):  # type: ignore[no-untyped-def]
    """`trials` (candidates * restarts, n): distances to a row each, or `nearest` where less."""
    i, row = cuda.grid(2)
    if i < columns.shape[1] and row < rows.shape[0]:
        distance = np.float32(0.0)
        for j in range(columns.shape[0]):
            difference = columns[j, i] - rows[row, j]
            distance += difference * difference
        trials[row, i] = min(distance, nearest[row % nearest.shape[0], i])


@cuda.jit
def reassign(columns, units, centres, labels, sums, counts, changed):  # type: ignore[no-untyped-def]
    """The nearest centre for each point (x) in each restart (y), sums and counts after it."""
    i, restart = cuda.grid(2)
    if i < labels.shape[1] and restart < labels.shape[0]:
        best = np.float32(0.0)
        label = 0
        for c in range(centres.shape[1]):
            distance = np.float32(0.0)
            for j in range(columns.shape[0]):
                difference = columns[j, i] - centres[restart, c, j]
                distance += difference * difference
            if c == 0 or distance < best:
                best = distance
                label = c
        before = labels[restart, i]
        if label != before:
            labels[restart, i] = label
            changed[restart] = 1
            cuda.atomic.add(counts, (restart, label), 1)
            for j in range(columns.shape[0]):
                cuda.atomic.add(sums, (restart, label, j), units[j, i])
            if before >= 0:
                cuda.atomic.add(counts, (restart, before), -1)
                for j in range(columns.shape[0]):
                    cuda.atomic.add(sums, (restart, before, j), -units[j, i])


@cuda.jit
def own_distance(columns, centres, labels, out):  # type: ignore[no-untyped-def]
    """`out` (restarts, n) of float64: squared distance of each point to its centre."""
    i, restart = cuda.grid(2)
    if i < labels.shape[1] and restart < labels.shape[0]:
        label = labels[restart, i]
        total = np.float64(0.0)
        for j in range(columns.shape[0]):
            difference = np.float64(columns[j, i]) - np.float64(centres[restart, label, j])
            total += difference * difference
        out[restart, i] = total


@cuda.jit
def row_links(indptr, indices, data, labels, out):  # type: ignore[no-untyped-def]
    """Adds to `out` (rows, k) each row's weights by the cluster of their column."""
    row = cuda.grid(1)
    if row < out.shape[0]:
        for at in range(indptr[row], indptr[row + 1]):
            out[row, labels[indices[at]]] += np.float64(data[at])


def _expect_small_grids() -> None:
    """No warnings of numba that a grid leaves a GPU idle: small graphs have small grids."""
    config = getattr(sys.modules[type(keys).__module__], "config", None)
    if config is not None:
        config.CUDA_LOW_OCCUPANCY_WARNINGS = 0


_expect_small_grids()
