"""Blocks of image networks, and the check of a graph against the network's own responses."""

from __future__ import annotations

import pytest

from ncut.extract import read_graph

torch = pytest.importorskip("torch", reason="pip install 'ncut[torch]'")
from torch import nn  # noqa: E402

from ncut.extract.perturbation import summary  # noqa: E402
from ncut.extract.readers.traced import running as perturbation  # noqa: E402


def agrees(model, inputs, *, n=25, extra=(), watched=0.8, of_one_token=(), **options):
    """Every sampled vertex has the neighbours that its network gives it.

    Positions are not told apart in a graph, so that what reads one token alone, such as a
    classifier of the first one, also has edges from what writes the others.
    """
    perturbation.randomized(model)
    example = inputs if isinstance(inputs, dict) else tuple(inputs)
    graph = read_graph(model, scope="all", residual="readers", example_inputs=example, **options)
    readers = (*perturbation.READERS, *extra)
    outcome = perturbation.check(model, graph, example, n=n, readers=readers)
    outcome.surplus = [
        line for line in outcome.surplus if not any(f"-> {one} (" in line for one in of_one_token)
    ]
    assert outcome.agrees, summary(outcome)
    assert outcome.n_readers >= watched * (outcome.n_layers - 1), (
        outcome.n_readers,
        [(layer.name, layer.read_by) for layer in graph.layers],
    )
    return graph


def conv(i, o, k=3, stride=1, groups=1, act=nn.ReLU):
    layers = [
        nn.Conv2d(i, o, k, stride, k // 2, groups=groups, bias=False),
        nn.BatchNorm2d(o),
    ]
    return nn.Sequential(*layers, *([act()] if act else []))


class Residual(nn.Module):
    """x + f(x), with a projection of x where the shape changes, and an activation after."""

    def __init__(self, body, project=None, after=None):
        super().__init__()
        self.body = body
        self.project = project or nn.Identity()
        self.after = after or nn.Identity()

    def forward(self, x):
        return self.after(self.body(x) + self.project(x))


def head(n, out=5):
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(n, out))


class Excited(nn.Module):
    def __init__(self, n, act=nn.SiLU):
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(n, 3, 1), nn.Conv2d(3, n, 1)
        self.act = act()

    def forward(self, x):
        s = x.mean((2, 3), keepdim=True)
        return x * torch.sigmoid(self.expand(self.act(self.reduce(s))))


def basic(i, o, stride=1):
    project = conv(i, o, 1, stride, act=None) if stride > 1 or i != o else None
    return Residual(nn.Sequential(conv(i, o, 3, stride), conv(o, o, act=None)), project, nn.ReLU())


def bottleneck(i, w, o, stride=1, groups=1):
    project = conv(i, o, 1, stride, act=None) if stride > 1 or i != o else None
    body = nn.Sequential(conv(i, w, 1), conv(w, w, 3, stride, groups), conv(w, o, 1, act=None))
    return Residual(body, project, nn.ReLU())


class Branches(nn.Module):
    def __init__(self, *parts):
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x):
        return torch.cat([part(x) for part in self.parts], 1)


class Dense(nn.Module):
    def __init__(self, i, n, growth, wide=5):
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm2d(i + at * growth), nn.ReLU(), nn.Conv2d(i + at * growth, wide, 1),
                nn.BatchNorm2d(wide), nn.ReLU(), nn.Conv2d(wide, growth, 3, 1, 1),
            )
            for at in range(n)
        )  # fmt: skip

    def forward(self, x):
        features = [x]
        for layer in self.layers:
            features.append(layer(torch.cat(features, 1)))
        return torch.cat(features, 1)


def inverted(i, o, expand=3, stride=1, act=nn.ReLU6, excite=False):
    body = [
        conv(i, i * expand, 1, act=act),
        conv(i * expand, i * expand, 3, stride, i * expand, act),
    ]
    body += [Excited(i * expand)] if excite else []
    body = nn.Sequential(*body, conv(i * expand, o, 1, act=None))
    return Residual(body) if stride == 1 and i == o else body


MOBILENET_V2 = [
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
]


def mobilenet_v2():
    layers = [conv(3, 32, 3, 2), conv(32, 32, groups=32), conv(32, 16, 1, act=None)]
    i = 16
    for expand, o, n, stride in MOBILENET_V2:
        for at in range(n):
            layers.append(inverted(i, o, expand, 1 if at else stride))
            i = o
    return nn.Sequential(*layers, conv(320, 1280, 1), head(1280, 10))
