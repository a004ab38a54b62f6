from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from odc.geo.geobox import GeoBox
from tests.pipeline.sources.range_server import RangeServer
from tests.pipeline.sources.test_stac import AREA, EVERYWHERE, SEASON, geobox
from tests.pipeline.sources.tiny_archive import RESOLUTIONS, item, write_archive
from tests.services.provider_items import write_table
from tests.services.stac_api import Answers, Asked, Json, StacApi, page, recorded_root, replay, root_document

from sits_catalog.region import Imagery, Place, Region, Season
from sits_pipeline.config import BuildConfig
from sits_pipeline.sources import open_source
from sits_pipeline.sources.access import Limit, Open
from sits_pipeline.sources.api import ApiSource
from sits_pipeline.sources.base import CredentialsError, SearchResult, ServiceSource, SourceError
from sits_pipeline.sources.fallback import FallbackSource
from sits_pipeline.sources.gate import LocalGate
from sits_pipeline.sources.s3 import forget_all
from sits_pipeline.sources.stac import StacSource

EARTH_SEARCH = "https://earth-search.aws.element84.com/v1"
PLANETARY = "https://planetarycomputer.microsoft.com/api/stac/v1"


@pytest.fixture
def serve_api() -> Iterator[Callable[..., StacApi]]:
    servers: list[StacApi] = []

    def start(answers: Answers, **options: Any) -> StacApi:
        servers.append(StacApi(answers, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def open_api(tmp_path: Path) -> Callable[..., ApiSource]:
    def start(url: str | None, source: str = "stac-api", config: Json | None = None, **imagery: Any) -> ApiSource:
        region = Region(
            id="tiny",
            season=SEASON,
            place=Place(bbox=AREA.bounds),
            imagery=Imagery(source=source, path=url, **imagery),  # type: ignore[arg-type]
            folder=tmp_path,
        )
        opened, _ = open_source(region, (), tmp_path, BuildConfig(cache=tmp_path / "cache", **(config or {})))
        assert isinstance(opened, ApiSource)
        return opened

    return start


def paged(*pages: Json | bytes) -> Answers:
    """Pages behind `next` links by token, the first without one."""

    def answers(asked: Asked) -> Json | int:
        token = (asked.body or {}).get("token") or int(asked.query.get("token", ["0"])[0])
        return pages[token] if asked.path == "/search" and token < len(pages) else 404

    return answers


def by_post(token: int) -> Json:
    return {"href": "{url}/search", "method": "POST", "merge": True, "body": {"token": token}}


def far(identifier: str, **properties: Any) -> Json:
    """An item whose files are nowhere."""
    document = item(identifier, **properties)
    document["assets"] = {band: {"href": f"https://example.org/{identifier}/{band}.tif"} for band in RESOLUTIONS}
    return document


def ids(found: SearchResult) -> list[str]:
    return [scene.id for scene in found.scenes]


# Searching


def test_a_search_asks_for_box_days_and_collection_and_never_for_a_filter(
    serve_api: Callable[..., StacApi], open_api: Callable[..., ApiSource]
) -> None:
    api = serve_api(paged(page([far("a")])))
    source = open_api(api.url, max_cloud=10.0, min_baseline="05.00")
    assert ids(source.search(AREA, SEASON)) == ["a"]
    (asked,) = api.searches
    assert asked.method == "POST"
    # A day more on both sides, the end being midnight after it.
    assert asked.body == {
        "collections": ["sentinel-2-l2a"],
        "bbox": list(AREA.bounds),
        "datetime": "2023-07-31T00:00:00Z/2023-09-02T00:00:00Z",
        "limit": 100,
    }


def test_all_pages_are_read_also_after_an_empty_one_and_by_either_method(
    serve_api: Callable[..., StacApi], open_api: Callable[..., ApiSource]
) -> None:
    pages = (
        page([far("d"), far("c")], by_post(1)),
        page([], {"href": "{url}/search?token=2"}),  # nothing here, but more to come; from here on by GET
        page([far("b")], {"href": "/search?token=3"}),
        page([far("a")]),
    )
    api = serve_api(paged(*pages))
    assert ids(open_api(api.url).search(AREA, SEASON)) == ["a", "b", "c", "d"]
    assert [asked.method for asked in api.searches] == ["POST", "POST", "GET", "GET"]
    # `merge`: the token is added to what was asked first.
    assert api.searches[1].body == {**(api.searches[0].body or {}), "token": 1}


def test_an_api_that_is_searched_by_get_alone_is(
    serve_api: Callable[..., StacApi], open_api: Callable[..., ApiSource]
) -> None:
    links = [{"rel": "search", "href": "{url}/search", "method": "GET"}, {"rel": "self", "href": "{url}/"}]
    api = serve_api(paged(page([far("a")])), root=root_document(links=links))
    assert ids(open_api(api.url).search(AREA, SEASON)) == ["a"]
    (asked,) = api.searches
    assert (asked.method, asked.query["collections"], asked.query["limit"]) == ("GET", ["sentinel-2-l2a"], ["100"])
    assert [float(number) for number in asked.query["bbox"][0].split(",")] == list(AREA.bounds)


def test_user_and_password_of_the_root_are_for_its_own_host(
    serve_api: Callable[..., StacApi], open_api: Callable[..., ApiSource]
) -> None:
    api = serve_api(paged(page([far("a")], by_post(1)), page([far("b")])))
    source = open_api(api.url.replace("//", "//me:SECRET@"))
    assert ids(source.search(AREA, SEASON)) == ["a", "b"]
    assert {asked.user for asked in api.asked} == {"Basic bWU6U0VDUkVU"}
    assert "SECRET" not in repr(source) + str(source.query)
    # Workers read; they never search.
    assert b"SECRET" not in pickle.dumps(source)
    assert pickle.loads(pickle.dumps(source)).query == source.query


@pytest.mark.parametrize(
    ("pages", "message"),
    [
        ([page([far("a")], by_post(1)), page([far("b")], by_post(1))], "was there before"),
        ([page([far("a")], by_post(1)), page([far("a")], by_post(2))], "sends one page of a search again and again"),
        ([page([far("a")], by_post(7))], "HTTP 404"),
        ([{"code": 500, "description": "no database"}], "is no STAC API whose items can be searched"),
        ([{"type": "FeatureCollection", "features": [1]}], "is no list of items"),
        ([b"<html>"], "is no STAC API whose items can be searched"),
    ],
)
def test_a_search_that_does_not_end_well_is_an_error_of_one_sentence(
    serve_api: Callable[..., StacApi], open_api: Callable[..., ApiSource], pages: list[Json], message: str
) -> None:
    api = serve_api(paged(*pages))
    with pytest.raises(SourceError, match=message) as caught:
        open_api(api.url).search(AREA, SEASON)
    assert api.url in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("stated", "whole"),
    [
        (({}, {}), True),  # it does not say
        (({"numberMatched": 3}, {"numberMatched": 3}), False),
        (({"context": {"matched": 3}}, {}), False),
        (({"numberMatched": 2, "context": {"matched": 2}}, {"numberMatched": 2}), True),
        (({"numberMatched": 3}, {"numberMatched": 2}), True),  # one was withdrawn while pages were read
        (({"numberMatched": 1}, {"context": {"matched": 1}}), True),  # a cap: less than there is
        (({"numberMatched": None}, {"context": {"matched": "many"}}), True),
        (({"context": [3]}, {"numberMatched": True}), True),
    ],
)
def test_a_search_that_ends_before_the_number_of_items_that_it_states_is_not_whole(
    serve_api: Callable[..., StacApi], open_api: Callable[..., ApiSource], stated: tuple[Json, Json], whole: bool
) -> None:
    api = serve_api(paged({**page([far("a")], by_post(1)), **stated[0]}, {**page([far("b")]), **stated[1]}))
    source = open_api(api.url)
    if whole:
        assert ids(source.search(AREA, SEASON)) == ["a", "b"]
        return
    with pytest.raises(SourceError, match="states 3 items for a search and sent 2, then named no next page") as caught:
        source.search(AREA, SEASON)
    assert api.url in str(caught.value)


def test_an_empty_answer_of_a_search_that_states_items_is_not_whole(
    serve_api: Callable[..., StacApi], open_api: Callable[..., ApiSource]
) -> None:
    api = serve_api(paged({**page([]), "numberMatched": 12}))
    with pytest.raises(SourceError, match="states 12 items for a search and sent 0"):
        open_api(api.url).search(AREA, SEASON)


def test_a_search_without_end_is_given_up(
    serve_api: Callable[..., StacApi], open_api: Callable[..., ApiSource], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sits_pipeline.sources.search._MAX_PAGES", 20)
    api = serve_api(lambda asked: page([], by_post((asked.body or {}).get("token", 0) + 1)))
    with pytest.raises(SourceError, match="has no end: 20 pages were read"):
        open_api(api.url).search(AREA, SEASON)


@pytest.mark.parametrize(
    ("strange", "message"),
    [
        (json.loads('{"a":' * 1000 + "1" + "}" * 1000), "an item that is none: it is nested deeper than 100 levels"),
        ("x" * 2**20, r"an item of \d+ bytes; up to 1048576 are read"),
    ],
    ids=["deep", "large"],
)
def test_an_item_that_is_too_deep_or_too_large_ends_a_search_in_one_sentence(
    serve_api: Callable[..., StacApi], open_api: Callable[..., ApiSource], strange: Any, message: str
) -> None:
    body = json.dumps(page([far("a"), {**far("b"), "strange": strange}])).encode()
    api = serve_api(paged(body))
    with pytest.raises(SourceError, match=message) as caught:
        open_api(api.url).search(AREA, SEASON)
    assert api.url in str(caught.value)


def test_the_bytes_of_all_pages_are_bounded_together(
    serve_api: Callable[..., StacApi], open_api: Callable[..., ApiSource], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sits_pipeline.sources.documents.MAX_BYTES", 20_000)
    api = serve_api(
        lambda asked: page(
            [far(str((asked.body or {}).get("token", 0)))], by_post((asked.body or {}).get("token", 0) + 1)
        )
    )
    with pytest.raises(SourceError, match="has documents of more than 20000 bytes; build a smaller region"):
        open_api(api.url).search(AREA, SEASON)
    assert 5 < len(api.asked) < 40


@pytest.mark.parametrize(
    ("root", "message"),
    [
        ({"hello": "world"}, "is no STAC API"),
        (root_document(conformsTo=["https://api.stacspec.org/v1.0.0/core"]), "is no STAC API.*ITEM_SEARCH"),
        (root_document(links=[{"rel": "search", "href": "/etc/passwd"}]), "HTTP 404"),
        (root_document(links=[{"rel": "search", "href": "file:///etc/passwd"}]), "HTTP 404"),
    ],
)
def test_a_root_that_is_none_is_an_error(
    serve_api: Callable[..., StacApi], open_api: Callable[..., ApiSource], root: Json, message: str
) -> None:
    api = serve_api(lambda _asked: 404, root=root)
    with pytest.raises(SourceError, match=message):
        open_api(api.url).search(AREA, SEASON)


def test_items_that_are_no_scenes_are_listed_with_a_reason_each(
    serve_api: Callable[..., StacApi], open_api: Callable[..., ApiSource]
) -> None:
    bare, relative, foreign, stored = far("bare"), item("relative"), far("foreign"), far("stored")
    bare["assets"] = {"thumbnail": {"href": "https://example.org/x.png"}}
    foreign["collection"] = "sentinel-2-l2a-mine"
    stored["assets"]["B02"]["href"] = "s3://eodata/B02.jp2"
    below = {**item("below"), "links": [{"rel": "self", "href": "https://example.org/items/below"}]}
    twice = [far("twice", **{"eo:cloud_cover": cloud}) for cloud in (2.0, 1.0)]
    pages = (page([bare, relative, foreign, stored, below, twice[0]], by_post(1)), page([twice[1]]))
    api = serve_api(paged(*pages))
    found = open_api(api.url).search(AREA, SEASON)
    assert ids(found) == ["below", "twice"]
    assert found.scenes[0].assets["B02"] == "https://example.org/items/B02.tif"
    # The same one of the two, whatever order they come in.
    turned = open_api(serve_api(paged(page([twice[1]], by_post(1)), page([twice[0]]))).url).search(AREA, SEASON)
    assert turned.scenes[0].cloud_cover == found.scenes[1].cloud_cover
    assert {one.id: one.reason for one in found.unusable} == {
        "bare": "no band among its assets (thumbnail)",
        "foreign": "of the collection sentinel-2-l2a-mine; sentinel-2-l2a was asked for",
        "relative": "asset B02: ./B02.tif: a relative address, and the item has no link `self` that it starts from",
        "stored": "asset B02: s3://eodata/B02.jp2: objects of a store are read by the source that has its keys (cdse), "
        "or over http(s)",
        "twice": "another item of the same id comes before it; ids must be unique",
    }


def test_a_table_of_assets_decides_and_the_item_says_whose_rule_applies(
    serve_api: Callable[..., StacApi], open_api: Callable[..., ApiSource]
) -> None:
    document = far("a")
    document["assets"] = {key: {"href": f"https://example.org/{key}.tif"} for key in ("b", "r", "mask", "B02")}
    api = serve_api(paged(page([document])))
    (scene,) = open_api(api.url, assets={"B02": "b", "B04": "r", "SCL": "mask"}).search(AREA, SEASON).scenes
    expected = {"B02": "b", "B04": "r", "SCL": "mask"}
    assert scene.assets == {band: f"https://example.org/{key}.tif" for band, key in expected.items()}
    assert (scene.declared_offset, scene.offset_is_firm) == (-1000, True)
    # A copy of Earth Search is Earth Search.
    document["assets"] = {key: {"href": f"https://example.org/{key}.tif"} for key in ("blue", "red", "scl")}
    document["properties"]["earthsearch:boa_offset_applied"] = True
    (scene,) = open_api(api.url, assets={"B02": "blue"}).search(AREA, SEASON).scenes
    assert (scene.provider, scene.declared_offset, scene.offset_is_firm) == ("earth-search", 0, False)


# Recorded answers of real services


def world(source: ApiSource, first: date, last: date) -> SearchResult:
    return source.search(EVERYWHERE, Season(start=first, end=last))


def test_two_recorded_pages_of_earth_search_give_its_scenes_and_refuse_the_rest(
    sits_data: Path, serve_api: Callable[..., StacApi], open_api: Callable[..., ApiSource]
) -> None:
    folder = sits_data / "stac/earth_search_v1/exchanges"
    names = ("search_filter_cql2_2", "search_filter_cql2_3", "search_two_collections_2")
    recorded = [folder / f"{name}.json" for name in names]
    root = recorded_root(folder / "search_filter_cql2_1.json", own=EARTH_SEARCH)
    api = serve_api(replay(recorded, own=EARTH_SEARCH), root=root)
    sent = [one for path in recorded[:2] for one in json.loads(path.read_text())["response"]["body"]["features"]]
    for collection, other, offset in (
        ("sentinel-2-l2a", "sentinel-2-c1-l2a", 0),
        ("sentinel-2-c1-l2a", "sentinel-2-l2a", -1000),
    ):
        api.asked.clear()
        found = world(open_api(api.url, "earth-search", collection=collection), date(2025, 7, 31), date(2025, 7, 31))
        assert ids(found) == sorted(one["id"] for one in sent if one["collection"] == collection)
        assert {scene.declared_offset for scene in found.scenes} == {offset}
        assert {scene.baseline for scene in found.scenes} == {"05.11"}
        assert len(found.scenes) + len(found.unusable) == len(sent) == 20
        assert {one.reason for one in found.unusable} == {
            "a Level-1C scene; cubes are built from Level-2A",
            "not a Sentinel-2 scene but one of sentinel-1a",
            f"of the collection {other}; {collection} was asked for",
        }
        # Ours, then the two tokens that the service gave.
        assert [set(asked.body or {}) for asked in api.searches] == [
            {"bbox", "datetime", "collections", "limit"},
            {"next"},
            {"next"},
        ]


def test_recorded_items_that_were_stripped_of_their_assets_are_refused_one_by_one(
    sits_data: Path, serve_api: Callable[..., StacApi], open_api: Callable[..., ApiSource]
) -> None:
    folder = sits_data / "stac/earth_search_v1/exchanges"
    recorded = [folder / "search_fields_1.json", folder / "search_two_collections_2.json"]
    root = recorded_root(folder / "search_filter_cql2_1.json", own=EARTH_SEARCH)
    api = serve_api(replay(recorded, own=EARTH_SEARCH), root=root)
    source = open_api(api.url, "earth-search", collection="sentinel-2-c1-l2a")
    found = world(source, date(2025, 7, 1), date(2025, 7, 31))
    assert found.scenes == ()
    assert [one.reason for one in found.unusable] == ["no assets"] * 10


def test_a_recorded_empty_second_page_is_the_end(
    sits_data: Path, serve_api: Callable[..., StacApi], open_api: Callable[..., ApiSource]
) -> None:
    folder = sits_data / "stac/earth_search_v1/exchanges"
    recorded = [folder / "search_two_collections_1.json", folder / "search_two_collections_2.json"]
    root = recorded_root(folder / "search_filter_cql2_1.json", own=EARTH_SEARCH)
    api = serve_api(replay(recorded, own=EARTH_SEARCH), root=root)
    found = world(open_api(api.url, "earth-search"), date(2023, 10, 8), date(2023, 10, 8))
    assert ids(found) == ["S2A_13TDE_20231008_0_L2A"]
    assert [one.reason for one in found.unusable] == ["not a Sentinel-2 scene but one of landsat-8"]
    assert len(api.searches) == 2


def test_a_recorded_search_of_planetary_computer_is_read_by_its_names_and_rule(
    sits_data: Path, serve_api: Callable[..., StacApi], open_api: Callable[..., ApiSource]
) -> None:
    folder = sits_data / "stac/planetary_computer"
    root = recorded_root(folder / "planetary-computer-root.json", own=PLANETARY)
    exchange = folder / "exchanges/search_datetime_window_1.json"
    api = serve_api(replay([exchange], own=PLANETARY), root=root)
    source = open_api(api.url, "planetary-computer")
    found = world(source, date(2019, 1, 1), date(2019, 1, 1))
    assert (len(found.scenes), found.unusable) == (33, ())
    rules = {(one.provider, one.declared_offset, one.offset_is_firm, one.baseline) for one in found.scenes}
    assert rules == {("planetary-computer", 0, True, "02.12")}
    assert all(len(one.assets) == 13 for one in found.scenes)
    naip = serve_api(replay([folder / "exchanges/search_ids_1.json"], own=PLANETARY), root=root)
    refused = open_api(naip.url, "planetary-computer").search(
        EVERYWHERE, Season(start=date(2019, 12, 1), end=date(2019, 12, 31))
    )
    assert refused.scenes == ()
    assert [one.id for one in refused.unusable] == ["fl_m_2608004_nw_17_060_20191215_20200113"]


# Reading


@pytest.fixture
def tiny(
    tmp_path: Path, serve: Callable[..., RangeServer], serve_api: Callable[..., StacApi],
    open_api: Callable[..., ApiSource],
) -> tuple[ApiSource, StacSource, RangeServer]:  # fmt: skip
    """The tiny archive behind an API and a server of files, and as it is on disk."""
    catalog = write_archive(tmp_path / "files")
    files = serve(tmp_path / "files")
    document = item()
    document["assets"] = {band: {"href": f"{files.url}/s2/one/{band}.tif"} for band in RESOLUTIONS}
    api = serve_api(paged(page([document])))
    return open_api(api.url), StacSource(str(catalog)), files


def test_pixels_and_samples_are_those_of_the_files(tiny: tuple[ApiSource, StacSource, RangeServer]) -> None:
    far_source, near_source, _ = tiny
    (there,), (here,) = far_source.search(AREA, SEASON).scenes, near_source.search(AREA, SEASON).scenes
    assert replace(there, assets={}, item={}) == replace(here, assets={}, item={})
    one, other = (
        next(source.read([scene], geobox(), ("B02", "B05", "B09"), pad=2))
        for source, scene in ((far_source, there), (near_source, here))
    )
    assert one.failures == other.failures == ()
    for band, window in other.bands.items():
        np.testing.assert_array_equal(one.bands[band].dn, window.dn)
    np.testing.assert_array_equal(far_source.sample(there).dn["B02"], near_source.sample(here).dn["B02"])


def test_a_source_travels_to_workers_and_is_a_service(tiny: tuple[ApiSource, StacSource, RangeServer]) -> None:
    source, static, _ = tiny
    twin = pickle.loads(pickle.dumps(source))
    assert twin == source
    assert twin.search(AREA, SEASON) == source.search(AREA, SEASON)
    assert isinstance(source, ServiceSource)
    assert not isinstance(static, ServiceSource)


class _Counted:
    """A gate that counts."""

    def __init__(self) -> None:
        self.passed = 0

    def request(self) -> Any:
        self.passed += 1
        return Open().request()


def test_every_request_of_search_and_pixels_passes_the_gate(tiny: tuple[ApiSource, StacSource, RangeServer]) -> None:
    source, _, files = tiny
    gate = _Counted()
    (limit,) = source.limits
    gated = source.through({limit.name: gate, "another": _Counted()})
    (scene,) = gated.search(AREA, SEASON).scenes
    assert gate.passed == 2  # the root and one page
    next(gated.read([scene], geobox(), ["B02"], pad=0))
    assert gate.passed == 2 + len(files.requests)


def test_cost_counts_source_blocks_of_each_band_and_of_the_classification(
    open_api: Callable[..., ApiSource], tiny: tuple[ApiSource, StacSource, RangeServer]
) -> None:
    source, static, _ = tiny
    scenes = static.search(AREA, SEASON).scenes * 2
    grid = GeoBox((600, 1200), geobox().affine, geobox().crs)
    # 1200 x 600 px of 10 m: 3 x 2 blocks of 512 px; 600 x 300 of 20 m: 2 x 1; 200 x 100 of 60 m: 1.
    assert source.cost(scenes[:1], grid, ["B02"]).requests == 6 + 2
    assert source.cost(scenes, grid, ["B02", "B05", "B09"]).requests == 2 * (6 + 2 + 1 + 2)
    assert source.cost(scenes, grid, ["B02"]).processing_units == 0


# Opening


def test_limits_are_the_providers_or_less_where_less_is_asked_for(open_api: Callable[..., ApiSource]) -> None:
    def limit(source: str, a_minute: int) -> Limit:
        return open_api(None, source, {"requests_a_minute": a_minute}).limits[0]

    assert limit("cdse", 0) == Limit(name="cdse", at_once=4, a_minute=2000)
    assert limit("cdse", 5000).a_minute == 2000
    assert limit("cdse", 300).a_minute == 300
    assert limit("earth-search", 0) == Limit(name="earth-search", at_once=64, a_minute=0)
    assert limit("earth-search", 600).a_minute == 600


def test_every_service_is_asked_within_its_limits_while_a_build_is_planned(tmp_path: Path) -> None:
    """Also Sentinel Hub, both of a pair, and a table of items in the place of an API."""
    cogs = write_table([far("a")], tmp_path / "cogs.parquet")

    def limits(**imagery: Any) -> list[tuple[str, int]]:
        region = Region(id="tiny", season=SEASON, place=Place(bbox=AREA.bounds), imagery=Imagery(**imagery))
        source, _ = open_source(region, (), tmp_path, BuildConfig(cache=tmp_path / "cache", requests_a_minute=60))
        gates = [one.gate for one in ([source.first, source.second] if hasattr(source, "first") else [source])]
        assert isinstance(source, ServiceSource)
        assert all(isinstance(gate, LocalGate) for gate in gates)
        assert {gate.limit for gate in gates} == set(source.limits)
        return [(gate.limit.name.split(" ")[0], gate.limit.a_minute) for gate in gates]

    assert [a_minute for _, a_minute in limits(source="sentinel-hub")] == [60]
    assert limits(source="earth-search") == [("earth-search", 60)]
    assert limits(source="stac", path=str(cogs)) == [("stac-api", 60)]
    assert limits(source="cdse", fallback="planetary-computer") == [("cdse", 60), ("planetary-computer", 60)]


@pytest.mark.parametrize(
    ("imagery", "message"),
    [
        ({"source": "earth-search", "collection": "landsat-c2-l2"}, "are known for the collection sentinel-2-l2a and"),
        (
            {"source": "stac-api", "path": "https://x.org/v1?key=SECRET"},
            r"the root of a STAC API.*got https://x\.org/v1$",
        ),
        ({"source": "cdse", "path": "s3://eodata"}, "the root of a STAC API"),
        ({"source": "cdse", "fallback": "cdse"}, "which is the source itself"),
        ({"source": "cdse", "fallback": "earth-search"}, "does not hold the same DN as cdse"),
        ({"source": "earth-search", "fallback": "cdse"}, "does not hold the same DN as earth-search"),
        ({"source": "cdse", "fallback": "sentinel-hub"}, "does not hold the same DN as cdse"),
        ({"source": "sentinel-hub", "fallback": "cdse"}, "does not hold the same DN as sentinel-hub"),
        ({"source": "stac", "path": "c.json", "fallback": "cdse"}, "it cannot be cdse for stac"),
        ({"source": "cdse", "fallback": "stac-api"}, "it cannot be stac-api for cdse"),
    ],
)
def test_what_cannot_be_opened_is_one_sentence(tmp_path: Path, imagery: Json, message: str) -> None:
    region = Region(id="tiny", season=SEASON, place=Place(bbox=AREA.bounds), imagery=Imagery(**imagery))
    with pytest.raises(ValueError, match=message) as caught:
        open_source(region, (), tmp_path, BuildConfig(cache=tmp_path / "cache"))
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"source": "planetary-computer"}, "cdse"),
        ({"source": "earth-search", "collection": "sentinel-2-c1-l2a"}, "planetary-computer"),
        ({"source": "cdse"}, "eopf"),
        ({"source": "cdse", "fallback_path": "https://mirror.org/v1"}, "planetary-computer"),
    ],
)
def test_a_fallback_of_the_same_rule_is_opened_beside_the_source(tmp_path: Path, first: Json, second: str) -> None:
    imagery = Imagery(**first, fallback=second)  # type: ignore[arg-type]
    region = Region(id="tiny", season=SEASON, place=Place(bbox=AREA.bounds), imagery=imagery)
    source, _ = open_source(region, (), tmp_path, BuildConfig(cache=tmp_path / "cache"))
    assert isinstance(source, FallbackSource)
    assert [one.query["provider"] for one in (source.first, source.second)] == [first["source"], second]  # type: ignore[attr-defined]
    own = {"eopf": "https://stac.core.eopf.eodc.eu", "cdse": "https://stac.dataspace.copernicus.eu/v1"}
    expected = first.get("fallback_path") or own.get(second, PLANETARY)
    assert source.second.query["url"] == expected


@pytest.mark.parametrize("kind", ["an s3 address", "an https address"])
def test_missing_credentials_are_told_from_a_file_that_may_not_be_read(
    kind: str, open_api: Callable[..., ApiSource], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "CDSE_USERNAME", "CDSE_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    keys = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(keys))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    forget_all()
    if kind == "an s3 address":
        keys.write_text("[default]\n")
    source = open_api(None, "cdse")
    (scene,) = source.scenes_from([cdse_item()], AREA, SEASON).scenes
    assert scene.assets["B02"].startswith(kind.split()[1])
    named = "AWS_ACCESS_KEY_ID" if kind == "an s3 address" else "CDSE_USERNAME"
    with pytest.raises(CredentialsError, match=named):
        source.sample(scene)
    forget_all()


# Copernicus Data Space


def cdse_item() -> Json:
    document = far("S2A_MSIL2A_20230813T104021_N0509_R008_T31TEJ_20230813T150000")
    web = "https://download.dataspace.copernicus.eu/odata/v1/Products(1)/Nodes({band}.jp2)/$value"
    document["assets"] = {
        f"{band}_{resolution}m": {
            "href": f"s3://eodata/Sentinel-2/{band}.jp2",
            "alternate": {"https": {"href": web.format(band=band)}},
        }
        for band, resolution in RESOLUTIONS.items()
    }
    return document


def test_cdse_is_read_from_its_store_with_keys_and_over_https_without(
    open_api: Callable[..., ApiSource], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    keys = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(keys))
    source = open_api(None, "cdse")

    def blue() -> str:
        return source.scenes_from([cdse_item()], AREA, SEASON).scenes[0].assets["B02"]

    assert blue() == "https://download.dataspace.copernicus.eu/odata/v1/Products(1)/Nodes(B02.jp2)/$value"
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    assert blue() == "s3://eodata/Sentinel-2/B02.jp2"
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    keys.write_text("[default]\n")
    assert blue() == "s3://eodata/Sentinel-2/B02.jp2"


@pytest.mark.parametrize(
    "href", ["s3://eodata/a\nb.jp2", "s3:///B02.jp2", "s3://me:word@eodata/B02.jp2", "/vsis3/eodata/B02.jp2"]
)
def test_an_address_of_a_store_that_is_none_is_refused(
    open_api: Callable[..., ApiSource], monkeypatch: pytest.MonkeyPatch, href: str
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    document = cdse_item()
    document["assets"]["B02_10m"] = {"href": href}
    found = open_api(None, "cdse").scenes_from([document], AREA, SEASON)
    assert found.scenes == ()
    assert found.unusable[0].reason.startswith("asset B02_10m: ")
    assert "word" not in found.unusable[0].reason


def test_an_array_inside_of_a_group_is_addressed_below_it(open_api: Callable[..., ApiSource]) -> None:
    document = far("S2B_MSIL2A_20230813T104021_N0511_R008_T31TEJ_20230813T150000", **{"processing:version": "2.5.1"})
    del document["properties"]["s2:processing_baseline"]
    product = "https://example.org/one.zarr/measurements/reflectance"
    document["assets"] = {
        "B02_10m": {"href": f"{product}/r10m/b02"},
        "B01_20m": {"href": f"{product}/r20m/b01"},
        "SR_60m": {"href": f"{product}/r60m/"},
    }
    (scene,) = open_api(None, "eopf").scenes_from([document], AREA, SEASON).scenes
    assert scene.assets == {"B01": f"{product}/r60m/b01", "B02": f"{product}/r10m/b02"}
    # ESA's baseline, by the product's name, not the version of the processor that wrote the Zarr product.
    assert (scene.provider, scene.baseline, scene.declared_offset) == ("eopf", "05.11", -1000)


def test_searching_order_does_not_decide(open_api: Callable[..., ApiSource]) -> None:
    items: Sequence[Json] = [far(name) for name in ("c", "a", "b")]
    source = open_api("https://example.org/v1")
    assert source.scenes_from(items, AREA, SEASON) == source.scenes_from(items[::-1], AREA, SEASON)
    assert ids(source.scenes_from(items, shapely.box(50, 50, 51, 51), SEASON)) == []
