"""The paper's composite data sets, against plain loops from its description."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from paper_data import patterned
from scipy import stats

from ncut.paper import composites

SIDE = 28
PAIRED = [composites.halves, composites.stacked]


def generator(seed=0):
    return np.random.default_rng(seed)


def distinct(n, seed=0):
    """Images that differ everywhere, and labels, each class as often."""
    random = generator(seed)
    images = random.integers(256, size=(n, SIDE, SIDE), dtype=np.uint8)
    return images, random.permutation(np.arange(n) % 10).astype(np.uint8)


def resizing_loops(n, n_out):
    """The matrix, entry by entry: a Gaussian cut at 4 deviations, then a line through centres."""
    factor = n / n_out
    deviation = (factor - 1) / 2
    radius = int(4 * deviation + 0.5)
    kernel = [math.exp(-((d / deviation) ** 2) / 2) for d in range(-radius, radius + 1)]
    smooth = np.zeros((n, n))
    for pixel in range(n):
        for d in range(-radius, radius + 1):
            source = pixel + d
            while not 0 <= source < n:  # a mirror in the middle of the outermost pixel
                source = -source if source < 0 else 2 * (n - 1) - source
            smooth[pixel, source] += kernel[d + radius] / sum(kernel)
    matrix = np.zeros((n_out, n))
    for pixel in range(n_out):
        centre = (pixel + 0.5) * factor - 0.5
        for source in range(n):
            matrix[pixel] += max(0.0, 1 - abs(centre - source)) * smooth[source]
    return matrix


def narrowed(images):
    """Images of half the width before they are rounded, their largest value 255."""
    columns = resizing_loops(SIDE, SIDE // 2)
    narrow = np.einsum("nrc,oc->nro", images.astype(float), columns)
    return narrow * (255 / narrow.max())


def assert_rounded(found, exact):
    """Bytes are the nearest ones; where two are about as near either will do."""
    assert found.dtype == np.uint8
    assert np.abs(found - exact).max() <= 0.5 + 1e-3


def identified(parts, sources):
    """The number of the only source that each part is equal to but for rounding."""
    distances = np.abs(parts[:, None].astype(float) - sources[None]).max(axis=(2, 3))
    assert ((distances <= 0.501).sum(axis=1) == 1).all()
    return distances.argmin(axis=1)


def pairs_of(maker, images, found):
    """The numbers of both source images of each composite image."""
    if maker is composites.halves:
        sources = narrowed(images)
        return tuple(identified(found[:, :, part], sources) for part in np.s_[:14, 14:])
    return tuple(identified(found[:, channel], images) for channel in (0, 1))


# --- resizing ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sizes", [(28, 14), (28, 7), (32, 16), (32, 28), (30, 12), (28, 9), (6, 2), (9, 1), (28, 27)]
)
def test_the_resizing_matrix_is_that_of_loops(sizes):
    matrix = composites.resizing(*sizes)
    assert matrix.shape == sizes[::-1]
    assert_allclose(matrix, resizing_loops(*sizes), rtol=0, atol=1e-12)


@given(n_out=st.integers(1, 40), more=st.integers(1, 40))
def test_resizing_takes_means_and_has_no_left_or_right(n_out, more):
    matrix = composites.resizing(n_out + more, n_out)
    assert (matrix >= 0).all()
    assert_allclose(matrix.sum(axis=1), 1, rtol=0, atol=1e-12)
    assert_allclose(matrix[::-1, ::-1], matrix, rtol=0, atol=1e-12)


@pytest.mark.parametrize("sizes", [(28, 14), (28, 7)])
def test_resizing_keeps_a_slope_away_from_the_border(sizes):
    n, n_out = sizes
    centres = (np.arange(n_out) + 0.5) * n / n_out - 0.5
    inner = slice(2, -2)
    found = composites.resizing(*sizes) @ np.arange(n)
    assert_allclose(found[inner], centres[inner], rtol=0, atol=1e-9)


@pytest.mark.parametrize("side", [7, 14, 10])
def test_images_are_resized_along_both_axes(side):
    images, _ = distinct(5)
    images[1, 10:, :] = 0  # rows and columns cannot be taken for each other
    matrix = resizing_loops(SIDE, side)
    expected = np.einsum("or,nrc,pc->nop", matrix, images.astype(float), matrix)
    found = composites.resized(images, side)
    assert found.dtype == np.float32
    assert_allclose(found, expected, rtol=0, atol=1e-3)


def test_resized_values_stay_between_0_and_255():
    images = np.stack([np.full((SIDE, SIDE), value, np.uint8) for value in (0, 1, 254, 255)])
    found = composites.resized(images, 7)
    assert_allclose(found[:, 3, 3], [0, 1, 254, 255], rtol=1e-6)
    assert_allclose(found, np.broadcast_to(found[:, :1, :1], found.shape), rtol=1e-6)
    assert found.min() >= 0
    assert found.max() <= np.float32(255) * (1 + 1e-6)


# --- pairs: halves and stacks --------------------------------------------------------------------


@pytest.mark.parametrize("same", [True, False])
def test_both_halves_are_narrow_images_of_the_set(same):
    images, labels = distinct(60)
    found, _ = composites.halves(images, labels, same, generator())
    assert found.shape == images.shape
    narrow = narrowed(images)
    left, right = pairs_of(composites.halves, images, found)
    for number in range(len(found)):
        assert_rounded(found[number, :, :14], narrow[left[number]])
        assert_rounded(found[number, :, 14:], narrow[right[number]])


@pytest.mark.parametrize("brightest", [255, 100, 3])
@pytest.mark.parametrize("same", [True, False])
def test_values_of_halves_reach_255(brightest, same):
    images, labels = distinct(60)
    images = (images.astype(int) * brightest // 255).astype(np.uint8)
    # Every pixel of the set's brightest image is its brightest, and each class has it.
    images[labels == labels[0]] = brightest
    images[:10], labels[:10] = brightest, np.arange(10)
    found, _ = composites.halves(images, labels, same, generator())
    assert found.max() == 255


def test_halves_are_scaled_as_a_set_not_one_by_one():
    images, labels = distinct(20)
    images[labels < 5] //= 4
    found, kept = composites.halves(images, labels, True, generator())
    assert found[kept < 5].max() < 64 * 255 / 200
    assert found[kept >= 5].max() == 255


@pytest.mark.parametrize("same", [True, False])
def test_channels_of_stacks_are_images_of_the_set(same):
    images, labels = distinct(60)
    found, _ = composites.stacked(images, labels, same, generator())
    assert found.shape == (60, 2, SIDE, SIDE)
    assert found.dtype == np.uint8
    originals = {image.tobytes() for image in images}
    assert all(channel.tobytes() in originals for channel in found.reshape(-1, SIDE, SIDE))


@pytest.mark.parametrize("maker", PAIRED)
def test_same_is_each_image_with_one_of_its_class(maker):
    images, labels = distinct(120)
    found, kept = maker(images, labels, True, generator())
    assert_array_equal(kept, labels)
    left, right = pairs_of(maker, images, found)
    assert_array_equal(left, np.arange(120))
    for number, partner in enumerate(right):
        assert labels[partner] == labels[number]
    assert (left != right).mean() > 0.7  # of 12 in a class, 11 are others
    assert len(set(right.tolist())) < 100  # each drawn anew: 78 on average


@pytest.mark.parametrize("maker", PAIRED)
def test_diff_is_labelled_with_the_sum_modulo_10(maker):
    images, labels = distinct(120)
    found, sums = maker(images, labels, False, generator())
    assert len(found) == 120
    assert sums.dtype == np.uint8
    left, right = pairs_of(maker, images, found)
    for number in range(120):
        total = int(labels[left[number]]) + int(labels[right[number]])
        assert sums[number] == total % 10
    assert (labels[left] + labels[right] >= 10).any()
    assert (left != right).mean() > 0.9


@pytest.mark.parametrize("maker", PAIRED)
def test_diff_draws_both_images_of_the_whole_set_at_random(maker):
    n = 5000
    images = np.zeros((n, SIDE, SIDE), np.uint8)
    labels = (np.arange(n) * 10 // n).astype(np.uint8)  # sorted, as a careless set may be
    images[:, :, :] = (labels * 28)[:, None, None]
    found, _ = maker(images, labels, False, generator())
    ends = found[:, 5, [5, 22]] if maker is composites.halves else found[:, :, 5, 5]
    ranks = [np.unique(end, return_inverse=True)[1] for end in ends.T]
    table = np.histogram2d(*ranks, bins=10)[0]
    assert stats.chisquare(table.ravel()).pvalue > 1e-3
    assert (np.diff(ranks[0]) < 0).mean() > 0.4  # in no order


@pytest.mark.parametrize("maker", PAIRED)
def test_same_draws_every_partner_as_often(maker):
    images, labels = distinct(20)
    labels[:] = np.repeat([3, 8], [5, 15])
    drawn = np.zeros((20, 20))
    random = generator()
    for _ in range(60):
        found, _ = maker(images, labels, True, random)
        right = pairs_of(maker, images, found)[1]
        drawn[np.arange(20), right] += 1
    assert not drawn[:5, 5:].any()
    assert not drawn[5:, :5].any()
    assert stats.chisquare(drawn[:5, :5].ravel()).pvalue > 1e-3
    assert stats.chisquare(drawn[5:, 5:].ravel()).pvalue > 1e-3


@pytest.mark.parametrize("maker", PAIRED)
def test_an_image_alone_in_its_class_is_with_itself(maker):
    images, labels = distinct(9)
    labels[:] = [0, 0, 0, 0, 9, 0, 0, 0, 0]
    found, _ = maker(images, labels, True, generator())
    left, right = pairs_of(maker, images, found)
    assert left[4] == right[4] == 4


@given(labels=st.lists(st.integers(0, 9), min_size=1, max_size=30), seed=st.integers(0, 99))
def test_pairs_fit_their_labels_whatever_classes_there_are(labels, seed):
    labels = np.array(labels, np.uint8)
    images = np.broadcast_to(labels[:, None, None], (len(labels), 2, 2))
    found, kept = composites.stacked(images, labels, True, generator(seed))
    assert_array_equal(kept, labels)
    assert_array_equal(found, np.broadcast_to(labels[:, None, None, None], found.shape))
    found, sums = composites.stacked(images, labels, False, generator(seed))
    assert_array_equal(found[:, :, 0, 0].sum(axis=1) % 10, sums)
    assert set(found.ravel()) <= set(labels)


# --- lines ---------------------------------------------------------------------------------------


def test_lines_are_whole_columns_and_their_number_is_the_label():
    images, labels = composites.lines(400, generator())
    assert images.shape == (400, SIDE, SIDE)
    assert images.dtype == labels.dtype == np.uint8
    for image, label in zip(images, labels, strict=True):
        n_lines = 0
        for column in image.T:
            assert set(column.tolist()) in ({0}, {255})
            n_lines += column[0] == 255
        assert n_lines == label + 1
    assert set(labels.tolist()) == set(range(10))


def test_numbers_and_places_of_lines_are_uniform():
    images, labels = composites.lines(20_000, generator())
    assert stats.chisquare(np.bincount(labels, minlength=10)).pvalue > 1e-3
    rows = images[:, 0] == 255
    assert stats.chisquare(rows[labels == 0].sum(axis=0)).pvalue > 1e-3
    pairs = Counter(tuple(np.flatnonzero(row)) for row in rows[labels == 1])
    counts = [pairs[pair] for pair in itertools.combinations(range(SIDE), 2)]
    assert stats.chisquare(counts).pvalue > 1e-3


# --- mixtures ------------------------------------------------------------------------------------


def marked(n, which, seed):
    """Images that say of which set they are, which one of it, and what their class is."""
    labels = generator(seed).integers(10, size=n).astype(np.uint8)
    images = np.zeros((n, SIDE, SIDE), np.uint8)
    images[:, 0, 0], images[:, 1, 1], images[:, 2, 2] = which, np.arange(n), labels
    return images, labels


def marks(images):
    return [tuple(image[[0, 1, 2], [0, 1, 2]].tolist()) for image in images]


def test_an_overlapping_mixture_is_all_of_both():
    first, second = marked(70, 1, seed=1), marked(110, 2, seed=2)
    images, labels = composites.mixture(first, second, False, generator())
    assert_array_equal(images[:, 2, 2], labels)
    assert sorted(marks(images)) == sorted(marks(first[0]) + marks(second[0]))


def test_a_separate_mixture_is_low_classes_of_the_first_and_high_ones_of_the_second():
    first, second = marked(70, 1, seed=1), marked(110, 2, seed=2)
    images, labels = composites.mixture(first, second, True, generator())
    assert_array_equal(images[:, 2, 2], labels)
    expected = [mark for mark in marks(first[0]) if mark[2] in (0, 1, 2, 3, 4)]
    expected += [mark for mark in marks(second[0]) if mark[2] in (5, 6, 7, 8, 9)]
    assert sorted(marks(images)) == sorted(expected)
    assert set(labels.tolist()) == set(range(10))


@pytest.mark.parametrize("separate", [True, False])
def test_a_mixture_is_in_random_order(separate):
    first, second = marked(200, 1, seed=1), marked(200, 2, seed=2)
    images, _ = composites.mixture(first, second, separate, generator())
    sets = images[:, 0, 0]
    changes = (np.diff(sets.astype(int)) != 0).mean()
    assert 0.4 < changes < 0.6
    order = images[sets == 1, 1, 1].astype(int)
    assert abs(stats.kendalltau(order, np.arange(len(order))).statistic) < 0.15
    others, _ = composites.mixture(first, second, separate, generator(1))
    assert (others != images).any()


# --- noise ---------------------------------------------------------------------------------------


def test_noise_is_uniform_and_independent():
    images, labels = composites.noise(1000, generator())
    assert images.shape == (1000, SIDE, SIDE)
    assert images.dtype == labels.dtype == np.uint8
    assert stats.chisquare(np.bincount(images.ravel(), minlength=256)).pvalue > 1e-3
    assert stats.chisquare(np.bincount(labels, minlength=10)).pvalue > 1e-3
    centred = images - 127.5
    bound = 4 * centred.var() / math.sqrt(centred.size)
    for neighbours in (
        centred[1:] * centred[:-1],
        centred[:, 1:] * centred[:, :-1],
        centred[:, :, 1:] * centred[:, :, :-1],
    ):
        assert abs(neighbours.mean()) < 1.1 * bound
    means = [centred[labels == label].mean() for label in range(10)]
    assert max(map(abs, means)) < 4.5 * centred.std() / math.sqrt(90 * SIDE * SIDE)


# --- polynomials ---------------------------------------------------------------------------------


def test_every_output_is_the_sum_of_its_monomials():
    inputs, outputs = composites.polynomials(30, generator())
    assert inputs.shape == (30, 2)
    assert outputs.shape == (30, 512)
    assert inputs.dtype == outputs.dtype == np.float32
    exponents = [(a, b) for a in (0, 1, 2) for b in (0, 1, 2)]
    for number, coefficients in enumerate(itertools.product((0, 1), repeat=9)):
        expected = np.zeros(30)
        for coefficient, (a, b) in zip(coefficients, exponents, strict=True):
            if coefficient:
                expected += inputs[:, 0].astype(float) ** a * inputs[:, 1].astype(float) ** b
        assert_allclose(outputs[:, number], expected, rtol=1e-5, atol=1e-5)


def test_outputs_are_in_the_order_of_their_coefficients():
    _, outputs = composites.polynomials(30, generator())
    assert_array_equal(outputs[:, 0], 0)
    assert_array_equal(outputs[:, 256], 1)  # the first coefficient is the constant's
    bits = {1 << bit: outputs[:, 1 << bit].astype(float) for bit in range(9)}
    for number in range(512):
        expected = sum((bits[bit] for bit in bits if number & bit), np.zeros(30))
        assert_allclose(outputs[:, number], expected, rtol=1e-5, atol=1e-5)
    x, y = bits[1 << 5], bits[1 << 7]  # coefficients of x y^0, the 4th, and of y, the 2nd
    assert_allclose(bits[1], x**2 * y**2, rtol=1e-5)


def test_inputs_of_polynomials_are_standard_normal_and_independent():
    inputs, _ = composites.polynomials(3000, generator())
    for column in inputs.T:
        assert stats.kstest(column, "norm").pvalue > 1e-3
    assert abs(np.corrcoef(inputs.T)[0, 1]) < 4 / math.sqrt(3000)


# --- all -----------------------------------------------------------------------------------------


def everything(random):
    images, labels, more, more_labels = patterned((SIDE, SIDE), 50, 40, seed=3)
    yield from (maker(images, labels, same, random) for maker in PAIRED for same in (True, False))
    for separate in (True, False):
        yield composites.mixture((images, labels), (more, more_labels), separate, random)
    for maker in (composites.lines, composites.noise, composites.polynomials):
        yield maker(50, random)


def test_sets_depend_on_the_generator_alone():
    first, again, other = (list(everything(generator(seed))) for seed in (4, 4, 5))
    np.random.seed(1)  # noqa: NPY002
    later = list(everything(generator(4)))
    for parts, copies, others, laters in zip(first, again, other, later, strict=True):
        for array, copy, late in zip(parts, copies, laters, strict=True):
            assert_array_equal(array, copy)
            assert_array_equal(array, late)
        assert (parts[0] != others[0]).any()


def test_sources_of_derived_sets_are_unchanged():
    images, labels = distinct(30)
    images.flags.writeable = labels.flags.writeable = False
    for maker, same in itertools.product(PAIRED, (True, False)):
        found, _ = maker(images, labels, same, generator())
        assert not np.shares_memory(found, images)
    composites.resized(images, 7)
    for separate in (True, False):
        composites.mixture((images, labels), (images, labels), separate, generator())
