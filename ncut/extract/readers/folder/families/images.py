"""Vision models: ViT and related models, CLIP."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ncut.errors import ModelError
from ncut.extract.program.values import Value, concatenated, indexed, permuted, reshaped
from ncut.extract.readers.folder.blocks import Network
from ncut.extract.readers.folder.families.common import LONG, QKV, attending, feeding

PATCHES = 2
"""Patches along each side of the followed image."""


def _patches(net: Network, name: str, channels: int, image: str = "input") -> Value:
    """Patches of an image, (batch, patches, width)."""
    parameter, kernel = net.tensor(f"{name}.weight")
    if kernel.ndim != 4 or kernel.shape[1] != channels:
        raise ModelError(
            f"tensor {parameter!r} has shape {kernel.shape}, but config.json calls for a kernel "
            f"with {channels} input channels and 2 axes of positions"
        )
    signal = net.program.input(image, (1, channels, PATCHES, PATCHES))
    signal = net.convolution(signal, name, (1, 0, PATCHES, PATCHES))
    flat = reshaped(signal, (1, signal.shape[1], PATCHES * PATCHES))
    return permuted(flat, [0, 2, 1])


def _vit(net: Network, own: str = "vit.") -> None:
    prefix = net.prefix(own, "", anchor="embeddings.cls_token")
    config = net.config
    name = f"{prefix}embeddings"
    channels = config.size("num_channels", default=3)
    signal = _patches(net, f"{name}.patch_embeddings.projection", channels)
    first = [f"{name}.cls_token", f"{name}.distillation_token"]
    first = [token for token in first if net.has(token)]
    net.constant(*first, f"{name}.position_embeddings")
    net.aside(f"{name}.mask_token")
    signal = concatenated([*(Value((1, 1, signal.shape[2])) for _ in first), signal], 1)
    for number in range(config.size("num_hidden_layers")):
        block = _block(net, prefix, number, "layernorm_before")
        signal = _attending(net, signal, block, f"{block}.layernorm_before")
        layers = f"{block}.intermediate.dense", f"{block}.output.dense"
        if net.has(f"{block}.mlp.fc1.weight"):
            layers = f"{block}.mlp.fc1", f"{block}.mlp.fc2"
        signal = feeding(
            net, signal, layers, f"{block}.layernorm_after",
            config.word("hidden_act", default="gelu"),
            n_hidden=config.size("intermediate_size"), before=True,
        )  # fmt: skip
    signal = net.norm(signal, f"{prefix}layernorm")
    ends: list[Value] = []
    if net.has("classifier.weight"):
        ends.append(net.linear(net.first_position(signal), "classifier"))
    if net.has("cls_classifier.weight"):
        both = [
            net.linear(indexed(signal, 1, at), layer)
            for at, layer in enumerate(("cls_classifier", "distillation_classifier"))
        ]
        ends += [net.add(*both), *both]
    if net.has(f"{prefix}pooler.dense.weight") and not ends:
        pooled = net.linear(net.first_position(signal), f"{prefix}pooler.dense")
        ends = [signal, net.activation(pooled, "tanh")]
    net.outputs(*(ends or [signal]))


def _block(net: Network, prefix: str, number: int, norm: str) -> str:
    """The name of a layer, in files of newer and of older versions."""
    new = f"{prefix}layers.{number}"
    return new if net.has(f"{new}.{norm}.weight") else f"{prefix}encoder.layer.{number}"


def _attending(net: Network, signal: Value, block: str, norm: str, factors: str = "") -> Value:
    """Attention with the names of newer or of older versions."""
    name = f"{block}.attention"
    new = net.has(f"{name}.q_proj.weight")
    return attending(
        net, signal, name if new else f"{name}.attention", norm, before=True,
        parts=QKV if new else LONG, out=f"{name}.o_proj" if new else f"{name}.output.dense",
        factors=factors, n_heads=net.config.size("num_attention_heads"),
    )  # fmt: skip


def _dinov2(net: Network) -> None:
    prefix = net.prefix("dinov2.", "", anchor="embeddings.cls_token")
    config = net.config
    name = f"{prefix}embeddings"
    channels = config.size("num_channels", default=3)
    signal = _patches(net, f"{name}.patch_embeddings.projection", channels)
    net.constant(f"{name}.cls_token", f"{name}.position_embeddings")
    net.aside(f"{name}.mask_token")
    signal = concatenated([Value((1, 1, signal.shape[2])), signal], 1)
    for number in range(config.size("num_hidden_layers")):
        block = _block(net, prefix, number, "norm1")
        factors = f"{block}.layer_scale1.lambda1"
        signal = _attending(net, signal, block, f"{block}.norm1", factors)
        normed = net.norm(signal, f"{block}.norm2")
        kind = config.word("hidden_act", default="gelu")
        hidden = _dinov2_mlp(net, normed, f"{block}.mlp", kind)
        signal = net.add(signal, net.factors(hidden, f"{block}.layer_scale2.lambda1"))
    signal = net.norm(signal, f"{prefix}layernorm")
    first = net.first_position(signal)
    if not net.has("classifier.weight"):
        net.outputs(signal, first)
        return
    others = net.program.positions(indexed(signal, 1, slice(1, 2)), (1, 1, signal.shape[2]))
    net.outputs(net.linear(concatenated([first, indexed(others, 1, 0)], 1), "classifier"))


def _dinov2_mlp(net: Network, signal: Value, name: str, kind: str) -> Value:
    if net.has(f"{name}.gate_proj.weight"):
        layers = [f"{name}.{layer}" for layer in ("gate_proj", "up_proj", "down_proj")]
        return net.gated_mlp(signal, layers[0], layers[1], layers[2], "silu")
    if net.has(f"{name}.weights_in.weight"):
        # Two layers, whose weights are packed in one matrix.
        packed = f"{name}.weights_in"
        gates = net.activation(net.linear(signal, f"{name}.gate_proj", packed, part=0), "silu")
        product = net.program.multiply(gates, net.linear(signal, f"{name}.up_proj", packed, part=1))
        return net.linear(product, f"{name}.down_proj", f"{name}.weights_out")
    return net.mlp(signal, f"{name}.fc1", f"{name}.fc2", kind)


def _clip(net: Network) -> None:
    vision = _clip_tower(net, "vision", "pixel_values")
    image = net.linear(vision[1], "visual_projection")
    text = _clip_tower(net, "text")
    words = net.linear(text[1], "text_projection")
    net.constant("logit_scale")
    normed = [net.program.normalization(signal) for signal in (image, words)]
    product = net.program.matmul(normed[1], permuted(normed[0], [1, 0]))
    net.outputs(
        permuted(product, [1, 0]), product, normed[1], normed[0], text[0], words, vision[0], image
    )


def _clip_part(net: Network, tower: str, projection: str) -> None:
    hidden, pooled = _clip_tower(net, tower)
    if net.has(f"{projection}.weight"):
        net.outputs(net.linear(pooled, projection), hidden)
        return
    net.outputs(hidden, pooled)


def _clip_tower(net: Network, tower: str, image: str = "input") -> tuple[Value, Value]:
    """The states of a tower's last layer, and the pooled state."""
    config = net.config.part(f"{tower}_config") if f"{tower}_config" in net.config else net.config
    sees = tower == "vision"
    anchor = "embeddings.patch_embedding.weight" if sees else "embeddings.token_embedding.weight"
    prefix = net.prefix(f"{tower}_model.", "", anchor=anchor)
    name = f"{prefix}embeddings"
    if sees:
        channels = config.size("num_channels", default=3)
        signal = _patches(net, f"{name}.patch_embedding", channels, image)
        net.constant(f"{name}.class_embedding")
        signal = concatenated([Value((1, 1, signal.shape[2])), signal], 1)
    else:
        signal = net.embedding(
            f"{name}.token_embedding", width=config.size("hidden_size", default=512),
            n_rows=config.size("vocab_size", default=49408),
        )  # fmt: skip
    places = net.embedding(f"{name}.position_embedding", time=signal.shape[1])
    signal = net.add(signal, places)
    if sees:
        old, new = f"{prefix}pre_layrnorm", f"{prefix}pre_layernorm"
        signal = net.norm(signal, old if net.has(f"{old}.weight") else new)
    for number in range(config.size("num_hidden_layers", default=12)):
        block = f"{prefix}encoder.layers.{number}"
        signal = attending(
            net, signal, f"{block}.self_attn", f"{block}.layer_norm1",
            n_heads=config.size("num_attention_heads", default=12 if sees else 8), before=True,
        )  # fmt: skip
        signal = feeding(
            net, signal, (f"{block}.mlp.fc1", f"{block}.mlp.fc2"), f"{block}.layer_norm2",
            config.word("hidden_act", default="quick_gelu"),
            n_hidden=config.size("intermediate_size", default=3072 if sees else 2048), before=True,
        )  # fmt: skip
    if not sees:
        signal = net.norm(signal, f"{prefix}final_layer_norm")
        return signal, net.first_position(signal)
    return signal, net.norm(net.first_position(signal), f"{prefix}post_layernorm")


FAMILIES: dict[str, Callable[[Network], None]] = {
    "vit": _vit,
    "deit": partial(_vit, own="deit."),
    "dinov2": _dinov2,
    "clip": _clip,
    "clip_vision_model": partial(_clip_part, tower="vision", projection="visual_projection"),
    "clip_text_model": partial(_clip_part, tower="text", projection="text_projection"),
}
