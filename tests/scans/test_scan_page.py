"""A scan's HTML page in a browser: drawn, within its window, and without any network."""

from __future__ import annotations

import csv
import io

import pytest
from browser import DESKTOP, PHONE, downloaded, opened, overflow
from scan_samples import OPTIONS, write_model

import ncut

for _module in ("jinja2", "pandas"):
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


@pytest.mark.parametrize(("width", "scheme"), [(PHONE, "dark"), (DESKTOP, "light")])
def test_every_picture_is_drawn_and_nothing_overflows(chromium, path, width, scheme):
    with opened(chromium, path, width=width, scheme=scheme) as page:
        assert overflow(page) == 0
        titles = page.locator("figure").evaluate_all("all => all.map(one => one.ariaLabel)")
        assert titles == ["The n-cut over training", "Z over training", "All models"]
        boxes = page.locator(".chart").evaluate_all(
            "all => all.map(one => one.getBoundingClientRect()).map(box => [box.width, box.height])"
        )
        assert all(200 < wide < width and high > 40 for wide, high in boxes)


def test_pictures_have_a_point_for_each_model(chromium, path, scan):
    done = scan.to_frame().query("status == 'done'")
    with opened(chromium, path) as page:
        tips = (
            page.locator(".pictured")
            .first.locator(".dot")
            .evaluate_all("all => all.map(one => one.dataset.tip)")
        )
        assert [float(tip.rpartition(" ")[2]) for tip in tips] == [
            pytest.approx(value, abs=6e-4) for value in done["ncut"]
        ]
        assert page.locator(".models .point").count() == 3


def test_models_that_are_no_run_are_points_without_a_line(chromium, tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    for name in ("mlp-0-init", "mlp-0-pruned", "cnn-1-init"):
        write_model(folder / f"{name}.npz", len(name))
    scan = ncut.scan(folder, out=tmp_path / "out", backend="threading", **OPTIONS)
    assert scan.to_frame()["step"].isna().all()
    path = tmp_path / "scan.html"
    scan.to_html(path)
    with opened(chromium, path) as page:
        titles = page.locator("figure").evaluate_all("all => all.map(one => one.ariaLabel)")
        assert titles == ["All models"]
        names = page.locator(".models .name").all_inner_texts()
        assert sorted(names) == ["cnn-1-init.npz", "mlp-0-init.npz", "mlp-0-pruned.npz"]
    steps = ncut.Scan(tmp_path / "out", step_pattern="-([0-9]+)-").to_frame()["step"]
    assert sorted(steps) == [0, 0, 1]


def test_a_click_on_a_column_sorts(chromium, path):
    with opened(chromium, path) as page:
        column = page.locator("#models th button", has_text="n-cut").first
        for order in (1, -1):
            column.click()
            cells = page.locator("#models tbody tr").evaluate_all(
                "all => all.map(row => parseFloat(row.cells[2].textContent))"
            )
            assert cells == sorted(cells)[::order]


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
