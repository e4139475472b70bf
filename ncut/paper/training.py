"""Training of one network of the paper, resumable after each epoch.

The data are in memory and a batch is one `index_select`; penalties on weights are added to the
gradients in place; Adam is torch's fused implementation. Source of all settings: appendix A.2.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ncut.errors import InputError
from ncut.files import describe, remove_file
from ncut.paper import augment
from ncut.paper.datasets import Data
from ncut.paper.networks import build, layers_of
from ncut.paper.normalization import ThresholdNormalization
from ncut.paper.pruning import Masks
from ncut.paper.recipes import EIGENVALUES, TAGS, Recipe
from ncut.paper.records import (
    INITIAL,
    PHASES,
    PRUNED,
    UNPRUNED,
    Record,
    read_tensors,
    write_tensors,
)
from ncut.training.initialize import clusterable_init_
from ncut.training.normalize import Normalization
from ncut.training.regularizers import EigenvalueRegularizer

LEARNING_RATE, EPSILON = 1e-3, 1e-7

CPU = torch.device("cpu")

CLUSTERABILITY_WEIGHT = 0.1
"""Weight of the mean eigenvalue. The gradient in the authors' code is half the true one."""

SECONDS_BETWEEN_CHECKPOINTS = 20.0
TEST_BATCH = 1000

OnEpoch = Callable[[str, int], None]
"""Called with the phase and the number of the finished epoch, counted from 1."""


def initialized(recipe: Recipe, seed: int, channels: int = 1) -> nn.Sequential:
    """The network before training, determined by the seed."""
    torch.manual_seed(_seed_of(seed, 0, 0))
    model = build(recipe.network, recipe.has_dropout, channels)
    if recipe.regularization == "clusterable-init":
        layers = layers_of(model)
        dense = [layer for layer in layers if isinstance(layer, nn.Linear)]
        kept = [layer.weight.detach().clone() for layer in dense]
        clusterable_init_(model, TAGS, recipe.architecture.beta, seed=seed)
        if recipe.follows_authors and recipe.architecture.is_convolutional:
            # The authors' code changes only convolutions if a network has any.
            with torch.no_grad():
                for layer, weight in zip(dense, kept, strict=True):
                    layer.weight.copy_(weight)
    return model


def network_of(record: Record, phase: str) -> nn.Sequential:
    """A network at the end of a finished training phase."""
    model = initialized(record.recipe, record.seed, record.recipe.channels)
    if phase != INITIAL:
        record.load(phase, model)
    return model.eval()


def device_named(name: str) -> torch.device:
    """A device to train on.

    Raises
    ------
    InputError
        If it is neither "cpu" nor a GPU that torch can use.
    """
    match = re.fullmatch(r"cpu|cuda(?::(\d+))?", name)
    if match is None:
        raise InputError(f"device: must be cpu, cuda or cuda:N, got {name!r}")
    n = torch.cuda.device_count()
    if name != "cpu" and int(match[1] or 0) >= n:
        raise InputError(f"device: torch finds {n} CUDA devices here, got {name!r}")
    return torch.device(name)


def train(
    record: Record,
    data: Data,
    on_epoch: OnEpoch = lambda phase, epoch: None,
    device: torch.device = CPU,
) -> None:
    """Train a network through the phases its record lacks, and save each at its end.

    The order and augmentation of examples are the same on every device; dropout and rounding
    differ.

    Raises
    ------
    InputError
        If the record holds a network that was trained on other data.
    """
    recipe = record.recipe
    checksum = data.checksum()
    channels = 1 if recipe.architecture.widths else data.inputs.shape[1]
    model = initialized(recipe, record.seed, channels).to(device)
    data = data.to(device)
    if not recipe.architecture.widths:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for phase, epochs in ((UNPRUNED, recipe.epochs), (PRUNED, recipe.pruning_epochs)):
        if not epochs:
            continue
        if record.has(phase):
            _check_data(record, record.metrics(phase).get("data_checksum"), checksum)
            record.load(phase, model)
            continue
        metrics = _Phase(record, phase, epochs, model, data, checksum).run(on_epoch)
        record.save(phase, model, metrics | {"data_checksum": checksum})
        remove_file(record.checkpoint)


def _check_data(record: Record, known: object, checksum: object) -> None:
    if known != checksum:
        raise InputError(
            f"data: {record.folder} holds a network that was trained on other data; name another "
            "folder with --out, or its data with --data"
        )


def _seed_of(seed: int, phase: int, epoch: int) -> int:
    """A seed for each epoch, so that training can resume after any epoch."""
    return int(np.random.SeedSequence([seed, phase, epoch]).generate_state(1)[0])


@dataclass
class _Totals:
    """Sums over an epoch's examples, with the network at the time of each batch, as in Keras."""

    loss: Tensor | float = 0.0
    hits: Tensor | float = 0.0
    n: int = 0


class _Phase:
    """The training of a network before or during pruning, each with a separate Adam."""

    def __init__(
        self,
        record: Record,
        phase: str,
        epochs: int,
        model: nn.Sequential,
        data: Data,
        checksum: int,
    ) -> None:
        self.record, self.recipe, self.phase, self.epochs = record, record.recipe, phase, epochs
        self.model, self.data, self.checksum = model, data, checksum
        self.weights = [layer.weight for layer in layers_of(model)]
        self.penalties = self.recipe.penalties(len(self.weights))
        self.optimizer = torch.optim.Adam(
            model.parameters(), lr=LEARNING_RATE, eps=EPSILON, fused=True
        )
        batch = self.recipe.architecture.batch
        n = len(data.targets)
        # Keras's generator of augmented images drops an incomplete batch.
        self.drops_last = self.recipe.architecture.augment and n >= batch
        self.steps_per_epoch = n // batch if self.drops_last else -(-n // batch)
        self.masks = None
        if phase == PRUNED:
            self.masks = Masks(self.weights, epochs * self.steps_per_epoch)
        self.regularizer, self.normalize = self._clusterability()
        self.bfloat16 = self.recipe.precision == "bfloat16"
        self.device = data.targets.device
        self.step = 0
        self.seconds = 0.0

    def _clusterability(self) -> tuple[Callable[[], Tensor] | None, Callable[[], object]]:
        """The penalty on eigenvalues, and the treatment of the weights before each batch."""
        if self.recipe.regularization != "clusterability":
            return None, lambda: None
        weight = CLUSTERABILITY_WEIGHT / (2 if self.recipe.follows_authors else 1)
        regularizer = EigenvalueRegularizer(self.model, EIGENVALUES, weight, seed=self.record.seed)
        if self.masks is not None and self.recipe.follows_authors:
            return regularizer, ThresholdNormalization(self.model, self.masks).apply_
        return regularizer, Normalization(self.model).apply_

    def run(self, on_epoch: OnEpoch) -> dict[str, Any]:
        """Train, and return the metrics at the end."""
        number = PHASES.index(self.phase)
        saved = time.monotonic()
        totals = _Totals()
        for epoch in range(self._resume(), self.epochs):
            torch.manual_seed(_seed_of(self.record.seed, number, epoch + 1))
            # Recreated, since its start eigenvectors are not in a checkpoint.
            self.regularizer, self.normalize = self._clusterability()
            start = time.perf_counter()
            totals = self._epoch()
            self.seconds += time.perf_counter() - start
            on_epoch(self.phase, epoch + 1)
            is_last = epoch + 1 == self.epochs
            if not is_last and time.monotonic() - saved > SECONDS_BETWEEN_CHECKPOINTS:
                self._save(epoch + 1)
                saved = time.monotonic()
        loss, accuracy = evaluate(self.model, self.data.test_inputs, self.data.test_targets)
        return {
            "train_loss": float(totals.loss) / totals.n,
            "test_loss": loss + self._penalty(),
            "train_accuracy": None if accuracy is None else float(totals.hits) / totals.n,
            "test_accuracy": accuracy,
            "seconds": round(self.seconds, 2),
            "images": len(self.data.targets),
            "original_data": self.data.is_original,
            "torch": torch.__version__,
            "device": str(self.device),
        }

    def _epoch(self) -> _Totals:
        self.model.train()
        totals = _Totals()
        n = len(self.data.targets)
        order = torch.randperm(n) if self.recipe.reordered else torch.arange(n)
        batches = torch.split(order, self.recipe.architecture.batch)
        for chosen in batches[: self.steps_per_epoch]:
            self._train_on(chosen, totals)
        if self.masks is not None:
            self.masks.apply()
        return totals

    def _train_on(self, chosen: Tensor, totals: _Totals) -> None:
        """One step of training."""
        chosen = chosen.to(self.device)
        inputs = self.data.inputs.index_select(0, chosen)
        targets = self.data.targets.index_select(0, chosen)
        if self.recipe.architecture.augment:
            inputs = augment.augmented(inputs)
        if inputs.ndim == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        leaky = self.recipe.procedure == "leaky"
        self.normalize()
        if self.masks is not None and not leaky:
            self.masks.renew(self.step)
            self.masks.apply()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            outputs = self.model(inputs)
        outputs = outputs.float()
        loss = _loss(outputs, targets)
        if self.regularizer is not None:
            loss = loss + self.regularizer()
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        totals.loss = totals.loss + (loss.detach() + self._add_penalties()) * len(chosen)
        totals.n += len(chosen)
        if not self.data.is_regression:
            totals.hits = totals.hits + (outputs.detach().argmax(1) == targets).sum()
        if self.masks is not None and leaky:
            self.masks.renew(self.step)
            self.masks.apply()
        self.optimizer.step()
        if self.masks is not None and not leaky:
            self.masks.apply()
        self.step += 1

    @torch.no_grad()
    def _add_penalties(self) -> float:
        """Add the gradients of the L1 and L2 penalties; return the penalties' value."""
        for weight, (l1, l2) in zip(self.weights, self.penalties, strict=True):
            assert weight.grad is not None or not (l1 or l2)
            if l1:
                weight.grad.add_(weight.sign(), alpha=l1)  # type: ignore[union-attr]
            if l2:
                weight.grad.add_(weight, alpha=2 * l2)  # type: ignore[union-attr]
        return self._penalty()

    @torch.no_grad()
    def _penalty(self) -> float:
        total = 0.0
        for weight, (l1, l2) in zip(self.weights, self.penalties, strict=True):
            if l1:
                total += l1 * float(weight.abs().sum())
            if l2:
                total += l2 * float(weight.square().sum())
        return total

    def _save(self, epoch: int) -> None:
        """Save the state for the next epoch."""
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for number, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"adam.{number}.{name}": value for name, value in state.items()}
        if self.masks is not None:
            tensors |= {f"mask.{i}": mask for i, mask in enumerate(self.masks.masks)}
            tensors["thresholds"] = torch.tensor(self.masks.thresholds, dtype=torch.float64)
        metadata = {
            "phase": self.phase,
            "epoch": str(epoch),
            "seconds": str(self.seconds),
            "data_checksum": str(self.checksum),
        }
        write_tensors(self.record.checkpoint, tensors, metadata)

    def _resume(self) -> int:
        """Restore the last checkpoint; returns the number of finished epochs."""
        path = self.record.checkpoint
        if not path.is_file():
            return 0
        try:
            tensors, metadata = read_tensors(path)
        except InputError as error:
            raise InputError(f"out: {error}; delete it") from error
        if metadata.get("phase") != self.phase:
            return 0
        _check_data(self.record, metadata.get("data_checksum"), str(self.checksum))
        try:
            self._restore(tensors)
            self.seconds = float(metadata["seconds"])
            epoch = int(metadata["epoch"])
        except Exception as error:  # any error of torch on a file written by another program
            raise InputError(f"out: {path} lacks a part ({describe(error)}); delete it") from error
        self.step = epoch * self.steps_per_epoch
        return epoch

    def _restore(self, tensors: dict[str, Tensor]) -> None:
        """Restore a checkpoint's weights, Adam moments and masks."""
        self.model.load_state_dict(_under("model.", tensors))
        adam = self.optimizer.state_dict()
        parameters = list(self.model.parameters())
        adam["state"] = {
            number: _under(f"adam.{number}.", tensors) for number in range(len(parameters))
        }
        self.optimizer.load_state_dict(adam)
        for parameter in parameters:
            state = self.optimizer.state[parameter]
            for name in ("exp_avg", "exp_avg_sq"):
                # In the parameter's memory format, since the fused Adam pairs them by memory
                # position.
                state[name] = torch.empty_like(parameter).copy_(state[name])
        if self.masks is not None:
            for number, mask in enumerate(self.masks.masks):
                mask.copy_(tensors[f"mask.{number}"])
            self.masks.thresholds = tensors["thresholds"].tolist()


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }


def _loss(outputs: Tensor, targets: Tensor) -> Tensor:
    if targets.is_floating_point():
        return functional.mse_loss(outputs, targets)
    return functional.cross_entropy(outputs, targets)


@torch.no_grad()
def evaluate(model: nn.Sequential, inputs: Tensor, targets: Tensor) -> tuple[float, float | None]:
    """The mean loss, and the accuracy if the targets are classes."""
    model.eval()
    loss, hits = 0.0, 0
    for start in range(0, len(targets), TEST_BATCH):
        chosen = slice(start, start + TEST_BATCH)
        some, wanted = inputs[chosen], targets[chosen]
        outputs = model(some)
        loss += float(_loss(outputs, wanted)) * len(some)
        if not targets.is_floating_point():
            hits += int((outputs.argmax(1) == wanted).sum())
    accuracy = None if targets.is_floating_point() else hits / len(targets)
    return loss / len(targets), accuracy
