"""Write ncut/_core.pyi from the compiled module, or check that it is up to date."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

STUB = Path(__file__).parent.parent / "ncut" / "_core.pyi"


def generate() -> str:
    """The stub of the installed module, in the project's style."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["pybind11_stubgen", "ncut._core", "--exit-code", "-o", folder]
        subprocess.run([sys.executable, "-m", *command], check=True, capture_output=True)
        stub = Path(folder, "ncut", "_core.pyi")
        for step in (["check", "--fix", "--exit-zero", "--quiet"], ["format", "--quiet"]):
            config = ["--config", str(STUB.parent.parent / "pyproject.toml")]
            command = [sys.executable, "-m", "ruff", *step, *config, str(stub)]
            subprocess.run(command, check=True, capture_output=True)
        return stub.read_text()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only compare, exit 1 if it differs")
    text = generate()
    if not parser.parse_args().check:
        STUB.write_text(text)
        return 0
    if STUB.exists() and STUB.read_text() == text:
        return 0
    print("ncut/_core.pyi does not match the compiled module: run  make stubs", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
