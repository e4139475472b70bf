"""Tests that are skipped say how to run them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
SAYS_HOW = re.compile(r"\binstalls?\b|\bruns?\b|\bset [A-Z]|\bHOW\b|\bhow\b")


def reasons(source: str) -> Iterator[tuple[int, str]]:
    """Lines and reasons of what may skip a test; an empty reason where there is none."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        if re.fullmatch(r"pytest\.(skip|importorskip|mark\.skip|mark\.skipif)", called):
            named = [one.value for one in node.keywords if one.arg == "reason"]
            plain = node.args if called == "pytest.skip" else []
            yield node.lineno, " ".join(map(ast.unparse, [*named, *plain]))


def test_every_skip_says_how_to_run_the_test() -> None:
    silent = [
        f"{path.relative_to(HERE)}:{line}: {reason}"
        for path in sorted(HERE.rglob("*.py"))
        for line, reason in reasons(path.read_text(encoding="utf-8"))
        if not SAYS_HOW.search(reason)
    ]
    assert silent == []


def test_a_skip_that_does_not_would_be_noticed() -> None:
    source = 'pytest.skip("no GPU")\npytest.importorskip("onnx")\npytest.skip("install it")'
    found = [reason for _, reason in reasons(source)]
    assert [bool(SAYS_HOW.search(reason)) for reason in found] == [False, False, True]
