"""Inspection and modification of the inputs of a torch module's parts while it runs."""

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
    """Takes a module's input or output; its result, unless None, replaces that value."""


class Reading(NamedTuple):
    """The position of a layer's neurons in a module's input.

    Attributes
    ----------
    axis : int
        The axis of the neurons, counted from the last.
    positions : int
        Number of consecutive entries of each neuron.
    """

    axis: int
    positions: int


def part(model: nn.Module, name: str) -> nn.Module:
    """The submodule with this qualified name.

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
    """The position of a layer's `size` neurons in the input of a module of this name.

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
    """Call a function with the input, or output, of each named submodule whenever it runs.

    The hooks are removed afterwards, also after an exception. Compiled code, which may ignore
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
    """Run code compiled by torch in its uncompiled form."""
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
