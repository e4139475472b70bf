"""Blocks of weights in files instead of memory, for graphs that are larger than it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ncut.errors import InputError

if TYPE_CHECKING:
    from ncut.types import Weights

SMALLEST = 2**20
"""Blocks of fewer bytes stay in memory."""


def check_scratch(scratch: str | Path | None) -> Path | None:
    """The folder as a path; refuse what is none."""
    if scratch is None:
        return None
    if not isinstance(scratch, str | Path) or not Path(scratch).is_dir():
        raise InputError(f"scratch: must be an existing folder, got {scratch!r}")
    return Path(scratch)


def settled(weights: Weights, scratch: Path | None) -> Weights:
    """A dense block moved to a file in `scratch`, where there is one; mapped, so read as needed.

    The file has no name: it is gone when nothing uses it any more, also if this process is
    killed. What has been read of it the system may drop from memory at any time.
    """
    if scratch is None or not isinstance(weights, np.ndarray) or weights.nbytes < SMALLEST:
        return weights
    if isinstance(weights, np.memmap) and weights.mode:  # results of its arithmetic have no file
        return weights
    try:
        with tempfile.TemporaryFile(dir=scratch) as file:
            # The bytes, as NumPy does not write every type of 16 bits.
            np.ascontiguousarray(weights).view(np.uint8).tofile(file)
            mapped: Any = np.memmap(file, dtype=np.uint8, mode="r")
    except OSError as error:
        raise InputError(
            f"scratch: no room for a block of {weights.nbytes:,} bytes in {scratch}: "
            f"{error.strerror or error}"
        ) from error
    found: Weights = mapped.view(weights.dtype).reshape(weights.shape)
    return found
