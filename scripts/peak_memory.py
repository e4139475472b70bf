"""Run a command and report its duration and the peak memory of the process tree.

    python scripts/peak_memory.py [--data-limit GIB] -- ncut scan FOLDER --out results

Anonymous memory exists only in these processes; the system may evict mapped files and read them
again. `--data-limit` makes the system refuse a process more anonymous memory (RLIMIT_DATA), so that
finishing is a proof. Linux only.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import time
from pathlib import Path


def family(pid: int) -> list[int]:
    """A process and all processes that it started."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        found += [one for child in task.read_text().split() for one in family(int(child))]
    return found


def memory(pid: int, key: str) -> int:
    """An entry of a process's status, in bytes; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith(key + ":"))


def main() -> None:
    """Run, watch, print JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--data-limit", type=float, help="GiB")
    parser.add_argument("command", nargs="+")
    args = parser.parse_args()

    def limit() -> None:
        if args.data_limit:
            n_bytes = int(args.data_limit * 2**30)
            resource.setrlimit(resource.RLIMIT_DATA, (n_bytes, n_bytes))

    started = time.perf_counter()
    process = subprocess.Popen(args.command, preexec_fn=limit)
    peak = {"RssAnon": 0, "RssFile": 0, "VmRSS": 0}
    while process.poll() is None:
        for key in peak:
            try:
                total = sum(memory(pid, key) for pid in family(process.pid))
            except OSError:
                continue
            peak[key] = max(peak[key], total)
        time.sleep(0.05)
    print(
        json.dumps(
            {
                "exit code": process.returncode,
                "seconds": round(time.perf_counter() - started, 1),
                "peak anonymous memory, GiB": round(peak["RssAnon"] / 2**30, 2),
                "peak of mapped files, GiB": round(peak["RssFile"] / 2**30, 2),
                "peak of both, GiB": round(peak["VmRSS"] / 2**30, 2),
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
