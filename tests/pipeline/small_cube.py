"""Small cubes for tests: a layout of any shape, and pixels that differ everywhere."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from sits_catalog.cube import ARRAYS, VERSION
from sits_catalog.sentinel2 import BANDS
from sits_pipeline.store import CubeLayout, array_paths
from sits_pipeline.values import JsonObject, Window

LEFT, TOP = 523560, 4832820


def small_layout(
    shape: tuple[int, int],
    *,
    n_dates: int = 2,
    n_bands: int = 2,
    has_labels: bool = True,
    finer: tuple[int, ...] = (),
    **attributes: object,
) -> CubeLayout:
    """A layout in EPSG:32631 with its corner at (LEFT, TOP), a date every five days."""
    days = tuple(date(2018, 1, 3) + timedelta(days=5 * index) for index in range(n_dates))
    return CubeLayout(
        geobox=GeoBox(shape, Affine(10, 0, LEFT, 0, -10, TOP), "EPSG:32631"),
        bands=tuple(BANDS)[:n_bands],
        days=days,
        sensing_times=tuple(datetime(day.year, day.month, day.day, 10, 40, 21, tzinfo=UTC) for day in days),
        has_labels=has_labels,
        finer=finer,
        classes=({"index": 1, "code": "1", "name": "wheat", "hcat": "3301010100", "colour": "#c0a000"},),
        attributes={"version": VERSION, "profile": "region", "complete": False, **attributes},
    )


def shape_in(path: str, layout: CubeLayout, window: Window) -> tuple[int, ...]:
    """Shape of the block of array `path` that covers a window of the cube."""
    group, _, name = path.rpartition("/")
    height, width = window.height, window.width
    if group == "overview":
        height, width = -(-height // 8), -(-width // 8)
    elif group:
        factor = int(group.removeprefix("labels_x"))
        height, width = height * factor, width * factor
    sizes = {"time": len(layout.days), "band": len(layout.bands), "y": height, "x": width}
    return tuple(sizes[dim] for dim in ARRAYS[name].dims)


def random_blocks(layout: CubeLayout, window: Window, seed: int) -> dict[str, NDArray[Any]]:
    """A block an array for one cell, of any value of its type."""
    rng = np.random.default_rng([seed, window.row, window.column])
    blocks = {}
    for path in array_paths(layout):
        info = np.iinfo(ARRAYS[path.rpartition("/")[2]].dtype)
        shape = shape_in(path, layout, window)
        blocks[path] = rng.integers(info.min, info.max, shape, dtype=info.dtype, endpoint=True)
    return blocks


def fill_blocks(layout: CubeLayout, window: Window) -> dict[str, NDArray[Any]]:
    """A block an array for a cell without an observation and without a parcel."""
    blocks = {}
    for path in array_paths(layout):
        spec = ARRAYS[path.rpartition("/")[2]]
        blocks[path] = np.full(shape_in(path, layout, window), spec.fill, spec.dtype)
    return blocks


def cell_entry(window: Window, shards: dict[str, list[int | str]], **changes: object) -> JsonObject:
    """The part of a cell's journal line that says what was stored."""
    where = [window.row, window.column, window.height, window.width]
    return {"kind": "cell", "cell": where, "failures": [], "shards": shards, **changes}
