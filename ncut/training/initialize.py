"""clusterable_init_(): weights between neurons of one tag strengthened, others weakened."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ncut.arguments import suggests_names
from ncut.errors import InputError
from ncut.extract.assembly.layout import Edges
from ncut.extract.lowering.signal import NOTHING
from ncut.training.live_graph import Planned
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
    >>> from torch import Tensor, nn
    >>> model = nn.Sequential(nn.Linear(8, 20), nn.ReLU(), nn.Linear(20, 4))
    >>> clusterable_init_(model, tags=4)["output"]
    array([0, 1, 2, 3])
    """
    if isinstance(tags, bool) or not isinstance(tags, int | np.integer) or tags < 1:
        raise InputError(f"tags: must be a whole number of at least 1, got {tags!r}")
    seed = check_seed(seed)
    if not isinstance(beta, int | float | np.integer | np.floating) or not 0 < beta <= 1:
        raise InputError(f"beta: must be above 0 and at most 1, got {beta!r}")
    planned = Planned(model, scope="all", residual=residual, example_inputs=example_inputs)
    given = _tagged(planned, tags, np.random.default_rng(seed))
    changes: dict[tuple[Any, ...], tuple[Tensor, NDArray[np.float64]]] = {}
    for number, edges in enumerate(planned.layout.edges):
        if edges.source not in given:
            continue
        view = planned.view(number)
        weight = None if view is None else view.writable()
        if view is None or weight is None:
            raise InputError(
                f"model: the weights of {edges.operation.name!r} are not a parameter, so they "
                "cannot be changed; call this before setting up weight norm or a parametrization"
            )
        # A weight that several layers share is changed once.
        key = (id(view.source.parameter()), view.offset, view.shape)
        factors = changes.setdefault(key, (weight, np.full(view.shape[:2], np.nan)))[1]
        inputs, outputs = _tags_of(edges, given)
        if edges.operation.kind == "conv":
            _, n_inputs = factors.shape
            group = np.arange(len(outputs)) // (len(outputs) // edges.operation.groups)
            reads = inputs[group[:, None] * n_inputs + np.arange(n_inputs)]
            _set(factors, reads, outputs[:, None], tags, beta)
        else:
            _set(factors, inputs[:, None], outputs[None, :], tags, beta)
    if not changes:
        raise InputError("model: has no weights between two layers that are both not its input")
    for weight, factors in changes.values():
        known = torch.as_tensor(np.nan_to_num(factors, nan=1.0)).to(weight)
        weight.mul_(known.reshape(*known.shape, *(1,) * (weight.ndim - 2)))
    return {planned.layout.layers[position].name: found for position, found in given.items()}


def _tagged(
    planned: Planned, tags: int, random: np.random.Generator
) -> dict[int, NDArray[np.int64]]:
    """Tags of all layers written by weights: in order for layers without readers."""
    edges = planned.layout.edges
    read = {each.source for each in edges}
    found = {}
    for position in sorted({each.target for each in edges}):
        size = planned.layout.layers[position].size
        found[position] = (
            random.integers(tags, size=size) if position in read else np.arange(size) % tags
        )
    return found


def _tags_of(
    edges: Edges, given: dict[int, NDArray[np.int64]]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The tags of an operation's inputs and outputs; NOTHING for neurons outside these layers."""
    source, target = given[edges.source], given[edges.target]
    inputs = source if edges.places is None else _at(source, edges.places[:, 0])
    assert edges.operation.writes is not None
    outputs = np.full(edges.operation.writes.size, NOTHING)
    for units in edges.units.T:
        used = units != NOTHING
        outputs[units[used]] = target[used]
    return inputs, outputs


def _at(tags: NDArray[np.int64], places: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.where(places >= 0, tags[np.maximum(places, 0)], NOTHING)


def _set(
    factors: NDArray[np.float64],
    inputs: NDArray[np.int64],
    outputs: NDArray[np.int64],
    tags: int,
    beta: float,
) -> None:
    """Set the factors of the weights between tagged neurons, unless they are set already."""
    both = (inputs != NOTHING) & (outputs != NOTHING) & np.isnan(factors)
    chosen = np.where(inputs == outputs, 1 + (1 - beta) * (tags - 1), beta)
    factors[both] = chosen[both]
