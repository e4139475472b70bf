"""What tests of several files about the paper share."""

from __future__ import annotations

import pytest


@pytest.fixture
def narrow_vgg(monkeypatch: pytest.MonkeyPatch) -> None:
    """An eighth of the VGG's channels: the same layers, a small share of the work."""
    networks = pytest.importorskip("ncut.paper.networks", reason="pip install 'ncut[torch]'")
    narrow = (one if one == "pool" else (one[0] // 8, one[1]) for one in networks.VGG)
    monkeypatch.setattr(networks, "VGG", tuple(narrow))
