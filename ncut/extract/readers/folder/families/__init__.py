"""Forward passes of transformer families, by `model_type`."""

from __future__ import annotations

from collections.abc import Callable

from ncut.extract.readers.folder.blocks import Network
from ncut.extract.readers.folder.families import (
    circuits,
    decoders,
    encoder_decoders,
    encoders,
    images,
)

FAMILIES: dict[str, Callable[[Network], None]] = {
    **encoders.FAMILIES,
    **decoders.FAMILIES,
    **encoder_decoders.FAMILIES,
    **images.FAMILIES,
    **circuits.FAMILIES,
}
