"""Where a location's patch lies: its UTM zone, its grid on the zone's 60 m lattice, and its outline in lon/lat."""

from __future__ import annotations

import math

import shapely
from affine import Affine
from odc.geo.geobox import GeoBox

from sits_catalog.cube import LATTICE_M, PIXEL_M, lattice_anchor_y
from sits_catalog.locations import Location
from sits_pipeline.plan.lattice import to_lonlat
from sits_pipeline.transformers import transformer_between
from sits_pipeline.values import epsg_of

__all__ = ["geobox_of", "outline_of", "zone_of"]


def zone_of(lon: float, lat: float) -> int:
    """EPSG code of the UTM zone whose Sentinel-2 tiles cover a point.

    That is the zone of the MGRS, whose strips differ from 6 degrees over south-west Norway (32V reaches west to 3 E)
    and Svalbard (zones 31, 33, 35 and 37 alone): ESA's tiles follow them, DMA TM 8358.1, chapter 3.

    >>> zone_of(5.3, 60.4), zone_of(2.9, 60.4), zone_of(15.6, 78.2), zone_of(2.3, -33.0)
    (32632, 32631, 32633, 32731)
    """
    zone = min(int((lon + 180) // 6) + 1, 60)
    if 56 <= lat < 64 and 3 <= lon < 12:
        zone = 32
    elif lat >= 72 and 0 <= lon < 42:
        zone = 31 if lon < 9 else 33 if lon < 21 else 35 if lon < 33 else 37
    return (32600 if lat >= 0 else 32700) + zone


def geobox_of(location: Location, side_px: int) -> GeoBox:
    """The grid of a patch of `side_px` pixels of 10 m: corners on the 60 m lattice, the point as near to the middle
    as that allows, which is 30 m or less in x and in y."""
    epsg = zone_of(location.lon, location.lat)
    x, y = transformer_between(4326, epsg).transform(location.lon, location.lat)
    half, anchor = side_px * PIXEL_M / 2, lattice_anchor_y(epsg)
    left = _nearest(x - half, 0)
    top = _nearest(y + half, anchor)
    return GeoBox((side_px, side_px), Affine(PIXEL_M, 0, left, 0, -PIXEL_M, top), f"EPSG:{epsg}")


def _nearest(value: float, anchor: int) -> int:
    """The number nearest to `value` that is `anchor` modulo 60; halves go up."""
    return math.floor((value - anchor) / LATTICE_M + 0.5) * LATTICE_M + anchor


def outline_of(geobox: GeoBox) -> shapely.Geometry:
    """A patch in lon/lat, edges densified; two polygons where it crosses the antimeridian."""
    outline = to_lonlat(shapely.box(*geobox.boundingbox.bbox), epsg_of(geobox))
    west, _, east, _ = shapely.bounds(outline)
    if east - west < 180:
        return outline
    # Longitudes jump from 180 to -180: drawn on from 0 to 360, cut there and put back.
    onwards = shapely.transform(outline, lambda points: points + [[360.0, 0.0]] * (points[:, :1] < 0))
    eastern = shapely.intersection(onwards, shapely.box(0, -90, 180, 90))
    western = shapely.intersection(onwards, shapely.box(180, -90, 360, 90))
    western = shapely.transform(western, lambda points: points - [360.0, 0.0])
    return shapely.MultiPolygon([part for half in (western, eastern) for part in shapely.get_parts(half)])
