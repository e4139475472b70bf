"""The peers' steps on the same graphs: assembly, shuffle, embedding, k-means, n-cut.

"shift" is the paper's method: that of scikit-learn's SpectralClustering with ARPACK up to version
1.9.0, with eigenvectors of -L near 1, for which ARPACK factorizes a matrix, and KMeans. "sklearn"
is SpectralClustering of the installed version, with any of its eigensolvers. "scipy" is the best
combination of these parts: eigenvectors for the largest eigenvalues of the normalized adjacency
matrix by ARPACK, without a factorization, and KMeans.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

import ncut


def blocks_as_arrays(graph: ncut.NeuronGraph) -> list[NDArray[Any]]:
    return [
        block.weights if isinstance(block.weights, np.ndarray) else block.weights.toarray()
        for block in graph.blocks
    ]


def assemble(graph: ncut.NeuronGraph, blocks: list[NDArray[Any]]) -> sparse.csr_array:
    """The symmetric adjacency matrix by scipy.sparse, from dense blocks."""
    sizes = [layer.size for layer in graph.layers]
    grid: list[list[Any]] = [[None] * len(sizes) for _ in sizes]
    for i, size in enumerate(sizes):
        grid[i][i] = sparse.coo_array((size, size), dtype=np.float64)
    for block, weights in zip(graph.blocks, blocks, strict=True):
        grid[block.source][block.target] = sparse.coo_array(weights.astype(np.float64))
    upper = sparse.block_array(grid, format="csr")
    adjacency = sparse.csr_array(upper + upper.T)
    kept = np.flatnonzero(adjacency.sum(axis=0) > 0)
    return adjacency if kept.size == adjacency.shape[0] else adjacency[kept][:, kept]


def shuffled(blocks: list[NDArray[Any]], rng: np.random.Generator) -> list[NDArray[Any]]:
    return [rng.permutation(weights.ravel()).reshape(weights.shape) for weights in blocks]


def shift_labels(adjacency: sparse.csr_array, k: int, n_init: int) -> NDArray[Any]:
    return scipy_kmeans(shift_embedding(adjacency, k), k, n_init)


def shift_embedding(adjacency: sparse.csr_array, k: int) -> NDArray[Any]:
    from scipy.sparse import csgraph
    from scipy.sparse.linalg import eigsh

    laplacian, root = csgraph.laplacian(adjacency, normed=True, return_diag=True)
    start = np.random.default_rng(1).uniform(-1, 1, adjacency.shape[0])
    _, vectors = eigsh(sparse.csc_array(-laplacian), k, sigma=1.0, which="LM", v0=start)
    return vectors / root[:, None]


def sklearn_labels(
    adjacency: sparse.csr_array, k: int, n_init: int, eigen_solver: str = "arpack"
) -> NDArray[Any]:
    from sklearn.cluster import SpectralClustering

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return SpectralClustering(
            k, affinity="precomputed", n_init=n_init, eigen_solver=eigen_solver, random_state=1
        ).fit_predict(_for_sklearn(adjacency))


def scipy_labels(adjacency: sparse.csr_array, k: int, n_init: int) -> NDArray[Any]:
    return scipy_kmeans(scipy_embedding(adjacency, k), k, n_init)


def scipy_embedding(adjacency: sparse.csr_array, k: int) -> NDArray[Any]:
    from scipy.sparse.linalg import eigsh

    inverse_root = 1.0 / np.sqrt(np.asarray(adjacency.sum(axis=0)).ravel())
    scale = sparse.diags_array(inverse_root)
    start = np.random.default_rng(1).uniform(-1, 1, adjacency.shape[0])
    _, vectors = eigsh(sparse.csr_array(scale @ adjacency @ scale), k, which="LA", v0=start)
    return vectors * inverse_root[:, None]


def scipy_kmeans(points: NDArray[Any], k: int, n_init: int) -> NDArray[Any]:
    from sklearn.cluster import KMeans

    return KMeans(k, n_init=n_init, random_state=1).fit_predict(points)


def sklearn_embedding(adjacency: sparse.csr_array, k: int) -> NDArray[Any]:
    from sklearn.manifold import spectral_embedding

    return spectral_embedding(
        _for_sklearn(adjacency),
        n_components=k,
        eigen_solver="arpack",
        random_state=1,
        drop_first=False,
    )


def _for_sklearn(adjacency: sparse.csr_array) -> Any:
    """scikit-learn wants 32-bit indices and the older class of matrices."""
    matrix = sparse.csr_matrix(adjacency)
    matrix.indices = matrix.indices.astype(np.int32, copy=False)
    matrix.indptr = matrix.indptr.astype(np.int32, copy=False)
    return matrix
