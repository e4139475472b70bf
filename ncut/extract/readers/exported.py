"""Reads torch.export archives, `.pt2`, as a module that computes their graph.

The archive's JSON and raw tensors are parsed here, as `torch.export.load` may unpickle objects.
Only ATen operations without file arguments are called.
"""

from __future__ import annotations

import io
import json
import math
import operator
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from ncut.errors import ModelError, NcutError
from ncut.extract.program.record import Lower, Made
from ncut.extract.readers.traced.module import parameters_of, read_module
from ncut.files import Budget

MAX_NUMBERS = 2**26
"""Entries of the largest input, or tensor that an operation makes from numbers alone."""

MAX_DEPTH = 32
"""Largest nesting depth of modules."""

_DTYPES = {
    **{1: torch.uint8, 2: torch.int8, 3: torch.int16, 4: torch.int32, 5: torch.int64},
    **{6: torch.float16, 7: torch.float32, 8: torch.float64, 12: torch.bool, 13: torch.bfloat16},
}
"""`ScalarType` of the archive's schema; complex and 8-bit floating-point types are not read."""

_OPERATION = re.compile(r"torch\.ops\.aten\.([a-z_]\w*)\.(\w+)")
_TEXTS = {"approximate", "rounding_mode", "padding", "equation", "mode", "indexing", "reduce"}
"""String arguments that select an algorithm; others may name a file."""

_NUMBERS: Mapping[str, Callable[..., Any]] = {
    f"_operator.{name}": getattr(operator, name)
    for name in ("add", "sub", "mul", "floordiv", "truediv", "mod", "neg", "eq", "ne", "lt", "le",
                 "gt", "ge", "and_", "or_", "not_", "getitem")
}  # fmt: skip
_NO_EFFECT = {"_assert_scalar", "_assert_tensor_metadata", "sym_constrain_range_for_size",
              "sym_constrain_range", "_assert_async"}  # fmt: skip


def read_exported(
    path: Path, lower: Lower[Made], *, unknown: str = "error"
) -> tuple[Made, dict[str, tuple[int, ...]]]:
    """Follow the forward pass of a program of torch.export.

    Parameters
    ----------
    path : Path
        A file of `torch.export.save`.
    lower, unknown
        As for `ncut.extract.readers.traced.module.read_module`.

    Raises
    ------
    ModelError
        If the archive is damaged, or its graph has control flow, operations outside ATen, or
        custom objects.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            module = Exported(*_content(archive, path))
        inputs = module.examples()
    except NcutError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, IndexError) as error:
        raise ModelError(f"{path}: its graph or its tensors are damaged: {error!r}") from error
    module.eval()
    made = read_module(module, lower, example_inputs=inputs, unknown=unknown)
    return made, parameters_of(module)


def _content(
    archive: zipfile.ZipFile, path: Path
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The program and its tensors by name."""
    budget = Budget(path, path.stat().st_size)

    def take(member: str) -> bytes:
        return budget.member(archive, member)

    names = archive.namelist()
    if "serialized_exported_program.json" in names:  # torch up to 2.7
        program = json.loads(take("serialized_exported_program.json"))
        tensors: dict[str, torch.Tensor] = {}
        for member in ("serialized_state_dict.pt", "serialized_constants.pt"):
            if member in names and archive.getinfo(member).file_size:
                tensors |= _pickled(take(member))
        return program, tensors
    models = [name for name in names if re.search(r"(^|/)models/[^/]+\.json$", name)]
    if len(models) != 1:
        raise ModelError(f"{path}: has {len(models)} programs; expected one, in models/")
    root, _, name = models[0].rpartition("models/")
    name = name.removesuffix(".json")
    found = {}
    for kind, folder in (("weights", "weights"), ("constants", "constants")):
        listed = f"{root}data/{folder}/{name}_{kind}_config.json"
        if listed in names:
            for entry, said in json.loads(take(listed))["config"].items():
                data = take(f"{root}data/{folder}/{said['path_name']}")
                found[entry] = _tensor(data, said)
    return json.loads(take(models[0])), found


def _pickled(data: bytes) -> Any:
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle may raise anything
        raise ModelError("has a tensor or an object that cannot be read without pickle") from error


def _tensor(data: bytes, said: Mapping[str, Any]) -> torch.Tensor:
    if said["use_pickle"]:
        made = _pickled(data)
        if not isinstance(made, torch.Tensor):
            raise ModelError("has an object in the place of a tensor")
        return made
    meta = said["tensor_meta"]
    dtype = _DTYPES.get(meta["dtype"])
    if dtype is None:
        raise ModelError(f"has a tensor of type number {meta['dtype']}, which is not read")
    shape, strides = (_sizes(meta[key]) for key in ("sizes", "strides"))
    offset = _size(meta["storage_offset"])
    if not math.prod(shape):
        return torch.zeros(shape, dtype=dtype)
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    if (last + 1) * dtype.itemsize > len(data) or math.prod(shape) * dtype.itemsize > len(data):
        raise ModelError("has a tensor larger than what it stores")
    whole = len(data) // dtype.itemsize * dtype.itemsize
    flat = torch.frombuffer(bytearray(data[:whole]), dtype=dtype)
    return flat.as_strided(shape, strides, offset)


def _sizes(sizes: Sequence[Mapping[str, Any]]) -> list[int]:
    return [_size(size) for size in sizes]


def _size(said: Mapping[str, Any]) -> int:
    """A size; for a symbol, its value at export."""
    number = said.get("as_int")
    if number is None:
        number = ((said.get("as_expr") or {}).get("hint") or {}).get("as_int")
    if type(number) is not int or number < 0:
        raise ModelError(f"has the size {said!r}")
    return number


class Exported(nn.Module):
    """A program of ATen operations, and its tensors."""

    def __init__(self, program: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        inner = program["graph_module"]
        self._graph, self._signature = inner["graph"], inner["signature"]
        self._calls = [_call(node) for node in self._graph["nodes"]]
        self._held: dict[str, str] = {}
        self._user: list[str] = []
        for spec in self._signature["input_specs"]:
            ((kind, said),) = spec.items()
            if kind == "user_input":
                self._user.append(_named(said["arg"]))
                continue
            key = {"parameter": "parameter_name", "buffer": "buffer_name",
                   "tensor_constant": "tensor_constant_name"}.get(kind)  # fmt: skip
            if key is None:
                raise ModelError(f"has an input of the kind {kind!r}, which is not read")
            name = said[key]
            if name not in tensors:
                raise ModelError(f"has no tensor {name!r}, which its graph reads")
            self._held[said["arg"]["name"]] = name
            self._hold(name, tensors[name], kind == "parameter")

    def _hold(self, name: str, tensor: torch.Tensor, trained: bool) -> None:
        module: nn.Module = self
        *path, last = name.split(".")
        if len(path) > MAX_DEPTH:
            raise ModelError("its modules nest too deeply")
        for step in path:
            if step not in module._modules:
                module.add_module(step, nn.Module())
            module = module._modules[step]  # type: ignore[assignment]
        if last in module._parameters or last in module._buffers:
            return
        if trained:
            module.register_parameter(last, nn.Parameter(tensor, requires_grad=False))
        else:
            module.register_buffer(last, tensor)

    def examples(self) -> tuple[Any, ...]:
        """Inputs with the sizes used at export."""
        made: list[Any] = []
        for name in self._user:
            meta = self._graph["tensor_values"].get(name)
            if meta is None:
                made.append(_number(self._graph, name))
                continue
            shape, dtype = _sizes(meta["sizes"]), _DTYPES.get(meta["dtype"])
            if dtype is None or math.prod(shape) > MAX_NUMBERS:
                raise ModelError(f"has an input {name!r} of sizes {shape}, type {meta['dtype']}")
            made.append(torch.zeros(shape, dtype=dtype))
        return tuple(made)

    def forward(self, *inputs: Any) -> Any:
        """Compute the graph."""
        values: dict[str, Any] = dict(zip(self._user, inputs, strict=True))
        for name, path in self._held.items():
            module_path, _, last = path.rpartition(".")
            values[name] = getattr(self.get_submodule(module_path), last)
        for call, node in zip(self._calls, self._graph["nodes"], strict=True):
            if call is not None:
                _bind(values, node["outputs"], call(values))
        user = [s["user_output"]["arg"] for s in self._signature["output_specs"]
                if "user_output" in s]  # fmt: skip
        return tuple(_value(arg, values) for arg in user)


def _named(arg: Mapping[str, Any]) -> str:
    """The name of an input; non-tensors store it elsewhere, or are constants."""
    ((_, said),) = arg.items()
    if isinstance(said, Mapping):
        return str(said.get("name", said.get("as_name", "")))
    raise ModelError("has a constant among its inputs, which is not read")


def _number(graph: Mapping[str, Any], name: str) -> Any:
    for kind in ("sym_int_values", "sym_float_values", "sym_bool_values"):
        said = graph.get(kind, {}).get(name)
        if said is not None:
            return _size(said)
    raise ModelError(f"has an input {name!r} of which nothing is known")


def _call(node: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], Any] | None:
    """The function of a node; None if the node only checks."""
    target, given = node["target"], node["inputs"]
    if target in _NUMBERS:
        function = _NUMBERS[target]

        def compute(values: Mapping[str, Any]) -> Any:
            numbers = [_value(entry["arg"], values) for entry in given]
            if function is not operator.getitem and not all(
                isinstance(number, int | float) for number in numbers
            ):
                raise ModelError(f"{target} computes with what is no number")
            return function(*numbers)

        return compute
    found = _OPERATION.fullmatch(target)
    if found is None:
        raise ModelError(
            f"calls {target!r}, which is not read: only operations of ATen are; pass "
            "torch.export.load(FILE).module() in Python if you trust the file"
        )
    if found[1] in _NO_EFFECT:
        return None
    operation = _operation(target, found[1], found[2])
    followed = _FUNCTIONS.get(operation, operation)
    arguments = operation._schema.arguments
    makes = not any("Tensor" in str(argument.type) for argument in arguments)

    def call(values: Mapping[str, Any]) -> Any:
        said = {entry["name"]: _value(entry["arg"], values) for entry in given}
        if makes:
            _check_size(target, said.values())
        args, named = [], {}
        for argument in arguments:
            if argument.kwarg_only:
                if argument.name in said:
                    named[argument.name] = said[argument.name]
            elif argument.name in said:
                args.append(said[argument.name])
            else:
                args.append(argument.default_value)
        return followed(*args, **named)

    return call


def _taken(values: Any, indices: Sequence[Any]) -> Any:
    return values[tuple(slice(None) if index is None else index for index in indices)]


def _bags(table: Any, rows: Any, offsets: Any, *settings: Any) -> Any:
    """A row per bag, and results that only gradients use."""
    _, mode, _, shares, last, padding = settings
    found = functional.embedding_bag(
        rows, table, offsets, mode=("sum", "mean", "max")[mode], per_sample_weights=shares,
        include_last_offset=last, padding_idx=padding,
    )  # fmt: skip
    return found, None, None, None


_FUNCTIONS: Mapping[Any, Callable[..., Any]] = {
    torch.ops.aten.embedding.default: lambda table, rows, *_: functional.embedding(rows, table),
    torch.ops.aten.embedding_bag.padding_idx: _bags,
    torch.ops.aten.index.Tensor: _taken,
    torch.ops.aten.linear.default: functional.linear,
    torch.ops.aten.scaled_dot_product_attention.default: functional.scaled_dot_product_attention,
    torch.ops.aten.rms_norm.default: functional.rms_norm,
    torch.ops.aten.index_select.default: torch.index_select,
    torch.ops.aten.pad.default: functional.pad,
    torch.ops.aten.bilinear.default: functional.bilinear,
    torch.ops.aten.one_hot.default: functional.one_hot,
}
"""Functions of torch with an operation's arguments, called instead, as they have rules."""


def _operation(target: str, name: str, overload: str) -> Any:
    operation = getattr(getattr(torch.ops.aten, name, None), overload, None)
    if not isinstance(operation, torch._ops.OpOverload):
        raise ModelError(f"calls {target!r}, which this version of torch does not have")
    for argument in operation._schema.arguments:
        if "str" in str(argument.type) and argument.name not in _TEXTS:
            raise ModelError(f"calls {target!r}, which may name files: it is refused")
    return operation


def _check_size(target: str, given: Any) -> None:
    """Refuse tensors made from numbers alone that exceed the size of any network's."""
    for value in given:
        numbers = value if isinstance(value, list) else [value]
        if all(isinstance(n, int | float) for n in numbers) and math.prod(numbers) > MAX_NUMBERS:
            raise ModelError(f"{target} makes a tensor of {numbers}: too large")


def _bind(values: dict[str, Any], outputs: Sequence[Mapping[str, Any]], made: Any) -> None:
    results = made if len(outputs) > 1 else [made]
    for output, result in zip(outputs, results, strict=True):
        ((kind, said),) = output.items()
        if kind == "as_none":
            continue
        if kind == "as_tensors":
            for entry, each in zip(said, result, strict=True):
                values[entry["name"]] = each
        elif isinstance(said, Mapping):
            values[said["name"] if "name" in said else said["as_name"]] = result
        else:
            raise ModelError(f"has a result of the kind {kind!r}, which is not read")


_FORMATS = {1: torch.contiguous_format, 2: torch.channels_last, 3: torch.channels_last_3d}
_PLAIN = {"as_int", "as_float", "as_bool", "as_string", "as_ints", "as_floats", "as_bools",
          "as_strings"}  # fmt: skip
_CONSTANTS: Mapping[str, Callable[[Any], Any]] = {
    "as_none": lambda _: None,
    "as_scalar_type": lambda number: _DTYPES[number],
    "as_memory_format": lambda number: _FORMATS.get(number, torch.preserve_format),
    "as_layout": lambda _: torch.strided,
    "as_device": lambda _: torch.device("cpu"),
}


def _value(arg: Mapping[str, Any], values: Mapping[str, Any]) -> Any:
    """An argument, or a list of them."""
    ((kind, said),) = arg.items()
    if kind in _PLAIN:
        return said
    if kind in _CONSTANTS:
        return _CONSTANTS[kind](said)
    if kind in ("as_tensor", "as_sym_int", "as_sym_float", "as_sym_bool", "as_optional_tensor"):
        return _one(said, values)
    if kind in ("as_tensors", "as_sym_ints", "as_sym_floats", "as_optional_tensors"):
        return [_one(entry, values) for entry in said]
    raise ModelError(f"has an argument of the kind {kind!r}, which is not read")


def _one(said: Mapping[str, Any], values: Mapping[str, Any]) -> Any:
    for key in ("name", "as_name"):
        if key in said:
            if said[key] not in values:
                raise ModelError(f"reads {said[key]!r} before it is made")
            return values[said[key]]
    return _value(said, values) if "as_tensor" in said else next(_literals(said))


def _literals(said: Mapping[str, Any]) -> Iterator[Any]:
    for key, value in said.items():
        yield None if key == "as_none" else value
