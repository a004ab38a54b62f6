"""Parcel geometry made fit for work: two-dimensional, valid, polygonal, in the cube's CRS."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from sits_pipeline.steps.rasterize.union import union
from sits_pipeline.steps.tangles import too_tangled
from sits_pipeline.transformers import transformer_between

__all__ = ["METRES_A_DEGREE", "Repaired", "polygons", "reproject"]

METRES_A_DEGREE = 111_320.0
"""Length of a degree of longitude on the equator; a degree of latitude is within 0.7 % of it."""

_FARTHEST = 1e10
"""In the unit of any CRS: further out nothing lies on the Earth, and numbers overflow."""
_FARTHEST_M = 1e8
"""In the CRS of a cube."""
_EDGE_M = 50.0
"""Longest edge before a reprojection: the sagitta of a straight line then stays below a millimetre."""
_MOST_EDGES = 800_000
"""Of 50 m: a line of that length goes around the Earth."""
_POLYGONAL = (3, 6)
_COLLECTION = 7


@dataclass(frozen=True, kw_only=True)
class Repaired:
    """Polygons, and what happened to them; all fields have one entry a geometry."""

    geometry: NDArray[np.object_]
    """Valid Polygon or MultiPolygon; None where there is a `reason`."""
    repaired: NDArray[np.bool_]
    reason: NDArray[np.object_]
    """Why a geometry is of no use, in words; None where it is of use."""


def polygons(geometry: NDArray[np.object_]) -> Repaired:
    """Each geometry in two dimensions, valid, reduced to its polygonal parts."""
    result = _objects(shapely.force_2d(geometry))
    reason = np.full(len(result), None, dtype=object)
    reason[shapely.is_missing(result)] = "it has no geometry"
    reason[shapely.is_empty(result)] = "its geometry is empty"
    coordinates, owner = shapely.get_coordinates(result, return_index=True)
    reason[owner[~(np.abs(coordinates) <= _FARTHEST).all(axis=1)]] = "its coordinates lie beyond the Earth"
    reason[owner[~np.isfinite(coordinates).all(axis=1)]] = "its coordinates are not all numbers"
    result[_has(reason)] = None

    invalid = ~shapely.is_missing(result) & ~shapely.is_valid(result)
    for index in np.flatnonzero(invalid | (shapely.get_type_id(result) == _COLLECTION)):
        reason[index] = too_tangled(result[index])
    result[_has(reason)] = None
    for index in np.flatnonzero(shapely.get_type_id(result) == _COLLECTION):
        areal = _areal(result[index])
        result[index] = _ground(areal) if len(areal) else result[index]
    kind = shapely.get_type_id(result)
    for index in np.flatnonzero((kind >= 0) & ~np.isin(kind, _POLYGONAL)):
        reason[index] = f"it is a {result[index].geom_type}, not a polygon"
        result[index] = None

    invalid = ~shapely.is_missing(result) & ~shapely.is_valid(result)
    for index in np.flatnonzero(invalid):
        result[index] = _ground(_areal(result[index]))
    reason[~shapely.is_missing(result) & ~(shapely.area(result) > 0)] = "it has no area"
    result[_has(reason)] = None
    return Repaired(geometry=result, repaired=invalid & ~_has(reason), reason=reason)


def _ground(parts: NDArray[np.object_]) -> shapely.Geometry:
    """The ground of some polygons, valid or not: the insides of their shells without those of their own holes.

    Ring by ring, because make_valid on the whole would turn ground that two parts share, or a hole that sticks out
    of its shell, inside out. buffer(0) would drop whole lobes.
    """
    pieces = [
        shapely.difference(
            _inside(part.exterior),
            union(_objects([_inside(hole) for hole in part.interiors])),
        )
        for part in parts
    ]
    return union(_areal(union(_objects(pieces))))


def _inside(ring: shapely.LinearRing) -> shapely.Geometry:
    """All ground that a ring encloses, however it crosses itself.

    Both methods of make_valid together: by its structure a ring loses lobes that hang on an edge drawn twice, by
    even-odd linework it loses what it goes around twice.
    """
    drawn = shapely.Polygon(ring)
    by_structure = shapely.make_valid(drawn, method="structure", keep_collapsed=False)
    parts = [_areal(shapely.make_valid(shape, method="linework")) for shape in (drawn, by_structure)]
    return union(np.concatenate(parts))


def _areal(geometry: shapely.Geometry) -> NDArray[np.object_]:
    """The polygons in a geometry, however deep they lie."""
    parts = shapely.get_parts(geometry)
    while (shapely.get_type_id(parts) > _POLYGONAL[0]).any():
        parts = shapely.get_parts(parts)
    return np.asarray(parts[shapely.get_type_id(parts) == _POLYGONAL[0]])


def reproject(geometry: NDArray[np.object_], *, crs: CRS, epsg: int) -> Repaired:
    """Valid polygons of `crs` in EPSG:`epsg`, edges densified to 50 m first, so that straight lines stay true.

    Vertices are reprojected, never a raster. Without a change of CRS the vertices stay as they are.
    """
    target = CRS.from_epsg(epsg)
    if crs == target or crs.to_epsg() == epsg:
        none = np.full(len(geometry), None, dtype=object)
        return _on_earth(Repaired(geometry=geometry, repaired=np.zeros(len(geometry), bool), reason=none))
    transformer = transformer_between(crs, target)
    edge = _longest_edge(crs)
    long = shapely.length(geometry) > _MOST_EDGES * edge
    short = _objects(geometry)
    short[long] = None
    dense = shapely.segmentize(short, edge)

    def to_target(xy: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.column_stack(transformer.transform(xy[:, 0], xy[:, 1]))

    projected = shapely.transform(dense, to_target)
    result = polygons(_objects(projected))
    for lost in ("its coordinates are not all numbers", "its coordinates lie beyond the Earth"):
        result.reason[result.reason == lost] = f"it cannot be projected to EPSG:{epsg}"
    result.reason[long] = "its edges are longer than a line around the Earth"
    return _on_earth(result)


def _on_earth(found: Repaired) -> Repaired:
    """Without what lies further out than a cube's CRS reaches, where pixels could not be counted."""
    beyond = ~(np.abs(shapely.bounds(found.geometry).reshape(-1, 4)) <= _FARTHEST_M).all(axis=1)
    beyond &= ~shapely.is_missing(found.geometry)
    reason, geometry = found.reason.copy(), found.geometry.copy()
    reason[beyond], geometry[beyond] = "its coordinates lie beyond the Earth", None
    return Repaired(geometry=geometry, repaired=found.repaired & ~beyond, reason=reason)


def _longest_edge(crs: CRS) -> float:
    """50 m in the unit of `crs`; in degrees 50 m of latitude: a degree of longitude is never longer."""
    if crs.is_geographic:
        return _EDGE_M / METRES_A_DEGREE
    return float(_EDGE_M / crs.axis_info[0].unit_conversion_factor)


def _has(reason: NDArray[np.object_]) -> NDArray[np.bool_]:
    return np.asarray(reason != None)  # noqa: E711  # elementwise


def _objects(geometry: object) -> NDArray[np.object_]:
    return np.array(geometry, dtype=object, copy=True).reshape(-1)
