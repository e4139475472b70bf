"""The function of a network whose rescalable layers are rescaled."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from ncut import reference
from ncut.extract import read_graph
from ncut.graphs import NeuronGraph
from ncut.types import Layer

torch = pytest.importorskip("torch", reason="pip install 'ncut[torch]'")
from role_nets import CHANGING, FLAT, KEEP, MAPS, perceptron  # noqa: E402
from torch import nn  # noqa: E402


@pytest.fixture(autouse=True)
def _same_weights_in_every_run() -> None:
    torch.manual_seed(0)


def trained(module: Any) -> Any:
    """The module in evaluation and double precision, no parameter or buffer at 0 or 1."""
    generator = torch.Generator().manual_seed(1)
    module = module.double().eval()
    with torch.no_grad():
        for value in [*module.parameters(), *module.buffers()]:
            if value.is_floating_point():
                random = torch.rand(value.shape, generator=generator, dtype=value.dtype)
                value.copy_(random + 0.5 if value.ndim == 1 else random - 0.4)
        for part in module.modules():
            if isinstance(part, nn.Linear | nn.Conv1d | nn.Conv2d) and part.bias is not None:
                part.bias.sub_(1.0)
    return module


def writers_and_readers(model: Any, graph: NeuronGraph) -> list[tuple[Layer, int, int]]:
    """The graph's hidden layers, with the positions of who writes and who reads them."""
    positions = {name: at for at, (name, _) in enumerate(model.named_children())}
    return [
        (layer, positions[layer.name], positions[layer.read_by[0]])
        for layer in graph.layers
        if layer.name in positions and layer.read_by
    ]


def rescaled(model: Any, writer: int, reader: int, factors: Any) -> Any:
    """A copy of a sequence with a layer's neurons multiplied and their readers divided."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        for part in model[writer:reader]:
            if isinstance(part, nn.Linear | nn.Conv2d):
                part.weight.mul_(factors.reshape(-1, *[1] * (part.weight.ndim - 1)))
                part.bias.mul_(factors)
            if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
                # Its shifts are biases, too.
                each = factors.repeat_interleave(part.num_features // factors.numel())
                part.running_mean.mul_(each)
                part.bias.mul_(each)
        last = model[reader]
        if isinstance(last, nn.Linear):
            last.weight.div_(factors.repeat_interleave(last.in_features // factors.numel()))
        else:
            per_group = last.in_channels // last.groups
            group = torch.arange(last.out_channels) // (last.out_channels // last.groups)
            inputs = group[:, None] * per_group + torch.arange(per_group)
            last.weight.div_(factors[inputs][:, :, None, None])
    return model


def outputs(model: Any, x: Any) -> NDArray[np.float64]:
    with torch.no_grad():
        found: NDArray[np.float64] = model(x.clone()).numpy()
    return found


def random_factors(n: int) -> Any:
    generator = torch.Generator().manual_seed(n)
    return torch.exp(torch.randn(n, generator=generator, dtype=torch.float64))


def check_function_and_weights(model: Any, x: Any, scope: str, norm: str) -> None:
    """Rescaling a layer that allows it keeps the function, and scales the edges as promised."""
    graph = read_graph(model, scope=scope, norm=norm)
    weights = [reference.dense(block.weights) for block in graph.blocks]
    before = outputs(model, x)
    assert np.ptp(before) > 0
    for layer, writer, reader in writers_and_readers(model, graph):
        if not layer.rescalable:
            continue
        factors = random_factors(layer.size)
        changed = rescaled(model, writer, reader, factors)
        assert_allclose(outputs(changed, x), before, rtol=1e-8, atol=1e-10)
        other = read_graph(changed, scope=scope, norm=norm)
        at = graph.layers.index(layer)
        for block, old, new in zip(graph.blocks, weights, other.blocks, strict=True):
            expected = old
            if block.target == at:
                expected = old * factors.numpy()
            if block.source == at:
                expected = old / factors.numpy()[:, None]
            assert_allclose(reference.dense(new.weights), expected, rtol=1e-9)


PIECES = st.lists(st.sampled_from(sorted(FLAT)), max_size=3)


MAP_PIECES = st.lists(st.sampled_from(sorted(MAPS)), max_size=3)


@given(PIECES, PIECES, PIECES)
def test_any_perceptron(first: list[str], second: list[str], third: list[str]) -> None:
    sizes, between = (5, 7, 6, 4), (first, second, third)
    pieces = [[FLAT[name](n) for name in x] for x, n in zip(between, sizes[1:], strict=True)]
    model = trained(perceptron(*pieces, sizes=sizes))
    graph = read_graph(model)
    expected = [{*names} <= KEEP for names in between]
    assert [layer.rescalable for layer in graph.layers] == [False, *expected, False]
    x = torch.randn(20, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    check_function_and_weights(model, x, "paper", "l1")


@settings(max_examples=40)
@given(
    MAP_PIECES,
    MAP_PIECES,
    PIECES,
    st.sampled_from([1, 2]),
    st.sampled_from(["paper", "all"]),
    st.sampled_from(["l1", "l2"]),
)
def test_any_convolutional_network(
    first: list[str], second: list[str], third: list[str], groups: int, scope: str, norm: str
) -> None:
    parts = [
        nn.Conv2d(2, 4, 3, padding=1),
        *(MAPS[name](4) for name in first),
        nn.Conv2d(4, 6, 3, groups=groups, padding=1, padding_mode="reflect"),
        *(MAPS[name](6) for name in second),
        nn.AdaptiveMaxPool2d(2),
        nn.Flatten(),
        *(FLAT[name](24) for name in third if name != "prelu each"),
        nn.Linear(24, 3),
    ]
    model = trained(nn.Sequential(*parts))
    graph = read_graph(model, scope=scope)
    found = {layer.name: layer.rescalable for layer in graph.layers}
    assert found["0"] == ({*first} <= KEEP)
    assert found[str(1 + len(first))] == ({*second, *third} <= KEEP)
    x = torch.randn(5, 2, 7, 7, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    check_function_and_weights(model, x, scope, norm)


@pytest.mark.parametrize("name", CHANGING)
def test_where_a_layer_is_not_rescalable_factors_change_the_function(name: str) -> None:
    model = trained(perceptron([CHANGING[name](7)]))
    # Large enough to reach the bend of each activation.
    x = 5 * torch.randn(20, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    (layer, writer, reader) = writers_and_readers(model, read_graph(model))[0]
    assert layer.rescalable is False
    changed = rescaled(model, writer, reader, random_factors(7))
    assert np.abs(outputs(changed, x) - outputs(model, x)).max() > 1e-3


def test_where_weights_are_shared_factors_change_the_function() -> None:
    model = trained(perceptron([nn.ReLU()], [nn.ReLU()], sizes=(5, 5, 5)))
    model[2].weight = model[0].weight
    x = torch.randn(20, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    changed = copy.deepcopy(model)
    with torch.no_grad():
        changed[0].weight[0] *= 2
        changed[0].bias[0] *= 2
        changed[2].weight[:, 0] /= 2
    assert changed[0].weight is changed[2].weight
    assert np.abs(outputs(changed, x) - outputs(model, x)).max() > 1e-3
