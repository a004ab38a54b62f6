"""Whether the result of a task is still waited for: asked right before it writes anything."""

from __future__ import annotations

import threading
import time
from typing import Any

from distributed import Worker, get_worker
from distributed.utils import sync

__all__ = ["UnwantedError", "check_wanted"]

_ANSWER_S = 150.0
"""Longer than a build waits for a scheduler that does not answer."""
_HOLDS_S = 0.1
"""A yes holds so long for what the same future computes: quick tasks come many to one."""
_yes = threading.local()
"""The last one that a thread was given: `key` of its future and the time `at` which it came."""


class UnwantedError(RuntimeError):
    """A task's result is waited for by nobody."""


def check_wanted() -> None:
    """Ask the scheduler whether it still waits for the task of this thread to end on this worker.

    It does not where the build was killed, has given the task to another worker, or has connected anew. Raises
    UnwantedError then, OSError where the scheduler does not answer, and ValueError outside of a task.
    """
    worker: Worker = get_worker()
    key = worker.get_current_task()
    if getattr(_yes, "key", None) == key and time.monotonic() - _yes.at < _HOLDS_S:
        return
    try:
        wanted = sync(worker.loop, _wanted_of, worker, callback_timeout=_ANSWER_S)
    except KeyError:  # the scheduler no longer knows this worker
        wanted = ()
    if key not in wanted:
        raise UnwantedError(f"nobody waits for {key} any more: nothing of it is written")
    _yes.key, _yes.at = key, time.monotonic()


async def _wanted_of(worker: Worker) -> Any:
    # The scheduler may know the worker by another name of the same address.
    (wanted,) = (await worker.scheduler.processing(workers=[worker.contact_address])).values()
    return wanted
