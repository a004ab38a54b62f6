"""Whole builds on a scheduler and workers of their own while one of them dies, hangs or is cut off: the local dataset.

Simulated scenes and parcels; every process and connection is real.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from distributed import Client
from tests.end_to_end.archives import (
    SmallArchive,
    build_arguments,
    build_here,
    cells_in_journal,
    command,
    environment,
    journal_lines,
    leftovers,
    promised,
    run_here,
    wait_for,
)
from tests.services.cut_proxy import CutProxy
from tests.services.dask_processes import free_port, kill, running

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1200)]

CUT_S = 10.0


@pytest.fixture(scope="module", params=[512, 1024])
def side(request: pytest.FixtureRequest) -> int:
    """Of a cell: one shard, or two by two."""
    return int(request.param)


@pytest.fixture(scope="module")
def local(archive: SmallArchive, side: int, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What a build of this machine alone has written."""
    out = tmp_path_factory.mktemp("local")
    ended = build_here(archive, out, "--cell", side)
    assert ended.code == 0, ended.stderr
    return promised(out / "small")


@dataclass
class Build:
    """A build that runs as a process of its own."""

    process: subprocess.Popen[bytes]
    out: Path
    log: Path

    @property
    def dataset(self) -> Path:
        return self.out / "small"

    def wait_for_cells(self, n: int) -> None:
        """Until the journal holds so many."""
        wait_for(lambda: len(cells_in_journal(self.dataset)) >= n or self.process.poll() is not None, seconds=600)
        self.must_run()

    def must_run(self) -> None:
        """It must not have ended yet: what was done to it would have met nothing."""
        assert self.process.poll() is None, f"it has ended already\n{self.log.read_text()}"

    def end(self) -> str:
        """What it said; it must have ended well."""
        assert self.process.wait(900) == 0, self.log.read_text()
        return self.log.read_text()


@contextmanager
def building(archive: SmallArchive, side: int, out: Path, port: int) -> Iterator[Build]:
    arguments = build_arguments(archive, out, "--cell", side, "--scheduler", f"tcp://127.0.0.1:{port}")
    log = out.parent / f"{out.name}-{time.monotonic_ns()}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command("sits-build", *arguments), env=environment(), stdout=output, stderr=subprocess.STDOUT
        )
        try:
            yield Build(process, out, log)
        finally:
            process.kill()
            process.wait()


@contextmanager
def scheduler_at(folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    options = ("--host", "127.0.0.1", "--port", str(port), "--no-dashboard")
    with running(folder / "scheduler.log", "scheduler", *options) as process:
        yield process


@contextmanager
def supervised(folder: Path, port: int, name: str) -> Iterator[subprocess.Popen[bytes]]:
    """A worker of one thread and 2 GB that is started again whenever it ends, as any supervisor would."""
    options = ["--host", "127.0.0.1", "--no-dashboard", "--nthreads", "1", "--memory-limit", "2GB"]
    once = shlex.join([sys.executable, "-m", "dask", "worker", f"tcp://127.0.0.1:{port}", *options])
    with (folder / f"{name}.log").open("wb") as output:
        process = subprocess.Popen(
            ["/bin/sh", "-c", f"while true; do {once}; sleep 0.5; done"],
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def worker_pids(port: int, at_least: int) -> list[int]:
    """The processes of the workers that a scheduler knows."""
    with Client(f"tcp://127.0.0.1:{port}", timeout=120, set_as_default=False) as client:  # type: ignore[no-untyped-call]
        client.wait_for_workers(at_least, timeout=240)
        return sorted(client.run(os.getpid).values())


def assert_as_local(build: Build, local: dict[str, str]) -> None:
    assert promised(build.dataset) == local
    assert leftovers(build.out) == []
    cells = [tuple(line["cell"]) for line in journal_lines(build.dataset) if line["kind"] == "cell"]
    assert len(cells) == len(set(cells))
    assert run_here("sits-cube", "verify", build.dataset).code == 0


@contextmanager
def two_supervised(folder: Path, port: int, through: int | None = None) -> Iterator[list[int]]:
    """Two workers, known to the scheduler at `port`, to which they connect `through` another port."""
    with ExitStack() as stack:
        for name in ("one", "other"):
            stack.enter_context(supervised(folder, through or port, name))
        yield worker_pids(port, 2)


def test_a_worker_that_is_killed(archive: SmallArchive, side: int, local: dict[str, str], tmp_path: Path) -> None:
    port = free_port()
    with (
        scheduler_at(tmp_path, port),
        two_supervised(tmp_path, port) as pids,
        building(archive, side, tmp_path / "out", port) as build,
    ):
        build.wait_for_cells(1)
        os.kill(pids[0], signal.SIGKILL)
        said = build.end()
    assert_as_local(build, local)
    # Or it was killed when its cell was done and not yet handed over.
    assert "a worker left" in said or "a worker did not hand over its result" in said, said
    print(said)


def test_a_connection_of_the_client_that_is_cut(
    archive: SmallArchive, side: int, local: dict[str, str], tmp_path: Path
) -> None:
    port = free_port()
    with (
        scheduler_at(tmp_path, port),
        two_supervised(tmp_path, port),
        CutProxy(port) as proxy,
        building(archive, side, tmp_path / "out", proxy.port) as build,
    ):
        build.wait_for_cells(1)
        proxy.cut()
        time.sleep(CUT_S)
        build.must_run()
        proxy.restore()
        said = build.end()
    assert_as_local(build, local)
    assert "the Dask scheduler answers again" in said
    print(said)


def test_connections_of_the_workers_that_are_cut(
    archive: SmallArchive, side: int, local: dict[str, str], tmp_path: Path
) -> None:
    port = free_port()
    with scheduler_at(tmp_path, port), ExitStack() as stack:
        with Client(f"tcp://127.0.0.1:{port}", timeout=120, set_as_default=False):  # type: ignore[no-untyped-call]
            pass  # it listens
        proxy = stack.enter_context(CutProxy(port))
        stack.enter_context(two_supervised(tmp_path, port, proxy.port))
        with building(archive, side, tmp_path / "out", port) as build:
            build.wait_for_cells(1)
            proxy.cut()
            time.sleep(CUT_S)
            build.must_run()
            proxy.restore()
            said = build.end()
    assert_as_local(build, local)
    assert "a worker left" in said or "no worker is left" in said, said
    print(said)


def test_a_scheduler_that_is_stopped_and_goes_on(
    archive: SmallArchive, side: int, local: dict[str, str], tmp_path: Path
) -> None:
    port = free_port()
    with (
        scheduler_at(tmp_path, port) as scheduler,
        two_supervised(tmp_path, port),
        building(archive, side, tmp_path / "out", port) as build,
    ):
        build.wait_for_cells(1)
        scheduler.send_signal(signal.SIGSTOP)
        time.sleep(CUT_S)
        build.must_run()
        scheduler.send_signal(signal.SIGCONT)
        print(build.end())
    assert_as_local(build, local)


def test_a_scheduler_that_is_killed_and_started_again(
    archive: SmallArchive, side: int, local: dict[str, str], tmp_path: Path
) -> None:
    port = free_port()
    with ExitStack() as stack:
        scheduler = stack.enter_context(scheduler_at(tmp_path, port))
        stack.enter_context(two_supervised(tmp_path, port))
        build = stack.enter_context(building(archive, side, tmp_path / "out", port))
        build.wait_for_cells(1)
        kill(scheduler)
        time.sleep(CUT_S)
        build.must_run()
        stack.enter_context(scheduler_at(tmp_path, port))
        said = build.end()
    assert_as_local(build, local)
    assert "the Dask scheduler answers again" in said, said
    print(said)


def test_a_worker_that_hangs(archive: SmallArchive, side: int, local: dict[str, str], tmp_path: Path) -> None:
    port = free_port()
    with (
        scheduler_at(tmp_path, port),
        two_supervised(tmp_path, port) as pids,
        building(archive, side, tmp_path / "out", port) as build,
    ):
        build.wait_for_cells(1)
        os.kill(pids[0], signal.SIGSTOP)
        said = build.end()
        os.kill(pids[0], signal.SIGCONT)
        assert "nothing is heard of its worker" in said
        time.sleep(5)  # in which it ends what it was at
    assert_as_local(build, local)
    print(said)


def test_a_client_that_is_killed_and_comes_back_at_once(
    archive: SmallArchive, side: int, local: dict[str, str], tmp_path: Path
) -> None:
    port = free_port()
    with (
        scheduler_at(tmp_path, port),
        two_supervised(tmp_path, port),
        building(archive, side, tmp_path / "out", port) as build,
    ):
        build.wait_for_cells(1)
        psutil.Process(build.process.pid).kill()
        assert build.process.wait(30) == -signal.SIGKILL
        with building(archive, side, tmp_path / "out", port) as again:
            print(again.end())
    assert_as_local(build, local)
