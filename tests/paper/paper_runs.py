"""Trainings of the paper's networks that tests of several files run."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch", reason="pip install 'ncut[torch]'")
from torch.nn import functional as F  # noqa: E402, N812

from ncut.paper import augment, training  # noqa: E402
from ncut.paper.datasets import Data  # noqa: E402
from ncut.paper.networks import layers_of  # noqa: E402
from ncut.paper.pruning import sparsity  # noqa: E402
from ncut.paper.recipes import Recipe  # noqa: E402
from ncut.paper.records import Record  # noqa: E402
from ncut.paper.training import initialized, train  # noqa: E402

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


def named(recipe):
    """A recipe in a word, as the name of a test."""
    words = (recipe.network, recipe.regularization, recipe.procedure, recipe.precision)
    return "-".join((*words, recipe.data, *["in-order"] * (not recipe.reordered)))
