"""TensorFlow.js layers-models: a Keras configuration, and arrays in flat binary files."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncut.errors import ModelError
from ncut.extract.arrays import as_array
from ncut.extract.program.record import Lower, Made
from ncut.extract.readers.folder.config import read_json
from ncut.extract.readers.keras.storage import Content, Tree
from ncut.extract.readers.keras.weights import Named, Variable
from ncut.extract.readers.keras_file import Shapes, read_model
from ncut.files import content_of, reading

_DTYPES = {"float32": "<f4", "int32": "<i4", "bool": "?", "uint8": "u1", "uint16": "<u2",
           "float16": "<f2"}  # fmt: skip


def read_tfjs(path: Path, lower: Lower[Made], *, unknown: str = "error") -> tuple[Made, Shapes]:
    """Follow the forward pass of a layers-model.

    Arrays quantized to 8 or 16 bits are dequantized with their scale and minimum.

    Parameters
    ----------
    path : Path
        `model.json`, or the folder with it.
    lower, unknown
        As for `ncut.extract.readers.keras_file.read_keras`.

    Raises
    ------
    ModelError
        If it is a graph model, or a file is missing or damaged.
    """
    path = path / "model.json" if path.is_dir() else path
    with reading(path, "a model of TensorFlow.js"):
        said = read_json(path)
        topology = said.get("modelTopology")
        config = topology.get("model_config", topology) if isinstance(topology, Mapping) else None
        if not isinstance(config, Mapping) or "class_name" not in config:
            raise ModelError(
                f"{path}: is no layers-model, and graph models of TensorFlow.js are not read; pass "
                "the model that it was converted from"
            )
        tree = Arrays(path, said.get("weightsManifest"))
        return read_model(Content(path, config, tree), Listed(tree), lower, unknown)


def is_tfjs(path: Path) -> bool:
    """Check by its content whether a JSON file is a model of TensorFlow.js."""
    try:
        return "modelTopology" in read_json(path)
    except ModelError:
        return False


class Arrays(Tree):
    """The arrays listed in a manifest, by name."""

    def __init__(self, path: Path, manifest: Any) -> None:
        self._path = path
        self._arrays: dict[str, tuple[NDArray[np.uint8], Mapping[str, Any]]] = {}
        try:
            for group in manifest:
                self._take(group)
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise ModelError(f"{path}: its weightsManifest is damaged: {error!r}") from error

    def _take(self, group: Mapping[str, Any]) -> None:
        parts = []
        for name in group["paths"]:
            if not isinstance(name, str) or Path(name).name != name or "\\" in name or "\0" in name:
                raise ModelError(f"{self._path}: {name!r} is not the name of a file beside it")
            parts.append(content_of(self._path.parent / name))
        content = np.concatenate(parts) if len(parts) > 1 else parts[0]
        at = 0
        for said in group["weights"]:
            shape = said["shape"]
            if any(type(n) is not int or n < 0 for n in shape) or len(shape) > 8:
                raise ModelError(f"{self._path}: {said['name']!r} has the shape {shape}")
            dtype = np.dtype(_DTYPES[said.get("quantization", said)["dtype"]])
            n_bytes = math.prod(shape) * dtype.itemsize
            if at + n_bytes > content.size:
                raise ModelError(f"{self._path}: {said['name']!r} does not lie in {group['paths']}")
            self._arrays[said["name"]] = (content[at : at + n_bytes], said)
            at += n_bytes

    def arrays(self, at: str = "") -> dict[str, tuple[int, ...]]:
        """Names and shapes of all arrays."""
        return {name: self.shape(name) for name in self._arrays}

    def shape(self, at: str) -> tuple[int, ...]:
        """The shape of an array."""
        return tuple(self._found(at)[1]["shape"])

    def is_integer(self, at: str) -> bool:
        """Check whether an array holds integers that are not quantized values."""
        return bool(self._found(at)[1]["dtype"] == "int32")

    def array(self, at: str) -> NDArray[np.floating]:
        """The values of an array."""
        data, said = self._found(at)
        quantized = said.get("quantization")
        values = data.view(_DTYPES[(quantized or said)["dtype"]]).reshape(said["shape"])
        if quantized and values.dtype.kind == "u":
            scale, least = (float(quantized[name]) for name in ("scale", "min"))
            values = (values * scale + least).astype(np.float32)
        return as_array(values, f"{self._path}: {at!r}")

    def _found(self, at: str) -> tuple[NDArray[np.uint8], Mapping[str, Any]]:
        if at not in self._arrays:
            raise ModelError(f"{self._path}: no array {at!r}")
        return self._arrays[at]


class Listed(Named):
    """`dense/kernel`: variables with the layer's, or a nested layer's, name as a path step."""

    def __init__(self, tree: Arrays) -> None:
        super().__init__(tree, "")

    def everything(self) -> dict[str, tuple[int, ...]]:
        """All arrays."""
        return self.tree.arrays()

    def _variables(self, name: str) -> list[Variable]:
        known = [Variable(path, shape) for path, shape in self.tree.arrays().items()]
        return [each for each in known if name in each.path.split("/")[:-1]] or known
