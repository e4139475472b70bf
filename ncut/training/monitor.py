"""Shared parts of the training callbacks: a measurement, and a regularizer's gradient."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Unpack
from weakref import WeakSet

import torch
from torch import Tensor, nn

from ncut.analysis import analyze
from ncut.arguments import suggests_names
from ncut.errors import InputError
from ncut.extract import GRAPH_OPTIONS, GraphOptions
from ncut.plan import SETTINGS, Plan
from ncut.report import Report
from ncut.training.arguments import whole
from ncut.types import Normalization, Null, PresetName, Sequential, Solver

DEFAULT_EIGENVALUES = (2, 3, 4)
"""The eigenvalues that the paper's regularizer lowers."""


class MonitorOptions(GraphOptions, total=False):
    """The arguments of `ncut.analyze` that a monitor passes on."""

    null: Null | None
    normalize: Normalization | None
    preset: PresetName
    refine: bool
    n_init: int | Literal["auto"] | None
    solver: Solver
    threads: int | None
    max_shuffles: int
    level: float
    sequential: Sequential
    device: str
    tests: Sequence[str] | None


class Monitor:
    """Measures a network during its training: `ncut.analyze` as named numbers.

    Measuring does not affect the training: random generators, gradients and the training mode stay
    unchanged.

    Parameters
    ----------
    k : int, optional
        Number of clusters; the default of `ncut.analyze` if not given.
    shuffles : int or "auto", optional
        Number of shuffled networks; the default of `ncut.analyze` if not given. 0: only the n-cut
        and the eigenvalues, which is many times faster.
    seed : int, default 0
        The same in every measurement, so that differences come from the network.
    eigenvalues : sequence of int, optional
        Numbers of the Laplacian's eigenvalues to report, counted from 1, up to k; by default
        2, 3 and 4.
    **options
        Other arguments of `ncut.analyze`, including those for reading the graph.

    Raises
    ------
    InputError
        If an argument is unknown or cannot be used.
    """

    @suggests_names(
        *(name for name in GRAPH_OPTIONS if name != "initial"), *SETTINGS, "tests", name="Monitor"
    )
    def __init__(
        self,
        *,
        k: int | None = None,
        shuffles: int | Literal["auto"] | None = None,
        seed: int = 0,
        eigenvalues: Sequence[int] | None = None,
        **options: Unpack[MonitorOptions],
    ) -> None:
        self._arguments: dict[str, Any] = {"k": k, "shuffles": shuffles, "seed": seed, **options}
        names = {*SETTINGS, "tests"} & self._arguments.keys()
        settings = {name: self._arguments[name] for name in names}
        k = Plan.of(**settings).k
        if eigenvalues is None:
            eigenvalues = [number for number in DEFAULT_EIGENVALUES if number <= k]
        self.eigenvalues = tuple(eigenvalues)
        for number in self.eigenvalues:
            whole("eigenvalues", number, 1, k)
        self._has_warned = False

    def __repr__(self) -> str:
        given = {name: value for name, value in self._arguments.items() if value is not None}
        return f"Monitor({', '.join(f'{name}={value!r}' for name, value in given.items())})"

    def measure(self, model: Any) -> dict[str, float]:
        """The network's current clusterability, by names that loggers group under "ncut".

        Parameters
        ----------
        model : torch.nn.Module
            Or any other input of `ncut.graph`.

        Returns
        -------
        dict of str to float
            "ncut/ncut", "ncut/lower_bound", "ncut/lambda_2" and so on; with shuffles
            "ncut/shuffled_mean", "ncut/z_score" and "ncut/p_value", and for each of the report's
            `tests` the bound against its null model: "ncut/alignment_shuffled_mean",
            "ncut/alignment_z_score", "ncut/alignment_p_value". Missing and non-finite values are
            left out. Empty if the analysis fails, so that a failure does not end the training: the
            first failure is a warning with its reason.
        """
        try:
            report = analyze(model, **self._arguments)
        except Exception as error:
            if not self._has_warned:
                warnings.warn(
                    f"measuring clusterability failed, nothing was logged: {error}",
                    stacklevel=2,
                )
            self._has_warned = True
            return {}
        return self._values(report)

    def _values(self, report: Report) -> dict[str, float]:
        values = {
            "ncut/ncut": report.ncut,
            "ncut/shuffled_mean": report.shuffled_mean,
            "ncut/z_score": report.z_score,
            "ncut/p_value": report.p_value,
            "ncut/lower_bound": report.lower_bound,
        }
        for name, compared in report.tests.items():
            values[f"ncut/{name}_shuffled_mean"] = compared.mean
            values[f"ncut/{name}_z_score"] = compared.z_score
            values[f"ncut/{name}_p_value"] = compared.p_value
        for number in self.eigenvalues:
            values[f"ncut/lambda_{number}"] = report.eigenvalues[number - 1]
        return {
            name: float(value)
            for name, value in values.items()
            if value is not None and math.isfinite(value)
        }


class Penalty:
    """A regularizer whose gradient is added to the task's gradient before a step.

    Parameters
    ----------
    regularizer : callable, optional
        A function without arguments that returns a scalar tensor, such as an
        `ncut.EigenvalueRegularizer`; or a function that makes such a function from the model.
    normalize : bool
        Whether `normalize` calls the regularizer's `normalize_()`.
    """

    def __init__(self, regularizer: Callable[..., Any] | None, normalize: bool) -> None:
        if regularizer is None and normalize:
            raise InputError("normalize: needs a regularizer, whose normalize_() is called")
        if regularizer is not None and not callable(regularizer):
            raise InputError(
                f"regularizer: must be callable, got an object of type {type(regularizer).__name__}"
            )
        self._given = regularizer
        self._normalize = normalize
        self._idle: WeakSet[torch.optim.Optimizer] = WeakSet()
        self.regularizer: Any = None
        self.value: Tensor | None = None
        self._state: Mapping[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        """The regularizer's state, if it has any."""
        state = getattr(self.regularizer, "state_dict", None)
        return {} if state is None else {"regularizer": state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a `state_dict`, now or when the regularizer is made."""
        self._state = state.get("regularizer")
        self._restore()

    def _restore(self) -> None:
        load = getattr(self.regularizer, "load_state_dict", None)
        if self._state is not None and load is not None:
            load(self._state)
            self._state = None

    def start(self, model: nn.Module) -> None:
        """Make the regularizer, if a factory function was given."""
        given = self._given
        self.value = None
        self._idle.clear()
        self.regularizer = given(model) if given is not None and _takes_model(given) else given
        if self._normalize and not callable(getattr(self.regularizer, "normalize_", None)):
            raise InputError("normalize: the regularizer has no method normalize_()")
        self._restore()

    def normalize(self) -> None:
        """Normalize the network's weights, if requested."""
        if self._normalize:
            self.regularizer.normalize_()

    def add_gradient(
        self, optimizer: torch.optim.Optimizer, *, scaler: Any = None, is_only: bool = True
    ) -> None:
        """Add the regularizer's gradient to the gradients of the optimizer's parameters.

        Only these parameters change, so that several optimizers do not add the gradient twice. The
        gradient bypasses the accumulation hooks with which distributed training averages the
        task's gradient: every process adds the same gradient after the averaging. If no parameter
        has a gradient, the step was skipped, and nothing is added.

        Parameters
        ----------
        scaler : torch.amp.GradScaler, optional
            The scaler's scale is removed from the gradients first, unless already done.
        is_only : bool, default True
            Whether there is no other optimizer; an only optimizer without any weight of the
            regularizer is an error.

        Raises
        ------
        InputError
            If the only optimizer holds no weight that the regularizer depends on.
        """
        held = (p for group in optimizer.param_groups for p in group["params"])
        parameters = [p for p in held if p.requires_grad]
        if self.regularizer is None or optimizer in self._idle:
            return
        if all(p.grad is None for p in parameters):
            return
        with torch.enable_grad():
            value = self.regularizer()
        if not value.requires_grad:  # a step that the regularizer leaves out
            return
        self.value = value.detach()
        learned = list(getattr(self.regularizer, "learned", ()))
        found = torch.autograd.grad(value, [*parameters, *learned], allow_unused=True)
        gradients = found[: len(parameters)]
        for tensor, own in zip(learned, found[len(parameters) :], strict=True):
            tensor.grad = own
        if all(gradient is None for gradient in gradients):
            if is_only:
                raise InputError(
                    "regularizer: the optimizer holds none of the weights that it depends on; "
                    "was it made for another model? pass a function that makes it from the model"
                )
            self._idle.add(optimizer)
            return
        _unscale(scaler, optimizer)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None and parameter.grad is None:
                parameter.grad = gradient
            elif gradient is not None:
                parameter.grad.add_(gradient)

    def values(self) -> dict[str, float]:
        """The regularizer's last value and eigenvalues; empty before the first call."""
        if self.value is None:
            return {}
        values = {"ncut/regularizer": float(self.value)}
        numbers = getattr(self.regularizer, "numbers", ())
        found = getattr(self.regularizer, "eigenvalues", ())
        for number, eigenvalue in zip(numbers, found, strict=False):
            values[f"ncut/regularizer_lambda_{number}"] = float(eigenvalue)
        return values


class Watching:
    """Measurement, its steps and regularizer: the part that callbacks of training loops share.

    Parameters are those of `ncut.training.lightning.ClusterabilityCallback`.
    """

    def __init__(
        self,
        monitor: Monitor | None,
        every: int,
        regularizer: Callable[..., Any] | None,
        normalize: bool,
        submodule: str,
    ) -> None:
        self.monitor = Monitor() if monitor is None else monitor
        self.every = whole("every", every, 0)
        self.submodule = submodule
        self._penalty = Penalty(regularizer, normalize)
        self._measured = -1

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.monitor!r}, every={self.every})"

    @property
    def regularizer(self) -> Any:
        """The regularizer in use; None before training, or if there is none."""
        return self._penalty.regularizer

    def _network(self, model: nn.Module) -> nn.Module:
        return model.get_submodule(self.submodule)


def _takes_model(regularizer: Callable[..., Any]) -> bool:
    """Return whether the function requires an argument."""
    try:
        inspect.signature(regularizer).bind()
    except TypeError:
        return True
    return False


def _unscale(scaler: Any, optimizer: torch.optim.Optimizer) -> None:
    if scaler is None or not scaler.is_enabled():
        return
    try:
        scaler.unscale_(optimizer)
    except RuntimeError as error:  # no public way to query whether it has been done
        if "already been called" not in str(error):
            raise
