"""Pictures: their content, and no change of global state."""

from __future__ import annotations

import io
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from scipy import sparse

import ncut
from ncut.errors import InputError

matplotlib = pytest.importorskip("matplotlib", reason="pip install 'ncut[plot]'")
matplotlib.use("Agg")

from matplotlib.figure import Figure  # noqa: E402

from ncut.report.colours import cluster_colors  # noqa: E402
from ncut.report.plots import check_format, new_figure, save_picture  # noqa: E402
from ncut.types import Layer  # noqa: E402


@pytest.fixture
def ax():
    return Figure().add_subplot()


def vertical_lines(ax):
    return [line for line in ax.lines if len(set(line.get_xdata())) == 1]


def test_null_shows_all_shuffles_and_the_network(report, ax):
    assert report.plot("null", ax) is ax
    assert sum(patch.get_height() for patch in ax.patches) == report.n_shuffles
    low = min(patch.get_x() for patch in ax.patches)
    high = max(patch.get_x() + patch.get_width() for patch in ax.patches)
    assert low == pytest.approx(report.shuffled_ncuts.min())
    assert high == pytest.approx(report.shuffled_ncuts.max())
    (line,) = vertical_lines(ax)
    assert line.get_xdata()[0] == report.ncut
    assert ax.get_title() == "p = 0.020, Z = −13.2"
    assert any("1.500" in text.get_text() for text in ax.texts)
    left, right = ax.get_xlim()
    assert left < report.ncut < right


def test_null_with_equal_shuffles(make, ax):
    same = make(shuffled_ncuts=np.full(50, 2.0), shuffled_std=0.0, z_score=None)
    same.plot("null", ax)
    assert sum(patch.get_height() for patch in ax.patches) == 50


def test_layers_bars_add_up(report, ax):
    report.plot("layers", ax)
    containers = ax.containers
    assert [c.get_label() for c in containers] == ["0", "1", "2", "isolated"]
    widths = np.array([[bar.get_width() for bar in c] for c in containers])
    np.testing.assert_allclose(widths.sum(axis=0), 100)
    starts = np.array([[bar.get_x() for bar in c] for c in containers])
    np.testing.assert_allclose(starts[1:], (starts + widths)[:-1])
    sizes = np.array([layer.size for layer in report.layers])
    np.testing.assert_allclose(widths[:3].T * sizes[:, None] / 100, report.cluster_sizes())
    assert [t.get_text() for t in ax.get_yticklabels()] == ["fc0 (6)", "fc1 (4)", "fc2 (3)"]
    bottom, top = ax.get_ylim()
    assert bottom > top, "the first layer is on top"
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert sorted(legend) == ["0", "1", "2", "isolated"]


def test_layers_without_isolated_vertices_have_no_such_part(make, ax):
    make(labels=np.zeros(13, dtype=np.int32)).plot("layers", ax)
    assert "isolated" not in [c.get_label() for c in ax.containers]


def test_legend_pairs_each_colour_with_its_cluster(make, ax):
    make(sizes=(40, 40), k=12).plot("layers", ax)
    expected = {c.get_label(): c.patches[0].get_facecolor() for c in ax.containers}
    legend = ax.get_legend()
    shown = {
        text.get_text(): handle.get_facecolor()
        for text, handle in zip(legend.get_texts(), legend.legend_handles, strict=True)
    }
    assert shown == expected


def test_eigenvalues(report, ax):
    report.plot("eigenvalues", ax)
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), report.eigenvalues)
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), [1, 2, 3])


@pytest.fixture(scope="module")
def analysed():
    """A report with its graph."""
    rng = np.random.default_rng(0)
    return ncut.analyze([rng.random(pair) for pair in pairwise([20, 16, 12])], k=3, shuffles=0)


def test_matrix_is_the_weight_between_clusters_over_chance(analysed, ax):
    assert analysed.plot("matrix", ax) is ax
    ratio = analysed.between.ratio(analysed.cluster_sizes())
    np.testing.assert_allclose(ax.images[0].get_array(), np.clip(ratio, 0.25, 4))
    numbers = [text.get_text() for text in ax.texts]
    assert numbers == [f"{value:.1f}" for value in ratio.ravel() if not np.isnan(value)]


def test_a_report_from_a_file_draws_them_too(analysed, ax):
    again = ncut.Report.from_json(analysed.to_json())
    again.plot("matrix", ax)
    again.plot("flow", Figure().add_subplot())


def test_flow_has_bands_as_wide_as_the_weights(analysed, ax):
    analysed.plot("flow", ax)
    matrix = analysed.graph.adjacency.toarray()
    widths, weights = [], []
    for band in ax.collections:
        x, y = band.get_paths()[0].vertices.T
        at_source = y[np.isclose(x, x.min())]
        widths.append(np.ptp(at_source))
        at_target = y[np.isclose(x, x.max())]
        assert np.ptp(at_target) == pytest.approx(widths[-1], rel=1e-6)
    layers = [layer.slice for layer in analysed.layers]
    for one, other in pairwise(layers):
        for a in range(3):
            for b in range(3):
                inside = np.ix_(analysed.labels[one] == a, analysed.labels[other] == b)
                weights.append(matrix[one, other][inside].sum())
    weights = np.sort([weight for weight in weights if weight])
    widths = np.sort(widths)
    np.testing.assert_allclose(widths / widths.sum(), weights / weights.sum(), rtol=1e-5)
    assert [text.get_text() for text in ax.get_xticklabels()] == ["input", "w0", "w1"]


def test_flow_needs_edges_between_layers(ax):
    half = np.triu(np.random.default_rng(0).random((20, 20)), 1)
    report = ncut.analyze(sparse.csr_array(half + half.T), k=2, shuffles=0)
    with pytest.raises(InputError, match="'flow' needs edges between layers"):
        report.plot("flow", ax)


def test_all_is_one_figure(analysed, make):
    pyplot = pytest.importorskip("matplotlib.pyplot", reason="pip install matplotlib")
    try:
        first = analysed.plot("all")
        titles = [ax.get_title() for ax in first.figure.axes if ax.get_title()]
        assert titles[:3] == ["clusters in each layer", "3 smallest eigenvalues",
                              "weight between clusters"]  # fmt: skip
        assert make().plot("all").get_xlabel() == "n-cut, k = 3"
    finally:
        pyplot.close("all")


def test_default_kind(make, ax):
    make().plot(ax=ax)
    assert ax.get_xlabel() == "n-cut, k = 3"
    other = Figure().add_subplot()
    make(n_shuffles=0).plot(ax=other)
    assert other.get_xlabel() == "% of the layer's neurons"


def test_impossible_kinds(make, ax):
    with pytest.raises(InputError, match="kind: must be one of null, layers, eigenvalues"):
        make().plot("pie", ax)
    for kind in ("matrix", "flow"):
        with pytest.raises(InputError, match="need the weight between clusters"):
            make().plot(kind, ax)
    with pytest.raises(InputError, match="ax: must be left out with kind 'all'"):
        make().plot("all", ax)
    with pytest.raises(InputError, match="needs shuffles"):
        make(n_shuffles=0).plot("null", ax)


def test_given_axes_leave_pyplot_unloaded():
    """In a fresh process, drawing into given axes does not even import pyplot."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from conftest import make_report;"
        "from matplotlib.figure import Figure;"
        "[make_report().plot(kind, Figure().add_subplot()) "
        "for kind in ('null', 'layers', 'eigenvalues')]; make_report().to_html();"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    folder = __file__.rpartition("/")[0]
    subprocess.run([sys.executable, "-c", code, folder], check=True)


def test_without_axes_pyplot_shows_a_new_figure(report):
    pyplot = pytest.importorskip("matplotlib.pyplot", reason="pip install 'ncut[plot]'")
    before = pyplot.get_fignums()
    ax = report.plot()
    try:
        assert ax.figure.number not in before
        assert ax.figure.number in pyplot.get_fignums()
    finally:
        pyplot.close(ax.figure)


@pytest.mark.parametrize("k", [1, 2, 12, 13, 40, 100])
def test_cluster_colours_are_distinct(k):
    assert len(set(cluster_colors(k))) == k


def test_names_are_not_read_as_mathematics(make):
    report = make(
        sizes=(3,), model="$x^2$ $", labels=np.zeros(3, dtype=np.int32),
        layers=(Layer("$\\frac$", 0, 3),), degrees=np.ones(3),
    )  # fmt: skip
    for kind in ("null", "layers"):
        picture = io.StringIO()
        new_figure(report, kind).savefig(picture, format="svg")  # would raise on \\frac


def test_more_layers_make_a_higher_picture(make):
    low = new_figure(make(sizes=(5,) * 3), "layers").get_size_inches()
    high = new_figure(make(sizes=(5,) * 40), "layers").get_size_inches()
    assert high[0] == low[0]
    assert high[1] > 2 * low[1]


@pytest.mark.parametrize(("suffix", "magic"), [(".png", b"\x89PNG"), (".svg", b"<?xml")])
def test_save_picture(report, tmp_path, suffix, magic):
    path = tmp_path / f"picture{suffix}"
    check_format(path)
    save_picture(report, path)
    assert path.read_bytes().startswith(magic)


@pytest.mark.parametrize("name", ["picture", "picture.xyz", ".png"])
def test_unknown_picture_formats_are_refused(name, tmp_path):
    with pytest.raises(InputError, match="must end in one of"):
        check_format(tmp_path / name)
