"""NormalizedCutClustering: ncut's spectral clustering as a scikit-learn estimator."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import numpy as np
from joblib import cpu_count
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_non_negative, validate_data

from ncut.errors import InputError
from ncut.graphs import from_adjacency
from ncut.graphs.validate import check_n_clusters
from ncut.spectral import cluster


class NormalizedCutClustering(ClusterMixin, BaseEstimator):
    """Spectral clustering of any affinity matrix, with the normalized cut and its lower bound.

    A drop-in for scikit-learn's `SpectralClustering(affinity="precomputed",
    assign_labels="kmeans")`, with an embedding by the same eigenvectors.

    Parameters
    ----------
    n_clusters : int, default 8
        Number of clusters, less than the number of samples with an affinity to another sample.
    affinity : {"precomputed"}, default "precomputed"
        `fit` expects the affinities themselves.
    n_init : int or "auto", default 10
        Restarts of k-means, see `ncut.cluster`.
    refine : bool, default False
        Move single samples between clusters while that lowers the normalized cut.
    solver : str, default "auto"
        The eigensolver, see `ncut.cluster`.
    random_state : int, RandomState or None, default None
        An int gives the same result in every call, for any `n_jobs`.
    n_jobs : int or None, default None
        Threads; None or -1: all cores, -2: all but one, and so on.

    Attributes
    ----------
    labels_ : ndarray of int32, shape (n_samples,)
        Clusters from 0; -1 for a sample without affinity to any other.
    ncut_ : float
        Normalized cut of the clusters, between 0 and n_clusters.
    lower_bound_ : float
        No partition into n_clusters clusters has a lower normalized cut.
    eigenvalues_ : ndarray of float64, shape (n_clusters,)
        The smallest eigenvalues of the normalized Laplacian, ascending.
    converged_ : bool
        Whether the eigenvectors are accurate enough for clustering; if not, `fit` warns.
    n_features_in_ : int
        Columns of the affinity matrix.

    Examples
    --------
    >>> import numpy as np
    >>> affinity = np.kron(np.eye(3), np.ones((5, 5))) + 0.01
    >>> model = NormalizedCutClustering(n_clusters=3, random_state=0).fit(affinity)
    >>> [len(set(model.labels_[i : i + 5])) for i in (0, 5, 10)]
    [1, 1, 1]
    """

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        affinity: Literal["precomputed"] = "precomputed",
        n_init: int | Literal["auto"] = 10,
        refine: bool = False,
        solver: str = "auto",
        random_state: int | np.random.RandomState | None = None,
        n_jobs: int | None = None,
    ) -> None:
        self.n_clusters = n_clusters
        self.affinity = affinity
        self.n_init = n_init
        self.refine = refine
        self.solver = solver
        self.random_state = random_state
        self.n_jobs = n_jobs

    def fit(self, X: Any, y: object = None) -> NormalizedCutClustering:
        """Cluster the samples of a symmetric affinity matrix.

        Parameters
        ----------
        X : array or scipy sparse matrix, shape (n_samples, n_samples)
            Finite non-negative affinities. The diagonal is ignored; masked entries of numpy.ma are
            0.
        y
            Ignored.

        Raises
        ------
        InputError
            If X or a parameter cannot be used; the message names it. It is a ValueError.

        Warns
        -----
        ConvergenceWarning
            If the eigensolver did not converge.
        """
        if self.affinity != "precomputed":
            raise InputError(
                f"affinity: must be 'precomputed', got {self.affinity!r}; compute the affinities "
                "first, as with sklearn.metrics.pairwise.rbf_kernel"
            )
        if isinstance(X, np.ma.MaskedArray):  # masked: no affinity
            X = X.filled(0)
        X = validate_data(
            self, X, accept_sparse="csr", dtype=(np.float64, np.float32),
            ensure_min_samples=2,
        )  # fmt: skip
        if X.shape[0] != X.shape[1]:
            raise InputError(
                f"X: must be a square matrix of affinities, got {X.shape[0]} x {X.shape[1]}"
            )
        check_non_negative(X, type(self).__name__)
        graph = from_adjacency(X, name="affinity", argument="X")
        n_connected = int(np.count_nonzero(graph.degrees))
        n_clusters = check_n_clusters(self.n_clusters, n_connected, "n_clusters", least=1)
        threads = _threads(self.n_jobs)
        if n_clusters == 1:
            self.labels_ = np.where(graph.degrees > 0, 0, -1).astype(np.int32)
            self.ncut_, self.lower_bound_, self.eigenvalues_ = 0.0, 0.0, np.zeros(1)
            self.converged_ = True
            return self
        found = cluster(
            graph,
            n_clusters,
            n_init=self.n_init,
            solver=self.solver,
            refine=self.refine,
            seed=int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max)),
            threads=threads,
        )
        self.labels_ = found.labels
        self.ncut_ = found.ncut
        self.lower_bound_ = found.lower_bound
        self.eigenvalues_ = found.eigenvalues
        self.converged_ = found.converged
        if not found.converged:
            warnings.warn(
                f"the eigensolver {found.solver} did not converge (residual {found.residual:.1e}): "
                "the clusters may be worse than the best and lower_bound_ far below them; use "
                "solver='auto' or 'dense'",
                ConvergenceWarning,
                stacklevel=2,
            )
        return self

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.pairwise = True
        tags.input_tags.positive_only = True
        tags.input_tags.sparse = True
        return tags


def _threads(n_jobs: object) -> int | None:
    """The number of threads for scikit-learn's `n_jobs`; None: all cores."""
    if n_jobs is None:
        return None
    if isinstance(n_jobs, bool) or not isinstance(n_jobs, int | np.integer) or n_jobs == 0:
        raise InputError(f"n_jobs: must be None or a whole number other than 0, got {n_jobs!r}")
    return int(n_jobs) if n_jobs > 0 else max(1, cpu_count() + 1 + int(n_jobs))
