"""The only importer of the compiled core: chooses the kernel, allocates outputs, calls."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ncut.errors import InputError
from ncut.types import Block

try:
    import ncut._core as _core
except ImportError as error:
    raise ImportError(
        "ncut's compiled core is missing: install the package (pip install .) instead of "
        "importing it from its source folder"
    ) from error

if TYPE_CHECKING:
    from ncut.types import Weights

    PlacedBlocks = Sequence[tuple[int, int, Block]]
    """Blocks with the first vertex of their source and of their target layer."""


def _bits(weights: NDArray[Any]) -> NDArray[Any]:
    """bfloat16 weights as the bits that the compiled core reads."""
    is_bfloat16 = weights.itemsize == 2 and weights.dtype != np.float16
    return weights.view(np.uint16) if is_bfloat16 else weights


def _view(weights: Weights) -> tuple[str, tuple[Any, ...]]:
    """The family of kernels for these weights, and the arguments that describe them."""
    if isinstance(weights, np.ndarray):
        return "dense", (_bits(weights),)
    return "sparse", (weights.indptr, weights.indices, weights.data, weights.shape[1])


def _call(kernel: str, weights: Weights, *arguments: Any) -> None:
    family, view = _view(weights)
    getattr(_core, f"{kernel}_{family}")(*view, *arguments)


def build() -> tuple[str, str]:
    """The compiler of the core, and the instruction set whose kernels run."""
    return _core.build()


def instruction_sets() -> list[str]:
    """Instruction sets with kernels that this machine can run, best first."""
    return _core.instruction_sets()


def use_instruction_set(name: str) -> None:
    """Switch to the kernels of another instruction set, in all threads."""
    try:
        _core.use_instruction_set(name)
    except ValueError as error:
        names = ", ".join(instruction_sets())
        raise InputError(
            f"NCUT_ISA: must be one of {names} on this machine, got {name!r}"
        ) from error


if os.environ.get("NCUT_ISA"):
    use_instruction_set(os.environ["NCUT_ISA"])


class WeightScan(NamedTuple):
    """Numbers of NaN, infinite, negative, and non-zero values of an array."""

    n_nan: int
    n_infinite: int
    n_negative: int
    n_nonzero: int


class Squares(NamedTuple):
    """Sums of squared weights: inside clusters, and in total."""

    inside: float
    total: float


def scan(values: NDArray[np.floating]) -> WeightScan:
    """Count the invalid edge weights of a contiguous array, and the edges."""
    return WeightScan(*_core.scan(_bits(values)))


def count_edges(weights: Weights) -> int:
    """Number of non-zero weights of a block."""
    return scan(weights if isinstance(weights, np.ndarray) else weights.data).n_nonzero


def degrees(n_vertices: int, blocks: PlacedBlocks) -> NDArray[np.float64]:
    """Sum of the edge weights of each vertex, shape (n_vertices,)."""
    sums = np.zeros(n_vertices)
    for first_row, first_col, block in blocks:
        n_rows, n_cols = block.weights.shape
        rows, cols = sums[first_row : first_row + n_rows], sums[first_col : first_col + n_cols]
        _call("add_degrees", block.weights, rows, cols)
    return sums


def wide_type(blocks: Iterable[Block]) -> type[np.float32] | type[np.float64]:
    """float64 if any block's weights have it, else float32."""
    any_double = any(block.weights.dtype == np.float64 for block in blocks)
    return np.float64 if any_double else np.float32


def components(n_vertices: int, blocks: PlacedBlocks) -> NDArray[np.int64]:
    """Number of the connected component of each vertex, shape (n_vertices,), from 0 up."""
    parent = np.arange(n_vertices, dtype=np.int64)
    for first_row, first_col, block in blocks:
        _call("connect", block.weights, first_row, first_col, parent)
    # Roots are the smallest vertices of their sets, so parents never come after children.
    while not np.array_equal(parent, grand := parent[parent]):
        parent = grand
    return np.unique(parent, return_inverse=True)[1].astype(np.int64, copy=False)


def multiply(
    blocks: list[tuple[NDArray[np.floating], int, int]],
    sparse_part: tuple[NDArray[Any], NDArray[Any], NDArray[Any]],
    x: NDArray[np.floating],
    scale: NDArray[np.floating],
    rows: slice,
    y: NDArray[np.floating],
    threads: int,
) -> None:
    """y[rows] = scale[rows] * (A x)[rows], A the sum of the placed blocks, mirrored, and a CSR."""
    kernel, views = _of_width(blocks, "multiply")
    kernel(views, *sparse_part, x, scale, rows.start, rows.stop, y, threads)


def _of_width(
    blocks: list[tuple[NDArray[np.floating], int, int]], name: str
) -> tuple[Any, list[tuple[NDArray[Any], int, int]]]:
    """The kernel for the blocks' 16-bit type, if any has one, and the blocks in its form."""
    names = {"float16": f"{name}_half", "bfloat16": f"{name}_bfloat16"}
    kinds = {weights.dtype.name for weights, *_ in blocks if weights.itemsize == 2}
    views = [(_bits(weights), row, column) for weights, row, column in blocks]
    return getattr(_core, names[kinds.pop()] if kinds else name), views


def refine(
    blocks: list[tuple[NDArray[np.floating], int, int]],
    sparse_part: tuple[NDArray[Any], NDArray[Any], NDArray[Any]],
    degrees: NDArray[np.float64],
    k: int,
    max_passes: int,
    links: NDArray[np.float64],
    labels: NDArray[np.int32],
    totals: NDArray[np.float64] | None = None,
) -> int:
    """Lower the n-cut by moving single vertices, changing `labels`; the number of moves.

    links, shape (n, at least k): weight between each vertex and each cluster, kept up to date.
    totals, shape (3, k), kept up to date: inner weight (both directions), degrees and number of
    vertices of each cluster. Needed if these are some vertices of a larger graph; links then refer
    to the whole graph, and blocks hold the edges among these vertices.
    """
    if totals is None:
        inner = links[np.arange(labels.size), labels]
        sums = [np.bincount(labels, weights, k) for weights in (inner, degrees, None)]
        totals = np.stack(sums).astype(np.float64)
    kernel, views = _of_width(blocks, "refine")
    return int(kernel(views, *sparse_part, degrees, k, max_passes, links, totals, labels))


def orthonormalize(
    block: NDArray[Any], against: NDArray[Any], n_columns: int, inside: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[np.float64]] | None:
    """(Q, R) with block = Q R + a part in the span of the first columns of `against`.

    block (n, 16) and against (n, any) C-contiguous and of one type; inside = against' block,
    (n_columns, 16), is overwritten. None if the block has lost its rank.
    """
    out, factor = np.empty_like(block), np.empty((block.shape[1], block.shape[1]))
    done = _core.orthonormalize(block, against, n_columns, inside, out, factor)
    return (out, factor) if done else None


def assemble_csr(
    n_vertices: int, blocks: PlacedBlocks
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """`indptr`, `indices`, `data` of the symmetric adjacency; blocks sorted by source, target."""
    counts = np.zeros(n_vertices, dtype=np.int64)
    for first_row, first_col, block in blocks:
        n_rows, n_cols = block.weights.shape
        rows, cols = counts[first_row : first_row + n_rows], counts[first_col : first_col + n_cols]
        _call("count_nonzero", block.weights, rows, cols)
    indptr = np.zeros(n_vertices + 1, dtype=np.int64)
    np.cumsum(counts, out=indptr[1:])
    n_entries = int(indptr[-1])
    fits = max(n_entries, n_vertices) <= np.iinfo(np.int32).max
    indices = np.empty(n_entries, dtype=np.int32 if fits else np.int64)
    data = np.empty(n_entries, dtype=wide_type(block for *_, block in blocks))
    cursor = indptr[:-1].copy()
    for first_row, first_col, block in blocks:
        _call("fill_symmetric", block.weights, first_row, first_col, cursor, indices, data)
    return indptr.astype(indices.dtype), indices, data


def volumes_and_cuts(
    blocks: PlacedBlocks, labels: NDArray[np.int32], k: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Volume of each cluster and weight of the edges that leave it, each of shape (k,)."""
    volume, cut = np.zeros(k), np.zeros(k)
    for first_row, first_col, block in blocks:
        n_rows, n_cols = block.weights.shape
        rows, cols = labels[first_row : first_row + n_rows], labels[first_col : first_col + n_cols]
        _call("add_cut", block.weights, rows, cols, volume, cut)
    return volume, cut


def links(
    n_vertices: int, blocks: PlacedBlocks, labels: NDArray[np.int32], k: int, width: int
) -> NDArray[np.float64]:
    """Weight of the edges between each vertex and each of k clusters, (n_vertices, width >= k)."""
    sums = np.zeros((n_vertices, width))
    for first_row, first_col, block in blocks:
        n_rows, n_cols = block.weights.shape
        rows, cols = slice(first_row, first_row + n_rows), slice(first_col, first_col + n_cols)
        _call("add_links", block.weights, labels[rows], labels[cols], k, sums[rows], sums[cols])
    return sums


def inner_squares(block: Block, rows: NDArray[np.int32], cols: NDArray[np.int32]) -> Squares:
    """Sums of a block's squared weights, `rows` and `cols` the labels of its vertices."""
    sums = np.zeros(2)
    _call("add_squares", block.weights, rows, cols, sums)
    return Squares(float(sums[0]), float(sums[1]))


def permuted(
    values: NDArray[np.floating], seed: int, stream: int, substream: int
) -> NDArray[np.floating]:
    """A permuted copy of a contiguous array of any shape, every order equally likely."""
    if not values.flags.c_contiguous:
        raise ValueError("values: must be C-contiguous")
    out = np.empty_like(values, subok=False)
    flat, flat_out = values.reshape(-1), out.reshape(-1)
    if values.itemsize == 2:
        flat, flat_out = flat.view(np.uint16), flat_out.view(np.uint16)
    _core.permuted(flat, flat_out, seed, stream, substream)
    return out


def draw_kde(
    sample: NDArray[np.floating],
    bandwidth: float,
    values: NDArray[np.floating],
    seed: int,
    stream: int,
    substream: int,
) -> None:
    """Fill `values` with draws from the Gaussian kernel density of `sample`, folded at zero."""
    _core.draw_kde(sample, bandwidth, values, seed, stream, substream)


def trade(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int64],
    n_cols: int,
    values: NDArray[np.float64],
    bins: tuple[NDArray[np.float64], NDArray[np.float64]],
    *,
    triangle: bool,
    halves: int,
    seed: int,
    stream: int,
    substream: int,
) -> None:
    """Exchange the values of a CSR matrix, keeping each row's and column's sum in its bin.

    `values`, shape (n,), is changed in place; indices ascend in each row. bins: lower and upper
    limits of the rows' sums, shape (2, n_rows), and of the columns', (2, n_cols). With `triangle`
    the matrix is the strict upper triangle of a symmetric matrix, and only the rows' bins count.
    `halves`: number of rounds, in each of which rows or columns exchange in random pairs.
    """
    _core.trade(
        *(indptr, indices, n_cols, values, *bins, triangle, halves, seed, stream, substream)
    )


def sinkhorn(
    matrix: Weights, *, triangle: bool, tolerance: float, max_sweeps: int
) -> tuple[NDArray[np.float64], float]:
    """Factors that scale each row and column to a mean of 1, and the largest remaining deviation.

    matrix: float64, non-negative, of ordinary size; the factors have shape (n_rows + n_cols,), or
    (n_rows,) with `triangle`, for the strict upper triangle of a symmetric matrix.
    """
    rows, columns = matrix.shape
    factors = np.empty(rows if triangle else rows + columns)
    family, view = _view(matrix)
    left = getattr(_core, f"sinkhorn_{family}")(*view, triangle, tolerance, max_sweeps, factors)
    return factors, float(left)


def random_pattern(
    like: Any, triangle: bool, seed: int, stream: int, substream: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    """`indptr` and `indices` with as many entries as `like`, at random positions.

    Positions are anywhere in the matrix, or with `triangle` above the diagonal.
    """
    indptr, indices = np.empty_like(like.indptr), np.empty_like(like.indices)
    _core.random_pattern(indptr, indices, like.shape[1], triangle, seed, stream, substream)
    return indptr, indices


def unit_variance(points: NDArray[np.float64]) -> tuple[NDArray[np.float32], bool]:
    """The points (n, d) in float32, scaled to an average variance of 1 over their coordinates.

    Also whether float32 can tell them apart: not if some are a million times longer than others, or
    all lie far from the origin.
    """
    scaled = np.empty(points.shape, dtype=np.float32)
    return scaled, _core.unit_variance(points, scaled)


def kmeans(
    points: NDArray[np.float32] | NDArray[np.float64],
    n_clusters: int,
    *,
    n_init: int,
    max_iterations: int,
    tolerance: float,
    seed: int,
    stream: int,
    threads: int,
) -> tuple[NDArray[np.int32], float]:
    """Labels, shape (n,), and inertia of the best of `n_init` runs of k-means."""
    labels = np.empty(points.shape[0], dtype=np.int32)
    inertia = _core.kmeans(
        points, labels, n_clusters, n_init, max_iterations, tolerance, seed, stream, threads
    )
    return labels, inertia


class EigenvectorUpdate(NamedTuple):
    """Outcome of an update of eigenvectors."""

    n_products: int
    converged: bool
    broken: bool


def update_eigenvectors(
    blocks: list[Any],
    n_first: int,
    basis: NDArray[Any],
    degrees: NDArray[np.float64],
    values: NDArray[np.float64],
    residuals: NDArray[np.float64],
    vectors: NDArray[Any],
    *,
    n_wanted: int,
    tolerance: float,
    max_products: int,
    seed: int,
    stream: int,
    threads: int,
) -> EigenvectorUpdate:
    """Move `basis` (n - n_first, 16) closer to the leading eigenvectors of D^-1/2 |A| D^-1/2.

    Blocks: (signed weights, first row, first column) each; vertices before `n_first` and from it on
    have two colours, or n_first is 0. Fills `degrees` (n,), the largest eigenvalues except the
    first (16,), their residuals (16,), and D^-1/2 v of the eigenvectors (n, 16).
    """
    return EigenvectorUpdate(
        *_core.update_eigenvectors(
            *(blocks, n_first, n_wanted, tolerance, max_products, seed, stream, threads),
            *(basis, degrees, values, residuals, vectors),
        )
    )


def eigenvalue_gradient(
    blocks: list[Any],
    slopes: NDArray[np.float64],
    values: NDArray[np.float64],
    vectors: NDArray[Any],
    gradients: list[NDArray[Any]],
    threads: int,
) -> None:
    """Fill the gradient of sum(slopes * (1 - values)) for the signed weights of each block.

    slopes, values (16,) and vectors (n, 16) as `update_eigenvectors` gives them.
    """
    _core.eigenvalue_gradient(blocks, slopes, values, vectors, threads, gradients)


def normalize_neurons(
    incoming: NDArray[Any], bias: NDArray[Any] | None, outgoing: NDArray[Any], norm: float
) -> bool:
    """Rescale neurons in place, preserving the function; returns whether any was changed.

    incoming (n, n_in) and bias (n,) are multiplied so that each row has the given norm; the columns
    of outgoing (rows, n * m), m consecutive ones per neuron, are divided by the same factor.
    """
    return _core.normalize_neurons(incoming, bias, outgoing, norm)


class NetworkWeights:
    """A network of float32 weights whose shuffles are measured; see `spectral.compiled`.

    sizes: of the layers. colours: 0 or 1 for each layer, or none if two colours do not suffice.
    """

    def __init__(self, sizes: list[int], colours: list[int]) -> None:
        self._weights = _core.Source(sizes, colours)

    def add(self, block: Block, substream: int) -> None:
        """Copies a block's weights; `substream` is the first of its random numbers' two."""
        family, view = _view(block.weights)
        add = getattr(self._weights, f"add_{family}")
        add(block.source, block.target, substream, *view)

    def measure(self, **options: Any) -> dict[str, Any] | None:
        """The sums of one shuffled network; None if left to the reference."""
        found: dict[str, Any] | None = self._weights.measure(**options)
        return found

    def embed(self, **options: Any) -> dict[str, Any] | None:
        """The spectrum with rows in another order; None if left to the reference."""
        found: dict[str, Any] | None = self._weights.embed(**options)
        return found
