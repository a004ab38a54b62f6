"""Servers for this machine alone: bound to its loopback, deaf to other names, and patient only for so long."""

from __future__ import annotations

import re
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import BaseServer
from typing import Any

__all__ = ["HOST", "NOTHING", "OwnHandler", "Server"]

HOST = "127.0.0.1"
NOTHING = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
"""The content security policy of what is no page: nothing of it is run, shown in a frame or sent anywhere.

Styles are those that a browser puts around a picture.
"""

_OWN_NAME = re.compile(r"(127\.0\.0\.1|localhost)(:[0-9]{1,5})?", re.IGNORECASE)
_SILENCE_S = 60.0
"""How long a client may send or take nothing."""
_REQUEST_S = 60.0
"""How long the whole of a request may take to arrive, however it trickles."""
_MAX_AT_ONCE = 64
"""Connections; a browser opens six. Those above are closed at once."""
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Server(ThreadingHTTPServer):
    """On the loopback; a port of 0 is any free one. Raises OSError where the port is taken."""

    daemon_threads = True

    def __init__(self, port: int, handler: type[BaseHTTPRequestHandler]) -> None:
        self._places = threading.BoundedSemaphore(_MAX_AT_ONCE)
        try:
            super().__init__((HOST, port), handler)
        except OSError as error:
            raise OSError(f"port {port} of {HOST} is taken ({error.strerror}); name another with --port") from error

    @property
    def address(self) -> str:
        """Where it answers."""
        return f"http://{HOST}:{self.server_address[1]}"

    @contextmanager
    def running(self) -> Iterator[None]:
        """Answers until the block ends."""
        thread = threading.Thread(target=self.serve_forever, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self.shutdown()
            thread.join()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread of its own, as long as there is a place."""
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer, and give the place back."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no error of ours; anything else is shown as it is."""
        if not isinstance(sys.exception(), (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


class OwnHandler(BaseHTTPRequestHandler):
    """Answers who asks for this machine by its own name, and says in every answer what a browser may do with it."""

    server: BaseServer
    timeout = _SILENCE_S
    server_version = "sits-catalog"
    sys_version = ""
    default_request_version = "HTTP/1.0"
    """Else what cannot be understood is answered without any header."""
    policy = NOTHING
    """Content security policy of the answer."""

    def handle(self) -> None:
        """One request; what has not arrived in time never will."""
        timer = threading.Timer(_REQUEST_S, _stop_reading, (self.connection,))
        timer.daemon = True
        timer.start()
        try:
            super().handle()
        finally:
            timer.cancel()

    def parse_request(self) -> bool:
        """Whether the request is one to answer. A path is asked for, never another server's address."""
        if not super().parse_request():
            return False
        # A page elsewhere whose name was pointed at 127.0.0.1 sends its own name here.
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1 or not _OWN_NAME.fullmatch(hosts[0].strip()):
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST)
        elif not self.path.startswith("/"):
            self.send_error(HTTPStatus.BAD_REQUEST)
        else:
            return True
        return False

    def end_headers(self) -> None:
        """The headers that every answer has, errors too."""
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Security-Policy", self.policy)
        super().end_headers()

    def log_message(self, *args: object) -> None:
        """Nothing is logged."""


def _stop_reading(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RD)
