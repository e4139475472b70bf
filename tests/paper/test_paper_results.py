"""Our numbers beside the published ones: conclusions, differences, order, a table's files."""

from __future__ import annotations

import csv
import io
import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ncut
from ncut.errors import InputError

pytest.importorskip("torch", reason="pip install 'ncut[torch]'")
from ncut.paper import run_table, table
from ncut.paper.comparison import Sample, difference
from ncut.paper.records import Analysis, Record
from ncut.paper.results import RowResult, Summary, TableResult
from ncut.paper.runs import Run, run_of
from ncut.paper.tables import TITLES, Deviations, published, rows_of

METRICS = {
    "train_accuracy": 0.75, "test_accuracy": 0.5, "train_loss": 1.5, "test_loss": 2.5,
    "seconds": 12.25, "images": 60_000, "original_data": True,
}  # fmt: skip


def run(ncut=5.0, mean=6.0, std=0.1, below=False, seed=0, **metrics):
    z_score = None if mean is None else (ncut - mean) / std
    p_value = None if mean is None else 0.25
    return Run(seed, ncut, mean, std, z_score, p_value, below, METRICS | metrics)


def row_result(name, index, *runs):
    return RowResult(rows_of(name)[index], tuple(runs))


def result_of(name, cuts, **changes):
    """A table whose rows have one network each, with these n-cuts."""
    pairs = zip(rows_of(name), cuts, strict=True)
    return TableResult(name, tuple(RowResult(row, (run(cut, **changes),)) for row, cut in pairs))


def read(text):
    return list(csv.DictReader(io.StringIO(text)))


# --- conclusions --------------------------------------------------------------------------------


def summary(runs, significant, ncut, mean, std):
    return Summary(runs, ncut, 0.1, mean, std, significant, None, None, None, None)


@given(
    runs=st.integers(1, 10),
    share=st.floats(0, 1),
    ncut=st.floats(0, 12),
    mean=st.floats(0, 12),
    std=st.floats(0.001, 2),
)
def test_conclusions_follow_most_networks_then_the_mean(runs, share, ncut, mean, std):
    significant = round(share * runs)
    if significant > runs - significant:
        expected = "more"
    elif ncut > mean + 2 * std:
        expected = "less"
    else:
        expected = "neither"
    assert summary(runs, significant, ncut, mean, std).conclusion == expected


@pytest.mark.parametrize(
    ("significant", "ncut", "expected"),
    [
        (6, 99.0, "more"),  # however far above the shuffles the mean is
        (5, 1.0, "neither"),  # half of ten are not most
        (5, 6.3, "less"),
        (0, 6.25, "neither"),  # two standard deviations exactly
        (0, 6.26, "less"),
    ],
)
def test_conclusions_at_the_borders(significant, ncut, expected):
    assert summary(10, significant, ncut, 6.0, 0.125).conclusion == expected


@pytest.mark.parametrize("unknown", ["significant", "ncut", "shuffled_mean"])
def test_without_a_comparison_there_is_no_conclusion(unknown):
    assert replace(summary(5, 5, 1.0, 2.0, 0.1), **{unknown: None}).conclusion is None


def conclusions(name):
    return [RowResult(row, (run(),)).published.conclusion for row in rows_of(name)]


def test_published_conclusions_are_the_papers():
    # "dropout promotes absolute and relative clusterability"; L1 and L2 are "at the expense of
    # relative clusterability"; of L2-regularized pruned MLPs 3 of 5 are below their shuffles.
    for name in ("A.5", "A.6"):
        assert conclusions(name) == ["more", "more", "less", "less", *["more"] * 2, "less", "more"]
    assert conclusions("A.13") == ["more"] * 4
    # No network with k = 2 "was statistically significantly clusterable".
    assert set(conclusions("A.4")) <= {"neither", "less"}
    assert conclusions("A.18") == [None, "more", None, "more"]
    assert conclusions("A.16") == [None, "neither", None, "neither"]
    assert conclusions("A.20") == [None] * 4
    assert conclusions("1") == ["neither", "neither", "less", "more"]
    for number in (1, 2, 3):
        assert conclusions(f"figure A.{number}") == [None]


def test_rows_agree_where_both_conclusions_are_the_same():
    more, less = run(below=True), run(9.0)
    assert row_result("A.5", 0, more).agrees is True
    assert row_result("A.5", 0, less).agrees is False
    assert row_result("A.5", 2, less).agrees is True
    assert row_result("A.5", 0, more, less, less).agrees is False
    assert row_result("A.5", 0, more, less, more).agrees is True
    assert row_result("A.20", 0, more).agrees is None
    without = row_result("figure A.1", 0, run(mean=None, std=None))
    assert without.agrees is None
    assert without.ours.conclusion is None


# --- numbers ------------------------------------------------------------------------------------


def test_our_numbers_are_means_over_networks():
    runs = [run(5.0, 6.0, 0.1, True, 0, train_accuracy=0.5), run(5.5, 6.5, 0.3, False, 1),
            run(7.0, 7.0, 0.2, True, 2, test_loss=4.0)]  # fmt: skip
    ours = row_result("A.5", 0, *runs).ours
    assert ours.runs == 3
    assert ours.ncut == pytest.approx(np.mean([5.0, 5.5, 7.0]))
    assert ours.ncut_std == pytest.approx(np.std([5.0, 5.5, 7.0], ddof=1))
    assert ours.shuffled_mean == pytest.approx(6.5)
    assert ours.shuffled_std == pytest.approx(0.2)
    assert ours.significant == 2
    assert ours.train_accuracy == pytest.approx(2 / 3)
    assert ours.test_accuracy == 0.5
    assert ours.train_loss == 1.5
    assert ours.test_loss == pytest.approx(3.0)


def test_unknown_values_stay_unknown():
    runs = [run(mean=None, std=None, train_accuracy=None, test_accuracy=None)]
    ours = row_result("A.19", 0, *runs).ours
    assert ours.ncut_std is None
    assert ours.shuffled_mean is ours.shuffled_std is ours.significant is None
    assert ours.train_accuracy is ours.test_accuracy is None
    assert ours.train_loss == 1.5
    untrained = RowResult(rows_of("figure A.1")[0], (replace(runs[0], metrics={}),)).ours
    assert untrained.train_loss is None


def test_published_numbers_match_the_row():
    found = row_result("A.5", 1, run()).published
    expected = (5, 9.97, 0.0823, 10.30, 0.11, 5, 0.973, 0.980, None, None)
    assert found == Summary(*expected)


def test_a_difference_is_that_of_the_means_with_the_noise_of_both_sides():
    row = rows_of("A.5")[0].published
    assert (row.ncut_std, row.runs) == (0.0165, 5)
    ours = [row.ncut + x for x in (0.01, 0.03, 0.05)]
    found = row_result("A.5", 0, *map(run, ours)).difference
    expected = difference(Sample(3, row.ncut + 0.03, 0.02), Sample(5, row.ncut, 0.0165))
    assert (found.value, found.degrees) == (pytest.approx(0.03), 6)
    assert found.standard_error == pytest.approx(expected.standard_error)
    single = row_result("A.5", 0, run(row.ncut - 0.0165)).difference
    assert (single.value, single.degrees) == (pytest.approx(-0.0165), 4)
    assert single.standard_error == pytest.approx(0.0165 * 1.2**0.5)


def test_the_noise_is_ours_where_no_spread_is_published():
    row = rows_of("A.19")[1].published
    assert row.ncut_std is None
    runs = [run(row.ncut + x) for x in (1.0, 2.0, 3.0)]
    found = row_result("A.19", 1, *runs).difference
    assert (found.value, found.degrees) == (pytest.approx(2.0), 2)
    assert found.standard_error == pytest.approx((1 / 3 + 1 / 5) ** 0.5)
    assert row_result("A.19", 1, runs[0]).difference is None  # of one network there is none
    assert row_result("A.19", 1, runs[0], runs[0]).difference is None


@pytest.mark.parametrize(
    ("mean", "expected"), [(10.1, -0.1), (10.2, 0.0), (10.3, 0.0), (10.4, 0.0), (10.7, 0.3)]
)
def test_untrained_networks_differ_by_their_distance_from_the_range(mean, expected):
    row = rows_of("figure A.1")[0].published
    assert (row.low, row.high, row.ncut) == (10.2, 10.4, None)
    runs = [run(mean + x, None, None) for x in (-0.1, 0.0, 0.1)]
    found = row_result("figure A.1", 0, *runs).difference
    assert found.value == pytest.approx(expected, abs=1e-9)
    assert found.standard_error == pytest.approx(0.1 / 3**0.5)


@pytest.mark.parametrize(
    ("shift", "spread", "expected"),
    [(-0.13, 0.01, True), (0.13, 0.01, False), (-0.005, 0.01, False), (-0.13, 0.3, False)],
)
def test_a_conclusion_is_decided_where_both_sides_are_off_their_shuffles(shift, spread, expected):
    """The published networks lie 0.14 below theirs, with a standard deviation of 0.0165."""
    runs = [run(5.0 + shift - spread, 5.0), run(5.0 + shift + spread, 5.0)]
    assert row_result("A.5", 0, *runs).is_decided is expected


def test_nothing_is_decided_without_shuffles_or_spread():
    assert not row_result("figure A.1", 0, run(1.0, None, None), run(2.0, None, None)).is_decided
    assert not row_result("A.19", 1, run(1.0)).is_decided


def test_the_order_of_rows_is_counted_in_pairs():
    cuts = [row.published.ncut for row in rows_of("A.5")]
    n_pairs = len(cuts) * (len(cuts) - 1) // 2
    assert result_of("A.5", cuts).order() == (n_pairs, n_pairs)
    assert result_of("A.5", [12 - cut for cut in cuts]).order() == (0, n_pairs)
    swapped = sorted(cuts)
    neighbours = {swapped[3]: swapped[4], swapped[4]: swapped[3]}
    found = result_of("A.5", [neighbours.get(cut, cut) for cut in cuts]).order()
    assert found == (n_pairs - 1, n_pairs)
    untrained = result_of("figure A.1", [10.3], mean=None, std=None)
    assert (untrained.order(), untrained.order_by_noise()) == ((0, 0), None)


@given(cuts=st.lists(st.integers(0, 5), min_size=8, max_size=8))
def test_the_order_of_any_n_cuts(cuts):
    rows = [row.published.ncut for row in rows_of("A.6")]
    expected = sum(
        (cuts[i] < cuts[j]) == (rows[i] < rows[j]) and cuts[i] != cuts[j]
        for i, j in itertools.combinations(range(8), 2)
    )
    assert result_of("A.6", [float(cut) for cut in cuts]).order() == (expected, 28)


def test_published_orders_can_be_reached():
    # No two rows of a table that are compared have one n-cut.
    for name in TITLES:
        cuts = [row.ncut for row in published() if row.table == name and row.ncut is not None]
        assert len(set(cuts)) == len(cuts)


def test_agreement_counts_rows_with_a_published_conclusion():
    rows = [row_result("A.16", 0, run(below=True)), row_result("A.16", 1, run(6.0)),
            row_result("A.16", 3, run(below=True))]  # fmt: skip
    assert TableResult("A.16", tuple(rows)).agreement() == (1, 2)
    assert TableResult("A.16", ()).agreement() == (0, 0)


# --- CSV ----------------------------------------------------------------------------------------

SETTINGS = {"table", "row", "network", "data", "regularization", "phase", "k", "shuffles",
            "epochs", "pruning_epochs", "procedure", "precision", "max_images"}  # fmt: skip
NUMBERS = {"runs", "ncut", "ncut_std", "shuffled_mean", "shuffled_std", "significant",
           "conclusion", "train_accuracy", "test_accuracy", "train_loss", "test_loss"}  # fmt: skip


@pytest.mark.parametrize("name", ["1", "A.1", "A.10", "A.16", "A.19", "A.20", "figure A.2"])
def test_a_csv_has_a_line_for_each_row_with_both_sides_numbers(name):
    is_figure = name.startswith("figure")
    changes = {"mean": None, "std": None} if is_figure else {}
    rows = [RowResult(row, (run(5.0 + row.published.row, seed=0, **changes),
                            run(5.5 + row.published.row, seed=1, **changes)))
            for row in rows_of(name)]  # fmt: skip
    result = TableResult(name, tuple(rows))
    lines = read(result.to_csv())
    assert len(lines) == len(rows)
    expected = SETTINGS | NUMBERS | {f"published_{each}" for each in NUMBERS}
    expected |= {"images", "published_std_from", "difference", "standard_error", "half_width",
                 "agrees", "decided"}  # fmt: skip
    for line, row in zip(lines, rows, strict=True):
        assert set(line) == expected
        assert line["table"] == name
        assert line["row"] == str(row.row.published.row)
        assert line["phase"] == row.row.phase
        for field in ("network", "data", "regularization", "epochs", "pruning_epochs"):
            assert line[field] == str(getattr(row.row.recipe, field))
        for summary, prefix in ((row.ours, ""), (row.published, "published_")):
            for field in NUMBERS:
                value, cell = getattr(summary, field), line[prefix + field]
                if value is None:
                    assert cell == ""
                elif isinstance(value, str):
                    assert cell == value
                else:
                    assert float(cell) == pytest.approx(value, rel=1e-5)
        for field in ("standard_error", "half_width"):
            value = getattr(row.difference, field, None)
            assert line[field] == ("" if value is None else f"{value:.6g}")
        value = getattr(row.difference, "value", None)
        assert line["difference"] == ("" if value is None else f"{value:.6g}")
        decided = "" if row.agrees is None else "yes" if row.is_decided else "no"
        assert line["decided"] == decided
        assert line["agrees"] == {None: "", True: "yes", False: "no"}[row.agrees]
        assert line["images"] == "60000"


def test_runs_have_a_line_each():
    first = row_result("A.5", 0, run(4.0, seed=0, below=True), run(5.0, seed=2))
    second = row_result("A.5", 5, run(6.0, None, None, seed=1, train_accuracy=None))
    lines = read(TableResult("A.5", (first, second)).runs_to_csv())
    names = {
        "ncut",
        "shuffled_mean",
        "shuffled_std",
        "z_score",
        "p_value",
        "below_all",
        "seed",
        "train_accuracy",
        "test_accuracy",
        "train_loss",
        "test_loss",
        "seconds",
        "images",
        "original_data",
        "data_checksum",
    }
    assert all(set(line) == SETTINGS | names for line in lines)
    assert [(line["row"], line["seed"], line["ncut"]) for line in lines] == [
        ("1", "0", "4"), ("1", "2", "5"), ("6", "1", "6"),
    ]  # fmt: skip
    assert [line["below_all"] for line in lines] == ["yes", "no", "no"]
    assert [line["z_score"] for line in lines] == ["-20", "-10", ""]
    assert lines[2]["shuffled_mean"] == lines[2]["p_value"] == lines[2]["train_accuracy"] == ""
    assert lines[0]["seconds"] == "12.25"


def test_an_untrained_network_has_no_images():
    row = RowResult(rows_of("figure A.3")[0], (replace(run(mean=None, std=None), metrics={}),))
    (line,) = read(TableResult("figure A.3", (row,)).to_csv())
    assert line["images"] == line["train_accuracy"] == line["shuffled_mean"] == ""


# --- Markdown -----------------------------------------------------------------------------------


def markdown(name, *rows):
    return TableResult(name, rows).to_markdown()


def table_lines(text):
    return [[cell.strip() for cell in line.strip("|").split("|")]
            for line in text.splitlines() if line.startswith("|")]  # fmt: skip


@pytest.mark.parametrize("name", ["1", "A.4", "A.10", "A.18", "A.19", "A.21", "figure A.1"])
def test_markdown_has_two_lines_of_the_same_cells_for_each_row(name):
    rows = [RowResult(row, (run(), run(5.5))) for row in rows_of(name)]
    text = markdown(name, *rows)
    head, rule, *lines = table_lines(text)
    assert len(lines) == 2 * len(rows)
    assert {len(line) for line in (head, rule, *lines)} == {len(head)} == {10}
    assert set(rule) == {"---"}
    for row, ours, theirs in zip(rows, lines[::2], lines[1::2], strict=True):
        assert ours[:3] == [row.row.published.label, row.row.published.pruned, "ours (2)"]
        assert theirs[:3] == ["", "", f"published ({row.row.published.runs})"]
        assert ours[3] == "5.250 ± 0.354"
        assert theirs[8:] == ["", ""]
    assert text.startswith("### ")
    assert text.endswith("\n")
    assert "\n\n\n" not in text


def test_markdown_shows_what_is_known():
    text = markdown("A.5", row_result("A.5", 0, run(10.0, 10.2, 0.04, True), run(10.1, 10.3, 0.06)))
    _, _, ours, theirs = table_lines(text)
    assert ours == [
        "mlp mnist none", "no", "ours (2)", "10.050 ± 0.071", "10.250 ± 0.050", "1/2", "0.750",
        "0.500", "+0.026 ± 0.075", "**no**",
    ]  # fmt: skip
    assert theirs == [
        "", "", "published (5)", "10.024 ± 0.017", "10.165 ± 0.035", "5/5", "0.997", "0.980", "",
        "",
    ]  # fmt: skip
    assert "0 of 1 rows" in text


def test_markdown_has_losses_of_a_regression_and_ranges_of_untrained_networks():
    row = row_result("A.19", 0, run(train_accuracy=None, test_accuracy=None))
    _, _, ours, theirs = table_lines(markdown("A.19", row))
    assert ours[6:8] == ["1.500", "2.500"]
    assert theirs[6:8] == ["0.078", "0.046"]
    untrained = replace(run(10.91, None, None), metrics={})
    row = row_result("figure A.2", 0, untrained)
    _, _, ours, theirs = table_lines(markdown("figure A.2", row))
    assert ours[2:8] == ["ours (1)", "10.910", "", "", "", ""]
    assert theirs[2:4] == ["published (100)", "10.9 to 10.95"]


def test_titles_and_deviations_are_shown():
    rows = rows_of("A.5", Deviations(0.1, images=1500, procedure="text", precision="bfloat16"))
    text = markdown("A.5", RowResult(rows[0], (run(images=1500, original_data=False),)))
    assert text.splitlines()[0] == "### Table A.5: MLPs on MNIST"
    (line,) = [line for line in text.splitlines() if "2 + 2" in line]
    for word in ("1,500", "procedure text", "precision bfloat16", "not the whole published data"):
        assert word in line
    text = markdown("figure A.1", row_result("figure A.1", 0, run(mean=None, std=None)))
    assert text.splitlines()[0] == "### Figure A.1: MLPs at initialization"
    assert "not the whole" not in text


def test_counts_of_agreement_and_order_are_at_the_end():
    result = result_of("A.13", [3.0, 1.0, 4.0, 2.0], below=True)
    ending = result.to_markdown().splitlines()[-2:]
    assert "4 of 4 rows" in ending[0]
    assert "6 of 6 pairs" in ending[1]


# --- from records -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def report():
    random = np.random.default_rng(0)
    weights = [random.normal(size=shape) for shape in ((9, 8), (8, 7))]
    return ncut.analyze(weights, k=3, shuffles=6, seed=0)


class Recorded(Record):
    """A record whose report and metrics are given."""

    def report(self, phase, analysis):
        assert (phase, analysis) == ("pruned", Analysis())
        return GIVEN[0]

    def metrics(self, phase):
        assert phase == "pruned"
        return METRICS


GIVEN = []


@pytest.mark.parametrize("shift", [-1.0, 0.0, 1.0])
def test_a_run_has_the_reports_numbers(shift, report, tmp_path):
    compared = report.statistics["spectral_ncut"]
    value = min(compared.shuffled) + shift
    statistics = report.statistics | {"spectral_ncut": replace(compared, value=value)}
    GIVEN[:] = [replace(report, statistics=statistics)]
    row = rows_of("A.5")[4]
    found = run_of(Recorded(tmp_path, row.recipe, 3), row)
    assert found.seed == 3
    assert found.ncut == value
    assert found.below_all == (shift < 0)  # as low as the lowest is not below it
    assert found.shuffled_mean == pytest.approx(np.mean(compared.shuffled))
    assert found.shuffled_std == pytest.approx(np.std(compared.shuffled))
    assert (found.p_value, found.z_score) == (compared.p_value, compared.z_score)
    assert found.metrics == METRICS


def test_a_run_without_shuffles_is_below_none(tmp_path):
    random = np.random.default_rng(0)
    report = ncut.analyze([random.normal(size=(9, 8)), random.normal(size=(8, 7))], k=12,
                          shuffles=0, seed=0)  # fmt: skip
    row = rows_of("figure A.1")[0]
    record = Record(tmp_path, row.recipe, 5)
    record.save_report("initial", row.analysis, report)
    expected = Run(5, report.ncut, None, None, None, None, False, {})
    assert run_of(record, row) == expected


# --- whole tables -------------------------------------------------------------------------------


@pytest.fixture
def untrained(monkeypatch):
    """Tables without any training: a function gives the n-cut of each recipe, phase and seed."""

    def give(cut_of):
        tried = []
        monkeypatch.setattr(
            table.running,
            "run",
            lambda jobs, *rest: tried.extend((job.record.recipe, job.record.seed) for job in jobs),
        )
        monkeypatch.setattr(
            table,
            "run_of",
            lambda record, row: run(cut_of(record.recipe, row.phase, record.seed),
                                    seed=record.seed),
        )  # fmt: skip
        return tried

    return give


def seeds_of(result):
    return [tuple(each.seed for each in row.runs) for row in result.rows]


def test_a_table_has_as_many_networks_as_are_asked_for(untrained, tmp_path):
    untrained(lambda recipe, phase, seed: 5.0 + seed)
    assert seeds_of(run_table("A.5", data=tmp_path, out=tmp_path, runs=2)) == [(0, 1)] * 8
    assert seeds_of(run_table("A.5", data=tmp_path, out=tmp_path)) == [tuple(range(5))] * 8
    for ending in (".csv", "-runs.csv", ".md"):
        assert (tmp_path / "tables" / f"A.5{ending}").is_file()
    untrained(lambda recipe, phase, seed: 10.3)
    run_table("fig. a.1", data=tmp_path, out=tmp_path, runs=1)
    assert (tmp_path / "tables" / "figure-A.1.csv").is_file()


def test_l2_regularized_networks_near_zero_are_trained_again_with_other_seeds(untrained, tmp_path):
    # "we retrained until the n-cut was significantly above zero"
    tried = untrained(lambda recipe, phase, seed: 0.01 if seed == 0 else 5.0)
    result = run_table("A.5", data=tmp_path, out=tmp_path, runs=2)
    expected = [(1, 2) if row.row.recipe.regularization == "l2" else (0, 1) for row in result.rows]
    assert seeds_of(result) == expected
    assert {recipe.regularization for recipe, seed in tried if seed == 2} == {"l2"}


@pytest.mark.parametrize(("good", "expected"), [((), (0, 1)), ((4,), (4,)), ((3, 5), (3, 5))])
def test_three_networks_are_tried_for_each_that_is_wanted_and_near_zeros_are_the_last_resort(
    good, expected, untrained, tmp_path
):
    def cut_of(recipe, phase, seed):
        return 0.01 if recipe.regularization == "l2" and seed not in good else 5.0

    tried = untrained(cut_of)
    result = run_table("A.19", data=tmp_path, out=tmp_path, runs=2)
    assert seeds_of(result) == [(0, 1)] * 4 + [expected] * 2
    seeds = {recipe: {seed for each, seed in tried if each == recipe} for recipe, _ in tried}
    assert {recipe.regularization: sorted(found) for recipe, found in seeds.items()} == {
        "none": [0, 1], "l1": [0, 1], "l2": [0, 1, 2, 3, 4, 5],
    }  # fmt: skip
    assert len(read((tmp_path / "tables" / "A.19.csv").read_text())) == 6


def test_networks_near_zero_count_where_there_is_no_l2_penalty(untrained, tmp_path):
    untrained(lambda recipe, phase, seed: 0.01)
    result = run_table("A.13", data=tmp_path, out=tmp_path, runs=1)
    assert [row.ours.ncut for row in result.rows] == [0.01] * 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"runs": 0}, "runs: must be at least 1, got 0"),
        ({"runs": -1}, "runs: must be at least 1, got -1"),
        ({"jobs": 0}, "jobs: must be at least 1, got 0"),
    ],
)
def test_impossible_numbers_are_refused(arguments, message, untrained, tmp_path):
    untrained(lambda recipe, phase, seed: 5.0)
    with pytest.raises(InputError, match=message):
        run_table("A.5", data=tmp_path, out=tmp_path, **arguments)
