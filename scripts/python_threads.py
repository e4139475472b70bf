"""Speed-up by two Python threads that analyse small networks in parallel, one thread each.

    python scripts/python_threads.py [--calls 40] [--rounds 3]

Run it under an ordinary and under a free-threaded CPython. It first compares sixteen threads with a
serial run, number by number, and exits with an error if they differ.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

import ncut


def analysis(number: int) -> tuple[float, ...]:
    """The numbers of an analysis of a small random network."""
    random = np.random.default_rng(number % 50)
    weights = [random.random(shape) for shape in ((24, 16), (16, 12), (12, 10))]
    report = ncut.analyze(weights, k=4, shuffles=12, seed=number, threads=1)
    return (report.ncut, *report.shuffled_ncuts, report.statistics["lower_bound"].value)


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--calls", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    numbers = range(chosen.calls)
    serial = list(map(analysis, numbers))
    with ThreadPoolExecutor(16) as pool:
        if list(pool.map(analysis, numbers)) != serial:
            sys.exit("sixteen threads found other numbers than one")
    with ThreadPoolExecutor(2) as pool:
        for _ in range(chosen.rounds):
            one = seconds(lambda: list(map(analysis, numbers)))
            two = seconds(lambda: list(pool.map(analysis, numbers)))
            print(f"{one:.2f} s in one thread, {two:.2f} s in two: {one / two:.2f} times as fast")


if __name__ == "__main__":
    main()
