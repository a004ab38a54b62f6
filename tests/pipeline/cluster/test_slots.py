"""How many cells are computed at once, and what is said where there is no place for one."""

from __future__ import annotations

import gc
import math
import weakref
from typing import Literal

import dask
import pytest
from tests.pipeline.cluster.cells import of, square
from tests.services.dask_processes import free_port

from sits_pipeline import cluster as module
from sits_pipeline.cluster import open_cluster
from sits_pipeline.config import BuildConfig
from sits_pipeline.plan import CellMemory


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


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_a_worker_of_our_own_is_never_given_up_for_being_silent(kind: Literal["threads", "processes"]) -> None:
    """After a sleep of the machine, or where its clock is set, all of them have been silent for long."""
    with (
        dask.config.set({"distributed.scheduler.worker-ttl": "2s"}),
        open_cluster(BuildConfig(workers=1, memory_gb=1, kind=kind), of(1000), n_cells=1) as cluster,
    ):
        assert cluster.client.cluster.scheduler.worker_ttl is None


def test_a_cluster_that_is_closed_is_gone_from_memory() -> None:
    """A process may make many builds; with a scheduler and its workers the last tasks of each would stay."""
    left = []
    with open_cluster(BuildConfig(workers=2, memory_gb=1), of(1000), n_cells=10) as cluster:
        assert sorted(cluster.run(square, range(10), retries=0)) == [number**2 for number in range(10)]
        local = cluster.client.cluster
        left += [weakref.ref(server) for server in (local.scheduler, *local.workers.values())]
        assert all(server() is not None for server in left)
        del local, cluster
    # Another one takes the places, such as that of the last message, that each leaves behind once.
    with open_cluster(BuildConfig(workers=2, memory_gb=1), of(1000), n_cells=10) as cluster:
        assert list(cluster.run(square, range(1), retries=0)) == [0]
    gc.collect()
    assert [server() for server in left] == [None, None]
