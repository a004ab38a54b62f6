"""Write a simulated archive: scenes as COGs with a static STAC catalogue, and parcels as GeoParquet."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import shapely
from odc.geo.geobox import GeoBox

from sits_catalog.region import Season
from sits_catalog.sentinel2 import BANDS, DEFAULT_BANDS
from sits_pipeline.simulate.atmosphere import make_sky, sun_angles
from sits_pipeline.simulate.climates import Climate, load_climate
from sits_pipeline.simulate.cogs import write_cog
from sits_pipeline.simulate.declarations import declare, write_parcels
from sits_pipeline.simulate.fields import generator
from sits_pipeline.simulate.landscape import make_landscape
from sits_pipeline.simulate.safe_products import write_safe
from sits_pipeline.simulate.scenery import Scenery, make_scenery, render
from sits_pipeline.simulate.scenes import Pixels, data_area, make_pixels, taken_out
from sits_pipeline.simulate.schedule import Pass, Product, plan_passes
from sits_pipeline.simulate.stac_items import (
    COLLECTION,
    NOTICE,
    catalog_json,
    collection_json,
    item_json,
    product_uri,
    to_lonlat,
)
from sits_pipeline.simulate.tiles import bounds_of, canvas_of, scene_tiles
from sits_pipeline.values import epsg_of

__all__ = ["VERSION", "Archive", "write_archive"]

VERSION = 1
"""Of the writer: archives of another version are written anew."""

_NOTICE_FILE = "SIMULATED.txt"
_MANIFEST = "manifest.json"

Json = dict[str, Any]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Archive:
    """Where the parts of a simulated archive lie."""

    catalog: Path
    """catalog.json, a static STAC catalogue."""
    parcels: Path
    """parcels.parquet: id, crop_code, crop_name, simulated, geometry; its CRS is not the scenes' one."""
    truth: Path
    """truth.json: what is odd about each item, and the offset that its pixels really need."""
    safe: Path | None
    """Folder of .SAFE products, where they were asked for."""
    manifest: Path
    """manifest.json: parameters, and size of every file; written last."""


@dataclass(frozen=True)
class _Job:
    """What every pass of one archive shares."""

    folder: Path
    canvas: GeoBox
    scenery: Scenery
    bands: tuple[str, ...]
    latitude: float
    seed: int
    safe: bool


def write_archive(
    folder: Path,
    extent: GeoBox,
    season: Season,
    *,
    climate: str,
    dates: int,
    seed: int,
    bands: Sequence[str] = DEFAULT_BANDS,
    safe: bool = False,
    threads: int = 0,
    progress: Progress | None = None,
) -> Archive:
    """A complete simulated archive in `folder`; one of the same parameters that is already there is reused.

    The bytes depend on the parameters alone, never on `threads` (0: one a core). What is odd in it, and from how many
    dates on, stands in `schedule`. A writer that was killed is simply started again.

    Args:
        folder: made where missing; must be empty, or hold this archive or the rest of an interrupted one
        extent: the region's 10 m grid in a UTM zone, on the tiles' lattice; scenes reach 240 m beyond it
        season: solar days, both ends included
        climate: a name in `climates.CLIMATES`
        dates: number of passes
        seed: of everything random, 0 or more
        bands: any of the twelve
        safe: write every scene as a .SAFE product as well
        threads: passes rendered at once
        progress: called with passes done and passes in all

    Raises:
        ValueError: an extent off the lattice, a short season, an unknown climate or band, a folder of something else
    """
    weather = load_climate(climate)
    _check(bands, seed)
    canvas = canvas_of(extent)
    if epsg_of(canvas) > 32700:
        weather = weather.in_the_south()
    parameters = _parameters(extent, season, climate=climate, dates=dates, seed=seed, bands=bands, safe=safe)
    archive = Archive(
        catalog=folder / "catalog.json",
        parcels=folder / "parcels.parquet",
        truth=folder / "truth.json",
        safe=folder / "safe" if safe else None,
        manifest=folder / _MANIFEST,
    )
    if _is_complete(folder, parameters):
        return archive
    longitude = epsg_of(canvas) % 100 * 6.0 - 183.0
    root = _root_seed(canvas, climate, seed)
    passes = plan_passes(season, dates, scene_tiles(canvas), weather, longitude=longitude, seed=root)
    _claim(folder)
    job = _prepare(folder, extent, canvas, passes, weather, bands=tuple(bands), seed=root, safe=safe)
    items = _write_passes(job, passes, threads or os.cpu_count() or 1, progress)
    title = f"{climate}, {season.start} to {season.end}, seed {seed}"
    _write_json(folder / COLLECTION / "collection.json", collection_json(items, season, title=title, bands=bands))
    _write_json(archive.catalog, catalog_json(title))
    _write_json(archive.truth, _truth(passes))
    _write_json(
        archive.manifest, {"simulated": True, "version": VERSION, "parameters": parameters, "files": _sizes(folder)}
    )
    return archive


def _check(bands: Sequence[str], seed: int) -> None:
    unknown = [band for band in bands if band not in BANDS]
    if unknown or not bands or len(set(bands)) != len(bands):
        raise ValueError(f"bands must be distinct names out of {', '.join(BANDS)}; got {', '.join(bands) or 'none'}")
    if seed < 0:
        raise ValueError(f"a seed is 0 or more, got {seed}")


def _root_seed(canvas: GeoBox, climate: str, seed: int) -> int:
    """One seed for another place or climate would be the same land again: they are part of it."""
    place = (epsg_of(canvas), *(round(value) for value in bounds_of(canvas)))
    return int(generator(seed, climate, *place).integers(2**31))


def _parameters(
    extent: GeoBox, season: Season, *, climate: str, dates: int, seed: int, bands: Sequence[str], safe: bool
) -> Json:
    return {
        "crs": str(extent.crs),
        "transform": [float(value) for value in tuple(extent.affine)[:6]],
        "shape": list(extent.shape),
        "season": [season.start.isoformat(), season.end.isoformat()],
        "climate": climate,
        "dates": dates,
        "seed": seed,
        "bands": list(bands),
        "safe": safe,
    }


def _is_complete(folder: Path, parameters: Json) -> bool:
    """Whether the folder holds this very archive. Raises ValueError where it holds another one."""
    path = folder / _MANIFEST
    if not path.is_file():
        return False
    manifest = json.loads(path.read_text(encoding="utf-8"))
    if manifest.get("parameters") != parameters:
        there = manifest.get("parameters", {})
        different = [name for name in parameters if there.get(name) != parameters[name]]
        raise ValueError(
            f"{folder} holds another simulated archive (other {', '.join(different)}); "
            "give another folder or remove that one"
        )
    return bool(manifest.get("version") == VERSION and manifest.get("files") == _sizes(folder))


def _claim(folder: Path) -> None:
    """Make the folder ours, and drop what an interrupted writer left there that is not complete."""
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()) and not (folder / _NOTICE_FILE).is_file():
        raise ValueError(f"{folder} holds other files; give an empty folder for the simulated archive")
    _write_text(folder / _NOTICE_FILE, NOTICE + "\n")
    (folder / _MANIFEST).unlink(missing_ok=True)
    for path in folder.rglob("*.partial"):
        path.unlink(missing_ok=True)


def _prepare(
    folder: Path, extent: GeoBox, canvas: GeoBox, passes: Sequence[Pass], climate: Climate,
    *, bands: tuple[str, ...], seed: int, safe: bool,
) -> _Job:  # fmt: skip
    """Make the land, write its parcels and rasterize it."""
    landscape = make_landscape(bounds_of(canvas), climate, seed)
    declarations = declare(landscape, bounds_of(extent), seed)
    longitude, latitude = shapely.get_coordinates(to_lonlat(shapely.box(*bounds_of(canvas)), canvas.crs))[0].tolist()
    write_parcels(folder / "parcels.parquet", declarations, str(extent.crs), _parcel_crs(longitude, latitude))
    resolutions = sorted({20, *(BANDS[band].resolution_m for band in bands)})
    days = [one.day for one in passes]
    scenery = make_scenery(landscape, canvas, days, climate, resolutions=resolutions, seed=seed)
    return _Job(folder, canvas, scenery, bands, latitude, seed, safe)


def _parcel_crs(longitude: float, latitude: float) -> str:
    """Europe's equal-area CRS where it is in use, degrees elsewhere: never the scenes' own."""
    return "EPSG:3035" if -25 <= longitude <= 45 and 34 <= latitude <= 72 else "EPSG:4326"


def _write_passes(job: _Job, passes: Sequence[Pass], threads: int, progress: Progress | None) -> list[Json]:
    """The items of all passes, in order."""
    items: list[list[Json]] = [[] for _ in passes]
    with ThreadPoolExecutor(min(threads, len(passes))) as pool:
        running = {pool.submit(_write_pass, job, one): one.index for one in passes}
        for done, future in enumerate(as_completed(running), start=1):
            items[running[future]] = future.result()
            if progress is not None:
                progress(done, len(passes))
    return [item for written in items for item in written]


def _write_pass(job: _Job, one: Pass) -> list[Json]:
    """Render one pass and write its products."""
    sun = sun_angles(one.day, job.latitude)
    shape = (job.canvas.shape[0] // 2, job.canvas.shape[1] // 2)
    sky = make_sky(one, shape, latitude=job.latitude, seed=job.seed)
    ground = job.scenery.ground(one.index)
    rendered = render(job.scenery, one.index, job.bands, sky, wetness=one.wetness)
    items = []
    for product in one.products:
        pixels = make_pixels(one, product, rendered, ground, sky, job.canvas, elevation=sun[1], seed=job.seed)
        items.append(_write_item(job, one, product, pixels, sun))
        if job.safe:
            write_safe(job.folder / "safe", one, product, pixels, job.canvas)
    return items


def _write_item(job: _Job, one: Pass, product: Product, pixels: Pixels, sun: tuple[float, float]) -> Json:
    """COGs of one product as its provider serves them, and their item."""
    folder = job.folder / COLLECTION / product.item_id
    folder.mkdir(parents=True, exist_ok=True)
    for band, dn in pixels.dn.items():
        served = dn if product.holds_offset or not product.has_offset else taken_out(dn)
        write_cog(folder / f"{band}.tif", served, product.tile.geobox(job.canvas, BANDS[band].resolution_m))
    write_cog(folder / "SCL.tif", pixels.scl, product.tile.geobox(job.canvas, 20))
    footprint = to_lonlat(data_area(one, product, job.canvas), job.canvas.crs)
    item = item_json(one, product, canvas=job.canvas, bands=job.bands, scl=pixels.scl, footprint=footprint, sun=sun)
    _write_json(folder / f"{product.item_id}.json", item)
    return item


def _truth(passes: Sequence[Pass]) -> Json:
    """What a test may want to know, item by item."""
    return {
        "simulated": True,
        "items": {
            product.item_id: {
                "solar_day": one.day.isoformat(),
                "product": product_uri(one, product),
                "offset_to_apply": -1000 if product.holds_offset else 0,
                "oddities": [*product.oddities, *(["saturated"] if one.saturated else [])],
            }
            for one in passes
            for product in one.products
        },
    }


def _sizes(folder: Path) -> dict[str, int]:
    """Bytes of every file but the manifest."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != _MANIFEST)
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in paths}


def _write_json(path: Path, value: Json) -> None:
    _write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def _write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
