"""Training the paper's networks: each step by hand, and runs that are broken off and go on."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from ncut.errors import InputError

torch = pytest.importorskip("torch", reason="pip install 'ncut[torch]'")
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402, N812

from ncut.paper import augment, training  # noqa: E402
from ncut.paper.datasets import Data  # noqa: E402
from ncut.paper.networks import NETWORKS, layers_of  # noqa: E402
from ncut.paper.pruning import sparsity  # noqa: E402
from ncut.paper.recipes import REGULARIZATIONS, Recipe  # noqa: E402
from ncut.paper.records import Record  # noqa: E402
from ncut.paper.training import device_named, evaluate, initialized, train  # noqa: E402

PHASES = ("unpruned", "pruned")


def data_for(recipe, n=100, n_test=40, seed=0):
    """Random inputs of a network's shape, and targets that follow from them."""
    generator = torch.Generator().manual_seed(seed)
    if recipe.architecture.widths:
        shape = recipe.architecture.widths[:1]
    else:
        channels = {"cifar10": 3, "mnist-stack-diff": 2}.get(recipe.data, 1)
        shape = (channels, *[32 if recipe.network == "vgg" else 28] * 2)
    n_targets = 512 if recipe.data == "polynomial" else 10
    teacher = torch.randn(math.prod(shape), n_targets, generator=generator)
    tensors = []
    for size in (n, n_test):
        inputs = torch.rand(size, *shape, generator=generator)
        targets = (inputs - 0.5).flatten(1) @ teacher
        tensors += [inputs, targets if recipe.data == "polynomial" else targets.argmax(1)]
    return Data(*tensors, is_original=False)


def recipe_of(network="small-mlp", regularization="none", epochs=2, pruning_epochs=2, **changes):
    data = {"small-cnn": "mnist", "vgg": "cifar10", "polynomial-mlp": "polynomial"}
    name = changes.pop("data", data.get(network, "mnist-7x7"))
    return Recipe(network, name, regularization, epochs, pruning_epochs, **changes)


@pytest.fixture
def batch(monkeypatch):
    """Sets the batch size of all networks, to have several steps with few examples."""

    def set_batch(size):
        for name, network in NETWORKS.items():
            monkeypatch.setitem(NETWORKS, name, replace(network, batch=size))

    set_batch(16)
    return set_batch


def trained(out, recipe, data, seed=0, phase=None):
    """The network after its last phase, or another one, and its metrics."""
    record = Record(out, recipe, seed)
    train(record, data)
    return finished(record, phase)


def finished(record, phase=None):
    phase = phase or PHASES[bool(record.recipe.pruning_epochs)]
    channels = {"cifar10": 3, "mnist-stack-diff": 2}.get(record.recipe.data, 1)
    model = initialized(record.recipe, record.seed, channels)
    record.load(phase, model)
    return model, record.metrics(phase)


def assert_same_network(a, b):
    """Equal to the last bit, batch norm's statistics included."""
    first, second = a.state_dict(), b.state_dict()
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def without_time(metrics):
    return {name: value for name, value in metrics.items() if name != "seconds"}


# --- by hand ------------------------------------------------------------------------------------


class ByHand:
    """The same training in plain torch: autograd of all penalties, Adam as it is by default."""

    def __init__(self, recipe, seed, data):
        self.recipe, self.seed, self.data = recipe, seed, data
        self.model = initialized(recipe, seed, data.inputs.shape[1])
        self.weights = [layer.weight for layer in layers_of(self.model)]
        self.metrics = {}

    def penalty(self):
        """The penalties' value. In the authors' code an MLP's first layer has L1 in place of L2."""
        kind, is_mlp = self.recipe.regularization, bool(self.recipe.architecture.widths)
        total = torch.zeros(())
        for number, weight in enumerate(self.weights):
            l1 = 5e-5 if kind == "l1" else 0.0
            l2 = (5e-4 if self.recipe.network == "vgg" else 5e-5) if kind.endswith("l2") else 0.0
            if l2 and is_mlp and number == 0 and self.recipe.procedure != "text":
                l1, l2 = l2, 0.0
            total = total + l1 * weight.abs().sum() + l2 * (weight**2).sum()
        return total

    def prune(self, masks, step, n_steps):
        """Masks by a sort, made anew every ten steps."""
        if step % 10 == 0:
            for number, weight in enumerate(self.weights):
                order = weight.detach().abs().flatten().argsort(descending=True)
                n_left = round(weight.numel() * (1 - sparsity(step, n_steps)))
                masks[number] = torch.zeros(weight.numel())
                masks[number][order[:n_left]] = 1.0
                masks[number] = masks[number].reshape(weight.shape)
        self.multiply(masks)

    @torch.no_grad()
    def multiply(self, masks):
        for weight, mask in zip(self.weights, masks, strict=True):
            weight.mul_(mask)

    def train(self, phase, epochs):
        data, leaky = self.data, self.recipe.procedure == "leaky"
        optimizer = torch.optim.Adam(
            self.model.parameters(), lr=1e-3, betas=(0.9, 0.999), eps=1e-7,
            foreach=False, fused=False,
        )  # fmt: skip
        n, batch = len(data.targets), self.recipe.architecture.batch
        starts = range(0, n - batch + 1 if self.recipe.architecture.augment else n, batch)
        n_steps, step = epochs * len(starts), 0
        masks = [torch.ones_like(weight) for weight in self.weights]
        for epoch in range(1, epochs + 1):
            torch.manual_seed(training._seed_of(self.seed, 1 + PHASES.index(phase), epoch))
            self.model.train()
            order = torch.randperm(n) if self.recipe.reordered else torch.arange(n)
            losses, hits, seen = [], 0, 0
            for start in starts:
                chosen = order[start : start + batch]
                x, y = data.inputs[chosen], data.targets[chosen]
                if self.recipe.architecture.augment:
                    x = augment.augmented(x)
                if phase == "pruned" and not leaky:
                    self.prune(masks, step, n_steps)
                outputs = self.model(x)
                loss = F.mse_loss if data.is_regression else F.cross_entropy
                total = loss(outputs, y) + self.penalty()
                optimizer.zero_grad()
                total.backward()
                losses.append((float(total.detach()), len(x)))
                hits += 0 if data.is_regression else int((outputs.argmax(1) == y).sum())
                seen += len(x)
                if phase == "pruned" and leaky:
                    self.prune(masks, step, n_steps)
                optimizer.step()
                if phase == "pruned" and not leaky:
                    self.multiply(masks)
                step += 1
            self.multiply(masks)
        self.metrics = {"train_loss": sum(value * size for value, size in losses) / seen}
        self.metrics["train_accuracy"] = None if data.is_regression else hits / seen


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


def named(recipe):
    """A recipe in a word, as the name of a test."""
    words = (recipe.network, recipe.regularization, recipe.procedure, recipe.precision)
    return "-".join((*words, recipe.data, *["in-order"] * (not recipe.reordered)))


@pytest.mark.parametrize("recipe", BY_HAND, ids=named)
def test_training_is_what_a_plain_loop_does(recipe, batch, tmp_path):
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
def test_penalties_are_those_of_the_recipe(network, regularization, procedure):
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


THRESHOLDS = (0.3, 0.2, 0.5, 0.1)
"""As if masks had been made before, one for each layer."""


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
    """Of the normalized Laplacian of an MLP's graph, ascending; differentiable."""
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


# --- pruning ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("regularization", "procedure"),
    [
        *itertools.product(("none", "dropout", "l2"), ("authors", "text", "leaky")),
        *itertools.product(["clusterability"], ("authors", "text")),
    ],
)
# Normalized by the pruning threshold, a network that has hardly been trained loses neurons.
@pytest.mark.filterwarnings("ignore:the regularizer is cutting the network apart")
@pytest.mark.filterwarnings("ignore:the network is in parts before the regularizer")
def test_pruned_networks_have_the_share_of_the_last_masks(
    regularization, procedure, batch, tmp_path
):
    recipe = recipe_of(regularization=regularization, epochs=1, pruning_epochs=12,
                       procedure=procedure)  # fmt: skip
    data = data_for(recipe, 80)
    counts = []

    def look(phase, epoch):
        if phase == "pruned":
            record = Record(tmp_path, recipe, 0)
            counts.append(epoch)
            assert not record.has("pruned")

    train(Record(tmp_path, recipe, 0), data, look)
    model, _ = finished(Record(tmp_path, recipe, 0))
    n_steps = 12 * 5
    assert counts == list(range(1, 13))
    for layer in layers_of(model):
        n_weights = layer.weight.numel()
        expected = round(n_weights * (1 - sparsity(n_steps - 10, n_steps)))
        assert int(layer.weight.count_nonzero()) == expected
        assert expected == pytest.approx(0.1 * n_weights, rel=0.03)


def test_masked_weights_are_zero_in_every_forward_pass_unless_the_procedure_is_leaky(
    batch, tmp_path, monkeypatch
):
    seen = {}
    forward = nn.Sequential.forward

    def look(model, inputs):
        if model.training:
            shares = [float((part.weight == 0).float().mean()) for part in layers_of(model)]
            seen[procedure].append(min(shares))
        return forward(model, inputs)

    monkeypatch.setattr(nn.Sequential, "forward", look)
    for procedure in ("authors", "leaky"):
        seen[procedure] = []
        recipe = recipe_of(epochs=0, pruning_epochs=4, procedure=procedure)
        train(Record(tmp_path, recipe, 0), data_for(recipe, 80))
    assert len(seen["authors"]) == len(seen["leaky"]) == 20
    expected = [sparsity(step // 10 * 10, 20) for step in range(20)]
    assert_allclose(seen["authors"], expected, atol=1e-3)
    assert seen["leaky"][0] == 0
    assert max(seen["leaky"][1:5]) < 0.5  # grown by a step of the optimizer
    assert seen["leaky"][5] >= 0.5 - 1e-3  # an epoch's end sets them to zero


def test_a_leaky_procedure_makes_another_network(batch, tmp_path):
    recipes = [recipe_of(epochs=1, procedure=procedure) for procedure in ("authors", "leaky")]
    data = data_for(recipes[0])
    first, second = (trained(tmp_path, recipe, data)[0] for recipe in recipes)
    assert any(not torch.equal(a, b)
               for a, b in zip(first.parameters(), second.parameters(), strict=True))  # fmt: skip
    unpruned = [finished(Record(tmp_path, recipe, 0), "unpruned")[0] for recipe in recipes]
    assert_same_network(*unpruned)


# --- where training begins ----------------------------------------------------------------------


def test_a_seed_makes_one_network_whatever_was_drawn_before():
    recipe = recipe_of()
    torch.manual_seed(1)
    first = initialized(recipe, 7)
    torch.manual_seed(2)
    torch.rand(5)
    assert_same_network(first, initialized(recipe, 7))
    other = initialized(recipe, 8)
    assert not torch.equal(layers_of(first)[0].weight, layers_of(other)[0].weight)


@pytest.mark.parametrize(
    ("network", "channels", "beta"),
    [("mlp", 1, 0.6), ("small-cnn", 2, 0.8), pytest.param("vgg", 3, 0.8, marks=pytest.mark.slow)],
)  # fmt: skip
def test_clusterable_initialization_weakens_and_strengthens_weights(network, channels, beta):
    plain, tagged = (
        layers_of(initialized(recipe_of(network, kind), 2, channels))
        for kind in ("none", "clusterable-init")
    )
    assert torch.equal(plain[0].weight, tagged[0].weight)
    strong = 1 + (1 - beta) * 9
    for before, after in itertools.islice(zip(plain, tagged, strict=True), 1, None):
        if network in ("small-cnn", "vgg") and isinstance(before, nn.Linear):
            continue
        # All weights of a kernel have one factor.
        first, second = (
            layer.weight.detach().reshape(*layer.weight.shape[:2], -1) for layer in (before, after)
        )
        factors = second.abs().sum(2, keepdim=True) / first.abs().sum(2, keepdim=True)
        assert_allclose(second.numpy(), (factors * first).numpy(), rtol=1e-5, atol=1e-8)
        is_strong = factors > (strong + beta) / 2
        assert_allclose(factors[is_strong].numpy(), strong, rtol=1e-5)
        assert_allclose(factors[~is_strong].numpy(), beta, rtol=1e-5)
        assert float(is_strong.float().mean()) == pytest.approx(0.1, abs=0.05)
        assert not after.bias.any()


# --- what is kept -------------------------------------------------------------------------------


def test_metrics_are_those_of_the_network_that_is_kept(batch, tmp_path):
    recipe = recipe_of(regularization="dropout+l2")
    data = data_for(recipe, 100, 2300)
    for phase in PHASES:
        model, metrics = trained(tmp_path, recipe, data, phase=phase)
        model.eval()
        with torch.no_grad():
            outputs = model(data.test_inputs)
            loss = F.cross_entropy(outputs, data.test_targets)
            accuracy = (outputs.argmax(1) == data.test_targets).double().mean()
        reference = ByHand(recipe, 0, data)
        reference.weights = [layer.weight for layer in layers_of(model)]
        expected = float(loss) + float(reference.penalty().detach())
        assert metrics["test_loss"] == pytest.approx(expected, rel=1e-5)
        assert metrics["test_accuracy"] == pytest.approx(float(accuracy), abs=1e-12)
        assert metrics["images"] == 100
        assert metrics["original_data"] is False
        assert metrics["data_checksum"] == data.checksum()
        assert metrics["phase"] == phase
        assert (metrics["seed"], metrics["recipe"]) == (0, recipe.settings())


def test_training_metrics_are_running_ones_of_the_last_epoch(tmp_path, batch, monkeypatch):
    # As Keras reports them: of each batch before its step, weighted by its size.
    batch(40)
    recipe = recipe_of(regularization="l1", epochs=3, pruning_epochs=0)
    data = data_for(recipe)
    batches = []
    loss_of = training._loss

    def look(outputs, targets):
        loss = loss_of(outputs, targets)
        if torch.is_grad_enabled():
            batches.append((float(loss.detach()), outputs.detach().clone(), targets))
        return loss

    monkeypatch.setattr(training, "_loss", look)
    penalties = []
    penalty_of = training._Phase._penalty
    monkeypatch.setattr(
        training._Phase, "_penalty",
        lambda self: penalties.append(penalty_of(self)) or penalties[-1],
    )  # fmt: skip
    _, metrics = trained(tmp_path, recipe, data)
    assert [len(targets) for _, _, targets in batches] == [40, 40, 20] * 3
    last = batches[-3:]
    losses = [loss for loss, _, _ in last]
    expected = np.average(np.add(losses, penalties[6:9]), weights=[40, 40, 20])
    assert metrics["train_loss"] == pytest.approx(expected, rel=1e-5)
    hits = [int((outputs.argmax(1) == targets).sum()) for _, outputs, targets in last]
    assert metrics["train_accuracy"] == sum(hits) / 100


def test_a_regression_has_losses_and_no_accuracies(batch, tmp_path):
    recipe = recipe_of("polynomial-mlp", epochs=1, pruning_epochs=0)
    data = data_for(recipe, 50)
    model, metrics = trained(tmp_path, recipe, data)
    with torch.no_grad():
        expected = (model.eval()(data.test_inputs) - data.test_targets).square().mean()
    assert metrics["test_loss"] == pytest.approx(float(expected), rel=1e-5)
    assert metrics["train_accuracy"] is None
    assert metrics["test_accuracy"] is None


@pytest.mark.parametrize("n", [1, 999, 1000, 1001, 2500])
def test_evaluation_weighs_all_examples_alike(n):
    recipe = recipe_of()
    data = data_for(recipe, 1, n)
    model = initialized(recipe, 0)
    model.train()
    loss, accuracy = evaluate(model, data.test_inputs, data.test_targets)
    assert not model.training
    with torch.no_grad():
        outputs = model(data.test_inputs)
    expected = F.cross_entropy(outputs, data.test_targets)
    assert loss == pytest.approx(float(expected), rel=1e-5)
    assert accuracy == int((outputs.argmax(1) == data.test_targets).sum()) / n


def test_bfloat16_is_another_training_with_about_the_same_result(batch, tmp_path):
    recipes = [recipe_of(precision=precision) for precision in ("float32", "bfloat16")]
    data = data_for(recipes[0])
    (exact, ours), (rounded, theirs) = (trained(tmp_path, recipe, data) for recipe in recipes)
    for a, b in zip(layers_of(exact), layers_of(rounded), strict=True):
        assert b.weight.dtype == torch.float32
        assert not torch.equal(a.weight, b.weight)
    assert theirs["train_loss"] == pytest.approx(ours["train_loss"], rel=0.05)


@pytest.mark.parametrize(("n", "n_steps"), [(40, 2), (32, 2), (10, 1)])
def test_only_augmented_trainings_leave_an_incomplete_batch_out(n, n_steps, batch, tmp_path):
    recipes = [recipe_of("vgg", epochs=1, pruning_epochs=0), recipe_of(epochs=1, pruning_epochs=0)]
    for recipe, expected in zip(recipes, (n_steps, -(-n // 16)), strict=True):
        model = nn.Sequential(nn.Flatten(), nn.Linear(3, 10))
        data = Data(*2 * (torch.rand(n, 3), torch.zeros(n).long()), is_original=False)
        phase = training._Phase(Record(tmp_path, recipe, 0), "unpruned", 1, model, data, 0)
        assert phase.steps_per_epoch == expected


# --- broken off and gone on with ----------------------------------------------------------------


class BrokenOff(Exception):  # noqa: N818
    """Stands for whatever ends a process."""


def train_with_breaks(record, data):
    """Train, broken off at the end of each epoch once, and so resumed after each; how often."""
    seen = []

    def break_off(phase, epoch):
        if (phase, epoch) not in seen:
            seen.append((phase, epoch))
            raise BrokenOff

    while True:
        try:
            train(record, data, break_off)
        except BrokenOff:
            torch.manual_seed(len(seen))  # the next process has drawn other numbers
        else:
            return seen


def check_resumed(recipe, data, folder, monkeypatch):
    """Broken off everywhere, a training ends where one without a break does."""
    whole, broken = (Record(folder / name, recipe, 4) for name in ("whole", "broken"))
    train(whole, data)
    monkeypatch.setattr(training, "SECONDS_BETWEEN_CHECKPOINTS", -1.0)
    breaks = train_with_breaks(broken, data)
    epochs = ((phase, n) for phase, n in zip(PHASES, (recipe.epochs, recipe.pruning_epochs),
                                             strict=True))  # fmt: skip
    assert breaks == [(phase, epoch) for phase, n in epochs for epoch in range(1, n + 1)]
    for phase in PHASES:
        (expected, numbers), (found, same) = finished(whole, phase), finished(broken, phase)
        assert_same_network(expected, found)
        assert without_time(numbers) == without_time(same)
    assert not broken.checkpoint.exists()
    assert not [*broken.folder.glob(".*")]


RESUMED = [
    *(recipe_of(regularization=kind, epochs=3, pruning_epochs=3) for kind in REGULARIZATIONS),
    recipe_of(regularization="clusterability", procedure="text", epochs=3, pruning_epochs=3),
    recipe_of(regularization="dropout", procedure="leaky", epochs=2, pruning_epochs=3),
    recipe_of(precision="bfloat16", epochs=2, pruning_epochs=2),
    recipe_of(reordered=False),
    recipe_of("polynomial-mlp", "l2"),
    recipe_of("mlp", "dropout", 2, 2, data="mnist"),
]


@pytest.mark.parametrize("recipe", RESUMED, ids=named)
def test_a_resumed_mlp_is_the_one_of_a_training_without_a_break(
    recipe, batch, tmp_path, monkeypatch
):
    check_resumed(recipe, data_for(recipe), tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("data", "regularization"), [("mnist", "none"), ("mnist-stack-diff", "dropout")]
)
def test_a_resumed_cnn_is_the_one_of_a_training_without_a_break(
    data, regularization, batch, tmp_path, monkeypatch
):
    batch(6)
    recipe = recipe_of("small-cnn", regularization, 2, 2, data=data)
    check_resumed(recipe, data_for(recipe, 12, 4), tmp_path, monkeypatch)


@pytest.mark.usefixtures("narrow_vgg")
def test_a_resumed_vgg_is_the_one_of_a_training_without_a_break(batch, tmp_path, monkeypatch):
    batch(4)
    recipe = recipe_of("vgg", "dropout+l2", 2, 2)
    check_resumed(recipe, data_for(recipe, 9, 3), tmp_path, monkeypatch)


def test_without_a_checkpoint_a_phase_begins_anew(batch, tmp_path):
    recipe = recipe_of(epochs=3)
    data = data_for(recipe)
    expected, _ = trained(tmp_path / "whole", recipe, data)
    record = Record(tmp_path / "broken", recipe, 0)
    assert len(train_with_breaks(record, data)) == 5
    assert not record.checkpoint.exists()
    assert_same_network(expected, finished(record)[0])


def broken_off(out, recipe, data, at, monkeypatch):
    """The record of a training that was broken off at the end of an epoch."""
    monkeypatch.setattr(training, "SECONDS_BETWEEN_CHECKPOINTS", -1.0)
    record = Record(out, recipe, 0)

    def break_off(phase, epoch):
        if (phase, epoch) == at:
            raise BrokenOff

    with pytest.raises(BrokenOff):
        train(record, data, break_off)
    return record


def test_the_checkpoint_of_a_finished_phase_is_ignored(batch, tmp_path, monkeypatch):
    recipe = recipe_of()
    data = data_for(recipe)
    expected, _ = trained(tmp_path / "whole", recipe, data)
    record = broken_off(tmp_path / "broken", recipe, data, ("unpruned", 2), monkeypatch)
    stale = record.checkpoint.read_bytes()
    monkeypatch.setattr(training, "SECONDS_BETWEEN_CHECKPOINTS", 1e9)

    def ended(phase, epoch):
        if phase == "pruned":
            raise BrokenOff

    with pytest.raises(BrokenOff):
        train(record, data, ended)
    assert record.has("unpruned")
    # Ended between the saving of the phase and the removal of its checkpoint.
    record.checkpoint.write_bytes(stale)
    train(record, data)
    assert_same_network(expected, finished(record)[0])


def test_weights_without_their_settings_are_made_again(batch, tmp_path, monkeypatch):
    recipe = recipe_of(pruning_epochs=0)
    data = data_for(recipe)
    expected, _ = trained(tmp_path / "whole", recipe, data)
    record = broken_off(tmp_path / "broken", recipe, data, ("unpruned", 2), monkeypatch)
    (record.folder / "unpruned.safetensors").write_bytes(b"half of it")
    assert not record.has("unpruned")
    train(record, data)
    assert_same_network(expected, finished(record)[0])


def test_what_is_finished_is_not_trained_again(batch, tmp_path):
    recipe = recipe_of()
    data = data_for(recipe)
    record = Record(tmp_path, recipe, 0)
    train(record, data)
    before = {
        path: (path.stat().st_mtime_ns, path.read_bytes()) for path in record.folder.iterdir()
    }

    def never(phase, epoch):
        raise AssertionError

    train(record, data, never)
    assert before == {
        path: (path.stat().st_mtime_ns, path.read_bytes()) for path in record.folder.iterdir()
    }


def test_a_seed_repeats_a_training_and_another_one_does_not(batch, tmp_path):
    recipe = recipe_of(regularization="dropout")
    data = data_for(recipe)
    first, again = (trained(tmp_path / name, recipe, data, 1)[0] for name in "ab")
    assert_same_network(first, again)
    other, _ = trained(tmp_path, recipe, data, 2)
    assert not torch.equal(layers_of(first)[0].weight, layers_of(other)[0].weight)


@pytest.mark.parametrize("damage", ["empty", "garbage", "cut"])
@pytest.mark.parametrize("at", [("unpruned", 2), ("pruned", 2)])
def test_a_damaged_checkpoint_is_refused_by_name(damage, at, batch, tmp_path, monkeypatch):
    recipe = recipe_of()
    data = data_for(recipe)
    record = broken_off(tmp_path, recipe, data, at, monkeypatch)
    content = record.checkpoint.read_bytes()
    damaged = {"empty": b"", "garbage": bytes(range(256)) * 4, "cut": content[:-7]}
    record.checkpoint.write_bytes(damaged[damage])
    with pytest.raises(InputError, match=r"out: .*checkpoint\.safetensors: cannot be .*; delete"):
        train(record, data)
    record.checkpoint.unlink()
    train(record, data)


@pytest.mark.parametrize("phase", PHASES)
def test_weights_that_cannot_be_read_are_refused_by_name(phase, batch, tmp_path):
    recipe = recipe_of()
    data = data_for(recipe)
    record = Record(tmp_path, recipe, 0)
    train(record, data)
    path = record.folder / f"{phase}.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=rf"out: .*{phase}\.safetensors: cannot be .*delete"):
        train(record, data)


def changed(data, **tensors):
    return replace(data, **{name: change(getattr(data, name)) for name, change in tensors.items()})


OTHERS = {
    "inputs": lambda data: changed(data, inputs=lambda x: x + 0.125),
    "targets": lambda data: changed(data, targets=lambda y: (y + 1) % 10),
    "order": lambda data: changed(data, inputs=lambda x: x.flip(0), targets=lambda y: y.flip(0)),
    "fewer": lambda data: changed(data, inputs=lambda x: x[:99], targets=lambda y: y[:99]),
}


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("at", [("unpruned", 2), ("pruned", 1), ("pruned", 2), None], ids=str)
def test_other_data_are_refused_whenever_training_ended(other, at, batch, tmp_path, monkeypatch):
    recipe = recipe_of()
    data = data_for(recipe)
    if at is None:
        record = Record(tmp_path, recipe, 0)
        train(record, data)
    else:
        record = broken_off(tmp_path, recipe, data, at, monkeypatch)
    with pytest.raises(InputError, match=r"data: .* trained on other data"):
        train(record, OTHERS[other](data))
    train(record, data)


# --- devices ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "gpu", "cuda3", "cuda:", "cuda:-1", "CPU", "meta", "cpu:0"])
def test_unknown_devices_are_refused(name):
    with pytest.raises(InputError, match=f"^device: must be cpu, cuda or cuda:N, got '{name}'"):
        device_named(name)


def test_gpus_that_are_not_there_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [str(device_named(name)) for name in ("cpu", "cuda", "cuda:1")] == [
        "cpu", "cuda", "cuda:1",
    ]  # fmt: skip
    with pytest.raises(InputError, match=r"^device: torch finds 2 CUDA devices here, got 'cuda:2'"):
        device_named("cuda:2")


@pytest.mark.skipif(
    not torch.cuda.is_available(),
    reason="needs a CUDA device: run pytest tests/paper/test_paper_training.py -k gpu on one",
)
@pytest.mark.parametrize("network", ["small-mlp", "small-cnn", "vgg"])
@pytest.mark.usefixtures("narrow_vgg")
def test_a_gpu_trains_the_same_network_up_to_rounding(network, batch, tmp_path):
    recipe = recipe_of(network, "l2", 1, 1)
    data = data_for(recipe, 32, 8)
    models = []
    for device in ("cpu", "cuda"):
        record = Record(tmp_path / device, recipe, 0)
        train(record, data, device=device_named(device))
        model, metrics = finished(record)
        assert metrics["device"].startswith(device)
        models.append(model)
    for a, b in zip(*(model.parameters() for model in models), strict=True):
        assert float((a - b).detach().abs().mean()) < 1e-4
