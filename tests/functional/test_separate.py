"""separate: exactly the weights between clusters go, and all is put back."""

from __future__ import annotations

import copy
import json
import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from checks import check_uniform
from numpy.testing import assert_allclose, assert_array_equal
from planted import N_GROUPS, PER_GROUP, examples, forward, planted

import ncut
from ncut.errors import InputError
from ncut.extract import read_graph
from ncut.extract.references import References, references
from ncut.functional import separate
from ncut.functional.cutting import without
from ncut.functional.separate import effective_number

WEIGHTS, LAYERS, LABELS = planted()
X = examples(40)
TARGET = forward(WEIGHTS, X)


def score(weights: Any) -> float:
    """Share of the targets' variance that is explained, at least 0."""
    return max(0.0, explained(weights))


def explained(weights: Any) -> float:
    """The same, below 0 for outputs worse than a constant."""
    error = np.square(forward(weights, X) - TARGET).sum()
    return 1 - float(error / np.square(TARGET - TARGET.mean(0)).sum())


def joined(amount: float, seed: int = 1) -> list[np.ndarray]:
    """The planted network with weights between its parts as well."""
    rng = np.random.default_rng(seed)
    return [w + amount * rng.random(w.shape) * (w == 0) for w in WEIGHTS]


def masked(weights: Any, labels: np.ndarray) -> list[np.ndarray]:
    """Without the weights between clusters, by hand."""
    cuts = np.cumsum([layer.size for layer in LAYERS])[:-1]
    parts = np.split(labels, cuts)
    return [w * (a[:, None] == b) for w, (a, b) in zip(weights, pairwise(parts), strict=True)]


def test_parts_without_shared_edges_lose_no_score() -> None:
    found = separate(WEIGHTS, LAYERS, LABELS, score)
    assert found.score == found.cut_score == 1
    assert found.chance == 0
    assert found.kept == 1
    assert found.p_value == pytest.approx(1 / 21)
    assert found.random_kept is not None
    assert found.random_kept < 0.5
    assert found.layers == (LAYERS[1].name, LAYERS[2].name)
    assert found.worst_layer == pytest.approx(N_GROUPS)
    assert found.shared == 0
    assert [row.clusters for row in found.rows] == [(0,), (1,), (2,), (3,)]
    assert {row.n_neurons for row in found.rows} == {4 * PER_GROUP}


def test_numbers_follow_their_definitions() -> None:
    weights = joined(0.02)
    calls: list[tuple[int, int]] = []

    def said(done: int, total: int) -> None:
        calls.append((done, total))

    found = separate(
        weights, LAYERS, LABELS, explained, random_sets=5, chance=-3.0, keep=[(1, 0), (3,)],
        progress=said,
    )  # fmt: skip
    assert calls == [(n, 9) for n in range(1, 10)]
    assert found.score == explained(weights)
    assert found.cut_score == explained(masked(weights, LABELS)) > found.random_scores.max()
    assert found.kept == pytest.approx((found.cut_score + 3) / (found.score + 3))
    for row, kept in zip(found.rows, [[0, 1], [3]], strict=True):
        alone = np.where(np.isin(LABELS, kept), LABELS, 10 + np.arange(LABELS.size))
        assert row.score == explained(masked(weights, alone))
        assert row.kept == pytest.approx((row.score + 3) / (found.score + 3))
    assert found.rows[0].clusters == (0, 1)
    shares = (found.random_scores + 3) / (found.score + 3)
    assert found.random_kept == pytest.approx(shares.mean())
    assert json.loads(json.dumps(found.to_dict()))["rows"][1]["clusters"] == [3]
    assert found.to_frame().kept.tolist() == [row.kept for row in found.rows]
    again = separate(weights, LAYERS, LABELS, explained, random_sets=5)
    assert_array_equal(again.random_scores, found.random_scores)
    other = separate(weights, LAYERS, LABELS, explained, random_sets=5, seed=1)
    assert not np.array_equal(other.random_scores, found.random_scores)


def test_chance_defaults_to_the_score_without_weights() -> None:
    def with_bias(weights: Any) -> float:
        return 0.25 + 0.5 * score(weights)

    found = separate(WEIGHTS, LAYERS, LABELS, with_bias, random_sets=0)
    assert found.chance == 0.25
    assert found.kept == 1
    assert found.p_value is None
    assert found.random_kept is None


def test_a_model_no_better_than_chance_keeps_no_share() -> None:
    found = separate(WEIGHTS, LAYERS, LABELS, lambda weights: 0.5, random_sets=2)
    assert found.kept is None
    assert found.random_kept is None
    assert found.rows[0].kept is None
    assert "score 0.5 intact, cut apart 0.5" in str(found)


def test_effective_numbers() -> None:
    assert effective_number(np.array([0, 0, 1, 1, -1])) == pytest.approx(2)
    assert effective_number(np.array([3, 3, 3])) == 1
    assert effective_number(np.array([-1])) == 0
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert effective_number(np.array([0, 0, 0, 1])) == pytest.approx(math.exp(entropy))


def test_stages_are_distinguished_from_modules() -> None:
    stages = np.repeat([0, 0, 1, 1], N_GROUPS * PER_GROUP)
    found = separate(WEIGHTS, LAYERS, stages, score, random_sets=0)
    assert found.worst_layer == 1
    assert found.kept == 0
    assert "stages that follow each other" in " ".join(str(found).split())


def test_p_is_that_of_a_random_partition() -> None:
    """The p-value of random partitions is uniform."""
    weights = joined(0.05)

    p_values = []
    for seed in range(120):
        rng = np.random.default_rng(seed)
        labels = np.concatenate([rng.permutation(LABELS[layer.slice]) for layer in LAYERS])
        found = separate(weights, LAYERS, labels, explained, random_sets=9, seed=seed, keep=[])
        assert found.p_value is not None
        p_values.append(round(10 * found.p_value) - 1)
    check_uniform(np.bincount(p_values, minlength=10))


def test_a_state_dict() -> None:
    names = {f"{n}.weight": w.T for n, w in enumerate(WEIGHTS)}
    graph = read_graph(names)

    def named(weights: Any) -> float:
        return score([weights[name].T for name in names])

    found = separate(names, graph.layers, LABELS, named)
    assert found.kept == 1
    assert found.p_value == pytest.approx(1 / 21)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": LABELS[:-1]}, "labels: must be 96 whole numbers"),
        ({"random_sets": -1}, "random_sets: must be a whole number"),
        ({"keep": [(9,)]}, "keep: (9,) are not clusters"),
        ({"keep": 3}, "keep: must be sets of clusters"),
        ({"chance": float("nan")}, "chance: must be one finite number"),
        ({"evaluate": lambda weights: None}, "evaluate: must return the score"),
        ({"model": "model.pt"}, "weights of a str cannot be taken out"),
        ({"model": WEIGHTS[:2]}, "does not have the layers of the report"),
        ({"model": {"state_dict": {"0.weight": WEIGHTS[0]}}}, "pass the state dict in it"),
    ],
)
def test_bad_arguments(change: dict[str, Any], message: str) -> None:
    arguments = {"model": WEIGHTS, "layers": LAYERS, "labels": LABELS, "evaluate": score}
    with pytest.raises(InputError) as caught:
        separate(**(arguments | change))
    assert message in str(caught.value)


# --- torch --------------------------------------------------------------------------------------

torch = pytest.importorskip("torch", reason="pip install 'ncut[torch]'")
from torch import nn  # noqa: E402
from torch.nn.utils import parametrizations, prune  # noqa: E402
from torch.nn.utils import weight_norm as old_weight_norm  # noqa: E402


def mlp() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 8)
    )


def pruned() -> nn.Sequential:
    model = mlp()
    prune.l1_unstructured(model[2], "weight", amount=0.4)
    return model


def normed() -> nn.Sequential:
    model = mlp()
    parametrizations.weight_norm(model[0])
    parametrizations.spectral_norm(model[4])
    return model


def normed_of_old() -> nn.Sequential:
    model = mlp()
    with pytest.warns(FutureWarning):
        old_weight_norm(model[2])
    return model


def conv() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 12, 3, groups=2),
        nn.ReLU(), nn.ConvTranspose2d(12, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 1, groups=6),
        nn.Flatten(), nn.Linear(6 * 36, 5),
    )  # fmt: skip


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 10), nn.Linear(10, 4)
        self.up, self.down = nn.Linear(10, 12), nn.Linear(12, 10)

    def forward(self, x: Any) -> Any:
        x = self.first(x).relu()
        return self.last(x + self.down(self.up(x).relu()))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(9, 9), nn.Linear(9, 9)
        self.outer.weight = self.inner.weight

    def forward(self, x: Any) -> Any:
        return self.outer(self.inner(x).relu())


def attention() -> nn.Module:
    return nn.TransformerEncoderLayer(16, 4, 24, batch_first=True)


CASES: dict[str, tuple[Any, tuple[int, ...], dict[str, Any]]] = {
    "mlp": (mlp, (4, 12), {}),
    "half": (lambda: mlp().bfloat16(), (4, 12), {}),
    "pruned": (pruned, (4, 12), {}),
    "normed": (normed, (4, 12), {}),
    "conv": (conv, (2, 3, 8, 8), {}),
    "conv, all": (conv, (2, 3, 8, 8), {"scope": "all"}),
    "readers": (Residual, (4, 6), {"residual": "readers"}),
    "stream": (Residual, (4, 6), {"residual": "stream"}),
    "attention": (attention, (2, 3, 16), {}),
    "tied": (Tied, (4, 9), {}),
}


def made(name: str) -> tuple[nn.Module, Any, dict[str, Any]]:
    torch.manual_seed(5)
    make, shape, options = CASES[name]
    model = make().eval()
    return model, torch.randn(shape).to(next(model.parameters()).dtype), options


def edges_of(model: nn.Module, options: dict[str, Any], example: Any) -> np.ndarray:
    graph = ncut.graph(model, example_inputs=example, **options)
    return np.asarray(graph.adjacency.toarray()) * 2.0**graph.exponent


def in_clusters(places: References) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 3, sum(places.sizes))


@pytest.mark.parametrize("name", CASES)
def test_no_edge_between_clusters_is_left_and_all_inside_are(name: str) -> None:
    model, example, options = made(name)
    graph = ncut.graph(model, example_inputs=example, **options)
    places = references(model, graph.layers, example_inputs=example)
    labels = in_clusters(places)
    marks = places.marks(labels)
    before = edges_of(model, options, example)
    state = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        intact = model(example)
    with without(model, {key: mark.between for key, mark in marks.items()}):
        after = edges_of(model, options, example)
        with torch.no_grad():
            cut = model(example)
    same = labels[:, None] == labels
    assert after[~same].max() == 0
    both = any((mark.between & mark.inside).any() for mark in marks.values())
    assert both == (name in ("readers", "attention", "tied"))
    kept = after[same]
    if both:
        assert 0 < (kept > 0).sum() < (before[same] > 0).sum()
        assert (kept <= before[same] * (1 + 1e-6)).all()
    else:
        assert_allclose(kept, before[same], rtol=1e-6)
    assert not torch.equal(intact, cut)
    with torch.no_grad():
        assert torch.equal(model(example), intact)
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())


def test_the_older_weight_norm() -> None:
    torch.manual_seed(5)
    model, x = normed_of_old().eval(), torch.randn(4, 12)
    places = references(model, ncut.graph(model).layers)
    intact = model(x)
    removed = {key: np.ones(shape, dtype=bool) for key, shape in places.shapes.items()}
    with without(model, removed):
        cut = model(x)
    assert torch.equal(cut, model[4].bias.expand(4, 8))
    assert torch.equal(model(x), intact)


def test_an_input_reaches_its_own_cluster_only() -> None:
    """By the function itself: derivatives of outputs of one cluster by inputs of another are 0."""
    model, x, _ = made("mlp")
    places = references(model)
    labels = in_clusters(places)
    marks = places.marks(labels)
    with without(model, {key: mark.between for key, mark in marks.items()}):
        slopes = torch.autograd.functional.jacobian(model, x[0])
    same = labels[-8:][:, None] == labels[:12]
    assert slopes[torch.from_numpy(~same)].abs().max() == 0
    assert slopes[torch.from_numpy(same)].abs().max() > 0


def test_of_a_report() -> None:
    model, x, _ = made("mlp")
    target = model(x).detach()

    def negative_loss(network: nn.Module) -> Any:
        with torch.no_grad():
            return -(network(x) - target).square().mean()

    report = ncut.analyze(model, k=3, shuffles=0)
    found = report.separate(negative_loss, random_sets=3)
    assert found.score == 0
    assert found.chance < 0
    assert found.k == 3
    later = ncut.Report.from_json(report.to_json())
    assert later.separate(negative_loss, model=model, random_sets=3).to_dict() == found.to_dict()
    with pytest.raises(InputError, match="pass model="):
        later.separate(negative_loss)
    with pytest.raises(InputError, match="did not run the model"):
        report.separate(lambda network: 1.0)


def test_all_is_put_back_after_an_error() -> None:
    model, x, _ = made("normed")
    graph = ncut.graph(model)
    state = copy.deepcopy(model.state_dict())
    calls = []

    def failing(network: nn.Module) -> float:
        calls.append(network(x))
        if len(calls) == 3:
            raise ValueError("on purpose")
        return 1.0 / len(calls)

    with pytest.raises(ValueError, match="on purpose"):
        separate(model, graph.layers, np.arange(graph.n_vertices) % 2, failing)
    assert torch.equal(model(x), calls[0])
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_weights_that_are_sums_of_others_are_refused() -> None:
    class Adapted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.randn(6, 5))
            self.a, self.b = nn.Parameter(torch.randn(6, 2)), nn.Parameter(torch.randn(2, 5))
            self.last = nn.Linear(6, 3)

        def forward(self, x: Any) -> Any:
            return self.last(nn.functional.linear(x, self.w + self.a @ self.b).relu())

    model = Adapted()
    graph = ncut.graph(model, example_inputs=torch.zeros(2, 5))
    with pytest.raises(InputError, match="are computed from its parameters"):
        separate(
            model, graph.layers, np.zeros(graph.n_vertices, dtype=int), lambda m: 0.0,
            example_inputs=torch.zeros(2, 5),
        )  # fmt: skip


def test_many_weights_are_distinguished() -> None:
    """More than one number in float32 can tell."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2100, 2100), nn.ReLU(), nn.Linear(2100, 3))
    places = references(model)
    labels = np.arange(sum(places.sizes)) % 2
    between = places.marks(labels)["0", "weight"].between
    assert_array_equal(between, (labels[2100:4200][:, None] != labels[:2100]))
