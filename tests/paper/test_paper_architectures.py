"""Files of ImageNet weights as the paper used them, with random weights.

`image_classifiers.json.gz` has the configurations that Keras 3.15 saved for the models that the
package image-classifiers 1.0.0 makes, without initializers and other settings of training.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ncut
from ncut.errors import InputError, ModelError
from ncut.extract import read_graph
from ncut.graphs import NeuronGraph

h5py = pytest.importorskip("h5py", reason="pip install 'ncut[keras]'")
pytest.importorskip("torch", reason="pip install 'ncut[torch]'")
from ncut.paper import Deviations, run_table  # noqa: E402
from ncut.paper.architectures import RESNETS, Builder, graph_of_weights, inception  # noqa: E402

CONFIGS: dict[str, dict[str, Any]] = json.loads(
    gzip.decompress((Path(__file__).parent / "image_classifiers.json.gz").read_bytes())
)

SETTINGS = ("filters", "kernel_size", "strides", "padding", "use_bias", "pool_size", "epsilon",
            "scale", "center", "axis", "units")  # fmt: skip


def inputs_of(call: Any) -> Iterator[str]:
    """The layers that a call reads, in the formats of Keras 2 and 3."""
    if isinstance(call, dict):
        if call.get("class_name") == "__keras_tensor__":
            yield call["config"]["keras_history"][0]
            return
        call = list(call.values())
    if isinstance(call, list):
        if len(call) == 4 and isinstance(call[0], str):
            yield call[0]
            return
        for each in call:
            yield from inputs_of(each)


def structure(config: dict[str, Any], known: dict[Any, int]) -> int:
    """A fingerprint of the last dense layer's input, the same for equal networks."""
    layers = {layer["config"]["name"]: layer for layer in config["config"]["layers"]}
    numbers: dict[str, int] = {}
    for name, layer in layers.items():
        cls, settings = layer["class_name"], layer["config"]
        read = tuple(numbers[each] for each in inputs_of(layer["inbound_nodes"]))
        has_weights = cls in ("Conv2D", "BatchNormalization", "Dense")
        values = {} if cls == "InputLayer" else {k: settings[k] for k in SETTINGS if k in settings}
        key = (cls, name if has_weights else "", json.dumps(values, sort_keys=True), read)
        numbers[name] = known.setdefault(key, len(known))
    return next(numbers[name] for name, each in layers.items() if each["class_name"] == "Dense")


def creation_names(kind: str) -> Iterator[str]:
    return (f"{kind}_{number}" if number else kind for number in range(94))


@pytest.mark.parametrize("network", CONFIGS)
def test_architectures_match_the_package(network: str) -> None:
    if network == "Inception-V3":
        names = creation_names("conv2d"), creation_names("batch_normalization")
        ours = inception(*names, "predictions")
    else:
        ours = RESNETS[network]()
    known: dict[Any, int] = {}
    assert structure(ours, known) == structure(CONFIGS[network], known)
    ours["config"]["layers"][20]["config"]["filters"] = 7  # the comparison sees a difference
    other = ours["config"]["layers"][21]["config"]
    other["epsilon"] = other["filters"] = 0.5
    assert structure(ours, known) != structure(CONFIGS[network], known)


@pytest.fixture(scope="module", name="narrow")
def an_eighth_of_the_channels() -> Iterator[dict[str, dict[str, Any]]]:
    """The configurations with an eighth of the channels, as the architectures then have."""
    wide = Builder.conv

    def conv(self: Builder, x: str, filters: int, *rest: Any, **more: Any) -> str:
        return wide(self, x, filters // 8, *rest, **more)

    configs = json.loads(json.dumps(CONFIGS))
    for config in configs.values():
        for layer in config["config"]["layers"]:
            if layer["class_name"] == "Conv2D":
                layer["config"]["filters"] //= 8
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Builder, "conv", conv)
        yield configs


def assert_same_graph(found: NeuronGraph | None, expected: NeuronGraph) -> None:
    """Up to the order of layers, which depends on that of the configuration."""
    assert found is not None
    places = [
        {(layer.name.partition(" read by ")[0], layer.read_by): layer for layer in graph.layers}
        for graph in (found, expected)
    ]
    assert len(places[0]) == len(found.layers)
    assert places[0].keys() == places[1].keys()
    order = [np.arange(layer.size) + layer.start for layer in (places[0][key] for key in places[1])]
    vertices = np.concatenate(order)
    difference = abs(found.adjacency[vertices][:, vertices] - expected.adjacency)
    assert difference.max() < 1e-6 * expected.adjacency.max()


def write_weights(path: Path, config: dict[str, Any], whole: bool, seed: int = 0) -> None:
    """A file of random weights as Keras 2 lays it out, or that of the whole model."""
    random = np.random.default_rng(seed)
    channels: dict[str, int] = {}
    with h5py.File(path, "w") as file:
        root = file
        if whole:
            file.attrs["model_config"] = json.dumps(config)
            root = file.create_group("model_weights")
        names = []
        for layer in config["config"]["layers"]:
            cls, settings = layer["class_name"], layer["config"]
            name = settings["name"]
            names.append(name)
            sizes = [channels[each] for each in inputs_of(layer["inbound_nodes"])]
            n_in = sum(sizes) if cls == "Concatenate" else sizes[0] if sizes else 3
            arrays: dict[str, tuple[int, ...]] = {}
            channels[name] = n_in
            if cls == "Conv2D":
                channels[name] = settings["filters"]
                arrays["kernel"] = (*settings["kernel_size"], n_in, settings["filters"])
            elif cls == "Dense":
                arrays = {"kernel": (n_in, 1000), "bias": (1000,)}
            elif cls == "BatchNormalization":
                parts = ["gamma"] * settings["scale"] + ["beta", "moving_mean", "moving_variance"]
                arrays = dict.fromkeys(parts, (n_in,))
            group = root.create_group(name)
            paths = [f"{name}/{part}:0" for part in arrays]
            group.attrs["weight_names"] = [each.encode() for each in paths]
            for each, shape in zip(paths, arrays.values(), strict=True):
                values = random.standard_normal(shape, np.float32)
                group[each] = np.abs(values) + 0.5 if len(shape) == 1 else values
        root.attrs["layer_names"] = [name.encode() for name in names]


@pytest.fixture(scope="module")
def resnet(
    tmp_path_factory: pytest.TempPathFactory, narrow: dict[str, dict[str, Any]]
) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("resnet")
    for whole in (True, False):
        write_weights(folder / f"{whole}.h5", narrow["ResNet-18"], whole)
    return folder / "True.h5", folder / "False.h5"


@pytest.mark.parametrize("norm", ["column-sum", "l1"])
def test_the_graph_of_weights_is_that_of_the_whole_model(
    norm: Any, resnet: tuple[Path, Path]
) -> None:
    whole, alone = resnet
    assert graph_of_weights("ResNet-18", whole, norm) is None
    assert_same_graph(graph_of_weights("ResNet-18", alone, norm), read_graph(whole, norm=norm))


def test_a_table_is_made_of_weights_by_either_procedure(
    resnet: tuple[Path, Path], tmp_path: Path
) -> None:
    cuts = []
    for procedure in ("authors", "text"):
        result = run_table(
            "A.11", data=tmp_path, out=tmp_path, weights={"ResNet-18": resnet[1]},
            options=Deviations(shuffles=1, procedure=procedure),
        )  # fmt: skip
        (row,) = result.rows
        cuts.append(row.ours.ncut)
        assert row.published.ncut == 7.9
    assert cuts[0] != cuts[1]
    assert len(list((tmp_path / "imagenet").iterdir())) == 2
    with pytest.raises(InputError, match=r"procedure: must be one of authors, .*got 'mine'"):
        run_table(
            "A.11", data=tmp_path, out=tmp_path, weights={"ResNet-18": resnet[1]},
            options=Deviations(procedure="mine"),
        )  # fmt: skip


def test_files_of_other_networks_are_refused(resnet: tuple[Path, Path]) -> None:
    _, alone = resnet
    with pytest.raises(InputError, match="has 0 convolutions and 0 batch norms, not 94"):
        graph_of_weights("Inception-V3", alone, "l1")
    with pytest.raises(ModelError, match="stage1_unit3"):
        graph_of_weights("ResNet-34", alone, "l1")


def test_names_of_another_package_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.h5"
    with h5py.File(path, "w") as file:
        file.create_group("conv1")["conv1/kernel:0"] = np.ones((7, 7, 3, 64), "f")
        file["conv1"].attrs["weight_names"] = [b"conv1/kernel:0"]
        file.attrs["layer_names"] = [b"conv1"]
    with pytest.raises(InputError, match=r"is not of ResNet-50 in image-classifiers.*'conv1'"):
        graph_of_weights("ResNet-50", path, "l1")


def test_inception_is_read_by_the_numbers_of_its_layers(
    tmp_path: Path, narrow: dict[str, dict[str, Any]]
) -> None:
    """Whatever order they have in the file."""
    config = narrow["Inception-V3"]
    whole, alone = tmp_path / "whole.h5", tmp_path / "alone.h5"
    write_weights(whole, config, True)
    write_weights(alone, config, False)
    with h5py.File(alone, "r+") as file:
        file.attrs["layer_names"] = sorted(file.attrs["layer_names"])
    found = graph_of_weights("Inception-V3", alone, "column-sum")
    assert_same_graph(found, read_graph(whole, norm="column-sum"))
    with h5py.File(alone, "r+") as file:
        names = [name for name in file.attrs["layer_names"] if name != "conv2d_50"]
        file.attrs["layer_names"] = names
    with pytest.raises(InputError, match="has 93 convolutions and 94 batch norms, not 94 of each"):
        graph_of_weights("Inception-V3", alone, "column-sum")


def test_a_vgg_is_read_from_keras_weights(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    path = tmp_path / "vgg16.h5"
    kernels, n_in = {}, 3
    for block, n in enumerate((2, 2, 3, 3, 3), start=1):
        for number in range(1, n + 1):
            kernels[f"block{block}_conv{number}"] = random.standard_normal((3, 3, n_in, 8))
            n_in = 8
    kernels["predictions"] = random.standard_normal((8, 10))
    with h5py.File(path, "w") as file:
        for name, kernel in kernels.items():
            file.create_group(name)[f"{name}/kernel:0"] = kernel.astype("f")
            file[name].attrs["weight_names"] = [f"{name}/kernel:0".encode()]
        file.attrs["layer_names"] = [name.encode() for name in kernels]
    result = run_table(
        "A.11",
        data=tmp_path,
        out=tmp_path,
        weights={"VGG-16": path},
        options=Deviations(shuffles=1),
    )
    weights = [
        np.abs(kernel).sum(0).max(0).astype("f") for kernel in kernels.values() if kernel.ndim == 4
    ]
    expected = read_graph(weights[1:])
    (row,) = result.rows
    assert row.ours.ncut is not None
    assert row.ours.ncut == pytest.approx(ncut.analyze(expected, k=12, shuffles=0).ncut, rel=1e-5)
