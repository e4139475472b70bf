"""Spectral clustering: normalized adjacency, eigensolvers, k-means, the normalized cut."""

from ncut.spectral.clustering import cluster
from ncut.spectral.cut import normalized_cut

__all__ = ["cluster", "normalized_cut"]
