"""Merges neurons that are added to each other into one vertex, if sums are streams."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ncut.extract.lowering.factors import Factors, of_units, ones
from ncut.extract.lowering.signal import NOTHING, Group, Part, Term, Units, joined, times


@dataclass(frozen=True, slots=True, eq=False)
class Copies:
    """Neurons of a group that map to several others, such as a key's shared by many queries."""

    group: Group
    units: Units
    target: Group
    target_units: Units


@dataclass(slots=True)
class Merging:
    """Classes of neurons, each a vertex, as a disjoint-set forest over the neurons of all groups.

    Each group has a pointer `(group number, unit)` per neuron, to another neuron of the same
    class or to itself.

    Attributes
    ----------
    copies : list of Copies
        Neurons that map to several others.
    scales : dict from Group to Factors of shape (size,)
        Factors of a group's neurons where they enter a sum.
    sums : set of Group
        Groups with neurons that have been added to others.
    """

    copies: list[Copies] = field(default_factory=list)
    scales: dict[Group, Factors] = field(default_factory=dict)
    sums: set[Group] = field(default_factory=set)
    _parents: dict[Group, tuple[NDArray[np.int64], NDArray[np.int64]]] = field(default_factory=dict)
    _groups: dict[int, Group] = field(default_factory=dict)

    def has(self, group: Group) -> bool:
        """Check whether any of a group's neurons have been added to others."""
        return group in self._parents

    def find(self, group: Group, units: Units) -> tuple[NDArray[np.int64], Units]:
        """The class of each of a group's neurons: a group's number and a neuron of it."""
        numbers = np.full(units.shape, group.number, dtype=np.int64)
        units = units.copy()
        while True:
            moved = False
            for number in np.unique(numbers):
                other = self._groups.get(int(number))
                if other is None:
                    continue
                here = (numbers == number) & (units != NOTHING)
                to_group, to_unit = (parent[units[here]] for parent in self._parents[other])
                moved = moved or bool(
                    np.any(to_group != numbers[here]) or np.any(to_unit != units[here])
                )
                numbers[here], units[here] = to_group, to_unit
            if not moved:
                return numbers, units

    def merge(self, first: Sequence[Term], second: Sequence[Term]) -> list[Term]:
        """The terms of a sum; neurons at the same entries are merged.

        Neurons of one layer are never merged with each other: both terms are kept instead.
        """
        kept = list(first)
        for term in second:
            rest: Term | None = term
            for at, other in enumerate(kept):
                if rest is None:
                    break
                kept[at], rest = self._merged(other, rest)
            if rest is not None:
                kept.append(rest)
        return kept

    def join(self, parts: Sequence[Part]) -> None:
        """Merge the neurons at the same inputs; shared neurons become copies."""
        for part in parts:
            if part.scale is not None and part.group not in self.sums:
                # Norms of queries and keys: they have no reader that could take the factors.
                self._factors(part.group, part.units, part.scale)
        main = parts[0]
        for part in parts[1:]:
            ours, theirs = main.units[:, 0], part.units[:, 0]
            n_ours, n_theirs = np.unique(ours).size, np.unique(theirs).size
            pairs = np.unique(np.stack([ours, theirs], axis=1), axis=0)
            if n_ours == n_theirs == len(pairs):
                self._unite(main.group, pairs[:, 0], part.group, pairs[:, 1])
            elif n_ours == len(pairs):
                self.copies.append(Copies(part.group, pairs[:, 1], main.group, pairs[:, 0]))
            elif n_theirs == len(pairs):
                self.copies.append(Copies(main.group, pairs[:, 0], part.group, pairs[:, 1]))

    def _merged(self, first: Term, second: Term) -> tuple[Term, Term | None]:
        """The first term, and the rest of the second after merging it into the first."""
        shape = np.broadcast_shapes(first.units.shape, second.units.shape)
        ours, theirs = (np.broadcast_to(term.units, shape) for term in (first, second))
        both = (ours != NOTHING) & (theirs != NOTHING)
        if not both.any():
            return first, second
        pairs = np.unique(np.stack([ours[both], theirs[both]], axis=1), axis=0)
        roots = [
            _codes(*self.find(term.group, pairs[:, side]))
            for side, term in enumerate((first, second))
        ]
        same = roots[0] == roots[1]
        if same.all() and first.group is second.group and not self.has(first.group):
            together = joined([first, second])
            if len(together) == 1:
                return together[0], None
        if not same.all():
            one_to_one = all(np.unique(side).size == len(pairs) for side in roots)
            if (
                not one_to_one
                or np.intersect1d(roots[0], roots[1]).size
                or first.group is second.group
            ):
                return first, second
            self._unite(first.group, pairs[:, 0], second.group, pairs[:, 1])
            first, second = self._unscaled(first), self._unscaled(second)
            self.sums |= {first.group, second.group}
            first = replace(first, homogeneous=False)
        elif first.homogeneous is not second.homogeneous:
            # x + f(x) commutes with factors if f does.
            known = None not in (first.homogeneous, second.homogeneous)
            either = False in (first.homogeneous, second.homogeneous)
            first = replace(first, homogeneous=False if known or either else None)
        if np.array_equal(both, theirs != NOTHING):
            return first, None
        rest: Units = np.where(both, NOTHING, theirs)
        return first, replace(second, units=rest)

    def rescales(self, term: Term) -> bool:
        """Check whether a sum's neurons have different factors than at the entry into the sum."""
        if term.group not in self.sums:
            return False
        factors = times(term.scale, term.gain)
        entered = self.scales.get(term.group)
        known = factors if factors is not None else entered
        if known is None:
            return False
        one = ones((1,) * term.units.ndim, known.ledger)
        ours = one if factors is None else factors
        theirs = one if entered is None else of_units(entered, term.units)
        differ = np.asarray(ours) != np.asarray(theirs)
        shape = np.broadcast_shapes(differ.shape, term.units.shape)
        used = np.broadcast_to(term.units, shape) != NOTHING
        return bool(np.broadcast_to(differ, shape)[used].any())

    def _unscaled(self, term: Term) -> Term:
        """The term as a part of a sum, without its factors.

        The factors move to the weights that write the term. Readers of the neurons before and
        after the sum read them relative to these factors.
        """
        group = term.group
        factors = times(term.scale, term.gain)
        if group not in self.sums and factors is not None:
            shape = np.broadcast_shapes(term.units.shape, factors.shape)
            self._factors(
                group,
                np.broadcast_to(term.units, shape),
                factors.map(lambda array: np.broadcast_to(array, shape)),
            )
        entered = self.scales.get(group)
        own = None if entered is None else of_units(entered, term.units)
        return replace(term, scale=own, gain=None)

    def _factors(self, group: Group, units: Units, scale: Factors) -> None:
        """Note factors of a group's neurons, which move to their writers."""
        factors = self.scales.setdefault(group, ones((group.size,), scale.ledger))
        factors.codes[units[units != NOTHING]] = scale.codes[units != NOTHING]

    def _unite(self, first: Group, ours: Units, second: Group, theirs: Units) -> None:
        for group in (first, second):
            if group not in self._parents:
                numbers: NDArray[np.int64] = np.full(group.size, group.number, dtype=np.int64)
                self._parents[group] = (numbers, np.arange(group.size))
                self._groups[group.number] = group
        roots = [self.find(first, ours), self.find(second, theirs)]
        # The older group's neuron represents the class.
        swap = roots[1][0] < roots[0][0]
        to_group = np.where(swap, roots[1][0], roots[0][0])
        to_unit = np.where(swap, roots[1][1], roots[0][1])
        from_group = np.where(swap, roots[0][0], roots[1][0])
        from_unit = np.where(swap, roots[0][1], roots[1][1])
        for number in np.unique(from_group):
            here = from_group == number
            numbers, units = self._parents[self._groups[int(number)]]
            numbers[from_unit[here]] = to_group[here]
            units[from_unit[here]] = to_unit[here]


def _codes(numbers: NDArray[np.int64], units: Units) -> NDArray[np.int64]:
    return np.asarray(numbers * (1 << 40) + units)
