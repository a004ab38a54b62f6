"""A simulated country of parcels, written a strip at a time, and the opening of one region of it in a fresh process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import shapely
from numpy.typing import NDArray
from pyproj import CRS

WEST, NORTH, SIDE = 300_000, 5_500_000, 160.0
"""Upper-left corner in EPSG:32631, and the square each parcel lies in, in metres."""
CODES = 37
VERTICES = 12


@dataclass(frozen=True)
class Country:
    rows: int
    columns: int

    @property
    def n(self) -> int:
        return self.rows * self.columns

    def strips(self, height: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.object_]]]:
        """Numbers and polygons of `height` rows of squares at a time; a parcel's shape follows from its number."""
        for top in range(0, self.rows, height):
            number = np.arange(top * self.columns, min(self.rows, top + height) * self.columns)
            yield number, self.shapes(number)

    def shapes(self, number: NDArray[np.int64]) -> NDArray[np.object_]:
        """Stars of 12 vertices that never leave their square."""
        row, column = np.divmod(number, self.columns)
        turn = 2 * np.pi * np.arange(VERTICES) / VERTICES
        radius = 40 + 36 * _scattered(number[:, None] * VERTICES + np.arange(VERTICES))
        x = WEST + (column[:, None] + 0.5) * SIDE + radius * np.cos(turn)
        y = NORTH - (row[:, None] + 0.5) * SIDE + radius * np.sin(turn)
        return shapely.polygons(np.stack([x, y], axis=-1))

    def near(self, west: float, south: float, east: float, north: float) -> NDArray[np.int64]:
        """Numbers of the parcels whose bounds meet a box, found among the squares that do."""
        columns = np.arange(max(0, int((west - WEST) // SIDE)), int((east - WEST) // SIDE) + 1)
        rows = np.arange(max(0, int((NORTH - north) // SIDE)), int((NORTH - south) // SIDE) + 1)
        number = (rows[:, None] * self.columns + columns).ravel()
        low_x, low_y, high_x, high_y = shapely.bounds(self.shapes(number)).T
        return number[(low_x <= east) & (high_x >= west) & (low_y <= north) & (high_y >= south)]


def _scattered(number: NDArray[np.int64]) -> NDArray[np.float64]:
    """0 to 1, by the finalizer of SplitMix64 (Steele et al. 2014): as good as random, so that nothing compresses it."""
    bits = number.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (bits ^ (bits >> np.uint64(31))).astype(np.float64) / 2.0**64


def write_geoparquet(path: Path, country: Country, *, row_group: int) -> None:
    """Row groups of compact blocks of squares, so that the file is sorted in space, with a covering."""
    geo = {
        "version": "1.1.0",
        "primary_column": "geometry",
        "columns": {
            "geometry": {
                "encoding": "WKB",
                "geometry_types": ["Polygon"],
                "crs": CRS.from_epsg(32631).to_json_dict(),
                "covering": {"bbox": {corner: ["bbox", corner] for corner in ("xmin", "ymin", "xmax", "ymax")}},
            }
        },
    }
    side = max(1, int(row_group**0.5))
    writer = None
    for top in range(0, country.rows, side):
        for left in range(0, country.columns, side):
            rows = np.arange(top, min(top + side, country.rows))
            columns = np.arange(left, min(left + side, country.columns))
            number = (rows[:, None] * country.columns + columns).ravel()
            table = _table(number, country.shapes(number)).replace_schema_metadata({"geo": json.dumps(geo)})
            writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd")
            writer.write_table(table, row_group_size=len(table))
    assert writer is not None
    writer.close()


def _table(number: NDArray[np.int64], shapes: NDArray[np.object_]) -> pa.Table:
    bounds = shapely.bounds(shapes)
    corners = [pa.array(bounds[:, corner], pa.float32()) for corner in range(4)]
    return pa.table(
        {
            **_columns(number),
            "bbox": pa.StructArray.from_arrays(corners, names=["xmin", "ymin", "xmax", "ymax"]),
            "geometry": pa.array(shapely.to_wkb(shapes), pa.binary()),
        }
    )


def _columns(number: NDArray[np.int64]) -> dict[str, pa.Array]:
    return {
        "key": pa.array([f"SIM-{one:08d}" for one in number]),
        "crop": pa.array([f"c{one % CODES:02d}" for one in number]),
        "remark": pa.array([f"simulated parcel {one} of a country that is not there" for one in number]),
    }


def write_with_gdal(path: Path, country: Country) -> None:
    """A layer of GDAL's (by suffix: GeoPackage, FlatGeobuf) with its usual spatial index."""
    height = max(1, 100_000 // country.columns)
    batches = [number for number, _ in country.strips(height)] if path.suffix == ".fgb" else None
    if batches is not None:  # cannot be appended to
        _write_layer(path, country, np.concatenate(batches), append=False)
        return
    for number, _ in country.strips(height):
        _write_layer(path, country, number, append=path.exists())


def _write_layer(path: Path, country: Country, number: NDArray[np.int64], *, append: bool) -> None:
    table = pa.table({**_columns(number), "geometry": pa.array(shapely.to_wkb(country.shapes(number)), pa.binary())})
    pyogrio.write_arrow(
        table, path, layer="parcels", append=append, geometry_name="geometry", geometry_type="Polygon", crs="EPSG:32631"
    )


_OPEN = """
import json, resource, sys, time
from affine import Affine
from odc.geo.geobox import GeoBox
import shapely
from sits_catalog.parcel_source import ParcelSource
from sits_catalog.taxonomy import Taxonomy
from sits_pipeline.parcels import read, read_parcels
from sits_pipeline.plan.lattice import to_lonlat

path, small, west, north, pixels, whole, with_taxonomy = sys.argv[1:]
read._WHOLE_ROWS = int(whole)

def open_region(path):
    x, y, n = float(west), float(north), int(pixels)
    extent = GeoBox((n, n), Affine(10, 0, x, 0, -10, y), "EPSG:32631")
    area = to_lonlat(shapely.box(x, y - 10 * n, x + 10 * n, y), 32631)
    source = ParcelSource(path=path, id="key", code="crop")
    taxonomy = Taxonomy.from_codes([f"c{one:02d}" for one in range(37)]) if with_taxonomy == "1" else None
    (table,) = read_parcels(source, path, taxonomy, area=area, extents=[extent])
    return table

def bytes_read():
    # All bytes that this process got from read() and pread(). Pages of mapped files would be missing: see `maps`.
    return int(next(line for line in open("/proc/self/io") if line.startswith("rchar")).split()[1])

open_region(small)  # so that libraries, which are loaded where they are used, are not counted as parcels
before, start = bytes_read(), time.perf_counter()
table = open_region(path)
seconds, share = time.perf_counter() - start, bytes_read() - before
peak = int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
print(json.dumps({
    "keys": table.source_key.tolist(),
    "hectares": float(table.area_ha.sum()),
    "classes": len(table.taxonomy.classes),
    "notes": list(table.notes),
    "bytes_read": share,
    "peak_mb": peak / 1024,
    "seconds": seconds,
    "mapped": path in open("/proc/self/maps").read(),
}))
"""


@dataclass(frozen=True)
class Opened:
    """What the process found and what it took."""

    keys: list[str]
    hectares: float
    classes: int
    notes: list[str]
    bytes_read: int
    peak_mb: float
    seconds: float
    mapped: bool


def open_in_fresh_process(
    path: Path, small: Path, *, west: float, north: float, pixels: int, whole_rows: int, with_taxonomy: bool = True
) -> Opened:
    """Open the region of `pixels` x `pixels` at a corner; `small` is a file of the same kind to load libraries with."""
    arguments = [str(path), str(small), str(west), str(north), str(pixels), str(whole_rows), str(int(with_taxonomy))]
    done = subprocess.run(
        [sys.executable, "-c", _OPEN, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return Opened(**json.loads(done.stdout))
