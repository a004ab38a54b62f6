"""Memory and time of a build against the size of its region: the same ground once, four and sixteen times."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import shapely
from odc.geo.geobox import GeoBox
from tests.benchmarks.job import ASSETS, EPSG, Job, grid_of, job_on, one_item_a_date, write_archive
from tests.benchmarks.measure import Run, run_fresh
from tests.benchmarks.table import Table, Value

from sits_catalog.cube import shard_side

__all__ = ["TIMES", "bench", "repeat_ground"]

BANDS = ("B02", "B04", "B08")
DATES = 6
TIMES = (1, 2, 4)
"""Sides of the regions, in sides of the ground that is repeated: once, four and sixteen times the area."""

Say = Callable[[str], None]


def bench(folder: Path, *, side: int, times: Sequence[int], threads: int, say: Say) -> list[Table]:
    """The table of peak memory and seconds a square kilometre."""
    folder.mkdir(parents=True, exist_ok=True)
    say(f"writing a simulated archive of {side} x {side} px and {DATES} dates, and repeating it")
    grid = grid_of(side)
    catalog = write_archive(folder / "archive", grid, dates=DATES, bands=BANDS)
    items = one_item_a_date(catalog, folder / "items.json")
    ground = repeat_ground(
        items, catalog.parent / "parcels.parquet", grid, times=max(times), folder=folder / "repeated"
    )
    cell = shard_side(DATES, len(BANDS))
    measured = []
    for n in times:
        say(f"memory, {n * n} x the area")
        job = job_on(ground.items, ground.parcels, _larger(grid, n), bands=BANDS, folder=folder / f"job-{n}")
        measured.append((job, _run(job, folder / "out", threads, cell)))
    title = f"Memory and time against size: {DATES} dates, {len(BANDS)} bands and SCL, cells of {cell} px"
    notes = (
        f"{threads} workers, each a process; highest resident memory, sampled 20 times a second. The first process "
        "holds plan, scheduler and the region's parcels.",
        "'s a further km2' is the whole build against the row above: what is left when start-up is taken off.",
    )
    columns = ("area", "km2", "cells", "worker MB", "first process MB", "all MB", "whole, s", "s a further km2")
    return [Table(title=title, columns=columns, rows=_rows(measured, cell), notes=notes)]


def _run(job: Job, out: Path, threads: int, cell: int) -> Run:
    try:
        return run_fresh(
            "tests.benchmarks.contestants.sits_build:run",
            watch=True,
            job=job.as_json(),
            out=str(out),
            threads=threads,
            cell_px=cell,
            kind="processes",
        )
    finally:
        shutil.rmtree(out, ignore_errors=True)


def _rows(measured: list[tuple[Job, Run]], cell: int) -> tuple[tuple[Value, ...], ...]:
    rows: list[tuple[Value, ...]] = []
    smallest = measured[0][0].side
    before_km2 = before_s = 0.0
    for job, run in measured:
        km2, seconds, seen = (job.side / 100) ** 2, float(run.result["whole"][0]), run.watch
        assert seen is not None
        further = (seconds - before_s) / (km2 - before_km2) if rows else None
        name, cells = f"{(job.side // smallest) ** 2} x", (-(-job.side // cell)) ** 2
        rows.append((name, km2, cells, seen.largest_child, seen.first, seen.tree, seconds, further))
        before_km2, before_s = km2, seconds
    return tuple(rows)


@dataclass(frozen=True)
class Ground:
    """An archive of one tile."""

    items: Path
    parcels: Path


def repeat_ground(items: Path, parcels: Path, grid: GeoBox, *, times: int, folder: Path) -> Ground:
    """The pixels and parcels of a grid, `times` x `times` side by side, as an archive of the same items.

    Cheap, and what a square kilometre holds is the same in every part: cost against size is not cost against place.
    """
    ground = Ground(folder / "items.json", folder / "parcels.parquet")
    if ground.items.exists():
        return ground
    collection = json.loads(items.read_text())
    folder.mkdir(parents=True, exist_ok=True)
    _repeat_parcels(parcels, grid, times).to_parquet(ground.parcels)
    for item in collection["features"]:
        _repeat_item(item, items.parent, grid, times, folder)
    ground.items.write_text(json.dumps(collection))
    return ground


def _larger(grid: GeoBox, times: int) -> GeoBox:
    return GeoBox((grid.shape[0] * times, grid.shape[1] * times), grid.affine, grid.crs)


def _repeat_item(item: dict[str, Any], root: Path, grid: GeoBox, times: int, folder: Path) -> None:
    """Write the files of one item, and make the item speak of them."""
    from sits_pipeline.simulate.cogs import write_cog
    from sits_pipeline.simulate.stac_items import to_lonlat

    target = folder / item["id"]
    target.mkdir(exist_ok=True)
    for band in (*BANDS, "SCL"):
        asset = item["assets"][ASSETS[band]]
        with rasterio.open(root / asset["href"]) as dataset:
            factor = round(dataset.transform.a) // 10
            part = grid.zoom_out(factor)
            pixels = dataset.read(1, window=dataset.window(*grid.boundingbox.bbox))
        assert pixels.shape == tuple(part.shape)
        larger = _larger(part, times)
        write_cog(target / f"{band}.tif", np.tile(pixels, (times, times)), larger)
        asset |= {
            "href": f"{item['id']}/{band}.tif",
            "proj:shape": list(larger.shape),
            "proj:transform": [int(value) for value in tuple(larger.affine)[:6]],
        }
    footprint = to_lonlat(shapely.box(*_larger(grid, times).boundingbox.bbox), f"EPSG:{EPSG}")
    item |= {"geometry": json.loads(shapely.to_geojson(footprint)), "bbox": list(footprint.bounds)}


def _repeat_parcels(parcels: Path, grid: GeoBox, times: int) -> Any:
    """The parcels whose centre lies in the grid, moved to each part, with an id of their own."""
    import geopandas
    import pandas

    table = geopandas.read_parquet(parcels).to_crs(EPSG)
    table = table[table.centroid.within(shapely.box(*grid.boundingbox.bbox))]
    width, height = grid.resolution.x * grid.shape[1], grid.resolution.y * grid.shape[0]
    copies = [
        table.assign(id=table.id + f"-{row}-{column}").set_geometry(table.translate(column * width, row * height))
        for row in range(times)
        for column in range(times)
    ]
    return geopandas.GeoDataFrame(pandas.concat(copies, ignore_index=True), crs=EPSG)
