"""Write the software bill of materials of a release: python scripts/sbom.py DIST OUT

CycloneDX 1.6, JSON: the archives in DIST with their SHA-256, their run-time requirements from the
metadata, and the build requirements with the hashes of `.github/requirements-release.txt`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PINNED = ROOT / ".github" / "requirements-release.txt"
COMPILED_IN = ("pybind11",)
"""Build requirements whose code is in the compiled module."""


def package(name: str, version: str = "", **more: Any) -> dict[str, Any]:
    """A component that comes from the Python Package Index."""
    normal = re.sub(r"[-_.]+", "-", name).lower()
    purl = f"pkg:pypi/{normal}" + (f"@{version}" if version else "")
    known = {"version": version} if version else {}
    return {"type": "library", "name": normal, **known, "purl": purl, "bom-ref": purl, **more}


def bill(dist: Path) -> dict[str, Any]:
    """The bill of the archives in a folder."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    archives = sorted(path for path in dist.iterdir() if path.suffix in (".whl", ".gz"))
    if not archives:
        raise SystemExit(f"{dist}: no wheels and no sdist")
    files = [
        {
            "type": "file",
            "name": path.name,
            "bom-ref": path.name,
            "hashes": [
                {"alg": "SHA-256", "content": hashlib.sha256(path.read_bytes()).hexdigest()}
            ],
        }
        for path in archives
    ]
    needed = []
    for requirement in project["dependencies"]:
        name = re.match(r"[\w.-]+", requirement)
        assert name is not None, requirement
        bounds = [{"name": "requirement", "value": requirement}]
        needed.append(package(name[0], scope="required", properties=bounds))
    built = []
    for name, version, digest in pins():
        scope = "required" if name in COMPILED_IN else "excluded"
        hashes = [{"alg": "SHA-256", "content": digest}]
        built.append(package(name, version, scope=scope, hashes=hashes))
    ours = package("ncut", project["version"], licenses=[{"license": {"id": project["license"]}}])
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {**ours, "description": project["description"]}},
        "components": [*files, *needed, *built],
        "dependencies": [{"ref": ours["bom-ref"], "dependsOn": [one["bom-ref"] for one in needed]}],
    }


def pins() -> list[tuple[str, str, str]]:
    """Name, version and SHA-256 of a release's build requirements."""
    lines = PINNED.read_text(encoding="utf-8").splitlines()
    return re.findall(
        r"^([\w-]+)==(\S+) --hash=sha256:([0-9a-f]{64})$", "\n".join(lines), re.MULTILINE
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dist", type=Path, help="the folder with the archives")
    parser.add_argument("out", type=Path, help="the file to write")
    chosen = parser.parse_args(arguments)
    chosen.out.write_text(json.dumps(bill(chosen.dist), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
