"""The documentation: its site builds, its examples run, its reference is complete."""

from __future__ import annotations

import copy
import csv
import importlib.util
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree

import numpy as np
import pytest
import typer
from browser import opened

import ncut
from ncut.axes import NULL_MODELS
from ncut.cli import app
from ncut.cli.group import FLAGS

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted(DOCS.rglob("*.md")),
    *sorted((ROOT / "examples").rglob("*.md")),
]
NUMBERS = {7: "seven", 8: "eight", 9: "nine", 10: "ten", 11: "eleven", 12: "twelve"}
COMPLETION = {"--install-completion", "--show-completion"}
HOW = "is not installed; make test installs it, or pip install '.[dev]'"


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def python_blocks(path: Path) -> list[str]:
    """The Python examples of a page, each after as many empty lines as put it in its place."""
    text = path.read_text(encoding="utf-8")
    return [
        "\n" * (text[: match.start(1)].count("\n")) + match[1]
        for match in re.finditer(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    ]


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_examples_compile(path: Path) -> None:
    for block in python_blocks(path):
        compile(block, str(path), "exec")


def command_lines(path: Path) -> list[str]:
    """The lines of a page's code blocks without a language that run the command `ncut`."""
    text = path.read_text(encoding="utf-8")
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = [line for language, block in blocks if not language for line in block.splitlines()]
    return [line for line in lines if re.match(r"(python -m )?ncut ", line)]


COMMANDS = [(path, line) for path in PAGES for line in command_lines(path)]


@pytest.mark.parametrize(
    ("path", "line"),
    COMMANDS,
    ids=lambda part: name_of(part) if isinstance(part, Path) else None,
)
def test_commands_and_their_options_exist(path: Path, line: str) -> None:
    command: Any = typer.main.get_command(app)
    words = shlex.split(line, comments=True)
    words = words[words.index("ncut") + 1 :]
    assert "ncut" not in words, f"{path.name}: two commands in one line"
    while hasattr(command, "commands") and not words[0].startswith("-"):
        command = command.commands[words.pop(0)]
    known = {flag for one in command.params for flag in one.opts} | FLAGS.keys() | {"--help"}
    for word in words:
        assert not word.startswith("--") or word.split("=")[0] in known | COMPLETION, line


def test_shown_commands_are_found() -> None:
    assert len(COMMANDS) > 40
    pages = {path.name for path, _ in COMMANDS}
    assert {"README.md", "start.md", "scan.md", "k.md", "gpu.md", "paper.md"} <= pages


def test_the_readme_counts_the_null_models() -> None:
    row = re.search(r"^\| \*\*ncut\*\* .*$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert row
    assert f"| {NUMBERS[len(NULL_MODELS)]} |" in row[0]


def trained_names() -> dict[str, Any]:
    """Names that the examples assume: a model, its data, a loss, parts of a training loop."""
    torch = pytest.importorskip("torch", reason=f"torch {HOW}")
    torch.manual_seed(7)
    model = torch.nn.Sequential(
        *(torch.nn.Linear(20, 24), torch.nn.ReLU(), torch.nn.Linear(24, 24), torch.nn.ReLU()),
        torch.nn.Linear(24, 8),
    )
    images, labels = torch.randn(30, 20), torch.randint(0, 8, (30,))

    def loss(network: Any) -> float:
        with torch.no_grad():
            return float(torch.nn.functional.cross_entropy(network(images), labels))

    def accuracy(network: Any) -> float:
        with torch.no_grad():
            return float((network(images).argmax(1) == labels).double().mean())

    points = np.random.default_rng(7).normal(size=(60, 2))
    distances = ((points[:, None] - points) ** 2).sum(axis=2)
    return {
        "torch": torch,
        "ncut": ncut,
        "model": model,
        "pruned": copy.deepcopy(model),
        "images": images,
        "labels": labels,
        "cross_entropy": torch.nn.functional.cross_entropy,
        "loss": loss,
        "accuracy": accuracy,
        "batches": [(images, labels)] * 2,
        "optimizer": torch.optim.Adam(model.parameters()),
        "affinity": np.exp(-distances),
    }


def analysed_names() -> dict[str, Any]:
    """The same, and reports."""
    names = trained_names()
    reports = [ncut.analyze(names["model"], k=4, seed=seed, shuffles=20) for seed in range(3)]
    return names | {"report": reports[0], "reports": reports, "graph": reports[0].graph}


# Pages whose examples run one after the other, how many of them, and with what.
RUNNING: list[tuple[str, int, Callable[[], dict[str, Any]]]] = [
    ("README.md", 4, trained_names),  # the longest, some seconds
    ("docs/start.md", 2, dict),
    ("docs/verdict.md", 1, trained_names),
    ("docs/p-values.md", 3, analysed_names),
    ("docs/k.md", 1, trained_names),
    ("docs/modules.md", 4, analysed_names),
    ("docs/training.md", 3, trained_names),
]


@pytest.mark.parametrize(
    ("page", "n_blocks", "names"), RUNNING, ids=[page for page, _, _ in RUNNING]
)
def test_examples_run(
    page: str,
    n_blocks: int,
    names: Callable[[], dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("matplotlib", reason=f"matplotlib {HOW}").use("agg")
    monkeypatch.chdir(tmp_path)
    blocks = python_blocks(ROOT / page)
    assert len(blocks) >= n_blocks
    namespace = names()
    for block in blocks[:n_blocks]:
        exec(compile(block, page, "exec"), namespace)


def test_the_first_report_is_as_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """But for the numbers, whose last digits may be others on another processor."""
    text = (DOCS / "start.md").read_text(encoding="utf-8")
    exec(python_blocks(DOCS / "start.md")[0], {})
    printed = [without_numbers(line) for line in capsys.readouterr().out.splitlines()]
    shown = re.search(r"^```\n(digits-pruned\n.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert shown
    lines = [without_numbers(line) for line in shown[1].splitlines()]
    assert lines == printed[: len(lines)]


def without_numbers(line: str) -> str:
    return " ".join(re.sub(r"-?\d[\d.,]*", "#", line).split())


def reference() -> dict[str, str]:
    """Each documented name and its page."""
    return {
        name: path.stem
        for path in (DOCS / "reference").glob("*.md")
        for name in re.findall(r"^::: (\S+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    }


def test_the_reference_has_every_public_name() -> None:
    public = {f"ncut.{name}" for name in {*ncut.__all__, "NormalizedCutClustering"}}
    assert public - reference().keys() == set()


@pytest.mark.parametrize("name", reference())
def test_documented_names_exist(name: str) -> None:
    try:
        found = getattr(ncut, name.removeprefix("ncut."))
    except AttributeError:
        module, _, last = name.rpartition(".")
        package = pytest.importorskip(module, reason=f"what {module} needs {HOW}")
        found = getattr(package, last)
    assert found.__doc__


def docstring_script() -> ModuleType:
    pytest.importorskip("griffe", reason=f"griffe {HOW}")
    path = ROOT / "scripts" / "docs_docstrings.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_sources_are_sections_and_public_names_references() -> None:
    text = (
        "What it does.\n\nRaises\n------\nError\n    See `ncut.graph`, `ncut.other`."
        "\n\nSource: Fan\n(1949)."
    )
    assert docstring_script().as_shown(text, {"graph"}) == (
        "What it does.\n\nRaises\n------\nError\n    See [`ncut.graph`][ncut.graph], `ncut.other`."
        "\n\nSource\n------\nFan\n(1949)."
    )


class Links(HTMLParser):
    """Links, loaded resources and anchors of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if found.get("id"):
            self.anchors.add(str(found["id"]))
        if tag == "a" and found.get("href"):
            self.links.append(str(found["href"]))
        elif tag in ("script", "img", "link"):
            self.loaded += [str(found[key]) for key in ("src", "href") if found.get(key)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built strictly: a warning of mkdocs is an error."""
    pytest.importorskip("mkdocs", reason=f"mkdocs {HOW}")
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env=os.environ | {"NCUT_DOCS_EXECUTE": "false", "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    return folder


def pages(site: Path) -> Iterator[tuple[Path, Links]]:
    for path in sorted(site.rglob("*.html")):
        yield path, Links(path)


@pytest.mark.slow
def test_every_page_is_on_the_site(site: Path) -> None:
    expected = {path.relative_to(DOCS).with_suffix("") for path in DOCS.rglob("*.md")}
    expected |= {
        *map(Path, ("benchmarks", "reproduction", "changelog", "contributing", "tutorial")),
        *map(Path, ("github-action", "reference/command-line", "code-of-conduct")),
    }
    found = {path.parent.relative_to(site) for path in site.rglob("index.html")}
    assert {path if path.name != "index" else path.parent for path in expected} <= found
    home = Links(site / "index.html")
    assert f"ncut {version('ncut')}" in (site / "index.html").read_text()
    linked = {urlsplit(link).path.rstrip("/") for link in home.links}
    assert {path.as_posix() for path in expected if path.name != "index"} <= linked


@pytest.mark.slow
def test_no_link_is_broken_and_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    """Also in the notebook and in raw HTML, which mkdocs does not check."""
    found = dict(pages(site))
    wrong = []
    for path, page in found.items():
        if path.name == "404.html":
            continue
        for link in page.links + page.loaded:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                wrong += [(name_on(site, path), link)] * (link in page.loaded)
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            known = found.get(target)
            if not target.exists() or (
                known and parts.fragment and unquote(parts.fragment) not in known.anchors
            ):
                wrong.append((name_on(site, path), link))
    assert wrong == []


def name_on(site: Path, path: Path) -> str:
    return path.relative_to(site).as_posix()


def test_each_network_of_the_gallery_has_a_row_and_a_small_picture() -> None:
    with (DOCS / "gallery.csv").open(encoding="utf-8", newline="") as file:
        rows = [*csv.DictReader(file)]
    text = (DOCS / "gallery.md").read_text(encoding="utf-8")
    shown = [line.split(" | ") for line in text.splitlines() if line.startswith("| ![")]
    assert [cells[1] for cells in shown] == [row["network"] for row in rows]
    assert all(cells[4] == row["top"] for cells, row in zip(shown, rows, strict=True))
    assert len(rows) >= 25
    for cells in shown:
        picture = DOCS / re.findall(r"\((gallery/[\w-]+\.svg)\)", cells[0])[0]
        assert picture.stat().st_size < 40_000
        assert ElementTree.parse(picture).getroot().findtext("{*}title")


@pytest.mark.slow
def test_a_heading_sorts_a_table(chromium: Any, tmp_path: Path) -> None:
    rows = [("b", "1,200"), ("a", "-3.5"), ("c", ""), ("d", "40%")]
    cells = "".join(f"<tr><td>{name}</td><td>{number}</td></tr>" for name, number in rows)
    page = tmp_path / "a.html"
    page.write_text(
        "<title>a</title><div class=sortable><table><thead><tr><th>name</th><th>n</th></tr>"
        f"</thead><tbody>{cells}</tbody></table></div>"
        f"<script>{(DOCS / 'sortable.js').read_text()}</script>"
    )
    with opened(chromium, page) as shown:
        for heading, order in (("n", "adbc"), ("n", "bdac"), ("name", "abcd"), ("name", "dcba")):
            shown.get_by_role("columnheader", name=heading, exact=True).click()
            assert "".join(shown.locator("td:first-child").all_inner_texts()) == order


@pytest.mark.slow
def test_the_reference_is_made_of_docstrings(site: Path) -> None:
    measuring = Links(site / "reference" / "measuring" / "index.html")
    assert {"ncut.analyze", "ncut.Report", "ncut.Report.tail"} <= measuring.anchors
    text = (site / "reference" / "measuring" / "index.html").read_text(encoding="utf-8")
    assert "Number of clusters; the preset's by default, 12." in text
    assert "Source: " not in text
    commands = (site / "reference" / "command-line" / "index.html").read_text(encoding="utf-8")
    assert 'href="#ncut-analyze"' in commands
    assert "Measure how clusterable a network is, by itself and against shuffled" in commands
    assert "network is, by..." not in commands  # as the help's own list has it
