"""Keras files: what real Keras wrote, layers one by one, and files that mean harm."""

from __future__ import annotations

import contextlib
import json
import sys
import zipfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from ncut.errors import InputError, ModelError
from ncut.extract import read_graph
from ncut.extract.assembly.assemble import assemble
from ncut.extract.lowering.kinds import lower
from ncut.extract.lowering.pointwise import positions
from ncut.extract.lowering.signal import Signal, Term
from ncut.extract.lowering.wiring import Wiring
from ncut.extract.readers.keras.weights import snake_case
from ncut.extract.readers.keras_file import read_keras
from ncut.graphs import NeuronGraph

h5py = pytest.importorskip("h5py", reason="pip install 'ncut[keras]'")

FILES = Path(__file__).parent / "keras_files"
WHOLE = sorted(f.name for f in FILES.iterdir() if f.suffix != ".json" and "weights" not in f.name)


def graph_of(
    path: Path, scope: str = "all", residual: str | None = None, **options: Any
) -> NeuronGraph:
    wiring, parameters = read_keras(path, partial(lower, residual=residual), **options)
    return assemble(wiring, scope=scope, parameters=parameters)


def dense(graph: NeuronGraph) -> dict[str, NDArray[Any]]:
    """The blocks by name."""
    found = {}
    for block in graph.blocks:
        weights = block.weights
        found[block.name] = weights if isinstance(weights, np.ndarray) else weights.toarray()
    return found


# --- what Keras wrote ---------------------------------------------------------------------------


def expected_reach(name: str) -> dict[str, list[str]]:
    legacy = "-2" in name
    content = json.loads((FILES / f"expected{'-2' if legacy else ''}.json").read_text())
    found: dict[str, list[str]] = content["reach"][name.partition(".")[0].removesuffix("-2")]
    return found


def reach(wiring: Wiring) -> dict[str, list[str]]:
    """For each layer and neuron, a 1 for each of the model's outputs that depends on it."""
    outputs = [o for o in wiring.operations if o.kind == "output"]
    n = sum(o.n_in for o in outputs)
    found = {group: np.zeros((group.size, n), dtype=bool) for group in wiring.groups}
    for operation in reversed(wiring.operations):
        if operation.kind == "output":
            rows = np.eye(operation.n_in, dtype=bool)
        elif operation.weight is None or operation.writes is None:
            continue
        else:
            own = found[operation.writes]
            if operation.within is not None:
                for _ in range(len(own)):
                    own |= operation.within.values @ own > 0
            rows = _pairs(operation.weight.values, operation.kind, operation.groups) @ own
        for part in operation.parts:
            for column in part.units.T:
                there = column >= 0
                np.logical_or.at(found[part.group], column[there], rows[there])
    named: dict[str, NDArray[np.bool_]] = {}
    for operation in wiring.operations:
        if operation.writes is not None:
            name = operation.name.partition(" (call")[0]
            named[name] = named.get(name, False) | found[operation.writes]
    return {
        name: ["".join("01"[int(one)] for one in row) for row in rows]
        for name, rows in named.items()
    }


def _pairs(weight: NDArray[Any], kind: str, groups: int) -> NDArray[np.bool_]:
    if kind != "conv":
        return weight != 0
    n_out, n_in = weight.shape[:2]
    pairs = np.zeros((n_in * groups, n_out), dtype=bool)
    for group, rows in enumerate(np.split(weight, groups)):
        there = rows.reshape(*rows.shape[:2], -1).any(axis=2).T
        at = np.s_[group * n_in : (group + 1) * n_in, group * len(rows) : (group + 1) * len(rows)]
        pairs[at] = there
    return pairs


@pytest.mark.parametrize("name", WHOLE)
def test_every_neuron_reaches_what_it_reaches_in_keras(name: str) -> None:
    wiring, parameters = read_keras(FILES / name, partial(lower, residual="readers"))
    found = reach(wiring)
    expected = expected_reach(name)
    assert expected
    assert {layer: found[layer] for layer in expected} == expected
    # Queries and keys have a say in the scores, not in the values.
    assert {n for n in found.keys() - expected.keys() if "query" not in n and "key" not in n} == (
        set()
    )
    assert len(read_keras(FILES / name, lower)[0].operations) >= len(expected)
    graph = assemble(wiring, scope="all", parameters=parameters)
    assert not [p for p in graph.parameters if p.role == "not used"]
    assert {p.name for p in graph.parameters if p.placed} >= {
        name for name in parameters if name.endswith("kernel")
    } - {f"multi_head_attention/{side}_dense.kernel" for side in ("query", "key")}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("perceptron.keras", "perceptron.h5"),
        ("attention.keras", "attention.h5"),
        ("attention.keras", "attention-2.h5"),
        ("convolutional.keras", "convolutional-2.h5"),
        ("kernels.keras", "kernels-2.h5"),
        ("nested.keras", "nested-2.h5"),
    ],
)
def test_formats_say_the_same(first: str, second: str) -> None:
    graphs = [graph_of(FILES / name) for name in (first, second)]
    if "-2" in second:  # the random numbers are the same, in Keras 2 and 3
        sizes = [[layer.size for layer in graph.layers] for graph in graphs]
        assert sizes[0] == sizes[1]
    else:
        assert (graphs[0].adjacency != graphs[1].adjacency).nnz == 0


def test_a_perceptron_has_its_weights() -> None:
    with h5py.File(FILES / "perceptron.h5") as file:
        root = file["model_weights"]
        kernels = [root[f"{n}/sequential/{n}/kernel"][()] for n in ("dense", "dense_1", "dense_2")]
    graph = graph_of(FILES / "perceptron.h5", scope="paper")
    assert [layer.size for layer in graph.layers] == [9, 8, 7, 5]
    assert [layer.rescalable for layer in graph.layers] == [False, True, True, False]
    for block, kernel in zip(graph.blocks, kernels, strict=True):
        assert_allclose(dense(graph)[block.name], np.abs(kernel), rtol=1e-6)


def test_a_batch_norm_scales_what_writes_it() -> None:
    with h5py.File(FILES / "convolutional-2.h5") as file:
        root = file["model_weights"]
        kernel = root["first/first/kernel:0"][()]
        norm = root["batch_normalization/batch_normalization"]
        factors = norm["gamma:0"][()] / np.sqrt(norm["moving_variance:0"][()] + 1e-3)
        last = root["dense_3/dense_3/kernel:0"][()]
    blocks = dense(graph_of(FILES / "convolutional-2.h5"))
    expected = np.abs(kernel).sum(axis=(0, 1)) * factors
    assert_allclose(blocks["first"], expected, rtol=1e-5)
    # Flattened positions come before channels.
    assert_allclose(blocks["dense_3"], np.abs(last).reshape(-1, 4, 6).sum(axis=0), rtol=1e-5)


def test_layers_called_twice_are_tied() -> None:
    graph = graph_of(FILES / "nested.keras")
    assert {"twice (call 2)", "shared/dense_8 (call 2)"} <= {b.name for b in graph.blocks}
    tied = {block.name: block.tie for block in graph.blocks if block.tie}
    assert tied["twice (call 2)"] == "twice"
    assert tied["shared/dense_7 (call 2)"] == "shared/dense_7"


def test_attention_is_a_stream() -> None:
    assert read_keras(FILES / "attention.keras", lower)[0].residual == "stream"
    assert read_keras(FILES / "residual.keras", lower)[0].residual == "readers"


def test_nothing_of_keras_is_imported() -> None:
    graph_of(FILES / "residual.keras")
    assert not {"keras", "tensorflow", "tf_keras"} & sys.modules.keys()


def test_a_layer_is_found_elsewhere_by_its_name(tmp_path: Path) -> None:
    path = sequential(tmp_path / "m.keras", [3], *SMALL)
    with zipfile.ZipFile(path) as archive:
        archive.extract("model.weights.h5", tmp_path)
        config = archive.read("config.json").decode()
    with h5py.File(tmp_path / "model.weights.h5", "a") as file:
        for place, name in (("dense", "l0"), ("dense_1", "l1")):
            file[f"layers/{place}/vars"].attrs["name"] = name
        file.move("layers/dense", "layers/aside")
        file.move("layers/dense_1", "layers/dense")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", config)
        archive.write(tmp_path / "model.weights.h5", "model.weights.h5")
    assert [layer.size for layer in graph_of(path).layers] == [3, 4, 2]


# --- weights alone ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["perceptron.weights.h5", "perceptron_weights-2.h5"])
def test_weights_alone_are_a_chain(name: str) -> None:
    graph, whole = graph_of(FILES / name), graph_of(FILES / "perceptron.keras")
    assert [layer.size for layer in graph.layers] == [9, 8, 7, 5]
    assert [layer.name for layer in graph.layers][1:] == ["dense", "dense_1", "dense_2"]
    if "-2" not in name:
        assert (graph.adjacency != whole.adjacency).nnz == 0
    some = graph_of(FILES / name, layers=["dense", "dense_1"])
    assert [layer.size for layer in some.layers] == [9, 8, 7]
    assert [item.name.split("/")[-1] for item in some.left_out] in (["0"], ["kernel:0"])


def test_weights_that_are_no_chain() -> None:
    with pytest.raises(
        ModelError, match=r"no.*chain.*layers=\[\.\.\.\].*conv2d \(layers/conv2d_1\) \(3, 2, 3, 4\)"
    ):
        read_keras(FILES / "convolutional.weights.h5", lower)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (["dense", "nothing"], "'nothing' is not there.*dense_2"),
        (["dense", "dense"], "named twice"),
        (["dense_1", "dense"], "reads 9 values, but 'dense_1' before it gives 7"),
        ([], "list of names"),
        ("dense", "list of names"),
    ],
)
def test_layers_that_do_not_exist_or_fit(layers: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_keras(FILES / "perceptron.weights.h5", lower, layers=layers)


def test_names_in_the_file_are_names_of_layers(tmp_path: Path) -> None:
    path = tmp_path / "net.weights.h5"
    kernels = {
        "b": np.ones((1, 1, 3, 4)),
        "a": np.ones((1, 1, 4, 5)),
        "side": np.ones((1, 1, 4, 1)),
    }
    with h5py.File(path, "w") as file:
        for number, (name, kernel) in enumerate(kernels.items()):
            group = file.create_group(f"block/layers/conv2d{f'_{number}' if number else ''}/vars")
            group.attrs["name"] = name
            group["0"] = kernel
            group["1"] = np.ones(kernel.shape[-1])
    with pytest.raises(ModelError, match="form one chain"):
        read_keras(path, lower)
    graph = graph_of(path, layers=["b", "a"])
    assert [(layer.name, layer.size) for layer in graph.layers] == [
        ("input", 3),
        ("b", 4),
        ("a", 5),
    ]
    assert [item.name for item in graph.left_out] == ["block/layers/conv2d_2/vars/0"]


def test_norms_between_convolutions_of_a_weights_file(tmp_path: Path) -> None:
    path = tmp_path / "net.weights.h5"
    with h5py.File(path, "w") as file:
        for at, (n_in, n_out) in enumerate([(3, 4), (4, 5)]):
            suffix = f"_{at}" if at else ""
            file[f"layers/conv2d{suffix}/vars/0"] = np.ones((1, 1, n_in, n_out))
            for number, value in enumerate((2.0, 0.0, 0.0, 4.0 - 1e-3)):
                file[f"layers/batch_normalization{suffix}/vars/{number}"] = np.full(n_out, value)
        file["layers/layer_normalization/vars/0"] = np.ones(5)
    graph = graph_of(path)
    assert_allclose(dense(graph)["conv2d_1"], np.ones((4, 5)))
    assert [item.name for item in graph.left_out] == ["layers/layer_normalization"]


# --- layers one by one --------------------------------------------------------------------------

Described = tuple[str, dict[str, Any], Sequence[Any]]


def layer(cls: str, *arrays: Any, **config: Any) -> Described:
    return cls, config, arrays


def written(path: Path, config: Any, arrays: dict[str, Any]) -> Path:
    """A `.keras` archive."""
    inner = path.with_suffix(".inner")
    with h5py.File(inner, "w") as file:
        file.create_group("layers")
        for name, values in arrays.items():
            file[f"layers/{name}"] = values
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("config.json", config if isinstance(config, str) else json.dumps(config))
        archive.write(inner, "model.weights.h5")
    return path


def sequential(path: Path, shape: Sequence[int | None], *layers: Described) -> Path:
    """A sequential model of layers `l0`, `l1`, ..."""
    first = {"class_name": "InputLayer", "config": {"name": "x", "batch_shape": [None, *shape]}}
    configs, arrays, counts = [first], {}, dict[str, int]()
    for at, (cls, config, values) in enumerate(layers):
        seen = counts.get(cls, 0)
        counts[cls] = seen + 1
        place = snake_case(cls) + (f"_{seen}" if seen else "")
        configs.append({"class_name": cls, "config": {"name": f"l{at}", "dtype": "f", **config}})
        arrays |= {f"{place}/vars/{number}": value for number, value in enumerate(values)}
    return written(path, {"class_name": "Sequential", "config": {"layers": configs}}, arrays)


def kernel(*shape: int, seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).uniform(0.5, 1.5, shape)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Conv2DTranspose", "conv2d_transpose"),
        ("LSTMCell", "lstm_cell"),
        ("PReLU", "p_re_lu"),
        ("LeakyReLU", "leaky_re_lu"),
        ("MaxPooling1D", "max_pooling1d"),
        ("EinsumDense", "einsum_dense"),
        ("RMSNormalization", "rms_normalization"),
    ],
)
def test_names_of_classes_in_paths(name: str, expected: str) -> None:
    assert snake_case(name) == expected


@pytest.mark.parametrize(
    ("norm", "homogeneous"),
    [
        (layer("LayerNormalization", 2 * np.ones(4), np.ones(4)), False),
        (layer("LayerNormalization", 2 * np.ones(4), axis=[-1], center=False), False),
        (layer("RMSNormalization", 2 * np.ones(4)), False),
        (layer("GroupNormalization", 2 * np.ones(4), np.ones(4), groups=2), False),
        (layer("Rescaling", scale=2.0), True),
        (layer("LayerScale", 2 * np.ones(4)), True),
        (layer("Normalization", np.ones(4), np.full(4, 0.25), 3), True),
        (layer("Normalization", mean=[[0.0] * 4], variance=[[0.25] * 4]), True),
        (
            layer("BatchNormalization", *np.ones((2, 4)), np.full(4, 0.25), scale=False, epsilon=0),
            True,
        ),
    ],
)
def test_factors_are_folded(tmp_path: Path, norm: Described, homogeneous: bool) -> None:
    first, second = kernel(3, 4), kernel(4, 2)
    path = sequential(
        tmp_path / "m.keras", [3], layer("Dense", first), norm, layer("Dense", second)
    )
    graph = graph_of(path)
    blocks = dense(graph)
    assert_allclose(blocks["l0"] * 1.0, 2 * first)
    assert_allclose(blocks["l2"], second)
    assert graph.layers[1].rescalable is homogeneous
    behind = sequential(
        tmp_path / "n.keras", [3],
        layer("Dense", first, activation="tanh"), norm, layer("Dense", second),
    )  # fmt: skip
    # A factor that all neurons share is never the reader's.
    shared = norm[0] == "Rescaling"
    assert_allclose(dense(graph_of(behind))["l2"], second if shared else 2 * second)
    assert_allclose(dense(graph_of(behind))["l0"], 2 * first if shared else first)


@pytest.mark.parametrize(("mode", "factor"), [("sum", 1.0), ("ave", 0.5)])
def test_directions_that_are_averaged(tmp_path: Path, mode: str, factor: float) -> None:
    places = [f"bidirectional/{way}_layer/cell/vars/{{}}" for way in ("forward", "backward")]
    first = [kernel(3, 4, seed=1), kernel(3, 4, seed=2)]
    arrays = {place.format(0): value for place, value in zip(places, first, strict=True)}
    arrays |= {place.format(1): np.zeros((4, 4)) for place in places}
    arrays |= {place.format(2): np.zeros(4) for place in places}
    arrays |= {"dense/vars/0": kernel(4, 2)}
    inner = {"class_name": "SimpleRNN", "config": {"name": "r", "dtype": "f", "units": 4}}
    both = {"name": "l0", "dtype": "f", "layer": inner, "merge_mode": mode}
    both["backward_layer"] = inner
    config = [
        {"class_name": "InputLayer", "config": {"name": "x", "batch_shape": [None, 5, 3]}},
        {"class_name": "Bidirectional", "config": both},
        {"class_name": "Dense", "config": {"name": "l1", "dtype": "f", "units": 2}},
    ]
    whole = {"class_name": "Sequential", "config": {"layers": config}}
    blocks = dense(graph_of(written(tmp_path / "m.keras", whole, arrays)))
    for way, weights in zip(("forward", "backward"), first, strict=True):
        assert_allclose(blocks[f"l0/{way}"], factor * weights)
    assert_allclose(blocks["l1"], kernel(4, 2))


@pytest.mark.parametrize(
    ("activation", "expected"),
    [
        ("relu", True),
        (None, True),
        ("gelu", False),
        ({"class_name": "function", "config": "leaky_relu", "module": "builtins"}, True),
        ({"class_name": "ReLU", "config": {"max_value": 6.0}}, False),
        ({"class_name": "LeakyReLU", "config": {"alpha": 0.3}}, True),
        ("softmax", False),
    ],
)
def test_activations(tmp_path: Path, activation: Any, expected: bool) -> None:
    path = sequential(
        tmp_path / "m.keras", [3],
        layer("Dense", kernel(3, 4), activation=activation), layer("Dense", kernel(4, 2)),
    )  # fmt: skip
    assert graph_of(path).layers[1].rescalable is expected


def test_an_unknown_activation(tmp_path: Path) -> None:
    layers = (layer("Dense", kernel(3, 4), activation="my>wave"), layer("Dense", kernel(4, 2)))
    path = sequential(tmp_path / "m.keras", [3], *layers)
    with pytest.raises(ModelError, match=r"'l0' \(Dense\).*'wave' is not known.*elementwise"):
        read_keras(path, lower)
    assert [item.name for item in graph_of(path, unknown="elementwise").left_out] == ["wave"]


@pytest.mark.parametrize("cls", ["Lambda", "Wave"])
def test_layers_with_code_of_their_own(tmp_path: Path, cls: str) -> None:
    code = {"class_name": "__lambda__", "config": {"code": "4wAAAA==", "defaults": None}}
    path = sequential(
        tmp_path / "m.keras", [3],
        layer("Dense", kernel(3, 4)), layer(cls, function=code), layer("Dense", kernel(4, 2)),
    )  # fmt: skip
    with pytest.raises(ModelError, match=rf"layer 'l1' \({cls}\).*unknown='elementwise'"):
        read_keras(path, lower)
    graph = graph_of(path, unknown="elementwise")
    assert [layer.rescalable for layer in graph.layers] == [False, False, False]
    assert [(item.name, cls in item.reason) for item in graph.left_out] == [("l1", True)]


def test_images_of_any_size(tmp_path: Path) -> None:
    path = sequential(
        tmp_path / "m.keras", [None, None, 3],
        layer("ZeroPadding2D", padding=[[1, 1], [1, 1]]), layer("MaxPooling2D"),
        layer("Conv2D", kernel(5, 5, 3, 4), strides=[8, 8]),
        layer("Conv2D", kernel(5, 5, 4, 2), strides=[4, 4]),
        layer("GlobalMaxPooling2D"), layer("Dense", kernel(2, 3)),
    )  # fmt: skip
    assert [layer.size for layer in graph_of(path).layers] == [3, 4, 2, 3]


def functional(path: Path, layers: Sequence[Any], arrays: dict[str, Any], output: str) -> Path:
    """A model in the nested lists of Keras 2; layers are (class, name, inputs, config)."""
    content = [
        {
            "class_name": cls,
            "name": name,
            "config": {"name": name, "dtype": "f", **config},
            "inbound_nodes": [[[source, 0, 0, {}] for source in reads]] if reads else [],
        }
        for cls, name, reads, config in layers
    ]
    inputs = [[name, 0, 0] for cls, name, *_ in layers if cls == "InputLayer"]
    config = {"layers": content, "input_layers": inputs, "output_layers": [[output, 0, 0]]}
    return written(path, {"class_name": "Functional", "config": config}, arrays)


def two_towers(path: Path, joint: str, *arrays: Any, shape: Any = (5, 3), **config: Any) -> Path:
    layers = [
        ("InputLayer", "x", [], {"batch_input_shape": [None, *shape]}),
        ("Dense", "left", ["x"], {}),
        ("Dense", "right", ["x"], {}),
        (joint, "joint", ["left", "right"], config),
        ("Dense", "last", ["joint"], {}),
    ]
    weights = {"dense/vars/0": kernel(3, 4), "dense_1/vars/0": kernel(3, 4, seed=1)}
    n = {"Dot": 1, "Concatenate": 8}.get(joint, 4)
    weights |= {"dense_2/vars/0": kernel(n, 2), **{
        f"{snake_case(joint)}/vars/{at}": values for at, values in enumerate(arrays)
    }}  # fmt: skip
    return functional(path, layers, weights, "last")


@pytest.mark.parametrize(
    ("joint", "arrays", "config", "shape", "attends"),
    [
        ("Attention", (), {}, (5, 3), True),
        ("Attention", (np.float32(2.0),), {"use_scale": True}, (5, 3), True),
        ("AdditiveAttention", (np.ones(4),), {}, (5, 3), True),
        ("Dot", (), {"axes": 1}, (3,), True),
        ("Add", (), {}, (3,), False),
        ("Minimum", (), {}, (3,), False),
        ("Concatenate", (), {"axis": -1}, (5, 3), False),
    ],
)
def test_two_tensors_meet(
    tmp_path: Path, joint: str, arrays: Any, config: Any, shape: Any, attends: bool
) -> None:
    path = two_towers(tmp_path / "m.keras", joint, *arrays, shape=shape, **config)
    wiring, _ = read_keras(path, lower)
    assert wiring.attends is attends
    assert wiring.residual == ("stream" if attends else "readers")
    graph = graph_of(path)
    assert {"left", "right"} <= {block.name for block in graph.blocks}


def test_a_sum_of_two_tensors(tmp_path: Path) -> None:
    graph = graph_of(two_towers(tmp_path / "m.keras", "Average", shape=(3,)), residual="readers")
    blocks = dense(graph)
    assert_allclose(blocks["left"], kernel(3, 4) / 2)
    assert_allclose(blocks["right"], kernel(3, 4, seed=1) / 2)


def test_pooling_of_an_image_whose_channels_come_last() -> None:
    wiring = Wiring()
    image = wiring.input("x", (1, 6, 6, 3))
    pooled = positions(wiring, image, (1, 3, 3, 3), axis=-1)
    assert pooled.shape == (1, 3, 3, 3)
    with pytest.raises(ModelError, match="pools over neurons"):
        positions(wiring, image, (1, 6, 6, 2), axis=-1)
    group = wiring.groups[0]
    units: NDArray[np.int64] = np.arange(3).reshape(1, 3, 1)
    with pytest.raises(ModelError, match="pools over neurons"):
        positions(wiring, Signal((1, 3, 8), (Term(group, units),)), (1, 2, 8))


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ((layer("Dense", kernel(4, 4)),), r"'l0' \(Dense\): it reads 4 values, but gets 3"),
        ((layer("Dense"),), "holds no 'kernel'"),
        ((layer("Dense", np.ones((3, 4), dtype=np.int8)),), "quantized"),
        ((layer("Conv2D", kernel(1, 1, 3, 4)),), "4 filters|its input 2 axes"),
        ((layer("Reshape", target_shape=[7]),), "cannot reshape"),
        ((layer("Reshape", target_shape=[0, -1]),), "cannot reshape"),
        ((layer("Permute", dims=[9]),), "dims"),
        ((layer("RepeatVector", n=2**40),), "too large"),
        ((layer("LSTM", kernel(3, 8), kernel(2, 8)),), "batch, time, features"),
        ((layer("BatchNormalization", *np.ones((4, 5))),), "scales 5 values, but gets 3"),
        ((layer("MaxPooling1D", pool_size=2),), "has no positions"),
        ((layer("EinsumDense", kernel(3, 4), equation="ab,bc,cd->d"),), "equation"),
        ((layer("EinsumDense", kernel(3, 4)),), "equation"),
        ((layer("Concatenate", axis=9),), "axis 9"),
        ((layer("TimeDistributed", layer={}),), "class_name"),
    ],
)
def test_layers_that_do_not_fit(tmp_path: Path, layers: Any, message: str) -> None:
    path = sequential(tmp_path / "m.keras", [3], *layers)
    with pytest.raises(ModelError, match=message):
        read_keras(path, lower)


# --- files that are damaged or mean harm --------------------------------------------------------

SMALL = (layer("Dense", kernel(3, 4)), layer("Dense", kernel(4, 2)))


def refused(path: Path, message: str | None, **options: Any) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        read_keras(path, lower, **options)
    assert str(path) in str(caught.value)


def test_missing_and_foreign_files_are_refused(tmp_path: Path) -> None:
    refused(tmp_path / "none.keras", "no such file")
    (tmp_path / "folder.keras").mkdir()
    refused(tmp_path / "folder.keras", "folder")
    for content in (b"", b"hello", b"\x89HDF\r\n\x1a\n", b"PK\x03\x04", bytes(1000)):
        path = tmp_path / "x.h5"
        path.write_bytes(content)
        refused(path, "neither|HDF5|zip")


@pytest.mark.parametrize("name", ["perceptron.keras", "perceptron.h5", "attention.keras"])
def test_truncated_and_damaged_files(tmp_path: Path, name: str) -> None:
    whole = (FILES / name).read_bytes()
    path = tmp_path / name
    for part in range(1, 12):
        path.write_bytes(whole[: len(whole) * part // 12])
        refused(path, None)
    if name.endswith(".h5"):
        return  # what HDF5 makes of other bytes differs by version
    rng = np.random.default_rng(3)
    for _ in range(40):
        changed = bytearray(whole)
        for at in rng.integers(0, len(whole), 6):
            changed[at] = int(rng.integers(0, 256))
        path.write_bytes(bytes(changed))
        with contextlib.suppress(ModelError, InputError):
            graph_of(path)


def test_a_zip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "m.keras"
    for bomb in ("config.json", "model.weights.h5"):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            config = {"class_name": "Sequential", "config": {"layers": []}}
            archive.writestr("config.json", json.dumps(config))
            if bomb != "config.json":
                archive.writestr(bomb, bytes(2**25))
            else:
                archive.writestr("model.weights.h5", b"")
                archive.writestr("big", b"")
        if bomb == "config.json":
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr("config.json", b" " * 2**25)
        refused(path, "expand so much")


@pytest.mark.parametrize("name", ["../config.json", "/etc/passwd", "a/../../b", "..\\b"])
def test_members_that_lead_out_of_an_archive(tmp_path: Path, name: str) -> None:
    path = sequential(tmp_path / "m.keras", [3], *SMALL)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, "x")
    refused(path, "leads out")


def test_missing_members(tmp_path: Path) -> None:
    path = tmp_path / "m.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")
    refused(path, r"has no 'model\.weights\.h5', but 'config\.json'")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("[" * 100_000 + "]" * 100_000, "nested too deep"),
        ("{", "no configuration"),
        ("[]", "no configuration"),
        ("{}", "class_name"),
        ('{"class_name": "Mine", "config": {}}', "'Mine' is a model.*layers="),
        ('{"class_name": "Sequential", "config": {"layers": []}}', "no layers"),
        ('{"class_name": "Sequential", "config": {"layers": [3]}}', "class_name"),
    ],
)
def test_invalid_configurations_are_refused(tmp_path: Path, config: str, message: str) -> None:
    refused(written(tmp_path / "m.keras", config, {}), message)


def test_models_in_models_in_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nested(depth: int) -> Any:
        """A model that calls another one twice, and so on."""
        inner: Any = {"class_name": "Activation", "config": {"activation": "relu", "dtype": "f"}}
        for number in range(depth):
            name = "inner"
            first = {"class_name": "InputLayer", "name": "x", "inbound_nodes": []}
            first["config"] = {"batch_shape": [None, 3]}
            twice = [[["x", 0, 0, {}]], [[name, 0, 0, {}]]]
            layers = [first, {**inner, "name": name, "inbound_nodes": twice}]
            inner = {"class_name": "Functional", "config": {
                "name": f"m{number}", "layers": layers,
                "input_layers": [["x", 0, 0]], "output_layers": [[name, 1, 0]],
            }}  # fmt: skip
        return inner

    refused(written(tmp_path / "deep.keras", nested(80), {}), "nested too deep")
    monkeypatch.setattr("ncut.extract.readers.keras.following.MAX_CALLS", 1000)
    refused(written(tmp_path / "many.keras", nested(25), {}), "more than 1000 times")


def test_layers_that_read_each_other(tmp_path: Path) -> None:
    layers = [
        ("InputLayer", "x", [], {"batch_input_shape": [None, 3]}),
        ("Add", "a", ["x", "b"], {}),
        ("Add", "b", ["x", "a"], {}),
    ]
    refused(functional(tmp_path / "m.keras", layers, {}, "b"), "circle")
    refused(
        functional(tmp_path / "n.keras", [*layers[:1], ("Add", "a", ["y"], {})], {}, "a"), "'y'"
    )
    refused(functional(tmp_path / "o.keras", layers[:1], {}, "nothing"), "does not exist")


def test_links_are_not_followed(tmp_path: Path) -> None:
    other = tmp_path / "other.h5"
    with h5py.File(other, "w") as file:
        file["secret"] = kernel(3, 4)
    for link in (h5py.ExternalLink(str(other), "/secret"), h5py.SoftLink("/layers/real")):
        path = tmp_path / "m.h5"
        config = {"class_name": "Sequential", "config": {"layers": [
            {"class_name": "InputLayer", "config": {"name": "x", "batch_shape": [None, 3]}},
            {"class_name": "Dense", "config": {"name": "d", "dtype": "f"}},
        ]}}  # fmt: skip
        with h5py.File(path, "w") as file:
            file.attrs["model_config"] = json.dumps(config)
            file["layers/real"] = kernel(3, 4)
            file.create_group("layers/dense/vars")["0"] = link
        refused(path, "is a link to")


def test_values_that_lie_in_other_files(tmp_path: Path) -> None:
    raw = tmp_path / "values"
    raw.write_bytes(bytes(96))
    path = tmp_path / "m.weights.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("layers/dense/vars/0", (3, 4), "f8", external=[(str(raw), 0, 96)])
    refused(path, "another file")
    with h5py.File(tmp_path / "source.h5", "w") as file:
        file["v"] = kernel(3, 4)
    with h5py.File(path, "w") as file:
        virtual = h5py.VirtualLayout((3, 4), "f8")
        virtual[:] = h5py.VirtualSource(str(tmp_path / "source.h5"), "v", (3, 4))
        file.create_virtual_dataset("layers/dense/vars/0", virtual)
    refused(path, "another file")


def test_sizes_that_the_file_does_not_hold(tmp_path: Path) -> None:
    path = tmp_path / "m.weights.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("layers/dense/vars/0", (2**20, 2**20), "f4", chunks=(64, 64))
    refused(path, "expand so much")
    with h5py.File(path, "w") as file:
        file.create_dataset("layers/dense/vars/0", (2**20, 2**14), "f4")
    refused(path, "but the file holds 0 bytes")
    with h5py.File(path, "w") as file:
        file["layers/dense/vars/0"] = [["a", "b"]]
    refused(path, "not numbers")


def test_a_group_that_is_part_of_itself(tmp_path: Path) -> None:
    path = tmp_path / "m.weights.h5"
    with h5py.File(path, "w") as file:
        file["layers/dense/vars/0"] = kernel(3, 4)
        file["layers/dense_1/vars/0"] = kernel(4, 2)
        file["layers/again"] = file["layers"]
    assert [layer.size for layer in graph_of(path).layers] == [3, 4, 2]


def test_options_are_checked() -> None:
    with pytest.raises(InputError, match="unknown"):
        read_graph(FILES / "perceptron.keras", unknown="maybe")
    with pytest.raises(InputError, match="residual"):
        read_graph(FILES / "perceptron.keras", residual="maybe")


def test_a_kernel_in_h5_has_its_low_rank_update(tmp_path):
    rng = np.random.default_rng(0)
    kernel, a, b = (rng.normal(size=s).astype(np.float32) for s in ((6, 5), (6, 2), (2, 5)))
    layers = [
        {"class_name": "InputLayer", "config": {"batch_shape": [None, 6], "name": "x"}},
        {
            "class_name": "Dense",
            "config": {
                "name": "a", "trainable": True, "units": 5, "use_bias": False, "activation": "relu",
                "lora_rank": 2, "lora_alpha": 6,
            },
        },
        {
            "class_name": "Dense",
            "config": {
                "name": "b", "trainable": True, "units": 4, "use_bias": False,
                "activation": "linear",
            },
        },
    ]  # fmt: skip
    config = {"class_name": "Sequential", "config": {"name": "s", "layers": layers}}
    path = tmp_path / "tuned.h5"
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps(config)
        file.attrs["keras_version"] = "3.8.0"
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = ["a", "b"]
        variables = {
            "a": {"kernel": kernel, "lora_kernel_a": a, "lora_kernel_b": b},
            "b": {"kernel": np.ones((5, 4), np.float32)},
        }
        for layer, arrays in variables.items():
            group.create_group(layer).attrs["weight_names"] = [f"{layer}/{n}" for n in arrays]
            for name, values in arrays.items():
                group[layer].create_dataset(f"{layer}/{name}", data=values)
    graph = read_graph(path)
    assert_allclose(graph.blocks[0].weights, np.abs(kernel + 3 * a @ b), rtol=1e-5)
    assert graph.placed_share == 1.0
