"""Copernicus Data Space over https: a bearer token for a user's name and password, renewed while the session lasts."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit

from sits_catalog.addresses import without_secrets
from sits_pipeline.sources.access import Signed
from sits_pipeline.sources.base import CredentialsError, ServiceDown
from sits_pipeline.sources.tokens import Token, TokenKeeper, check_private, is_loopback, is_private, service_down
from sits_pipeline.sources.web import Web

__all__ = ["CDSE_TOKEN_URL", "OidcSigner"]

CDSE_TOKEN_URL = "https://identity.dataspace.copernicus.eu/auth/realms/CDSE/protocol/openid-connect/token"  # noqa: S105  # no secret
"""CDSE_TOKEN_URL in the environment names another one."""

_DOMAIN = ".dataspace.copernicus.eu"
"""Of the provider's hosts; another token service's parent domain may be anybody's."""
_CLIENT = "cdse-public"
_MAX_BYTES = 100_000
_KEEPER = TokenKeeper()


@dataclass(frozen=True)
class OidcSigner:
    """Adds a bearer token to https requests of the provider's hosts and the token service's; others never see it."""

    token_url: str = CDSE_TOKEN_URL

    def sign(self, url: str) -> Signed:
        """The address with a header; raises OSError where credentials are missing or refused, ServiceDown."""
        if not self._is_ours(url):
            return Signed(url=url)
        token = _KEEPER.token(self._address(), self._fetch)
        return Signed(url=url, headers={"Authorization": f"Bearer {token}"})

    def renew(self, url: str) -> None:
        """Forget the token that this thread used last."""
        if self._is_ours(url):
            _KEEPER.refuse(self._address())

    def _address(self) -> str:
        named = os.environ.get("CDSE_TOKEN_URL", "")
        return named if named and self.token_url == CDSE_TOKEN_URL else self.token_url

    def _is_ours(self, url: str) -> bool:
        """Whether an address that an item names may see the token: items are not to be trusted with it."""
        if not is_private(url):
            return False
        host, service = urlsplit(url).hostname or "", urlsplit(self._address()).hostname or ""
        own = self.token_url == CDSE_TOKEN_URL and host.endswith(_DOMAIN)
        return own or host == service or (is_loopback(host) and is_loopback(service))

    def _fetch(self, last: Token | None) -> Token:
        if last is not None and last.renew_with and time.monotonic() < last.renew_until:
            try:
                return self._ask({"grant_type": "refresh_token", "refresh_token": last.renew_with})
            except ServiceDown:
                raise
            except OSError:
                pass  # The session may have ended early: ask for a new one, whose failure is told.
        return self._ask({"grant_type": "password", **_credentials()})

    def _ask(self, form: Mapping[str, str]) -> Token:
        address = self._address()
        check_private(address, "CDSE_TOKEN_URL")
        body = urlencode({**form, "client_id": _CLIENT}).encode()
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        try:
            answer = Web().fetch(address, max_bytes=_MAX_BYTES, headers=headers, method="POST", body=body)
        except PermissionError as error:
            raise CredentialsError(
                f"{without_secrets(address)} refused CDSE_USERNAME and CDSE_PASSWORD; try them at "
                "https://dataspace.copernicus.eu (accounts with a second factor cannot be used here)"
            ) from error
        except ConnectionError as error:
            raise service_down(address, error) from error
        return _read(answer.body, address)


def _credentials() -> dict[str, str]:
    name, word = (os.environ.get(variable, "") for variable in ("CDSE_USERNAME", "CDSE_PASSWORD"))
    if not name or not word:
        raise CredentialsError(
            "Copernicus Data Space asks who reads its files: set CDSE_USERNAME and CDSE_PASSWORD to those of an "
            "account of https://dataspace.copernicus.eu"
        )
    return {"username": name, "password": word}


def _read(body: bytes, address: str) -> Token:
    """The token of an answer, no part of which is quoted where it is wrong."""
    now = time.monotonic()
    try:
        document = json.loads(body)
        text, life = document["access_token"], float(document["expires_in"])
        renew_with, renew_for = document.get("refresh_token") or "", float(document.get("refresh_expires_in") or 0)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        text, life, renew_with, renew_for = None, 0.0, "", 0.0
    lives = math.isfinite(life) and math.isfinite(renew_for)
    if not isinstance(text, str) or not text or not isinstance(renew_with, str) or not lives:
        raise OSError(
            f"{without_secrets(address)} gave no token: an object with access_token and expires_in was expected"
        )
    return Token(text=text, expires=now + life, renew_with=renew_with, renew_until=now + renew_for * 0.9)
