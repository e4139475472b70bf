"""Adjacency matrices: symmetry row by row, masks, and refusals by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import sparse

import ncut
from ncut.errors import InputError
from ncut.extract.attribution import matrix_graph
from ncut.graphs import from_adjacency

KINDS: list[Any] = [np.array, sparse.csr_array, sparse.coo_array]


def two_scales() -> np.ndarray:
    """Ten vertices tied by weights of 1e7, ten by weights of 1, and one weak edge between them."""
    matrix = np.zeros((20, 20))
    matrix[:10, :10], matrix[10:, 10:] = 1e7, 1.0
    matrix[0, 10] = matrix[10, 0] = 1e-3
    np.fill_diagonal(matrix, 0)
    return matrix


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("one_way", ["lower", "upper"])
def test_one_way_edges_beside_heavy_ones_are_refused(kind: Any, one_way: str) -> None:
    matrix = two_scales()
    cut = np.tril if one_way == "lower" else np.triu
    matrix[10:, 10:] = cut(matrix[10:, 10:])
    with pytest.raises(InputError, match=r"adjacency: not symmetric, entries \[10, 11\] and \[11"):
        from_adjacency(kind(matrix))


@pytest.mark.parametrize("kind", KINDS)
def test_a_heavy_diagonal_hides_no_asymmetry(kind: Any) -> None:
    matrix = np.ones((6, 6)) + 1e9 * np.eye(6)
    matrix[2, 4] = 0.9
    with pytest.raises(InputError, match=r"entries \[2, 4\] and \[4, 2\] are 0.9 and 1;"):
        from_adjacency(kind(matrix))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e200])
def test_rounding_errors_are_no_asymmetry(kind: Any, scale: float) -> None:
    random = np.random.default_rng(3)
    matrix = random.random((400, 400))
    matrix = scale * (matrix + matrix.T) * (1 + 1e-9 * random.standard_normal((400, 400)))
    assert from_adjacency(kind(matrix)).n_edges == 400 * 399 // 2


def test_masked_entries_are_no_edges() -> None:
    block = np.repeat([0, 1, 2], 8)
    apart = block[:, None] != block
    weights = np.where(apart, np.nan, 1.0)
    masked = np.ma.masked_array(weights, mask=apart)
    graph = from_adjacency(masked)
    assert graph.n_edges == 3 * 8 * 7 // 2
    assert ncut.cluster(masked, 3).ncut == 0
    fitted = ncut.NormalizedCutClustering(3, random_state=0).fit(masked)
    assert fitted.ncut_ == 0
    one_sided = np.ma.masked_array(np.ones((4, 4)), mask=np.tri(4, k=-1, dtype=bool))
    with pytest.raises(InputError, match="not symmetric"):
        from_adjacency(one_sided)


def test_masked_weights_of_a_layer_are_no_edges() -> None:
    weights = np.ma.masked_array(np.full((3, 2), 2.0), mask=[[0, 1], [0, 0], [1, 0]])
    assert ncut.graph([weights, np.ones((2, 2))]).n_edges == 4 + 4


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.ones((6, 6), complex), "adjacency: must be real numbers, got dtype complex128"),
        (np.ones((6, 6), object), "adjacency: must be real numbers, got dtype object"),
        (
            np.ones((2, 2, 2)),
            r"adjacency: must have 2 dimensions, n x n, got the shape \(2, 2, 2\)",
        ),
        (np.ones(4), r"adjacency: must have 2 dimensions, n x n, got the shape \(4,\)"),
        (np.zeros((0, 0)), "adjacency: is empty, 0 x 0"),
        (np.where(np.eye(6) > 0, np.nan, 1.0), "adjacency: nan on the diagonal, in row 0"),
        (np.diag([0, 0, np.inf]) + 1, "adjacency: inf on the diagonal, in row 2"),
        (1 - 3 * np.eye(3), "adjacency: -2.0 on the diagonal, in row 0"),
        ([[0, 1], [1, 0]], "adjacency: must be a scipy sparse matrix or an array, got list"),
    ],
)
def test_invalid_adjacencies_are_refused_with_a_reason(matrix: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_adjacency(matrix)


def _damaged(kind: str, part: str, at: int, value: int) -> Any:
    matrix = sparse.csr_array(np.ones((6, 6)) - np.eye(6)).asformat(kind)
    getattr(matrix, part)[at:] = value
    return matrix


@pytest.mark.parametrize(
    ("kind", "part", "at", "value"),
    [
        *(("csr", "indptr", 3, -9), ("csc", "indptr", 6, -1), ("csr", "indices", 7, 2**20)),
        *(("bsr", "indptr", 2, -3), ("coo", "row", 9, -4), ("coo", "col", 9, 2**20)),
    ],
)
def test_a_damaged_sparse_matrix_is_refused(kind: str, part: str, at: int, value: int) -> None:
    matrix = _damaged(kind, part, at, value)
    for read in (from_adjacency, matrix_graph):
        with pytest.raises(InputError, match="a damaged sparse matrix"):
            read(matrix)


def test_whole_numbers_of_numpy_are_whole_numbers() -> None:
    matrix = np.ones((6, 6))
    number = np.int64
    found = ncut.cluster(matrix, number(2), threads=number(1), seed=number(3), n_init=number(2))
    assert found.k == 2
    with pytest.raises(InputError, match="threads: must be a whole number"):
        ncut.cluster(matrix, 2, threads=np.float64(1))  # type: ignore[arg-type]


@pytest.mark.parametrize("sizes", [(10, 5), (10, 11), (20, 1)])
def test_layers_must_have_all_vertices(sizes: tuple[int, int]) -> None:
    layers = [("a", sizes[0]), ("b", sizes[1])]
    message = rf"layers: have {sum(sizes)} vertices together, but adjacency has 20"
    with pytest.raises(InputError, match=message):
        from_adjacency(two_scales(), layers=layers)


def test_duplicates_of_small_integers_add_up_without_overflow() -> None:
    entries = np.full(4, 100, np.int8), ([0, 0, 1, 1], [1, 1, 0, 0])
    assert from_adjacency(sparse.coo_array(entries, shape=(2, 2))).adjacency[0, 1] == 200
