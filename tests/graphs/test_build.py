"""build_graph and from_adjacency: assembled graphs, and refusals by name."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from checks import check_adjacency, check_canonical_csr
from hypothesis import given
from hypothesis import strategies as st
from ml_dtypes import bfloat16
from samples import Matrices, chain_graph, random_chain, small_chains, with_isolated
from scipy import sparse

from ncut.errors import InputError
from ncut.graphs import build_graph, from_adjacency
from ncut.types import LeftOut


def block_matrix(weights: Matrices) -> np.ndarray:
    """The adjacency of a chain as scipy assembles it."""
    n = len(weights) + 1
    grid: list[list[Any]] = [[None] * n for _ in range(n)]
    for i, matrix in enumerate(weights):
        grid[i][i + 1], grid[i + 1][i] = matrix, matrix.T
    return np.asarray(sparse.block_array(grid).toarray())


@given(small_chains(), st.sampled_from([np.float32, np.float64]))
def test_chain_equals_scipys_block_matrix(weights: Matrices, dtype: Any) -> None:
    weights = [matrix.astype(dtype) for matrix in weights]
    graph = chain_graph(weights)
    adjacency = graph.adjacency
    check_adjacency(adjacency)
    assert adjacency.dtype == dtype
    assert adjacency.indices.dtype == adjacency.indptr.dtype == np.int32
    np.testing.assert_array_equal(adjacency.toarray(), block_matrix(weights))
    np.testing.assert_allclose(graph.degrees, block_matrix(weights).sum(axis=1), rtol=1e-6)
    assert graph.n_edges == sum(np.count_nonzero(matrix) for matrix in weights)
    assert graph.n_vertices == len(adjacency.indptr) - 1


def test_layers_and_blocks_of_a_chain() -> None:
    weights = random_chain(3, [4, 5, 2])
    graph = chain_graph(weights, name="small")
    assert graph.name == "small"
    assert [(layer.name, layer.start, layer.size) for layer in graph.layers] == [
        ("layer0", 0, 4),
        ("layer1", 4, 5),
        ("layer2", 9, 2),
    ]
    assert graph.layers[1].slice == slice(4, 9)
    assert [(block.source, block.target, block.name) for block in graph.blocks] == [
        (0, 1, "w0"),
        (1, 2, "w1"),
    ]


@pytest.mark.parametrize(("density", "is_dense"), [(1.0, True), (0.4, True), (0.1, False)])
def test_blocks_are_stored_as_their_density_asks(density: float, is_dense: bool) -> None:
    block = chain_graph(random_chain(5, [40, 50], density)).blocks[0]
    assert isinstance(block.weights, np.ndarray) == is_dense
    if isinstance(block.weights, np.ndarray):
        assert block.weights.flags.c_contiguous
    else:
        check_canonical_csr(block.weights)


def test_mixed_types_widen_and_layout_does_not_matter() -> None:
    weights = random_chain(7, [6, 4, 3])
    mixed = [np.asfortranarray(weights[0].astype(np.float32)), weights[1][:, ::-1]]
    graph = chain_graph(mixed)
    assert graph.adjacency.dtype == np.float64
    np.testing.assert_array_equal(graph.adjacency.toarray(), block_matrix(mixed))


@pytest.mark.parametrize("dtype", [np.float16, np.int64, np.uint8, np.longdouble, ">f8", ">f4"])
def test_other_real_types_are_converted(dtype: Any) -> None:
    weights = np.array([[1, 2], [0, 3], [4, 0]]).astype(dtype)
    graph = chain_graph([weights])
    assert graph.adjacency.dtype in (np.float32, np.float64)
    np.testing.assert_array_equal(graph.blocks[0].weights, [[1, 2], [0, 3], [4, 0]])


@pytest.mark.parametrize("dtype", [np.float16, bfloat16])
def test_dense_weights_of_16_bits_stay_as_they_are(dtype: Any) -> None:
    (weights,) = random_chain(5, [20, 30])
    graph = chain_graph([weights.astype(dtype)])
    assert graph.blocks[0].weights.dtype == dtype
    wide = chain_graph([weights.astype(dtype).astype(np.float64)])
    assert graph.adjacency.dtype == np.float32
    np.testing.assert_array_equal(graph.adjacency.toarray(), wide.adjacency.toarray())
    np.testing.assert_array_equal(graph.degrees, wide.degrees)
    assert graph.n_edges == 600
    thin = chain_graph([(weights * (weights > 1)).astype(dtype)])
    assert thin.blocks[0].weights.dtype == np.float32
    rest, _ = thin.without_isolated()
    assert rest.n_edges == np.count_nonzero(weights > 1)


@pytest.mark.parametrize("dtype", [np.float16, bfloat16])
def test_weights_of_16_bits_with_nan_are_refused(dtype: Any) -> None:
    weights = np.ones((4, 5), dtype)
    weights[2, 3] = np.nan
    with pytest.raises(InputError, match=r"layer 'w0': 1 NaN"):
        chain_graph([weights])


def test_sums_of_16_bit_blocks_neither_overflow_nor_lose_digits() -> None:
    large, small = np.full((2, 2), 40_000, np.float16), np.full((2, 2), 1, np.float16)
    for other in (large, small):
        graph = build_graph([("a", 2), ("b", 2)], [(0, 1, large, "x"), (0, 1, other, "y")])
        np.testing.assert_array_equal(
            graph.adjacency.toarray()[:2, 2:], large.astype(float) + other.astype(float)
        )


def test_mixed_blocks_of_16_and_more_bits() -> None:
    weights = random_chain(6, [6, 5, 4, 3])
    mixed = [weights[0].astype(np.float16), weights[1].astype(bfloat16), weights[2]]
    expected = block_matrix([matrix.astype(float) for matrix in mixed])
    np.testing.assert_array_equal(chain_graph(mixed).adjacency.toarray(), expected)
    np.testing.assert_allclose(chain_graph(mixed).degrees, expected.sum(axis=1))


def test_blocks_may_come_in_any_order_and_direction() -> None:
    layers = [("a", 3), ("b", 2), ("c", 4)]
    first, second, skip = random_chain(9, [3, 2, 4]) + random_chain(11, [3, 4])
    expected = build_graph(layers, [(0, 1, first, "x"), (0, 2, skip, "z"), (1, 2, second, "y")])
    shuffled = build_graph(layers, [(2, 1, second.T, "y"), (0, 1, first, "x"), (2, 0, skip.T, "z")])
    check_adjacency(shuffled.adjacency)
    np.testing.assert_array_equal(shuffled.adjacency.toarray(), expected.adjacency.toarray())
    assert [(b.source, b.target) for b in shuffled.blocks] == [(0, 1), (0, 2), (1, 2)]


def test_parallel_blocks_are_kept_and_summed_in_the_adjacency() -> None:
    one, two = random_chain(13, [3, 2])[0], random_chain(15, [3, 2])[0]
    graph = build_graph([("a", 3), ("b", 2)], [(0, 1, one, "x"), (1, 0, two.T, "y")])
    assert [(b.source, b.target, b.name) for b in graph.blocks] == [(0, 1, "x"), (0, 1, "y")]
    np.testing.assert_array_equal(graph.blocks[0].weights, one)
    np.testing.assert_array_equal(graph.blocks[1].weights, two)
    check_adjacency(graph.adjacency)
    expected = block_matrix([one + two])
    np.testing.assert_allclose(graph.adjacency.toarray(), expected)
    np.testing.assert_allclose(graph.degrees, expected.sum(axis=1))


def test_a_block_within_a_layer_is_above_the_diagonal() -> None:
    first, within = random_chain(13, [3, 4])[0], np.triu(np.full((4, 4), 0.5), k=1)
    graph = build_graph([("a", 3), ("b", 4)], [(0, 1, first, "x"), (1, 1, within, "y")])
    expected = block_matrix([first])
    expected[3:, 3:] = within + within.T
    check_adjacency(graph.adjacency)
    np.testing.assert_allclose(graph.adjacency.toarray(), expected)
    np.testing.assert_allclose(graph.degrees, expected.sum(axis=1))


def test_left_out_is_kept() -> None:
    left_out = [LeftOut("bias", (3,), "biases are ignored")]
    graph = build_graph([("a", 1), ("b", 1)], [(0, 1, np.ones((1, 1)), "w")], left_out=left_out)
    assert graph.left_out == tuple(left_out)


def replaced(value: float, count: int = 1) -> np.ndarray:
    weights = random_chain(19, [4, 5])[0]
    weights.flat[3 : 3 + count] = value
    return weights


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (replaced(-1.0, 2), r"layer 'fc1': 2 negative"),
        (replaced(np.nan, 3), r"layer 'fc1': 3 NaN and 0 infinite values among 20"),
        (replaced(np.inf), r"layer 'fc1': 0 NaN and 1 infinite"),
        (replaced(-np.inf), r"layer 'fc1': 0 NaN and 1 infinite"),
        (np.zeros((4, 5)), r"layer 'fc1': all 20 weights are zero"),
        (np.ones((5, 4)), r"layer 'fc1': .*\(5, 4\).*'in'.*'out'.*\(4, 5\)"),
        (np.ones((4, 6)), r"layer 'fc1': .*\(4, 6\)"),
        (np.ones(20), r"layer 'fc1': .*matrix.*\(20,\)"),
        (np.ones((4, 5, 1)), r"layer 'fc1': .*matrix.*\(4, 5, 1\)"),
        (np.ones((4, 5), complex), r"layer 'fc1': .*real numbers.*complex128"),
        (np.ones((4, 5), bool), r"layer 'fc1': .*real numbers.*bool"),
        (np.full((4, 5), "a"), r"layer 'fc1': .*real numbers"),
        (np.full((4, 5), None), r"layer 'fc1': .*real numbers.*object"),
    ],
)
def test_build_refuses_weights_by_name(weights: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_graph([("in", 4), ("out", 5)], [(0, 1, weights, "fc1")])


def test_build_refuses_a_model_without_weights() -> None:
    with pytest.raises(InputError, match="model: no weights"):
        build_graph([("in", 4), ("out", 5)], [])


@pytest.mark.parametrize(("source", "target"), [(0, 2), (-1, 0), (0, -1), (5, 0)])
def test_build_refuses_layers_that_cannot_be_connected(source: int, target: int) -> None:
    with pytest.raises(InputError, match="'fc1'"):
        build_graph([("in", 4), ("out", 4)], [(source, target, np.ones((4, 4)), "fc1")])


def symmetric(seed: int = 21, n: int = 12, density: float = 0.4) -> np.ndarray:
    rng = np.random.default_rng(seed)
    upper = np.triu(rng.random((n, n)) * (rng.random((n, n)) < density), k=1)
    return upper + upper.T


@pytest.mark.parametrize(
    "kind",
    [
        sparse.csr_array,
        sparse.csc_array,
        sparse.coo_array,
        sparse.lil_array,
        sparse.csr_matrix,
        np.asarray,
        np.asfortranarray,
    ],
)
def test_adjacency_of_any_format(kind: Any) -> None:
    matrix = symmetric()
    graph = from_adjacency(kind(matrix))
    check_adjacency(graph.adjacency)
    np.testing.assert_array_equal(graph.adjacency.toarray(), matrix)
    assert [(layer.start, layer.size) for layer in graph.layers] == [(0, 12)]
    assert graph.n_edges == np.count_nonzero(matrix) // 2
    assert graph.left_out == ()


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [(np.float32, np.float32), (np.float64, np.float64), (int, np.float64), (bool, np.float64)],
)
def test_adjacency_of_any_type(dtype: Any, expected: Any) -> None:
    matrix = (symmetric() > 0).astype(dtype)
    graph = from_adjacency(sparse.csr_array(matrix))
    assert graph.adjacency.dtype == expected
    np.testing.assert_array_equal(graph.adjacency.toarray(), matrix)


def test_self_loops_are_left_out_and_reported() -> None:
    matrix = symmetric() + np.diag([2.0] * 5 + [0.0] * 7)
    graph = from_adjacency(sparse.csr_array(matrix))
    np.testing.assert_array_equal(graph.adjacency.toarray(), symmetric())
    assert [(item.name, item.shape) for item in graph.left_out] == [("diagonal", (5,))]


def test_duplicates_are_added_zeros_dropped_and_the_input_left_alone() -> None:
    row = np.array([1, 0, 1, 0, 2, 1, 2, 0])
    col = np.array([0, 1, 0, 1, 1, 2, 0, 2])
    value = np.array([1.0, 1.0, 2.0, 2.0, 4.0, 4.0, 0.0, 0.0])
    matrix = sparse.coo_array((value, (row, col)), shape=(3, 3))
    # csr with entries twice, unsorted, and with stored zeros
    order = np.argsort(row, kind="stable")
    indptr = np.concatenate([[0], np.cumsum(np.bincount(row))]).astype(np.int32)
    loose = sparse.csr_array((value[order], col[order].astype(np.int32), indptr), shape=(3, 3))
    before = [part.copy() for part in (loose.data, loose.indices, loose.indptr)]
    graph = from_adjacency(loose)
    check_adjacency(graph.adjacency)
    assert graph.n_edges == 2
    np.testing.assert_array_equal(graph.adjacency.toarray(), matrix.toarray())
    for part, expected in zip((loose.data, loose.indices, loose.indptr), before, strict=True):
        np.testing.assert_array_equal(part, expected)


def test_rounding_errors_are_no_asymmetry() -> None:
    matrix = symmetric()
    matrix[np.triu_indices(12)] *= 1 + 1e-9
    graph = from_adjacency(sparse.csr_array(matrix))
    check_adjacency(graph.adjacency)


def changed(at: tuple[int, int], value: float, both: bool = True) -> np.ndarray:
    matrix = symmetric()
    matrix[at] = value
    if both:
        matrix[at[::-1]] = value
    return matrix


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (symmetric()[:11], r"adjacency: shape 11 x 12.*square"),
        (changed((2, 5), -1.0), r"adjacency: 2 negative"),
        (changed((2, 5), np.nan), r"adjacency: 2 NaN"),
        (changed((2, 5), np.inf), r"adjacency: .*2 infinite"),
        (
            changed((2, 5), 9.0, both=False),
            r"adjacency: not symmetric.*\[(2, 5|5, 2)\] and \[(2, 5|5, 2)\].*\(A \+ A\.T\)",
        ),
        (np.zeros((4, 4)), r"adjacency: "),
        (np.diag([1.0, 2.0]), r"adjacency: no edges outside the diagonal"),
        (np.zeros((0, 0)), r"adjacency: "),
    ],
)
@pytest.mark.parametrize("kind", [sparse.csr_array, np.asarray])
def test_adjacency_is_refused_by_name(kind: Any, matrix: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_adjacency(kind(matrix))
    with pytest.raises(InputError, match=message.replace("adjacency", "X")):
        from_adjacency(kind(matrix), argument="X")


@pytest.mark.parametrize("at", [(3, 700), (700, 3), (699, 698), (0, 1)])
def test_one_entry_of_a_large_dense_matrix_that_is_not_symmetric_is_found(at: Any) -> None:
    points = np.random.default_rng(4).random(701)
    matrix = np.add.outer(points, points)
    dense, entries = from_adjacency(matrix).blocks[0], from_adjacency(sparse.csr_array(matrix))
    assert_same_csr(dense.weights, entries.blocks[0].weights)
    matrix[at] += 0.5
    row, column = sorted(at)
    with pytest.raises(InputError, match=rf"not symmetric, entries \[{row}, {column}\] and "):
        from_adjacency(matrix)


def assert_same_csr(ours: Any, theirs: Any) -> None:
    for part in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(getattr(ours, part), getattr(theirs, part))
        assert getattr(ours, part).dtype == getattr(theirs, part).dtype


@pytest.mark.parametrize(
    "wrong", [np.ones(3), "weights", None, 3.0, np.ones((3, 3), complex), [["a", "b"], ["c", "d"]]]
)
def test_other_objects_than_matrices_are_refused(wrong: Any) -> None:
    with pytest.raises(InputError, match="adjacency"):
        from_adjacency(wrong)


def test_isolated_neurons_are_vertices() -> None:
    weights = with_isolated(random_chain(23, [6, 7, 8]), 25)
    graph = chain_graph(weights)
    assert graph.n_vertices == 21
    assert np.count_nonzero(graph.degrees == 0) >= 6


DAMAGED = """
import numpy as np
from scipy import sparse
from ncut.errors import InputError
from ncut.graphs import from_adjacency
matrix = sparse.{kind}(np.ones((5, 5)) - np.eye(5))
matrix.{part}[{at}] = {value}
try:
    from_adjacency(matrix)
except InputError as error:
    print(str(error))
"""


@pytest.mark.parametrize("kind", ["csr_array", "csc_array"])
@pytest.mark.parametrize(
    ("part", "at", "value"),
    [("indices", 0, 7), ("indices", 3, 2_000_000_000), ("indices", 0, -1), ("indptr", 2, 2**30)],
)
def test_a_damaged_matrix_is_refused(kind: str, part: str, at: int, value: int) -> None:
    # In a process of its own: SciPy does not check a matrix before it follows its indices.
    code = DAMAGED.format(kind=kind, part=part, at=at, value=value)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.startswith("adjacency: "), (done.returncode, done.stderr[-500:])


def test_sparse_weights_that_are_not_canonical_are_left_alone() -> None:
    """Unsorted, with a duplicate and a zero, and with index arrays that another matrix shares."""
    columns, starts = np.array([2, 0, 1, 1, 3]), np.array([0, 2, 4, 5, 5, 5])
    shape = (5, 20)
    one, other = (
        sparse.csr_array((np.array(data), columns, starts), shape=shape)
        for data in ([1.0, 2.0, 3.0, 4.0, 0.0], [5.0, 6.0, 7.0, 8.0, 9.0])
    )
    expected = other.toarray()
    graph = build_graph([("a", 5), ("b", 20)], [(0, 1, one, "one"), (0, 1, other, "other")])
    np.testing.assert_array_equal(other.toarray(), expected)
    np.testing.assert_array_equal(columns, [2, 0, 1, 1, 3])
    assert [block.weights.nnz for block in graph.blocks] == [3, 4]
    np.testing.assert_array_equal(graph.blocks[0].weights.toarray()[1, 1], 7.0)
