"""Reads a torch.nn.Module as a program."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from ncut.errors import InputError, ModelError
from ncut.extract.modules import unwrapped
from ncut.extract.program.record import Lower, Made, Program
from ncut.extract.readers.traced.inputs import Inputs, given, guesses, names
from ncut.extract.readers.traced.provenance import ReadsNumbersError
from ncut.extract.readers.traced.rules import Rules
from ncut.extract.readers.traced.tensor import is_traced
from ncut.extract.readers.traced.tracing import DependsOnDataError, Tracing, UnknownOperationError

ADVICE = "pass example_inputs=, a tensor or a tuple of the arguments of its forward pass"


def read_module(
    module: nn.Module,
    lower: Lower[Made],
    *,
    example_inputs: Any = None,
    unknown: str = "error",
) -> Made:
    """Follow the forward pass of a module; returns what `lower` makes of its program.

    The forward pass runs once, in evaluation mode, on tensors with a shape and no data. Hooks run
    too, as they may compute weights or pass values on; hooks that fail without data are listed.
    The module and the objects held by its hooks are restored, also after a failure.

    Parameters
    ----------
    module : torch.nn.Module
        The model.
    lower : callable
        Gets the program; its result is returned. Its errors show that guessed sizes do not fit.
    example_inputs : tensor, tuple or mapping, optional
        Arguments of the forward pass, including lists and mappings of tensors; only shapes and
        dtypes of floating-point tensors matter.
        By default they are guessed from the model's first layers and its configuration.
    unknown : {"error", "elementwise"}
        Treatment of operations without a rule.

    Raises
    ------
    ModelError
        If the forward pass fails, depends on the data, or has an unknown operation.
    """
    module = unwrapped(module)
    name = type(module).__name__
    _check(module, name)
    candidates = guesses(module) if example_inputs is None else iter([given(example_inputs)])
    rules = Rules(guess=unknown == "elementwise")
    failure: Exception | None = None
    n_tried = 0
    for inputs in candidates:
        n_tried += 1
        try:
            return _followed(module, inputs, rules, lower)
        except UnknownOperationError as error:
            raise ModelError(f"{name}: {error}") from error
        except Exception as error:
            failure = failure or error
    if failure is None:
        if not any(True for _ in module.parameters()):
            raise InputError(f"{name}: no weights found")
        raise ModelError(f"{name}: what its inputs look like is not known; {ADVICE}")
    raise _why(failure, name, n_tried, example_inputs is not None) from failure


def parameters_of(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Shapes of a module's parameters by name, including quantized layers."""
    found = {name: tuple(value.shape) for name, value in module.named_parameters()}
    for path, part in module.named_modules():
        if not type(part).__module__.startswith("torch.ao."):
            continue  # computing its weight may change state
        weight = getattr(part, "weight", None)
        if callable(weight):
            found[f"{path}.weight" if path else "weight"] = tuple(weight().shape)
    return found


def _followed(module: nn.Module, inputs: Inputs, rules: Rules, lower: Lower[Made]) -> Made:
    """The lowered program of a forward pass; integers that weights read are treated as values."""
    values: frozenset[str] = frozenset()
    while True:
        program = Program(named=True)
        try:
            _read(program, module, inputs, rules, values)
        except ReadsNumbersError as error:
            values |= error.names
            continue
        except Exception:
            # An earlier operation's effect on neurons may be the first error.
            lower(program)
            raise
        return lower(program)


def _why(failure: Exception, name: str, n_tried: int, was_given: bool) -> Exception:
    """The message for the first failure."""
    message = str(failure).strip().split("\n")[0] or type(failure).__name__
    if isinstance(failure, ModelError | InputError):
        guessed = n_tried > 1 and not was_given and not isinstance(failure, DependsOnDataError)
        hint = f" (with guessed inputs; else {ADVICE})" if guessed else ""
        return ModelError(f"{name}: {message}{hint}")
    place = getattr(failure, "place", "its forward pass")
    inputs = "example_inputs" if was_given else "guessed inputs"
    advice = "" if was_given else f"; {ADVICE}"
    return ModelError(
        f"{name}: {place} fails on {inputs}: {type(failure).__name__}: {message}{advice}"
    )


def _check(module: nn.Module, name: str) -> None:
    if isinstance(module, torch.jit.ScriptModule):
        raise ModelError("a TorchScript module cannot be traced; pass the original module")
    for part_name, part in module.named_modules():
        if isinstance(part, torch.jit.ScriptModule):
            raise ModelError(
                f"{name}: module {part_name!r} is TorchScript, which cannot be traced; put the "
                "original module in its place"
            )
    for parameter_name, parameter in module.named_parameters():
        where = f"{name}: module {parameter_name.rpartition('.')[0]!r}"
        if is_lazy(parameter):
            raise ModelError(
                f"{where}: its weight has no shape yet: run the model once on an example first"
            )
        if parameter.is_meta:
            raise ModelError(f"{where}: its weight is on the device 'meta' and has no values")


def _read(
    program: Program, module: nn.Module, inputs: Inputs, rules: Rules, values: frozenset[str]
) -> None:
    """Write the program of a forward pass."""
    tracing = Tracing(module, program, rules)
    program.where = tracing.now
    named = names(module, inputs)
    with _left_as_it_was(module, tracing.provenance.originals), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        args = [_as_input(v, named[at], tracing, values) for at, v in enumerate(inputs.args)]
        kwargs = {k: _as_input(v, named[k], tracing, values) for k, v in inputs.kwargs.items()}
        with tracing.active():
            result = tracing.provenance.known(module(*args, **kwargs))
    if not isinstance(result, Mapping) and _holds_tensors(result):
        result = vars(result)  # a distribution, a namespace or another result object
    for number, value in enumerate(filter(is_traced, tensors_in(result))):
        program.output(value.value, "output" if number == 0 else f"output {number}")
    program.ignore(
        sorted(tracing.touched - {""}), "goes into a constant that is added, as a bias is"
    )


def _as_input(value: Any, name: str, tracing: Tracing, values: frozenset[str]) -> Any:
    """Replace floating-point tensors by traced tensors, also inside lists and mappings.

    Integers and settings are unchanged, except inputs named in `values`.
    """
    if isinstance(value, Mapping):
        made = {k: _as_input(v, f"{name}.{k}", tracing, values) for k, v in value.items()}
        return made if type(value) is dict else _like(value, made)
    if isinstance(value, list | tuple):
        listed = [_as_input(v, f"{name}.{at}", tracing, values) for at, v in enumerate(value)]
        if hasattr(value, "_fields"):
            return type(value)(*listed)
        return tuple(listed) if isinstance(value, tuple) else listed
    if not isinstance(value, torch.Tensor):
        if not _holds_tensors(value):
            return value
        copied = copy.copy(value)
        for key, item in vars(value).items():
            object.__setattr__(copied, key, _as_input(item, f"{name}.{key}", tracing, values))
        return copied
    if not value.is_floating_point() and name not in values:
        moved = value.to(tracing.device)
        tracing.provenance.numbers(name, moved)
        return moved
    meta = torch.empty(value.shape, dtype=value.dtype, device="meta")
    return tracing.wrap(meta, tracing.program.input(name, tuple(value.shape)))


def _holds_tensors(value: Any) -> bool:
    """Test if a value is an object with tensors as attributes, such as a dataclass instance."""
    known = type | ModuleType | nn.Module | torch.Tensor
    if isinstance(value, known) or not hasattr(value, "__dict__"):
        return False
    return any(True for _ in tensors_in(vars(value)))


def _like(value: Mapping[Any, Any], made: dict[Any, Any]) -> Any:
    """A mapping of the same class with other values."""
    changed: Any = copy.copy(value)
    for key, item in made.items():
        changed[key] = item
    return changed


def tensors_in(result: Any) -> Iterator[Any]:
    """The tensors in the result of a forward pass."""
    if isinstance(result, torch.Tensor):
        yield result
    elif isinstance(result, Mapping):
        for value in result.values():
            yield from tensors_in(value)
    elif isinstance(result, list | tuple | set):
        for value in result:
            yield from tensors_in(value)
    elif dataclasses.is_dataclass(result):
        for entry in dataclasses.fields(result):
            yield from tensors_in(getattr(result, entry.name))


def _hooks(module: nn.Module) -> list[dict[Any, Any]]:
    """The dictionaries of a module's hooks, to which a forward pass may add."""
    return [
        value for key, value in vars(module).items() if "_hooks" in key and isinstance(value, dict)
    ]


def _held_by_hooks(module: nn.Module) -> Iterator[Any]:
    """The lists, sets and mappings that a module's hooks can write into."""
    for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values()):
        called = getattr(hook, "func", hook)  # unwraps a functools.partial
        owner = getattr(called, "__self__", None)
        found = [called, owner, *getattr(hook, "args", ()), *getattr(hook, "keywords", {}).values()]
        if hasattr(owner, "__dict__"):
            found += vars(owner).values()
        function = getattr(called, "__func__", called)
        names = getattr(getattr(function, "__code__", None), "co_names", ())
        space = getattr(function, "__globals__", {})
        found += [space[name] for name in names if name in space]
        for cell in getattr(function, "__closure__", None) or ():
            try:
                found.append(cell.cell_contents)
            except ValueError:  # not filled
                continue
        for thing in found:
            if isinstance(thing, list | dict | set):
                yield thing
            elif hasattr(thing, "__dict__") and not isinstance(
                thing, nn.Module | type | ModuleType
            ):
                yield vars(thing)


@contextmanager
def _left_as_it_was(module: nn.Module, originals: dict[int, torch.Tensor]) -> Iterator[None]:
    """Evaluation mode; restores all attributes of the module and its parts on exit."""
    parts = [*module.modules()]
    spaces = [
        space
        for part in parts
        for space in (part.__dict__, part._parameters, part._buffers, part._modules, *_hooks(part))
    ]
    saved: list[dict[str, Any]] = [dict(space) for space in spaces]
    held = [(thing, copy.copy(thing)) for part in parts for thing in _held_by_hooks(part)]
    try:
        for part in parts:
            part.__dict__["training"] = False
            for name, buffer in part._buffers.items():
                # In-place changes of a buffer by the forward pass apply to a copy.
                if buffer is not None:
                    part._buffers[name] = copied = buffer.clone()
                    originals[id(copied)] = buffer
        yield
    finally:
        for space, content in zip(spaces, saved, strict=True):
            space.clear()
            space.update(content)
        for thing, before in held:
            thing.clear()
            thing.extend(before) if isinstance(thing, list) else thing.update(before)
