"""Many shuffles in parallel: order, threads, progress, interruption, errors."""

from __future__ import annotations

import itertools
import threading
import time
from typing import Any

import numpy as np
import pytest
from samples import chain_graph, random_chain

from ncut.errors import Interrupted
from ncut.graphs import NeuronGraph, build_graph
from ncut.nulls import (
    at_once_and_inside,
    distribution,
    fitted,
    shuffle,
    side_by_side_in_order,
)
from ncut.spectral import cluster, normalized_cut
from ncut.spectral.clustering import cluster_connected
from ncut.spectral.operator import NormalizedAdjacency
from ncut.types import Clustering


def sample() -> NeuronGraph:
    return chain_graph(random_chain(3, (20, 25, 15), 0.5)).without_isolated()[0]


def run(
    graph: NeuronGraph,
    n_shuffles: int,
    k: int = 4,
    *,
    null: str = "layer",
    normalize: str = "none",
    seed: int = 5,
    threads: int = 2,
    refine: bool = False,
    **options: Any,
) -> list[Clustering]:
    shuffles = fitted(graph, null, seed)
    at_once, inside = at_once_and_inside(graph, threads)

    def clustered(number: int) -> Clustering:
        return cluster_connected(
            NormalizedAdjacency(shuffles.connected(number, normalize), inside),
            k,
            n_init=3,
            solver="auto",
            refine=refine,
            seed=5,
            graph_number=number + 1,
        )

    return side_by_side_in_order(clustered, n_shuffles, at_once, **options)


@pytest.mark.parametrize("null", ["layer", "layer-nonzero", "layer-nonzero-kde", "layer-kde"])
def test_each_is_the_clustering_of_its_shuffle(null: str) -> None:
    graph = sample()
    for number, found in enumerate(run(graph, 5, null=null)):
        shuffled, _ = shuffle(graph, null, 5, number).without_isolated()
        assert found.ncut == normalized_cut(shuffled, found.labels)
        expected = cluster(shuffled, 4, n_init=3).eigenvalues
        np.testing.assert_allclose(found.eigenvalues, expected, atol=1e-6)


@pytest.mark.parametrize("refine", [False, True])
def test_threads_change_nothing(refine: bool) -> None:
    graph = sample()
    one = run(graph, 12, threads=1, refine=refine)
    for threads in (2, 3, 20):
        for found, expected in zip(
            run(graph, 12, threads=threads, refine=refine), one, strict=True
        ):
            np.testing.assert_array_equal(found.labels, expected.labels)
            assert found.ncut == expected.ncut


def test_large_graphs_are_shuffled_one_at_a_time_with_the_same_result(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    graph = sample()
    expected = run(graph, 5, threads=3)
    monkeypatch.setattr(distribution, "LARGE_BYTES", 0)
    for found, other in zip(run(graph, 5, threads=3), expected, strict=True):
        np.testing.assert_array_equal(found.labels, other.labels)
        np.testing.assert_array_equal(found.eigenvalues, other.eigenvalues)


def test_the_limit_counts_the_vectors_of_many_vertices() -> None:
    few = chain_graph([np.ones((1000, 1000), np.float32)])
    many = build_graph(
        [("many", 4_000_000), ("one", 1)], [(0, 1, np.ones((4_000_000, 1), "f4"), "w")]
    )
    assert many.n_bytes < 4.1 * few.n_bytes
    assert at_once_and_inside(few, 8) == (8, 1)
    assert at_once_and_inside(many, 8) == (1, 8)


def test_more_shuffles_only_add() -> None:
    graph = sample()
    few, many = run(graph, 3), run(graph, 6)
    assert [found.ncut for found in few] == [found.ncut for found in many[:3]]
    assert len({found.ncut for found in many}) == 6


def test_another_seed_gives_other_shuffles() -> None:
    graph = sample()
    one = {found.ncut for found in run(graph, 4)}
    assert not one & {found.ncut for found in run(graph, 4, seed=6)}


def test_no_shuffles() -> None:
    assert run(sample(), 0) == []


@pytest.mark.parametrize("threads", [1, 3])
def test_progress_comes_from_this_thread_and_rises(threads: int) -> None:
    calls: list[tuple[int, int]] = []

    def progress(done: int, total: int) -> None:
        assert threading.current_thread() is threading.main_thread()
        calls.append((done, total))

    run(sample(), 9, threads=threads, progress=progress)
    done = [number for number, _ in calls]
    assert done == sorted(set(done))
    assert done[0] > 0
    assert done[-1] == 9
    assert {total for _, total in calls} == {9}


@pytest.mark.parametrize("threads", [1, 3])
def test_interruption_returns_finished_results(threads: int) -> None:
    graph = sample()
    complete = [found.ncut for found in run(graph, 30)]

    def stop(done: int, total: int) -> None:
        if done >= 4:
            raise KeyboardInterrupt

    before = threading.active_count()
    with pytest.raises(Interrupted) as caught:
        run(graph, 30, threads=threads, progress=stop)
    finished = [found.ncut for found in caught.value.finished]
    assert 4 <= len(finished) < 30
    assert [ncut for ncut in complete if ncut in finished] == finished
    assert threading.active_count() == before


def test_other_errors_of_the_callback_come_through_and_stop_the_work() -> None:
    calls = []

    def fail(done: int, total: int) -> None:
        calls.append(done)
        raise RuntimeError("callback")

    before = threading.active_count()
    with pytest.raises(RuntimeError, match="callback"):
        run(sample(), 30, progress=fail)
    assert len(calls) == 1
    assert threading.active_count() == before


def test_a_shuffle_that_isolates_neurons_still_counts() -> None:
    # 12 edges in 8 x 8 places: most shuffles isolate some neurons.
    weights = np.zeros((8, 8))
    weights[np.arange(8), np.arange(8)] = 1.0
    weights[np.arange(4), np.arange(4) + 4] = 0.5
    graph = chain_graph([weights])
    found = run(graph, 20, k=3)
    assert all(clustering.labels.size < 16 for clustering in found[:3])
    assert all(0 <= clustering.ncut <= 3 for clustering in found)


@pytest.mark.parametrize("convention", ["l2", "balanced"])
def test_shuffles_come_before_the_convention_of_scale(convention: str) -> None:
    graph = sample()
    for number, found in enumerate(run(graph, 3, normalize=convention)):
        shuffled = shuffle(graph, "layer", 5, number).normalized(convention).without_isolated()[0]
        assert found.ncut == normalized_cut(shuffled, found.labels)


@pytest.mark.parametrize("threads", [1, 3])
def test_where_it_stops_depends_on_the_results_alone(threads: int) -> None:
    graph = sample()
    expected = [found.ncut for found in run(graph, 8)]
    seen: list[list[float]] = []

    def stop(results: Any) -> bool:
        seen.append([found.ncut for found in results])
        return len(results) == 8

    before = threading.active_count()  # a library that another test used may keep a thread
    found = run(graph, 1000, threads=threads, stop=stop)
    assert [one.ncut for one in found] == expected
    assert seen == [expected[: n + 1] for n in range(8)]
    assert threading.active_count() == before


def test_interruption_before_the_rule_keeps_what_comes_before_the_first_gap() -> None:
    graph = sample()
    expected = [found.ncut for found in run(graph, 8)]

    def interrupt(done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted) as caught:
        run(graph, 30, threads=1, progress=interrupt, stop=lambda results: False)
    assert [found.ncut for found in caught.value.finished] == expected[:4]


def with_room_for(threads: int, error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets only so many threads start; `error` is raised for the others."""
    start, started = threading.Thread.start, itertools.count()

    def limited(thread: threading.Thread) -> None:
        if next(started) >= threads:
            raise error
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)


def test_fewer_threads_than_asked_for_do_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    with_room_for(2, RuntimeError("can't start new thread"), monkeypatch)
    assert side_by_side_in_order(lambda number: number + 1, 9, 4) == list(range(1, 10))


@pytest.mark.parametrize(
    ("n_started", "error", "raised"),
    [
        (0, RuntimeError("can't start new thread"), RuntimeError),
        (2, KeyboardInterrupt(), Interrupted),
    ],
)
def test_an_error_while_threads_start_ends_the_started_ones(
    n_started: int, error: BaseException, raised: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_room_for(n_started, error, monkeypatch)
    done: list[int] = []

    def task(number: int) -> int:
        time.sleep(0.01)
        done.append(number)
        return number + 1

    before = threading.active_count()
    with pytest.raises(raised):
        side_by_side_in_order(task, 1000, 4)
    assert threading.active_count() == before
    assert len(done) < 100
