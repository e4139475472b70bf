"""k-means on a device: all restarts at once, by CUDA kernels or by matrix products."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncut.device import cuda
from ncut.device.devices import Device, astype, concat
from ncut.spectral.kmeans import MAX_ITERATIONS, RELATIVE_TOLERANCE

LARGEST = 2**30
"""Bytes that the distances of all points to the centres of the restarts at hand may take."""

LARGEST_SUM = 2.0**62
"""What sums of the points' coordinates in whole units stay below, in 64 bits."""


def partition(device: Device, points: Any, k: int, *, n_init: int, seed: int, stream: int) -> Any:
    """Labels of points in k clusters, the best of several restarts by inertia.

    Greedy k-means++ and Lloyd's iterations as on the CPU, with other random numbers. A cluster
    that becomes empty takes the point farthest from its centre.

    Parameters
    ----------
    device : Device
    points : device array of float64, shape (n, d)
    k, n_init : int
        Clusters, restarts.
    seed, stream : int
        The same give the same labels on devices of one kind, whatever their budget.

    Returns
    -------
    device array of int32, shape (n,)

    Source: Arthur and Vassilvitskii (2007), k-means++; Lloyd (1982), Least squares quantization.
    """
    xp = device.xp
    # Unit variance on average keeps float32 in its best range; k-means does not see the scale.
    scale = xp.sqrt(xp.mean(xp.var(points, axis=0)))
    scaled = points / xp.where(scale > 0, scale, xp.ones_like(scale))
    placed = _Points(device, astype(scaled, xp.float32, xp))
    n_candidates = 2 + int(math.log(k))
    bytes_per_restart = 4 * placed.n * (3 * k + 2 * n_candidates + 8)
    at_once = min(device.budget // 4, LARGEST) // bytes_per_restart
    at_once = max(1, min(n_init, at_once, cuda.MOST_ROWS // n_candidates))
    uniform = np.random.default_rng([seed, stream]).random((n_init, k, n_candidates))
    best: _Found | None = None
    for start in range(0, n_init, at_once):
        centres = _starts(placed, device.asarray(uniform[start : start + at_once]))
        found = _by_kernel(placed, centres) if placed.kernels else _Lloyd(placed, centres).run()
        if best is None or found.inertia < best.inertia:
            best = found
    assert best is not None  # n_init is at least 1
    return best.labels


class _Points:
    """The points in the forms that the steps need."""

    def __init__(self, device: Device, rows: Any) -> None:
        xp = device.xp
        self.device, self.rows = device, rows
        self.n, self.d = rows.shape
        self.kernels = cuda.usable(device)
        self.columns = rows.T
        if self.kernels:
            self.columns = xp.ascontiguousarray(self.columns)
            largest = max(1.0, float(device.to_host(xp.max(xp.abs(rows)))))
            self.per_unit = 2.0 ** math.floor(math.log2(LARGEST_SUM / (largest * self.n)))
            wide = astype(self.columns, xp.float64, xp)
            self.units = astype(xp.floor(wide * self.per_unit), xp.int64, xp)


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    inertia: float
    labels: Any


def _starts(points: _Points, uniform: Any) -> Any:
    """Centres by greedy k-means++, shape (restarts, k, d).

    Of a few candidates drawn with probability proportional to the squared distance to the nearest
    centre so far, the one that lowers the sum of distances most.

    uniform: numbers between 0 and 1, shape (restarts, k, candidates).
    """
    xp, n = points.device.xp, points.n
    restarts, k, n_candidates = uniform.shape
    first = astype(xp.floor(uniform[:, 0, 0] * n), xp.int64, xp)
    centres = [xp.take(points.rows, first, axis=0)]
    nearest = xp.full((restarts, n), float("inf"), dtype=xp.float32)
    nearest = _nearer(points, centres[0], nearest)
    numbers = xp.arange(restarts, dtype=xp.int64)
    for cluster in range(1, k):
        cumulative = _running(astype(nearest, xp.float64, xp), xp)
        goals = uniform[:, cluster, :] * cumulative[:, -1:]
        passed = cumulative[None, :, :] <= goals.T[:, :, None]
        # Candidate by candidate, all restarts of each.
        at = xp.reshape(xp.count_nonzero(passed, axis=2), (-1,))
        rows = xp.take(points.rows, xp.where(at < n, at, xp.full_like(at, n - 1)), axis=0)
        trials = _nearer(points, rows, nearest)
        sums = xp.reshape(xp.sum(trials, axis=1, dtype=xp.float64), (n_candidates, restarts))
        chosen = xp.argmin(sums, axis=0) * restarts + numbers
        nearest = xp.take(trials, chosen, axis=0)
        centres.append(xp.take(rows, chosen, axis=0))
    return xp.stack(centres, axis=1)


def _nearer(points: _Points, rows: Any, nearest: Any) -> Any:
    """Squared distance of all points to each row, or what it was if less; 0 for equal points.

    rows (candidates * restarts, d), nearest (restarts, n) -> (candidates * restarts, n).
    """
    device, xp = points.device, points.device.xp
    if points.kernels:
        trials = xp.empty((rows.shape[0], points.n), dtype=xp.float32)
        cuda.nearer_distances(device, points.columns, rows, nearest, trials)
        return trials
    total = xp.zeros((rows.shape[0], points.n), dtype=xp.float32)
    for axis in range(points.d):
        difference = points.rows[:, axis][None, :] - rows[:, axis][:, None]
        total += difference * difference
    before = concat([nearest] * (rows.shape[0] // nearest.shape[0]), xp)
    return xp.where(total < before, total, before)


def _by_kernel(points: _Points, centres: Any) -> _Found:
    """Lloyd's iterations from these centres, and the restart of least inertia."""
    device, xp = points.device, points.device.xp
    labels = xp.full((centres.shape[0], points.n), -1, dtype=xp.int32)
    cuda.lloyd(
        device,
        points.columns,
        points.units,
        centres,
        labels,
        per_unit=points.per_unit,
        tolerance=RELATIVE_TOLERANCE,
        most=MAX_ITERATIONS,
    )
    distances = xp.empty(labels.shape, dtype=xp.float64)
    cuda.own_distances(device, points.columns, centres, labels, distances)
    inertia = device.to_host(xp.sum(distances, axis=1))
    least = int(inertia.argmin())
    return _Found(float(inertia[least]), labels[least, :])


class _Lloyd:
    """Lloyd's iterations by matrix products, each restart until it has converged or longer."""

    def __init__(self, points: _Points, centres: Any) -> None:
        self.points, self.device, self.xp = points, points.device, points.device.xp
        self.centres = centres
        restarts, self.k, _ = centres.shape
        xp = self.xp
        self.labels = xp.full((restarts, points.n), -1, dtype=xp.int32)
        self.sums = xp.zeros(centres.shape, dtype=xp.float32)
        self.counts = xp.zeros((restarts, self.k), dtype=xp.int32)

    def run(self) -> _Found:
        """The labels of the restart of least inertia."""
        xp = self.xp
        best: _Found | None = None
        finished = np.zeros(self.centres.shape[0], dtype=bool)
        moved = xp.ones((finished.size,), dtype=xp.float64)
        for iteration in range(MAX_ITERATIONS + 1):
            changed = self._reassign()
            fewest = xp.min(self.counts, axis=1)
            wide = [astype(one, xp.float64, xp) for one in (changed, moved, fewest)]
            state = self.device.to_host(xp.stack(wide))  # the one wait of an iteration
            finished |= (state[0] == 0) | (state[1] <= RELATIVE_TOLERANCE)
            finished |= iteration == MAX_ITERATIONS
            # Restarts that are finished go on as long as most others do, which makes none worse.
            if 2 * finished.sum() >= finished.size:
                best = self._better(best, np.flatnonzero(finished))
                going = np.flatnonzero(~finished)
                if not going.size:
                    break
                self._keep(going)
                finished, state = finished[going], state[:, going]
            if not state[2].all():
                self._refill(np.flatnonzero((state[2] == 0) & ~finished))
            moved = self._move_centres()
        assert best is not None  # every restart ends
        return best

    def _reassign(self) -> Any:
        """Label each point with its nearest centre; which restarts changed, not 0 for them."""
        xp, points = self.xp, self.points
        restarts = self.centres.shape[0]
        flat = xp.reshape(self.centres, (restarts * self.k, points.d))
        # Half the squared distance, less half the point's own square, which is the same for all.
        scores = xp.sum(flat * flat, axis=1)[:, None] / 2 - flat @ points.columns
        nearest = xp.argmin(xp.reshape(scores, (restarts, self.k, points.n)), axis=1)
        labels = astype(nearest, xp.int32, xp)
        changed = xp.any(labels != self.labels, axis=1)
        self.labels = labels
        clusters = xp.arange(self.k, dtype=xp.int32)
        members = astype(labels[:, None, :] == clusters[None, :, None], xp.float32, xp)
        self.counts = astype(xp.sum(members, axis=2), xp.int32, xp)
        self.sums = members @ points.rows
        return changed

    def _move_centres(self) -> Any:
        """Put the centres into the middle of their points; squared distances that they moved."""
        xp = self.xp
        counts = astype(self.counts, xp.float64, xp)[:, :, None]
        sums = astype(self.sums, xp.float64, xp)
        filled = counts > 0
        before = astype(self.centres, xp.float64, xp)
        means = xp.where(filled, sums / xp.where(filled, counts, xp.ones_like(counts)), before)
        self.centres = astype(means, xp.float32, xp)
        steps = xp.reshape(means - before, (means.shape[0], -1))
        return xp.sum(steps * steps, axis=1)

    def _refill(self, restarts: NDArray[np.intp]) -> None:
        """Give empty clusters the points farthest from their centres; rare, so on the host."""
        points, to_host = self.points, self.device.to_host
        rows, centres = to_host(points.rows), to_host(self.centres)
        labels, sums, counts = (
            np.array(to_host(array)) for array in (self.labels, self.sums, self.counts)
        )
        for restart in restarts:
            own = labels[restart]
            for empty in np.flatnonzero(counts[restart] == 0):
                distances = ((rows - centres[restart, own]) ** 2).sum(axis=1)
                distances[counts[restart, own] < 2] = 0
                farthest = int(distances.argmax())
                if distances[farthest] == 0:  # fewer distinct points than clusters
                    break
                for cluster, sign in ((own[farthest], -1), (empty, 1)):
                    sums[restart, cluster] += sign * rows[farthest]
                    counts[restart, cluster] += sign
                own[farthest] = empty
                centres[restart, empty] = rows[farthest]  # where it will be
        self.labels, self.sums, self.counts = map(self.device.asarray, (labels, sums, counts))

    def _better(self, best: _Found | None, done: NDArray[np.intp]) -> _Found:
        """The better of what was best and of the restarts that are done."""
        xp, points = self.xp, self.points
        numbers = self.device.asarray(done)
        labels = xp.take(self.labels, numbers, axis=0)
        centres = xp.take(self.centres, numbers, axis=0)
        first = self.k * xp.arange(done.size, dtype=xp.int64)[:, None]
        at = xp.reshape(astype(labels, xp.int64, xp) + first, (-1,))
        flat = xp.reshape(centres, (done.size * self.k, points.d))
        distances = xp.zeros(labels.shape, dtype=xp.float64)
        for axis in range(points.d):
            there = xp.reshape(xp.take(flat[:, axis], at, axis=0), labels.shape)
            difference = astype(points.columns[axis, :][None, :] - there, xp.float64, xp)
            distances += difference * difference
        inertia = self.device.to_host(xp.sum(distances, axis=1))
        least = int(inertia.argmin())
        if best is not None and best.inertia <= inertia[least]:
            return best
        return _Found(float(inertia[least]), labels[least, :])

    def _keep(self, going: NDArray[np.intp]) -> None:
        """Go on with some of the restarts."""
        numbers = self.device.asarray(going)
        for name in ("centres", "labels", "sums", "counts"):
            setattr(self, name, self.xp.take(getattr(self, name), numbers, axis=0))


def _running(values: Any, xp: Any) -> Any:
    """Running sums along the rows; the standard's name is younger than NumPy's."""
    cumulative = getattr(xp, "cumulative_sum", None) or xp.cumsum
    return cumulative(values, axis=1)
