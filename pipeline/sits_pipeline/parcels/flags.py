"""What is special about parcels, found by comparing them with each other and with the region."""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray

from sits_pipeline.parcels.table import Flag
from sits_pipeline.steps.tangles import PAIRS_OF_LINES, cross_too_often

__all__ = ["flags_of"]

_OVERLAP_M2 = 1.0
_GRID_M = 2.0**-20
_ROWS = 256
"""Polygons whose neighbours are sought together, and pairs of them that are compared together."""
_PAIRS = 4096


def flags_of(
    geometry: NDArray[np.object_],
    *,
    repaired: NDArray[np.bool_],
    content: NDArray[np.object_],
    area: shapely.Geometry,
) -> NDArray[np.uint8]:
    """Bits of `Flag` of the parcels of one table, in its order; `content` are content keys, `area` is the region."""
    shapely.prepare(area)
    flags = (
        Flag.INVALID_REPAIRED * repaired
        + Flag.MULTIPART * (shapely.get_num_geometries(geometry) > 1)
        + Flag.OVERLAPS * _overlapping(geometry)
        + Flag.OUTSIDE * ~shapely.intersects(area, geometry)
        + Flag.DUPLICATE * _repeating(content)
    )
    return np.asarray(flags, np.uint8)


def _overlapping(geometry: NDArray[np.object_]) -> NDArray[np.bool_]:
    """Which polygons share more than 1 m2 with another.

    A polygon that is known to do so is compared with none but those that are not: a stack costs what its height does.
    """
    tree = shapely.STRtree(geometry)
    result = np.zeros(len(geometry), dtype=bool)
    for start in range(0, len(geometry), _ROWS):
        own = start + np.flatnonzero(~result[start : start + _ROWS])
        shapely.prepare(geometry[own])
        first, second = tree.query(geometry[own])
        first = own[first]
        # One before that is not known to overlap has been compared with all others.
        new = (second > first) | ((second < first) & result[second])
        first, second = first[new], second[new]
        for at in range(0, len(first), _PAIRS):
            a, b = first[at : at + _PAIRS], second[at : at + _PAIRS]
            open_ = ~(result[a] & result[b])
            a, b = a[open_], b[open_]
            shared = _shared_m2(geometry[a], geometry[b]) > _OVERLAP_M2
            result[a[shared]] = True
            result[b[shared]] = True
    return result


def _shared_m2(first: NDArray[np.object_], second: NDArray[np.object_]) -> NDArray[np.float64]:
    """Area that pairs of valid polygons have in common."""
    area = np.zeros(len(first))
    meet = np.flatnonzero(shapely.intersects(first, second))
    many = shapely.get_num_coordinates(first[meet]) * shapely.get_num_coordinates(second[meet]) > PAIRS_OF_LINES
    for index in meet[many]:
        if cross_too_often(first[index], second[index]):
            west, south, _, _ = shapely.bounds(first[index])
            raise ValueError(
                f"two parcels around {west:.0f}, {south:.0f}, of {shapely.get_num_coordinates(first[index])} and "
                f"{shapely.get_num_coordinates(second[index])} vertices, cross one another too often to be drawn; "
                "remove one of them"
            )
    try:
        area[meet] = shapely.area(shapely.intersection(first[meet], second[meet]))
    except shapely.errors.GEOSException:  # rounding has lost a ring; on a grid of micrometres it cannot
        area[meet] = shapely.area(shapely.intersection(first[meet], second[meet], grid_size=_GRID_M))
    return area


def _repeating(content: NDArray[np.object_]) -> NDArray[np.bool_]:
    """Which entries have occurred before."""
    again = np.ones(len(content), dtype=bool)
    again[np.unique(content.astype(str), return_index=True)[1]] = False
    return again
