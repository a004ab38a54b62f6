"""Parcel geometry made fit for work: two-dimensional, valid, polygonal, in the cube's CRS."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS, Transformer

__all__ = ["Repaired", "polygons", "reproject"]

_EDGE_M = 50.0
"""Longest edge before a reprojection: the sagitta of a straight line then stays below a millimetre."""
_METRES_A_DEGREE = 111_320.0
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
    """Each geometry in two dimensions, valid, reduced to its polygonal parts.

    make_valid follows the *structure*: shells are joined and holes are cut out, so ground inside of any lobe of a
    self-crossing ring stays, as does ground that two parts of a multipolygon share. Its other method (even-odd
    linework) would punch holes where parts overlap, and buffer(0) drops whole lobes.
    """
    result = _objects(shapely.force_2d(geometry))
    reason = np.full(len(result), None, dtype=object)
    reason[shapely.is_missing(result)] = "it has no geometry"
    reason[shapely.is_empty(result)] = "its geometry is empty"
    coordinates, owner = shapely.get_coordinates(result, return_index=True)
    reason[owner[~np.isfinite(coordinates).all(axis=1)]] = "its coordinates are not all numbers"
    result[_has(reason)] = None

    collections = np.flatnonzero(shapely.get_type_id(result) == _COLLECTION)
    for index in collections:
        result[index] = _polygonal_parts(result[index])
    kind = shapely.get_type_id(result)
    for index in np.flatnonzero((kind >= 0) & ~np.isin(kind, _POLYGONAL)):
        reason[index] = f"it is a {result[index].geom_type}, not a polygon"
        result[index] = None

    invalid = ~shapely.is_missing(result) & ~shapely.is_valid(result)
    result[invalid] = shapely.make_valid(result[invalid], method="structure", keep_collapsed=False)
    reason[~shapely.is_missing(result) & ~(shapely.area(result) > 0)] = "it has no area"
    result[_has(reason)] = None
    return Repaired(geometry=result, repaired=invalid & ~_has(reason), reason=reason)


def _polygonal_parts(collection: shapely.Geometry) -> shapely.Geometry:
    """The union of the polygons in a collection, however deep; the collection itself where there are none."""
    parts = shapely.get_parts(collection)
    while (shapely.get_type_id(parts) > _POLYGONAL[0]).any():
        parts = shapely.get_parts(parts)
    areal = parts[shapely.get_type_id(parts) == _POLYGONAL[0]]
    valid = shapely.make_valid(areal, method="structure", keep_collapsed=False)
    return shapely.union_all(valid) if len(areal) else collection


def reproject(geometry: NDArray[np.object_], *, crs: CRS, epsg: int) -> Repaired:
    """Valid polygons of `crs` in EPSG:`epsg`, edges densified to 50 m first, so that straight lines stay true.

    Vertices are reprojected, never a raster. Without a change of CRS the vertices stay as they are.
    """
    target = CRS.from_epsg(epsg)
    if crs == target or crs.to_epsg() == epsg:
        none = np.full(len(geometry), None, dtype=object)
        return Repaired(geometry=geometry, repaired=np.zeros(len(geometry), bool), reason=none)
    transformer = Transformer.from_crs(crs, target, always_xy=True)
    dense = shapely.segmentize(geometry, _longest_edge(crs))

    def to_target(xy: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.column_stack(transformer.transform(xy[:, 0], xy[:, 1]))

    projected = shapely.transform(dense, to_target)
    result = polygons(_objects(projected))
    result.reason[result.reason == "its coordinates are not all numbers"] = f"it cannot be projected to EPSG:{epsg}"
    return result


def _longest_edge(crs: CRS) -> float:
    """50 m in the unit of `crs`; in degrees 50 m of latitude: a degree of longitude is never longer."""
    if crs.is_geographic:
        return _EDGE_M / _METRES_A_DEGREE
    return float(_EDGE_M / crs.axis_info[0].unit_conversion_factor)


def _has(reason: NDArray[np.object_]) -> NDArray[np.bool_]:
    return np.asarray(reason != None)  # noqa: E711  # elementwise


def _objects(geometry: object) -> NDArray[np.object_]:
    return np.array(geometry, dtype=object, copy=True).reshape(-1)
