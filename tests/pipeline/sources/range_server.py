"""A static http server on the loopback that answers ranges, counts what it sends, and misbehaves on request."""

from __future__ import annotations

import base64
import hashlib
import re
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from tests.services.loopback import Loopback, QuietHandler


class RangeServer(Loopback):
    def __init__(
        self, folder: Path, *, ranges: bool = True, tags: bool = True, user: str = "", token: str = ""
    ) -> None:
        self.folder = folder
        self.user = user
        """`user:password` without which nothing is sent, where the address names no token either."""
        self.token = token
        """`sig` in the query that opens every file."""
        self.ranges = ranges
        self.tags = tags
        self.requests: list[tuple[str, str | None]] = []
        self.bytes_sent = 0
        self.closed = False
        self.redirect_to: str | None = None
        self.fail_next: int = 0
        self.truncate = False
        self.shift_ranges = False
        outer = self

        class Handler(QuietHandler):
            def do_HEAD(self) -> None:
                outer.answer(self, body=False)

            def do_GET(self) -> None:
                outer.answer(self, body=True)

        super().__init__(Handler)

    def close(self) -> None:
        self.closed = True
        super().close()

    def answer(self, handler: BaseHTTPRequestHandler, *, body: bool) -> None:
        path = unquote(urlsplit(handler.path).path).lstrip("/")
        wanted = handler.headers.get("Range")
        if self.closed:  # over a connection that was kept
            handler.close_connection = True
            return None
        self.requests.append((path, wanted))
        if self.redirect_to is not None:
            return self._plain(handler, 302, {"Location": self.redirect_to})
        if not self._admits(handler):
            return self._plain(handler, 401, {})
        if self.fail_next > 0:
            self.fail_next -= 1
            return self._plain(handler, 503, {})
        file = self.folder / path
        if not file.is_file():
            return self._plain(handler, 404, {})
        data = file.read_bytes()
        headers = {"Content-Type": "application/octet-stream"}
        if self.tags:
            headers["ETag"] = f'"{hashlib.sha256(data).hexdigest()[:16]}"'
        status, part = 200, data
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted or "")
        if match and self.ranges:
            start, stop = int(match[1]), min(int(match[2] or len(data) - 1) + 1, len(data))
            if start >= len(data):
                return self._plain(handler, 416, {"Content-Range": f"bytes */{len(data)}"})
            status, part = 206, data[start:stop]
            said = start + 1 if self.shift_ranges else start
            headers["Content-Range"] = f"bytes {said}-{said + len(part) - 1}/{len(data)}"
        handler.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(part))}.items():
            handler.send_header(name, value)
        handler.end_headers()
        if self.truncate:
            part = part[: len(part) // 2]
            handler.close_connection = True
        if body:
            self.bytes_sent += len(part)
            handler.wfile.write(part)
        return None

    def _admits(self, handler: BaseHTTPRequestHandler) -> bool:
        signed = parse_qs(urlsplit(handler.path).query).get("sig") == [self.token]
        basic = f"Basic {base64.b64encode(self.user.encode()).decode()}"
        return not (self.token or self.user) or signed or handler.headers.get("Authorization") == basic

    def _plain(self, handler: BaseHTTPRequestHandler, status: int, headers: dict[str, str]) -> None:
        handler.send_response(status)
        for name, value in {**headers, "Content-Length": "0"}.items():
            handler.send_header(name, value)
        handler.end_headers()
