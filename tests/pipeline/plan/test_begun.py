from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pytest
import shapely
from odc.geo.geobox import GeoBox

from sits_pipeline.plan import Begun, Zone, ZonePlan, item_states, sample_digest, with_earlier_states
from sits_pipeline.values import Acquisition, AuditSample, JsonObject, Scene, Verdict

VERDICT = Verdict(
    declared=-1000, audited=-1000, applied=-1000, medians={}, n_pixels=9, refused=False, reason="", sample="aa"
)
BOX = shapely.box(3.0, 43.0, 4.0, 44.0)
STATE = {
    "provider": "stac",
    "day": "2023-04-05",
    "scl": True,
    "footprint": [3.0, 43.0, 4.0, 44.0, 1.0],
    "offset": -1000,
    "sample": "aa",
}


def scene(name: str = "a", **changes: Any) -> Scene:
    given: dict[str, Any] = {
        "id": name,
        "provider": "stac",
        "collection": "sentinel-2-l2a",
        "sensed": datetime(2023, 4, 5, 10, 40, 21, tzinfo=UTC),
        "platform": "sentinel-2a",
        "orbit": 8,
        "mgrs_tile": "31TEJ",
        "epsg": 32631,
        "baseline": "05.09",
        "cloud_cover": 5.0,
        "footprint": BOX,
        "datatake": None,
        "datastrip": None,
        "generated": None,
        "assets": {"B02": "b02.tif", "SCL": "scl.tif"},
        "declared_offset": -1000,
        "offset_is_firm": True,
        "item": {},
    }
    return Scene(**{**given, **changes})


def acquisition(*scenes: Scene, verdict: Verdict = VERDICT, day: date = date(2023, 4, 5)) -> Acquisition:
    return Acquisition(day=day, scenes=scenes, verdicts=(verdict,) * len(scenes))


def plan(*acquisitions: Acquisition, config: str = "c" * 64, deciding: JsonObject | None = None) -> ZonePlan:
    geobox = GeoBox.from_bbox((500_000, 4_890_000, 500_600, 4_890_600), "EPSG:32631", resolution=10)
    zone = Zone(name="a", geobox=geobox, area=shapely.box(0, 0, 1, 1), clip_to_strip=True)
    items = [[one.id, one.baseline] for found in acquisitions for one in found.scenes]
    return ZonePlan(
        zone=zone,
        bands=("B02",),
        acquisitions=acquisitions,
        refusals=(),
        splits=None,
        cell_px=512,
        config_sha256=config,
        deciding={"items": items} if deciding is None else deciding,
    )


def begun(*lines: JsonObject, config: str = "c" * 64) -> Begun:
    return Begun.of(config, lines)


# States


def test_a_state_holds_what_decides_pixels_beside_id_and_baseline() -> None:
    assert item_states([acquisition(scene())]) == {"a": STATE}


def test_what_is_not_known_of_an_item_is_left_out() -> None:
    unread = replace(VERDICT, applied=None, sample="")
    (state,) = item_states([acquisition(scene(), verdict=unread)]).values()
    assert state == {key: value for key, value in STATE.items() if key not in ("offset", "sample")}


def test_a_sample_that_either_of_two_providers_may_have_given_says_nothing() -> None:
    (state,) = item_states([acquisition(scene(twin=scene("b")))]).values()
    assert "sample" not in state


def test_checksums_of_assets_count_by_name_and_not_by_address() -> None:
    def state(checksum: str, href: str) -> JsonObject:
        item = {"assets": {"blue": {"href": href, "file:checksum": checksum}, "thumbnail": {"href": href}}}
        return dict(item_states([acquisition(scene(item=item))])["a"])

    assert state("1220aa", "x.tif")["checksums"] == state("1220aa", "y.tif")["checksums"]
    assert state("1220aa", "x.tif")["checksums"] != state("1220bb", "x.tif")["checksums"]


def test_a_sample_is_told_from_another_by_one_pixel_or_one_band() -> None:
    def sample(*values: int, band: str = "B02", scl: int = 4) -> str:
        return sample_digest(AuditSample(dn={band: np.array(values, np.uint16)}, scl=np.array([scl], np.uint8)))

    assert sample(1, 2, 3) == sample(1, 2, 3)
    assert len({sample(1, 2, 3), sample(1, 2, 4), sample(1, 2, 3, band="B04"), sample(1, 2, 3, scl=5)}) == 4
    assert sample_digest(AuditSample(dn={"B02": np.empty(0, np.uint16)}, scl=np.empty(0, np.uint8))) == ""


def test_what_a_later_run_could_not_see_stays_known() -> None:
    found = with_earlier_states({"a": {"day": "2023-04-05"}}, {"a": {"offset": -1000, "day": "2023-04-05"}, "b": {}})
    assert found == {"a": {"offset": -1000, "day": "2023-04-05"}}


# Differences


def test_the_same_plan_does_not_differ_nor_does_one_of_a_time_that_kept_no_states() -> None:
    today = plan(acquisition(scene()))
    assert begun({"deciding": today.deciding, "items": {"a": STATE}}).difference(today) == ""
    assert begun({"deciding": today.deciding}).difference(today) == ""
    assert begun().difference(today) == ""


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"day": "2023-04-06"}, "its solar day was 2023-04-06 and is 2023-04-05"),
        ({"offset": 0}, "its BOA offset was 0 and is -1000"),
        ({"sample": "bb"}, "its pixels are others"),
        ({"scl": False}, "its scene classification came or went"),
        ({"footprint": [3.1, 43.0, 4.1, 44.0, 1.0]}, "it lies elsewhere"),
        ({"footprint": [3.0, 43.0, 4.0, 44.0, 0.7]}, "it lies elsewhere"),
        ({"footprint": [3.001, 43.0, 4.001, 44.0, 0.99]}, ""),
        ({"provider": "another", "offset": 0, "sample": "bb", "footprint": [3.1, 43.0, 4.1, 44.0, 1.0]}, ""),
    ],
)
def test_a_state_that_is_another_is_said(change: JsonObject, says: str) -> None:
    today = plan(acquisition(scene()))
    found = begun({"deciding": today.deciding, "items": {"a": {**STATE, **change}}}).difference(today)
    assert found == "" if not says else f": a ({says}); choose another --out, or remove that folder" in found


def test_what_is_remembered_is_what_any_earlier_run_saw() -> None:
    today = plan(acquisition(scene()))
    unread = {key: value for key, value in STATE.items() if key != "sample"}
    lines = [{"deciding": today.deciding, "items": {"a": {**STATE, "sample": "bb"}}}, {"items": {"a": unread}}]
    assert "a (its pixels are others)" in begun(*lines).difference(today)


@pytest.mark.parametrize(
    ("items", "says"),
    [
        ([["b", "05.09"]], "it lacks a (baseline 05.09); choose"),
        ([["a", "05.09"], ["b", "05.09"], ["c", "04.00"]], "this build lacks c (baseline 04.00)"),
        ([["a", "04.00"], ["b", "05.09"]], "it lacks a (baseline 05.09) and this build lacks a (baseline 04.00)"),
        ([["b", "05.09"], ["a", "05.09"]], "it has the same items in another order, since their days or cloud cover"),
    ],
)
def test_items_that_came_went_or_changed_places_are_named(items: list[list[str]], says: str) -> None:
    today = plan(acquisition(scene("a"), scene("b")))
    found = begun({"deciding": {"items": items}}, config="d" * 64).difference(today)
    assert found.startswith("holds another cube (config_sha256 dddddddddddd, this build has cccccccccccc): ")
    assert says in found


def test_rules_that_differ_are_named_and_splits_have_a_sentence_of_their_own() -> None:
    deciding = {"items": [["a", "05.09"]], "season": ["2023-01-01", "2023-12-31"], "splits": [640, 0, [], 0]}
    today = plan(acquisition(scene()), deciding=deciding)
    other = begun({"deciding": {**deciding, "season": ["2023-01-01", "2023-06-30"]}}, config="d" * 64)
    assert "it has other season; choose" in other.difference(today)
    split = begun({"deciding": {**deciding, "splits": [1280, 0, [], 0]}}, config="d" * 64)
    assert split.difference(today).startswith("was built or split by other splits than this build asks for")
