"""Training of the paper's networks: initialization, pruning, metrics, devices."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.testing import assert_allclose

from ncut.errors import InputError

torch = pytest.importorskip("torch", reason="pip install 'ncut[torch]'")
from paper_runs import PHASES, ByHand, assert_same_network, data_for, finished, recipe_of, trained  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402, N812

from ncut.paper import training  # noqa: E402
from ncut.paper.datasets import Data  # noqa: E402
from ncut.paper.networks import layers_of  # noqa: E402
from ncut.paper.pruning import sparsity  # noqa: E402
from ncut.paper.records import Record  # noqa: E402
from ncut.paper.training import device_named, evaluate, initialized, train  # noqa: E402

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
@pytest.mark.filterwarnings("ignore:the network was in parts before the regularizer")
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


# --- initialization -----------------------------------------------------------------------------


def test_a_seed_makes_the_same_network_after_any_draws():
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


# --- results -------------------------------------------------------------------------------------


def test_metrics_match_the_network_that_is_kept(batch, tmp_path):
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
