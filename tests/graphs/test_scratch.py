"""Graphs with their weights in files: the same numbers, and next to no memory."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ml_dtypes import bfloat16
from samples import random_chain

import ncut
from ncut.graphs import scratch
from ncut.graphs.scratch import in_scratch_file


@pytest.fixture(autouse=True)
def _all_blocks_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "SMALLEST", 1)


def is_mapped(weights: Any) -> bool:
    return isinstance(weights, np.memmap) and weights.mode == "r"


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, bfloat16])
def test_a_block_reads_the_same_from_its_file(dtype: Any, tmp_path: Path) -> None:
    weights = np.arange(12).reshape(3, 4).astype(dtype)
    for given in (weights, weights.T, weights[:, 1:]):
        found: Any = in_scratch_file(given, tmp_path)
        assert is_mapped(found)
        assert (found.dtype, found.flags.c_contiguous) == (weights.dtype, True)
        np.testing.assert_array_equal(found, given)
    assert not [*tmp_path.iterdir()]


def test_results_from_a_mapped_block_are_in_memory_until_moved(
    tmp_path: Path,
) -> None:
    mapped: Any = in_scratch_file(np.ones((3, 4)), tmp_path)
    assert in_scratch_file(mapped, tmp_path) is mapped
    doubled = mapped * 2
    assert not is_mapped(doubled)
    assert is_mapped(in_scratch_file(doubled, tmp_path))
    assert in_scratch_file(doubled, None) is doubled


@pytest.mark.parametrize(
    ("null", "normalize"), [("layer", "none"), ("layer-nonzero", "l2"), ("strength", "none")]
)
def test_reports_are_the_same_and_every_block_is_in_a_file(
    null: str, normalize: str, tmp_path: Path
) -> None:
    weights = random_chain(3, (30, 40, 20), dtype=np.float32)
    options: Any = {"k": 3, "shuffles": 3, "null": null, "normalize": normalize}
    graph = ncut.graph(weights, scratch=tmp_path)
    assert ncut.analyze(graph, **options) == ncut.analyze(weights, **options)
    shuffled = ncut.shuffle(graph, null)
    assert all(is_mapped(block.weights) for g in (graph, shuffled) for block in g.blocks)


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(scratch.tempfile, "TemporaryFile", refuse)
    with pytest.raises(ncut.InputError, match=r"scratch: no room for a block of 96 bytes"):
        in_scratch_file(np.ones((3, 4)), tmp_path)


@pytest.mark.parametrize("folder", ["missing", 3])
def test_other_than_folders_are_refused(folder: Any, tmp_path: Path) -> None:
    given = tmp_path / folder if isinstance(folder, str) else folder
    with pytest.raises(ncut.InputError, match="scratch: must be an existing folder"):
        ncut.graph([[[1.0, 2.0]]], scratch=given)
