"""Eigensolvers on a device: block Lanczos in float32, a dense solver for small problems.

As in `ncut.spectral.solvers` each is a function (operator, known, k, rng) -> (vectors, following):
eigenvectors of the k largest eigenvalues of M orthogonal to the orthonormal columns of `known`, and
the eigenvalue that follows. Vectors are device arrays of float64 in the graph's numbering; start
vectors come from the host, so that they are the same on every device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncut.device.devices import astype, concat
from ncut.device.operator import DeviceOperator
from ncut.errors import InputError
from ncut.spectral.krylov import MAX_BLOCKS, basis_size, block_lanczos, block_width, room_needed
from ncut.spectral.solvers import (
    LAST_DENSE,
    MAX_PRODUCTS,
    ZERO_SINGULAR_VALUE,
    check_sides,
    fits_small_side,
    following_mu,
    krylov_tolerance,
    small_side,
)

Found = tuple[Any, float]

DIRECT_SIZE = 1024
"""Up to this many rows a dense eigenproblem is solved at once: a Lanczos step on a GPU takes as
long as starting its some fifty kernels, however small the graph."""


ALWAYS = 2**26
"""Bytes of a dense eigenproblem that is solved whatever the budget."""


def choose_solver(operator: DeviceOperator, n_known: int, k: int) -> str:
    """What `solver="auto"` means for a graph on a device."""
    if fits_small_side(operator, n_known, k):
        size, direct = small_side(operator), "gram"
    else:
        size, direct = operator.n_vertices, "dense"
    limit = DIRECT_SIZE if operator.device.is_cuda else 3 * basis_size(k) // 2
    small = size <= max(limit, 3 * basis_size(k) // 2) or size - n_known < room_needed(k)
    return direct if small else "krylov"


def dense(operator: DeviceOperator, known: Any, k: int, rng: np.random.Generator) -> Found:
    """cuSOLVER (or what else the namespace has) on the full matrix, in float64."""
    matrix = _assembled(operator, operator.apply, operator.n_vertices)
    return _largest_dense(operator, matrix - 4.0 * (known @ known.T), k)


def gram(operator: DeviceOperator, known: Any, k: int, rng: np.random.Generator) -> Found:
    """The same on C' C, for a graph of two colours with M = [[0, C], [C', 0]]."""
    check_sides(operator, known.shape[1], k)
    matrix = _assembled(operator, operator.apply_gram, small_side(operator))
    side = operator.small_side(known)
    vectors, square = _largest_dense(operator, matrix - 8.0 * (side @ side.T), k)
    return _both_sides(operator, vectors), np.sqrt(max(square, 0.0)).item()


def krylov(
    operator: DeviceOperator,
    known: Any,
    k: int,
    rng: np.random.Generator,
    dtype: Any = np.float32,
    whole: bool = False,
) -> Found:
    """Block Lanczos on the blocks of weights.

    On C' C if the graph has two colours, else (and with `whole`) on M.
    """
    xp = operator.device.xp
    bipartite = not whole and fits_small_side(operator, known.shape[1], k)
    size = small_side(operator) if bipartite else operator.n_vertices
    if size - known.shape[1] < room_needed(k):
        raise InputError(
            f"solver: krylov needs a larger graph to find {k} eigenvectors; use 'auto' or 'dense'"
        )
    locked = operator.small_side(known) * np.sqrt(2.0).item() if bipartite else known
    start = rng.standard_normal((size, block_width(k)), dtype=np.float32).astype(dtype)
    on_device = operator.device.asarray(start)
    found = block_lanczos(
        operator.apply_gram if bipartite else operator.apply,
        on_device,
        astype(locked, on_device.dtype, xp),
        k,
        tolerance=krylov_tolerance(k, bipartite, single=dtype == np.float32),
        max_blocks=MAX_BLOCKS,
        max_products=MAX_PRODUCTS,
        arrays=operator.device,
    )
    vectors = astype(found.vectors, xp.float64, xp)
    if not bipartite:
        return vectors, following_mu(found, bipartite)
    return _both_sides(operator, vectors), following_mu(found, bipartite)


def krylov_float64(operator: DeviceOperator, known: Any, k: int, rng: np.random.Generator) -> Found:
    """The same in float64."""
    return krylov(operator, known, k, rng, np.float64)


SOLVERS: dict[str, Callable[..., Found]] = {"gram": gram, "krylov": krylov, "dense": dense}

ALL = SOLVERS | {"krylov-float64": krylov_float64}
"""With the one that takes over where float32 is not enough."""


def last_resorts(operator: DeviceOperator, n_known: int, k: int, first: str) -> Sequence[str]:
    """What "auto" tries where the solver it chose did not converge."""
    on_side = fits_small_side(operator, n_known, k)
    size = small_side(operator) if on_side else operator.n_vertices
    if first != "krylov" or size > LAST_DENSE or not _fits(operator, size):
        return ()
    return ("gram" if on_side else "dense",)


def check_device_solver(solver: str) -> str:
    """Return the solver's name, or refuse one that needs the CPU."""
    if solver != "auto" and solver not in SOLVERS:
        raise InputError(
            f"solver: {solver!r} runs on the CPU only; use 'auto', {', '.join(SOLVERS)}, or "
            "device='cpu'"
        )
    return solver


def rayleigh_ritz(
    operator: DeviceOperator, vectors: Any
) -> tuple[NDArray[np.float64], Any, NDArray[np.float64]]:
    """The best eigenpairs of M in the span of `vectors`: values descending, vectors, R' R."""
    device = operator.device
    block, _ = device.xp.linalg.qr(vectors)
    product = operator.apply(block)
    projected = device.to_host(block.T @ product)
    values, mixture = np.linalg.eigh((projected + projected.T) / 2)
    values, mixture = values[::-1], np.ascontiguousarray(mixture[:, ::-1])
    on_device = device.asarray(mixture)
    vectors = block @ on_device
    scaled = vectors * device.asarray(np.ascontiguousarray(values))[None, :]
    residuals = product @ on_device - scaled
    return values, vectors, device.to_host(residuals.T @ residuals)


def _assembled(operator: DeviceOperator, apply: Callable[[Any], Any], size: int) -> Any:
    """The matrix of an operator in float64, some columns at a time; refused where it is large."""
    device, xp = operator.device, operator.device.xp
    if not _fits(operator, size):
        raise InputError(
            f"solver: a dense matrix of {size} rows does not fit on the device; use 'krylov'"
        )
    # What a product needs for each column: vectors of both sides, in float64.
    step = max(1, min(size, device.budget // 8 // (4 * 8 * operator.n_vertices)))
    identity = xp.eye(size, dtype=xp.float64)
    columns = [apply(identity[:, start : start + step]) for start in range(0, size, step)]
    return concat(columns, xp, axis=1)


def _fits(operator: DeviceOperator, size: int) -> bool:
    """Whether a dense eigenproblem of so many rows fits on the device."""
    return 6 * 8 * size**2 <= max(operator.device.budget, ALWAYS)


def _largest_dense(operator: DeviceOperator, matrix: Any, k: int) -> Found:
    values, vectors = operator.device.xp.linalg.eigh((matrix + matrix.T) / 2)
    n = matrix.shape[0]
    following = float(values[n - k - 1]) if k < n else -1.0
    return vectors[:, -k:], following


def _both_sides(operator: DeviceOperator, small: Any) -> Any:
    """Eigenvectors [C v / sigma, v] / sqrt 2 of M from right singular vectors v, sigma = |C v|.

    Where sigma is zero, the vector is [0, v].
    """
    xp = operator.device.xp
    large = operator.to_large(small)
    sigma = xp.sqrt(xp.sum(large * large, axis=0))
    zero = sigma < ZERO_SINGULAR_VALUE
    large = xp.where(zero, xp.zeros_like(large), large / xp.where(zero, xp.ones_like(sigma), sigma))
    return operator.joined(large, small) / np.sqrt(2.0).item()
