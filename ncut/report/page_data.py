"""Tables and data of the HTML page, without markup and pictures."""

from __future__ import annotations

import base64
import math
import re
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from ncut.report.between import Between, Flows, of_report
from ncut.report.maps import volumes
from ncut.report.names import Names
from ncut.report.wording import name_of, printable

if TYPE_CHECKING:
    from ncut.report.profile import Profile
    from ncut.results import Measurement
    from ncut.types import Comparison

MAX_NEURONS = 200_000
MAX_FLOW_ROWS = 20_000


class Table(TypedDict):
    """A table for download: the columns' names, and rows of texts, numbers and None."""

    names: list[str]
    rows: list[list[Any]]


def page_data(report: Measurement, names: Names, profile: Profile | None) -> dict[str, Any]:
    """The data of a report for the page's script, ready for JSON."""
    between = of_report(report)
    clusters = cluster_rows(report, between)
    edges = [[] for _ in clusters] if between is None else edge_rows(report, names, between)
    for row, counts, strongest in zip(
        clusters, report.cluster_sizes().T.tolist(), edges, strict=True
    ):
        row["layers"] = counts
        row["edges"] = strongest
    return {
        "name": name_of(report),
        "file": file_name(report.model),
        "layers": list(names.full),
        "short": list(names.short),
        "heads": list(names.heads),
        "sizes": list(names.sizes),
        "clusters": clusters,
        "neurons": neurons(report),
        "tables": tables(report, profile, None if between is None else between.flows, clusters),
    }


def file_name(model: str) -> str:
    """The prefix of file names about a model."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", model).strip("-.")[:60] or "model"


def cluster_rows(report: Measurement, between: Between | None) -> list[dict[str, Any]]:
    """Size and volume of each cluster, with the share of weight inside if the graph is known.

    The parts of the n-cut add up to it.
    """
    volume = volumes(report)
    rows: list[dict[str, Any]] = [
        {"neurons": int(size), "volume": float(one)}
        for size, one in zip(report.cluster_sizes().sum(axis=0), volume, strict=True)
    ]
    if between is not None:
        inside = between.inside(report.k)
        for row, weight, whole in zip(rows, inside, volume, strict=True):
            row["inside"] = float(weight / whole) if whole > 0 else None
            row["cut"] = float(1 - weight / whole) if whole > 0 else 0.0
    return rows


def edge_rows(report: Measurement, names: Names, between: Between) -> list[list[list[Any]]]:
    """The strongest edges of each cluster: layer, index, cluster and name of both ends, weight."""
    starts = np.array([layer.start for layer in report.layers])

    def place(vertex: int) -> list[Any]:
        layer = int(np.searchsorted(starts, vertex, side="right")) - 1
        index = vertex - int(starts[layer])
        return [layer, index, int(report.labels[vertex]), names.neuron(layer, index)]

    return [
        [[*place(edge.first), *place(edge.second), edge.weight] for edge in best]
        for best in between.strongest
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
    """Cluster and degree of every neuron in compact form; None if there are too many.

    Little-endian numbers in base 64: `labels` as int8, int16 or int32, `degrees` as float32.
    """
    if report.n_vertices > MAX_NEURONS:
        return None
    kind = np.min_scalar_type(-max(report.k, 1)).newbyteorder("<")
    degrees = report.degrees
    if not 1e-30 < degrees.max(initial=0.0) < 1e38:  # in a unit within the range of float32
        degrees = np.ldexp(degrees, -int(np.frexp(degrees.max(initial=0.0))[1]))
    return {
        "labels": _base64(report.labels.astype(kind)),
        "bits": kind.itemsize * 8,
        "degrees": _base64(degrees.astype("<f4")),
    }


def _base64(array: NDArray[Any]) -> str:
    return base64.b64encode(array.tobytes()).decode("ascii")


def tables(
    report: Measurement,
    profile: Profile | None,
    flows: Flows | None,
    clusters: list[dict[str, Any]],
) -> dict[str, Table]:
    """The page's tables, and tables too long for the page, with all digits."""
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
                for a, i, c, _, b, j, d, _, weight in row["edges"]
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


def profile_table(profile: Profile) -> Table:
    """A row for each k."""
    names = [*profile.statistics[0], "gap after k"]
    return Table(
        names=[
            "k",
            *(
                name if part == "network" else f"{name}: {part}"
                for name in names
                for part in COMPARED
            ),
            "stability over seeds (ARI)",
            "stability over starts (ARI)",
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
    """The table without numbers that JSON cannot represent."""
    rows = [
        [None if isinstance(cell, float) and not math.isfinite(cell) else cell for cell in row]
        for row in table["rows"]
    ]
    return Table(names=table["names"], rows=rows)
