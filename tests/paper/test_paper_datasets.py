"""The paper's data sets as tensors, and their augmentation."""

from __future__ import annotations

import hashlib
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from paper_data import IDX_FILES, idx_bytes, write_all
from scipy import ndimage, stats

from ncut.errors import InputError

torch = pytest.importorskip("torch", reason="pip install 'ncut[torch]'")

from ncut.paper import augment, composites, datasets, files  # noqa: E402
from ncut.paper.datasets import NAMES, load  # noqa: E402

N_TRAIN, N_TEST = 250, 70
"""Sizes of sets made from nothing, here."""

OTHER_SHAPES = {"cifar10": (3, 32, 32), "mnist-7x7": (1, 7, 7), "polynomial": (2,)}
CHANNELS = {name: OTHER_SHAPES.get(name, (2 if "-stack-" in name else 1, 28, 28)) for name in NAMES}

MADE = ("lines", "random", "random-3000", "polynomial")
MIXED = ("lines-mnist", "lines-mnist-sep")
FROM_FILES = [name for name in NAMES if name not in MADE]


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A folder with all data sets, and what its files hold."""
    folder = tmp_path_factory.mktemp("all")
    return folder, write_all(folder)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Sets made from nothing are small."""
    monkeypatch.setattr(datasets, "N_TRAIN", N_TRAIN)
    monkeypatch.setattr(datasets, "N_TEST", N_TEST)


@pytest.fixture
def folder(stored):
    return stored[0]


def tensors_of(data):
    return data.inputs, data.targets, data.test_inputs, data.test_targets


def assert_same_data(first, second):
    for tensor, other in zip(tensors_of(first), tensors_of(second), strict=True):
        assert torch.equal(tensor, other)


def sizes_of(name):
    """Numbers of training and test examples of a set."""
    if name == "cifar10":
        return 100, 40
    if name in MADE:
        return N_TRAIN, N_TEST
    return (200 + N_TRAIN, 60 + N_TEST) if name == "lines-mnist" else (200, 60)


def rows_of(images):
    """Images as a set of their bytes."""
    return {image.numpy().tobytes() for image in images}


# --- every set -----------------------------------------------------------------------------------


def test_the_papers_sets_are_there():
    pairs = {
        f"{data}-{kind}-{which}"
        for data in ("mnist", "fashion")
        for kind in ("halves", "stack")
        for which in ("same", "diff")
    }
    assert len(NAMES) == len(set(NAMES))
    assert set(NAMES) == pairs | {"mnist", "fashion", "cifar10", "mnist-7x7", *MIXED, *MADE}


@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_each_set_has_its_shape_its_types_and_its_range(folder, name, flat):
    data = load(name, folder, flat=flat)
    shape = (math.prod(CHANNELS[name]),) if flat else CHANNELS[name]
    n_train, n_test = sizes_of(name)
    if name == "lines-mnist-sep":
        n_train, n_test = len(data.targets), len(data.test_targets)
    assert data.inputs.shape == (n_train, *shape)
    assert data.test_inputs.shape == (n_test, *shape)
    for tensor in tensors_of(data):
        assert tensor.is_contiguous()
        assert not tensor.requires_grad
    assert data.inputs.dtype == data.test_inputs.dtype == torch.float32
    if name == "polynomial":
        assert data.is_regression
        assert data.targets.dtype == data.test_targets.dtype == torch.float32
        assert data.targets.shape == (n_train, 512)
        assert data.test_targets.shape == (n_test, 512)
        return
    assert not data.is_regression
    for inputs, targets, n in (
        (data.inputs, data.targets, n_train),
        (data.test_inputs, data.test_targets, n_test),
    ):
        assert targets.dtype == torch.int64
        assert targets.shape == (n,)
        assert set(targets.tolist()) == set(range(10))
        assert inputs.min() >= 0
        assert inputs.max() <= 1
        assert inputs.max() > 0.7


@pytest.mark.parametrize("name", NAMES)
def test_flat_images_are_those_with_channels(folder, name):
    flat, shaped = load(name, folder), load(name, folder, flat=False)
    assert torch.equal(flat.inputs, shaped.inputs.flatten(1))
    assert torch.equal(flat.test_inputs, shaped.test_inputs.flatten(1))
    assert torch.equal(flat.targets, shaped.targets)
    assert flat.checksum() == shaped.checksum()


@pytest.mark.parametrize("name", NAMES)
def test_a_set_is_the_same_each_time_and_touches_no_other_generator(folder, name):
    first = load(name, folder)
    torch.manual_seed(8)
    np.random.seed(8)  # noqa: NPY002
    expected = torch.rand(1), np.random.rand()  # noqa: NPY002
    torch.manual_seed(8)
    np.random.seed(8)  # noqa: NPY002
    again = load(name, folder)
    assert (torch.rand(1), np.random.rand()) == expected  # noqa: NPY002
    assert_same_data(first, again)
    assert first.checksum() == again.checksum()
    again.inputs.add_(1)  # no memory shared with what the next one reads
    assert_same_data(first, load(name, folder))


def test_checksums_tell_sets_apart(folder):
    found = {load(name, folder).checksum() for name in NAMES}
    # With so few examples random-3000 is all of random.
    assert len(found) == len(NAMES) - 1
    assert load("mnist", folder, 100).checksum() not in found


def test_a_checksum_is_of_every_pixel_and_target(folder):
    data = load("mnist", folder, 50)
    expected = data.checksum()
    for tensor, entry, change in ((data.inputs, (49, 783), 1e-6), (data.targets, 49, 1)):
        before = tensor[entry].clone()
        tensor[entry] += change
        assert data.checksum() != expected
        tensor[entry] = before
    assert data.checksum() == expected
    data.test_inputs.zero_()
    data.test_targets.zero_()
    assert data.checksum() == expected


# --- content -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mnist", "fashion", "cifar10"])
def test_published_sets_are_their_files_divided_by_255(stored, name):
    folder, arrays = stored
    data = load(name, folder, flat=False)
    for tensor, array in zip(tensors_of(data), arrays[name], strict=True):
        if array.ndim > 1:
            array = (array.astype(np.float64) / 255).reshape(tensor.shape)
        assert_allclose(tensor.numpy(), array, rtol=0, atol=1e-7)


def test_small_images_are_means_and_not_rounded(stored):
    folder, arrays = stored
    data = load("mnist-7x7", folder, flat=False)
    matrix = composites.resizing(28, 7)
    train, labels, test, _ = arrays["mnist"]
    for tensor, images in ((data.inputs, train), (data.test_inputs, test)):
        expected = np.einsum("or,nrc,pc->nop", matrix, images / 255, matrix)
        assert_allclose(tensor[:, 0].numpy(), expected, rtol=0, atol=1e-6)
    assert_array_equal(data.targets.numpy(), labels)
    assert ((data.inputs * 255).frac() > 1e-3).float().mean() > 0.9


@pytest.mark.parametrize("name", ["mnist", "fashion"])
@pytest.mark.parametrize("which", ["same", "diff"])
def test_stacks_keep_training_and_test_examples_separate(folder, name, which):
    plain = load(name, folder, flat=False)
    stacks = load(f"{name}-stack-{which}", folder, flat=False)
    for part in ("inputs", "test_inputs"):
        originals = rows_of(getattr(plain, part)[:, 0])
        assert rows_of(getattr(stacks, part).flatten(0, 1)) <= originals
    for part in ("targets", "test_targets"):
        same = torch.equal(getattr(stacks, part), getattr(plain, part))
        assert same == (which == "same")


@pytest.mark.parametrize("name", ["mnist", "fashion"])
@pytest.mark.parametrize("which", ["same", "diff"])
def test_halves_keep_training_and_test_examples_separate(stored, name, which):
    folder, arrays = stored
    data = load(f"{name}-halves-{which}", folder, flat=False)
    matrix = composites.resizing(28, 14)
    for found, targets, images, labels in (
        (data.inputs, data.targets, *arrays[name][:2]),
        (data.test_inputs, data.test_targets, *arrays[name][2:]),
    ):
        narrow = images @ matrix.T
        narrow *= 1 / narrow.max()
        for half in (found[:, 0, :, :14], found[:, 0, :, 14:]):
            distances = np.abs(half[:, None].numpy() - narrow[None]).max(axis=(2, 3))
            assert (distances.min(axis=1) < 0.501 / 255).all()
        assert np.array_equal(targets.numpy(), labels) == (which == "same")


def test_lines_and_mnist_are_mixed(folder):
    lines, mnist = load("lines", folder), load("mnist", folder)
    both = load("lines-mnist", folder)
    for inputs, targets in (("inputs", "targets"), ("test_inputs", "test_targets")):
        found = rows_of(torch.cat([getattr(both, inputs), getattr(both, targets)[:, None]], dim=1))
        expected = set()
        for data in (lines, mnist):
            labelled = torch.cat([getattr(data, inputs), getattr(data, targets)[:, None]], dim=1)
            expected |= rows_of(labelled)
        assert found == expected


def test_separate_mixtures_have_lines_in_classes_0_to_4(folder):
    mnist = load("mnist", folder, flat=False)
    both = load("lines-mnist-sep", folder, flat=False)
    for inputs, targets in (("inputs", "targets"), ("test_inputs", "test_targets")):
        images, labels = getattr(both, inputs)[:, 0], getattr(both, targets)
        low = images[labels < 5]
        assert torch.equal(low, low[:, :1].expand_as(low))
        assert torch.equal(low[:, 0].sum(dim=1), labels[labels < 5] + 1.0)
        high = getattr(mnist, targets) >= 5
        assert rows_of(images[labels >= 5]) == rows_of(getattr(mnist, inputs)[high, 0])
        assert (labels >= 5).sum() == high.sum()


def test_training_and_test_examples_of_made_sets_differ(folder):
    for name in ("random", "polynomial"):
        data = load(name, folder)
        assert not rows_of(data.inputs) & rows_of(data.test_inputs)


def test_3000_random_images_are_the_first_ones_of_all(folder, monkeypatch):
    monkeypatch.setattr(datasets, "N_TRAIN", 3100)
    some, all_ = load("random-3000", folder), load("random", folder)
    assert len(some.inputs) == len(some.targets) == 3000
    assert torch.equal(some.inputs, all_.inputs[:3000])
    assert torch.equal(some.targets, all_.targets[:3000])
    assert torch.equal(some.test_inputs, all_.test_inputs)
    assert torch.equal(some.test_targets, all_.test_targets)


def test_made_sets_are_as_large_as_mnist(monkeypatch):
    monkeypatch.undo()
    assert (datasets.N_TRAIN, datasets.N_TEST, datasets.N_MEMORIZED) == (60_000, 10_000, 3_000)


def test_polynomials_are_of_their_inputs(folder):
    data = load("polynomial", folder)
    for inputs, outputs in ((data.inputs, data.targets), (data.test_inputs, data.test_targets)):
        x, y = inputs.double().T
        every = sum(x**a * y**b for a in range(3) for b in range(3))
        assert_allclose(outputs[:, -1], every, rtol=1e-5, atol=1e-5)


# --- fewer images --------------------------------------------------------------------------------


@pytest.mark.parametrize("images", [1, 30])
@pytest.mark.parametrize("name", [name for name in NAMES if name not in MIXED])
def test_so_many_images_are_used(folder, name, images):
    data = load(name, folder, images)
    assert len(data.inputs) == len(data.targets) == images
    assert not data.is_original


@pytest.mark.parametrize("name", ["mnist", "fashion", "cifar10", "mnist-7x7"])
def test_the_first_images_are_used_and_all_to_test(folder, name):
    some, all_ = load(name, folder, 30), load(name, folder)
    assert torch.equal(some.inputs, all_.inputs[:30])
    assert torch.equal(some.targets, all_.targets[:30])
    assert torch.equal(some.test_inputs, all_.test_inputs)
    assert torch.equal(some.test_targets, all_.test_targets)


@pytest.mark.parametrize("which", ["same", "diff"])
def test_pairs_are_of_the_images_that_are_used(folder, which):
    used = rows_of(load("fashion", folder, 15).inputs)
    stacks = load(f"fashion-stack-{which}", folder, 15, flat=False)
    assert rows_of(stacks.inputs.flatten(0, 1).flatten(1)) <= used


def test_more_images_than_there_are_is_all(folder):
    assert_same_data(load("mnist", folder, 5000), load("mnist", folder))


@pytest.mark.parametrize("images", [0, -1, -200])
@pytest.mark.parametrize("name", ["mnist", "lines", "polynomial"])
def test_no_images_is_an_error(folder, name, images):
    with pytest.raises(InputError, match=f"images: must be at least 1, got {images}"):
        load(name, folder, images)


# --- originals and errors ------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_tiny_files_are_no_originals(folder, name):
    assert load(name, folder).is_original == (name in MADE)


@pytest.mark.parametrize("name", [name for name in FROM_FILES if name != "cifar10"])
def test_sets_made_of_all_published_files_are_originals(stored, monkeypatch, name):
    folder, arrays = stored
    for source in ("mnist", "fashion"):
        checksums = {
            file: hashlib.md5(idx_bytes(array), usedforsecurity=False).hexdigest()
            for file, array in zip(IDX_FILES, arrays[source], strict=True)
        }
        monkeypatch.setitem(
            files.SOURCES, source, replace(files.SOURCES[source], checksums=checksums)
        )
    assert load(name, folder).is_original
    assert not load(name, folder, 150).is_original
    monkeypatch.undo()


@pytest.mark.parametrize("name", MADE)
def test_made_sets_need_no_files(tmp_path, folder, name):
    assert_same_data(load(name, tmp_path / "none"), load(name, folder))


@pytest.mark.parametrize("name", FROM_FILES)
def test_other_sets_say_which_files_they_lack(tmp_path, name):
    source = files.SOURCES[name.split("-")[0] if "lines" not in name else "mnist"]
    with pytest.raises(InputError) as caught:
        load(name, tmp_path)
    assert source.title in str(caught.value)
    assert source.origin in str(caught.value)


def test_a_set_needs_its_own_files_only(stored, tmp_path):
    folder, _ = stored
    shutil.copytree(folder / "fashion-mnist", tmp_path / "fashion-mnist")
    assert_same_data(load("fashion-stack-diff", tmp_path), load("fashion-stack-diff", folder))
    with pytest.raises(InputError, match="MNIST"):
        load("mnist", tmp_path)


# --- augmentation --------------------------------------------------------------------------------


class Draws:
    """Decides what augmentation draws, and notes between which bounds it would have drawn."""

    def __init__(self, monkeypatch, angles=0.0, flips=0, shifts=(0.0, 0.0)):
        self.bounds = {}
        # An angle for each image, and shifts across and down, in sides: 2 in torch's grids.
        self.uniform = {1: torch.as_tensor(angles), 2: 2 * torch.as_tensor(shifts)}
        self.flips = torch.as_tensor(flips)
        for owner, name in ((torch.Tensor, "uniform_"), (torch, "randint")):
            replacement = getattr(self, name)
            monkeypatch.setattr(owner, name, lambda *a, draw=replacement, **o: draw(*a))

    def uniform_(self, tensor, low, high):
        self.bounds["angles" if tensor.ndim == 1 else "shifts"] = low, high
        return tensor.copy_(self.uniform[tensor.ndim])

    def randint(self, high, size):
        """0 where an image is flipped, 1 where not."""
        self.bounds["flips"] = 0, high
        return (1 - self.flips).expand(size)


def pictures(n=6, channels=3, side=32, seed=0):
    """Smooth images with something different everywhere."""
    noise = np.random.default_rng(seed).random((n, channels, side, side))
    smooth = ndimage.gaussian_filter(noise, (0, 0, 1, 1))
    return torch.from_numpy((smooth - smooth.min()) / (smooth.max() - smooth.min())).float()


def moved(image, angle, flip, shift):
    """A channel turned, shifted and flipped: where each pixel comes from, one by one."""
    side = len(image)
    middle = (side - 1) / 2
    places = np.empty((2, side, side))
    for row in range(side):
        for column in range(side):
            x, y = column - middle, row - middle
            x = -x if flip else x
            across = math.cos(angle) * x - math.sin(angle) * y + shift[0] * side
            down = math.sin(angle) * x + math.cos(angle) * y + shift[1] * side
            places[:, row, column] = middle + down, middle + across
    return ndimage.map_coordinates(image, places, order=1, mode="nearest")


def test_nothing_drawn_changes_nothing(monkeypatch):
    Draws(monkeypatch)
    images = pictures()
    assert_allclose(augment.augmented(images), images, rtol=0, atol=1e-5)


def test_constants_of_zero_leave_flips_alone(monkeypatch):
    monkeypatch.setattr(augment, "MAX_ROTATION", 0.0)
    monkeypatch.setattr(augment, "MAX_SHIFT", 0.0)
    images = pictures(600, 1, 4)
    torch.manual_seed(3)
    found = augment.augmented(images)
    kept = [torch.allclose(new, old, atol=1e-5) for new, old in zip(found, images, strict=True)]
    flipped = [
        torch.allclose(new, old.flip(-1), atol=1e-5) for new, old in zip(found, images, strict=True)
    ]
    assert all(a != b for a, b in zip(kept, flipped, strict=True))
    assert stats.binomtest(sum(flipped), 600).pvalue > 1e-3


def test_flips_are_left_to_right(monkeypatch):
    flips = [0, 1, 1, 0, 1, 0]
    Draws(monkeypatch, flips=flips)
    images = pictures()
    found = augment.augmented(images)
    for new, old, flip in zip(found, images, flips, strict=True):
        assert_allclose(new, old.flip(-1) if flip else old, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("across", "down"), [(1, 0), (-1, 0), (0, 1), (0, -2), (3, -2)])
def test_shifts_by_whole_pixels_repeat_the_border(monkeypatch, across, down):
    Draws(monkeypatch, shifts=(across / 32, down / 32))
    images = pictures()
    found = augment.augmented(images)
    places = np.arange(32)
    rows, columns = np.clip(places + down, 0, 31), np.clip(places + across, 0, 31)
    expected = images.numpy()[:, :, rows][:, :, :, columns]
    assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_quarter_turns_turn(monkeypatch, degrees):
    Draws(monkeypatch, angles=math.radians(degrees))
    images = pictures()
    expected = torch.rot90(images, degrees // 90, (2, 3))
    assert_allclose(augment.augmented(images), expected, rtol=0, atol=1e-4)


def test_images_are_moved_as_by_a_loop_over_pixels(monkeypatch):
    random = np.random.default_rng(5)
    angles = random.uniform(-math.radians(15), math.radians(15), 6)
    flips = [0, 1, 0, 1, 0, 1]
    shifts = random.uniform(-0.1, 0.1, (6, 2))
    Draws(monkeypatch, torch.tensor(angles), flips, torch.tensor(shifts))
    images = pictures()
    found = augment.augmented(images)
    assert found.shape == images.shape
    assert found.dtype == torch.float32
    for number, image in enumerate(images.numpy()):
        for channel, values in enumerate(image):
            expected = moved(values, angles[number], flips[number], shifts[number])
            assert_allclose(found[number, channel], expected, rtol=0, atol=1e-4)


def test_draws_are_within_the_papers_bounds(monkeypatch):
    draws = Draws(monkeypatch)
    augment.augmented(pictures())
    assert draws.bounds["angles"] == pytest.approx((-math.pi / 12, math.pi / 12))
    assert draws.bounds["shifts"] == pytest.approx((-0.2, 0.2))
    assert draws.bounds["flips"] == (0, 2)


def test_values_stay_in_each_images_range():
    images = pictures(40)
    images[::2] = images[::2] * 0.25 + 0.5
    torch.manual_seed(1)
    found = augment.augmented(images)
    limits = images.flatten(2)
    assert (found.flatten(2).amax(2) <= limits.amax(2) + 1e-6).all()
    assert (found.flatten(2).amin(2) >= limits.amin(2) - 1e-6).all()
    plain = torch.linspace(0, 1, 40)[:, None, None, None].expand(40, 3, 32, 32)
    assert_allclose(augment.augmented(plain), plain, rtol=0, atol=1e-6)


def test_images_are_moved_each_for_itself():
    images = pictures(1).expand(30, -1, -1, -1)
    torch.manual_seed(2)
    found = augment.augmented(images)
    differences = (found[:, None] - found[None]).abs().amax((2, 3, 4))
    assert (differences + torch.eye(30) > 1e-3).all()
    changed = images.clone()
    changed[7] = 0
    torch.manual_seed(2)
    others = augment.augmented(changed)
    unchanged = torch.arange(30) != 7
    assert torch.equal(others[unchanged], found[unchanged])
    assert not others[7].any()


def test_channels_move_together():
    images = pictures(10, 1).expand(-1, 3, -1, -1)
    found = augment.augmented(images)
    assert torch.equal(found, found[:, :1].expand_as(found))


def test_augmentation_follows_the_seed_and_leaves_its_input_alone():
    images = pictures(10)
    before = images.clone()
    torch.manual_seed(4)
    first = augment.augmented(images)
    assert torch.equal(images, before)
    assert not torch.equal(first, augment.augmented(images))
    torch.manual_seed(4)
    assert torch.equal(first, augment.augmented(images))


def test_the_order_in_memory_makes_no_difference():
    images = pictures(10)
    torch.manual_seed(4)
    first = augment.augmented(images)
    torch.manual_seed(4)
    found = augment.augmented(images.to(memory_format=torch.channels_last))
    assert_allclose(found, first, rtol=0, atol=1e-6)
