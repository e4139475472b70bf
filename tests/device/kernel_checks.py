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
from ncut.device.graph import DeviceCSR, upload
from ncut.device.kmeans import partition
from ncut.device.random import random_keys
from ncut.device.refine import refine
from ncut.device.shuffle import shuffle_on_device
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


def test_reassignments_keep_sums_and_counts(device: Device) -> None:
    rng = np.random.default_rng(2)
    n, d, k, restarts = 140, 3, 4, 2
    points = rng.normal(size=(n, d)).astype(np.float32)
    units = np.round(points.astype(float) * 2**40).astype(np.int64)
    columns = device.asarray(np.ascontiguousarray(points.T))
    labels = device.asarray(np.full((restarts, n), -1, np.int32))
    sums = device.asarray(np.zeros((restarts, k, d), np.int64))
    counts = device.asarray(np.zeros((restarts, k), np.int32))
    centres = points[:8].reshape(restarts, k, d).copy()
    centres[1, 3] = centres[1, 0]  # a tie: the first one
    for step in range(4):
        before = device.to_host(labels).copy()
        changed = device.asarray(np.zeros(restarts, np.int32))
        cuda.reassign(
            *(device, columns, device.asarray(np.ascontiguousarray(units.T))),
            *(device.asarray(centres), labels, sums, counts, changed),
        )
        distances = ((points[None, :, None] - centres[:, None]) ** 2).sum(axis=3)
        expected = distances.argmin(axis=2)
        np.testing.assert_array_equal(device.to_host(labels), expected)
        for restart in range(restarts):
            members = expected[restart][:, None] == np.arange(k)
            np.testing.assert_array_equal(device.to_host(counts)[restart], members.sum(axis=0))
            np.testing.assert_array_equal(device.to_host(sums)[restart], members.T @ units)
        any_changed = (before != expected).any(axis=1)
        np.testing.assert_array_equal(device.to_host(changed) != 0, any_changed)
        assert any_changed.all() == (step < 3)
        if step == 1:
            centres[0] += 0.4
            centres[1] -= 0.7
        elif step == 0:
            centres = centres[::-1].copy()
    out = device.xp.zeros((restarts, n), dtype=np.float64)
    cuda.own_distances(device, columns, device.asarray(centres), labels, out)
    np.testing.assert_allclose(device.to_host(out), distances.min(axis=2), rtol=1e-5)


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
