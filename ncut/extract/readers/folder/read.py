"""Reads a folder: its settings, its tensors, and the model family that connects them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ncut.errors import ModelError
from ncut.extract.arrays import as_array, is_tensor
from ncut.extract.program.record import Lower, Made, Program
from ncut.extract.readers.files import read_safetensors, read_torch
from ncut.extract.readers.flax_file import read_flax
from ncut.extract.readers.folder.blocks import Network
from ncut.extract.readers.folder.config import Config, read_json
from ncut.extract.readers.folder.families import FAMILIES
from ncut.extract.readers.folder.families.circuits import KIND as CIRCUIT_KIND
from ncut.extract.readers.folder.quantized import dequantized
from ncut.files import reading, regular_file

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
TORCH = "pytorch_model.bin"
TORCH_INDEX = "pytorch_model.bin.index.json"
FLAX = "flax_model.msgpack"
CIRCUITS = "beeg_config.json"
CIRCUITS_WEIGHTS = "final_model.pt"

PASS_THE_MODEL = (
    "load the model with the package transformers and pass the model object: "
    "ncut.graph(AutoModel.from_pretrained(folder))"
)


def read_folder(
    path: Path,
    lower: Lower[Made],
    *,
    change: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None,
) -> tuple[Made, dict[str, tuple[int, ...]]]:
    """Follow the forward pass of a transformer saved by `save_pretrained`.

    The model is not built, and nothing in the folder is executed: `config.json` gives the model
    type and the numbers of layers and heads; tensors stay memory-mapped until their edges are
    computed.

    Parameters
    ----------
    path : Path
        A folder with `config.json` and `model.safetensors` (or `pytorch_model.bin`, which needs
        torch), or the shards listed in `model.safetensors.index.json`; or with
        `beeg_config.json` and `final_model.pt`, in the format of openai/circuit_sparsity.
    lower : callable
        Gets the program; its result is returned.
    change : callable, optional
        Applied to the tensors before use, e.g. to merge an adapter.

    Returns
    -------
    made
        What `lower` returned.
    shapes : dict from str to tuple of int
        Shapes of all tensors of the folder, by name.

    Raises
    ------
    ModelError
        If a file is missing, unreadable or outside the folder, the model type is unknown, or the
        tensors do not match the settings.
    """
    path = Path(path)
    if not path.is_dir():
        raise ModelError(f"{path}: no such folder")
    if not (path / CONFIG).is_file() and (path / CIRCUITS).is_file():
        settings = {**read_json(path / CIRCUITS), "model_type": CIRCUIT_KIND}
        tensors: Mapping[str, Any] = _as_arrays(path / CIRCUITS_WEIGHTS)
        return follow(Config(settings, str(path / CIRCUITS)), tensors, str(path), lower)
    if not (path / CONFIG).is_file():
        raise ModelError(
            f"{path}: is a folder without {CONFIG}; pass a file of weights, or a folder that "
            "save_pretrained of the package transformers wrote"
        )
    config = Config(read_json(path / CONFIG), str(path / CONFIG))
    tensors = dequantized(_tensors(path), config)
    return follow(config, tensors if change is None else change(tensors), str(path), lower)


def follow(
    config: Config, tensors: Mapping[str, Any], where: str, lower: Lower[Made]
) -> tuple[Made, dict[str, tuple[int, ...]]]:
    """Follow a transformer with given settings and tensors, named as in its folder.

    Raises
    ------
    ModelError
        If the model type is unknown, or the tensors do not match the settings.
    """
    kind = config.word("model_type")
    if kind not in FAMILIES:
        raise ModelError(
            f"{config.where}: model_type {kind!r} is not known; known are "
            f"{', '.join(sorted(FAMILIES))}. For others {PASS_THE_MODEL}"
        )
    program = Program(named=True)
    network = Network(program, tensors, config, where)
    try:
        FAMILIES[kind](network)
        network.note_unused(kind)
        made = lower(program)
    except ModelError as error:
        if where in str(error):
            raise
        raise ModelError(f"{where}, a {kind}: {error}") from error
    return made, {name: tuple(values.shape) for name, values in tensors.items()}


def _tensors(path: Path) -> Mapping[str, Any]:
    """All tensors of a folder, as views of the memory-mapped files."""
    if (path / WEIGHTS).is_file():
        return read_safetensors(path / WEIGHTS)
    if (path / INDEX).is_file():
        return dict(_of_shards(path, INDEX, read_safetensors))
    if (path / TORCH).is_file():
        return _as_arrays(path / TORCH)
    if (path / TORCH_INDEX).is_file():
        return dict(_of_shards(path, TORCH_INDEX, _as_arrays))
    if (path / FLAX).is_file():
        return _of_flax(path / FLAX)
    raise ModelError(f"{path}: has neither {WEIGHTS} nor {INDEX} nor {TORCH}; {PASS_THE_MODEL}")


def _as_arrays(path: Path) -> dict[str, Any]:
    """The tensors of a torch.save file as arrays."""
    with reading(path, ".bin"):
        found = read_torch(regular_file(path)).items()
        return {str(name): as_array(value, str(name)) for name, value in found if is_tensor(value)}


def _of_flax(path: Path) -> dict[str, Any]:
    """The arrays of a Flax model under the names of the PyTorch version."""
    with reading(path, ".msgpack"):
        found = read_flax(regular_file(path)).items()
        return {re.sub(r"(^|\.)embedding$", r"\1weight", name): value for name, value in found}


def _of_shards(
    path: Path, name_of_index: str, read: Callable[[Path], Mapping[str, Any]]
) -> Iterator[tuple[str, Any]]:
    index = path / name_of_index
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, Mapping) or not shards:
        raise ModelError(f"{index}: has no 'weight_map' from tensors to files")
    opened: dict[str, Mapping[str, Any]] = {}
    for name, file in shards.items():
        if not isinstance(file, str) or Path(file).name != file or "\\" in file or "\0" in file:
            raise ModelError(
                f"{index}: {name!r} is said to lie in {file!r}; a shard must be the name of a "
                "file in the folder itself"
            )
        if file not in opened:
            if not (path / file).is_file():
                raise ModelError(f"{path / file}: no such file, and {index.name} needs it")
            opened[file] = read(path / file)
        if name not in opened[file]:
            raise ModelError(
                f"{path / file}: has no tensor {name!r}, which {index.name} says it has"
            )
        yield name, opened[file][name]
