"""Docstrings for the site, with `Source:` lines as sections and public names as links.

This is an extension of griffe, the source reader of mkdocstrings; `mkdocs.yml` names it.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

import griffe

# The last paragraph of a docstring, which numpydoc would read as an entry of its section.
SOURCE = re.compile(r"\n\nSource: (.*)\Z", re.DOTALL)
PUBLIC_NAME = re.compile(r"(?<!\[)`(ncut\.(\w+))`")


def as_shown(text: str, public: Collection[str]) -> str:
    """A docstring whose source is a section, and whose public names are references."""

    def linked(match: re.Match[str]) -> str:
        whole, name = match.groups()
        return f"[`{whole}`][{whole}]" if name in public else match[0]

    return PUBLIC_NAME.sub(linked, SOURCE.sub(r"\n\nSource\n------\n\1", text))


class Docstrings(griffe.Extension):
    """Rewrites the docstring of each object of the package."""

    def on_object(self, *, obj: griffe.Object, loader: griffe.GriffeLoader, **_: Any) -> None:
        """Once an object has been read."""
        if obj.docstring:
            exported = loader.modules_collection["ncut"].exports or ()
            public = {str(name).strip("'\"") for name in exported}
            obj.docstring.value = as_shown(obj.docstring.value, public)
