"""The polygons of a file that decide splits, in the CRS of each cube."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import shapely
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from sits_pipeline.parcels.files import VectorFile, open_vector
from sits_pipeline.parcels.repair import polygons, reproject
from sits_pipeline.parcels.shown import shown
from sits_pipeline.splits import CODES, SplitAreas, check_apart
from sits_pipeline.values import epsg_of

__all__ = ["read_split_areas"]

_COLUMN = "split"


def read_split_areas(path: str, geoboxes: Sequence[GeoBox]) -> tuple[SplitAreas, ...]:
    """The polygons of a vector file with a column `split` (train, validation, test), one entry a cube.

    Raises FileNotFoundError or ValueError, in one sentence, for a file, column or word that is not there, for rows that
    are no polygon, for polygons of different splits that overlap, and for polygons that all lie elsewhere.
    """
    try:
        file = open_vector(path, layer=None, crs=None, encoding=None)
    except FileNotFoundError:
        raise FileNotFoundError(f"no polygons of splits at {shown(path)}: there is no such file") from None
    assert file.crs is not None
    if _COLUMN not in file.names:
        raise ValueError(
            f"{file.path} has no column {_COLUMN!r}, which says train, validation or test; it has "
            f"{', '.join(file.names) or 'no columns'}"
        )
    features = file.read((_COLUMN,), None)
    rows = features.row.tolist()
    words = zip(features.columns[_COLUMN], rows, strict=True)
    split = np.array([_code(word, row, file.path) for word, row in words], np.uint8)
    whole = polygons(features.geometry)
    for row, reason in zip(rows, whole.reason, strict=True):
        if reason is not None:
            raise ValueError(
                f"{file.path}: row {row} is of no use as ground of a split: {reason}; draw it as a polygon"
            )
    zones = [_in_zone(whole.geometry, split, features.row, file, epsg_of(geobox)) for geobox in geoboxes]
    if not any(_meets(areas, geobox) for areas, geobox in zip(zones, geoboxes, strict=True)):
        raise ValueError(
            f"none of the {len(split)} polygons of {file.path} touches the cube; check their place and CRS"
        )
    return tuple(zones)


def _in_zone(
    geometry: NDArray[np.object_], split: NDArray[np.uint8], row: NDArray[np.int64], file: VectorFile, epsg: int
) -> SplitAreas:
    assert file.crs is not None
    there = reproject(geometry, crs=file.crs, epsg=epsg)
    # A polygon far from a zone may have no place in it.
    usable = np.flatnonzero(~shapely.is_missing(there.geometry))
    areas = SplitAreas(epsg=epsg, geometry=there.geometry[usable], split=split[usable])
    check_apart(areas, rows=row[usable].tolist(), path=file.path)
    return areas


def _code(value: object, row: int, path: str) -> int:
    word = str(value).strip().lower() if value is not None else ""
    code = next((code for name, code in CODES.items() if name == word), None)
    if code is None:
        raise ValueError(f"{path}: split says train, validation or test; row {row} says {value!r}")
    return int(code)


def _meets(areas: SplitAreas, geobox: GeoBox) -> bool:
    return bool(shapely.intersects(areas.geometry, shapely.box(*geobox.boundingbox.bbox)).any())
