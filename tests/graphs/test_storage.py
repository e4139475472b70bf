"""Saved graphs: the round trip, and files that are damaged, foreign or hostile."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from ml_dtypes import bfloat16
from samples import Matrices, chain_graph, random_chain, small_chains

from ncut.errors import ModelError
from ncut.graphs import NeuronGraph, build_graph, from_adjacency
from ncut.types import LeftOut


def sample() -> NeuronGraph:
    """Two blocks: block0 dense, of shape (6, 5), and block1 CSR, of shape (5, 40)."""
    dense, thin = random_chain(3, [6, 5])[0], random_chain(5, [5, 40], 0.1)[0]
    return build_graph(
        [("in", 6), ("hidden", 5), ("out", 40)],
        [(0, 1, dense, "fc1"), (1, 2, thin, "fc2")],
        left_out=[LeftOut("bias", (5,), "biases are ignored")],
        name="Größe",
    )


def assert_equal(ours: NeuronGraph, expected: NeuronGraph) -> None:
    assert ours.layers == expected.layers
    assert ours.left_out == expected.left_out
    assert ours.name == expected.name
    assert len(ours.blocks) == len(expected.blocks)
    for block, other in zip(ours.blocks, expected.blocks, strict=True):
        assert (block.source, block.target, block.name) == (other.source, other.target, other.name)
        assert type(block.weights) is type(other.weights)
        assert block.weights.dtype == other.weights.dtype
    difference = ours.adjacency != expected.adjacency
    assert difference.nnz == 0


def test_round_trip(tmp_path: Path) -> None:
    graph = sample()
    assert isinstance(graph.blocks[0].weights, np.ndarray)
    assert not isinstance(graph.blocks[1].weights, np.ndarray)
    graph.save(tmp_path / "graph.npz")
    assert_equal(NeuronGraph.load(tmp_path / "graph.npz"), graph)
    assert_equal(NeuronGraph.load(str(tmp_path / "graph.npz")), graph)


def test_the_file_has_the_name_that_was_asked_for(tmp_path: Path) -> None:
    sample().save(str(tmp_path / "graph.ncut"))
    assert [path.name for path in tmp_path.iterdir()] == ["graph.ncut"]
    assert_equal(NeuronGraph.load(tmp_path / "graph.ncut"), sample())


@given(small_chains())
def test_round_trip_of_any_chain(factory: pytest.TempPathFactory, weights: Matrices) -> None:
    path = factory.mktemp("graph") / "graph.npz"
    for graph in (chain_graph(weights), from_adjacency(chain_graph(weights).adjacency)):
        graph.save(path)
        assert_equal(NeuronGraph.load(path), graph)


@pytest.mark.parametrize("dtype", [np.float16, bfloat16])
def test_round_trip_of_16_bits(tmp_path: Path, dtype: Any) -> None:
    graph = chain_graph([random_chain(9, [6, 5])[0].astype(dtype)])
    assert graph.blocks[0].weights.dtype == dtype
    graph.save(tmp_path / "graph.npz")
    assert_equal(NeuronGraph.load(tmp_path / "graph.npz"), graph)


def test_the_comparison_notices_a_changed_weight(tmp_path: Path) -> None:
    graph = sample()
    graph.save(tmp_path / "graph.npz")
    loaded = NeuronGraph.load(tmp_path / "graph.npz")
    loaded.blocks[0].weights[2, 3] *= 1.0000001
    with pytest.raises(AssertionError):
        assert_equal(loaded, graph)


@pytest.fixture(scope="module")
def factory(tmp_path_factory: pytest.TempPathFactory) -> pytest.TempPathFactory:
    return tmp_path_factory


def refused(path: Path) -> None:
    with pytest.raises(ModelError):
        NeuronGraph.load(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nothing\.npz"):
        NeuronGraph.load(tmp_path / "nothing.npz")


def test_folder(tmp_path: Path) -> None:
    refused(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"PK", b"PK\x03\x04", b"hello" * 100, b"\x93NUMPY\x01\x00"]
)
def test_foreign_bytes(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "graph.npz"
    path.write_bytes(content)
    refused(path)


def test_other_numpy_files(tmp_path: Path) -> None:
    np.save(tmp_path / "array.npy", np.ones((3, 3)))
    refused(tmp_path / "array.npy")
    np.savez(tmp_path / "weights.npz", w0=np.ones((3, 4)))
    with pytest.raises(ModelError, match=r"ncut\.graph"):
        NeuronGraph.load(tmp_path / "weights.npz")


def test_pickles_are_not_run(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "exploded",))

    header = np.empty((), object)
    header[()] = Bomb()
    np.savez(tmp_path / "graph.npz", ncut_graph=header, allow_pickle=True)
    refused(tmp_path / "graph.npz")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 0.999])
def test_truncated_file(tmp_path: Path, share: float) -> None:
    sample().save(tmp_path / "graph.npz")
    whole = (tmp_path / "graph.npz").read_bytes()
    (tmp_path / "short.npz").write_bytes(whole[: int(len(whole) * share)])
    refused(tmp_path / "short.npz")


def test_flipped_bytes_are_noticed_or_harmless(tmp_path: Path) -> None:
    path = tmp_path / "graph.npz"
    sample().save(path)
    whole = path.read_bytes()
    n_refused = 0
    for at in range(0, len(whole), 23):
        damaged = bytearray(whole)
        damaged[at] ^= 0xFF
        path.write_bytes(bytes(damaged))
        try:
            loaded = NeuronGraph.load(path)
        except ModelError:
            n_refused += 1
        else:
            assert_equal(loaded, sample())
    assert n_refused > len(whole) / 23 / 2


def rewritten(path: Path, header: Any = None, **arrays: Any) -> Path:
    """The sample's file with other entries in its header, or other arrays; None removes one."""
    sample().save(path)
    with np.load(path) as stored:
        parts = dict(stored)
    fields = json.loads(str(parts["ncut_graph"]))
    if isinstance(header, dict):
        fields.update(header)
        parts["ncut_graph"] = np.array(json.dumps(fields))
    elif header is not None:
        parts["ncut_graph"] = np.array(header)
    for name, array in arrays.items():
        if array is None:
            del parts[name]
        else:
            parts[name] = array
    np.savez(path, **parts)
    return path


def test_rewriting_nothing_changes_nothing(tmp_path: Path) -> None:
    assert_equal(NeuronGraph.load(rewritten(tmp_path / "graph.npz")), sample())


@pytest.mark.parametrize(
    "header",
    [
        "no json",
        "[1, 2]",
        "null",
        "{}",
        "[" * 100_000,  # deeper than the JSON reader goes
        {"format": "ncut-graph-999"},
        {"format": None},
        {"layers": 5},
        {"layers": []},
        {"layers": [], "blocks": []},
        {"layers": [["in", 6], ["hidden", 5]]},
        {"layers": [["in", 6], ["hidden", 5], ["out", -40]]},
        {"layers": [["in", 6], ["hidden", 5], ["out", 20]]},
        {"layers": [["in", 6], ["hidden", 5], ["out", 40.5]]},
        {"layers": [["in", 6], ["hidden", 5], ["out", "40"]]},
        {"layers": [["in", 6], ["hidden", 5], ["out", True]]},
        {"layers": [["in", 7], ["hidden", 5], ["out", 40]]},
        {"layers": [["in", 6, 1], ["hidden", 5], ["out", 40]]},
        {"blocks": []},
        {"blocks": 3},
        {"blocks": [[0, 1, "fc1"], [1, 3, "fc2"]]},
        {"blocks": [[0, 1, "fc1"], [1, -1, "fc2"]]},
        {"blocks": [[0, 1, "fc1"], [2, 1, "fc2"]]},
        {"blocks": [[0, 1, "fc1"], [0, 1, "fc2"]]},
        {"blocks": [[1, 2, "fc1"], [0, 1, "fc2"]]},
        {"blocks": [[0, 1, "fc1"], [1, 2, "fc2"], [1, 2, "fc3"]]},
        {"blocks": [[0, 1, "fc1"], [1, 2.0, "fc2"]]},
        {"left_out": [["bias"]]},
        {"left_out": 3},
    ],
    ids=lambda header: str(header)[:60],
)
def test_hostile_header(tmp_path: Path, header: Any) -> None:
    refused(rewritten(tmp_path / "graph.npz", header))


def _stored(part: str) -> np.ndarray:
    return np.array(getattr(sample().blocks[1].weights, part))


def _with(part: str, at: int, value: float) -> dict[str, np.ndarray]:
    array = _stored(part)
    array[at] = value
    return {f"block1_{part}": array}


def _overflowing(indptr: np.ndarray) -> np.ndarray:
    """Row pointers that fall, though the differences of 64-bit numbers are positive."""
    indptr[1:3] = 2**62 + 9, -(2**62) - 9
    with np.errstate(over="ignore"):
        assert np.diff(indptr).min() >= 0
    return indptr


DENSE = sample().blocks[0].weights
N_STORED = _stored("data").size


@pytest.mark.parametrize(
    "arrays",
    [
        {"block0": None},
        {"block1_data": None},
        {"block0": DENSE[:-1]},
        {"block0": DENSE.T},
        {"block0": DENSE.ravel()},
        {"block0": np.array(3.0)},
        {"block0": np.where(DENSE > 0.5, np.nan, DENSE)},
        {"block0": np.where(DENSE > 0.5, np.inf, DENSE)},
        {"block0": -DENSE},
        {"block0": np.full(DENSE.shape, "a")},
        {"block0": DENSE.astype(complex)},
        _with("indices", 0, 40),
        _with("indices", 3, 10**6),
        _with("indices", 2, -1),
        _with("indices", 1, int(_stored("indices")[0])),
        _with("data", 1, np.nan),
        _with("data", 1, -1.0),
        _with("indptr", 0, 1),
        _with("indptr", 2, 10**6),
        _with("indptr", 2, -5),
        _with("indptr", 3, 0),
        _with("indptr", 5, N_STORED + 1),
        {"block1_indptr": np.where(np.arange(_stored("indptr").size) > 2, -7, _stored("indptr"))},
        {"block1_indptr": _overflowing(_stored("indptr").astype(np.int64))},
        {"block1_indptr": _stored("indptr")[:-1]},
        {"block1_indices": _stored("indices")[:-1]},
        {"block1_data": _stored("data")[:-1]},
        {"block1_data": _stored("data").astype(complex)},
        {"block1_data": _stored("data")[None]},
    ],
    ids=lambda arrays: ",".join(f"{k}:{None if v is None else v.shape}" for k, v in arrays.items()),
)
def test_hostile_arrays(tmp_path: Path, arrays: dict[str, Any]) -> None:
    refused(rewritten(tmp_path / "graph.npz", **arrays))


def test_a_block_within_a_layer_must_be_strictly_upper(tmp_path: Path) -> None:
    path = tmp_path / "graph.npz"
    graph = from_adjacency(chain_graph(random_chain(7, [4, 5])).adjacency)
    graph.save(path)
    with np.load(path) as stored:
        parts = dict(stored)
    lower = graph.adjacency
    parts |= {f"block0_{part}": getattr(lower, part) for part in ("data", "indices", "indptr")}
    np.savez(path, **parts)
    refused(path)


@pytest.mark.parametrize("dtype", [np.longdouble, np.int64, ">f8"])
def test_other_number_types_are_converted_or_refused(tmp_path: Path, dtype: Any) -> None:
    weights = np.ones((6, 5), dtype)
    path = rewritten(tmp_path / "graph.npz", block0=weights)
    try:
        graph = NeuronGraph.load(path)
    except ModelError:
        return
    np.testing.assert_array_equal(graph.degrees[:6], np.full(6, 5.0))


def test_unusual_but_valid_arrays_give_the_same_graph(tmp_path: Path) -> None:
    weights = sample().blocks[1].weights
    path = rewritten(
        tmp_path / "graph.npz",
        block0=np.asfortranarray(DENSE),
        block1_indices=weights.indices.astype(np.int64),
        block1_indptr=weights.indptr.astype(np.int64),
    )
    graph = NeuronGraph.load(path)
    np.testing.assert_array_equal(graph.adjacency.toarray(), sample().adjacency.toarray())
    np.testing.assert_allclose(graph.degrees, sample().degrees)
    assert graph.without_isolated()[0].n_edges == sample().n_edges


@pytest.mark.parametrize("below", [False, True])
def test_a_dense_block_within_a_layer(tmp_path: Path, below: bool) -> None:
    path = tmp_path / "graph.npz"
    graph = from_adjacency(chain_graph(random_chain(7, [4, 5])).adjacency)
    graph.save(path)
    with np.load(path) as stored:
        parts = {name: stored[name] for name in stored if not name.startswith("block")}
    dense = graph.adjacency.toarray()
    np.savez(path, **parts, block0=dense if below else np.triu(dense))
    if below:
        refused(path)
    else:
        assert_equal(NeuronGraph.load(path), graph)
