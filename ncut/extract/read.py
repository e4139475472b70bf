"""read_graph(): the one entry from whatever a user has to a NeuronGraph."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ncut.arguments import suggests_names
from ncut.errors import InputError, printable
from ncut.extract.arrays import as_array, is_tensor
from ncut.extract.assemble import SINGLE_MATRIX_HINT, assemble, check_options
from ncut.extract.chain import ChainLayer, chain_wiring, with_depthwise_groups
from ncut.extract.files import read_npy
from ncut.extract.formats import FILE_OPTIONS, Followed, format_of
from ncut.extract.hub import fetched, is_on_hub
from ncut.extract.modules import is_module
from ncut.extract.named import is_named, load_named
from ncut.extract.networkx_graph import is_networkx, read_networkx
from ncut.extract.sklearn_model import is_sklearn_mlp
from ncut.extract.state_dict import read_arrays
from ncut.files import reading
from ncut.graphs import NeuronGraph, from_adjacency
from ncut.graphs.data import in_scratch
from ncut.graphs.scratch import check_scratch
from ncut.types import EdgeKind, KernelNorm, Scope, Unknown

if TYPE_CHECKING:
    from ncut.extract.program.record import Program
    from ncut.extract.wiring import Residual, Wiring
    from ncut.types import Check, LeftOut


@dataclass(frozen=True, slots=True)
class Options:
    """How to read a model; each of them only means something for some kinds."""

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

    def assembled(
        self, wiring: Wiring, name: str, parameters: Mapping[str, tuple[int, ...]]
    ) -> Any:
        """The graph of a forward pass that was followed, or its program."""
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
        """A graph that was one already, under the name and in the folder that were asked for."""
        if self.only_program:
            raise InputError("model: a graph has no program; pass the model that it was made of")
        named = graph if self.name is None else replace(graph, name=self.name)
        return in_scratch(named, self.scratch)


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
    norms by gamma. What is an edge in residual networks, attention and recurrent layers, and
    what of a model's parameters is left out: docs/models.md.

    Parameters
    ----------
    model : torch.nn.Module, str or Path, sequence, mapping, and others
        - a `torch.nn.Module`, of torchvision, timm, transformers or your own: its forward pass
          runs once on tensors without data;
        - a path to a file or folder of any format that `ncut formats` lists, known by its
          content: ONNX, Keras, GGUF, folders of Hugging Face transformers, PyTorch checkpoints,
          safetensors, `.npz` files of arrays or that `NeuronGraph.save` wrote;
        - a model of the Hugging Face Hub, `"hf:org/name"`, `"hf:org/name@revision"` or
          `"hf:org/name/file.gguf"`: its settings and weights are fetched, or found in the cache;
        - an architecture by name, `"torchvision:resnet50"` or `"timm:resnet50"`, with `weights`;
        - a fitted `MLPClassifier` or `MLPRegressor` of scikit-learn;
        - a sequence of weight arrays of a chain, (fan_in, fan_out) matrices, or convolutions
          (out, in, positions...), or paths of `.npy` files that hold one each (they are
          memory-mapped); the order is that of the layers;
        - a mapping from names to arrays, such as a state dict;
        - a symmetric scipy sparse adjacency matrix, shape (n, n);
        - an undirected `networkx.Graph` or `MultiGraph`: the edge attribute "weight" (1 where it
          is missing) is the weight, the order of its nodes that of the vertices, and the node
          attribute "layer", if there is one, makes the layers, as `NeuronGraph.to_networkx`
          writes it;
        - a `NeuronGraph`, returned as it is.
    scope : {"paper", "all"}
        `"paper"`: every neuron; of a convolutional network (without attention or recurrent
        layers) the channels that its convolutions write, so that the edges from the image and
        the fully connected layers at the end are left out. `"all"`: every neuron and channel.
    norm : {"l1", "l2", "column-sum"}
        Norm of a kernel slice: the sum of its magnitudes, its Euclidean norm, or the largest sum
        of a column's magnitudes, which the paper's code takes for the first.
    layers : sequence of str, optional
        Names of the weight arrays of a mapping or file, in the order of the chain. By default
        the order is inferred (see `ncut.extract.state_dict.read_arrays`). Of a matrix of
        attributions a mapping from the names of its layers to their sizes.
    name : str, optional
        The model's name for reports; by default its class or the file's name.
    initial : bool, default False
        Also record what each layer's weights are like as its `reset_parameters` makes them, which
        the null model "init" needs; torch modules only, and graphs that were read so.
    residual : {"readers", "stream"}, optional
        What a residual sum is. `"readers"`: the inputs of each layer that reads it are vertices
        of their own, and every layer that writes a part of the sum connects to each of them, as
        in the paper. `"stream"`: its channels are vertices once, to which all its writers and
        readers connect. By default "stream" for models with attention, else "readers".
    example_inputs : tensor, tuple or mapping, optional
        Arguments of a torch module's forward pass, or a mapping from names of an ONNX model's
        inputs to arrays, or to tuples of sizes. Of floating-point tensors only the shape and the
        type matter. By default they are guessed from its first layers, or its configuration.
    unknown : {"error", "elementwise"}
        What to do with an operation that is not known: refuse it, or take it for a function of
        each entry alone, which is then listed in `left_out`. `ncut.register_operation` declares
        what an operation does.
    weights : str or Path, optional
        A file with the weights of an architecture that is given by name.
    scratch : str or Path, optional
        A folder to keep blocks of a MiB and more in, of this graph and of its shuffles, so that
        a model larger than memory can be measured; it needs twice the room of the weights. Of
        folders and `.npy` files nothing of the model need fit into memory but its largest layer.
    check : bool, default False
        Also run a copy of a torch module, or an ONNX file by onnxruntime, with one neuron changed
        at a time, for a sample of 40, and compare which others change with the edges of its graph
        (with residual="readers" and scope="all"); `NeuronGraph.check` has the result, and a
        difference is a warning.
    edges : {"weights", "attribution"}
        `"attribution"`: an edge weighs the sum over the examples of `data` of |a_i w_ij dL/dz_j|,
        how much the loss would change, to first order, with the weight; no rescaling of neurons
        changes it, and no norm or scale is folded in. Of a square matrix of attributions or
        co-activations that others computed, signed and directed or not, |a_ij| + |a_ji|;
        `left_out` tells what was lost. See `ncut.extract.attribution`.
    data : pair of tensors, optional
        With `edges="attribution"` a batch of inputs and targets; with `loss` anything.
    loss : callable, optional
        Gets the model and `data`, returns the loss, a scalar tensor; by default the cross entropy
        for targets of whole numbers, and the squared error for others.
    key : str, optional
        Which state dict of a checkpoint to read: its key, `"a/b"` for one inside another, or what
        the names of its entries begin with. By default that under "state_dict",
        "model_state_dict" or "model", or the only one.
    part : str, optional
        The part of the model to keep: `"mlp"`, `"attention"`, or the name of a module, such as
        `"encoder.layer.3"`, of which some components in a row will do, with patterns
        (`"layer.[0-3].mlp"`). What is left out is in `left_out`, and `placed_share` tells how
        much was kept. By default all of it.

    Raises
    ------
    InputError
        If an argument is unknown or does not apply to this kind of model, there are fewer than
        two weight layers, successive layers do not fit, or weights are not finite or all zero.
    ModelError
        If the model has an operation that is not known, its forward pass depends on the data or
        fails, or a file cannot be read.
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
    """The graph of weights of a model of any kind."""
    initial, weights, example_inputs = options.initial, options.weights, options.example_inputs
    key, name = options.key, options.name
    if initial and not (is_module(model) or _has_initial(model)):
        raise InputError(
            "initial: only a torch module tells how its layers are initialized, got "
            f"{type(model).__name__}; null='init' needs that"
        )
    if isinstance(model, str | Path) and is_on_hub(model):
        options.refuse("a model of the Hub", "weights")
        path, called = fetched(str(model))
        with reading(path, str(model)):
            found: NeuronGraph = _read_path(
                path, options if name else replace(options, name=called)
            )
        return found
    if isinstance(model, str | Path) and is_named(model):
        module = load_named(str(model), weights, key)
        graph: NeuronGraph = _read_module(module, options, Path(str(model)).name)
        return _with_check(graph, module, example_inputs) if check else graph
    if check and is_module(model):
        return _with_check(_read_module(model, options), model, example_inputs)
    if check:
        if not isinstance(model, str | Path) or format_of(Path(model)).name != "ONNX":
            raise InputError(
                "check: only a torch module or an ONNX file can be run, got "
                f"{type(model).__name__}; leave it out"
            )
        from ncut.extract.onnx_model import check_onnx

        read = _read(model, options)
        result = check_onnx(Path(model), unknown=options.unknown, example_inputs=example_inputs)
        return _checked(read, result)
    return _read(model, options)  # type: ignore[no-any-return]


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
    """Read what a model's forward pass does: the nodes that its graph is made of.

    As text it is one line a node, with shapes and the parameters that weights come from.

    Parameters
    ----------
    model
        As for `ncut.graph`, but graphs.
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
    program: Program
    if isinstance(model, str | Path) and is_on_hub(model):
        path, _ = fetched(str(model))
        with reading(path, str(model)):
            program = _read_path(path, options)
        return program
    if isinstance(model, str | Path) and is_named(model):
        program = _read_module(load_named(str(model), weights, key), options)
        return program
    program = _read(model, options)
    return program


def _read(model: Any, options: Options) -> Any:
    """What is asked for of a model that is not given by name."""
    layers, key = options.layers, options.key
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
        from ncut.extract.sklearn_model import read_sklearn

        wiring, parameters = read_sklearn(model)
        return options.assembled(wiring, type(model).__name__, parameters)
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
    wiring = chain_wiring(
        chain, name=name if options.name is None else options.name, left_out=left_out
    )
    return options.assembled(wiring, name, parameters)


def _read_module(model: Any, options: Options, name: str = "") -> Any:
    from ncut.extract.modules import unwrapped
    from ncut.extract.traced.module import parameters_of, read_module

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
        residual=options.residual,
        example_inputs=options.example_inputs,
        unknown=options.unknown,
    )
    return options.assembled(wiring, name or type(inner).__name__, parameters_of(inner))


def _with_check(graph: NeuronGraph, model: Any, example_inputs: Any) -> NeuronGraph:
    from ncut.extract.modules import unwrapped
    from ncut.extract.traced.running import checked

    return _checked(graph, checked(unwrapped(model), example_inputs))


def _checked(graph: NeuronGraph, result: Check) -> NeuronGraph:
    """The graph with a check's result; a warning where they do not agree."""
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
        return options.assembled(content.wiring, _name_of(path), content.parameters)
    chain, left_out, parameters = read_arrays(
        content,
        where=str(path),
        layers=options.layers,
        ordered=found.ordered,
        key=None if found.keyed else options.key,
    )
    return _of_chain(chain, _name_of(path), left_out, parameters, options)


def _name_of(path: Path) -> str:
    """The model's name; bytes of a file's name that are no text are replaced."""
    return printable(path.stem or path.name)


def read_sequence(model: Any) -> list[ChainLayer]:
    """The layers of a sequence of weight arrays."""
    if isinstance(model, np.ndarray) or is_tensor(model):
        raise InputError(_single_array(tuple(model.shape)))
    if not isinstance(model, Sequence):
        raise InputError(
            f"model: cannot read a {type(model).__name__}; pass a torch.nn.Module (not its class), "
            "a path, a list of (fan_in, fan_out) weight matrices, a dict of named weights, a "
            "fitted MLP of scikit-learn, a scipy sparse adjacency matrix, a networkx graph or a "
            "NeuronGraph"
        )
    chain: list[ChainLayer] = []
    for number, values in enumerate(model):
        what = f"model: weights {number}"
        if isinstance(values, str | Path):
            what += f" ({values})"
            values = read_npy(Path(values))
        weight = as_array(values, what)
        if not 2 <= weight.ndim <= 5:
            raise InputError(
                f"{what} have shape {weight.shape}; expected a (fan_in, fan_out) "
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


def _as_graph(model: Any) -> NeuronGraph:
    """The graph of what is one already."""
    if isinstance(model, NeuronGraph):
        return model
    return read_networkx(model) if is_networkx(model) else from_adjacency(model)


def _is_sparse(model: Any) -> bool:
    sparse = sys.modules.get("scipy.sparse")
    return sparse is not None and bool(sparse.issparse(model))


def _has_initial(model: Any) -> bool:
    """Whether a graph was read with `initial=True` and tells what its layers were like."""
    return isinstance(model, NeuronGraph) and all(
        block.initial is not None for block in model.blocks
    )
