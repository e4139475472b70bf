"""Links, volumes and cuts of partitions on a device, against the compiled kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ml_dtypes import bfloat16
from places import PLACES, placed_graph
from samples import chain_graph, random_chain, side_by_side, side_by_side_labels, skip_graph

import ncut
from ncut import kernels
from ncut.device.cut import links, volumes_and_cuts
from ncut.graphs import NeuronGraph, from_adjacency

GRAPHS: dict[str, Callable[[], NeuronGraph]] = {
    "chain": lambda: chain_graph(random_chain(3, (9, 14, 8))),
    "float32": lambda: chain_graph(random_chain(3, (9, 14, 8), dtype=np.float32)),
    "float16": lambda: chain_graph(random_chain(3, (9, 14, 8), dtype=np.float16)),
    "bfloat16": lambda: chain_graph(random_chain(3, (9, 14, 8), dtype=bfloat16)),
    "sparse": lambda: chain_graph(random_chain(7, (60, 70, 50), 0.1, np.float32)),
    "dense and sparse": lambda: chain_graph(
        [random_chain(9, (60, 70))[0], random_chain(11, (70, 50), 0.1)[0]]
    ),
    "skip": lambda: skip_graph(13, (9, 14, 8)),
    "one layer": lambda: from_adjacency(chain_graph(random_chain(3, (9, 14, 8))).adjacency),
}


def labelled(name: str, place: str, k: int = 4) -> tuple[NeuronGraph, Any, np.ndarray, Any]:
    graph = GRAPHS[name]()
    there = placed_graph(graph, place)
    labels = np.random.default_rng(5).integers(0, k, graph.n_vertices).astype(np.int32)
    labels[labels == k - 2] = 0  # one cluster has no vertices
    return graph, there, labels, there.device.asarray(labels)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", GRAPHS)
def test_links_on_a_device(name: str, place: str) -> None:
    graph, there, labels, on_device = labelled(name, place)
    found = links(there, on_device, 4)
    assert found.dtype == there.device.xp.float64
    expected = kernels.links(graph.n_vertices, graph.placed_blocks(), labels, 4, 4)
    np.testing.assert_allclose(there.device.to_host(found), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", GRAPHS)
def test_volumes_and_cuts_on_a_device(name: str, place: str) -> None:
    graph, there, labels, on_device = labelled(name, place)
    found = [there.device.to_host(sums) for sums in volumes_and_cuts(there, on_device, 4)]
    expected = kernels.volumes_and_cuts(graph.placed_blocks(), labels, 4)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-11)
    volume, cut = found
    used = volume > 0
    n_cut = float((cut[used] / volume[used]).sum())
    assert n_cut == pytest.approx(ncut.normalized_cut(graph, labels), rel=1e-10)


@pytest.mark.parametrize("place", PLACES)
def test_cuts_between_components_are_exactly_zero(place: str) -> None:
    chains = [random_chain(s, (13, 9, 11)) for s in (1, 2, 3)]
    graph = chain_graph(side_by_side(*chains))
    there = placed_graph(graph, place)
    labels = there.device.asarray(side_by_side_labels(*chains).astype(np.int32))
    _, cut = volumes_and_cuts(there, labels, 3)
    assert not there.device.to_host(cut).any()
