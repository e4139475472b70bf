"""Reads an ONNX file as a program. Nothing in a file is ever executed."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ncut.errors import InputError, ModelError
from ncut.extract.program.record import Lower, Made, Program
from ncut.extract.readers.onnx_graph.model import (
    Following,
    Model,
    UnknownOperatorError,
    explained,
    load,
)
from ncut.extract.readers.onnx_graph.shapes import Declared, guesses
from ncut.files import reading, regular_file
from ncut.graphs import NeuronGraph
from ncut.types import Check

Shapes: TypeAlias = dict[str, tuple[int, ...]]


def read_onnx(
    path: Path,
    lower: Lower[Made],
    *,
    unknown: str = "error",
    example_inputs: Any = None,
) -> tuple[Made, Shapes, Shapes]:
    """Follow the forward pass of an ONNX model.

    The graph is followed node by node on tensors with a shape and no data. Open sizes of inputs
    are chosen: two examples, eight positions of a sequence, images of the usual sizes until all
    shapes fit. Weights are decoded on use; external files are memory-mapped.

    Parameters
    ----------
    path : Path
        The model's file.
    lower : callable
        Gets the program; its result is returned. Its errors show that guessed sizes do not fit.
    unknown : {"error", "elementwise"}
        Treatment of operators without a rule.
    example_inputs : mapping from str to array or tuple of int, optional
        Sizes of inputs by name, as tuples or the shapes of arrays. For a number, or a list of
        integers, the value counts too, so it can select a branch. Other inputs are guessed.

    Returns
    -------
    made
        What `lower` returned.
    parameters : dict from str to shape
        All floating-point initializers.
    others : dict from str to shape
        Tensors that count as parameters if the graph has their numbers.

    Raises
    ------
    ModelError
        If the file cannot be read, or its graph is invalid, depends on the data, or has an
        unknown operator.
    MissingExtraError
        If the package onnx is not installed.
    """
    path = Path(path)
    with reading(path, "ONNX"):
        model = load(regular_file(path))
        examples = Examples.of(example_inputs, model)
        made, _ = _with_inputs_that_fit(model, lower, unknown, examples)
        for name in examples.assumed:
            warnings.warn(
                f"{path}: took {name} = {examples.values[name].item()}, which chooses a branch; "
                f"for another, example_inputs= (--input {name}:=VALUE)",
                stacklevel=2,
            )
        model.tensors.check_unchanged()
        others = {name: source.shape for name, source in model.graph.sources.items()}
        return made, model.parameters, {**others, **model.used}


def check_onnx(
    path: Path,
    lower: Lower[NeuronGraph],
    *,
    unknown: str = "error",
    example_inputs: Any = None,
) -> Check:
    """Run a file in onnxruntime with one neuron changed at a time; see `ncut.graph`.

    Parameters and errors as for `read_onnx`; `lower` returns the graph that is checked.
    """
    from ncut.extract.readers.onnx_graph.running import checked

    with reading(path, "ONNX"):
        model = load(regular_file(path))
        examples = Examples.of(example_inputs, model)
        graph, following = _with_inputs_that_fit(model, lower, unknown, examples)
        return checked(following, graph)


@dataclass(frozen=True, slots=True)
class Examples:
    """Known shapes and values of a graph's inputs."""

    shapes: dict[str, tuple[int, ...]]  # sizes by name
    values: dict[str, NDArray[Any]]  # values by name
    assumed: list[str]  # inputs with assumed values

    @classmethod
    def of(cls, given: Any, model: Model) -> Examples:
        """Check the given inputs, and add numbers with which the graph compares inputs.

        Raises
        ------
        InputError
            If `given` is not a mapping, names an unknown input, or has another number of axes.
        """
        compared = _compared(model)
        found = cls({}, compared, [*compared])
        if given is None:
            return found
        if not isinstance(given, Mapping):
            raise InputError(
                "example_inputs: of an ONNX model, pass a mapping from names of inputs to arrays "
                f"or to tuples of sizes, got a {type(given).__name__}"
            )
        declared = {value.name: value for value in model.graph.inputs}
        for name, value in given.items():
            if name not in declared:
                raise InputError(
                    f"example_inputs: no input {name!r}; the model has "
                    f"{_listing(model.graph.inputs)}"
                )
            if name in found.assumed:
                found.assumed.remove(name)
                del found.values[name]
            if isinstance(value, tuple):
                sizes = value
            else:
                array = np.asarray(value)
                sizes = array.shape
                if array.ndim == 0 or (array.ndim == 1 and array.dtype.kind in "iub"):
                    found.values[name] = array
            expected = declared[name].sizes
            if any(type(n) is not int or n < 0 for n in sizes) or len(sizes) != len(expected):
                raise InputError(
                    f"example_inputs: {name!r} has sizes {tuple(sizes)}; the model declares "
                    f"{_listing([declared[name]])}"
                )
            found.shapes[name] = tuple(sizes)
        return found


def _compared(model: Model) -> dict[str, NDArray[Any]]:
    """Integers with which scalar inputs are compared, and which select branches.

    The first is used, and reported.
    """
    if not any(node.op_type == "If" for node in model.graph.nodes):
        return {}
    single = {v.name for v in model.graph.inputs if v.element in (6, 7) and v.sizes in ((), (1,))}
    found: dict[str, NDArray[Any]] = {}
    for node in model.graph.nodes:
        names = [name for name in node.input if name in single]
        constants = [name for name in node.input if name in model.graph.sources]
        if node.op_type != "Equal" or len(names) != 1 or len(constants) != 1:
            continue
        value = np.asarray(model.graph.sources[constants[0]].constant().values)
        if names[0] not in found and value.size == 1:
            declared = next(v for v in model.graph.inputs if v.name == names[0])
            found[names[0]] = value.reshape(tuple(1 for _ in declared.sizes))
    return found


def _with_inputs_that_fit(
    model: Model, lower: Lower[Made], unknown: str, examples: Examples
) -> tuple[Made, Following]:
    """The record for the first guess of the inputs' shapes that all operators accept."""
    inputs = model.graph.inputs
    failure: ModelError | None = None
    n_tried = 0
    for shapes in guesses(inputs, *_told_by_weights(model), examples.shapes):
        n_tried += 1
        try:
            return _lowered(model, shapes, unknown, lower, examples.values)
        except UnknownOperatorError:
            raise
        except ModelError as error:
            failure = failure or error
    assert failure is not None
    if n_tried > 1 and any(value.is_open for value in inputs):
        raise ModelError(
            f"{failure} (its inputs {_listing(inputs)} leave sizes open, and {n_tried} guesses "
            "do not fit; give them: example_inputs= in Python, --input NAME=1x512 on the command "
            "line)"
        ) from failure
    raise failure


def _lowered(
    model: Model,
    shapes: dict[str, tuple[int, ...]],
    unknown: str,
    lower: Lower[Made],
    values: Mapping[str, NDArray[Any]],
) -> tuple[Made, Following]:
    program = Program()
    following = Following(model, program, unknown)
    following.run(shapes, values)
    try:
        return lower(program), following
    except ModelError as error:
        whole = str(error)
        raise error if str(model.path) in whole else ModelError(f"{model.path}: {whole}") from error
    except Exception as error:
        raise explained(getattr(error, "place", "") or str(model.path), error) from error


def _listing(inputs: list[Declared]) -> str:
    shapes = [
        f"{value.name!r} ({', '.join('?' if s is None else str(s) for s in value.sizes)})"
        for value in inputs
    ]
    return ", ".join(shapes)


def _told_by_weights(model: Model) -> tuple[dict[str, list[int | None]], list[int]]:
    """Axis lengths of inputs implied by the weights that read them, and sizes read by others."""
    told: dict[str, list[int | None]] = {}
    features: list[int] = []
    sources = model.graph.sources
    names = {value.name: value for value in model.graph.inputs}
    for node in model.graph.nodes:
        at = {"Conv": 1, "ConvTranspose": 1, "MatMul": 1, "Gemm": 1, "LSTM": 1, "GRU": 1, "RNN": 1}
        position = at.get(node.op_type)
        weight = sources.get(node.input[1]) if position and len(node.input) > 1 else None
        if weight is None or len(weight.shape) < 2:
            continue
        attributes = {a.name: a.i for a in node.attribute}
        axis = 1
        if node.op_type == "Conv":
            n_in = weight.shape[1] * max(attributes.get("group", 1), 1)
        elif node.op_type == "ConvTranspose":
            n_in = weight.shape[0]
        elif node.op_type == "Gemm":
            n_in, axis = weight.shape[1 if attributes.get("transB") else 0], -1
        else:
            n_in, axis = weight.shape[-1 if node.op_type != "MatMul" else -2], -1
        if n_in not in features:
            features.append(n_in)
        read = names.get(node.input[0])
        if read is not None:
            rank = len(read.sizes)
            known: list[int | None] = [None] * rank
            if -rank <= axis < rank:
                known[axis] = n_in
            told.setdefault(read.name, known)
    return told, features
