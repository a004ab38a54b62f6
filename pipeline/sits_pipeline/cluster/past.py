"""What has happened to a task in all of its copies, and what follows from it: decided here, done by the feed."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field
from enum import Enum, auto

from distributed import KilledWorker

from sits_pipeline.folder import CannotWrite
from sits_pipeline.sources.base import ServiceDown

__all__ = ["Next", "Past", "Standing"]

_DEATHS = 3
"""Times that a task may lack memory, or be lost with its worker, before it is taken to be too large."""
_TRIES = 3
"""Workers that a task may hang on."""
_IN_A_ROW = 3
"""Tasks that may fail one after another at one worker before others do its work."""
_SHUNNED_S = 300.0
"""For how long."""


class Next(Enum):
    """What is done with a task that gave no result."""

    AGAIN = auto()
    """It is sent again, as it is."""
    SMALLER = auto()
    """It is sent again alone, in smaller steps."""
    TOO_LARGE = auto()
    """The build ends: it fits nowhere."""
    STUCK = auto()
    """The build ends: it hangs wherever it is sent."""
    RAISE = auto()
    """The build ends with its error."""


@dataclass
class Past:
    """What has happened to one task."""

    errors: int = 0
    """How often it has raised."""
    deaths: int = 0
    """How many workers it has lost, or how often it lacked memory."""
    hangs: int = 0
    """How many workers it was taken away from because they gave no result."""
    failed_at: set[str | None] = field(default_factory=set)
    """Addresses of the workers at which it has raised."""

    @property
    def is_alone(self) -> bool:
        """Whether no other task may be on its worker: it lacked memory, or its worker died at it for want of that."""
        return self.deaths > 0

    def after_death(self) -> Next:
        """Count a worker that died at it, or memory that it lacked."""
        self.deaths += 1
        return Next.TOO_LARGE if self.deaths >= _DEATHS else Next.SMALLER

    def after_hang(self) -> Next:
        """Count a worker that gives no result."""
        self.hangs += 1
        return Next.STUCK if self.hangs >= _TRIES else Next.AGAIN

    def after_error(self, error: BaseException, address: str | None, *, retries: int, workers: Set[str | None]) -> Next:
        """Count an error at the worker of an address, of all the `workers` that there are."""
        if isinstance(error, MemoryError | KilledWorker):
            return self.after_death()
        self.errors += 1
        self.failed_at.add(address)
        if isinstance(error, ServiceDown) or not isinstance(error, Exception):
            return Next.RAISE
        if isinstance(error, CannotWrite):
            # A full cache is a matter of one machine; the dataset's own folder is as full for the next one.
            return Next.AGAIN if len(self.failed_at) < 2 and workers - self.failed_at else Next.RAISE
        return Next.AGAIN if self.errors <= retries else Next.RAISE


@dataclass
class Standing:
    """Which workers fail whatever they are sent, such as one without the store's folder or its keys."""

    _in_a_row: dict[str | None, int] = field(default_factory=dict)
    _last: dict[str | None, float] = field(default_factory=dict)

    def failed(self, address: str | None, now: float) -> bool:
        """Note that a task raised there, at a time in seconds; whether that is one too many."""
        self._in_a_row[address] = self._in_a_row.get(address, 0) + 1
        self._last[address] = now
        return self._in_a_row[address] == _IN_A_ROW

    def gave_a_result(self, address: str | None) -> None:
        """It works."""
        self._in_a_row.pop(address, None)

    def shunned(self, workers: Set[str | None], now: float) -> Set[str | None]:
        """Those of the workers that are sent nothing for now; none where all of them fail."""
        found = {
            address
            for address in workers
            if self._in_a_row.get(address, 0) >= _IN_A_ROW and now - self._last[address] < _SHUNNED_S
        }
        return found if workers - found else set()
