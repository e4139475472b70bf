"""The numbers behind the HTML page's pictures and tables, against sums over the dense matrix."""

from __future__ import annotations

import base64
import json
import re
from itertools import pairwise

import numpy as np
import pytest
from scipy import sparse

import ncut
from ncut.errors import InputError
from ncut.report import Report, html_page, maps, page_data
from ncut.report.between import Between
from ncut.report.edges import layer_flows
from ncut.report.maps import shown_clusters, volumes
from ncut.report.names import names_of
from ncut.report.page_views import minus


def analysed(sizes, k=4, shuffles=0, **options) -> Report:
    rng = np.random.default_rng(len(sizes))
    weights = [rng.normal(size=pair) * (rng.random(pair) < 0.4) for pair in pairwise(sizes)]
    return ncut.analyze(weights, k=k, shuffles=shuffles, n_init=2, **options)


@pytest.fixture(scope="module")
def small() -> Report:
    return analysed([30, 24, 18, 12], shuffles=5)


def dense(report):
    return report.graph.adjacency.toarray().astype(np.float64)


def flows_of(report):
    return layer_flows(report.graph, report.labels, report.k)


def flow_of(report, flows):
    """The one flow of a network without a residual stream."""
    found = maps.flows_of(report, flows, names_of(report))
    assert len(found) <= 1
    return found[0] if found else None


class TestFlow:
    def test_each_link_is_the_weight_between_its_ends(self, small):
        flow = flow_of(small, flows_of(small))
        matrix = dense(small)
        layer_of = np.repeat(np.arange(4), [layer.size for layer in small.layers])
        for source, target, weight in zip(flow.source, flow.target, flow.weight, strict=True):
            ends = []
            for node in (source, target):
                column, part = flow.nodes[node]
                ends.append((layer_of == column) & (small.labels == part))
            assert weight == pytest.approx(matrix[np.ix_(*ends)].sum())
        assert flow.weight.sum() == pytest.approx(matrix.sum() / 2)
        assert flow.drawn == pytest.approx(1.0)

    def test_nodes_are_stacked_within_the_picture(self, small):
        flow = flow_of(small, flows_of(small))
        assert flow.low.min() >= 0
        assert flow.high.max() <= 1 + 1e-12
        for column in range(len(flow.columns)):
            at = [number for number, node in enumerate(flow.nodes) if node[0] == column]
            assert (flow.low[at][1:] > flow.high[at][:-1]).all()
        heights = flow.high - flow.low
        through = np.maximum(
            np.bincount(flow.source, flow.weight, minlength=heights.size),
            np.bincount(flow.target, flow.weight, minlength=heights.size),
        )
        np.testing.assert_allclose(heights / through, heights[0] / through[0])

    def test_many_layers_and_clusters_are_put_together(self, monkeypatch):
        monkeypatch.setattr(maps, "MAX_SHOWN_CLUSTERS", 3)
        report = analysed([12] * 25, k=6)
        shown = shown_clusters(report)
        assert shown.has_others
        assert len(shown.clusters) == 3
        assert set(shown.clusters) == set(np.argsort(-volumes(report))[:3].tolist())
        flow = flow_of(report, flows_of(report))
        assert len(flow.columns) == maps.MAX_COLUMNS
        assert [group.first for group in flow.columns[1:]] == [g.last for g in flow.columns[:-1]]
        column_of = np.repeat(
            np.arange(len(flow.columns)), [12 * (g.last - g.first) for g in flow.columns]
        )
        matrix = dense(report)
        between = matrix[column_of[:, None] != column_of[None, :]].sum() / 2
        assert flow.weight.sum() == pytest.approx(between)
        assert flow.drawn == pytest.approx(2 * between / matrix.sum())
        others = [at for at, (_, part) in enumerate(flow.nodes) if part == 3]
        touching = np.isin(flow.source, others) | np.isin(flow.target, others)
        rest = ~np.isin(report.labels, shown.clusters) & (report.labels >= 0)
        apart = (column_of[:, None] != column_of[None, :]) & (rest[:, None] | rest[None, :])
        assert flow.weight[touching].sum() == pytest.approx(matrix[apart].sum() / 2)

    def test_only_the_heaviest_links_are_drawn(self, small, monkeypatch):
        every = flow_of(small, flows_of(small)).weight
        monkeypatch.setattr(maps, "MAX_LINKS", 7)
        flow = flow_of(small, flows_of(small))
        np.testing.assert_allclose(np.sort(flow.weight), np.sort(every)[-7:])
        assert flow.drawn == pytest.approx(np.sort(every)[-7:].sum() / every.sum())

    def test_edges_within_one_layer_have_no_flow(self):
        half = np.triu(np.random.default_rng(0).random((20, 20)), 1)
        report = ncut.analyze(sparse.csr_array(half + half.T), k=2, shuffles=0)
        assert flow_of(report, flows_of(report)) is None
        assert "All edges lie within one layer" in report.to_html()


class TestRatio:
    def test_it_is_the_weight_over_that_of_shuffles_on_average(self, small):
        ratio = small.between.ratio(small.cluster_sizes())
        members = np.eye(small.k)[small.labels] * (small.labels >= 0)[:, None]
        found = members.T @ dense(small) @ members
        chance = np.zeros_like(found)
        n = 400
        for seed in range(n):
            shuffled = ncut.shuffle(small.graph, "layer", seed=seed).adjacency.toarray()
            chance += members.T @ shuffled @ members / n
        np.testing.assert_allclose(ratio, found / chance, rtol=0.05)
        np.testing.assert_array_equal(ratio, ratio.T)

    def test_clusters_that_share_no_layers_have_none(self):
        rng = np.random.default_rng(0)
        blocks = [np.kron(np.eye(2), rng.random((6, 6))) for _ in range(2)]
        report = ncut.analyze(blocks, k=2, shuffles=0)
        ratio = report.between.ratio(report.cluster_sizes())
        assert (np.diag(ratio) > 1.9).all()
        assert ratio[0, 1] == 0
        apart = {
            (0, 1): np.diag([30.0, 0.0]),
            (2, 3): np.diag([0.0, 40.0]),
        }
        sizes = np.array([[6, 0], [6, 0], [0, 6], [0, 6]])
        ratio = Between(apart, []).ratio(sizes)
        np.testing.assert_array_equal(ratio, [[1, np.nan], [np.nan, 1]])


class TestData:
    def test_parts_add_up_to_the_n_cut(self, small):
        rows = page_data.cluster_rows(small, small.between)
        assert sum(row["cut"] for row in rows) == pytest.approx(small.ncut)
        assert sum(row["volume"] for row in rows) == pytest.approx(small.degrees.sum())
        matrix = dense(small)
        for cluster, row in enumerate(rows):
            inside = small.labels == cluster
            assert row["neurons"] == inside.sum()
            share = matrix[np.ix_(inside, inside)].sum() / matrix[inside].sum()
            assert row["inside"] == pytest.approx(share)

    def test_edges_name_their_ends(self, small):
        matrix = dense(small)
        names = names_of(small)
        for cluster, edges in enumerate(page_data.edge_rows(small, names, small.between)):
            assert len(edges) == 10
            for a, i, c, first_name, b, j, d, _, weight in edges:
                assert first_name == f"{small.layers[a].name} {i}"
                first, second = small.layers[a].start + i, small.layers[b].start + j
                assert matrix[first, second] == pytest.approx(weight, rel=1e-6)
                assert [c, d] == small.labels[[first, second]].tolist()
                assert cluster in (c, d)

    @pytest.mark.parametrize(("k", "kind"), [(2, "<i1"), (128, "<i1"), (129, "<i2")])
    def test_neurons_are_coded_in_little_space(self, make, k, kind):
        report = make(sizes=(k, k), k=k)
        coded = page_data.neurons(report)
        assert coded["bits"] == 8 * np.dtype(kind).itemsize
        labels = np.frombuffer(base64.b64decode(coded["labels"]), kind)
        degrees = np.frombuffer(base64.b64decode(coded["degrees"]), "<f4")
        np.testing.assert_array_equal(labels, report.labels)
        np.testing.assert_allclose(degrees, report.degrees, rtol=1e-6)

    def test_too_many_neurons_are_left_out_and_it_is_said(self, report, monkeypatch):
        monkeypatch.setattr("ncut.report.page_data.MAX_NEURONS", 12)
        monkeypatch.setattr("ncut.report.page_views.MAX_NEURONS", 12)
        assert page_data.neurons(report) is None
        page = report.to_html()
        assert "The lists of neurons are left out, since there are more than 12 neurons" in page
        assert 'data-csv="neurons"' not in page

    def test_tables_are_standard_json(self, make):
        report = make(n_shuffles=0)
        found = page_data.tables(report, None, None, page_data.cluster_rows(report, None))
        json.dumps(found, allow_nan=False)
        for table in found.values():
            assert {len(row) for row in table["rows"]} <= {len(table["names"])}

    def test_tables_have_a_row_for_each(self, small):
        profile = ncut.profile(small.graph, range(2, 6), shuffles=3)
        flows = flows_of(small)
        rows = page_data.page_data(small, names_of(small), profile)["clusters"]
        found = page_data.tables(small, profile, flows, rows)
        assert len(found["profile"]["rows"]) == 4
        assert {len(row) for row in found["profile"]["rows"]} == {len(found["profile"]["names"])}
        assert len(found["shuffles"]["rows"]) == 5
        assert len(found["edges"]["rows"]) == small.k * 10
        layers = np.array([row[1:] for row in found["layers"]["rows"]])
        np.testing.assert_array_equal(layers[:, 1:-1], small.cluster_sizes())
        np.testing.assert_array_equal(layers[:, 0], layers[:, 1:].sum(axis=1))


class TestProfile:
    def test_of_another_network_is_refused(self, small, make):
        other = ncut.profile(analysed([9, 8, 7]).graph, [2, 3], shuffles=0)
        with pytest.raises(InputError, match="profile: is of another network"):
            small.to_html(profile=other)
        with pytest.raises(InputError, match="profiles: 1 for 2 reports"):
            html_page([small, small], profiles=[None])

    def test_without_shuffles_shows_gaps_and_eigenvalues_only(self, small):
        page = small.to_html(profile=ncut.profile(small.graph, [2, 3, 4], shuffles=0))
        assert 'data-figure="gaps"' in page
        assert 'data-figure="scores"' not in page

    def test_the_page_says_what_it_suggests(self, small):
        profile = ncut.profile(small.graph, range(2, 6), shuffles=3)
        page = small.to_html(profile=profile).replace("\N{NO-BREAK SPACE}", " ")
        has = f"k = {profile.suggested_k}" if profile.suggested_k else "No k"
        assert f"{has} suggested: {profile.reason}." in page


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Z is -3.1", "Z is \N{MINUS SIGN}3.1"),
        ("(Z < -7.1)", "(Z\N{NO-BREAK SPACE}<\N{NO-BREAK SPACE}\N{MINUS SIGN}7.1)"),
        ("2021-03-01", "2021-03-01"),
        ("a-b 1", "a-b 1"),
    ],
)
def test_true_minus_signs(text, shown):
    assert minus(text) == shown


@pytest.mark.parametrize("n_reports", [1, 2])
def test_headings_skip_no_level(small, n_reports):
    page = html_page([small] * n_reports)
    levels = [1, *(int(level) for level in re.findall(r"<h(\d)", page.split("<script>")[0]))]
    assert levels.count(1) == 2
    assert all(below <= above + 1 for above, below in pairwise(levels))
