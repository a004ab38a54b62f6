from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
import shapely

from sits_catalog.parcel_source import ParcelSource
from sits_catalog.region import Imagery, LabelRule, Place, Region, Season, SplitRule
from sits_pipeline.plan import ZonePlan, config_sha256, zones_of_region
from sits_pipeline.plan.lattice import to_lonlat
from sits_pipeline.plan.zones import Zone
from sits_pipeline.values import Acquisition, Scene, Verdict

AREA = shapely.box(3.29, 43.61, 3.32, 43.64)
REGION = Region(
    id="herault",
    season=Season(start=date(2018, 1, 1), end=date(2018, 12, 31)),
    place=Place(bbox=(3.29, 43.61, 3.32, 43.64)),
    imagery=Imagery(source="safe", path="a/safe"),
    parcels=ParcelSource(path="a/parcels.gpkg"),
)
VERDICT = Verdict(declared=0, audited=0, applied=0, medians={}, n_pixels=0, refused=False, reason="")


def scene(name: str, baseline: str = "05.09") -> Scene:
    return Scene(
        id=name,
        provider="safe",
        collection="sentinel-2-l2a",
        sensed=datetime(2018, 4, 18, 10, 40, 21, tzinfo=UTC),
        platform="sentinel-2a",
        orbit=8,
        mgrs_tile="31TEJ",
        epsg=32631,
        baseline=baseline,
        cloud_cover=10.0,
        footprint=shapely.box(3, 43, 4.3, 44.2),
        datatake=None,
        datastrip=None,
        generated=None,
        assets={"B02": f"/somewhere/{name}.jp2"},
        declared_offset=0,
        offset_is_firm=True,
        item={},
    )


def acquisition(*scenes: Scene) -> Acquisition:
    return Acquisition(day=date(2018, 4, 18), scenes=scenes, verdicts=(VERDICT,) * len(scenes))


# Zones of a region


def test_a_region_in_one_zone_is_one_dataset_with_the_name_of_the_region() -> None:
    (zone,) = zones_of_region(REGION, AREA)
    assert zone.name == "herault"
    assert zone.epsg == 32631
    assert zone.clip_to_strip
    assert shapely.within(zone.area, shapely.box(*zone.geobox.boundingbox.bbox))


def test_a_region_across_a_zone_border_is_one_dataset_a_zone_cut_at_the_strip() -> None:
    zones = zones_of_region(REGION, shapely.box(5.95, 43.6, 6.05, 43.7))
    assert [zone.name for zone in zones] == ["herault-32631", "herault-32632"]
    # Each grid holds its own half, some 4 km wide and leaning by 400 m, and not the other.
    assert all(4000 < zone.geobox.shape[1] * 10 < 4600 for zone in zones)


def test_the_ground_of_a_cube_ends_at_the_border_of_its_strip() -> None:
    place = shapely.box(5.95, 43.6, 6.05, 43.7)
    for zone in zones_of_region(REGION, place):
        rectangle = shapely.box(*zone.geobox.boundingbox.bbox)
        assert 0.9 < zone.ground.area / rectangle.area < 0.96
        west, _, east, _ = to_lonlat(zone.ground, zone.epsg).bounds
        assert (east if zone.epsg == 32631 else west) == pytest.approx(6, abs=1e-7)
    (forced,) = zones_of_region(REGION.replace(place=Place(bbox=place.bounds, crs="EPSG:32631")), place)
    assert forced.ground.equals(shapely.box(*forced.geobox.boundingbox.bbox))


def test_a_region_across_the_equator_is_one_dataset_a_hemisphere() -> None:
    north, south = zones_of_region(REGION, shapely.box(33.0, -0.05, 33.05, 0.05))
    assert (north.epsg, south.epsg) == (32636, 32736)
    assert north.geobox.boundingbox.bottom == 0
    # 10 000 000 m, the equator in the south, is on the southern lattice itself.
    assert south.geobox.boundingbox.top == 10_000_000


def test_a_region_without_area_is_refused() -> None:
    with pytest.raises(ValueError, match="region herault has no area"):
        zones_of_region(REGION, shapely.Polygon())


def test_a_forced_zone_takes_the_whole_region_unclipped() -> None:
    region = REGION.replace(place=Place(bbox=(5.9, 43.6, 6.1, 43.7), crs="EPSG:32631"))
    (zone,) = zones_of_region(region, shapely.box(5.9, 43.6, 6.1, 43.7))
    assert zone.name == "herault"
    assert not zone.clip_to_strip
    assert zone.geobox.shape[1] * 10 > 16_000


@pytest.mark.parametrize("area", [shapely.box(5.9, 43.6, 7.0, 43.7), shapely.box(12.1, 43.6, 12.2, 43.7)])
def test_a_region_that_leaves_the_forced_zone_by_more_than_50_km_is_refused(area: shapely.Polygon) -> None:
    region = REGION.replace(place=Place(bbox=area.bounds, crs="EPSG:32631"))
    with pytest.raises(ValueError, match=r"EPSG:32631 is for a region that leaves the zone by less than 50 km"):
        zones_of_region(region, area)


def test_scenes_are_looked_for_1_km_around_the_cube() -> None:
    (zone,) = zones_of_region(REGION, AREA)
    west, south, east, north = shapely.bounds(zone.extent)
    assert west == pytest.approx(3.29 - 0.0124, abs=0.001)
    assert east == pytest.approx(3.32 + 0.0124, abs=0.001)
    assert south == pytest.approx(43.61 - 0.009, abs=0.001)
    assert north == pytest.approx(43.64 + 0.009, abs=0.001)


# The hash of what decides pixels

Case = dict[str, Any]


def case(**changes: object) -> Case:
    (zone,) = zones_of_region(REGION, AREA)
    return {
        "region": REGION,
        "zone": zone,
        "acquisitions": (acquisition(scene("a"), scene("b")),),
        "parcels_sha256": "p",
        "taxonomy_sha256": "t",
        "known": None,
        **changes,
    }


def digest(values: Case) -> str:
    values = dict(values)
    return config_sha256(values.pop("region"), values.pop("zone"), values.pop("acquisitions"), **values)


def region(**changes: object) -> Case:
    return case(region=REGION.replace(**changes))


def zone(**changes: object) -> Case:
    return case(zone=replace(zones_of_region(REGION, AREA)[0], **changes))  # type: ignore[arg-type]


DECIDING: dict[str, Callable[[], Case]] = {
    "the region's name": lambda: region(id="other"),
    "the first day": lambda: region(season=Season(start=date(2018, 1, 2), end=date(2018, 12, 31))),
    "the last day": lambda: region(season=Season(start=date(2018, 1, 1), end=date(2018, 12, 30))),
    "the bands": lambda: region(imagery=Imagery(bands=("B02", "B03"))),
    "the order of the bands": lambda: region(imagery=Imagery(bands=tuple(reversed(Imagery().bands)))),
    "who merges a day's tiles": lambda: region(imagery=Imagery(source="sentinel-hub", mosaicking="orbit")),
    "the resampling": lambda: region(imagery=Imagery(resampling="bilinear")),
    "the label rule": lambda: region(labels=LabelRule(rule="center")),
    "the least coverage": lambda: region(labels=LabelRule(min_coverage=0.6)),
    "the finer lattices": lambda: region(labels=LabelRule(finer=(2,))),
    "the split blocks": lambda: region(splits=SplitRule(block_m=1280)),
    "the buffer": lambda: region(splits=SplitRule(buffer_m=50)),
    "the shares": lambda: region(splits=SplitRule(shares={"train": 0.5, "validation": 0.3, "test": 0.2})),
    "the seed of the splits": lambda: region(splits=SplitRule(seed=1)),
    "the grid": lambda: zone(geobox=zones_of_region(REGION, AREA)[0].geobox[6:, :]),
    "the area": lambda: zone(area=shapely.buffer(zones_of_region(REGION, AREA)[0].area, -1)),
    "the clipping at the strip": lambda: zone(clip_to_strip=False),
    "an item": lambda: case(acquisitions=(acquisition(scene("a"), scene("c")),)),
    "a missing item": lambda: case(acquisitions=(acquisition(scene("a")),)),
    "the order of the items": lambda: case(acquisitions=(acquisition(scene("b"), scene("a")),)),
    "an item's baseline": lambda: case(acquisitions=(acquisition(scene("a"), scene("b", "05.10")),)),
    "the parcels": lambda: case(parcels_sha256="q"),
    "no parcels": lambda: case(parcels_sha256=None),
    "the taxonomy": lambda: case(taxonomy_sha256="u"),
    "the labelled area": lambda: case(known=shapely.box(0, 0, 1, 1)),
}


@pytest.mark.parametrize("what", DECIDING)
def test_everything_that_decides_pixels_changes_the_hash(what: str) -> None:
    assert digest(DECIDING[what]()) != digest(case())


def test_no_two_of_the_changes_give_one_hash() -> None:
    assert len({digest(make()) for make in DECIDING.values()}) == len(DECIDING)


MOVED = replace(scene("a"), assets={"B02": "https://elsewhere/a.tif"}, item={"links": ["x"]})
IDLE: dict[str, Callable[[], Case]] = {
    "the folder": lambda: region(folder=Path("/elsewhere")),
    "the title": lambda: region(title="another"),
    "the path of the images": lambda: region(imagery=Imagery(source="safe", path="b/safe")),
    "the path of the parcels": lambda: region(parcels=ParcelSource(path="b/parcels.gpkg")),
    "the addresses of the assets": lambda: case(acquisitions=(acquisition(MOVED, scene("b")),)),
    "the dataset's name": lambda: zone(name="renamed"),
    "the order of the shares": lambda: region(splits=SplitRule(shares={"test": 0.2, "train": 0.6, "validation": 0.2})),
    "where the ring of the area begins": lambda: zone(area=rolled(zones_of_region(REGION, AREA)[0].area)),
}


def rolled(polygon: shapely.Geometry) -> shapely.Polygon:
    ring = shapely.get_coordinates(polygon)[:-1].tolist()
    return shapely.Polygon([*ring[3:], *ring[:3]])


@pytest.mark.parametrize("what", IDLE)
def test_no_path_or_address_changes_the_hash(what: str) -> None:
    assert digest(IDLE[what]()) == digest(case())


def test_the_hash_is_64_hex_digits() -> None:
    assert len(digest(case())) == 64
    assert int(digest(case()), 16) > 0


# The plan of a zone


def plan(cell_px: int = 512) -> ZonePlan:
    (own,) = zones_of_region(REGION, shapely.box(3.29, 43.55, 3.40, 43.64))
    return ZonePlan(
        zone=own,
        bands=("B02", "B05", "B01"),
        acquisitions=(acquisition(scene("a"), scene("b")), acquisition(scene("c"))),
        refusals=(),
        splits=None,
        cell_px=cell_px,
        config_sha256="",
    )


def test_a_plan_counts_its_cells() -> None:
    for side in (256, 512, 1024):
        assert plan(side).n_cells == len(list(plan(side).cells()))


def test_an_estimate_counts_pixels_scenes_and_blocks() -> None:
    estimate = plan().estimate()
    height, width = plan().zone.geobox.shape
    assert (height, width) == (1008, 894)
    pixels = height * width
    assert (estimate.dates, estimate.scenes, estimate.cells) == (2, 3, 4)
    # A 10 m band has 2 bytes a cube pixel, 20 m a quarter, 60 m a 36th, and SCL one byte a quarter.
    assert estimate.read_gb == pytest.approx(3 * pixels * (2 + 2 / 4 + 2 / 36 + 1 / 4) / 1e9)
    # B02 is 2 x 2 source blocks, B05 and B01 one.
    assert estimate.requests == 3 * (4 + 1 + 1)
    assert estimate.processing_units == 0
    assert estimate.hours > 0


def test_an_estimate_counts_of_a_scene_what_it_shows_of_the_cube() -> None:
    whole, bounds = plan().estimate(), plan().zone.geobox.boundingbox.bbox
    west, south, east, north = shapely.bounds(to_lonlat(shapely.box(*bounds), 32631))
    left = replace(scene("a"), footprint=shapely.box(west - 1, south - 1, (west + east) / 2, north + 1))
    right = replace(scene("b"), footprint=shapely.box((west + east) / 2, south - 1, east + 1, north + 1))
    # Two halves make one date; a half and the whole of it are read 1.5 times and written once.
    halves = replace(plan(), acquisitions=(acquisition(left, right),)).estimate()
    assert halves.read_gb == pytest.approx(whole.read_gb / 3, rel=0.01)
    assert halves.write_gb == pytest.approx(whole.write_gb / 2, rel=0.01)
    twice = replace(plan(), acquisitions=(acquisition(left, scene("c")), acquisition(right))).estimate()
    assert twice.read_gb == pytest.approx(whole.read_gb * 2 / 3, rel=0.01)
    assert twice.write_gb == pytest.approx(whole.write_gb * 3 / 4, rel=0.01)
    assert twice.requests == pytest.approx(whole.requests * 2 / 3, abs=1)
    assert whole.hours * 3 / 4 < twice.hours < whole.hours


def test_zone_is_frozen() -> None:
    own = zones_of_region(REGION, AREA)[0]
    with pytest.raises(AttributeError):
        own.name = "x"  # type: ignore[misc]
    assert isinstance(own, Zone)
