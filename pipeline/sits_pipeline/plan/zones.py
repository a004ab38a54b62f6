"""A region's zones and the plan of each: grid, dates, cells, splits, and the hash of all that decides pixels."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from functools import cached_property
from itertools import islice

import numpy as np
import shapely
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from sits_catalog.cube import PIXEL_M, VERSION, shard_side
from sits_catalog.region import Region, SplitRule
from sits_catalog.sentinel2 import BANDS
from sits_pipeline.plan.cells import cells_of
from sits_pipeline.plan.lattice import (
    is_in_strip,
    part_in_zone,
    project,
    project_all,
    snap,
    to_lonlat,
    unwrapped,
    zones_of,
)
from sits_pipeline.splits import SplitPlan
from sits_pipeline.values import Acquisition, JsonObject, Refusal, Window, epsg_of, shape_of

__all__ = [
    "BYTES_A_SECOND",
    "COMPRESSED",
    "SOURCE_BLOCK",
    "Estimate",
    "Zone",
    "ZonePlan",
    "build_hours",
    "config_sha256",
    "deciding_sha256",
    "split_decisions",
    "what_decides",
    "zones_of_region",
]

COMPRESSED = 0.6
"""Stored bytes over raw bytes of reflectance, as measured on real and simulated scenes."""
BYTES_A_SECOND = 60e6
"""Raw bytes of reflectance that two cores turn into shards in a second, local sources."""
SOURCE_BLOCK = 512
_UNSEEN = 0.05
"""Time of a pixel on a date on which no scene shows it, over that of one that is read; it takes no bytes."""


@dataclass(frozen=True, kw_only=True)
class Zone:
    """A region's part in one UTM zone."""

    name: str
    """Name of the dataset's folder."""
    geobox: GeoBox
    area: shapely.Geometry
    """The region's part in the zone, in the zone's CRS."""
    clip_to_strip: bool
    """Whether pixels outside of the zone's 6 degree strip stay unobserved."""

    @property
    def epsg(self) -> int:
        """EPSG code of the zone's CRS."""
        return epsg_of(self.geobox)

    @property
    def ground(self) -> shapely.Geometry:
        """Where the cube may hold pixels, in the zone's CRS: its rectangle or, of that, the part in the strip."""
        rectangle = shapely.box(*self.geobox.boundingbox.bbox)
        if not self.clip_to_strip or is_in_strip(self.geobox, self.epsg):
            return rectangle
        outline = unwrapped(to_lonlat(rectangle, self.epsg), self.epsg)
        return project(part_in_zone(outline, self.epsg), self.epsg)

    @property
    def extent(self) -> shapely.Geometry:
        """The cube's extent, 1 km wider, in lon/lat: where scenes are looked for."""
        return to_lonlat(shapely.box(*self.geobox.boundingbox.bbox).buffer(1000.0, join_style="mitre"), self.epsg)


def zones_of_region(region: Region, area: shapely.Geometry) -> tuple[Zone, ...]:
    """The zones that `area` (lon/lat) lies in; one dataset each."""
    if region.place.crs is not None:
        return (_forced(region, area),)
    codes = zones_of(area)
    if not codes:
        raise ValueError(f"region {region.id} has no area")
    names = [region.id] if len(codes) == 1 else [f"{region.id}-{code}" for code in codes]
    zones = []
    for code, name in zip(codes, names, strict=True):
        part = project(part_in_zone(area, code), code)
        zones.append(Zone(name=name, geobox=snap(part, code), area=part, clip_to_strip=True))
    return tuple(zones)


def _forced(region: Region, area: shapely.Geometry) -> Zone:
    code = int(str(region.place.crs).removeprefix("EPSG:"))
    projected = project(area, code)
    own = project(part_in_zone(area, code), code)
    if shapely.is_empty(own) or shapely.hausdorff_distance(projected, own) > 50_000:
        raise ValueError(
            f"place.crs {region.place.crs} is for a region that leaves the zone by less than 50 km; "
            "leave it out to get one dataset a zone"
        )
    return Zone(name=region.id, geobox=snap(projected, code), area=projected, clip_to_strip=False)


@dataclass(frozen=True)
class Estimate:
    """What a build will cost."""

    dates: int
    scenes: int
    cells: int
    read_gb: float
    """Pixels to read from the sources, uncompressed."""
    write_gb: float
    requests: int
    """Source blocks of 512 px to read or, of a service that was asked what it takes, requests."""
    processing_units: float
    """What Sentinel Hub will charge for them; 0 for every other source."""
    hours: float
    audit_requests: int = 0
    """Requests of the audit of a service that charges for it, at most; each `--plan` and each run sends them anew."""
    audit_processing_units: float = 0.0
    """What Sentinel Hub charges for those, at most."""


@dataclass(frozen=True, kw_only=True)
class ZonePlan:
    """All decisions for one dataset."""

    zone: Zone
    bands: tuple[str, ...]
    acquisitions: tuple[Acquisition, ...]
    refusals: tuple[Refusal, ...]
    splits: SplitPlan | None
    cell_px: int
    config_sha256: str
    deciding: JsonObject = field(default_factory=dict)
    """What `config_sha256` is the SHA-256 of; empty where nobody asks."""

    @property
    def shard(self) -> int:
        """Side of a shard in pixels."""
        return shard_side(len(self.acquisitions), len(self.bands))

    def cells(self) -> Iterator[Window]:
        """All cells, row by row."""
        return cells_of(shape_of(self.zone.geobox), self.cell_px)

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        height, width = self.zone.geobox.shape
        return -(-height // self.cell_px) * -(-width // self.cell_px)

    def estimate(self) -> Estimate:
        """Bytes, source blocks and hours of this dataset, as if all scenes were files; see `budget.estimate`."""
        height, width = self.zone.geobox.shape
        dates, n_bands = len(self.acquisitions), len(self.bands)
        scenes = sum(len(acquisition.scenes) for acquisition in self.acquisitions)
        pixel_bytes = sum(2 * (10 / BANDS[name].resolution_m) ** 2 for name in self.bands) + 0.25
        read, seen = self._pixels()
        blocks = sum(
            -(-height * 10 // BANDS[name].resolution_m // SOURCE_BLOCK)
            * -(-width * 10 // BANDS[name].resolution_m // SOURCE_BLOCK)
            for name in self.bands
        )
        return Estimate(
            dates=dates,
            scenes=scenes,
            cells=self.n_cells,
            read_gb=read * pixel_bytes / 1e9,
            write_gb=seen * (2 * n_bands + 3) * COMPRESSED / 1e9,
            requests=round(blocks * read / (height * width)),
            processing_units=0.0,
            hours=build_hours(seen, height * width * dates, n_bands),
        )

    @cached_property
    def outlines(self) -> tuple[NDArray[np.object_], NDArray[np.int64]]:
        """Outlines of the scenes in the zone's CRS, each once, and by scene, in order, the number of its own.

        Most passes see a tile alike, so that a country's ten thousand scenes have some hundred outlines.
        """
        footprints = [scene.footprint for acquisition in self.acquisitions for scene in acquisition.scenes]
        once, which = np.unique(shapely.to_wkb(np.array(footprints, np.object_)), return_inverse=True)
        return project_all(shapely.from_wkb(once), self.zone.epsg), which

    def _pixels(self) -> tuple[float, float]:
        """Pixels of the cube that its scenes show, and those that any scene of a date shows, all dates together.

        To a pixel at the edges, which have a vertex each 500 m.
        """
        outlines, which = self.outlines
        outlines = shapely.make_valid(shapely.simplify(outlines, PIXEL_M))
        ground = shapely.simplify(self.zone.ground, PIXEL_M)
        shapely.prepare(ground)
        # The edge of a strip has thousands of points, and most outlines lie inside of it.
        parts, over = outlines.copy(), ~shapely.contains_properly(ground, outlines)
        parts[over] = shapely.intersection(outlines[over], ground)
        areas, numbers = shapely.area(parts), iter(which.tolist())
        together: dict[frozenset[int], float] = {}
        read = seen = 0.0
        for acquisition in self.acquisitions:
            own = list(islice(numbers, len(acquisition.scenes)))
            read += float(areas[own].sum())
            # Most dates see the tiles that another one sees.
            alike = frozenset(own)
            if alike not in together:
                together[alike] = float(shapely.area(shapely.union_all(parts[sorted(alike)])))
            seen += together[alike]
        return read / PIXEL_M**2, seen / PIXEL_M**2


def build_hours(seen: float, pixels: float, n_bands: int) -> float:
    """Hours on two cores for so many `seen` of all `pixels` of all dates, sources at hand."""
    return (seen + _UNSEEN * (pixels - seen)) * (2 * n_bands + 3) / BYTES_A_SECOND / 3600


def config_sha256(
    region: Region,
    zone: Zone,
    acquisitions: tuple[Acquisition, ...],
    *,
    parcels_sha256: str | None,
    taxonomy_sha256: str | None,
    known: shapely.Geometry | None,
    areas_sha256: str | None = None,
) -> str:
    """SHA-256 over all that decides pixels, and nothing else: no path, address, credential or number of workers."""
    return deciding_sha256(
        what_decides(
            region,
            zone,
            acquisitions,
            parcels_sha256=parcels_sha256,
            taxonomy_sha256=taxonomy_sha256,
            known=known,
            areas_sha256=areas_sha256,
        )
    )


def deciding_sha256(deciding: JsonObject) -> str:
    """SHA-256 of what decides pixels."""
    return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()


def split_decisions(rule: SplitRule, areas_sha256: str | None) -> JsonObject:
    """The entries of `what_decides` that a rule of splits gives; `areas_sha256`: of its polygons, if it has a file."""
    later = ("folds", "fold", "min_pixels", "whole")
    given = {item.name: getattr(rule, item.name) for item in fields(rule) if item.name in later}
    standard = SplitRule()
    # A key enters only where it says something else than its default, so that hashes outlive new keys.
    more: JsonObject = {name: value for name, value in given.items() if value != getattr(standard, name)}
    if areas_sha256 is not None:
        more["areas"] = areas_sha256
    return {
        "splits": [rule.block_m, rule.buffer_m, sorted(rule.shares.items()), rule.seed],
        **({"split_rule": more} if more else {}),
    }


def what_decides(
    region: Region,
    zone: Zone,
    acquisitions: tuple[Acquisition, ...],
    *,
    parcels_sha256: str | None,
    taxonomy_sha256: str | None,
    known: shapely.Geometry | None,
    areas_sha256: str | None,
) -> JsonObject:
    """All that decides pixels, as plain values."""
    # Sentinel Hub merges tiles in its own way unless it is told ours.
    merged_by_service = region.imagery.source == "sentinel-hub" and region.imagery.mosaicking == "orbit"
    return {
        "version": VERSION,
        "region": region.id,
        "grid": [zone.epsg, *zone.geobox.affine[:6], *zone.geobox.shape],
        "area": _digest(zone.area),
        "strip": zone.clip_to_strip,
        "season": [region.season.start.isoformat(), region.season.end.isoformat()],
        "bands": list(region.imagery.bands),
        "resampling": region.imagery.resampling,
        "items": [[scene.id, scene.baseline] for acquisition in acquisitions for scene in acquisition.scenes],
        "parcels": parcels_sha256,
        "taxonomy": taxonomy_sha256,
        "labelled_area": None if known is None else _digest(known),
        "labels": [region.labels.rule, region.labels.min_coverage, list(region.labels.finer)],
        **split_decisions(region.splits, areas_sha256),
        **({"mosaicking": "orbit"} if merged_by_service else {}),
    }


def _digest(geometry: shapely.Geometry) -> str:
    """SHA-256 of a geometry at 1 mm."""
    exact = shapely.set_precision(geometry, 0.001)
    return hashlib.sha256(shapely.to_wkb(shapely.normalize(exact), byte_order=1)).hexdigest()
