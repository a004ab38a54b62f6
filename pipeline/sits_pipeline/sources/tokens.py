"""Tokens that expire, one a process for each service: fetched once for all threads and renewed in time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

__all__ = ["Token", "TokenKeeper"]

MARGIN_S = 300.0
"""A token is replaced when less than this of its life is left."""


@dataclass(frozen=True, kw_only=True)
class Token:
    """A secret that is good for a while."""

    text: str = field(repr=False)
    expires: float
    """When, by `time.monotonic()`."""
    renew_with: str = field(default="", repr=False)
    """What the service takes for another one instead of a password; empty: nothing."""
    renew_until: float = 0.0
    """Until when it takes that, by `time.monotonic()`."""


@dataclass
class _Held:
    lock: threading.Lock = field(default_factory=threading.Lock)
    token: Token | None = field(default=None, repr=False)
    refresh_at: float = 0.0


class TokenKeeper:
    """The tokens of this process, by the address that gives them: signers travel without."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[str, _Held] = {}
        self._handed = threading.local()

    def token(self, key: str, fetch: Callable[[Token | None], Token]) -> str:
        """The token of `key`; `fetch` gets another one, from the last one where there was one, and may raise OSError.

        Threads that come meanwhile wait. Where none can be had, the last one is used for as long as it is good.
        """
        held = self._of(key)
        with held.lock:
            if held.token is None or time.monotonic() >= held.refresh_at:
                held.token = self._next(held.token, fetch)
                held.refresh_at = _refresh_at(held.token)
            text = held.token.text
        self._last_here()[key] = text
        return text

    def refuse(self, key: str) -> None:
        """Forget the token that this thread got last, unless another one has taken its place since."""
        held, refused = self._of(key), self._last_here().get(key)
        with held.lock:
            if held.token is not None and refused in (None, held.token.text):
                # What renews it is kept.
                held.token = replace(held.token, text="", expires=0.0)
                held.refresh_at = 0.0

    def _of(self, key: str) -> _Held:
        with self._lock:
            return self._held.setdefault(key, _Held())

    def _last_here(self) -> dict[str, str]:
        """What this thread got last, by key."""
        last: dict[str, str] = vars(self._handed).setdefault("last", {})
        return last

    @staticmethod
    def _next(last: Token | None, fetch: Callable[[Token | None], Token]) -> Token:
        try:
            return fetch(last)
        except OSError:
            if last is None or time.monotonic() >= last.expires:
                raise
            return last


def _refresh_at(token: Token) -> float:
    """When to ask for the next one: 5 minutes before the end; of a short life, when a tenth of it is left.

    A life is short below twice that time, else a token with 301 s left would be asked for each second.
    """
    left = token.expires - time.monotonic()
    return token.expires - (MARGIN_S if left >= 2 * MARGIN_S else max(left, 0.0) / 10)
