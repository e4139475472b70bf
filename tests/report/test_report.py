"""The report itself: counts, equality, and the data frame."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest


def test_cluster_sizes_count_each_clustered_neuron_once(report):
    sizes = report.cluster_sizes()
    # 13 vertices labelled 0 1 2 0 1 2 ..., the first one isolated, in layers of 6, 4, 3.
    np.testing.assert_array_equal(sizes, [[1, 2, 2], [2, 1, 1], [1, 1, 1]])
    assert sizes.sum() == report.n_vertices - report.n_isolated
    assert report.n_isolated == 1


def test_cluster_sizes_keep_empty_clusters(make):
    report = make(k=5, labels=np.zeros(13, dtype=np.int32))
    np.testing.assert_array_equal(report.cluster_sizes()[:, 0], [6, 4, 3])
    assert not report.cluster_sizes()[:, 1:].any()


@pytest.mark.parametrize(
    "change",
    [
        {"ncut": 1.4},
        {"labels": np.zeros(13, dtype=np.int32)},
        {"p_value": None},
        {"warnings": ()},
        {"seed": 8},
    ],
)
def test_reports_differ_if_a_field_does(make, change):
    assert make() == make()
    assert make() != make(**change)


def test_the_graph_is_no_part_of_equality_and_json(report):
    assert replace(report, graph=object()) == report
    assert "graph" not in report.to_dict()


def test_a_report_equals_nothing_else(report):
    assert report != report.to_dict()
    with pytest.raises(TypeError, match="unhashable"):
        hash(report)


def test_repr_is_one_short_line(report):
    assert repr(report) == "Report('mlp.npz', k=3, ncut=1.500, z=-13.2, p=0.020)"


def test_frame_has_a_row_per_neuron(report):
    pytest.importorskip("pandas", reason="pip install 'ncut[plot]'")
    frame = report.to_frame()
    assert list(frame.columns) == ["layer", "index", "cluster", "degree"]
    assert frame["layer"].tolist() == ["fc0"] * 6 + ["fc1"] * 4 + ["fc2"] * 3
    assert frame["index"].tolist() == [*range(6), *range(4), *range(3)]
    np.testing.assert_array_equal(frame["cluster"], report.labels)
    np.testing.assert_array_equal(frame["degree"], report.degrees)


def test_frame_agrees_with_cluster_sizes(report):
    pytest.importorskip("pandas", reason="pip install 'ncut[plot]'")
    frame = report.to_frame()
    counted = frame[frame.cluster >= 0].groupby(["layer", "cluster"]).size().unstack(fill_value=0)
    np.testing.assert_array_equal(counted.to_numpy(), report.cluster_sizes())


def test_changing_the_frame_leaves_the_report_alone(report):
    pytest.importorskip("pandas", reason="pip install 'ncut[plot]'")
    before = report.labels.copy()
    frame = report.to_frame()
    frame.loc[:, "cluster"] = 99
    np.testing.assert_array_equal(report.labels, before)


def test_results_have_short_reprs(report):
    import scipy.sparse

    import ncut

    for compared in report.statistics.values():
        assert len(repr(compared)) < 90
    assert repr(report.statistics["spectral_ncut"]).startswith("Comparison(1.5; 50 shuffles: ")
    found = ncut.cluster(scipy.sparse.csr_array(np.ones((9, 9)) - np.eye(9)), k=2)
    assert repr(found).startswith("Clustering(9 vertices, k=2, ncut=")


def test_saved_and_loaded(report, tmp_path):
    report.save(tmp_path / "report.json")
    assert type(report).load(tmp_path / "report.json") == report
