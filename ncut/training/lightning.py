"""A callback for PyTorch Lightning."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch

from ncut.errors import InputError, import_extra
from ncut.training.monitor import Monitor, Watching

NAMES = ("lightning.pytorch", "pytorch_lightning")
"""One library, published as two packages with different classes."""

SHARDED = {"DeepSpeedStrategy", "FSDPStrategy", "ModelParallelStrategy"}
"""Strategies in which each process holds a part of the weights."""


def _library() -> ModuleType:
    """The package already imported, otherwise an installed one."""
    for name in NAMES:
        loaded = sys.modules.get(name)
        if loaded is not None:
            return loaded
    try:
        return import_extra(NAMES[0], "lightning")
    except ImportError as missing:
        try:
            return import_extra(NAMES[1], "lightning")
        except ImportError:
            raise missing from None


if TYPE_CHECKING:
    from lightning.pytorch import Callback, LightningModule, Trainer
else:
    Callback = _library().Callback


class ClusterabilityCallback(Watching, Callback):
    """Logs a network's clusterability during training, and optionally adds a regularizer.

    The regularizer's gradient is added to the task's right before each optimizer step: after the
    gradients of accumulated batches and of all processes have been averaged and unscaled, and
    before they are clipped. `training_step` therefore stays unchanged, the loss that it logs
    excludes the regularizer, and accumulation does not multiply the regularizer. Each of several
    optimizers gets the gradient of its parameters.

    The first process measures, and every logger of the trainer gets the values at
    `trainer.global_step`, independently of `log_every_n_steps`; during training callbacks that
    monitor a metric, such as `EarlyStopping("ncut/ncut")`, see the values too. The regularizer's
    value and eigenvalues ("ncut/regularizer", "ncut/regularizer_lambda_2", ...) are logged like
    other metrics of a training step.

    Parameters
    ----------
    monitor : Monitor, optional
        The measurement; `Monitor()` by default.
    every : int, default 100
        Optimizer steps between measurements; the final weights are measured, too. 0: none.
    regularizer : callable, optional
        An `ncut.EigenvalueRegularizer` or another function without arguments that returns a scalar
        tensor; or a function that makes one from the model when fitting starts, such as
        `functools.partial(ncut.EigenvalueRegularizer, weight=0.05)`. One that counts its calls
        (`every`) counts steps only if one optimizer holds all weights.
    normalize : bool, default False
        Call the regularizer's `normalize_()` before each batch; if gradients are accumulated,
        before the first batch of each step.
    submodule : str, default ""
        The part of the Lightning module that is measured and given to the function that makes the
        regularizer, such as "model" or "net.encoder"; by default all of it.

    Raises
    ------
    InputError
        If an argument cannot be used; when fitting starts if weights are sharded (FSDP,
        DeepSpeed), so that no process has all that the regularizer needs; at the first step if
        the only optimizer holds none of the regularizer's weights.

    Examples
    --------
    >>> from functools import partial
    >>> import ncut
    >>> from ncut.training.monitor import Monitor
    >>> callback = ClusterabilityCallback(
    ...     Monitor(k=4, shuffles=20),
    ...     every=500,
    ...     regularizer=partial(ncut.EigenvalueRegularizer, weight=0.05),
    ... )
    """

    def __init__(
        self,
        monitor: Monitor | None = None,
        *,
        every: int = 100,
        regularizer: Callable[..., Any] | None = None,
        normalize: bool = False,
        submodule: str = "",
    ) -> None:
        super().__init__(monitor, every, regularizer, normalize, submodule)
        self._seen = 0  # optimizer steps at the end of the last batch

    def state_dict(self) -> dict[str, Any]:
        """The regularizer's state, which Lightning saves with its checkpoints."""
        return self._penalty.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the regularizer's state."""
        self._penalty.load_state_dict(state_dict)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the regularizer."""
        self._penalty.start(self._network(pl_module))
        strategy = type(trainer.strategy).__name__
        if self.regularizer is not None and strategy in SHARDED:
            raise InputError(f"regularizer: cannot see weights that {strategy} shards")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the start step of the training, which is not 0 after a checkpoint."""
        self._seen, self._measured = trainer.global_step, -1

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Normalize the weights, unless gradients for the current weights have been accumulated."""
        if batch_idx % trainer.accumulate_grad_batches == 0:
            self._penalty.normalize()

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Add the regularizer's gradient."""
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        self._penalty.add_gradient(optimizer, scaler=scaler, is_only=len(trainer.optimizers) == 1)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Log, and measure if another `every` steps are complete."""
        pl_module.log_dict(self._penalty.values(), on_step=True, on_epoch=False)
        step, before = trainer.global_step, self._seen
        self._seen = step
        if self.every and step // self.every > before // self.every:
            values = self._measure(trainer, pl_module)
            pl_module.log_dict(values, logger=False, on_step=True, on_epoch=False)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the trained network."""
        if self.every and self._measured != trainer.global_step:
            self._measure(trainer, pl_module)

    def _measure(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, float]:
        """Measure in the first process, log, and tell all processes."""
        self._measured = trainer.global_step
        values: dict[str, float] = {}
        if trainer.is_global_zero:
            values = self.monitor.measure(self._network(pl_module))
        # Early stopping and other callbacks have to see the same values in all processes.
        values = trainer.strategy.broadcast(values)
        if values:
            for logger in trainer.loggers:
                logger.log_metrics(values, step=trainer.global_step)
                logger.save()
        return values
