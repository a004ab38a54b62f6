from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from sits_catalog.region import Season
from sits_pipeline.steps.group import Grouping, group_scenes, solar_day
from sits_pipeline.values import Scene, Verdict

AREA = shapely.box(3.2, 43.5, 3.4, 43.7)
SEASON = Season(start=date(2018, 1, 1), end=date(2018, 12, 31))
GOOD = Verdict(declared=0, audited=0, applied=0, medians={}, n_pixels=0, refused=False, reason="")
BAD = replace(GOOD, refused=True, reason="pixels contradict the rule")

BASE = Scene(
    id="a",
    provider="safe",
    collection="sentinel-2-l2a",
    sensed=datetime(2018, 4, 18, 10, 40, 21, tzinfo=UTC),
    platform="sentinel-2a",
    orbit=8,
    mgrs_tile="31TEJ",
    epsg=32631,
    baseline="02.07",
    cloud_cover=10.0,
    footprint=shapely.box(3, 43, 4.3, 44.2),
    datatake="GS2A_20180418T104021_014734_N02.07",
    datastrip="S2A_OPER_MSI_L2A_DS_SGS__20180418T125356_S20180418T104512_N02.07",
    generated=datetime(2018, 4, 18, 12, 53, 56, tzinfo=UTC),
    assets={},
    declared_offset=0,
    offset_is_firm=True,
    item={},
)
TWIN = replace(
    BASE,
    id="twin",
    baseline="05.00",
    datastrip="S2A_OPER_MSI_L2A_DS_S2RP_20230801T000000_S20180418T104512_N05.00",
    generated=datetime(2023, 8, 1, tzinfo=UTC),
)
OTHER_HALF = replace(
    BASE, id="half", datastrip="S2A_OPER_MSI_L2A_DS_MPS__20180418T160000_S20180418T104040_N02.07", cloud_cover=3.0
)


def group(
    *scenes: Scene,
    verdicts: dict[str, Verdict] | None = None,
    max_cloud: float = 100,
    min_baseline: str | None = None,
) -> Grouping:
    known = {scene.id: GOOD for scene in scenes} | (verdicts or {})
    return group_scenes(
        scenes, known, epsg=32631, season=SEASON, max_cloud=max_cloud, area=AREA, min_baseline=min_baseline
    )


def ids(grouping: Grouping) -> list[list[str]]:
    return [[scene.id for scene in acquisition.scenes] for acquisition in grouping.acquisitions]


def refused(grouping: Grouping) -> dict[str, str]:
    return {refusal.scene.id: refusal.status for refusal in grouping.refusals}


def test_scenes_of_one_solar_day_are_one_acquisition() -> None:
    neighbour = replace(BASE, id="b", mgrs_tile="31TDJ")
    later = replace(BASE, id="c", sensed=BASE.sensed + timedelta(days=5), datastrip=None)
    grouping = group(later, neighbour, BASE)
    assert ids(grouping) == [["a", "b"], ["c"]]
    assert [acquisition.day for acquisition in grouping.acquisitions] == [date(2018, 4, 18), date(2018, 4, 23)]
    assert all(len(acquisition.verdicts) == len(acquisition.scenes) for acquisition in grouping.acquisitions)


def test_one_pass_stays_one_day_where_utc_midnight_cuts_it() -> None:
    before = datetime(2024, 5, 31, 23, 59, 50, tzinfo=UTC)
    assert solar_day(before, 32657) == solar_day(before + timedelta(seconds=20), 32657) == date(2024, 6, 1)


def test_the_solar_day_does_not_depend_on_where_in_the_zone_a_scene_lies() -> None:
    # Zone 31's central meridian is 3 degrees east: 12 minutes of solar time.
    assert solar_day(datetime(2018, 1, 1, 23, 47, 59, tzinfo=UTC), 32631) == date(2018, 1, 1)
    assert solar_day(datetime(2018, 1, 1, 23, 48, tzinfo=UTC), 32631) == date(2018, 1, 2)


def test_the_season_is_one_of_solar_days_and_holds_both_ends() -> None:
    first = replace(BASE, id="first", sensed=datetime(2017, 12, 31, 23, 50, tzinfo=UTC), datastrip=None)
    last = replace(BASE, id="last", sensed=datetime(2018, 12, 31, 23, 47, tzinfo=UTC), datastrip=None)
    after = replace(BASE, id="after", sensed=datetime(2018, 12, 31, 23, 50, tzinfo=UTC), datastrip=None)
    grouping = group(first, last, after)
    assert ids(grouping) == [["first"], ["last"]]
    assert grouping.acquisitions[0].day == date(2018, 1, 1)
    assert refused(grouping) == {"after": "outside"}
    assert grouping.refusals[0].reason == "its solar day 2019-01-01 lies outside of 2018-01-01 to 2018-12-31"


def test_a_reprocessed_copy_gives_way_to_the_highest_baseline() -> None:
    grouping = group(BASE, TWIN)
    assert ids(grouping) == [["twin"]]
    assert refused(grouping) == {"a": "superseded"}
    assert grouping.refusals[0].reason == "another processing of the same granule is used: twin, baseline 05.00"


def test_between_equal_baselines_the_newest_generation_is_kept_then_the_smaller_id() -> None:
    newer = replace(BASE, id="z", generated=datetime(2019, 1, 1, tzinfo=UTC))
    unknown = replace(BASE, id="u", generated=None)
    same = replace(BASE, id="b")
    assert ids(group(BASE, newer, unknown)) == [["z"]]
    assert ids(group(unknown, same, BASE)) == [["a"]]


def test_both_halves_of_a_split_granule_are_kept() -> None:
    assert ids(group(BASE, OTHER_HALF)) == [["half", "a"]]


def test_a_refused_copy_does_not_displace_a_good_one() -> None:
    grouping = group(BASE, TWIN, verdicts={"twin": BAD})
    assert ids(grouping) == [["a"]]
    assert refused(grouping) == {"twin": "failed"}
    assert grouping.refusals[0].reason == BAD.reason
    assert grouping.refusals[0].verdict is BAD


def test_without_datastrips_the_sensing_second_tells_copies_from_halves() -> None:
    copy = replace(BASE, id="copy", datastrip=None, baseline="05.00")
    first = replace(BASE, id="first", datastrip=None, sensed=BASE.sensed + timedelta(milliseconds=300))
    half = replace(BASE, id="half", datastrip=None, sensed=BASE.sensed + timedelta(seconds=14))
    assert ids(group(copy, first, half)) == [["copy", "half"]]


def test_a_days_scenes_stand_by_cloud_then_baseline_then_id() -> None:
    scenes = [
        replace(BASE, id="d", mgrs_tile="31TAA", cloud_cover=None),
        replace(BASE, id="c", mgrs_tile="31TBB", cloud_cover=2.0),
        replace(BASE, id="b", mgrs_tile="31TCC", cloud_cover=2.0),
        replace(BASE, id="e", mgrs_tile="31TDD", cloud_cover=2.0, baseline="05.10"),
        replace(BASE, id="a", mgrs_tile="31TEE", cloud_cover=50.0),
    ]
    assert ids(group(*scenes)) == [["e", "b", "c", "a", "d"]]


def test_scenes_of_another_zone_or_place_are_outside() -> None:
    grouping = group(replace(BASE, id="zone", epsg=32632), replace(BASE, id="far", footprint=shapely.box(9, 9, 10, 10)))
    assert refused(grouping) == {"zone": "outside", "far": "outside"}
    assert [refusal.reason for refusal in grouping.refusals] == [
        "its footprint does not meet the region",
        "in EPSG:32632; only scenes of the cube's own EPSG:32631 are read",
    ]


def test_too_much_cloud_is_refused_and_unknown_cloud_is_not() -> None:
    grouping = group(BASE, replace(OTHER_HALF, cloud_cover=None), max_cloud=9.99)
    assert ids(grouping) == [["half"]]
    assert refused(grouping) == {"a": "cloudy"}
    assert grouping.refusals[0].reason == "10 % cloud; at most 9.99 % are asked for"
    assert ids(group(BASE, max_cloud=10)) == [["a"]]


def test_more_than_250_scenes_a_day_are_an_error() -> None:
    scenes = [replace(BASE, id=f"{number:03d}", mgrs_tile=f"{number:03d}") for number in range(251)]
    assert len(group(*scenes[:250]).acquisitions[0].scenes) == 250
    with pytest.raises(ValueError, match="251 scenes on 2018-04-18; a date holds at most 250"):
        group(*scenes)


def test_a_scene_without_a_verdict_is_an_error() -> None:
    with pytest.raises(ValueError, match="a has no audit verdict"):
        group_scenes([BASE], {}, epsg=32631, season=SEASON, max_cloud=100, area=AREA, min_baseline=None)


def test_two_scenes_with_one_id_are_an_error() -> None:
    with pytest.raises(ValueError, match="two scenes have the id a"):
        group(BASE, replace(BASE, baseline="05.00"))


@given(
    st.lists(
        st.tuples(st.sampled_from("ABC"), st.sampled_from(["02.07", "04.00", "05.10"]), st.integers(0, 3)), max_size=8
    ),
    st.randoms(),
)
def test_nothing_depends_on_the_order_of_arrival(drawn: list[tuple[str, str, int]], shuffler: random.Random) -> None:
    scenes = [
        replace(BASE, id=f"s{number}", mgrs_tile=f"31T{tile}A", baseline=baseline, cloud_cover=cloud)
        for number, (tile, baseline, cloud) in enumerate(drawn)
    ]
    expected = group(*scenes)
    shuffled = list(scenes)
    shuffler.shuffle(shuffled)
    assert group(*shuffled) == expected
    assert sum(map(len, ids(expected))) + len(expected.refusals) == len(scenes)


def test_scenes_of_an_older_baseline_are_left_out_and_named_with_both() -> None:
    grouping = group(BASE, TWIN, min_baseline="05.00")
    assert ids(grouping) == [["twin"]]
    assert [(refusal.scene.id, refusal.status, refusal.reason) for refusal in grouping.refusals] == [
        (BASE.id, "outside", f"its processing baseline {BASE.baseline} is older than 05.00, which is asked for")
    ]
    assert group(TWIN, min_baseline="05.01").acquisitions == ()
    assert len(group(TWIN, min_baseline="N0500").acquisitions) == 1


def test_a_scene_that_is_too_old_needs_no_verdict() -> None:
    arguments = {"epsg": 32631, "season": SEASON, "max_cloud": 100, "area": AREA, "min_baseline": "04.00"}
    assert [refusal.status for refusal in group_scenes([BASE], {}, **arguments).refusals] == ["outside"]
