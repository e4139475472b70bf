"""silenced(): a model in which some neurons have no effect."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ncut.errors import InputError
from ncut.extract.modules import is_module
from ncut.functional.arguments import check_unshared, check_vertices
from ncut.functional.modules import hooked, part, reading
from ncut.types import Layer

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ncut.functional.modules import Read

_PASS_THE_MODEL = (
    "pass the model itself: a torch.nn.Module, a list of weight arrays, or a mapping of names to "
    "weight arrays"
)


class _Silence(NamedTuple):
    """A part of the model that reads a layer, the layer's size, the neurons not to read."""

    reader: str
    size: int
    neurons: NDArray[np.intp]

    def entries(self, positions: int) -> NDArray[np.intp]:
        """Positions of the neurons if each has this many consecutive entries."""
        return np.asarray(self.neurons[:, None] * positions + np.arange(positions)).ravel()


@contextmanager
def silenced(model: Any, layers: Sequence[Layer], vertices: ArrayLike) -> Iterator[Any]:
    """The model with some neurons silenced: their readers read zero instead.

    Exactly their outgoing weights lose their effect; biases and the neurons' own inputs stay.
    A vertex without edges may be silenced like any other.

    Parameters
    ----------
    model : torch.nn.Module, sequence or mapping of weight arrays
        The model that the layers were read from. A module is returned itself, with hooks on the
        modules that read the neurons until the block ends, also by an exception; it is not changed
        otherwise, and compiled code runs uncompiled meanwhile. For arrays, a list or dict in which
        the readers' arrays are copies with some entries zero.
    layers : sequence of Layer
        The layers of the model's graph, `graph.layers`.
    vertices : array_like of int, shape (m,)
        Numbers of the graph's vertices.

    Yields
    ------
    torch.nn.Module, list or dict

    Raises
    ------
    InputError
        If the model is a graph, a path or another object without weights; if a vertex has no reader
        (the network's outputs), or its reader also reads another layer, is not in the model, or is
        not a linear layer or convolution.

    Examples
    --------
    >>> import numpy as np
    >>> from ncut.types import Layer
    >>> layers = [Layer("input", 0, 2, read_by=("w0",)), Layer("w0", 2, 2, read_by=("w1",))]
    >>> with silenced([np.ones((2, 2)), np.ones((2, 1))], layers, [3]) as weights:
    ...     print(weights[1].ravel())
    [1. 0.]
    """
    silences = _silences(layers, vertices)
    if is_module(model):
        with hooked(model, {silence.reader: _mask(model, silence) for silence in silences}):
            yield model
    elif isinstance(model, Mapping):
        yield _silenced_mapping(model, silences)
    elif isinstance(model, Sequence) and not isinstance(model, str):
        yield _silenced_list(model, silences)
    else:
        raise InputError(f"model: a {type(model).__name__} cannot be silenced; {_PASS_THE_MODEL}")


def _silences(layers: Sequence[Layer], vertices: ArrayLike) -> list[_Silence]:
    chosen = check_vertices(vertices, layers)
    silences = []
    for layer in layers:
        first, last = np.searchsorted(chosen, (layer.start, layer.start + layer.size))
        if first == last:
            continue
        if not layer.read_by:
            raise InputError(
                f"vertices: nothing reads the values of layer {layer.name!r}, so its neurons "
                "cannot be silenced; leave them out"
            )
        for reader in dict.fromkeys(layer.read_by):
            check_unshared(reader, layer, layers)
            silences.append(_Silence(reader, layer.size, chosen[first:last] - layer.start))
    return silences


def _mask(model: nn.Module, silence: _Silence) -> Read:
    """Set the neurons' entries to zero."""
    import torch

    where = reading(part(model, silence.reader), silence.reader, silence.size)
    entries = torch.from_numpy(silence.entries(where.positions))

    def read(value: Tensor) -> Tensor:
        return value.index_fill(where.axis, entries.to(value.device), 0)

    return read


def _silenced_list(model: Sequence[Any], silences: Sequence[_Silence]) -> list[Any]:
    if any(isinstance(values, str | Path) for values in model):
        raise InputError("model: paths cannot be silenced; pass the arrays in the files")
    weights = list(model)
    for silence in silences:
        named = re.fullmatch(r"w([0-9]+)", silence.reader)
        if named is None or int(named[1]) >= len(weights):
            raise InputError(
                f"model: a list of {len(weights)} arrays has no {silence.reader!r}; pass the "
                "model that the layers were read from"
            )
        at = int(named[1])
        weights[at] = _without(weights[at], silence, input_axis=0)
    return weights


def _silenced_mapping(model: Mapping[Any, Any], silences: Sequence[_Silence]) -> dict[Any, Any]:
    weights = dict(model)
    for silence in silences:
        key, input_axis = _find_weight(model, silence.reader)
        weights[key] = _without(weights[key], silence, input_axis)
    return weights


def _find_weight(model: Mapping[Any, Any], name: str) -> tuple[str, int]:
    """The key of a layer's weight, and the axis of the inputs if it is a matrix.

    As for mappings in general, PyTorch's names imply PyTorch's layout, (fan_out, fan_in).
    """
    prefix = "" if name == "weight" else f"{name}."
    # A pruned weight is the product of these two.
    pruned = (f"{prefix}weight_orig", f"{prefix}weight_mask")
    if all(key in model for key in pruned):
        return pruned[0], 1
    if f"{prefix}weight" in model:
        return f"{prefix}weight", 1
    if name in model:
        return name, 0
    raise InputError(
        f"model: the mapping has no weights of {name!r}; pass the mapping that the layers were "
        "read from (for a checkpoint, its state dict)"
    )


def _without(values: Any, silence: _Silence, input_axis: int) -> Any:
    """A copy of a weight array with the neurons' outgoing weights set to zero."""
    weight = _copy(values)
    fits = _zero_matrix if weight.ndim == 2 else _zero_convolution
    if not fits(weight, silence, input_axis):
        raise InputError(
            f"model: the weights {silence.reader!r} of shape {tuple(weight.shape)} do not read "
            f"the {silence.size} neurons of one layer; pass the model that the layers were read "
            "from"
        )
    return weight


def _zero_matrix(weight: Any, silence: _Silence, input_axis: int) -> bool:
    positions, rest = divmod(weight.shape[input_axis], silence.size)
    if rest:
        return False
    entries = silence.entries(positions)
    weight[entries if input_axis == 0 else (slice(None), entries)] = 0
    return True


def _zero_convolution(weight: Any, silence: _Silence, input_axis: int) -> bool:
    """Weights of shape (out, in / groups, positions...); the layer's size determines the groups."""
    if weight.ndim < 3 or silence.size % weight.shape[1]:
        return False
    groups = silence.size // weight.shape[1]
    per_group, rest = divmod(weight.shape[0], groups)
    if rest:
        return False
    for group, channel in zip(*np.divmod(silence.neurons, weight.shape[1]), strict=True):
        weight[int(group) * per_group : int(group + 1) * per_group, int(channel)] = 0
    return True


def _copy(values: Any) -> Any:
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(values, torch.Tensor):
        return values.detach().clone()
    return np.array(values)
