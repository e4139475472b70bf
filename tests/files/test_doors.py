"""No file is read but behind the guard, and none is written but by the one function."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import ncut

PACKAGE = Path(ncut.__file__).parent

READS = {
    *("open", "read_text", "read_bytes", "np.load", "torch.load", "np.memmap", "np.fromfile"),
    *("load_model", "safe_open", "File", "ZipFile", "dataset", "read_table", "read_parquet"),
    *("read_csv", "decompress", "fdopen", "loadtxt", "genfromtxt", "mmap"),
}
WRITES = {
    *("write_text", "write_bytes", "savez", "savez_compressed", "save_file", "savefig", "tofile"),
    *("np.save", "torch.save", "replace", "rename", "truncate", "unlink", "rmtree", "_write"),
    *("write_table", "to_parquet", "dump", "mkstemp", "NamedTemporaryFile", "TemporaryFile"),
}

# Where files are opened, and the file whose `reading(...)` stands around it.
DOORS = {
    "files/guard.py": "files/guard.py",
    "graphs/storage.py": "graphs/storage.py",
    "extract/files.py": "extract/files.py",
    "extract/formats.py": "extract/formats.py",
    "extract/torchscript.py": "extract/read.py",
    "extract/exported.py": "extract/read.py",
    "extract/folder/config.py": "extract/read.py",
    "extract/onnx_graph/model.py": "extract/onnx_model.py",
    "extract/keras/storage.py": "extract/keras_file.py",
    "extract/keras/probe.py": "",  # a process whose errors do not matter
    "report/names.py": "report/names.py",
    "report/serialize.py": "report/serialize.py",
    "training/hugging_face.py": "training/hugging_face.py",
    "training/loggers.py": "training/loggers.py",
    "scans/sources.py": "scans/sources.py",
    "scans/store.py": "scans/store.py",
    "paper/files.py": "paper/files.py",
    "paper/records.py": "paper/records.py",
    "paper/runs.py": "paper/runs.py",
    "paper/imagenet.py": "paper/imagenet.py",
    "paper/running.py": "",  # a number for the estimate of the time left; none if it is odd
    "paper/tables.py": "",  # of the package itself
    "networks/__init__.py": "",
    "report/html.py": "",
}

# Where files are written: the function itself, and blocks of graphs in files without a name.
WRITERS = {"files/writing.py", "graphs/scratch.py"}


def calls(source: str, names: set[str]) -> Iterator[tuple[int, str, str]]:
    """Line, name and what it is called on of each call of one of these names."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        on, _, name = ast.unparse(node.func).rpartition(".")
        if name in names or f"{on}.{name}" in names:
            yield node.lineno, name, on


def reads(source: str) -> list[str]:
    """Calls that read a file; `part.open` is that of a file that is being written."""
    return [
        f"line {line}: {on}.{name}"
        for line, name, on in calls(source, READS)
        if on not in ("part", "os", "h5a", "self._h5py.h5a") and "File" not in on
    ]


def writes(source: str) -> list[str]:
    """Calls that write or remove a file, but those on the name that `write_file` gives."""
    tree = ast.parse(source)
    allowed = {
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and any("part" in ast.unparse(a) for a in node.args)
    }
    inside_writers = {
        line
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and [a.arg for a in node.args.args] == ["part"]
        for line in range(node.lineno, (node.end_lineno or 0) + 1)
    }
    found = []
    for line, name, on in calls(source, WRITES):
        text = name in ("replace", "truncate", "unlink", "rename") and on not in ("os", "path")
        ours = not on and name in ("write_text", "write_table", "_write")
        if on == "part" or line in allowed | inside_writers or text or ours:
            continue
        found.append(f"line {line}: {on}.{name}")
    return found


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(PACKAGE)) for path in FILES])
def test_files_are_opened_at_the_doors_only(path: Path) -> None:
    name, source = path.relative_to(PACKAGE).as_posix(), path.read_text(encoding="utf-8")
    if name not in DOORS and name not in WRITERS:
        assert reads(source) == []
    if name not in WRITERS:
        assert writes(source) == []


@pytest.mark.parametrize("door", DOORS)
def test_each_door_is_one_and_has_its_guard(door: str) -> None:
    assert reads((PACKAGE / door).read_text(encoding="utf-8"))
    if guard := DOORS[door]:
        assert "reading(" in (PACKAGE / guard).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "source",
    [
        *("open(path)", "path.read_text()", "with path.open('rb') as f: pass", "np.load(p)"),
        *("torch.load(p)", "h5py.File(p)", "np.memmap(p)", "dataset.dataset(files)"),
    ],
)
def test_a_way_round_the_guard_is_noticed(source: str) -> None:
    assert len(reads(source)) == 1


@pytest.mark.parametrize(
    "source",
    [
        *("path.write_text('x')", "np.savez(path)", "figure.savefig(path)", "os.replace(a, b)"),
        *(
            "torch.save(x, path)",
            "path.unlink()",
            "parquet.write_table(table, path)",
            "save_file(s, p)",
        ),
    ],
)
def test_a_way_round_the_writer_is_noticed(source: str) -> None:
    assert len(writes(source)) == 1


@pytest.mark.parametrize(
    "source",
    [
        "write_file(path, lambda part: part.write_text('x'))",
        "write_file(path, lambda part: self._write(table, part))",
        "def write(part):\n    with part.open('wb') as file:\n        np.savez(file, x=1)",
        "text.replace('a', 'b')",
    ],
)
def test_the_ways_through_them_are_not(source: str) -> None:
    assert reads(source) == writes(source) == []
