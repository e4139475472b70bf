"""Helpers of the tests of torch modules."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="pip install 'ncut[torch]'")
from torch import nn  # noqa: E402


def dense(graph, number):
    weights = graph.blocks[number].weights
    return weights if isinstance(weights, np.ndarray) else weights.toarray()


def layers_of(graph):
    return [(layer.name, layer.size) for layer in graph.layers]


def magnitude(layer):
    """|w| of a linear layer as (in, out), channel norms of a convolution as (in, out)."""
    weight = layer.weight.detach().abs().numpy()
    return weight.reshape(*weight.shape[:2], -1).sum(axis=2).T


def trained(norm):
    """Give a batch norm statistics and weights that are not 0 and 1."""
    generator = torch.Generator().manual_seed(norm.num_features)
    with torch.no_grad():
        if norm.running_var is not None:
            norm.running_var.copy_(torch.rand(norm.num_features, generator=generator) + 0.5)
        if norm.weight is not None:
            norm.weight.copy_(torch.randn(norm.num_features, generator=generator))
    return norm


def factor(norm):
    gamma = 1.0 if norm.weight is None else norm.weight.detach().numpy()
    return np.abs(gamma / np.sqrt(norm.running_var.numpy() + norm.eps))


class Doubled(nn.Module):
    def forward(self, weight):
        return 2 * weight


class Body(nn.Module):
    """A module with the given forward pass and two linear layers."""

    def __init__(self, body):
        super().__init__()
        self.a, self.b, self.body = nn.Linear(3, 3), nn.Linear(3, 3), body
        self.scale = nn.Parameter(torch.ones(3))
        self.register_buffer("steps", torch.zeros(1))

    def forward(self, x):
        return self.body(self, x)
