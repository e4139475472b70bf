"""`Program`: the record of a forward pass that a reader writes, node by node."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from ncut.errors import ModelError
from ncut.extract.program.printed import printed
from ncut.extract.program.values import (
    MAX_LAID_OUT,
    Known,
    Node,
    Operand,
    Value,
    broadcast_shape,
    expanded,
    indexed,
    repeated_heads,
    squeezed,
    swapped,
    unsqueezed,
)
from ncut.extract.program.weights import Expression, Weights, calculated, expression_of

Array: TypeAlias = NDArray[Any]
Initial: TypeAlias = Callable[[int], NDArray[np.floating] | None]

Difference: TypeAlias = tuple[Value, Known]
"""Neurons, and the centres from which they differ."""


class Factor(NamedTuple):
    """An array by which a value was multiplied, or divided if `invert`, and its parameters."""

    values: Weights
    parameters: tuple[str, ...]
    name: str
    invert: bool


Summand: TypeAlias = tuple[Value, tuple[Factor, ...]]
"""A value that enters a sum, and the factors by which it is multiplied."""

FLOAT32_MAX = float(np.finfo(np.float32).max)

_COMMUTING = frozenset(["identity", "linear", "relu", "leakyrelu", "prelu", "abs"])

Made = TypeVar("Made")

WRITES = ("input", "embed", "linear", "convolution", "recurrence")
"""Kinds of nodes that write new neurons."""


def commutes(function: str) -> bool:
    """Check whether a function of single entries commutes with positive factors, by its name."""
    return function.lower().replace("_", "") in _COMMUTING


class Program:
    """A model's forward pass as nodes over values.

    Each method adds a node and returns its output value. A program knows nothing of neurons or
    of the convention of sums; `ncut.extract.lowering` adds both. Methods with weights take, as
    `named`, the layer's `name` in the graph, the `parameters` that the weights come from, the
    `module` that holds them, and `initial`, a function from a seed to initial weights.
    Weights are arrays, or an `Expression` of parameters where training may recompute them.

    Attributes
    ----------
    nodes : list of Node
        In the order of the forward pass.
    where : callable
        Returns the reader's place in the model, for messages.
    awaits : set of str
        Kinds of integer weights that still lack a scale: "product", "table".
    formulas : dict from str to str
        How weights are computed from the arrays of a file, by the weights' names, for people.
    named : bool
        Whether parameters with different names are always distinct arrays; false for files that
        may hold copies of a tensor under several names.
    """

    def __init__(self, *, named: bool = False) -> None:
        self.named = named
        self.nodes: list[Node] = []
        self.where: Callable[[], str] = str
        self.awaits: set[str] = set()
        self.formulas: dict[str, str] = {}
        self._largest: dict[Value, tuple[Value, int, Value]] = {}
        self._differences: dict[Value, Difference] = {}
        self._squares: dict[Value, Difference] = {}
        self._summands: dict[Value, list[Summand]] = {}

    def __str__(self) -> str:
        """The program as text, one line per node."""
        return printed(self.nodes, self.formulas)

    def __repr__(self) -> str:
        n_weights = sum("weight" in node.attributes for node in self.nodes)
        return f"Program({len(self.nodes)} nodes, {n_weights} with weights)"

    def node(
        self,
        kind: str,
        inputs: Sequence[Value],
        shape: Sequence[int] | None,
        /,
        **attributes: Any,
    ) -> Value:
        """Add a node of a kind in `ncut.extract.lowering.kinds`; its value, if it has a shape."""
        made = Value(() if shape is None else tuple(shape), program=self.node)
        output = None if shape is None else made
        self.nodes.append(Node(kind, tuple(inputs), output, attributes, self.where()))
        return made

    # --- where values come from, and weights ------------------------------------------------

    def input(self, name: str, shape: Sequence[int]) -> Value:
        """An input of the model, with examples along the first axis."""
        return self.node("input", [], shape, name=name, shape=tuple(shape))

    def embedding(self, weight: Weights, shape: Sequence[int], **named: Any) -> Value:
        """Rows of a table (rows, width), selected by index; the result has shape (..., width)."""
        return self.node("embed", [], shape, shape=tuple(shape), **self._named(named, weight))

    def linear(
        self,
        value: Value,
        weight: Weights,
        *,
        axis: int = -1,
        shape: Sequence[int] | None = None,
        **named: Any,
    ) -> Value:
        """A matrix (n_in, n_out) applied along an axis, by default the last one."""
        axis = value.axis(axis)
        _check(weight, weight.shape[0], value.shape[axis], "values")
        if shape is None:
            shape = [*value.shape[:axis], weight.shape[1], *value.shape[axis + 1 :]]
        return self.node(
            "linear", [value], shape, axis=axis, shape=tuple(shape), **self._named(named, weight)
        )

    def product(
        self,
        value: Value,
        weights: Weights,
        *,
        left: bool = False,
        quiet: bool = False,
        **named: Any,
    ) -> Value:
        """`value @ weights`, or `weights @ value` if `left`, with NumPy's semantics."""
        axis = -2 if left and value.ndim > 1 else -1
        if weights.ndim == 1:
            return indexed(self.linear(value, weights[:, None], axis=axis, **named), axis, 0)
        if left:
            order = [*range(weights.ndim - 2), weights.ndim - 1, weights.ndim - 2]
            weights = weights.transpose(order)
        if math.prod(weights.shape[:-2]) > 1:
            return self._matrices(value, weights, axis, quiet, named)
        more = (1,) * (weights.ndim - value.ndim) if value.ndim > 1 else ()
        wide = expanded(value, more + value.shape) if more else value
        size = weights.shape[-2:]
        return self.linear(wide, weights.reshape(size), axis=axis, **named)

    def _matrices(
        self, value: Value, weights: Weights, axis: int, quiet: bool, named: dict[str, Any]
    ) -> Value:
        """Matrices (..., n_in, n_out), one for each entry of the leading axes.

        If `quiet`, values without neurons are not listed as left out.
        """
        n_in, n_out = weights.shape[-2:]
        _check(weights, n_in, value.shape[axis] if value.ndim >= -axis else 0, "values")
        shape = [*value.shape]
        shape[axis] = n_out
        shape = [*np.broadcast_shapes(tuple(shape[:-2]), weights.shape[:-2]), *shape[-2:]]
        return self.node(
            "linear", [value], shape, axis=axis, shape=tuple(shape), quiet=quiet,
            **self._named(named, weights),
        )  # fmt: skip

    def convolution(
        self,
        value: Value,
        weight: Weights,
        shape: Sequence[int],
        *,
        groups: int = 1,
        axis: int = 1,
        within: Weights | None = None,
        on_positions: bool = True,
        **named: Any,
    ) -> Value:
        """A kernel (out, in / groups, positions...) applied to channels along `axis`.

        `within` are a recurrent layer's weights between its outputs; `on_positions` is false for
        grouped matrices, which do not make a network convolutional.
        """
        _check(weight, weight.shape[1] * groups, value.shape[value.axis(axis)], "channels")
        return self.node(
            "convolution", [value], shape, shape=tuple(shape), groups=groups, axis=axis,
            within=within if within is None else self._weights(within, named),
            on_positions=on_positions, **self._named(named, weight),
        )  # fmt: skip

    def recurrence(
        self,
        value: Value,
        weight_input: Weights,
        weight_hidden: Weights,
        weight_projection: Weights | None = None,
        *,
        n_hidden: int,
        kind: str = "",
        state: Value | None = None,
        cell: Value | None = None,
        **named: Any,
    ) -> Value:
        """One direction of an RNN, LSTM or GRU: the states, along the last axis.

        Parameters
        ----------
        value : Value
            The sequence, features along the last axis.
        weight_input, weight_hidden : ndarray, shapes (gates * n_hidden, n_in or n_state)
            The gates, concatenated.
        weight_projection : ndarray of shape (n_state, n_hidden), optional
            Projects hidden units to the state that is fed back.
        kind : str
            "GRU" passes its first state through.
        state, cell : Value, optional
            The first state (..., n_state) and, for an LSTM, the first cell (..., n_hidden), which
            broadcast to the sequence except along the last axis.
        """
        _check(weight_input, weight_input.shape[1], value.shape[-1], "values")
        n_out = n_hidden if weight_projection is None else weight_projection.shape[0]
        states = (state, cell)
        return self.node(
            "recurrence", [value, *(s for s in states if s is not None)],
            (*value.shape[:-1], n_out),
            weight_input=self._weights(weight_input, named),
            weight_hidden=self._weights(weight_hidden, named),
            weight_projection=(
                None if weight_projection is None else self._weights(weight_projection, named)
            ),
            n_hidden=n_hidden, kind=kind, states=tuple(s is not None for s in states),
            **self._named(named),
        )  # fmt: skip

    # --- constants --------------------------------------------------------------------------

    def scaled(
        self, value: Value, factors: Weights, axis: int | None = None, **named: Any
    ) -> Value:
        """The value multiplied or divided by an array that does not depend on the data.

        Parameters
        ----------
        factors : ndarray or Expression that broadcasts with the value
            Numbers or booleans. Zeros that training cannot change remove the neurons.
        axis : int, optional
            The axis along which the factors lie, such as a norm's; by default they broadcast.
        **named
            `parameters` of the factors; `invert` to divide; `name` of the weight layer that the
            product becomes if a sum follows.
        """
        if axis is None:
            shape = np.broadcast_shapes(value.shape, factors.shape)
        else:
            axis, shape = value.axis(axis), value.shape
            if shape[axis] != factors.size:
                raise ModelError(f"it scales {factors.size} values, but gets {shape[axis]}")
        named = self._named(named)
        made = self.node("scale", [value], shape, factors=factors, axis=axis, **named)
        if shape == value.shape:
            laid = [-1 if at == axis else 1 for at in range(value.ndim)]
            factor = Factor(
                factors if axis is None else factors.reshape(laid), named["parameters"],
                named.get("name", ""), named.get("invert", False),
            )  # fmt: skip
            self._summands[made] = [(own, (*by, factor)) for own, by in self._sum_of(value)]
        return made

    def gain(self, value: Value, factor: float) -> Value:
        """One constant factor for all entries."""
        return self.scaled(value, np.asarray(float(factor)))

    def dequantize(
        self,
        value: Value,
        scale: Array,
        zero: Array | None = None,
        *,
        placed: Sequence[str] = (),
        ignored: Sequence[str] = (),
        only: str = "",
    ) -> Value:
        """Scale and zero point for results of integer weights, if any (of the kind `only`)."""
        if not self.awaits or (only and only not in self.awaits):
            return value
        return self.node(
            "dequantize", [value], value.shape, scale=scale, zero=zero, placed=tuple(placed),
            ignored=tuple(ignored), only=only,
        )  # fmt: skip

    def awaiting_scale(self, value: Value, what: str = "product") -> Value:
        """Mark the result of integer weights, a "product" or a "table" of rows, as unscaled."""
        self.awaits.add(what)
        return self.node("await scale", [value], value.shape, what=what)

    # --- functions of entries ---------------------------------------------------------------

    def activation(self, value: Value, *, homogeneous: bool | None) -> Value:
        """A function of each entry alone; `homogeneous` if it commutes with positive factors."""
        return self.node("pointwise", [value], value.shape, homogeneous=homogeneous)

    def shifted(self, value: Value, constant: Known) -> Value:
        """The value plus or minus a constant, which has no edges, except for distances.

        A sum of the squares of differences between neurons and several centres is a layer with
        the centres as weights: |x - c|^2 = |x|^2 - 2 xc + |c|^2.
        """
        made = expanded(value, broadcast_shape([value, constant]))
        ours, theirs = (
            np.array((1,) * (made.ndim - len(x.shape)) + x.shape, dtype=np.int64) > 1
            for x in (value, constant)
        )
        if (~ours & theirs).any() and (ours & theirs).any():
            self._differences[made] = value, constant
        return made

    def squared(self, value: Value) -> Value:
        """The square of each entry."""
        made = self.activation(value, homogeneous=False)
        if value in self._differences:
            self._squares[made] = self._differences[value]
        return made

    def distance(self, value: Value, axes: Iterable[int], keepdim: bool, name: str) -> Value | None:
        """The norm along axes of differences, if these are distances to centres.

        A norm that keeps its axis is a spread, by which values are divided.
        """
        known = self._squares.get(value) or self._differences.get(value)
        return None if known is None or keepdim else self._distance(known, axes, "sum", name)

    def _distance(self, known: Difference, axes: Iterable[int], kind: str, name: str) -> Value:
        neurons, centres = known
        products = self.multiply(self.gain(neurons, 2), centres)
        total = self.reduce(products, axes, keepdim=False, kind=kind, name=name)
        return self.activation(total, homogeneous=False)

    def bounded(self, value: Value, low: float | None, high: float | None) -> Value:
        """A clamp between two numbers; a ReLU or its mirror image if one of them is 0."""
        low = None if low is not None and low <= -FLOAT32_MAX else low
        high = None if high is not None and high >= FLOAT32_MAX else high
        ends = [end for end in (low, high) if end is not None]
        return self.activation(value, homogeneous=ends == [0])

    def combine(self, *operands: Operand) -> Value:
        """Any function of the entries of several operands."""
        values = [operand for operand in operands if isinstance(operand, Value)]
        made = self.node("pointwise", values, broadcast_shape(values), homogeneous=False)
        return expanded(made, broadcast_shape(operands))

    def extremum(self, *operands: Operand) -> Value:
        """The elementwise maximum or minimum; of one value and zeros, a ReLU."""
        values = [operand for operand in operands if isinstance(operand, Value)]
        if len(values) > 1:
            return self.combine(*operands)
        zeros = not any(np.any(other.values) for other in operands if isinstance(other, Known))
        return self.activation(expanded(values[0], broadcast_shape(operands)), homogeneous=zeros)

    def choice(self, condition: Operand, first: Operand, second: Operand) -> Value:
        """`where`: the first where the condition is true, else the second.

        If the condition depends on the data, all values reach each reader.
        """
        shape, both = broadcast_shape([condition, first, second]), (first, second)
        given = both if isinstance(condition, Known) else (*both, condition)
        known = condition.values if isinstance(condition, Known) else None
        return self.node(
            "choose between", [value for value in given if isinstance(value, Value)], shape,
            shape=shape, condition=None if known is None else np.asarray(known, dtype=np.bool_),
            sides=tuple(side is first for side in both if isinstance(side, Value)),
        )  # fmt: skip

    def masked(self, value: Value, mask: Array) -> Value:
        """The value where a known mask is true, numbers elsewhere."""
        return self.choice(Known(mask.shape, lambda: mask), value, Known((), lambda: np.zeros(())))

    def triangle(self, value: Value, diagonal: int, *, upper: bool) -> Value:
        """`numpy.triu` or `numpy.tril`: entries on the other side of a diagonal are 0."""
        if math.prod(value.shape[-2:]) > MAX_LAID_OUT:
            raise ModelError(f"it takes a triangle of a tensor of shape {value.shape}")
        keep = np.triu if upper else np.tril
        mask = keep(np.ones(value.shape[-2:], dtype=np.bool_), diagonal)
        return self.masked(value, mask)

    def gated_halves(self, value: Value, axis: int) -> Value:
        """A GLU: one half of the neurons, each times a gate from the other half."""
        half = value.shape[value.axis(axis)] // 2
        values, gates = (indexed(value, axis, part) for part in (slice(half), slice(half, None)))
        return self.multiply(values, self.activation(gates, homogeneous=False))

    def normalization(self, value: Value, kind: str = "norm") -> Value:
        """Division by a number that depends on the data, the same for many neurons."""
        return self.node("normalize", [value], value.shape, kind=kind)

    def normalized(
        self, value: Value, kind: str, gamma: Weights | None = None, axis: int = -1, **named: Any
    ) -> Value:
        """Division by a spread that depends on the data, times gamma along an axis."""
        value = self.normalization(value, kind)
        return value if gamma is None else self.scaled(value, gamma, axis, **named)

    def softmax(self, value: Value, axis: int) -> Value:
        """Softmax along an axis."""
        return self.node("softmax", [value], value.shape, axis=value.axis(axis))

    # --- positions --------------------------------------------------------------------------

    def positions(
        self, value: Value, shape: Sequence[int], *, axis: int = 1, nearest: bool = False
    ) -> Value:
        """Pooling or anything else that changes positions and mixes no channels, along `axis`.

        `nearest` marks copies of the nearest positions.
        """
        more = {"nearest": True} if nearest else {}
        return self.node("pool", [value], shape, shape=tuple(shape), axis=axis, **more)

    def pad(
        self,
        value: Value,
        axis: int,
        before: int,
        after: int,
        *,
        fill: float = 0.0,
        index: Array | None = None,
        channels: int | None = None,
    ) -> Value:
        """Padding along an axis, with numbers or with the entries at `index`.

        If `channels` gives the axis of an image's channels, its positions are not distinguished.
        """
        axis = value.axis(axis)
        n = value.shape[axis] + before + after if index is None else len(index)
        shape = (*value.shape[:axis], n, *value.shape[axis + 1 :])
        return self.node(
            "pad", [value], shape, axis=axis, before=before, after=after, fill=fill, index=index,
            channels=channels,
        )  # fmt: skip

    def places(self, grid: Value, path: str = "") -> None:
        """Note positions that the data choose: their neurons end in them."""
        name = f"positions in {path}" if path else "positions"
        self.reduce(grid, range(1, grid.ndim), keepdim=False, kind="max", name=name)

    def ordered(self, kind: str, value: Value, axis: int, shape: Sequence[int], name: str) -> Value:
        """Sorting, cumulative sums, top-k or entries that the data pick along an axis."""
        return self.node(
            "order", [value], shape, kind=kind, axis=value.axis(axis), shape=tuple(shape), name=name
        )

    def largest(
        self, value: Value, axis: int, shape: Sequence[int], name: str
    ) -> tuple[Value, Value]:
        """The largest entries along an axis, and their positions, for `put_back`."""
        found, places = self.ordered("topk", value, axis, shape, name), Value(tuple(shape))
        self._largest[places] = value, value.axis(axis), found
        return found, places

    def put_back(self, places: Value, source: Value, axis: int | None = None) -> Value | None:
        """The largest entries, or functions of them, at their original positions, zeros elsewhere.

        The result is elementwise, with zeros at positions that depend on the data. None if
        `source` does not come from the entries at `places`.
        """
        value, along, found = self._largest.get(places, (None, None, None))
        if value is None or axis not in (None, along):
            return None
        by_output = {node.output: node for node in self.nodes}
        steps = []
        while source is not found:
            node = by_output.get(source)
            if node is None or node.kind != "pointwise" or len(node.inputs) > 1:
                return None
            steps.append(node)
            source = node.inputs[0]
        value = self.activation(value, homogeneous=False)
        for node in reversed(steps):
            value = self.node("pointwise", [value], value.shape, **node.attributes)
        return value

    def picked(self, value: Value, axis: int, shape: Sequence[int], name: str) -> Value:
        """Entries along an axis, selected by the data separately at each position."""
        return self.ordered("pick", value, axis, shape, name)

    def chosen(self, value: Value, axis: int, name: str) -> None:
        """A choice along an axis whose index alone is used, such as an argmax."""
        axis = value.axis(axis)
        shape = tuple(1 if at == axis else n for at, n in enumerate(value.shape))
        self.picked(value, axis, shape, name)

    # --- several values ---------------------------------------------------------------------

    def add(self, *operands: Operand) -> Value:
        """A sum; constants act as biases."""
        values = [operand for operand in operands if isinstance(operand, Value)]
        for other in operands:
            if isinstance(other, Known):
                self.ignore(other.parameters, "added as a constant, like a bias")
        known = [other for other in operands if isinstance(other, Known)]
        if len(values) == len(known) == 1 and len(known[0].shape) > 1 and not self.awaits:
            return self.shifted(values[0], known[0])
        if len(values) > 1:
            values = [self._total(values, broadcast_shape(values))]
        shape = broadcast_shape(operands)
        return expanded(values[0], shape) if values else Value(shape)

    def negative(self, operand: Operand) -> Operand:
        """The operand with the other sign; constants, which act as biases, are unchanged."""
        return self.gain(operand, -1) if isinstance(operand, Value) else operand

    def _sum_of(self, value: Value) -> list[Summand]:
        return self._summands.get(value, [(value, ())])

    def _total(self, values: Sequence[Value], shape: tuple[int, ...]) -> Value:
        """A sum, in which a value that enters it several times has the sum of its factors.

        Such as x + s x = (1 + s) x, and x + (y - x) = y.
        """
        found: dict[Value, list[tuple[Factor, ...]]] = {}
        for value in values:
            for own, by in self._sum_of(value) if value.shape == shape else [(value, ())]:
                found.setdefault(own, []).append(by)
        terms = values
        if any(len(ways) > 1 for ways in found.values()):
            terms = [self._times(own, ways) for own, ways in found.items()]
            # Where sums are streams, readers of the sum take the factors of its first term.
            terms.sort(key=lambda term: term not in found)
        made = terms[0] if len(terms) == 1 else self.node("add", terms, shape)
        self._summands[made] = [own for term in terms for own in self._sum_of(term)]
        return made

    def _times(self, value: Value, ways: Sequence[tuple[Factor, ...]]) -> Value:
        """A value times the sum of products of factors."""
        if ways == [()]:
            return value
        total, one = None, np.ones(())
        for way in ways:
            product: Weights = one
            for factor in way:
                by = operator.truediv if factor.invert else operator.mul
                known = product is one and not factor.invert
                product = factor.values if known else calculated(by, product, factor.values)
            total = product if total is None else calculated(operator.add, total, product)
        assert total is not None
        factors = [factor for way in ways for factor in way]
        parameters = dict.fromkeys(name for factor in factors for name in factor.parameters)
        name = next((factor.name for factor in factors), "")
        return self.scaled(value, total, parameters=tuple(parameters), name=name)

    def multiply(self, first: Operand, second: Operand) -> Value:
        """An entry-wise product."""
        if first is second and isinstance(first, Value) and first in self._differences:
            return self.squared(first)
        if isinstance(first, Known):
            first, second = second, first
        return self._product(first, second, invert=False)

    def divide(self, first: Operand, second: Operand) -> Value:
        """An entry-wise quotient."""
        if isinstance(first, Known):
            self.ignore(first.parameters, "divided by values that depend on the data")
            shape = broadcast_shape([first, second])
            assert isinstance(second, Value)
            return self.activation(expanded(second, shape), homogeneous=False)
        return self._product(first, second, invert=True)

    def _product(self, first: Operand, second: Operand, *, invert: bool) -> Value:
        shape = broadcast_shape([first, second])
        if isinstance(first, Known):
            raise ModelError("its operands do not depend on the data")
        if isinstance(second, Value):
            return self.node("multiply", [first, second], shape, invert=invert)
        made = self.scaled(
            first, second.values, parameters=second.parameters, name=second.name,
            invert=invert,
        )  # fmt: skip
        return expanded(made, shape)

    def reduce(
        self, value: Value, axes: Iterable[int], *, keepdim: bool, kind: str = "sum", name: str = ""
    ) -> Value:
        """A sum, mean, maximum or another number of the entries along axes.

        Parameters
        ----------
        kind : {"sum", "mean", "max", "min", "var", "std", "norm", ...}
            Kind of reduction.
        name : str
            Place in the model, for the name of the vertices in which the neurons end.
        """
        chosen = sorted({value.axis(axis) for axis in axes})
        if value in self._squares and kind in ("sum", "mean") and not keepdim:
            return self._distance(self._squares[value], chosen, kind, name)
        sizes = [(n, at in chosen) for at, n in enumerate(value.shape)]
        shape = [1 if gone else n for n, gone in sizes if keepdim or not gone]
        return self.node(
            "reduce", [value], shape, axes=tuple(chosen), keepdim=keepdim, kind=kind, name=name
        )

    def matmul(self, first: Operand, second: Operand, name: str = "heads", **named: Any) -> Value:
        """`first @ second` with NumPy's semantics, of values, or of one value and weights."""
        if min(first.ndim, second.ndim) < 1:
            raise ModelError("a product of matrices with a single number")
        if isinstance(first, Known) or isinstance(second, Known):
            left = isinstance(first, Known)
            value, weights = (second, first) if left else (first, second)
            if isinstance(value, Known) or isinstance(weights, Value):
                raise ModelError("its operands do not depend on the data")
            return self.product(
                value, weights.values, left=left, name=weights.name, module=weights.module,
                parameters=weights.parameters, **named,
            )  # fmt: skip
        if first.ndim == 1:
            return squeezed(self.matmul(unsqueezed(first, 0), second, name), [-2 % second.ndim])
        if second.ndim == 1:
            made = self.matmul(first, unsqueezed(second, 1), name)
            return squeezed(made, [made.ndim - 1])
        if first.shape[-1] != second.shape[-2]:
            raise ModelError(f"it multiplies shapes {first.shape} and {second.shape}")
        batch = np.broadcast_shapes(first.shape[:-2], second.shape[:-2])
        shape = (*batch, first.shape[-2], second.shape[-1])
        return self.node("matmul", [first, second], shape, name=name)

    def attention(
        self,
        query: Operand,
        key: Operand,
        value: Operand,
        *,
        name: str = "heads",
        scale: float | None = None,
    ) -> Value:
        """Scaled dot-product attention of (..., time, dims): the value's neurons.

        Heads of (..., heads, time, dims) may share the heads of keys and values. Queries, keys or
        values that depend on no input are weights, as in the products written out; `scale`, by
        default 1 / sqrt(dims), is a factor of theirs.
        """
        if query.ndim > 3 and query.shape[-3] > 1:
            key, value = (repeated_heads(x, query.shape[-3], -3) for x in (key, value))
        if isinstance(query, Known) and isinstance(key, Known):
            raise ModelError("its shares depend on parameters alone")
        scores = self.matmul(query, swapped(key), name)
        if isinstance(query, Value) and isinstance(key, Value):
            scores = self.node("forget", [scores], scores.shape)
        else:
            scores = self.gain(scores, query.shape[-1] ** -0.5 if scale is None else scale)
            scores = self.softmax(scores, -1)
        return self.matmul(scores, value, name)

    # --- writing in place -------------------------------------------------------------------

    def written(self, whole: Value, old: Value, new: Value, places: Callable[[], Array]) -> Value:
        """A tensor after its part `old` was replaced in place by `new`, at flat `places`.

        If the part's neurons are unchanged, so are the tensor's.
        """
        return self.node("write", [whole, old, new], whole.shape, places=places)

    def unchanged(self, old: Value, new: Value, why: str) -> None:
        """Refuse the following operations if replacing `old` by `new` changed neurons."""
        self.node("write", [old, old, new], old.shape, places=None, why=why)

    def put(self, value: Value, shape: Sequence[int], places: Array) -> Value:
        """A tensor with a value's entries at flat `places`, empty elsewhere."""
        return self.scatter(Value(tuple(shape)), value, places=lambda: places)

    def scatter(
        self,
        value: Value,
        source: Value,
        *,
        axis: int | None = None,
        added: bool = False,
        why: str = "",
        places: Callable[[], Array] | None = None,
    ) -> Value:
        """Entries replaced by a source's, at indexed positions along `axis`.

        `places` gives the flat position of each entry of the source if the index is known.
        """
        return self.node(
            "scatter", [value, source], value.shape, axis=axis, added=added, why=why, places=places
        )

    # --- ends and notes ---------------------------------------------------------------------

    def output(self, value: Value, name: str = "output") -> None:
        """The end of the forward pass: a value that it returns."""
        self.node("output", [value], None, name=name)

    def leave_out(self, name: str, shape: Sequence[int], reason: str) -> None:
        """Note weights that are not in the graph."""
        self._note("leave_out", name=name, shape=tuple(shape), reason=reason)

    def place(self, parameters: Iterable[str], role: str) -> None:
        """Note parameters that are in the graph."""
        self._note("place", parameters=tuple(parameters), role=role)

    def ignore(self, parameters: Iterable[str], role: str) -> None:
        """Note parameters that have no edges, such as biases."""
        self._note("ignore", parameters=tuple(parameters), role=role)

    def _note(self, what: str, **attributes: Any) -> None:
        if attributes.get("parameters", True):
            self.nodes.append(Node("note", (), None, {"what": what, **attributes}, ""))

    def _named(self, named: dict[str, Any], weight: Weights | None = None) -> dict[str, Any]:
        own = {} if weight is None else {"weight": self._weights(weight, named)}
        return {**own, **named, "parameters": tuple(named.get("parameters", ()))}

    def _weights(self, weight: Weights, named: dict[str, Any]) -> Expression:
        return expression_of(weight, named.get("parameters", ()) if self.named else ())

    def wrote(self, value: Value) -> list[str]:
        """Names of the nearest nodes upstream of a value that write neurons."""
        node = next((node for node in self.nodes if node.output is value), None)
        if node is None:
            return []
        if node.kind in WRITES:
            return [str(node.attributes["name"])]
        return [*dict.fromkeys(name for source in node.inputs for name in self.wrote(source))]


def _check(weight: Weights, n_in: int, n: int, what: str) -> None:
    if 0 in weight.shape:
        raise ModelError(f"its weights have shape {weight.shape}: no neurons")
    if n_in != n:
        raise ModelError(f"it reads {n_in} {what}, but gets {n}")


Lower: TypeAlias = Callable[[Program], Made]
"""A function that a reader gives its program to; the reader does not know what it makes."""
