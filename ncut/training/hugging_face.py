"""A callback for the Trainer of Hugging Face's transformers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ncut.errors import InputError, import_extra
from ncut.files import reading, regular_file, write_file
from ncut.training.monitor import Monitor, Watching

if TYPE_CHECKING:
    from transformers import Trainer, TrainerCallback
else:
    TrainerCallback = import_extra("transformers", "huggingface").TrainerCallback


class ClusterabilityCallback(Watching, TrainerCallback):
    """Logs a network's clusterability during training, and optionally adds a regularizer.

    The regularizer's gradient is added to the task's right before each optimizer step: after the
    gradients of accumulated batches and of all processes have been averaged, unscaled and clipped.
    The loss and the gradient norm in the Trainer's log therefore exclude the regularizer,
    `max_grad_norm` does not bound it, and accumulation does not multiply it.

    Measurements go through `trainer.log` to `trainer.state.log_history` and to all loggers in
    `report_to` (TensorBoard and Weights & Biases show them under "train/ncut/"). The regularizer's
    value and eigenvalues ("ncut/regularizer", "ncut/regularizer_lambda_2", ...) are logged at the
    Trainer's `logging_steps`, in a separate entry.

    Parameters
    ----------
    trainer : transformers.Trainer
        The trainer to which the callback is added; the callback needs it for logging:
        `trainer.add_callback(ClusterabilityCallback(trainer))`.
    monitor : Monitor, optional
        The measurement; `Monitor()` by default.
    every : int, default 100
        Optimizer steps between measurements; the final weights are measured, too. 0: none.
    regularizer : callable, optional
        An `ncut.EigenvalueRegularizer` or another function without arguments that returns a scalar
        tensor; or a function that makes one from the model when training begins, such as
        `functools.partial(ncut.EigenvalueRegularizer, weight=0.05)`.
    normalize : bool, default False
        Call the regularizer's `normalize_()` before each step.
    submodule : str, default ""
        The part of the model that is measured and given to the function that makes the
        regularizer, such as "bert.encoder"; by default all of it.

    Raises
    ------
    InputError
        If an argument cannot be used; when training begins if weights are sharded (FSDP,
        DeepSpeed), so that no process has all that the regularizer needs; at the first step if
        the optimizer holds none of the regularizer's weights.
    """

    def __init__(
        self,
        trainer: Trainer,
        monitor: Monitor | None = None,
        *,
        every: int = 100,
        regularizer: Callable[..., Any] | None = None,
        normalize: bool = False,
        submodule: str = "",
    ) -> None:
        super().__init__(monitor, every, regularizer, normalize, submodule)
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Make the regularizer."""
        self._measured = -1
        self._penalty.start(self._network(kwargs["model"]))
        sharded = self.trainer.is_deepspeed_enabled or self.trainer.is_fsdp_enabled
        if self.regularizer is not None and sharded:
            raise InputError("regularizer: cannot see weights that FSDP or DeepSpeed shards")

        path = _state_path(args, state)
        if state.global_step and path.exists():
            with reading(path, "a regularizer's state", InputError):
                saved = torch.load(regular_file(path), weights_only=True)
            self._penalty.load_state_dict(saved)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Save the regularizer's state in the folder of the checkpoint."""
        path, saved = _state_path(args, state), self._penalty.state_dict()
        if saved and state.is_world_process_zero and path.parent.is_dir():
            write_file(path, lambda part: torch.save(saved, part))

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Normalize the weights, before the first of the batches that are accumulated."""
        self._penalty.normalize()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Add the regularizer's gradient."""
        optimizer = kwargs["optimizer"]
        inner = getattr(optimizer, "optimizer", optimizer)
        self._penalty.add_gradient(inner, scaler=getattr(optimizer, "scaler", None))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Log at the Trainer's steps, and measure at every `every`-th step and at the last."""
        values = self._penalty.values() if control.should_log else {}
        # The end is usually known here; loggers may be closed when on_train_end is called.
        is_due = self.every and (
            state.global_step % self.every == 0 or control.should_training_stop
        )
        if is_due:
            values |= self._measure(state, kwargs["model"])
        self._log(state, control, values)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure the trained network, if the last step was not recognized as the last."""
        if self.every and self._measured != state.global_step:
            self._log(state, control, self._measure(state, kwargs["model"]))

    def _measure(self, state: Any, model: nn.Module) -> dict[str, float]:
        self._measured = state.global_step
        if not state.is_world_process_zero:
            return {}
        return self.monitor.measure(self._network(model))

    def _log(self, state: Any, control: Any, values: dict[str, float]) -> None:
        if not values or not state.is_world_process_zero:
            return
        # Logging clears this flag, and the Trainer would no longer log the task's loss.
        should_log = control.should_log
        self.trainer.log(values)
        control.should_log = should_log


def _state_path(args: Any, state: Any) -> Path:
    """Path of the Trainer's checkpoint of this step, in the run's folder."""
    return Path(args.output_dir or "") / f"checkpoint-{state.global_step}" / "ncut_regularizer.pt"
