"""Roles and ties in saved graphs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from samples import as_csr, chain_graph, random_chain

from ncut import reference
from ncut.errors import ModelError
from ncut.extract import read_graph
from ncut.graphs import NeuronGraph, from_adjacency

torch = pytest.importorskip("torch", reason="pip install 'ncut[torch]'")
from role_nets import Twice, ties  # noqa: E402


@pytest.fixture(autouse=True)
def _same_weights_in_every_run() -> None:
    torch.manual_seed(0)


def with_roles() -> NeuronGraph:
    """A graph with one of each: rescalable or not or unknown, readers, copies, a CSR block."""
    (weights,) = random_chain(7, (9, 9), 0.4)
    graph = chain_graph([weights, weights.T.copy(), weights, random_chain(8, (9, 40), 0.05)[0]])
    marks = (False, True, None, True, None)
    readers: tuple[tuple[str, ...], ...] = (("first",), ("Größe", "b"), (), ("last",), ())
    layers = tuple(
        replace(layer, rescalable=mark, read_by=read)
        for layer, mark, read in zip(graph.layers, marks, readers, strict=True)
    )
    one, two, three, four = graph.blocks
    blocks = (
        replace(one, tie="w0"),
        replace(two, tie="w0", tie_transposed=True),
        replace(three, weights=as_csr(reference.dense(three.weights))),
        four,
    )
    return replace(graph, layers=layers, blocks=blocks)


def resaved(graph: NeuronGraph, path: Path, **changes: Any) -> Path:
    """The graph's file with other entries in its header; None removes one."""
    graph.save(path)
    with np.load(path) as stored:
        arrays = dict(stored)
    header = json.loads(str(arrays["ncut_graph"]))
    for name, value in changes.items():
        assert name in header
        if value is None:
            del header[name]
        else:
            header[name] = value
    np.savez(path, **(arrays | {"ncut_graph": np.array(json.dumps(header))}))
    return path


@pytest.mark.parametrize("make", [with_roles, lambda: read_graph(Twice())])
def test_roles_and_ties_are_saved(make: Callable[[], NeuronGraph], tmp_path: Path) -> None:
    graph = make()
    graph.save(tmp_path / "graph.npz")
    for loaded in (NeuronGraph.load(tmp_path / "graph.npz"), read_graph(tmp_path / "graph.npz")):
        assert loaded.layers == graph.layers
        assert ties(loaded) == ties(graph)
        for layer in loaded.layers:
            assert layer.rescalable is None or isinstance(layer.rescalable, bool)
            assert isinstance(layer.read_by, tuple)
        for block, original in zip(loaded.blocks, graph.blocks, strict=True):
            assert_array_equal(reference.dense(block.weights), reference.dense(original.weights))
            assert isinstance(block.tie_transposed, bool)


def test_files_from_before_roles_still_load(tmp_path: Path) -> None:
    graph = with_roles()
    path = resaved(graph, tmp_path / "graph.npz", rescalable=None, read_by=None, ties=None)
    loaded = NeuronGraph.load(path)
    assert [(x.rescalable, x.read_by) for x in loaded.layers] == [(None, ())] * 5
    assert [block.tie for block in loaded.blocks] == [""] * 4
    assert [x.name for x in loaded.layers] == [x.name for x in graph.layers]
    assert (loaded.adjacency != graph.adjacency).nnz == 0


@pytest.mark.parametrize("name", ["rescalable", "read_by", "ties"])
def test_files_with_some_of_them_load_too(name: str, tmp_path: Path) -> None:
    removed: dict[str, Any] = {name: None}
    loaded = NeuronGraph.load(resaved(with_roles(), tmp_path / "graph.npz", **removed))
    assert (loaded.layers == with_roles().layers) == (name == "ties")
    assert (ties(loaded) == ties(with_roles())) == (name != "ties")


@pytest.mark.parametrize(
    "changes",
    [
        {"rescalable": [True]},
        {"rescalable": [True] * 6},
        {"rescalable": ["yes", None, None, None, None]},
        {"rescalable": [2, None, None, None, None]},
        {"rescalable": [1, None, None, None, None]},
        {"rescalable": [[], None, None, None, None]},
        {"rescalable": 5},
        {"read_by": [[]]},
        {"read_by": [3, [], [], [], []]},
        {"read_by": 7},
        {"ties": [["", False]]},
        {"ties": [["", False, 1]] * 4},
        {"ties": [[]] * 4},
        {"ties": 3},
    ],
    ids=str,
)
def test_damaged_roles_are_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    path = resaved(with_roles(), tmp_path / "graph.npz", **changes)
    with pytest.raises(ModelError, match=r"saved graph"):
        NeuronGraph.load(path)


def test_an_adjacency_is_saved_without_roles(tmp_path: Path) -> None:
    from_adjacency(with_roles().adjacency).save(tmp_path / "graph.npz")
    (layer,) = NeuronGraph.load(tmp_path / "graph.npz").layers
    assert (layer.rescalable, layer.read_by) == (None, ())
