#!/usr/bin/env python3
"""Compile a file, or copy the object that the same code and flags gave before: COMPILER ARGUMENTS.

The Makefile names it as CMake's launcher of compilers: the installation, the benchmark's build and
the wheel of the tests compile the same files. An object is kept in build/compiled under a digest of
the compiler, the flags that change code and the preprocessed source.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

KEPT = Path(__file__).resolve().parents[1] / "build" / "compiled"
WITH_VALUE = ("-MT", "-MF", "-isystem", "-I", "-D")


def code_flags(arguments: list[str]) -> list[str]:
    """Arguments that change the object beyond what preprocessing shows."""
    found, following = [], iter(arguments)
    for one in following:
        if one in WITH_VALUE:
            next(following, None)
        elif not one.startswith(("-I", "-D", "-W", "-M")):
            found.append(one)
    return found


def main(command: list[str]) -> int:
    compiler, *arguments = command
    # Debugging information has line numbers, which the digest does not.
    if "-c" not in arguments or "-o" not in arguments or any(a.startswith("-g") for a in arguments):
        return subprocess.call(command)
    at = arguments.index("-o")
    target = Path(arguments[at + 1])
    rest = arguments[:at] + arguments[at + 2 :]
    source = rest.pop(rest.index("-c") + 1)
    rest.remove("-c")
    # It writes the list of headers too, where one is asked for.
    shown = subprocess.run([compiler, *rest, "-E", "-P", source], stdout=subprocess.PIPE)
    if shown.returncode:
        return shown.returncode
    version = subprocess.run([compiler, "--version"], stdout=subprocess.PIPE, check=True).stdout
    digest = hashlib.sha256(b"\0".join([version, shown.stdout, *map(str.encode, code_flags(rest))]))
    name = f"{Path(compiler).name}-{digest.hexdigest()}"
    strict = "-Werror" in rest
    # An object without warnings will do where warnings are no errors, but not the reverse.
    for kept in (KEPT / f"{name}-strict.o", KEPT / f"{name}.o")[: 1 if strict else 2]:
        if kept.is_file():
            shutil.copyfile(kept, target)
            return 0
    if code := subprocess.call(command):
        return code
    KEPT.mkdir(parents=True, exist_ok=True)
    part = KEPT / f"{name}.{os.getpid()}"
    shutil.copyfile(target, part)
    part.replace(KEPT / (f"{name}-strict.o" if strict else f"{name}.o"))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
