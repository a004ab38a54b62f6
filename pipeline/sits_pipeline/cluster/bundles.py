"""Tasks that take next to no time, sent several at once: a future costs some milliseconds, whatever it computes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

__all__ = ["Bundle", "Bundles", "Done", "compute"]

_SECONDS = 1.0
"""What a bundle is to take: so much is lost with a worker, and tasks that take longer go one by one."""
_MOST = 16
_TOO_LONG_S = 4.0
"""A bundle ends after the task that passes this: it took its tasks for quicker ones."""
_AT_FIRST_S = 60.0
"""What a task is taken to need before any has ended."""
_FADES = 0.8
"""Of a slow task so much is remembered with each bundle after it."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Bundle[T]:
    """Tasks of one future, computed one after another."""

    tasks: tuple[T, ...]

    def __str__(self) -> str:
        more = len(self.tasks) - 1
        return f"{self.tasks[0]}{f' or one of the {more} sent with it' if more else ''}"

    def smaller(self, smaller: Callable[[T], T]) -> Bundle[T]:
        """The same in smaller steps."""
        return Bundle(tuple(map(smaller, self.tasks)))


@dataclass(frozen=True)
class Done[T, R]:
    """What came of a bundle."""

    results: tuple[R, ...]
    """Of its first tasks, one at least."""
    left: tuple[T, ...]
    """Those that were not computed, or failed."""
    seconds: float
    failure: str | None = None
    """The error of the first of those left, if it is one that failed."""


def compute[T, R](function: Callable[[T], R], bundle: Bundle[T]) -> Done[T, R]:
    """Results of a bundle as far as it comes; the error of its first task is raised, that of another one is left."""
    began = time.monotonic()
    results, failure = [function(bundle.tasks[0])], None
    for task in bundle.tasks[1:]:
        if time.monotonic() - began > _TOO_LONG_S:
            break
        try:
            results.append(function(task))
        except Exception as error:  # noqa: BLE001  # it is sent again, alone, and raises there what is to be raised
            failure = str(error)
            break
    return Done(tuple(results), bundle.tasks[len(results) :], time.monotonic() - began, failure)


type Run[T, R] = Callable[[Iterator[Bundle[T]]], Iterator[Done[T, R]]]


class Bundles[T, R]:
    """Puts tasks together by what those before them took; those that a bundle left undone come last, one by one."""

    def __init__(self, tasks: Iterator[T]) -> None:
        self._tasks = tasks
        self._left: list[T] = []
        self._seconds_a_task = _AT_FIRST_S

    def results(self, run: Run[T, R]) -> Iterator[R]:
        """Results of all tasks; `run` computes bundles and gives what comes of them as they are done."""
        yield from self._pass(run, self._bundles())
        while self._left:
            left, self._left = self._left, []
            yield from self._pass(run, (Bundle((task,)) for task in left))

    def _pass(self, run: Run[T, R], bundles: Iterator[Bundle[T]]) -> Iterator[R]:
        for done in run(bundles):
            seconds = done.seconds / len(done.results)
            self._seconds_a_task = max(seconds, _FADES * self._seconds_a_task, _SECONDS / _MOST)
            self._left += done.left
            if done.failure is not None:
                _log.warning("a cell failed: %s; %s is tried again", done.failure, done.left[0])
            yield from done.results

    def _bundles(self) -> Iterator[Bundle[T]]:
        while tasks := tuple(islice(self._tasks, max(1, int(_SECONDS / self._seconds_a_task)))):
            yield Bundle(tasks)
