"""Random keys: the published generator, and the compiled one."""

from __future__ import annotations

from typing import Any

import array_api_strict
import numpy as np
import pytest
from places import DEVICES, device_named

from ncut import kernels
from ncut.device.devices import host_device
from ncut.device.random import philox, random_keys

NAMESPACES: list[Any] = [np, array_api_strict]


@pytest.mark.parametrize("xp", NAMESPACES)
@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [  # known answers that come with the generator's authors' code
        (0, 0, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        (0xFFFFFFFFFFFFFFFF, 0xFFFFFFFF, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    ],
)
def test_philox_gives_the_known_answers(xp: Any, counter: int, key: int, words: Any) -> None:
    ones = bool(counter)
    drawn = philox(
        xp.asarray([counter], dtype=xp.uint64),
        2**64 - 1 if ones else 0,
        key if ones else 0,
        key if ones else 0,
        xp,
    )
    assert tuple(int(word[0]) for word in drawn) == words


@pytest.mark.parametrize("xp", NAMESPACES)
def test_keys_are_the_words_of_the_compiled_generator(xp: Any) -> None:
    keys = np.asarray(random_keys(host_device(xp), 31, seed=2**40 + 5, stream=7, substream=3))
    words = np.stack([keys >> 32, keys & 0xFFFFFFFF], axis=1).reshape(-1)
    # Draws of a sample without spreading are its entries at words * size / 2^32.
    sample = np.arange(1024, dtype=np.float64)
    drawn = np.empty(10)
    kernels.draw_kde(sample, 0.0, drawn, 2**40 + 5, 7, 3)
    picked = {int(word >> 22) for word in words}
    assert {int(one) for one in drawn} <= picked


@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.parametrize("first", [0, 2, 300, 2**33])
def test_keys_can_be_drawn_piece_by_piece(name: str, first: int) -> None:
    device = device_named(name)
    keys: dict[str, Any] = {"seed": 2**63 + 11, "stream": 2**32 - 1, "substream": 9}
    piece = device.to_host(random_keys(device, 41, **keys, first=first))
    if first < 2**32:
        whole = device.to_host(random_keys(device, first + 41, **keys))[first:]
    else:
        counter = np.arange(first // 2, first // 2 + 21, dtype=np.uint64)
        words = philox(counter, 2**63 + 11, 2**32 - 1, 9, np)
        half = np.uint64(32)
        pairs = [(words[0] << half) | words[1], (words[2] << half) | words[3]]
        whole = np.stack(pairs, axis=1).reshape(-1)[:41]
    assert piece.dtype == np.uint64
    np.testing.assert_array_equal(piece, whole)


def test_each_bit_of_keys_is_set_half_of_the_time() -> None:
    keys = random_keys(host_device(), 20_000, seed=1, stream=2, substream=3)
    bits = (keys[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)
    assert abs(bits.mean(axis=0) - 0.5).max() < 5 * 0.5 / np.sqrt(20_000)
