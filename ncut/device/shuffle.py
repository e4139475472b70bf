"""Shuffled networks on a device: random keys, sorted."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncut.device.devices import Device, astype, concat
from ncut.device.graph import DeviceBlock, DeviceGraph, upload
from ncut.device.random import random_keys
from ncut.device.weights import DeviceCSR
from ncut.nulls.base import originals
from ncut.nulls.models import shuffle_connected
from ncut.randomness import Purpose, stream

BYTES_PER_KEY = 40
"""What sorting random keys takes for each of them: the keys, their order, twice while sorted."""

BYTES_PER_CELL = 112
"""What random cells take for each that is kept, where most are drawn to keep as many."""

LEAST_SORTED = 2**16
"""So many keys are sorted at once, whatever the budget."""


def shuffle_on_device(graph: DeviceGraph, null: str, seed: int, number: int) -> DeviceGraph:
    """`ncut.shuffle` for a graph on a device without isolated vertices.

    Each entry gets a random number of 64 bits, its key, and the entries of a block are put in the
    order of their keys: every order is equally likely, but for equal keys, which one in 10^19
    pairs has. Keys that do not fit into the budget are sorted range by range, with the same
    result. Sparse blocks are put at the cells whose numbers are drawn first among all.

    A seed's shuffles are the same on every device, and differ from the CPU's. A graph that does
    not fit on the device as a whole is shuffled on the host, as the CPU does it.

    Parameters
    ----------
    graph : DeviceGraph
        If it is not resident, `graph.host` must have its weights.
    null : {"layer", "layer-nonzero"}
    seed, number : int
        See `ncut.shuffle`.
    """
    if not graph.is_resident:
        return upload(shuffle_connected(graph.host, null, seed, number), graph.device)
    key = stream(Purpose.SHUFFLE, number + 1)
    # What one layer's weights make of several blocks is shuffled once, as the layer is.
    copied = originals(graph.host, within_layer=True)
    blocks = tuple(
        replace(block, weights=_shuffled(block, null, _Random(graph.device, seed, key, original)))
        for block, original in zip(graph.blocks, copied, strict=True)
    )
    return replace(graph, blocks=blocks)


def working_bytes(device: Device, weights: Any, null: str) -> int:
    """What a host block's shuffle takes on a device beside the block and its copy, at most."""
    if not isinstance(weights, np.ndarray):
        return BYTES_PER_CELL * int(weights.data.size)
    needed = BYTES_PER_KEY * int(weights.size)
    if null != "layer":
        return needed + 8 * int(weights.size)  # and the non-zeros' numbers
    return min(needed, max(device.budget // 4, BYTES_PER_KEY * LEAST_SORTED))


@dataclass(frozen=True, slots=True)
class _Random:
    """The two substreams of a block: for where its weights go (0), and for their values (1)."""

    device: Device
    seed: int
    key: int
    original: int

    def keys(self, which: int, n: int, first: int = 0) -> Any:
        return random_keys(
            self.device,
            n,
            seed=self.seed,
            stream=self.key,
            substream=2 * self.original + which,
            first=first,
        )


def _shuffled(block: DeviceBlock, null: str, random: _Random) -> Any:
    weights, xp = block.weights, random.device.xp
    within_layer = block.source == block.target
    everywhere = null == "layer"
    if isinstance(weights, DeviceCSR):
        if not weights.data.shape[0]:
            return weights
        data = _permuted(weights.data, random, 1)
        if not everywhere:
            return DeviceCSR(weights.indptr, weights.indices, data, weights.shape)
        return _at_random_places(weights.shape, data, within_layer, random)
    flat = xp.reshape(weights, (-1,))
    if not everywhere:
        changed = _permuted_among(flat, flat != 0, random, 1)
    elif within_layer:
        above = np.triu(np.ones(weights.shape, dtype=bool), k=1).reshape(-1)
        changed = _permuted_among(flat, random.device.asarray(above), random, 0)
    else:
        changed = _permuted(flat, random, 0)
    return xp.reshape(changed, weights.shape)


def _permuted(values: Any, random: _Random, which: int) -> Any:
    """The values in random order, shape (n,)."""
    xp = random.device.xp
    parts = [xp.take(values, order, axis=0) for order in _order(values.shape[0], random, which)]
    return parts[0] if len(parts) == 1 else concat(parts, xp)


def _permuted_among(values: Any, places: Any, random: _Random, which: int) -> Any:
    """The values at some places in random order, zero at the others; shape (n,)."""
    xp = random.device.xp
    chosen = xp.nonzero(places)[0]
    if chosen.shape[0] == 0:
        return values
    shuffled = _permuted(xp.take(values, chosen, axis=0), random, which)
    if chosen.shape[0] == values.shape[0]:
        return shuffled
    del chosen
    # The i-th place gets the i-th value: a device writes to many places only through such ranks.
    running = getattr(xp, "cumulative_sum", None) or xp.cumsum
    rank = running(astype(places, xp.int64, xp)) - 1
    there = xp.take(shuffled, xp.where(places, rank, xp.zeros_like(rank)), axis=0)
    return xp.where(places, there, xp.zeros_like(there))


def _order(n: int, random: _Random, which: int) -> Iterator[Any]:
    """The numbers 0 to n - 1 in the order of their keys, device arrays of int64 one by one."""
    device, xp = random.device, random.device.xp
    most = max(LEAST_SORTED, device.budget // 4 // BYTES_PER_KEY)
    n_ranges = -(-n // most)
    if n_ranges <= 1:
        yield xp.argsort(random.keys(which, n))
        return
    limits = [number * 2**32 // n_ranges for number in range(n_ranges + 1)]
    step = most // 4 * 2  # even, and half as many as are sorted
    for low, high in itertools.pairwise(limits):
        numbers, keys = [], []
        for first in range(0, n, step):
            drawn = random.keys(which, min(step, n - first), first)
            upper = drawn >> xp.asarray(32, dtype=xp.uint64)
            at = xp.nonzero((upper >= low) & (upper < high))[0]
            numbers.append(at + first)
            keys.append(xp.take(drawn, at, axis=0))
        order = xp.argsort(concat(keys, xp))
        yield xp.take(concat(numbers, xp), order, axis=0)


def _at_random_places(
    shape: tuple[int, int], data: Any, within_layer: bool, random: _Random
) -> DeviceCSR:
    """A sparse block with these values at random cells, in a layer above the diagonal."""
    device, xp = random.device, random.device.xp
    n_rows, n_columns = shape
    rows: NDArray[np.int64] = np.arange(n_rows + 1)
    starts = rows * n_columns
    shift = np.zeros(n_rows, dtype=np.int64)
    if within_layer:
        starts, shift = rows * (n_columns - 1) - rows * (rows - 1) // 2, rows[:-1] + 1
    cells = _random_subset(int(starts[-1]), data.shape[0], random)
    on_device = device.asarray(starts)
    row = xp.searchsorted(on_device, cells, side="right") - 1
    columns = cells - xp.take(on_device - device.asarray(np.append(shift, 0)), row, axis=0)
    return DeviceCSR(
        indptr=xp.searchsorted(cells, on_device).astype(np.int32),
        indices=columns.astype(np.int32),
        data=data,
        shape=shape,
    )


def _random_subset(count: int, size: int, random: _Random) -> Any:
    """`size` different numbers below `count`, ascending int64, every subset equally likely.

    Distinct draws are such a subset whatever their number; of too many some are left out at
    random. Of more than half the numbers those are drawn that are not in the subset.
    """
    xp = random.device.xp
    if 2 * size > count:
        marks = xp.ones((count,), dtype=bool)
        marks[_random_subset(count, count - size, random)] = False
        return xp.nonzero(marks)[0]
    # A draw below the next power of two is not below `count` in one half of the cases at most.
    bits = max(1, (count - 1).bit_length())
    expected = -count * np.log1p(-size / count) * 2**bits / count
    chosen = xp.zeros((0,), dtype=np.int64)
    first = 0
    while chosen.shape[0] < size:
        n_draws = 2 * int(expected / 2 + 2 * expected**0.5 + 8)
        drawn = (random.keys(0, n_draws, first) >> (64 - bits)).astype(np.int64)
        first += n_draws
        chosen = xp.unique(xp.concatenate([chosen, drawn[drawn < count]]))
    kept = xp.argsort(random.keys(0, chosen.shape[0], first))[:size]
    return xp.sort(xp.take(chosen, kept, axis=0))
