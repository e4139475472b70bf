"""Eigensolvers on a device: block Lanczos in float32, a dense solver for small problems.

As in `ncut.spectral.solvers` each is a function (operator, known, k, rng) -> (values, vectors):
the k largest eigenpairs of M orthogonal to the orthonormal columns of `known`. Vectors are device
arrays of float64 in the graph's numbering; start vectors come from the host, so that they are the
same on every device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncut.device.devices import astype, concat
from ncut.device.operator import DeviceOperator
from ncut.errors import InputError
from ncut.spectral.krylov import block_lanczos
from ncut.spectral.operator import WIDTH
from ncut.spectral.solvers import (
    TOLERANCE,
    ZERO_SINGULAR_VALUE,
    basis_size,
    check_sides,
    fits_small_side,
    small_side,
)

Pairs = tuple[Any, Any]

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
    return direct if size <= max(limit, 3 * basis_size(k) // 2) else "krylov"


def dense(operator: DeviceOperator, known: Any, k: int, rng: np.random.Generator) -> Pairs:
    """cuSOLVER (or what else the namespace has) on the full matrix, in float64."""
    matrix = _assembled(operator, operator.apply, operator.n_vertices)
    return _largest_dense(operator, matrix - 4.0 * (known @ known.T), k)


def gram(operator: DeviceOperator, known: Any, k: int, rng: np.random.Generator) -> Pairs:
    """The same on C' C, for a graph of two colours with M = [[0, C], [C', 0]]."""
    check_sides(operator, known.shape[1], k)
    matrix = _assembled(operator, operator.apply_gram, small_side(operator))
    side = operator.small_side(known)
    _, vectors = _largest_dense(operator, matrix - 8.0 * (side @ side.T), k)
    return _both_sides(operator, vectors)


def krylov(
    operator: DeviceOperator,
    known: Any,
    k: int,
    rng: np.random.Generator,
    dtype: Any = np.float32,
) -> Pairs:
    """Block Lanczos on the blocks of weights: on C' C if the graph has two colours, else on M."""
    xp = operator.device.xp
    bipartite = fits_small_side(operator, known.shape[1], k)
    size = small_side(operator) if bipartite else operator.n_vertices
    if size - known.shape[1] < basis_size(k):
        raise InputError(
            f"solver: krylov needs a larger graph to find {k} eigenvectors; use 'auto' or 'dense'"
        )
    locked = operator.small_side(known) * np.sqrt(2.0).item() if bipartite else known
    start = rng.standard_normal((size, WIDTH), dtype=np.float32).astype(dtype)

    def tolerance(values: NDArray[np.float64]) -> NDArray[np.float64]:
        # On C' C, whose eigenvalues are squares, a residual r means r / (sqrt(2) sigma) on M.
        goal = TOLERANCE / 10
        return goal * np.sqrt(2 * np.maximum(values, 1e-6)) if bipartite else np.full(k, goal)

    on_device = operator.device.asarray(start)
    found = block_lanczos(
        operator.apply_gram if bipartite else operator.apply,
        on_device,
        astype(locked, on_device.dtype, xp),
        k,
        tolerance=tolerance,
        max_blocks=basis_size(k) // WIDTH,
        max_products=300,
        arrays=operator.device,
    )
    vectors = astype(found.vectors, xp.float64, xp)
    if not bipartite:
        return operator.device.asarray(found.values), vectors
    return _both_sides(operator, vectors)


SOLVERS: dict[str, Callable[..., Pairs]] = {"gram": gram, "krylov": krylov, "dense": dense}


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
    if 6 * 8 * size**2 > max(device.budget, ALWAYS):
        raise InputError(
            f"solver: a dense matrix of {size} rows does not fit on the device; use 'krylov'"
        )
    # What a product needs for each column: vectors of both sides, in float64.
    step = max(1, min(size, device.budget // 8 // (4 * 8 * operator.n_vertices)))
    identity = xp.eye(size, dtype=xp.float64)
    columns = [apply(identity[:, start : start + step]) for start in range(0, size, step)]
    return concat(columns, xp, axis=1)


def _largest_dense(operator: DeviceOperator, matrix: Any, k: int) -> Pairs:
    values, vectors = operator.device.xp.linalg.eigh((matrix + matrix.T) / 2)
    return values[-k:], vectors[:, -k:]


def _both_sides(operator: DeviceOperator, small: Any) -> Pairs:
    """Eigenpairs of M from right singular vectors v of C: sigma = |C v|, [C v / sigma, v] / sqrt 2.

    Where sigma is zero, the vector is [0, v].
    """
    xp = operator.device.xp
    large = operator.to_large(small)
    sigma = xp.sqrt(xp.sum(large * large, axis=0))
    zero = sigma < ZERO_SINGULAR_VALUE
    large = xp.where(zero, xp.zeros_like(large), large / xp.where(zero, xp.ones_like(sigma), sigma))
    return sigma, operator.joined(large, small) / np.sqrt(2.0).item()
