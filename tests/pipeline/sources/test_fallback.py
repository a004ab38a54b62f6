from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pytest
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox

from sits_catalog.region import Season
from sits_pipeline.sources.access import Cost, Gate, Limit, Open
from sits_pipeline.sources.base import SearchResult, ServiceDown, ServiceSource, SourceError, UnusableItem
from sits_pipeline.sources.fallback import FallbackSource, with_twins
from sits_pipeline.values import AuditSample, BandWindow, JsonObject, Raster, ReadFailure, Scene

AREA, SEASON = shapely.box(0, 0, 1, 1), Season(start=date(2023, 8, 1), end=date(2023, 8, 31))
GRID = GeoBox((2, 2), Affine(10, 0, 600_000, 0, -10, 4_900_020), "EPSG:32631")


def scene(identifier: str, **changes: Any) -> Scene:
    values: dict[str, Any] = {
        "id": identifier,
        "provider": "first",
        "collection": "sentinel-2-l2a",
        "sensed": datetime(2023, 8, 13, 10, 40, 21, tzinfo=UTC),
        "platform": "sentinel-2a",
        "orbit": 8,
        "mgrs_tile": "31TEJ",
        "epsg": 32631,
        "baseline": "05.09",
        "cloud_cover": 1.0,
        "footprint": shapely.box(0, 0, 1, 1),
        "datatake": None,
        "datastrip": None,
        "generated": None,
        "assets": {"B02": "a", "SCL": "b"},
        "declared_offset": -1000,
        "offset_is_firm": True,
        "item": {"id": identifier},
    }
    return Scene(**{**values, **changes})


@dataclass
class Service:
    """A source whose pixels are one number, which may be down."""

    name: str
    value: int
    scenes: tuple[Scene, ...] = ()
    down: bool = False
    dies_at: int | None = None
    """Reading this scene of a day, and all later ones, finds the service down."""
    asked: list[str] = field(default_factory=list)
    gate: Gate = field(default_factory=Open)
    failures: tuple[ReadFailure, ...] = ()

    @property
    def query(self) -> JsonObject:
        return {"url": self.name}

    @property
    def limits(self) -> tuple[Limit, ...]:
        return (Limit(name=self.name, at_once=4, a_minute=0),)

    def through(self, gates: Mapping[str, Gate]) -> Service:
        return replace(self, gate=gates[self.name])

    def cost(self, scenes: Sequence[Scene], geobox: GeoBox, bands: Sequence[str]) -> Cost:
        return Cost(requests=len(scenes) * len(bands))

    def sample_cost(self, scene: Scene) -> Cost:
        return Cost()

    def search(self, area: shapely.Geometry, season: Season) -> SearchResult:
        return self.scenes_from(self.find(area, season), area, season)

    def find(self, area: shapely.Geometry, season: Season) -> list[JsonObject]:
        if self.down:
            raise SourceError(f"{self.name} did not answer")
        return [{"id": one.id, "properties": {"n": n}} for n, one in enumerate(self.scenes)]

    def scenes_from(self, items: Sequence[JsonObject], area: shapely.Geometry, season: Season) -> SearchResult:
        by_id = {one.id: one for one in self.scenes}
        assert all(set(item["properties"]) == {"n"} for item in items), "a mark of another source reached this one"
        unusable = tuple(
            UnusableItem(id=item["id"], reason="?", item=item) for item in items if item["id"] not in by_id
        )
        found = tuple(replace(by_id[item["id"]], item=item) for item in items if item["id"] in by_id)
        return SearchResult(scenes=found, unusable=unusable)

    def sample(self, scene: Scene) -> AuditSample:
        self.ask(scene)
        return AuditSample(dn={"B02": np.full(1, self.value, np.uint16)}, scl=None)

    def read(self, scenes: Sequence[Scene], geobox: GeoBox, bands: Sequence[str], *, pad: int) -> Iterator[Raster]:
        for n, one in enumerate(scenes):
            self.ask(one, n)
            dn = np.full((2 + 2 * pad, 2 + 2 * pad), self.value, np.uint16)
            window = BandWindow(dn=dn, factor=1, row=pad, column=pad)
            failures = tuple(replace(failure, item=one.id) for failure in self.failures)
            yield Raster(bands=dict.fromkeys(bands, window), failures=failures)

    def ask(self, scene: Scene, n: int = 0) -> None:
        self.asked.append(scene.id)
        if self.down or (self.dies_at is not None and n >= self.dies_at):
            raise ServiceDown(f"{self.name} did not answer")


def pair(*, twins: bool = True, **options: Any) -> tuple[FallbackSource, Service, Service]:
    second = Service("second", 2, tuple(scene(f"{name}-there", provider="second", mgrs_tile=name) for name in "abc"))
    first = Service("first", 1, tuple(scene(name, mgrs_tile=name) for name in "abc"), **options)
    if not twins:
        second.scenes = ()
    return FallbackSource(first, second), first, second


def test_a_scene_that_the_first_does_not_give_whole_is_the_seconds_where_that_does() -> None:
    source, first, second = pair()
    scenes = day(source)
    first.failures = (ReadFailure(item="", band="B02", error="no answer after 8 tries"),)
    rasters = list(source.read(scenes, GRID, ["B02"], pad=0))
    assert [raster.failures for raster in rasters] == [()] * 3
    assert [int(raster.bands["B02"].dn[0, 0]) for raster in rasters] == [2, 2, 2]
    assert rasters[0].note == "read from second (a-there): first did not give B02"
    second.failures = first.failures
    rasters = list(source.read(scenes, GRID, ["B02"], pad=0))
    assert [raster.failures[0].item for raster in rasters] == ["a", "b", "c"]
    second.down = True
    rasters = list(source.read(scenes, GRID, ["B02"], pad=0))
    assert [(raster.failures[0].item, raster.note) for raster in rasters] == [("a", ""), ("b", ""), ("c", "")]


def day(source: FallbackSource) -> list[Scene]:
    return list(source.search(AREA, SEASON).scenes)


def read_values(source: FallbackSource, scenes: Sequence[Scene]) -> list[tuple[int, str]]:
    return [(int(r.bands["B02"].dn[0, 0]), r.note) for r in source.read(scenes, GRID, ["B02"], pad=0)]


def test_it_is_a_service_and_travels() -> None:
    source, _, _ = pair()
    assert isinstance(source, ServiceSource)
    assert pickle.loads(pickle.dumps(source)) == source


def test_the_first_is_read_while_it_answers() -> None:
    source, _, second = pair()
    assert read_values(source, day(source)) == [(1, "")] * 3
    assert int(source.sample(day(source)[0]).dn["B02"][0]) == 1
    assert second.asked == []


def test_scenes_are_those_of_the_first_with_their_twins() -> None:
    source, _, second = pair()
    assert [(one.id, one.twin and one.twin.id) for one in day(source)] == [
        ("a", "a-there"), ("b", "b-there"), ("c", "c-there"),
    ]  # fmt: skip
    second.scenes = second.scenes[1:]
    assert [one.twin is None for one in day(source)] == [True, False, False]


def test_items_of_the_second_are_marked_for_later_and_reach_it_unmarked() -> None:
    source, first, second = pair()
    items = source.find(AREA, SEASON)
    assert [item["id"] for item in items] == ["a", "b", "c", "a-there", "b-there", "c-there"]
    assert items[:3] == first.find(AREA, SEASON)
    assert all(item["properties"]["sits:fallback"] is True for item in items[3:])
    first.down = second.down = True
    found = source.scenes_from(items, AREA, SEASON)
    assert found.unusable == ()
    assert found.scenes[0].item == {"id": "a", "properties": {"n": 0}}
    assert found.scenes[0].twin is not None
    assert found.scenes[0].twin.item == {"id": "a-there", "properties": {"n": 0}}


@pytest.mark.parametrize("name", ["first", "second"])
def test_a_search_needs_both(name: str) -> None:
    source, first, second = pair()
    (first if name == "first" else second).down = True
    with pytest.raises(SourceError, match=f"{name} did not answer"):
        source.search(AREA, SEASON)


@pytest.mark.parametrize("dies_at", [0, 1, 2])
def test_from_where_the_first_is_down_the_second_is_read_and_said_so(dies_at: int) -> None:
    source, first, second = pair(dies_at=dies_at)
    scenes = day(source)
    notes = [f"read from second ({name}-there): first did not answer" for name in "abc"]
    assert read_values(source, scenes) == [(1, "")] * dies_at + [(2, note) for note in notes[dies_at:]]
    assert first.asked == ["a", "b", "c"][: dies_at + 1]
    assert second.asked == [f"{name}-there" for name in "abc"[dies_at:]]


def test_scenes_are_read_when_they_are_asked_for() -> None:
    source, first, _ = pair()
    rasters = source.read(day(source), GRID, ["B02"], pad=1)
    assert first.asked == []
    assert next(rasters).bands["B02"].dn.shape == (4, 4)
    assert first.asked == ["a"]


def test_without_a_twin_a_service_that_is_down_stays_down() -> None:
    source, first, second = pair(twins=False)
    scenes = day(source)
    first.down = True
    with pytest.raises(ServiceDown, match=r"^first did not answer$"):
        read_values(source, scenes)
    with pytest.raises(ServiceDown, match=r"^first did not answer$"):
        source.sample(scenes[0])
    assert second.asked == []


def test_where_neither_answers_both_are_named() -> None:
    source, first, second = pair()
    scenes = day(source)
    first.down = second.down = True
    for read in (lambda: read_values(source, scenes), lambda: source.sample(scenes[0])):
        with pytest.raises(ServiceDown, match="first did not answer; nor did the fallback: second did not answer"):
            read()


def test_a_sample_comes_from_the_second_where_the_first_is_down() -> None:
    source, first, _ = pair()
    scenes = day(source)
    first.down = True
    assert int(source.sample(scenes[0]).dn["B02"][0]) == 2


def test_failures_of_a_twin_are_listed_under_the_scene() -> None:
    source, first, second = pair()
    scenes = day(source)
    first.down = True
    second.failures = (ReadFailure(item="", band="B02", error="cut"),)
    (raster,) = source.read(scenes[:1], GRID, ["B02"], pad=0)
    assert [(failure.item, failure.error) for failure in raster.failures] == [("a", "cut")]


def test_limits_gates_query_and_cost() -> None:
    source, _, _ = pair()
    assert {limit.name for limit in source.limits} == {"first", "second"}
    assert source.query == {"url": "first", "fallback": {"url": "second"}}
    one, other = Open(), Open()
    through = source.through({"first": one, "second": other})
    assert isinstance(through.first, Service)
    assert isinstance(through.second, Service)
    assert (through.first.gate is one, through.second.gate is other) == (True, True)
    assert source.cost(day(source), GRID, ["B02", "B04"]) == Cost(requests=6)


STRIP = "S2A_OPER_MSI_L2A_DS_{}_20230813T{}_S20230813T104{}_N05.09"


@pytest.mark.parametrize(
    ("changes", "is_twin"),
    [
        ({}, True),
        ({"sensed": datetime(2023, 8, 13, 10, 40, 22, tzinfo=UTC)}, True),
        ({"sensed": datetime(2023, 8, 13, 10, 40, 23, tzinfo=UTC)}, False),
        ({"assets": {"B02": "c", "SCL": "d", "B04": "e"}}, True),
        ({"assets": {"B02": "c"}}, False),
        ({"baseline": "05.10"}, False),
        ({"mgrs_tile": "31TFJ"}, False),
        ({"platform": "sentinel-2b"}, False),
        ({"declared_offset": 0}, False),
        ({"offset_is_firm": False}, False),
    ],
)
def test_twins_are_the_same_product_of_the_same_radiometry(changes: dict[str, Any], is_twin: bool) -> None:
    one, other = scene("one"), scene("other", **changes)
    assert (with_twins([one], [other])[0].twin is not None) == is_twin
    if "offset_is_firm" in changes or "sensed" in changes:
        assert (with_twins([other], [one])[0].twin is not None) == is_twin


def test_halves_of_a_split_granule_are_paired_by_their_datastrip_whatever_the_items_time() -> None:
    halves = [
        scene(name, datastrip=STRIP.format("2APS", "150000", strip), sensed=scene("x").sensed + timedelta(minutes=n))
        for n, (name, strip) in enumerate([("upper", "512"), ("lower", "517")])
    ]
    others = [scene(f"{half}-2", datastrip=STRIP.format("ESRI", made, strip))
              for half, made, strip in [("lower", "160000", "517"), ("upper", "170000", "512")]]  # fmt: skip
    assert [one.twin and one.twin.id for one in with_twins(halves, others)] == ["upper-2", "lower-2"]


def test_without_a_datastrip_the_start_of_the_datatake_counts() -> None:
    one = scene("one", datatake="GS2A_20230813T104021_042526_N05.09", sensed=datetime(2023, 8, 13, 10, 45, tzinfo=UTC))
    same, another = (scene(start, datatake=f"GS2A_20230813T{start}_042526_N05.09") for start in ("104021", "090000"))
    assert with_twins([one], [another, same])[0].twin == same
    assert with_twins([one], [another])[0].twin is None


def test_of_several_copies_the_newest_is_the_twin() -> None:
    made = [datetime(2023, 8, day, tzinfo=UTC) for day in (14, 16, 15)]
    copies = [scene(f"copy-{n}", generated=time) for n, time in enumerate(made)]
    assert with_twins([scene("one")], copies)[0].twin == copies[1]
