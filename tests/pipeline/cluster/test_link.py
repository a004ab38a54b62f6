from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from sits_pipeline.cluster.link import Link


class Clocks:
    """A wall clock that can be set, and one that cannot."""

    def __init__(self) -> None:
        self.passed, self.ahead = 1000.0, 0.0

    def time(self) -> float:
        return self.passed + self.ahead

    def monotonic(self) -> float:
        return self.passed


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    clocks = Clocks()
    monkeypatch.setattr("sits_pipeline.cluster.link.time", clocks)
    return clocks


def linked() -> Link:
    client: Any = SimpleNamespace(status="running")
    return Link(lambda: client)


def test_a_clock_that_was_set_back_is_noticed_once(clocks: Clocks) -> None:
    link = linked()
    clocks.ahead = -3600.0
    assert link.clock_was_set_back()
    assert not link.clock_was_set_back()


@pytest.mark.parametrize("ahead", [0.0, -5.0, 3600.0])
def test_time_that_passes_a_small_correction_and_a_jump_forward_are_none(clocks: Clocks, ahead: float) -> None:
    link = linked()
    clocks.passed += 7200.0
    clocks.ahead = ahead
    assert not link.clock_was_set_back()


def test_back_from_a_jump_forward_is_back(clocks: Clocks) -> None:
    link = linked()
    clocks.ahead = 3600.0
    assert not link.clock_was_set_back()
    clocks.ahead = 0.0
    assert link.clock_was_set_back()
