"""The lattice of a zone: a region's UTM zones, its grid snapped to 60 m, and the zone's 6 degree strip."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from sits_catalog.cube import LATTICE_M, PIXEL_M, central_meridian, lattice_anchor_y
from sits_pipeline.transformers import transformer_between

__all__ = [
    "inside_strip",
    "is_in_strip",
    "part_in_zone",
    "project",
    "project_all",
    "snap",
    "strip_of",
    "to_lonlat",
    "unwrapped",
    "zones_of",
]

_EDGE_DEG = 0.005
"""Longest edge, in degrees, of an area before it is projected: its sagitta stays under a centimetre."""


def strip_of(epsg: int) -> tuple[float, float]:
    """West and east border of a zone's 6 degree strip, degrees; the east border belongs to the next zone."""
    middle = central_meridian(epsg)
    return middle - 3, middle + 3


def zones_of(area: shapely.Geometry) -> tuple[int, ...]:
    """EPSG codes of the WGS 84 / UTM zones that `area` (lon/lat) meets, west to east, north before south.

    A region on both sides of the equator has zones of both hemispheres.
    """
    if shapely.is_empty(area):
        return ()
    west, south, east, north = shapely.bounds(area)
    codes = []
    for zone in range(_zone(west), _zone(math.nextafter(east, -math.inf)) + 1):
        for base, (low, high) in ((32600, (0.0, 90.0)), (32700, (-90.0, 0.0))):
            if (north <= low and base == 32600) or south >= high:
                continue
            strip_west, strip_east = strip_of(base + zone)
            strip = shapely.box(strip_west, low, strip_east, high)
            if shapely.area(shapely.intersection(area, strip)) > 0:
                codes.append(base + zone)
    return tuple(codes)


def _zone(longitude: float) -> int:
    return min(int((longitude + 180) // 6) + 1, 60)


def part_in_zone(area: shapely.Geometry, epsg: int) -> shapely.Geometry:
    """The part of `area` (lon/lat) in the zone's strip and hemisphere."""
    west, east = strip_of(epsg)
    south, north = (0, 90) if epsg < 32700 else (-90, 0)
    return shapely.intersection(area, shapely.box(west, south, east, north))


def project(area: shapely.Geometry, epsg: int) -> shapely.Geometry:
    """`area` (lon/lat) in a zone's CRS, its edges densified first."""
    return _transformed(shapely.segmentize(area, _EDGE_DEG), 4326, epsg)


def project_all(areas: Sequence[shapely.Geometry] | NDArray[np.object_], epsg: int) -> NDArray[np.object_]:
    """`project` of each of many, at once: a country's scenes are ten thousand."""
    several: NDArray[np.object_] = np.array(areas, np.object_)
    return np.asarray(shapely.transform(shapely.segmentize(several, _EDGE_DEG), _mover(4326, epsg)), np.object_)


def to_lonlat(area: shapely.Geometry, epsg: int) -> shapely.Geometry:
    """`area` in a zone's CRS in lon/lat, its edges densified to 500 m first."""
    return _transformed(shapely.segmentize(area, 500.0), epsg, 4326)


def unwrapped(area: shapely.Geometry, epsg: int) -> shapely.Geometry:
    """`area` in lon/lat with longitudes that run on beyond 180 degrees, within half a turn of a zone's meridian."""
    meridian = central_meridian(epsg)

    def move(points: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.column_stack([(points[:, 0] - meridian + 180) % 360 - 180 + meridian, points[:, 1]])

    return shapely.transform(area, move)


def _transformed(area: shapely.Geometry, source: int, target: int) -> shapely.Geometry:
    return shapely.transform(area, _mover(source, target))


def _mover(source: int, target: int) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """From points (n, 2) of one CRS, by EPSG code, to those of another."""
    transformer = transformer_between(source, target)

    def move(points: NDArray[np.float64]) -> NDArray[np.float64]:
        x, y = transformer.transform(points[:, 0], points[:, 1])
        return np.column_stack([x, y])

    return move


def snap(area: shapely.Geometry, epsg: int) -> GeoBox:
    """The cube's grid: the bounding box of `area` (in the zone's CRS) snapped outwards to the zone's 60 m lattice."""
    left, bottom, right, top = shapely.bounds(area)
    anchor = lattice_anchor_y(epsg)
    x0 = math.floor(left / LATTICE_M) * LATTICE_M
    x1 = math.ceil(right / LATTICE_M) * LATTICE_M
    y0 = math.floor((bottom - anchor) / LATTICE_M) * LATTICE_M + anchor
    y1 = math.ceil((top - anchor) / LATTICE_M) * LATTICE_M + anchor
    shape = ((y1 - y0) // PIXEL_M, (x1 - x0) // PIXEL_M)
    return GeoBox(shape, Affine(PIXEL_M, 0, x0, 0, -PIXEL_M, y1), f"EPSG:{epsg}")


def is_in_strip(geobox: GeoBox, epsg: int) -> bool:
    """Whether all of a grid lies in the zone's strip."""
    west, east = strip_of(epsg)
    low, _, high, _ = shapely.bounds(to_lonlat(shapely.box(*geobox.boundingbox.bbox), epsg))
    return bool(low >= west and high < east)


def inside_strip(geobox: GeoBox, epsg: int) -> NDArray[np.bool_] | None:
    """Where pixel centres lie in the zone's strip, (y, x); None: everywhere, the common case."""
    if is_in_strip(geobox, epsg):
        return None
    west, east = strip_of(epsg)
    a = geobox.affine
    height, width = geobox.shape
    x, y = np.meshgrid(a.c + (np.arange(width) + 0.5) * a.a, a.f + (np.arange(height) + 0.5) * a.e)
    longitude, _ = transformer_between(epsg, 4326).transform(x, y)
    return np.asarray((longitude >= west) & (longitude < east))
