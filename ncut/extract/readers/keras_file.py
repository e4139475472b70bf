"""Reads files of Keras models and weights as programs, without Keras."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ncut.errors import ModelError
from ncut.extract.program.record import Lower, Made, Program
from ncut.extract.readers.keras.config import Model, parsed
from ncut.extract.readers.keras.following import OPEN_SIZES, Following
from ncut.extract.readers.keras.storage import Content, opened
from ncut.extract.readers.keras.weights import Layout, layout_of
from ncut.extract.readers.keras.weights_only import read_weights
from ncut.files import reading

Shapes = dict[str, tuple[int, ...]]


def read_keras(
    path: Path,
    lower: Lower[Made],
    *,
    unknown: str = "error",
    layers: Sequence[str] | None = None,
) -> tuple[Made, Shapes]:
    """Follow the forward pass of a saved sequential or functional Keras model.

    Nothing in the file is executed. A weights-only file is read as a chain.

    Parameters
    ----------
    path : Path
        A `.keras` archive, or an HDF5 file of a whole model or of weights, in the formats of
        Keras 2 and 3.
    lower : callable
        Gets the program; its result is returned. Its errors show that guessed sizes do not fit.
    unknown : {"error", "elementwise"}
        Treatment of layers without a rule: custom classes, and `Lambda` layers, whose code is
        never run.
    layers : sequence of str, optional
        Names of layers (or paths of kernels) in the file, in the order of a chain; the model's
        configuration is then ignored.

    Returns
    -------
    made
        What `lower` returned.
    parameters : dict from str to tuple of int
        Shapes of all of the model's variables.

    Raises
    ------
    ModelError
        If the file is damaged or hostile, its model's forward pass is not stored, it has an
        unknown layer, or its weights form no chain.
    InputError
        If `layers` has a name that is not in the file.
    """
    with reading(path, "a Keras model (HDF5 or zip)"), opened(path) as content:
        if content.config is None or layers is not None:
            program, shapes = read_weights(content, layers)
            return lower(program), shapes
        layout = layout_of(content.tree)
        if layout is None:
            raise ModelError("holds no weights")
        return read_model(content, layout, lower, unknown)


def read_model(
    content: Content, layout: Layout, lower: Lower[Made], unknown: str
) -> tuple[Made, Shapes]:
    """Follow the forward pass of a configuration, with arrays located by a layout."""
    model = parsed(content.config)
    guess = unknown == "elementwise"
    failure: ModelError | None = None
    for open_size in OPEN_SIZES:
        try:
            program, shapes = _followed(model, layout, guess, open_size)
            return lower(program), shapes
        except ModelError as error:
            # The sizes tried for open axes may be too small.
            failure = failure or error
            if "too small" not in str(error):
                break
    assert failure is not None
    raise failure


def _followed(model: Model, layout: Layout, guess: bool, open_size: int) -> tuple[Program, Shapes]:
    program = Program(named=True)
    following = Following(program, layout, guess=guess, open_size=open_size)
    for number, value in enumerate(following.whole(model)):
        program.output(value, "output" if number == 0 else f"output {number}")
    unread = {
        name: shape for name, shape in layout.everything().items() if name not in following.touched
    }
    return program, {**following.shapes, **unread}
