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
from scipy.linalg import eigh

import ncut
from ncut.nulls import fitted

PATH = Path(__file__).resolve().parents[1] / "docs" / "calibration.csv"
CELL = ("kind", "law", "width", "effects", "kept", "planted", "null")
FIELDS = (*CELL, "network", "p")
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
    return tuple(str(row[name]) for name in CELL)


def p_value(model: Any, null: str, seed: int) -> float:
    """That of the lower bound, the statistic of a verdict's tests, among SHUFFLES networks."""
    graph, _ = ncut.graph(model).without_isolated()
    shuffles = fitted(graph, null, seed)
    ours = shuffles.graph if shuffles.normalize else graph
    others = (shuffles.connected(number, "none") for number in range(SHUFFLES))
    bounds = [bound(one) for one in (ours, *others)]
    return (1 + sum(one <= bounds[0] for one in bounds[1:])) / (SHUFFLES + 1)


def bound(graph: Any) -> float:
    """The sum of the K smallest eigenvalues of the normalized Laplacian, by LAPACK."""
    adjacency = graph.adjacency.toarray().astype(np.float64)
    root = np.sqrt(adjacency.sum(axis=0))
    most = [root.size - K, root.size - 1]
    values = eigh(adjacency / root / root[:, None], eigvals_only=True, subset_by_index=most)
    return float(K - values.sum())


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
            # The cells with the fewest networks first, large networks a fraction as often.
            weight = {16: 1, 64: 4, 256: 60, 0: 20}
            open_cells.sort(key=lambda c: there[key(c)] * weight[c["width"]])
            if not open_cells or time.monotonic() > end:
                return
            cell = open_cells[0]
            number = there[key(cell)]
            p = p_value(network(cell, number), cell["null"], number)
            writer.writerow({**cell, "network": number, "p": p})
            file.flush()
            there[key(cell)] += 1


def table() -> None:
    """Print the share of networks at p <= LEVEL as Markdown, of kinds of networks and of each."""
    found: dict[tuple[str, ...], list[float]] = defaultdict(list)
    with PATH.open(newline="") as file:
        for row in csv.DictReader(file):
            found[("", row["null"], *_kind(row))].append(float(row["p"]))
            found[(_name(row), row["null"], *_kind(row))].append(float(row["p"]))
    print("| networks | null model | n | p <= 0.05 | exact: 99 % | p <= 0.2 |")
    print("|---|---|---:|---:|---:|---:|")
    for (name, null, kind), values in sorted(found.items()):
        n, p = len(values), np.array(values) - 1e-12
        low, high = stats.binom.ppf([0.005, 0.995], n, LEVEL) / n
        between = "" if kind.startswith("planted") else f"{low:.3f} to {high:.3f}"
        print(f"| {name or 'all ' + kind} | {null} | {n} | {(p <= LEVEL).mean():.3f} | {between} "
              f"| {(p <= 0.2).mean():.3f} |")  # fmt: skip


def _kind(row: dict[str, str]) -> tuple[str]:
    kind = "MLPs" if row["kind"] == "mlp" else row["kind"]
    if float(row["planted"]) > 1:
        kind = f"planted, effects {row['effects']}"
    elif row["kind"] == "mlp":
        kind += ", neurons of different scales" if float(row["effects"]) else ", exchangeable"
        kind += ", pruned" if float(row["kept"]) < 1 else ""
    return (kind,)


def _name(row: dict[str, str]) -> str:
    return f"{_kind(row)[0]}, {row['law']}, width {row['width']}"


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
