"""One process a device: started here, or by torchrun, and one of them that speaks."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sits_models.device import Rank

__all__ = ["hush", "processes_of", "spoken", "start_processes"]

_PARENT = "SITS_MODEL_STARTED_BY"
_POLL_S, _PATIENCE_S = 0.1, 10.0
_SPEAKS_S = 60.0
"""How long the first process, which speaks for all, may take to meet the error that another met before it."""
_PR_SET_PDEATHSIG = 1


def processes_of(devices: str, rank: Rank) -> int:
    """How many processes `--devices` asks for, or those there are. Raises ValueError."""
    if devices == "auto":
        import torch  # seconds, which a number need not wait for

        count = rank.of if rank.of > 1 else max(1, torch.cuda.device_count())
    elif devices.isascii() and devices.isdigit() and int(devices) > 0:
        count = int(devices)
    else:
        raise ValueError(f"--devices is auto or a number from 1; got {devices!r}")
    if rank.of > 1 and count not in (1, rank.of):
        raise ValueError(f"torchrun has started {rank.of} processes; leave --devices {devices} out")
    return max(count, rank.of)


def start_processes(count: int) -> int:
    """Run this command in as many processes of this machine; the exit code of the first that fails, or 0.

    Where one ends early the others are ended too. Raises RuntimeError where one was killed.
    """
    from torch.distributed import TCPStore  # type: ignore[attr-defined]  # it is public, but not said to be

    with socket.create_server(("127.0.0.1", 0)) as here:
        port = here.getsockname()[1]
        # Where the processes find each other, through this one and on this machine alone.
        store = TCPStore(
            "127.0.0.1", port, is_master=True, wait_for_workers=False, master_listen_fd=os.dup(here.fileno())
        )
        command = [sys.executable, "-m", "sits_models.cli", *sys.argv[1:]]
        processes = [subprocess.Popen(command, env=_environment(number, count, port)) for number in range(count)]
        try:
            return _wait(processes)
        finally:
            _end(processes)
            del store


def hush(rank: Rank) -> None:
    """Let all processes but the first print nothing, and let those that another started end with it."""
    if parent := os.environ.get(_PARENT):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != int(parent):  # it ended before it could be asked for
            sys.exit(1)
    if not rank.first:
        sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115  # until the process ends


@contextmanager
def spoken(rank: Rank, *, before: bool = False) -> Iterator[None]:
    """Let a process speak of an error that the first one does not know of.

    `before` they have met, one process of each machine does: its files may be others than those of the first.
    """
    try:
        yield
    except Exception as error:
        if not rank.first and (rank.local == 0 if before else not _said(error)):
            sys.stderr = sys.__stderr__
        raise


def _said(error: Exception) -> bool:
    from sits_models.engine import SAID  # seconds, which a wrong recipe need not wait for

    return SAID in getattr(error, "__notes__", ())


def _environment(number: int, count: int, port: int) -> dict[str, str]:
    """What torchrun would tell a process."""
    cores = len(os.sched_getaffinity(0))
    free = {"OMP_NUM_THREADS": str(max(1, cores // count))}
    if any(name == "lo" for _, name in socket.if_nameindex()):
        free["GLOO_SOCKET_IFNAME"] = "lo"
    told = {
        "RANK": number,
        "LOCAL_RANK": number,
        "WORLD_SIZE": count,
        "LOCAL_WORLD_SIZE": count,
        "GROUP_RANK": 0,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "TORCHELASTIC_RUN_ID": "sits-model",
        "TORCHELASTIC_RESTART_COUNT": 0,
        "TORCHELASTIC_USE_AGENT_STORE": True,
        _PARENT: os.getpid(),
    }
    return {**free, **os.environ, **{name: str(value) for name, value in told.items()}}


def _wait(processes: list[subprocess.Popen[bytes]]) -> int:
    while True:
        try:
            codes = [process.poll() for process in processes]
            for number, code in enumerate(codes):
                if code is not None and code < 0:
                    name = signal.Signals(-code).name
                    raise RuntimeError(
                        f"process {number} of {len(processes)} was ended by {name} (out of memory?); run the same "
                        "command to go on"
                    )
            if failed := [code for code in codes if code]:
                with suppress(subprocess.TimeoutExpired):
                    processes[0].wait(timeout=_SPEAKS_S)
                return failed[0]
            if None not in codes:
                return 0
            time.sleep(_POLL_S)
        except KeyboardInterrupt:
            # The terminal told them, too; the first of them says so.
            return _ended(processes)


def _ended(processes: list[subprocess.Popen[bytes]]) -> int:
    until = time.monotonic() + _PATIENCE_S
    for process in processes:
        try:
            process.wait(timeout=max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            break
    return 1


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.terminate()
    until = time.monotonic() + _PATIENCE_S
    for process in processes:
        try:
            process.wait(timeout=max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
