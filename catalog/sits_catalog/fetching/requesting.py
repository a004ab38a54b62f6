"""One GET over https without credentials: redirects checked, and errors told apart by whether a retry can help.

A redirect leads to public hosts alone, or to the one that was asked (`sits_catalog.reach`).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from sits_catalog.addresses import without_secrets
from sits_catalog.reach import Reach, Refused

if TYPE_CHECKING:
    import requests

__all__ = ["AttemptError", "check_address", "get"]

_REDIRECTS = 8
_TIMEOUT_S = (30.0, 120.0)
"""To connect, and between two pieces of an answer."""
_LATER = (408, 425, 429, 500, 502, 503, 504)
_MAX_WAIT_S = 120.0


class AttemptError(Exception):
    """An attempt that failed, where another one can succeed."""

    def __init__(self, sentence: str, *, wait_s: float = 0.0) -> None:
        super().__init__(sentence)
        self.wait_s = wait_s
        """What the server asked to wait."""


def check_address(address: str) -> None:
    """Raises ValueError for an address that is not https; http is for this machine alone."""
    parts = urlsplit(address)
    if parts.username or parts.password:
        raise ValueError(f"the address {without_secrets(address)} holds a user or password, and none is ever sent")
    if parts.scheme == "https" and parts.hostname:
        return
    if not (parts.scheme == "http" and _is_this_machine(parts.hostname or "")):
        raise ValueError(f"parcels are fetched over https alone, and {without_secrets(address)} is not")


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@contextmanager
def get(address: str, headers: Mapping[str, str]) -> Iterator[requests.Response]:
    """The answer to a GET, whose body is not read yet; 200, 206, 304 and 416 are answers.

    Raises `AttemptError` where another attempt can help, FileNotFoundError, PermissionError or OSError where none does.
    """
    import requests
    from urllib3.exceptions import HTTPError

    with requests.Session() as session:
        session.auth = _nobody  # without it the user's .netrc would be sent
        # requests looks where a redirect leads also where it is told not to follow it, and may not understand it.
        session.get_redirect_target = _nowhere  # type: ignore[assignment, method-assign]
        try:
            with _followed(session, address, headers) as answer:
                _check_status(answer, address)
                yield answer
        except requests.exceptions.SSLError as error:
            raise OSError(f"the certificate of {_host(address)} was refused: {_last(error)}") from error
        except requests.exceptions.RequestException as error:
            raise AttemptError(f"{without_secrets(address)} broke off: {_last(error)}") from error
        except HTTPError as error:
            raise AttemptError(f"{without_secrets(address)} broke off: {_last(error)}") from error


def _nobody(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _nowhere(_answer: requests.Response) -> None:
    return None


@contextmanager
def _followed(session: requests.Session, address: str, headers: Mapping[str, str]) -> Iterator[requests.Response]:
    here, reach = address, Reach.of(address)
    if _is_this_machine(_host(address)):
        session.trust_env = False  # no proxy leads to this machine
    for _ in range(_REDIRECTS):
        check_address(here)
        with session.get(here, headers=headers, stream=True, allow_redirects=False, timeout=_TIMEOUT_S) as answer:
            if not answer.is_redirect:
                yield answer
                return
            said = answer.headers["Location"]
        try:
            there = urljoin(here, said)
            check_address(there)
            reach.check_target(there)
        except (ValueError, Refused) as error:
            raise OSError(f"{without_secrets(address)} leads elsewhere, which is not followed: {error}") from error
        here = there
    raise OSError(f"{without_secrets(address)} leads from one address to the next, {_REDIRECTS} times; not followed")


def _check_status(answer: requests.Response, address: str) -> None:
    status, clean = answer.status_code, without_secrets(address)
    if status in (200, 206, 304, 416):
        coding = answer.headers.get("Content-Encoding", "identity")
        if coding != "identity":
            raise OSError(f"{clean} sends its file {coding}-coded although it was asked not to; fetch it by hand")
        return
    if status in (404, 410):
        raise FileNotFoundError(
            f"nothing is at {clean} any more (status {status}): the provider may have moved it; look at their page "
            "and name the file with --parcels FILE"
        )
    if status in (401, 403):
        raise PermissionError(
            f"{clean} is not open to everybody (status {status}); see the provider's page, fetch it by hand and name "
            "the file with --parcels FILE"
        )
    if status in _LATER:
        raise AttemptError(f"{clean} answered with status {status}", wait_s=_retry_after(answer))
    raise OSError(f"{clean} answered with status {status}, which nobody expected")


def _retry_after(answer: requests.Response) -> float:
    """Seconds of the header Retry-After; a date counts as none."""
    text = answer.headers.get("Retry-After", "")
    return min(float(text), _MAX_WAIT_S) if text.isdigit() else 0.0


def _host(address: str) -> str:
    return urlsplit(address).hostname or "the server"


def _last(error: BaseException) -> str:
    """The innermost reason, whose text holds no address with its query."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return f"{type(error).__name__}: {error}"[:200]
