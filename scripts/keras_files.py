"""Small models saved by Keras, and the outputs that depend on each of their neurons.

    KERAS_BACKEND=jax python scripts/keras_files.py [--legacy] [--all] [--out FOLDER]

Needs Keras 3 with any backend (or, with --legacy, tf_keras, which is Keras 2); none of them is a
dependency of ncut. Writes the files and `expected.json` (or `expected-2.json`) to
tests/extract/keras_files: for each layer and each of its outputs, which of the model's outputs
change when the weights of that output do. Weights are sparse, so that a wrong axis, order or layer
is detected. Archives of more than 30 kB are compressed. With --all, all models are written in all
formats, including those that are not stored.
"""

from __future__ import annotations

import argparse
import json
import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).resolve().parents[1] / "tests" / "extract" / "keras_files"
N_EXAMPLES = 48
MAX_SIZE = 30_000
MODELS: dict[str, tuple[Callable[[Any], Any], tuple[str, ...]]] = {}


def model(*suffixes: str) -> Callable[[Any], Any]:
    """Register a function that makes a model, to be saved with these suffixes."""

    def register(make: Callable[[Any], Any]) -> Callable[[Any], Any]:
        MODELS[make.__name__] = (make, suffixes)
        return make

    return register


@model(".keras", ".h5", ".weights.h5", "_weights-2.h5")
def perceptron(keras: Any) -> Any:
    L = keras.layers
    return keras.Sequential(
        [
            keras.Input((9,)),
            L.Dense(8, activation="relu"),
            L.Dropout(0.5),
            L.Dense(7, use_bias=False),
            L.LeakyReLU(),
            L.Dense(5, activation="linear"),
        ]
    )


@model(".keras", ".weights.h5", "-2.h5")
def convolutional(keras: Any) -> Any:
    L = keras.layers
    return keras.Sequential(
        [
            keras.Input((9, 8, 3)),
            L.ZeroPadding2D(((1, 0), (0, 1))),
            L.Conv2D(6, 3, padding="same", name="first"),
            L.BatchNormalization(),
            L.ReLU(),
            L.MaxPooling2D(2),
            L.Conv2D(4, (3, 2), strides=(2, 1), groups=2, activation="relu"),
            L.Flatten(),
            L.Dense(6),
        ]
    )


@model(".keras", "-2.h5")
def kernels(keras: Any) -> Any:
    L = keras.layers
    x = keras.Input((6, 6, 4))
    y = L.DepthwiseConv2D(3, depth_multiplier=2, activation="tanh")(x)
    y = L.SeparableConv2D(5, 2, padding="same")(y)
    y = L.Conv2DTranspose(6, 3, strides=2, activation="elu")(y)
    y = L.Cropping2D(((1, 2), (0, 1)))(y)
    y = L.GlobalAveragePooling2D()(y)
    return keras.Model(x, L.Dense(4)(y))


@model(".keras")
def sequences(keras: Any) -> Any:
    L = keras.layers
    x = keras.Input((12, 3))
    y = L.Conv1D(4, 3, padding="causal", activation="relu")(x)
    y = L.SeparableConv1D(5, 2, use_bias=False)(y)
    y = L.UpSampling1D(2)(y)
    y = L.AveragePooling1D(3, padding="same")(y)
    y = L.Permute((2, 1))(y)
    y = L.Permute((2, 1))(y)
    y = L.Conv1DTranspose(4, 2)(y)
    y = L.GlobalMaxPooling1D()(y)
    return keras.Model(x, L.Dense(5)(L.RepeatVector(2)(y)))


@model(".keras")
def residual(keras: Any) -> Any:
    L = keras.layers
    x = keras.Input((6, 6, 3))
    y = L.Conv2D(4, 1)(x)
    for number in range(2):
        z = L.BatchNormalization(scale=number == 0)(y)
        z = L.Activation("relu")(z)
        z = L.Conv2D(4, 3, padding="same")(z)
        y = L.Add(name=f"sum_{number}")([y, z])
    return keras.Model(x, L.Dense(3)(L.GlobalAveragePooling2D()(y)))


@model(".keras", "-2.h5")
def nested(keras: Any) -> Any:
    L = keras.layers
    inside = keras.Input((5,))
    shared = keras.Model(inside, L.Dense(5, activation="tanh")(L.Dense(6)(inside)), name="shared")
    block = keras.Sequential([keras.Input((5,)), L.Dense(5)], name="block")
    x = keras.Input((7,))
    y = L.Dense(5)(x)
    y = block(shared(y))
    again = L.Dense(5, activation="tanh", name="twice")
    y = shared(again(again(y)))
    return keras.Model(x, L.Dense(3)(y))


@model(".keras")
def recurrent(keras: Any) -> Any:
    L = keras.layers
    x = keras.Input((6,), dtype="int32")
    y = L.Embedding(9, 5)(x)
    y = L.Bidirectional(L.GRU(3, return_sequences=True))(y)
    y = L.TimeDistributed(L.Dense(4))(y)
    y, *_ = L.LSTM(4, return_sequences=True, return_state=True)(y)
    y = L.SimpleRNN(3)(y)
    return keras.Model(x, L.Dense(4)(y))


@model(".keras")
def merged(keras: Any) -> Any:
    L = keras.layers
    x = keras.Input((8,))
    y, z = L.Dense(6, name="left")(x), L.Dense(6, name="right")(x)
    parts = [
        L.Average()([y, z]),
        L.Subtract()([y, L.Dense(6, name="more")(z)]),
        L.Maximum()([y, z]),
        L.Multiply()([y, z]),
    ]
    y = L.Concatenate()(parts)
    y = L.Reshape((3, 8))(y)
    y = L.Permute((2, 1))(y)
    y = L.Flatten()(y)
    return keras.Model(x, L.Dense(5)(y))


@model(".keras")
def operations(keras: Any) -> Any:
    L = keras.layers
    ops = keras.ops
    x = keras.Input((6,))
    y = L.Dense(6)(x)
    z = ops.relu(y * 2.0 + 1.0)
    y = ops.concatenate([z[:, 1:4], -y], axis=-1)
    y = ops.multiply(L.Dense(5)(y), L.Dense(5)(z))
    y = ops.reshape(y, (-1, 5, 1))
    y = ops.squeeze(ops.mean(ops.transpose(y, (0, 2, 1)), axis=1, keepdims=True), axis=1)
    return keras.Model(x, L.Dense(4)(y))


@model(".keras", ".h5", "-2.h5")
def attention(keras: Any) -> Any:
    L = keras.layers
    x = keras.Input((5, 6))
    y = L.Dense(6)(x)
    z = L.MultiHeadAttention(2, 3)(y, y)
    return keras.Model(x, L.EinsumDense("btc,cd->btd", output_shape=(None, 4))(z))


@model()
def channels_first(keras: Any) -> Any:
    L = keras.layers
    first = {"data_format": "channels_first"}
    x = keras.Input((3, 7, 7))
    y = L.Conv2D(4, 3, activation="relu", **first)(x)
    y = L.BatchNormalization(axis=1)(y)
    y = L.MaxPooling2D(2, **first)(y)
    y = L.Conv2D(5, 2, **first)(y)
    y = L.Flatten(**first)(y)
    return keras.Model(x, L.Dense(4)(y))


@model()
def volumes(keras: Any) -> Any:
    L = keras.layers
    x = keras.Input((5, 5, 5, 2))
    y = L.Conv3D(3, 2, dilation_rate=2)(x)
    y = L.Conv3DTranspose(4, 2, padding="same")(y)
    y = L.MaxPooling3D((1, 2, 2))(y)
    return keras.Model(x, L.Dense(3)(L.Flatten()(y)))


@model()
def states(keras: Any) -> Any:
    L = keras.layers
    x, z = keras.Input((5, 3)), keras.Input((4, 2))
    _, hidden, cell = L.LSTM(4, return_state=True)(x)
    y = L.LSTM(4)(z, initial_state=[hidden, cell])
    return keras.Model([x, z], L.Dense(3)(y))


@model()
def cells(keras: Any) -> Any:
    L = keras.layers
    x = keras.Input((5, 3))
    y = L.RNN([L.LSTMCell(4), L.LSTMCell(3)], return_sequences=True)(x)
    y = L.RNN(L.GRUCell(4))(y)
    return keras.Model(x, L.Dense(3)(y))


@model()
def convolutional_recurrent(keras: Any) -> Any:
    L = keras.layers
    x = keras.Input((4, 5, 5, 2))
    y = L.ConvLSTM2D(3, 2)(x)
    return keras.Model(x, L.Dense(3)(L.GlobalAveragePooling2D()(y)))


@model()
def wrapped(keras: Any) -> Any:
    L = keras.layers
    frame = keras.Sequential(
        [keras.Input((6, 6, 2)), L.Conv2D(3, 3, activation="relu"), L.Flatten(), L.Dense(4)]
    )
    x = keras.Input((3, 6, 6, 2))
    return keras.Model(x, L.Dense(3)(L.GRU(4)(L.TimeDistributed(frame)(x))))


@model()
def alike(keras: Any) -> Any:
    """Class counters beyond 9, in a non-alphabetical order."""
    L = keras.layers
    x = keras.Input((4,))
    y = x
    for number in range(12):
        y = L.Dense(4 + number % 3, name=f"z{12 - number}")(y)
    return keras.Model(x, y)


@model()
def image(keras: Any) -> Any:
    """An application of Keras."""
    return keras.applications.MobileNetV2((32, 32, 3), alpha=0.35, weights=None, classes=3)


def layers_of(layer: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """All layers with weights, by the names that ncut gives them."""
    for inner in layer.layers:
        own = f"{path}/{inner.name}" if path else inner.name
        kind = type(inner).__name__
        if kind == "TimeDistributed":
            inner = inner.layer
        if kind == "Bidirectional":
            yield f"{own}/forward", inner.forward_layer
            yield f"{own}/backward", inner.backward_layer
        elif kind == "RNN":
            several = hasattr(inner.cell, "cells")
            for at, cell in enumerate(inner.cell.cells if several else [inner.cell]):
                yield (f"{own}/{at}" if several else own), cell
        elif hasattr(inner, "layers"):
            yield from layers_of(inner, own)
        else:
            yield own, inner


def outputs_of(path: str, layer: Any) -> Iterator[tuple[str, Any, int, list[Any]]]:
    """Kernels: name, variable, number of outputs, and for each output an index of its weights."""
    kind = type(layer).__name__
    every = slice(None)
    if kind == "MultiHeadAttention":
        for side in ("value", "output"):
            dense = getattr(layer, f"_{side}_dense")
            kernel = dense.kernel
            sizes = kernel.shape[1:] if side == "value" else kernel.shape[2:]
            at = [(..., *np.unravel_index(c, sizes)) for c in range(int(np.prod(sizes)))]
            yield f"{path}/{side}_dense", kernel, len(at), at
    elif kind == "Embedding":
        n = layer.embeddings.shape[-1]
        yield path, layer.embeddings, n, [(..., c) for c in range(n)]
    elif hasattr(layer, "units") and hasattr(getattr(layer, "cell", layer), "recurrent_kernel"):
        kernel = getattr(layer, "cell", layer).kernel
        n = layer.units
        yield path, kernel, n, [(every, slice(c, None, n)) for c in range(n)]
    elif hasattr(getattr(layer, "cell", layer), "recurrent_kernel"):  # convolutional
        kernel = layer.cell.kernel
        n = layer.cell.filters
        yield path, kernel, n, [(..., slice(c, None, n)) for c in range(n)]
    elif hasattr(layer, "depthwise_kernel") and hasattr(layer, "pointwise_kernel"):
        yield from by_channel(f"{path}.depthwise_kernel", layer.depthwise_kernel)
        n = layer.pointwise_kernel.shape[-1]
        yield f"{path}.pointwise_kernel", layer.pointwise_kernel, n, [(..., c) for c in range(n)]
    elif kind.startswith("DepthwiseConv"):
        kernel = layer.depthwise_kernel if hasattr(layer, "depthwise_kernel") else layer.kernel
        yield from by_channel(path, kernel)
    elif hasattr(layer, "kernel"):
        axis = -2 if kind.endswith("DTranspose") else -1
        n = layer.kernel.shape[axis]
        at = [(..., c, every) if axis == -2 else (..., c) for c in range(n)]
        yield path, layer.kernel, n, at


def by_channel(path: str, kernel: Any) -> Iterator[tuple[str, Any, int, list[Any]]]:
    n_in, multiplier = kernel.shape[-2:]
    at = [(..., c // multiplier, c % multiplier) for c in range(n_in * multiplier)]
    yield path, kernel, len(at), at


def values_of(variable: Any) -> np.ndarray:
    return np.array(variable.numpy())


def made_sparse(network: Any, rng: np.random.Generator) -> None:
    """Random weights, six in ten of them zero for all positions and gates of a pair of neurons."""
    for variable in network.weights:
        values = values_of(variable)
        if values.dtype.kind != "f":
            continue
        if values.ndim < 2:
            variable.assign(rng.uniform(0.5, 1.5, values.shape).astype(values.dtype))
            continue
        keep = rng.random(values.shape[-2:]) < 0.4
        random = rng.uniform(0.3, 1.0, values.shape) * rng.choice([-1, 1], values.shape)
        variable.assign((random * keep).astype(values.dtype))


def reached(network: Any, rng: np.random.Generator) -> dict[str, list[str]]:
    """For each layer and output, a 1 for each of the model's outputs that depends on it."""
    inputs = []
    for tensor in network.inputs:
        shape = (N_EXAMPLES, *tensor.shape[1:])
        whole = "int" in str(getattr(tensor.dtype, "name", tensor.dtype))
        inputs.append(rng.integers(0, 9, shape) if whole else rng.normal(size=shape))

    def outputs() -> np.ndarray:
        result = network.predict(inputs if len(inputs) > 1 else inputs[0], verbose=0)
        return np.moveaxis(np.asarray(result), -1, 0)

    before = outputs()
    found = {}
    seen = set()
    for path, layer in layers_of(network):
        for name, variable, n, indices in outputs_of(path, layer):
            if id(variable) in seen:  # a layer that stands in several models
                continue
            seen.add(id(variable))
            kept = values_of(variable)
            found[name] = []
            for index in indices[:n]:
                changed = kept.copy()
                changed[index] += rng.uniform(0.5, 1.0, changed[index].shape)
                variable.assign(changed)
                differs = np.abs(outputs() - before).reshape(len(before), -1).max(axis=1) > 1e-6
                found[name].append("".join("01"[int(one)] for one in differs))
            variable.assign(kept)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--legacy", action="store_true", help="Keras 2: tf_keras")
    parser.add_argument("--all", action="store_true", help="models that are not kept as well")
    parser.add_argument("--out", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if arguments.legacy:
        import tf_keras as keras
    else:
        import keras
    arguments.out.mkdir(parents=True, exist_ok=True)
    ending = "-2" if arguments.legacy else ""
    expected: dict[str, Any] = {"keras": keras.__version__, "reach": {}}
    for name, (make, suffixes) in MODELS.items():
        if arguments.all and not (arguments.legacy and name == "operations"):
            suffixes = (f"{ending}.h5",) if arguments.legacy else (".keras", ".h5")
        # Those of Keras 2 are marked by a number.
        suffixes = tuple(suffix for suffix in suffixes if ("-2" in suffix) == arguments.legacy)
        if not suffixes:
            continue
        keras.utils.set_random_seed(1)
        rng = np.random.default_rng(list(name.encode()))
        network = make(keras)
        made_sparse(network, rng)
        expected["reach"][name] = {} if name == "image" else reached(network, rng)
        for suffix in suffixes:
            file = arguments.out / f"{name}{suffix}"
            if "weights" in suffix:
                network.save_weights(file)
            else:
                network.save(file)
            if suffix == ".keras" and file.stat().st_size > MAX_SIZE:
                repacked(file)
    path = arguments.out / f"expected{ending}.json"
    path.write_text(json.dumps(expected, indent=1) + "\n")


def repacked(path: Path) -> None:
    """The same archive, compressed."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


if __name__ == "__main__":
    main()
