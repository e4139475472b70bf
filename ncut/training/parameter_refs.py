"""References to the tensors of a model, looked up at each use: the sources of a graph's arrays.

A model is read once, from a copy that shares its memory. Weights and factors are expressions of
the copy's tensors, which are re-evaluated with the model's current tensors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from ncut.errors import InputError
from ncut.extract.lowering.factors import Factors as Noted
from ncut.extract.lowering.factors import Ledger, computed
from ncut.extract.program.weights import Expression
from ncut.extract.readers.traced.plain import computed as computed_names
from ncut.extract.readers.traced.plain import plain_copy, wide
from ncut.extract.readers.traced.tensor import storage_of
from ncut.training.spectrum_types import constant


@dataclass(frozen=True, slots=True, eq=False)
class ParameterRef:
    """A tensor of a module, which may later be replaced, pruned or parametrized."""

    module: nn.Module
    name: str
    shape: tuple[int, ...] | None = None  # required shape of the tensor; by default not checked
    path: str = ""  # path of the module in its model, for messages

    def tensor(self) -> Tensor:
        """The tensor as the next forward pass will use it, differentiable.

        Raises
        ------
        InputError
            If its shape has changed, or it is sharded.
        """
        found = self._tensor()
        refuse_shards(str(self), found)
        if self.shape is not None and tuple(found.shape) != self.shape:
            raise InputError(
                f"model: {self} has shape {tuple(found.shape)}, and had {self.shape} when the "
                "model was read; make a new regularizer"
            )
        return found

    def __str__(self) -> str:
        return f"{self.path}.{self.name}" if self.path else self.name

    def _tensor(self) -> Tensor:
        module, name = self.module, self.name
        parameter = module._parameters.get(name)
        if parameter is not None:
            return parameter
        masked = module._parameters.get(f"{name}_orig")
        mask = module._buffers.get(f"{name}_mask")
        if masked is not None and mask is not None:
            return masked * mask.to(masked.dtype)
        for hook in _computing_hooks(module):
            if hook.name == name:
                return _computed(hook, module)
        return _parametrized(module, name)

    def parameter(self) -> Tensor | None:
        """The tensor to change in place to scale the rows and columns; None if there is none."""
        parameters = self.module._parameters
        if parameters.get(self.name) is not None:
            return parameters[self.name]
        pruned = self.module._buffers.get(f"{self.name}_mask") is not None
        return parameters.get(f"{self.name}_orig") if pruned else None

    @property
    def exists(self) -> bool:
        """Return whether the tensor exists."""
        return getattr(self.module, self.name, None) is not None


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """An array that is a view of a source's tensor."""

    source: ParameterRef
    shape: tuple[int, ...]  # shape of the array
    # Whether it is the tensor, its transpose, or another part or order of its entries.
    kind: Literal["whole", "transpose", "part"] = "whole"
    offset: int = 0  # offset of its first entry
    # Expression that makes the array from the tensor; None if it is the tensor itself.
    expression: Expression | None = None

    def of(self, tensor: Tensor) -> Tensor:
        """The same part of another tensor of the source's shape; a view if possible."""
        if self.expression is None or self.kind == "whole":
            return tensor
        made: Tensor = self.expression.tensor(lambda _: tensor)
        return made

    @property
    def device(self) -> torch.device:
        """The device of the tensor."""
        return self.source.tensor().device

    def tensor(self) -> Tensor:
        """The array as a live tensor, in float32 at least."""
        return self.of(wide(self.source.tensor()))

    def writable(self) -> Tensor | None:
        """The array as a view of a parameter, for changes in place; None if there is none."""
        parameter = self.source.parameter()
        made = None if parameter is None else self.of(parameter)
        if made is None or parameter is None:
            return None
        return made if storage_of(made) == storage_of(parameter) else None


@dataclass(frozen=True, slots=True, eq=False)
class Computed:
    """An array that a forward pass computes from parameters, recomputed from their values."""

    expression: Expression  # the expression that computes it
    copied: Copy  # the copy of the model that was read
    kind: ClassVar[str] = "computed"

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return self.expression.shape

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return self.copied.parameter().device

    def tensor(self) -> Tensor:
        """The array as a live tensor, in float32 at least."""
        like = self.copied.parameter()
        return wide(self.expression.tensor(lambda tensor: self.copied.live(tensor, like)))


class Factors:
    """Magnitudes of factors of a graph's rows or columns, as functions of live tensors.

    Parameters
    ----------
    factors : ncut.extract.lowering.factors.Factors
        The factors from reading a copy.
    copied : Copy
        The copy.
    """

    def __init__(self, factors: Noted, copied: Copy) -> None:
        self._root = _Node(factors.codes.ravel(), factors.ledger)
        self._copied = copied

    def tensor(self, like: Tensor) -> Tensor:
        """The factors as a live tensor of the type of `like`."""
        return self._root.tensor(like, self._copied).abs()

    def batch_norm(self) -> _BatchNorm | None:
        """The batch norm that makes all factors, in the order of its channels."""
        expression = self._root.only_source()
        source = None if expression is None else expression.source
        if source is None or not getattr(source, "is_batch_norm", False):
            return None
        variance = source.tensors[0]
        found = self._copied.source(source.originals.get(id(variance), variance))
        module = None if found is None else found.module
        whole = isinstance(module, _BatchNorm) and module.weight is not None
        return module if whole and len(source.tensors) == 2 else None  # type: ignore[return-value]


class _Node:
    """Factors by their segments of the ledger, with the segments' sources."""

    def __init__(self, codes: NDArray[np.int64], ledger: Ledger) -> None:
        starts = np.array([segment.start for segment in ledger.segments])
        numbers = np.searchsorted(starts, codes, side="right") - 1
        self.n = codes.size
        self._parts: list[tuple[NDArray[np.int64], Any, list[Any]]] = []
        for number in np.unique(numbers):
            segment = ledger.segments[int(number)]
            at = np.flatnonzero(numbers == number)
            local = codes[at] - segment.start
            made: list[Any]
            if segment.kind == "constant":
                made = [ledger.numbers[codes[at]]]
            elif segment.kind == "source":
                made = [segment.parts[0][local]]
            else:
                made = [_Node(part[local].ravel(), ledger) for part in segment.parts]
            self._parts.append((at, segment, made))

    def only_source(self) -> Any:
        """The source of all factors, if they are its entries in order."""
        if len(self._parts) != 1 or self._parts[0][1].kind != "source":
            return None
        _, segment, (index,) = self._parts[0]
        straight = segment.size == self.n and np.array_equal(index, np.arange(self.n))
        return segment.source if straight else None

    def tensor(self, like: Tensor, copied: Copy) -> Tensor:
        """The factors, shape (n,)."""
        if len(self._parts) == 1:
            return self._part(*self._parts[0][1:], like, copied)
        found = like.new_ones(self.n)
        for at, segment, made in self._parts:
            values = self._part(segment, made, like, copied)
            found = found.index_put((constant(at, like.device),), values)
        return found

    @staticmethod
    def _part(segment: Any, made: list[Any], like: Tensor, copied: Copy) -> Tensor:
        if segment.kind == "constant":
            return constant(made[0], like.device, like.dtype)
        if segment.kind == "source":
            live = segment.source.tensor(lambda tensor: copied.live(tensor, like))
            taken: Tensor = live.reshape(-1).to(like)[constant(made[0], like.device)]
            return taken
        parts: list[Tensor] = [node.tensor(like, copied) for node in made]
        if segment.kind == "mean":
            parts = [parts[0].reshape(-1, segment.parts[0].shape[1])]
        found: Tensor = computed(segment.kind, *parts)
        return found


class Copy:
    """A copy of a model that shares its weights, to be read.

    Attributes
    ----------
    model : nn.Module
        The copy: on the CPU, in float32 at least, without hooks, pruning and parametrizations
        made permanent.
    used : set of nn.Module
        The original model's modules whose tensors were looked up by `live`.
    """

    def __init__(self, model: nn.Module) -> None:
        refuse_sharded(model)
        self.model = plain_copy(model, "reading it for training")
        made = dict(self.model.named_modules())
        self._pairs = [
            (path, own, made[path]) for path, own in model.named_modules() if path in made
        ]
        self.used: set[nn.Module] = set()
        self._ties: list[tuple[ParameterRef, ParameterRef]] = []
        self._sources: dict[int, tuple[ParameterRef, Tensor]] = {}
        for source, tensor in self._all():
            first, _ = self._sources.setdefault(id(tensor), (source, tensor))
            if first is not source and first.parameter() is source.parameter() is not None:
                self._ties.append((first, source))
        self._arrays: dict[int, tuple[Expression, View | Computed]] = {}
        self._memory = {storage_of(tensor) for _, tensor in self._sources.values()}

    @property
    def modules(self) -> dict[int, nn.Module]:
        """The copy of each module, by the id of the module."""
        return {id(own): made for _, own, made in self._pairs}

    def parameter(self) -> Tensor:
        """A tensor of the model, on the model's device."""
        return next(iter(self._sources.values()))[0].tensor()

    def source(self, tensor: Tensor) -> ParameterRef | None:
        """The model's tensor for a tensor of the copy; None for anything else."""
        return self._sources.get(id(tensor), (None, None))[0]

    def live(self, tensor: Tensor, like: Tensor) -> Tensor:
        """The model's current tensor for a tensor of the copy; constants unchanged."""
        source = self.source(tensor)
        if source is None:
            return wide(tensor.to(like.device))
        self.used.add(source.module)
        return wide(source.tensor())

    def array(self, expression: Expression, name: str) -> View | Computed:
        """The live array of an expression of the copy.

        Raises
        ------
        InputError
            If it depends on numbers that are not tensors of the model.
        """
        if id(expression) not in self._arrays:
            self._arrays[id(expression)] = (expression, self._array(expression, name))
        return self._arrays[id(expression)][1]

    def _array(self, expression: Expression, name: str) -> View | Computed:
        if not expression.known or not self._follows(expression):
            raise InputError(
                f"model: the weights of {name!r} are computed from its parameters in a way that "
                "training cannot follow; choose other layers with layers="
            )
        found = expression.part()
        source = None if found is None else self.source(found[0])
        if found is None or source is None:
            return Computed(expression, self)
        tensor, made = found
        shape, strides = tuple(made.shape), _strides(made.shape, made.stride())
        ours = tuple(tensor.shape), _strides(tensor.shape, tensor.stride())
        offset = int(made.storage_offset())
        kind: Literal["whole", "transpose", "part"] = "part"
        if offset == 0 and (shape, strides) == ours:
            kind = "whole"
        elif offset == 0 and len(shape) == 2 and (shape[::-1], strides[::-1]) == ours:
            kind = "transpose"
        return View(source, shape, kind, offset, expression)

    def _follows(self, expression: Expression) -> bool:
        """Return whether an expression uses only tensors held by modules.

        A view of a parameter kept in a list would keep its value from the time of reading.
        """
        leaves: list[Tensor] = []

        def leaf(tensor: Tensor) -> Tensor:
            leaves.append(tensor)
            return tensor

        with torch.no_grad():
            expression.tensor(leaf)
        others = [tensor for tensor in leaves if self.source(tensor) is None]
        return len(others) < len(leaves) and not any(storage_of(t) in self._memory for t in others)

    def check_ties(self) -> None:
        """Verify that weights that shared a tensor when the model was read still do.

        Raises
        ------
        InputError
            If two of them have become separate tensors.
        """
        for first, second in self._ties:
            if first.parameter() is not second.parameter():
                raise InputError(
                    f"model: {str(first)!r} and {str(second)!r} were one tensor when the model was "
                    "read, and are two now (load_state_dict(assign=True) does that); tie them "
                    "again or make a new regularizer"
                )

    def _all(self) -> Iterator[tuple[ParameterRef, Tensor]]:
        for path, own, made in self._pairs:
            attributes = {k: v for k, v in vars(made).items() if isinstance(v, Tensor)}
            for name, tensor in {**made._parameters, **made._buffers, **attributes}.items():
                if tensor is not None:
                    yield ParameterRef(own, name, tuple(tensor.shape), path), tensor


def _computing_hooks(module: nn.Module) -> list[Any]:
    """Hooks of the older weight norm and spectral norm."""
    return [
        hook
        for hook in module._forward_pre_hooks.values()
        if isinstance(hook, WeightNorm | SpectralNorm)
    ]


def _computed(hook: Any, module: nn.Module) -> Tensor:
    made: Tensor = (
        hook.compute_weight(module)
        if isinstance(hook, WeightNorm)
        else hook.compute_weight(module, do_power_iteration=False)
    )
    return made


def _parametrized(module: nn.Module, name: str) -> Tensor:
    """A tensor of a module, computed by its parametrization as in evaluation mode.

    In training mode spectral norm would take a step of its power iteration.
    """
    own: Any = module.parametrizations if parametrize.is_parametrized(module, name) else {}
    modes = [(part, part.training) for part in own[name].modules()] if own else []
    for part, _ in modes:
        part.training = False
    try:
        with torch.random.fork_rng(devices=[], enabled=bool(modes)):
            value: Tensor = getattr(module, name)
    finally:
        for part, mode in modes:
            part.training = mode
    return value


def parameter_name(model: nn.Module, path: str, name: str) -> str:
    """Full name of a weight tensor's parameter, for a pruned one the parameter before its mask."""
    module = model.get_submodule(path)
    if name in computed_names(module):
        if parametrize.is_parametrized(module) or f"{name}_mask" not in module._buffers:
            raise InputError(
                f"model: {path!r} computes its weight from other parameters, as weight norm and "
                "spectral norm do; make that permanent first"
            )
        name = f"{name}_orig"
    return f"{path}.{name}" if path else name


def refuse_sharded(model: nn.Module) -> None:
    """Refuse a model with sharded weights.

    Raises
    ------
    InputError
        If it is wrapped by FSDP, or holds a tensor that `refuse_shards` refuses.
    """
    for path, module in model.named_modules():
        if type(module).__name__ == "FullyShardedDataParallel":
            raise InputError(_SHARDED.format(path or "the model", type(module).__name__))
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        refuse_shards(name, tensor)


def refuse_shards(name: str, tensor: Tensor) -> None:
    """Refuse a sharded tensor.

    Raises
    ------
    InputError
        If it is a DTensor (FSDP2, tensor parallelism), was partitioned by ZeRO-3 of DeepSpeed, or
        is an empty vector, the placeholder of these and FSDP for a weight between two uses.
    """
    kind = type(tensor).__name__
    if hasattr(tensor, "ds_id"):
        kind = "parameter of DeepSpeed ZeRO-3"
    elif kind == "Parameter" and tensor.shape == (0,):
        kind = "parameter without entries"
    elif kind != "DTensor":
        return
    raise InputError(_SHARDED.format(name, kind))


_SHARDED = (
    "model: {!r} is a {}, of which this process holds a part; whole weights are needed, as "
    "DistributedDataParallel leaves them"
)


def _strides(shape: Sequence[int], strides: Sequence[int]) -> tuple[int, ...]:
    """Strides with the meaningless strides along axes of length 1 set to 1."""
    return tuple(1 if n == 1 else stride for n, stride in zip(shape, strides, strict=True))
