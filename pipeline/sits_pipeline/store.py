"""The Zarr store of a cube: created empty with all its metadata, then written a cell at a time in whole shards.

Shards are never written through dask arrays, which loses data (zarr-python#3682, dask#12583): a cell is one NumPy block
an array, aligned with its shards, and no shard belongs to two cells. zarr's local store writes a partial file and
renames it; on an object store a PUT is atomic.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, Self, cast

import numpy as np
import zarr
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import CRS
from zarr.abc.store import Store
from zarr.codecs import BloscCodec
from zarr.core.buffer import Buffer
from zarr.storage import FsspecStore, LocalStore, MemoryStore, WrapperStore

from sits_catalog.conventions import cf_grid_mapping, georeference
from sits_catalog.cube import (
    ARRAYS,
    CHIP,
    FINER_ARRAYS,
    LABEL_ARRAYS,
    OVERVIEW_FACTOR,
    ArraySpec,
    Conflict,
    Quality,
    Split,
    inner_chunk,
    shard_side,
)
from sits_catalog.sentinel2 import BANDS, Scl
from sits_pipeline.folder import Folder
from sits_pipeline.values import JsonObject, Window, epsg_of, shape_of

__all__ = [
    "CubeLayout",
    "Written",
    "create_cube",
    "metadata_files",
    "open_cube",
    "read_attributes",
    "read_layout",
    "read_overview",
    "read_shards",
    "read_window",
    "repair_metadata",
    "update_attributes",
    "write_cell",
]

CUBE = "cube.zarr"
ROOT = "zarr.json"
"""Key of the root group's metadata; the last file of a cube that is written."""

COMPRESSOR = BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle")
"""Level 1: on real and on simulated scenes half the time of level 3, and smaller files."""
_ELSEWHERE = "choose another --out, or remove that folder"


@dataclass(frozen=True, kw_only=True)
class CubeLayout:
    """All that decides the metadata of an empty cube."""

    geobox: GeoBox
    bands: tuple[str, ...]
    days: tuple[date, ...]
    sensing_times: tuple[datetime, ...]
    has_labels: bool
    finer: tuple[int, ...]
    classes: tuple[JsonObject, ...]
    """Rows {index, code, name, hcat, colour} of the class table."""
    attributes: JsonObject
    """The root attribute `sits_cube`."""

    @property
    def shard(self) -> int:
        """Side of a shard in pixels."""
        return shard_side(len(self.days), len(self.bands))

    @property
    def epsg(self) -> int:
        """EPSG code of the cube's zone."""
        return epsg_of(self.geobox)


@dataclass(frozen=True)
class Written:
    """One stored shard."""

    size: int
    sha256: str


def open_cube(folder: Folder, *, read_only: bool = True) -> zarr.Group:
    """The root group of a dataset's cube."""
    return zarr.open_group(_store(folder, read_only=read_only), mode="r" if read_only else "r+", zarr_format=3)


def read_attributes(folder: Folder) -> JsonObject | None:
    """The attribute `sits_cube` of a dataset's cube; None where there is no cube yet.

    Raises ValueError where something else is in its place.
    """
    if not folder.exists(f"{CUBE}/zarr.json"):
        if any(not name.endswith(".partial") for name in folder.files(CUBE)):
            raise ValueError(f"{folder.location}/{CUBE} is no sits-cube: it has no zarr.json; {_ELSEWHERE}")
        return None
    try:
        found = json.loads(folder.read(f"{CUBE}/zarr.json"))["attributes"]["sits_cube"]
        return None if found.get("creating") else dict(found)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise ValueError(
            f"{folder.location}/{CUBE} is no sits-cube: its zarr.json does not say so; {_ELSEWHERE}"
        ) from None


def update_attributes(folder: Folder, layout: CubeLayout, changes: Mapping[str, Any]) -> bytes:
    """Write the root metadata of `layout` with these entries of `sits_cube` changed; returns what was written.

    Nothing is taken over from the file that is there, so that damage to it ends here.
    """
    root = metadata_files(replace(layout, attributes={**layout.attributes, **changes}))[ROOT]
    folder.write(f"{CUBE}/{ROOT}", root)
    return root


def _store(folder: Folder, *, read_only: bool) -> Store:
    cube = folder.sub(CUBE)
    if cube.is_local:
        return LocalStore(cube.path, read_only=read_only)
    return FsspecStore.from_url(cube.location, read_only=read_only)


# Creating


def create_cube(folder: Folder, layout: CubeLayout) -> None:
    """Write the metadata of an empty cube; until all of it is there the root group says `creating`."""
    for name in folder.files(CUBE):
        # What an interrupted creation left goes first, its root last: as long as that stands, it says `creating`.
        if name != f"{CUBE}/{ROOT}":
            folder.remove(name)
    creating = {"zarr_format": 3, "node_type": "group", "attributes": {"sits_cube": {"creating": True}}}
    folder.write(f"{CUBE}/{ROOT}", json.dumps(creating).encode())
    files = metadata_files(layout)
    for key in sorted(files.keys() - {ROOT}):
        folder.write(f"{CUBE}/{key}", files[key])
    folder.write(f"{CUBE}/{ROOT}", files[ROOT])


def repair_metadata(folder: Folder, files: Mapping[str, bytes]) -> list[str]:
    """Write each of these `metadata_files`, but the root, that is missing or differs; returns their keys."""
    damaged = [key for key in sorted(files.keys() - {ROOT}) if not _holds(folder, f"{CUBE}/{key}", files[key])]
    for key in damaged:
        folder.write(f"{CUBE}/{key}", files[key])
    return damaged


def _holds(folder: Folder, name: str, data: bytes) -> bool:
    return folder.size(name) == len(data) and folder.read(name) == data


def metadata_files(layout: CubeLayout) -> dict[str, bytes]:
    """Every file of an empty cube by its key inside of `cube.zarr`: metadata and coordinates, of the layout alone.

    The root carries the consolidated metadata that readers of zarr-python use.
    """
    store = MemoryStore()
    root = {
        **_group_attributes("", layout.geobox),
        "Conventions": "CF-1.12",
        "band_names": list(layout.bands),
        "sits_cube": layout.attributes,
    }
    zarr.create_group(store, attributes=root)
    for name, specs in _groups(layout):
        if name:
            zarr.create_group(store, path=name, attributes=_group_attributes(name, _geobox_of(name, layout)))
        for spec in specs:
            _create_array(store, spec, layout, name)
    _create_coordinates(store, layout)
    with warnings.catch_warnings():
        # Not in the Zarr v3 specification yet; readers that do not know it ignore it.
        warnings.filterwarnings("ignore", message="Consolidated metadata")
        zarr.consolidate_metadata(store)
    return {key: value.to_bytes() for key, value in store._store_dict.items()}


def _group_attributes(group: str, box: GeoBox) -> JsonObject:
    """Georeference, and the names of coordinates that are no dimensions.

    Without these names xarray takes them for variables, and an array taken out of the dataset loses its CRS.
    """
    names = ("spatial_ref",) if group.startswith("labels") else ("sensing_time", "spatial_ref")
    return {**georeference(epsg_of(box), box.affine[:6], shape_of(box)), "coordinates": " ".join(names)}


def _groups(layout: CubeLayout) -> Iterator[tuple[str, list[ArraySpec]]]:
    """Group path and the specifications of its pixel arrays."""
    labels = set(LABEL_ARRAYS)
    yield "", [spec for spec in ARRAYS.values() if layout.has_labels or spec.name not in labels]
    if layout.has_labels:
        for factor in layout.finer:
            yield f"labels_x{factor}", [ARRAYS[name] for name in FINER_ARRAYS]
    yield "overview", [ARRAYS["reflectance"], ARRAYS["quality"]]


def _geobox_of(group: str, layout: CubeLayout) -> GeoBox:
    if group == "overview":
        height, width = (-(-size // OVERVIEW_FACTOR) for size in layout.geobox.shape)
        a = layout.geobox.affine
        return GeoBox(
            (height, width), Affine(a.a * OVERVIEW_FACTOR, 0, a.c, 0, a.e * OVERVIEW_FACTOR, a.f), layout.epsg
        )
    if group:
        return layout.geobox.zoom_out(1 / int(group.removeprefix("labels_x")))
    return layout.geobox


def _create_array(store: Store, spec: ArraySpec, layout: CubeLayout, group: str) -> None:
    box = _geobox_of(group, layout)
    sizes = {"time": len(layout.days), "band": len(layout.bands), "y": box.shape[0], "x": box.shape[1]}
    chunk, shard = _chunking(spec, layout, group)
    zarr.create_array(
        store,
        name=f"{group}/{spec.name}" if group else spec.name,
        shape=tuple(sizes[dim] for dim in spec.dims),
        chunks=chunk,
        shards=shard,
        dtype=spec.dtype,
        fill_value=spec.fill,
        compressors=COMPRESSOR,
        dimension_names=spec.dims,
        attributes={**georeference(layout.epsg, box.affine[:6], shape_of(box)), **_attributes(spec, layout)},
    )


def _chunking(spec: ArraySpec, layout: CubeLayout, group: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Inner chunk and shard of an array."""
    dates, bands, chip, _ = inner_chunk(len(layout.days), len(layout.bands))
    shard, all_dates = layout.shard, -(-len(layout.days) // dates) * dates
    if group == "overview":
        dates, chip, shard = 1, shard // OVERVIEW_FACTOR, shard // OVERVIEW_FACTOR
        all_dates = len(layout.days)
    elif group:
        shard *= int(group.removeprefix("labels_x"))
    inner = {"time": dates, "band": bands, "y": chip, "x": chip}
    outer = {"time": all_dates, "band": bands, "y": shard, "x": shard}
    return tuple(inner[dim] for dim in spec.dims), tuple(outer[dim] for dim in spec.dims)


def _flags(kind: type[Quality] | type[Conflict]) -> JsonObject:
    return {
        "flag_masks": [int(flag) for flag in kind],
        "flag_meanings": " ".join(str(flag.name).lower() for flag in kind),
    }


def _values(kind: type[Split] | type[Scl]) -> JsonObject:
    return {
        "flag_values": [int(flag) for flag in kind],
        "flag_meanings": " ".join(str(flag.name).lower() for flag in kind),
    }


def _attributes(spec: ArraySpec, layout: CubeLayout) -> JsonObject:
    """CF attributes; `_FillValue` on reflectance alone, since xarray turns integers that have one into floats."""
    extra: dict[str, JsonObject] = {
        "reflectance": {
            "_FillValue": 0,
            "scale_factor": 0.0001,
            "add_offset": 0.0,
            "units": "1",
            "standard_name": "surface_bidirectional_reflectance",
            "band_names": list(layout.bands),
        },
        "scl": _values(Scl),
        "quality": {**_flags(Quality), "standard_name": "quality_flag"},
        "crop_type": {"classes": list(layout.classes), "ignore": 65535, "background": 0},
        "coverage": {"comment": "share of the pixel x 255, rounded up from 0"},
        "boundary_distance": {"units": "dm", "comment": "positive inside parcels; saturates at +-1000"},
        "conflict": _flags(Conflict),
        "split": _values(Split),
    }
    return {"long_name": spec.meaning, "grid_mapping": "spatial_ref", **extra.get(spec.name, {})}


def _create_coordinates(store: Store, layout: CubeLayout) -> None:
    for group in [name for name, _ in _groups(layout)]:
        box, prefix = _geobox_of(group, layout), f"{group}/" if group else ""
        x, y = _centres(box)
        _coordinate(
            store, f"{prefix}x", x, "x", {"standard_name": "projection_x_coordinate", "units": "m", "axis": "X"}
        )
        _coordinate(
            store, f"{prefix}y", y, "y", {"standard_name": "projection_y_coordinate", "units": "m", "axis": "Y"}
        )
        crs = CRS.from_epsg(layout.epsg).to_cf()
        reference = cf_grid_mapping(crs, box.affine[:6])
        _coordinate(store, f"{prefix}spatial_ref", np.array(layout.epsg, np.int32), None, reference)
        if not group.startswith("labels"):
            _create_times(store, prefix, layout)


def _centres(box: GeoBox) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Pixel centres, x and y."""
    a, (height, width) = box.affine, box.shape
    x = a.c + (np.arange(width, dtype=np.float64) + 0.5) * a.a
    y = a.f + (np.arange(height, dtype=np.float64) + 0.5) * a.e
    return np.asarray(x, np.float64), np.asarray(y, np.float64)


def _create_times(store: Store, prefix: str, layout: CubeLayout) -> None:
    epoch = date(1970, 1, 1)
    days = np.array([(day - epoch).days for day in layout.days], np.int32)
    seconds = np.array([round(moment.astimezone(UTC).timestamp()) for moment in layout.sensing_times], np.int64)
    units = {"calendar": "proleptic_gregorian"}
    day_attributes = {"standard_name": "time", "axis": "T", "units": "days since 1970-01-01", **units}
    _coordinate(store, f"{prefix}time", days, "time", {**day_attributes, "long_name": "solar day of the pass"})
    sensing = {"long_name": "mean sensing time of the merged items", "units": "seconds since 1970-01-01", **units}
    _coordinate(store, f"{prefix}sensing_time", seconds, "time", sensing)
    names = np.array(layout.bands, dtype=np.dtypes.StringDType())
    wavelengths = [BANDS[name].centre_nm for name in layout.bands]
    _coordinate(store, f"{prefix}band", names, "band", {"long_name": "band", "central_wavelength_nm": wavelengths})


def _coordinate(store: Store, name: str, values: NDArray[Any], dim: str | None, attributes: JsonObject) -> None:
    """A coordinate in one chunk, without compression: small, and read by every reader."""
    array = zarr.create_array(
        store,
        name=name,
        shape=values.shape,
        dtype="str" if values.dtype.kind == "T" else values.dtype,
        chunks=values.shape,
        compressors=None,
        dimension_names=None if dim is None else (dim,),
        attributes=attributes,
        # An all-zero coordinate must be stored too: absent chunks are for pixels.
        config={"write_empty_chunks": True},
    )
    array[...] = values


# Writing


class _HashingStore(WrapperStore[Store]):
    """Remembers size and SHA-256 of what passes through on its way to the store."""

    def __init__(self, store: Store, written: dict[str, Written] | None = None) -> None:
        super().__init__(store)
        self.written = {} if written is None else written

    def _with_store(self, store: Store) -> Self:
        return type(self)(store, self.written)

    async def set(self, key: str, value: Buffer) -> None:
        view = value.as_buffer_like()
        digest = (await asyncio.to_thread(hashlib.sha256, view)).hexdigest()
        await self._store.set(key, value)
        self.written[key] = Written(size=len(value), sha256=digest)


def write_cell(folder: Folder, window: Window, blocks: Iterable[tuple[str, NDArray[Any]]]) -> dict[str, Written]:
    """Write blocks of a cell: (array path, values whose last two dims are the cell's y and x at the array's scale).

    Returns what was stored, by key inside of `cube.zarr`. A shard that is all fill value is not stored; one that was
    there before is removed. Raises ValueError where a block does not cover whole shards.
    """
    store = _HashingStore(_store(folder, read_only=False))
    group = zarr.open_group(store, mode="r+", zarr_format=3, use_consolidated=False)
    for path, block in blocks:
        array = group[path]
        if not isinstance(array, zarr.Array):
            raise TypeError(f"{path} is a group of the cube, not an array")
        array[_selection(array, path, window, block)] = block
    return dict(sorted(store.written.items()))


def _selection(array: zarr.Array[Any], path: str, window: Window, block: NDArray[Any]) -> tuple[slice, ...]:
    """Where a block goes; checks that it covers the cell and is made of whole shards."""
    scale = _scale_of(path)
    shard = array.shards or array.chunks
    selection: list[slice] = [slice(None)] * (array.ndim - 2)
    for axis, start, size in ((-2, window.row, window.height), (-1, window.column, window.width)):
        first = start * scale[0] // scale[1]
        last = -(-(start + size) * scale[0] // scale[1])
        if block.shape[axis] != last - first:
            raise ValueError(f"a block of {path} must have the cell's {last - first} px; got {block.shape[axis]}")
        whole_end = last % shard[axis] == 0 or last == array.shape[axis]
        if first % shard[axis] or not whole_end:
            raise ValueError(
                f"a cell must cover whole shards of {shard[axis]} px in {path}; got pixels {first} to {last} "
                f"of {array.shape[axis]}"
            )
        selection.append(slice(first, last))
    return tuple(selection)


def _scale_of(path: str) -> tuple[int, int]:
    """Pixels of an array a cube pixel, as a fraction."""
    group = path.rpartition("/")[0]
    if group == "overview":
        return 1, OVERVIEW_FACTOR
    if group:
        return int(group.removeprefix("labels_x")), 1
    return 1, 1


def array_paths(layout: CubeLayout) -> list[str]:
    """Paths of all pixel arrays of a cube."""
    return [f"{group}/{spec.name}" if group else spec.name for group, specs in _groups(layout) for spec in specs]


# Reading


def read_layout(folder: Folder) -> CubeLayout:
    """The layout of a stored cube. Raises FileNotFoundError where there is none, ValueError for another profile."""
    attributes = read_attributes(folder)
    if attributes is None:
        raise FileNotFoundError(f"no dataset in {folder.location}: it has no {CUBE}; give the folder that holds it")
    if attributes.get("profile") != "region":
        raise ValueError(
            f"{folder.location} is of the profile {attributes.get('profile')!r}; this works on the profile 'region'"
        )
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
    return _read(_array(open_cube(folder), path), window, dates)


def read_shards(folder: Folder, path: str, *, dates: Sequence[int] | None) -> Iterator[tuple[Window, NDArray[Any]]]:
    """Values of an array a shard at a time, row by row; of these dates alone where the array has dates.

    All dates of a pixel are stored together, so that asking for many dates at once costs no more than for one.
    """
    array = _array(open_cube(folder), path)
    rows, columns = (array.shards or array.chunks)[-2:]
    height, width = array.shape[-2:]
    for row in range(0, height, rows):
        for column in range(0, width, columns):
            window = Window(row=row, column=column, height=min(rows, height - row), width=min(columns, width - column))
            yield window, _read(array, window, dates)


def read_overview(
    folder: Folder, date_index: int, *, bands: Sequence[int], max_px: int
) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
    """Reflectance (band, y, x) and quality (y, x) of a date at 80 m, thinned so that no side passes `max_px`."""
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
