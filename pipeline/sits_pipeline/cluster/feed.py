"""Tasks fed to workers through a window: each is one future, sent when there is room and forgotten when it is done."""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Set
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue
from typing import Any

from distributed import Future, KilledWorker
from distributed.protocol.pickle import dumps, loads

from sits_pipeline.cluster.gate import remember_worker
from sits_pipeline.cluster.link import Link, lost
from sits_pipeline.cluster.rooms import Room, Rooms
from sits_pipeline.folder import CannotWrite
from sits_pipeline.plan import CellMemory
from sits_pipeline.sources.base import ServiceDown

__all__ = ["Feed"]

_BACK_OFF_S = (1.0, 5.0, 20.0)
_LOOK_S = 2.0
"""Workers are looked at as often as this."""
_ALONE_S = 300.0
"""How long a build waits for a worker where none is left."""
_FETCH_S = 60.0
"""How long it may take to hand over the result of a cell that is done."""
_DEATHS = 3
"""Workers that die at a cell before it is taken to have killed them."""
_TRIES = 3
"""Workers that a cell may hang on."""
_LINKS = 5
"""Connections that may be lost one after another without a single result."""
_PATIENT_S = 900.0
"""No cell is taken to hang before this."""
_TIMES_LONGEST = 5.0
"""Nor before so many times what the slowest cell took so far, ..."""
_TIMES_PATIENT = 24.0
"""... or so many times the patience where no cell has ended yet: nobody knows how long they take."""
_LASTING = (ServiceDown, CannotWrite)
"""Errors that another attempt at the same cell would meet again."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Job[T]:
    """A task under way or about to be."""

    number: int
    """Of the task; the same in all copies of a job."""
    task: T
    attempt: int = 0
    """How often it has raised."""
    deaths: int = 0
    """How many workers it has lost."""
    hangs: int = 0
    """How many workers it was taken away from because they gave no result."""
    since: float = 0.0
    """When it was sent, or set aside to be sent."""

    @property
    def is_alone(self) -> bool:
        """Whether no other cell may be on its worker: a worker died at it, most likely for want of memory."""
        return self.deaths > 0


@dataclass(frozen=True)
class _Sent[T]:
    """A job and where it is computed."""

    job: _Job[T]
    room: Room


class Feed[T, R]:
    """One run of a function over tasks; see `Cluster.run`."""

    def __init__(
        self,
        link: Link,
        rooms: Rooms,
        function: Callable[[T], R],
        tasks: Iterator[T],
        *,
        retries: int,
        smaller: Callable[[T], T],
        cell: CellMemory,
    ) -> None:
        self._link, self._rooms = link, rooms
        self._function, self._tasks, self._retries = function, enumerate(tasks), retries
        self._smaller, self._cell = smaller, cell
        self._again: deque[_Job[T]] = deque()
        self._held: dict[Future[Any], _Sent[T]] = {}
        self._ended: SimpleQueue[Future[Any]] = SimpleQueue()
        self._looked = time.monotonic()
        self._alone_since: float | None = None
        self._exhausted = False
        self._longest_s = 0.0
        self._links = 0

    def results(self) -> Iterator[R]:
        """Results as they are done."""
        try:
            while self._fill():
                future = self._next_ended()
                # One that was cancelled is no longer held.
                sent = None if future is None else self._held.pop(future, None)
                if future is not None and sent is not None:
                    yield from self._take(future, sent)
        finally:
            # Whatever ended this: nothing that was not started shall be.
            if self._held:
                with suppress(Exception):  # the connection may be what was lost
                    self._link.client.cancel(list(self._held))

    # Sending

    def _fill(self) -> bool:
        """Send a task to every free place; whether anything is under way or still to come."""
        for room in self._rooms.free([sent.room for sent in self._held.values()]):
            job = self._job_for(room)
            if job is not None and not self._send(job, room):
                return True
            if job is None and self._exhausted and not self._again:
                return bool(self._held)
        if self._held:
            self._alone_since = None
            return True
        if not self._again:
            job = self._new_job()
            if job is None:
                return False
            self._set_aside(job)
        self._wait_for_a_worker()
        return True

    def _new_job(self) -> _Job[T] | None:
        for number, task in self._tasks:
            return _Job(number, task)
        self._exhausted = True
        return None

    def _set_aside(self, job: _Job[T], *, first: bool = False) -> None:
        """To be sent when there is room."""
        job = replace(job, since=time.monotonic())
        if first:
            self._again.appendleft(job)
        else:
            self._again.append(job)

    def _job_for(self, room: Room) -> _Job[T] | None:
        """The next job that may go there; those that were sent before come first."""
        held = Counter(sent.room.address for sent in self._held.values())
        kept_free = self._kept_free(held)
        for job in self._again:
            if self._may_go(job, room, held, kept_free):
                self._again.remove(job)
                return job
        return None if room.address in kept_free else self._new_job()

    def _kept_free(self, held: Counter[str | None]) -> Set[str | None]:
        """Workers that take no more cells: one that is to be alone is there, or waits for the last of them to end."""
        taken = {sent.room.address for sent in self._held.values() if sent.job.is_alone}
        waiting = sum(job.is_alone for job in self._again)
        if not waiting:
            return taken
        workers = self._rooms.addresses()
        # Half of them go on with whole cells, however many died.
        most = max(1, len(workers) // 2) - len(taken)
        emptiest = sorted((address for address in workers if address not in taken), key=lambda one: held[one])
        return taken | set(emptiest[: max(0, min(waiting, most))])

    def _may_go(self, job: _Job[T], room: Room, held: Counter[str | None], kept_free: Set[str | None]) -> bool:
        if job.is_alone:
            return room.address in kept_free and not held[room.address]
        if room.address in kept_free:
            return False
        # A copy of a cell that hangs on one worker goes to another, where there is one.
        there = {sent.room.address for sent in self._held.values() if sent.job.number == job.number}
        return room.address not in there or not set(self._rooms.addresses()) - there

    def _send(self, job: _Job[T], room: Room) -> bool:
        """False where the connection was lost at it: all rooms are others then."""
        delay = _BACK_OFF_S[min(job.attempt, len(_BACK_OFF_S)) - 1] if job.attempt else 0.0
        sent = _Sent(replace(job, since=time.monotonic()), room)
        workers = None if room.address is None else [room.address]
        # As bytes: of anything else Dask looks at each part, and the scheduler holds it far longer.
        packed = dumps((self._function, job.task))
        try:
            future = self._link.client.submit(
                _attempt, packed, delay, pure=False, workers=workers, allow_other_workers=False
            )
        except Exception:  # a client whose connection is gone says so by errors of many kinds
            if self._link.is_up:
                raise
            self._set_aside(job, first=True)
            self._reconnect()
            return False
        self._held[future] = sent
        future.add_done_callback(self._ended.put)
        return True

    # Looking

    def _next_ended(self) -> Future[Any] | None:
        """The next future that ended; None after a look at the workers where none did."""
        try:
            future = self._ended.get(timeout=_LOOK_S)
        except Empty:
            future = None
        if time.monotonic() - self._looked >= _LOOK_S:
            self._look()
            self._looked = time.monotonic()
        return future

    def _look(self) -> None:
        """See which workers there are; what those that left or hang were computing is to be done again."""
        try:
            self._rooms.look()
        except OSError:
            if self._link.is_up:
                self._link.unanswered()
            else:
                self._reconnect()
            return
        self._link.answered()
        for future, sent in list(self._held.items()):
            if not self._rooms.has(sent.room) and not future.done():
                del self._held[future]
                future.cancel()
                if self._rooms.is_silent(sent.room):
                    self._moved(sent, "nothing is heard of its worker")
                else:
                    self._lost(sent)
        self._copy_what_hangs()

    def _copy_what_hangs(self) -> None:
        """Give a cell that takes far longer than any before to another worker as well; the first result counts."""
        now = time.monotonic()
        known = self._longest_s > 0
        bound = max(_PATIENT_S, _TIMES_LONGEST * self._longest_s) if known else _TIMES_PATIENT * _PATIENT_S
        copies: dict[int, list[_Job[T]]] = {sent.job.number: [] for sent in self._held.values()}
        for job in (*(sent.job for sent in self._held.values()), *self._again):
            copies.get(job.number, []).append(job)
        for jobs in copies.values():
            waited = now - max(job.since for job in jobs)
            # Each copy is given twice as long: it may be that cells grew slow, and not that one hangs.
            if waited < bound * 2 ** (len(jobs) - 1):
                continue
            if len(jobs) >= _TRIES:
                raise _stuck(jobs[0].task, len(jobs), waited)
            _log.warning("%s has not ended for %.0f s; another worker computes it as well", jobs[0].task, waited)
            self._set_aside(jobs[0], first=True)

    def _wait_for_a_worker(self) -> None:
        now = time.monotonic()
        if self._alone_since is None:
            self._alone_since = now
            _log.warning("no worker is left that can take a cell now; waiting for one to join the scheduler")
        if now - self._alone_since > _ALONE_S:
            raise RuntimeError(
                f"no worker that can hold a cell has joined the Dask scheduler for {_ALONE_S:.0f} s, or those that are "
                "there still compute what nobody waits for; start some with `dask worker ADDRESS` and run the same "
                "command again, which goes on where this one stopped"
            )

    def _reconnect(self) -> None:
        """Connect to the scheduler again, and send again what was under way: it has forgotten all of it."""
        self._links += 1
        if self._links > _LINKS:
            raise lost()
        waiting = {job.number for job in self._again}
        for sent in reversed(self._held.values()):
            if sent.job.number not in waiting:
                waiting.add(sent.job.number)
                self._set_aside(sent.job, first=True)
        self._held.clear()
        self._link.renew()
        self._rooms.forget()
        with suppress(OSError):  # the next look will tell
            self._rooms.look()
        self._looked = time.monotonic()

    # What became of a job

    def _others(self, job: _Job[T]) -> bool:
        """Whether a copy of a job is still under way or about to be."""
        held = (sent.job.number for sent in self._held.values())
        return any(number == job.number for number in (*held, *(other.number for other in self._again)))

    def _lost(self, sent: _Sent[T]) -> None:
        """Its worker is gone."""
        job = replace(sent.job, deaths=sent.job.deaths + 1)
        if self._others(job):
            return
        if job.deaths >= _DEATHS:
            raise self._too_large(job)
        _log.warning("a worker left; %s is computed alone on another one, in smaller steps", job.task)
        self._set_aside(replace(job, task=self._smaller(job.task)))

    def _moved(self, sent: _Sent[T], why: str) -> None:
        """Its worker is there, as far as anybody knows, and gives no result."""
        self._rooms.abandon(sent.room)
        job = replace(sent.job, hangs=sent.job.hangs + 1)
        if self._others(job):
            return
        if job.hangs >= _TRIES:
            raise _stuck(job.task, job.hangs, time.monotonic() - job.since)
        _log.warning("%s; another one computes %s", why, job.task)
        self._set_aside(job)

    def _take(self, future: Future[Any], sent: _Sent[T]) -> Iterator[R]:
        """The result of a future that ended, or what follows from its error."""
        if future.cancelled():
            self._forgotten(sent)
            return
        try:
            error = future.exception(timeout=_FETCH_S)
            result = None if error is not None else future.result(timeout=_FETCH_S)
        except (CancelledError, OSError) as reason:
            if isinstance(reason, CancelledError) or not self._link.is_up:
                self._forgotten(sent)
            else:
                # Its worker died with the result: the scheduler would wait for this very worker to compute it again.
                future.cancel()
                self._moved(sent, "a worker did not hand over its result")
            return
        future.release()
        if error is not None:
            self._failed(sent, error)
        else:
            self._done(sent)
            yield result  # type: ignore[misc]  # of the function, whatever that gives

    def _forgotten(self, sent: _Sent[T]) -> None:
        """The scheduler has forgotten it, and all that was sent with it: the connection was lost."""
        self._set_aside(sent.job, first=True)
        self._reconnect()

    def _done(self, sent: _Sent[T]) -> None:
        """Its result is here: copies of it are of no use any more."""
        self._links = 0
        self._longest_s = max(self._longest_s, time.monotonic() - sent.job.since)
        number = sent.job.number
        for future, other in list(self._held.items()):
            if other.job.number == number:
                del self._held[future]
                future.cancel()
                self._rooms.abandon(other.room)
        if any(job.number == number for job in self._again):
            self._again = deque(job for job in self._again if job.number != number)

    def _failed(self, sent: _Sent[T], error: BaseException) -> None:
        """It raised. The error is raised as it is where the job is not tried again."""
        job = sent.job
        if isinstance(error, KilledWorker):
            self._lost(sent)
        elif self._others(job):
            _log.warning("a copy of %s failed: %s", job.task, error)
        elif job.attempt < self._retries and isinstance(error, Exception) and not isinstance(error, _LASTING):
            _log.warning("a cell failed and is tried again: %s", error)
            self._again.append(replace(job, attempt=job.attempt + 1))
        else:
            raise error

    def _too_large(self, job: _Job[T]) -> MemoryError:
        return MemoryError(
            f"{job.deaths} workers died at {job.task}, most likely for want of memory: the last ones computed nothing "
            f"else, shard by shard and with one thread, which takes about {self._cell.least / 1e9:.1f} GB; give each "
            "worker more (--memory, or --memory-limit of `dask worker`), start fewer on a machine (--workers), or "
            "choose fewer dates or bands"
        )


def _stuck(task: object, workers: int, seconds: float) -> RuntimeError:
    return RuntimeError(
        f"{task} hangs: {workers} workers were given it, and the last one had {seconds:.0f} s; look at what they "
        "read and where they write, and run the same command again, which goes on where this one stopped"
    )


def _attempt(packed: bytes, delay: float) -> Any:
    time.sleep(delay)
    function, task = loads(packed)
    remember_worker()
    try:
        return function(task)
    except ServiceDown as error:
        down = error.args
    # Without what led to it: distributed pickles an error with its causes, and turns it into a bare Exception where one
    # of them, such as GDAL's, cannot be pickled.
    raise ServiceDown(*down)
