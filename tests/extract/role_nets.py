"""Networks and roles that tests of several files use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from ncut.graphs import NeuronGraph

torch = pytest.importorskip("torch", reason="pip install 'ncut[torch]'")
from torch import nn  # noqa: E402

Role = tuple[str, bool | None, tuple[str, ...]]


Make = Callable[[int], Any]


def roles(graph: NeuronGraph) -> list[Role]:
    return [(layer.name, layer.rescalable, layer.read_by) for layer in graph.layers]


def ties(graph: NeuronGraph) -> list[tuple[str, str, bool]]:
    return [(block.name, block.tie, block.tie_transposed) for block in graph.blocks]


KEEPING: dict[str, Make] = {
    "nothing": lambda n: nn.Identity(),
    "relu": lambda n: nn.ReLU(inplace=True),
    "leaky": lambda n: nn.LeakyReLU(0.2),
    "prelu": lambda n: nn.PReLU(),
    "prelu each": nn.PReLU,
    "rrelu": lambda n: nn.RReLU(),
    "threshold": lambda n: nn.Threshold(0, 0),
    "dropout": lambda n: nn.Dropout(0.3),
}


CHANGING: dict[str, Make] = {
    "gelu": lambda n: nn.GELU(),
    "tanh": lambda n: nn.Tanh(),
    "sigmoid": lambda n: nn.Sigmoid(),
    "softplus": lambda n: nn.Softplus(),
    "silu": lambda n: nn.SiLU(),
    "elu": lambda n: nn.ELU(),
    "relu6": lambda n: nn.ReLU6(),
    "hardtanh": lambda n: nn.Hardtanh(),
    "threshold 1": lambda n: nn.Threshold(0.1, 0),
    "threshold value": lambda n: nn.Threshold(0, 0.1),
    "layer norm": nn.LayerNorm,
    "rms norm": nn.RMSNorm,
    "group norm": lambda n: nn.GroupNorm(1, n),
    "softmax": lambda n: nn.Softmax(dim=1),
}


FLAT: dict[str, Make] = {**KEEPING, "batch norm": nn.BatchNorm1d, **CHANGING}


MAPS: dict[str, Make] = {
    **KEEPING,
    "dropout": lambda n: nn.Dropout2d(0.3),
    "batch norm": nn.BatchNorm2d,
    "max pool": lambda n: nn.MaxPool2d(2, stride=1, padding=1),
    "avg pool": lambda n: nn.AvgPool2d(2, stride=1, padding=1),
    "lp pool": lambda n: nn.LPPool2d(2, 2, stride=1),
    "upsample": lambda n: nn.Upsample(scale_factor=2, mode="bilinear"),
    "adaptive": lambda n: nn.AdaptiveAvgPool2d(5),
    "zero pad": lambda n: nn.ZeroPad2d(1),
    "reflect": lambda n: nn.ReflectionPad2d(1),
    "constant pad 0": lambda n: nn.ConstantPad2d(1, 0.0),
    "constant pad 1": lambda n: nn.ConstantPad2d(1, 1.0),
    "instance norm": lambda n: nn.InstanceNorm2d(n, affine=True),
    "softmax2d": lambda n: nn.Softmax2d(),
    "tanh": lambda n: nn.Tanh(),
    "gelu": lambda n: nn.GELU(),
}


KEEP = {*KEEPING, "batch norm", "max pool", "avg pool", "lp pool", "upsample", "adaptive"} | {
    "zero pad",
    "reflect",
    "constant pad 0",
}


def perceptron(*between: Sequence[Any], sizes: Sequence[int] = (5, 7, 6, 4, 3)) -> Any:
    """Linear layers with these modules between them."""
    parts: list[Any] = []
    for at, pieces in enumerate(between):
        parts += [nn.Linear(sizes[at], sizes[at + 1]), *pieces]
    return nn.Sequential(*parts, nn.Linear(sizes[len(between)], 3))


class Twice(nn.Module):
    """A layer called twice, between two layers called once."""

    def __init__(self) -> None:
        super().__init__()
        self.start, self.twice = nn.Linear(3, 4), nn.Linear(4, 4)
        self.middle, self.end = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Any) -> Any:
        x = torch.relu(self.twice(torch.relu(self.start(x))))
        x = torch.relu(self.twice(torch.relu(self.middle(x))))
        return self.end(x)
