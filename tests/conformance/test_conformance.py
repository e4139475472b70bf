"""One network through every reader that supports it: the same graph in every format."""

from __future__ import annotations

import functools
import warnings
from collections import Counter
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="pip install 'ncut[torch]'")
pytest.importorskip("onnx", reason="pip install 'ncut[onnx]'")
pytest.importorskip("h5py", reason="pip install 'ncut[keras]'")

from formats import KerasNet, OnnxNet, exported, torch_module
from networks import NETWORKS
from numpy.testing import assert_allclose

import ncut
from ncut.errors import ModelError
from ncut.extract import read_graph, registry
from ncut.graphs.normalize import applicable_conventions

FORMATS = ("onnx", "export", "keras")


def in_format(kind: str, name: str, folder: Any) -> Any:
    """The network's file in a format."""
    network = NETWORKS[name]
    if kind == "onnx":
        return OnnxNet(network.body).write(folder / "net.onnx", network.inputs)
    if kind == "keras":
        return KerasNet(network.body).write(folder / "net.keras", network.inputs)
    module = torch_module(network.body, network.inputs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return exported(module, network.inputs, folder / "net.onnx")


@functools.cache
def of_torch(name: str, residual: str | None = None) -> Any:
    network = NETWORKS[name]
    module = torch_module(network.body, network.inputs)
    return read_graph(module, example_inputs=network.inputs, scope="all", residual=residual)


def facts(graph: Any, *, parameters: bool) -> dict[str, Any]:
    """Facts that must not depend on the format, unlike names."""
    return {
        "sizes": sorted(layer.size for layer in graph.layers),
        "n_edges": graph.n_edges,
        "rescalable": Counter((layer.size, layer.rescalable) for layer in graph.layers),
        "blocks": sorted(
            (
                *sorted(graph.layers[end].size for end in (block.source, block.target)),
                np.count_nonzero(dense(block)), bool(block.tie),
            )
            for block in graph.blocks
        ),
        "sums": graph.sums,
        "conventions": applicable_conventions(graph),
        "left out": Counter(entry.reason for entry in graph.left_out),
        "share": graph.placed_share if parameters else None,
    }  # fmt: skip


def dense(block: Any) -> Any:
    return block.weights if isinstance(block.weights, np.ndarray) else block.weights.toarray()


@pytest.mark.parametrize(
    ("name", "kind"),
    [(name, kind) for name in NETWORKS for kind in FORMATS if kind not in NETWORKS[name].without],
)
def test_the_same_graph_from_every_format(tmp_path, name, kind):
    file = in_format(kind, name, tmp_path)
    for residual in ("readers", "stream") if kind == "export" else ("readers", "stream", None):
        expected = of_torch(name, residual)
        found = read_graph(file, scope="all", residual=residual)
        # Factors that Keras keeps in the configuration are no variables.
        parameters = kind == "onnx"
        ours, theirs = (facts(graph, parameters=parameters) for graph in (found, expected))
        assert ours == theirs
        weights = [
            np.sort(np.concatenate([dense(b).ravel() for b in g.blocks])) for g in (found, expected)
        ]
        assert_allclose(*weights, rtol=1e-4, atol=1e-6)
        degrees = [np.sort(np.asarray(g.adjacency.sum(axis=0)).ravel()) for g in (found, expected)]
        assert_allclose(*degrees, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", [n for n, net in NETWORKS.items() if net.sizes is not None])
def test_sizes_and_edges_counted_by_hand(name):
    graph = of_torch(name, "readers")
    assert sorted(layer.size for layer in graph.layers) == sorted(NETWORKS[name].sizes)
    assert graph.n_edges == NETWORKS[name].n_edges


# Where several layers' neurons arrive at one input, or a part of them, a reader's inputs are not
# those neurons.
OWN_INPUTS = {
    *("a gate", "squeeze and excitation", "a soft mixture", "sliced", "concatenated channels"),
    *("a soft mixture as a product of matrices", "concatenated with the input"),
    *("an encoder that starts a decoder", "an lstm that starts another"),
    *("a layer that starts a recurrent one", "concatenated", "a router"),
}


@pytest.mark.parametrize("name", [n for n in NETWORKS if n not in OWN_INPUTS])
def test_without_sums_the_two_conventions_are_one(name):
    graphs = [of_torch(name, residual) for residual in ("readers", "stream")]
    if graphs[0].sums:
        return
    assert graphs[0].n_vertices == graphs[1].n_vertices
    assert graphs[0].n_edges == graphs[1].n_edges
    degrees = [np.sort(np.asarray(g.adjacency.sum(axis=0)).ravel()) for g in graphs]
    assert_allclose(*degrees, rtol=1e-5)


def test_operations_that_users_declare(tmp_path):
    """With one declaration per format, the network equals the one without the operation."""

    def own(n, x):
        h = n.linear(x, "a", 6, 5)
        made = (
            n.node("Fancy", [h], h[1], domain="my.ops")
            if isinstance(n, OnnxNet)
            else n.layer("Fancy", [h], h[1])
        )
        return n.linear(made, "b", 5, 4)

    inputs = NETWORKS["tanh"].inputs
    files = [
        OnnxNet(own).write(tmp_path / "own.onnx", inputs),
        KerasNet(own).write(tmp_path / "own.keras", inputs),
    ]
    for file in files:
        with pytest.raises(ModelError, match="register_operation"):
            read_graph(file)
    expected = of_torch("tanh")
    ncut.register_operation("Fancy", "elementwise")
    try:
        for file in files:
            graph = read_graph(file, scope="all")
            assert_allclose(graph.adjacency.toarray(), expected.adjacency.toarray(), rtol=1e-6)
    finally:
        registry.declared.pop("Fancy")
