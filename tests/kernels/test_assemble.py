"""Degrees and the symmetric CSR matrix, against dense NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from checks import check_canonical_csr
from hypothesis import given
from ml_dtypes import bfloat16
from samples import Placed, as_csr, placed_blocks, stored_blocks
from scipy import sparse

from ncut import kernels, reference
from ncut.types import Block


def assembled(placed: Placed) -> sparse.csr_array:
    n_vertices, blocks = placed
    indptr, indices, data = kernels.assemble_csr(n_vertices, blocks)
    return sparse.csr_array((data, indices, indptr), shape=(n_vertices, n_vertices))


@given(placed_blocks())
def test_csr_equals_the_dense_adjacency(placed: Placed) -> None:
    matrix = assembled(placed)
    check_canonical_csr(matrix)
    np.testing.assert_array_equal(matrix.toarray(), reference.adjacency(*placed))


@given(placed_blocks())
def test_csr_holds_no_zeros_and_has_the_widest_type(placed: Placed) -> None:
    indptr, indices, data = kernels.assemble_csr(*placed)
    assert data.all()
    assert indptr.dtype == indices.dtype == np.int32
    dtypes = {block.weights.dtype for *_, block in placed[1]}
    assert data.dtype == (np.float64 if np.dtype(np.float64) in dtypes else np.float32)


@given(placed_blocks())
def test_degrees_are_row_sums(placed: Placed) -> None:
    degrees = kernels.degrees(*placed)
    assert degrees.dtype == np.float64
    np.testing.assert_allclose(
        degrees, reference.degrees(reference.adjacency(*placed)), rtol=1e-14, atol=0
    )


@given(placed_blocks())
def test_edges_are_counted_once(placed: Placed) -> None:
    n_edges = sum(kernels.count_edges(block.weights) for *_, block in placed[1])
    assert 2 * n_edges == np.count_nonzero(reference.adjacency(*placed))


@pytest.mark.parametrize("index", [np.int32, np.int64])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_explicit_zeros_of_a_sparse_block_are_no_edges(index: type, dtype: type) -> None:
    weights = as_csr(np.array([[1, 2, 3], [4, 5, 6]], dtype), index)
    weights.data[[0, 4]] = 0
    placed: Placed = (5, [(0, 2, Block(0, 1, weights))])
    matrix = assembled(placed)
    check_canonical_csr(matrix)
    assert matrix.nnz == 8
    assert kernels.count_edges(weights) == 4
    np.testing.assert_array_equal(matrix.toarray(), reference.adjacency(*placed))


def test_degrees_are_summed_in_double_precision() -> None:
    # In float32, 2**24 + 1 is 2**24.
    weights = np.array([[2.0**24, 1.0, 1.0, 1.0]], np.float32)
    for block in (weights, as_csr(weights)):
        assert kernels.degrees(5, [(0, 1, Block(0, 1, block))])[0] == 2.0**24 + 3


@pytest.mark.parametrize("dtype", [np.float16, bfloat16])
def test_every_number_of_16_bits_is_read_right(dtype: Any) -> None:
    # All positive ones: from the smallest subnormal to the largest finite number.
    infinity = int(np.array(np.inf, dtype).view(np.uint16))
    numbers = np.arange(1, infinity, dtype=np.uint16).view(dtype)
    placed: Placed = (numbers.size + 1, [(0, 1, Block(0, 1, numbers[None, :]))])
    np.testing.assert_array_equal(kernels.degrees(*placed)[1:], numbers.astype(float))
    np.testing.assert_array_equal(kernels.assemble_csr(*placed)[2][: numbers.size], numbers)


@given(stored_blocks(4, 5))
def test_scan_counts_edges(weights: Any) -> None:
    values = weights if isinstance(weights, np.ndarray) else weights.data
    assert kernels.scan(values) == (0, 0, 0, np.count_nonzero(values))


@pytest.mark.parametrize("dtype", [np.float16, bfloat16, np.float32, np.float64])
def test_scan_counts_invalid_weights(dtype: Any) -> None:
    values = np.zeros((3, 7), dtype)
    values.flat[:9] = [np.nan, -np.nan, np.inf, -np.inf, -np.inf, -1, -0.5, 2, 3]
    assert kernels.scan(values) == (2, 3, 4, 9)
    values.flat[9] = -0.0
    assert kernels.scan(values) == (2, 3, 4, 9)


def test_blocks_without_rows_or_columns() -> None:
    empty = Block(0, 1, np.zeros((0, 3)))
    full = Block(1, 2, np.ones((3, 1)))
    none = Block(2, 3, np.zeros((1, 0), np.float32))
    placed: Placed = (4, [(0, 0, empty), (0, 3, full), (3, 4, none)])
    np.testing.assert_array_equal(assembled(placed).toarray(), reference.adjacency(*placed))
    np.testing.assert_array_equal(kernels.degrees(*placed), [1, 1, 1, 3])
