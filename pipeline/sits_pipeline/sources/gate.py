"""Holds the requests of one process within a service's limit: used while planning, and where there is one process."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sits_pipeline.sources.access import Limit

__all__ = ["LocalGate", "Turnstile"]


class Turnstile:
    """Lets so many pass at once and a minute; all threads share it."""

    def __init__(
        self,
        limit: Limit,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._places = threading.BoundedSemaphore(limit.at_once)
        self._a_minute = limit.a_minute
        self._clock, self._sleep = clock, sleep
        self._lock = threading.Lock()
        self._passed: deque[float] = deque(maxlen=max(1, limit.a_minute))
        """When the last `a_minute` requests passed, or will."""

    @contextmanager
    def pass_through(self) -> Iterator[None]:
        """Waits for a place, then for its turn."""
        with self._places:
            self._sleep_until(self._turn())
            yield

    def _turn(self) -> float:
        """When the next one may pass: a minute after the one that passed `a_minute` before it."""
        with self._lock:
            now = self._clock()
            if not self._a_minute:
                return now
            full = len(self._passed) == self._a_minute
            turn = max(now, self._passed[0] + 60.0) if full else now
            self._passed.append(turn)
            return turn

    def _sleep_until(self, moment: float) -> None:
        while (left := moment - self._clock()) > 0:
            self._sleep(left)


@dataclass(frozen=True)
class LocalGate:
    """The gate of one service in this process: whoever has one of the same limit passes through the same."""

    limit: Limit

    @contextmanager
    def request(self) -> Iterator[None]:
        """Waits until one more request of this process may be sent; held while it is under way."""
        with _turnstile(self.limit).pass_through():
            yield


_turnstiles: dict[Limit, Turnstile] = {}


def _turnstile(limit: Limit) -> Turnstile:
    # Of two threads that come first, `setdefault` lets one win.
    return _turnstiles.get(limit) or _turnstiles.setdefault(limit, Turnstile(limit))


# The places that threads of its parent hold would never come free in a forked child.
os.register_at_fork(after_in_child=_turnstiles.clear)
