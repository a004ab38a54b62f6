"""Georeference of Zarr nodes: the `proj:` and `spatial:` conventions and CF, in one place since both may still change.

Zarr conventions (pilot, v0.1): https://github.com/zarr-conventions. Their attributes on a group are inherited by its
direct child arrays only, so that they are written on the group and on every array. Their names end with a colon, as
rioxarray looks for them, though v0.1 has them without: what tells a convention is its UUID. CF: conventions 1.12,
section 5.6.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["cf_grid_mapping", "georeference"]

_PROJ = {
    "uuid": "f17cb550-5864-4468-aeb7-f3180cfb622f",
    "schema_url": "https://raw.githubusercontent.com/zarr-conventions/proj/refs/tags/v0.1/schema.json",
    "spec_url": "https://github.com/zarr-conventions/proj/blob/v0.1/README.md",
    "name": "proj:",
    "description": "Coordinate reference system information for geospatial data",
}
_SPATIAL = {
    "uuid": "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4",
    "schema_url": "https://raw.githubusercontent.com/zarr-conventions/spatial/refs/tags/v0.1/schema.json",
    "spec_url": "https://github.com/zarr-conventions/spatial/blob/v0.1/README.md",
    "name": "spatial:",
    "description": "Spatial coordinate information",
}


def georeference(epsg: int, transform: Sequence[float], shape: tuple[int, int]) -> dict[str, Any]:
    """Attributes of a node whose last two dimensions are y and x.

    `transform` is the affine [a, b, c, d, e, f] of pixel corners, `shape` is (height, width) in pixels.
    """
    a, _, left, _, e, top = transform
    height, width = shape
    return {
        "zarr_conventions": [_PROJ, _SPATIAL],
        "proj:code": f"EPSG:{epsg}",
        "spatial:dimensions": ["y", "x"],
        "spatial:shape": [height, width],
        "spatial:transform": [float(value) for value in transform],
        "spatial:bbox": [float(left), float(top + e * height), float(left + a * width), float(top)],
        "spatial:registration": "pixel",
    }


def cf_grid_mapping(crs_cf: dict[str, Any], transform: Sequence[float]) -> dict[str, Any]:
    """Attributes of the scalar `spatial_ref`: `crs_cf` as pyproj writes it, and GDAL's GeoTransform of corners."""
    a, b, c, d, e, f = transform
    wkt = crs_cf["crs_wkt"]
    return {**crs_cf, "spatial_ref": wkt, "GeoTransform": " ".join(f"{value:.17g}" for value in (c, a, b, f, d, e))}
