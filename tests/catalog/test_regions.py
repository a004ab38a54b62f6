"""The shipped regions: each loads, is labelled or says that it is not, and has a provider for its season."""

from __future__ import annotations

from datetime import date

import pytest

from sits_catalog.loading import dump_region, list_regions, load_region
from sits_catalog.providers import HOLDINGS, holding_of, why_not_held
from sits_catalog.region import IMAGERY_SOURCES, Season

REAL = [name for name in list_regions() if not name.startswith("demo")]
YEAR_2017 = Season(start=date(2017, 1, 1), end=date(2017, 12, 31))
MUNICH, TAMALE = (10.9, 48.3, 12.3, 48.7), (-1.0, 9.3, -0.5, 9.7)


def test_what_is_asked_of_the_catalog_is_there() -> None:
    names = {
        "demo", "t31tfm-2016", "t31tfm-2017", "t31tfm-2018", "munich-2016", "munich-2017", "pastis-t30uxv",
        "pastis-t31tfj", "pastis-t31tfm", "pastis-t32ulu", "ghana", "south-sudan",
    }  # fmt: skip
    assert names <= set(list_regions())
    others = set(REAL) - names
    assert len(others) >= 6
    assert any(south_of_the_equator(name) for name in others)


def south_of_the_equator(name: str) -> bool:
    bbox = load_region(name).place.bbox
    return bbox is not None and bbox[3] < 0


@pytest.mark.parametrize("name", REAL)
def test_a_region_loads_without_its_parcels_and_says_whether_it_has_any(name: str) -> None:
    region = load_region(name)
    assert region.id == name
    assert region.title
    assert (region.parcels is None) == ("without labels" in region.title)
    assert dump_region(region)["imagery"]["source"] in IMAGERY_SOURCES


@pytest.mark.parametrize("name", REAL)
def test_the_provider_of_a_region_holds_l2a_of_its_season_and_place(name: str) -> None:
    region = load_region(name)
    holding = holding_of(region.imagery.source, region.imagery.collection)
    assert holding is not None
    assert region.place.bbox is not None
    assert why_not_held(holding, region.season, region.place.bbox) is None


def test_each_service_has_its_row_and_each_row_its_sources() -> None:
    services = set(IMAGERY_SOURCES) - {"simulated", "stac", "safe", "stac-api"}
    assert {holding.provider for holding in HOLDINGS} == services
    assert all(holding.sources for holding in HOLDINGS)
    assert holding_of("safe", None) is None
    assert holding_of("earth-search", "sentinel-2-l1c") is None


def test_earth_search_has_2017_from_the_end_of_march_and_in_europe_only() -> None:
    holding = holding_of("earth-search", None)
    assert holding is not None
    assert holding.collection == "sentinel-2-l2a"
    later = Season(start=date(2017, 3, 28), end=date(2017, 12, 31))
    assert why_not_held(holding, later, MUNICH) is None
    said = why_not_held(holding, YEAR_2017, MUNICH)
    assert said is not None
    assert (
        "earth-search (sentinel-2-l2a) is known to hold L2A from 2017-03-28 on over Europe and from 2018-12-13" in said
    )
    assert "the season is 2017-01-01 to 2017-12-31: fewer dates than estimated" in said
    assert why_not_held(holding, later, TAMALE) is not None


def test_collection_1_of_earth_search_has_holes_and_a_season_may_not_bridge_them() -> None:
    holding = holding_of("earth-search", "sentinel-2-c1-l2a")
    assert holding is not None
    assert why_not_held(holding, Season(start=date(2020, 1, 1), end=date(2020, 12, 31)), TAMALE) is None
    assert why_not_held(holding, Season(start=date(2021, 10, 1), end=date(2022, 9, 30)), TAMALE) is not None
    assert why_not_held(holding, Season(start=date(2021, 10, 1), end=date(2023, 9, 30)), TAMALE) is not None


def test_planetary_computer_and_cdse_have_2017_and_eopf_has_samples() -> None:
    for name in ("planetary-computer", "cdse"):
        holding = holding_of(name, None)
        assert holding is not None
        assert why_not_held(holding, YEAR_2017, TAMALE) is None
    samples = holding_of("eopf", None)
    assert samples is not None
    assert "holds samples only" in (why_not_held(samples, YEAR_2017, MUNICH) or "")
