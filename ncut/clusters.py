"""cluster(): spectral clustering of a graph, on the CPU or on a GPU."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, Literal

from ncut.arguments import suggests_names
from ncut.device.devices import check_device
from ncut.device.graph import upload
from ncut.device.operator import operator_of
from ncut.graphs import NeuronGraph
from ncut.spectral import clustering
from ncut.spectral.operator import NormalizedAdjacency
from ncut.types import Clustering, Solver


@suggests_names()
def cluster(
    graph: Any,
    k: int = 12,
    *,
    n_init: int | Literal["auto"] = "auto",
    solver: Solver = "auto",
    refine: bool = False,
    seed: int = 0,
    threads: int | None = None,
    device: str = "cpu",
) -> Clustering:
    """Partition a graph into k clusters by normalized spectral clustering.

    The embedding holds the k eigenvectors of L_norm = I - D^-1 A with the smallest eigenvalues,
    the constant one included; its rows are not normalized; k-means partitions them.

    Parameters
    ----------
    graph : NeuronGraph or scipy sparse symmetric adjacency, n vertices
        Vertices without edges are left out and labelled -1.
    k : int, default 12
        Number of clusters, at least 2 and less than the number of vertices with edges.
    n_init : int or "auto"
        Restarts of k-means; the result of least inertia is kept. "auto" is 25, and 100 above 2,000
        vertices.
    solver : {"auto", "krylov", "gram", "shift-invert", "dense", "arpack", "lobpcg"}
        Eigensolver; "auto" chooses by size and structure and tries others if the first does not
        converge; the result names the solver used. "krylov": block Lanczos in float32 on the blocks
        of weights (in float64, as "krylov-float64", if float32 is not accurate enough).
        "gram": LAPACK on the smaller side of a layered graph. "shift-invert": block Lanczos on the
        inverse of L_sym, by a sparse factorization that also counts eigenvalues; for long thin
        graphs such as paths, grids, roads and neighbour graphs of curves and surfaces. "dense":
        LAPACK on the whole matrix. "arpack", "lobpcg": SciPy's, on the assembled matrix in float64.
        With every solver, a partition with an n-cut below the lower bound proves that an eigenvalue
        is missing; "krylov-float64" or "dense" then searches for it.
    refine : bool, default False
        Whether `labels` and `ncut` describe the partition after refinement, which moves single
        vertices between clusters while that lowers the normalized cut. Not part of the paper's
        method.
    seed : int, default 0
        The same seed gives the same result on any number of threads.
    threads : int, optional
        Threads to use; all cores by default.
    device : {"cpu", "cuda", "cuda:N"}, default "cpu"
        The device for the products and the orthogonalization of "krylov"; the CPU does everything
        else. A GPU needs the extra `gpu`.

    Returns
    -------
    Clustering
        Labels, normalized cut, eigenvalues, and the accuracy of the eigensolver.

    Raises
    ------
    InputError
        If an argument cannot be used, the GPU does not exist, or the ratio of weights exceeds the
        range of float64; the message names the argument or the layer.
    MissingExtraError
        If a GPU is requested and CuPy is not installed.

    Source: Shi and Malik (2000); von Luxburg (2007), section 4; Filan et al. (2021),
    algorithm 1.
    """
    on = check_device(device)

    def operator(connected: NeuronGraph, n_threads: int) -> NormalizedAdjacency:
        return operator_of(upload(connected, on) if on else connected, n_threads)

    with on.cuda_stream() if on else nullcontext():
        return clustering.cluster(
            graph,
            k,
            n_init=n_init,
            solver=solver,
            refine=refine,
            seed=seed,
            threads=threads,
            operator=operator,
        )
