"""Layers that change positions or shapes without mixing neurons, and identity layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ncut.errors import ModelError
from ncut.extract.program.values import (
    Value,
    expanded,
    indexed,
    permuted,
    reshaped,
    unsqueezed,
)
from ncut.extract.readers.keras.calls import Call, Rule, checked
from ncut.extract.readers.keras.dense import slid

# --- positions ----------------------------------------------------------------------------------


def _resized(call: Call, axes: Sequence[int], sizes: Sequence[int]) -> Value:
    """Positions in other numbers along axes."""
    shape = list(call.signal.shape)
    for axis, size in zip(axes, sizes, strict=True):
        shape[axis] = size
    return call.program.positions(call.signal, checked(shape), axis=call.channels)


def _pool(call: Call) -> Value:
    axes, shape = call.axes, list(call.signal.shape)
    size = call.sizes("pool_size", len(axes), call.config.get("pool_length", 2))
    slid(call, shape, axes, size, call.sizes("strides", len(axes), list(size)))
    return _resized(call, range(len(shape)), shape)


def _global_pool(call: Call) -> Value:
    kind = "max" if "Max" in call.layer.cls else "mean"
    keep = bool(call.config.get("keepdims"))
    return call.program.reduce(call.signal, call.axes, keepdim=keep, kind=kind, name=call.path)


def _upsampled(call: Call) -> Value:
    axes = call.axes
    sizes = zip(axes, call.sizes("size", len(axes), 2), strict=True)
    return _resized(call, axes, [call.signal.shape[axis] * size for axis, size in sizes])


def _padded(call: Call) -> Value:
    signal = call.signal
    for axis, before, after in _margins(call, "padding"):
        checked([signal.shape[axis] + before + after])
        signal = call.program.pad(signal, axis, before, after, channels=call.channels)
    return signal


def _cropped(call: Call) -> Value:
    signal = call.signal
    for axis, before, after in _margins(call, "cropping"):
        n = signal.shape[axis]
        checked([n - before - after])
        signal = indexed(signal, axis, slice(before, n - after))
    return signal


def _margins(call: Call, name: str) -> list[tuple[int, int, int]]:
    """The axes of positions, with a setting such as 1, [1, 2] or [[1, 1], [0, 2]] of each."""
    value, axes = call.config.get(name, 1), call.axes
    pairs: Any = [value] * len(axes) if isinstance(value, int) else value
    if len(axes) == 1 and isinstance(value, list) and len(value) == 2:
        pairs = [value]
    sound = isinstance(pairs, list) and len(pairs) == len(axes)
    pairs = [[pair, pair] if isinstance(pair, int) else pair for pair in (pairs if sound else ())]
    for pair in pairs:
        sound = sound and isinstance(pair, list) and len(pair) == 2
        sound = sound and all(isinstance(margin, int) and 0 <= margin < 2**31 for margin in pair)
    if not sound:
        raise ModelError(f"{name} is {value!r}; expected {len(axes)} numbers or pairs of numbers")
    return [(axis, pair[0], pair[1]) for axis, pair in zip(axes, pairs, strict=True)]


# --- shapes -------------------------------------------------------------------------------------


def _flatten(call: Call) -> Value:
    signal = call.signal
    if call.channels == 1 and signal.ndim > 2:
        signal = permuted(signal, [0, *range(2, signal.ndim), 1])
    return reshaped(signal, (signal.shape[0], math.prod(signal.shape[1:])))


def _reshape(call: Call) -> Value:
    shape = [call.signal.shape[0], *_whole_list(call.config.get("target_shape"))]
    return reshaped(call.signal, shape)


def _permute(call: Call) -> Value:
    order, signal = [0, *_whole_list(call.config.get("dims"))], call.signal
    if sorted(order) != [*range(signal.ndim)]:
        raise ModelError(f"dims is {order[1:]} for a tensor of shape {signal.shape}")
    return permuted(signal, order)


def _repeated(call: Call) -> Value:
    signal = call.signal
    if signal.ndim != 2:
        raise ModelError(f"it reads a tensor of shape {signal.shape}, not (batch, features)")
    wide = unsqueezed(signal, 1)
    return expanded(wide, checked((signal.shape[0], call.whole("n"), signal.shape[1])))


def _whole_list(value: Any) -> list[int]:
    if not isinstance(value, list | tuple) or not all(isinstance(n, int) for n in value):
        raise ModelError(f"{value!r} is not a list of whole numbers")
    return [*value]


# Layers that are the identity in inference.
_NOTHING = (
    *("Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "AlphaDropout"),
    *("GaussianDropout", "GaussianNoise", "ActivityRegularization", "Masking", "Identity"),
    *("RandomFlip", "RandomRotation", "RandomZoom", "RandomTranslation", "RandomContrast"),
    *("RandomBrightness", "RandomShear", "RandomHue", "RandomSaturation", "RandomSharpness"),
    *("RandomColorJitter", "RandomColorDegeneration", "RandomGrayscale", "RandomPosterization"),
    *("RandomInvert", "RandomErasing", "RandomGaussianBlur", "RandomPerspective", "AugMix"),
    *("RandAugment", "AutoContrast", "MixUp", "CutMix", "FixedDropout", "StochasticDepth"),
)

_POOLS = [f"{kind}Pooling{n}D" for kind in ("Max", "Average") for n in (1, 2, 3)]

SHAPES: dict[str, Rule] = {
    **dict.fromkeys(_NOTHING, lambda call: call.signal),
    **dict.fromkeys(_POOLS, _pool),
    **{f"Global{name}": _global_pool for name in _POOLS},
    **dict.fromkeys(
        [f"Adaptive{name}" for name in _POOLS],
        lambda call: _resized(call, call.axes, call.sizes("output_size", len(call.axes))),
    ),
    **{f"ZeroPadding{n}D": _padded for n in (1, 2, 3)},
    **{f"Cropping{n}D": _cropped for n in (1, 2, 3)},
    **{f"UpSampling{n}D": _upsampled for n in (1, 2, 3)},
    **dict.fromkeys(
        ("Resizing", "CenterCrop", "RandomCrop"),
        lambda call: _resized(call, call.axes[-2:], [call.whole("height"), call.whole("width")]),
    ),
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Permute": _permute,
    "RepeatVector": _repeated,
}
