"""Measure networks under every statistic, convention and null model, for docs/verdict.md.

    python scripts/verdict_docs.py NAME=FILE ... [--shuffles 50]

Writes docs/verdict.csv, a row per cell, and the tables between the marks in docs/verdict.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

import ncut
from ncut import networks

DOCS = Path(__file__).resolve().parents[1] / "docs"
BEGIN, END = "<!-- tables: scripts/verdict_docs.py -->\n", "<!-- end of tables -->"


def section(name: str, verdict: ncut.Verdict) -> str:
    """The name, the conclusion and the tables, without warnings and the legend."""
    tables = str(verdict).split("\n\n")[1:]
    random = next((text for text in verdict.warnings if text.startswith("random")), "")
    body = "\n\n".join(tables[:-1])
    remark = f"{random[:1].upper()}{random[1:]}."
    return f"### {name}\n\n{verdict.conclusion} {remark}\n\n```\n{body}\n```\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="*", help="NAME=FILE")
    parser.add_argument("--shuffles", type=int, default=50)
    arguments = parser.parse_args()
    files = {name: str(networks.path(name)) for name in reversed(networks.NAMES)}
    files |= dict(item.split("=", 1) for item in arguments.networks)
    sections, frames = [], []
    for name, path in files.items():
        verdict = ncut.verdict(path, shuffles=arguments.shuffles, name=name)
        sections.append(section(name, verdict))
        frame = verdict.to_frame()
        frame.insert(0, "network", name)
        frames.append(frame)
        print(f"{name}: {verdict.conclusion}", flush=True)
    rounded = pd.concat(frames).round({"value": 5, "mean": 5, "std": 6, "z_score": 3, "p_value": 4})
    rounded.to_csv(DOCS / "verdict.csv", index=False)
    page = DOCS / "verdict.md"
    head, rest = page.read_text().split(BEGIN)
    tail = rest.split(END)[1]
    page.write_text(f"{head}{BEGIN}\n" + "\n".join(sections) + f"\n{END}{tail}")


if __name__ == "__main__":
    main()
