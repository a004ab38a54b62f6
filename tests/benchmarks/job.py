"""What every contestant is given: a simulated archive with one item a date, a grid, bands and parcels."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import shapely
from affine import Affine
from odc.geo.geobox import GeoBox

from sits_catalog.region import Season

__all__ = ["ASSETS", "EPSG", "LEFT", "SEASON", "Job", "grid_of", "job_on", "one_item_a_date", "write_archive"]

EPSG = 32631
LEFT = 525_000
"""West of the shipped region `demo`, in metres."""
SEASON = Season(start=date(2021, 10, 1), end=date(2022, 9, 30))
TILE = "31UEP"
"""The MGRS tile that covers all of the grids of `grid_of`."""
_NEXT_TILE_ENDS = 5_390_220
"""Northing at which the tile north of it ends: both tiles must meet in an archive's ground."""

ASSETS = {
    "B02": "blue", "B03": "green", "B04": "red", "B05": "rededge1", "B06": "rededge2", "B07": "rededge3",
    "B08": "nir", "B8A": "nir08", "B11": "swir16", "B12": "swir22", "SCL": "scl",
}  # fmt: skip
"""Band to the key of its asset."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """Where the files lie, and which pixels are wanted."""

    items: str
    """A STAC catalogue or ItemCollection: path or URL."""
    area: str
    """GeoJSON of the region, just inside the grid."""
    parcels: str
    left: int
    top: int
    """Corner of the grid, metres."""
    side: int
    """Side of the grid in pixels of 10 m."""
    bands: tuple[str, ...]

    @property
    def grid(self) -> GeoBox:
        """The grid."""
        return GeoBox((self.side, self.side), Affine(10, 0, self.left, 0, -10, self.top), f"EPSG:{EPSG}")

    def as_json(self) -> dict[str, Any]:
        """Arguments for `Job(**...)` in another process."""
        return asdict(self)


def grid_of(side: int) -> GeoBox:
    """A square of `side` pixels, a multiple of 6, where two MGRS tiles meet and one covers all.

    With 1020 pixels it is the grid of the shipped region `demo`.
    """
    top = _NEXT_TILE_ENDS + round(0.37 * side / 6) * 60
    return GeoBox((side, side), Affine(10, 0, LEFT, 0, -10, top), f"EPSG:{EPSG}")


def write_archive(folder: Path, grid: GeoBox, *, dates: int, bands: Sequence[str]) -> Path:
    """The catalogue of a simulated archive in `folder`, written where it is missing; its parcels lie beside it."""
    from sits_pipeline.simulate import write_archive as write

    return write(folder, grid, SEASON, climate="temperate", dates=dates, seed=0, bands=bands).catalog


def one_item_a_date(catalog: Path, target: Path) -> Path:
    """An ItemCollection of the archive's items that all contestants read alike: of one tile, one a date.

    It leaves out what the peers have no rule for: the second tile, reprocessed copies, second halves of granules.
    """
    paths = sorted(catalog.parent.glob(f"*/*_{TILE}_*_0_L2A/*.json"), key=lambda path: path.stem.split("_")[2])
    features = []
    for path in paths:
        item = json.loads(path.read_text())
        for asset in item["assets"].values():
            asset["href"] = str((path.parent / asset["href"]).relative_to(target.parent))
        features.append(item | {"links": []})
    target.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return target


def job_on(items: str | Path, parcels: Path, grid: GeoBox, *, bands: Iterable[str], folder: Path) -> Job:
    """The job of a grid: its area and the parcels that meet it are written to `folder`."""
    import geopandas

    folder.mkdir(parents=True, exist_ok=True)
    # 20 m inside: snapped outwards to the lattice of 60 m it is the grid.
    frame = geopandas.GeoSeries([shapely.box(*grid.boundingbox.bbox).buffer(-20, join_style="mitre")], crs=EPSG)
    area = folder / "area.geojson"
    area.write_text(frame.to_crs(4326).to_json())
    table = geopandas.read_parquet(parcels)
    near = frame.buffer(200).to_crs(table.crs).iloc[0]
    table[table.intersects(near)].to_parquet(folder / "parcels.parquet")
    return Job(
        items=str(items),
        area=str(area),
        parcels=str(folder / "parcels.parquet"),
        left=round(grid.affine.c),
        top=round(grid.affine.f),
        side=int(grid.shape[0]),
        bands=tuple(bands),
    )
