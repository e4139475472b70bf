"""Fixtures of the readers' tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from ncut.extract import registry


@pytest.fixture(autouse=True)
def _same_weights() -> None:
    """The same random weights of ONNX models in any order of the tests."""
    nets = sys.modules.get("onnx_nets")
    if nets is not None:
        nets.RNG.bit_generator.state = nets.SEEDED


@pytest.fixture
def doubles() -> Iterator[None]:
    """Double precision and one thread, so that expected values hold to the last digits."""
    torch = pytest.importorskip("torch", reason="pip install 'ncut[torch]'")
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def declared() -> Iterator[None]:
    """Rules that a test declares are gone after it."""
    known = dict(registry.declared)
    yield
    registry.declared.clear()
    registry.declared.update(known)
