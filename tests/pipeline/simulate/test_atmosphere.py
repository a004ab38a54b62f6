from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime

import numpy as np
import pytest

from sits_catalog.sentinel2 import Scl
from sits_pipeline.simulate.atmosphere import Ground, Sky, classify, make_sky, sun_angles
from sits_pipeline.simulate.fields import generator
from sits_pipeline.simulate.schedule import Pass

PASS = Pass(
    index=0, day=date(2022, 6, 21), sensing_start=datetime(2022, 6, 21, 10, 30, tzinfo=UTC), platform="S2A", orbit=8,
    absolute_orbit=1, swath_ends=False, cloud_share=0.2, cirrus=0, haze=0.1, wetness=0.2, snow=0, saturated=False,
)  # fmt: skip
SHAPE = (300, 300)


def test_the_sun_stands_in_the_south_east_at_mid_morning() -> None:
    azimuth, elevation = sun_angles(date(2022, 6, 21), 48.6)
    assert 130 < azimuth < 150
    assert 55 < elevation < 65
    assert sun_angles(date(2022, 12, 21), 48.6)[1] < 18
    assert sun_angles(date(2022, 12, 21), -31.7)[0] == pytest.approx(90, abs=30)
    assert not 120 < sun_angles(date(2022, 6, 21), -31.7)[0] < 330


@pytest.mark.parametrize("share", [0.05, 0.3, 0.9])
def test_clouds_cover_the_share_that_was_asked_for(share: float) -> None:
    sky = make_sky(replace(PASS, cloud_share=share), SHAPE, latitude=48, seed=0)
    assert sky.cloud is not None
    assert (sky.cloud >= 0.5).mean() == pytest.approx(share, abs=0.08)


def test_shadows_lie_on_the_side_away_from_the_sun() -> None:
    best = {}
    sky = make_sky(PASS, SHAPE, latitude=48, seed=1)
    assert sky.cloud is not None
    assert sky.shadow is not None
    for rows in (-1, 0, 1):
        for columns in (-1, 0, 1):
            moved = np.roll(sky.cloud, (18 * rows, 14 * columns), (0, 1))
            best[rows, columns] = float((moved * sky.shadow).sum())
    assert max(best, key=lambda step: best[step]) == (-1, -1)


def test_a_clear_pass_has_no_clouds_at_all() -> None:
    sky = make_sky(replace(PASS, cloud_share=0), SHAPE, latitude=48, seed=0)
    assert sky.cloud is None
    assert sky.shadow is None
    assert sky.cirrus is None
    assert sky.snow is None


def ground(green: float) -> Ground:
    zero = np.zeros(SHAPE, np.float32)
    return Ground(green=zero + np.float32(green), water=zero, dark=zero, bright=zero)


def disc(radius: float, softness: float) -> Sky:
    y, x = np.indices(SHAPE)
    distance = np.hypot(y - 150, x - 150)
    cloud = np.clip((radius - distance) / softness + 0.5, 0, 1).astype(np.float32)
    zero = np.zeros(SHAPE, np.float32)
    return Sky(cloud=cloud, shadow=None, cirrus=None, snow=None, haze=zero)


def test_the_classification_errs_near_cloud_edges_and_nowhere_else() -> None:
    sky = disc(80, 20)
    assert sky.cloud is not None
    scl = classify(ground(0.9), sky, elevation=60, rng=generator(0, "test"))
    cloudy = np.isin(scl, (Scl.CLOUD_MEDIUM, Scl.CLOUD_HIGH))
    assert cloudy[sky.cloud == 1].all()
    assert (scl[sky.cloud == 0] == Scl.VEGETATION).all()
    edge = (sky.cloud > 0.2) & (sky.cloud < 0.6)
    wrong = cloudy[edge] != (sky.cloud[edge] > 0.35)
    assert 0.02 < wrong.mean() < 0.5


def test_bare_ground_and_vegetation_are_told_apart() -> None:
    clear = Sky(cloud=None, shadow=None, cirrus=None, snow=None, haze=np.zeros(SHAPE, np.float32))
    rng = generator(0, "test")
    assert (classify(ground(0.9), clear, elevation=60, rng=rng) == Scl.VEGETATION).all()
    assert (classify(ground(0.0), clear, elevation=60, rng=rng) == Scl.NOT_VEGETATED).all()
