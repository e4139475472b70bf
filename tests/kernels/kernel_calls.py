"""A valid call of every compiled kernel, for tests to spoil."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from ml_dtypes import bfloat16
from samples import as_csr

Arguments = dict[str, Any]

ROWS, COLS = 4, 3
N = ROWS + COLS
GUARD = 32


def _weights() -> np.ndarray:
    return np.random.default_rng(11).random((ROWS, COLS)) + 0.1


def _dense() -> Arguments:
    return {"weights": _weights()}


def _sparse() -> Arguments:
    matrix = as_csr(_weights())
    return {
        "indptr": matrix.indptr,
        "indices": matrix.indices,
        "values": matrix.data,
        "n_cols": COLS,
    }


def _counts() -> Arguments:
    return {"row_counts": np.zeros(ROWS, np.int64), "col_counts": np.zeros(COLS, np.int64)}


def _degrees() -> Arguments:
    return {"row_degrees": np.zeros(ROWS), "col_degrees": np.zeros(COLS)}


def _cut() -> Arguments:
    return {
        "row_labels": np.array([0, 1, 0, 1], np.int32),
        "col_labels": np.array([1, 0, 1], np.int32),
        "volume": np.zeros(2),
        "cut": np.zeros(2),
    }


def _links() -> Arguments:
    return {name: _cut()[name] for name in ("row_labels", "col_labels")} | {
        "k": 2,
        "row_links": np.zeros((ROWS, 3)),
        "col_links": np.zeros((COLS, 3)),
    }


def _squares() -> Arguments:
    return {name: _cut()[name] for name in ("row_labels", "col_labels")} | {"sums": np.zeros(2)}


def _fill() -> Arguments:
    lengths = [COLS] * ROWS + [ROWS] * COLS
    return {
        "first_row": 0,
        "first_col": ROWS,
        "cursor": np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64),
        "indices": np.zeros(2 * ROWS * COLS, np.int32),
        "data": np.zeros(2 * ROWS * COLS),
    }


def _fill_sparse() -> Arguments:
    block = _sparse()
    block["block_indices"] = block.pop("indices")
    return block | _fill()


def _connect() -> Arguments:
    return {"first_row": 0, "first_col": ROWS, "parent": np.arange(N, dtype=np.int64)}


def _product_blocks(dtype: Any, wide: Any) -> Arguments:
    """A dense block, and a CSR matrix that holds both halves of another."""
    dense = _weights().astype(dtype).view(np.uint16 if dtype == bfloat16 else dtype)
    upper = np.zeros((N, N))
    upper[0, ROWS] = upper[1, 2] = 0.5
    matrix = as_csr((upper + upper.T).astype(wide))
    return {
        "blocks": [(dense, 0, ROWS)],
        "indptr": matrix.indptr,
        "indices": matrix.indices,
        "values": matrix.data,
    }


def _multiply(dtype: Any, wide: Any) -> Arguments:
    rng = np.random.default_rng(13)
    return _product_blocks(dtype, wide) | {
        "x": rng.random((N, 16)),
        "scale": rng.random(N),
        "first": 1,
        "last": N,
        "y": np.zeros((N, 16)),
        "n_threads": 2,
    }


def _refine(dtype: Any, wide: Any) -> Arguments:
    blocks = _product_blocks(dtype, wide)
    A = np.zeros((N, N))
    A[:ROWS, ROWS:] = _weights().astype(dtype).astype(float)
    A[0, ROWS] += 0.5
    A[1, 2] += 0.5
    A = A + A.T
    labels = np.array([0, 1, 0, 1, 0, 0, 1], np.int32)
    links = np.zeros((N, 16))
    links[:, :2] = np.stack([A[:, labels == c].sum(axis=1) for c in range(2)], axis=1)
    inner = links[np.arange(N), labels]
    return blocks | {
        "degrees": A.sum(axis=1),
        "k": 2,
        "max_passes": 5,
        "links": links,
        "totals": np.stack([np.bincount(labels, w, 2) for w in (inner, A.sum(axis=1), None)]),
        "labels": labels,
    }


def _orthonormalize() -> Arguments:
    rng = np.random.default_rng(14)
    against = np.linalg.qr(rng.normal(size=(40, 5)))[0].copy()
    block = rng.normal(size=(40, 16))
    return {
        "block": block,
        "against": against,
        "n_columns": 5,
        "inside": against.T @ block,
        "out": np.zeros((40, 16)),
        "factor": np.zeros((16, 16)),
    }


def _sinkhorn(n: int = ROWS + COLS) -> Arguments:
    return {
        "triangle": False,
        "tolerance": 1e-12,
        "max_sweeps": 30,
        "factors": np.zeros(n),
    }


def _kmeans() -> Arguments:
    return {
        "points": np.random.default_rng(12).random((9, 2)).astype(np.float32),
        "labels": np.zeros(9, np.int32),
        "n_clusters": 3,
        "n_init": 2,
        "max_iterations": 10,
        "tolerance": 1e-4,
        "seed": 5,
        "stream": 6,
        "n_threads": 2,
    }


def _update() -> Arguments:
    rng = np.random.default_rng(15)
    return {
        "blocks": [(rng.normal(size=(24, 20)), 20, 0)],
        "n_first": 20,
        "n_wanted": 3,
        "tolerance": 1e-6,
        "max_products": 50,
        "seed": 5,
        "stream": 6,
        "n_threads": 2,
        "basis": rng.normal(size=(24, 16)),
        "degrees": np.zeros(44),
        "values": np.zeros(16),
        "residuals": np.zeros(16),
        "vectors": np.zeros((44, 16)),
    }


def _gradient() -> Arguments:
    rng = np.random.default_rng(16)
    return {
        "blocks": [(_weights(), 0, ROWS)],
        "slopes": rng.random(16),
        "values": rng.random(16),
        "vectors": rng.random((N, 16)),
        "n_threads": 2,
        "gradients": [np.zeros((ROWS, COLS))],
    }


def _neurons() -> Arguments:
    return {
        "incoming": _weights(),
        "bias": np.ones(ROWS),
        "outgoing": np.ones((5, 2 * ROWS)),
        "norm": 1.5,
    }


STREAM: Arguments = {"seed": 5, "stream": 6, "substream": 7}

KERNELS: dict[str, tuple[Callable[[], Arguments], tuple[str, ...]]] = {
    "count_nonzero_dense": (lambda: _dense() | _counts(), ("row_counts", "col_counts")),
    "count_nonzero_sparse": (lambda: _sparse() | _counts(), ("row_counts", "col_counts")),
    "add_degrees_dense": (lambda: _dense() | _degrees(), ("row_degrees", "col_degrees")),
    "add_degrees_sparse": (lambda: _sparse() | _degrees(), ("row_degrees", "col_degrees")),
    "fill_symmetric_dense": (lambda: _dense() | _fill(), ("cursor", "indices", "data")),
    "fill_symmetric_sparse": (_fill_sparse, ("cursor", "indices", "data")),
    "add_links_dense": (lambda: _dense() | _links(), ("row_links", "col_links")),
    "add_links_sparse": (lambda: _sparse() | _links(), ("row_links", "col_links")),
    "add_squares_dense": (lambda: _dense() | _squares(), ("sums",)),
    "add_squares_sparse": (lambda: _sparse() | _squares(), ("sums",)),
    "add_cut_dense": (lambda: _dense() | _cut(), ("volume", "cut")),
    "add_cut_sparse": (lambda: _sparse() | _cut(), ("volume", "cut")),
    "orthonormalize": (_orthonormalize, ("inside", "out", "factor")),
    "permuted": (lambda: {"values": np.arange(8.0), "out": np.zeros(8)} | STREAM, ("out",)),
    "draw_kde": (
        lambda: {"sample": np.arange(1.0, 5), "bandwidth": 0.01, "values": np.zeros(6)} | STREAM,
        ("values",),
    ),
    "random_pattern": (
        lambda: (
            {
                "indptr": np.zeros(ROWS + 1, np.int32),
                "indices": np.zeros(5, np.int32),
                "n_cols": COLS,
                "triangle": False,
            }
            | STREAM
        ),
        ("indptr", "indices"),
    ),
    "trade": (
        lambda: (
            {
                "indptr": np.array([0, 2, 4], np.int64),
                "indices": np.array([0, 1, 0, 1], np.int64),
                "n_cols": 2,
                "values": np.arange(1.0, 5),
                "row_bins": np.array([[0.0, 0.0], [9.0, 9.0]]),
                "col_bins": np.array([[0.0, 0.0], [9.0, 9.0]]),
                "triangle": False,
                "halves": 3,
            }
            | STREAM
        ),
        ("values",),
    ),
    "sinkhorn_dense": (
        lambda: {"weights": _weights().astype(np.float64)} | _sinkhorn(),
        ("factors",),
    ),
    "sinkhorn_sparse": (
        lambda: (
            {
                "indptr": np.array([0, 2, 4], np.int64),
                "indices": np.array([0, 1, 0, 1], np.int64),
                "values": np.arange(1.0, 5),
                "n_cols": 2,
            }
            | _sinkhorn(4)
        ),
        ("factors",),
    ),
    "kmeans": (_kmeans, ("labels",)),
    "unit_variance": (
        lambda: {"points": _weights(), "scaled": np.zeros((ROWS, COLS), np.float32)},
        ("scaled",),
    ),
    "connect_dense": (lambda: _dense() | _connect(), ("parent",)),
    "connect_sparse": (lambda: _sparse() | _connect(), ("parent",)),
    "scan": (lambda: {"values": _weights().ravel()}, ()),
    "multiply": (lambda: _multiply(np.float64, np.float64), ("y",)),
    "multiply_half": (lambda: _multiply(np.float16, np.float32), ("y",)),
    "multiply_bfloat16": (lambda: _multiply(bfloat16, np.float32), ("y",)),
    "refine": (lambda: _refine(np.float64, np.float64), ("links", "totals", "labels")),
    "refine_half": (lambda: _refine(np.float16, np.float32), ("links", "totals", "labels")),
    "refine_bfloat16": (lambda: _refine(bfloat16, np.float32), ("links", "totals", "labels")),
    "update_eigenvectors": (
        _update,
        ("basis", "degrees", "values", "residuals", "vectors"),
    ),
    "eigenvalue_gradient": (_gradient, ()),
    "normalize_neurons": (_neurons, ("incoming", "bias", "outgoing")),
}
"""Each kernel: valid arguments, and the names of the arrays it writes."""

# Arrays that may be shorter (-1) or longer (1): nothing else says how long they should be, or the
# call is one for a smaller block or a larger graph.
ANY_LENGTH = {
    ("draw_kde", "sample"): (-1, 1),
    ("draw_kde", "values"): (-1, 1),
    ("random_pattern", "indptr"): (-1, 1),
    ("random_pattern", "indices"): (-1, 1),
    ("fill_symmetric_dense", "weights"): (-1,),
    ("fill_symmetric_dense", "cursor"): (1,),
    ("fill_symmetric_sparse", "indptr"): (1,),
    ("fill_symmetric_sparse", "cursor"): (1,),
    ("connect_dense", "weights"): (-1, 1),
    ("connect_dense", "parent"): (1,),
    ("connect_sparse", "indptr"): (1,),
    ("connect_sparse", "parent"): (1,),
    ("scan", "values"): (-1, 1),
    ("normalize_neurons", "outgoing"): (-1, 1),
    ("eigenvalue_gradient", "vectors"): (1,),
}


def guarded(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A copy of the array inside a longer one, whose other entries must not change."""
    around = np.full(array.size + 2 * GUARD, 77, dtype=array.dtype)
    inside = around[GUARD : GUARD + array.size].reshape(array.shape)
    inside[...] = array
    return inside, around


def guards_intact(around: np.ndarray) -> bool:
    return bool((around[:GUARD] == 77).all() and (around[-GUARD:] == 77).all())


ARRAYS = [
    (kernel, key)
    for kernel, (make, _) in KERNELS.items()
    for key, value in make().items()
    if isinstance(value, np.ndarray)
]
OUTPUTS = [(kernel, key) for kernel, (_, outputs) in KERNELS.items() for key in outputs]
INPUTS = [pair for pair in ARRAYS if pair not in OUTPUTS]

# Where the other float or index type, alone, also makes a valid call.
ALSO_ACCEPTED = {
    *((kernel, key) for kernel, key in INPUTS if key == "weights"),
    *((kernel, key) for kernel, key in INPUTS if key == "values" and kernel.endswith("_sparse")),
    ("scan", "values"),
    ("kmeans", "points"),
    ("fill_symmetric_dense", "indices"),
    ("fill_symmetric_sparse", "indices"),
}
