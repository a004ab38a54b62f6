"""OAuth tokens, one a process and client: fetched once, renewed before they expire, never written anywhere."""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import Any

from oauthlib.oauth2 import BackendApplicationClient  # type: ignore[import-untyped]  # published without types
from requests_oauthlib import OAuth2Session  # type: ignore[import-untyped]  # published without types
from sentinelhub.config import SHConfig
from sentinelhub.constants import SHConstants
from sentinelhub.download.session import SentinelHubSession

__all__ = ["TOKENS", "Tokens"]

_UNKNOWN_LIFE_S = 60.0

for _chatty in ("oauthlib", "requests_oauthlib"):
    # At level DEBUG they log client secrets and tokens.
    logging.getLogger(_chatty).setLevel(logging.INFO)


class _Session(SentinelHubSession):
    """The library's session, whose request for a token ends in time, once, so that our own tries count it."""

    def _collect_new_token(self) -> dict[str, Any]:
        with OAuth2Session(client=BackendApplicationClient(client_id=self.config.sh_client_id)) as oauth:
            oauth.register_compliance_hook("access_token_response", self._compliance_hook)
            token: dict[str, Any] = oauth.fetch_token(
                token_url=self.config.sh_token_url,
                client_id=self.config.sh_client_id,
                client_secret=self.config.sh_client_secret,
                headers={**self.DEFAULT_HEADERS, **SHConstants.HEADERS},
                include_client_id=True,
                timeout=self.config.download_timeout_seconds,
            )
        # The library renews two minutes early, which for a short life would be before each request.
        life_s = float(token.get("expires_in", _UNKNOWN_LIFE_S))
        token.setdefault("expires_at", time.time() + life_s)
        self.refresh_before_expiry = min(self.DEFAULT_SECONDS_BEFORE_EXPIRY, life_s / 10)
        return token


class Tokens:
    """The sessions of this process."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._lock = threading.Lock()
        self._sessions: dict[tuple[str, ...], _Session] = {}

    def headers(self, config: SHConfig) -> dict[str, str]:
        """Headers that prove who asks; raises what `requests` and `oauthlib` raise."""
        key = _key(config)
        with self._lock:
            if key not in self._sessions:
                self._sessions[key] = _Session(config)
            return dict(self._sessions[key].session_headers)

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
