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


def _same(call: Call) -> Value:
    return call.signal


# --- positions ----------------------------------------------------------------------------------


def _pool(call: Call) -> Value:
    signal = call.signal
    axes = call.position_axes(signal.ndim)
    size = call.sizes("pool_size", len(axes), call.config.get("pool_length", 2))
    strides = call.sizes("strides", len(axes), list(size))
    shape = list(signal.shape)
    slid(call, shape, axes, size, strides)
    return _moved(call, signal, shape)


def _adaptive_pool(call: Call) -> Value:
    signal = call.signal
    axes = call.position_axes(signal.ndim)
    sizes = call.sizes("output_size", len(axes))
    return _moved(call, signal, _with_sizes(signal, axes, sizes))


def _global_pool(call: Call) -> Value:
    signal = call.signal
    axes = call.position_axes(signal.ndim)
    kind = "max" if "Max" in call.layer.cls else "mean"
    keep = bool(call.config.get("keepdims"))
    return call.program.reduce(signal, axes, keepdim=keep, kind=kind, name=call.path)


def _padded(call: Call) -> Value:
    signal = call.signal
    axes = call.position_axes(signal.ndim)
    for axis, (before, after) in zip(axes, _margins(call, "padding", len(axes)), strict=True):
        signal = _with_margin(call, signal, axis, before, after)
    return signal


def _with_margin(call: Call, signal: Value, axis: int, before: int, after: int) -> Value:
    checked(_with_sizes(signal, [axis], [signal.shape[axis] + before + after]))
    return call.program.pad(signal, axis, before, after, channels=call.channels)


def _cropped(call: Call) -> Value:
    signal = call.signal
    axes = call.position_axes(signal.ndim)
    for axis, (before, after) in zip(axes, _margins(call, "cropping", len(axes)), strict=True):
        n = signal.shape[axis]
        checked([n - before - after])
        signal = indexed(signal, axis, slice(before, n - after))
    return signal


def _margins(call: Call, name: str, n: int) -> list[tuple[int, int]]:
    """A setting such as 1, [1, 2] or [[1, 1], [0, 2]] as a pair per axis."""
    value = call.config.get(name, 1)
    pairs: Any = [value] * n if isinstance(value, int) else value
    if n == 1 and isinstance(value, list) and len(value) == 2:
        pairs = [value]
    found: list[tuple[int, int]] = []
    for pair in pairs if isinstance(pairs, list) and len(pairs) == n else [None]:
        both: Any = [pair, pair] if isinstance(pair, int) else pair
        sound = isinstance(both, list) and len(both) == 2
        if not sound or not all(isinstance(m, int) and 0 <= m < 2**31 for m in both):
            raise ModelError(f"{name} is {value!r}; expected {n} numbers or pairs of numbers")
        found.append((both[0], both[1]))
    return found


def _upsampled(call: Call) -> Value:
    signal = call.signal
    axes = call.position_axes(signal.ndim)
    sizes = call.sizes("size", len(axes), 2)
    larger = [signal.shape[axis] * size for axis, size in zip(axes, sizes, strict=True)]
    return _moved(call, signal, _with_sizes(signal, axes, larger))


def _resized(call: Call) -> Value:
    signal = call.signal
    axes = call.position_axes(signal.ndim)[-2:]
    return _moved(
        call, signal, _with_sizes(signal, axes, [call.whole("height"), call.whole("width")])
    )


def _moved(call: Call, signal: Value, shape: Sequence[int]) -> Value:
    return call.program.positions(signal, checked(shape), axis=call.channels)


def _with_sizes(signal: Value, axes: Sequence[int], sizes: Sequence[int]) -> list[int]:
    shape = list(signal.shape)
    for axis, size in zip(axes, sizes, strict=True):
        shape[axis] = size
    return shape


# --- shapes -------------------------------------------------------------------------------------


def _flatten(call: Call) -> Value:
    signal = call.signal
    if call.channels == 1 and signal.ndim > 2:
        signal = permuted(signal, [0, *range(2, signal.ndim), 1])
    return reshaped(signal, (signal.shape[0], math.prod(signal.shape[1:])))


def _reshape(call: Call) -> Value:
    signal = call.signal
    return reshaped(signal, [signal.shape[0], *_whole_list(call.config.get("target_shape"))])


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

SHAPES: dict[str, Rule] = {
    **dict.fromkeys(_NOTHING, _same),
    **{f"{kind}Pooling{n}D": _pool for kind in ("Max", "Average") for n in (1, 2, 3)},
    **{f"Global{kind}Pooling{n}D": _global_pool for kind in ("Max", "Average") for n in (1, 2, 3)},
    **{
        f"Adaptive{kind}Pooling{n}D": _adaptive_pool
        for kind in ("Max", "Average")
        for n in (1, 2, 3)
    },
    **{f"ZeroPadding{n}D": _padded for n in (1, 2, 3)},
    **{f"Cropping{n}D": _cropped for n in (1, 2, 3)},
    **{f"UpSampling{n}D": _upsampled for n in (1, 2, 3)},
    "Resizing": _resized,
    "CenterCrop": _resized,
    "RandomCrop": _resized,
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Permute": _permute,
    "RepeatVector": _repeated,
}
