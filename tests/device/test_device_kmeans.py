"""k-means on a device: as good as the compiled one, hard cases, and the same whatever fits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from checks import check_nearest_centre, check_same_partition
from places import DEVICES, device_named
from samples import chain_graph, embedding_of, planted_chain
from sklearn.datasets import make_blobs

from ncut.device import kmeans as kmeans_module
from ncut.device.kmeans import partition
from ncut.spectral import kmeans as on_cpu


def labels_of(name: str, points: np.ndarray, k: int, budget: int | None = None, **options: Any):
    device = device_named(name, budget)
    settings: dict[str, Any] = {"n_init": 10, "seed": 3, "stream": 1} | options
    labels = partition(device, device.asarray(points.astype(np.float64)), k, **settings)
    on_host = device.to_host(labels)
    assert on_host.dtype == np.int32
    assert on_host.shape == (len(points),)
    return on_host


def inertia_of(points: np.ndarray, labels: np.ndarray) -> float:
    return sum(
        float(((points[labels == c] - points[labels == c].mean(axis=0)) ** 2).sum())
        for c in np.unique(labels)
    )


def blobs(seed: int) -> np.ndarray:
    return make_blobs(600, 5, centers=8, cluster_std=2.0, random_state=seed)[0]


def spectral_points(seed: int) -> np.ndarray:
    weights, _ = planted_chain(seed, n_groups=6, per_group=12, n_layers=4, noise=0.3)
    return embedding_of(chain_graph(weights), 8, "dense").points


@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.parametrize("kind", [blobs, spectral_points])
def test_as_good_as_the_compiled_kmeans(kind: Any, name: str) -> None:
    for seed in (1, 2, 3):
        points = kind(seed)
        ours = inertia_of(points, labels_of(name, points, 8, n_init=50, seed=seed))
        theirs = on_cpu.partition(points, 8, n_init=50, seed=seed, stream=1, threads=1)
        assert ours == pytest.approx(inertia_of(points, theirs), rel=1e-3)


@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.parametrize("kind", [blobs, spectral_points])
def test_single_starts_are_no_worse_on_average(kind: Any, name: str) -> None:
    points, ours, theirs = kind(5), [], []
    for seed in range(40):
        ours.append(inertia_of(points, labels_of(name, points, 8, n_init=1, seed=seed)))
        labels = on_cpu.partition(points, 8, n_init=1, seed=seed, stream=1, threads=1)
        theirs.append(inertia_of(points, labels))
    error = np.hypot(np.std(ours), np.std(theirs)) / np.sqrt(40)
    assert np.mean(ours) < np.mean(theirs) + 3 * error


@pytest.mark.parametrize("name", DEVICES)
def test_planted_groups_are_found_on_a_device(name: str) -> None:
    weights, group = planted_chain(3, n_groups=5, per_group=10, n_layers=4, noise=0.05)
    points = embedding_of(chain_graph(weights), 5, "dense").points
    check_same_partition(labels_of(name, points, 5), group)


@pytest.mark.parametrize("name", DEVICES)
def test_every_point_is_in_the_nearest_cluster(name: str) -> None:
    labels = labels_of(name, blobs(7), 8)
    assert set(labels) == set(range(8))
    check_nearest_centre(blobs(7), labels, 0.02)


@pytest.mark.parametrize("name", DEVICES)
def test_the_budget_changes_nothing(name: str) -> None:
    points = blobs(9)
    everything = labels_of(name, points, 8, n_init=7)
    np.testing.assert_array_equal(labels_of(name, points, 8, budget=0, n_init=7), everything)
    np.testing.assert_array_equal(labels_of(name, points, 8, n_init=7), everything)


@pytest.mark.parametrize("name", DEVICES)
def test_seeds_and_streams_choose_the_starts(name: str) -> None:
    points = np.random.default_rng(8).random((200, 3))
    labels = labels_of(name, points, 7, n_init=1)
    for other in ({"seed": 4}, {"stream": 2}):
        assert not np.array_equal(labels_of(name, points, 7, n_init=1, **other), labels)


@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.parametrize("n", [1, 2, 17])
def test_as_many_clusters_as_points_on_a_device(n: int, name: str) -> None:
    points = np.random.default_rng(n).normal(size=(n, 3))
    assert sorted(labels_of(name, points, n)) == list(range(n))


@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.parametrize("n_distinct", [1, 2, 5])
def test_few_distinct_points_on_a_device(n_distinct: int, name: str) -> None:
    distinct = np.random.default_rng(10).normal(size=(n_distinct, 4))
    which = np.random.default_rng(11).integers(0, n_distinct, 50)
    which[:n_distinct] = np.arange(n_distinct)
    labels = labels_of(name, distinct[which], 8)
    assert labels.min() >= 0
    assert labels.max() < 8
    check_same_partition(labels, which)


@pytest.mark.parametrize("name", DEVICES)
def test_empty_clusters_take_the_farthest_points(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All centres start at one point."""
    points = np.concatenate([np.zeros((50, 2)), np.eye(2) * 3, -np.eye(2) * 3])

    def all_alike(placed: Any, uniform: Any) -> Any:
        xp = placed.device.xp
        return xp.zeros((uniform.shape[0], uniform.shape[1], 2), dtype=xp.float32)

    monkeypatch.setattr(kmeans_module, "_starts", all_alike)
    labels = labels_of(name, points, 5, n_init=3)
    assert inertia_of(points, labels) == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.parametrize("scale", [1e-12, 1e6])
def test_the_scale_of_the_points_does_not_matter(scale: float, name: str) -> None:
    points, group = make_blobs(300, 3, centers=np.eye(3) * 20, random_state=12)
    check_same_partition(labels_of(name, points * scale, 3), group)


def test_far_outliers_stay_within_sums_of_64_bits() -> None:
    points = np.random.default_rng(13).normal(size=(100, 2))
    points[0] = 1e9
    labels = labels_of(DEVICES[-1], points, 2)
    assert (labels == labels[0]).sum() == 1
