"""report.clusters, short names of layers, and a report's data about edges."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import numpy as np
import pytest

import ncut
from ncut.errors import InputError
from ncut.report import Report
from ncut.report.names import heads_of, layer_names
from ncut.types import Layer


@pytest.fixture(scope="module")
def report():
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=pair) for pair in pairwise([20, 16, 12])]
    return ncut.analyze(weights, k=4, shuffles=3, n_init=2)


def layers(*names, size=8):
    return [Layer(name, at * size, size) for at, name in enumerate(names)]


def test_neurons_and_masks(report):
    assert len(report.clusters) == 4
    for number, cluster in enumerate(report.clusters):
        assert len(cluster) == np.sum(report.labels == number)
        for layer in report.layers:
            expected = report.labels[layer.slice] == number
            np.testing.assert_array_equal(cluster.mask(layer.name), expected)
            np.testing.assert_array_equal(cluster.indices(layer.name), np.flatnonzero(expected))
        vertices = [
            report.layers[[one.name for one in report.layers].index(neuron.layer)].start
            + neuron.index
            for neuron in cluster.neurons
        ]
        assert vertices == np.flatnonzero(report.labels == number).tolist()
    assert report.clusters[1].neurons[0].module == "input"
    assert {one.module for one in report.clusters[1].neurons} <= {"input", "w0", "w1"}
    with pytest.raises(InputError, match="layer: must be one of 'input'"):
        report.clusters[0].mask("nosuch")
    with pytest.raises(InputError, match="layer: must be a position from 0 to 2, got 3"):
        report.clusters[0].mask(3)
    assert len(repr(report.clusters[0])) < 120


def test_strongest_edges_match_the_matrix(report):
    matrix = report.graph.adjacency.toarray()
    starts = {layer.name: layer.start for layer in report.layers}
    for number, cluster in enumerate(report.clusters):
        inside = report.labels == number
        touching = np.triu(matrix * (inside[:, None] | inside[None, :]))
        best = np.sort(touching[touching > 0])[::-1][:10]
        edges = cluster.strongest_edges
        np.testing.assert_allclose([edge.weight for edge in edges], best, rtol=1e-6)
        for edge in edges:
            ends = [starts[one.layer] + one.index for one in (edge.first, edge.second)]
            assert matrix[tuple(ends)] == pytest.approx(edge.weight)
            assert edge.clusters == tuple(report.labels[ends])


def test_a_report_from_json_keeps_the_weight_between_clusters(report):
    again = Report.from_json(report.to_json())
    assert again == report
    assert again.graph is None
    for pair, flow in report.between.flows.items():
        np.testing.assert_allclose(again.between.flows[pair], flow, rtol=1e-6)
    assert [edge[:2] for edge in again.between.strongest[0]] == [
        edge[:2] for edge in report.between.strongest[0]
    ]
    for weight in (math.nan, math.inf, -1.0):
        odd = report.to_dict()
        odd["between"]["strongest"][0][0][2] = weight
        with pytest.raises(InputError, match="'strongest' has weights"):
            Report.from_json(json.dumps(odd))
    old = report.to_dict()
    del old["between"], old["heads"]
    assert Report.from_json(json.dumps(old)).between is None


@pytest.mark.parametrize(
    "change",
    [
        {"flows": [[0, 9, [[0.0] * 4] * 4]]},
        {"flows": [[0, 1, [[0.0] * 3] * 3]]},
        {"flows": [[0, 1, [[-1.0] * 4] * 4]]},
        {"strongest": [[]]},
        {"strongest": [[[0, 99, 1.0]], [], [], []]},
    ],
)
def test_edges_that_do_not_fit_the_report_are_refused(report, change):
    data = report.to_dict()
    data["between"] = data["between"] | change
    with pytest.raises(InputError, match="'between' is malformed"):
        Report.from_json(json.dumps(data))


def test_names_are_short_and_unique():
    names = layer_names(
        layers(
            "rows of embeddings.word_embeddings",
            "stream of embeddings.word_embeddings",
            "encoder.layer.0.attention.self.query",
            "encoder.layer.0.intermediate.dense",
            "encoder.layer.0.output.dense",
            "encoder.layer.11.attention.self.query",
            "pooler.dense",
        )
    )
    assert names.short == (
        "rows of word_embeddings",
        "stream",
        "L0.query",
        "L0.intermediate.dense",
        "L0.output.dense",
        "L11.query",
        "dense",
    )
    assert [block for block, _ in names.blocks] == [
        "rows of word_embeddings", "stream", "L0", "L11", "dense",
    ]  # fmt: skip
    assert layer_names(layers("0", "2", "4")).short == ("layer 0", "layer 2", "layer 4")
    assert layer_names(layers("a", "a")).short == ("a", "a (2)")
    two = layer_names(layers("encoder.block.0.q", "decoder.block.0.q"))
    assert two.short == ("encoder.L0.q", "decoder.L0.q")
    assert layer_names(layers("layer1.0.conv1", "layer1.1.conv1")).short == (
        "layer1.0.conv1",
        "layer1.1.conv1",
    )


def test_neurons_of_heads():
    class Config:
        def to_dict(self):
            return {"num_attention_heads": 4, "num_key_value_heads": 2}

    class Model:
        config = Config()

    found = layers("m.layers.0.q_proj", "m.layers.0.v_proj", "m.layers.0.up_proj")
    heads = heads_of(Model(), found)
    assert heads == (4, 2, 0)
    names = layer_names(found, heads)
    assert names.neuron(0, 5) == "L0.H2.q_proj 1"
    assert names.neuron(1, 5) == "L0.H1.v_proj 1"
    assert names.neuron(2, 5) == "L0.up_proj 5"
    assert heads_of(None, found) == (0, 0, 0)
    assert heads_of("/nosuch", found) == (0, 0, 0)
