"""k-means on a device: all restarts at once, by matrix products."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncut.device.cut import indicators
from ncut.device.devices import Device, astype, concat
from ncut.spectral.kmeans import MAX_ITERATIONS, RELATIVE_TOLERANCE

LARGEST = 2**30
"""Bytes for the distances of all points to all centres of the restarts at hand."""


def partition(device: Device, points: Any, k: int, *, n_init: int, seed: int, stream: int) -> Any:
    """Labels of points in k clusters, the best of several restarts by inertia.

    Greedy k-means++ and Lloyd's iterations as on the CPU, with other random numbers.

    Parameters
    ----------
    device : Device
    points : device array of float64, shape (n, d)
    k, n_init : int
        Clusters, restarts.
    seed, stream : int
        The same give the same labels on devices of one kind.

    Returns
    -------
    device array of int32, shape (n,)

    Source: Arthur and Vassilvitskii (2007), k-means++; Lloyd (1982), Least squares quantization.
    """
    xp = device.xp
    n, d = points.shape
    # Unit variance on average keeps float32 in its best range; k-means does not see the scale.
    scale = xp.sqrt(xp.mean(xp.var(points, axis=0)))
    scaled = points / xp.where(scale > 0, scale, xp.ones_like(scale))
    narrow = astype(scaled, xp.float32, xp)
    bytes_per_restart = 4 * n * (3 * k + 2 * d)
    at_once = max(1, min(n_init, min(device.budget // 4, LARGEST) // bytes_per_restart))
    rng = np.random.default_rng([seed, stream])
    best: _Found | None = None
    for start in range(0, n_init, at_once):
        restarts = min(at_once, n_init - start)
        found = _Lloyd(device, narrow, _chosen(device, narrow, k, restarts, rng)).run()
        if best is None or found.inertia < best.inertia:
            best = found
    assert best is not None  # n_init is at least 1
    return best.labels


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    inertia: float
    labels: Any


def _chosen(device: Device, points: Any, k: int, restarts: int, rng: np.random.Generator) -> Any:
    """Centres by greedy k-means++, shape (restarts, k, d).

    Of a few candidates drawn with probability proportional to the squared distance to the nearest
    centre so far, the one that lowers the sum of distances most.
    """
    xp = device.xp
    n = points.shape[0]
    n_candidates = 2 + int(np.log(k))
    uniform = device.asarray(rng.random((k, restarts, n_candidates)))
    first = astype(xp.floor(uniform[0, :, 0] * n), xp.int64, xp)
    centres = [xp.take(points, first, axis=0)]
    nearest = _squared_distances(points, centres[0], xp)
    numbers = xp.arange(restarts, dtype=xp.int64)
    for cluster in range(1, k):
        cumulative = _running(astype(nearest, xp.float64, xp), xp)
        goals = uniform[cluster, :, :] * cumulative[:, -1:]
        passed = [
            xp.sum(astype(cumulative <= goals[:, i : i + 1], xp.int64, xp), axis=1)
            for i in range(n_candidates)
        ]
        at = xp.minimum(xp.stack(passed), xp.full_like(passed[0], n - 1)[None, :])
        sums, trials, rows = [], [], []
        for i in range(n_candidates):
            rows.append(xp.take(points, at[i, :], axis=0))
            trials.append(xp.minimum(nearest, _squared_distances(points, rows[-1], xp)))
            sums.append(xp.sum(trials[-1], axis=1, dtype=xp.float64))
        choice = xp.argmin(xp.stack(sums), axis=0)
        chosen = choice * restarts + numbers
        nearest = xp.take(concat(trials, xp), chosen, axis=0)
        centres.append(xp.take(concat(rows, xp), chosen, axis=0))
    return xp.stack(centres, axis=1)


def _squared_distances(points: Any, centres: Any, xp: Any) -> Any:
    """Of every point to one centre per restart, shape (restarts, n); 0 exactly for equal points."""
    total = xp.zeros((centres.shape[0], points.shape[0]), dtype=points.dtype)
    for axis in range(points.shape[1]):
        difference = points[:, axis][None, :] - centres[:, axis][:, None]
        total += difference * difference
    return total


class _Lloyd:
    """Lloyd's iterations of several restarts, each until it has converged."""

    def __init__(self, device: Device, points: Any, centres: Any) -> None:
        self.device, self.xp = device, device.xp
        self.points, self.centres = points, centres
        self.n, self.d = points.shape
        self.k = centres.shape[1]

    def run(self) -> _Found:
        """The labels of the restart of least inertia."""
        xp = self.xp
        best: _Found | None = None
        labels = self._assigned()
        for _ in range(MAX_ITERATIONS):
            moved = self._move_centres(labels)
            again = self._assigned()
            changed = astype(xp.any(again != labels, axis=0), xp.float64, xp)
            labels = again
            state = self.device.to_host(xp.stack([moved, changed]))
            done = (state[0] <= RELATIVE_TOLERANCE) | (state[1] == 0)
            if not done.any():
                continue
            best = self._better(best, labels, np.flatnonzero(done))
            going = np.flatnonzero(~done)
            if not going.size:
                break
            labels = self._keep(labels, going)
        else:
            best = self._better(best, labels, np.arange(self.centres.shape[0]))
        assert best is not None  # every restart ends
        return best

    def _assigned(self) -> Any:
        """The nearest centre of every point in every restart, shape (n, restarts)."""
        xp = self.xp
        restarts = self.centres.shape[0]
        if self.device.is_cuda:
            from ncut.device.cuda import nearest_centres

            labels = xp.empty((self.n, restarts), dtype=xp.int32)
            nearest_centres(self.device, self.points, xp.ascontiguousarray(self.centres), labels)
            return labels
        flat = xp.reshape(self.centres, (restarts * self.k, self.d))
        # Half the squared distance, less half the point's own square, which is the same for all.
        scores = xp.sum(flat * flat, axis=1)[None, :] / 2 - self.points @ flat.T
        nearest = xp.argmin(xp.reshape(scores, (self.n, restarts, self.k)), axis=2)
        return astype(nearest, xp.int32, xp)

    def _move_centres(self, labels: Any) -> Any:
        """Put the centres into the middle of their points; squared distances that they moved."""
        xp = self.xp
        restarts = self.centres.shape[0]
        members = indicators(self.device, labels, self.k, xp.float32)
        flat = xp.reshape(members, (self.n, restarts * self.k))
        sums = xp.reshape(flat.T @ self.points, (restarts, self.k, self.d))
        counts = xp.reshape(xp.sum(flat, axis=0), (restarts, self.k))
        if float(self.device.to_host(xp.min(counts))) == 0:
            sums, counts = self._refilled(labels, sums, counts)
        filled = counts[:, :, None] > 0
        means = sums / xp.where(filled, counts[:, :, None], xp.ones_like(sums))
        means = xp.where(filled, means, self.centres)
        steps = astype(means - self.centres, xp.float64, xp)
        self.centres = means
        return xp.sum(xp.reshape(steps * steps, (restarts, self.k * self.d)), axis=1)

    def _refilled(self, labels: Any, sums: Any, counts: Any) -> tuple[Any, Any]:
        """Give empty clusters the points farthest from their centres; rare, so on the host."""
        to_host, asarray = self.device.to_host, self.device.asarray
        points, centres = to_host(self.points), to_host(self.centres)
        host_labels = to_host(labels).copy()
        new_sums, new_counts = to_host(sums).copy(), to_host(counts).copy()
        for restart, empty in zip(*np.nonzero(new_counts == 0), strict=True):
            own: NDArray[Any] = host_labels[:, restart]
            distances = ((points - centres[restart, own]) ** 2).sum(axis=1)
            distances[new_counts[restart, own] < 2] = 0
            farthest = int(distances.argmax())
            if distances[farthest] == 0:  # fewer distinct points than clusters
                continue
            for cluster, sign in ((own[farthest], -1), (empty, 1)):
                new_sums[restart, cluster] += sign * points[farthest]
                new_counts[restart, cluster] += sign
            own[farthest] = empty
        return asarray(new_sums), asarray(new_counts)

    def _better(self, best: _Found | None, labels: Any, done: NDArray[np.intp]) -> _Found:
        """The better of what was best and of the restarts that are done."""
        xp = self.xp
        chosen = xp.take(labels, self.device.asarray(done), axis=1)
        centres = xp.take(self.centres, self.device.asarray(done), axis=0)
        flat = xp.reshape(centres, (done.size * self.k, self.d))
        total = xp.zeros((done.size,), dtype=xp.float64)
        places = astype(chosen, xp.int64, xp) + xp.arange(done.size, dtype=xp.int64) * self.k
        for axis in range(self.d):
            there = xp.reshape(
                xp.take(flat[:, axis], xp.reshape(places, (-1,)), axis=0), places.shape
            )
            difference = astype(self.points[:, axis][:, None] - there, xp.float64, xp)
            total += xp.sum(difference * difference, axis=0)
        inertia = self.device.to_host(total)
        least = int(inertia.argmin())
        if best is not None and best.inertia <= inertia[least]:
            return best
        return _Found(float(inertia[least]), chosen[:, least])

    def _keep(self, labels: Any, going: NDArray[np.intp]) -> Any:
        """Go on with some of the restarts."""
        numbers = self.device.asarray(going)
        self.centres = self.xp.take(self.centres, numbers, axis=0)
        return self.xp.take(labels, numbers, axis=1)


def _running(values: Any, xp: Any) -> Any:
    """Running sums along the rows; the standard's name is younger than NumPy's."""
    cumulative = getattr(xp, "cumulative_sum", None) or xp.cumsum
    return cumulative(values, axis=1)
