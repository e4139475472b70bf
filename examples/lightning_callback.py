"""Regularize and measure a network that PyTorch Lightning trains, without changing its module.

Runs in seconds:  python examples/lightning_callback.py
The curves are in lightning_logs/ of the given folder:  tensorboard --logdir FOLDER
"""

from __future__ import annotations

import argparse
import tempfile
from functools import partial
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import ncut
from ncut.training import Monitor
from ncut.training.lightning import ClusterabilityCallback

SHOWN = ("ncut/ncut", "ncut/shuffled_mean", "ncut/lambda_2")


class Digits(pl.LightningModule):
    """A classifier of 8 x 8 images, without any code for ncut."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)
        )

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        images, labels = batch
        loss = nn.functional.cross_entropy(self.net(images), labels)
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters())


class Printer(pl.Callback):
    """Prints each measurement, which is available as a regular metric."""

    def __init__(self) -> None:
        self.last: dict[str, float] = {}

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        metrics = trainer.callback_metrics.items()
        found = {name: float(value) for name, value in metrics if name in SHOWN}
        if found != self.last:
            values = ", ".join(f"{name} {value:.3f}" for name, value in found.items())
            print(f"step {trainer.global_step}: {values}")
        self.last = found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=600, help="batches of 64 images")
    parser.add_argument("--folder", type=Path, help="for the curves; a temporary one by default")
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp())

    pl.seed_everything(0)
    images, labels = load_digits(return_X_y=True)
    data = TensorDataset(torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels))
    clusterability = ClusterabilityCallback(
        Monitor(k=4, shuffles=10),
        every=max(arguments.steps // 6, 1),
        regularizer=partial(ncut.EigenvalueRegularizer, weight=0.1),
        normalize=True,
        submodule="net",
    )
    trainer = pl.Trainer(
        max_steps=arguments.steps,
        callbacks=[clusterability, Printer()],
        logger=TensorBoardLogger(folder),
        log_every_n_steps=10,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    trainer.fit(Digits(), DataLoader(data, batch_size=64, shuffle=True))
    eigenvalues = clusterability.regularizer.eigenvalues
    print("the regularizer's eigenvalues:", ", ".join(f"{value:.3f}" for value in eigenvalues))
    print(f"tensorboard --logdir {folder}")


if __name__ == "__main__":
    main()
