"""Clusters that tests share: threads of this process, and processes of their own."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from tests.pipeline.cluster.cells import of

from sits_pipeline.config import BuildConfig

# distributed is imported where it is used: most files of tests that are collected alone need none of it.
if TYPE_CHECKING:
    from sits_pipeline.cluster import Cluster


def pytest_collection_finish() -> None:
    """What is logged here is heard whichever tests ran before.

    distributed keeps records of its own and of bokeh from the root logger. pytest then listens at these two as well, by
    the handlers that hear all others; and a LocalCluster silences each handler that it finds there while it lives.
    """
    import distributed  # noqa: F401  # sets up both loggers, once

    for name in ("distributed", "bokeh"):
        logging.getLogger(name).propagate = True


@pytest.fixture(scope="package")
def pair() -> Iterator[Cluster]:
    """Two threads of this process."""
    from sits_pipeline.cluster import open_cluster

    with open_cluster(BuildConfig(workers=2, memory_gb=1), of(1000), n_cells=100) as cluster:
        yield cluster


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task is tried again at once."""
    from sits_pipeline.cluster import feed

    monkeypatch.setattr(feed, "_BACK_OFF_S", (0.0,))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cell is taken to hang after a fifth of a second."""
    from sits_pipeline.cluster import feed

    monkeypatch.setattr(feed, "_LOOK_S", 0.02)
    monkeypatch.setattr(feed, "_PATIENT_S", 0.2)
    monkeypatch.setattr(feed, "_TIMES_PATIENT", 1.0)
    monkeypatch.setattr(feed, "_TIMES_LONGEST", 0.5)


@pytest.fixture(scope="package")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A running scheduler."""
    from tests.services.dask_processes import free_port, running

    port = str(free_port())
    log = tmp_path_factory.mktemp("dask") / "scheduler.log"
    with running(log, "scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard"):
        yield f"tcp://127.0.0.1:{port}"


@pytest.fixture(scope="package")
def duo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A running scheduler and two workers that are started again by their nannies."""
    from tests.services.dask_processes import free_port, running, two_workers

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
    from distributed import Client

    with Client(duo, set_as_default=False, timeout=60) as client:  # type: ignore[no-untyped-call]
        client.wait_for_workers(2, timeout=60)
    return duo


@pytest.fixture
def quick_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers are looked at five times a second."""
    from sits_pipeline.cluster import feed

    monkeypatch.setattr(feed, "_LOOK_S", 0.2)
