"""Runs a module's tests with the kernels of every instruction set that this machine has."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ncut import kernels


@pytest.fixture(scope="module", params=kernels.instruction_sets())
def each_instruction_set(request: pytest.FixtureRequest) -> Iterator[str]:
    """One instruction set, in use for a module's tests."""
    before = kernels.build()[1]
    kernels.use_instruction_set(request.param)
    yield request.param
    kernels.use_instruction_set(before)
