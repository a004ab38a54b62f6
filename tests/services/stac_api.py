"""A loopback server that speaks as much of a STAC API as a test tells it to, and remembers what it was asked."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

Json = dict[str, Any]


@dataclass(frozen=True)
class Asked:
    """A request."""

    method: str
    path: str
    query: dict[str, list[str]]
    body: Json | None
    user: str | None
    """The header Authorization."""


Answers = Callable[[Asked], Json | bytes | int]
"""A document, bytes, or the status of an answer without one."""


class _Server(ThreadingHTTPServer):
    """Cuts the connections that clients keep when it goes."""

    daemon_threads = True

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._open: list[socket.socket] = []

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        self._open.append(connection)
        return connection, address

    def cut(self) -> None:
        for connection in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class StacApi:
    """Serves a root document at `/` and whatever `answers` says elsewhere; `{url}` in both stands for its address."""

    def __init__(self, answers: Answers, *, root: Json | None = None) -> None:
        self.asked: list[Asked] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def log_message(self, *args: object) -> None:
                pass

            def do_GET(self) -> None:
                outer.answer(self, None)

            def do_POST(self) -> None:
                outer.answer(self, json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._answers = answers
        self._root = root or root_document()
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._server.cut()
        self._thread.join()

    @property
    def searches(self) -> list[Asked]:
        return [one for one in self.asked if one.path.endswith("/search")]

    def answer(self, handler: BaseHTTPRequestHandler, body: Json | None) -> None:
        parts = urlsplit(handler.path)
        user = handler.headers.get("Authorization")
        asked = Asked(handler.command, parts.path, parse_qs(parts.query), body, user)
        self.asked.append(asked)
        found = self._root if parts.path in ("", "/") else self._answers(asked)
        text = b"" if isinstance(found, int) else found if isinstance(found, bytes) else json.dumps(found).encode()
        text = text.replace(b"{url}", self.url.encode())
        handler.send_response(found if isinstance(found, int) else 200)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(text)))
        handler.end_headers()
        handler.wfile.write(text)


def root_document(**changes: Any) -> Json:
    """What a STAC API with item search says at its root; it claims QUERY and FILTER as well."""
    conformance = ["core", "item-search", "item-search#query", "item-search#filter"]
    links = [
        {"rel": "self", "href": "{url}/", "type": "application/json"},
        {"rel": "root", "href": "{url}/", "type": "application/json"},
        *({"rel": "search", "href": "{url}/search", "method": method} for method in ("GET", "POST")),
    ]
    return {
        "type": "Catalog", "id": "api", "stac_version": "1.0.0", "description": "for tests",
        "conformsTo": [f"https://api.stacspec.org/v1.0.0/{name}" for name in conformance],
        "links": links, **changes,
    }  # fmt: skip


def page(items: Sequence[Json], following: Json | None = None) -> Json:
    """One page of a search; `following` is its link to the next, less `rel`."""
    links = [] if following is None else [{"rel": "next", **following}]
    return {"type": "FeatureCollection", "features": list(items), "links": links}


def replay(recorded: Sequence[Path], *, own: str) -> Answers:
    """Answers exactly as recorded exchanges did: the first to any search, each further one to the very body that was
    recorded for it, and, past the last one, as a search that is at its end was. `own` is the address recorded."""
    exchanges = [json.loads(path.read_text()) for path in recorded]

    def answers(asked: Asked) -> Json | bytes | int:
        if not asked.path.endswith("/search"):
            return 404
        if asked.body is None or "next" not in asked.body:
            return _served(exchanges[0], own)
        for exchange in exchanges[1:]:
            if exchange["request"]["body"] == asked.body:
                return _served(exchange, own)
        return _served(exchanges[-1], own) if not _features(exchanges[-1]) else 400

    return answers


def recorded_root(path: Path, *, own: str) -> Json:
    """A recorded root, be it an exchange or the document alone."""
    document = json.loads(path.read_text())
    body = document["response"]["body"] if "response" in document else document
    text = body if isinstance(body, str) else json.dumps(body)
    return dict(json.loads(text.replace(own, "{url}")))


def _features(exchange: Json) -> list[Json]:
    body = exchange["response"]["body"]
    return list((json.loads(body) if isinstance(body, str) else body)["features"])


def _served(exchange: Json, own: str) -> bytes | int:
    response = exchange["response"]
    if response["status"] != 200:
        return int(response["status"])
    body = response["body"] if isinstance(response["body"], str) else json.dumps(response["body"])
    return body.replace(own, "{url}").encode()
