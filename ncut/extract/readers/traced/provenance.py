"""Provenance of tensors without neurons while a forward pass is followed.

Computations on parameters alone run normally, and their operations are recorded: the source
parameters of each weight are known, and the weight can be recomputed from their later values.
Random draws, and tensors that values are written into, are not constants.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.utils._pytree import tree_map

from ncut.extract.arrays import as_array
from ncut.extract.program.weights import Expression, Weights
from ncut.extract.readers.chain import normalization_scale
from ncut.extract.readers.traced.modes import DispatchMode
from ncut.extract.readers.traced.tensor import flat, is_traced, storage_of

RANDOM = frozenset(
    ["rand", "randn", "rand_like", "randn_like", "normal", "bernoulli", "normal_", "uniform_",
     "bernoulli_", "exponential_", "log_normal_", "cauchy_", "geometric_", "random_", "poisson",
     "binomial", "_standard_gamma", "_sample_dirichlet", "native_dropout", "randint",
     "randint_like", "randperm", "multinomial"]
)  # fmt: skip
"""Operations that draw numbers."""

ARITHMETIC = frozenset(
    ["add", "addcdiv", "addcmul", "div", "fmod", "lerp", "maximum", "minimum", "mul", "pow",
     "remainder", "rsub", "sub"]
)  # fmt: skip
"""Operations that use an integer as a value, not as an index."""

READS = frozenset(["linear", "mm", "addmm", "bmm", "baddbmm", "matmul", "convolution"])
"""Operations by which weights read values."""


_SIGNS = {"add": "+", "sub": "-", "mul": "*", "div": "/", "mm": "@", "matmul": "@", "pow": "**"}
_SAME = frozenset(
    ["", "t", "transpose", "permute", "view", "reshape", "_unsafe_view", "unsafe_view", "expand",
     "unsqueeze", "squeeze", "detach", "clone", "to_copy", "slice", "select", "alias", "split",
     "split_with_sizes", "chunk", "contiguous", "flip", "unbind", "as_strided", "index_select"]
)  # fmt: skip
"""Operations that a formula does not write out: they move entries."""


class ReadsNumbersError(Exception):
    """Weights read an integer input: its entries are values, and neurons."""

    def __init__(self, names: frozenset[str]) -> None:
        super().__init__(f"weights read the whole numbers of {', '.join(sorted(names))}")
        self.names = names


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """A tensor computed by an operation on others, stored without data."""

    operation: Callable[..., Any]  # the operation of ATen
    # Its arguments
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    number: int | None  # index of the tensor among several results

    def formula(self, text: Callable[[Any], str]) -> str:
        """The computation, with operands that `text` writes out."""
        schema = getattr(self.operation, "_schema", None)
        schema = schema or getattr(getattr(self.operation, "args", (None,))[0], "_schema", None)
        name = "" if schema is None else schema.name.removeprefix("aten::").strip("_")
        operands = [text(x) for x in self.args if not isinstance(x, bool | None)]
        if name in _SAME:
            return operands[0]
        if name in _SIGNS and len(operands) > 1:
            return f"({operands[0]} {_SIGNS[name]} {operands[1]})"
        return f"{name}({', '.join(operands)})"

    def again(self, compute: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """The tensor, recomputed from operands that `compute` returns."""

        def change(value: Any) -> Any:
            if isinstance(value, Made):
                return value.again(compute)
            return compute(value) if isinstance(value, torch.Tensor) else value

        args, kwargs = tree_map(change, self.args), tree_map(change, dict(self.kwargs))
        results: Any = self.operation(*args, **kwargs)
        made: torch.Tensor = results if self.number is None else results[self.number]
        return made


@dataclass(frozen=True, slots=True, eq=False)
class TensorFunction:
    """An array as a function of a module's tensors, for later recomputation."""

    tensors: tuple[torch.Tensor, ...]  # operands
    compute: Callable[..., torch.Tensor]  # maps the operands to the array
    # Provenance of computed operands; see `Provenance`
    made: Mapping[int, tuple[torch.Tensor, Made]]
    # The module's buffers by the ids of the copies passed to a forward pass.
    originals: Mapping[int, torch.Tensor]
    # Returns the name of a parameter or buffer; empty for any other tensor.
    name: Callable[[Any], str]
    # Whether the tensors are a batch norm's running variance and, if present, its weight.
    is_batch_norm: bool = False

    def tensor(self, leaf: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """The array computed from the parameters and constants that `leaf` returns."""

        def compute(tensor: torch.Tensor) -> torch.Tensor:
            found = self.made.get(id(tensor))
            if found is not None:
                return found[1].again(compute)
            return leaf(self.originals.get(id(tensor), tensor))

        return self.compute(*map(compute, self.tensors))

    def formula(self) -> str:
        """The computation as text; constants by their shapes."""

        def text(value: Any) -> str:
            if isinstance(value, Made):
                return value.formula(text)
            if isinstance(value, list | tuple):
                return ", ".join(map(text, value))
            if not isinstance(value, torch.Tensor):
                return f"{value:g}" if isinstance(value, float) else str(value)
            found, name = self.made.get(id(value)), self.name(self.originals.get(id(value), value))
            if name or found is None:
                return name or (f"{value.item():g}" if value.numel() == 1 else f"{[*value.shape]}")
            return found[1].formula(text)

        made = [text(tensor) for tensor in self.tensors]
        if isinstance(self.compute, partial):  # a batch norm's
            gamma = made[1] if len(made) > 1 else "1"
            return f"{gamma} / sqrt({made[0]} + {self.compute.args[0]:g})"
        whole = made[0]
        return whole[1:-1] if whole.startswith("(") and whole.endswith(")") else whole


def _itself(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


def _over_spread(eps: float, variance: torch.Tensor, weight: Any = None) -> torch.Tensor:
    scale = torch.rsqrt(variance + eps)
    return scale if weight is None else weight * scale


def _elsewhere(operation: Any, first: Any, *args: Any, **kwargs: Any) -> Any:
    """An in-place operation, applied to a copy of its first argument."""
    return operation(first.clone(), *args, **kwargs)


class Provenance(DispatchMode):
    """Records tensors computed from parameters and from integer inputs.

    Attributes
    ----------
    made : dict from int to (Tensor, Made)
        By the id of a tensor, which is kept alive.
    originals : dict from int to Tensor
        The module's buffers by the ids of their copies, which a forward pass may change.
    """

    def __init__(
        self,
        parameter: Callable[[Any], str],
        noise: Callable[[torch.Tensor], Any],
        buffers: Mapping[int, str],
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.made: dict[int, tuple[torch.Tensor, Made]] = {}
        self.originals: dict[int, torch.Tensor] = {}
        self._parameter = parameter
        self._buffers = buffers
        self._noise = noise
        self._leaves: dict[int, tuple[str, ...]] = {}
        self._numbers: dict[int, tuple[torch.Tensor, frozenset[str]]] = {}
        self._whole: dict[int, torch.Tensor] = {}
        self._stand_ins: dict[int, tuple[torch.Tensor, Any]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run an operation and record the provenance of its results."""
        kwargs = kwargs or {}
        if self._stand_ins:
            args, kwargs = self.known(args), self.known(kwargs)
        values = flat(args, kwargs)
        name = func._schema.name.removeprefix("aten::")
        if any(map(is_traced, values)):
            if self._whole and name.removesuffix("_") in ARITHMETIC:
                args, kwargs = tree_map(self._as_value, args), tree_map(self._as_value, kwargs)
            return func(*args, **kwargs)
        if name in RANDOM:
            return self._drawn_by(func, args, kwargs)
        self._check_reads(name, values)
        results = func(*args, **kwargs)
        if self._whole and any(id(value) in self._whole for value in values):
            if torch.is_tensor(results) and results.is_floating_point():
                return self._noise(results)
            self._note_whole(results)
        self._note(func, args, kwargs, values, results)
        return results

    def _drawn_by(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Random draws; drawn integers count as known, as they are indices."""
        with torch.random.fork_rng(devices=[]):
            results = func(*args, **kwargs)
        first = results[0] if isinstance(results, tuple) else results
        if not first.is_floating_point():
            self._note_whole(results)
            return results
        if func._schema.is_mutable:
            return self.stand_in(args[0], self._noise(args[0]))
        return tree_map(self._noise, results)

    def _note_whole(self, results: Any) -> None:
        """Record drawn integers, which are not constants when used as values."""
        for result in flat([results]):
            if torch.is_tensor(result):
                self._whole[id(result)] = result

    def _as_value(self, value: Any) -> Any:
        """Noise in place of drawn integers."""
        if id(value) not in self._whole:
            return value
        return self._noise(torch.empty_like(value, dtype=torch.get_default_dtype()))

    def known(self, values: Any) -> Any:
        """Values with stand-ins for tensors that were written into."""
        if not self._stand_ins:
            return values

        def change(value: Any) -> Any:
            found = self._stand_ins.get(id(value))
            return value if found is None else found[1]

        return tree_map(change, values)

    def stand_in(self, tensor: torch.Tensor, traced: Any) -> Any:
        """Let a traced tensor stand in for a constant into which values were written."""
        self._stand_ins[id(tensor)] = (tensor, traced)
        return traced

    def leaves(self, tensor: Any) -> tuple[str, ...]:
        """Names of the parameters that a tensor is computed from."""
        if not isinstance(tensor, torch.Tensor) or is_traced(tensor):
            return ()
        name = self._parameter(tensor)
        return (name,) if name else self._leaves.get(id(tensor), ())

    def _named(self, tensor: torch.Tensor) -> str:
        """Name of the parameter or buffer that a tensor is or views; empty for any other."""
        return self._parameter(tensor) or self._buffers.get(storage_of(tensor), "")

    def numbers(self, name: str, tensor: torch.Tensor) -> None:
        """Record an integer input."""
        self._numbers[id(tensor)] = (tensor, frozenset([name]))

    def inputs(self, tensor: Any) -> frozenset[str]:
        """Names of the integer inputs that a tensor is computed from."""
        return self._numbers.get(id(tensor), (None, frozenset[str]()))[1]

    def weights(self, tensor: torch.Tensor, what: str) -> Expression:
        """A tensor as an expression of parameters; `what` names it in messages."""
        source = TensorFunction((tensor,), _itself, self.made, self.originals, self._named)
        return Expression(as_array(tensor, what), source, self.leaves(tensor))

    def factors(self, tensor: torch.Tensor, what: str) -> Weights:
        """A tensor as factors: plain numbers if it depends on no parameter."""
        return self.weights(tensor, what) if self.leaves(tensor) else as_array(tensor, what)

    def batch_norm(
        self, weight: torch.Tensor | None, variance: torch.Tensor, eps: float
    ) -> Expression:
        """A batch norm's factors: its weight over the square root of the running variance."""
        gamma = None if weight is None else as_array(weight, "its weight")
        factors = normalization_scale(gamma, as_array(variance, "its variance"), eps)
        tensors = (variance,) if weight is None else (variance, weight)
        compute = partial(_over_spread, eps)
        source = TensorFunction(
            tensors, compute, self.made, self.originals, self._named, is_batch_norm=True
        )
        return Expression(factors, source, self.leaves(weight))

    # --- inside -----------------------------------------------------------------------------

    def _before(self, tensor: torch.Tensor) -> Any:
        """A tensor's provenance before an operation changed it in place."""
        found = self.made.get(id(tensor))
        return tensor if found is None else found[1]

    def check_beside_values(self, parts: Sequence[Any]) -> None:
        """Raise if integers of an input become features beside values: they are values too."""
        read = frozenset[str]().union(
            *(self.inputs(x) for x in parts if not is_traced(x) and x.is_floating_point())
        )
        if read:
            raise ReadsNumbersError(read)

    def _check_reads(self, name: str, values: list[Any]) -> None:
        if not self._numbers or name not in READS:
            return
        read = frozenset[str]().union(
            *(self.inputs(x) for x in values if torch.is_tensor(x) and x.is_floating_point())
        )
        if read and any(self.leaves(value) for value in values):
            raise ReadsNumbersError(read)

    def _note(
        self, func: Any, args: tuple[Any, ...], kwargs: Any, values: list[Any], results: Any
    ) -> None:
        leaves = tuple(dict.fromkeys(leaf for value in values for leaf in self.leaves(value)))
        numbers = (
            frozenset[str]().union(*(self.inputs(value) for value in values))
            if self._numbers
            else frozenset[str]()
        )
        if not (leaves or numbers):
            return
        several = isinstance(results, list | tuple)
        for number, result in enumerate(results if several else [results]):
            if not isinstance(result, torch.Tensor):
                continue
            if leaves:
                # Training changes a parameter even if it is detached here.
                detached = func._schema.name == "aten::detach"
                operation, before = (_itself if detached else func), args
                if func._schema.is_mutable and args and result is args[0]:
                    operation = partial(_elsewhere, func)
                    before = (self._before(result), *args[1:])
                made = Made(operation, before, kwargs, number if several else None)
                self.made[id(result)] = (result, made)
                self._leaves[id(result)] = leaves
            if numbers:
                self._numbers[id(result)] = (result, numbers)
