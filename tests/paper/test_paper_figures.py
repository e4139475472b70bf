"""Figures of the paper's kinds: they show the right numbers, and nothing global is touched."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from functools import cache
from itertools import combinations, pairwise

import numpy as np
import pytest
from samples import chain_graph, random_chain, with_isolated
from scipy import stats

import ncut
from ncut.errors import InputError
from ncut.paper.records import Analysis
from ncut.paper.results import RowResult, TableResult
from ncut.paper.runs import Run
from ncut.paper.tables import TITLES, Row, published, rows_of

matplotlib = pytest.importorskip("matplotlib", reason="pip install 'ncut[plot]'")
matplotlib.use("Agg")

from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: E402
from matplotlib.colors import to_hex, to_rgba  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from matplotlib.text import Text  # noqa: E402

from ncut.paper import figure_parts, figures, table_figure  # noqa: E402
from ncut.paper.figures import (  # noqa: E402
    draw_initial,
    draw_network,
    draw_nulls,
    draw_table,
    save,
    save_table,
)
from ncut.paper.network_figure import _heaviest, _places, _quota  # noqa: E402
from ncut.paper.point_labels import ROOM, place_labels, touching  # noqa: E402
from ncut.report.colours import MUTED, cluster_colors  # noqa: E402


def run(seed, ncut, mean=None, std=None, p=None):
    return Run(seed, ncut, mean, std, None, p, False, {})


def result_of(table, n_runs=5, *, shuffled=True, seed=0):
    """Networks around the published means, those of the paper's table in its order."""
    random = np.random.default_rng(seed)
    rows = []
    for row in (row for row in published() if row.table == table):
        middle = row.ncut if row.low is None else (row.low + row.high) / 2
        cuts = random.normal(middle, row.ncut_std or 0.05, n_runs)
        means = random.normal(row.shuffled_mean or middle, row.shuffled_std or 0.05, n_runs)
        p_values = random.integers(1, 52, n_runs) / 51
        runs = (
            run(i, *numbers) if shuffled else run(i, numbers[0])
            for i, numbers in enumerate(zip(cuts, means, [0.05] * n_runs, p_values, strict=True))
        )
        phase = {"yes": "pruned", "no": "unpruned"}.get(row.pruned, "initial")
        rows.append(RowResult(Row(row, phase, Analysis(row.k)), tuple(runs)))
    return TableResult(table, tuple(rows))


@cache
def drawn(table):
    """Its result and figure, which tests only look at."""
    result = result_of(table)
    return result, draw_table(result)


def points_of(ax):
    """For each row drawn in a panel: points (n, 2), colour, and colour of the faces."""
    return [
        (np.column_stack(bars[0].get_data()), bars[0].get_color(), bars[0].get_markerfacecolor())
        for bars in ax.containers
    ]


def panels_of(figure):
    return {ax.get_title(): ax for ax in figure.axes}


def labels_of(ax):
    return [text.get_text() for text in ax.texts]


def diagonals_of(ax):
    return [line for line in ax.lines if line.get_linestyle() == "--"]


def crosses_of(ax):
    return np.array(
        [np.ravel(line.get_data()) for line in ax.lines if line.get_marker() == "x"]
    ).reshape(-1, 2)


def text_boxes(figure):
    """Boxes in pixels of all visible texts inside their axes."""
    figure.draw_without_rendering()
    legends = [text for legend in figure.legends for text in legend.get_texts()]
    texts = [text for ax in figure.axes for text in [*ax.texts, ax.title, ax.xaxis.label]]
    # Without the lines that join labels and points.
    return [Text.get_window_extent(text) for text in [*texts, *legends] if text.get_text()]


# --- tables -------------------------------------------------------------------------------------


def test_each_network_is_a_point_with_the_bar_of_its_shuffles():
    result, figure = drawn("A.13")
    panels = panels_of(figure)
    assert list(panels) == ["unpruned", "pruned"]
    for phase, ax in panels.items():
        rows = [row for row in result.rows if row.row.phase == phase]
        found = points_of(ax)
        assert len(found) == len(rows) == 2
        for row, (points, color, face), bars in zip(rows, found, ax.containers, strict=True):
            expected = [(run.shuffled_mean, run.ncut) for run in row.runs]
            np.testing.assert_array_equal(points, expected)
            assert face == ("white" if phase == "unpruned" else color)
            ends = np.array([segment[:, 0] for segment in bars[2][0].get_segments()])
            np.testing.assert_allclose(ends.mean(axis=1), points[:, 0])
            np.testing.assert_allclose(np.diff(ends)[:, 0] / 2, 0.05)


def test_rows_have_the_same_look_in_all_panels_and_the_legend():
    _, figure = drawn("A.13")
    unpruned, pruned = (points_of(ax) for ax in figure.axes)
    colors = [color for _, color, _ in unpruned]
    assert colors == [color for _, color, _ in pruned]
    assert len(set(colors)) == 2
    (legend,) = figure.legends
    shown = dict(
        zip([text.get_text() for text in legend.get_texts()], legend.legend_handles, strict=True)
    )
    names = ("MNIST", "Fashion-MNIST")
    assert [shown[name].get_color() for name in names] == colors
    assert shown["published mean"].get_marker() == "x"
    assert "published without shuffles" not in shown


@pytest.mark.parametrize("table", ["A.5", "A.13", "A.10", "A.11", "1"])
def test_the_diagonal_is_where_both_are_equal_and_seen(table):
    for ax in drawn(table)[1].axes:
        (line,) = diagonals_of(ax)
        x, y = line.get_data()
        np.testing.assert_array_equal(x, y)
        (left, right), (low, high) = ax.get_xlim(), ax.get_ylim()
        assert x[0] <= min(left, low)
        assert x[1] >= max(right, high)
        assert max(left, low) < min(right, high), "crosses the panel"


def test_published_means_are_crosses():
    result, figure = drawn("A.13")
    for phase, ax in panels_of(figure).items():
        rows = [row.published for row in result.rows if row.row.phase == phase]
        np.testing.assert_array_equal(crosses_of(ax), [(r.shuffled_mean, r.ncut) for r in rows])


def test_published_without_shuffles_is_a_dash_at_the_side():
    _, figure = drawn("A.16")
    ax = panels_of(figure)["unpruned"]
    assert not crosses_of(ax).size
    dashes = [line for line in ax.lines if line.get_transform() == ax.get_yaxis_transform()]
    assert [list(line.get_ydata()) for line in dashes] == [[10.289] * 2, [10.266] * 2]
    assert len(crosses_of(panels_of(figure)["pruned"])) == 2
    assert "published without shuffles" in [t.get_text() for t in figure.legends[0].get_texts()]


@pytest.mark.parametrize("table", ["A.1", "A.5", "A.8", "A.10", "A.12"])
def test_everything_lies_inside_a_panel(table):
    result, figure = drawn(table)
    for row in result.rows:
        ax = panels_of(figure)[row.row.phase]
        (left, right), (low, high) = ax.get_xlim(), ax.get_ylim()
        for one in row.runs:
            assert left < one.shuffled_mean - 0.05
            assert one.shuffled_mean + 0.05 < right
            assert low < one.ncut < high
        assert left < row.published.shuffled_mean < right
        assert low < row.published.ncut < high


def test_rows_near_the_diagonal_are_enlarged_if_others_are_far():
    result, figure = drawn("A.8")
    panels = panels_of(figure)
    assert sorted(panels) == ["pruned", "pruned, enlarged", "unpruned", "unpruned, enlarged"]
    small, large = panels["unpruned"], panels["unpruned, enlarged"]
    assert np.ptp(large.get_xlim()) < 0.1 * np.ptp(small.get_xlim())
    (frame,) = [
        line for line in small.lines if line.get_color() == MUTED and line.get_linestyle() == "-"
    ]
    for limits, values in (
        (large.get_xlim(), frame.get_xdata()),
        (large.get_ylim(), frame.get_ydata()),
    ):
        assert min(values) <= limits[0] < limits[1] <= max(values)
    near = [row for row in result.rows[:4] if row.row.published.regularization[:2] in ("no", "dr")]
    (left, right), (low, high) = large.get_xlim(), large.get_ylim()
    for row in near:
        assert all(left < one.shuffled_mean < right and low < one.ncut < high for one in row.runs)
    # The label of a row is where it is larger.
    assert len(labels_of(small)) >= 2
    assert len(labels_of(large)) >= 2
    assert not any("enlarged" in title for title in panels_of(drawn("A.13")[1]))


def test_points_that_share_p_share_a_label():
    (first, second, *_) = rows_of("A.13")
    spread = [run(i, 8.0 + i, 10.0 + 0.1 * i, 0.05, 1 / 51) for i in range(4)]
    apart = [run(0, 5.0, 9.0, 0.05, 0.02), run(1, 5.001, 9.0, 0.05, 0.5), run(2, 7.0, 9.3, 0.05, 1)]
    result = TableResult("A.13", (RowResult(first, tuple(spread)), RowResult(second, tuple(apart))))
    panels = panels_of(draw_table(result))
    assert labels_of(panels["unpruned"]) == ["all p = 0.02"]
    assert sorted(labels_of(panels["pruned"])) == ["p = 0.02–0.5", "p = 1"]


@pytest.mark.parametrize("table", ["1", "A.1", "A.5", "A.8", "A.10", "A.12", "A.13", "A.16"])
def test_no_text_lies_on_another(table):
    boxes = text_boxes(drawn(table)[1])
    assert len(boxes) > 10
    for a, b in combinations(boxes, 2):
        assert not a.overlaps(b)


def test_one_network_is_enough():
    row = rows_of("A.6")[0]
    one = RowResult(row, (run(3, 9.9, 10.05, 0.0, 1 / 51),))
    (ax,) = draw_table(TableResult("A.6", (one,))).axes
    np.testing.assert_array_equal(points_of(ax)[0][0], [[10.05, 9.9]])
    assert labels_of(ax) == ["p = 0.02"]


def test_equal_networks_make_a_figure():
    rows = rows_of("A.6")
    same = tuple(run(i, 9.0, 9.0, 0.0, 1.0) for i in range(3))
    no_means = [
        replace(row, published=replace(row.published, ncut=None, shuffled_mean=None))
        for row in rows
    ]
    figure = draw_table(TableResult("A.6", tuple(RowResult(row, same) for row in no_means)))
    figure.draw_without_rendering()
    assert [ax.get_title() for ax in figure.axes] == ["unpruned", "pruned"]


def test_without_shuffles_rows_stand_beside_each_other():
    result = result_of("A.20", shuffled=False)
    figure = draw_table(result)
    (ax,) = figure.axes
    assert ax.get_title() == "pruned"
    points = [line.get_data() for line in ax.lines if line.get_marker() != "x"]
    for position, (row, (x, y)) in enumerate(zip(result.rows, points, strict=True)):
        assert list(x) == [position] * 5
        assert list(y) == [one.ncut for one in row.runs]
    expected = [(i, row.published.ncut) for i, row in enumerate(result.rows)]
    np.testing.assert_array_equal(crosses_of(ax), expected)
    names = [label.get_text().replace("\n", " ") for label in ax.get_xticklabels()]
    assert names == ["MNIST", "LINES", "LINES and MNIST", "LINES, MNIST separate"]
    assert not labels_of(ax)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["published mean"]


def test_rows_with_and_without_shuffles_have_panels_of_their_own():
    with_shuffles, without = result_of("A.16").rows, result_of("A.16", shuffled=False).rows
    figure = draw_table(TableResult("A.16", (with_shuffles[0], without[2], *with_shuffles[1::2])))
    assert [ax.get_title() for ax in figure.axes] == ["unpruned", "unpruned", "pruned"]
    assert [len(ax.containers) for ax in figure.axes] == [1, 0, 2]


@pytest.mark.parametrize("table", TITLES)
def test_settings_have_names_that_differ(table):
    rows = [row for row in published() if row.table == table]
    style = table_figure._Style(rows)
    names = {
        (row.network, row.dataset, row.variant, row.regularization): style.name(
            RowResult(Row(row, "pruned", Analysis()), ())
        )
        for row in rows
    }
    assert len(set(names.values())) == len(names)
    assert all(names.values())


def test_title_is_the_tables():
    result, figure = drawn("A.11")
    assert figure.get_suptitle() == result.title
    long, figure = drawn("1")
    assert figure.get_suptitle().replace("\n", " ") == long.title


def test_nothing_to_draw_is_refused():
    empty = TableResult("A.6", tuple(RowResult(row, ()) for row in rows_of("A.6")))
    for draw in (draw_table, draw_initial):
        with pytest.raises(InputError, match=r"result: Table A\.6 has no networks yet"):
            draw(empty)


def test_rows_without_networks_are_left_out():
    result = result_of("A.13")
    fewer = TableResult("A.13", (result.rows[0], replace(result.rows[1], runs=())))
    assert [ax.get_title() for ax in draw_table(fewer).axes] == ["unpruned"]


# --- labels -------------------------------------------------------------------------------------


@pytest.fixture
def ax():
    ax = FigureCanvasAgg(Figure(figsize=(5, 5), dpi=144)).figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, 360), ylim=(0, 360))  # units are points of type
    return ax


def test_points_touch_through_others(ax):
    points = np.array([[10.0, 10], [200, 200], [20, 10], [30, 10], [212, 200]])
    groups = touching(ax, points, 11.0)
    assert [list(group) for group in groups] == [[0, 2, 3], [1], [4]]


def box_of(label):
    """In data coordinates, without the line that joins it to its point."""
    label.update_positions(label.figure.canvas.get_renderer())
    return Text.get_window_extent(label).transformed(label.axes.transData.inverted())


def test_a_label_is_right_of_its_point_if_there_is_room(ax):
    place_labels(ax, [("p = 1", np.array([[100.0, 100]]), "black")], 8)
    (label,) = ax.texts
    box = box_of(label)
    assert ROOM[0] <= box.x0 - 100 < ROOM[0] + 4
    assert box.y0 < 100 < box.y1
    assert label.arrow_patch is None


def test_labels_avoid_points_lines_each_other_and_the_border(ax):
    random = np.random.default_rng(0)
    points = random.uniform(10, 350, (40, 2))
    points[0], points[1] = (355, 355), (2, 2)
    ax.plot(*points.T, "o", markersize=4)
    ax.errorbar(*points.T, xerr=8, fmt="none")
    place_labels(
        ax, [(f"p = 0.{i:02d}", point[None], "black") for i, point in enumerate(points)], 6
    )
    boxes = [box_of(label) for label in ax.texts]
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    assert not any(box.contains(*point) for box in boxes for point in points)
    for box in boxes:
        assert min(box.x0, box.y0) >= 0
        assert max(box.x1, box.y1) <= 360


def test_a_label_far_from_its_point_is_joined_to_it(ax):
    crowd = np.array([(x, y) for x in range(150, 211, 4) for y in range(150, 211, 4)], dtype=float)
    ax.plot(*crowd.T, "o", markersize=4)
    place_labels(ax, [("p = 1", np.array([[180.0, 180]]), "black")], 8)
    (label,) = ax.texts
    assert label.arrow_patch is not None
    assert label.xy == (180, 180)
    box = box_of(label)
    assert not any(box.contains(*point) for point in crowd)


# --- untrained networks and null models ---------------------------------------------------------


def histogram_of(ax, color):
    return [patch for patch in ax.patches if to_hex(patch.get_facecolor()) == color]


def test_untrained_networks_as_histogram_density_and_published_range():
    result = result_of("figure A.1", 40, shuffled=False)
    (ax,) = draw_initial(result).axes
    cuts = np.array([one.ncut for one in result.rows[0].runs])
    band, *bars = ax.patches
    assert (band.get_x(), band.get_x() + band.get_width()) == pytest.approx((10.2, 10.4))
    heights = np.array([bar.get_height() for bar in bars])
    edges = np.array([bar.get_x() for bar in bars] + [bars[-1].get_x() + bars[-1].get_width()])
    expected, _ = np.histogram(cuts, edges, density=True)
    assert (edges[0], edges[-1]) == pytest.approx((cuts.min(), cuts.max()))
    np.testing.assert_allclose(heights, expected)
    (line,) = ax.lines
    x, y = line.get_data()
    # Scott's bandwidth, written out.
    width = cuts.std(ddof=1) * cuts.size ** (-1 / 5)
    density = stats.norm.pdf(x[:, None], cuts, width).mean(axis=1)
    np.testing.assert_allclose(y, density, rtol=1e-9)
    assert np.trapezoid(y, x) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("cuts", [[10.3], [10.3] * 5, [10.3, 10.3 + 1e-15, 10.3]])
def test_equal_values_have_no_density_curve(cuts):
    (row,) = rows_of("figure A.1")
    one = RowResult(row, tuple(run(i, cut) for i, cut in enumerate(cuts)))
    figure = draw_initial(TableResult("figure A.1", (one,)))
    figure.draw_without_rendering()
    (ax,) = figure.axes
    assert not ax.lines
    _, bar = ax.patches
    assert bar.get_x() < 10.3 < bar.get_x() + bar.get_width()
    assert bar.get_height() * bar.get_width() == pytest.approx(1)


@pytest.fixture(scope="module")
def graph():
    """Three groups of neurons with strong edges inside, two isolated neurons in each layer."""
    weights = []
    for number, (m, n) in enumerate(pairwise((30, 24, 18, 12))):
        (matrix,) = random_chain(number, (m, n), 0.5)
        own = np.equal.outer(np.arange(m) * 3 // m, np.arange(n) * 3 // n)
        weights.append(matrix * np.where(own, 10.0, 0.1))
    return chain_graph(with_isolated(weights, 5), "groups")


@pytest.fixture(scope="module")
def reports(graph):
    return {
        null: ncut.analyze(graph, k=3, shuffles=12, null=null, seed=1, threads=1)
        for null in ("layer", "layer-nonzero")
    }


def test_a_panel_for_each_network_a_colour_for_each_null_model(reports):
    names = list("abcd")
    figure = draw_nulls([(name, reports) for name in names])
    assert [ax.get_title() for ax in figure.axes] == names
    spec = figure.axes[0].get_gridspec()
    assert (spec.nrows, spec.ncols) == (2, 2)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["layer", "layer-nonzero", "the network"]
    for ax in figure.axes:
        (own,) = [line for line in ax.lines if len(set(line.get_xdata())) == 1]
        assert own.get_xdata()[0] == reports["layer"].ncut
        assert to_hex(own.get_color()) == "#000000"
        assert len(ax.lines) == 3
        for color, report in zip(figure_parts.COLORS, reports.values(), strict=False):
            bars = histogram_of(ax, color)
            assert bars[0].get_x() == pytest.approx(report.shuffled_ncuts.min())
            end = bars[-1].get_x() + bars[-1].get_width()
            assert end == pytest.approx(report.shuffled_ncuts.max())
            assert sum(bar.get_height() * bar.get_width() for bar in bars) == pytest.approx(1)


def test_one_network_has_one_panel(reports):
    (ax,) = draw_nulls([("$\\frac$", reports)]).axes
    assert ax.get_title() == "$\\frac$"


def test_null_models_that_cannot_be_drawn_are_refused(reports, graph):
    with pytest.raises(InputError, match="panels: there is no network"):
        draw_nulls([])
    with pytest.raises(InputError, match="panels: 'x' needs reports, and each of them shuffles"):
        draw_nulls([("x", {})])
    bare = ncut.analyze(graph, k=3, shuffles=0, threads=1)
    with pytest.raises(InputError, match="panels: 'x' needs reports"):
        draw_nulls([("x", {"layer": reports["layer"], "none": bare})])


# --- a network ----------------------------------------------------------------------------------


@pytest.fixture
def report(reports):
    return reports["layer"]


def drawn_edges(ax):
    return {lines.get_label(): lines for lines in ax.collections if hasattr(lines, "get_segments")}


def dots(ax):
    """Places and colours of all neurons drawn."""
    parts = [part for part in ax.collections if not hasattr(part, "get_segments")]
    places = np.concatenate([np.asarray(part.get_offsets()) for part in parts])
    return places, np.concatenate([part.get_facecolors() for part in parts])


def test_neurons_that_are_not_isolated_are_dots_in_their_layer_and_colour(report, graph):
    (ax,) = draw_network(report, graph).axes
    places, colors = dots(ax)
    drawn = report.labels >= 0
    assert 0 < (~drawn).sum() < 10
    layer_of = np.repeat(np.arange(4), [30, 24, 18, 12])
    np.testing.assert_array_equal(places[:, 1], layer_of[drawn])
    expected = [to_rgba(cluster_colors(3)[label]) for label in report.labels[drawn]]
    np.testing.assert_allclose(colors, expected)
    shown = [f"{drawn[layer.slice].sum()} of {layer.size}" for layer in report.layers]
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels == [f"layer{i}\n({text})" for i, text in enumerate(shown)]
    bottom, top = ax.get_ylim()
    assert bottom > top, "the first layer is on top"


def test_clusters_are_bands_with_gaps_and_numbers_above(report, graph):
    (ax,) = draw_network(report, graph).axes
    places, _ = dots(ax)
    labels = report.labels[report.labels >= 0]
    bands = [(places[labels == c, 0].min(), places[labels == c, 0].max(), c) for c in range(3)]
    for (_, end, _), (start, _, _) in pairwise(sorted(bands)):
        assert start - end > 0.01
    assert min(bands)[0] >= 0
    assert max(bands)[1] <= 1
    numbers = {text.get_text(): text.xy[0] for text in ax.texts}
    for start, end, cluster in bands:
        assert start < numbers[str(cluster)] < end
    for layer in range(4):
        in_layer = places[places[:, 1] == layer, 0]
        assert len(set(in_layer)) == len(in_layer), "no two neurons in one place"


def test_all_edges_with_room_for_all(report, graph):
    """Each is a line between its neurons, of its cluster's colour or grey, opaque by weight."""
    (ax,) = draw_network(report, graph, max_edges=10**6).axes
    places = _places(report, graph.adjacency)
    expected = {}
    for block in graph.blocks:
        weights, (a, b) = (
            block.weights,
            (graph.layers[i].start for i in (block.source, block.target)),
        )
        for i, j in zip(*np.nonzero(weights), strict=True):
            ends = (*places[a + i], *places[b + j])
            cluster = report.labels[a + i] if report.labels[a + i] == report.labels[b + j] else None
            color = MUTED if cluster is None else cluster_colors(3)[cluster]
            strength = 0.3 if cluster is None else 0.8
            expected[ends] = (
                cluster is None,
                *to_rgba(color, strength * weights[i, j] / weights.max()),
            )
    found = {}
    for label, lines in drawn_edges(ax).items():
        for segment, color in zip(lines.get_segments(), lines.get_colors(), strict=True):
            found[tuple(segment.ravel())] = (label == "between clusters", *color)
        assert lines.get_rasterized()
    assert found.keys() == expected.keys()
    assert len(found) == graph.n_edges
    for ends, color in expected.items():
        assert found[ends] == pytest.approx(color)
    grey, coloured = (drawn_edges(ax)[f"{where} clusters"] for where in ("between", "inside"))
    assert ax.collections.index(grey) < ax.collections.index(coloured), "below"


@pytest.mark.parametrize("max_edges", [1, 7, 100, 300])
def test_the_heaviest_edges_between_any_two_layers_are_drawn(graph, max_edges):
    ends, weights = _heaviest(graph, max_edges)
    counts = [np.count_nonzero(block.weights) for block in graph.blocks]
    quota = next(q for q in range(500, 0, -1) if q == 1 or sum(np.minimum(counts, q)) <= max_edges)
    chosen = set(map(tuple, ends.tolist()))
    assert len(chosen) == len(ends) <= max(max_edges, len(counts))
    assert (np.diff(weights) >= 0).all()
    for block, count in zip(graph.blocks, counts, strict=True):
        a, b = graph.layers[block.source].start, graph.layers[block.target].start
        heaviest = np.argsort(-block.weights, axis=None)[: min(count, quota)]
        i, j = np.unravel_index(heaviest, block.weights.shape)
        assert set(zip((a + i).tolist(), (b + j).tolist(), strict=True)) <= chosen


@pytest.mark.parametrize("counts", [[5], [3, 10, 4], [1, 1, 1], [100, 2, 50, 50]])
def test_quota_is_the_largest_that_fits(counts):
    for total in range(1, sum(counts) + 5):
        quota = _quota(np.array(counts), total)
        drawn = [int(np.minimum(counts, q).sum()) for q in (quota, quota + 1)]
        assert drawn[0] <= max(total, len(counts))
        assert drawn[1] > total or drawn[0] == sum(counts)


def test_title_says_how_many_edges(report, graph):
    (ax,) = draw_network(report, graph, max_edges=60).axes
    n_drawn = sum(len(lines.get_segments()) for lines in drawn_edges(ax).values())
    assert 58 <= n_drawn <= 60
    assert (
        ax.get_title() == f"groups: n-cut {report.ncut:.3f}, {n_drawn} of {graph.n_edges:,} edges"
    )


@pytest.mark.parametrize("k", [2, 30])
def test_any_number_of_clusters(graph, k):
    measured = ncut.analyze(graph, k=k, shuffles=0, threads=1)
    (ax,) = draw_network(measured, graph).axes
    places, _ = dots(ax)
    assert len(places) == (measured.labels >= 0).sum()
    assert (places[:, 0] >= 0).all()
    assert (places[:, 0] <= 1).all()
    assert len(ax.texts) == (0 if k == 30 else k)


def test_networks_that_cannot_be_drawn_are_refused(report, graph):
    other = chain_graph(random_chain(0, (5, 4)))
    with pytest.raises(InputError, match=r"graph: has layers of sizes \(5, 4\), but .*\(30, 24"):
        draw_network(report, other)
    with pytest.raises(InputError, match="max_edges: must be at least 1, got 0"):
        draw_network(report, graph, 0)
    with pytest.raises(InputError, match="all neurons are isolated"):
        draw_network(replace(report, labels=np.full_like(report.labels, -1)), graph)


# --- files and imports --------------------------------------------------------------------------


@pytest.mark.parametrize(("suffix", "magic"), [(".png", b"\x89PNG"), (".pdf", b"%PDF")])
def test_save(tmp_path, report, graph, suffix, magic):
    path = tmp_path / f"network{suffix}"
    save(draw_network(report, graph), path)
    assert path.read_bytes().startswith(magic)


def test_files_that_cannot_be_written_are_refused(tmp_path):
    figure = Figure()
    with pytest.raises(InputError, match="must end in one of"):
        save(figure, tmp_path / "picture.xyz")
    with pytest.raises(InputError, match=r"nowhere.*cannot be written: No such file"):
        save(figure, tmp_path / "nowhere" / "picture.png")


@pytest.mark.parametrize("table", ["A.13", "figure A.1"])
def test_a_table_is_saved_by_its_name(tmp_path, table):
    path = save_table(result_of(table, shuffled=table == "A.13"), tmp_path / "out")
    assert path == tmp_path / "out" / "figures" / f"{table.replace(' ', '-')}.png"
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "figures").write_text("a file")
    with pytest.raises(InputError, match="figures: cannot be written: File exists"):
        save_table(result_of("A.13"), tmp_path)


def test_importing_needs_no_matplotlib_and_drawing_no_pyplot():
    """In a fresh process."""
    code = (
        "import sys, ncut.paper.figures as figures;"
        "assert 'matplotlib' not in sys.modules;"
        "from ncut.paper.results import RowResult, TableResult; from ncut.paper.runs import Run;"
        "from ncut.paper.tables import rows_of;"
        "runs = (Run(0, 9.0, 10.0, 0.1, -10.0, 0.02, True, {}),);"
        "result = TableResult('A.13', (RowResult(rows_of('A.13')[0], runs),));"
        "figures.draw_table(result);"
        "figures.draw_initial(result);"
        "assert 'matplotlib.figure' in sys.modules and 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_matplotlib_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'ncut\[plot\]'"):
        figures.check_available()
    with pytest.raises(ImportError, match=r"pip install 'ncut\[plot\]'"):
        draw_table(result_of("A.13"))
