"""normalize_(): norms of sqrt(2), and an unchanged function."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models import Computed, Residual, Tied, batch_norm_cnn, cnn, drawn, mlp, transposed_cnn
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrizations, prune

import ncut


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


NORM = math.sqrt(2)


@torch.no_grad()
def outputs(model: nn.Module, x: Tensor) -> list[Tensor]:
    """The model's outputs; its running statistics do not change."""
    torch.manual_seed(0)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    found = model(x)
    for name, buffer in model.named_buffers():
        buffer.copy_(before[name])
    return [part.clone() for part in (found if isinstance(found, tuple) else (found,))]


def assert_unchanged(
    model: nn.Module, x: Tensor, tolerance: float = 1e-10, **options: Any
) -> list[str]:
    """Normalize; the layers that were."""
    before = outputs(model, x)
    try:
        names = ncut.normalize_(model, **options)
    except ncut.InputError as error:
        assert "model:" in str(error)  # noqa: PT017
        names = []
    for old, new in zip(before, outputs(model, x), strict=True):
        assert (old - new).abs().max() <= tolerance * old.abs().max()
    return names


def norms(writer: nn.Module, batch_norm: nn.Module | None = None) -> Tensor:
    """Norms of incoming weights and bias, with a batch norm folded in; shape (neurons,)."""
    assert isinstance(writer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.ConvTranspose2d)
    weight = writer.weight.detach().double()
    if isinstance(writer, nn.ConvTranspose2d):
        weight = weight.transpose(0, 1)
    bias = torch.zeros(len(weight)) if writer.bias is None else writer.bias.detach()
    bias = bias.double()
    if isinstance(batch_norm, _BatchNorm):
        scale = batch_norm.weight / torch.sqrt(batch_norm.running_var + batch_norm.eps)
        weight = weight * scale.detach().reshape(-1, *(1,) * (weight.ndim - 1))
        bias = ((bias - batch_norm.running_mean) * scale + batch_norm.bias).detach()
    return torch.cat([weight.flatten(1), bias[:, None]], dim=1).norm(dim=1)


def assert_normal(found: Tensor, tolerance: float = 1e-9) -> None:
    assert (found - NORM).abs().max() < tolerance


def convolutional(end: int, *modules: nn.Module) -> tuple[nn.Module, Tensor]:
    """A CNN that reads images, in float64, and images."""
    model = cnn(*modules, channels=end).double()
    return model, torch.randn(4, 3, 10, 10, dtype=torch.float64)


ROWS = torch.randn(7, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

# The rest of a chain after a first layer of 8 neurons or channels; the layers to be normalized.
ACTIVATIONS: list[tuple[nn.Module, bool]] = [
    (nn.ReLU(), True), (nn.LeakyReLU(0.2), True), (nn.PReLU(8), True), (nn.Dropout(0.3), True),
    (nn.Threshold(0.0, 0.0), True), (nn.BatchNorm1d(8), True),
    (nn.Sigmoid(), False), (nn.GELU(), False), (nn.ELU(), False), (nn.ReLU6(), False),
    (nn.Threshold(0.3, 0.0), False), (nn.Softmax(dim=1), False), (nn.Hardshrink(), False),
    (nn.LayerNorm(8), False), (nn.BatchNorm1d(8, affine=False), False), (nn.SiLU(), False),
    (nn.BatchNorm1d(8, track_running_stats=False), False),
]  # fmt: skip


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("activation", "homogeneous"), ACTIVATIONS, ids=str)
def test_activations(activation: nn.Module, homogeneous: bool, training: bool) -> None:
    layers = (nn.Linear(6, 8), activation, nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 3))
    model = drawn(nn.Sequential(*copy.deepcopy(layers))).double().train(training)
    names = assert_unchanged(model, ROWS)
    assert names == (["0", "2"] if homogeneous else ["2"])
    assert_normal(norms(model[2]))
    if homogeneous:
        assert_normal(norms(model[0], model[1]))


BN, CONV, RELU = nn.BatchNorm2d, nn.Conv2d, nn.ReLU
CHAINS: dict[str, tuple[list[str], int, list[nn.Module]]] = {
    "batch norm": (["0", "3"], 6, [BN(8), RELU(), CONV(8, 6, 3), RELU()]),
    "batch norm alone": (["0", "2"], 6, [BN(8), CONV(8, 6, 3), RELU()]),
    "pooled": (["0", "3"], 6, [RELU(), nn.MaxPool2d(2), CONV(8, 6, 3), nn.AvgPool2d(2)]),
    "depthwise": (["0", "2"], 8, [RELU(), CONV(8, 8, 3, groups=8), RELU()]),
    "grouped": (["0", "2"], 6, [RELU(), CONV(8, 6, 3, groups=2), RELU()]),
    "up": (["0", "3"], 6, [RELU(), nn.Upsample(scale_factor=2), CONV(8, 6, 3), RELU()]),
    "batch norm after ReLU": (["3"], 6, [RELU(), BN(8), CONV(8, 6, 3), RELU()]),
    "batch norms around ReLU": (["4"], 6, [BN(8), RELU(), BN(8), CONV(8, 6, 3), RELU()]),
    "two batch norms": (["4"], 6, [BN(8), BN(8), RELU(), CONV(8, 6, 3), RELU()]),
    "instance norm": (["3"], 6, [nn.InstanceNorm2d(8), RELU(), CONV(8, 6, 3), RELU()]),
    "group norm": (["3"], 6, [nn.GroupNorm(2, 8), RELU(), CONV(8, 6, 3), RELU()]),
    "padded": (["0", "3"], 6, [RELU(), nn.ZeroPad2d(1), CONV(8, 6, 3), RELU()]),
    "padded with 1": (["3"], 6, [RELU(), nn.ConstantPad2d(1, 1.0), CONV(8, 6, 3), RELU()]),
}  # fmt: skip


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", CHAINS)
def test_chains_of_convolutions(name: str, training: bool) -> None:
    expected, end, modules = CHAINS[name]
    model, x = convolutional(end, *copy.deepcopy(modules))
    assert assert_unchanged(model.train(training), x) == expected
    for at in map(int, expected):
        assert_normal(norms(model[at], model[at + 1]))


def test_batch_norm_of_flattened_channels() -> None:
    layers = (CONV(3, 8, 3), RELU(), nn.Flatten(), nn.BatchNorm1d(8 * 36), nn.Linear(8 * 36, 3))
    model = drawn(nn.Sequential(*layers)).double().eval()
    assert_unchanged(model, torch.randn(4, 3, 8, 8, dtype=torch.float64))


def test_batch_norm_between_flattening_and_activation() -> None:
    layers = (CONV(3, 4, 3), nn.Flatten(), nn.BatchNorm1d(144), RELU(), nn.Linear(144, 3))
    model = drawn(nn.Sequential(*layers)).double().eval()
    assert_unchanged(model, torch.randn(4, 3, 8, 8, dtype=torch.float64))


@pytest.mark.parametrize("make", [
    transposed_cnn,
    lambda: cnn(RELU(), nn.ConvTranspose2d(8, 6, 3), RELU()),
    lambda: cnn(RELU(), CONV(8, 6, 3), RELU(), first=nn.ConvTranspose2d(3, 8, 3)),
    lambda: cnn(RELU(), CONV(3, 6, 3), RELU(), first=nn.ConvTranspose2d(3, 3, 3)),
    lambda: cnn(RELU(), nn.ConvTranspose2d(8, 6, 3, groups=2), RELU()),
    lambda: cnn(RELU(), nn.ConvTranspose2d(8, 8, 3, groups=8), RELU(), channels=8),
])  # fmt: skip
def test_transposed_convolutions(make: Callable[[], nn.Module]) -> None:
    model = make().double().eval()
    names = assert_unchanged(model, torch.randn(4, 3, 8, 8, dtype=torch.float64))
    for at in map(int, names):
        if not isinstance(model[at], nn.ConvTranspose2d) or model[at].groups == 1:
            assert_normal(norms(model[at], model[at + 1]))


F = functional
HARD: dict[str, Callable[[Any, Tensor], Any]] = {
    "shifted": lambda m, h: m.out(F.relu(h + 0.3)),
    "shifted in place": lambda m, h: m.out(F.relu(h.add_(0.3))),
    "shifted afterwards": lambda m, h: m.out(F.relu(h) + 1),
    "one minus": lambda m, h: m.out(1 - F.relu(h)),
    "second bias": lambda m, h: m.out(F.relu(h + m.other)),
    "second bias afterwards": lambda m, h: m.out(torch.add(F.relu(h), m.other, alpha=2)),
    "centred": lambda m, h: m.out(F.relu(h) - F.relu(h).mean(-1, keepdim=True)),
    "unit length": lambda m, h: m.out(F.normalize(F.relu(h))),
    "squared": lambda m, h: m.out(F.relu(h) ** 2),
    "gate of itself": lambda m, h: m.out(F.relu(h) * torch.sigmoid(h)),
    "also an output": lambda m, h: (m.out(F.relu(h)), F.relu(h)),
    "preactivation also an output": lambda m, h: (m.out(F.relu(h)), h),
    "sum also read": lambda m, h: m.out(F.relu(h)) + h.sum(-1, keepdim=True),
    "norm also read": lambda m, h: m.out(F.relu(h)) + F.relu(h).norm(dim=-1, keepdim=True),
    "read twice": lambda m, h: m.out(F.relu(h)) + m.out(F.relu(-h)),
    "constant beside": lambda m, h: m.out(torch.cat([F.relu(h)[:, 1:], torch.ones(len(h), 1)], 1)),
    "weights also read": lambda m, h: m.out(F.relu(h)) * m.out.weight.sum(),
    "incoming weights also read": lambda m, h: m.out(F.relu(h)) + m.hidden.weight.norm(),
    "bias also read": lambda m, h: m.out(F.relu(h)) + m.hidden.bias.sum(),
    "clamped": lambda m, h: m.out(h.clamp(0, 1)),
    "with a maximum": lambda m, h: m.out(torch.maximum(h, m.other)),
    "transposed weights": lambda m, h: F.linear(F.linear(F.relu(h), m.out.weight), m.out.weight.T),
}  # fmt: skip


@pytest.mark.parametrize("name", HARD)
def test_layers_that_would_compute_something_else_are_left_alone(name: str) -> None:
    model = Computed(HARD[name]).double()
    assert_unchanged(model, ROWS, example_inputs=ROWS)


EASY: dict[str, Callable[[Any, Tensor], Any]] = {
    "clamped below": lambda m, h: m.out(h.clamp(min=0)),
    "absolute": lambda m, h: m.out(h.abs()),
    "negated": lambda m, h: m.out(F.relu(-h)),
    "scaled": lambda m, h: m.out(F.relu(h) * m.other),
    "by its weight": lambda m, h: F.relu(h) @ m.out.weight.T,
    "two halves": lambda m, h: m.out(F.relu(h) + 0.5 * F.relu(-h)),
}


@pytest.mark.parametrize("name", EASY)
def test_homogeneous_functions_of_neurons(name: str) -> None:
    model = Computed(EASY[name]).double()
    assert assert_unchanged(model, ROWS, example_inputs=ROWS) == ["hidden"]
    assert_normal(norms(model.hidden))


class SharedNorm(nn.Module):
    """Two layers before one batch norm; or two before one output layer."""

    def __init__(self, norm: bool) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(8) if norm else nn.Identity()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(6, 8)
        self.out = nn.Linear(8, 3)
        self.last = nn.Linear(8, 3) if norm else self.out
        drawn(self)

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.norm(self.first(x)), self.norm(self.second(x))
        return self.out(first.relu()) + self.last(second.relu())  # type: ignore[no-any-return]


@pytest.mark.parametrize("norm", [False, True])
def test_shared_batch_norm_and_shared_reader(norm: bool) -> None:
    assert_unchanged(SharedNorm(norm).double().eval(), ROWS)


def _tied(what: str, first: int, second: int) -> nn.Sequential:
    model = mlp(8, 8, 8, 8, 3)
    setattr(model[second], what, getattr(model[first], what))
    return model


@pytest.mark.parametrize("what", ["weight", "bias"])
@pytest.mark.parametrize(("first", "second"), [(0, 2), (2, 4), (0, 4)])
def test_tied_parameters(what: str, first: int, second: int) -> None:
    model = _tied(what, first, second).double()
    assert_unchanged(model, torch.randn(5, 8, dtype=torch.float64))
    assert getattr(model[first], what) is getattr(model[second], what)


def test_layers_called_again_and_residual_sums() -> None:
    assert_unchanged(Tied().double(), torch.randn(5, 10, dtype=torch.float64))
    for before in (False, True):
        model = Residual(before=before).double().eval()
        x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
        assert "first" not in assert_unchanged(model, x, example_inputs=x)


@dataclasses.dataclass
class Output:
    """An output class, as of some models."""

    logits: torch.Tensor


class ReturnsDataclass(nn.Module):
    """A hidden layer of ReLU, and a shifted one after it, which must not be rescaled."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(8, 7), nn.Linear(7, 6), nn.Linear(6, 3)])

    def forward(self, x: torch.Tensor) -> Output:
        hidden = torch.relu(self.layers[0](x))
        return Output(self.layers[2](torch.relu(self.layers[1](hidden)) + 1.0))


def test_outputs_in_a_dataclass_are_compared_too() -> None:
    model = ReturnsDataclass().double()
    x = torch.randn(5, 8, dtype=torch.float64)
    before = model(x).logits
    assert ncut.normalize_(model, example_inputs=x) == ["layers.0"]
    torch.testing.assert_close(model(x).logits, before, rtol=1e-10, atol=1e-10)


class TiedAutoencoder(nn.Module):
    """Decodes with its encoder's weights, transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(6, 8)
        drawn(self)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.encoder(x).relu(), self.encoder.weight.T)


def test_weights_that_are_read_transposed() -> None:
    assert_unchanged(TiedAutoencoder().double(), ROWS)


def test_last_layer_compensates_alone() -> None:
    model = mlp(6, 8, 5, 3).double()
    bias = model[4].bias.detach().clone()
    old = model[4].weight.detach().clone()
    before, _ = norms(model[0]), norms(model[2])
    assert ncut.normalize_(model) == ["0", "2"]
    assert torch.equal(model[4].bias, bias)
    assert not torch.allclose(model[4].weight, old)
    # The second layer's incoming weights are multiplied by the first one's norms before.
    ratio = (model[4].weight / old).detach()
    reference = mlp(6, 8, 5, 3).double()
    second = reference[2].weight.detach() * before / NORM
    expected = torch.cat([second, reference[2].bias.detach()[:, None]], 1).norm(dim=1) / NORM
    torch.testing.assert_close(ratio, expected.expand(3, 5))


def test_a_second_call_changes_nothing() -> None:
    for model in (mlp(6, 8, 5, 3), batch_norm_cnn()):
        model.double().eval()
        ncut.normalize_(model)
        before = copy.deepcopy(model.state_dict())
        ncut.normalize_(model)
        for name, value in model.state_dict().items():
            torch.testing.assert_close(value, before[name], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("pruned", [False, True])
def test_neurons_without_any_weights_stay(pruned: bool) -> None:
    model = mlp(6, 8, 3)
    with torch.no_grad():
        model[0].weight[2], model[0].bias[2] = 0, 0
    outgoing = model[2].weight[:, 2].detach().clone()
    if pruned:
        prune.identity(model[0], "weight")
    ncut.normalize_(model)
    assert not model[0].bias[2].any()
    assert torch.equal(model[2].weight[:, 2], outgoing)
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_without_biases() -> None:
    model = nn.Sequential(nn.Linear(6, 8, bias=False), RELU(), nn.Linear(8, 3, bias=False))
    assert assert_unchanged(model.double(), ROWS) == ["0"]
    assert_normal(norms(model[0]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_compiled_loop_and_torch_give_the_same(dtype: torch.dtype) -> None:
    tolerance = {torch.float32: 1e-5, torch.float64: 1e-12}[dtype]
    for make in (lambda: mlp(6, 8, 5, 3), lambda: cnn(RELU(), CONV(8, 6, 3), RELU())):
        compiled = make().to(dtype)
        plain = make().to(dtype)
        weights = [module for module in plain if hasattr(module, "weight")]
        for module in weights:
            prune.identity(module, "weight")  # masks take it to torch
        assert ncut.normalize_(compiled) == ncut.normalize_(plain)
        for module in weights:
            prune.remove(module, "weight")
        for name, value in plain.state_dict().items():
            expected = compiled.state_dict()[name]
            torch.testing.assert_close(value, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("names", [["weight"], ["bias"], ["weight", "bias"]])
def test_pruned_models(names: list[str]) -> None:
    for model, x in (
        (mlp(6, 8, 5, 3).double(), ROWS),
        convolutional(6, BN(8), RELU(), CONV(8, 6, 3), RELU()),
    ):
        for module in model:
            for name in names:
                if isinstance(module, nn.Linear | nn.Conv2d):
                    prune.random_unstructured(module, name, 0.4)
        masks = {n: m.clone() for n, m in model.named_buffers() if n.endswith("_mask")}
        assert_unchanged(model.eval(), x)
        buffers = dict(model.named_buffers())
        assert all(torch.equal(buffers[name], mask) for name, mask in masks.items())


@pytest.mark.parametrize("name", ["weight", "bias"])
def test_pruned_batch_norms(name: str) -> None:
    model, x = convolutional(6, BN(8), RELU(), CONV(8, 6, 3), RELU())
    prune.random_unstructured(model[1], name, 0.4)
    assert_unchanged(model.eval(), x)


def _weight_norm_by_hook(module: nn.Module) -> None:
    with pytest.warns(FutureWarning):
        nn.utils.weight_norm(module)


@pytest.mark.parametrize("which", [0, 2, 4])
@pytest.mark.parametrize(
    "wrap",
    [parametrizations.weight_norm, parametrizations.spectral_norm, parametrizations.orthogonal,
     _weight_norm_by_hook, nn.utils.spectral_norm],
)  # fmt: skip
def test_parametrized_layers_are_left_alone(wrap: Callable[[nn.Module], Any], which: int) -> None:
    model = mlp(6, 8, 7, 3).double()
    wrap(model[which])
    assert_unchanged(model.eval(), ROWS)


def test_parameters_that_lie_otherwise_in_memory() -> None:
    model = mlp(6, 8, 5, 3).double()
    model[0].weight = nn.Parameter(torch.randn(6, 8, dtype=torch.float64).T)
    model[2].bias = nn.Parameter(torch.randn(10, dtype=torch.float64)[::2])
    assert assert_unchanged(model, ROWS) == ["0", "2"]
    assert_normal(norms(model[0]))
    assert_normal(norms(model[2]))
    model, x = convolutional(6, BN(8), RELU(), CONV(8, 6, 3), RELU(), CONV(6, 6, 1))
    model.to(memory_format=torch.channels_last)
    assert assert_unchanged(model.eval(), x) == ["0", "3", "5"]


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float16, 5e-3), (torch.bfloat16, 5e-2)], ids=str
)
def test_half_precision(dtype: torch.dtype, tolerance: float) -> None:
    model = mlp(6, 8, 5, 3).to(dtype)
    assert assert_unchanged(model, ROWS.to(dtype), tolerance) == ["0", "2"]
    assert_normal(norms(model[0]), tolerance)


def test_a_backward_pass_that_needs_the_old_weights_fails() -> None:
    model = mlp(6, 8, 5, 3)
    loss = model(ROWS.float()).sum()
    ncut.normalize_(model)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_errors() -> None:
    with pytest.raises(ncut.InputError, match="model"):
        ncut.normalize_([torch.rand(3, 4)])  # type: ignore[arg-type]
    with pytest.raises(ncut.InputError, match="model: has no layer"):
        ncut.normalize_(nn.Sequential(nn.Linear(3, 4), nn.Sigmoid(), nn.Linear(4, 2)))


ACTIVATION = st.sampled_from([RELU(), nn.LeakyReLU(0.1), nn.GELU(), nn.Identity(), nn.Sigmoid()])


@st.composite
def chains(draw: st.DrawFn) -> tuple[nn.Sequential, Tensor, dict[int, bool]]:
    """A chain, inputs, and for each layer to be normalized whether a batch norm follows."""
    flat = draw(st.booleans())
    modules: list[nn.Module] = []
    expected = {}
    width, size = 4, 9
    for _ in range(draw(st.integers(1, 3))):
        at, n_out, bias = len(modules), 2 * draw(st.integers(1, 3)), draw(st.booleans())
        if flat:
            modules.append(nn.Linear(width, n_out, bias=bias))
        else:
            kernel, groups = draw(st.sampled_from([1, 2])), draw(st.sampled_from([1, 2]))
            modules.append(nn.Conv2d(width, n_out, kernel, groups=groups, bias=bias))
            size -= kernel - 1
        batch_norm = draw(st.booleans())
        if batch_norm:
            modules.append(nn.BatchNorm1d(n_out) if flat else nn.BatchNorm2d(n_out))
        activation = draw(ACTIVATION)
        modules.append(copy.deepcopy(activation))
        if not flat and size >= 6 and draw(st.booleans()):
            modules.append(draw(st.sampled_from([nn.MaxPool2d(2), nn.AvgPool2d(2)])))
            size //= 2
        if draw(st.booleans()):
            modules.append(nn.Dropout(0.5))
        if not isinstance(activation, nn.GELU | nn.Sigmoid):
            expected[at] = batch_norm
        width = n_out
    if not flat:
        modules.append(nn.Flatten())
    modules.append(nn.Linear(width if flat else width * size**2, 3))
    model = nn.Sequential(*modules)
    drawn(model, seed=draw(st.integers(0, 1000)))
    shape = (4, 4) if flat else (4, 4, 9, 9)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return model.double(), x, expected


@settings(max_examples=20)
@given(chains(), st.booleans())
def test_random_chains(case: tuple[nn.Sequential, Tensor, dict[int, bool]], train: bool) -> None:
    model, x, expected = case
    model.train(train)
    names = assert_unchanged(model, x)
    assert names == [str(at) for at in expected]
    for at in expected:
        assert_normal(norms(model[at], model[at + 1]))


def regularized(**options: Any) -> tuple[nn.Sequential, ncut.EigenvalueRegularizer]:
    model = mlp(6, 40, 20, 3)
    return model, ncut.EigenvalueRegularizer(model, normalize=True, **options)


def is_normal(model: nn.Sequential) -> bool:
    return all(bool(((norms(model[at]) - NORM).abs() < 1e-5).all()) for at in (0, 2))


@torch.no_grad()
def double_(model: nn.Sequential) -> None:
    for parameter in model.parameters():
        parameter.mul_(2)


def test_normalized_before_forward_passes_in_training_mode_only() -> None:
    model, regularizer = regularized()
    x = ROWS.float()
    assert is_normal(model)
    double_(model)
    model.eval()(x)
    assert not is_normal(model)
    model.train()(x)
    assert is_normal(model)
    (model(x).sum() + model(2 * x).sum() + regularizer()).backward()  # two forward passes
    double_(model)
    regularizer.remove()
    model(x)
    assert not is_normal(model)
    regularizer.remove()
    regularizer.normalize_()
    assert is_normal(model)


@pytest.mark.parametrize("make", [
    lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    lambda p: torch.optim.AdamW(p, lr=0.1),
    lambda p: torch.optim.AdamW(p, lr=0.1, foreach=True),
    lambda p: torch.optim.AdamW(p, lr=0.1, fused=True),
    lambda p: torch.optim.SGD(p, lr=0.1, fused=True),
], ids=["SGD", "AdamW", "foreach", "fused", "fused SGD"])  # fmt: skip
def test_normalized_after_the_step_of_any_optimizer(make: Callable[[Any], Any]) -> None:
    model, regularizer = regularized()
    optimizer = make(model.parameters())
    for _ in range(2):
        (model(ROWS.float()).square().mean() + regularizer()).backward()
        optimizer.step()
        assert not is_normal(model)
        model(ROWS.float())
        assert is_normal(model)


@pytest.mark.parametrize("which", [0, 2])
def test_normalized_after_any_change(which: int) -> None:
    model, _ = regularized()
    with torch.no_grad():
        model[which].bias.add_(3)
    model(ROWS.float())
    assert is_normal(model)
    model.load_state_dict(mlp(6, 40, 20, 3).state_dict())
    model(ROWS.float())
    assert is_normal(model)
    model[which].weight = nn.Parameter(torch.randn(model[which].weight.shape))
    model(ROWS.float())
    assert is_normal(model)
    model.double()
    double_(model)
    model(ROWS)
    assert is_normal(model)


def test_changed_scales_of_batch_norms_are_noticed() -> None:
    layers = (nn.Linear(6, 40), nn.BatchNorm1d(40, momentum=0.0), RELU(), nn.Linear(40, 3))
    model = drawn(nn.Sequential(*layers)).train()
    regularizer = ncut.EigenvalueRegularizer(model, normalize=True)
    with torch.no_grad():
        model[1].weight.mul_(3)
    model(ROWS.float())
    assert_normal(norms(model[0], model[1]), 1e-5)
    regularizer.remove()


def test_normalizing_leaves_the_function_of_a_regularized_model() -> None:
    plain = mlp(6, 40, 20, 3)
    model, _ = regularized()
    torch.testing.assert_close(model(ROWS.float()), plain(ROWS.float()), rtol=1e-4, atol=1e-4)
