"""Tasks fed to workers through a window: each is one future, sent when there is room and forgotten when it is done."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import replace
from queue import Empty, SimpleQueue
from typing import Any

from distributed import Future
from distributed.protocol.pickle import dumps, loads

from sits_pipeline.cluster.gate import remember_worker
from sits_pipeline.cluster.link import Link, lost
from sits_pipeline.cluster.past import Next
from sits_pipeline.cluster.rooms import Room, Rooms
from sits_pipeline.cluster.waiting import Job, Sent, Waiting
from sits_pipeline.plan import CellMemory
from sits_pipeline.sources.base import ServiceDown

__all__ = ["Feed"]

_BACK_OFF_S = (1.0, 5.0, 20.0)
_LOOK_S = 2.0
"""Workers are looked at as often as this."""
_ALONE_S = 300.0
"""How long a build waits for a worker where none is left."""
_FETCH_S = 60.0
"""How long it may take to hand over the result of a cell that is done, ..."""
_FETCH_FROM_THE_DEAD_S = 5.0
"""... and where its worker is gone: it may have been handed over before."""
_COPIES = 3
"""Workers that compute a cell at once where it hangs."""
_LINKS = 5
"""Connections that may be lost one after another without a single result."""
_PATIENT_S = 900.0
"""No cell is taken to hang before this."""
_TIMES_LONGEST = 5.0
"""Nor before so many times what the slowest cell took so far, ..."""
_TIMES_PATIENT = 24.0
"""... or so many times the patience where no cell has ended yet: nobody knows how long they take."""
_log = logging.getLogger(__name__)


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
        self._function, self._retries = function, retries
        self._smaller, self._cell = smaller, cell
        self._waiting = Waiting(tasks)
        self._held: dict[Future[Any], Sent[T]] = {}
        self._ended: SimpleQueue[Future[Any]] = SimpleQueue()
        self._looked = time.monotonic()
        self._alone_since: float | None = None
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
            job = self._waiting.job_for(room, self._held.values(), self._rooms.addresses())
            if job is not None and not self._send(job, room):
                return True
            if job is None and self._waiting.is_empty:
                return bool(self._held)
        if self._held:
            self._alone_since = None
            return True
        if self._waiting.any_job() is None:
            return False
        self._wait_for_a_worker()
        return True

    def _send(self, job: Job[T], room: Room) -> bool:
        """False where the connection was lost at it: all rooms are others then."""
        errors = self._waiting.past[job.number].errors if job.number in self._waiting.past else 0
        delay = _BACK_OFF_S[min(errors, len(_BACK_OFF_S)) - 1] if errors else 0.0
        sent = Sent(replace(job, since=time.monotonic()), room)
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
            self._waiting.set_aside(job, first=True)
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
        if self._link.clock_was_set_back():
            _log.warning("the clock of this machine was set back, for which messages may wait")
            self._reconnect()
            return
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
        copies: dict[int, list[Job[T]]] = {sent.job.number: [] for sent in self._held.values()}
        for job in (*(sent.job for sent in self._held.values()), *self._waiting.again):
            copies.get(job.number, []).append(job)
        for jobs in copies.values():
            waited = now - max(job.since for job in jobs)
            # Each copy is given twice as long: it may be that cells grew slow, and not that one hangs.
            if waited < bound * 2 ** (len(jobs) - 1):
                continue
            if len(jobs) >= _COPIES:
                raise _stuck(jobs[0].task, sum(one.job.number == jobs[0].number for one in self._held.values()), waited)
            _log.warning("%s has not ended for %.0f s; another worker computes it as well", jobs[0].task, waited)
            self._waiting.set_aside(jobs[0], first=True)

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
        waiting = {job.number for job in self._waiting.again}
        for sent in reversed(self._held.values()):
            if sent.job.number not in waiting:
                waiting.add(sent.job.number)
                self._waiting.set_aside(sent.job, first=True)
        self._held.clear()
        self._link.renew()
        self._rooms.forget()
        with suppress(OSError):  # the next look will tell
            self._rooms.look()
        self._looked = time.monotonic()

    # What became of a job

    def _others(self, job: Job[T]) -> bool:
        """Whether a copy of a job is still under way or about to be."""
        held = (sent.job.number for sent in self._held.values())
        return any(number == job.number for number in (*held, *(other.number for other in self._waiting.again)))

    def _lost(self, sent: Sent[T]) -> None:
        """Its worker is gone."""
        self._go_on(sent.job, self._waiting.past[sent.job.number].after_death(), "a worker left")

    def _moved(self, sent: Sent[T], why: str) -> None:
        """Its worker is there, as far as anybody knows, and gives no result."""
        self._rooms.abandon(sent.room)
        self._go_on(sent.job, self._waiting.past[sent.job.number].after_hang(), why)

    def _failed(self, sent: Sent[T], error: BaseException) -> None:
        """It raised. The error is raised as it is where the job is not tried again."""
        job, address, now = sent.job, sent.room.address, time.monotonic()
        workers = set(self._rooms.addresses())
        verdict = self._waiting.past[job.number].after_error(error, address, retries=self._retries, workers=workers)
        if self._waiting.standing.failed(address, now) and address in self._waiting.standing.shunned(workers, now):
            _log.warning("cells fail one after another at the worker %s; others compute them for now", address)
        self._go_on(job, verdict, f"a cell failed{_at(address)}: {error}", error)

    def _go_on(self, job: Job[T], verdict: Next, why: str, error: BaseException | None = None) -> None:
        """Do what follows from a past; a job of which a copy is left is left to that."""
        if self._others(job):
            _log.warning("%s; %s is under way elsewhere", why, job.task)
            return
        match verdict:
            case Next.AGAIN:
                _log.warning("%s; %s is tried again", why, job.task)
                self._waiting.set_aside(job)
            case Next.SMALLER:
                _log.warning("%s; %s is computed alone, in smaller steps", why, job.task)
                self._waiting.set_aside(replace(job, task=self._smaller(job.task)))
            case Next.STUCK:
                raise _stuck(job.task, self._waiting.past[job.number].hangs, time.monotonic() - job.since)
            case Next.TOO_LARGE:
                raise self._too_large(job) from error
            case Next.RAISE:
                assert error is not None
                raise error

    def _take(self, future: Future[Any], sent: Sent[T]) -> Iterator[R]:
        """The result of a future that ended, or what follows from its error."""
        if future.cancelled():
            self._forgotten(sent)
            return
        patience = _FETCH_S if self._rooms.has(sent.room) else _FETCH_FROM_THE_DEAD_S
        try:
            error = future.exception(timeout=patience)
            result = None if error is not None else future.result(timeout=patience)
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

    def _forgotten(self, sent: Sent[T]) -> None:
        """The scheduler has forgotten it, and all that was sent with it: the connection was lost."""
        self._waiting.set_aside(sent.job, first=True)
        self._reconnect()

    def _done(self, sent: Sent[T]) -> None:
        """Its result is here: copies of it are of no use any more."""
        self._links = 0
        self._longest_s = max(self._longest_s, time.monotonic() - sent.job.since)
        number = sent.job.number
        self._waiting.done(number)
        self._waiting.standing.gave_a_result(sent.room.address)
        for future, other in list(self._held.items()):
            if other.job.number == number:
                del self._held[future]
                future.cancel()
                self._rooms.abandon(other.room)

    def _too_large(self, job: Job[T]) -> MemoryError:
        times = self._waiting.past[job.number].deaths
        return MemoryError(
            f"{job.task} lacked memory, or was lost with its worker, {times} times: most likely it does not fit; the "
            "last times nothing else was computed there, and it shard by shard and with one thread, which takes about "
            f"{self._cell.least / 1e9:.1f} GB; give each worker more (--memory, or --memory-limit of `dask worker`), "
            "start fewer on a machine (--workers), or choose fewer dates or bands"
        )


def _stuck(task: object, workers: int, seconds: float) -> RuntimeError:
    return RuntimeError(
        f"{task} hangs: {'1 worker was' if workers == 1 else f'{workers} workers were'} given it, and the last one had "
        f"{seconds:.0f} s; look at what they read and where they write, and run the same command again, which goes on "
        "where this one stopped"
    )


def _at(address: str | None) -> str:
    return "" if address is None else f" at the worker {address}"


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
