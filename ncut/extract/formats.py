"""Supported formats, recognized by a file's content before its name."""

from __future__ import annotations

import importlib
import os
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ncut.errors import ModelError, import_extra
from ncut.extract.options import Options
from ncut.extract.readers.checkpoint import state_dict_of
from ncut.extract.readers.folder.config import read_json
from ncut.extract.readers.orbax_folder import is_orbax
from ncut.files import reading, regular_file
from ncut.graphs import NeuronGraph

if TYPE_CHECKING:
    from ncut.extract.lowering.wiring import Wiring

HEAD = 64
"""Number of leading bytes that identify a file's format."""

FILE_OPTIONS = ("layers", "residual", "unknown", "example_inputs", "key")
"""Options that apply to some formats only."""

_CHAIN = ("layers", "key")


class Followed(NamedTuple):
    """The record of a forward pass, and the shapes of all parameters by name.

    `others` are tensors that count as parameters if the graph has their numbers.
    """

    wiring: Wiring
    parameters: Mapping[str, tuple[int, ...]]
    others: Mapping[str, tuple[int, ...]] = {}

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of all parameters."""
        placed = (name for name in self.wiring.placed if name not in self.parameters)
        more = {name: self.others[name] for name in placed if name in self.others}
        return {**self.parameters, **more}


Content = Followed | NeuronGraph | Mapping[str, Any]
"""Result of a reader; named arrays become a chain."""


@dataclass(frozen=True, slots=True)
class Format:
    """A supported format."""

    name: str  # its name, as in "cannot be read as ..."
    suffixes: tuple[str, ...]  # suffixes of its files; none for folders
    extra: str  # the extra of ncut with its dependencies; empty if it has none
    about: str  # one line on the supported content
    what: str  # description of such a file in messages
    takes: tuple[str, ...]  # the applicable `FILE_OPTIONS`
    reader: str  # its module in `ncut.extract.readers`, imported on use, and its function there
    ordered: bool = True  # whether the order of its arrays is meaningful
    keyed: bool = False  # whether the reader itself selects the arrays under `key`

    def read(self, path: Path, options: Options) -> Content:
        """The content of a file or folder: a followed forward pass, a graph, or named arrays."""
        if self.extra == "torch":
            import_extra("torch", "torch")
        module, function = self.reader.split(":")
        read = getattr(importlib.import_module(f"ncut.extract.readers.{module}"), function)
        if self.takes == _CHAIN:
            return read(path, options.key) if self.keyed else read(path)  # type: ignore[no-any-return]
        given = {name: getattr(options, name) for name in self.takes if name != "residual"}
        return Followed(*read(path, options.lower, **given))


@dataclass(frozen=True, slots=True)
class Refused:
    """An unsupported format, and its conversion."""

    name: str
    marks: tuple[str, ...]  # suffixes of its files, and names of files in its folders
    way: str  # instructions for conversion

    def error(self, path: Path) -> ModelError:
        """The refusal of a file."""
        return ModelError(f"{path}: {self.name} is not read; {self.way}")


# --- formats ------------------------------------------------------------------------------------

_ARRAYS = "a file of named arrays"
_A_FOLDER = "a folder, whose config.json tells how its layers are connected"

FOLDER = Format(
    "a folder of a Hugging Face transformer", (), "",
    "config.json and .safetensors (also quantized), pytorch_model.bin or flax_model.msgpack",
    _A_FOLDER, ("residual",), "folder:read_folder",
)  # fmt: skip
ADAPTER = Format(
    "a LoRA adapter of PEFT", (), "", "adapter_config.json with its base, a folder beside it",
    _A_FOLDER, ("residual",), "adapter:read_adapter",
)  # fmt: skip
ONNX = Format(
    "ONNX", (".onnx",), "onnx", "float, half, int8, int4",
    "an ONNX model, which tells how its layers are connected",
    ("residual", "unknown", "example_inputs"), "onnx_model:read_onnx",
)  # fmt: skip
KERAS = Format(
    "Keras", (".keras", ".h5", ".hdf5"), "keras",
    "sequential and functional models of Keras 2 and 3, or their weights as a chain",
    "a Keras model", ("residual", "unknown", "layers"), "keras_file:read_keras",
)  # fmt: skip
GGUF = Format(
    "GGUF", (".gguf",), "gguf",
    "llama, qwen2, qwen3, gemma, gemma2, gemma3, phi3, mistral, mixtral; all quantizations",
    "a GGUF file, which tells how its layers are connected", ("residual",), "gguf_file:read_gguf",
)  # fmt: skip
TORCH = Format(
    "PyTorch", (".pt", ".pth", ".ckpt", ".bin"), "torch",
    "a state dict or a checkpoint that has one, as a chain of layers", _ARRAYS, _CHAIN,
    "files:read_torch", keyed=True,
)  # fmt: skip
TORCHSCRIPT = Format(
    "TorchScript", (".jit", ".torchscript", ".ts"), "",
    "its weights, as a chain of layers; its program is never run", _ARRAYS, _CHAIN,
    "torchscript:read_torchscript",
)  # fmt: skip
EXPORTED = Format(
    "a program of torch.export", (".pt2",), "torch",
    "its graph of ATen operations; nothing is unpickled or compiled",
    "a program of torch.export, which tells how its layers are connected",
    ("residual", "unknown"), "exported:read_exported",
)  # fmt: skip
TFJS = Format(
    "a layers-model of TensorFlow.js", ("model.json",), "",
    "model.json and the files beside it: sequential and functional models of Keras",
    "a model of TensorFlow.js", ("residual", "unknown"), "tfjs:read_tfjs",
)  # fmt: skip
FLAX = Format(
    "Flax", (".msgpack",), "flax", "parameters and statistics of norms, as a chain of layers",
    _ARRAYS, _CHAIN, "flax_file:read_flax", ordered=False, keyed=True,
)  # fmt: skip
ORBAX = Format(
    "an Orbax checkpoint", (), "orbax", "parameters and statistics of norms, as a chain of layers",
    "a folder of named arrays", _CHAIN, "orbax_folder:read_orbax", ordered=False, keyed=True,
)  # fmt: skip
DIFFUSERS = Format(
    "a part of a diffusers pipeline", (), "diffusers",
    "UNet2DConditionModel, UNet2DModel, AutoencoderKL, DiTTransformer2DModel, each in its folder",
    _A_FOLDER, ("residual", "unknown"), "diffusers_folder:read_part",
)  # fmt: skip
TFLITE = Format(
    "TensorFlow Lite", (".tflite",), "tflite",
    "float32, float16, int8 and int4 with their scales, dense or sparse",
    "a model of TensorFlow Lite, which tells how its layers are connected",
    ("residual", "unknown"), "tflite_file:read_tflite",
)  # fmt: skip
CIRCUITS = Format(
    "a weight-sparse GPT of openai/circuit_sparsity", (), "torch",
    "a folder with beeg_config.json and final_model.pt", _A_FOLDER, ("residual",),
    "folder:read_folder",
)  # fmt: skip
SAFETENSORS = Format(
    "safetensors", (".safetensors",), "", "named tensors, as a chain of layers", _ARRAYS, _CHAIN,
    "files:read_safetensors", ordered=False,
)  # fmt: skip
NPZ = Format(
    "NumPy", (".npz",), "", "named arrays, as a chain of layers, or what NeuronGraph.save wrote",
    _ARRAYS, _CHAIN, "files:read_npz",
)  # fmt: skip

FORMATS = (
    *(NPZ, TORCH, TORCHSCRIPT, EXPORTED, SAFETENSORS, ONNX, KERAS, TFLITE, TFJS, FLAX, GGUF),
    *(FOLDER, ADAPTER, CIRCUITS, DIFFUSERS, ORBAX),
)
"""All supported formats."""

_OF_BEFORE = "pass the model that it was converted from"

REFUSED = (
    Refused("a single array", (".npy",), "pass the list of all weight files in order, in Python"),
    Refused(
        "a pickle of Python objects", (".pkl", ".pickle", ".joblib"),
        "load it yourself if you trust it, and pass the model or its arrays in Python",
    ),
    Refused(
        "a TensorFlow SavedModel", (".pb", "saved_model.pb"),
        "convert it to ONNX: python -m tf2onnx.convert --saved-model FOLDER --output model.onnx",
    ),
    Refused(
        "a TensorFlow checkpoint", (".index", ".meta"),
        "load it into the Keras model and save that: model.save('model.keras')",
    ),
    Refused("a diffusers pipeline", ("model_index.json",),
            "name the folder of one of its parts, such as FOLDER/unet or FOLDER/text_encoder"),
    Refused("Core ML", (".mlmodel", ".mlpackage", ".mlmodelc"), _OF_BEFORE),
    Refused("OpenVINO", (".xml", "openvino_model.xml"), _OF_BEFORE),
    Refused("CTranslate2", ("shared_vocabulary.json", "shared_vocabulary.txt"), _OF_BEFORE),
    Refused("ONNX Runtime's own format", (".ort",), _OF_BEFORE),
    Refused("ExecuTorch", (".pte",), _OF_BEFORE),
    Refused("a TensorRT engine", (".engine", ".plan", ".trt"), _OF_BEFORE),
    Refused(
        "PaddlePaddle", (".pdmodel", ".pdiparams", ".pdparams"),
        "convert it to ONNX: paddle2onnx --model_dir FOLDER --save_file model.onnx",
    ),
    Refused("ncnn", (".param",), _OF_BEFORE),
    Refused("MNN", (".mnn",), _OF_BEFORE),
    Refused("RKNN", (".rknn",), _OF_BEFORE),
    Refused("Caffe", (".caffemodel", ".prototxt"), "convert it to ONNX"),
    Refused("NeMo", (".nemo",), "unpack it (tar -xf FILE) and pass the .ckpt file inside"),
    Refused("TorchServe", (".mar",), "unpack it (unzip FILE) and pass the .pt file inside"),
)  # fmt: skip
"""Unsupported formats, and their conversions."""


# --- detection ----------------------------------------------------------------------------------

_LEGACY_TORCH = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""First bytes of torch.save files that are not zip archives: the pickled magic number."""


def format_of(path: Path) -> Format:
    """The format of a file or folder, by its content, or by its suffix if the content is ambiguous.

    Raises
    ------
    ModelError
        If the path is unreadable, or the format is not supported.
    """
    if os.path.isdir(path):
        return _of_folder(path)
    existing(path)
    found = _by_content(path) or _by_suffix(path)
    if isinstance(found, Refused):
        raise found.error(path)
    if found is None:
        suffixes = [suffix for known in FORMATS for suffix in known.suffixes]
        raise ModelError(
            f"{path}: cannot read this kind of file; known are {', '.join(suffixes)} and folders "
            "with a config.json. `ncut formats` lists what is read, and ways to convert the rest"
        )
    return found


_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


def existing(path: Path) -> None:
    """Raise ModelError if the path does not exist, with the syntax of a model on the Hub."""
    name = path.as_posix()
    known = [suffix for found in FORMATS for suffix in found.suffixes]
    if (
        not os.path.lexists(path)
        and _HUB_NAME.fullmatch(name)
        and path.suffix.lower() not in (*known, *(m for r in REFUSED for m in r.marks))
    ):
        raise ModelError(f"{name}: no such file; a model of the Hugging Face Hub is hf:{name}")
    regular_file(path)


def _of_folder(path: Path) -> Format:
    if os.path.isfile(path / "adapter_config.json"):
        return ADAPTER
    if os.path.isfile(path / "beeg_config.json"):
        return CIRCUITS
    if os.path.isfile(path / "model.json") and not os.path.isfile(path / "config.json"):
        return TFJS
    if not os.path.isfile(path / "config.json"):
        if is_orbax(path):
            return ORBAX
        for refused in REFUSED:
            marks = [mark for mark in refused.marks if not mark.startswith(".")]
            if any(os.path.lexists(path / mark) for mark in marks):
                raise refused.error(path)
        return FOLDER
    return DIFFUSERS if "_class_name" in read_json(path / "config.json") else FOLDER


def _by_suffix(path: Path) -> Format | Refused | None:
    marks = {path.suffix.lower(), path.name}
    for found in FORMATS:
        if marks.intersection(found.suffixes):
            return found
    return next((refused for refused in REFUSED if marks.intersection(refused.marks)), None)


def _by_content(path: Path) -> Format | Refused | None:
    """The format by the first bytes or an archive's members; None if they are ambiguous."""
    with path.open("rb") as file:
        head = file.read(HEAD)
    if head.startswith(b"PK\x03\x04"):
        return _by_members(path)
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return KERAS
    if head.startswith(b"GGUF"):
        return GGUF
    if head.startswith(_LEGACY_TORCH):
        return TORCH
    if head[4:8] == b"TFL3":
        return TFLITE
    if head[4:8] == b"ORTM" or head.startswith(b"\x93NUMPY"):
        return _by_suffix(Path("x.ort" if head[4:8] == b"ORTM" else "x.npy"))
    if head[8:9] == b"{" and 0 < int.from_bytes(head[:8], "little") <= path.stat().st_size - 8:
        return SAFETENSORS
    return None


def _by_members(path: Path) -> Format | Refused | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError):
        return None
    inside = {name.partition("/")[2] for name in names} | set(names)
    if "archive_format" in inside or "serialized_exported_program.json" in inside:
        return EXPORTED
    if "data.pkl" in inside:
        return TORCHSCRIPT if "constants.pkl" in inside else TORCH
    if "config.json" in names and "model.weights.h5" in names:
        return KERAS
    return NPZ if names and all(name.endswith(".npy") for name in names) else None


def read_named(path: Path, key: str | None = None) -> NeuronGraph | Mapping[str, Any]:
    """The named arrays of a file, or the graph in a file of `NeuronGraph.save`.

    Raises
    ------
    ModelError
        If the file is missing, of another kind, damaged, expands in memory beyond plausible
        weights, or holds objects that only running code could restore.
    """
    with reading(path, path.suffix.lower() or "weights"):
        found = format_of(path)
        content = found.read(path, Options(key=key))
        if isinstance(content, Followed):
            raise ModelError(f"{path}: holds a whole model; expected named arrays")
        if isinstance(content, NeuronGraph) or found.keyed:
            return content
        return state_dict_of(content, path, key)
