"""Changes from one report to another: numbers with their uncertainty, and neurons."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from ncut.report import Report
from ncut.spectral.agreement import adjusted_rand_index

ROUNDING = 1e-7
"""Share of a statistic's value below which a change counts as a rounding error, as of float32."""


class Difference(NamedTuple):
    """Change of a statistic.

    Attributes
    ----------
    statistic : str
    values : (float, float)
        The values of the first and of the second network.
    change : float
        The second minus the first.
    excess : float or None
        The change relative to the shuffles: (b - mean of b's shuffles) - (a - mean of a's
        shuffles). Rounding errors count as 0. None without shuffles.
    error : float or None
        Standard error of `excess`, from the number of shuffles and the noise of k-means. It
        reflects the measurement of these two networks, not the variation between training runs.
    paired : bool
        Whether shuffle i of both networks is the same permutation, so that the error is the error
        of their differences.
    """

    statistic: str
    values: tuple[float, float]
    change: float
    excess: float | None
    error: float | None
    paired: bool


@dataclass(frozen=True, slots=True)
class Moved:
    """A neuron whose second cluster is not the partner of its first cluster.

    Attributes
    ----------
    layer : str
        The layer's name in the second network.
    index : int
    before, after : int
        Its cluster in the first and in the second network.
    """

    layer: str
    index: int
    before: int
    after: int


@dataclass(frozen=True, eq=False)
class Pair:
    """A report and its successor.

    Attributes
    ----------
    a, b : Report
    """

    a: Report
    b: Report

    @cached_property
    def layers(self) -> list[tuple[int, int]]:
        """Positions of the layers in common: of the same name and size, or of the same sizes.

        Neurons are matched by position. The match is meaningful if `b` was made from `a` by
        training, pruning or editing; between independently trained networks it is arbitrary.
        """
        sizes = [[layer.size for layer in report.layers] for report in (self.a, self.b)]
        if sizes[0] == sizes[1]:
            return [(at, at) for at in range(len(sizes[0]))]
        named = {(layer.name, layer.size): at for at, layer in enumerate(self.a.layers)}
        return [
            (named[layer.name, layer.size], at)
            for at, layer in enumerate(self.b.layers)
            if (layer.name, layer.size) in named
        ]

    @cached_property
    def _labels(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Clusters of all neurons of these layers in both networks."""
        none = np.zeros(0, dtype=np.int32)
        return (
            np.concatenate(
                [none, *(self.a.labels[self.a.layers[i].slice] for i, _ in self.layers)]
            ),
            np.concatenate(
                [none, *(self.b.labels[self.b.layers[j].slice] for _, j in self.layers)]
            ),
        )

    @cached_property
    def flow(self) -> NDArray[np.int64]:
        """Neurons in each cluster of `a` and each of `b`, (k, k); isolated ones are left out."""
        a, b = self._labels
        inside = (a >= 0) & (b >= 0)
        counts = np.bincount(
            a[inside].astype(np.int64) * self.b.k + b[inside], minlength=self.a.k * self.b.k
        )
        return counts.reshape(self.a.k, self.b.k).astype(np.int64)

    @property
    def n_neurons(self) -> int:
        """Number of neurons that exist and are connected in both networks."""
        return int(self.flow.sum())

    @cached_property
    def rand_index(self) -> float | None:
        """Adjusted Rand index of the partitions: 1 equal, 0 chance; None without common layers."""
        a, b = self._labels
        inside = (a >= 0) & (b >= 0)
        return float(adjusted_rand_index(a[inside], b[inside])) if inside.any() else None

    @cached_property
    def partners(self) -> dict[int, int]:
        """Each cluster of `a` with its partner in `b`, a matching that keeps the most neurons."""
        rows, columns = linear_sum_assignment(-self.flow)
        return {
            int(row): int(column)
            for row, column in zip(rows, columns, strict=True)
            if self.flow[row, column]
        }

    @cached_property
    def moved(self) -> list[Moved]:
        """Neurons that moved: in `b` they are not in the partner of their cluster in `a`."""
        found = []
        for i, j in self.layers:
            before = self.a.labels[self.a.layers[i].slice]
            after = self.b.labels[self.b.layers[j].slice]
            target = np.array([self.partners.get(c, -2) for c in range(self.a.k)], dtype=np.int64)
            left = (before >= 0) & (after >= 0) & (target[before] != after)
            name = self.b.layers[j].name
            found += [
                Moved(name, int(at), int(before[at]), int(after[at])) for at in np.flatnonzero(left)
            ]
        return found

    @cached_property
    def differences(self) -> list[Difference]:
        """The change of each statistic that both reports have."""
        return [self._difference(name) for name in self.a.statistics if name in self.b.statistics]

    @property
    def headline(self) -> Difference:
        """The change of the n-cut."""
        return next(one for one in self.differences if one.statistic == self.a.headline)

    def _difference(self, name: str) -> Difference:
        one, two = self.a.statistics[name], self.b.statistics[name]
        scale = max(abs(one.value), abs(two.value))
        change = _without_rounding(two.value - one.value, scale)
        n, m = one.shuffled.size, two.shuffled.size
        if min(n, m) < 2:
            return Difference(name, (one.value, two.value), change, None, None, False)
        paired = n == m and self._same_shuffles
        between = float(two.shuffled.mean() - one.shuffled.mean())
        excess = _without_rounding(change - between, scale)
        if paired:
            variance = float((two.shuffled - one.shuffled).var(ddof=1)) / n
        else:
            variance = float(one.shuffled.var(ddof=1)) / n + float(two.shuffled.var(ddof=1)) / m
        if name == self.a.headline:
            variance += sum((report.kmeans_std or 0.0) ** 2 for report in (self.a, self.b))
        return Difference(name, (one.value, two.value), change, excess, math.sqrt(variance), paired)

    @property
    def _same_shuffles(self) -> bool:
        """Check whether shuffle i permutes the weights of both networks alike."""
        sizes = [
            [(layer.name, layer.size) for layer in report.layers] for report in (self.a, self.b)
        ]
        isolated = [report.labels < 0 for report in (self.a, self.b)]
        return (
            self.a.seed == self.b.seed
            and sizes[0] == sizes[1]
            and bool(np.array_equal(isolated[0], isolated[1]))
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "a": self.a.model,
            "b": self.b.model,
            "differences": [one._asdict() for one in self.differences],
            "n_neurons": self.n_neurons,
            "rand_index": self.rand_index,
            "flow": self.flow.tolist(),
            "partners": [[one, other] for one, other in self.partners.items()],
            "moved": [asdict(one) for one in self.moved],
        }


def _without_rounding(change: float, scale: float) -> float:
    """The change, or 0 if it is a rounding error of values of this size."""
    return 0.0 if abs(change) <= ROUNDING * scale else change
