"""Example inputs for a module: given, or guessed from its layers and configuration."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import nn

from ncut.errors import InputError

BATCH = 5
"""Batch size: not 1, which squeezing drops, nor a usual number of channels."""

TIME = 8
"""Length of sequences."""

LARGE = 40
"""Number of modules from which images of the usual sizes are tried first."""

USUAL_SIZES = (224, 256, 384, 299, 512, 32, 64, 128, 96)
SMALL_SIZES = (32, 28, 64, *range(1, 65), 96, 128, 224, 256, 299, 384, 512)


@dataclass(frozen=True, slots=True)
class Inputs:
    """Arguments of a forward pass."""

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)


def given(example_inputs: Any) -> Inputs:
    """Inputs passed by the user: a tensor, a tuple of arguments, or a mapping of them."""
    if isinstance(example_inputs, torch.Tensor):
        return Inputs((example_inputs,))
    if isinstance(example_inputs, Mapping):
        return Inputs((), dict(example_inputs))
    if isinstance(example_inputs, tuple | list):
        return Inputs(tuple(example_inputs))
    raise InputError(
        "example_inputs: must be a tensor, a tuple of the arguments of the forward pass or a "
        f"mapping of its keyword arguments, got {type(example_inputs).__name__}"
    )


def guesses(model: nn.Module) -> Iterator[Inputs]:
    """Inputs that the model may accept, likely ones first; only their shapes matter."""
    if hasattr(model, "main_input_name") and hasattr(model, "config"):
        yield _of_transformers(model)
        return
    settings = getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None) or {}
    size = settings.get("input_size") if isinstance(settings, Mapping) else None
    n_inputs = _n_required(model)
    if size:
        yield Inputs((torch.zeros(BATCH, *size),) * n_inputs)
    seen: set[tuple[int, ...]] = set()
    known = (*_SHAPES,)
    first = [p for p in model.modules() if isinstance(p, known) or _is_quantized(p)][:3]
    for part in first:
        for example in _examples(model, part):
            if tuple(example.shape) not in seen:
                seen.add(tuple(example.shape))
                yield Inputs((example,) * n_inputs)


def names(model: nn.Module, inputs: Inputs) -> dict[int | str, str]:
    """Names of the inputs in the graph: "input" if there is one, else the arguments' names."""
    only = [*inputs.args, *inputs.kwargs.values()]
    if len(only) == 1 and isinstance(only[0], torch.Tensor):
        return dict.fromkeys([*range(len(inputs.args)), *inputs.kwargs], "input")
    known = [*inspect.signature(model.forward).parameters]
    found: dict[int | str, str] = {
        at: known[at] if at < len(known) else f"input {at}" for at in range(len(inputs.args))
    }
    return {**found, **{key: key for key in inputs.kwargs}}


def _n_required(model: nn.Module) -> int:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(model.forward).parameters.values()
    return max(sum(p.kind in kinds and p.default is p.empty for p in parameters), 1)


def _of_transformers(model: Any) -> Inputs:
    """Inputs of a model of the package transformers, from its configuration."""
    config = model.config
    accepted = inspect.signature(model.forward).parameters
    text = getattr(config, "text_config", config)
    vision = getattr(config, "vision_config", config)
    kwargs: dict[str, Any] = {}
    main = model.main_input_name
    wanted = {main, *(n for n in ("input_ids", "pixel_values") if n in accepted)}
    if main in ("pixel_values", "input_features", "input_values"):
        wanted.discard("input_ids")
    if not hasattr(config, "vision_config") and main != "pixel_values":
        wanted.discard("pixel_values")
    if "input_ids" in wanted:
        kwargs["input_ids"] = torch.full((BATCH, TIME), 5)
        if getattr(text, "eos_token_id", None) is not None and hasattr(config, "vision_config"):
            kwargs["input_ids"][:, -1] = text.eos_token_id
    if "pixel_values" in wanted:
        size = getattr(vision, "image_size", 224)
        sides = tuple(size) if isinstance(size, list | tuple) else (size, size)
        kwargs["pixel_values"] = torch.zeros(BATCH, getattr(vision, "num_channels", 3), *sides)
    if "input_features" in wanted:
        frames = 2 * getattr(config, "max_source_positions", 100)
        bins = getattr(config, "num_mel_bins", 80)
        kwargs["input_features"] = torch.zeros(BATCH, bins, frames)
    if "input_values" in wanted:
        kwargs["input_values"] = torch.zeros(BATCH, 16000)
    if "decoder_input_ids" in accepted and getattr(config, "is_encoder_decoder", False):
        kwargs["decoder_input_ids"] = torch.full((BATCH, TIME), 5)
    if "use_cache" in accepted:
        kwargs["use_cache"] = False
    return Inputs((), kwargs)


def _is_quantized(part: nn.Module) -> bool:
    """Check whether a part is a quantized linear layer, which has features and no parameters."""
    return type(part).__module__.startswith("torch.ao.") and hasattr(part, "in_features")


def _examples(model: nn.Module, part: nn.Module) -> Iterator[torch.Tensor]:
    """Inputs that a first layer accepts."""
    make = next((make for cls, make in _SHAPES.items() if isinstance(part, cls)), _linear)
    n_modules = sum(1 for _ in model.modules())
    sizes = dict.fromkeys((*USUAL_SIZES, *SMALL_SIZES) if n_modules > LARGE else SMALL_SIZES)
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    is_index = isinstance(part, nn.Embedding | nn.EmbeddingBag)
    for shape in make(part, [*sizes]):
        yield torch.zeros(shape, dtype=torch.int64 if is_index else dtype)


Shapes: TypeAlias = Callable[[Any, Sequence[int]], list[tuple[int, ...]]]
"""Shapes that a layer accepts, with positions of given sizes."""


def _linear(part: Any, sizes: Sequence[int]) -> list[tuple[int, ...]]:
    return [(BATCH, part.in_features), (BATCH, TIME, part.in_features)]


def _normalized(part: Any, sizes: Sequence[int]) -> list[tuple[int, ...]]:
    return [(BATCH, *part.normalized_shape), (BATCH, TIME, *part.normalized_shape)]


def _channels(attribute: str, *n_axes: int) -> Shapes:
    """Channels with numbers of axes of positions."""
    return lambda part, sizes: [
        (BATCH, getattr(part, attribute), *(size,) * n)
        for n in n_axes
        for size in (sizes if n else (0,))
    ]


def _steps(attribute: str) -> Shapes:
    """Features of a sequence, or of one step."""
    return lambda part, _: [(BATCH, *time, getattr(part, attribute)) for time in ((TIME,), ())]


_SHAPES: dict[Any, Shapes] = {
    nn.Embedding: lambda *_: [(BATCH, TIME)],
    nn.EmbeddingBag: lambda *_: [(BATCH, TIME)],
    nn.MultiheadAttention: _steps("embed_dim"),
    nn.RNNBase: _steps("input_size"),
    nn.RNNCellBase: _steps("input_size"),
    nn.Linear: _linear,
    nn.Bilinear: lambda part, _: [(BATCH, part.in1_features)],
    **dict.fromkeys([nn.Conv1d, nn.ConvTranspose1d], _channels("in_channels", 1)),
    **dict.fromkeys([nn.Conv2d, nn.ConvTranspose2d], _channels("in_channels", 2)),
    **dict.fromkeys([nn.Conv3d, nn.ConvTranspose3d], _channels("in_channels", 3)),
    nn.BatchNorm1d: _channels("num_features", 0, 1),
    nn.BatchNorm2d: _channels("num_features", 2),
    nn.BatchNorm3d: _channels("num_features", 3),
    nn.InstanceNorm1d: _channels("num_features", 1),
    nn.InstanceNorm2d: _channels("num_features", 2),
    nn.GroupNorm: _channels("num_channels", 2, 1, 0),
    nn.LayerNorm: _normalized,
    nn.RMSNorm: _normalized,
}
