"""Shuffles measured by compiled code equal those measured in Python."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from scipy import sparse

import ncut
from ncut.measure import Prepared, measure, prepare, shuffle_record
from ncut.measure.place import HostPlace
from ncut.nulls.alignment import Alignment
from ncut.plan import Plan
from ncut.spectral.compiled import CompiledNetwork, CompiledShuffles
from ncut.spectral.embedding import embed
from ncut.spectral.operator import NormalizedAdjacency
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


def compiled_shuffles(prepared: Prepared) -> CompiledShuffles | None:
    """The compiled measurement of shuffles, if it applies."""
    assert isinstance(prepared.place, HostPlace)
    return prepared.place.shuffles


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
    settings = Plan.of(k=5, shuffles=10, null=null, refine=refine, n_init=4, seed=7)
    with single_threaded_blas():
        compiled, without = prepare(graph, settings), prepare(graph, settings)
        shuffles = compiled_shuffles(compiled)
        assert shuffles is not None
        without.place.shuffles = None
        for number in range(1, 4):
            # The compiled path itself, not what takes over from it.
            assert shuffles.measure(number, repeats=0, threads=1) is not None
            ours = shuffle_record(measure(compiled, number, 1))
            reference = shuffle_record(measure(without, number, 1))
            assert ours.repeated_ncut == reference.repeated_ncut
            assert ours.statistics.keys() == reference.statistics.keys()
            for name, value in reference.statistics.items():
                if name == "lower_bound":  # residuals are subtracted, which differ by rounding
                    assert ours.statistics[name] == pytest.approx(value, rel=1e-5)
                else:
                    assert ours.statistics[name] == value, name


def test_eigenvalues_of_a_shuffle_against_lapack() -> None:
    graph = GRAPHS["pruned"]()
    settings = Plan.of(k=6, shuffles=10, n_init=2, seed=3)
    connected, _ = graph.without_isolated()
    prepared = prepare(graph, settings)
    shuffles = compiled_shuffles(prepared)
    assert shuffles is not None
    for number in range(3):
        found = shuffles.measure(number + 1, repeats=0, threads=1)
        assert found is not None
        shuffled = ncut.shuffle(connected, seed=3, number=number).without_isolated()[0]
        exact = np.linalg.eigvalsh(shuffled.laplacian("sym").toarray())[:6]
        np.testing.assert_allclose(found.eigenvalues, exact, atol=1e-7)
        assert found.lower_bound <= exact.sum() <= found.refined_ncut


@pytest.mark.parametrize("kind", ["dense", "pruned", "dense and pruned"])
def test_pairing_anew_gives_the_spectra_of_the_null_model(kind: str) -> None:
    graph = GRAPHS[kind]().without_isolated()[0]
    null = Alignment(graph, seed=3)
    assert CompiledNetwork.suits(null.graph, 6)
    copied = CompiledNetwork(null.graph, k=6, seed=3)
    for number in range(3):
        orders = null.orders(number - 1) if number else {}
        found = copied.embedding(number, orders, 1)
        assert found is not None
        made = null.connected(number - 1, "residual") if number else null.graph
        operator = NormalizedAdjacency(made, 1)
        reference = embed(operator, 6, solver="krylov", seed=3, graph_number=number)
        np.testing.assert_allclose(found.eigenvalues, reference.eigenvalues, atol=1e-9)
        assert found.bound_by_residuals() == pytest.approx(reference.bound_by_residuals(), abs=1e-6)
        exact = np.linalg.eigvalsh(made.laplacian("sym").toarray())[:6].sum()
        assert exact - 1e-3 < found.bound_by_residuals() <= exact


def test_orders_are_permutations_of_a_layer() -> None:
    copied = CompiledNetwork(GRAPHS["dense"](), k=3, seed=0)
    for order in ([0] * 200, [*range(199), 200], [0, 1], [*range(199), -1]):
        with pytest.raises(ValueError, match="each neuron of the layer once"):
            copied.embedding(1, {1: np.array(order)}, 1)


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
def test_the_reference_has_known_values(change: dict[str, Any], why: str) -> None:
    settings = Plan.of(**{"k": 5, "shuffles": 5, **change})
    graph = ncut.graph(weights([300, 200, 190, 30], 1.0, 0))
    assert compiled_shuffles(prepare(graph, settings)) is None, why


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
    settings = Plan.of(k=3, shuffles=5, null="layer-nonzero", n_init=2)
    prepared = prepare(graph, settings)
    shuffles = compiled_shuffles(prepared)
    assert shuffles is not None
    assert shuffles.measure(1, repeats=0, threads=1) is None
    eigenvalues = ncut.cluster(ncut.shuffle(graph, "layer-nonzero", 0, 0), 3).eigenvalues
    assert 0 < eigenvalues[1] < 1e-4
    assert shuffle_record(measure(prepared, 1, 1)).converged
