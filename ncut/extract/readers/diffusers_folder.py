"""Reads parts of diffusers pipelines by following their torch module."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ncut.errors import ModelError, import_extra
from ncut.extract.program.record import Lower, Made
from ncut.extract.readers.folder.config import read_json
from ncut.files import Budget, describe, reading

WEIGHTS = "diffusion_pytorch_model"

SMALLEST = 2**14
"""Bytes that a parameter counts at least: a model of many small ones takes long to make."""


def read_part(
    path: Path, lower: Lower[Made], *, unknown: str = "error"
) -> tuple[Made, dict[str, tuple[int, ...]]]:
    """Follow the forward pass of a UNet, an autoencoder or a DiT.

    `config.json` names the class, which must be a known class of diffusers; the package loads the
    weights and runs no code of the folder.

    Parameters
    ----------
    path : Path
        A folder with `config.json` and `diffusion_pytorch_model.safetensors`, or its shards, or a
        variant such as `.fp16.safetensors`.
    lower, unknown
        As for `ncut.extract.readers.traced.module.read_module`.

    Raises
    ------
    ModelError
        If the class is unknown, or the folder cannot be loaded or followed.
    MissingExtraError
        If the package diffusers is not installed.
    """
    with reading(path, "a part of a diffusers pipeline"):
        settings = read_json(path / "config.json")
        name = str(settings.get("_class_name"))
        if name not in EXAMPLES:
            raise ModelError(
                f"{path}: the class {name!r} of diffusers is not known; known are "
                f"{', '.join(EXAMPLES)}. Load it with from_pretrained and pass the module with "
                "example_inputs="
            )
        import_extra("torch", "torch")
        diffusers = import_extra("diffusers", "diffusers")
        from ncut.extract.readers.traced.module import parameters_of, read_module

        files = [file.name for file in path.glob(f"{WEIGHTS}*")]
        plain = any(file.removeprefix(WEIGHTS).startswith((".safetensors", "-", ".bin"))
                    for file in files)  # fmt: skip
        variants = sorted({file.split(".")[1].split("-")[0] for file in files})
        stored = sum(file.stat().st_size for file in path.glob(f"{WEIGHTS}*"))
        try:
            size = _smallest_size(name, settings)
            _check_size(path, getattr(diffusers, name), Budget(path, stored), size)
            module = getattr(diffusers, name).from_pretrained(
                path,
                local_files_only=True,
                variant=None if plain or not variants else variants[0],
                **size,
            )
            example = EXAMPLES[name](module.config)
        except ModelError:
            raise
        except Exception as error:  # from diffusers, damaged settings or mismatched shapes
            raise ModelError(f"{path}: cannot be loaded as {name}: {describe(error)}") from error
        made = read_module(module.eval(), lower, example_inputs=example, unknown=unknown)
        return made, parameters_of(module)


def _smallest_size(name: str, settings: Mapping[str, Any]) -> dict[str, int]:
    """Images of two by two patches for a DiT, whose embeddings of positions are computed.

    Their number has no part in the graph, and settings may ask for more than memory holds.
    """
    is_dit = name == "DiTTransformer2DModel"
    return {"sample_size": 2 * settings.get("patch_size", 2)} if is_dit else {}


def _check_size(path: Path, kind: Any, budget: Budget, size: Mapping[str, int]) -> None:
    """Refuse settings of a far larger model than the folder stores, before it is allocated.

    Parameters count as they are made, since settings may ask for layers without end.
    """
    import torch
    from torch.nn.modules.module import register_module_parameter_registration_hook

    ours = threading.get_ident()

    def count(module: Any, name: str, tensor: Any) -> None:
        if threading.get_ident() == ours:
            n_bytes = tensor.numel() * tensor.element_size()
            budget.take(f"{name!r}, by config.json", max(n_bytes, SMALLEST))

    hook = register_module_parameter_registration_hook(count)
    try:
        with torch.device("meta"):
            kind.from_config(kind.load_config(path, local_files_only=True), **size)
    finally:
        hook.remove()


def _zeros(*shape: int, whole: bool = False) -> Any:
    import torch

    return torch.zeros(shape, dtype=torch.long if whole else torch.float32)


def _side(config: Any) -> int:
    """An image size divisible by all of the network's downsampling steps."""
    return int(2 ** len(config.block_out_channels))


def _unet(config: Any) -> Mapping[str, Any]:
    side = _side(config)
    return {"sample": _zeros(1, config.in_channels, side, side),
            "timestep": _zeros(1, whole=True)}  # fmt: skip


def _conditioned(config: Any) -> Mapping[str, Any]:
    width = config.encoder_hid_dim or config.cross_attention_dim
    width = width if isinstance(width, int) else width[0]
    made = {**_unet(config), "encoder_hidden_states": _zeros(1, 3, width)}
    if config.addition_embed_type == "text_time":  # of Stable Diffusion XL
        times = 6 * config.addition_time_embed_dim
        pooled = config.projection_class_embeddings_input_dim - times
        made["added_cond_kwargs"] = {"text_embeds": _zeros(1, pooled), "time_ids": _zeros(1, 6)}
    return made


def _autoencoder(config: Any) -> Mapping[str, Any]:
    side = _side(config)
    return {"sample": _zeros(1, config.in_channels, side, side)}


def _dit(config: Any) -> Mapping[str, Any]:
    side = config.sample_size
    return {
        "hidden_states": _zeros(1, config.in_channels, side, side),
        "timestep": _zeros(1, whole=True),
        "class_labels": _zeros(1, whole=True),
    }


EXAMPLES: Mapping[str, Callable[[Any], Mapping[str, Any]]] = {
    "UNet2DConditionModel": _conditioned,
    "UNet2DModel": _unet,
    "AutoencoderKL": _autoencoder,
    "DiTTransformer2DModel": _dit,
}
"""Known classes, and the arguments of their forward pass."""
