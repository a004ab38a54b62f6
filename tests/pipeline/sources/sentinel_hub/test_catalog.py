from __future__ import annotations

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
import shapely
from tests.pipeline.sources.sentinel_hub.items import catalog_item
from tests.pipeline.sources.sentinel_hub.scripted_hub import Reply, ScriptedHub, json_reply

from sits_catalog.region import Season
from sits_pipeline.lineage import encode_sources
from sits_pipeline.sources.base import SourceError
from sits_pipeline.sources.sentinel_hub import SentinelHubSource
from sits_pipeline.sources.sentinel_hub.catalog import planned_tile, scene_of

SUMMER = Season(start=date(2023, 8, 1), end=date(2023, 8, 31))
AREA = shapely.box(4.3, 43.5, 4.6, 44.0)


def recorded(sits_data: Path, name: str) -> dict[str, Any]:
    path = sits_data / "stac/sentinel_hub/notebook_outputs" / name
    item: dict[str, Any] = json.loads(path.read_text())["output"]
    return item


def test_a_recorded_item_of_copernicus_data_space_becomes_a_scene(sits_data: Path) -> None:
    found = scene_of(recorded(sits_data, "data_search_cdse_cell12.json"))
    assert found.id == found.item["id"] == "S2A_MSIL2A_20210125T073201_N0500_R049_T39TWK_20230528T024029"
    assert (found.baseline, found.mgrs_tile, found.epsg, found.orbit) == ("05.00", "39TWK", 32639, 49)
    assert (found.platform, found.cloud_cover) == ("sentinel-2a", 1.18)
    assert found.sensed == datetime(2021, 1, 25, 7, 37, 20, 296000, UTC)
    assert found.generated == datetime(2023, 5, 28, 2, 40, 29, tzinfo=UTC)
    assert (found.declared_offset, found.offset_is_firm) == (0, True)
    assert found.footprint.bounds == pytest.approx((50.9998, 44.1571, 52.3964, 45.1538), abs=1e-4)
    tile = planned_tile(found)
    assert (tile.product, tile.is_clipped) == (found.id, True)
    assert tile.path == f"Sentinel-2/MSI/L2A_N0500/2021/01/25/{found.id}.SAFE"


def test_a_recorded_item_of_the_commercial_deployment_is_known_by_its_path_too(sits_data: Path) -> None:
    found = scene_of(recorded(sits_data, "data_search_cell15.json"))
    assert (found.id[-15:], found.baseline, found.declared_offset) == ("20210125T105105", "02.14", 0)
    assert planned_tile(found).path == "tiles/39/T/WK/2021/1/25/0"
    assert not planned_tile(found).is_clipped


def test_a_recorded_item_fits_into_the_table_of_sources(sits_data: Path) -> None:
    item = scene_of(recorded(sits_data, "data_search_cdse_cell12.json")).item
    assert encode_sources([item])[:4] == b"PAR1"


def test_the_zone_follows_from_the_tile_where_the_item_has_none() -> None:
    item = catalog_item()
    item["properties"]["proj:epsg"] = 32631.0
    assert scene_of(item).epsg == 32631
    del item["properties"]["proj:epsg"]
    assert scene_of(item).epsg == 32631
    item["id"] = item["id"].replace("T31TFJ", "T19KGP")
    assert scene_of(item).epsg == 32719


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"id": "S2A_MSIL1C_20230813T104021_N0509_R008_T31TFJ_20230813T151212.SAFE"}, "Level-1C"),
        ({"id": "S1A_IW_GRDH_1SDV"}, "a product is named"),
        ({"id": "../S2A"}, "no '/'"),
        ({"assets": {}}, "no asset `data`"),
        ({"properties": {"datetime": "2023-08-13T10:45:12Z", "proj:epsg": 3857}}, "EPSG:3857"),
        ({"properties": {"datetime": "2023-08-13T10:45:12Z", "proj:epsg": "32631"}}, "proj:epsg is a number"),
        ({"properties": {}}, "no datetime|KeyError"),
        ({"geometry": None, "bbox": None}, "no footprint"),
    ],
)
def test_an_item_that_is_no_scene_says_why(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        scene_of({**catalog_item(), **change})


def test_secrets_in_an_address_of_the_catalog_are_dropped() -> None:
    item = catalog_item()
    item["assets"]["data"]["href"] = "https://me:word@example.org/S2A.SAFE?sig=abc"
    assert set(scene_of(item).assets.values()) == {"https://example.org/S2A.SAFE"}


def pages(*features: list[dict[str, Any]]) -> Any:
    def search(request: dict[str, Any]) -> Reply:
        number = request.get("next", 0)
        context = {"next": number + 1} if number + 1 < len(features) else {}
        return json_reply({"type": "FeatureCollection", "features": features[number], "context": context})

    return search


def test_all_pages_are_searched_and_each_item_is_listed_once(source: SentinelHubSource, hub: ScriptedHub) -> None:
    one, two = catalog_item(), catalog_item(tile="31TGJ")
    other_day = catalog_item(time="20230902T104021", sensed="2023-09-02T10:45:12Z")
    no_scene = {**catalog_item(), "id": "S2A_OPER_PRD_MSIL2A"}
    hub.search = pages([two, one], [one, no_scene], [other_day])
    items = source.find(AREA, SUMMER)
    assert [item["id"] for item in items] == sorted([other_day["id"], no_scene["id"], one["id"], two["id"]])
    assert [query.get("next") for query in hub.searches] == [None, 1, 2]
    assert hub.searches[0] == {
        "collections": ["sentinel-2-l2a"],
        "datetime": "2023-07-31T00:00:00Z/2023-09-02T00:00:00Z",
        "bbox": [4.3, 43.5, 4.6, 44.0],
        "filter-lang": "cql2-text",
        "limit": 100,
    }
    result = source.scenes_from(items, AREA, SUMMER)
    assert [scene.id for scene in result.scenes] == [item["id"].removesuffix(".SAFE") for item in (one, two)]
    assert [broken.id for broken in result.unusable] == ["S2A_OPER_PRD_MSIL2A"]
    assert "a product is named" in result.unusable[0].reason
    assert source.search(AREA, SUMMER) == result
    assert source.query == {"provider": "sentinel-hub", "api": hub.url, "collection": "sentinel-2-l2a"}


@pytest.mark.slow
def test_a_catalogue_that_never_ends_is_an_error(source: SentinelHubSource, hub: ScriptedHub) -> None:
    again = json_reply({"features": [catalog_item()], "context": {"next": 1}})
    hub.search = lambda request: again
    with pytest.raises(SourceError, match="the same page again and again"):
        source.find(AREA, SUMMER)


def test_a_catalogue_of_items_without_end_is_an_error(
    source: SentinelHubSource, hub: ScriptedHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = {**catalog_item(), "geometry": None}  # pages of some KB

    def numbered(request: dict[str, Any]) -> Reply:
        number = request.get("next", 0)
        features = [{**one, "number": number * 100 + index} for index in range(100)]
        return json_reply({"features": features, "context": {"next": number + 1}})

    hub.search = numbered
    monkeypatch.setattr("sits_pipeline.sources.sentinel_hub.catalog.MAX_ITEMS", 250)
    with pytest.raises(SourceError, match="it gives more than 250 items; build a smaller region"):
        source.find(AREA, SUMMER)
    monkeypatch.setattr("sits_pipeline.sources.documents.MAX_BYTES", 20_000)
    with pytest.raises(SourceError, match="has documents of more than 20000 bytes; build a smaller region"):
        source.find(AREA, SUMMER)
    deep = {**one, "a": json.loads("[" * 900 + "]" * 900)}
    hub.search = pages([deep])
    with pytest.raises(SourceError, match="it is nested deeper than 100 levels"):
        source.find(AREA, SUMMER)


@pytest.mark.parametrize("document", [{"features": []}, {"context": {}}, {"features": [1], "context": {}}])
def test_an_answer_that_is_no_page_is_an_error(
    source: SentinelHubSource, hub: ScriptedHub, document: dict[str, Any]
) -> None:
    hub.search = lambda request: json_reply(document)
    with pytest.raises(SourceError, match="no page of items"):
        source.find(AREA, SUMMER)


def test_html_from_the_catalogue_is_asked_for_again(source: SentinelHubSource, hub: ScriptedHub) -> None:
    replies = iter([Reply(body=b"<html>", kind="text/html"), json_reply({}, 503), pages([catalog_item()])({})])
    hub.search = lambda request: next(replies)
    assert len(source.find(AREA, SUMMER)) == 1
