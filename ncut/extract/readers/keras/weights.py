"""Locations of a layer's arrays in Keras' file layouts.

The archives and the weights files of Keras 3 number a layer's variables below a path of class
names with counters; HDF5 files of whole models name the variables below the layer's name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from ncut.errors import ModelError
from ncut.extract.readers.keras.storage import Tree

ROOTS = ("layers", "_layer_checkpoint_dependencies")
"""Groups of a numbered file that hold layers; TensorFlow 2.12 uses the second."""

Place: TypeAlias = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Variable:
    """An array in a file: its path and its shape."""

    path: str
    shape: tuple[int, ...]


class Layout(Protocol):
    """A file's mapping from layers to arrays."""

    tree: Tree

    def within(self, place: Place, cls: str, number: int, name: str) -> Place:
        """The place of a layer, the `number`th of its class in a model."""

    def variables(self, place: Place, part: str, names: Sequence[str]) -> dict[str, Variable]:
        """The variables of a layer or a part of it; missing `names` are skipped."""

    def everything(self) -> dict[str, tuple[int, ...]]:
        """Paths and shapes of all weights."""


def layout_of(tree: Tree) -> Layout | None:
    """The layout of a file; None if it holds no layers."""
    if any(tree.is_group(root) for root in ROOTS):
        return Numbered(tree)
    for root in ("model_weights", ""):
        if tree.texts("layer_names", root) is not None:
            return Named(tree, root)
    return None


class Numbered:
    """`layers/conv2d_1/vars/0`: classes with counters, variables in creation order."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self._root = next((root for root in ROOTS if tree.is_group(root)), ROOTS[0])
        self._by_name: dict[str, list[str]] | None = None

    def within(self, place: Place, cls: str, number: int, name: str) -> Place:
        """The layer's path; looked up by name if the file stores names."""
        base = snake_case(cls)
        path = (*place, self._root, f"{base}_{number}" if number else base)
        found = self.tree.text("name", "/".join((*path, "vars")))
        if found == name or (found is None and self.tree.is_group("/".join(path))):
            return path
        # A layer shared by several models is stored with the first model.
        others = self._named().get(name, [])
        near = [other for other in others if other.startswith("/".join((*place, self._root)))]
        chosen = near if len(near) == 1 else others
        return tuple(chosen[0].split("/")) if len(chosen) == 1 else path

    def variables(self, place: Place, part: str, names: Sequence[str]) -> dict[str, Variable]:
        """The variables, by number."""
        for spelled in (part, _with_underscore(part)):
            group = "/".join((*place, spelled, "vars") if spelled else (*place, "vars"))
            present = set(self.tree.children(group))
            if present:
                break
        found = {}
        for number, name in enumerate(names):
            if str(number) in present:
                path = f"{group}/{number}"
                found[name.partition("|")[0]] = Variable(path, self.tree.shape(path))
        return found

    def everything(self) -> dict[str, tuple[int, ...]]:
        """All arrays of the layers, without the optimizer's."""
        return {
            path: shape
            for path, shape in self.tree.arrays(self._root).items()
            if "/seed_generator/" not in path
        }

    def _named(self) -> dict[str, list[str]]:
        """Paths of the layers by their names in the file."""
        if self._by_name is None:
            self._by_name = {}
            seen: set[str] = set()
            for path in self.tree.arrays(self._root):
                steps = path.split("/")
                for n in range(2, len(steps)):
                    layer = "/".join(steps[:n])
                    if layer in seen:
                        continue
                    seen.add(layer)
                    name = self.tree.text("name", f"{layer}/vars")
                    if name is not None:
                        self._by_name.setdefault(name, []).append(layer)
        return self._by_name


class Named:
    """`dense/dense/kernel:0`: a group per layer of the model, with a list of its variables."""

    def __init__(self, tree: Tree, root: str) -> None:
        self.tree = tree
        self._root = root

    def layers(self) -> dict[str, list[Variable]]:
        """The variables of all layers, in the order of the model."""
        names = self.tree.texts("layer_names", self._root) or []
        return {name: self._variables(name) for name in names}

    def within(self, place: Place, cls: str, number: int, name: str) -> Place:
        """Names of the enclosing models and of the layer."""
        return (*place, name)

    def variables(self, place: Place, part: str, names: Sequence[str]) -> dict[str, Variable]:
        """The variables, by name."""
        here = self._variables(place[0])
        if len(place) > 1:
            here = _under(here, place[-1], required=True)
            for outer in place[1:-1]:
                here = _under(here, outer, required=False)
        for piece in filter(None, part.split("/")):
            here = _under(here, _SPELLED.get(piece, piece), required=piece in _SPELLED)
        found = {}
        for name in names:
            spellings = name.split("|")
            matching = [v for v in here if leaf(v.path) in spellings]
            if len(matching) > 1:
                direct = [v for v in matching if _parts(v.path)[-2] == place[-1]]
                matching = direct or matching
            if len(matching) > 1:
                paths = ", ".join(repr(variable.path) for variable in matching)
                raise ModelError(f"its {spellings[0]} may be any of {paths}")
            if matching:
                found[spellings[0]] = matching[0]
        return found

    def everything(self) -> dict[str, tuple[int, ...]]:
        """All arrays of the layers."""
        return {v.path: v.shape for variables in self.layers().values() for v in variables}

    def _variables(self, name: str) -> list[Variable]:
        group = f"{self._root}/{name}" if self._root else name
        weights = self.tree.texts("weight_names", group) or []
        return [Variable(f"{group}/{w}", self.tree.shape(f"{group}/{w}")) for w in weights]


# Names of layer parts in variable names.
_SPELLED = {
    **{"query_dense": "query", "key_dense": "key", "value_dense": "value"},
    **{"output_dense": "attention_output", "gate_dense": "gate"},
    **{"forward_layer": "forward", "backward_layer": "backward"},
}


def snake_case(name: str) -> str:
    """A class name in Keras' path format: `Conv2DTranspose` -> `conv2d_transpose`."""
    words = re.sub(r"(?<=.)(?=[A-Z][a-z])|(?<=[a-z])(?=[A-Z])", "_", re.sub(r"\W+", "", name))
    return words.lower()


def _under(variables: list[Variable], name: str, *, required: bool) -> list[Variable]:
    """The variables with a layer's name as a step of their path."""
    for pattern in (re.escape(name), rf"{re.escape(name)}_.*"):
        step = re.compile(pattern, re.DOTALL).fullmatch
        found = [v for v in variables if any(map(step, _parts(v.path)[:-1]))]
        if found:
            return found
    return [] if required else variables


def _parts(path: str) -> list[str]:
    return path.split("/")


def leaf(path: str) -> str:
    """A variable's base name: `dense/kernel_1:0` -> `kernel`."""
    return re.sub(r"(_\d+)?(:\d+)?$", "", _parts(path)[-1])


def _with_underscore(part: str) -> str:
    return f"_{part}" if part else part
