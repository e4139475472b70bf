"""The predicted cost: it grows with the work, and holds what must be held."""

from __future__ import annotations

import numpy as np
from samples import chain_graph, random_chain

from ncut.estimate import estimate


def test_more_work_costs_more() -> None:
    small = chain_graph(random_chain(3, (50, 40, 30)))
    large = chain_graph(random_chain(3, (1500, 1400, 1300)))
    assert estimate(large, threads=1).seconds > 5 * estimate(small, threads=1).seconds
    one, many = (estimate(large, shuffles=n, threads=1).seconds for n in (1, 100))
    assert many > 10 * one
    assert estimate(large, n_init=400).seconds > estimate(large, n_init=1).seconds


def test_memory_counts_the_copies_in_flight(monkeypatch) -> None:
    graph = chain_graph([np.ones((300, 200), np.float32), np.ones((200, 100), np.float32)])
    weights = 4 * (300 * 200 + 200 * 100)
    alone = estimate(graph, shuffles=0, threads=2).peak_bytes
    assert weights < alone < weights + 600 * 10_000
    assert estimate(graph, shuffles=9, threads=2).peak_bytes == 3 * alone
    monkeypatch.setattr("ncut.nulls.distribution.LARGE_BYTES", 0)
    assert estimate(graph, shuffles=9, threads=2).peak_bytes == 2 * alone
