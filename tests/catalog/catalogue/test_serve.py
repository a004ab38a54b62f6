"""The catalogue as a real STAC API, asked by pystac-client, and as pages that only this machine is given."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pystac_client
import pytest
from tests.catalog.catalogue.made import make
from typer.testing import CliRunner

from sits_catalog.catalogue import Catalogue, add_dataset
from sits_catalog.catalogue.serve import Served, api_items, serve
from sits_catalog.cli import app


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    folder = tmp_path_factory.mktemp("serve")
    found = Catalogue.at(folder / "catalogue", {})
    add_dataset(found, str(make(folder / "a")))
    add_dataset(found, str(make(folder / "b", name="fiji", box=(179.0, -18.0, 179.5, -17.5), labels=False)))
    add_dataset(found, str(make(folder / "c", name="nowhere", profile="patches", box=None)))
    return found


@pytest.fixture(scope="module")
def served(catalogue: Catalogue) -> Iterator[Served]:
    with serve(catalogue, port=0, api_port=0) as (where, ended):
        assert ended() is None
        yield where


def get(address: str, path: str, **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=20)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    found = answer.status, answer.read()
    connection.close()
    return found


def test_the_items_of_the_api_point_to_the_datasets(catalogue: Catalogue) -> None:
    collections, items = api_items(catalogue)
    assert {one["id"] for one in collections} == {"hand", "fiji", "nowhere", "hand-2021-splits"}
    found = {item["id"]: item for item in items}
    assert set(found) == {"hand-2021", "fiji", "nowhere"} | {
        f"hand-2021-{name}" for name in ("train", "validate", "test")
    }
    cube = found["hand-2021"]["assets"]["cube"]["href"]
    assert cube == f"file://{catalogue.folder.parent}/a/cube.zarr"
    assert Path(cube.removeprefix("file://")).is_dir()
    assert found["hand-2021-train"]["assets"]["labels"]["href"] == f"{cube}/crop_type"


@pytest.mark.slow
def test_pystac_client_finds_what_it_asks_for(served: Served) -> None:
    client = pystac_client.Client.open(served.api)

    def ids(**query: object) -> set[str]:
        return {item.id for item in client.search(**query).items()}  # type: ignore[arg-type]

    datasets = ["hand", "fiji", "nowhere"]
    assert {one.id for one in client.get_collections()} == {*datasets, "hand-2021-splits"}
    assert ids(collections=datasets) == {"hand-2021", "fiji", "nowhere"}
    assert ids(bbox=[3.05, 48, 4, 49], collections=datasets) == {"hand-2021"}
    assert ids(bbox=[10, 48, 11, 49]) == set()
    assert ids(bbox=[178, -19, 180, -17]) == {"fiji"}
    assert ids(datetime="2022-01-01/2022-01-31", collections=["hand"]) == {"hand-2021"}
    assert ids(datetime="2023-01-01/2023-12-31") == set()
    assert ids(ids=["fiji"]) == {"fiji"}
    assert ids(ids=["banana"]) == set()
    (train,) = client.search(ids=["hand-2021-train"]).items()
    assert train.properties["ml-aoi:split"] == "train"


@pytest.mark.slow
def test_the_pages_are_for_this_machine_and_hold_no_other_file(served: Served, catalogue: Catalogue) -> None:
    status, page = get(served.page, "/")
    assert status == 200
    assert f'data-folder="{catalogue.folder}"'.encode() in page
    assert get(served.page, "/hand/hand-2021/preview-1.png")[1].startswith(b"\x89PNG")
    assert json.loads(get(served.page, "/datasets/hand-2021/item.json")[1])["id"] == "hand-2021"
    assert get(served.page, "/datasets/hand-2021/report.html")[0] == 200
    for path in (
        *("/datasets/hand-2021/config.yaml", "/datasets/hand-2021/../../a/config.yaml", "/datasets/x/item.json"),
        *("/../a/item.json", "/%2e%2e/a/item.json", "/..%2fa%2fitem.json", "/.lock", "/hand", "//etc/passwd", "/a%00b"),
    ):
        assert get(served.page, path)[0] == 404, path
    assert get(served.page, "/", Host="example.org:80")[0] == 421


@pytest.mark.slow
def test_the_api_is_for_this_machine_and_no_page_elsewhere_may_read_it(served: Served) -> None:
    """A name that was pointed at 127.0.0.1, and a page of another origin; links lead to where we asked."""
    assert get(served.api, "/collections", Host="example.org:80")[0] == 421
    query = json.dumps({"ids": ["fiji"]}).encode()
    for method, path, body in (("GET", "/", None), ("GET", "/search?ids=fiji", None), ("POST", "/search", query)):
        connection = http.client.HTTPConnection(urlsplit(served.api).netloc, timeout=20)
        headers = {"Origin": "https://example.org", "Content-Type": "application/json"}
        connection.request(method, path, body=body, headers=headers)
        answer = connection.getresponse()
        document = json.loads(answer.read())
        connection.close()
        assert answer.status == 200
        assert [name for name in answer.headers if name.lower().startswith("access-control")] == []
        links = document["links"] + [link for item in document.get("features", ()) for link in item["links"]]
        places = {urlsplit(link["href"]).netloc for link in links if not link["href"].startswith("file://")}
        assert places == {urlsplit(served.api).netloc}
        assert [item["id"] for item in document.get("features", ())] == (["fiji"] if "search" in path else [])
    connection = http.client.HTTPConnection(urlsplit(served.api).netloc, timeout=20)
    connection.request("OPTIONS", "/search", headers={"Origin": "https://example.org"})
    assert connection.getresponse().status == 501
    connection.close()


@pytest.mark.slow
def test_ctrl_c_ends_both_cleanly(catalogue: Catalogue) -> None:
    program = Path(sysconfig.get_path("scripts"), "sits-catalog")
    command = [sys.executable, str(program), "serve", "--catalogue", str(catalogue.folder), "--port", "0"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    page, api = (process.stdout.readline().split(":", 1)[1].strip() for _ in range(2))
    assert get(page, "/")[0] == get(api, "/")[0] == 200
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert (process.returncode, said) == (0, "ended\n")
    for address in (page, api):
        with pytest.raises(ConnectionRefusedError):
            get(address, "/")


def test_without_rustac_one_sentence_says_how_to_get_it(
    catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    assert shutil.which("rustac") is None
    result = CliRunner().invoke(app, ["serve", "--catalogue", str(catalogue.folder), "--port", "0"])
    assert result.exit_code == 2
    assert result.stderr == (
        "error: rustac, which serves the STAC API, is not installed; install it with the extra sits-cubes[serve]\n"
    )
