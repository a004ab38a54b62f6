"""How servers are asked: within their limits, with proof of who asks, and again where asking again may help."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus

from sits_catalog.addresses import without_secrets
from sits_catalog.reach import Reach
from sits_pipeline.sources.access import Gate, Open, Signed, Signer
from sits_pipeline.sources.breaker import BREAKER
from sits_pipeline.sources.exchange import Answer, Broken, Sent, TimeLimits, exchange, is_web

__all__ = ["Answer", "Patience", "Web", "fetch", "is_web"]

BACKOFF_S = 0.2
"""Longest pause before the second try; doubled before each further one."""


def full_jitter(longest_s: float) -> float:
    """A pause between none and the longest, so that those who failed together do not come back together.

    M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """
    return random.uniform(0.0, longest_s)  # noqa: S311  # no secret


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long to wait for a server, and how often to ask it."""

    tries: int = 8
    """Where a quarter of all requests fails, one in 65 536 still does after so many."""
    hasty_tries: int = 4
    """Where its host has not answered since another request failed at every try, or this one did of late."""
    timeouts: int = 2
    """Tries that may end with a time-out; one where `hasty_tries` hold."""
    first_pause_s: float = BACKOFF_S
    longest_pause_s: float = 8.0
    longest_told_s: float = 60.0
    """Of the pauses that a server asks for, this much is granted each time, and twice as much in all."""
    connect_s: float = 10.0
    read_s: float = 30.0
    hasty_s: float = 8.0
    """Instead of the two where a time-out came before, so that a host that is silent is noticed within a minute."""
    body_s: float = 60.0
    """For the whole body, and one second more for each `bytes_a_second` of it."""
    bytes_a_second: float = 50_000.0
    jitter: Callable[[float], float] = full_jitter
    """A pause out of the longest one; a function that can be pickled."""

    def limits(self, *, hasty: bool) -> TimeLimits:
        """Time limits of one try."""
        return TimeLimits(
            connect_s=min(self.connect_s, self.hasty_s) if hasty else self.connect_s,
            read_s=min(self.read_s, self.hasty_s) if hasty else self.read_s,
            body_s=self.body_s,
            bytes_a_second=self.bytes_a_second,
        )


@dataclass(frozen=True, kw_only=True)
class Web:
    """How a provider's servers are asked; small and picklable."""

    gate: Gate = field(default_factory=Open)
    signer: Signer | None = None
    patience: Patience | None = None
    """None: the usual one, whose first pause is at most `BACKOFF_S`."""
    reach: Reach | None = None
    """How far an http(s) address may lead; None: each address that is asked for was named by the user."""

    def fetch(
        self,
        url: str,
        *,
        max_bytes: int,
        headers: Mapping[str, str] | None = None,
        method: str = "GET",
        body: bytes | None = None,
        proof: Mapping[str, str] | None = None,
    ) -> Answer:
        """The complete answer to a request; `url` may be s3:// where the signer knows what to ask instead.

        `proof` are headers that say who asks, which no redirect takes to another host; a signer's are added. A method
        other than GET must bear to be repeated. Raises FileNotFoundError for what is not there,
        PermissionError for what may not be read, ServiceDown where the host answers nothing at all, ConnectionError
        where no complete answer came, and OSError for one that was refused or is larger than `max_bytes`; each with
        one sentence.
        """
        # What only looks like a web address is no signer's business: it would be given proof for the host it seems.
        if not is_web(url) and (self.signer is None or url.lower().startswith("http")):
            raise OSError(f"an http(s) URL was expected, got {without_secrets(url)!r}")
        # Where another kind of address leads its signer decides, by what the user set.
        reach = self.reach if is_web(url) else None
        sent = Sent(
            url=url, method=method, headers=headers or {}, proof={}, body=body, max_bytes=max_bytes, reach=reach
        )
        tally = _Tally(self.patience or Patience(first_pause_s=BACKOFF_S))
        while True:
            signed = self._sign(url)
            trouble = self._try(replace(sent, url=signed.url, proof={**(proof or {}), **signed.headers}), url, tally)
            if isinstance(trouble, Answer):
                return trouble
            tally.add(trouble)
            if tally.is_spent(is_suspect=BREAKER.is_suspect(signed.url)):
                raise BREAKER.failed(signed.url, trouble.reason) or ConnectionError(
                    f"{without_secrets(url)}: no answer after {tally.tries} tries: {trouble.reason}"
                )
            time.sleep(tally.pause(trouble))

    def _sign(self, url: str) -> Signed:
        """What to ask, just before it is asked: a signature may be about to expire."""
        signed = Signed(url=url) if self.signer is None else self.signer.sign(url)
        if not is_web(signed.url):
            raise OSError(f"an http(s) URL was expected for {without_secrets(url)!r}, its signer made another")
        return signed

    def _try(self, sent: Sent, url: str, tally: _Tally) -> Answer | _Trouble:
        """The answer to one try, or what is in its way but may pass."""
        hasty = bool(tally.timeouts) or BREAKER.is_suspect(sent.url)
        with self.gate.request():
            BREAKER.admit(sent.url)
            try:
                answer = exchange(sent, tally.patience.limits(hasty=hasty))
            except Broken as error:
                return _Trouble(str(error), timed_out=error.timed_out)
        if answer.status in (408, 425, 429) or answer.status >= 500:
            return _Trouble(_status(answer), told_s=_told_s(answer))
        BREAKER.answered(sent.url)
        if answer.status in (401, 403) and self.signer is not None and not tally.renewed:
            self.signer.renew(url)
            return _Trouble(_status(answer), renewed=True)
        if answer.status >= 300:
            raise _refusal(url, answer)
        return answer


def fetch(url: str, *, max_bytes: int, headers: Mapping[str, str] | None = None) -> Answer:
    """The response to a GET of a server that asks for no proof and has no limits; see `Web.fetch`."""
    return Web().fetch(url, max_bytes=max_bytes, headers=headers)


@dataclass(frozen=True)
class _Trouble:
    """Why a try gave no answer."""

    reason: str
    timed_out: bool = False
    told_s: float | None = None
    """How long the server asks to wait."""
    renewed: bool = False
    """The signature was refused and forgotten: no fault of the server, and no reason to wait."""


@dataclass
class _Tally:
    """The tries of one request."""

    patience: Patience
    tries: int = 0
    timeouts: int = 0
    told_s: float = 0.0
    renewed: bool = False

    def add(self, trouble: _Trouble) -> None:
        """One more failed."""
        self.tries += not trouble.renewed
        self.renewed |= trouble.renewed
        self.timeouts += trouble.timed_out
        self.told_s += self._granted(trouble)

    def is_spent(self, *, is_suspect: bool) -> bool:
        """Whether it makes no sense to try again."""
        patience = self.patience
        return (
            self.tries >= (patience.hasty_tries if is_suspect else patience.tries)
            or self.timeouts >= (1 if is_suspect else patience.timeouts)
            or self.told_s > 2 * patience.longest_told_s
        )

    def pause(self, trouble: _Trouble) -> float:
        """Seconds until the next try: those that the server asks for, and a random share of more at each try."""
        if trouble.renewed:
            return 0.0
        patience = self.patience
        longest = min(patience.longest_pause_s, patience.first_pause_s * 2.0 ** (self.tries - 1))
        return self._granted(trouble) + patience.jitter(longest)

    def _granted(self, trouble: _Trouble) -> float:
        return min(trouble.told_s or 0.0, self.patience.longest_told_s)


def _status(answer: Answer) -> str:
    try:
        return f"HTTP {answer.status} {HTTPStatus(answer.status).phrase}"
    except ValueError:
        return f"HTTP {answer.status}"


def _told_s(answer: Answer) -> float | None:
    """Seconds that Retry-After asks to wait (RFC 9110, 10.2.3: a number of them, or a date); None: it says nothing.

    A date is compared with the server's own clock where it tells it.
    """
    said = answer.headers.get("Retry-After", "").strip()
    try:
        seconds = float(said)
    except ValueError:
        until, now = _date(said), _date(answer.headers.get("Date", "")) or datetime.now(UTC)
        seconds = math.nan if until is None else (until - now).total_seconds()
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _date(text: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    return date if date.tzinfo is not None else date.replace(tzinfo=UTC)


def _refusal(url: str, answer: Answer) -> OSError:
    """What to raise for an answer that no further try will change."""
    said = f"{without_secrets(url)}: {_status(answer)}"
    if answer.status in (404, 410):
        return FileNotFoundError(
            f"{said}: the server has no such file; check the address, or search anew where it may have moved"
        )
    if answer.status in (401, 403):
        return PermissionError(
            f"{said}: the server does not let it be read; check credentials, whether they are set where the workers "
            "run and have not expired"
        )
    return OSError(said)
