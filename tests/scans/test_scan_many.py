"""The script that makes models of many kinds, scans them and reads the rows back."""

from __future__ import annotations

import os
import re
import runpy
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "scan_many.py"


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_models_of_many_kinds(tmp_path, monkeypatch, capsys):
    """Half a minute: three processes of the scan import torch, and networks are trained."""
    more = os.environ.get("NCUT_TEST_MODELS")
    options = ["--models", more] if more else []
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), str(tmp_path), "--shuffles", "2", *options])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    told = re.search(r"(\d+) models measured and 8 refused", capsys.readouterr().out)
    assert told
    assert int(told[1]) >= 32
