"""Dask's scheduler and workers as processes of their own, on the loopback."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from distributed import Client
from tests.services.programs import running_program

__all__ = ["free_port", "kill", "running", "two_workers", "worker"]

_IDLE = {
    # Fixtures keep a scheduler and two workers to the end of all tests; at their ease they take a fifth of a core.
    "DASK_DISTRIBUTED__ADMIN__SYSTEM_MONITOR__INTERVAL": "5s",
    "DASK_DISTRIBUTED__ADMIN__TICK__INTERVAL": "500ms",
    "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(log: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """A Dask command as a process of its own, which knows the functions of the tests."""
    paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    environment = {**_IDLE, "PYTHONPATH": os.pathsep.join(paths)}
    with running_program([sys.executable, "-m", "dask", *command], log, **environment) as process:
        yield process


@contextmanager
def worker(
    folder: Path, address: str, *, memory: str, already: int = 0, nanny: bool = False
) -> Iterator[subprocess.Popen[bytes]]:
    """A running worker of two threads, known to the scheduler, which has so many already."""
    options = ["--host", "127.0.0.1", "--no-dashboard", "--nthreads", "2", "--memory-limit", memory]
    options += [] if nanny else ["--no-nanny"]  # which is a process more, and takes as long again to start
    with running(folder / f"worker-{already}.log", "worker", address, *options) as process:
        with Client(address, set_as_default=False, timeout=180) as client:  # type: ignore[no-untyped-call]
            client.wait_for_workers(already + 1, timeout=180)
        yield process


@contextmanager
def two_workers(
    folder: Path, address: str, *, nanny: bool = False
) -> Iterator[tuple[subprocess.Popen[bytes], subprocess.Popen[bytes]]]:
    """Two running workers of 1 GB."""
    with (
        worker(folder, address, memory="1GB", nanny=nanny) as one,
        worker(folder, address, memory="1GB", already=1, nanny=nanny) as other,
    ):
        yield one, other


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and its children at once, as a machine that goes away does: a nanny and its worker."""
    family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for member in family:
        with suppress(psutil.NoSuchProcess):
            member.kill()
    process.wait()
