"""What goes wrong with a request, as the end of a sentence, and what is to be done about it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any, Literal

from sits_catalog.addresses import published_text
from sits_pipeline.sources.exchange import Answer, Broken

__all__ = ["LONGEST_WAIT_S", "Failed", "Fault", "broken", "busy", "is_passing", "said", "status"]

LONGEST_WAIT_S = 300.0
"""What a service may ask us to wait; who asks for more says that a quota is used up."""


@dataclass(frozen=True)
class Fault:
    """Why a try gave nothing, as the end of a sentence that starts with the host."""

    reason: str
    kind: Literal["silent", "busy", "token", "quota", "credentials", "final"]
    """`silent`: nothing of sense came; `busy`: 429; `token`: 401 to a token; `quota`: 429 for long; `credentials`: no
    token to be had with ours; `final`: no use in asking again."""
    wait_s: float = 0.0
    """How long it asks to wait."""
    timed_out: bool = False


class Failed(Exception):  # noqa: N818  # never leaves these modules
    """A try gave nothing."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.reason)
        self.fault = fault


def broken(error: Broken, start: str = "") -> Fault:
    """No complete answer came."""
    return Fault(f"{start}{error}", "silent", timed_out=error.timed_out)


def is_passing(status: int) -> bool:
    """Whether an error may be gone at the next try, and says nothing of the request."""
    return status >= 500 or status in (408, 425)


def busy(answer: Answer, reason: str, *, unit_s: float) -> Fault:
    """429. `unit_s`: of Retry-After, in seconds: 0.001 for Sentinel Hub ("Rate limiting"), 1 for everyone else."""
    text = answer.headers.get("Retry-After", "").strip()
    try:
        wait_s = max(0.0, float(text) * unit_s)
    except ValueError:
        wait_s = 0.0
    if not math.isfinite(wait_s) or wait_s <= LONGEST_WAIT_S:
        return Fault(reason, "busy", wait_s if math.isfinite(wait_s) else 0.0)
    until = datetime.now(UTC) + timedelta(seconds=min(wait_s, 366 * 86400))
    return Fault(
        f"{reason}; a quota is used up until {until:%Y-%m-%d %H:%M} UTC; what is done is kept: go on then, with the "
        "same command",
        "quota",
    )


def status(answer: Answer) -> str:
    """Status in numbers, and in the service's or the standard's words."""
    try:
        phrase = HTTPStatus(answer.status).phrase
    except ValueError:
        phrase = ""
    words = said(answer) or phrase
    return f"HTTP {answer.status}: {words}" if words else f"HTTP {answer.status}"


def said(answer: Answer) -> str:
    """The message in an error of the service, one line without addresses' secrets; empty where there is none."""
    try:
        document: Any = json.loads(answer.body)
    except (ValueError, RecursionError):
        return ""
    if isinstance(document, dict) and isinstance(document.get("error"), dict):
        document = document["error"]
    if not isinstance(document, dict):
        return ""
    text = document.get("message") or document.get("description") or document.get("error") or document.get("code") or ""
    line = " ".join(published_text(str(text)).split())[:200].rstrip(".")
    return line if line.isprintable() else ascii(line)[1:-1]
