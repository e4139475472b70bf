"""The paper's networks, initialized as Keras does it. Source: Filan et al. (2021), appendix A.2."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

CONV_DROPOUT, DENSE_DROPOUT = 0.25, 0.5

VGG = (
    (64, 0.3), (64, None), "pool", (128, 0.4), (128, None), "pool",
    (256, 0.4), (256, 0.4), (256, None), "pool", (512, 0.4), (512, 0.4), (512, None), "pool",
    (512, 0.4), (512, 0.4), (512, 0.5), "pool",
)  # fmt: skip
"""Channels and dropout rates of Liu and Deng's VGG-16 for CIFAR-10; pooling precedes the batch norm
of the layer before."""


class Dropout(nn.Dropout):
    """Dropout whose masks are cut from whole random words: torch's take several times as long.

    The rate is rounded to a multiple of 2^-16.
    """

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return input
        words = torch.empty(-(-input.numel() // 4), dtype=torch.int64, device=input.device)
        draws = words.random_(-(2**63), None).view(torch.int16)[: input.numel()].view(input.shape)
        kept = draws >= round(self.p * 2**16) - 2**15
        return input * kept.to(input.dtype).mul_(1 / (1 - self.p))


@dataclass(frozen=True)
class Network:
    """A network's name, and the paper's training settings.

    Attributes
    ----------
    widths : tuple of int
        Widths of a multi-layer perceptron, including inputs and outputs; empty for other networks.
    epochs : tuple of int
        Numbers of epochs before and during pruning.
    l1, l2 : float
        Weights of the penalties, if used: factors of the sum of |w| or of w^2, as in Keras.
    beta : float
        Parameter of the clusterable initialization.
    """

    widths: tuple[int, ...]
    epochs: tuple[int, int]
    batch: int
    l1: float = 5e-5
    l2: float = 5e-5
    beta: float = 0.8
    augment: bool = False

    @property
    def is_convolutional(self) -> bool:
        return not self.widths


NETWORKS = {
    "mlp": Network((784, 256, 256, 256, 256, 10), (20, 20), 128, beta=0.6),
    "small-mlp": Network((49, 64, 64, 64, 10), (10, 10), 128, beta=0.6),
    "polynomial-mlp": Network((2, 256, 256, 256, 256, 512), (20, 20), 128, beta=0.6),
    "small-cnn": Network((), (10, 10), 64),
    "vgg": Network((), (200, 50), 128, l2=5e-4, augment=True),
}


def build(name: str, dropout: bool = False, channels: int = 1) -> nn.Sequential:
    """A network with uniform Glorot weights and zero biases, from torch's global generator.

    `dropout`: with dropout after hidden layers, at the paper's rates. `channels`: of the images
    that a convolutional network reads.
    """
    if NETWORKS[name].widths:
        modules = _mlp(NETWORKS[name].widths, dropout)
    elif name == "vgg":
        modules = _vgg(channels, dropout)
    else:
        modules = _small_cnn(channels, dropout)
    model = nn.Sequential(*modules)
    for module in layers_of(model):
        nn.init.xavier_uniform_(module.weight)
        assert module.bias is not None
        nn.init.zeros_(module.bias)
    return model


def layers_of(model: nn.Sequential) -> list[nn.Linear | nn.Conv2d]:
    """The layers with weights, in order."""
    return [module for module in model if isinstance(module, nn.Linear | nn.Conv2d)]


def without_batch_norm(model: nn.Sequential) -> nn.Sequential:
    """The same layers, shared, without batch norms."""
    kept = [module for module in model if not isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]
    return nn.Sequential(*kept)


def _mlp(widths: tuple[int, ...], dropout: bool) -> Iterator[nn.Module]:
    for n_in, n_out in itertools.pairwise(widths[:-1]):
        yield nn.Linear(n_in, n_out)
        yield nn.ReLU()
        if dropout:
            yield Dropout(DENSE_DROPOUT)
    yield nn.Linear(widths[-2], widths[-1])


def _small_cnn(channels: int, dropout: bool) -> Iterator[nn.Module]:
    for n_in, pooled in ((channels, False), (64, True), (64, True)):
        yield nn.Conv2d(n_in, 64, 3, padding=1)
        yield nn.ReLU()
        if pooled:
            yield nn.MaxPool2d(2)
        if dropout:
            yield Dropout(CONV_DROPOUT)
    yield from (nn.Flatten(), nn.Linear(64 * 49, 128), nn.ReLU())
    if dropout:
        yield Dropout(DENSE_DROPOUT)
    yield nn.Linear(128, 10)


def _vgg(channels: int, dropout: bool) -> Iterator[nn.Module]:
    for entry, following in itertools.pairwise((*VGG, None)):
        if isinstance(entry, str):
            continue
        assert entry is not None
        width, rate = entry
        yield nn.Conv2d(channels, width, 3, padding=1)
        yield nn.ReLU()
        if following == "pool":
            yield nn.MaxPool2d(2)
        yield nn.BatchNorm2d(width, eps=1e-3, momentum=0.01)
        if dropout and rate is not None:
            yield Dropout(rate)
        channels = width
    yield from (nn.Flatten(), nn.Linear(channels, 512), nn.ReLU())
    yield nn.BatchNorm1d(512, eps=1e-3, momentum=0.01)
    if dropout:
        yield Dropout(DENSE_DROPOUT)
    yield from (nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))
