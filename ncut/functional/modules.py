"""Looking at, and changing, what the parts of a torch module read while it runs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from ncut.errors import InputError
from ncut.extract.modules import unwrapped

if TYPE_CHECKING:
    from torch import Tensor, nn

    Read: TypeAlias = Callable[[Tensor], Tensor | None]
    """Gets what a module reads; or writes; what it returns, unless None, takes its place."""


class Reading(NamedTuple):
    """Where a layer's neurons lie in what a module reads.

    Attributes
    ----------
    axis : int
        The axis of the neurons, counted from the last.
    positions : int
        How many entries each neuron has there, side by side.
    """

    axis: int
    positions: int


def part(model: nn.Module, name: str) -> nn.Module:
    """The part of a module with this qualified name.

    Raises
    ------
    InputError
        If there is none.
    """
    try:
        found: nn.Module = unwrapped(model).get_submodule(name)
    except AttributeError as error:
        raise InputError(
            f"model: {type(model).__name__} has no module {name!r}; pass the model that the "
            "layers were read from"
        ) from error
    return found


def reading(module: nn.Module, name: str, size: int) -> Reading:
    """Where the `size` neurons of a layer lie in what a module of this name reads.

    Raises
    ------
    InputError
        If the module is not a linear layer or a convolution, or reads another number of values.
    """
    from torch import nn

    if isinstance(module, nn.Linear) and module.in_features % size == 0:
        return Reading(-1, module.in_features // size)
    if isinstance(module, nn.modules.conv._ConvNd) and module.in_channels == size:
        return Reading(-1 - len(module.kernel_size), 1)
    if isinstance(module, nn.Linear | nn.modules.conv._ConvNd):
        raise InputError(
            f"model: {name!r} does not read the {size} neurons of one layer: {module}; pass the "
            "model that the layers were read from"
        )
    raise InputError(
        f"model: {name!r} is a {type(module).__name__}; the position of neurons in its input is "
        "known only for linear layers and convolutions"
    )


@contextmanager
def hooked(
    model: nn.Module, reads: Mapping[str, Read], writes: Mapping[str, Read] | None = None
) -> Iterator[None]:
    """Call a function with what each named part of a module reads, or writes, whenever it runs.

    The hooks are gone afterwards, also after an exception. Compiled code, which may ignore
    hooks, runs uncompiled meanwhile.
    """
    handles = []
    try:
        with uncompiled():
            for name, read in reads.items():
                hook = _before(read)
                handles.append(part(model, name).register_forward_pre_hook(hook, with_kwargs=True))
            for name, read in (writes or {}).items():
                handles.append(part(model, name).register_forward_hook(_after(read)))
            yield
    finally:
        for handle in handles:
            handle.remove()


def uncompiled() -> AbstractContextManager[Any]:
    """Run everything that torch compiled as it was before."""
    if "torch._dynamo" not in sys.modules:
        return nullcontext()
    import torch

    stance: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return stance


def _before(read: Read) -> Callable[..., Any]:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        changed = read(args[0] if args else kwargs["input"])
        if changed is None:
            return None
        return ((changed, *args[1:]), kwargs) if args else (args, {**kwargs, "input": changed})

    return hook


def _after(read: Read) -> Callable[..., Any]:
    return lambda module, args, output: read(output)
