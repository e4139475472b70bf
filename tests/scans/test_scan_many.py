"""The script that makes models of many kinds, scans them and reads the rows back."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "scan_many.py"


@pytest.mark.slow
def test_models_of_many_kinds(tmp_path):
    """Half a minute: five processes import torch, and networks are trained."""
    more = os.environ.get("NCUT_TEST_MODELS")
    options = ["--models", more] if more else []
    result = subprocess.run(
        [sys.executable, SCRIPT, tmp_path, "--shuffles", "2", *options],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    told = re.search(r"(\d+) models measured and 8 refused", result.stdout)
    assert told, result.stdout
    assert int(told[1]) >= 32
