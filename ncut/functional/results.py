"""Results of ablation and correlation, and their text, at most 80 columns wide."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ncut.errors import import_extra

if TYPE_CHECKING:
    from pandas import DataFrame

WIDTH = 80
LAYER_WIDTH = 14

LEVEL = 0.05
"""Largest p at which a set of neurons counts as more important than random sets."""


@dataclass(frozen=True, slots=True, eq=False)
class AblationRow:
    """Effect of silencing one set of neurons.

    Attributes
    ----------
    cluster : int
        The neurons' cluster.
    layer : str or None
        The neurons' layer; None for neurons of all hidden layers.
    n_neurons : int
        Number of neurons.
    loss : float
        The model's loss with the neurons silenced.
    importance : float
        `loss` minus the intact model's loss; positive: the model is worse without the neurons.
    random_losses : ndarray of float64, shape (random_sets,)
        The loss with the same number of random neurons in each layer silenced instead.
    random_mean, random_std : float or None
        Their mean and population standard deviation; None without random sets.
    z_score : float or None
        (loss - random_mean) / random_std; None without random sets, or if they do not differ.
    p_value : float or None
        (r + 1) / (random_sets + 1), where r random sets have at least this loss; low if the neurons
        are more important than random neurons. None without random sets.
    p_low : float or None
        The p-value of the other direction, where r random sets have at most this loss.
    """

    cluster: int
    layer: str | None
    n_neurons: int
    loss: float
    importance: float
    random_losses: NDArray[np.float64]
    random_mean: float | None
    random_std: float | None
    z_score: float | None
    p_value: float | None
    p_low: float | None


@dataclass(frozen=True, slots=True)
class AblationPair:
    """Effect of silencing two clusters together.

    Attributes
    ----------
    first, second : int
        The clusters.
    loss : float
        The model's loss with both silenced.
    interaction : float
        `loss` minus its value if the importances of the two clusters added up; 0 if the clusters
        act independently.
    """

    first: int
    second: int
    loss: float
    interaction: float


@dataclass(frozen=True, slots=True, eq=False)
class Ablation:
    """Importance of clusters of neurons to a network's loss.

    `print(ablation)` shows a table, `ablation.to_frame()` returns a data frame.

    Attributes
    ----------
    baseline : float
        The intact model's loss.
    rows : tuple of AblationRow
        One row per silenced set of neurons, by cluster, then by layer.
    pairs : tuple of AblationPair
        One entry per pair of clusters, if requested.
    k : int
        Number of clusters, those without hidden neurons included.
    random_sets : int
        Number of random sets for each set.
    seed : int
        The seed of the random sets.

    Source: Hod, Filan, Casper, Critch and Russell (2021), Quantifying Local Specialization in
    Deep Neural Networks, arXiv:2110.08058 ("importance").
    """

    baseline: float
    rows: tuple[AblationRow, ...]
    pairs: tuple[AblationPair, ...]
    k: int
    random_sets: int
    seed: int

    @property
    def important(self) -> tuple[AblationRow, ...]:
        """The sets that are more important than random sets, with a p of at most 0.05.

        The p-values are not corrected for the number of sets.
        """
        return tuple(row for row in self.rows if row.p_value is not None and row.p_value <= LEVEL)

    @property
    def smallest_p(self) -> float:
        """The smallest possible p: 1 / (random_sets + 1)."""
        return 1 / (self.random_sets + 1)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain lists, strings and numbers, ready for JSON."""
        return {
            "baseline": self.baseline,
            "k": self.k,
            "random_sets": self.random_sets,
            "seed": self.seed,
            "rows": [_plain(row) for row in self.rows],
            "pairs": [_plain(pair) for pair in self.pairs],
        }

    def to_frame(self) -> DataFrame:
        """One row per set of neurons, in the order of `rows`.

        Returns
        -------
        pandas.DataFrame
            The fields of `AblationRow` but `random_losses`; `layer` is None for whole clusters.

        Raises
        ------
        MissingExtraError
            If pandas is not installed.
        """
        pandas = import_extra("pandas", "plot")
        columns = [name for name in AblationRow.__slots__ if name != "random_losses"]
        frame: DataFrame = pandas.DataFrame(
            [[getattr(row, name) for name in columns] for row in self.rows], columns=columns
        )
        return frame

    def __repr__(self) -> str:
        return ablation_text(self)


@dataclass(frozen=True, slots=True, eq=False)
class Agreement:
    """Agreement of the weights' partition with that of correlated activations.

    Attributes
    ----------
    k : int
        Number of clusters of the graph of activations.
    ncut : float
        Normalized cut of that graph's own partition.
    weight_partition_ncut : float
        Normalized cut of the weights' partition in that graph.
    labels : ndarray of int32, shape (n,)
        Cluster of each vertex in the activations' partition; -1 for a vertex without edges.
    adjusted_rand_index : float
        Agreement of the two partitions on the vertices that have edges in both graphs: 1 if they
        are the same, 0 on average by chance.
    p_value : float
        (r + 1) / (n_permutations + 1), where r permutations of the weights' labels within each
        layer agree at least as well; low if the agreement goes beyond that of the layers.
    permuted : ndarray of float64, shape (n_permutations,)
        The adjusted Rand index of the permutations.
    layers : tuple of str
        Names of the graph's layers.
    within_layers : tuple of float or None
        The adjusted Rand index on each layer's vertices alone; None with fewer than 2 of them.
    n_compared : int
        Number of vertices that have edges in both graphs.
    n_examples : int
        Number of examples behind the correlations.
    seed : int
        The seed of the clustering and the permutations.

    Source: Hubert and Arabie (1985), Comparing partitions; Hod, Filan, Casper, Critch and
    Russell (2021), Quantifying Local Specialization in Deep Neural Networks, arXiv:2110.08058,
    for comparing clusters of weights with clusters of correlations.
    """

    k: int
    ncut: float
    weight_partition_ncut: float
    labels: NDArray[np.int32]
    adjusted_rand_index: float
    p_value: float
    permuted: NDArray[np.float64]
    layers: tuple[str, ...]
    within_layers: tuple[float | None, ...]
    n_compared: int
    n_examples: int
    seed: int

    def __repr__(self) -> str:
        return agreement_text(self)


def ablation_text(ablation: Ablation) -> str:
    """The intact loss, a line per set of neurons, and an interpretation."""
    by_layer = any(row.layer is not None for row in ablation.rows)
    lines = [f"loss {ablation.baseline:.4g} intact; importance: how much silencing adds to it"]
    layer = "layer" if by_layer else None
    lines.append(_line("cluster", layer, "neurons", "importance", "random sets", "Z", "p"))
    ordered = sorted(ablation.rows, key=lambda row: row.cluster)
    lines += [_row_line(row, ablation.baseline) for row in ordered]
    lines += textwrap.wrap(_outcome(ablation), WIDTH)
    lines += textwrap.wrap(_interaction(ablation), WIDTH)
    return "\n".join(lines)


def agreement_text(agreement: Agreement) -> str:
    """Both n-cuts, the Rand index with its p, and the Rand indices within layers."""
    within = ", ".join(
        f"{shortened(name, LAYER_WIDTH)} {_number(value, '.3f')}"
        for name, value in zip(agreement.layers, agreement.within_layers, strict=True)
    )
    sentences = (
        f"correlations over {agreement.n_examples:,} examples: n-cut {agreement.ncut:.4g} in "
        f"k = {agreement.k} clusters, {agreement.weight_partition_ncut:.4g} in the weights' own",
        f"adjusted Rand index of both {agreement.adjusted_rand_index:.3f} over "
        f"{agreement.n_compared:,} neurons (p = {agreement.p_value:.3g}, permuting within layers)",
        f"within layers: {within}",
    )
    return "\n".join(line for sentence in sentences for line in textwrap.wrap(sentence, WIDTH))


def _line(
    cluster: str, layer: str | None, size: str, importance: str, random: str, z: str, p: str
) -> str:
    name = "" if layer is None else f"  {shortened(layer, LAYER_WIDTH):<{LAYER_WIDTH}}"
    return f"{cluster:>7}{name}{size:>8}{importance:>12}{random:>20}{z:>10}{p:>7}"


def _row_line(row: AblationRow, baseline: float) -> str:
    spread = "-"
    if row.random_mean is not None:
        spread = f"{row.random_mean - baseline:.3g} ± {row.random_std:.2g}"
    return _line(
        str(row.cluster),
        row.layer,
        f"{row.n_neurons:,}",
        f"{row.importance:.4g}",
        spread,
        _number(row.z_score, ".3g"),
        _number(row.p_value, ".3f"),
    )


def _outcome(ablation: Ablation) -> str:
    what = "sets" if any(row.layer is not None for row in ablation.rows) else "clusters"
    n = len(ablation.rows)
    if not ablation.random_sets:
        return f"{n} {what}, compared with no random sets"
    text = (
        f"{len(ablation.important)} of {n} {what} are more important than {ablation.random_sets} "
        f"random sets with as many neurons in each layer (p <= 0.05; not corrected for the number "
        f"of {what})"
    )
    if ablation.smallest_p > 0.05:
        text += f"; with {ablation.random_sets} random sets p cannot reach 0.05, use at least 19"
    return text


def _interaction(ablation: Ablation) -> str:
    if not ablation.pairs:
        return ""
    largest = max(ablation.pairs, key=lambda pair: abs(pair.interaction))
    return (
        f"largest interaction of {len(ablation.pairs)} pairs: {largest.interaction:.4g} more loss "
        f"than the sum of both, clusters {largest.first} and {largest.second}"
    )


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def shortened(text: str, width: int) -> str:
    """The name in printable characters, without its middle if it is longer than `width`."""
    text = "".join(character if character.isprintable() else "?" for character in text)
    if len(text) <= width:
        return text
    head = (width - 1) // 2
    return f"{text[:head]}…{text[len(text) - (width - 1 - head) :]}"


def _plain(row: AblationRow | AblationPair) -> dict[str, Any]:
    values = {name: getattr(row, name) for name in type(row).__slots__}
    return {
        name: value.tolist() if isinstance(value, np.ndarray) else value
        for name, value in values.items()
    }
