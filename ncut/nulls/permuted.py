"""The null models that permute the weights within each block."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ncut import kernels
from ncut.nulls.base import BlockRandom, BlockwiseNull

if TYPE_CHECKING:
    from ncut.types import Block


class LayerNull(BlockwiseNull):
    """All entries of each block permuted, zeros included."""

    def shuffled(self, block: Block, random: BlockRandom) -> Any:
        return permuted_everywhere(block.weights, block.source == block.target, random)


class LayerNonzeroNull(BlockwiseNull):
    """The non-zero entries of each block permuted among their positions."""

    def shuffled(self, block: Block, random: BlockRandom) -> Any:
        return with_nonzeros(
            block.weights,
            lambda values: kernels.permuted(values, *random.values),
            narrow=True,
        )


def permuted_everywhere(weights: Any, within_layer: bool, random: BlockRandom) -> Any:
    if isinstance(weights, np.ndarray):
        return kernels.permuted(weights, *random.places)
    indptr, indices = kernels.random_pattern(weights, within_layer, *random.places)
    data = kernels.permuted(weights.data, *random.values)
    return type(weights)((data, indices, indptr), shape=weights.shape)


def with_nonzeros(weights: Any, new: Any, *, narrow: bool) -> Any:
    """The same topology with other non-zero values; `new` maps the old to the new, shape (m,).

    narrow: whether new values of 16-bit weights fit into 16 bits.
    """
    if isinstance(weights, np.ndarray):
        wide = weights.itemsize == 2 and not narrow
        changed = weights.astype(np.float32) if wide else weights.copy()
        nonzero = changed != 0
        changed[nonzero] = new(changed[nonzero])
        return changed
    return type(weights)((new(weights.data), weights.indices, weights.indptr), shape=weights.shape)
