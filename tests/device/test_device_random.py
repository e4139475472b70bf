"""Random keys: the published generator, and the compiled one."""

from __future__ import annotations

from typing import Any

import array_api_strict
import numpy as np
import pytest
from places import DEVICES, device_named

from ncut import kernels
from ncut.device.devices import host_device
from ncut.device.shuffle import philox, random_keys

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
        xp.asarray([key if ones else 0], dtype=xp.uint64),
        xp,
    )
    assert tuple(int(word[0]) for word in drawn) == words


@pytest.mark.parametrize("xp", NAMESPACES)
def test_keys_are_the_words_of_the_compiled_generator(xp: Any) -> None:
    _, drawn_there = random_keys(host_device(xp), [12, 31], [8, 3], seed=2**40 + 5, stream=7)
    keys = np.asarray(drawn_there)
    assert keys.shape == (31,)
    words = np.stack([keys >> 32, keys & 0xFFFFFFFF], axis=1).reshape(-1)
    # Draws of a sample without spreading are its entries at words * size / 2^32.
    sample = np.arange(1024, dtype=np.float64)
    drawn = np.empty(10)
    kernels.draw_kde(sample, 0.0, drawn, 2**40 + 5, 7, 3)
    picked = {int(word >> 22) for word in words}
    assert {int(one) for one in drawn} <= picked


@pytest.mark.parametrize("name", DEVICES)
def test_keys_drawn_together_are_those_drawn_alone(name: str) -> None:
    device = device_named(name)
    sizes, substreams = [41, 0, 7, 1, 300], [9, 2, 2**32 - 1, 9, 0]
    keys: dict[str, Any] = {"seed": 2**63 + 11, "stream": 2**32 - 1}
    together = random_keys(device, sizes, substreams, **keys)
    for found, size, substream in zip(together, sizes, substreams, strict=True):
        (alone,) = random_keys(device, [size], [substream], **keys)
        assert device.to_host(found).dtype == np.uint64
        assert found.shape == (size,)
        np.testing.assert_array_equal(device.to_host(found), device.to_host(alone))
    assert device.to_host(together[0])[0] == device.to_host(together[3])[0]
    assert random_keys(device, [], [], **keys) == []


def test_each_bit_of_keys_is_set_half_of_the_time() -> None:
    (keys,) = random_keys(host_device(), [20_000], [3], seed=1, stream=2)
    bits = (keys[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)
    assert abs(bits.mean(axis=0) - 0.5).max() < 5 * 0.5 / np.sqrt(20_000)
