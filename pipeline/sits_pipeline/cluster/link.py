"""The connection to a Dask scheduler, opened anew where it is lost."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from contextlib import suppress

from distributed import Client

__all__ = ["Link"]

_PATIENCE_S = 120.0
"""How long a build waits for a scheduler that does not answer."""
_TRY_AGAIN_S = 0.5
_CLOSE_S = 5.0
_BACK_S = 10.0
"""How far the wall clock may be set back: for as long as this a message may wait, see `clock_was_set_back`."""
_log = logging.getLogger(__name__)


class Link:
    """A client, and another one where its connection was lost.

    A client that connects again by itself keeps its name: a scheduler that notices the end of the first connection only
    then would forget what was sent over the second.
    """

    def __init__(self, connect: Callable[[], Client]) -> None:
        """`connect` gives a client that is connected, or raises OSError."""
        self._connect = connect
        self._silent_since: float | None = None
        self._ahead = _ahead()
        self.client = connect()

    @property
    def is_up(self) -> bool:
        """Whether the client has a connection, as far as it knows."""
        return bool(self.client.status == "running")

    def answered(self) -> None:
        """The scheduler has answered."""
        self._silent_since = None

    def unanswered(self) -> None:
        """The scheduler has not answered. Raises RuntimeError where it has not for too long."""
        now = time.monotonic()
        if self._silent_since is None:
            self._silent_since = now
            _log.warning("the Dask scheduler does not answer; waiting for it for %.0f s at most", _PATIENCE_S)
        if now - self._silent_since > _PATIENCE_S:
            raise lost()

    def clock_was_set_back(self) -> bool:
        """Whether the wall clock of this machine was set back since this was asked last.

        Distributed sends what belongs together by the wall clock (`BatchedSend.next_deadline`): a connection over which
        it had just sent something then waits until the clock is where it was.
        """
        before, self._ahead = self._ahead, _ahead()
        return before - self._ahead > _BACK_S

    def renew(self) -> None:
        """Connect again; what was sent before is forgotten. Raises RuntimeError where that fails for too long."""
        _log.warning("the connection to the Dask scheduler was lost; trying again for %.0f s at most", _PATIENCE_S)
        self.close()
        until = time.monotonic() + _PATIENCE_S
        while True:
            try:
                self.client = self._connect()
            except OSError as error:
                if time.monotonic() >= until:
                    raise lost() from error
                time.sleep(_TRY_AGAIN_S)
            else:
                _log.warning("the Dask scheduler answers again; the cells that were under way are sent again")
                self.answered()
                return

    def close(self) -> None:
        """Close the client, whatever state it is in."""
        log = logging.getLogger("distributed.client")
        level = log.level
        # One that is trying to connect would print with a traceback that it was kept from it.
        log.setLevel(logging.CRITICAL + 1)
        try:
            with suppress(OSError, CancelledError, RuntimeError):
                self.client.close(timeout=_CLOSE_S)
        finally:
            log.setLevel(level)


def _ahead() -> float:
    """Seconds of the wall clock ahead of one that nobody sets."""
    return time.time() - time.monotonic()


def lost() -> RuntimeError:
    """What is said where a scheduler is gone for good."""
    return RuntimeError(
        "the connection to the Dask scheduler was lost; start it and run the same command again, which goes on where "
        "this one stopped"
    )
