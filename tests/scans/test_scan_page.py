"""A scan's HTML page in a browser: drawn, within its window, and without any network."""

from __future__ import annotations

import csv
import io

import pytest
from browser import DESKTOP, PHONE, downloaded, opened, overflow
from scan_samples import OPTIONS, write_model

import ncut

for _module in ("plotly", "jinja2", "pandas"):
    pytest.importorskip(_module, reason="pip install 'ncut[plot]'")


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    """Three checkpoints, and a broken file."""
    folder = tmp_path_factory.mktemp("scan")
    models = folder / "models"
    models.mkdir()
    for number in range(3):
        write_model(models / f"step-{number}.npz", number)
    (models / "broken.npz").write_bytes(b"not a model")
    return ncut.scan(models, out=folder / "out", backend="threading", **OPTIONS)


@pytest.fixture(scope="module")
def path(scan, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "scan.html"
    scan.to_html(path)
    return path


def fills(page):
    texts = page.locator(".js-plotly-plot .xtick text, .js-plotly-plot .xtitle")
    return set(texts.evaluate_all("all => all.map(one => getComputedStyle(one).fill)"))


@pytest.mark.parametrize(("width", "scheme"), [(PHONE, "dark"), (DESKTOP, "light")])
def test_every_picture_is_drawn_and_nothing_overflows(chromium, path, width, scheme):
    with opened(chromium, path, width=width, scheme=scheme) as page:
        assert overflow(page) == 0
        titles = page.locator("section.chart h3").all_inner_texts()
        assert titles == ["The course of the n-cut", "The course of Z", "All models"]
        boxes = page.locator(".js-plotly-plot .main-svg:first-child").evaluate_all(
            "all => all.map(one => one.getBoundingClientRect()).map(box => [box.width, box.height])"
        )
        assert len(boxes) == 3
        assert all(wide > 200 and high > 200 for wide, high in boxes)
        assert all(wide < width for wide, _ in boxes)
        assert fills(page) == {page.evaluate("getComputedStyle(document.body).color")}
        page.emulate_media(color_scheme="light" if scheme == "dark" else "dark")
        assert fills(page) == {page.evaluate("getComputedStyle(document.body).color")}


def test_pictures_have_a_point_for_each_model(chromium, path, scan):
    done = scan.to_frame().query("status == 'done'").sort_values("path")
    with opened(chromium, path) as page:
        course = page.locator(".js-plotly-plot").first
        values = course.evaluate("one => one.data.map(trace => Array.from(trace.y))")
        assert done["ncut"].tolist() in values
        assert page.locator(".js-plotly-plot").nth(2).locator(".points path").count() == 3


def test_tables_can_be_saved(chromium, path, scan):
    with opened(chromium, path) as page:
        name, text = downloaded(page, page.locator('[data-table="models"]'))
        assert name == "models.csv"
        rows = list(csv.reader(io.StringIO(text)))
        shown = page.locator("#models tbody tr").evaluate_all(
            "all => all.map(row => [...row.cells].map(cell => cell.textContent.trim()))"
        )
        assert len(rows) == 4
        assert [[cell.replace("\N{MINUS SIGN}", "-") for cell in row] for row in shown] == rows[1:]
        best = {
            row["path"].rpartition("/")[2]: row["ncut"] for _, row in scan.to_frame().iterrows()
        }
        for row in rows[1:]:
            assert f"{best[row[0].rpartition('/')[2]]:.3f}" in row
        name, text = downloaded(page, page.locator('[data-table="failed"]'))
        assert name == "failed.csv"
        assert "not an .npz file" in text


def test_names_of_files_are_text_only(chromium, tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    for number in range(2):
        write_model(folder / f"<img src=x onerror=alert({number})>-{number}.npz", number)
    path = tmp_path / "scan.html"
    ncut.scan(folder, out=tmp_path / "out", backend="threading", **OPTIONS).to_html(path)
    with opened(chromium, path) as page:
        assert page.locator("img").count() == 0
        assert "<img src=x" in page.locator("#models").inner_text()
