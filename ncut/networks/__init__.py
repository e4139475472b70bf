"""Two small trained networks that come with the package, made by scripts/train_digits.py.

Both are fully connected, 64-128-128-64-10 with ReLU, and classify scikit-learn's handwritten
digits (8 x 8 pixels). `digits-pruned` is `digits-unpruned` after further training with 90 % of each
layer's weights pruned. Each file holds the matrices w0, w1, ... of shape (fan_in, fan_out),
float32, and `test_accuracy`.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ncut.errors import InputError

NAMES = ("digits-pruned", "digits-unpruned")


def path(name: str) -> Path:
    """The path of a network's file, which `ncut.graph` reads.

    Parameters
    ----------
    name : {"digits-pruned", "digits-unpruned"}

    Raises
    ------
    InputError
        If there is no network of this name.
    """
    if name not in NAMES:
        raise InputError(f"name: must be one of {', '.join(map(repr, NAMES))}, got {name!r}")
    return Path(str(files(__name__) / f"{name}.npz"))


def load(name: str) -> list[NDArray[np.float32]]:
    """Weight matrices of a network in order, each of shape (fan_in, fan_out), float32.

    Parameters
    ----------
    name : {"digits-pruned", "digits-unpruned"}

    Raises
    ------
    InputError
        If there is no network of this name.
    """
    with np.load(path(name), allow_pickle=False) as arrays:
        n_layers = sum(key.startswith("w") for key in arrays)
        return [arrays[f"w{number}"] for number in range(n_layers)]
