"""Simulated .SAFE products as providers serve them: COGs and items of Planetary Computer, JP2 and items of CDSE."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import rasterio
from rasterio.shutil import copy
from stac_geoparquet.arrow import parse_stac_items_to_arrow, to_parquet
from tests.services.eopf_product import EVER, EVERYWHERE, resolution_of

from sits_pipeline.sources import SafeSource
from sits_pipeline.values import Scene

Item = dict[str, Any]


def scenes_in(products: Path) -> tuple[Scene, ...]:
    """The scenes of a folder of .SAFE products, which hold ESA's DN."""
    return SafeSource(products).search(EVERYWHERE, EVER).scenes


def write_cogs(products: Path, folder: Path) -> None:
    """COGs with ESA's DN, `<folder>/<product>/<band>.tif`."""
    for scene in scenes_in(products):
        (folder / scene.id).mkdir(parents=True)
        for band, path in scene.assets.items():
            # As on Azure: tiled, with overviews, no nodata tag that would differ by band.
            options = {"COMPRESS": "DEFLATE", "BLOCKSIZE": "256", "OVERVIEW_RESAMPLING": "NEAREST"}
            with rasterio.Env(GDAL_PAM_ENABLED="NO"), rasterio.open(path) as image:
                copy(image, folder / scene.id / f"{band}.tif", driver="COG", **options)


def planetary_items(scenes: Sequence[Scene], root: str) -> list[Item]:
    """Items in the manner of Planetary Computer, whose COGs lie below `root`."""
    items = []
    for scene in scenes:
        product = scene.id.split("_")
        properties = {
            "proj:epsg": scene.epsg,
            "s2:mgrs_tile": scene.mgrs_tile,
            "s2:processing_baseline": scene.baseline,
            "s2:datatake_id": scene.datatake,
            "s2:datastrip_id": scene.datastrip,
            "s2:product_uri": f"{scene.id}.SAFE",
            "s2:product_type": "S2MSI2A",
            "s2:generation_time": stated_time(scene, "processing:datetime"),
            "platform": f"Sentinel-{product[0][1:]}",
            "constellation": "Sentinel 2",
        }
        assets = {
            band: {
                "href": f"{root}/{scene.id}/{band}.tif",
                "type": "image/tiff",
                "roles": ["data"],
                **lies(scene, band),
            }
            for band in scene.assets
        }
        # Their ids leave the baseline out.
        identifier = "_".join(part for part in product if not part.startswith("N0"))
        items.append(item_of(scene, identifier, properties, assets))
    return items


def cdse_items(scenes: Sequence[Scene], stored: Callable[[Scene, str], str], web: str) -> list[Item]:
    """Items in the manner of Copernicus Data Space: s3 addresses of JPEG 2000 files, and https ones beside them."""
    items = []
    for scene in scenes:
        properties = {
            "proj:code": f"EPSG:{scene.epsg}",
            "grid:code": f"MGRS-{scene.mgrs_tile}",
            "processing:version": scene.baseline,
            "processing:datetime": stated_time(scene, "processing:datetime"),
            "product:type": "S2MSI2A",
            "platform": scene.platform,
            "constellation": "sentinel-2",
            "s2:datatake_id": scene.datatake,
            "s2:datastrip_id": scene.datastrip,
        }
        assets = {
            f"{band}_{resolution_of(band)}m": {
                "href": f"s3://{stored(scene, band)}",
                "type": "image/jp2",
                "roles": ["data"],
                "alternate": {"https": {"href": f"{web}/{stored(scene, band)}"}},
                **lies(scene, band),
            }
            for band in scene.assets
        }
        items.append(item_of(scene, scene.id, properties, assets))
    return items


def stated_time(scene: Scene, name: str) -> str:
    return str(scene.item["properties"][name])


def lies(scene: Scene, band: str) -> Item:
    with rasterio.open(scene.assets[band]) as image:
        return {"proj:shape": list(image.shape), "proj:transform": [float(value) for value in image.transform[:6]]}


def item_of(scene: Scene, identifier: str, properties: Item, assets: Item) -> Item:
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [],
        "id": identifier,
        "collection": "sentinel-2-l2a",
        "geometry": scene.item["geometry"],
        "bbox": scene.item["bbox"],
        "properties": {
            "sits:simulated": True,
            "datetime": stated_time(scene, "datetime"),
            "eo:cloud_cover": scene.cloud_cover,
            "sat:relative_orbit": scene.orbit,
            **properties,
        },
        "links": [],
        "assets": assets,
    }


def write_table(items: Sequence[Item], path: Path) -> Path:
    """The items as stac-geoparquet."""
    to_parquet(parse_stac_items_to_arrow(list(items)), path)
    return path
