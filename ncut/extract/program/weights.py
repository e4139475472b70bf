"""Weights as expressions: their current values, and their computation from parameters."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ncut.extract.arrays import Shaped

Array: TypeAlias = NDArray[Any]
SIGNS = {operator.add: "+", operator.mul: "*", operator.truediv: "/"}
Leaf: TypeAlias = Callable[[Any], Any]
"""Returns a tensor for a parameter or a constant of the module that was read."""


Place: TypeAlias = tuple[int, int, tuple[tuple[int, int], ...]]
"""Memory layout of an array: the storage, the offset, lengths and strides of the axes."""


class Expression(Shaped):
    """An array that is a function of a model's parameters.

    `numpy.asarray` gives its values, which the graph uses; `tensor` recomputes it from a live
    module's current tensors, differentiable by autograd. Operations on axes have the syntax of
    arrays and return expressions.

    Parameters
    ----------
    values : ndarray
        The current values.
    source : object, optional
        Has a method `tensor(leaf)` that computes the array, and `formula()`, the computation as
        text; by default it cannot be recomputed.
    leaves : tuple of str
        Names of the parameters, if they identify the array.
    """

    __slots__ = ("leaves", "source", "values")

    def __init__(self, values: Array, source: Any = None, leaves: tuple[str, ...] = ()) -> None:
        self.values, self.source, self.leaves = values, source, leaves

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """The current values."""
        return np.asarray(self.values, dtype=dtype)

    @property
    def known(self) -> bool:
        """Check whether the array can be recomputed."""
        return self.source is not None

    @property
    def formula(self) -> str:
        """The computation from parameters as text; empty if it is unknown."""
        return "" if self.source is None else str(self.source.formula())

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return self.values.shape

    @property
    def T(self) -> Expression:  # noqa: N802
        """The transpose of a matrix."""
        return combined(lambda array: array.T, self)

    def __getitem__(self, index: Any) -> Expression:
        """Entries, by an index that is valid for arrays and tensors."""
        return combined(lambda array: array[index], self)

    def reshape(self, *shape: Any) -> Expression:
        """The array with other axes."""
        return combined(lambda array: array.reshape(*shape), self)

    def transpose(self, order: Sequence[int]) -> Expression:
        """The array with its axes in another order."""
        return combined(lambda array: _permuted(array, order), self)

    def broadcast(self, shape: Sequence[int]) -> Expression:
        """The array broadcast to a shape."""
        wide = tuple(shape)

        def change(array: Any) -> Any:
            is_array = isinstance(array, np.ndarray)
            return np.broadcast_to(array, wide) if is_array else array.expand(wide)

        return combined(change, self)

    def tensor(self, leaf: Leaf) -> Any:
        """The array computed from the parameters and constants that `leaf` returns."""
        return self.source.tensor(leaf)

    def part(self) -> tuple[Any, Any] | None:
        """The tensor that the array is a view of, and that view on a tensor without data.

        None if the array is computed, or its source is unknown.
        """
        if not self.known:
            return None
        import torch

        found: dict[int, tuple[Any, Any]] = {}

        def leaf(tensor: Any) -> Any:
            bare = torch.empty_strided(
                tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta"
            )
            found[bare.untyped_storage()._cdata] = (tensor, bare)
            return bare

        try:
            with torch.no_grad():
                made = self.tensor(leaf)
        except (RuntimeError, NotImplementedError):  # needs data, or the tensor is not strided
            return None
        tensor = found.get(made.untyped_storage()._cdata, (None, None))[0]
        return None if tensor is None else (tensor, made)

    def place(self) -> Place | None:
        """A key, equal for equal parts of one tensor of the model; None where `part` is."""
        found = self.part()
        if found is None:
            return None
        tensor, made = found
        axes = ((n, 1 if n == 1 else s) for n, s in zip(made.shape, made.stride(), strict=True))
        offset = int(tensor.storage_offset() + made.storage_offset())
        return int(tensor.untyped_storage()._cdata), offset, tuple(axes)


Weights: TypeAlias = Array | Expression


@dataclass(frozen=True, slots=True, eq=False)
class _Step:
    """A function of other expressions."""

    change: Callable[..., Any]
    parts: tuple[Expression, ...]
    text: str = ""

    def tensor(self, leaf: Leaf) -> Any:
        """The function applied to the tensors of the parts."""
        return self.change(*(part.tensor(leaf) for part in self.parts))

    def formula(self) -> str:
        """The parts; changes of axes are not written out."""
        return self.text or ", ".join(dict.fromkeys(part.formula for part in self.parts))


def combined(change: Callable[..., Any], *parts: Expression, text: str = "") -> Expression:
    """A function of expressions; `change` accepts both arrays and tensors."""
    values = np.asarray(change(*(part.values for part in parts)))
    leaves = tuple(dict.fromkeys(name for part in parts for name in part.leaves))
    known = all(part.known for part in parts)
    return Expression(values, _Step(change, parts, text) if known else None, leaves)


def joined(first: Expression, second: Expression, axis: int) -> Expression:
    """Two arrays concatenated along an axis."""

    def change(*arrays: Any) -> Any:
        if isinstance(arrays[0], np.ndarray):
            return np.concatenate(arrays, axis)
        import torch

        return torch.cat(arrays, axis)

    return combined(change, first, second)


def calculated(function: Callable[..., Any], first: Weights, second: Weights) -> Weights:
    """A sum, product or quotient of arrays that broadcast; `function` is one of `SIGNS`."""
    both = [x if isinstance(x, Expression) else np.asarray(x, np.float64) for x in (first, second)]
    known = [x for x in both if isinstance(x, Expression)]
    if not known:
        return np.asarray(function(*both))

    def change(*arrays: Any) -> Any:
        rest, like = iter(arrays), arrays[0]
        constant = np.asarray if isinstance(like, np.ndarray) else like.new_tensor
        return function(*(next(rest) if isinstance(x, Expression) else constant(x) for x in both))

    return combined(change, *known, text=f"({f' {SIGNS[function]} '.join(map(_text, both))})")


def _text(weights: Weights) -> str:
    if isinstance(weights, Expression):
        return weights.formula
    return f"{weights.item():g}" if weights.size == 1 else str([*weights.shape])


def expression_of(weights: Weights, names: Sequence[str] = ()) -> Expression:
    """Weights as an expression; an array gives constants with the names of its parameters."""
    if isinstance(weights, Expression):
        return weights
    return Expression(np.asarray(weights), leaves=tuple(names))


def _permuted(array: Any, order: Sequence[int]) -> Any:
    is_array = isinstance(array, np.ndarray)
    return array.transpose(order) if is_array else array.permute(tuple(order))
