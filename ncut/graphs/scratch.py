"""Blocks of weights in files, for graphs larger than memory."""

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
    """The folder as a path; refuse anything else."""
    if scratch is None:
        return None
    if not isinstance(scratch, str | Path) or not Path(scratch).is_dir():
        raise InputError(f"scratch: must be an existing folder, got {scratch!r}")
    return Path(scratch)


def in_scratch_file(weights: Weights, scratch: Path | None) -> Weights:
    """A dense block moved to a memory-mapped file in `scratch`, if given.

    The file has no name: it disappears with its last user, also if this process is killed. The
    system may evict its pages from memory at any time.
    """
    if scratch is None or not isinstance(weights, np.ndarray) or weights.nbytes < SMALLEST:
        return weights
    if isinstance(weights, np.memmap) and weights.mode:  # results of arithmetic have no file
        return weights
    try:
        with tempfile.TemporaryFile(dir=scratch) as file:
            # As bytes, since NumPy does not write every 16-bit type.
            np.ascontiguousarray(weights).view(np.uint8).tofile(file)
            mapped: Any = np.memmap(file, dtype=np.uint8, mode="r")
    except OSError as error:
        raise InputError(
            f"scratch: no room for a block of {weights.nbytes:,} bytes in {scratch}: "
            f"{error.strerror or error}"
        ) from error
    found: Weights = mapped.view(weights.dtype).reshape(weights.shape)
    return found
