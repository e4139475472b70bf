"""profile(): each k equals a separate analysis, gaps are exact, planted groups stand out."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checks import check_same_partition
from samples import Matrices, planted_chain, random_chain, side_by_side, with_isolated

import ncut
from ncut import Profile
from ncut.axes import STATISTICS
from ncut.nulls import compare

KS = range(2, 8)


def sample() -> Matrices:
    return with_isolated(random_chain(3, (20, 25, 15), 0.5), 5, n_per_layer=1)


def planted(n_groups: int, noise: float = 0.05) -> tuple[Matrices, np.ndarray]:
    return planted_chain(5, n_groups, 10, 4, noise)


def run(model: Any = None, k: Any = KS, **options: Any) -> Profile:
    settings: dict[str, Any] = {"shuffles": 9, "seed": 7, "threads": 2}
    return ncut.profile(sample() if model is None else model, k, **(settings | options))


@pytest.fixture(scope="module")
def whole() -> Profile:
    return run()


# Every k


@pytest.mark.parametrize("n_groups", [3, 4, 5])
def test_each_k_is_that_of_cluster(n_groups: int) -> None:
    weights, groups = planted(n_groups)
    found = run(weights, shuffles=0, n_init=25)
    for at, k in enumerate(found.ks):
        expected = ncut.cluster(ncut.graph(weights), k, refine=True, seed=7)
        numbers = found.statistics[at]
        for name in ("spectral_ncut", "refined_ncut", "lower_bound", "modularity"):
            assert numbers[name].value == pytest.approx(getattr(expected, name), abs=1e-9), name
        check_same_partition(found.labels[at], expected.labels)
        np.testing.assert_allclose(found.eigenvalues[:k], expected.eigenvalues, atol=1e-9)
    check_same_partition(found.labels[found.ks.index(n_groups)], groups)


@pytest.mark.parametrize("null", ["layer", "layer-nonzero", "strength"])
def test_lower_bounds_match_analyze(null: str) -> None:
    found = run(null=null)
    for at, k in enumerate(found.ks):
        report = ncut.analyze(sample(), k=k, shuffles=9, null=null, seed=7, threads=2)
        ours, theirs = found.statistics[at]["lower_bound"], report.statistics["lower_bound"]
        assert ours.value == pytest.approx(theirs.value, abs=1e-6)
        np.testing.assert_allclose(ours.shuffled, theirs.shuffled, atol=1e-6)
        ours, theirs = found.statistics[at]["refined_ncut"], report.statistics["refined_ncut"]
        np.testing.assert_allclose(ours.shuffled, theirs.shuffled, rtol=0.1)


def test_statistics_follow_from_the_labels(whole: Profile) -> None:
    graph = ncut.graph(sample())
    for labels, numbers in zip(whole.labels, whole.statistics, strict=True):
        measures = ncut.partition_measures(graph, labels)
        assert numbers["refined_ncut"].value == pytest.approx(measures.ncut, abs=1e-12)
        assert numbers["modularity"].value == pytest.approx(measures.modularity, abs=1e-12)
        assert numbers["clusterability"].value == pytest.approx(measures.clusterability)
        np.testing.assert_array_equal(labels == -1, graph.degrees == 0)


def test_every_statistic_is_compared_with_its_shuffles(whole: Profile) -> None:
    assert whole.n_shuffles == 9
    for numbers in whole.statistics:
        assert set(numbers) == set(STATISTICS)
        for name, one in numbers.items():
            again = compare(one.value, one.shuffled, low=STATISTICS[name].low_is_clusterable)
            assert (one.p_value, one.z_score) == (again.p_value, again.z_score)
        bound, refined, spectral = (
            np.append(numbers[name].shuffled, numbers[name].value)
            for name in ("lower_bound", "refined_ncut", "spectral_ncut")
        )
        assert (bound <= refined).all()
        assert (refined <= spectral + 1e-12).all()


def test_the_bound_grows_with_k(whole: Profile) -> None:
    bounds = [numbers["lower_bound"].value for numbers in whole.statistics]
    assert bounds == sorted(bounds)
    assert bounds[0] > 0


def laplacian_eigenvalues(graph: ncut.NeuronGraph) -> np.ndarray:
    connected, _ = graph.without_isolated()
    return np.linalg.eigvalsh(connected.laplacian("sym").toarray())


@pytest.mark.parametrize("solver", ["auto", "arpack", "gram", "dense"])
def test_gaps_match_dense_eigenvalues(solver: str) -> None:
    graph = ncut.graph(sample())
    found = run(k=[2, 3, 5], shuffles=3, solver=solver)
    values = laplacian_eigenvalues(graph)
    np.testing.assert_allclose(found.eigenvalues, values[:6], atol=1e-9)
    for k, gap in zip(found.ks, found.gaps, strict=True):
        assert gap.value == pytest.approx(values[k] - values[k - 1], abs=1e-9)
    for number in range(3):
        shuffled = laplacian_eigenvalues(ncut.shuffle(graph, "layer", seed=7, number=number))
        for k, gap in zip(found.ks, found.gaps, strict=True):
            expected = shuffled[k] - shuffled[k - 1]
            assert gap.shuffled[number] == pytest.approx(expected, abs=1e-9)


def test_large_gaps_are_the_unusual_ones() -> None:
    found = run(planted(4)[0], shuffles=19)
    for gap in found.gaps:
        again = compare(gap.value, gap.shuffled, low=False)
        assert (gap.p_value, gap.z_score) == (again.p_value, again.z_score)
    gap = found.gaps[found.ks.index(4)]
    assert gap.p_value == 1 / 20
    assert gap.z_score is not None
    assert gap.z_score > 10


@pytest.mark.parametrize("normalize", ["none", "l2", "balanced"])
def test_conventions_of_scale_match_analyze(normalize: str) -> None:
    weights = random_chain(9, (15, 14, 13))
    found = run(weights, [3], normalize=normalize, shuffles=3)
    report = ncut.analyze(
        weights, k=3, normalize=normalize, shuffles=3, seed=7, refine=True, n_init=2
    )
    assert found.normalize == normalize
    check_same_partition(found.labels[0], report.labels)
    for name in ("refined_ncut", "lower_bound"):
        ours, theirs = found.statistics[0][name], report.statistics[name]
        assert ours.value == pytest.approx(theirs.value, abs=1e-9)
        np.testing.assert_allclose(ours.shuffled, theirs.shuffled, rtol=0.05)


# The number that stands out


@pytest.mark.parametrize("noise", [0.0, 0.02, 0.05])
@pytest.mark.parametrize("n_groups", [3, 4, 5])
def test_the_planted_number_of_groups_is_suggested(n_groups: int, noise: float) -> None:
    weights, groups = planted(n_groups, noise)
    found = run(weights, range(2, 9), shuffles=19)
    assert found.suggested_k == n_groups
    gap = found.gaps[found.ks.index(n_groups)]
    assert found.reason.startswith("among the stable k its eigenvalue gap exceeds ")
    assert f"most: {gap.value:.3f} against {gap.mean:.3f} ± {gap.std:.3f} (Z = +" in found.reason
    assert "an adjusted Rand index of 1.00" in found.reason
    check_same_partition(found.labels[found.ks.index(n_groups)], groups)
    assert str(found).splitlines()[1].startswith(f"Suggested k = {n_groups}: among the stable k")


def test_the_suggestion_is_among_the_numbers_asked_for() -> None:
    weights, _ = planted(4)
    assert run(weights, [2, 3, 5, 6], shuffles=19).suggested_k != 4
    assert run(weights, [4], shuffles=19).suggested_k == 4


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("density", [1.0, 0.3])
def test_nothing_stands_out_of_a_network_without_structure(seed: int, density: float) -> None:
    found = run(random_chain(seed, (40, 35, 30), density), shuffles=19, seed=seed)
    assert found.suggested_k is None
    assert found.reason.endswith("no number of clusters stands out")
    assert "No k suggested: at no k is the gap" in str(found)


def test_without_shuffles_nothing_is_suggested() -> None:
    found = run(planted(4)[0], shuffles=0)
    assert found.suggested_k is None
    assert "without shuffles" in found.reason
    assert found.n_shuffles == 0
    assert {one.p_value for one in found.gaps} == {None}
    assert str(found)


def by_hand(gaps: list[float], stability: list[float], z: float | None = 20.0) -> Profile:
    """A profile with these gaps, where those of the shuffles are 0.1 and a little."""
    shuffled = 0.1 + np.linspace(-0.01, 0.01, 19)
    found = run(k=range(2, 2 + len(gaps)), shuffles=0)
    compared = [compare(gap, shuffled, low=False) for gap in gaps]
    if z is None:
        compared = [dataclasses.replace(one, z_score=None) for one in compared]
    return dataclasses.replace(
        found,
        gaps=tuple(compared),
        stability_seeds=np.array(stability),
        stability_starts=np.ones(len(gaps)),
    )


def test_the_largest_gap_of_the_stable_ones_is_suggested() -> None:
    assert by_hand([0.2, 0.3, 0.4], [1.0, 0.9, 0.79]).suggested_k == 3
    assert by_hand([0.2, 0.3, 0.4], [1.0, 0.9, 0.8]).suggested_k == 4
    assert by_hand([0.1, 0.105, 0.2], [1.0, 1.0, 1.0]).suggested_k == 4
    found = by_hand([0.2, 0.1, 0.4], [0.5, 1.0, 0.7])
    assert found.suggested_k is None
    assert found.reason.startswith("the gap is unusual at k = 2, 4, but the partition there does")
    starts = dataclasses.replace(found, stability_seeds=np.ones(3), stability_starts=np.zeros(3))
    assert starts.suggested_k is None
    assert by_hand([0.2, 0.3], [1.0, 1.0], z=None).suggested_k is None
    # Larger than every shuffle's, but not far above: 0.111 is 1.8 standard deviations above.
    assert by_hand([0.111, 0.0], [1.0, 1.0]).suggested_k is None


# Stability


@pytest.mark.parametrize("n_groups", [3, 5])
def test_planted_groups_come_out_the_same_again(n_groups: int) -> None:
    found = run(planted(n_groups)[0], solver="arpack", shuffles=0)
    at = found.ks.index(n_groups)
    assert found.stability_seeds[at] == found.stability_starts[at] == 1.0


def test_stability_is_an_agreement(whole: Profile) -> None:
    for solver in ("auto", "arpack", "dense"):
        found = run(random_chain(3, (30, 25, 20)), solver=solver, shuffles=0)
        for stability in (found.stability_seeds, found.stability_starts):
            assert stability.shape == (len(found.ks),)
            assert (stability <= 1.0).all()
            assert (stability > -0.5).all()
    # A network without structure falls into other pieces each time, at some k.
    assert found.stability_seeds.min() < 0.8


def test_dense_eigensolvers_know_no_start_vectors() -> None:
    found = run(random_chain(3, (30, 25, 20)), solver="dense", shuffles=0)
    np.testing.assert_array_equal(found.stability_starts, 1.0)


# Numbers of clusters


@pytest.mark.parametrize(
    "k", [[4, 2, 3], (3, 4, 2, 2), np.array([2, 3, 4]), {4, 3, 2}, iter([4, 4, 3, 2]), range(2, 5)]
)
def test_numbers_come_in_any_order_and_once(k: Any) -> None:
    found = run(k=k)
    assert found.ks == (2, 3, 4)
    assert all(type(one) is int for one in found.ks)
    np.testing.assert_array_equal(found.labels, run(k=[2, 3, 4]).labels)


def test_the_default_numbers_are_2_to_20() -> None:
    found = ncut.profile(sample(), shuffles=0)
    assert found.ks == tuple(range(2, 21))
    assert found.eigenvalues.shape == (21,)
    assert found.labels.shape == (19, 60)


@pytest.mark.parametrize("n", [4, 12, 21, 22])
def test_the_default_numbers_end_where_a_small_network_does(n: int) -> None:
    found = ncut.profile(random_chain(1, (1, n - 2, 1), 1.0), shuffles=0)
    assert found.ks == tuple(range(2, min(n - 1, 21)))


def test_the_largest_number_needs_one_more_eigenvalue(whole: Profile) -> None:
    n = int(np.count_nonzero(ncut.graph(sample()).degrees))
    assert run(k=[n - 2], shuffles=0).ks == (n - 2,)
    with pytest.raises(ncut.InputError, match=rf"k: {n - 1} clusters and the following gap"):
        run(k=[2, n - 1])
    with pytest.raises(ncut.InputError, match=rf"k: must be less than {n}, .* got {n}"):
        run(k=[2, n])


@pytest.mark.parametrize("preset", ["filan2021", "hcai-torch"])
def test_the_preset_supplies_the_rest(preset: str) -> None:
    found = ncut.profile(random_chain(3, (12, 11, 10)), [2, 3], preset=preset)
    expected = {"filan2021": (50, "none"), "hcai-torch": (100, "l2")}[preset]
    assert (found.n_shuffles, found.normalize) == expected
    assert (found.preset, found.null, found.n_init) == (preset, "layer", 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 5}, "k: must be several"),
        ({"k": None}, "k: must be several"),
        ({"k": []}, "k: must hold at least one"),
        ({"k": range(5, 5)}, "k: must hold at least one"),
        ({"k": [1, 2]}, "k: must be at least 2, got 1"),
        ({"k": [0]}, "k: must be at least 2, got 0"),
        ({"k": [-3, 2]}, "k: must be at least 2, got -3"),
        ({"k": [2.5]}, "k: must be a whole number, got 2.5"),
        ({"k": [None]}, "k: must be a whole number, got None"),
        ({"k": "5"}, "k: must be several whole numbers"),
        ({"k": [True, 3]}, "k: must be a whole number, got True"),
        ({"k": ["a", 2]}, "k: must be a whole number"),
        ({"k": [[2]]}, "k: must be a whole number"),
        ({"k": [2, 400]}, "k: must be less than"),
        ({"shuffles": "auto"}, "shuffles: must be a number"),
        ({"shuffles": -1}, "shuffles: "),
        ({"shuffles": 2.5}, "shuffles: "),
        ({"null": "rows"}, "null: "),
        ({"null": "init"}, "init"),
        ({"normalize": "l3"}, "normalize: "),
        ({"preset": "other"}, "preset: "),
        ({"seed": -1}, "seed: "),
        ({"n_init": 0}, "n_init: "),
        ({"solver": "svd"}, "solver: "),
        ({"threads": 0}, "threads: "),
        ({"progress": 3}, "progress: "),
    ],
    ids=str,
)
def test_bad_arguments_are_refused_by_name(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ncut.InputError, match=message):
        run(**arguments)


# Threads, interruption


def contents(found: Profile) -> dict[str, Any]:
    return dict(found.to_dict())


@pytest.mark.parametrize("solver", ["auto", "arpack"])
def test_threads_change_nothing(solver: str) -> None:
    model = random_chain(9, (150, 140, 130))
    one = contents(run(model, threads=1, solver=solver, shuffles=3))
    assert contents(run(model, threads=3, solver=solver, shuffles=3)) == one
    assert contents(run(model, threads=2, solver=solver, shuffles=3, seed=8)) != one


@pytest.mark.parametrize("threads", [1, 3])
def test_progress_counts_the_shuffles(threads: int) -> None:
    calls: list[tuple[int, int]] = []
    run(threads=threads, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(done, 9) for done in range(1, 10)]


@pytest.mark.parametrize("threads", [1, 3])
def test_interruption_keeps_finished_results(threads: int) -> None:
    def stop(done: int, total: int) -> None:
        if done >= 5:
            raise KeyboardInterrupt

    complete = run(shuffles=40)
    with pytest.raises(ncut.Interrupted, match="stopped after") as caught:
        run(shuffles=40, threads=threads, progress=stop)
    found = caught.value.finished
    assert isinstance(caught.value, KeyboardInterrupt)
    assert 5 <= found.n_shuffles < 40
    np.testing.assert_array_equal(found.labels, complete.labels)
    np.testing.assert_array_equal(found.stability_seeds, complete.stability_seeds)
    for ours, theirs in zip(found.gaps, complete.gaps, strict=True):
        assert ours.value == theirs.value
        assert np.isin(ours.shuffled, theirs.shuffled).all()
        assert ours.p_value == compare(ours.value, ours.shuffled, low=False).p_value
    assert str(found)


# How it is shown and kept


def test_frame_has_a_row_per_k(whole: Profile) -> None:
    pytest.importorskip("pandas", reason="pip install 'ncut[plot]'")
    frame = whole.to_frame()
    assert frame["k"].tolist() == list(whole.ks)
    for name in (*STATISTICS, "gap"):
        assert {name, f"{name}_mean", f"{name}_std", f"{name}_z", f"{name}_p"} <= set(frame)
        numbers = [*whole.gaps] if name == "gap" else [row[name] for row in whole.statistics]
        assert frame[name].tolist() == [one.value for one in numbers]
        assert frame[f"{name}_z"].tolist() == [one.z_score for one in numbers]
        assert frame[f"{name}_p"].tolist() == [one.p_value for one in numbers]
    np.testing.assert_array_equal(frame["stability_seeds"], whole.stability_seeds)
    np.testing.assert_array_equal(frame["stability_starts"], whole.stability_starts)
    assert len(run(shuffles=0).to_frame()) == len(KS)


def test_json_is_standard(whole: Profile, tmp_path: Path) -> None:
    def refuse(constant: str) -> float:
        pytest.fail(f"{constant} is no JSON")

    path = tmp_path / "profile.json"
    for found in (
        whole,
        run(shuffles=0),
        run(side_by_side(*[random_chain(i, (3, 2, 3)) for i in range(4)]), [2, 4]),
    ):
        text = found.to_json(path, indent=1)
        assert path.read_text() == text + "\n"
        data = json.loads(text, parse_constant=refuse)
        assert data == json.loads(found.to_json())
        assert data["ks"] == list(found.ks)
        assert data["suggested_k"] == found.suggested_k
        assert data["gaps"][0]["shuffled"] == found.gaps[0].shuffled.tolist()
        assert data["labels"] == found.labels.tolist()
    with pytest.raises(ncut.InputError, match="cannot be written"):
        whole.to_json(tmp_path / "none" / "profile.json")


def test_the_picture_shows_z_over_k(whole: Profile) -> None:
    matplotlib = pytest.importorskip("matplotlib", reason="pip install 'ncut[plot]'")
    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    found = run(planted(4)[0], shuffles=19)
    ax = Figure().add_subplot()
    assert found.plot(ax=ax) is ax
    shown, gap = ax.lines[:2]
    np.testing.assert_array_equal(shown.get_xdata(), found.ks)
    np.testing.assert_array_equal(
        shown.get_ydata(), [row["refined_ncut"].z_score for row in found.statistics]
    )
    np.testing.assert_array_equal(gap.get_ydata(), [one.z_score for one in found.gaps])
    assert any(set(line.get_xdata()) == {4} for line in ax.lines)
    assert "suggested k" in [text.get_text() for text in ax.get_legend().get_texts()]
    other = Figure().add_subplot()
    whole.plot("modularity", other)
    assert other.get_legend().get_texts()[0].get_text() == STATISTICS["modularity"].title
    picture = io.StringIO()
    figure = Figure()
    dataclasses.replace(whole, model="$\\frac$" * 20).plot(ax=figure.add_subplot())
    figure.savefig(picture, format="svg")
    with pytest.raises(ncut.InputError, match="statistic: must be one of spectral_ncut"):
        whole.plot("z")
    with pytest.raises(ncut.InputError, match="needs shuffles"):
        run(shuffles=0).plot()


@pytest.mark.parametrize("z", [1e12, -1e12, 99999.0, -9999.4, 0.0, None])
@pytest.mark.parametrize("model", ["m" * 300, "", "a\x1b[31m\n"])
def test_the_text_keeps_to_80_columns(whole: Profile, model: str, z: float | None) -> None:
    def stretched(one: Any) -> Any:
        return dataclasses.replace(one, z_score=z, p_value=1e-12)

    found = dataclasses.replace(
        whole,
        model=model,
        statistics=tuple({n: stretched(c) for n, c in row.items()} for row in whole.statistics),
        gaps=tuple(map(stretched, whole.gaps)),
        warnings=("word " * 60, "w" * 200, "\x1b"),
        ks=(2, 3, 4, 5, 600, 7000),
    )
    text = str(found)
    assert max(map(len, text.splitlines())) <= 80
    assert all(c.isprintable() or c == "\n" for c in text)
    assert all(c.isprintable() for c in repr(found))


def test_the_text_has_a_line_per_k(whole: Profile) -> None:
    lines = str(whole).splitlines()
    assert lines[0] == "weights"
    rows = {line.split()[0]: line.split() for line in lines if line[:3].strip().isdigit()}
    assert list(rows) == [str(k) for k in whole.ks]
    for at, row in enumerate(rows.values()):
        numbers = whole.statistics[at]
        assert row[1] == f"{numbers['lower_bound'].value:.3f}"
        assert row[2] == f"{numbers['refined_ncut'].value:.3f}"
        assert row[5] == f"{whole.gaps[at].value:.4f}"
        stability = min(whole.stability_seeds[at], whole.stability_starts[at])
        assert row[7] == f"{stability:.2f}"
    assert "against 9 shuffles (null model layer, scale none)" in " ".join(str(whole).split())
    assert repr(whole) == "Profile('weights', k=2..7, suggested None)"
    assert "&lt;b&gt;" in dataclasses.replace(whole, model="<b>")._repr_html_()


def test_warnings_match_the_scale_and_the_null_model() -> None:
    found = run(k=[2], normalize="l2", null="tied", shuffles=2)
    assert any("the activations are unknown" in text for text in found.warnings)
    assert any("null='tied' is the same as 'layer'" in text for text in found.warnings)
    flat = " ".join(str(found).split())
    assert all(f"warning: {text}" in flat for text in found.warnings)


def test_eigenvectors_that_did_not_converge_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = random_chain(3, (20, 30, 20))
    assert not any("converge" in one for one in ncut.profile(weights, [2, 3], shuffles=2).warnings)
    monkeypatch.setattr("ncut.spectral.embedding.ACCEPTED", 0.0)
    warnings = ncut.profile(weights, [2, 3], shuffles=2).warnings
    assert any("did not converge for k = 2, 3; try" in one for one in warnings)
    assert "the eigensolver did not converge on 2 of the shuffles" in warnings
    tested = ncut.analyze(weights, k=3, shuffles=2, tests=["alignment"]).warnings
    assert (
        "the eigensolver did not converge on 3 of the 3 networks of the test 'alignment'" in tested
    )
