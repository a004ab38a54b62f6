"""Classes with too few pixels in a planned split, folded into `other` before any cell is built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import shapely
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from sits_catalog.cube import IGNORE, PIXEL_M, Split
from sits_catalog.folding import Folding, fold_classes
from sits_pipeline.parcels.table import ParcelTable
from sits_pipeline.splits import SplitPlan

__all__ = ["fold_small_classes", "pixels_by_split"]

_USED = (Split.TRAIN, Split.VALIDATION, Split.TEST)
_PER_PIXEL = PIXEL_M**2 * 10_000
"""Square centimetres a pixel: areas are summed as whole numbers, so that a sum is the same on every machine."""


def fold_small_classes(
    tables: Sequence[ParcelTable],
    geoboxes: Sequence[GeoBox],
    splits: SplitPlan,
    min_pixels: Mapping[str, int],
    *,
    has_names: bool,
) -> tuple[tuple[ParcelTable, ...], Folding | None]:
    """The tables of a region, one a cube, with small classes folded, and what was folded; None: nothing.

    Splits are planned on the classes as they were and stay. `has_names`: the source has names of its own for crops,
    which the parcels keep; else a folded parcel is called as its new class.
    """
    if not tables or not min_pixels:
        return tuple(tables), None
    folding = fold_classes(tables[0].taxonomy, pixels_by_split(tables, geoboxes, splits), min_pixels)
    if folding is None:
        return tuple(tables), None
    return tuple(_folded(table, folding, has_names=has_names) for table in tables), folding


def pixels_by_split(
    tables: Sequence[ParcelTable], geoboxes: Sequence[GeoBox], splits: SplitPlan
) -> dict[int, dict[str, int]]:
    """Pixels of 10 m a class and split, as the area of its parcels inside of the cubes, rounded down.

    A parcel that two zones share counts once, with the larger of its parts.
    """
    size = int(splits.parcel_id.max(initial=0)) + 1
    area, crop = np.zeros(size, np.int64), np.full(size, IGNORE, np.int64)
    for table, geobox in zip(tables, geoboxes, strict=True):
        ids = table.parcels.parcel_id
        crop[ids] = table.parcels.crop_type
        np.maximum.at(area, ids, _area_inside(table.parcels.geometry, geobox))
    area, crop = area[splits.parcel_id], crop[splits.parcel_id]
    return {
        int(index): {
            split.name.lower(): int(area[(crop == index) & (splits.parcel_split == split)].sum()) // _PER_PIXEL
            for split in _USED
        }
        for index in np.unique(crop[crop != IGNORE])
    }


def _area_inside(geometry: NDArray[np.object_], geobox: GeoBox) -> NDArray[np.int64]:
    """Area of each parcel inside of a cube, square centimetres."""
    west, south, east, north = geobox.boundingbox.bbox
    low_x, low_y, high_x, high_y = shapely.bounds(geometry).reshape(-1, 4).T
    crosses = (low_x < west) | (low_y < south) | (high_x > east) | (high_y > north)
    inside = geometry.copy()
    inside[crosses] = shapely.intersection(geometry[crosses], shapely.box(west, south, east, north))
    return np.rint(shapely.area(inside) * 10_000).astype(np.int64)


def _folded(table: ParcelTable, folding: Folding, *, has_names: bool) -> ParcelTable:
    """A table with the new class of each parcel."""
    crops = table.parcels.crop_type
    gone = np.isin(crops, [folded.crop.index for folded in folding.classes])
    hcat, names = table.hcat_code.copy(), table.crop_name.copy()
    hcat[gone] = folding.into.hcat
    if not has_names:
        names[gone] = folding.into.name
    return replace(
        table,
        parcels=replace(table.parcels, crop_type=np.where(gone, np.uint16(folding.into.index), crops)),
        crop_name=names,
        hcat_code=hcat,
        taxonomy=folding.taxonomy,
    )
