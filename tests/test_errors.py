"""Errors are ncut's own and the built-in ones that callers expect."""

from __future__ import annotations

import json

import pytest

import ncut
from ncut.errors import import_extra


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (ncut.InputError, ValueError),
        (ncut.ModelError, ValueError),
        (ncut.MissingExtraError, ImportError),
    ],
)
def test_errors_can_be_caught_either_way(error: type[Exception], builtin: type[Exception]) -> None:
    assert issubclass(error, ncut.NcutError)
    assert issubclass(error, builtin)


def test_an_extra_that_is_there_is_imported() -> None:
    assert import_extra("json", "plot") is json


def test_a_missing_extra_is_named_with_the_command() -> None:
    with pytest.raises(ncut.MissingExtraError, match=r"'no_such_package'.*ncut\[plot\]"):
        import_extra("no_such_package.pyplot", "plot")
