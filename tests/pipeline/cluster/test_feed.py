"""Tasks go through the window and come back as results or as errors."""

from __future__ import annotations

import itertools
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from distributed import Worker
from tests.pipeline.cluster.cells import CellError, shared, square

from sits_pipeline.cluster import Cluster, feed, lease
from sits_pipeline.cluster.lease import UnwantedError
from sits_pipeline.sources.base import ServiceDown


def test_every_task_gives_its_result(pair: Cluster) -> None:
    assert sorted(pair.run(square, range(30), retries=0)) == [n * n for n in range(30)]


def test_without_tasks_there_are_no_results(pair: Cluster) -> None:
    assert list(pair.run(square, [], retries=0)) == []


def test_results_come_when_they_are_done(pair: Cluster) -> None:
    first_may_end = threading.Event()

    @shared
    def task(number: int) -> int:
        if number == 0:
            first_may_end.wait(30)
        return number

    results = pair.run(task, range(3), retries=0)
    assert next(results) == 1
    assert next(results) == 2
    first_may_end.set()
    assert list(results) == [0]


def test_no_more_tasks_are_asked_for_than_there_are_slots_and_one_to_follow(pair: Cluster) -> None:
    taken = received = most = 0

    def tasks() -> Iterator[int]:
        nonlocal taken, most
        for number in range(20):
            taken += 1
            most = max(most, taken - received)
            yield number

    for _ in pair.run(square, tasks(), retries=0):
        received += 1
    # As few as go one by one, however quick they are.
    assert received == taken == 20
    assert pair.slots == 2
    assert most == pair.slots + 1


def test_no_more_tasks_run_at_once_than_there_are_slots(pair: Cluster) -> None:
    lock = threading.Lock()
    running = most = 0

    @shared
    def task(number: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.01)
        with lock:
            running -= 1
        return number

    list(pair.run(task, range(12), retries=0))
    assert most == 2


# Errors


def test_a_task_that_fails_is_tried_again_after_a_pause(
    pair: Cluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(feed, "_BACK_OFF_S", (0.05, 0.2))
    started: list[float] = []

    @shared
    def task(number: int) -> int:
        if number == 3:
            started.append(time.monotonic())
            if len(started) < 4:
                raise CellError("the disk is full")
        return number

    with caplog.at_level(logging.WARNING, logger="sits_pipeline"):
        assert sorted(pair.run(task, range(6), retries=3)) == list(range(6))
    pauses = [after - before for before, after in itertools.pairwise(started)]
    # The last pause is used again where there are more tries than pauses.
    assert all(pause >= least for pause, least in zip(pauses, (0.05, 0.2, 0.2), strict=True))
    assert [r.getMessage() for r in caplog.records if r.name == "sits_pipeline.cluster.feed"] == [
        "a cell failed: the disk is full; 3 is tried again"
    ] * 3


@pytest.mark.usefixtures("no_pause")
def test_the_last_error_is_raised_as_it_is(pair: Cluster) -> None:
    tries = []

    @shared
    def task(number: int) -> int:
        tries.append(number)
        raise CellError("the disk is full", number, len(tries))

    with pytest.raises(CellError) as error:
        list(pair.run(task, [7], retries=2))
    assert error.value.args == ("the disk is full", 7, 3)
    assert tries == [7, 7, 7]


@pytest.mark.usefixtures("no_pause")
def test_after_an_error_no_new_task_is_started(pair: Cluster) -> None:
    taken = []

    def tasks() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    @shared
    def task(number: int) -> int:
        if number == 1:
            raise CellError
        return number

    with pytest.raises(CellError):
        list(pair.run(task, tasks(), retries=0))
    assert len(taken) <= 10
    # The cluster is still of use.
    assert list(pair.run(square, [2], retries=0)) == [4]


@pytest.mark.usefixtures("no_pause")
def test_other_results_arrive_while_a_task_is_tried_again(pair: Cluster) -> None:
    failed = set()

    @shared
    def task(number: int) -> int:
        if number % 2 and number not in failed:
            failed.add(number)
            raise CellError
        return number

    assert sorted(pair.run(task, range(20), retries=1)) == list(range(20))


@pytest.mark.usefixtures("impatient")
def test_a_cell_that_hangs_is_computed_by_another_worker_as_well(
    pair: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    may_end, tries = threading.Event(), []

    @shared
    def task(number: int) -> int:
        if number == 3:
            tries.append(number)
            if len(tries) == 1:
                may_end.wait(30)
        return number

    try:
        # Its result comes once, whatever becomes of the first copy.
        assert sorted(pair.run(task, range(6), retries=0)) == list(range(6))
    finally:
        may_end.set()
    assert len(tries) == 2
    assert "3 has not ended for 0 s; another worker computes it as well" in caplog.text


@pytest.mark.usefixtures("impatient")
def test_a_cell_that_hangs_everywhere_is_named(pair: Cluster) -> None:
    may_end = threading.Event()

    @shared
    def task(number: int) -> int:
        if number == 3:
            may_end.wait(30)
        return number

    try:
        with pytest.raises(RuntimeError, match=r"3 hangs: 3 workers were given it, and the last one had \d s; look at"):
            list(pair.run(task, range(5), retries=0))
    finally:
        may_end.set()


def test_an_error_among_the_tasks_themselves_is_raised(pair: Cluster) -> None:
    def tasks() -> Iterator[int]:
        yield 1
        raise CellError("no such parcel")

    with pytest.raises(CellError, match="no such parcel"):
        list(pair.run(square, tasks(), retries=3))


def test_a_service_that_answers_nothing_ends_the_build_at_once(pair: Cluster) -> None:
    tries, cause = [], CellError(threading.Lock())  # which cannot be pickled

    @shared
    def task(number: int) -> int:
        tries.append(number)
        raise ServiceDown("example.org did not answer 3 requests in a row") from cause

    with pytest.raises(ServiceDown, match="did not answer 3 requests"):
        list(pair.run(task, [7], retries=3))
    assert tries == [7]


@pytest.mark.usefixtures("no_pause")
def test_a_cell_that_lacks_memory_is_computed_alone_and_in_smaller_steps(
    pair: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    running: list[int] = []
    beside: list[int] = []

    @shared
    def task(job: tuple[int, bool]) -> int:
        number, is_small = job
        if number == 3 and not is_small:
            raise MemoryError("Unable to allocate 1.2 GiB")
        running.append(number)
        time.sleep(0.02)
        if is_small:
            beside.extend(other for other in running if other != number)
        running.remove(number)
        return number

    def smaller(job: tuple[int, bool]) -> tuple[int, bool]:
        return job[0], True

    tasks = [(number, False) for number in range(8)]
    assert sorted(pair.run(task, tasks, retries=0, smaller=smaller)) == list(range(8))
    assert beside == []
    assert "a cell failed: Unable to allocate 1.2 GiB; (3, False) is computed alone, in smaller" in caplog.text


@pytest.mark.usefixtures("no_pause")
def test_a_cell_that_lacks_memory_however_small_is_named_with_what_it_takes(pair: Cluster) -> None:
    @shared
    def task(number: int) -> int:
        raise MemoryError(f"Unable to allocate {number} GiB")

    with pytest.raises(MemoryError, match=r"^7 lacked memory, or was lost with its worker, 3 times: .* GB; give each"):
        list(pair.run(task, [7], retries=5))


@pytest.mark.usefixtures("impatient")
def test_the_first_copy_of_a_cell_that_hung_writes_nothing_after_the_other(pair: Cluster) -> None:
    """Threads of this process live on when nobody waits for them; the scheduler knows that in a moment."""
    tries, refused, ended = itertools.count(1), list[int](), threading.Event()

    @shared
    def task(number: int) -> int:
        mine = next(tries) if number == 3 else 0
        until = time.monotonic() + 30
        try:
            while mine == 1 and time.monotonic() < until:
                pair.check_wanted()
                time.sleep(0.01)
            pair.check_wanted()
        except UnwantedError:
            refused.append(mine)
        if mine == 1:
            ended.set()
        return number

    assert sorted(pair.run(task, range(3, 8), retries=0)) == list(range(3, 8))
    assert ended.wait(30)
    assert 1 in refused
    assert 0 not in refused


def test_a_yes_of_the_scheduler_holds_for_a_tenth_of_a_second_of_the_same_future(
    pair: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    real = lease._wanted_of

    async def wanted_of(worker: Worker) -> object:
        asked.append(1)
        return await real(worker)

    monkeypatch.setattr(lease, "_wanted_of", wanted_of)

    @shared
    def task(number: int) -> int:
        before = len(asked)
        for _ in range(5):
            pair.check_wanted()
        time.sleep(0.12)
        pair.check_wanted()
        return len(asked) - before

    # One after another: what each of them asks anew, whatever the one before was told.
    assert [list(pair.run(task, [number], retries=0)) for number in range(3)] == [[2]] * 3


# What is printed


FAILING = """
import math
from sits_pipeline.cluster import open_cluster
from sits_pipeline.config import BuildConfig
from sits_pipeline.plan import CellMemory

with open_cluster(BuildConfig(workers=1, memory_gb=1), CellMemory(first=1, further=1), n_cells=1) as cluster:
    try:
        list(cluster.run(math.sqrt, [-1.0], retries=0))
    except ValueError as error:
        print("caught:", error)
"""


@pytest.mark.slow
def test_a_failing_task_prints_nothing_of_its_own() -> None:
    done = subprocess.run([sys.executable, "-c", FAILING], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.startswith("caught:")
    assert done.stderr == ""
