"""k-means: fixed points, optima, hard cases, and no worse than scikit-learn."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from checks import check_nearest_centre, check_same_partition
from hypothesis import given
from hypothesis import strategies as st
from samples import chain_graph, embedding_of, planted_chain, random_chain
from sklearn.cluster import KMeans
from sklearn.datasets import make_blobs

from ncut import kernels, reference

pytestmark = pytest.mark.usefixtures("each_instruction_set")


def run(points: np.ndarray, k: int, **options: Any) -> tuple[np.ndarray, float]:
    settings: dict[str, Any] = {
        "n_init": 10,
        "max_iterations": 300,
        "tolerance": 0.0,
        "seed": 3,
        "stream": 1,
        "threads": 1,
    }
    return kernels.kmeans(np.ascontiguousarray(points, dtype=np.float32), k, **(settings | options))


def inertia_of(points: np.ndarray, labels: np.ndarray) -> float:
    """Sum of the squared distances to the clusters' means, in double precision."""
    points = points.astype(np.float64)
    return sum(
        float(((points[labels == c] - points[labels == c].mean(axis=0)) ** 2).sum())
        for c in np.unique(labels)
    )


def blobs(seed: int, n: int = 600, d: int = 5, k: int = 8) -> np.ndarray:
    points, _ = make_blobs(n, d, centers=k, cluster_std=2.0, random_state=seed)
    return points.astype(np.float32)


def spectral_points(seed: int) -> np.ndarray:
    """A spectral embedding, scaled to unit variance on average."""
    weights, _ = planted_chain(seed, n_groups=6, per_group=12, n_layers=4, noise=0.3)
    points = embedding_of(chain_graph(weights), 8, "dense").points
    return np.ascontiguousarray(points / np.sqrt(points.var(axis=0).mean()), np.float32)


POINTS = {"blobs": blobs, "embedding": spectral_points}


@pytest.mark.parametrize("kind", POINTS)
def test_labels_and_inertia_belong_together(kind: str) -> None:
    points = POINTS[kind](5)
    labels, inertia = run(points, 8)
    assert labels.dtype == np.int32
    assert set(labels) == set(range(8))
    assert inertia == pytest.approx(inertia_of(points, labels), rel=1e-5)


@pytest.mark.parametrize("kind", POINTS)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_result_is_a_fixed_point_of_lloyd(kind: str, seed: int) -> None:
    points = POINTS[kind](seed)
    labels, inertia = run(points, 8, seed=seed, n_init=1)
    check_nearest_centre(points, labels, 1e-5)
    means = np.array([points[labels == c].mean(axis=0, dtype=float) for c in range(8)])
    again, expected = reference.lloyd(points.astype(float), means)
    assert (again == labels).mean() > 0.99
    assert inertia == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("tolerance", [1e-2, 1e-4])
def test_labels_are_nearest_up_to_the_tolerance(tolerance: float) -> None:
    points = blobs(7) / np.sqrt(blobs(7).var(axis=0).mean())
    labels, _ = run(points, 8, tolerance=tolerance, n_init=1)
    check_nearest_centre(points, labels, 4 * tolerance**0.5)


@pytest.mark.parametrize("kind", POINTS)
def test_threads_change_nothing(kind: str) -> None:
    points = POINTS[kind](4)
    labels, inertia = run(points, 8, threads=1)
    for threads in (2, 3, 16):
        again, other = run(points, 8, threads=threads)
        np.testing.assert_array_equal(again, labels)
        assert other == inertia


def test_the_seed_and_the_stream_choose_the_starts() -> None:
    points = np.random.default_rng(8).random((200, 3))
    labels, _ = run(points, 7, n_init=1)
    np.testing.assert_array_equal(run(points, 7, n_init=1)[0], labels)
    for other in ({"seed": 4}, {"stream": 2}, {"seed": 3 + 2**32}):
        assert not np.array_equal(run(points, 7, n_init=1, **other)[0], labels)


def test_more_restarts_are_never_worse() -> None:
    points = np.random.default_rng(9).random((150, 2))
    inertias = [run(points, 10, n_init=n)[1] for n in (1, 2, 5, 20, 60)]
    assert inertias == sorted(inertias, reverse=True)
    assert inertias[-1] < inertias[0]


def optimum(points: np.ndarray, k: int) -> float:
    """The least inertia of all partitions into k clusters."""
    return min(
        inertia_of(points, np.array(labels))
        for labels in itertools.product(range(k), repeat=len(points) - 1)
        for labels in [(0, *labels)]
        if len(set(labels)) == k
    )


@pytest.mark.parametrize(("k", "d"), [(2, 1), (3, 1), (2, 3), (3, 2)])
@pytest.mark.parametrize("seed", [1, 2])
def test_few_points_are_partitioned_in_the_best_way(k: int, d: int, seed: int) -> None:
    points = np.random.default_rng(seed).normal(size=(7, d)).astype(np.float32)
    _, inertia = run(points, k, n_init=50)
    assert inertia == pytest.approx(optimum(points, k), rel=1e-5)


@given(st.integers(1, 60), st.integers(1, 5), st.data())
def test_any_shape(n: int, d: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, n))
    points = np.random.default_rng(n + 100 * d).normal(size=(n, d)).astype(np.float32)
    labels, inertia = run(points, k, n_init=3)
    assert set(labels) == set(range(k))
    check_nearest_centre(points, labels, 1e-5)
    assert inertia == pytest.approx(inertia_of(points, labels), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("n", [1, 2, 16, 17, 40])
def test_as_many_clusters_as_points(n: int) -> None:
    points = np.random.default_rng(n).normal(size=(n, 3))
    labels, inertia = run(points, n)
    assert sorted(labels) == list(range(n))
    assert inertia == pytest.approx(0, abs=1e-10)


def test_one_cluster() -> None:
    points = blobs(3)
    labels, inertia = run(points, 1)
    assert not labels.any()
    assert inertia == pytest.approx(inertia_of(points, labels), rel=1e-5)


@pytest.mark.parametrize("n_distinct", [1, 2, 5])
def test_fewer_distinct_points_than_clusters(n_distinct: int) -> None:
    distinct = np.random.default_rng(10).normal(size=(n_distinct, 4))
    which = np.random.default_rng(11).integers(0, n_distinct, 50)
    which[:n_distinct] = np.arange(n_distinct)
    labels, inertia = run(distinct[which], 8)
    assert inertia == pytest.approx(0, abs=1e-10)
    assert labels.min() >= 0
    assert labels.max() < 8
    check_same_partition(labels, which)


@pytest.mark.parametrize("scale", [1e-12, 1e-3, 1e6])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_scale_and_offset_do_not_matter(scale: float, offset: float) -> None:
    points, group = make_blobs(300, 3, centers=np.eye(3) * 20, random_state=12)
    labels, _ = run((points + offset) * scale, 3)
    check_same_partition(labels, group)


def test_an_empty_cluster_takes_the_farthest_point() -> None:
    # Many equal points and few others: starts often coincide.
    points = np.concatenate([np.zeros((500, 2)), np.eye(2) * 3, -np.eye(2) * 3])
    for seed in range(1, 20):
        labels, inertia = run(points, 5, n_init=1, seed=seed)
        assert len(set(labels)) == 5
        assert inertia == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize("kind", POINTS)
def test_as_good_as_scikit_learn(kind: str) -> None:
    ours, theirs = [], []
    for seed in range(1, 5):
        points = POINTS[kind](seed)
        ours.append(run(points, 12, n_init=10, seed=seed, tolerance=1e-4)[1])
        model = KMeans(12, n_init=10, random_state=seed).fit(points.astype(np.float64))
        theirs.append(model.inertia_)
    assert np.mean(ours) <= 1.005 * np.mean(theirs)


def test_starts_are_spread_out() -> None:
    # 20 far-apart groups: uniformly drawn starts would miss some of them almost surely.
    grid = np.array(list(itertools.product(range(5), range(4))), float) * 100
    points = np.repeat(grid, 10, axis=0) + np.random.default_rng(13).normal(size=(200, 2))
    found = [run(points, 20, n_init=1, seed=seed)[1] for seed in range(1, 21)]
    best = inertia_of(points, np.repeat(np.arange(20), 10))
    assert np.mean([inertia < 1.01 * best for inertia in found]) > 0.5


def test_few_iterations_still_label_every_point() -> None:
    points = np.concatenate(random_chain(14, [60, 4], 1.0))
    labels, inertia = run(points, 5, n_init=1, max_iterations=1)
    assert set(labels) <= set(range(5))
    assert inertia >= inertia_of(points, labels) * (1 - 1e-5)
