"""Which layers may be rescaled, who reads them, which weights are copies; and that it is true."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from samples import as_csr, chain_graph, random_chain

from ncut import reference
from ncut.errors import ModelError
from ncut.extract import read_graph
from ncut.graphs import NeuronGraph, from_adjacency
from ncut.types import Layer

torch = pytest.importorskip("torch", reason="pip install 'ncut[torch]'")
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402, N812
from torch.nn.utils import parametrizations, prune  # noqa: E402

Role = tuple[str, bool | None, tuple[str, ...]]
Make = Callable[[int], Any]


@pytest.fixture(autouse=True)
def _same_weights_in_every_run() -> None:
    torch.manual_seed(0)


def roles(graph: NeuronGraph) -> list[Role]:
    return [(layer.name, layer.rescalable, layer.read_by) for layer in graph.layers]


def ties(graph: NeuronGraph) -> list[tuple[str, str, bool]]:
    return [(block.name, block.tie, block.tie_transposed) for block in graph.blocks]


def trained(module: Any) -> Any:
    """The module in evaluation and double precision, no parameter or buffer at 0 or 1."""
    generator = torch.Generator().manual_seed(1)
    module = module.double().eval()
    with torch.no_grad():
        for value in [*module.parameters(), *module.buffers()]:
            if value.is_floating_point():
                random = torch.rand(value.shape, generator=generator, dtype=value.dtype)
                value.copy_(random + 0.5 if value.ndim == 1 else random - 0.4)
        for part in module.modules():
            if isinstance(part, nn.Linear | nn.Conv1d | nn.Conv2d) and part.bias is not None:
                part.bias.sub_(1.0)
    return module


# What is said of each operation between two layers, against the operation itself.


def values(n_axes: int) -> Any:
    """Four channels at so many axes of positions."""
    generator = torch.Generator().manual_seed(0)
    shape = (3, 4, *[6] * n_axes)
    return 2 * torch.randn(shape, generator=generator, dtype=torch.float64)


def n_axes_of(name: str) -> int:
    """As many axes of positions as an operation's name says, two by default."""
    return next((int(digit) for digit in "123" if f"{digit}d" in name), 2)


def commutes(operation: Callable[[Any], Any], x: Any) -> bool:
    """Whether positive factors of the channels give the same before the operation and after."""
    c = torch.tensor([0.25, 3.0, 1.0, 7.0], dtype=torch.float64)
    c = c.reshape(4, *[1] * (x.ndim - 2))
    with torch.no_grad():
        before = operation((c * x).clone())
        after = c * operation(x.clone())
    return bool(torch.allclose(before, after, rtol=1e-9, atol=1e-12))


class BetweenConvolutions(nn.Module):
    """Two convolutions with an operation between them."""

    def __init__(self, operation: Callable[[Any], Any], n_axes: int) -> None:
        super().__init__()
        conv = getattr(nn, f"Conv{n_axes}d")
        self.first, self.second = conv(2, 4, 1), conv(4, 3, 1)
        self.operation = operation

    def forward(self, x: Any) -> Any:
        return self.second(self.operation(self.first(x)))


def said_to_commute(operation: Callable[[Any], Any], n_axes: int) -> bool | None:
    """Whether the graph says that the channels before an operation may be rescaled."""
    model = BetweenConvolutions(operation, n_axes).double().eval()
    example = torch.zeros(3, 2, *[6] * n_axes, dtype=torch.float64)
    return read_graph(model, example_inputs=example).layers[0].rescalable


NO_ACTIVATIONS = {
    "MultiheadAttention",  # a model of its own
    "CrossMapLRN2d",  # not differentiable by torch itself, and deprecated
    *(f"MaxUnpool{n}d" for n in (1, 2, 3)),  # reads positions of another pooling
    *(f"LazyInstanceNorm{n}d" for n in (1, 2, 3)),  # has no shape before it runs
}
MODULES = sorted(
    name
    for module in (
        *(nn.modules.activation, nn.modules.pooling, nn.modules.padding, nn.modules.dropout),
        *(nn.modules.upsampling, nn.modules.normalization, nn.modules.instancenorm),
    )
    for name in module.__all__
    if name not in NO_ACTIVATIONS
)


def make_module(name: str) -> Any:
    arguments: dict[str, tuple[Any, ...]] = {
        "LPPool": (2, 2),
        "Adaptive": (2,),
        "Upsample": (),
        "ConstantPad": (1, 0.0),
        "Threshold": (0, 0),
        "LayerNorm": ([4, 6, 6],),
        "RMSNorm": ([4, 6, 6],),
        "GroupNorm": (2, 4),
        "InstanceNorm": (4,),
        "LocalResponseNorm": (2,),
    }
    options: dict[str, Any] = {"scale_factor": 2} if name.startswith("Upsampl") else {}
    if name.startswith("Fractional"):
        n_axes = int(name[-2])
        options = {"output_size": 3, "_random_samples": torch.full((3, 4, n_axes), 0.3).double()}
    if "oftm" in name and not name.endswith("2d"):
        options = {"dim": 1}
    default: tuple[Any, ...] = (2,) if "Pool" in name else (1,) if "Pad" in name else ()
    given = next((args for start, args in arguments.items() if name.startswith(start)), default)
    return getattr(nn, name)(*given, **options).double().eval()


@pytest.mark.parametrize("name", MODULES)
def test_modules_commute_with_factors_where_they_are_said_to(name: str) -> None:
    n_axes = n_axes_of(name)
    module = make_module(name)
    assert said_to_commute(module, n_axes) is commutes(module, values(n_axes))


def test_the_modules_are_of_both_kinds() -> None:
    commuting = {n for n in MODULES if commutes(make_module(n), values(n_axes_of(n)))}
    assert {"ReLU", "PReLU", "MaxPool2d", "LPPool2d", "CircularPad2d", "Dropout"} <= commuting
    assert {"GELU", "Tanhshrink", "Softmax", "LayerNorm"} <= {*MODULES} - commuting
    assert len(commuting) > 40
    assert len(MODULES) - len(commuting) > 25


NAMES = (
    "abs abs_ leaky_relu leaky_relu_ relu relu_ rrelu rrelu_ adaptive_avg_pool1d "
    "adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d "
    "adaptive_max_pool3d avg_pool1d avg_pool2d avg_pool3d lp_pool1d lp_pool2d lp_pool3d "
    "max_pool1d max_pool2d max_pool3d alpha_dropout clone contiguous detach double dropout "
    "dropout1d dropout2d dropout3d dropout_ feature_alpha_dropout to positive celu celu_ "
    "clamp_max cos elu elu_ erf exp gelu hardshrink hardsigmoid hardswish hardtanh hardtanh_ "
    "log_softmax logsigmoid mish relu6 selu selu_ sigmoid sigmoid_ silu sin softmax softmin "
    "softplus softshrink softsign square tanh tanh_ tanhshrink sqrt reciprocal sinh cosh tan "
    "atan asinh expm1 log1p erfc sign round floor ceil frac exp_ sin_ square_"
)
FUNCTION_ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "clamp_max": (0.5,),
    "softmax": (1,),
    "softmin": (1,),
    "log_softmax": (1,),
    "to": (torch.float64,),
    **dict.fromkeys(("max_pool1d", "max_pool2d", "max_pool3d"), (2,)),
    **dict.fromkeys(("avg_pool1d", "avg_pool2d", "avg_pool3d"), (2,)),
    **dict.fromkeys(("lp_pool1d", "lp_pool2d", "lp_pool3d"), (2, 2)),
    **{f"adaptive_{kind}_pool{n}d": (2,) for kind in ("avg", "max") for n in (1, 2, 3)},
}


def make_function(name: str, home: Any) -> Callable[[Any], Any]:
    function = getattr(home, name)
    arguments = FUNCTION_ARGUMENTS.get(name, ())
    if "dropout" in name:
        arguments = (0.5, False)

    def call(x: Any) -> Any:
        result = function(x, *arguments)
        # Some poolings tell the positions of what they choose, too.
        return result[0] if isinstance(result, tuple) else result

    return call


@pytest.mark.parametrize(
    ("name", "home"),
    [
        pytest.param(name, home, id=f"{home.__name__.rpartition('.')[2]}.{name}")
        for name in sorted(NAMES.split())
        for home in (F, torch, torch.Tensor)
        if callable(getattr(home, name, None))
    ],
)
def test_functions_commute_with_factors_where_they_are_said_to(name: str, home: Any) -> None:
    function, n_axes = make_function(name, home), n_axes_of(name)
    assert said_to_commute(function, n_axes) is commutes(function, values(n_axes))


@pytest.mark.parametrize("threshold", [0, 0.0, 1, -1])
@pytest.mark.parametrize("value", [0, 0.0, 1, -1])
def test_thresholds(threshold: float, value: float) -> None:
    module = nn.Threshold(threshold, value)
    marked = read_graph(nn.Sequential(nn.Linear(3, 4), module, nn.Linear(4, 2))).layers[1]
    assert marked.rescalable == commutes(module, values(2))


@pytest.mark.parametrize("value", [0, 0.0, -0.0, 1, -2.5])
@pytest.mark.parametrize("n_axes", [1, 2, 3])
def test_constant_padding(value: float, n_axes: int) -> None:
    pad = getattr(nn, f"ConstantPad{n_axes}d")(1, value)
    conv = getattr(nn, f"Conv{n_axes}d")
    graph = read_graph(nn.Sequential(conv(2, 3, 2), nn.ReLU(), pad, conv(3, 4, 2)))
    assert graph.layers[0].rescalable == commutes(pad, values(n_axes))


# What graphs say.

KEEPING: dict[str, Make] = {
    "nothing": lambda n: nn.Identity(),
    "relu": lambda n: nn.ReLU(inplace=True),
    "leaky": lambda n: nn.LeakyReLU(0.2),
    "prelu": lambda n: nn.PReLU(),
    "prelu each": nn.PReLU,
    "rrelu": lambda n: nn.RReLU(),
    "threshold": lambda n: nn.Threshold(0, 0),
    "dropout": lambda n: nn.Dropout(0.3),
}
CHANGING: dict[str, Make] = {
    "gelu": lambda n: nn.GELU(),
    "tanh": lambda n: nn.Tanh(),
    "sigmoid": lambda n: nn.Sigmoid(),
    "softplus": lambda n: nn.Softplus(),
    "silu": lambda n: nn.SiLU(),
    "elu": lambda n: nn.ELU(),
    "relu6": lambda n: nn.ReLU6(),
    "hardtanh": lambda n: nn.Hardtanh(),
    "threshold 1": lambda n: nn.Threshold(0.1, 0),
    "threshold value": lambda n: nn.Threshold(0, 0.1),
    "layer norm": nn.LayerNorm,
    "rms norm": nn.RMSNorm,
    "group norm": lambda n: nn.GroupNorm(1, n),
    "softmax": lambda n: nn.Softmax(dim=1),
}
FLAT: dict[str, Make] = {**KEEPING, "batch norm": nn.BatchNorm1d, **CHANGING}
MAPS: dict[str, Make] = {
    **KEEPING,
    "dropout": lambda n: nn.Dropout2d(0.3),
    "batch norm": nn.BatchNorm2d,
    "max pool": lambda n: nn.MaxPool2d(2, stride=1, padding=1),
    "avg pool": lambda n: nn.AvgPool2d(2, stride=1, padding=1),
    "lp pool": lambda n: nn.LPPool2d(2, 2, stride=1),
    "upsample": lambda n: nn.Upsample(scale_factor=2, mode="bilinear"),
    "adaptive": lambda n: nn.AdaptiveAvgPool2d(5),
    "zero pad": lambda n: nn.ZeroPad2d(1),
    "reflect": lambda n: nn.ReflectionPad2d(1),
    "constant pad 0": lambda n: nn.ConstantPad2d(1, 0.0),
    "constant pad 1": lambda n: nn.ConstantPad2d(1, 1.0),
    "instance norm": lambda n: nn.InstanceNorm2d(n, affine=True),
    "softmax2d": lambda n: nn.Softmax2d(),
    "tanh": lambda n: nn.Tanh(),
    "gelu": lambda n: nn.GELU(),
}
KEEP = {*KEEPING, "batch norm", "max pool", "avg pool", "lp pool", "upsample", "adaptive"} | {
    "zero pad",
    "reflect",
    "constant pad 0",
}


def perceptron(*between: Sequence[Any], sizes: Sequence[int] = (5, 7, 6, 4, 3)) -> Any:
    """Linear layers with these modules between them."""
    parts: list[Any] = []
    for at, pieces in enumerate(between):
        parts += [nn.Linear(sizes[at], sizes[at + 1]), *pieces]
    return nn.Sequential(*parts, nn.Linear(sizes[len(between)], 3))


@pytest.mark.parametrize("name", FLAT)
def test_each_activation_between_linear_layers(name: str) -> None:
    model = perceptron([FLAT[name](7)], [nn.ReLU()])
    assert roles(read_graph(model)) == [
        ("input", False, ("0",)),
        ("0", name in KEEP, ("2",)),
        ("2", True, ("4",)),
        ("4", False, ()),
    ]


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("scope", ["paper", "all"])
def test_each_operation_between_convolutions(name: str, scope: str) -> None:
    model = nn.Sequential(nn.Conv2d(2, 4, 2), MAPS[name](4), nn.Conv2d(4, 3, 2), nn.Tanh())
    expected: list[Role] = [("0", name in KEEP, ("2",)), ("2", False, ())]
    if scope == "all":
        expected = [("input", False, ("0",)), *expected]
    assert roles(read_graph(model, scope=scope)) == expected


def test_without_activations_layers_are_rescalable() -> None:
    assert [role[1] for role in roles(read_graph(perceptron([], [], [])))] == [
        False, True, True, True, False,
    ]  # fmt: skip


@pytest.mark.parametrize(
    "pieces",
    [
        [nn.BatchNorm1d(7), nn.ReLU()],
        [nn.ReLU(), nn.BatchNorm1d(7)],
        [nn.BatchNorm1d(7), nn.ReLU(), nn.BatchNorm1d(7), nn.Dropout(), nn.LeakyReLU()],
    ],
)
def test_batch_norms_on_either_side_of_the_activation(pieces: list[Any]) -> None:
    assert read_graph(perceptron(pieces)).layers[1].rescalable is True


def test_batch_norm_without_running_statistics_undoes_factors() -> None:
    norm = nn.BatchNorm1d(7, track_running_stats=False)
    assert read_graph(perceptron([norm, nn.ReLU()])).layers[1].rescalable is False


@pytest.mark.parametrize("pieces", [[nn.ReLU(), nn.Tanh()], [nn.Tanh(), nn.ReLU()]])
def test_one_operation_that_does_not_commute_is_enough(pieces: list[Any]) -> None:
    assert read_graph(perceptron(pieces)).layers[1].rescalable is False


def test_what_comes_before_the_first_layer_and_after_the_last_has_no_say() -> None:
    model = nn.Sequential(nn.Tanh(), nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2), nn.Softmax(dim=1))
    assert roles(read_graph(model)) == [
        ("input", False, ("1",)),
        ("1", True, ("3",)),
        ("3", False, ()),
    ]
    assert roles(read_graph(nn.Sequential(*model[1:4], nn.ReLU())))[-1] == ("2", False, ())


class Between(nn.Module):
    """Two linear layers with a function between them."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 2)
        self.function = function

    def forward(self, x: Any) -> Any:
        return self.second(self.function(self.first(x)))


FUNCTIONS: dict[str, tuple[Callable[[Any], Any], bool]] = {
    "torch.relu": (torch.relu, True),
    "F.relu": (F.relu, True),
    "x.relu()": (lambda x: x.relu(), True),
    "x.relu_()": (lambda x: x.relu_(), True),
    "leaky_relu": (lambda x: F.leaky_relu(x, 0.1), True),
    "torch.abs": (torch.abs, True),
    "clamp(min=0)": (lambda x: x.clamp(min=0), True),
    "clamp(0)": (lambda x: torch.clamp(x, 0), True),
    "clamp_min(0)": (lambda x: x.clamp_min(0.0), True),
    "clip(min=0)": (lambda x: torch.clip(x, min=0), True),
    "clamp(0, 6)": (lambda x: x.clamp(0, 6), False),
    "clamp(min=0, max=6)": (lambda x: torch.clamp(x, min=0, max=6), False),
    "clamp(min=-1)": (lambda x: x.clamp(min=-1), False),
    "clamp(max=1)": (lambda x: x.clamp(max=1), False),
    "clamp_max(1)": (lambda x: x.clamp_max(1), False),
    "clamp_min(1)": (lambda x: torch.clamp_min(x, 1), False),
    "threshold(0, 0)": (lambda x: F.threshold(x, 0, 0), True),
    "threshold=0": (lambda x: F.threshold(x, threshold=0, value=0), True),
    "threshold(1, 0)": (lambda x: F.threshold(x, 1, 0), False),
    "threshold(0, 1)": (lambda x: F.threshold(x, 0, 1), False),
    "F.gelu": (F.gelu, False),
    "F.logsigmoid": (F.logsigmoid, False),
    "torch.threshold(0, 0)": (lambda x: torch.threshold(x, 0, 0), True),
    "torch.tanh": (torch.tanh, False),
    "x.sigmoid()": (lambda x: x.sigmoid(), False),
    "relu6": (F.relu6, False),
    "square": (torch.square, False),
    "softmax": (lambda x: F.softmax(x, dim=1), False),
    "dropout": (lambda x: F.dropout(x, 0.5), True),
    "nothing": (lambda x: x, True),
    "relu, then tanh": (lambda x: torch.tanh(F.relu(x)), False),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name: str) -> None:
    function, rescalable = FUNCTIONS[name]
    assert roles(read_graph(Between(function))) == [
        ("input", False, ("first",)),
        ("first", rescalable, ("second",)),
        ("second", False, ()),
    ]


def convolutional() -> Any:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 2, groups=2), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(24, 5), nn.Tanh(), nn.Linear(5, 2),
    )  # fmt: skip


def test_in_scope_paper_the_last_channels_are_hidden_and_read_from_outside() -> None:
    assert roles(read_graph(convolutional())) == [("0", True, ("2",)), ("2", True, ("5",))]
    model = convolutional()
    model[3] = nn.Sequential(nn.MaxPool2d(2), nn.Sigmoid())
    assert roles(read_graph(model)) == [("0", True, ("2",)), ("2", False, ("5",))]
    assert roles(read_graph(model[:3])) == [("0", True, ("2",)), ("2", False, ())]


def test_in_scope_all_the_rest_is_there_too() -> None:
    assert roles(read_graph(convolutional(), scope="all")) == [
        ("input", False, ("0",)),
        ("0", True, ("2",)),
        ("2", True, ("5",)),
        ("5", False, ("7",)),
        ("7", False, ()),
    ]


@pytest.mark.parametrize("change", [prune.identity, parametrizations.weight_norm])
def test_readers_are_modules_whatever_holds_their_weights(change: Any) -> None:
    model = perceptron([nn.ReLU()])
    change(model[2], "weight")
    assert roles(read_graph(model))[1] == ("0", True, ("2",))


class OwnLinear(nn.Linear):
    """A layer that computes as its base class does."""


class OwnReLU(nn.ReLU):
    """An activation that does."""


class Doubled(nn.Linear):
    def forward(self, x: Any) -> Any:
        return 2 * super().forward(x)


def test_subclasses_that_inherit_the_forward_pass_are_what_they_inherit_from() -> None:
    model = nn.Sequential(OwnLinear(5, 4), OwnReLU(), OwnLinear(4, 3), nn.Tanh(), nn.Linear(3, 2))
    graph = read_graph(model)
    assert roles(graph) == [
        ("input", False, ("0",)),
        ("0", True, ("2",)),
        ("2", False, ("4",)),
        ("4", False, ()),
    ]
    assert_array_equal(
        reference.dense(graph.blocks[0].weights), model[0].weight.detach().abs().numpy().T
    )


def test_subclasses_with_a_forward_pass_of_their_own_are_what_that_says() -> None:
    one = OwnLinear(5, 4)
    one.forward = lambda x: 2 * nn.Linear.forward(one, x)
    for layer in (Doubled(5, 4), one):
        graph = read_graph(nn.Sequential(layer, nn.ReLU(), nn.Linear(4, 3)))
        assert roles(graph) == [
            ("input", False, ("0",)),
            ("0", True, ("2",)),
            ("2", False, ()),
        ]
        expected = 2 * layer.weight.detach().abs().numpy().T
        assert_array_equal(reference.dense(graph.blocks[0].weights), expected)


def test_roles_stay_when_isolated_neurons_go() -> None:
    model = perceptron([nn.ReLU()], [nn.Tanh()])
    with torch.no_grad():
        model[0].weight[2] = 0
        model[2].weight[:, 2] = 0
    graph = read_graph(model)
    connected, _ = graph.without_isolated()
    assert connected.n_vertices == graph.n_vertices - 1
    assert roles(connected) == roles(graph)


# Arrays and files do not tell activations.


def test_lists_do_not_tell_activations() -> None:
    graph = read_graph(random_chain(3, (5, 4, 3, 2)))
    assert roles(graph) == [
        ("input", False, ("w0",)),
        ("w0", None, ("w1",)),
        ("w1", None, ("w2",)),
        ("w2", False, ()),
    ]
    assert all(tie == ("w" + str(at), "", False) for at, tie in enumerate(ties(graph)))


def test_lists_of_kernels() -> None:
    arrays = [np.ones((4, 2, 3)), np.ones((5, 4, 2)), np.ones((10, 3))]
    assert roles(read_graph(arrays)) == [("w0", None, ("w1",)), ("w1", None, ("w2",))]
    assert roles(read_graph(arrays, scope="all")) == [
        ("input", False, ("w0",)),
        ("w0", None, ("w1",)),
        ("w1", None, ("w2",)),
        ("w2", False, ()),
    ]


@pytest.mark.parametrize("suffix", ["", ".pt", ".npz"])
def test_state_dicts_and_files_do_not_tell_activations(suffix: str, tmp_path: Path) -> None:
    model = perceptron([nn.BatchNorm1d(7), nn.ReLU()], [nn.ReLU()])
    state: Any = model.state_dict()
    if suffix == ".pt":
        torch.save(state, tmp_path / "model.pt")
    if suffix == ".npz":
        np.savez(tmp_path / "model.npz", **{name: value.numpy() for name, value in state.items()})
    assert roles(read_graph(tmp_path / f"model{suffix}" if suffix else state)) == [
        ("input", False, ("0",)),
        ("0", None, ("3",)),
        ("3", None, ("5",)),
        ("5", False, ()),
    ]


def test_files_of_single_arrays(tmp_path: Path) -> None:
    for at, weights in enumerate(random_chain(3, (5, 4, 3))):
        np.save(tmp_path / f"{at}.npy", weights)
    graph = read_graph([tmp_path / "0.npy", str(tmp_path / "1.npy")])
    assert roles(graph) == [("input", False, ("w0",)), ("w0", None, ("w1",)), ("w1", False, ())]


def test_an_adjacency_has_no_roles() -> None:
    graph = read_graph(chain_graph(random_chain(3, (5, 4, 3))).adjacency)
    assert [(layer.rescalable, layer.read_by) for layer in graph.layers] == [(None, ())]


# Copies.

W, V = random_chain(7, (6, 6, 6))
TALL = random_chain(9, (6, 4))[0]


@pytest.mark.parametrize(
    ("arrays", "found", "hidden"),
    [
        ([W, W], [("w0", False), ("w0", False)], [False]),
        ([W, W.copy(), V], [("w0", False), ("w0", False), ("", False)], [False, False]),
        ([W, V, W], [("w0", False), ("", False), ("w0", False)], [False, False]),
        ([W, V, TALL, TALL.T], [("", False)] * 2 + [("w2", False), ("w2", True)],
         [None, False, False]),
        ([V, V.T, W, TALL], [("w0", False), ("w0", True), ("", False), ("", False)],
         [False, False, None]),
        ([TALL, W[:4, :4], W[:4, :4].T, TALL.T],
         [("w0", False), ("w1", False), ("w1", True), ("w0", True)], [False, False, False]),
        ([W, W.T, W, W.T], [("w0", False), ("w0", True)] * 2, [False] * 3),
        ([W, W.astype(np.float32)], [("", False)] * 2, [None]),
        ([W, -W], [("", False)] * 2, [None]),
        ([W, 2 * W], [("", False)] * 2, [None]),
    ],
)  # fmt: skip
def test_copies_in_lists(
    arrays: list[NDArray[np.floating]],
    found: list[tuple[str, bool]],
    hidden: list[bool | None],
) -> None:
    graph = read_graph(arrays)
    assert ties(graph) == [(f"w{at}", *tie) for at, tie in enumerate(found)]
    # A factor of a neuron of a shared matrix would have to be that of another one's too.
    assert [layer.rescalable for layer in graph.layers] == [False, *hidden, False]


def test_copies_of_other_precision_with_the_same_values_are_copies() -> None:
    weights = np.arange(1.0, 37).reshape(6, 6)
    graph = read_graph([weights, weights.astype(np.float16)])
    assert ties(graph) == [("w0", "w0", False), ("w1", "w0", False)]


def test_signs_are_compared_though_edges_have_none() -> None:
    signs = np.where(np.eye(6) > 0, -1, 1)
    assert ties(read_graph([W, signs * W])) == [("w0", "", False), ("w1", "", False)]
    assert ties(read_graph([signs * W, signs * W]))[1] == ("w1", "w0", False)


def test_copies_of_kernels_are_never_transposed() -> None:
    kernel = np.random.default_rng(0).random((4, 4, 3))
    assert ties(read_graph([np.ones((4, 2, 3)), kernel, kernel])) == [
        ("w1", "w1", False),
        ("w2", "w1", False),
    ]
    turned = np.ascontiguousarray(kernel.transpose(1, 0, 2))
    assert ties(read_graph([np.ones((4, 2, 3)), kernel, turned]))[1] == ("w2", "", False)


class Twice(nn.Module):
    """A layer called twice, and one that is called once on either side."""

    def __init__(self) -> None:
        super().__init__()
        self.start, self.twice = nn.Linear(3, 4), nn.Linear(4, 4)
        self.middle, self.end = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Any) -> Any:
        x = torch.relu(self.twice(torch.relu(self.start(x))))
        x = torch.relu(self.twice(torch.relu(self.middle(x))))
        return self.end(x)


def test_modules_called_twice() -> None:
    graph = read_graph(Twice())
    assert roles(graph) == [
        ("input", False, ("start",)),
        ("start", False, ("twice",)),
        ("twice", False, ("middle",)),
        ("middle", False, ("twice",)),
        ("twice (call 2)", False, ("end",)),
        ("end", False, ()),
    ]
    assert ties(graph) == [
        ("start", "", False),
        ("twice", "twice", False),
        ("middle", "", False),
        ("twice (call 2)", "twice", False),
        ("end", "", False),
    ]


def test_parameters_that_modules_share() -> None:
    model = perceptron([nn.ReLU()], [nn.ReLU()], [nn.ReLU()], sizes=(3, 4, 4, 4))
    model[4].weight = model[2].weight
    assert [layer.rescalable for layer in read_graph(model).layers] == [False] * 5
    untied = perceptron([nn.ReLU()], [nn.ReLU()], [nn.ReLU()], sizes=(3, 4, 4, 4))
    assert [x.rescalable for x in read_graph(untied).layers] == [False, True, True, True, False]


class Outside(nn.Module):
    """Convolutions of which one shares weights, before linear layers of which one does."""

    def __init__(self, shared: str) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))
        self.d, self.f, self.g, self.h = nn.Conv2d(3, 4, 3), *(nn.Linear(16, 16) for _ in range(3))
        if shared == "image":
            self.c = self.a
        if shared == "linear":
            self.g = self.f

    def forward(self, x: Any) -> Any:
        for conv in (self.a, self.b, self.c, self.d):
            x = torch.relu(conv(x))
        x = torch.flatten(x, 1)
        for linear in (self.f, self.h, self.g):
            x = torch.relu(linear(x))
        return x


@pytest.mark.parametrize(
    ("shared", "rescalable"),
    [
        ("", [True, True, True, True]),
        ("image", [False, False, False, True]),
        ("linear", [True, True, True, False]),
    ],
)
def test_weights_shared_with_layers_outside_of_the_graph(
    shared: str, rescalable: list[bool]
) -> None:
    graph = read_graph(Outside(shared))
    assert [layer.rescalable for layer in graph.layers] == rescalable
    everything = read_graph(Outside(shared), scope="all")
    assert [layer.rescalable for layer in everything.layers[1:5]] == rescalable
    # A block has a tie only where the graph has another block to tie it to.
    assert all(block.tie == "" for block in graph.blocks)


# That it is true: the function of rescaled networks.


def writers_and_readers(model: Any, graph: NeuronGraph) -> list[tuple[Layer, int, int]]:
    """The graph's hidden layers, with the positions of who writes and who reads them."""
    positions = {name: at for at, (name, _) in enumerate(model.named_children())}
    return [
        (layer, positions[layer.name], positions[layer.read_by[0]])
        for layer in graph.layers
        if layer.name in positions and layer.read_by
    ]


def rescaled(model: Any, writer: int, reader: int, factors: Any) -> Any:
    """A copy of a sequence with a layer's neurons multiplied and their readers divided."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        for part in model[writer:reader]:
            if isinstance(part, nn.Linear | nn.Conv2d):
                part.weight.mul_(factors.reshape(-1, *[1] * (part.weight.ndim - 1)))
                part.bias.mul_(factors)
            if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
                # Its shifts are biases, too.
                each = factors.repeat_interleave(part.num_features // factors.numel())
                part.running_mean.mul_(each)
                part.bias.mul_(each)
        last = model[reader]
        if isinstance(last, nn.Linear):
            last.weight.div_(factors.repeat_interleave(last.in_features // factors.numel()))
        else:
            per_group = last.in_channels // last.groups
            group = torch.arange(last.out_channels) // (last.out_channels // last.groups)
            inputs = group[:, None] * per_group + torch.arange(per_group)
            last.weight.div_(factors[inputs][:, :, None, None])
    return model


def outputs(model: Any, x: Any) -> NDArray[np.float64]:
    with torch.no_grad():
        found: NDArray[np.float64] = model(x.clone()).numpy()
    return found


def random_factors(n: int) -> Any:
    generator = torch.Generator().manual_seed(n)
    return torch.exp(torch.randn(n, generator=generator, dtype=torch.float64))


def check_function_and_weights(model: Any, x: Any, scope: str, norm: str) -> None:
    """Rescaling a layer that allows it keeps the function, and scales the edges as promised."""
    graph = read_graph(model, scope=scope, norm=norm)
    weights = [reference.dense(block.weights) for block in graph.blocks]
    before = outputs(model, x)
    assert np.ptp(before) > 0
    for layer, writer, reader in writers_and_readers(model, graph):
        if not layer.rescalable:
            continue
        factors = random_factors(layer.size)
        changed = rescaled(model, writer, reader, factors)
        assert_allclose(outputs(changed, x), before, rtol=1e-8, atol=1e-10)
        other = read_graph(changed, scope=scope, norm=norm)
        at = graph.layers.index(layer)
        for block, old, new in zip(graph.blocks, weights, other.blocks, strict=True):
            expected = old
            if block.target == at:
                expected = old * factors.numpy()
            if block.source == at:
                expected = old / factors.numpy()[:, None]
            assert_allclose(reference.dense(new.weights), expected, rtol=1e-9)


PIECES = st.lists(st.sampled_from(sorted(FLAT)), max_size=3)
MAP_PIECES = st.lists(st.sampled_from(sorted(MAPS)), max_size=3)


@given(PIECES, PIECES, PIECES)
def test_any_perceptron(first: list[str], second: list[str], third: list[str]) -> None:
    sizes, between = (5, 7, 6, 4), (first, second, third)
    pieces = [[FLAT[name](n) for name in x] for x, n in zip(between, sizes[1:], strict=True)]
    model = trained(perceptron(*pieces, sizes=sizes))
    graph = read_graph(model)
    expected = [{*names} <= KEEP for names in between]
    assert [layer.rescalable for layer in graph.layers] == [False, *expected, False]
    x = torch.randn(20, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    check_function_and_weights(model, x, "paper", "l1")


@settings(max_examples=40)
@given(
    MAP_PIECES,
    MAP_PIECES,
    PIECES,
    st.sampled_from([1, 2]),
    st.sampled_from(["paper", "all"]),
    st.sampled_from(["l1", "l2"]),
)
def test_any_convolutional_network(
    first: list[str], second: list[str], third: list[str], groups: int, scope: str, norm: str
) -> None:
    parts = [
        nn.Conv2d(2, 4, 3, padding=1),
        *(MAPS[name](4) for name in first),
        nn.Conv2d(4, 6, 3, groups=groups, padding=1, padding_mode="reflect"),
        *(MAPS[name](6) for name in second),
        nn.AdaptiveMaxPool2d(2),
        nn.Flatten(),
        *(FLAT[name](24) for name in third if name != "prelu each"),
        nn.Linear(24, 3),
    ]
    model = trained(nn.Sequential(*parts))
    graph = read_graph(model, scope=scope)
    found = {layer.name: layer.rescalable for layer in graph.layers}
    assert found["0"] == ({*first} <= KEEP)
    assert found[str(1 + len(first))] == ({*second, *third} <= KEEP)
    x = torch.randn(5, 2, 7, 7, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    check_function_and_weights(model, x, scope, norm)


@pytest.mark.parametrize("name", CHANGING)
def test_where_a_layer_is_not_rescalable_factors_change_the_function(name: str) -> None:
    model = trained(perceptron([CHANGING[name](7)]))
    # Large enough to reach the bend of each activation.
    x = 5 * torch.randn(20, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    (layer, writer, reader) = writers_and_readers(model, read_graph(model))[0]
    assert layer.rescalable is False
    changed = rescaled(model, writer, reader, random_factors(7))
    assert np.abs(outputs(changed, x) - outputs(model, x)).max() > 1e-3


def test_where_weights_are_shared_factors_change_the_function() -> None:
    model = trained(perceptron([nn.ReLU()], [nn.ReLU()], sizes=(5, 5, 5)))
    model[2].weight = model[0].weight
    x = torch.randn(20, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    changed = copy.deepcopy(model)
    with torch.no_grad():
        changed[0].weight[0] *= 2
        changed[0].bias[0] *= 2
        changed[2].weight[:, 0] /= 2
    assert changed[0].weight is changed[2].weight
    assert np.abs(outputs(changed, x) - outputs(model, x)).max() > 1e-3


# Saved graphs.


def with_roles() -> NeuronGraph:
    """A graph with one of each: rescalable or not or unknown, readers, copies, a CSR block."""
    (weights,) = random_chain(7, (9, 9), 0.4)
    graph = chain_graph([weights, weights.T.copy(), weights, random_chain(8, (9, 40), 0.05)[0]])
    marks = (False, True, None, True, None)
    readers: tuple[tuple[str, ...], ...] = (("first",), ("Größe", "b"), (), ("last",), ())
    layers = tuple(
        replace(layer, rescalable=mark, read_by=read)
        for layer, mark, read in zip(graph.layers, marks, readers, strict=True)
    )
    one, two, three, four = graph.blocks
    blocks = (
        replace(one, tie="w0"),
        replace(two, tie="w0", tie_transposed=True),
        replace(three, weights=as_csr(reference.dense(three.weights))),
        four,
    )
    return replace(graph, layers=layers, blocks=blocks)


def resaved(graph: NeuronGraph, path: Path, **changes: Any) -> Path:
    """The graph's file with other entries in its header; None removes one."""
    graph.save(path)
    with np.load(path) as stored:
        arrays = dict(stored)
    header = json.loads(str(arrays["ncut_graph"]))
    for name, value in changes.items():
        assert name in header
        if value is None:
            del header[name]
        else:
            header[name] = value
    np.savez(path, **(arrays | {"ncut_graph": np.array(json.dumps(header))}))
    return path


@pytest.mark.parametrize("make", [with_roles, lambda: read_graph(Twice())])
def test_roles_and_ties_are_saved(make: Callable[[], NeuronGraph], tmp_path: Path) -> None:
    graph = make()
    graph.save(tmp_path / "graph.npz")
    for loaded in (NeuronGraph.load(tmp_path / "graph.npz"), read_graph(tmp_path / "graph.npz")):
        assert loaded.layers == graph.layers
        assert ties(loaded) == ties(graph)
        for layer in loaded.layers:
            assert layer.rescalable is None or isinstance(layer.rescalable, bool)
            assert isinstance(layer.read_by, tuple)
        for block, original in zip(loaded.blocks, graph.blocks, strict=True):
            assert_array_equal(reference.dense(block.weights), reference.dense(original.weights))
            assert isinstance(block.tie_transposed, bool)


def test_files_from_before_roles_still_load(tmp_path: Path) -> None:
    graph = with_roles()
    path = resaved(graph, tmp_path / "graph.npz", rescalable=None, read_by=None, ties=None)
    loaded = NeuronGraph.load(path)
    assert [(x.rescalable, x.read_by) for x in loaded.layers] == [(None, ())] * 5
    assert [block.tie for block in loaded.blocks] == [""] * 4
    assert [x.name for x in loaded.layers] == [x.name for x in graph.layers]
    assert (loaded.adjacency != graph.adjacency).nnz == 0


@pytest.mark.parametrize("name", ["rescalable", "read_by", "ties"])
def test_files_with_some_of_them_load_too(name: str, tmp_path: Path) -> None:
    removed: dict[str, Any] = {name: None}
    loaded = NeuronGraph.load(resaved(with_roles(), tmp_path / "graph.npz", **removed))
    assert (loaded.layers == with_roles().layers) == (name == "ties")
    assert (ties(loaded) == ties(with_roles())) == (name != "ties")


@pytest.mark.parametrize(
    "changes",
    [
        {"rescalable": [True]},
        {"rescalable": [True] * 6},
        {"rescalable": ["yes", None, None, None, None]},
        {"rescalable": [2, None, None, None, None]},
        {"rescalable": [1, None, None, None, None]},
        {"rescalable": [[], None, None, None, None]},
        {"rescalable": 5},
        {"read_by": [[]]},
        {"read_by": [3, [], [], [], []]},
        {"read_by": 7},
        {"ties": [["", False]]},
        {"ties": [["", False, 1]] * 4},
        {"ties": [[]] * 4},
        {"ties": 3},
    ],
    ids=str,
)
def test_damaged_roles_are_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    path = resaved(with_roles(), tmp_path / "graph.npz", **changes)
    with pytest.raises(ModelError, match=r"saved graph"):
        NeuronGraph.load(path)


def test_an_adjacency_is_saved_without_roles(tmp_path: Path) -> None:
    from_adjacency(with_roles().adjacency).save(tmp_path / "graph.npz")
    (layer,) = NeuronGraph.load(tmp_path / "graph.npz").layers
    assert (layer.rescalable, layer.read_by) == (None, ())
