"""The promises of SECURITY.md: every line of its table names existing tests."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]

TOUCHED = """
import json, os, sys
seen = []
def hook(event, arguments):
    if event in ("open", "os.listdir", "os.scandir"):
        seen.append(str(arguments[0]))
    if event.startswith("socket.") and event not in ("socket.__new__", "socket.gethostname"):
        seen.append("network: " + event)
    if event in ("os.system", "os.exec", "os.posix_spawn", "pty.spawn"):
        seen.append("program: " + str(arguments[0]))
sys.addaudithook(hook)
"""


def touched(code: str, *arguments: object) -> list[str]:
    """Files, connections and processes that a fresh interpreter opens while it runs some code."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c",
         f"{TOUCHED}\n{code}\nprint('@@' + json.dumps(seen))", *map(str, arguments)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stdout.split("@@")[-1])
    return found


def test_each_promise_names_tests_that_exist() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ") and "tests/" in line]
    assert len(rows) >= 8
    for row in rows:
        for file, name in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", row):
            tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
            names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
            assert not name or name in names, f"{file} has no test {name}"


ANALYSIS = """
import ncut
for path in sys.argv[1:]:
    report = ncut.analyze(path, k=2, shuffles=2)
    report.to_json(path + ".json")
ncut.scan([*sys.argv[1:]], sys.argv[1] + ".out", k=2, shuffles=1, backend="threading")
try:
    report.to_html(path + ".html")
except ncut.MissingExtraError:
    pass
"""


def test_no_network_and_no_program(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", np.ones((9, 8)) + np.eye(9, 8), np.ones((8, 5)) + np.eye(8, 5))
    keras = ROOT / "tests/extract/keras_files/perceptron.keras"
    (tmp_path / keras.name).write_bytes(keras.read_bytes())
    found = touched(ANALYSIS, tmp_path / "a.npz", tmp_path / keras.name)
    assert not [one for one in found if one.startswith("network: ")]
    programs = [one for one in found if one.startswith("program: ")]
    assert all(sys.executable in one for one in programs)  # the one that tries HDF5


def outside(kind: str, folder: Path, secret: Path) -> Path:
    """A model that says that its weights lie in a file elsewhere."""
    if kind == "folder":
        from safetensors.numpy import save_file

        (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
        index = {"weight_map": {"a.weight": f"../{secret.parent.name}/{secret.name}"}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        save_file({"a.weight": np.ones((3, 3), "f4")}, secret)
        return folder
    if kind == "onnx":
        from onnx import TensorProto, helper, save

        secret.write_bytes(bytes(4 * 12))
        tensor = TensorProto(name="w", dims=[4, 3], data_type=1, data_location=1)
        tensor.external_data.add(key="location", value=f"../{secret.parent.name}/{secret.name}")
        ends = [helper.make_tensor_value_info(n, 1, [1, s]) for n, s in (("x", 4), ("y", 3))]
        nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
        graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [tensor])
        save(helper.make_model(graph), folder / "a.onnx")
        return folder / "a.onnx"
    import h5py

    with h5py.File(secret, "w") as file:
        file["x"] = np.ones((4, 3))
    path = folder / "a.weights.h5"
    with h5py.File(path, "w") as file:
        file["layers/dense/vars/0"] = h5py.ExternalLink(str(secret), "x")
    if kind == "keras":
        with zipfile.ZipFile(folder / "a.keras", "w") as archive:
            archive.writestr("config.json", json.dumps({"class_name": "Sequential"}))
            archive.write(path, "model.weights.h5")
        return folder / "a.keras"
    return path


@pytest.mark.parametrize("kind", ["folder", "onnx", "hdf5", "keras"])
def test_nothing_is_read_outside_of_the_models_folder(kind: str, tmp_path: Path) -> None:
    for package in ("onnx", "h5py"):
        pytest.importorskip(package, reason="pip install 'ncut[onnx,keras]'")
    folder, elsewhere = tmp_path / "model", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    path = outside(kind, folder, elsewhere / "secret")
    code = (
        "import ncut\ntry:\n    ncut.graph(sys.argv[1])\nexcept ncut.ModelError:\n    pass\n"
        "else:\n    raise SystemExit('it was read')"
    )
    assert not [one for one in touched(code, path) if "elsewhere" in one]


def test_the_watch_on_files_network_and_programs_sees_them(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("")
    found = touched(
        "import socket\nopen(sys.argv[1]).close()\n"
        "try:\n    socket.create_connection(('127.0.0.1', 9), 0.1)\nexcept OSError:\n    pass\n"
        "os.system('true')",
        tmp_path / "secret",
    )
    assert str(tmp_path / "secret") in found
    assert "network: socket.connect" in found
    assert any(one.startswith("program: ") for one in found)
