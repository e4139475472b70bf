"""The null model "init": what layers are like before training, read from torch and drawn anew."""

from __future__ import annotations

import copy
import itertools
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ml_dtypes import bfloat16
from numpy.testing import assert_array_equal
from samples import as_csr, chain_graph, random_chain
from scipy import stats
from scipy.sparse import issparse

from ncut import analyze, reference
from ncut.errors import InputError
from ncut.extract import read_graph
from ncut.extract.assembly.assemble import MAX_SAMPLE
from ncut.graphs import NeuronGraph, from_adjacency
from ncut.nulls import check_null_fits, shuffle
from ncut.types import Block, Initial

SAMPLE = np.linspace(0.5, 1.5, 101)


def with_initial(graph: NeuronGraph, initial: Initial) -> NeuronGraph:
    blocks = tuple(replace(block, initial=initial) for block in graph.blocks)
    return replace(graph, blocks=blocks)


def uniform_p(values: Any, bound: float) -> float:
    """p-value of the hypothesis that the values are uniform between 0 and the bound."""
    return float(stats.kstest(np.ravel(values), stats.uniform(0, bound).cdf).pvalue)


# Drawing.


@pytest.mark.parametrize("density", [1.0, 0.5, 0.1])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_everywhere_every_pair_gets_a_weight_of_the_sample(density: float, dtype: Any) -> None:
    graph = chain_graph(random_chain(7, (60, 70, 50), density))
    graph = with_initial(graph, Initial(SAMPLE.astype(dtype)))
    shuffled = shuffle(graph, "init", seed=3)
    for block, original in zip(shuffled.blocks, graph.blocks, strict=True):
        assert isinstance(block.weights, np.ndarray)
        assert block.weights.dtype == dtype
        assert block.weights.shape == original.weights.shape
        assert np.isin(block.weights, SAMPLE.astype(dtype)).all()
        counts = np.unique(block.weights, return_counts=True)[1]
        assert counts.size == SAMPLE.size
        assert stats.chisquare(counts).pvalue > 1e-4


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, bfloat16])
@pytest.mark.parametrize("density", [0.9, 0.1])
def test_elsewhere_zeros_keep_their_places(density: float, dtype: Any) -> None:
    graph = chain_graph(random_chain(7, (60, 70, 50), density, dtype))
    graph = with_initial(graph, Initial(SAMPLE, everywhere=False))
    connected, _ = graph.without_isolated()
    shuffled = shuffle(graph, "init", seed=3)
    for block, original in zip(shuffled.blocks, connected.blocks, strict=True):
        assert type(block.weights) is type(original.weights)
        ours, theirs = reference.dense(block.weights), reference.dense(original.weights)
        assert_array_equal(ours > 0, theirs > 0)
        assert np.isin(ours[ours > 0], SAMPLE).all()


@pytest.mark.parametrize("everywhere", [True, False])
@pytest.mark.parametrize("sparse", [True, False])
def test_inside_a_layer_weights_stay_above_the_diagonal(everywhere: bool, sparse: bool) -> None:
    graph = from_adjacency(chain_graph(random_chain(17, (12, 15, 10))).adjacency)
    (block,) = graph.blocks
    dense = reference.dense(block.weights)
    block = replace(block, weights=as_csr(dense) if sparse else dense)
    graph = with_initial(replace(graph, blocks=(block,)), Initial(SAMPLE, everywhere))
    (shuffled,) = shuffle(graph, "init").blocks
    found = reference.dense(shuffled.weights)
    assert everywhere <= issparse(shuffled.weights)
    n = graph.n_vertices
    wanted = np.triu(np.ones((n, n), np.bool_), k=1) if everywhere else dense > 0
    assert_array_equal(found > 0, wanted)


def test_seed_and_number_decide() -> None:
    graph = with_initial(chain_graph(random_chain(7, (12, 15, 10))), Initial(SAMPLE))

    def shuffled(seed: int, number: int) -> list[Any]:
        return [block.weights for block in shuffle(graph, "init", seed, number).blocks]

    for first, again, *others in zip(
        shuffled(3, 4), shuffled(3, 4), shuffled(3, 5), shuffled(4, 4), strict=True
    ):
        assert_array_equal(first, again)
        for other in others:
            assert not np.array_equal(first, other)


def test_trained_weights_have_no_say() -> None:
    one, two = (
        with_initial(chain_graph(random_chain(seed, (12, 15, 10))), Initial(SAMPLE))
        for seed in (1, 2)
    )
    for ours, theirs in zip(shuffle(one, "init").blocks, shuffle(two, "init").blocks, strict=True):
        assert_array_equal(ours.weights, theirs.weights)


def test_graphs_without_initialization_are_refused() -> None:
    graph = chain_graph(random_chain(7, (12, 15, 10)))
    message = r"^null: 'init' needs .*reset_parameters\(\).*of 'w0', 'w1' is unknown$"
    with pytest.raises(InputError, match=message):
        check_null_fits(graph, "init")
    with pytest.raises(InputError, match=message):
        shuffle(graph, "init")
    one = replace(graph.blocks[0], initial=Initial(SAMPLE))
    with pytest.raises(InputError, match=r"initialization of 'w1' is unknown$"):
        shuffle(replace(graph, blocks=(one, graph.blocks[1])), "init")
    check_null_fits(with_initial(graph, Initial(SAMPLE)), "init")
    check_null_fits(graph, "layer")


# Reading.

torch = pytest.importorskip("torch", reason="pip install 'ncut[torch]'")
from torch import nn  # noqa: E402
from torch.nn.utils import parametrizations, prune  # noqa: E402

from ncut.extract.readers.traced.initial import initial_weight  # noqa: E402


@pytest.fixture(autouse=True)
def _same_weights_in_every_run() -> None:
    torch.manual_seed(0)


def drawn(layer: Any) -> Any:
    """Weights of a linear layer as it is initialized, None if it does not tell."""
    draw = initial_weight(layer, np.transpose)
    return None if draw is None else draw(0)


def mlp(*sizes: int) -> Any:
    """A network whose weights are not those of any initialization."""
    torch.manual_seed(0)
    layers = [nn.Linear(n, m) for n, m in itertools.pairwise(sizes)]
    with torch.no_grad():
        for layer in layers:
            layer.weight.fill_(7.0).add_(torch.rand_like(layer.weight))
    return nn.Sequential(*(part for layer in layers for part in (layer, nn.ReLU())))


def initials(model: Any, **options: Any) -> list[Initial]:
    blocks: tuple[Block, ...] = read_graph(model, initial=True, **options).blocks
    found = [block.initial for block in blocks if block.initial is not None]
    assert len(found) == len(blocks)
    return found


def test_linear_layers_begin_uniform() -> None:
    model = mlp(100, 80, 20)
    for initial, fan_in in zip(initials(model), (100, 80), strict=True):
        assert initial.everywhere
        assert initial.sample.dtype == np.float32
        assert uniform_p(initial.sample, 1 / np.sqrt(fan_in)) > 0.01
    shuffled = shuffle(read_graph(model, initial=True), "init", seed=1)
    for block, fan_in in zip(shuffled.blocks, (100, 80), strict=True):
        assert uniform_p(block.weights, 1 / np.sqrt(fan_in)) > 0.01


def test_kernels_begin_as_sums_of_nine() -> None:
    model = nn.Sequential(nn.Conv2d(3, 40, 3), nn.ReLU(), nn.Conv2d(40, 50, 3))
    (initial,) = initials(model)
    assert initial.everywhere
    assert initial.sample.size == 40 * 50
    bound = 1 / np.sqrt(40 * 9)
    spread = bound * np.sqrt(9 / 12)
    assert abs(initial.sample.mean() - 4.5 * bound) < 4 * spread / np.sqrt(2000)
    assert initial.sample.std() == pytest.approx(spread, rel=0.1)


@pytest.mark.parametrize("norm", ["l1", "l2", "column-sum"])
def test_the_norm_is_that_of_the_graph(norm: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 40, 3), nn.ReLU(), nn.Conv2d(40, 50, 3))
    (untrained,) = read_graph(model, norm=norm).blocks
    (initial,) = initials(model, norm=norm)
    assert initial.sample.mean() == pytest.approx(untrained.weights.mean(), rel=0.05)


def test_after_a_flattened_convolution_edges_are_norms_over_positions() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 30, 3), nn.ReLU(), nn.Flatten(), nn.Linear(30 * 16, 40), nn.ReLU()
    )
    untrained = read_graph(model, scope="all")
    for initial, block in zip(initials(model, scope="all"), untrained.blocks, strict=True):
        assert initial.sample.size == np.prod(block.weights.shape)
        assert initial.sample.mean() == pytest.approx(
            reference.dense(block.weights).mean(), rel=0.1
        )


def test_of_groups_only_the_entries_inside_are_sampled() -> None:
    model = nn.Sequential(nn.Conv2d(3, 40, 3), nn.ReLU(), nn.Conv2d(40, 60, 3, groups=4))
    (initial,) = initials(model)
    assert not initial.everywhere
    assert initial.sample.size == 40 * 60 // 4
    assert (initial.sample > 0).all()
    graph = read_graph(model, initial=True)
    (block,), (original,) = shuffle(graph, "init").blocks, graph.blocks
    ours, theirs = reference.dense(block.weights), reference.dense(original.weights)
    assert_array_equal(ours > 0, theirs > 0)


def test_a_batch_norm_begins_at_one() -> None:
    def model(*norm: Any) -> Any:
        return nn.Sequential(nn.Linear(30, 20), *norm, nn.ReLU(), nn.Linear(20, 10))

    norm = nn.BatchNorm1d(20)
    with torch.no_grad():
        norm.weight.fill_(50.0)
    for with_norm, without in zip(initials(model(norm)), initials(model()), strict=True):
        assert_array_equal(with_norm.sample, without.sample)


def test_samples_are_bounded() -> None:
    (first, second) = initials(nn.Sequential(nn.Linear(600, 500), nn.ReLU(), nn.Linear(500, 9)))
    assert MAX_SAMPLE / 2 < first.sample.size <= MAX_SAMPLE
    assert second.sample.size == 4500
    assert uniform_p(first.sample, 1 / np.sqrt(600)) > 0.01


def test_layers_of_one_shape_begin_differently_and_twice_alike() -> None:
    model = mlp(30, 30, 30)
    one, two = initials(model)
    assert not np.array_equal(one.sample, two.sample)
    for first, again in zip((one, two), initials(model), strict=True):
        assert_array_equal(first.sample, again.sample)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_number_types(dtype: Any) -> None:
    for initial, fan_in in zip(initials(mlp(100, 80, 20).to(dtype)), (100, 80), strict=True):
        assert initial.sample.dtype == (np.float64 if dtype == torch.float64 else np.float32)
        assert initial.sample.mean() == pytest.approx(0.5 / np.sqrt(fan_in), rel=0.05)
    graph = read_graph(mlp(100, 80, 20).to(dtype), initial=True)
    assert all(block.weights.all() for block in shuffle(graph, "init").blocks)


# Layers that are not plain.


def pruned(layer: Any) -> Any:
    prune.l1_unstructured(layer, "weight", amount=0.7)
    return layer


def pruned_twice(layer: Any) -> Any:
    prune.random_unstructured(layer, "weight", amount=0.3)
    prune.ln_structured(layer, "weight", amount=2, n=2, dim=0)
    prune.random_unstructured(layer, "bias", amount=0.3)
    return layer


def pruned_and_run(layer: Any) -> Any:
    pruned(layer)(torch.ones(1, layer.in_features)).sum().backward()
    return layer


def with_a_hook(layer: Any) -> Any:
    # A generator cannot be copied.
    keep = (number for number in range(3))
    recorder = types.SimpleNamespace(keep=keep)
    layer.register_forward_hook(types.MethodType(lambda *_: None, recorder))
    return layer


@pytest.mark.parametrize(
    "change",
    [
        pruned,
        pruned_twice,
        pruned_and_run,
        with_a_hook,
        parametrizations.weight_norm,
        parametrizations.spectral_norm,
        parametrizations.orthogonal,
    ],
)
def test_masks_and_parametrizations_are_not_part_of_it(change: Any) -> None:
    model, changed = mlp(100, 80, 20), mlp(100, 80, 20)
    change(changed[0])
    for plain, ours in zip(initials(model), initials(changed), strict=True):
        # Sorted, because some parametrizations leave the weight transposed in memory.
        assert_array_equal(np.sort(ours.sample), np.sort(plain.sample))


class Wide(nn.Linear):
    def reset_parameters(self) -> None:
        nn.init.uniform_(self.weight, -3, 3)


class Untold(nn.Linear):
    def reset_parameters(self) -> None:
        if not hasattr(self, "made"):
            self.made = super().reset_parameters()


class Failing(nn.Linear):
    def reset_parameters(self) -> None:
        if hasattr(self, "made"):
            raise RuntimeError("only once")
        self.made = True
        super().reset_parameters()


def test_layers_may_have_their_own_initialization() -> None:
    weight = drawn(Wide(50, 40))
    assert weight is not None
    assert weight.shape == (50, 40)
    assert uniform_p(np.abs(weight), 3) > 0.01


@pytest.mark.parametrize("layer", [Untold, Failing])
def test_layers_of_unknown_activation(layer: Any) -> None:
    assert drawn(layer(5, 4)) is None
    assert drawn(nn.ReLU()) is None


def test_a_function_on_the_layer_itself_is_not_called() -> None:
    model = mlp(5, 4, 3)
    # On a copy of the layer, it would still change the layer.
    model[0].reset_parameters = lambda: nn.init.zeros_(model[0].weight)
    graph = read_graph(model, initial=True)
    assert [block.initial is None for block in graph.blocks] == [True, False]
    assert (model[0].weight >= 7).all()
    with pytest.raises(InputError, match=r"initialization of '0' is unknown$"):
        shuffle(graph, "init")


# Whole analyses.


@pytest.mark.parametrize("make", [lambda: mlp(30, 20, 20, 10), lambda: nn.Sequential(
    nn.Conv2d(3, 20, 3), nn.ReLU(), nn.Conv2d(20, 30, 3), nn.ReLU(), nn.Flatten(), nn.Linear(30, 9)
)])  # fmt: skip
def test_analyses(make: Any) -> None:
    report = analyze(make(), null="init", k=3, shuffles=5)
    assert report.null == "init"
    assert report.n_shuffles == 5
    assert all(np.isfinite(x.shuffled).all() for x in report.statistics.values())


def test_a_graph_that_was_read_with_initial_can_be_analyzed() -> None:
    model = mlp(30, 20, 10)
    graph = read_graph(model, initial=True)
    ours, theirs = (analyze(x, null="init", k=3, shuffles=5) for x in (graph, model))
    for name, statistic in ours.statistics.items():
        assert_array_equal(statistic.shuffled, theirs.statistics[name].shuffled)


def test_graphs_without_initialization_cannot_be_analyzed(tmp_path: Path) -> None:
    model = mlp(30, 20, 10)
    torch.save(model.state_dict(), tmp_path / "model.pt")
    np.save(tmp_path / "0.npy", np.ones((4, 3)))
    np.save(tmp_path / "1.npy", np.ones((3, 2)))
    read_graph(model, initial=True).save(tmp_path / "graph.npz")
    for source in (
        random_chain(1, (4, 3, 2)),
        [tmp_path / "0.npy", tmp_path / "1.npy"],
        model.state_dict(),
        tmp_path / "model.pt",
        str(tmp_path / "model.pt"),
        tmp_path / "graph.npz",
        read_graph(model),
        chain_graph(random_chain(1, (4, 3, 2))).adjacency,
    ):
        with pytest.raises(InputError, match=r"null='init'"):
            analyze(source, null="init", k=2, shuffles=2)


def test_only_layers_of_unknown_initialization_are_named() -> None:
    model = nn.Sequential(nn.Linear(9, 8), nn.ReLU(), Untold(8, 7), nn.ReLU(), Failing(7, 6))
    with pytest.raises(InputError, match=r"^null: 'init' .*initialization of '2', '4' is unknown$"):
        analyze(model, null="init", k=2, shuffles=2)
    assert analyze(model, null="layer", k=2, shuffles=2).n_shuffles == 2


class Standardized(nn.Conv2d):
    def _conv_forward(self, x: Any, weight: Any, bias: Any) -> Any:
        return super()._conv_forward(x, weight / weight.std(), bias)


class Doubled(nn.Linear):
    def __call__(self, x: Any) -> Any:
        return 2 * super().__call__(x)


def patched() -> Any:
    layer = nn.Conv2d(8, 8, 3)
    layer._conv_forward = lambda x, weight, bias: x
    return layer


def sums(weight: Any) -> Any:
    """Norms of a kernel's slices, (in, out)."""
    return weight.detach().abs().sum(dim=(2, 3)).numpy().T


@pytest.mark.parametrize("wrap", [lambda layer: layer, parametrizations.weight_norm])
def test_weights_that_the_forward_pass_computes_have_no_initialization(wrap: Any) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), wrap(Standardized(8, 9, 3)))
    (block,) = read_graph(model, initial=True).blocks
    expected = sums(model[2].weight / model[2].weight.std())
    np.testing.assert_allclose(reference.dense(block.weights), expected, rtol=1e-5)
    assert block.initial is None
    with pytest.raises(InputError, match=r"initialization of '2' is unknown$"):
        analyze(model, null="init", k=2, shuffles=2)


def test_a_layer_that_is_called_another_way() -> None:
    model = nn.Sequential(Doubled(3, 8), nn.Linear(8, 9))
    first, second = read_graph(model, initial=True).blocks
    assert_array_equal(first.weights, 2 * model[0].weight.detach().abs().numpy().T)
    assert_array_equal(second.weights, model[1].weight.detach().abs().numpy().T)
    assert first.initial is not None


def test_a_layer_whose_weights_are_not_used_is_not_in_the_graph() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), patched(), nn.Conv2d(8, 9, 3))
    graph = read_graph(model)
    assert [layer.name for layer in graph.layers] == ["0", "2"]
    np.testing.assert_allclose(
        reference.dense(graph.blocks[0].weights), sums(model[2].weight), rtol=1e-5
    )
    assert {item.name: item.reason for item in graph.left_out}["1.weight"] == (
        "the forward pass does not use it"
    )


def test_a_subclass_is_drawn_from_its_own_initialization() -> None:
    model = nn.Sequential(nn.Linear(60, 50), nn.ReLU(), Wide(50, 40))
    one, two = shuffle(read_graph(model, initial=True), "init", seed=1).blocks
    assert uniform_p(one.weights, 1 / np.sqrt(60)) > 0.01
    assert uniform_p(two.weights, 3) > 0.01


@pytest.mark.parametrize("density", [0.5, 0.1])
def test_a_pruned_network_is_compared_with_one_that_is_not(density: float) -> None:
    model = mlp(60, 50, 40)
    for layer in model[::2]:
        prune.random_unstructured(layer, "weight", amount=1 - density)
    graph = read_graph(model, initial=True)
    connected, _ = graph.without_isolated()
    shuffled = shuffle(graph, "init")
    assert shuffled.layers == connected.layers
    for block in shuffled.blocks:
        assert isinstance(block.weights, np.ndarray)
        assert block.weights.all()


def test_kernels_of_groups_are_drawn_from_their_own_sums() -> None:
    model = nn.Sequential(nn.Conv2d(3, 40, 3), nn.ReLU(), nn.Conv2d(40, 40, 3, groups=40))
    (block,) = shuffle(read_graph(model, initial=True), "init").blocks
    weights = reference.dense(block.weights)
    assert_array_equal(weights > 0, np.eye(40) > 0)
    # Sums of nine magnitudes that are uniform up to 1 / 3.
    assert weights[weights > 0].mean() == pytest.approx(1.5, abs=4 * np.sqrt(9 / 108 / 40))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_an_untrained_network_is_one_of_its_shuffles(kind: str, seed: int) -> None:
    torch.manual_seed(100 + seed)
    if kind == "linear":
        parts = [nn.Linear(60, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 20)]
    else:
        parts = [nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.ReLU()]
        parts += [nn.Conv2d(32, 32, 3)]
    report = analyze(nn.Sequential(*parts), null="init", k=4, shuffles=40)
    # Measures without the noise of k-means: the bound is a sum of eigenvalues.
    for name in ("lower_bound", "refined_ncut", "spectral_ncut"):
        z = report.statistics[name].z_score
        assert z is not None
        assert abs(z) < 4


def test_weights_of_another_distribution_are_noticed() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(60, 40), nn.ReLU(), nn.Linear(40, 40))
    with torch.no_grad():
        for layer in model[::2]:
            layer.weight.copy_(torch.randn_like(layer.weight) ** 3)
    z = analyze(model, null="init", k=4, shuffles=20).statistics["lower_bound"].z_score
    assert z is not None
    assert z < -10


# What it must not touch.


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("change", [None, pruned, parametrizations.spectral_norm])
def test_the_model_is_left_unchanged(change: Any, training: bool) -> None:
    model = mlp(30, 20, 10)
    if change is not None:
        change(model[0])
    model.train(training)
    weight = model[0].weight
    before = copy.deepcopy(model.state_dict())
    attributes = [set(vars(part)) for part in model.modules()]
    parameters = [id(parameter) for parameter in model.parameters()]
    random = torch.get_rng_state()
    numpy_random: Any = np.random.get_state()  # noqa: NPY002
    read_graph(model, initial=True)
    assert_array_equal(random.numpy(), torch.get_rng_state().numpy())
    assert_array_equal(numpy_random[1], np.random.get_state()[1])  # noqa: NPY002
    assert all(part.training == training for part in model.modules())
    after = model.state_dict()
    assert after.keys() == before.keys()
    for name, value in before.items():
        assert_array_equal(after[name].numpy(), value.numpy())
    assert [set(vars(part)) for part in model.modules()] == attributes
    assert [id(parameter) for parameter in model.parameters()] == parameters
    if change is not parametrizations.spectral_norm:
        assert model[0].weight is weight


def test_it_is_done_on_request_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(layer: Any) -> None:
        raise AssertionError("not asked for")

    model = mlp(5, 4, 3)
    monkeypatch.setattr(nn.Linear, "reset_parameters", refuse)
    assert all(block.initial is None for block in read_graph(model).blocks)


@pytest.mark.parametrize(
    "model", [random_chain(1, (4, 3, 2)), mlp(4, 3, 2).state_dict(), chain_graph([np.ones((2, 2))])]
)
def test_only_modules_have_an_initialization(model: Any) -> None:
    with pytest.raises(InputError, match=r"^initial: only a torch module tells .*null='init'"):
        read_graph(model, initial=True)
