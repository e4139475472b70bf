"""Public objects as users see them: their `repr` and the layout of their docstrings."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from itertools import pairwise
from pathlib import Path

import numpy as np

import ncut

PACKAGE = Path(ncut.__file__).parent


def test_no_public_object_shows_itself_by_an_address() -> None:
    rooms = [ncut, *(importlib.import_module(f"ncut.{room}") for room in ("training", "report"))]
    classes = [getattr(room, name) for room in rooms for name in room.__all__]
    classes += [type(ncut.program([np.ones((3, 2))]))]
    plain = [one for one in classes if isinstance(one, type) and one.__repr__ is object.__repr__]
    assert plain == []


def misplaced(docstring: str) -> list[str]:
    """Lines of a NumPy-style docstring outside the columns that their section prescribes."""
    lines = inspect.cleandoc(docstring).splitlines()
    found = [line for line in lines if re.match(r"\w+ -{3,} ", line)]
    section = ""
    for line, below in pairwise([*lines, ""]):
        if below.startswith("---"):
            section = line
        elif section in {"Parameters", "Attributes"} and line:
            indent = len(line) - len(line.lstrip())
            is_entry = re.match(r" +\*{0,2}\w+ : ", line) is not None
            if indent > 8 or indent % 2 or (indent and is_entry):
                found.append(line)
    return found


def test_sections_of_docstrings_are_laid_out() -> None:
    wrong = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found = misplaced(ast.get_docstring(node) or "")
                wrong += [(str(path.relative_to(PACKAGE)), node.name, line) for line in found]
    assert wrong == []


def test_a_misplaced_line_is_found() -> None:
    assert misplaced("One.\n\nNotes ----- All of it.\n") == ["Notes ----- All of it."]
    entries = (
        "One.\n\nParameters\n----------\na : int\n            Deep.\n    b : int\n        B.\n"
    )
    assert misplaced(entries) == ["            Deep.", "    b : int"]
