"""Shuffled networks on a device: random keys, sorted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ncut.device.devices import Device, astype
from ncut.device.graph import DeviceBlock, DeviceCSR, DeviceGraph, upload, upload_weights
from ncut.device.random import random_keys
from ncut.nulls.models import originals, shuffle_connected, shuffled_block
from ncut.randomness import Purpose, stream
from ncut.types import Block

BYTES_PER_ENTRY = 32
"""What sorting random keys takes for each entry of a block, at most."""


def shuffle_on_device(graph: DeviceGraph, null: str, seed: int, number: int) -> DeviceGraph:
    """`ncut.shuffle` for a graph on a device without isolated vertices.

    The entries of a block are put in the order of random numbers of 64 bits, one for each, so
    that every order is equally likely (but for ties, which one in 10^19 pairs has). A seed's
    shuffles differ from the CPU's. Shuffled on the host, as the CPU does it, are blocks too large
    to be sorted in the device's memory, and under "layer" sparse blocks and edges within a layer;
    graphs that do not fit on the device as a whole.

    Parameters
    ----------
    graph : DeviceGraph
        The network itself: `graph.host` must have its weights.
    null : {"layer", "layer-nonzero"}
    seed, number : int
        See `ncut.shuffle`.
    """
    if not graph.is_resident:
        return upload(shuffle_connected(graph.host, null, seed, number), graph.device)
    key = stream(Purpose.SHUFFLE, number + 1)
    # What one layer's weights make of several blocks is shuffled once, as the layer is.
    copied = originals(graph.host, within_layer=True)
    pairs = zip(graph.blocks, graph.host.blocks, copied, strict=True)
    blocks = tuple(
        replace(block, weights=_shuffled(graph.device, block, host, null, seed, key, 2 * original))
        for block, host, original in pairs
    )
    return replace(graph, blocks=blocks)


def _shuffled(
    device: Device, block: DeviceBlock, host: Block, null: str, seed: int, key: int, substream: int
) -> Any:
    weights = block.weights
    sparse = isinstance(weights, DeviceCSR)
    everywhere = null == "layer"
    if sparse and not everywhere:
        keys = random_keys(
            device, weights.data.shape[0], seed=seed, stream=key, substream=substream + 1
        )
        data = device.xp.take(weights.data, device.xp.argsort(keys), axis=0)
        return DeviceCSR(weights.indptr, weights.indices, data, weights.shape)
    n = weights.shape[0] * weights.shape[1]
    too_large = BYTES_PER_ENTRY * n > device.budget // 4
    if sparse or too_large or block.source == block.target:
        return upload_weights(device, shuffled_block(host, null, seed, key, substream))
    keys = random_keys(
        device, n, seed=seed, stream=key, substream=substream + (0 if everywhere else 1)
    )
    flat = device.xp.reshape(weights, (n,))
    permuted = _permuted if everywhere else _permuted_nonzeros
    return device.xp.reshape(permuted(flat, keys, device.xp), weights.shape)


def _permuted(values: Any, keys: Any, xp: Any) -> Any:
    return xp.take(values, xp.argsort(keys), axis=0)


def _permuted_nonzeros(values: Any, keys: Any, xp: Any) -> Any:
    """Non-zero values permuted among their places: the i-th of them gets the i-th in key order."""
    nonzero = values != 0
    last = xp.asarray(np.iinfo(np.uint64).max, dtype=xp.uint64)
    order = xp.argsort(xp.where(nonzero, keys, last))
    cumulative = getattr(xp, "cumulative_sum", None) or xp.cumsum
    rank = cumulative(astype(nonzero, xp.int64, xp)) - 1
    source = xp.take(order, xp.where(nonzero, rank, xp.zeros_like(rank)), axis=0)
    return xp.where(nonzero, xp.take(values, source, axis=0), xp.zeros_like(values))
