"""Architectures by name, `torchvision:resnet50` or `timm:resnet50`, and weights from a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ncut.errors import InputError, ModelError, import_extra
from ncut.extract.formats import read_named
from ncut.graphs import NeuronGraph

LONGEST_REASON = 200
"""Largest number of characters shown of a list of missing weights."""

LIBRARIES = ("torchvision", "timm")


def is_named(model: object) -> bool:
    """Check whether a model is the name of a library's architecture."""
    return str(model).partition(":")[0] in LIBRARIES and ":" in str(model)


def load_named(model: str, weights: str | Path | None, key: str | None = None) -> Any:
    """Build an architecture and load its weights; nothing is downloaded.

    Parameters
    ----------
    model : str
        `"torchvision:NAME"` or `"timm:NAME"`.
    weights : str or Path
        A file with its state dict.
    key : str, optional
        The state dict of a checkpoint to use.

    Raises
    ------
    InputError
        If the library has no such architecture, or no weights are given.
    ModelError
        If the file cannot be read, or its weights belong to another architecture.
    MissingExtraError
        If the library is not installed.
    """
    library, _, name = str(model).partition(":")
    if weights is None:
        raise InputError(
            f"weights: name the file with the weights of {model} (on the command "
            "line --weights FILE); none is downloaded"
        )
    content = read_named(Path(weights), key)
    if isinstance(content, NeuronGraph):
        raise ModelError(f"{weights}: holds a graph; expected the state dict of {model}")
    torch = import_extra("torch", "torch")
    tensors = {
        key: value if isinstance(value, torch.Tensor) else torch.from_numpy(np.array(value))
        for key, value in content.items()
    }
    with torch.device("meta"):
        module = _built(library, name)
    try:
        module.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        why = " ".join(str(error).split("\n")[1:]).strip()
        raise ModelError(
            f"{weights}: not the weights of {model}: {why[:LONGEST_REASON]}"
        ) from error
    return module.eval()


def _built(library: str, name: str) -> Any:
    package = import_extra(library, "vision")
    if library == "timm":
        if name not in package.list_models():
            raise InputError(f"model: timm has no architecture {name!r}")
        return package.create_model(name, pretrained=False)
    models = import_extra("torchvision.models", "vision")
    if name not in models.list_models():
        raise InputError(f"model: torchvision has no architecture {name!r}")
    # Random initialization takes up to a minute, and is overwritten anyway.
    settings = {"init_weights": False} if name in ("inception_v3", "googlenet") else {}
    return models.get_model(name, weights=None, **settings)
