from __future__ import annotations

import math
import random
from datetime import date, timedelta

import pytest
import shapely
from hypothesis import event, given, settings
from hypothesis import strategies as st
from tests.pipeline.patches.scenes import AROUND, EASTERN, SPOT, WESTERN, acquisition, scene

from sits_catalog.region import Season
from sits_pipeline.patches.choose import centres, choose, cloud_over, shifts
from sits_pipeline.patches.rule import PatchRule, PatchSet

RULE = PatchRule()
TWO_YEARS = Season(start=date(2021, 1, 1), end=date(2022, 12, 31))
ONLY_SHIFT = Season(start=date(2022, 1, 22), end=date(2022, 12, 31))
"""So short that no shift fits in: 343 days after its start it ends."""
MIDDLES = ("2022-01-29", "2022-04-23", "2022-07-16", "2022-10-08", "2022-12-31")
"""12 weeks apart, the last at its end."""
OUTLINE = SPOT.outline


def days(season: Season, *found: str, clouds: dict[str, float | None] | None = None) -> list[str]:
    """The days that are chosen of acquisitions on these days."""
    acquisitions = [acquisition(day, cloud=(clouds or {}).get(day, 10.0)) for day in found]
    choice = choose(acquisitions, RULE, season, OUTLINE, location="here")
    return [day.day.isoformat() for day in choice.acquisitions]


def test_windows_are_counted_back_from_the_end_of_the_season() -> None:
    assert tuple(day.isoformat() for day in centres(RULE, ONLY_SHIFT, 0)) == MIDDLES
    assert centres(RULE, TWO_YEARS, 5)[-1] == date(2022, 12, 26)
    assert shifts(RULE, ONLY_SHIFT, "here") == (0,)


def test_a_window_reaches_seven_days_to_either_side() -> None:
    rest = MIDDLES[1:]
    assert days(ONLY_SHIFT, "2022-01-22", *rest) == ["2022-01-22", *rest]
    assert days(ONLY_SHIFT, "2022-02-05", *rest) == ["2022-02-05", *rest]
    assert days(ONLY_SHIFT, "2022-02-06", *rest) == []
    assert days(ONLY_SHIFT, "2022-01-21", *rest) == []


def test_the_least_cloudy_is_taken_then_the_nearest_to_the_middle_then_the_earlier() -> None:
    rest = MIDDLES[1:]
    near, far, before, after = "2022-01-30", "2022-02-04", "2022-01-28", "2022-01-30"
    assert days(ONLY_SHIFT, near, far, *rest, clouds={near: 20.0, far: 19.0})[0] == far
    assert days(ONLY_SHIFT, near, far, *rest, clouds={near: 20.0, far: 20.0})[0] == near
    assert days(ONLY_SHIFT, after, before, *rest)[0] == before
    assert days(ONLY_SHIFT, near, far, *rest, clouds={near: None, far: 100.0})[0] == far
    assert days(ONLY_SHIFT, near, *rest, clouds={near: None})[0] == near


def test_an_acquisition_that_covers_a_part_alone_is_not_taken() -> None:
    rest = [acquisition(day) for day in MIDDLES[1:]]
    half = acquisition(MIDDLES[0], scene(MIDDLES[0], footprint=EASTERN))
    both = acquisition(
        MIDDLES[0], scene(MIDDLES[0], footprint=EASTERN), scene(MIDDLES[0], footprint=WESTERN, tile="31UDP")
    )
    assert choose([half, *rest], RULE, ONLY_SHIFT, OUTLINE, location="here").acquisitions == ()
    assert choose([both, *rest], RULE, ONLY_SHIFT, OUTLINE, location="here").acquisitions[0] is both


def test_cloud_is_that_of_the_cloudiest_scene_that_the_patch_needs() -> None:
    day = MIDDLES[0]
    half = scene(day, footprint=EASTERN, cloud=5.0)
    other = scene(day, footprint=WESTERN, cloud=40.0, tile="31UDP")
    whole = scene(day, footprint=AROUND, cloud=90.0, tile="31UEQ")
    assert cloud_over(acquisition(day, half, other, whole), OUTLINE) == 40.0
    assert cloud_over(acquisition(day, half), OUTLINE) is None
    assert cloud_over(acquisition(day, scene(day, cloud=None)), OUTLINE) == math.inf


def test_the_first_shift_that_fills_every_window_is_taken() -> None:
    order = shifts(RULE, TWO_YEARS, "here")
    wanted = order[3]
    found = [acquisition(day.isoformat()) for day in centres(RULE, TWO_YEARS, wanted)]
    choice = choose(found, RULE, TWO_YEARS, OUTLINE, location="here")
    assert [day.day for day in choice.acquisitions] == [day.day for day in found]
    assert choice.shift in order
    assert abs(choice.shift - wanted) <= 7
    assert choice.reason == ""


def test_without_an_acquisition_in_a_window_the_reason_says_so() -> None:
    choice = choose([acquisition(day) for day in MIDDLES[1:]], RULE, ONLY_SHIFT, OUTLINE, location="here")
    assert (choice.acquisitions, choice.shift) == ((), None)
    assert choice.reason == (
        "none of 1 shifts has an acquisition that covers the whole patch in each of 5 windows of 15 days; "
        "there are 4 from 2022-04-23 to 2022-12-31"
    )
    nothing = choose([], RULE, ONLY_SHIFT, OUTLINE, location="here")
    assert nothing.reason == "no acquisition was found that covers the whole patch"
    half = acquisition(MIDDLES[0], scene(MIDDLES[0], footprint=EASTERN))
    assert choose([half], RULE, ONLY_SHIFT, OUTLINE, location="here").reason == (
        "of the 1 acquisitions found none covers the whole patch"
    )


def test_shifts_differ_by_location_and_seed_and_are_always_the_same() -> None:
    one, other = shifts(RULE, TWO_YEARS, "here"), shifts(RULE, TWO_YEARS, "there")
    assert sorted(one) == sorted(other) == list(range(365))
    assert one != other
    assert one != shifts(PatchRule(seed=1), TWO_YEARS, "here")
    assert one[:3] == FIRST_SHIFTS


FIRST_SHIFTS = (74, 56, 253)
"""Of "here" with seed 0: a data set that was published can be drawn again."""


def test_shifts_are_spread_evenly_over_a_year() -> None:
    drawn = [shifts(RULE, TWO_YEARS, str(number))[0] for number in range(400)]
    assert all(0 <= shift <= 364 for shift in drawn)
    quarters = [sum(91 * quarter <= shift < 91 * (quarter + 1) for shift in drawn) for quarter in range(4)]
    assert all(70 <= count <= 130 for count in quarters), quarters


@given(seed=st.integers(0, 10_000), n_days=st.integers(20, 200))
@settings(max_examples=40, deadline=None)
def test_dates_are_distinct_ascending_in_the_season_and_one_a_window(seed: int, n_days: int) -> None:
    rule, rng = PatchRule(tries=50), random.Random(seed)
    offered = sorted(TWO_YEARS.start + timedelta(days=number) for number in rng.sample(range(730), n_days))
    clouds = {day: rng.choice([0.0, 5.0, rng.uniform(0, 100)]) for day in offered}
    acquisitions = [acquisition(day.isoformat(), cloud=clouds[day]) for day in offered]
    choice = choose(acquisitions, rule, TWO_YEARS, shapely.Point(3.36, 48.68), location=str(seed))
    event(f"all windows filled: {bool(choice.acquisitions)}")
    if not choice.acquisitions:
        assert choice.reason
        return
    taken = [day.day for day in choice.acquisitions]
    assert choice.shift is not None
    assert len(set(taken)) == 5
    assert taken == sorted(taken)
    for day, middle in zip(taken, centres(rule, TWO_YEARS, choice.shift), strict=True):
        window = [other for other in offered if abs((other - middle).days) <= 7]
        assert day in window
        assert clouds[day] == min(clouds[other] for other in window)


def test_a_season_that_is_too_short_says_what_is_needed() -> None:
    with pytest.raises(ValueError, match="need a season of 344 days, and of 708 for shifts of up to 364 days"):
        PatchSet(id="a", season=Season(start=date(2022, 1, 1), end=date(2022, 6, 30)))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"side_px": 275}, "side_px must be a multiple of 6 px"),
        ({"side_px": 1542}, "at most 1536 px"),
        ({"window_days": 14}, "window_days must be odd"),
        ({"weeks": 2}, "windows of 15 days every 14 days overlap"),
        ({"dates": 0}, "dates, weeks and tries must be 1 or more"),
    ],
)
def test_a_rule_that_cannot_be_kept_is_refused(changes: dict[str, int], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        PatchRule(**changes)


def test_the_id_of_a_set_names_its_folder() -> None:
    with pytest.raises(ValueError, match="names its folder"):
        PatchSet(id="../a", season=TWO_YEARS)
