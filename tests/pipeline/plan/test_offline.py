"""Tiles, orbits and passes from geometry alone, against the military grid, real items and real products."""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import mgrs
import numpy as np
import pytest
import shapely
from tests.pipeline.plan.test_zones import VERDICT, scene
from typer.testing import CliRunner

from sits_catalog.cube import LATTICE_M, lattice_anchor_y
from sits_catalog.loading import list_regions, load_region
from sits_catalog.orbits import overflights, swath
from sits_catalog.region import Region, Season
from sits_pipeline.area import region_area
from sits_pipeline.cli import build_app
from sits_pipeline.outlook import look_out, outlook_as_json, outlook_in_words
from sits_pipeline.plan import ZonePlan, zones_of_region
from sits_pipeline.plan.lattice import to_lonlat
from sits_pipeline.plan.mgrs_tiles import MgrsTile, tile_at, tiles_that_meet
from sits_pipeline.plan.passes import Prospect, prospect_of
from sits_pipeline.values import Acquisition

_PRODUCT = re.compile(r"(S2[ABC])_MSIL2A_(\d{8})T(\d{2})\d{4}_N\d{4}_R(\d{3})_T(\d{2}[A-Z]{3})")


def real_data() -> Path:
    if "SITS_DATA" not in os.environ:
        pytest.skip("SITS_DATA names no folder with real items and products")
    return Path(os.environ["SITS_DATA"])


def texts(folder: Path) -> Iterator[str]:
    """All items, answers and notebooks of the real data, and the names of its products."""
    for path in sorted([*folder.rglob("*.json"), *folder.rglob("*.geojson"), *folder.rglob("*.SAFE")]):
        yield path.name if path.is_dir() else path.read_text()


def real_products() -> list[tuple[str, date, int, int, str]]:
    """Satellite, UTC day and hour of the start, relative orbit and MGRS tile of each real L2A product."""
    found = {match.groups() for text in texts(real_data()) for match in _PRODUCT.finditer(text)}
    return [
        (satellite, date.fromisoformat(day), int(hour), int(orbit), code)
        for satellite, day, hour, orbit, code in sorted(found)
    ]


def real_items() -> Iterator[dict[str, Any]]:
    """Every STAC item in the real data."""
    for text in texts(real_data()):
        if text.startswith("{"):
            yield from _items_in(json.loads(text))


def _items_in(value: object) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        if value.get("type") == "Feature" and "assets" in value:
            yield value
        for inner in value.values():
            yield from _items_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _items_in(inner)


def tile_named(code: str) -> MgrsTile:
    """The tile of an MGRS name, its square found by the library `mgrs`."""
    with warnings.catch_warnings():
        # It warns where a square's corner lies in the latitude band below.
        warnings.simplefilter("ignore", RuntimeWarning)
        zone, hemisphere, easting, northing = mgrs.MGRS().MGRSToUTM(f"{code}0000000000")
    epsg = (32600 if hemisphere == "N" else 32700) + zone
    return tile_at(epsg, int(easting // 100_000), int(northing // 100_000))


def seen_of(tile: MgrsTile, relative_orbit: int) -> float:
    """Share of a tile that a relative orbit sees."""
    square = to_lonlat(tile.square, tile.epsg)
    _, south, _, north = shapely.bounds(square)
    outline = shapely.Polygon(swath(relative_orbit, south=south, north=north))
    parts = [
        shapely.intersection(shapely.transform(outline, lambda points, turn=turn: points + [turn, 0]), square)  # noqa: RUF005
        for turn in (-360, 0, 360)
    ]
    return float(sum(shapely.area(part) for part in parts) / shapely.area(square))


def region_at(*bbox: float, season: str, **keys: Any) -> Region:
    return load_region(",".join(map(str, bbox)), season=season, source="earth-search").replace(**keys)


def prospect(region: Region) -> Prospect:
    (zone,) = zones_of_region(region, region_area(region))
    return prospect_of(zone, region.season, region.imagery.bands, cell_px=0, merged=False)


@pytest.mark.parametrize(
    "code", ["31TFM", "31TEJ", "32UPU", "32UQU", "33TWM", "33TWL", "35MNM", "06VVN", "60VUK", "33XXG"]
)
def test_a_square_is_called_as_the_military_grid_calls_it(code: str) -> None:
    assert tile_named(code).code == code


def test_known_corners_of_tiles() -> None:
    """31TFM and 28QCH as their products state them; y is 40 modulo 60 in the south."""
    assert tile_named("31TFM").square.bounds == (600000, 5090220, 709800, 5200020)
    assert (tile_named("28QCH").ulx, tile_named("28QCH").uly) == (300000, 2300040)
    south = tile_named("35MNM")
    assert south.uly % LATTICE_M == lattice_anchor_y(32735) == 40


def test_corners_of_tiles_are_those_of_real_items() -> None:
    corners = {
        (str(item["id"]), asset["proj:transform"][2], asset["proj:transform"][5])
        for item in real_items()
        for asset in item["assets"].values()
        if asset.get("proj:transform", [0])[0] in (10, 20, 60) and re.search(r"_T?\d{2}[A-Z]{3}_", item["id"])
    }
    assert len(corners) >= 8
    for name, x, y in corners:
        (code,) = re.findall(r"_T?(\d{2}[A-Z]{3})_", name)
        tile = tile_named(code)
        assert (tile.ulx, tile.uly) == (x, y), name


def test_every_real_product_comes_from_a_tile_that_its_orbit_sees() -> None:
    products = real_products()
    assert len(products) >= 150
    assert len({orbit for *_, orbit, _ in products}) >= 10
    for name in products:
        *_, orbit, code = name
        tile = tile_named(code)
        assert tile.code == code
        # Orbit 116's last scene in the list has 0.5 % of its tile.
        assert seen_of(tile, orbit) > 0, name


def test_every_real_product_was_sensed_on_a_predicted_day_by_the_predicted_satellite() -> None:
    for satellite, day, hour, orbit, code in real_products():
        tile = tile_named(code)
        place = shapely.centroid(to_lonlat(tile.square, tile.epsg))
        season = Season(start=day, end=day)
        passes = overflights(orbit, season, longitude=shapely.get_x(place), latitude=shapely.get_y(place))
        assert [flight.satellite for flight in passes] == [satellite], (satellite, day, hour, orbit, code)


def test_no_product_is_predicted_between_the_real_ones() -> None:
    """Seven dates of tile 31TEJ in 2018 are five or ten days, or a multiple, apart, as those of orbit 8 are."""
    days = {day for _, day, _, orbit, code in real_products() if (orbit, code) == (8, "31TEJ")}
    assert len(days) == 7
    predicted = {flight.day for flight in overflights(8, _YEAR_2018, longitude=3.3, latitude=43.6)}
    assert days <= predicted
    assert len(predicted) == 73


def test_the_part_of_a_tile_that_is_seen_is_the_part_of_real_items_that_holds_data() -> None:
    """Of a tile, 1.5 % is 1.6 km; where a recording begins or ends in a tile, the item holds less."""
    compared = 0
    for item in real_items():
        nodata = item["properties"].get("s2:nodata_pixel_percentage")
        product = _PRODUCT.search(str(item["properties"].get("s2:product_uri")))
        if nodata is None or product is None:
            continue
        _, _, _, orbit, code = product.groups()
        held, seen = 1 - nodata / 100, seen_of(tile_named(code), int(orbit))
        assert seen > held - 0.015, (orbit, code)
        if (orbit, code) not in _RECORDING_ENDS:
            assert seen == pytest.approx(held, abs=0.015), (orbit, code)
            compared += 1
    assert compared > 30


_RECORDING_ENDS = {
    ("116", code) for code in ("58UFE", "58UGE", "59ULV", "59UMU", "59UMV", "59VMF", "59VNE", "59VNF", "59VPE", "60VUK")
}
_RECORDING_ENDS |= {("095", code) for code in ("20EPT", "24MUV", "24MVV", "24MWV", "24MXV")}
_YEAR_2018 = Season(start=date(2018, 1, 1), end=date(2018, 12, 31))


@pytest.mark.parametrize("epsg", [32630, 32634, 32735])
def test_each_point_lies_in_the_tile_of_its_military_square(epsg: int) -> None:
    rng = np.random.default_rng(epsg)
    grid, hemisphere = mgrs.MGRS(), "N" if epsg < 32700 else "S"
    for x, y in zip(rng.uniform(420_000, 580_000, 30), rng.uniform(4_000_000, 7_500_000, 30), strict=True):
        point = shapely.box(x, y, x + 10, y + 10)
        tiles = tiles_that_meet(point, epsg)
        name = grid.UTMToMGRS(epsg % 100, hemisphere, x, y, MGRSPrecision=0)
        # Of a square that two latitude bands share, Sentinel-2 has one tile, called after the band of its centre.
        assert name[:2] + name[3:] in {tile.code[:2] + tile.code[3:] for tile in tiles}
        assert 1 <= len(tiles) <= 4


def test_squares_beyond_the_zones_strip_have_no_tile() -> None:
    """Zone 31 ends at 6 E, x 733 km at 46 N: a box at 760 km may lie in 32's tiles alone."""
    assert tiles_that_meet(shapely.box(850_000, 5_100_000, 860_000, 5_110_000), 32631) == ()
    assert [tile.code for tile in tiles_that_meet(shapely.box(720_000, 5_120_000, 725_000, 5_130_000), 32631)] == [
        "31TGM"
    ]


def test_the_outlook_of_a_region_in_one_tile_is_the_plan_of_all_its_passes() -> None:
    """Where one tile holds the region and nothing is missing, --plan and --plan --offline agree."""
    region = region_at(3.29, 43.61, 3.32, 43.64, season="2018-01-01/2018-12-31")
    found = prospect(region)
    assert [(orbit.relative_orbit, len(orbit.days)) for orbit in found.orbits] == [(8, 73)]
    assert found.mgrs_tiles == ("31TEJ",)
    acquisitions = tuple(
        Acquisition(day=day, scenes=(scene(f"S2A_{day:%Y%m%d}"),), verdicts=(VERDICT,)) for day in found.days
    )
    plan = ZonePlan(
        zone=found.zone,
        bands=region.imagery.bands,
        acquisitions=acquisitions,
        refusals=(),
        splits=None,
        cell_px=found.cell_px,
        config_sha256="",
    )
    searched, foreseen = plan.estimate(), found.estimate
    assert (foreseen.dates, foreseen.scenes, foreseen.cells) == (searched.dates, searched.scenes, searched.cells)
    assert foreseen.write_gb == pytest.approx(searched.write_gb)
    assert foreseen.hours == pytest.approx(searched.hours)
    assert foreseen.read_gb == pytest.approx(searched.read_gb, rel=0.01)
    assert found.shard_px == plan.shard


def test_a_square_kilometre_of_73_dates_costs_10_processing_units() -> None:
    """9.3 PU of ten bands (100 x 100 px / 512^2 x 10/3 x 73), and a tenth more for the scene classification."""
    region = region_at(-0.80, 9.40, -0.78, 9.42, season="2019-01-01/2019-12-31")
    found = prospect(region)
    height, width = found.zone.geobox.shape
    assert found.estimate.dates == 73
    assert found.estimate.processing_units / (height * width / 1e4) == pytest.approx(9.3 * 1.1, rel=0.01)


def test_revisit_days_are_those_of_the_orbits_that_see_a_place() -> None:
    assert prospect(region_at(-0.80, 9.40, -0.78, 9.42, season="2019-01-01/2019-12-31")).revisit_days == 5
    assert prospect(region_at(-0.80, 9.40, -0.78, 9.42, season="2016-01-01/2016-12-31")).revisit_days == 10
    both = prospect(region_at(11.3, 48.4, 11.4, 48.5, season="2018-01-01/2018-12-31"))
    assert [orbit.relative_orbit for orbit in both.orbits] == [22, 65]
    assert both.revisit_days == pytest.approx(2.5, abs=0.01)


@pytest.mark.slow
def test_a_short_season_has_the_revisit_of_the_satellites_on_duty_and_no_wait() -> None:
    """9.4 N, 0.8 W is seen by one orbit, every 5 days by two satellites; by one every 10."""
    for year, expected in ((2016, 10.0), (2019, 5.0)):
        bbox = (-0.80, 9.40, -0.78, 9.42)
        day = prospect(region_at(*bbox, season=f"{year}-03-01/{year}-03-31")).days[0]
        region = region_at(*bbox, season=f"{day}/{day}")
        assert prospect(region).revisit_days == expected
        said = outlook_in_words(look_out(region, cell_px=0))
        assert f"every {expected} days\n" in said


@pytest.mark.parametrize("north", [-17.0, 60.0, 0.1])
def test_regions_on_both_sides_of_the_antimeridian_are_seen_whole(north: float) -> None:
    """The grid of a region that ends at 180 E, snapped outwards, goes beyond it."""
    for west in (179.7, -180.0):
        found = prospect(region_at(west, north, west + 0.3, north + 0.3, season="2023-01-01/2023-12-31"))
        assert sum(orbit.share for orbit in found.orbits) >= 0.99
        assert all(len(orbit.days) == 73 for orbit in found.orbits)
        assert {code[:2] for code in found.mgrs_tiles} == {"60" if west > 0 else "01"}


def run(*words: str) -> Any:
    return CliRunner().invoke(build_app, ["--plan", "--offline", *words])


def test_the_command_says_that_it_estimates_and_what_it_cannot_know() -> None:
    said = run("--region", "t31tfm-2017").stdout
    assert said.startswith("estimated from orbits and tiles, without network")
    assert "R008 (100%, 55 passes), R108 (" in said
    assert "  dates      about 109 from 2017-01-03" in said
    assert "sits-catalog parcels fetch fr-rpg --year 2017" in said
    assert "  not known  clouds; passes without acquisition" in said
    document = json.loads(run("--region", "t31tfm-2017", "--json").stdout)
    assert document["estimated"] is True
    assert "clouds" in document["unknown"]
    (dataset,) = document["datasets"]
    assert dataset["crs"] == "EPSG:32631"
    assert "31TFM" in dataset["mgrs_tiles"]
    assert dataset["estimate"]["dates"] == len(dataset["dates"]) == 109


def test_a_season_that_the_provider_lacks_is_said() -> None:
    words = "--region", "t31tfm-2017", "--source", "earth-search"
    assert "  but        earth-search (sentinel-2-l2a) is known to hold L2A from 2017-03-28" in run(*words).stdout


def test_a_region_across_two_zones_has_an_outlook_of_each() -> None:
    region = region_at(5.9, 45.0, 6.1, 45.1, season="2019-01-01/2019-12-31")
    document = outlook_as_json(look_out(region, cell_px=0))
    assert [dataset["crs"] for dataset in document["datasets"]] == ["EPSG:32631", "EPSG:32632"]
    assert [dataset["mgrs_tiles"] for dataset in document["datasets"]] == [["31TGK", "31TGL"], ["32TKQ", "32TKR"]]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--region", "demo"], "region demo is simulated: its 24 dates are no passes of a satellite"),
        (["--locations", "a.csv"], "--offline is for --plan of a region"),
        (
            ["--region", "3,45,3.1,45.1", "--season", "2014-01-01/2014-12-31", "--source", "cdse"],
            "no Sentinel-2 satellite was observing",
        ),
    ],
)
def test_what_cannot_be_estimated_is_one_sentence(words: list[str], sentence: str) -> None:
    ended = run(*words)
    assert ended.exit_code == 2
    assert sentence in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_offline_alone_is_refused() -> None:
    ended = CliRunner().invoke(build_app, ["--region", "t31tfm-2017", "--offline"])
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert "--offline is for --plan of a region" in ended.stderr


@pytest.mark.slow
def test_the_page_of_regions_agrees_with_what_is_printed_today() -> None:
    page = (Path(__file__).parents[3] / "docs" / "reference" / "regions.md").read_text()
    expected = table_of_regions()
    assert expected in page, f"put this table into docs/reference/regions.md:\n\n{expected}"


def table_of_regions() -> str:
    """The table of docs/reference/regions.md: the estimated plan of each shipped region."""
    rows = [
        "| region | season | imagery | parcels | grid | MGRS tiles | orbits | revisit, days | dates | scenes "
        "| read, GB | write, GB | PU, thousand |",
        "|---|---|---|---|---|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name in list_regions():
        region = load_region(name)
        if region.imagery.source == "simulated":
            continue
        found = prospect(region)
        cost, (height, width) = found.estimate, found.zone.geobox.shape
        parcels = "" if region.parcels is None else f"{region.parcels.source} {region.parcels.year}"
        cells = (
            f"`{name}`",
            f"{region.season.start} to {region.season.end}",
            region.imagery.source,
            parcels,
            f"EPSG:{found.zone.epsg}, {width / 100:.0f} x {height / 100:.0f} km",
            " ".join(found.mgrs_tiles),
            " ".join(f"R{orbit.relative_orbit:03d}" for orbit in found.orbits),
            f"{found.revisit_days:.1f}",
            str(cost.dates),
            str(cost.scenes),
            f"{cost.read_gb:.0f}",
            f"{cost.write_gb:.0f}",
            f"{cost.processing_units / 1000:.0f}",
        )
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)
