"""Limits of services hold for all workers together."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from tests.pipeline.cluster.cells import of
from tests.services.dask_processes import free_port, kill, running, two_workers
from tests.services.loopback import Loopback

from sits_pipeline.cluster import Cluster, open_cluster
from sits_pipeline.cluster import gate as gate_module
from sits_pipeline.cluster.gate import SharedGate
from sits_pipeline.config import BuildConfig
from sits_pipeline.sources.access import Gate, Limit
from sits_pipeline.sources.web import Web


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


@pytest.mark.soak
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
