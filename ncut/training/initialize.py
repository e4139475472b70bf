"""clusterable_init_(): weights between neurons of one tag strengthened, others weakened."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ncut.arguments import suggests_names
from ncut.errors import InputError
from ncut.extract.modules import unwrapped
from ncut.extract.references import References, references
from ncut.training.arguments import whole
from ncut.training.parameter_refs import parameter_name, refuse_sharded
from ncut.training.spectrum import check_seed


@torch.no_grad()
@suggests_names()
def clusterable_init_(
    model: nn.Module,
    tags: int = 10,
    beta: float = 0.6,
    *,
    seed: int = 0,
    residual: str | None = None,
    example_inputs: Any = None,
) -> dict[str, NDArray[np.int64]]:
    """Make a freshly initialized network clusterable, in place.

    Every hidden neuron (or channel) gets one of `tags` tags at random; the output neurons get the
    tags in cyclic order from 0. Weights between neurons of the same tag are multiplied by 1 + (1 -
    beta) (tags - 1), all others by beta, which keeps their mean magnitude. Weights from the model's
    inputs do not change. Training then proceeds as usual.

    Parameters
    ----------
    model : torch.nn.Module
        With its initial weights. Biases and batch norms are left alone.
    tags : int, default 10
        Number of tags; by default the paper's.
    beta : float, default 0.6
        Between 0 and 1; by default the paper's for MLPs (0.8 for its CNNs).
    seed : int, default 0
        Seed of the tags.
    residual, example_inputs
        How the model is read; see `ncut.graph`.

    Returns
    -------
    dict from str to ndarray of int64
        The tags of each tagged layer of neurons.

    Raises
    ------
    InputError
        If an argument is out of range, or the network has no weights between two layers other than
        its input.

    Source: Filan et al. (2021), Clusterability in Neural Networks, section 4.2; the exclusion of
    the first layer's weights and the tags of outputs follow its authors' code.

    Examples
    --------
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(8, 20), nn.ReLU(), nn.Linear(20, 4))
    >>> clusterable_init_(model, tags=4)["output"]
    array([0, 1, 2, 3])
    """
    tags, seed = whole("tags", tags, 1), check_seed(seed)
    if not isinstance(beta, int | float | np.integer | np.floating) or not 0 < beta <= 1:
        raise InputError(f"beta: must be above 0 and at most 1, got {beta!r}")
    if not isinstance(model, nn.Module):
        raise InputError(f"model: must be a torch.nn.Module, got {type(model).__name__}")
    inner = unwrapped(model)
    refuse_sharded(inner)
    places = references(inner, scope="all", residual=residual, example_inputs=example_inputs)
    given = _tagged(places, tags, np.random.default_rng(seed))
    labels = [given.get(position, np.full(size, -1)) for position, size in enumerate(places.sizes)]
    changes = [
        (inner.get_parameter(parameter_name(inner, *key)), marks)
        for key, marks in places.marks(np.concatenate(labels)).items()
        if (marks.between | marks.inside).any()
    ]
    if not changes:
        raise InputError("model: has no weights between two layers that are both not its input")
    for weight, marks in changes:
        factors = np.where(marks.between, beta, 1.0)
        factors[marks.inside] = 1 + (1 - beta) * (tags - 1)
        weight.mul_(torch.from_numpy(factors).to(weight))
    return {places.names[position]: found for position, found in given.items()}


def _tagged(
    places: References, tags: int, random: np.random.Generator
) -> dict[int, NDArray[np.int64]]:
    """Tags of all layers written by weights: in order for layers without readers."""
    read = {join.source for join in places.joins}
    return {
        position: random.integers(tags, size=places.sizes[position])
        if position in read
        else np.arange(places.sizes[position]) % tags
        for position in sorted({join.target for join in places.joins})
    }
