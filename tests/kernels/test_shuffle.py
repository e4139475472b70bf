"""Permutations, random patterns and draws from a density: invariants and uniformity."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from checks import check_canonical_csr, check_same_multiset, check_uniform
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from samples import as_csr
from scipy import sparse, special, stats

from ncut import kernels

pytestmark = pytest.mark.usefixtures("each_instruction_set")

Key = tuple[int, int, int]
SEEDS = st.integers(0, 2**64 - 1)
STREAMS = st.integers(0, 2**32 - 1)
KEYS = st.tuples(SEEDS, STREAMS, STREAMS)

# One key for each draw, varied in one of its three places: all three must be as good.
KEY_SERIES: dict[str, Any] = {
    "seed": lambda number: (1000 + number, 3, 5),
    "stream": lambda number: (17, number, 5),
    "substream": lambda number: (17, 3, number),
}


def permuted(values: np.ndarray, key: Key) -> np.ndarray:
    before = values.copy()
    result = kernels.permuted(values, *key)
    np.testing.assert_array_equal(values, before)
    return result


@given(
    hnp.arrays(
        st.sampled_from([np.float32, np.float64]),
        st.integers(0, 70),
        elements=st.floats(-10, 10, width=32),
    ),
    KEYS,
)
def test_permute_keeps_the_values(values: np.ndarray, key: Key) -> None:
    check_same_multiset(permuted(values, key), values)


@given(KEYS, KEYS)
def test_the_key_decides_the_permutation(key: Key, other: Key) -> None:
    values = np.arange(200.0)
    np.testing.assert_array_equal(permuted(values, key), permuted(values, key))
    assert np.array_equal(permuted(values, key), permuted(values, other)) == (key == other)


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("bit", [0, 1, 31])
def test_each_part_of_the_key_matters(place: int, bit: int) -> None:
    key = [9, 8, 7]
    changed = list(key)
    changed[place] ^= 1 << bit
    values = np.arange(200.0)
    assert not np.array_equal(permuted(values, tuple(key)), permuted(values, tuple(changed)))


def test_the_upper_half_of_the_seed_matters() -> None:
    values = np.arange(200.0)
    assert not np.array_equal(permuted(values, (5, 0, 0)), permuted(values, (5 + 2**32, 0, 0)))


def test_float32_and_float64_are_permuted_alike() -> None:
    values = np.arange(500.0)
    single = permuted(values.astype(np.float32), (3, 1, 4))
    np.testing.assert_array_equal(single, permuted(values, (3, 1, 4)))


@pytest.mark.parametrize("varied", KEY_SERIES)
def test_all_orders_of_four_are_equally_likely(varied: str) -> None:
    number_of = {order: i for i, order in enumerate(itertools.permutations(range(4)))}
    counts = np.zeros(24, int)
    for number in range(9600):
        values = permuted(np.arange(4.0), KEY_SERIES[varied](number))
        counts[number_of[tuple(values.astype(int).tolist())]] += 1
    check_uniform(counts)


def test_every_value_is_equally_likely_at_every_place_of_a_long_array() -> None:
    # Longer than the core's batch of look-ahead draws.
    n = 40
    counts = np.zeros((n, n), int)
    for number in range(4000):
        order = permuted(np.arange(float(n)), (23, number, 0)).astype(int)
        counts[np.arange(n), order] += 1
    check_uniform(counts[[0, 1, 15, 16, 17, 38, 39]].ravel())
    check_uniform(counts.ravel())


def test_arrays_beyond_the_cache_are_permuted_uniformly() -> None:
    # 400,000 doubles are dealt out to pieces first; where values land is uniform all the same.
    n, n_bins = 400_000, 20
    counts = np.zeros((n_bins, n_bins), int)
    for number in range(5):
        order = permuted(np.arange(float(n)), (29, number, 0)).astype(int)
        check_same_multiset(order, np.arange(n))
        np.add.at(counts, (np.arange(n) * n_bins // n, order * n_bins // n), 1)
    check_uniform(counts.ravel())


def test_permuted_refuses_what_is_not_contiguous() -> None:
    with pytest.raises(ValueError, match="C-contiguous"):
        kernels.permuted(np.zeros((4, 4))[:, ::2], 1, 2, 3)


def pattern(
    shape: tuple[int, int], size: int, key: Key, triangle: bool = False
) -> sparse.csr_array:
    """A matrix of ones at the random positions."""
    like = sparse.csr_array(shape)
    like.indices, like.data = np.zeros(size, np.int32), np.ones(size)
    indptr, indices = kernels.random_pattern(like, triangle, *key)
    return sparse.csr_array((np.ones(size), indices, indptr), shape=shape)


@given(st.data(), st.integers(0, 12), st.integers(1, 200), KEYS)
def test_pattern_is_a_matrix_with_as_many_entries(
    data: st.DataObject, n_rows: int, n_cols: int, key: Key
) -> None:
    size = data.draw(st.integers(0, n_rows * n_cols))
    matrix = pattern((n_rows, n_cols), size, key)
    check_canonical_csr(matrix)
    assert matrix.nnz == size


@given(st.data(), st.integers(1, 60), KEYS)
def test_triangle_is_strictly_upper(data: st.DataObject, n: int, key: Key) -> None:
    size = data.draw(st.integers(0, n * (n - 1) // 2))
    matrix = pattern((n, n), size, key, triangle=True)
    check_canonical_csr(matrix)
    rows, cols = matrix.nonzero()
    assert rows.size == size
    assert (rows < cols).all()


@pytest.mark.parametrize("index", [np.int32, np.int64])
def test_pattern_keeps_the_index_type(index: Any) -> None:
    indptr, indices = kernels.random_pattern(as_csr(np.eye(6), index), False, 1, 2, 3)
    assert indptr.dtype == indices.dtype == index


@given(KEYS, KEYS)
def test_the_key_decides_the_pattern(key: Key, other: Key) -> None:
    for size in (40, 400, 760):  # few, half, nearly all of 800
        first = pattern((20, 40), size, key).indices
        np.testing.assert_array_equal(first, pattern((20, 40), size, key).indices)
        assert np.array_equal(first, pattern((20, 40), size, other).indices) == (key == other)


SUBSETS = {
    "bits": ((2, 3), 2, False),
    "inverted bits": ((2, 3), 4, False),
    "half": ((2, 3), 3, False),
    "triangle, bits": ((4, 4), 2, True),
    "triangle, inverted bits": ((4, 4), 5, True),
}


@pytest.mark.parametrize("varied", KEY_SERIES)
@pytest.mark.parametrize("case", SUBSETS)
def test_all_subsets_are_equally_likely(case: str, varied: str) -> None:
    shape, size, triangle = SUBSETS[case]
    counts: dict[bytes, int] = {}
    n_subsets = math.comb(6, size)
    for number in range(300 * n_subsets):
        like = sparse.csr_array(shape)
        like.indices = np.zeros(size, np.int32)
        indptr, indices = kernels.random_pattern(like, triangle, *KEY_SERIES[varied](number))
        drawn = indptr.tobytes() + indices.tobytes()
        counts[drawn] = counts.get(drawn, 0) + 1
    assert len(counts) == n_subsets
    check_uniform(list(counts.values()))


@pytest.mark.parametrize(("shape", "size"), [((1, 256), 2), ((16, 16), 3), ((1, 700), 10)])
def test_sparse_subsets_are_uniform(shape: tuple[int, int], size: int) -> None:
    # So few of so many positions are drawn and sorted instead of marked.
    count = shape[0] * shape[1]
    hits = np.zeros(count, int)
    lowest, n_draws = [], 6000
    for number in range(n_draws):
        matrix = pattern(shape, size, (29, number, 1))
        positions = np.repeat(np.arange(shape[0]), np.diff(matrix.indptr)) * shape[1]
        positions += matrix.indices
        hits[positions] += 1
        lowest.append(positions[0])
    check_uniform(hits)
    # P(lowest < m) is known; ten classes of about equal probability.
    below = np.array(
        [1 - math.comb(count - m, size) / math.comb(count, size) for m in range(count)]
    )
    edges = np.unique(np.searchsorted(below, np.linspace(0, 1, 11)[1:-1]))
    share = np.diff(np.concatenate([[0.0], below[edges], [1.0]]))
    check_uniform(np.bincount(np.searchsorted(edges, lowest, side="right")), share)


def test_a_triangle_of_few_edges_is_uniform() -> None:
    n, hits = 24, np.zeros((24, 24), int)
    for number in range(6000):
        matrix = pattern((n, n), 3, (31, number, 2), triangle=True)
        hits += matrix.toarray().astype(int)
    check_uniform(hits[np.triu_indices(n, k=1)])


def drawn(sample: np.ndarray, n: int, bandwidth: float, key: Key = (37, 4, 1)) -> np.ndarray:
    values = np.full(n, np.nan, sample.dtype)
    kernels.draw_kde(sample, bandwidth, values, *key)
    return values


def folded_cdf(x: np.ndarray, sample: np.ndarray, bandwidth: float) -> np.ndarray:
    """P(|c + bandwidth z| <= x) for c uniform among the sample and z standard normal."""
    x, c = np.asarray(x, float)[..., None], sample.astype(float)
    return np.asarray(
        (special.ndtr((x - c) / bandwidth) - special.ndtr((-x - c) / bandwidth)).mean(axis=-1)
    )


SAMPLES = {
    "far from zero": (np.array([0.5, 1.0, 2.0]), 0.01),
    "folded": (np.array([0.001, 0.004, 0.02]), 0.01),
    "one value": (np.array([0.3]), 0.05),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", SAMPLES)
def test_density_draws_follow_the_folded_mixture(case: str, dtype: Any) -> None:
    sample, bandwidth = SAMPLES[case][0].astype(dtype), SAMPLES[case][1]
    values = drawn(sample, 40_001, bandwidth).astype(float)
    assert (values >= 0).all()
    c = sample.astype(float)
    mean = np.mean(
        bandwidth * math.sqrt(2 / math.pi) * np.exp(-(c**2) / (2 * bandwidth**2))
        + c * special.erf(c / (bandwidth * math.sqrt(2)))
    )
    variance = np.mean(c**2 + bandwidth**2) - mean**2
    error = math.sqrt(variance / values.size)
    assert abs(values.mean() - mean) < 4 * error
    assert abs(values.std() / math.sqrt(variance) - 1) < 0.02
    test = stats.kstest(values[:5000], lambda x: folded_cdf(x, sample, bandwidth))
    assert test.pvalue > 1e-4


def test_the_distribution_test_notices_a_wrong_bandwidth() -> None:
    sample, bandwidth = SAMPLES["folded"]
    values = drawn(sample, 5000, 1.1 * bandwidth)
    test = stats.kstest(values, lambda x: folded_cdf(x, sample, bandwidth))
    assert test.pvalue < 1e-4


def test_density_draws_are_independent_of_each_other() -> None:
    values = drawn(np.array([1.0]), 20_000, 0.1) - 1.0
    for lag in (1, 2, 3):
        assert abs(np.corrcoef(values[:-lag], values[lag:])[0, 1]) < 4 / math.sqrt(values.size)


@given(KEYS, KEYS)
def test_the_key_decides_the_draws(key: Key, other: Key) -> None:
    sample = np.array([0.5, 1.0])
    first = drawn(sample, 20, 0.1, key)
    np.testing.assert_array_equal(first, drawn(sample, 20, 0.1, key))
    assert np.array_equal(first, drawn(sample, 20, 0.1, other)) == (key == other)
