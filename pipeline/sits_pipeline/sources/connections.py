"""Sessions of requests whose connections lead where a reach allows and end in time, whatever servers do meanwhile."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from sits_catalog.reach import Reach, is_public

__all__ = ["Watch", "limited_session", "watched"]


class Watch:
    """One try of a request: what it waits for ends at a set time, however much trickles in until then.

    Time-outs of sockets start again with each byte. Here the socket is shut down from outside, by a twin of its number,
    since TLS takes the first one over.
    """

    def __init__(self, seconds: float) -> None:
        self.is_late = False
        """Whether the time was up: what came until then may look complete and is not."""
        self.met_inner = False
        """Whether a connection led to an address that is not public."""
        self._until = time.monotonic() + seconds
        self._twin: socket.socket | None = None
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._wait, daemon=True)

    def extend(self, seconds: float) -> None:
        """So many seconds are left from now on."""
        self._until = time.monotonic() + seconds

    def follow(self, connected: Any) -> None:
        """The socket that is waited for from now on, with or without TLS."""
        number = connected.fileno()
        if number < 0:
            return
        twin = socket.socket(fileno=os.dup(number))
        with self._lock:
            before, self._twin = self._twin, twin
            if before is not None:
                before.close()
            if self.is_late:
                _shut(twin)

    def _wait(self) -> None:
        while (left := self._until - time.monotonic()) > 0:
            if self._over.wait(left):
                return
        with self._lock:
            self.is_late = True
            if self._twin is not None:
                _shut(self._twin)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        self._thread.join()
        if self._twin is not None:
            self._twin.close()


def _shut(connected: socket.socket) -> None:
    with suppress(OSError):
        connected.shutdown(socket.SHUT_RDWR)


_HERE = threading.local()
"""The watch over the try that this thread is at."""


def _watch_here() -> Watch | None:
    return getattr(_HERE, "watch", None)


@contextmanager
def watched(seconds: float) -> Iterator[Watch]:
    """What this thread asks meanwhile ends after so many seconds, unless they are extended."""
    with Watch(seconds) as watch:
        _HERE.watch = watch
        try:
            yield watch
        finally:
            _HERE.watch = None


def limited_session(reach: Reach) -> requests.Session:
    """A session that connects to no other host; raises Refused where it is asked to.

    A proxy of the environment is the user's: its address is not looked at, and it resolves names itself.
    """
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, _Adapter(reach))
    return session


class _Adapter(HTTPAdapter):
    """Connections that are watched; those without a proxy are looked at when they are made."""

    def __init__(self, reach: Reach) -> None:
        self._reach = reach
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """As requests has it, with pools of our own."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _pools(_Checked, reach=self._reach)

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        """As requests has it, with pools of our own."""
        manager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = _pools(_Watched)
        return manager


def _pools(kind: type, **attributes: object) -> dict[str, type]:
    """Classes of pools by scheme, whose connections are of this kind."""
    plain = type("_Plain", (kind, HTTPConnection), attributes)
    secure = type("_Secure", (kind, HTTPSConnection), attributes)
    return {
        "http": type("_PlainPool", (HTTPConnectionPool,), {"ConnectionCls": plain}),
        "https": type("_SecurePool", (HTTPSConnectionPool,), {"ConnectionCls": secure}),
    }


class _Watched:
    """A connection that the watch of its thread's try may end: while it is made, and when it is used again."""

    sock: Any
    is_inner = False
    """Whether it leads to an address that is not public; unknown, and so no, behind a proxy."""

    def _new_conn(self) -> socket.socket:
        connected: socket.socket = super()._new_conn()  # type: ignore[misc]
        self._tell(connected)
        return connected

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is not None:
            self._tell(self.sock)
            self._note_place()
        super().request(*args, **kwargs)  # type: ignore[misc]

    def _tell(self, connected: Any) -> None:
        if (watch := _watch_here()) is not None:
            watch.follow(connected)

    def _note_place(self) -> None:
        if (watch := _watch_here()) is not None:
            watch.met_inner |= self.is_inner


class _Checked(_Watched):
    """What a connection does before and after its name is resolved: the address that answers is what counts."""

    reach: Reach
    host: str
    port: int

    def _new_conn(self) -> socket.socket:
        self.reach.check_name(self.host, self.port)
        connected = super()._new_conn()
        try:
            # Its name may have led elsewhere the second time; nothing was sent yet.
            address = connected.getpeername()[0]
            self.reach.check(self.host, address)
        except BaseException:
            connected.close()
            raise
        self.is_inner = not is_public(address)
        self._note_place()
        return connected
