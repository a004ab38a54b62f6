"""The metadata and coordinates of an empty cube: a value, made from its layout alone."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import zarr
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import CRS
from zarr.abc.store import Store
from zarr.codecs import BloscCodec
from zarr.storage import MemoryStore

from sits_catalog.conventions import cf_grid_mapping, georeference
from sits_catalog.cube import (
    ARRAYS,
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
from sits_pipeline.values import JsonObject, epsg_of, shape_of

__all__ = ["COMPRESSOR", "ROOT", "CubeLayout", "array_paths", "metadata_files"]

ROOT = "zarr.json"
"""Key of the root group's metadata; the last file of a cube that is written."""

COMPRESSOR = BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle")
"""Level 1: on real and on simulated scenes half the time of level 3, and smaller files."""


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


def array_paths(layout: CubeLayout) -> list[str]:
    """Paths of all pixel arrays of a cube."""
    return [f"{group}/{spec.name}" if group else spec.name for group, specs in _groups(layout) for spec in specs]
