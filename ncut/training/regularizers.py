"""Terms of a loss that make a network clusterable."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ncut.arguments import suggests_names
from ncut.errors import InputError
from ncut.training.eigenvalues import check_tolerance, checked_numbers, differentiable
from ncut.training.live import LiveGraph, live_graphs
from ncut.training.normalize import Normalization
from ncut.training.placed import Spectrum
from ncut.training.spectrum import Tracker, check_seed, full_precision

DISCONNECTED = 1e-3
"""A second eigenvalue below this means that the network is about to fall apart."""

CHECK_DEGREES = 16
"""Calls from one look at the degrees to the next."""

VANISHING = 1e-6
"""Degrees below this share of their mean count as vanishing."""

Disconnect = Literal["warn", "hold", "ignore"]


class Regularizer(ABC):
    """What all regularizers have: a model, a weight, a normalization, steps that are skipped.

    Calling it gives the term to add to the loss. Parameters as those of `EigenvalueRegularizer`.
    """

    def __init__(
        self,
        model: nn.Module,
        weight: float,
        *,
        every: int = 1,
        normalize: bool = False,
        layers: Sequence[str] | None = None,
        scope: str = "paper",
        norm: str = "l1",
        residual: str | None = None,
        example_inputs: Any = None,
    ) -> None:
        number = isinstance(weight, int | float | np.integer | np.floating) and not isinstance(
            weight, bool
        )
        if not number or not np.isfinite(weight) or weight < 0:
            raise InputError(f"weight: must be a number of at least 0, got {weight!r}")
        if isinstance(every, bool) or not isinstance(every, int | np.integer) or every < 1:
            raise InputError(f"every: must be a whole number of at least 1, got {every!r}")
        self.model = model
        self.weight = weight
        self.every = every
        self.graphs = live_graphs(
            model,
            layers=layers,
            scope=scope,
            norm=norm,
            residual=residual,
            example_inputs=example_inputs,
        )
        if not self.graphs:
            raise InputError("layers: chooses no layer; leave it out to choose all of them")
        self.n_calls = 0
        self._example_inputs = example_inputs
        self._normalization: Normalization | None = None
        self._hook: Any = None
        if normalize:
            self.normalize_()
            assert self._normalization is not None
            self._hook = model.register_forward_pre_hook(_NormalizeFirst(self._normalization))

    def __call__(self) -> Tensor:
        """The term to add to the loss, a scalar; 0 in steps that are skipped.

        One of `every` calls is computed and counts `every` times.
        """
        if self._hook is not None and self.model.training:
            self.normalize_()  # here too: the forward pass may come after this
        skipped = self.n_calls % self.every != 0
        self.n_calls += 1
        if skipped or self.weight == 0:
            return self._zero()
        share = self.weight * self.every / len(self.graphs)
        with full_precision(self.graphs[0].device):
            terms = [self._term(number, graph, share) for number, graph in enumerate(self.graphs)]
        return terms[0] if len(terms) == 1 else torch.stack(terms).sum()

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

    @abstractmethod
    def _term(self, number: int, graph: LiveGraph, weight: float) -> Tensor:
        """The penalty of one part of the network's graph times a weight."""

    def _zero(self) -> Tensor:
        parameter = next(self.model.parameters())
        return torch.zeros((), device=parameter.device)


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
    weight : float, default 0.1
        Weight of their mean. The paper's experiments used a gradient of half the true size, so
        that its 0.1 is 0.05 here.
    every : int, default 1
        Compute the term at every so many calls only, and count it as often.
    tolerance : float, default 1e-3
        Largest residual |M v - mu v| of the eigenvectors, which have length 1. Eigenvalues are
        accurate to about its square, gradients to about itself.
    layers : sequence of str, optional
        Names or patterns ("encoder.layer.*.mlp.*") of the modules whose weights count; by default
        all in the graph. Parts that share no neurons are graphs of their own, whose terms are
        averaged.
    normalize : bool, default False
        Normalize before each forward pass in training mode, as `normalize_()` does.
    scope, norm, residual, example_inputs
        How the model is read; see `ncut.graph`.
    seed : int, default 0
        Of the start vectors.
    disconnect : {"warn", "hold", "ignore"}
        What to do when the network is about to fall apart: the second eigenvalue falls below
        1e-3, or a neuron's degree below a millionth of the mean. `"warn"`: warn once for each.
        `"hold"`: also leave the term out as long as it lasts, so that it does not cut inputs from
        outputs.

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
        weight: float = 0.1,
        *,
        every: int = 1,
        tolerance: float = 1e-3,
        layers: Sequence[str] | None = None,
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
        self._fading: list[list[int]] = [[] for _ in self.graphs]
        self._told: set[tuple[int, str]] = set()

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

    def _term(self, number: int, graph: LiveGraph, weight: float) -> Tensor:
        tracker = self._trackers[number]
        term = differentiable(tracker, self.numbers, graph.placed(), weight)
        spectrum = tracker.last
        assert spectrum is not None
        self._found[number] = tuple(spectrum.eigenvalue(n) for n in self.numbers)
        if self.disconnect != "ignore":
            trouble = self._trouble(number, graph)
            if trouble and self.disconnect == "hold":
                return term.detach()
        return term

    def _trouble(self, number: int, graph: LiveGraph) -> bool:
        """Whether the graph is about to fall apart; warns the first time."""
        spectrum = self._trackers[number].last
        assert spectrum is not None
        problems = {}
        second = spectrum.eigenvalue(2)
        if second < DISCONNECTED:
            where = _falling_apart(graph, spectrum)
            problems["parts"] = f"the second eigenvalue has fallen to {second:.1e}: {where}"
        if self.n_calls % CHECK_DEGREES == 1:
            self._fading[number] = [int(vertex) for vertex in _vanishing(spectrum)[:1]]
        for vertex in self._fading[number]:
            where = graph.layer_of(vertex)
            problems["degrees"] = f"a neuron of {where!r} has next to no weights left"
        for kind, text in problems.items():
            if (number, kind) not in self._told:
                self._told.add((number, kind))
                held = self.disconnect == "hold"
                advice = "it is held back" if held else "disconnect='hold' would hold it back"
                warnings.warn(
                    f"the regularizer is cutting the network apart: {text}; {advice}. "
                    "Lower its weight if that goes on",
                    stacklevel=5,
                )
        return bool(problems)


def _vanishing(spectrum: Spectrum) -> NDArray[np.intp]:
    """Neurons whose degree is next to nothing; those without any weights are cut off already."""
    degrees = spectrum.degrees
    return np.flatnonzero((degrees < VANISHING * degrees.mean()) & (degrees > 0))


def _falling_apart(graph: LiveGraph, spectrum: Spectrum) -> str:
    """Which neurons the second eigenvector separates from the others."""
    # Its entries, over the root of the degrees, are nearly constant on either side.
    side = (spectrum.vectors[:, 0] > 0).cpu().numpy()
    volumes = [spectrum.degrees[side == half].sum() for half in (False, True)]
    small = side == (volumes[1] < volumes[0])
    small &= spectrum.degrees > 0
    shares = {layer.name: int(small[layer.slice].sum()) for layer in graph.layers}
    where = ", ".join(f"{n} of {name!r}" for name, n in shares.items() if n)
    first, last = graph.layers[0].slice, graph.layers[-1].slice
    ends = [np.average(side[at], weights=spectrum.degrees[at] + 1e-300) for at in (first, last)]
    apart = "; inputs are on one side, outputs on the other" if abs(ends[0] - ends[1]) > 0.9 else ""
    return f"a part of {int(small.sum())} neurons ({where}) is all but cut off{apart}"
