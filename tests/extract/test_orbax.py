"""Checkpoints that Orbax wrote have the graph of their parameters; damaged ones are refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ncut
from ncut.errors import InputError, ModelError
from ncut.extract.formats import format_of
from ncut.extract.readers.orbax_folder import read_orbax
from ncut.scans.sources import find_sources

pytest.importorskip("tensorstore", reason="pip install tensorstore")
FILES = Path(__file__).parent / "orbax_files.zip"
"""Written by make_orbax_files.py beside it."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("orbax")
    shutil.unpack_archive(FILES, home)
    return home


def values(files: Path, kind: str) -> dict[str, Any]:
    """The kernels of a checkpoint, as they were before they were saved."""
    with np.load(files / "values.npz") as content:
        return {n.removeprefix(f"{kind}."): content[n] for n in content if n.startswith(f"{kind}.")}


@pytest.mark.parametrize("kind", ["ocdbt", "zarr3", "plain"])
def test_a_training_state_is_read_as_its_parameters(kind: str, files: Path) -> None:
    kernels = values(files, kind)
    found = read_orbax(files / kind)
    assert {*found} == {
        *(f"{name}.{part}" for name in kernels for part in ("weight", "bias")),
        *(f"BatchNorm_0.{part}" for part in ("weight", "bias", "running_mean", "running_var")),
    }
    for name, kernel in kernels.items():
        turned = np.moveaxis(kernel, (-1, -2), (0, 1))
        np.testing.assert_array_equal(found[f"{name}.weight"].astype("f4"), turned)
    np.testing.assert_array_equal(found["BatchNorm_0.running_var"], np.linspace(1, 2, 6))
    graph = ncut.graph(files / kind, layers=["Dense_2.weight", "Dense_3.weight"])
    expected = ncut.graph([kernels["Dense_2"], kernels["Dense_3"]])
    np.testing.assert_allclose(graph.adjacency.toarray(), expected.adjacency.toarray(), rtol=1e-6)


def test_a_managers_step_and_a_module_of_nnx(files: Path) -> None:
    with pytest.raises(ModelError, match=r"several checkpoints; pass one, such as .*manager/2"):
        ncut.graph(files / "manager")
    for kind, path in (("manager", files / "manager/2"), ("nnx", files / "nnx")):
        kernels = values(files, kind)
        found = read_orbax(path)
        for name, kernel in kernels.items():
            turned = np.moveaxis(kernel, (-1, -2), (0, 1))
            np.testing.assert_array_equal(found[f"{name}.weight"], turned)
    assert ncut.graph(files / "nnx").n_edges == 5 * 6 + 6 * 4
    assert [source.step for source in find_sources([files / "manager"])] == [1, 2]


def test_a_key_chooses_and_moments_are_never_weights(files: Path) -> None:
    chosen = read_orbax(files / "plain", "opt_state/0")
    assert not any(array.any() for name, array in chosen.items() if "Norm" not in name)
    with pytest.raises(InputError, match="no 'ema'"):
        read_orbax(files / "plain", "ema")
    assert format_of(files / "plain").extra == "orbax"


def changed(path: Path, to: Path, change: Any) -> Path:
    """A copy of a checkpoint with other names of its arrays."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(path, to)
    metadata = json.loads((to / "_METADATA").read_text())
    change(metadata)
    (to / "_METADATA").write_text(json.dumps(metadata))
    return to


def test_damaged_checkpoints_are_refused(files: Path, tmp_path: Path) -> None:
    to = tmp_path / "damaged"

    def refused(message: str, path: Path = to) -> None:
        with pytest.raises(ModelError, match=message):
            read_orbax(path)

    one = changed(files / "plain", to, lambda metadata: None)
    next((one / "params.Dense_2.kernel").glob("[0-9]*")).unlink()
    refused("'params.Dense_2.kernel' cannot be read: .* is missing")
    settings = files / "plain/params.Dense_2.kernel/.zarray"
    array = json.loads(settings.read_text())
    for key, sizes, message in (
        ("shape", [10**6, 10**6], "would take 4,000,000,000,000 bytes"),
        ("chunks", [10**5, 10**4], "a chunk of .* would take"),
        ("shape", [2**20, 4], "the list of chunks of .* would take"),
    ):
        shutil.copytree(files / "plain", to, dirs_exist_ok=True)
        (to / settings.relative_to(files / "plain")).write_text(json.dumps({**array, key: sizes}))
        refused(message)

    def elsewhere(metadata: dict[str, Any]) -> None:
        for entry in metadata["tree_metadata"].values():
            entry["key_metadata"][0]["key"] = f"../{entry['key_metadata'][0]['key']}"

    for kind in ("plain", "ocdbt"):
        changed(files / kind, to, elsewhere)
        refused("cannot be read: ")
    changed(files / "ocdbt", to, lambda metadata: metadata.pop("tree_metadata"))
    refused("has no 'tree_metadata'")
    (to / "_METADATA").unlink()
    refused("has no _METADATA with the names of its arrays")
