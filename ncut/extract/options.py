"""The arguments of `ncut.graph`, for functions that pass them on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from ncut.types import EdgeKind, KernelNorm, Scope, Unknown

if TYPE_CHECKING:
    from ncut.extract.wiring import Residual


class FileOptions(TypedDict, total=False):
    """Those that mean something for files; see `ncut.graph`."""

    scope: Scope
    norm: KernelNorm
    layers: Sequence[str] | Mapping[str, int] | None
    residual: Residual | None
    unknown: Unknown
    scratch: str | Path | None
    part: str | None


class GraphOptions(FileOptions, total=False):
    """All of them; see `ncut.graph`."""

    name: str | None
    initial: bool
    example_inputs: Any
    weights: str | Path | None
    check: bool
    edges: EdgeKind
    data: Any
    loss: Any
    key: str | None


FILE_OPTIONS = tuple(FileOptions.__annotations__)
"""Names of the arguments of `ncut.graph` that mean something for files."""

GRAPH_OPTIONS = (*FILE_OPTIONS, *(n for n in GraphOptions.__annotations__ if n not in FILE_OPTIONS))
"""Names of the arguments of `ncut.graph`."""
