"""ablate(): what is lost when a cluster of neurons is silenced, and when random neurons are."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ncut.errors import InputError, import_extra
from ncut.extract.modules import is_module
from ncut.functional.arguments import check_labels, check_number, check_random_sets
from ncut.functional.modules import hooked
from ncut.functional.silence import silenced
from ncut.functional.text import ablation_text
from ncut.progress import Progress, Told, telling
from ncut.randomness import check_seed
from ncut.types import Layer

if TYPE_CHECKING:
    from pandas import DataFrame

Evaluate: TypeAlias = Callable[[Any], float]

LEVEL = 0.05
"""A set of neurons counts as more important than random sets at a p of at most this."""

LOSS = "return the loss as one finite number, higher for a worse model"
"""What `evaluate` must do."""

# The second half of a Philox key. Streams of an analysis are numbered with 32 bits: none is this.
RANDOM_SETS = 1 << 32


@dataclass(frozen=True, slots=True, eq=False)
class AblationRow:
    """What silencing one set of neurons does.

    Attributes
    ----------
    cluster : int
        The cluster that the neurons are in.
    layer : str or None
        The layer that they are in; None for those of all hidden layers.
    n_neurons : int
        How many they are.
    loss : float
        The model's loss with them silenced.
    importance : float
        `loss` less that of the intact model; positive: the model is worse without them.
    random_losses : ndarray of float64, shape (random_sets,)
        The loss with as many random neurons of each layer silenced instead.
    random_mean, random_std : float or None
        Their mean and population standard deviation; None without random sets.
    z_score : float or None
        (loss - random_mean) / random_std; None without random sets and where they do not differ.
    p_value : float or None
        (r + 1) / (random_sets + 1), where r random sets have at least this loss: low where the
        neurons are more important than random ones. None without random sets.
    p_low : float or None
        The same for the other direction, r random sets with at most this loss.
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
    """What silencing two clusters together does.

    Attributes
    ----------
    first, second : int
        The clusters.
    loss : float
        The model's loss with both silenced.
    interaction : float
        `loss` less what it were if the importances of the two added up: 0 where neither matters
        to what the other does.
    """

    first: int
    second: int
    loss: float
    interaction: float


@dataclass(frozen=True, slots=True, eq=False)
class Ablation:
    """How important clusters of neurons are to what a network does.

    `print(ablation)` shows a table, `ablation.to_frame()` is one.

    Attributes
    ----------
    baseline : float
        The intact model's loss.
    rows : tuple of AblationRow
        One per set of neurons that was silenced, by cluster, then by layer.
    pairs : tuple of AblationPair
        One per pair of clusters, if asked for.
    k : int
        Number of clusters, those without hidden neurons included.
    random_sets : int
        How many random sets each set is compared with.
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
        """The sets that are more important than random ones, with a p of at most 0.05.

        The p are not corrected for the number of sets.
        """
        return tuple(row for row in self.rows if row.p_value is not None and row.p_value <= LEVEL)

    @property
    def smallest_p(self) -> float:
        """No p can be below this: 1 / (random_sets + 1)."""
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

    def __str__(self) -> str:
        return ablation_text(self)


class AblationInterrupted(KeyboardInterrupt):
    """Ctrl-C during `ablate`; `ablation` holds the rows and pairs that were complete by then."""

    def __init__(self, ablation: Ablation) -> None:
        super().__init__(f"stopped after {len(ablation.rows)} sets of neurons")
        self.ablation = ablation


def ablate(
    model: Any,
    layers: Sequence[Layer],
    labels: ArrayLike,
    evaluate: Evaluate,
    *,
    per_layer: bool = False,
    random_sets: int = 20,
    pairs: bool = False,
    inputs: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> Ablation:
    """Silence each cluster of neurons in turn, and random neurons to compare with.

    A random set has as many neurons in each layer as the cluster, drawn without replacement
    from all of the layer's neurons that have edges, so that a cluster is not important merely
    because it is large or lies in a layer that matters.

    Parameters
    ----------
    model : torch.nn.Module, sequence or mapping of weight arrays
        What the layers were read from.
    layers : sequence of Layer
        The layers of the model's graph, n vertices in all. Those that something reads are
        silenced: all but the network's outputs.
    labels : array_like of int, shape (n,)
        Cluster of each vertex; negative for a vertex without edges.
    evaluate : callable
        Gets the model (of arrays: a list or dict like it) and returns its loss, a number that
        is higher for a worse model. It must run the model that it is given, and give the same
        number for the same model: a module in evaluation mode, on the same data.
    per_layer : bool, default False
        One set for each cluster and layer in place of one for each cluster.
    random_sets : int, default 20
        Random sets for each set; p can be no lower than 1 / (random_sets + 1).
    pairs : bool, default False
        Whether to silence each pair of clusters as well, and tell how they interact.
    inputs : bool, default False
        Whether the network's inputs (a first layer named "input") are silenced as well.
    seed : int, default 0
        The same seed gives the same random sets.
    progress : True or callable, optional
        True shows a bar (extra `notebook`); a function is called with (done, total) after each
        call of `evaluate`.

    Returns
    -------
    Ablation

    Raises
    ------
    InputError
        If an argument cannot be used, `evaluate` does not return a finite number or does not run
        the model, or the model cannot be silenced (see `silenced`).
    AblationInterrupted
        On Ctrl-C after the intact model's loss is known.

    Source: Hod, Filan, Casper, Critch and Russell (2021), Quantifying Local Specialization in
    Deep Neural Networks, arXiv:2110.08058; the clusters are those of Filan et al. (2021),
    Clusterability in Neural Networks.
    """
    if pairs and per_layer:
        raise InputError("pairs: pairs are of whole clusters; leave out per_layer=True")
    checked = check_labels(labels, layers)
    hidden = _hidden(layers, checked, inputs)
    sets = _sets(hidden, per_layer)
    couples = list(itertools.combinations(range(len(sets)), 2)) if pairs else []
    n_random = check_random_sets(random_sets)
    seed = check_seed(seed)
    total = 1 + len(sets) * (1 + n_random) + len(couples)
    rows: list[AblationRow] = []
    interactions: list[AblationPair] = []

    def so_far() -> Ablation:
        k = int(checked.max()) + 1
        return Ablation(baseline, tuple(rows), tuple(interactions), k, n_random, seed)

    with telling(progress, "evaluations") as told:
        trial = _Trial(model, layers, evaluate, told, total)
        baseline = trial.baseline([reader for part in hidden for reader in part.layer.read_by])
        try:
            for one in sets:
                loss = trial.loss(one.vertices)
                random = [trial.loss(one.random(seed, number)) for number in range(n_random)]
                rows.append(_row(one, loss, baseline, np.array(random, dtype=np.float64)))
            for a, b in couples:
                loss = trial.loss(np.concatenate([sets[a].vertices, sets[b].vertices]))
                interaction = loss - rows[a].loss - rows[b].loss + baseline
                interactions.append(
                    AblationPair(sets[a].cluster, sets[b].cluster, loss, interaction)
                )
        except KeyboardInterrupt:
            raise AblationInterrupted(so_far()) from None
    return so_far()


class _Hidden(NamedTuple):
    """A layer whose neurons are silenced: its position, the vertices with edges, their clusters."""

    number: int
    layer: Layer
    connected: NDArray[np.intp]
    labels: NDArray[np.intp]


class _Part(NamedTuple):
    """The neurons of a set that lie in one layer."""

    hidden: _Hidden
    vertices: NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class _Set:
    """Neurons of a cluster that are silenced together."""

    cluster: int
    layer: str | None
    parts: tuple[_Part, ...]

    @property
    def vertices(self) -> NDArray[np.intp]:
        return np.concatenate([part.vertices for part in self.parts])

    def random(self, seed: int, number: int) -> NDArray[np.intp]:
        """As many random neurons of each layer."""
        drawn = []
        for part in self.parts:
            key = np.array([seed, RANDOM_SETS], dtype=np.uint64)
            at = np.array([0, self.cluster, part.hidden.number, number], dtype=np.uint64)
            generator = np.random.Generator(np.random.Philox(key=key, counter=at))
            size = part.vertices.size
            drawn.append(generator.choice(part.hidden.connected, size, replace=False))
        return np.concatenate(drawn)


@dataclass(slots=True, eq=False)
class _Trial:
    """Evaluates a model with sets of its neurons silenced, and counts."""

    model: Any
    layers: Sequence[Layer]
    evaluate: Evaluate
    progress: Told | None
    total: int
    done: int = field(default=0)

    def loss(self, vertices: NDArray[np.intp]) -> float:
        with silenced(self.model, self.layers, vertices) as model:
            loss = check_number(self.evaluate(model), "evaluate", LOSS)
        self.done += 1
        if self.progress is not None:
            self.progress(self.done, self.total)
        return loss

    def baseline(self, readers: Sequence[str]) -> float:
        """The intact model's loss; a module must have been run for it."""
        nothing = np.zeros(0, dtype=np.intp)
        if not is_module(self.model):
            return self.loss(nothing)
        ran: list[bool] = []
        with hooked(self.model, dict.fromkeys(readers, lambda value: ran.append(True))):
            loss = self.loss(nothing)
        if not ran:
            raise InputError(
                "evaluate: did not run the model that it is given, so silencing has no effect; "
                "call its argument, evaluate=lambda model: loss(model(x), y)"
            )
        return loss


def _hidden(layers: Sequence[Layer], labels: NDArray[np.intp], inputs: bool) -> list[_Hidden]:
    hidden = []
    for number, layer in enumerate(layers):
        is_input = number == 0 and layer.name == "input"
        if not layer.read_by or (is_input and not inputs):
            continue
        connected = layer.start + np.flatnonzero(labels[layer.slice] >= 0)
        hidden.append(_Hidden(number, layer, connected, labels[connected]))
    if not any(part.connected.size for part in hidden):
        raise InputError("model: no hidden neurons with edges to silence")
    return hidden


def _sets(hidden: Sequence[_Hidden], per_layer: bool) -> list[_Set]:
    """The sets to silence, by cluster, then by layer; none is empty."""
    sets = []
    for cluster in np.unique(np.concatenate([layer.labels for layer in hidden])).tolist():
        parts = [_Part(layer, layer.connected[layer.labels == cluster]) for layer in hidden]
        parts = [part for part in parts if part.vertices.size]
        if per_layer:
            sets += [_Set(cluster, part.hidden.layer.name, (part,)) for part in parts]
        else:
            sets.append(_Set(cluster, None, tuple(parts)))
    return sets


def _row(
    one: _Set, loss: float, baseline: float, random_losses: NDArray[np.float64]
) -> AblationRow:
    n = random_losses.size
    mean = float(random_losses.mean()) if n else None
    # Of equal numbers the computed deviation may be off 0 in its last digits.
    differ = n > 0 and bool((random_losses != random_losses[0]).any())
    std = (float(random_losses.std()) if differ else 0.0) if n else None
    return AblationRow(
        cluster=one.cluster,
        layer=one.layer,
        n_neurons=one.vertices.size,
        loss=loss,
        importance=loss - baseline,
        random_losses=random_losses,
        random_mean=mean,
        random_std=std,
        z_score=(loss - mean) / std if mean is not None and std else None,
        p_value=(int((random_losses >= loss).sum()) + 1) / (n + 1) if n else None,
        p_low=(int((random_losses <= loss).sum()) + 1) / (n + 1) if n else None,
    )


def _plain(row: AblationRow | AblationPair) -> dict[str, Any]:
    values = {name: getattr(row, name) for name in type(row).__slots__}
    return {
        name: value.tolist() if isinstance(value, np.ndarray) else value
        for name, value in values.items()
    }
