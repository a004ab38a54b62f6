"""OAuth tokens, one a process and client: fetched once, renewed before they expire, never written anywhere."""

from __future__ import annotations

import json
import math
import os
import threading
import time
from typing import Any
from urllib.parse import urlencode, urlsplit

from sentinelhub.config import SHConfig
from sentinelhub.constants import SHConstants
from sentinelhub.download.session import SentinelHubSession

from sits_pipeline.sources.exchange import Answer, Broken, Sent, TimeLimits, exchange
from sits_pipeline.sources.sentinel_hub.faults import Failed, Fault, broken, busy, is_passing, said

__all__ = ["TOKENS", "Tokens"]

_MAX_BYTES = 100_000
_UNKNOWN_LIFE_S = 60.0


class _Session(SentinelHubSession):
    """The library's session, whose request for a token ends in time, once, so that our own tries count it.

    Nor does it take the client's secret to another server, were it redirected there.
    """

    def __init__(self, config: SHConfig, limits: TimeLimits) -> None:
        self.limits = limits
        super().__init__(config)

    def _collect_new_token(self) -> dict[str, Any]:
        config, host = self.config, urlsplit(self.config.sh_token_url).netloc
        form = {
            "grant_type": "client_credentials",
            "client_id": config.sh_client_id,
            "client_secret": config.sh_client_secret,
        }
        sent = Sent(
            url=config.sh_token_url,
            method="POST",
            headers={**self.DEFAULT_HEADERS, **SHConstants.HEADERS},
            proof={},
            body=urlencode(form).encode(),
            max_bytes=_MAX_BYTES,
        )
        try:
            answer = exchange(sent, self.limits)
        except Broken as error:
            fault = broken(error, f"no token from {host}: ")
        except OSError as error:
            fault = Fault(f"no token: {error}", "final")
        else:
            # The gateway of the service itself counts in milliseconds; other token services do as everyone does.
            is_gateway = host == urlsplit(config.sh_base_url).netloc
            found = _judged(answer, host, unit_s=0.001 if is_gateway else 1.0)
            if not isinstance(found, Fault):
                return self._dated(found)
            fault = found
        raise Failed(fault)

    def _dated(self, token: dict[str, Any]) -> dict[str, Any]:
        try:
            life_s = float(token.get("expires_in", _UNKNOWN_LIFE_S))
        except (TypeError, ValueError, OverflowError):
            life_s = _UNKNOWN_LIFE_S
        if not math.isfinite(life_s):
            life_s = _UNKNOWN_LIFE_S
        # The library renews two minutes early, which for a short life would be before each request.
        self.refresh_before_expiry = min(self.DEFAULT_SECONDS_BEFORE_EXPIRY, life_s / 10)
        return {"access_token": token["access_token"], "expires_at": time.time() + life_s}


def _judged(answer: Answer, host: str, *, unit_s: float) -> dict[str, Any] | Fault:
    """The token in an answer, or what is wrong with it; nothing of the answer is quoted but the name of an error."""
    if answer.status == 429:
        return busy(answer, f"no token: {host} answered HTTP 429", unit_s=unit_s)
    if is_passing(answer.status):
        return Fault(f"no token: {host} answered HTTP {answer.status}", "silent")
    try:
        document = json.loads(answer.body)
    except (ValueError, RecursionError):
        document = None
    refused = isinstance(document, dict) and "error" in document
    if answer.status in (400, 401, 403) or (refused and answer.status < 300):
        why = said(answer)[:60] or f"HTTP {answer.status}"
        return Fault(f"no token: {host} does not accept this client ({why})", "credentials")
    if answer.status >= 300:
        return Fault(f"no token: {host} answered HTTP {answer.status}", "credentials")
    if not isinstance(document, dict) or not isinstance(document.get("access_token"), str):
        return Fault(f"no token: {host} answered something that is none", "silent")
    return document


class Tokens:
    """The sessions of this process."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._lock = threading.Lock()
        self._sessions: dict[tuple[str, ...], _Session] = {}
        self._failed: dict[tuple[str, ...], tuple[float, Fault]] = {}

    def headers(self, config: SHConfig, limits: TimeLimits) -> dict[str, str]:
        """Headers that prove who asks; raises Failed.

        Threads that come while a token is being fetched wait for it, and share the failure where there is none.
        """
        key, asked = _key(config), time.monotonic()
        with self._lock:
            when, fault = self._failed.get(key, (0.0, None))
            if fault is not None and when >= asked:
                raise Failed(fault)
            try:
                if key not in self._sessions:
                    self._sessions[key] = _Session(config, limits)
                self._sessions[key].limits = limits
                return dict(self._sessions[key].session_headers)
            except Failed as failed:
                self._failed[key] = (time.monotonic(), failed.fault)
                raise

    def renew(self, config: SHConfig, refused: dict[str, str]) -> None:
        """Forget the token in the headers `refused`, unless another thread has a newer one already."""
        with self._lock:
            session = self._sessions.get(_key(config))
            if session is not None and f"Bearer {session._token['access_token']}" == refused.get("Authorization"):
                del self._sessions[_key(config)]


def _key(config: SHConfig) -> tuple[str, ...]:
    return config.sh_client_id, config.sh_client_secret, config.sh_base_url, config.sh_token_url


TOKENS = Tokens()
"""That of this process: a child begins anew, since another thread may have held the lock when it was forked."""
os.register_at_fork(after_in_child=TOKENS.reset)
