"""Results of measurements as plain data; the room `report` shows them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.metadata import version
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from ncut.types import Comparison, Layer, LeftOut

if TYPE_CHECKING:
    from ncut.graphs import NeuronGraph

PlotKind = Literal["null", "layers", "eigenvalues", "matrix", "flow", "all"]

HEADLINES = {False: "spectral_ncut", True: "refined_ncut"}
"""The statistic that a report's `ncut` is, by its `refine`."""

MIN_REPEATS = 3
"""Smallest number of repeated measurements for an estimate of their noise."""

REPRODUCIBLE = 0.8
"""Adjusted Rand index between repeats from which a partition counts as reproducible."""

# For a k to be suggested, its gap must lie this many standard deviations above the shuffles' gaps,
# and the partition must be reproducible.
MIN_GAP_Z = 3.0
MIN_STABILITY = 0.8


@cache
def ncut_version() -> str:
    """The installed version of ncut; looking it up takes milliseconds."""
    return version("ncut")


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class NetworkFacts:
    """A measured network without its shuffles; see `ncut.Report` for the fields."""

    model: str
    k: int
    labels: NDArray[np.int32]
    eigenvalues: NDArray[np.float64]
    repeated_ncuts: NDArray[np.float64]
    null: str
    normalize: str
    preset: str
    seed: int
    n_init: int
    refine: bool
    solver: str
    residual: float
    layers: tuple[Layer, ...]
    degrees: NDArray[np.float64]
    n_edges: int
    left_out: tuple[LeftOut, ...]
    warnings: tuple[str, ...]
    version: str
    sums: str = ""
    device: str = "cpu"
    tests: dict[str, Comparison] = field(default_factory=dict)
    untested: dict[str, str] = field(default_factory=dict)
    cut_share: float | None = None
    chance_share: float | None = None
    agreement: dict[int, float] = field(default_factory=dict)
    graph: NeuronGraph | None = field(default=None, repr=False)

    __hash__ = None  # type: ignore[assignment]  # there are arrays inside

    @property
    def headline(self) -> str:
        """The statistic that `ncut` is: "spectral_ncut", or "refined_ncut" with refine=True."""
        return HEADLINES[self.refine]

    @property
    def n_vertices(self) -> int:
        """Number of vertices, isolated ones included."""
        return int(self.labels.size)

    @property
    def n_isolated(self) -> int:
        """Number of vertices without edges, which are in no cluster."""
        return int(np.count_nonzero(self.labels < 0))

    def cluster_sizes(self) -> NDArray[np.int64]:
        """Count the neurons of each layer in each cluster.

        Returns
        -------
        ndarray of int64, shape (n_layers, k)
            Isolated vertices are not counted, so a row's sum may be below the layer's size.
        """
        sizes = np.zeros((len(self.layers), self.k), dtype=np.int64)
        for row, layer in zip(sizes, self.layers, strict=True):
            labels = self.labels[layer.slice]
            row += np.bincount(labels[labels >= 0], minlength=self.k)
        return sizes


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class NetworkRecord(NetworkFacts):
    """A clustered network whose shuffles are yet to be measured.

    Attributes
    ----------
    values : dict of str to float
        The network's own statistics, by their names in `ncut.axes.STATISTICS`.
    """

    values: dict[str, float]

    @property
    def ncut(self) -> float:
        """The n-cut that the shuffles' are compared with."""
        return self.values[self.headline]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Measurement(NetworkFacts):
    """A network compared with its shuffles; see `ncut.Report` for the fields."""

    statistics: dict[str, Comparison]
    shuffled_repeats: NDArray[np.float64]
    sequential: str

    @property
    def ncut(self) -> float:
        """Normalized cut of the network's partition, between 0 and k; low means clusterable."""
        return self.statistics[self.headline].value

    @property
    def shuffled_ncuts(self) -> NDArray[np.float64]:
        """n-cuts of the shuffled networks, (n_shuffles,), in the order of their numbers."""
        return self.statistics[self.headline].shuffled

    @property
    def shuffled_mean(self) -> float | None:
        """Mean of `shuffled_ncuts`; None without shuffles."""
        return self.statistics[self.headline].mean

    @property
    def shuffled_std(self) -> float | None:
        """Population standard deviation of `shuffled_ncuts`; None without shuffles."""
        return self.statistics[self.headline].std

    @property
    def p_value(self) -> float | None:
        """(r + 1) / (n_shuffles + 1), where r shuffles have an n-cut at or below the network's.

        With shuffles="auto" that of the stopping rule. None without shuffles.
        """
        return self.statistics[self.headline].p_value

    @property
    def z_score(self) -> float | None:
        """(ncut - shuffled_mean) / shuffled_std; negative: more clusterable than the shuffles.

        None without shuffles, or if they do not differ from each other.
        """
        return self.statistics[self.headline].z_score

    @property
    def spectral_ncut(self) -> float:
        """Normalized cut of the partition that spectral clustering finds."""
        return self.statistics["spectral_ncut"].value

    @property
    def refined_ncut(self) -> float:
        """Normalized cut after refinement by moves of single vertices."""
        return self.statistics["refined_ncut"].value

    @property
    def lower_bound(self) -> float:
        """No partition into k clusters has an n-cut below this."""
        return self.statistics["lower_bound"].value

    @property
    def kmeans_std(self) -> float | None:
        """Noise of k-means: standard deviation of `repeated_ncuts`; None if there are none."""
        return float(self.repeated_ncuts.std()) if self.repeated_ncuts.size else None

    @property
    def n_shuffles(self) -> int:
        """Number of shuffled networks."""
        return int(self.shuffled_ncuts.size)

    @property
    def shuffled_kmeans_std(self) -> float | None:
        """Noise of k-means in `shuffled_ncuts`; None with too few `shuffled_repeats`."""
        return repeat_std(self.shuffled_ncuts, self.shuffled_repeats)


def repeat_std(ncuts: NDArray[np.float64], again: NDArray[np.float64]) -> float | None:
    """Standard deviation of the noise, from m numbers that were measured twice.

    ncuts of shape (n,), again of shape (m,), m <= n; None with fewer than MIN_REPEATS.
    """
    if again.size < MIN_REPEATS:
        return None
    return float(np.sqrt(np.square(ncuts[: again.size] - again).mean() / 2))


@dataclass(frozen=True, eq=False, repr=False)
class ProfileData:
    """A network cut into every one of several numbers of clusters; see `ncut.Profile`."""

    model: str
    ks: tuple[int, ...]
    statistics: tuple[dict[str, Comparison], ...]
    gaps: tuple[Comparison, ...]
    labels: NDArray[np.int32]
    eigenvalues: NDArray[np.float64]
    stability_seeds: NDArray[np.float64]
    stability_starts: NDArray[np.float64]
    null: str
    normalize: str
    preset: str
    seed: int
    n_init: int
    layers: tuple[Layer, ...]
    warnings: tuple[str, ...]
    version: str

    @property
    def n_shuffles(self) -> int:
        """Number of shuffled networks."""
        return int(self.gaps[0].shuffled.size)

    @cached_property
    def stability(self) -> NDArray[np.float64]:
        """The smaller of both adjusted Rand indices for each k, (n_ks,)."""
        return np.minimum(self.stability_seeds, self.stability_starts)

    @cached_property
    def unusual(self) -> tuple[int, ...]:
        """Positions of the k whose gap stands out from the gaps of all shuffles."""
        return tuple(
            at
            for at, gap in enumerate(self.gaps)
            if gap.z_score is not None
            and gap.z_score >= MIN_GAP_Z
            and not (gap.shuffled >= gap.value).any()
        )

    @cached_property
    def best(self) -> int | None:
        """Position of the suggested k: the stable one whose gap stands out most."""
        stable = [at for at in self.unusual if self.stability[at] >= MIN_STABILITY]
        if not stable:
            return None
        return max(stable, key=lambda at: self.gaps[at].value - (self.gaps[at].mean or 0.0))

    @property
    def suggested_k(self) -> int | None:
        """The number of clusters that stands out; None if none does. See `reason`."""
        return None if self.best is None else self.ks[self.best]
