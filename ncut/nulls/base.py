"""Base classes of null models, which make shuffled networks of one graph by number."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ncut.graphs import NeuronGraph
from ncut.graphs.scratch import in_scratch_file
from ncut.randomness import Purpose, random_stream

if TYPE_CHECKING:
    from ncut.types import Block


class Null(ABC):
    """A null model of one graph without isolated vertices, for one seed.

    A subclass in a separate file and an entry in `ncut.axes.NULL_MODELS` define a null model.

    Attributes
    ----------
    normalize : str
        The convention of scale in which its networks are made and measured; empty for any.
    """

    normalize: ClassVar[str] = ""

    def __init__(self, graph: NeuronGraph, seed: int) -> None:
        self.graph, self.seed = graph, seed

    @staticmethod
    def check(graph: NeuronGraph) -> None:
        """Refuse a graph that lacks information required by the null model."""
        del graph

    def notes(self) -> list[str]:
        """Sentences on the null model's limits for this graph."""
        return []

    @abstractmethod
    def shuffle(self, number: int) -> NeuronGraph:
        """Shuffled network `number`, from 0; independent of the order of calls and threads."""

    def orders(self, number: int) -> Mapping[int, NDArray[np.intp]] | None:
        """The order of layers' outgoing rows in shuffled network `number`.

        Returns
        -------
        mapping of int to ndarray, or None
            By position of the layer; missing layers keep their order. None if shuffled networks are
            not reorderings of the network's rows.
        """
        del number
        return None

    def connected(self, number: int, normalize: str) -> NeuronGraph:
        """The same under a convention of scale, or the null model's own, without isolated ones."""
        shuffled = self.shuffle(number)
        in_scale = shuffled if self.normalize else shuffled.normalized(normalize)
        return in_scale.without_isolated()[0]


class BlockRandom:
    """The two substreams of one block: for the positions of its weights, and for their values."""

    def __init__(self, seed: int, key: int, substream: int) -> None:
        self.places = (seed, key, substream)
        self.values = (seed, key, substream + 1)


class BlockwiseNull(Null):
    """A null model that shuffles each block independently.

    Blocks made from the same layer's weights are shuffled in the same way as the layer.
    """

    @abstractmethod
    def shuffled(self, block: Block, random: BlockRandom) -> Any:
        """One block's weights, shuffled with the block's random numbers."""

    def shuffle(self, number: int) -> NeuronGraph:
        key = shuffle_key(number)
        return with_weights(
            self.graph,
            [
                self.shuffled(block, BlockRandom(self.seed, key, substream))
                for block, substream in zip(self.graph.blocks, substreams(self.graph), strict=True)
            ],
        )


def shuffle_key(number: int) -> int:
    """The random stream of shuffle `number`."""
    return random_stream(Purpose.SHUFFLE, number + 1)


def with_weights(graph: NeuronGraph, weights: list[Any]) -> NeuronGraph:
    """The graph with other weights in its blocks, in the blocks' order."""
    blocks = zip(graph.blocks, weights, strict=True)
    return replace(
        graph,
        blocks=tuple(
            replace(block, weights=in_scratch_file(w, graph.scratch)) for block, w in blocks
        ),
    )


def substreams(graph: NeuronGraph) -> list[int]:
    """The first of the two substreams of random numbers of each block."""
    return [2 * original for original in originals(graph, within_layer=True)]


def originals(graph: NeuronGraph, *, within_layer: bool = False) -> list[int]:
    """The position of each block's original, or the block's position if it is no copy.

    `within_layer`: only originals in the same layer count, not in a layer that shares weights.
    """
    firsts: dict[Any, int] = {}
    found = []
    for position, block in enumerate(graph.blocks):
        if not block.tie:
            found.append(position)
            continue
        shape = block.weights.shape[::-1] if block.tie_transposed else block.weights.shape
        # One permutation fits all copies with the same number of stored entries.
        n_stored = getattr(block.weights, "nnz", None)
        layer = block.name if within_layer else ""
        found.append(firsts.setdefault((block.tie, layer, shape, n_stored), position))
    return found
