"""Make the documentation's pictures of the demo's report: docs/page/*.png.

Needs a Chromium (Debian's package chromium, or NCUT_CHROMIUM=path), and playwright.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

FOLDER = Path(__file__).parent.parent / "docs" / "page"
MOST_BYTES = 250_000


def answer(page: Page) -> None:
    """The answer, and what comes after it."""
    page.locator("#network-2").evaluate("one => one.scrollIntoView()")


def clusters(page: Page) -> None:
    """The pictures of the second network, with a cluster chosen."""
    article = page.locator("#network-2")
    article.locator(".map").evaluate("one => one.scrollIntoView()")
    article.locator(".chips button").nth(4).click()


# Name, width and height of the window, colour scheme, and what to show.
PICTURES = (
    ("1440", 1440, 1500, "light", answer),
    ("1024", 1024, 1100, "light", clusters),
    ("390", 390, 844, "dark", answer),
)


def main() -> None:
    """Run the demo, and take screenshots of its page."""
    chromium = os.environ.get("NCUT_CHROMIUM") or shutil.which("chromium")
    if chromium is None:
        sys.exit("install Chromium (Debian's package chromium), or set NCUT_CHROMIUM=path")
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        path = Path(folder) / "demo.html"
        subprocess.run([sys.executable, "-m", "ncut", "demo", "--out", path], check=True)
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu", "--headless=new"]
        )
        for name, width, height, scheme, show in PICTURES:
            page = browser.new_page(
                viewport={"width": width, "height": height}, color_scheme=scheme
            )
            page.goto(path.as_uri())
            show(page)
            save(page.screenshot(), FOLDER / f"{name}.png")
        browser.close()


def save(picture: bytes, path: Path) -> None:
    """A palette of 160 colours, visually identical, makes the file much smaller."""
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    image.quantize(160, dither=Image.Dither.NONE).save(path, optimize=True)
    size = path.stat().st_size
    print(f"{path}: {size / 1000:.0f} kB")
    if size > MOST_BYTES:
        sys.exit(f"{path}: too large for a repository")


if __name__ == "__main__":
    main()
