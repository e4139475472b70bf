"""The null models that redraw non-zero weights from their smoothed distribution."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ncut import kernels
from ncut.nulls.base import BlockRandom, BlockwiseNull
from ncut.nulls.permuted import permuted_everywhere, with_nonzeros

if TYPE_CHECKING:
    from ncut.types import Block

KDE_BANDWIDTH = 0.01


class LayerNonzeroKde(BlockwiseNull):
    """Non-zero entries drawn from a Gaussian kernel density estimate of the block's, in place."""

    def shuffled(self, block: Block, random: BlockRandom) -> Any:
        return self._drawn(block.weights, random)

    def _drawn(self, weights: Any, random: BlockRandom) -> Any:
        bandwidth = float(np.ldexp(KDE_BANDWIDTH, -self.graph.exponent))  # in the weights' unit

        def drawn(values: NDArray[np.floating]) -> NDArray[np.floating]:
            new = np.empty_like(values)
            kernels.draw_kde(values, bandwidth, new, *random.values)
            return new

        return with_nonzeros(weights, drawn, narrow=False)


class LayerKde(LayerNonzeroKde):
    """The same after all entries were permuted."""

    def shuffled(self, block: Block, random: BlockRandom) -> Any:
        within_layer = block.source == block.target
        return self._drawn(permuted_everywhere(block.weights, within_layer, random), random)
