"""The core's generator is Philox4x32-10: permutations agree with one written in Python."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest

from ncut import kernels

pytestmark = pytest.mark.usefixtures("each_instruction_set")

MASK = 2**32 - 1


def philox(counter: list[int], key: list[int]) -> list[int]:
    """Four numbers of 32 bits. Source: Salmon, Moraes, Dror, Shaw (2011), section 3.2."""
    x, k = list(counter), list(key)
    for _ in range(10):
        a, b = 0xD2511F53 * x[0], 0xCD9E8D57 * x[2]
        x = [(b >> 32) ^ x[1] ^ k[0], b & MASK, (a >> 32) ^ x[3] ^ k[1], a & MASK]
        k = [(k[0] + 0x9E3779B9) & MASK, (k[1] + 0xBB67AE85) & MASK]
    return x


def numbers(seed: int, stream: int, substream: int) -> Iterator[int]:
    key = [seed & MASK, seed >> 32]
    for counter in itertools.count():
        yield from philox([counter & MASK, counter >> 32, stream, substream], key)


def below(bound: int, source: Iterator[int]) -> int:
    """Uniform in [0, bound). Source: Lemire (2019), algorithm 5."""
    product = next(source) * bound
    while product & MASK < (2**32 - bound) % bound:
        product = next(source) * bound
    return product >> 32


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([MASK] * 4, [MASK] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_the_python_philox_gives_the_published_numbers(
    counter: list[int], key: list[int], expected: list[int]
) -> None:
    assert philox(counter, key) == expected


@pytest.mark.parametrize("n", [2, 16, 17, 18, 100, 1000])
@pytest.mark.parametrize(
    ("seed", "stream", "substream"),
    [(1, 0, 0), (2**64 - 1, 2**32 - 1, 2**32 - 1), (2**40 + 9, 3, 8)],
)
def test_permutations_use_these_numbers(n: int, seed: int, stream: int, substream: int) -> None:
    expected = list(range(n))
    source = numbers(seed, stream, substream)
    for last in range(n - 1, 0, -1):
        other = below(last + 1, source)
        expected[last], expected[other] = expected[other], expected[last]
    ours = kernels.permuted(np.arange(n, dtype=np.float64), seed, stream, substream)
    assert ours.tolist() == expected
