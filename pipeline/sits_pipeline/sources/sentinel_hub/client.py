"""The library's download client with manners of our own: jitter, `Retry-After`, one limit for all, one-sentence errors.

`SentinelHubDownloadClient` waits 5, 15 and 45 s without jitter after a fault, tries for ever after 429 unless told
otherwise, warns each time, takes a body as it comes, and limits itself client by client. So tries are made here, one
request of it at a time.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import requests
from oauthlib.oauth2 import OAuth2Error  # type: ignore[import-untyped]  # published without types
from sentinelhub.constants import MimeType, SHConstants
from sentinelhub.download.models import DownloadRequest, DownloadResponse
from sentinelhub.download.sentinelhub_client import SentinelHubDownloadClient

from sits_catalog.addresses import published_text
from sits_pipeline.sources.access import Gate
from sits_pipeline.sources.breaker import BREAKER
from sits_pipeline.sources.sentinel_hub.deployment import Deployment, Patience, read_config
from sits_pipeline.sources.sentinel_hub.session import TOKENS

__all__ = ["ServiceClient"]

_AGAIN = (408, 425)
_CONNECT_S = 10.0
_LONGEST_WAIT_S = 120.0
"""What a service may ask us to wait at most."""
_SUSPECT_TRIES = 2
_SILENT = ("silent", "unreachable")


@dataclass(frozen=True)
class _Fault:
    """Why a try gave nothing, as the end of a sentence that starts with the host."""

    reason: str
    kind: str
    """`silent`: nothing of sense; `unreachable`: not even a connection that holds; `busy`: 429; `token`: 401;
    `final`: no use in asking again."""
    wait_s: float = 0.0


class _Failed(Exception):  # noqa: N818  # never leaves this module
    def __init__(self, fault: _Fault) -> None:
        super().__init__(fault.reason)
        self.fault = fault


class _Holds:
    """Until when a host asked this process to wait: one refusal holds all its threads."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._lock = threading.Lock()
        self._until: dict[str, float] = {}

    def hold(self, host: str, seconds: float) -> None:
        with self._lock:
            self._until[host] = max(self._until.get(host, 0.0), time.monotonic() + seconds)

    def wait(self, host: str) -> None:
        with self._lock:
            left = self._until.get(host, 0.0) - time.monotonic()
        if left > 0:
            time.sleep(left * random.uniform(1.0, 1.1))  # noqa: S311  # not a secret


_HOLDS = _Holds()
os.register_at_fork(after_in_child=_HOLDS.reset)


class ServiceClient(SentinelHubDownloadClient):
    """Asks one deployment. Made for one thread at a time; tokens, holds and the breaker are the process's."""

    def __init__(self, deployment: Deployment, gate: Gate, patience: Patience) -> None:
        """Raises OSError where credentials are missing."""
        super().__init__(config=read_config(deployment, patience))
        self.deployment = deployment
        self.patience = patience
        self._gate = gate

    def ask[T](self, request: DownloadRequest, read: Callable[[DownloadResponse], T]) -> T:
        """What `read` makes of the answer; it raises ValueError where that is broken, and the request is sent again.

        Raises OSError with one sentence that names the host: ConnectionError where no answer came, ServiceDown where
        the host answers nothing at all.
        """
        # A request of its own is to the breaker what a file is: one that always fails is no dead service.
        key = f"{request.url}/{request.get_hashed_name()}"
        counts = {"silent": 0, "unreachable": 0, "busy": 0, "token": 0}
        while True:
            BREAKER.admit(key)
            _HOLDS.wait(self.deployment.host)
            try:
                with self._gate.request():
                    answer = self._try(request, read)
            except _Failed as failed:
                fault = failed.fault
            else:
                BREAKER.answered(key)
                return answer
            if fault.kind == "final" or self._is_last(fault, counts, key):
                break
            self._pause(fault, counts)
        if fault.kind not in _SILENT:
            BREAKER.answered(key)
        elif (down := BREAKER.failed(key, fault.reason)) is not None:
            raise down
        raise (OSError if fault.kind == "final" else ConnectionError)(self._sentence(fault, counts))

    def _execute_download(self, request: DownloadRequest) -> DownloadResponse:
        """What the library's interfaces call, such as the Catalog's."""
        return self.ask(request, _whole_json if request.data_type is MimeType.JSON else _as_it_is)

    def _is_last(self, fault: _Fault, counts: dict[str, int], key: str) -> bool:
        counts[fault.kind] += 1
        if fault.kind == "token":
            return counts["token"] > 1
        if fault.kind == "busy":
            return counts["busy"] >= self.patience.refusals
        tries = min(_SUSPECT_TRIES, self.patience.tries) if BREAKER.is_suspect(key) else self.patience.tries
        silent = counts["silent"] + counts["unreachable"]
        return silent >= tries or counts["unreachable"] >= self.patience.connections

    def _pause(self, fault: _Fault, counts: dict[str, int]) -> None:
        if fault.kind == "token":
            return
        longest = self.patience.longest_pause_s
        pause = min(longest, self.patience.first_pause_s * 2.0 ** (counts[fault.kind] - 1))
        pause *= random.uniform(0.5, 1.0)  # noqa: S311  # not a secret
        if fault.kind == "busy":
            _HOLDS.hold(self.deployment.host, fault.wait_s)
            pause += fault.wait_s
        time.sleep(pause)

    def _try[T](self, request: DownloadRequest, read: Callable[[DownloadResponse], T]) -> T:
        headers = self._token_headers()
        try:
            answer = requests.request(
                request.request_type.value,
                url=request.url or "",
                json=request.post_values,
                headers={**SHConstants.HEADERS, **headers, **request.headers},
                timeout=(min(_CONNECT_S, self.patience.timeout_s), self.patience.timeout_s),
            )
        except requests.RequestException as error:
            fault = _fault_of(error, "")
        else:
            if answer.status_code == 401:
                TOKENS.renew(self.config, headers)
            found = self._judge(answer)
            if found is None:
                try:
                    return read(DownloadResponse.from_response(answer, request))
                except ValueError as error:
                    found = _Fault(f"its answer is broken: {error}", "silent")
            fault = found
        raise _Failed(fault)

    def _token_headers(self) -> dict[str, str]:
        host = urlsplit(self.deployment.token_url).netloc
        try:
            return TOKENS.headers(self.config)
        except requests.HTTPError as error:
            status = 0 if error.response is None else error.response.status_code
            kind = "silent" if status >= 500 or status in (429, *_AGAIN) else "final"
            fault = _Fault(f"no token: {host} answered HTTP {status}; {self.deployment.advice}", kind)
        except requests.RequestException as error:
            fault = _fault_of(error, f"no token from {host}: ")
        except OAuth2Error as error:
            fault = self._of_oauth(error, host)
        except (KeyError, TypeError, ValueError):
            fault = _Fault(f"no token: {host} answered something that is none", "silent")
        raise _Failed(fault)

    def _of_oauth(self, error: OAuth2Error, host: str) -> _Fault:
        said = str(error.error or "")[:60]
        if said == "missing_token":
            return _Fault(f"no token: {host} answered something that is none", "silent")
        if said == "insecure_transport":
            return _Fault(f"no token: {host} is not asked over https", "final")
        return _Fault(f"no token: {host} does not accept this client ({said}); {self.deployment.advice}", "final")

    def _judge(self, answer: requests.Response) -> _Fault | None:
        """What is wrong with an answer, before its body is looked at; None: nothing."""
        status, said = answer.status_code, _said(answer)
        if status == 429:
            return _Fault(f"HTTP 429: {said or 'too many requests'}", "busy", _retry_after_s(answer))
        if status == 401:
            return _Fault(
                f"HTTP 401: {said or 'it does not accept the token'}; it may be another deployment's: "
                f"{self.deployment.advice}",
                "token",
            )
        if status == 403:
            advice = "the account may lack rights, requests or processing units; see its dashboard"
            return _Fault(f"HTTP 403: {said or 'forbidden'}; {advice}", "final")
        if status >= 500 or status in _AGAIN:
            return _Fault(f"HTTP {status}: {said or answer.reason}", "silent")
        if not 200 <= status < 300:
            return _Fault(f"HTTP {status}: {said or answer.reason}", "final")
        announced = answer.headers.get("Content-Length", "")
        if announced.isdigit() and "Content-Encoding" not in answer.headers and int(announced) != len(answer.content):
            return _Fault(f"its answer broke off after {len(answer.content)} of {announced} bytes", "silent")
        return None

    def _sentence(self, fault: _Fault, counts: dict[str, int]) -> str:
        tries = sum(counts.values())
        after = f" (after {tries} tries)" if tries > 1 and fault.kind in (*_SILENT, "busy") else ""
        text = f"{self.deployment.host}: {fault.reason}{after}"
        for secret in (self.config.sh_client_secret, self.config.sh_client_id):
            text = text.replace(secret, "***")
        return " ".join(published_text(text).split())


def _fault_of(error: requests.RequestException, start: str) -> _Fault:
    """Without the library's own words: they name objects and addresses."""
    if isinstance(error, requests.ReadTimeout):
        return _Fault(f"{start}no answer in time", "silent")
    if isinstance(error, requests.exceptions.ChunkedEncodingError | requests.exceptions.ContentDecodingError):
        return _Fault(f"{start}its answer broke off", "silent")
    if isinstance(error, requests.exceptions.SSLError):
        return _Fault(f"{start}its certificate is not accepted", "final")
    if isinstance(error, requests.ConnectionError):
        return _Fault(f"{start}no connection, or it broke", "unreachable")
    return _Fault(f"{start}the request cannot be sent ({type(error).__name__})", "final")


def _retry_after_s(answer: requests.Response) -> float:
    """`Retry-After` is in milliseconds (Sentinel Hub, "Rate limiting"), unlike everyone else's; 0 where absent."""
    text = answer.headers.get("Retry-After", "")
    return min(_LONGEST_WAIT_S, int(text) / 1000) if text.isdigit() else 0.0


def _said(answer: requests.Response) -> str:
    """The message in an error of the service, one line without addresses' secrets; empty where there is none."""
    if answer.ok:
        return ""
    try:
        document: Any = answer.json()
    except ValueError:
        return ""
    if isinstance(document, dict) and isinstance(document.get("error"), dict):
        document = document["error"]
    if not isinstance(document, dict):
        return ""
    text = document.get("message") or document.get("description") or document.get("code") or ""
    authorization = str(answer.request.headers.get("Authorization", "")).removeprefix("Bearer ")
    text = str(text).replace(authorization, "***") if authorization else str(text)
    return " ".join(published_text(text).split())[:200].rstrip(".")


def _whole_json(answer: DownloadResponse) -> DownloadResponse:
    try:
        document = answer.decode()
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise ValueError("JSON was expected")  # noqa: TRY004  # to be asked for again
    return answer


def _as_it_is(answer: DownloadResponse) -> DownloadResponse:
    return answer
