"""False alarms and power: p-values of networks without clusters, and of planted ones.

    python scripts/calibration.py [--networks 1000] [--seconds 900] [--table]

Measures networks in turn, a few of each cell at a time, appends a row for each to
docs/calibration.csv, and skips those that are there: stop it whenever you like and start it again.
--table prints, from that file, the share of networks with p <= 0.05 in each cell beside the range
that holds 99 % of such shares if p is exact.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

import ncut

PATH = Path(__file__).resolve().parents[1] / "docs" / "calibration.csv"
STATISTICS = ("spectral_ncut", "refined_ncut", "lower_bound")
FIELDS = ("kind", "law", "width", "effects", "kept", "planted", "null", "network", *STATISTICS)
NULLS = ("layer", "strength", "residual", "alignment")
K, SHUFFLES, LEVEL = 4, 19, 0.05

LAWS: dict[str, Any] = {
    "normal": lambda rng, shape: np.abs(rng.standard_normal(shape)),
    "uniform": lambda rng, shape: rng.random(shape),
    "t(3)": lambda rng, shape: np.abs(rng.standard_t(3, shape)),
}


def cells() -> list[dict[str, Any]]:
    """Every kind of network under every null model that says something about it."""
    found = []
    for width, law, effects, kept in itertools.product((16, 64, 256), LAWS, (0.0, 0.7), (1.0, 0.2)):
        for null in NULLS:
            if effects and null == "layer":
                continue  # the scales of neurons are an arrangement that it does not know
            found.append(_cell("mlp", law, width, effects, kept, 1.0, null))
    for kind, null in itertools.product(("cnn", "transformer"), NULLS):
        found.append(_cell(kind, "uniform", 0, 0.0, 1.0, 1.0, null))
    for law, planted in (("normal", 1.6), ("t(3)", 2.0)):
        for effects, null in itertools.product((0.0, 0.7), NULLS):
            found.append(_cell("mlp", law, 64, effects, 1.0, planted, null))
    return found


def _cell(
    kind: str, law: str, width: int, effects: float, kept: float, planted: float, null: str
) -> dict[str, Any]:
    return {"kind": kind, "law": law, "width": width, "effects": effects, "kept": kept,
            "planted": planted, "null": null}  # fmt: skip


def network(cell: dict[str, Any], number: int) -> Any:
    """An untrained network of a cell, the same for all null models."""
    if cell["kind"] != "mlp":
        return _module(cell["kind"], number)
    settings = [int(100 * cell[name]) for name in ("width", "effects", "kept", "planted")]
    rng = np.random.default_rng([*settings, sorted(LAWS).index(cell["law"]), number])
    sizes = [cell["width"]] * 4 + [max(4, cell["width"] // 6)]
    chain = []
    for rows, columns in itertools.pairwise(sizes):
        weights = LAWS[cell["law"]](rng, (rows, columns))
        same = (np.arange(rows) % K)[:, None] == np.arange(columns) % K
        weights *= np.where(same, cell["planted"], 1.0)
        weights *= np.exp(cell["effects"] * rng.standard_normal(rows))[:, None]
        weights *= np.exp(cell["effects"] * rng.standard_normal(columns))
        if cell["kept"] < 1:
            weights *= weights > np.quantile(weights, 1 - cell["kept"])
        chain.append(weights)
    return chain


def _module(kind: str, number: int) -> Any:
    import torch
    from torch import nn

    torch.manual_seed(number)
    if kind == "cnn":
        return ncut.graph(nn.Sequential(
            nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3),
            nn.ReLU(), nn.Conv2d(32, 16, 3),
        ), inputs=torch.zeros(1, 3, 16, 16))  # fmt: skip
    block = nn.TransformerEncoderLayer(24, 2, 48, dropout=0.0, batch_first=True).eval()
    torch.nn.init.xavier_uniform_(block.self_attn.in_proj_weight)
    return ncut.graph(block, inputs=torch.zeros(1, 4, 24))


def key(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(str(row[name]) for name in FIELDS[:7])


def measure(n_networks: int, seconds: float) -> None:
    """Append rows until there are enough, or the time is over."""
    there: dict[tuple[str, ...], int] = defaultdict(int)
    if PATH.exists():
        with PATH.open(newline="") as file:
            for row in csv.DictReader(file):
                there[key(row)] = max(there[key(row)], int(row["network"]) + 1)
    end = time.monotonic() + seconds
    with PATH.open("a", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        if not there:
            writer.writeheader()
        while True:
            open_cells = [cell for cell in cells() if there[key(cell)] < n_networks]
            # The cells with the fewest networks first, large networks after ten times as many.
            open_cells.sort(key=lambda c: there[key(c)] * (10 if c["width"] == 256 else 1))
            if not open_cells or time.monotonic() > end:
                return
            cell = open_cells[0]
            number = there[key(cell)]
            report = ncut.analyze(network(cell, number), k=K, shuffles=SHUFFLES, null=cell["null"],
                                  seed=number, n_init=3, threads=1, tests=())  # fmt: skip
            p = {name: report.statistics[name].p_value for name in STATISTICS}
            writer.writerow({**cell, "network": number, **p})
            file.flush()
            there[key(cell)] += 1


def table() -> None:
    """Print the share of networks at p <= LEVEL, cell by cell, as Markdown."""
    found: dict[tuple[str, ...], list[list[float]]] = defaultdict(list)
    with PATH.open(newline="") as file:
        for row in csv.DictReader(file):
            found[key(row)].append([float(row[name]) for name in STATISTICS])
    print("| network | null model | n | exact: 99 % | n-cut | refined | bound |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for (kind, law, width, effects, kept, planted, null), rows in sorted(found.items()):
        n = len(rows)
        low, high = stats.binom.ppf([0.005, 0.995], n, LEVEL) / n
        shares = (np.array(rows) <= LEVEL + 1e-12).mean(axis=0)
        name = f"{law} {width}" if kind == "mlp" else kind
        name += f", effects {effects}" * (float(effects) > 0)
        name += f", {float(kept):.0%} kept" * (float(kept) < 1)
        name += f", planted x{planted}" * (float(planted) > 1)
        print(f"| {name} | {null} | {n} | {low:.2f} to {high:.2f} | "
              + " | ".join(f"{share:.2f}" for share in shares) + " |")  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=900)
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    if arguments.table:
        table()
    else:
        measure(arguments.networks, arguments.seconds)
