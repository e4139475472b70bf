"""Measure networks for docs/verdict.md.

    python scripts/verdict_docs.py NAME=FILE ... [--shuffles 59]

To the networks given come the two of ncut, and two that are made here. Writes docs/verdict.csv, a
row for each, and the table between the marks in docs/verdict.md.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from calibration import Networks

import ncut
from ncut import networks
from ncut.report.tests import HYPOTHESES, STATISTICS, Test, conclusion, holm

DOCS = Path(__file__).resolve().parents[1] / "docs"
BEGIN, END = "<!-- table: scripts/verdict_docs.py -->\n", "<!-- end of table -->"
LEVEL = 0.05
MADE = {
    "scales alone": Networks("mlp", "t(3)", 128, effects=0.7),
    "planted, scales": Networks("mlp", "normal", 128, effects=0.7, planted=1.6),
}


def models(given: list[str]) -> Iterator[tuple[str, Any]]:
    for name in reversed(networks.NAMES):
        yield name, str(networks.path(name))
    for item in given:
        name, _, path = item.partition("=")
        yield name, path
    for name, kind in MADE.items():
        yield name, kind.made(0)


def row_of(name: str, model: Any, shuffles: int) -> dict[str, Any]:
    """The top of the network's report, and the conclusion from its tests."""
    report = ncut.analyze(
        model, shuffles=shuffles, tests=("alignment", "residual"), threads=1, name=name
    )
    compared = {**report.tests, "paper": report.statistics["spectral_ncut"]}
    p = [one.p_value or 0.0 for one in compared.values()]
    tests = [
        Test(
            *(key, HYPOTHESES[key], STATISTICS[key], shuffles, own, corrected),
            *(_gap(compared[key]), 0, corrected <= LEVEL),
        )
        for key, own, corrected in zip(compared, p, holm(p), strict=True)
    ]
    found = {one.key: one for one in report.summary}
    effect, depth = found["effect"].numbers, found["stages"].numbers
    agreeing = [k for k, value in report.agreement.items() if value >= 0.8]
    return {
        "network": name,
        "cut_share": round(effect["cut_share"], 4),
        "chance_share": round(effect["chance_share"], 4),
        "refined_ncut": round(effect["refined_ncut"], 4),
        "lower_bound": round(effect["lower_bound"], 4),
        "gap": round(effect["gap"], 5),
        "ncut": round(report.ncut, 4),
        "z_score": round(report.z_score or 0.0, 2),
        **{f"{one.name}_gap": round(one.gap, 5) for one in tests},
        **{f"{one.name}_p": round(one.p_value, 4) for one in tests},
        "agreement": round(report.agreement[report.k], 3),
        "reproducible_k": max(agreeing, default=""),
        "explained_by_depth": round(depth["explained_by_depth"], 3),
        "conclusion": conclusion(tests),
    }


def _gap(compared: Any) -> float:
    return float(compared.value / compared.mean - 1)


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| network | edge weight cut (chance) | refined n-cut, bound | below shuffles | through "
        "layers: bound, p | beyond strength: bound, p | as the paper: Z, p | same partition again "
        "| explained by depth |",
        "|---|---|---|---:|---|---|---|---|---:|",
    ]
    for one in rows:
        at = f", k = {one['reproducible_k']} does" if one["reproducible_k"] else ""
        again = "yes" if one["agreement"] >= 0.8 else f"no ({one['agreement']:.2f}){at}"
        lines.append(
            f"| {one['network']} | {one['cut_share']:.0%} ({one['chance_share']:.0%}) "
            f"| {one['refined_ncut']:.2f}, {one['lower_bound']:.2f} | {-one['gap']:.1%} "
            f"| {_test(one, 'alignment')} | {_test(one, 'residual')} "
            f"| {one['z_score']:+.1f}, {one['paper_p']:.2f} | {again} "
            f"| {one['explained_by_depth']:.0%} |"
        )
    said = [f"- **{one['network']}**: {one['conclusion']}" for one in rows]
    return "\n".join([*lines, "", *said, ""])


def _test(row: dict[str, Any], name: str) -> str:
    answer = "**yes**" if row[f"{name}_p"] <= LEVEL else "no"
    return f"{answer} {row[f'{name}_gap']:+.1%}, {row[f'{name}_p']:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="*", help="NAME=FILE")
    parser.add_argument("--shuffles", type=int, default=59)
    arguments = parser.parse_args()
    rows = []
    for name, model in models(arguments.networks):
        rows.append(row_of(name, model, arguments.shuffles))
        print(f"{name}: {rows[-1]['conclusion']}", flush=True)
    with (DOCS / "verdict.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    page = DOCS / "verdict.md"
    head, rest = page.read_text().split(BEGIN)
    tail = rest.split(END)[1]
    page.write_text(f"{head}{BEGIN}\n{table(rows)}\n{END}{tail}")


if __name__ == "__main__":
    main()
