"""Where cells are computed: Dask workers on this machine or behind a scheduler's address, fed through a window.

No graph grows with the region (stackstac#102): a cell is one future of one plain function, and a new one is submitted
only when an earlier one is done, so that scheduler, client and workers hold a constant number of cells.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import dask
import psutil
from distributed import Client, KilledWorker, LocalCluster, as_completed
from distributed.comm import inproc

from sits_pipeline.config import BuildConfig

__all__ = ["Cluster", "open_cluster"]

_BACK_OFF_S = (1.0, 5.0, 20.0)
_CONNECT_S = 15.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cluster:
    """A running cluster and how many cells it may hold at once."""

    client: Client
    slots: int
    """Cells computed at the same time: bounded by cores and by memory."""
    threads_a_cell: int
    """Threads that one cell may use for reading."""

    def run[T, R](self, function: Callable[[T], R], tasks: Iterable[T], *, retries: int) -> Iterator[R]:
        """Results in the order in which they are done. A task that raised is tried again, `retries` times at most.

        The last error is raised as it is, but a task that killed its workers becomes a MemoryError; tasks that were
        not yet submitted are then not started.
        """
        waiting = iter(tasks)
        tries: dict[Any, tuple[T, int]] = {}
        done = as_completed(loop=self.client.loop)

        def submit(task: T, attempt: int) -> None:
            delay = _BACK_OFF_S[min(attempt, len(_BACK_OFF_S)) - 1] if attempt else 0.0
            future = self.client.submit(_attempt, function, task, delay, pure=False)
            tries[future] = task, attempt
            done.add(future)

        for task in islice(waiting, self.slots + 1):
            submit(task, 0)
        for future in done:
            task, attempt = tries.pop(future)
            error = future.exception()
            if error is None:
                result = future.result()
                future.release()
                yield result
                for fresh in islice(waiting, 1):
                    submit(fresh, 0)
            elif isinstance(error, KilledWorker):
                self.client.cancel(list(tries))
                raise MemoryError(
                    "one worker after another died at the same cell, most likely for want of memory; "
                    "choose smaller cells with --cell, or fewer workers"
                ) from error
            elif attempt < retries and isinstance(error, Exception):
                _log.warning("a cell failed and is tried again: %s", error)
                future.release()
                submit(task, attempt + 1)
            else:
                self.client.cancel(list(tries))
                raise error


def _attempt[T, R](function: Callable[[T], R], task: T, delay: float) -> R:
    time.sleep(delay)
    return function(task)


@contextmanager
def open_cluster(config: BuildConfig, *, cell_bytes: int, n_cells: int) -> Iterator[Cluster]:
    """Workers for cells of `cell_bytes` working memory each.

    Raises MemoryError where a single cell does not fit, and OSError where a scheduler does not answer.
    """
    with ExitStack() as stack:
        # In-process schedulers need no dashboard; a worker's own memory watch would pause threads that share ours.
        stack.enter_context(dask.config.set({"distributed.admin.tick.limit": "60s"}))
        if config.scheduler is not None:
            client = stack.enter_context(_connect(config.scheduler))
            slots = _slots_of(client, cell_bytes)
            yield Cluster(client, max(1, min(slots, n_cells)), 1)
            return
        cores = config.workers or os.cpu_count() or 1
        fits = int(_memory(config) // cell_bytes)
        if fits < 1:
            raise MemoryError(
                f"one cell needs {cell_bytes / 1e9:.1f} GB of memory, {_memory(config) / 1e9:.1f} GB may be used; "
                "choose smaller cells with --cell, or allow more with --memory"
            )
        slots = max(1, min(cores, fits, n_cells))
        cluster = stack.enter_context(_local(config.kind == "processes", slots))
        client = stack.enter_context(Client(cluster, set_as_default=False))
        yield Cluster(client, slots, max(1, cores // slots))


def _local(processes: bool, slots: int) -> LocalCluster:
    shape: dict[str, Any] = {"n_workers": slots, "threads_per_worker": 1}
    if not processes:
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


def _slots_of(client: Client, cell_bytes: int) -> int:
    """Cells that the workers of a running cluster can hold."""
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    if not workers:
        raise OSError("the Dask scheduler has no workers; start some with `dask worker ADDRESS` and try again")
    slots = 0
    for worker in workers:
        # A limit of 0 is none.
        fits = worker["memory_limit"] // cell_bytes if worker["memory_limit"] else worker["nthreads"]
        slots += int(min(worker["nthreads"], fits))
    if slots < 1:
        largest = max(worker["memory_limit"] for worker in workers)
        raise MemoryError(
            f"one cell needs {cell_bytes / 1e9:.1f} GB of memory, the largest worker has {largest / 1e9:.1f} GB; "
            "choose smaller cells with --cell, or start workers with more memory"
        )
    return slots


def _memory(config: BuildConfig) -> float:
    """Bytes that the workers of this machine may use together."""
    return config.memory_gb * 1e9 if config.memory_gb else psutil.virtual_memory().available * 0.6
