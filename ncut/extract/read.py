"""read_graph(): the one entry from whatever a user has to a NeuronGraph."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ncut.errors import InputError
from ncut.extract.arrays import as_array, is_tensor
from ncut.extract.assemble import SINGLE_MATRIX_HINT, assemble, check_options
from ncut.extract.chain import ChainLayer, chain_to_graph, with_depthwise_groups
from ncut.extract.files import UNORDERED, read_file, read_npy
from ncut.extract.modules import is_module
from ncut.extract.state_dict import read_arrays
from ncut.graphs import NeuronGraph, from_adjacency


def read_graph(
    model: Any,
    *,
    scope: str = "paper",
    norm: str = "l1",
    layers: Sequence[str] | None = None,
    name: str | None = None,
    initial: bool = False,
    residual: str | None = None,
    example_inputs: Any = None,
    unknown: str = "error",
) -> NeuronGraph:
    """Turn a model into the weighted, undirected graph of its neurons.

    Vertices are neurons, or the channels of convolutions; the weight of an edge is |w|, or the
    norm of the slice of the kernel between two channels. Biases are ignored. A batch norm
    with running statistics multiplies the weights by gamma / sqrt(running_var + eps).

    Parameters
    ----------
    model : NeuronGraph, sparse matrix, sequence, torch.nn.Module, mapping, str or Path
        - a `NeuronGraph`, returned as it is;
        - a symmetric scipy sparse adjacency matrix, shape (n, n);
        - a sequence of weight arrays of a chain, (fan_in, fan_out) matrices, or convolutions
          (out, in, positions...), or paths of `.npy` files that hold one each (they are
          memory-mapped); the order is that of the layers;
        - a `torch.nn.Module` whose forward pass is a chain of layers;
        - a mapping from names to arrays, such as a state dict;
        - a path to an `.npz`, `.pt`, `.pth` or `.safetensors` file of named arrays, or to an
          `.npz` that `NeuronGraph.save` wrote.
    scope : {"paper", "all"}
        `"paper"`: every neuron of a network without convolutions; with convolutions their
        output channels alone. `"all"`: every neuron and channel.
    norm : {"l1", "l2", "column-sum"}
        Norm of a kernel slice: the sum of its magnitudes, its Euclidean norm, or the largest sum
        of a column's magnitudes, which the paper's code takes for the first.
    layers : sequence of str, optional
        Names of the weight arrays of a mapping or file, in the order of the chain. By default
        the order is inferred (see `ncut.extract.state_dict.read_arrays`).
    name : str, optional
        The model's name for reports; by default its class or the file's name.
    initial : bool, default False
        Also record what each layer's weights are like as its `reset_parameters` makes them, which
        the null model "init" needs; torch modules only, and graphs that were read so.

    Raises
    ------
    InputError
        If an argument is unknown or does not apply to this kind of model, there are fewer than
        two weight layers, successive layers do not fit, or weights are not finite or all zero.
    ModelError
        If the model is not a chain of known operations, or a file cannot be read.
    MissingExtraError
        If reading needs a package that is not installed.

    Source: Filan et al. (2021), Clusterability in Neural Networks, section 2.

    Examples
    --------
    >>> import numpy as np
    >>> graph = read_graph([np.ones((4, 3)), np.ones((3, 2))])
    >>> [layer.size for layer in graph.layers]
    [4, 3, 2]
    """
    check_options(scope, norm)
    traced = {"residual": residual, "example_inputs": example_inputs, "unknown": unknown}
    if initial and not (is_module(model) or _has_initial(model)):
        raise InputError(
            "initial: only a torch module tells how its layers are initialized, got "
            f"{type(model).__name__}; null='init' needs that"
        )
    if isinstance(model, str | Path):
        return _read_path(Path(model), scope, norm, layers, name)
    if isinstance(model, NeuronGraph) or _is_sparse(model):
        _refuse_chain_options("a graph", scope, norm, layers)
        graph = model if isinstance(model, NeuronGraph) else from_adjacency(model)
        return graph if name is None else replace(graph, name=name)
    if isinstance(model, Mapping):
        chain, left_out = read_arrays(model, where="the mapping", layers=layers)
        default = "state dict"
    elif layers is not None:
        raise InputError(
            "layers: names the arrays of a file or mapping only; pass model.state_dict() to "
            "choose layers of a module by name"
        )
    elif is_module(model):
        return _read_module(model, scope, norm, name, initial, traced)
    else:
        chain, left_out, default = _read_sequence(model), [], "weights"
    name = default if name is None else name
    return chain_to_graph(chain, scope=scope, norm=norm, name=name, left_out=left_out)


def _read_module(
    model: Any, scope: str, norm: str, name: str | None, initial: bool, traced: dict[str, Any]
) -> NeuronGraph:
    from ncut.extract.modules import unwrapped
    from ncut.extract.traced.module import read_module

    inner = unwrapped(model)
    wiring = read_module(inner, **traced)
    return assemble(
        wiring,
        scope=scope,
        norm=norm,
        name=type(inner).__name__ if name is None else name,
        parameters={key: tuple(value.shape) for key, value in inner.named_parameters()},
        initial=initial,
    )


def _read_path(
    path: Path, scope: str, norm: str, layers: Sequence[str] | None, name: str | None
) -> NeuronGraph:
    content = read_file(path)
    if isinstance(content, NeuronGraph):
        _refuse_chain_options(f"{path}, a saved graph", scope, norm, layers)
        return content if name is None else replace(content, name=name)
    ordered = path.suffix.lower() not in UNORDERED
    chain, left_out = read_arrays(content, where=str(path), layers=layers, ordered=ordered)
    name = path.stem if name is None else name
    return chain_to_graph(chain, scope=scope, norm=norm, name=name, left_out=left_out)


def _read_sequence(model: Any) -> list[ChainLayer]:
    """The layers of a sequence of weight arrays."""
    if isinstance(model, np.ndarray) or is_tensor(model):
        raise InputError(_single_array(tuple(model.shape)))
    if not isinstance(model, Sequence):
        raise InputError(
            f"model: cannot read a {type(model).__name__}; pass a torch.nn.Module, a list of "
            "(fan_in, fan_out) weight matrices, a dict of named weights, a scipy sparse adjacency "
            "matrix, a NeuronGraph or a path"
        )
    chain: list[ChainLayer] = []
    for number, values in enumerate(model):
        if isinstance(values, str | Path):
            values = read_npy(Path(values))
        weight = as_array(values, f"model: weights {number}")
        if not 2 <= weight.ndim <= 5:
            raise InputError(
                f"model: weights {number} have shape {weight.shape}; expected a (fan_in, fan_out) "
                "matrix, or a convolution (out, in, positions...). Leave biases out"
            )
        chain.append(ChainLayer(f"w{number}", weight, "linear" if weight.ndim == 2 else "conv"))
    return with_depthwise_groups(chain)


def _single_array(shape: tuple[int, ...]) -> str:
    if len(shape) == 2 and shape[0] == shape[1]:
        return (
            f"model: a dense square array {shape} may be weights or an adjacency matrix; pass "
            "scipy.sparse.csr_array(adjacency) if it is an adjacency matrix, or the list of all "
            "the weight matrices of the chain"
        )
    return (
        f"model: a single array of shape {shape}; pass the weight matrices of the chain as a "
        f"list, [w0, w1, ...]; {SINGLE_MATRIX_HINT}"
    )


def _refuse_chain_options(what: str, scope: str, norm: str, layers: Sequence[str] | None) -> None:
    """Refuse options that say how to read weights where there are none to read."""
    for option, value, default in (
        ("scope", scope, "paper"),
        ("norm", norm, "l1"),
        ("layers", layers, None),
    ):
        if value != default:
            raise InputError(f"{option}: has no effect on {what}; leave it out")


def _is_sparse(model: Any) -> bool:
    sparse = sys.modules.get("scipy.sparse")
    return sparse is not None and bool(sparse.issparse(model))


def _has_initial(model: Any) -> bool:
    """Whether a graph was read with `initial=True` and tells what its layers were like."""
    return isinstance(model, NeuronGraph) and all(
        block.initial is not None for block in model.blocks
    )
