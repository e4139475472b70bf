"""Runs torch modules with one neuron changed at a time; see `ncut.extract.perturbation`."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ncut.errors import ModelError
from ncut.extract.perturbation import CALL, Mode, Outcome, Read, Reader, Watch, compared
from ncut.extract.program.record import Lower
from ncut.extract.readers.traced.inputs import given, guesses
from ncut.extract.readers.traced.modes import DispatchMode
from ncut.extract.readers.traced.module import read_module
from ncut.extract.readers.traced.plain import plain_copy
from ncut.graphs import NeuronGraph
from ncut.types import Check

READERS = (
    nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d,
    nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
)  # fmt: skip

# --- operations that hide changes, or spread them to all channels ---------------------------------


def _leaky(x: Any, *_: Any, **__: Any) -> Any:
    return torch.where(x > 0, x, 0.5 * x)


def _bounded(x: Any, *_: Any, **__: Any) -> Any:
    """A gate that never saturates."""
    return 1 + 0.3 * torch.sin(x)


def _layer_norm(x: Any, shape: Any, weight: Any, bias: Any, eps: Any) -> Any:
    x = x if weight is None else x * weight
    x = x if bias is None else x + bias
    return x, x.new_zeros(()), x.new_ones(())


def _rms_norm(x: Any, shape: Any, weight: Any, eps: Any = None) -> Any:
    return x if weight is None else x * weight, x.new_ones(())


def _by_channel(x: Any, weight: Any, bias: Any) -> Any:
    shape = [-1 if axis == 1 else 1 for axis in range(x.ndim)]
    x = x.clone() if weight is None else x * weight.reshape(shape)
    return x if bias is None else x + bias.reshape(shape)


def _group_norm(x: Any, weight: Any, bias: Any, *_: Any) -> Any:
    return _by_channel(x, weight, bias), x.new_zeros(()), x.new_ones(())


def _draws(x: Any, *p: Any, **__: Any) -> Any:
    # With a numeric probability it is a mask, which must not hide dropped values.
    return torch.ones_like(x) if p and isinstance(p[0], float) else x


def _dropout(x: Any, *_: Any) -> Any:
    return x.clone(), torch.ones_like(x, dtype=torch.bool)


def _softmax(x: Any, dim: int, *_: Any) -> Any:
    # Over an axis other than the last it weights the branches of a block, channel by channel.
    return torch.full_like(x, 1 / x.shape[dim]) if dim in (-1, x.ndim - 1) else _bounded(x)


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> Any:
    value = value.repeat_interleave(query.shape[-3] // value.shape[-3], dim=-3)
    mean = value.mean(dim=-2, keepdim=True).expand(*query.shape[:-1], value.shape[-1])
    return mean.contiguous(), mean.new_zeros(query.shape[:-1])


def _pooled(x: Any, *args: Any) -> Any:
    # Places of the largest entries, which an unpooling uses, are chosen by the data.
    pool = torch.ops.aten.max_pool2d_with_indices.default
    ramp = torch.arange(x.shape[-1] * x.shape[-2], dtype=x.dtype).reshape(x.shape[-2:])
    return pool(x, *args)[0], pool(ramp.expand_as(x).contiguous(), *args)[1]


def _true(x: Any, *_: Any) -> Any:
    return torch.ones_like(x, dtype=torch.bool)


REPLACED: dict[str, Any] = {
    **dict.fromkeys(["relu", "gelu", "silu", "hardswish", "elu", "mish", "hardtanh"], _leaky),
    **dict.fromkeys(["sigmoid", "tanh", "hardsigmoid"], _bounded),
    **dict.fromkeys(["rsqrt", "linalg_vector_norm"], None),
    "bernoulli": _draws,
    "native_dropout": _dropout,
    "max_pool2d_with_indices": _pooled,
    "native_layer_norm": _layer_norm,
    "_fused_rms_norm": _rms_norm,
    "native_group_norm": _group_norm,
    "_softmax": _softmax,
    "_safe_softmax": _softmax,
    "_scaled_dot_product_flash_attention_for_cpu": _attention,
    "_scaled_dot_product_attention_math": _attention,
}


MORE: dict[Mode, dict[str, Any]] = {
    "gates": dict.fromkeys(["_softmax", "_safe_softmax"], _bounded),
    "open": dict.fromkeys(["gt", "ge", "lt", "le", "eq", "ne"], _true),
}
NORMS = {"native_layer_norm", "_fused_rms_norm", "native_group_norm"}
PRODUCTS = {"mm": 0, "bmm": 0, "addmm": 1, "baddbmm": 1}
"""Matrix products, and the position of the first factor among the arguments."""


class Inert(DispatchMode):
    """Replaces operations that hide changes or spread them to all channels.

    Parameters
    ----------
    mode : Mode
        Further operations to replace.
    read : callable, optional
        Gets the operands of each matrix product, and returns the operands to use instead.
    sizes : list of float
        The constant factor of each norm in the order of their calls; one that is not there yet
        is that of its input. Without them, products of products overflow in deep networks.
    """

    def __init__(
        self, mode: Mode, read: Callable[..., Any] | None = None, sizes: list[float] | None = None
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.read = read
        self.sizes: list[float] = [] if sizes is None else sizes
        self._n_norms = 0
        self.attends = False
        self.replaced = REPLACED | MORE.get(mode, {})
        if mode == "open":
            self.replaced |= {"topk": self._topk, "scatter": self._scatter}
        self._chosen: list[tuple[Any, Any]] = []  # indices, and the source tensor

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.removeprefix("aten::")
        in_batch = name == "native_batch_norm" and args[5]
        if in_batch or name in NORMS:
            args = (self._of_size_one(args[0]), *args[1:])
        if in_batch:
            x = args[0]
            return _by_channel(x, args[1], args[2]), x.new_zeros(()), x.new_ones(())
        plain = name.removesuffix("_") if name.endswith("_") else name
        if self.read and name in PRODUCTS:
            at = PRODUCTS[name]
            args = (*args[:at], *self.read(*args[at : at + 2]), *args[at + 2 :])
        if plain not in self.replaced:
            return func(*args, **kwargs)
        rule = self.replaced[plain]
        self.attends = self.attends or (
            rule is _attention or (rule is _softmax and args[0].ndim > 2)
        )  # fmt: skip
        result = torch.ones_like(func(*args, **kwargs)) if rule is None else rule(*args, **kwargs)
        return args[0].copy_(result) if plain != name else result

    def _of_size_one(self, x: torch.Tensor) -> torch.Tensor:
        if self._n_norms == len(self.sizes):
            largest = float(x.abs().max()) if x.numel() else 0.0
            exact = math.frexp(largest)[1] if math.isfinite(largest) else 0
            self.sizes.append(2.0**-exact)
        self._n_norms += 1
        return x * self.sizes[self._n_norms - 1]

    def _topk(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        found = torch.topk(x, *args, **kwargs)
        self._chosen.append((found.indices, x))
        return found

    def _scatter(self, x: Any, dim: int, index: Any, source: Any, *_: Any, **__: Any) -> Any:
        """All entries, if the largest are put back or marked by a number."""
        if not isinstance(source, torch.Tensor):
            return torch.full_like(x, source)
        for places, chosen in self._chosen:
            if places is index and chosen.shape == x.shape:
                return chosen.clone()
        return torch.scatter(x, dim, index, source)


def randomized(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model in evaluation mode, with constant initial values and statistics randomized."""
    generator = torch.Generator().manual_seed(seed)

    def noise(like: torch.Tensor) -> torch.Tensor:
        return torch.rand(like.shape, generator=generator, dtype=torch.float32).to(like.dtype)

    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.numel() and (parameter - parameter.reshape(-1)[0]).abs().max() == 0:
                parameter.copy_(noise(parameter) + 0.5)
        parts: Iterator[Any] = model.modules()
        for part in parts:
            if isinstance(getattr(part, "running_var", None), torch.Tensor):
                part.running_var.copy_(noise(part.running_var) + 0.5)
                part.running_mean.copy_(noise(part.running_mean) - 0.5)
    return model.eval()


# --- the check ----------------------------------------------------------------------------------


def check(
    model: nn.Module,
    graph: Any,
    inputs: Any,
    *,
    n: int = 20,
    seed: int = 0,
    readers: tuple[type, ...] = READERS,
) -> Outcome:
    """Change `n` random vertices of a graph with residual="readers", scope="all".

    `inputs` are the positional arguments (a tuple) or the keyword arguments (a mapping).
    """
    watch = TorchWatch(model, graph, inputs, readers)
    with watch.watching():
        return compared(watch, graph, n=n, seed=seed)


def checked(
    model: nn.Module,
    lower: Lower[NeuronGraph],
    example_inputs: Any = None,
    *,
    n: int = 40,
    seed: int = 0,
) -> Check:
    """Run a copy of a module with one neuron changed at a time, and compare with its graph.

    Parameters
    ----------
    model : torch.nn.Module
        The model; it stays as it is.
    lower : callable
        Returns the graph of a program, with residual="readers" and scope="all".
    example_inputs : tensor, tuple or mapping, optional
        As for `ncut.graph`; the values of floating-point tensors are random.
    n : int
        Number of vertices to change.
    seed : int
        Seed of the random numbers.

    Raises
    ------
    InputError, ModelError
        If the model cannot be copied, read or run.
    """
    candidates = [*guesses(model)] if example_inputs is None else [given(example_inputs)]
    failure: Exception | None = None
    # A model whose forward pass has constants of one dtype runs only with this dtype.
    for dtype in (torch.float64, torch.float32):
        plain = plain_copy(model, "check", hooks=True)
        own = randomized(copy.deepcopy(plain).to(dtype), seed)
        for inputs in candidates:
            generator = torch.Generator().manual_seed(seed)
            args, kwargs = (_drawn(x, generator, dtype) for x in (inputs.args, dict(inputs.kwargs)))
            try:
                with torch.no_grad():
                    own(*args, **kwargs)
            except Exception as error:
                failure = failure or error
                continue
            example: Any = args or kwargs
            graph = read_module(own, lower, example_inputs=example)
            try:
                return check(own, graph, example, n=n, seed=seed).summary
            except Exception as error:
                raise ModelError(
                    f"check: {type(model).__name__} fails with a neuron changed: {error}"
                ) from error
    raise ModelError(
        f"check: {type(model).__name__} could not be run on random inputs ({failure}); pass "
        "example_inputs="
    ) from failure


def _drawn(value: Any, generator: torch.Generator, dtype: torch.dtype) -> Any:
    """Inputs of the same shapes with random values."""
    if isinstance(value, Mapping):
        return {key: _drawn(item, generator, dtype) for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = [_drawn(item, generator, dtype) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    if isinstance(value, torch.Tensor) and value.is_floating_point():
        return torch.randn(value.shape, generator=generator, dtype=torch.float64).to(dtype)
    return value


class TorchWatch(Watch):
    """Readers (modules and parameters), their inputs, and replacement inputs."""

    def __init__(self, model: nn.Module, graph: Any, inputs: Any, readers: Any) -> None:
        super().__init__(graph)
        self.model, self.inputs = model, inputs
        self.modules = dict(model.named_modules())
        own = dict(model.named_parameters())
        # Parameters that the forward pass multiplies directly, by their memory.
        self.parameters: dict[int, str] = {}
        self._axes: dict[str, int] = {}
        for position, layer in enumerate(graph.layers):
            for name in (CALL.sub("", name) for name in layer.read_by):
                if isinstance(self.modules.get(name), readers):
                    self.add(position, name)
                elif name in own and own[name].ndim == 2:
                    self.add(position, name)
                    self.parameters[own[name].untyped_storage().data_ptr()] = name
        first = next(model.parameters(), None)
        self.exact = first is None or first.dtype == torch.float64
        self._given: Read = {}
        self._read: Read = {}
        self._sizes: dict[Mode, list[float]] = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Hooks on all readers, without argument validation and autograd."""
        handles = [
            self.modules[name].register_forward_pre_hook(self._hook(name), with_kwargs=True)
            for name in self.n_calls
            if name in self.modules
        ]
        fast_path = torch.backends.mha.get_fastpath_enabled()
        validates = torch.distributions.Distribution._validate_args
        torch.backends.mha.set_fastpath_enabled(False)
        torch.distributions.Distribution.set_default_validate_args(False)
        try:
            with torch.no_grad():
                yield
        finally:
            torch.distributions.Distribution.set_default_validate_args(validates)
            torch.backends.mha.set_fastpath_enabled(fast_path)
            for handle in handles:
                handle.remove()

    def run(self, instead: Read, mode: Mode = "plain") -> Read:
        """The inputs of all readers, some of them replaced."""
        self.calls, self._read, self._given = {}, {}, instead
        read = self._multiplied if self.parameters else None
        inert = Inert(mode, read, self._sizes.setdefault(mode, []))
        with inert, torch.random.fork_rng(devices=[]):
            # Only the CPU's, which is restored: torch.manual_seed would seed all devices.
            torch.default_generator.manual_seed(0)
            if isinstance(self.inputs, tuple):
                self.model(*(_cloned(x) for x in self.inputs))
            else:
                self.model(**{key: _cloned(value) for key, value in self.inputs.items()})
        self.attends = self.attends or inert.attends
        return self._read

    def axis(self, reader: Reader, ndim: int) -> int:
        """The axis of the channels."""
        if reader.module in self._axes:
            return self._axes[reader.module] + ndim
        return ndim - 1 - len(getattr(self.modules[reader.module], "kernel_size", ()))

    def _hook(self, name: str) -> Callable[..., Any]:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> Any:
            if args:
                return (self._given_to(name, args[0]), *args[1:]), kwargs
            key = next(iter(kwargs))
            return args, {**kwargs, key: self._given_to(name, kwargs[key])}

        return hook

    def _given_to(self, name: str, x: torch.Tensor) -> torch.Tensor:
        """Note a reader's input, and return its replacement."""
        call = self.calls.get(name, 0)
        self.calls[name] = call + 1
        self._read[name, call] = x.detach().cpu().numpy().copy()
        instead = self._given.get((name, call))
        return x if instead is None else torch.from_numpy(instead.copy()).to(x.dtype)

    def _multiplied(self, left: torch.Tensor, right: torch.Tensor) -> tuple[Any, Any]:
        """The operands of a matrix product; notes the input of a parameter among them."""
        for weight, x, axis in ((right, left, -1), (left, right, -2)):
            name = self.parameters.get(weight.untyped_storage().data_ptr())
            if name is None or self._axes.setdefault(name, axis) != axis:
                continue
            call = self.calls.get(name, 0)
            if call == self.n_calls[name] or self.by_call[name, call].size != x.shape[axis]:
                # Differs from the graph: this parameter's inputs are not comparable.
                self.calls[name] = -1
                continue
            x = self._given_to(name, x)
            return (x, weight) if axis == -1 else (weight, x)
        return left, right


def _cloned(value: Any) -> Any:
    return value.clone() if isinstance(value, torch.Tensor) else value
