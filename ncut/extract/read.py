"""read_graph(): the single entry point from any supported model to a NeuronGraph."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ncut.arguments import suggests_names
from ncut.errors import InputError, printable
from ncut.extract.assembly.assemble import assemble, check_options
from ncut.extract.formats import FILE_OPTIONS, Followed, format_of
from ncut.extract.hub import fetched, is_on_hub
from ncut.extract.lowering.kinds import lower
from ncut.extract.modules import is_module
from ncut.extract.named import is_named, load_named
from ncut.extract.networkx_graph import is_networkx, read_networkx
from ncut.extract.options import Options
from ncut.extract.readers.chain import ChainLayer, chain_program, read_sequence
from ncut.extract.readers.sklearn_model import is_sklearn_mlp
from ncut.extract.readers.state_dict import read_arrays
from ncut.files import reading
from ncut.graphs import NeuronGraph, from_adjacency
from ncut.graphs.scratch import check_scratch
from ncut.types import EdgeKind, KernelNorm, Scope, Unknown

if TYPE_CHECKING:
    from ncut.extract.lowering.wiring import Residual
    from ncut.extract.program.record import Program
    from ncut.types import Check, LeftOut


@suggests_names(name="ncut.graph")
def read_graph(
    model: Any,
    *,
    scope: Scope = "paper",
    norm: KernelNorm = "l1",
    layers: Sequence[str] | Mapping[str, int] | None = None,
    name: str | None = None,
    initial: bool = False,
    residual: Residual | None = None,
    example_inputs: Any = None,
    unknown: Unknown = "error",
    weights: str | Path | None = None,
    scratch: str | Path | None = None,
    check: bool = False,
    edges: EdgeKind = "weights",
    data: Any = None,
    loss: Any = None,
    key: str | None = None,
    part: str | None = None,
) -> NeuronGraph:
    """Turn a model into the weighted, undirected graph of its neurons.

    Vertices are neurons, or the channels of convolutions; the weight of an edge is |w|, or the
    norm of the slice of the kernel between two channels. Biases are ignored. A batch norm
    with running statistics multiplies the weights by gamma / sqrt(running_var + eps), other
    norms by gamma. docs/models.md defines the edges of residual networks, attention and
    recurrent layers, and lists the parameters that are left out.

    Parameters
    ----------
    model : torch.nn.Module, str or Path, sequence, mapping, and others
        - a `torch.nn.Module`, of torchvision, timm, transformers or your own: its forward pass
          runs once on tensors without data;
        - a path to a file or folder of any format that `ncut formats` lists, recognized by its
          content: ONNX, Keras, GGUF, folders of Hugging Face transformers, PyTorch checkpoints,
          safetensors, `.npz` files of arrays or written by `NeuronGraph.save`;
        - a model of the Hugging Face Hub, `"hf:org/name"`, `"hf:org/name@revision"` or
          `"hf:org/name/file.gguf"`, or a folder of it, `"hf:org/name/unet"`: its settings and
          weights are fetched, or found in the cache;
        - an architecture by name, `"torchvision:resnet50"` or `"timm:resnet50"`, with `weights`;
        - a fitted `MLPClassifier` or `MLPRegressor` of scikit-learn;
        - a sequence of weight arrays of a chain, in the order of the layers: (fan_in, fan_out)
          matrices, convolutions (out, in, positions...), or paths of `.npy` files with one array
          each (memory-mapped);
        - a mapping from names to arrays, such as a state dict;
        - a symmetric scipy sparse adjacency matrix, shape (n, n);
        - an undirected `networkx.Graph` or `MultiGraph`: the edge attribute "weight" (1 where it
          is missing) is the weight, the vertices keep the order of its nodes, and the optional
          node attribute "layer" defines the layers, in the format of `NeuronGraph.to_networkx`;
        - a `NeuronGraph`, returned unchanged.
    scope : {"paper", "all"}
        `"paper"`: every neuron; in a convolutional network (without attention or recurrent
        layers) only the channels that its convolutions write, without the edges from the image
        and the fully connected layers at the end. `"all"`: every neuron and channel.
    norm : {"l1", "l2", "column-sum"}
        Norm of a kernel slice: the sum of its magnitudes, its Euclidean norm, or the largest sum
        of a column's magnitudes, which the paper's code uses as its L1 norm.
    layers : sequence of str, optional
        Names of the weight arrays of a mapping or file, in the order of the chain. By default
        the order is inferred (see `ncut.extract.readers.state_dict.read_arrays`). For a matrix of
        attributions, a mapping from the names of its layers to their sizes.
    name : str, optional
        The model's name for reports; by default its class or the file's name.
    initial : bool, default False
        Also record a sample of each layer's initial weights, as drawn by its `reset_parameters`;
        the null model "init" needs it. Only for torch modules, and graphs read with this option.
    residual : {"readers", "stream"}, optional
        Representation of residual sums. `"readers"`: each layer that reads the sum has separate
        vertices for its inputs, and every layer that writes a part of the sum connects to each of
        them, as in the paper. `"stream"`: the channels of the residual stream are vertices shared
        by all writers and readers. By default "stream" for models with attention, else "readers".
    example_inputs : tensor, tuple or mapping, optional
        Arguments of a torch module's forward pass, or a mapping from names of an ONNX model's
        inputs to arrays, or to tuples of sizes. Only the shape and the dtype of floating-point
        tensors matter. By default the arguments are guessed from the model's first layers or its
        configuration.
    unknown : {"error", "elementwise"}
        Treatment of unknown operations: refuse them, or treat them as elementwise and list them
        in `left_out`. `ncut.register_operation` declares the effect of an operation.
    weights : str or Path, optional
        A file with the weights of an architecture given by name.
    scratch : str or Path, optional
        A folder for blocks of 1 MiB or more, of this graph and of its shuffles, so that a model
        larger than memory can be measured; it needs twice the size of the weights. When reading
        folders and `.npy` files, only the largest layer has to fit into memory.
    check : bool, default False
        Also run a copy of a torch module, or an ONNX file in onnxruntime, with one neuron changed
        at a time, for a sample of 40 neurons, and compare the neurons that respond with the edges
        of the graph (with residual="readers" and scope="all"). `NeuronGraph.check` has the
        result; a difference is a warning.
    edges : {"weights", "attribution"}
        `"attribution"`: an edge weighs the sum over the examples of `data` of |a_i w_ij dL/dz_j|,
        the first-order change of the loss with the weight; it is invariant under rescaling of
        neurons, and no norm or scale is folded in. For a precomputed square matrix of
        attributions or co-activations, signed or unsigned, directed or undirected,
        |a_ij| + |a_ji|; `left_out` lists what was lost. See `ncut.extract.attribution`.
    data : pair of tensors, optional
        With `edges="attribution"`, a batch of inputs and targets; with `loss`, any pair.
    loss : callable, optional
        Gets the model and `data`, returns the loss, a scalar tensor; by default the cross entropy
        for integer targets, and the squared error for others.
    key : str, optional
        The state dict of a checkpoint to read: its key (`"a/b"` for a nested one), or the prefix
        of its entries' names. By default the entry "state_dict", "model_state_dict" or "model",
        or the only state dict.
    part : str, optional
        The part of the model to keep: `"mlp"`, `"attention"`, or the name of a module, such as
        `"encoder.layer.3"`, or consecutive components of it, with patterns
        (`"layer.[0-3].mlp"`). The rest is listed in `left_out`; `placed_share` is the share that
        was kept. By default the whole model.

    Raises
    ------
    InputError
        If an argument is unknown or does not apply to this kind of model, there are fewer than
        two weight layers, successive layers do not fit, or weights are not finite or all zero.
    ModelError
        If the model has an unknown operation, its forward pass depends on the data or fails, or
        a file cannot be read.
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
    check_options(scope, norm, residual, unknown)
    if edges != "weights" or data is not None or loss is not None:
        if part is not None:
            raise InputError("part: has no effect on attributions; leave it out")
        from ncut.extract.attribution import read_attributions

        return read_attributions(
            model, edges, data, loss, layers,
            scope=scope, residual=residual, example_inputs=example_inputs, name=name,
        )  # fmt: skip
    if isinstance(layers, Mapping):
        raise InputError("layers: must be names; sizes of layers are for edges='attribution'")
    options = Options(
        *(scope, norm, layers, name, initial, residual, example_inputs, unknown, weights),
        check_scratch(scratch),
        key,
        part,
    )
    return _read_any(model, options, check)


def _read_any(model: Any, options: Options, check: bool) -> NeuronGraph:
    """The weight graph of a model of any kind."""
    if options.initial and not (is_module(model) or _has_initial(model)):
        raise InputError(
            "initial: only a torch module tells how its layers are initialized, got "
            f"{type(model).__name__}; null='init' needs that"
        )
    if not check:
        return _read(model, options)  # type: ignore[no-any-return]
    name, example_inputs = "", options.example_inputs
    if isinstance(model, str | Path) and is_named(model):
        name, model = Path(str(model)).name, load_named(str(model), options.weights, options.key)
    if is_module(model):
        return _with_check(_read_module(model, options, name), model, example_inputs)
    is_path = isinstance(model, str | Path) and not is_on_hub(model)
    if not is_path or format_of(Path(model)).name != "ONNX":
        raise InputError(
            "check: only a torch module or an ONNX file can be run, got "
            f"{type(model).__name__}; leave it out"
        )
    from ncut.extract.readers.onnx_model import check_onnx

    read = _read(model, options)
    result = check_onnx(
        Path(model), _to_check, unknown=options.unknown, example_inputs=example_inputs
    )
    return _checked(read, result)


@suggests_names(name="ncut.program")
def read_program(
    model: Any,
    *,
    layers: Sequence[str] | None = None,
    example_inputs: Any = None,
    unknown: Unknown = "error",
    weights: str | Path | None = None,
    key: str | None = None,
) -> Program:
    """Read a model's forward pass as a program, from whose nodes its graph is made.

    Printed, a program has one line per node, with shapes and the parameters of its weights.

    Parameters
    ----------
    model
        As for `ncut.graph`, except graphs.
    layers, example_inputs, unknown, weights, key
        As for `ncut.graph`.

    Raises
    ------
    InputError, ModelError, MissingExtraError
        As `ncut.graph`.

    Examples
    --------
    >>> import numpy as np
    >>> print(read_program([np.ones((4, 3)), np.ones((3, 2))]))
    %1 (1, 4) = input(name='input')
    %2 (1, 3) = linear(%1, axis=1, weight=(4, 3), name='w0')
    %3 (1, 3) = pointwise(%2)
    %4 (1, 2) = linear(%3, axis=1, weight=(3, 2), name='w1')
    %5 (1, 2) = pointwise(%4)
    output(%5, name='output')
    """
    check_options(unknown=unknown)
    options = Options(
        layers=layers, example_inputs=example_inputs, unknown=unknown, weights=weights,
        key=key, only_program=True,
    )  # fmt: skip
    program: Program = _read(model, options)
    return program


def _read(model: Any, options: Options) -> Any:
    """The requested result."""
    layers, key = options.layers, options.key
    if isinstance(model, str | Path) and is_on_hub(model):
        options.refuse("a model of the Hub", "weights")
        path, called = fetched(str(model))
        with reading(path, str(model)):
            return _read_path(path, options if options.name else replace(options, name=called))
    if isinstance(model, str | Path) and is_named(model):
        module = load_named(str(model), options.weights, key)
        return _read_module(module, options, Path(str(model)).name)
    options.refuse("a model that is not given by name, as in 'torchvision:resnet50'", "weights")
    if isinstance(model, str | Path):
        with reading(model, Path(model).suffix.lower() or "a model"):
            return _read_path(Path(model), options)
    if is_module(model):
        return _read_module(model, options)
    if isinstance(model, NeuronGraph) or is_networkx(model) or _is_sparse(model):
        options.refuse("a graph", "scope", "norm", "part", *FILE_OPTIONS)
        return options.finished(_as_graph(model))
    options.refuse(f"a {type(model).__name__}", "residual", "example_inputs", "unknown")
    if isinstance(model, Mapping):
        chain, left_out, parameters = read_arrays(
            model, where="the mapping", layers=layers, key=key
        )
        default = "state dict"
    elif layers is not None or key is not None:
        option = "key" if layers is None else "layers"
        raise InputError(f"{option}: names the arrays of a file or mapping only")
    elif is_sklearn_mlp(model):
        from ncut.extract.readers.sklearn_model import read_sklearn

        program, parameters = read_sklearn(model)
        return options.assembled(options.lower(program), type(model).__name__, parameters)
    else:
        chain, left_out, default = read_sequence(model), [], "weights"
        parameters = {}
    return _of_chain(chain, default, left_out, parameters, options)


def _of_chain(
    chain: Sequence[ChainLayer],
    name: str,
    left_out: Sequence[LeftOut],
    parameters: dict[str, tuple[int, ...]],
    options: Options,
) -> Any:
    program = chain_program(
        chain, name=name if options.name is None else options.name, left_out=left_out
    )
    return options.assembled(options.lower(program), name, parameters)


def _read_module(model: Any, options: Options, name: str = "") -> Any:
    from ncut.extract.modules import unwrapped
    from ncut.extract.readers.traced.module import parameters_of, read_module

    if options.layers is not None:
        raise InputError(
            "layers: names the arrays of a file or mapping only; pass model.state_dict() to "
            "choose layers of a module by name"
        )
    if not name:
        options.refuse("a module", "key")
    inner = unwrapped(model)
    wiring = read_module(
        inner,
        options.lower,
        example_inputs=options.example_inputs,
        unknown=options.unknown,
    )
    return options.assembled(wiring, name or type(inner).__name__, parameters_of(inner))


def _with_check(graph: NeuronGraph, model: Any, example_inputs: Any) -> NeuronGraph:
    from ncut.extract.modules import unwrapped
    from ncut.extract.readers.traced.running import checked

    return _checked(graph, checked(unwrapped(model), _to_check, example_inputs))


def _to_check(program: Program) -> NeuronGraph:
    """The graph of a program with which a running model is compared."""
    return assemble(lower(program, "readers"), scope="all")


def _checked(graph: NeuronGraph, result: Check) -> NeuronGraph:
    """The graph with a check's result; warns if they disagree."""
    if not result.agrees:
        warnings.warn(f"{graph.name}: {result}", stacklevel=4)
    return replace(graph, check=result)


def _read_path(path: Path, options: Options) -> Any:
    found = format_of(path)
    options.refuse(found.what, *(set(FILE_OPTIONS) - set(found.takes) - {"residual", "unknown"}))
    content = found.read(path, options)
    if isinstance(content, NeuronGraph):
        what = f"{path}, a saved graph"
        options.refuse(what, "scope", "norm", "part", *FILE_OPTIONS)
        return options.finished(content)
    options.refuse(found.what, *(set(FILE_OPTIONS) - set(found.takes)))
    if isinstance(content, Followed):
        return options.assembled(content.wiring, _name_of(path), content.shapes)
    chain, left_out, parameters = read_arrays(
        content,
        where=str(path),
        layers=options.layers,
        ordered=found.ordered,
        key=None if found.keyed else options.key,
    )
    return _of_chain(chain, _name_of(path), left_out, parameters, options)


def _name_of(path: Path) -> str:
    """The model's name; undecodable bytes of the file's name are replaced."""
    return printable(path.stem or path.name)


def _as_graph(model: Any) -> NeuronGraph:
    """The graph of an object that already is a graph."""
    if isinstance(model, NeuronGraph):
        return model
    return read_networkx(model) if is_networkx(model) else from_adjacency(model)


def _is_sparse(model: Any) -> bool:
    sparse = sys.modules.get("scipy.sparse")
    return sparse is not None and bool(sparse.issparse(model))


def _has_initial(model: Any) -> bool:
    """Check whether a graph was read with `initial=True` and has samples of initial weights."""
    return isinstance(model, NeuronGraph) and all(
        block.initial is not None for block in model.blocks
    )
