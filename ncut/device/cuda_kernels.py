"""CUDA kernels in numba; its simulator runs them without a GPU. Importing this needs numba."""

from __future__ import annotations

import os
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

LLOYD_THREADS = 512
"""Threads of a block of `lloyd`, at most."""

SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"
FEW_REGISTERS = {} if SIMULATED else {"max_registers": 65536 // LLOYD_THREADS}


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
        before = nearest[row % nearest.shape[0], i]
        trials[row, i] = distance if distance < before else before


@cuda.jit(device=True)
def square(columns, i, centres, restart, c):  # type: ignore[no-untyped-def]
    """Squared distance of point i to centre c, float32."""
    distance = np.float32(0.0)
    for j in range(columns.shape[0]):
        difference = columns[j, i] - centres[restart, c, j]
        distance += difference * difference
    return distance


@cuda.jit(device=True)
def enter(units, i, restart, c, sign, sums, counts):  # type: ignore[no-untyped-def]
    """Counts point i, and adds its coordinates, in cluster c (sign 1), or takes them out (-1)."""
    cuda.atomic.add(counts, (restart, c), np.int32(sign))
    for j in range(units.shape[0]):
        cuda.atomic.add(sums, (restart, c, j), sign * units[j, i])


@cuda.jit(**FEW_REGISTERS)
def lloyd(columns, units, per_unit, tolerance, most, centres, labels, sums, counts, moved):  # type: ignore[no-untyped-def]
    """Lloyd's iterations of restart blockIdx.x by one block of threads, until it has converged."""
    restart, thread, n_threads = cuda.blockIdx.x, cuda.threadIdx.x, cuda.blockDim.x
    n, k, d = columns.shape[1], centres.shape[1], columns.shape[0]
    changed = cuda.shared.array(1, np.int32)
    n_empty = cuda.shared.array(1, np.int32)
    farthest = cuda.shared.array(LLOYD_THREADS, np.float32)
    farthest_at = cuda.shared.array(LLOYD_THREADS, np.int64)
    for iteration in range(most + 1):
        if thread == 0:
            changed[0] = 0
            n_empty[0] = 0
        cuda.syncthreads()
        for i in range(thread, n, n_threads):
            best = square(columns, i, centres, restart, 0)
            label = 0
            for c in range(1, k):
                distance = square(columns, i, centres, restart, c)
                if distance < best:
                    best = distance
                    label = c
            before = labels[restart, i]
            if label != before:
                labels[restart, i] = label
                changed[0] = 1
                enter(units, i, restart, label, 1, sums, counts)
                if before >= 0:
                    enter(units, i, restart, before, -1, sums, counts)
        cuda.syncthreads()
        steps = np.float64(np.inf)
        if iteration > 0:
            steps = np.float64(0.0)
            for c in range(k):
                steps += moved[restart, c]
        if changed[0] == 0 or steps <= tolerance or iteration == most:
            break
        for c in range(thread, k, n_threads):
            if counts[restart, c] == 0:
                cuda.atomic.add(n_empty, 0, 1)
        cuda.syncthreads()
        # An empty cluster takes the point that is farthest from its centre.
        for empty in range(k):
            if n_empty[0] == 0:
                break
            if counts[restart, empty] > 0:
                continue
            farthest[thread] = np.float32(0.0)
            farthest_at[thread] = n
            for i in range(thread, n, n_threads):
                own = labels[restart, i]
                if counts[restart, own] > 1:
                    distance = square(columns, i, centres, restart, own)
                    if distance > farthest[thread]:
                        farthest[thread] = distance
                        farthest_at[thread] = i
            cuda.syncthreads()
            if thread == 0:
                best = farthest[0]
                at = farthest_at[0]
                for other in range(1, n_threads):
                    distance = farthest[other]
                    if distance > best or (distance == best and farthest_at[other] < at):
                        best = distance
                        at = farthest_at[other]
                if at < n:
                    enter(units, at, restart, labels[restart, at], -1, sums, counts)
                    enter(units, at, restart, empty, 1, sums, counts)
                    labels[restart, at] = empty
                    for j in range(d):
                        centres[restart, empty, j] = columns[j, at]  # where it will be
            cuda.syncthreads()
        for c in range(thread, k, n_threads):
            step = np.float64(0.0)
            if counts[restart, c] > 0:
                for j in range(d):
                    mean = np.float64(sums[restart, c, j]) / per_unit / counts[restart, c]
                    difference = mean - np.float64(centres[restart, c, j])
                    step += difference * difference
                    centres[restart, c, j] = np.float32(mean)
            moved[restart, c] = step
        cuda.syncthreads()


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
