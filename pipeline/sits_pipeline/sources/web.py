"""HTTP(S) requests that never leave HTTP(S), with time limits, a size limit and a few retries."""

from __future__ import annotations

import base64
import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.message import Message
from functools import cache
from typing import IO
from urllib.parse import unquote, urlsplit, urlunsplit

from sits_catalog.addresses import without_secrets
from sits_pipeline.sources.access import Gate, Open, Signer

__all__ = ["Answer", "Web", "fetch", "is_web"]

TIMEOUT_S = 30.0
TRIES = 3
BACKOFF_S = 0.5
"""Pause before the second try; doubled before each further one."""

_AGAIN = (408, 425, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class Answer:
    """Status, headers and body of a response."""

    status: int
    headers: Message
    body: bytes


@dataclass(frozen=True, kw_only=True)
class Web:
    """How a provider's servers are asked; small and picklable."""

    gate: Gate = field(default_factory=Open)
    signer: Signer | None = None

    def fetch(
        self,
        url: str,
        *,
        max_bytes: int,
        headers: Mapping[str, str] | None = None,
        method: str = "GET",
        body: bytes | None = None,
    ) -> Answer:
        """The response to a request; see `fetch`."""
        if method != "GET" or body is not None or self.signer is not None:
            raise NotImplementedError
        with self.gate.request():
            return fetch(url, max_bytes=max_bytes, headers=headers)


def is_web(address: str) -> bool:
    """Whether an address is an http(s) URL with a host."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.netloc)


class _StayOnTheWeb(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        if not is_web(newurl):
            raise OSError(f"{without_secrets(req.full_url)} redirects to something that is not http(s)")
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]  # stub wants HTTPMessage


@cache
def _opener() -> urllib.request.OpenerDirector:
    """Without urllib's handlers for file:, ftp: and data:."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _StayOnTheWeb(),
    ):
        opener.add_handler(handler)
    return opener


def fetch(url: str, *, max_bytes: int, headers: Mapping[str, str] | None = None) -> Answer:
    """The response to a GET; raises OSError where there is none, or its body is short or passes `max_bytes`."""
    if not is_web(url):
        raise OSError(f"an http(s) URL was expected, got {without_secrets(url)!r}")
    for attempt in range(TRIES):
        try:
            return _fetch_once(url, max_bytes, headers or {})
        except urllib.error.HTTPError as error:
            error.close()
            if error.code not in _AGAIN or attempt + 1 == TRIES:
                raise OSError(f"{without_secrets(url)}: HTTP {error.code} {error.reason}") from None
        except (TimeoutError, ConnectionError, urllib.error.URLError, http.client.HTTPException) as error:
            if attempt + 1 == TRIES:
                reason = getattr(error, "reason", None) or error
                raise OSError(f"{without_secrets(url)}: no answer after {TRIES} tries: {reason}") from error
        time.sleep(BACKOFF_S * 2**attempt)
    raise AssertionError("the last try returns or raises")


def _split_user(url: str) -> tuple[str, str]:
    """A URL without its user and password, and these two as `user:password`; "" where there are none."""
    parts = urlsplit(url)
    user, _, host = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=host)), unquote(user)


def _fetch_once(url: str, max_bytes: int, headers: Mapping[str, str]) -> Answer:
    bare, user = _split_user(url)
    request = urllib.request.Request(bare, headers={"User-Agent": "sits-cubes", **headers})  # noqa: S310  # is_web said so
    if user:
        # Not for the host of a redirect.
        request.add_unredirected_header("Authorization", f"Basic {base64.b64encode(user.encode()).decode()}")
    with _opener().open(request, timeout=TIMEOUT_S) as response:
        body: bytes = response.read(max_bytes + 1)
        announced = response.headers.get("Content-Length")
        if len(body) > max_bytes:
            raise OSError(f"{without_secrets(url)}: larger than the {max_bytes} bytes that are read at most")
        if announced is not None and announced.isdigit() and int(announced) != len(body):
            raise ConnectionError(f"the answer broke off after {len(body)} of {announced} bytes")
        return Answer(response.status, response.headers, body)
