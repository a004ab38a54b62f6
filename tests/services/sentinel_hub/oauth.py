"""OAuth 2 client credentials: tokens that live for a while."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Mapping
from urllib.parse import parse_qs, unquote

__all__ = ["Tokens"]


class Tokens:
    """Issues tokens to one client and knows which are valid."""

    def __init__(self, client: str, secret: str, *, life_s: float) -> None:
        self.client, self.secret, self.life_s = client, secret, life_s
        self.issued: list[str] = []
        self.refused = 0
        self._until: dict[str, float] = {}
        self._lock = threading.Lock()

    def answer(self, authorization: str, body: bytes) -> tuple[int, dict[str, object]]:
        """Status and JSON for a request to the token endpoint: credentials in the body, or as basic authentication."""
        form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
        if form.get("grant_type") != "client_credentials":
            return 400, {"error": "unsupported_grant_type", "error_description": "Unsupported grant_type"}
        if self._credentials(authorization, form) != (self.client, self.secret):
            self.refused += 1
            description = "Invalid client or Invalid client credentials"
            return 401, {"error": "unauthorized_client", "error_description": description}
        return 200, {
            "access_token": self._issue(),
            # Whole seconds, as RFC 6749 has it.
            "expires_in": int(self.life_s),
            "refresh_expires_in": 0,
            "token_type": "Bearer",
            "not-before-policy": 0,
            "scope": "email profile user-context",
        }

    def are_valid(self, authorization: str) -> bool:
        """Whether a request's header carries a token that has not expired."""
        kind, _, token = authorization.partition(" ")
        with self._lock:
            return kind == "Bearer" and time.monotonic() < self._until.get(token, 0.0)

    def expire(self) -> None:
        """End the life of every token that was issued."""
        with self._lock:
            self._until.clear()

    def _issue(self) -> str:
        with self._lock:
            claims = {"azp": self.client, "exp": int(time.time() + self.life_s), "jti": len(self.issued)}
            parts = ({"alg": "none", "typ": "JWT"}, claims)
            token = ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)
            token = f"{token}.SIGNATURE-{len(self.issued)}-OF-A-TOKEN"
            self.issued.append(token)
            self._until[token] = time.monotonic() + self.life_s
            return token

    @staticmethod
    def _credentials(authorization: str, form: Mapping[str, str]) -> tuple[str, str]:
        kind, _, code = authorization.partition(" ")
        if kind.lower() == "basic":
            client, _, secret = base64.b64decode(code).decode().partition(":")
            return unquote(client), unquote(secret)
        return form.get("client_id", ""), form.get("client_secret", "")
