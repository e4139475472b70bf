"""Train the paper's small convolutional network on MNIST, unpruned and pruned, for the docs.

    python scripts/train_cnn.py FOLDER OUT [--images 20000] [--epochs 4]

FOLDER holds MNIST's four IDX files; OUT gets cnn-unpruned.safetensors and cnn-pruned.safetensors,
state dicts that `ncut.graph` reads. Three convolutions of 64 channels (3 x 3, same padding),
2 x 2 maximum pooling after the second and the third, dense 128 and 10; Adam, batches of 64; then as
many epochs again while the smallest weights of each layer are pruned, from 50 to 90 percent on a
cubic schedule. Source: Filan et al. (2021), appendix A.2, here with fewer images and epochs.
"""

from __future__ import annotations

import argparse
import gzip
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional
from torch.nn.utils import prune

FINAL_SPARSITY, INITIAL_SPARSITY = 0.9, 0.5
STEPS_BETWEEN_MASKS = 10
BATCH = 64


def read_idx(folder: Path, name: str) -> np.ndarray:
    """One of the IDX files, plain or gzipped."""
    (path,) = [path for path in folder.iterdir() if path.name.startswith(name)]
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    n_axes = content[3]
    shape = np.frombuffer(content, ">i4", n_axes, 4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * n_axes).reshape(shape)


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 64, 3, padding=1), nn.ReLU(),
        nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(64 * 49, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip


def train(model: nn.Sequential, images: torch.Tensor, labels: torch.Tensor, epochs: int,
          pruned: bool, generator: torch.Generator) -> None:  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, eps=1e-7)
    layers = [layer for layer in model if isinstance(layer, nn.Conv2d | nn.Linear)]
    n_steps, step = epochs * (len(images) // BATCH), 0
    for epoch in range(epochs):
        model.train()
        total = 0.0
        for chosen in torch.randperm(len(images), generator=generator).split(BATCH):
            if pruned and step % STEPS_BETWEEN_MASKS == 0:
                left = (1 - step / n_steps) ** 3
                sparsity = FINAL_SPARSITY + (INITIAL_SPARSITY - FINAL_SPARSITY) * left
                for layer in layers:
                    set_mask(layer, sparsity)
            loss = functional.cross_entropy(model(images[chosen]), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            total += float(loss)
        print(f"  epoch {epoch + 1}: loss {total / (len(images) // BATCH):.4f}", flush=True)


def set_mask(layer: nn.Module, sparsity: float) -> None:
    """Prune this share of a layer's weights, those of least magnitude among all of them."""
    weight = layer.weight_orig if hasattr(layer, "weight_orig") else layer.weight
    n_pruned = round(sparsity * weight.numel())
    mask = torch.ones(weight.numel())
    mask[weight.detach().abs().flatten().argsort()[:n_pruned]] = 0
    if prune.is_pruned(layer):
        layer.weight_mask.copy_(mask.reshape(weight.shape))
    else:
        prune.custom_from_mask(layer, "weight", mask.reshape(weight.shape))


@torch.no_grad()
def accuracy(model: nn.Sequential, images: torch.Tensor, labels: torch.Tensor) -> float:
    model.eval()
    hits = [
        (model(x).argmax(1) == y).sum()
        for x, y in zip(images.split(500), labels.split(500), strict=True)
    ]
    return int(sum(hits)) / len(labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--epochs", type=int, default=4)
    arguments = parser.parse_args()
    data = {
        part: (
            torch.tensor(read_idx(arguments.folder, f"{part}-images")).float().div(255)[:, None],
            torch.tensor(read_idx(arguments.folder, f"{part}-labels")).long(),
        )
        for part in ("train", "t10k")
    }
    images, labels = (values[: arguments.images] for values in data["train"])
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    model = network()
    for name in ("unpruned", "pruned"):
        train(model, images, labels, arguments.epochs, name == "pruned", generator)
        print(f"{name}: test accuracy {accuracy(model, *data['t10k']):.4f}", flush=True)
        weights = {key: value.contiguous() for key, value in model.state_dict().items()}
        save_file(weights, arguments.out / f"cnn-{name}.safetensors")


if __name__ == "__main__":
    main()
