"""`Traced`: a torch tensor without data that stands for a value of a program."""

from __future__ import annotations

from typing import Any

import torch

from ncut.extract.program.values import Value


class Traced(torch.Tensor):
    """Stands for an activation while a forward pass runs: a shape, a type and a `Value`.

    Operations on it are dispatched one by one to `Tracing.dispatch`
    (in `traced.tracing`), which infers shapes on the device "meta". Computations on
    parameters alone run normally.
    """

    meta: torch.Tensor
    value: Value
    tracing: Any
    version: int = 0

    @staticmethod
    def __new__(cls, meta: torch.Tensor, value: Value, tracing: Any) -> Traced:
        """A tensor like `meta` (on the device "meta") that stands for `value`."""
        made: Traced = torch.Tensor._make_wrapper_subclass(
            cls,
            meta.shape,
            strides=meta.stride(),
            storage_offset=meta.storage_offset(),
            dtype=meta.dtype,
            device=tracing.device,
        )
        made.meta, made.value, made.tracing = meta, value, tracing
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Dispatch the operation to the forward pass of its traced tensors."""
        tracing = next(value.tracing for value in flat(args, kwargs or {}) if is_traced(value))
        return tracing.dispatch(func, args, kwargs or {})

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        """The shape only, as there is no data."""
        return f"Traced({tuple(self.shape)})"


def is_traced(value: Any) -> bool:
    """Check whether a value is a traced tensor."""
    return isinstance(value, Traced)


def flat(args: Any, kwargs: Any = None) -> list[Any]:
    """The values in arguments, with lists and tuples flattened."""
    found: list[Any] = []
    for value in (*args, *(kwargs or {}).values()):
        if isinstance(value, list | tuple):
            found += flat(value)
        else:
            found.append(value)
    return found


def storage_of(tensor: torch.Tensor) -> int:
    """The memory of a tensor, which its views share."""
    try:
        return int(tensor.untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError):  # not strided
        return -id(tensor)
