"""The catalogue as a real STAC API, asked by pystac-client, and as pages that only this machine is given."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from dataclasses import dataclass
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pystac_client
import pytest
from tests.catalog.catalogue.made import make
from typer.testing import CliRunner

from sits_catalog.catalogue import Catalogue, add_dataset, loopback
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


@dataclass(frozen=True)
class Answered:
    """What a server sent back before it closed the connection."""

    status: int | None
    """None: no answer with a status line."""
    headers: Message


def talk(address: str, data: bytes) -> Answered:
    """Send these bytes and nothing that a client library would mend."""
    place = urlsplit(address)
    said = b""
    with socket.create_connection((place.hostname or "", place.port or 0), timeout=60) as one:
        try:
            one.sendall(data)
            one.shutdown(socket.SHUT_WR)
            while more := one.recv(65536):
                said += more
        except ConnectionError:  # closed before all was sent
            pass
    line, _, rest = said.partition(b"\r\n")
    status = int(line.split()[1]) if line.startswith(b"HTTP/") else None
    return Answered(status, message_from_bytes(rest.partition(b"\r\n\r\n")[0]))


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
def test_every_answer_says_what_a_browser_may_do_with_it(served: Served) -> None:
    """Errors too. Only the page may run scripts, its own; a report, which may be a stranger's, is in a sandbox."""
    policies = {}
    for address, path in (
        *((served.page, path) for path in ("/", "/index.html", "/datasets/hand-2021/report.html")),
        *((served.page, path) for path in ("/hand/hand-2021/preview-1.png", "/catalog.json", "/nothing")),
        *((served.api, path) for path in ("/", "/search?ids=fiji", "/nothing")),
    ):
        head = talk(address, f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()).headers
        assert head["X-Content-Type-Options"] == "nosniff"
        assert head["Referrer-Policy"] == "no-referrer"
        assert head["Cross-Origin-Opener-Policy"] == head["Cross-Origin-Resource-Policy"] == "same-origin"
        assert head["Cross-Origin-Embedder-Policy"] == "require-corp"
        assert head["Server"].strip() == "sits-catalog"
        assert head.get_all("Content-Security-Policy") is not None
        policies[address, path] = dict(
            part.strip().partition(" ")[::2] for part in head["Content-Security-Policy"].split(";")
        )
    for (address, path), policy in policies.items():
        assert (
            policy["default-src"]
            == policy["frame-ancestors"]
            == policy["base-uri"]
            == policy["form-action"]
            == "'none'"
        )
        assert ("script-src" in policy) == (address == served.page and path in ("/", "/index.html"))
        assert ("sandbox" in policy) == path.endswith("report.html")
        assert not {"connect-src", "frame-src", "worker-src", "object-src"} & policy.keys()


BAD_REQUESTS = {
    "a word": (b"hello\r\n\r\n", 400),
    "nothing": (b"\r\n\r\n", None),
    "bytes": (bytes(range(128, 256)) + b"\r\n\r\n", 400),
    "HTTP/0.9": (b"GET /catalog.json\r\n\r\n", 421),
    "HTTP/9": (b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n", 505),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 421),
    "two hosts": (b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n", 421),
    "another host": (b"GET / HTTP/1.1\r\nHost: 127.0.0.1.evil.example\r\n\r\n", 421),
    "a trailing dot": (b"GET / HTTP/1.1\r\nHost: localhost.:80\r\n\r\n", 421),
    "IPv6": (b"GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", 421),
    "a user": (b"GET / HTTP/1.1\r\nHost: localhost@evil.example\r\n\r\n", 421),
    "any address": (b"GET / HTTP/1.1\r\nHost: 0.0.0.0\r\n\r\n", 421),
    "an address for a path": (b"GET http://evil.example/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    "a broken address for a path": (b"GET http://[ HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    "a long line": (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414),
    "a long header": (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 70_000 + b"\r\n\r\n", 431),
    "many headers": (b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 200 + b"\r\n", 431),
    **{verb: (f"{verb} / HTTP/1.1\r\nHost: localhost\r\n\r\n".encode(), 501) for verb in ("PUT", "TRACE", "CONNECT")},
}


@pytest.mark.slow
@pytest.mark.parametrize(("request_", "status"), BAD_REQUESTS.values(), ids=list(BAD_REQUESTS))
def test_a_bad_request_is_refused_and_nothing_is_printed(
    served: Served, capfd: pytest.CaptureFixture[str], request_: bytes, status: int | None
) -> None:
    for address in (served.page, served.api):
        assert talk(address, request_).status == status
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_its_own_names_are_its_own_in_any_case(served: Served) -> None:
    for host in ("127.0.0.1", "localhost", "LocalHost:8400", f"127.0.0.1:{urlsplit(served.page).port}"):
        assert get(served.page, "/", Host=host)[0] == get(served.api, "/", Host=host)[0] == 200


@pytest.mark.slow
def test_no_path_leaves_the_catalogue(served: Served, catalogue: Catalogue, capfd: pytest.CaptureFixture[str]) -> None:
    secret = catalogue.folder.parent / "secret.json"
    secret.write_text("{}")
    (catalogue.folder / "out.json").symlink_to(secret)
    (catalogue.folder / "loop.json").symlink_to("loop.json")
    (catalogue.folder / "away").symlink_to(catalogue.folder.parent)
    climbs = ("..", "%2e%2e", "%2E.", "..%2f..", "..%5c..", "%252e%252e", "....//", "..\\", "%c0%ae%c0%ae", ".%00.")
    paths = [f"/{'/'.join([climb] * depth)}/secret.json" for climb in climbs for depth in (1, 2, 5)]
    paths += [f"/hand/{climb}/{climb}/secret.json" for climb in climbs]
    paths += ["/out.json", "/away/secret.json", "/loop.json", f"/{secret}", f"/%2f{str(secret)[1:]}", f"//{secret}"]
    paths += ["/C:%5csecret.json", "/file:%2f%2f/secret.json", "/.lock", "/hand/.lock", "/hand", "/catalog.json%00.png"]
    paths += [f"/{'a' * 300}.json", f"/{'a/' * 30_000}b.json", f"/{'%2e%2e/' * 5000}secret.json", "/%", "/%zz", "/\xff"]
    paths += [f"/datasets/hand-2021/{climb}/{climb}/secret.json" for climb in climbs]
    for path in paths:
        request_ = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode("latin-1")
        assert talk(served.page, request_).status == 404, path
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_a_report_that_is_a_link_out_of_its_dataset_is_not_handed_out(tmp_path: Path) -> None:
    found = Catalogue.at(tmp_path / "catalogue", {})
    dataset = make(tmp_path / "strange")
    add_dataset(found, str(dataset))
    (tmp_path / "private.html").write_text("secret")
    (dataset / "report.html").unlink()
    (dataset / "report.html").symlink_to(tmp_path / "private.html")
    with serve(found, port=0, api_port=0) as (where, _):
        assert get(where.page, "/datasets/hand-2021/report.html")[0] == 404
        assert get(where.page, "/datasets/hand-2021/item.json")[0] == 200
        (found.folder / "catalog.json").unlink()
        (found.folder / "hand" / "hand-2021" / "hand-2021.json").write_text("{")
        status, said = get(where.page, "/datasets/hand-2021/item.json")
        assert (status, b"hand-2021.json" in said) == (500, True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ("Content-Length: 10000001", b"", 413),
        (f"Content-Length: {'9' * 5000}", b"", 413),
        ("Content-Length: -1", b"", 411),
        ("X: y", b"", 411),
        ("Transfer-Encoding: chunked", b"0\r\n\r\n", 411),
        ("Content-Length: 2\r\nTransfer-Encoding: chunked", b"{}", 411),
        ("Content-Length: 100", b'{"ids": []}', 400),
    ],
)
def test_a_body_of_no_or_too_great_a_length_is_not_read(served: Served, headers: str, body: bytes, status: int) -> None:
    head = f"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{headers}\r\n\r\n"
    assert talk(served.api, head.encode() + body).status == status


def assert_is_cut_off(trickling: socket.socket) -> None:
    """A byte now and then, until the other side has answered or closed."""
    with trickling:
        trickling.settimeout(0.05)
        until = time.monotonic() + 60
        while time.monotonic() < until:
            try:
                trickling.sendall(b"T")
                trickling.recv(1)
            except TimeoutError:
                continue
            except ConnectionError:
                pass
            return
    raise AssertionError("still read after a minute")


@pytest.mark.slow
def test_clients_that_trickle_are_cut_off_and_leave_a_place(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As many as have a place send a byte now and then; one more is closed at once; then the page answers again."""
    monkeypatch.setattr(loopback, "_REQUEST_S", 1.0)
    monkeypatch.setattr(loopback, "_MAX_AT_ONCE", 3)
    with serve(catalogue, port=0, api_port=0) as (where, _):
        place = urlsplit(where.page)
        assert place.hostname is not None
        slow = [socket.create_connection((place.hostname, place.port), timeout=20) for _ in range(3)]
        for one in slow:
            one.sendall(b"GET / HT")
        with socket.create_connection((place.hostname, place.port), timeout=20) as one_more:
            assert one_more.recv(1) == b""
        for one in slow:
            assert_is_cut_off(one)
        until = time.monotonic() + 60
        while talk(where.page, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").status != 200:
            assert time.monotonic() < until
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_both_listen_on_the_loopback_alone(served: Served) -> None:
    """Of this process: no socket listens at any address but 127.0.0.1."""
    ports = {urlsplit(address).port for address in (served.page, served.api)}
    found = [one.laddr for one in psutil.Process().net_connections("inet") if one.status == psutil.CONN_LISTEN]
    assert ports <= {address.port for address in found}
    assert {address.ip for address in found if address.port in ports} == {"127.0.0.1"}


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
