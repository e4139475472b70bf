"""Operations between layers: the claim that they commute with factors, against themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ncut.extract import read_graph

torch = pytest.importorskip("torch", reason="pip install 'ncut[torch]'")
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402, N812


@pytest.fixture(autouse=True)
def _same_weights_in_every_run() -> None:
    torch.manual_seed(0)


def values(n_axes: int) -> Any:
    """Four channels at so many axes of positions."""
    generator = torch.Generator().manual_seed(0)
    shape = (3, 4, *[6] * n_axes)
    return 2 * torch.randn(shape, generator=generator, dtype=torch.float64)


def n_axes_of(name: str) -> int:
    """Number of position axes by an operation's name, two by default."""
    return next((int(digit) for digit in "123" if f"{digit}d" in name), 2)


def commutes(operation: Callable[[Any], Any], x: Any) -> bool:
    """Check whether an operation commutes with positive factors of the channels."""
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
    """The graph's claim that the channels before an operation may be rescaled."""
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
