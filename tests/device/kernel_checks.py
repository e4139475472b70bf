"""Tests of the CUDA kernels, run by `test_device_kernels.py` in a process of their own.

In numba's simulator, if NUMBA_ENABLE_CUDASIM=1, or on the first GPU.
"""

from __future__ import annotations

import os
from typing import Any

import array_api_strict
import numpy as np
import pytest
from samples import chain_graph, random_chain

import ncut
from ncut import kernels
from ncut.device import cuda
from ncut.device.cut import links, volumes_and_cuts
from ncut.device.devices import Device, check_device, host_device
from ncut.device.graph import upload
from ncut.device.kmeans import partition
from ncut.device.random import random_keys
from ncut.device.refine import refine
from ncut.device.shuffle import shuffle_on_device
from ncut.device.weights import DeviceCSR
from ncut.spectral import kmeans as on_cpu


@pytest.fixture
def device() -> Device:
    """Where the kernels run."""
    simulated = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"
    found = host_device() if simulated else check_device("cuda")
    assert found is not None
    assert cuda.why_not(found) is None
    assert cuda.usable(found)
    return found


@pytest.mark.parametrize("n", [1, 2, 7, 300])
@pytest.mark.parametrize("first", [0, 6, 2**34])
def test_keys(device: Device, n: int, first: int) -> None:
    words: dict[str, Any] = {"seed": 2**63 + 11, "stream": 2**32 - 1, "substream": 9}
    expected = random_keys(host_device(array_api_strict), n, **words, first=first)
    found = device.to_host(random_keys(device, n, **words, first=first))
    np.testing.assert_array_equal(found, np.asarray(expected))


def test_nearer_distances(device: Device) -> None:
    rng = np.random.default_rng(1)
    points, rows = (rng.normal(size=(n, 3)).astype(np.float32) for n in (150, 6))
    nearest = rng.random((2, 150), dtype=np.float32) * 4
    nearest[:, 0] = np.inf
    trials = device.xp.full((6, 150), -1, dtype=np.float32)
    columns = device.asarray(np.ascontiguousarray(points.T))
    cuda.nearer_distances(device, columns, device.asarray(rows), device.asarray(nearest), trials)
    distances = ((points[None] - rows[:, None]) ** 2).sum(axis=2)
    expected = np.minimum(distances, np.tile(nearest, (3, 1)))
    np.testing.assert_allclose(device.to_host(trials), expected, rtol=1e-5)
    assert (expected < distances).any()
    assert (expected == distances).any()


def lloyd(points: np.ndarray, centres: np.ndarray, tolerance: float, most: int) -> np.ndarray:
    """Labels after Lloyd's iterations of one restart, as the kernel is to make them."""
    centres = centres.astype(float)
    labels, moved = np.full(len(points), -1), np.inf
    for iteration in range(most + 1):
        distances = ((points[:, None] - centres) ** 2).sum(axis=2)
        before, labels = labels, distances.argmin(axis=1)
        if (before == labels).all() or moved <= tolerance or iteration == most:
            return labels
        for empty in np.setdiff1d(np.arange(len(centres)), labels):
            own = ((points - centres[labels]) ** 2).sum(axis=1)
            own[np.bincount(labels, minlength=len(centres))[labels] < 2] = 0
            if own.max() > 0:
                labels[own.argmax()] = empty
                centres[empty] = points[own.argmax()]
        filled = np.unique(labels)
        means = np.array([points[labels == cluster].mean(axis=0) for cluster in filled])
        moved = ((means - centres[filled]) ** 2).sum()
        centres[filled] = means
    raise AssertionError


STARTS: dict[str, Any] = {
    "points": lambda points: points[[0, 1, 2, 3]],
    "far away": lambda points: points[[0, 1, 2, 3]] + np.array([[0], [0], [90], [90]]),
    "in one place": lambda points: points[[5, 5, 5, 5]],
}


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize(("tolerance", "most"), [(0.0, 300), (0.1, 300), (0.0, 3), (0.0, 0)])
def test_lloyd(device: Device, start: str, tolerance: float, most: int) -> None:
    rng = np.random.default_rng(2)
    n, d, k = 90, 3, 4
    points = rng.normal(size=(n, d)).astype(np.float32) + rng.integers(0, 3, (n, 1)) * np.float32(2)
    starts = np.stack([STARTS[start](points), points[10:14]]).astype(np.float32)
    per_unit = 2.0**40
    units = np.floor(points.T.astype(float) * per_unit).astype(np.int64)
    columns = device.asarray(np.ascontiguousarray(points.T))
    centres = device.asarray(starts.copy())
    labels = device.asarray(np.full((2, n), -1, np.int32))
    cuda.lloyd(
        *(device, columns, device.asarray(units), centres, labels),
        **{"per_unit": per_unit, "tolerance": tolerance, "most": most},
    )
    for restart in range(2):
        expected = lloyd(points, starts[restart], tolerance, most)
        np.testing.assert_array_equal(device.to_host(labels)[restart], expected)
    assert len(set(expected)) == k
    out = device.xp.zeros((2, n), dtype=np.float64)
    cuda.own_distances(device, columns, centres, labels, out)
    own = device.to_host(centres)[np.arange(2)[:, None], device.to_host(labels)]
    np.testing.assert_allclose(device.to_host(out), ((points - own) ** 2).sum(axis=2), rtol=1e-5)


def test_lloyd_of_fewer_different_points_than_clusters(device: Device) -> None:
    columns = device.asarray(np.array([[1, 1, 1, 5, 5]], np.float32))
    labels = device.asarray(np.full((1, 5), -1, np.int32))
    cuda.lloyd(
        *(device, columns, device.xp.asarray(columns, dtype=np.int64)),
        *(device.asarray(np.array([[[1], [1], [1]]], np.float32)), labels),
        **{"per_unit": 1.0, "tolerance": 0.0, "most": 300},
    )
    found = device.to_host(labels)[0]
    assert len(set(found[:3])) == 1
    assert len(set(found)) == 2


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_links_of_dense_and_sparse_blocks(device: Device, dtype: Any) -> None:
    graph = chain_graph(
        [
            random_chain(9, (20, 30), dtype=dtype)[0],
            random_chain(11, (30, 25), 0.1, dtype=dtype)[0],
        ]
    )
    there = upload(graph, device)
    assert isinstance(there.blocks[1].weights, DeviceCSR)
    labels = np.random.default_rng(5).integers(0, 3, graph.n_vertices).astype(np.int32)
    on_device = device.asarray(labels)
    found = device.to_host(links(there, on_device, 3))
    expected = kernels.links(graph.n_vertices, graph.placed_blocks(), labels, 3, 3)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    volume, cut = (device.to_host(one) for one in volumes_and_cuts(there, on_device, 3))
    assert (cut / volume).sum() == pytest.approx(ncut.normalized_cut(graph, labels), rel=1e-10)


def test_kmeans_by_kernels(device: Device) -> None:
    rng = np.random.default_rng(3)
    points = rng.normal(size=(60, 3)) + 3 * rng.integers(0, 2, (60, 1))

    def inertia(labels: np.ndarray) -> float:
        parts = [points[labels == cluster] for cluster in range(4)]
        return sum(float(((part - part.mean(axis=0)) ** 2).sum()) for part in parts)

    def on(place: Device, **options: int) -> np.ndarray:
        settings = {"n_init": 3, "seed": 0, "stream": 1} | options
        return place.to_host(partition(place, place.asarray(points), 4, **settings))

    found = on(device)
    strict = on(host_device(array_api_strict))
    assert inertia(found) == pytest.approx(inertia(strict), rel=1e-3)
    np.testing.assert_array_equal(on(device), found)
    if device.is_cuda:  # the simulator takes a thread of Python for each of the GPU's
        ours = on(device, n_init=50)
        theirs = on_cpu.partition(points, 4, n_init=50, seed=0, stream=1, threads=1)
        assert inertia(ours) == pytest.approx(inertia(theirs), rel=1e-3)


def test_shuffles_by_kernels(device: Device) -> None:
    graph = chain_graph(random_chain(3, (9, 14, 8), dtype=np.float32))
    for null in ("layer", "layer-nonzero"):
        ours = shuffle_on_device(upload(graph, device), null, 3, 1)
        strict = shuffle_on_device(upload(graph, host_device(array_api_strict)), null, 3, 1)
        for one, other in zip(ours.blocks, strict.blocks, strict=True):
            np.testing.assert_array_equal(device.to_host(one.weights), np.asarray(other.weights))


def test_refinement_by_kernels(device: Device) -> None:
    graph = chain_graph(random_chain(7, (20, 30, 25), 0.12)).without_isolated()[0]
    labels = np.random.default_rng(1).integers(0, 3, graph.n_vertices).astype(np.int32)
    found = device.to_host(refine(upload(graph, device), device.asarray(labels), 3, 50))
    strict = host_device(array_api_strict)
    expected = np.asarray(refine(upload(graph, strict), strict.asarray(labels), 3, 50))
    ours, theirs = (ncut.normalized_cut(graph, one) for one in (found, expected))
    assert ours == pytest.approx(theirs, rel=1e-9)
    assert ours < ncut.normalized_cut(graph, labels)
