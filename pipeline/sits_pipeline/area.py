"""The ground a region covers, from its box, its file or its parcels."""

from __future__ import annotations

import math

import shapely

from sits_catalog.region import Region
from sits_pipeline.parcels import parcel_bounds, read_area
from sits_pipeline.parcels.repair import METRES_A_DEGREE

__all__ = ["region_area"]


def region_area(region: Region) -> shapely.Geometry:
    """The region's area, a valid polygon in lon/lat.

    Raises FileNotFoundError and ValueError with a sentence that says what to do.
    """
    place = region.place
    if place.bbox is not None:
        return shapely.box(*place.bbox)
    if place.file is not None:
        path = region.resolve(place.file)
        return _checked(read_area(path, epsg=4326), path)
    if region.parcels is None:
        raise ValueError("place says `around: parcels`, but the region names no parcels; add parcels: {path: FILE}")
    path = region.resolve(region.parcels.fetched_path())
    west, south, east, north = parcel_bounds(region.parcels, path)
    margin_y = place.margin_m / METRES_A_DEGREE
    margin_x = margin_y / max(0.05, math.cos(math.radians((south + north) / 2)))
    return _checked(shapely.box(west - margin_x, south - margin_y, east + margin_x, north + margin_y), path)


def _checked(area: shapely.Geometry, path: str) -> shapely.Geometry:
    west, south, east, north = shapely.bounds(area)
    if not (-180 <= west < east <= 180 and -90 <= south < north <= 90):
        raise ValueError(
            f"the polygons of {path} reach from {west:.3f}, {south:.3f} to {east:.3f}, {north:.3f}, which are no "
            "longitudes and latitudes; check the file's coordinate reference system and the order of its axes"
        )
    if east - west > 180:
        raise ValueError(
            f"the polygons of {path} lie on both sides of the antimeridian, which is not supported; "
            "build its two halves as two regions"
        )
    return area
