"""k-means, cuts, refinement and whole analyses on a device, beside the CPU's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hard_graphs import judged, task
from places import DEVICES, device_named, placed_graph
from sklearn.metrics import adjusted_rand_score

import ncut
from ncut import networks
from ncut.device import kmeans
from ncut.device.cluster import cluster_on_device
from ncut.device.cut import volumes_and_cuts
from ncut.device.graph import upload
from ncut.device.kmeans import partition
from ncut.device.refine import refine
from ncut.graphs import NeuronGraph
from ncut.spectral.cut import ncut_of
from ncut.spectral.kmeans import partition as partition_on_cpu

K = 12


def digits() -> NeuronGraph:
    return ncut.graph(networks.load("digits-pruned")).without_isolated()[0]


def affinity() -> NeuronGraph:
    """One layer, with edges inside it: a planted partition."""
    from scipy import sparse

    rng = np.random.default_rng(8)
    group = np.repeat(np.arange(4), 25)
    rate = np.where(group[:, None] == group, 0.5, 0.05)
    upper = np.triu(rng.random((100, 100)) < rate, 1) * rng.random((100, 100))
    return ncut.graph(sparse.csr_array(upper + upper.T)).without_isolated()[0]


def inertia(points: Any, labels: Any) -> float:
    groups = [points[labels == one] for one in np.unique(labels)]
    return float(sum(((group - group.mean(axis=0)) ** 2).sum() for group in groups))


@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.parametrize("n_init", [1, 25])
def test_kmeans_is_as_good_as_the_compiled_one(name: str, n_init: int) -> None:
    device = device_named(name)
    rng = np.random.default_rng(2)
    centres = rng.normal(size=(K, 5)) * 6
    planted = rng.integers(0, K, 900)
    points = centres[planted] + rng.normal(size=(900, 5))
    labels = device.to_host(
        partition(device, device.asarray(points), K, n_init=n_init, seed=1, stream=5)
    )
    again = device.to_host(
        partition(device, device.asarray(points), K, n_init=n_init, seed=1, stream=5)
    )
    np.testing.assert_array_equal(labels, again)
    assert labels.dtype == np.int32
    if n_init == 1:
        return
    theirs = partition_on_cpu(points, K, n_init=n_init, seed=1, stream=5, threads=1)
    assert inertia(points, labels) <= 1.001 * inertia(points, theirs)
    assert adjusted_rand_score(planted, labels) > 0.98


@pytest.mark.parametrize("name", DEVICES)
def test_kmeans_in_chunks_of_restarts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    device = device_named(name)
    points = device.asarray(np.random.default_rng(3).normal(size=(200, 3)))
    whole = partition(device, points, 5, n_init=1, seed=0, stream=1)
    monkeypatch.setattr(kmeans, "LARGEST", 4 * 200 * (3 * 5 + 2 * 3) * 2)
    several = partition(device, points, 5, n_init=7, seed=0, stream=1)
    on_host = device.to_host(points)
    assert inertia(on_host, device.to_host(several)) <= inertia(on_host, device.to_host(whole))


@pytest.mark.parametrize("name", DEVICES)
def test_kmeans_with_fewer_distinct_points_than_clusters(name: str) -> None:
    device = device_named(name)
    distinct = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 3.0]])
    points = device.asarray(np.repeat(distinct, 20, axis=0))
    labels = device.to_host(partition(device, points, 5, n_init=3, seed=0, stream=0))
    assert adjusted_rand_score(np.repeat(np.arange(3), 20), labels) == 1


@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.parametrize("make", [digits, affinity])
def test_cuts_are_the_cpus(name: str, make: Any) -> None:
    graph, device = make(), device_named(name)
    labels = np.random.default_rng(4).integers(0, 5, graph.n_vertices).astype(np.int32)
    volume, cut = volumes_and_cuts(upload(graph, device), device.asarray(labels), 5)
    found = ncut_of(device.to_host(volume), device.to_host(cut))
    assert found == pytest.approx(ncut.normalized_cut(graph, labels), rel=1e-12)


@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.parametrize("make", [digits, affinity])
def test_refinement_lowers_the_cut_as_the_cpus_does(name: str, make: Any) -> None:
    graph, device = make(), device_named(name)
    k = 4
    on_device = upload(graph, device)
    for seed in range(3):
        start = np.random.default_rng(seed).integers(0, k, graph.n_vertices).astype(np.int32)
        labels = device.to_host(refine(on_device, device.asarray(start), k, 100))
        found = ncut.normalized_cut(graph, labels)
        assert found < ncut.normalized_cut(graph, start) - 0.1
        # No single move lowers it further.
        for vertex in range(0, graph.n_vertices, 17):
            for other in range(k):
                moved = labels.copy()
                moved[vertex] = other
                if (moved == labels[vertex]).any():
                    assert ncut.normalized_cut(graph, moved) > found - 1e-9
    good = ncut.cluster(graph, k, seed=0)
    refined = device.to_host(refine(on_device, device.asarray(good.labels), k, 100))
    assert ncut.normalized_cut(graph, refined) <= good.ncut + 1e-12
    assert ncut.normalized_cut(graph, refined) <= 1.02 * good.refined_ncut


@pytest.mark.parametrize("name", DEVICES)
def test_clusterings_are_as_the_cpus(name: str) -> None:
    graph = digits()
    ours = ncut.cluster(graph, K, seed=3)
    found = cluster_on_device(
        upload(graph, device_named(name)), K, n_init=ours.n_init, seed=3, repeats=2
    )
    np.testing.assert_allclose(found.eigenvalues, ours.eigenvalues, rtol=1e-6, atol=1e-9)
    # What it loses to the solver's residuals depends on the solver, which depends on the device.
    assert found.lower_bound == pytest.approx(ours.lower_bound, rel=1e-4)
    assert found.ncut == pytest.approx(ours.ncut, rel=0.02)
    assert found.refined_ncut == pytest.approx(ours.refined_ncut, rel=0.02)
    assert found.ncut == pytest.approx(ncut.normalized_cut(graph, found.labels), rel=1e-12)
    measures = ncut.partition_measures(graph, found.labels)
    assert found.modularity == pytest.approx(measures.modularity)
    assert found.clusterability == pytest.approx(measures.clusterability, rel=1e-6)
    assert found.bipartite_modularity == pytest.approx(measures.bipartite_modularity)
    assert len(found.repeated_ncuts) == 2


def used_for(monkeypatch: pytest.MonkeyPatch, name: str) -> str:
    """Make `device="cuda"` mean one of DEVICES."""
    if name != "cuda":
        for room in ("steps", "profiles"):
            monkeypatch.setattr(
                f"ncut.{room}.check_device",
                lambda asked: None if asked == "cpu" else device_named(name),
            )
    return "cuda"


@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.parametrize("null", ["layer", "layer-nonzero", "layer-kde"])
def test_an_analysis_says_what_the_cpus_says(
    name: str, null: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = networks.load("digits-pruned")
    device = used_for(monkeypatch, name)
    ours = ncut.analyze(weights, shuffles=20, null=null, seed=1)
    found = ncut.analyze(weights, shuffles=20, null=null, seed=1, device=device)
    again = ncut.analyze(weights, shuffles=20, null=null, seed=1, device=device, threads=1)
    assert found.ncut == pytest.approx(ours.ncut, rel=0.02)
    assert found.shuffled_mean == pytest.approx(ours.shuffled_mean, rel=0.02)
    bound = found.statistics["lower_bound"], ours.statistics["lower_bound"]
    assert bound[0].value == pytest.approx(bound[1].value, rel=1e-4)
    spread = max(one.shuffled.std() for one in bound)
    apart = abs(bound[0].shuffled.mean() - bound[1].shuffled.mean())
    assert apart < 5 * spread * np.sqrt(2 / 20)
    assert found.p_value == ours.p_value == pytest.approx(1 / 21)
    np.testing.assert_array_equal(found.shuffled_ncuts, again.shuffled_ncuts)
    np.testing.assert_array_equal(found.labels == -1, ours.labels == -1)
    assert found.device != "cpu" == ours.device
    assert ncut.Report.from_json(found.to_json()).device == found.device
    older = found.to_dict()
    assert older.pop("device") == found.device


@pytest.mark.parametrize("name", DEVICES)
def test_a_profile_on_a_device(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = networks.load("digits-pruned")
    ours = ncut.profile(weights, k=range(2, 6), shuffles=3)
    found = ncut.profile(weights, k=range(2, 6), shuffles=3, device=used_for(monkeypatch, name))
    for mine, theirs in zip(found.statistics, ours.statistics, strict=True):
        assert mine["spectral_ncut"].value == pytest.approx(theirs["spectral_ncut"].value, rel=0.05)


def test_a_small_budget_gives_the_same_numbers() -> None:
    weights = [np.abs(np.random.default_rng(i).normal(size=(300, 300))) for i in range(3)]
    graph = ncut.graph(weights).without_isolated()[0]
    whole = device_named("numpy")
    little = replace(whole, budget=2_000_000)
    assert not upload(graph, little).is_resident
    found = [cluster_on_device(upload(graph, one), K, n_init=5, seed=0) for one in (whole, little)]
    np.testing.assert_allclose(found[1].eigenvalues, found[0].eigenvalues, atol=1e-7)
    assert found[1].lower_bound == pytest.approx(found[0].lower_bound, rel=1e-6)
    assert found[1].ncut == pytest.approx(found[0].ncut, rel=0.02)


@pytest.mark.parametrize("first", [20_000, 20_050])
def test_hard_graphs_are_solved_and_bounded_on_a_device(first: int) -> None:
    for seed in range(first, first + 50):
        one = task(seed, 300)
        placed = placed_graph(one.scaled, "numpy")
        found = cluster_on_device(placed, one.k, n_init=2, seed=one.seed)
        outcome = judged(one, found, must_converge=True)
        assert not outcome.faults, (seed, outcome)
