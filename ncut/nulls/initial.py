"""The null model that draws weights from their distribution at initialization."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from ncut import kernels
from ncut.errors import InputError
from ncut.graphs import NeuronGraph
from ncut.nulls.base import BlockRandom, BlockwiseNull
from ncut.types import Block


class InitialNull(BlockwiseNull):
    """Weights drawn from each block's distribution at initialization."""

    @staticmethod
    def check(graph: NeuronGraph) -> None:
        unknown = [block.name for block in graph.blocks if block.initial is None]
        if unknown:
            raise InputError(
                "null: 'init' needs torch modules with reset_parameters(), read with initial=True; "
                f"the initialization of {', '.join(map(repr, unknown))} is unknown"
            )

    def shuffled(self, block: Block, random: BlockRandom) -> Any:
        initial, weights = block.initial, block.weights
        assert initial is not None  # check
        sample = np.ascontiguousarray(initial.sample)
        if initial.everywhere:
            drawn = np.empty(weights.shape, dtype=sample.dtype)
            kernels.draw_kde(sample, 0.0, drawn.reshape(-1), *random.values)
            within_layer = block.source == block.target
            return sparse.csr_array(np.triu(drawn, k=1)) if within_layer else drawn
        drawn = np.empty(
            weights.nnz if hasattr(weights, "nnz") else (weights != 0).sum(), sample.dtype
        )
        kernels.draw_kde(sample, 0.0, drawn, *random.values)
        if isinstance(weights, np.ndarray):
            changed = np.zeros(weights.shape, dtype=sample.dtype)
            changed[weights != 0] = drawn
            return changed
        return type(weights)((drawn, weights.indices, weights.indptr), shape=weights.shape)
