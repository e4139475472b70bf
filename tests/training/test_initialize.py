"""clusterable_init_(): against a loop over weights, and its effect on the n-cut."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from models import Residual, Tied, batch_norm_cnn, cnn, drawn, mlp
from numpy.typing import NDArray
from torch import nn
from torch.nn.utils import parametrizations, prune

import ncut


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def factors(inputs: Any, outputs: Any, tags: int, beta: float) -> NDArray[np.float64]:
    """(outputs, inputs): the paper's rule, weight by weight."""
    found = np.empty((len(outputs), len(inputs)))
    for i, output in enumerate(outputs):
        for j, read in enumerate(inputs):
            found[i, j] = 1 + (1 - beta) * (tags - 1) if output == read else beta
    return found


def ratio(after: nn.Module, before: nn.Module) -> NDArray[np.float64]:
    """The factor of each weight, the same at all positions: (out, in)."""
    assert isinstance(after.weight, torch.Tensor)
    assert isinstance(before.weight, torch.Tensor)
    found = (after.weight / before.weight).detach().flatten(2 if after.weight.ndim > 2 else 1)
    if found.ndim == 3:
        torch.testing.assert_close(found, found[:, :, :1].expand_as(found))
        found = found[:, :, 0]
    return found.double().numpy()


@pytest.mark.parametrize(("tags", "beta"), [(10, 0.6), (3, 0.8), (1, 0.5), (4, 1.0)])
def test_mlp(tags: int, beta: float) -> None:
    model = mlp(7, 20, 15, 12)
    before = copy.deepcopy(model)
    given = ncut.clusterable_init_(model, tags, beta, seed=3)
    first, second, out = given.values()
    assert [len(found) for found in (first, second, out)] == [20, 15, 12]
    assert (out == np.arange(12) % tags).all()
    assert all(found.min() >= 0 and found.max() < tags for found in given.values())
    assert torch.equal(model[0].weight, before[0].weight)
    for at, inputs, outputs in ((2, first, second), (4, second, out)):
        expected = factors(inputs, outputs, tags, beta)
        np.testing.assert_allclose(ratio(model[at], before[at]), expected, rtol=1e-5)
    for at in (0, 2, 4):
        assert torch.equal(model[at].bias, before[at].bias)


def test_cnn() -> None:
    model = cnn(nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU(), nn.MaxPool2d(2))
    before = copy.deepcopy(model)
    first, second, out = ncut.clusterable_init_(model, 4, 0.8).values()
    assert [len(found) for found in (first, second, out)] == [8, 6, 3]
    assert torch.equal(model[0].weight, before[0].weight)
    assert torch.equal(model[1].weight, before[1].weight)
    expected = factors(first, second, 4, 0.8)
    np.testing.assert_allclose(ratio(model[3], before[3]), expected, rtol=1e-5)
    flattened = [tag for tag in second for _ in range(4)]  # four positions of each channel
    expected = factors(flattened, out, 4, 0.8)
    np.testing.assert_allclose(ratio(model[-1], before[-1]), expected, rtol=1e-5)


def test_grouped_convolution() -> None:
    model = cnn(nn.ReLU(), nn.Conv2d(8, 6, 3, groups=2), nn.ReLU())
    before = copy.deepcopy(model)
    first, second, _ = ncut.clusterable_init_(model, 3, 0.7).values()
    expected = np.concatenate([
        factors(first[:4], second[:3], 3, 0.7), factors(first[4:], second[3:], 3, 0.7)
    ])  # fmt: skip
    np.testing.assert_allclose(ratio(model[2], before[2]), expected, rtol=1e-5)


def test_transposed_convolution() -> None:
    model = cnn(nn.ReLU(), nn.ConvTranspose2d(8, 6, 3), nn.ReLU())
    before = copy.deepcopy(model)
    first, second, _ = ncut.clusterable_init_(model, 3, 0.7).values()
    expected = factors(first, second, 3, 0.7).T
    np.testing.assert_allclose(ratio(model[2], before[2]), expected, rtol=1e-5)


def test_only_weights_change_and_by_two_factors_only() -> None:
    for model in (batch_norm_cnn(), Residual(), Tied()):
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        options = {} if isinstance(model, Tied) else {"example_inputs": torch.zeros(1, 3, 12, 12)}
        if isinstance(model, Residual):
            options["residual"] = "readers"
        ncut.clusterable_init_(model, 4, 0.6, **options)
        n_changed = 0
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                assert torch.equal(parameter, before[name])
                continue
            found = np.unique((parameter / before[name]).detach().numpy().round(4))
            assert set(found.tolist()) <= set(np.float32([1, 0.6, 2.2]).round(4).tolist())
            n_changed += len(found) > 1 or found[0] != 1
        assert n_changed >= 2 - isinstance(model, Tied)


def test_mean_magnitude_is_kept_in_expectation() -> None:
    shares = []
    for seed in range(20):
        model = mlp(5, 100, 100, 10)
        before = copy.deepcopy(model)
        ncut.clusterable_init_(model, 10, 0.6, seed=seed)
        shares.append(
            float((model[2].weight.abs().mean() / before[2].weight.abs().mean()).detach())
        )
    assert np.mean(shares) == pytest.approx(1, abs=0.02)


def test_tags_depend_on_the_seed_alone() -> None:
    found = []
    for seed in (0, 0, 1):
        model = mlp(7, 20, 15, 12)
        given = ncut.clusterable_init_(model, seed=seed)
        found.append((model[2].weight.detach().clone(), next(iter(given.values()))))
    assert torch.equal(found[0][0], found[1][0])
    assert not torch.equal(found[0][0], found[2][0])
    assert (found[0][1] == found[1][1]).all()
    assert len(np.unique(found[0][1])) > 3


@pytest.mark.parametrize("convolutional", [False, True])
def test_networks_become_clusterable(convolutional: bool) -> None:
    if convolutional:
        model = drawn(nn.Sequential(
            nn.Conv2d(3, 40, 3), nn.ReLU(), nn.Conv2d(40, 40, 3), nn.ReLU(), nn.Conv2d(40, 40, 3),
            nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(40, 10),
        ))  # fmt: skip
    else:
        model = mlp(10, 60, 60, 60, 10)
    options: dict[str, Any] = {"k": 4, "shuffles": 20, "seed": 0}
    plain = ncut.analyze(model, **options)
    ncut.clusterable_init_(model, 4, 0.5)
    made = ncut.analyze(model, **options)
    assert made.ncut < plain.ncut - 0.2
    assert made.z_score < plain.z_score - 10
    assert made.z_score < -10
    assert made.p_value == pytest.approx(1 / 21)


def test_pruned_half_and_reordered_weights() -> None:
    plain = mlp(7, 20, 15, 12)
    expected = factors(*[*ncut.clusterable_init_(plain, 4, 0.6).values()][:2], 4, 0.6)
    pruned = mlp(7, 20, 15, 12)
    original = pruned[2].weight.detach().clone()
    prune.random_unstructured(pruned[2], "weight", 0.5)
    ncut.clusterable_init_(pruned, 4, 0.6)
    np.testing.assert_allclose((pruned[2].weight_orig / original).detach(), expected, rtol=1e-5)
    half = mlp(7, 20, 15, 12).to(torch.bfloat16)
    ncut.clusterable_init_(half, 4, 0.6)
    np.testing.assert_allclose((half[2].weight.float() / original).detach(), expected, rtol=0.02)
    image = cnn(nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU())
    other = copy.deepcopy(image).to(memory_format=torch.channels_last)
    ncut.clusterable_init_(image)
    ncut.clusterable_init_(other)
    torch.testing.assert_close(other[2].weight, image[2].weight, rtol=1e-6, atol=0)


@pytest.mark.parametrize(("options", "match"), [
    ({"tags": 0}, "tags"), ({"tags": 2.5}, "tags"), ({"tags": True}, "tags"),
    ({"beta": 0}, "beta"), ({"beta": 1.5}, "beta"), ({"beta": float("nan")}, "beta"),
    ({"beta": "half"}, "beta"), ({"seed": -1}, "seed"), ({"seed": "x"}, "seed"),
])  # fmt: skip
def test_arguments_out_of_range(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ncut.InputError, match=match):
        ncut.clusterable_init_(mlp(3, 4, 5), **options)


def test_models_that_do_not_fit() -> None:
    with pytest.raises(ncut.InputError, match="model"):
        ncut.clusterable_init_([torch.rand(3, 4)])  # type: ignore[arg-type]
    wrapped = mlp(6, 8, 7, 3)
    parametrizations.weight_norm(wrapped[2])
    before = wrapped(torch.ones(1, 6))
    with pytest.raises(ncut.InputError, match="computes its weight"):
        ncut.clusterable_init_(wrapped)
    assert torch.equal(wrapped(torch.ones(1, 6)), before)


def test_a_refused_model_is_unchanged() -> None:
    model = mlp(6, 8, 7, 3)
    before = copy.deepcopy(model.state_dict())
    parametrizations.weight_norm(model[4])
    with pytest.raises(ncut.InputError):
        ncut.clusterable_init_(model)
    assert all(
        torch.equal(model.state_dict()[name], before[name]) for name in ("0.weight", "2.weight")
    )
