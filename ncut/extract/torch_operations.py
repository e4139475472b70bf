"""What each torch operation does to a chain: tables from its name to a handler.

To read one more operation, write a handler and enter its name in `MODULES` (a class of
torch.nn) or `FUNCTIONS` (a function of torch or torch.nn.functional, or a tensor's method).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ncut.errors import ModelError
from ncut.extract.arrays import as_array
from ncut.extract.builder import ADVICE, ChainBuilder
from ncut.extract.chain import ChainLayer, normalization_scale


@dataclass(frozen=True, slots=True)
class Shape:
    """A number that a forward pass reads off a tensor's shape, unknown until it runs."""


@dataclass(frozen=True, slots=True)
class Step:
    """One operation of a forward pass.

    Attributes
    ----------
    name : str
        The module's qualified name (a second call of it marked), or the traced name.
    operation : str
        Name of the torch.nn class, the function or the method.
    place : str
        The operation and where it stands, for messages.
    target : str
        The module's qualified name.
    args, kwargs
        Its arguments except for the value it reads; `Shape()` stands for a size.
    module : torch.nn.Module or None
        The module called.
    """

    name: str
    operation: str
    place: str
    target: str = ""
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] | None = None
    module: Any = None

    def argument(self, position: int, keyword: str, default: Any = None) -> Any:
        """An argument given by position or by keyword."""
        if position < len(self.args):
            return self.args[position]
        return (self.kwargs or {}).get(keyword, default)


Handler: TypeAlias = Callable[[ChainBuilder, Step], None]


def handler(step: Step) -> Handler | None:
    """The handler of a step, None if the operation is not known."""
    return (FUNCTIONS if step.module is None else MODULES).get(step.operation)


def _linear(builder: ChainBuilder, step: Step) -> None:
    weight = _weight(step.module).T
    builder.add(ChainLayer(step.name, weight, "linear", rescalable=True, module=step.target))


def _convolution(builder: ChainBuilder, step: Step) -> None:
    weight = _weight(step.module)
    groups = int(step.module.groups)
    builder.add(ChainLayer(step.name, weight, "conv", groups, rescalable=True, module=step.target))


def _batch_norm(builder: ChainBuilder, step: Step) -> None:
    norm = step.module
    if norm.running_var is None:
        builder.note(
            step.name, (norm.num_features,), "batch norm without running statistics: not folded"
        )
        builder.activation(homogeneous=False)
        return
    gamma = None if norm.weight is None else as_array(norm.weight, step.place)
    variance = as_array(norm.running_var, step.place)
    builder.scale(step.name, normalization_scale(gamma, variance, norm.eps))


def _data_norm(builder: ChainBuilder, step: Step) -> None:
    weight = getattr(step.module, "weight", None)
    shape = () if weight is None else tuple(weight.shape)
    builder.note(step.name, shape, f"{step.operation}: its scale depends on the data, not folded")
    builder.activation(homogeneous=False)


def _activation(builder: ChainBuilder, step: Step) -> None:
    builder.activation(homogeneous=False)


def _homogeneous(builder: ChainBuilder, step: Step) -> None:
    builder.activation(homogeneous=True)


def _threshold(builder: ChainBuilder, step: Step) -> None:
    """max(x, 0) in other words, or not."""
    numbers = [
        getattr(step.module, name, step.argument(at, name))
        for at, name in enumerate(("threshold", "value"))
    ]
    builder.activation(homogeneous=numbers == [0, 0])


def _clamp(builder: ChainBuilder, step: Step) -> None:
    low, high = step.argument(0, "min"), step.argument(1, "max")
    builder.activation(homogeneous=low == 0 and high is None)


def _keep(builder: ChainBuilder, step: Step) -> None:
    pass


def _pool(builder: ChainBuilder, step: Step) -> None:
    builder.pool()


def _pad(builder: ChainBuilder, step: Step) -> None:
    builder.pool()
    if step.module.value != 0:
        builder.activation(homogeneous=False)


def _rearrange(builder: ChainBuilder, step: Step) -> None:
    builder.rearrange()


def _flatten_module(builder: ChainBuilder, step: Step) -> None:
    _flatten_axes(builder, step.module.start_dim, step.module.end_dim)


def _flatten_function(builder: ChainBuilder, step: Step) -> None:
    _flatten_axes(builder, step.argument(0, "start_dim", 0), step.argument(1, "end_dim", -1))


def _flatten_axes(builder: ChainBuilder, start: Any, end: Any) -> None:
    if (start, end) != (1, -1):
        raise ModelError(
            f"it flattens the axes {start} to {end}; all but the batch axis, torch.flatten(x, 1), "
            f"is understood. {ADVICE}"
        )
    builder.flatten()


def _view(builder: ChainBuilder, step: Step) -> None:
    """A view or reshape to (batch, features) flattens; before the first layer any shape goes."""
    sizes = step.args[0] if len(step.args) == 1 else step.args or (step.kwargs or {}).get("shape")
    if isinstance(sizes, tuple | list) and len(sizes) == 2:
        batch, features = sizes
        known = isinstance(features, int)
        if isinstance(batch, Shape) and (known or isinstance(features, Shape)):
            return builder.flatten(features if known and features >= 0 else None)
        if batch == -1 and features != -1 and (known or isinstance(features, Shape)):
            return builder.flatten(features if known else None)
    if builder.layers:
        raise ModelError(
            "it gives the value a shape other than (batch, features); torch.flatten(x, 1) and "
            f"x.view(x.size(0), -1) are understood. {ADVICE}"
        )
    builder.rearrange()
    return None


def _reduce(builder: ChainBuilder, step: Step) -> None:
    """A mean or maximum over all positions of a convolution is a global pooling."""
    axes = step.argument(0, "dim")
    axes = (axes,) if isinstance(axes, int) else axes
    if not isinstance(axes, tuple | list) or not all(isinstance(axis, int) for axis in axes):
        raise ModelError(f"it reduces axes that are not given as numbers. {ADVICE}")
    keepdim = bool(step.argument(1, "keepdim", False))
    builder.reduce_positions(set(axes), keepdim=keepdim)


def _weight(layer: Any) -> NDArray[np.floating]:
    """The weight that the layer's next forward pass in evaluation would use."""
    return as_array(_weight_tensor(layer), "its weight")


def _weight_tensor(layer: Any) -> Any:
    from torch.nn.parameter import is_lazy

    if "weight" in getattr(layer, "parametrizations", {}):
        # A copy, because some parametrizations update their state whenever they are read.
        return copy.deepcopy(layer.parametrizations["weight"]).eval()()
    if hasattr(layer, "weight_orig") and hasattr(layer, "weight_mask"):
        return layer.weight_orig * layer.weight_mask
    if "weight" not in layer._parameters:
        raise ModelError(
            "its weight is set by a hook and may be out of date; call "
            "torch.nn.utils.remove_weight_norm (or remove_spectral_norm) on the layer, or use "
            "torch.nn.utils.parametrizations instead"
        )
    if is_lazy(layer.weight):
        raise ModelError("its weight has no shape yet: run the model once on an example first")
    return layer.weight


_ACTIVATION_MODULES = (
    "CELU ELU GELU Hardshrink Hardsigmoid Hardswish Hardtanh LogSigmoid LogSoftmax Mish ReLU6 "
    "SELU SiLU Sigmoid Softmax Softmax2d Softmin Softplus Softshrink Softsign Tanh Tanhshrink"
)
_HOMOGENEOUS_MODULES = "LeakyReLU PReLU RReLU ReLU"
_POOLING_MODULES = (
    "AdaptiveAvgPool1d AdaptiveAvgPool2d AdaptiveAvgPool3d AdaptiveMaxPool1d AdaptiveMaxPool2d "
    "AdaptiveMaxPool3d AvgPool1d AvgPool2d AvgPool3d FractionalMaxPool2d FractionalMaxPool3d "
    "LPPool1d LPPool2d LPPool3d MaxPool1d MaxPool2d MaxPool3d Upsample ZeroPad1d ZeroPad2d "
    "ZeroPad3d ReflectionPad1d ReflectionPad2d "
    "ReflectionPad3d ReplicationPad1d ReplicationPad2d ReplicationPad3d CircularPad1d "
    "CircularPad2d CircularPad3d"
)
_DROPOUT_MODULES = "AlphaDropout Dropout Dropout1d Dropout2d Dropout3d FeatureAlphaDropout"
_DATA_NORM_MODULES = (
    "LayerNorm GroupNorm RMSNorm LocalResponseNorm InstanceNorm1d InstanceNorm2d InstanceNorm3d"
)
_ACTIVATION_FUNCTIONS = (
    "celu celu_ clamp_max cos elu elu_ erf exp gelu hardshrink hardsigmoid hardswish hardtanh "
    "hardtanh_ log_softmax logsigmoid mish relu6 selu selu_ sigmoid sigmoid_ silu sin softmax "
    "softmin softplus softshrink softsign square tanh tanh_ tanhshrink"
)
_HOMOGENEOUS_FUNCTIONS = "abs abs_ leaky_relu leaky_relu_ relu relu_ rrelu rrelu_"
_POOLING_FUNCTIONS = (
    "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d "
    "adaptive_max_pool2d adaptive_max_pool3d avg_pool1d avg_pool2d avg_pool3d lp_pool1d lp_pool2d "
    "lp_pool3d max_pool1d max_pool2d max_pool3d"
)
_KEEPING_FUNCTIONS = (
    "alpha_dropout clone contiguous detach double dropout dropout1d dropout2d dropout3d dropout_ "
    "feature_alpha_dropout float half to"
)


def _table(*rows: tuple[str, Handler]) -> dict[str, Handler]:
    return {name: handle for names, handle in rows for name in names.split()}


MODULES = _table(
    ("Linear", _linear),
    ("Conv1d Conv2d Conv3d", _convolution),
    ("BatchNorm1d BatchNorm2d BatchNorm3d SyncBatchNorm", _batch_norm),
    (_DATA_NORM_MODULES, _data_norm),
    (_ACTIVATION_MODULES, _activation),
    (_HOMOGENEOUS_MODULES, _homogeneous),
    ("Threshold", _threshold),
    ("ConstantPad1d ConstantPad2d ConstantPad3d", _pad),
    (_POOLING_MODULES, _pool),
    (_DROPOUT_MODULES + " Identity", _keep),
    ("Flatten", _flatten_module),
    ("Unflatten", _rearrange),
)
FUNCTIONS = _table(
    (_ACTIVATION_FUNCTIONS, _activation),
    (_HOMOGENEOUS_FUNCTIONS, _homogeneous),
    ("threshold threshold_", _threshold),
    ("clamp clamp_ clamp_min clip", _clamp),
    (_POOLING_FUNCTIONS, _pool),
    (_KEEPING_FUNCTIONS, _keep),
    ("flatten", _flatten_function),
    ("view reshape", _view),
    ("mean amax", _reduce),
    ("unsqueeze permute", _rearrange),
)
