"""Shuffled networks: dense blocks on a device, by sorting random keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ncut.device.devices import Device, astype, concat
from ncut.device.graph import DeviceGraph, downloaded
from ncut.graphs import NeuronGraph
from ncut.nulls.base import BlockRandom, substreams
from ncut.nulls.permuted import LayerNonzeroNull, LayerNull
from ncut.randomness import Purpose, random_stream

ON_DEVICE = ("layer", "layer-nonzero")
"""Null models whose shuffles a device makes."""

BYTES_PER_KEY = 100
"""Memory per entry for drawing and sorting, in addition to the entries and their copy."""

LOW = 0xFFFFFFFF
MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
STEPS = 0x9E3779B9, 0xBB67AE85
ROUNDS = 10


def shuffle_on_device(graph: DeviceGraph, null: str, seed: int, number: int) -> DeviceGraph:
    """Shuffle a graph without isolated vertices, with the result on device and host.

    Each entry of a dense block gets a random 64-bit key, and the entries are sorted by their keys:
    every order is equally likely, except for equal keys, which one in 10^19 pairs has. The weights
    are copied back to the host, which refines and measures partitions. Sparse blocks are shuffled
    on the host, as on the CPU.

    Parameters
    ----------
    graph : DeviceGraph
        All its dense blocks on the device.
    null : {"layer", "layer-nonzero"}
    seed, number : int
        See `ncut.shuffle`. A seed gives the same dense shuffles on every device; they differ from
        the CPU's.
    """
    device, host = graph.device, graph.host
    key = random_stream(Purpose.SHUFFLE, number + 1)
    on_host = (LayerNull if null == "layer" else LayerNonzeroNull)(host, seed)
    first = substreams(host)  # a layer's copies have one, and are shuffled alike
    which = 0 if null == "layer" else 1
    dense = [at for at, there in enumerate(graph.weights) if there is not None]
    sizes = [int(host.blocks[at].weights.size) for at in dense]
    drawn = random_keys(device, sizes, [first[at] + which for at in dense], seed=seed, stream=key)
    keys = dict(zip(dense, drawn, strict=True))
    weights, blocks = [], []
    for at, (block, there) in enumerate(zip(host.blocks, graph.weights, strict=True)):
        if there is None:
            shuffled = on_host.shuffled(block, BlockRandom(seed, key, first[at]))
        else:
            there = _shuffled(device.xp, there, null, keys.pop(at))
            shuffled = downloaded(device, there, block.weights.dtype)
        weights.append(there)
        blocks.append(replace(block, weights=shuffled))
    return DeviceGraph(device, replace(host, blocks=tuple(blocks)), tuple(weights))


def working_bytes(graph: NeuronGraph) -> int:
    """Largest memory of a shuffle on a device, in addition to the weights and their copy."""
    dense = (block.weights for block in graph.blocks if isinstance(block.weights, np.ndarray))
    return BYTES_PER_KEY * sum(int(weights.size) for weights in dense)


def _shuffled(xp: Any, weights: Any, null: str, keys: Any) -> Any:
    flat = xp.reshape(weights, (-1,))
    if null == "layer":
        changed = xp.take(flat, xp.argsort(keys), axis=0)
    else:
        changed = _permuted_among(flat, flat != 0, keys, xp)
    return xp.reshape(changed, weights.shape)


def _permuted_among(values: Any, places: Any, keys: Any, xp: Any) -> Any:
    """The values at the chosen positions in random order, zero at the others; shape (n,)."""
    chosen = xp.nonzero(places)[0]
    if chosen.shape[0] == 0:
        return values
    order = xp.argsort(keys[: chosen.shape[0]])
    shuffled = xp.take(values, xp.take(chosen, order, axis=0), axis=0)
    # The i-th position gets the i-th value; a device can scatter only through such ranks.
    running = getattr(xp, "cumulative_sum", None) or xp.cumsum  # NumPy before 2.1
    rank = running(astype(places, xp.int64, xp)) - 1
    there = xp.take(shuffled, xp.where(places, rank, xp.zeros_like(rank)), axis=0)
    return xp.where(places, there, xp.zeros_like(there))


def random_keys(
    device: Device, sizes: Sequence[int], substreams: Sequence[int], *, seed: int, stream: int
) -> list[Any]:
    """The given number of independent 64-bit numbers per substream, device arrays of uint64.

    They depend only on the three keys and their position, so they are the same on every device. All
    are drawn at once, since launching operations dominates a device's time.

    Source: Salmon, Moraes, Dror, Shaw (2011), Parallel random numbers: as easy as 1, 2, 3
    (Philox4x32-10).
    """
    xp = device.xp
    if not sizes:
        return []
    counts = [-(-size // 2) for size in sizes]
    counter = concat([xp.arange(count, dtype=xp.uint64) for count in counts], xp)
    ones = [
        xp.full((count,), substream, dtype=xp.uint64)
        for count, substream in zip(counts, substreams, strict=True)
    ]
    words = philox(counter, seed, stream, concat(ones, xp), xp)
    shift = xp.asarray(32, dtype=xp.uint64)
    pairs = [(words[0] << shift) | words[1], (words[2] << shift) | words[3]]
    keys = xp.reshape(xp.stack(pairs, axis=1), (-1,))
    ends = np.cumsum([0, *counts]) * 2
    return [keys[int(at) : int(at) + size] for at, size in zip(ends, sizes, strict=False)]


def philox(counter: Any, seed: int, stream: int, substream: Any, xp: Any) -> list[Any]:
    """The four words of each counter, arrays of uint64 with values below 2^32.

    `substream`: an array of the counters' shape.
    """
    word = {value: xp.asarray(value, dtype=xp.uint64) for value in (32, LOW, *MULTIPLIERS)}
    x = [counter & word[LOW], counter >> word[32], xp.zeros_like(counter) + stream, substream]
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
