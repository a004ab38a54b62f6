from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.pipeline.sources.range_server import RangeServer

from sits_pipeline.sources.breaker import BREAKER


@pytest.fixture
def sits_data() -> Path:
    if "SITS_DATA" not in os.environ:
        pytest.skip("real scenes are needed: set SITS_DATA to their folder")
    return Path(os.environ["SITS_DATA"])


@pytest.fixture
def serve() -> Iterator[Callable[..., RangeServer]]:
    """Serves folders over http on the loopback."""
    servers: list[RangeServer] = []

    def start(folder: Path, **options: object) -> RangeServer:
        servers.append(RangeServer(folder, **options))  # type: ignore[arg-type]
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture(autouse=True)
def no_host_is_down() -> Iterator[None]:
    """What one test found out of a port says nothing of the next test's."""
    BREAKER.reset()
    yield
    BREAKER.reset()
