"""The ground a region covers, from its box, its file or its parcels."""

from __future__ import annotations

import math
from pathlib import Path

import shapely
from pyproj import Transformer

from sits_catalog.region import Region

__all__ = ["region_area"]


def region_area(region: Region) -> shapely.Geometry:
    """The region's area, a valid polygon in lon/lat.

    Raises FileNotFoundError and ValueError with a sentence that says what to do.
    """
    place = region.place
    if place.bbox is not None:
        return shapely.box(*place.bbox)
    if place.file is not None:
        return _area_of_file(region.resolve(place.file))
    if region.parcels is None or region.parcels.path is None:
        raise ValueError("place says `around: parcels`, but the region has no parcels file; add parcels: {path: ...}")
    return _box_around(region.resolve(region.parcels.path), region.parcels.layer, region.parcels.crs, place.margin_m)


def _area_of_file(path: str) -> shapely.Geometry:
    import geopandas

    _must_exist(path)
    frame = geopandas.read_parquet(path) if path.endswith(".parquet") else geopandas.read_file(path)
    if frame.crs is None:
        raise ValueError(f"{path} states no coordinate reference system; write one into the file")
    dense = frame.geometry.segmentize(0.01 if frame.crs.is_geographic else 500.0)
    area = shapely.union_all(shapely.make_valid(dense.to_crs(4326).to_numpy()))
    polygons = [part for part in shapely.get_parts(area) if part.geom_type in ("Polygon", "MultiPolygon")]
    if not polygons:
        raise ValueError(f"{path} holds no polygon; a region's place is one or more polygons")
    return _checked(shapely.union_all(polygons), path)


def _box_around(path: str, layer: str | None, crs: str | None, margin_m: float) -> shapely.Geometry:
    """The bounding box of a file's features in their own CRS, grown by the margin, in lon/lat."""
    import geopandas
    import pyogrio

    _must_exist(path)
    if path.endswith(".parquet"):
        frame = geopandas.read_parquet(path)
        stated, bounds = frame.crs, tuple(frame.total_bounds)
    else:
        info = pyogrio.read_info(path, layer=layer, force_total_bounds=True)
        stated, bounds = info["crs"], info["total_bounds"]
    if stated is None and crs is None:
        raise ValueError(f"{path} states no coordinate reference system; add parcels: {{crs: EPSG:...}}")
    box = shapely.box(*bounds)
    transformer = Transformer.from_crs(stated or crs, 4326, always_xy=True)
    step = max(bounds[2] - bounds[0], bounds[3] - bounds[1]) / 64
    lonlat = shapely.transform(shapely.segmentize(box, step), transformer.transform, interleaved=False)
    west, south, east, north = shapely.bounds(lonlat)
    margin_y = margin_m / 111_000.0
    margin_x = margin_y / max(0.05, math.cos(math.radians((south + north) / 2)))
    return _checked(shapely.box(west - margin_x, south - margin_y, east + margin_x, north + margin_y), path)


def _must_exist(path: str) -> None:
    if "://" not in path and not path.startswith("/vsi") and not Path(path).exists():
        raise FileNotFoundError(f"no file {path}; the region's place names it")


def _checked(area: shapely.Geometry, path: str) -> shapely.Geometry:
    west, south, east, north = shapely.bounds(area)
    if not (-180 <= west < east <= 180 and -90 <= south < north <= 90):
        raise ValueError(
            f"the polygons of {path} reach from {west:.3f}, {south:.3f} to {east:.3f}, {north:.3f}: no longitudes and "
            "latitudes; check the file's coordinate reference system and the order of its axes"
        )
    if east - west > 180:
        raise ValueError(
            f"the polygons of {path} cross the antimeridian, which is not supported: build the two halves as two regions"
        )
    return area
