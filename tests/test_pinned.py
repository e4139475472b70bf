"""Reports of fixed networks and settings equal their pinned versions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pinned import CASES, documents, numbers

PINNED = json.loads(Path(__file__).with_name("pinned_reports.json").read_text(encoding="utf-8"))


def same(found: Any, pinned: Any) -> bool:
    if isinstance(pinned, dict):
        return found.keys() == pinned.keys() and all(same(found[n], pinned[n]) for n in pinned)
    if isinstance(pinned, list):
        return len(found) == len(pinned) and all(map(same, found, pinned))
    if isinstance(pinned, float):
        return bool(found == pytest.approx(pinned, rel=1e-6, abs=1e-6))
    return bool(found == pinned)


def test_texts_of_reports_are_unchanged() -> None:
    """About ten seconds: thirty-four whole measurements."""
    pytest.importorskip("torch", reason="pip install torch")
    pytest.importorskip("pyarrow", reason="pip install 'ncut[scan]'")
    assert PINNED.keys() == CASES.keys()
    different = [name for name, one in documents() if not same(numbers(one), PINNED[name])]
    assert different == []


def test_a_changed_number_would_be_noticed() -> None:
    pinned = PINNED["chain"]
    assert same(pinned, json.loads(json.dumps(pinned)))
    assert not same({**pinned, "p_value": pinned["p_value"] + 1e-3}, pinned)
    assert not same({**pinned, "eigenvalues": pinned["eigenvalues"][1:]}, pinned)
