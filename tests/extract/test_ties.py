"""Ties: weights that occur several times in a graph or also outside of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from samples import random_chain

from ncut.extract import read_graph

torch = pytest.importorskip("torch", reason="pip install 'ncut[torch]'")
from role_nets import Twice, perceptron, roles, ties  # noqa: E402
from torch import nn  # noqa: E402


@pytest.fixture(autouse=True)
def _same_weights_in_every_run() -> None:
    torch.manual_seed(0)


W, V = random_chain(7, (6, 6, 6))


TALL = random_chain(9, (6, 4))[0]


@pytest.mark.parametrize(
    ("arrays", "found", "hidden"),
    [
        ([W, W], [("w0", False), ("w0", False)], [False]),
        ([W, W.copy(), V], [("w0", False), ("w0", False), ("", False)], [False, False]),
        ([W, V, W], [("w0", False), ("", False), ("w0", False)], [False, False]),
        ([W, V, TALL, TALL.T], [("", False)] * 2 + [("w2", False), ("w2", True)],
         [None, False, False]),
        ([V, V.T, W, TALL], [("w0", False), ("w0", True), ("", False), ("", False)],
         [False, False, None]),
        ([TALL, W[:4, :4], W[:4, :4].T, TALL.T],
         [("w0", False), ("w1", False), ("w1", True), ("w0", True)], [False, False, False]),
        ([W, W.T, W, W.T], [("w0", False), ("w0", True)] * 2, [False] * 3),
        ([W, W.astype(np.float32)], [("", False)] * 2, [None]),
        ([W, -W], [("", False)] * 2, [None]),
        ([W, 2 * W], [("", False)] * 2, [None]),
    ],
)  # fmt: skip
def test_copies_in_lists(
    arrays: list[NDArray[np.floating]],
    found: list[tuple[str, bool]],
    hidden: list[bool | None],
) -> None:
    graph = read_graph(arrays)
    assert ties(graph) == [(f"w{at}", *tie) for at, tie in enumerate(found)]
    # A factor of a neuron of a shared matrix would have to be that of another one's too.
    assert [layer.rescalable for layer in graph.layers] == [False, *hidden, False]


def test_copies_of_other_precision_with_the_same_values_are_copies() -> None:
    weights = np.arange(1.0, 37).reshape(6, 6)
    graph = read_graph([weights, weights.astype(np.float16)])
    assert ties(graph) == [("w0", "w0", False), ("w1", "w0", False)]


def test_signs_are_compared_though_edges_have_none() -> None:
    signs = np.where(np.eye(6) > 0, -1, 1)
    assert ties(read_graph([W, signs * W])) == [("w0", "", False), ("w1", "", False)]
    assert ties(read_graph([signs * W, signs * W]))[1] == ("w1", "w0", False)


def test_copies_of_kernels_are_never_transposed() -> None:
    kernel = np.random.default_rng(0).random((4, 4, 3))
    assert ties(read_graph([np.ones((4, 2, 3)), kernel, kernel])) == [
        ("w1", "w1", False),
        ("w2", "w1", False),
    ]
    turned = np.ascontiguousarray(kernel.transpose(1, 0, 2))
    assert ties(read_graph([np.ones((4, 2, 3)), kernel, turned]))[1] == ("w2", "", False)


def test_modules_called_twice() -> None:
    graph = read_graph(Twice())
    assert roles(graph) == [
        ("input", False, ("start",)),
        ("start", False, ("twice",)),
        ("twice", False, ("middle",)),
        ("middle", False, ("twice",)),
        ("twice (call 2)", False, ("end",)),
        ("end", False, ()),
    ]
    assert ties(graph) == [
        ("start", "", False),
        ("twice", "twice", False),
        ("middle", "", False),
        ("twice (call 2)", "twice", False),
        ("end", "", False),
    ]


def test_parameters_that_modules_share() -> None:
    model = perceptron([nn.ReLU()], [nn.ReLU()], [nn.ReLU()], sizes=(3, 4, 4, 4))
    model[4].weight = model[2].weight
    assert [layer.rescalable for layer in read_graph(model).layers] == [False] * 5
    untied = perceptron([nn.ReLU()], [nn.ReLU()], [nn.ReLU()], sizes=(3, 4, 4, 4))
    assert [x.rescalable for x in read_graph(untied).layers] == [False, True, True, True, False]


class Outside(nn.Module):
    """Convolutions of which one shares weights, before linear layers of which one does."""

    def __init__(self, shared: str) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))
        self.d, self.f, self.g, self.h = nn.Conv2d(3, 4, 3), *(nn.Linear(16, 16) for _ in range(3))
        if shared == "image":
            self.c = self.a
        if shared == "linear":
            self.g = self.f

    def forward(self, x: Any) -> Any:
        for conv in (self.a, self.b, self.c, self.d):
            x = torch.relu(conv(x))
        x = torch.flatten(x, 1)
        for linear in (self.f, self.h, self.g):
            x = torch.relu(linear(x))
        return x


@pytest.mark.parametrize(
    ("shared", "rescalable"),
    [
        ("", [True, True, True, True]),
        ("image", [False, False, False, True]),
        ("linear", [True, True, True, False]),
    ],
)
def test_weights_shared_with_layers_outside_of_the_graph(
    shared: str, rescalable: list[bool]
) -> None:
    graph = read_graph(Outside(shared))
    assert [layer.rescalable for layer in graph.layers] == rescalable
    everything = read_graph(Outside(shared), scope="all")
    assert [layer.rescalable for layer in everything.layers[1:5]] == rescalable
    # A block has a tie only where the graph has another block to tie it to.
    assert all(block.tie == "" for block in graph.blocks)
