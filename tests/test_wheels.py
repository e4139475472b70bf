"""Releases: one version, and an sdist and a wheel that are complete and run on their own.

The build needs no network, and compiles what `make test` has not compiled yet: two minutes in an
environment that was made otherwise. `scripts/check_dist.py` checks more, in fresh environments.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

import ncut

ROOT = Path(__file__).resolve().parents[1]
HOW = "make test installs it, or pip install '.[dev]'"
ANALYSIS = """
import importlib.metadata, json, pathlib, ncut
folder = pathlib.Path(ncut.__file__).parent
reports = [ncut.analyze(file, shuffles=3, seed=2, threads=1)
           for file in sorted((folder / "networks").glob("*.npz"))]
print(json.dumps({
    "folder": str(folder),
    "version": importlib.metadata.version("ncut"),
    "ncuts": [[report.ncut, *report.shuffled_ncuts] for report in reports],
    "bounds": [report.lower_bound for report in reports],
}))
"""


class Built(NamedTuple):
    script: ModuleType
    sdist: Path
    wheel: Path
    objects: Path
    """The folder of the compiler's output."""


def script() -> ModuleType:
    """scripts/check_dist.py"""
    spec = importlib.util.spec_from_file_location("check_dist", ROOT / "scripts" / "check_dist.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    for tool in ("build", "scikit_build_core", "pybind11", "cmake"):
        if importlib.util.find_spec(tool) is None:
            pytest.skip(
                f"{tool} is not installed; pip install build scikit-build-core pybind11 cmake"
            )
    from filelock import FileLock

    check_dist = script()
    # The wheel is made of the checkout, with the compiler's output of the editable installation;
    # that it would be made of the sdist too is a matter of the sdist's content.
    options = ("--sdist", "--wheel", "--no-isolation", "-Ccmake.define.NCUT_STRICT=ON")
    (ROOT / "build").mkdir(exist_ok=True)
    with FileLock(ROOT / "build" / "wheel.lock"):  # another process of pytest may build, too
        sdist, wheel = check_dist.build(tmp_path_factory.mktemp("distribution"), *options)
    return Built(check_dist, sdist, wheel, ROOT / "build" / wheel.stem.split("-", 2)[2])


@pytest.fixture(scope="module")
def installed(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel's content, and nothing else."""
    target = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--no-warn-script-location", "--target", target, built.wheel], check=True)
    return target


def analysed(installed: Path, *interpreter: str) -> dict[str, Any]:
    """Output of an analysis with the installed wheel."""
    packages = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    # -S: no .pth files, so that an editable installation of the checkout is not found.
    done = subprocess.run(
        [*interpreter, sys.executable, "-S", "-c", ANALYSIS],
        cwd=installed,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(installed), *sorted(packages)])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["folder"] == str(installed / "ncut")
    return found


@pytest.fixture(scope="module")
def found(installed: Path) -> dict[str, Any]:
    """Output of an analysis with the installed wheel on this machine's processor."""
    return analysed(installed)


def project_version() -> str:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return str(project["version"])


def test_the_version_is_that_of_pyproject() -> None:
    version = project_version()
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    assert ncut.__version__ == version
    shown = subprocess.run(
        [sys.executable, "-m", "ncut", "--version"], capture_output=True, text=True, check=True
    )
    assert shown.stdout.strip() == f"ncut {version}"


def test_the_version_is_nowhere_else() -> None:
    sources = [
        *(ROOT / "ncut").rglob("*.py"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / name for name in ("CMakeLists.txt", "mkdocs.yml", "README.md", "Makefile")),
    ]
    version = re.compile(rf"ncut(?:==|[ -])v?{re.escape(project_version())}\b|__version__ = ")
    found = [path for path in sources if path.is_file() and version.search(path.read_text("utf-8"))]
    assert found == []
    # The changelog may only be behind: its newest version is this one, or none is released yet.
    released = re.findall(
        r"^## \[?(\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M
    )
    assert released[:1] in ([], [project_version()])


@pytest.mark.slow
def test_the_sdist_is_the_checkout_without_unneeded_files(built: Built) -> None:
    assert built.sdist.name == f"ncut-{project_version()}.tar.gz"
    assert built.script.sdist_problems(built.sdist) == []
    assert built.sdist.stat().st_size < 5e6


@pytest.mark.slow
def test_the_wheel_is_the_package_and_the_compiled_module(built: Built) -> None:
    assert built.script.wheel_problems(built.wheel, built.sdist) == []
    assert built.script.metadata_problems(built.wheel) == []


@pytest.mark.slow
def test_problems_of_archives_are_seen(built: Built, tmp_path: Path) -> None:
    with built.script.zipfile.ZipFile(built.wheel) as archive:
        archive.extractall(tmp_path / "whole")
    (tmp_path / "whole" / "ncut" / "py.typed").unlink()
    (tmp_path / "whole" / "tests.py").touch()
    damaged = shutil.make_archive(str(tmp_path / "damaged"), "zip", tmp_path / "whole")
    wheel = Path(damaged).rename(tmp_path / "damaged.whl")
    problems = ["the wheel lacks ncut/py.typed", "the wheel has tests.py"]
    assert built.script.wheel_problems(wheel, built.sdist) == problems
    unwanted = ["ncut/_core.so", ".ci/run", "benchmarks/results/kernels.json", "a/__pycache__/b"]
    assert all(map(built.script.UNWANTED.search, unwanted))


@pytest.mark.slow
def test_a_changed_file_of_the_sdist_is_seen(built: Built, tmp_path: Path) -> None:
    with tarfile.open(built.sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.iterdir()
    with (unpacked / "csrc" / "rng.hpp").open("a") as source:
        source.write("//")
    with tarfile.open(tmp_path / "changed.tar.gz", "w:gz", compresslevel=1) as archive:
        archive.add(unpacked, unpacked.name)
    problems = built.script.sdist_problems(tmp_path / "changed.tar.gz")
    assert problems == ["the sdist's csrc/rng.hpp is another"]


@pytest.mark.slow
def test_the_wheel_runs_away_from_the_checkout(found: dict[str, Any]) -> None:
    assert found["version"] == project_version()
    networks = sorted((ROOT / "ncut" / "networks").glob("*.npz"))
    for network, ncuts in zip(networks, found["ncuts"], strict=True):
        report = ncut.analyze(network, shuffles=3, seed=2)
        assert ncuts == pytest.approx([report.ncut, *report.shuffled_ncuts], rel=1e-9)


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="runs on x86-64 only")
def test_instructions_of_newer_processors_are_in_files_for_them_only(built: Built) -> None:
    if shutil.which("objdump") is None:
        pytest.skip("objdump is not installed; apt-get install binutils")
    newer = set()
    for path in built.objects.glob("CMakeFiles/*.dir/**/*.o"):
        command = ["objdump", "-d", "--no-show-raw-insn", path]
        listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        if re.search(r"%[yz]mm\d|\tv[a-z0-9]+ +[^#]*%xmm", listing):
            newer.add(path.relative_to(built.objects).parts[1])
    assert newer == {"ncut_x86_64_v3.dir", "ncut_x86_64_v4.dir"}
    check = [sys.executable, ROOT / "scripts" / "kernel_objects.py", built.objects]
    subprocess.run(check, check=True)


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="runs on x86-64 only")
def test_a_processor_of_2008_gives_the_same(installed: Path, found: dict[str, Any]) -> None:
    """Fifteen seconds: each instruction of Python, NumPy and SciPy is emulated."""
    emulator = shutil.which("qemu-x86_64")
    if emulator is None:
        pytest.skip("qemu-x86_64 is not installed; apt-get install qemu-user")
    there = analysed(installed, emulator, "-cpu", "Nehalem")
    for ours, theirs in zip(found["ncuts"], there["ncuts"], strict=True):
        assert theirs == pytest.approx(ours, rel=1e-9)
    assert there["bounds"] == pytest.approx(found["bounds"], rel=1e-6)


@pytest.mark.parametrize("name", ["ci", "wheels", "release"])
def test_workflows_name_files_that_exist_and_pin_what_they_use(name: str) -> None:
    yaml = pytest.importorskip("yaml", reason=f"yaml is not installed; {HOW}")
    path = ROOT / ".github" / "workflows" / f"{name}.yml"
    if not path.is_file():
        pytest.skip("an sdist has no workflows; run this in a checkout")
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert workflow["permissions"] == {"contents": "read"}
    steps = [step for job in workflow["jobs"].values() for step in job.get("steps", [])]
    used = [step["uses"] for step in steps if "uses" in step]
    assert all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", action) for action in used), used
    commands = "\n".join(step.get("run", "") for step in steps)
    called = [job["uses"] for job in workflow["jobs"].values() if "uses" in job]
    for file in [*re.findall(r"(?:scripts|\.ci)/\S+", commands), *called]:
        assert (ROOT / file).is_file(), file


def test_release_tools_are_pinned_by_hash() -> None:
    pinned = ROOT / ".github" / "requirements-release.txt"
    if not pinned.is_file():
        pytest.skip("an sdist has no workflows; run this in a checkout")
    lines = [line for line in pinned.read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w-]+==[\w.]+ --hash=sha256:[0-9a-f]{64}", line) for line in lines)
    names = {line.partition("==")[0] for line in lines}
    content = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    needed = {re.split("[>=<]", one)[0] for one in content["build-system"]["requires"]}
    assert needed | {"build"} <= names
    text = (ROOT / ".github" / "workflows" / "wheels.yml").read_text(encoding="utf-8")
    installs = [line for line in text.splitlines() if "pip install" in line]
    assert len(installs) == 2
    assert all("--require-hashes" in line and pinned.name in line for line in installs)


def test_the_bill_of_materials_has_the_archives_and_what_they_need(tmp_path: Path) -> None:
    if not (ROOT / ".github").is_dir():
        pytest.skip("an sdist has no workflows; run this in a checkout")
    import hashlib

    (tmp_path / "ncut-0.tar.gz").write_bytes(b"x")
    out = tmp_path / "bill.json"
    run = [sys.executable, ROOT / "scripts" / "sbom.py", tmp_path, out]
    subprocess.run(run, check=True)
    found = json.loads(out.read_text())
    by_name = {one["name"]: one for one in found["components"]}
    digest = hashlib.sha256(b"x").hexdigest()
    assert by_name["ncut-0.tar.gz"]["hashes"] == [{"alg": "SHA-256", "content": digest}]
    assert {"numpy", "scipy", "ml-dtypes", "pybind11"} <= by_name.keys()
    assert by_name["pybind11"]["scope"] == "required"  # it is compiled in
    assert found["metadata"]["component"]["version"] == ncut.__version__
    references = {one["bom-ref"] for one in found["components"]}
    assert set(found["dependencies"][0]["dependsOn"]) <= references
    (tmp_path / "ncut-0.tar.gz").unlink()
    assert subprocess.run(run, capture_output=True, check=False).returncode == 1


def test_wheels_are_built_for_every_supported_python() -> None:
    content = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    settings = content["tool"]["cibuildwheel"]
    least = int(content["project"]["requires-python"].removeprefix(">=3."))
    built = [int(number) for number in re.findall(r"cp3(\d+)-\*", settings["build"])]
    assert built == list(range(least, built[-1] + 1))
    for path in re.findall(r"\{project\}/(\S+)", " ".join(settings["test-command"])):
        assert (ROOT / path).exists(), path
