"""The architectures of table A.11's networks, as Keras configurations for files of weights alone.

The paper's weights come from the package `image-classifiers` 1.0.0: its pre-activation ResNets,
and the VGGs and Inception-V3 of `keras-applications` 1.0.8. Those files hold arrays by the names of
layers, but no connections.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from ncut.errors import InputError
from ncut.extract.assembly.assemble import assemble
from ncut.extract.lowering.kinds import lower
from ncut.extract.readers.keras.storage import Content, opened
from ncut.extract.readers.keras.weights import Named, layout_of
from ncut.extract.readers.keras_file import read_model
from ncut.files import reading
from ncut.graphs import NeuronGraph

Pair = tuple[int, int]


@dataclass
class Builder:
    """A functional Keras model, layer by layer; methods return the new layer's name."""

    layers: list[dict[str, Any]] = field(default_factory=list)

    def add(self, cls: str, *inputs: str, name: str = "", **config: Any) -> str:
        name = name or f"{cls.lower()}_{len(self.layers)}"
        calls = [[[each, 0, 0, {}] for each in inputs]] if inputs else []
        config = {"name": name, "trainable": True, **config}
        layer = {"class_name": cls, "name": name, "config": config, "inbound_nodes": calls}
        self.layers.append(layer)
        return name

    def image(self, side: int) -> str:
        shape = [None, side, side, 3]
        return self.add("InputLayer", name="data", batch_input_shape=shape)

    def conv(
        self, x: str, filters: int, size: Pair, name: str, stride: int = 1, padding: str = "valid"
    ) -> str:
        return self.add(
            "Conv2D", x, name=name, filters=filters, kernel_size=list(size),
            strides=[stride] * 2, padding=padding, use_bias=False, activation="linear",
        )  # fmt: skip

    def norm(self, x: str, name: str, scale: bool, epsilon: float) -> str:
        return self.add(
            "BatchNormalization", x, name=name, axis=3, scale=scale, center=True, epsilon=epsilon
        )

    def relu(self, x: str) -> str:
        return self.add("Activation", x, activation="relu")

    def pad(self, x: str, width: int) -> str:
        return self.add("ZeroPadding2D", x, padding=[[width] * 2] * 2)

    def pool(self, kind: str, x: str, stride: int, padding: str = "valid") -> str:
        return self.add(
            f"{kind}Pooling2D", x, pool_size=[3, 3], strides=[stride] * 2, padding=padding
        )

    def classes(self, x: str, name: str) -> dict[str, Any]:
        """The configuration of the whole model, with its 1,000 classes."""
        x = self.add("GlobalAveragePooling2D", x)
        x = self.add("Dense", x, name=name, units=1000, use_bias=True, activation="softmax")
        ends = {"input_layers": [["data", 0, 0]], "output_layers": [[x, 0, 0]]}
        config = {"name": "model", "layers": self.layers, **ends}
        return {"class_name": "Model", "config": config}


def resnet(repetitions: Sequence[int], bottleneck: bool) -> dict[str, Any]:
    """A pre-activation ResNet as `classification_models.models.resnet` makes it."""
    build = Builder()

    def rectified(x: str, name: str) -> str:
        return build.relu(build.norm(x, name, True, 2e-5))

    x = build.norm(build.image(224), "bn_data", False, 2e-5)
    x = build.conv(build.pad(x, 3), 64, (7, 7), "conv0", 2)
    x = build.pool("Max", build.pad(rectified(x, "bn0"), 1), 2)
    for stage, n_blocks in enumerate(repetitions):
        for block in range(n_blocks):
            unit = f"stage{stage + 1}_unit{block + 1}_"
            filters, stride = 64 * 2**stage, 2 if stage and not block else 1
            shortcut = x
            x = rectified(x, f"{unit}bn1")
            if not block:
                widened = filters * 4 if bottleneck else filters
                shortcut = build.conv(x, widened, (1, 1), f"{unit}sc", stride)
            if bottleneck:
                x = rectified(build.conv(x, filters, (1, 1), f"{unit}conv1"), f"{unit}bn2")
                x = build.conv(build.pad(x, 1), filters, (3, 3), f"{unit}conv2", stride)
                x = build.conv(rectified(x, f"{unit}bn3"), 4 * filters, (1, 1), f"{unit}conv3")
            else:
                x = build.conv(build.pad(x, 1), filters, (3, 3), f"{unit}conv1", stride)
                x = build.pad(rectified(x, f"{unit}bn2"), 1)
                x = build.conv(x, filters, (3, 3), f"{unit}conv2")
            x = build.add("Add", x, shortcut)
    return build.classes(rectified(x, "bn1"), "fc1")


def inception(convolutions: Iterator[str], norms: Iterator[str], top: str) -> dict[str, Any]:
    """Inception-V3 as `keras_applications.inception_v3` makes it.

    Its layers are unnamed and numbered in the order of their creation:
    `convolutions` and `norms` are their names in that order.
    """
    build = Builder()

    def conv(x: str, filters: int, *size: int, stride: int = 1, padding: str = "same") -> str:
        x = build.conv(x, filters, (size[0], size[-1]), next(convolutions), stride, padding)
        return build.relu(build.norm(x, next(norms), False, 1e-3))

    def chain(x: str, *steps: tuple[int, ...]) -> str:
        for filters, *size in steps:
            x = conv(x, filters, *size)
        return x

    def joined(*branches: str) -> str:
        return build.add("Concatenate", *branches, axis=3)

    def pooled(x: str, filters: int) -> str:
        return conv(build.pool("Average", x, 1, "same"), filters, 1)

    x = conv(build.image(299), 32, 3, stride=2, padding="valid")
    x = conv(conv(x, 32, 3, padding="valid"), 64, 3)
    x = conv(build.pool("Max", x, 2), 80, 1, padding="valid")
    x = build.pool("Max", conv(x, 192, 3, padding="valid"), 2)
    for n in (32, 64, 64):
        x = joined(
            conv(x, 64, 1), chain(x, (48, 1), (64, 5)), chain(x, (64, 1), (96, 3), (96, 3)),
            pooled(x, n),
        )  # fmt: skip
    x = joined(
        conv(x, 384, 3, stride=2, padding="valid"),
        conv(chain(x, (64, 1), (96, 3)), 96, 3, stride=2, padding="valid"),
        build.pool("Max", x, 2),
    )
    for n in (128, 160, 160, 192):
        x = joined(
            conv(x, 192, 1),
            chain(x, (n, 1), (n, 1, 7), (192, 7, 1)),
            chain(x, (n, 1), (n, 7, 1), (n, 1, 7), (n, 7, 1), (192, 1, 7)),
            pooled(x, 192),
        )
    x = joined(
        conv(conv(x, 192, 1), 320, 3, stride=2, padding="valid"),
        conv(chain(x, (192, 1), (192, 1, 7), (192, 7, 1)), 192, 3, stride=2, padding="valid"),
        build.pool("Max", x, 2),
    )
    for _ in range(2):
        first = conv(x, 320, 1)
        second = conv(x, 384, 1)
        second = joined(conv(second, 384, 1, 3), conv(second, 384, 3, 1))
        third = chain(x, (448, 1), (384, 3))
        third = joined(conv(third, 384, 1, 3), conv(third, 384, 3, 1))
        x = joined(first, second, third, pooled(x, 192))
    return build.classes(x, top)


RESNETS: dict[str, Callable[[], dict[str, Any]]] = {
    "ResNet-18": lambda: resnet((2, 2, 2, 2), bottleneck=False),
    "ResNet-34": lambda: resnet((3, 4, 6, 3), bottleneck=False),
    "ResNet-50": lambda: resnet((3, 4, 6, 3), bottleneck=True),
}


def graph_of_weights(network: str, path: Path, norm: str) -> NeuronGraph | None:
    """The graph of a ResNet or of Inception-V3 from a Keras file of weights alone.

    Parameters
    ----------
    network : str
        A key of `RESNETS`, or "Inception-V3".
    path : Path
        The file.
    norm : {"l1", "column-sum"}
        Norm of a kernel slice.

    Returns
    -------
    NeuronGraph or None
        None if the file holds a whole model.

    Raises
    ------
    ModelError
        If the file is damaged, or lacks a layer or has one of another shape.
    InputError
        If its layers are not named as in `image-classifiers`.
    """
    with reading(path, "Keras weights"), opened(path) as content:
        if content.config is not None:
            return None
        layout = layout_of(content.tree)
        if not isinstance(layout, Named):
            raise InputError(f"weights: {path}, for {network}, does not name its layers")
        config = RESNETS[network]() if network in RESNETS else _numbered(content, layout, network)
        stored = {name for name, variables in layout.layers().items() if variables}
        placed = {layer["name"] for layer in config["config"]["layers"]}
        if not stored <= placed:
            raise InputError(
                f"weights: {path} is not of {network} in image-classifiers, which has no layer "
                f"{min(stored - placed)!r}"
            )
        known, by_reader = replace(content, config=config), partial(lower, residual="readers")
        wiring, shapes = read_model(known, layout, by_reader, "error")
    return assemble(wiring, norm=norm, name=f"{network} ({path.name})", parameters=shapes)


def _numbered(content: Content, layout: Named, network: str) -> dict[str, Any]:
    """Inception-V3, its layers named by their numbers in the file."""
    names: dict[str, list[tuple[int, str]]] = {"conv2d": [], "batch_normalization": []}
    for name in layout.layers():
        if match := re.fullmatch(r"(conv2d|batch_normalization)(?:_(\d+))?", name):
            names[match[1]].append((int(match[2] or 0), name))
    found = [iter([name for _, name in sorted(each)]) for each in names.values()]
    try:
        return inception(found[0], found[1], "predictions")
    except StopIteration as error:
        raise InputError(
            f"weights: {content.path}, for {network}, has {len(names['conv2d'])} convolutions and "
            f"{len(names['batch_normalization'])} batch norms, not 94 of each"
        ) from error
