"""The HTML page in a browser: drawn, answering, and without anything from the network."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from browser import DESKTOP, PHONE, downloaded, opened, overflow

import ncut
from ncut import networks
from ncut.report import Profile, Report, html_page

pytest.importorskip("jinja2", reason="pip install 'ncut[plot]'")

PICTURES = ["layers", "flow", "clusters", "pixels", "shuffles", "eigenvalues", "gaps", "scores"]
EVIL = "</script><script>throw 1</script><img src=x onerror=alert(2)>\"'&{{ 7*7 }}"


class Measured(NamedTuple):
    report: Report
    profile: Profile


@pytest.fixture(scope="module")
def measured():
    """A trained network, with a profile."""
    weights = networks.load("digits-pruned")
    return Measured(
        ncut.analyze(weights, name="digits", k=6, shuffles=20),
        ncut.profile(weights, range(2, 9), shuffles=8),
    )


@pytest.fixture(scope="module")
def path(measured, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    measured.report.to_html(path, profile=measured.profile)
    return path


@pytest.fixture(scope="module")
def page(chromium, path):
    """The page on a desktop, for tests that leave it as they found it."""
    with opened(chromium, path) as page:
        yield page


def table(text):
    return list(csv.reader(io.StringIO(text)))


def outside(page):
    """Shapes and texts of pictures that stick out of their figures."""
    return page.evaluate(
        """[...document.querySelectorAll("figure")].flatMap(figure => {
            const frame = figure.getBoundingClientRect();
            return [...figure.querySelectorAll("span, path, rect, td, i")].filter(one => {
                const box = one.getBoundingClientRect();
                return box.width && (box.left < frame.left - 1 || box.right > frame.right + 1);
            }).map(one => figure.dataset.figure + ": " + one.className + " " + one.textContent);
        })"""
    )


@pytest.mark.parametrize(
    ("width", "scheme"), [(PHONE, "dark"), (1024, "light"), (1440, "light"), (1440, "dark")]
)
def test_every_picture_is_drawn_and_fits(chromium, path, width, scheme):
    with opened(chromium, path, width=width, scheme=scheme) as page:
        assert overflow(page) == 0
        boxes = page.eval_on_selector_all(
            "figure", "all => all.map(one => [one.dataset.figure, one.querySelector('.chart')"
            ".getBoundingClientRect()]).map(([name, box]) => [name, box.width, box.height])",
        )  # fmt: skip
        assert [name for name, _, _ in boxes] == PICTURES
        assert all(wide > 200 and high > 90 for _, wide, high in boxes)
        assert outside(page) == []
        ink = page.evaluate("getComputedStyle(document.body).color")
        text = "getComputedStyle(document.querySelector('.bars .name')).color"
        assert page.evaluate(text) == ink


def test_the_first_screen_answers(chromium, path, measured):
    with opened(chromium, path) as page:
        seen = page.locator(".answer").bounding_box()
        assert seen["y"] + page.locator(".tiles").bounding_box()["height"] < 844
        assert page.locator(".tiles .value").count() == 2

        gap = measured.report.summary[0].numbers["gap"]
        assert page.locator(".tiles .value").first.inner_text() == f"{abs(gap):.1%}"
        titles = page.locator(".findings dt").all_inner_texts()
        assert len(titles) == len(measured.report.summary)
        for one, title in zip(measured.report.summary, titles, strict=True):
            assert title.split() == f"{one.title} {one.answer}".split()
        lines = "all => all.map(one => one.getClientRects().length)"
        assert set(page.locator(".findings b").evaluate_all(lines)) == {1}  # "not tested" in one


def test_pictures_show_the_report(page, measured):
    report = measured.report
    sizes = report.cluster_sizes()
    assert page.locator('[data-figure="layers"] .row').count() == len(report.layers)
    assert page.locator('[data-figure="layers"] [data-cluster]').count() == np.count_nonzero(sizes)
    nodes = page.locator('[data-figure="flow"] .node').count()
    assert 2 * len(report.layers) < nodes <= np.count_nonzero(sizes)
    assert page.locator('[data-figure="flow"] .column').count() == len(report.layers)
    ratio = report.between.ratio(sizes)
    cells = page.locator(".ratio td[data-cluster]").all_inner_texts()
    assert cells == [f"{value:.1f}" for value in ratio.ravel() if not np.isnan(value)]
    values = page.locator('[data-figure="eigenvalues"] .dot').count()
    assert values == measured.profile.eigenvalues.size


def test_inputs_that_are_an_image_are_drawn_as_one(page, measured):
    pixels = page.locator(".pixels path")
    labels = measured.report.labels[:64]
    assert pixels.count() == np.unique(labels).size
    for at, cluster in enumerate(np.unique(labels)):
        cells = re.findall(r"M(\d+) (\d+)", pixels.nth(at).get_attribute("d"))
        assert [8 * int(y) + int(x) for x, y in cells] == np.flatnonzero(labels == cluster).tolist()


def test_pointing_at_a_cluster_describes_it(page, measured):
    report = measured.report
    panel = page.locator(".panel")
    sizes = report.cluster_sizes()
    for cluster in (0, report.k - 1):
        part = page.locator(f'[data-figure="layers"] [data-cluster="{cluster}"]').first
        part.hover(force=True)
        assert panel.locator(".cluster-name").inner_text() == f"Cluster {cluster}"
        assert page.locator(".tip").inner_text().startswith(f"cluster {cluster}, ")
        counts = panel.locator(".counts .count").all_inner_texts()
        assert counts == [str(count) for count in sizes[:, cluster] if count]
        edges = report.clusters[cluster].strongest_edges
        weights = panel.locator(".edges .count").all_inner_texts()
        assert [float(w) for w in weights] == pytest.approx([e.weight for e in edges], rel=0.005)
        ends = panel.locator(".edges .ends").first.inner_text()
        assert ends == " – ".join(f"{one.layer} {one.index}" for one in edges[0][:2])


def test_a_chosen_cluster_stays_and_can_be_linked(chromium, path):
    with opened(chromium, path) as page:
        title, chips = page.locator(".panel .cluster-name"), page.locator(".chips button")
        chips.nth(3).click()
        assert title.inner_text() == "Cluster 3"
        assert page.url.endswith("#cluster=3")
        back = page.eval_on_selector_all(
            '[data-figure="layers"] [data-cluster]:not(.back)',
            "all => all.map(one => one.dataset.cluster)",
        )
        assert set(back) == {"3"}
        page.locator('[data-figure="layers"] [data-cluster="0"]').first.hover(force=True)
        assert title.inner_text() == "Cluster 3"
        linked = page.url
        page.locator(".panel .close").click()
        assert page.locator(".back").count() == 0
        assert "#" not in page.url
        page.goto("about:blank")
        page.goto(linked)
        assert title.inner_text() == "Cluster 3"
        assert chips.nth(3).get_attribute("aria-pressed") == "true"


def test_neurons_are_found_listed_and_copied(chromium, path, measured):
    report = measured.report
    layer = report.layers[1]
    index = int(np.flatnonzero(report.labels[layer.slice] >= 0)[-1])
    with opened(chromium, path) as page:
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        page.locator(".search input").fill(f"{layer.name} {index}")
        found = page.locator(".found li")
        assert found.count() == 1
        cluster = int(report.labels[layer.start + index])
        assert found.inner_text() == f"{layer.name} {index}: cluster {cluster}"
        found.locator("button").click()
        assert page.locator(".panel .cluster-name").inner_text() == f"Cluster {cluster}"
        page.locator(".panel .copies button", has_text="indices").click()
        copied = json.loads(page.evaluate("navigator.clipboard.readText()"))
        assert copied == {
            name: report.clusters[cluster].indices(name).tolist()
            for name in report.clusters[cluster].layers
        }
        page.locator(".panel .copies button", has_text="mask").click()
        space = {}
        exec(page.evaluate("navigator.clipboard.readText()"), space)
        for name, mask in space["mask"].items():
            np.testing.assert_array_equal(mask, report.clusters[cluster].mask(name))


@pytest.mark.parametrize("kind", ["svg", "png"])
def test_pictures_are_saved_by_good_names(page, kind):
    for name in PICTURES:
        button = page.locator(f'[data-figure="{name}"] [data-save="{kind}"]')
        with page.expect_download() as download:
            button.click()
        assert download.value.suggested_filename == f"digits-{name}.{kind}"
        content = Path(download.value.path()).read_bytes()
        if kind == "png":
            assert content.startswith(b"\x89PNG")
            assert len(content) > 3000
        else:
            assert b"var(" not in content
            assert content.count(b"<path") + content.count(b"<rect") > 5


def test_the_keyboard_passes_a_chart_in_two_stops(page):
    page.keyboard.press("Tab")
    for figure in page.locator("figure").all():
        stops = figure.locator("button, a, select, input, [tabindex='0']").count()
        assert stops <= 3
    page.evaluate("document.activeElement.blur(); window.scrollTo(0, 0)")
    assert page.locator("body > :first-child").get_attribute("class") == "skip"
    assert page.locator('.chips button:not([tabindex="-1"])').count() == 1


def test_on_a_phone_a_cluster_opens_the_panel(chromium, path):
    with opened(chromium, path, width=PHONE) as page:
        panel = page.locator(".panel")
        assert not panel.is_visible()
        page.locator(".chips button").nth(1).tap()
        assert panel.locator(".cluster-name").inner_text() == "Cluster 1"
        assert overflow(page) == 0
        panel.locator(".close").tap()
        assert not panel.is_visible()
        cells = page.locator(".statistics tbody td")
        assert all(
            box["x"] >= 0 and box["x"] + box["width"] <= PHONE
            for box in (cell.bounding_box() for cell in cells.all())
        )


def test_another_statistic(page, measured):
    select = page.locator("select.statistic")
    assert select.input_value() == measured.report.headline
    select.select_option("lower_bound")
    label = page.locator('[data-figure="shuffles"] .one-of:not([hidden]) .xlabel')
    assert label.inner_text().startswith("lower bound")
    select.select_option(measured.report.headline)


def test_downloads_have_all_numbers(page, measured):
    report, profile = measured
    name, text = downloaded(page, page.locator('[data-csv="neurons"]'))
    assert name == "digits-neurons.csv"
    rows = table(text)
    frame = report.to_frame()
    assert rows[0] == list(frame.columns)
    assert [row[0] for row in rows[1:]] == list(frame["layer"])
    assert [[int(row[1]), int(row[2])] for row in rows[1:]] == frame[
        ["index", "cluster"]
    ].to_numpy().tolist()
    np.testing.assert_allclose([float(row[3]) for row in rows[1:]], report.degrees, rtol=1e-6)

    _, text = downloaded(page, page.locator('[data-csv="statistics"]'))
    for row in table(text)[1:]:
        compared = report.statistics[row[0]]
        assert [float(cell) for cell in row[1:]] == [
            compared.value, compared.mean, compared.std, compared.z_score, compared.p_value,
        ]  # fmt: skip

    _, text = downloaded(page, page.locator('[data-csv="flow"]'))
    total = sum(float(row[-1]) for row in table(text)[1:])
    assert total == pytest.approx(report.degrees.sum() / 2)

    page.locator("summary", has_text="In numbers").click()
    _, text = downloaded(page, page.locator('[data-csv="eigenvalues"]'))
    assert [float(row[1]) for row in table(text)[1:]] == list(profile.eigenvalues)

    every = page.eval_on_selector_all("button[data-csv]", "all => all.map(b => b.dataset.csv)")
    assert len(set(every)) == len(every)
    assert set(every) >= {"layers", "clusters", "edges", "shuffles", "profile", "settings"}


def test_without_a_script_texts_pictures_and_tables_are_there(chromium, path, measured):
    with opened(chromium, path, script=False) as page:
        text = page.locator("body").inner_text()
        assert "need JavaScript" in text
        assert f"{measured.report.ncut:.3f}" in text
        assert not page.locator("button.csv").first.is_visible()
        assert page.locator('[data-figure="flow"] .band').first.is_visible()
        assert page.locator("table.clusters").is_visible()


def test_prints_with_its_colours(chromium, path):
    with opened(chromium, path, scheme="dark") as page:
        printed = page.pdf(format="A4")
        assert 3 <= len(re.findall(rb"/Type\s*/Page\b", printed)) <= 14
        page.emulate_media(media="print")
        assert not page.locator("button.csv").first.is_visible()
        assert not page.locator(".panel").is_visible()
        exact = "getComputedStyle(document.querySelector('.summary i')).printColorAdjust"
        assert page.evaluate(exact) == "exact"
        page.set_viewport_size({"width": 700, "height": 900})
        assert outside(page) == []
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == (
            "rgb(255, 255, 255)"
        )


def test_several_reports_are_independent(chromium, measured, tmp_path):
    report = measured.report
    path = tmp_path / "two.html"
    path.write_text(html_page([report, replace(report, model="other")]), encoding="utf-8")
    with opened(chromium, path) as page:
        second = page.locator("article").nth(1)
        second.locator(".chips button").nth(2).click()
        assert page.locator('.chips [aria-pressed="true"]').count() == 1
        assert second.locator(".panel .cluster-name").inner_text() == "Cluster 2"
        assert page.url.endswith("#network-2&cluster=2")
        name, text = downloaded(page, page.locator('[data-table="networks"]'))
        assert name == "networks.csv"
        assert [row[0] for row in table(text)] == ["network", "digits", "other"]
        name, _ = downloaded(page, second.locator('[data-csv="layers"]'))
        assert name == "other-layers.csv"


def test_a_report_from_json_draws_everything(chromium, measured, tmp_path):
    path = tmp_path / "report.html"
    Report.from_json(measured.report.to_json()).to_html(path, profile=measured.profile)
    with opened(chromium, path) as page:
        drawn = page.eval_on_selector_all("figure", "all => all.map(one => one.dataset.figure)")
        assert drawn == PICTURES
        page.locator(".chips button").nth(1).click()
        assert page.locator(".panel .edges li").count() == 10


def test_names_from_files_are_text_only(chromium, make, tmp_path):
    report = make()
    layers = tuple(replace(layer, name=f"{EVIL} {at}") for at, layer in enumerate(report.layers))
    changed = replace(report, model=EVIL, warnings=(EVIL,), null=EVIL, layers=layers)
    path = tmp_path / "evil.html"
    changed.to_html(path)
    with opened(chromium, path) as page:
        page.locator(".chips button").first.click()
        assert f"{EVIL} 0" in page.locator(".panel").inner_text()
        assert page.locator("img").count() == 0
        assert EVIL in page.locator("h1").inner_text()


def test_many_layers_and_clusters_stay_within_the_page(chromium, tmp_path):
    rng = np.random.default_rng(0)
    sizes = [30] * 70
    weights = [rng.random(pair) for pair in pairwise(sizes)]
    report = ncut.analyze(weights, k=45, shuffles=0, n_init=1)
    path = tmp_path / "large.html"
    report.to_html(path)
    with opened(chromium, path, width=PHONE) as page:
        assert overflow(page) == 0
        assert "largest clusters are coloured" in page.locator("body").inner_text()
        assert page.locator('[data-figure="flow"] .band').count() <= 600
        assert outside(page) == []
        page.set_viewport_size({"width": DESKTOP, "height": 844})
        assert overflow(page) == 0
