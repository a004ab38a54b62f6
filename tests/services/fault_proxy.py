"""A real HTTP proxy on the loopback that spoils some of the answers of the server behind it, the same ones each time.

    with FaultProxy(server.url, rates={"429": 0.05, "reset": 0.05}, seed=1, slow_s=0.05) as proxy:
        ...  # ask proxy.url + "/path" instead of server.url + "/path"
        print(proxy.injected)

Any method, headers and body reach the server as they were sent, `Host` included, so that a server which builds links
from it builds them to the proxy. What is spoilt depends on the seed, on method, path with query, range and body of a
request, and on how often that very request came before: never on time or on the order of threads.
"""

from __future__ import annotations

import hashlib
import http.client
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import urlsplit

__all__ = ["FAULTS", "FaultProxy"]

FAULTS = ("429", "503", "reset", "slow", "truncated")
"""429 with Retry-After; 503; the connection reset without an answer; a pause before the answer; the right
Content-Length, half of the body, and the end."""

_HOP_BY_HOP = {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}
_PIECE = 64 * 1024


class FaultProxy:
    """Stands in front of the server at `target` ("http://127.0.0.1:PORT") until it is closed."""

    def __init__(
        self,
        target: str,
        *,
        rates: Mapping[str, float],
        seed: int,
        slow_s: float = 0.05,
        always: Callable[[str], str | None] | None = None,
        retry_after_s: float = 0.05,
        retry_after_ms: bool = False,
    ) -> None:
        """`rates`: share of requests by fault; `always`: the fault of every request for a path, which has no query.

        `retry_after_s` is what a 429 asks to wait: in whole seconds, rounded up, or with `retry_after_ms` in
        milliseconds, as Sentinel Hub says it.
        """
        assert set(rates) <= set(FAULTS), rates
        self.rates, self.seed, self.slow_s, self.always = dict(rates), seed, slow_s, always
        self.retry_after = f"{retry_after_s * 1000:.0f}" if retry_after_ms else f"{-(-retry_after_s // 1):.0f}"
        self.injected: Counter[str] = Counter()
        """How often each fault was injected."""
        self.requests: list[tuple[str, str]] = []
        """Method and path of every request, in the order in which they came."""
        self.target = urlsplit(target).netloc
        self._asked: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._connections: set[socket.socket] = set()
        self._closed = False
        self._server = _server_for(self)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening and cut what is connected: from now on connections are refused. Once is enough."""
        with self._lock:
            closed, self._closed = self._closed, True
        if closed:
            return
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        with self._lock:
            open_ones, self._connections = self._connections, set()
        for connection in open_ones:
            with suppress(OSError):  # it may have ended
                connection.shutdown(socket.SHUT_RDWR)

    def fault_of(self, method: str, path: str, wanted: str, body: bytes) -> str | None:
        """What is to go wrong with a request that just came; None: nothing."""
        with self._lock:
            self.requests.append((method, path))
            key = f"{method} {path} {wanted} {hashlib.sha256(body).hexdigest()}"
            self._asked[key] += 1
            number = self._asked[key]
        fault = None if self.always is None else self.always(urlsplit(path).path)
        if fault is not None:
            return fault
        drawn = random.Random(f"{self.seed} {key} {number}").random()
        for name in FAULTS:
            drawn -= self.rates.get(name, 0.0)
            if drawn < 0:
                return name
        return None

    def count(self, fault: str) -> None:
        """One more was injected."""
        with self._lock:
            self.injected[fault] += 1

    def track(self, connection: socket.socket, *, is_open: bool) -> None:
        """A client came or went."""
        with self._lock:
            (self._connections.add if is_open else self._connections.discard)(connection)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no news."""


def _server_for(proxy: FaultProxy) -> _Server:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # An answer is written in parts: without this each waits for the acknowledgement of the one before.
        disable_nagle_algorithm = True

        def setup(self) -> None:
            super().setup()
            proxy.track(self.connection, is_open=True)
            self.upstream = http.client.HTTPConnection(proxy.target, timeout=30)

        def finish(self) -> None:
            self.upstream.close()
            proxy.track(self.connection, is_open=False)
            with suppress(OSError):  # nobody may listen any more
                super().finish()

        def log_message(self, *args: object) -> None:
            pass

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            fault = proxy.fault_of(self.command, self.path, self.headers.get("Range", ""), body)
            if fault in ("429", "503"):
                proxy.count(fault)
                return self.refuse(int(fault), {"Retry-After": proxy.retry_after} if fault == "429" else {})
            if fault == "reset":
                proxy.count(fault)
                return self.reset()
            if fault == "slow":
                proxy.count(fault)
                time.sleep(proxy.slow_s)
            self.forward(body, cut=fault == "truncated")
            return None

        do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = handle_any  # noqa: N815

        def forward(self, body: bytes, *, cut: bool) -> None:
            headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP_BY_HOP}
            try:
                answer = self.ask(body, headers)
                length = answer.getheader("Content-Length")
                whole = None if self.command == "HEAD" or length is not None else answer.read()
            except (OSError, http.client.HTTPException):
                self.upstream.close()
                return self.refuse(502, {})
            size = int(length or 0) if whole is None else len(whole)
            self.send_response_only(answer.status, answer.reason)
            for name, value in answer.getheaders():
                if name.lower() not in {*_HOP_BY_HOP, "content-length"}:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(size))
            self.end_headers()
            if self.command == "HEAD":
                answer.read()
                return None
            if cut and size > 1:
                proxy.count("truncated")
                self.wfile.write((answer.read() if whole is None else whole)[: size // 2])
                self.close_connection = True
            elif whole is not None:
                self.wfile.write(whole)
            else:
                self.stream(answer, size)
            return None

        def stream(self, answer: http.client.HTTPResponse, left: int) -> None:
            while left > 0:
                piece = answer.read(min(left, _PIECE))
                if not piece:
                    self.close_connection = True
                    return
                self.wfile.write(piece)
                left -= len(piece)
            answer.read()  # its end, so that the connection can be used again

        def ask(self, body: bytes, headers: Mapping[str, str]) -> http.client.HTTPResponse:
            """The server's answer, over the connection of the request before where that still holds."""
            for fresh in (False, True):
                try:
                    self.upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                    for name, value in headers.items():
                        self.upstream.putheader(name, value)
                    self.upstream.endheaders(body or None)
                    return self.upstream.getresponse()
                except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
                    self.upstream.close()
                    if fresh:
                        raise
            raise AssertionError("the second try returns or raises")

        def refuse(self, status: int, headers: Mapping[str, str]) -> None:
            self.send_response_only(status)
            for name, value in {**headers, "Content-Length": "0"}.items():
                self.send_header(name, value)
            self.end_headers()

        def reset(self) -> None:
            """End with RST, as a router that lost its table does: SO_LINGER of no time."""
            self.close_connection = True
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.rfile.close()
            self.wfile.close()
            # Closed here: the server would shut it down in order first.
            self.connection.close()

    return _Server(("127.0.0.1", 0), Handler)
