"""Services on the loopback that hand out tokens which expire, and servers of files that ask for them."""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.pipeline.sources.range_server import RangeServer
from tests.services.loopback import Loopback, QuietHandler


@dataclass
class Issued:
    """The tokens of one service; `revoke` ends all that were given out so far."""

    life_s: float
    texts: list[str] = field(default_factory=list)
    _ends: dict[str, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def new(self) -> str:
        text = f"SECRET{secrets.token_hex(8)}"
        with self._lock:
            self.texts.append(text)
            self._ends[text] = time.monotonic() + self.life_s
        return text

    def holds(self, text: str) -> bool:
        with self._lock:
            return time.monotonic() < self._ends.get(text, 0.0)

    def revoke(self) -> None:
        with self._lock:
            self._ends.clear()

    def revoke_when_old(self) -> None:
        """End them when they are no longer so young that a refusal is taken for the file's (a hundredth of a life)."""
        time.sleep(self.life_s / 90)
        self.revoke()

    def wait_for_the_end(self) -> None:
        """Until no token that was given out so far is good."""
        while any(self.holds(text) for text in self.texts):
            time.sleep(0.02)


class LoopbackServer(Loopback):
    """An http server whose requests one function answers: (method, path with query, headers, body) to status, JSON."""

    def __init__(
        self,
        answer: Callable[[str, str, Any, bytes], tuple[int, object]],
        *,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        more = {"Content-Type": "application/json", **(headers or {})}

        class Handler(QuietHandler):
            def do_GET(self) -> None:
                self.reply("GET")

            def do_POST(self) -> None:
                self.reply("POST")

            def reply(self, method: str) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status, document = answer(method, self.path, self.headers, body)
                content = document if isinstance(document, bytes) else json.dumps(document).encode()
                self.send_response(status)
                for name, value in more.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        super().__init__(Handler)


class SasService(LoopbackServer):
    """Gives shared access tokens as Planetary Computer does, below /api/sas/v1/token."""

    def __init__(self, life_s: float = 3600.0, *, key: str = "", delay_s: float = 0.0) -> None:
        self.tokens = Issued(life_s)
        self.key = key
        """Subscription key without which no token is given."""
        self.delay_s = delay_s
        self.fails = False
        self.says: object = None
        """Given instead of a token."""
        super().__init__(self.answer)
        self.root = f"{self.url}/api/sas/v1/token"
        self.token_url = f"{self.root}/sentinel-2-l2a"

    def answer(self, method: str, path: str, headers: Any, body: bytes) -> tuple[int, object]:
        if (method, path) != ("GET", "/api/sas/v1/token/sentinel-2-l2a"):
            return 404, {}
        if self.key and headers.get("Ocp-Apim-Subscription-Key") != self.key:
            return 401, {"statusCode": 401}
        if self.fails:
            return 400, {}
        time.sleep(self.delay_s)
        if self.says is not None:
            return 200, self.says
        end = datetime.now(UTC) + timedelta(seconds=self.tokens.life_s)
        query = f"st=2026-01-01T00%3A00%3A00Z&sp=rl&sr=c&sig={self.tokens.new()}%2B"
        return 200, {"msft:expiry": end.isoformat().replace("+00:00", "Z"), "token": query}

    def admits(self, handler: BaseHTTPRequestHandler) -> bool:
        """Whether the query of a request holds a token that is good now."""
        (text,) = parse_qs(urlsplit(handler.path).query).get("sig", [""])
        return text.endswith("+") and self.tokens.holds(text[:-1])


class OidcService(LoopbackServer):
    """Gives bearer tokens for a user's password or a refresh token, as Copernicus Data Space does."""

    def __init__(self, life_s: float = 600.0, *, session_s: float = 3600.0) -> None:
        self.tokens, self.sessions = Issued(life_s), Issued(session_s)
        self.user, self.password = "me@example.org", "SECRET word&more"
        self.grants: list[str] = []
        self.refuses = 0
        """Status that all requests get; 0: none."""
        super().__init__(self.answer)
        self.token_url = f"{self.url}/auth/realms/CDSE/protocol/openid-connect/token"

    def answer(self, method: str, path: str, headers: Any, body: bytes) -> tuple[int, object]:
        if method != "POST" or f"{self.url}{path}" != self.token_url:
            return 404, {}
        form = {key: values[0] for key, values in parse_qs(body.decode()).items()}
        self.grants.append(form.get("grant_type", ""))
        if self.refuses:
            return self.refuses, {}
        if form.get("client_id") != "cdse-public":
            return 401, {"error": "invalid_client"}
        if form.get("grant_type") == "refresh_token":
            if not self.sessions.holds(form.get("refresh_token", "")):
                return 400, {"error": "invalid_grant", "error_description": "Token is not active"}
        elif (form.get("username"), form.get("password")) != (self.user, self.password):
            return 401, {"error": "invalid_grant", "error_description": "Invalid user credentials"}
        return 200, {
            "access_token": self.tokens.new(),
            "expires_in": self.tokens.life_s,
            "refresh_token": self.sessions.new(),
            "refresh_expires_in": self.sessions.life_s,
            "token_type": "Bearer",
        }

    def admits(self, handler: BaseHTTPRequestHandler) -> bool:
        """Whether a request bears a token that is good now."""
        kind, _, text = (handler.headers.get("Authorization") or "").partition(" ")
        return kind == "Bearer" and self.tokens.holds(text)


class BlobServer(RangeServer):
    """Serves the files of a folder, by ranges, to those whom a token service admits; 403 to all others."""

    def __init__(self, folder: Path, admits: Callable[[BaseHTTPRequestHandler], bool]) -> None:
        self.admits = admits
        self.refused = 0
        self.served: list[float] = []
        self.left: list[int] = []
        """At these numbers of requests that were served, `act` is called before the next one, once each."""
        self.act: Callable[[], None] = lambda: None
        self._lock = threading.Lock()
        super().__init__(folder)

    def at(self, counts: list[int], act: Callable[[], None]) -> None:
        """Call `act` before a request once so many were served, at each of the counts."""
        self.left, self.act = sorted(counts), act

    def answer(self, handler: BaseHTTPRequestHandler, *, body: bool) -> None:
        with self._lock:
            if self.left and len(self.served) >= self.left[0]:
                self.left.pop(0)
                self.act()
        if not self.admits(handler):
            self.refused += 1
            return self._plain(handler, 403, {})
        self.served.append(time.monotonic())
        return super().answer(handler, body=body)
