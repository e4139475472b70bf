"""The published data sets' files: read exactly, and nothing else taken for them."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from paper_data import IDX_FILES, cifar_bytes, idx_bytes, patterned, write_cifar, write_idx_set

from ncut.errors import InputError
from ncut.paper import files

FASHION_AT, MNIST_AT = "zalandoresearch/fashion-mnist", "ossci-datasets"
CIFAR_AT = "cs.toronto.edu/~kriz/cifar.html"
IMAGE_BYTES = 1 + 3 * 32 * 32


def known(monkeypatch, name, contents):
    """Let files with these contents be the published ones of a data set."""
    sums = [hashlib.md5(content, usedforsecurity=False).hexdigest() for content in contents]
    checksums = dict(zip(IDX_FILES, sums, strict=True))
    monkeypatch.setitem(files.SOURCES, name, replace(files.SOURCES[name], checksums=checksums))


def assert_holds(images, arrays):
    found = (images.train, images.train_labels, images.test, images.test_labels)
    for array, expected in zip(found, arrays, strict=True):
        assert array.dtype == np.uint8
        assert_array_equal(array, expected)


def refused(name, folder):
    """The message that reading a data set ends with."""
    with pytest.raises(InputError) as caught:
        files.read(name, folder)
    return str(caught.value)


def assert_same_or_refused(folder, arrays, damaged):
    """The damage is either found, with the file named, or has no effect."""
    try:
        images = files.read("mnist", folder)
    except InputError as error:
        message = str(error)
    else:
        assert_holds(images, arrays)
        return
    assert str(damaged) in message
    assert MNIST_AT in message


def tamper(path, change):
    path.write_bytes(change(path.read_bytes()))


@pytest.fixture
def tiny(tmp_path):
    """A folder with MNIST's four files, small."""
    folder = tmp_path / "mnist"
    write_idx_set(folder, 20, 10)
    return folder


@pytest.fixture(scope="module")
def small_set(tmp_path_factory):
    """A folder with Fashion-MNIST's four files, for tests that put each back as it was."""
    folder = tmp_path_factory.mktemp("small")
    write_idx_set(folder, 3, 2)
    return folder


# --- IDX files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("gz", [False, True])
@pytest.mark.parametrize("name", ["mnist", "fashion"])
def test_arrays_are_those_written(tmp_path, name, gz):
    arrays = write_idx_set(tmp_path, 31, 17, gz=gz)
    images = files.read(name, tmp_path)
    assert_holds(images, arrays)
    assert not images.is_original


def test_entries_are_in_row_order(tmp_path):
    write_idx_set(tmp_path, 2, 2)
    numbers = bytes(n % 251 for n in range(2 * 28 * 28))
    header = bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 28, 0, 0, 0, 28])
    (tmp_path / IDX_FILES[0]).write_bytes(header + numbers)
    train = files.read("mnist", tmp_path).train
    for image, row, column in np.ndindex(2, 28, 28):
        assert train[image, row, column] == ((image * 28 + row) * 28 + column) % 251


@pytest.mark.parametrize("gz", [False, True])
def test_a_dot_may_precede_idx(tmp_path, gz):
    arrays = write_idx_set(tmp_path, 20, 10, gz=gz)
    for path in tmp_path.iterdir():
        path.rename(path.with_name(path.name.replace("-idx", ".idx")))
    assert_holds(files.read("mnist", tmp_path), arrays)


@pytest.mark.parametrize(
    ("name", "place"),
    [
        *(("mnist", place) for place in ("", "mnist", "MNIST", "MNIST/raw")),
        *(
            ("fashion", place)
            for place in ("", "fashion", "fashion-mnist", "fashion_mnist", "FashionMNIST/raw")
        ),
        *(("cifar10", place) for place in ("", "cifar10", "cifar-10", "cifar-10-batches-bin")),
    ],
)
def test_a_folder_is_the_sets_own_or_holds_it(tmp_path, name, place):
    write = write_cifar if name == "cifar10" else write_idx_set
    arrays = write(tmp_path / place, 20, 10)
    assert_holds(files.read(name, tmp_path), arrays)


def test_each_set_is_read_from_its_own_folder(tmp_path):
    fashion = write_idx_set(tmp_path / "fashion-mnist", 20, 10, seed=2)
    mnist = write_idx_set(tmp_path / "mnist", 20, 10, seed=1)
    cifar = write_cifar(tmp_path / "cifar-10-batches-bin", 20, 10)
    for name, arrays in (("mnist", mnist), ("fashion", fashion), ("cifar10", cifar)):
        assert_holds(files.read(name, tmp_path), arrays)


def test_a_sets_own_folder_precedes_files_next_to_it(tmp_path):
    write_idx_set(tmp_path, 20, 10, seed=2)
    arrays = write_idx_set(tmp_path / "mnist", 20, 10, seed=1)
    assert_holds(files.read("mnist", tmp_path), arrays)


def test_the_unpacked_file_comes_before_the_packed_one(tmp_path):
    write_idx_set(tmp_path, 20, 10, seed=2, gz=True)
    arrays = write_idx_set(tmp_path, 20, 10, seed=1)
    assert_holds(files.read("mnist", tmp_path), arrays)


@pytest.mark.parametrize("gz", [False, True])
def test_a_set_is_original_if_all_checksums_match(tmp_path, monkeypatch, gz):
    arrays = write_idx_set(tmp_path, 20, 10, gz=gz)
    known(monkeypatch, "mnist", map(idx_bytes, arrays))
    assert files.read("mnist", tmp_path).is_original


@pytest.mark.parametrize("file", IDX_FILES)
def test_one_changed_entry_makes_a_set_no_original(tiny, monkeypatch, file):
    known(monkeypatch, "mnist", [(tiny / name).read_bytes() for name in IDX_FILES])
    tamper(tiny / file, lambda content: content[:-1] + bytes([(content[-1] + 1) % 10]))
    assert not files.read("mnist", tiny).is_original


def test_all_checksums_differ():
    sums = [
        sum_ for name in ("mnist", "fashion") for sum_ in files.SOURCES[name].checksums.values()
    ]
    assert len(set(sums)) == 8
    assert all(len(bytes.fromhex(checksum)) == 16 for checksum in sums)


@pytest.mark.parametrize(
    ("asked", "lying", "title", "other", "origin"),
    [
        ("mnist", "fashion", "MNIST", "Fashion-MNIST", MNIST_AT),
        ("fashion", "mnist", "Fashion-MNIST", "MNIST", FASHION_AT),
    ],
)
@pytest.mark.parametrize("gz", [False, True])
def test_the_other_sets_files_are_recognized(
    tmp_path, monkeypatch, asked, lying, title, other, origin, gz
):
    known(monkeypatch, lying, map(idx_bytes, write_idx_set(tmp_path, 20, 10, gz=gz)))
    assert files.read(lying, tmp_path).is_original
    message = refused(asked, tmp_path)
    assert f"{tmp_path / IDX_FILES[0]}{'.gz' if gz else ''} belongs to {other}" in message
    assert f"not to {title}; put that" in message
    assert origin in message


@pytest.mark.parametrize("foreign", range(4))
def test_one_of_the_other_sets_files_is_recognized(tmp_path, monkeypatch, foreign):
    own = [idx_bytes(array) for array in write_idx_set(tmp_path, 20, 10, seed=1)]
    others = [idx_bytes(array) for array in patterned((28, 28), 20, 10, seed=2)]
    known(monkeypatch, "mnist", own)
    known(monkeypatch, "fashion", others)
    path = tmp_path / IDX_FILES[foreign]
    path.write_bytes(others[foreign])
    assert f"{path} belongs to Fashion-MNIST" in refused("mnist", tmp_path)


@pytest.mark.parametrize("gz", [False, True])
@pytest.mark.parametrize("file", IDX_FILES)
def test_a_missing_file_is_named_with_its_origin(tmp_path, file, gz):
    write_idx_set(tmp_path / "mnist", 20, 10, gz=gz)
    (tmp_path / "mnist" / (f"{file}.gz" if gz else file)).unlink()
    message = refused("mnist", tmp_path)
    assert f"{tmp_path / 'mnist' / file} is missing" in message
    assert MNIST_AT in message


def test_a_folder_in_a_files_place_is_a_missing_file(tiny):
    (tiny / IDX_FILES[2]).unlink()
    (tiny / IDX_FILES[2]).mkdir()
    assert f"{tiny / IDX_FILES[2]} is missing" in refused("mnist", tiny)


@pytest.mark.parametrize(
    ("name", "first", "origin"),
    [
        ("mnist", IDX_FILES[0], MNIST_AT),
        ("fashion", IDX_FILES[0], FASHION_AT),
        ("cifar10", "data_batch_1.bin", CIFAR_AT),
    ],
)
def test_an_empty_folder_names_file_places_and_origin(tmp_path, name, first, origin):
    (tmp_path / "unrelated.txt").write_text("nothing")
    message = refused(name, tmp_path)
    for place in (tmp_path, *(tmp_path / folder for folder in files.SOURCES[name].folders)):
        assert str(place) in message
    assert first in message
    assert origin in message


@pytest.mark.parametrize("name", files.SOURCES)
def test_no_folder_is_an_error(tmp_path, name):
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "none", tmp_path / "file"):
        message = refused(name, path)
        assert f"{path} is no folder" in message
        assert files.SOURCES[name].origin in message


@pytest.mark.parametrize("file", IDX_FILES)
@pytest.mark.parametrize("position", range(4))
def test_each_byte_of_the_magic_number_counts(tiny, file, position):
    original = (tiny / file).read_bytes()
    for value in {0, 1, 2, 3, 4, 8, 9, 13, 255} - {original[position]}:
        changed = original[:position] + bytes([value]) + original[position + 1 :]
        (tiny / file).write_bytes(changed)
        message = refused("mnist", tiny)
        assert f"{tiny / file} is no IDX file of bytes with" in message
        assert files.SOURCES["mnist"].checksums[file] in message


@given(file=st.sampled_from(IDX_FILES), position=st.integers(0, 15), value=st.integers(0, 255))
def test_no_byte_of_a_header_can_be_another(small_set, file, position, value):
    path = small_set / file
    content = path.read_bytes()
    position %= 16 if "images" in file else 8
    assume(content[position] != value)
    try:
        path.write_bytes(content[:position] + bytes([value]) + content[position + 1 :])
        assert str(path) in refused("fashion", small_set)
    finally:
        path.write_bytes(content)


@given(data=st.data(), file=st.sampled_from(IDX_FILES))
def test_no_file_can_be_cut_or_go_on(small_set, data, file):
    path = small_set / file
    content = path.read_bytes()
    last = len(content) - 1
    cut = content[: data.draw(st.integers(0, last) | st.integers(0, min(17, last)))]
    longer = content + data.draw(st.binary(min_size=1, max_size=900))
    try:
        for wrong in (cut, longer):
            path.write_bytes(wrong)
            message = refused("fashion", small_set)
            assert str(path) in message
            assert FASHION_AT in message
    finally:
        path.write_bytes(content)


def test_the_message_counts_bytes(tiny):
    tamper(tiny / IDX_FILES[0], lambda content: content[:-1])
    message = refused("mnist", tiny)
    assert "(20, 28, 28), which needs 15680 bytes, and holds 15679" in message


@pytest.mark.parametrize(
    "shape",
    [(0, 28, 28), (-1, 28, 28), (20, -28, -28), (19, 28, 28), (21, 28, 28), (-(2**31), 28, 28),
     (2**31 - 1, 2**31 - 1, 2**31 - 1), (2**30, 2**30, 16), (1, 0, 5)],
)  # fmt: skip
def test_a_header_with_another_shape_is_refused(tiny, shape):
    images = np.zeros((20, 28, 28), np.uint8)
    (tiny / IDX_FILES[0]).write_bytes(idx_bytes(images, shape))
    message = refused("mnist", tiny)
    assert str(shape) in message
    assert str(tiny / IDX_FILES[0]) in message


@pytest.mark.parametrize("file", [IDX_FILES[0], IDX_FILES[2]])
@pytest.mark.parametrize("shape", [(27, 28), (28, 27), (14, 56), (56, 14), (784, 1), (1, 784)])
def test_other_sides_are_refused(tiny, file, shape):
    images = np.zeros((20, *shape), np.uint8)
    (tiny / file).write_bytes(idx_bytes(images))
    message = refused("mnist", tiny)
    assert f"{tiny / file} holds images of {shape[0]} x {shape[1]} pixels" in message


@pytest.mark.parametrize("size", [0, -20, 19, 21, 2**31 - 1])
def test_other_numbers_of_labels_than_bytes_are_refused(tiny, size):
    labels = np.zeros(20, np.uint8)
    (tiny / IDX_FILES[1]).write_bytes(idx_bytes(labels, (size,)))
    assert f"({size},)" in refused("mnist", tiny)


def test_sizes_are_read_from_the_big_end(tiny):
    tamper(tiny / IDX_FILES[1], lambda content: content[:4] + content[4:8][::-1] + content[8:])
    assert str(20 << 24) in refused("mnist", tiny)


def test_images_and_labels_cannot_change_places(tiny):
    images, labels = ((tiny / file).read_bytes() for file in IDX_FILES[:2])
    (tiny / IDX_FILES[0]).write_bytes(labels)
    assert "with 3 axes" in refused("mnist", tiny)
    (tiny / IDX_FILES[0]).write_bytes(images)
    (tiny / IDX_FILES[1]).write_bytes(images)
    assert "with 1 axes" in refused("mnist", tiny)


@pytest.mark.parametrize(("file", "part", "n"), [(1, "train", 20), (3, "t10k", 10)])
@pytest.mark.parametrize("difference", [-1, 1])
def test_counts_of_images_and_labels_must_agree(tiny, file, part, n, difference):
    labels = np.zeros(n + difference, np.uint8)
    (tiny / IDX_FILES[file]).write_bytes(idx_bytes(labels))
    message = refused("mnist", tiny)
    assert f"{n} images but {n + difference} labels in its {part} files" in message
    assert str(tiny) in message


@pytest.mark.parametrize("file", [IDX_FILES[1], IDX_FILES[3]])
@pytest.mark.parametrize("label", [10, 11, 128, 255])
def test_labels_above_nine_are_refused(tiny, file, label):
    tamper(tiny / file, lambda content: content[:-1] + bytes([label]))
    assert f"{tiny / file} has label {label}" in refused("mnist", tiny)
    tamper(tiny / file, lambda content: content[:-1] + bytes([9]))
    files.read("mnist", tiny)


# --- gzipped files -------------------------------------------------------------------------------


@given(position=st.floats(0, 1, exclude_max=True), mask=st.integers(1, 255))
def test_damage_in_a_gzipped_file_never_changes_what_is_read(tmp_path_factory, position, mask):
    folder = tmp_path_factory.getbasetemp() / "damaged-gz"
    arrays = write_idx_set(folder, 2, 1, gz=True)
    path = folder / f"{IDX_FILES[0]}.gz"
    content = bytearray(path.read_bytes())
    content[int(position * len(content))] ^= mask
    path.write_bytes(content)
    assert_same_or_refused(folder, arrays, path)


@pytest.mark.parametrize("position", range(18))
def test_each_byte_of_gzips_header_may_be_damaged(tmp_path, position):
    arrays = write_idx_set(tmp_path, 2, 1, gz=True)
    path = tmp_path / f"{IDX_FILES[1]}.gz"
    content = path.read_bytes()
    for mask in (1, 2, 4, 8, 16, 32, 64, 128, 255):
        changed = bytearray(content)
        changed[position] ^= mask
        path.write_bytes(changed)
        assert_same_or_refused(tmp_path, arrays, path)


@pytest.mark.parametrize("length", [0, 1, 2, 9, 10, 11, 18, 200, -9, -8, -4, -1])
def test_a_cut_gzipped_file_is_refused(tmp_path, length):
    write_idx_set(tmp_path, 20, 10, gz=True)
    path = tmp_path / f"{IDX_FILES[2]}.gz"
    tamper(path, lambda content: content[:length])
    message = refused("fashion", tmp_path)
    assert str(path) in message
    assert files.SOURCES["fashion"].checksums[IDX_FILES[2]] in message


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content + b"more",
        lambda content: content + gzip.compress(b"more"),
        lambda content: gzip.compress(content),
        lambda content: gzip.decompress(content),
        lambda content: b"\0" * len(content),
    ],
    ids=["trailing", "two members", "packed twice", "not packed", "zeros"],
)
def test_damaged_gzip_files_are_refused(tmp_path, change):
    write_idx_set(tmp_path, 20, 10, gz=True)
    path = tmp_path / f"{IDX_FILES[0]}.gz"
    tamper(path, change)
    assert str(path) in refused("mnist", tmp_path)


def test_a_gzipped_file_without_its_ending_is_refused(tmp_path):
    write_idx_set(tmp_path, 20, 10, gz=True)
    (tmp_path / f"{IDX_FILES[0]}.gz").rename(tmp_path / IDX_FILES[0])
    assert "no IDX file" in refused("mnist", tmp_path)


# --- CIFAR-10's batches --------------------------------------------------------------------------


def test_batches_follow_one_another(tmp_path):
    arrays = write_cifar(tmp_path, 53, 12)
    images = files.read("cifar10", tmp_path)
    assert_holds(images, arrays)
    assert not images.is_original


def test_pixels_are_planes_of_red_green_and_blue(tmp_path):
    write_cifar(tmp_path, 10, 10)
    content = bytes([7, *(n % 249 for n in range(3072)), 2, *((n + 5) % 249 for n in range(3072))])
    (tmp_path / "test_batch.bin").write_bytes(content)
    images = files.read("cifar10", tmp_path)
    assert images.test_labels.tolist() == [7, 2]
    for image, channel, row, column in np.ndindex(2, 3, 32, 32):
        place = (channel * 32 + row) * 32 + column
        assert images.test[image, channel, row, column] == (place + 5 * image) % 249


def test_batches_may_be_gzipped(tmp_path):
    arrays = write_cifar(tmp_path, 20, 10)
    for path in list(tmp_path.iterdir()):
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert_holds(files.read("cifar10", tmp_path), arrays)


@pytest.mark.parametrize("kept", [(1,), (2,), (5, 1), (2, 3, 4)])
def test_some_of_the_batches_are_part_of_the_set(tmp_path, kept):
    train, labels, test, test_labels = write_cifar(tmp_path, 50, 10)
    for batch in set(range(1, 6)) - set(kept):
        (tmp_path / f"data_batch_{batch}.bin").unlink()
    chosen = np.isin(np.arange(50) // 10 + 1, kept)
    images = files.read("cifar10", tmp_path)
    assert_holds(images, (train[chosen], labels[chosen], test, test_labels))
    assert not images.is_original


@pytest.mark.parametrize("n_batches", [1, 4, 5])
def test_five_whole_batches_are_the_original(tmp_path, monkeypatch, n_batches):
    # Of images of a pixel, lest the test write as much as the data set has.
    monkeypatch.setattr(files, "CIFAR_SHAPE", (3, 1, 1))
    train, labels, *test = patterned((3, 1, 1), 10_000, 10_000, seed=5)
    for batch in range(1, n_batches + 1):
        (tmp_path / f"data_batch_{batch}.bin").write_bytes(cifar_bytes(train, labels))
    (tmp_path / "test_batch.bin").write_bytes(cifar_bytes(*test))
    assert files.read("cifar10", tmp_path).is_original == (n_batches == 5)
    tamper(tmp_path / "test_batch.bin", lambda content: content[:-4])
    assert not files.read("cifar10", tmp_path).is_original


@pytest.mark.parametrize("file", ["data_batch_1.bin", "data_batch_4.bin", "test_batch.bin"])
@pytest.mark.parametrize(
    "length", [0, 1, IMAGE_BYTES - 1, IMAGE_BYTES + 1, 2 * IMAGE_BYTES - 1, 2 * IMAGE_BYTES + 1]
)
def test_a_batch_holds_whole_images(tmp_path, file, length):
    write_cifar(tmp_path, 20, 10)
    (tmp_path / file).write_bytes(bytes(length))
    message = refused("cifar10", tmp_path)
    assert f"{tmp_path / file} has {length} bytes, no multiple of {IMAGE_BYTES}" in message
    assert CIFAR_AT in message


@pytest.mark.parametrize("file", ["data_batch_1.bin", "data_batch_5.bin", "test_batch.bin"])
@pytest.mark.parametrize("label", [10, 255])
def test_labels_of_batches_above_nine_are_refused(tmp_path, file, label):
    write_cifar(tmp_path, 20, 10)
    start = IMAGE_BYTES
    tamper(tmp_path / file, lambda content: content[:start] + bytes([label]) + content[start + 1 :])
    assert f"{tmp_path / file} has label {label}" in refused("cifar10", tmp_path)


def test_a_missing_test_batch_is_named_with_its_origin(tmp_path):
    write_cifar(tmp_path, 20, 10)
    (tmp_path / "test_batch.bin").unlink()
    message = refused("cifar10", tmp_path)
    assert f"{tmp_path / 'test_batch.bin'} is missing" in message
    assert CIFAR_AT in message


def test_a_set_without_training_batches_is_refused(tmp_path):
    write_cifar(tmp_path / "cifar10", 20, 10)
    for batch in range(1, 6):
        (tmp_path / "cifar10" / f"data_batch_{batch}.bin").unlink()
    message = refused("cifar10", tmp_path)
    assert f"{tmp_path / 'cifar10' / 'data_batch_1.bin'} is missing" in message
    assert CIFAR_AT in message


def test_a_damaged_gzipped_batch_is_refused(tmp_path):
    write_cifar(tmp_path, 20, 10)
    (tmp_path / "data_batch_2.bin").unlink()
    packed = gzip.compress(bytes(IMAGE_BYTES))
    (tmp_path / "data_batch_2.bin.gz").write_bytes(packed[:-3])
    message = refused("cifar10", tmp_path)
    assert str(tmp_path / "data_batch_2.bin.gz") in message
    assert CIFAR_AT in message
