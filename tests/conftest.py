"""Fixtures for all tests, and the settings of hypothesis."""

from __future__ import annotations

import gc
import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import running_chromium
from forking import Commands
from hypothesis import settings
from samples import MODEL_NAMES

from ncut.spectral.solvers import SOLVERS

# The same examples in every run, and no failure because a machine is busy.
settings.register_profile("ncut", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("ncut")


@pytest.fixture(scope="session", autouse=True)
def _no_waiting_for_the_disk() -> Iterator[None]:
    """Files of tests need not survive a power cut; there are thousands."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect garbage seldom: not during imports, and later a seventh as often as Python does.

    What was imported and collected is never looked through. Garbage collection took a tenth of the
    time of imports, and of tests that follow models.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.set_threshold(5000)
        gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests begin first: at the end of a run, no worker is left with a long one."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(scope="session")
def models_folder() -> Path:
    """The folder with the trained networks that some tests measure."""
    folder = os.environ.get("NCUT_TEST_MODELS")
    if not folder:
        pytest.skip(
            "set NCUT_TEST_MODELS to the folder with "
            + ", ".join(f"{name}.npz" for name in MODEL_NAMES)
        )
    missing = [name for name in MODEL_NAMES if not (Path(folder) / f"{name}.npz").is_file()]
    assert not missing, f"NCUT_TEST_MODELS lacks {missing}"
    return Path(folder)


@pytest.fixture(scope="session")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    """Runs `python -m ncut`, each time in a separate process."""
    running = Commands(tmp_path_factory.mktemp("commands"))
    yield running
    running.close()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A headless browser."""
    with running_chromium() as browser:
        yield browser


@pytest.fixture(scope="session", params=["auto", *SOLVERS])
def solver(request: pytest.FixtureRequest) -> str:
    """Each eigensolver in turn."""
    return str(request.param)
