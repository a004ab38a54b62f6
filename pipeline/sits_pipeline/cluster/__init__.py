"""Where cells are computed: Dask workers on this machine or behind a scheduler's address, fed through a window.

No graph grows with the region (stackstac#102): a cell is one future of one plain function, and a new one is submitted
only when an earlier one is done, so that scheduler, client and workers hold a constant number of cells.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import dask
import psutil
from distributed import Client, LocalCluster
from distributed.comm import inproc

from sits_pipeline.cluster.feed import Feed
from sits_pipeline.cluster.gate import SharedGate
from sits_pipeline.cluster.rooms import AnyWorker, Rooms, WorkerRooms
from sits_pipeline.config import BuildConfig
from sits_pipeline.plan import CellMemory
from sits_pipeline.sources.access import Gate, Limit
from sits_pipeline.sources.gate import LocalGate

__all__ = ["Cluster", "open_cluster"]

_CONNECT_S = 15.0


@dataclass(frozen=True)
class Cluster:
    """A running cluster and how many cells it may hold at once."""

    client: Client
    rooms: Rooms
    """Where cells may be sent."""
    slots: int
    """Cells computed at the same time at the start: bounded by cores and by memory."""
    threads_a_cell: int
    """Threads that one cell may use for reading."""
    is_this_process: bool = False
    """Whether the workers are threads of this process and nothing else."""

    def run[T, R](self, function: Callable[[T], R], tasks: Iterable[T], *, retries: int) -> Iterator[R]:
        """Results in the order in which they are done. A task that raised is tried again, `retries` times at most.

        The last error is raised as it is, that of a service which answers nothing at all the first time; but a task
        that killed its workers becomes a MemoryError. Tasks that were not yet submitted are then not started. Workers
        of a given scheduler may join and leave: the tasks of one that left are computed by others. Raises OSError where
        none is left, or the scheduler itself is gone.
        """
        return Feed(self.client, self.rooms, function, iter(tasks), retries=retries).results()

    def gate(self, limit: Limit) -> Gate:
        """Holds the requests of all workers together within a service's limit; travels to them inside of tasks."""
        return LocalGate(limit) if self.is_this_process else SharedGate(limit)

    def gates(self, limits: Sequence[Limit]) -> dict[str, Gate]:
        """A gate for each limit, by its name."""
        return {limit.name: self.gate(limit) for limit in limits}


@contextmanager
def open_cluster(config: BuildConfig, cell: CellMemory, *, n_cells: int) -> Iterator[Cluster]:
    """Workers for so many cells of one size.

    Raises MemoryError where a single cell does not fit, and OSError where a scheduler does not answer.
    """
    with ExitStack() as stack:
        # A cell's thread may hold the interpreter for seconds; the event loop would warn of each such pause.
        stack.enter_context(dask.config.set({"distributed.admin.tick.limit": "60s"}))
        if config.scheduler is not None:
            client = stack.enter_context(_connect(config.scheduler))
            rooms = WorkerRooms(client, cell.first)
            yield Cluster(client, rooms, max(1, min(rooms.capacity, n_cells)), 1)
            return
        cores = config.workers or os.cpu_count() or 1
        memory = _memory(config)
        fits = int(memory // cell.first)
        if fits < 1:
            raise MemoryError(
                f"one cell needs {cell.first / 1e9:.1f} GB of memory, {memory / 1e9:.1f} GB may be used; "
                "choose smaller cells with --cell, or allow more with --memory"
            )
        slots = max(1, min(cores, fits, n_cells))
        more_threads = int((memory / slots - cell.first) // cell.further)
        processes = config.kind == "processes"
        cluster = stack.enter_context(_local(processes, slots))
        client = stack.enter_context(Client(cluster, set_as_default=False))
        # One more than there are slots, so that no thread waits for its next cell.
        threads = max(1, min(cores // slots, 1 + more_threads))
        yield Cluster(client, AnyWorker(slots + 1), slots, threads, is_this_process=not processes)


def _local(processes: bool, slots: int) -> LocalCluster:
    shape: dict[str, Any] = {"n_workers": slots, "threads_per_worker": 1}
    if not processes:
        # A worker's own memory watch would pause threads that share this process.
        shape = {"n_workers": 1, "threads_per_worker": slots, "memory_limit": 0}
        # Workers inside of this process need no address that others can reach. Left to itself, distributed asks by
        # which of this machine's addresses 8.8.8.8 is reached, and warns where there is no network.
        inproc.global_manager._ip = inproc.global_manager._ip or "127.0.0.1"
    # Without a dashboard a scheduler still serves HTTP: on a free port of this machine alone, not on 8787 of all of its
    # addresses, where a second build would find it taken.
    http = {"dashboard": False, "dashboard_address": "127.0.0.1:0"}
    # A task's error comes to us with the future; distributed would print it with its traceback as well.
    return LocalCluster(
        processes=processes, dashboard_address=None, scheduler_kwargs=http, silence_logs=logging.CRITICAL, **shape
    )


def _connect(address: str) -> Client:
    try:
        return Client(address, timeout=_CONNECT_S, set_as_default=False)
    except (OSError, ValueError) as error:
        raise OSError(
            f"no Dask scheduler answers at {address} ({error}); start one with `dask scheduler` and give its address, "
            "tcp://host:port"
        ) from error


def _memory(config: BuildConfig) -> float:
    """Bytes that the workers of this machine may use together."""
    return config.memory_gb * 1e9 if config.memory_gb else psutil.virtual_memory().available * 0.6
