"""Tolerances of residuals for eigenpairs of a normalized Laplacian."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LARGEST_GOAL = 1e-4
"""The residual norm that solvers aim at where eigenvalues and gaps are of ordinary size."""

OF_SIZE = 1e-3
"""The same as a share of an eigenvalue, or of the gap behind those wanted."""

OF_ROOT = 3e-3
"""The same as a share of the geometric mean of the two: the eigenvalue's error is the square of
the residual over the gap, so at most a hundred-thousandth of the eigenvalue."""

SMALLEST = 1e-9
"""Eigenvalues below this need not be known relative to their size."""

ACCEPTED = 10.0
"""Residuals of as many times the goal still count as converged."""


def goals(eigenvalues: NDArray[np.float64], following: float) -> NDArray[np.float64]:
    """Residual norms |L u - lambda u| to aim at for each eigenpair.

    A residual r puts an eigenvalue within r of lambda, and where the rest of the spectrum is
    `gap` away, within r^2 / gap; the eigenvectors' span is then wrong by an angle of r / gap. So
    r has to be small against the eigenvalue itself, or small enough against the gap for both the
    angle and the eigenvalue's relative error to be small. Where eigenvalues are 0.1 and more,
    as in most layered networks, that is LARGEST_GOAL.

    Parameters
    ----------
    eigenvalues : ndarray of float64, shape (k,)
        The smallest eigenvalues lambda of the normalized Laplacian.
    following : float
        The smallest of the others that is apart from them, see `following_of`.

    Source: Parlett (1998), The symmetric eigenvalue problem, chapter 11.
    """
    size = np.maximum(eigenvalues, SMALLEST)
    gap = np.maximum(following - eigenvalues, 0.0)
    by_gap = np.minimum(OF_SIZE * gap, OF_ROOT * np.sqrt(size * gap))
    goal: NDArray[np.float64] = np.minimum(LARGEST_GOAL, np.maximum(OF_SIZE * size, by_gap))
    return goal


def following_of(eigenvalues: NDArray[np.float64], k: int) -> float:
    """The smallest eigenvalue that is apart from the k smallest, as well as they are known.

    Those behind the k-th that are larger by less than OF_SIZE of it are not: their eigenvectors
    are as good as the k-th's, so that it does not matter how much of them is in it.

    Parameters
    ----------
    eigenvalues : ndarray of float64, shape (at least k + 1,), ascending
    k : int
    """
    last, rest = eigenvalues[k - 1], eigenvalues[k:]
    apart = rest[rest > last + OF_SIZE * max(float(last), SMALLEST)]
    return float(apart[0]) if apart.size else float(rest[-1])
