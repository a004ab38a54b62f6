from __future__ import annotations

import multiprocessing
import pickle

import pytest

from sits_pipeline.sources.base import ServiceDown
from sits_pipeline.sources.breaker import BREAKER, Breaker, host_of


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(clock)


A, B, C, D = (f"https://me:word@Example.org:444/{name}.tif?sig=SECRET" for name in "abcd")


def test_three_files_in_a_row_are_a_dead_service(breaker: Breaker) -> None:
    assert breaker.failed(A, "HTTP 503") is None
    assert breaker.failed(B, "HTTP 503") is None
    error = breaker.failed(C, "connection refused")
    assert str(error) == (
        "example.org:444 did not answer 3 requests in a row (last: connection refused); try again later"
    )
    with pytest.raises(ServiceDown, match=r"example\.org:444 did not answer 3 requests in a row"):
        breaker.admit(D)


def test_one_file_that_always_fails_is_no_dead_service(breaker: Breaker) -> None:
    for number in range(20):
        assert breaker.failed(f"{A}&number={number}", "HTTP 503") is None
    breaker.admit(A)


def test_any_answer_in_between_counts(breaker: Breaker) -> None:
    for _ in range(5):
        assert breaker.failed(A, "HTTP 503") is None
        assert breaker.failed(B, "HTTP 503") is None
        breaker.answered(D)
    breaker.admit(A)


def test_other_hosts_are_not_meant(breaker: Breaker) -> None:
    for url in (A, B, C):
        breaker.failed(url, "HTTP 503")
    breaker.admit("https://example.org/a.tif")
    assert not breaker.is_suspect("https://example.org/a.tif")


def test_patience_ends_while_nothing_answers_and_with_a_file_that_failed(breaker: Breaker, clock: Clock) -> None:
    assert not breaker.is_suspect(A)
    breaker.failed(A, "HTTP 503")
    assert breaker.is_suspect(A)
    assert breaker.is_suspect(B)
    breaker.answered(B)
    assert breaker.is_suspect(A)
    assert not breaker.is_suspect(B)
    clock.now += 301
    assert not breaker.is_suspect(A)


def test_a_file_that_answers_again_is_trusted_again(breaker: Breaker) -> None:
    breaker.failed(A, "HTTP 503")
    breaker.answered(A)
    assert not breaker.is_suspect(A)


def test_after_half_a_minute_one_request_finds_out(breaker: Breaker, clock: Clock) -> None:
    for url in (A, B, C):
        breaker.failed(url, "HTTP 503")
    clock.now += 29
    with pytest.raises(ServiceDown):
        breaker.admit(A)
    clock.now += 2
    breaker.admit(A)
    with pytest.raises(ServiceDown):
        breaker.admit(B)
    # It is down still: another half minute.
    assert isinstance(breaker.failed(A, "HTTP 503"), ServiceDown)
    clock.now += 29
    with pytest.raises(ServiceDown):
        breaker.admit(A)
    clock.now += 2
    breaker.admit(B)
    breaker.answered(B)
    breaker.admit(A)
    breaker.admit(C)
    assert breaker.failed(A, "HTTP 503") is None


def test_the_error_travels_between_processes(breaker: Breaker) -> None:
    errors = [breaker.failed(url, "HTTP 503") for url in (A, B, C)]
    again = pickle.loads(pickle.dumps(errors[-1]))
    assert isinstance(again, ServiceDown)
    assert str(again) == str(errors[-1])
    assert "SECRET" not in repr(again)


def _is_fresh() -> None:
    raise SystemExit(1 if BREAKER.is_suspect("http://forked.example/a") else 0)


def test_a_forked_process_begins_anew() -> None:
    BREAKER.failed("http://forked.example/a", "HTTP 503")
    try:
        with BREAKER._lock:  # as another thread may hold it
            process = multiprocessing.get_context("fork").Process(target=_is_fresh)
            process.start()
        process.join(30)
        assert process.exitcode == 0
    finally:
        BREAKER.answered("http://forked.example/a")


def test_a_host_has_no_user_and_no_capitals() -> None:
    assert host_of(A) == "example.org:444"
