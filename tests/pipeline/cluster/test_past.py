"""What follows from what has happened to a task."""

from __future__ import annotations

import pytest

from sits_pipeline.cluster.past import Next, Past, Standing
from sits_pipeline.folder import CannotWrite
from sits_pipeline.sources.base import ServiceDown

BOTH = {"a", "b"}


def test_an_error_is_tried_again_so_often() -> None:
    past = Past()
    found = [past.after_error(OSError("torn"), "a", retries=2, workers=BOTH) for _ in range(3)]
    assert found == [Next.AGAIN, Next.AGAIN, Next.RAISE]
    assert past.failed_at == {"a"}
    assert not past.is_alone


@pytest.mark.parametrize("error", [ServiceDown("it says nothing"), KeyboardInterrupt()])
def test_what_another_attempt_would_meet_again_ends_the_build(error: BaseException) -> None:
    assert Past().after_error(error, "a", retries=9, workers=BOTH) is Next.RAISE


def test_a_full_disk_is_believed_when_a_second_worker_says_so() -> None:
    past, error = Past(), CannotWrite("no space is left")
    assert past.after_error(error, "a", retries=0, workers=BOTH) is Next.AGAIN
    assert past.after_error(error, "b", retries=9, workers=BOTH | {"c"}) is Next.RAISE


def test_a_full_disk_is_believed_where_there_is_no_second_worker() -> None:
    assert Past().after_error(CannotWrite("full"), "a", retries=9, workers={"a"}) is Next.RAISE
    assert Past().after_error(CannotWrite("full"), None, retries=9, workers={None}) is Next.RAISE


def test_want_of_memory_counts_as_a_death() -> None:
    past = Past()
    assert past.after_error(MemoryError("1.2 GiB"), "a", retries=0, workers=BOTH) is Next.SMALLER
    assert past.is_alone
    assert past.after_death() is Next.SMALLER
    assert past.after_error(MemoryError("1.2 GiB"), "a", retries=9, workers=BOTH) is Next.TOO_LARGE
    assert (past.errors, past.deaths) == (0, 3)


def test_the_third_worker_that_gives_no_result_is_one_too_many() -> None:
    past = Past()
    assert [past.after_hang() for _ in range(3)] == [Next.AGAIN, Next.AGAIN, Next.STUCK]


def test_a_worker_that_fails_again_and_again_is_shunned_for_a_while() -> None:
    standing = Standing()
    assert [standing.failed("a", float(now)) for now in range(3)] == [False, False, True]
    assert standing.shunned(BOTH, 2.0) == {"a"}
    assert standing.shunned(BOTH, 301.0) == {"a"}
    assert standing.shunned(BOTH, 302.0) == set()


def test_a_result_restores_a_worker() -> None:
    standing = Standing()
    standing.failed("a", 0.0)
    standing.failed("a", 1.0)
    standing.gave_a_result("a")
    assert not standing.failed("a", 2.0)
    assert standing.shunned(BOTH, 2.0) == set()


def test_where_all_fail_none_is_shunned() -> None:
    standing = Standing()
    for now in range(3):
        for address in BOTH:
            standing.failed(address, float(now))
    assert standing.shunned(BOTH, 3.0) == set()
    assert standing.shunned(BOTH | {"c"}, 3.0) == BOTH
