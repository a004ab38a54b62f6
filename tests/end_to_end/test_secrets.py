"""A secret that an address needs is used and never published."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from tests.end_to_end.archives import run
from tests.pipeline.sources.range_server import RangeServer
from tests.pipeline.sources.tiny_archive import RESOLUTIONS, catalogue, item, write_archive, write_json

REGION = {
    "id": "tiny",
    "season": {"start": "2023-08-01", "end": "2023-08-31"},
    "place": {"bbox": [4.255, 44.225, 4.28, 44.245]},
}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RangeServer]:
    (tmp_path / "web").mkdir()
    server = RangeServer(tmp_path / "web", user="me:SECRET", token="SECRET/SECRET")
    yield server
    server.close()


def signed(server: RangeServer, identifier: str, **properties: Any) -> dict[str, Any]:
    """An item every address of which needs a secret or holds one in vain."""
    document = item(identifier, **{"s2:processing_baseline": "03.01", **properties})
    host = server.url.removeprefix("http://")
    for band in RESOLUTIONS:
        document["assets"][band] = {
            "href": f"./{band}.tif?sig=SECRET/SECRET",
            "alternate": {"s3": {"href": f"s3://key:SECRET@bucket/{band}.tif?sig=SECRET"}},
        }
    document["assets"]["B04"]["href"] = f"http://me:SECRET@{host}/s2/one/B04.tif?sig=SECRET/SECRET"
    document["links"] = [{"rel": "self", "href": f"http://me:SECRET@{host}/s2/one/item.json?sig=SECRET#SECRET"}]
    document["properties"]["preview"] = f"{server.url}/preview?sig=SECRET"
    return document


def write_signed(server: RangeServer) -> str:
    """A catalogue of a scene, the same with another id a day later, and one that is none; returns its address."""
    write_archive(server.folder)
    later = signed(server, "later", datetime="2023-08-14T10:40:21Z", **{"s2:datastrip_id": "another"})
    later["assets"]["B05"]["href"] = "./gone.tif?sig=SECRET/SECRET"
    unusable = signed(server, "unusable")
    del unusable["properties"]["s2:processing_baseline"]
    listed = {"one/item.json": signed(server, "first"), "one/later.json": later, "one/unusable.json": unusable}
    for name, document in listed.items():
        write_json(server.folder / "s2" / name, document)
    links = [("item", f"{name}?sig=SECRET/SECRET") for name in listed]
    write_json(server.folder / "s2/collection.json", catalogue(*links))
    write_json(server.folder / "catalog.json", catalogue(("child", "./s2/collection.json?sig=SECRET/SECRET")))
    return f"{server.url.replace('//', '//me:SECRET@')}/catalog.json?sig=SECRET/SECRET"


def said(path: Path) -> str:
    """All that a file says, compressed or not."""
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        return f"{table.schema.metadata} {table.to_pylist()}"
    return path.read_bytes().decode("latin-1")


@pytest.mark.slow
def test_no_output_holds_a_secret_of_an_address(server: RangeServer, tmp_path: Path) -> None:
    region = tmp_path / "tiny.yaml"
    imagery = {"source": "stac", "path": write_signed(server), "bands": ["B02", "B04", "B05"]}
    region.write_text(yaml.safe_dump({**REGION, "imagery": imagery}))
    path = server.folder / "s2/one/B02.tif"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    out, cache = tmp_path / "out", tmp_path / "cache"
    arguments = ("--region", region, "--out", out, "--cache", cache)
    plan = run("sits-build", *arguments, "--plan", "--json")
    broken = run("sits-build", *arguments, "--debug")
    assert (plan.returncode, broken.returncode) == (0, 3), broken.stderr
    assert "B02.tif" in broken.stdout + broken.stderr
    path.write_bytes(whole)
    mended = run("sits-build", *arguments)
    assert mended.returncode == 3  # gone.tif is still gone
    for ended in (plan, broken, mended):
        assert "SECRET" not in ended.stdout + ended.stderr
    files = [path for folder in (out, cache) for path in folder.rglob("*") if path.is_file()]
    assert {"sources.parquet", "item.json", "journal.jsonl", "report.html", "config.yaml"} <= {p.name for p in files}
    assert [str(path) for path in files if "SECRET" in said(path)] == []
    sources = pq.read_table(out / "tiny/sources.parquet").to_pandas().set_index("id")
    assert dict(sources.status) == {"first": "used", "later": "used", "unusable": "failed"}
    assert "gone.tif" in sources.reason["later"]
    assert json.loads(sources.item_json["unusable"])["assets"]["B05"]["href"] == "./B05.tif"
    linked = [link["href"] for link in json.loads((out / "tiny/item.json").read_text())["links"]]
    assert f"{server.url}/s2/one/item.json" in linked
