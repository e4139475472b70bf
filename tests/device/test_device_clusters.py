"""Clusterings and whole analyses on a device, beside the CPU's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hard_graphs import judged, task
from places import DEVICES, PLACES, clustered_on, device_named

import ncut
from ncut import networks
from ncut.device.graph import upload
from ncut.device.operator import DeviceOperator
from ncut.graphs import NeuronGraph
from ncut.spectral.clustering import cluster_connected

K = 12


def digits() -> NeuronGraph:
    return ncut.graph(networks.load("digits-pruned")).without_isolated()[0]


@pytest.mark.parametrize("name", PLACES)
def test_clusterings_are_as_the_cpus(name: str) -> None:
    graph = digits()
    ours = ncut.cluster(graph, K, seed=3)
    found = clustered_on(graph, name, K, n_init=ours.n_init, seed=3, repeats=2)
    np.testing.assert_allclose(found.eigenvalues, ours.eigenvalues, rtol=1e-6, atol=1e-9)
    assert found.solver == ours.solver
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
        monkeypatch.setattr(
            "ncut.measure.place.check_device",
            lambda asked: None if asked == "cpu" else device_named(name),
        )
    return "cuda"


@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.parametrize("null", ["layer", "layer-nonzero", "layer-kde"])
@pytest.mark.parametrize("network", ["digits-pruned", "digits-unpruned"])
def test_an_analysis_agrees_with_the_cpus(
    network: str, name: str, null: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = networks.load(network)
    device = used_for(monkeypatch, name)
    ours = ncut.analyze(weights, shuffles=20, null=null, seed=1)
    found = ncut.analyze(weights, shuffles=20, null=null, seed=1, device=device)
    again = ncut.analyze(weights, shuffles=6, null=null, seed=1, device=device, threads=1)
    assert found.ncut == pytest.approx(ours.ncut, rel=0.02)
    assert found.shuffled_mean == pytest.approx(ours.shuffled_mean, rel=0.02)
    bound = found.statistics["lower_bound"], ours.statistics["lower_bound"]
    assert bound[0].value == pytest.approx(bound[1].value, rel=1e-4)
    spread = max(one.shuffled.std() for one in bound)
    apart = abs(bound[0].shuffled.mean() - bound[1].shuffled.mean())
    assert apart < 5 * spread * np.sqrt(2 / 20)
    if network == "digits-pruned" or null == "layer-kde":  # shuffled on the host: the same ones
        np.testing.assert_allclose(bound[0].shuffled, bound[1].shuffled, rtol=1e-4)
        np.testing.assert_allclose(found.shuffled_ncuts, ours.shuffled_ncuts, rtol=0.05)
    assert found.p_value == ours.p_value == pytest.approx(1 / 21)
    np.testing.assert_array_equal(found.shuffled_ncuts[:6], again.shuffled_ncuts)
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
    assert any(one is None for one in upload(graph, little).weights)
    operators = [DeviceOperator(upload(graph, one), 1) for one in (whole, little)]
    options: dict[str, Any] = {"n_init": 5, "solver": "auto", "refine": False, "seed": 0}
    found = [cluster_connected(one, K, graph_number=0, **options) for one in operators]
    np.testing.assert_allclose(found[1].eigenvalues, found[0].eigenvalues, atol=1e-7)
    assert found[1].lower_bound == pytest.approx(found[0].lower_bound, rel=1e-6)
    assert found[1].ncut == pytest.approx(found[0].ncut, rel=0.02)


@pytest.mark.parametrize("first", [20_000, 20_050])
def test_hard_graphs_are_solved_and_bounded_on_a_device(first: int) -> None:
    for seed in range(first, first + 50):
        one = task(seed, 300)
        found = clustered_on(one.scaled, "numpy", one.k, n_init=2, seed=one.seed)
        outcome = judged(one, found, must_converge=True)
        assert not outcome.faults, (seed, outcome)
