"""HTML: well-formed, self-contained, and nothing from a file is taken for markup."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from ncut.errors import InputError
from ncut.report import Report, html_page, sentence, wording
from ncut.types import Layer, LeftOut

VOID = {"meta", "br", "hr", "img", "link", "input"}
EVIL = "<script>alert(1)</script>\"'&<img src=x onerror=alert(2)> --> {{ 7*7 }} ]]>"


class Page(HTMLParser):
    """Checks that tags are balanced, and collects tags, attributes, visible text, and scripts."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str | None]] = []
        self.text: list[str] = []
        self.styles: list[str] = []
        self.scripts: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        last = self.open[-1] if self.open else ""
        {"style": self.styles, "script": self.scripts}.get(last, self.text).append(data)

    def values(self, name: str) -> list[str]:
        return [value or "" for _, attribute, value in self.attributes if attribute == name]

    @property
    def data(self) -> list[dict[str, Any]]:
        """The data of each report for the page's script."""
        kinds = [value for tag, name, value in self.attributes if (tag, name) == ("script", "type")]
        assert kinds == ["application/json"] * self.tags["article"]
        return [json.loads(text) for text in self.scripts if text.startswith('{"')]

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


@pytest.fixture
def evil(make) -> Report:
    return make(
        sizes=(3,),
        model=EVIL,
        null=EVIL,
        solver=EVIL,
        version=EVIL,
        warnings=(EVIL,),
        left_out=(LeftOut(EVIL, (2, 3), EVIL),),
        layers=(Layer(EVIL, 0, 3),),
        labels=np.array([0, 1, 2], dtype=np.int32),
        degrees=np.ones(3),
    )


def test_the_checker_notices_tags_that_do_not_match():
    with pytest.raises(AssertionError):
        Page("<p><b></p></b>")
    with pytest.raises(AssertionError):
        Page("<div>")


class TestNotebook:
    """`_repr_html_`, which needs neither jinja2 nor matplotlib."""

    def test_shows_the_headline_numbers(self, report):
        page = Page(report._repr_html_())
        for part in ("mlp.npz", sentence(report), "1.500 with k = 3", "-13.2", "6-4-3"):
            assert part in page.words
        assert page.tags["table"] == 2
        for row in wording.statistic_rows(report):
            assert " ".join(row) in page.words
        for name, counts in zip(("fc0", "fc1"), report.cluster_sizes(), strict=False):
            assert f"{name} {' '.join(str(n) for n in counts if n)}" in page.words

    def test_escapes_names(self, evil):
        page = Page(evil._repr_html_())
        assert not page.tags["script"]
        assert not page.tags["img"]
        assert EVIL in page.words


@pytest.fixture(scope="module", autouse=False)
def extras() -> None:
    pytest.importorskip("jinja2", reason="pip install 'ncut[plot]'")


@pytest.mark.usefixtures("extras")
class TestPage:
    def test_shows_every_number(self, report):
        page = Page(report.to_html())
        words = page.words.replace("\u00a0", " ").replace("\u2212", "-")
        for part in (
            "Clusterability of mlp.npz",
            sentence(report),
            "1.500",
            "0.020",
            "-13.2",
            "smallest possible 1/51; Z < -7.1",
            "one neuron has no edges",
            "fc0.bias",
            "biases are not edges",
            "seed 7",
            "null model layer",
            "solver dense",
            "ncut 0.0.test",
            "0.600000",
            "arXiv:2103.03386",
            "What the numbers mean",
        ):
            assert part in words, part
        assert page.values("data-figure") == ["layers", "shuffles", "eigenvalues"]

    def test_cluster_table_has_every_count(self, report):
        html = report.to_html()
        body = html.partition('class="clusters"')[2].partition("</table>")[0]
        rows = re.findall(r"<tr>(.*?)</tr>", body, flags=re.DOTALL)
        numbers = [[int(n) for n in re.findall(r"<td[^>]*>(\d+)</td>", row)] for row in rows]
        expected = [
            [layer.size, *counts, layer.size - sum(counts)]
            for layer, counts in zip(report.layers, report.cluster_sizes().tolist(), strict=True)
        ]
        totals = np.array(expected).sum(axis=0).tolist()
        assert numbers == [[], *expected, totals]

    def test_loads_nothing_from_elsewhere(self, report):
        html = report.to_html()
        page = Page(html)
        assert not {"link", "img", "iframe", "object", "base"} & set(page.tags)
        assert not page.values("src")
        references = page.values("href") + page.values("xlink:href")
        assert all(reference.startswith("#") for reference in references)
        assert not re.search(r"@import|url\(", "".join(page.styles))

    def test_nothing_can_be_sent_or_fetched(self, report):
        html = report.to_html()
        policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', html)[1]
        rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
        assert rules["default-src"] == rules["connect-src"] == rules["form-action"] == "'none'"
        script = Page(html).scripts[-1]
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert rules["script-src"] == f"'sha256-{digest}'"
        # No way out of the page in its script, and no chart library that brings one.
        assert not re.search(
            r"fetch\(|XMLHttpRequest|WebSocket|sendBeacon|https?://(?!www.w3)", script
        )
        assert not re.search(r"plotly|cloud|share chart", html, flags=re.IGNORECASE)

    def test_is_small(self, report):
        assert len(report.to_html()) < 100_000

    def test_references_within_the_page_exist_once(self, report):
        page = Page(html_page([report, replace(report, model="other")], None))
        ids = Counter(page.values("id"))
        assert max(ids.values()) == 1
        used = page.values("href") + page.values("xlink:href")
        assert used
        assert {reference[1:] for reference in used} <= set(ids)

    def test_escapes_names(self, evil):
        html = html_page([evil, evil], EVIL)
        page = Page(html)
        assert page.tags["script"] == 3  # two of data, ours
        assert not page.tags["img"]
        assert not any(name.startswith("on") for _, name, _ in page.attributes)
        assert EVIL in page.words
        assert "49" not in page.words
        for data in page.data:
            assert data["name"] == EVIL
            assert data["layers"] == [EVIL]

    def test_readable_in_the_dark_and_on_a_phone(self, report):
        html = report.to_html()
        assert "prefers-color-scheme: dark" in html
        assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in html

    def test_same_report_same_page(self, report):
        assert report.to_html() == report.to_html()

    def test_without_shuffles(self, make):
        page = Page(make(n_shuffles=0, warnings=(), left_out=()).to_html())
        assert "shuffles" not in page.values("data-figure")
        assert "None" not in page.words
        assert "Nothing." in page.words

    def test_several_reports_are_compared(self, make):
        reports = [make(model=name, ncut=ncut) for name, ncut in (("a.npz", 1.25), ("b.npz", 1.75))]
        page = Page(html_page(reports, "Before and after"))
        assert page.tags["article"] == 2
        assert page.words.count("Before and after") == 2  # <title> and heading
        comparison = html_page(reports, None).partition('class="compare ')[2]
        comparison = comparison.partition("</table>")[0]
        assert re.findall(r'<td data-name="n-cut">([\d.]+)</td>', comparison) == ["1.250", "1.750"]
        assert "Clusterability of 2 networks" in html_page(reports, None)

    def test_no_reports_is_an_error(self):
        with pytest.raises(InputError, match="at least one report"):
            html_page([], "nothing")

    def test_written_file_is_the_returned_page(self, report, tmp_path):
        path = tmp_path / "report.html"
        assert report.to_html(path, title="Mine") == path.read_text(encoding="utf-8")
        assert "<title>Mine</title>" in path.read_text(encoding="utf-8")

    def test_lone_surrogates_in_a_name_can_be_written(self, make, tmp_path):
        make(model="a\udcff").to_html(tmp_path / "report.html")
        assert "a?" in (tmp_path / "report.html").read_text(encoding="utf-8")
