"""Regularize and measure the MLP blocks of a small transformer that Hugging Face's Trainer trains.

The transformer learns to fill in masked letters of Python's documentation.
Runs in seconds:  python examples/hugging_face_trainer.py
"""

from __future__ import annotations

import argparse
import pydoc_data.topics
import tempfile
from functools import partial

import torch
from torch.utils.data import Dataset
from transformers import BertConfig, BertForMaskedLM, Trainer, TrainingArguments, set_seed

import ncut
from ncut.training import Monitor
from ncut.training.hugging_face import ClusterabilityCallback

MASK = 128
LENGTH = 32
BLOCKS = ["bert.encoder.layer.*.intermediate.dense", "bert.encoder.layer.*.output.dense"]


class MaskedText(Dataset[dict[str, torch.Tensor]]):
    """Pieces of text as ASCII codes, one in seven masked; only masked ones count in the loss."""

    def __init__(self) -> None:
        text = "".join(pydoc_data.topics.topics.values())
        codes = torch.tensor(list(text.encode("ascii", "replace")))
        self.pieces = codes[: len(codes) // LENGTH * LENGTH].reshape(-1, LENGTH)
        generator = torch.Generator().manual_seed(0)
        self.masked = torch.rand(self.pieces.shape, generator=generator) < 1 / 7

    def __len__(self) -> int:
        return len(self.pieces)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        piece, masked = self.pieces[index], self.masked[index]
        return {
            "input_ids": piece.masked_fill(masked, MASK),
            "labels": piece.masked_fill(~masked, -100),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300, help="batches of 32 pieces of text")
    steps = parser.parse_args().steps

    set_seed(0)
    model = BertForMaskedLM(
        BertConfig(
            vocab_size=MASK + 1,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=LENGTH,
        )
    )
    trainer = Trainer(
        model,
        TrainingArguments(
            tempfile.mkdtemp(),
            max_steps=steps,
            per_device_train_batch_size=32,
            learning_rate=3e-3,
            logging_steps=max(steps // 6, 1),
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            use_cpu=True,
        ),
        train_dataset=MaskedText(),
    )
    clusterability = ClusterabilityCallback(
        trainer,
        Monitor(k=4, shuffles=5),
        every=max(steps // 3, 1),
        regularizer=partial(ncut.EigenvalueRegularizer, layers=BLOCKS, weight=0.05),
    )
    trainer.add_callback(clusterability)
    trainer.train()

    measured = [entry for entry in trainer.state.log_history if "ncut/ncut" in entry]
    for entry in measured:
        print(f"step {entry['step']}: n-cut {entry['ncut/ncut']:.3f}", end=", ")
        print(f"that of its shuffles {entry['ncut/shuffled_mean']:.3f}")
    eigenvalues = clusterability.regularizer.eigenvalues
    print("eigenvalues of the MLP blocks:", ", ".join(f"{value:.3f}" for value in eigenvalues))


if __name__ == "__main__":
    main()
