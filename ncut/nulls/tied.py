"""The null model that applies one permutation to all copies of a layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ncut.graphs import NeuronGraph
from ncut.nulls.base import BlockRandom, Null, originals, shuffle_key, with_weights
from ncut.nulls.permuted import permuted_everywhere

if TYPE_CHECKING:
    from ncut.types import Block


class Tied(Null):
    """All entries permuted, the copies of a block in the order of the first copy."""

    def notes(self) -> list[str]:
        if not uses_weights_twice(self.graph):
            return ["no layer's weights are used twice, so null='tied' is the same as 'layer'"]
        seen: set[str] = set()
        alone = []
        for position, (block, original) in enumerate(
            zip(self.graph.blocks, originals(self.graph), strict=True)
        ):
            if block.tie in seen and original == position:
                alone.append(block.name)
            if block.tie:
                seen.add(block.tie)
        if not alone:
            return []
        return [
            f"null='tied' shuffles {', '.join(alone)} independently of the weights that they copy: "
            "without isolated neurons their shapes or numbers of zeros differ"
        ]

    def shuffle(self, number: int) -> NeuronGraph:
        graph, key = self.graph, shuffle_key(number)
        copied = originals(graph)
        widest: dict[int, np.dtype[Any]] = {}
        for block, original in zip(graph.blocks, copied, strict=True):
            own = block.weights.dtype
            if own.itemsize > widest.setdefault(original, own).itemsize:
                widest[original] = own
        return with_weights(
            graph,
            [
                _permuted_as(block, widest[original], BlockRandom(self.seed, key, 2 * original))
                for block, original in zip(graph.blocks, copied, strict=True)
            ],
        )


def uses_weights_twice(graph: NeuronGraph) -> bool:
    """Return whether two layers have the same weights."""
    sharing: dict[str, set[str]] = {}
    for block in graph.blocks:
        if block.tie:
            sharing.setdefault(block.tie, set()).add(block.name)
    return any(len(names) > 1 for names in sharing.values())


def _permuted_as(block: Block, dtype: np.dtype[Any], random: BlockRandom) -> Any:
    """All entries in the permutation of the block's original, if this type holds both."""
    weights, within_layer = block.weights, block.source == block.target
    # The distribution of large arrays to pieces depends on the size of an entry.
    if weights.dtype.itemsize < dtype.itemsize:
        weights = weights.astype(dtype)
    if block.tie_transposed:
        weights = _transposed(permuted_everywhere(_transposed(weights), within_layer, random))
    else:
        weights = permuted_everywhere(weights, within_layer, random)
    return weights.astype(block.weights.dtype, copy=False)


def _transposed(matrix: Any) -> Any:
    """The transpose as a block stores it: C-contiguous, or CSR in order."""
    if isinstance(matrix, np.ndarray):
        return np.ascontiguousarray(matrix.T)
    converted = matrix.T.tocsr()
    converted.sort_indices()
    return converted
