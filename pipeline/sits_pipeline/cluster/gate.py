"""Holds the requests of all workers of a cluster within a service's limit, by leases that the scheduler gives out.

A semaphore bounds how many requests are under way. It bounds their rate as well where each lease is kept for a while
after its request ended: no worker's clock is compared with another's, and nothing but Dask's own scheduler is needed.
"""

from __future__ import annotations

import heapq
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from distributed import Semaphore, Worker, get_worker

from sits_pipeline.sources.access import Limit

__all__ = ["SharedGate", "remember_worker"]

_ASK_AGAIN_S = 20.0
"""A request for a lease waits so long at the scheduler: one of a worker that died must not wait there for ever."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SharedGate:
    """The gate of one service in all tasks of a cluster; builds that share a scheduler and a limit share it, too.

    A lease whose worker died comes back when Dask's `distributed.scheduler.locks.lease-timeout` (30 s) is over.
    """

    limit: Limit

    @property
    def n_leases(self) -> int:
        """Requests under way at once, fewer than allowed where that many would be too many for a minute."""
        rate = self.limit.a_minute
        return min(self.limit.at_once, max(1, rate // 2)) if rate else self.limit.at_once

    @property
    def hold_s(self) -> float:
        """How long a lease is kept at least: in no minute are more requests sent than the limit says.

        A lease that is kept h seconds is given out 60 / h + 1 times in a minute at most, n leases n times as often.
        """
        rate, n = self.limit.a_minute, self.n_leases
        return 0.0 if not rate else 60.0 * n / max(1, rate - n)

    @contextmanager
    def request(self) -> Iterator[None]:
        """Waits until one more request of the cluster may be sent; held while it is under way.

        Raises RuntimeError outside of a cluster's tasks, and where the scheduler is lost.
        """
        leases = _leases(self)
        leases.acquire()
        until = time.monotonic() + self.hold_s
        try:
            yield
        finally:
            leases.release_at(until)


class _Leases:
    """What one worker holds of a gate."""

    def __init__(self, gate: SharedGate, worker: Worker) -> None:
        name = f"sits-gate-{gate.limit.name}-{gate.n_leases}-{gate.limit.a_minute}"
        self.worker = worker
        self._name = gate.limit.name
        # Threads that read a cell are not the worker's own: only told so does the semaphore find scheduler and loop.
        self._semaphore = Semaphore(gate.n_leases, name, scheduler_rpc=worker.scheduler, loop=worker.loop)
        self._due: list[float] = []
        self._changed = threading.Condition()
        threading.Thread(target=self._release, name=f"{name}-release", daemon=True).start()

    def acquire(self) -> None:
        """Waits for a lease."""
        try:
            while not self._semaphore.acquire(timeout=_ASK_AGAIN_S):
                pass
        except OSError as error:
            # No fault of a file that was to be read.
            raise RuntimeError(
                f"the Dask scheduler that keeps the limit of {self._name} was lost ({error}); run the same command "
                "to go on"
            ) from error

    def release_at(self, moment: float) -> None:
        """Give one back then, without waiting for it: leases are alike, so it matters not which."""
        with self._changed:
            heapq.heappush(self._due, moment)
            self._changed.notify()

    def _release(self) -> None:
        while True:
            with self._changed:
                while not self._due or (left := self._due[0] - time.monotonic()) > 0:
                    self._changed.wait(left if self._due else None)
                heapq.heappop(self._due)
            try:
                self._semaphore.release()
            except Exception:  # noqa: BLE001  # its worker or the scheduler is gone, and the lease with it
                _log.debug("a lease of %s could not be given back", self._name, exc_info=True)


_lock = threading.Lock()
_of_this_process: dict[SharedGate, _Leases] = {}
_remembered: Worker | None = None


def remember_worker() -> None:
    """Note the worker whose task runs in this thread, for the threads that the task starts."""
    global _remembered
    _remembered = get_worker()


def _leases(gate: SharedGate) -> _Leases:
    worker: Worker | None
    try:
        worker = get_worker()
    except ValueError:
        worker = _remembered
    if worker is None:
        raise RuntimeError(f"the gate of {gate.limit.name} holds among a cluster's tasks; none runs in this process")
    with _lock:
        leases = _of_this_process.get(gate)
        if leases is None or leases.worker is not worker:
            leases = _of_this_process[gate] = _Leases(gate, worker)
        return leases
