from __future__ import annotations

from datetime import date, timedelta

import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from sits_catalog.region import Season
from sits_catalog.sentinel2 import has_boa_offset
from sits_pipeline.simulate.climates import CLIMATES
from sits_pipeline.simulate.schedule import Pass, plan_passes
from sits_pipeline.simulate.tiles import canvas_of, scene_tiles

EXTENT = GeoBox((120, 120), Affine(10, 0, 525000, 0, -10, 5394000), "EPSG:32631")
TILES = scene_tiles(canvas_of(EXTENT))


def plan(season: Season, dates: int, seed: int = 0) -> tuple[Pass, ...]:
    return plan_passes(season, dates, TILES, CLIMATES["temperate"], longitude=3, seed=seed)


@given(
    start=st.dates(date(2017, 1, 1), date(2024, 12, 31)),
    length=st.integers(60, 500),
    dates=st.integers(1, 20),
    seed=st.integers(0, 5),
)
def test_every_oddity_occurs_once_the_season_has_dates_for_it(start: date, length: int, dates: int, seed: int) -> None:
    season = Season(start=start, end=start + timedelta(days=length))
    passes = plan(season, dates, seed)
    days = [one.day for one in passes]
    assert days == sorted(set(days))
    assert season.start <= days[0]
    assert days[-1] <= season.end
    assert len(days) == dates
    products = [product for one in passes for product in one.products]
    assert len({product.item_id for product in products}) == len(products)
    counts = {name: sum(name in product.oddities for product in products) for name in
              ("lying flag", "reprocessed twin", "split granule", "no data")}  # fmt: skip
    assert counts == {
        "lying flag": min(dates - 1, 2),
        "reprocessed twin": int(dates >= 6),
        "split granule": 2 * (dates >= 8),
        "no data": int(dates >= 10),
    }
    if dates > 1:
        assert {product.has_offset for product in products} == {False, True}
        assert any(one.saturated for one in passes)
    if dates >= 6:
        assert any(one.cloud_share > 0.9 for one in passes)


def test_the_flags_lie_on_clear_days_only_so_that_the_pixels_can_tell() -> None:
    for one in plan(Season(start=date(2022, 3, 1), end=date(2022, 10, 31)), 12):
        if any("lying flag" in product.oddities for product in one.products):
            assert one.cloud_share == 0
            assert one.cirrus == 0
            assert not one.swath_ends


def test_the_baseline_changes_on_the_day_esa_changed_it_where_the_season_holds_that_day() -> None:
    for one in plan(Season(start=date(2021, 10, 1), end=date(2022, 9, 30)), 24):
        honest = [product for product in one.products if "reprocessed twin" not in product.oddities]
        if abs((one.day - date(2022, 1, 25)).days) > 5:
            assert {has_boa_offset(product.baseline) for product in honest} == {one.day >= date(2022, 1, 25)}


def test_a_pass_that_is_on_another_utc_day_keeps_its_solar_day() -> None:
    season = Season(start=date(2022, 3, 1), end=date(2022, 5, 31))
    for one in plan_passes(season, 4, TILES, CLIMATES["temperate"], longitude=177, seed=0):
        assert one.sensing_start.date() == one.day - timedelta(days=1)
        assert (one.sensing_start + timedelta(hours=177 / 15)).date() == one.day


def test_a_season_too_short_is_said() -> None:
    season = Season(start=date(2022, 3, 1), end=date(2022, 3, 10))
    with pytest.raises(ValueError, match="two orbits pass 4 times in the season 2022-03-01 to 2022-03-10; 5 dates"):
        plan(season, 5)
