"""The files of a folder: its settings, its tensors, and the family that connects them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ncut.errors import ModelError
from ncut.extract.assemble import check_options
from ncut.extract.files import read_safetensors
from ncut.extract.folder.blocks import Network
from ncut.extract.folder.config import Config, read_json
from ncut.extract.folder.families import FAMILIES
from ncut.extract.lowering import lower
from ncut.extract.program.record import Program
from ncut.extract.wiring import Wiring

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"

PASS_THE_MODEL = (
    "load the model with the package transformers and pass the model object: "
    "ncut.graph(AutoModel.from_pretrained(folder))"
)


def read_folder(
    path: Path, *, residual: str | None = None
) -> tuple[Wiring, dict[str, tuple[int, ...]]]:
    """Follow the forward pass of a transformer that `save_pretrained` wrote.

    The model is not built, and nothing in the folder is executed: `config.json` says of which
    kind it is and how many layers and heads it has, the tensors stay in the memory-mapped files
    until their edges are made.

    Parameters
    ----------
    path : Path
        A folder with `config.json` and `model.safetensors`, or the shards that
        `model.safetensors.index.json` names.
    residual : {"readers", "stream"}, optional
        What sums are, by default streams.

    Returns
    -------
    wiring : Wiring
        What its forward pass does.
    shapes : dict from str to tuple of int
        Shapes of all tensors of the folder, by name.

    Raises
    ------
    InputError
        If there is no such convention of sums.
    ModelError
        If a file is missing, cannot be read or lies outside of the folder, the kind of model is
        not known, or the tensors are not those that the settings call for.
    """
    path = Path(path)
    check_options(residual=residual)
    if not path.is_dir():
        raise ModelError(f"{path}: no such folder")
    if not (path / CONFIG).is_file():
        raise ModelError(
            f"{path}: is a folder without {CONFIG}; pass a file of weights, or a folder that "
            "save_pretrained of the package transformers wrote"
        )
    config = Config(read_json(path / CONFIG), str(path / CONFIG))
    kind = config.word("model_type")
    if kind not in FAMILIES:
        raise ModelError(
            f"{path / CONFIG}: model_type {kind!r} is not known; known are "
            f"{', '.join(sorted(FAMILIES))}. For others {PASS_THE_MODEL}"
        )
    tensors = _tensors(path)
    program = Program()
    network = Network(program, tensors, config, str(path))
    try:
        FAMILIES[kind](network)
        network.note_unused(kind)
        wiring = lower(program, residual or "stream")
    except ModelError as error:
        if str(path) in str(error):
            raise
        raise ModelError(f"{path}, a {kind}: {error}") from error
    return wiring, {name: tuple(values.shape) for name, values in tensors.items()}


def _tensors(path: Path) -> dict[str, NDArray[Any]]:
    """All tensors of a folder, as views of the mapped files."""
    if (path / WEIGHTS).is_file():
        return read_safetensors(path / WEIGHTS)
    if not (path / INDEX).is_file():
        raise ModelError(f"{path}: has neither {WEIGHTS} nor {INDEX}; {PASS_THE_MODEL}")
    return dict(_of_shards(path))


def _of_shards(path: Path) -> Iterator[tuple[str, NDArray[Any]]]:
    index = path / INDEX
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, Mapping) or not shards:
        raise ModelError(f"{index}: has no 'weight_map' from tensors to files")
    opened: dict[str, dict[str, NDArray[Any]]] = {}
    for name, file in shards.items():
        if not isinstance(file, str) or Path(file).name != file or "\\" in file or "\0" in file:
            raise ModelError(
                f"{index}: {name!r} is said to lie in {file!r}; a shard must be the name of a "
                "file in the folder itself"
            )
        if file not in opened:
            if not (path / file).is_file():
                raise ModelError(f"{path / file}: no such file, and {INDEX} needs it")
            opened[file] = read_safetensors(path / file)
        if name not in opened[file]:
            raise ModelError(f"{path / file}: has no tensor {name!r}, which {INDEX} says it has")
        yield name, opened[file][name]
