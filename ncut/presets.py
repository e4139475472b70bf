"""What the public codes measure, as settings of `analyze`. docs/presets.md has the details."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ncut.errors import InputError


@dataclass(frozen=True, slots=True)
class Preset:
    """Settings that an analysis has where the caller gives none.

    Attributes
    ----------
    k : int
        Number of clusters.
    shuffles : int
        Number of shuffled networks.
    null : str
        Null model.
    normalize : str
        Convention of scale.
    n_init : int or "auto"
        Restarts of k-means.
    """

    k: int
    shuffles: int
    null: str
    normalize: str
    n_init: int | Literal["auto"]


PRESETS: dict[str, Preset] = {
    "filan2021": Preset(k=12, shuffles=50, null="layer", normalize="none", n_init="auto"),
    "hcai-torch": Preset(k=4, shuffles=100, null="layer", normalize="l2", n_init="auto"),
}
"""Each preset by its name."""


def find_preset(name: str) -> Preset:
    """The preset of this name.

    Raises
    ------
    InputError
        If there is none.
    """
    if not isinstance(name, str) or name not in PRESETS:
        raise InputError(f"preset: must be one of {', '.join(PRESETS)}, got {name!r}")
    return PRESETS[name]
