"""The ground that polygons cover together, checked."""

from __future__ import annotations

import math

import numpy as np
import shapely
from numpy.typing import NDArray

__all__ = ["union"]

_BITS = 44
_SLACK = 1e-9


def union(geometry: NDArray[np.object_]) -> shapely.Geometry:
    """The ground of valid polygons, each possibly missing or empty, as one geometry.

    GEOS unites with floating-point noding, whose rare failures its own checks can miss: whole polygons are lost
    without a word (libgeos/geos issues 965 and 1383, locationtech/jts issue 1000). So the ground is also found with
    snap rounding, which is robust by construction, on a grid of a millionth of a metre or finer. Where the two areas
    differ by more than vertices moved by that much explain, the second one is right and is returned.
    """
    there = np.asarray(geometry, dtype=object).reshape(-1)
    there = there[~(shapely.is_missing(there) | shapely.is_empty(there))]
    if len(there) < 2:
        return there[0] if len(there) else shapely.Polygon()
    whole = shapely.union_all(there)
    step = _step(there)
    rounded = shapely.union_all(there, grid_size=step)
    return whole if _agree(whole, rounded, there, step) else rounded


def _step(geometry: NDArray[np.object_]) -> float:
    """A power of two that leaves some nine bits of a double below it: 0.5 micrometres at 6 000 km."""
    largest = float(np.abs(shapely.total_bounds(geometry)).max())
    return math.ldexp(1.0, math.frexp(largest)[1] - _BITS)


def _agree(whole: shapely.Geometry, rounded: shapely.Geometry, geometry: NDArray[np.object_], step: float) -> bool:
    """Whether the areas differ by no more than edges that moved by two steps of the grid sweep over."""
    swept = 2 * step * float(shapely.length(geometry).sum())
    area = float(shapely.area(rounded))
    return abs(float(shapely.area(whole)) - area) <= swept + _SLACK * area
