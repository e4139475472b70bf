"""Checks of arguments; a misspelt name or choice is an error that suggests the closest one."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Iterable
from typing import ParamSpec, TypeVar

from ncut.errors import InputError, UnknownArgumentError

P = ParamSpec("P")
T = TypeVar("T")


def check_flag(value: object, argument: str) -> bool:
    """The flag as a bool; refuse anything but True and False, such as the true text "no"."""
    if isinstance(value, bool) or type(value).__name__ in ("bool", "bool_"):
        return bool(value)
    raise InputError(f"{argument}: must be True or False, got {value!r}")


def check_choice(argument: str, value: object, choices: Iterable[str]) -> str:
    """The value, if it is one of the choices; otherwise an error that suggests the closest one."""
    names = list(choices)
    if isinstance(value, str) and value in names:
        return value
    by_lower_case = {name.lower(): name for name in names}
    typed = value.lower() if isinstance(value, str) else ""
    near = difflib.get_close_matches(typed, by_lower_case, n=1)
    hint = f"; did you mean {by_lower_case[near[0]]!r}?" if near else ""
    raise InputError(f"{argument}: must be one of {', '.join(names)}, got {value!r}{hint}")


def refuse_unknown(names: Iterable[str], known: Iterable[str], function: str) -> None:
    """Raise UnknownArgumentError for the first of `names` that is not among the `known`.

    `function`: the function's name, for the message.
    """
    known = sorted(known)
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known)}"
            raise UnknownArgumentError(f"{name}: {function} has no such argument; {hint}")


def suggests_names(
    *more: str, name: str | None = None
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Decorate a public function so that a misspelt keyword raises UnknownArgumentError.

    `more`: the names that its `**` parameter accepts; `name`: its public name, if different.
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        code = function.__code__
        n_named = code.co_argcount + code.co_kwonlyargcount
        known = {*code.co_varnames[:n_named], *more} - {"self", "cls"}
        shown = name or "ncut." + function.__qualname__.removesuffix(".__init__")

        @functools.wraps(function)
        def checked(*args: P.args, **kwargs: P.kwargs) -> T:
            if not kwargs.keys() <= known:
                refuse_unknown(kwargs, known, shown)
            return function(*args, **kwargs)

        return checked

    return decorate
