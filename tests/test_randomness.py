"""Seeds, streams and generators: different ones for different purposes, and checks of seeds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ncut.errors import InputError
from ncut.randomness import NETWORK, Purpose, check_seed, numpy_generator, random_stream


def test_streams_of_all_purposes_and_graphs_differ() -> None:
    numbers = [random_stream(purpose, graph) for purpose in Purpose for graph in range(1000)]
    assert len(set(numbers)) == len(numbers)
    assert min(numbers) >= 0
    assert NETWORK == 0


def drawn(seed: int, purpose: Purpose = Purpose.START_VECTORS, graph_number: int = 0) -> float:
    return float(numpy_generator(seed, purpose, graph_number).standard_normal())


def test_generators_depend_on_seed_purpose_and_graph() -> None:
    assert drawn(3) == drawn(3)
    draws = [drawn(3), drawn(4), drawn(3, Purpose.SHUFFLE), drawn(3, graph_number=1)]
    assert len(set(draws)) == 4


def test_all_seeds_of_64_bits_differ() -> None:
    seeds = [0, 1, 2**53, 2**53 + 1, 2**63 - 1, 2**63, 2**63 + 1, 2**64 - 2, 2**64 - 1]
    assert len({drawn(seed) for seed in seeds}) == len(seeds)


@pytest.mark.parametrize("seed", [0, 7, 2**64 - 1, np.int8(5), np.uint64(2**64 - 1)])
def test_whole_numbers_are_seeds(seed: Any) -> None:
    checked = check_seed(seed)
    assert checked == seed
    assert type(checked) is int


@pytest.mark.parametrize("seed", [-1, 2**64, np.int64(-3), 1.0, "1", None, True, [1]])
def test_other_seeds_are_refused(seed: Any) -> None:
    with pytest.raises(InputError, match=r"^seed: "):
        check_seed(seed)
