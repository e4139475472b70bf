"""The compiled core called with wrong arguments: python tests/fuzz/core.py --calls 20000

Each call starts as a valid one, and one to three of its arguments are spoiled. It must return, or
raise TypeError, ValueError, OverflowError or IndexError; a process that dies, another exception and
a write outside of an array are findings. Values of indptr, indices and parents are trusted by the
core, which the graphs check once, and stay as they are. Run with the core of `make core-sanitize`
in NCUT_CORE, it is under AddressSanitizer and UndefinedBehaviorSanitizer.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import random
import resource
import sys
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "kernels")]
from kernel_calls import KERNELS  # noqa: E402

if path := os.environ.get("NCUT_CORE"):
    found = importlib.util.spec_from_file_location("_core", path)
    assert found is not None
    assert found.loader is not None
    core = importlib.util.module_from_spec(found)
    found.loader.exec_module(core)
else:
    core = __import__("ncut._core", fromlist=["_core"])

BATCH = 500
EXPECTED = (TypeError, ValueError, OverflowError, IndexError)
TRUSTED = {"indptr", "indices", "block_indices", "parent", "cursor"}
NUMBERS = (0, 1, -1, 2, 15, 16, 17, 2**31 - 1, 2**31, -(2**31), 2**62, 2**63, 2**64, None, 1.5, "1")
FLOATS = (0.0, -1.0, float("nan"), float("inf"), 1e308, 5e-324, None, "x", 10**400)
ROUNDS = {"n_init", "max_iterations", "max_products", "max_passes"}  # as many as are asked for
DTYPES = ("f2", "f4", "f8", "i4", "i8", "u2", "c16", "O", "S4", "?", ">f4", ">i8")


def spoiled(name: str, value: Any, others: list[Any], rng: random.Random) -> Any:
    """A wrong value for an argument."""
    if isinstance(value, np.ndarray):
        return spoiled_array(name, value, others, rng)
    if isinstance(value, list):
        kind = rng.randrange(4)
        if kind == 0 or not value:
            return rng.choice((None, [], value * 2, tuple(value), [None], [()], [(1, 2, 3)], "x"))
        if not isinstance(value[0], tuple):
            return [spoiled_array(name, value[0], others, rng)]
        block, row, col = value[0]
        if kind == 1:
            return [(spoiled_array(name, block, others, rng), row, col)]
        return [(block, *rng.choice(((rng.choice(NUMBERS), col), (row, rng.choice(NUMBERS)))))]
    if isinstance(value, float):
        return rng.choice(FLOATS)
    if name in ROUNDS or name == "n_threads":
        return rng.choice((0, -1, 3, 64, None, "1", 2**64))
    return rng.choice(NUMBERS)


def spoiled_array(name: str, value: Any, others: list[Any], rng: random.Random) -> Any:
    """An array of another type, shape, order, alignment or owner, or other values in it."""
    kind = rng.randrange(11)
    if kind == 0:
        with np.errstate(invalid="ignore"):
            return value.astype(rng.choice(DTYPES))
    if kind == 1:
        return rng.choice((value[..., ::-1], np.repeat(value, 2, axis=-1)[..., ::2], value.T))
    if kind == 2:
        return np.asfortranarray(value)
    if kind == 3:
        value = value.copy()
        value.flags.writeable = False
        return value
    if kind == 4:
        shapes = ((), (0,), (0, 0), (0, 16), (1,), (5, 0), (3, 3, 3), (16, 16), (1,) * 20, (7, 16))
        return np.zeros(rng.choice(shapes), value.dtype)
    if kind == 5:
        return value[:-1].copy() if rng.random() < 0.5 else np.concatenate([value, value])
    if kind == 6:
        odd = np.zeros(value.nbytes + 1, np.uint8)[1:].view(value.dtype).reshape(value.shape)
        odd[...] = value
        return odd
    if kind == 7:
        same = [o for o in others if isinstance(o, np.ndarray) and o.dtype == value.dtype]
        return rng.choice(same)
    if kind == 8:
        return np.broadcast_to(value.ravel()[:1], rng.choice((value.shape, (2**20, 2**20))))
    if kind == 9:
        return rng.choice((None, 1, "x", value.tolist(), memoryview(value), np.ma.array(value)))
    if name in TRUSTED or not value.size:
        return value
    value = value.copy()
    bad = (
        (np.nan, np.inf, -np.inf, -1, 0, 6e4)
        if value.dtype.kind == "f"
        else (-1, -2, 3, 11, 10**6, -(2**31), 2**31 - 1)
    )
    with contextlib.suppress(OverflowError):  # bits of bfloat16
        value.ravel()[rng.randrange(value.size)] = rng.choice(bad)
    return value


def call(number: int) -> tuple[str, str]:
    """Make a call; the kernel, and what came."""
    rng = random.Random(number)
    kernel = rng.choice(list(KERNELS))
    arguments = KERNELS[kernel][0]()
    for name in rng.choices(list(arguments), k=rng.choice((0, 1, 1, 1, 2, 3))):
        with contextlib.suppress(MemoryError, *EXPECTED, AttributeError):  # spoiled already
            arguments[name] = spoiled(name, arguments[name], list(arguments.values()), rng)
    try:
        getattr(core, kernel)(**arguments)
    except EXPECTED as error:
        return kernel, type(error).__name__
    except BaseException as error:
        return kernel, f"raised {type(error).__name__}: {str(error)[:80]}"
    return kernel, "returned"


def run(n: int, first: int = 0) -> dict[str, Any]:
    """Make calls `first` to `first + n`; how many of each outcome, and the findings."""
    outcomes: Counter[str] = Counter()
    findings: dict[str, dict[str, int]] = {}

    def take(number: int, kernel: str, what: str) -> None:
        outcomes[what.split(":")[0]] += 1
        if what != "returned" and what not in {error.__name__ for error in EXPECTED}:
            known = findings.setdefault(f"{kernel}: {what}", {"first": number, "times": 0})
            known["times"] += 1

    at = first
    while at < first + n:
        numbers = range(at, min(at + BATCH, first + n))
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                _in_child(numbers, writer)
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(99)
        os.close(writer)
        begun = numbers.start
        with os.fdopen(reader) as lines:
            for text in lines:
                line = json.loads(text)
                if isinstance(line, int):
                    begun = line
                else:
                    take(*line)
        status = os.waitpid(child, 0)[1]
        at = numbers.stop
        if status:
            take(begun, "?", f"died, status {status}")
            at = begun + 1
    return {"calls": n, "first": first, "outcomes": dict(outcomes), "findings": findings}


def _in_child(numbers: range, writer: int) -> None:
    if "ASAN_OPTIONS" not in os.environ:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + (2 << 30)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    with os.fdopen(writer, "w") as lines:
        for number in numbers:
            print(number, file=lines, flush=True)
            print(json.dumps([number, *call(number)]), file=lines, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--first", type=int, default=0)
    arguments = parser.parse_args()
    found = run(arguments.calls, arguments.first)
    print(json.dumps(found, indent=1))
    return 1 if found["findings"] else 0


if __name__ == "__main__":
    sys.exit(main())
