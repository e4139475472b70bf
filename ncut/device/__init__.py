"""Graphs, eigenvectors, k-means, cuts and shuffles on a GPU, written for any array namespace."""
