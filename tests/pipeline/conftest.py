"""Empty folders: of this disk, and of a store in memory."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from sits_pipeline.folder import Folder


@pytest.fixture
def local(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path / "data"))


@pytest.fixture
def remote() -> Iterator[Folder]:
    name = uuid.uuid4().hex
    yield Folder(f"memory://{name}")
    memory = fsspec.filesystem("memory")
    if memory.exists(f"/{name}"):
        memory.rm(f"/{name}", recursive=True)


@pytest.fixture(params=["local", "remote"])
def folder(request: pytest.FixtureRequest) -> Folder:
    return request.getfixturevalue(str(request.param))  # type: ignore[no-any-return]
