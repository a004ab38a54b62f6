"""Items as the Catalog of Copernicus Data Space writes them, and geoboxes in their tile."""

from __future__ import annotations

import json
from typing import Any

import shapely
from affine import Affine
from odc.geo.geobox import GeoBox

from sits_pipeline.plan.lattice import to_lonlat
from sits_pipeline.sources.sentinel_hub.catalog import scene_of
from sits_pipeline.values import Scene

LEFT, TOP = 600_000, 4_900_020


def catalog_item(
    *,
    baseline: str = "0509",
    tile: str = "31TFJ",
    orbit: int = 8,
    time: str = "20230813T104021",
    sensed: str = "2023-08-13T10:45:12.024Z",
    platform: str = "S2A",
    cloud: float = 12.5,
    box: tuple[float, float, float, float] = (LEFT, TOP - 109_800, LEFT + 109_800, TOP),
) -> dict[str, Any]:
    product = f"{platform}_MSIL2A_{time}_N{baseline}_R{orbit:03d}_T{tile}_20230813T151212.SAFE"
    footprint = shapely.MultiPolygon([to_lonlat(shapely.box(*box), 32631)])
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:OGC::CRS84"}}
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": product,
        "collection": "sentinel-2-l2a",
        "geometry": {**json.loads(shapely.to_geojson(footprint)), "crs": crs},
        "bbox": list(footprint.bounds),
        "properties": {
            "datetime": sensed,
            "platform": f"sentinel-2{platform[-1].lower()}",
            "eo:cloud_cover": cloud,
            "proj:epsg": 32631,
        },
        "assets": {"data": {"href": f"s3://EODATA/Sentinel-2/MSI/L2A/2023/08/13/{product}", "title": "s3"}},
        "links": [],
    }


def scene(**changes: Any) -> Scene:
    return scene_of(catalog_item(**changes))


def grid(height: int, width: int, *, row: int = 0, column: int = 0) -> GeoBox:
    """So many 10 m pixels, so far from the tile's upper left corner."""
    return GeoBox((height, width), Affine(10, 0, LEFT + 10 * column, 0, -10, TOP - 10 * row), "EPSG:32631")
