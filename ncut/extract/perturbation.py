"""Do the edges of a graph say which neurons reach which in the network itself?

With `residual="readers"` and `scope="all"` a vertex is an input channel of a module that holds
weights. Here the network runs on random data, one such channel is changed before its module reads
it, and every other module is noted for which of its input channels changed. As each module gets
what it got in the unchanged run once its input is noted, changes pass a single layer of weights,
and the channels that changed have to be the vertex's neighbours.

Statistics by which all channels depend on all others (those of layer norms, the weights of an
attention) are not in the graph, and are made constants here; activations are replaced by ones
that no change can hide in.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from ncut.errors import ModelError
from ncut.extract.traced.inputs import Inputs, given, guesses
from ncut.types import Check

READERS = (
    nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d,
    nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
)  # fmt: skip

# A product of the same matrices may come out differently in its last digits.
TOLERANCE = 1e-12


# --- operations that hide changes, or spread them to all channels ---------------------------------


def _leaky(x: Any, *_: Any, **__: Any) -> Any:
    return torch.where(x > 0, x, 0.5 * x)


def _bounded(x: Any, *_: Any, **__: Any) -> Any:
    """Like a gate, but for the fact that it never saturates."""
    return 1 + 0.3 * torch.sin(x)


def _ones(x: Any, *_: Any, **__: Any) -> Any:
    return torch.ones_like(x)


def _layer_norm(x: Any, shape: Any, weight: Any, bias: Any, eps: Any) -> Any:
    x = x if weight is None else x * weight
    x = x if bias is None else x + bias
    return x, x.new_zeros(()), x.new_ones(())


def _rms_norm(x: Any, shape: Any, weight: Any, eps: Any = None) -> Any:
    return x if weight is None else x * weight, x.new_ones(())


def _by_channel(x: Any, weight: Any, bias: Any) -> Any:
    shape = [-1 if axis == 1 else 1 for axis in range(x.ndim)]
    x = x.clone() if weight is None else x * weight.reshape(shape)
    return x if bias is None else x + bias.reshape(shape)


def _group_norm(x: Any, weight: Any, bias: Any, *_: Any) -> Any:
    return _by_channel(x, weight, bias), x.new_zeros(()), x.new_ones(())


def _softmax(x: Any, dim: int, *_: Any) -> Any:
    # Over any other axis than the last it weighs branches of a block, channel by channel.
    return torch.full_like(x, 1 / x.shape[dim]) if dim in (-1, x.ndim - 1) else _bounded(x)


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> Any:
    value = value.repeat_interleave(query.shape[-3] // value.shape[-3], dim=-3)
    mean = value.mean(dim=-2, keepdim=True).expand(*query.shape[:-1], value.shape[-1])
    return mean.contiguous(), mean.new_zeros(query.shape[:-1])


REPLACED: dict[str, Any] = {
    **dict.fromkeys(["relu", "gelu", "silu", "hardswish", "elu", "mish", "hardtanh"], _leaky),
    **dict.fromkeys(["sigmoid", "tanh", "hardsigmoid"], _bounded),
    **dict.fromkeys(["rsqrt", "linalg_vector_norm"], None),
    "native_layer_norm": _layer_norm,
    "_fused_rms_norm": _rms_norm,
    "native_group_norm": _group_norm,
    "_softmax": _softmax,
    "_safe_softmax": _softmax,
    "_scaled_dot_product_flash_attention_for_cpu": _attention,
    "_scaled_dot_product_attention_math": _attention,
}


class Inert(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Replaces what spreads changes to all channels, and what hides them."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.removeprefix("aten::")
        if name == "native_batch_norm" and args[5]:
            x = args[0]
            return _by_channel(x, args[1], args[2]), x.new_zeros(()), x.new_ones(())
        plain = name.removesuffix("_") if name.endswith("_") else name
        if plain not in REPLACED:
            return func(*args, **kwargs)
        rule = REPLACED[plain]
        result = torch.ones_like(func(*args, **kwargs)) if rule is None else rule(*args, **kwargs)
        return args[0].copy_(result) if plain != name else result


def randomized(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model in evaluation mode; what starts as a constant, and statistics, made random."""
    generator = torch.Generator().manual_seed(seed)

    def noise(like: torch.Tensor) -> torch.Tensor:
        return torch.rand(like.shape, generator=generator, dtype=torch.float32).to(like.dtype)

    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.numel() and (parameter - parameter.reshape(-1)[0]).abs().max() == 0:
                parameter.copy_(noise(parameter) + 0.5)
        parts: Iterator[Any] = model.modules()
        for part in parts:
            if isinstance(getattr(part, "running_var", None), torch.Tensor):
                part.running_var.copy_(noise(part.running_var) + 0.5)
                part.running_mean.copy_(noise(part.running_mean) - 0.5)
    return model.eval()


# --- the check ----------------------------------------------------------------------------------


@dataclass
class Reader:
    """A layer of vertices that a module reads.

    Attributes
    ----------
    layer : int
        Position of the layer in the graph.
    size : int
        Number of vertices.
    module : str
        The module's name.
    call : int
        Which call of the module.
    """

    layer: int
    size: int
    module: str
    call: int


@dataclass
class Outcome:
    """What a check found.

    Attributes
    ----------
    n_vertices : int
        Vertices that were changed.
    n_readers, n_layers : int
        Layers whose channels were watched, and all that have vertices.
    missing : list of str
        Channels that changed and that the graph has no edge to.
    surplus : list of str
        Channels that the graph has an edge to, and that did not change.
    """

    n_vertices: int = 0
    n_readers: int = 0
    n_layers: int = 0
    n_edges: int = 0
    missing: list[str] = field(default_factory=list)
    surplus: list[str] = field(default_factory=list)

    @property
    def agrees(self) -> bool:
        """Whether the changed channels were the neighbours, for all vertices."""
        return self.n_edges > 0 and not (self.missing or self.surplus)


def check(
    model: nn.Module,
    graph: Any,
    inputs: Any,
    *,
    n: int = 20,
    seed: int = 0,
    readers: tuple[type, ...] = READERS,
) -> Outcome:
    """Change `n` random vertices of a graph with residual="readers", scope="all".

    `inputs` are the positional arguments (a tuple) or the keyword arguments (a mapping).
    """
    watch = _Watch(model, graph, inputs, readers)
    rng = np.random.default_rng(seed)
    outcome = Outcome(n_layers=len(graph.layers))
    with watch.running(), torch.no_grad(), Inert():  # type: ignore[no-untyped-call]
        baseline = watch.run()
        found = watch.usable()
        outcome.n_readers = len(found)
        # A vertex of as many layers as there are, and more of them where there are few.
        chosen = [found[at] for at in rng.permutation(len(found))]
        chosen = (chosen * (n // max(len(chosen), 1) + 1))[:n]
        for origin in chosen:
            vertex = int(rng.integers(origin.size))
            changed = watch.changed(origin, vertex, baseline, rng)
            expected = _neighbours(graph, origin, vertex, {reader.layer for reader in found})
            outcome.n_vertices += 1
            for reader in found:
                ours = expected[reader.layer]
                theirs = changed[reader.layer]
                outcome.n_edges += int(np.count_nonzero(ours))
                layer = graph.layers[reader.layer].name
                where = f"{origin.module}[{vertex}] -> {reader.module} ({layer})"
                if reader is origin:
                    continue
                for wrong, kind in (
                    (theirs & ~ours, outcome.missing),
                    (ours & ~theirs, outcome.surplus),
                ):
                    if wrong.any():
                        kind.append(f"{where}: {np.flatnonzero(wrong)[:8].tolist()}")
    return outcome


def grown(
    model: nn.Module, graph: Any, inputs: Any, *, n: int = 10, seed: int = 0
) -> list[tuple[float, float]]:
    """How much convolutions' inputs change per unit of a change, and the weights of the edges.

    The change is the same at all positions; what counts is where it came out largest.
    """
    watch = _Watch(model, graph, inputs, READERS)
    rng = np.random.default_rng(seed)
    starts = [layer.start for layer in graph.layers]
    pairs: list[tuple[float, float]] = []
    with watch.running(), torch.no_grad(), Inert():  # type: ignore[no-untyped-call]
        baseline = watch.run()
        found = [r for r in watch.usable() if hasattr(watch.modules[r.module], "kernel_size")]
        for at in rng.permutation(len(found))[:n]:
            origin = found[at]
            vertex = int(rng.integers(origin.size))
            read = watch.with_change(origin, vertex, baseline, lambda part: torch.ones_like(part))
            row = graph.adjacency[[starts[origin.layer] + vertex]].toarray()[0]
            for target in found:
                if target.layer <= origin.layer:
                    continue
                key = (target.module, target.call)
                axis, _ = watch.channels(target, read[key])
                difference = (read[key] - baseline[key]).abs().movedim(axis, 0)
                largest = difference.reshape(target.size, -1).amax(dim=1).numpy()
                weights = row[starts[target.layer] : starts[target.layer] + target.size]
                pairs += [(float(a), float(b)) for a, b in zip(largest, weights, strict=True) if b]
    return pairs


def checked(model: nn.Module, example_inputs: Any = None, *, n: int = 40, seed: int = 0) -> Check:
    """Run a copy of a module with one neuron changed at a time, and compare with its graph.

    Parameters
    ----------
    model : torch.nn.Module
        The model; it stays as it is.
    example_inputs : tensor, tuple or mapping, optional
        As those of `ncut.graph`; the values of floating-point tensors are drawn.
    n : int
        How many vertices are changed.
    seed : int
        Of what is drawn.

    Raises
    ------
    ModelError
        If the model cannot be copied, read or run.
    """
    from ncut.extract.read import read_graph

    try:
        own = randomized(copy.deepcopy(model).cpu().double(), seed)
    except Exception as error:
        raise ModelError(f"check: {type(model).__name__} cannot be copied: {error}") from error
    candidates = guesses(own) if example_inputs is None else iter([given(example_inputs)])
    generator = torch.Generator().manual_seed(seed)
    failure: Exception | None = None
    for inputs in candidates:
        drawn = Inputs(
            tuple(_drawn(value, generator) for value in inputs.args),
            {key: _drawn(value, generator) for key, value in inputs.kwargs.items()},
        )
        try:
            with torch.no_grad():
                own(*drawn.args, **drawn.kwargs)
        except Exception as error:
            failure = failure or error
            continue
        example: Any = drawn.args if drawn.args else dict(drawn.kwargs)
        graph = read_graph(own, residual="readers", scope="all", example_inputs=example)
        outcome = check(own, graph, example, n=n, seed=seed)
        return Check(
            outcome.n_vertices, outcome.n_readers, outcome.n_layers,
            tuple(outcome.missing), tuple(outcome.surplus),
        )  # fmt: skip
    raise ModelError(
        f"check: {type(model).__name__} could not be run on random inputs ({failure}); pass "
        "example_inputs="
    ) from failure


def _drawn(value: Any, generator: torch.Generator) -> Any:
    """Inputs of the same shapes with numbers in float64."""
    if isinstance(value, Mapping):
        return {key: _drawn(item, generator) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_drawn(item, generator) for item in value)
    if isinstance(value, torch.Tensor) and value.is_floating_point():
        return torch.randn(value.shape, generator=generator, dtype=torch.float64)
    return value


class _Watch:
    """Modules that read, what they read, and what they are given instead."""

    def __init__(self, model: nn.Module, graph: Any, inputs: Any, readers: Any) -> None:
        self.model, self.graph, self.inputs, self.readers = model, graph, inputs, readers
        self.modules = dict(model.named_modules())
        self.by_call: dict[tuple[str, int], Reader] = {}
        n_layers: dict[str, int] = {}
        for position, layer in enumerate(graph.layers):
            for name in layer.read_by:
                if isinstance(self.modules.get(name), readers):
                    call = n_layers.get(name, 0)
                    n_layers[name] = call + 1
                    self.by_call[name, call] = Reader(position, layer.size, name, call)
        self.n_layers = n_layers
        self.calls: dict[str, int] = {}
        self.read: dict[tuple[str, int], torch.Tensor] = {}
        self.given: dict[tuple[str, int], torch.Tensor] = {}

    def usable(self) -> list[Reader]:
        """Readers that are called as often as the graph says."""
        return [
            reader for reader in self.by_call.values()
            if self.calls.get(reader.module) == self.n_layers[reader.module]
        ]  # fmt: skip

    @contextmanager
    def running(self) -> Iterator[None]:
        handles = [
            self.modules[name].register_forward_pre_hook(self._hook(name), with_kwargs=True)
            for name in self.n_layers
        ]
        fast_path = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fast_path)
            for handle in handles:
                handle.remove()

    def run(self) -> dict[tuple[str, int], torch.Tensor]:
        self.calls, self.read = {}, {}
        if isinstance(self.inputs, tuple):
            self.model(*(_cloned(x) for x in self.inputs))
        else:
            self.model(**{key: _cloned(value) for key, value in self.inputs.items()})
        return self.read

    def changed(self, origin: Reader, vertex: int, baseline: Any, rng: Any) -> dict[int, Any]:
        """Which vertices of each reader change as one of them does."""
        size = 1e6 * float(baseline[origin.module, origin.call].abs().max() + 1)

        def noise(part: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(rng.uniform(0.5, 1.5, part.shape) * size).to(part.dtype)

        read = self.with_change(origin, vertex, baseline, noise)
        result = {}
        for key, before in baseline.items():
            reader = self.by_call.get(key)
            if reader is None:
                continue
            axis, _per = self.channels(reader, before)
            differs = (read[key] - before).abs() > TOLERANCE * before.abs().max()
            by_vertex = differs.movedim(axis, 0).reshape(reader.size, -1)
            result[reader.layer] = by_vertex.any(dim=1).numpy()
        return result

    def with_change(self, origin: Reader, vertex: int, baseline: Any, change: Any) -> Any:
        """What all readers read where one vertex is changed, each given what it got before."""
        self.given = {(r.module, r.call): baseline[r.module, r.call] for r in self.usable()}
        x = baseline[origin.module, origin.call].clone()
        axis, per = self.channels(origin, x)
        part = x.narrow(axis, vertex * per, per)
        part += change(part)
        self.given[origin.module, origin.call] = x
        read = self.run()
        self.given = {}
        return read

    def channels(self, reader: Reader, x: torch.Tensor) -> tuple[int, int]:
        """The axis of the channels, and how many entries of it are one vertex."""
        module = self.modules[reader.module]
        n_spatial = len(getattr(module, "kernel_size", ()))
        axis = x.ndim - 1 - n_spatial
        per, rest = divmod(x.shape[axis], reader.size)
        assert rest == 0, (reader, x.shape)
        return axis, per

    def _hook(self, name: str) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> Any:
            call = self.calls.get(name, 0)
            self.calls[name] = call + 1
            x = args[0] if args else next(iter(kwargs.values()))
            self.read[name, call] = x.clone()
            given = self.given.get((name, call))
            if given is None:
                return None
            if args:
                return (given.clone(), *args[1:]), kwargs
            key = next(iter(kwargs))
            return args, {**kwargs, key: given.clone()}

        return hook


def _cloned(value: Any) -> Any:
    return value.clone() if isinstance(value, torch.Tensor) else value


def _neighbours(graph: Any, origin: Reader, vertex: int, watched: set[int]) -> list[Any]:
    """Vertices that a change reaches, by layer; it goes on through layers that are not watched."""
    reached = [np.zeros(layer.size, dtype=bool) for layer in graph.layers]
    start = np.zeros(origin.size, dtype=bool)
    start[vertex] = True
    for position in range(origin.layer, len(graph.layers)):
        inside = [b for b in graph.blocks if b.source == b.target == position]
        if position != origin.layer:
            for block in inside:
                both = block.weights + block.weights.T
                for _ in range(graph.layers[position].size):
                    grown = reached[position] | _any_row(both, reached[position])
                    if (grown == reached[position]).all():
                        break
                    reached[position] = grown
        mask = start if position == origin.layer else reached[position]
        if (position in watched and position != origin.layer) or not mask.any():
            continue
        for block in graph.blocks:
            if block.source == position != block.target:
                reached[block.target] |= _any_row(block.weights, mask)
    return reached


def _any_row(weights: Any, mask: Any) -> Any:
    rows = weights[np.flatnonzero(mask)]
    if not isinstance(rows, np.ndarray):
        rows = rows.toarray()
    return (rows > 0).any(axis=0)


def summary(outcome: Outcome, limit: int = 5) -> str:
    """The first disagreements in words."""
    lines: Sequence[str] = [f"changed, no edge: {line}" for line in outcome.missing[:limit]]
    lines = [*lines, *(f"edge, not changed: {line}" for line in outcome.surplus[:limit])]
    return "\n".join([f"{outcome.n_vertices} vertices, {outcome.n_edges} edges", *lines])
