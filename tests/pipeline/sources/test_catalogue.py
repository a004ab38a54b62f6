from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.pipeline.sources.range_server import RangeServer
from tests.pipeline.sources.test_stac import EVERYWHERE, SEASON
from tests.pipeline.sources.tiny_archive import catalogue, item, write_archive, write_json

from sits_catalog.reach import Reach
from sits_pipeline.sources import catalogue as catalogue_module
from sits_pipeline.sources import documents
from sits_pipeline.sources.base import ServiceDown, SourceError
from sits_pipeline.sources.catalogue import Spot, read_items
from sits_pipeline.sources.stac import StacSource
from sits_pipeline.sources.web import fetch


def ids(location: Path | str) -> list[str]:
    return sorted(found.item["id"] for found in read_items(str(location)))


def test_items_are_found_through_nested_links_each_once(tmp_path: Path) -> None:
    write_json(
        tmp_path / "catalog.json", catalogue(("child", "a/catalog.json"), ("child", "b.json"), ("item", "one.json"))
    )
    write_json(
        tmp_path / "a/catalog.json", catalogue(("item", "../one.json"), ("item", "two.json"), ("child", "../b.json"))
    )
    write_json(tmp_path / "b.json", {"type": "FeatureCollection", "features": [item("three")]})
    write_json(tmp_path / "one.json", item("one"))
    write_json(tmp_path / "a/two.json", item("two"))
    assert ids(tmp_path / "catalog.json") == ["one", "three", "two"]


@pytest.mark.parametrize(
    "href",
    [
        "../outside.json",
        "a/../../outside.json",
        "{outside}",
        "file://{outside}",
        "/vsicurl/http://127.0.0.1/item.json",
        "/vsizip/archive.zip/item.json",
        "ftp://127.0.0.1/item.json",
        "data:application/json,{{}}",
        "gopher://x/item.json",
        "",
        "one\n.json",
        "link.json",
    ],
)
def test_a_local_link_that_leads_out_of_the_folder_is_refused(tmp_path: Path, href: str) -> None:
    outside = write_json(tmp_path / "outside.json", item("outside"))
    root = tmp_path / "catalogue"
    write_json(root / "catalog.json", catalogue(("item", href.format(outside=outside))))
    (root / "link.json").symlink_to(outside)
    with pytest.raises(SourceError, match=r"a link in .*catalog\.json is not followed"):
        ids(root / "catalog.json")


def test_an_absolute_path_or_file_url_inside_the_folder_is_followed(tmp_path: Path) -> None:
    one, two = (write_json(tmp_path / "items" / f"{name}.json", item(name)) for name in ("one", "two"))
    write_json(tmp_path / "catalog.json", catalogue(("item", str(one)), ("item", two.as_uri())))
    assert ids(tmp_path / "catalog.json") == ["one", "two"]


def test_a_local_catalogue_may_point_to_the_web(tmp_path: Path, serve: Callable[..., RangeServer]) -> None:
    write_json(tmp_path / "web/one.json", item("one"))
    server = serve(tmp_path / "web")
    write_json(tmp_path / "catalog.json", catalogue(("item", f"{server.url}/one.json")))
    assert ids(tmp_path / "catalog.json") == ["one"]


@pytest.mark.parametrize("href", ["file:///etc/passwd", "/vsicurl/x", "/vsis3/x", "ftp://127.0.0.1/x", "data:,x"])
def test_a_remote_link_that_leaves_the_web_is_refused(
    tmp_path: Path, serve: Callable[..., RangeServer], href: str
) -> None:
    write_json(tmp_path / "catalog.json", catalogue(("item", href)))
    with pytest.raises(SourceError, match="a remote catalogue may point to"):
        ids(f"{serve(tmp_path).url}/catalog.json")


def test_a_path_in_a_remote_catalogue_is_a_path_of_its_server(
    tmp_path: Path, serve: Callable[..., RangeServer]
) -> None:
    write_json(tmp_path / "catalog.json", catalogue(("item", "/etc/passwd")))
    server = serve(tmp_path)
    with pytest.raises(SourceError, match=f"{server.url}/etc/passwd cannot be read: .*HTTP 404"):
        ids(f"{server.url}/catalog.json")


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x"])
def test_a_redirect_off_the_web_is_refused(tmp_path: Path, serve: Callable[..., RangeServer], target: str) -> None:
    server = serve(tmp_path)
    server.redirect_to = target
    with pytest.raises(SourceError, match=r"catalog\.json cannot be read: .*(is not allowed|is not http)"):
        ids(f"{server.url}/catalog.json")


def test_a_redirect_to_another_http_address_is_followed(tmp_path: Path, serve: Callable[..., RangeServer]) -> None:
    write_json(tmp_path / "catalog.json", item("one"))
    front, back = serve(tmp_path), serve(tmp_path)
    front.redirect_to = f"{back.url}/catalog.json"
    assert ids(f"{front.url}/catalog.json") == ["one"]


def test_a_catalogue_that_links_back_to_itself_is_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "catalog.json", catalogue(("child", "a.json")))
    write_json(tmp_path / "a.json", catalogue(("child", "./catalog.json")))
    with pytest.raises(SourceError, match=r"links back to itself at .*catalog\.json"):
        ids(tmp_path / "catalog.json")


def test_a_catalogue_of_eleven_levels_is_refused_and_one_of_ten_is_read(tmp_path: Path) -> None:
    for level in range(11):
        write_json(tmp_path / f"{level}.json", catalogue(("child", f"{level + 1}.json")))
    write_json(tmp_path / "11.json", {"type": "FeatureCollection", "features": [item("deep")]})
    assert ids(tmp_path / "1.json") == ["deep"]
    with pytest.raises(SourceError, match=r"deeper than 10 levels at .*11\.json"):
        ids(tmp_path / "0.json")


def test_too_many_items_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue_module, "MAX_ITEMS", 3)
    links = [("item", f"{number}.json") for number in range(4)]
    path = write_json(tmp_path / "catalog.json", catalogue(*links))
    with pytest.raises(SourceError, match="more than 3 items"):
        ids(path)
    features = {"type": "FeatureCollection", "features": [item(str(number)) for number in range(4)]}
    with pytest.raises(SourceError, match="more than 3 items"):
        ids(write_json(tmp_path / "items.json", features))


def test_documents_that_are_too_large_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, serve: Callable[..., RangeServer]
) -> None:
    write_json(tmp_path / "items.json", {"type": "FeatureCollection", "features": [item()]})
    monkeypatch.setattr(catalogue_module, "MAX_JSON_BYTES", 100)
    with pytest.raises(SourceError, match="larger than the 100 bytes"):
        ids(tmp_path / "items.json")
    with pytest.raises(SourceError, match="larger than the 100 bytes"):
        ids(f"{serve(tmp_path).url}/items.json")


def deep(levels: int) -> Any:
    return json.loads('{"a":' * levels + "1" + "}" * levels)


@pytest.mark.parametrize(
    ("strange", "message"),
    [
        (deep(99), None),
        (deep(100), "holds an item that is none: it is nested deeper than 100 levels"),
        (deep(1200), "holds an item that is none: it is nested deeper than 100 levels"),  # which the parser takes
        ("x" * 2**20, r"holds an item of \d+ bytes; up to 1048576 are read"),
    ],
)
def test_an_item_that_is_too_deep_or_too_large_ends_in_one_sentence(
    tmp_path: Path, serve: Callable[..., RangeServer], strange: Any, message: str | None
) -> None:
    document = {**item("strange"), "strange": strange}
    write_json(tmp_path / "item.json", document)
    write_json(tmp_path / "items.json", {"type": "FeatureCollection", "features": [item("one"), document]})
    write_json(tmp_path / "catalog.json", catalogue(("item", "one.json"), ("item", "item.json")))
    write_json(tmp_path / "one.json", item("one"))
    server = serve(tmp_path)
    for name in ("item.json", "items.json", "catalog.json"):
        for place in (str(tmp_path), server.url):
            if message is None:
                assert "strange" in ids(f"{place}/{name}")
            else:
                with pytest.raises(SourceError, match=message):
                    ids(f"{place}/{name}")


def test_the_bytes_of_all_documents_are_bounded_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, serve: Callable[..., RangeServer]
) -> None:
    names = [f"{number}.json" for number in range(40)]
    for name in names:
        write_json(tmp_path / name, item(name))
    write_json(tmp_path / "catalog.json", catalogue(*(("item", name) for name in names)))
    total = sum(path.stat().st_size for path in tmp_path.iterdir())
    server = serve(tmp_path)
    for place in (str(tmp_path), server.url):
        monkeypatch.setattr(documents, "MAX_BYTES", total)
        assert len(ids(f"{place}/catalog.json")) == 40
        monkeypatch.setattr(documents, "MAX_BYTES", total // 4)
        asked = len(server.requests)
        with pytest.raises(
            SourceError, match=f"the catalogue has documents of more than {total // 4} bytes; give a pa"
        ):
            ids(f"{place}/catalog.json")
        assert len(server.requests) - asked < 40


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[1]", "holds no JSON object"),
        ("[" * 100_000, "is not JSON"),
        ('{"a": 1}', "is not a STAC catalogue, collection, item or ItemCollection"),
        ('{"stac_version": "1.0.0", "links": {"rel": "item"}}', "are not a list of objects"),
        ('{"type": "FeatureCollection", "features": [1]}', "are not a list of objects"),
        ('{"stac_version": "1.0.0", "links": [{"rel": "item", "href": 5}]}', "a link must be a text"),
        ('{"stac_version": "1.0.0", "links": [{"rel": "item", "href": "gone.json"}]}', r"gone\.json cannot be read"),
    ],
)
def test_what_is_no_catalogue_is_an_error_of_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "catalog.json").write_text(text)
    with pytest.raises(SourceError, match=message):
        ids(tmp_path / "catalog.json")


@pytest.mark.parametrize("location", ["nowhere/catalog.json", "s3://bucket/catalog.json", "/vsicurl/http://x/y.json"])
def test_a_location_that_is_none_is_an_error(location: str) -> None:
    with pytest.raises(SourceError, match="catalogue"):
        ids(location)


def test_a_server_that_does_not_answer_is_an_error(
    tmp_path: Path, serve: Callable[..., RangeServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sits_pipeline.sources.web.BACKOFF_S", 0.001)
    server = serve(tmp_path)
    server.fail_next = 99
    with pytest.raises(ServiceDown, match="HTTP 503"):
        ids(f"{server.url}/catalog.json")
    assert len(server.requests) > 1


HOSTILE_ASSETS: list[tuple[dict[str, Any], str]] = [
    ({"href": "../../outside.tif"}, "leads out of the catalogue's folder"),
    ({"href": "/etc/passwd"}, "leads out of the catalogue's folder"),
    ({"href": "/vsicurl/http://127.0.0.1/x.tif"}, "leads out of the catalogue's folder"),
    ({"href": "s3://sentinel-s2-l2a/tiles/B02.jp2"}, "objects of a store are read by the source that has its keys"),
    ({"href": "zip:archive.zip!B02.tif"}, "not to zip:"),
    ({"href": None}, "a link must be a text"),
    ({}, "a link must be a text"),
]


@pytest.mark.parametrize(("asset", "reason"), HOSTILE_ASSETS)
def test_an_asset_that_leads_elsewhere_makes_its_item_unusable(
    tmp_path: Path, asset: dict[str, Any], reason: str
) -> None:
    document = item()
    document["assets"]["B02"] = asset
    found = StacSource(str(write_json(tmp_path / "a/b/item.json", document))).search(EVERYWHERE, SEASON)
    assert found.scenes == ()
    assert found.unusable[0].reason.startswith("asset B02: ")
    assert reason in found.unusable[0].reason


@pytest.mark.parametrize("identifier", ["../evil", "a/b", "a\nb", "a\x00", "", "x" * 201, 7, None, "\u202egnp"])
def test_a_hostile_id_makes_its_item_unusable(tmp_path: Path, identifier: object) -> None:
    document = {**item(), "id": identifier}
    found = StacSource(str(write_json(tmp_path / "item.json", document))).search(EVERYWHERE, SEASON)
    assert found.scenes == ()
    assert "an item's id" in found.unusable[0].reason
    assert found.unusable[0].id.isprintable()


def test_a_remote_item_cannot_reach_a_local_file(tmp_path: Path, serve: Callable[..., RangeServer]) -> None:
    write_archive(tmp_path)
    document = json.loads((tmp_path / "s2/one/item.json").read_text())
    document["assets"]["B02"]["href"] = f"file://{tmp_path}/s2/one/B02.tif"
    write_json(tmp_path / "s2/one/item.json", document)
    found = StacSource(f"{serve(tmp_path).url}/catalog.json").search(EVERYWHERE, SEASON)
    assert found.scenes == ()
    assert "a remote catalogue may point to http(s) only" in found.unusable[0].reason


def test_a_message_does_not_repeat_a_signature() -> None:
    with pytest.raises(ValueError, match="objects of a store") as caught:
        Spot("/data/catalog.json", Path("/data"), Reach()).resolve("s3://bucket/key?sig=SECRET")
    assert "SECRET" not in str(caught.value)


def test_user_and_password_open_their_own_host_alone(tmp_path: Path, serve: Callable[..., RangeServer]) -> None:
    write_json(tmp_path / "catalog.json", {})
    server, other = serve(tmp_path, user="me:p@ss"), serve(tmp_path, user="me:p@ss")
    address = f"{server.url}/catalog.json".replace("//", "//me:p%40ss@")
    assert fetch(address, max_bytes=100).body == b"{}"
    with pytest.raises(OSError, match="HTTP 401"):
        fetch(f"{server.url}/catalog.json", max_bytes=100)
    server.redirect_to = f"{other.url}/catalog.json"
    with pytest.raises(OSError, match="HTTP 401") as caught:
        fetch(address, max_bytes=100)
    assert "p%40ss" not in str(caught.value)
