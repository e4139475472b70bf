"""Measure how often a profile suggests the planted number of clusters, by their strength.

    python scripts/suggested_k.py [--networks 20] [--table]

Writes docs/suggested_k.csv: for each factor of the weights inside four planted groups, the number
of networks, and the numbers with the suggestion 4, another k, or none. The table is written between
the marks in docs/k.md; --table writes it from the existing file.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

from calibration import K, Networks

import ncut

DOCS = Path(__file__).resolve().parents[1] / "docs"
PATH = DOCS / "suggested_k.csv"
BEGIN, END = "<!-- table: scripts/suggested_k.py -->\n", "<!-- end of table -->"
FACTORS = (1.0, 1.4, 2.0, 3.0, 5.0)
WIDTH, TRIED, SHUFFLES = 32, range(2, 11), 20


def measure(n: int) -> None:
    """Write the counts of n networks per line."""
    with PATH.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["planted", "effects", "networks", "right", "wrong", "none"])
        for effects in (0.0, 0.7):
            for planted in FACTORS:
                networks = Networks("mlp", "normal", WIDTH, effects, planted=planted)
                found = [suggestion(networks, number) for number in range(n)]
                right, none = found.count(K), found.count(None)
                writer.writerow([planted, effects, n, right, n - right - none, none])
                file.flush()


def suggestion(networks: Networks, number: int) -> int | None:
    """The k that a network's profile suggests, if any."""
    profile = ncut.profile(networks.made(number), TRIED, shuffles=SHUFFLES, seed=number, threads=1)
    return profile.suggested_k


def table() -> str:
    """A line per factor: shares of networks with the planted k, another, or none."""
    lines = [
        "| factor inside groups | scales of neurons | networks | 4 | another k | none |",
        "|---:|---|---:|---:|---:|---:|",
    ]
    with PATH.open(newline="") as file:
        for one in csv.DictReader(file):
            scales = "e^(0.7 x)" if float(one["effects"]) else "alike"
            lines.append(
                f"| {float(one['planted']):g} | {scales} | {one['networks']} | {one['right']} "
                f"| {one['wrong']} | {one['none']} |"
            )
    return "\n".join([*lines, ""])


def write_table() -> None:
    """Write the table between the marks in docs/k.md."""
    page = DOCS / "k.md"
    head, rest = page.read_text().split(BEGIN)
    page.write_text(f"{head}{BEGIN}\n{table()}\n{END}{rest.split(END)[1]}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", type=int, default=20)
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    if not arguments.table:
        measure(arguments.networks)
    write_table()
