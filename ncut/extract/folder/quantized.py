"""Dequantizes a folder's weights with their stored scales.

Sources, the packages that write them: AutoGPTQ and GPTQModel, AutoAWQ (`dequantize_gemm`),
bitsandbytes, compressed-tensors (`unpack_from_int32`), MLX (`mlx.core.dequantize`), and the
blocks of 128 x 128 of DeepSeek-V3's report.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncut.errors import ModelError
from ncut.extract.arrays import as_array
from ncut.extract.folder.config import Config
from ncut.extract.lazy import Lazy

Array = NDArray[Any]
Parts = Mapping[str, Any]

_AWQ_ORDER = (0, 4, 1, 5, 2, 6, 3, 7)
_PARTS = {
    *("qweight", "qzeros", "scales", "g_idx", "weight", "weight_packed", "weight_scale"),
    *("weight_zero_point", "weight_shape", "weight_g_idx", "weight_scale_inv", "SCB", "biases"),
    *("weight_format", "weight.absmax", "weight.quant_map", "weight.nested_absmax"),
    *("weight.nested_quant_map", "weight.quant_state.bitsandbytes__nf4"),
    *("weight.quant_state.bitsandbytes__fp4", "input_scale", "output_scale"),
}


def dequantized(tensors: Mapping[str, Any], config: Config) -> Mapping[str, Any]:
    """The tensors of a folder, with quantized matrices dequantized lazily.

    Parameters
    ----------
    tensors : mapping of str to ndarray
        The tensors of its files.
    config : Config
        Its settings; `quantization_config` (MLX: `quantization`) describes the method.

    Raises
    ------
    ModelError
        If the method is unknown, or the parts of a layer do not fit each other.
    """
    settings = config.part("quantization_config")
    method = settings.word("quant_method")
    if "quantization" in config and not method:  # MLX writes its settings under both names
        settings, method = config.part("quantization"), "mlx"
    if not method and "quantization_config" not in config:
        return tensors
    if method not in _METHODS:
        raise ModelError(
            f"{config.where}: weights quantized by {method!r} are not read; known are "
            f"{', '.join(_METHODS)}. Load the model, call its dequantize(), and pass it"
        )
    layers: dict[str, dict[str, Any]] = {}
    for name, values in tensors.items():
        for part in _PARTS:
            if name.endswith(f".{part}"):
                layers.setdefault(name.removesuffix(f".{part}"), {})[part] = values
    made = dict(tensors)
    for layer, parts in layers.items():
        new = _METHODS[method](layer, parts, settings)
        if new is not None:
            for part in parts:
                made.pop(f"{layer}.{part}", None)
            made[f"{layer}.weight"] = new
    return made


def _lazy(layer: str, shape: tuple[int, ...], make: Callable[[], Array]) -> Lazy:
    """A matrix (n_out, n_in), computed on use."""

    def checked() -> Array:
        try:
            values = make()
        except (ValueError, IndexError, TypeError) as error:
            raise ModelError(f"the parts of {layer!r} do not fit each other: {error}") from error
        if values.shape != shape:
            raise ModelError(
                f"the parts of {layer!r} make a matrix {values.shape}, expected {shape}"
            )
        return values

    return Lazy(shape, np.dtype(np.float32), checked)


def _needs(layer: str, parts: Parts, *names: str) -> None:
    for name in names:
        if name not in parts or parts[name].ndim < 1:
            raise ModelError(f"{layer!r} has no {name!r}, which its quantization needs")


def unpacked(packed: Array, bits: int, axis: int) -> Array:
    """Unpack low-bit integers from 32-bit words along an axis, lowest bits first."""
    moved = np.moveaxis(np.asarray(packed), axis, -1).astype(np.int64)
    shifts = np.arange(0, 32, bits)
    values = (moved[..., None] >> shifts) & (2**bits - 1)
    return np.moveaxis(values.reshape(*moved.shape[:-1], -1), -1, axis)


def _bits(layer: str, bits: int) -> int:
    if bits not in (2, 4, 8):
        raise ModelError(f"{layer!r} has weights of {bits} bits; known are 2, 4 and 8")
    return bits


def _floats(values: Any) -> NDArray[np.float32]:
    if values.dtype.name.startswith("float8") or values.dtype.kind in "iu":
        return np.asarray(values).astype(np.float32)
    return as_array(values, "scale").astype(np.float32)


def _rows_of_groups(scales: Array, n: int) -> Array:
    """Each group's row, repeated for its inputs, n in total."""
    if not len(scales) or n % len(scales):
        raise ValueError(f"{len(scales)} groups of {n} inputs")
    return np.repeat(scales, n // len(scales), axis=0)


def _gptq(layer: str, parts: Parts, settings: Config) -> Lazy | None:
    if "qweight" not in parts:
        return None
    _needs(layer, parts, "qweight", "scales", "qzeros")
    bits = _bits(layer, settings.size("bits", default=4))
    later = settings.word("checkpoint_format", default="gptq") == "gptq_v2"
    qweight, scales = parts["qweight"], parts["scales"]
    n_in, n_out = qweight.shape[0] * (32 // bits), qweight.shape[-1]

    def make() -> Array:
        zeros = unpacked(parts["qzeros"], bits, 1)[:, :n_out]
        zeros = zeros if later else (zeros + 1) & (2**bits - 1 if bits < 8 else 511)
        values, factor = unpacked(qweight, bits, 0).astype(np.float32), _floats(scales)
        if "g_idx" in parts:
            groups = np.asarray(parts["g_idx"]).astype(np.int64)
            if groups.size and groups.min() < 0:
                raise IndexError("a group below 0")
            return ((values - zeros[groups]) * factor[groups]).T
        wide = _rows_of_groups(factor, n_in)
        return ((values - _rows_of_groups(zeros, n_in)) * wide).T

    return _lazy(layer, (n_out, n_in), make)


def _awq(layer: str, parts: Parts, settings: Config) -> Lazy | None:
    if "qweight" not in parts:
        return None
    _needs(layer, parts, "qweight", "scales", "qzeros")
    if settings.size("bits", "w_bit", default=4) != 4 or (
        settings.word("version", default="gemm").lower() != "gemm"
    ):
        raise ModelError(f"{layer!r}: of AWQ only the 4-bit layout 'gemm' is read")
    qweight = parts["qweight"]
    n_in, n_out = qweight.shape[0], qweight.shape[-1] * 8

    def plain(packed: Any) -> Array:
        values = unpacked(packed, 4, 1)
        return values.reshape(len(values), -1, 8)[:, :, _AWQ_ORDER].reshape(len(values), -1)

    def make() -> Array:
        zeros = _rows_of_groups(plain(parts["qzeros"]), n_in)
        factor = _rows_of_groups(_floats(parts["scales"]), n_in)
        return ((plain(qweight) - zeros).astype(np.float32) * factor).T

    return _lazy(layer, (n_out, n_in), make)


def _bitsandbytes(layer: str, parts: Parts, settings: Config) -> Lazy | None:
    if "SCB" in parts:
        _needs(layer, parts, "weight")
        weight = parts["weight"]

        def from_int8() -> Array:
            rows = _floats(parts["SCB"]) / np.float32(127)
            return _floats(weight) * rows[:, None]

        return _lazy(layer, weight.shape, from_int8)
    state = next((p for n, p in parts.items() if n.startswith("weight.quant_state")), None)
    if state is None:
        return None
    _needs(layer, parts, "weight", "weight.absmax", "weight.quant_map")
    try:
        said = json.loads(np.asarray(state).astype(np.uint8).tobytes())
        shape = tuple(int(n) for n in said["shape"])
        block, nested = int(said["blocksize"]), said.get("nested_blocksize")
        offset = float(said.get("nested_offset", 0.0))
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{layer!r}: its quant_state is damaged: {error}") from error
    if len(shape) != 2 or min(shape) < 1 or np.prod(shape, dtype=object) > parts["weight"].size * 2:
        raise ModelError(f"{layer!r}: its quant_state has the shape {shape}")

    def make() -> Array:
        largest = _floats(parts["weight.absmax"])
        if nested:
            outer = _floats(parts["weight.nested_absmax"])
            codes = _floats(parts["weight.nested_quant_map"])
            at = np.asarray(parts["weight.absmax"]).astype(np.int64)
            largest = codes[at] * outer[np.arange(at.size) // int(nested)] + np.float32(offset)
        packed = np.asarray(parts["weight"]).astype(np.uint8).ravel()
        codes = np.stack([packed >> 4, packed & 15], axis=-1).ravel()[: shape[0] * shape[1]]
        values = _floats(parts["weight.quant_map"])[codes]
        made: Array = (values * largest[np.arange(values.size) // block]).reshape(shape)
        return made

    return _lazy(layer, shape, make)


def _compressed(layer: str, parts: Parts, settings: Config) -> Lazy | None:
    if "weight_scale" not in parts:
        return None
    scales, zero = parts["weight_scale"], parts.get("weight_zero_point")
    if "weight_packed" not in parts:
        _needs(layer, parts, "weight")
        weight = parts["weight"]

        def plain() -> Array:
            values = _floats(weight)
            if zero is not None:
                values = values - _by_groups(_floats(zero), values.shape)
            return values * _by_groups(_floats(scales), values.shape)

        return _lazy(layer, weight.shape, plain)
    packed = parts["weight_packed"]
    _needs(layer, parts, "weight_shape")
    shape = tuple(int(n) for n in np.asarray(parts["weight_shape"]).ravel())
    if len(shape) != 2 or min(shape) < 1 or packed.ndim != 2 or "weight_g_idx" in parts:
        raise ModelError(f"{layer!r}: packed weights of shape {shape}, or with g_idx, are not read")
    per_word = -(-shape[1] // max(packed.shape[1], 1))
    bits = next((b for b in (8, 4, 2) if 32 // b >= per_word), 0)
    if packed.shape[0] != shape[0] or bits == 0 or -(-shape[1] * bits // 32) != packed.shape[1]:
        raise ModelError(f"{layer!r}: {packed.shape} words do not hold a matrix {shape}")

    def make() -> Array:
        half = 2 ** (bits - 1)
        values = (unpacked(packed, bits, 1)[:, : shape[1]] - half).astype(np.float32)
        if zero is not None:
            zeros = unpacked(zero, bits, 0)[: shape[0]] - half
            values = values - _by_groups(zeros.astype(np.float32), shape)
        made: Array = values * _by_groups(_floats(scales), shape)
        return made

    return _lazy(layer, shape, make)


def _by_groups(scales: Array, shape: tuple[int, ...]) -> Array:
    """Scales per matrix, row or group along rows, expanded to the matrix's shape."""
    if scales.ndim < 2:
        return scales.reshape(-1, 1) if scales.size == shape[0] else scales.reshape(1, 1)
    return _rows_of_groups(scales.T, shape[1]).T


def _mlx(layer: str, parts: Parts, settings: Config) -> Lazy | None:
    if "scales" not in parts:
        return None
    _needs(layer, parts, "weight", "biases")
    own = settings.part(layer) if layer in settings else settings
    bits, group = _bits(layer, own.size("bits", default=4)), own.size("group_size", default=64)
    weight = parts["weight"]
    if weight.ndim != 2 or own.word("mode", default="affine") != "affine":
        raise ModelError(f"{layer!r}: of MLX only affine matrices are read")
    shape = (weight.shape[0], weight.shape[1] * (32 // bits))

    def make() -> Array:
        scales, biases = (np.repeat(_floats(parts[n]), group, axis=1) for n in ("scales", "biases"))
        return unpacked(weight, bits, 1).astype(np.float32) * scales + biases

    return _lazy(layer, shape, make)


def _fp8(layer: str, parts: Parts, settings: Config) -> Lazy | None:
    if "weight_scale_inv" not in parts and "weight_scale" not in parts:
        return None
    _needs(layer, parts, "weight")
    weight = parts["weight"]
    scales = parts.get("weight_scale_inv", parts.get("weight_scale"))

    def make() -> Array:
        values, factor = _floats(weight), _floats(scales)
        if factor.ndim == 2 and factor.size > 1:
            sides = [-(-n // m) for n, m in zip(values.shape, factor.shape, strict=True)]
            sides = [128 if m > 1 else side for side, m in zip(sides, factor.shape, strict=True)]
            for axis, side in enumerate(sides):
                factor = np.repeat(factor, side, axis=axis)
            factor = factor[: values.shape[0], : values.shape[1]]
        return values * factor

    return _lazy(layer, weight.shape, make)


_METHODS: dict[str, Callable[[str, Parts, Config], Lazy | None]] = {
    "gptq": _gptq,
    "awq": _awq,
    "bitsandbytes": _bitsandbytes,
    "compressed-tensors": _compressed,
    "fp8": _fp8,
    "mlx": _mlx,
}
