"""Tasks fed to workers through a window: each is one future, sent when there is room and forgotten when it is done."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue
from typing import Any

from distributed import Client, Future, KilledWorker

from sits_pipeline.cluster.gate import remember_worker
from sits_pipeline.cluster.rooms import Room, Rooms
from sits_pipeline.sources.base import ServiceDown

__all__ = ["Feed"]

_BACK_OFF_S = (1.0, 5.0, 20.0)
_LOOK_S = 2.0
"""Workers of a given scheduler are looked at as often as this."""
_ALONE_S = 300.0
"""How long a build waits for a worker where none is left."""
_FETCH_S = 60.0
"""How long it may take to hand over the result of a cell that is done."""
_DEATHS = 3
"""Workers that a cell may lose before it is taken to have killed them."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Job[T]:
    """A task under way or about to be."""

    task: T
    attempt: int = 0
    """How often it has raised."""
    deaths: int = 0
    """How many workers it has lost."""
    room: Room | None = None


class Feed[T, R]:
    """One run of a function over tasks; see `Cluster.run`."""

    def __init__(
        self, client: Client, rooms: Rooms, function: Callable[[T], R], tasks: Iterator[T], *, retries: int
    ) -> None:
        self._client, self._rooms = client, rooms
        self._function, self._tasks, self._retries = function, tasks, retries
        self._again: deque[_Job[T]] = deque()
        self._held: dict[Future[Any], _Job[T]] = {}
        self._ended: SimpleQueue[Future[Any]] = SimpleQueue()
        self._looked = time.monotonic()
        self._alone_since: float | None = None

    def results(self) -> Iterator[R]:
        """Results as they are done."""
        try:
            while self._fill():
                future = self._next_ended()
                job = None if future is None else self._held.pop(future, None)
                if future is not None and job is not None:
                    yield from self._take(future, job)
        finally:
            # Whatever ended this: nothing that was not started shall be.
            if self._held:
                self._client.cancel(list(self._held))

    def _fill(self) -> bool:
        """Send a task to every free place; whether anything is under way or still to come."""
        used = [job.room for job in self._held.values() if job.room is not None]
        for room in self._rooms.free(used):
            job = self._next_job()
            if job is None:
                return bool(self._held)
            self._send(replace(job, room=room))
        if self._held:
            self._alone_since = None
            return True
        job = self._next_job()
        if job is not None:
            self._again.appendleft(job)
            self._wait_for_a_worker()
        return job is not None

    def _next_job(self) -> _Job[T] | None:
        if self._again:
            return self._again.popleft()
        return next((_Job(task) for task in self._tasks), None)

    def _send(self, job: _Job[T]) -> None:
        delay = _BACK_OFF_S[min(job.attempt, len(_BACK_OFF_S)) - 1] if job.attempt else 0.0
        assert job.room is not None
        address = job.room.address
        future = self._client.submit(
            _attempt, self._function, job.task, delay, pure=False, workers=None if address is None else [address]
        )
        self._held[future] = job
        future.add_done_callback(self._ended.put)

    def _next_ended(self) -> Future[Any] | None:
        """The next future that ended; None after a look at the workers where none did."""
        try:
            future = self._ended.get(timeout=_LOOK_S if self._rooms.may_change else None)
        except Empty:
            future = None
        if self._rooms.may_change and time.monotonic() - self._looked >= _LOOK_S:
            self._look()
            self._looked = time.monotonic()
        return future

    def _look(self) -> None:
        """See which workers there are; what those that left were computing is to be done again."""
        self._rooms.look()
        for future, job in list(self._held.items()):
            if job.room is not None and not future.done() and not self._rooms.has(job.room):
                del self._held[future]
                future.cancel()
                self._lost(job)

    def _wait_for_a_worker(self) -> None:
        now = time.monotonic()
        if self._alone_since is None:
            self._alone_since = now
            _log.warning("no worker is left that can take a cell; waiting for one to join the scheduler")
        if now - self._alone_since > _ALONE_S:
            raise OSError(
                f"no worker that can hold a cell has joined the Dask scheduler for {_ALONE_S:.0f} s; start some with "
                "`dask worker ADDRESS` and run the same command again, which goes on where this one stopped"
            )

    def _lost(self, job: _Job[T]) -> None:
        if job.deaths >= _DEATHS:
            raise _killed()
        _log.warning("a worker left; its cell is computed by another one")
        self._again.append(replace(job, deaths=job.deaths + 1))

    def _take(self, future: Future[Any], job: _Job[T]) -> Iterator[R]:
        """The result of a future that ended, or what follows from its error."""
        if future.cancelled():
            raise OSError(
                "the connection to the Dask scheduler was lost; start it and run the same command again, which goes on "
                "where this one stopped"
            )
        try:
            error = future.exception(timeout=_FETCH_S)
            if error is None:
                result = future.result(timeout=_FETCH_S)
        except TimeoutError:
            # Its worker died with the result: the scheduler would wait for this very worker to compute it again.
            future.cancel()
            self._lost(job)
            return
        future.release()
        if error is None:
            yield result
        elif isinstance(error, KilledWorker):
            raise _killed() from error
        elif job.attempt < self._retries and isinstance(error, Exception) and not isinstance(error, ServiceDown):
            _log.warning("a cell failed and is tried again: %s", error)
            self._again.append(replace(job, attempt=job.attempt + 1))
        else:
            raise error


def _killed() -> MemoryError:
    return MemoryError(
        "one worker after another died at the same cell, most likely for want of memory; "
        "choose smaller cells with --cell, or fewer workers"
    )


def _attempt[T, R](function: Callable[[T], R], task: T, delay: float) -> R:
    time.sleep(delay)
    remember_worker()
    try:
        return function(task)
    except ServiceDown as error:
        down = error.args
    # Without what led to it: distributed pickles an error with its causes, and turns it into a bare Exception where one
    # of them, such as GDAL's, cannot be pickled.
    raise ServiceDown(*down)
