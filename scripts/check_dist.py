"""Check the distributions of a release, as users get them.

    python scripts/check_dist.py [--dist FOLDER] [--pinned] [TESTS ...]

Builds the sdist and a wheel from it; inspects both; installs each in a fresh environment outside
the checkout; and runs the sdist's tests against the installed wheel. It takes some minutes, and
needs network access for the environments' packages and the package `build`.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
import zipfile
from collections.abc import Sequence
from email import message_from_bytes
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WHOLE = ("bindings", "csrc", "docs", "examples", "ncut", "scripts", "tests")
"""Folders that the sdist contains completely."""
NEEDED = ("CMakeLists.txt", "LICENSE", "Makefile", "README.md", "constraints.txt", "pyproject.toml")
UNWANTED = re.compile(
    r"(^|/)(\.ci|\.git|\.github|\.venv[^/]*|build|dist|results|__pycache__|\.[a-z]+_cache)(/|$)"
    r"|\.(so|pyd|pyc|o|whl)$"
)
TESTS = [
    *("cli", "extract", "files", "functional", "graphs", "kernels", "nulls", "report", "spectral"),
    *("test_analysis.py", "test_analysis_interrupted.py", "test_analysis_sequential.py"),
    *("test_benchmark_suite.py", "test_errors.py", "test_estimate.py", "test_estimator.py"),
    *("test_planted.py", "test_profile.py", "test_randomness.py", "test_reference.py"),
    *("test_report_actions.py", "test_threads.py", "test_verdict.py"),
]
"""Tests that run without torch; the others concern training, the paper and the checkout."""
TOOLS = ("pytest", "hypothesis", "networkx", "pytest-benchmark", "twine")
SMALL = """
import pathlib, sys, ncut
folder = pathlib.Path(ncut.__file__).parent
assert str(folder).startswith(sys.prefix), folder
report = ncut.analyze(folder / "networks" / "digits-pruned.npz", shuffles=10, seed=1)
assert report.z_score < -3 and 5 < report.lower_bound < 7 < report.ncut < 8, report
print(f"ncut {ncut.__version__}: n-cut {report.ncut:.4f}, Z {report.z_score:.2f}, {folder}")
"""


def run(*command: str | Path, cwd: Path | None = None) -> None:
    """Print and run a command; exit if it fails."""
    print("$", *command, flush=True)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment.setdefault("CMAKE_BUILD_PARALLEL_LEVEL", str(os.cpu_count()))
    subprocess.run([str(part) for part in command], check=True, cwd=cwd, env=environment)


def build(dist: Path, *options: str) -> tuple[Path, Path]:
    """The sdist, and the wheel built from it, in an empty folder."""
    run(sys.executable, "-m", "build", "--outdir", dist, *options, ROOT)
    (sdist,), (wheel,) = dist.glob("*.tar.gz"), dist.glob("*.whl")
    return sdist, wheel


def files_of(archive: Path) -> set[str]:
    """The files of an sdist, below its one folder, or of a wheel."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return {name for name in wheel.namelist() if not name.endswith("/")}
    with tarfile.open(archive) as sdist:
        names = [member.name for member in sdist if member.isfile()]
    return {name.split("/", 1)[1] for name in names}


def checkout() -> set[str]:
    """The project's files in the checkout, by git; empty without git."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *WHOLE]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return {name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()}


def sdist_problems(sdist: Path) -> list[str]:
    """Files that the sdist lacks, should not have, or has with other content than the checkout."""
    files, expected = files_of(sdist), checkout() | set(NEEDED)
    lacks = sorted(expected - files)
    unwanted = sorted(name for name in files if UNWANTED.search(name))
    with tarfile.open(sdist) as archive:
        content = {
            member.name.split("/", 1)[1]: archive.extractfile(member).read()
            for member in archive
            if member.isfile()
        }
    changed = sorted(
        name for name in files & expected if content[name] != (ROOT / name).read_bytes()
    )
    return [
        *(f"the sdist lacks {name}" for name in lacks),
        *(f"the sdist has {name}" for name in unwanted),
        *(f"the sdist's {name} is another" for name in changed),
    ]


def wheel_problems(wheel: Path, sdist: Path) -> list[str]:
    """Missing and superfluous files of the wheel."""
    files = files_of(wheel)
    information = {name for name in files if name.split("/")[0].endswith(".dist-info")}
    compiled = {name for name in files if re.fullmatch(r"ncut/_core\.[^/]+\.(so|pyd)", name)}
    package = {name for name in files_of(sdist) if name.startswith("ncut/")}
    problems = [] if len(compiled) == 1 else [f"compiled modules: {sorted(compiled)}"]
    problems += [f"the wheel lacks {name}" for name in sorted(package - files)]
    others = files - information - compiled - package
    return problems + [f"the wheel has {name}" for name in sorted(others)]


def metadata_problems(wheel: Path) -> list[str]:
    """Differences of the wheel's metadata from pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        found = message_from_bytes(archive.read(name))
    pairs = {
        "Name": project["name"],
        "Version": project["version"],
        "Requires-Python": project["requires-python"],
        "License-Expression": project["license"],
        "Description-Content-Type": "text/markdown",
    }
    problems = [
        f"metadata: {key} is {found[key]!r}, not {value!r}"
        for key, value in pairs.items()
        if found[key] != value
    ]
    extras = set(project["optional-dependencies"]) ^ set(found.get_all("Provides-Extra", []))
    return problems + [f"metadata: extra {extra}" for extra in sorted(extras)]


def environment(folder: Path, *packages: str | Path) -> Path:
    """A fresh environment with some packages; its interpreter."""
    run(sys.executable, "-m", "venv", folder)
    python = folder / "bin" / "python"
    constraints = ROOT / "constraints.txt"
    run(python, "-m", "pip", "install", "--quiet", "--constraint", constraints, *packages)
    return python


def without_sources(sdist: Path, folder: Path) -> Path:
    """The unpacked sdist without the package, so that the tests import the installed one."""
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (unpacked,) = folder.iterdir()
    shutil.rmtree(unpacked / "ncut")
    return unpacked


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dist", type=Path, help="an empty folder to leave the archives in")
    parser.add_argument(
        "--pinned",
        action="store_true",
        help="build with what is installed: .github/requirements-release.txt, by hash",
    )
    parser.add_argument("tests", nargs="*", default=[f"tests/{name}" for name in TESTS])
    chosen = parser.parse_args(arguments)
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        options = ["--no-isolation"] if chosen.pinned else []
        sdist, wheel = build((chosen.dist or folder / "dist").resolve(), *options)
        problems = [
            *sdist_problems(sdist),
            *wheel_problems(wheel, sdist),
            *metadata_problems(wheel),
        ]
        for archive in (sdist, wheel):
            print(
                f"{archive.name}: {len(files_of(archive))} files, {archive.stat().st_size:,} bytes"
            )
        if problems:
            sys.exit("\n".join(problems))

        python = environment(folder / "wheel", f"{wheel}[sklearn,plot,scan]", *TOOLS)
        run(python, "-m", "twine", "check", "--strict", sdist, wheel)
        run(python, "-c", SMALL, cwd=folder)
        run(python.with_name("ncut"), "--version", cwd=folder)
        tests = without_sources(sdist, folder / "unpacked")
        run(python, "-m", "pytest", "-q", "-m", "not slow", *chosen.tests, cwd=tests)

        python = environment(folder / "sdist", sdist)
        run(python, "-c", SMALL, cwd=folder)
    print(f"All is well, after {time.monotonic() - start:.0f} s.")


if __name__ == "__main__":
    main()
