"""Fetches settings and weights of Hugging Face Hub models, `hf:org/name[@revision]`."""

from __future__ import annotations

import re
from pathlib import Path

from ncut.errors import InputError, ModelError, import_extra
from ncut.extract.readers.folder.config import read_json

PREFIX = "hf:"
CONFIGS = ("config.json", "adapter_config.json")
PIPELINE = "model_index.json"
"""File with the parts of a diffusers pipeline."""
WEIGHTS = (
    ("model.safetensors", "model-*.safetensors", "model.safetensors.index.json",
     "adapter_model.safetensors", "diffusion_pytorch_model.safetensors",
     "diffusion_pytorch_model-*.safetensors", "diffusion_pytorch_model.safetensors.index.json"),
    ("diffusion_pytorch_model.fp16.safetensors",),
    ("pytorch_model.bin", "pytorch_model-*.bin", "pytorch_model.bin.index.json"),
)  # fmt: skip
"""Files to fetch, in order of preference."""

_NAME = re.compile(
    r"hf:(?P<repo>[\w.-]+(/[\w.-]+)?)(/(?P<inside>[\w./-]+))?(@(?P<revision>[\w./-]+))?"
)
_FILE = re.compile(r".*\.\w+")


def is_on_hub(model: object) -> bool:
    """Check whether a model is a name on the Hub."""
    return str(model).startswith(PREFIX)


def fetched(model: str) -> tuple[Path, str]:
    """Fetch a model, or find it in the cache; returns its folder or file, and its name.

    Files are cached by the package huggingface_hub, with its environment variables for the
    location (`HF_HOME`), offline mode (`HF_HUB_OFFLINE`) and access token (`HF_TOKEN`). No code
    of the repository is fetched.

    Parameters
    ----------
    model : str
        `"hf:org/name"`, `"hf:org/name@revision"`, `"hf:org/name/file.gguf"` for one file, or
        `"hf:org/name/unet"` for a folder of it, such as a part of a pipeline.

    Raises
    ------
    InputError
        If the name is invalid, or the Hub has no such model, revision or file, or denies access.
    ModelError
        If the repository has no weights in a supported format.
    MissingExtraError
        If the package huggingface_hub is not installed.
    """
    said = _NAME.fullmatch(model)
    steps = [] if said is None else [said["repo"].split("/"), (said["inside"] or "a").split("/")]
    if said is None or any(not step.strip(".") for part in steps for step in part):
        raise InputError(
            f"model: {model!r} is no name on the Hub; write hf:org/name, hf:org/name@revision, "
            "hf:org/name/folder or hf:org/name/file.gguf"
        )
    hub = import_extra("huggingface_hub", "hub")
    repo, inside, revision = said["repo"], said["inside"], said["revision"]
    home = f"{inside}/" if inside else ""
    try:
        if inside is not None and _FILE.fullmatch(inside):
            return Path(hub.hf_hub_download(repo, inside, revision=revision)), Path(inside).stem
        for patterns in WEIGHTS:
            folder = Path(
                hub.snapshot_download(
                    repo,
                    revision=revision,
                    allow_patterns=[f"{home}{name}" for name in (*CONFIGS, PIPELINE, *patterns)],
                    ignore_patterns=[f"{home}*/*"],
                )
            )
            if any(found for pattern in patterns for found in folder.glob(f"{home}{pattern}")):
                name = repo.rpartition("/")[2]
                return folder / home, f"{name}/{inside}" if inside else name
    except Exception as error:  # from the network, the Hub's answers or the cache
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"model: {model} cannot be loaded from the Hub: {reason[:300]}") from error
    if (folder / home / PIPELINE).is_file():
        raise ModelError(
            f"{model}: is a pipeline; name one of its parts, such as "
            f"{', '.join(_parts(folder / home / PIPELINE, f'hf:{repo}/{home}'))}"
        )
    raise ModelError(
        f"{model}: has no {WEIGHTS[0][0]} and no {WEIGHTS[2][0]}; name one of its files, "
        f"hf:{repo}/FILE"
    )


def _parts(path: Path, before: str) -> list[str]:
    """The names of a pipeline's parts with weights."""
    found = [
        name
        for name, said in read_json(path).items()
        if isinstance(said, list) and len(said) == 2 and said[0] in ("diffusers", "transformers")
        and not str(said[1]).endswith(("Scheduler", "Tokenizer", "TokenizerFast", "Processor"))
    ]  # fmt: skip
    return [f"{before}{name}" for name in found] or ["unet"]
