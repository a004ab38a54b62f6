"""Locations at random, against figures that can be worked out by hand."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence

import pytest
from pyproj import Geod

from sits_catalog.cities import City, load_cities
from sits_catalog.land import is_land
from sits_catalog.locations import Location
from sits_catalog.sampling import sample_around_cities, sample_of, sample_on_land

SPHERE = Geod(a=6_371_008.8, f=0)


def east_and_north(city: City, at: Location) -> tuple[float, float]:
    """Metres from a city, by another library's geodesics."""
    azimuth, _, distance = SPHERE.inv(city.lon, city.lat, at.lon, at.lat)
    return distance * math.sin(math.radians(azimuth)), distance * math.cos(math.radians(azimuth))


@pytest.mark.parametrize("lat", [0.0, 60.0, -45.0, 78.0])
def test_points_spread_as_far_to_the_east_as_to_the_north_at_every_latitude(lat: float) -> None:
    city = City("x", "XX", 179.9, lat)
    found = sample_around_cities(4000, cities=[city], sigma_m=50_000, seed=1, on_land=None)
    moved = [east_and_north(city, at) for at in found]
    for metres in zip(*moved, strict=True):
        # Of 4000 draws the deviation itself deviates by 50 km / sqrt(8000) = 0.56 km, the mean by 0.79 km.
        assert statistics.pstdev(metres) == pytest.approx(50_000, abs=4 * 560)
        assert statistics.mean(metres) == pytest.approx(0, abs=4 * 790)
    # In degrees, what the original draws alike: twice as many to the east at 60 N, where a degree is half as long.
    degrees_north = statistics.pstdev(at.lat - lat for at in found)
    assert degrees_north == pytest.approx(math.degrees(50_000 / 6_371_008.8), rel=0.05)
    degrees_east = statistics.pstdev((at.lon - 179.9 + 180) % 360 - 180 for at in found)
    assert degrees_east * math.cos(math.radians(lat)) == pytest.approx(degrees_north, rel=0.1)


def test_points_beyond_the_date_line_come_back_on_the_other_side() -> None:
    found = sample_around_cities(200, cities=[City("x", "XX", 179.99, 0.0)], sigma_m=50_000, seed=1, on_land=None)
    assert all(-180 <= at.lon < 180 for at in found)
    assert {at.lon > 0 for at in found} == {True, False}


def test_cities_are_drawn_with_equal_chances() -> None:
    cities = [City(name, "XX", 10.0 * i, 10.0) for i, name in enumerate("abcde")]
    found = sample_around_cities(5000, cities=cities, sigma_m=1000, seed=3, on_land=None)
    counts = Counter(at.city for at in found)
    # 1000 each; a binomial count of 5000 draws at 1/5 deviates by 28.
    assert all(abs(counts[name] - 1000) < 4 * 29 for name in "abcde")
    by_name = {city.name: city for city in cities}
    assert all(math.hypot(*east_and_north(by_name[str(at.city)], at)) < 6000 for at in found)


def test_no_deviation_is_the_city_itself() -> None:
    (at,) = sample_around_cities(1, cities=[City("x", "FR", 3.25, 43.5)], sigma_m=0, seed=0, on_land=None)
    assert at == Location("000000", 3.25, 43.5, "x", "FR")


def east_of_greenwich(lons: Sequence[float], lats: Sequence[float]) -> list[bool]:
    return [lon >= 0 for lon in lons]


def test_a_point_at_sea_is_drawn_again_with_its_city() -> None:
    coast, inland = City("coast", "XX", 0.0, 0.0), City("inland", "XX", 90.0, 0.0)
    found = sample_around_cities(3000, cities=[coast, inland], sigma_m=50_000, seed=5, on_land=east_of_greenwich)
    assert all(at.lon >= 0 for at in found)
    # Half of the points around the coast are at sea: its share is (1/2) / (1/2 + 1), a third of 3000, deviation 26.
    assert Counter(at.city for at in found)["coast"] == pytest.approx(1000, abs=4 * 26)


def test_latitudes_without_utm_are_drawn_again() -> None:
    found = sample_around_cities(500, cities=[City("x", "NO", 15.0, 83.9)], sigma_m=50_000, seed=1, on_land=None)
    assert max(at.lat for at in found) <= 84
    assert statistics.mean(at.lat for at in found) < 83.8


def test_where_there_is_no_land_there_is_an_end() -> None:
    with pytest.raises(ValueError, match="none of 200000 points in a row can be used"):
        sample_on_land(1, seed=0, on_land=lambda lons, lats: [False] * len(lons))


def test_equal_areas_have_equal_chances() -> None:
    found = sample_on_land(6000, seed=2, on_land=lambda lons, lats: [True] * len(lons))
    # Share north of 30 N: (sin 84 - sin 30) / (sin 84 - sin -56) = 0.4945 / 1.8236 = 0.2712, deviation 0.0057.
    assert sum(at.lat > 30 for at in found) / 6000 == pytest.approx(0.2712, abs=4 * 0.0057)
    assert sum(at.lon > 90 for at in found) / 6000 == pytest.approx(0.25, abs=4 * 0.0056)
    assert min(at.lat for at in found) >= -56
    assert {at.city for at in found} == {None}


@pytest.mark.parametrize("n", [1, 7, 2000])
def test_the_same_seed_gives_the_same_locations_and_a_larger_number_adds_to_them(n: int) -> None:
    cities = [City(name, "XX", 10.0 * i, 10.0) for i, name in enumerate("abcde")]

    def draw(n: int, seed: int) -> tuple[Location, ...]:
        return sample_around_cities(n, cities=cities, sigma_m=5e4, seed=seed, on_land=east_of_greenwich)

    assert draw(n, 1) == draw(n, 1)
    assert draw(n, 1) == draw(2500, 1)[:n]
    assert draw(n, 1) != draw(n, 2)


def test_numbers_have_six_digits_or_as_many_as_it_takes() -> None:
    cities = [City("x", "XX", 0.0, 0.0)]
    found = sample_around_cities(12, cities=cities, sigma_m=0, seed=0, on_land=None)
    assert [at.id for at in found][-2:] == ["000010", "000011"]


def test_locations_of_a_file_are_chosen_without_repeats_and_keep_their_ids_and_order() -> None:
    given = [Location(f"p{i}", float(i), 0.0) for i in range(50)]
    assert sample_of(given, None, seed=1) == tuple(given)
    found = sample_of(given, 20, seed=1)
    assert len(set(found)) == 20
    assert sorted(found, key=given.index) == list(found)
    assert found == sample_of(given, 20, seed=1) != sample_of(given, 20, seed=2)
    for n in (0, 51):
        with pytest.raises(ValueError, match=f"there are 50 locations to choose from; got --n {n}"):
            sample_of(given, n, seed=1)


def test_wrong_numbers_are_refused() -> None:
    cities = [City("x", "XX", 0.0, 0.0)]
    with pytest.raises(ValueError, match="at least one location must be asked for; got --n 0"):
        sample_around_cities(0, cities=cities, sigma_m=1, seed=0, on_land=None)
    with pytest.raises(ValueError, match="the deviation is a distance of 0 or more; got -1 km"):
        sample_around_cities(1, cities=cities, sigma_m=-1000, seed=0, on_land=None)
    with pytest.raises(ValueError, match="there is no city"):
        sample_around_cities(1, cities=[], sigma_m=1, seed=0, on_land=None)


# The real cities and the real land


@pytest.mark.slow
def test_the_cities_are_the_largest_ones() -> None:
    cities = load_cities(10_000)
    assert len(cities) == 10_000
    assert {"Shanghai", "Beijing"} <= {city.name for city in cities[:10]}
    assert len({city.country for city in cities}) > 150
    assert cities[:10] == load_cities(10)


@pytest.mark.slow
def test_land_and_sea_are_where_they_are() -> None:
    places = {(2.35, 48.85): True, (-30.0, 45.0): False, (133.0, -25.0): True, (-150.0, 0.0): False}
    lons, lats = zip(*places, strict=True)
    assert is_land(lons, lats) == list(places.values())
    assert is_land([], []) == []


@pytest.mark.slow
def test_continents_have_their_share_of_the_land() -> None:
    found = sample_on_land(4000, seed=4, on_land=is_land)
    assert all(is_land([at.lon for at in found], [at.lat for at in found]))
    # Mainland Australia has 7.62 of the 135.6 million km2 of land without Antarctica: 5.6 %, deviation 0.36 %.
    australia = sum(112 < at.lon < 154 and -39.3 < at.lat < -10.6 for at in found) / 4000
    assert australia == pytest.approx(0.0562, abs=4 * 0.0036)
