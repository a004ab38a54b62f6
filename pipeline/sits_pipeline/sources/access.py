"""What a provider asks of those who read from it: how much at once, and proof of who they are."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

__all__ = ["Cost", "Gate", "Limit", "Open", "Signed", "Signer"]


@dataclass(frozen=True, kw_only=True)
class Limit:
    """How much a service may be asked by all workers of a build together."""

    name: str
    """Of the service; one gate a name."""
    at_once: int
    """Requests under way at the same time."""
    a_minute: int
    """Requests a minute; 0: no bound is known."""


class Gate(Protocol):
    """Lets a service's requests pass, as many at once and a minute as its limit allows all workers together."""

    def request(self) -> AbstractContextManager[object]:
        """Waits until one more request may be sent; held while it is under way."""
        ...


@dataclass(frozen=True)
class Open:
    """A gate that lets everything pass at once."""

    def request(self) -> AbstractContextManager[object]:
        """Nothing to wait for."""
        from contextlib import nullcontext

        return nullcontext()


@dataclass(frozen=True, kw_only=True)
class Signed:
    """An address and headers that a server accepts for a while; never printed, logged or stored."""

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


class Signer(Protocol):
    """Adds proof of who asks; small and picklable: secrets stay in the environment of the worker it is in."""

    def sign(self, url: str) -> Signed:
        """The address to ask instead of `url`, which may be s3://; renewed well before it expires.

        Raises OSError with one sentence that says which credentials are missing and how to set them.
        """
        ...

    def renew(self, url: str) -> None:
        """Forget what was signed for `url`: the server refused it."""
        ...


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What reading some scenes asks of a service."""

    requests: int = 0
    processing_units: float = 0.0
    """Sentinel Hub's; 0 elsewhere."""

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            requests=self.requests + other.requests,
            processing_units=self.processing_units + other.processing_units,
        )
