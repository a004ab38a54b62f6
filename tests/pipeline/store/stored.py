"""What is in a cube that a test has written."""

from __future__ import annotations

import hashlib
from typing import Any

import zarr
from tests.pipeline.small_cube import random_blocks

from sits_pipeline.folder import Folder
from sits_pipeline.plan.cells import cells_of
from sits_pipeline.store import (
    CUBE,
    CubeLayout,
    array_paths,
    open_cube,
    read_layout,
    write_cell,
)
from sits_pipeline.values import shape_of


def array_of(folder: Folder, path: str) -> zarr.Array[Any]:
    found = open_cube(folder)[path]
    assert isinstance(found, zarr.Array)
    return found


def write_all(folder: Folder, layout: CubeLayout, side: int, seed: int = 0) -> dict[str, str]:
    """Write random pixels cell by cell; SHA-256 by key."""
    hashes = {}
    for window in cells_of(shape_of(layout.geobox), side):
        written = write_cell(folder, window, random_blocks(layout, window, seed).items())
        hashes.update({key: shard.sha256 for key, shard in written.items()})
    return hashes


def shards_of(folder: Folder) -> dict[str, str]:
    """SHA-256 of every stored pixel shard, by key."""
    cube = folder.sub(CUBE)
    pixels = tuple(f"{path}/c/" for path in array_paths(read_layout(folder)))
    return {name: hashlib.sha256(cube.read(name)).hexdigest() for name in cube.files() if name.startswith(pixels)}
