"""A remote catalogue that leads into the network of whoever reads it, and servers that do, in whole builds."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from tests.end_to_end.archives import (
    DATES,
    Ended,
    SmallArchive,
    cells_in_journal,
    region_document,
    run_here,
    write_small_archive,
)
from tests.pipeline.sources.range_server import RangeServer
from tests.services.loopback import Loopback, QuietHandler

pytestmark = pytest.mark.slow

METADATA = "http://169.254.169.254/latest/meta-data/iam.tif"


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> SmallArchive:
    return write_small_archive(tmp_path_factory.mktemp("archive"))


@pytest.fixture
def archive(pristine: SmallArchive, tmp_path: Path) -> SmallArchive:
    """A copy that a test may spoil."""
    shutil.copytree(pristine.folder, tmp_path / "archive")
    return replace(pristine, folder=tmp_path / "archive")


@pytest.fixture
def served(archive: SmallArchive) -> Iterator[RangeServer]:
    with RangeServer(archive.folder) as server:
        yield server


def build(archive: SmallArchive, out: Path, catalogue: str, *more: object) -> Ended:
    region = archive.folder / "hostile.yaml"
    document = region_document(imagery={"source": "stac", "path": catalogue, "bands": ["B02", "B04", "B05"]})
    region.write_text(yaml.safe_dump(document, sort_keys=False))
    return run_here("sits-build", "--region", region, "--out", out, "--cell", "512", "--workers", "2", *more)


def change(path: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    document = json.loads(path.read_text())
    edit(document)
    path.write_text(json.dumps(document))


def test_an_item_that_leads_to_the_metadata_of_the_cloud_is_listed_and_never_asked_for(
    archive: SmallArchive, served: RangeServer, tmp_path: Path
) -> None:
    bad = archive.item("31TFJ", DATES[0])
    change(archive.folder / bad / "item.json", lambda item: item["assets"]["B04"].update(href=METADATA))
    ended = build(archive, tmp_path / "out", f"{served.url}/catalog.json")
    assert ended.code == 0, ended.stderr
    rows = pq.read_table(tmp_path / "out/small/sources.parquet").to_pylist()
    (reason,) = [row["reason"] for row in rows if row["id"] == bad]
    assert "asset B04" in reason
    assert "169.254.169.254 is a link-local address" in reason
    assert "SITS_ALLOW_HOSTS" not in reason  # nobody is told to let the keys of the machine be asked for


def test_a_file_that_redirects_into_another_network_is_unread(
    archive: SmallArchive, served: RangeServer, tmp_path: Path
) -> None:
    class Sending(QuietHandler):
        def do_GET(self) -> None:
            path = self.path.lstrip("/")
            bad = archive.item("31TEJ", DATES[2]) in path and path.endswith("B05.tif")
            self.send_response(302)
            self.send_header("Location", "http://10.0.0.1/B05.tif" if bad else f"{served.url}/{path}")
            self.send_header("Content-Length", "0")
            self.end_headers()

    with Loopback(Sending) as sending:
        ended = build(archive, tmp_path / "out", f"{sending.url}/catalog.json")
    assert ended.code == 3, ended.stderr
    lines = cells_in_journal(tmp_path / "out/small").values()
    errors = {failure["error"] for line in lines for failure in line.get("failures", ())}
    assert len(errors) == 1, lines
    assert "10.0.0.1 is a private address, and what others name or redirect to is asked for at public" in errors.pop()


@pytest.mark.parametrize("rel", ["child", "item"])
def test_a_catalogue_whose_links_lead_into_another_network_is_refused(
    archive: SmallArchive, served: RangeServer, tmp_path: Path, rel: str
) -> None:
    link = {"rel": rel, "href": "http://0xa.1/catalog.json"}
    change(archive.folder / "catalog.json", lambda catalogue: catalogue["links"].append(link))
    ended = build(archive, tmp_path / "out", f"{served.url}/catalog.json")
    assert ended.code == 2
    assert "0xa.1 is a private address" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "out" / "small").exists()


def test_a_search_whose_next_page_is_in_another_network_is_refused(archive: SmallArchive, tmp_path: Path) -> None:
    class Api(QuietHandler):
        def do_GET(self) -> None:
            here = f"http://{self.headers['Host']}"
            conforms = ["https://api.stacspec.org/v1.0.0/core", "https://api.stacspec.org/v1.0.0/item-search"]
            links = [{"rel": "search", "href": f"{here}/search", "method": "GET"}]
            root = {"type": "Catalog", "id": "a", "stac_version": "1.0.0", "description": "a", "links": links}
            page = {"type": "FeatureCollection", "features": [], "links": [{"rel": "next", "href": METADATA}]}
            body = json.dumps(page if "search" in self.path else {**root, "conformsTo": conforms}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with Loopback(Api) as api:
        ended = run_here(
            *("sits-build", "--region", archive.region, "--out", tmp_path / "out"),
            *("--source", "stac-api", "--source-path", api.url, "--plan"),
        )
    assert ended.code == 2
    assert "169.254.169.254 is a link-local address" in ended.stderr
