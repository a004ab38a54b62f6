"""Simulated products in the manner of ESA's EOPF: a Zarr group each, with an array a band, and STAC items."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any, Literal

import numpy as np
import rasterio
import shapely
import zarr
from numpy.typing import NDArray

from sits_catalog.region import Season
from sits_catalog.sentinel2 import BANDS
from sits_pipeline.sources import SafeSource
from sits_pipeline.values import Scene

EVERYWHERE = shapely.box(-180, -90, 180, 90)
EVER = Season(start=date(2015, 1, 1), end=date(2030, 12, 31))


def write_products(products: Path, folder: Path, *, zarr_format: Literal[2, 3] = 2, chunk: int = 60) -> Path:
    """Write `<folder>/<product>.zarr` for each .SAFE product and an ItemCollection, whose path is returned.

    `.SAFE` products hold ESA's DN, and so do these. `chunk` is the side of a chunk in pixels of 60 m: chunks cover the
    same ground at all resolutions, as ESA's do.
    """
    features = []
    for scene in SafeSource(products).search(EVERYWHERE, EVER).scenes:
        root = folder / f"{scene.id}.zarr"
        zarr.create_group(root, zarr_format=zarr_format, attributes={"simulated": True})
        for band, path in scene.assets.items():
            with rasterio.open(path) as image:
                write_array(root / array_path(band), image.read(1), image.transform, scene, band, zarr_format, chunk)
        features.append(eopf_item(scene, folder))
    catalogue = folder / "items.json"
    catalogue.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return catalogue


def resolution_of(band: str) -> int:
    return 20 if band == "SCL" else BANDS[band].resolution_m


def array_path(band: str) -> str:
    """Where a band's array lies in a product."""
    if band == "SCL":
        return "conditions/mask/l2a_classification/r20m/scl"
    return f"measurements/reflectance/r{BANDS[band].resolution_m}m/{band.lower()}"


def write_array(
    path: Path, dn: NDArray[Any], transform: Any, scene: Scene, band: str, zarr_format: Literal[2, 3], chunk: int
) -> None:
    """A band's array with its attributes, and the coordinates beside it."""
    resolution = resolution_of(band)
    side = chunk * 60 // resolution
    attributes: dict[str, Any] = {
        "proj:epsg": scene.epsg,
        "proj:shape": list(dn.shape),
        "proj:transform": [float(value) for value in (*transform,)[:9]],
    }
    if band != "SCL":
        offset = scene.declared_offset / 10_000
        decoding = {"scale_factor": 0.0001, "add_offset": offset, "fill_value": 0, "dtype": "<u2"}
        attributes |= {**decoding, "_eopf_attrs": {**decoding, "units": "digital_counts"}}
    create(path, dn, attributes, (side, side), ("y", "x"), zarr_format)
    height, width = dn.shape
    axes = {
        "x": transform.c + transform.a * (np.arange(width) + 0.5),
        "y": transform.f + transform.e * (np.arange(height) + 0.5),
    }
    for name, values in axes.items():
        if not (path.parent / name).exists():
            create(path.parent / name, values.astype(np.int64), {}, values.shape, (name,), zarr_format)


def create(
    path: Path,
    values: NDArray[Any],
    attributes: dict[str, Any],
    chunks: tuple[int, ...],
    names: tuple[str, ...],
    zarr_format: Literal[2, 3],
) -> None:
    """An array, in which chunks of nothing but 0 are left out."""
    naming: dict[str, Any] = {"dimension_names": names} if zarr_format == 3 else {}
    if zarr_format == 2:
        attributes = {**attributes, "_ARRAY_DIMENSIONS": list(names)}
    array = zarr.create_array(
        store=path,
        shape=values.shape,
        dtype=values.dtype,
        chunks=chunks,
        fill_value=0,
        attributes=attributes,
        zarr_format=zarr_format,
        config={"write_empty_chunks": False},
        **naming,
    )
    array[...] = values


def eopf_item(scene: Scene, folder: Path) -> dict[str, Any]:
    """The item of a product as the catalogue of ESA's samples has it: hrefs lead to arrays."""
    assets: dict[str, Any] = {}
    for band in scene.assets:
        href = (folder / f"{scene.id}.zarr" / array_path(band)).relative_to(folder).as_posix()
        assets[f"{band}_{resolution_of(band)}m"] = {
            "href": f"./{href}",
            "type": "application/vnd+zarr",
            "roles": ["data"],
            "gsd": resolution_of(band),
        }
    if "B01" in scene.assets:
        group = f"./{scene.id}.zarr/measurements/reflectance/r60m"
        assets["SR_60m"] = {"href": group, "type": "application/vnd+zarr", "roles": ["dataset"]}
    item = scene.item
    kept = ("datetime", "platform", "constellation", "instruments", "eo:cloud_cover", "proj:code", "grid:code",
            "sat:relative_orbit", "processing:version", "processing:datetime")  # fmt: skip
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": item["stac_extensions"],
        "id": scene.id,
        "collection": "sentinel-2-l2a",
        "geometry": item["geometry"],
        "bbox": item["bbox"],
        "properties": {
            "sits:simulated": True,
            **{key: item["properties"][key] for key in kept if key in item["properties"]},
            "product:type": "S02MSIL2A",
            "eopf:datatake_id": scene.datatake,
            "eopf:datastrip_id": scene.datastrip,
        },
        "links": [],
        "assets": assets,
    }
