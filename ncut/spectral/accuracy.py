"""Tolerances of residuals for eigenpairs of a normalized Laplacian."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LARGEST_GOAL = 1e-4
"""The target residual norm if eigenvalues and gaps are of ordinary size."""

OF_SIZE = 1e-3
"""The target as a share of an eigenvalue, or of the gap after the wanted eigenvalues."""

OF_ROOT = 3e-3
"""The target as a share of the geometric mean of the two: the eigenvalue's error is the square of
the residual over the gap, hence at most a hundred-thousandth of the eigenvalue."""

SMALLEST = 1e-9
"""Eigenvalues below this need no relative accuracy."""

ACCEPTED = 10.0
"""Ratio of a residual to its goal up to which it counts as converged."""


def goals(eigenvalues: NDArray[np.float64], following: float) -> NDArray[np.float64]:
    """Target residual norms |L u - lambda u| of the eigenpairs.

    A residual r puts an eigenvalue within r of lambda, or within r^2 / gap if the rest of the
    spectrum is `gap` away; the eigenvectors' span is then off by an angle of r / gap. So r must be
    small relative to the eigenvalue, or small enough relative to the gap for both the angle and the
    eigenvalue's relative error to be small. For eigenvalues of 0.1 and more, as in most layered
    networks, the target is LARGEST_GOAL.

    Parameters
    ----------
    eigenvalues : ndarray of float64, shape (k,)
        The smallest eigenvalues lambda of the normalized Laplacian.
    following : float
        The smallest of the other eigenvalues that is separated from them, see `following_of`.

    Source: Parlett (1998), The symmetric eigenvalue problem, chapter 11.
    """
    size = np.maximum(eigenvalues, SMALLEST)
    gap = np.maximum(following - eigenvalues, 0.0)
    by_gap = np.minimum(OF_SIZE * gap, OF_ROOT * np.sqrt(size * gap))
    goal: NDArray[np.float64] = np.minimum(LARGEST_GOAL, np.maximum(OF_SIZE * size, by_gap))
    return goal


def following_of(eigenvalues: NDArray[np.float64], k: int) -> float:
    """The smallest eigenvalue separated from the k smallest, as far as they are known.

    Eigenvalues after the k-th that exceed it by less than OF_SIZE of it are not separated: their
    eigenvectors are as good as the k-th, so mixing them does not matter.

    Parameters
    ----------
    eigenvalues : ndarray of float64, shape (at least k + 1,), ascending
    k : int
    """
    last, rest = eigenvalues[k - 1], eigenvalues[k:]
    apart = rest[rest > last + OF_SIZE * max(float(last), SMALLEST)]
    return float(apart[0]) if apart.size else float(rest[-1])
