"""A scheduler, workers, a store and a build on hosts of their own, whose cables are pulled: equal to one machine."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.end_to_end.archives import (
    SmallArchive,
    cells_in_journal,
    command,
    environment,
    leftovers,
    promised,
    wait_for,
)
from tests.services.hosts import Host, hosts, why_no_hosts
from tests.services.moto import BUCKET, KEY, REGION, SECRET

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]

DASK = [sys.executable, "-m", "dask"]


@dataclass(frozen=True)
class Build:
    """A build that runs on a host."""

    process: subprocess.Popen[bytes]
    log: Path

    def wait_until(self, reached: Callable[[], bool]) -> None:
        """Until it has come so far; it must not have ended by then, else nothing that follows would touch it."""
        wait_for(lambda: reached() or self.process.poll() is not None, seconds=300)
        self.must_run()

    def must_run(self) -> None:
        """It must not have ended yet."""
        assert self.process.poll() is None, f"the build has ended already\n{self.log.read_text()}"

    def end(self) -> str:
        """What it said; it must have ended well."""
        assert self.process.wait(600) == 0, self.log.read_text()
        return self.log.read_text()


@dataclass(frozen=True)
class Network:
    """Hosts with what runs on them."""

    scheduler: Host
    workers: tuple[Host, Host]
    client: Host
    store: Host
    logs: Path

    @property
    def address(self) -> str:
        return f"tcp://{self.scheduler.address}:8786"

    @contextmanager
    def worker(self, host: Host, **variables: str) -> Iterator[None]:
        """A worker of one cell."""
        options = ["--host", host.address, "--nthreads", "1", "--memory-limit", "1GB", "--no-dashboard"]
        with host.run([*DASK, "worker", self.address, *options], self.logs / f"{host.name}.log", **variables):
            yield

    @contextmanager
    def build(self, archive: SmallArchive, out: str, **variables: str) -> Iterator[Build]:
        """A build from the client's host."""
        log = self.logs / f"build-{time.monotonic_ns()}.log"
        arguments = ["--region", archive.region, "--out", out, "--cell", "512", "--scheduler", self.address]
        with self.client.run(command("sits-build", *arguments), log, **environment(), **variables) as process:
            yield Build(process, log)


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    why = why_no_hosts()
    if why is not None:
        print(f"no hosts: {why}")
        pytest.skip(why)
    with hosts(5) as (scheduler, one, two, client, store):
        options = ["--host", scheduler.address, "--port", "8786", "--no-dashboard"]
        with scheduler.run([*DASK, "scheduler", *options], tmp_path / "scheduler.log"):
            yield Network(scheduler, (one, two), client, store, tmp_path)


def has_a_cell(dataset: Path) -> Callable[[], bool]:
    """Whether the first of the nine cells is built."""
    return lambda: len(cells_in_journal(dataset)) > 0


def assert_whole(dataset: Path, local: dict[str, str]) -> None:
    assert promised(dataset) == local
    assert leftovers(dataset) == []


CUTS = {
    "a worker's": lambda network: network.workers[0],
    "the scheduler's": lambda network: network.scheduler,
    "the client's": lambda network: network.client,
}


@pytest.mark.parametrize("whose", CUTS)
def test_a_cable_pulled_for_ten_seconds_costs_nothing(
    network: Network, archive: SmallArchive, local: dict[str, str], tmp_path: Path, whose: str
) -> None:
    """Where nobody noticed: the packets are sent again. Without what is behind the cable no build ends meanwhile."""
    with ExitStack() as stack:
        for host in network.workers:
            stack.enter_context(network.worker(host))
        with network.build(archive, str(tmp_path / "out")) as build:
            build.wait_until(has_a_cell(tmp_path / "out" / "small"))
            CUTS[whose](network).cut(10)
            build.must_run()
            said = build.end()
    assert_whole(tmp_path / "out" / "small", local)
    assert "a worker left" not in said
    assert "failed" not in said


def test_the_cells_of_a_host_that_never_comes_back_are_built_by_the_other(
    network: Network, archive: SmallArchive, local: dict[str, str], tmp_path: Path
) -> None:
    with ExitStack() as stack:
        for host in network.workers:
            stack.enter_context(network.worker(host))
        with network.build(archive, str(tmp_path / "out")) as build:
            build.wait_until(has_a_cell(tmp_path / "out" / "small"))
            network.workers[1].pull()
            said = build.end()
    assert_whole(tmp_path / "out" / "small", local)
    assert "nothing is heard of its worker" in said or "a worker left" in said, said


def test_a_build_that_dies_is_taken_up_from_its_host(
    network: Network, archive: SmallArchive, local: dict[str, str], tmp_path: Path
) -> None:
    dataset = tmp_path / "out" / "small"
    with ExitStack() as stack:
        for host in network.workers:
            stack.enter_context(network.worker(host))
        with network.build(archive, str(dataset.parent)) as killed:
            killed.wait_until(has_a_cell(dataset))
            killed.process.send_signal(signal.SIGKILL)
            assert killed.process.wait(30) == -signal.SIGKILL
        before = len(cells_in_journal(dataset))
        assert 0 < before < 9
        with network.build(archive, str(dataset.parent)) as again:
            again.end()
    assert_whole(dataset, local)


def test_hosts_write_into_a_store_whose_cable_is_pulled(
    network: Network, archive: SmallArchive, local: dict[str, str], tmp_path: Path
) -> None:
    """As soon as the store has taken the first shard of reflectance; nothing reaches it until the cable is back."""
    keys = {
        "AWS_ENDPOINT_URL": f"http://{network.store.address}:5000",
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    url = f"s3://{BUCKET}/hosts"
    server = command("moto_server", "-H", network.store.address, "-p", "5000")
    ask = [sys.executable, Path(__file__).with_name("fetch_dataset.py"), url, tmp_path / "fetched"]

    def shards_put() -> int:
        lines = (tmp_path / "store.log").read_text(errors="replace").splitlines()
        return sum('"PUT ' in line and "/cube.zarr/reflectance/c/" in line for line in lines)

    with ExitStack() as stack:
        stack.enter_context(network.store.run(server, tmp_path / "store.log"))
        for host in network.workers:
            stack.enter_context(network.worker(host, **keys))
        make = stack.enter_context(network.client.run([*ask, "--make"], tmp_path / "make.log", **keys))
        assert make.wait(180) == 0, (tmp_path / "make.log").read_text()
        with network.build(archive, url, **keys) as build:
            build.wait_until(lambda: shards_put() > 0)
            network.store.pull()
            time.sleep(1)  # what it had taken before is in its log by now
            before = shards_put()
            time.sleep(10)
            build.must_run()
            assert shards_put() == before < 9
            network.store.plug()
            build.end()
        assert shards_put() >= 9
        fetch = stack.enter_context(network.client.run(ask, tmp_path / "fetch.log", **keys))
        assert fetch.wait(120) == 0, (tmp_path / "fetch.log").read_text()
    assert promised(tmp_path / "fetched" / "small") == local
