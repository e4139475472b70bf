"""Refusals of every compiled kernel, and no write outside its arrays."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kernel_calls import (
    ALSO_ACCEPTED,
    ANY_LENGTH,
    ARRAYS,
    INPUTS,
    KERNELS,
    OUTPUTS,
    guarded,
    guards_intact,
)

from ncut import _core


def refuse(
    kernel: str, key: str, wrong: Any, errors: tuple[type[Exception], ...] = (TypeError,)
) -> None:
    """The call with one wrong argument raises, and leaves all outputs as they were."""
    make, outputs = KERNELS[kernel]
    arguments = make()
    arguments[key] = wrong
    before = {name: np.array(arguments[name]) for name in outputs}
    with pytest.raises(errors):
        getattr(_core, kernel)(**arguments)
    for name in outputs:
        np.testing.assert_array_equal(np.array(arguments[name]), before[name])


def keys(kernel: str, pairs: Collection[tuple[str, str]] = ARRAYS) -> list[str]:
    """The arguments of a kernel among pairs of a kernel and an argument."""
    return [key for name, key in pairs if name == kernel]


def test_every_kernel_is_covered() -> None:
    public = {name for name in dir(_core) if not name.startswith("_")}
    without_arrays = {"build", "instruction_sets", "use_instruction_set", "Source"}  # below
    assert public - without_arrays == set(KERNELS)


@pytest.mark.parametrize("kernel", KERNELS)
def test_valid_calls_write_their_outputs_and_nothing_around_them(kernel: str) -> None:
    make, outputs = KERNELS[kernel]
    arguments = make()
    inputs = {
        name: value.copy()
        for name, value in arguments.items()
        if isinstance(value, np.ndarray) and name not in outputs
    }
    plain = make()
    getattr(_core, kernel)(**plain)
    surroundings = {}
    for name in outputs:
        arguments[name], surroundings[name] = guarded(arguments[name])
    getattr(_core, kernel)(**arguments)
    for name in outputs:
        assert guards_intact(surroundings[name])
        np.testing.assert_array_equal(arguments[name], plain[name])
    assert not outputs or any((plain[name] != make()[name]).any() for name in outputs)
    for name, value in inputs.items():
        np.testing.assert_array_equal(arguments[name], value)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dtype", [np.longdouble, np.complex128, np.int8, np.uint64, object, ">f8"])
def test_wrong_dtype(kernel: str, dtype: Any) -> None:
    for key in keys(kernel):
        refuse(kernel, key, KERNELS[kernel][0]()[key].astype(dtype))


@pytest.mark.parametrize("kernel", KERNELS)
def test_numbers_at_odd_addresses(kernel: str) -> None:
    for key in keys(kernel):
        array = KERNELS[kernel][0]()[key]
        odd = np.frombuffer(bytearray(array.nbytes + 1), np.uint8)[1:].view(array.dtype)
        odd = odd.reshape(array.shape)
        odd[...] = array
        assert not odd.flags.aligned
        refuse(kernel, key, odd)


@pytest.mark.parametrize("place", [2**64, None, "1", 1.5])
def test_blocks_at_invalid_positions_are_refused(place: Any) -> None:
    for kernel in ("multiply", "update_eigenvectors", "refine_half"):
        ((block, _, col),) = KERNELS[kernel][0]()["blocks"]
        refuse(kernel, "blocks", [(block, place, col)])
        refuse(kernel, "blocks", [(block, col, place)])


@pytest.mark.parametrize("kernel", KERNELS)
def test_no_conversion_between_the_types_that_kernels_know(kernel: str) -> None:
    for key in keys(kernel, [pair for pair in ARRAYS if pair not in ALSO_ACCEPTED]):
        array = KERNELS[kernel][0]()[key]
        other = {"f4": "f8", "f8": "f4", "i4": "i8", "i8": "i4"}[array.dtype.str[1:]]
        refuse(kernel, key, array.astype(other))


@pytest.mark.parametrize("kernel", KERNELS)
def test_strided(kernel: str) -> None:
    for key in keys(kernel):
        array = KERNELS[kernel][0]()[key]
        wide = np.repeat(array, 2, axis=-1)
        refuse(kernel, key, wide[..., ::2])
        refuse(kernel, key, array[::-1])
        np.testing.assert_array_equal(wide[..., ::2], array)


@pytest.mark.parametrize(("kernel", "key"), [("kmeans", "points"), ("add_cut_dense", "weights")])
def test_row_strided_matrix(kernel: str, key: str) -> None:
    refuse(kernel, key, np.repeat(KERNELS[kernel][0]()[key], 2, axis=0)[::2])


@pytest.mark.parametrize("kernel", KERNELS)
def test_fortran_order(kernel: str) -> None:
    for key in keys(kernel):
        array = KERNELS[kernel][0]()[key]
        if array.ndim == 2:
            refuse(kernel, key, np.asfortranarray(array))


@pytest.mark.parametrize("kernel", KERNELS)
def test_read_only_output(kernel: str) -> None:
    for key in keys(kernel, OUTPUTS):
        array = KERNELS[kernel][0]()[key]
        array.flags.writeable = False
        refuse(kernel, key, array, (ValueError, TypeError))


@pytest.mark.parametrize("kernel", KERNELS)
def test_read_only_inputs_are_fine(kernel: str) -> None:
    for key in keys(kernel, INPUTS):
        arguments = KERNELS[kernel][0]()
        arguments[key].flags.writeable = False
        getattr(_core, kernel)(**arguments)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("change", [-1, 1])
def test_wrong_length(kernel: str, change: int) -> None:
    for key in keys(kernel):
        if change not in ANY_LENGTH.get((kernel, key), ()):
            refuse_length(kernel, key, change)


def refuse_length(kernel: str, key: str, change: int) -> None:
    make, outputs = KERNELS[kernel]
    array = make()[key]
    wrong = array[:change] if change < 0 else np.concatenate([array, array[-1:]])
    arguments = make() | {key: wrong}
    surroundings = {}
    for name in outputs:
        arguments[name], surroundings[name] = guarded(arguments[name])
    with pytest.raises(ValueError, match=r"must|needs|reaches|more|indices"):
        getattr(_core, kernel)(**arguments)
    assert all(guards_intact(around) for around in surroundings.values())


@pytest.mark.parametrize("kernel", [name for name in KERNELS if name != "scan"])
def test_wrong_number_of_dimensions(kernel: str) -> None:
    for key in keys(kernel):
        array = KERNELS[kernel][0]()[key]
        refuse(kernel, key, array[None], (ValueError, TypeError))
        refuse(kernel, key, np.array(array.flat[0]), (ValueError, TypeError))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("wrong", [None, 1.0, "abc", [[1.0, 2.0], [3.0, 4.0]]])
def test_not_an_array(kernel: str, wrong: Any) -> None:
    for key in keys(kernel):
        if (kernel, key, wrong) != ("normalize_neurons", "bias", None):  # they may have no bias
            refuse(kernel, key, wrong)


@pytest.mark.parametrize("kernel", [k for k, (make, _) in KERNELS.items() if "seed" in make()])
@pytest.mark.parametrize(
    ("key", "wrong"),
    [("seed", -1), ("seed", 2**64), ("seed", 0.5), ("stream", -1), ("stream", 2**32)],
)
def test_random_stream_out_of_range(kernel: str, key: str, wrong: Any) -> None:
    refuse(kernel, key, wrong)


@pytest.mark.parametrize(
    ("key", "wrong"),
    [
        ("n_clusters", 0),
        ("n_clusters", 10),
        ("n_clusters", -1),
        ("n_init", 0),
        ("max_iterations", 0),
        ("max_iterations", -3),
        ("points", np.zeros((9, 0), np.float32)),
    ],
)
def test_kmeans_refuses(key: str, wrong: Any) -> None:
    refuse("kmeans", key, wrong, (ValueError,))


@pytest.mark.parametrize(
    ("key", "wrong"),
    [
        ("n_cols", -1),
        ("n_cols", 1),  # four positions for five entries
        ("triangle", True),  # not square
        ("indptr", np.zeros(0, np.int32)),
    ],
)
def test_random_pattern_refuses(key: str, wrong: Any) -> None:
    refuse("random_pattern", key, wrong, (ValueError,))


@pytest.mark.parametrize("kernel", ["add_cut_dense", "add_cut_sparse"])
@pytest.mark.parametrize("key", ["row_labels", "col_labels"])
@pytest.mark.parametrize("label", [2, -2, 2**31 - 1, -(2**31)])
def test_cut_refuses_labels_out_of_range(kernel: str, key: str, label: int) -> None:
    labels = KERNELS[kernel][0]()[key]
    labels[-1] = label
    refuse(kernel, key, labels, (ValueError,))


def test_draw_kde_needs_a_sample() -> None:
    refuse("draw_kde", "sample", np.zeros(0), (ValueError,))


@pytest.mark.parametrize("kernel", ["fill_symmetric_dense", "fill_symmetric_sparse"])
@pytest.mark.parametrize(
    ("key", "wrong"), [("first_row", -1), ("first_row", 4), ("first_col", -1), ("first_col", 5)]
)
def test_fill_refuses_a_block_outside_the_matrix(kernel: str, key: str, wrong: int) -> None:
    refuse(kernel, key, wrong, (ValueError,))


@pytest.mark.parametrize("kernel", ["fill_symmetric_dense", "fill_symmetric_sparse"])
def test_fill_never_writes_beyond_its_outputs(kernel: str) -> None:
    arguments = KERNELS[kernel][0]()
    arguments["indices"], around_indices = guarded(arguments["indices"][:-2])
    arguments["data"], around_data = guarded(arguments["data"][:-2])
    with pytest.raises(ValueError, match="indices"):
        getattr(_core, kernel)(**arguments)
    assert guards_intact(around_indices)
    assert guards_intact(around_data)


OVERFLOW = """
import numpy as np
from ncut import _core
block, weights, n = np.ones((2, 2)), np.ones((2, 2)), 4
empty, none = np.empty(0, np.int32), np.empty(0)
x = np.ones((n, 16))
calls = {{
    "fill": lambda row, col: _core.fill_symmetric_dense(
        block, row, col, np.zeros(n, np.int64), np.zeros(8, np.int32), np.zeros(8)),
    "connect": lambda row, col: _core.connect_dense(block, row, col, np.arange(n)),
    "multiply": lambda row, col: _core.multiply(
        [(block, row, col)], empty, empty, none, x, np.ones(n), 0, n, x.copy(), 1),
    "refine": lambda row, col: _core.refine(
        [(block, row, col)], empty, empty, none, np.ones(n), 2, 3, x.copy(),
        np.ones((3, 2)), np.array([0, 1, 0, 1], np.int32)),
}}
for row, col in [({big}, 0), (0, {big})]:
    try:
        calls["{kernel}"](row, col)
    except ValueError:
        continue
    raise SystemExit(f"accepted {{row}}, {{col}}")
"""


@pytest.mark.parametrize("kernel", ["fill", "connect", "multiply", "refine"])
@pytest.mark.parametrize("big", [2**62, 2**63 - 1])
def test_offsets_that_overflow_are_refused(kernel: str, big: int) -> None:
    # In a process of its own, which a write to a wild address cannot take the tests down with.
    code = OVERFLOW.format(big=big, kernel=kernel)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-500:]


PRODUCTS = ["multiply", "multiply_half", "multiply_bfloat16", "refine", "refine_half"]


@pytest.mark.parametrize("kernel", PRODUCTS)
def test_products_refuse_blocks(kernel: str) -> None:
    ((weights, row, col),) = KERNELS[kernel][0]()["blocks"]
    # Beside blocks of 16 bits those of the vectors' own type are allowed.
    other = np.float64 if weights.itemsize == 2 else np.float32
    for wrong in (
        weights.astype(other),
        np.asfortranarray(weights),
        np.repeat(weights, 2, axis=1)[:, ::2],
        weights.tolist(),
        None,
    ):
        refuse(kernel, "blocks", [(wrong, row, col)])
    for wrong in (weights[0], weights[None]):
        refuse(kernel, "blocks", [(wrong, row, col)], (ValueError, TypeError))
    for wrong in ([(weights, row)], [weights], [(weights, row, col, 0)], weights, None, [None]):
        refuse(kernel, "blocks", wrong, (TypeError, RuntimeError))
    for place in ((-1, 4), (0, -1), (4, 4), (0, 5), (7, 7)):
        refuse(kernel, "blocks", [(weights, *place)], (ValueError,))


@pytest.mark.parametrize("kernel", PRODUCTS[:3])
@pytest.mark.parametrize(
    ("key", "wrong"),
    [
        ("first", -1),
        ("last", 0),
        ("last", 8),
        ("x", np.zeros((7, 15))),
        ("x", np.zeros((7, 32))),
        ("y", np.zeros((7, 32))),
    ],
)
def test_multiply_refuses(kernel: str, key: str, wrong: Any) -> None:
    refuse(kernel, key, wrong, (ValueError,))


@pytest.mark.parametrize("kernel", PRODUCTS[3:])
@pytest.mark.parametrize(
    ("key", "wrong"),
    [
        ("k", 0),
        ("k", 17),
        ("k", -1),
        ("k", 1),
        ("totals", np.ones((3, 1))),
        ("totals", np.ones((2, 2))),
        ("totals", np.ones(6)),
    ],
)
def test_refine_refuses(kernel: str, key: str, wrong: Any) -> None:
    refuse(kernel, key, wrong, (ValueError,))


@pytest.mark.parametrize("label", [2, -1, 2**31 - 1])
def test_refine_refuses_labels_out_of_range(label: int) -> None:
    labels = KERNELS["refine"][0]()["labels"]
    labels[3] = label
    refuse("refine", "labels", labels, (ValueError,))


@pytest.mark.parametrize("kernel", KERNELS)
def test_two_threads_do_what_one_does(kernel: str) -> None:
    make, outputs = KERNELS[kernel]

    def call(number: int) -> list[Any]:
        arguments = make()
        if "seed" in arguments:
            arguments["seed"] = number
        returned = getattr(_core, kernel)(**arguments)
        return [returned, *(arguments[name] for name in outputs)]

    serial = [call(number) for number in range(64)]
    with ThreadPoolExecutor(2) as pool:
        parallel = list(pool.map(call, range(64)))
    for ours, expected in zip(parallel, serial, strict=True):
        assert ours[0] == expected[0]
        for one, other in zip(ours[1:], expected[1:], strict=True):
            np.testing.assert_array_equal(one, other)


def test_the_build_describes_itself() -> None:
    compiler, instructions = _core.build()
    assert compiler.split()[0] in ("GCC", "Clang")
    assert instructions


def source(**changed: Any) -> Any:
    """A network of two layers with one block, or the error that a wrong argument raises."""
    arguments: dict[str, Any] = {
        "source": 0, "target": 1, "substream": 0, "weights": np.ones((4, 3), np.float32)
    }  # fmt: skip
    made = _core.Source([4, 3], [0, 1])
    made.add_dense(**{**arguments, **changed})
    return made


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"weights": np.ones((4, 3))}, TypeError),
        ({"weights": np.ones((3, 4), np.float32).T}, TypeError),
        ({"weights": np.ones(12, np.float32)}, ValueError),
        ({"weights": np.ones((3, 3), np.float32)}, ValueError),
        ({"source": 2}, ValueError),
        ({"target": -1}, ValueError),
    ],
)
def test_a_source_refuses_blocks_that_do_not_fit(
    changed: dict[str, Any], error: type[Exception]
) -> None:
    source()
    with pytest.raises(error):
        source(**changed)


@pytest.mark.parametrize(
    "changed",
    [
        {"indices": np.array([0, 5, 1], np.int32)},
        {"indices": np.array([0, -1, 1], np.int32)},
        {"indptr": np.array([0, 2, 1, 2, 3], np.int32)},
        {"indptr": np.array([1, 1, 2, 2, 3], np.int32)},
        {"indptr": np.array([0, 1, 2, 2, 9], np.int32)},
        {"n_cols": 2},
    ],
)
def test_a_source_refuses_indices_out_of_range(changed: dict[str, Any]) -> None:
    arguments: dict[str, Any] = {
        "source": 0, "target": 1, "substream": 0, "n_cols": 3,
        "indptr": np.array([0, 1, 2, 2, 3], np.int32), "indices": np.array([0, 2, 1], np.int32),
        "values": np.ones(3, np.float32),
    }  # fmt: skip
    _core.Source([4, 3], []).add_sparse(**arguments)
    with pytest.raises(ValueError, match=r"must|not"):
        _core.Source([4, 3], []).add_sparse(**{**arguments, **changed})


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"null": "tied"}, "null"),
        ({"k": 1}, "k, n_init"),
        ({"n_init": 0}, "k, n_init"),
        ({"kmeans_streams": []}, "kmeans_streams"),
        ({"dsyevd": None}, "capsule"),
        ({"dsyevd": "dsyevd"}, "capsule"),
        ({"start": np.ones((3, 16))}, "incompatible"),
    ],
)
def test_a_source_refuses_options_that_it_does_not_have(
    changed: dict[str, Any], match: str
) -> None:
    from scipy.linalg import cython_lapack

    capsules = cython_lapack.__pyx_capi__
    options: dict[str, Any] = {
        "null": "layer", "stream": 0, "start": np.ones((3, 16), np.float32), "k": 2, "n_init": 1,
        "max_iterations": 5, "tolerance": 1e-4, "max_passes": 5, "seed": 1, "kmeans_streams": [0],
        "refine": False, "residual": 1e-4, "max_products": 50, "dsyevd": capsules["dsyevd"],
        "n_threads": 1,
    }  # fmt: skip
    assert source().measure(**options) is None  # too small a graph: left to the reference
    with pytest.raises((TypeError, ValueError, RuntimeError), match=match):
        source().measure(**{**options, **changed})
    with pytest.raises(ValueError, match="dsyevd"):
        source().measure(**{**options, "dsyevd": capsules["dsyev"]})
    for sizes in ([], [0], [3, 3]):  # nothing to cluster
        empty = _core.Source(sizes, [])
        if len(sizes) > 1:
            empty.add_dense(0, 1, 0, np.zeros((3, 3), np.float32))
        assert empty.measure(**options) is None
        orders = [np.empty(0, np.int64)] * len(sizes)
        names = ("start", "k", "residual", "max_products", "dsyevd", "n_threads")
        assert empty.embed(orders=orders, **{name: options[name] for name in names}) is None
    for too_large in (-1, 2**31):
        with pytest.raises(ValueError, match="sizes"):
            _core.Source([too_large], [])


def test_rows_that_end_at_the_largest_index(tmp_path: Path) -> None:
    """An empty row behind 2^31 - 1 entries, which are holes of a file that nothing reads."""
    last = 2**31 - 1
    path = tmp_path / "holes"
    with path.open("wb") as file:
        file.truncate(4 * last)
    for weight in (np.float32, np.float64):
        with path.open("r+b") as file:
            file.truncate(last * np.dtype(weight).itemsize)
        indices = np.memmap(path, np.int32, "r", shape=(last,))
        values = np.memmap(path, weight, "r", shape=(last,))
        x, y = np.ones((1, 16), weight), np.ones((1, 16), weight)
        indptr = np.array([last, last], np.int32)
        _core.multiply(
            [], indptr, np.asarray(indices), np.asarray(values), x, np.ones(1, weight), 0, 1, y, 1
        )
        assert not y.any()
