"""Tokens that expire, one a process for each service: fetched once for all threads and renewed in time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from urllib.parse import urlsplit

from sits_pipeline.sources.base import CredentialsError, ServiceDown

__all__ = ["Token", "TokenKeeper", "check_private", "is_loopback", "is_private", "service_down"]

MARGIN_S = 300.0
"""A token is replaced when less than this of its life is left."""
DOWN_S = 30.0
"""How long a service that gave no token is not asked for another one: whoever reads waits for its lock."""
YOUNG_S = 30.0
"""A token that was refused at this age is not replaced: another one would be refused too."""


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
    old_at: float = 0.0
    """From when on a refusal is a reason for another token."""
    down: str = ""
    """Why the service is not asked before `refresh_at`, where there is no token that is good."""

    @property
    def is_good(self) -> bool:
        """Whether there is a token that has not ended."""
        return self.token is not None and time.monotonic() < self.token.expires


class TokenKeeper:
    """The tokens of this process, by the address that gives them: signers travel without."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[str, _Held] = {}
        self._handed = threading.local()

    def token(self, key: str, fetch: Callable[[Token | None], Token]) -> str:
        """The token of `key`; `fetch` gets another one, from the last one where there was one, and may raise OSError.

        Threads that come meanwhile wait. Where none can be had, the last one is used for as long as it is good, and the
        service is not asked again for a while. Raises ServiceDown during that while where the service was down.
        """
        held = self._of(key)
        with held.lock:
            if held.token is None or time.monotonic() >= held.refresh_at or not held.is_good:
                self._renew(held, fetch)
            assert held.token is not None
            text = held.token.text
        self._last_here()[key] = text
        return text

    def refuse(self, key: str) -> None:
        """Forget the token that this thread got last, unless it is a new one or another one has taken its place."""
        held, refused = self._of(key), self._last_here().get(key)
        with held.lock:
            if time.monotonic() < held.old_at:
                return  # Fresh from the service: what is refused is the file, or whoever asks.
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
    def _renew(held: _Held, fetch: Callable[[Token | None], Token]) -> None:
        """Put another token in the place of the last one, or keep that for a while longer."""
        if held.down and time.monotonic() < held.refresh_at:
            raise ServiceDown(held.down)
        try:
            held.token = fetch(held.token)
        except OSError as error:
            held.down = str(error) if isinstance(error, ServiceDown) else ""
            if held.down or held.is_good:
                held.refresh_at = time.monotonic() + DOWN_S
            if not held.is_good:
                raise
            return
        held.down = ""
        held.refresh_at = _refresh_at(held.token)
        now = time.monotonic()
        held.old_at = now + min(YOUNG_S, (held.token.expires - now) / 100)


def service_down(address: str, error: ConnectionError) -> ServiceDown:
    """What to raise where a token service gave no complete answer: without a token nothing can be read."""
    if isinstance(error, ServiceDown):
        return error
    return ServiceDown(f"{urlsplit(address).hostname} gives no tokens to read with: {error}; try again later")


def is_loopback(host: str) -> bool:
    """Whether a host is this one.

    >>> is_loopback("127.0.0.1"), is_loopback("127.0.0.1.example.org")
    (True, False)
    """
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def is_private(url: str) -> bool:
    """Whether nobody on the way can read what an address is sent: https, or this host."""
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or ""))


def check_private(url: str, variable: str) -> None:
    """Raise CredentialsError where a token service, which `variable` names, would be asked in the open."""
    if not is_private(url):
        raise CredentialsError(
            f"{variable} names an address of {urlsplit(url).hostname} that is not https: who asks for a token there "
            "shows it to everyone on the way; use https"
        )


def _refresh_at(token: Token) -> float:
    """When to ask for the next one: 5 minutes before the end; of a short life, when a tenth of it is left.

    A life is short below twice that time, else a token with 301 s left would be asked for each second.
    """
    left = token.expires - time.monotonic()
    return token.expires - (MARGIN_S if left >= 2 * MARGIN_S else max(left, 0.0) / 10)
