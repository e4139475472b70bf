"""`EigenvalueRegularizer`: its value, its gradient and its arguments."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from regularized import cut_in_half, laplacian_values, mlp, weights_of
from torch import Tensor, nn
from torch.nn.utils import prune

import ncut
from ncut.errors import InputError
from ncut.training.pruning import PolynomialPruning
from ncut.training.regularizers import EigenvalueRegularizer


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def dense_eigenvalues(weights: list[Tensor]) -> Tensor:
    """Eigenvalues of a chain's Laplacian, ascending, by autograd through the whole matrix."""
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
        ({"eigenvalues": [1]}, "eigenvalues"),
        ({"eigenvalues": (1, 1)}, "eigenvalues"),
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


def test_weights_that_are_not_finite_are_reported() -> None:
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
    """Peak memory beyond the model's own, in sizes of its weights."""
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
