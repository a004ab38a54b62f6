"""Tells a dead service from a bad file: one file that always fails is that file's failure, three in a row are not."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from sits_pipeline.sources.base import ServiceDown

__all__ = ["BREAKER", "Breaker"]

DIFFERENT = 3
"""Files that fail, with nothing answered in between, before a host is taken to be down."""
DOWN_S = 30.0
"""How long a host that is down is not asked at all; then one request is let through."""
REMEMBERED_S = 300.0
"""How long a file that failed is asked for less patiently, whatever else its host answers."""
HOPELESS = 8192
"""Files that are remembered at most."""


@dataclass
class _Host:
    """What a host answered of late."""

    silent: dict[str, str] = field(default_factory=dict)
    """Files that failed since the last answer, and how."""
    failed: dict[str, float] = field(default_factory=dict)
    """When a file failed last; kept beyond other files' answers."""
    closed_until: float | None = None
    """Until when nobody asks; None: the host is not taken to be down."""


class Breaker:
    """The hosts that this process asks. All methods may be called by several threads at once."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock`: seconds that only grow."""
        self._clock = clock
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._lock = threading.Lock()
        self._hosts: dict[str, _Host] = {}

    def admit(self, url: str) -> None:
        """Let a request to the host of `url` be sent; raises ServiceDown where the host is down.

        Of those who ask once the time is over one passes; the others wait for what it finds out.
        """
        name = host_of(url)
        with self._lock:
            host = self._hosts.get(name)
            if host is None or host.closed_until is None:
                return
            if self._clock() < host.closed_until:
                raise self._down(name, host)
            host.closed_until = self._clock() + DOWN_S

    def is_suspect(self, url: str) -> bool:
        """Whether patience is wasted: this file failed of late, or nothing came from its host since another one did."""
        with self._lock:
            host = self._hosts.get(host_of(url))
            if host is None:
                return False
            return bool(host.silent) or self._clock() - host.failed.get(_file_of(url), -REMEMBERED_S) < REMEMBERED_S

    def answered(self, url: str) -> None:
        """The host of `url` answered, if only that there is no such file."""
        with self._lock:
            host = self._hosts.get(host_of(url))
            if host is not None:
                host.silent.clear()
                host.failed.pop(_file_of(url), None)
                host.closed_until = None

    def failed(self, url: str, reason: str) -> ServiceDown | None:
        """A request failed at every try: the error to raise where with it the host is down, else None."""
        name, file = host_of(url), _file_of(url)
        with self._lock:
            host = self._hosts.setdefault(name, _Host())
            host.silent[file] = reason
            if len(host.failed) < HOPELESS:
                host.failed[file] = self._clock()
            if len(host.silent) < DIFFERENT and host.closed_until is None:
                return None
            host.closed_until = self._clock() + DOWN_S
            return self._down(name, host)

    def _down(self, name: str, host: _Host) -> ServiceDown:
        last = list(host.silent.values())[-1]
        return ServiceDown(
            f"{name} did not answer {len(host.silent)} requests in a row (last: {last}); try again later"
        )


def host_of(url: str) -> str:
    """Host and port of a URL, without user and password."""
    return urlsplit(url).netloc.rpartition("@")[2].lower()


def _file_of(url: str) -> str:
    return urlsplit(url).path


BREAKER = Breaker()
"""That of this process: a child begins anew, since another thread may have held the lock when it was forked."""
os.register_at_fork(after_in_child=BREAKER.reset)
