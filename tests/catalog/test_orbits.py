"""Ground tracks and pass days of Sentinel-2, worked by hand and against edges of real products."""

from __future__ import annotations

import math
from datetime import date
from itertools import pairwise

import pytest
import shapely

from sits_catalog.orbits import ORBITS, overflights, swath
from sits_catalog.region import Season


def days(relative_orbit: int, first: date, last: date, *, longitude: float, latitude: float) -> list[tuple[str, str]]:
    season = Season(start=first, end=last)
    found = overflights(relative_orbit, season, longitude=longitude, latitude=latitude)
    return sorted((flight.day.isoformat(), flight.satellite) for flight in found)


def test_two_satellites_take_turns_every_five_days() -> None:
    assert days(8, date(2018, 1, 20), date(2018, 2, 12), longitude=3.3, latitude=43.6) == [
        ("2018-01-23", "S2B"),
        ("2018-01-28", "S2A"),
        ("2018-02-02", "S2B"),
        ("2018-02-07", "S2A"),
        ("2018-02-12", "S2B"),
    ]


def test_one_satellite_flew_until_july_2017_and_2c_follows_2a_in_january_2025() -> None:
    early = days(8, date(2017, 6, 20), date(2017, 7, 31), longitude=3.3, latitude=43.6)
    assert {satellite for day, satellite in early if day < "2017-07-06"} == {"S2A"}
    assert {satellite for day, satellite in early if day >= "2017-07-06"} == {"S2A", "S2B"}
    late = days(8, date(2025, 1, 1), date(2025, 2, 28), longitude=3.3, latitude=43.6)
    assert {satellite for day, satellite in late if day < "2025-01-21"} == {"S2A", "S2B"}
    assert {satellite for day, satellite in late if day >= "2025-01-21"} == {"S2B", "S2C"}
    gaps = [date.fromisoformat(b[0]) - date.fromisoformat(a[0]) for a, b in pairwise(late)]
    assert {gap.days for gap in gaps} == {5}


def test_nothing_passed_before_sentinel_2a_was_up() -> None:
    assert days(8, date(2014, 1, 1), date(2015, 7, 3), longitude=3.3, latitude=43.6) == []


def test_the_day_is_the_suns_on_either_side_of_the_antimeridian() -> None:
    """The products of S2A_MSIL2A_20190101T000001_R116 begin one second after midnight UTC, at noon by the sun."""
    assert ("2019-01-01", "S2A") in days(116, date(2018, 12, 28), date(2019, 1, 3), longitude=171, latitude=55)


def test_a_swath_is_294_km_wide_and_143_of_them_leave_no_gap_at_the_equator() -> None:
    widths, covered = [], 0.0
    for orbit in range(1, ORBITS + 1):
        equator = shapely.intersection(
            shapely.Polygon(swath(orbit, south=-1, north=1)), shapely.LineString([(-400, 0), (400, 0)])
        )
        widths.append(shapely.length(equator))
        covered += shapely.length(equator)
    # The track crosses the equator at about 12.5 degrees to the meridian, in axes that turn with the Earth.
    assert widths[0] == pytest.approx(294 / math.cos(math.radians(12.5)) / 111.2, rel=0.01)
    assert max(widths) - min(widths) < 1e-6
    assert covered > 360


@pytest.mark.parametrize(
    ("relative_orbit", "longitude", "latitude"),
    [
        pytest.param(122, 16.4157, 46.0017, id="S2B_33TWL_20230813 east"),
        pytest.param(79, 15.669, 47.852, id="S2A_33TWN_20220122 west"),
        pytest.param(116, 173.267, 56.968, id="T59VPD_20190101 east"),
        pytest.param(116, 168.283, 57.215, id="T59VLD_20190101 west"),
        pytest.param(95, -37.633, -4.522, id="T24MXV_20250731 east"),
        pytest.param(95, -40.358, -4.611, id="T24MUA_20250731 west"),
        pytest.param(123, -16.9113, 20.053, id="S2A_28QCH_20200714 east"),
    ],
)
def test_edges_of_real_products_lie_within_4_km_of_the_computed_ones(
    relative_orbit: int, longitude: float, latitude: float
) -> None:
    """Corners of footprints of real items that lie on the border of the swath."""
    outline = shapely.Polygon(swath(relative_orbit, south=latitude - 1, north=latitude + 1))
    narrow = math.cos(math.radians(latitude))
    scaled = shapely.transform(outline.boundary, lambda points: points * [111.2 * narrow, 111.2])
    near = min(
        shapely.distance(scaled, shapely.Point((longitude + turn) * 111.2 * narrow, latitude * 111.2))
        for turn in (-360, 0, 360)
    )
    assert near < 4


def test_there_is_no_relative_orbit_144() -> None:
    with pytest.raises(ValueError, match="numbered 1 to 143, got 144"):
        swath(144, south=0, north=1)
