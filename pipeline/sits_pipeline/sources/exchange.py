"""One HTTP(S) request and its answer, complete or an error; connections are kept for the next one."""

from __future__ import annotations

import base64
import logging
import os
import re
import socket
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

from sits_catalog.addresses import without_secrets
from sits_catalog.reach import Reach, Refused

if TYPE_CHECKING:
    import requests

    from sits_pipeline.sources.connections import Watch

__all__ = ["Answer", "Broken", "Sent", "TimeLimits", "exchange", "is_web"]

MAX_REDIRECTS = 10
_PIECE = 1024 * 1024
_REDIRECTS = (301, 302, 303, 307, 308)
_LENGTH = re.compile(r"[0-9]{1,18}")
"""What str.isdigit takes may be no number, or one that int() refuses for its length."""
_AMBIGUOUS = re.compile(r"[\\\s\x00-\x1f\x7f]")
"""In a host: urllib3 ends it at a backslash and urlsplit does not, so that a token for one would go to the other."""


@dataclass(frozen=True)
class Answer:
    """Status, headers and body of a response."""

    status: int
    headers: Mapping[str, str]
    """By name, in whatever case it is asked for."""
    body: bytes
    is_inner: bool = False
    """Whether an address that is not public had a part in it."""


@dataclass(frozen=True, kw_only=True)
class Sent:
    """A request as it is sent."""

    url: str = field(repr=False)
    method: str
    headers: Mapping[str, str] = field(repr=False)
    proof: Mapping[str, str] = field(repr=False)
    """Headers that say who asks; for the host of `url` alone."""
    body: bytes | None = field(repr=False)
    max_bytes: int
    """Of the answer's body."""
    reach: Reach | None = None
    """How far it may lead, and what a server at `url` redirects to (`Reach.past`); None: the user named `url`, so that
    its own host may be asked anywhere."""


@dataclass(frozen=True, kw_only=True)
class TimeLimits:
    """How long an answer may take."""

    connect_s: float
    read_s: float
    """Without a single byte; what stands before a body may take this long, twice, beside the time to connect."""
    body_s: float
    """The whole body, beside the time that its bytes take at `bytes_a_second`."""
    bytes_a_second: float


class Broken(Exception):  # noqa: N818  # always caught: what is raised in the end has a sentence
    """No complete answer came."""

    def __init__(self, reason: str, *, timed_out: bool = False) -> None:
        super().__init__(reason)
        self.timed_out = timed_out


def is_web(address: str) -> bool:
    """Whether an address is an http(s) URL whose host all readers of it understand alike."""
    try:
        parts = urlsplit(address)
        is_whole = bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    host = parts.netloc.rpartition("@")[2]
    return parts.scheme in ("http", "https") and is_whole and not _AMBIGUOUS.search(host)


def exchange(sent: Sent, limits: TimeLimits) -> Answer:
    """The answer to a request, whatever its status, after following redirects.

    Raises Broken where none came or not all of it, and OSError where it is larger than `max_bytes`, leads or redirects
    out of reach or to something that is not http(s), or takes a request with a body to another server. No message holds
    more of an address than its path.
    """
    reach = Reach.of(sent.url) if sent.reach is None else sent.reach
    is_inner = False
    for _ in range(MAX_REDIRECTS):
        try:
            reach.check_url(sent.url)  # a proxy resolves names itself, but numbers are plain
            with _session(reach) as session:
                answer = _exchange_once(session, sent, limits)
        except Refused as error:
            raise OSError(f"{without_secrets(sent.url)}: {error}") from None
        is_inner |= answer.is_inner
        if answer.status not in _REDIRECTS or "Location" not in answer.headers:
            return replace(answer, is_inner=is_inner)
        reach = reach.past(sent.url)
        sent = _redirected(sent, answer)
    raise OSError(f"{without_secrets(sent.url)}: more than {MAX_REDIRECTS} redirects one after another")


def _redirected(sent: Sent, answer: Answer) -> Sent:
    """The request that a redirect asks for; proof and bodies, which may hold a password, stay with their host."""
    from requests.utils import requote_uri

    bare, _ = _split_user(sent.url)
    try:
        # Written as it is asked for: what a server sends may hold what a terminal obeys.
        url = requote_uri(urljoin(bare, answer.headers["Location"]))
    except ValueError:
        url = ""
    if not is_web(url):
        raise OSError(f"{without_secrets(sent.url)} redirects to something that is not http(s)")
    if _origin(url) != _origin(bare):
        if sent.body is not None:
            raise OSError(
                f"{without_secrets(sent.url)} redirects to {urlsplit(url).hostname}, where a request with a body is "
                "not sent on: it may hold secrets; use that address where it is to be trusted"
            )
        kept = {name: value for name, value in sent.headers.items() if name.lower() not in ("authorization", "cookie")}
        sent = replace(sent, headers=kept, proof={})
    elif "@" in urlsplit(sent.url).netloc:
        user = urlsplit(sent.url).netloc.rpartition("@")[0]
        parts = urlsplit(url)
        url = urlunsplit(parts._replace(netloc=f"{user}@{parts.netloc.rpartition('@')[2]}"))
    if answer.status == 303 or (answer.status in (301, 302) and sent.method == "POST"):
        sent = replace(sent, method="GET", body=None)
    return replace(sent, url=url)


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc.rpartition("@")[2].lower()


def _split_user(url: str) -> tuple[str, str]:
    """A URL without its user and password, and these two as `user:password`; "" where there are none."""
    parts = urlsplit(url)
    user, _, host = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=host)), unquote(user)


def _exchange_once(session: requests.Session, sent: Sent, limits: TimeLimits) -> Answer:
    from sits_pipeline.sources.connections import watched

    head_s = 2 * (limits.connect_s + limits.read_s)
    with watched(head_s) as watch:
        try:
            answer = _ask(session, sent, limits, watch)
        except Broken as error:
            if watch.is_late and not error.timed_out:
                raise _late(head_s) from None
            raise
        if watch.is_late:  # the end of a body without a length, which was cut from outside
            raise _late(head_s)
        return replace(answer, is_inner=watch.met_inner)


def _late(head_s: float) -> Broken:
    return Broken(f"no whole answer came within {head_s:g} s and what its bytes may take", timed_out=True)


def _ask(session: requests.Session, sent: Sent, limits: TimeLimits, watch: Watch) -> Answer:
    import requests
    from urllib3.exceptions import HTTPError

    bare, user = _split_user(sent.url)
    basic = {"Authorization": f"Basic {base64.b64encode(user.encode()).decode()}"} if user else {}
    # As it lies on the server: the length that is announced is that of the body, and ranges are ranges of the file.
    headers = {"User-Agent": "sits-cubes", "Accept-Encoding": "identity", **sent.headers, **basic, **sent.proof}
    try:
        with session.request(
            sent.method,
            bare,
            data=sent.body,
            headers=headers,
            stream=True,
            allow_redirects=False,
            timeout=(limits.connect_s, limits.read_s),
        ) as response:
            body = _body(response, sent, limits, watch)
            return Answer(response.status_code, response.headers, body)
    except (requests.exceptions.InvalidURL, requests.exceptions.InvalidHeader, UnicodeError):
        raise OSError(f"{without_secrets(sent.url)}: an address or a header that cannot be sent") from None
    except (Broken, _TooLargeError):
        raise
    except requests.exceptions.ConnectTimeout:
        raise Broken(f"no connection within {limits.connect_s:g} s", timed_out=True) from None
    except (requests.RequestException, HTTPError, OSError) as error:
        raise _broken(error, limits) from None


def _body(response: requests.Response, sent: Sent, limits: TimeLimits, watch: Watch) -> bytes:
    """The whole body; raises Broken where it is shorter than announced or comes too slowly."""
    raw: Any = response.raw
    announced = response.headers.get("Content-Length", "")
    chunked = "chunked" in response.headers.get("Transfer-Encoding", "").lower()
    is_stated = _LENGTH.fullmatch(announced) is not None and not chunked and sent.method != "HEAD"
    expected = int(announced) if is_stated else None
    started, body = time.monotonic(), bytearray()
    # Within a piece, which a server may break into the smallest ones, as long as silence may last.
    watch.extend(limits.body_s + limits.read_s)
    # What is there at once, so that a server that sends a byte now and then is noticed.
    while piece := raw.read1(_PIECE, decode_content=False):
        body += piece
        if len(body) > sent.max_bytes:
            raise _TooLargeError(
                f"{without_secrets(sent.url)}: larger than the {sent.max_bytes} bytes that are read at most"
            )
        if time.monotonic() - started > limits.body_s + len(body) / limits.bytes_a_second:
            said = f" of {expected}" if expected is not None else ""
            raise Broken(f"only {len(body)}{said} bytes came in {time.monotonic() - started:.0f} s", timed_out=True)
        passed_s = time.monotonic() - started
        watch.extend(limits.body_s + len(body) / limits.bytes_a_second - passed_s + limits.read_s)
    if expected is not None and len(body) != expected:
        raise Broken(f"the answer broke off after {len(body)} of {expected} bytes")
    raw.read()  # its end, so that the connection can be used again
    return bytes(body)


class _TooLargeError(OSError):
    """Not a matter of the connection."""


def _broken(error: Exception, limits: TimeLimits) -> Broken:
    """What to raise for an error of requests, urllib3 or the socket, whose own texts hold whole addresses."""
    from urllib3.exceptions import IncompleteRead, ReadTimeoutError

    chain = list(_chain(error))
    for inner in chain:
        if isinstance(inner, TimeoutError | ReadTimeoutError):
            return Broken(f"it sent nothing for {limits.read_s:g} s", timed_out=True)
        if isinstance(inner, IncompleteRead):
            return Broken(f"the answer broke off after {inner.partial} of {inner.partial + inner.expected} bytes")
    for inner in chain:
        if isinstance(inner, socket.gaierror):
            return Broken("its name is not known to this network")
        if isinstance(inner, OSError) and inner.strerror:
            return Broken(inner.strerror)
    return Broken(f"the connection broke off ({type(chain[-1]).__name__})")


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and those behind it: requests and urllib3 keep them as cause, context, reason or argument."""
    seen: list[BaseException] = []
    waiting: deque[object] = deque([error])
    while waiting:
        one = waiting.popleft()
        if isinstance(one, BaseException) and not any(one is other for other in seen):
            seen.append(one)
            yield one
            waiting.extend((getattr(one, "reason", None), *one.args, one.__cause__, one.__context__))


# Sessions


_MAX_REACHES = 64
"""Whose connections are kept: each host that a document on this machine names and that redirects has one of its own."""

_free: OrderedDict[Reach, deque[requests.Session]] = OrderedDict()
_lending = threading.Lock()


@contextmanager
def _session(reach: Reach) -> Iterator[requests.Session]:
    """A session for one request at a time, with the connections that it had kept, all of them within reach.

    Lent rather than held by threads, since those that read a cell end with it.
    """
    with _lending:
        free = _free.get(reach)
        session = free.pop() if free else None
    session = session or _new_session(reach)
    try:
        yield session
    finally:
        with _lending:
            _free.setdefault(reach, deque()).append(session)
            _free.move_to_end(reach)
            dropped = _free.popitem(last=False)[1] if len(_free) > _MAX_REACHES else ()
        for one in dropped:
            one.close()


def _forget_sessions() -> None:
    """In a forked child: its parent goes on with the connections, and a thread of that may have held the lock."""
    global _lending
    _lending = threading.Lock()
    _free.clear()


os.register_at_fork(after_in_child=_forget_sessions)


def _new_session(reach: Reach) -> requests.Session:
    from http.cookiejar import DefaultCookiePolicy

    from sits_pipeline.sources.connections import limited_session

    _hide_queries_in_logs()
    session = limited_session(reach)
    # Proxies and certificates of the environment are used, ~/.netrc is not: requests looks there where no auth is set.
    session.auth = _as_it_is
    # requests reads a redirect's body to see where it leads, also where it is told not to follow it.
    session.get_redirect_target = _nowhere  # type: ignore[assignment, method-assign]
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    return session


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _nowhere(_response: requests.Response) -> None:
    return None


class _WithoutQueries(logging.Filter):
    """urllib3 logs addresses with their query, which may be a signature."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = re.sub(r"\?[^\s\"')]*", "?...", record.getMessage()), ()
        return True


_WITHOUT_QUERIES = _WithoutQueries()


def _hide_queries_in_logs() -> None:
    for name in ("urllib3.connectionpool", "urllib3.connection", "urllib3.util.retry"):
        logging.getLogger(name).addFilter(_WITHOUT_QUERIES)  # once, however often it is added
