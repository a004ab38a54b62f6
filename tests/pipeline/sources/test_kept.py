from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import shapely
from stac_geoparquet.arrow import stac_table_to_items
from tests.end_to_end.building import build_region, extent, simulated_land
from tests.pipeline.sources.test_api import cdse_item, far, paged
from tests.pipeline.sources.test_stac import AREA, EVERYWHERE, SEASON
from tests.pipeline.sources.tiny_archive import RESOLUTIONS
from tests.services.stac_api import Json, StacApi, page

from sits_catalog.region import Imagery, Place, Region, Season
from sits_pipeline.config import BuildConfig
from sits_pipeline.folder import Folder
from sits_pipeline.sources import open_source
from sits_pipeline.sources.api import ApiSource
from sits_pipeline.sources.base import SceneSource, SearchResult, ServiceDown, SourceError
from sits_pipeline.sources.fallback import FallbackSource
from sits_pipeline.sources.kept import kept_search, read_item_table
from sits_pipeline.sources.providers import any_api
from sits_pipeline.sources.stac import StacSource


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path / "out/_searches"))


def source_of(url: str, tmp_path: Path) -> ApiSource:
    return ApiSource(provider=any_api(url, None), url=url, collection="sentinel-2-l2a", cache=tmp_path / "cache")


def search(source: ApiSource, folder: Folder, **changes: Any) -> tuple[SearchResult, str]:
    arguments: dict[str, Any] = {"area": AREA, "season": SEASON, "again": False, **changes}
    area, season = arguments.pop("area"), arguments.pop("season")
    return kept_search(source, area, season, folder=folder, name="tiny", **arguments)


def kept_in(folder: Folder) -> Path:
    (path,) = folder.path.glob("*.parquet")
    return path


def test_a_second_search_gives_the_very_same_items_though_the_api_has_changed(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    monkeypatch.setattr("sits_pipeline.sources.web.BACKOFF_S", 0.001)
    with StacApi(paged(page([far("a"), far("b")]))) as api:
        source = source_of(api.url, tmp_path)
        first, sentence = search(source, folder)
        assert sentence == f"searched now: 2 items and kept in {kept_in(folder)}"
        assert kept_in(folder).name.startswith("tiny-")
        assert len(kept_in(folder).stem) == len("tiny-") + 12
        api._answers = paged(page([far("a", **{"eo:cloud_cover": 99.0}), far("c")]))
        asked = len(api.asked)
        second, sentence = search(source, folder)
        assert second == first
        assert [scene.item for scene in second.scenes] == [far("a"), far("b")]
        assert len(api.asked) == asked
        assert sentence == f"the search of 2023-11-14 is kept in {kept_in(folder)}; --search-again asks anew"
        anew, _ = search(source, folder, again=True)
        assert [scene.id for scene in anew.scenes] == ["a", "c"]
        assert search(source, folder)[0] == anew
    # The service is gone; what was kept is not.
    assert search(source, folder)[0] == anew
    with pytest.raises(ServiceDown, match="cannot be searched"):
        search(source, folder, again=True)
    assert search(source, folder)[0] == anew


def test_all_that_decides_an_answer_names_its_file(folder: Folder, tmp_path: Path) -> None:
    with StacApi(paged(page([far("a")]))) as api:
        source = source_of(api.url, tmp_path)
        names = set()
        for change in (
            {},
            {"area": shapely.box(4.2, 44.2, 4.3, 44.3001)},
            {"season": Season(start=date(2023, 8, 2), end=SEASON.end)},
        ):
            search(source, folder, **change)
            names |= {path.name for path in folder.path.glob("*.parquet")}
        search(replace(source, collection="sentinel-2-c1-l2a"), folder)
        assert len(list(folder.path.glob("*.parquet"))) == len(names) + 1 == 4
        # The same ground, its corners in another order: the same question.
        search(source, folder, area=shapely.Polygon([(4.3, 44.3), (4.2, 44.3), (4.2, 44.2), (4.3, 44.2)]))
        assert len(list(folder.path.glob("*.parquet"))) == 4


def test_an_empty_answer_is_not_kept(folder: Folder, tmp_path: Path) -> None:
    with StacApi(paged(page([]))) as api:
        found, sentence = search(source_of(api.url, tmp_path), folder)
        assert (found, sentence) == (SearchResult(scenes=()), "searched now: 0 items")
        assert not folder.path.exists()


MIXED: Sequence[Json] = (
    far("plain"),
    {**far("texts"), "properties": {**far("x")["properties"], "eo:cloud_cover": "12", "view:off_nadir": [1, {"a": 2}]}},
    {**far("broken"), "geometry": None, "bbox": None, "properties": {"datetime": "2023-08-13T00:00:00Z"}},
    {**far("flat"), "geometry": None, "bbox": [4.2, 44.2, 0.0, 4.3, 44.3, 9.0], "assets": {}},
    {"type": "Feature", "id": None, "properties": {}},
    {**far("deep"), "assets": {"B02": {"href": "https://example.org/a.tif", "proj:shape": [1, 2], "x": {}}}},
    cdse_item(),
)


@pytest.mark.parametrize("items", [MIXED[:1], MIXED[:2], MIXED[2:4], MIXED], ids=["one", "types", "holes", "all"])
def test_items_of_any_kind_come_back_as_they_were(items: Sequence[Json], folder: Folder, tmp_path: Path) -> None:
    with StacApi(paged(page(items))) as api:
        source = source_of(api.url, tmp_path)
        first, _ = search(source, folder)
        assert search(source, folder)[0] == first
        assert first.scenes + first.unusable
    table = pq.read_table(kept_in(folder))
    assert [json.loads(text) for text in table["item_json"].to_pylist()] == list(items)
    assert read_item_table(str(kept_in(folder))) == list(items)
    geo = json.loads(table.schema.metadata[b"geo"])
    assert (geo["version"][:3], geo["primary_column"]) == ("1.1", "geometry")
    listed = list(stac_table_to_items(table.drop_columns(["item_json"])))
    assert [one["id"] for one in listed] == [str(item["id"]) for item in items]
    assert {json.dumps(one["geometry"]["type"]) for one in listed} == {'"Polygon"'}


def test_a_kept_item_holds_no_secret_and_one_that_needs_it_is_asked_for_each_time(
    folder: Folder, tmp_path: Path
) -> None:
    signed, linked = far("signed"), far("linked")
    signed["assets"]["B02"]["href"] += "?sig=SECRET"
    linked["links"] = [{"rel": "self", "href": "https://me:SECRET@example.org/linked?key=SECRET"}]
    with StacApi(paged(page([linked]))) as api:
        source = source_of(api.url.replace("//", "//me:SECRET@"), tmp_path)
        search(source, folder)
        asked = len(api.asked)
        search(source, folder)
        assert len(api.asked) == asked
        assert "SECRET" not in str(pq.read_table(kept_in(folder)).to_pylist())
        api._answers = paged(page([signed]))
        for _ in range(2):
            found, sentence = search(source, folder, again=_ == 0)
            # The address as it was sent, or nothing could be read.
            assert found.scenes[0].assets["B02"].endswith("?sig=SECRET")
            assert "and so each time, since the addresses of its assets hold queries" in sentence
        table = pq.read_table(kept_in(folder))
        assert "SECRET" not in f"{table.schema.metadata} {table.to_pylist()}"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[: len(data) // 2], "is damaged or no Parquet file"),
        (lambda _data: b"", "is damaged or no Parquet file"),
        (lambda _data: b"{}", "is damaged or no Parquet file"),
    ],
)
def test_a_damaged_file_is_one_sentence(damage: Any, message: str, folder: Folder, tmp_path: Path) -> None:
    with StacApi(paged(page([far("a")]))) as api:
        source = source_of(api.url, tmp_path)
        first, _ = search(source, folder)
        path = kept_in(folder)
        path.write_bytes(damage(path.read_bytes()))
        with pytest.raises(SourceError, match=message) as caught:
            search(source, folder)
        assert "remove it, or add --search-again" in str(caught.value)
        assert "\n" not in str(caught.value)
        assert search(source, folder, again=True)[0] == first


def test_a_table_of_another_kind_is_no_kept_search(folder: Folder, tmp_path: Path) -> None:
    import pyarrow as pa

    with StacApi(paged(page([far("a")]))) as api:
        source = source_of(api.url, tmp_path)
        search(source, folder)
        pq.write_table(pa.table({"id": ["a"]}), kept_in(folder))
        with pytest.raises(SourceError, match="is none: it holds no items as they were found"):
            search(source, folder)


# Tables as sources


def opened(path: str, source: str = "stac", **imagery: Any) -> SceneSource:
    region = Region(
        id="tiny",
        season=SEASON,
        place=Place(bbox=AREA.bounds),
        imagery=Imagery(source=source, path=path, **imagery),  # type: ignore[arg-type]
    )
    return open_source(region, (), Path(), BuildConfig(cache=Path("cache")))[0]


def test_a_kept_search_is_a_source_of_its_own(folder: Folder, tmp_path: Path) -> None:
    with StacApi(paged(page([far("a"), far("b")]))) as api:
        first, _ = search(source_of(api.url, tmp_path), folder)
    for source in ("stac", "stac-api", "earth-search", "planetary-computer"):
        table = opened(str(kept_in(folder)), source)
        if source in ("stac", "stac-api"):
            assert table.search(AREA, SEASON) == first
        assert table.search(shapely.box(50, 50, 51, 51), SEASON).scenes == ()
    api_source = opened(str(kept_in(folder)), "stac-api")
    assert isinstance(api_source, ApiSource)
    found, sentence = search(api_source, Folder(str(tmp_path / "elsewhere")))
    assert (found, sentence) == (first, "the items come from a table; no service is searched")
    assert not (tmp_path / "elsewhere").exists()


def test_a_kept_search_of_a_provider_that_signs_is_read_as_its_own_are(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    with StacApi(paged(page([cdse_item()]))) as api:
        cdse = opened(api.url, "cdse")
        assert isinstance(cdse, ApiSource)
        first, _ = search(cdse, folder)
    replayed = opened(str(kept_in(folder)))
    assert isinstance(replayed, ApiSource)
    assert replayed.provider == cdse.provider
    assert replayed.search(AREA, SEASON) == first
    assert first.scenes[0].assets["B02"] == "s3://eodata/Sentinel-2/B02.jp2"


def test_a_kept_search_of_two_providers_is_replayed_without_either(folder: Folder, tmp_path: Path) -> None:
    there = far("there")
    there["assets"] = {f"{band}_{m}m": {"href": f"https://x.org/{band}.zarr/a"} for band, m in RESOLUTIONS.items()}
    with StacApi(paged(page([far("a")]))) as first, StacApi(paged(page([there]))) as second:
        both = opened(first.url, "stac-api", fallback="eopf", fallback_path=second.url)
        assert isinstance(both, FallbackSource)
        found, _ = search(both, folder)  # type: ignore[arg-type]
        asked = len(second.asked)
        assert asked
        replayed = opened(str(kept_in(folder)), "stac-api", fallback="eopf", fallback_path=second.url)
        assert replayed.search(AREA, SEASON) == found
        assert len(second.asked) == asked
        # Neither as a source of its own, nor with another to stand in, are the second's items the first's.
        assert [scene.id for scene in opened(str(kept_in(folder))).search(AREA, SEASON).scenes] == ["a"]
        other = opened(str(kept_in(folder)), "stac-api", fallback="planetary-computer", fallback_path=second.url)
        assert [scene.id for scene in other.search(AREA, SEASON).scenes] == ["a"]
        assert len(second.asked) > asked
    assert [scene.twin.id for scene in found.scenes if scene.twin is not None] == ["there"]


def test_relative_addresses_of_a_table_lead_nowhere(folder: Folder, tmp_path: Path) -> None:
    relative = far("relative")
    relative["assets"]["B02"]["href"] = "./B02.tif"
    with StacApi(paged(page([relative, far("a")]))) as api:
        search(source_of(api.url, tmp_path), folder)
    # Even where there is such a file beside the table.
    (folder.path / "B02.tif").write_bytes(b"")
    found = opened(str(kept_in(folder))).search(AREA, SEASON)
    assert [scene.id for scene in found.scenes] == ["a"]
    assert [one.reason for one in found.unusable] == [
        "asset B02: ./B02.tif: a relative address, and the item has no link `self` that it starts from"
    ]


@pytest.mark.parametrize(("name", "message"), [("gone.parquet", "no table of items at"), ("x.parquet", "is damaged")])
def test_a_table_that_is_none_is_one_sentence(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "x.parquet").write_text("no")
    with pytest.raises(SourceError, match=message):
        opened(str(tmp_path / name)).search(AREA, SEASON)


@pytest.mark.slow
def test_the_sources_of_a_finished_dataset_are_a_source(tmp_path: Path) -> None:
    """All items of a simulated archive, those that were not used as well, as if they had been on the web."""
    grid = extent(left=30, top=60, width=60, height=60)
    region = simulated_land(tmp_path, grid, bands=("B02", "B04"), dates=6, seed=2)
    catalog = Path(str(region.imagery.path))
    for path in catalog.parent.rglob("*_L2A.json"):
        document = json.loads(path.read_text())
        document["links"].append({"rel": "self", "href": f"https://example.org/{path.parent.name}/item.json"})
        path.write_text(json.dumps(document))
    dataset = build_region(region, tmp_path / "out")
    here = StacSource(str(catalog)).search(EVERYWHERE, region.season)
    there = opened(str(dataset.path / "sources.parquet")).search(EVERYWHERE, region.season)
    assert there.unusable == ()
    assert len(there.scenes) == len(here.scenes)
    for one, other in zip(there.scenes, here.scenes, strict=True):
        assert one.assets == {
            band: f"https://example.org/{Path(path).parent.name}/{Path(path).name}"
            for band, path in other.assets.items()
        }
        assert shapely.equals_exact(one.footprint, other.footprint, 1e-9)
        same = {"assets": {}, "item": {}, "footprint": None}
        assert replace(one, **same) == replace(other, **same)  # type: ignore[arg-type]


def test_a_search_is_kept_in_an_object_store_as_well(tmp_path: Path) -> None:
    folder = Folder(f"memory://{tmp_path.name}/_searches")
    with StacApi(paged(page([far("a")]))) as api:
        source = source_of(api.url, tmp_path)
        first, sentence = search(source, folder)
        assert f"kept in {folder.location}/tiny-" in sentence
        asked = len(api.asked)
        assert search(source, folder)[0] == first
        assert len(api.asked) == asked


def test_a_table_of_too_many_rows_or_of_a_few_that_unpack_to_too_much_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow as pa

    pq.write_table(pa.table({"id": ["a" * 10_000] * 1000, "item_json": ["{}"] * 1000}), tmp_path / "x.parquet")
    assert (tmp_path / "x.parquet").stat().st_size < 2**14  # of ten megabytes
    monkeypatch.setattr("sits_catalog.parquet_rows._LEAST", 2**22)
    with pytest.raises(SourceError, match=r"the table of items .*x\.parquet unpacks to more than 100 times its size"):
        read_item_table(str(tmp_path / "x.parquet"))
    monkeypatch.setattr("sits_pipeline.sources.kept.MAX_ITEMS", 999)
    with pytest.raises(SourceError, match="holds more than 999 items; give a part of it"):
        read_item_table(str(tmp_path / "x.parquet"))


def test_an_item_of_a_table_that_is_nested_without_end_is_one_sentence(tmp_path: Path) -> None:
    import pyarrow as pa

    deep = '{"a":' * 1000 + "1" + "}" * 1000
    pq.write_table(pa.table({"id": ["a"], "item_json": [deep]}), tmp_path / "x.parquet")
    with pytest.raises(SourceError, match=r"x\.parquet holds an item that is none: it is nested deeper than 100"):
        read_item_table(str(tmp_path / "x.parquet"))
