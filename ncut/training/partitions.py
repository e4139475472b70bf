"""Penalties of partitions into clusters: the soft normalized cut, and a fixed partition."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ncut.arguments import suggests_names
from ncut.errors import InputError
from ncut.training.arguments import Schedule, whole
from ncut.training.live_graph import LiveGraph
from ncut.training.regularizers import SHARED_OPTIONS, Regularizer
from ncut.training.spectrum import check_seed
from ncut.training.spectrum_types import EdgeWeights


class SoftCutRegularizer(Regularizer):
    """The normalized cut of a soft partition that is learned jointly with the weights.

    Every neuron has a distribution over k clusters, the softmax of k numbers. The penalty is the
    sum over clusters of (links to other clusters) / volume, divided by k; an empty cluster counts
    1. The penalty's gradient trains the distributions: each call makes one step of Adam with the
    gradient of the last backward pass.

    Parameters
    ----------
    model : torch.nn.Module
    k : int, default 12
        Number of clusters.
    weight : float or callable, default 0.1
        Weight of the penalty, which lies between 0 and 1.
    learning_rate : float, default 0.05
        Learning rate of the distributions.
    seed : int, default 0
        Seed of their initial numbers.
    **options
        The same as for `ncut.EigenvalueRegularizer`: `every`, `normalize`, `layers`, `scope`,
        `norm`, `residual`, `example_inputs`.

    Source: Xia and Kulis (2017), W-Net; Nazi, Hang, Goldie, Ravi, Mirhoseini (2019), GAP.
    """

    @suggests_names(*SHARED_OPTIONS)
    def __init__(
        self,
        model: nn.Module,
        k: int = 12,
        weight: Schedule = 0.1,
        *,
        learning_rate: float = 0.05,
        seed: int = 0,
        **options: Any,
    ) -> None:
        own: dict[str, Any] = {"k": k, "learning_rate": learning_rate, "seed": seed}
        super().__init__(model, weight, **options, **own)
        self.k = whole("k", k, 2, min(graph.n for graph in self.graphs))
        seed = check_seed(seed)
        if (
            not isinstance(learning_rate, int | float | np.integer | np.floating)
            or not learning_rate > 0
        ):
            raise InputError(f"learning_rate: must be a number above 0, got {learning_rate!r}")
        generator = torch.Generator().manual_seed(seed)
        like = next(model.parameters())
        self._logits = [
            torch.randn((graph.n, k), generator=generator).to(like.device).requires_grad_()
            for graph in self.graphs
        ]
        # The gradients are scaled by `weight`, which must not slow the learning down.
        self._optimizer = torch.optim.Adam(self._logits, lr=learning_rate, eps=1e-16)

    def __call__(self, model: nn.Module | None = None) -> Tensor:
        """The term to add to the loss; see `Regularizer`."""
        gradients = [logits.grad for logits in self._logits if logits.grad is not None]
        if gradients and torch.is_grad_enabled():
            if all(bool(torch.isfinite(gradient).all()) for gradient in gradients):
                self._optimizer.step()
            self._optimizer.zero_grad()
        return super().__call__(model)

    @property
    def learned(self) -> Sequence[Tensor]:
        """The logits of the distributions, (n, k) for each part of the graph."""
        return self._logits

    def state_dict(self) -> dict[str, Any]:
        """State for resuming, in addition to the model: the soft partition and its optimizer."""
        return super().state_dict() | {
            "logits": [logits.detach().clone() for logits in self._logits],
            "gradients": [None if x.grad is None else x.grad.clone() for x in self._logits],
            "optimizer": self._optimizer.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a `state_dict`; see `Regularizer`."""
        super().load_state_dict(state)
        saved = [*zip(self._logits, state["logits"], state["gradients"], strict=False)]
        shapes = [tuple(logits.shape) for logits in self._logits]
        if [tuple(values.shape) for values in state["logits"]] != shapes:
            raise InputError(f"state: is of other neurons; there are {shapes}")
        for logits, values, gradient in saved:
            with torch.no_grad():
                logits.copy_(values)
            logits.grad = None if gradient is None else gradient.to(logits)
        self._optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))

    def _term(self, number: int, graph: LiveGraph, weight: float) -> Tensor:
        blocks = graph.edge_weights()
        shares = torch.softmax(self._logits[number].to(blocks[0].weights), dim=1)
        inside, volumes = soft_links(blocks, shares)
        return weight * (1.0 - (inside / volumes.clamp_min(torch.finfo(volumes.dtype).tiny)).mean())


class PartitionRegularizer(Regularizer):
    """Squared weights between clusters of a partition fixed before training.

    The penalty is 1 - C, with C the share of squared edge weights inside clusters, averaged over
    the blocks of weights.

    Parameters
    ----------
    model : torch.nn.Module
    k : int, default 12
        Number of clusters: by default each layer is divided into k contiguous blocks of sizes as
        equal as possible.
    weight : float or callable, default 0.1
        Weight of the penalty, which lies between 0 and 1.
    labels : mapping from str to sequence of int, optional
        The cluster of each neuron of the layers named, 0 to k - 1.
    **options
        The same as for `ncut.EigenvalueRegularizer`: `every`, `normalize`, `layers`, `scope`,
        `norm`, `residual`, `example_inputs`.

    Source: Golechha, Chaudhary, Velja, Abate, Schoots (2025), arXiv:2502.02470, section 3.
    """

    @suggests_names(*SHARED_OPTIONS)
    def __init__(
        self,
        model: nn.Module,
        k: int = 12,
        weight: Schedule = 0.1,
        *,
        labels: Mapping[str, Sequence[int]] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(model, weight, **options, k=k, labels=labels)
        self.k = whole("k", k, 2, min(graph.n for graph in self.graphs))
        known = {layer.name for graph in self.graphs for layer in graph.layers}
        for name in labels or {}:
            if name not in known:
                raise InputError(f"labels: no layer {name!r}; there are {sorted(known)}")
        self.labels = [_labels(graph, k, labels or {}) for graph in self.graphs]

    def _term(self, number: int, graph: LiveGraph, weight: float) -> Tensor:
        labels = torch.as_tensor(self.labels[number])
        shares = []
        for block in graph.edge_weights():
            weights = block.weights
            ours = labels.to(weights.device)
            if block.rows is not None and block.columns is not None:
                inside = ours[block.rows] == ours[block.columns]
            else:
                rows = ours[block.first_row : block.first_row + weights.shape[0]]
                columns = ours[block.first_column : block.first_column + weights.shape[1]]
                inside = rows[:, None] == columns
            squares = weights.square()
            total = squares.sum().clamp_min(torch.finfo(squares.dtype).tiny)
            shares.append((squares * inside).sum() / total)
        return weight * (1.0 - torch.stack(shares).mean())


def soft_links(blocks: Sequence[EdgeWeights], shares: Tensor) -> tuple[Tensor, Tensor]:
    """Weight inside each soft cluster (both directions), and its volume, (k,) each.

    shares, shape (n, k): each vertex's share in each cluster.
    """
    inside = shares.new_zeros(shares.shape[1])
    volumes = shares.new_zeros(shares.shape[1])
    for block in blocks:
        magnitudes = block.weights.abs()
        if block.rows is not None and block.columns is not None:
            rows, columns = shares[block.rows], shares[block.columns]
            inside = inside + 2 * (magnitudes[:, None] * rows * columns).sum(0)
            volumes = volumes + magnitudes @ (rows + columns)
        else:
            rows = shares[block.first_row : block.first_row + magnitudes.shape[0]]
            columns = shares[block.first_column : block.first_column + magnitudes.shape[1]]
            inside = inside + 2 * ((magnitudes @ columns) * rows).sum(0)
            volumes = volumes + magnitudes.sum(1) @ rows + magnitudes.sum(0) @ columns
    return inside, volumes


def _labels(graph: LiveGraph, k: int, given: Mapping[str, Sequence[int]]) -> NDArray[np.int64]:
    labels = np.empty(graph.n, dtype=np.int64)
    for layer in graph.layers:
        ours = np.asarray(given.get(layer.name, np.arange(layer.size) * k // layer.size))
        if ours.shape != (layer.size,) or ours.dtype.kind not in "iu":
            raise InputError(
                f"labels: {layer.name!r} needs {layer.size} whole numbers, got {ours.shape}"
            )
        if ours.min() < 0 or ours.max() >= k:
            raise InputError(f"labels: those of {layer.name!r} must lie between 0 and {k - 1}")
        labels[layer.slice] = ours
    return labels
