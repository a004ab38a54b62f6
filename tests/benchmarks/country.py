"""A made-up country for dry runs: orbits and tiles that are real, and scenes, parcels and counts that are simulated."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, date, datetime, time
from functools import cache
from typing import Any

import numpy as np
import shapely

from sits_catalog.orbits import ORBITS, overflights, swath
from sits_catalog.region import Region, Season
from sits_catalog.sentinel2 import BANDS
from sits_catalog.taxonomy import CropClass, Taxonomy
from sits_pipeline.parcels import ParcelTable
from sits_pipeline.plan import Zone, ZonePlan, config_sha256
from sits_pipeline.plan.lattice import project, snap, to_lonlat
from sits_pipeline.plan.mgrs_tiles import MgrsTile, tiles_that_meet
from sits_pipeline.simulate.stac_items import ASSETS, COLLECTION
from sits_pipeline.sources.items import scene_from_item
from sits_pipeline.splits import plan_splits
from sits_pipeline.steps.group import group_scenes
from sits_pipeline.values import JsonObject, Parcels, Verdict

__all__ = ["EPSG", "SIDE", "make_items", "make_parcels", "make_plan", "make_zone"]

EPSG = 32631
SIDE = 512
"""Side of a cell, pixels."""
COLUMNS = 100
"""Cells in a row: the width of a zone's strip near 43 degrees north."""
_TOP_M = 5_300_040
_CLASSES = 12
_VERDICT = Verdict(
    declared=-1000, audited=0, applied=0, medians={"B02": 300.0, "B04": 400.0}, n_pixels=9000, refused=False, reason=""
)


def make_zone(n_cells: int, *, name: str) -> Zone:
    """A zone of 100 columns of cells and as many rows as that takes, from 47.8 degrees north southwards."""
    rows = -(-n_cells // COLUMNS)
    width, height = (side * SIDE // 6 * 60 for side in (COLUMNS, rows))
    left = 500_040 - width // 120 * 60
    area = shapely.box(left, _TOP_M - height, left + width, _TOP_M)
    return Zone(name=name, geobox=snap(area, EPSG), area=area, clip_to_strip=True)


def make_items(zone: Zone, season: Season) -> Iterator[JsonObject]:
    """An item in the manner of Earth Search for each tile under each pass over a zone; simulated but for where it lies.

    Orbits, days and tiles are those of `sits-build --plan --offline`; clouds and addresses are made up.
    """
    tiles = tiles_that_meet(zone.ground, zone.epsg)
    west, south, east, north = shapely.bounds(to_lonlat(zone.ground, zone.epsg))
    for orbit in range(1, ORBITS + 1):
        seen = shapely.Polygon(swath(orbit, south=south, north=north))
        near = shapely.intersection(seen, shapely.box(west - 2, south - 2, east + 2, north + 2))
        if shapely.is_empty(near):
            continue
        below = project(near, zone.epsg)
        shared = [(tile, shapely.intersection(tile.square, below)) for tile in tiles]
        footprints = [(tile, to_lonlat(part, zone.epsg)) for tile, part in shared if shapely.area(part) > 1e6]
        middle = {"longitude": (west + east) / 2, "latitude": (south + north) / 2}
        for flight in overflights(orbit, season, **middle):
            for number, (tile, footprint) in enumerate(footprints):
                yield _item(flight.day, flight.satellite, orbit, number, tile, footprint)


def _item(
    day: date, satellite: str, orbit: int, number: int, tile: MgrsTile, footprint: shapely.Geometry
) -> JsonObject:
    sensed = datetime.combine(day, time(10, 40, number // 60, number % 60 * 1000), UTC)
    name = f"{satellite}_{tile.code}_{day:%Y%m%d}_0_L2A"
    folder = (
        f"https://sentinel-cogs.example.org/sentinel-s2-l2a-cogs/{tile.code[:2]}/{tile.code[2]}/{tile.code[3:]}/"
        f"{day.year}/{day.month}/{name}"
    )
    start = f"{sensed:%Y%m%dT%H%M%S}"
    stamp = f"{sensed:%Y-%m-%dT%H:%M:%S}.{sensed.microsecond // 1000:03d}Z"
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [f"https://stac-extensions.github.io/{part}/v1.0.0/schema.json" for part in _EXTENSIONS],
        "id": name,
        "collection": COLLECTION,
        "geometry": _geojson(footprint),
        "bbox": [float(value) for value in shapely.bounds(footprint)],
        "properties": {
            "simulated": True,
            "datetime": stamp,
            "created": stamp,
            "updated": stamp,
            "platform": f"sentinel-2{satellite[-1].lower()}",
            "constellation": "sentinel-2",
            "instruments": ["msi"],
            "proj:epsg": tile.epsg,
            "proj:code": f"EPSG:{tile.epsg}",
            "grid:code": f"MGRS-{tile.code}",
            "eo:cloud_cover": round(50 + 50 * math.sin(day.toordinal() + number), 6),
            "sat:relative_orbit": orbit,
            **{f"s2:{part}_percentage": 7.123456 for part in _SHARES},
            "s2:product_type": "S2MSI2A",
            "s2:processing_baseline": "05.09",
            "s2:product_uri": f"{satellite}_MSIL2A_{start}_N0509_R{orbit:03d}_T{tile.code}_{start}.SAFE",
            "s2:generation_time": stamp,
            "s2:datatake_id": f"G{satellite}_{start}_{orbit:06d}_N05.09",
            "s2:datastrip_id": f"{satellite}_OPER_MSI_L2A_DS_SIMU_{start}_S{day:%Y%m%d}T104000_N05.09",
            "s2:granule_id": f"{satellite}_OPER_MSI_L2A_TL_SIMU_{start}_A{orbit:06d}_T{tile.code}_N05.09",
            "earthsearch:boa_offset_applied": True,
        },
        "assets": {key: _asset(band, key, folder, tile) for band, key in ASSETS.items()},
        "links": [{"rel": "self", "href": f"https://earth-search.example.org/v1/{COLLECTION}/{name}"}],
    }


_EXTENSIONS = ("eo", "grid", "projection", "raster", "sat", "view")
_SHARES = ("vegetation", "water", "snow_ice", "thin_cirrus", "cloud_shadow", "unclassified", "dark_features")


def _asset(band: str, key: str, folder: str, tile: MgrsTile) -> JsonObject:
    resolution = 20 if band == "SCL" else BANDS[band].resolution_m
    side = 109_800 // resolution
    return {
        "href": f"{folder}/{band}.tif",
        "type": "image/tiff; application=geotiff; profile=cloud-optimized",
        "title": f"{band}, {resolution} m, simulated",
        "eo:bands": [{"name": key, "common_name": key}],
        "gsd": resolution,
        "proj:shape": [side, side],
        "proj:transform": [resolution, 0, tile.ulx, 0, -resolution, tile.uly],
        "raster:bands": [{"nodata": 0, "data_type": "uint16", "spatial_resolution": resolution, "scale": 0.0001}],
        "roles": ["data", "reflectance"],
    }


def _geojson(footprint: shapely.Geometry) -> Any:
    return shapely.geometry.mapping(shapely.simplify(footprint, 0.001))


def make_parcels(zone: Zone, *, a_cell: int) -> ParcelTable:
    """Squares of 60 to 280 m in rows and columns, so many a cell, of twelve classes in turns."""
    west, south, east, north = zone.geobox.boundingbox.bbox
    step = SIDE * 10 / math.sqrt(a_cell)
    x, y = (axis.ravel() for axis in np.meshgrid(np.arange(west + 20, east, step), np.arange(south + 20, north, step)))
    size = 60 + 220 * np.random.default_rng(0).random(len(x))
    n = len(x)
    classes = np.arange(n) % _CLASSES + 1
    taxonomy = _taxonomy()
    return ParcelTable(
        parcels=Parcels(
            epsg=zone.epsg,
            parcel_id=np.arange(1, n + 1, dtype=np.uint32),
            source_row=np.arange(n),
            crop_type=classes.astype(np.uint16),
            geometry=np.asarray(shapely.box(x, y, x + size, y + size)),
        ),
        source_key=np.array([f"FR{number:09d}" for number in range(n)], object),
        source_code=np.array([f"c{number}" for number in classes.tolist()], object),
        crop_name=np.array([taxonomy.classes[number - 1].name for number in classes.tolist()], object),
        hcat_code=np.full(n, None, object),
        flags=np.zeros(n, np.uint8),
        taxonomy=taxonomy,
        unknown_codes={},
        dropped=(),
        notes=(),
    )


@cache
def _taxonomy() -> Taxonomy:
    classes = tuple(
        CropClass(index=i, code=f"c{i}", name=f"crop {i}", colour="#808080") for i in range(1, _CLASSES + 1)
    )
    return Taxonomy(id="country", classes=classes, codes={one.code: one.index for one in classes})


def make_plan(region: Region, zone: Zone, table: ParcelTable | None) -> ZonePlan:
    """The plan that `sits-build` would make of the zone's items, had all of them passed their audit."""
    items = make_items(zone, region.season)
    scenes = [scene_from_item(item, str) for item in items]
    grouping = group_scenes(
        scenes,
        {scene.id: _VERDICT for scene in scenes},
        epsg=zone.epsg,
        season=region.season,
        max_cloud=region.imagery.max_cloud,
        area=zone.extent,
        min_baseline=None,
    )
    splits = None if table is None else plan_splits([table.parcels], [zone.geobox], region.splits)
    return ZonePlan(
        zone=zone,
        bands=region.imagery.bands,
        acquisitions=grouping.acquisitions,
        refusals=grouping.refusals,
        splits=splits,
        cell_px=SIDE,
        config_sha256=config_sha256(
            region, zone, grouping.acquisitions, parcels_sha256=None, taxonomy_sha256=None, known=None
        ),
    )
