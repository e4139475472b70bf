"""activation_graph and correlate: numpy's correlations, planted modules, modules left as found."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from planted import N_GROUPS, PER_GROUP, activations, examples, planted

from ncut.errors import InputError
from ncut.extract import read_graph
from ncut.functional import activation_graph, correlate
from ncut.functional.record import record
from ncut.spectral import normalized_cut
from ncut.spectral.agreement import adjusted_rand_index
from ncut.types import Layer

torch = pytest.importorskip("torch", reason="pip install 'ncut[torch]'")
from torch import nn  # noqa: E402

TWO = (Layer("input", 0, 3, read_by=("w0",)), Layer("w0", 3, 2))


def correlations(values: np.ndarray) -> np.ndarray:
    expected = np.abs(np.corrcoef(values, rowvar=False))
    np.fill_diagonal(expected, 0)
    return expected


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_edges_are_numpys_correlations(dtype: Any, scale: float) -> None:
    values = (scale * np.random.default_rng(0).normal(size=(9, 5))).astype(dtype)
    graph = activation_graph(None, TWO, activations=[values[:, :3], values[:, 3:]])
    dense = graph.adjacency.toarray()
    assert_allclose(dense, correlations(values.astype(np.float64)), rtol=1e-9, atol=1e-12)
    assert_array_equal(dense, dense.T)


def test_constant_neurons_have_no_edges() -> None:
    values = np.random.default_rng(1).normal(size=(50, 5)).astype(np.float32)
    values[:, 1] = 0.1
    values[:, 3] = np.where(np.arange(50) < 20, np.float32(3), np.nextafter(np.float32(3), 4))
    graph = activation_graph(None, TWO, activations=[values[:, :3], values[:, 3:]])
    dense = graph.adjacency.toarray()
    assert_array_equal(np.flatnonzero(dense.any(axis=1)), [0, 2, 4])
    others = [0, 2, 4]
    assert_allclose(dense[np.ix_(others, others)], correlations(values[:, others]), rtol=1e-5)


def test_equal_neurons_have_an_edge_of_one() -> None:
    values = np.repeat(np.random.default_rng(2).normal(size=(20, 1)), 5, axis=1)
    values[:, 1] *= -7
    dense = activation_graph(None, TWO, activations=[values[:, :3], values[:, 3:]]).adjacency
    assert dense.max() <= 1
    assert_allclose(dense.toarray(), 1 - np.eye(5), atol=1e-12)


def mlp() -> Any:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Dropout(0.5),
        nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3), nn.LogSoftmax(1),
    )  # fmt: skip


def convnet() -> Any:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 6, 2), nn.ReLU(),
        nn.MaxPool2d(2), nn.Dropout(), nn.Flatten(), nn.Linear(6 * 4, 5), nn.ReLU(),
        nn.Linear(5, 3),
    )  # fmt: skip


def test_a_multilayer_perceptron() -> None:
    torch.manual_seed(0)
    model = mlp()
    model[2].running_mean += 0.3
    layers = read_graph(model).layers
    batch = torch.randn(11, 2, 3)
    ours = record(model, layers, batch)
    assert model.training
    model.eval()
    with torch.no_grad():
        expected = [model[:stop](batch).numpy() for stop in (1, 5, 7, 8)]
    for values, theirs in zip(ours, expected, strict=True):
        assert_array_equal(values, theirs)
    dense = activation_graph(model, layers, batch).adjacency.toarray()
    values = np.concatenate(expected, axis=1).astype(np.float64)
    constant = np.ptp(values, axis=0) == 0
    assert not dense[constant].any()
    varying = np.flatnonzero(~constant)
    assert_allclose(dense[np.ix_(varying, varying)], correlations(values[:, varying]), rtol=1e-6)


def test_channels_are_averaged_over_positions() -> None:
    torch.manual_seed(1)
    model = convnet().double()
    batch = torch.randn(8, 2, 5, 5).double()
    layers = read_graph(model, scope="all").layers
    ours = record(model, layers, batch)
    model.eval()
    with torch.no_grad():
        maps = [batch, model[:2](batch), model[:5](batch)]
        flat = [model[:9](batch), model(batch)]
    expected = [value.mean((2, 3)).numpy() for value in maps] + [value.numpy() for value in flat]
    for values, theirs in zip(ours, expected, strict=True):
        assert_allclose(values, theirs, rtol=1e-12, atol=1e-15)
    paper = record(model, read_graph(model).layers, batch)
    assert_array_equal(paper[0], ours[1])
    assert_array_equal(paper[1], ours[2])


def test_a_convolution_that_nothing_reads() -> None:
    torch.manual_seed(2)
    model = nn.Sequential(nn.Conv1d(2, 3, 2), nn.ReLU(), nn.Conv1d(3, 4, 2)).double()
    batch = torch.randn(5, 2, 7).double()
    with torch.no_grad():
        expected = model(batch).mean(2).numpy()
        single = model(batch[0]).mean(1).numpy()
    layers = read_graph(model).layers
    assert_allclose(record(model, layers, batch)[-1], expected, rtol=1e-12)
    assert_allclose(record(model, layers, batch[0])[-1], single[None], rtol=1e-12)


def test_further_axes_of_a_linear_layer_are_examples() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    layers = read_graph(model).layers
    batch = torch.randn(5, 7, 3)
    together = activation_graph(model, layers, batch).adjacency.toarray()
    apart = activation_graph(model, layers, batch.reshape(35, 3)).adjacency.toarray()
    assert_allclose(together, apart, rtol=1e-5, atol=1e-7)


def test_several_arguments() -> None:
    class Tempered(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(3, 4)
            self.b = nn.Linear(4, 2)

        def forward(self, x: Any, temperature: float | None = None) -> Any:
            x = torch.relu(self.a(x))
            return self.b(x if temperature is None else x / temperature)

    model = Tempered()
    layers = read_graph(model).layers
    batch = torch.randn(5, 3)
    assert_allclose(
        record(model, layers, (batch, 4.0))[1], record(model, layers, (batch,))[1] / 4, rtol=1e-6
    )
    assert_array_equal(
        record(nn.DataParallel(model), layers, batch)[1], record(model, layers, batch)[1]
    )


def test_the_module_is_left_unchanged() -> None:
    model = mlp().train()
    model[4].eval()
    modes = [part.training for part in model.modules()]
    layers = read_graph(model).layers
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    record(model, layers, torch.randn(4, 6))
    with pytest.raises(RuntimeError):
        record(model, layers, torch.randn(4, 9))
    assert [part.training for part in model.modules()] == modes
    for part in model.modules():
        assert not part._forward_pre_hooks
        assert not part._forward_hooks
    assert all(torch.equal(value, buffers[name]) for name, value in model.named_buffers())


class Twice(nn.Module):
    """The second layer reads the flattened channels, and then its own output."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv1d(1, 2, 1)
        self.b = nn.Conv1d(2, 2, 1)
        self.twice = nn.Linear(6, 6)

    def forward(self, x: Any) -> Any:
        return self.twice(self.twice(self.b(torch.relu(self.a(x))).flatten(1)))


def test_modules_called_twice_are_refused() -> None:
    model = Twice()
    layers = read_graph(model).layers
    assert [layer.read_by for layer in layers] == [("b",), ("twice",)]
    with pytest.raises(InputError, match="called more than once"):
        activation_graph(model, layers, torch.randn(4, 1, 3))
    with pytest.raises(InputError, match="reads the values of several layers"):
        activation_graph(model, read_graph(model, scope="all").layers, torch.randn(4, 1, 3))


LINEAR = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 2))
LINEAR_LAYERS = read_graph(LINEAR).layers
VALUES = np.random.default_rng(3).normal(size=(6, 5))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "give one of the two"),
        ({"inputs": torch.ones(4, 3), "activations": [VALUES]}, "give one of the two"),
        ({"inputs": torch.randn(2, 3)}, "2 examples are too few"),
        ({"inputs": torch.ones(4, 3)}, "no two neurons vary"),
        ({"inputs": [torch.ones(4, 3)]}, "must be a tensor"),
        ({"inputs": torch.full((4, 3), torch.nan)}, "not all finite"),
        ({"model": [np.ones((3, 2))], "inputs": torch.ones(4, 3)}, "list cannot be run"),
        ({"model": nn.Linear(3, 2), "inputs": torch.ones(4, 3)}, "has no module '0'"),
        ({"activations": [VALUES[:, :3]]}, "1 arrays for 3 layers"),
        ({"activations": [VALUES[:, :3], VALUES, VALUES[:, 3:]]}, "layer '0' have shape"),
        ({"activations": [VALUES[:, :3], VALUES[:4, 3:], VALUES[:, 3:]]}, "different numbers"),
        ({"activations": [VALUES[:, :3], VALUES[:, 3:].astype(str), VALUES[:, 3:]]}, "layer '0'"),
    ],
)
def test_refused(arguments: dict[str, Any], message: str) -> None:
    given = {"model": LINEAR, "layers": LINEAR_LAYERS} | arguments
    with pytest.raises(InputError, match=message):
        activation_graph(**given)


def test_a_layer_that_the_forward_pass_leaves_out() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    layers = read_graph(model).layers
    model.forward = lambda x: model[0](x)  # type: ignore[method-assign]
    with pytest.raises(InputError, match="does not use layer '0'"):
        activation_graph(model, layers, torch.randn(4, 3))


# correlate


def test_planted_modules_fire_together() -> None:
    weights, layers, labels = planted()
    found = correlate(
        weights, layers, labels, N_GROUPS, activations=activations(weights, examples(100)), seed=1
    )
    assert found.adjusted_rand_index == 1
    assert found.within_layers == (1, 1, 1, 1)
    assert found.layers == ("input", "w0", "w1", "w2")
    assert found.p_value == pytest.approx(1 / 201)
    assert found.ncut == found.weight_partition_ncut < N_GROUPS / 2
    assert (found.n_compared, found.n_examples, found.k) == (4 * 24, 100, N_GROUPS)
    assert found.permuted.shape == (200,)
    assert abs(found.permuted.mean()) < 0.05
    text = str(found)
    assert max(map(len, text.splitlines())) <= 80
    assert "adjusted Rand index of both 1.000 over 96 neurons" in text


def test_clusters_of_unrelated_neurons_do_not_agree() -> None:
    _, layers, labels = planted()
    values = np.random.default_rng(4).normal(size=(60, labels.size))
    arrays = [values[:, layer.slice] for layer in layers]
    found = correlate(None, layers, labels, N_GROUPS, activations=arrays)
    assert abs(found.adjusted_rand_index) < 0.15
    assert found.p_value > 0.01
    assert found.weight_partition_ncut > found.ncut
    graph = activation_graph(None, layers, activations=arrays)
    assert found.weight_partition_ncut == normalized_cut(graph, labels)
    assert found.ncut == pytest.approx(normalized_cut(graph, found.labels))
    assert found.adjusted_rand_index == adjusted_rand_index(labels, found.labels)


def test_agreement_of_layers_with_layers_is_not_significant() -> None:
    _, layers, _ = planted()
    rng = np.random.default_rng(5)
    by_layer = np.repeat(np.arange(4), 24)
    values = 0.3 * rng.normal(size=(50, 96)) + rng.normal(size=(50, 4))[:, by_layer]
    arrays = [values[:, layer.slice] for layer in layers]
    found = correlate(None, layers, by_layer, 4, activations=arrays)
    assert found.adjusted_rand_index == 1
    assert found.p_value == 1


def test_vertices_without_edges_in_either_graph_are_left_out() -> None:
    weights, layers, labels = planted()
    arrays = activations(weights, examples(100))
    labels[:PER_GROUP] = -1
    labels[30] = -1
    arrays[2][:, 3] = 7.0
    arrays[3][:, 1:] = 0.0
    found = correlate(weights, layers, labels, N_GROUPS, activations=arrays)
    outside = {*range(PER_GROUP), 30, 51, *range(73, 96)}
    assert set(np.flatnonzero(found.labels < 0).tolist()) == outside
    assert found.n_compared == 96 - len(outside)
    assert found.adjusted_rand_index == 1
    assert found.ncut == pytest.approx(found.weight_partition_ncut)
    assert found.within_layers == (1, 1, 1, None)
    assert "w2 -" in str(found)


def test_the_seed_determines_the_result_on_any_threads() -> None:
    torch.manual_seed(6)
    model = mlp()
    layers = read_graph(model).layers
    labels = np.random.default_rng(0).integers(0, 2, 18)
    batch = torch.randn(30, 6)
    runs = [
        correlate(model, layers, labels, 3, batch, seed=seed, threads=threads, n_init=5)
        for seed, threads in ((3, 1), (3, 2), (4, 1))
    ]
    assert_array_equal(runs[0].labels, runs[1].labels)
    assert_array_equal(runs[0].permuted, runs[1].permuted)
    assert runs[0].ncut == runs[1].ncut
    assert (runs[0].permuted != runs[2].permuted).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [({"k": 1}, "k: must be"), ({"labels": [0]}, "labels"), ({"seed": -1}, "seed")],
)
def test_correlate_refuses(options: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"labels": [0] * 7, "k": 2, "inputs": torch.randn(9, 3)}
    with pytest.raises(InputError, match=message):
        correlate(LINEAR, LINEAR_LAYERS, **(given | options))
