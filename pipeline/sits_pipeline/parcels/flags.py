"""What is special about parcels, found by comparing them with each other and with the region."""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray

from sits_pipeline.parcels.table import Flag

__all__ = ["flags_of"]

_OVERLAP_M2 = 1.0
_PAIRS = 100_000


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
    """Which polygons share more than 1 m2 with another."""
    first, second = shapely.STRtree(geometry).query(geometry, predicate="intersects")
    once = first < second
    first, second = first[once], second[once]
    result = np.zeros(len(geometry), dtype=bool)
    for start in range(0, len(first), _PAIRS):
        a, b = first[start : start + _PAIRS], second[start : start + _PAIRS]
        shared = shapely.area(shapely.intersection(geometry[a], geometry[b])) > _OVERLAP_M2
        result[a[shared]] = True
        result[b[shared]] = True
    return result


def _repeating(content: NDArray[np.object_]) -> NDArray[np.bool_]:
    """Which entries have occurred before."""
    again = np.ones(len(content), dtype=bool)
    again[np.unique(content.astype(str), return_index=True)[1]] = False
    return again
