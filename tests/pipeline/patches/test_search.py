from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
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
from sits_pipeline.patches.search import Audit, Audits, Looks, choose_all, choose_one, fills, find_again, searches
from sits_pipeline.sources.access import Cost, Gate, Limit
from sits_pipeline.sources.base import SceneSource, SearchResult, ServiceDown, ServiceSource
from sits_pipeline.values import Acquisition, AuditSample, BandWindow, JsonObject, Raster, ReadFailure, Scene

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
    unread: Sequence[str] = ()
    """Items whose samples cannot be read."""
    dark: Sequence[str] = ()
    """Days whose classification cannot be read."""
    audited: list[str] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)

    @property
    def looks(self) -> Looks:
        return Looks(self.audit, self.fills)

    def audit(self, found: Scene) -> Audit:
        self.audited.append(found.id)
        verdict = replace(GOOD, refused=True, reason="a lie") if found.id in self.bad else GOOD
        return Audit(verdict=verdict, unread=found.id in self.unread, processing_units=0.02)

    def fills(self, day: Acquisition) -> bool | None:
        self.seen.append(day.day.isoformat())
        return None if day.day.isoformat() in self.dark else day.day.isoformat() not in self.empty


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


def test_what_could_not_be_looked_at_is_named_and_looks_are_paid_by_the_choice_that_needs_them() -> None:
    scenes = [scene(MIDDLES[0]), *REST]
    chosen = choose_one(SPOT, scenes, Looking().looks, WANTED)
    assert (chosen.unread, chosen.processing_units) == ((), 0.1)
    looking = Looking(unread=[scenes[1].id], dark=[MIDDLES[3]])
    chosen = choose_one(SPOT, scenes, looking.looks, WANTED)
    assert days(chosen) == list(MIDDLES)
    assert chosen.unread == (scenes[1].id, scenes[3].id)


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
    gone: Sequence[str] = ()
    """Items that cannot be read."""
    error: OSError = field(default_factory=lambda: OSError("no such file"))

    def search(self, area: shapely.Geometry, season: Season) -> SearchResult:
        self.asked.append(area)
        return SearchResult(scenes=tuple(s for s in self.scenes if shapely.intersects(area, s.footprint)))

    def sample(self, scene: Scene) -> AuditSample:
        self.sampled.append(scene.id)
        if self.fails:
            raise self.error
        vegetation = np.full(900, 400, np.uint16)
        return AuditSample(dn={"B02": vegetation, "B04": vegetation}, scl=np.full(900, 4, np.uint8))

    def read(self, scenes: Sequence[Scene], geobox: GeoBox, bands: Sequence[str], *, pad: int) -> Iterator[Raster]:
        for found in scenes:
            if self.fails or found.id in self.gone:
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


def test_of_a_day_that_cannot_be_read_nothing_is_said_but_where_its_other_scenes_fill_the_patch() -> None:
    assert fills(Files(fails=True), two(MIDDLES[0]), SPOT, WANTED.imagery) is None
    day = two(MIDDLES[0])
    missing, other = day.scenes
    assert fills(Files(gone=(missing.id,)), day, SPOT, WANTED.imagery) is True
    assert fills(Files(gone=(missing.id,), filled={other.id: 274}), day, SPOT, WANTED.imagery) is None


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

    def ask(_: int) -> Audit:
        barrier.wait()
        return audits.of(REST[0])

    with ThreadPoolExecutor(8) as pool:
        verdicts = list(pool.map(ask, range(8)))
    assert source.sampled == [REST[0].id]
    assert len({id(audit.verdict) for audit in verdicts}) == 1
    assert verdicts[0].verdict.audited == 0


def test_a_sample_that_cannot_be_read_is_a_verdict_that_says_so_until_it_can() -> None:
    source = Files(fails=True)
    audits, local = Audits(source), replace(REST[0], assets={"B02": "B02.tif", "B04": "B04.tif", "SCL": "SCL.tif"})
    audit = audits.of(local)
    assert (audit.unread, audit.verdict.audited, audit.verdict.applied) == (True, None, 0)
    assert "could not be read" in audit.verdict.reason
    assert "no such file" in audit.verdict.reason
    assert Audits(source).of(REST[0]).verdict.applied is None, "a network may bring it the next time"
    source.fails = False
    assert audits.of(local).unread
    audits.forget_unread()
    assert (audits.of(local).unread, audits.of(local).verdict.audited) == (False, 0)


def test_a_service_that_is_down_is_no_sample_that_cannot_be_read() -> None:
    with pytest.raises(ServiceDown, match="answers nothing"):
        Audits(Files(fails=True, error=ServiceDown("x answers nothing"))).of(REST[0])


@dataclass
class Service(Files):
    """The same behind an API, of which a look at an item costs 0.02 processing units."""

    table: bool = False

    @property
    def query(self) -> JsonObject:
        return {"table": "items.parquet"} if self.table else {"url": "https://example.org/v1"}

    def find(self, area: shapely.Geometry, season: Season) -> list[JsonObject]:
        raise AssertionError("search is asked")

    def scenes_from(self, items: Sequence[JsonObject], area: shapely.Geometry, season: Season) -> SearchResult:
        raise AssertionError("search is asked")

    @property
    def limits(self) -> tuple[Limit, ...]:
        return ()

    def through(self, gates: Mapping[str, Gate]) -> Service:
        return self

    def cost(self, scenes: Sequence[Scene], geobox: GeoBox, bands: Sequence[str]) -> Cost:
        return Cost(requests=len(scenes))

    def sample_cost(self, scene: Scene) -> Cost:
        return Cost(requests=1, processing_units=0.02)


def test_looks_stop_before_they_could_pass_the_bound_on_processing_units() -> None:
    source = Service()
    assert isinstance(source, ServiceSource)
    audits = Audits(source, max_pu=0.1, spent=0.06)
    assert [audits.of(found).processing_units for found in (REST[0], REST[0], REST[1])] == [0.02, 0.0, 0.02]
    with pytest.raises(RuntimeError, match=r"0\.10 processing units are used, and .* the 0\.1 of --max-pu"):
        audits.of(REST[2])
    assert source.sampled == [REST[0].id, REST[1].id]


def test_a_service_is_searched_for_each_location_and_a_table_of_items_once_for_all() -> None:
    spots = [SPOT, Spot.of(1, Location("far", 3.9, 48.1), 276)]
    for table, times in ((False, 2), (True, 1)):
        source = Service(scenes=(scene(MIDDLES[0]),), table=table)
        search, _ = searches(source, spots, WANTED.season)
        assert [[found.id for found in search(spot).scenes] for spot in spots] == [[scene(MIDDLES[0]).id]] * 2
        assert len(source.asked) == times


def test_of_a_patch_at_180_degrees_each_side_is_searched_on_its_own() -> None:
    spot = Spot.of(0, Location("taveuni", 180.0, -16.8), 276)
    assert len(shapely.get_parts(spot.outline)) == 2
    east, west = shapely.box(179.5, -17.5, 180.0, -16.0), shapely.box(-180.0, -17.5, -179.0, -16.0)
    both = scene(MIDDLES[1], footprint=shapely.MultiPolygon([east, west]))
    source = Service(scenes=(scene(MIDDLES[0], footprint=east), both, scene(MIDDLES[2], footprint=west)))
    search, _ = searches(source, [spot], WANTED.season)
    assert [found.id for found in search(spot).scenes] == [found.id for found in source.scenes]
    assert len(source.asked) == 2
    assert all(east - west < 0.03 for west, _, east, _ in map(shapely.bounds, source.asked))


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
