"""Planetary Computer: a shared access token in the query of every address, as long as it is good.

The package planetary-computer was looked at and not taken: it signs items rather than reads, renews a token when a
minute is left, without a lock, so that every thread fetches one of its own, and cannot drop one that was refused.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit, urlunsplit

from sits_catalog.addresses import without_secrets
from sits_pipeline.sources.access import Signed
from sits_pipeline.sources.tokens import Token, TokenKeeper, check_private, is_private, service_down
from sits_pipeline.sources.web import Web

__all__ = ["SAS_TOKEN_URL", "SasSigner"]

_ROOT = "https://planetarycomputer.microsoft.com/api/sas/v1/token"
SAS_TOKEN_URL = f"{_ROOT}/sentinel-2-l2a"
"""Gives a token for everything in the collection; PC_SDK_SAS_URL names another root of it."""

_BLOBS = ".blob.core.windows.net"
_MAX_BYTES = 100_000
_KEEPER = TokenKeeper()


@dataclass(frozen=True)
class SasSigner:
    """Signs addresses of Azure's blob storage, and of the token service's own host; others are left as they are."""

    token_url: str = SAS_TOKEN_URL

    def sign(self, url: str) -> Signed:
        """The address with a token; raises OSError where the token service gives none, ServiceDown where it is down."""
        parts = urlsplit(url)
        if not self._is_ours(url) or "sig" in parse_qs(parts.query):
            return Signed(url=url)
        token = _KEEPER.token(self._address(), lambda _last: self._fetch())
        query = f"{parts.query}&{token}" if parts.query else token
        return Signed(url=urlunsplit(parts._replace(query=query)))

    def renew(self, url: str) -> None:
        """Forget the token that this thread used last."""
        if self._is_ours(url):
            _KEEPER.refuse(self._address())

    def _is_ours(self, url: str) -> bool:
        """Whether an address may hold the token: never one that everybody on the way can read."""
        host = urlsplit(url).hostname or ""
        return is_private(url) and (host.endswith(_BLOBS) or host == urlsplit(self._address()).hostname)

    def _address(self) -> str:
        """Where tokens are had; the environment names another root for the provider's own alone."""
        root = os.environ.get("PC_SDK_SAS_URL", "").rstrip("/")
        if root and self.token_url.startswith(_ROOT):
            return root + self.token_url.removeprefix(_ROOT)
        return self.token_url

    def _fetch(self) -> Token:
        address, key = self._address(), os.environ.get("PC_SDK_SUBSCRIPTION_KEY", "")
        check_private(address, "PC_SDK_SAS_URL")
        proof = {"Ocp-Apim-Subscription-Key": key} if key else {}
        try:
            answer = Web().fetch(address, max_bytes=_MAX_BYTES, proof=proof)
        except ConnectionError as error:
            raise service_down(address, error) from error
        text, expiry = _read(answer.body, address)
        left = (expiry - datetime.now(UTC)).total_seconds()
        if left <= 0:
            raise OSError(
                f"{without_secrets(address)} gave a token that ended at {expiry:%Y-%m-%d %H:%M:%S} UTC; "
                "is this machine's clock right?"
            )
        return Token(text=text, expires=time.monotonic() + left)


def _read(body: bytes, address: str) -> tuple[str, datetime]:
    """Token and expiry of an answer, no part of which is quoted where it is wrong."""
    try:
        document = json.loads(body)
        text, expiry = document["token"], datetime.fromisoformat(document["msft:expiry"])
    except (ValueError, KeyError, TypeError, RecursionError):
        text, expiry = None, datetime.now(UTC)
    if not isinstance(text, str) or not text:
        raise OSError(f"{without_secrets(address)} gave no token: an object with token and msft:expiry was expected")
    return text.lstrip("?"), expiry if expiry.tzinfo else expiry.replace(tzinfo=UTC)
