"""Schedulers and workers as processes of their own; workers that come and go."""

from __future__ import annotations

import math
import os
import signal
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
from tests.pipeline.cluster.cells import log_times, most_at_once, numbers, of
from tests.services.dask_processes import free_port, kill, running, two_workers, worker

from sits_pipeline import cluster as module
from sits_pipeline.cluster import feed, link, open_cluster
from sits_pipeline.config import BuildConfig


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
