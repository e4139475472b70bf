"""`ncut.analyze` from the model to the report."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from analyses import run, sample
from hypothesis import given
from hypothesis import strategies as st
from samples import (
    Matrices,
    chain_graph,
    planted_chain,
    random_chain,
    side_by_side,
    small_chains,
)
from scipy import sparse

import ncut
from ncut import reference
from ncut.axes import STATISTICS
from ncut.nulls import compare
from ncut.nulls.sequential import stopping_point


def contents(report: ncut.Report) -> dict[str, Any]:
    return dict(report.to_dict())


def test_the_report_says_what_was_measured() -> None:
    report = run()
    graph = ncut.graph(sample())
    assert report.k == 4
    assert report.null == "layer"
    assert report.seed == 7
    assert report.n_init == 3
    assert report.shuffled_ncuts.shape == (6,)
    assert report.ncut == ncut.normalized_cut(graph, report.labels)
    assert report.eigenvalues.shape == (4,)
    assert report.n_edges == graph.n_edges
    np.testing.assert_array_equal(report.degrees, graph.degrees)
    np.testing.assert_array_equal(report.labels == -1, graph.degrees == 0)
    expected = compare(report.ncut, report.shuffled_ncuts)
    assert report.shuffled_mean == expected.mean
    assert report.shuffled_std == expected.std
    assert report.p_value == expected.p_value
    assert report.z_score == expected.z_score


def test_the_clustering_is_that_of_cluster() -> None:
    report = run()
    found = ncut.cluster(ncut.graph(sample()), 4, n_init=3, seed=7)
    np.testing.assert_array_equal(report.labels, found.labels)
    np.testing.assert_array_equal(report.eigenvalues, found.eigenvalues)
    assert report.ncut == found.ncut


def test_the_shuffles_match_shuffle() -> None:
    report = run(null="layer-nonzero")
    graph = ncut.graph(sample())
    for number, value in enumerate(report.shuffled_ncuts):
        shuffled = ncut.shuffle(graph, "layer-nonzero", seed=7, number=number)
        again = ncut.cluster(shuffled, 4, seed=7, n_init=20)
        assert value == pytest.approx(again.ncut, rel=0.1)
        assert value >= again.eigenvalues.sum() - 1e-9


def test_defaults_are_the_papers() -> None:
    report = ncut.analyze(random_chain(3, (20, 25, 15)))
    assert (report.k, report.shuffled_ncuts.size, report.null) == (12, 50, "layer")
    assert (report.seed, report.n_init) == (0, 25)


@pytest.mark.parametrize("refine", [False, True])
@pytest.mark.parametrize("null", ["layer", "layer-kde"])
def test_the_same_seed_gives_the_same_report(null: str, refine: bool) -> None:
    one = contents(run(null=null, refine=refine))
    assert contents(run(null=null, refine=refine)) == one
    assert contents(run(null=null, refine=refine, seed=8)) != one


def test_without_shuffles_there_are_no_statistics() -> None:
    report = run(shuffles=0)
    assert report.shuffled_ncuts.shape == (0,)
    assert (report.p_value, report.z_score) == (None, None)
    assert (report.shuffled_mean, report.shuffled_std) == (None, None)
    assert report.ncut == run().ncut
    assert str(report)
    json.loads(report.to_json())


def test_planted_groups_are_significant_and_noise_is_not() -> None:
    weights, _ = planted_chain(13, n_groups=4, per_group=12, n_layers=3, noise=0.1)
    clusterable = run(weights, shuffles=39, n_init=10)
    assert clusterable.p_value == 1 / 40
    assert clusterable.z_score is not None
    assert clusterable.z_score < -10
    noise, _ = planted_chain(13, n_groups=4, per_group=12, n_layers=3, noise=1.0)
    p_value = run(noise, shuffles=39, n_init=10).p_value
    assert p_value is not None
    assert p_value > 1 / 40


def test_models_of_every_plain_kind_agree(tmp_path: Path) -> None:
    graph = ncut.graph(sample())
    graph.save(tmp_path / "graph.npz")
    expected = run(shuffles=2)
    for model in (graph, tmp_path / "graph.npz", str(tmp_path / "graph.npz")):
        report = run(model, shuffles=2)
        np.testing.assert_array_equal(report.labels, expected.labels)
        np.testing.assert_array_equal(report.shuffled_ncuts, expected.shuffled_ncuts)
    as_matrix = run(graph.adjacency, shuffles=2)
    assert as_matrix.ncut == pytest.approx(expected.ncut, rel=0.05)
    np.testing.assert_allclose(as_matrix.eigenvalues, expected.eigenvalues, atol=1e-9)


def test_arguments_are_unchanged_and_may_change_afterwards() -> None:
    weights = [matrix - 0.3 for matrix in random_chain(15, (20, 25, 15))]
    before = [matrix.copy() for matrix in weights]
    graph = ncut.graph(weights)
    expected = contents(run(graph))
    for matrix, copy in zip(weights, before, strict=True):
        np.testing.assert_array_equal(matrix, copy)
        matrix[...] = 0
    assert contents(run(graph)) == expected


def test_warnings_name_nearly_disconnected_neurons() -> None:
    weights, _ = planted_chain(17, n_groups=3, per_group=12, n_layers=3, noise=0.3)
    report = run(side_by_side(weights, random_chain(19, (2, 1, 1))))
    (warning,) = [text for text in report.warnings if "disconnected" in text]
    names = [layer.name for layer in report.layers]
    for part in (f"{names[0]} 36, 37", f"{names[1]} 36", f"{names[2]} 36"):
        assert part in warning
    assert "disconnected" in str(report)


def test_warnings_name_small_clusters_and_a_large_k() -> None:
    report = run(random_chain(21, (6, 7, 5)), k=7)
    assert any("clusters have fewer than" in text for text in report.warnings)
    assert any("k = 7" in text and "18" in text for text in report.warnings)


def test_no_warnings_about_a_good_network() -> None:
    weights, _ = planted_chain(23, n_groups=4, per_group=12, n_layers=3, noise=0.1)
    assert run(weights).warnings == ()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 1}, "k: "),
        ({"k": 57}, "k: must be less than 57, .*, got 57"),
        ({"k": 3.0}, "k: "),
        ({"shuffles": -1}, "shuffles: "),
        ({"shuffles": 2.5}, "shuffles: "),
        ({"shuffles": "many"}, "shuffles: "),
        ({"shuffles": True}, "shuffles: "),
        ({"null": "rows"}, "null: "),
        ({"normalize": "l3"}, "normalize: "),
        ({"preset": "other"}, "preset: "),
        ({"shuffles": "auto", "level": 1.0}, "level: "),
        ({"shuffles": "auto", "max_shuffles": 9}, "max_shuffles: "),
        ({"shuffles": "auto", "sequential": "never"}, "sequential: "),
        ({"null": ["layer"]}, "null: "),
        ({"refine": "no"}, "refine: "),
        ({"seed": -1}, "seed: "),
        ({"seed": 2**64}, "seed: "),
        ({"seed": "1"}, "seed: "),
        ({"n_init": 0}, "n_init: "),
        ({"n_init": "all"}, "n_init: "),
        ({"solver": "svd"}, "solver: "),
        ({"threads": 0}, "threads: "),
        ({"threads": 1.0}, "threads: "),
        ({"progress": 3}, "progress: "),
    ],
    ids=str,
)
def test_bad_arguments_are_refused_by_name(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ncut.InputError, match=message):
        run(**arguments)


@pytest.mark.parametrize("model", [None, 3, {}, [], "", object(), [np.ones(3)], ["a"]])
def test_invalid_models_are_refused(model: Any) -> None:
    with pytest.raises(ncut.NcutError):
        ncut.analyze(model)


def test_nan_weights_are_refused_with_the_layer_and_the_count() -> None:
    weights = random_chain(25, (6, 7, 5))
    weights[1][2, :3] = np.nan
    with pytest.raises(ncut.InputError, match=r"w1.*3 NaN"):
        run(weights)


def test_errors_of_the_shuffles_are_input_errors_too() -> None:
    # Shuffles isolate some of the 24 neurons, and so have fewer than k to cluster.
    model = [np.eye(8), np.eye(8)]
    for null in ("layer", "layer-kde"):
        message = (
            rf"k: shuffle 0 of the null model '{null}' has edges at only \d+ of 24 vertices, too "
            "few for k=22; use a smaller k, or null='layer-nonzero', which moves no edge"
        )
        with pytest.raises(ncut.InputError, match=message) as caught:
            run(model, k=22, null=null, shuffles=10, threads=1)
        assert caught.value.finished.n_shuffles == 0
    assert run(model, k=22, null="layer-nonzero", shuffles=3).n_shuffles == 3


@pytest.mark.parametrize("threads", [1, 3])
def test_a_shuffle_with_too_few_vertices_keeps_the_others(threads: int) -> None:
    model = [np.eye(8), np.eye(8)]
    sizes = [
        ncut.shuffle(ncut.graph(model), "layer", 7, number).without_isolated()[0].n_vertices
        for number in range(30)
    ]
    k = min(sizes)
    first = sizes.index(k)
    assert 0 < first < 25
    assert sizes.count(k) == 1
    with pytest.raises(ncut.InputError, match=f"k: shuffle {first} of") as caught:
        run(model, k=k, shuffles=30, threads=threads)
    report = caught.value.finished
    assert isinstance(report, ncut.Report)
    complete = run(model, k=k, shuffles=first)
    assert report.ncut == complete.ncut
    # Whatever the order, only shuffles in progress on the other threads are missing.
    missing = Counter(complete.shuffled_ncuts) - Counter(report.shuffled_ncuts)
    assert missing.total() <= threads - 1
    with pytest.raises(ncut.InputError, match=r"k: shuffle \d+ of the null model") as swept:
        ncut.profile(model, (2, k), shuffles=30, threads=threads, n_init=2, seed=7)
    assert isinstance(swept.value.finished, ncut.Profile)


@given(
    small_chains(),
    st.integers(2, 5),
    st.sampled_from(["layer", "layer-nonzero", "layer-nonzero-kde", "layer-kde"]),
    st.booleans(),
    st.integers(0, 2**64 - 1),
)
def test_any_small_network(weights: Matrices, k: int, null: str, refine: bool, seed: int) -> None:
    graph = chain_graph(weights)
    connected = graph.degrees > 0
    try:
        report = run(weights, k=k, null=null, refine=refine, seed=seed, shuffles=3)
    except ncut.InputError as error:
        message = str(error)
    else:
        assert 0 <= report.ncut <= k
        assert ((report.shuffled_ncuts >= 0) & (report.shuffled_ncuts <= k)).all()
        assert report.p_value in (1 / 4, 2 / 4, 3 / 4, 1.0)
        np.testing.assert_array_equal(report.labels == -1, ~connected)
        assert report.labels.max() < k
        expected = reference.normalized_cut(graph.adjacency.toarray(), report.labels)
        assert report.ncut == pytest.approx(expected, rel=1e-12, abs=1e-13)
        assert not any("converge" in text for text in report.warnings)
        return
    # Only where the network, or one of its shuffles, has too few connected neurons.
    assert message.startswith("k: ")
    assert k >= np.count_nonzero(connected) / 3


def test_one_layer_graphs() -> None:
    rng = np.random.default_rng(27)
    upper = np.triu(rng.random((40, 40)) * (rng.random((40, 40)) < 0.3), k=1)
    report = run(sparse.csr_array(upper + upper.T))
    assert 0 < report.ncut < 4
    assert len(report.layers) == 1


def test_every_graph_has_its_certificate() -> None:
    found = run(shuffles=8).statistics
    for lower, upper in (
        ("lower_bound", "refined_ncut"),
        ("refined_ncut", "spectral_ncut"),
    ):
        assert found[lower].value <= found[upper].value
        assert (found[lower].shuffled <= found[upper].shuffled).all()
    assert {compared.shuffled.size for compared in found.values()} == {8}


def test_refine_only_chooses_the_headline() -> None:
    plain, refined = run(shuffles=10), run(shuffles=10, refine=True)
    for name in ("spectral_ncut", "refined_ncut", "lower_bound"):
        assert plain.statistics[name].value == refined.statistics[name].value
        np.testing.assert_array_equal(
            plain.statistics[name].shuffled, refined.statistics[name].shuffled
        )
    assert plain.ncut == plain.spectral_ncut
    assert refined.ncut == plain.refined_ncut
    assert refined.ncut == ncut.normalized_cut(refined.graph, refined.labels)
    assert plain.repeated_ncuts.size == plain.shuffled_repeats.size == 2


def test_presets_supply_missing_settings() -> None:
    weights = random_chain(3, (20, 25, 15))
    peer = ncut.analyze(weights, preset="hcai-torch", shuffles=2)
    assert (peer.k, peer.normalize, peer.null, peer.n_init) == (4, "l2", "layer", 25)
    assert (peer.preset, ncut.analyze(weights, shuffles=0).k) == ("hcai-torch", 12)
    own = ncut.analyze(weights, preset="hcai-torch", shuffles=2, k=3, normalize="none")
    assert (own.k, own.normalize) == (3, "none")


@pytest.mark.parametrize("convention", ["l1", "l2", "balanced"])
def test_the_convention_is_that_of_the_graph_measured(convention: str) -> None:
    weights = random_chain(3, (20, 25, 15))
    report = run(weights, normalize=convention)
    assert report.ncut == ncut.normalized_cut(report.graph, report.labels)
    assert any("assumed" in text for text in report.warnings)
    moved = run(ncut.graph(weights).rescaled(4, 1.0), normalize=convention)
    for name in ("lower_bound", "refined_ncut"):
        assert moved.statistics[name].value == pytest.approx(
            report.statistics[name].value, abs=1e-5
        )


@pytest.mark.parametrize("refine", [False, True])
@pytest.mark.parametrize("normalize", ["none", "balanced"])
@pytest.mark.parametrize("null", ["layer", "layer-nonzero", "layer-kde", "strength"])
def test_statistics_match_the_partitions(null: str, normalize: str, refine: bool) -> None:
    report = run(null=null, normalize=normalize, refine=refine, shuffles=5)
    assert set(report.statistics) == set(STATISTICS)
    measures = ncut.partition_measures(report.graph, report.labels)
    for name in ("modularity", "bipartite_modularity", "clusterability"):
        assert report.statistics[name].value == pytest.approx(getattr(measures, name), abs=1e-12)
    assert report.ncut == ncut.normalized_cut(report.graph, report.labels)
    assert report.headline == ("refined_ncut" if refine else "spectral_ncut")
    for name, one in report.statistics.items():
        again = compare(one.value, one.shuffled, low=STATISTICS[name].low_is_clusterable)
        assert (one.mean, one.std, one.p_value, one.z_score) == (
            again.mean, again.std, again.p_value, again.z_score
        )  # fmt: skip
    bound, refined, spectral = (
        np.append(report.statistics[name].shuffled, report.statistics[name].value)
        for name in ("lower_bound", "refined_ncut", "spectral_ncut")
    )
    assert (bound <= refined).all()
    assert (refined <= spectral).all()


@pytest.mark.parametrize("normalize", ["none", "l2", "balanced"])
def test_the_bounds_of_shuffles_match_their_eigenvalues(normalize: str) -> None:
    graph = ncut.graph(sample())
    report = run(graph, normalize=normalize)
    for number, bound in enumerate(report.statistics["lower_bound"].shuffled):
        # Weights are shuffled first, and brought to the convention after that.
        shuffled = ncut.shuffle(graph, seed=7, number=number).normalized(normalize)
        connected, _ = shuffled.without_isolated()
        values = np.linalg.eigvalsh(connected.laplacian().toarray())[:4]
        assert bound == pytest.approx(values.sum(), abs=1e-6)


@pytest.mark.parametrize(
    ("shuffles", "repeats"), [(0, 0), (4, 0), (5, 1), (24, 4), (50, 10), (80, 10)]
)
def test_repeats_are_at_most_a_fifth_of_the_shuffles(shuffles: int, repeats: int) -> None:
    report = run(shuffles=shuffles)
    assert report.repeated_ncuts.size == report.shuffled_repeats.size == repeats
    assert (report.kmeans_std is None) == (repeats == 0)
    assert (report.shuffled_kmeans_std is None) == (repeats < 3)
    # They are k-means alone: no partition lies below the bound of the same graph.
    assert (report.repeated_ncuts >= report.lower_bound).all()
    bounds = report.statistics["lower_bound"].shuffled[:repeats]
    assert (report.shuffled_repeats >= bounds).all()


def test_refinement_shrinks_the_noise_of_k_means() -> None:
    weights = random_chain(3, (60, 50, 40))
    plain = run(weights, k=6, shuffles=50, n_init=1, seed=0)
    refined = run(weights, k=6, shuffles=50, n_init=1, seed=0, refine=True)
    assert refined.kmeans_std is not None
    assert plain.kmeans_std is not None
    assert refined.kmeans_std < plain.kmeans_std
    (note,) = [text for text in plain.warnings if "k-means noise" in text]
    assert (
        f"moves them by ± {plain.shuffled_kmeans_std:.3f}, out of ± {plain.shuffled_std:.3f}"
        in note
    )
    assert note in " ".join(run(weights, k=6, shuffles=50, n_init=1, seed=0).warnings)
    good, _ = planted_chain(5, 3, 10, 4, 0.05)
    assert not any("noise" in text for text in run(good, k=3, shuffles=50).warnings)


@pytest.mark.parametrize(
    ("preset", "expected"),
    [("filan2021", (12, 50, "layer", "none", 25)), ("hcai-torch", (4, 100, "layer", "l2", 25))],
)
def test_presets_are_the_documented_settings(preset: str, expected: tuple[Any, ...]) -> None:
    weights = random_chain(3, (20, 25, 15))
    report = ncut.analyze(weights, preset=preset)
    found = (report.k, report.n_shuffles, report.null, report.normalize, report.n_init)
    assert found == expected
    assert report.preset == preset
    names = ("k", "shuffles", "null", "normalize", "n_init")
    assert contents(ncut.analyze(weights, **dict(zip(names, expected, strict=True)))) == (
        contents(report) | {"preset": "filan2021"}
    )
    own = {"k": 5, "shuffles": 3, "null": "strength", "normalize": "l1", "n_init": 2}
    given = ncut.analyze(weights, preset=preset, **own)
    found = (given.k, given.n_shuffles, given.null, given.normalize, given.n_init)
    assert found == tuple(own.values())


@pytest.mark.parametrize("density", [1.0, 0.5])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("normalize", ["l2", "l1", "balanced"])
def test_a_convention_sees_no_scale(normalize: str, seed: int, density: float) -> None:
    graph = ncut.graph(random_chain(3, (20, 25, 22, 15), density))
    options: dict[str, Any] = {"shuffles": 0, "normalize": normalize, "n_init": 10}
    one, other = run(graph, **options), run(graph.rescaled(seed, sigma=1.5), **options)
    assert other.lower_bound == pytest.approx(one.lower_bound, abs=1e-6)
    assert other.refined_ncut == pytest.approx(one.refined_ncut, abs=1e-6)
    np.testing.assert_allclose(other.degrees, one.degrees, rtol=1e-6)
    unscaled = run(graph.rescaled(seed, sigma=1.5), shuffles=0, n_init=10)
    assert abs(unscaled.lower_bound - run(graph, shuffles=0).lower_bound) > 1e-3


@pytest.mark.parametrize(("n_lower", "more"), [(0, True), (37, True), (40, False)])
def test_the_sentence_follows_the_p_value_of_the_rule(n_lower: int, more: bool) -> None:
    # Of 1000 shuffles 40 below are p = 0.041 by counting, and 0.056 by betting.
    weights = random_chain(3, (20, 25, 15))
    shuffled = np.full(1000, 2.0) + np.linspace(0, 0.1, 1000)
    shuffled[np.linspace(5, 999, n_lower).astype(int)] = 0.5
    as_low = shuffled <= 1.0
    outcome = stopping_point(as_low, "betting", 0.05, 1000)
    assert outcome is not None
    n = outcome.n_shuffles
    numbers = replace(compare(1.0, shuffled[:n]), p_value=outcome.p_value)
    report = run(weights, shuffles=0)
    report = replace(
        report,
        sequential=str(outcome),
        statistics=dict.fromkeys(report.statistics, numbers),
    )
    start = "More clusterable than" if more else "Not distinguishable from its shuffles: 40 of"
    assert str(report).splitlines()[1].startswith(start)
    assert (outcome.p_value <= 0.05) == more
    settled = replace(report, sequential="")
    assert str(settled).splitlines()[1].startswith("More clusterable than")
