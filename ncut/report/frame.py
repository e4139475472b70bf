"""A report as a data frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ncut.errors import import_extra

if TYPE_CHECKING:
    from pandas import DataFrame

    from ncut.results import Measurement


def to_frame(report: Measurement) -> DataFrame:
    """One row per neuron: layer, index within it, cluster, degree."""
    pandas = import_extra("pandas", "plot")
    frame: DataFrame = pandas.DataFrame(
        {
            "layer": [layer.name for layer in report.layers for _ in range(layer.size)],
            "index": np.concatenate(
                [np.arange(layer.size, dtype=np.int64) for layer in report.layers]
                or [np.zeros(0, dtype=np.int64)]
            ),
            "cluster": report.labels,
            "degree": report.degrees,
        }
    )
    return frame
