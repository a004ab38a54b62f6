from __future__ import annotations

import itertools
import logging
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from distributed import Client
from tests.services.cut_proxy import CutProxy
from tests.services.dask_processes import free_port, kill, running, two_workers, worker
from tests.services.loopback import Loopback

from sits_pipeline import cluster as module
from sits_pipeline.cluster import Cluster, feed, link, open_cluster, rooms
from sits_pipeline.cluster import gate as gate_module
from sits_pipeline.cluster.gate import SharedGate
from sits_pipeline.cluster.lease import UnwantedError, check_wanted
from sits_pipeline.config import BuildConfig
from sits_pipeline.plan import CellMemory
from sits_pipeline.sources.access import Gate, Limit
from sits_pipeline.sources.base import ServiceDown
from sits_pipeline.sources.web import Web


def of(cell_bytes: float, further: float = 1) -> CellMemory:
    """The memory of cells whose first thread, and each further one, needs so many bytes."""
    return CellMemory(first=int(cell_bytes), further=int(further))


class CellError(Exception):
    """An error of a task, as a step might raise it."""


@pytest.fixture(scope="module")
def pair() -> Iterator[Cluster]:
    """Two threads of this process."""
    with open_cluster(BuildConfig(workers=2, memory_gb=1), of(1000), n_cells=100) as cluster:
        yield cluster


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "_BACK_OFF_S", (0.0,))


def square(number: int) -> int:
    return number * number


KNOWN: dict[str, Callable[[Any], int]] = {}


def shared[T](function: Callable[[T], int]) -> Callable[[T], int]:
    """A task that sees the variables of its test.

    distributed pickles what it is given, even on its way into its own process: such a task travels as a name.
    """
    name = str(len(KNOWN))
    KNOWN[name] = function
    return partial(call, name)


def call(name: str, task: object) -> int:
    return KNOWN[name](task)


# Results


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
        for number in range(40):
            taken += 1
            most = max(most, taken - received)
            yield number

    for _ in pair.run(square, tasks(), retries=0):
        received += 1
    assert received == taken == 40
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


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cell is taken to hang after a fifth of a second."""
    monkeypatch.setattr(feed, "_LOOK_S", 0.02)
    monkeypatch.setattr(feed, "_PATIENT_S", 0.2)
    monkeypatch.setattr(feed, "_TIMES_PATIENT", 1.0)
    monkeypatch.setattr(feed, "_TIMES_LONGEST", 0.5)


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


# Slots


@pytest.mark.parametrize(
    ("workers", "memory_gb", "cell_bytes", "further", "n_cells", "slots", "threads"),
    [
        (4, 10.0, 1e9, 1e8, 100, 4, 1),
        # 2.5 GB hold two cells of 1 GB, and a second thread of 100 MB in each.
        (4, 2.5, 1e9, 1e8, 100, 2, 2),
        # Not where a thread takes 300 MB.
        (4, 2.5, 1e9, 3e8, 100, 2, 1),
        # A single cell gets all threads, or those that fit.
        (4, 10.0, 1e9, 1e8, 1, 1, 4),
        (8, 1.9, 1e9, 2e8, 1, 1, 5),
        (1, 10.0, 1e9, 1e8, 100, 1, 1),
    ],
)
def test_slots_and_threads_are_bounded_by_cores_by_memory_and_by_cells(
    workers: int, memory_gb: float, cell_bytes: float, further: float, n_cells: int, slots: int, threads: int
) -> None:
    config = BuildConfig(workers=workers, memory_gb=memory_gb)
    with open_cluster(config, of(cell_bytes, further), n_cells=n_cells) as cluster:
        assert (cluster.slots, cluster.threads_a_cell) == (slots, threads)


def test_a_cell_that_does_not_fit_into_memory_is_refused() -> None:
    config = BuildConfig(memory_gb=1.5)
    sentence = (
        r"a cell needs 2\.0 GB of memory even shard by shard, 1\.5 GB may be used; "
        r"allow more with --memory, or choose fewer dates or bands"
    )
    with pytest.raises(MemoryError, match=sentence), open_cluster(config, of(2 * 10**9), n_cells=1):
        pass


def test_a_cell_that_fits_nowhere_whole_is_computed_shard_by_shard() -> None:
    cell = CellMemory(first=2 * 10**9, further=1, shard=7 * 10**8)
    with open_cluster(BuildConfig(workers=4, memory_gb=1.5), cell, n_cells=9) as cluster:
        assert (cluster.slots, cluster.shard_by_shard) == (2, True)
        assert sorted(cluster.run(square, range(3), retries=0, smaller=math.factorial)) == [1, 1, 4]
    with open_cluster(BuildConfig(workers=4, memory_gb=2.5), cell, n_cells=9) as cluster:
        assert (cluster.slots, cluster.shard_by_shard) == (1, False)
        assert sorted(cluster.run(square, range(3), retries=0, smaller=math.factorial)) == [0, 1, 4]


def test_a_scheduler_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CONNECT_S", 0.5)
    address = f"tcp://127.0.0.1:{free_port()}"
    config = BuildConfig(scheduler=address)
    sentence = rf"no Dask scheduler answers at {address} \(.*\); start one with `dask scheduler` and give its address"
    with pytest.raises(OSError, match=sentence), open_cluster(config, of(1), n_cells=1):
        pass


@pytest.mark.parametrize("address", ["nonsense://x:1", "tcp://"])
def test_an_address_that_is_none_is_named(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CONNECT_S", 0.5)
    config = BuildConfig(scheduler=address)
    with (
        pytest.raises(OSError, match=f"no Dask scheduler answers at {address}"),
        open_cluster(config, of(1), n_cells=1),
    ):
        pass


# Processes


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A running scheduler."""
    port = str(free_port())
    log = tmp_path_factory.mktemp("dask") / "scheduler.log"
    with running(log, "scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard"):
        yield f"tcp://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def duo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A running scheduler and two workers that are started again by their nannies."""
    folder = tmp_path_factory.mktemp("duo")
    port = str(free_port())
    here = f"tcp://127.0.0.1:{port}"
    with (
        running(folder / "scheduler.log", "scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard"),
        two_workers(folder, here, nanny=True),
    ):
        yield here


@pytest.fixture
def both(duo: str) -> str:
    """The same when both workers are there, whatever a test before has done to them."""
    with Client(duo, set_as_default=False, timeout=60) as client:  # type: ignore[no-untyped-call]
        client.wait_for_workers(2, timeout=60)
    return duo


@pytest.mark.slow
def test_a_running_scheduler_and_its_workers_compute_the_cells(address: str, tmp_path: Path) -> None:
    config = BuildConfig(scheduler=address)
    nobody = "the Dask scheduler has no workers; start some with `dask worker ADDRESS`"
    with pytest.raises(OSError, match=nobody), open_cluster(config, of(1), n_cells=1):
        pass
    with worker(tmp_path, address, memory="1GB"):
        with open_cluster(config, of(10**8), n_cells=50) as cluster:
            # Two threads; 1 GB would hold ten cells.
            assert cluster.slots == 2
            assert sorted(cluster.run(math.factorial, range(50), retries=0)) == [math.factorial(n) for n in range(50)]
            with pytest.raises(ValueError, match="not defined for negative values"):
                list(cluster.run(math.factorial, [-1], retries=0))
        with open_cluster(config, of(6 * 10**8), n_cells=50) as cluster:
            assert cluster.slots == 1
        sentence = (
            r"a cell needs 2\.0 GB of memory even shard by shard, the largest worker has 1\.0 GB; start workers with a "
            r"larger --memory-limit, or choose fewer dates or bands"
        )
        with pytest.raises(MemoryError, match=sentence), open_cluster(config, of(2 * 10**9), n_cells=1):
            pass


@pytest.mark.slow
def test_a_worker_without_a_memory_limit_counts_its_threads(address: str, tmp_path: Path) -> None:
    with (
        worker(tmp_path, address, memory="0"),
        open_cluster(BuildConfig(scheduler=address), of(10**15), n_cells=50) as cluster,
    ):
        assert cluster.slots == 2


@pytest.mark.slow
def test_processes_of_this_machine_compute_the_cells() -> None:
    config = BuildConfig(kind="processes", workers=2, memory_gb=1)
    with open_cluster(config, of(10**8), n_cells=50) as cluster:
        assert cluster.slots == 2
        assert sorted(cluster.run(math.isqrt, range(50), retries=0)) == [math.isqrt(n) for n in range(50)]


# Workers that come and go


def log_times(folder: Path, seconds: float, number: int) -> tuple[int, int, float, float]:
    """A cell: its number, its process, when it began and ended. It leaves a file while it runs."""
    mark = folder / f"{number}-{os.getpid()}"
    began = time.time()
    mark.touch()
    time.sleep(seconds)
    mark.unlink()
    return number, os.getpid(), began, time.time()


def most_at_once(times: Sequence[tuple[int, int, float, float]]) -> dict[int, int]:
    """Cells that ran at the same time, by process."""
    return {
        process: max(
            sum(began <= moment < ended for _, other, began, ended in times if other == process)
            for _, other, moment, _ in times
            if other == process
        )
        for process in {process for _, process, _, _ in times}
    }


def numbers(times: Sequence[tuple[int, int, float, float]]) -> list[int]:
    return sorted(number for number, *_ in times)


@pytest.fixture
def quick_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "_LOOK_S", 0.2)


@pytest.mark.slow
def test_no_worker_holds_more_cells_than_it_has_memory_for(both: str, tmp_path: Path) -> None:
    # Each has two threads and 1 GB: one cell of 900 MB fits, two do not, however much is free elsewhere.
    with open_cluster(BuildConfig(scheduler=both), of(9e8), n_cells=12) as cluster:
        assert cluster.slots == 2
        task = partial(log_times, tmp_path, 0.3)
        times = list(cluster.run(task, range(12), retries=0))
    assert numbers(times) == list(range(12))
    assert list(most_at_once(times).values()) == [1, 1]


@pytest.mark.slow
@pytest.mark.usefixtures("quick_look")
def test_the_cells_of_a_worker_that_is_killed_are_computed_by_the_other(address: str, tmp_path: Path) -> None:
    with (
        two_workers(tmp_path, address) as workers,
        open_cluster(BuildConfig(scheduler=address), of(9e8), n_cells=10) as cluster,
    ):
        results = cluster.run(partial(log_times, tmp_path, 0.5), range(10), retries=0)
        times = [next(results)]
        kill(workers[0])
        times += list(results)
    assert numbers(times) == list(range(10))
    assert set(most_at_once(times).values()) == {1}


@pytest.mark.slow
@pytest.mark.usefixtures("quick_look")
def test_a_result_that_dies_with_its_worker_is_computed_again(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "_FETCH_S", 3.0)
    with (
        two_workers(tmp_path, address) as workers,
        open_cluster(BuildConfig(scheduler=address), of(9e8), n_cells=4) as cluster,
    ):
        results = cluster.run(partial(log_times, tmp_path, 0.3), range(4), retries=0)
        times = [next(results)]
        # Nobody asks for the second result before its worker is gone.
        time.sleep(2)
        kill(workers[0])
        kill(workers[1])
        with worker(tmp_path, address, memory="1GB"):
            times += list(results)
    assert numbers(times) == list(range(4))


@pytest.mark.slow
@pytest.mark.usefixtures("quick_look")
def test_a_worker_that_joins_takes_cells(address: str, tmp_path: Path) -> None:
    with (
        worker(tmp_path, address, memory="1GB"),
        open_cluster(BuildConfig(scheduler=address), of(9e8), n_cells=40) as cluster,
    ):
        results = cluster.run(partial(log_times, tmp_path, 0.3), range(40), retries=0)
        times = [next(results)]
        with worker(tmp_path, address, memory="1GB", already=1):
            times += list(results)
    assert numbers(times) == list(range(40))
    assert list(most_at_once(times).values()) == [1, 1]


@pytest.mark.slow
@pytest.mark.usefixtures("quick_look")
def test_where_all_workers_have_left_the_build_waits_and_then_says_so(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(feed, "_ALONE_S", 2.0)
    with ExitStack() as stack:
        with worker(tmp_path, address, memory="1GB") as process:
            cluster = stack.enter_context(open_cluster(BuildConfig(scheduler=address), of(9e8), n_cells=9))
            results = cluster.run(partial(log_times, tmp_path, 0.3), range(9), retries=0)
            next(results)
            kill(process)
        with pytest.raises(RuntimeError, match=r"no worker that can hold a cell has joined the Dask scheduler for 2 s"):
            list(results)
    assert "no worker is left that can take a cell" in caplog.text


def die(number: int) -> int:
    """A cell that takes its worker with it."""
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.1)
    return number


@pytest.mark.slow
@pytest.mark.usefixtures("quick_look")
def test_a_cell_that_kills_one_worker_after_another_is_a_matter_of_memory(both: str) -> None:
    with (
        open_cluster(BuildConfig(scheduler=both), of(9e8), n_cells=9) as cluster,
        pytest.raises(
            MemoryError,
            match=r"1 lacked memory, or was lost with its worker, 3 times: .* takes about 0\.9 GB; give each worker",
        ),
    ):
        list(cluster.run(die, range(9), retries=3))


@pytest.mark.slow
@pytest.mark.usefixtures("quick_look")
def test_a_scheduler_that_goes_away_for_good_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "_PATIENCE_S", 1.0)
    monkeypatch.setattr(module, "_CONNECT_S", 1.0)
    port = str(free_port())
    here = f"tcp://127.0.0.1:{port}"
    options = ("scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard")
    with (
        running(tmp_path / "scheduler.log", *options) as scheduler,
        worker(tmp_path, here, memory="1GB"),
        open_cluster(BuildConfig(scheduler=here), of(9e8), n_cells=9) as cluster,
    ):
        results = cluster.run(partial(log_times, tmp_path, 0.3), range(9), retries=0)
        next(results)
        kill(scheduler)
        with pytest.raises(RuntimeError, match="the connection to the Dask scheduler was lost; start it"):
            list(results)


# A worker that dies, hangs or computes in vain


def frail(folder: Path, cell: tuple[int, bool]) -> tuple[int, int, float, float]:
    """A cell that takes its worker with it unless it is made smaller: its number, and whether it is."""
    number, is_small = cell
    if number == 1 and not is_small:
        os.kill(os.getpid(), signal.SIGKILL)
    return log_times(folder, 0.5 if is_small else 0.2, number)


def made_smaller(cell: tuple[int, bool]) -> tuple[int, bool]:
    return cell[0], True


@pytest.mark.slow
@pytest.mark.usefixtures("quick_look")
def test_a_cell_whose_worker_dies_is_computed_alone_and_in_smaller_steps(
    both: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with open_cluster(BuildConfig(scheduler=both), of(4e8), n_cells=16) as cluster:
        assert cluster.slots == 4
        tasks = [(number, False) for number in range(16)]
        times = list(cluster.run(partial(frail, tmp_path), tasks, retries=0, smaller=made_smaller))
    assert numbers(times) == list(range(16))
    (alone,) = [one for one in times if one[0] == 1]
    there = [other for other in times if other[1] == alone[1] and other[0] != 1]
    assert not any(began < alone[3] and ended > alone[2] for _, _, began, ended in there)
    assert "a worker left; (1, False) is computed alone, in smaller steps" in caplog.text


def stop_once(folder: Path, number: int) -> int:
    """A cell that stops its worker, the first time."""
    mark = folder / "stopped"
    if number == 1 and not mark.exists():
        mark.write_text(str(os.getpid()))
        os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(0.1)
    return number


@pytest.mark.slow
@pytest.mark.usefixtures("quick_look")
def test_the_cells_of_a_worker_that_hangs_are_computed_by_the_other(
    both: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(rooms, "_SILENT_S", 4.0)
    try:
        with open_cluster(BuildConfig(scheduler=both), of(9e8), n_cells=6) as cluster:
            assert sorted(cluster.run(partial(stop_once, tmp_path), range(6), retries=0)) == list(range(6))
    finally:
        os.kill(int((tmp_path / "stopped").read_text()), signal.SIGCONT)
    assert "nothing is heard of its worker; 1 is tried again" in caplog.text


def write_late(folder: Path, number: int) -> int:
    """A cell that is at its last step for as long as it is told to, and then writes."""
    (folder / f"began-{number}").touch()
    while not (folder / "go").exists():
        time.sleep(0.02)
    try:
        check_wanted()
    except UnwantedError:
        (folder / f"refused-{number}").touch()
        raise
    (folder / f"wrote-{number}").touch()
    return number


def wait_for(*paths: Path) -> None:
    until = time.monotonic() + 60
    while not all(path.exists() for path in paths):
        assert time.monotonic() < until, paths
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.usefixtures("quick_look")
def test_what_a_client_that_died_has_left_behind_takes_room_and_writes_nothing(both: str, tmp_path: Path) -> None:
    config = BuildConfig(scheduler=both)
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    with Client(both, set_as_default=False) as client:  # type: ignore[no-untyped-call]
        workers = client.scheduler_info(n_workers=-1)["workers"]
        held = [
            client.submit(partial(write_late, first), number, workers=[address], pure=False)
            for number, address in enumerate(workers)
        ]
        wait_for(first / "began-0", first / "began-1")
    del held
    # One worker has room for one cell: as long as both compute for nobody, there is none.
    with open_cluster(config, of(9e8), n_cells=4) as cluster:
        until = time.monotonic() + 30
        while list(cluster.rooms.free([])):  # workers say what they do twice a second
            assert time.monotonic() < until
            time.sleep(0.2)
            cluster.rooms.look()
        (first / "go").touch()
        (second / "go").touch()
        assert sorted(cluster.run(partial(write_late, second), [3, 4, 5, 6], retries=0)) == [3, 4, 5, 6]
    wait_for(first / "refused-0", first / "refused-1")
    assert sorted(path.name for path in first.glob("wrote-*")) == []
    assert sorted(path.name for path in second.glob("wrote-*")) == [f"wrote-{number}" for number in (3, 4, 5, 6)]


@pytest.mark.slow
@pytest.mark.usefixtures("quick_look")
def test_a_connection_that_is_cut_is_opened_again(both: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with CutProxy(int(both.rpartition(":")[2])) as proxy:
        config = BuildConfig(scheduler=f"tcp://127.0.0.1:{proxy.port}")
        with open_cluster(config, of(9e8), n_cells=6) as cluster:
            results = cluster.run(partial(log_times, tmp_path, 0.3), range(6), retries=0)
            times = [next(results)]
            proxy.cut()
            restoring = threading.Timer(1.0, proxy.restore)
            restoring.start()
            times += list(results)
            restoring.join()
    assert numbers(times) == list(range(6))
    said = [r.getMessage() for r in caplog.records if r.name.startswith("sits_pipeline")]
    assert said[0] == "the connection to the Dask scheduler was lost; trying again for 120 s at most"
    assert said[1] == "the Dask scheduler answers again; the cells that were under way are sent again"


# Limits of services


class CountingServer(Loopback):
    """Says how many requests were under way at the same time, and when they came."""

    def __init__(self, seconds: float) -> None:
        outer = self
        self.lock = threading.Lock()
        self.under_way = self.most = 0
        self.times: list[float] = []

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args: object) -> None:
                pass

            def do_GET(self) -> None:
                with outer.lock:
                    outer.times.append(time.monotonic())
                    outer.under_way += 1
                    outer.most = max(outer.most, outer.under_way)
                time.sleep(seconds)
                with outer.lock:
                    outer.under_way -= 1
                with suppress(OSError):  # who asked may have been killed
                    self.wfile.write(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok")

        super().__init__(Handler)


@pytest.fixture
def counting() -> Iterator[Callable[[float], CountingServer]]:
    servers: list[CountingServer] = []

    def start(seconds: float) -> CountingServer:
        servers.append(CountingServer(seconds))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def ask(gate: Gate, url: str, requests: int, number: int) -> int:
    """A cell that sends so many requests from threads of its own."""
    web = Web(gate=gate)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda one: web.fetch(f"{url}/{number}-{one}", max_bytes=9).body, range(requests)))
    assert answers == [b"ok"] * requests
    return number


@pytest.mark.parametrize(
    ("at_once", "a_minute", "n_leases", "hold_s"),
    [(10, 0, 10, 0.0), (4, 2000, 4, 240 / 1996), (10, 300, 10, 600 / 290), (10, 6, 3, 60.0), (1, 1, 1, 60.0)],
)
def test_leases_are_held_so_long_that_a_minute_holds_no_more_than_allowed(
    at_once: int, a_minute: int, n_leases: int, hold_s: float
) -> None:
    gate = SharedGate(Limit(name="any", at_once=at_once, a_minute=a_minute))
    assert (gate.n_leases, gate.hold_s) == (n_leases, pytest.approx(hold_s))
    if a_minute > 1:
        # A lease given out at 0, h, 2 h, ... of a minute.
        assert n_leases * (60 / hold_s + 1) == pytest.approx(a_minute)


def test_a_gate_outside_of_a_task_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_module, "_remembered", None)
    with pytest.raises(RuntimeError, match="holds among a cluster's tasks; none runs in this process"):
        SharedGate(Limit(name="nowhere", at_once=1, a_minute=0)).request().__enter__()


def test_threads_of_this_process_share_a_limit(pair: Cluster, counting: Callable[[float], CountingServer]) -> None:
    server = counting(0.01)
    gates = pair.gates([Limit(name="threads", at_once=3, a_minute=0)])
    list(pair.run(partial(ask, gates["threads"], server.url, 8), range(4), retries=0))
    assert len(server.times) == 32
    assert 1 < server.most <= 3


@pytest.mark.slow
def test_all_workers_of_a_scheduler_share_a_limit(both: str, counting: Callable[[float], CountingServer]) -> None:
    server = counting(0.05)
    with open_cluster(BuildConfig(scheduler=both), of(4e8), n_cells=8) as cluster:
        assert cluster.slots == 4
        gate = cluster.gate(Limit(name="shared", at_once=3, a_minute=0))
        list(cluster.run(partial(ask, gate, server.url, 10), range(8), retries=0))
        assert len(server.times) == 80
        assert server.most == 3
        gate = cluster.gate(Limit(name="paced", at_once=4, a_minute=604))
        assert isinstance(gate, SharedGate)
        assert gate.hold_s == pytest.approx(0.4)
        server.times.clear()
        server.most = 0
        list(cluster.run(partial(ask, gate, server.url, 10), range(4), retries=0))
    times = sorted(server.times)
    assert len(times) == 40
    assert server.most <= 4
    # Ten rounds of four leases; the first request may have come late by as much as a round.
    assert times[-1] - times[0] >= 8 * 0.4
    print(f"40 requests in {times[-1] - times[0]:.1f} s, at most {server.most} under way, where 600 a minute may be")


@pytest.mark.slow
def test_processes_of_this_machine_share_a_limit(counting: Callable[[float], CountingServer]) -> None:
    server = counting(0.05)
    config = BuildConfig(kind="processes", workers=2, memory_gb=1)
    with open_cluster(config, of(10**8), n_cells=50) as cluster:
        gate = cluster.gate(Limit(name="processes", at_once=2, a_minute=0))
        assert isinstance(gate, SharedGate)
        list(cluster.run(partial(ask, gate, server.url, 10), range(4), retries=0))
    assert len(server.times) == 40
    assert server.most == 2


@pytest.mark.slow
@pytest.mark.usefixtures("quick_look")
def test_the_leases_of_a_worker_that_is_killed_come_back(
    tmp_path: Path, counting: Callable[[float], CountingServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DASK_DISTRIBUTED__SCHEDULER__LOCKS__LEASE_TIMEOUT", "5s")
    monkeypatch.setenv("DASK_DISTRIBUTED__SCHEDULER__LOCKS__LEASE_VALIDATION_INTERVAL", "1s")
    server = counting(0.5)
    port = str(free_port())
    here = f"tcp://127.0.0.1:{port}"
    options = ("scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard")
    with (
        running(tmp_path / "scheduler.log", *options),
        two_workers(tmp_path, here) as workers,
        open_cluster(BuildConfig(scheduler=here), of(9e8), n_cells=4) as cluster,
    ):
        gate = cluster.gate(Limit(name="killed", at_once=2, a_minute=0))
        assert isinstance(gate, SharedGate)
        results = cluster.run(partial(ask, gate, server.url, 8), range(4), retries=0)
        done = [next(results)]
        kill(workers[0])
        done += list(results)
        held = partial(cluster.client.sync, cluster.client.scheduler.semaphore_value, name="sits-gate-killed-2-0")
        until = time.monotonic() + 30
        while held() and time.monotonic() < until:
            time.sleep(0.2)
        assert held() == 0
    assert sorted(done) == [0, 1, 2, 3]
    assert len(server.times) >= 32
    # The server goes on with what a killed worker had asked, which ends long before its leases come back.
    assert server.most <= 2


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
