"""Permitted imports between rooms, and modules that ncut must not load."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

import ncut

PACKAGE = Path(ncut.__file__).parent

# Each room (a file or a folder of ncut/), and the rooms that it may import.
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "arguments": {"errors"},
    "files": {"errors"},
    "types": set(),
    "axes": set(),
    "chebyshev": set(),
    "_core": set(),
    "results": {"types"},
    "reference": {"types"},
    "randomness": {"errors"},
    "threads": {"errors"},
    "networks": {"errors"},
    "progress": {"errors"},
    "kernels": {"types", "errors", "_core"},
    "graphs": {
        *("kernels", "types", "axes", "arguments", "errors", "files", "randomness", "threads"),
    },
    "spectral": {
        *("graphs", "kernels", "types", "axes", "arguments", "errors", "randomness", "threads"),
        "chebyshev",
    },
    "nulls": {
        *("spectral", "graphs", "kernels", "results", "types", "axes", "arguments", "errors"),
        *("progress", "randomness"),
    },
    "device": {
        *("nulls", "spectral", "graphs", "kernels", "types", "axes", "errors", "randomness"),
        *("threads",),
    },
    "extract": {"graphs", "types", "axes", "arguments", "errors", "files", "networks"},
    "estimator": {"spectral", "graphs", "types", "errors"},
    "functional": {
        *("extract", "spectral", "graphs", "types", "arguments", "errors", "progress"),
        *("randomness", "threads", "clusters"),
    },
    "report": {"functional", "nulls", "results", "types", "axes", "arguments", "errors", "files"},
    "estimate": {"nulls", "spectral", "graphs", "kernels", "types", "axes", "threads"},
    "selftest": {
        *("clusters", "device", "extract", "graphs", "kernels", "networks", "nulls", "spectral"),
        *("threads", "training"),
    },
    "clusters": {"arguments", "device", "spectral", "graphs", "types", "randomness", "threads"},
    "plan": {
        *("device", "nulls", "spectral", "graphs", "types", "axes", "arguments", "errors"),
        "randomness",
        "threads",
    },
    "measure": {
        "errors",
        *("plan", "results", "device", "nulls", "spectral", "graphs", "types", "randomness"),
        *("progress", "threads"),
    },
    "analysis": {
        *("plan", "measure", "extract", "report", "results", "graphs", "types", "arguments"),
        *("errors", "progress", "randomness", "threads"),
    },
    "scans": {
        *("plan", "measure", "extract", "report", "results", "graphs", "threads", "randomness"),
        *("types", "axes", "arguments", "errors", "files"),
    },
    "paper": {
        *("training", "analysis", "extract", "report", "graphs", "arguments", "errors", "files"),
        "types",
    },
    "training": {
        *(
            "analysis",
            "plan",
            "extract",
            "files",
            "report",
            "graphs",
            "kernels",
            "types",
            "arguments",
        ),
        *("chebyshev", "errors"),
    },
    "comparing": {
        *("analysis", "extract", "report", "spectral", "axes", "arguments", "errors", "files"),
    },
    "verdicts": {
        *("analysis", "plan", "extract", "report", "results", "nulls", "graphs"),
        *("types", "axes", "arguments", "errors", "progress"),
    },
    "profiles": {
        *("plan", "measure", "extract", "report", "nulls", "spectral", "graphs", "types"),
        *("arguments", "errors", "progress", "randomness", "results"),
    },
}
# Beside these, what a room may import for its annotations alone.
FOR_TYPES = {"report": {"graphs"}, "results": {"graphs"}}
# Rooms that may import all others; nothing imports them.
ON_TOP = {"__init__", "__main__", "cli"}


class Import(NamedTuple):
    """A room that some code imports, in which line, and whether for annotations only."""

    room: str
    line: int
    for_types: bool


def _guarded_lines(tree: ast.AST) -> set[int]:
    """Lines inside `if TYPE_CHECKING:`."""
    return {
        line
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for child in node.body
        for line in range(child.lineno, (child.end_lineno or child.lineno) + 1)
    }


@functools.cache
def imports(source: str) -> list[Import]:
    """The rooms of ncut that a file imports, at its top or inside functions."""
    found = []
    tree = ast.parse(source)
    guarded = _guarded_lines(tree)
    for node in ast.walk(tree):
        modules: list[str] = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            if node.module == "ncut":
                modules = [f"ncut.{alias.name}" for alias in node.names]
            else:
                modules = [node.module or ""]
        for module in modules:
            first, _, rest = module.partition(".")
            if first == "ncut":
                room = rest.split(".")[0] or "__init__"
                found.append(Import(room, node.lineno, node.lineno in guarded))
    return found


def forbidden(room: str, source: str) -> list[str]:
    """Forbidden imports in a file of this room."""
    if room in ON_TOP:
        return []
    found = []
    for item in imports(source):
        allowed = MAY_IMPORT[room] | {room}
        if item.for_types:
            allowed = allowed | FOR_TYPES.get(room, set())
        if item.room not in allowed:
            found.append(f"line {item.line}: {room} imports {item.room}")
    return found


def room_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(PACKAGE)) for path in FILES])
def test_rooms_import_only_rooms_below_them(path: Path) -> None:
    room = room_of(path)
    assert room in MAY_IMPORT or room in ON_TOP, f"{room}: say above what it may import"
    assert forbidden(room, path.read_text(encoding="utf-8")) == []


def test_only_kernels_imports_the_compiled_core() -> None:
    users = {
        room_of(path)
        for path in FILES
        for item in imports(path.read_text(encoding="utf-8"))
        if item.room == "_core"
    }
    assert users == {"kernels"}


def test_the_order_has_no_cycles() -> None:
    below: set[str] = set()
    waiting = dict(MAY_IMPORT)
    while waiting:
        ready = {room for room, needs in waiting.items() if needs <= below}
        assert ready, f"these rooms import each other: {sorted(waiting)}"
        below |= ready
        waiting = {room: needs for room, needs in waiting.items() if room not in ready}


def module_imports(path: Path) -> set[str]:
    """The modules of ncut that a file imports anywhere, for annotations too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


# The rooms of ncut.extract between a model and its graph, and which others each may import.
EXTRACT = {
    "program": set[str](),
    "readers": {"program"},
    "lowering": {"program"},
    "assembly": {"program", "lowering"},
}


@pytest.mark.parametrize("room", EXTRACT)
def test_between_a_model_and_its_graph_each_room_knows_its_neighbours_only(room: str) -> None:
    files = [*(PACKAGE / "extract" / room).rglob("*.py")]
    assert files
    for path in files:
        found = {name.split(".")[2] for name in module_imports(path) if name.count(".") > 2}
        assert found & EXTRACT.keys() <= EXTRACT[room] | {room}, path


def circles(imported: dict[str, set[str]]) -> set[str]:
    """The modules that import themselves by way of others."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = [*imported[start]]
        while waiting:
            name = waiting.pop()
            if name not in seen:
                seen.add(name)
                waiting += imported.get(name, ())
        return seen

    return {name for name in imported if name in reached(name)}


def test_no_files_of_a_room_import_each_other() -> None:
    rooms: dict[str, dict[str, set[str]]] = {}
    for path in FILES:
        name = ".".join(("ncut", *path.relative_to(PACKAGE).with_suffix("").parts))
        if path.name != "__init__.py":  # the room's contents page
            rooms.setdefault(room_of(path), {})[name] = module_imports(path)
    within = {
        room: {name: needs & files.keys() for name, needs in files.items()}
        for room, files in rooms.items()
    }
    found = {room: circles(files) for room, files in within.items()}
    assert {room: files for room, files in found.items() if files} == {}


def test_circles_are_noticed() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == {"b", "c"}
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == set()


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("graphs", "from ncut.spectral import cluster"),
        ("graphs", "from ncut import spectral"),
        ("graphs", "import ncut.spectral.cut"),
        ("graphs", "def f():\n    from ncut.spectral.cut import normalized_cut"),
        ("graphs", "from ncut import graph"),
        ("graphs", "import ncut"),
        ("report", "from ncut.graphs import NeuronGraph"),
        ("spectral", "from ncut import _core"),
        ("types", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import ncut.graphs"),
    ],
)
def test_forbidden_imports_are_noticed(room: str, source: str) -> None:
    assert len(forbidden(room, source)) == 1


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("spectral", "from ncut.graphs import NeuronGraph\nfrom ncut import kernels"),
        ("graphs", "from ncut.graphs.build import build_graph\nimport numpy.ncut"),
        ("report", "if TYPE_CHECKING:\n    from ncut.graphs import NeuronGraph"),
        ("kernels", "import ncut._core as _core"),
        ("cli", "from ncut.analysis import analyze"),
    ],
)
def test_allowed_imports_are_allowed(room: str, source: str) -> None:
    assert forbidden(room, source) == []


def loaded_after(code: str) -> set[str]:
    """The modules that a fresh interpreter has after running this code."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(*sorted(sys.modules))"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


HEAVY = {
    *("torch", "matplotlib", "sklearn", "pandas", "jinja2", "onnx", "networkx"),
    *("joblib", "pyarrow", "distributed", "tqdm", "cupy", "array_api_strict"),
}

ANALYSIS = """
import ncut
report = ncut.analyze([[[1.0, 0.5], [0.2, 1.0]]] * 3, k=2, shuffles=2)
str(report), repr(report), report.to_json()
"""


def test_import_loads_next_to_nothing() -> None:
    loaded = loaded_after("import ncut")
    assert "ncut" in loaded
    assert not loaded & {*HEAVY, "scipy", "scipy.sparse", "rich", "typer", "ncut._core"}


TRAINING = {
    "CutDropout",
    "EigenvalueRegularizer",
    "PartitionAnnealing",
    "PartitionRegularizer",
    "PolynomialPruning",
    "SoftCutRegularizer",
    "clusterable_init_",
    "laplacian_eigenvalues",
    "normalize_",
}


def test_public_names_are_found_and_need_no_torch_but_those_of_training() -> None:
    assert set(ncut.__all__) > TRAINING
    names = [name for name in ncut.__all__ if name not in TRAINING]
    loaded = loaded_after(f"import ncut\nfor name in {names}: getattr(ncut, name)")
    assert "ncut._core" in loaded
    assert not loaded & HEAVY


MODULE = """
import torch
ncut.graph(torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2)))
"""


def test_training_and_modules_of_torch_need_no_framework_and_no_compiler() -> None:
    names = f"import ncut\nfor name in {sorted(TRAINING)}: getattr(ncut, name)"
    loaded = loaded_after(f"{names}{MODULE}")
    assert "torch" in loaded
    assert not loaded & {"lightning", "pytorch_lightning", "transformers", "matplotlib", "pandas"}
    assert "torch._dynamo" not in loaded


WITHOUT_TORCH = """
import sys
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name == "torch" else found(name, *more)
sys.modules["torch"] = None
from ncut import *
import ncut
assert "normalize_" not in dir(ncut)
try:
    ncut.normalize_
except ncut.MissingExtraError as error:
    assert "ncut[torch]" in str(error)
else:
    raise AssertionError
"""


def test_without_torch_names_of_training_say_what_to_install() -> None:
    assert "ncut._core" in loaded_after(WITHOUT_TORCH)


def test_an_analysis_loads_no_plotting_and_no_learning_library() -> None:
    loaded = loaded_after(ANALYSIS)
    assert "scipy.sparse" in loaded
    assert not loaded & HEAVY


def test_the_check_of_loaded_modules_would_notice() -> None:
    assert "pandas" in loaded_after("import ncut, pandas")


def test_dir_lists_the_public_names() -> None:
    assert dir(ncut) == sorted([*ncut.__all__, "NormalizedCutClustering"])
    assert len(set(ncut.__all__)) == len(ncut.__all__)
    with pytest.raises(AttributeError, match="nonsense"):
        _ = ncut.nonsense  # type: ignore[attr-defined]
    assert isinstance(ncut.__version__, str)
