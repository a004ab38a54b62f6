"""Which task goes where."""

from __future__ import annotations

from sits_pipeline.cluster.rooms import Room
from sits_pipeline.cluster.waiting import Job, Sent, Waiting

A, B, C = Room("a", "1"), Room("b", "2"), Room("c", "3")
ALL = ("a", "b", "c")


def waiting(n: int = 3) -> Waiting[str]:
    return Waiting(iter("xyzuvw"[:n]))


def taken(queue: Waiting[str], room: Room, *held: Sent[str], workers: tuple[str, ...] = ALL) -> str | None:
    job = queue.job_for(room, held, workers)
    return None if job is None else job.task


def test_new_tasks_go_wherever_there_is_room_in_their_order() -> None:
    queue = waiting(2)
    assert [taken(queue, room) for room in (B, A, C)] == ["x", "y", None]
    assert queue.is_empty


def test_what_is_to_be_sent_again_comes_before_new_tasks() -> None:
    queue = waiting()
    queue.set_aside(Job(7, "late"))
    queue.set_aside(Job(8, "first"), first=True)
    assert [taken(queue, A) for _ in range(3)] == ["first", "late", "x"]


def test_some_job_is_looked_at_and_stays() -> None:
    queue = waiting(1)
    looked_at = queue.any_job()
    assert looked_at is not None
    assert looked_at.task == "x"
    assert not queue.is_empty
    assert taken(queue, A) == "x"
    assert queue.any_job() is None


def test_what_failed_at_a_worker_goes_to_another_and_the_worker_gets_a_new_one() -> None:
    queue = waiting()
    queue.past[7].failed_at.add("a")
    queue.set_aside(Job(7, "failed"))
    assert taken(queue, A) == "x"
    assert taken(queue, B) == "failed"


def test_what_failed_everywhere_goes_anywhere() -> None:
    queue = waiting()
    queue.past[7].failed_at.update(ALL)
    queue.set_aside(Job(7, "failed"))
    assert taken(queue, C) == "failed"


def test_a_copy_goes_to_a_worker_that_does_not_compute_it_yet() -> None:
    queue = waiting()
    queue.set_aside(Job(7, "slow"))
    under_way = Sent(Job(7, "slow"), A)
    assert taken(queue, A, under_way) == "x"
    assert taken(queue, B, under_way) == "slow"


def test_a_worker_is_kept_free_until_what_is_to_be_alone_can_go_there() -> None:
    queue = waiting(6)
    queue.past[7].deaths = 1
    queue.set_aside(Job(7, "large"))
    # Of three workers one is kept free, that with the fewest; it has still one to end.
    busy = [Sent(Job(0, "r"), A), Sent(Job(1, "s"), B), Sent(Job(2, "t"), C), Sent(Job(3, "u"), C)]
    assert taken(queue, A, *busy) is None
    assert taken(queue, B, *busy) == "x"
    assert taken(queue, C, *busy) == "y"
    assert taken(queue, A, *busy[1:]) == "large"
    # There it is alone.
    large = Sent(Job(7, "large"), A)
    assert taken(queue, A, large) is None
    assert taken(queue, B, large) == "z"


def test_what_is_to_be_alone_is_not_kept_from_the_worker_at_which_it_failed() -> None:
    """Which one is kept free does not depend on the past of those that wait."""
    queue = waiting(0)
    queue.past[7].deaths = 1
    queue.past[7].failed_at.add("a")
    queue.set_aside(Job(7, "large"))
    assert taken(queue, A, workers=("a", "b")) == "large"


def test_a_worker_that_is_shunned_gets_nothing_and_is_not_kept_free() -> None:
    queue = waiting()
    for _ in range(3):
        queue.standing.failed("a", 1e12)
    queue.past[7].deaths = 1
    queue.set_aside(Job(7, "large"))
    assert taken(queue, A, workers=("a", "b")) is None
    assert taken(queue, B, workers=("a", "b")) == "large"


def test_a_result_ends_all_copies() -> None:
    queue = waiting(0)
    queue.set_aside(Job(7, "slow"))
    queue.past[7].hangs = 1
    queue.done(7)
    assert not queue.again
    assert 7 not in queue.past
