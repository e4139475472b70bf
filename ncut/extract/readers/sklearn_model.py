"""Reads scikit-learn's multilayer perceptrons as programs."""

from __future__ import annotations

import sys
from typing import Any

from ncut.errors import ModelError
from ncut.extract.arrays import as_array
from ncut.extract.program.record import Program, commutes
from ncut.extract.readers.chain import ChainLayer, first_gap, write_chain

_ACTIVATIONS = ("identity", "relu", "logistic", "tanh")


def is_sklearn_mlp(model: Any) -> bool:
    """Check whether a model is a scikit-learn perceptron, or a pipeline ending in a perceptron.

    Does not import scikit-learn.
    """
    last = _steps(model)[-1][1] if _is_pipeline(model) else model
    module = sys.modules.get("sklearn.neural_network")
    return module is not None and isinstance(last, (module.MLPClassifier, module.MLPRegressor))


def read_sklearn(model: Any) -> tuple[Program, dict[str, tuple[int, ...]]]:
    """Follow the forward pass of a fitted `MLPClassifier` or `MLPRegressor`.

    Parameters
    ----------
    model : MLPClassifier, MLPRegressor or Pipeline
        The perceptron, or a pipeline with a perceptron as the last step; the other steps are not
        in the graph.

    Returns
    -------
    program : Program
    parameters : dict from str to tuple of int
        Shapes of the weights `coefs_[i]`, (fan_in, fan_out), and the biases `intercepts_[i]`,
        (fan_out,).

    Raises
    ------
    ModelError
        If the model is not fitted, or has an unknown activation.
    """
    program = Program()
    perceptron = model
    if _is_pipeline(model):
        *before, (_, perceptron) = _steps(model)
        for name, step in before:
            kind = step if isinstance(step, str) else type(step).__name__
            if kind != "passthrough":
                program.leave_out(name, (), f"{kind}, a step of the pipeline before the network")
    kind = type(perceptron).__name__
    if not hasattr(perceptron, "coefs_"):
        raise ModelError(f"{kind}: it is not fitted and has no weights yet; call fit(X, y) first")
    if perceptron.activation not in _ACTIVATIONS:
        raise ModelError(
            f"{kind}: activation {perceptron.activation!r} is not known; "
            f"expected one of {', '.join(map(repr, _ACTIVATIONS))}"
        )
    rescalable = commutes(perceptron.activation)
    chain = [
        ChainLayer(
            name, as_array(values, f"{kind}: {name}"), "linear",
            parameters=(name,), rescalable=rescalable,
        )
        for name, values in ((f"coefs_[{at}]", w) for at, w in enumerate(perceptron.coefs_))
    ]  # fmt: skip
    gap = first_gap(chain)
    if gap:
        raise ModelError(f"{kind}: {gap}")
    biases = {f"intercepts_[{at}]": b.shape for at, b in enumerate(perceptron.intercepts_)}
    program.ignore(biases, "bias")
    write_chain(program, chain)
    weights = {layer.name: layer.weight.shape for layer in chain}
    return program, weights | biases


def _is_pipeline(model: Any) -> bool:
    module = sys.modules.get("sklearn.pipeline")
    return module is not None and isinstance(model, module.Pipeline) and bool(_steps(model))


def _steps(model: Any) -> list[tuple[str, Any]]:
    return [*model.steps]
