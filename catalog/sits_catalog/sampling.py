"""Locations at random: around cities, as SeCo draws them, evenly on land, or out of a file.

SeCo: Mañas et al., Seasonal Contrast, ICCV 2021 (arXiv 2103.16607), and its `seco_downloader.py`. A city is drawn with
equal chances, and a point around it by a normal distribution of 50 km in each direction. Deliberate differences: the
50 km are metres on the ground in both directions (the original gives both axes the same degrees, so that at 60 N points
spread half as far to the east as to the north); a point at sea is drawn again, city and all, unless it is to be kept
(the original keeps it, and then finds no image), which leaves the original's distribution given that there is land; and
a point outside of the latitudes where UTM is defined is drawn again.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

from sits_catalog.cities import City
from sits_catalog.locations import NORTHERNMOST, SOUTHERNMOST, Location

__all__ = ["OnLand", "sample_around_cities", "sample_of", "sample_on_land"]

OnLand = Callable[[Sequence[float], Sequence[float]], Sequence[bool]]
"""Whether points, given by their longitudes and latitudes, are on land."""

_EARTH_M = 6_371_008.8
"""Mean radius (IUGG)."""
_SOUTH_OF_SCENES = -56.0
"""ESA's observation scenario: land is observed systematically from there to 82.8 N or, in older texts, 84 N."""
_AT_ONCE = 1024
_IN_VAIN = 200_000
"""Candidates in a row none of which can be used, after which there is no hope."""

_Candidate = tuple[float, float, City | None]


def sample_around_cities(
    n: int, *, cities: Sequence[City], sigma_m: float, seed: int, on_land: OnLand | None
) -> tuple[Location, ...]:
    """`n` locations, each at a normally distributed distance of a random city; `on_land` None keeps those at sea.

    The same seed gives the same locations, and a larger `n` adds to them. Raises ValueError for an `n` below 1, a
    negative deviation or no city.
    """
    if sigma_m < 0 or not math.isfinite(sigma_m):
        raise ValueError(f"the deviation is a distance of 0 or more; got {sigma_m / 1000:g} km")
    if not cities:
        raise ValueError("there is no city to sample around")
    return _first(n, _near(_generator(seed), cities, sigma_m), on_land)


def sample_on_land(n: int, *, seed: int, on_land: OnLand) -> tuple[Location, ...]:
    """`n` locations with equal chances for every square metre of land between 56 S and 84 N.

    The same seed gives the same locations, and a larger `n` adds to them. Raises ValueError for an `n` below 1.
    """
    return _first(n, _anywhere(_generator(seed)), on_land)


def sample_of(locations: Sequence[Location], n: int | None, *, seed: int) -> tuple[Location, ...]:
    """`n` of these locations in their order, without repeats; None: all. Raises ValueError where there are fewer."""
    if n is None:
        return tuple(locations)
    if not 1 <= n <= len(locations):
        raise ValueError(f"there are {len(locations)} locations to choose from; got --n {n}")
    chosen = set(_generator(seed).sample(range(len(locations)), n))
    return tuple(location for index, location in enumerate(locations) if index in chosen)


def _generator(seed: int) -> random.Random:
    """Python's own generator: its numbers for a seed are the same in every release (those of NumPy may change)."""
    return random.Random(seed)  # noqa: S311  # nothing here is secret


def _first(n: int, candidates: Iterator[_Candidate], on_land: OnLand | None) -> tuple[Location, ...]:
    """The first `n` candidates that can be used, numbered with six digits or more, as SeCo numbers its own."""
    if n < 1:
        raise ValueError(f"at least one location must be asked for; got --n {n}")
    width = max(6, len(str(n - 1)))
    return tuple(
        Location(f"{index:0{width}d}", lon, lat, *((city.name, city.country) if city else ()))
        for index, (lon, lat, city) in enumerate(islice(_usable(candidates, on_land), n))
    )


def _usable(candidates: Iterator[_Candidate], on_land: OnLand | None) -> Iterator[_Candidate]:
    """Those on land, in their order, however many are looked up at once."""
    in_vain = 0
    while in_vain < _IN_VAIN:
        batch = [one for one in islice(candidates, _AT_ONCE) if SOUTHERNMOST <= one[1] <= NORTHERNMOST]
        lons, lats = [lon for lon, _, _ in batch], [lat for _, lat, _ in batch]
        kept = [True] * len(batch) if on_land is None else on_land(lons, lats)
        yield from (one for one, keep in zip(batch, kept, strict=True) if keep)
        in_vain = 0 if any(kept) else in_vain + _AT_ONCE
    raise ValueError(f"none of {_IN_VAIN} points in a row can be used: there is no land; keep those at sea, or move")


def _near(rng: random.Random, cities: Sequence[City], sigma_m: float) -> Iterator[_Candidate]:
    while True:
        city = cities[rng.randrange(len(cities))]
        lon, lat = _moved(city.lon, city.lat, rng.gauss(0.0, sigma_m), rng.gauss(0.0, sigma_m))
        yield lon, lat, city


def _anywhere(rng: random.Random) -> Iterator[_Candidate]:
    """Uniform in longitude and in the sine of latitude: equal areas of the sphere have equal chances."""
    low, high = math.sin(math.radians(_SOUTH_OF_SCENES)), math.sin(math.radians(NORTHERNMOST))
    while True:
        lon = rng.uniform(-180.0, 180.0)
        yield *_rounded(lon, math.degrees(math.asin(rng.uniform(low, high)))), None


def _moved(lon: float, lat: float, east_m: float, north_m: float) -> tuple[float, float]:
    """The point so far away, along the great circle that sets out in that direction.

    Near by this is north_m / R and east_m / (R cos(lat)) in radians; unlike these it also holds at a pole.
    """
    angle, bearing, start = math.hypot(east_m, north_m) / _EARTH_M, math.atan2(east_m, north_m), math.radians(lat)
    sine = math.sin(start) * math.cos(angle) + math.cos(start) * math.sin(angle) * math.cos(bearing)
    end = math.asin(max(-1.0, min(1.0, sine)))
    turn = math.atan2(
        math.sin(bearing) * math.sin(angle) * math.cos(start), math.cos(angle) - math.sin(start) * math.sin(end)
    )
    return _rounded(lon + math.degrees(turn), math.degrees(end))


def _rounded(lon: float, lat: float) -> tuple[float, float]:
    """To a tenth of a metre, in [-180, 180) degrees east."""
    east = round((lon + 180.0) % 360.0 - 180.0, 6)
    return (-180.0 if east == 180.0 else east), round(lat, 6)
