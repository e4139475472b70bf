"""No file is read but behind the guard, and none is written but by the one function."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import ncut

PACKAGE = Path(ncut.__file__).parent

# By any name that leads to them: called, passed on, imported, or asked for with getattr.
READS = {
    *("open", "read_text", "read_bytes", "load_model", "safe_open", "load_file", "GGUFReader"),
    *("memmap", "open_memmap", "fromfile", "loadtxt", "genfromtxt", "File", "ZipFile", "TarFile"),
    *("read_table", "read_parquet", "read_csv", "ParquetFile", "memory_map", "OSFile", "fdopen"),
}
WRITES = {
    *("write_text", "write_bytes", "unlink", "rename", "rmdir", "symlink_to", "hardlink_to"),
    *("touch", "chmod", "mkdir", "savefig", "tofile", "to_parquet", "to_pickle", "extractall"),
    *("savez", "savez_compressed", "savetxt", "save_file", "serialize_file", "write_table"),
    *("write_dataset", "rmtree", "copytree", "copyfile", "copy2", "mkstemp", "mkdtemp"),
    *("NamedTemporaryFile", "TemporaryFile", "TemporaryDirectory", "SpooledTemporaryFile"),
}
# Common words, which are these of libraries and of nothing else.
OF_LIBRARIES = {"load": "reads", "dataset": "reads", "mmap": "reads", "save": "writes",
                "dump": "writes"}  # fmt: skip
OF_SYSTEM = {
    *("replace", "remove", "removedirs", "renames", "truncate", "ftruncate", "link", "symlink"),
    *("makedirs", "mkfifo", "mknod", "copy", "move"),
}
FILES_OF_NAMES = {"json", "pickle", "csv", "copy"}  # libraries that are given open files
IMPORTERS = {"import_extra", "import_module", "__import__"}

# Where files are opened, and the file whose `reading(...)` stands around it.
DOORS = {
    "files/guard.py": "files/guard.py",
    "graphs/storage.py": "graphs/storage.py",
    "extract/readers/files.py": "extract/readers/files.py",
    "extract/formats.py": "extract/formats.py",
    "extract/readers/torchscript.py": "extract/read.py",
    "extract/readers/exported.py": "extract/read.py",
    "extract/readers/folder/config.py": "extract/read.py",
    "extract/readers/orbax_folder.py": "extract/read.py",
    "extract/readers/onnx_graph/model.py": "extract/readers/onnx_model.py",
    "extract/readers/keras/storage.py": "extract/readers/keras_file.py",
    "extract/readers/keras/probe.py": "",  # a process whose errors do not matter
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
    "threads.py": "",  # what Linux says of this process; errors do not matter
}

# Where files are written: the function itself, and blocks of graphs in files without a name.
WRITERS = {"files/writing.py", "graphs/scratch.py"}


def root(node: ast.expr) -> ast.expr:
    """First expression of a chain of attributes, calls and subscripts."""
    while True:
        if isinstance(node, ast.Attribute | ast.Subscript):
            node = node.value
        elif isinstance(node, ast.Call) and not is_import(node):
            node = node.func
        else:
            return node


def is_import(node: ast.AST) -> bool:
    """Check whether a call imports a module by its name."""
    return isinstance(node, ast.Call) and name_of(node.func) in IMPORTERS


class Uses(ast.NodeVisitor):
    """The places of a module that read or write files, by name."""

    def __init__(self, source: str) -> None:
        self.reads: list[str] = []
        self.writes: list[str] = []
        self._libraries: set[str] = set()
        self._imported: dict[str, tuple[str, str]] = {}
        self._parts: set[str] = set()
        self._calls: list[ast.Call] = []
        tree = ast.parse(source)
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                self._libraries |= {(a.asname or a.name).split(".")[0] for a in node.names}
            elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] != "ncut":
                self._libraries |= {a.asname or a.name for a in node.names}
                for alias in node.names:
                    self._imported[alias.asname or alias.name] = (str(node.module), alias.name)
            elif isinstance(node, ast.Assign) and any(map(is_import, ast.walk(node.value))):
                self._libraries |= {ast.unparse(target) for target in node.targets}
        self.visit(tree)

    def _is_part(self, node: ast.AST) -> bool:
        names = {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}
        return not names.isdisjoint(self._parts)

    def _note(self, kind: str, node: ast.expr) -> None:
        if any("os.devnull" in ast.unparse(one) for one in [node, *self._calls]):
            return
        place = f"line {node.lineno}: {ast.unparse(node)[:60]}"
        if kind == "reads":
            found = self.reads
        elif any(map(self._is_part, [node, *self._calls])):
            return
        else:
            found = self.writes
        if place not in found:
            found.append(place)

    def _is_library(self, node: ast.expr) -> bool:
        if ast.unparse(root(node)) in FILES_OF_NAMES:
            return False
        parts = ast.unparse(node).split(".")
        held = any(".".join(parts[:n]) in self._libraries for n in range(1, len(parts) + 1))
        return held or is_import(root(node))

    def _name(self, node: ast.expr, name: str, on: ast.expr | str) -> None:
        if isinstance(on, str):
            library, module = on not in FILES_OF_NAMES, on
        else:
            library, module = self._is_library(on), ast.unparse(on)
        if name in READS:
            self._note("reads", node)
        elif name in WRITES:
            self._note("writes", node)
        elif name in OF_LIBRARIES and library:
            self._note(OF_LIBRARIES[name], node)
        elif name in OF_SYSTEM and module in ("os", "shutil"):
            self._note("writes", node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if not (name_of(node) == "open" and self._is_part(node)):
            self._name(node, node.attr, node.value)
        self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        if not isinstance(node.ctx, ast.Load):
            return
        if node.id in self._imported:
            module, name = self._imported[node.id]
            self._name(node, name, module)
        elif node.id == "open":
            self._note("reads", node)

    def visit_Call(self, node: ast.Call) -> None:
        name = name_of(node.func)
        if name == "isinstance":
            self.visit(node.args[0])
            return
        self._calls.append(node)
        if name in ("getattr", "attrgetter", "methodcaller"):
            for found in node.args:
                if isinstance(found, ast.Constant):
                    on = "?" if found is node.args[0] else node.args[0]
                    self._name(node, str(found.value), on)
        # A text is replaced by two arguments, a file by one.
        of_file = isinstance(node.func, ast.Attribute) and len(node.args) == 1
        if name == "replace" and of_file and not node.keywords:
            self._note("writes", node)
        given = [*node.args, *(keyword.value for keyword in node.keywords)]
        modes = [str(one.value) for one in given if isinstance(one, ast.Constant)]
        if name in ("open", "fdopen", "File", "ZipFile", "memmap") and any(
            re.fullmatch(r"[rbt]*[wax+][rwabxt+]*", mode) for mode in modes
        ):
            self._note("writes", node)
        self.generic_visit(node)
        self._calls.pop()

    def _with_part(self, node: ast.FunctionDef | ast.Lambda) -> None:
        before, calls = self._parts, self._calls
        self._calls = []
        if any(a.arg == "part" for a in node.args.args):
            self._parts = {"part"}
            for inner in ast.walk(node):  # what is opened of it
                if isinstance(inner, ast.withitem) and self._is_part(inner.context_expr):
                    self._parts.add(ast.unparse(inner.optional_vars or inner.context_expr))
        self.generic_visit(node)
        self._parts, self._calls = before, calls

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._with_part(node)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._with_part(node)


def name_of(function: ast.expr) -> str:
    """The last name of a called expression."""
    return ast.unparse(function).split(".")[-1]


def reads(source: str) -> list[str]:
    """The places that read files."""
    return Uses(source).reads


def writes(source: str) -> list[str]:
    """The places that write or remove files, but by the name that `write_file` gives."""
    return Uses(source).writes


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(PACKAGE)) for path in FILES])
def test_files_are_opened_at_the_doors_only(path: Path) -> None:
    name, source = path.relative_to(PACKAGE).as_posix(), path.read_text(encoding="utf-8")
    if name not in DOORS and name not in WRITERS:
        assert reads(source) == []
    if name not in WRITERS:
        assert writes(source) == []


@pytest.mark.parametrize("door", DOORS)
def test_each_entry_point_is_guarded_once(door: str) -> None:
    assert reads((PACKAGE / door).read_text(encoding="utf-8"))
    if guard := DOORS[door]:
        assert "reading(" in (PACKAGE / guard).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "source",
    [
        *("open(path)", "path.read_text()", "with path.open('rb') as f: pass", "h5py.File(p)"),
        *("import numpy as np\nnp.load(p)", "import torch\nf = torch.load", "np.memmap(p)"),
        *("from numpy import load as get\nget(p)", "map(open, paths)", "getattr(path, 'open')()"),
        "import_extra('onnx', 'onnx').load(p)",
        "dataset = import_extra('pyarrow.dataset', 'scan')\ndataset.dataset(files)",
        "__import__('numpy').load(p)",
        "import torch.jit\ntorch.jit.load(p)",
        "self._io = import_module('skimage.io')\nself._io.load(p)",
        "operator.methodcaller('read_bytes')(p)",
    ],
)
def test_a_way_round_the_guard_is_noticed(source: str) -> None:
    assert len(reads(source)) == 1


@pytest.mark.parametrize(
    "source",
    [
        *("path.write_text('x')", "np.savez(path)", "figure.savefig(path)", "path.unlink()"),
        *("import os\nos.replace(a, b)", "old.replace(new)", "import torch\ntorch.save(x, path)"),
        *("parquet.write_table(table, path)", "from x import save_file\nsave_file(s, p)"),
        *("open(path, 'w')", "path.open(mode='ab')", "from os import replace as r\nr(a, b)"),
        *("partial.write_text('x')", "np.memmap(p, mode='w+')", "import shutil\nshutil.copy(a, b)"),
        "write_file(path, lambda part: other.write_text('x'))",
        "def write(part):\n    with other.open('wb') as file:\n        np.savez(file, x=1)",
        "import os\nremove = os.remove",
    ],
)
def test_a_way_round_the_writer_is_noticed(source: str) -> None:
    assert writes(source)


@pytest.mark.parametrize(
    "source",
    [
        "write_file(path, lambda part: part.write_text('x'))",
        "write_file(path, lambda part: self._parquet.write_table(table, part))",
        "def write(part):\n    with part.open('wb') as file:\n        np.savez(file, x=1)",
        "text.replace('a', 'b')",
        "from dataclasses import replace\nreplace(one, x=1)",
        "import copy\ncopy.copy(x)",
        "isinstance(x, np.memmap)",
        "import json\njson.load(file)",
        "record.save(model)",
    ],
)
def test_the_ways_through_them_are_not(source: str) -> None:
    assert reads(source) == writes(source) == []
