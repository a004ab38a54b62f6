"""Where and when Sentinel-2 passes: its 143 relative orbits, their swaths, and who has flown them since 2015.

Geometry alone: a circular, sun-synchronous orbit over an ellipsoid. Swath edges of real products of four relative
orbits, from 60 N to 5 S, lie within 4 km of the ones computed here. Nothing here knows what was acquired: a satellite
that flew over may have been switched off.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from sits_catalog.region import Season

__all__ = ["CYCLE", "ORBITS", "SATELLITES", "Overflight", "Satellite", "overflights", "swath"]

ORBITS = 143
"""Relative orbits, numbered from 1; all are flown once in a cycle (ESA, Sentinel-2 User Handbook, 1.4)."""
CYCLE = timedelta(days=10)

_PERIOD = CYCLE / ORBITS
"""Time of one orbit, 100.7 minutes."""
_INCLINATION = math.radians(98.57)
"""What keeps an orbit of this period sun-synchronous; ESA's pages round it to 98.62 and 98.5 degrees."""
_FIRST_NODE_DEG = 168.44
"""East longitude at which relative orbit 1 crosses the equator southwards, fitted to swath edges of real products."""
_STEP_DEG = 360 * CYCLE.days / ORBITS
"""Each relative orbit crosses the equator so far west of the one before it."""
_NODE_HOUR = 10.5
"""Mean local solar time of the descending node."""
_HALF_SWATH_KM = 147.0
"""290 km by ESA's pages; the edges of real products are 294 km apart."""
_EARTH_KM = 6371.0
_ECCENTRICITY2 = 0.00669437999
"""Of the WGS 84 ellipsoid, squared."""
_ANCHOR_ORBIT, _ANCHOR_DAY = 78, date(2020, 7, 31)
"""Sentinel-2A flew relative orbit 78 on that day (product S2A_MSIL2A_20200731T080611_N0212_R078_T35MNM)."""


@dataclass(frozen=True, kw_only=True)
class Satellite:
    """A satellite in one of the constellation's two places, half an orbit apart."""

    name: str
    first: date
    """First and last day of routine observations there; None: still on duty."""
    last: date | None
    late: timedelta
    """How long after Sentinel-2A's place it flies the same relative orbit."""


SATELLITES = (
    # Routine products begin in July 2015, the commissioning of the second satellite ended in July 2017, and on
    # 2025-01-21 Sentinel-2C took 2A's place (ESA, Sentinel-2 mission pages).
    Satellite(name="S2A", first=date(2015, 7, 4), last=date(2025, 1, 20), late=timedelta()),
    Satellite(name="S2B", first=date(2017, 7, 6), last=None, late=CYCLE / 2),
    Satellite(name="S2C", first=date(2025, 1, 21), last=None, late=timedelta()),
)
"""The two of the moment. Sentinel-2A's later place, 36 degrees from 2B, is left out: it observes some regions only."""


@dataclass(frozen=True, kw_only=True)
class Overflight:
    """A satellite over a place."""

    day: date
    """Solar day there."""
    satellite: str
    relative_orbit: int


def overflights(relative_orbit: int, season: Season, *, longitude: float, latitude: float) -> Iterator[Overflight]:
    """Passes of a relative orbit in a season, by the solar day at a place that it sees, earliest first a satellite."""
    from_node = _angle(latitude) / math.tau * _PERIOD
    node = _anchor_node() + (relative_orbit - _ANCHOR_ORBIT) * _PERIOD
    local = node + from_node + timedelta(hours=longitude / 15)
    for satellite in SATELLITES:
        first = max(season.start, satellite.first)
        last = season.end if satellite.last is None else min(season.end, satellite.last)
        passing = local + satellite.late
        day = passing.date() + ((first - passing.date()) // CYCLE) * CYCLE
        while day <= last:
            if day >= first:
                yield Overflight(day=day, satellite=satellite.name, relative_orbit=relative_orbit)
            day += CYCLE


def swath(relative_orbit: int, *, south: float, north: float) -> tuple[tuple[float, float], ...]:
    """Outline of what a descending pass sees between two latitudes and some way beyond: longitude, latitude.

    Longitudes run on beyond -180 and 180 and are to be taken modulo 360. Raises ValueError for an orbit that is none.
    """
    if not 1 <= relative_orbit <= ORBITS:
        raise ValueError(f"relative orbits are numbered 1 to {ORBITS}, got {relative_orbit}")
    node = _node(relative_orbit)
    first, last = _angle(min(north + 3, 81.0)), _angle(max(south - 3, -81.0))
    steps = max(8, math.ceil(math.degrees(last - first) * 4))
    angles = [first + (last - first) * step / steps for step in range(steps + 1)]
    east = [_beside(angle, node, _HALF_SWATH_KM) for angle in angles]
    west = [_beside(angle, node, -_HALF_SWATH_KM) for angle in angles]
    return (*east, *reversed(west))


def _node(relative_orbit: int) -> float:
    """Longitude of the descending node, -180 to 180."""
    return (_FIRST_NODE_DEG - (relative_orbit - 1) * _STEP_DEG + 180) % 360 - 180


def _anchor_node() -> datetime:
    """When Sentinel-2A crossed the equator on the anchor's day, UTC: half past ten by the sun there."""
    midnight = datetime.combine(_ANCHOR_DAY, datetime.min.time(), UTC)
    return midnight + timedelta(hours=_NODE_HOUR - _node(_ANCHOR_ORBIT) / 15)


def _angle(latitude: float) -> float:
    """Angle along the orbit from the descending node to a latitude, radians; negative north of the equator."""
    geocentric = math.atan(math.tan(math.radians(latitude)) * (1 - _ECCENTRICITY2))
    return -math.asin(max(-1.0, min(1.0, math.sin(geocentric) / math.sin(_INCLINATION))))


def _track(angle: float) -> tuple[float, float, float]:
    """Unit vector from the Earth's centre to the satellite, in axes that turn with the Earth; the node is at 0 E."""
    latitude = math.asin(-math.sin(angle) * math.sin(_INCLINATION))
    inertial = math.atan2(math.sin(angle) * math.cos(_INCLINATION), math.cos(angle))
    # The plane of a sun-synchronous orbit turns with the sun, under which the Earth turns once a day.
    longitude = inertial - angle * (_PERIOD / timedelta(days=1))
    across = math.cos(latitude)
    return across * math.cos(longitude), across * math.sin(longitude), math.sin(latitude)


def _beside(angle: float, node: float, east_km: float) -> tuple[float, float]:
    """Longitude and geodetic latitude of the point so far east of the ground track, at right angles to it."""
    x, y, z = _track(angle)
    step = 1e-5
    after, before = _track(angle + step), _track(angle - step)
    u, v, w = ((b - a) / (2 * step) for a, b in zip(before, after, strict=True))
    speed = math.sqrt(u * u + v * v + w * w)
    # Left of the direction of flight, which is southwards: east.
    left = ((y * w - z * v) / speed, (z * u - x * w) / speed, (x * v - y * u) / speed)
    turn = east_km / _EARTH_KM
    px, py, pz = (a * math.cos(turn) + b * math.sin(turn) for a, b in zip((x, y, z), left, strict=True))
    latitude = math.degrees(math.atan(math.tan(math.asin(pz)) / (1 - _ECCENTRICITY2)))
    # Taken beside the track, so that an outline never jumps at the antimeridian.
    beside = math.atan2(x * py - y * px, x * px + y * py)
    return node + math.degrees(math.atan2(y, x) + beside), latitude
