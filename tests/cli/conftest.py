"""The command line in separate processes and folders."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
from cli_runs import SIZES
from forking import Commands


@pytest.fixture
def ncut(commands: Commands, tmp_path: Path) -> Callable[..., CompletedProcess[str]]:
    """Run `python -m ncut` in an empty folder; its output is in `stdout` and `stderr`."""
    return partial(commands.run, cwd=tmp_path)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A file with a sparse network, where neuron 0 of the input has no edges."""
    rng = np.random.default_rng(0)
    weights = {}
    for number, shape in enumerate(pairwise(SIZES)):
        weights[f"w{number}"] = rng.normal(size=shape) * (rng.random(shape) < 0.7)
    weights["w0"][0] = 0.0
    path = tmp_path_factory.mktemp("model") / "mlp.npz"
    np.savez(path, **weights)
    return path
