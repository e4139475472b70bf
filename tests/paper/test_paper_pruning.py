"""Pruning as the paper's networks were pruned, and the normalization that goes with it."""

from __future__ import annotations

import copy
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

torch = pytest.importorskip("torch", reason="pip install 'ncut[torch]'")
from torch import nn  # noqa: E402

from ncut.paper.networks import build, layers_of  # noqa: E402
from ncut.paper.normalization import ThresholdNormalization  # noqa: E402
from ncut.paper.pruning import Masks, sparsity  # noqa: E402

# --- the schedule -------------------------------------------------------------------------------


@given(step=st.integers(0, 3000), n_steps=st.integers(1, 2000))
def test_the_schedule_is_zhu_and_guptas(step, n_steps):
    left = max(Fraction(0), 1 - Fraction(step, n_steps))
    expected = Fraction(9, 10) + (Fraction(5, 10) - Fraction(9, 10)) * left**3
    assert sparsity(step, n_steps) == pytest.approx(float(expected), abs=1e-15)


def test_the_schedule_goes_from_a_half_to_nine_tenths_and_stays_there():
    shares = [sparsity(step, 200) for step in range(300)]
    assert shares[0] == pytest.approx(0.5)
    assert shares[200:] == [pytest.approx(0.9)] * 100
    assert (np.diff(shares[:201]) > 0).all()


@pytest.mark.parametrize(
    ("network", "channels", "steps_per_epoch", "epochs"),
    [
        ("mlp", 1, 469, 20),
        ("mlp", 1, 24, 100),  # 3,000 random images
        ("small-mlp", 1, 469, 10),
        ("polynomial-mlp", 1, 469, 20),
        ("small-cnn", 1, 938, 10),
        ("small-cnn", 2, 938, 10),
        ("vgg", 3, 390, 50),
    ],
)
def test_the_last_masks_of_the_papers_trainings_leave_a_tenth(
    network, channels, steps_per_epoch, epochs
):
    n_steps = steps_per_epoch * epochs
    last = (n_steps - 1) // 10 * 10
    with torch.device("meta"):
        layers = layers_of(build(network, False, channels))
    for layer in layers:
        n_weights = layer.weight.numel()
        assert round(n_weights * (1 - sparsity(last, n_steps))) == round(Fraction(n_weights, 10))


# --- masks --------------------------------------------------------------------------------------


def weights_of(*arrays):
    return [nn.Parameter(torch.as_tensor(array, dtype=torch.float32)) for array in arrays]


def largest(weights, n_left):
    """The mask of so many weights of the greatest magnitude, by a sort; zeros are never left."""
    magnitudes = np.abs(weights).ravel()
    kept = np.zeros(magnitudes.size, dtype=bool)
    kept[np.argsort(magnitudes, kind="stable")[magnitudes.size - n_left :]] = True
    return kept.reshape(weights.shape) & (weights != 0)


@given(
    shapes=st.lists(
        st.sampled_from([(10,), (11, 1), (4, 5), (7, 13), (3, 2, 3, 3), (64, 1, 3, 3)]),
        min_size=1,
        max_size=3,
    ),
    n_steps=st.integers(1, 400),
    renewal=st.integers(0, 40),
    seed=st.integers(0, 1000),
)
def test_masks_leave_the_greatest_weights_of_each_layer(shapes, n_steps, renewal, seed):
    generator = np.random.default_rng(seed)
    arrays = [generator.normal(size=shape).astype(np.float32) for shape in shapes]
    weights = weights_of(*arrays)
    masks = Masks(weights, n_steps)
    masks.renew(10 * renewal)
    share = sparsity(10 * renewal, n_steps)
    for array, mask, threshold in zip(arrays, masks.masks, masks.thresholds, strict=True):
        n_left = int(mask.sum())
        assert abs(n_left - array.size * (1 - share)) <= 0.5 + 1e-9
        assert_array_equal(mask.numpy() != 0, largest(array, n_left))
        assert_array_equal(mask.unique().numpy(), [0, 1])
        assert threshold == np.abs(array[mask.numpy() != 0]).min()
    masks.apply()
    for array, weight, mask in zip(arrays, weights, masks.masks, strict=True):
        assert_array_equal(weight.detach().numpy(), array * mask.numpy())


def test_each_layer_is_pruned_to_the_same_share():
    generator = np.random.default_rng(0)
    arrays = [1000 * generator.normal(size=(20, 10)), 0.001 * generator.normal(size=(20, 10))]
    masks = Masks(weights_of(*arrays), 100)
    masks.renew(0)
    assert [int(mask.sum()) for mask in masks.masks] == [100, 100]


@given(seed=st.integers(0, 1000), levels=st.integers(1, 6), step=st.sampled_from([0, 50, 100]))
def test_equal_weights_at_the_threshold_all_stay(seed, levels, step):
    array = np.random.default_rng(seed).integers(-levels, levels + 1, size=(8, 10)) / 8
    masks = Masks(weights_of(array), 100)
    masks.renew(step)
    n_left = round(array.size * (1 - sparsity(step, 100)))
    threshold = np.sort(np.abs(array), axis=None)[array.size - n_left]
    expected = (np.abs(array) >= threshold) & (array != 0)
    assert_array_equal(masks.masks[0].numpy() != 0, expected)
    assert masks.thresholds == [threshold]


def test_zeros_stay_pruned_where_there_are_more_than_asked_for():
    array = np.zeros((10, 10))
    array[0, :7] = [1, -2, 3, -4, 5, -6, 7]
    weights = weights_of(array)
    masks = Masks(weights, 100)
    masks.renew(0)
    assert_array_equal(masks.masks[0].numpy() != 0, array != 0)
    assert masks.thresholds == [0.0]
    with torch.no_grad():
        weights[0] += 1
    masks.apply()
    assert int(weights[0].count_nonzero()) == 7


def test_all_zero_weights_are_no_error():
    masks = Masks(weights_of(np.zeros((5, 4))), 10)
    masks.renew(0)
    masks.apply()
    assert not masks.masks[0].any()


def test_masks_are_made_anew_in_every_tenth_step_alone():
    generator = np.random.default_rng(0)
    weights = weights_of(generator.normal(size=(30, 10)))
    masks = Masks(weights, 60)
    assert masks.thresholds == [0.0]
    assert bool(masks.masks[0].all())
    changed = []
    for step in range(60):
        before = masks.masks[0].clone()
        with torch.no_grad():
            weights[0].copy_(torch.from_numpy(generator.normal(size=(30, 10))))
        masks.renew(step)
        if not torch.equal(before, masks.masks[0]):
            changed.append(step)
            n_left = round(300 * (1 - sparsity(step, 60)))
            expected = largest(weights[0].detach().numpy(), n_left)
            assert_array_equal(masks.masks[0].numpy() != 0, expected)
    assert changed == [0, 10, 20, 30, 40, 50]


def test_a_pruned_weight_comes_back_if_it_has_grown():
    weights = weights_of(np.arange(1, 21).reshape(4, 5))
    masks = Masks(weights, 1000)
    masks.renew(0)
    masks.apply()
    assert_array_equal(weights[0].detach().numpy().ravel()[:10], 0)
    with torch.no_grad():
        weights[0][0, 0] = -100.0
    masks.renew(10)
    masks.apply()
    kept = weights[0].detach().numpy().ravel()
    assert kept[0] == -100
    assert_array_equal(kept[1:11], 0)
    assert_array_equal(kept[11:], np.arange(12, 21))


def test_parameters_are_changed_in_place_outside_of_autograd():
    layer = nn.Linear(10, 6)
    address = layer.weight.data_ptr()
    masks = Masks([layer.weight], 100)
    masks.renew(0)
    loss = layer(torch.ones(2, 10)).sum()
    masks.apply()
    assert layer.weight.data_ptr() == address
    assert layer.weight.is_leaf
    assert layer.weight.requires_grad
    assert int(layer.weight.count_nonzero()) == 30
    loss.backward()
    assert_allclose(layer.weight.grad.numpy(), 2)


def test_the_memory_format_of_a_weight_does_not_matter():
    torch.manual_seed(0)
    plain = nn.Conv2d(8, 6, 3)
    last = copy.deepcopy(plain).to(memory_format=torch.channels_last)
    for layer in (plain, last):
        masks = Masks([layer.weight], 100)
        masks.renew(50)
        masks.apply()
    assert last.weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(plain.weight, last.weight)


# --- the authors' normalization -----------------------------------------------------------------


def pruned_mlp(seed=0, step=0):
    """A small MLP with biases, and its masks after a renewal."""
    torch.manual_seed(seed)
    model = build("small-mlp")
    for layer in layers_of(model):
        nn.init.normal_(layer.bias, std=0.1)
    masks = Masks([layer.weight for layer in layers_of(model)], 100)
    masks.renew(step)
    masks.apply()
    return model, masks


def arrays_of(model):
    """Weights, (inputs, outputs) as in Keras, and biases, in double precision."""
    layers = layers_of(model)
    weights = [layer.weight.detach().double().numpy().T.copy() for layer in layers]
    return weights, [layer.bias.detach().double().numpy().copy() for layer in layers]


def normalized_by_loops(weights, biases, scales):
    """Algorithm 2 of the paper, with scales[i] in place of the mask of layer i's weights."""
    for i in range(len(weights) - 1):
        for n in range(weights[i].shape[1]):
            entries = [*(scales[i] * weights[i][:, n]), biases[i][n]]
            x = math.sqrt(sum(entry**2 for entry in entries)) / math.sqrt(2)
            if x != 0:
                weights[i][:, n] /= x
                biases[i][n] /= x
            weights[i + 1][n, :] *= x
    return weights, biases


@pytest.mark.parametrize("step", [0, 50, 100])
def test_the_normalization_is_algorithm_2_with_the_threshold_as_mask(step):
    model, masks = pruned_mlp(step=step)
    expected = normalized_by_loops(*arrays_of(model), masks.thresholds)
    ThresholdNormalization(model, masks).apply_()
    for found, wanted in zip(arrays_of(model), expected, strict=True):
        for a, b in zip(found, wanted, strict=True):
            assert_allclose(a, b, rtol=2e-5, atol=1e-12)


def test_before_the_first_mask_the_threshold_is_0():
    model, _ = pruned_mlp()
    masks = Masks([layer.weight for layer in layers_of(model)], 100)
    expected = normalized_by_loops(*arrays_of(model), [0.0] * 4)
    ThresholdNormalization(model, masks).apply_()
    for found, wanted in zip(arrays_of(model), expected, strict=True):
        for a, b in zip(found, wanted, strict=True):
            assert_allclose(a, b, rtol=2e-5, atol=1e-12)
    for bias in arrays_of(model)[1][:-1]:
        assert_allclose(np.abs(bias), math.sqrt(2), rtol=1e-5)


@pytest.mark.parametrize("step", [0, 100])
def test_the_networks_function_is_unchanged(step):
    model, masks = pruned_mlp(step=step)
    x = torch.rand(20, 49)
    before, weights = model(x), layers_of(model)[0].weight.detach().clone()
    ThresholdNormalization(model, masks).apply_()
    assert not torch.allclose(layers_of(model)[0].weight, weights)
    torch.testing.assert_close(model(x), before, rtol=1e-4, atol=1e-5)


def test_pruned_weights_stay_pruned_and_the_last_bias_unchanged():
    model, masks = pruned_mlp(step=50)
    bias = layers_of(model)[-1].bias.detach().clone()
    ThresholdNormalization(model, masks).apply_()
    assert torch.equal(layers_of(model)[-1].bias, bias)
    for layer, mask in zip(layers_of(model), masks.masks, strict=True):
        assert_array_equal(layer.weight.detach().numpy() != 0, mask.numpy() != 0)


def test_normalized_again_with_the_same_masks_nothing_changes():
    model, masks = pruned_mlp(step=50)
    normalization = ThresholdNormalization(model, masks)
    normalization.apply_()
    before = [layer.weight.detach().clone() for layer in layers_of(model)]
    normalization.apply_()
    for layer, weight in zip(layers_of(model), before, strict=True):
        assert_allclose(layer.weight.detach().numpy(), weight.numpy(), rtol=1e-5)


def test_a_neuron_whose_norm_is_0_loses_its_outgoing_weights_and_nothing_else_changes():
    model, masks = pruned_mlp()
    first, second = layers_of(model)[:2]
    with torch.no_grad():
        first.weight[3] = 0
        first.bias[3] = 0
    x = torch.rand(20, 49)
    before = model(x)
    assert second.weight[:, 3].any()
    ThresholdNormalization(model, masks).apply_()
    assert not second.weight[:, 3].any()
    assert not first.weight[3].any()
    for layer in layers_of(model):
        assert layer.weight.isfinite().all()
        assert layer.bias.isfinite().all()
    torch.testing.assert_close(model(x), before, rtol=1e-4, atol=1e-5)
