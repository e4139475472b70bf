"""Random numbers on a device: the same words as the compiled kernels draw, in any namespace."""

from __future__ import annotations

from typing import Any

from ncut.device.cuda import fill_keys, usable
from ncut.device.devices import Device, astype

LOW = 0xFFFFFFFF
MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
STEPS = 0x9E3779B9, 0xBB67AE85
ROUNDS = 10


def random_keys(
    device: Device, n: int, *, seed: int, stream: int, substream: int, first: int = 0
) -> Any:
    """n independent numbers of 64 bits, device array of uint64, shape (n,).

    They depend on the three keys and their place alone, so they are the same on every device;
    `first`, an even number, is the place to start from.

    Source: Salmon, Moraes, Dror, Shaw (2011), Parallel random numbers: as easy as 1, 2, 3
    (Philox4x32-10).
    """
    xp = device.xp
    if usable(device):
        keys = xp.empty((n,), dtype=xp.uint64)
        fill_keys(device, keys, seed=seed, stream=stream, substream=substream, first=first)
        return keys
    counter = xp.arange(first // 2, (first + n + 1) // 2, dtype=xp.uint64)
    words = philox(counter, seed, stream, substream, xp)
    shift = xp.asarray(32, dtype=xp.uint64)
    pairs = [(words[0] << shift) | words[1], (words[2] << shift) | words[3]]
    return xp.reshape(xp.stack(pairs, axis=1), (-1,))[:n]


def philox(counter: Any, seed: int, stream: int, substream: int, xp: Any) -> list[Any]:
    """The four words of each counter, arrays of uint64 with values below 2^32."""
    word = {value: xp.asarray(value, dtype=xp.uint64) for value in (32, LOW, *MULTIPLIERS)}
    counter = astype(counter, xp.uint64, xp)
    filled = xp.zeros_like(counter)
    x = [counter & word[LOW], counter >> word[32], filled + stream, filled + substream]
    keys = [seed & LOW, seed >> 32]
    for _ in range(ROUNDS):
        a, b = (word[m] * x[i] for m, i in zip(MULTIPLIERS, (0, 2), strict=True))
        key0, key1 = (xp.asarray(key, dtype=xp.uint64) for key in keys)
        x = [
            (b >> word[32]) ^ x[1] ^ key0,
            b & word[LOW],
            (a >> word[32]) ^ x[3] ^ key1,
            a & word[LOW],
        ]
        keys = [(key + step) & LOW for key, step in zip(keys, STEPS, strict=True)]
    return x
