"""Tasks on a cluster of Ray, through a process that alone talks to it.

Ray's library aborts its process when the node that it is connected to fails, and its calls wait
forever for a head that does not answer. A process of its own keeps both from the user's program.
"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

from ncut.errors import InputError, import_extra
from ncut.scans.tasks import Task, TaskResult, measure

AHEAD = 2
"""Tasks submitted per core: one in progress, and one waiting."""

RETRIES = 3
"""Attempts at a task whose worker died, after the first."""

SILENCE_SECONDS = 120
"""Seconds without a word from Ray's process, or without a core, after which a scan ends."""

CONNECT_SECONDS = 120
"""Seconds in which Ray's process must have connected, or started a cluster."""

BEAT_SECONDS = 2
"""Longest time between two words of Ray's process, unless Ray keeps it waiting."""

KEPT = "finished shuffles are kept: scan again to go on"

CODE = "import sys; from ncut.scans.on_ray import drive; drive(*sys.argv[1:])"


class GaveUpError(Exception):
    """Ray gave up on a task."""


class RayCluster:
    """A connection to a cluster of Ray, or to a new one on this machine without an address.

    Raises
    ------
    InputError
        If the address does not answer.
    MissingExtraError
        If Ray is not installed.
    """

    def __init__(self, address: str | None) -> None:
        import_extra("ray", "ray")
        self._pipe, other = Pipe()
        handle = other.fileno()
        self._process = subprocess.Popen(
            [sys.executable, "-c", CODE, str(handle), address or "", str(SILENCE_SECONDS)],
            pass_fds=[handle],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            start_new_session=True,  # Ctrl-C is for this process
        )
        other.close()
        try:
            kind, text = self._receive(CONNECT_SECONDS)
            if kind != "ready":
                raise InputError(f"scheduler: {address} does not answer: {text}")
        except BaseException:
            self.close()
            raise

    def run(self, tasks: Iterator[Task]) -> Iterator[TaskResult]:
        """The outcomes on all cores of the cluster; Ray repeats tasks whose worker died.

        Raises
        ------
        GaveUpError
            If Ray gave up on a task; the others in progress are lost too.
        InputError
            If Ray's process ended, or nothing came from it for SILENCE_SECONDS.
        """
        self._send("run")
        while True:
            kind, value = self._receive(SILENCE_SECONDS)
            if kind == "want":
                self._send([*itertools.islice(tasks, value)])
            elif kind == "done":
                yield value
            elif kind == "gave up":
                raise GaveUpError(value)
            elif kind == "no core":
                raise InputError(
                    f"scheduler: the cluster of Ray has had no core for {SILENCE_SECONDS} s; {KEPT}"
                )
            else:
                return

    def close(self) -> None:
        """Disconnect; tasks in progress are cancelled."""
        self._pipe.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(BEAT_SECONDS + 10)
        self._process.kill()
        self._process.wait()

    def _send(self, message: Any) -> None:
        with suppress(OSError):  # the process has ended, as `_receive` finds
            self._pipe.send(message)

    def _receive(self, seconds: float) -> tuple[str, Any]:
        if not self._pipe.poll(seconds):
            self._process.kill()
            raise InputError(f"scheduler: Ray has not answered for {seconds} s; {KEPT}")
        try:
            found: tuple[str, Any] = self._pipe.recv()
        except (EOFError, OSError):
            code = self._process.wait()
            how = signal.Signals(-code).name if code < 0 else f"exit status {code}"
            raise InputError(
                f"scheduler: Ray ended its process ({how}), as it does if the node it is connected "
                f"to fails; {KEPT}"
            ) from None
        return found


def drive(handle: str, address: str, patience: str) -> None:
    """Ray's process: connect, and run tasks until the pipe is closed."""
    import ray

    pipe: Connection[Any, Any] = Connection(int(handle))
    try:
        ray.init(address=address or None, ignore_reinit_error=True, log_to_driver=False)
    except (ConnectionError, ValueError) as error:
        pipe.send(("refused", str(error)))
        return
    with suppress(EOFError, OSError):
        pipe.send(("ready", ""))
        while True:
            pipe.recv()
            pipe.send(_run(ray, pipe, float(patience)))
    ray.shutdown()


def _run(ray: Any, pipe: Connection[Any, Any], patience: float) -> tuple[str, str]:
    """Run the tasks that come through the pipe; the last message."""
    remote = ray.remote(num_cpus=1, max_retries=RETRIES)(measure)
    waiting: list[Any] = []
    more, seen = True, time.monotonic()
    try:
        while True:
            n_cores = int(ray.cluster_resources().get("CPU", 0))
            seen = time.monotonic() if n_cores else seen
            if time.monotonic() - seen > patience:
                return "no core", ""
            free = max(0, AHEAD * n_cores - len(waiting)) if more else 0
            pipe.send(("want", free))
            tasks = pipe.recv()
            more = more and len(tasks) == free
            waiting += [remote.remote(task) for task in tasks]
            if waiting:
                done, waiting = ray.wait(waiting, timeout=BEAT_SECONDS)
                for result in ray.get(done):
                    pipe.send(("done", result))
            elif not more:
                return "end", ""
            else:
                time.sleep(min(1.0, patience / 4))
    except ray.exceptions.RayError as error:
        return "gave up", str(error)
    finally:
        for task in waiting:
            ray.cancel(task)
