"""Cloud-optimised GeoTIFFs from a cube, for readers that know no Zarr; a shard at a time, so that memory stays flat."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sits_catalog.cube import ARRAYS, IGNORE, Quality
from sits_pipeline.exporters.replace import check_outside
from sits_pipeline.exporters.views import check_complete
from sits_pipeline.folder import Folder
from sits_pipeline.picture import colour_of
from sits_pipeline.store import CubeLayout, read_layout, read_shards
from sits_pipeline.values import JsonObject, Window

__all__ = ["COG_ARRAYS", "export_cog"]

COG_ARRAYS = tuple(ARRAYS)
"""Arrays that can be exported: those with dates as one file a date, the others as one file."""

_BLOCK = 512
_OVERVIEWS = {"reflectance": "AVERAGE", "crop_type": "MODE", "parcel_id": "MODE", "scl": "MODE", "split": "MODE"}
"""How an array is thinned; all others by the nearest pixel, since bits and signed distances have no mean."""
_NODATA = {"reflectance": 0, "scl": 0, "source_index": 255, "crop_type": IGNORE, "boundary_distance": -32768}
"""0 is a value of the others: no bit, no parcel, no coverage."""
_MAX_OPEN = 64
"""Files written at a time. All dates of a pixel are stored together, so that each pass reads the whole cube."""


@dataclass(frozen=True)
class _Target:
    """A file to write."""

    path: Path
    array: str
    date_index: int | None


def export_cog(
    folder: Folder,
    out: Path,
    *,
    arrays: Sequence[str] = ("reflectance",),
    days: Sequence[date] | None = None,
    overwrite: bool = False,
    incomplete: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> list[Path]:
    """Write arrays of a cube as COGs into `out` and return their paths; each appears whole or not at all.

    `days` None: all dates. Reflectance has a band a spectral band, with description, scale and nodata 0. `say` hears
    of pixels that could not be read. Raises ValueError for an array or date that the cube does not have, a cube that
    is not complete (unless `incomplete`), or files in the cube's own folder, FileExistsError where a file is there
    (unless `overwrite`).
    """
    layout = read_layout(folder)
    check_complete(folder, layout.attributes, incomplete=incomplete)
    check_outside(out, folder)
    targets = list(_plan(layout, out, arrays, days))
    there = [target.path for target in targets if target.path.exists()]
    if there and not overwrite:
        raise FileExistsError(
            f"{there[0]} is there already, {len(there)} of {len(targets)} files are; choose another --out, or "
            "--overwrite to replace them"
        )
    unread = _count_unread(folder, targets)
    if unread:
        say(
            f"{sum(unread.values())} pixels of {len(unread)} dates could not be read when the dataset was built: they "
            "are nodata, as those that were not observed (quality has the bit 128)"
        )
    out.mkdir(parents=True, exist_ok=True)
    for array in dict.fromkeys(target.array for target in targets):
        mine = [target for target in targets if target.array == array]
        for first in range(0, len(mine), _MAX_OPEN):
            _write(folder, layout, mine[first : first + _MAX_OPEN], unread)
    return [target.path for target in targets]


def _count_unread(folder: Folder, targets: Sequence[_Target]) -> Counter[int]:
    """Pixels that could not be read, by index of the date; dates without are absent."""
    dates = sorted({target.date_index for target in targets if target.date_index is not None})
    found = Counter[int]()
    if dates:
        for _, quality in read_shards(folder, "quality", dates=dates):
            counts = np.count_nonzero(quality & Quality.UNREAD, axis=(1, 2))
            found.update({index: int(number) for index, number in zip(dates, counts, strict=True) if number})
    return found


def _plan(layout: CubeLayout, out: Path, arrays: Sequence[str], days: Sequence[date] | None) -> Iterator[_Target]:
    """The files to write, by array and date."""
    missing = sorted(set(days or ()) - set(layout.days))
    if missing:
        raise ValueError(
            f"the cube has no date {', '.join(map(str, missing))}; it has {', '.join(map(str, layout.days))}"
        )
    for name in dict.fromkeys(arrays):
        known = [n for n, spec in ARRAYS.items() if layout.has_labels or "time" in spec.dims]
        if name not in known:
            raise ValueError(f"the cube has no array {name!r}; it has {', '.join(known)}")
        if "time" not in ARRAYS[name].dims:
            yield _Target(out / f"{name}.tif", name, None)
            continue
        for index, day in enumerate(layout.days):
            if days is None or day in days:
                yield _Target(out / f"{name}_{day}.tif", name, index)


def _write(folder: Folder, layout: CubeLayout, targets: Sequence[_Target], unread: Counter[int]) -> None:
    """Files of one array: plain tiled GeoTIFFs first, since a COG's overviews stand before its pixels."""
    import rasterio

    array = targets[0].array
    dates = None if targets[0].date_index is None else [int(target.date_index or 0) for target in targets]
    with ExitStack() as stack:
        plain = [stack.enter_context(_partial(target.path, "plain")) for target in targets]
        with ExitStack() as files:
            opened = [files.enter_context(rasterio.open(path, "w", **_profile(layout, array))) for path in plain]
            for file, target in zip(opened, targets, strict=True):
                _describe(file, layout, target, unread)
            for window, values in read_shards(folder, array, dates=dates):
                for file, pixels in zip(opened, values if dates is not None else [values], strict=True):
                    _write_window(file, window, pixels)
        for path, target in zip(plain, targets, strict=True):
            _to_cog(path, target)


def _profile(layout: CubeLayout, array: str) -> JsonObject:
    height, width = layout.geobox.shape
    return {
        "driver": "GTiff",
        "width": width,
        "height": height,
        "count": len(layout.bands) if array == "reflectance" else 1,
        "dtype": ARRAYS[array].dtype,
        "crs": f"EPSG:{layout.epsg}",
        "transform": layout.geobox.affine,
        "nodata": _NODATA.get(array),
        "tiled": True,
        "blockxsize": _BLOCK,
        "blockysize": _BLOCK,
        "interleave": "band",
        "compress": "zstd",
        "zstd_level": 1,
        "BIGTIFF": "IF_SAFER",
    }


def _write_window(file: Any, window: Window, pixels: NDArray[Any]) -> None:
    from rasterio.windows import Window as Rectangle

    bands = pixels if pixels.ndim == 3 else pixels[np.newaxis]
    file.write(bands, window=Rectangle(window.column, window.row, window.width, window.height))


def _describe(file: Any, layout: CubeLayout, target: _Target, unread: Counter[int]) -> None:
    """Descriptions, scale and tags; class names and colours for `crop_type`."""
    spec = ARRAYS[target.array]
    tags = {"DESCRIPTION": spec.meaning, "CONFIG_SHA256": str(layout.attributes.get("config_sha256", ""))}
    if layout.attributes.get("simulated"):
        tags["SIMULATED"] = "YES"
    if target.date_index is not None:
        tags["UNREAD_PIXELS"] = str(unread[target.date_index])
        tags["TIFFTAG_DATETIME"] = f"{layout.sensing_times[target.date_index]:%Y:%m:%d %H:%M:%S}"
    if target.array == "reflectance":
        file.descriptions = layout.bands
        file.scales, file.offsets = [0.0001] * len(layout.bands), [0.0] * len(layout.bands)
    else:
        file.descriptions = (target.array,)
    if target.array == "crop_type":
        tags |= {f"CLASS_{crop['index']}": str(crop["name"]) for crop in layout.classes}
        tags["CLASS_0"] = "background"
        # A palette of 16-bit pixels has 65536 entries; those that are no class are black.
        colours = {0: (246, 247, 245, 255), IGNORE: (0, 0, 0, 0)}
        colours |= {int(crop["index"]): (*colour_of(crop["colour"]), 255) for crop in layout.classes}
        file.write_colormap(1, colours)
    file.update_tags(**tags)


def _to_cog(plain: Path, target: _Target) -> None:
    from rasterio.shutil import copy

    with _partial(target.path, "cog") as partial:
        copy(
            plain,
            partial,
            driver="COG",
            compress="DEFLATE",
            predictor="YES",
            blocksize=_BLOCK,
            overview_resampling=_OVERVIEWS.get(target.array, "NEAREST"),
            bigtiff="IF_SAFER",
            num_threads="ALL_CPUS",
        )
        partial.replace(target.path)


@contextmanager
def _partial(path: Path, what: str) -> Iterator[Path]:
    """A name beside `path` for a file that is removed at the end, if it is still there."""
    partial = path.with_name(f".{path.stem}.{what}.{uuid.uuid4().hex[:8]}.partial.tif")
    try:
        yield partial
    finally:
        partial.unlink(missing_ok=True)
