"""Converts array-likes (NumPy, torch tensors, nested lists) to arrays of real numbers."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ncut.errors import InputError, ModelError

if TYPE_CHECKING:
    import torch


SINGLE_MATRIX_HINT = (
    "to cluster a single weight matrix W, pass its bipartite adjacency: "
    "scipy.sparse.csr_array(scipy.sparse.block_array([[None, abs(W)], [abs(W).T, None]]))"
)


class Shaped:
    """Anything with a shape: its numbers of axes and of entries."""

    __slots__ = ()

    if TYPE_CHECKING:

        @property
        def shape(self) -> tuple[int, ...]:
            """Length of each axis."""

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of entries."""
        return math.prod(self.shape)

    def axis(self, axis: int) -> int:
        """An axis counted from the front."""
        if not -self.ndim <= axis < max(self.ndim, 1):
            raise ModelError(f"axis {axis} of a tensor of shape {self.shape}")
        return axis % max(self.ndim, 1)


def as_array(values: Any, what: str) -> NDArray[np.floating]:
    """Return `values` as an array of floats, without changing the argument.

    Floats of 16, 32 and 64 bits keep their type (bfloat16 as the dtype of the package ml_dtypes),
    shorter floats become float32, other real numbers float64. Memory-mapped arrays stay mapped.
    Masked entries of numpy.ma are 0: no weight. torch tensors are detached and copied to the CPU.

    Parameters
    ----------
    values : array_like of any shape
        A NumPy array, a torch tensor or nested lists of numbers.
    what : str
        Name of the values, for messages.

    Raises
    ------
    InputError
        If the values are not real numbers, ragged, or a tensor without data.
    """
    if is_tensor(values):
        values = _tensor_to_array(values, what)
    if isinstance(values, np.ma.MaskedArray):
        values = values.filled(0)
    if hasattr(values, "tocsr"):
        raise InputError(f"{what}: a scipy sparse matrix; pass its dense form, .toarray()")
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise InputError(f"{what}: not an array of numbers: {error}") from error
    if array.dtype.name in ("float16", "bfloat16", "float32", "float64"):
        # The compiled core reads aligned numbers only, and a file may store them at any offset.
        return array.astype(array.dtype.newbyteorder("="), copy=not array.flags.aligned)
    if array.dtype.kind not in "fiu":
        raise InputError(f"{what}: weights must be real numbers, got dtype {array.dtype}")
    return array.astype(np.float64)


def is_tensor(value: Any) -> bool:
    """Check whether `value` is a torch tensor; does not import torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _tensor_to_array(tensor: torch.Tensor, what: str) -> NDArray[Any]:
    import torch

    if tensor.is_meta:
        raise InputError(f"{what}: the tensor is on the device 'meta' and has no values to read")
    try:
        tensor = tensor.detach().cpu()
        if tensor.is_quantized:
            tensor = tensor.dequantize()
        if tensor.layout != torch.strided:
            tensor = tensor.to_dense()
        if tensor.dtype == torch.bfloat16:
            import ml_dtypes

            bits: NDArray[Any] = tensor.contiguous().view(torch.uint16).numpy()
            return bits.view(ml_dtypes.bfloat16)
        if tensor.is_floating_point() and tensor.dtype not in (
            torch.float16,
            torch.float32,
            torch.float64,
        ):
            tensor = tensor.to(torch.float32)
        array: NDArray[Any] = tensor.resolve_conj().resolve_neg().numpy()
    except (RuntimeError, TypeError, NotImplementedError) as error:
        kind = f"{str(tensor.dtype).removeprefix('torch.')} tensor"
        raise InputError(
            f"{what}: a {'nested ' * tensor.is_nested}{kind}, which has no array of real numbers; "
            "pass it as float32"
        ) from error
    return array


def untransposed(values: Any, groups: int) -> Any:
    """(in, out / groups, positions...) of a transposed convolution as (out, in / groups, ...)."""
    n_in, n_out = values.shape[:2]
    parts = values.reshape(groups, n_in // groups, n_out, *values.shape[2:])
    return parts.swapaxes(1, 2).reshape(groups * n_out, n_in // groups, *values.shape[2:])
