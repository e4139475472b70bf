"""ablate: planted modules are found, numbers follow their definitions, errors leave no traces."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from checks import check_uniform
from planted import N_GROUPS, PER_GROUP, Weights, examples, forward, planted

from ncut.errors import InputError, Interrupted
from ncut.extract import read_graph
from ncut.functional import ablate, silenced
from ncut.types import Layer

WEIGHTS, LAYERS, LABELS = planted()
X = examples(40)
HIDDEN = 2


def loss_of_group(group: int, x: np.ndarray = X) -> Any:
    """Mean squared error at the outputs of one group alone."""
    outputs = slice(group * PER_GROUP, (group + 1) * PER_GROUP)
    target = forward(WEIGHTS, x)[:, outputs]

    def evaluate(weights: Weights) -> float:
        return float(np.square(forward(weights, x)[:, outputs] - target).mean())

    return evaluate


def mean_output(weights: Weights) -> float:
    """A sum over the groups, so that what one adds does not depend on the others."""
    return -float(forward(weights, X).mean())


def test_the_cluster_that_carries_the_signal_is_important() -> None:
    found = ablate(WEIGHTS, LAYERS, LABELS, loss_of_group(2))
    assert found.baseline == 0
    assert [row.cluster for row in found.rows] == [0, 1, 2, 3]
    assert [row.n_neurons for row in found.rows] == [HIDDEN * PER_GROUP] * N_GROUPS
    assert [row.cluster for row in found.important] == [2]
    assert found.rows[2].p_value == found.smallest_p == pytest.approx(1 / 21)
    assert found.rows[2].importance == found.rows[2].loss > 0
    for row in (found.rows[0], found.rows[1], found.rows[3]):
        assert row.importance == 0
        assert row.p_value == 1
        assert row.p_low is not None
        assert row.p_low < 0.2


def test_numbers_follow_their_definitions() -> None:
    found = ablate(WEIGHTS, LAYERS, LABELS, mean_output, random_sets=7)
    assert found.k == N_GROUPS
    for row in found.rows:
        with silenced(WEIGHTS, LAYERS, hidden(row.cluster == LABELS)) as silent:
            assert row.loss == mean_output(silent)
        assert row.importance == row.loss - found.baseline
        assert row.random_losses.shape == (7,)
        assert row.random_mean == pytest.approx(row.random_losses.mean())
        assert row.random_std == pytest.approx(row.random_losses.std())
        assert row.z_score == pytest.approx(
            (row.loss - row.random_losses.mean()) / row.random_losses.std()
        )
        assert row.p_value == ((row.random_losses >= row.loss).sum() + 1) / 8
        assert row.p_low == ((row.random_losses <= row.loss).sum() + 1) / 8


def hidden(chosen: np.ndarray, layers: tuple[Layer, ...] = LAYERS) -> np.ndarray:
    inner = np.zeros(chosen.size, dtype=bool)
    for layer in layers[1:-1]:
        inner[layer.slice] = True
    return np.flatnonzero(chosen & inner)


class Sets:
    """An evaluation that notes which neurons of each layer are silenced, of positive weights."""

    def __init__(self) -> None:
        self.seen: list[list[np.ndarray]] = []

    def __call__(self, weights: Weights) -> float:
        self.seen.append([np.flatnonzero(~weight.any(axis=1)) for weight in weights])
        return float(len(self.seen))


def dense(sizes: tuple[int, ...] = (5, 8, 7, 3)) -> tuple[Weights, tuple[Layer, ...], np.ndarray]:
    weights = [np.ones(shape) for shape in itertools.pairwise(sizes)]
    layers = read_graph(weights).layers
    return weights, layers, np.random.default_rng(0).integers(0, 3, sum(sizes))


def test_random_sets_have_as_many_connected_neurons_in_each_layer() -> None:
    weights, layers, labels = dense()
    labels[[6, 14]] = -1
    sets = Sets()
    ablate(weights, layers, labels, sets, random_sets=30)
    assert all(not one.size for one in sets.seen[0])
    for cluster in range(3):
        own, *random = sets.seen[1 + 31 * cluster : 1 + 31 * (cluster + 1)]
        for number, layer in enumerate(layers[:3]):
            members = np.flatnonzero(labels[layer.slice] == cluster) if number else np.zeros(0)
            np.testing.assert_array_equal(own[number], members)
            assert {one[number].size for one in random} == {members.size}
            connected = np.flatnonzero(labels[layer.slice] >= 0)
            drawn = np.unique(np.concatenate([one[number] for one in random]))
            if members.size:
                np.testing.assert_array_equal(drawn, connected)
        assert len({tuple(one[1]) for one in random}) > 5


def test_every_neuron_is_drawn_as_often() -> None:
    weights, layers, labels = dense()
    labels[:] = np.arange(labels.size) % 2
    sets = Sets()
    ablate(weights, layers, labels, sets, random_sets=400)
    random = sets.seen[2:402] + sets.seen[403:]
    for number in (1, 2):
        drawn = np.concatenate([one[number] for one in random])
        check_uniform(np.bincount(drawn, minlength=layers[number].size))
    assert not any(
        np.array_equal(a[1], b[1]) for a, b in zip(random[:8], random[400:], strict=False)
    )


def test_the_seed_determines_the_random_sets() -> None:
    weights, layers, labels = dense()
    runs = []
    for seed in (0, 0, 1):
        sets = Sets()
        ablate(weights, layers, labels, sets, random_sets=4, seed=seed)
        runs.append([np.concatenate(one).tolist() for one in sets.seen])
    assert runs[0] == runs[1] != runs[2]
    more = Sets()
    ablate(weights, layers, labels, more, random_sets=6, seed=0)
    assert [np.concatenate(one).tolist() for one in more.seen[:6]] == runs[0][:6]


def test_each_layer_of_a_cluster_by_itself() -> None:
    found = ablate(WEIGHTS, LAYERS, LABELS, loss_of_group(1), per_layer=True)
    assert [(row.cluster, row.layer) for row in found.rows] == [
        (cluster, layer) for cluster in range(N_GROUPS) for layer in ("w0", "w1")
    ]
    assert {row.cluster for row in found.important} == {1}
    assert len(found.important) == HIDDEN


def test_inputs_are_silenced_if_asked_for() -> None:
    found = ablate(WEIGHTS, LAYERS, LABELS, mean_output, inputs=True, random_sets=0)
    assert {row.n_neurons for row in found.rows} == {3 * PER_GROUP}
    named = (replace(LAYERS[0], name="conv1"), *LAYERS[1:])
    found = ablate(WEIGHTS, named, LABELS, mean_output, random_sets=0)
    assert {row.n_neurons for row in found.rows} == {3 * PER_GROUP}


def test_clusters_without_hidden_neurons_are_skipped() -> None:
    labels = LABELS.copy()
    labels[-PER_GROUP:] = 9
    labels[LABELS == 1] = -1
    found = ablate(WEIGHTS, LAYERS, labels, mean_output, random_sets=1, pairs=True)
    assert [row.cluster for row in found.rows] == [0, 2, 3]
    assert [(pair.first, pair.second) for pair in found.pairs] == [(0, 2), (0, 3), (2, 3)]
    assert found.k == 10


def test_independent_clusters_do_not_interact() -> None:
    found = ablate(WEIGHTS, LAYERS, LABELS, mean_output, pairs=True, random_sets=2)
    assert len(found.pairs) == N_GROUPS * (N_GROUPS - 1) // 2
    for pair in found.pairs:
        assert pair.interaction == pytest.approx(0, abs=1e-9)
    squared = ablate(
        WEIGHTS, LAYERS, LABELS, lambda weights: mean_output(weights) ** 2, pairs=True,
        random_sets=0,
    )  # fmt: skip
    first = squared.pairs[0]
    assert abs(first.interaction) > 1
    with silenced(WEIGHTS, LAYERS, hidden((LABELS == 0) | (LABELS == 1))) as silent:
        both = mean_output(silent) ** 2
    assert first.loss == both
    rows = squared.rows
    assert first.interaction == both - rows[0].loss - rows[1].loss + squared.baseline


def test_a_set_of_all_neurons_differs_from_no_random_set() -> None:
    labels = np.zeros(LABELS.size, dtype=np.int64)
    (row,) = ablate(WEIGHTS, LAYERS, labels, mean_output).rows
    assert (row.p_value, row.p_low, row.random_std, row.z_score) == (1, 1, 0, None)


def test_without_random_sets() -> None:
    found = ablate(WEIGHTS, LAYERS, LABELS, mean_output, random_sets=0)
    assert found.important == ()
    row = found.rows[0]
    assert (row.random_mean, row.random_std, row.z_score) == (None, None, None)
    assert (row.p_value, row.p_low) == (None, None)
    assert "compared with no random sets" in str(found)


def test_progress_is_reported() -> None:
    calls: list[tuple[int, int]] = []
    ablate(
        WEIGHTS, LAYERS, LABELS, mean_output, pairs=True, random_sets=3,
        progress=lambda *call: calls.append(call),
    )  # fmt: skip
    total = 1 + 4 * 4 + 6
    assert calls == [(done, total) for done in range(1, total + 1)]


class Interrupting:
    """An evaluation that is interrupted at its n-th call."""

    def __init__(self, at: int) -> None:
        self.at = at

    def __call__(self, weights: Weights) -> float:
        self.at -= 1
        if not self.at:
            raise KeyboardInterrupt
        return mean_output(weights)


def test_an_interruption_keeps_complete_results() -> None:
    whole = ablate(WEIGHTS, LAYERS, LABELS, mean_output, random_sets=3, pairs=True)
    for at, n_rows, n_pairs in ((2, 0, 0), (7, 1, 0), (20, 4, 2)):
        with pytest.raises(Interrupted) as caught:
            ablate(WEIGHTS, LAYERS, LABELS, Interrupting(at), random_sets=3, pairs=True)
        ours = caught.value.finished
        assert isinstance(caught.value, KeyboardInterrupt)
        assert ours.baseline == whole.baseline
        assert (len(ours.rows), len(ours.pairs)) == (n_rows, n_pairs)
        assert ours.to_dict()["rows"] == whole.to_dict()["rows"][:n_rows]
        assert str(ours)
    with pytest.raises(KeyboardInterrupt) as early:
        ablate(WEIGHTS, LAYERS, LABELS, Interrupting(1))
    assert not isinstance(early.value, Interrupted)


@pytest.mark.parametrize("per_layer", [False, True])
def test_text_is_narrow_and_holds_the_findings(per_layer: bool) -> None:
    layers = tuple(replace(layer, name=f"a\x1brather.long.name.{layer.name}") for layer in LAYERS)
    found = ablate(
        WEIGHTS, layers, LABELS, lambda weights: -1e5 * mean_output(weights) ** 3,
        per_layer=per_layer, pairs=not per_layer, inputs=True,
    )  # fmt: skip
    text = str(found)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in text
    assert len({len(line) for line in lines[1 : 2 + len(found.rows)]}) == 1
    assert "p <= 0.05; not corrected for the number of" in " ".join(lines)
    assert ("largest interaction of 6 pairs" in text) is not per_layer
    few = ablate(WEIGHTS, LAYERS, LABELS, mean_output, random_sets=5)
    assert "use at least 19" in " ".join(str(few).split())


def test_rows_are_shown_by_cluster_in_any_order() -> None:
    found = ablate(WEIGHTS, LAYERS, LABELS, mean_output, random_sets=1)
    assert str(replace(found, rows=found.rows[::-1])) == str(found)


def test_dict_and_frame() -> None:
    pandas = pytest.importorskip("pandas", reason="pip install 'ncut[plot]'")
    found = ablate(WEIGHTS, LAYERS, LABELS, mean_output, random_sets=2, pairs=True)
    content = json.loads(json.dumps(found.to_dict()))
    assert sorted(content) == ["baseline", "k", "pairs", "random_sets", "rows", "seed"]
    assert content["rows"][3]["random_losses"] == found.rows[3].random_losses.tolist()
    assert content["pairs"][5]["second"] == 3
    frame = found.to_frame()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame.columns) == [
        *("cluster", "layer", "n_neurons", "loss", "importance", "random_mean", "random_std"),
        *("z_score", "p_value", "p_low"),
    ]
    assert frame["loss"].tolist() == [row.loss for row in found.rows]


@pytest.mark.parametrize(
    "value", [np.float32(2), np.array(2), np.int64(2), 2, np.array(2.0, dtype=np.float16)]
)
def test_a_loss_may_be_any_kind_of_number(value: Any) -> None:
    found = ablate(WEIGHTS, LAYERS, LABELS, lambda weights: value, random_sets=1)
    assert found.baseline == 2
    assert type(found.baseline) is float


@pytest.mark.parametrize(
    "value", [np.nan, np.inf, None, "2", 1j, True, [2.0], np.ones(1), np.array(None)]
)
def test_a_loss_must_be_a_finite_number(value: Any) -> None:
    with pytest.raises(InputError, match="evaluate: must return"):
        ablate(WEIGHTS, LAYERS, LABELS, lambda weights: value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": LABELS[1:]}, "labels: must be 96 whole numbers"),
        ({"labels": LABELS.astype(float)}, "labels"),
        ({"labels": np.full(96, -1)}, "no vertex is in a cluster"),
        ({"labels": np.where(np.arange(96) < 24, 0, -1)}, "no hidden neurons"),
        ({"layers": ()}, "layers: empty"),
        ({"layers": [replace(layer, read_by=()) for layer in LAYERS]}, "no hidden neurons"),
        ({"pairs": True, "per_layer": True}, "pairs"),
        ({"random_sets": -1}, "random_sets"),
        ({"random_sets": True}, "random_sets"),
        ({"random_sets": 2.0}, "random_sets"),
        ({"seed": -1}, "seed"),
        ({"model": "model.npz"}, "pass the model itself"),
    ],
)
def test_refused(options: dict[str, Any], message: str) -> None:
    arguments = {"model": WEIGHTS, "layers": LAYERS, "labels": LABELS, "evaluate": mean_output}
    with pytest.raises(InputError, match=message):
        ablate(**(arguments | options))


# Torch modules: the same numbers as for their weights.


def module() -> Any:
    torch = pytest.importorskip("torch", reason="pip install 'ncut[torch]'")
    layers: list[Any] = []
    for weight in WEIGHTS:
        linear = torch.nn.Linear(*weight.shape, bias=False).double()
        linear.weight = torch.nn.Parameter(torch.from_numpy(weight.T.copy()))
        layers += [linear, torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1])


def module_loss(model: Any) -> Any:
    import torch

    with torch.no_grad():
        return -model(torch.from_numpy(X)).mean()


def test_a_module_gives_the_numbers_of_its_weights() -> None:
    model = module().train()
    found = ablate(model, read_graph(model).layers, LABELS, module_loss, random_sets=3)
    expected = ablate(WEIGHTS, LAYERS, LABELS, mean_output, random_sets=3)
    assert found.baseline == pytest.approx(expected.baseline, rel=1e-12)
    for ours, theirs in zip(found.rows, expected.rows, strict=True):
        np.testing.assert_allclose(ours.random_losses, theirs.random_losses, rtol=1e-12)
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-12)
    assert model.training


def test_a_module_is_unchanged_if_the_evaluation_fails() -> None:
    model = module()
    calls = []

    def evaluate(given: Any) -> Any:
        calls.append(given)
        if len(calls) == 3:
            raise ZeroDivisionError
        return module_loss(given)

    with pytest.raises(ZeroDivisionError):
        ablate(model, read_graph(model).layers, LABELS, evaluate)
    assert all(one is model for one in calls)
    assert not any(part._forward_pre_hooks for part in model.modules())
    assert module_loss(model).item() == pytest.approx(mean_output(WEIGHTS), rel=1e-12)


def test_an_evaluation_of_another_model_is_noticed() -> None:
    model, other = module(), module()
    with pytest.raises(InputError, match="evaluate: did not run the model"):
        ablate(model, read_graph(model).layers, LABELS, lambda given: module_loss(other))
