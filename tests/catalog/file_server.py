"""A file server on the loopback with ranges and If-Range, which can cut, stall, change and lie on request."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

from tests.services.loopback import Loopback, QuietHandler


@dataclass
class Behaviour:
    """How the files are served."""

    ranges: bool = True
    tags: bool = True
    cut_after: list[int] = field(default_factory=list)
    """Body bytes after which each of the next answers breaks off."""
    statuses: list[int] = field(default_factory=list)
    """Statuses of the next answers, in place of a file; 0 is the file."""
    stall_after: int | None = None
    """Body bytes after which an answer stands still until `go_on` is set."""
    redirect: Mapping[str, str] = field(default_factory=dict)
    says_longer: int = 0
    """Bytes that Content-Length says too much."""
    lengths: bool = True
    """Whether a whole file comes with its Content-Length; else in chunks."""
    parts_end_at: list[int] = field(default_factory=list)
    """Byte of the file at which each of the next partial answers ends, and says so."""


class FileServer(Loopback):
    """Serves `files`, by path without the first slash, until it is closed."""

    def __init__(self, files: dict[str, bytes], behaviour: Behaviour | None = None) -> None:
        self.files = files
        self.behaviour = behaviour or Behaviour()
        self.requests: list[tuple[str, str | None]] = []
        """Path and range of each request."""
        self.headers: list[dict[str, str]] = []
        self.sent = 0
        """Body bytes."""
        self.go_on = threading.Event()
        outer = self

        class Handler(QuietHandler):
            def do_GET(self) -> None:
                outer.answer(self)

        super().__init__(Handler)

    def close(self) -> None:
        self.go_on.set()
        super().close()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        path, _, _ = handler.path.lstrip("/").partition("?")
        wanted = handler.headers.get("Range")
        self.requests.append((path, wanted))
        self.headers.append(dict(handler.headers.items()))
        how = self.behaviour
        if how.statuses and (status := how.statuses.pop(0)):
            return self._empty(handler, status)
        if path in how.redirect:
            return self._empty(handler, 302, {"Location": how.redirect[path]})
        if path not in self.files:
            return self._empty(handler, 404)
        body = self.files[path]
        tag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
        if how.tags and handler.headers.get("If-None-Match") == tag:
            return self._empty(handler, 304, {"ETag": tag})
        status, part, extra = 200, body, {"ETag": tag} if how.tags else {}
        match = re.fullmatch(r"bytes=(\d+)-", wanted or "")
        if match and how.ranges and handler.headers.get("If-Range", tag) == tag:
            start = int(match[1])
            if start >= len(body):
                return self._empty(handler, 416, {"Content-Range": f"bytes */{len(body)}"})
            end = how.parts_end_at.pop(0) if how.parts_end_at else len(body)
            status, part = 206, body[start:end]
            extra["Content-Range"] = f"bytes {start}-{end - 1}/{len(body)}"
        chunked = status == 200 and not how.lengths
        length = {"Transfer-Encoding": "chunked"} if chunked else {"Content-Length": str(len(part) + how.says_longer)}
        handler.send_response(status)
        for name, value in {**extra, **length}.items():
            handler.send_header(name, value)
        handler.end_headers()
        if chunked:
            handler.wfile.write(f"{len(part):x}\r\n".encode())
        self._send(handler, part)
        if chunked and not handler.close_connection:
            handler.wfile.write(b"\r\n0\r\n\r\n")
        return None

    def _send(self, handler: BaseHTTPRequestHandler, part: bytes) -> None:
        how = self.behaviour
        stop = how.cut_after.pop(0) if how.cut_after else len(part)
        if how.stall_after is not None and how.stall_after < len(part):
            first, how.stall_after = part[: how.stall_after], None
            self.sent += len(first)
            handler.wfile.write(first)
            self.go_on.wait(60)
            handler.close_connection = True
            return
        # Counted first: whoever has got it all may ask at once.
        self.sent += len(part[:stop])
        handler.wfile.write(part[:stop])
        if stop < len(part) or how.says_longer:
            handler.close_connection = True

    def _empty(self, handler: BaseHTTPRequestHandler, status: int, headers: Mapping[str, str] | None = None) -> None:
        handler.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": "0"}.items():
            handler.send_header(name, value)
        handler.end_headers()
