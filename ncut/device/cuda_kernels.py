"""CUDA kernels in numba; its simulator runs them without a GPU. Importing this needs numba."""

from __future__ import annotations

from numba import cuda, float32, uint64

from ncut.device.random import LOW, MULTIPLIERS, ROUNDS, STEPS

M0, M1 = MULTIPLIERS
W0, W1 = STEPS


@cuda.jit
def keys(key0, key1, stream, substream, out):  # type: ignore[no-untyped-def]
    """`out` (n,) of uint64: Philox4x32-10, two numbers from each counter, a thread for each."""
    i = cuda.grid(1)
    if 2 * i < out.shape[0]:
        # Every constant has its type: a product of mixed ones would be a floating-point number.
        low, half = uint64(LOW), uint64(32)
        counter = uint64(i)
        x0, x1, x2, x3 = counter & low, counter >> half, stream, substream
        for _ in range(ROUNDS):
            a = uint64(M0) * x0
            b = uint64(M1) * x2
            x0 = (b >> half) ^ x1 ^ key0
            x2 = (a >> half) ^ x3 ^ key1
            x1 = b & low
            x3 = a & low
            key0 = (key0 + uint64(W0)) & low
            key1 = (key1 + uint64(W1)) & low
        out[2 * i] = (x0 << half) | x1
        if 2 * i + 1 < out.shape[0]:
            out[2 * i + 1] = (x2 << half) | x3


@cuda.jit
def nearest(points, centres, labels):  # type: ignore[no-untyped-def]
    """`labels` (n, restarts): the nearest of each restart's centres, a thread for each label.

    Neighbouring threads take the restarts of one point, whose coordinates they share.
    """
    place = cuda.grid(1)
    restarts = labels.shape[1]
    i = place // restarts
    if i < labels.shape[0]:
        restart = place - i * restarts
        best = float32(0.0)
        label = 0
        for c in range(centres.shape[1]):
            score = float32(0.0)
            for j in range(points.shape[1]):
                difference = points[i, j] - centres[restart, c, j]
                score += difference * difference
            if c == 0 or score < best:
                best = score
                label = c
        labels[i, restart] = label
