"""Scans on clusters whose workers are killed and whose messages are late.

    python tests/fuzz/clusters.py --kills 3

A head and two workers of Dask, and of Ray, run as processes on this machine. In each scan a worker
is killed at a random moment and another one started; the results must be those of one process.
Dask's messages pass through a proxy that holds them up, Ray delays its own. Starting a cluster of
Ray takes half a minute, too long for the suite.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import ncut

LATE_SECONDS = 0.02
"""Longest time by which a message to or from Dask's scheduler is late."""
RAY_LATE = ",".join(
    f"{message}=0:5000"
    for message in (
        "NodeManagerService.grpc_server.RequestWorkerLease",
        "NodeManagerService.grpc_server.ReturnWorkerLease",
        "CoreWorkerService.grpc_server.PushTask",
    )
)
"""Microseconds by which Ray handles messages about tasks late.

All messages late ("*=0:5000") changes their order inside a node, which Ray does not survive: its
raylet ended with "Check failed: it != local_plasma_objects_.end()" (object_manager.cc), and the
program connected to it was aborted.
"""
OPTIONS: dict[str, Any] = {"k": 3, "shuffles": 20}

Kill = Callable[[], None]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def late(port: int) -> int:
    """The port of a proxy in front of another one, which holds up what passes through."""
    server = socket.create_server(("127.0.0.1", 0))
    rng = random.Random(port)

    def pass_on(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                time.sleep(rng.uniform(0, LATE_SECONDS))
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def accept() -> None:
        while True:
            near, _ = server.accept()
            try:
                far = socket.create_connection(("127.0.0.1", port))
            except OSError:
                near.close()
                continue
            for ends in ((near, far), (far, near)):
                threading.Thread(target=pass_on, args=ends, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return int(server.getsockname()[1])


@contextmanager
def dask() -> Iterator[tuple[str, Kill]]:
    """A scheduler and two workers: the address, and a function that kills a worker."""
    import distributed

    port, workers = free_port(), []
    command = [sys.executable, "-m"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    scheduler = subprocess.Popen(
        [*command, "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", str(port),
         "--no-dashboard"], **quiet,
    )  # fmt: skip
    address = f"tcp://127.0.0.1:{late(port)}"

    def start() -> None:
        arguments = ["--nthreads", "1", "--no-nanny", "--no-dashboard"]
        name = "distributed.cli.dask_worker"
        workers.append(subprocess.Popen([*command, name, address, *arguments], **quiet))

    def kill() -> None:
        workers.pop(0).kill()
        start()

    for _ in range(2):
        start()
    try:
        for _ in range(60):
            with contextlib.suppress(OSError):
                with distributed.Client(address, timeout=5, set_as_default=False) as client:
                    client.wait_for_workers(2, timeout=120)
                break
        yield address, kill
    finally:
        for process in (*workers, scheduler):
            process.kill()
            process.wait()


@contextmanager
def ray() -> Iterator[tuple[str, Kill]]:
    """A head and two nodes of one core: the address, and a function that kills a node."""
    os.environ["RAY_testing_asio_delay_us"] = RAY_LATE  # noqa: SIM112 - so Ray spells it
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
    )
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]

    def kill() -> None:
        for raylet in nodes.pop(0).all_processes["raylet"]:
            raylet.process.kill()
        nodes.append(cluster.add_node(num_cpus=1))

    try:
        yield cluster.address, kill
    finally:
        cluster.shutdown()


CLUSTERS = {"dask": dask, "ray": ray}


def run(backend: str, n: int, seed: int = 0) -> dict[str, Any]:
    """Scan on a cluster `n` times, each time with a kill; return the failures."""
    rng = random.Random(seed)
    started = time.monotonic()
    kills, wrong = 0, []
    with tempfile.TemporaryDirectory() as name, CLUSTERS[backend]() as (address, kill):
        models = Path(name) / "models"
        models.mkdir()
        for number in range(3):
            rows = np.random.default_rng(number)
            np.savez(
                models / f"m-{number}.npz", rows.normal(size=(30, 24)), rows.normal(size=(24, 9))
            )
        whole = {path: ncut.analyze(path, **OPTIONS) for path in sorted(models.iterdir())}
        for scan in range(n):
            when, killed = rng.randrange(len(whole) * OPTIONS["shuffles"]), []

            def told(counts: Any, when: int = when, killed: list[int] = killed) -> None:
                if counts.shuffles_done >= when and not killed:
                    killed.append(counts.shuffles_done)
                    kill()

            out = Path(name) / f"out{scan}"
            found = ncut.scan(
                models, out, backend=backend, scheduler=address, progress=told, **OPTIONS
            )
            kills += len(killed)
            wrong += [str(path) for path in whole if found.report(path) != whole[path]]
            wrong += list(found.failed)
    return {"scans": n, "kills": kills, "wrong": wrong, "version": version(
        {"dask": "distributed"}.get(backend, backend)),
        "seconds": round(time.monotonic() - started, 1)}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--kills", type=int, default=3, help="scans with a kill on each cluster (3)"
    )
    parser.add_argument("--clusters", default=",".join(CLUSTERS))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    command = " ".join(["python", "tests/fuzz/clusters.py", *sys.argv[1:]])
    found = {name: run(name, arguments.kills) for name in arguments.clusters.split(",")}
    text = json.dumps({"command": command, "clusters": found, "ncut": version("ncut"),
                       "python": platform.python_version()}, indent=1)  # fmt: skip
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")
    return 1 if any(one["wrong"] for one in found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
