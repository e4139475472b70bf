"""Attribution graphs, from a module's gradients or a precomputed matrix."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ncut.errors import InputError
from ncut.extract.modules import is_module, unwrapped
from ncut.extract.references import Join, References, references
from ncut.graphs import NeuronGraph, build_graph, from_adjacency
from ncut.graphs.validate import check_structure
from ncut.types import LeftOut

Loss: TypeAlias = Callable[[Any, Any], Any]
"""Gets the model and the data, returns a scalar tensor."""


def attribution_graph(
    model: Any,
    data: Any,
    loss: Loss | None = None,
    *,
    scope: str = "paper",
    residual: str | None = None,
    example_inputs: Any = None,
    name: str | None = None,
) -> NeuronGraph:
    """The attribution graph of a torch module.

    An edge weighs the sum over the examples (and over the positions at which a weight is used)
    of |a_i w_ij dL/dz_j|, with a_i the layer's input, z_j its output and L the loss: the
    first-order change of the loss with the weight. Multiplying a neuron's incoming weights by a
    factor and its outgoing weights by the inverse changes nothing. The sum is used, not the mean,
    as no n-cut depends on the unit.

    Parameters
    ----------
    model : torch.nn.Module
        Run once in evaluation mode; the mode is restored.
    data : pair of tensors, or anything
        A batch: inputs and targets; with `loss`, any object.
    loss : callable, optional
        Gets the model and the data, returns the loss, a scalar tensor; by default the cross
        entropy of `model(inputs)` for integer targets, the squared error for others.
    scope, residual, example_inputs, name
        See `ncut.graph`.

    Raises
    ------
    InputError
        If `data` or the loss cannot be used, a layer with edges is not a linear layer, a
        convolution or an embedding, is called several times, or reads or writes sums whose parts
        are separate layers (residual="readers").

    Source: Syed, Rager and Conmy (2023), Attribution patching outperforms automated circuit
    discovery, arXiv:2310.10348 (first-order attributions of edges), here by weight and in
    magnitudes.
    """
    inner = unwrapped(model)
    places = references(inner, scope=scope, residual=residual, example_inputs=example_inputs)
    _check_single(places)
    found = _attributions(inner, places, data, _default_loss if loss is None else loss)
    n = max(places.starts[key] + int(np.prod(shape)) for key, shape in places.shapes.items())
    blocks = []
    for join in places.joins:
        key, values = found[join.module]
        flat = np.zeros(n)
        flat[places.starts[key] :][: values.size] = values.ravel()
        sizes = places.sizes[join.source], places.sizes[join.target]
        block = join.block(flat[join.entries], *sizes)
        if join.source == join.target:
            block = sparse.triu(block + block.T, k=1).tocsr()
        if block.nnz:
            blocks.append((join.source, join.target, block.toarray(), join.name))
    layers = [*zip(places.names, places.sizes, strict=True)]
    return build_graph(layers, blocks, name=type(inner).__name__ if name is None else name)


def matrix_graph(
    matrix: Any,
    *,
    layers: Mapping[str, int] | None = None,
    name: str | None = None,
) -> NeuronGraph:
    """The graph of a square matrix of attributions or co-activations between features.

    An edge weighs |a_ij| + |a_ji|: signs and directions are lost, and `left_out` has their
    numbers. The diagonal is left out.

    Parameters
    ----------
    matrix : array_like or scipy sparse, shape (n, n)
        Finite numbers, of any sign, symmetric or not.
    layers : mapping from str to int, optional
        Names and sizes of the features' layers, in order.
    name : str, optional
        The graph's name, for reports; "attributions" by default.

    Raises
    ------
    InputError
        If `matrix` is not a square matrix of finite numbers with entries off the diagonal, or the
        sizes of `layers` do not add up to n.
    """
    given: Any = matrix if sparse.issparse(matrix) else np.asarray(matrix)
    if given.ndim != 2 or given.shape[0] != given.shape[1] or given.dtype.kind not in "fiub":
        raise InputError(
            f"model: attributions must be a square matrix of real numbers, got shape {given.shape} "
            f"of dtype {given.dtype}"
        )
    if sparse.issparse(given):
        check_structure(given, "model")
    own: Any = sparse.csr_array(given).astype(np.float64)
    own.setdiag(0)
    own.eliminate_zeros()
    if layers is not None and sum(layers.values()) != own.shape[0]:
        raise InputError(
            f"layers: have {sum(layers.values())} features together, the matrix {own.shape[0]}"
        )
    magnitudes = abs(own)
    graph = from_adjacency(
        magnitudes + magnitudes.T,
        name="attributions" if name is None else name,
        layers=None if layers is None else [*layers.items()],
        argument="model",
    )
    notes = []
    n_negative = int((own.data < 0).sum())
    if n_negative:
        reason = f"magnitudes are taken: {n_negative:,} of {own.nnz:,} entries are negative"
        notes.append(LeftOut("signs", own.shape, reason))
    if (own != own.T).nnz:
        reason = "the matrix is not symmetric: an edge weighs |a_ij| + |a_ji|"
        notes.append(LeftOut("directions", own.shape, reason))
    return replace(graph, left_out=(*graph.left_out, *notes))


def _check_single(places: References) -> None:
    """Refuse weights with an entry that connects several pairs of neurons."""
    uses: dict[str, NDArray[np.int64]] = {}
    names: dict[str, set[str]] = {}
    for join in places.joins:
        names.setdefault(join.module, set()).add(join.name)
        ends = [(vertices >= 0).sum(1) for vertices in (join.inputs, join.outputs)]
        pairs = _outer(join, *ends)
        key = join.name
        uses[key] = pairs + uses.get(key, 0)
    for module, called in names.items():
        if len(called) > 1:
            raise InputError(
                f"model: {module!r} is called several times ({', '.join(sorted(called))}), so that "
                "what passes through its weights cannot be told apart"
            )
    for name, pairs in uses.items():
        if pairs.max(initial=0) > 1:
            raise InputError(
                f"model: {name!r} reads or writes sums whose parts are layers of their own; pass "
                "residual='stream', in which the sums are layers"
            )


def _outer(join: Join, inputs: NDArray[np.int64], outputs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number of pairs of vertices that each weight connects."""
    if join.groups is None:
        return inputs[:, None] * outputs
    by_group = np.repeat(inputs.reshape(join.groups, -1), len(outputs) // join.groups, axis=0)
    return by_group * outputs[:, None]


def _attributions(
    model: Any, places: References, data: Any, loss: Loss
) -> dict[str, tuple[Any, NDArray[np.floating]]]:
    """By module name: the key of the weight, and |w| times the sums of |a dz|."""
    import torch

    parameters = {id(model.get_submodule(path)._parameters.get(name)): (path, name)
                  for path, name in places.shapes}  # fmt: skip
    keys: dict[str, Any] = {}
    for path in {join.module for join in places.joins}:
        module = model.get_submodule(path)
        weight = module._parameters.get("weight")
        key = (path, "weight")
        keys[path] = key if key in places.shapes else parameters.get(id(weight))
        if keys[path] is None or _applied(module) is None:
            raise InputError(
                f"model: {path!r} is a {type(module).__name__}; what passes through weights is "
                "known for linear layers, convolutions and embeddings only"
            )
    sums: dict[str, Any] = {}
    handles = []

    def note(path: str, module: Any, args: Any, output: Any) -> Any:
        read = args[0].detach()
        read = read.abs() if read.is_floating_point() else read

        def arrived(slope: Any) -> None:
            with torch.enable_grad():
                ones = torch.ones_like(module.weight, requires_grad=True)
                made = _applied(module)(read, ones)  # type: ignore[misc]
            (total,) = torch.autograd.grad(made, ones, slope.detach().abs())
            sums[path] = total.double() + sums.get(path, 0)

        if not output.requires_grad:
            output = output.detach().requires_grad_()
        output.register_hook(arrived)
        return output

    try:
        handles += [
            model.get_submodule(path).register_forward_hook(partial(note, path)) for path in keys
        ]
        with torch.enable_grad(), _evaluating(model):
            value = loss(model, data)
            if not isinstance(value, torch.Tensor) or value.ndim or not value.requires_grad:
                raise InputError(
                    "loss: must return a scalar tensor that depends on what the model gives"
                )
            ends = [p for p in model.parameters() if p.requires_grad]
            before = [p.grad for p in ends]
            torch.autograd.backward(value)
            for parameter, grad in zip(ends, before, strict=True):
                parameter.grad = grad
    finally:
        for handle in handles:
            handle.remove()
    made = {}
    for path, key in keys.items():
        if path not in sums:
            raise InputError(f"model: the loss does not depend on what {path!r} gives")
        weight = model.get_submodule(path).weight.detach()
        made[path] = (key, (weight.abs().double() * sums[path]).cpu().numpy())
    return made


def _applied(module: Any) -> Callable[[Any, Any], Any] | None:
    """The bilinear function of a module's input and weight; None if unknown."""
    from torch import nn
    from torch.nn import functional
    from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

    if isinstance(module, nn.Linear):
        return functional.linear
    if isinstance(module, _ConvTransposeNd):
        transposed: Any = getattr(functional, f"conv_transpose{len(module.kernel_size)}d")
        settings = (module.stride, module.padding, module.output_padding, module.groups)
        return lambda x, w: transposed(x, w, None, *settings, module.dilation)
    if isinstance(module, _ConvNd):
        return lambda x, w: module._conv_forward(x, w, None)
    if isinstance(module, nn.Embedding):
        return functional.embedding
    if type(module).__name__ == "Conv1D":  # of transformers: a linear layer, transposed
        return lambda x, w: x @ w
    return None


def _default_loss(model: Any, data: Any) -> Any:
    import torch
    from torch.nn import functional

    pair = isinstance(data, tuple | list) and len(data) == 2
    if not pair or not all(isinstance(part, torch.Tensor) for part in data):
        raise InputError(
            "data: must be a pair of tensors, inputs and targets, or pass loss=, a function of the "
            "model and the data"
        )
    inputs, targets = data
    outputs = model(inputs)
    if targets.is_floating_point():
        return (outputs - targets).square().sum()
    return functional.cross_entropy(outputs, targets, reduction="sum")


@contextmanager
def _evaluating(module: Any) -> Iterator[None]:
    modes = [(one, one.training) for one in module.modules()]
    try:
        module.eval()
        yield
    finally:
        for one, mode in modes:
            one.training = mode


def read_attributions(
    model: Any, edges: str, data: Any, loss: Loss | None, layers: Any, **options: Any
) -> NeuronGraph:
    """The graph of a module with data, or of a matrix; see `ncut.graph`."""
    if edges == "weights":
        raise InputError("data: has no effect on edges='weights'; leave it out")
    if edges != "attribution":
        raise InputError(f"edges: must be 'weights' or 'attribution', got {edges!r}")
    if is_module(model):
        if data is None:
            raise InputError("data: edges='attribution' of a module needs a batch of data")
        if layers is not None:
            raise InputError("layers: names the parts of a matrix of attributions only")
        return attribution_graph(model, data, loss, **options)
    if not isinstance(model, np.ndarray) and not sparse.issparse(model):
        raise InputError(
            "model: edges='attribution' is for a torch module with data, or a square matrix of "
            f"attributions, got {type(model).__name__}"
        )
    if data is not None or loss is not None:
        raise InputError("data: has no effect on a matrix of attributions; leave it out")
    if layers is not None and not isinstance(layers, Mapping):
        raise InputError("layers: of a matrix must be a mapping from names to sizes")
    return matrix_graph(model, layers=layers, name=options["name"])
