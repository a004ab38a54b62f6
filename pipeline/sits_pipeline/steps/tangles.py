"""How often the lines of polygons meet: where they do so too often, no repair and no union of them ends in time."""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray

__all__ = ["CROSSINGS", "PAIRS_OF_LINES", "VERTICES", "check_area", "cross_too_often", "is_tangled", "too_tangled"]

CROSSINGS = 1000
"""Of the lines of one polygon that are repaired; drawings of parcels have a few. The time grows with their square."""
VERTICES = 20_000
"""Of one polygon that is repaired."""
_NEIGHBOURS = 16
"""Lines that a line meets on average, itself, those before and after it, and those of the parcels beside it."""
_PAIRS = 1 << 24
"""Pairs of lines that are looked at together, at most."""
PAIRS_OF_LINES = 1_000_000
"""Pairs of lines of two polygons that may all cross."""
_POLYGON = 3
"""The type that others are made of: all with a larger one are collections."""
_AREA_VERTICES = 3_000_000
"""Of all polygons together that are united to an area."""


def too_tangled(geometry: shapely.Geometry) -> str | None:
    """Why an invalid geometry is not repaired, in words; None where it is."""
    vertices = int(shapely.get_num_coordinates(geometry))
    if vertices > VERTICES:
        return f"it is no valid polygon and has {vertices} vertices, more than the {VERTICES} that are repaired"
    if is_tangled(np.array([geometry], dtype=object), crossings=CROSSINGS):
        return f"its lines cross or touch one another in more than {CROSSINGS} places"
    return None


def check_area(geometry: NDArray[np.object_], path: str) -> None:
    """Raise ValueError where the polygons of an area are too many, or lie too often on one another, to be united."""
    vertices = int(shapely.get_num_coordinates(geometry).sum())
    if vertices > _AREA_VERTICES:
        raise ValueError(
            f"the polygons of {path} have {vertices} vertices, more than the {_AREA_VERTICES} of an area; simplify or "
            "dissolve them"
        )
    if is_tangled(geometry, crossings=None):
        raise ValueError(
            f"the polygons of {path} lie on one another too often to be united to an area; dissolve them in a GIS"
        )


def cross_too_often(first: shapely.Geometry, second: shapely.Geometry) -> bool:
    """Whether the lines of two valid polygons meet too often to intersect them: a comb lies across another, say."""
    common = shapely.intersection(shapely.envelope(first), shapely.envelope(second))
    near = [lines[shapely.intersects(common, shapely.envelope(lines))] for lines in (_lines(first), _lines(second))]
    return len(near[0]) * len(near[1]) > PAIRS_OF_LINES and _meet_often(np.concatenate(near), crossings=None)


def is_tangled(geometry: NDArray[np.object_], *, crossings: int | None) -> bool:
    """Whether the lines of some polygons meet too often to be united: on average 16 others, or stacked on one another.

    With `crossings` they may cross in so many places at most, whatever their number.
    """
    return _meet_often(_lines(geometry), crossings=crossings)


def _meet_often(lines: NDArray[np.object_], *, crossings: int | None) -> bool:
    tree = shapely.STRtree(lines)
    met, crossed = 0, 0
    most = _NEIGHBOURS * len(lines) + 2 * CROSSINGS
    widest = max(1, min(_PAIRS // max(len(lines), 1), 4096))
    start, step = 0, 1
    while start < len(lines):
        first, second = tree.query(lines[start : start + step], predicate="intersects")
        met += len(first)
        if met > most:
            return True
        if crossings is not None:
            first += start
            apart = np.abs(first - second) > 1
            crossed += int(shapely.crosses(lines[first[apart]], lines[second[apart]]).sum())
            if crossed > 2 * crossings:  # each is found from both sides
                return True
        start, step = start + step, min(2 * step, widest)
    return False


def _lines(geometry: NDArray[np.object_] | shapely.Geometry) -> NDArray[np.object_]:
    """The straight lines of all rings, without those of no length."""
    rings = shapely.get_rings(_polygons(geometry))
    xy, ring = shapely.get_coordinates(rings, return_index=True)
    ends = np.flatnonzero((ring[1:] == ring[:-1]) & (xy[1:] != xy[:-1]).any(axis=1))
    return np.asarray(shapely.linestrings(np.stack([xy[ends], xy[ends + 1]], axis=1)), dtype=object)


def _polygons(geometry: NDArray[np.object_] | shapely.Geometry) -> NDArray[np.object_]:
    parts = shapely.get_parts(geometry)
    while (shapely.get_type_id(parts) > _POLYGON).any():
        parts = shapely.get_parts(parts)
    return np.asarray(parts[shapely.get_type_id(parts) == _POLYGON])
