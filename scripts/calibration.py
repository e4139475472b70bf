"""False alarms and power: p-values of networks without clusters, and of planted ones.

    python scripts/calibration.py [--networks 1000] [--seconds 900] [--table]

Measures networks and counts, for each kind of network and each test, the networks and those with a
p-value of at most 0.05, 0.2 and 0.5. The counts are in docs/calibration.csv, which is rewritten
every few seconds: the script can be interrupted at any time and resumes with the next network.
Slower rows get fewer networks, in proportion to --networks. --table writes the shares, and the
range that contains 99 % of them if p is exact, into docs/p-values.md.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import os
import re
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.linalg import eigh

import ncut
from ncut.axes import STATISTICS
from ncut.graphs import NeuronGraph
from ncut.graphs.colouring import two_colours
from ncut.nulls import check_null_fits, compare, fitted
from ncut.report.tests import holm

PATH = Path(__file__).resolve().parents[1] / "docs" / "calibration.csv"
NULLS = ("layer", "strength", "residual", "alignment")
LEVELS = (0.05, 0.2, 0.5)
K, SHUFFLES, SHUFFLES_OF_VERDICT = 4, 19, 59
SAVE_SECONDS = 20.0
SMALL = 64
"""Up to this order, computing all eigenvalues of a matrix is faster than computing some."""
SHOWN = 5
"""Smallest number of networks for a line of the page's tables; the file has all lines."""
BEGIN, END = "<!-- table: scripts/calibration.py -->\n", "<!-- end of table -->"

LAWS: dict[str, Callable[[np.random.Generator, Any], Any]] = {
    "normal": lambda rng, shape: np.abs(rng.standard_normal(shape)),
    "uniform": lambda rng, shape: rng.random(shape),
    "t(3)": lambda rng, shape: np.abs(rng.standard_t(3, shape)),
}
FACTORS = (1.2, 1.4, 1.6, 2.0, 2.5)
"""Factors of the weights inside planted blocks."""


@dataclass(frozen=True)
class Networks:
    """A kind of networks.

    Attributes
    ----------
    kind : {"mlp", "cnn", "transformer"}
    law : str
        Distribution of the weights, a name in `LAWS`.
    width : int
        Neurons of each of four layers of an MLP; its output is a sixth as wide.
    effects : float
        Standard deviation of the logarithms of the scales of rows and columns.
    kept : float
        Share of the weights of each layer that pruning kept; the largest are kept.
    planted : float
        Factor of the weights inside K blocks that run through all layers.
    """

    kind: str
    law: str = "uniform"
    width: int = 0
    effects: float = 0.0
    kept: float = 1.0
    planted: float = 1.0

    def made(self, number: int) -> NeuronGraph:
        """Network `number`, the same for all tests."""
        if self.kind != "mlp":
            return _module(self.kind, number)
        settings = (self.width, 100 * self.effects, 100 * self.kept, 100 * self.planted)
        law = sorted(LAWS).index(self.law)
        rng = np.random.default_rng([*(round(one) for one in settings), law, number])
        sizes = [self.width] * 4 + [max(4, self.width // 6)]
        chain = []
        for rows, columns in itertools.pairwise(sizes):
            weights = LAWS[self.law](rng, (rows, columns))
            same = (np.arange(rows) % K)[:, None] == np.arange(columns) % K
            weights *= np.where(same, self.planted, 1.0)
            weights *= np.exp(self.effects * rng.standard_normal(rows))[:, None]
            weights *= np.exp(self.effects * rng.standard_normal(columns))
            if self.kept < 1:
                weights *= weights > np.quantile(weights, 1 - self.kept)
            chain.append(weights.astype(np.float32))
        return ncut.graph(chain)


@dataclass(frozen=True)
class Row:
    """A test of a kind of networks.

    Attributes
    ----------
    null : str
        A null model; or "verdict", whose p-value is the smallest of the verdict's tests after
        Holm's correction (of the scale-free ones where neurons have different scales).
    """

    networks: Networks
    null: str
    statistic: str = "lower_bound"


@dataclass(frozen=True)
class Task:
    """Tests of the same networks.

    Attributes
    ----------
    nulls : tuple of str
        Each makes a row, or a row for each statistic except the lower bound.
    share : float
        Networks, as a share of --networks.
    """

    networks: Networks
    nulls: tuple[str, ...]
    share: float
    all_statistics: bool = False

    def rows(self) -> list[Row]:
        """The rows of its counts."""
        names = [n for n in STATISTICS if (n != "lower_bound") == self.all_statistics]
        return [
            Row(self.networks, null, "verdict" if null == "verdict" else name)
            for null in self.nulls
            for name in names
        ]

    def p_values(self, number: int) -> list[float]:
        """The p-values of network `number`, in the order of the rows."""
        graph = self.networks.made(number).without_isolated()[0]
        if self.all_statistics:
            return [p for null in self.nulls for p in p_of_statistics(graph, null, number)]
        scaled = self.networks.effects > 0
        return [
            p_of_verdict(graph, number, scaled=scaled)
            if null == "verdict"
            else p_of_bound(graph, null, number, SHUFFLES)
            for null in self.nulls
        ]


def tasks() -> list[Task]:
    """All tasks."""
    found = []
    shares, verdicts = {16: 1.0, 64: 0.1, 256: 0.003}, {16: 0.03, 64: 0.003}
    for width, law, effects, kept in itertools.product(shares, LAWS, (0.0, 0.7), (1.0, 0.2)):
        networks = Networks("mlp", law, width, effects, kept)
        # The scales of neurons are an arrangement that `layer` does not preserve.
        found.append(Task(networks, NULLS[bool(effects) :], shares[width]))
        if width in verdicts:
            found.append(Task(networks, ("verdict",), verdicts[width]))
    found += [Task(Networks(kind), NULLS, 0.1) for kind in ("cnn", "transformer")]
    for kept in (1.0, 0.2):
        found.append(Task(Networks("mlp", "normal", 16, 0.0, kept), NULLS, 0.1, True))
    smoothed = ("layer-nonzero", "layer-nonzero-kde", "layer-kde")
    found.append(Task(Networks("mlp", "t(3)", 16, 0.0, 0.2), smoothed, 0.5))
    found.append(Task(Networks("mlp", "normal", 16, 0.7), ("layer",), 0.5))
    for law, effects, planted in itertools.product(("normal", "t(3)"), (0.0, 0.7), FACTORS):
        found.append(Task(Networks("mlp", law, 32, effects, 1.0, planted), NULLS, 0.1))
    return found


def _module(kind: str, number: int) -> NeuronGraph:
    import torch
    from torch import nn

    torch.manual_seed(number)
    if kind == "cnn":
        return ncut.graph(nn.Sequential(
            nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3),
            nn.ReLU(), nn.Conv2d(32, 16, 3),
        ), example_inputs=torch.zeros(1, 3, 16, 16))  # fmt: skip
    block = nn.TransformerEncoderLayer(24, 2, 48, dropout=0.0, batch_first=True).eval()
    torch.nn.init.xavier_uniform_(block.self_attn.in_proj_weight)
    # A layer that reads the block turns its output into channels: without it, each position's
    # values are separate outputs, with copies of the same weights.
    model = nn.Sequential(block, nn.Linear(24, 12))
    return ncut.graph(model, example_inputs=torch.zeros(1, 4, 24), residual="readers")


def p_of_statistics(graph: NeuronGraph, null: str, seed: int) -> list[float]:
    """The p-values of all statistics except the lower bound."""
    report = ncut.analyze(graph, k=K, shuffles=SHUFFLES, null=null, seed=seed, threads=1, tests=())
    return [_given(report.statistics[name].p_value) for name in STATISTICS if name != "lower_bound"]


def p_of_bound(graph: NeuronGraph, null: str, seed: int, n_shuffles: int) -> float:
    """The p-value of the lower bound against a number of networks of a null model."""
    check_null_fits(graph, null)
    shuffles = fitted(dense(graph), null, seed)
    # A null model with a fixed convention of scale shuffles weights in this scale.
    found = bounds([shuffles.graph, *map(shuffles.shuffle, range(n_shuffles))])
    return _given(compare(float(found[0]), found[1:]).p_value)


def dense(graph: NeuronGraph) -> NeuronGraph:
    """The same with dense blocks, which are faster for small graphs."""
    blocks = []
    for block in graph.blocks:
        weights: Any = block.weights
        is_dense = isinstance(weights, np.ndarray)
        blocks.append(block if is_dense else replace(block, weights=weights.toarray()))
    return replace(graph, blocks=tuple(blocks))


def p_of_verdict(graph: NeuronGraph, seed: int, *, scaled: bool) -> float:
    """The smallest corrected p-value of a verdict's tests; with `scaled` without the paper's."""
    tests = ("alignment", "residual")
    p = [p_of_bound(graph, null, seed, SHUFFLES_OF_VERDICT) for null in tests]
    report = ncut.analyze(graph, k=K, shuffles=SHUFFLES_OF_VERDICT, seed=seed, threads=1, tests=())
    corrected = holm([*p, _given(report.p_value)])
    return min(corrected[:2] if scaled else corrected)


def _given(p: float | None) -> float:
    assert p is not None  # there were shuffles
    return p


def bounds(graphs: list[NeuronGraph]) -> NDArray[np.float64]:
    """The sums of the K smallest eigenvalues of the normalized Laplacians, by LAPACK.

    The graphs have the same layers; vertices without edges are ignored.
    """
    first = graphs[0]
    colours = two_colours(first)
    one_sided = colours is None
    colours = colours or [0] * len(first.layers)
    starts, sizes = [], [0, 0]
    for layer, colour in zip(first.layers, colours, strict=True):
        starts.append(sizes[colour])
        sizes[colour] += layer.size
    matrices = np.zeros((len(graphs), sizes[0], sizes[not one_sided]))
    for matrix, graph in zip(matrices, graphs, strict=True):
        for block in graph.blocks:
            source, target, weights = block.source, block.target, np.asarray(block.weights)
            if colours[source] > colours[target]:
                source, target, weights = target, source, weights.T
            rows, columns = starts[source], starts[target]
            matrix[rows : rows + weights.shape[0], columns : columns + weights.shape[1]] += weights
    if one_sided:
        matrices += matrices.transpose(0, 2, 1).copy()
    roots = [np.sqrt(matrices.sum(axis=axis, keepdims=True)) for axis in (1, 2)]
    for root in roots:
        matrices /= np.where(root > 0, root, 1.0)
    if one_sided:
        return np.asarray(K - _largest(matrices).sum(axis=1))
    transposed = matrices.transpose(0, 2, 1)
    grams = matrices @ transposed if sizes[0] < sizes[1] else transposed @ matrices
    return np.asarray(K - np.sqrt(np.maximum(_largest(grams), 0.0)).sum(axis=1))


def _largest(matrices: NDArray[np.float64]) -> NDArray[np.float64]:
    """The K largest eigenvalues of each of n symmetric matrices, shape (n, K)."""
    m = matrices.shape[1]
    if m <= SMALL:
        return np.linalg.eigvalsh(matrices)[:, m - K :]
    chosen = {"subset_by_index": [m - K, m - 1], "check_finite": False}
    return np.stack([eigh(one, eigvals_only=True, **chosen) for one in matrices])


Counts = dict[Row, list[int]]
"""For each row with its statistic: networks, and networks at or below each level."""


def read() -> Counts:
    """The existing counts."""
    counts: Counts = defaultdict(lambda: [0] * (1 + len(LEVELS)))
    if not PATH.exists():
        return counts
    with PATH.open(newline="") as file:
        for one in csv.DictReader(file):
            networks = Networks(
                one["kind"], one["law"], int(one["width"]),
                *(float(one[name]) for name in ("effects", "kept", "planted")),
            )  # fmt: skip
            numbers = [int(one[name]) for name in _counted()]
            counts[Row(networks, one["null"], one["statistic"])] = numbers
    return counts


def write(counts: Counts) -> None:
    """Replace the existing counts."""
    part = PATH.with_suffix(".part")
    with part.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*(one.name for one in fields(Networks)), "null", "statistic", *_counted()])
        for row, numbers in counts.items():
            if numbers[0]:
                writer.writerow([*astuple(row.networks), row.null, row.statistic, *numbers])
    os.replace(part, PATH)


def _counted() -> list[str]:
    return ["networks", *(f"p<={level:g}" for level in LEVELS)]


def measure(n_networks: int, seconds: float) -> None:
    """Add networks until there are enough, or the processor time is used up."""
    counts, todo = read(), [(task, task.rows()) for task in tasks()]
    saved = time.monotonic()
    while time.process_time() < seconds:
        # All in proportion to their shares.
        task, rows = min(todo, key=lambda one: (counts[one[1][0]][0] + 1) / one[0].share)
        number = counts[rows[0]][0]
        if number >= n_networks * task.share:
            break
        for row, p in zip(rows, task.p_values(number), strict=True):
            numbers = counts[row]
            numbers[0] += 1
            for at, level in enumerate(LEVELS, 1):
                numbers[at] += p <= level + 1e-12
        if time.monotonic() > saved + SAVE_SECONDS:
            write(counts)
            saved = time.monotonic()
    write(counts)


def table() -> str:
    """The tables of the page, of all rows with enough networks: shares of p <= 0.05."""
    counts = {row: np.array(numbers) for row, numbers in read().items() if numbers[0] >= SHOWN}
    empty = [row for row in counts if row.networks.planted == 1]
    bounds_of = [row for row in empty if row.null in NULLS and row.statistic == "lower_bound"]
    statistics = [row for row in empty if row.null in NULLS and row.statistic != "lower_bound"]
    others = [row for row in empty if row.null not in NULLS]
    planted = [row for row in counts if row.networks.planted > 1]
    return "\n".join([
        *_side_by_side(counts, bounds_of, "networks, lower bound", _kind),
        *_side_by_side(
            counts,
            statistics,
            "MLPs of width 16, normal",
            lambda row: f"{STATISTICS[row.statistic].title}{_pruned(row.networks)}",
        ),
        *_side_by_side(
            counts,
            others,
            "other tests",
            lambda row: f"{_kind(row)}: {row.null}",
            ("share",),
            column=lambda row: "share",
        ),
        *_side_by_side(
            counts,
            planted,
            "power, factor in blocks",
            lambda row: (
                f"{row.networks.law}{', scales' if row.networks.effects else ''}: "
                f"{row.networks.planted:g}"
            ),
            exact=False,
        ),
    ])  # fmt: skip


def _side_by_side(
    counts: Counts,
    rows: list[Row],
    title: str,
    name: Callable[[Row], str],
    columns: Sequence[str] = NULLS,
    *,
    column: Callable[[Row], str] = lambda row: row.null,
    exact: bool = True,
) -> list[str]:
    """A line per name, a column per null model; bold outside the range of an exact test."""
    found: dict[str, dict[str, Any]] = defaultdict(dict)
    for row in rows:
        line = found[name(row)]
        line[column(row)] = line.get(column(row), 0) + np.array(counts[row])
    between = " 99 % if exact |" if exact else ""
    lines = [
        f"| {title} | n | {' | '.join(columns)} |{between}",
        f"|---|---:|{'---:|' * (len(columns) + exact)}",
    ]
    for key, shares in sorted(found.items(), key=lambda item: _in_order(item[0])):
        n = max(int(numbers[0]) for numbers in shares.values())
        low, high = stats.binom.ppf([0.005, 0.995], n, LEVELS[0]) / n
        cells = []
        for one in columns:
            if one not in shares:
                cells.append("")
                continue
            share = shares[one][1] / shares[one][0]
            text = f"{share:.3f}"
            cells.append(f"**{text}**" if exact and not low <= share <= high else text)
        limits = f" {low:.3f} to {high:.3f} |" if exact else ""
        lines.append(f"| {key} | {n} | {' | '.join(cells)} |{limits}")
    return [*lines, ""] if found else []


def _in_order(key: str) -> list[Any]:
    """Sort key that orders numbers in a name by size."""
    return [
        float(part) if at % 2 else part for at, part in enumerate(re.split(r"(\d+\.?\d*)", key))
    ]


def _kind(row: Row) -> str:
    """The kind of networks in words."""
    networks = row.networks
    if networks.kind != "mlp":
        return networks.kind
    scales = ", scales" if networks.effects else ""
    return f"MLPs of {networks.width}{scales}{_pruned(networks)}"


def _pruned(networks: Networks) -> str:
    return ", pruned" if networks.kept < 1 else ""


def write_table() -> None:
    """Write the tables between the marks in docs/p-values.md."""
    page = PATH.parent / "p-values.md"
    head, rest = page.read_text().split(BEGIN)
    page.write_text(f"{head}{BEGIN}\n{table()}\n{END}{rest.split(END)[1]}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=900, help="of processor time")
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    if arguments.table:
        write_table()
    else:
        measure(arguments.networks, arguments.seconds)
