"""A catalogue of small COGs whose every pixel value says where it lies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.transform import Affine, from_origin
from rasterio.warp import transform_bounds

LEFT, TOP, EPSG = 600_000, 4_900_020, 32631
SIDE_M = 3600
RESOLUTIONS = {"B02": 10, "B04": 10, "B05": 20, "B09": 60, "SCL": 20}


def pixels(band: str, resolution_m: int) -> NDArray[np.uint16]:
    """1 + column + 1000 x row in source pixels, plus 100 a band, so that no two neighbours are alike."""
    side = SIDE_M // resolution_m
    rows, columns = np.mgrid[:side, :side]
    if band == "SCL":
        return (4 + (rows + columns) % 3).astype(np.uint16)
    return (1 + columns % 50 + 50 * (rows % 20) + 100 * int(band[1:])).astype(np.uint16)


def write_file(
    path: Path,
    dn: NDArray[Any],
    resolution_m: float,
    *,
    left: float = LEFT,
    top: float = TOP,
    epsg: int = EPSG,
    transform: Affine | None = None,
    **options: Any,
) -> None:
    profile = {
        "driver": "COG",
        "width": dn.shape[1],
        "height": dn.shape[0],
        "count": 1,
        "dtype": dn.dtype.name,
        "crs": f"EPSG:{epsg}",
        "transform": transform or from_origin(left, top, resolution_m, resolution_m),
        "nodata": 0,
        "compress": "deflate",
        "blocksize": 128,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(path, "w", **{**profile, **options}) as file:
        file.write(dn, 1)


def item(identifier: str = "S2A_31TEJ_20230813", **properties: Any) -> dict[str, Any]:
    bbox = transform_bounds(f"EPSG:{EPSG}", "EPSG:4326", LEFT, TOP - SIDE_M, LEFT + SIDE_M, TOP)
    west, south, east, north = bbox
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": identifier,
        "collection": "sentinel-2-l2a",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": list(bbox),
        "properties": {
            "datetime": "2023-08-13T10:40:21Z",
            "platform": "Sentinel-2A",
            "eo:cloud_cover": 12.5,
            "proj:epsg": EPSG,
            "grid:code": "MGRS-31TEJ",
            "s2:processing_baseline": "05.09",
            "s2:datastrip_id": "S2A_OPER_MSI_L2A_DS_2APS_20230813T150000_S20230813T104512_N05.09",
            "sat:relative_orbit": 8,
            **properties,
        },
        "links": [],
        "assets": {band: {"href": f"./{band}.tif", "type": "image/tiff"} for band in RESOLUTIONS},
    }


def write_json(path: Path, document: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
    return path


def catalogue(*links: tuple[str, str], kind: str = "Catalog") -> dict[str, Any]:
    return {
        "type": kind,
        "id": "tiny",
        "stac_version": "1.0.0",
        "description": "tiny",
        "links": [{"rel": rel, "href": href} for rel, href in links],
    }


def write_archive(folder: Path) -> Path:
    """catalog.json -> collection.json -> one item with five bands."""
    write_json(folder / "catalog.json", catalogue(("child", "./s2/collection.json"), ("root", "./catalog.json")))
    write_json(folder / "s2/collection.json", catalogue(("item", "one/item.json"), ("parent", "../catalog.json")))
    write_json(folder / "s2/one/item.json", item())
    for band, resolution_m in RESOLUTIONS.items():
        dn = pixels(band, resolution_m)
        write_file(
            folder / f"s2/one/{band}.tif",
            dn.astype(np.uint8) if band == "SCL" else dn,
            resolution_m,
            overview_resampling="nearest",
        )
    return folder / "catalog.json"
