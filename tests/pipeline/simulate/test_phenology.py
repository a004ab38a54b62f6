from __future__ import annotations

from datetime import date

import numpy as np
import pytest

from sits_catalog.sentinel2 import BANDS
from sits_pipeline.simulate.climates import CLIMATES, Climate
from sits_pipeline.simulate.crops import COVERS, CROPS
from sits_pipeline.simulate.phenology import Growth, double_logistic, grow, reflectance_of
from sits_pipeline.simulate.spectra import band_columns

YEAR = [date(2022, month, 15) for month in range(1, 13)]


def growth_of(code: str, climate: Climate = CLIMATES["temperate"], n: int = 200) -> Growth:
    index = [cover.code for cover in COVERS].index(code)
    return grow(np.full(n, index), YEAR, climate, 0)


def ndvi(code: str, climate: Climate = CLIMATES["temperate"]) -> list[float]:
    growth = growth_of(code, climate)
    values = []
    for month in range(12):
        red, nir = reflectance_of(growth, month, band_columns(("B04", "B08")), 0.3).T
        values.append(float(np.median((nir - red) / (nir + red))))
    return values


def test_a_double_logistic_is_half_on_its_two_days() -> None:
    day = np.array([0.0, 100.0, 175.0, 250.0, 350.0])
    values = double_logistic(day, np.array(100.0), np.array(250.0), rise_rate=0.2, fall_rate=0.2)
    assert values == pytest.approx([0, 0.5, 1, 0.5, 0], abs=1e-3)


@pytest.mark.parametrize(
    ("code", "green", "bare"),
    [
        ("winter_wheat", 5, 8), ("winter_barley", 4, 7), ("winter_rapeseed", 5, 8), ("maize", 8, 4),
        ("sugar_beet", 8, 4), ("potato", 7, 4), ("spring_barley", 6, 3), ("sunflower", 7, 4), ("soy", 8, 4),
        ("vineyard", 8, 12),
    ],
)  # fmt: skip
def test_crops_are_green_in_their_own_month(code: str, green: int, bare: int) -> None:
    months = ndvi(code)
    assert months[green - 1] > {"vineyard": 0.5, "sunflower": 0.6}.get(code, 0.75)
    assert months[bare - 1] < months[green - 1] - 0.2


def test_grassland_is_green_all_year() -> None:
    assert min(ndvi("grassland")) > 0.45


def test_the_south_is_half_a_year_late() -> None:
    north = ndvi("maize")
    south = ndvi("maize", CLIMATES["temperate"].in_the_south())
    assert np.argmax(north) in (6, 7)
    assert np.argmax(south) in (0, 1)
    assert south == pytest.approx(north[6:] + north[:6], abs=0.12)


def test_rapeseed_flowers_are_yellow_in_late_april() -> None:
    index = list(CROPS).index("winter_rapeseed")
    growth = grow(np.full(50, index), [date(2022, 4, 26), date(2022, 5, 25)], CLIMATES["temperate"], 0)
    blue, red = band_columns(("B02", "B04"))
    flowering, after = (reflectance_of(growth, i, np.array([blue, red]), 0) for i in (0, 1))
    assert np.median(flowering[:, 1]) > 1.5 * np.median(after[:, 1])
    assert np.median(flowering[:, 0]) < 0.05


@pytest.mark.parametrize("cover", [cover.code for cover in COVERS])
def test_covers_share_the_ground_and_reflectance_stays_in_bounds(cover: str) -> None:
    growth = growth_of(cover, n=40)
    assert growth.green + growth.straw + growth.bare == pytest.approx(np.ones((40, 12)), abs=1e-5)
    assert (growth.flower <= growth.green).all()
    for month in range(12):
        rho = reflectance_of(growth, month, band_columns(tuple(BANDS)), 0.5)
        assert rho.min() > -0.002
        assert rho.max() < 0.75


def test_parcels_of_one_crop_differ() -> None:
    growth = growth_of("winter_wheat")
    assert growth.green[:, 3].std() > 0.02
    assert growth.soil.std(axis=0).min() > 0.002


def test_lakes_are_dark_enough_to_be_clipped() -> None:
    growth = growth_of("lake", n=1)
    rho = reflectance_of(growth, 6, band_columns(("B03", "B08", "B12")), 1.0)[0]
    assert rho[0] > 0.01
    assert rho[1] < 0.001
    assert rho[2] < 0
