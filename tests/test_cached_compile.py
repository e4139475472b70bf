"""Objects are copied only where the same code, flags and strictness would give them again."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "cached_compile.py"
COMPILER = shutil.which("c++")
pytestmark = pytest.mark.skipif(COMPILER is None, reason="install a C++ compiler")


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """A copy of the script, which keeps its objects beside the copy."""
    (tmp_path / "scripts").mkdir()
    return Path(shutil.copy(SCRIPT, tmp_path / "scripts"))


def compiled(script: Path, code: str, *flags: str) -> bytes | None:
    """The object of some code; None if it was not compiled. The list of headers is always there."""
    folder = script.parent
    (folder / "a.cpp").write_text(code)
    for name in ("a.o", "a.d"):
        (folder / name).unlink(missing_ok=True)
    command = [COMPILER, *flags, "-MD", "-MT", "a.o", "-MF", "a.d", "-o", "a.o", "-c", "a.cpp"]
    subprocess.run([sys.executable, script, *command], cwd=folder, stderr=subprocess.DEVNULL)
    assert "a.cpp" in (folder / "a.d").read_text()
    return (folder / "a.o").read_bytes() if (folder / "a.o").exists() else None


def kept(script: Path) -> int:
    return len([*(script.parents[1] / "build" / "compiled").glob("*.o")])


def test_what_differs_is_compiled(script: Path) -> None:
    one = compiled(script, "int f() { return ONE; }", "-DONE=1")
    assert one
    assert compiled(script, "int f() {  return ONE;  }  // the same", "-DONE=1") == one
    assert kept(script) == 1
    assert compiled(script, "int f() { return ONE; }", "-DONE=2") != one
    assert kept(script) == 2
    compiled(script, "int f() { return ONE; }", "-DONE=1", "-O2")
    assert kept(script) == 3
    compiled(script, "int f() { return ONE; }", "-DONE=3", "-g")
    assert kept(script) == 3


def test_warnings_are_errors_where_they_should_be(script: Path) -> None:
    unused = "void f() { int unused; }"
    assert compiled(script, unused, "-Wall")
    assert compiled(script, unused, "-Wall", "-Werror") is None
    strict = compiled(script, "void f() {}", "-Wall", "-Werror")
    assert kept(script) == 2
    assert compiled(script, "void f() {}", "-Wall") == strict
    assert kept(script) == 2
