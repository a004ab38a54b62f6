"""Where a file's parcels lie, and whether that is where the region lies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import shapely
from odc.geo.geobox import GeoBox
from pyproj import CRS

from sits_pipeline.parcels.features import Box
from sits_pipeline.parcels.files import VectorFile
from sits_pipeline.parcels.table import NEAR_M
from sits_pipeline.transformers import transformer_between
from sits_pipeline.values import epsg_of

__all__ = ["box_around", "elsewhere", "in_words", "lonlat"]


def box_around(file: VectorFile, extents: Sequence[GeoBox]) -> Box:
    """A box in the file's CRS that holds every cube and its surroundings."""
    boxes = []
    for extent in extents:
        west, south, east, north = extent.boundingbox.bbox
        slack = NEAR_M + 0.001 * max(east - west, north - south)  # edges bend between the points that are projected
        transformer = transformer_between(epsg_of(extent), file.crs)
        boxes.append(
            transformer.transform_bounds(west - slack, south - slack, east + slack, north + slack, densify_pts=64)
        )
    low, high = np.min(boxes, axis=0)[:2], np.max(boxes, axis=0)[2:]
    if not np.isfinite([*low, *high]).all():
        raise ValueError(elsewhere(file, extents))
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def elsewhere(file: VectorFile, extents: Sequence[GeoBox]) -> str:
    """The sentence that says where the parcels are and where the region is."""
    if file.n_rows == 0:
        return f"{file.path} holds no parcels at all"
    there = file.bounds()
    boxes = [lonlat(extent.boundingbox.bbox, CRS.from_epsg(epsg_of(extent))) for extent in extents]
    low, high = np.min(boxes, axis=0)[:2], np.max(boxes, axis=0)[2:]
    here = (float(low[0]), float(low[1]), float(high[0]), float(high[1]))
    assert file.crs is not None
    swapped = lonlat((there[1], there[0], there[3], there[2]), file.crs)
    message = (
        f"no parcel of {file.path} comes within {NEAR_M:.0f} m of the region: the parcels lie at "
        f"{in_words(lonlat(there, file.crs), there)}, the region at {in_words(here, here)}"
    )
    if np.isfinite(swapped).all() and shapely.intersects(shapely.box(*swapped), shapely.box(*here)):
        return f"{message}; with x and y swapped they would meet: write the file with longitude (easting) first"
    return f"{message}; check the region's place and the parcels' CRS ({file.crs.name})"


def lonlat(box: Box, crs: CRS) -> Box:
    """A box of `crs` in degrees; infinite where the CRS knows no such place."""
    transformer = transformer_between(crs, 4326)
    west, south, east, north = transformer.transform_bounds(*box, densify_pts=21)
    return west, south, east, north


def in_words(degrees: Box, native: Box) -> str:
    """A box for a sentence: in degrees, or as it is where that is no place on earth."""
    west, south, east, north = degrees
    if not np.isfinite(degrees).all() or not (-180 <= west <= 180 and -90 <= south <= north <= 90):
        west, south, east, north = native
        return f"x {west:.2f} to {east:.2f}, y {south:.2f} to {north:.2f}, which is no place on earth"
    return f"longitude {west:.4f} to {east:.4f}, latitude {south:.4f} to {north:.4f}"
