"""Terms of a loss that make a network clusterable."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from ncut.arguments import suggests_names
from ncut.errors import InputError
from ncut.extract.modules import unwrapped
from ncut.training.arguments import Schedule, scheduled, whole
from ncut.training.disconnection import DisconnectionWatch, Reaction
from ncut.training.eigenvalues import check_tolerance, checked_numbers, differentiable
from ncut.training.live_graph import LiveGraph, Planned, graphs_of
from ncut.training.normalize import Normalization
from ncut.training.spectrum import Tracker, check_seed, full_precision

SHARED_OPTIONS = ("every", "normalize", "layers", "scope", "norm", "residual", "example_inputs")
"""Keyword arguments of all regularizers."""

Layers: TypeAlias = Sequence[str] | Mapping[Any, Schedule] | None
"""Names or patterns of layers; groups (a pattern or a tuple of them) with factors; or all.

Keys are not typed, since a mapping from str is not a mapping from str or tuple of str.
"""


class Regularizer(ABC):
    """Base class of regularizers: a model, a weight, a normalization, skipped steps.

    A call returns the term to add to the loss. Parameters are those of `EigenvalueRegularizer`.
    """

    def __init__(
        self,
        model: nn.Module,
        weight: Schedule,
        *,
        every: int = 1,
        normalize: bool = False,
        layers: Layers = None,
        scope: str = "paper",
        norm: str = "l1",
        residual: str | None = None,
        example_inputs: Any = None,
        **own: Any,
    ) -> None:
        scheduled("weight", weight, 0)
        self.model = model
        self.weight = weight
        self.every = whole("every", every, 1)
        reading = {
            "scope": scope,
            "norm": norm,
            "residual": residual,
            "example_inputs": example_inputs,
        }
        self._arguments = {"every": self.every, "normalize": normalize, "layers": layers}
        self._arguments |= {**reading, **own}
        planned = Planned(model, **reading)
        self.graphs: list[LiveGraph] = []
        # The name and the factor of each part's group, and the group's number.
        self._groups: list[tuple[str, Schedule, int]] = []
        for name, patterns, factor in _groups(layers):
            found = graphs_of(planned, patterns)
            if not found:
                raise InputError("layers: chooses no layer; leave it out to choose all of them")
            self.graphs += found
            self._groups += [(name, factor, len(found))] * len(found)
        self._terms: list[float | Tensor] = [0.0] * len(self.graphs)
        self.n_steps = 0
        self._last: tuple[Tensor, int] = torch.zeros(()), 1
        self._counts_calls = True
        used = set[nn.Module]().union(*(graph.modules() for graph in self.graphs))
        named = unwrapped(model).named_modules()
        self._modules = {path: module for path, module in named if module in used}
        self._example_inputs = example_inputs
        self._normalization: Normalization | None = None
        self._hook: Any = None
        if normalize:
            self.normalize_()
            assert self._normalization is not None
            self._hook = model.register_forward_pre_hook(_NormalizeFirst(self._normalization))

    def __call__(self, model: nn.Module | None = None) -> Tensor:
        """The term to add to the loss, a scalar; 0 in skipped steps.

        One of `every` steps is computed and counts `every` times. A call begins a step, unless
        `step` does; a call without gradients (under `torch.no_grad()`) does not count as a step,
        and returns the term even if the step is skipped.

        Parameters
        ----------
        model : torch.nn.Module, optional
            The trained model, to verify that it is the regularizer's.

        Raises
        ------
        InputError
            If it is another model, such as a copy; or if a penalized layer is no longer in the
            regularizer's model, or was wrapped in a module that has weights.
        """
        self._check(model)
        if self._hook is not None and self.model.training:
            self.normalize_()  # here too: the forward pass may follow
        begins = self._counts_calls and torch.is_grad_enabled()
        step = self.n_steps if self._counts_calls else max(self.n_steps - 1, 0)
        self.n_steps += begins
        weight = scheduled("weight", self.weight, step)
        skipped = torch.is_grad_enabled() and step % self.every != 0
        if skipped or weight == 0:
            return self._zero()
        times = self.every if torch.is_grad_enabled() else 1
        with full_precision(self.graphs[0].device):
            terms = []
            for number, (name, factor, n) in enumerate(self._groups):
                own = weight * times * scheduled(_label(name), factor, step) / n
                terms.append(self._term(number, self.graphs[number], own))
        term = terms[0] if len(terms) == 1 else torch.stack(terms).sum()
        self._last = term.detach(), times
        self._terms = [part.detach() for part in terms]
        return term

    def __repr__(self) -> str:
        kind, model = type(self).__name__, type(unwrapped(self.model)).__name__
        n = sum(graph.n for graph in self.graphs)
        weight = "schedule" if callable(self.weight) else self.weight
        every = f", every={self.every}" if self.every > 1 else ""
        return f"{kind}({model!r}, {n} neurons, weight={weight}{every}, step {self.n_steps})"

    def step(self) -> None:
        """Begin the next training step; later calls no longer count as steps.

        For more than one call per step, such as with several optimizers or accumulated batches.
        """
        if self._counts_calls:
            self._counts_calls, self.n_steps = False, 0
        self.n_steps += 1

    def log(self) -> dict[str, float]:
        """The components of the last computed term, as numbers for a logger.

        Returns
        -------
        dict of str to float
            `"value"` of the term in one step; `"weight"` in this step; `"step"`; `"parts"`, the
            number of separately penalized parts of the graph; `"value of encoder.*"` of each group,
            if `layers` has groups; and more, depending on the regularizer. Synchronizes with the
            device.
        """
        value, times = self._last
        step = max(self.n_steps - 1, 0)
        values = {
            "value": float(value) / times,
            "weight": scheduled("weight", self.weight, step),
            "step": float(step),
            "parts": float(len(self.graphs)),
        }
        for (name, _, _), term in zip(self._groups, self._terms, strict=True):
            if name:
                key = f"value of {name}"
                values[key] = values.get(key, 0.0) + float(term) / times
        return values

    def state_dict(self) -> dict[str, Any]:
        """State for resuming, in addition to the model: tensors and numbers."""
        return {"n_steps": self.n_steps, "counts_calls": self._counts_calls}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a `state_dict` of a regularizer made with the same arguments.

        Raises
        ------
        InputError
            If it is not a `state_dict` of this class.
        """
        own = self.state_dict()
        if set(state) != set(own):
            raise InputError(f"state: must have the keys {sorted(own)}, got {sorted(state)}")
        self.n_steps = int(state["n_steps"])
        self._counts_calls = bool(state["counts_calls"])

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy rereads its model, because the result of reading holds the model's tensors.
        made = (type(self), self.model, self.weight, self._arguments)
        return _made_again, made, self.state_dict()

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.load_state_dict(state)

    def normalize_(self) -> None:
        """Give each hidden neuron incoming weights of norm sqrt(2); see `ncut.normalize_`."""
        if self._normalization is None:
            self._normalization = Normalization(self.model, example_inputs=self._example_inputs)
        self._normalization.apply_()

    def remove(self) -> None:
        """Stop normalizing before forward passes, if `normalize=True` was given."""
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    @property
    def learned(self) -> Sequence[Tensor]:
        """The regularizer's tensors that also get its gradient."""
        return ()

    @abstractmethod
    def _term(self, number: int, graph: LiveGraph, weight: float) -> Tensor:
        """The penalty of one part of the network's graph times a weight."""

    def _check(self, model: nn.Module | None) -> None:
        inner = unwrapped(self.model)
        if model is not None and unwrapped(model) is not inner:
            raise InputError(
                "model: must be the regularizer's own model, got another; make a regularizer for it"
            )
        now = dict(inner.named_modules())
        present = set(now.values())
        for path, module in self._modules.items():
            found = now.get(path, module)
            if module in present and (found is module or not _has_others(found, module)):
                continue
            how = f"is a new {type(found).__name__}" if path in now else "was removed"
            raise InputError(
                f"model: {path!r} {how} since the regularizer was made, which penalizes weights of "
                f"the {type(module).__name__} that was there; make a new regularizer"
            )

    def _zero(self) -> Tensor:
        parameter = next(self.model.parameters())
        return torch.zeros((), device=parameter.device)


def _has_others(module: nn.Module, inside: nn.Module) -> bool:
    """Return whether a module has parameters besides those of the module inside it."""
    own = {id(parameter) for parameter in inside.parameters()}
    return any(id(parameter) not in own for parameter in module.parameters())


def _groups(layers: Layers) -> list[tuple[str, Sequence[str] | None, Schedule]]:
    """The name, the patterns and the factor of each group of layers."""
    if not isinstance(layers, Mapping):
        return [("", layers, 1.0)]
    if not layers:
        raise InputError("layers: has no groups; leave it out to choose all layers")
    groups: list[tuple[str, Sequence[str] | None, Schedule]] = []
    for key, factor in layers.items():
        patterns = (key,) if isinstance(key, str) else tuple(key)
        name = ", ".join(patterns)
        scheduled(_label(name), factor, 0)
        groups.append((name, patterns, factor))
    return groups


def _label(name: str) -> str:
    return f"layers[{name!r}]"


def _made_again(
    kind: type[Any], model: nn.Module, weight: Schedule, arguments: Mapping[str, Any]
) -> Any:
    return kind(model, weight=weight, **arguments)


class _NormalizeFirst:
    """A hook that normalizes before forward passes in training mode; copies of it do nothing."""

    def __init__(self, normalization: Normalization | None = None) -> None:
        self._normalization = normalization

    def __call__(self, model: nn.Module, _inputs: Any) -> None:
        if model.training and self._normalization is not None:
            self._normalization.apply_()

    def __reduce__(self) -> tuple[Any, ...]:
        return _NormalizeFirst, ()


class EigenvalueRegularizer(Regularizer):
    """The paper's penalty: small eigenvalues of the normalized Laplacian.

    The term is weight * mean of the requested eigenvalues. The network is read once; each later
    call costs about two products of the weights with 16 vectors, because it starts from the last
    eigenvectors. Pruning and changes of device or type are followed.

    On a GPU a call synchronizes at each Rayleigh-Ritz step, whose small eigenproblem the host
    solves; graphs in which fewer than 32 neurons have weights are computed on the host.

    Parameters
    ----------
    model : torch.nn.Module
        Any model that `ncut.graph` reads.
    eigenvalues : sequence of int, default (2, 3, 4)
        Numbers of the eigenvalues, the smallest being 1. `range(2, 13)` is the sum of the 12
        smallest (the first is 0), which is smooth if the 12th and the 13th differ, and bounds every
        12-way normalized cut from below.
    weight : float or callable, default 0.1
        Weight of their mean, or a function of the training step, counted from 0; it may be
        reassigned at any time. The paper's experiments used a gradient of half the true size, so
        its 0.1 is 0.05 here.
    every : int, default 1
        Compute the term only in one of `every` steps, multiplied by `every`. A step begins with a
        call with gradients, or with `step()`.
    tolerance : float, default 1e-3
        Largest residual |M v - mu v| of the unit eigenvectors. Eigenvalues are accurate to about
        its square, gradients to about the tolerance itself.
    layers : sequence of str, or mapping from str or tuple of str to float or callable, optional
        Names or patterns ("encoder.layer.*.mlp.*") of the modules whose weights count; by default
        all in the graph. Parts that share no neurons are separate graphs, whose terms are averaged.
        A mapping makes groups, {"encoder.*": 1.0, ("head.0", "head.2"): 0.2}: each group is a
        separate graph, and the terms are summed, multiplied by the group's factor (a number, or a
        function of the step).
    normalize : bool, default False
        Call `normalize_()` before each forward pass in training mode.
    scope, norm, residual, example_inputs
        How the model is read; see `ncut.graph`.
    seed : int, default 0
        Seed of the start vectors.
    disconnect : {"warn", "hold", "ignore"}
        Reaction if the network is about to disconnect further than at the first call: into more
        parts (those with a thousandth of the edge weight or more; an eigenvalue below 1e-3 for
        each), or by a neuron's degree below a millionth of the mean. `"warn"`: warn once for each.
        `"hold"`: also omit the term while inputs are separated from outputs, that is, no part has a
        tenth of both.

    Attributes
    ----------
    eigenvalues : tuple of float
        Eigenvalues of the last call (means over several parts).
    numbers : tuple of int
        Numbers of these eigenvalues.
    n_products : int
        Products with the weights at the last call.
    n_restarts : int
        Number of times the eigenvectors were computed from random vectors.

    Raises
    ------
    InputError
        If an argument is unknown or out of range, or the model cannot be read.

    Source: Filan et al. (2021), Clusterability in Neural Networks, section 4.1, A.9 and A.10.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 10))
    >>> regularizer = EigenvalueRegularizer(model, weight=0.05)
    >>> regularizer.normalize_()
    >>> loss = model(torch.ones(1, 20)).sum() + regularizer()
    >>> loss.backward()
    >>> len(regularizer.eigenvalues)
    3
    """

    @suggests_names()
    def __init__(
        self,
        model: nn.Module,
        eigenvalues: Sequence[int] = (2, 3, 4),
        weight: Schedule = 0.1,
        *,
        every: int = 1,
        tolerance: float = 1e-3,
        layers: Layers = None,
        normalize: bool = False,
        scope: str = "paper",
        norm: str = "l1",
        residual: str | None = None,
        example_inputs: Any = None,
        seed: int = 0,
        disconnect: Reaction = "warn",
    ) -> None:
        self.numbers = checked_numbers(eigenvalues, "eigenvalues")
        if max(self.numbers) == 1:
            raise InputError(
                "eigenvalues: must include a number above 1, since the first is always 0 and "
                f"trains nothing; got {eigenvalues!r}"
            )
        check_tolerance(tolerance)
        seed = check_seed(seed)
        if disconnect not in ("warn", "hold", "ignore"):
            raise InputError(f"disconnect: must be 'warn', 'hold' or 'ignore', got {disconnect!r}")
        super().__init__(
            model,
            weight,
            every=every,
            normalize=normalize,
            layers=layers,
            scope=scope,
            norm=norm,
            residual=residual,
            example_inputs=example_inputs,
            eigenvalues=self.numbers,
            tolerance=tolerance,
            seed=seed,
            disconnect=disconnect,
        )
        self.disconnect = disconnect
        n_wanted = max(*self.numbers, 2) - 1
        for graph in self.graphs:
            if graph.n < max(self.numbers):
                raise InputError(
                    f"eigenvalues: must be at most the number of vertices, {graph.n}, got "
                    f"{max(self.numbers)}"
                )
        self._trackers = [
            Tracker(graph.n, graph.n_first, n_wanted, tolerance=tolerance, seed=seed + number)
            for number, graph in enumerate(self.graphs)
        ]
        self._watches = [DisconnectionWatch(graph, disconnect) for graph in self.graphs]
        self._found: list[tuple[float, ...]] = [()] * len(self.graphs)
        self._held = False

    @property
    def eigenvalues(self) -> tuple[float, ...]:
        """The eigenvalues at the last call; () before the first."""
        known = [found for found in self._found if found]
        return tuple(float(value) for value in np.mean(known, axis=0)) if known else ()

    @property
    def n_products(self) -> int:
        """Number of products with the weights in the last call, over all parts."""
        return sum(tracker.last.n_products for tracker in self._trackers if tracker.last)

    @property
    def n_restarts(self) -> int:
        """Number of times eigenvectors were computed from random vectors."""
        return sum(tracker.n_restarts for tracker in self._trackers)

    def log(self) -> dict[str, float]:
        """The values of `Regularizer.log`, and the eigenvalues by their numbers (`"lambda_2"`).

        Also `"products"` with the weights in the last call, `"restarts"` from random vectors, and
        `"held_back"`: 1 while `disconnect="hold"` omits the term.
        """
        values = {
            f"lambda_{number}": value
            for number, value in zip(self.numbers, self.eigenvalues, strict=False)
        }
        return (
            super().log()
            | values
            | {
                "products": float(self.n_products),
                "restarts": float(self.n_restarts),
                "held_back": float(self._held),
            }
        )

    def state_dict(self) -> dict[str, Any]:
        """State for resuming, in addition to the model: mainly the eigenvectors."""
        return super().state_dict() | {
            "trackers": [tracker.state_dict() for tracker in self._trackers],
            "disconnection": [watch.state_dict() for watch in self._watches],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a `state_dict`; see `Regularizer`."""
        super().load_state_dict(state)
        if len(state["trackers"]) != len(self._trackers):
            raise InputError(
                f"state: must have {len(self._trackers)} parts, as the graph has, got "
                f"{len(state['trackers'])}"
            )
        for tracker, own in zip(self._trackers, state["trackers"], strict=True):
            tracker.load_state_dict(own)
        for watch, own in zip(self._watches, state["disconnection"], strict=True):
            watch.load_state_dict(own)

    def _term(self, number: int, graph: LiveGraph, weight: float) -> Tensor:
        tracker = self._trackers[number]
        term = differentiable(tracker, self.numbers, graph.edge_weights(), weight)
        spectrum = tracker.last
        assert spectrum is not None
        self._found[number] = tuple(spectrum.eigenvalue(n) for n in self.numbers)
        self._held = self._watches[number].holds_back(spectrum, tracker.n_calls)
        return term.detach() if self._held else term
