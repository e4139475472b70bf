"""Small networks of each convolutional family against their own responses.

Channels are perturbed one after the other (see `perturbation`).
"""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from ncut.extract import read_graph

torch = pytest.importorskip("torch", reason="pip install 'ncut[torch]'")
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402, N812
from vision_nets import (  # noqa: E402
    Branches,
    Dense,
    Excited,
    Residual,
    agrees,
    basic,
    bottleneck,
    conv,
    head,
    inverted,
)

from ncut.extract.readers.traced import running as perturbation  # noqa: E402

pytestmark = pytest.mark.usefixtures("doubles")


def image(*sizes):
    return [torch.randn(1, 3, *(sizes or (16, 16)))]


def vgg():
    layers = [conv(3, 4), conv(4, 6), nn.MaxPool2d(2), conv(6, 8), nn.MaxPool2d(2), nn.Flatten()]
    return nn.Sequential(
        *layers, nn.Linear(8 * 16, 12), nn.ReLU(), nn.Dropout(), nn.Linear(12, 5)
    )  # fmt: skip


def resnet():
    return nn.Sequential(
        conv(3, 4), nn.MaxPool2d(2), basic(4, 4), basic(4, 6, 2), basic(6, 6), head(6)
    )


def resnet_bottleneck():
    return nn.Sequential(
        conv(3, 4), bottleneck(4, 2, 8), bottleneck(8, 2, 8), bottleneck(8, 4, 10, 2), head(10)
    )


class PreActivation(nn.Module):
    def __init__(self, i, o, stride=1):
        super().__init__()
        self.n1, self.c1 = nn.BatchNorm2d(i), nn.Conv2d(i, o, 3, stride, 1)
        self.n2, self.c2 = nn.BatchNorm2d(o), nn.Conv2d(o, o, 3, 1, 1)
        self.project = nn.Conv2d(i, o, 1, stride) if i != o else None

    def forward(self, x):
        y = F.relu(self.n1(x))
        shortcut = x if self.project is None else self.project(y)
        return shortcut + self.c2(F.relu(self.n2(self.c1(y))))


def preactivation():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), PreActivation(4, 4), PreActivation(4, 6, 2), PreActivation(6, 6),
        nn.BatchNorm2d(6), nn.ReLU(), head(6),
    )  # fmt: skip


def inception():
    def block(i):
        return Branches(
            conv(i, 3, 1),
            nn.Sequential(conv(i, 2, 1), conv(2, 4, 5)),
            nn.Sequential(conv(i, 3, 1), conv(3, 3), Branches(conv(3, 2), conv(3, 2, 1))),
            nn.Sequential(nn.AvgPool2d(3, 1, 1), conv(i, 2, 1)),
        )

    reduction = Branches(conv(13, 4, 3, 2), nn.MaxPool2d(3, 2, 1))
    return nn.Sequential(conv(3, 4), block(4), reduction, block(17), head(13))


def densenet():
    transition = [nn.BatchNorm2d(10), nn.ReLU(), nn.Conv2d(10, 5, 1), nn.AvgPool2d(2)]
    return nn.Sequential(
        conv(3, 4),
        Dense(4, 3, 2),
        *transition,
        Dense(5, 2, 2),
        nn.BatchNorm2d(9),
        nn.ReLU(),
        head(9),
    )


def mobilenet():
    return nn.Sequential(
        conv(3, 4, stride=2), inverted(4, 6), inverted(6, 6), inverted(6, 8, 2, 2), inverted(8, 8),
        conv(8, 10, 1), head(10),
    )  # fmt: skip


def mobilenet_v3():
    return nn.Sequential(
        conv(3, 4, stride=2, act=nn.Hardswish), inverted(4, 4, 2, act=nn.ReLU, excite=True),
        inverted(4, 6, 2, act=nn.Hardswish, excite=True), head(6),
    )  # fmt: skip


def efficientnet():
    return nn.Sequential(
        conv(3, 4, stride=2, act=nn.SiLU), inverted(4, 4, 2, act=nn.SiLU, excite=True),
        inverted(4, 6, 2, 2, nn.SiLU, True), inverted(6, 6, 2, 1, nn.SiLU, True), head(6),
    )  # fmt: skip


class ChannelsLastNorm(nn.LayerNorm):
    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNext(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.depthwise, self.norm = nn.Conv2d(n, n, 7, 1, 3, groups=n), nn.LayerNorm(n)
        self.up, self.down = nn.Linear(n, 2 * n), nn.Linear(2 * n, n)
        self.scale = nn.Parameter(torch.full((n,), 1e-6))

    def forward(self, x):
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        return x + (self.scale * self.down(F.gelu(self.up(y)))).permute(0, 3, 1, 2)


def convnext():
    return nn.Sequential(
        nn.Conv2d(3, 4, 2, 2), ChannelsLastNorm(4), ConvNext(4), ConvNext(4),
        ChannelsLastNorm(4), nn.Conv2d(4, 6, 2, 2), ConvNext(6),
        nn.AdaptiveAvgPool2d(1), ChannelsLastNorm(6), nn.Flatten(), nn.Linear(6, 3),
    )  # fmt: skip


def regnet():
    def block(i, o, stride):
        project = conv(i, o, 1, stride, act=None) if stride > 1 or i != o else None
        body = [conv(i, o, 1), conv(o, o, 3, stride, o // 2), Excited(o, nn.ReLU)]
        return Residual(nn.Sequential(*body, conv(o, o, 1, act=None)), project, nn.ReLU())

    return nn.Sequential(conv(3, 4, stride=2), block(4, 6, 2), block(6, 6, 1), head(6))


class Shuffled(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.branch = nn.Sequential(conv(n, n, 1), conv(n, n, 3, groups=n, act=None), conv(n, n, 1))

    def forward(self, x):
        a, b = x.chunk(2, dim=1)
        y = torch.cat([a, self.branch(b)], 1)
        n, c, h, w = y.shape
        return y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


def shufflenet():
    return nn.Sequential(conv(3, 8), Shuffled(4), Shuffled(4), Shuffled(4), head(8))


class Unet(nn.Module):
    def __init__(self):
        super().__init__()
        self.d1, self.d2, self.d3 = conv(3, 4), conv(4, 6), conv(6, 8)
        self.up2, self.u2 = nn.ConvTranspose2d(8, 6, 2, 2), conv(12, 6)
        self.up1, self.u1 = nn.Upsample(scale_factor=2, mode="bilinear"), conv(10, 4)
        self.out = nn.Conv2d(4, 2, 1)

    def forward(self, x):
        a = self.d1(x)
        b = self.d2(F.max_pool2d(a, 2))
        c = self.d3(F.max_pool2d(b, 2))
        b = self.u2(torch.cat([b, self.up2(c)], 1))
        return self.out(self.u1(torch.cat([self.up1(b), a], 1)))


class Pooled(nn.Module):
    """A PoolFormer's block: pooling in place of attention."""

    def __init__(self, n):
        super().__init__()
        self.n1, self.n2 = nn.GroupNorm(1, n), nn.GroupNorm(1, n)
        self.up, self.down = nn.Conv2d(n, 2 * n, 1), nn.Conv2d(2 * n, n, 1)

    def forward(self, x):
        y = self.n1(x)
        x = x + F.avg_pool2d(y, 3, 1, 1, count_include_pad=False) - y
        return x + self.down(F.gelu(self.up(self.n2(x))))


class Mixer(nn.Module):
    def __init__(self, n, tokens):
        super().__init__()
        self.n1, self.n2 = nn.LayerNorm(n), nn.LayerNorm(n)
        self.t1, self.t2 = nn.Linear(tokens, 7), nn.Linear(7, tokens)
        self.c1, self.c2 = nn.Linear(n, 2 * n), nn.Linear(2 * n, n)

    def forward(self, x):
        x = x + self.t2(F.gelu(self.t1(self.n1(x).transpose(1, 2)))).transpose(1, 2)
        return x + self.c2(F.gelu(self.c1(self.n2(x))))


class Patches(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.project = nn.Conv2d(3, n, 4, 4)

    def forward(self, x):
        return self.project(x).flatten(2).transpose(1, 2)


class MeanOfTokens(nn.Module):
    def forward(self, x):
        return x.mean(1)


def mixer():
    return nn.Sequential(
        Patches(6), Mixer(6, 16), Mixer(6, 16), nn.LayerNorm(6), MeanOfTokens(), nn.Linear(6, 3)
    )


FAMILIES = {
    "vgg": vgg, "resnet": resnet, "bottleneck": resnet_bottleneck, "preactivation": preactivation,
    "inception": inception, "densenet": densenet, "mobilenet_v2": mobilenet,
    "mobilenet_v3": mobilenet_v3, "efficientnet": efficientnet, "convnext": convnext,
    "regnet": regnet, "shufflenet": shufflenet, "unet": Unet, "mixer": mixer,
    "poolformer": lambda: nn.Sequential(conv(3, 4), Pooled(4), Pooled(4), head(4)),
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_neighbours_are_the_neurons_that_change(family):
    agrees(FAMILIES[family](), image())


def test_the_check_sees_a_wrong_edge():
    """Channels that a graph has in another order are found out."""

    class Swapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = conv(3, 4), conv(4, 4, groups=2), conv(4, 4, groups=2)
            self.swap = False

        def forward(self, x):
            x = self.b(self.a(x))
            return self.c(x.flip(1)[:, [0, 2, 1, 3]] if self.swap else x)

    model = perturbation.randomized(Swapped())
    inputs = tuple(image())
    graph = read_graph(model, scope="all", residual="readers", example_inputs=inputs)
    assert perturbation.check(model, graph, inputs).agrees
    model.swap = True
    outcome = perturbation.check(model, graph, inputs)
    assert outcome.missing
    assert outcome.surplus


def grown(model, graph, inputs, *, n):
    """The response of convolutions' inputs per unit of change, and the weights of the edges.

    The change is the same at all positions; the response is its maximum over positions.
    """
    watch = perturbation.TorchWatch(model, graph, inputs, perturbation.READERS)
    rng = np.random.default_rng(0)
    starts = [layer.start for layer in graph.layers]
    pairs = []
    with watch.watching():
        baseline = watch.run({})
        found = [r for r in watch.usable() if hasattr(watch.modules[r.module], "kernel_size")]
        for at in rng.permutation(len(found))[:n]:
            origin = found[at]
            vertex = int(rng.integers(origin.size))
            read = watch.with_change(origin, vertex, baseline, np.ones_like)
            row = graph.adjacency[[starts[origin.layer] + vertex]].toarray()[0]
            for target in found:
                if target.layer <= origin.layer:
                    continue
                difference = np.abs(read[target.key] - baseline[target.key])
                largest = watch.by_vertex(target, difference).max(axis=1)
                weights = row[starts[target.layer] : starts[target.layer] + target.size]
                pairs += [(float(a), float(b)) for a, b in zip(largest, weights, strict=True) if b]
    return pairs


@pytest.mark.parametrize("family", ["resnet", "bottleneck", "inception", "densenet", "shufflenet"])
def test_edges_are_as_large_as_the_response(family):
    """With positive weights and no activations, a change grows by the edge's weight.

    Constants stay what they are in the middle of a large image, where a kernel's entries sum
    up to its norm; features, which are means over all positions, are left out.
    """
    model = perturbation.randomized(FAMILIES[family]())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.abs_()
    for part in model.modules():
        for name, child in part.named_children():
            if isinstance(child, nn.ReLU):
                setattr(part, name, nn.Identity())
            if isinstance(child, nn.BatchNorm2d) and family == "densenet":
                # Before an activation, its factor is on the way to the one who reads it.
                child.running_var.fill_(1 - child.eps)
                child.weight.data.fill_(1.0)
    inputs = tuple(image(48, 48))
    graph = read_graph(model, scope="all", residual="readers", example_inputs=inputs)
    compared = grown(model, graph, inputs, n=12)
    assert len(compared) > 20
    found, expected = np.array(compared).T
    assert_allclose(found, expected, rtol=1e-7)
