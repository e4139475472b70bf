"""`Tracing`: follows one forward pass on tensors without data."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.utils import prune
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from ncut.errors import InputError, ModelError
from ncut.extract.program.record import Program
from ncut.extract.program.values import MAX_LAID_OUT, Value, located
from ncut.extract.program.weights import Expression
from ncut.extract.readers.traced.memory import Writes, memory_of
from ncut.extract.readers.traced.provenance import Provenance
from ncut.extract.readers.traced.tensor import Traced, flat, is_traced, storage_of

# Hooks that compute a layer's weight; all others are left alone.
WEIGHT_HOOKS = (prune.BasePruningMethod, SpectralNorm, WeightNorm)

KEEPS_SHAPE = {
    *("relu", "relu_", "leaky_relu", "leaky_relu_", "gelu", "silu", "silu_", "mish", "elu", "elu_"),
    *("sigmoid", "sigmoid_", "tanh", "tanh_", "hardtanh", "hardtanh_", "hardswish", "hardswish_"),
    *("hardsigmoid", "hardsigmoid_"),
}
"""Operations whose result has the shape and dtype of their first argument."""

BATCH_NORMS = {"_native_batch_norm_legit_no_training", "native_batch_norm"}
"""Batch norms in evaluation mode give their result and two empty tensors."""


class UnknownOperationError(ModelError):
    """An operation without a rule."""

    located = True


class DependsOnDataError(ModelError):
    """A forward pass that needs the values of tensors without data."""

    located = True


@dataclass(frozen=True, slots=True, eq=False)
class Weight:
    """A weight array and its provenance."""

    values: Expression  # the weights as a function of parameters
    name: str  # name of the layer for the graph
    module: str  # the module that was called, or holds the parameter
    parameters: tuple[str, ...]  # the source parameters
    holder: nn.Module | None  # the module called, if the array is its `weight`

    @property
    def named(self) -> dict[str, Any]:
        """Names of the layer, for a program."""
        return {"name": self.name, "module": self.module, "parameters": self.parameters}


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """An operation to follow."""

    tracing: Tracing  # the forward pass
    function: str  # the operation's name
    # Its arguments, `Traced` tensors among them
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    shapes: Sequence[tuple[int, ...]] = ()  # shapes of its results, if known in advance
    module: Any = None  # the module called
    names: tuple[str, ...] = ()  # names of the arguments, for an ATen operation

    def of(self, module: nn.Module) -> Call:
        """The call as a call of a module."""
        return replace(self, module=module)

    @property
    def program(self) -> Program:
        """The program being written."""
        return self.tracing.program

    @property
    def wiring(self) -> Program:
        """The program, under its former name, for existing user rules."""
        return self.tracing.program

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of its only or first result."""
        if not self.shapes:
            raise ModelError("what shape its result has is not known for a module or a function")
        return self.shapes[0]

    def arg(self, position: int, keyword: str, default: Any = None) -> Any:
        """An argument given by position or by keyword; its position varies between overloads."""
        if keyword in self.names:
            position = self.names.index(keyword)
        elif self.names and position:
            return default
        if position < len(self.args):
            return self.args[position]
        return self.kwargs.get(keyword, default)

    def signal(self, position: int = 0, keyword: str = "input") -> Value:
        """The signal of an argument; a signal without neurons if it is constant."""
        return self.tracing.signal_of(self.arg(position, keyword))

    def axis(self, position: int = 1, default: Any = None) -> int:
        """The argument `dim`, an axis of the first argument."""
        return self.signal().axis(self.arg(position, "dim", default))

    def signals(self) -> list[Value]:
        """The signals of all traced arguments."""
        return [value.value for value in flat(self.args, self.kwargs) if is_traced(value)]


class Tracing:
    """A forward pass that is followed.

    Attributes
    ----------
    program : Program
        The record.
    rules : ncut.extract.readers.traced.rules.Rules
        Rules for modules, functions and operations.
    device : torch.device
        The device that activations report: the parameters' device.
    touched : set of str
        Parameters that any function read.
    writes : Writes
        In-place writes.
    provenance : Provenance
        Provenance of tensors without neurons.
    """

    def __init__(self, model: nn.Module, program: Program, rules: Any) -> None:
        self.program = program
        self.rules = rules
        first = next(iter(model.parameters()), None)
        self.device = torch.device("cpu") if first is None else first.device
        self.touched: set[str] = set()
        self._names = {id(part): name for name, part in reversed([*model.named_modules()])}
        self._parameters: dict[int, list[tuple[int, int, str]]] = {}
        for name, value in model.named_parameters():
            start = int(value.storage_offset())
            span = (start, start + value.numel(), name)
            self._parameters.setdefault(storage_of(value), []).append(span)
        self._buffers = {storage_of(value): name for name, value in model.named_buffers()}
        self._stack: list[tuple[str, nn.Module]] = []
        self._operation = ""
        self._metas: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self.writes = Writes(program)
        self.provenance = Provenance(self.parameter, self.noise, self._buffers)

    # --- running ----------------------------------------------------------------------------

    @contextmanager
    def active(self) -> Iterator[None]:
        """Follow all modules, functions and operations in the context."""
        original = nn.Module.__call__
        fast_path = torch.backends.mha.get_fastpath_enabled()

        ours = threading.get_ident()

        def call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            if threading.get_ident() != ours:  # a model run by another thread
                return original(module, *args, **kwargs)
            return self._call_module(module, args, kwargs)

        nn.Module.__call__ = call  # type: ignore[method-assign]
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            with torch.no_grad(), self.provenance, _Functions(self):
                yield
        finally:
            nn.Module.__call__ = original  # type: ignore[method-assign]
            torch.backends.mha.set_fastpath_enabled(fast_path)

    def dispatch(self, operation: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Follow one operation of ATen."""
        name = operation._schema.name.removeprefix("aten::")
        self._operation = name
        early = self.rules.early(name)
        if early is not None:
            return early(Call(self, name, args, kwargs))
        self.writes.check(args, [*kwargs.values()])
        if name in ("cat", "stack"):
            self.provenance.check_beside_values(args[0])
        meta = self._on_meta(operation, name, args, kwargs)
        results = list(meta) if isinstance(meta, list | tuple) else [meta]
        shapes = [tuple(m.shape) for m in results if isinstance(m, torch.Tensor)]
        names = tuple(argument.name for argument in operation._schema.arguments)
        call = Call(self, name, args, kwargs, shapes, names=names)
        signals = self._follow(operation, call)
        if operation._schema.is_mutable:
            return _write(call, signals)
        given = [signals] * len(shapes) if isinstance(signals, Value) else signals
        if len(given) != len(shapes):
            raise ModelError(
                f"the rule of {name!r} gives {len(given)} signals for {len(shapes)} results"
            )
        made = iter(given)
        wrapped = [self.wrap(m, next(made)) if isinstance(m, torch.Tensor) else m for m in results]
        self.writes.hand_on(flat(args, kwargs), wrapped)
        return type(meta)(wrapped) if isinstance(meta, list | tuple) else wrapped[0]

    def _on_meta(
        self, operation: Any, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        """The operation's result without data, for its shapes."""
        first: Any = args[0] if args else None
        if is_traced(first):
            # torch's meta functions for batch norms and sums, in Python, dominate the run time.
            if name in KEEPS_SHAPE:
                return torch.empty_like(first.meta)
            if name in BATCH_NORMS and not kwargs:
                nothing = torch.empty(0, device="meta")
                return torch.empty_like(first.meta), nothing, nothing
            other: Any = args[1] if len(args) > 1 else None
            same = is_traced(other) and other.shape == first.shape and other.dtype == first.dtype
            if name in ("add", "add_", "mul") and same:
                return torch.empty_like(first.meta)
        if name == "index":
            # The number of entries in a mask is unknown on the device "meta".
            args = (first, _without_masks(args[1]), *args[2:])
        try:
            return operation(
                *tree_map(self._to_meta, args), **tree_map(self._to_meta, dict(kwargs))
            )
        except NotImplementedError as error:
            if not any(is_traced(x) and x.dtype == torch.bool for x in flat(args, kwargs)):
                raise
            raise DependsOnDataError(
                f"{self.place(name)} has a result of a size that depends on the data, such as the "
                "entries that a mask chooses; multiply by the mask instead, or use torch.where"
            ) from error

    def wrap(self, meta: torch.Tensor, value: Value) -> Traced:
        """A tensor of the forward pass."""
        if tuple(meta.shape) != value.shape:
            raise ModelError(
                f"its rule gives a signal of shape {value.shape} for a result of shape "
                f"{tuple(meta.shape)}"
            )
        made = Traced(meta, value, self)
        self.writes.know(made)
        return made

    def noise(self, like: torch.Tensor) -> Traced:
        """Random draws: neither dependent on neurons nor constant."""
        return self.made(Value(tuple(like.shape), number="drawn"), like)

    def made(self, value: Value, like: torch.Tensor) -> Traced:
        """A new tensor with the dtype of `like`."""
        return self.wrap(torch.empty(value.shape, dtype=like.dtype, device="meta"), value)

    def signal_of(self, value: Any) -> Value:
        """A tensor's signal; without neurons if the tensor does not depend on the data."""
        if is_traced(value):
            found: Value = value.value
            return found
        return Value(tuple(value.shape) if isinstance(value, torch.Tensor) else ())

    # --- names ------------------------------------------------------------------------------

    def place(self, operation: str = "") -> str:
        """An operation and its place in the model, for messages."""
        path = next((name for name, _ in reversed(self._stack) if name), "")
        kind = type(self._stack[-1][1]).__name__ if self._stack else ""
        where = f"module {path!r} ({kind})" if path else f"the forward pass of {kind}"
        return f"operation {operation!r} in {where}" if operation else where

    def now(self) -> str:
        """The current operation and its place in the model."""
        return self.place(self._operation) if self._stack else ""

    @property
    def path(self) -> str:
        """Name of the module whose forward pass is running."""
        return next((name for name, _ in reversed(self._stack) if name), "")

    def weight(self, tensor: torch.Tensor, attribute: str = "weight") -> Weight:
        """A weight's values, name and provenance."""
        path, holder = self._stack[-1] if self._stack else ("", None)
        parameter = self.parameter(tensor)
        own = {} if holder is None else dict(holder.named_parameters(path))
        if parameter and holder is not None:
            here = [n for n, p in own.items() if self.parameter(p) == parameter]
            direct = [n for n in here if "." not in n[len(path) + 1 :]]
            named = direct[0] if direct and path else parameter
            is_weight = named.rpartition(".")[2] == attribute
            name = named.rpartition(".")[0] if is_weight and "." in named else named
            module = path if direct and path else parameter.rpartition(".")[0]
            return Weight(
                self.provenance.weights(tensor, "its weight"), name, module, (parameter,),
                holder if is_weight and direct and _is_whole(holder, attribute, tensor) else None,
            )  # fmt: skip
        sources = self.provenance.leaves(tensor)
        name = path or "weight"
        if not _is_whole(holder, attribute, tensor):
            holder = None  # e.g. standardized weights, not drawn by the layer's initializer
        return Weight(self.provenance.weights(tensor, "its weight"), name, path, sources, holder)

    def parameter(self, tensor: Any) -> str:
        """Name of the parameter that a tensor is or views; empty for any other tensor."""
        if not isinstance(tensor, torch.Tensor) or is_traced(tensor):
            return ""
        for start, stop, name in self._parameters.get(storage_of(tensor), ()):
            if start <= tensor.storage_offset() < stop:
                return name
        return ""

    # --- inside -----------------------------------------------------------------------------

    def _follow(self, operation: Any, call: Call) -> Value | list[Value]:
        try:
            rule = self.rules.operation(operation)
            if rule is not None:
                return rule(call)  # type: ignore[no-any-return]
            if self.rules.guess:
                return self._guessed(call)
        except (ModelError, InputError) as error:
            raise located(error, self.place(call.function)) from error
        raise UnknownOperationError(
            f"{self.place(call.function)} is not known. Declare what it does with "
            f"ncut.register_operation({operation._schema.name!r}, rule), or pass "
            "unknown='elementwise' to take it as a function of each entry alone"
        )

    def _guessed(self, call: Call) -> Value:
        signal = self.program.combine(*call.signals())
        if signal.shape != call.shape:
            raise ModelError("it changes the shape, so that it is not a function of each entry")
        self.program.leave_out(
            call.function, (), f"unknown operation in {self.path!r}, taken as element-wise"
        )
        return signal

    def _call_module(self, module: nn.Module, args: tuple[Any, ...], kwargs: Any) -> Any:
        self._stack.append((self._names.get(id(module), ""), module))
        try:
            args, kwargs = self.provenance.known((args, kwargs))
            args, kwargs = self._before(module, args, kwargs)
            rule = self.rules.module(module)
            self._operation = ""
            if rule is not None and any(is_traced(value) for value in flat(args, kwargs)):
                self.writes.check(args, [*kwargs.values()])
                result = rule(Call(self, type(module).__name__, args, kwargs))
                if isinstance(result, Value):
                    like = next(value for value in flat(args, kwargs) if is_traced(value))
                    result = self.made(result, like)
            else:
                result = module.forward(*args, **kwargs)
            return self._after(module, args, kwargs, result)
        except (ModelError, InputError) as error:
            raise located(error, self.place()) from error
        except Exception as error:
            # The message names the innermost module.
            if not hasattr(error, "place"):
                error.place = self.place()  # type: ignore[attr-defined]
            raise
        finally:
            self._stack.pop()

    def _before(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: Any
    ) -> tuple[tuple[Any, ...], Any]:
        """Run a module's forward pre-hooks, including hooks that compute its weights."""
        for key, hook in [*module._forward_pre_hooks.items()]:
            with_kwargs = key in module._forward_pre_hooks_with_kwargs
            given = (module, args, kwargs) if with_kwargs else (module, args)
            changed = self._run_hook(hook, given)
            if changed is None:
                continue
            if with_kwargs:
                args, kwargs = changed
            else:
                args = changed if isinstance(changed, tuple) else (changed,)
        return args, kwargs

    def _after(self, module: nn.Module, args: tuple[Any, ...], kwargs: Any, result: Any) -> Any:
        """Run a module's forward hooks, which may pass values on or change them."""
        for key, hook in [*module._forward_hooks.items()]:
            with_kwargs = key in module._forward_hooks_with_kwargs
            given = (module, args, kwargs, result) if with_kwargs else (module, args, result)
            changed = self._run_hook(hook, given)
            result = result if changed is None else changed
        return result

    def _run_hook(self, hook: Any, given: tuple[Any, ...]) -> Any:
        if isinstance(hook, WEIGHT_HOOKS):
            return hook(*given)
        try:
            return hook(*given)
        except Exception as error:
            # Hooks may inspect values, and the tensors have none.
            reason = f"a hook that fails on tensors without data ({type(error).__name__}): not run"
            self.program.leave_out(f"hook of {self.path or 'the model'}", (), reason)
            return None

    def call_function(
        self, rule: Callable[[Call], Any], name: str, args: tuple[Any, ...], kwargs: Any
    ) -> Any:
        """Follow a function that has a rule."""
        args, kwargs = self.provenance.known((args, kwargs))
        self._operation = name
        self.writes.check(args, [*kwargs.values()])
        try:
            result = rule(Call(self, name, args, kwargs))
        except (ModelError, InputError) as error:
            raise located(error, self.place(name)) from error
        if not isinstance(result, Value):
            return result
        like = next((v for v in flat(args, kwargs) if is_traced(v)), None)
        if like is None:
            like = next(v for v in flat(args, kwargs) if getattr(v, "is_floating_point", bool)())
        return self.made(result, like)

    def _to_meta(self, value: Any) -> Any:
        if is_traced(value):
            return value.meta
        if isinstance(value, torch.Tensor):
            if id(value) not in self._metas:
                # The tensor is kept alive, so that its id stays unique.
                self._metas[id(value)] = (value, value.detach().to("meta"))
            return self._metas[id(value)][1]
        if isinstance(value, torch.device):
            return torch.device("meta")
        return value


class _Functions(TorchFunctionMode):
    """Dispatches functions with rules to a forward pass."""

    def __init__(self, tracing: Tracing) -> None:
        self.tracing = tracing

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        for value in flat(args, kwargs):
            if isinstance(value, nn.Parameter):
                self.tracing.touched.add(self.tracing.parameter(value))
        args, kwargs = self.tracing.provenance.known((args, kwargs))
        rule = self.tracing.rules.function(func, args, kwargs or {})
        if rule is not None:
            name = getattr(func, "__name__", str(func))
            return self.tracing.call_function(rule, name, args, kwargs or {})
        return func(*args, **(kwargs or {}))


def _is_whole(holder: nn.Module | None, attribute: str, tensor: torch.Tensor) -> bool:
    """Check whether a tensor is a module's weight, directly or through its parametrizations."""
    weight = getattr(holder, attribute, None)
    if weight is tensor:
        return True
    if not isinstance(weight, torch.Tensor) or weight.shape != tensor.shape:
        return False
    return torch.equal(weight, tensor)


def _write(call: Call, values: Value | list[Value]) -> Any:
    """Apply an in-place operation to its first argument."""
    value = values if isinstance(values, Value) else values[0]
    target = call.args[0]
    if isinstance(target, list | tuple):
        target = target[0]
    tracing = call.tracing
    if not is_traced(target):
        return _write_into_constant(call, target, value)
    whole = tracing.writes.whole(target)
    if whole is not None:
        places = partial(memory_of, target.meta)
        whole.value = call.program.written(whole.value, target.value, value, places)
    tracing.writes.note(target, whole, value)
    target.value = value
    return target


def _write_into_constant(call: Call, target: torch.Tensor, value: Value) -> Any:
    """Write values into a constant tensor or a part of it, which then carries them."""
    tracing = call.tracing
    whole = target if target._base is None else target._base
    laid_out = value.program is not None
    if laid_out and not (whole.is_contiguous() and whole.numel() <= MAX_LAID_OUT):
        raise ModelError(
            f"{tracing.place(call.function)}: it writes values into a tensor that was made "
            "without them; build the tensor with torch.cat or torch.stack instead"
        )
    made = value
    if target is not whole and not laid_out:
        made = Value(tuple(whole.shape))  # numbers that depend on the data are no constants
    elif target is not whole:
        places = memory_of(target) - int(whole.storage_offset())
        made = call.program.put(value, tuple(whole.shape), places)
    meta = torch.empty(whole.shape, dtype=whole.dtype, device="meta")
    traced = tracing.provenance.stand_in(whole, tracing.wrap(meta, made))
    if target is whole:
        return traced
    return tracing.made(value, target)


def _without_masks(indices: Any) -> list[Any]:
    """Indices with masks replaced by the positions that they select."""
    found: list[Any] = []
    for index in indices:
        is_mask = isinstance(index, torch.Tensor) and index.dtype == torch.bool
        known = is_mask and not is_traced(index)
        found += [*index.nonzero().unbind(1)] if known else [index]
    return found
