"""ablate(): the loss with a cluster of neurons silenced, and with random neurons silenced."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ncut.arguments import suggests_names
from ncut.errors import InputError, Interrupted
from ncut.extract.modules import is_module
from ncut.functional.arguments import (
    check_evaluate,
    check_labels,
    check_number,
    check_random_sets,
)
from ncut.functional.modules import hooked
from ncut.functional.results import Ablation, AblationPair, AblationRow
from ncut.functional.silence import silenced
from ncut.progress import Progress, ProgressCallback, progress_callback
from ncut.randomness import check_seed
from ncut.types import Layer

Evaluate: TypeAlias = Callable[[Any], float]


LOSS = "return the loss as one finite number, higher for a worse model"
"""The contract of `evaluate`."""

# The second half of a Philox key. Streams of an analysis are numbered with 32 bits: none is this.
RANDOM_SETS = 1 << 32


@suggests_names(name="ncut.functional.ablate")
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
    """Silence each cluster of neurons in turn, and random neurons for comparison.

    A random set has as many neurons in each layer as the cluster, drawn without replacement
    from all of the layer's neurons with edges, so that a cluster does not count as important merely
    because it is large or lies in an important layer.

    Parameters
    ----------
    model : torch.nn.Module, sequence or mapping of weight arrays
        What the layers were read from.
    layers : sequence of Layer
        The layers of the model's graph, n vertices in total. All layers with readers are silenced,
        that is, all but the network's outputs.
    labels : array_like of int, shape (n,)
        Cluster of each vertex; negative for a vertex without edges.
    evaluate : callable
        Takes the model (for arrays, a list or dict like it) and returns its loss, a number that is
        higher for a worse model. It must run its argument and be deterministic: a module in
        evaluation mode, on the same data.
    per_layer : bool, default False
        Silence one set per cluster and layer instead of one per cluster.
    random_sets : int, default 20
        Random sets for each set; p can be no lower than 1 / (random_sets + 1).
    pairs : bool, default False
        Whether to silence each pair of clusters as well, to measure their interaction.
    inputs : bool, default False
        Whether to silence the network's inputs (a first layer named "input") as well.
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
    Interrupted
        On Ctrl-C after the intact model's loss is known.

    Source: Hod, Filan, Casper, Critch and Russell (2021), Quantifying Local Specialization in
    Deep Neural Networks, arXiv:2110.08058; the clusters are those of Filan et al. (2021),
    Clusterability in Neural Networks.
    """
    if pairs and per_layer:
        raise InputError("pairs: consist of whole clusters; leave out per_layer=True")
    check_evaluate(evaluate)
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

    with progress_callback(progress, "evaluations") as callback:
        evaluator = _Evaluator(model, layers, evaluate, callback, total)
        baseline = evaluator.baseline([reader for part in hidden for reader in part.layer.read_by])
        try:
            for one in sets:
                loss = evaluator.loss(one.vertices)
                random = [evaluator.loss(one.random(seed, number)) for number in range(n_random)]
                rows.append(_row(one, loss, baseline, np.array(random, dtype=np.float64)))
            for a, b in couples:
                loss = evaluator.loss(np.concatenate([sets[a].vertices, sets[b].vertices]))
                interaction = loss - rows[a].loss - rows[b].loss + baseline
                interactions.append(
                    AblationPair(sets[a].cluster, sets[b].cluster, loss, interaction)
                )
        except KeyboardInterrupt:
            raise Interrupted(so_far(), f"{len(rows)} sets of neurons") from None
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
class _Evaluator:
    """Evaluates a model with sets of its neurons silenced, and reports progress."""

    model: Any
    layers: Sequence[Layer]
    evaluate: Evaluate
    progress: ProgressCallback | None
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
        """The intact model's loss; raises if a module was not run for it."""
        nothing = np.zeros(0, dtype=np.intp)
        if not is_module(self.model):
            return self.loss(nothing)
        ran: list[bool] = []
        with hooked(self.model, dict.fromkeys(readers, lambda value: ran.append(True))):
            loss = self.loss(nothing)
        if not ran:
            raise InputError(
                "evaluate: did not run the model passed to it, so silencing has no effect; call "
                "its argument, as in evaluate=lambda model: loss(model(x), y)"
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
        raise InputError("model: has no hidden neurons with edges to silence")
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
    # The computed deviation of equal numbers may differ from 0 in its last digits.
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
