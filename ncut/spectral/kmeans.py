"""k-means on an embedding, with the paper's number of restarts."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ncut import kernels
from ncut.errors import InputError

MAX_ITERATIONS = 300
# Lloyd's iterations stop when the centres move by less than this share of the points' variance.
RELATIVE_TOLERANCE = 1e-4


def restarts(n_init: int | Literal["auto"], n_vertices: int) -> int:
    """The number of restarts: 25, or 100 above 2,000 vertices, as in the paper's code."""
    if n_init == "auto":
        return 25 if n_vertices <= 2000 else 100
    if isinstance(n_init, bool) or not isinstance(n_init, int | np.integer) or n_init < 1:
        raise InputError(f"n_init: must be 'auto' or a whole number of at least 1, got {n_init!r}")
    return int(n_init)


def partition(
    points: NDArray[np.float64], k: int, *, n_init: int, seed: int, stream: int, threads: int
) -> NDArray[np.int32]:
    """Labels, shape (n,), of the points (n, d) in k clusters."""
    # Unit variance on average keeps float32 in its best range; k-means is invariant to scale.
    scaled: Any
    scaled, fits = kernels.unit_variance(np.ascontiguousarray(points))
    if not fits:  # the largest number near 1, so that squares of the smallest do not underflow
        scaled = np.ldexp(points, -int(np.frexp(np.abs(points).max())[1]))
    labels, _ = kernels.kmeans(
        scaled,
        k,
        n_init=n_init,
        max_iterations=MAX_ITERATIONS,
        # A share of the variance would hide the movement of centres among small points.
        tolerance=RELATIVE_TOLERANCE if fits else 0.0,
        seed=seed,
        stream=stream,
        threads=threads,
    )
    return labels
