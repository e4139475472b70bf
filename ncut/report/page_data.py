"""Tables and data of the HTML page, without markup and pictures."""

from __future__ import annotations

import base64
import math
import re
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from ncut.report.edges import strongest_edges
from ncut.report.maps import Flows, Matrix, volumes
from ncut.report.words import name_of, printable

if TYPE_CHECKING:
    from ncut.graphs import NeuronGraph
    from ncut.results import Measurement, ProfileData
    from ncut.types import Comparison

MAX_NEURONS = 200_000
MAX_FLOW_ROWS = 20_000
N_STRONGEST = 10


class Table(TypedDict):
    """A table to be downloaded: the columns' names, and rows of texts, numbers and None."""

    names: list[str]
    rows: list[list[Any]]


def page_data(
    report: Measurement, profile: ProfileData | None, flows: Flows | None, matrix: Matrix | None
) -> dict[str, Any]:
    """Everything that the page's script needs of a report, ready for JSON."""
    graph = report.graph
    clusters = cluster_rows(report, flows)
    edges = [[] for _ in clusters] if graph is None else edge_rows(report, graph)
    for row, counts, strongest in zip(
        clusters, report.cluster_sizes().T.tolist(), edges, strict=True
    ):
        row["layers"] = counts
        row["edges"] = strongest
    return {
        "name": name_of(report),
        "file": re.sub(r"[^A-Za-z0-9.]+", "-", report.model).strip("-.")[:60] or "model",
        "layers": [printable(layer.name) for layer in report.layers],
        "sizes": [layer.size for layer in report.layers],
        "clusters": clusters,
        "matrix": None if matrix is None else matrix_facts(matrix),
        "neurons": neurons(report),
        "tables": tables(report, profile, flows, clusters),
    }


def cluster_rows(report: Measurement, flows: Flows | None) -> list[dict[str, Any]]:
    """Size, volume, and where the graph is known the share of weight inside, of each cluster.

    The parts of the n-cut add up to it.
    """
    volume = volumes(report)
    rows: list[dict[str, Any]] = [
        {"neurons": int(size), "volume": float(one)}
        for size, one in zip(report.cluster_sizes().sum(axis=0), volume, strict=True)
    ]
    if flows is not None:
        inside = 2 * sum((np.diag(flow) for flow in flows.values()), start=np.zeros(report.k))
        for row, weight, whole in zip(rows, inside, volume, strict=True):
            row["inside"] = float(weight / whole) if whole > 0 else None
            row["cut"] = float(1 - weight / whole) if whole > 0 else 0.0
    return rows


def edge_rows(report: Measurement, graph: NeuronGraph) -> list[list[list[Any]]]:
    """The strongest edges of each cluster: layer, index and cluster of both ends, weight."""
    starts = np.array([layer.start for layer in report.layers])

    def place(vertex: int) -> list[int]:
        layer = int(np.searchsorted(starts, vertex, side="right")) - 1
        return [layer, vertex - int(starts[layer]), int(report.labels[vertex])]

    return [
        [[*place(edge.first), *place(edge.second), edge.weight] for edge in best]
        for best in strongest_edges(graph, report.labels, report.k, N_STRONGEST)
    ]


def flow_rows(report: Measurement, flows: Flows) -> list[list[Any]]:
    """Each weight between a cluster in one layer and a cluster in another."""
    names = [printable(layer.name) for layer in report.layers]
    return [
        [names[a], int(one), names[b], int(other), float(flow[one, other])]
        for (a, b), flow in flows.items()
        for one, other in np.argwhere(flow)
    ]


def neurons(report: Measurement) -> dict[str, Any] | None:
    """Cluster and degree of every neuron in little space; None where there are too many.

    Little-endian numbers in base 64: `labels` as int8, int16 or int32, `degrees` as float32.
    """
    if report.n_vertices > MAX_NEURONS:
        return None
    kind = np.min_scalar_type(-max(report.k, 1)).newbyteorder("<")
    degrees = report.degrees
    if not 1e-30 < degrees.max(initial=0.0) < 1e38:  # in a unit that float32 has room for
        degrees = np.ldexp(degrees, -int(np.frexp(degrees.max(initial=0.0))[1]))
    return {
        "labels": _base64(report.labels.astype(kind)),
        "bits": kind.itemsize * 8,
        "degrees": _base64(degrees.astype("<f4")),
    }


def _base64(array: NDArray[Any]) -> str:
    return base64.b64encode(array.tobytes()).decode("ascii")


def matrix_facts(matrix: Matrix) -> dict[str, Any]:
    """What the script needs to say which neurons a cell stands for, and to mark a cluster."""
    return {
        "cluster": matrix.cluster.tolist(),
        "layer": matrix.layer.tolist(),
        "starts": matrix.starts.tolist(),
        "largest": float(matrix.means.max(initial=0.0)),
        "neurons": matrix.neurons,
    }


def tables(
    report: Measurement,
    profile: ProfileData | None,
    flows: Flows | None,
    clusters: list[dict[str, Any]],
) -> dict[str, Table]:
    """The page's tables, and some that are too long to be shown, with all digits."""
    compared = report.statistics
    layers = [printable(layer.name) for layer in report.layers]
    counts = report.cluster_sizes()
    found = {
        "statistics": Table(
            names=["statistic", *COMPARED],
            rows=[[name, *_compared(one)] for name, one in compared.items()],
        ),
        "shuffles": Table(
            names=["shuffle", *compared],
            rows=[
                [number, *(float(one.shuffled[number]) for one in compared.values())]
                for number in range(report.n_shuffles)
            ],
        ),
        "clusters": Table(
            names=["cluster", "neurons", "volume", "share of weight inside", "part of the n-cut"],
            rows=[
                [at, row["neurons"], row["volume"], row.get("inside"), row.get("cut")]
                for at, row in enumerate(clusters)
            ],
        ),
        "layers": Table(
            names=["layer", "neurons", *map(str, range(report.k)), "isolated"],
            rows=[
                [name, layer.size, *row.tolist(), layer.size - int(row.sum())]
                for name, layer, row in zip(layers, report.layers, counts, strict=True)
            ],
        ),
        "eigenvalues": Table(
            names=["number", "eigenvalue"],
            rows=[[at + 1, float(value)] for at, value in enumerate(report.eigenvalues)],
        ),
        "left-out": Table(
            names=["what", "shape", "why"],
            rows=[
                [printable(one.name), "x".join(map(str, one.shape)), printable(one.reason)]
                for one in report.left_out
            ],
        ),
    }
    if flows is not None:
        ends = [f"{what} {n}" for n in (1, 2) for what in ("layer", "index", "cluster")]
        found["edges"] = Table(
            names=["of cluster", *ends, "weight"],
            rows=[
                [at, layers[a], i, c, layers[b], j, d, weight]
                for at, row in enumerate(clusters)
                for a, i, c, b, j, d, weight in row["edges"]
            ],
        )
        if sum(np.count_nonzero(flow) for flow in flows.values()) <= MAX_FLOW_ROWS:
            found["flow"] = Table(
                names=["layer 1", "cluster 1", "layer 2", "cluster 2", "weight"],
                rows=flow_rows(report, flows),
            )
    if profile is not None:
        found["profile"] = profile_table(profile)
        found["eigenvalues"]["rows"] = [
            [at + 1, float(value)] for at, value in enumerate(profile.eigenvalues)
        ]
    return {name: _finite(table) for name, table in found.items()}


COMPARED = ("network", "shuffles' mean", "shuffles' std", "Z", "p")


def _compared(one: Comparison) -> list[float | None]:
    return [one.value, one.mean, one.std, one.z_score, one.p_value]


def profile_table(profile: ProfileData) -> Table:
    """A row for each k."""
    names = [*profile.statistics[0], "gap behind k"]
    return Table(
        names=[
            "k",
            *(
                name if part == "network" else f"{name}: {part}"
                for name in names
                for part in COMPARED
            ),
            "same again from other seeds",
            "same again from other starts",
        ],
        rows=[
            [
                k,
                *(
                    number
                    for one in (*profile.statistics[at].values(), profile.gaps[at])
                    for number in _compared(one)
                ),
                float(profile.stability_seeds[at]),
                float(profile.stability_starts[at]),
            ]
            for at, k in enumerate(profile.ks)
        ],
    )


def _finite(table: Table) -> Table:
    """The table without numbers that JSON cannot carry."""
    rows = [
        [None if isinstance(cell, float) and not math.isfinite(cell) else cell for cell in row]
        for row in table["rows"]
    ]
    return Table(names=table["names"], rows=rows)
