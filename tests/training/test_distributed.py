"""Regularizers and CutDropout under DistributedDataParallel: two processes on gloo."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).with_name("distributed_run.py")


@pytest.mark.skipif(
    not torch.distributed.is_available(),
    reason="torch has no torch.distributed: install one that has",
)
def test_two_processes_train_what_one_does_and_shards_are_refused(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, tmp_path], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    first, second, alone = (
        torch.load(tmp_path / f"rank-{run}.pt", weights_only=True)
        for run in ("0-of-2", "1-of-2", "0-of-1")
    )
    assert [len(found["said"]) for found in (first, second, alone)] == [2, 2, 0]
    for said in first["said"] + second["said"]:
        assert "is a DTensor, of which this process holds a part" in said
    for a, b, c in zip(*(found["parameters"] for found in (first, second, alone)), strict=True):
        assert torch.equal(a, b)
        torch.testing.assert_close(a, c, rtol=1e-4, atol=1e-6)
