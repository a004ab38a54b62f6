"""What a check found out, in a line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Finding", "fine", "unset", "wrong"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    subject: str
    """Of the machine ("python", "out") or of a service ("cdse credentials")."""
    state: Literal["ok", "unset", "wrong"]
    """`unset`: not set up, and not asked for either."""
    says: str
    """What was found and, where it is wrong, what to do; never a secret."""


def fine(subject: str, says: str) -> Finding:
    """All is well."""
    return Finding(subject=subject, state="ok", says=says)


def unset(subject: str, says: str) -> Finding:
    """It would have to be set up before it can be used."""
    return Finding(subject=subject, state="unset", says=says)


def wrong(subject: str, says: str) -> Finding:
    """A build would fail on this."""
    return Finding(subject=subject, state="wrong", says=says)
