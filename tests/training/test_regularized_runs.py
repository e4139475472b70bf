"""Regularizers in a training run: steps, logs, states, copies."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from regularized import laplacian_values, mlp
from torch import Tensor, nn

import ncut
from ncut.errors import InputError
from ncut.training.normalize import normalize_
from ncut.training.regularizers import EigenvalueRegularizer


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def train(
    digits: tuple[Tensor, Tensor],
    make: Callable[[nn.Module], Callable[[], Tensor]] | None,
    steps: int = 200,
) -> tuple[nn.Sequential, float]:
    """A small network trained on digits, and its accuracy."""
    x, y = digits
    model = mlp(64, 48, 48, 10)
    term = make(model) if make is not None else None
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        batch = torch.randint(len(x), (128,), generator=generator)
        loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
        if term is not None:
            loss = loss + term()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model, float((model(x).argmax(1) == y).float().mean())


def test_training_with_it_makes_a_network_clusterable(digits: tuple[Tensor, Tensor]) -> None:
    kept = []

    def make(model: nn.Module) -> EigenvalueRegularizer:
        kept.append(EigenvalueRegularizer(model, weight=1.0, normalize=True))
        return kept[0]

    plain, accuracy = train(digits, None)
    ours, our_accuracy = train(digits, make)
    (regularizer,) = kept
    graphs = [ncut.graph(model) for model in (plain, ours)]
    values = [laplacian_values(graph)[1:4] for graph in graphs]
    assert (values[1] < 0.9 * values[0]).all()
    cuts = [ncut.cluster(graph, 4, seed=0).ncut for graph in graphs]
    assert cuts[1] < 0.95 * cuts[0]
    assert our_accuracy > accuracy - 0.05
    assert regularizer.n_restarts == 1
    assert regularizer.n_products <= 3


def bits(digits: tuple[Tensor, Tensor], threads: int, seed: int) -> list[np.ndarray]:
    torch.set_num_threads(threads)
    model, _ = train(digits, lambda m: EigenvalueRegularizer(m, seed=seed, normalize=True), 15)
    return [parameter.detach().numpy() for parameter in model.parameters()]


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(
    digits: tuple[Tensor, Tensor],
) -> None:
    one, again, other = bits(digits, 1, 0), bits(digits, 1, 0), bits(digits, 1, 7)
    for ours, theirs in zip(one, again, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert any((ours != theirs).any() for ours, theirs in zip(one, other, strict=True))


@pytest.mark.parametrize("normalize", [False, True])
def test_copies_of_the_model_work_on_their_own(normalize: bool) -> None:
    model = mlp(40, 50, 10)
    regularizer = EigenvalueRegularizer(model, normalize=normalize)
    regularizer()
    kept = model[0].weight.detach().clone()
    twin = copy.deepcopy(model)
    stored = io.BytesIO()
    torch.save(model, stored)
    stored.seek(0)
    loaded = torch.load(stored, weights_only=False)
    for other in (twin, loaded):
        with torch.no_grad():
            other[0].weight.mul_(3)
        other(torch.ones(2, 40))
        torch.testing.assert_close(model[0].weight, kept, rtol=0, atol=0)
    assert set(loaded.state_dict()) == set(mlp(40, 50, 10).state_dict())


def test_normalization_before_each_forward_pass_in_training_mode() -> None:
    model = mlp(40, 50, 10)
    regularizer = EigenvalueRegularizer(model, normalize=True)

    def norms() -> Tensor:
        return torch.cat([model[0].weight, model[0].bias[:, None]], dim=1).norm(dim=1)

    x = torch.ones(2, 40)
    torch.testing.assert_close(norms(), torch.full((50,), 2.0).sqrt())
    with torch.no_grad():
        model[0].weight *= 2
        expected = model.eval()(x)
    assert norms().min() > 1.5
    torch.testing.assert_close(model.train()(x), expected)
    torch.testing.assert_close(norms(), torch.full((50,), 2.0).sqrt())
    regularizer.remove()
    with torch.no_grad():
        model[0].weight *= 2
    model(x)
    assert norms().min() > 1.5


def test_the_term_may_be_computed_before_the_forward_pass() -> None:
    model = mlp(40, 50, 10)
    regularizer = EigenvalueRegularizer(model, normalize=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        loss = regularizer() + model(torch.ones(2, 40)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def test_normalizing_does_not_change_the_function_and_does_the_eigenvalues() -> None:
    model = mlp(40, 50, 30, 10).double()
    x = torch.randn(5, 40, dtype=torch.float64)
    expected = model(x).detach()
    normalize_(model)
    torch.testing.assert_close(model(x), expected)


MAKES: dict[str, Callable[[nn.Module], Any]] = {
    "eigenvalues": lambda model: EigenvalueRegularizer(model, weight=0.5),
    "every": lambda model: EigenvalueRegularizer(model, weight=0.5, every=7),
    "soft cut": lambda model: ncut.SoftCutRegularizer(model, 4, 0.5),
    "partition": lambda model: ncut.PartitionRegularizer(model, 4, 0.5, every=3),
}


def steps_of(model: nn.Module, regularizer: Any, optimizer: Any, steps: range) -> None:
    for number in steps:
        x = torch.randn(16, 40, generator=torch.Generator().manual_seed(number))
        optimizer.zero_grad()
        ((model(x) - x[:, :20]).square().mean() + regularizer()).backward()
        optimizer.step()


@pytest.mark.parametrize("name", MAKES)
def test_a_resumed_training_equals_an_uninterrupted_one(name: str) -> None:
    def made() -> tuple[nn.Module, Any, Any]:
        model = mlp(40, 50, 45, 20)
        return model, MAKES[name](model), torch.optim.Adam(model.parameters(), 1e-2)

    model, regularizer, optimizer = made()
    steps_of(model, regularizer, optimizer, range(20))
    file = io.BytesIO()
    torch.save([x.state_dict() for x in (model, regularizer, optimizer)], file)
    steps_of(model, regularizer, optimizer, range(20, 40))
    file.seek(0)
    again = made()
    for part, state in zip(again, torch.load(file, weights_only=True), strict=True):
        part.load_state_dict(state)
    steps_of(*again, range(20, 40))
    for ours, theirs in zip(model.parameters(), again[0].parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert again[1].log() == regularizer.log()


@pytest.mark.parametrize("name", MAKES)
def test_pickled_copies_belong_to_the_model_pickled_with_them(name: str) -> None:
    model = mlp(40, 50, 20)
    regularizer = MAKES[name](model)
    regularizer()
    found, copied = pickle.loads(pickle.dumps((model, regularizer)))
    assert copied.model is found
    assert copied.n_steps == regularizer.n_steps == 1
    with torch.no_grad():
        assert float(copied()) == pytest.approx(float(regularizer()), rel=1e-5)


def test_calls_without_gradients_are_no_steps() -> None:
    model = mlp(40, 50, 20)
    regularizer = EigenvalueRegularizer(model, weight=1.0, every=2)
    with torch.no_grad():
        value = float(regularizer())
    terms = []
    for _ in range(4):
        terms.append(float(regularizer().detach()))
        with torch.no_grad():
            assert float(regularizer()) == pytest.approx(value, rel=1e-4)
    np.testing.assert_allclose(terms, [2 * value, 0, 2 * value, 0], rtol=1e-4)
    assert regularizer.log()["value"] == pytest.approx(value, rel=1e-4)


def test_steps_may_be_begun_explicitly() -> None:
    regularizer = EigenvalueRegularizer(mlp(40, 50, 20), weight=1.0, every=2)
    there = []
    for _ in range(4):
        regularizer.step()
        there.append([float(regularizer().detach()) > 0 for _ in range(3)])
    assert there == [[True] * 3, [False] * 3] * 2
    assert regularizer.n_steps == 4


def test_a_schedule_of_the_weight() -> None:
    model = mlp(40, 50, 20)
    regularizer = EigenvalueRegularizer(model, weight=lambda step: 0.1 * step)
    constant = EigenvalueRegularizer(model, weight=np.float32(1.0))
    value = float(constant().detach())
    found = [float(regularizer().detach()) for _ in range(3)]
    np.testing.assert_allclose(found, [0, 0.1 * value, 0.2 * value], rtol=1e-3)
    assert regularizer.log()["weight"] == pytest.approx(0.2)
    constant.weight = torch.tensor(3.0)
    assert float(constant().detach()) == pytest.approx(3 * value, rel=1e-3)
    constant.weight = -1.0
    with pytest.raises(InputError, match=r"^weight: must be a number of at least 0"):
        constant()


def test_log_has_the_documented_values() -> None:
    regularizer = EigenvalueRegularizer(mlp(40, 50, 20), (2, 5), weight=0.3)
    term = float(regularizer().detach())
    log = regularizer.log()
    assert log["value"] == pytest.approx(term)
    assert log["value"] == pytest.approx(0.3 * (log["lambda_2"] + log["lambda_5"]) / 2, rel=1e-5)
    assert (log["step"], log["parts"], log["weight"], log["restarts"]) == (0, 1, 0.3, 1)
    assert log["products"] > 0


def test_another_model_is_refused() -> None:
    model = mlp(40, 50, 20)
    regularizer = EigenvalueRegularizer(model)
    assert regularizer(model).requires_grad
    with pytest.raises(InputError, match="must be the regularizer's own model"):
        regularizer(copy.deepcopy(model))


def test_a_state_of_another_kind_is_refused() -> None:
    model = mlp(40, 50, 20)
    state = ncut.PartitionRegularizer(model, 4).state_dict()
    with pytest.raises(InputError, match=r"^state: must have the keys"):
        EigenvalueRegularizer(model).load_state_dict(state)
