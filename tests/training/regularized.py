"""Networks that tests of the regularizers use."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


def mlp(*widths: int, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(widths):
        layers += [nn.Linear(n_in, n_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def weights_of(model: nn.Module) -> list[Tensor]:
    return [module.weight for module in model.modules() if isinstance(module, nn.Linear)]


def laplacian_values(graph: Any) -> np.ndarray:
    """Eigenvalues of a graph's normalized Laplacian, ascending, by LAPACK."""
    adjacency = graph.adjacency.toarray()
    scale = adjacency.sum(axis=1) ** -0.5
    values = np.linalg.eigvalsh(np.eye(len(adjacency)) - scale[:, None] * adjacency * scale)
    return np.asarray(values)


def cut_in_half(model: nn.Module, link: float) -> None:
    """Make the weights between two halves of every layer as weak as the factor given."""
    with torch.no_grad():
        for weight in weights_of(model):
            rows, columns = (torch.arange(n) < n // 2 for n in weight.shape)
            weight[rows[:, None] != columns] *= link
