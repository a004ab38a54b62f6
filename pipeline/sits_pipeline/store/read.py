"""Pixels and layout of a stored cube, for what is made from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, cast

import numpy as np
import zarr
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from sits_catalog.cube import (
    CHIP,
    OVERVIEW_FACTOR,
)
from sits_pipeline.folder import Folder
from sits_pipeline.store.group import CUBE, check_readable, open_cube, read_attributes
from sits_pipeline.store.layout import CubeLayout
from sits_pipeline.values import JsonObject, Window

__all__ = ["read_layout", "read_overview", "read_shards", "read_window"]


def read_layout(folder: Folder) -> CubeLayout:
    """The layout of a stored cube. Raises FileNotFoundError where there is none, ValueError for another profile
    or a version with other rules."""
    attributes = read_attributes(folder)
    if attributes is None:
        raise FileNotFoundError(f"no dataset in {folder.location}: it has no {CUBE}; give the folder that holds it")
    check_readable(folder, attributes)
    if attributes.get("profile") != "region":
        raise ValueError(
            f"{folder.location} is of the profile {attributes.get('profile')!r}; this works on the profile 'region'"
        )
    with folder.errors_in_words():
        group = open_cube(folder)
        root: Mapping[str, Any] = group.attrs.asdict()
        names = set(group.keys())
        crop_type = _array(group, "crop_type").attrs.asdict() if "crop_type" in names else {}
        days = np.asarray(_array(group, "time")[...]).tolist()
        seconds = np.asarray(_array(group, "sensing_time")[...]).tolist()
    return CubeLayout(
        geobox=GeoBox(tuple(root["spatial:shape"]), Affine(*root["spatial:transform"]), root["proj:code"]),
        bands=tuple(root["band_names"]),
        days=tuple(date(1970, 1, 1) + timedelta(days=day) for day in days),
        sensing_times=tuple(datetime.fromtimestamp(second, UTC) for second in seconds),
        has_labels="crop_type" in names,
        finer=tuple(factor for factor in (2, 4) if f"labels_x{factor}" in names),
        classes=tuple(cast(list[JsonObject], crop_type.get("classes", []))),
        attributes=attributes,
    )


def read_window(folder: Folder, path: str, window: Window, *, dates: Sequence[int] | None) -> NDArray[Any]:
    """Values of an array in a window of its own pixels; of these dates alone where the array has dates.

    What was never written is the fill value.
    """
    with folder.errors_in_words():
        return _read(_array(open_cube(folder), path), window, dates)


def read_shards(folder: Folder, path: str, *, dates: Sequence[int] | None) -> Iterator[tuple[Window, NDArray[Any]]]:
    """Values of an array a shard at a time, row by row; of these dates alone where the array has dates.

    All dates of a pixel are stored together, so that asking for many dates at once costs no more than for one.
    """
    with folder.errors_in_words():
        array = _array(open_cube(folder), path)
    rows, columns = (array.shards or array.chunks)[-2:]
    height, width = array.shape[-2:]
    for row in range(0, height, rows):
        for column in range(0, width, columns):
            window = Window(row=row, column=column, height=min(rows, height - row), width=min(columns, width - column))
            with folder.errors_in_words():
                values = _read(array, window, dates)
            yield window, values


def read_overview(
    folder: Folder, date_index: int, *, bands: Sequence[int], max_px: int
) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
    """Reflectance (band, y, x) and quality (y, x) of a date at 80 m, thinned so that no side passes `max_px`."""
    with folder.errors_in_words():
        group = open_cube(folder)
        reflectance, quality = _array(group, "overview/reflectance"), _array(group, "overview/quality")
        height, width = quality.shape[-2:]
        step = max(1, -(-max(height, width) // max_px))
        rows = (quality.shards or quality.chunks)[-2]
        means, bits = [], []
        for row in range(0, height, rows):
            # Whole shards at a time, thinned at once: a region of any size stays small in memory.
            last, skip = min(row + rows, height), -row % step
            means.append(np.asarray(reflectance[date_index, :, row:last, :])[list(bands), skip::step, ::step])
            bits.append(np.asarray(quality[date_index, row:last, :])[skip::step, ::step])
    return np.concatenate(means, axis=1), np.concatenate(bits)


def _array(group: zarr.Group, path: str) -> zarr.Array[Any]:
    if path not in group:
        raise ValueError(f"the cube has no array {path}; it has {', '.join(sorted(group.array_keys()))}")
    array = group[path]
    if not isinstance(array, zarr.Array):
        raise TypeError(f"{path} is a group of the cube, not an array")
    return array


def _read(array: zarr.Array[Any], window: Window, dates: Sequence[int] | None) -> NDArray[Any]:
    if dates is None or array.ndim == 2:
        return np.asarray(array[..., window.rows, window.columns])
    first = min(dates)
    values = np.asarray(array[first : max(dates) + 1, ..., window.rows, window.columns])
    return values[[index - first for index in dates]]


assert CHIP % OVERVIEW_FACTOR == 0
