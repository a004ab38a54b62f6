from __future__ import annotations

import multiprocessing
import pickle
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from sits_pipeline.sources.access import Gate, Limit
from sits_pipeline.sources.gate import LocalGate, Turnstile


class Clock:
    """Time that passes when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def passed(limit: Limit, number: int) -> list[float]:
    """When so many pass whom nothing else keeps waiting, in seconds from the first."""
    clock = Clock()
    turnstile = Turnstile(limit, clock=clock, sleep=clock.sleep)
    times = []
    for _ in range(number):
        with turnstile.pass_through():
            times.append(clock.now - 100.0)
    return times


def test_no_more_pass_in_any_minute_than_are_allowed() -> None:
    assert passed(Limit(name="a", at_once=9, a_minute=3), 8) == [0, 0, 0, 60, 60, 60, 120, 120]


def test_without_a_bound_a_minute_all_pass() -> None:
    assert passed(Limit(name="a", at_once=1, a_minute=0), 5) == [0] * 5


def test_a_minute_begins_when_they_passed() -> None:
    clock = Clock()
    turnstile = Turnstile(Limit(name="a", at_once=1, a_minute=2), clock=clock, sleep=clock.sleep)
    times = []
    for _ in range(4):
        with turnstile.pass_through():
            times.append(clock.now - 100.0)
        clock.now += 10
    assert times == [0, 10, 60, 70]


def most_at_once(work: Callable[[Callable[[], None]], None]) -> int:
    """How many were inside at the same time, where `work` is given what to do inside."""
    lock = threading.Lock()
    inside = most = 0

    def stay() -> None:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        time.sleep(0.01)
        with lock:
            inside -= 1

    work(stay)
    return most


def test_all_threads_and_all_copies_share_the_places() -> None:
    gate = LocalGate(Limit(name="shared", at_once=3, a_minute=0))
    copies: list[Gate] = [gate, pickle.loads(pickle.dumps(gate))]

    def work(stay: Callable[[], None]) -> None:
        def ask(number: int) -> None:
            with copies[number % 2].request():
                stay()

        with ThreadPoolExecutor(10) as pool:
            list(pool.map(ask, range(40)))

    assert most_at_once(work) == 3


def test_an_error_gives_its_place_back() -> None:
    gate = LocalGate(Limit(name="error", at_once=1, a_minute=0))
    for _ in range(3):
        with pytest.raises(OSError, match="broken"), gate.request():
            raise OSError("broken")


def _pass(gate: LocalGate) -> None:
    with gate.request():
        pass


def test_a_forked_process_does_not_wait_for_its_parents_threads() -> None:
    gate = LocalGate(Limit(name="forked", at_once=1, a_minute=0))
    with gate.request():
        process = multiprocessing.get_context("fork").Process(target=_pass, args=(gate,))
        process.start()
        process.join(20)
        assert process.exitcode == 0
