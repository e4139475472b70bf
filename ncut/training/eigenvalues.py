"""laplacian_eigenvalues(): eigenvalues of a network's Laplacian as a differentiable tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ncut.arguments import suggests_names
from ncut.errors import InputError
from ncut.extract.assembly.assemble import plan
from ncut.extract.lowering.kinds import lower
from ncut.extract.readers.chain import ChainLayer, chain_program, with_depthwise_groups
from ncut.extract.readers.traced.plain import wide
from ncut.training.live_graph import LiveEdges, LiveGraph, live_graphs, numbered, of_one_type
from ncut.training.parameter_refs import ParameterRef, View
from ncut.training.spectrum import Eigenvalues, Tracker, check_seed, full_precision
from ncut.training.spectrum_types import EdgeWeights

TOLERANCES = {torch.float32: 2e-6, torch.float64: 1e-10}
"""Residuals of eigenvectors computed without warm start, by the type of the weights."""

Weights = Sequence[Tensor] | Sequence[tuple[int, int, Tensor]]


@suggests_names("scope", "norm", "residual", "layers", "example_inputs")
def laplacian_eigenvalues(
    weights: nn.Module | Weights | Callable[[], Weights],
    which: Sequence[int] = (2, 3, 4),
    *,
    tolerance: float | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
    **options: Any,
) -> Tensor:
    """Eigenvalues of L_norm = I - D^-1 A of a network's graph, differentiable by its weights.

    Every weight tensor gets a gradient: matrices, kernels of convolutions through the norms of
    their slices, scales of batch norms; weights of isolated neurons get zero. A repeated eigenvalue
    has no gradient; the mean over its copies replaces it. The cost is a few products with the
    weights; no matrix of all vertices is made.

    Each call starts from random vectors. For training use `EigenvalueRegularizer`, which starts
    from the last eigenvectors.

    Parameters
    ----------
    weights : torch.nn.Module, sequence of tensors, or callable
        - a module, read in the same way as by `ncut.graph`;
        - tensors of a chain: (fan_in, fan_out) matrices and convolutions (out, in, positions...);
        - triples (source, target, weights) of numbers of layers and matrices (size of source,
          size of target), for any graph of layers;
        - a function that returns either.
    which : sequence of int, default (2, 3, 4)
        Numbers of the eigenvalues, the smallest being 1. The first is 0, and so is one more for
        each further component of the graph.
    tolerance : float, optional
        Largest residual |M v - mu v| of the eigenvectors; 2e-6, in float64 1e-10.
    seed : int, default 0
        Seed of the random start vectors.
    device : str or torch.device, optional
        Device of the computation, such as "cuda": weights are copied to it and gradients copied
        back. By default the device of the weights; required if they are on several devices.
    **options
        For a module `scope`, `norm`, `residual`, `layers` and `example_inputs`, the same as for
        `EigenvalueRegularizer`; for tensors `scope` and `norm`.

    Returns
    -------
    Tensor, shape (len(which),)
        On the device of the computation, in float64 if any weight is, else in float32.

    Raises
    ------
    InputError
        If an argument is invalid, all weights are zero, some weights are not finite, a graph has
        fewer vertices than requested eigenvalues, or the call is inside a `torch.func` transform.
    NotImplementedError
        If second derivatives are requested.

    Source: Filan et al. (2021), Clusterability in Neural Networks, section 4.1 and appendix A.9.

    Examples
    --------
    >>> import torch
    >>> weights = [torch.rand(4, 3, requires_grad=True), torch.rand(3, 2, requires_grad=True)]
    >>> values = laplacian_eigenvalues(weights, which=(2, 3))
    >>> values.sum().backward()
    >>> weights[0].grad.shape
    torch.Size([4, 3])
    """
    numbers = checked_numbers(which, "which")
    refuse_transforms()
    if isinstance(weights, nn.Module):
        (graph,) = live_graphs(weights, apart=False, **options)
        n, n_first, blocks = graph.n, graph.n_first, graph.edge_weights()
    else:
        unknown = set(options) - {"scope", "norm"}
        if unknown:
            raise InputError(f"{min(unknown)}: has no effect on tensors; leave it out")
        given = weights() if callable(weights) else weights
        n, n_first, blocks = _read(given, **options)
    if device is not None:
        blocks = _moved(blocks, checked_device(device))
    if n < max(numbers):
        raise InputError(f"which: must be at most the number of vertices, {n}, got {max(numbers)}")
    if tolerance is None:
        tolerance = TOLERANCES[blocks[0].weights.dtype]
    check_tolerance(tolerance)
    seed = check_seed(seed)
    tracker = Tracker(n, n_first, max(*numbers, 2) - 1, tolerance=tolerance, seed=seed)
    with full_precision(blocks[0].weights.device):
        found = differentiable(tracker, numbers, blocks)
    n_connected = int((tracker.last.degrees > 0).sum()) if tracker.last else 0
    if n_connected < max(numbers):
        raise InputError(
            f"which: must be at most the number of neurons with edges, {n_connected}, got "
            f"{max(numbers)}"
        )
    return found


def differentiable(
    tracker: Tracker,
    numbers: tuple[int, ...],
    blocks: list[EdgeWeights],
    factor: float | None = None,
) -> Tensor:
    """The eigenvalues with the given numbers, with gradients for the weights of the blocks.

    With `factor`: the factor times their mean.
    """
    refuse_transforms()
    weights = [block.weights for block in blocks]
    given = (tracker, numbers, blocks, factor, *weights)
    found: Tensor = Eigenvalues.apply(*given)  # type: ignore[no-untyped-call]
    return found


def refuse_transforms() -> None:
    """Refuse calls inside `torch.func.grad`, `vmap` and other transforms.

    Raises
    ------
    InputError
        If a transform is active.
    """
    if torch._C._are_functorch_transforms_active():
        raise InputError(
            "torch.func: its transforms (grad, vmap, jacrev ...) cannot follow the eigenvalues, "
            "whose gradient is in closed form; use backward() or torch.autograd.grad()"
        )


def check_tolerance(tolerance: float) -> None:
    """Refuse a tolerance that is not a positive number."""
    number = isinstance(tolerance, int | float | np.integer | np.floating)
    if not number or not tolerance > 0:
        raise InputError(f"tolerance: must be a number above 0, got {tolerance!r}")


def checked_device(device: str | torch.device) -> torch.device:
    """The device, or an error that says why it is unavailable."""
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"device: {device!r} cannot be used by torch ({reason}); leave it out to compute "
            "where the weights are"
        ) from error
    return found


def _moved(blocks: list[EdgeWeights], device: torch.device) -> list[EdgeWeights]:
    """The blocks on the device, differentiable if the weights are."""
    return [
        block._replace(
            weights=block.weights.to(device),
            rows=None if block.rows is None else block.rows.to(device),
            columns=None if block.columns is None else block.columns.to(device),
        )
        for block in blocks
    ]


def checked_numbers(which: Sequence[int], name: str) -> tuple[int, ...]:
    """Numbers of eigenvalues as a tuple, or an error that names the argument."""
    try:
        numbers = tuple(int(number) for number in which)
    except (TypeError, ValueError):
        numbers = ()
    if not numbers or min(numbers) < 1 or numbers != tuple(which):
        raise InputError(f"{name}: must be a sequence of whole numbers from 1, got {which!r}")
    return numbers


def _read(given: Any, scope: str = "paper", norm: str = "l1") -> tuple[int, int, list[EdgeWeights]]:
    """Number of vertices, of vertices of the first colour, and the edges of weight tensors."""
    items = list(given) if isinstance(given, Iterable) else []
    if items and all(isinstance(item, Tensor) for item in items):
        graph = _chain(items, scope, norm)
        return graph.n, graph.n_first, graph.edge_weights()
    if items and all(isinstance(item, tuple) and len(item) == 3 for item in items):
        return _triples(items)
    raise InputError(
        "weights: must be a torch.nn.Module, a sequence of tensors, or of triples "
        "(source, target, weights), or a function that returns one of these"
    )


def _chain(tensors: list[Tensor], scope: str, norm: str) -> LiveGraph:
    """The graph of a chain of layers, the same as `ncut.graph` of a list of arrays."""
    holder = nn.Module()
    layers, views = [], {}
    for number, tensor in enumerate(tensors):
        if tensor.ndim < 2 or not tensor.is_floating_point():
            raise InputError(
                f"weights: tensor {number} has shape {tuple(tensor.shape)} and type "
                f"{tensor.dtype}; expected a (fan_in, fan_out) matrix or a kernel of floats"
            )
        name = f"w{number}"
        setattr(holder, name, tensor)
        array = wide(tensor.detach()).cpu().contiguous().numpy()
        views[name] = View(ParameterRef(holder, name), tuple(tensor.shape))
        layers.append(ChainLayer(name, array, "linear" if tensor.ndim == 2 else "conv"))
    layout = plan(lower(chain_program(with_depthwise_groups(layers))), scope=scope, norm=norm)
    graph = LiveGraph(
        [layer.name for layer in layout.layers],
        [layer.size for layer in layout.layers],
        [(edges.source, edges.target) for edges in layout.edges],
    )
    for edges in layout.edges:
        live = LiveEdges(edges, views[edges.operation.name], None, None, norm)
        graph.add(live, edges.source, edges.target)
    return graph


def _triples(items: list[Any]) -> tuple[int, int, list[EdgeWeights]]:
    sizes: dict[int, int] = {}
    for source, target, weights in items:
        matrix = isinstance(weights, Tensor) and weights.ndim == 2
        if not matrix or not weights.is_floating_point() or source == target:
            raise InputError(
                "weights: a triple must be (source, target, matrix of floats) with two "
                "different layers"
            )
        for layer, size in zip((source, target), weights.shape, strict=True):
            if sizes.setdefault(layer, size) != size:
                raise InputError(
                    f"weights: layer {layer} has {sizes[layer]} vertices in one triple, "
                    f"{size} in another"
                )
    order = sorted(sizes)
    at = {layer: number for number, layer in enumerate(order)}
    starts, n_first = numbered(
        [sizes[layer] for layer in order], [(at[s], at[t]) for s, t, _ in items]
    )
    blocks = [EdgeWeights(wide(w), int(starts[at[s]]), int(starts[at[t]])) for s, t, w in items]
    return sum(sizes.values()), n_first, of_one_type(blocks)
