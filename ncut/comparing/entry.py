"""compare(): measure models with the same settings, or take their reports, and pair them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ncut.analysis import analyze
from ncut.comparing.comparison import ModelComparison
from ncut.errors import InputError
from ncut.report import Report


def compare(a: Any, b: Any, *more: Any, **settings: Any) -> ModelComparison:
    """Compare two or more models: each with the one before it.

    Parameters
    ----------
    a, b, *more
        Whatever `ncut.analyze` takes, a `Report`, or the path of a report that `Report.to_json`
        wrote (it ends in `.json`).
    **settings
        Arguments of `ncut.analyze` for models that are not reports yet. With one seed the shuffles
        of networks of one shape are the same rearrangements of either's weights, so that their
        differences are paired.

    Returns
    -------
    ModelComparison

    Raises
    ------
    InputError
        If the reports differ in k, null model, convention of scale, preset or headline: their
        numbers do not compare.
    ModelError
        If a model cannot be read.
    """
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
    if isinstance(model, str | Path) and Path(model).suffix == ".json":
        return Report.from_json(Path(model))
    return analyze(model, **settings)
