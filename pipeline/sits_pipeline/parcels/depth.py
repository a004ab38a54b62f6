"""How deep parcels lie on one another: where it is too deep, labels of a cell would not fit into any memory."""

from __future__ import annotations

import math

import numpy as np
import shapely
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from sits_pipeline.values import epsg_of

__all__ = ["check_depth"]

_SIDE_M = 2560.0
_MOST_ON_AVERAGE = 16.0
"""Parcels on one another over a square of `_SIDE_M`; declarations overlap by a few per cent."""
_MOST_AT_A_POINT = 64
_POINTS = 256
"""Points that are looked at together."""


def check_depth(geometry: NDArray[np.object_], extent: GeoBox, path: str) -> None:
    """Raise ValueError, with the place, where parcels (valid polygons in the extent's CRS) lie too deep to be drawn."""
    if not len(geometry):
        return
    depth, x, y = _deepest_square(geometry, extent)
    if depth <= _MOST_ON_AVERAGE:
        depth, x, y = _deepest_point(geometry)
        if depth <= _MOST_AT_A_POINT:
            return
    raise ValueError(
        f"{path}: around {x:.0f}, {y:.0f} (EPSG:{epsg_of(extent)}) {depth:.0f} parcels lie on one another, which no "
        "declaration has; remove the rows that repeat, or name one year's or one layer's parcels"
    )


def _deepest_square(geometry: NDArray[np.object_], extent: GeoBox) -> tuple[float, float, float]:
    """Area of parcels over the area of the square, and its middle, where that is most.

    A parcel is spread evenly over the squares that its bounds meet, so that nothing is intersected.
    """
    west, south, east, north = extent.boundingbox.bbox
    columns, rows = math.ceil((east - west) / _SIDE_M), math.ceil((north - south) / _SIDE_M)
    squares = np.floor((shapely.bounds(geometry).reshape(-1, 4) - [west, south, west, south]) / _SIDE_M)
    left, bottom, right, top = squares.T
    weight = shapely.area(geometry) / ((right - left + 1) * (top - bottom + 1) * _SIDE_M**2)
    left, right = (np.clip(edge, 0, columns).astype(np.intp) for edge in (left, right + 1))
    bottom, top = (np.clip(edge, 0, rows).astype(np.intp) for edge in (bottom, top + 1))
    change = np.zeros((rows + 1, columns + 1))
    for row, column, sign in ((bottom, left, 1), (bottom, right, -1), (top, left, -1), (top, right, 1)):
        np.add.at(change, (row, column), sign * weight)
    depth = change.cumsum(axis=0).cumsum(axis=1)
    row, column = np.unravel_index(np.argmax(depth), depth.shape)
    return float(depth.max()), west + (float(column) + 0.5) * _SIDE_M, south + (float(row) + 0.5) * _SIDE_M


def _deepest_point(geometry: NDArray[np.object_]) -> tuple[float, float, float]:
    """Parcels at a point inside of a parcel, and that point, where they are too many; else 0."""
    bounds = shapely.bounds(geometry).reshape(-1, 4)
    middles: NDArray[np.object_] = np.empty(len(bounds), dtype=object)
    middles[:] = shapely.points((bounds[:, :2] + bounds[:, 2:]) / 2)
    shapely.prepare(geometry)
    tree = shapely.STRtree(geometry)
    for start in range(0, len(middles), _POINTS):
        found, _ = tree.query(middles[start : start + _POINTS])
        for number in start + np.flatnonzero(np.bincount(found) > _MOST_AT_A_POINT):
            point = shapely.point_on_surface(geometry[number])
            depth = int(shapely.intersects(geometry[tree.query(point)], point).sum())
            if depth > _MOST_AT_A_POINT:
                return float(depth), float(shapely.get_x(point)), float(shapely.get_y(point))
    return 0.0, 0.0, 0.0
