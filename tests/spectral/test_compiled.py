"""Shuffles measured by compiled code give what the functions of the package give."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import sparse

import ncut
from ncut.settings import check_settings
from ncut.spectral.compiled import CompiledShuffles
from ncut.steps import measure_shuffle, prepare
from ncut.threads import single_threaded_blas


def weights(sizes: list[int], density: float, seed: int, dtype: Any = np.float32) -> list[Any]:
    rng = np.random.default_rng(seed)
    chain = []
    for rows, cols in itertools.pairwise(sizes):
        block = rng.random((rows, cols)) ** 2 + 0.05
        chain.append((block * (rng.random((rows, cols)) < density)).astype(dtype))
    return chain


def skipping(seed: int) -> ncut.NeuronGraph:
    """A graph whose layers cannot be coloured with two colours."""
    n = 420
    rng = np.random.default_rng(seed)
    upper = sparse.random_array((n, n), density=0.05, rng=rng, dtype=np.float32)
    matrix = sparse.csr_array(upper + upper.T)
    return ncut.graph(matrix)


GRAPHS = {
    "dense": lambda: ncut.graph(weights([300, 200, 190, 30], 1.0, 0)),
    "pruned": lambda: ncut.graph(weights([300, 250, 200, 40], 0.05, 1)),
    "dense and pruned": lambda: ncut.graph(
        [*weights([200, 180], 1.0, 2), *weights([180, 300, 60], 0.03, 3)]
    ),
    "one layer": lambda: skipping(4),
}


@pytest.mark.parametrize("refine", [False, True])
@pytest.mark.parametrize("null", ["layer", "layer-nonzero"])
@pytest.mark.parametrize("kind", GRAPHS)
def test_the_same_statistics_as_the_reference(kind: str, null: str, refine: bool) -> None:
    graph = GRAPHS[kind]()
    settings = check_settings(k=5, shuffles=10, null=null, refine=refine, n_init=4, seed=7)
    with single_threaded_blas():
        compiled = prepare(graph, settings)
        assert compiled.compiled is not None
        for number in range(3):
            # The compiled path itself, not what takes over from it.
            assert compiled.compiled.measure(number + 1, repeats=0, threads=1) is not None
            ours = measure_shuffle(compiled, number, 1)
            reference = measure_shuffle(replace(compiled, compiled=None), number, 1)
            assert ours.repeated_ncut == reference.repeated_ncut
            assert ours.statistics.keys() == reference.statistics.keys()
            for name, value in reference.statistics.items():
                if name == "lower_bound":  # residuals are subtracted, which differ by rounding
                    assert ours.statistics[name] == pytest.approx(value, rel=1e-5)
                else:
                    assert ours.statistics[name] == value, name


def test_eigenvalues_of_a_shuffle_against_lapack() -> None:
    graph = GRAPHS["pruned"]()
    settings = check_settings(k=6, shuffles=10, n_init=2, seed=3)
    connected, _ = graph.without_isolated()
    prepared = prepare(graph, settings)
    assert prepared.compiled is not None
    for number in range(3):
        found = prepared.compiled.measure(number + 1, repeats=0, threads=1)
        assert found is not None
        shuffled = ncut.shuffle(connected, seed=3, number=number).without_isolated()[0]
        exact = np.linalg.eigvalsh(shuffled.laplacian("sym").toarray())[:6]
        np.testing.assert_allclose(found.eigenvalues, exact, atol=1e-7)
        assert found.lower_bound <= exact.sum() <= found.refined_ncut


def test_threads_change_nothing() -> None:
    graph = GRAPHS["dense"]()
    reports = [
        ncut.analyze(graph, k=5, shuffles=8, n_init=4, threads=threads) for threads in (1, 2, 3)
    ]
    for report in reports[1:]:
        np.testing.assert_array_equal(report.shuffled_ncuts, reports[0].shuffled_ncuts)
        for name, compared in report.statistics.items():
            np.testing.assert_array_equal(compared.shuffled, reports[0].statistics[name].shuffled)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"null": "layer-kde"}, "a null model that draws new values"),
        ({"solver": "dense"}, "a solver by name"),
        ({"k": 17}, "more clusters than a block is wide"),
        ({"normalize": "l2"}, "weights normalized after the shuffle"),
    ],
)
def test_what_the_reference_measures(change: dict[str, Any], why: str) -> None:
    settings = check_settings(**{"k": 5, "shuffles": 5, **change})
    graph = ncut.graph(weights([300, 200, 190, 30], 1.0, 0))
    assert prepare(graph, settings).compiled is None, why


def test_float64_weights_are_left_to_the_reference() -> None:
    graph = ncut.graph(weights([300, 200, 190, 30], 1.0, 0, np.float64))
    assert not CompiledShuffles.suits(graph.without_isolated()[0], "layer", "auto", 5)


def test_eigenvalues_that_need_care_are_left_to_the_reference() -> None:
    """Two halves that hang together by a thread: a second eigenvalue of 1e-6."""
    half = weights([150, 150, 150], 1.0, 5)
    blocks = [np.zeros((300, 300), np.float32) for _ in half]
    for block, part in zip(blocks, half, strict=True):
        block[:150, :150], block[150:, 150:] = part, part
    blocks[0][0, 200] = 1e-3
    graph = ncut.graph(blocks)
    settings = check_settings(k=3, shuffles=5, null="layer-nonzero", n_init=2)
    prepared = prepare(graph, settings)
    assert prepared.compiled is not None
    assert prepared.compiled.measure(1, repeats=0, threads=1) is None
    eigenvalues = ncut.cluster(ncut.shuffle(graph, "layer-nonzero", 0, 0), 3).eigenvalues
    assert 0 < eigenvalues[1] < 1e-4
    assert measure_shuffle(prepared, 0, 1).converged
