"""Where cells are computed: Dask workers on this machine or behind a scheduler's address, fed through a window.

No graph grows with the region (stackstac#102): a cell is one future of one plain function, and a new one is submitted
only when an earlier one is done, so that scheduler, client and workers hold a constant number of cells.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import dask
import psutil
from distributed import Client, LocalCluster, core
from distributed.comm import inproc
from distributed.system import MEMORY_LIMIT

from sits_pipeline.cluster.bundles import Bundle, Bundles, Done, compute
from sits_pipeline.cluster.feed import Feed
from sits_pipeline.cluster.gate import SharedGate
from sits_pipeline.cluster.lease import check_wanted
from sits_pipeline.cluster.link import Link
from sits_pipeline.cluster.rooms import AnyWorker, Rooms, WorkerRooms
from sits_pipeline.config import BuildConfig
from sits_pipeline.plan import CellMemory
from sits_pipeline.sources.access import Gate, Limit
from sits_pipeline.sources.gate import LocalGate

__all__ = ["Cluster", "open_cluster"]

_CONNECT_S = 15.0
_SHARE_OF_LIMIT = 0.6
"""What a cell is taken to need is this share of a local worker's limit: Dask pauses one at 80 % of its limit."""


def unchanged[T](task: T) -> T:
    """A task that cannot be made smaller."""
    return task


@dataclass(frozen=True)
class Cluster:
    """A running cluster and how many cells it may hold at once."""

    link: Link
    """The connection to its scheduler."""
    rooms: Rooms
    """Where cells may be sent."""
    cell: CellMemory
    """What a cell needs."""
    slots: int
    """Cells computed at the same time at the start: bounded by cores and by memory."""
    threads_a_cell: int
    """Threads that one cell may use for reading."""
    is_this_process: bool = False
    """Whether the workers are threads of this process and nothing else."""
    shard_by_shard: bool = False
    """Whether a whole cell fits nowhere."""

    @property
    def client(self) -> Client:
        """The client of the scheduler."""
        return self.link.client

    @property
    def check_wanted(self) -> Callable[[], None]:
        """What a task calls right before it writes: raises where its result is waited for no more."""
        return check_wanted

    def run[T, R](
        self,
        function: Callable[[T], R],
        tasks: Iterable[T],
        *,
        retries: int,
        smaller: Callable[[T], T] = unchanged,
    ) -> Iterator[R]:
        """Results as they are done; tasks that take next to no time are sent, and come back, several at once.

        A task that raised is tried again, `retries` times at most.

        `smaller` gives a task that does the same in smaller steps: for want of memory, at which a worker died or which
        no worker has. `str(task)` names it.

        The last error is raised as it is, that of a service which answers nothing at all the first time; but a task
        that lacked memory, or killed its workers, is made smaller, and becomes a MemoryError in the end. Tasks that
        were not yet submitted are then not started. Workers may join and leave: the tasks of one that left, or that
        hangs, are computed by others. A connection that was lost is opened again. Raises RuntimeError where no worker
        is left, the scheduler is gone or a task hangs everywhere.
        """
        if self.shard_by_shard:
            tasks = map(smaller, tasks)

        def run(bundles: Iterator[Bundle[T]]) -> Iterator[Done[T, R]]:
            step, less = partial(compute, function), partial(Bundle.smaller, smaller=smaller)
            return Feed(self.link, self.rooms, step, bundles, retries=retries, smaller=less, cell=self.cell).results()

        return Bundles[T, R](iter(tasks)).results(run)

    def gate(self, limit: Limit) -> Gate:
        """Holds the requests of all workers together within a service's limit; travels to them inside of tasks."""
        return LocalGate(limit) if self.is_this_process else SharedGate(limit)

    def gates(self, limits: Sequence[Limit]) -> dict[str, Gate]:
        """A gate for each limit, by its name."""
        return {limit.name: self.gate(limit) for limit in limits}


@contextmanager
def open_cluster(config: BuildConfig, cell: CellMemory, *, n_cells: int) -> Iterator[Cluster]:
    """Workers for so many cells of one size.

    Raises MemoryError where a single cell does not fit even shard by shard, and OSError where a scheduler does not
    answer or has no workers.
    """
    with ExitStack() as stack:
        # A cell's thread may hold the interpreter for seconds; the event loop would warn of each such pause.
        # Nobody looks at the profile of all threads, which Dask would take a hundred times a second.
        quiet = {"distributed.admin.tick.limit": "60s", "distributed.worker.profile.enabled": False}
        stack.enter_context(dask.config.set(quiet))
        if config.scheduler is not None:
            link = _link(stack, partial(_connect, config.scheduler))
            rooms = WorkerRooms(link, cell)
            slots = max(1, min(rooms.capacity, n_cells))
            yield Cluster(link, rooms, cell, slots, 1, shard_by_shard=rooms.cell_bytes < cell.first)
            return
        # Our own workers are there while this process is: after a sleep, or where the clock is set, a scheduler takes
        # one that it has not heard of for gone, and one that is a thread of this process is never started again.
        stack.enter_context(dask.config.set({"distributed.scheduler.worker-ttl": None}))
        stack.callback(_forget)
        shape = _shape(config, cell, n_cells)
        processes = config.kind == "processes"
        cluster = stack.enter_context(_local(processes, shape))
        link = _link(stack, partial(Client, cluster, set_as_default=False))
        if processes:
            rooms = WorkerRooms(link, shape.cell, patience_s=math.inf)
            smaller = rooms.cell_bytes < cell.first
            yield Cluster(link, rooms, cell, shape.slots, shape.threads_a_cell, shard_by_shard=smaller)
            return
        # One more than there are slots, so that no thread waits for its next cell.
        anyone, smaller = AnyWorker(shape.slots + 1), shape.cell.first < cell.first
        yield Cluster(
            link, anyone, cell, shape.slots, shape.threads_a_cell, is_this_process=True, shard_by_shard=smaller
        )


def _forget() -> None:
    """Let go of what was our own scheduler and workers: distributed remembers a method of each server for ever.

    With them it would hold the last tasks of each build that a process makes.
    """
    forget = getattr(getattr(core, "_expects_comm", None), "cache_clear", None)
    if forget is not None:
        forget()


def _link(stack: ExitStack, connect: Callable[[], Client]) -> Link:
    link = Link(connect)
    stack.callback(link.close)
    return link


@dataclass(frozen=True)
class _Shape:
    """Workers of this machine."""

    cell: CellMemory
    """What a cell needs: less where it is to be computed shard by shard."""
    slots: int
    threads_a_cell: int
    bytes_a_slot: float


def _shape(config: BuildConfig, cell: CellMemory, n_cells: int) -> _Shape:
    """As many cells at once as cores, memory and cells allow. Raises MemoryError where not one fits."""
    cores = config.workers or os.cpu_count() or 1
    memory = _memory(config)
    if memory < cell.least:
        raise MemoryError(
            f"{cell.name} needs {cell.least / 1e9:.1f} GB of memory even shard by shard, {memory / 1e9:.1f} GB may be "
            "used; allow more with --memory, or choose fewer dates or bands"
        )
    if memory < cell.first:
        cell = replace(cell, first=cell.least)
    slots = max(1, min(cores, int(memory // cell.first), n_cells))
    more_threads = int((memory / slots - cell.first) // cell.further)
    return _Shape(cell, slots, max(1, min(cores // slots, 1 + more_threads)), memory / slots)


def _local(processes: bool, wanted: _Shape) -> LocalCluster:
    shape: dict[str, Any] = {
        "n_workers": wanted.slots,
        "threads_per_worker": 1,
        # Left to itself, distributed gives a worker its share by cores, however few workers there are.
        "memory_limit": int(min(MEMORY_LIMIT, wanted.bytes_a_slot / _SHARE_OF_LIMIT)),
    }
    if not processes:
        # A worker's own memory watch would pause threads that share this process.
        shape = {"n_workers": 1, "threads_per_worker": wanted.slots, "memory_limit": 0}
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
