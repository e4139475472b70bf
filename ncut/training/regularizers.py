"""Terms of a loss that make a network clusterable."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ncut.arguments import suggests_names
from ncut.errors import InputError
from ncut.extract.modules import unwrapped
from ncut.training.arguments import Schedule, scheduled, whole
from ncut.training.eigenvalues import check_tolerance, checked_numbers, differentiable
from ncut.training.live import LiveGraph, Planned, graphs_of
from ncut.training.normalize import Normalization
from ncut.training.placed import Spectrum
from ncut.training.spectrum import Tracker, check_seed, full_precision

DISCONNECTED = 1e-3
"""A second eigenvalue below this means that the network is about to fall apart."""

CHECK_DEGREES = 16
"""Calls from one look at the degrees to the next."""

VANISHING = 1e-6
"""Degrees below this share of their mean count as vanishing."""

NEGLIGIBLE = 1e-3
"""Parts with less than this share of all edge weight do not count as parts."""

Disconnect = Literal["warn", "hold", "ignore"]

Layers: TypeAlias = Sequence[str] | Mapping[Any, Schedule] | None
"""Names or patterns of layers; or groups, a pattern or a tuple of them, with a factor each; or all.

Keys are not typed, since a mapping from str is none from str or tuple of str.
"""


class Regularizer(ABC):
    """What all regularizers have: a model, a weight, a normalization, steps that are skipped.

    Calling it gives the term to add to the loss. Parameters as those of `EigenvalueRegularizer`.
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
        # The name and the factor of the group that each of them is in, and the group's number.
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
        """The term to add to the loss, a scalar; 0 in steps that are skipped.

        One of `every` steps is computed and counts `every` times. A call begins a step, unless
        `step` does; without gradients (under `torch.no_grad()`) it is none, and gives what the
        term is, whether the step is skipped or not.

        Parameters
        ----------
        model : torch.nn.Module, optional
            The model that is trained, to make sure that it is the regularizer's.

        Raises
        ------
        InputError
            If it is another one, such as a copy; or if a layer whose weights are penalized is no
            longer in the regularizer's model, or was put into one that has weights of its own.
        """
        self._check(model)
        if self._hook is not None and self.model.training:
            self.normalize_()  # here too: the forward pass may come after this
        begins = self._counts_calls and torch.is_grad_enabled()
        step = self.n_steps if self._counts_calls else max(self.n_steps - 1, 0)
        self.n_steps += begins
        weight = scheduled("weight", self.weight, step)
        skipped = torch.is_grad_enabled() and step % self.every != 0
        if skipped or weight == 0:
            return self._zero()
        times = self.every if torch.is_grad_enabled() else 1
        with full_precision(self.graphs[0].device):
            terms = [
                self._term(
                    number, graph, weight * times * scheduled(_label(name), factor, step) / n
                )
                for number, (graph, (name, factor, n)) in enumerate(
                    zip(self.graphs, self._groups, strict=True)
                )
            ]
        term = terms[0] if len(terms) == 1 else torch.stack(terms).sum()
        self._last = term.detach(), times
        self._terms = [own.detach() for own in terms]
        return term

    def step(self) -> None:
        """Begin the next training step; from now on calls are not counted as steps.

        For more than one call in a step, as with several optimizers or batches that are
        accumulated.
        """
        if self._counts_calls:
            self._counts_calls, self.n_steps = False, 0
        self.n_steps += 1

    def log(self) -> dict[str, float]:
        """How the last term that was computed came about, as numbers for a logger.

        Returns
        -------
        dict of str to float
            `"value"`, of the term as it counts in one step; `"weight"` in this step; `"step"`;
            `"parts"`, parts of the graph that are penalized by themselves; `"value of encoder.*"`
            of each group, where `layers` has groups; and more, by the kind of regularizer. Waits
            for a device.
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
        """What a resumed run needs beside the model, tensors and numbers."""
        return {"n_steps": self.n_steps, "counts_calls": self._counts_calls}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`, of a regularizer made with the same arguments.

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
        # A copy reads its model anew: what was read holds the model's own tensors.
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
        """Stop normalizing before forward passes, where `normalize=True` has begun that."""
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    @property
    def learned(self) -> Sequence[Tensor]:
        """Tensors of the regularizer's own that its gradient is for, too."""
        return ()

    @abstractmethod
    def _term(self, number: int, graph: LiveGraph, weight: float) -> Tensor:
        """The penalty of one part of the network's graph times a weight."""

    def _check(self, model: nn.Module | None) -> None:
        inner = unwrapped(self.model)
        if model is not None and unwrapped(model) is not inner:
            raise InputError(
                "model: is not the one that the regularizer was made for; make one for it"
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
    """Whether a module has parameters that are none of the module inside of it."""
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

    The term is weight * mean of the eigenvalues asked for. The network is read once; after that a
    call costs about two products of the weights with 16 vectors, since it starts from the last
    eigenvectors. Pruning, other devices and types are followed.

    On a GPU a call waits for the device at each Rayleigh-Ritz step, whose small eigenproblem the
    host solves; graphs in which fewer than 32 neurons have weights are left to the host.

    Parameters
    ----------
    model : torch.nn.Module
        Any that `ncut.graph` reads.
    eigenvalues : sequence of int, default (2, 3, 4)
        Numbers of the eigenvalues, the smallest being 1. `range(2, 13)` is the sum of the 12
        smallest (the first is 0), which is smooth wherever the 12th and the 13th differ, and
        bounds every 12-way normalized cut from below.
    weight : float or callable, default 0.1
        Weight of their mean, or a function of the training step, counted from 0; it may be set
        anew at any time. The paper's experiments used a gradient of half the true size, so that
        its 0.1 is 0.05 here.
    every : int, default 1
        Compute the term at every so many steps only, and count it as often. A step is a call
        with gradients, or what `step()` begins.
    tolerance : float, default 1e-3
        Largest residual |M v - mu v| of the eigenvectors, which have length 1. Eigenvalues are
        accurate to about its square, gradients to about itself.
    layers : sequence of str, or mapping from str or tuple of str to float or callable, optional
        Names or patterns ("encoder.layer.*.mlp.*") of the modules whose weights count; by default
        all in the graph. Parts that share no neurons are graphs of their own, whose terms are
        averaged. A mapping makes groups, {"encoder.*": 1.0, ("head.0", "head.2"): 0.2}: each is
        a graph of its own, and the terms are added up, times the group's factor (a number, or a
        function of the step).
    normalize : bool, default False
        Normalize before each forward pass in training mode, as `normalize_()` does.
    scope, norm, residual, example_inputs
        How the model is read; see `ncut.graph`.
    seed : int, default 0
        Of the start vectors.
    disconnect : {"warn", "hold", "ignore"}
        What to do when the network is about to fall apart further than it was at the first call:
        into more parts (those with a thousandth of the edge weight or more; an eigenvalue below
        1e-3 for each), or a neuron's degree falls below a millionth of the mean.
        `"warn"`: warn once for each. `"hold"`: also leave the term out as long as inputs are
        parted from outputs, no part having a tenth of both.

    Attributes
    ----------
    eigenvalues : tuple of float
        Those of the last call (of several parts, their means).
    numbers : tuple of int
        Their numbers.
    n_products : int
        Products with the weights at the last call.
    n_restarts : int
        How often the eigenvectors were computed from random vectors.

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
        disconnect: Disconnect = "warn",
    ) -> None:
        self.numbers = checked_numbers(eigenvalues, "eigenvalues")
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
                    f"eigenvalues: {max(self.numbers)} of a graph of {graph.n} vertices"
                )
        self._trackers = [
            Tracker(graph.n, graph.n_first, n_wanted, tolerance=tolerance, seed=seed + number)
            for number, graph in enumerate(self.graphs)
        ]
        self._found: list[tuple[float, ...]] = [()] * len(self.graphs)
        self._told: set[tuple[int, str]] = set()
        # Of each part: how many parts it had, and which neurons had next to no weights, at first.
        self._parts_at_first: list[int | None] = [None] * len(self.graphs)
        self._faded_at_first: list[list[int]] = [[] for _ in self.graphs]
        self._held = False

    @property
    def eigenvalues(self) -> tuple[float, ...]:
        """The eigenvalues at the last call; () before the first."""
        known = [found for found in self._found if found]
        return tuple(float(value) for value in np.mean(known, axis=0)) if known else ()

    @property
    def n_products(self) -> int:
        """Products with the weights that the last call took, of all parts."""
        return sum(tracker.last.n_products for tracker in self._trackers if tracker.last)

    @property
    def n_restarts(self) -> int:
        """How often eigenvectors were computed from random vectors."""
        return sum(tracker.n_restarts for tracker in self._trackers)

    def log(self) -> dict[str, float]:
        """As that of any regularizer, with the eigenvalues by their numbers (`"lambda_2"`).

        `"products"` with the weights that the last call took, `"restarts"` from random vectors,
        `"held_back"`: 1 while `disconnect="hold"` leaves the term out.
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
        """What a resumed run needs beside the model: the eigenvectors, above all."""
        return super().state_dict() | {
            "trackers": [tracker.state_dict() for tracker in self._trackers],
            "parts_at_first": list(self._parts_at_first),
            "faded_at_first": [list(vertices) for vertices in self._faded_at_first],
            "told": sorted(self._told),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`; see `Regularizer`."""
        super().load_state_dict(state)
        if len(state["trackers"]) != len(self._trackers):
            raise InputError(
                f"state: is of {len(state['trackers'])} parts, the graph has {len(self._trackers)}"
            )
        for tracker, own in zip(self._trackers, state["trackers"], strict=True):
            tracker.load_state_dict(own)
        self._parts_at_first = list(state["parts_at_first"])
        self._faded_at_first = [list(vertices) for vertices in state["faded_at_first"]]
        self._told = {(int(number), str(kind)) for number, kind in state["told"]}

    def _term(self, number: int, graph: LiveGraph, weight: float) -> Tensor:
        tracker = self._trackers[number]
        term = differentiable(tracker, self.numbers, graph.placed(), weight)
        spectrum = tracker.last
        assert spectrum is not None
        self._found[number] = tuple(spectrum.eigenvalue(n) for n in self.numbers)
        self._held = False
        if self.disconnect != "ignore" and self._trouble(number, graph):
            self._held = self.disconnect == "hold"
        return term.detach() if self._held else term

    def _trouble(self, number: int, graph: LiveGraph) -> bool:
        """Whether inputs are parted from outputs; warns the first time that anything falls off."""
        tracker = self._trackers[number]
        spectrum = tracker.last
        assert spectrum is not None
        parts = _parts(spectrum)
        before = self._parts_at_first[number]
        if before is None:
            self._parts_at_first[number] = len(parts)
        parted = len(parts) > (before or 1) and _parted(graph, spectrum, parts)
        if len(parts) > (before or 1) and (number, "parts") not in self._told:
            self._told.add((number, "parts"))
            text = _falling_apart(graph, spectrum, parts, parted)
            advice = _advice(text, before is None, parted, self.disconnect)
            warnings.warn(advice, stacklevel=5)
        if tracker.n_calls % CHECK_DEGREES == 1 and (number, "degrees") not in self._told:
            found = [int(vertex) for vertex in _vanishing(spectrum)]
            if before is None:
                self._faded_at_first[number] = found
            fading = [vertex for vertex in found if vertex not in self._faded_at_first[number]]
            if fading:
                self._told.add((number, "degrees"))
                warnings.warn(
                    f"a neuron of {graph.layer_of(fading[0])!r} has next to no weights left: the "
                    "regularizer or the task is cutting it off",
                    stacklevel=5,
                )
        return parted and before is not None


def _advice(text: str, first: bool, parted: bool, disconnect: Disconnect) -> str:
    """What to tell of a network that falls apart."""
    if first:
        return f"the network is in parts before the regularizer has changed it: {text}"
    advice = "disconnect='hold' holds the term back where inputs are parted from outputs"
    if disconnect == "hold":
        advice = "the term is held back" if parted else "inputs still reach outputs"
    return (
        f"the regularizer is cutting the network apart: {text}; {advice}. Lower its weight if that "
        "is not what it is for"
    )


def _vanishing(spectrum: Spectrum) -> NDArray[np.intp]:
    """Neurons whose degree is next to nothing; those without any weights are cut off already."""
    degrees = spectrum.degrees
    return np.flatnonzero((degrees < VANISHING * degrees.mean()) & (degrees > 0))


def _parts(spectrum: Spectrum) -> list[NDArray[np.bool_]]:
    """The vertices of each part that next to nothing connects with the others, heaviest first.

    Parts of negligible weight are left out, and there are no more than there are eigenvectors.
    """
    degrees = spectrum.degrees
    n_small = int((1.0 - spectrum.values < DISCONNECTED).sum())
    left = degrees > 0
    if not n_small:
        return [left]
    # With the first eigenvector they span the parts' indicators: vertices of one part have
    # parallel rows, those of two parts orthogonal ones, whatever the parts' sizes.
    constant = np.full((len(degrees), 1), degrees.sum() ** -0.5)
    rows = np.hstack([constant, spectrum.vectors[:, :n_small].double().cpu().numpy()])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    parts = []
    while degrees[left].sum() >= NEGLIGIBLE * degrees.sum():
        leader = int(np.argmax(np.where(left, degrees, -1.0)))
        part = left & (rows @ rows[leader] > 0.5)
        left = left & ~part
        if degrees[part].sum() >= NEGLIGIBLE * degrees.sum():
            parts.append(part)
    return sorted(parts, key=lambda part: -degrees[part].sum())


def _parted(graph: LiveGraph, spectrum: Spectrum, parts: list[NDArray[np.bool_]]) -> bool:
    """Whether no part has a tenth of the weights of the inputs and of those of the outputs."""
    ends = [graph.layers[0].slice, graph.layers[-1].slice]
    volumes = [max(float(spectrum.degrees[at].sum()), 1e-300) for at in ends]
    weights = [np.where(part, spectrum.degrees, 0.0) for part in parts]
    shared = [
        min(own[at].sum() / volume for at, volume in zip(ends, volumes, strict=True))
        for own in weights
    ]
    return bool(sum(shared) < 0.1)


def _falling_apart(
    graph: LiveGraph, spectrum: Spectrum, parts: list[NDArray[np.bool_]], parted: bool
) -> str:
    """Which neurons are in the lightest part."""
    small = parts[-1]
    shares = {layer.name: int(small[layer.slice].sum()) for layer in graph.layers}
    where = ", ".join(f"{n} of {name!r}" for name, n in shares.items() if n)
    apart = "; inputs are on one side, outputs on the other" if parted else ""
    return (
        f"the second eigenvalue is {spectrum.eigenvalue(2):.1e}, a part of {int(small.sum())} "
        f"neurons ({where}) is all but cut off{apart}"
    )
