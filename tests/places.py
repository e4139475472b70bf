"""Graphs on devices that need no GPU: other array namespaces, and budgets that are too small."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import array_api_strict
import numpy as np

from ncut.device.devices import Device, check_device, host_device
from ncut.device.graph import VECTORS, DeviceGraph, upload
from ncut.device.operator import DeviceOperator
from ncut.graphs import NeuronGraph
from ncut.spectral.clustering import cluster_connected
from ncut.types import Clustering

NAMESPACES: dict[str, Any] = {"numpy": np, "strict": array_api_strict}

# On a machine with a GPU, NCUT_TEST_CUDA=1 runs the same on it.
DEVICES = [*NAMESPACES, *(["cuda"] if os.environ.get("NCUT_TEST_CUDA") else [])]

KINDS = ("", ", by block", ", streamed", ", half streamed")
PLACES = [f"{name}{kind}" for name in DEVICES for kind in KINDS]
"""All blocks on the device, as one matrix where they can be and apart; none of them; and those
that a part of their bytes holds."""


def device_named(name: str, budget: int | None = None) -> Device:
    """One of DEVICES, with the given budget."""
    device = check_device("cuda") if name == "cuda" else host_device(NAMESPACES[name])
    assert device is not None
    return device if budget is None else replace(device, budget=budget)


def device_for(graph: NeuronGraph, place: str) -> Device:
    """The device of one of PLACES for a graph."""
    name, _, kind = place.partition(", ")
    everything = device_named(name)
    if kind in ("", "by block"):
        return everything
    # What `upload` sets aside for vectors and tiles, and then no byte or some for blocks.
    aside = 4 * VECTORS * graph.n_vertices
    blocks = upload(graph, everything).resident_bytes
    budget = aside + (3 * blocks // 4 if kind == "half streamed" else 0)
    return device_named(name, budget * 8 // 7 if kind == "half streamed" else budget)


def placed_graph(graph: NeuronGraph, place: str) -> DeviceGraph:
    """A graph on one of PLACES."""
    return upload(graph, device_for(graph, place))


def operator_on(graph: NeuronGraph, place: str) -> DeviceOperator:
    """The operator of a graph without isolated vertices on one of PLACES."""
    with patch("ncut.device.operator.FEW_PARTS", 2**30 if place.endswith("by block") else 1):
        return DeviceOperator(placed_graph(graph, place), 1)


def clustered_on(graph: NeuronGraph, place: str, k: int, **options: Any) -> Clustering:
    """The clustering of a graph without isolated vertices on one of PLACES."""
    chosen: dict[str, Any] = {"n_init": 5, "solver": "auto", "refine": False, "seed": 0}
    return cluster_connected(operator_on(graph, place), k, graph_number=0, **(chosen | options))
