"""The tasks that are not under way: new ones in their order, and those that are to be sent again; who may go where."""

from __future__ import annotations

import time
from collections import Counter, defaultdict, deque
from collections.abc import Collection, Iterator, Sequence, Set
from dataclasses import dataclass, replace

from sits_pipeline.cluster.past import Past, Standing
from sits_pipeline.cluster.rooms import Room

__all__ = ["Job", "Sent", "Waiting"]


@dataclass(frozen=True)
class Job[T]:
    """A task under way or about to be."""

    number: int
    """Of the task; the same in all copies of a job."""
    task: T
    since: float = 0.0
    """When it was sent, or set aside to be sent."""


@dataclass(frozen=True)
class Sent[T]:
    """A job and where it is computed."""

    job: Job[T]
    room: Room


class Waiting[T]:
    """Gives out jobs for rooms that are free."""

    def __init__(self, tasks: Iterator[T]) -> None:
        self._tasks = enumerate(tasks)
        self._again: deque[Job[T]] = deque()
        self._exhausted = False
        self.past: defaultdict[int, Past] = defaultdict(Past)
        """Of the tasks under way and to come that gave no result at once, by number."""
        self.standing = Standing()
        """Of the workers."""

    @property
    def again(self) -> Sequence[Job[T]]:
        """Jobs that are to be sent again, those to come first at the beginning."""
        return self._again

    @property
    def is_empty(self) -> bool:
        """Whether it is known that nothing is to be sent any more."""
        return self._exhausted and not self._again

    def set_aside(self, job: Job[T], *, first: bool = False) -> None:
        """To be sent again when there is room."""
        job = replace(job, since=time.monotonic())
        if first:
            self._again.appendleft(job)
        else:
            self._again.append(job)

    def done(self, number: int) -> None:
        """A task has given its result: copies of it need not be sent, and its past is of no use."""
        self.past.pop(number, None)
        if any(job.number == number for job in self._again):
            self._again = deque(job for job in self._again if job.number != number)

    def any_job(self) -> Job[T] | None:
        """Some job, which stays here as one to be sent again; None where there is none."""
        if not self._again and (job := self._new()) is not None:
            self.set_aside(job)
        return self._again[0] if self._again else None

    def job_for(self, room: Room, held: Collection[Sent[T]], workers: Sequence[str | None]) -> Job[T] | None:
        """The next job that may go there, those that were sent before first; None where none may.

        `held` are under way, `workers` the addresses that take cells now.
        """
        shunned = self.standing.shunned(set(workers), time.monotonic())
        if room.address in shunned:
            return None
        workers = [address for address in workers if address not in shunned]
        at_work = Counter(sent.room.address for sent in held)
        kept_free = self._kept_free(held, at_work, workers)
        for job in self._again:
            if self._may_go(job, room, held, kept_free, at_work, workers):
                self._again.remove(job)
                return job
        return None if room.address in kept_free else self._new()

    def _may_go(
        self,
        job: Job[T],
        room: Room,
        held: Collection[Sent[T]],
        kept_free: Set[str | None],
        at_work: Counter[str | None],
        workers: Sequence[str | None],
    ) -> bool:
        if self._is_alone(job):
            return room.address in kept_free and not at_work[room.address]
        if room.address in kept_free:
            return False
        # Where there is another worker, it goes there.
        tried = self._tried(job, held)
        return room.address not in tried or not set(workers) - tried

    def _new(self) -> Job[T] | None:
        for number, task in self._tasks:
            return Job(number, task)
        self._exhausted = True
        return None

    def _is_alone(self, job: Job[T]) -> bool:
        """Whether no other job may be on its worker."""
        return job.number in self.past and self.past[job.number].is_alone

    def _tried(self, job: Job[T], held: Collection[Sent[T]]) -> Set[str | None]:
        """Workers at which a job has failed, or which compute a copy of it."""
        failed_at = self.past[job.number].failed_at if job.number in self.past else set()
        return failed_at | {sent.room.address for sent in held if sent.job.number == job.number}

    def _kept_free(
        self, held: Collection[Sent[T]], at_work: Counter[str | None], workers: Sequence[str | None]
    ) -> Set[str | None]:
        """Workers that take no more jobs: one that is to be alone is there, or waits for the last of them to end."""
        taken = {sent.room.address for sent in held if self._is_alone(sent.job)}
        waiting = sum(map(self._is_alone, self._again))
        if not waiting:
            return taken
        # Half of them go on with whole tasks, however many died.
        most = max(1, len(workers) // 2) - len(taken)
        emptiest = sorted((address for address in workers if address not in taken), key=lambda one: at_work[one])
        return taken | set(emptiest[: max(0, min(waiting, most))])
