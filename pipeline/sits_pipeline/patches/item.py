"""A location set as a STAC 1.1.0 Item."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta

import shapely

from sits_catalog.cube import ARRAYS, NO_DAY, PIXEL_M
from sits_catalog.stac import EXTENSIONS, StoredFile, asset_of, band_of, with_file
from sits_pipeline.patches.plan import PatchPlan
from sits_pipeline.store.patches import IMAGES
from sits_pipeline.values import JsonObject

__all__ = ["patches_item"]

_USED = ("datacube", "eo", "file", "processing", "raster", "zarr")
_ZARR = "application/vnd.zarr; version=3"
_PARQUET = "application/vnd.apache.parquet"
_REPEATED = ("version", "profile", "complete", "config_sha256", "simulated")
_EPOCH = date(1970, 1, 1)


def patches_item(plan: PatchPlan, attributes: JsonObject, files: Mapping[str, StoredFile]) -> JsonObject:
    """The item of a dataset, its assets relative to `item.json`; `attributes` is `sits_cube`.

    It has no `proj:` properties: each patch has its own CRS, in `patches.parquet`. Its geometry is the box of all
    patches.
    """
    west, south, east, north = (
        round(float(value), 7) for value in shapely.total_bounds([chosen.spot.outline for chosen in plan.chosen])
    )
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [EXTENSIONS[name] for name in _USED],
        "id": plan.wanted.id,
        "geometry": json.loads(shapely.to_geojson(shapely.box(west, south, east, north))),
        "bbox": [west, south, east, north],
        "properties": _properties(plan, attributes),
        "links": [{"rel": "store", "href": "./cube.zarr", "type": _ZARR, "title": "Zarr store of the patches"}],
        "assets": {name: with_file(asset, files) for name, asset in _assets(plan).items()},
    }


def _properties(plan: PatchPlan, attributes: JsonObject) -> JsonObject:
    wanted, (name, _, version) = plan.wanted, str(attributes["software"]).partition(" ")
    what = "SIMULATED Sentinel-2" if attributes.get("simulated") else "Sentinel-2 Level-2A"
    start, end = _times(plan)
    return {
        "title": wanted.title or wanted.id,
        "description": (
            f"{what} surface reflectance at 10 m: {plan.n_patches} patches of {wanted.rule.side_px} px, "
            f"{wanted.rule.dates} dates about {wanted.rule.weeks} weeks apart, {len(wanted.imagery.bands)} bands."
        ),
        "datetime": None,
        "start_datetime": start,
        "end_datetime": end,
        "created": attributes["created"],
        "constellation": "sentinel-2",
        "instruments": ["msi"],
        "gsd": PIXEL_M,
        "cube:dimensions": _dimensions(plan),
        "cube:variables": _variables(),
        "processing:software": {name: version or "unknown"},
        "processing:lineage": (
            "Of each location and window the least cloudy acquisition that covers the patch; BOA offset audited on the "
            "pixels of each item and removed once; 20 m and 60 m bands brought to 10 m by "
            f"{wanted.imagery.resampling}; one item a pixel and date, by cloud cover, baseline and id; nothing warped."
        ),
        **{f"sits_cube:{key}": attributes[key] for key in _REPEATED if key in attributes},
    }


def _times(plan: PatchPlan) -> tuple[str, str]:
    days = plan.days()
    days = days[days != NO_DAY]
    moments = [
        datetime.combine(_EPOCH + timedelta(days=int(day)), datetime.min.time(), UTC)
        for day in (days.min(), days.max())
    ]
    first, last = moments[0], moments[1] + timedelta(hours=23, minutes=59, seconds=59)
    return first.isoformat().replace("+00:00", "Z"), last.isoformat().replace("+00:00", "Z")


def _dimensions(plan: PatchPlan) -> JsonObject:
    rule = plan.wanted.rule

    def counted(size: int, description: str) -> JsonObject:
        return {"type": "index", "description": description, "extent": [0, size - 1], "step": 1}

    return {
        "patch": counted(plan.n_patches, "row of patches.parquet"),
        "time": counted(rule.dates, "date of a patch; its day is in the array `day`"),
        "band": {"type": "bands", "values": list(plan.wanted.imagery.bands)},
        "y": counted(rule.side_px, "row of a patch, from its north edge"),
        "x": counted(rule.side_px, "column of a patch, from its west edge"),
    }


def _variables() -> JsonObject:
    variables = {
        name: {
            "dimensions": ["patch", *ARRAYS[name].dims],
            "type": "data" if name == "reflectance" else "auxiliary",
            "description": ARRAYS[name].meaning,
            "data_type": ARRAYS[name].dtype,
            "nodata": ARRAYS[name].fill,
        }
        for name in IMAGES
    }
    variables["reflectance"]["unit"] = "1"
    variables["day"] = {
        "dimensions": ["patch", "time"],
        "type": "auxiliary",
        "description": "solar day of the pass, days since 1970-01-01",
        "data_type": "int32",
        "nodata": NO_DAY,
    }
    return variables


def _assets(plan: PatchPlan) -> dict[str, JsonObject]:
    cube = {
        **asset_of("cube.zarr", _ZARR, "Time series of all patches", "data"),
        "description": "Zarr v3 group with sharded arrays and a leading dimension `patch`.",
        "zarr:zarr_format": 3,
        "zarr:node_type": "group",
        "zarr:consolidated": True,
        "bands": [band_of(name) for name in plan.wanted.imagery.bands],
    }
    return {
        "cube": cube,
        "patches": asset_of("patches.parquet", _PARQUET, "Patches, one row each (GeoParquet)", "index", "metadata"),
        "sources": asset_of("sources.parquet", _PARQUET, "Source items (stac-geoparquet)", "source", "metadata"),
        "journal": asset_of("journal.jsonl", "application/jsonl", "What each shard read and wrote", "metadata"),
        "report": asset_of("report.html", "text/html", "Report for people", "overview", "metadata"),
        "config": asset_of("config.yaml", "application/yaml", "Resolved configuration", "metadata"),
    }
