"""Perceptrons of scikit-learn -> the record of their forward pass."""

from __future__ import annotations

import sys
from typing import Any

from ncut.errors import ModelError
from ncut.extract.arrays import as_array
from ncut.extract.lowering import lower
from ncut.extract.program.record import Program
from ncut.extract.wiring import Wiring

# Whether an activation commutes with positive factors.
_HOMOGENEOUS = {"identity": True, "relu": True, "logistic": False, "tanh": False}


def is_sklearn_mlp(model: Any) -> bool:
    """Whether a model is a perceptron of scikit-learn, or a pipeline that ends in one.

    Does not import scikit-learn.
    """
    last = _steps(model)[-1][1] if _is_pipeline(model) else model
    module = sys.modules.get("sklearn.neural_network")
    return module is not None and isinstance(last, (module.MLPClassifier, module.MLPRegressor))


def read_sklearn(model: Any) -> tuple[Wiring, dict[str, tuple[int, ...]]]:
    """Follow the forward pass of a fitted `MLPClassifier` or `MLPRegressor`.

    Parameters
    ----------
    model : MLPClassifier, MLPRegressor or Pipeline
        The perceptron, or a pipeline whose last step it is; what its other steps do to the
        inputs is not in the graph.

    Returns
    -------
    wiring : Wiring
        The record.
    parameters : dict from str to tuple of int
        Shapes of the weights `coefs_[i]`, (fan_in, fan_out), and the biases `intercepts_[i]`,
        (fan_out,).

    Raises
    ------
    ModelError
        If the model is not fitted, or has an activation that is not known.
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
    if perceptron.activation not in _HOMOGENEOUS:
        raise ModelError(
            f"{kind}: activation {perceptron.activation!r} is not known; "
            f"expected one of {', '.join(map(repr, _HOMOGENEOUS))}"
        )
    parameters: dict[str, tuple[int, ...]] = {}
    weights = {f"coefs_[{at}]": w for at, w in enumerate(perceptron.coefs_)}
    signal = program.input("input", (1, perceptron.coefs_[0].shape[0]))
    for at, (name, values) in enumerate(weights.items()):
        weight = as_array(values, f"{kind}: {name}")
        parameters[name] = weight.shape
        if at:
            homogeneous = _HOMOGENEOUS[perceptron.activation]
            signal = program.activation(signal, homogeneous=homogeneous)
        try:
            signal = program.linear(signal, weight, name=name, module=name, parameters=[name])
        except ModelError as error:
            raise ModelError(f"{kind}: {name}: {error}") from error
    for at, bias in enumerate(perceptron.intercepts_):
        parameters[f"intercepts_[{at}]"] = bias.shape
    program.ignore([name for name in parameters if name.startswith("intercepts_")], "bias")
    program.output(signal)
    return lower(program, "readers"), parameters


def _is_pipeline(model: Any) -> bool:
    module = sys.modules.get("sklearn.pipeline")
    return module is not None and isinstance(model, module.Pipeline) and bool(_steps(model))


def _steps(model: Any) -> list[tuple[str, Any]]:
    return [*model.steps]
