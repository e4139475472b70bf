"""Quantized matrices, as the packages write them, have the values that the packages give them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ncut.errors import ModelError
from ncut.extract.readers.folder.config import Config
from ncut.extract.readers.folder.packing import unpacked
from ncut.extract.readers.folder.quantized import dequantized

FILE = Path(__file__).parent / "quantized_files.npz"
"""Written by make_quantized_files.py beside it."""


def stored() -> dict[str, dict[str, Any]]:
    """Parts, settings and values of each matrix, by its name."""
    import ml_dtypes

    found: dict[str, dict[str, Any]] = {}
    with np.load(FILE) as content:
        for key in content:
            name, part, *dtype = key.split("/")
            values = content[key]
            if dtype:
                values = values.view(getattr(ml_dtypes, dtype[0]))
            found.setdefault(name, {})[part] = values
    return found


MATRICES = stored()


def read(parts: dict[str, Any], settings: dict[str, Any], layer: str = "a.b_proj") -> Any:
    named = {f"{layer}.{part}": value for part, value in parts.items()}
    made = dequantized(named, Config({"quantization_config": settings}, "config.json"))
    assert [*made] == [f"{layer}.weight"]
    return np.asarray(made[f"{layer}.weight"])


@pytest.mark.parametrize("name", MATRICES)
def test_a_sparse_format_has_the_values_of_its_library(name: str) -> None:
    parts = dict(MATRICES[name])
    settings, expected = json.loads(str(parts.pop("settings"))), parts.pop("expected")
    # Packages compute in float16 or bfloat16 if the scales are.
    rtol = 1e-2 if name in ("int8", "ct-nvfp4", "ct-mxfp4", "ct-mxfp8") else 1e-6
    np.testing.assert_allclose(read(parts, settings), expected, rtol, rtol * np.abs(expected).max())


@pytest.mark.parametrize("name", MATRICES)
def test_a_matrix_has_a_formula_of_its_parts(name: str) -> None:
    parts = dict(MATRICES[name])
    settings = json.loads(str(parts.pop("settings")))
    del parts["expected"]
    named = {f"a.b_proj.{part}": value for part, value in parts.items()}
    (made,) = dequantized(named, Config({"quantization_config": settings}, "config.json")).values()
    used = re.findall(r"a\.b_proj\.([\w.]+)", made.formula)
    assert len(used) > 1
    assert set(used) <= parts.keys()


def bits_of(values: Any, bits: int) -> Any:
    """A stream of numbers as words of 32 bits along the last axis, by single bits."""
    stream = (values[..., None] >> np.arange(bits)) & 1
    stream = stream.reshape(*values.shape[:-1], -1)
    padded = np.zeros((*stream.shape[:-1], -(-stream.shape[-1] // 32) * 32), np.int64)
    padded[..., : stream.shape[-1]] = stream
    words = (padded.reshape(*padded.shape[:-1], -1, 32) << np.arange(32)).sum(-1)
    return words.astype(np.uint32).view(np.int32)


@pytest.mark.parametrize("bits", range(1, 9))
def test_numbers_of_any_width_cross_words(bits: int) -> None:
    values = np.random.default_rng(bits).integers(0, 2**bits, (3, 37))
    words = bits_of(values, bits)
    np.testing.assert_array_equal(unpacked(words, bits, 1, 37), values)
    np.testing.assert_array_equal(unpacked(words.T, bits, 0, 37), values.T)
    with pytest.raises(ValueError, match="words for"):
        unpacked(words[:, :-1], bits, 1, 37)


def gptq(bits: int, layout: str, rng: Any, ordered: bool) -> tuple[dict[str, Any], Any]:
    """`pack_original` of GPTQModel: weights by columns, zeros by rows, each a stream of bits."""
    q, zero = rng.integers(0, 2**bits, (64, 32)), rng.integers(0, 2**bits, (4, 32))
    scale = rng.uniform(0.01, 0.1, zero.shape).astype(np.float16)
    groups = np.arange(64) // 16 if ordered else rng.permutation(64) // 16
    kept = zero if layout == "gptq_v2" else (zero - 1) % 2**bits
    parts = {"qweight": bits_of(q.T, bits).T, "qzeros": bits_of(kept, bits), "scales": scale,
             "g_idx": groups.astype(np.int32)}  # fmt: skip
    return parts, ((q - zero[groups]) * scale[groups].astype(np.float32)).T


@pytest.mark.parametrize("layout", ["gptq", "gptq_v2"])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_gptq_of_all_widths(bits: int, layout: str) -> None:
    rng = np.random.default_rng(bits)
    settings = {"quant_method": "gptq", "bits": bits, "group_size": 16, "checkpoint_format": layout}
    for ordered in (True, False):
        parts, expected = gptq(bits, layout, rng, ordered)
        np.testing.assert_allclose(read(parts, settings), expected, rtol=1e-6)
        # Some layers have other bits than the settings say: GPTQModel's `dynamic`.
        np.testing.assert_allclose(read(parts, settings | {"bits": 4}), expected, rtol=1e-6)
        if ordered:
            del parts["g_idx"]
            np.testing.assert_allclose(read(parts, settings), expected, rtol=1e-6)
            names = {
                "gptq": ["auto_round:auto_gptq"],
                "gptq_v2": ["auto_round", "auto_round:gptqmodel"],
            }
            for name in names[layout]:
                said = {"quant_method": "auto-round", "packing_format": name, "group_size": 16}
                np.testing.assert_allclose(read(parts, said | {"bits": bits}), expected, rtol=1e-6)
            with pytest.raises(ModelError, match="4 groups of 32 for 64 inputs"):
                read(parts, settings | {"group_size": 32})


@pytest.mark.parametrize(
    ("said", "shape"),
    [
        ({"weight_block_size": [8, 24]}, (2, 3)),
        ({"weight_block_size": None}, (1, 1)),
        ({"weight_block_size": None}, (16, 1)),
        ({}, (1, 1)),
    ],
)
def test_fp8_by_blocks_rows_and_matrices(said: dict[str, Any], shape: tuple[int, int]) -> None:
    import ml_dtypes

    rng = np.random.default_rng(0)
    weight = rng.normal(size=(16, 64)).astype(ml_dtypes.float8_e4m3fn)
    for dtype in (np.float32, ml_dtypes.float8_e8m0fnu, np.uint8):
        exponents = rng.integers(-3, 4, shape)
        scale = np.ldexp(1.0, exponents).astype(dtype)
        if dtype == np.uint8:  # E8M0 as bytes
            scale = (exponents + 127).astype(np.uint8)
        wide = np.kron(np.ldexp(1.0, exponents), np.ones((-(-16 // shape[0]), -(-72 // shape[1]))))
        expected = weight.astype(np.float32) * wide[:16, :64]
        if said.get("weight_block_size"):
            wide = np.ldexp(1.0, exponents)[np.arange(16)[:, None] // 8, np.arange(64) // 24]
            expected = weight.astype(np.float32) * wide
        parts = {"weight": weight, "weight_scale_inv": scale}
        np.testing.assert_allclose(read(parts, {"quant_method": "fp8", **said}), expected)
    rows = {"weight": weight, "weight_scale": np.arange(1, 17, dtype=np.float32)[:, None]}
    expected = weight.astype(np.float32) * np.arange(1, 17)[:, None]
    np.testing.assert_allclose(read(rows, {"quant_method": "fbgemm_fp8"}), expected)


def test_groups_of_settings_apply_by_name_and_class() -> None:
    parts = dict(MATRICES["ct-packed-4"])
    settings, expected = json.loads(str(parts.pop("settings"))), parts.pop("expected")
    four = settings["config_groups"]["group_0"]
    eight = {"targets": ["Linear"], "weights": {"num_bits": 8, "strategy": "channel"}}
    for targets in (["re:.*b_proj$"], ["a.b_proj"]):
        settings["config_groups"] = {"x": eight, "y": {**four, "targets": targets}}
        np.testing.assert_allclose(read(parts, settings), expected, rtol=1e-6)
        with pytest.raises(ModelError, match="do not hold a matrix"):
            read(parts, settings, "a.other")
    settings["config_groups"]["z"] = {**four, "targets": ["re:(a+)+b"]}
    with pytest.raises(ModelError, match="a pattern too long to match"):
        read(parts, settings, "a.other")
    settings["config_groups"] = {"x": four, "y": {**four, "targets": ["Linear"]}}
    with pytest.raises(ModelError, match=r"2 groups of settings apply to 'a\.b_proj'"):
        read(parts, settings)


def test_activation_order_of_compressed_tensors() -> None:
    """Column j belongs to group g_idx[j]; -1 throughout means none."""
    rng = np.random.default_rng(0)
    q, scale = rng.integers(-8, 8, (16, 64)), rng.uniform(1, 2, (16, 4)).astype(np.float32)
    groups = rng.permutation(64) // 16
    said = {
        "quant_method": "compressed-tensors",
        "config_groups": {
            "group_0": {
                "targets": ["Linear"],
                "weights": {"num_bits": 4, "group_size": 16, "strategy": "group"},
            }
        },
    }
    parts = {"weight_packed": bits_of(q + 8, 4), "weight_scale": scale,
             "weight_shape": np.array([16, 64])}  # fmt: skip
    for index, wide in ((groups, scale[:, groups]), (np.full(64, -1), np.repeat(scale, 16, 1))):
        found = read({**parts, "weight_g_idx": index.astype(np.int32)}, said)
        np.testing.assert_allclose(found, q * wide, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "changed", "settings", "message"),
    [
        ("nf4", {"weight.absmax": np.zeros(3, "f4")}, {}, "do not fit each other"),
        ("int8", {"weight_format": np.array(1, np.uint8)}, {}, "or not in rows"),
        ("ct-packed-4", {"weight_packed": np.zeros((16, 8), np.int64)}, {}, "32-bit words"),
        ("ct-packed-3", {"weight_packed": np.zeros((16, 7), np.int32)}, {}, "do not cross words"),
        ("ct-nvfp4", {}, {"num_bits": 6}, "packed bytes that are no floats of 4 bits"),
        ("ct-int-channel", {"weight_scale": np.ones(3, "f4")}, {}, r"scales \(3,\) of a matrix"),
        ("ct-int-channel", {"weight_scale": np.ones(16, "i8")}, {}, "scales of type int64"),
        ("ct-float-block", {}, {"block_structure": [8, 40]}, "do not fit each other"),
        ("hqq-4-1", {"packing": np.frombuffer(b"5bit", np.uint8)}, {}, "packing '5bit'"),
        ("hqq-3-0", {"scale": np.ones((2, 2), "f4")}, {}, "scales .2, 2. of groups"),
        ("hqq-8-0", {"shape": np.array([2**20, 2**20])}, {}, "do not hold a matrix"),
    ],
)  # fmt: skip
def test_parts_that_do_not_fit_are_refused(
    name: str, changed: dict[str, Any], settings: dict[str, Any], message: str
) -> None:
    parts = dict(MATRICES[name])
    said = json.loads(str(parts.pop("settings")))
    del parts["expected"]
    if settings:
        said["config_groups"]["group_0"]["weights"] |= settings
    with pytest.raises(ModelError, match=message):
        read({**parts, **changed}, said)


def test_layouts_that_are_not_read_are_refused_by_name() -> None:
    parts, _ = gptq(4, "gptq", np.random.default_rng(0), True)
    for said, message in (
        ({"quant_method": "gptq", "checkpoint_format": "marlin"}, "GPTQ's layout 'marlin'"),
        ({"quant_method": "gptq", "is_marlin_format": True}, "is not read"),
        ({"quant_method": "gptq", "bits": 5}, "known are 2, 3, 4, 8"),
        ({"quant_method": "awq", "version": "gemv"}, "only the 4-bit layout 'gemm'"),
        ({"quant_method": "auto-round", "packing_format": "auto_round:fp8"}, "AutoRound's layout"),
        ({"quant_method": "aqlm"}, "quantized by 'aqlm' are not read; known are"),
        ({"quant_method": "eetq"}, "quantized by 'eetq' are not read"),
    ):
        with pytest.raises(ModelError, match=message):
            read(parts, said)
    with pytest.raises(ModelError, match="weights int8 without a scale"):
        read({"weight": np.ones((4, 4), np.int8)}, {"quant_method": "gptq"})
