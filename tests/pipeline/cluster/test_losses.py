"""A worker that dies, hangs or computes in vain; a connection that is cut."""

from __future__ import annotations

import os
import signal
import threading
import time
from functools import partial
from pathlib import Path

import pytest
from distributed import Client
from tests.pipeline.cluster.cells import log_times, numbers, of
from tests.services.cut_proxy import CutProxy

from sits_pipeline.cluster import open_cluster, rooms
from sits_pipeline.cluster.lease import UnwantedError, check_wanted
from sits_pipeline.config import BuildConfig


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
