"""Perceptrons of scikit-learn."""

from __future__ import annotations

import subprocess
import sys
import warnings
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

from ncut.errors import ModelError
from ncut.extract.assembly.assemble import assemble
from ncut.extract.lowering.kinds import lower
from ncut.extract.readers.sklearn_model import is_sklearn_mlp, read_sklearn

pytest.importorskip("sklearn", reason="pip install scikit-learn")
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def fitted(model: Any) -> Any:
    rng = np.random.default_rng(0)
    values, target = rng.normal(size=(60, 5)), rng.integers(0, 3, 60)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.fit(values, target)


@pytest.mark.parametrize(
    ("activation", "homogeneous"),
    [("relu", True), ("identity", True), ("tanh", False), ("logistic", False)],
)
@pytest.mark.parametrize("cls", [MLPClassifier, MLPRegressor])
def test_a_perceptron(cls: Any, activation: str, homogeneous: bool) -> None:
    model = fitted(
        cls(hidden_layer_sizes=(7, 4), activation=activation, max_iter=3, random_state=0)
    )
    assert is_sklearn_mlp(model)
    program, parameters = read_sklearn(model)
    graph = assemble(lower(program), parameters=parameters)
    n_out = model.coefs_[-1].shape[1]
    assert [layer.size for layer in graph.layers] == [5, 7, 4, n_out]
    assert [layer.rescalable for layer in graph.layers] == [False, homogeneous, homogeneous, False]
    for block, weight in zip(graph.blocks, model.coefs_, strict=True):
        assert_allclose(block.weights, np.abs(weight))
    placed = {parameter.name: parameter.placed for parameter in graph.parameters}
    assert placed == {name: name.startswith("coefs_") for name in parameters}
    assert graph.left_out == ()


def test_a_pipeline() -> None:
    model = fitted(
        make_pipeline(StandardScaler(), MLPClassifier(hidden_layer_sizes=(6,), max_iter=3))
    )
    assert is_sklearn_mlp(model)
    program, parameters = read_sklearn(model)
    graph = assemble(lower(program), parameters=parameters)
    assert [layer.size for layer in graph.layers] == [5, 6, 3]
    assert [(item.name, item.reason) for item in graph.left_out] == [
        ("standardscaler", "StandardScaler, a step of the pipeline before the network")
    ]


def test_a_model_that_is_not_fitted() -> None:
    with pytest.raises(ModelError, match=r"MLPClassifier.*not fitted.*fit\(X, y\)"):
        read_sklearn(MLPClassifier())
    with pytest.raises(ModelError, match="not fitted"):
        read_sklearn(make_pipeline(StandardScaler(), MLPRegressor()))


def test_other_models() -> None:
    assert not is_sklearn_mlp(LogisticRegression())
    assert not is_sklearn_mlp(make_pipeline(StandardScaler(), LogisticRegression()))
    assert not is_sklearn_mlp([np.ones((2, 3))])
    model = fitted(MLPClassifier(hidden_layer_sizes=(6,), max_iter=3))
    model.activation = "wave"
    with pytest.raises(ModelError, match="'wave' is not known"):
        read_sklearn(model)


def test_scikit_learn_is_not_imported() -> None:
    code = (
        "import sys; from ncut.extract.readers.sklearn_model import is_sklearn_mlp; "
        "assert not is_sklearn_mlp(3); assert 'sklearn' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
