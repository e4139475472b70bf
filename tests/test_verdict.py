"""verdict(): the cells are analyses, the words follow from the cells, nothing is lost."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from samples import Matrices, chain_graph, planted_chain, random_chain, skip_graph, with_isolated

import ncut
import ncut.verdicts
from ncut import Comparison, Report, Verdict
from ncut.axes import NORMALIZATIONS, STATISTICS
from ncut.nulls import compare
from ncut.plan import Plan
from ncut.report.tests import Test, conclusion, holm
from ncut.report.verdict import cells_of
from ncut.types import Layer

N_SHUFFLES = 19
N_TESTED = 3 * 59
CONVENTIONS = [name for name in NORMALIZATIONS if name != "residual"]
NCUTS = ("spectral_ncut", "refined_ncut", "lower_bound")
OTHERS = ("modularity", "bipartite_modularity", "clusterability")

# Where the network lies among its shuffles, for each outcome.
PLACES = {"more": -1.0, "less": 1.0, "same": 0.0}


def sample() -> Matrices:
    return random_chain(3, (14, 12, 10), 0.6)


def run(model: Any = None, **options: Any) -> Verdict:
    settings: dict[str, Any] = {
        "k": 3, "shuffles": N_SHUFFLES, "n_init": 2, "seed": 7, "threads": 2, "rescalings": 2,
    }  # fmt: skip
    return ncut.verdict(sample() if model is None else model, **(settings | options))


def compared(name: str, outcome: str) -> Comparison:
    """A statistic that is more or less clusterable than all shuffles, or amid them."""
    place = PLACES[outcome] * (1 if STATISTICS[name].low_is_clusterable else -1)
    shuffled = 2.0 + np.linspace(-0.05, 0.05, N_SHUFFLES)
    return compare(2.0 + place, shuffled, low=STATISTICS[name].low_is_clusterable)


def made(null: str, normalize: str, changes: dict[str, Any] | None = None, **outcomes: str) -> Any:
    """A report of these outcomes; "ncuts" and "others" set those not given by name."""
    ncuts, others = outcomes.pop("ncuts", "same"), outcomes.pop("others", "same")
    default = dict.fromkeys(NCUTS, ncuts) | dict.fromkeys(OTHERS, others)
    fields: dict[str, Any] = {
        "model": "by hand",
        "k": 4,
        "labels": np.arange(8, dtype=np.int32) % 4,
        "eigenvalues": np.linspace(0, 0.5, 4),
        "statistics": {name: compared(name, (default | outcomes)[name]) for name in STATISTICS},
        "repeated_ncuts": np.zeros(0),
        "shuffled_repeats": np.zeros(0),
        "null": null,
        "normalize": normalize,
        "preset": "filan2021",
        "sequential": "",
        "seed": 0,
        "n_init": 2,
        "refine": False,
        "solver": "dense",
        "residual": 0.0,
        "layers": (Layer("a", 0, 4), Layer("b", 4, 4)),
        "degrees": np.ones(8),
        "n_edges": 16,
        "left_out": (),
        "warnings": (),
        "version": "0",
    }
    return Report(**(fields | (changes or {})))


def judged(*reports: Report, rescaled: tuple[Report, ...] = (), level: float = 0.05) -> Verdict:
    return Verdict(reports, rescaled, sigma=1.0, level=level)


# What is measured


@pytest.fixture(scope="module")
def whole() -> Verdict:
    return run()


def test_cells_match_analyze(whole: Verdict) -> None:
    nulls = ("layer", "layer-nonzero", "strength")
    combinations = [(normalize, null) for normalize in CONVENTIONS for null in nulls]
    assert [(one.normalize, one.null) for one in whole.reports] == combinations
    cells = iter(whole.cells)
    for report, (normalize, null) in zip(whole.reports, combinations, strict=True):
        expected = ncut.analyze(
            sample(), k=3, shuffles=N_SHUFFLES, n_init=2, seed=7, normalize=normalize, null=null,
            tests=(),
        )  # fmt: skip
        assert report == expected
        for name, numbers in expected.statistics.items():
            cell = next(cells)
            assert (cell.statistic, cell.normalize, cell.null) == (name, normalize, null)
            assert (cell.value, cell.mean, cell.std) == (numbers.value, numbers.mean, numbers.std)
            assert (cell.z_score, cell.p_value) == (numbers.z_score, numbers.p_value)
            assert whole.cell(name, normalize, null) == cell
    assert next(cells, None) is None
    assert whole.cell("refined_ncut") == whole.cell("refined_ncut", "none", "layer")


def test_random_rescalings_match_the_graph(whole: Verdict) -> None:
    assert len(whole.rescaled) == 2
    for number, report in enumerate(whole.rescaled):
        graph = ncut.graph(sample()).rescaled(seed=7 + number, sigma=1.0)
        expected = ncut.analyze(graph, k=3, shuffles=N_SHUFFLES, n_init=2, seed=7, tests=())
        assert report == expected
    other = run(null="strength", normalize="none", sigma=0.5, rescalings=1)
    graph = ncut.graph(sample()).rescaled(seed=7, sigma=0.5)
    options: dict[str, Any] = {"n_init": 2, "seed": 7, "null": "strength", "tests": ()}
    expected = ncut.analyze(graph, k=3, shuffles=19, **options)
    assert other.rescaled == (expected,)


def test_rescaling_by_nothing_changes_nothing() -> None:
    found = run(null="layer", normalize=("none", "l2"), rescalings=1, sigma=0.0)
    assert found.rescaled[0] == found.reports[0]


def test_normalized_cells_depend_on_the_function_alone() -> None:
    graph = ncut.graph(sample())
    one = run(graph, null="layer", rescalings=0)
    other = run(graph.rescaled(seed=5, sigma=1.0), null="layer", rescalings=0)
    for normalize in CONVENTIONS:
        a, b = (v.cell("lower_bound", normalize).value for v in (one, other))
        assert (a == pytest.approx(b, abs=1e-6)) == (normalize != "none")


@pytest.mark.parametrize("preset", ["filan2021", "hcai-torch"])
def test_the_preset_supplies_k(preset: str) -> None:
    found = run(random_chain(3, (20, 18, 16)), k=None, preset=preset, null="layer", rescalings=1)
    assert {report.k for report in (*found.reports, *found.rescaled)} == {
        "filan2021": {12}, "hcai-torch": {4}
    }[preset]  # fmt: skip
    assert {report.preset for report in found.reports} == {preset}
    # All conventions in any case.
    assert [report.normalize for report in found.reports] == CONVENTIONS


# What is measured by default


def chosen(found: Verdict) -> tuple[list[str], list[str]]:
    return (
        list(dict.fromkeys(report.null for report in found.reports)),
        list(dict.fromkeys(report.normalize for report in found.reports)),
    )


def test_a_dense_network_has_no_zeros_to_keep() -> None:
    found = run(random_chain(3, (14, 12, 10)), rescalings=1)
    assert chosen(found) == (["layer", "strength"], CONVENTIONS)
    assert len(found.rescaled) == 1


def test_isolated_neurons_are_no_zeros_to_keep() -> None:
    weights = with_isolated(random_chain(3, (14, 12, 10)), 5, n_per_layer=1)
    assert chosen(run(weights, rescalings=0))[0] == ["layer", "strength"]


def test_a_pruned_network_has(whole: Verdict) -> None:
    assert chosen(whole) == (["layer", "layer-nonzero", "strength"], CONVENTIONS)


def test_a_network_that_repeats_its_weights() -> None:
    first, second = random_chain(3, (12, 12, 12))
    found = run([first, second, first])
    # Rescaling one copy of a layer would make it another layer.
    assert chosen(found) == (["layer", "strength", "tied"], ["none"])
    assert found.rescaled == ()


def test_an_adjacency_has_no_scale_to_choose() -> None:
    found = run(ncut.graph(sample()).adjacency)
    assert chosen(found) == (["layer", "layer-nonzero", "strength"], ["none"])
    assert found.rescaled == ()
    full = np.ones((12, 12)) + np.random.default_rng(1).random((12, 12))
    np.fill_diagonal(full, 0)
    from scipy import sparse

    assert chosen(run(sparse.csr_array(full + full.T)))[0] == ["layer", "strength"]


def test_edges_between_layers_of_one_colour_have_no_bipartite_modularity() -> None:
    found = run(skip_graph(3, (10, 9, 8), 0.7), null="layer")
    assert {cell.statistic for cell in found.cells} == set(STATISTICS) - {"bipartite_modularity"}
    assert "bipartite" not in str(found).replace("bipartite modularity", "")


def mlp(activation: str) -> Any:
    torch = pytest.importorskip("torch", reason="pip install 'ncut[torch]'")
    nn = torch.nn
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(14, 12), getattr(nn, activation)(), nn.Linear(12, 10))


def test_a_module_tells_how_it_was_initialized() -> None:
    model = mlp("ReLU")
    found = run(model, rescalings=1)
    assert chosen(found) == (["layer", "strength", "init"], CONVENTIONS)
    assert len(found.rescaled) == 1
    assert all(report.source is model for report in (*found.reports, *found.rescaled))
    # Its activation is known: nothing was taken for granted.
    assert not any("unknown" in text for text in found.warnings)
    assert any("the convention of scale assumed" in text for text in run(rescalings=0).warnings)


def test_a_network_that_is_not_homogeneous_has_one_scale() -> None:
    found = run(mlp("Tanh"))
    assert chosen(found) == (["layer", "strength", "init"], ["none"])
    assert found.rescaled == ()
    with pytest.raises(ncut.InputError, match="normalize"):
        run(mlp("Tanh"), normalize="l2")


def test_names_may_be_given_one_or_several_in_any_order() -> None:
    found = run(null=["strength", "layer", "strength"], normalize=("l2", "none"), rescalings=1)
    assert chosen(found) == (["strength", "layer"], ["l2", "none"])
    assert [report.null for report in found.rescaled] == ["strength"]
    single = run(null="layer-kde", normalize="l1", rescalings=0)
    assert chosen(single) == (["layer-kde"], ["l1"])
    names = run(null=(name for name in ("layer",)), normalize={"none": 1}, rescalings=0)
    assert chosen(names) == (["layer"], ["none"])


# What follows


def outcome_of(**p_values: float) -> str:
    """The conclusion from p-values of tests, after Holm's correction."""
    corrected = holm(list(p_values.values()))
    return conclusion(
        [
            Test(name, "", "lower_bound", 59, p, adjusted, -0.1, 3, rejects=adjusted <= 0.05)
            for (name, p), adjusted in zip(p_values.items(), corrected, strict=True)
        ]
    )


def test_holm_corrects_as_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.5]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def test_the_conclusion_follows_from_the_tests_alone() -> None:
    both = outcome_of(alignment=0.01, residual=0.01, paper=0.9)
    assert both.startswith("Clusterable, whatever the scale of neurons")
    assert "run through the layers" in outcome_of(alignment=0.01, residual=0.9, paper=0.9)
    beyond = outcome_of(alignment=0.9, residual=0.01, paper=0.9)
    assert beyond.startswith("Clusterable beyond the strength of neurons")
    only = outcome_of(alignment=0.9, residual=0.9, paper=0.01)
    assert "no more than the scales of neurons" in only
    none = "Not distinguishable from networks without clusters."
    assert outcome_of(alignment=0.02, residual=0.9, paper=0.9) == none  # .06 corrected
    assert outcome_of(alignment=0.9, residual=0.9, paper=0.9) == none
    assert conclusion([]) == "Nothing was tested."


def test_the_tests_match_analyze(whole: Verdict) -> None:
    assert [test.name for test in whole.tests] == ["alignment", "residual", "paper"]
    graph, names = ncut.graph(sample()), ("alignment", "residual", "layer")
    p = []
    for test, null in zip(whole.tests, names, strict=True):
        alone = ncut.analyze(graph, k=3, shuffles=59, n_init=2, seed=7, null=null, tests=())
        compared = alone.statistics[test.statistic]
        assert (test.n_shuffles, test.p_value) == (59, compared.p_value)
        assert compared.mean is not None
        assert test.gap == pytest.approx((compared.value - compared.mean) / compared.mean)
        p.append(test.p_value)
    assert [test.corrected for test in whole.tests] == holm(p)


def test_no_alarm_on_untrained_networks() -> None:
    """Earlier tests called 5 of 12 such networks clusterable, and all 12 with heavy tails."""
    alarms = 0
    for seed in range(8):
        rng = np.random.default_rng([5, seed])
        shapes = ((30, 25), (25, 20), (20, 15))
        weights = [np.abs(rng.standard_t(3, shape)) for shape in shapes]
        found = ncut.verdict(
            weights, k=3, null="layer", normalize="none", rescalings=0, n_init=1, seed=seed
        )
        alarms += not found.conclusion.startswith("Not distinguishable")
    assert alarms <= 3  # more with a probability of 4e-4 at most


@pytest.mark.parametrize("ncuts", ["more", "less"])
def test_measures_that_contradict_the_ncut_are_named(ncuts: str) -> None:
    opposite = {"more": "less", "less": "more"}[ncuts]
    found = judged(
        made("layer", "none", ncuts=ncuts, modularity=opposite),
        made("layer", "l2", ncuts=ncuts, modularity=opposite, clusterability=opposite),
        made("layer", "l1", ncuts=ncuts, modularity=ncuts),
        made("layer", "balanced", ncuts="same", modularity=opposite),
    )
    texts = [text for text in found.warnings if "says the opposite" in text]
    assert texts == [
        "modularity Q says the opposite of the n-cut in 2 of 4 combinations of convention and "
        "null model",
        "share of w² says the opposite of the n-cut in 1 of 4 combinations of convention and null "
        "model",
    ]


def test_the_artefact_of_scale_has_a_size() -> None:
    found = judged(
        made("layer", "none", ncuts="more"),
        rescaled=(made("layer", "none", ncuts="more"), made("layer", "none", ncuts="less")),
    )
    (warning,) = found.warnings
    z = found.rescaled[1].z_score
    assert z is not None
    assert "(factors e^±1) put the n-cut between 1.000 and 3.000" in warning
    assert f"its Z between {-z:+.1f} and {z:+.1f}" in warning
    assert "(some more clusterable, some less clusterable)" in warning


def test_warnings_of_reports_are_given_once() -> None:
    notes = ("normalize={!r} left layers unchanged because of tanh: fc1", "k = 4 is close to 8")
    reports = [
        made("layer", normalize, {"warnings": tuple(text.format(normalize) for text in notes)})
        for normalize in ("l2", "l1")
    ]
    assert judged(*reports).warnings == (
        "the convention of scale left layers unchanged because of tanh: fc1",
    )


@pytest.mark.parametrize(
    ("level", "expected"), [(0.05, "more"), (0.04, "same"), (0.5, "more"), (0.99, "more")]
)
def test_the_level_decides(level: float, expected: str) -> None:
    report = made("layer", "none", ncuts="more")
    assert {c.outcome for c in cells_of(report, level) if c.statistic in NCUTS} == {expected}


def test_outcomes_agree_with_the_p_values(whole: Verdict) -> None:
    planted, _ = planted_chain(5, 3, 8, 3, 0.2)
    for found in (whole, run(planted, level=0.2, rescalings=0)):
        for cell in found.cells:
            assert (cell.outcome == "more") == (cell.p_value <= found.level)


def test_ties_with_the_shuffles_are_no_difference() -> None:
    for name in STATISTICS:
        same = compare(2.0, np.full(N_SHUFFLES, 2.0), low=STATISTICS[name].low_is_clusterable)
        report = made("layer", "none")
        report.statistics[name] = same
        (cell,) = [cell for cell in cells_of(report, 0.05) if cell.statistic == name]
        assert (cell.outcome, cell.z_score, cell.p_value) == ("same", None, 1.0)


def test_statistics_without_shuffles_make_no_cells() -> None:
    report = made("layer", "none")
    for name in STATISTICS:
        report.statistics[name] = compare(2.0, np.zeros(0))
    found = judged(report)
    assert found.cells == ()
    assert found.conclusion == judged().conclusion == "Nothing was tested."


def test_planted_groups_are_clusterable_however_measured() -> None:
    weights, _ = planted_chain(5, 3, 10, 4, 0.05)
    found = run(weights)
    assert found.conclusion.startswith("Clusterable, whatever the scale of neurons")
    assert not any("THE SIGN" in text for text in found.warnings)
    for cell in found.cells:
        assert cell.outcome == "more"
    assert all(report.p_value == 1 / 20 for report in found.rescaled)


# How it is shown and kept


def widths(found: Verdict) -> list[int]:
    return [len(line) for line in str(found).splitlines()]


def test_the_text_shows_every_cell(whole: Verdict) -> None:
    text = str(whole)
    assert text.startswith("weights\n")
    flat = " ".join(text.split())
    assert whole.conclusion in flat
    for warning in whole.warnings:
        assert f"warning: {warning}" in flat
    tables = text.split("\nnull model ")[1:]
    assert [table.split(":")[0] for table in tables] == ["layer", "layer-nonzero", "strength"]
    for table, null in zip(tables, ("layer", "layer-nonzero", "strength"), strict=True):
        for name, statistic in STATISTICS.items():
            (line,) = [
                line for line in table.splitlines() if re.match(rf"{statistic.title} +[-+]", line)
            ]
            for normalize in CONVENTIONS:
                p = whole.cell(name, normalize, null).p_value
                assert f"{p:.2f}".removeprefix("0") in line
    assert "against 19 shuffles a cell, k = 3." in flat
    assert max(widths(whole)) <= 80


@pytest.mark.parametrize("z", [1e9, -1e9, 12345.6, -999.4, 99.96, 9.996, -0.004, 0.0, None])
@pytest.mark.parametrize("p", [1e-12, 0.0049, 0.995, 1.0])
def test_the_text_keeps_to_80_columns(z: float | None, p: float) -> None:
    def stretched(report: Report) -> Report:
        return dataclasses.replace(
            report,
            statistics={
                name: dataclasses.replace(numbers, z_score=z, p_value=p)
                for name, numbers in report.statistics.items()
            },
        )

    changes = {"model": "m" * 200, "warnings": ("null=" + "word" * 50, "null='x' " + "y " * 99)}
    found = judged(
        *(
            stretched(made(null, normalize, changes, ncuts=outcome))
            for normalize, outcome in zip(
                CONVENTIONS, ("more", "less", "same", "more"), strict=True
            )
            for null in ("layer", "layer-nonzero-kde", "strength")
        ),
        rescaled=tuple(stretched(made("layer", "none")) for _ in range(4)),
    )
    lines = str(found).splitlines()
    assert max(map(len, lines)) <= 80
    rows = [line for line in lines if line.startswith("lower bound")]
    assert len(rows) == 3
    # Cells do not run into each other: Z and p of four, and the range of the random ones.
    assert [len(row.replace("↑", "").replace("↓", "").split()) for row in rows] == [11, 10, 10]


def test_the_range_of_random_scales_is_clipped() -> None:
    def at(z: float) -> Report:
        report = made("layer", "none")
        numbers = {n: dataclasses.replace(c, z_score=z) for n, c in report.statistics.items()}
        return dataclasses.replace(report, statistics=numbers)

    for low, high, text in (
        (-12.4, 3.6, "-12..+4"), (-999.4, 999.4, "-999..+999"), (-1e7, 1e7, "<-999..>999"),
        (2000.0, 3000.0, ">999..>999"),
    ):  # fmt: skip
        shown = str(judged(at(0), rescaled=(at(low), at(high), at((low + high) / 2))))
        assert f" {text}\n" in shown


def test_the_text_passes_no_control_characters_on() -> None:
    evil = "a\x1b[31m\u202e"
    found = judged(made("layer", "none", {"model": evil, "warnings": (f"null={evil}",)}))
    assert all(c.isprintable() or c == "\n" for c in str(found))
    assert "\x1b" not in repr(found)
    html = judged(made("layer", "none", {"model": "<script>"}))._repr_html_()
    assert "<script>" not in html


def test_json_round_trip(whole: Verdict, tmp_path: Path) -> None:
    path = tmp_path / "verdict.json"
    text = whole.to_json(path, indent=1)
    assert path.read_text() == text + "\n"
    for source in (text, path, str(path)):
        again = Verdict.from_json(source)
        assert again == whole
        assert again.cells == whole.cells
        assert again.reports == whole.reports
        assert again.rescaled == whole.rescaled
        assert str(again) == str(whole)
        assert again.to_json(indent=1) == text
    data = json.loads(text)
    assert data["conclusion"] == whole.conclusion
    assert len(data["cells"]) == len(whole.cells)


def test_verdicts_differ_if_a_field_does(whole: Verdict) -> None:
    assert whole != dataclasses.replace(whole, level=0.1)
    assert whole != dataclasses.replace(whole, sigma=2.0)
    assert whole != dataclasses.replace(whole, rescaled=())
    assert whole != dataclasses.replace(whole, reports=whole.reports[1:])
    assert whole != whole.to_dict()
    with pytest.raises(TypeError, match="unhashable"):
        hash(whole)


@pytest.mark.parametrize(
    "change",
    [
        {"format": "ncut-report"}, {"reports": 3}, {"reports": [{}]}, {"level": "low"},
        {"sigma": None}, {"rescaled": None},
    ],
    ids=str,
)  # fmt: skip
def test_damaged_verdicts_are_refused(whole: Verdict, change: dict[str, Any]) -> None:
    with pytest.raises(ncut.InputError):
        Verdict.from_json(json.dumps(whole.to_dict() | change))
    data = whole.to_dict()
    for name in ("reports", "rescaled", "sigma", "level"):
        with pytest.raises(ncut.InputError, match="missing"):
            Verdict.from_json(json.dumps({k: v for k, v in data.items() if k != name}))


def test_frame_has_a_row_per_cell(whole: Verdict) -> None:
    pytest.importorskip("pandas", reason="pip install 'ncut[plot]'")
    frame = whole.to_frame()
    assert list(frame.columns) == [
        "statistic", "normalize", "null", "value", "mean", "std", "z_score", "p_value", "outcome",
    ]  # fmt: skip
    assert len(frame) == len(whole.cells) == 6 * 4 * 3
    for row, cell in zip(frame.itertuples(index=False), whole.cells, strict=True):
        assert tuple(row) == tuple(getattr(cell, name) for name in frame.columns)


def test_a_cell_that_was_not_measured(whole: Verdict) -> None:
    for arguments in (("refined_ncut", "none", "tied"), ("nonsense",), ("modularity", "l3")):
        with pytest.raises(ncut.InputError, match="was not measured"):
            whole.cell(*arguments)


# What is refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rescalings": -1}, "rescalings: "),
        ({"rescalings": 1.5}, "rescalings: "),
        ({"rescalings": True}, "rescalings: "),
        ({"level": 0}, "level: "),
        ({"level": 1.0}, "level: "),
        ({"level": float("nan")}, "level: "),
        ({"level": "0.05"}, "level: "),
        ({"sigma": -1}, "sigma: "),
        ({"sigma": "wide"}, "sigma: "),
        ({"sigma": "wide", "rescalings": 0}, "sigma: "),
        ({"shuffles": 18}, "shuffles: must be at least 19 for a p-value of 0.05, got 18"),
        ({"shuffles": 98, "level": 0.01}, "must be at least 99 "),
        ({"shuffles": 2, "level": 0.3}, "must be at least 3 "),
        ({"shuffles": 0}, "shuffles: must be at least 19 .*, got 0"),
        ({"shuffles": "auto"}, "shuffles: must be a number"),
        ({"shuffles": -1}, "shuffles: "),
        ({"null": "rows"}, "null: "),
        ({"null": ["layer", "rows"]}, "null: "),
        ({"null": [["layer"]]}, "null: "),
        ({"null": []}, "null: must hold at least one name"),
        ({"null": 3}, "null: "),
        ({"null": "init"}, "init"),
        ({"null": ("layer", "init")}, "init"),
        ({"normalize": "l3"}, "normalize: "),
        ({"normalize": ("none", "l3")}, "normalize: "),
        ({"normalize": ()}, "normalize: must hold at least one name"),
        ({"preset": "other"}, "preset: "),
        ({"k": 1}, "k: "),
        ({"k": 400}, "k: must be less than 36, .*, got 400"),
        ({"seed": -1}, "seed: "),
        ({"solver": "svd"}, "solver: "),
        ({"n_init": 0}, "n_init: "),
        ({"threads": 0}, "threads: "),
        ({"progress": 3}, "progress: "),
    ],
    ids=str,
)
def test_bad_arguments_are_refused_by_name(arguments: dict[str, Any], message: str) -> None:
    def refuse(done: int, total: int) -> None:
        pytest.fail("it was refused after the work had begun")

    with pytest.raises(ncut.InputError, match=message):
        run(**({"progress": refuse} | arguments))


@pytest.mark.parametrize(("level", "enough"), [(0.05, 19), (0.01, 99), (0.3, 3), (0.2, 4)])
def test_enough_shuffles_are_enough(level: float, enough: int) -> None:
    found = run(null="layer", normalize="none", rescalings=0, shuffles=enough, level=level)
    assert found.reports[0].n_shuffles == enough


# Progress, interruption, threads


@pytest.mark.parametrize("threads", [1, 3])
def test_progress_counts_the_shuffles_of_all_analyses(threads: int) -> None:
    calls: list[tuple[int, int]] = []
    run(
        null=("layer", "strength"), normalize=("none", "l2"), rescalings=1, threads=threads,
        progress=lambda done, total: calls.append((done, total)),
    )  # fmt: skip
    total = N_TESTED + (2 * 2 + 1) * N_SHUFFLES
    assert calls == [(done, total) for done in range(1, total + 1)]


def test_interruption_keeps_the_analyses_that_are_done(whole: Verdict) -> None:
    def stop(done: int, total: int) -> None:
        if done >= N_TESTED + 2 * N_SHUFFLES + 5:
            raise KeyboardInterrupt

    with pytest.raises(ncut.Interrupted, match="stopped after 5 analyses") as caught:
        run(threads=1, progress=stop)
    found = caught.value.finished
    assert isinstance(caught.value, KeyboardInterrupt)
    assert found.reports == whole.reports[:2]
    assert found.rescaled == ()
    assert found.conclusion
    assert max(widths(found)) <= 80
    assert Verdict.from_json(found.to_json()) == found


def test_interruption_during_the_rescalings(whole: Verdict) -> None:
    def stop(done: int, total: int) -> None:
        if done >= total - 3:
            raise KeyboardInterrupt

    with pytest.raises(ncut.Interrupted) as caught:
        run(threads=1, progress=stop)
    assert caught.value.finished.reports == whole.reports
    assert caught.value.finished.rescaled == whole.rescaled[:1]


def test_interruption_before_anything_is_done() -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(ncut.Interrupted) as caught:
        run(threads=1, progress=stop)
    found = caught.value.finished
    assert (found.reports, found.cells, found.conclusion) == ((), (), "Nothing was tested.")
    assert str(found)
    assert repr(found)


def test_an_unfinished_analysis_counts_if_it_has_enough_shuffles() -> None:
    def stop(done: int, total: int) -> None:
        if done >= 3 * 60 + 30:
            raise KeyboardInterrupt

    options: dict[str, Any] = {"null": "layer", "normalize": "none", "shuffles": 60, "threads": 1}
    with pytest.raises(ncut.Interrupted) as caught:
        run(progress=stop, **options)
    (report,) = caught.value.finished.reports
    complete = run(rescalings=0, **options).reports[0]
    assert 30 <= report.n_shuffles < 60
    np.testing.assert_array_equal(
        report.shuffled_ncuts, complete.shuffled_ncuts[: report.n_shuffles]
    )
    assert len(caught.value.finished.tested) == 3
    # Below 1 / level nothing could be more clusterable, whatever was measured.
    with pytest.raises(ncut.Interrupted) as caught:
        run(progress=lambda done, total: stop(done - 267, total), level=0.02, **options)
    assert caught.value.finished.reports == ()


def test_interruption_outside_the_shuffles(whole: Verdict, monkeypatch: Any) -> None:
    # Ctrl-C while the network itself is clustered, in the third analysis.
    calls: list[int] = []
    original = ncut.verdicts.analyze_graph

    def interrupted(*arguments: Any) -> Report:
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(ncut.verdicts, "analyze_graph", interrupted)
    with pytest.raises(ncut.Interrupted) as caught:
        run()
    assert caught.value.finished.reports == whole.reports[:2]
    assert caught.value.finished.tested == whole.tested


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_change_nothing(whole: Verdict, threads: int) -> None:
    assert run(threads=threads).to_dict() == whole.to_dict()


def test_the_seed_changes_the_shuffles_and_the_rescalings(whole: Verdict) -> None:
    other = run(seed=8)
    assert other.reports[0].shuffled_ncuts.tolist() != whole.reports[0].shuffled_ncuts.tolist()
    assert other.rescaled[0].lower_bound == pytest.approx(whole.rescaled[1].lower_bound)
    assert run(seed=2**64 - 1, null="layer", normalize="none").rescaled


def test_arguments_are_unchanged() -> None:
    weights = sample()
    copies = [matrix.copy() for matrix in weights]
    run(weights, null="layer")
    for matrix, copy in zip(weights, copies, strict=True):
        np.testing.assert_array_equal(matrix, copy)
    graph = chain_graph(weights)
    run(graph, null="layer")
    for block, copy in zip(graph.blocks, copies, strict=True):
        np.testing.assert_array_equal(block.weights, copy)


def test_unknown_statistics_are_refused() -> None:
    weights = random_chain(3, (20, 25, 15))
    found = ncut.verdict(weights, k=3, shuffles=19, rescalings=0, normalize="none", null="layer")
    text = found.to_json().replace('"modularity"', '"novelty"')
    with pytest.raises(ncut.InputError, match=r"verdict: .*unknown statistics"):
        ncut.Verdict.from_json(text)


@pytest.mark.parametrize("level", [0.05, 0.075, 0.15, 0.3])
def test_the_tests_have_shuffles_enough_for_the_level(level: float) -> None:
    graph = chain_graph(random_chain(3, (20, 30, 20)))
    tests = ncut.verdicts._tests(graph, Plan.of(shuffles=2), level)
    n = tests[0][1].n_shuffles
    assert {plan.n_shuffles for _, plan in tests} == {n}
    assert max(holm([1 / (n + 1)] * len(tests))) <= level
    assert n <= len(tests) / level
