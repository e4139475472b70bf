"""compare(): measure models with the same settings, or use their reports, and pair them."""

from __future__ import annotations

from collections.abc import Iterable
from inspect import signature
from pathlib import Path
from typing import Any

from ncut.analysis import analyze
from ncut.arguments import suggests_names
from ncut.comparing.comparison import ModelComparison
from ncut.errors import InputError
from ncut.extract import GRAPH_OPTIONS
from ncut.extract.readers.tfjs import is_tfjs
from ncut.report import Report

SETTINGS = [
    one.name for one in signature(analyze).parameters.values() if one.kind is one.KEYWORD_ONLY
]


@suggests_names(*SETTINGS, *GRAPH_OPTIONS)
def compare(a: Any, b: Any, *more: Any, **settings: Any) -> ModelComparison:
    """Compare two or more models, each with its predecessor.

    Parameters
    ----------
    a, b, *more
        Any input of `ncut.analyze`, a `Report`, or the path of a report written by `Report.to_json`
        (ending in `.json`; a `.json` file of TensorFlow.js is a model).
    **settings
        Arguments of `ncut.analyze` for models that are not reports yet. With one seed, networks of
        the same shape are shuffled by the same permutations, so that their differences are paired.

    Returns
    -------
    ModelComparison

    Raises
    ------
    InputError
        If the reports differ in k, null model, convention of scale, preset or headline, so that
        their numbers are not comparable; or if there are settings, and no model to measure.
    ModelError
        If a model cannot be read.
    """
    check_settings((a, b, *more), settings)
    reports = [_report(model, settings) for model in (a, b, *more)]
    first = reports[0]
    for other in reports[1:]:
        for name in ("k", "null", "normalize", "preset", "refine"):
            one, two = getattr(first, name), getattr(other, name)
            if one != two:
                raise InputError(
                    f"{name}: {first.model!r} was measured with {one!r} and {other.model!r} with "
                    f"{two!r}; measure both alike"
                )
    return ModelComparison(tuple(reports))


def _report(model: Any, settings: dict[str, Any]) -> Report:
    if isinstance(model, Report):
        return model
    if is_report(model):
        return Report.from_json(Path(model))
    return analyze(model, **settings)


def check_settings(models: Iterable[Any], settings: Iterable[str]) -> None:
    """Refuse settings of a comparison that measures no model."""
    if all(map(is_report, models)):
        for name in settings:
            raise InputError(f"{name}: has no effect on reports; leave it out, or pass models")


def is_report(model: Any) -> bool:
    """Check whether a model is a report, or the path of a `.json` file that holds no model."""
    if not isinstance(model, str | Path):
        return isinstance(model, Report)
    return Path(model).suffix.lower() == ".json" and not is_tfjs(Path(model))
