"""A Sentinel Hub on one address of the loopback: OAuth, Catalog and Process over products of a simulated archive.

Written from the provider's public documentation (Process and Catalog API reference, evalscript V3, processing units,
rate limiting, metadata in evalscripts) and from what the client `sentinelhub` sends and parses; it shares no code with
the source that it tests.

    with SentinelHub(archive / "safe", token_s=300) as hub:
        hub.url, hub.token_url, hub.client, hub.secret
"""

from __future__ import annotations

import json
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from tests.services.sentinel_hub.catalog import Catalog
from tests.services.sentinel_hub.errors import Refused, bad_payload, unauthorized
from tests.services.sentinel_hub.oauth import Tokens
from tests.services.sentinel_hub.process import Process
from tests.services.sentinel_hub.tiles import Deployment, read_tiles

__all__ = ["CLIENT", "SECRET", "Received", "SentinelHub"]

CLIENT = "sh-11111111-2222-3333-4444-555555555555"
SECRET = "SECRET/of-the+client=SECRET"  # not safe in a URL as it is
_CATALOG = "/api/v1/catalog/1.0.0"
_PROCESS = ("/api/v1/process", "/process/v1")
_TOKEN = "/protocol/openid-connect/token"  # its address, after the realm

Json = dict[str, Any]


@dataclass(frozen=True)
class Received:
    """One request and how it was answered."""

    method: str
    path: str
    body: Json | None
    """Of JSON requests; those for tokens are not kept."""
    status: int
    message: str
    """Why it was refused; empty where it was not."""
    processing_units: float
    n_tiles: int
    n_bytes: int


class SentinelHub:
    """The service over the products of `folder`, until it is closed.

    Things that may be set while it runs: `lost`, products (with .SAFE) that Process no longer has though the Catalog
    lists them; `company_s`, how long Process waits at most until two requests were once there together; `failing`,
    which of its requests fail, and with which status; `expire_after`, the numbers of requests after which all tokens
    end.
    """

    def __init__(
        self,
        folder: Path,
        *,
        token_s: float = 300.0,
        page: int = 3,
        a_minute: int = 0,
        burst: int = 3,
        sparse: bool = False,
        deployment: Deployment = "cdse",
    ) -> None:
        """`page`: items a page of the Catalog; `a_minute`: requests allowed, 0: any, of which `burst` at once.

        `sparse`: see Process; `deployment`: whose names and paths tiles have.
        """
        self.tiles = read_tiles(folder, deployment)
        assert self.tiles, f"{folder} holds no products"
        self.client, self.secret = CLIENT, SECRET
        self.tokens = Tokens(CLIENT, SECRET, life_s=token_s)
        self.catalog = Catalog(self.tiles, page=page)
        self.process = Process(self.tiles, sparse=sparse)
        self.lost: set[str] = set()
        self.company_s = 0.0
        self.failing: Callable[[Json], int | None] = lambda request: None
        self.expire_after: set[int] = set()
        self.a_minute, self.burst = a_minute, burst
        self.received: list[Received] = []
        self.bugs: list[str] = []
        """Where the service itself broke, as tracebacks; the client is told 500."""
        self.most_at_once = 0
        """Requests with a token that were under way together, at most."""
        self._under_way = 0
        self._next = 0.0
        self._lock = threading.Lock()
        self._server = _server_for(self)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.token_url = f"{self.url}/auth/realms/CDSE{_TOKEN}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
        assert self.bugs == [], "\n".join(self.bugs)

    def close(self) -> None:
        """Stop listening; connections are refused from now on."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self.process.node.close()

    def requests_of(self, api: str) -> list[Received]:
        """Requests to "process" or "catalog", in the order in which they were answered."""
        starts = (_CATALOG,) if api == "catalog" else _PROCESS
        with self._lock:
            return [one for one in self.received if one.path.startswith(starts)]

    @property
    def spent(self) -> float:
        """Processing units that Process charged."""
        return sum(one.processing_units for one in self.requests_of("process"))

    def forget(self) -> None:
        """Begin to count anew."""
        with self._lock:
            self.received.clear()
            self.most_at_once = 0

    def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> tuple[int, Json, bytes]:
        """Status, headers and body."""
        authorization = headers.get("Authorization", "")
        if path.endswith((_TOKEN, "/oauth/token")):
            status, token = self.tokens.answer(authorization, body)
            return status, {"Content-Type": "application/json"}, json.dumps(token).encode()
        document: Json | None = None
        units, n_tiles = 0.0, 0
        try:
            with self._entered():
                document = _json(headers, body) if method == "POST" else None
                if not self.tokens.are_valid(authorization):
                    raise unauthorized()
                self._check_rate()
                status, head, content, units, n_tiles = self._computed(method, path, headers, document)
                message = ""
        except Refused as refused:
            status, message = refused.status, refused.message
            content = json.dumps(refused.body(catalog=path.startswith(_CATALOG))).encode()
            head = {"Content-Type": "application/json", **refused.headers}
        with self._lock:
            self.received.append(Received(method, path, document, status, message, units, n_tiles, len(content)))
            if len(self.received) in self.expire_after:
                self.tokens.expire()
        return status, head, content

    def _computed(
        self, method: str, path: str, headers: Mapping[str, str], document: Json | None
    ) -> tuple[int, Json, bytes, float, int]:
        root = f"http://{headers.get('Host', '')}{_CATALOG}"
        if method == "POST" and path in _PROCESS and document is not None:
            self._wait_for_company()
            if (status := self.failing(document)) is not None:
                raise Refused(status, "Something went wrong on our side")
            done = self.process.answer(document, headers.get("Accept", "*/*"), self.lost)
            head = {"Content-Type": done.content_type, "x-processingunits-spent": f"{done.processing_units:.12g}"}
            return 200, head, done.body, done.processing_units, done.n_tiles
        if path.startswith(_CATALOG):
            below = path.removeprefix(_CATALOG)
            if method == "POST" and below == "/search" and document is not None:
                found = self.catalog.search(document, root)
            elif method == "GET":
                found = self.catalog.answer(below, root)
            else:
                raise Refused(405, "Method not allowed", "COMMON_METHOD_NOT_ALLOWED")
            return 200, {"Content-Type": "application/json"}, json.dumps(found).encode(), 0.0, 0
        raise Refused(404, f"Illegal request to {path}: there is nothing", "COMMON_NOT_FOUND")

    @contextmanager
    def _entered(self) -> Iterator[None]:
        with self._lock:
            self._under_way += 1
            self.most_at_once = max(self.most_at_once, self._under_way)
        try:
            yield
        finally:
            with self._lock:
                self._under_way -= 1

    def _wait_for_company(self) -> None:
        """So that requests which may come together do, however slow the machine is."""
        until = time.monotonic() + self.company_s
        while self.most_at_once < 2 and time.monotonic() < until:
            time.sleep(0.01)

    def _check_rate(self) -> None:
        """Refuse a request that comes too early; Retry-After is in milliseconds, as the provider says it."""
        if not self.a_minute:
            return
        pause = 60 / self.a_minute
        with self._lock:
            now = time.monotonic()
            self._next = max(self._next, now - pause * (self.burst - 1))
            wait = self._next - now
            if wait <= 0:
                self._next += pause
                return
        headers = {"Retry-After": str(int(wait * 1000) + 1)}
        raise Refused(429, "You have exceeded your rate limit", "RATE_LIMIT_EXCEEDED", headers=headers)


def _json(headers: Mapping[str, str], body: bytes) -> Json:
    if headers.get("Content-Type", "").split(";")[0].strip().lower() != "application/json":
        raise Refused(415, "Unsupported Media Type", "COMMON_UNSUPPORTED_MEDIA_TYPE")
    try:
        document = json.loads(body)
    except ValueError:
        raise bad_payload("body", "is no JSON") from None
    if not isinstance(document, dict):
        raise bad_payload("body", "is no object")
    return document


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no news."""


def _server_for(hub: SentinelHub) -> _Server:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *args: object) -> None:
            pass

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            try:
                status, headers, content = hub.answer(self.command, urlsplit(self.path).path, self.headers, body)
            except Exception:  # noqa: BLE001  # `__exit__` shows it
                hub.bugs.append(traceback.format_exc())
                status, headers, content = 500, {}, b""
            with suppress(ConnectionError):
                self.send_response_only(status)
                for name, value in {**headers, "Content-Length": str(len(content))}.items():
                    self.send_header(name, str(value))
                self.end_headers()
                self.wfile.write(content)

        do_GET = do_POST = do_DELETE = do_PUT = handle_any  # noqa: N815

    return _Server(("127.0.0.1", 0), Handler)
