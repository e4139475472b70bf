"""Has a model's clusterability drifted from a baseline? Exit code 1 if so, 2 if one cannot tell.

    ncut analyze model.safetensors --json now.json
    python check_drift.py baseline.json now.json

Both files are reports of ncut, made with the same settings. A difference counts as drift if it is
larger than a tolerance of your choice plus what chance makes of it: k-means starts at random
places, and Z rests on a finite number of shuffles. The table goes to standard output, and to the
summary of the job where GitHub names a file for it.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import ncut

# What a report was made with; under other settings the numbers mean something else.
SETTINGS = ("k", "null", "normalize", "preset", "refine", "sums")


@dataclass(frozen=True)
class Row:
    """A number of both reports, with its tolerance."""

    name: str
    baseline: float
    now: float
    allowed: float

    @property
    def drifted(self) -> bool:
        return abs(self.now - self.baseline) > self.allowed


def compare(
    baseline: ncut.Report,
    now: ncut.Report,
    *,
    tolerance: float = 0.02,
    z_tolerance: float = 0.25,
    sigmas: float = 3.0,
) -> list[Row]:
    """The n-cut, its certificate, and Z, which there is none of without shuffles.

    The tolerances are shares of the baseline's values; `sigmas` standard deviations of their noise
    are forgiven on top.
    """
    kmeans = sigmas * math.hypot(baseline.kmeans_std or 0.0, now.kmeans_std or 0.0)
    rows = []
    # A bound comes from eigenvalues alone. Refinement leaves less of k-means' noise than this.
    for name, noise in {"ncut": kmeans, "refined_ncut": kmeans, "lower_bound": 0.0}.items():
        before, after = getattr(baseline, name), getattr(now, name)
        rows.append(Row(name, before, after, tolerance * before + noise))
    if baseline.z_score is not None and now.z_score is not None:
        noise = sigmas * math.hypot(z_error(baseline), z_error(now))
        allowed = z_tolerance * abs(baseline.z_score) + noise
        rows.append(Row("z_score", baseline.z_score, now.z_score, allowed))
    return rows


def z_error(report: ncut.Report) -> float:
    """The standard error of Z = (x - m) / s.

    k-means moves x; m and s are those of n shuffles only, with variances s²/n and s²/2n where these
    are normal.
    """
    kmeans = (report.kmeans_std or 0.0) / report.shuffled_std
    return math.sqrt(kmeans**2 + (1 + report.z_score**2 / 2) / report.n_shuffles)


def differences(baseline: ncut.Report, now: ncut.Report) -> list[str]:
    """Why the two cannot be compared: other settings, or a model of another shape."""
    found = [
        f"{name} was {getattr(baseline, name)!r}, and is {getattr(now, name)!r}"
        for name in SETTINGS
        if getattr(baseline, name) != getattr(now, name)
    ]
    before, after = ("-".join(str(layer.size) for layer in one.layers) for one in (baseline, now))
    if before != after:
        found.append(f"layers had sizes {before}, and have {after}")
    return found


def significance(report: ncut.Report, level: float) -> str:
    """The meaning of the p-value at the level."""
    if report.p_value is None:
        return "no shuffles"
    below = report.p_value <= level
    return f"p = {report.p_value:.3f}, {'clusterable' if below else 'not distinguishable'}"


def summary(rows: list[Row], before: str, after: str, drifted: list[str]) -> str:
    """The comparison in Markdown."""
    lines = [
        f"### Clusterability: {'drifted in ' + ', '.join(drifted) if drifted else 'no drift'}",
        "",
        "| | baseline | now | change | allowed | |",
        "|---|---:|---:|---:|---:|---|",
    ]
    for row in rows:
        state = "**drifted**" if row.name in drifted else "ok"
        lines.append(
            f"| {row.name} | {row.baseline:.3f} | {row.now:.3f} | {row.now - row.baseline:+.3f} "
            f"| ±{row.allowed:.3f} | {state} |"
        )
    state = "**drifted**" if "p_value" in drifted else "ok"
    return "\n".join([*lines, f"| p_value | {before} | {after} | | | {state} |", ""])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("baseline", type=Path, help="the report to compare with, committed")
    parser.add_argument("now", type=Path, help="the report of the model as it is")

    def option(name: str, default: float, text: str) -> None:
        parser.add_argument(name, type=float, default=default, help=f"{text} (default {default})")

    option("--tolerance", 0.02, "share by which n-cuts and the lower bound may change")
    option("--z-tolerance", 0.25, "share by which Z may change")
    option("--sigmas", 3.0, "standard deviations of their noise to forgive on top")
    option("--level", 0.05, "both p-values must lie on the same side of it")
    chosen = parser.parse_args(arguments)

    try:
        baseline, now = ncut.Report.from_json(chosen.baseline), ncut.Report.from_json(chosen.now)
    except ncut.InputError as error:
        print(f"check_drift: {error}", file=sys.stderr)
        return 2
    if reasons := differences(baseline, now):
        print(f"check_drift: not comparable: {'; '.join(reasons)}", file=sys.stderr)
        print("check_drift: analyze alike, or commit a new baseline", file=sys.stderr)
        return 2

    rows = compare(
        baseline,
        now,
        tolerance=chosen.tolerance,
        z_tolerance=chosen.z_tolerance,
        sigmas=chosen.sigmas,
    )
    drifted = [row.name for row in rows if row.drifted]
    before, after = (significance(one, chosen.level) for one in (baseline, now))
    if before.partition(", ")[2] != after.partition(", ")[2]:
        drifted.append("p_value")
    text = summary(rows, before, after, drifted)
    print(text)
    if path := os.environ.get("GITHUB_STEP_SUMMARY"):
        with open(path, "a", encoding="utf-8") as file:
            file.write(text + "\n")
    return 1 if drifted else 0


if __name__ == "__main__":
    sys.exit(main())
