"""Each phase of an analysis by pytest-benchmark, to compare two versions of ncut.

cd benchmarks && python -m pytest bench_phases.py --benchmark-autosave --benchmark-compare
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import networks
import numpy as np
import pytest

import ncut
from ncut import kernels
from ncut.nulls.models import NULL_MODELS, shuffle_connected
from ncut.spectral.embedding import embed
from ncut.spectral.kmeans import partition
from ncut.spectral.operator import NormalizedAdjacency
from ncut.threads import single_threaded_blas

K = 12
GRAPHS = {
    "mlp-unpruned": lambda: networks.mlp(False)[1],
    "mlp-pruned": lambda: networks.mlp(True)[1],
    "vgg16": networks.vgg16,
}


@pytest.fixture(autouse=True)
def one_blas_thread() -> Iterator[None]:
    with single_threaded_blas():
        yield


@pytest.fixture(params=GRAPHS, scope="module")
def graph(request: pytest.FixtureRequest) -> ncut.NeuronGraph:
    connected, _ = GRAPHS[request.param]().without_isolated()
    return connected


def embedding(graph: ncut.NeuronGraph) -> Any:
    operator = NormalizedAdjacency(graph, 1)
    return embed(operator, K, solver="auto", seed=1, graph_number=0)


@pytest.mark.parametrize("null", NULL_MODELS)
def test_shuffle(benchmark: Any, graph: ncut.NeuronGraph, null: str) -> None:
    shuffled = benchmark(shuffle_connected, graph, null, 1, 0)
    assert shuffled.n_vertices == graph.n_vertices


def test_assembly(benchmark: Any, graph: ncut.NeuronGraph) -> None:
    indptr, _, _ = benchmark(kernels.assemble_csr, graph.n_vertices, graph.placed_blocks())
    assert indptr[-1] == 2 * graph.n_edges


def test_embedding(benchmark: Any, graph: ncut.NeuronGraph) -> None:
    assert benchmark(embedding, graph).residual < 1e-3


def test_kmeans(benchmark: Any, graph: ncut.NeuronGraph) -> None:
    points = embedding(graph).points
    options: dict[str, Any] = {"n_init": 25, "seed": 1, "stream": 0, "threads": 1}
    labels = benchmark(partition, points, K, **options)
    assert np.unique(labels).size == K


def test_cut(benchmark: Any, graph: ncut.NeuronGraph) -> None:
    labels = np.arange(graph.n_vertices, dtype=np.int32) % K
    assert 0 < benchmark(ncut.normalized_cut, graph, labels) < K


def test_refine(benchmark: Any, graph: ncut.NeuronGraph) -> None:
    labels = np.arange(graph.n_vertices, dtype=np.int32) % K
    operator = NormalizedAdjacency(graph, 1)
    refined = benchmark(operator.refine, labels, K, 100)
    assert ncut.normalized_cut(graph, refined) < ncut.normalized_cut(graph, labels)
