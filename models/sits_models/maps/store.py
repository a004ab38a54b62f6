"""A map in Zarr: class, probability and uncertainty a pixel on the grid of its cube, written a cell at a time."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec

from sits_catalog.conventions import cf_grid_mapping, georeference
from sits_models.data.classes import CropEntry
from sits_models.folder import sync
from sits_models.tiling import Cell

__all__ = ["MAP", "NOTHING", "NO_CLASS", "ONE", "MapLayout", "create_map", "read_cell", "write_cell"]

MAP = "map.zarr"
"""Name of the group in the folder of a map."""
NO_CLASS = 65535
"""Class where nothing was observed on any date."""
NOTHING = 255
"""Probability and uncertainty there."""
ONE = 254
"""What stands for a probability or an uncertainty of 1."""

_CHUNK = 256
_COMPRESSOR = BloscCodec(cname="zstd", clevel=5, shuffle="bitshuffle")


@dataclass(frozen=True, kw_only=True)
class MapLayout:
    """All that decides the metadata of a map."""

    shape: tuple[int, int]
    """Height and width in pixels of the map."""
    transform: tuple[float, float, float, float, float, float]
    """Affine a to f of pixel corners, metres."""
    epsg: int
    cell: int
    """Side of a cell in pixels of the map: each is a shard of its own."""
    classes: tuple[CropEntry, ...]
    """The model's class table; index 0..K-1 is what `crop_type` holds."""
    probabilities: bool
    """Whether the probabilities of all classes are kept."""
    attributes: Mapping[str, Any]
    """The root attribute `sits_map`: what the map was made from and by."""
    simulated: bool = False
    """Whether the imagery is made up."""

    def arrays(self) -> dict[str, tuple[str, int, str]]:
        """Name to type, fill value and meaning."""
        arrays = {
            "crop_type": ("uint16", NO_CLASS, "most probable class; 65535 = nothing observed"),
            "probability": ("uint8", NOTHING, f"probability of that class x {ONE}; {NOTHING} = nothing observed"),
            "uncertainty": ("uint8", NOTHING, f"entropy over its maximum x {ONE}; {NOTHING} = nothing observed"),
        }
        if self.probabilities:
            arrays["probabilities"] = ("uint8", NOTHING, f"probability of each class x {ONE}; {NOTHING} = as above")
        return arrays


def create_map(folder: Path, layout: MapLayout) -> None:
    """An empty map in `folder`, in place of one that is there."""
    path, partial = folder / MAP, folder / f"{MAP}.partial"
    for old in (partial, path):
        if old.exists():
            shutil.rmtree(old)
    epsg = layout.epsg
    about = {**layout.attributes, **({"simulated": True} if layout.simulated else {})}
    shared = georeference(epsg, layout.transform, layout.shape)
    root = {**shared, "coordinates": "spatial_ref", "Conventions": "CF-1.12", "sits_map": about}
    group = zarr.create_group(partial, attributes=root)
    for name, (dtype, fill, meaning) in layout.arrays().items():
        extra = {"classes": _rows(layout.classes)} if name in ("crop_type", "probabilities") else {}
        _create_array(group, name, layout, dtype, fill, {**shared, "long_name": meaning, **extra})
    _create_coordinates(group, layout)
    with warnings.catch_warnings():
        # Not in the Zarr v3 specification yet; readers that do not know it ignore it.
        warnings.filterwarnings("ignore", message="Consolidated metadata")
        zarr.consolidate_metadata(partial)
    for entry in [*partial.rglob("*"), partial]:
        sync(entry)
    partial.rename(path)
    sync(folder)


def _rows(classes: tuple[CropEntry, ...]) -> list[dict[str, str | int | None]]:
    return [
        {"index": index, "code": crop.code, "name": crop.name, "hcat": crop.hcat, "colour": crop.colour}
        for index, crop in enumerate(classes)
    ]


def _create_array(
    group: zarr.Group, name: str, layout: MapLayout, dtype: str, fill: int, attributes: dict[str, Any]
) -> None:
    dims: tuple[str, ...] = ("y", "x")
    shape: tuple[int, ...] = layout.shape
    chunks: tuple[int, ...] = (_CHUNK, _CHUNK)
    shards: tuple[int, ...] = (layout.cell, layout.cell)
    if name == "probabilities":
        n = len(layout.classes)
        dims, shape, chunks, shards = ("class", *dims), (n, *shape), (1, *chunks), (n, *shards)
    group.create_array(
        name,
        shape=shape,
        chunks=chunks,
        shards=shards,
        dtype=dtype,
        fill_value=fill,
        compressors=_COMPRESSOR,
        dimension_names=dims,
        attributes={**attributes, "grid_mapping": "spatial_ref"},
    )


def _create_coordinates(group: zarr.Group, layout: MapLayout) -> None:
    a, _, left, _, e, top = layout.transform
    height, width = layout.shape
    axes = {
        "x": (left + (np.arange(width) + 0.5) * a, {"standard_name": "projection_x_coordinate", "axis": "X"}),
        "y": (top + (np.arange(height) + 0.5) * e, {"standard_name": "projection_y_coordinate", "axis": "Y"}),
    }
    for name, (values, attributes) in axes.items():
        _coordinate(group, name, values.astype(np.float64), (name,), {**attributes, "units": "m"})
    reference = cf_grid_mapping(pyproj.CRS.from_epsg(layout.epsg).to_cf(), layout.transform)
    _coordinate(group, "spatial_ref", np.array(layout.epsg, np.int32), None, reference)
    if layout.probabilities:
        indices = np.arange(len(layout.classes), dtype=np.int32)
        _coordinate(group, "class", indices, ("class",), {"long_name": "index in the class table"})


def _coordinate(
    group: zarr.Group, name: str, values: NDArray[Any], dims: tuple[str, ...] | None, attributes: dict[str, Any]
) -> None:
    array = group.create_array(
        name,
        shape=values.shape,
        chunks=values.shape,
        dtype=values.dtype,
        compressors=None,
        dimension_names=dims,
        attributes=attributes,
        # An all-zero coordinate must be stored too: absent chunks are for pixels.
        config={"write_empty_chunks": True},
    )
    array[...] = values


def write_cell(folder: Path, cell: Cell, magnification: int, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write the pixels of a cell, each array a whole shard that appears at once; then the disk holds them."""
    group = zarr.open_group(folder / MAP, mode="r+", zarr_format=3, use_consolidated=False)
    for name, values in arrays.items():
        array, place = _array(group, name), _place(cell, magnification)
        array[..., *place] = values
        _sync_shard(folder / MAP / name, array, place)


def _sync_shard(root: Path, array: zarr.Array[Any], place: tuple[slice, slice]) -> None:
    """Zarr renames a shard into its place and leaves the rest to the system."""
    side = (array.shards or array.chunks)[-1]
    index = [0] * (array.ndim - 2) + [axis.start // side for axis in place]
    entry = root.joinpath("c", *map(str, index))
    # A shard of nothing but the fill value is none.
    while entry != root.parent:
        if entry.exists():
            sync(entry)
        entry = entry.parent


def read_cell(folder: Path, name: str, cell: Cell, magnification: int) -> NDArray[Any]:
    """The pixels of a cell; fill value where nothing was written."""
    group = zarr.open_group(folder / MAP, mode="r", zarr_format=3, use_consolidated=False)
    return np.asarray(_array(group, name)[..., *_place(cell, magnification)])


def _place(cell: Cell, m: int) -> tuple[slice, slice]:
    return (
        slice(m * cell.row, m * (cell.row + cell.height)),
        slice(m * cell.column, m * (cell.column + cell.width)),
    )


def _array(group: zarr.Group, name: str) -> zarr.Array[Any]:
    array = group[name]
    if not isinstance(array, zarr.Array):
        raise TypeError(f"{name} is a group of the map, not an array")
    return array
