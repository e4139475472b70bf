"""Named weight arrays: which are layers, in what order, and whose a batch norm is."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from ncut.errors import InputError, ModelError
from ncut.extract import read_graph
from ncut.extract.readers.state_dict import natural_key, read_arrays

RNG = np.random.default_rng(0)


def dense(graph, number):
    weights = graph.blocks[number].weights
    return weights if isinstance(weights, np.ndarray) else weights.toarray()


def layers_of(graph):
    return [(layer.name, layer.size) for layer in graph.layers]


def linear(n_in, n_out):
    """Weights in PyTorch's layout."""
    return RNG.normal(size=(n_out, n_in)).astype(np.float32)


def norm(prefix, size):
    return {
        f"{prefix}.weight": RNG.normal(size=size).astype(np.float32),
        f"{prefix}.bias": RNG.normal(size=size).astype(np.float32),
        f"{prefix}.running_mean": RNG.normal(size=size).astype(np.float32),
        f"{prefix}.running_var": RNG.random(size=size).astype(np.float32) + 1,
        f"{prefix}.num_batches_tracked": np.array(7),
    }


def factor(state, prefix):
    gamma = state.get(f"{prefix}.weight", 1.0)
    return np.abs(gamma / np.sqrt(state[f"{prefix}.running_var"] + 1e-5))


def channels(weight):
    return np.abs(weight).reshape(*weight.shape[:2], -1).sum(axis=2).T


def test_state_dict_of_linear_layers_is_transposed():
    state = {
        "net.0.weight": linear(4, 3),
        "net.0.bias": np.ones(3),
        "net.2.weight": linear(3, 2),
        "net.2.bias": np.ones(2),
    }
    graph = read_graph(state)
    assert layers_of(graph) == [("input", 4), ("net.0", 3), ("net.2", 2)]
    assert_array_equal(dense(graph, 0), np.abs(state["net.0.weight"]).T)
    assert_array_equal(dense(graph, 1), np.abs(state["net.2.weight"]).T)
    assert graph.left_out == ()


def test_other_names_are_fan_in_by_fan_out():
    w0, w1 = RNG.normal(size=(4, 3)), RNG.normal(size=(3, 2))
    for names in (("w0", "w1"), ("arr_0", "arr_1"), ("layer1_kernel", "layer2_kernel")):
        arrays = {names[0]: w0, "b0": np.ones(3), names[1]: w1, "layer2_bias": np.ones(2)}
        graph = read_graph(arrays)
        assert layers_of(graph) == [("input", 4), (names[0], 3), (names[1], 2)]
        assert_array_equal(dense(graph, 0), np.abs(w0))
        assert graph.left_out == ()


def test_vectors_other_than_biases_are_noted_and_numbers_are_not():
    arrays = {"w0": np.ones((2, 2)), "w1": np.ones((2, 2)), "gamma": np.ones(2), "epoch": 3}
    graph = read_graph(arrays | {"accuracy": np.array(0.9)})
    assert [(item.name, item.shape) for item in graph.left_out] == [("gamma", (2,))]


def test_order_of_arrays_precedes_order_of_names():
    arrays = {"z": np.ones((4, 4)), "a": np.ones((4, 4))}
    assert [layer.name for layer in read_graph(arrays).layers] == ["input", "z", "a"]


def test_names_sort_by_number_if_the_order_of_the_arrays_does_not_fit():
    sizes = list(range(2, 14))
    arrays = {f"w{number}": np.ones((sizes[number], sizes[number + 1])) for number in range(11)}
    shuffled = {name: arrays[name] for name in sorted(arrays)}  # w0, w1, w10, w2, ...
    names = [layer.name for layer in read_graph(shuffled).layers]
    assert names == ["input", *(f"w{number}" for number in range(11))]


@settings(deadline=None)
@given(st.lists(st.text("ab0129.²", max_size=6), min_size=2))
def test_natural_keys_can_be_compared(names):
    assert len(sorted(names, key=natural_key)) == len(names)


def test_convolutions_come_first_when_sorted_by_name():
    state = {
        "classifier.0.weight": linear(8, 5),
        "features.10.weight": RNG.normal(size=(4, 3, 1, 1)),
        "features.2.weight": RNG.normal(size=(3, 1, 2, 2)),
    }
    graph = read_graph(state, scope="all")
    assert layers_of(graph) == [
        ("input", 1), ("features.2", 3), ("features.10", 4), ("classifier.0", 5)
    ]  # fmt: skip
    by_position = np.abs(state["classifier.0.weight"]).reshape(5, 4, 2).sum(axis=2).T
    assert_allclose(dense(graph, 2), by_position)


def test_depthwise_convolution():
    state = {"a.weight": np.ones((3, 2, 1)), "b.weight": 2 * np.ones((3, 1, 1))}
    assert_array_equal(dense(read_graph(state), 0), 2 * np.eye(3))


def test_grouped_convolution_is_not_guessed():
    state = {"a.weight": np.ones((4, 2, 1)), "b.weight": np.ones((4, 2, 1))}
    with pytest.raises(ModelError, match=r"do not form a chain.*'b' reads 2.*'a'.*gives 4"):
        read_graph(state)


def test_batch_norm_scales_the_layer_before_it():
    state = {"conv1.weight": RNG.normal(size=(2, 1, 3, 3)), **norm("bn1", 2)}
    state |= {"conv2.weight": RNG.normal(size=(2, 2, 3, 3)), **norm("bn2", 2)}
    graph = read_graph(state, scope="all")
    assert_allclose(dense(graph, 0), channels(state["conv1.weight"]) * factor(state, "bn1"))
    assert_allclose(dense(graph, 1), channels(state["conv2.weight"]) * factor(state, "bn2"))


def test_batch_norm_without_weights_has_gamma_one():
    state = {"a.weight": linear(2, 3), "bn.running_var": np.array([1.0, 4.0, 0.25])}
    state |= {"b.weight": linear(3, 2)}
    expected = np.abs(state["a.weight"]).T / np.sqrt([1, 4, 0.25])
    assert_allclose(dense(read_graph(state), 0), expected, rtol=1e-4)


def test_batch_norms_declared_after_all_layers_belong_by_number():
    state = {"conv1.weight": RNG.normal(size=(3, 1, 2)), "conv2.weight": RNG.normal(size=(3, 3, 2))}
    state |= {**norm("bn1", 3), **norm("bn2", 3)}
    graph = read_graph(state, scope="all")
    assert_allclose(dense(graph, 0), channels(state["conv1.weight"]) * factor(state, "bn1"))
    assert_allclose(dense(graph, 1), channels(state["conv2.weight"]) * factor(state, "bn2"))


def sorted_arrays(state):
    return {name: state[name] for name in sorted(state)}


@pytest.mark.parametrize(
    ("layers", "norms"),
    [
        (("conv1", "conv2"), ("bn1", "bn2")),
        (("block1.conv", "block2.conv"), ("block1.bn", "block2.bn")),
        (("features.0", "features.9"), ("features.1", "features.10")),
    ],
)
def test_batch_norms_without_an_order_belong_by_name(layers, norms):
    first, second = RNG.normal(size=(3, 1, 2)), RNG.normal(size=(3, 3, 2))
    state = {f"{layers[0]}.weight": first, f"{layers[1]}.weight": second}
    state |= {**norm(norms[0], 3), **norm(norms[1], 3)}
    chain, left_out, parameters = read_arrays(sorted_arrays(state), where="here", ordered=False)
    assert [layer.name for layer in chain] == list(layers)
    for layer, name in zip(chain, norms, strict=True):
        assert_allclose(np.abs(layer.output_scale), factor(state, name))
    assert left_out == []
    counters = {f"{name}.num_batches_tracked" for name in norms}
    assert parameters == {k: value.shape for k, value in state.items() if k not in counters}


def test_batch_norms_without_an_order_do_not_belong_to_what_stands_before_them():
    state = {"a.weight": RNG.normal(size=(3, 1, 2)), "b1.conv.weight": RNG.normal(size=(3, 3, 2))}
    state |= {"b2.conv.weight": RNG.normal(size=(3, 3, 2)), **norm("b1.bn", 3), **norm("b2.bn", 3)}
    chain, *_ = read_arrays(sorted_arrays(state), where="here", ordered=False)
    assert [layer.name for layer in chain] == ["a", "b1.conv", "b2.conv"]
    assert chain[0].output_scale is None
    assert_allclose(np.abs(chain[1].output_scale), factor(state, "b1.bn"))
    assert_allclose(np.abs(chain[2].output_scale), factor(state, "b2.bn"))


@pytest.mark.parametrize(
    ("names", "culprit"),
    [
        (("norm_a", "norm_b"), "norm_a"),
        (("bn3", "bn4"), "bn3"),
        (("bn1", "norm1"), "norm1"),
    ],
)
def test_batch_norm_without_a_layer_of_its_own_is_refused(names, culprit):
    state = {"fc1.weight": linear(3, 3), "fc2.weight": linear(3, 3)}
    state |= {**norm(names[0], 3), **norm(names[1], 3)}
    with pytest.raises(ModelError, match=f"cannot tell which layer the batch norm '{culprit}'"):
        read_graph(state)


def test_pruned_weights_are_masked():
    mask = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], dtype=np.float32)
    state = {
        "0.bias": np.ones(3),
        "0.weight_orig": linear(2, 3),
        "0.weight_mask": mask,
        "2.weight": linear(3, 2),
    }
    graph = read_graph(state)
    assert layers_of(graph) == [("input", 2), ("0", 3), ("2", 2)]
    assert_array_equal(dense(graph, 0), np.abs(state["0.weight_orig"] * mask).T)


def test_layer_norm_is_noted():
    state = {"a.weight": linear(2, 3), "ln.weight": np.ones(3), "b.weight": linear(3, 2)}
    (item,) = read_graph(state).left_out
    assert (item.name, item.shape) == ("ln", (3,))
    assert "not folded" in item.reason


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model"])
def test_checkpoints_are_unwrapped(key):
    state = {"a.weight": linear(2, 3), "b.weight": linear(3, 2)}
    checkpoint = {"epoch": 3, "optimizer": {"state": {}}, key: state}
    assert layers_of(read_graph(checkpoint)) == [("input", 2), ("a", 3), ("b", 2)]


def test_layers_chooses_and_orders():
    state = {
        "policy.weight": linear(3, 2),
        "memory.weight_ih": linear(3, 9),
        "second.weight": linear(3, 3),
        "first.weight": linear(4, 3),
        "value.weight": linear(3, 1),
    }
    graph = read_graph(state, layers=["first.weight", "second", "policy.weight"])
    assert layers_of(graph) == [("input", 4), ("first", 3), ("second", 3), ("policy", 2)]
    assert_array_equal(dense(graph, 2), np.abs(state["policy.weight"]).T)
    assert [item.name for item in graph.left_out] == ["memory.weight_ih", "value"]


def test_layers_keeps_the_batch_norm_of_a_chosen_layer():
    state = {"a.weight": linear(2, 3), **norm("bn", 3), "b.weight": linear(3, 2)}
    state |= {"c.weight": linear(3, 4)}
    graph = read_graph(state, layers=["a", "c"])
    assert_allclose(dense(graph, 0), np.abs(state["a.weight"]).T * factor(state, "bn"), rtol=1e-6)


CHAIN = {"a.weight": np.ones((3, 2)), "b.weight": np.ones((2, 3))}


@pytest.mark.parametrize(
    ("arrays", "options", "error", "message"),
    [
        ({}, {}, ModelError, "no weights found"),
        ({"b0": np.ones(3), "n": 2}, {}, ModelError, r"no weights found among 'b0' \(3,\)"),
        ({"w0": np.ones((2, 3))}, {}, InputError, "at least two weight layers.*'w0'"),
        (
            {"w0": np.ones((2, 3)), "w1": np.ones((4, 5))},
            {},
            ModelError,
            r"'w1' reads 4 values, but 'w0' before it gives 3.*'w0' \(2 -> 3\), "
            r"'w1' \(4 -> 5\).*layers=\[\"w0\", ...\]",
        ),
        (CHAIN | {"rnn.weight_ih_l0": np.ones((2, 2))}, {}, ModelError, "'rnn.weight_ih_l0'"),
        (CHAIN | {"pos": np.ones((2, 2))}, {}, ModelError, r"'pos' \(2, 2\).*layers=\["),
        (
            {"a.parametrizations.weight.original": np.ones((2, 2))},
            {},
            ModelError,
            "no weights found",
        ),
        (
            {"l.q_proj.weight": np.ones((2, 2)), "l.k_proj.weight": np.ones((2, 2))},
            {},
            ModelError,
            "'l.q_proj', 'l.k_proj' by their names belong to a network that is not a chain",
        ),
        ({"w": np.ones((2,) * 6), "v": np.ones((2, 2))}, {}, ModelError, "'w'"),
        (CHAIN, {"layers": ["a", "c"]}, InputError, r"layers: no 'c' in .*'a' \(2 -> 3\)"),
        (CHAIN, {"layers": ["a", "a.weight"]}, InputError, "stands twice"),
        (CHAIN, {"layers": "a"}, InputError, "must be a list"),
        (CHAIN, {"layers": []}, InputError, "must be a list"),
        (CHAIN, {"layers": ["a", "b", "a"]}, InputError, "stands twice"),
        (
            {"a": np.ones((2, 3)), "b": np.ones((4, 2))},
            {"layers": ["a", "b"]},
            InputError,
            "'b' reads 4 values, but 'a' before it gives 3",
        ),
        ({"a": np.ones((2, 2)), "b": np.ones((2, 2)) > 0}, {}, InputError, "'b'.*dtype bool"),
    ],
)
def test_errors(arrays, options, error, message):
    with pytest.raises(error, match=message):
        read_graph(arrays, **options)


def test_module_and_its_state_dict_give_the_same_graph():
    torch = pytest.importorskip("torch", reason="pip install 'ncut[torch]'")
    nn = torch.nn
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=4), nn.ReLU(),
        nn.Flatten(), nn.Linear(16, 3), nn.BatchNorm1d(3), nn.Linear(3, 2),
    )  # fmt: skip
    model[1].running_var.uniform_(0.5, 2.0)
    model[7].running_var.uniform_(0.5, 2.0)
    from_module = read_graph(model, scope="all")
    from_arrays = read_graph(model.state_dict(), scope="all")
    assert layers_of(from_module) == layers_of(from_arrays)
    for number in range(4):
        assert_array_equal(dense(from_module, number), dense(from_arrays, number))


# --- quantized weights, copies, norms in front, checkpoints ------------------------------------


def perceptron(rng, *sizes):
    """A state dict of linear layers."""
    pairs = pairwise(sizes)
    return {
        f"{at}.weight": rng.normal(size=(n_out, n_in)) for at, (n_in, n_out) in enumerate(pairs)
    }


def test_rows_of_8_bits_get_their_scales():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(5, 6)) * np.array([1, 10, 100, 1000, 1.0])[:, None]
    scale = np.abs(rows).max(axis=1)
    narrow = np.round(rows / scale[:, None] * 127).astype(np.int8)
    state = {"0.weight": narrow, "0.SCB": scale, "2.weight": rng.normal(size=(4, 5))}
    graph = read_graph(state)
    expected = np.abs(narrow.T * scale / 127)
    assert_allclose(graph.blocks[0].weights, expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
@pytest.mark.parametrize("name", ["0.weight", "w0"])
def test_weights_of_8_bits_without_scales_are_refused(dtype, name):
    with pytest.raises(ModelError, match=f"{name[:1]}.* are quantized"):
        read_graph(
            {name: np.ones((5, 6), dtype), "1.weight" if "." in name else "w1": np.ones((4, 5))}
        )


@pytest.mark.parametrize(
    ("first", "second", "factor"),
    [
        ("online_model.", "ema_model.", 0.9), ("net.", "net_ema.", 0.99), ("a.", "b.", 0.9),
        ("x.student.", "x.teacher.", -1.0),
    ],
)  # fmt: skip
def test_a_network_beside_its_average_is_refused(first, second, factor):
    own = perceptron(np.random.default_rng(0), 6, 8, 6)
    state = {f"{first}{k}": v for k, v in own.items()}
    state |= {f"{second}{k}": factor * v for k, v in own.items()}
    with pytest.raises(ModelError, match=r"one is a copy of the other.*layers=\["):
        read_graph(state)
    names = [f"{first}0.weight", f"{first}1.weight"]
    assert [layer.size for layer in read_graph(state, layers=names).layers] == [6, 8, 6]


def test_parts_of_the_same_shapes_are_a_chain():
    rng = np.random.default_rng(0)
    state = {f"encoder.{k}": v for k, v in perceptron(rng, 6, 8, 6).items()}
    state |= {f"decoder.{k}": v for k, v in perceptron(rng, 6, 8, 6).items()}
    assert [layer.size for layer in read_graph(state).layers] == [6, 8, 6, 8, 6]


def test_a_batch_norm_before_the_first_layer_is_refused_where_it_fits_its_inputs():
    rng = np.random.default_rng(0)
    norm = {"weight": np.ones(6), "running_var": np.ones(6)}
    state = {}
    for at in (1, 2):
        state |= {f"bn{at}.{k}": v for k, v in norm.items()}
        state[f"conv{at}.weight"] = rng.normal(size=(6, 6, 3, 3))
    with pytest.raises(ModelError, match="'bn1' stands before the first layer 'conv1'"):
        read_graph(state, scope="all")


@pytest.mark.parametrize("key", ["ema", "net", "params", "model_state"])
def test_the_only_mapping_of_arrays_is_the_state_dict(key):
    state = perceptron(np.random.default_rng(0), 6, 5, 4)
    content = {key: state, "epoch": 3, "optimizer_state": {"state": {}, "param_groups": []}}
    assert [layer.size for layer in read_graph(content).layers] == [6, 5, 4]


def test_several_state_dicts_are_listed():
    state = perceptron(np.random.default_rng(0), 6, 5, 4)
    with pytest.raises(ModelError, match="several state dicts, 'generator', 'discriminator'"):
        read_graph({"generator": state, "discriminator": state})
