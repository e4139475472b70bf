"""Tensors of a program, the nodes that make them, and how tensors are moved and joined.

A `Value` has only a shape; the neurons of its entries are determined when the program is lowered.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ncut.errors import InputError, ModelError
from ncut.extract.arrays import Shaped

if TYPE_CHECKING:
    from ncut.extract.program.weights import Weights

MAX_LAID_OUT = 2**25
"""Number of entries of the largest tensor that is laid out entry by entry."""


@dataclass(frozen=True, slots=True, eq=False)
class Value(Shaped):
    """A tensor that depends on the data."""

    shape: tuple[int, ...]
    # For numbers that no node makes, whether they are random draws, such as noise.
    number: Literal["", "drawn", "classes"] = ""
    # Adds a node to the program that makes the value; None for numbers independent of neurons.
    program: Callable[..., Value] | None = field(default=None, repr=False)


@dataclass(frozen=True, eq=False)
class Known(Shaped):
    """An operand that does not depend on the data: numbers, or a layer's weights."""

    shape: tuple[int, ...]  # the shape to which it broadcasts with other operands
    make: Callable[[], Weights]  # returns its values, an array or an `Expression`
    parameters: Sequence[str] = ()  # names of the parameters that the values come from
    # Names of the layer that it makes, and of the module that holds it.
    name: str = ""
    module: str = ""

    @cached_property
    def values(self) -> Weights:
        """The values, computed on first use."""
        return self.make()


Operand: TypeAlias = Value | Known


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One step of a program.

    Attributes
    ----------
    kind : str
        Kind of operation, one of `ncut.extract.lowering.kinds.KINDS`.
    inputs : tuple of Value
        Operands.
    output : Value, optional
        Result.
    attributes : mapping from str
        Everything else: axes, shapes, weights and their parameters.
    place : str
        Place in the model, for messages.
    """

    kind: str
    inputs: tuple[Value, ...]
    output: Value | None
    attributes: Mapping[str, Any]
    place: str


def made(kind: str, inputs: Sequence[Value], shape: Sequence[int], /, **attributes: Any) -> Value:
    """The result of a node on values; numbers alone give numbers, without a node."""
    program = next((value.program for value in inputs if value.program is not None), None)
    shape = tuple(int(size) for size in shape)
    if program is None:
        return Value(shape, inputs[0].number if len(inputs) == 1 else "")
    return program(kind, inputs, shape, **attributes)


def located(error: ModelError | InputError, place: str) -> ModelError | InputError:
    """The error with the innermost place at which it occurred."""
    if getattr(error, "located", False):
        return error
    made = ModelError(f"{place}: {error}" if place else str(error))
    made.located = True  # type: ignore[attr-defined]
    return made


def broadcast_shape(values: Sequence[Operand]) -> tuple[int, ...]:
    """The shape to which operands broadcast."""
    return tuple(np.broadcast_shapes(*(value.shape for value in values)))


# --- one tensor ---------------------------------------------------------------------------------


def permuted(value: Value, order: Sequence[int]) -> Value:
    """`tensor.permute(order)`."""
    order = [value.axis(axis) for axis in order]
    if sorted(order) != [*range(value.ndim)]:
        raise ModelError(f"it permutes a tensor of shape {value.shape} by {order}")
    return made("permute", [value], [value.shape[axis] for axis in order], order=order)


def swapped(operand: Operand) -> Operand:
    """The operand with its last two axes swapped."""
    order = [*range(operand.ndim - 2), operand.ndim - 1, operand.ndim - 2]
    if isinstance(operand, Value):
        return permuted(operand, order)
    shape = tuple(operand.shape[axis] for axis in order)
    return replace(operand, shape=shape, make=lambda: operand.values.transpose(order))


def reshaped(value: Value, shape: Sequence[int]) -> Value:
    """`tensor.reshape(shape)`; one of the sizes may be -1, for what is left."""
    wanted = tuple(int(size) for size in shape)
    rest = math.prod(size for size in wanted if size != -1)
    shape = tuple(value.size // max(rest, 1) if size == -1 else size for size in wanted)
    if wanted.count(-1) > 1 or min(shape, default=0) < 0 or math.prod(shape) != value.size:
        raise ModelError(f"cannot reshape {value.shape} to {wanted}")
    if shape == value.shape:
        return value
    return made("reshape", [value], shape, shape=shape)


def expanded(value: Value, shape: Sequence[int]) -> Value:
    """`tensor.expand(shape)`: new axes in front, and axes of length 1 made longer."""
    shape = tuple(shape)
    return value if shape == value.shape else made("expand", [value], shape, shape=shape)


def unsqueezed(value: Value, axis: int) -> Value:
    """The tensor with a new axis of length 1."""
    if not -value.ndim <= axis + 1 <= value.ndim + 1:
        raise ModelError(f"a new axis {axis} of a tensor of shape {value.shape}")
    axis %= value.ndim + 1
    shape = (*value.shape[:axis], 1, *value.shape[axis:])
    return reshaped(value, shape)


def squeezed(value: Value, axes: Sequence[int]) -> Value:
    """The tensor without axes of length 1."""
    axes = [value.axis(axis) for axis in axes]
    if any(value.shape[axis] != 1 for axis in axes):
        raise ModelError(f"it squeezes axes {axes} of a tensor of shape {value.shape}")
    return reshaped(value, [n for axis, n in enumerate(value.shape) if axis not in axes])


def indexed(value: Value, axis: int, index: NDArray[np.int64] | slice | int) -> Value:
    """Entries of one axis: a slice, an array of positions, or one position (drops the axis)."""
    axis = value.axis(axis)
    positions = np.arange(value.shape[axis])[index]
    shape = [*value.shape[:axis], *positions.shape, *value.shape[axis + 1 :]]
    return made("index", [value], shape, axis=axis, index=index)


def parts(value: Value, axis: int, sizes: Sequence[int]) -> list[Value]:
    """The tensor split into parts of given sizes along an axis."""
    axis, ends = value.axis(axis), [0, *accumulate(sizes)]
    if ends[-1] != value.shape[axis] or min(sizes, default=0) < 0:
        raise ModelError(f"it splits an axis of length {value.shape[axis]} into {[*sizes]}")
    return [indexed(value, axis, slice(*part)) for part in pairwise(ends)]


def unbound(value: Value, axis: int) -> list[Value]:
    """The entries of an axis, each a tensor without it."""
    return [indexed(value, axis, at) for at in range(value.shape[value.axis(axis)])]


def gathered(
    value: Value, axes: Sequence[int], shape: Sequence[int], *, at: int | None = None, why: str = ""
) -> Value:
    """Entries that the data select along axes, which new axes replace from `at` on.

    If `why` is given, neurons along the axes are an error with that message.
    """
    axes = tuple(value.axis(axis) for axis in axes)
    at = axes[0] if at is None else at
    return made("gather", [value], shape, axes=axes, shape=tuple(shape), at=at, why=why)


def looked_up(value: Value, indices: Sequence[NDArray[Any] | None], shape: Sequence[int]) -> Value:
    """`tensor[indices]`: known indices or masks, None for unindexed axes."""
    return made("index", [value], shape, index=tuple(indices), shape=tuple(shape))


def taken_along(value: Value, axis: int, index: NDArray[np.int64]) -> Value:
    """`numpy.take_along_axis`; an index shorter than the value applies to its first entries."""
    line = index[tuple(slice(None) if at == axis else 0 for at in range(index.ndim))]
    alike = (index == line.reshape([-1 if at == axis else 1 for at in range(index.ndim)])).all()
    if alike:
        for at, n in enumerate(index.shape):
            if at != axis and n != value.shape[at]:
                value = indexed(value, at, slice(n))
        return indexed(value, axis, line)
    laid_out(value)
    return moved(value, places_along(value.shape, axis, index))


def places_along(shape: Sequence[int], axis: int, index: NDArray[np.int64]) -> NDArray[np.int64]:
    """Flat positions of the entries selected by an index array along an axis."""
    whole = np.arange(math.prod(shape)).reshape(tuple(shape))
    first = tuple(slice(None) if at == axis else slice(n) for at, n in enumerate(index.shape))
    return np.take_along_axis(whole[first], index, axis)


def moved(value: Value, places: NDArray[np.int64]) -> Value:
    """Entries gathered by flat position; a negative position is a new, constant entry."""
    flat = reshaped(value, (laid_out(value),))
    taken = reshaped(indexed(flat, 0, np.maximum(places, 0).ravel()), places.shape)
    kept = places >= 0
    if kept.all():
        return taken
    settings = {"shape": taken.shape, "condition": kept, "sides": (True,)}
    return made("choose between", [taken], taken.shape, **settings)


def laid_out(value: Value) -> int:
    """Number of entries of a value whose entries are moved individually.

    Raises
    ------
    ModelError
        If there are too many.
    """
    n = math.prod(value.shape)
    if n > MAX_LAID_OUT:
        raise ModelError(f"it moves the {n} entries of a tensor one by one")
    return n


def merged(value: Value, axes: Sequence[int]) -> Value:
    """Entries merged along axes into one that carries the neurons of all; drops the axes."""
    shape = [size for axis, size in enumerate(value.shape) if axis not in axes]
    return made("merge", [value], shape, axes=tuple(axes))


def flipped(value: Value, axes: Sequence[int]) -> Value:
    """`tensor.flip(axes)`."""
    for axis in axes:
        value = indexed(value, axis, slice(None, None, -1))
    return value


def tiled(value: Value, times: Sequence[int]) -> Value:
    """`tensor.repeat(times)`: the tensor tiled along each axis."""
    value = expanded(value, (1,) * (len(times) - value.ndim) + value.shape)
    for axis, n in enumerate(times):
        if n != 1:
            value = indexed(value, axis, np.tile(np.arange(value.shape[axis]), n))
    return value


def rearranged(value: Value, split: Sequence[int], order: Sequence[int], shape: Any) -> Value:
    """Axes split, permuted and merged, as in pixel shuffles and attention heads."""
    return reshaped(permuted(reshaped(value, split), order), shape)


def with_heads(value: Value, n_heads: int) -> Value:
    """(batch, time, heads * dims) as (batch, heads, time, dims)."""
    batch, time, width = value.shape
    return permuted(reshaped(value, (batch, time, n_heads, width // max(n_heads, 1))), [0, 2, 1, 3])


def without_heads(value: Value) -> Value:
    """(batch, heads, time, dims) as (batch, time, heads * dims)."""
    batch, n_heads, time, dims = value.shape
    return reshaped(permuted(value, [0, 2, 1, 3]), (batch, time, n_heads * dims))


def repeated_heads(operand: Operand, n_heads: int, axis: int) -> Operand:
    """Heads of keys or values along an axis, each repeated for the queries that share it."""
    axis = operand.axis(axis)
    n = operand.shape[axis]
    if n == n_heads:
        return operand
    repeats, rest = divmod(n_heads, max(n, 1))
    if rest:
        raise ModelError(f"{n_heads} heads of queries do not share {n} heads of keys evenly")
    index = np.repeat(np.arange(n), repeats)
    if isinstance(operand, Value):
        return indexed(operand, axis, index)
    shape = (*operand.shape[:axis], n_heads, *operand.shape[axis + 1 :])
    places: tuple[Any, ...] = (*[slice(None)] * axis, index)
    return replace(operand, shape=shape, make=lambda: operand.values[places])


# --- several tensors ----------------------------------------------------------------------------


def concatenated(values: Sequence[Value], axis: int) -> Value:
    """`torch.cat(tensors, axis)`."""
    values = [value for value in values if value.shape != (0,)]
    axis = values[0].axis(axis)
    shape = [*values[0].shape]
    if any((*v.shape[:axis], *v.shape[axis + 1 :]) != (*shape[:axis], *shape[axis + 1 :])
           for v in values):  # fmt: skip
        shapes = ", ".join(str(value.shape) for value in values)
        raise ModelError(f"it concatenates shapes {shapes} along axis {axis}")
    shape[axis] = sum(value.shape[axis] for value in values)
    return made("concatenate", values, shape, axis=axis)


def stacked(values: Sequence[Value], axis: int) -> Value:
    """`torch.stack(tensors, axis)`: along the new axis each has its own place."""
    axis = axis % (values[0].ndim + 1)
    if len(values) == 1:
        return unsqueezed(values[0], axis)
    return concatenated([unsqueezed(value, axis) for value in values], axis)
