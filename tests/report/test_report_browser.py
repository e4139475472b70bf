"""The HTML page in a browser: drawn, answering, and without anything from the network."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pytest
from browser import DESKTOP, PHONE, downloaded, opened, overflow

import ncut
from ncut import networks
from ncut.report import Profile, Report, html_page
from ncut.report.edges import strongest_edges

pytest.importorskip("plotly", reason="pip install 'ncut[plot]'")

PICTURES = {"null", "bars", "flow", "matrix", "eigenvalues", "scores", "gaps"}
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


def colour(page, selector):
    return page.eval_on_selector(selector, "one => getComputedStyle(one).fill")


def ink(page):
    return page.evaluate("getComputedStyle(document.body).color")


@pytest.mark.parametrize(("width", "scheme"), [(PHONE, "dark"), (DESKTOP, "light")])
def test_every_picture_is_drawn_and_nothing_overflows(chromium, path, width, scheme):
    with opened(chromium, path, width=width, scheme=scheme) as page:
        assert overflow(page) == 0
        boxes = page.eval_on_selector_all(
            ".chart[data-figure]",
            "all => all.map(one => [one.dataset.figure, one.querySelector('.main-svg')"
            ".getBoundingClientRect()]).map(([name, box]) => [name, box.width, box.height])",
        )
        assert {name for name, _, _ in boxes} == PICTURES
        assert all(wide > 200 and high > 150 for _, wide, high in boxes)
        assert colour(page, '[data-figure="bars"] .xtick text') == ink(page)
        other = "dark" if scheme == "light" else "light"
        before = ink(page)
        page.emulate_media(color_scheme=other)
        assert ink(page) != before
        assert overflow(page) == 0
        assert colour(page, '[data-figure="bars"] .xtick text') == ink(page)
        page.set_viewport_size({"width": DESKTOP + PHONE - width, "height": 844})
        page.wait_for_function(
            "[...document.querySelectorAll('.chart')].every(one => one.querySelector('.main-svg')"
            ".getBoundingClientRect().width < one.clientWidth + 2)"
        )
        assert overflow(page) == 0


def test_pictures_show_the_report(page, measured):
    report = measured.report
    assert page.locator('[data-figure="bars"] .barlayer .trace').count() == report.k + 1
    bars = page.locator('[data-figure="bars"] .barlayer .trace').first.locator(".point")
    assert bars.count() == len(report.layers)
    sizes = report.cluster_sizes()
    nodes = page.locator('[data-figure="flow"] .sankey-node').count()
    assert 2 * len(report.layers) < nodes <= np.count_nonzero(sizes)
    assert page.locator('[data-figure="matrix"] .hm image').count() == 1
    points = page.locator('[data-figure="eigenvalues"] .points path').count()
    assert points == measured.profile.eigenvalues.size


def test_pointing_at_a_cluster_tells_about_it(page, measured):
    report = measured.report
    panel = page.locator(".panel")
    panel.wait_for()
    sizes = report.cluster_sizes()
    for cluster in (0, report.k - 1):
        layer = int(sizes[:, cluster].argmax())
        trace = page.locator('[data-figure="bars"] .barlayer .trace').nth(cluster)
        trace.locator(".point").nth(layer).hover(force=True)
        page.wait_for_function(
            f"document.querySelector('.panel h4').textContent === 'Cluster {cluster}'"
        )
        text = panel.inner_text()
        assert f"{sizes[:, cluster].sum()}\nneurons" in text
        counts = panel.locator(".counts .count").all_inner_texts()
        assert counts == [str(count) for count in sizes[:, cluster] if count]
        best = strongest_edges(report.graph, report.labels, report.k, 10)[cluster]
        weights = panel.locator(".edges .count").all_inner_texts()
        assert [float(w) for w in weights] == pytest.approx(
            [edge.weight for edge in best], rel=0.005
        )


def test_a_chosen_cluster_stays_until_it_is_left(page):
    title = page.locator(".panel h4")
    chips = page.locator(".chips button")
    chips.nth(3).click()
    assert title.inner_text() == "Cluster 3"
    assert chips.nth(3).get_attribute("aria-pressed") == "true"
    opacities = "document.querySelector('[data-figure=bars]').data.map(t => t.marker.opacity)"
    assert [at for at, one in enumerate(page.evaluate(opacities)) if one == 1] == [3]
    shapes = "document.querySelector('[data-figure=matrix]').layout.shapes.length"
    n_shapes = page.evaluate(shapes)
    # Another one that is pointed at does not take its place, until it is clicked.
    bar = page.locator('[data-figure="bars"] .barlayer .trace').first.locator(".point").nth(2)
    bar.hover(force=True)
    page.wait_for_timeout(200)
    assert title.inner_text() == "Cluster 3"
    bar.click(force=True)
    page.wait_for_function("document.querySelector('.panel h4').textContent === 'Cluster 0'")
    assert chips.nth(3).get_attribute("aria-pressed") == "false"
    page.locator(".panel .close").click()
    assert chips.nth(0).get_attribute("aria-pressed") == "false"
    assert set(page.evaluate(opacities)) == {1}
    assert page.evaluate(shapes) == n_shapes - 1


def test_the_flow_and_the_matrix_answer_too(page):
    node = page.locator('[data-figure="flow"] .sankey-node .node-rect').last
    node.scroll_into_view_if_needed()
    node.hover(force=True)
    page.wait_for_function("document.querySelector('.panel h4').textContent !== 'Cluster '")
    node.click(force=True)
    page.wait_for_selector('.chips button[aria-pressed="true"]')
    chosen = page.locator('.chips button[aria-pressed="true"]').inner_text()
    assert page.locator(".panel h4").inner_text() == f"Cluster {chosen}"
    page.locator(".panel .close").click()
    matrix = page.locator('[data-figure="matrix"] .nsewdrag').first
    matrix.scroll_into_view_if_needed()
    box = matrix.bounding_box()
    page.mouse.move(box["x"] + box["width"] - 4, box["y"] + 4)
    page.mouse.move(box["x"] + box["width"] - 2, box["y"] + 2)
    page.wait_for_function("document.querySelector('.readout').textContent.includes('mean')")
    assert re.match(r"cluster 0, \S+ × cluster 5, \S+: mean \|w\| [\d.e-]+",
                    page.locator(".readout").inner_text())  # fmt: skip
    page.wait_for_function("document.querySelector('.panel h4').textContent === 'Cluster 0'")


def test_on_a_phone_a_cluster_opens_the_panel(chromium, path):
    with opened(chromium, path, width=PHONE) as page:
        panel = page.locator(".panel")
        assert not panel.is_visible()
        page.locator(".chips button").nth(1).tap()
        assert panel.locator("h4").inner_text() == "Cluster 1"
        assert overflow(page) == 0
        panel.locator(".close").tap()
        assert not panel.is_visible()


def test_another_statistic(page, measured):
    select = page.locator("select.statistic")
    assert select.input_value() == measured.report.headline
    label = page.locator('[data-figure="null"] .xtitle')
    before = label.text_content()
    select.select_option("lower_bound")
    page.wait_for_function("document.querySelector('[data-figure=null] .xtitle').textContent"
                           ".startsWith('lower bound')")  # fmt: skip
    select.select_option(measured.report.headline)
    assert label.text_content() == before


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

    _, text = downloaded(page, page.locator('[data-csv="eigenvalues"]'))
    assert [float(row[1]) for row in table(text)[1:]] == list(profile.eigenvalues)

    every = page.eval_on_selector_all("button[data-csv]", "all => all.map(b => b.dataset.csv)")
    assert len(set(every)) == len(every)
    assert set(every) >= {"layers", "clusters", "edges", "shuffles", "profile", "settings"}


def test_without_a_script_texts_and_tables_are_there(chromium, path, measured):
    with opened(chromium, path, script=False) as page:
        text = page.locator("body").inner_text()
        assert "need JavaScript" in text
        assert f"{measured.report.ncut:.3f}" in text
        assert not page.locator("button.csv").first.is_visible()
        assert not page.locator(".chart").first.is_visible()
        assert page.locator("table.clusters").is_visible()


def test_prints(chromium, path):
    with opened(chromium, path, scheme="dark") as page:
        printed = page.pdf(format="A4")
        assert 3 <= len(re.findall(rb"/Type\s*/Page\b", printed)) <= 12
        page.emulate_media(media="print")
        assert not page.locator("button.csv").first.is_visible()
        # A panel that stays in view would lie over the pictures.
        assert page.locator(".panel").evaluate("one => getComputedStyle(one).position") == "static"
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == (
            "rgb(255, 255, 255)"
        )


def test_several_reports_keep_apart(chromium, measured, tmp_path):
    report = measured.report
    path = tmp_path / "two.html"
    path.write_text(html_page([report, replace(report, model="other")]), encoding="utf-8")
    with opened(chromium, path) as page:
        second = page.locator("article").nth(1)
        second.locator(".chips button").nth(2).click()
        assert page.locator('.chips [aria-pressed="true"]').count() == 1
        assert second.locator(".panel h4").inner_text() == "Cluster 2"
        name, text = downloaded(page, page.locator('[data-table="networks"]'))
        assert name == "networks.csv"
        assert [row[0] for row in table(text)] == ["network", "digits", "other"]
        name, _ = downloaded(page, second.locator('[data-csv="layers"]'))
        assert name == "other-layers.csv"


def test_a_report_without_its_graph(chromium, measured, tmp_path):
    path = tmp_path / "report.html"
    Report.from_json(measured.report.to_json()).to_html(path)
    with opened(chromium, path) as page:
        drawn = page.eval_on_selector_all(".chart", "all => all.map(one => one.dataset.figure)")
        assert set(drawn) == {"null", "bars", "eigenvalues"}
        page.locator(".chips button").nth(1).click()
        assert "Strongest" not in page.locator(".panel").inner_text()


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
        assert any(EVIL[:10] in text for text in page.locator(".ytick").all_text_contents())


def test_many_layers_and_clusters_stay_within_the_page(chromium, tmp_path):
    rng = np.random.default_rng(0)
    sizes = [30] * 70
    weights = [rng.random(pair) for pair in pairwise(sizes)]
    report = ncut.analyze(weights, k=40, shuffles=0, n_init=1)
    path = tmp_path / "large.html"
    report.to_html(path)
    with opened(chromium, path, width=PHONE) as page:
        assert overflow(page) == 0
        assert "largest clusters are told apart" in page.locator("body").inner_text()
        assert page.locator('[data-figure="flow"] .sankey-link').count() <= 600
        page.set_viewport_size({"width": DESKTOP, "height": 844})
        assert overflow(page) == 0
