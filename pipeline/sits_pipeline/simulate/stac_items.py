"""The static STAC catalogue of a simulated archive, in the manner of Earth Search's collection sentinel-2-l2a."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.warp import transform
from shapely.geometry.base import BaseGeometry

from sits_catalog.region import Season
from sits_catalog.sentinel2 import BANDS, Scl
from sits_pipeline.simulate.schedule import Pass, Product
from sits_pipeline.values import epsg_of

__all__ = [
    "ASSETS",
    "COLLECTION",
    "NOTICE",
    "catalog_json",
    "collection_json",
    "item_json",
    "product_uri",
    "scl_shares",
    "to_lonlat",
]

COLLECTION = "sentinel-2-l2a"
NOTICE = "Simulated, not observed: every pixel and every parcel is made up by sits_pipeline.simulate."
ASSETS: Mapping[str, str] = {
    "B01": "coastal", "B02": "blue", "B03": "green", "B04": "red", "B05": "rededge1", "B06": "rededge2",
    "B07": "rededge3", "B08": "nir", "B8A": "nir08", "B09": "nir09", "B11": "swir16", "B12": "swir22", "SCL": "scl",
}  # fmt: skip
"""Band to Earth Search's asset key."""

_COG = "image/tiff; application=geotiff; profile=cloud-optimized"
_EXTENSIONS = tuple(
    f"https://stac-extensions.github.io/{name}/schema.json"
    for name in ("eo/v1.1.0", "grid/v1.1.0", "projection/v1.1.0", "raster/v1.1.0", "sat/v1.0.0", "view/v1.0.0")
)
_PERCENTAGES = {
    "saturated_defective_pixel": Scl.SATURATED_OR_DEFECTIVE,
    "dark_features": Scl.DARK_AREA,
    "cloud_shadow": Scl.CLOUD_SHADOW,
    "vegetation": Scl.VEGETATION,
    "not_vegetated": Scl.NOT_VEGETATED,
    "water": Scl.WATER,
    "unclassified": Scl.UNCLASSIFIED,
    "medium_proba_clouds": Scl.CLOUD_MEDIUM,
    "high_proba_clouds": Scl.CLOUD_HIGH,
    "thin_cirrus": Scl.THIN_CIRRUS,
    "snow_ice": Scl.SNOW_OR_ICE,
}
_CLOUDS = (Scl.CLOUD_MEDIUM, Scl.CLOUD_HIGH, Scl.THIN_CIRRUS)


def scl_shares(scl: NDArray[np.uint8]) -> dict[str, float]:
    """Percentages of the classes among the pixels with data, of no data among all, and of cloud."""
    counts = np.bincount(scl.ravel(), minlength=12)
    data = max(int(counts[1:].sum()), 1)
    shares = {f"s2:{name}_percentage": round(100 * int(counts[code]) / data, 6) for name, code in _PERCENTAGES.items()}
    return {
        "eo:cloud_cover": round(100 * sum(int(counts[code]) for code in _CLOUDS) / data, 6),
        "s2:nodata_pixel_percentage": round(100 * int(counts[0]) / scl.size, 6),
        **shares,
    }


def product_uri(one: Pass, product: Product) -> str:
    """ESA's name of the product."""
    baseline = product.baseline.replace(".", "")
    return (
        f"{one.platform}_MSIL2A_{one.sensing_start:%Y%m%dT%H%M%S}_N{baseline}_R{one.orbit:03d}_T{product.tile.code}_"
        f"{product.generated:%Y%m%dT%H%M%S}.SAFE"
    )


def datatake_id(one: Pass, product: Product) -> str:
    """ESA's name of the datatake."""
    return f"G{one.platform}_{one.sensing_start:%Y%m%dT%H%M%S}_{one.absolute_orbit:06d}_N{product.baseline}"


def datastrip_id(one: Pass, product: Product) -> str:
    """ESA's name of the datastrip: another processing keeps only the part `_S<start>_`."""
    return (
        f"{one.platform}_OPER_MSI_L2A_DS_SIMU_{product.generated:%Y%m%dT%H%M%S}_"
        f"S{product.strip_start:%Y%m%dT%H%M%S}_N{product.baseline}"
    )


def granule_id(one: Pass, product: Product) -> str:
    """ESA's name of the granule."""
    return (
        f"{one.platform}_OPER_MSI_L2A_TL_SIMU_{product.generated:%Y%m%dT%H%M%S}_A{one.absolute_orbit:06d}_"
        f"T{product.tile.code}_N{product.baseline}"
    )


def to_lonlat(geometry: BaseGeometry, crs: object) -> BaseGeometry:
    """A polygon of the canvas' CRS with its edges densified to 1 km, in degrees rounded to 0.1 m."""
    dense = shapely.segmentize(geometry, 1000.0)

    def move(points: NDArray[np.float64]) -> NDArray[np.float64]:
        longitudes, latitudes = transform(str(crs), "EPSG:4326", points[:, 0], points[:, 1])
        return np.round(np.stack([longitudes, latitudes], axis=1), 6)

    return shapely.transform(dense, move)


def item_json(
    one: Pass, product: Product, *, canvas: GeoBox, bands: Sequence[str], scl: NDArray[np.uint8],
    footprint: BaseGeometry, sun: tuple[float, float],
) -> dict[str, Any]:  # fmt: skip
    """The STAC item of a product whose COGs lie beside it; `footprint` in lon/lat, `sun` azimuth and elevation."""
    tile, epsg = product.tile, epsg_of(canvas)
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": list(_EXTENSIONS),
        "id": product.item_id,
        "collection": COLLECTION,
        "geometry": json.loads(shapely.to_geojson(footprint)),
        "bbox": [float(value) for value in footprint.bounds],
        "properties": {
            "title": f"Simulated Sentinel-2 scene, tile {tile.code}, {product.sensed:%Y-%m-%d}",
            "sits:simulated": True,
            "simulated": True,
            "datetime": _iso(product.sensed),
            "created": _iso(product.generated),
            "updated": _iso(product.generated),
            "platform": {"S2A": "sentinel-2a", "S2B": "sentinel-2b"}[one.platform],
            "constellation": "sentinel-2",
            "instruments": ["msi"],
            "proj:epsg": epsg,
            "proj:code": f"EPSG:{epsg}",
            "grid:code": f"MGRS-{tile.code}",
            "mgrs:utm_zone": int(tile.code[:2]),
            "mgrs:latitude_band": tile.code[2],
            "mgrs:grid_square": tile.code[3:],
            "sat:relative_orbit": one.orbit,
            "sat:orbit_state": "descending",
            "view:sun_azimuth": round(sun[0], 4),
            "view:sun_elevation": round(sun[1], 4),
            **scl_shares(scl),
            "s2:product_type": "S2MSI2A",
            "s2:processing_baseline": product.baseline,
            "s2:product_uri": product_uri(one, product),
            "s2:generation_time": _iso(product.generated),
            "s2:datatake_id": datatake_id(one, product),
            "s2:datatake_type": "INS-NOBS",
            "s2:datastrip_id": datastrip_id(one, product),
            "s2:granule_id": granule_id(one, product),
            "s2:sequence": product.item_id.split("_")[3],
            "earthsearch:boa_offset_applied": product.says_applied,
        },
        "assets": {ASSETS[band]: _asset(band, product, canvas) for band in (*bands, "SCL")},
        "links": [
            {"rel": "root", "href": "../../catalog.json", "type": "application/json"},
            {"rel": "parent", "href": "../collection.json", "type": "application/json"},
            {"rel": "collection", "href": "../collection.json", "type": "application/json"},
        ],
    }


def _asset(band: str, product: Product, canvas: GeoBox) -> dict[str, Any]:
    resolution = 20 if band == "SCL" else BANDS[band].resolution_m
    grid = product.tile.geobox(canvas, resolution)
    asset: dict[str, Any] = {
        "href": f"./{band}.tif",
        "type": _COG,
        "title": f"{band}, {resolution} m, simulated",
        "roles": ["data"] if band == "SCL" else ["data", "reflectance"],
        "gsd": resolution,
        "proj:shape": list(grid.shape),
        "proj:transform": [int(value) for value in tuple(grid.affine)[:6]],
    }
    raster: dict[str, Any] = {"nodata": 0, "data_type": "uint16", "spatial_resolution": resolution}
    if band == "SCL":
        asset["raster:bands"] = [raster | {"data_type": "uint8"}]
        return asset
    key = ASSETS[band]
    asset["eo:bands"] = [{"name": key, "center_wavelength": round(BANDS[band].centre_nm / 1000, 4)}]
    # As Earth Search does: by the baseline alone, whether or not the pixels still hold the offset.
    asset["raster:bands"] = [raster | {"scale": 0.0001, "offset": -0.1 if product.has_offset else 0}]
    return asset


def collection_json(
    items: Sequence[Mapping[str, Any]], season: Season, *, title: str, bands: Sequence[str]
) -> dict[str, Any]:
    """The collection with a link to each item."""
    boxes = np.array([item["bbox"] for item in items])
    low, high = boxes.min(axis=0), boxes.max(axis=0)
    return {
        "type": "Collection",
        "stac_version": "1.0.0",
        "stac_extensions": [],
        "id": COLLECTION,
        "title": f"Simulated Sentinel-2 Level-2A: {title}",
        "description": f"{NOTICE} Assets and properties follow the collection sentinel-2-l2a of Earth Search.",
        "license": "Apache-2.0",
        "keywords": ["simulated", "sentinel-2"],
        "sits:simulated": True,
        "extent": {
            "spatial": {"bbox": [[float(low[0]), float(low[1]), float(high[2]), float(high[3])]]},
            "temporal": {"interval": [[f"{season.start}T00:00:00Z", f"{season.end}T23:59:59Z"]]},
        },
        "summaries": {"constellation": ["sentinel-2"], "sits:bands": [*bands, "SCL"]},
        "links": [
            {"rel": "root", "href": "../catalog.json", "type": "application/json"},
            {"rel": "parent", "href": "../catalog.json", "type": "application/json"},
            *({"rel": "item", "href": f"./{i['id']}/{i['id']}.json", "type": "application/geo+json"} for i in items),
        ],
    }


def catalog_json(title: str) -> dict[str, Any]:
    """The catalogue, whose only child is the collection."""
    return {
        "type": "Catalog",
        "stac_version": "1.0.0",
        "id": "simulated-archive",
        "title": f"Simulated archive: {title}",
        "description": NOTICE,
        "sits:simulated": True,
        "links": [
            {"rel": "root", "href": "./catalog.json", "type": "application/json"},
            {"rel": "child", "href": f"./{COLLECTION}/collection.json", "type": "application/json"},
        ],
    }


def _iso(time: datetime) -> str:
    return f"{time:%Y-%m-%dT%H:%M:%S}.000000Z"
