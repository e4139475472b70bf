"""NormalizedCutClustering: scikit-learn's own checks, and its clusters beside scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.base import clone
from sklearn.cluster import SpectralClustering
from sklearn.datasets import make_blobs
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.neighbors import KNeighborsTransformer, kneighbors_graph
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks

import ncut


def not_applicable(estimator):
    reason = "it passes samples with features, not affinities"
    return dict.fromkeys(["check_clustering"], reason)


@parametrize_with_checks(
    [ncut.NormalizedCutClustering(n_clusters=2)], expected_failed_checks=not_applicable
)
def test_it_is_an_estimator_as_scikit_learn_wants_them(estimator, check):
    check(estimator)


def long_path(n):
    return sparse.csr_array(sparse.diags_array([np.ones(n - 1)] * 2, offsets=[1, -1]))


def test_it_warns_where_the_eigensolver_did_not_converge():
    model = ncut.NormalizedCutClustering(2, solver="krylov", random_state=0)
    with pytest.warns(ConvergenceWarning, match="krylov.* did not converge"):
        model.fit(long_path(1500))
    assert not model.converged_
    assert model.lower_bound_ <= model.ncut_


def test_it_is_as_good_as_scikit_learn_on_a_long_path(recwarn):
    model = ncut.NormalizedCutClustering(2, random_state=0).fit(long_path(1500))
    assert model.converged_
    assert not recwarn.list
    theirs = SpectralClustering(2, affinity="precomputed", random_state=0).fit(
        sparse.csr_matrix(long_path(1500))
    )
    assert model.ncut_ <= ncut.normalized_cut(long_path(1500), theirs.labels_) * (1 + 1e-9)
    assert ncut.NormalizedCutClustering(1).fit(long_path(9)).converged_


@pytest.fixture(scope="module")
def blobs():
    points, _ = make_blobs(300, centers=6, cluster_std=0.5, random_state=3)
    return rbf_kernel(points, gamma=0.5)


def knn(affinity):
    graph = kneighbors_graph(affinity, 12)
    return 0.5 * (graph + graph.T)


@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_clusters_match_scikit_learn(blobs, kind):
    affinity = blobs
    if kind == "sparse":
        affinity = knn(affinity)
    ours = ncut.NormalizedCutClustering(6, random_state=0)
    theirs = SpectralClustering(6, affinity="precomputed", assign_labels="kmeans", random_state=0)
    labels = ours.fit_predict(affinity)
    assert adjusted_rand_score(labels, theirs.fit_predict(affinity)) > 0.95


def test_the_cut_is_that_of_the_labels_and_above_its_bound(blobs):
    affinity = blobs - np.diag(np.diag(blobs))
    model = ncut.NormalizedCutClustering(5, random_state=1).fit(affinity)
    cut = sum(
        affinity[model.labels_ == c][:, model.labels_ != c].sum()
        / affinity[model.labels_ == c].sum()
        for c in range(5)
    )
    assert model.ncut_ == pytest.approx(cut, rel=1e-9)
    assert model.lower_bound_ <= model.ncut_
    scale = affinity.sum(1) ** -0.5
    laplacian = np.eye(300) - scale[:, None] * affinity * scale
    assert_allclose(model.eigenvalues_, np.linalg.eigvalsh(laplacian)[:5], atol=1e-6)
    refined = clone(model).set_params(refine=True).fit(affinity)
    assert refined.ncut_ <= model.ncut_


def test_a_seed_gives_the_same_clusters_on_any_number_of_threads(blobs):
    affinity = blobs
    fits = [
        ncut.NormalizedCutClustering(9, random_state=4, n_jobs=n).fit(affinity)
        for n in (1, 2, -1, -2, -99)
    ]
    for other in fits[1:]:
        assert_array_equal(fits[0].labels_, other.labels_)


def test_at_the_end_of_a_pipeline_of_neighbours():
    centers = [[0, 0], [0, 4], [4, 0], [4, 4]]
    points, truth = make_blobs(240, centers=centers, cluster_std=0.6, random_state=5)
    pipeline = make_pipeline(
        KNeighborsTransformer(mode="connectivity", n_neighbors=10),
        FunctionTransformer(lambda graph: 0.5 * (graph + graph.T), accept_sparse=True),
        ncut.NormalizedCutClustering(4, random_state=0),
    )
    assert adjusted_rand_score(truth, pipeline.fit_predict(points)) > 0.95
    assert pipeline[-1].n_features_in_ == 240
    other = clone(pipeline).set_params(normalizedcutclustering__n_clusters=2).fit(points)
    assert set(other[-1].labels_) == {0, 1}


def test_one_cluster_is_everything():
    affinity = np.ones((4, 4))
    affinity[3] = affinity[:, 3] = 0
    model = ncut.NormalizedCutClustering(1).fit(affinity)
    assert_array_equal(model.labels_, [0, 0, 0, -1])
    assert model.ncut_ == 0


def test_samples_without_affinities_get_their_own_label():
    affinity = np.kron(np.diag([1.0, 1.0, 0.0]), np.ones((4, 4)))
    affinity[:8, :8] += 0.01
    model = ncut.NormalizedCutClustering(2, random_state=0).fit(affinity)
    assert_array_equal(model.labels_[8:], -1)
    assert set(model.labels_[:8]) == {0, 1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"affinity": "rbf"}, "affinity: must be 'precomputed'"),
        ({"n_clusters": 0}, "^n_clusters: must be at least 1, got 0"),
        ({"n_clusters": True}, "^n_clusters: must be a whole number"),
        ({"n_clusters": 2.5}, "^n_clusters: must be a whole number"),
        ({"n_clusters": 300}, "^n_clusters: must be less than .* got 300"),
        ({"n_jobs": 0}, "^n_jobs: must be None or a whole number other than 0, got 0"),
        ({"n_jobs": "all"}, "^n_jobs: must be"),
        ({"n_jobs": 1.5}, "^n_jobs: must be"),
        ({"n_init": 0}, "n_init: must be"),
        ({"solver": "magic"}, "solver: must be"),
    ],
)
def test_parameters_that_cannot_be_used_are_refused(blobs, change, message):
    with pytest.raises(ncut.InputError, match=message):
        ncut.NormalizedCutClustering(**change).fit(blobs)


@pytest.mark.parametrize("make", [np.asarray, sparse.csr_array])
def test_affinities_that_cannot_be_used_are_refused(blobs, make):
    affinity = blobs
    with pytest.raises(ValueError, match="square"):
        ncut.NormalizedCutClustering().fit(make(affinity[:, :200]))
    with pytest.raises(ncut.InputError, match=r"^X: not symmetric"):
        ncut.NormalizedCutClustering().fit(make(np.triu(affinity)))
    with pytest.raises(ValueError, match="Negative values"):
        ncut.NormalizedCutClustering().fit(make(-affinity))
