"""On networks that are shuffles themselves, p-values are uniform.

Twenty seconds for each null model: a small excess of small p-values shows in hundreds of
networks only.
"""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from samples import chain_graph, planted_chain
from scipy import stats

import ncut

N_NETWORKS = 300
N_SHUFFLES = 19
STATISTICS = ("spectral_ncut", "refined_ncut", "lower_bound", "modularity", "clusterability")


@pytest.fixture(scope="module", params=["layer", "layer-nonzero"])
def null(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def reports(null: str) -> list[ncut.Report]:
    # The weights are those of a very clusterable network: only their places are random.
    graph = chain_graph(planted_chain(3, 3, 6, 3, 0.05)[0])
    return [
        ncut.analyze(
            ncut.shuffle(graph, null, seed=99, number=number),
            k=3,
            shuffles=N_SHUFFLES,
            null=null,
            n_init=2,
            seed=number,
            tests=[],  # those of the report's top are other shuffles, and not asked here
        )
        for number in range(N_NETWORKS)
    ]


def values(reports: list[ncut.Report], statistic: str) -> NDArray[np.float64]:
    return np.array([report.statistics[statistic].p_value for report in reports])


@pytest.mark.slow
@pytest.mark.parametrize("statistic", STATISTICS)
def test_p_values_of_shuffles_are_uniform(reports: list[ncut.Report], statistic: str) -> None:
    ranks = np.rint(values(reports, statistic) * (N_SHUFFLES + 1)).astype(int)
    counts = np.bincount(ranks, minlength=N_SHUFFLES + 2)[1:]
    assert counts.sum() == N_NETWORKS
    assert stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("statistic", STATISTICS)
def test_no_more_than_p_of_them_have_a_p_value_as_small(
    reports: list[ncut.Report], statistic: str
) -> None:
    found = values(reports, statistic)
    for p in (0.05, 0.1, 0.25, 0.5):
        n_small = int(np.count_nonzero(found <= p + 1e-12))
        assert stats.binomtest(n_small, N_NETWORKS, p, alternative="greater").pvalue > 1e-3


@pytest.mark.slow
def test_z_scores_of_shuffles_are_small(reports: list[ncut.Report]) -> None:
    for statistic in STATISTICS:
        scores = [report.statistics[statistic].z_score for report in reports]
        assert abs(np.median([score for score in scores if score is not None])) < 0.3
