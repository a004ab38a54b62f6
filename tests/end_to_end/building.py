"""Builds datasets in this process, as `sits-build` does, and reads them back without any reader of ours."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import shapely
import zarr
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import Transformer

from sits_catalog.parcel_source import ParcelSource
from sits_catalog.region import Imagery, Place, Region, Season, SplitRule
from sits_pipeline.build import build
from sits_pipeline.config import BuildConfig
from sits_pipeline.folder import Folder
from sits_pipeline.prepare import prepare
from sits_pipeline.simulate import write_archive
from sits_pipeline.verify import verify

EPSG = 32631
FIRST_X, FIRST_Y = 525000, 5394000
"""Upper left corner of the simulated land, on the lattice of 60 m."""

IMAGES = ("reflectance", "scl", "quality", "source_index")
LABELS = ("crop_type", "parcel_id", "coverage", "boundary_distance", "conflict", "split")


@dataclass
class Silent:
    """Hears how far a build is, and keeps quiet."""

    stages: list[str] = field(default_factory=list)

    def stage(self, text: str) -> None:
        self.stages.append(text)

    def progress(self, done: int, total: int) -> None:
        assert 0 <= done <= total


@dataclass(frozen=True)
class Dataset:
    """A dataset on disk, read with zarr, pandas and pyarrow alone."""

    path: Path
    complete: bool

    @property
    def cube(self) -> Path:
        return self.path / "cube.zarr"

    @cached_property
    def group(self) -> zarr.Group:
        return zarr.open_group(self.cube, mode="r")

    def array(self, name: str) -> Any:
        return np.asarray(self.group[name][...])

    @property
    def transform(self) -> Affine:
        return Affine(*self.group.attrs["spatial:transform"])

    @property
    def bands(self) -> list[str]:
        return list(self.group.attrs["band_names"])

    @property
    def days(self) -> list[date]:
        return [date(1970, 1, 1) + timedelta(days=int(day)) for day in self.array("time")]

    def table(self, name: str) -> pd.DataFrame:
        return pq.read_table(self.path / f"{name}.parquet").to_pandas()

    def slices(self, west: float, south: float, east: float, north: float) -> tuple[slice, slice]:
        """Rows and columns of a box whose sides are sides of pixels."""
        to_pixels = ~self.transform
        left, top = to_pixels @ (west, north)
        right, bottom = to_pixels @ (east, south)
        rows, columns = slice(int(top), int(bottom)), slice(int(left), int(right))
        height, width = self.group["quality"].shape[-2:]
        assert [left, top, right, bottom] == [columns.start, rows.start, columns.stop, rows.stop]
        assert 0 <= rows.start < rows.stop <= height
        assert 0 <= columns.start < columns.stop <= width
        return rows, columns

    def findings(self) -> list[str]:
        """What `sits-cube verify` finds."""
        return [str(finding) for finding in verify(Folder(str(self.path)))]

    def files(self, below: str = "") -> dict[str, bytes]:
        """Content of every file, by name."""
        top = self.path / below
        return {path.relative_to(self.path).as_posix(): path.read_bytes() for path in top.rglob("*") if path.is_file()}


def build_region(region: Region, out: Path, **config: Any) -> Dataset:
    """The dataset of a region of one zone."""
    settings = BuildConfig(out=str(out), **config)
    (outcome,) = build(prepare(region, settings, Silent()), settings, Silent())
    return Dataset(Path(outcome.location), outcome.complete)


def extent(*, left: int = 0, top: int = 0, width: int, height: int) -> GeoBox:
    """A grid of the simulated land, in pixels from its corner; all four are multiples of 6."""
    transform = Affine(10, 0, FIRST_X + 10 * left, 0, -10, FIRST_Y - 10 * top)
    return GeoBox((height, width), transform, f"EPSG:{EPSG}")


SMALL = extent(left=30, top=60, width=198, height=126)
"""Grid of the dataset `small`."""


def place_of(grid: GeoBox, folder: Path) -> Place:
    """The place whose cube has this grid: 20 m inside of it, since a straight line in degrees is bent in metres."""
    west, south, east, north = grid.boundingbox.bbox
    box = shapely.segmentize(shapely.box(west + 20, south + 20, east - 20, north - 20), 500.0)
    assert grid.crs is not None
    transformer = Transformer.from_crs(grid.crs.epsg, 4326, always_xy=True)
    lonlat = shapely.transform(box, lambda xy: np.column_stack(transformer.transform(xy[:, 0], xy[:, 1])))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"area-{west:.0f}-{north:.0f}-{east:.0f}-{south:.0f}.geojson"
    geometry = json.loads(shapely.to_geojson(lonlat))
    feature = {"type": "Feature", "properties": {}, "geometry": geometry}
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    return Place(file=str(path))


def simulated_land(
    folder: Path, grid: GeoBox, *, bands: tuple[str, ...], dates: int, seed: int, safe: bool = False
) -> Region:
    """A region of simulated scenes, which are written to `folder`, as a static catalogue with parcels beside it."""
    season = Season(start=date(2021, 10, 1), end=date(2022, 9, 30))
    archive = write_archive(
        folder / "archive", grid, season, climate="temperate", dates=dates, seed=seed, bands=bands, safe=safe
    )
    return Region(
        id="land",
        season=season,
        place=place_of(grid, folder),
        imagery=Imagery(source="stac", path=str(archive.catalog), bands=bands),
        parcels=ParcelSource(
            path=str(archive.parcels), id="id", code="crop_code", name="crop_name", labelled_area="region"
        ),
        taxonomy="demo-crops",
        splits=SplitRule(block_m=640),
    )


def with_imagery(region: Region, **changes: Any) -> Region:
    """The region with some fields of its imagery changed."""
    fields = {name: getattr(region.imagery, name) for name in Imagery.__dataclass_fields__}
    return region.replace(imagery=Imagery(**{**fields, **changes}))


def item_ids(dataset: Dataset) -> dict[tuple[int, int], str]:
    """Item by date index and source index."""
    sources = dataset.table("sources")
    used = sources[sources.status == "used"]
    places = zip(used.date_index, used.source_index, used.id, strict=True)
    return {(int(day), int(source)): str(name) for day, source, name in places}


def translated(values: Any, names: Mapping[int, str]) -> Any:
    """Integers replaced by what they stand for; "" where they stand for nothing."""
    found, inverse = np.unique(values, return_inverse=True)
    return np.array([names.get(int(value), "") for value in found], dtype=object)[inverse].reshape(values.shape)


def differing(names: Iterable[str], one: Mapping[str, bytes], other: Mapping[str, bytes]) -> list[str]:
    """Names whose bytes are not the same, or that only one side has."""
    return [name for name in names if one.get(name) != other.get(name)]
