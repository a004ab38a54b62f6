"""Runs properties of the fuzz: a few known examples in CI, and as long as is asked for by hand."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable

from hypothesis import HealthCheck, Phase, settings

SECONDS = float(os.environ.get("SITS_FUZZ_SECONDS", "60"))
"""Of each property in the soak."""
_EXAMPLES = 50
"""Between two looks at the clock."""


def run_few(property_: Callable[[], None]) -> None:
    """The same twenty examples each time."""
    settings(max_examples=20, derandomize=True, suppress_health_check=list(HealthCheck))(property_)()


def run_for_a_while(name: str, property_: Callable[[], None]) -> None:
    """Others each time, for `SITS_FUZZ_SECONDS`."""
    started, rounds = time.monotonic(), 0
    # An example that fails is shown as it came: to make it smaller may take longer than all the rest.
    at_random = settings(
        max_examples=_EXAMPLES, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
    )(property_)
    while time.monotonic() - started < SECONDS:
        at_random()
        rounds += 1
    print(f"{name}: up to {rounds * _EXAMPLES} examples in {time.monotonic() - started:.0f} s")


def check_sentence(error: BaseException) -> None:
    """One that is short and does nothing to a terminal."""
    text = str(error)
    assert 0 < len(text) <= 1000
    assert text.isprintable()


def each(*errors: type[BaseException]) -> contextlib.AbstractContextManager[object]:
    """A value comes, or one of these errors with its sentence; anything else passes through and fails."""
    return _Each(errors)


class _Each(contextlib.AbstractContextManager[None]):
    def __init__(self, errors: tuple[type[BaseException], ...]) -> None:
        self.errors = errors

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> bool:
        if error is None or not isinstance(error, self.errors):
            return False
        check_sentence(error)
        return True
