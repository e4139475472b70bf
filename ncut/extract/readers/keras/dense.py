"""Layers with matrices and kernels, norms and other factors, embeddings."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncut.errors import ModelError
from ncut.extract.program.einsum import einsum
from ncut.extract.program.values import Known, Value
from ncut.extract.readers.chain import normalization_scale
from ncut.extract.readers.keras.activations import activated
from ncut.extract.readers.keras.calls import Call, Rule, checked

# --- matrices -----------------------------------------------------------------------------------


def _dense(call: Call) -> Value:
    signal = call.program.linear(
        call.signal, call.weight("kernel", "bias"), **call.layer_of("kernel"),
    )  # fmt: skip
    return activated(call, signal)


def _einsum_dense(call: Call) -> Value:
    equation = call.config.get("equation")
    value = einsum(
        call.program, str(equation), [call.signal, call.weight("kernel", "bias")],
        **call.layer_of("kernel"),
    )  # fmt: skip
    return activated(call, value)


# --- kernels ------------------------------------------------------------------------------------


def _convolution(call: Call) -> Value:
    kernel = call.weight("kernel", "bias")
    groups = call.config.get("groups") or 1
    if not isinstance(groups, int) or groups < 1 or kernel.shape[-1] % groups:
        raise ModelError(f"{kernel.shape[-1]} filters in {groups!r} groups")
    signal = call.signal
    _expect(kernel, signal.ndim)
    signal = call.program.convolution(
        signal, np.moveaxis(kernel, (-1, -2), (0, 1)),
        convolved(call, signal, kernel.shape[:-2], kernel.shape[-1]),
        groups=groups, axis=call.channels, **call.layer_of("kernel"),
    )  # fmt: skip
    return activated(call, signal)


def _transposed_convolution(call: Call) -> Value:
    kernel, signal = call.weight("kernel", "bias"), call.signal
    _expect(kernel, signal.ndim)
    sizes = kernel.shape[:-2]
    n = len(sizes)
    strides, dilation = call.sizes("strides", n, 1), call.sizes("dilation_rate", n, 1)
    more = call.config.get("output_padding")
    extra = None if more is None else [more] * n if isinstance(more, int) else [*more]
    shape = list(signal.shape)
    shape[signal.axis(call.channels)] = kernel.shape[-2]
    same = call.config.get("padding") == "same"
    for at, axis in enumerate(call.axes):
        reach = (sizes[at] - 1) * dilation[at] + 1
        if extra is not None:
            cut = 2 * (reach // 2) if same else 0
            shape[axis] = (shape[axis] - 1) * strides[at] + reach - cut + extra[at]
        elif same:
            shape[axis] *= strides[at]
        else:
            shape[axis] = shape[axis] * strides[at] + max(reach - strides[at], 0)
    signal = call.program.convolution(
        signal, np.moveaxis(kernel, (-2, -1), (0, 1)), checked(shape),
        axis=call.channels, **call.layer_of("kernel"),
    )  # fmt: skip
    return activated(call, signal)


def _depthwise(call: Call) -> Value:
    kernel = call.weight("kernel|depthwise_kernel", "bias")
    signal = _by_channel(call, call.signal, kernel, call.path, call.parameter("kernel"))
    return activated(call, signal)


def _separable(call: Call) -> Value:
    order = ("depthwise_kernel", "pointwise_kernel", "bias")
    kernel, point = call.weight(*order), call.weights(*order)["pointwise_kernel"]
    names = [call.parameter(name) for name in order]
    signal = _by_channel(call, call.signal, kernel, names[0], names[0])
    shape = list(signal.shape)
    shape[signal.axis(call.channels)] = point.shape[-1]
    signal = call.program.convolution(
        signal, np.moveaxis(point, (-1, -2), (0, 1)), shape,
        axis=call.channels, name=names[1], module=names[1], parameters=[names[1]],
    )  # fmt: skip
    return activated(call, signal)


def _by_channel(call: Call, signal: Value, kernel: Any, name: str, parameter: str) -> Value:
    """Depthwise kernels, (positions..., channels, multiplier)."""
    _expect(kernel, signal.ndim)
    n_in, multiplier = kernel.shape[-2:]
    rows = np.moveaxis(kernel, (-2, -1), (0, 1)).reshape(n_in * multiplier, 1, *kernel.shape[:-2])
    return call.program.convolution(
        signal, rows, convolved(call, signal, kernel.shape[:-2], n_in * multiplier),
        groups=n_in, axis=call.channels, name=name, module=name, parameters=[parameter],
    )  # fmt: skip


def convolved(call: Call, signal: Value, kernel: tuple[int, ...], n_out: int) -> tuple[int, ...]:
    """The shape of a convolution's result."""
    n = len(kernel)
    strides, dilation = call.sizes("strides", n, 1), call.sizes("dilation_rate", n, 1)
    shape = list(signal.shape)
    shape[signal.axis(call.channels)] = n_out
    reach = [(size - 1) * step + 1 for size, step in zip(kernel, dilation, strict=True)]
    slid(call, shape, call.position_axes(signal.ndim), reach, strides)
    return checked(shape)


def slid(call: Call, shape: list[int], axes: list[int], reach: Any, strides: Any) -> None:
    """Sizes of axes after sliding windows."""
    padding = str(call.config.get("padding", "valid")).lower()
    for axis, size, stride in zip(axes, reach, strides, strict=True):
        if padding in ("same", "causal"):
            shape[axis] = -(-shape[axis] // stride)
        elif padding == "valid":
            shape[axis] = (shape[axis] - size) // stride + 1
        else:
            raise ModelError(f"padding {padding!r} is not known")


def _expect(kernel: NDArray[Any], ndim: int) -> None:
    if kernel.ndim != ndim:
        raise ModelError(f"its kernel has shape {kernel.shape}, its input {ndim} axes")


# --- norms and other factors --------------------------------------------------------------------


def _batch_norm(call: Call) -> Value:
    found = call.weights(*_gamma_beta(call), "moving_mean", "moving_variance")
    if "moving_variance" not in found:
        raise ModelError("the file holds no 'moving_variance' of it")
    epsilon = float(call.config.get("epsilon", 1e-3))
    factors = normalization_scale(found.get("gamma"), found["moving_variance"], epsilon)
    parameter = call.parameter("gamma" if "gamma" in found else "moving_variance")
    gamma = parameter if "gamma" in found else "1"
    call.program.formulas[parameter] = (
        f"{gamma} / sqrt({call.parameter('moving_variance')} + {epsilon:g})"
    )
    return call.program.scaled(call.signal, factors, _single_axis(call), parameters=[parameter])


def _layer_norm(call: Call) -> Value:
    kind = "RMS norm" if call.config.get("rms_scaling") else "layer norm"
    signal = call.program.normalization(call.signal, kind)
    gamma = call.weights(*_gamma_beta(call)).get("gamma")
    if gamma is None:
        return signal
    call.program.place([call.parameter("gamma")], "a factor of a layer's neurons")
    return call.program.scaled(signal, _wide(call, gamma), name=call.parameter("gamma"))


def _rms_norm(call: Call) -> Value:
    named = {"parameters": [call.parameter("scale")]}
    scale, axis = call.weight("scale"), _single_axis(call)
    return call.program.normalized(call.signal, "RMS norm", scale, axis, **named)


def _group_norm(call: Call) -> Value:
    gamma, axis = call.weights(*_gamma_beta(call)).get("gamma"), _single_axis(call)
    named = {"parameters": [call.parameter("gamma")]}
    return call.program.normalized(call.signal, "group norm", gamma, axis, **named)


def _gamma_beta(call: Call) -> list[str]:
    names = [] if call.config.get("scale") is False else ["gamma"]
    return names if call.config.get("center") is False else [*names, "beta"]


def _single_axis(call: Call) -> int:
    axis = call.config.get("axis", -1)
    axis = axis[0] if isinstance(axis, list | tuple) and len(axis) == 1 else axis
    if not isinstance(axis, int):
        raise ModelError(f"axis is {axis!r}; only one axis is understood")
    return axis


def _wide(call: Call, factors: NDArray[Any]) -> NDArray[Any]:
    """Factors along the axes of a setting, broadcastable to the tensor."""
    axes = call.config.get("axis", -1)
    axes = [call.signal.axis(axis) for axis in (axes if isinstance(axes, list | tuple) else [axes])]
    shape = [n if at in axes else 1 for at, n in enumerate(call.signal.shape)]
    if math.prod(shape) != factors.size:
        raise ModelError(f"it scales {factors.size} values, but gets {math.prod(shape)}")
    return factors.reshape(shape)


def _layer_scale(call: Call) -> Value:
    """`LayerScale` of ConvNeXt in keras.applications: a factor per channel."""
    named = {"parameters": [call.parameter("gamma")]}
    return call.program.scaled(call.signal, call.weight("gamma"), -1, **named)


def _multiplied(call: Call, factors: Any) -> Value:
    """Multiply by constant factors, scalar or array."""
    values = np.asarray(factors, dtype=np.float64)
    return call.program.multiply(call.signal, known(call, call.signal, values))


def known(call: Call, signal: Value, values: NDArray[Any]) -> Known:
    """Constants beside a tensor, to whose shape they must broadcast."""
    sizes = zip(values.shape[::-1], signal.shape[::-1], strict=False)
    if values.ndim > signal.ndim or any(1 != n != size != 1 for n, size in sizes):
        raise ModelError(f"constants of shape {values.shape} for a tensor of {signal.shape}")
    return Known(values.shape, lambda: values, name=call.path)


def _standardized(call: Call) -> Value:
    """`Normalization` with stored mean and variance."""
    variance: Any = call.config.get("variance")
    if variance is None:
        variance = call.weights("mean", "variance", "count").get("variance")
    if variance is None:
        raise ModelError("the file holds no 'variance' of it")
    spread = np.maximum(np.sqrt(np.asarray(variance, dtype=np.float64)), 1e-7)
    factors = spread if call.config.get("invert") else 1 / spread
    return _multiplied(call, factors if factors.size == 1 else _wide(call, factors))


# --- embeddings ---------------------------------------------------------------------------------


def _embedding(call: Call) -> Value:
    table = call.weight("embeddings")
    if table.ndim != 2 or not table.size:
        raise ModelError(f"its table has shape {table.shape}")
    return call.program.embedding(
        table, checked((*call.signal.shape, table.shape[1])), **call.layer_of("embeddings"),
    )  # fmt: skip


DENSE: dict[str, Rule] = {
    "Dense": _dense,
    "EinsumDense": _einsum_dense,
    **{f"{name}{n}D": _convolution for n in (1, 2, 3) for name in ("Conv", "Convolution")},
    **{f"Conv{n}DTranspose": _transposed_convolution for n in (1, 2, 3)},
    **{f"DepthwiseConv{n}D": _depthwise for n in (1, 2)},
    **{f"SeparableConv{n}D": _separable for n in (1, 2)},
    "BatchNormalization": _batch_norm,
    "SyncBatchNormalization": _batch_norm,
    "BatchNormalizationV1": _batch_norm,
    "LayerNormalization": _layer_norm,
    "RMSNormalization": _rms_norm,
    "GroupNormalization": _group_norm,
    "UnitNormalization": lambda call: call.program.normalization(call.signal, "unit norm"),
    "LayerScale": _layer_scale,
    "Rescaling": lambda call: _multiplied(call, call.config.get("scale", 1.0)),
    "Normalization": _standardized,
    "Embedding": _embedding,
}
