"""`EigenvalueRegularizer` on networks that are in parts or about to fall apart."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator

import pytest
import torch
from regularized import cut_in_half, mlp

from ncut.training.regularizers import EigenvalueRegularizer


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_a_network_about_to_disconnect_is_reported_once() -> None:
    model = mlp(60, 60, 60)
    cut_in_half(model, 1e-6)
    regularizer = EigenvalueRegularizer(model)
    with pytest.warns(UserWarning, match=r"30 of 'input', 30 of '0', 30 of '2'") as caught:
        term = regularizer()
    assert len(caught) == 1
    assert caught[0].filename == __file__
    regularizer()  # another warning would be an error
    assert term.requires_grad


def test_inputs_cut_off_from_outputs_are_reported() -> None:
    model = mlp(60, 40, 40, 60)
    with torch.no_grad():
        model[2].weight *= 1e-7
    regularizer = EigenvalueRegularizer(model)
    with pytest.warns(UserWarning, match="inputs are on one side, outputs on the other"):
        regularizer()


def test_the_term_is_held_back_as_long_as_inputs_are_parted_from_outputs() -> None:
    model = mlp(60, 40, 40, 60)
    before = copy.deepcopy(model.state_dict())
    regularizer = EigenvalueRegularizer(model, disconnect="hold")
    assert regularizer().requires_grad
    with torch.no_grad():
        model[2].weight *= 1e-7
    with pytest.warns(UserWarning, match="cutting the network apart.*the term is held back"):
        assert not regularizer().requires_grad
    assert regularizer.log()["held_back"] == 1
    assert not regularizer().requires_grad
    model.load_state_dict(before)
    assert regularizer().requires_grad
    assert regularizer.log()["held_back"] == 0


def test_parallel_parts_do_not_hold_the_term_back() -> None:
    model = mlp(60, 60, 60)
    regularizer = EigenvalueRegularizer(model, range(2, 5), disconnect="hold")
    regularizer()
    cut_in_half(model, 1e-6)
    with pytest.warns(UserWarning, match="inputs still reach outputs"):
        assert regularizer().requires_grad
    assert regularizer().requires_grad


def test_initial_parts_do_not_hold_the_term_back() -> None:
    model = mlp(60, 60, 60)
    cut_in_half(model, 0.0)
    regularizer = EigenvalueRegularizer(model, range(2, 13), disconnect="hold")
    with pytest.warns(UserWarning, match="before the regularizer changed it"):
        assert regularizer().requires_grad
    assert all(regularizer().requires_grad for _ in range(40))


@pytest.mark.parametrize("kind", ["a faded input", "a faded hidden neuron", "a pair of neurons"])
def test_negligible_parts_do_not_count(kind: str) -> None:
    model = mlp(60, 60, 60)
    with torch.no_grad():
        if kind == "a faded input":
            model[0].weight[:, 0] *= 1e-9
        elif kind == "a faded hidden neuron":
            model[0].weight[0] *= 1e-9
            model[2].weight[:, 0] *= 1e-9
        else:  # that only see each other, as pruning leaves them
            model[0].weight[:, 0], model[0].weight[0], model[2].weight[:, 0] = 0, 0, 0
            model[0].weight[0, 0] = 1e-3
    regularizer = EigenvalueRegularizer(model, range(2, 13), disconnect="hold")
    assert all(regularizer().requires_grad for _ in range(20))  # a warning would be an error


def test_a_negligible_part_hides_no_other() -> None:
    model = mlp(60, 60, 60)
    with torch.no_grad():
        model[0].weight[:, 0], model[0].weight[0], model[2].weight[:, 0] = 0, 0, 0
        model[0].weight[0, 0] = 1e-3
    regularizer = EigenvalueRegularizer(model, range(2, 5), disconnect="hold")
    assert regularizer().requires_grad
    with torch.no_grad():
        model[2].weight *= 1e-7
        model[2].weight[:30, :30] = 1.0  # outputs and half of the hidden neurons, without inputs
        model[0].weight[:30] *= 1e-7
    with pytest.warns(UserWarning, match="outputs on the other; the term is held back"):
        assert not regularizer().requires_grad


def test_disconnection_may_be_ignored() -> None:
    model = mlp(60, 60, 60)
    cut_in_half(model, 1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert EigenvalueRegularizer(model, disconnect="ignore")().requires_grad


def test_a_vanishing_neuron_is_reported() -> None:
    model = mlp(60, 60, 60)
    regularizer = EigenvalueRegularizer(model)
    regularizer()
    with torch.no_grad():
        model[0].weight[5] *= 1e-9
        model[2].weight[:, 5] *= 1e-9
    with pytest.warns(UserWarning, match="a neuron of '0' has almost no weight left") as caught:
        assert all(regularizer().requires_grad for _ in range(40))
    assert [one.filename for one in caught] == [__file__]
    with torch.no_grad():
        model[0].weight[5] = 0
        model[2].weight[:, 5] = 0
    assert EigenvalueRegularizer(model)().requires_grad  # pruned away: no warning
