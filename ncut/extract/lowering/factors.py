"""Factors between a neuron and its reader, and their provenance.

A `Ledger` numbers the factors of a forward pass: entries of arrays computed from parameters,
constants, products of other factors. An array of factors, `Factors`, is an array of these codes,
so it is reshaped, sliced and joined like arrays of neurons, and can be recomputed from later
values of the parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ncut.extract.arrays import Shaped

Codes = NDArray[np.int64]
Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """Factors recorded together, with consecutive codes."""

    # The first code, and the number of codes
    start: int
    size: int
    # Constants, entries of a source's array, or functions of the magnitudes of other factors.
    kind: Literal["constant", "source", "product", "quotient", "largest", "mean"]
    source: Any = None  # the reader's source of the factors
    # Entries of the source, shape (size,); or codes of other factors, (size, m) for a mean.
    parts: tuple[Codes, ...] = ()


def computed(kind: str, *parts: Any) -> Any:
    """A product, or a function of the magnitudes of factors: of arrays, or of live tensors."""
    if kind == "product":
        return parts[0] * parts[1]
    first, *others = map(abs, parts)
    if kind == "mean":
        return first.mean(-1)
    if kind == "quotient":
        return first / others[0]
    array = isinstance(first, np.ndarray)
    return np.maximum(first, *others) if array else first.maximum(*others)


class Ledger:
    """All factors of a forward pass, by their codes.

    Attributes
    ----------
    segments : list of Segment
        In the order of their codes; the code 0 is the factor 1.
    """

    def __init__(self) -> None:
        self.segments = [Segment(0, 1, "constant")]
        self._stored: Numbers = np.ones(1024)
        self._n = 1
        self._made: dict[tuple[Any, ...], Codes] = {}

    @property
    def numbers(self) -> Numbers:
        """The current values of the factors."""
        return self._stored[: self._n]

    def constant(self, values: NDArray[Any]) -> Factors:
        """Constant factors; equal values in an array share a code."""
        wide = np.asarray(values, dtype=np.float64)
        key = ("constant", wide.shape, wide.tobytes())
        if key not in self._made:
            unique, back = np.unique(wide, return_inverse=True)
            start = self._add("constant", unique)
            codes = start + back.reshape(wide.shape)
            self._made[key] = np.where(wide == 1, 0, codes)
        return Factors(self._made[key], self)

    def entries(self, values: NDArray[Any], source: Any) -> Factors:
        """The entries of a source's array, as factors of the same shape."""
        wide = np.asarray(values, dtype=np.float64)
        index: Codes = np.arange(wide.size)
        start = self._add("source", wide.ravel(), source, (index,))
        return Factors(start + index.reshape(wide.shape), self)

    def made(
        self, kind: Literal["product", "quotient", "largest"], first: Codes, second: Codes
    ) -> Factors:
        """A function of two arrays of factors that broadcast with each other."""
        key = (kind, first.shape, first.tobytes(), second.shape, second.tobytes())
        known = self._made.get(key)
        if known is not None:
            return Factors(known, self)
        ours, theirs = np.broadcast_arrays(first, second)
        codes = np.where(ours == 0, theirs, ours)
        open_ones = (ours != 0) & (theirs != 0) if kind == "product" else np.ones_like(ours, bool)
        if open_ones.any():
            pairs, back = np.unique(
                np.stack([ours[open_ones], theirs[open_ones]]), axis=1, return_inverse=True
            )
            with np.errstate(all="ignore"):
                values = computed(kind, self.numbers[pairs[0]], self.numbers[pairs[1]])
            start = self._add(kind, values, None, (pairs[0], pairs[1]))
            codes[open_ones] = start + back.ravel()
        self._made[key] = codes
        return Factors(codes, self)

    def mean(self, codes: Codes) -> Factors:
        """The mean magnitude along the last axis."""
        key = ("mean", codes.shape, codes.tobytes())
        if key in self._made:
            return Factors(self._made[key], self)
        flat = codes.reshape(-1, codes.shape[-1])
        start = self._add("mean", computed("mean", self.numbers[flat]), None, (flat,))
        self._made[key] = (start + np.arange(len(flat))).reshape(codes.shape[:-1])
        return Factors(self._made[key], self)

    def _add(
        self, kind: Any, values: Numbers, source: Any = None, parts: tuple[Codes, ...] = ()
    ) -> int:
        start, self._n = self._n, self._n + len(values)
        if self._n > len(self._stored):
            grown = np.empty(2 * self._n)
            grown[:start] = self._stored[:start]
            self._stored = grown
        self._stored[start : self._n] = values
        self.segments.append(Segment(start, len(values), kind, source, parts))
        return start


class Factors(Shaped):
    """An array of factors; `numpy.asarray` gives their values."""

    __slots__ = ("codes", "ledger")

    def __init__(self, codes: Codes, ledger: Ledger) -> None:
        self.codes, self.ledger = np.asarray(codes, dtype=np.int64), ledger

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """The values, float64."""
        return np.asarray(self.ledger.numbers[self.codes], dtype=dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        """The array's shape."""
        return self.codes.shape

    @property
    def single(self) -> bool:
        """Check whether all entries are the same factor."""
        return not self.size or bool((self.codes == self.codes.flat[0]).all())

    def map(self, change: Callable[[NDArray[np.generic]], NDArray[np.generic]]) -> Factors:
        """The array reshaped, sliced or repeated."""
        return Factors(np.asarray(change(self.codes), dtype=np.int64), self.ledger)

    def __getitem__(self, index: Any) -> Factors:
        """Entries of the array."""
        return Factors(self.codes[index], self.ledger)

    def __mul__(self, other: Factors) -> Factors:
        """The product with an array that broadcasts with this one."""
        return self.ledger.made("product", self.codes, other.codes)

    def over(self, other: Factors) -> Factors:
        """The quotient of magnitudes; 1 if both are the same factor or the divisor is 0."""
        ours, theirs = np.broadcast_arrays(self.codes, other.codes)
        same = (ours == theirs) | (self.ledger.numbers[theirs] == 0)
        made = self.ledger.made("quotient", np.where(same, 0, ours), np.where(same, 0, theirs))
        return Factors(np.where(same, 0, made.codes), self.ledger)

    def inverse(self) -> Factors:
        """The reciprocals."""
        return self.ledger.made("quotient", np.zeros_like(self.codes), self.codes)

    def mean(self, axis: int, *, keepdims: bool = False) -> Factors:
        """The mean magnitude along an axis; a single factor is returned unchanged."""
        moved = np.moveaxis(self.codes, axis, -1)
        same = bool((moved == moved[..., :1]).all())
        made = Factors(moved[..., 0], self.ledger) if same else self.ledger.mean(moved)
        return made.map(lambda a: np.expand_dims(a, axis)) if keepdims else made

    def tobytes(self) -> bytes:
        """A key, equal for equal factors of equal shapes."""
        return self.codes.tobytes()


def one_of(
    ledger: Ledger, which: NDArray[np.bool_], first: Codes, second: Codes, both: NDArray[np.bool_]
) -> Factors:
    """The first factor where `which`, else the second; the larger where both exist and differ.

    A neuron with several paths, such as x + norm(x), gets the largest factor, so the number of
    paths does not grow with depth.
    """
    codes = np.where(which, first, second)
    differ = both & (first != second)
    if differ.any():
        widest = ledger.made("largest", first, second).codes
        codes = np.where(differ, widest, codes)
    return Factors(codes, ledger)


def ones(shape: Sequence[int], ledger: Ledger) -> Factors:
    """Factors of 1."""
    return Factors(np.zeros(tuple(shape), dtype=np.int64), ledger)


def of_units(factors: Factors, units: Codes) -> Factors:
    """The factor of each neuron in an array; 1 for -1 (no neuron)."""
    return Factors(np.append(factors.codes, 0)[units], factors.ledger)
