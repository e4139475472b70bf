"""Merges a LoRA adapter of PEFT into the tensors of its base model.

Source: E. Hu et al. (2021), LoRA; names and settings follow the package peft.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncut.errors import ModelError
from ncut.extract.program.record import Lower, Made
from ncut.extract.readers.files import read_safetensors
from ncut.extract.readers.folder.config import Config, read_json
from ncut.extract.readers.folder.read import CONFIG, read_folder
from ncut.extract.readers.lazy import Lazy, lazy

SETTINGS = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"

_LORA = re.compile(r"^(?:base_model\.model\.)?(.+)\.lora_([AB])(?:\.\w+)?\.weight$")


def read_adapter(path: Path, lower: Lower[Made]) -> tuple[Made, dict[str, tuple[int, ...]]]:
    """Follow a transformer with an adapter merged into it: W + scale * B A for each matrix W.

    Parameters
    ----------
    path : Path
        A folder with `adapter_config.json`, whose `base_model_name_or_path` is a folder, and
        `adapter_model.safetensors`. A relative path is resolved from the adapter's folder, or
        from the working directory.
    lower : callable
        Gets the program; its result is returned.

    Raises
    ------
    ModelError
        If the base is not a local folder, the adapter is not LoRA, or its matrices do not fit the
        base's.
    """
    settings = Config(read_json(path / SETTINGS), str(path / SETTINGS))
    kind = settings.word("peft_type", default="LORA")
    if kind != "LORA" or settings.flag("use_dora", default=False):
        raise ModelError(
            f"{path / SETTINGS}: adapters of kind {'DoRA' if kind == 'LORA' else kind} are not "
            "read; merge it: PeftModel.from_pretrained(...).merge_and_unload().save_pretrained()"
        )
    base = _base(path, settings.word("base_model_name_or_path"))
    if not (path / WEIGHTS).is_file():
        raise ModelError(f"{path}: has no {WEIGHTS}")
    changes = _changes(read_safetensors(path / WEIGHTS), path)

    def merged(tensors: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**tensors, **_merged(tensors, changes, settings, path)}

    return read_folder(base, lower, change=merged)


def _base(path: Path, name: str) -> Path:
    for place in (path / name, Path(name)):
        if name and (place / CONFIG).is_file():
            return place
    raise ModelError(
        f"{path / SETTINGS}: the base model {name!r} is no folder here; download it, and write "
        f"the folder's path under 'base_model_name_or_path' in {SETTINGS}"
    )


def _changes(tensors: Mapping[str, NDArray[Any]], path: Path) -> dict[str, dict[str, NDArray[Any]]]:
    """The matrices A (rank, n_in) and B (n_out, rank) of each layer."""
    found: dict[str, dict[str, NDArray[Any]]] = {}
    for name, values in tensors.items():
        match = _LORA.match(name)
        if match is None:
            raise ModelError(
                f"{path / WEIGHTS}: {name!r} is no matrix of LoRA; merge the adapter with peft"
            )
        found.setdefault(match[1], {})[match[2]] = values
    for name, parts in found.items():
        if len(parts) < 2 or any(values.ndim != 2 for values in parts.values()):
            raise ModelError(f"{path / WEIGHTS}: {name!r} has not two matrices of LoRA")
    return found


def _merged(
    tensors: Mapping[str, Any],
    changes: Mapping[str, Mapping[str, NDArray[Any]]],
    settings: Config,
    path: Path,
) -> dict[str, Lazy]:
    made = {}
    for layer, parts in changes.items():
        name = f"{layer}.weight"
        weight = next(
            (tensors[n] for n in (name, name.partition(".")[2]) if n in tensors), None
        )  # some bases are saved without the prefix of the class with a head
        if weight is None:
            raise ModelError(f"{path / WEIGHTS}: adapts {layer!r}, which its base has not")
        name = name if name in tensors else name.partition(".")[2]
        transposed = settings.flag("fan_in_fan_out", default=False)
        a, b = parts["A"], parts["B"]
        shape = (b.shape[0], a.shape[1])
        if a.shape[0] != b.shape[1] or tuple(weight.shape) != (
            shape[::-1] if transposed else shape
        ):
            raise ModelError(
                f"{path / WEIGHTS}: {layer!r} has LoRA matrices {a.shape} and {b.shape}, and its "
                f"base {tuple(weight.shape)}"
            )
        scale, base = _scale(settings, layer, a.shape[0]), lazy(weight)
        formula = f"{base.formula or name} + {scale:g} * {layer}.lora_B @ {layer}.lora_A"
        made[name] = base.then(_sum(a, b, scale, transposed), formula=formula)
    return made


def _sum(a: NDArray[Any], b: NDArray[Any], scale: float, transposed: bool) -> Any:
    def change(weight: NDArray[Any]) -> NDArray[Any]:
        delta = (b.astype(np.float32) @ a.astype(np.float32)) * np.float32(scale)
        return weight.astype(np.float32) + (delta.T if transposed else delta)

    return change


def _scale(settings: Config, layer: str, rank: int) -> float:
    """alpha / r, or alpha / sqrt(r); layers may override the rank and alpha."""
    alpha = settings.number("lora_alpha", 8.0)
    for name, value in settings.part("alpha_pattern").items():
        if re.fullmatch(rf"(.*\.)?{re.escape(name)}", layer) and isinstance(value, int | float):
            alpha = float(value)
    root = settings.flag("use_rslora", default=False)
    return alpha / (rank**0.5 if root else rank)
