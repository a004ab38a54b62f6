from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import date

import numpy as np
import pytest
import shapely
from odc.geo.geobox import GeoBox
from tests.pipeline.patches.scenes import AROUND, EASTERN, GOOD, HERE, SPOT, WESTERN, scene

from sits_catalog.locations import Location
from sits_catalog.region import Imagery, Season
from sits_pipeline.patches.place import Chosen, Spot
from sits_pipeline.patches.rule import PatchSet
from sits_pipeline.patches.search import Audits, Looks, choose_all, choose_one, fills, find_again, searches
from sits_pipeline.sources.base import SceneSource, SearchResult
from sits_pipeline.values import Acquisition, AuditSample, BandWindow, Raster, ReadFailure, Scene, Verdict

MIDDLES = ("2022-01-29", "2022-04-23", "2022-07-16", "2022-10-08", "2022-12-31")
WANTED = PatchSet(
    id="set",
    season=Season(start=date(2022, 1, 22), end=date(2022, 12, 31)),
    imagery=Imagery(source="stac", path="x", bands=("B02", "B04")),
)
"""Its season leaves one shift, so that the windows' middles are known."""
REST = [scene(day) for day in MIDDLES[1:]]


@dataclass
class Looking:
    """Says of every scene that it is good and of every day that it is full, but for these; notes what it is asked."""

    bad: Sequence[str] = ()
    empty: Sequence[str] = ()
    audited: list[str] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)

    @property
    def looks(self) -> Looks:
        return Looks(self.audit, self.fills)

    def audit(self, found: Scene) -> Verdict:
        self.audited.append(found.id)
        return replace(GOOD, refused=True, reason="a lie") if found.id in self.bad else GOOD

    def fills(self, day: Acquisition) -> bool:
        self.seen.append(day.day.isoformat())
        return day.day.isoformat() not in self.empty


def days(chosen: Chosen) -> list[str]:
    return [day.day.isoformat() for day in chosen.acquisitions]


def test_only_what_would_be_taken_is_looked_at() -> None:
    cloudy = scene("2022-02-01", cloud=80.0)
    looking = Looking()
    chosen = choose_one(SPOT, [cloudy, scene(MIDDLES[0]), *REST], looking.looks, WANTED)
    assert days(chosen) == list(MIDDLES)
    assert cloudy.id not in looking.audited
    assert sorted(looking.seen) == sorted(MIDDLES)


def test_a_scene_that_is_refused_gives_way_to_the_next_and_is_named() -> None:
    first, second = scene(MIDDLES[0], cloud=1.0), scene("2022-02-01", cloud=80.0)
    looking = Looking(bad=[first.id])
    chosen = choose_one(SPOT, [first, second, *REST], looking.looks, WANTED)
    assert days(chosen)[0] == "2022-02-01"
    assert [(found.id, verdict.reason) for found, verdict in chosen.refused] == [(first.id, "a lie")]
    assert looking.audited.count(first.id) == 1


def test_a_day_whose_footprint_promised_too_much_gives_way_to_the_next() -> None:
    first, second = scene(MIDDLES[0], cloud=0.0), scene("2022-02-01", cloud=80.0)
    chosen = choose_one(SPOT, [first, second, *REST], Looking(empty=[MIDDLES[0]]).looks, WANTED)
    assert days(chosen)[0] == "2022-02-01"
    nothing = choose_one(SPOT, [first, *REST], Looking(empty=[MIDDLES[0]]).looks, WANTED)
    assert nothing.acquisitions == ()
    assert nothing.reason.startswith("none of 1 shifts")


def test_a_scene_without_a_band_that_is_asked_for_is_not_taken() -> None:
    lacking, second = scene(MIDDLES[0], cloud=0.0, bands=("B02", "SCL")), scene("2022-02-01")
    assert days(choose_one(SPOT, [lacking, second, *REST], Looking().looks, WANTED))[0] == "2022-02-01"


def test_scenes_of_another_zone_are_not_taken() -> None:
    other = replace(scene(MIDDLES[0], cloud=0.0, tile="30UXU"), epsg=32630)
    assert days(choose_one(SPOT, [other, *REST], Looking().looks, WANTED)) == []


def test_of_the_item_only_its_address_without_secrets_is_kept() -> None:
    item = {
        "links": [{"rel": "self", "href": "https://example.org/i.json?sig=1"}, {"rel": "root", "href": "x"}],
        "properties": {"sits:simulated": True, "title": "long"},
    }
    chosen = choose_one(SPOT, [replace(scene(MIDDLES[0]), item=item), *REST], Looking().looks, WANTED)
    assert chosen.acquisitions[0].scenes[0].item == {
        "collection": "sentinel-2-l2a",
        "links": [{"rel": "self", "href": "https://example.org/i.json"}],
        "properties": {"sits:simulated": True},
    }


# Sources


@dataclass
class Files(SceneSource):
    """Scenes whose SCL is 4 in the left `filled` columns of every patch."""

    scenes: tuple[Scene, ...] = ()
    filled: dict[str, int] = field(default_factory=dict)
    asked: list[shapely.Geometry] = field(default_factory=list)
    sampled: list[str] = field(default_factory=list)
    fails: bool = False

    def search(self, area: shapely.Geometry, season: Season) -> SearchResult:
        self.asked.append(area)
        return SearchResult(scenes=tuple(s for s in self.scenes if shapely.intersects(area, s.footprint)))

    def sample(self, scene: Scene) -> AuditSample:
        self.sampled.append(scene.id)
        if self.fails:
            raise OSError("no such file")
        vegetation = np.full(900, 400, np.uint16)
        return AuditSample(dn={"B02": vegetation, "B04": vegetation}, scl=np.full(900, 4, np.uint8))

    def read(self, scenes: Sequence[Scene], geobox: GeoBox, bands: Sequence[str], *, pad: int) -> Iterator[Raster]:
        for found in scenes:
            if self.fails:
                yield Raster(bands={}, failures=(ReadFailure(item=found.id, band="SCL", error="gone"),))
                continue
            height, width = geobox.shape
            scl = np.zeros((height // 2, width // 2), np.uint8)
            scl[:, : self.filled.get(found.id, width) // 2] = 4
            name = "SCL" if "SCL" in found.assets else bands[0]
            yield Raster(bands={name: BandWindow(dn=scl, factor=2, row=0, column=0)})


def two(day: str) -> Acquisition:
    found = (scene(day, footprint=EASTERN), scene(day, footprint=WESTERN, tile="31UDP"))
    return Acquisition(day=date.fromisoformat(day), scenes=found, verdicts=(GOOD, GOOD))


@pytest.mark.parametrize(
    ("first", "second", "full"), [(276, 276, True), (274, 276, True), (274, 274, False), (0, 0, False)]
)
def test_a_day_is_full_where_its_scenes_together_leave_no_pixel_without_data(
    first: int, second: int, full: bool
) -> None:
    day = two(MIDDLES[0])
    source = Files(filled=dict(zip((s.id for s in day.scenes), (first, second), strict=True)))
    assert fills(source, day, SPOT, WANTED.imagery) is full


def test_a_day_that_cannot_be_read_counts_as_full_so_that_the_build_names_it() -> None:
    assert fills(Files(fails=True), two(MIDDLES[0]), SPOT, WANTED.imagery)


def test_scenes_without_a_classification_are_judged_by_a_band() -> None:
    found = scene(MIDDLES[0], bands=("B02", "B04"))
    day = Acquisition(day=date.fromisoformat(MIDDLES[0]), scenes=(found,), verdicts=(GOOD,))
    assert fills(Files(), day, SPOT, WANTED.imagery)
    assert not fills(Files(filled={found.id: 100}), day, SPOT, WANTED.imagery)


def test_files_are_searched_once_for_all_locations() -> None:
    far = Spot.of(1, Location("far", 3.9, 48.1), 276)
    near_only = scene(MIDDLES[0], footprint=shapely.box(3.3, 48.6, 3.5, 48.8))
    source = Files(scenes=(near_only, scene(MIDDLES[1])))
    search, unusable = searches(source, [SPOT, far], WANTED.season)
    assert [found.id for found in search(SPOT).scenes] == [near_only.id, scene(MIDDLES[1]).id]
    assert [found.id for found in search(far).scenes] == [scene(MIDDLES[1]).id]
    assert len(source.asked) == 1
    assert shapely.intersects(source.asked[0], far.outline)
    assert unusable == ()


def test_choices_come_in_the_order_of_the_locations_however_many_are_under_way() -> None:
    spots = [Spot.of(number, replace(HERE, id=f"p{number}"), 276) for number in range(70)]
    source = Files(scenes=tuple(scene(day) for day in MIDDLES))
    search, _ = searches(source, spots, WANTED.season)
    audits = Audits(source)
    chosen = list(choose_all(spots, search, source, audits, WANTED))
    assert [one.spot.patch for one in chosen] == list(range(70))
    assert all(days(one) == list(MIDDLES) for one in chosen)
    assert sorted(source.sampled) == sorted(found.id for found in source.scenes), "each item is sampled once"


def test_an_item_is_sampled_once_whichever_threads_ask() -> None:
    source = Files()
    audits, barrier = Audits(source), threading.Barrier(8)

    def ask(_: int) -> Verdict:
        barrier.wait()
        return audits.of(REST[0])

    with ThreadPoolExecutor(8) as pool:
        verdicts = list(pool.map(ask, range(8)))
    assert source.sampled == [REST[0].id]
    assert len({id(verdict) for verdict in verdicts}) == 1
    assert verdicts[0].audited == 0


def test_a_sample_that_cannot_be_read_is_a_verdict_that_says_so() -> None:
    verdict = Audits(Files(fails=True)).of(REST[0])
    assert (verdict.audited, verdict.applied) == (None, 0)
    assert "could not be read" in verdict.reason
    assert "no such file" in verdict.reason
    loose = Audits(Files(fails=True)).of(replace(REST[0], offset_is_firm=False))
    assert loose.applied is None


def test_a_choice_is_found_again_by_its_items_and_not_where_one_is_gone() -> None:
    source = Files(scenes=tuple(scene(day) for day in MIDDLES))
    search, _ = searches(source, [SPOT], WANTED.season)
    (chosen,) = choose_all([SPOT], search, source, Audits(source), WANTED)
    bare = replace(
        chosen,
        acquisitions=tuple(
            replace(day, scenes=tuple(replace(found, assets={}) for found in day.scenes)) for day in chosen.acquisitions
        ),
    )
    assert find_again(bare, search) == chosen
    gone, _ = searches(Files(scenes=source.scenes[1:]), [SPOT], WANTED.season)
    assert find_again(bare, gone) is None


assert AROUND.contains(SPOT.outline)
