"""Shapes: results of convolutions and pooling, and guesses for inputs with open sizes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ncut.errors import ModelError
from ncut.extract.readers.onnx_graph.node import Node

BATCH = 2
"""Batch size; 1 would vanish in models that squeeze axes of length 1."""

TIME = 8
"""Length of sequences."""

IMAGE_SIZES = (224, 32, 28, 64, 256, 384, 299, 512, 128, 96, 16)
"""Image sides and lengths of frame sequences to try."""

MAX_TRIALS = 24
"""Largest number of combinations of open sizes to try."""

LONG = (512, 1024, 16000)
"""Sequence lengths to try last, e.g. for audio."""


# --- of results ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Window:
    """A kernel's window over positions."""

    # One per axis of positions
    sizes: list[int]
    strides: list[int]
    dilations: list[int]
    pads: list[int]  # before each axis, then after each
    automatic: str  # the attribute `auto_pad`
    round_up: bool  # whether an incomplete last window counts

    def after(self, shape: Sequence[int]) -> list[int]:
        """Numbers of positions after the window."""
        n = len(shape)
        result = []
        for at, size in enumerate(shape):
            stride = self.strides[at]
            reach = self.dilations[at] * (self.sizes[at] - 1) + 1
            if self.automatic.startswith("SAME"):
                result.append(-(-size // stride))
                continue
            total = self.pads[at] + self.pads[at + n]
            room = size - reach + (0 if self.automatic == "VALID" else total)
            if room < 0:
                raise ModelError(f"its kernel is larger than its input of shape {tuple(shape)}")
            steps = -(-room // stride) if self.round_up else room // stride
            if self.round_up and steps * stride >= size + self.pads[at] and steps > 0:
                steps -= 1  # a window that starts in the padding does not count
            result.append(steps + 1)
        return result

    def before(self, shape: Sequence[int], more: Sequence[int]) -> list[int]:
        """Numbers of positions after a transposed convolution."""
        n = len(shape)
        result = []
        for at, size in enumerate(shape):
            reach = self.dilations[at] * (self.sizes[at] - 1) + 1
            whole = (size - 1) * self.strides[at] + reach + more[at]
            if self.automatic.startswith("SAME"):
                result.append(min(size * self.strides[at], whole))
                continue
            pads = 0 if self.automatic == "VALID" else self.pads[at] + self.pads[at + n]
            result.append(whole - pads)
        return result


def window(node: Node, n_axes: int, sizes: Sequence[int] | None = None) -> Window:
    """The window described by a node's attributes."""
    known = node.attributes
    sizes = list(known.get("kernel_shape") or sizes or [])
    found = Window(
        sizes=sizes,
        strides=list(known.get("strides") or [1] * n_axes),
        dilations=list(known.get("dilations") or [1] * n_axes),
        pads=list(known.get("pads") or [0] * (2 * n_axes)),
        automatic=str(known.get("auto_pad", "NOTSET")),
        round_up=bool(known.get("ceil_mode", 0)),
    )
    lengths = [len(found.sizes), len(found.strides), len(found.dilations), len(found.pads) / 2]
    if any(length != n_axes for length in lengths):
        raise ModelError(f"its kernel, strides, dilations or pads are not those of {n_axes} axes")
    if min([*found.sizes, *found.strides, *found.dilations], default=1) < 1:
        raise ModelError("its kernel, strides or dilations are not positive")
    return found


# --- of inputs ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Declared:
    """A declared input of the graph."""

    name: str
    element: int  # number of its type in the format's list
    # Length of each axis; the name of an open axis, None if it has no name.
    sizes: tuple[int | str | None, ...]

    @property
    def is_open(self) -> bool:
        """Check whether any size is open."""
        return any(not isinstance(size, int) for size in self.sizes)


def declared(value: Any, path: Any) -> Declared:
    """A graph's declaration of an input."""
    kind = value.type.WhichOneof("value")
    if kind == "optional_type" or kind == "sequence_type":
        raise ModelError(f"{path}: input {value.name!r} is no tensor but an {kind}, unsupported")
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        raise ModelError(
            f"{path}: the shape of input {value.name!r} is not declared, not even its number of "
            "axes; export the model with input shapes"
        )
    sizes: list[int | str | None] = []
    for dim in tensor.shape.dim:
        which = dim.WhichOneof("value")
        size: int | str | None = None
        if which == "dim_value" and dim.dim_value > 0:
            size = int(dim.dim_value)
        elif which == "dim_value" and dim.dim_value < -1:
            raise ModelError(f"{path}: input {value.name!r} has a negative size, {dim.dim_value}")
        elif which == "dim_param" and dim.dim_param:
            size = str(dim.dim_param)
        sizes.append(size)
    return Declared(value.name, int(tensor.elem_type), tuple(sizes))


def guesses(
    inputs: Sequence[Declared],
    reads: Mapping[str, Sequence[int | None]],
    features: Sequence[int],
    given: Mapping[str, tuple[int, ...]] | None = None,
) -> Iterator[dict[str, tuple[int, ...]]]:
    """Candidate shapes of the inputs, likely ones first.

    Parameters
    ----------
    inputs : sequence of Declared
        The graph's inputs.
    reads : mapping from str to list of int or None
        For each input the axis lengths required by the weights that read it.
    features : sequence of int
        Sizes of values that weights read, for axes of unknown length.
    given : mapping from str to tuple of int, optional
        Known shapes of inputs.
    """
    given = {} if given is None else given
    seen: set[tuple[tuple[int, ...], ...]] = set()
    sizes = (*IMAGE_SIZES, TIME)
    trials: list[tuple[int, int]] = [(size, TIME) for size in sizes]
    for feature in features[:4]:
        trials.insert(1, (feature, TIME))
        trials.append((TIME, feature))
        trials.append((feature, feature))
    for image, length in (*trials[:MAX_TRIALS], *((size, size) for size in LONG)):
        shapes = {
            value.name: given[value.name]
            if value.name in given
            else _shape(value, reads.get(value.name, ()), image, length)
            for value in inputs
        }
        key = tuple(shapes.values())
        if key not in seen:
            seen.add(key)
            yield shapes


def _shape(value: Declared, told: Sequence[int | None], image: int, length: int) -> tuple[int, ...]:
    rank = len(value.sizes)
    shape: list[int] = []
    for axis, size in enumerate(value.sizes):
        if isinstance(size, int):
            shape.append(size)
        elif axis < len(told) and told[axis] is not None and axis:
            shape.append(told[axis])  # type: ignore[arg-type]
        else:
            shape.append(_open(size, axis, rank, value, image, length))
    return tuple(shape)


def _open(name: str | None, axis: int, rank: int, value: Declared, image: int, length: int) -> int:
    if name and re.search(r"[+*/-]", name):
        total = _computed(name)
        if total is not None:
            return total
    if name and "past" in name.lower():
        return 0
    if name and "batch" in name.lower():
        return BATCH
    if name and re.search("seq|len|time|token", name.lower()):
        return length
    if axis == 0 and not (rank == 1 and name):
        return BATCH
    if rank >= 4:
        return image
    if rank == 3 and isinstance(value.sizes[1], int) and axis == 2:
        return image  # (batch, channels, frames)
    if rank == 2 and axis == 1 and value.element in (1, 10, 11, 16):
        return image
    return length


def _computed(name: str) -> int | None:
    """A size such as "past + sequence", with each part resolved by its name."""
    total = 0
    for part in name.split("+"):
        part = part.strip()
        if part.isdigit():
            total += int(part)
        elif "past" in part.lower():
            continue
        elif re.fullmatch(r"\w+", part):
            total += BATCH if "batch" in part.lower() else TIME
        else:
            return None
    return total
