"""The rings of many parcels as flat arrays of directed edges."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

__all__ = ["Outlines", "outlines_of"]


@dataclass(frozen=True, kw_only=True)
class Outlines:
    """Vertices ring after ring, parcel after parcel; exteriors turn left, holes turn right."""

    xy: NDArray[np.float64]
    """(vertex, 2), metres; the first vertex of a ring comes again as its last."""
    ring: NDArray[np.intp]
    """(vertex,), number of the ring, ascending."""
    owner: NDArray[np.intp]
    """(ring,), position of the parcel the ring belongs to, ascending."""


def outlines_of(geometry: NDArray[np.object_]) -> Outlines:
    """The outlines of polygons and multipolygons, a function of each parcel alone."""
    parts, parcel = shapely.get_parts(shapely.orient_polygons(geometry), return_index=True)
    rings, part = shapely.get_rings(parts, return_index=True)
    xy, ring = shapely.get_coordinates(rings, return_index=True)
    return Outlines(xy=xy, ring=ring, owner=parcel[part])
