"""The penalty of small eigenvalues, as an optimizer meets it."""

from __future__ import annotations

import copy
import io
import os
import pickle
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

import ncut
from ncut.errors import InputError
from ncut.training.normalize import normalize_
from ncut.training.pruning import PolynomialPruning
from ncut.training.regularizers import EigenvalueRegularizer


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def mlp(*widths: int, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(widths):
        layers += [nn.Linear(n_in, n_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def weights_of(model: nn.Module) -> list[Tensor]:
    return [module.weight for module in model.modules() if isinstance(module, nn.Linear)]


def dense_eigenvalues(weights: list[Tensor]) -> Tensor:
    """Those of a chain's Laplacian, ascending, by autograd through the whole matrix."""
    sizes = [weights[0].shape[1], *(weight.shape[0] for weight in weights)]
    rows = []
    for layer in range(len(sizes)):
        row = [torch.zeros(sizes[layer], size, dtype=torch.float64) for size in sizes]
        if layer:
            row[layer - 1] = weights[layer - 1].double().abs()
        if layer < len(weights):
            row[layer + 1] = weights[layer].double().abs().T
        rows.append(torch.cat(row, dim=1))
    adjacency = torch.cat(rows)
    scale = adjacency.sum(1).rsqrt()
    eye = torch.eye(len(adjacency), dtype=torch.float64)
    return torch.linalg.eigvalsh(eye - scale[:, None] * adjacency * scale)


def laplacian_values(graph: Any) -> np.ndarray:
    """Eigenvalues of a graph's normalized Laplacian, ascending, by LAPACK."""
    adjacency = graph.adjacency.toarray()
    scale = adjacency.sum(axis=1) ** -0.5
    values = np.linalg.eigvalsh(np.eye(len(adjacency)) - scale[:, None] * adjacency * scale)
    return np.asarray(values)


def cut_in_half(model: nn.Module, link: float) -> None:
    """Make the weights between two halves of every layer as weak as the factor given."""
    with torch.no_grad():
        for weight in weights_of(model):
            rows, columns = (torch.arange(n) < n // 2 for n in weight.shape)
            weight[rows[:, None] != columns] *= link


@pytest.mark.parametrize("widths", [(12, 10, 6), (64, 50, 40, 10)], ids=str)
@pytest.mark.parametrize("numbers", [(2, 3, 4), (2,), (1, 3, 6)], ids=str)
def test_the_term_is_the_weight_times_the_mean(
    widths: tuple[int, ...], numbers: tuple[int, ...]
) -> None:
    model = mlp(*widths).double()
    regularizer = EigenvalueRegularizer(model, numbers, weight=0.3, tolerance=1e-8)
    term = regularizer()
    expected = laplacian_values(ncut.graph(model))[[number - 1 for number in numbers]]
    assert term.shape == ()
    np.testing.assert_allclose(regularizer.eigenvalues, expected, atol=1e-12)
    assert float(term.detach()) == pytest.approx(0.3 * expected.mean(), abs=1e-12)


@pytest.mark.parametrize("widths", [(12, 10, 6), (64, 50, 40, 10)], ids=str)
def test_the_gradient_is_that_of_the_dense_matrix(widths: tuple[int, ...]) -> None:
    model = mlp(*widths).double()
    regularizer = EigenvalueRegularizer(model, weight=0.3, tolerance=1e-9)
    found = torch.autograd.grad(regularizer(), weights_of(model))
    term = 0.3 * dense_eigenvalues(weights_of(model))[1:4].mean()
    expected = torch.autograd.grad(term, weights_of(model))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-9)
    assert model[0].bias.grad is None


def test_the_default_tolerance_gives_the_gradient_to_a_few_percent() -> None:
    model = mlp(64, 50, 40, 10)
    cut_in_half(model, 0.3)
    found = torch.autograd.grad(EigenvalueRegularizer(model, (2,))(), weights_of(model))
    expected = torch.autograd.grad(0.1 * dense_eigenvalues(weights_of(model))[1], weights_of(model))
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours - theirs).norm() < 0.03 * theirs.norm()


@pytest.mark.parametrize("width", [1100, pytest.param(2048, marks=pytest.mark.slow)])
def test_wide_layers_that_are_not_trained_converge(width: int) -> None:
    model = mlp(width, width, width)
    regularizer = EigenvalueRegularizer(model, (2,))
    regularizer()
    regularizer()
    assert regularizer.n_restarts == 1
    assert regularizer.n_products <= 3
    C = torch.cat([model[0].weight, model[2].weight.T], dim=1).detach().abs().double()
    C /= torch.outer(C.sum(1), C.sum(0)).sqrt()
    expected = 1 - torch.linalg.eigvalsh(C @ C.T)[-2].sqrt()
    assert regularizer.eigenvalues[0] == pytest.approx(float(expected), abs=1e-3)


@pytest.mark.parametrize("link", [1.0, 0.0])
def test_layers_of_equal_weights_converge(link: float) -> None:
    model = mlp(200, 64, 10)
    with torch.no_grad():
        for weight in weights_of(model):
            weight.fill_(0.1)
    cut_in_half(model, link)
    regularizer = EigenvalueRegularizer(model, disconnect="ignore")
    regularizer().backward()
    np.testing.assert_allclose(regularizer.eigenvalues, [link, 1, 1], atol=1e-3)
    assert all(torch.isfinite(weight.grad).all() for weight in weights_of(model))


def test_more_eigenvalues_than_connected_neurons_are_no_index_error() -> None:
    model = mlp(2, 3, 1)
    with torch.no_grad():
        model[0].weight[1:] = 0
        model[0].weight[:, 1] = 0
        model[2].weight[:, 1:] = 0
    regularizer = EigenvalueRegularizer(model, disconnect="ignore")
    regularizer()
    # A path of three vertices has 0, 1 and 2; one that does not exist counts as 1.
    np.testing.assert_allclose(regularizer.eigenvalues, [1, 2, 1], atol=1e-6)


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    datasets = pytest.importorskip("sklearn.datasets", reason="pip install scikit-learn")
    data = datasets.load_digits()
    return torch.tensor(data.data / 16, dtype=torch.float32), torch.tensor(data.target)


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


def test_threads_change_no_bit_of_the_term() -> None:
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        model = mlp(1500, 1600, 20)
        cut_in_half(model, 0.2)
        regularizer = EigenvalueRegularizer(model, (2,))
        assert 4 * 16 * sum(weight.numel() for weight in weights_of(model)) > 1.5e8
        regularizer().backward()
        found.append([weight.grad.numpy() for weight in weights_of(model)])
    for one, two in zip(*found, strict=True):
        np.testing.assert_array_equal(one, two)


def test_one_call_of_several_counts_as_often() -> None:
    model = mlp(40, 50, 10)
    once = float(EigenvalueRegularizer(model)().detach())
    regularizer = EigenvalueRegularizer(model, every=3)
    terms = [regularizer() for _ in range(7)]
    found = [float(term.detach()) for term in terms]
    np.testing.assert_allclose(found, [3 * once, 0, 0, 3 * once, 0, 0, 3 * once], rtol=1e-4)
    (model(torch.ones(1, 40)).sum() + terms[1]).backward()


def test_a_weight_of_zero_costs_nothing() -> None:
    model = mlp(40, 50, 10)
    regularizer = EigenvalueRegularizer(model, weight=0)
    assert float(regularizer()) == 0
    assert regularizer.n_restarts == 0
    assert regularizer.eigenvalues == ()


def test_two_terms_before_one_backward_pass() -> None:
    model = mlp(40, 50, 10).double()
    regularizer = EigenvalueRegularizer(model, tolerance=1e-9)
    (regularizer() + 2 * regularizer()).backward()
    found = model[0].weight.grad.clone()
    model.zero_grad()
    (3 * regularizer()).backward()
    torch.testing.assert_close(found, model[0].weight.grad, rtol=1e-5, atol=1e-12)


def test_parts_are_averaged() -> None:
    model = mlp(20, 24, 28, 22, 26).double()
    layers = ["0", "2", "6"]
    regularizer = EigenvalueRegularizer(model, weight=0.4, layers=layers, tolerance=1e-9)
    # The last layer is a graph of its own: 22 inputs and 26 outputs.
    weights = weights_of(model)
    values = [dense_eigenvalues(weights[:2])[1:4], dense_eigenvalues(weights[3:])[1:4]]
    assert len(regularizer.graphs) == 2
    term = regularizer()
    expected = 0.4 * torch.stack(values).mean()
    torch.testing.assert_close(term, expected, rtol=0, atol=1e-10)
    np.testing.assert_allclose(
        regularizer.eigenvalues, torch.stack(values).mean(0).detach().numpy(), atol=1e-10
    )
    chosen = [weights[0], weights[1], weights[3]]
    ours = torch.autograd.grad(term, chosen)
    for found, wanted in zip(ours, torch.autograd.grad(expected, chosen), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-9)
    regularizer().backward()
    assert weights[2].grad is None


@pytest.mark.parametrize("kind", ["gpt2", "bert"])
def test_layers_of_a_transformer(kind: str) -> None:
    transformers = pytest.importorskip("transformers", reason="pip install transformers")
    torch.manual_seed(0)
    model: nn.Module
    if kind == "gpt2":
        config = transformers.GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=50)
        model, pattern, names = transformers.GPT2Model(config), "h.*.mlp.*", ("h.0.mlp", "h.1.mlp")
    else:
        config = transformers.BertConfig(
            hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=64, vocab_size=50,
        )  # fmt: skip
        model = transformers.BertModel(config)
        # Neither the attention's output nor the pooler.
        pattern, names = (
            "encoder.layer.?.[io]*.dense",
            ("intermediate", "layer.0.output", "layer.1.output"),
        )
    regularizer = EigenvalueRegularizer(model, layers=[pattern])
    regularizer().backward()
    touched = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    # The scales of the layer norms before them are factors of their edges.
    matrices = {n for n in touched if "ln_" not in n and "LayerNorm" not in n}
    assert len(matrices) == 4
    assert all(n.endswith("weight") and any(name in n for name in names) for n in matrices)


def test_scales_of_batch_norms_get_gradients() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 12, 3), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 20, 3),
        nn.BatchNorm2d(20), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(20, 10),
    ).double()  # fmt: skip
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 2)
                module.running_var.uniform_(0.5, 2)
    regularizer = EigenvalueRegularizer(model, weight=1.0, scope="all", tolerance=1e-9)
    regularizer().backward()
    np.testing.assert_allclose(
        regularizer.eigenvalues, laplacian_values(ncut.graph(model, scope="all"))[1:4], atol=1e-6
    )
    step = 1e-4
    for at in (1, 4):
        scale = model[at].weight
        values = []
        for move in (step, -step):
            with torch.no_grad():
                scale[2] += move
            values.append(float(regularizer().detach()))
            with torch.no_grad():
                scale[2] -= move
        assert float(scale.grad[2]) == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-3)


def test_pruned_weights_get_no_gradient() -> None:
    model = mlp(40, 50, 10)
    regularizer = EigenvalueRegularizer(model)
    regularizer()
    prune.l1_unstructured(model[0], "weight", 0.5)
    regularizer().backward()
    gradient, mask = model[0].weight_orig.grad, model[0].weight_mask
    assert not gradient[mask == 0].any()
    assert gradient[mask == 1].all()
    values = dense_eigenvalues([(model[0].weight_orig * mask).detach(), model[2].weight.detach()])
    np.testing.assert_allclose(regularizer.eigenvalues, values[1:4].numpy(), atol=1e-4)
    prune.remove(model[0], "weight")
    regularizer().backward()
    assert model[0].weight.grad is not None


def test_masks_count_straight_after_a_pruning_step() -> None:
    model = mlp(40, 50, 10)
    regularizer = EigenvalueRegularizer(model)
    pruning = PolynomialPruning(
        model, end_step=2, initial_sparsity=0.5, final_sparsity=0.8, every=1
    )
    for _ in range(3):
        pruning.step()
        model.zero_grad()
        regularizer().backward()
        gradient, mask = model[0].weight_orig.grad, model[0].weight_mask
        assert (mask == 0).any()
        assert not gradient[mask == 0].any()
        assert gradient.any()
        plain = mlp(40, 50, 10)
        for ours, pruned in zip(weights_of(plain), (model[0], model[2]), strict=True):
            ours.data = (pruned.weight_orig * pruned.weight_mask).detach()
        again = EigenvalueRegularizer(plain, tolerance=1e-4)
        again()
        np.testing.assert_allclose(regularizer.eigenvalues, again.eigenvalues, atol=1e-4)


def test_other_types_are_followed() -> None:
    model = mlp(40, 50, 10)
    regularizer = EigenvalueRegularizer(model)
    regularizer()
    first = regularizer.eigenvalues
    for dtype, kind in ((torch.float64, torch.float64), (torch.bfloat16, torch.float32)):
        model.to(dtype)
        model.zero_grad()
        term = regularizer()
        term.backward()
        assert term.dtype == kind
        assert model[0].weight.grad.dtype == dtype
        np.testing.assert_allclose(regularizer.eigenvalues, first, atol=3e-3)


@pytest.mark.parametrize("grouped", [False, True], ids=["small", "entries"])
def test_autocast_does_not_touch_the_accuracy(grouped: bool) -> None:
    torch.manual_seed(0)
    model = mlp(20, 16, 10)
    if grouped:
        model = nn.Sequential(
            nn.Conv2d(3, 260, 1), nn.ReLU(), nn.Conv2d(260, 260, 1, groups=10), nn.ReLU(),
            nn.Conv2d(260, 40, 1),
        )  # fmt: skip
    regularizer = EigenvalueRegularizer(model, tolerance=1e-4)
    expected = float(regularizer().detach())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = regularizer()
    found.backward()
    assert float(found.detach()) == pytest.approx(expected, rel=1e-6, abs=1e-7)


def test_a_channels_last_model_is_read() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 20, 3), nn.ReLU(), nn.Conv2d(20, 40, 3), nn.ReLU(), nn.Conv2d(40, 10, 3)
    )
    regularizer = EigenvalueRegularizer(model)
    regularizer()
    expected = regularizer.eigenvalues
    model.to(memory_format=torch.channels_last)
    for ours in (regularizer, EigenvalueRegularizer(model)):
        ours().backward()
        np.testing.assert_allclose(ours.eigenvalues, expected, atol=1e-4)


def test_a_network_about_to_fall_apart_is_told_once() -> None:
    model = mlp(60, 60, 60)
    cut_in_half(model, 1e-6)
    regularizer = EigenvalueRegularizer(model)
    with pytest.warns(UserWarning, match=r"30 of 'input', 30 of '0', 30 of '2'") as caught:
        term = regularizer()
    assert len(caught) == 1
    regularizer()  # another warning would be an error
    assert term.requires_grad


def test_inputs_cut_off_from_outputs_are_told() -> None:
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


def test_parts_side_by_side_are_what_the_term_is_for() -> None:
    model = mlp(60, 60, 60)
    regularizer = EigenvalueRegularizer(model, range(2, 5), disconnect="hold")
    regularizer()
    cut_in_half(model, 1e-6)
    with pytest.warns(UserWarning, match="inputs still reach outputs"):
        assert regularizer().requires_grad
    assert regularizer().requires_grad


def test_parts_that_were_there_at_first_hold_nothing_back() -> None:
    model = mlp(60, 60, 60)
    cut_in_half(model, 0.0)
    regularizer = EigenvalueRegularizer(model, range(2, 13), disconnect="hold")
    with pytest.warns(UserWarning, match="before the regularizer has changed it"):
        assert regularizer().requires_grad
    assert all(regularizer().requires_grad for _ in range(40))


@pytest.mark.parametrize("kind", ["a faded input", "a faded hidden neuron", "a pair of neurons"])
def test_what_is_negligible_is_no_part(kind: str) -> None:
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


def test_a_vanishing_neuron_is_told() -> None:
    model = mlp(60, 60, 60)
    regularizer = EigenvalueRegularizer(model)
    regularizer()
    with torch.no_grad():
        model[0].weight[5] *= 1e-9
        model[2].weight[:, 5] *= 1e-9
    with pytest.warns(UserWarning, match="a neuron of '0' has next to no weights left") as caught:
        assert all(regularizer().requires_grad for _ in range(40))
    assert len(caught) == 1
    with torch.no_grad():
        model[0].weight[5] = 0
        model[2].weight[:, 5] = 0
    assert EigenvalueRegularizer(model)().requires_grad  # pruned away: no warning


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


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"weight": -1}, "weight"),
        ({"weight": float("nan")}, "weight"),
        ({"weight": "a"}, "weight"),
        ({"weight": None}, "weight"),
        ({"eigenvalues": ()}, "eigenvalues"),
        ({"eigenvalues": 3}, "eigenvalues"),
        ({"eigenvalues": (0, 2)}, "eigenvalues"),
        ({"eigenvalues": (10**6,)}, "eigenvalues"),
        ({"eigenvalues": (2.5,)}, "eigenvalues"),
        ({"every": 0}, "every"),
        ({"every": 1.5}, "every"),
        ({"every": True}, "every"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"tolerance": float("nan")}, "tolerance"),
        ({"tolerance": "x"}, "tolerance"),
        ({"tolerance": None}, "tolerance"),
        ({"disconnect": "no"}, "disconnect"),
        ({"seed": -1}, "seed"),
        ({"seed": "x"}, "seed"),
        ({"layers": "0"}, "layers"),
        ({"layers": ["none"]}, "layers"),
        ({"layers": []}, "layers"),
        ({"norm": "l3"}, "norm"),
        ({"scope": "some"}, "scope"),
    ],
    ids=str,
)
def test_wrong_arguments_are_named(options: dict[str, Any], name: str) -> None:
    with pytest.raises(InputError, match=f"^{name}: "):
        EigenvalueRegularizer(mlp(40, 50, 10), **options)()


def test_too_small_a_graph_and_no_module_are_named() -> None:
    with pytest.raises(InputError, match=r"^eigenvalues: "):
        EigenvalueRegularizer(mlp(3, 2, 2), (8,))
    with pytest.raises(InputError, match=r"^model: "):
        EigenvalueRegularizer([torch.ones(2, 2)])  # type: ignore[arg-type]


def test_weights_that_are_not_finite_are_told() -> None:
    for widths in ((64, 50, 40, 10), (12, 10, 6)):
        model = mlp(*widths)
        with torch.no_grad():
            model[2].weight[0, 0] = float("nan")
        with pytest.raises(InputError, match="not finite"):
            EigenvalueRegularizer(model)()


MEMORY = """
import os, resource, torch
from torch import nn
from ncut.training.regularizers import EigenvalueRegularizer

torch.set_num_threads(1)
torch.manual_seed(0)
for pairs in {cases}:
    child = os.fork()  # a peak of its own for each, and one import of torch
    if child == 0:
        break
    assert os.waitpid(child, 0)[1] == 0
else:
    raise SystemExit
model = nn.Sequential(*(m for a, b in pairs for m in (nn.Linear(a, b, bias=False), nn.ReLU())))
n = 64  # blocks on the diagonal, so that a few products do
with torch.no_grad():
    for module in model[::2]:
        rows, columns = (torch.arange(s) * 8 // s for s in module.weight.shape)
        module.weight[rows[:, None] != columns] *= 0.1
model[:-1](torch.ones(1, pairs[0][0])).sum().backward()
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
regularizer = EigenvalueRegularizer(model[:-1], tolerance=0.1)
before = peak()
regularizer().backward()
print((peak() - before) * 1024 / sum(4 * p.numel() for p in model.parameters()))
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork: run on Linux or macOS")
def test_a_call_takes_no_matrix_of_all_vertices() -> None:
    """The peak beyond what the model took before, in sizes of its weights."""
    cases = [[(2048, 2048), (2048, 2048)], [(6000, 20), (20, 200)]]
    done = subprocess.run(
        [sys.executable, "-c", MEMORY.format(cases=cases)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-500:]
    wide, narrow = map(float, done.stdout.split())
    assert wide < 3  # such a matrix would be 4.5 times the weights in float32
    assert narrow < 30  # 150 MB, for 0.5 MB of weights


@pytest.mark.parametrize("kind", ["weight_norm", "spectral_norm"])
def test_parametrized_weights_are_followed_and_the_model_left_alone(kind: str) -> None:
    model = mlp(40, 50, 10)
    getattr(nn.utils.parametrizations, kind)(model[0])
    model.eval()
    expected = model(torch.ones(2, 40))
    regularizer = EigenvalueRegularizer(model)
    torch.testing.assert_close(model(torch.ones(2, 40)), expected)
    regularizer().backward()
    originals = [p for name, p in model[0].named_parameters() if name != "bias"]
    assert all(parameter.grad.any() for parameter in originals)
    values = dense_eigenvalues([model[0].weight.detach(), model[2].weight.detach()])[1:4]
    np.testing.assert_allclose(regularizer.eigenvalues, values.numpy(), atol=1e-4)


# --- steps, logs, states ------------------------------------------------------------------------

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
def test_a_resumed_run_is_an_unbroken_one(name: str) -> None:
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


def test_steps_may_be_begun_by_hand() -> None:
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


def test_what_is_logged() -> None:
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
    with pytest.raises(InputError, match="is not the one that the regularizer was made for"):
        regularizer(copy.deepcopy(model))


def test_a_state_of_another_kind_is_refused() -> None:
    model = mlp(40, 50, 20)
    state = ncut.PartitionRegularizer(model, 4).state_dict()
    with pytest.raises(InputError, match=r"^state: must have the keys"):
        EigenvalueRegularizer(model).load_state_dict(state)
