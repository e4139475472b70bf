"""The axes of a measurement, in words: statistics, conventions of scale, null models.

Names are what users pass and what reports show; the code that does the work is elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Statistic:
    """A measure of how clusterable a graph is.

    Attributes
    ----------
    title : str
        Its name in tables.
    meaning : str
        Its definition in a sentence.
    low_is_clusterable : bool
        Whether small values mean clusterable (an n-cut), or large ones (a modularity).
    """

    title: str
    meaning: str
    low_is_clusterable: bool


STATISTICS: dict[str, Statistic] = {
    "spectral_ncut": Statistic(
        "n-cut",
        "The normalized cut of the partition that spectral clustering finds: the paper's number.",
        low_is_clusterable=True,
    ),
    "refined_ncut": Statistic(
        "refined n-cut",
        "The normalized cut after moving single vertices while that lowers it, which removes most "
        "of the noise of k-means.",
        low_is_clusterable=True,
    ),
    "lower_bound": Statistic(
        "lower bound",
        "The sum of the k smallest eigenvalues of the normalized Laplacian, minus the solver's "
        "error bound: no partition into k clusters has a smaller n-cut.",
        low_is_clusterable=True,
    ),
    "modularity": Statistic(
        "modularity Q",
        "Newman's modularity of the partition: the share of edge weight inside clusters, minus its "
        "expectation if edges joined vertices in proportion to their degrees.",
        low_is_clusterable=False,
    ),
    "bipartite_modularity": Statistic(
        "bipartite Q",
        "Barber's modularity of the partition: the same, with edges between even and odd layers "
        "only.",
        low_is_clusterable=False,
    ),
    "clusterability": Statistic(
        "share of w²",
        "The share of squared weight inside clusters, averaged over the weight matrices "
        "(arXiv:2502.02470, with the clusters of this partition on both sides).",
        low_is_clusterable=False,
    ),
}
"""Each statistic of a report, by its name there."""


@dataclass(frozen=True, slots=True)
class NullModel:
    """A distribution of random networks without the structure under test.

    Attributes
    ----------
    does : str
        The treatment of the weights, as a noun phrase.
    keeps : str
        The properties of the network that it preserves.
    question : str
        The question that a comparison with such networks answers.
    made_by : str
        The class that makes them, as "module:name".
    """

    does: str
    keeps: str
    question: str
    made_by: str


NULL_MODELS: dict[str, NullModel] = {
    "layer": NullModel(
        "the same weights at random positions in each layer",
        "each layer's weights as a multiset, zeros included",
        "Is the network more clusterable than one with the same weights in random positions?",
        "ncut.nulls.permuted:LayerNull",
    ),
    "layer-nonzero": NullModel(
        "each layer's non-zero weights in random order, its zeros kept in place",
        "each layer's weights as a multiset, and which of them are zero",
        "Do the weights' sizes contribute to the clusters, beyond the positions of the zeros?",
        "ncut.nulls.permuted:LayerNonzeroNull",
    ),
    "layer-nonzero-kde": NullModel(
        "non-zero weights redrawn from each layer's smoothed distribution, its zeros kept in place",
        "each layer's distribution of weights, and which of them are zero",
        "The same as layer-nonzero, and do a few particular weights matter?",
        "ncut.nulls.density:LayerNonzeroKde",
    ),
    "layer-kde": NullModel(
        "non-zero weights redrawn from each layer's smoothed distribution, at random positions",
        "each layer's distribution of weights and its number of zeros",
        "The same as layer, and do a few particular weights matter?",
        "ncut.nulls.density:LayerKde",
    ),
    "strength": NullModel(
        "each layer's weights exchanged between neurons, every neuron's sum of incoming and of "
        "outgoing weights kept but for a weight's spread",
        "each layer's weights as a multiset, which of them are zero, and each neuron's sums of "
        "incoming and outgoing weights, up to a standard deviation of a weight",
        "Do the clusters go beyond some neurons having larger weights than others?",
        "ncut.nulls.strength:Strength",
    ),
    "residual": NullModel(
        "each layer's weights, brought to the same scale in every row and column, exchanged "
        "between neurons",
        "which weights are zero, and of the weights brought to scale their sums for each neuron "
        "and, but for scaling, their multiset",
        "Is there more to the clusters than the scales of neurons, whatever these are?",
        "ncut.nulls.residual:Residual",
    ),
    "alignment": NullModel(
        "each hidden layer's outgoing weights given to other neurons of the layer (with similar "
        "numbers of weights), all brought to the same scale in every row and column",
        "each layer's matrix of weights but for the order of its rows",
        "Do clusters run through the layers, whatever the scales of neurons?",
        "ncut.nulls.alignment:Alignment",
    ),
    "tied": NullModel(
        "the same weights at random positions in each layer, copies of a layer alike",
        "each layer's weights as a multiset, and the equality of copies of a layer",
        "The same as layer, for networks that use a layer's weights more than once.",
        "ncut.nulls.tied:Tied",
    ),
    "init": NullModel(
        "weights drawn from each layer's own distribution at initialization",
        "the sizes of the layers, without their unconnected neurons",
        "Is the network more clusterable than an untrained one?",
        "ncut.nulls.initial:InitialNull",
    ),
}
"""Each null model, by the name to pass as `null`."""

NORMALIZATIONS: dict[str, str] = {
    "none": "weights as they are",
    "l2": "each hidden neuron's incoming weights scaled to a Euclidean norm of 1",
    "l1": "each hidden neuron's incoming weights scaled to a sum of 1",
    "balanced": "each hidden neuron scaled until its incoming and outgoing weights have the same "
    "Euclidean norm",
    "residual": "each row and column of each layer's weights scaled to a mean of 1 over its edges",
}
"""Each convention of scale, by the name to pass as `normalize`; outgoing weights are divided by
the factor that multiplies the incoming ones, so that a ReLU network's function does not change."""
