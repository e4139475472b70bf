"""Torch modules of a few parts, and the adjacency expected of them."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

torch = pytest.importorskip("torch", reason="pip install 'ncut[torch]'")
from torch import nn  # noqa: E402


class Model(nn.Module):
    """Parts by name, tensors as buffers, and a forward pass `run(self, *inputs)`."""

    def __init__(self, run, **parts):
        super().__init__()
        self.run = run
        for name, part in parts.items():
            if isinstance(part, torch.Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)

    def forward(self, *args, **kwargs):
        return self.run(self, *args, **kwargs)


def array(tensor):
    return tensor.detach().numpy()


def into(weight, groups=1):
    """|w| of (out, in / groups, positions...) as (in, out)."""
    weight = np.abs(array(weight) if isinstance(weight, torch.Tensor) else weight)
    slices = weight.reshape(*weight.shape[:2], -1).sum(axis=2)
    n_out, per_group = slices.shape
    result = np.zeros((per_group * groups, n_out))
    for group in range(groups):
        outs = slice(group * n_out // groups, (group + 1) * n_out // groups)
        ins = slice(group * per_group, (group + 1) * per_group)
        result[ins, outs] = slices[outs].T
    return result


def trained(norm):
    """A norm with weights and statistics that are not 0 and 1."""
    with torch.no_grad():
        for name in ("weight", "bias"):
            if getattr(norm, name, None) is not None:
                getattr(norm, name).copy_(torch.rand_like(getattr(norm, name)) + 0.5)
        if getattr(norm, "running_var", None) is not None:
            norm.running_var.copy_(torch.rand_like(norm.running_var) + 0.5)
            norm.running_mean.copy_(torch.rand_like(norm.running_mean))
    return norm


def factor(norm):
    """Factors of a norm that do not depend on the data."""
    gamma = np.ones(1) if norm.weight is None else array(norm.weight)
    if getattr(norm, "running_var", None) is None:
        return np.abs(gamma)
    return np.abs(gamma) / np.sqrt(array(norm.running_var) + norm.eps)


def expect(graph, sizes, edges):
    """The whole adjacency: layers of these sizes, and edges by the positions of two layers.

    Where source and target are the same, the matrix holds both directions of each pair.
    """
    assert [layer.size for layer in graph.layers] == list(sizes), [*graph.layers]
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(int)
    whole = np.zeros((starts[-1], starts[-1]))
    for (source, target), weights in edges.items():
        rows = slice(starts[source], starts[source + 1])
        columns = slice(starts[target], starts[target + 1])
        whole[rows, columns] += weights
        if source != target:
            whole[columns, rows] += weights.T
    found = graph.adjacency.toarray()
    assert_array_equal(found, found.T)
    assert_allclose(found, whole, rtol=1e-7, atol=1e-12)
    assert_array_equal(found != 0, whole != 0)


def chain(*parts):
    return nn.Sequential(*parts)
