"""Reads weights-only files as a chain, from names, shapes and their order in the file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncut.errors import InputError, ModelError
from ncut.extract.program.record import Program
from ncut.extract.readers.chain import (
    ChainLayer,
    first_gap,
    normalization_scale,
    with_depthwise_groups,
    write_chain,
)
from ncut.extract.readers.keras.storage import Content, Tree
from ncut.extract.readers.keras.weights import Named, Variable, layout_of, leaf

EPSILON = 1e-3
"""Default epsilon of Keras' batch norms; files of weights do not store it."""

_NOT_WEIGHTS = ("optimizer", "optimizer_weights", "metrics", "loss_tracker")


@dataclass(slots=True)
class _Entry:
    """The variables of one layer."""

    path: str  # their path in the file
    name: str  # the layer's name, if the file stores it
    variables: dict[str, Variable] = field(default_factory=dict)  # by base name, or by number

    def weight(self) -> Variable | None:
        """The kernel of a plain layer: its only array with several axes; else None."""
        wide = [v for v in self.variables.values() if len(v.shape) >= 2]
        kernel = self.variables.get("kernel") or self.variables.get("0")
        return wide[0] if len(wide) == 1 and kernel in (None, wide[0]) else None

    def norm(self) -> tuple[Variable | None, Variable] | None:
        """Gamma and variance, if the layer is a batch norm.

        If variables are only numbered, one of three may be gamma or beta, so all four are
        required.
        """
        if len({v.shape for v in self.variables.values()}) != 1:
            return None
        if "moving_variance" in self.variables:
            return self.variables.get("gamma"), self.variables["moving_variance"]
        numbered = "norm" in self.path and self.variables.keys() == {"0", "1", "2", "3"}
        return (self.variables["0"], self.variables["3"]) if numbered else None


def read_weights(
    content: Content, layers: Sequence[str] | None
) -> tuple[Program, dict[str, tuple[int, ...]]]:
    """Read the kernels of a file as a chain.

    Parameters
    ----------
    content : Content
        The file.
    layers : sequence of str, optional
        Names or paths of layers, or paths of kernels, in order. By default all kernels in the
        order of the file (or sorted by name, convolutions first), if they fit.

    Raises
    ------
    ModelError
        If the kernels form no chain.
    InputError
        If `layers` has a missing or a repeated name.
    """
    entries, ordered = _entries(content.tree)
    if not entries:
        raise ModelError("holds no weights of layers that Keras would write")
    shapes = {variable.path: variable.shape for e in entries for variable in e.variables.values()}
    program = Program()
    found = [entry for entry in entries if entry.weight()]
    norms = [entry for entry in entries if entry.norm()]
    if layers is not None:
        chosen = _chosen(entries, layers, str(content.path))
        for entry in found:
            variable = entry.weight()
            if entry not in chosen and variable is not None:
                program.leave_out(variable.path, variable.shape, "not among layers=[...]")
    else:
        several = [e for e in entries if any(len(v.shape) > 1 for v in e.variables.values())]
        odd = [entry for entry in several if entry not in found]
        chosen = _in_order(found, odd, ordered)
    scales = _scales(entries, chosen, norms, content.tree, program, ordered=ordered)
    chain = [_layer(entry, content.tree, scales.get(entry.path)) for entry in chosen]
    short = [entry.name for entry in chosen]
    if len(set(short)) == len(short):
        chain = [replace(layer, name=name) for layer, name in zip(chain, short, strict=True)]
    chain = with_depthwise_groups(chain)
    gap = first_gap(chain)
    if gap and layers is not None:
        raise InputError(f"{content.path}: layers: {gap}")
    for entry in entries:
        vectors = [v.path for v in entry.variables.values() if len(v.shape) == 1]
        if "norm" in entry.path and entry not in norms:
            program.leave_out(entry.path, (), "a norm whose factors are not folded")
        program.ignore(vectors, "bias" if entry.weight() else "a vector")
    # Channels come last, so the channel is the fastest axis of a flattened image.
    write_chain(program, chain, channels_last=True)
    return program, shapes


def _entries(tree: Tree) -> tuple[list[_Entry], bool]:
    """The layers with variables, and whether they are in the model's order."""
    layout = layout_of(tree)
    if isinstance(layout, Named):
        entries: dict[str, _Entry] = {}
        for name, variables in layout.layers().items():
            for variable in variables:
                parent, _, own = variable.path.rpartition("/")
                inner = parent.rpartition("/")[2]
                entry = entries.setdefault(parent, _Entry(parent, inner or name))
                entry.variables[leaf(own)] = variable
        return [*entries.values()], True
    entries = {}
    for path, shape in tree.arrays().items():
        if path.partition("/")[0] in _NOT_WEIGHTS or "/seed_generator/" in path:
            continue
        parent, _, own = path.rpartition("/")
        parent = parent.removesuffix("/vars")
        if parent not in entries:
            name = tree.text("name", f"{parent}/vars") or parent.rpartition("/")[2]
            entries[parent] = _Entry(parent, name)
        entries[parent].variables[re.sub(r":\d+$", "", own)] = Variable(path, shape)
    return sorted(entries.values(), key=lambda entry: _natural(entry.path)), False


def _natural(path: str) -> list[Any]:
    """A key that sorts names with numbers by value: `conv2d` before `conv2d_2`."""
    return [
        [(int(word), "") if word.isdigit() else (-1, word) for word in re.split(r"(\d+)", step)]
        for step in path.split("/")
    ]


def _chosen(entries: Sequence[_Entry], layers: Sequence[str], where: str) -> list[_Entry]:
    if isinstance(layers, str) or not layers:
        raise InputError("layers: must be a list of names, in the order of the chain")
    by_name: dict[str, list[_Entry]] = {}
    for entry in entries:
        kernel = entry.weight()
        names = {entry.name, entry.path, *([kernel.path] if kernel else [])}
        for name in names:
            by_name.setdefault(name, []).append(entry)
    chosen: list[_Entry] = []
    for name in layers:
        matching = by_name.get(name, [])
        if len(matching) != 1:
            why = f"names {len(matching)} layers" if matching else "is not there"
            raise InputError(f"{where}: layers: {name!r} {why}; there are {_listing(entries)}")
        if matching[0].weight() is None:
            raise InputError(f"{where}: layers: {name!r} has no single kernel")
        if matching[0] in chosen:
            raise InputError(f"{where}: layers: {name!r} is named twice")
        chosen.append(matching[0])
    return chosen


def _in_order(found: list[_Entry], odd: list[_Entry], ordered: bool) -> list[_Entry]:
    """The kernels in the only order that makes a chain."""
    if odd:
        raise ModelError(
            f"layer {odd[0].path!r} has several kernels (recurrent, separable, attention), and "
            f"weights alone do not tell how it reads the others: {_ADVICE}; there are "
            f"{_listing(found + odd)}"
        )
    convolutions_first = sorted(found, key=lambda entry: len(_shape(entry)) == 2)
    for order in [found, convolutions_first] if ordered else [convolutions_first]:
        if _fits(order):
            return order
    raise ModelError(
        f"its kernels do not form one chain, and weights alone do not tell how they are "
        f"connected: {_ADVICE}; there are {_listing(found)}"
    )


_ADVICE = "save the whole model (model.save), or name those of a chain in order: layers=[...]"


def _shape(entry: _Entry) -> tuple[int, ...]:
    variable = entry.weight()
    assert variable is not None
    return variable.shape


def _fits(order: Sequence[_Entry]) -> bool:
    if len(order) < 2:
        return bool(order)
    for before, after in pairwise(_shape(entry) for entry in order):
        flattened = len(before) > 2 and len(after) == 2
        if len(before) == 2 and len(after) > 2:
            return False
        n_out, n_in = before[-1], after[-2]
        if n_in != n_out and not (flattened and n_out and n_in % n_out == 0):
            return False
    return True


def _listing(entries: Sequence[_Entry]) -> str:
    named = [
        (f"{e.path} {_shape(e)}" if e.path.endswith(e.name) else f"{e.name} ({e.path}) {_shape(e)}")
        for e in entries
        if e.weight()
    ]
    more = f" and {len(named) - 40} more" if len(named) > 40 else ""
    return ", ".join(named[:40]) + more


def _layer(entry: _Entry, tree: Tree, scale: NDArray[np.float64] | None) -> ChainLayer:
    variable = entry.weight()
    assert variable is not None
    values = tree.array(variable.path)
    kind: Any = "linear"
    if values.ndim > 2:
        kind, values = "conv", np.moveaxis(values, (-1, -2), (0, 1))
    if values.ndim > 5:
        raise ModelError(f"{variable.path!r} has shape {variable.shape}: not a kernel")
    return ChainLayer(entry.path, values, kind, output_scale=scale, parameters=(variable.path,))


def _scales(
    entries: Sequence[_Entry],
    chosen: Sequence[_Entry],
    norms: Sequence[_Entry],
    tree: Tree,
    program: Program,
    *,
    ordered: bool,
) -> Mapping[str, NDArray[np.float64]]:
    """Factors of batch norms, if the layer of each is unambiguous."""
    owners: dict[str, _Entry] = {}
    for norm in norms:
        at = entries.index(norm)
        before = entries[at - 1] if at else None
        if (
            ordered
            and before is not None
            and before in chosen
            and _shape(before)[-1] == _length(norm)
        ):
            owners[norm.path] = before
    if not owners and len(norms) == sum(len(_shape(entry)) > 2 for entry in chosen):
        convolutions = [entry for entry in chosen if len(_shape(entry)) > 2]
        pairs = [*zip(norms, convolutions, strict=True)]
        if all(_shape(conv)[-1] == _length(norm) for norm, conv in pairs):
            owners = {norm.path: conv for norm, conv in pairs}
    scales = {}
    for norm in norms:
        found = norm.norm()
        assert found is not None
        gamma, variance = found
        owner = owners.get(norm.path)
        if owner is None:
            program.leave_out(
                norm.path, variance.shape, "a batch norm; which layer it follows is not in the file"
            )
            continue
        factors = None if gamma is None else tree.array(gamma.path)
        scales[owner.path] = normalization_scale(factors, tree.array(variance.path), EPSILON)
        program.place([(gamma or variance).path], "a factor of a layer's neurons")
    return scales


def _length(norm: _Entry) -> int:
    return next(iter(norm.variables.values())).shape[0]
