"""Quick tasks go to workers several at once, and none is lost or computed for nothing on the way."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.pipeline.cluster.cells import CellError, shared

from sits_pipeline.cluster import Cluster, bundles
from sits_pipeline.cluster.bundles import Bundle, Bundles, Done, compute


def here(sizes: list[int], seconds: Callable[[int], float], parts: Iterator[Bundle[int]]) -> Iterator[Done[int, int]]:
    """Stands for a cluster whose tasks take `seconds` each and give themselves; notes how many came at once."""
    for part in parts:
        sizes.append(len(part.tasks))
        yield Done(part.tasks, (), sum(map(seconds, part.tasks)))


def test_tasks_of_pixels_go_one_by_one() -> None:
    sizes: list[int] = []
    assert list(Bundles[int, int](iter(range(40))).results(partial(here, sizes, lambda _: 10.0))) == list(range(40))
    assert sizes == [1] * 40


def test_quick_tasks_go_together_when_some_dozens_were_quick() -> None:
    sizes: list[int] = []
    assert list(Bundles[int, int](iter(range(1000))).results(partial(here, sizes, lambda _: 0.001))) == list(
        range(1000)
    )
    assert sizes[:21] == [1] * 21
    assert sizes == sorted(sizes[:-1]) + sizes[-1:]
    assert max(sizes) == 16


def test_after_a_slow_task_they_go_one_by_one_again() -> None:
    sizes: list[int] = []
    slow = partial(here, sizes, lambda number: 30.0 if number == 500 else 0.001)
    assert list(Bundles[int, int](iter(range(600))).results(slow)) == list(range(600))
    after = next(n for n in range(len(sizes)) if sum(sizes[: n + 1]) > 500) + 1
    assert sizes[after - 1] == 16
    assert sizes[after : after + 3] == [1, 1, 1]


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 7))
def test_whatever_bundles_leave_every_task_gives_one_result(ends: list[bool], n: int) -> None:
    computed: list[int] = []

    def run(parts: Iterator[Bundle[int]]) -> Iterator[Done[int, int]]:
        for part in parts:
            # One that ends early leaves all but its first task.
            kept = 1 if ends and ends[part.tasks[0] % len(ends)] else len(part.tasks)
            computed.extend(part.tasks[:kept])
            yield Done(tuple(-task for task in part.tasks[:kept]), part.tasks[kept:], 0.0)

    found = list(Bundles[int, int](iter(range(n * 20))).results(run))
    assert sorted(computed) == list(range(n * 20))
    assert sorted(found) == sorted(-task for task in computed)


def fail_at(number: int, task: int) -> int:
    if task == number:
        raise CellError(task)
    return task


def test_a_task_that_fails_is_left_with_those_after_it() -> None:
    done = compute(partial(fail_at, 3), Bundle((1, 2, 3, 4)))
    assert (done.results, done.left) == ((1, 2), (3, 4))
    assert done.failure == str(CellError(3))


def test_the_error_of_the_first_task_is_raised() -> None:
    with pytest.raises(CellError, match="1"):
        compute(partial(fail_at, 1), Bundle((1, 2)))


def test_a_bundle_that_takes_too_long_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundles, "_TOO_LONG_S", 0.01)

    def slow(task: int) -> int:
        time.sleep(0.02 if task == 1 else 0.0)
        return task

    done = compute(slow, Bundle((0, 1, 2, 3)))
    assert (done.results, done.left) == ((0, 1), (2, 3))
    assert done.seconds >= 0.02


def test_a_bundle_names_its_first_task_and_becomes_smaller_in_each() -> None:
    assert str(Bundle(("the cell at row 0, column 0",))) == "the cell at row 0, column 0"
    assert str(Bundle((4, 5, 6))) == "4 or one of the 2 sent with it"
    assert Bundle((4, 5, 6)).smaller(lambda task: task // 2) == Bundle((2, 2, 3))


@pytest.mark.usefixtures("no_pause")
def test_a_cluster_computes_hundreds_of_quick_tasks_of_which_one_fails_once(
    pair: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    failed: list[int] = []

    @shared
    def task(number: int) -> int:
        if number == 290 and not failed:
            failed.append(number)
            raise CellError(number)
        return number

    assert sorted(pair.run(task, range(300), retries=1)) == list(range(300))
    assert failed == [290]
    (told,) = (record.getMessage() for record in caplog.records if "a cell failed" in record.getMessage())
    assert str(CellError(290)) in told
    assert told.endswith("is tried again")


@pytest.mark.usefixtures("no_pause")
def test_the_error_of_a_task_that_fails_ever_again_is_raised_from_within_a_bundle(pair: Cluster) -> None:
    task = shared(partial(fail_at, 290))
    with pytest.raises(CellError, match="290"):
        list(pair.run(task, range(300), retries=1))
