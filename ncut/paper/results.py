"""Our numbers and the published ones: rows, differences, and agreement of conclusions."""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ncut.paper.comparison import (
    LEVEL,
    MeanDifference,
    Sample,
    agreeing_pairs,
    difference,
    distance,
    pairs_by_noise,
    pooled,
    quantile,
)
from ncut.paper.runs import Run, cells_of, settings_of
from ncut.paper.tables import TITLES, Row, TrainedRow

MORE, NEITHER, LESS = "more", "neither", "less"
"""The finding on a row: more or less clusterable than the shuffles, or neither clearly."""

CLEAR = 2.0
"""Standard deviations above the shuffles from which a mean n-cut counts as "less"."""


@dataclass(frozen=True)
class Summary:
    """A row's numbers, ours or published; None: unknown.

    `ncut` and `ncut_std` are over networks; `shuffled_mean` and `shuffled_std` are averages over
    networks of the mean and the standard deviation over a network's shuffles.
    """

    runs: int
    ncut: float | None
    ncut_std: float | None
    shuffled_mean: float | None
    shuffled_std: float | None
    significant: int | None
    train_accuracy: float | None
    test_accuracy: float | None
    train_loss: float | None
    test_loss: float | None

    @property
    def sample(self) -> Sample | None:
        return None if self.ncut is None else Sample(self.runs, self.ncut, self.ncut_std)

    @property
    def gap(self) -> float | None:
        """The mean n-cut minus the mean of the shuffles."""
        if self.ncut is None or self.shuffled_mean is None:
            return None
        return self.ncut - self.shuffled_mean

    @property
    def conclusion(self) -> str | None:
        """ "more": most networks have an n-cut below all their shuffles'."""
        if self.ncut is None or self.shuffled_mean is None or self.significant is None:
            return None
        if 2 * self.significant > self.runs:
            return MORE
        clearly = CLEAR * (self.shuffled_std or 0.0)
        return LESS if self.ncut > self.shuffled_mean + clearly else NEITHER


@dataclass(frozen=True)
class RowResult:
    """A row of a table: the published numbers, and our networks."""

    row: Row
    runs: tuple[Run, ...]

    @property
    def ours(self) -> Summary:
        cuts = [run.ncut for run in self.runs]
        shuffled = [run for run in self.runs if run.shuffled_mean is not None]
        return Summary(
            len(self.runs),
            statistics.fmean(cuts),
            statistics.stdev(cuts) if len(cuts) > 1 else None,
            _mean(run.shuffled_mean for run in shuffled),
            _mean(run.shuffled_std for run in shuffled),
            sum(run.below_all for run in shuffled) if shuffled else None,
            *(
                _mean(run.metrics.get(name) for run in self.runs)
                for name in ("train_accuracy", "test_accuracy", "train_loss", "test_loss")
            ),
        )

    @property
    def published(self) -> Summary:
        row = self.row.published
        return Summary(
            row.runs, row.ncut, row.ncut_std, row.shuffled_mean, row.shuffled_std,
            row.significant, row.train_accuracy, row.test_accuracy, row.train_loss, row.test_loss,
        )  # fmt: skip

    @property
    def difference(self) -> MeanDifference | None:
        """Our mean n-cut minus the published one; None: the spread of networks is unknown.

        For untrained networks, with only a published range, it is the distance from that range.
        """
        ours, published, row = self.ours.sample, self.published.sample, self.row.published
        assert ours is not None
        if published is not None:
            return difference(ours, published)
        return None if row.low is None or row.high is None else distance(ours, row.low, row.high)

    @property
    def is_decided(self) -> bool:
        """Test if both sides' n-cuts are on the same side of their shuffles beyond noise.

        The interval of each side's mean n-cut must exclude the mean of its shuffles.
        """
        sides = self.ours, self.published
        spread = pooled(*(side.sample for side in sides if side.sample is not None))
        if spread is None:
            return False
        std, degrees = spread
        limits = [quantile(degrees) * std / math.sqrt(side.runs) for side in sides]
        signs = [
            0 if side.gap is None or abs(side.gap) <= limit else math.copysign(1, side.gap)
            for side, limit in zip(sides, limits, strict=True)
        ]
        return signs[0] == signs[1] != 0

    @property
    def agrees(self) -> bool | None:
        """Test if the conclusion about the shuffles is the published one; None: none published."""
        if self.published.conclusion is None:
            return None
        return self.ours.conclusion == self.published.conclusion


def _mean(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


@dataclass(frozen=True)
class TableResult:
    """A table of the paper, with our and the published numbers.

    Attributes
    ----------
    table : str
        Its name, a key of `tables.TITLES`.
    rows : tuple of RowResult
        The rows in the published order; rows without our networks are left out.
    """

    table: str
    rows: tuple[RowResult, ...]

    @property
    def title(self) -> str:
        kind = "Figure" if self.table.startswith("figure") else "Table"
        return f"{kind} {self.table.removeprefix('figure ')}: {TITLES[self.table]}"

    def order(self) -> tuple[int, int]:
        """Pairs of rows whose mean n-cuts are in the published order, and all pairs."""
        known = self._samples()
        same = agreeing_pairs([ours.mean for ours, _ in known], [each.mean for _, each in known])
        return same, math.comb(len(known), 2)

    def order_by_noise(self) -> tuple[float, int, int] | None:
        """`pairs_by_noise` of the rows: the order that an exact reproduction would have."""
        return pairs_by_noise(self._samples())

    def _samples(self) -> list[tuple[Sample, Sample]]:
        pairs = [(row.ours.sample, row.published.sample) for row in self.rows]
        return [(a, b) for a, b in pairs if a is not None and b is not None]

    def agreement(self) -> tuple[int, int]:
        """Rows whose conclusion is the published one, and rows that have a published one."""
        known = [row.agrees for row in self.rows if row.agrees is not None]
        return sum(known), len(known)

    def to_csv(self) -> str:
        """A line for each row: the recipe, our numbers, the published ones, the difference."""
        return _csv([_row_cells(self.table, row) for row in self.rows])

    def runs_to_csv(self) -> str:
        """A line for each network."""
        pairs = [(row, run) for row in self.rows for run in row.runs]
        return _csv([settings_of(self.table, row.row) | cells_of(run) for row, run in pairs])

    def to_markdown(self) -> str:
        """The formatted table: each of our rows above the published one."""
        lines = [f"### {self.title}", "", *_scaled_down(self.rows), *_MARKDOWN_HEAD]
        for row in self.rows:
            lines += _markdown_rows(row)
        lines += ["", *_conclusions(self)]
        return "\n".join(lines) + "\n"


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    return text.getvalue()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


_NUMBERS = (
    "runs", "ncut", "ncut_std", "shuffled_mean", "shuffled_std", "significant", "conclusion",
    "train_accuracy", "test_accuracy", "train_loss", "test_loss",
)  # fmt: skip


def _row_cells(table: str, row: RowResult) -> dict[str, Any]:
    images = {run.metrics.get("images") for run in row.runs}
    return {
        **settings_of(table, row.row),
        "images": "" if images == {None} else "/".join(map(str, images)),
        **{name: getattr(row.ours, name) for name in _NUMBERS},
        **{f"published_{name}": getattr(row.published, name) for name in _NUMBERS},
        "published_std_from": row.row.published.std_from,
        "difference": None if row.difference is None else row.difference.value,
        "standard_error": None if row.difference is None else row.difference.standard_error,
        "half_width": None if row.difference is None else row.difference.half_width,
        "agrees": row.agrees,
        "decided": None if row.agrees is None else row.is_decided,
    }


_HEAD = ("Network", "Pruned", "", "N-cut", "Shuffled n-cuts", "Below all shuffles",
         "Train acc. or loss", "Test acc. or loss", "Difference (95 % interval)",
         "Agrees")  # fmt: skip
_MARKDOWN_HEAD = (f"| {' | '.join(_HEAD)} |", "|" + "---|" * len(_HEAD))


def _markdown_rows(row: RowResult) -> list[str]:
    found = []
    published = row.row.published
    for summary, whose in ((row.ours, "ours"), (row.published, "published")):
        is_ours = whose == "ours"
        if not is_ours and published.ncut is None and published.low is None:
            continue
        cut = _spread(summary.ncut, summary.ncut_std)
        if not is_ours and published.low is not None:
            cut = f"{published.low:g} to {published.high:g}"
        share = "" if summary.significant is None else f"{summary.significant}/{summary.runs}"
        losses = summary.train_accuracy is None and summary.test_accuracy is None
        train = summary.train_loss if losses else summary.train_accuracy
        test = summary.test_loss if losses else summary.test_accuracy
        difference = _interval(row.difference) if is_ours else ""
        agrees = {True: "yes", False: "**no**", None: ""}[row.agrees] if is_ours else ""
        cells = (
            published.label if is_ours else "", published.pruned if is_ours else "",
            f"{whose} ({summary.runs})", cut,
            _spread(summary.shuffled_mean, summary.shuffled_std), share,
            _number(train), _number(test), difference, agrees,
        )  # fmt: skip
        found.append(f"| {' | '.join(cells)} |")
    return found


def _interval(found: MeanDifference | None) -> str:
    """A difference, in bold if its interval excludes 0."""
    if found is None:
        return ""
    text = f"{found.value:+.3f} ± {found.half_width:.3f}"
    return f"**{text}**" if found.excludes_zero else text


def _spread(mean: float | None, std: float | None) -> str:
    return _number(mean) + (f" ± {std:.3f}" if mean is not None and std is not None else "")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _scaled_down(rows: Sequence[RowResult]) -> list[str]:
    """The procedure, in a paragraph."""
    runs = [run for row in rows for run in row.runs]
    recipes = [row.row.recipe for row in rows if isinstance(row.row, TrainedRow)]
    parts = []
    if recipes:
        epochs = sorted({(recipe.epochs, recipe.pruning_epochs) for recipe in recipes})
        parts.append("Epochs " + ", ".join(f"{a} + {b}" for a, b in epochs))
        parts.append("procedure " + ", ".join(sorted({recipe.procedure for recipe in recipes})))
        parts.append("precision " + ", ".join(sorted({recipe.precision for recipe in recipes})))
    images = sorted({run.metrics["images"] for run in runs if "images" in run.metrics})
    if images:
        parts.append("training examples " + ", ".join(f"{n:,}" for n in images))
    files = [run.metrics["file"] for run in runs if "file" in run.metrics]
    if files:
        parts.append(f"Weights from {', '.join(files)}")
        norms = sorted({run.metrics["norm"] for run in runs})
        parts.append(f"norm of a kernel {', '.join(norms)}")
    if any(run.metrics.get("original_data") is False for run in runs):
        parts.append("**not the whole published data set**")
    return [f"{'; '.join(parts)}.", ""] if parts else []


_MOST_BY_NOISE = " (an exact reproduction: {:.1f} on average, {} to {} in 95 % of cases)"


def _conclusions(result: TableResult) -> list[str]:
    agreeing, known = result.agreement()
    ordered, pairs = result.order()
    noise = result.order_by_noise()
    differences = [row.difference for row in result.rows if row.difference is not None]
    lines = []
    if differences:
        n = sum(each.excludes_zero for each in differences)
        lines.append(
            f"Difference of n-cuts beyond the noise of few networks: {n} of {len(differences)} "
            f"rows ({1 - LEVEL:.0%} by chance)."
        )
    if known:
        lines.append(f"Conclusion about the shuffles as published: {agreeing} of {known} rows.")
    if pairs:
        by_noise = "" if noise is None else _MOST_BY_NOISE.format(*noise)
        lines.append(
            f"Order of the rows' n-cuts as published: {ordered} of {pairs} pairs{by_noise}."
        )
    return lines
