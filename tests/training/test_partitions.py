"""Penalties of partitions, against loops in NumPy."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import ncut
from ncut.errors import InputError
from ncut.training.partitions import PartitionRegularizer, SoftCutRegularizer, soft_links
from ncut.training.regularizers import Regularizer
from ncut.training.spectrum_types import EdgeWeights


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def mlp(*widths: int) -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(widths):
        layers += [nn.Linear(n_in, n_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def grouped() -> nn.Sequential:
    """A convolution in more groups, and of more pairs of channels, than are made dense."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 260, 1), nn.ReLU(), nn.Conv2d(260, 260, 1, groups=10), nn.ReLU(),
        nn.Conv2d(260, 40, 1),
    )  # fmt: skip


def by_layer(regularizer: Regularizer, values: NDArray[Any], graph: Any) -> NDArray[Any]:
    """Values of a regularizer's vertices in the numbering of a graph of the same model."""
    (ours,) = regularizer.graphs
    at = {layer.name: layer.slice for layer in ours.layers}
    return np.concatenate([values[at[layer.name]] for layer in graph.layers])


def soft_cut(adjacency: NDArray[np.float64], shares: NDArray[np.float64]) -> float:
    """Mean over clusters of the links to the others, over the volume, by loops."""
    total = 0.0
    for c in range(shares.shape[1]):
        cut = volume = 0.0
        for i, j in zip(*np.nonzero(adjacency), strict=True):
            cut += adjacency[i, j] * shares[i, c] * (1 - shares[j, c])
            volume += adjacency[i, j] * shares[i, c]
        total += cut / volume
    return total / shares.shape[1]


MODELS = {"matrices": lambda: mlp(12, 16, 9, 5), "entries": grouped}


@pytest.mark.parametrize("kind", MODELS)
def test_the_soft_cut_is_that_of_loops(kind: str) -> None:
    model = MODELS[kind]().double()
    regularizer = SoftCutRegularizer(model, k=3, weight=0.4, seed=2)
    graph = ncut.graph(model)
    (logits,) = regularizer._logits
    shares = torch.softmax(logits.detach().double(), dim=1).numpy()
    expected = soft_cut(graph.adjacency.toarray(), by_layer(regularizer, shares, graph))
    assert float(regularizer().detach()) == pytest.approx(0.4 * expected, rel=1e-6)
    blocks = regularizer.graphs[0].edge_weights()
    assert any(block.rows is not None for block in blocks) == (kind == "entries")


@pytest.mark.parametrize("kind", MODELS)
def test_hard_shares_give_the_normalized_cut(kind: str) -> None:
    model = MODELS[kind]().double()
    k = 4
    regularizer = SoftCutRegularizer(model, k=k, weight=1.0)
    (logits,) = regularizer._logits
    labels = np.random.default_rng(0).integers(k, size=len(logits))
    with torch.no_grad():
        logits.zero_()
        logits[torch.arange(len(logits)), torch.as_tensor(labels)] = 60.0
    graph = ncut.graph(model)
    expected = ncut.normalized_cut(graph, by_layer(regularizer, labels, graph)) / k
    assert float(regularizer().detach()) == pytest.approx(expected, rel=1e-6)


def test_gradients_of_the_soft_cut() -> None:
    random = torch.Generator().manual_seed(0)
    first = torch.randn((5, 4), generator=random, dtype=torch.float64, requires_grad=True)
    entries = torch.randn(3, generator=random, dtype=torch.float64, requires_grad=True)
    logits = torch.randn((11, 3), generator=random, dtype=torch.float64, requires_grad=True)
    rows, columns = torch.tensor([0, 1, 4]), torch.tensor([9, 10, 9])

    def penalty(weights: Tensor, values: Tensor, logits: Tensor) -> Tensor:
        blocks = [EdgeWeights(weights, 0, 5), EdgeWeights(values, rows=rows, columns=columns)]
        inside, volumes = soft_links(blocks, torch.softmax(logits, dim=1))
        return (inside / volumes).mean()

    assert torch.autograd.gradcheck(penalty, (first, entries, logits))


@pytest.mark.parametrize("make", [SoftCutRegularizer, PartitionRegularizer])
def test_gradients_of_the_weights(make: Any) -> None:
    model = mlp(6, 8, 5).double()
    regularizer = make(model, k=3, weight=0.7)
    regularizer().backward()
    step = 1e-6
    for weight in (model[0].weight, model[2].weight):
        for at in ((0, 0), (2, 3)):
            values = []
            for move in (step, -step):
                with torch.no_grad():
                    weight[at] += move
                    # Without a backward pass between, the distributions stay as they are.
                    values.append(float(regularizer._term(0, regularizer.graphs[0], 0.7)))
                    weight[at] -= move
            slope = (values[0] - values[1]) / (2 * step)
            assert float(weight.grad[at]) == pytest.approx(slope, rel=1e-5, abs=1e-9)


def test_the_distributions_are_learned() -> None:
    model = mlp(30, 40, 20).requires_grad_(False)
    with torch.no_grad():
        for weight in (model[0].weight, model[2].weight):
            rows, columns = (torch.arange(n) * 2 // n for n in weight.shape)
            weight[rows[:, None] != columns] *= 0.01
    regularizer = SoftCutRegularizer(model, k=2, weight=0.1)
    first = float(regularizer().detach())
    for _ in range(200):
        regularizer().backward()
    assert float(regularizer().detach()) < 0.2 * first
    (logits,) = regularizer._logits
    labels = logits.argmax(1).numpy()
    for layer in regularizer.graphs[0].layers:
        ours = labels[layer.slice]
        half = len(ours) // 2
        assert len({*ours[:half]}) == len({*ours[half:]}) == 1
        assert ours[0] != ours[-1]


@pytest.mark.parametrize("weight", [1.0, 1e-6])
def test_the_distributions_learn_as_fast_with_any_weight(weight: float) -> None:
    model = mlp(100, 80, 20).requires_grad_(False)
    regularizer = SoftCutRegularizer(model, k=4, weight=weight)
    first = float(regularizer().detach())
    for _ in range(30):
        regularizer().backward()
    assert float(regularizer().detach()) < 0.985 * first


def test_a_backward_pass_that_overflowed_leaves_the_distributions_usable() -> None:
    regularizer = SoftCutRegularizer(mlp(30, 40, 20), k=2)
    (regularizer() * float("inf")).backward()
    for _ in range(2):
        term = regularizer()
        assert torch.isfinite(term)
        term.backward()


def test_the_soft_cut_is_the_same_for_a_seed() -> None:
    found = [float(SoftCutRegularizer(mlp(9, 8, 7), 3, seed=s)().detach()) for s in (1, 1, 2)]
    assert found[0] == found[1] != found[2]


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    datasets = pytest.importorskip("sklearn.datasets", reason="pip install scikit-learn")
    data = datasets.load_digits()
    return torch.tensor(data.data / 16, dtype=torch.float32), torch.tensor(data.target)


def train(digits: tuple[Tensor, Tensor], make: Any, weight: float) -> tuple[Any, Any, float]:
    """A network trained on digits, its regularizer, and its accuracy."""
    x, y = digits
    model = mlp(64, 48, 10)
    regularizer = make(model, k=4, weight=weight)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(1)
    for _ in range(200):
        batch = torch.randint(len(x), (128,), generator=generator)
        loss = nn.functional.cross_entropy(model(x[batch]), y[batch]) + regularizer()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model, regularizer, float((model(x).argmax(1) == y).float().mean())


@pytest.mark.parametrize("make", [SoftCutRegularizer, PartitionRegularizer])
def test_training_lowers_the_cut_of_the_partition(digits: tuple[Tensor, Tensor], make: Any) -> None:
    plain, unused, accuracy = train(digits, make, 0.0)
    ours, regularizer, our_accuracy = train(digits, make, 2.0)
    unused.weight = 1.0
    regularizer.weight = 1.0
    assert float(regularizer().detach()) < 0.8 * float(unused().detach())
    if make is SoftCutRegularizer:
        labels = regularizer._logits[0].argmax(1).numpy()
    else:
        labels = regularizer.labels[0]
    graphs = [ncut.graph(model) for model in (plain, ours)]
    cuts = [ncut.normalized_cut(g, by_layer(regularizer, labels, g)) for g in graphs]
    assert cuts[1] < 0.8 * cuts[0]
    assert our_accuracy > accuracy - 0.1


@pytest.mark.parametrize("kind", MODELS)
def test_the_partition_penalty_is_that_of_loops(kind: str) -> None:
    model = MODELS[kind]().double()
    regularizer = PartitionRegularizer(model, k=3, weight=0.4)
    (graph,) = regularizer.graphs
    labels = {layer.name: regularizer.labels[0][layer.slice] for layer in graph.layers}
    # The graph of convolutions begins with the first one's channels.
    modules = [*model[::2]] if kind == "matrices" else [*model[2::2]]
    names = [layer.name for layer in graph.layers]
    shares = []
    for module, before, after in zip(modules, names[:-1], names[1:], strict=True):
        weight = module.weight.detach().flatten(1).numpy()
        source, target = labels[before], labels[after]
        groups = getattr(module, "groups", 1)
        inside = total = 0.0
        for i in range(weight.shape[0]):
            start = i // (weight.shape[0] // groups) * weight.shape[1]
            for j in range(weight.shape[1]):
                total += weight[i, j] ** 2
                inside += weight[i, j] ** 2 * (target[i] == source[start + j])
        shares.append(inside / total)
    assert float(regularizer().detach()) == pytest.approx(0.4 * (1 - np.mean(shares)), rel=1e-10)


def test_the_default_partition_is_of_neighbours() -> None:
    regularizer = PartitionRegularizer(mlp(7, 12, 4), k=4)
    (graph,) = regularizer.graphs
    found = {layer.name: regularizer.labels[0][layer.slice].tolist() for layer in graph.layers}
    assert found["2"] == [0, 1, 2, 3]
    assert found["0"] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert sorted(found["input"]) == found["input"]
    assert np.bincount(found["input"]).tolist() == [2, 2, 2, 1]


def test_labels_are_those_given() -> None:
    model = mlp(4, 4, 2)
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(4))
        model[2].weight.copy_(torch.tensor([[1.0, 1, 0, 0], [0, 0, 1, 1]]))
    labels = {"input": [0, 0, 1, 1], "0": [0, 0, 1, 1], "2": [0, 1]}
    assert float(PartitionRegularizer(model, 2, labels=labels)().detach()) == pytest.approx(
        0, abs=1e-7
    )
    labels["2"] = [1, 0]
    term = PartitionRegularizer(model, 2, weight=1.0, labels=labels)()
    assert float(term.detach()) == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"nowhere": [0]}, "nowhere"),
        ({"0": [0, 1]}, "needs 4"),
        ({"0": [0, 1, 0, 0.5]}, "whole numbers"),
        ({"0": [0, 1, 0, 2]}, "between 0 and 1"),
        ({"0": [0, 1, 0, -1]}, "between 0 and 1"),
        ({"0": None}, "whole numbers"),
        ([1], ""),
    ],
    ids=str,
)
def test_wrong_labels_are_named(labels: Any, message: str) -> None:
    with pytest.raises(InputError, match=f"^labels: .*{message}"):
        PartitionRegularizer(mlp(4, 4, 2), 2, labels=labels)


@pytest.mark.parametrize("make", [SoftCutRegularizer, PartitionRegularizer])
@pytest.mark.parametrize("k", [0, 1, 2.0, True, "a", 11])
def test_a_wrong_number_of_clusters_is_named(make: Any, k: Any) -> None:
    with pytest.raises(InputError, match=r"^k: "):
        make(mlp(4, 4, 2), k)


@pytest.mark.parametrize(
    ("options", "name"), [({"learning_rate": -1.0}, "learning_rate"), ({"seed": "x"}, "seed")]
)
def test_wrong_options_of_the_soft_cut_are_named(options: dict[str, Any], name: str) -> None:
    with pytest.raises(InputError, match=f"^{name}: "):
        SoftCutRegularizer(mlp(4, 4, 2), 2, **options)
