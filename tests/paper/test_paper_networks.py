"""The paper's networks: layers, initial weights, dropout, and graphs."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from checks import check_uniform
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

import ncut

torch = pytest.importorskip("torch", reason="pip install 'ncut[torch]'")
from torch import nn  # noqa: E402

from ncut.paper.networks import (  # noqa: E402
    NETWORKS,
    Dropout,
    build,
    layers_of,
    without_batch_norm,
)

VGG_CHANNELS = (64, 64, 128, 128, 256, 256, 256, *[512] * 6)
POOLED = (1, 3, 6, 9, 12)
"""Convolutions of a VGG-16 that a pooling follows, counted from 0."""

VGG_DROPOUT = (0.3, None, 0.4, None, 0.4, 0.4, None, 0.4, 0.4, None, 0.4, 0.4, 0.5)
"""Liu and Deng's rate after each convolution."""

MLPS = {
    "mlp": (784, 256, 256, 256, 256, 10),
    "small-mlp": (49, 64, 64, 64, 10),
    "polynomial-mlp": (2, 256, 256, 256, 256, 512),
}
CNNS = [("small-cnn", 1), ("small-cnn", 2), ("vgg", 3)]
ALL = [*((name, 1) for name in MLPS), *CNNS]


def drawn(name, dropout=False, channels=1, seed=0):
    torch.manual_seed(seed)
    return build(name, dropout, channels)


def side(name):
    return 32 if name == "vgg" else 28


def images(name, channels, n=2):
    """Random inputs of the network's shape."""
    generator = torch.Generator().manual_seed(1)
    shape = (MLPS[name][0],) if name in MLPS else (channels, side(name), side(name))
    return torch.rand(n, *shape, generator=generator)


def summary(module):
    """A module in a word: its kind and its parameters."""
    if isinstance(module, nn.Linear):
        return ("dense", module.in_features, module.out_features)
    if isinstance(module, nn.Conv2d):
        assert (module.kernel_size, module.stride, module.padding) == ((3, 3), (1, 1), (1, 1))
        assert (module.groups, module.padding_mode) == (1, "zeros")
        return ("conv", module.in_channels, module.out_channels)
    if isinstance(module, nn.MaxPool2d):
        assert (module.kernel_size, module.stride, module.padding) == (2, 2, 0)
        return "pool"
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        # Keras's epsilon, and its momentum of 0.99 as torch counts it.
        assert (module.eps, module.momentum, module.affine) == (1e-3, pytest.approx(0.01), True)
        return ("norm", module.num_features)
    if isinstance(module, Dropout):
        return ("dropout", module.p)
    return {nn.ReLU: "relu", nn.Flatten: "flatten"}[type(module)]


def expected_mlp(widths, dropout):
    for n_in, n_out in itertools.pairwise(widths[:-1]):
        yield from (("dense", n_in, n_out), "relu")
        yield from [("dropout", 0.5)] * dropout
    yield ("dense", *widths[-2:])


def expected_cnn(channels, dropout):
    yield from (("conv", channels, 64), "relu", *[("dropout", 0.25)] * dropout)
    for _ in range(2):
        yield from (("conv", 64, 64), "relu", "pool", *[("dropout", 0.25)] * dropout)
    yield from ("flatten", ("dense", 64 * 7 * 7, 128), "relu", *[("dropout", 0.5)] * dropout)
    yield ("dense", 128, 10)


def expected_vgg(dropout):
    for number, (n_in, n_out) in enumerate(itertools.pairwise((3, *VGG_CHANNELS))):
        yield from (("conv", n_in, n_out), "relu", *["pool"] * (number in POOLED), ("norm", n_out))
        if dropout and VGG_DROPOUT[number]:
            yield ("dropout", VGG_DROPOUT[number])
    yield from ("flatten", ("dense", 512, 512), "relu", ("norm", 512))
    yield from [("dropout", 0.5)] * dropout
    yield from (("dense", 512, 512), "relu", ("dense", 512, 10))


# --- layers and weights -------------------------------------------------------------------------


@pytest.mark.parametrize("dropout", [False, True])
@pytest.mark.parametrize(("name", "channels"), ALL)
def test_layers_are_the_papers_in_their_order(name, channels, dropout):
    if name in MLPS:
        expected = expected_mlp(MLPS[name], dropout)
    else:
        expected = expected_vgg(dropout) if name == "vgg" else expected_cnn(channels, dropout)
    assert [summary(module) for module in drawn(name, dropout, channels)] == [*expected]


def test_settings_match_the_paper():
    found = {name: (each.epochs, each.batch, each.beta) for name, each in NETWORKS.items()}
    assert found == {
        "mlp": ((20, 20), 128, 0.6),
        "small-mlp": ((10, 10), 128, 0.6),
        "polynomial-mlp": ((20, 20), 128, 0.6),
        "small-cnn": ((10, 10), 64, 0.8),
        "vgg": ((200, 50), 128, 0.8),
    }
    assert [name for name, each in NETWORKS.items() if each.augment] == ["vgg"]
    assert [name for name, each in NETWORKS.items() if each.is_convolutional] == [
        "small-cnn",
        "vgg",
    ]
    assert {each.l1 for each in NETWORKS.values()} == {5e-5}
    assert {name: each.l2 for name, each in NETWORKS.items() if each.l2 != 5e-5} == {"vgg": 5e-4}
    assert {name: each.widths for name, each in NETWORKS.items() if each.widths} == MLPS


@pytest.mark.parametrize(
    ("name", "channels", "n_parameters"),
    [
        # Weights and biases counted by hand, layer by layer.
        ("mlp", 1, 784 * 256 + 3 * 256 * 256 + 256 * 10 + 4 * 256 + 10),
        ("small-mlp", 1, 49 * 64 + 2 * 64 * 64 + 64 * 10 + 3 * 64 + 10),
        ("polynomial-mlp", 1, 2 * 256 + 3 * 256 * 256 + 256 * 512 + 4 * 256 + 512),
        ("small-cnn", 1, 9 * (64 + 2 * 64 * 64) + 3136 * 128 + 1280 + 3 * 64 + 128 + 10),
        ("small-cnn", 2, 9 * (128 + 2 * 64 * 64) + 3136 * 128 + 1280 + 3 * 64 + 128 + 10),
        # VGG-16's convolutions have 14,714,688 parameters, and a batch norm two per channel.
        ("vgg", 3, 14_714_688 + 2 * 4224 + 2 * (512 * 512 + 512) + 2 * 512 + 5130),
    ],
)
def test_numbers_of_parameters(name, channels, n_parameters):
    for dropout in (False, True):
        model = drawn(name, dropout, channels)
        assert sum(parameter.numel() for parameter in model.parameters()) == n_parameters


@pytest.mark.parametrize(("name", "channels"), ALL)
def test_outputs_have_a_number_for_each_class(name, channels):
    outputs = drawn(name, True, channels)(images(name, channels))
    assert outputs.shape == (2, 512 if name == "polynomial-mlp" else 10)
    assert outputs.isfinite().all()


@pytest.mark.parametrize(("name", "channels"), ALL)
def test_weights_are_uniform_within_glorots_bounds_and_biases_zero(name, channels):
    layers = layers_of(drawn(name, False, channels))
    assert len(layers) == {"small-mlp": 4, "vgg": 16}.get(name, 5)
    for layer in layers:
        weight = layer.weight.detach().numpy()
        n_out, n_in, *window = weight.shape
        bound = math.sqrt(6 / (math.prod(window) * (n_in + n_out)))
        shares = np.bincount(((weight / bound + 1) * 10).astype(int).clip(0, 19).ravel())
        assert np.abs(weight).max() <= bound
        assert np.abs(weight).max() > 0.98 * bound
        check_uniform(shares)
        assert not layer.bias.detach().numpy().any()


def test_weights_are_drawn_from_torchs_generator_and_no_two_layers_share_them():
    first, same, other = (layers_of(drawn("mlp", seed=seed)) for seed in (0, 0, 1))
    for a, b, c in zip(first, same, other, strict=True):
        assert torch.equal(a.weight, b.weight)
        assert not torch.equal(a.weight, c.weight)
    assert not torch.equal(first[1].weight, first[2].weight)


@pytest.mark.parametrize(("name", "channels"), ALL)
def test_dropout_changes_no_first_weight(name, channels):
    without, with_ = (layers_of(drawn(name, dropout, channels)) for dropout in (False, True))
    for a, b in zip(without, with_, strict=True):
        assert torch.equal(a.weight, b.weight)


# --- dropout ------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.0, 0.25, 0.3, 0.4, 0.5, 0.9])
def test_dropout_drops_its_share_and_scales_the_rest(rate):
    torch.manual_seed(0)
    x = torch.rand(500, 401) + 0.5
    y = Dropout(rate)(x)
    kept = y != 0
    assert_allclose(y[kept].numpy(), (x[kept] / (1 - rate)).numpy(), rtol=1e-6)
    n_dropped = int((~kept).sum())
    if rate == 0:
        assert torch.equal(x, y)
    else:
        assert stats.binomtest(n_dropped, x.numel(), rate).pvalue > 1e-4


@pytest.mark.parametrize("rate", [0.25, 0.3, 0.5])
def test_every_quarter_of_a_random_word_is_unbiased_and_independent(rate):
    torch.manual_seed(1)
    dropped = (Dropout(rate)(torch.ones(4 * 60_000)) == 0).numpy().reshape(-1, 4)
    for quarter in dropped.T:
        assert stats.binomtest(int(quarter.sum()), len(quarter), rate).pvalue > 1e-4
    # All sixteen patterns of four neighbours, as often as if each were drawn by itself.
    patterns = np.bincount(dropped @ [8, 4, 2, 1], minlength=16)
    n_dropped = np.array([bin(pattern).count("1") for pattern in range(16)])
    check_uniform(patterns, rate**n_dropped * (1 - rate) ** (4 - n_dropped))
    # From one word to the next.
    follows = np.bincount(2 * dropped[:-1, 3] + dropped[1:, 0], minlength=4)
    shares = np.array([(1 - rate) ** 2, rate * (1 - rate), rate * (1 - rate), rate**2])
    check_uniform(follows, shares)


@pytest.mark.parametrize("shape", [(1,), (3, 5), (2, 3, 5, 7), (0, 4)])
def test_dropout_of_any_shape_and_memory_format(shape):
    torch.manual_seed(0)
    x = torch.ones(shape)
    if len(shape) == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    y = Dropout(0.5)(x)
    assert y.shape == x.shape
    assert set(y.unique().tolist()) <= {0.0, 2.0}


def test_examples_and_calls_get_masks_of_their_own():
    torch.manual_seed(0)
    drop = Dropout(0.5)
    x = torch.ones(2, 1000)
    first, second = drop(x), drop(x)
    pairs = [(first[0], first[1]), (first[0], second[0]), (first, second)]
    for a, b in pairs:
        assert stats.binomtest(int((a == b).sum()), a.numel(), 0.5).pvalue > 1e-4
    torch.manual_seed(0)
    assert torch.equal(drop(x), first)


def test_dropout_does_nothing_in_eval_mode_and_draws_nothing():
    drop = Dropout(0.5).eval()
    x = torch.rand(3, 4)
    torch.manual_seed(0)
    assert drop(x) is x
    expected = torch.rand(1, generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.rand(1), expected)


def test_gradients_go_through_the_mask():
    torch.manual_seed(0)
    x = torch.randn(40, 30, requires_grad=True)
    y = Dropout(0.3)(x)
    upstream = torch.randn(40, 30)
    y.backward(upstream)
    factors = torch.where(y == 0, 0.0, 1 / 0.7)
    assert_allclose(x.grad.numpy(), (upstream * factors).numpy(), rtol=1e-6)
    assert_allclose(y.detach().numpy(), (x.detach() * factors).numpy(), rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_dropout_keeps_the_type(dtype):
    torch.manual_seed(0)
    y = Dropout(0.25)(torch.ones(1000, dtype=dtype))
    assert y.dtype == dtype
    kept = y[y != 0].double().numpy()
    assert_allclose(kept, 1 / 0.75, rtol=float(torch.finfo(dtype).eps))


# --- graphs -------------------------------------------------------------------------------------


def dense(block):
    weights = block.weights
    return weights if isinstance(weights, np.ndarray) else weights.toarray()


@pytest.mark.parametrize("dropout", [False, True])
@pytest.mark.parametrize("name", list(MLPS))
def test_the_graph_of_an_mlp_has_all_its_weights(name, dropout):
    model = drawn(name, dropout)
    blocks = ncut.graph(model).blocks
    assert len(blocks) == len(MLPS[name]) - 1
    for block, layer in zip(blocks, layers_of(model), strict=True):
        assert_allclose(dense(block), np.abs(layer.weight.detach().numpy()).T, rtol=1e-6)


@pytest.mark.parametrize("dropout", [False, True])
@pytest.mark.parametrize(("name", "channels"), CNNS)
def test_the_graph_of_a_cnn_has_the_sums_of_its_kernels_between_hidden_channels(
    name, channels, dropout
):
    model = without_batch_norm(drawn(name, dropout, channels))
    graph = ncut.graph(model)
    convolutions = [layer for layer in layers_of(model) if isinstance(layer, nn.Conv2d)]
    assert [layer.size for layer in graph.layers] == [c.out_channels for c in convolutions]
    for block, layer in zip(graph.blocks, convolutions[1:], strict=True):
        kernels = np.abs(layer.weight.detach().numpy())
        assert_allclose(dense(block), kernels.sum(axis=(2, 3)).T, rtol=1e-5)


@pytest.mark.parametrize("dropout", [False, True])
def test_batch_norm_is_in_the_graph_of_a_vgg_unless_it_is_left_out(dropout):
    model = drawn("vgg", dropout, 3).eval()
    norms = [module for module in model if isinstance(module, nn.BatchNorm2d)]
    generator = torch.Generator().manual_seed(2)
    for norm in norms:
        norm.weight.data = torch.rand(norm.num_features, generator=generator) + 0.5
        norm.running_var = torch.rand(norm.num_features, generator=generator) + 0.5
    with_, without = ncut.graph(model), ncut.graph(without_batch_norm(model))
    assert [layer.size for layer in with_.layers] == list(VGG_CHANNELS)
    # A batch norm scales the channels that the next convolution reads.
    for norm, a, b in zip(norms, with_.blocks, without.blocks, strict=False):
        scale = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach().numpy()
        assert_allclose(dense(a), dense(b) * scale[:, None], rtol=1e-4)


# --- without batch norm -------------------------------------------------------------------------


def test_without_batch_norm_shares_weights_and_leaves_the_network_alone():
    model = drawn("vgg", True, 3)
    before = [*model]
    bare = without_batch_norm(model)
    assert [*model] == before
    kinds = nn.BatchNorm1d | nn.BatchNorm2d
    assert [*bare] == [module for module in model if not isinstance(module, kinds)]
    for a, b in zip(layers_of(model), layers_of(bare), strict=True):
        assert a.weight is b.weight
    with torch.no_grad():
        layers_of(model)[3].weight.fill_(0.25)
    assert_array_equal(layers_of(bare)[3].weight.detach().numpy(), 0.25)


def test_networks_without_batch_norm_are_the_same_without_it():
    model = drawn("small-cnn", True)
    assert [*without_batch_norm(model)] == [*model]


def test_layers_of_leaves_batch_norm_out():
    layers = layers_of(drawn("vgg", True, 3))
    assert [type(layer).__name__ for layer in layers] == ["Conv2d"] * 13 + ["Linear"] * 3
