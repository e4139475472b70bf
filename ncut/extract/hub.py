"""Fetches settings and weights of Hugging Face Hub models, `hf:org/name[@revision]`."""

from __future__ import annotations

import re
from pathlib import Path

from ncut.errors import InputError, ModelError, import_extra

PREFIX = "hf:"
CONFIGS = ["config.json", "adapter_config.json"]
WEIGHTS = (
    ["model*.safetensors", "model.safetensors.index.json", "adapter_model.safetensors"],
    ["pytorch_model*.bin", "pytorch_model.bin.index.json"],
)
"""Files to fetch, in order of preference."""

_NAME = re.compile(
    r"hf:(?P<repo>[\w.-]+(/[\w.-]+)?)(/(?P<file>[\w./-]+\.\w+))?(@(?P<revision>[\w./-]+))?"
)


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
        `"hf:org/name"`, `"hf:org/name@revision"`, or `"hf:org/name/file.gguf"` for one file.

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
    if said is None:
        raise InputError(
            f"model: {model!r} is no name on the Hub; write hf:org/name, hf:org/name@revision "
            "or hf:org/name/file.gguf"
        )
    hub = import_extra("huggingface_hub", "hub")
    repo, file, revision = said["repo"], said["file"], said["revision"]
    try:
        if file is not None:
            return Path(hub.hf_hub_download(repo, file, revision=revision)), Path(file).stem
        for patterns in WEIGHTS:
            folder = Path(
                hub.snapshot_download(
                    repo,
                    revision=revision,
                    allow_patterns=[*CONFIGS, *patterns],
                    ignore_patterns=["*/*"],
                )
            )
            if any(found for pattern in patterns for found in folder.glob(pattern)):
                return folder, repo.rpartition("/")[2]
    except Exception as error:  # from the network, the Hub's answers or the cache
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"model: {model} cannot be had from the Hub: {reason[:300]}") from error
    raise ModelError(
        f"{model}: has no {WEIGHTS[0][0]} and no {WEIGHTS[1][0]}; name one of its files, "
        f"hf:{repo}/FILE"
    )
