"""Progress of long work: a bar, a callback, or nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from ncut.errors import InputError, import_extra

ProgressCallback: TypeAlias = Callable[[int, int], None]
"""A function of (done, total)."""

Progress: TypeAlias = bool | ProgressCallback
"""The argument `progress`: True for a bar, or a function."""


def check_progress(progress: object) -> None:
    """Raise the errors of `progress_callback` before the long work.

    Raises
    ------
    InputError
        If `progress` is neither a bool, nor a function, nor None.
    MissingExtraError
        If a bar is requested and tqdm is not installed.
    """
    if progress is True:
        import_extra("tqdm.auto", "notebook")
    elif progress is not None and progress is not False and not callable(progress):
        raise InputError(f"progress: must be True or a function of (done, total), got {progress!r}")


@contextmanager
def progress_callback(progress: Progress | None, name: str) -> Iterator[ProgressCallback | None]:
    """A function (done, total) that reports progress, inside a `with` block.

    Parameters
    ----------
    progress : bool, callable or None
        A value that `check_progress` accepts. True: a tqdm bar, in notebooks and terminals, closed
        at the end of the block in any case. A callable is returned unchanged. None and False:
        nothing.
    name : str
        The label before the bar.
    """
    check_progress(progress)
    if progress is not True:
        yield progress or None
        return
    with import_extra("tqdm.auto", "notebook").tqdm(desc=name) as bar:

        def show(done: int, total: int) -> None:
            if bar.total != total:
                started = bar.start_t
                bar.reset(total)
                bar.start_t = started
            bar.update(done - bar.n)

        yield show
        # Work that ends early, as with shuffles="auto", is still complete.
        bar.total = bar.n
        bar.refresh()
