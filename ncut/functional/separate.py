"""separate(): a network's performance without the weights between its clusters."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ncut.errors import InputError, import_extra
from ncut.extract.modules import is_module
from ncut.extract.references import References, references
from ncut.functional.arguments import (
    check_evaluate,
    check_labels,
    check_number,
    check_random_sets,
)
from ncut.functional.cutting import watched, without
from ncut.functional.results import LAYER_WIDTH, WIDTH, shortened
from ncut.progress import Progress, progress_callback
from ncut.randomness import check_seed
from ncut.types import Layer

if TYPE_CHECKING:
    from pandas import DataFrame

    from ncut.functional.ablation import Evaluate

# The second half of a Philox key. Streams of an analysis are numbered with 32 bits: none is this.
RANDOM_PARTITIONS = (1 << 32) + 2


@dataclass(frozen=True, slots=True)
class SeparationRow:
    """The performance of a network that keeps only the weights inside some clusters.

    Attributes
    ----------
    clusters : tuple of int
        The clusters whose weights are kept.
    n_neurons : int
        Number of neurons in these clusters.
    score : float
        The model's score with only these weights.
    kept : float or None
        The score above chance, as a share of the intact model's score above chance; None if the
        intact model does not score above chance.
    """

    clusters: tuple[int, ...]
    n_neurons: int
    score: float
    kept: float | None


@dataclass(frozen=True, slots=True, eq=False)
class Separation:
    """The performance of a network whose clusters are cut apart.

    `print(separation)` shows a table, `separation.to_frame()` returns a data frame.

    Attributes
    ----------
    score : float
        The intact model's score.
    chance : float
        The score of a useless model: as given, or the score without any weight of the graph.
    cut_score : float
        The score with all weights between clusters removed.
    kept : float or None
        (cut_score - chance) / (score - chance): 1 for modules that need no weights between them.
        None if the intact model does not score above chance.
    random_scores : ndarray of float64, shape (random_sets,)
        The score when cut at random partitions with the same sizes in each layer.
    random_kept : float or None
        The mean share kept by random partitions; None without them.
    p_value : float or None
        (r + 1) / (random_sets + 1), where r random partitions leave at least this score; None
        without random partitions.
    rows : tuple of SeparationRow
        The results with some of the clusters kept alone.
    layers : tuple of str
        Names of the hidden layers of the graph.
    effective_clusters : tuple of float
        Effective number of clusters in each layer: the exponential of the entropy of their shares
        of the layer's neurons; 1 if the layer lies in one cluster.
    shared : float
        The share of the weights inside clusters that were removed because the same entries also lie
        between clusters (a reader of a sum of several layers, or a weight used twice).
    k : int
        Number of clusters.
    seed : int
        The seed of the random partitions.
    """

    score: float
    chance: float
    cut_score: float
    kept: float | None
    random_scores: NDArray[np.float64]
    random_kept: float | None
    p_value: float | None
    rows: tuple[SeparationRow, ...]
    layers: tuple[str, ...]
    effective_clusters: tuple[float, ...]
    shared: float
    k: int
    seed: int

    @property
    def worst_layer(self) -> float | None:
        """Smallest effective number of clusters in a hidden layer; None without hidden layers.

        Near 1, clusters are successive stages; near k, parallel modules.
        """
        return min(self.effective_clusters, default=None)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain lists, strings and numbers, ready for JSON."""
        values: dict[str, Any] = {name: getattr(self, name) for name in type(self).__slots__}
        rows = [{name: getattr(row, name) for name in type(row).__slots__} for row in self.rows]
        return values | {
            "random_scores": self.random_scores.tolist(),
            "rows": [row | {"clusters": list(row["clusters"])} for row in rows],
            "layers": list(self.layers),
            "effective_clusters": list(self.effective_clusters),
        }

    def to_frame(self) -> DataFrame:
        """One row per set of clusters kept alone, with the fields of `SeparationRow`.

        Raises
        ------
        MissingExtraError
            If pandas is not installed.
        """
        pandas = import_extra("pandas", "plot")
        names = list(SeparationRow.__slots__)
        frame: DataFrame = pandas.DataFrame(
            [[getattr(row, name) for name in names] for row in self.rows], columns=names
        )
        return frame

    def __repr__(self) -> str:
        return separation_text(self)


def separate(
    model: Any,
    layers: Sequence[Layer],
    labels: ArrayLike,
    evaluate: Evaluate,
    *,
    chance: float | None = None,
    keep: Iterable[Iterable[int]] | None = None,
    random_sets: int = 20,
    example_inputs: Any = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Separation:
    """Remove all weights between clusters, and measure the network's performance.

    Exactly the weights of edges between two clusters are set to zero; biases, normalizations and
    parameters outside the graph stay. An entry behind several edges (a reader of a residual sum, or
    a tied weight) is removed if any of its edges joins two clusters.

    Parameters
    ----------
    model : torch.nn.Module, sequence or mapping of weight arrays
        What the layers were read from.
    layers : sequence of Layer
        The layers of the model's graph, n vertices in total.
    labels : array_like of int, shape (n,)
        Cluster of each vertex; negative for a vertex without edges.
    evaluate : callable
        Takes the model (for arrays, a list or dict like it) and returns a score that is higher for
        a better model, such as its accuracy, or its loss times -1. It must run its argument and be
        deterministic.
    chance : float, optional
        The score of a useless model; by default the score without any weight of the graph.
    keep : iterable of iterables of int, optional
        Sets of clusters to keep alone; by default each cluster.
    random_sets : int, default 20
        Number of random partitions for comparison; p is at least 1 / (random_sets + 1).
    example_inputs : optional
        As given to `ncut.graph`.
    seed : int, default 0
        The same seed gives the same random partitions.
    progress : True or callable, optional
        True shows a bar (extra `notebook`); a function is called with (done, total) after each
        call of `evaluate`.

    Returns
    -------
    Separation

    Raises
    ------
    InputError
        If an argument cannot be used, `evaluate` does not return a finite number or does not run
        the model, or single weights of the model cannot be removed.
    """
    check_evaluate(evaluate)
    checked = check_labels(labels, layers)
    n_random = check_random_sets(random_sets)
    seed = check_seed(seed)
    clusters = np.unique(checked[checked >= 0])
    sets = _sets(keep, clusters)
    given = None if chance is None else check_number(chance, "chance", "be one finite number")
    places = references(model, layers, example_inputs=example_inputs)
    total = 2 + (given is None) + len(sets) + n_random

    with progress_callback(progress, "evaluations") as callback:
        done = 0

        def scored(labels: NDArray[np.intp], kept: Sequence[int] | None = None) -> float:
            nonlocal done
            marks = places.marks(labels, kept)
            with without(model, {key: mark.between for key, mark in marks.items()}) as changed:
                score = _scored(evaluate, changed)
            done += 1
            if callback is not None:
                callback(done, total)
            return score

        score = _intact(model, places, lambda: scored(np.zeros_like(checked)))
        nothing = scored(np.zeros_like(checked), []) if given is None else given
        cut = scored(checked)
        rows = []
        for chosen in sets:
            value = scored(checked, chosen)
            size = int(np.isin(checked, chosen).sum())
            rows.append(SeparationRow(chosen, size, value, _share(value, score, nothing)))
        random = np.array([scored(_permuted(checked, layers, seed, n)) for n in range(n_random)])
    shares = [share for value in random if (share := _share(value, score, nothing)) is not None]
    hidden = [layer for n, layer in enumerate(layers) if _is_hidden(layer, n)]
    return Separation(
        score=score,
        chance=nothing,
        cut_score=cut,
        kept=_share(cut, score, nothing),
        random_scores=random.astype(np.float64),
        random_kept=float(np.mean(shares)) if shares else None,
        p_value=(int((random >= cut).sum()) + 1) / (n_random + 1) if n_random else None,
        rows=tuple(rows),
        layers=tuple(layer.name for layer in hidden),
        effective_clusters=tuple(effective_number(checked[layer.slice]) for layer in hidden),
        shared=_shared(places, checked),
        k=int(checked.max()) + 1,
        seed=seed,
    )


def effective_number(labels: NDArray[np.integer]) -> float:
    """Effective number of clusters of some neurons: exp of the entropy of their shares.

    Negative labels are in no cluster. 0 if no neuron is in a cluster.
    """
    counts = np.bincount(labels[labels >= 0])
    shares = counts[counts > 0] / max(counts.sum(), 1)
    return float(np.exp(-(shares * np.log(shares)).sum())) if shares.size else 0.0


def _sets(
    keep: Iterable[Iterable[int]] | None, clusters: NDArray[np.intp]
) -> list[tuple[int, ...]]:
    if keep is None:
        return [(cluster,) for cluster in clusters.tolist()]
    try:
        sets = [tuple(sorted({int(cluster) for cluster in chosen})) for chosen in keep]
    except (TypeError, ValueError) as error:
        raise InputError(
            f"keep: must be sets of clusters, as in [(0,), (0, 1)]: {error}"
        ) from error
    for chosen in sets:
        unknown = set(chosen) - set(clusters.tolist())
        if unknown or not chosen:
            raise InputError(f"keep: {chosen} are not clusters; there are {clusters.tolist()}")
    return sets


def _scored(evaluate: Evaluate, model: Any) -> float:
    wanted = "return the score as one finite number, higher for a better model"
    return check_number(evaluate(model), "evaluate", wanted)


def _intact(model: Any, places: References, scored: Any) -> float:
    """The intact model's score; raises if a module was not run for it."""
    if not is_module(model):
        return float(scored())
    with watched(model, [*places.shapes]) as ran:
        score = float(scored())
    if not ran:
        raise InputError(
            "evaluate: did not run the model passed to it, so removing weights has no effect; call "
            "its argument, as in evaluate=lambda model: accuracy(model(x), y)"
        )
    return score


def _share(value: float, score: float, chance: float) -> float | None:
    return (value - chance) / (score - chance) if score > chance else None


def _permuted(
    labels: NDArray[np.intp], layers: Sequence[Layer], seed: int, number: int
) -> NDArray[np.intp]:
    """The labels permuted within each layer; neurons in no cluster keep their label."""
    permuted = labels.copy()
    for position, layer in enumerate(layers):
        key = np.array([seed, RANDOM_PARTITIONS], dtype=np.uint64)
        at = np.array([0, 0, position, number], dtype=np.uint64)
        generator = np.random.Generator(np.random.Philox(key=key, counter=at))
        inside = layer.start + np.flatnonzero(labels[layer.slice] >= 0)
        permuted[inside] = generator.permutation(labels[inside])
    return permuted


def _is_hidden(layer: Layer, number: int) -> bool:
    return bool(layer.read_by) and not (number == 0 and layer.name == "input")


def _shared(places: References, labels: NDArray[np.intp]) -> float:
    marks = places.marks(labels).values()
    inside = sum(int(mark.inside.sum()) for mark in marks)
    both = sum(int((mark.inside & mark.between).sum()) for mark in marks)
    return both / inside if inside else 0.0


def separation_text(separation: Separation) -> str:
    """Intact and cut scores, random partitions, a line per cluster kept alone."""
    found = separation
    cut = f"cut apart {found.cut_score:.4g}"
    if found.kept is not None:
        cut += f": {found.kept:.0%} of the score above chance ({found.chance:.3g}) is kept"
    sentences = [f"score {found.score:.4g} intact, {cut}"]
    if found.p_value is not None:
        kept = "" if found.random_kept is None else f" {found.random_kept:.0%} is kept"
        sentences.append(
            f"cut at {len(found.random_scores)} random partitions of the same sizes{kept} "
            f"(score {found.random_scores.mean():.4g}, at most {found.random_scores.max():.4g}; "
            f"p = {found.p_value:.3g})"
        )
    if found.worst_layer is not None:
        worst = found.layers[found.effective_clusters.index(found.worst_layer)]
        kind = "stages that follow each other" if found.worst_layer < 1.5 else "side by side"
        sentences.append(
            f"effective number of clusters in the worst hidden layer {found.worst_layer:.2g} of "
            f"{found.k} ({shortened(worst, LAYER_WIDTH)}): {kind}"
        )
    if found.shared:
        sentences.append(
            f"{found.shared:.0%} of the weights inside clusters also lie between clusters and were "
            "removed with them"
        )
    lines = [line for sentence in sentences for line in textwrap.wrap(sentence, WIDTH)]
    if found.rows:
        lines.append(f"{'kept alone':<24}{'neurons':>10}{'score':>12}{'share kept':>14}")
    for row in found.rows:
        names = shortened(", ".join(map(str, row.clusters)), 22)
        share = "-" if row.kept is None else f"{row.kept:.0%}"
        lines.append(f"{names:<24}{row.n_neurons:>10,}{row.score:>12.4g}{share:>14}")
    return "\n".join(lines)
