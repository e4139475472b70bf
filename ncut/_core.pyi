"""
Compiled kernels of ncut; call them through ncut.kernels.
"""

from __future__ import annotations

import collections.abc
import typing

import numpy
import numpy.typing

__all__: list[str] = [
    "Source",
    "add_cut_dense",
    "add_cut_sparse",
    "add_degrees_dense",
    "add_degrees_sparse",
    "add_links_dense",
    "add_links_sparse",
    "add_squares_dense",
    "add_squares_sparse",
    "build",
    "connect_dense",
    "connect_sparse",
    "count_nonzero_dense",
    "count_nonzero_sparse",
    "draw_kde",
    "eigenvalue_gradient",
    "fill_symmetric_dense",
    "fill_symmetric_sparse",
    "instruction_sets",
    "kmeans",
    "multiply",
    "multiply_bfloat16",
    "multiply_half",
    "normalize_neurons",
    "orthonormalize",
    "permuted",
    "random_pattern",
    "refine",
    "refine_bfloat16",
    "refine_half",
    "scan",
    "sinkhorn_dense",
    "sinkhorn_sparse",
    "trade",
    "unit_variance",
    "update_eigenvectors",
    "use_instruction_set",
]

class Source:
    """
    A network whose shuffles are measured.
    """
    def __init__(
        self,
        sizes: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
        colours: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
    ) -> None: ...
    def add_dense(
        self,
        source: typing.SupportsInt | typing.SupportsIndex,
        target: typing.SupportsInt | typing.SupportsIndex,
        substream: typing.SupportsInt | typing.SupportsIndex,
        weights: numpy.typing.NDArray[numpy.float32],
    ) -> None: ...
    def add_sparse(
        self,
        source: typing.SupportsInt | typing.SupportsIndex,
        target: typing.SupportsInt | typing.SupportsIndex,
        substream: typing.SupportsInt | typing.SupportsIndex,
        indptr: numpy.typing.NDArray[numpy.int32],
        indices: numpy.typing.NDArray[numpy.int32],
        values: numpy.typing.NDArray[numpy.float32],
        n_cols: typing.SupportsInt | typing.SupportsIndex,
    ) -> None: ...
    def embed(
        self,
        orders: collections.abc.Sequence[
            collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex]
        ],
        start: numpy.typing.NDArray[numpy.float32],
        k: typing.SupportsInt | typing.SupportsIndex,
        residual: typing.SupportsFloat | typing.SupportsIndex,
        max_products: typing.SupportsInt | typing.SupportsIndex,
        dsyevd: typing.Any,
        n_threads: typing.SupportsInt | typing.SupportsIndex,
    ) -> typing.Any: ...
    def measure(
        self,
        null: str,
        stream: typing.SupportsInt | typing.SupportsIndex,
        start: numpy.typing.NDArray[numpy.float32],
        k: typing.SupportsInt | typing.SupportsIndex,
        n_init: typing.SupportsInt | typing.SupportsIndex,
        max_iterations: typing.SupportsInt | typing.SupportsIndex,
        tolerance: typing.SupportsFloat | typing.SupportsIndex,
        max_passes: typing.SupportsInt | typing.SupportsIndex,
        seed: typing.SupportsInt | typing.SupportsIndex,
        kmeans_streams: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
        refine: bool,
        residual: typing.SupportsFloat | typing.SupportsIndex,
        max_products: typing.SupportsInt | typing.SupportsIndex,
        dsyevd: typing.Any,
        n_threads: typing.SupportsInt | typing.SupportsIndex,
    ) -> typing.Any: ...

@typing.overload
def add_cut_dense(
    weights: numpy.typing.NDArray[numpy.float32],
    row_labels: numpy.typing.NDArray[numpy.int32],
    col_labels: numpy.typing.NDArray[numpy.int32],
    volume: numpy.typing.NDArray[numpy.float64],
    cut: numpy.typing.NDArray[numpy.float64],
) -> None: ...
@typing.overload
def add_cut_dense(
    weights: numpy.typing.NDArray[numpy.float64],
    row_labels: numpy.typing.NDArray[numpy.int32],
    col_labels: numpy.typing.NDArray[numpy.int32],
    volume: numpy.typing.NDArray[numpy.float64],
    cut: numpy.typing.NDArray[numpy.float64],
) -> None: ...
@typing.overload
def add_cut_dense(
    weights: numpy.typing.NDArray[numpy.float16],
    row_labels: numpy.typing.NDArray[numpy.int32],
    col_labels: numpy.typing.NDArray[numpy.int32],
    volume: numpy.typing.NDArray[numpy.float64],
    cut: numpy.typing.NDArray[numpy.float64],
) -> None: ...
@typing.overload
def add_cut_dense(
    weights: numpy.typing.NDArray[numpy.uint16],
    row_labels: numpy.typing.NDArray[numpy.int32],
    col_labels: numpy.typing.NDArray[numpy.int32],
    volume: numpy.typing.NDArray[numpy.float64],
    cut: numpy.typing.NDArray[numpy.float64],
) -> None: ...
@typing.overload
def add_cut_sparse(
    indptr: numpy.typing.NDArray[numpy.int32],
    indices: numpy.typing.NDArray[numpy.int32],
    values: numpy.typing.NDArray[numpy.float32],
    n_cols: typing.SupportsInt | typing.SupportsIndex,
    row_labels: numpy.typing.NDArray[numpy.int32],
    col_labels: numpy.typing.NDArray[numpy.int32],
    volume: numpy.typing.NDArray[numpy.float64],
    cut: numpy.typing.NDArray[numpy.float64],
) -> None: ...
@typing.overload
def add_cut_sparse(
    indptr: numpy.typing.NDArray[numpy.int64],
    indices: numpy.typing.NDArray[numpy.int64],
    values: numpy.typing.NDArray[numpy.float32],
    n_cols: typing.SupportsInt | typing.SupportsIndex,
    row_labels: numpy.typing.NDArray[numpy.int32],
    col_labels: numpy.typing.NDArray[numpy.int32],
    volume: numpy.typing.NDArray[numpy.float64],
    cut: numpy.typing.NDArray[numpy.float64],
) -> None: ...
@typing.overload
def add_cut_sparse(
    indptr: numpy.typing.NDArray[numpy.int32],
    indices: numpy.typing.NDArray[numpy.int32],
    values: numpy.typing.NDArray[numpy.float64],
    n_cols: typing.SupportsInt | typing.SupportsIndex,
    row_labels: numpy.typing.NDArray[numpy.int32],
    col_labels: numpy.typing.NDArray[numpy.int32],
    volume: numpy.typing.NDArray[numpy.float64],
    cut: numpy.typing.NDArray[numpy.float64],
) -> None: ...
@typing.overload
def add_cut_sparse(
    indptr: numpy.typing.NDArray[numpy.int64],
    indices: numpy.typing.NDArray[numpy.int64],
    values: numpy.typing.NDArray[numpy.float64],
    n_cols: typing.SupportsInt | typing.SupportsIndex,
    row_labels: numpy.typing.NDArray[numpy.int32],
    col_labels: numpy.typing.NDArray[numpy.int32],
    volume: numpy.typing.NDArray[numpy.float64],
    cut: numpy.typing.NDArray[numpy.float64],
) -> None: ...
@typing.overload
def add_degrees_dense(
    weights: numpy.typing.NDArray[numpy.float32],
    row_degrees: numpy.typing.NDArray[numpy.float64],
    col_degrees: numpy.typing.NDArray[numpy.float64],
) -> None: ...
@typing.overload
def add_degrees_dense(
    weights: numpy.typing.NDArray[numpy.float64],
    row_degrees: numpy.typing.NDArray[numpy.float64],
    col_degrees: numpy.typing.NDArray[numpy.float64],
) -> None: ...
@typing.overload
def add_degrees_dense(
    weights: numpy.typing.NDArray[numpy.float16],
    row_degrees: numpy.typing.NDArray[numpy.float64],
    col_degrees: numpy.typing.NDArray[numpy.float64],
) -> None: ...
@typing.overload
def add_degrees_dense(
    weights: numpy.typing.NDArray[numpy.uint16],
    row_degrees: numpy.typing.NDArray[numpy.float64],
    col_degrees: numpy.typing.NDArray[numpy.float64],
) -> None: ...
@typing.overload
def add_degrees_sparse(
    indptr: numpy.typing.NDArray[numpy.int32],
    indices: numpy.typing.NDArray[numpy.int32],
    values: numpy.typing.NDArray[numpy.float32],
    n_cols: typing.SupportsInt | typing.SupportsIndex,
    row_degrees: numpy.typing.NDArray[numpy.float64],
    col_degrees: numpy.typing.NDArray[numpy.float64],
) -> None: ...
@typing.overload
def add_degrees_sparse(
    indptr: numpy.typing.NDArray[numpy.int64],
    indices: numpy.typing.NDArray[numpy.int64],
    values: numpy.typing.NDArray[numpy.float32],
    n_cols: typing.SupportsInt | typing.SupportsIndex,
    row_degrees: numpy.typing.NDArray[numpy.float64],
    col_degrees: numpy.typing.NDArray[numpy.float64],
) -> None: ...
@typing.overload
def add_degrees_sparse(
    indptr: numpy.typing.NDArray[numpy.int32],
    indices: numpy.typing.NDArray[numpy.int32],
    values: numpy.typing.NDArray[numpy.float64],
    n_cols: typing.SupportsInt | typing.SupportsIndex,
    row_degrees: numpy.typing.NDArray[numpy.float64],
    col_degrees: numpy.typing.NDArray[numpy.float64],
) -> None: ...
@typing.overload
def add_degrees_sparse(
    indptr: numpy.typing.NDArray[numpy.int64],
    indices: numpy.typing.NDArray[numpy.int64],
    values: numpy.typing.NDArray[numpy.float64],
    n_cols: typing.SupportsInt | typing.SupportsIndex,
    row_degrees: numpy.typing.NDArray[numpy.float64],
    col_degrees: numpy.typing.NDArray[numpy.float64],
) -> None: ...
@typing.overload
def add_links_dense(
    weights: numpy.typing.NDArray[numpy.float32],
    row_labels: numpy.typing.NDArray[numpy.int32],
    col_labels: numpy.typing.NDArray[numpy.int32],
    k: typing.SupportsInt | typing.SupportsIndex,
    row_links: numpy.typing.NDArray[numpy.float64],
    col_links: numpy.typing.NDArray[numpy.float64],
) -> None: ...
@typing.overload
def add_links_dense(
    weights: numpy.typing.NDArray[numpy.float64],
    row_labels: numpy.typing.NDArray[numpy.int32],
    col_labels: numpy.typing.NDArray[numpy.int32],
    k: typing.SupportsInt | typing.SupportsIndex,
    row_links: numpy.typing.NDArray[numpy.float64],
    col_links: numpy.typing.NDArray[numpy.float64],
) -> None: ...
@typing.overload
def add_links_dense(
    weights: numpy.typing.NDArray[numpy.float16],
    row_labels: numpy.typing.NDArray[numpy.int32],
    col_labels: numpy.typing.NDArray[numpy.int32],
    k: typing.SupportsInt | typing.SupportsIndex,
    row_links: numpy.typing.NDArray[numpy.float64],
    col_links: numpy.typing.NDArray[numpy.float64],
) -> None: ...
@typing.overload
def add_links_dense(
    weights: numpy.typing.NDArray[numpy.uint16],
    row_labels: numpy.typing.NDArray[numpy.int32],
    col_labels: numpy.typing.NDArray[numpy.int32],
    k: typing.SupportsInt | typing.SupportsIndex,
    row_links: numpy.typing.NDArray[numpy.float64],
    col_links: numpy.typing.NDArray[numpy.float64],
) -> None: ...
@typing.overload
def add_links_sparse(
    indptr: numpy.typing.NDArray[numpy.int32],
    indices: numpy.typing.NDArray[numpy.int32],
    values: numpy.typing.NDArray[numpy.float32],
    n_cols: typing.SupportsInt | typing.SupportsIndex,
    row_labels: numpy.typing.NDArray[numpy.int32],
    col_labels: numpy.typing.NDArray[numpy.int32],
    k: typing.SupportsInt | typing.SupportsIndex,
    row_links: numpy.typing.NDArray[numpy.float64],
    col_links: numpy.typing.NDArray[numpy.float64],
) -> None: ...
@typing.overload
def add_links_sparse(
    indptr: numpy.typing.NDArray[numpy.int64],
    indices: numpy.typing.NDArray[numpy.int64],
    values: numpy.typing.NDArray[numpy.float32],
    n_cols: typing.SupportsInt | typing.SupportsIndex,
    row_labels: numpy.typing.NDArray[numpy.int32],
    col_labels: numpy.typing.NDArray[numpy.int32],
    k: typing.SupportsInt | typing.SupportsIndex,
    row_links: numpy.typing.NDArray[numpy.float64],
    col_links: numpy.typing.NDArray[numpy.float64],
) -> None: ...
@typing.overload
def add_links_sparse(
    indptr: numpy.typing.NDArray[numpy.int32],
    indices: numpy.typing.NDArray[numpy.int32],
    values: numpy.typing.NDArray[numpy.float64],
    n_cols: typing.SupportsInt | typing.SupportsIndex,
    row_labels: numpy.typing.NDArray[numpy.int32],
    col_labels: numpy.typing.NDArray[numpy.int32],
    k: typing.SupportsInt | typing.SupportsIndex,
    row_links: numpy.typing.NDArray[numpy.float64],
    col_links: numpy.typing.NDArray[numpy.float64],
) -> None: ...
@typing.overload
def add_links_sparse(
    indptr: numpy.typing.NDArray[numpy.int64],
    indices: numpy.typing.NDArray[numpy.int64],
    values: numpy.typing.NDArray[numpy.float64],
    n_cols: typing.SupportsInt | typing.SupportsIndex,
    row_labels: numpy.typing.NDArray[numpy.int32],
    col_labels: numpy.typing.NDArray[numpy.int32],
    k: typing.SupportsInt | typing.SupportsIndex,
    row_links: numpy.typing.NDArray[numpy.float64],
    col_links: numpy.typing.NDArray[numpy.float64],
) -> None: ...
@typing.overload
def add_squares_dense(
    weights: numpy.typing.NDArray[numpy.float32],
    row_labels: numpy.typing.NDArray[numpy.int32],
    col_labels: numpy.typing.NDArray[numpy.int32],
    sums: numpy.typing.NDArray[numpy.float64],
) -> None: ...
@typing.overload
def add_squares_dense(
    weights: numpy.typing.NDArray[numpy.float64],
    row_labels: numpy.typing.NDArray[numpy.int32],
    col_labels: numpy.typing.NDArray[numpy.int32],
    sums: numpy.typing.NDArray[numpy.float64],
) -> None: ...
@typing.overload
def add_squares_dense(
    weights: numpy.typing.NDArray[numpy.float16],
    row_labels: numpy.typing.NDArray[numpy.int32],
    col_labels: numpy.typing.NDArray[numpy.int32],
    sums: numpy.typing.NDArray[numpy.float64],
) -> None: ...
@typing.overload
def add_squares_dense(
    weights: numpy.typing.NDArray[numpy.uint16],
    row_labels: numpy.typing.NDArray[numpy.int32],
    col_labels: numpy.typing.NDArray[numpy.int32],
    sums: numpy.typing.NDArray[numpy.float64],
) -> None: ...
@typing.overload
def add_squares_sparse(
    indptr: numpy.typing.NDArray[numpy.int32],
    indices: numpy.typing.NDArray[numpy.int32],
    values: numpy.typing.NDArray[numpy.float32],
    n_cols: typing.SupportsInt | typing.SupportsIndex,
    row_labels: numpy.typing.NDArray[numpy.int32],
    col_labels: numpy.typing.NDArray[numpy.int32],
    sums: numpy.typing.NDArray[numpy.float64],
) -> None: ...
@typing.overload
def add_squares_sparse(
    indptr: numpy.typing.NDArray[numpy.int64],
    indices: numpy.typing.NDArray[numpy.int64],
    values: numpy.typing.NDArray[numpy.float32],
    n_cols: typing.SupportsInt | typing.SupportsIndex,
    row_labels: numpy.typing.NDArray[numpy.int32],
    col_labels: numpy.typing.NDArray[numpy.int32],
    sums: numpy.typing.NDArray[numpy.float64],
) -> None: ...
@typing.overload
def add_squares_sparse(
    indptr: numpy.typing.NDArray[numpy.int32],
    indices: numpy.typing.NDArray[numpy.int32],
    values: numpy.typing.NDArray[numpy.float64],
    n_cols: typing.SupportsInt | typing.SupportsIndex,
    row_labels: numpy.typing.NDArray[numpy.int32],
    col_labels: numpy.typing.NDArray[numpy.int32],
    sums: numpy.typing.NDArray[numpy.float64],
) -> None: ...
@typing.overload
def add_squares_sparse(
    indptr: numpy.typing.NDArray[numpy.int64],
    indices: numpy.typing.NDArray[numpy.int64],
    values: numpy.typing.NDArray[numpy.float64],
    n_cols: typing.SupportsInt | typing.SupportsIndex,
    row_labels: numpy.typing.NDArray[numpy.int32],
    col_labels: numpy.typing.NDArray[numpy.int32],
    sums: numpy.typing.NDArray[numpy.float64],
) -> None: ...
def build() -> tuple[str, str]:
    """
    Compiler, and the instruction set of the kernels that run here.
    """

@typing.overload
def connect_dense(
    weights: numpy.typing.NDArray[numpy.float32],
    first_row: typing.SupportsInt | typing.SupportsIndex,
    first_col: typing.SupportsInt | typing.SupportsIndex,
    parent: numpy.typing.NDArray[numpy.int64],
) -> None: ...
@typing.overload
def connect_dense(
    weights: numpy.typing.NDArray[numpy.float64],
    first_row: typing.SupportsInt | typing.SupportsIndex,
    first_col: typing.SupportsInt | typing.SupportsIndex,
    parent: numpy.typing.NDArray[numpy.int64],
) -> None: ...
@typing.overload
def connect_dense(
    weights: numpy.typing.NDArray[numpy.float16],
    first_row: typing.SupportsInt | typing.SupportsIndex,
    first_col: typing.SupportsInt | typing.SupportsIndex,
    parent: numpy.typing.NDArray[numpy.int64],
) -> None: ...
@typing.overload
def connect_dense(
    weights: numpy.typing.NDArray[numpy.uint16],
    first_row: typing.SupportsInt | typing.SupportsIndex,
    first_col: typing.SupportsInt | typing.SupportsIndex,
    parent: numpy.typing.NDArray[numpy.int64],
) -> None: ...
@typing.overload
def connect_sparse(
    indptr: numpy.typing.NDArray[numpy.int32],
    indices: numpy.typing.NDArray[numpy.int32],
    values: numpy.typing.NDArray[numpy.float32],
    n_cols: typing.SupportsInt | typing.SupportsIndex,
    first_row: typing.SupportsInt | typing.SupportsIndex,
    first_col: typing.SupportsInt | typing.SupportsIndex,
    parent: numpy.typing.NDArray[numpy.int64],
) -> None: ...
@typing.overload
def connect_sparse(
    indptr: numpy.typing.NDArray[numpy.int64],
    indices: numpy.typing.NDArray[numpy.int64],
    values: numpy.typing.NDArray[numpy.float32],
    n_cols: typing.SupportsInt | typing.SupportsIndex,
    first_row: typing.SupportsInt | typing.SupportsIndex,
    first_col: typing.SupportsInt | typing.SupportsIndex,
    parent: numpy.typing.NDArray[numpy.int64],
) -> None: ...
@typing.overload
def connect_sparse(
    indptr: numpy.typing.NDArray[numpy.int32],
    indices: numpy.typing.NDArray[numpy.int32],
    values: numpy.typing.NDArray[numpy.float64],
    n_cols: typing.SupportsInt | typing.SupportsIndex,
    first_row: typing.SupportsInt | typing.SupportsIndex,
    first_col: typing.SupportsInt | typing.SupportsIndex,
    parent: numpy.typing.NDArray[numpy.int64],
) -> None: ...
@typing.overload
def connect_sparse(
    indptr: numpy.typing.NDArray[numpy.int64],
    indices: numpy.typing.NDArray[numpy.int64],
    values: numpy.typing.NDArray[numpy.float64],
    n_cols: typing.SupportsInt | typing.SupportsIndex,
    first_row: typing.SupportsInt | typing.SupportsIndex,
    first_col: typing.SupportsInt | typing.SupportsIndex,
    parent: numpy.typing.NDArray[numpy.int64],
) -> None: ...
@typing.overload
def count_nonzero_dense(
    weights: numpy.typing.NDArray[numpy.float32],
    row_counts: numpy.typing.NDArray[numpy.int64],
    col_counts: numpy.typing.NDArray[numpy.int64],
) -> None: ...
@typing.overload
def count_nonzero_dense(
    weights: numpy.typing.NDArray[numpy.float64],
    row_counts: numpy.typing.NDArray[numpy.int64],
    col_counts: numpy.typing.NDArray[numpy.int64],
) -> None: ...
@typing.overload
def count_nonzero_dense(
    weights: numpy.typing.NDArray[numpy.float16],
    row_counts: numpy.typing.NDArray[numpy.int64],
    col_counts: numpy.typing.NDArray[numpy.int64],
) -> None: ...
@typing.overload
def count_nonzero_dense(
    weights: numpy.typing.NDArray[numpy.uint16],
    row_counts: numpy.typing.NDArray[numpy.int64],
    col_counts: numpy.typing.NDArray[numpy.int64],
) -> None: ...
@typing.overload
def count_nonzero_sparse(
    indptr: numpy.typing.NDArray[numpy.int32],
    indices: numpy.typing.NDArray[numpy.int32],
    values: numpy.typing.NDArray[numpy.float32],
    n_cols: typing.SupportsInt | typing.SupportsIndex,
    row_counts: numpy.typing.NDArray[numpy.int64],
    col_counts: numpy.typing.NDArray[numpy.int64],
) -> None: ...
@typing.overload
def count_nonzero_sparse(
    indptr: numpy.typing.NDArray[numpy.int64],
    indices: numpy.typing.NDArray[numpy.int64],
    values: numpy.typing.NDArray[numpy.float32],
    n_cols: typing.SupportsInt | typing.SupportsIndex,
    row_counts: numpy.typing.NDArray[numpy.int64],
    col_counts: numpy.typing.NDArray[numpy.int64],
) -> None: ...
@typing.overload
def count_nonzero_sparse(
    indptr: numpy.typing.NDArray[numpy.int32],
    indices: numpy.typing.NDArray[numpy.int32],
    values: numpy.typing.NDArray[numpy.float64],
    n_cols: typing.SupportsInt | typing.SupportsIndex,
    row_counts: numpy.typing.NDArray[numpy.int64],
    col_counts: numpy.typing.NDArray[numpy.int64],
) -> None: ...
@typing.overload
def count_nonzero_sparse(
    indptr: numpy.typing.NDArray[numpy.int64],
    indices: numpy.typing.NDArray[numpy.int64],
    values: numpy.typing.NDArray[numpy.float64],
    n_cols: typing.SupportsInt | typing.SupportsIndex,
    row_counts: numpy.typing.NDArray[numpy.int64],
    col_counts: numpy.typing.NDArray[numpy.int64],
) -> None: ...
@typing.overload
def draw_kde(
    sample: numpy.typing.NDArray[numpy.float32],
    bandwidth: typing.SupportsFloat | typing.SupportsIndex,
    values: numpy.typing.NDArray[numpy.float32],
    seed: typing.SupportsInt | typing.SupportsIndex,
    stream: typing.SupportsInt | typing.SupportsIndex,
    substream: typing.SupportsInt | typing.SupportsIndex,
) -> None: ...
@typing.overload
def draw_kde(
    sample: numpy.typing.NDArray[numpy.float64],
    bandwidth: typing.SupportsFloat | typing.SupportsIndex,
    values: numpy.typing.NDArray[numpy.float64],
    seed: typing.SupportsInt | typing.SupportsIndex,
    stream: typing.SupportsInt | typing.SupportsIndex,
    substream: typing.SupportsInt | typing.SupportsIndex,
) -> None: ...
@typing.overload
def eigenvalue_gradient(
    blocks: list[
        tuple[
            numpy.ndarray,
            typing.SupportsInt | typing.SupportsIndex,
            typing.SupportsInt | typing.SupportsIndex,
        ]
    ],
    slopes: numpy.typing.NDArray[numpy.float64],
    values: numpy.typing.NDArray[numpy.float64],
    vectors: numpy.typing.NDArray[numpy.float32],
    n_threads: typing.SupportsInt | typing.SupportsIndex,
    gradients: list[numpy.ndarray],
) -> None: ...
@typing.overload
def eigenvalue_gradient(
    blocks: list[
        tuple[
            numpy.ndarray,
            typing.SupportsInt | typing.SupportsIndex,
            typing.SupportsInt | typing.SupportsIndex,
        ]
    ],
    slopes: numpy.typing.NDArray[numpy.float64],
    values: numpy.typing.NDArray[numpy.float64],
    vectors: numpy.typing.NDArray[numpy.float64],
    n_threads: typing.SupportsInt | typing.SupportsIndex,
    gradients: list[numpy.ndarray],
) -> None: ...
@typing.overload
def fill_symmetric_dense(
    weights: numpy.typing.NDArray[numpy.float32],
    first_row: typing.SupportsInt | typing.SupportsIndex,
    first_col: typing.SupportsInt | typing.SupportsIndex,
    cursor: numpy.typing.NDArray[numpy.int64],
    indices: numpy.typing.NDArray[numpy.int32],
    data: numpy.typing.NDArray[numpy.float32],
) -> None: ...
@typing.overload
def fill_symmetric_dense(
    weights: numpy.typing.NDArray[numpy.float32],
    first_row: typing.SupportsInt | typing.SupportsIndex,
    first_col: typing.SupportsInt | typing.SupportsIndex,
    cursor: numpy.typing.NDArray[numpy.int64],
    indices: numpy.typing.NDArray[numpy.int64],
    data: numpy.typing.NDArray[numpy.float32],
) -> None: ...
@typing.overload
def fill_symmetric_dense(
    weights: numpy.typing.NDArray[numpy.float32],
    first_row: typing.SupportsInt | typing.SupportsIndex,
    first_col: typing.SupportsInt | typing.SupportsIndex,
    cursor: numpy.typing.NDArray[numpy.int64],
    indices: numpy.typing.NDArray[numpy.int32],
    data: numpy.typing.NDArray[numpy.float64],
) -> None: ...
@typing.overload
def fill_symmetric_dense(
    weights: numpy.typing.NDArray[numpy.float32],
    first_row: typing.SupportsInt | typing.SupportsIndex,
    first_col: typing.SupportsInt | typing.SupportsIndex,
    cursor: numpy.typing.NDArray[numpy.int64],
    indices: numpy.typing.NDArray[numpy.int64],
    data: numpy.typing.NDArray[numpy.float64],
) -> None: ...
@typing.overload
def fill_symmetric_dense(
    weights: numpy.typing.NDArray[numpy.float64],
    first_row: typing.SupportsInt | typing.SupportsIndex,
    first_col: typing.SupportsInt | typing.SupportsIndex,
    cursor: numpy.typing.NDArray[numpy.int64],
    indices: numpy.typing.NDArray[numpy.int32],
    data: numpy.typing.NDArray[numpy.float64],
) -> None: ...
@typing.overload
def fill_symmetric_dense(
    weights: numpy.typing.NDArray[numpy.float64],
    first_row: typing.SupportsInt | typing.SupportsIndex,
    first_col: typing.SupportsInt | typing.SupportsIndex,
    cursor: numpy.typing.NDArray[numpy.int64],
    indices: numpy.typing.NDArray[numpy.int64],
    data: numpy.typing.NDArray[numpy.float64],
) -> None: ...
@typing.overload
def fill_symmetric_dense(
    weights: numpy.typing.NDArray[numpy.float16],
    first_row: typing.SupportsInt | typing.SupportsIndex,
    first_col: typing.SupportsInt | typing.SupportsIndex,
    cursor: numpy.typing.NDArray[numpy.int64],
    indices: numpy.typing.NDArray[numpy.int32],
    data: numpy.typing.NDArray[numpy.float32],
) -> None: ...
@typing.overload
def fill_symmetric_dense(
    weights: numpy.typing.NDArray[numpy.float16],
    first_row: typing.SupportsInt | typing.SupportsIndex,
    first_col: typing.SupportsInt | typing.SupportsIndex,
    cursor: numpy.typing.NDArray[numpy.int64],
    indices: numpy.typing.NDArray[numpy.int64],
    data: numpy.typing.NDArray[numpy.float32],
) -> None: ...
@typing.overload
def fill_symmetric_dense(
    weights: numpy.typing.NDArray[numpy.float16],
    first_row: typing.SupportsInt | typing.SupportsIndex,
    first_col: typing.SupportsInt | typing.SupportsIndex,
    cursor: numpy.typing.NDArray[numpy.int64],
    indices: numpy.typing.NDArray[numpy.int32],
    data: numpy.typing.NDArray[numpy.float64],
) -> None: ...
@typing.overload
def fill_symmetric_dense(
    weights: numpy.typing.NDArray[numpy.float16],
    first_row: typing.SupportsInt | typing.SupportsIndex,
    first_col: typing.SupportsInt | typing.SupportsIndex,
    cursor: numpy.typing.NDArray[numpy.int64],
    indices: numpy.typing.NDArray[numpy.int64],
    data: numpy.typing.NDArray[numpy.float64],
) -> None: ...
@typing.overload
def fill_symmetric_dense(
    weights: numpy.typing.NDArray[numpy.uint16],
    first_row: typing.SupportsInt | typing.SupportsIndex,
    first_col: typing.SupportsInt | typing.SupportsIndex,
    cursor: numpy.typing.NDArray[numpy.int64],
    indices: numpy.typing.NDArray[numpy.int32],
    data: numpy.typing.NDArray[numpy.float64],
) -> None: ...
@typing.overload
def fill_symmetric_dense(
    weights: numpy.typing.NDArray[numpy.uint16],
    first_row: typing.SupportsInt | typing.SupportsIndex,
    first_col: typing.SupportsInt | typing.SupportsIndex,
    cursor: numpy.typing.NDArray[numpy.int64],
    indices: numpy.typing.NDArray[numpy.int64],
    data: numpy.typing.NDArray[numpy.float64],
) -> None: ...
@typing.overload
def fill_symmetric_dense(
    weights: numpy.typing.NDArray[numpy.uint16],
    first_row: typing.SupportsInt | typing.SupportsIndex,
    first_col: typing.SupportsInt | typing.SupportsIndex,
    cursor: numpy.typing.NDArray[numpy.int64],
    indices: numpy.typing.NDArray[numpy.int32],
    data: numpy.typing.NDArray[numpy.float32],
) -> None: ...
@typing.overload
def fill_symmetric_dense(
    weights: numpy.typing.NDArray[numpy.uint16],
    first_row: typing.SupportsInt | typing.SupportsIndex,
    first_col: typing.SupportsInt | typing.SupportsIndex,
    cursor: numpy.typing.NDArray[numpy.int64],
    indices: numpy.typing.NDArray[numpy.int64],
    data: numpy.typing.NDArray[numpy.float32],
) -> None: ...
@typing.overload
def fill_symmetric_sparse(
    indptr: numpy.typing.NDArray[numpy.int32],
    block_indices: numpy.typing.NDArray[numpy.int32],
    values: numpy.typing.NDArray[numpy.float32],
    n_cols: typing.SupportsInt | typing.SupportsIndex,
    first_row: typing.SupportsInt | typing.SupportsIndex,
    first_col: typing.SupportsInt | typing.SupportsIndex,
    cursor: numpy.typing.NDArray[numpy.int64],
    indices: numpy.typing.NDArray[numpy.int32],
    data: numpy.typing.NDArray[numpy.float32],
) -> None: ...
@typing.overload
def fill_symmetric_sparse(
    indptr: numpy.typing.NDArray[numpy.int32],
    block_indices: numpy.typing.NDArray[numpy.int32],
    values: numpy.typing.NDArray[numpy.float32],
    n_cols: typing.SupportsInt | typing.SupportsIndex,
    first_row: typing.SupportsInt | typing.SupportsIndex,
    first_col: typing.SupportsInt | typing.SupportsIndex,
    cursor: numpy.typing.NDArray[numpy.int64],
    indices: numpy.typing.NDArray[numpy.int64],
    data: numpy.typing.NDArray[numpy.float32],
) -> None: ...
@typing.overload
def fill_symmetric_sparse(
    indptr: numpy.typing.NDArray[numpy.int64],
    block_indices: numpy.typing.NDArray[numpy.int64],
    values: numpy.typing.NDArray[numpy.float32],
    n_cols: typing.SupportsInt | typing.SupportsIndex,
    first_row: typing.SupportsInt | typing.SupportsIndex,
    first_col: typing.SupportsInt | typing.SupportsIndex,
    cursor: numpy.typing.NDArray[numpy.int64],
    indices: numpy.typing.NDArray[numpy.int32],
    data: numpy.typing.NDArray[numpy.float32],
) -> None: ...
@typing.overload
def fill_symmetric_sparse(
    indptr: numpy.typing.NDArray[numpy.int64],
    block_indices: numpy.typing.NDArray[numpy.int64],
    values: numpy.typing.NDArray[numpy.float32],
    n_cols: typing.SupportsInt | typing.SupportsIndex,
    first_row: typing.SupportsInt | typing.SupportsIndex,
    first_col: typing.SupportsInt | typing.SupportsIndex,
    cursor: numpy.typing.NDArray[numpy.int64],
    indices: numpy.typing.NDArray[numpy.int64],
    data: numpy.typing.NDArray[numpy.float32],
) -> None: ...
@typing.overload
def fill_symmetric_sparse(
    indptr: numpy.typing.NDArray[numpy.int32],
    block_indices: numpy.typing.NDArray[numpy.int32],
    values: numpy.typing.NDArray[numpy.float32],
    n_cols: typing.SupportsInt | typing.SupportsIndex,
    first_row: typing.SupportsInt | typing.SupportsIndex,
    first_col: typing.SupportsInt | typing.SupportsIndex,
    cursor: numpy.typing.NDArray[numpy.int64],
    indices: numpy.typing.NDArray[numpy.int32],
    data: numpy.typing.NDArray[numpy.float64],
) -> None: ...
@typing.overload
def fill_symmetric_sparse(
    indptr: numpy.typing.NDArray[numpy.int32],
    block_indices: numpy.typing.NDArray[numpy.int32],
    values: numpy.typing.NDArray[numpy.float32],
    n_cols: typing.SupportsInt | typing.SupportsIndex,
    first_row: typing.SupportsInt | typing.SupportsIndex,
    first_col: typing.SupportsInt | typing.SupportsIndex,
    cursor: numpy.typing.NDArray[numpy.int64],
    indices: numpy.typing.NDArray[numpy.int64],
    data: numpy.typing.NDArray[numpy.float64],
) -> None: ...
@typing.overload
def fill_symmetric_sparse(
    indptr: numpy.typing.NDArray[numpy.int64],
    block_indices: numpy.typing.NDArray[numpy.int64],
    values: numpy.typing.NDArray[numpy.float32],
    n_cols: typing.SupportsInt | typing.SupportsIndex,
    first_row: typing.SupportsInt | typing.SupportsIndex,
    first_col: typing.SupportsInt | typing.SupportsIndex,
    cursor: numpy.typing.NDArray[numpy.int64],
    indices: numpy.typing.NDArray[numpy.int32],
    data: numpy.typing.NDArray[numpy.float64],
) -> None: ...
@typing.overload
def fill_symmetric_sparse(
    indptr: numpy.typing.NDArray[numpy.int64],
    block_indices: numpy.typing.NDArray[numpy.int64],
    values: numpy.typing.NDArray[numpy.float32],
    n_cols: typing.SupportsInt | typing.SupportsIndex,
    first_row: typing.SupportsInt | typing.SupportsIndex,
    first_col: typing.SupportsInt | typing.SupportsIndex,
    cursor: numpy.typing.NDArray[numpy.int64],
    indices: numpy.typing.NDArray[numpy.int64],
    data: numpy.typing.NDArray[numpy.float64],
) -> None: ...
@typing.overload
def fill_symmetric_sparse(
    indptr: numpy.typing.NDArray[numpy.int32],
    block_indices: numpy.typing.NDArray[numpy.int32],
    values: numpy.typing.NDArray[numpy.float64],
    n_cols: typing.SupportsInt | typing.SupportsIndex,
    first_row: typing.SupportsInt | typing.SupportsIndex,
    first_col: typing.SupportsInt | typing.SupportsIndex,
    cursor: numpy.typing.NDArray[numpy.int64],
    indices: numpy.typing.NDArray[numpy.int32],
    data: numpy.typing.NDArray[numpy.float64],
) -> None: ...
@typing.overload
def fill_symmetric_sparse(
    indptr: numpy.typing.NDArray[numpy.int32],
    block_indices: numpy.typing.NDArray[numpy.int32],
    values: numpy.typing.NDArray[numpy.float64],
    n_cols: typing.SupportsInt | typing.SupportsIndex,
    first_row: typing.SupportsInt | typing.SupportsIndex,
    first_col: typing.SupportsInt | typing.SupportsIndex,
    cursor: numpy.typing.NDArray[numpy.int64],
    indices: numpy.typing.NDArray[numpy.int64],
    data: numpy.typing.NDArray[numpy.float64],
) -> None: ...
@typing.overload
def fill_symmetric_sparse(
    indptr: numpy.typing.NDArray[numpy.int64],
    block_indices: numpy.typing.NDArray[numpy.int64],
    values: numpy.typing.NDArray[numpy.float64],
    n_cols: typing.SupportsInt | typing.SupportsIndex,
    first_row: typing.SupportsInt | typing.SupportsIndex,
    first_col: typing.SupportsInt | typing.SupportsIndex,
    cursor: numpy.typing.NDArray[numpy.int64],
    indices: numpy.typing.NDArray[numpy.int32],
    data: numpy.typing.NDArray[numpy.float64],
) -> None: ...
@typing.overload
def fill_symmetric_sparse(
    indptr: numpy.typing.NDArray[numpy.int64],
    block_indices: numpy.typing.NDArray[numpy.int64],
    values: numpy.typing.NDArray[numpy.float64],
    n_cols: typing.SupportsInt | typing.SupportsIndex,
    first_row: typing.SupportsInt | typing.SupportsIndex,
    first_col: typing.SupportsInt | typing.SupportsIndex,
    cursor: numpy.typing.NDArray[numpy.int64],
    indices: numpy.typing.NDArray[numpy.int64],
    data: numpy.typing.NDArray[numpy.float64],
) -> None: ...
def instruction_sets() -> list[str]:
    """
    Instruction sets that kernels were built for and this machine has, the best first.
    """

@typing.overload
def kmeans(
    points: numpy.typing.NDArray[numpy.float32],
    labels: numpy.typing.NDArray[numpy.int32],
    n_clusters: typing.SupportsInt | typing.SupportsIndex,
    n_init: typing.SupportsInt | typing.SupportsIndex,
    max_iterations: typing.SupportsInt | typing.SupportsIndex,
    tolerance: typing.SupportsFloat | typing.SupportsIndex,
    seed: typing.SupportsInt | typing.SupportsIndex,
    stream: typing.SupportsInt | typing.SupportsIndex,
    n_threads: typing.SupportsInt | typing.SupportsIndex,
) -> float: ...
@typing.overload
def kmeans(
    points: numpy.typing.NDArray[numpy.float64],
    labels: numpy.typing.NDArray[numpy.int32],
    n_clusters: typing.SupportsInt | typing.SupportsIndex,
    n_init: typing.SupportsInt | typing.SupportsIndex,
    max_iterations: typing.SupportsInt | typing.SupportsIndex,
    tolerance: typing.SupportsFloat | typing.SupportsIndex,
    seed: typing.SupportsInt | typing.SupportsIndex,
    stream: typing.SupportsInt | typing.SupportsIndex,
    n_threads: typing.SupportsInt | typing.SupportsIndex,
) -> float: ...
@typing.overload
def multiply(
    blocks: list[
        tuple[
            numpy.ndarray,
            typing.SupportsInt | typing.SupportsIndex,
            typing.SupportsInt | typing.SupportsIndex,
        ]
    ],
    indptr: numpy.typing.NDArray[numpy.int32],
    indices: numpy.typing.NDArray[numpy.int32],
    values: numpy.typing.NDArray[numpy.float32],
    x: numpy.typing.NDArray[numpy.float32],
    scale: numpy.typing.NDArray[numpy.float32],
    first: typing.SupportsInt | typing.SupportsIndex,
    last: typing.SupportsInt | typing.SupportsIndex,
    y: numpy.typing.NDArray[numpy.float32],
    n_threads: typing.SupportsInt | typing.SupportsIndex,
) -> None: ...
@typing.overload
def multiply(
    blocks: list[
        tuple[
            numpy.ndarray,
            typing.SupportsInt | typing.SupportsIndex,
            typing.SupportsInt | typing.SupportsIndex,
        ]
    ],
    indptr: numpy.typing.NDArray[numpy.int64],
    indices: numpy.typing.NDArray[numpy.int64],
    values: numpy.typing.NDArray[numpy.float32],
    x: numpy.typing.NDArray[numpy.float32],
    scale: numpy.typing.NDArray[numpy.float32],
    first: typing.SupportsInt | typing.SupportsIndex,
    last: typing.SupportsInt | typing.SupportsIndex,
    y: numpy.typing.NDArray[numpy.float32],
    n_threads: typing.SupportsInt | typing.SupportsIndex,
) -> None: ...
@typing.overload
def multiply(
    blocks: list[
        tuple[
            numpy.ndarray,
            typing.SupportsInt | typing.SupportsIndex,
            typing.SupportsInt | typing.SupportsIndex,
        ]
    ],
    indptr: numpy.typing.NDArray[numpy.int32],
    indices: numpy.typing.NDArray[numpy.int32],
    values: numpy.typing.NDArray[numpy.float32],
    x: numpy.typing.NDArray[numpy.float64],
    scale: numpy.typing.NDArray[numpy.float64],
    first: typing.SupportsInt | typing.SupportsIndex,
    last: typing.SupportsInt | typing.SupportsIndex,
    y: numpy.typing.NDArray[numpy.float64],
    n_threads: typing.SupportsInt | typing.SupportsIndex,
) -> None: ...
@typing.overload
def multiply(
    blocks: list[
        tuple[
            numpy.ndarray,
            typing.SupportsInt | typing.SupportsIndex,
            typing.SupportsInt | typing.SupportsIndex,
        ]
    ],
    indptr: numpy.typing.NDArray[numpy.int64],
    indices: numpy.typing.NDArray[numpy.int64],
    values: numpy.typing.NDArray[numpy.float32],
    x: numpy.typing.NDArray[numpy.float64],
    scale: numpy.typing.NDArray[numpy.float64],
    first: typing.SupportsInt | typing.SupportsIndex,
    last: typing.SupportsInt | typing.SupportsIndex,
    y: numpy.typing.NDArray[numpy.float64],
    n_threads: typing.SupportsInt | typing.SupportsIndex,
) -> None: ...
@typing.overload
def multiply(
    blocks: list[
        tuple[
            numpy.ndarray,
            typing.SupportsInt | typing.SupportsIndex,
            typing.SupportsInt | typing.SupportsIndex,
        ]
    ],
    indptr: numpy.typing.NDArray[numpy.int32],
    indices: numpy.typing.NDArray[numpy.int32],
    values: numpy.typing.NDArray[numpy.float64],
    x: numpy.typing.NDArray[numpy.float32],
    scale: numpy.typing.NDArray[numpy.float32],
    first: typing.SupportsInt | typing.SupportsIndex,
    last: typing.SupportsInt | typing.SupportsIndex,
    y: numpy.typing.NDArray[numpy.float32],
    n_threads: typing.SupportsInt | typing.SupportsIndex,
) -> None: ...
@typing.overload
def multiply(
    blocks: list[
        tuple[
            numpy.ndarray,
            typing.SupportsInt | typing.SupportsIndex,
            typing.SupportsInt | typing.SupportsIndex,
        ]
    ],
    indptr: numpy.typing.NDArray[numpy.int64],
    indices: numpy.typing.NDArray[numpy.int64],
    values: numpy.typing.NDArray[numpy.float64],
    x: numpy.typing.NDArray[numpy.float32],
    scale: numpy.typing.NDArray[numpy.float32],
    first: typing.SupportsInt | typing.SupportsIndex,
    last: typing.SupportsInt | typing.SupportsIndex,
    y: numpy.typing.NDArray[numpy.float32],
    n_threads: typing.SupportsInt | typing.SupportsIndex,
) -> None: ...
@typing.overload
def multiply(
    blocks: list[
        tuple[
            numpy.ndarray,
            typing.SupportsInt | typing.SupportsIndex,
            typing.SupportsInt | typing.SupportsIndex,
        ]
    ],
    indptr: numpy.typing.NDArray[numpy.int32],
    indices: numpy.typing.NDArray[numpy.int32],
    values: numpy.typing.NDArray[numpy.float64],
    x: numpy.typing.NDArray[numpy.float64],
    scale: numpy.typing.NDArray[numpy.float64],
    first: typing.SupportsInt | typing.SupportsIndex,
    last: typing.SupportsInt | typing.SupportsIndex,
    y: numpy.typing.NDArray[numpy.float64],
    n_threads: typing.SupportsInt | typing.SupportsIndex,
) -> None: ...
@typing.overload
def multiply(
    blocks: list[
        tuple[
            numpy.ndarray,
            typing.SupportsInt | typing.SupportsIndex,
            typing.SupportsInt | typing.SupportsIndex,
        ]
    ],
    indptr: numpy.typing.NDArray[numpy.int64],
    indices: numpy.typing.NDArray[numpy.int64],
    values: numpy.typing.NDArray[numpy.float64],
    x: numpy.typing.NDArray[numpy.float64],
    scale: numpy.typing.NDArray[numpy.float64],
    first: typing.SupportsInt | typing.SupportsIndex,
    last: typing.SupportsInt | typing.SupportsIndex,
    y: numpy.typing.NDArray[numpy.float64],
    n_threads: typing.SupportsInt | typing.SupportsIndex,
) -> None: ...
@typing.overload
def multiply_bfloat16(
    blocks: list[
        tuple[
            numpy.ndarray,
            typing.SupportsInt | typing.SupportsIndex,
            typing.SupportsInt | typing.SupportsIndex,
        ]
    ],
    indptr: numpy.typing.NDArray[numpy.int32],
    indices: numpy.typing.NDArray[numpy.int32],
    values: numpy.typing.NDArray[numpy.float32],
    x: numpy.typing.NDArray[numpy.float32],
    scale: numpy.typing.NDArray[numpy.float32],
    first: typing.SupportsInt | typing.SupportsIndex,
    last: typing.SupportsInt | typing.SupportsIndex,
    y: numpy.typing.NDArray[numpy.float32],
    n_threads: typing.SupportsInt | typing.SupportsIndex,
) -> None: ...
@typing.overload
def multiply_bfloat16(
    blocks: list[
        tuple[
            numpy.ndarray,
            typing.SupportsInt | typing.SupportsIndex,
            typing.SupportsInt | typing.SupportsIndex,
        ]
    ],
    indptr: numpy.typing.NDArray[numpy.int64],
    indices: numpy.typing.NDArray[numpy.int64],
    values: numpy.typing.NDArray[numpy.float32],
    x: numpy.typing.NDArray[numpy.float32],
    scale: numpy.typing.NDArray[numpy.float32],
    first: typing.SupportsInt | typing.SupportsIndex,
    last: typing.SupportsInt | typing.SupportsIndex,
    y: numpy.typing.NDArray[numpy.float32],
    n_threads: typing.SupportsInt | typing.SupportsIndex,
) -> None: ...
@typing.overload
def multiply_bfloat16(
    blocks: list[
        tuple[
            numpy.ndarray,
            typing.SupportsInt | typing.SupportsIndex,
            typing.SupportsInt | typing.SupportsIndex,
        ]
    ],
    indptr: numpy.typing.NDArray[numpy.int32],
    indices: numpy.typing.NDArray[numpy.int32],
    values: numpy.typing.NDArray[numpy.float32],
    x: numpy.typing.NDArray[numpy.float64],
    scale: numpy.typing.NDArray[numpy.float64],
    first: typing.SupportsInt | typing.SupportsIndex,
    last: typing.SupportsInt | typing.SupportsIndex,
    y: numpy.typing.NDArray[numpy.float64],
    n_threads: typing.SupportsInt | typing.SupportsIndex,
) -> None: ...
@typing.overload
def multiply_bfloat16(
    blocks: list[
        tuple[
            numpy.ndarray,
            typing.SupportsInt | typing.SupportsIndex,
            typing.SupportsInt | typing.SupportsIndex,
        ]
    ],
    indptr: numpy.typing.NDArray[numpy.int64],
    indices: numpy.typing.NDArray[numpy.int64],
    values: numpy.typing.NDArray[numpy.float32],
    x: numpy.typing.NDArray[numpy.float64],
    scale: numpy.typing.NDArray[numpy.float64],
    first: typing.SupportsInt | typing.SupportsIndex,
    last: typing.SupportsInt | typing.SupportsIndex,
    y: numpy.typing.NDArray[numpy.float64],
    n_threads: typing.SupportsInt | typing.SupportsIndex,
) -> None: ...
@typing.overload
def multiply_half(
    blocks: list[
        tuple[
            numpy.ndarray,
            typing.SupportsInt | typing.SupportsIndex,
            typing.SupportsInt | typing.SupportsIndex,
        ]
    ],
    indptr: numpy.typing.NDArray[numpy.int32],
    indices: numpy.typing.NDArray[numpy.int32],
    values: numpy.typing.NDArray[numpy.float32],
    x: numpy.typing.NDArray[numpy.float32],
    scale: numpy.typing.NDArray[numpy.float32],
    first: typing.SupportsInt | typing.SupportsIndex,
    last: typing.SupportsInt | typing.SupportsIndex,
    y: numpy.typing.NDArray[numpy.float32],
    n_threads: typing.SupportsInt | typing.SupportsIndex,
) -> None: ...
@typing.overload
def multiply_half(
    blocks: list[
        tuple[
            numpy.ndarray,
            typing.SupportsInt | typing.SupportsIndex,
            typing.SupportsInt | typing.SupportsIndex,
        ]
    ],
    indptr: numpy.typing.NDArray[numpy.int64],
    indices: numpy.typing.NDArray[numpy.int64],
    values: numpy.typing.NDArray[numpy.float32],
    x: numpy.typing.NDArray[numpy.float32],
    scale: numpy.typing.NDArray[numpy.float32],
    first: typing.SupportsInt | typing.SupportsIndex,
    last: typing.SupportsInt | typing.SupportsIndex,
    y: numpy.typing.NDArray[numpy.float32],
    n_threads: typing.SupportsInt | typing.SupportsIndex,
) -> None: ...
@typing.overload
def multiply_half(
    blocks: list[
        tuple[
            numpy.ndarray,
            typing.SupportsInt | typing.SupportsIndex,
            typing.SupportsInt | typing.SupportsIndex,
        ]
    ],
    indptr: numpy.typing.NDArray[numpy.int32],
    indices: numpy.typing.NDArray[numpy.int32],
    values: numpy.typing.NDArray[numpy.float32],
    x: numpy.typing.NDArray[numpy.float64],
    scale: numpy.typing.NDArray[numpy.float64],
    first: typing.SupportsInt | typing.SupportsIndex,
    last: typing.SupportsInt | typing.SupportsIndex,
    y: numpy.typing.NDArray[numpy.float64],
    n_threads: typing.SupportsInt | typing.SupportsIndex,
) -> None: ...
@typing.overload
def multiply_half(
    blocks: list[
        tuple[
            numpy.ndarray,
            typing.SupportsInt | typing.SupportsIndex,
            typing.SupportsInt | typing.SupportsIndex,
        ]
    ],
    indptr: numpy.typing.NDArray[numpy.int64],
    indices: numpy.typing.NDArray[numpy.int64],
    values: numpy.typing.NDArray[numpy.float32],
    x: numpy.typing.NDArray[numpy.float64],
    scale: numpy.typing.NDArray[numpy.float64],
    first: typing.SupportsInt | typing.SupportsIndex,
    last: typing.SupportsInt | typing.SupportsIndex,
    y: numpy.typing.NDArray[numpy.float64],
    n_threads: typing.SupportsInt | typing.SupportsIndex,
) -> None: ...
@typing.overload
def normalize_neurons(
    incoming: numpy.typing.NDArray[numpy.float32],
    bias: numpy.typing.NDArray[numpy.float32] | None,
    outgoing: numpy.typing.NDArray[numpy.float32],
    norm: typing.SupportsFloat | typing.SupportsIndex,
) -> bool: ...
@typing.overload
def normalize_neurons(
    incoming: numpy.typing.NDArray[numpy.float64],
    bias: numpy.typing.NDArray[numpy.float64] | None,
    outgoing: numpy.typing.NDArray[numpy.float64],
    norm: typing.SupportsFloat | typing.SupportsIndex,
) -> bool: ...
@typing.overload
def orthonormalize(
    block: numpy.typing.NDArray[numpy.float32],
    against: numpy.typing.NDArray[numpy.float32],
    n_columns: typing.SupportsInt | typing.SupportsIndex,
    inside: numpy.typing.NDArray[numpy.float32],
    out: numpy.typing.NDArray[numpy.float32],
    factor: numpy.typing.NDArray[numpy.float64],
) -> bool: ...
@typing.overload
def orthonormalize(
    block: numpy.typing.NDArray[numpy.float64],
    against: numpy.typing.NDArray[numpy.float64],
    n_columns: typing.SupportsInt | typing.SupportsIndex,
    inside: numpy.typing.NDArray[numpy.float64],
    out: numpy.typing.NDArray[numpy.float64],
    factor: numpy.typing.NDArray[numpy.float64],
) -> bool: ...
@typing.overload
def permuted(
    values: numpy.typing.NDArray[numpy.float32],
    out: numpy.typing.NDArray[numpy.float32],
    seed: typing.SupportsInt | typing.SupportsIndex,
    stream: typing.SupportsInt | typing.SupportsIndex,
    substream: typing.SupportsInt | typing.SupportsIndex,
) -> None: ...
@typing.overload
def permuted(
    values: numpy.typing.NDArray[numpy.float64],
    out: numpy.typing.NDArray[numpy.float64],
    seed: typing.SupportsInt | typing.SupportsIndex,
    stream: typing.SupportsInt | typing.SupportsIndex,
    substream: typing.SupportsInt | typing.SupportsIndex,
) -> None: ...
@typing.overload
def permuted(
    values: numpy.typing.NDArray[numpy.uint16],
    out: numpy.typing.NDArray[numpy.uint16],
    seed: typing.SupportsInt | typing.SupportsIndex,
    stream: typing.SupportsInt | typing.SupportsIndex,
    substream: typing.SupportsInt | typing.SupportsIndex,
) -> None: ...
@typing.overload
def random_pattern(
    indptr: numpy.typing.NDArray[numpy.int32],
    indices: numpy.typing.NDArray[numpy.int32],
    n_cols: typing.SupportsInt | typing.SupportsIndex,
    triangle: bool,
    seed: typing.SupportsInt | typing.SupportsIndex,
    stream: typing.SupportsInt | typing.SupportsIndex,
    substream: typing.SupportsInt | typing.SupportsIndex,
) -> None: ...
@typing.overload
def random_pattern(
    indptr: numpy.typing.NDArray[numpy.int64],
    indices: numpy.typing.NDArray[numpy.int64],
    n_cols: typing.SupportsInt | typing.SupportsIndex,
    triangle: bool,
    seed: typing.SupportsInt | typing.SupportsIndex,
    stream: typing.SupportsInt | typing.SupportsIndex,
    substream: typing.SupportsInt | typing.SupportsIndex,
) -> None: ...
@typing.overload
def refine(
    blocks: list[
        tuple[
            numpy.ndarray,
            typing.SupportsInt | typing.SupportsIndex,
            typing.SupportsInt | typing.SupportsIndex,
        ]
    ],
    indptr: numpy.typing.NDArray[numpy.int32],
    indices: numpy.typing.NDArray[numpy.int32],
    values: numpy.typing.NDArray[numpy.float32],
    degrees: numpy.typing.NDArray[numpy.float64],
    k: typing.SupportsInt | typing.SupportsIndex,
    max_passes: typing.SupportsInt | typing.SupportsIndex,
    links: numpy.typing.NDArray[numpy.float64],
    totals: numpy.typing.NDArray[numpy.float64],
    labels: numpy.typing.NDArray[numpy.int32],
) -> int: ...
@typing.overload
def refine(
    blocks: list[
        tuple[
            numpy.ndarray,
            typing.SupportsInt | typing.SupportsIndex,
            typing.SupportsInt | typing.SupportsIndex,
        ]
    ],
    indptr: numpy.typing.NDArray[numpy.int64],
    indices: numpy.typing.NDArray[numpy.int64],
    values: numpy.typing.NDArray[numpy.float32],
    degrees: numpy.typing.NDArray[numpy.float64],
    k: typing.SupportsInt | typing.SupportsIndex,
    max_passes: typing.SupportsInt | typing.SupportsIndex,
    links: numpy.typing.NDArray[numpy.float64],
    totals: numpy.typing.NDArray[numpy.float64],
    labels: numpy.typing.NDArray[numpy.int32],
) -> int: ...
@typing.overload
def refine(
    blocks: list[
        tuple[
            numpy.ndarray,
            typing.SupportsInt | typing.SupportsIndex,
            typing.SupportsInt | typing.SupportsIndex,
        ]
    ],
    indptr: numpy.typing.NDArray[numpy.int32],
    indices: numpy.typing.NDArray[numpy.int32],
    values: numpy.typing.NDArray[numpy.float64],
    degrees: numpy.typing.NDArray[numpy.float64],
    k: typing.SupportsInt | typing.SupportsIndex,
    max_passes: typing.SupportsInt | typing.SupportsIndex,
    links: numpy.typing.NDArray[numpy.float64],
    totals: numpy.typing.NDArray[numpy.float64],
    labels: numpy.typing.NDArray[numpy.int32],
) -> int: ...
@typing.overload
def refine(
    blocks: list[
        tuple[
            numpy.ndarray,
            typing.SupportsInt | typing.SupportsIndex,
            typing.SupportsInt | typing.SupportsIndex,
        ]
    ],
    indptr: numpy.typing.NDArray[numpy.int64],
    indices: numpy.typing.NDArray[numpy.int64],
    values: numpy.typing.NDArray[numpy.float64],
    degrees: numpy.typing.NDArray[numpy.float64],
    k: typing.SupportsInt | typing.SupportsIndex,
    max_passes: typing.SupportsInt | typing.SupportsIndex,
    links: numpy.typing.NDArray[numpy.float64],
    totals: numpy.typing.NDArray[numpy.float64],
    labels: numpy.typing.NDArray[numpy.int32],
) -> int: ...
@typing.overload
def refine_bfloat16(
    blocks: list[
        tuple[
            numpy.ndarray,
            typing.SupportsInt | typing.SupportsIndex,
            typing.SupportsInt | typing.SupportsIndex,
        ]
    ],
    indptr: numpy.typing.NDArray[numpy.int32],
    indices: numpy.typing.NDArray[numpy.int32],
    values: numpy.typing.NDArray[numpy.float32],
    degrees: numpy.typing.NDArray[numpy.float64],
    k: typing.SupportsInt | typing.SupportsIndex,
    max_passes: typing.SupportsInt | typing.SupportsIndex,
    links: numpy.typing.NDArray[numpy.float64],
    totals: numpy.typing.NDArray[numpy.float64],
    labels: numpy.typing.NDArray[numpy.int32],
) -> int: ...
@typing.overload
def refine_bfloat16(
    blocks: list[
        tuple[
            numpy.ndarray,
            typing.SupportsInt | typing.SupportsIndex,
            typing.SupportsInt | typing.SupportsIndex,
        ]
    ],
    indptr: numpy.typing.NDArray[numpy.int64],
    indices: numpy.typing.NDArray[numpy.int64],
    values: numpy.typing.NDArray[numpy.float32],
    degrees: numpy.typing.NDArray[numpy.float64],
    k: typing.SupportsInt | typing.SupportsIndex,
    max_passes: typing.SupportsInt | typing.SupportsIndex,
    links: numpy.typing.NDArray[numpy.float64],
    totals: numpy.typing.NDArray[numpy.float64],
    labels: numpy.typing.NDArray[numpy.int32],
) -> int: ...
@typing.overload
def refine_half(
    blocks: list[
        tuple[
            numpy.ndarray,
            typing.SupportsInt | typing.SupportsIndex,
            typing.SupportsInt | typing.SupportsIndex,
        ]
    ],
    indptr: numpy.typing.NDArray[numpy.int32],
    indices: numpy.typing.NDArray[numpy.int32],
    values: numpy.typing.NDArray[numpy.float32],
    degrees: numpy.typing.NDArray[numpy.float64],
    k: typing.SupportsInt | typing.SupportsIndex,
    max_passes: typing.SupportsInt | typing.SupportsIndex,
    links: numpy.typing.NDArray[numpy.float64],
    totals: numpy.typing.NDArray[numpy.float64],
    labels: numpy.typing.NDArray[numpy.int32],
) -> int: ...
@typing.overload
def refine_half(
    blocks: list[
        tuple[
            numpy.ndarray,
            typing.SupportsInt | typing.SupportsIndex,
            typing.SupportsInt | typing.SupportsIndex,
        ]
    ],
    indptr: numpy.typing.NDArray[numpy.int64],
    indices: numpy.typing.NDArray[numpy.int64],
    values: numpy.typing.NDArray[numpy.float32],
    degrees: numpy.typing.NDArray[numpy.float64],
    k: typing.SupportsInt | typing.SupportsIndex,
    max_passes: typing.SupportsInt | typing.SupportsIndex,
    links: numpy.typing.NDArray[numpy.float64],
    totals: numpy.typing.NDArray[numpy.float64],
    labels: numpy.typing.NDArray[numpy.int32],
) -> int: ...
@typing.overload
def scan(values: numpy.typing.NDArray[numpy.float32]) -> tuple[int, int, int, int]: ...
@typing.overload
def scan(values: numpy.typing.NDArray[numpy.float64]) -> tuple[int, int, int, int]: ...
@typing.overload
def scan(values: numpy.typing.NDArray[numpy.float16]) -> tuple[int, int, int, int]: ...
@typing.overload
def scan(values: numpy.typing.NDArray[numpy.uint16]) -> tuple[int, int, int, int]: ...
def sinkhorn_dense(
    weights: numpy.typing.NDArray[numpy.float64],
    triangle: bool,
    tolerance: typing.SupportsFloat | typing.SupportsIndex,
    max_sweeps: typing.SupportsInt | typing.SupportsIndex,
    factors: numpy.typing.NDArray[numpy.float64],
) -> float: ...
@typing.overload
def sinkhorn_sparse(
    indptr: numpy.typing.NDArray[numpy.int32],
    indices: numpy.typing.NDArray[numpy.int32],
    values: numpy.typing.NDArray[numpy.float64],
    n_cols: typing.SupportsInt | typing.SupportsIndex,
    triangle: bool,
    tolerance: typing.SupportsFloat | typing.SupportsIndex,
    max_sweeps: typing.SupportsInt | typing.SupportsIndex,
    factors: numpy.typing.NDArray[numpy.float64],
) -> float: ...
@typing.overload
def sinkhorn_sparse(
    indptr: numpy.typing.NDArray[numpy.int64],
    indices: numpy.typing.NDArray[numpy.int64],
    values: numpy.typing.NDArray[numpy.float64],
    n_cols: typing.SupportsInt | typing.SupportsIndex,
    triangle: bool,
    tolerance: typing.SupportsFloat | typing.SupportsIndex,
    max_sweeps: typing.SupportsInt | typing.SupportsIndex,
    factors: numpy.typing.NDArray[numpy.float64],
) -> float: ...
def trade(
    indptr: numpy.typing.NDArray[numpy.int64],
    indices: numpy.typing.NDArray[numpy.int64],
    n_cols: typing.SupportsInt | typing.SupportsIndex,
    values: numpy.typing.NDArray[numpy.float64],
    row_bins: numpy.typing.NDArray[numpy.float64],
    col_bins: numpy.typing.NDArray[numpy.float64],
    triangle: bool,
    halves: typing.SupportsInt | typing.SupportsIndex,
    seed: typing.SupportsInt | typing.SupportsIndex,
    stream: typing.SupportsInt | typing.SupportsIndex,
    substream: typing.SupportsInt | typing.SupportsIndex,
) -> None: ...
def unit_variance(
    points: numpy.typing.NDArray[numpy.float64], scaled: numpy.typing.NDArray[numpy.float32]
) -> bool: ...
@typing.overload
def update_eigenvectors(
    blocks: list[
        tuple[
            numpy.ndarray,
            typing.SupportsInt | typing.SupportsIndex,
            typing.SupportsInt | typing.SupportsIndex,
        ]
    ],
    n_first: typing.SupportsInt | typing.SupportsIndex,
    n_wanted: typing.SupportsInt | typing.SupportsIndex,
    tolerance: typing.SupportsFloat | typing.SupportsIndex,
    max_products: typing.SupportsInt | typing.SupportsIndex,
    seed: typing.SupportsInt | typing.SupportsIndex,
    stream: typing.SupportsInt | typing.SupportsIndex,
    n_threads: typing.SupportsInt | typing.SupportsIndex,
    basis: numpy.typing.NDArray[numpy.float32],
    degrees: numpy.typing.NDArray[numpy.float64],
    values: numpy.typing.NDArray[numpy.float64],
    residuals: numpy.typing.NDArray[numpy.float64],
    vectors: numpy.typing.NDArray[numpy.float32],
) -> tuple[int, bool, bool]: ...
@typing.overload
def update_eigenvectors(
    blocks: list[
        tuple[
            numpy.ndarray,
            typing.SupportsInt | typing.SupportsIndex,
            typing.SupportsInt | typing.SupportsIndex,
        ]
    ],
    n_first: typing.SupportsInt | typing.SupportsIndex,
    n_wanted: typing.SupportsInt | typing.SupportsIndex,
    tolerance: typing.SupportsFloat | typing.SupportsIndex,
    max_products: typing.SupportsInt | typing.SupportsIndex,
    seed: typing.SupportsInt | typing.SupportsIndex,
    stream: typing.SupportsInt | typing.SupportsIndex,
    n_threads: typing.SupportsInt | typing.SupportsIndex,
    basis: numpy.typing.NDArray[numpy.float64],
    degrees: numpy.typing.NDArray[numpy.float64],
    values: numpy.typing.NDArray[numpy.float64],
    residuals: numpy.typing.NDArray[numpy.float64],
    vectors: numpy.typing.NDArray[numpy.float64],
) -> tuple[int, bool, bool]: ...
def use_instruction_set(name: str) -> None:
    """
    Run the kernels of another instruction set from now on.
    """
