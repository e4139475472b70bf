"""Dequantizes a folder's weights with their stored scales.

Sources, the packages that write them: AutoGPTQ and GPTQModel (`pack_original`), AutoAWQ
(`dequantize_gemm`), AutoRound (`QuantLinear`), bitsandbytes (`QuantState`), compressed-tensors
(`decompress` of its compressors), HQQ (`BitPack`, `Quantizer.dequantize`), MLX
(`mlx.core.dequantize`), and transformers' `finegrained_fp8` and `fbgemm_fp8`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncut.errors import ModelError
from ncut.extract.readers.folder import packing
from ncut.extract.readers.folder.config import Config
from ncut.extract.readers.lazy import Lazy

Array = NDArray[Any]
Parts = Mapping[str, Any]

_AWQ_ORDER = (0, 4, 1, 5, 2, 6, 3, 7)
_BLOCK = 128
"""Side of FP8's blocks if the settings say nothing."""
_MAX_QUANTIFIERS = 4
"""Quantifiers of a target's pattern: more could take long to match."""
_HQQ = {"8bit_u8": 8, "4bit_u8": 4, "3bit_32": 3, "2bit_u8": 2, "1bit_u8": 1}
_HQQ_PARTS = {
    *("W_q", "scale", "zero", "nbits", "group_size", "shape", "axis", "packing", "channel_wise"),
    *("unpack_view_dtype", "view_as_float", "quant_scale", "quant_zero", "compute_dtype"),
    *("offload_meta", "encoded_state_dict", "stores_quant_config", "optimize", "round_zero"),
}
_PARTS = {
    *("qweight", "qzeros", "scales", "g_idx", "weight", "weight_packed", "weight_scale"),
    *("weight_zero_point", "weight_shape", "weight_g_idx", "weight_scale_inv", "SCB", "biases"),
    *("weight_format", "weight.absmax", "weight.quant_map", "weight.nested_absmax"),
    *("weight.nested_quant_map", "weight.quant_state.bitsandbytes__nf4"),
    *("weight.quant_state.bitsandbytes__fp4", "input_scale", "output_scale", "activation_scale"),
    *("weight_global_scale", "input_global_scale", "input_zero_point", "output_zero_point"),
    *("input_scale_ub",),
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
    if not method and any(settings.flag(f"load_in_{n}bit", default=False) for n in (4, 8)):
        method = "bitsandbytes"
    if not method and "quantization_config" not in config:
        return tensors
    if method not in _METHODS:
        raise ModelError(
            f"{config.where}: weights quantized by {method!r} are not read; known are "
            f"{', '.join(_METHODS)}. Load the model, call its dequantize(), and pass it"
        )
    layers: dict[str, dict[str, Any]] = {}
    known = _PARTS | _HQQ_PARTS if method == "hqq" else _PARTS
    for name, values in tensors.items():
        for part in known:
            if name.endswith(f".{part}"):
                layers.setdefault(name.removesuffix(f".{part}"), {})[part] = values
    made = dict(tensors)
    for layer, parts in layers.items():
        new = _METHODS[method](layer, parts, settings)
        if new is not None:
            for part in parts:
                made.pop(f"{layer}.{part}", None)
            made[f"{layer}.weight"] = new
        elif "weight" in parts and not _is_float(parts["weight"]):
            raise ModelError(f"{layer!r} has weights {parts['weight'].dtype} without a scale")
    return made


def _is_float(values: Any) -> bool:
    return values.dtype.name in ("float16", "bfloat16", "float32", "float64")


def _lazy(layer: str, shape: tuple[int, ...], make: Callable[[], Array], formula: str) -> Lazy:
    """A matrix (n_out, n_in), computed on use; in its formula `~` is the layer's name."""

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

    return Lazy(shape, np.dtype(np.float32), checked, formula.replace("~", layer))


def _needs(layer: str, parts: Parts, *names: str) -> None:
    for name in names:
        if name not in parts or parts[name].ndim < 1:
            raise ModelError(f"{layer!r} has no {name!r}, which its quantization needs")


def _words(layer: str, parts: Parts, *names: str) -> None:
    """Check that parts are matrices of 32-bit words."""
    for name in names:
        if parts[name].ndim != 2 or parts[name].dtype not in (np.int32, np.uint32):
            raise ModelError(
                f"{layer!r} has {name!r} of type {parts[name].dtype} and shape "
                f"{parts[name].shape}, expected a matrix of 32-bit words"
            )


def _bits(layer: str, bits: int, known: tuple[int, ...]) -> int:
    if bits not in known:
        names = ", ".join(map(str, known))
        raise ModelError(f"{layer!r} has weights of {bits} bits; known are {names}")
    return bits


def _group(settings: Config, n_in: int, *keys: str) -> int:
    """Inputs per group; all of them for -1."""
    said = dict(settings.items())
    if any(said.get(key) == -1 for key in keys):
        return n_in
    return settings.size(*keys, default=128)


def _gptq(layer: str, parts: Parts, settings: Config) -> Lazy | None:
    if "qweight" not in parts:
        return None
    layout = settings.word("checkpoint_format", "format", default="gptq")
    if layout not in ("gptq", "gptq_v2") or settings.flag("is_marlin_format", default=False):
        raise ModelError(f"{layer!r}: GPTQ's layout {layout!r} is not read; gptq and gptq_v2 are")
    return _integers(layer, parts, settings, 1 if layout == "gptq" else 0)


def _auto_round(layer: str, parts: Parts, settings: Config) -> Lazy | None:
    layout, kind = settings.word("packing_format"), settings.word("data_type", default="int")
    if layout == "auto_round:auto_awq" and kind == "int":
        return _awq(layer, parts, settings)
    if "qweight" not in parts:
        return None
    offsets = {"auto_round:auto_gptq": 1, "auto_round:gptqmodel": 0, "auto_round": 0}
    if layout not in offsets or kind != "int":
        raise ModelError(f"{layer!r}: AutoRound's layout {layout!r} of {kind!r} is not read; known "
                         f"are auto_round:auto_awq, {', '.join(offsets)} of 'int'")  # fmt: skip
    return _integers(layer, parts, settings, offsets[layout])


def _integers(layer: str, parts: Parts, settings: Config, offset: int) -> Lazy:
    """A matrix in GPTQ's layout, with zero points less an offset."""
    _needs(layer, parts, "qweight", "scales", "qzeros")
    _words(layer, parts, "qweight", "qzeros")
    qweight, qzeros, scales = parts["qweight"], parts["qzeros"], parts["scales"]
    index, n_out = parts.get("g_idx"), qweight.shape[1]
    said = _bits(layer, settings.size("bits", default=4), (2, 3, 4, 8))

    def fits(bits: int) -> bool:
        words = qweight.shape[0] if index is None else -(-index.size * bits // 32)
        return bool(-(-n_out * bits // 32) == qzeros.shape[1] and words == qweight.shape[0])

    fitting = [said] if fits(said) else [bits for bits in (2, 3, 4, 8) if fits(bits)]
    if len(fitting) != 1:
        raise ModelError(f"{layer!r}: its zeros {qzeros.shape} and weights {qweight.shape} do not "
                         f"fit {said} bits")  # fmt: skip
    bits = fitting[0]
    n_in = qweight.shape[0] * 32 // bits if index is None else index.size

    def make() -> Array:
        zeros = (packing.unpacked(qzeros, bits, 1, n_out) + offset) & (2**bits - 1)
        values = packing.unpacked(qweight, bits, 0, n_in).astype(np.float32)
        factor = packing.floats(scales)
        if index is None:
            size = _group(settings, n_in, "group_size")
            zeros, factor = (packing.by_rows(a, n_in, size) for a in (zeros, factor))
        else:
            groups = np.asarray(index).astype(np.int64).ravel()
            if groups.size and groups.min() < 0:
                raise IndexError("a group below 0")
            zeros, factor = zeros[groups], factor[groups]
        made: Array = ((values - zeros) * factor).T
        return made

    return _lazy(layer, (n_out, n_in), make, "(~.qweight - ~.qzeros) * ~.scales")


def _awq(layer: str, parts: Parts, settings: Config) -> Lazy | None:
    if "qweight" not in parts:
        return None
    _needs(layer, parts, "qweight", "scales", "qzeros")
    _words(layer, parts, "qweight", "qzeros")
    if settings.size("bits", "w_bit", default=4) != 4 or (
        settings.word("version", "format", default="gemm").lower() != "gemm"
    ):
        raise ModelError(f"{layer!r}: of AWQ only the 4-bit layout 'gemm' is read")
    qweight = parts["qweight"]
    n_in, n_out = qweight.shape[0], qweight.shape[1] * 8
    size = _group(settings, n_in, "group_size", "q_group_size")

    def plain(packed: Any) -> Array:
        values = packing.unpacked(packed, 4, 1)
        return values.reshape(len(values), -1, 8)[:, :, _AWQ_ORDER].reshape(len(values), -1)

    def make() -> Array:
        zeros = packing.by_rows(plain(parts["qzeros"]), n_in, size)
        factor = packing.by_rows(packing.floats(parts["scales"]), n_in, size)
        return ((plain(qweight) - zeros).astype(np.float32) * factor).T

    return _lazy(layer, (n_out, n_in), make, "(~.qweight - ~.qzeros) * ~.scales")


def _bitsandbytes(layer: str, parts: Parts, settings: Config) -> Lazy | None:
    if "SCB" in parts:
        _needs(layer, parts, "weight")
        weight, order = parts["weight"], parts.get("weight_format")
        if weight.dtype != np.int8 or (order is not None and np.asarray(order).any()):
            raise ModelError(f"{layer!r}: 8-bit weights {weight.dtype}, or not in rows")

        def from_int8() -> Array:
            rows = packing.floats(parts["SCB"]) / np.float32(127)
            return packing.floats(weight) * rows[:, None]

        return _lazy(layer, weight.shape, from_int8, "~.weight * ~.SCB / 127")
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
    stored = parts["weight"]
    n_bytes = stored.size * stored.dtype.itemsize  # of any type: FSDP shards only floats
    if len(shape) != 2 or min(shape) < 1 or np.prod(shape, dtype=object) > n_bytes * 2:
        raise ModelError(f"{layer!r}: its quant_state has the shape {shape}")

    def make() -> Array:
        largest = packing.floats(parts["weight.absmax"])
        if nested:
            outer = packing.floats(parts["weight.nested_absmax"])
            codes = packing.floats(parts["weight.nested_quant_map"])
            at = np.asarray(parts["weight.absmax"]).astype(np.int64)
            largest = codes[at] * outer[np.arange(at.size) // int(nested)] + np.float32(offset)
        packed = np.ascontiguousarray(stored).view(np.uint8).ravel()
        codes = np.stack([packed >> 4, packed & 15], axis=-1).ravel()[: shape[0] * shape[1]]
        values = packing.floats(parts["weight.quant_map"])[codes]
        made: Array = (values * largest[np.arange(values.size) // block]).reshape(shape)
        return made

    return _lazy(layer, shape, make, "~.weight.quant_map[~.weight] * ~.weight.absmax")


_Stored = tuple[tuple[int, ...], Callable[[], Array], Callable[[], Array | None]]
"""Shape of a layer, and functions for its numbers and zero points without scales."""


def _compressed(layer: str, parts: Parts, settings: Config) -> Lazy | None:
    if "weight_scale" not in parts:
        return None
    said = _scheme(layer, settings)
    weight = "~.weight_packed" if "weight_packed" in parts else "~.weight"
    if "weight_packed" not in parts:
        shape, stored, zeros = _plain(layer, parts)
    elif parts["weight_packed"].dtype == np.uint8:
        shape, stored, zeros = _packed_floats(layer, parts, said)
    else:
        shape, stored, zeros = _packed_words(layer, parts, said)
    if len(shape) != 2:
        raise ModelError(f"{layer!r}: weights of shape {shape} are not read")

    def expanded(values: Array) -> Array:
        return _expanded(values, shape, said, parts.get("weight_g_idx"))

    def make() -> Array:
        factor = packing.scale(parts["weight_scale"])
        if "weight_global_scale" in parts:
            factor = factor / packing.floats(parts["weight_global_scale"]).ravel()[0]
        values, shift = stored(), zeros()
        if shift is not None:
            values = values - expanded(shift)
        made: Array = values * expanded(factor)
        return made

    less = f"({weight} - ~.weight_zero_point)" if "weight_zero_point" in parts else weight
    over = " / ~.weight_global_scale" if "weight_global_scale" in parts else ""
    return _lazy(layer, shape, make, f"{less} * ~.weight_scale{over}")


def _expanded(values: Array, shape: tuple[int, ...], said: Config, index: Any) -> Array:
    """Scales or zero points of blocks, groups, rows or a matrix, as wide as the matrix."""
    if said.word("strategy") == "block" and values.size > 1:
        block = dict(said.items()).get("block_structure")
        if not isinstance(block, list) or [type(n) for n in block] != [int, int]:
            raise ValueError(f"blocks of {block}")
        return packing.by_blocks(values, shape, (block[0], block[1]))
    if index is not None and values.ndim == 2 and (groups := np.asarray(index)).min() >= 0:
        return values[:, groups.astype(np.int64).ravel()]  # groups by the order of activations
    return packing.by_columns(values, shape, _group(said, shape[1], "group_size"))


def _plain(layer: str, parts: Parts) -> _Stored:
    """A layer with a number for each weight."""
    _needs(layer, parts, "weight")
    weight, zero = parts["weight"], parts.get("weight_zero_point")
    return (
        weight.shape,
        lambda: packing.floats(weight),
        lambda: None if zero is None else packing.floats(zero),
    )


def _packed_floats(layer: str, parts: Parts, said: Config) -> _Stored:
    """A layer with two floats of 4 bits in a byte."""
    packed = parts["weight_packed"]
    if said.word("type") != "float" or said.size("num_bits") != 4 or packed.ndim != 2:
        raise ModelError(f"{layer!r}: packed bytes that are no floats of 4 bits are not read")
    return (packed.shape[0], packed.shape[1] * 2), lambda: packing.fp4(packed), lambda: None


def _packed_words(layer: str, parts: Parts, said: Config) -> _Stored:
    """A layer of integers in 32-bit words."""
    _needs(layer, parts, "weight_shape")
    _words(layer, parts, "weight_packed")
    packed, zero = parts["weight_packed"], parts.get("weight_zero_point")
    shape = tuple(int(n) for n in np.asarray(parts["weight_shape"]).ravel())
    bits = said.size("num_bits")
    if len(shape) != 2 or min(shape) < 1 or bits > 8 or said.word("type", default="int") != "int":
        raise ModelError(f"{layer!r}: packed weights of shape {shape} and {bits} bits are not read")
    # Earlier versions let no number cross a word: 10 numbers of 3 bits in each.
    crossing, whole = -(-shape[1] * bits // 32), -(-shape[1] // (32 // bits))
    if packed.shape[0] != shape[0] or packed.shape[1] not in (crossing, whole):
        raise ModelError(f"{layer!r}: {packed.shape} words do not hold a matrix {shape}")
    if 32 % bits and (crossing == whole or packed.shape[1] == whole):
        raise ModelError(f"{layer!r}: {bits} bits that do not cross words are not read")
    half = 2 ** (bits - 1)

    def stored() -> Array:
        values: Array = packing.unpacked(packed, bits, 1, shape[1]).astype(np.float32) - half
        return values

    def zeros() -> Array | None:
        if zero is None or zero.dtype == np.int8:
            return None if zero is None else packing.floats(zero)
        n_rows = parts["weight_scale"].shape[0]
        values: Array = packing.unpacked(zero, bits, 0, n_rows).astype(np.float32) - half
        return values

    return shape, stored, zeros


def _scheme(layer: str, settings: Config) -> Config:
    """The settings of a layer's weights: of the group that names it, else its class."""
    groups = settings.part("config_groups")
    found = [groups.part(name) for name, _ in groups.items()]
    if len(found) > 1:
        named = [group for group in found if any(_names(t, layer) for t in group.words("targets"))]
        found = named or [group for group in found if "Linear" in group.words("targets")]
    if len(found) != 1:
        raise ModelError(f"{settings.where}: {len(found)} groups of settings apply to {layer!r}")
    return found[0].part("weights")


def _names(target: str, layer: str) -> bool:
    """Check whether a target is a layer's name, or a pattern of it."""
    if not target.startswith("re:"):
        return target == layer
    pattern = target.removeprefix("re:")
    if len(re.findall(r"[*+?{]", pattern)) > _MAX_QUANTIFIERS or re.search(r"\)[*+?{]", pattern):
        raise ModelError(f"the target {target[:80]!r} is a pattern too long to match")
    try:
        return re.match(pattern, layer) is not None
    except re.error as error:
        raise ModelError(f"the target {target[:80]!r} is no pattern: {error}") from error


def _hqq(layer: str, parts: Parts, settings: Config) -> Lazy | None:
    if "W_q" not in parts:
        return None
    _needs(layer, parts, "W_q", "scale", "zero", "shape", "packing")

    def number(name: str) -> int:
        values = np.asarray(parts[name]) if name in parts else np.zeros(1)
        return int(values.ravel()[0]) if values.size == 1 else -1

    layout = bytes(np.asarray(parts["packing"]).astype(np.uint8)).decode("latin-1")
    shape = tuple(int(n) for n in np.asarray(parts["shape"]).ravel())
    if layout not in _HQQ or number("quant_scale") or number("quant_zero"):
        raise ModelError(f"{layer!r}: HQQ's packing {layout[:20]!r}, or scales of bytes, not read")
    bits, stored = _HQQ[layout], parts["W_q"]
    if len(shape) != 2 or min(shape) < 1 or stored.ndim != 2:
        raise ModelError(f"{layer!r}: HQQ's weights {stored.shape} of a matrix {shape}")
    if np.prod(shape, dtype=object) > stored.size * stored.dtype.itemsize * 8:
        raise ModelError(f"{layer!r}: HQQ's weights {stored.shape} do not hold a matrix {shape}")

    def make() -> Array:
        kind, width = (np.int32, 30) if bits == 3 else (np.uint8, 8)
        words = np.ascontiguousarray(stored).view(kind).astype(np.int64)
        shifts = range(width - bits, -1, -bits)
        values = np.concatenate([(words >> shift) & (2**bits - 1) for shift in shifts])
        factor, zeros = packing.floats(parts["scale"]), packing.floats(parts["zero"])
        n_rows = np.prod(shape) // max(values.shape[1], 1)
        if factor.ndim != 2 or factor.shape not in ((n_rows, 1), (1, values.shape[1])):
            raise ValueError(f"scales {factor.shape} of groups {(n_rows, values.shape[1])}")
        made: Array = ((values[:n_rows].astype(np.float32) - zeros) * factor).reshape(shape)
        return made

    return _lazy(layer, shape, make, "(~.W_q - ~.zero) * ~.scale")


def _mlx(layer: str, parts: Parts, settings: Config) -> Lazy | None:
    if "scales" not in parts:
        return None
    own = settings.part(layer) if layer in settings else settings
    if own.word("mode", default=settings.word("mode", default="affine")) != "affine":
        raise ModelError(f"{layer!r}: of MLX only affine matrices are read")
    _needs(layer, parts, "weight", "biases")
    _words(layer, parts, "weight")
    bits = _bits(layer, own.size("bits", default=4), (2, 3, 4, 5, 6, 8))
    group, weight = own.size("group_size", default=64), parts["weight"]
    shape = (weight.shape[0], weight.shape[1] * 32 // bits)

    def make() -> Array:
        scales, biases = (
            packing.by_rows(packing.floats(parts[n]).T, shape[1], group).T
            for n in ("scales", "biases")
        )
        return packing.unpacked(weight, bits, 1).astype(np.float32) * scales + biases

    return _lazy(layer, shape, make, "~.weight * ~.scales + ~.biases")


def _fp8(layer: str, parts: Parts, settings: Config) -> Lazy | None:
    if "weight_scale_inv" not in parts and "weight_scale" not in parts:
        return None
    if "weight" not in parts or not parts["weight"].dtype.name.startswith("float8"):
        raise ModelError(f"{layer!r} has scales, but no weights of 8-bit floats")
    weight, said = parts["weight"], dict(settings.items()).get("weight_block_size", [_BLOCK] * 2)
    scales = parts.get("weight_scale_inv", parts.get("weight_scale"))
    rows = settings.word("quant_method") == "fbgemm_fp8" or said is None
    if not rows and not (isinstance(said, list) and len(said) == 2):
        raise ModelError(f"{settings.where}: blocks of {str(said)[:40]}")

    def make() -> Array:
        values, factor = packing.floats(weight), packing.scale(scales)
        if factor.size > 1 and not rows:
            return values * packing.by_blocks(factor, values.shape, (said[0], said[1]))
        made: Array = values * packing.by_columns(factor, values.shape, values.shape[1])
        return made

    factor = "weight_scale_inv" if "weight_scale_inv" in parts else "weight_scale"
    return _lazy(layer, weight.shape, make, f"~.weight * ~.{factor}")


_METHODS: dict[str, Callable[[str, Parts, Config], Lazy | None]] = {
    "gptq": _gptq,
    "awq": _awq,
    "auto-round": _auto_round,
    "bitsandbytes": _bitsandbytes,
    "compressed-tensors": _compressed,
    "fp8": _fp8,
    "mxfp8": _fp8,
    "fbgemm_fp8": _fp8,
    "hqq": _hqq,
    "mlx": _mlx,
}
