"""The arguments of `ncut.graph`, for functions that pass them on and for readers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from ncut.errors import InputError
from ncut.extract.assembly.assemble import assemble
from ncut.extract.lowering.kinds import lower
from ncut.extract.program.record import Program
from ncut.graphs import NeuronGraph
from ncut.graphs.data import in_scratch
from ncut.types import EdgeKind, KernelNorm, Scope, Unknown

if TYPE_CHECKING:
    from ncut.extract.lowering.wiring import Residual, Wiring


class FileOptions(TypedDict, total=False):
    """The options that apply to files; see `ncut.graph`."""

    scope: Scope
    norm: KernelNorm
    layers: Sequence[str] | Mapping[str, int] | None
    residual: Residual | None
    unknown: Unknown
    scratch: str | Path | None
    part: str | None


class GraphOptions(FileOptions, total=False):
    """All options; see `ncut.graph`."""

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
"""Names of the arguments of `ncut.graph` that apply to files."""

GRAPH_OPTIONS = (*FILE_OPTIONS, *(n for n in GraphOptions.__annotations__ if n not in FILE_OPTIONS))
"""Names of the arguments of `ncut.graph`."""


@dataclass(frozen=True, slots=True)
class Options:
    """Options for reading a model; each applies to some kinds of models only."""

    scope: str = "paper"
    norm: str = "l1"
    layers: Sequence[str] | None = None
    name: str | None = None
    initial: bool = False
    residual: str | None = None
    example_inputs: Any = None
    unknown: str = "error"
    weights: str | Path | None = None
    scratch: Path | None = None
    key: str | None = None
    part: str | None = None
    only_program: bool = False

    def refuse(self, what: str, *names: str) -> None:
        """Refuse options that have no effect on a kind of model."""
        for field in fields(self):
            if field.name in names and getattr(self, field.name) != field.default:
                raise InputError(f"{field.name}: has no effect on {what}; leave it out")

    def lower(self, program: Program) -> Wiring:
        """The record of a program under the requested convention of sums."""
        return lower(program, self.residual)

    def assembled(
        self, wiring: Wiring, name: str, parameters: Mapping[str, tuple[int, ...]]
    ) -> Any:
        """The graph of a recorded forward pass, or its program."""
        if self.only_program:
            return wiring.program
        return assemble(
            wiring,
            scope=self.scope,
            norm=self.norm,
            name=self._called(name) if self.name is None else self.name,
            parameters=parameters,
            initial=self.initial,
            scratch=self.scratch,
            part=self.part,
        )

    def _called(self, name: str) -> str:
        return name if self.part is None else f"{name}, {self.part}"

    def finished(self, graph: NeuronGraph) -> NeuronGraph:
        """An existing graph, with the requested name and scratch folder."""
        if self.only_program:
            raise InputError("model: a graph has no program; pass the model that it was made of")
        named = graph if self.name is None else replace(graph, name=self.name)
        return in_scratch(named, self.scratch)
