"""Weights as expressions: their numbers, and how parameters make them again later."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]


class Expression:
    """An array of weights that is a function of parameters of a model.

    Evaluated once with NumPy it is the graph's numbers; with the tensors of a live module it is
    what training differentiates.

    Parameters
    ----------
    values : ndarray
        The numbers.
    source : object
        Has a method `tensor(leaf)` that computes what `steps` are applied to.
    steps : tuple of callable
        Changes of shape, which work on arrays and on tensors alike.
    """

    __slots__ = ("_source", "_steps", "values")

    def __init__(
        self, values: Array, source: Any, steps: tuple[Callable[[Any], Any], ...] = ()
    ) -> None:
        self.values = values
        self._source, self._steps = source, steps

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return self.values.shape

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self.values.ndim

    def map(self, change: Callable[[Any], Any]) -> Expression:
        """The weights reshaped, permuted or sliced."""
        return Expression(np.asarray(change(self.values)), self._source, (*self._steps, change))

    def tensor(self, leaf: Callable[[Any], Any]) -> Any:
        """The weights as `leaf` gives the parameters and constants that they are made of."""
        made = self._source.tensor(leaf)
        for change in self._steps:
            made = change(made)
        return made


def mapped(weight: Any, change: Callable[[Any], Any]) -> Any:
    """An array or an expression with its axes changed."""
    return weight.map(change) if isinstance(weight, Expression) else change(weight)


def opened(weight: Any) -> tuple[Array, Expression | None]:
    """The numbers of weights, and the expression if they are one."""
    return (weight.values, weight) if isinstance(weight, Expression) else (weight, None)
