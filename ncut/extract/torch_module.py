"""A torch.nn.Module whose forward pass is a chain -> its layers, by symbolic tracing."""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ncut.errors import InputError, ModelError, import_extra
from ncut.extract.arrays import as_array
from ncut.extract.builder import ADVICE, ChainBuilder
from ncut.extract.chain import ChainLayer
from ncut.extract.modules import unwrapped
from ncut.extract.torch_operations import MODULES, Shape, Step, handler
from ncut.types import LeftOut

if TYPE_CHECKING:
    from torch import fx, nn


def read_module(
    module: nn.Module, *, initial: bool = False
) -> tuple[list[ChainLayer], list[LeftOut]]:
    """Read the weight layers of a module in the order of its forward pass.

    The forward pass is traced symbolically (torch.fx) and never run; hooks are not called.
    Arguments with a default take it. The module is left as it was, also after a failure.

    Parameters
    ----------
    module : torch.nn.Module
        Linear, convolution, batch norm, activation, dropout, pooling and flattening layers
        (or the functions of the same names), each reading the value before it.
    initial : bool
        Whether to add weights as each layer's `reset_parameters` makes them.

    Returns
    -------
    layers : list of ChainLayer
        The weight layers, batch norms folded into their scales.
    left_out : list of LeftOut
        Scales that were not folded, and weights that the forward pass does not use.

    Raises
    ------
    ModelError
        If the forward pass cannot be traced, is not a chain or has an unknown operation.
    """
    module = unwrapped(module)
    if isinstance(module, import_extra("torch", "torch").jit.ScriptModule):
        raise ModelError("a TorchScript module cannot be traced; pass the original module")
    name = type(module).__name__
    builder = ChainBuilder()
    used: dict[str, int] = {}
    with _attributes_kept(module):
        graph, module = _trace(module, name)
        for node, source in _chain(graph, name):
            _apply(builder, _step(node, source, module, used), name)
    builder.finish()
    _note_unused(builder, module, used)
    if not initial:
        return builder.layers, builder.left_out
    layers = [
        replace(layer, initial=_initial_weight(module.get_submodule(layer.module), number))
        for number, layer in enumerate(builder.layers)
    ]
    return layers, builder.left_out


def _initial_weight(layer: Any, number: int) -> NDArray[np.floating] | None:
    """Weights as the layer's `reset_parameters` makes them; None where it tells none.

    It runs on a copy without masks and parametrizations, with a seed of its own.
    """
    import torch

    # A function that was put on the layer itself may hold on to that, and change it.
    if "reset_parameters" in vars(layer):
        return None
    try:
        fresh = _plain_copy(layer)
        # What is not set anew would be the trained weights.
        with torch.no_grad():
            fresh.weight.fill_(torch.nan)
        # The generator of the CPU alone: torch.manual_seed would set those of all devices.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(number)
            fresh.reset_parameters()
        weight = as_array(fresh.weight, "initial weight")
    except Exception:  # whatever a user's own layer does: it does not tell then
        return None
    if not np.isfinite(weight).all():
        return None
    return weight.T if weight.ndim == 2 else weight


def _plain_copy(layer: Any) -> Any:
    """A copy of a layer on the CPU, without masks, parametrizations of its weight and hooks."""
    import torch
    from torch.nn.utils import parametrize

    # Masked weights cannot be copied, as they are computed; hooks may hold anything.
    known: dict[int, Any] = {}
    for name, value in vars(layer).items():
        if isinstance(value, torch.Tensor):
            known[id(value)] = value.detach().clone()
        elif name.endswith("_hooks"):
            known[id(value)] = type(value)()
    fresh = copy.deepcopy(layer, known).cpu()
    if parametrize.is_parametrized(fresh, "weight"):
        parametrize.remove_parametrizations(fresh, "weight", leave_parametrized=True)
    if "weight_orig" in fresh._parameters:
        del fresh.weight
        fresh.weight = fresh._parameters.pop("weight_orig")
    return fresh


def _apply(builder: ChainBuilder, step: Step, model: str) -> None:
    handle = handler(step)
    if handle is None:
        raise ModelError(f"{model}: {step.place} is not known. {ADVICE}")
    try:
        handle(builder, step)
    except (ModelError, InputError) as error:
        raise ModelError(f"{model}: {step.place}: {error}") from error


@contextmanager
def _attributes_kept(module: nn.Module) -> Iterator[None]:
    """Undo what a traced forward pass assigns to attributes of the module or its parts."""
    spaces = [
        space
        for part in module.modules()
        for space in (part.__dict__, part._parameters, part._buffers, part._modules)
    ]
    saved: list[dict[str, Any]] = [dict(space) for space in spaces]
    try:
        yield
    finally:
        for space, content in zip(spaces, saved, strict=True):
            space.clear()
            space.update(content)


def _trace(module: Any, name: str) -> tuple[fx.Graph, Any]:
    """Trace the forward pass; a layer of torch.nn on its own becomes a chain of one."""
    torch = import_extra("torch", "torch")
    import torch.fx as fx

    class Tracer(fx.Tracer):
        # Buffers are traced like parameters, so that arithmetic on them does not change them.
        proxy_buffer_attributes = True

        def is_leaf_module(self, m: Any, module_qualified_name: str) -> bool:
            # Also a class of the user's that inherits the forward pass of a layer.
            return super().is_leaf_module(m, module_qualified_name) or _class_name(m) in MODULES

        def call_module(self, m: Any, forward: Any, args: Any, kwargs: Any) -> Any:
            # `forward` would run the hooks of modules that are not leaves.
            return super().call_module(m, m.forward, args, kwargs)

    tracer = Tracer()
    if tracer.is_leaf_module(module, ""):
        module = torch.nn.Sequential(module)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return tracer.trace(module, concrete_args=_defaults(module)), module
    except Exception as error:
        raise ModelError(
            f"{name}: its forward pass cannot be traced symbolically: {error}. {ADVICE}"
        ) from error


def _defaults(module: nn.Module) -> dict[str, Any]:
    """Arguments of the forward pass that have a default."""
    parameters = inspect.signature(module.forward).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def _chain(graph: fx.Graph, model: str) -> list[tuple[fx.Node, fx.Node]]:
    """The operations from the input to the output, each with the value it reads."""
    (output,) = (node for node in graph.nodes if node.op == "output")
    if not _is_node(output.args[0]):
        raise ModelError(
            f"{model}: its forward pass returns {type(output.args[0]).__name__}, not one tensor. "
            f"{ADVICE}"
        )
    chain: list[tuple[fx.Node, fx.Node]] = []
    node = output.args[0]
    while True:
        readers = [user for user in node.users if not _is_shape(user)]
        if len(readers) > 1:
            places = " and ".join(_place(user) for user in readers)
            raise ModelError(f"{model}: the value of {_place(node)} is read by {places}. {ADVICE}")
        if node.op == "placeholder":
            return chain[::-1]
        source = _only_source(node, model)
        chain.append((node, source))
        node = source


def _only_source(node: fx.Node, model: str) -> fx.Node:
    sources = [source for source in node.all_input_nodes if not _is_shape(source)]
    if len(sources) != 1:
        values = ", ".join(_place(source) for source in sources) or "none"
        raise ModelError(
            f"{model}: {_place(node)} reads {len(sources)} values ({values}) where a chain has "
            f"one. {ADVICE}"
        )
    if sources[0].op == "get_attr":
        raise ModelError(
            f"{model}: {_place(node)} reads the parameter {sources[0].target!r} alone. {ADVICE}"
        )
    return sources[0]


def _is_node(value: Any) -> bool:
    from torch import fx

    return isinstance(value, fx.Node)


def _is_shape(node: fx.Node) -> bool:
    """Whether a traced value is a size or a dtype, or computed from sizes alone."""
    if node.op == "call_method" and node.target in ("size", "dim", "numel"):
        return True
    if node.op != "call_function":
        return False
    if node.target is getattr:
        return node.args[1] in ("shape", "ndim", "dtype", "device")
    return bool(node.all_input_nodes) and all(_is_shape(n) for n in node.all_input_nodes)


def _place(node: fx.Node) -> str:
    """An operation and where it stands, in words."""
    if node.op == "placeholder":
        return f"the input {node.target!r}"
    if node.op == "get_attr":
        return f"the parameter {node.target!r}"
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    if node.op == "call_module":
        return f"module {node.target!r} ({stack[-1][1].__name__})" if stack else repr(node.target)
    operation = getattr(node.target, "__name__", node.target)
    within = f" of {stack[-1][0]!r}" if stack else ""
    return f"operation {operation!r} (value {node.name!r}) in the forward pass{within}"


def _step(node: fx.Node, source: fx.Node, root: nn.Module, used: dict[str, int]) -> Step:
    args = tuple(_argument(arg) for arg in node.args if arg is not source)
    kwargs = {key: _argument(arg) for key, arg in node.kwargs.items() if arg is not source}
    target, place = node.target, _place(node)
    if node.op != "call_module":
        name = target if isinstance(target, str) else _function_name(target)
        return Step(node.name, name, place, "", args, kwargs)
    target = str(target)
    used[target] = used.get(target, 0) + 1
    name = target if used[target] == 1 else f"{target} (call {used[target]})"
    module = root.get_submodule(target)
    return Step(name, _class_name(module), place, target, args, kwargs, module)


def _argument(value: Any) -> Any:
    """An argument with traced sizes replaced by `Shape()`."""
    if isinstance(value, tuple | list):
        return tuple(_argument(item) for item in value)
    return Shape() if _is_node(value) else value


def _function_name(function: Any) -> str:
    """Name of a function of torch or torch.nn.functional; empty for any other function."""
    import torch

    name = getattr(function, "__name__", "")
    # Functions of torch.nn.functional that do not know what they are called there.
    name = {"_threshold": "threshold", "log_sigmoid": "logsigmoid"}.get(name, name)
    homes = (torch, torch.nn.functional)
    return name if any(getattr(home, name, None) is function for home in homes) else ""


def _class_name(module: Any) -> str:
    """Name of the class of torch.nn whose forward pass the module has."""
    import torch

    # A convolution's forward pass leaves the work to a method that may be another as well.
    runs = {name: getattr(module, name, None) for name in ("forward", "_conv_forward", "__call__")}
    runs = {name: getattr(method, "__func__", method) for name, method in runs.items()}
    for cls in type(module).__mro__:
        name: str = cls.__name__
        known = name in MODULES and getattr(torch.nn, name, None) is cls
        if known and all(getattr(cls, method, None) is used for method, used in runs.items()):
            return name
    return f"{type(module).__module__}.{type(module).__name__}"


def _note_unused(builder: ChainBuilder, module: nn.Module, used: dict[str, int]) -> None:
    """Record the weight matrices of parts that the forward pass does not call."""
    owners = tuple(f"{name}." for name in used)
    for name, parameter in module.named_parameters():
        if parameter.ndim >= 2 and not name.startswith(owners):
            builder.note(name, tuple(parameter.shape), "the forward pass does not use it")
