"""Pruning on a schedule: which weights go and when, and that nothing else about a model changes."""

from __future__ import annotations

import copy
import pickle
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import ncut
from ncut.errors import InputError

torch = pytest.importorskip("torch", reason="pip install 'ncut[torch]'")
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402, N812
from torch.nn.utils import parametrizations, prune  # noqa: E402

from ncut.training.pruning import PolynomialPruning  # noqa: E402


def zhu_gupta(t, begin, end, initial, final):
    """Equation 1 in exact arithmetic."""
    initial, final = Fraction(initial), Fraction(final)
    return final + (initial - final) * (1 - Fraction(t - begin, end - begin)) ** 3


def keep(weights, mask, sparsity):
    """The mask after a renewal, by a stable sort: masked ones first, then by magnitude."""
    order = np.argsort(np.where(mask, np.abs(weights), -np.inf).ravel(), kind="stable")
    n_pruned = max(round(sparsity * weights.size), int((~mask).sum()))
    kept = np.ones(weights.size, dtype=bool)
    kept[order[:n_pruned]] = False
    return kept.reshape(weights.shape)


def network(*sizes, seed=0):
    torch.manual_seed(seed)
    layers = [nn.Linear(m, n) for m, n in pairwise(sizes)]
    return nn.Sequential(*(part for layer in layers for part in (layer, nn.ReLU())))[:-1]


def mask_of(layer):
    return (layer.weight_mask != 0).cpu().numpy()


def prune_now(model, sparsity, **options):
    """Prune to a sparsity in one step."""
    pruning = PolynomialPruning(
        model, end_step=0, initial_sparsity=sparsity, final_sparsity=sparsity, **options
    )
    pruning.step()
    return pruning


# --- the schedule -------------------------------------------------------------------------------


shares = st.tuples(st.floats(0, 0.999), st.floats(0, 0.999)).map(sorted)


@given(shares=shares, begin=st.integers(0, 50), length=st.integers(1, 2000))
def test_the_schedule_is_equation_1_monotone_and_between_its_ends(shares, begin, length):
    initial, final = shares
    pruning = PolynomialPruning(
        nn.Linear(2, 2), begin_step=begin, end_step=begin + length,
        initial_sparsity=initial, final_sparsity=final,
    )  # fmt: skip
    asked = np.array([pruning.sparsity_at(t) for t in range(begin + length + 20)])
    assert_array_equal(asked[:begin], 0)
    assert_array_equal(asked[begin + length :], final)
    steps = range(begin, begin + length + 1)
    expected = [float(zhu_gupta(t, begin, begin + length, initial, final)) for t in steps]
    assert_allclose(asked[steps], expected, rtol=0, atol=1e-15)
    assert (np.diff(asked) >= 0).all()
    assert asked.min() >= 0
    assert asked.max() == final


def test_the_defaults_match_filan_et_al():
    pruning = PolynomialPruning(nn.Linear(10, 10), end_step=100)
    assert pruning.sparsity_at(0) == 0.5
    assert pruning.sparsity_at(50) == pytest.approx(0.9 - 0.4 / 8)
    assert pruning.sparsity_at(100) == 0.9
    assert pruning.every == 10


@st.composite
def runs(draw):
    begin = draw(st.integers(0, 6))
    initial, final = draw(shares)
    return {
        "begin_step": begin,
        "end_step": begin + draw(st.integers(0, 15)),
        "every": draw(st.integers(1, 6)),
        "initial_sparsity": initial,
        "final_sparsity": final,
    }


@given(
    options=runs(),
    shape=st.tuples(st.integers(1, 7), st.integers(1, 9)),
    coarseness=st.sampled_from([1, 3, 1000]),
    seed=st.integers(0, 1000),
)
def test_masks_equal_those_of_a_stable_sort_while_weights_change(options, shape, coarseness, seed):
    # Coarse weights have many equal magnitudes, and zeros that were not pruned.
    generator = np.random.default_rng(seed)
    layer = nn.Linear(shape[1], shape[0])
    pruning = PolynomialPruning(layer, **options)
    begin, end = options["begin_step"], options["end_step"]
    expected = np.ones(shape, dtype=bool)
    for t in range(end + 5):
        weights = np.round(coarseness * generator.normal(size=shape)) / coarseness
        with torch.no_grad():
            layer.weight_orig.copy_(torch.from_numpy(weights))
        weights = layer.weight_orig.detach().numpy()
        if begin <= t <= end and (t == end or (t - begin) % options["every"] == 0):
            expected = keep(weights, expected, pruning.sparsity_at(t))
            n_pruned = int((~expected).sum())
            assert n_pruned == round(pruning.sparsity_at(t) * weights.size)
        pruning.step()
        assert pruning.sparsity == pruning.sparsity_at(t)
        assert_array_equal(mask_of(layer), expected)
        assert pruning.sparsities == {"": pytest.approx(1 - expected.mean())}
    layer(torch.zeros(1, shape[1]))
    assert_array_equal(layer.weight.detach().numpy(), np.where(expected, weights, 0))


def test_masks_are_renewed_in_the_steps_due_and_in_the_last():
    layer = nn.Linear(100, 100)
    pruning = PolynomialPruning(layer, begin_step=5, end_step=28)
    assert (pruning.sparsity, pruning.sparsities) == (0.0, {"": 0.0})
    changed, before = [], 0.0
    for t in range(40):
        pruning.step()
        if pruning.sparsities[""] != before:
            changed.append(t)
        before = pruning.sparsities[""]
    assert changed == [5, 15, 25, 28]
    assert before == 0.9


def test_the_first_of_equal_weights_go_first():
    layer = nn.Linear(3, 2)
    nn.init.ones_(layer.weight)
    prune_now(layer, 0.5)
    assert_array_equal(mask_of(layer), [[False] * 3, [True] * 3])


def test_a_pruned_weight_stays_pruned_though_its_parameter_grows():
    layer = nn.Linear(20, 10)
    pruning = PolynomialPruning(layer, end_step=10, every=1)
    pruning.step()
    pruned = ~mask_of(layer)
    with torch.no_grad():
        layer.weight_orig[torch.from_numpy(pruned)] = 100.0
        layer.weight_orig[torch.from_numpy(~pruned)] = 0.0
    for _ in range(10):
        pruning.step()
    assert not mask_of(layer)[pruned].any()
    assert pruning.sparsities[""] == 0.9


# --- which layers -------------------------------------------------------------------------------


class Mixed(nn.Module):
    """One module of each kind."""

    def __init__(self):
        super().__init__()
        self.features = nn.ModuleDict({
            "conv1": nn.Conv1d(3, 5, 3), "conv2": nn.Conv2d(3, 5, 3), "conv3": nn.Conv3d(3, 5, 3),
            "up1": nn.ConvTranspose1d(3, 5, 3), "up2": nn.ConvTranspose2d(3, 5, 3, groups=1),
        })  # fmt: skip
        self.norm = nn.BatchNorm1d(4)
        self.table = nn.Embedding(10, 4)
        self.pair = nn.Bilinear(4, 4, 4)
        self.attention = nn.MultiheadAttention(4, 2)
        self.head = nn.Linear(4, 10)


CONVOLUTIONS = [f"features.{kind}" for kind in ("conv1", "conv2", "conv3", "up1", "up2")]


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        (None, [*CONVOLUTIONS, "head"]),
        ("head", ["head"]),
        (["head", "features.conv?"], [*CONVOLUTIONS[:3], "head"]),
        (("features.*",), CONVOLUTIONS),
    ],
)
def test_linear_layers_and_convolutions_are_pruned_and_nothing_else(layers, expected):
    model = Mixed()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert list(prune_now(model, 0.75, layers=layers).sparsities) == expected
    after = model.state_dict()
    for name in expected:
        weight = before.pop(f"{name}.weight")
        assert_array_equal(after.pop(f"{name}.weight_orig"), weight)
        mask = keep(weight.numpy(), np.ones(weight.shape, dtype=bool), 0.75)
        assert_array_equal(after.pop(f"{name}.weight_mask"), mask)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_attention_still_trains():
    model = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    pruning = PolynomialPruning(model, end_step=4, every=1)
    assert list(pruning.sparsities) == ["linear1", "linear2"]
    for _ in range(5):
        pruning.step()
        model(torch.ones(2, 3, 8)).square().sum().backward()
    model.eval()
    with torch.no_grad():
        assert model(torch.ones(2, 3, 8)).isfinite().all()


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (["head", "haed"], "layers: 'haed' matches no linear .* the model has .*'head'"),
        (["norm"], "layers: 'norm' matches no"),
        (["attention.out_proj"], "matches no"),
        ([], "layers: is empty"),
        ([3], "layers: must hold names"),
    ],
)
def test_layers_that_are_not_there_are_refused(layers, message):
    with pytest.raises(InputError, match=message):
        PolynomialPruning(Mixed(), end_step=1, layers=layers)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.ReLU(), "model: has no linear"),
        ([np.ones((2, 2))], "model: must be a torch.nn.Module, got list"),
        (nn.Sequential(parametrizations.weight_norm(nn.Linear(2, 2))), "'0' computes its weight"),
        (nn.Sequential(nn.LazyLinear(2)), "'0' has no weight yet"),
    ],
)
def test_models_that_cannot_be_pruned_are_refused(model, message):
    with pytest.raises(InputError, match=message):
        PolynomialPruning(model, end_step=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"end_step": 9, "begin_step": 10}, "end_step: .* at least 10, got 9"),
        ({"end_step": 1.5}, "end_step: must be a whole number"),
        ({"end_step": True}, "end_step: must be a whole number"),
        ({"begin_step": -1}, "begin_step: .* at least 0"),
        ({"every": 0}, "every: .* at least 1"),
        ({"final_sparsity": 1.0}, "final_sparsity: .* below 1"),
        ({"initial_sparsity": -0.1}, "initial_sparsity: must be a share"),
        ({"initial_sparsity": float("nan")}, "initial_sparsity: must be a share"),
        ({"final_sparsity": "0.9"}, "final_sparsity: must be a share"),
        ({"final_sparsity": 0.4}, "initial_sparsity: must not be above final_sparsity"),
    ],
)
def test_impossible_arguments_are_refused_and_leave_the_model_alone(options, message):
    model = nn.Linear(2, 2)
    with pytest.raises(InputError, match=message):
        PolynomialPruning(model, **{"end_step": 100, **options})
    assert not prune.is_pruned(model)


def test_nan_is_refused_by_name():
    model = network(4, 3, 2)
    pruning = PolynomialPruning(model, end_step=5)
    with torch.no_grad():
        model[2].weight_orig[0, 0] = float("nan")
    with pytest.raises(InputError, match="layer '2' has weights that are nan"):
        pruning.step()


# --- weights that are shared, or were pruned before ---------------------------------------------


def test_tied_layers_get_one_mask_and_stay_tied():
    model = network(6, 6, 6)
    model[2].weight = model[0].weight
    pruning = prune_now(model, 0.5)
    assert pruning.sparsities == {"0": 0.5, "2": 0.5}
    assert model[0].weight_orig is model[2].weight_orig
    assert_array_equal(mask_of(model[0]), mask_of(model[2]))
    pruning.remove()
    assert model[0].weight is model[2].weight
    assert int((model[0].weight == 0).sum()) == 18


def test_tied_layers_pruned_separately_lose_the_union_of_weights():
    model = network(6, 6, 6)
    model[2].weight = model[0].weight
    for number in (0, 2):
        prune.random_unstructured(model[number], "weight", amount=12)
    both = mask_of(model[0]) & mask_of(model[2])
    prune_now(model, 0.8)
    expected = keep(model[0].weight_orig.detach().numpy(), both, 0.8)
    assert_array_equal(mask_of(model[0]), expected)
    assert_array_equal(mask_of(model[2]), expected)


@pytest.mark.parametrize("layers", [None, ["head"]])
def test_a_weight_shared_with_what_is_not_pruned_is_refused(layers):
    model = Mixed()
    model.head.weight = model.table.weight
    with pytest.raises(InputError, match="layers: 'head' shares its weight with 'table'"):
        PolynomialPruning(model, end_step=1, layers=layers)
    assert list(prune_now(model, 0.5, layers="features.*").sparsities) == CONVOLUTIONS


def test_a_shared_weight_must_be_pruned_wherever_it_is_used():
    model = network(6, 6, 6)
    model[2].weight = model[0].weight
    with pytest.raises(InputError, match="layers: '0' shares its weight with '2'"):
        PolynomialPruning(model, end_step=1, layers="0")


@pytest.mark.parametrize("twice", [False, True])
def test_pruning_continues_from_existing_masks(twice):
    model = network(20, 10, 4)
    prune.random_unstructured(model[0], "weight", amount=0.3)
    if twice:
        prune.ln_structured(model[0], "weight", amount=2, n=1, dim=0)
    before = mask_of(model[0]).copy()
    pruning = PolynomialPruning(model, end_step=10)
    assert pruning.sparsities["0"] == pytest.approx(1 - before.mean())
    pruning.step()
    weights = model[0].weight_orig.detach().numpy()
    assert_array_equal(mask_of(model[0]), keep(weights, before, 0.5))
    pruning.remove()
    assert not prune.is_pruned(model)


def test_a_layer_with_more_pruned_than_asked_for_keeps_that():
    layer = nn.Linear(10, 10)
    prune.random_unstructured(layer, "weight", amount=0.95)
    before = mask_of(layer).copy()
    assert prune_now(layer, 0.9).sparsities == {"": pytest.approx(0.95)}
    assert_array_equal(mask_of(layer), before)


# --- torch --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_any_type_and_device_before_and_after(dtype, device):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a GPU: on a machine with one, run pytest tests/training/test_pruning.py")
    early, late = (nn.Linear(30, 20).requires_grad_(False) for _ in range(2))
    late.load_state_dict(early.state_dict())
    early.to(device, dtype)
    both = [PolynomialPruning(early, end_step=9, every=3)]
    both.append(PolynomialPruning(late, end_step=9, every=3))
    late.to(device, dtype)
    for _ in range(10):
        for pruning in both:
            pruning.step()
    weights = early.weight_orig.float().cpu().numpy()
    # Weights that do not change lose in four renewals what they would lose in one.
    expected = keep(weights, np.ones(weights.shape, dtype=bool), 0.9)
    for layer in (early, late):
        assert layer.weight_mask.dtype == layer.weight.dtype == dtype
        assert layer.weight.device.type == device
        assert_array_equal(mask_of(layer), expected)


def test_the_memory_format_of_a_weight_does_not_matter():
    plain = nn.Conv2d(8, 6, 3)
    last = copy.deepcopy(plain).to(memory_format=torch.channels_last)
    prune_now(plain, 0.6)
    prune_now(last, 0.6)
    assert not last.weight_orig.is_contiguous()
    assert_array_equal(mask_of(plain), mask_of(last))


def test_a_model_in_eval_mode_is_pruned_and_stays_in_it():
    model = network(8, 6, 4).eval()
    prune_now(model, 0.5)
    assert not model.training
    data = torch.ones(3, 8)
    weights = [model[i].weight_orig * model[i].weight_mask for i in (0, 2)]
    hidden = F.relu(F.linear(data, weights[0], model[0].bias))
    torch.testing.assert_close(model(data), F.linear(hidden, weights[1], model[2].bias))


@pytest.mark.parametrize("late", [False, True])
def test_optimizers_from_before_and_after_do_the_same(late):
    model = network(8, 6, 4)
    parameters = dict(model.named_parameters())
    if late:
        pruning = PolynomialPruning(model, end_step=5, every=1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    if not late:
        pruning = PolynomialPruning(model, end_step=5, every=1)
    assert model[0].weight_orig is parameters["0.weight"]
    for _ in range(6):
        pruning.step()
        optimizer.zero_grad()
        before = model[0].weight_orig.detach().clone()
        model(torch.randn(16, 8)).square().sum().backward()
        gradient = model[0].weight_orig.grad
        assert not gradient[model[0].weight_mask == 0].any()
        assert gradient.any()
        optimizer.step()
        torch.testing.assert_close(model[0].weight_orig.detach(), before - 0.01 * gradient)


def test_copies_of_a_model_are_pruned_independently():
    model = network(8, 6, 4)
    pruning = PolynomialPruning(model, end_step=5, every=1)
    untouched = copy.deepcopy(model)
    pruning.step()
    halved = copy.deepcopy(model)
    with torch.no_grad():
        model(torch.ones(1, 8))
    other, other_pruning = copy.deepcopy((model, pruning))
    for _ in range(5):
        other_pruning.step()
    assert prune.is_pruned(untouched)
    assert mask_of(untouched[0]).all()
    assert mask_of(halved[0]).mean() == mask_of(model[0]).mean() == 0.5
    assert round(1 - mask_of(other[0]).mean(), 2) == 0.9
    assert pruning.sparsities["0"] == 0.5
    assert other_pruning.sparsities["0"] == pytest.approx(1 - mask_of(other[0]).mean())


class Run:
    """A model in training with a pruning and an optimizer with momentum."""

    def __init__(self, seed=0):
        self.model = network(8, 6, 4, seed=seed)
        self.pruning = PolynomialPruning(self.model, end_step=25, every=5)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.01)

    def train(self, steps):
        for t in steps:
            self.pruning.step()
            self.optimizer.zero_grad()
            data = torch.randn(16, 8, generator=torch.Generator().manual_seed(t))
            F.mse_loss(self.model(data), data[:, :4]).backward()
            self.optimizer.step()

    @property
    def parts(self):
        return self.model, self.pruning, self.optimizer


def test_a_resumed_run_equals_an_uninterrupted_one():
    whole, first, second = Run(), Run(), Run(seed=1)
    whole.train(range(30))
    first.train(range(13))
    saved = pickle.dumps([part.state_dict() for part in first.parts])
    for part, state in zip(second.parts, pickle.loads(saved), strict=True):
        part.load_state_dict(state)
    assert second.pruning.sparsity == first.pruning.sparsity
    assert second.pruning.sparsities == first.pruning.sparsities
    second.train(range(13, 30))
    expected, found = whole.model.state_dict(), second.model.state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert second.pruning.sparsity == 0.9


@pytest.mark.parametrize(
    ("state", "message"),
    [({}, "'n_steps' alone"), ({"n_steps": -1}, "at least 0"), ({"n_steps": 1, "t": 2}, "alone")],
)
def test_other_states_are_refused(state, message):
    with pytest.raises(InputError, match=message):
        PolynomialPruning(nn.Linear(2, 2), end_step=1).load_state_dict(state)


def test_removed_masks_leave_zeros_and_the_same_function():
    run = Run()
    run.train(range(30))
    data = torch.ones(3, 8)
    before, shares = run.model(data), run.pruning.sparsities
    run.pruning.remove()
    assert not prune.is_pruned(run.model)
    assert set(run.model.state_dict()) == set(network(8, 6, 4).state_dict())
    torch.testing.assert_close(run.model(data), before)
    assert run.pruning.sparsities == shares
    run.pruning.remove()  # nothing is left to do
    run.pruning.step()
    assert not prune.is_pruned(run.model)


def test_masks_that_were_removed_before_the_end_come_back():
    layer = nn.Linear(10, 10)
    pruning = PolynomialPruning(layer, end_step=1)
    pruning.step()
    prune.remove(layer, "weight")
    zeros = (layer.weight == 0).numpy()
    pruning.step()
    assert pruning.sparsities == {"": 0.9}
    assert not mask_of(layer)[zeros].any()


# --- the rest of ncut, and a real training ------------------------------------------------------


def test_the_graph_of_a_pruned_model_has_the_masked_weights():
    model = network(12, 8, 6, 4)
    prune_now(model, 0.6)
    for graph in (ncut.graph(model), ncut.graph(model.state_dict())):
        for block, number in zip(graph.blocks, (0, 2, 4), strict=True):
            weights = block.weights
            dense = weights if isinstance(weights, np.ndarray) else weights.toarray()
            layer = model[number]
            expected = np.abs(layer.weight_orig.detach().numpy() * layer.weight_mask.numpy())
            assert_allclose(dense, expected.T, rtol=1e-6)


def test_digits_are_learned_with_a_tenth_of_the_weights():
    datasets = pytest.importorskip("sklearn.datasets", reason="pip install scikit-learn")
    images, labels = datasets.load_digits(return_X_y=True)
    X, y = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)
    train, test = slice(0, 1400), slice(1400, None)
    model = network(64, 128, 64, 10)

    def accuracy(model):
        with torch.no_grad():
            return float((model(X[test]).argmax(1) == y[test]).float().mean())

    def fit(n_steps, begin):
        optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
        for _ in range(n_steps):
            begin()
            optimizer.zero_grad()
            F.cross_entropy(model(X[train]), y[train]).backward()
            optimizer.step()
        return accuracy(model)

    dense = fit(100, lambda: None)
    cut_at_once = copy.deepcopy(model)
    prune_now(cut_at_once, 0.9)
    pruning = PolynomialPruning(model, end_step=200)
    pruned = fit(300, pruning.step)
    pruning.remove()
    sizes = [part.weight.numel() for part in model if isinstance(part, nn.Linear)]
    left = [int(part.weight.count_nonzero()) for part in model if isinstance(part, nn.Linear)]
    assert left == [size - round(0.9 * size) for size in sizes]
    # Of this split a dense network of this size gets about 91 % right.
    assert dense > 0.88
    assert pruned > dense - 0.05
    assert accuracy(cut_at_once) < 0.5
