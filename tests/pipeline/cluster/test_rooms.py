"""What is concluded from what a scheduler says of a worker, look by look."""

from __future__ import annotations

import math
from dataclasses import replace

from sits_pipeline.cluster.rooms import _Worker


def worker(seen: float, *, unwanted: int = 0, process: str = "one", patience_s: float = 60.0) -> _Worker:
    """What a look finds of a worker that was last heard at a time, with three places."""
    return _Worker(
        process=process,
        fits=3,
        is_running=True,
        last_seen=seen,
        silent_s=0.0,
        patience_s=patience_s,
        unwanted=unwanted,
        orphans=unwanted,
    )


def look_again(first: _Worker, *later: _Worker, each_s: float = 2.0) -> _Worker:
    """The last of several looks, so many seconds after one another."""
    found = first.heard_again(None, 0.0)
    for one in later:
        found = one.heard_again(found, each_s)
    return found


def test_a_worker_that_says_something_is_not_silent() -> None:
    found = look_again(*(worker(float(second)) for second in range(100)))
    assert found.silent_s == 0.0
    assert found.offers == 3


def test_one_of_which_nothing_is_heard_for_a_minute_is_taken_to_hang() -> None:
    assert look_again(*[worker(7.0)] * 30).offers == 3  # 29 steps of 2 s
    found = look_again(*[worker(7.0)] * 31)
    assert found.is_silent
    assert found.offers == 0
    assert look_again(*[worker(7.0)] * 31, worker(8.0)).offers == 3


def test_time_in_which_nobody_looked_is_no_silence() -> None:
    """The scheduler, or this process, may have been stopped: a step counts five seconds at most."""
    assert look_again(worker(7.0), worker(7.0), each_s=3600.0).silent_s == 5.0


def test_a_clock_that_is_set_makes_nobody_silent() -> None:
    assert look_again(worker(7.0), worker(-1e5), worker(4e7)).silent_s == 0.0


def test_our_own_workers_are_never_taken_to_hang() -> None:
    assert look_again(*[worker(7.0, patience_s=math.inf)] * 1000).offers == 3


def test_tasks_that_nobody_waits_for_take_room_when_a_worker_has_said_so_twice() -> None:
    assert look_again(worker(1.0), worker(2.0, unwanted=2)).offers == 3
    assert look_again(worker(1.0), worker(2.0, unwanted=2), worker(3.0, unwanted=1)).offers == 2


def test_what_a_worker_said_once_is_not_held_against_it_twice() -> None:
    """It computed two cells when it spoke; that they have ended is not known until it speaks again."""
    assert look_again(worker(1.0), worker(2.0), *[worker(2.0, unwanted=2)] * 5).offers == 3


def test_a_worker_that_is_new_is_believed_at_once() -> None:
    """Another build may have left its tasks there."""
    assert look_again(worker(1.0, unwanted=2)).offers == 1
    assert look_again(worker(1.0), worker(2.0, unwanted=2, process="two")).offers == 1


def test_a_worker_that_is_paused_offers_nothing() -> None:
    assert replace(worker(1.0), is_running=False).offers == 0
