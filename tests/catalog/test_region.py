"""Regions: what a place, a season and the rules of a region refuse, and where the demo regions lie."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pytest
from pyproj import Transformer

from sits_catalog.cube import LATTICE_M, lattice_anchor_y
from sits_catalog.loading import load_region
from sits_catalog.parcel_source import ParcelSource
from sits_catalog.region import Imagery, LabelRule, Place, Region, Season, SplitRule


def region(**changes: object) -> Region:
    return Region(
        id="here",
        season=Season(start=date(2018, 1, 1), end=date(2018, 12, 31)),
        place=Place(bbox=(3.2, 43.6, 3.3, 43.7)),
    ).replace(**changes)


def snapped_box(bbox: tuple[float, float, float, float], epsg: int) -> tuple[float, float, float, float]:
    """The bounding box in a UTM zone, edges densified, snapped outwards to the 60 m lattice."""
    west, south, east, north = bbox
    along = np.linspace(0, 1, 501)
    lon = np.concatenate([west + along * (east - west)] * 2 + [np.full(501, west), np.full(501, east)])
    lat = np.concatenate([np.full(501, south), np.full(501, north)] + [south + along * (north - south)] * 2)
    x, y = Transformer.from_crs(4326, epsg, always_xy=True).transform(lon, lat)
    anchor = lattice_anchor_y(epsg)
    return (
        float(np.floor(x.min() / LATTICE_M) * LATTICE_M),
        float(np.floor((y.min() - anchor) / LATTICE_M) * LATTICE_M + anchor),
        float(np.ceil(x.max() / LATTICE_M) * LATTICE_M),
        float(np.ceil((y.max() - anchor) / LATTICE_M) * LATTICE_M + anchor),
    )


@pytest.mark.parametrize(
    ("name", "epsg", "box"),
    [
        ("demo", 32631, (525000, 5383800, 535200, 5394000)),
        ("demo-south", 32750, (525000, 6483820, 535200, 6494020)),
    ],
)
def test_a_demo_region_is_1020_pixels_wide_and_high(
    name: str, epsg: int, box: tuple[float, float, float, float]
) -> None:
    bbox = load_region(name).place.bbox
    assert bbox is not None
    assert snapped_box(bbox, epsg) == box
    assert ((box[2] - box[0]) / 10, (box[3] - box[1]) / 10) == (1020, 1020)


@pytest.mark.parametrize(
    ("name", "whole", "north"),
    [("demo", (499980, 5400000), (499980, 5500020)), ("demo-south", (499980, 6500020), (499980, 6600040))],
)
def test_two_tiles_meet_in_a_demo_region(name: str, whole: tuple[int, int], north: tuple[int, int]) -> None:
    west, south, east, top = {"demo": (525000, 5383800, 535200, 5394000)}.get(name, (525000, 6483820, 535200, 6494020))
    side, next_column = 109_800, 600_000
    assert west > whole[0] + 9_780, "no tile of the column to the west reaches here"
    assert east < next_column - 60
    assert whole[1] - side <= south
    assert top <= whole[1]
    assert (top - (north[1] - side)) / 10 == 378


def test_a_demo_season_crosses_new_year_and_the_change_of_the_offset() -> None:
    for name in ("demo", "demo-south"):
        season = load_region(name).season
        assert season.start.year < season.end.year
        assert season.start < date(2022, 1, 25) < season.end


def test_a_season_of_one_day_is_a_season_and_a_reversed_one_is_not() -> None:
    day = date(2018, 1, 1)
    assert Season(start=day, end=day).end == day
    with pytest.raises(ValueError, match="season ends on 2017-12-31, before it starts on 2018-01-01; swap"):
        Season(start=day, end=date(2017, 12, 31))


@pytest.mark.parametrize(
    ("bbox", "message"),
    [
        ((48.6, 117.0, 48.7, 117.2), r"latitude seems to come first: did you mean 117.0,48.6,117.2,48.7\?"),
        ((200.0, 43.6, 201.0, 43.7), "longitudes must lie in -180..180, got west 200.0 and east 201.0"),
        ((3.2, 95.0, 3.3, 96.0), "latitude seems to come first"),
        ((100.0, 95.0, 101.0, 96.0), "latitudes must lie in -90..90, got south 95.0 and north 96.0; the order is"),
        ((179.9, -17.0, -179.9, -16.9), "antimeridian is not supported: build its two halves as two regions"),
        ((3.2, 43.7, 3.3, 43.6), "south 43.7 is greater than north 43.6"),
        ((3.2, 43.6, 3.2, 43.7), "has no area"),
        ((3.2, 84.5, 3.3, 85.0), "UTM zones reach from 80 S to 84 N"),
        ((3.2, float("nan"), 3.3, 43.7), "latitudes must lie"),
    ],
)
def test_a_box_that_cannot_be_is_refused_with_what_to_do(bbox: tuple[float, float, float, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Place(bbox=bbox)


def test_latitude_first_is_hinted_at_only_where_swapping_would_help() -> None:
    with pytest.raises(ValueError, match="W,S,E,N") as caught:
        Place(bbox=(100.0, 95.0, 101.0, 96.0))
    assert "did you mean" not in str(caught.value)


def test_a_place_is_exactly_one_thing() -> None:
    with pytest.raises(ValueError, match="exactly one of bbox, file and around; it has none of them"):
        Place()
    with pytest.raises(ValueError, match="it has bbox and file"):
        Place(bbox=(3.2, 43.6, 3.3, 43.7), file="area.geojson")
    with pytest.raises(ValueError, match="margin_m must be 0 m or more, got -1"):
        Place(around="parcels", margin_m=-1)


@pytest.mark.parametrize("crs", ["EPSG:2154", "EPSG:32661", "EPSG:32600", "32631"])
def test_only_a_utm_zone_can_be_forced(crs: str) -> None:
    with pytest.raises(ValueError, match=r"place\.crs forces a UTM zone"):
        Place(bbox=(3.2, 43.6, 3.3, 43.7), crs=crs)
    assert Place(bbox=(3.2, 43.6, 3.3, 43.7), crs="EPSG:32631").crs == "EPSG:32631"


def test_around_parcels_needs_parcels() -> None:
    around = Place(around="parcels")
    with pytest.raises(ValueError, match="`around: parcels`, but the region names no parcels"):
        region(place=around)
    assert region(place=around, parcels=ParcelSource(path="p.gpkg")).place.around == "parcels"


@pytest.mark.parametrize("bad", ["", "Demo", "a/b", "../x", ".hidden", "a" * 64])
def test_an_id_is_safe_as_the_name_of_a_folder(bad: str) -> None:
    with pytest.raises(ValueError, match="a region's id names its folder"):
        region(id=bad)


def test_rules_outside_their_range_are_refused() -> None:
    with pytest.raises(ValueError, match="bands must be distinct names"):
        Imagery(bands=("B02", "B02"))
    with pytest.raises(ValueError, match="max_cloud is a share in per cent"):
        Imagery(max_cloud=101)
    with pytest.raises(ValueError, match="min_coverage must lie in"):
        LabelRule(min_coverage=0)
    with pytest.raises(ValueError, match="finer lists a lattice twice"):
        LabelRule(finer=(2, 2))
    with pytest.raises(ValueError, match="multiple of 640 m"):
        SplitRule(block_m=1000)
    with pytest.raises(ValueError, match=r"buffer_m must lie in 0\.\.100 m"):
        SplitRule(buffer_m=120)
    with pytest.raises(ValueError, match="sum to 1"):
        SplitRule(shares={"train": 0.5, "validation": 0.2, "test": 0.2})


def test_relative_paths_start_from_the_folder_of_the_region_file(tmp_path: Path) -> None:
    here = region(folder=tmp_path)
    assert here.resolve("safe") == str(tmp_path / "safe")
    assert here.resolve("/data/safe") == "/data/safe"
    assert here.resolve("https://example.org/catalog.json") == "https://example.org/catalog.json"
