from __future__ import annotations

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.pipeline.sources.test_stac import EVERYWHERE
from tests.pipeline.sources.tiny_archive import item

from sits_catalog.region import Season
from sits_catalog.sentinel2 import BANDS
from sits_pipeline.sources.items import scene_from_item
from sits_pipeline.sources.providers import PROVIDERS
from sits_pipeline.sources.stac import StacSource
from sits_pipeline.values import Scene

EVER = Season(start=date(2015, 1, 1), end=date(2030, 12, 31))


def scene(document: dict[str, Any]) -> Scene:
    return scene_from_item(document, lambda href: f"/data/{href}")


def with_assets(*keys: str, **changes: Any) -> dict[str, Any]:
    return {**item(), "assets": {key: {"href": f"{key}.tif"} for key in keys}, **changes}


def real(folder: Path) -> dict[str, Scene]:
    found = StacSource(str(folder)).search(EVERYWHERE, EVER)
    assert found.unusable == ()
    return {scene.id: scene for scene in found.scenes}


@pytest.mark.parametrize(
    ("name", "baseline", "declared"),
    [
        ("S2A_33TWN_20161202_0_L2A", "00.01", 0),
        ("S2A_33TWN_20210629_0_L2A", "03.00", 0),
        ("S2A_33TWN_20220122_0_L2A", "03.01", 0),
        ("S2B_33TWN_20220130_0_L2A", "04.00", 0),
        ("S2B_33TWN_20220226_0_L2A", "04.00", -1000),
    ],
)
def test_real_earth_search_items_give_their_offset_by_flag_and_baseline(
    sits_data: Path, name: str, baseline: str, declared: int
) -> None:
    scene = real(sits_data / "earthsearch/boa_offset_items" / f"{name}.json")[name]
    assert (scene.provider, scene.baseline, scene.declared_offset) == ("earth-search", baseline, declared)
    assert not scene.offset_is_firm
    assert set(scene.assets) == {*BANDS, "SCL"}
    assert scene.assets["B8A"].endswith("/B8A.tif")
    assert scene.mgrs_tile == "33TWN"


def test_an_item_of_the_year_2020_is_read(sits_data: Path) -> None:
    path = sits_data / "stac/earth_search_v0/S2A_28QCH_20200714_0_L2A.json"
    assert json.loads(path.read_text())["stac_version"] == "1.0.0-beta.1"
    scene = real(path)["S2A_28QCH_20200714_0_L2A"]
    assert (scene.baseline, scene.orbit, scene.mgrs_tile, scene.epsg) == ("02.14", 123, "28QCH", 32628)
    assert (scene.provider, scene.declared_offset, scene.offset_is_firm) == ("earth-search", 0, False)


def test_real_planetary_computer_items_are_raw_by_a_firm_rule(sits_data: Path) -> None:
    scenes = real(sits_data / "stac/planetary_computer/search_20200606_tall_strip.geojson")
    assert len(scenes) == 9
    scene = scenes["S2B_MSIL2A_20200606T080609_R078_T35MNM_20200826T094900"]
    assert (scene.provider, scene.baseline, scene.orbit, scene.offset_is_firm) == (
        "planetary-computer",
        "02.12",
        78,
        True,
    )
    assert (scene.platform, scene.mgrs_tile, scene.epsg) == ("sentinel-2b", "35MNM", 32735)
    assert scene.generated == datetime(2020, 8, 26, 9, 49, 0, 176_000, tzinfo=UTC)


def test_an_answer_with_other_collections_gives_scenes_and_says_what_the_rest_is(
    sits_data: Path, tmp_path: Path
) -> None:
    exchange = json.loads((sits_data / "stac/earth_search_v1/exchanges/search_filter_cql2_2.json").read_text())
    body = exchange["response"]["body"]
    path = tmp_path / "items.json"
    path.write_text(body if isinstance(body, str) else json.dumps(body))
    found = StacSource(str(path)).search(EVERYWHERE, EVER)
    rules = {(scene.collection, scene.declared_offset, scene.offset_is_firm) for scene in found.scenes}
    assert rules == {("sentinel-2-c1-l2a", -1000, True), ("sentinel-2-l2a", 0, False)}
    reasons = {one.reason for one in found.unusable}
    assert reasons == {
        "a Level-1C scene; cubes are built from Level-2A",
        "not a Sentinel-2 scene but one of sentinel-1a",
    }


def test_items_of_stac_0_9_without_assets_for_bands_say_so(sits_data: Path) -> None:
    path = sits_data / "stac/sentinel_hub/catalog_0_9/catalog_search_response.S2L2ALayer.json"
    found = StacSource(str(path)).search(EVERYWHERE, EVER)
    assert [one.reason for one in found.unusable] == ["no band among its assets (data)"]


@pytest.mark.parametrize(
    ("document", "provider", "declared", "firm"),
    [
        (with_assets("B02", "SCL"), "planetary-computer", -1000, True),
        (with_assets("B02_10m", "SCL_20m"), "cdse", -1000, True),
        (with_assets("blue", "scl"), "earth-search", -1000, False),
        (with_assets("blue", "scl", collection="sentinel-2-c1-l2a"), "earth-search", -1000, True),
        (with_assets("blue", "scl", collection="my-own"), "stac", -1000, True),
        (with_assets("B02", collection=None), "stac", -1000, True),
    ],
)
def test_the_item_itself_tells_whose_rule_applies(
    document: dict[str, Any], provider: str, declared: int, firm: bool
) -> None:
    found = scene(document)
    assert (found.provider, found.declared_offset, found.offset_is_firm) == (provider, declared, firm)


def test_the_flag_of_earth_search_counts_and_its_raster_offset_never_does() -> None:
    document = with_assets("blue")
    document["assets"]["blue"]["raster:bands"] = [{"offset": -0.1, "scale": 0.0001}]
    document["properties"]["earthsearch:boa_offset_applied"] = True
    assert scene(document).declared_offset == 0
    document["properties"]["earthsearch:boa_offset_applied"] = "yes"
    assert scene(document).declared_offset == -1000
    document["properties"]["s2:processing_baseline"] = "03.01"
    assert scene(document).declared_offset == 0


@pytest.mark.parametrize("name", list(PROVIDERS))
def test_the_names_of_every_provider_are_known_and_lead_to_all_bands(name: str) -> None:
    table = PROVIDERS[name].assets
    assert set(table) == {*BANDS, "SCL"}
    found = scene(with_assets(*(key.partition("/")[0] for key in table.values())))
    # The array of B01 lies in a group that has an asset of its own.
    below = {
        band: f"/data/{group}.tif/{array}"
        for band, key in table.items()
        for group, _, array in [key.partition("/")]
        if array
    }
    assert found.assets == {**{band: f"/data/{key}.tif" for band, key in table.items()}, **below}
    assert found.provider == name


def test_a_cog_is_preferred_to_its_jpeg_2000_twin() -> None:
    assert scene(with_assets("blue-jp2", "blue", "red-jp2")).assets == {
        "B02": "/data/blue.tif",
        "B04": "/data/red-jp2.tif",
    }


def test_unknown_asset_names_are_resolved_by_their_bands() -> None:
    document = with_assets("x", "y", "z", "scl_file", "rgb")
    document["assets"]["x"]["eo:bands"] = [{"name": "B05"}]
    document["assets"]["y"]["bands"] = [{"name": "what", "eo:common_name": "nir08"}]
    document["assets"]["z"]["eo:bands"] = [{"name": "z", "common_name": "rededge"}]  # three bands are called that
    document["assets"]["rgb"]["eo:bands"] = [{"common_name": "red"}, {"common_name": "green"}]
    assert scene(document).assets == {"B05": "/data/x.tif", "B8A": "/data/y.tif", "SCL": "/data/scl_file.tif"}


def test_new_names_of_properties_are_read_too() -> None:
    document = item()
    for name in ("s2:processing_baseline", "proj:epsg", "grid:code", "sat:relative_orbit"):
        del document["properties"][name]
    document["properties"] |= {
        "processing:version": "05.12",
        "processing:datetime": "2025-01-01T00:00:00Z",
        "proj:code": "EPSG:32601",
        "grid:code": "MGRS-1CCV",
        "s2:product_uri": "S2A_MSIL2A_20230813T104021_N0512_R008_T01CCV_20230813T150000.SAFE",
    }
    found = scene(document)
    assert (found.baseline, found.epsg, found.mgrs_tile, found.orbit) == ("05.12", 32601, "01CCV", 8)
    assert found.generated == datetime(2025, 1, 1, tzinfo=UTC)


def test_the_crs_may_stand_in_the_assets() -> None:
    document = item()
    del document["properties"]["proj:epsg"]
    document["assets"]["B02"]["proj:code"] = "EPSG:32631"
    assert scene(document).epsg == 32631
    document["assets"]["B04"]["proj:epsg"] = 32632
    with pytest.raises(ValueError, match="several CRSs: EPSG:32631, EPSG:32632"):
        scene(document)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"properties": None}, "no properties"),
        ({"assets": []}, "no assets"),
        ({"assets": {"thumbnail": {"href": "x.png"}}}, r"no band among its assets \(thumbnail\)"),
        ({"geometry": None, "bbox": None}, "no footprint: neither a geometry nor a bbox"),
        ({"geometry": {"type": "Polygon", "coordinates": "x"}}, "no footprint"),
        ({"geometry": {"type": "Polygon", "coordinates": []}}, "no footprint: its geometry is empty"),
        ({"s2:processing_baseline": None}, "no processing baseline"),
        ({"s2:processing_baseline": "four"}, "a processing baseline looks like 05.09"),
        ({"proj:epsg": None}, r"no CRS \(proj:code or proj:epsg\)"),
        ({"proj:epsg": 3857}, "a cube lies in a WGS 84 / UTM zone"),
        ({"proj:epsg": True}, "no CRS"),
        ({"datetime": None}, "no datetime"),
        ({"datetime": "yesterday"}, "a time looks like"),
        ({"grid:code": None}, "no MGRS tile"),
        ({"platform": "landsat-8"}, "not a Sentinel-2 scene but one of landsat-8"),
        ({"s2:product_type": "S2MSI1C"}, "a Level-1C scene"),
        ({"collection": "sentinel-2-c1-l2a", "s2:processing_baseline": "02.14"}, "starts at baseline 04.00"),
    ],
)
def test_a_hole_in_an_item_is_one_sentence(change: dict[str, Any], message: str) -> None:
    document = item()
    for key, value in change.items():
        (document if key in document else document["properties"])[key] = value
    with pytest.raises(ValueError, match=message):
        scene(document)


def test_a_bbox_stands_for_a_missing_geometry_and_three_dimensions_for_two() -> None:
    document = {**item(), "geometry": None, "bbox": [1, 2, 0, 3, 4, 9]}
    assert scene(document).footprint.bounds == (1, 2, 3, 4)


def test_an_invalid_footprint_is_repaired() -> None:
    bow_tie = [[0, 0], [2, 2], [2, 0], [0, 2], [0, 0]]
    document = {**item(), "geometry": {"type": "Polygon", "coordinates": [bow_tie]}}
    assert scene(document).footprint.area == pytest.approx(2)


def test_a_baseline_is_esas_by_the_name_where_the_property_is_another_processors() -> None:
    document = item("S2A_MSIL2A_20230813T104021_N0511_R008_T31TEJ_20230813T150000", **{"processing:version": "2.5.9"})
    del document["properties"]["s2:processing_baseline"]
    assert scene(document).baseline == "05.11"


def test_a_known_provider_is_read_by_its_own_names_alone() -> None:
    def read(provider: str, *keys: str) -> Scene:
        return scene_from_item(with_assets(*keys), str, provider=PROVIDERS[provider])

    assert read("planetary-computer", "B02", "blue", "B04_10m").assets == {"B02": "B02.tif"}
    assert read("earth-search", "B02", "blue", "scl").assets == {"B02": "blue.tif", "SCL": "scl.tif"}
    with pytest.raises(ValueError, match=r"no band among its assets \(B02, SCL\)"):
        read("cdse", "B02", "SCL")
