"""The graph that the paper makes of a network, and its analysis."""

from __future__ import annotations

from typing import Any

from torch import nn

import ncut.analysis
from ncut.paper.networks import without_batch_norm
from ncut.paper.recipes import Recipe
from ncut.paper.records import Analysis
from ncut.report import Report
from ncut.types import KernelNorm


def kernel_norm(procedure: str) -> KernelNorm:
    """The norm that makes a convolution kernel one edge weight.

    The text takes the sum of its magnitudes. The code takes the induced 1-norm of the kernel as a
    matrix: its largest column sum.
    """
    return "l1" if procedure == "text" else "column-sum"


def graph_options(recipe: Recipe) -> dict[str, Any]:
    """The options for the graph of a trained network."""
    if not recipe.architecture.is_convolutional:
        return {}
    return {"norm": kernel_norm(recipe.procedure)}


def measured(model: nn.Sequential, recipe: Recipe, analysis: Analysis, seed: int) -> Report:
    """The report on a network, as its table measures it, on one thread."""
    model.eval()
    # A mistake in the authors' code kept batch norm out of the graphs of their CIFAR-10 networks.
    if recipe.network == "vgg" and recipe.follows_authors:
        model = without_batch_norm(model)
    return ncut.analysis.analyze(
        model,
        k=analysis.k,
        shuffles=analysis.shuffles,
        null=analysis.null,
        normalize=analysis.normalize,
        seed=seed,
        threads=1,
        tests="none",  # no table shows them, and they cost as much as the 50 shuffles
        name=recipe.slug().rsplit("-", 1)[0],
        **graph_options(recipe),
    )
