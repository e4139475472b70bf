"""Models by their name on the Hub, of a small server of its protocol on this machine."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from forking import Commands

import ncut
from ncut.errors import InputError, ModelError

pytest.importorskip("huggingface_hub", reason="pip install huggingface_hub")
torch = pytest.importorskip("torch", reason="pip install torch")
transformers = pytest.importorskip("transformers", reason="pip install transformers")

SHA = "a" * 40


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path, list[str]]]:
    """A server of one repository: its address, the folder of its files, and the requests."""
    folder = tmp_path_factory.mktemp("repo")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=12,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    (folder / "modeling_evil.py").write_text("raise SystemExit")
    shutil.copytree(folder, folder / "text_encoder")
    (folder / "text_encoder" / "model.fp16.safetensors").write_bytes(b"x")
    for name in ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors"):
        (folder / "unet").mkdir(exist_ok=True)
        (folder / "unet" / name).write_bytes(b"x")
    (folder / "unet" / "config.json").write_text("{}")
    (folder / "pipe").mkdir()
    (folder / "pipe" / "model_index.json").write_text(json.dumps({
        "_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"], "safety_checker": [None, None],
        "vae": [], "text_encoder": ["transformers"], "scheduler": None,
    }))  # fmt: skip
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.onnx").write_bytes(b"x")
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            asked.append(self.path)
            files = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
            if self.path.startswith("/api/models/org/tiny/tree/"):
                tree = [{"type": "file", "path": name, "size": (folder / name).stat().st_size,
                         "oid": "b" * 40} for name in files]  # fmt: skip
                self.answer(200, json.dumps(tree).encode(), "application/json")
            elif self.path.startswith("/api/models/org/tiny"):
                content = json.dumps({
                    "id": "org/tiny", "sha": SHA, "private": False, "downloads": 0, "tags": [],
                    "siblings": [{"rfilename": name} for name in files],
                }).encode()  # fmt: skip
                self.answer(200, content, "application/json")
            elif self.path.startswith(f"/org/tiny/resolve/{SHA}/"):
                content = (folder / self.path.split(f"{SHA}/")[1]).read_bytes()
                self.answer(200, content, "application/octet-stream")
            else:
                self.answer(404, b"", "text/plain", {"X-Error-Code": "RepoNotFound"})

        def answer(self, code: int, content: bytes, kind: str, more: Any = None) -> None:
            self.send_response(code)
            etag = hashlib.sha256(content).hexdigest()
            for name, value in {
                "Content-Length": len(content), "Content-Type": kind, "ETag": f'"{etag}"',
                "X-Repo-Commit": SHA, **(more or {}),
            }.items():  # fmt: skip
                self.send_header(name, str(value))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", folder, asked
    server.shutdown()
    server.server_close()


def test_a_model_of_the_hub_is_fetched_and_kept(
    hub: Any, commands: Commands, tmp_path: Path
) -> None:
    def run(model: str, address: str, **more: str) -> CompletedProcess[str]:
        places = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path), "NO_PROXY": "127.0.0.1"}
        places["HF_HUB_DISABLE_XET"] = "1"
        return commands.run("info", model, cwd=tmp_path, **places, **more)

    address, folder, asked = hub
    done = run("hf:org/tiny", address)
    assert done.returncode == 0, done.stderr
    assert f"{ncut.graph(folder).n_edges:,}" in done.stdout
    fetched = {path.split("/")[-1] for path in asked if "/resolve/" in path}
    assert fetched == {"config.json", "model.safetensors"}
    asked.clear()
    again = run("hf:org/tiny", "http://127.0.0.1:1", HF_HUB_OFFLINE="1")
    assert again.returncode == 0, again.stderr
    assert again.stdout == done.stdout
    missing = run("hf:org/other", address)
    assert missing.returncode == 1
    assert "hf:org/other cannot be loaded from the Hub" in missing.stderr


def test_folders_inside_a_repository(hub: Any, commands: Commands, tmp_path: Path) -> None:
    address, folder, asked = hub
    places = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path), "NO_PROXY": "127.0.0.1",
              "HF_HUB_DISABLE_XET": "1"}  # fmt: skip

    def fetched_by(*arguments: str) -> tuple[CompletedProcess[str], set[str]]:
        asked.clear()
        done = commands.run("info", *arguments, cwd=tmp_path, **places)
        return done, {path.split(f"{SHA}/")[1] for path in asked if "/resolve/" in path}

    done, files = fetched_by("hf:org/tiny/text_encoder", "--part", "mlp")
    assert done.returncode == 0, done.stderr
    assert files == {"text_encoder/config.json", "text_encoder/model.safetensors"}
    assert f"{ncut.graph(folder, part='mlp').n_edges:,}" in done.stdout
    done, files = fetched_by("hf:org/tiny/unet")
    assert files == {"unet/config.json", "unet/diffusion_pytorch_model.safetensors"}
    done, files = fetched_by("hf:org/tiny/pipe")
    assert "is a pipeline; name one of its parts, such as hf:org/tiny/pipe/unet" in done.stderr
    assert files == {"pipe/model_index.json"}


def test_invalid_names_and_hub_names_without_prefix_are_refused() -> None:
    for name in ("hf:", "hf:a/b@", "hf:a/../b/c", "hf:a/b/../c", "hf:a/b/./c", "hf:a b"):
        with pytest.raises(InputError, match="is no name on the Hub; write hf:org/name"):
            ncut.graph(name)
    for name in ("bert-base-uncased", "sentence-transformers/all-MiniLM-L6-v2"):
        with pytest.raises(ModelError, match=f"no such file; .* Hub is hf:{name}"):
            ncut.graph(name)
