"""Building blocks of transformers on a `Program`: embeddings, norms, attention, MLPs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncut.errors import InputError, ModelError
from ncut.extract.arrays import as_array
from ncut.extract.program.record import Program, commutes
from ncut.extract.program.values import Value, indexed, parts, with_heads, without_heads
from ncut.extract.readers.folder.config import Config

TIME = 2
"""Length of the followed sequences, which does not affect the graph."""

# Constants in older files besides the weights.
_BUFFER = re.compile(
    r"(^|\.)(position_ids|masked_bias|inv_freq|token_type_ids|embed_scale)$|(^|\.)(attn|attention)\.bias$"
)


@dataclass(slots=True)
class Network:
    """A transformer being followed."""

    program: Program
    tensors: Mapping[str, NDArray[Any]]  # all tensors of its files, by name
    config: Config
    where: str  # the folder, for messages
    used: set[str] = field(default_factory=set)  # tensors used so far

    # --- tensors ----------------------------------------------------------------------------

    def has(self, *names: str) -> bool:
        """Check whether any of the named tensors exists."""
        return any(name in self.tensors for name in names)

    def prefix(self, *candidates: str, anchor: str) -> str:
        """The prefix of the parts' names, which depends on whether the model has a head."""
        for candidate in candidates:
            if f"{candidate}{anchor}" in self.tensors:
                return candidate
        raise ModelError(
            f"has no tensor {' or '.join(repr(f'{c}{anchor}') for c in candidates)}, which this "
            "kind of model needs"
        )

    def tensor(self, *names: str) -> tuple[str, NDArray[np.floating]]:
        """The first existing tensor among `names`, and its name."""
        for name in names:
            if name in self.tensors:
                self.used.add(name)
                values = self.tensors[name]
                if getattr(values, "formula", ""):
                    self.program.formulas[name] = values.formula  # type: ignore[attr-defined]
                if values.dtype.kind in "iub" and values.dtype.name != "bfloat16":
                    raise ModelError(
                        f"tensor {name!r} holds whole numbers ({values.dtype}): quantized weights "
                        "are not read; use the model in 16 or 32 bits"
                    )
                try:
                    return name, as_array(values, name)
                except InputError as error:
                    raise ModelError(f"tensor {error}") from error
        raise ModelError(f"has no tensor {names[0]!r}, which its {self._settings()} calls for")

    def matrix(
        self, *names: str, transposed: bool = False, n_in: int = 0, n_out: int = 0
    ) -> tuple[str, NDArray[np.floating]]:
        """Weights (n_in, n_out) of the first existing layer among `names`.

        Files store (n_out, n_in) unless `transposed`.
        """
        name, values = self.tensor(*(f"{layer}.weight" for layer in names))
        if values.ndim != 2 or not values.size:
            raise ModelError(f"tensor {name!r} has shape {values.shape}, expected a matrix")
        weight = values if transposed else values.T
        for axis, n, what in ((0, n_in, "inputs"), (1, n_out, "outputs")):
            if n and weight.shape[axis] != n:
                raise ModelError(
                    f"tensor {name!r} has shape {values.shape}, but its {self._settings()} calls "
                    f"for {n} {what}"
                )
        return name, weight

    def _settings(self) -> str:
        return "config.json"

    # --- parts ------------------------------------------------------------------------------

    def embedding(
        self, name: str, *others: str, width: int = 0, n_rows: int = 0, time: int = TIME
    ) -> Value:
        """Rows of a table, whose weights may be shared with another layer."""
        parameter, table = self.matrix(name, *others, transposed=True, n_in=n_rows, n_out=width)
        return self.program.embedding(
            table, (1, time, table.shape[1]), name=name, module=name, parameters=[parameter]
        )

    def linear(
        self,
        signal: Value,
        name: str,
        *others: str,
        transposed: bool = False,
        n_out: int = 0,
        part: int | None = None,
    ) -> Value:
        """A linear layer along the last axis; a bias has no edges.

        The weights may be shared with another layer; `part` selects one half of the outputs.
        """
        parameter, weight = self.matrix(
            name, *others, transposed=transposed, n_in=signal.shape[-1], n_out=n_out
        )
        if part is not None:
            half = weight.shape[1] // 2
            weight = weight[:, part * half : (part + 1) * half]
        self.bias(f"{name}.bias", f"{parameter.removesuffix('.weight')}.bias")
        return self.program.linear(signal, weight, name=name, module=name, parameters=[parameter])

    def convolution(self, signal: Value, name: str, shape: Sequence[int]) -> Value:
        """A convolution of channels along axis 1, without groups."""
        parameter, kernel = self.tensor(f"{name}.weight")
        if kernel.ndim != signal.ndim or kernel.shape[1] != signal.shape[1]:
            raise ModelError(
                f"tensor {parameter!r} has shape {kernel.shape}, but its {self._settings()} calls "
                f"for a kernel with {signal.shape[1]} input channels and {signal.ndim - 2} axes "
                "of positions"
            )
        self.bias(f"{name}.bias")
        shape = [shape[0], kernel.shape[0], *shape[2:]]
        return self.program.convolution(
            signal, kernel, shape, name=name, module=name, parameters=[parameter]
        )

    def norm(
        self, signal: Value, name: str, kind: str = "layer norm", *, plus_one: bool = False
    ) -> Value:
        """A norm over the last axis; its weight, or 1 + weight, scales its readers."""
        signal = self.program.normalization(signal, kind)
        self.bias(f"{name}.bias", f"{name}.beta")
        return self.factors(signal, f"{name}.weight", f"{name}.gamma", plus_one=plus_one)

    def factors(self, signal: Value, *names: str, plus_one: bool = False) -> Value:
        """Factors of the neurons along the last axis."""
        name, weight = self.tensor(*names)
        if weight.shape != (signal.shape[-1],):
            raise ModelError(
                f"tensor {name!r} has shape {weight.shape}, but it scales {signal.shape[-1]} values"
            )
        self.program.place([name], "a factor of a layer's neurons")
        if plus_one:
            self.program.formulas[name] = f"1 + {self.program.formulas.get(name, name)}"
            weight = np.float32(1) + weight.astype(np.float32)
        if weight.size == 1:
            return self.gain(signal, float(weight[0]))
        return self.program.scaled(signal, weight.astype(np.float64), name=name)

    def gain(self, signal: Value, factor: float) -> Value:
        """A factor shared by all neurons."""
        usable = np.isfinite(factor) and factor != 0
        return self.program.gain(signal, abs(factor)) if usable else signal

    def activation(self, signal: Value, kind: str) -> Value:
        """An elementwise function, by its name in the settings."""
        if kind == "linear":
            return signal
        return self.program.activation(signal, homogeneous=commutes(kind))

    def add(self, first: Value, second: Value) -> Value:
        """A sum of two signals of one shape."""
        if first.shape != second.shape:
            names = [" + ".join(self.program.wrote(value)) for value in (first, second)]
            raise ModelError(
                f"adds {first.shape[-1]} values of {names[0]!r} and {second.shape[-1]} of "
                f"{names[1]!r}"
            )
        return self.program.add(first, second)

    def constant(self, *names: str) -> None:
        """Tensors added as constants."""
        for name in names:
            if name in self.tensors:
                self.used.add(name)
                self.program.ignore([name], "added as a constant, like a bias")

    def aside(self, name: str) -> None:
        """A tensor used only in training."""
        if name in self.tensors:
            self.used.add(name)
            self.program.leave_out(
                name, self.tensors[name].shape, "the forward pass does not use it"
            )

    def bias(self, *names: str) -> None:
        """Biases, if present."""
        for name in names:
            if name in self.tensors:
                self.used.add(name)
                self.program.ignore([name], "bias")

    # --- attention and MLPs -----------------------------------------------------------------

    def heads(self, signal: Value, n_heads: int, what: str) -> Value:
        """(batch, time, heads * dims) as (batch, heads, time, dims)."""
        width = signal.shape[-1]
        if width % n_heads:
            raise ModelError(
                f"{what!r} has {width} outputs, which its {self._settings()} splits into "
                f"{n_heads} heads"
            )
        return with_heads(signal, n_heads)

    def attend(self, name: str, query: Value, key: Value, value: Value) -> Value:
        """Attention of (batch, heads, time, dims), as (batch, time, heads * dims)."""
        if (
            query.shape[1] % key.shape[1]
            or key.shape[1] != value.shape[1]
            or key.shape[3] != query.shape[3]
        ):
            raise ModelError(
                f"{name!r}: {query.shape[1]} heads of {query.shape[3]} query dimensions do not "
                f"fit {key.shape[1]} heads of {key.shape[3]} key dimensions"
            )
        return without_heads(self.program.attention(query, key, value, name=f"heads of {name}"))

    def attention(
        self,
        signal: Value,
        name: str,
        parts: tuple[str, str, str],
        *,
        n_heads: int,
        n_key_heads: int = 0,
        head_dim: int = 0,
        memory: Value | None = None,
        norms: tuple[str, str] | None = None,
        plus_one: bool = False,
    ) -> Value:
        """Attention with separate linear layers for queries, keys and values, without the output's.

        Parameters
        ----------
        name : str
            The attention module; `parts` are the suffixes of its linear layers.
        memory : Value, optional
            The input of keys and values, if not `signal`.
        norms : pair of str, optional
            RMS norms over the head dimension of queries and keys.
        plus_one : bool
            Whether the norms' factor is 1 + weight.
        """
        memory = signal if memory is None else memory
        made: list[Value] = []
        for at, source in enumerate((signal, memory, memory)):
            layer = f"{name}.{parts[at]}"
            n = n_heads if at == 0 else n_key_heads or n_heads
            split = self.heads(self.linear(source, layer, n_out=n * head_dim), n, layer)
            if norms is not None and at < 2:
                split = self.norm(split, f"{name}.{norms[at]}", "norm", plus_one=plus_one)
            made.append(split)
        return self.attend(name, *made)

    def joined_heads(self, signal: Value, counts: Sequence[int], what: str) -> list[Value]:
        """Queries, keys and values of one layer, concatenated, in numbers of heads."""
        width, rest = divmod(signal.shape[-1], sum(counts))
        if rest:
            raise ModelError(
                f"{what!r} has {signal.shape[-1]} outputs, which its {self._settings()} splits "
                f"into {sum(counts)} heads"
            )
        sizes = [n * width for n in counts]
        split = zip(parts(signal, 2, sizes), counts, strict=True)
        return [self.heads(part, n, what) for part, n in split]

    def packed_heads(self, signal: Value, n_heads: int, what: str) -> list[Value]:
        """Queries, keys and values of one layer, interleaved by head."""
        heads = self.heads(signal, n_heads, what)
        dims, rest = divmod(heads.shape[-1], 3)
        if rest:
            raise ModelError(f"{what!r}: {heads.shape[-1]} outputs of a head are not three parts")
        return parts(heads, 3, [dims] * 3)

    def mlp(self, signal: Value, first: str, second: str, kind: str, n_hidden: int = 0) -> Value:
        """Two linear layers with an activation in between."""
        hidden = self.activation(self.linear(signal, first, n_out=n_hidden), kind)
        return self.linear(hidden, second)

    def gated_mlp(
        self, signal: Value, gate: str, up: str, down: str, kind: str, n_hidden: int = 0
    ) -> Value:
        """A gated MLP: hidden neurons are products of an activated and a linear unit."""
        gates = self.activation(self.linear(signal, gate, n_out=n_hidden), kind)
        product = self.program.multiply(gates, self.linear(signal, up, n_out=n_hidden))
        return self.linear(product, down)

    # --- ends -------------------------------------------------------------------------------

    def first_position(self, signal: Value) -> Value:
        """`hidden[:, 0]`."""
        return indexed(signal, 1, 0)

    def outputs(self, *signals: Value) -> None:
        """The outputs of the forward pass, in order."""
        for number, signal in enumerate(signals):
            self.program.output(signal, "output" if number == 0 else f"output {number}")

    def note_unused(self, kind: str) -> None:
        """Record the unused tensors as left out or ignored."""
        for name, values in self.tensors.items():
            if name in self.used:
                continue
            if _BUFFER.search(name):
                self.program.ignore([name], "a constant of the model, no weight")
            else:
                self.program.leave_out(
                    name, values.shape, f"no part of a {kind} that is known, or of another head"
                )


def tied(network: Network, prefix: str, suffixes: Iterable[str], *, default: bool) -> bool:
    """Check whether a model without head weights has a head tied to its embeddings."""
    if not network.config.flag("tie_word_embeddings", default=default):
        return False
    classes = network.config.words("architectures")
    if not classes:
        return bool(prefix)
    return any(name.endswith(tuple(suffixes)) for name in classes)
