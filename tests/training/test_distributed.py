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
    runs = [
        (rank, world, tmp_path / f"rank-{rank}-of-{world}.pt")
        for rank, world in ((0, 2), (1, 2), (0, 1))
    ]
    started = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(rank), str(world), str(tmp_path / "meet"), str(out)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, world, out in runs
    ]
    for process, (_, world, _) in zip(started, runs, strict=True):
        printed, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
        assert printed.count("is a DTensor, of which this process holds a part") == 2 * (world > 1)
    first, second, alone = (torch.load(out, weights_only=True) for *_, out in runs)
    for a, b, c in zip(first, second, alone, strict=True):
        assert torch.equal(a, b)
        torch.testing.assert_close(a, c, rtol=1e-4, atol=1e-6)
