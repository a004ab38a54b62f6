"""Pixels of single-band files on their own grid: windows for a cube, thinned samples for the audit."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import rasterio
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.windows import Window, from_bounds

from sits_catalog.addresses import published_text
from sits_catalog.sentinel2 import Scl
from sits_pipeline.folder import CannotWrite
from sits_pipeline.sources.base import CredentialsError, ServiceDown
from sits_pipeline.sources.remote import Opener, WatchedOpener
from sits_pipeline.steps.audit import MIN_PIXELS
from sits_pipeline.values import AuditSample, BandWindow, Raster, ReadFailure, Scene, epsg_of

__all__ = ["GDAL_OPTIONS", "Nesting", "nest", "read_padded", "read_scene", "sample_scene", "window_around"]

GDAL_OPTIONS: Mapping[str, Any] = {
    # No side files: the georeference is the file's own, and a remote folder is never listed.
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_PAM_ENABLED": "NO",
    # With more, JP2OpenJPEG decodes the tiles of a window in threads of its own, whose errors are lost: pixels of a
    # broken tile would be 0, and so not observed, without a word (GDAL 3.12). Workers are the threads.
    "GDAL_NUM_THREADS": "1",
    # Enough of the head of a COG to hold its directories.
    "GDAL_INGESTED_BYTES_AT_OPEN": 32768,
}

_JP2 = re.compile(r"\.(?:jp2|j2k)(?:\)/\$value)?$", re.IGNORECASE)
"""Also as CDSE's OData names a file of a product: `.../Nodes(T31TEJ_..._B02_10m.jp2)/$value`."""
_SAMPLE_SIDE = 400
_SAMPLE_BLOCK = 256
_WHOLE_SIDE = 1024
"""Files without overviews are read whole up to this side."""
_LONGEST_SIDE = 2**16
"""Pixels; a tile has 10 980."""
_LARGEST_BLOCK = 2**27
"""Pixels that GDAL decodes at once, whatever window is asked for; a tile in one piece has 120 million."""
_MOST_OVERVIEWS = 16
"""Each half the side of the one before it; a tile has five."""
_COARSEST = 12
"""Cube pixels a source pixel; the coarsest of Sentinel-2 are 60 m."""


@dataclass(frozen=True)
class Nesting:
    """How a file's pixels lie in a cube's lattice."""

    factor: int
    """Cube pixels a source pixel."""
    row: int
    """Cube pixels from the file's top to the geobox's top; negative where the file starts lower."""
    column: int
    """The same from left to left."""


def nest(transform: Sequence[float], geobox: GeoBox) -> Nesting:
    """Place a file's grid, `(a, b, c, d, e, f)`, in the lattice of a north-up geobox with square pixels.

    Raises ValueError where the corners of the file's pixels are not corners of the geobox's lattice, or the pixels are
    larger than any of Sentinel-2.
    """
    a, b, c, d, e, f = transform[:6]
    if not all(math.isfinite(value) for value in (a, b, c, d, e, f)):
        raise ValueError("its grid is not made of finite numbers")
    cube = geobox.affine
    factor, row, column = a / cube.a, (cube.f - f) / cube.e, (cube.c - c) / cube.a
    whole = all(abs(value - round(value)) < 1e-6 for value in (factor, row, column))
    if b or d or a != -e or not 1 <= factor <= _COARSEST or not whole:
        raise ValueError(
            f"its grid does not nest in the cube's lattice of {cube.a:g} m: pixels of {a:g} x {-e:g} m "
            f"from the corner ({c:.12g}, {f:.12g})" + (", rotated" if b or d else "")
        )
    return Nesting(round(factor), round(row), round(column))


def read_scene(scene: Scene, geobox: GeoBox, bands: Sequence[str], *, pad: int, opener: Opener | None) -> Raster:
    """A window a band around `geobox`, and SCL where the scene has one; what cannot be read is a ReadFailure.

    Raises ServiceDown where its server answers nothing at all, CannotWrite where the cache takes no more.
    """
    windows: dict[str, BandWindow] = {}
    failures: list[ReadFailure] = []
    names = [*bands, "SCL"] if "SCL" in scene.assets and "SCL" not in bands else list(bands)
    with rasterio.Env(**GDAL_OPTIONS):
        for name in names:
            try:
                windows[name] = _read_band(scene, name, geobox, pad=0 if name == "SCL" else pad, opener=opener)
            except (ServiceDown, CannotWrite):
                raise
            except (OSError, ValueError, RasterioError) as error:
                failures.append(ReadFailure(item=scene.id, band=name, error=_describe(error, scene.assets.get(name))))
    return Raster(bands=windows, failures=tuple(failures))


def _read_band(scene: Scene, name: str, geobox: GeoBox, *, pad: int, opener: Opener | None) -> BandWindow:
    if name not in scene.assets:
        raise ValueError(f"the item has no asset for {name}")
    with _open(scene.assets[name], opener) as dataset:
        _check_file(dataset, epsg_of(geobox))
        window = window_around(geobox, nest(dataset.transform, geobox), pad, partial(_read_window, dataset))
    dn = _as_scl(window.dn) if name == "SCL" else window.dn.astype(np.uint16, copy=False)
    return replace(window, dn=dn)


def window_around(
    geobox: GeoBox, nesting: Nesting, pad: int, read: Callable[[range, range], NDArray[Any]]
) -> BandWindow:
    """The source pixels that hold a geobox, and `pad` more on each side; `read` gets rows and columns, (y, x)."""
    rows = _span(nesting.row, geobox.shape.y, nesting.factor, pad)
    columns = _span(nesting.column, geobox.shape.x, nesting.factor, pad)
    return BandWindow(
        dn=read(rows, columns),
        factor=nesting.factor,
        row=nesting.row - rows.start * nesting.factor,
        column=nesting.column - columns.start * nesting.factor,
    )


def _span(first: int, length: int, factor: int, pad: int) -> range:
    """Source pixels that hold `length` cube pixels from `first` on, and `pad` more on both sides."""
    return range(first // factor - pad, -(-(first + length) // factor) + pad)


def read_padded(
    rows: range, columns: range, shape: tuple[int, int], dtype: Any, read: Callable[[range, range], NDArray[Any]]
) -> NDArray[Any]:
    """(y, x) pixels of these rows and columns of an image of `shape`, 0 outside of it; `read` gets those inside."""
    inside_rows = range(max(rows.start, 0), min(rows.stop, shape[0]))
    inside_columns = range(max(columns.start, 0), min(columns.stop, shape[1]))
    if not inside_rows or not inside_columns:
        return np.zeros((len(rows), len(columns)), dtype)
    dn = read(inside_rows, inside_columns)
    if inside_rows == rows and inside_columns == columns:
        return dn
    padded = np.zeros((len(rows), len(columns)), dn.dtype)
    top, left = inside_rows.start - rows.start, inside_columns.start - columns.start
    padded[top : top + dn.shape[0], left : left + dn.shape[1]] = dn
    return padded


def _read_window(dataset: Any, rows: range, columns: range) -> NDArray[Any]:
    """(y, x) pixels of these rows and columns; 0 where the file has none."""

    def inside(rows: range, columns: range) -> NDArray[Any]:
        dn: NDArray[Any] = dataset.read(1, window=Window(columns.start, rows.start, len(columns), len(rows)))
        return dn

    return read_padded(rows, columns, dataset.shape, dataset.dtypes[0], inside)


def _as_scl(dn: NDArray[Any]) -> NDArray[np.uint8]:
    if dn.size and dn.max() > 255:
        raise ValueError(f"a scene classification holds codes up to 11; this one holds {dn.max()}")
    return dn.astype(np.uint8, copy=False)


@contextmanager
def _open(path: str, opener: Opener | None, **options: int) -> Iterator[Any]:
    """One file, by the driver that its name asks for: a file is never taken for a VRT that points elsewhere.

    Of a remote file that cannot be read nothing is kept, so that the next read asks the server anew.

    Open files are not kept for the next cell. It was measured: opening costs 1 ms of a local file and 3 ms of one in
    the cache, but a cell reads each of its files once, several hundred of them, so that 64 kept ones are never met
    again; and rasterio looks a file's opener up in the context of the thread that opened it, which ends with the cell.
    """
    remote = "://" in path
    if remote and opener is None:
        raise OSError(f"{_file_name(path)}: a remote file is read through an opener; this source has none")
    driver = "JP2OpenJPEG" if _JP2.search(_path_of(path)) else "GTiff"
    watched = WatchedOpener(path, opener) if remote and opener is not None else None
    # By its name alone: rasterio would look for the keys of an s3:// address, and log a query that is a signature.
    # GDAL itself asks no server: it would follow a redirect to wherever it leads.
    target: str | Path = Path(path) if watched is None else watched.name
    try:
        with rasterio.open(target, driver=driver, opener=watched, **options) as dataset:
            yield dataset
        if watched is not None and watched.error is not None:
            raise watched.error
    except (OSError, ValueError, RasterioError, RuntimeError) as error:
        if watched is not None and watched.error is not None and not isinstance(watched.error, OSError):
            raise watched.error from error  # a fault of ours, or of the cluster: not of the file
        first = error if watched is None or watched.error is None else watched.error
        if isinstance(first, ServiceDown | CannotWrite | CredentialsError):
            raise first from None
        if watched is not None:
            watched.forget()
        if isinstance(first, RuntimeError):
            raise
        kind = PermissionError if isinstance(first, PermissionError) else OSError
        raise kind(_describe(first, path)) from error


def _check_file(dataset: Any, epsg: int) -> None:
    found = None if dataset.crs is None else _epsg(dataset.crs.wkt)
    if found != epsg:
        raise ValueError(f"its CRS is {f'EPSG:{found}' if found else 'not a known one'}, the cube's is EPSG:{epsg}")
    _check_blocks(dataset)
    if dataset.nodata not in (None, 0):
        raise ValueError(f"nodata of Sentinel-2 is 0; the file declares {dataset.nodata:g}")
    if not all(math.isfinite(value) for value in dataset.transform[:6]) or dataset.transform.a <= 0:
        raise ValueError("its grid is not made of finite numbers, or its pixels have no size")


def _check_blocks(dataset: Any) -> None:
    """Raise ValueError where a file, or one of its overviews, is larger than a tile or in larger blocks."""
    if dataset.count != 1 or dataset.dtypes[0] not in ("uint8", "uint16"):
        raise ValueError(
            f"one layer of uint16 or uint8 was expected; the file has {dataset.count} of {dataset.dtypes[0]}"
        )
    block = dataset.block_shapes[0]
    if max(dataset.shape) > _LONGEST_SIDE or math.prod(block) > _LARGEST_BLOCK:
        raise ValueError(
            f"up to {_LONGEST_SIDE} pixels a side and {_LARGEST_BLOCK} in a block are read; the file says that it has "
            f"{dataset.width} x {dataset.height}, and {block[1]} x {block[0]} in a block"
        )


def _check_overviews(path: str, dataset: Any, opener: Opener | None) -> None:
    """Raise ValueError for what a thinned read would decode beside the file's own blocks.

    The overviews of JPEG 2000 are resolutions of its own tiles.
    """
    count = len(dataset.overviews(1)) if dataset.driver == "GTiff" else 0
    if count > _MOST_OVERVIEWS:
        raise ValueError(f"it has {count} overviews; up to {_MOST_OVERVIEWS} are read")
    for level in range(count):
        with _open(path, opener, OVERVIEW_LEVEL=level) as overview:
            _check_blocks(overview)


@lru_cache(maxsize=64)
def _epsg(wkt: str) -> int | None:
    code: int | None = rasterio.crs.CRS.from_wkt(wkt).to_epsg()
    return code


def _path_of(path: str) -> str:
    """A local path, or a URL's."""
    return urlsplit(path).path if "://" in path else path


def _file_name(path: str) -> str:
    """Last part of a path or of a URL's path; no folder, host, or query that may hold a signature."""
    return PurePosixPath(_path_of(path)).name


def _describe(error: BaseException, path: str | None) -> str:
    """One line on what went wrong with a file, without the folders and signatures of this machine."""
    if isinstance(error, RasterioError) and error.__cause__ is not None:
        error = error.__cause__  # "Read failed. See previous exception for details."
    text = str(getattr(error, "errmsg", None) or error) or type(error).__name__
    name = "" if path is None else _file_name(path)
    for said in () if path is None else _spellings(path):
        text = text.replace(said, name)
    text = " ".join(published_text(re.sub(r"/vsi\w+/", "", text)).split())[:300]
    text = text if text.isprintable() else ascii(text)[1:-1]
    return text if name in text else f"{name}: {text}"


def _spellings(path: str) -> tuple[str, ...]:
    """How a message may name a file: whole, or as GDAL does by what follows the last slash, query included."""
    if "://" not in path:
        return (path,)
    parts = urlsplit(path)
    query = f"?{parts.query}" if parts.query else ""
    name = f"{PurePosixPath(parts.path).name}{query}"
    return tuple(said for said in (path, name, path.rpartition("/")[2], query) if said)


@dataclass(frozen=True)
class _Thinning:
    """Where a sample is taken: boxes in the scene's CRS, each read as so many rows and columns."""

    boxes: tuple[tuple[float, float, float, float], ...]
    rows: int
    columns: int


def sample_scene(scene: Scene, *, opener: Opener | None) -> AuditSample:
    """DN and SCL of a scene at the same thinned positions; B8A and B11 only where there is too little vegetation.

    Raises OSError where a file is missing or cannot be read, ServiceDown where its server answers nothing at all.
    """
    try:
        with rasterio.Env(**GDAL_OPTIONS):
            sample = _sample(scene, ("B02", "B04"), opener)
            vegetation = 0 if sample.scl is None else np.count_nonzero(sample.scl == Scl.VEGETATION)
            if sample.scl is None or vegetation >= MIN_PIXELS or not {"B8A", "B11"} <= scene.assets.keys():
                return sample
            return _sample(scene, ("B02", "B04", "B8A", "B11"), opener)
    except (ServiceDown, CannotWrite, CredentialsError):
        raise
    except (OSError, ValueError, RasterioError) as error:
        kind = PermissionError if isinstance(error, PermissionError) else OSError
        raise kind(f"{scene.id}: no sample for the audit: {_describe(error, None)}") from error


def _sample(scene: Scene, bands: Sequence[str], opener: Opener | None) -> AuditSample:
    names = [*bands, "SCL"] if "SCL" in scene.assets else list(bands)
    if not set(bands) <= scene.assets.keys():
        # An archive of other bands: nothing to audit on, so that the provider's rule decides.
        return AuditSample(dn={name: np.empty(0, np.uint16) for name in bands}, scl=np.empty(0, np.uint8))
    grids = [_grid(scene.assets[name], scene.epsg, opener) for name in names]
    thinning = _thin(grids)
    values = {}
    for name in names:
        # One file at a time, so that an error is that file's own.
        with _open(scene.assets[name], opener) as dataset:
            values[name] = _read_thinned(dataset, thinning)
    scl = values.pop("SCL", None)
    return AuditSample(
        dn={name: dn.astype(np.uint16, copy=False) for name, dn in values.items()},
        scl=None if scl is None else _as_scl(scl),
    )


@dataclass(frozen=True)
class _Grid:
    """What a file's head says of its pixels."""

    bounds: tuple[float, float, float, float]
    """West, south, east and north in the file's CRS."""
    resolution: float
    block_shape: tuple[int, int]
    is_cheap_whole: bool
    """Whether it has overviews, or is small enough to do without."""


def _grid(path: str, epsg: int, opener: Opener | None) -> _Grid:
    with _open(path, opener) as dataset:
        _check_file(dataset, epsg)
        _check_overviews(path, dataset, opener)
        return _Grid(
            bounds=tuple(dataset.bounds),
            resolution=dataset.transform.a,
            block_shape=dataset.block_shapes[0],
            is_cheap_whole=bool(dataset.overviews(1)) or max(dataset.shape) <= _WHOLE_SIDE,
        )


def _thin(grids: Sequence[_Grid]) -> _Thinning:
    """The whole common extent where overviews make that cheap, else nine blocks spread over it."""
    west, south = (max(grid.bounds[side] for grid in grids) for side in (0, 1))
    east, north = (min(grid.bounds[side] for grid in grids) for side in (2, 3))
    coarsest = max(grid.resolution for grid in grids)
    height, width = int((north - south) / coarsest), int((east - west) / coarsest)
    if height < 1 or width < 1:
        raise ValueError("its files have no ground in common")
    if all(grid.is_cheap_whole for grid in grids):
        rows, columns = min(height, _SAMPLE_SIDE), min(width, _SAMPLE_SIDE)
        return _Thinning(((west, south, east, north),), rows, columns)
    finest = min(grids, key=lambda grid: grid.resolution)
    side = min(_SAMPLE_BLOCK * finest.resolution, east - west, north - south)
    step_y, step_x = (size * finest.resolution for size in finest.block_shape)
    tops = [_block_start(north - south, share, step_y, side) for share in (1, 3, 5)]
    lefts = [_block_start(east - west, share, step_x, side) for share in (1, 3, 5)]
    boxes = tuple((west + x, north - y - side, west + x + side, north - y) for y in tops for x in lefts)
    return _Thinning(boxes, int(side / coarsest), int(side / coarsest))


def _block_start(length: float, sixths: int, step: float, side: float) -> float:
    """Start of the source block at so many sixths of an extent, so that a sample meets few blocks."""
    return min(length * sixths / 6 // step * step, length - side)


def _read_thinned(dataset: Any, thinning: _Thinning) -> NDArray[Any]:
    shape = (thinning.rows, thinning.columns)
    windows = [from_bounds(*box, dataset.transform) for box in thinning.boxes]
    parts = [dataset.read(1, window=one, out_shape=shape, resampling=Resampling.nearest) for one in windows]
    return np.concatenate(parts, axis=None)
