"""Vision models: ViT and related models, CLIP."""

from __future__ import annotations

from collections.abc import Callable

from ncut.errors import ModelError
from ncut.extract.program.values import Value, concatenated, indexed, permuted, reshaped
from ncut.extract.readers.folder.blocks import Network
from ncut.extract.readers.folder.families.common import QKV, attending, feeding

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


def _vit(net: Network) -> None:
    _vit_like(net, "vit.")


def _deit(net: Network) -> None:
    _vit_like(net, "deit.")


def _vit_like(net: Network, own: str) -> None:
    prefix = net.prefix(own, "", anchor="embeddings.cls_token")
    config = net.config
    name = f"{prefix}embeddings"
    n_heads, width = config.size("num_attention_heads"), config.size("hidden_size")
    signal = _patches(
        net, f"{name}.patch_embeddings.projection", config.size("num_channels", default=3)
    )
    first = [f"{name}.cls_token", f"{name}.distillation_token"]
    first = [token for token in first if net.has(token)]
    net.constant(*first, f"{name}.position_embeddings")
    net.aside(f"{name}.mask_token")
    signal = concatenated([*(Value((1, 1, signal.shape[2])) for _ in first), signal], 1)
    kind = config.word("hidden_act", default="gelu")
    for number in range(config.size("num_hidden_layers")):
        signal = _vit_layer(net, signal, prefix, number, n_heads, width, kind)
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


def _vit_layer(
    net: Network, signal: Value, prefix: str, number: int, n_heads: int, width: int, kind: str
) -> Value:
    block = f"{prefix}encoder.layer.{number}"
    new = f"{prefix}layers.{number}"
    if net.has(f"{new}.layernorm_before.weight"):
        block = new
    parts: tuple[str, str, str] = ("query", "key", "value")
    name, out = f"{block}.attention.attention", f"{block}.attention.output.dense"
    first, second = f"{block}.intermediate.dense", f"{block}.output.dense"
    if net.has(f"{block}.attention.q_proj.weight"):
        parts = QKV
        name, out = f"{block}.attention", f"{block}.attention.o_proj"
    if net.has(f"{block}.mlp.fc1.weight"):
        first, second = f"{block}.mlp.fc1", f"{block}.mlp.fc2"
    normed = net.norm(signal, f"{block}.layernorm_before")
    mixed = net.attention(normed, name, parts, n_heads=n_heads)
    signal = net.add(net.linear(mixed, out, n_out=width), signal)
    normed = net.norm(signal, f"{block}.layernorm_after")
    hidden = net.mlp(normed, first, second, kind, net.config.size("intermediate_size"))
    return net.add(hidden, signal)


def _dinov2(net: Network) -> None:
    prefix = net.prefix("dinov2.", "", anchor="embeddings.cls_token")
    config = net.config
    name = f"{prefix}embeddings"
    n_heads, width = config.size("num_attention_heads"), config.size("hidden_size")
    kind = config.word("hidden_act", default="gelu")
    channels = config.size("num_channels", default=3)
    signal = _patches(net, f"{name}.patch_embeddings.projection", channels)
    net.constant(f"{name}.cls_token", f"{name}.position_embeddings")
    net.aside(f"{name}.mask_token")
    signal = concatenated([Value((1, 1, signal.shape[2])), signal], 1)
    for number in range(config.size("num_hidden_layers")):
        new = f"{prefix}layers.{number}"
        old = f"{prefix}encoder.layer.{number}"
        block = new if net.has(f"{new}.norm1.weight") else old
        attention = f"{block}.attention"
        normed = net.norm(signal, f"{block}.norm1")
        if net.has(f"{attention}.q_proj.weight"):
            mixed = net.attention(normed, attention, QKV, n_heads=n_heads)
            mixed = net.linear(mixed, f"{attention}.o_proj", n_out=width)
        else:
            parts = ("query", "key", "value")
            mixed = net.attention(normed, f"{attention}.attention", parts, n_heads=n_heads)
            mixed = net.linear(mixed, f"{attention}.output.dense", n_out=width)
        mixed = net.factors(mixed, f"{block}.layer_scale1.lambda1")
        signal = net.add(mixed, signal)
        normed = net.norm(signal, f"{block}.norm2")
        hidden = _dinov2_mlp(net, normed, f"{block}.mlp", kind)
        hidden = net.factors(hidden, f"{block}.layer_scale2.lambda1")
        signal = net.add(hidden, signal)
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


def _clip_vision(net: Network) -> None:
    hidden, pooled = _clip_tower(net, "vision")
    if net.has("visual_projection.weight"):
        net.outputs(net.linear(pooled, "visual_projection"), hidden)
        return
    net.outputs(hidden, pooled)


def _clip_text(net: Network) -> None:
    hidden, pooled = _clip_tower(net, "text")
    if net.has("text_projection.weight"):
        net.outputs(net.linear(pooled, "text_projection"), hidden)
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
            order=(0, 1, 2),
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
    "deit": _deit,
    "dinov2": _dinov2,
    "clip": _clip,
    "clip_vision_model": _clip_vision,
    "clip_text_model": _clip_text,
}
