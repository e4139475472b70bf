"""Graphs as functions of live weights, against ncut.graph; gradients, against differences."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from models import (
    IMAGE,
    Residual,
    Tied,
    batch_norm_cnn,
    cnn,
    drawn,
    mlp,
    move_,
    transformer,
    transposed_cnn,
)
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrizations, prune

import ncut
from ncut.training.live_graph import LiveGraph, live_graphs


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


MODELS: dict[str, tuple[Callable[[], nn.Module], dict[str, Any]]] = {
    "mlp": (lambda: mlp(6, 9, 7, 5), {}),
    "batch norm": (batch_norm_cnn, {}),
    "batch norm of flattened": (
        lambda: drawn(
            nn.Sequential(
                nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(),
                nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.BatchNorm1d(16), nn.Linear(16, 3),
            )
        ),
        {},
    ),
    "no running statistics": (
        lambda: cnn(
            nn.BatchNorm2d(8, track_running_stats=False), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU()
        ),
        {},
    ),
    "two batch norms": (
        lambda: cnn(nn.BatchNorm2d(8), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3)),
        {},
    ),
    "group norm": (
        lambda: cnn(nn.GroupNorm(2, 8), nn.ReLU(), nn.Conv2d(8, 6, 3, groups=2), nn.ReLU()),
        {},
    ),
    "transposed": (transposed_cnn, {}),
    "residual": (Residual, IMAGE),
    "residual, norm first": (lambda: Residual(before=True), IMAGE),
    "tied": (Tied, {}),
    **{
        name: (lambda name=name: transformer(name), {})  # type: ignore[misc]
        for name in ("gpt2", "bert", "llama", "vit")
    },
}  # fmt: skip
WAYS = [("readers", "all", "l1"), ("stream", "all", "l2"), ("readers", "paper", "column-sum")]


def adjacency(graph: LiveGraph) -> NDArray[np.float64]:
    """The whole matrix, layers in order."""
    found = np.zeros((graph.n, graph.n))
    for block in graph.edge_weights():
        values = block.weights.detach().abs().double().numpy()
        if block.rows is not None and block.columns is not None:
            np.add.at(found, (block.rows.numpy(), block.columns.numpy()), values)
        else:
            rows = slice(block.first_row, block.first_row + values.shape[0])
            columns = slice(block.first_column, block.first_column + values.shape[1])
            found[rows, columns] += values
    order = np.concatenate(
        [np.arange(layer.start, layer.start + layer.size) for layer in graph.layers]
    )
    return (found + found.T)[np.ix_(order, order)]


def assert_same(live: LiveGraph, model: nn.Module, rtol: float = 1e-5, **options: Any) -> None:
    expected = ncut.graph(model, **options)
    assert [layer.name for layer in live.layers] == [layer.name for layer in expected.layers]
    whole = expected.adjacency.toarray()
    np.testing.assert_allclose(adjacency(live), whole, rtol=rtol, atol=rtol * whole.max())


def live_graph(model: nn.Module, **options: Any) -> LiveGraph:
    (graph,) = live_graphs(model, apart=False, **options)
    return graph


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_live_graph_is_that_of_the_weights_as_they_are(name: str, way: tuple[str, ...]) -> None:
    make, more = MODELS[name]
    model = make().eval()
    options = {**more, **dict(zip(("residual", "scope", "norm"), way, strict=True))}
    live = live_graph(model, **options)
    assert_same(live, model, **options)
    move_(model)
    assert_same(live, model, **options)


@pytest.mark.parametrize("name", ["mlp", "batch norm", "transposed", "residual", "llama"])
def test_live_graph_follows_types_and_pruning(name: str) -> None:
    make, more = MODELS[name]
    model = make().eval()
    live = live_graph(model, scope="all", **more)
    model.double()
    more = {key: value.double() for key, value in more.items()}
    assert_same(live, model, rtol=1e-6, scope="all", **more)
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            prune.random_unstructured(module, "weight", 0.4)
    assert_same(live, model, scope="all", **more)
    assert_same(live_graph(model, scope="all", **more), model, scope="all", **more)
    move_(model)
    assert_same(live, model, scope="all", **more)


def test_pruned_scales_of_batch_norms_are_followed() -> None:
    model = cnn(nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU()).eval()
    live = live_graph(model, scope="all")
    prune.random_unstructured(model[1], "weight", 0.4)
    assert_same(live, model, scope="all")
    assert_same(live_graph(model, scope="all"), model, scope="all")


class Grouped(nn.Module):
    """A grouped convolution between two others, with what may surround it.

    Parameters
    ----------
    channels, groups : int
    around : str
        "residual": added to its input. "norm": a batch norm before it. "halves": its output is
        the sum of two halves. "copies": it reads each of its inputs twice. "" : nothing.
    """

    def __init__(self, channels: int, groups: int, around: str) -> None:
        super().__init__()
        self.around = around
        n_in = channels // 2 if around == "copies" else channels
        n_out = channels * 2 if around == "halves" else channels
        self.first = nn.Conv2d(3, n_in, 1)
        self.before = nn.BatchNorm2d(n_in)
        self.middle = nn.Conv2d(channels, n_out, 3, padding=1, groups=groups)
        self.after = nn.BatchNorm2d(n_out)
        self.last = nn.Conv2d(channels, 4, 1)
        drawn(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        if self.around == "norm":
            x = self.before(x)
        y = self.after(self.middle(torch.cat([x, x], 1) if self.around == "copies" else x))
        if self.around == "residual":
            y = x + y
        if self.around == "halves":
            y = sum(y.chunk(2, 1))
        return self.last(y.relu())  # type: ignore[no-any-return]


@pytest.mark.parametrize("around", ["", "residual", "norm", "halves", "copies"])
@pytest.mark.parametrize(("channels", "groups"), [(20, 20), (20, 2), (270, 90), (270, 270)])
@pytest.mark.parametrize(("residual", "norm"), [("readers", "l1"), ("stream", "l2")])
def test_grouped_convolutions(
    channels: int, groups: int, around: str, residual: str, norm: str
) -> None:
    if around == "copies":
        groups = min(groups, channels // 2)
    model = Grouped(channels, groups, around).eval()
    options = {"residual": residual, "norm": norm, "scope": "all", **IMAGE}
    live = live_graph(model, **options)
    assert_same(live, model, **options)
    move_(model)
    assert_same(live, model, **options)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened(dtype: torch.dtype) -> None:
    model = cnn(nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU()).eval().to(dtype)
    live = live_graph(model, scope="all")
    assert {block.weights.dtype for block in live.edge_weights()} == {torch.float32}
    assert_same(live, model, rtol=1e-2, scope="all")
    assert_same(live, copy.deepcopy(model).float(), scope="all")  # exactly these weights


def test_memory_in_another_order() -> None:
    model = cnn(nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU())
    model = model.to(memory_format=torch.channels_last).eval()
    live = live_graph(model, scope="all")
    assert_same(live, model, scope="all")
    move_(model)
    assert_same(live, model, scope="all")
    linear = mlp(6, 8, 5)
    linear[0].weight = nn.Parameter(torch.randn(6, 8).T)
    assert_same(live_graph(linear), linear)


def test_channels_last_after_reading() -> None:
    model = transposed_cnn().eval()
    live = live_graph(model, scope="all")
    model.to(memory_format=torch.channels_last)
    assert_same(live, model, scope="all")


def _weight_norm_by_hook(module: nn.Module) -> nn.Module:
    with pytest.warns(FutureWarning):
        return nn.utils.weight_norm(module)


PARAMETRIZATIONS = {
    "weight norm": parametrizations.weight_norm,
    "weight norm by a hook": _weight_norm_by_hook,
    "spectral norm": parametrizations.spectral_norm,
    "spectral norm by a hook": nn.utils.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
}


@pytest.mark.parametrize("which", [0, 2, 4])
@pytest.mark.parametrize("name", PARAMETRIZATIONS)
def test_parametrized_weights(name: str, which: int) -> None:
    model = mlp(6, 8, 7, 5)
    PARAMETRIZATIONS[name](model[which])
    model.eval()
    x = torch.randn(3, 6)
    before = model(x)
    live = live_graph(model)
    assert torch.equal(model(x), before)  # the model itself is as it was
    weights = [model[at].weight.detach().clone() for at in (0, 2, 4)]
    plain = mlp(6, 8, 7, 5)
    for at, weight in zip((0, 2, 4), weights, strict=True):
        plain[at].weight.data = weight
    np.testing.assert_allclose(adjacency(live), adjacency(live_graph(plain)), rtol=1e-5, atol=1e-6)
    sum(block.weights.abs().sum() for block in live.edge_weights()).backward()  # type: ignore[union-attr]
    trained = [parameter for parameter in model[which].parameters() if parameter.ndim > 1]
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in trained)


@pytest.mark.parametrize("training", [True, False])
def test_reading_changes_nothing(training: bool) -> None:
    model = batch_norm_cnn().train(training)
    before = copy.deepcopy(model.state_dict())
    names = [name for name, _ in model.named_parameters()]
    for options in ({}, {"example_inputs": torch.randn(2, 3, 12, 12)}):
        live_graphs(model, scope="all", **options)  # type: ignore[arg-type]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert names == [name for name, _ in model.named_parameters()]
    assert all(module.training is training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert model[6].weight is None
    assert not model[6].affine


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mlp", {}),
        ("mlp", {"norm": "l2"}),
        ("batch norm", {"scope": "all"}),
        ("batch norm", {"scope": "all", "norm": "l2"}),
        ("batch norm", {"norm": "column-sum"}),
        ("residual", {"residual": "readers", "scope": "all"}),
        ("residual", {"residual": "stream", "scope": "all"}),
        ("transposed", {"scope": "all"}),
        ("tied", {}),
        ("gpt2", {"residual": "readers"}),
        ("llama", {"residual": "readers"}),
        ("vit", {"residual": "readers"}),
    ],
    ids=str,
)
def test_gradients_match_differences(name: str, options: dict[str, Any]) -> None:
    make, more = MODELS[name]
    model = make().eval().double()
    options = {**options, **{key: value.double() for key, value in more.items()}}
    which = (2, 3, 4, 5)

    def value() -> Tensor:
        return ncut.laplacian_eigenvalues(model, which, **options).sum()

    value().backward()
    known = [p for p in model.parameters() if p.grad is not None and p.grad.any()]
    vectors = [p for p in known if p.ndim == 1]
    assert any(p.ndim > 1 for p in known)
    generator = torch.Generator().manual_seed(0)
    for group in (known, vectors):
        if group:
            _assert_slope(value, group, generator)
    with_scale = {"batch norm", "residual", "gpt2", "llama", "vit"}
    if name in with_scale and options.get("norm") != "column-sum":
        assert vectors


def _assert_slope(
    value: Callable[[], Tensor], parameters: Sequence[Tensor], generator: torch.Generator
) -> None:
    """The gradient against a central difference along a random direction."""
    along = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]
    # Along the signs of the gradient the slope is large: nothing cancels.
    along = [a.abs() * p.grad.sign() for a, p in zip(along, parameters, strict=True)]  # type: ignore[union-attr]
    slope = sum(float((a * p.grad).sum()) for a, p in zip(along, parameters, strict=True))
    step, found = 1e-6, []
    for sign in (1, -1):
        _shift(parameters, along, sign * step)
        with torch.no_grad():
            found.append(float(value()))
        _shift(parameters, along, -sign * step)
    assert (found[0] - found[1]) / (2 * step) == pytest.approx(slope, rel=1e-5)


def _shift(parameters: Sequence[Tensor], along: Sequence[Tensor], step: float) -> None:
    with torch.no_grad():
        for parameter, direction in zip(parameters, along, strict=True):
            parameter.add_(direction, alpha=step)


def test_weights_outside_the_graph_get_no_gradient() -> None:
    model = batch_norm_cnn()
    ncut.laplacian_eigenvalues(model, scope="paper").sum().backward()
    assert model[-1].weight.grad is None
    assert model[3].weight.grad is not None
    assert all(p.grad is None for name, p in model.named_parameters() if name.endswith("bias"))
    chosen = mlp(6, 9, 7, 5)
    ncut.laplacian_eigenvalues(chosen, layers=["2", "4"]).sum().backward()
    assert chosen[0].weight.grad is None
    assert chosen[2].weight.grad.any()


def test_pruned_weights_get_no_gradient() -> None:
    model = mlp(6, 9, 7, 5)
    prune.random_unstructured(model[2], "weight", 0.5)
    ncut.laplacian_eigenvalues(model).sum().backward()
    slope, mask = model[2].weight_orig.grad, model[2].weight_mask
    assert not slope[mask == 0].any()
    assert slope[mask == 1].all()


def _eigenvalues(graph: ncut.NeuronGraph, which: Sequence[int]) -> NDArray[np.float64]:
    """By LAPACK, of the vertices with edges."""
    whole = graph.adjacency.toarray()
    degrees = whole.sum(1)
    used = degrees > 0
    scale = 1 / np.sqrt(degrees[used])
    found = np.linalg.eigvalsh(scale[:, None] * whole[np.ix_(used, used)] * scale)[::-1]
    return 1 - found[np.asarray(which) - 1]


@pytest.mark.parametrize("shapes", [
    [(5, 8), (8, 4)],
    [(50, 60), (60, 40), (40, 3)],
    [(8, 3, 3, 3), (6, 8, 3, 3), (6, 4)],
    [(8, 3, 3), (8, 1, 3), (6, 8, 1), (24, 5)],
], ids=str)  # fmt: skip
def test_lists_of_tensors_are_read_as_lists_of_arrays(shapes: list[tuple[int, ...]]) -> None:
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]
    weights = [weight.requires_grad_() for weight in weights]
    which = (2, 3, 4, 6)
    graph = ncut.graph([weight.detach().numpy() for weight in weights], scope="all")
    found = ncut.laplacian_eigenvalues(weights, which, scope="all")
    np.testing.assert_allclose(found.detach().numpy(), _eigenvalues(graph, which), atol=1e-8)

    def value() -> Tensor:
        return ncut.laplacian_eigenvalues(lambda: weights, which, scope="all").sum()

    value().backward()
    _assert_slope(value, weights, generator)


def test_triples_of_a_graph_with_a_cycle() -> None:
    generator = torch.Generator().manual_seed(0)
    sizes = {7: 20, 3: 30, 5: 10}
    pairs = [(7, 3), (3, 5), (7, 5)]
    triples = [
        (a, b, torch.randn(sizes[a], sizes[b], generator=generator, dtype=torch.float64))
        for a, b in pairs
    ]
    weights = [matrix.requires_grad_() for _, _, matrix in triples]
    starts = {7: 0, 3: 20, 5: 50}
    whole = np.zeros((60, 60))
    for a, b, matrix in triples:
        rows = slice(starts[a], starts[a] + sizes[a])
        columns = slice(starts[b], starts[b] + sizes[b])
        whole[rows, columns] = matrix.detach().abs().numpy()
    whole += whole.T
    scale = 1 / np.sqrt(whole.sum(1))
    expected = 1 - np.linalg.eigvalsh(scale[:, None] * whole * scale)[::-1]
    found = ncut.laplacian_eigenvalues(triples, (1, 2, 3, 9))
    np.testing.assert_allclose(found.detach().numpy(), expected[[0, 1, 2, 8]], atol=1e-8)
    found.sum().backward()
    _assert_slope(lambda: ncut.laplacian_eigenvalues(triples, (2, 3, 9)).sum(), weights, generator)


def test_isolated_neurons_have_zero_gradient() -> None:
    first, second = torch.rand(40, 30), torch.rand(30, 20)
    first[:, 4], second[4] = 0, 0
    weights = [first.requires_grad_(), second.requires_grad_()]
    ncut.laplacian_eigenvalues(weights).sum().backward()
    assert not first.grad[:, 4].any()  # type: ignore[index]
    assert torch.isfinite(first.grad).all()  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [6, 60])
def test_too_few_vertices_with_edges(size: int) -> None:
    weights = torch.zeros(size, size)
    weights[:2, 0] = 1
    found = ncut.laplacian_eigenvalues([(0, 1, weights)], (2, 3))  # a path of three vertices
    np.testing.assert_allclose(found, [1, 2], atol=1e-6)
    with pytest.raises(ncut.InputError, match="which"):
        ncut.laplacian_eigenvalues([(0, 1, weights)], (2, 3, 4))


MATRIX = torch.rand(4, 4)


@pytest.mark.parametrize(("weights", "options", "match"), [
    (7, {}, "weights"),
    (lambda: 7, {}, "weights"),
    ([], {}, "weights"),
    ([MATRIX, None], {}, "weights"),
    ([MATRIX.numpy()] * 2, {}, "weights"),
    ([MATRIX.to(torch.complex64)] * 2, {}, "weights"),
    ([MATRIX.long()] * 2, {}, "weights"),
    ([MATRIX[0]] * 2, {}, "weights"),
    ([MATRIX, torch.rand(5, 3)], {}, "w1"),
    ([MATRIX] * 2, {"which": 3}, "which"),
    ([MATRIX] * 2, {"which": ()}, "which"),
    ([MATRIX] * 2, {"which": (0, 2)}, "which"),
    ([MATRIX] * 2, {"which": (2.5,)}, "which"),
    ([MATRIX] * 2, {"which": (16,)}, "which"),
    ([MATRIX] * 2, {"which": (13,)}, "which"),
    ([MATRIX] * 2, {"norm": "l3"}, "norm"),
    ([MATRIX] * 2, {"scope": "some"}, "scope"),
    ([MATRIX] * 2, {"layers": ["a"]}, "layers"),
    ([MATRIX] * 2, {"tolerance": -1.0}, "tolerance"),
    ([MATRIX * float("nan")] * 2, {}, "weights"),
    ([MATRIX * 0] * 2, {}, "weights"),
    ([(0, 0, MATRIX)], {}, "weights"),
    ([(0, 1, MATRIX[0])], {}, "weights"),
    ([(0, 1, MATRIX), (1, 2, torch.rand(3, 3))], {}, "weights"),
    (mlp(3, 4, 5), {"layers": "0"}, "layers"),
    (mlp(3, 4, 5), {"layers": ["9"]}, "layers"),
])  # fmt: skip
def test_errors_name_the_argument(weights: Any, options: dict[str, Any], match: str) -> None:
    with pytest.raises(ncut.InputError, match=match):
        ncut.laplacian_eigenvalues(weights, **options)


def test_parts_are_graphs_of_their_own() -> None:
    model = mlp(6, 9, 7, 5, 4)
    graphs = live_graphs(model, layers=["0", "6"])
    assert [[layer.size for layer in graph.layers] for graph in graphs] == [[6, 9], [5, 4]]
    for graph, weight in zip(graphs, (model[0].weight, model[6].weight), strict=True):
        n_in = weight.shape[1]
        found = adjacency(graph)[:n_in, n_in:]
        np.testing.assert_allclose(found, weight.detach().abs().numpy().T, rtol=1e-6)


def test_batch_norm_in_training_mode_is_read_with_its_running_statistics() -> None:
    model = batch_norm_cnn().train()
    live = live_graph(model, scope="all")
    model(torch.randn(8, 3, 12, 12))  # moves the statistics
    assert any(isinstance(module, _BatchNorm) for module in model)
    assert_same(live, model, scope="all")


# --- factors that are functions of parameters ---------------------------------------------------


class Scaled(nn.Module):
    """Neurons with a factor that is some function of a parameter."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.a, self.b, self.c = nn.Linear(12, 12), nn.Linear(12, 20), nn.Linear(20, 6)
        self.g = nn.Parameter(torch.zeros(12))

    def forward(self, x):
        return self.c(torch.relu(self.b(self.a(x) * self.function(self.g))))


FUNCTIONS = {
    "1 + g": lambda g: 1 + g,
    "exp": torch.exp,
    "square": lambda g: (g - 2) ** 2,
    "softplus": torch.nn.functional.softplus,
    "in place": lambda g: g.clone().add_(1).mul_(2),
    "normed": lambda g: (g + 1) / (g + 1).norm(),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_factors_are_functions_of_a_parameter(name):
    torch.manual_seed(0)
    model = Scaled(FUNCTIONS[name]).double()
    with torch.no_grad():
        model.g.copy_(torch.rand(12, dtype=torch.float64))
    found = ncut.laplacian_eigenvalues(model, (2, 3, 4)).detach()
    dense = torch.as_tensor(ncut.graph(model).adjacency.toarray())
    root = dense.sum(1).rsqrt()
    true = 1 - torch.linalg.eigvalsh(root[:, None] * dense * root).flip(0)[1:4]
    assert torch.allclose(found, true, atol=1e-6)
    # The gradient is that of the function, by finite differences of the whole.
    values = []
    for step in (1e-5, -1e-5):
        with torch.no_grad():
            model.g[3] += step
        values.append(float(ncut.laplacian_eigenvalues(model, (2, 3, 4)).detach().sum()))
        with torch.no_grad():
            model.g[3] -= step
    model.zero_grad()
    ncut.laplacian_eigenvalues(model, (2, 3, 4)).sum().backward()
    slope = (values[0] - values[1]) / 2e-5
    assert float(model.g.grad[3]) == pytest.approx(slope, rel=1e-3, abs=1e-7)


def test_a_factor_is_followed_after_the_graph_was_made():
    torch.manual_seed(0)
    model = Scaled(FUNCTIONS["exp"]).double()
    (graph,) = live_graphs(model)
    with torch.no_grad():
        model.g.copy_(torch.rand(12, dtype=torch.float64))
    blocks = sorted(float(block.weights.detach().abs().sum()) for block in graph.edge_weights())
    expected = sorted(float(block.weights.sum()) for block in ncut.graph(model).blocks)
    assert blocks == pytest.approx(expected, rel=1e-9)


def test_parameters_that_are_ones_are_followed_each_for_itself():
    class Normed(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 3)
            self.alpha, self.gamma = nn.Parameter(torch.ones(())), nn.Parameter(torch.ones(6))

        def forward(self, x):
            return self.b(self.alpha * torch.tanh(self.gamma * self.a(x)))

    model = Normed().double()
    (graph,) = live_graphs(model)
    with torch.no_grad():
        model.alpha.fill_(0.5)
        model.gamma.copy_(torch.arange(1.0, 7.0))
    blocks = sorted(float(block.weights.detach().abs().sum()) for block in graph.edge_weights())
    expected = sorted(float(block.weights.sum()) for block in ncut.graph(model).blocks)
    assert blocks == pytest.approx(expected, rel=1e-9)


class OfParameters(nn.Module):
    """A chain whose middle weights some function makes of parameters, at each step anew."""

    def __init__(self, function, *, kernel=()):
        super().__init__()
        self.function = function
        self.a, self.c = nn.Linear(12, 10), nn.Linear(8, 6)
        self.w = nn.Parameter(torch.randn(8, 10, *kernel))
        self.u, self.v = nn.Parameter(torch.randn(8, 2)), nn.Parameter(torch.randn(2, 10))
        self.register_buffer("mask", (torch.rand(8, 10) > 0.5).float())

    def forward(self, x):
        return self.c(torch.relu(self.function(self, torch.relu(self.a(x)))))


linear = nn.functional.linear
MADE = {
    "a low-rank update": lambda m, h: linear(h, m.w + 0.5 * m.u @ m.v),
    "a mask": lambda m, h: h @ (m.w * m.mask).T,
    "a norm written out": lambda m, h: linear(h, m.w / m.w.norm(dim=1, keepdim=True)),
    "a product from the left": lambda m, h: ((m.w + 1) @ h.T).T,
    "an exponential": lambda m, h: linear(h, torch.exp(m.w)),
    "signs and sizes": lambda m, h: linear(h, m.w.sign() * m.w.abs().mean(1, keepdim=True)),
}


@pytest.mark.parametrize("name", MADE)
def test_weights_are_functions_of_parameters(name):
    torch.manual_seed(0)
    model = OfParameters(MADE[name]).double()
    (graph,) = live_graphs(model, layers=None)
    with torch.no_grad():
        model.w.add_(torch.rand(8, 10, dtype=torch.float64))
        model.u.mul_(2)
    # Followed after the graph was made, equal to what is read anew.
    blocks = sorted(float(block.weights.detach().abs().sum()) for block in graph.edge_weights())
    expected = sorted(float(block.weights.sum()) for block in ncut.graph(model).blocks)
    assert blocks == pytest.approx(expected, rel=1e-9)
    values = []
    for step in (1e-5, -1e-5):
        with torch.no_grad():
            model.w[3, 4] += step
        values.append(float(ncut.laplacian_eigenvalues(model, (2, 3, 4)).detach().sum()))
        with torch.no_grad():
            model.w[3, 4] -= step
    model.zero_grad()
    ncut.laplacian_eigenvalues(model, (2, 3, 4)).sum().backward()
    slope = (values[0] - values[1]) / 2e-5
    assert float(model.w.grad[3, 4]) == pytest.approx(slope, rel=1e-3, abs=1e-7)


def test_transposed_convolutions_in_groups_are_followed():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.ConvTranspose2d(8, 6, 3, groups=2),
        nn.ReLU(), nn.Conv2d(6, 4, 3),
    )  # fmt: skip
    (graph,) = live_graphs(model, scope="all")
    with torch.no_grad():
        model[2].weight.mul_(1 + torch.rand(8, 3, 3, 3))
    blocks = sorted(float(block.weights.detach().abs().sum()) for block in graph.edge_weights())
    expected = sorted(float(b.weights.sum()) for b in ncut.graph(model, scope="all").blocks)
    assert blocks == pytest.approx(expected, rel=1e-5)
