"""Spectral clustering: normalized adjacency, eigensolvers, k-means, the normalized cut."""

from ncut.spectral.clustering import cluster
from ncut.spectral.cut import normalized_cut
from ncut.spectral.measures import PartitionMeasures, partition_measures

__all__ = ["PartitionMeasures", "cluster", "normalized_cut", "partition_measures"]
