"""Fixtures of the tests of the paper's experiments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest


@pytest.fixture
def narrow_vgg(monkeypatch: pytest.MonkeyPatch) -> None:
    """An eighth of the VGG's channels: the same layers, a small share of the work."""
    networks = pytest.importorskip("ncut.paper.networks", reason="pip install 'ncut[torch]'")
    narrow = (one if one == "pool" else (one[0] // 8, one[1]) for one in networks.VGG)
    monkeypatch.setattr(networks, "VGG", tuple(narrow))


@pytest.fixture
def batch(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Set the batch size of all networks, so that a few examples make several steps."""
    networks = pytest.importorskip("ncut.paper.networks", reason="pip install 'ncut[torch]'")

    def set_batch(size: int) -> None:
        for name, network in networks.NETWORKS.items():
            monkeypatch.setitem(networks.NETWORKS, name, replace(network, batch=size))

    set_batch(16)
    return set_batch
