"""Quantized matrices for the tests: python tests/extract/make_quantized_files.py

Written to quantized_files.npz by the packages themselves, with what they dequantize them to:
bitsandbytes 0.50.2, compressed-tensors 0.20.1 and hqq 0.2.8 on the CPU.
"""

import json
from pathlib import Path
from typing import Any

import bitsandbytes
import hqq.core.quantize
import numpy as np
import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationScheme
from compressed_tensors.quantization.utils import calculate_qparams

torch.manual_seed(0)
WEIGHT = torch.randn(16, 64)
FOUND: dict[str, Any] = {}


def keep(name: str, parts: dict[str, Any], values: Any, settings: dict[str, Any]) -> None:
    for part, value in parts.items():
        value = value.detach()
        if value.dtype == torch.float8_e4m3fn:
            FOUND[f"{name}/{part}/float8_e4m3fn"] = value.view(torch.uint8).numpy()
        else:
            FOUND[f"{name}/{part}"] = value.numpy()
    FOUND[f"{name}/expected"] = values.detach().float().numpy()
    FOUND[f"{name}/settings"] = np.array(json.dumps(settings))


def of_bitsandbytes() -> None:
    functional = bitsandbytes.functional
    for kind in ("nf4", "fp4"):
        for nested in (False, True):
            for storage in (torch.uint8, torch.float32):
                packed, state = functional.quantize_4bit(
                    WEIGHT, blocksize=64, compress_statistics=nested, quant_type=kind,
                    quant_storage=storage,
                )  # fmt: skip
                parts = {f"weight.{n}": v for n, v in state.as_dict(packed=True).items()}
                name = f"{kind}{'-nested' * nested}{'-floats' * (storage != torch.uint8)}"
                keep(name, {"weight": packed, **parts}, functional.dequantize_4bit(packed, state),
                     {"quant_method": "bitsandbytes", "load_in_4bit": True})  # fmt: skip
    stored, rows, _ = functional.int8_vectorwise_quant(WEIGHT.half())
    parts = {"weight": stored, "SCB": rows, "weight_format": torch.tensor(0, dtype=torch.uint8)}
    keep("int8", parts, functional.int8_vectorwise_dequant(stored, rows), {"load_in_8bit": True})


COMPRESSED: dict[str, tuple[str, dict[str, Any]]] = {
    "packed-4": ("pack-quantized", {"num_bits": 4, "strategy": "group", "group_size": 16}),
    "packed-3": ("pack-quantized", {"num_bits": 3, "strategy": "group", "group_size": 32}),
    "packed-8": ("pack-quantized", {"num_bits": 8, "strategy": "channel"}),
    "packed-zero": ("pack-quantized", {"num_bits": 4, "strategy": "group", "group_size": 16,
                                       "symmetric": False}),
    "int-channel": ("int-quantized", {"num_bits": 8, "strategy": "channel"}),
    "int-zero": ("int-quantized", {"num_bits": 8, "strategy": "channel", "symmetric": False}),
    "float-tensor": ("float-quantized", {"num_bits": 8, "type": "float", "strategy": "tensor"}),
    "float-channel": ("float-quantized", {"num_bits": 8, "type": "float", "strategy": "channel"}),
    "float-block": ("float-quantized", {"num_bits": 8, "type": "float", "strategy": "block",
                                        "block_structure": [8, 24]}),
    "nvfp4": ("nvfp4-pack-quantized", {"num_bits": 4, "type": "float", "group_size": 16,
                                       "strategy": "tensor_group"}),
    "mxfp4": ("mxfp4-pack-quantized", {"num_bits": 4, "type": "float", "strategy": "group",
                                       "group_size": 32, "scale_dtype": "uint8"}),
    "mxfp8": ("mxfp8-quantized", {"num_bits": 8, "type": "float", "strategy": "group",
                                  "group_size": 32, "scale_dtype": "uint8"}),
}  # fmt: skip


def of_compressed_tensors() -> None:
    for name, (layout, said) in COMPRESSED.items():
        scheme = QuantizationScheme(targets=["Linear"], weights=said, format=layout)
        n_out, n_in = WEIGHT.shape
        size = said.get("group_size", n_in)
        parts = WEIGHT.reshape(n_out, -1, size)
        if said["strategy"] == "tensor":
            parts = WEIGHT.reshape(1, 1, -1)
        if said["strategy"] == "block":
            rows, columns = said["block_structure"]
            wide = torch.nn.functional.pad(WEIGHT, (0, -n_in % columns))
            wide = wide.reshape(n_out // rows, rows, -1, columns)
            parts = wide.transpose(1, 2).flatten(2)
        low, high = parts.amin(-1), parts.amax(-1)
        state = {"weight": WEIGHT}
        if name == "nvfp4":
            state["weight_global_scale"] = 448 * 6 / WEIGHT.abs().max().reshape(1)
        scale, zero = calculate_qparams(
            low, high, scheme.weights, global_scale=state.get("weight_global_scale")
        )
        state |= {"weight_scale": scale.float(), "weight_zero_point": zero}
        compressor = BaseCompressor.get_value_from_registry(layout)
        stored = compressor.compress(state, scheme)
        values = compressor.decompress(stored, scheme)["weight"]
        settings = {"quant_method": "compressed-tensors", "format": layout, "config_groups": {
            "group_0": {"targets": ["Linear"], "weights": said}}}  # fmt: skip
        keep(f"ct-{name}", stored, values, settings)


def of_hqq() -> None:
    linear = torch.nn.Linear(64, 16, bias=False)
    for bits in (8, 4, 3, 2, 1):
        for axis in (0, 1):
            floats = bits == 4
            config = hqq.core.quantize.BaseQuantizeConfig(
                nbits=bits, group_size=16, axis=axis, view_as_float=floats
            )
            linear.weight.data = WEIGHT.clone()
            layer = hqq.core.quantize.HQQLinear(
                linear, config, compute_dtype=torch.float32, device="cpu", del_orig=False
            )
            keep(f"hqq-{bits}-{axis}", layer.state_dict(), layer.dequantize(),
                 {"quant_method": "hqq"})  # fmt: skip


if __name__ == "__main__":
    of_bitsandbytes()
    of_compressed_tensors()
    of_hqq()
    np.savez_compressed(Path(__file__).with_name("quantized_files.npz"), **FOUND)
