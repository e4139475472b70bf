"""Pages in a headless Chromium: opened as a user has them, with nothing from the network."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

DESKTOP, PHONE = 1280, 390
# A page that is opened from a file may ask for itself, and for what its script has made.
LOCAL = ("file:", "blob:", "data:")


@contextmanager
def running_chromium() -> Iterator[Any]:
    """A browser of playwright's; skips the test where there is none."""
    api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    path = os.environ.get("NCUT_CHROMIUM") or shutil.which("chromium")
    if path is None:
        pytest.skip("install Chromium (Debian's package chromium), or set NCUT_CHROMIUM=path")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-gpu", "--headless=new"]
        )
        yield browser
        browser.close()


@contextmanager
def opened(
    browser: Any, path: Path, *, width: int = DESKTOP, scheme: str = "light", script: bool = True
) -> Iterator[Any]:
    """The page of a file; in the end it must have had no error and no request to a network."""
    context = browser.new_context(
        viewport={"width": width, "height": 844},
        color_scheme=scheme,
        java_script_enabled=script,
        has_touch=width == PHONE,
    )
    context.set_default_timeout(10_000)
    page = context.new_page()
    problems: list[str] = []
    page.on(
        "console",
        lambda said: problems.append(said.text) if said.type in ("error", "warning") else None,
    )
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on(
        "request",
        lambda asked: None if asked.url.startswith(LOCAL) else problems.append(asked.url),
    )
    page.on("dialog", lambda dialog: (problems.append(dialog.message), dialog.dismiss()))
    page.goto(path.resolve().as_uri())
    yield page
    context.close()
    assert problems == []


def overflow(page: Any) -> int:
    """By how many pixels the page is wider than its window."""
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    return int(page.evaluate(wide))


def downloaded(page: Any, button: Any) -> tuple[str, str]:
    """Name and text of the file that a button saves."""
    with page.expect_download() as download:
        button.click()
    found = download.value
    return found.suggested_filename, Path(found.path()).read_bytes().decode("utf-8")
