"""A folder of small models, and scans that need no processes."""

from __future__ import annotations

from functools import partial

import pytest
from scan_samples import OPTIONS, write_model

import ncut


@pytest.fixture
def models(tmp_path):
    """Three networks and a broken file."""
    folder = tmp_path / "models"
    folder.mkdir()
    for number in range(3):
        write_model(folder / f"step-{number}.npz", number)
    (folder / "broken.npz").write_bytes(b"not a model")
    return folder


@pytest.fixture
def scan(tmp_path):
    """`ncut.scan` into a folder, in threads."""
    return partial(ncut.scan, out=tmp_path / "out", backend="threading", **OPTIONS)
