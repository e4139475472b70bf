"""The paper's training against a plain loop, and its penalties against their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="pip install 'ncut[torch]'")
from paper_runs import PHASES, ByHand, data_for, finished, named, recipe_of, trained  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402, N812

from ncut.paper import training  # noqa: E402
from ncut.paper.networks import layers_of  # noqa: E402
from ncut.paper.recipes import REGULARIZATIONS  # noqa: E402
from ncut.paper.records import Record  # noqa: E402
from ncut.paper.training import evaluate, initialized, train  # noqa: E402

BY_HAND = [
    *(recipe_of(regularization=kind) for kind in REGULARIZATIONS if kind != "clusterability"),
    recipe_of(regularization="l2", procedure="text"),
    recipe_of(regularization="dropout+l2", procedure="text"),
    recipe_of(procedure="leaky"),
    recipe_of(regularization="l2", procedure="leaky"),
    recipe_of(reordered=False),
    recipe_of("polynomial-mlp", "l1"),
    recipe_of("polynomial-mlp", "l2"),
    recipe_of("small-cnn", "dropout+l2", 1, 1),
    recipe_of("small-cnn", "l1", 1, 1, data="mnist-stack-diff"),
]


@pytest.mark.parametrize("recipe", BY_HAND, ids=named)
def test_training_matches_a_plain_loop(recipe, batch, tmp_path):
    if recipe.network == "small-cnn":
        batch(6)
    data = data_for(recipe, *((14, 5) if recipe.network == "small-cnn" else (100, 40)))
    seed = 3
    train(Record(tmp_path, recipe, seed), data)
    reference = ByHand(recipe, seed, data)
    for phase, epochs in zip(PHASES, (recipe.epochs, recipe.pruning_epochs), strict=True):
        reference.train(phase, epochs)
        model, metrics = finished(Record(tmp_path, recipe, seed), phase)
        for a, b in zip(model.parameters(), reference.model.parameters(), strict=True):
            difference = (a - b).detach().abs()
            # Rounding may move the step of a weight whose gradient is next to nothing.
            assert float(difference.mean()) < 1e-5
            assert float((difference > 1e-4).float().mean()) < 1e-3
        loss, accuracy = evaluate(reference.model, data.test_inputs, data.test_targets)
        assert metrics["train_loss"] == pytest.approx(reference.metrics["train_loss"], rel=1e-4)
        assert metrics["train_accuracy"] == reference.metrics["train_accuracy"]
        loss += float(reference.penalty().detach())
        assert metrics["test_loss"] == pytest.approx(loss, rel=1e-3)
        assert metrics["test_accuracy"] == accuracy


@pytest.mark.parametrize("procedure", ["authors", "text"])
@pytest.mark.parametrize("network", ["small-mlp", "polynomial-mlp", "small-cnn", "vgg"])
@pytest.mark.parametrize("regularization", REGULARIZATIONS)
def test_penalties_match_the_recipe(network, regularization, procedure):
    recipe = recipe_of(network, regularization, procedure=procedure)
    reference = ByHand.__new__(ByHand)
    torch.manual_seed(0)
    reference.recipe = recipe
    reference.weights = [torch.randn(4, 3, requires_grad=True) for _ in range(4)]
    expected = reference.penalty()
    found = sum(
        l1 * weight.abs().sum() + l2 * weight.square().sum()
        for weight, (l1, l2) in zip(reference.weights, recipe.penalties(4), strict=True)
    )
    assert float(torch.as_tensor(found).detach()) == pytest.approx(float(expected.detach()))
    if expected.requires_grad:
        gradients = [torch.autograd.grad(each, reference.weights) for each in (found, expected)]
        for a, b in zip(*gradients, strict=True):
            torch.testing.assert_close(a, b)


# --- the clusterability regularizer -------------------------------------------------------------


# Thresholds of earlier masks, one for each layer.
THRESHOLDS = (0.3, 0.2, 0.5, 0.1)


def normalized_by_loops(model, scales=None):
    """Algorithm 2 of the paper, neuron by neuron; `scales` multiply the weights in the norms."""
    weights = [layer.weight.detach().double().clone() for layer in layers_of(model)]
    biases = [layer.bias.detach().double().clone() for layer in layers_of(model)]
    for i in range(len(weights) - 1):
        for n in range(len(weights[i])):
            incoming = weights[i][n] if scales is None else scales[i] * weights[i][n]
            x = math.sqrt(float((incoming**2).sum() + biases[i][n] ** 2) / 2)
            if x != 0:
                weights[i][n] /= x
                biases[i][n] /= x
            weights[i + 1][:, n] *= x
    return weights, biases


def eigenvalues(weights):
    """Eigenvalues of the normalized Laplacian of an MLP's graph, ascending; differentiable."""
    sizes = [weights[0].shape[1], *(len(weight) for weight in weights)]
    starts = np.cumsum([0, *sizes])
    rows = []
    for i, size in enumerate(sizes):
        cells = [torch.zeros(size, n, dtype=torch.float64) for n in sizes]
        if i:
            cells[i - 1] = weights[i - 1].abs()
        if i + 1 < len(sizes):
            cells[i + 1] = weights[i].abs().T
        rows.append(torch.cat(cells, dim=1))
    adjacency = torch.cat(rows)
    assert len(adjacency) == starts[-1]
    degrees = adjacency.sum(1)
    kept = degrees > 0
    adjacency, degrees = adjacency[kept][:, kept], degrees[kept]
    scale = degrees.rsqrt()
    return torch.linalg.eigvalsh(torch.eye(len(scale)) - scale[:, None] * adjacency * scale)


def one_step(recipe, data, phase, out):
    """A network before and after its first step of a phase, with the step's gradients."""
    model = initialized(recipe, 5)
    for layer in layers_of(model):
        nn.init.normal_(layer.bias, std=0.05)
    step = training._Phase(Record(out, recipe, 5), phase, 1, model, data, 0)
    if step.masks is not None:
        step.masks.thresholds = list(THRESHOLDS)
    model.train()
    step._train_on(torch.arange(len(data.targets)), training._Totals())
    return model, step


@pytest.mark.parametrize(("procedure", "weight"), [("authors", 0.05), ("text", 0.1)])
@pytest.mark.parametrize("phase", PHASES)
def test_the_clusterability_penalty_is_that_of_three_eigenvalues(
    procedure, weight, phase, tmp_path
):
    recipe = recipe_of(regularization="clusterability", procedure=procedure)
    data = data_for(recipe, 60)
    model, step = one_step(recipe, data, phase, tmp_path)

    start = initialized(recipe, 5)
    for layer in layers_of(start):
        nn.init.normal_(layer.bias, std=0.05)
    by_threshold = phase == "pruned" and procedure == "authors"
    weights, biases = normalized_by_loops(start, THRESHOLDS if by_threshold else None)
    if phase == "pruned":
        for tensor in weights:
            magnitudes = tensor.abs()
            tensor *= magnitudes >= magnitudes.flatten().sort().values[magnitudes.numel() // 2]
    for tensor in (*weights, *biases):
        tensor.requires_grad_()
    hidden = data.inputs.double()
    for number, (w, b) in enumerate(zip(weights, biases, strict=True)):
        hidden = F.linear(hidden if number == 0 else hidden.relu(), w, b)
    penalty = weight * eigenvalues(weights)[1:4].mean()
    loss = F.cross_entropy(hidden, data.targets)
    of_penalty = torch.autograd.grad(penalty, weights)
    of_loss = torch.autograd.grad(loss, weights)
    for layer, a, b in zip(layers_of(model), of_penalty, of_loss, strict=True):
        found = layer.weight.grad.double() - b
        # The regularizer's eigenvectors are accurate to a thousandth of their length.
        assert float((found - a).norm() / a.norm()) < 0.05
    if phase == "pruned":
        for layer, mask in zip(layers_of(model), step.masks.masks, strict=True):
            assert not layer.weight[mask == 0].any()


def test_the_clusterability_regularizer_makes_eigenvalues_smaller(batch, tmp_path):
    plain, regularized = (recipe_of(regularization=kind, epochs=8, pruning_epochs=0)
                          for kind in ("none", "clusterability"))  # fmt: skip
    data = data_for(plain, 200)
    sums = []
    for recipe in (plain, regularized):
        model, _ = trained(tmp_path, recipe, data)
        weights = [layer.weight.detach().double() for layer in layers_of(model)]
        sums.append(float(eigenvalues(weights)[1:4].sum()))
    assert sums[1] < sums[0] - 0.05
