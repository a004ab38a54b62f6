"""Which passes a simulated archive holds, which products they make, and what is odd about each.

What real archives do to people, and the number of dates from which on it occurs (`write_archive(dates=...)`):

| dates | oddity |
|--:|---|
| 1 | two MGRS tiles that overlap inside the region; a lake of reflectance about 0 |
| 2 | baselines on both sides of 04.00; a shifted item whose flag says that it is not; saturated pixels |
| 3 | the reverse: an item that holds the offset while its flag says that it does not; a second orbit's swath edge |
| 6 | a reprocessed twin; an overcast pass whose pixels decide nothing |
| 8 | a granule split in two |
| 10 | a scene without any data |

The passes whose flags lie are clear and as green as can be; in a tiny region or a winter's season there may still be
too few green pixels to tell.

The baseline changes on 2022-01-25 where that day lies inside the season, else after a third of the passes, as if part
of the archive had (not yet) been reprocessed: baselines, not dates, decide about the offset.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta

import numpy as np

from sits_catalog.region import Season
from sits_catalog.sentinel2 import baseline_key, has_boa_offset
from sits_pipeline.simulate.climates import Climate
from sits_pipeline.simulate.fields import generator
from sits_pipeline.simulate.placement import Placement, place_oddities
from sits_pipeline.simulate.tiles import SceneTile

__all__ = ["Pass", "Product", "plan_passes"]

_SWITCH = date(2022, 1, 25)
_BASELINES = (
    (date(2015, 1, 1), "02.06"), (date(2018, 3, 26), "02.07"), (date(2018, 6, 11), "02.08"),
    (date(2018, 11, 6), "02.11"), (date(2019, 7, 8), "02.13"), (date(2020, 2, 4), "02.14"),
    (date(2021, 3, 30), "03.00"), (date(2021, 7, 1), "03.01"), (_SWITCH, "04.00"), (date(2022, 12, 6), "05.09"),
    (date(2023, 12, 13), "05.10"), (date(2024, 7, 23), "05.11"),
)  # fmt: skip
"""When ESA's processing baselines came into force, about."""
_ORBITS = (8, 108)
"""Relative orbits; the swath of the second ends inside the region."""


@dataclass(frozen=True, kw_only=True)
class Product:
    """One L2A product over one tile, as an archive holds it."""

    item_id: str
    tile: SceneTile
    baseline: str
    sensed: datetime
    strip_start: datetime
    generated: datetime
    holds_offset: bool
    """Whether the pixels of the COG hold BOA_ADD_OFFSET, 1000 DN too many."""
    says_applied: bool
    """The item's `earthsearch:boa_offset_applied`."""
    part: str = "whole"
    """whole, upper or lower: the half of a split granule."""
    empty: bool = False
    oddities: tuple[str, ...] = ()

    @property
    def has_offset(self) -> bool:
        """Whether ESA's product of this baseline carries the offset."""
        return has_boa_offset(self.baseline)


@dataclass(frozen=True, kw_only=True)
class Pass:
    """One overpass: everything that its products share."""

    index: int
    day: date
    """Solar day."""
    sensing_start: datetime
    platform: str
    """"S2A" or "S2B"."""
    orbit: int
    absolute_orbit: int
    swath_ends: bool
    cloud_share: float
    cirrus: float
    haze: float
    wetness: float
    snow: float
    saturated: bool
    products: tuple[Product, ...] = ()


def plan_passes(
    season: Season, dates: int, tiles: Sequence[SceneTile], climate: Climate, *, longitude: float, seed: int
) -> tuple[Pass, ...]:
    """The passes of a season, one a solar day, with their products. Raises ValueError where the season is too short."""
    if dates < 1:
        raise ValueError(f"an archive needs at least one date, got {dates}")
    length = (season.end - season.start).days + 1
    targets = [season.start + timedelta(days=int((k + 0.5) * length / dates)) for k in range(dates)]
    switch = sum(target < _SWITCH for target in targets)
    if dates > 1 and not 0 < switch < dates:
        switch = max(1, dates // 3)
    days = _choose_days(season, targets, switch)
    placement = place_oddities(days, switch, southern=climate.southern)
    passes = [
        _pass(index, day, second, climate, placement, dates=dates, longitude=longitude, seed=seed)
        for index, (day, second) in enumerate(days)
    ]
    return tuple(replace(one, products=_products(one, tiles, placement, dates)) for one in passes)


def _choose_days(season: Season, targets: Sequence[date], switch: int) -> list[tuple[date, bool]]:
    """A day and whether it is the second orbit's, a pass; each orbit comes every five days."""
    length = (season.end - season.start).days + 1
    days = [season.start + timedelta(days=n) for n in range(length)]
    candidates = [(day, day.toordinal() % 5 == 3) for day in days if day.toordinal() % 5 in (0, 3)]
    if len(candidates) < len(targets):
        raise ValueError(
            f"two orbits pass {len(candidates)} times in the season {season.start} to {season.end}; "
            f"{len(targets)} dates were asked for: ask for fewer, or for a longer season"
        )
    chosen: list[tuple[date, bool]] = []
    first = 0
    for k, target in enumerate(targets):
        last = len(candidates) - (len(targets) - k)
        second = k % 3 == (switch + 2) % 3
        best = min(
            range(first, last + 1),
            key=lambda i: abs((candidates[i][0] - target).days) + (4 if candidates[i][1] != second else 0),
        )
        chosen.append(candidates[best])
        first = best + 1
    return chosen


def _pass(
    index: int,
    day: date,
    second: bool,
    climate: Climate,
    placement: Placement,
    *,
    dates: int,
    longitude: float,
    seed: int,
) -> Pass:
    """One pass with its weather; the passes whose flags lie are clear, so that their pixels can tell."""
    rng = generator(seed, "weather", index)
    summer = _summer(day, climate)
    cloud, cirrus = _clouds(rng, climate, summer)
    if index in placement.clear:
        cloud, cirrus = 0.0, 0.0
    elif dates > 2 and index == 0:
        cloud, cirrus = float(rng.uniform(0.2, 0.35)), float(rng.uniform(0.6, 1.0))
    elif index == placement.overcast:
        cloud = 0.97
    snow = float(rng.uniform(0.25, 0.9)) if climate.snow and summer < 0.12 and rng.random() < 0.45 else 0.0
    second_of_day = int((10.6 - longitude / 15) * 3600) + int(rng.integers(-300, 300))
    start = datetime.combine(day, datetime.min.time(), UTC) + timedelta(seconds=second_of_day)
    return Pass(
        index=index,
        day=day,
        sensing_start=start,
        platform="S2A" if (day.toordinal() // 5) % 2 == 0 else "S2B",
        orbit=_ORBITS[second],
        absolute_orbit=15_000 + (day.toordinal() - date(2018, 5, 1).toordinal()) * 143 // 10,
        swath_ends=second,
        cloud_share=cloud,
        cirrus=cirrus,
        haze=climate.haze * float(rng.normal(0.3, 0.6)),
        wetness=float(rng.random()) * (1 - 0.5 * summer),
        snow=0.0 if index in placement.clear else snow,
        saturated=dates > 1 and index % 4 == 1,
    )


def _summer(day: date, climate: Climate) -> float:
    """0 in the middle of winter, 1 in the middle of summer."""
    coldest = 196 if climate.southern else 14
    return 0.5 - 0.5 * math.cos(2 * math.pi * (day.timetuple().tm_yday - coldest) / 365.25)


def _clouds(rng: np.random.Generator, climate: Climate, summer: float) -> tuple[float, float]:
    """Share of cloud, and strength of cirrus, of one pass."""
    clear = climate.clear[0] + summer * (climate.clear[1] - climate.clear[0])
    overcast = climate.overcast[0] + summer * (climate.overcast[1] - climate.overcast[0])
    luck = float(rng.random())
    cloud = float(rng.uniform(0.08, 0.6))
    if luck < clear:
        cloud = 0.0 if rng.random() < 0.7 else 0.03
    elif luck > 1 - overcast:
        cloud = float(rng.uniform(0.75, 0.98))
    cirrus = float(rng.uniform(0.4, 1.0)) if rng.random() < 0.3 else 0.0
    return cloud, cirrus


def _products(one: Pass, tiles: Sequence[SceneTile], placement: Placement, dates: int) -> tuple[Product, ...]:
    """The honest products of a pass, then what is wrong with some of them."""
    baseline = _baseline(one.day, one.index >= placement.switch, dates)
    products = [_honest(one, number, tile, baseline) for number, tile in enumerate(tiles)]
    first, last = products[0], products[-1]
    if one.index == placement.shifted:
        products[0] = replace(first, holds_offset=False, says_applied=False, oddities=("lying flag",))
    if one.index == placement.unshifted:
        products[-1] = replace(last, holds_offset=True, says_applied=True, oddities=("lying flag",))
    if one.index == placement.twin:
        products.append(_twin(one, first))
    if one.index == placement.split:
        products[0:1] = _split(one, first)
    if one.index == placement.empty:
        smaller = min(range(len(tiles)), key=lambda n: (_size(tiles[n]), n))
        products[smaller] = replace(products[smaller], empty=True, oddities=("no data",))
    return tuple(products)


def _size(tile: SceneTile) -> int:
    return (tile.bottom - tile.top) * (tile.right - tile.left)


def _baseline(day: date, after: bool, dates: int) -> str:
    """ESA's baseline of the day, forced to the side of 04.00 that the schedule asks for."""
    usual = next(baseline for start, baseline in reversed(_BASELINES) if day >= start or start == _BASELINES[0][0])
    if dates == 1 or has_boa_offset(usual) == after:
        return usual
    return "05.00" if after else "03.01"


def _honest(one: Pass, number: int, tile: SceneTile, baseline: str) -> Product:
    """A product as Earth Search serves most: the offset taken out and the flag set; some left as they were."""
    offset = has_boa_offset(baseline)
    left_in = offset and (one.index + number) % 3 == 0
    sensed = one.sensing_start + timedelta(seconds=421 + 4 * number)
    return Product(
        item_id=f"{one.platform}_{tile.code}_{sensed:%Y%m%d}_0_L2A",
        tile=tile,
        baseline=baseline,
        sensed=sensed,
        strip_start=one.sensing_start + timedelta(seconds=3),
        generated=one.sensing_start + timedelta(hours=3, minutes=17 + one.index % 40),
        holds_offset=left_in,
        says_applied=offset and not left_in,
    )


def _twin(one: Pass, original: Product) -> Product:
    """The same scene, processed again years later."""
    baseline = "05.00" if baseline_key(original.baseline) < (5, 0) else "05.10"
    return replace(
        original,
        item_id=original.item_id.replace("_0_L2A", "_1_L2A"),
        baseline=baseline,
        generated=original.generated + timedelta(days=700, minutes=one.index),
        holds_offset=True,
        says_applied=False,
        oddities=("reprocessed twin",),
    )


def _split(one: Pass, whole: Product) -> list[Product]:
    """Two products of one tile and datatake that hold half of the pixels each."""
    upper = replace(whole, part="upper", oddities=("split granule",))
    later = timedelta(seconds=one.index % 5 + 11)
    lower = replace(
        whole,
        part="lower",
        item_id=whole.item_id.replace("_0_L2A", "_1_L2A"),
        strip_start=whole.strip_start + later,
        sensed=whole.sensed + timedelta(seconds=2),
        generated=whole.generated + timedelta(minutes=9),
        oddities=("split granule",),
    )
    return [upper, lower]
