"""Normalization layers and parametrized weights of PyTorch modules."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from ncut.extract import read_graph

torch = pytest.importorskip("torch", reason="pip install 'ncut[torch]'")
from module_nets import Doubled, dense, factor, layers_of, magnitude, trained  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn.utils import parametrizations, parametrize, prune  # noqa: E402


@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm_after_a_linear_layer_scales_its_outputs(affine):
    model = nn.Sequential(
        nn.Linear(3, 4), nn.Dropout(), trained(nn.BatchNorm1d(4, affine=affine)), nn.ReLU(),
        nn.Linear(4, 2),
    )  # fmt: skip
    graph = read_graph(model)
    assert_allclose(dense(graph, 0), magnitude(model[0]) * factor(model[2]), rtol=1e-6)
    assert_array_equal(dense(graph, 1), magnitude(model[4]))


def test_batch_norm_after_an_activation_scales_the_next_layer():
    model = nn.Sequential(
        nn.Conv2d(1, 2, 2), nn.ReLU(), trained(nn.BatchNorm2d(2)), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(8, 3), nn.ReLU(), trained(nn.BatchNorm1d(3)), nn.Linear(3, 2),
    )  # fmt: skip
    graph = read_graph(model, scope="all")
    assert_allclose(dense(graph, 0), magnitude(model[0]), rtol=1e-6)
    by_channel = magnitude(model[5]).reshape(2, 4, 3).sum(axis=1)
    assert_allclose(dense(graph, 1), by_channel * factor(model[2])[:, None], rtol=1e-6)
    assert_allclose(dense(graph, 2), magnitude(model[8]) * factor(model[7])[:, None], rtol=1e-6)


def test_batch_norm_on_the_input_scales_the_first_layer():
    model = nn.Sequential(trained(nn.BatchNorm1d(3)), nn.Linear(3, 4), nn.Linear(4, 2))
    graph = read_graph(model)
    assert_allclose(dense(graph, 0), magnitude(model[1]) * factor(model[0])[:, None], rtol=1e-6)


def test_batch_norm_over_flattened_features_scales_each_feature():
    model = nn.Sequential(
        nn.Conv1d(1, 2, 1), nn.Flatten(), trained(nn.BatchNorm1d(6)), nn.Linear(6, 3)
    )
    graph = read_graph(model, scope="all")
    # The features of a channel have different factors, so that it is not the channel's own.
    assert_allclose(dense(graph, 0), magnitude(model[0]), rtol=1e-6)
    scaled = magnitude(model[3]) * factor(model[2])[:, None]
    assert_allclose(dense(graph, 1), scaled.reshape(2, 3, 3).sum(axis=1), rtol=1e-6)


def test_factors_that_differ_by_position_are_left_out():
    model = nn.Sequential(nn.Linear(4, 3), trained(nn.BatchNorm1d(6)), nn.Linear(3, 2))
    graph = read_graph(model, example_inputs=torch.zeros(2, 6, 4))
    assert_array_equal(dense(graph, 0), magnitude(model[0]))
    assert_array_equal(dense(graph, 1), magnitude(model[2]))
    (item,) = graph.left_out
    assert (item.name, item.shape) == ("1.weight", (6,))
    assert "differs by position" in item.reason


def test_batch_norms_per_channel_and_per_feature_multiply():
    model = nn.Sequential(
        nn.Conv1d(1, 2, 1), nn.ReLU(), trained(nn.BatchNorm1d(2)), nn.Flatten(),
        trained(nn.BatchNorm1d(6)), nn.Linear(6, 3),
    )  # fmt: skip
    graph = read_graph(model, scope="all")
    factors = np.repeat(factor(model[2]), 3) * factor(model[4])
    expected = (magnitude(model[5]) * factors[:, None]).reshape(2, 3, 3).sum(axis=1)
    assert_allclose(dense(graph, 1), expected, rtol=1e-6)


def test_two_batch_norms_after_a_layer_multiply():
    model = nn.Sequential(
        nn.Linear(2, 3), trained(nn.BatchNorm1d(3)), trained(nn.BatchNorm1d(3)), nn.Linear(3, 2)
    )
    expected = magnitude(model[0]) * factor(model[1]) * factor(model[2])
    assert_allclose(dense(read_graph(model), 0), expected, rtol=1e-6)


DATA_NORMS = [
    (lambda: nn.BatchNorm1d(3, track_running_stats=False), "data-dependent batch norm"),
    (lambda: nn.LayerNorm(3), "layer norm"),
    (lambda: nn.RMSNorm(3), "RMS norm"),
    (lambda: nn.GroupNorm(1, 3), "group norm"),
]


@pytest.mark.parametrize(("make", "kind"), DATA_NORMS)
@pytest.mark.parametrize("activated", [False, True])
def test_of_norms_by_the_data_gamma_is_folded_and_the_spread_is_noted(make, kind, activated):
    norm = make()
    gamma = torch.tensor([7.0, -0.5, 2.0])
    with torch.no_grad():
        norm.weight.copy_(gamma)
    between = [nn.ReLU(), norm] if activated else [norm, nn.ReLU()]
    model = nn.Sequential(nn.Linear(2, 3), *between, nn.Linear(3, 2))
    graph = read_graph(model)
    writer, reader = magnitude(model[0]), magnitude(model[3])
    if activated:
        reader = reader * gamma.abs().numpy()[:, None]
    else:
        writer = writer * gamma.abs().numpy()
    assert_allclose(dense(graph, 0), writer, rtol=1e-6)
    assert_allclose(dense(graph, 1), reader, rtol=1e-6)
    (item,) = graph.left_out
    assert (item.name, item.shape) == (kind, ())
    assert item.reason == "gamma is folded in; normalization by the data is not"


def test_norms_of_one_kind_are_noted_together():
    model = nn.Sequential(
        nn.Linear(2, 3), nn.LayerNorm(3), nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2)
    )
    assert [item.name for item in read_graph(model).left_out] == ["2 layer norms"]


def test_batch_norm_that_nothing_reads_is_noted():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2), nn.ReLU(), trained(nn.BatchNorm1d(2)))
    (item,) = read_graph(model).left_out
    assert (item.name, item.shape) == ("3.weight", (2,))
    assert item.reason == "no layer reads what it scales"


def test_pruned_weights_are_masked_even_before_a_forward_pass():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    prune.l1_unstructured(model[0], "weight", amount=0.5)
    with torch.no_grad():
        model[0].weight_orig.mul_(3)  # `weight` is out of date until the next forward pass
    graph = read_graph(model)
    expected = (model[0].weight_orig * model[0].weight_mask).detach().abs().numpy().T
    assert (expected == 0).sum() == 8
    assert_array_equal(dense(graph, 0), expected)


def test_parametrized_weights():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    plain = magnitude(model[0])
    parametrize.register_parametrization(model[0], "weight", Doubled())
    graph = read_graph(model)
    assert layers_of(graph) == [("input", 2), ("0", 3), ("1", 2)]
    assert_array_equal(dense(graph, 0), 2 * plain)


def test_reading_a_parametrization_does_not_update_its_state():
    model = nn.Sequential(parametrizations.spectral_norm(nn.Linear(5, 4)), nn.Linear(4, 2)).train()
    with torch.no_grad():
        model[0].parametrizations.weight.original.normal_()  # its state does not fit any more
    before = copy.deepcopy(model.state_dict())
    graph = read_graph(model)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert model[0].parametrizations.weight.training
    with torch.no_grad():
        assert_allclose(dense(graph, 0), magnitude(model.eval()[0]), rtol=1e-6)


def with_hook(function):
    """A layer whose weight a hook computes; its current weight is out of date."""
    layer = nn.Linear(4, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        function(layer)
    with torch.no_grad():
        for name in ("weight_g", "weight_v", "weight_orig"):
            if hasattr(layer, name):
                getattr(layer, name).mul_(3).add_(0.1)
    return layer


@pytest.mark.parametrize("function", [nn.utils.weight_norm, nn.utils.spectral_norm])
def test_weights_that_a_hook_computes_match_the_next_forward_pass(function):
    model = nn.Sequential(with_hook(function), nn.Linear(3, 2)).train()
    before, weight = copy.deepcopy(model.state_dict()), model[0].weight
    graph = read_graph(model)
    assert model[0].weight is weight
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert layers_of(graph) == [("input", 4), ("0", 3), ("1", 2)]
    model.eval()(torch.zeros(1, 4))
    assert not torch.equal(model[0].weight, weight)
    assert_allclose(dense(graph, 0), model[0].weight.detach().abs().numpy().T, rtol=1e-6)
    assert graph.left_out == ()
