"""Labels of made-up parcels on one thread: all layers, against rasterio and exactextract in the same process."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import numpy as np
import shapely
from odc.geo.geobox import GeoBox
from tests.benchmarks.job import EPSG, grid_of
from tests.benchmarks.measure import run_fresh
from tests.benchmarks.table import Table

from sits_catalog.region import LabelRule
from sits_pipeline.values import Parcels

__all__ = ["ALL", "CENTRE", "EXACT", "bench", "make_parcels", "run", "works"]

ALL = "class, parcel, coverage, conflict and boundary distance, rule area"
CENTRE = "rasterio: class and parcel, centre rule"
EXACT = "exactextract: coverage"
_PARCELS_A_PIXEL = 2500 / 1020**2


def bench(*, side: int, rounds: int, say: Callable[[str], None]) -> list[Table]:
    """The table of milliseconds a parcel."""
    say("labels")
    result = run_fresh("tests.benchmarks.labels:run", side=side, rounds=rounds).result
    centre = result["ms"][CENTRE]
    rows = tuple((name, cost, cost / centre) for name, cost in result["ms"].items())
    note = f"Median of {rounds} rounds after one that does not count, one thread."
    title = f"Labels: {result['parcels']} parcels of 4 ha on average, {side} x {side} px"
    return [Table(title=title, columns=("", "ms a parcel", "x rasterio"), rows=rows, notes=(note,))]


def run(side: int, rounds: int) -> dict[str, Any]:
    """Milliseconds a parcel of each piece of work, and the number of parcels."""
    grid = grid_of(side)
    parcels = make_parcels(grid)
    ms = {}
    for name, work in works(parcels, grid).items():
        work()
        ms[name] = 1000 * median(_seconds(work) for _ in range(rounds)) / len(parcels)
    return {"parcels": len(parcels), "ms": ms}


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def make_parcels(grid: GeoBox) -> Parcels:
    """Fields of 4 ha on average with wavy common edges, a vertex every 20 m, a third of them behind a 5 m strip."""
    rng = np.random.default_rng(0)
    west, south, east, north = grid.boundingbox.bbox
    seeds = rng.uniform((west, south), (east, north), (round(grid.shape[0] * grid.shape[1] * _PARCELS_A_PIXEL), 2))
    cells = shapely.get_parts(shapely.voronoi_polygons(shapely.multipoints(seeds)))
    fields = shapely.segmentize(shapely.intersection(cells, shapely.box(west, south, east, north)), 20.0)
    fields = shapely.transform(fields, lambda xy: xy + 6 * np.sin(np.round(xy[:, ::-1], 3) / [37, 41]))
    fields[::3] = shapely.buffer(fields[::3], -2.5)
    fields = fields[(shapely.get_type_id(fields) == shapely.GeometryType.POLYGON) & shapely.is_valid(fields)]
    return Parcels(
        epsg=EPSG,
        parcel_id=np.arange(1, len(fields) + 1, dtype=np.uint32),
        source_row=np.arange(len(fields)),
        crop_type=rng.integers(1, 13, len(fields)).astype(np.uint16),
        geometry=fields,
    )


def works(parcels: Parcels, grid: GeoBox) -> Mapping[str, Callable[[], Any]]:
    """What is timed, by name."""
    from sits_pipeline.steps.rasterize import rasterize
    from sits_pipeline.steps.rasterize.coverage import pixel_shares
    from sits_pipeline.steps.rasterize.distance import boundary_distance
    from sits_pipeline.steps.rasterize.lattice import lattice_of

    x, y = grid.extent.centroid.coords[0]
    known = shapely.Point(x, y).buffer(4.4 * grid.shape[0])
    return {
        ALL: lambda: rasterize(parcels, grid, rule=LabelRule(), known=known),
        "of these: coverage": lambda: pixel_shares(parcels.geometry, lattice_of(grid)),
        "of these: boundary distance": lambda: boundary_distance(parcels.geometry, lattice_of(grid)),
        CENTRE: lambda: _centre_rule(parcels, grid),
        EXACT: _exact_coverage(parcels, grid),
    }


def _centre_rule(parcels: Parcels, grid: GeoBox) -> list[Any]:
    """Class and number of a pixel by GDAL."""
    from rasterio.features import rasterize

    return [
        rasterize(
            zip(parcels.geometry, values.tolist(), strict=True),
            out_shape=grid.shape,
            transform=grid.affine,
            dtype=np.uint32,
        )
        for values in (parcels.crop_type, parcels.parcel_id)
    ]


def _exact_coverage(parcels: Parcels, grid: GeoBox) -> Callable[[], Any]:
    """Each parcel's pixels and their covered shares by exactextract; its inputs are made beforehand."""
    from exactextract import exact_extract
    from exactextract.feature import GeoPandasFeatureSource
    from exactextract.raster import NumPyRasterSource
    from geopandas import GeoDataFrame

    frame = GeoDataFrame(geometry=parcels.geometry, crs=parcels.epsg)
    raster = NumPyRasterSource(np.zeros(grid.shape, np.uint8), *grid.boundingbox.bbox, srs_wkt=frame.crs.to_wkt())
    features = GeoPandasFeatureSource(frame)
    return lambda: exact_extract(raster, features, ["cell_id", "coverage"], output="pandas")
