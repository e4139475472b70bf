"""Plan: every setting of a measurement, with its type, defaults, check and help text.

The public functions, the command line's options and a scan's files follow from it, as
tests/test_plan.py checks.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from ncut.arguments import check_choice, check_flag
from ncut.axes import NORMALIZATIONS, NULL_MODELS
from ncut.errors import InputError
from ncut.randomness import MAX_GRAPHS, check_seed

if TYPE_CHECKING:
    from ncut.types import Normalization, Null, PresetName, Sequential, Solver

PRESETS = ("filan2021", "hcai-torch")
"""Names of the public implementations with presets; docs/presets.md has the details."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Setting:
    """The default, check and help of one setting.

    Attributes
    ----------
    default : object
        The default in signatures; None if the preset or the machine decides.
    check : callable
        Returns the value in the plan's form, or raises InputError.
    help : str
        The help text.
    presets : mapping of str to object
        The default under each preset, if presets may differ.
    recorded : str
        The setting's name in a scan's folder, for settings that change its numbers; else empty.
    """

    default: Any
    check: Callable[[Any], Any]
    help: str
    presets: Mapping[str, Any]
    recorded: str

    def value(self, given: Any, preset: str) -> Any:
        """The checked value of an argument, or the preset's value if it is None."""
        return self.check(self.presets.get(preset) if given is None else given)


def _setting(
    default: Any,
    check: Callable[[Any], Any],
    help: str,
    *,
    presets: tuple[Any, ...] = (),
    recorded: str = "",
) -> Any:
    by_preset = dict(zip(PRESETS, presets, strict=True)) if presets else {}
    return field(metadata={"setting": Setting(default, check, help, by_preset, recorded)})


# The modules that define valid values are imported on the first check, so that the command line,
# which is built from this module, starts fast.


def _check_k(k: object) -> int:
    from ncut.graphs.validate import check_n_clusters

    return check_n_clusters(k, sys.maxsize)


def _check_shuffles(shuffles: object) -> int | Literal["auto"]:
    if shuffles == "auto":
        return "auto"
    whole = isinstance(shuffles, Integral) and not isinstance(shuffles, bool)
    if not whole or not 0 <= shuffles < MAX_GRAPHS - 1:  # type: ignore[operator]
        raise InputError(
            f"shuffles: must be a whole number of at least 0, or 'auto', got {shuffles!r}"
        )
    return int(shuffles)  # type: ignore[call-overload, no-any-return]


def _check_null(null: Any) -> str:
    from ncut.nulls import check_null

    return check_null(null)


def _check_normalization(convention: object) -> str:
    from ncut.graphs.normalize import check_normalization

    return check_normalization(convention)


def _check_preset(preset: object) -> str:
    return check_choice("preset", preset, PRESETS)


def _check_n_init(n_init: Any) -> int | Literal["auto"]:
    from ncut.spectral.kmeans import restarts

    return "auto" if n_init == "auto" else restarts(n_init, 0)


def _check_solver(solver: Any) -> str:
    from ncut.spectral.embedding import check_solver

    return check_solver(solver)


def _check_refine(refine: object) -> bool:
    return check_flag(refine, "refine")


def _check_threads(threads: Any) -> int:
    from ncut.threads import n_threads

    return n_threads(threads)


def _check_device(device: object) -> str:
    from ncut.device.devices import check_device_name

    return check_device_name(device)


SCALE_FREE: tuple[Null, ...] = ("alignment", "residual")
"""Null models on residuals, which a report may run as tests in addition to its null model."""


def _check_tests(tests: object) -> tuple[str, ...] | None:
    if tests is None:
        return None
    if tests == "none":
        return ()
    names = [one.strip() for one in tests.split(",")] if isinstance(tests, str) else tests
    if not isinstance(names, Iterable):
        raise InputError(f"tests: must be names of null models, got {tests!r}")
    for name in (chosen := tuple(dict.fromkeys(names))):
        if name not in SCALE_FREE:
            some = f"some of {', '.join(SCALE_FREE)}, or 'none'"
            raise InputError(f"tests: must be {some}, got {name!r}")
    return chosen


def _as_given(value: T) -> T:
    """Values that `Plan.of` checks together."""
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The checked arguments of a measurement."""

    k: int = _setting(
        None,
        _check_k,
        "Number of clusters.",
        presets=(12, 4),
        recorded="k",
    )
    shuffles: int | Literal["auto"] = _setting(
        None,
        _check_shuffles,
        "Number of shuffled networks, or 'auto': as many as the test needs.",
        presets=(50, 100),
        recorded="n_shuffles",
    )
    null: Null = _setting(
        None,
        _check_null,
        f"Null model that shuffles the weights: {', '.join(NULL_MODELS)}.",
        presets=("layer", "layer"),
        recorded="null",
    )
    normalize: Normalization = _setting(
        None,
        _check_normalization,
        f"Convention for the scale of weights: {', '.join(NORMALIZATIONS)}.",
        presets=("none", "l2"),
        recorded="normalize",
    )
    preset: PresetName = _setting(
        "filan2021",
        _check_preset,
        f"Implementation whose choices are the defaults: {' or '.join(PRESETS)}.",
        recorded="preset",
    )
    refine: bool = _setting(
        False,
        _check_refine,
        "Report the n-cut after refinement by single moves.",
        recorded="refine",
    )
    seed: int = _setting(0, check_seed, "Random seed; it fixes all numbers.", recorded="seed")
    n_init: int | Literal["auto"] = _setting(
        None,
        _check_n_init,
        "Restarts of k-means: a number or 'auto'.",
        presets=("auto", "auto"),
        recorded="n_init",
    )
    solver: Solver = _setting("auto", _check_solver, "The eigensolver.", recorded="solver")
    threads: int = _setting(None, _check_threads, "Threads to use.")
    max_shuffles: int = _setting(
        1000, _as_given, "With --shuffles auto, the largest number of shuffles."
    )
    level: float = _setting(
        0.05, _as_given, "Significance level of --shuffles auto and --verdict.", recorded="level"
    )
    sequential: Sequential = _setting(
        "betting",
        _as_given,
        "Stopping rule of --shuffles auto: 'betting' or 'besag-clifford'.",
        recorded="sequential",
    )
    device: str = _setting(
        "cpu", _check_device, "Device for the computation: 'cpu', 'cuda' or 'cuda:N' (extra 'gpu')."
    )

    tests: Sequence[str] | None = _setting(
        None,
        _check_tests,
        f"Tests in the report's summary: {', '.join(SCALE_FREE)}, separated by commas, or 'none'.",
    )

    @classmethod
    def of(cls, **arguments: Any) -> Plan:
        """The plan for these arguments; a preset or the default supplies the others.

        Raises
        ------
        InputError
            If an argument cannot be used; the message names it.
        """
        preset = _check_preset(arguments.get("preset", SETTINGS["preset"].default))
        given = {name: arguments.get(name, one.default) for name, one in SETTINGS.items()}
        plan = cls(**{name: one.value(given[name], preset) for name, one in SETTINGS.items()})
        from ncut.nulls import normalization_of

        own = normalization_of(plan.null, arguments.get("normalize"), plan.normalize)
        plan = replace(plan, normalize=cast("Normalization", own))
        if plan.tests and not plan.n_shuffles:
            raise InputError(
                "tests: need shuffles to compare with, got shuffles=0; leave one of them out"
            )
        if plan.shuffles == "auto":
            from ncut.nulls.sequential import check_sequential

            check_sequential(plan.sequential, plan.level, plan.max_shuffles)
        return plan

    @property
    def n_shuffles(self) -> int:
        """Largest number of shuffles."""
        return self.max_shuffles if self.shuffles == "auto" else self.shuffles

    @property
    def stopping_rule(self) -> Sequential | None:
        """The stopping rule; None if the number of shuffles is fixed."""
        return self.sequential if self.shuffles == "auto" else None

    def recorded(self) -> dict[str, Any]:
        """The settings that change a report's numbers, as plain data, for a scan's folder."""
        values = {one.recorded: getattr(self, name) for name, one in SETTINGS.items()}
        values |= {"n_shuffles": self.n_shuffles, "sequential": self.stopping_rule}
        del values[""]
        if self.device != "cpu":  # other random numbers, which are the same on every GPU
            values["device"] = self.device.partition(":")[0]
        if self.tests is not None:
            values["tests"] = list(self.tests)
        return values


SETTINGS: dict[str, Setting] = {
    field.name: field.metadata["setting"] for field in fields(Plan) if field.metadata
}
"""Each setting by the name of its argument."""


def with_needed_options(options: Mapping[str, object], null: str) -> dict[str, Any]:
    """Options of `ncut.graph`, completed with those that a null model needs."""
    return {**options, "initial": True} if null == "init" else {**options}
