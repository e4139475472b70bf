"""Training for modules: networks that learn to work without weights between clusters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.func import functional_call

from ncut.arguments import suggests_names
from ncut.errors import InputError
from ncut.extract import read_graph
from ncut.extract.modules import unwrapped
from ncut.extract.readers.traced.plain import wide
from ncut.extract.references import References, references
from ncut.training.arguments import Schedule, scheduled, whole
from ncut.training.balanced import checked_labels
from ncut.training.batches import batch_size, joined, part_of
from ncut.training.parameter_refs import parameter_name, refuse_sharded, refuse_shards


class Partitioned(nn.Module, ABC):
    """A model with a partition of its neurons that can run with weights between clusters scaled.

    Parameters are the same as for `CutDropout` and `PartitionAnnealing`.
    """

    labels: Tensor

    def __init__(
        self,
        model: nn.Module,
        k: int,
        labels: Mapping[str, ArrayLike] | ArrayLike | None,
        free: Sequence[str],
        scope: str,
        residual: str | None,
        example_inputs: Any,
    ) -> None:
        super().__init__()
        if not isinstance(model, nn.Module):
            raise InputError(f"model: must be a torch.nn.Module, got {type(model).__name__}")
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            raise InputError(
                f"model: is in a {type(model).__name__} already; wrap this module in it instead"
            )
        self.model: nn.Module = unwrapped(model)
        refuse_sharded(self.model)
        self._options = {"scope": scope, "residual": residual, "example_inputs": example_inputs}
        self._places: References = references(self.model, **self._options)
        for key in self._places.shapes:
            parameter_name(self.model, *key)
        self._free = _free(self._places, free)
        self.k = whole("k", k, 2, sum(self._places.sizes))
        self.n_steps = 0
        found = checked_labels(self._places, self.k, labels)
        self.register_buffer("labels", torch.from_numpy(found))
        for number in range(len(self._places.shapes)):
            self.register_buffer(f"_between_{number}", None, persistent=False)
        self._mark()
        after_loading: Any = self.register_load_state_dict_post_hook
        after_loading(_mark_again)

    @property
    def layers(self) -> dict[str, slice]:
        """Positions in `labels` of the neurons of each layer of the graph, by the layer's name."""
        ends = np.cumsum(self._places.sizes).tolist()
        starts = [0, *ends[:-1]]
        return {
            name: slice(start, end)
            for name, start, end in zip(self._places.names, starts, ends, strict=True)
        }

    def step(self) -> None:
        """Begin the next training step, before its forward pass; the first call is step 0."""
        self.n_steps += 1

    def apart(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model without the weights between clusters."""
        return self._run(0.0, args, kwargs)

    def between(self) -> Tensor:
        """Share of squared weight between clusters, the mean over the weight tensors.

        Differentiable by the weights; a scalar from 0 to 1.
        """
        shares = []
        for _, weight, flags in self._cuts():
            squares = wide(weight).square()
            total = squares.sum().clamp_min(torch.finfo(squares.dtype).tiny)
            shares.append((squares * flags).sum() / total)
        return torch.stack(shares).mean()

    @torch.no_grad()
    def cut_(self) -> nn.Module:
        """Set the weights between clusters to zero in the model, and return the model."""
        for _, weight, flags in self._cuts():
            weight.masked_fill_(flags, 0)
        return self.model

    def relabel(self) -> int:
        """Improve the partition for the current weights; the sizes of its clusters stay fixed.

        Layer by layer, the neurons are assigned to the clusters with which they share most squared
        edge weight, by the best assignment that preserves the number of neurons of each cluster in
        the layer.

        Returns
        -------
        int
            Number of neurons that changed cluster.
        """
        before = self.labels.cpu().numpy()
        after = before.copy()
        edges = read_graph(self.model, **self._options).adjacency.power(2)
        for own in self.layers.values():
            if (after[own] < 0).any():
                continue
            members = np.eye(self.k)[np.where(after < 0, 0, after)] * (after >= 0)[:, None]
            links = edges[own] @ members
            slots = np.sort(after[own])
            rows, columns = linear_sum_assignment(links[:, slots], maximize=True)
            after[own][rows] = slots[columns]
        n_changed = int((before != after).sum())
        self.labels.copy_(torch.from_numpy(after))
        self._mark()
        return n_changed

    def get_extra_state(self) -> dict[str, Any]:
        """The state that is not a tensor: the training step."""
        return {"n_steps": self.n_steps}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore the state of `get_extra_state`."""
        self.n_steps = int(state["n_steps"])

    def _cuts(self) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Name and tensor of each cut parameter, and the mask of its entries between clusters."""
        parameters = dict(self.model.named_parameters(remove_duplicate=False))
        for number, key in enumerate(self._places.shapes):
            flags = getattr(self, f"_between_{number}")
            if flags is None:
                continue
            name = parameter_name(self.model, *key)
            weight = parameters.get(name)
            if weight is not None:
                refuse_shards(name, weight)
            if weight is None or weight.shape != flags.shape:
                now = "missing" if weight is None else f"of shape {tuple(weight.shape)}"
                raise InputError(
                    f"model: {name!r} is {now}, and had shape {tuple(flags.shape)} when the model "
                    f"was read; make a new {type(self).__name__}"
                )
            yield name, weight, flags.to(weight.device)

    def _mark(self) -> None:
        device = self.labels.device
        marks = self._places.marks(self.labels.cpu().numpy(), free=self._free)
        for number, key in enumerate(self._places.shapes):
            flags = marks[key].between
            made = torch.from_numpy(flags).to(device) if flags.any() else None
            setattr(self, f"_between_{number}", made)
        if not any(True for _ in self._cuts()):
            raise InputError("labels: no weight is between two clusters")

    def _run(self, factor: float, args: Any, kwargs: Any) -> Any:
        if factor == 1:
            return self.model(*args, **kwargs)
        scaled = {
            name: torch.where(flags, weight * factor, weight)
            for name, weight, flags in self._cuts()
        }
        return functional_call(self.model, scaled, args, kwargs)

    @abstractmethod
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model."""


class CutDropout(Partitioned):
    """A model trained to work with and without the weights between its clusters.

    In training mode a part of each batch runs through the unchanged model, the rest through the
    model without any weight between two clusters, and the outputs are joined; in evaluation mode
    the unchanged model runs. The clusters of a balanced partition through all layers thus become
    modules that work alone. With `penalty()` added to the loss the weights between clusters
    decay too, and the n-cut falls.

    Train this module in place of the model, with `step()` before each step. It shares the model's
    parameters; direct calls of the model run it whole.

    Parameters
    ----------
    model : torch.nn.Module
        Any model that `ncut.graph` reads and whose weights are parameters (not computed from
        others).
    k : int
        Number of clusters.
    labels : mapping from str to array_like of int, or array_like of int, shape (n,), optional
        The cluster of each neuron of the layers named, or of each vertex of `ncut.graph(model)`, 0
        to k - 1; negative for none. By default inputs are spread, so that each cluster sees pixels
        from the whole image, and other layers are divided into k contiguous blocks: attention heads
        stay whole if k divides their number.
    share : float or callable, default 0.5
        Share of each batch without the weights, or a function of the step. Fractions of an example
        are carried over to the next batch.
    weight : float or callable, default 2.0
        Weight of `penalty()`, or a function of the step.
    relabel_every : int, default 0
        Steps between improvements of the partition (`relabel`); 0: the partition is fixed.
    free : sequence of str
        Names or patterns of layers whose weights are never cut.
    scope, residual, example_inputs
        How the model is read; see `ncut.graph`.

    Attributes
    ----------
    labels : Tensor of int64, shape (n,)
        A buffer, in the `state_dict` together with the model's parameters and the step.
    n_steps : int
        Number of steps begun.

    Raises
    ------
    InputError
        If an argument cannot be used, the model cannot be read, or computes weights of its graph
        from others.

    Notes
    -----
    All tensors among the arguments whose first axis is as long as that of the first tensor are
    split along it, and outputs are joined along it; outputs without axes (a loss) are averaged
    over the examples, and objects such as a cache of keys are left out of a mapping of outputs.
    Batch norms see the two parts in sequence.

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 4))
    >>> modules = CutDropout(model, k=2)
    >>> modules.step()
    >>> (modules(torch.randn(6, 8)).square().mean() + modules.penalty()).backward()
    >>> modules.apart(torch.randn(6, 8)).shape
    torch.Size([6, 4])
    """

    @suggests_names()
    def __init__(
        self,
        model: nn.Module,
        k: int,
        labels: Mapping[str, ArrayLike] | ArrayLike | None = None,
        share: Schedule = 0.5,
        *,
        weight: Schedule = 2.0,
        relabel_every: int = 0,
        free: Sequence[str] = (),
        scope: str = "paper",
        residual: str | None = None,
        example_inputs: Any = None,
    ) -> None:
        super().__init__(model, k, labels, free, scope, residual, example_inputs)
        self.share = share
        self.weight = weight
        self.relabel_every = whole("relabel_every", relabel_every, 0)
        self._carried = 0.0
        scheduled("share", share, 0, most=1.0)
        scheduled("weight", weight, 0)

    def step(self) -> None:
        """Begin the next training step, before its forward pass; the first call is step 0."""
        super().step()
        due = self.relabel_every and (self.n_steps - 1) % self.relabel_every == 0
        if due and self.n_steps > 1:
            self.relabel()

    def penalty(self) -> Tensor:
        """The term to add to the loss: weight times the share of squared weight between clusters.

        A scalar; see `between`.
        """
        return scheduled("weight", self.weight, self._step) * self.between()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The model's output; in training mode a part of the batch runs without the cut weights."""
        share = scheduled("share", self.share, self._step, most=1.0) if self.training else 0.0
        if share == 0:
            return self._run(1.0, args, kwargs)
        n = batch_size([*args, *kwargs.values()])
        wanted = share * n + self._carried
        n_cut = min(int(wanted + 1e-9), n)
        self._carried = wanted - n_cut
        if n_cut == 0 or n_cut == n:
            return self._run(float(n_cut == 0), args, kwargs)
        found = [
            self._run(factor, *part_of((args, kwargs), n, part))
            for factor, part in ((0.0, slice(0, n_cut)), (1.0, slice(n_cut, n)))
        ]
        return joined(found[0], found[1], n_cut, n - n_cut)

    def get_extra_state(self) -> dict[str, Any]:
        """The state that is not a tensor: the step, and the fraction of an example carried over."""
        return super().get_extra_state() | {"carried": self._carried}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore the state of `get_extra_state`."""
        super().set_extra_state(state)
        self._carried = float(state["carried"])

    @property
    def _step(self) -> int:
        return max(self.n_steps - 1, 0)


class PartitionAnnealing(Partitioned):
    """A model whose weights between clusters are multiplied by a factor that falls to zero.

    The factor is 1 up to `begin_step` and then falls linearly to 0 at `end_step`; k parallel
    networks remain, which share the layers before the first cut layer. Run and train this module in
    place of the model, with `step()` before each step, and call `cut_()` at the end: it sets the
    weights to zero in the model.

    Parameters
    ----------
    model, k, labels, scope, residual, example_inputs
        See `CutDropout`.
    end_step : int
        The first step without weights between clusters.
    begin_step : int, default 0
        The last step with all weights.
    free : sequence of str
        Names or patterns of layers whose weights are never cut. A first layer left whole lets
        every cluster see all inputs.

    Raises
    ------
    InputError
        As for `CutDropout`.

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 4))
    >>> annealed = PartitionAnnealing(model, k=2, end_step=10, free=["0"])
    >>> for _ in range(11):
    ...     annealed.step()
    >>> annealed.factor
    0.0
    >>> x = torch.randn(6, 8)
    >>> torch.equal(annealed(x), annealed.cut_()(x))
    True
    """

    @suggests_names()
    def __init__(
        self,
        model: nn.Module,
        k: int,
        end_step: int,
        free: Sequence[str] = (),
        *,
        labels: Mapping[str, ArrayLike] | ArrayLike | None = None,
        begin_step: int = 0,
        scope: str = "paper",
        residual: str | None = None,
        example_inputs: Any = None,
    ) -> None:
        super().__init__(model, k, labels, free, scope, residual, example_inputs)
        self.begin_step = whole("begin_step", begin_step, 0)
        self.end_step = whole("end_step", end_step, self.begin_step + 1)

    @property
    def factor(self) -> float:
        """The factor of the weights between clusters in the current step."""
        return self.factor_at(max(self.n_steps - 1, 0))

    def factor_at(self, step: int) -> float:
        """The factor in a step, counted from 0."""
        share = (step - self.begin_step) / (self.end_step - self.begin_step)
        return 1.0 - min(max(share, 0.0), 1.0)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The output of the model with the weights between clusters multiplied by the factor."""
        return self._run(self.factor, args, kwargs)


def _free(places: References, patterns: Sequence[str]) -> list[str]:
    if isinstance(patterns, str):
        raise InputError(f"free: must be a sequence of names, got the string {patterns!r}")
    known = places.operations
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in known):
            raise InputError(f"free: {pattern!r} matches no layer; there are {sorted(known)}")
    return [name for name in known if any(fnmatchcase(name, p) for p in patterns)]


def _mark_again(module: Partitioned, _keys: Any) -> None:
    """Recompute the masks of weights between clusters, after labels were loaded."""
    module._mark()
