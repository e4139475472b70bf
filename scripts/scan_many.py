"""Make about forty models of many kinds, some broken, scan them, and read the results.

    python scripts/scan_many.py FOLDER [--models MORE ...] [--shuffles 10]

The folder gets checkpoints of an MLP trained on scikit-learn's digits, networks of a shortened
`ncut paper run A.19`, small transformers, ONNX models, weights in several formats, and unreadable
files. `--models` adds files or folders. Afterwards pandas, polars and DuckDB read the rows, and a
second scan must find nothing to do.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import numpy as np
import onnx
import pandas
import polars
import safetensors.torch
import torch
import transformers
from onnx import TensorProto, helper
from sklearn.datasets import load_digits
from torch import nn

import ncut
from ncut import networks
from ncut.paper import Deviations, run_table

EPOCHS = 10


def digits_course(folder: Path) -> None:
    """A checkpoint before training and after each epoch, as `.pt`."""
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    images, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(labels)
    parts: list[nn.Module] = []
    for n_in, n_out in ((64, 128), (128, 128), (128, 64)):
        parts += [nn.Linear(n_in, n_out), nn.ReLU()]
    model = nn.Sequential(*parts, nn.Linear(64, 10))
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    for epoch in range(EPOCHS + 1):
        if epoch:
            for batch in torch.randperm(len(x)).split(64):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
                optimizer.step()
        torch.save(model.state_dict(), folder / f"epoch-{epoch}.pt")
    torch.save(optimizer.state_dict(), folder / "optimizer.pt")  # not a model, and skipped


def paper_networks(folder: Path) -> None:
    """Networks of polynomial regression, trained by the paper's suite."""
    options = Deviations(epochs_scale=0.001, images=64, shuffles=2)
    run_table("A.19", data=folder, out=folder, runs=1, options=options, jobs=1)


def small_transformers(folder: Path) -> None:
    """Folders as `save_pretrained` writes them."""
    torch.manual_seed(0)
    small = {"hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 128}
    layers = {"num_hidden_layers": 2, **small}
    models = {
        "bert": transformers.BertModel(transformers.BertConfig(vocab_size=99, **layers)),
        "llama": transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=99, **layers)),
        "gpt2": transformers.GPT2Model(
            transformers.GPT2Config(vocab_size=99, n_embd=64, n_layer=2, n_head=4)
        ),
        "vit": transformers.ViTModel(transformers.ViTConfig(image_size=32, patch_size=8, **layers)),
        "t5": transformers.T5ForConditionalGeneration(
            transformers.T5Config(
                vocab_size=99, d_model=64, d_ff=128, d_kv=16, num_layers=2, num_heads=4
            )
        ),
    }
    for name, model in models.items():
        model.save_pretrained(folder / name)


def onnx_models(folder: Path) -> None:
    """An MLP with the weights of a trained network, and a small CNN."""
    folder.mkdir(parents=True)
    for name in ("digits-unpruned", "digits-pruned"):
        weights = networks.load(name)
        nodes, stored = [], []
        for number, matrix in enumerate(weights):
            last = number == len(weights) - 1
            matrix = np.asarray(matrix, dtype=np.float32)
            stored.append(onnx.numpy_helper.from_array(matrix, f"w{number}"))
            x = "x" if number == 0 else f"a{number - 1}"
            out = "y" if last else f"z{number}"
            nodes.append(helper.make_node("MatMul", [x, f"w{number}"], [out]))
            if not last:
                nodes.append(helper.make_node("Relu", [out], [f"a{number}"]))
        _save_onnx(folder / f"{name}.onnx", nodes, stored, [1, 64], [1, 10])
    rng = np.random.default_rng(0)
    kernels = [
        rng.standard_normal(s, dtype=np.float32)
        for s in ((16, 3, 3, 3), (24, 16, 3, 3), (12, 24, 3, 3))
    ]
    nodes, x = [], "x"
    for number in range(len(kernels)):
        nodes.append(helper.make_node("Conv", [x, f"w{number}"], [f"z{number}"], pads=[1] * 4))
        nodes.append(helper.make_node("Relu", [f"z{number}"], [f"a{number}"]))
        x = f"a{number}"
    nodes[-1].output[0] = "y"
    stored = [onnx.numpy_helper.from_array(k, f"w{n}") for n, k in enumerate(kernels)]
    _save_onnx(folder / "cnn.onnx", nodes, stored, [1, 3, 8, 8], [1, 12, 8, 8])


def _save_onnx(
    path: Path, nodes: list[onnx.NodeProto], weights: list[TensorProto], x: list[int], y: list[int]
) -> None:
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", x), ("y", y))]
    graph = helper.make_graph(nodes, path.stem, ends[:1], ends[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)


def other_formats(folder: Path) -> None:
    """The embedded networks as `.npz`, `.pth` and `.safetensors`, and a saved graph."""
    folder.mkdir(parents=True)
    for name in ("digits-unpruned", "digits-pruned"):
        weights = {
            f"{n}.weight": np.ascontiguousarray(w.T) for n, w in enumerate(networks.load(name))
        }
        tensors = {key: torch.tensor(value) for key, value in weights.items()}
        np.savez(folder / f"{name}.npz", **{f"w{n}": w for n, w in enumerate(networks.load(name))})
        torch.save(tensors, folder / f"{name}.pth")
        safetensors.torch.save_file(tensors, folder / f"{name}.safetensors")
    ncut.graph(networks.load("digits-pruned")).save(folder / "graph.npz")


def broken_files(folder: Path) -> None:
    """Files that are truncated, hold something else, or are missing."""
    folder.mkdir(parents=True)
    torch.save({"w": torch.ones(64, 64)}, folder / "truncated.pt")
    content = (folder / "truncated.pt").read_bytes()
    (folder / "truncated.pt").write_bytes(content[: len(content) // 2])
    (folder / "text.onnx").write_text("this is not a model\n")
    (folder / "empty.npz").write_bytes(b"")
    np.savez(folder / "one-layer.npz", w=np.ones((4, 3)))
    np.savez(folder / "nan.npz", w0=np.full((9, 9), np.nan), w1=np.ones((9, 9)))
    torch.save(nn.Linear(4, 3), folder / "pickled-module.pt")
    (folder / "no-weights").mkdir()
    (folder / "no-weights" / "config.json").write_text(json.dumps({"model_type": "bert"}))


def main() -> None:
    """Make, scan, read, scan again."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", type=Path, nargs="*", default=[])
    parser.add_argument("--shuffles", type=int, default=10)
    args = parser.parse_args()
    made = args.folder / "models"
    digits_course(made / "digits")
    paper_networks(args.folder / "paper")
    shutil.copytree(args.folder / "paper" / "networks", made / "paper")
    small_transformers(made / "transformers")
    onnx_models(made / "onnx")
    other_formats(made / "formats")
    broken_files(made / "broken")
    (args.folder / "list.txt").write_text("# what is listed need not be there\nmodels/missing.pt\n")

    results = args.folder / "results"
    command = [sys.executable, "-m", "ncut", "scan", made, args.folder / "list.txt", *args.models]
    command += ["--out", results, "--shuffles", str(args.shuffles), "-k", "4"]
    first = subprocess.run(command, capture_output=True, text=True)
    print(first.stdout)
    print(first.stderr, file=sys.stderr)
    n_broken = len([*(made / "broken").iterdir()]) + 1
    if first.returncode != 1:  # as some models failed
        sys.exit(f"the scan ended with {first.returncode}")

    files = str(results / "models" / "*.parquet")
    by_pandas = pandas.read_parquet(results / "models")
    by_polars = polars.read_parquet(files)
    by_duckdb = duckdb.sql(
        f"select status, count(*), avg(ncut) from '{files}' group by 1"
    ).fetchall()
    print("DuckDB:", by_duckdb)
    counts = by_pandas["status"].value_counts().to_dict()
    mean = by_pandas["ncut"].mean()
    assert counts["failed"] == n_broken, counts
    assert len(by_pandas) >= 30
    assert counts["done"] == len(by_pandas) - n_broken
    assert by_polars.height == len(by_pandas)
    assert np.isclose(by_polars["ncut"].mean(), mean)
    assert {status: n for status, n, _ in by_duckdb} == counts
    assert np.isclose(next(m for status, _, m in by_duckdb if status == "done"), mean)

    again = subprocess.run([*command, "--jobs", "1"], capture_output=True, text=True)
    assert again.returncode == 1
    assert pandas.read_parquet(results / "models").equals(by_pandas), "a second scan did something"
    print(
        f"{counts['done']} models measured and {n_broken} refused; a second scan had nothing to do"
    )


if __name__ == "__main__":
    main()
