"""The Chebyshev filter of subspace iteration, for arrays of NumPy and of torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple


class Unwanted(NamedTuple):
    """The interval [-1, high] of eigenvalues that a filter leaves small.

    Attributes
    ----------
    centre, half : float
        Its middle, and half its length.
    """

    centre: float
    half: float

    @classmethod
    def below(cls, smallest: float) -> Unwanted:
        """The interval up to the smallest Ritz value, and never an empty one."""
        high = max(smallest, -1.0 + 1e-3)
        return cls((high - 1.0) / 2, (high + 1.0) / 2)


def filtered(
    apply: Callable[[Any], Any], vectors: Any, product: Any, unwanted: Unwanted, degree: int
) -> Any:
    """T((M - centre) / half) of vectors, for T the Chebyshev polynomial of a degree.

    On the unwanted interval |T| is at most 1; beyond it T grows as fast as a polynomial of the
    degree can.

    Parameters
    ----------
    apply : callable
        Vectors to M times them.
    vectors : array of shape (n, m)
    product : array of shape (n, m)
        `apply(vectors)`, which is known.
    unwanted : Unwanted
    degree : int
        1 or more; M is applied one time less.

    Returns
    -------
    array of shape (n, m)
    """
    centre, half = unwanted
    before, found = vectors, (product - centre * vectors) / half
    for _ in range(degree - 1):
        before, found = found, 2 * (apply(found) - centre * found) / half - before
    return found
