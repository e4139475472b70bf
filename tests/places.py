"""Graphs on devices that need no GPU: other array namespaces, and budgets that are too small."""

from __future__ import annotations

from typing import Any

import array_api_strict
import numpy as np

from ncut.device.devices import Device, host_device
from ncut.device.graph import VECTORS, DeviceGraph, upload
from ncut.graphs import NeuronGraph

NAMESPACES: dict[str, Any] = {"numpy": np, "strict": array_api_strict}

PLACES = [f"{name}{kind}" for name in NAMESPACES for kind in ("", ", streamed", ", half streamed")]
"""All blocks on the device, none, and those that a part of their bytes holds."""


def device_for(graph: NeuronGraph, place: str) -> Device:
    """The device of one of PLACES for a graph."""
    name, _, kind = place.partition(", ")
    everything = host_device(NAMESPACES[name])
    if not kind:
        return everything
    # What `upload` sets aside for vectors and tiles, and then no byte or some for blocks.
    aside = 4 * VECTORS * graph.n_vertices
    blocks = upload(graph, everything).resident_bytes
    budget = aside + (3 * blocks // 4 if kind == "half streamed" else 0)
    return host_device(NAMESPACES[name], budget * 8 // 7 if kind == "half streamed" else budget)


def placed_graph(graph: NeuronGraph, place: str) -> DeviceGraph:
    """A graph on one of PLACES."""
    return upload(graph, device_for(graph, place))
