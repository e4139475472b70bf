"""Short and unique names of layers, their blocks, and names of neurons."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ncut.errors import InputError
from ncut.files import reading, regular_file
from ncut.report.wording import printable

if TYPE_CHECKING:
    from ncut.results import Measurement
    from ncut.types import Layer

STREAM = "stream of "
# Prefix of a module's path in the name of a layer.
KINDS = (STREAM, "input of ", "rows of ", "heads of ", "memory of ", "state of ", "output of ")
# Names of containers of numbered blocks in the model families.
CONTAINERS = ("layer", "layers", "h", "block", "blocks", "resblocks")
QUERIES = re.compile(r"(^|[._])(q|query|q_proj|q_lin|wq)$")
KEYS = re.compile(r"(^|[._])(k|v|key|value|k_proj|v_proj|k_lin|v_lin|wk|wv)$")


@dataclass(frozen=True)
class Names:
    """The names that pictures and tables show of a network's layers and neurons.

    Attributes
    ----------
    full : tuple of str
        The layers' names in the model.
    short : tuple of str
        The same without common prefixes, each unique: "L0.query" for "encoder.layer.0.attention.
        self.query".
    block : tuple of str
        The block of each layer, such as "L0"; its short name if it is in no block.
    stream : tuple of bool
        Whether each is the residual stream.
    heads : tuple of int
        Number of attention heads of each layer, whose neurons are ordered by head; 0 if there are
        none or the number is unknown.
    sizes : tuple of int
    """

    full: tuple[str, ...]
    short: tuple[str, ...]
    block: tuple[str, ...]
    stream: tuple[bool, ...]
    heads: tuple[int, ...]
    sizes: tuple[int, ...]

    def neuron(self, layer: int, index: int) -> str:
        """A neuron's name: "fc1 17", or "L3.H5.query 2" in a head."""
        n_heads = self.heads[layer]
        if not n_heads:
            return f"{self.short[layer]} {index}"
        head, inside = divmod(index, self.sizes[layer] // n_heads)
        before, _, last = self.short[layer].rpartition(".")
        return f"{before}.H{head}.{last} {inside}" if before else f"H{head}.{last} {inside}"

    @cached_property
    def blocks(self) -> list[tuple[str, list[int]]]:
        """Each block with the positions of its layers, in order of the first one."""
        found: dict[str, list[int]] = {}
        for at, block in enumerate(self.block):
            found.setdefault(block, []).append(at)
        return list(found.items())


def names_of(report: Measurement) -> Names:
    """The names for a report's layers."""
    return layer_names(report.layers, getattr(report, "heads", ()))


def layer_names(layers: Sequence[Layer], heads: Sequence[int] = ()) -> Names:
    """The names for layers, with the number of attention heads of each if known."""
    full = tuple(printable(layer.name) for layer in layers)
    parts = [_split(name) for name in full]
    stacks = {stack for _, stack, number, _ in parts if number}
    short = _unique([_candidates(*part, single=len(stacks) == 1) for part in parts], full)
    block = [
        _label(stack, number, single=len(stacks) == 1) if number else name
        for name, (_, stack, number, _) in zip(short, parts, strict=True)
    ]
    streams = tuple(name.startswith(STREAM) for name in full)
    return Names(
        full=full,
        short=short,
        block=tuple(
            name if is_stream else one
            for one, name, is_stream in zip(block, short, streams, strict=True)
        ),
        stream=streams,
        heads=tuple(heads) or (0,) * len(full),
        sizes=tuple(layer.size for layer in layers),
    )


def heads_of(source: Any, layers: Sequence[Layer]) -> tuple[int, ...]:
    """Number of attention heads of each layer of queries, keys or values; 0 for all others.

    The number comes from the configuration of a transformers model or of its folder; it counts as
    unknown if a layer's size is not a multiple of it.
    """
    config = _config(source)
    n_heads = next((config[n] for n in ("num_attention_heads", "n_head", "n_heads") if n in config),
                   0)  # fmt: skip
    n_keys = config.get("num_key_value_heads") or n_heads
    found = []
    for layer in layers:
        count = n_heads if QUERIES.search(layer.name) else n_keys if KEYS.search(layer.name) else 0
        whole = isinstance(count, int) and count > 0 and layer.size % count == 0
        found.append(count if whole else 0)
    return tuple(found)


def _config(source: Any) -> dict[str, Any]:
    if isinstance(source, str | Path):
        try:
            path = regular_file(Path(source) / "config.json", InputError)
            with reading(path, "a configuration", InputError):
                read = json.loads(path.read_text(encoding="utf-8"))
        except InputError:
            return {}
        return read if isinstance(read, dict) else {}
    found = getattr(source, "config", None)
    to_dict = getattr(found, "to_dict", None)
    made = to_dict() if callable(to_dict) else {}
    return made if isinstance(made, dict) else {}


def _split(name: str) -> tuple[str, str, str, list[str]]:
    """The kind, the stack of blocks, the block's number in it, and the rest of the name."""
    kind = next((one for one in KINDS if name.startswith(one)), "")
    path = name.removeprefix(kind).split(".")
    for at in range(1, len(path)):
        if path[at].isdecimal() and path[at - 1] in CONTAINERS:
            return kind, ".".join(path[: at - 1]), path[at], path[at + 1 :]
    return kind, "", "", path


def _label(stack: str, number: str, *, single: bool) -> str:
    last = stack.rpartition(".")[2]
    return f"L{number}" if single or not last else f"{last}.L{number}"


def _candidates(kind: str, stack: str, number: str, rest: list[str], *, single: bool) -> list[str]:
    """Names of growing length, from the last part of the path to all of it."""
    head = f"{_label(stack, number, single=single)}." if number else ""
    found = [
        kind + head + ".".join(rest[-n:])
        for n in range(1, len(rest) + 1)
        if n == len(rest) or not rest[-n].isdecimal()  # "0.conv1" is not a name
    ]
    if not rest:
        found = [kind + head.rstrip(".")]
    if rest and rest[0].isdecimal() and not number and len(rest) == 1:
        found = [f"{kind}layer {rest[0]}"]
    if kind == STREAM:
        found = ["stream", *found]
    return found


def _unique(candidates: list[list[str]], full: tuple[str, ...]) -> tuple[str, ...]:
    """The first unshared candidate for each; numbered if all are shared."""
    level = [0] * len(full)
    while True:
        now = [names[at] for names, at in zip(candidates, level, strict=True)]
        counts = Counter(now)
        longer = [
            at
            for at, name in enumerate(now)
            if counts[name] > 1 and level[at] + 1 < len(candidates[at])
        ]
        if not longer:
            break
        for at in longer:
            level[at] += 1
    taken: set[str] = set()
    for at, name in enumerate(now):
        if counts[name] > 1:
            name = full[at]
        number, plain = 1, name
        while name in taken:
            number += 1
            name = f"{plain} ({number})"
        taken.add(name)
        now[at] = name
    return tuple(now)
