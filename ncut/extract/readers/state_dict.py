"""Infers a chain of layers from the names and shapes of weight arrays, such as a state dict."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncut.errors import InputError, ModelError
from ncut.extract.arrays import as_array
from ncut.extract.readers.chain import (
    ChainLayer,
    first_gap,
    normalization_scale,
    with_depthwise_groups,
)
from ncut.extract.readers.checkpoint import state_dict_of
from ncut.types import LeftOut

BATCH_NORM_EPS = 1e-5
DEEP = 20
"""Largest number of layers assumed to be a chain: VGG-19 has 19, ResNet-18 has 21."""

_TORCH_WEIGHT = re.compile(r"(^|\.)weight(_orig)?$")
_TORCH_STYLE = re.compile(r"^weight(_orig)?$|\.weight(_[a-z]\w*)?$|\.original\d?$")
_TORCH_FIELDS = {
    *("weight", "weight_orig", "weight_mask", "bias", "bias_orig", "bias_mask"),
    *("running_mean", "running_var", "num_batches_tracked", "SCB"),
}
_BIAS = re.compile(r"(^|[._/-])b(ias(es)?)?[_-]?\d*$", re.IGNORECASE)
_NOT_A_CHAIN = re.compile(
    r"(^|[._])(downsample|shortcut|[qkv]_proj|qkv|c_attn|attn|attention)([._]|$)"
    r"|(^|\.)(query|key|value)(\.|$)"
)
_PASS_THE_MODULE = "load the weights into the torch.nn.Module and pass that instead"


@dataclass(slots=True)
class _Found:
    """The layers and batch norms among named arrays, each in the order of the arrays."""

    layers: list[ChainLayer] = field(default_factory=list)
    norms: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    parameters: dict[str, tuple[str, ...]] = field(default_factory=dict)
    sequence: list[str] = field(default_factory=list)
    unknown: list[LeftOut] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)


def read_arrays(
    arrays: Mapping[str, Any],
    *,
    where: str,
    layers: Sequence[str] | None = None,
    ordered: bool = True,
    key: str | None = None,
) -> tuple[list[ChainLayer], list[LeftOut], dict[str, tuple[int, ...]]]:
    """Infer a chain of layers from named arrays.

    A name ending in `.weight` means PyTorch's layout: a matrix is (fan_out, fan_in), an
    array of 3 to 5 axes a convolution (out, in / groups, positions...), an entry with
    `running_var` a batch norm with eps 1e-5, `weight_orig` times `weight_mask` a pruned weight.
    Without such names every matrix is (fan_in, fan_out), and arrays of 3 to 5 axes are
    convolutions in PyTorch's layout. Biases are ignored.

    The arrays' order is used if successive sizes fit; otherwise the convolutions come first, then
    the matrices, each sorted by name with numbers by value. Weights alone do not determine the
    connections: they are read as one chain. A convolution with one input channel per group is
    depthwise if it follows several channels; other groups need the module.

    A batch norm belongs to the preceding layer if every batch norm has a separate preceding
    layer, otherwise to the layer with the same parent and number (`bn1` to `conv1`).

    Parameters
    ----------
    arrays : mapping of str to array_like
        The arrays, or a checkpoint that holds them under "state_dict", "model_state_dict" or
        "model".
    where : str
        Source of the arrays, for messages.
    layers : sequence of str, optional
        Names of the weight arrays in order, instead of the rule above.
    ordered : bool
        Whether the order of the arrays is meaningful (not in `.safetensors`).
    key : str, optional
        The state dict of a checkpoint to read (see `readers.checkpoint.state_dict_of`).

    Returns
    -------
    layers : list of ChainLayer
        The chain.
    left_out : list of LeftOut
        Arrays that are not in the chain.
    parameters : dict from str to tuple of int
        Shapes of all arrays.

    Raises
    ------
    ModelError
        If there are no weights, or they do not form a chain in either order.
    InputError
        If `layers` has a missing or a repeated name.
    """
    content = state_dict_of(arrays, where, key)
    named = {str(name): value for name, value in content.items()}
    named = {name: value for name, value in named.items() if hasattr(value, "ndim")}
    torch_style = any(_TORCH_STYLE.search(key) for key in named)
    found = _find_torch(named) if torch_style else _find_plain(named)
    if not found.layers:
        raise ModelError(f"{where}: no weights found among {_listing(named)}")
    if layers is None:
        _refuse_other_networks(found, where)
        _refuse_copies(found, where)
    chosen = found.layers if layers is None else _select(found, layers, where)
    scaled = _with_norms(found, chosen, where, ordered)
    chain = with_depthwise_groups(scaled) if layers else _in_order(scaled, where, ordered)
    if layers is None and len(chain) > DEEP:
        warnings.warn(
            f"{where}: {len(chain)} layers were read as one chain; networks as deep as this mostly "
            "have residual connections, which weights alone do not show. Pass the module, or its "
            "architecture by name, as in 'torchvision:resnet50' with weights=",
            stacklevel=2,
        )
    shapes = {key: tuple(value.shape) for key, value in named.items() if value.ndim}
    return chain, found.left_out, shapes


def _find_torch(arrays: Mapping[str, Any]) -> _Found:
    """Classify the entries of a PyTorch state dict."""
    modules: dict[str, dict[str, Any]] = {}
    found = _Found()
    for key, value in arrays.items():
        prefix, _, part = key.rpartition(".")
        if part in _TORCH_FIELDS:
            modules.setdefault(prefix, {})[part] = value
        elif value.ndim >= 2:
            found.unknown.append(LeftOut(key, tuple(value.shape), "not a layer's weight"))
        elif value.ndim == 1 and not _BIAS.search(key):
            found.left_out.append(LeftOut(key, tuple(value.shape), "not a layer's weight"))
    for prefix, parts in modules.items():
        name = prefix or "weight"
        weights = [part for part in parts if part.startswith("weight") or part == "running_var"]
        found.parameters[name] = tuple(f"{prefix}.{part}" if prefix else part for part in weights)
        _find_module(found, name, parts)
    return found


_NARROW = ("int8", "uint8", "float8")
"""Prefixes of the names of quantized dtypes."""


def _weight(values: Any, name: str, parts: Mapping[str, Any]) -> NDArray[np.floating]:
    """The values of a weight; 8-bit weights are multiplied by their scales, if known.

    Source of the scale: T. Dettmers et al. (2022), LLM.int8(): a row is max |row| times w / 127.
    """
    kind = str(values.dtype).rpartition(".")[2]
    if not kind.startswith(_NARROW):
        return as_array(values, name)
    if kind == "int8" and values.ndim == 2 and "SCB" in parts:
        rows = as_array(parts["SCB"], name).astype(np.float32)
        return as_array(values, name).astype(np.float32) * (rows / np.float32(127))[:, None]
    raise ModelError(
        f"{name} has weights of type {kind}: they are quantized, and what scales they have is "
        "not known here. Pass the weights of before, or the module"
    )


def _find_module(found: _Found, name: str, parts: Mapping[str, Any]) -> None:
    """Add one module of a state dict to `found`."""
    if "running_var" in parts:
        gamma = as_array(parts["weight"], name) if "weight" in parts else None
        variance = as_array(parts["running_var"], name)
        if variance.ndim != 1 or (gamma is not None and gamma.shape != variance.shape):
            shapes = [array.shape for array in (gamma, variance) if array is not None]
            raise ModelError(f"batch norm {name!r}: its arrays have the shapes {shapes}")
        found.norms[name] = normalization_scale(gamma, variance, BATCH_NORM_EPS)
        found.sequence.append(name)
        return
    if "weight_orig" in parts and "weight_mask" in parts:
        weight, mask = (as_array(parts[part], name) for part in ("weight_orig", "weight_mask"))
        if mask.shape != weight.shape:
            raise ModelError(f"{name!r}: has weights of {weight.shape} and a mask of {mask.shape}")
        weight = weight * mask
    elif "weight" in parts:
        weight = _weight(parts["weight"], name, parts)
    else:
        return
    if weight.ndim < 2:
        reason = "a scale without running statistics (layer norm, PReLU): not folded"
        found.left_out.append(LeftOut(name, weight.shape, reason))
    else:
        _add_layer(found, name, weight.T if weight.ndim == 2 else weight)


def _find_plain(arrays: Mapping[str, Any]) -> _Found:
    """Treat every matrix as (fan_in, fan_out), every array of 3 to 5 axes as a convolution."""
    found = _Found()
    for name, values in arrays.items():
        if values.ndim >= 2:
            found.parameters[name] = (name,)
            _add_layer(found, name, _weight(values, f"array {name!r}", {}))
        elif values.ndim == 1 and not _BIAS.search(name):
            found.left_out.append(LeftOut(name, tuple(values.shape), "not a weight matrix"))
    return found


def _add_layer(found: _Found, name: str, weight: NDArray[np.floating]) -> None:
    if weight.ndim > 5:
        found.unknown.append(LeftOut(name, weight.shape, "not a layer's weight"))
        return
    found.layers.append(ChainLayer(name, weight, "linear" if weight.ndim == 2 else "conv"))
    found.sequence.append(name)


def _refuse_other_networks(found: _Found, where: str) -> None:
    """Refuse arrays that show that the network is not a chain of layers."""
    if found.unknown:
        entries = ", ".join(f"{entry.name!r} {entry.shape}" for entry in found.unknown)
        raise ModelError(
            f"{where}: not the weights of linear or convolution layers: {entries}. Name the "
            f"weights of the chain in order, layers=[...], or {_PASS_THE_MODULE}"
        )
    names = [layer.name for layer in found.layers if _NOT_A_CHAIN.search(layer.name)]
    if names:
        raise ModelError(
            f"{where}: {', '.join(map(repr, names))} by their names belong to a network that is "
            "not a chain of layers. Name the weights of a chain in it in order, layers=[...]"
        )


_COPY = re.compile(
    r"ema|average|avg|shadow|target|online|teacher|student|momentum|swa", re.IGNORECASE
)
"""Words in the names of a network's copies: a moving average, or a training target."""


def _refuse_copies(found: _Found, where: str) -> None:
    """Refuse arrays that contain a network and a copy of it, such as its moving average.

    Two parts have the same arrays by name and shape, and either one is named as a copy, or their
    values are similar, unlike values of two independently initialized and trained networks.
    """
    families: dict[tuple[str, int], dict[str, list[ChainLayer]]] = {}
    for layer in found.layers:
        steps = layer.name.split(".")
        for at in range(len(steps)):
            family = families.setdefault((".".join(steps[:at]), at), {})
            family.setdefault(steps[at], []).append(layer)
    for (before, at), family in families.items():
        rests = {
            word: [(tuple(x.name.split(".")[at + 1 :]), x.weight.shape) for x in layers]
            for word, layers in family.items()
        }
        words = list(family)
        for number, first in enumerate(words):
            for second in words[number + 1 :]:
                if rests[first] != rests[second] or len(family[first]) < 2:
                    continue
                called = _COPY.search(first) or _COPY.search(second)
                if called or all(map(_alike, family[first], family[second])):
                    names = [f"{before}.{word}".strip(".") for word in (first, second)]
                    raise ModelError(
                        f"{where}: {names[0]!r} and {names[1]!r} hold the same arrays: one is a "
                        "copy of the other, such as its moving average. Pass those of one of "
                        "them, or name the weights of the chain, layers=[...]"
                    )


def _alike(first: ChainLayer, second: ChainLayer) -> bool:
    """Check whether two layers' weights are aligned, unlike weights of independent trainings."""
    a, b = (np.asarray(x.weight, dtype=np.float64).ravel() for x in (first, second))
    if a.size < 8:
        return np.array_equal(a, b)
    norms = np.linalg.norm(a) * np.linalg.norm(b)
    return bool(norms > 0 and a @ b > 0.8 * norms)


def _select(found: _Found, names: Sequence[str], where: str) -> list[ChainLayer]:
    """The layers named, in that order; the others are recorded as left out."""
    if isinstance(names, str) or not names:
        raise InputError(f"layers: must be a list of names of weight arrays, got {names!r}")
    by_name = {layer.name: layer for layer in found.layers}
    keys = [name if name in by_name else _TORCH_WEIGHT.sub("", name) for name in names]
    missing = [name for name, key in zip(names, keys, strict=True) if key not in by_name]
    if missing:
        raise InputError(f"layers: no {missing[0]!r} in {where}; it has {_sizes(found.layers)}")
    if len(set(keys)) < len(keys):
        raise InputError(f"layers: a name stands twice in {list(names)}")
    found.left_out += found.unknown
    found.left_out += [
        LeftOut(layer.name, layer.weight.shape, "not among layers=")
        for layer in found.layers
        if layer.name not in keys
    ]
    return [by_name[key] for key in keys]


def _with_norms(
    found: _Found, chosen: Sequence[ChainLayer], where: str, ordered: bool
) -> list[ChainLayer]:
    """Multiply each batch norm's scale into the outputs of its layer."""
    if ordered:
        _refuse_norms_before(found, where)
    owners = _owners_by_place(found) if ordered else None
    owners = owners or _owners_by_name(found, where)
    norm_of = {owner: norm for norm, owner in owners.items()}
    scaled = []
    for layer in chosen:
        parameters = found.parameters[layer.name]
        scale = None
        if layer.name in norm_of:
            scale = found.norms[norm_of[layer.name]]
            parameters += found.parameters[norm_of[layer.name]]
        scaled.append(replace(layer, output_scale=scale, parameters=parameters))
    return scaled


def _refuse_norms_before(found: _Found, where: str) -> None:
    """Refuse a batch norm that precedes all layers and fits the inputs of the first.

    It scales the inputs if it acts there, as in pre-activation networks, or the outputs if it is
    only listed there; the weights do not determine which.
    """
    first = found.sequence[0] if found.sequence else ""
    if first in found.norms and found.norms[first].size == found.layers[0].n_in:
        raise ModelError(
            f"{where}: the batch norm {first!r} stands before the first layer "
            f"{found.layers[0].name!r}, so that the norms may act before the layers or after; "
            f"{_PASS_THE_MODULE}"
        )


def _owners_by_place(found: _Found) -> dict[str, str] | None:
    """The layer preceding each batch norm; None if a norm has no such layer of its size."""
    sizes = {layer.name: layer.n_out for layer in found.layers}
    owners = {}
    before = ""
    for name in found.sequence:
        if name in found.norms:
            if sizes.get(before) != found.norms[name].size:
                return None
            owners[name] = before
        before = name
    return owners


def _owners_by_name(found: _Found, where: str) -> dict[str, str]:
    """The layer that each batch norm's name points to.

    The last part of a name is a word and an optional number. A number alone is an index in a
    sequence: the norm belongs to the preceding layer. With a word, the norm belongs to the only
    layer with the same parent, the same number and the norm's size.
    """
    owners: dict[str, str] = {}
    for norm, scale in found.norms.items():
        parent, word, number = _name_parts(norm)
        family = [
            layer
            for layer in found.layers
            if _name_parts(layer.name)[0] == parent
            and bool(_name_parts(layer.name)[1]) == bool(word)
        ]
        if word:
            names = [
                layer.name
                for layer in family
                if _name_parts(layer.name)[2] == number and layer.n_out == scale.size
            ]
        else:
            earlier = [x for x in family if _place(x.name) < _place(norm)]
            earlier.sort(key=lambda x: _place(x.name))
            names = [x.name for x in earlier[-1:] if x.n_out == scale.size]
        if len(names) != 1 or names[0] in owners.values():
            raise ModelError(
                f"{where}: cannot tell which layer the batch norm {norm!r} ({scale.size} "
                f"channels) follows; {_PASS_THE_MODULE}. The layers are {_sizes(found.layers)}"
            )
        owners[norm] = names[0]
    return owners


def _name_parts(name: str) -> tuple[str, str, str]:
    """Parent, word and number of a qualified name: "net.conv1" -> ("net", "conv", "1")."""
    parent, _, last = name.rpartition(".")
    word = last.rstrip("0123456789")
    return parent, word, last[len(word) :]


def _place(name: str) -> int:
    """The trailing number of a name, 0 without one."""
    return int(_name_parts(name)[2] or 0)


def _in_order(layers: list[ChainLayer], where: str, ordered: bool) -> list[ChainLayer]:
    """The first known order in which successive sizes fit."""
    by_name = sorted(layers, key=lambda x: (x.kind == "linear", natural_key(x.name)))
    candidates = [
        with_depthwise_groups(order) for order in ([layers] if ordered else []) + [by_name]
    ]
    for candidate in candidates:
        if first_gap(candidate) is None:
            return candidate
    raise ModelError(
        f"{where}: the weights do not form a chain: {first_gap(candidates[0])}. Found "
        f'{_sizes(layers)}. Name those of a chain in order, layers=["{layers[0].name}", ...]'
    )


def natural_key(name: str) -> list[str | int]:
    """Sort key for names with numbers compared by value: w2 before w10."""
    parts = re.split(r"([0-9]+)", name)
    return [int(part) if at % 2 else part for at, part in enumerate(parts)]


def _listing(arrays: Mapping[str, Any]) -> str:
    entries = [f"{name!r} {tuple(values.shape)}" for name, values in arrays.items()]
    return ", ".join(entries) or "the entries (none is an array)"


def _sizes(layers: Iterable[ChainLayer]) -> str:
    return ", ".join(
        f"{layer.name!r} ({layer.n_in} -> {layer.n_out}{' conv' * (layer.kind == 'conv')})"
        for layer in layers
    )
