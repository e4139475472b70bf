"""Checks used by several tests. `test_checks.py` shows that each rejects a wrong answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, stats


def check_same_multiset(ours: NDArray[Any], expected: NDArray[Any]) -> None:
    """The same numbers, each as often, in any order."""
    assert ours.dtype == expected.dtype
    np.testing.assert_array_equal(np.sort(ours, axis=None), np.sort(expected, axis=None))


def check_uniform(counts: Sequence[int] | NDArray[np.integer], share: Any = None) -> None:
    """Counts that a chi-square test cannot tell from equal shares (or from the shares given)."""
    observed = np.asarray(counts)
    expected = None if share is None else np.asarray(share) * observed.sum()
    assert stats.chisquare(observed, expected).pvalue > 1e-4


def check_canonical_csr(matrix: sparse.csr_array) -> None:
    """Well-formed CSR whose rows have ascending columns, none twice and none out of range."""
    n_rows, n_cols = matrix.shape
    assert matrix.indptr.dtype == matrix.indices.dtype
    assert matrix.indptr[0] == 0
    assert matrix.indptr[-1] == matrix.indices.size == matrix.data.size
    assert (np.diff(matrix.indptr) >= 0).all()
    for row in range(n_rows):
        columns = matrix.indices[matrix.indptr[row] : matrix.indptr[row + 1]]
        assert (np.diff(columns.astype(np.int64)) > 0).all()
        assert columns.size == 0 or (columns[0] >= 0 and columns[-1] < n_cols)


def check_adjacency(matrix: sparse.csr_array) -> None:
    """Canonical, symmetric, without negative weights or self-loops."""
    check_canonical_csr(matrix)
    dense = matrix.toarray()
    np.testing.assert_array_equal(dense, dense.T)
    assert (dense >= 0).all()
    assert not dense.diagonal().any()


def check_eigenpairs(
    laplacian: NDArray[np.float64],
    values: NDArray[np.float64],
    vectors: NDArray[np.float64],
    tolerance: float,
) -> None:
    """Ascending values and orthonormal vectors u with |L u - value u| below the tolerance."""
    assert (np.diff(values) >= -1e-12).all()
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(values.size), atol=tolerance)
    residuals = np.linalg.norm(laplacian @ vectors - vectors * values, axis=0)
    assert residuals.max() < tolerance


def check_nearest_centre(
    points: NDArray[np.floating], labels: NDArray[np.integer], slack: float
) -> None:
    """No point is nearer to another cluster's mean than to its own.

    `slack` is the difference of squared distances, relative to the points' spread, that is
    allowed for.
    """
    points = points.astype(np.float64)
    used = np.unique(labels)
    means = np.array([points[labels == cluster].mean(axis=0) for cluster in used])
    distances = ((points[:, None, :] - means[None, :, :]) ** 2).sum(axis=2)
    own = distances[np.arange(len(points)), np.searchsorted(used, labels)]
    assert (own - distances.min(axis=1)).max() <= slack * points.var(axis=0).sum()


def check_same_partition(ours: NDArray[np.integer], expected: NDArray[np.integer]) -> None:
    """The same groups under any numbering."""
    pairs = set(zip(ours.tolist(), expected.tolist(), strict=True))
    assert len(pairs) == len(np.unique(ours)) == len(np.unique(expected))
