"""Which passes of Sentinel-2 to expect over a zone in a season, from orbits and tiles alone; nothing is asked for.

What comes out is an upper bound of what an archive holds: nobody knows here what was acquired, lost or not processed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import numpy as np
import shapely

from sits_catalog.cube import PIXEL_M, shard_side
from sits_catalog.orbits import CYCLE, ORBITS, SATELLITES, overflights, swath
from sits_catalog.region import Season
from sits_catalog.sentinel2 import BANDS
from sits_pipeline.plan.cells import cell_side
from sits_pipeline.plan.lattice import project, to_lonlat, unwrapped
from sits_pipeline.plan.mgrs_tiles import tiles_that_meet
from sits_pipeline.plan.zones import COMPRESSED, SOURCE_BLOCK, Estimate, Zone, build_hours

__all__ = ["Prospect", "SeenFrom", "prospect_of"]

_UNIT_PIXELS = 512**2
"""Sentinel Hub counts in images of so many pixels and three bands."""


@dataclass(frozen=True, kw_only=True)
class SeenFrom:
    """What one relative orbit sees of a zone."""

    relative_orbit: int
    share: float
    """Of the cube's ground."""
    tiles: tuple[str, ...]
    """MGRS tiles of which scenes with ground of the cube come."""
    pixels: int
    """Pixels of 10 m of the cube in those scenes; what two tiles share counts twice."""
    days: tuple[date, ...]
    """Solar days of its passes in the season."""
    interval_days: float
    """Mean time between two of them."""


@dataclass(frozen=True, kw_only=True)
class Prospect:
    """What to expect of a zone's dataset."""

    zone: Zone
    mgrs_tiles: tuple[str, ...]
    orbits: tuple[SeenFrom, ...]
    cell_px: int
    shard_px: int
    estimate: Estimate

    @property
    def days(self) -> tuple[date, ...]:
        """Solar days with a pass over some of the zone, in order."""
        return tuple(sorted({day for orbit in self.orbits for day in orbit.days}))

    @property
    def revisit_days(self) -> float:
        """Mean time between two passes over one place of the ground."""
        return 1 / sum(orbit.share / orbit.interval_days for orbit in self.orbits)


def _interval(days: list[date], season: Season) -> float:
    """Mean days between passes of one orbit; of a single one, by the satellites that are on duty in the season."""
    if len(days) > 1:
        return (days[-1] - days[0]).days / (len(days) - 1)
    on_duty = [(min(season.end, one.last or season.end) - max(season.start, one.first)).days + 1 for one in SATELLITES]
    return CYCLE.days * ((season.end - season.start).days + 1) / sum(max(number, 0) for number in on_duty)


def prospect_of(zone: Zone, season: Season, bands: tuple[str, ...], *, cell_px: int, merged: bool) -> Prospect:
    """Tiles, orbits, days and costs to expect of a zone.

    `merged`: Sentinel Hub is asked for one image a date (mosaicking `orbit`) instead of one a tile. Raises ValueError
    where nobody passed in the season.
    """
    orbits = tuple(_orbits(zone, season))
    days = {day for orbit in orbits for day in orbit.days}
    if not days:
        raise ValueError(
            f"no Sentinel-2 satellite was observing {zone.name} between {season.start} and {season.end}; the first "
            "scenes are of July 2015, and no orbit reaches beyond 84 degrees"
        )
    return Prospect(
        zone=zone,
        mgrs_tiles=tuple(tile.code for tile in tiles_that_meet(zone.ground, zone.epsg)),
        orbits=orbits,
        cell_px=cell_side(len(days), len(bands), cell_px),
        shard_px=shard_side(len(days), len(bands)),
        estimate=_estimate(zone, orbits, len(days), bands, cell_px=cell_px, merged=merged),
    )


def _orbits(zone: Zone, season: Season) -> list[SeenFrom]:
    ground = zone.ground
    outline = unwrapped(to_lonlat(ground, zone.epsg), zone.epsg)
    west, south, east, north = shapely.bounds(outline)
    longitude, latitude = (west + east) / 2, (south + north) / 2
    near = shapely.box(west - 2, max(south - 2, -84), east + 2, min(north + 2, 84))
    tiles = tiles_that_meet(ground, zone.epsg)
    found = []
    for orbit in range(1, ORBITS + 1):
        around = _around(shapely.Polygon(swath(orbit, south=south, north=north)), longitude)
        if not shapely.intersects(around, outline):
            continue
        # Cut before it is projected: far from its zone, UTM means nothing.
        seen = shapely.intersection(project(shapely.intersection(around, near), zone.epsg), ground)
        parts = {tile.code: shapely.area(shapely.intersection(tile.square, seen)) for tile in tiles}
        days = sorted(flight.day for flight in overflights(orbit, season, longitude=longitude, latitude=latitude))
        if days and any(parts.values()):
            found.append(
                SeenFrom(
                    relative_orbit=orbit,
                    share=float(shapely.area(seen) / shapely.area(ground)),
                    tiles=tuple(code for code, area in parts.items() if area > 0),
                    pixels=round(sum(parts.values()) / PIXEL_M**2),
                    days=tuple(days),
                    interval_days=_interval(days, season),
                )
            )
    return found


def _around(outline: shapely.Polygon, longitude: float) -> shapely.Geometry:
    """A swath moved by whole turns to the side of the antimeridian on which a place lies."""
    west, _, east, _ = shapely.bounds(outline)
    turns = round((longitude - (west + east) / 2) / 360)
    return shapely.transform(outline, lambda points: points + np.array([360.0 * turns, 0.0]))


def _estimate(
    zone: Zone, orbits: tuple[SeenFrom, ...], dates: int, bands: tuple[str, ...], *, cell_px: int, merged: bool
) -> Estimate:
    """As `ZonePlan.estimate`, but of the pixels that each scene has of the cube."""
    height, width = zone.geobox.shape
    side = cell_side(dates, len(bands), cell_px)
    read = sum(orbit.pixels * len(orbit.days) for orbit in orbits)
    seen = sum(orbit.share * len(orbit.days) for orbit in orbits) * shapely.area(zone.ground) / PIXEL_M**2
    pixel_bytes = sum(2 * (PIXEL_M / BANDS[name].resolution_m) ** 2 for name in bands) + 0.25
    blocks = sum(read / (SOURCE_BLOCK * BANDS[name].resolution_m / PIXEL_M) ** 2 for name in bands)
    return Estimate(
        dates=dates,
        scenes=sum(len(orbit.tiles) * len(orbit.days) for orbit in orbits),
        cells=-(-height // side) * -(-width // side),
        read_gb=read * pixel_bytes / 1e9,
        write_gb=seen * (2 * len(bands) + 3) * COMPRESSED / 1e9,
        requests=round(blocks),
        # The scene classification is read beside the bands.
        processing_units=(seen if merged else read) / _UNIT_PIXELS * (len(bands) + 1) / 3,
        hours=build_hours(seen, height * width * dates, len(bands)),
    )
