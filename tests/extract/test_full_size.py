"""Numbers of vertices and edges of full-size networks, worked out from their descriptions."""

from __future__ import annotations

import itertools

import pytest

from ncut.extract import read_graph

torch = pytest.importorskip("torch", reason="pip install 'ncut[torch]'")
from torch import nn  # noqa: E402
from vision_nets import MOBILENET_V2, Branches, Dense, basic, bottleneck, conv, head, mobilenet_v2  # noqa: E402

pytestmark = pytest.mark.usefixtures("doubles")


@pytest.mark.parametrize(
    ("widths", "expected"),
    [
        ([64, 64, 128, 128, *[256] * 3, *[512] * 6], 4224),
        ([64, 64, 128, 128, *[256] * 4, *[512] * 8], 5504),
    ],
)
def test_vgg(widths, expected):
    """VGG-16 and VGG-19: every convolution's channels, each read by the next one alone."""
    layers = [
        layer
        for i, o in itertools.pairwise([3, *widths])
        for layer in (nn.Conv2d(i, o, 3), nn.ReLU())
    ]
    pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10)]
    model = nn.Sequential(*layers, *pool).float()
    graph = read_graph(model, example_inputs=torch.zeros(1, 3, 48, 48, dtype=torch.float32))
    assert graph.n_vertices == sum(widths) == expected
    assert graph.n_edges == sum(a * b for a, b in itertools.pairwise(widths))


def resnet_of(stages, wide):
    """Full-size ResNet with random weights: basic blocks, or bottlenecks where `wide` is 4."""
    layers = [conv(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1)]
    i = 64
    for stage, n in enumerate(stages):
        w = 64 * 2**stage
        for at in range(n):
            stride = 2 if stage and not at else 1
            layers.append(bottleneck(i, w, 4 * w, stride) if wide == 4 else basic(i, w, stride))
            i = wide * w
    return nn.Sequential(*layers, head(i, 10))


def resnet_counts(stages, wide):
    """Vertices and edges of the paper's graphs, from the description of the architecture.

    A vertex is an input channel of a convolution (or of the classifier) that other convolutions
    write. Each sum is what all blocks of the stage up to here have added, by an identity or a
    projection; all of them connect to each of its readers.
    """
    vertices = edges = 0
    writers = [3]  # how many inputs each writer of the current sum has: the first convolution's

    def read(channels, *, times=1):
        # One reader's inputs, with an edge from each input of each writer to each of them.
        nonlocal vertices, edges
        vertices += channels * times
        edges += channels * times * sum(n for n in writers if n != 3)

    i = 64
    for stage, n in enumerate(stages):
        w = 64 * 2**stage
        for _at in range(n):
            out = wide * w
            projected = i != out
            read(i, times=2 if projected else 1)
            chain = [w, w] if wide == 4 else [w]
            for a, b in itertools.pairwise([i, *chain]):
                vertices += b
                edges += a * b
            last = chain[-1]
            writers = [i, last] if projected else [*writers, last]
            i = out
    read(i)
    return vertices, edges


@pytest.mark.parametrize(
    ("stages", "wide"),
    [
        ([2, 2, 2, 2], 1),
        pytest.param([3, 4, 6, 3], 1, marks=pytest.mark.slow),
        pytest.param([3, 4, 6, 3], 4, marks=pytest.mark.slow),
    ],
)
def test_resnet(stages, wide):
    torch.set_default_dtype(torch.float32)
    model = resnet_of(stages, wide).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter[parameter == 0] = 1e-3  # one in millions is drawn as none
    graph = read_graph(model, example_inputs=torch.zeros(1, 3, 64, 64))
    vertices, edges = resnet_counts(stages, wide)
    # The classifier and what it reads are not in the paper's graphs of convolutions' channels:
    # the last sum's channels are there once.
    assert graph.n_vertices == vertices
    assert graph.n_edges == edges
    if wide == 4:
        assert (vertices, edges) == (24576, 30703616)


def densenet_121():
    layers = [conv(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1)]
    n = 64
    for number, depth in enumerate((6, 12, 24, 16)):
        layers.append(Dense(n, depth, 32, 128))
        n += 32 * depth
        layers += [nn.BatchNorm2d(n), nn.ReLU()]
        if number < 3:
            layers += [nn.Conv2d(n, n // 2, 1), nn.AvgPool2d(2)]
            n //= 2
    return nn.Sequential(*layers, head(n, 10))


def densenet_121_vertices():
    """Bottlenecks read all that came before them, and write 128 channels; transitions halve."""
    n, total = 64, 0
    for number, depth in enumerate((6, 12, 24, 16)):
        total += sum(n + 32 * at + 128 for at in range(depth))
        n += 32 * depth
        total += n  # a transition, or the classifier
        n = n // 2 if number < 3 else n
    return total


def mobilenet_v2_vertices():
    """Vertices of each block: its input, and the expanded channels around the depthwise kernel."""
    inputs = [16]
    for _, o, n, _ in MOBILENET_V2:
        inputs += [o] * n
    return 32 + 32 + sum(13 * i for i in inputs[:-1]) + 320 + 1280


def inception_v3():
    """Without the auxiliary classifier."""

    def chain(*widths, kernels):
        return nn.Sequential(
            *(conv(i, o, k) for (i, o), k in zip(itertools.pairwise(widths), kernels, strict=True))
        )

    def pooled(i, o):
        return nn.Sequential(nn.AvgPool2d(3, 1, 1), conv(i, o, 1))

    def a(i, o):
        five, three = chain(i, 48, 64, kernels=[1, 5]), chain(i, 64, 96, 96, kernels=[1, 3, 3])
        return Branches(conv(i, 64, 1), five, three, pooled(i, o))

    def c(w):
        # A kernel of 1 x 7 has as many channels as one of 3 x 3.
        once = chain(768, w, w, 192, kernels=[1, 3, 3])
        twice = chain(768, w, w, w, w, 192, kernels=[1, 3, 3, 3, 3])
        return Branches(conv(768, 192, 1), once, twice, pooled(768, 192))

    def e(i):
        def fork(n):
            return Branches(conv(n, 384), conv(n, 384))

        three = nn.Sequential(conv(i, 384, 1), fork(384))
        double = nn.Sequential(conv(i, 448, 1), conv(448, 384), fork(384))
        return Branches(conv(i, 320, 1), three, double, pooled(i, 192))

    b = Branches(
        conv(288, 384, 3, 2),
        nn.Sequential(conv(288, 64, 1), conv(64, 96), conv(96, 96, 3, 2)),
        nn.MaxPool2d(3, 2, 1),
    )
    d = Branches(
        nn.Sequential(conv(768, 192, 1), conv(192, 320, 3, 2)),
        nn.Sequential(conv(768, 192, 1), conv(192, 192), conv(192, 192), conv(192, 192, 3, 2)),
        nn.MaxPool2d(3, 2, 1),
    )
    stem = [conv(3, 32, 3, 2), conv(32, 32), conv(32, 64), nn.MaxPool2d(3, 2), conv(64, 80, 1)]
    return nn.Sequential(
        *stem, conv(80, 192), nn.MaxPool2d(3, 2), a(192, 32), a(256, 64), a(288, 64), b,
        c(128), c(160), c(160), c(192), d, e(1280), e(2048), head(2048, 10),
    )  # fmt: skip


def inception_v3_vertices():
    """From the table of the publication: what each convolution reads, but for the image."""
    stem = 32 + 32 + 64 + 80
    a = sum(4 * i + 48 + 64 + 96 for i in (192, 256, 288))
    b = 2 * 288 + 64 + 96
    c = sum(4 * 768 + 6 * w for w in (128, 160, 160, 192))
    d = 2 * 768 + 4 * 192
    e = sum(4 * i + 2 * 384 + 448 + 2 * 384 for i in (1280, 2048))
    return stem + a + b + c + d + e + 2048


@pytest.mark.parametrize(
    ("model", "vertices", "known"),
    [
        (mobilenet_v2, mobilenet_v2_vertices, 17056),
        pytest.param(densenet_121, densenet_121_vertices, 41760, marks=pytest.mark.slow),
        pytest.param(inception_v3, inception_v3_vertices, 42272, marks=pytest.mark.slow),
    ],
)
def test_numbers_of_vertices(model, vertices, known):
    torch.set_default_dtype(torch.float32)
    graph = read_graph(model().eval(), example_inputs=torch.zeros(1, 3, 96, 96))
    assert graph.n_vertices == vertices() == known
