"""The library's download client with manners of our own: jitter, `Retry-After`, one limit for all, one-sentence errors.

`SentinelHubDownloadClient` waits 5, 15 and 45 s without jitter after a fault, tries for ever after 429 unless told
otherwise, warns each time, takes a body as it comes and for as long as it takes, lets ~/.netrc replace its token, and
limits itself client by client. So its requests are sent as those of all other sources are, and tries are made here.
"""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from sentinelhub.constants import MimeType, SHConstants
from sentinelhub.download.models import DownloadRequest, DownloadResponse
from sentinelhub.download.sentinelhub_client import SentinelHubDownloadClient

from sits_catalog.addresses import published_text
from sits_pipeline.sources.access import Gate
from sits_pipeline.sources.base import CredentialsError, ServiceDown
from sits_pipeline.sources.breaker import BREAKER
from sits_pipeline.sources.catalogue import MAX_JSON_BYTES
from sits_pipeline.sources.exchange import Answer, Broken, Sent, exchange
from sits_pipeline.sources.sentinel_hub.deployment import Deployment, Patience, read_config
from sits_pipeline.sources.sentinel_hub.faults import LONGEST_WAIT_S, Failed, Fault, broken, busy, is_passing, status
from sits_pipeline.sources.sentinel_hub.session import TOKENS

__all__ = ["ServiceClient"]

_MAX_BYTES = 2**30
"""Of an answer; the images of 2500 x 2500 pixels and 12 bands are 170 MB."""
_REFUSALS = 16
"""Tries that may end with 429: the service is well, but we are too many."""
_TOKEN_S = 15.0
"""Without a byte of an answer to a request for a token; the other one after a time-out."""
_HASTY_TOKEN_S = 8.0
_ERRORS: dict[str, type[OSError]] = {
    "quota": ServiceDown,
    "busy": ConnectionError,
    "credentials": CredentialsError,
    "token": PermissionError,
}
_SECRET = 8
"""Characters; shorter ones are in every other word."""


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


@dataclass
class _Tally:
    """The tries of one request. Unlike those of `web`, refusals do not count as silence."""

    patience: Patience
    silent: int = 0
    timeouts: int = 0
    busy: int = 0
    told_s: float = 0.0
    refused_tokens: int = 0

    @property
    def tries(self) -> int:
        return self.silent + self.busy + self.refused_tokens

    def add(self, fault: Fault) -> None:
        self.silent += fault.kind == "silent"
        self.timeouts += fault.timed_out
        self.busy += fault.kind == "busy"
        self.told_s += fault.wait_s
        self.refused_tokens += fault.kind == "token"

    def is_spent(self, fault: Fault, *, is_suspect: bool) -> bool:
        """Whether it makes no sense to try again."""
        patience = self.patience
        if fault.kind == "token":
            return self.refused_tokens > 1
        if fault.kind == "busy":
            return self.busy >= _REFUSALS or self.is_held_off
        if fault.kind == "silent":
            tries, timeouts = (patience.hasty_tries, 1) if is_suspect else (patience.tries, patience.timeouts)
            return self.silent >= tries or self.timeouts >= timeouts
        return True

    @property
    def is_held_off(self) -> bool:
        """Whether one request was put off for longer than a rate a minute explains."""
        return self.told_s > 2 * LONGEST_WAIT_S

    def pause(self, fault: Fault) -> float:
        """Seconds until the next try, beside those that the service asks for."""
        if fault.kind == "token":
            return 0.0
        patience, tries = self.patience, self.busy if fault.kind == "busy" else self.silent
        return patience.jitter(min(patience.longest_pause_s, patience.first_pause_s * 2.0 ** (tries - 1)))


class ServiceClient(SentinelHubDownloadClient):
    """Asks one deployment. Made for one thread at a time; tokens, holds and the breaker are the process's."""

    def __init__(self, deployment: Deployment, gate: Gate, patience: Patience) -> None:
        """Raises CredentialsError where credentials are missing."""
        super().__init__(config=read_config(deployment, patience))
        self.deployment = deployment
        self.patience = patience
        self._gate = gate

    def ask[T](self, request: DownloadRequest, read: Callable[[DownloadResponse], T]) -> T:
        """What `read` makes of the answer; it raises ValueError where that is broken, and the request is sent again.

        Raises OSError with one sentence that names the host: ConnectionError where no answer came, CredentialsError
        where it does not accept who asks, and ServiceDown where it answers nothing at all or a quota is used up.
        """
        # A request of its own is to the breaker what a file is: one that always fails is no dead service.
        key = f"{request.url}/{request.get_hashed_name()}"
        tally = _Tally(self.patience)
        while True:
            BREAKER.admit(key)
            _HOLDS.wait(self.deployment.host)
            try:
                answer = self._try(request, read, hasty=bool(tally.timeouts) or BREAKER.is_suspect(key))
            except Failed as failed:
                fault = failed.fault
            else:
                BREAKER.answered(key)
                return answer
            tally.add(fault)
            if tally.is_spent(fault, is_suspect=BREAKER.is_suspect(key)):
                break
            _HOLDS.hold(self.deployment.host, fault.wait_s)
            time.sleep(tally.pause(fault))
        raise self._error(fault, tally, key)

    def _execute_download(self, request: DownloadRequest) -> DownloadResponse:
        """What the library's interfaces call, such as the Catalog's."""
        return self.ask(request, _whole_json if request.data_type is MimeType.JSON else _as_it_is)

    def _try[T](self, request: DownloadRequest, read: Callable[[DownloadResponse], T], *, hasty: bool) -> T:
        # Before the gate: its place is for those who have a token.
        proof = TOKENS.headers(self.config, self._of_tokens.limits(hasty=hasty))
        posted = request.post_values
        sent = Sent(
            url=request.url or "",
            method=request.request_type.value,
            headers={**SHConstants.HEADERS, "Content-Type": "application/json", **request.headers},
            proof=proof,
            body=None if posted is None else json.dumps(posted).encode(),
            max_bytes=MAX_JSON_BYTES if request.data_type is MimeType.JSON else _MAX_BYTES,
        )
        fault: Fault | None
        try:
            with self._gate.request():
                answer = exchange(sent, self.patience.limits(hasty=hasty))
        except Broken as error:
            fault = broken(error)
        except OSError as error:
            fault = Fault(str(error), "final")
        else:
            fault = self._judge(answer, proof)
            if fault is None:
                whole = DownloadResponse(
                    request=request,
                    content=answer.body,
                    headers=dict(answer.headers),
                    status_code=answer.status,
                    elapsed=0.0,
                )
                try:
                    return read(whole)
                except ValueError as error:
                    fault = Fault(f"its answer is broken: {error}", "silent")
        raise Failed(fault)

    @property
    def _of_tokens(self) -> Patience:
        """Tokens need not be computed."""
        patience = self.patience
        return replace(patience, read_s=min(_TOKEN_S, patience.read_s), hasty_s=min(_HASTY_TOKEN_S, patience.hasty_s))

    def _judge(self, answer: Answer, proof: dict[str, str]) -> Fault | None:
        """What is wrong with an answer, before its body is looked at; None: nothing."""
        if 200 <= answer.status < 300:
            return None
        token = proof.get("Authorization", "").removeprefix("Bearer ")
        reason = status(answer).replace(token, "***") if token else status(answer)
        if answer.status == 429:
            return busy(answer, reason, unit_s=0.001)
        if answer.status == 401:
            TOKENS.renew(self.config, proof)
            advice = self.deployment.advice
            return Fault(f"{reason}; it may be another deployment's: {advice}", "token")
        if answer.status == 403:
            advice = "the account may lack rights, requests or processing units; see its dashboard"
            return Fault(f"{reason}; {advice}", "final")
        return Fault(reason, "silent" if is_passing(answer.status) else "final")

    def _error(self, fault: Fault, tally: _Tally, key: str) -> OSError:
        """What to raise in the end."""
        if fault.kind == "silent":
            down = BREAKER.failed(key, self._published(fault.reason))
            return down or ConnectionError(self._sentence(fault, tally))
        BREAKER.answered(key)
        sentence = self._sentence(fault, tally)
        if fault.kind == "busy" and tally.is_held_off:
            return ServiceDown(f"{sentence}; it puts us off again and again: go on later, with the same command")
        return _ERRORS.get(fault.kind, OSError)(sentence)

    def _sentence(self, fault: Fault, tally: _Tally) -> str:
        after = f" (after {tally.tries} tries)" if tally.tries > 1 and fault.kind in ("silent", "busy") else ""
        advice = f"; {self.deployment.advice}" if fault.kind == "credentials" else ""
        return self._published(f"{self.deployment.host}: {fault.reason}{advice}{after}")

    def _published(self, text: str) -> str:
        """One line without our secrets."""
        for secret in (self.config.sh_client_secret, self.config.sh_client_id):
            if len(secret) >= _SECRET:
                text = text.replace(secret, "***")
        return " ".join(published_text(text).split())


def _whole_json(answer: DownloadResponse) -> DownloadResponse:
    try:
        document = answer.decode()
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise ValueError("JSON was expected")  # noqa: TRY004  # to be asked for again
    return answer


def _as_it_is(answer: DownloadResponse) -> DownloadResponse:
    return answer
