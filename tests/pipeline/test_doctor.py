"""`sits-build --doctor` against servers of this machine, one thing of each set-up broken."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tests.end_to_end.archives import Ended, run, run_here
from tests.pipeline.sources.tiny_archive import item
from tests.services.moto import free_port, moto_server
from tests.services.rustac import Rustac
from tests.services.sentinel_hub.oauth import Tokens

CLIENT, SECRET = "a-client", "HUSH-of-a-client"
_SETTINGS = ("SH_", "AWS_", "CDSE_", "PC_SDK_", "SENTINELHUB_")

Reply = tuple[int, bytes]


@pytest.fixture(autouse=True)
def _nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No credentials of whoever runs the tests."""
    for name in [name for name in os.environ if name.startswith(_SETTINGS)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def examine(tmp_path: Path, *more: object) -> tuple[Ended, dict[str, str], dict[str, str]]:
    """How the doctor ended, what he found in order and what not, by subject."""
    arguments = (*more,) if "--out" in more else ("--out", tmp_path / "out", *more)
    ended = run_here("sits-build", "--doctor", "--json", "--cache", tmp_path / "cache", "--cache-gb", 0.1, *arguments)
    found = json.loads(ended.stdout)
    assert ended.code == (1 if any(one["state"] == "wrong" for one in found) else 0), ended.stderr
    assert "HUSH" not in ended.stdout + ended.stderr
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "cache").exists()
    well = {one["subject"]: one["says"] for one in found if one["state"] == "ok"}
    ill = {one["subject"]: one["says"] for one in found if one["state"] == "wrong"}
    return ended, well, ill


@contextmanager
def serve(answer: Callable[[str, Mapping[str, str], bytes], Reply], *, clock_off_s: float = 0.0) -> Iterator[str]:
    """The address of a server that answers so, its clock set wrong by so many seconds."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(b"")

        def do_POST(self) -> None:
            self._answer(self.rfile.read(int(self.headers["Content-Length"])))

        def _answer(self, body: bytes) -> None:
            status, content = answer(self.path, self.headers, body)
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def date_time_string(self, timestamp: float | None = None) -> str:
            return formatdate((timestamp or time.time()) + clock_off_s, usegmt=True)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def hub(path: str, headers: Mapping[str, str], body: bytes, *, tokens: Tokens, accepts: bool = True) -> Reply:
    """A Sentinel Hub, as far as a doctor asks it."""
    authorization = headers.get("Authorization", "")
    if path.endswith("/openid-connect/token"):
        status, token = tokens.answer(authorization, body)
        return status, json.dumps(token).encode()
    if not (accepts and tokens.are_valid(authorization)):
        return 401, b'{"error": {"reason": "Unauthorized"}}'
    return 200, b'{"id": "sentinel-2-l2a", "type": "Collection"}'


@contextmanager
def stac_api(folder: Path, collection: str) -> Iterator[str]:
    """The root of a real STAC API with one item of a collection."""
    folder.mkdir()
    with Rustac(folder, [{**item("one"), "collection": collection}]) as api:
        yield api.url


# The machine


def test_a_machine_that_is_well(tmp_path: Path) -> None:
    ended, well, ill = examine(tmp_path, "--source", "simulated")
    assert (ended.code, ill) == (0, {})
    assert {"python", "libraries", "GDAL", "out", "cache", "simulated"} == well.keys()
    assert "JP2OpenJPEG" in well["GDAL"]
    assert "rasterio" in well["libraries"]


def test_findings_are_lines_for_people(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ended = run_here("sits-build", "--doctor", "--source", "simulated", "--out", tmp_path / "file" / "out")
    assert ended.code == 1
    (line,) = [line for line in ended.stdout.splitlines() if line.startswith("WRONG")]
    assert line == f"WRONG    out: {tmp_path}/file is a file, and a folder is needed there; choose another --out"
    assert sum(line.startswith("ok ") for line in ended.stdout.splitlines()) == 5


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    _, _, ill = examine(tmp_path, "--source", "simulated", "--out", tmp_path / "locked" / "out")
    assert ill.keys() == {"out"}
    assert "Permission denied" in ill["out"]
    assert "choose another --out" in ill["out"]


def test_a_cache_without_room(tmp_path: Path) -> None:
    ended = run_here(
        "sits-build", "--doctor", "--json", "--source", "simulated", "--out", tmp_path / "out",
        "--cache", tmp_path / "cache", "--cache-gb", "1e9",
    )  # fmt: skip
    ill = [one for one in json.loads(ended.stdout) if one["state"] == "wrong"]
    assert (ended.code, [one["subject"] for one in ill]) == (1, ["cache"])
    assert "may grow to 1e+09 GB; choose a --cache on a larger disk, or a smaller --cache-gb" in ill[0]["says"]


@pytest.mark.slow
def test_a_scheduler_that_does_not_answer(tmp_path: Path) -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    _, _, ill = examine(tmp_path, "--source", "simulated", "--scheduler", address)
    assert ill.keys() == {"scheduler"}
    assert f"no Dask scheduler answers at {address}" in ill["scheduler"]
    assert "`dask scheduler`" in ill["scheduler"]


def test_a_scheduler_that_is_well(tmp_path: Path) -> None:
    from distributed import LocalCluster

    here = {"n_workers": 1, "threads_per_worker": 1, "processes": False, "dashboard_address": None}
    quiet = {"dashboard": False, "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(protocol="tcp", host="127.0.0.1", scheduler_kwargs=quiet, **here) as cluster:
        _, well, ill = examine(tmp_path, "--source", "simulated", "--scheduler", cluster.scheduler_address)
    assert ill == {}
    assert "with 1 workers, all of the same versions" in well["scheduler"]


@pytest.mark.slow
def test_a_bucket_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with moto_server() as store:
        for name, value in store.environment().items():
            monkeypatch.setenv(name, value)
        _, _, ill = examine(tmp_path, "--source", "simulated", "--out", "s3://nowhere/cubes")
        _, well, none = examine(tmp_path, "--source", "simulated", "--out", "s3://cubes/below")
        assert store.keys() == [], "nothing stays behind"
    assert ill.keys() == {"out"}
    assert "s3://nowhere/cubes: the store has no bucket nowhere; make it, or check the address" in ill["out"]
    assert none == {}
    assert "s3://cubes/below can be written" in well["out"]


# Sentinel Hub


def ask_hub(tmp_path: Path, url: str) -> tuple[Ended, dict[str, str], dict[str, str]]:
    return examine(tmp_path, "--source", "sentinel-hub", "--source-path", url)


def log_in(monkeypatch: pytest.MonkeyPatch, url: str, secret: str = SECRET) -> None:
    monkeypatch.setenv("SH_CLIENT_ID", CLIENT)
    monkeypatch.setenv("SH_CLIENT_SECRET", secret)
    monkeypatch.setenv("SH_TOKEN_URL", f"{url}/realm/openid-connect/token")


def test_a_sentinel_hub_that_lets_us_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = Tokens(CLIENT, SECRET, life_s=300)
    with serve(lambda *asked: hub(*asked, tokens=tokens)) as url:
        log_in(monkeypatch, url)
        ended, well, ill = ask_hub(tmp_path, url)
    assert (ended.code, ill) == (0, {})
    assert {f"sentinel-hub {what}" for what in ("address", "clock", "credentials", "catalogue")} <= well.keys()
    assert tokens.issued
    assert tokens.issued[0] not in ended.stdout


def test_a_sentinel_hub_that_refuses_the_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = Tokens(CLIENT, SECRET, life_s=300)
    with serve(lambda *asked: hub(*asked, tokens=tokens)) as url:
        log_in(monkeypatch, url, secret="HUSH-of-another")
        _, well, ill = ask_hub(tmp_path, url)
    assert tokens.refused == 1
    assert ill.keys() == {"sentinel-hub credentials"}
    says = ill["sentinel-hub credentials"]
    assert f"{url}/realm/openid-connect/token refuses them (HTTP 401): id or secret is wrong" in says
    assert "set SH_CLIENT_ID and SH_CLIENT_SECRET" in says
    assert "https://shapps.dataspace.copernicus.eu/dashboard/ or https://apps.sentinel-hub.com/dashboard/" in says
    assert "answers" in well["sentinel-hub address"]


def test_a_token_of_another_deployment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = Tokens(CLIENT, SECRET, life_s=300)
    with serve(lambda *asked: hub(*asked, tokens=tokens, accepts=False)) as url:
        log_in(monkeypatch, url)
        _, _, ill = ask_hub(tmp_path, url)
    assert ill.keys() == {"sentinel-hub catalogue"}
    assert "they belong to different deployments" in ill["sentinel-hub catalogue"]
    assert "imagery.deployment" in ill["sentinel-hub catalogue"]


def test_no_credentials_for_sentinel_hub(tmp_path: Path) -> None:
    tokens = Tokens(CLIENT, SECRET, life_s=300)
    with serve(lambda *asked: hub(*asked, tokens=tokens)) as url:
        _, _, ill = ask_hub(tmp_path, url)
    assert ill.keys() == {"sentinel-hub credentials"}
    assert "no credentials" in ill["sentinel-hub credentials"]
    assert "SH_CLIENT_ID" in ill["sentinel-hub credentials"]


@pytest.mark.parametrize(("off_s", "says"), [(-3600.0, "60 minutes ahead of"), (900.0, "15 minutes behind")])
def test_a_clock_that_goes_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, off_s: float, says: str) -> None:
    tokens = Tokens(CLIENT, SECRET, life_s=300)
    with serve(lambda *asked: hub(*asked, tokens=tokens), clock_off_s=off_s) as url:
        log_in(monkeypatch, url)
        _, _, ill = ask_hub(tmp_path, url)
    assert ill.keys() == {"sentinel-hub clock"}
    assert says in ill["sentinel-hub clock"]
    assert "timedatectl set-ntp true" in ill["sentinel-hub clock"]


# STAC APIs


def test_an_address_that_does_not_answer(tmp_path: Path) -> None:
    root = f"http://127.0.0.1:{free_port()}/v1"
    _, _, ill = examine(tmp_path, "--source", "earth-search", "--source-path", root)
    assert ill.keys() == {"earth-search address"}
    assert f"{root} does not answer: Connection refused; check the address, the network" in ill["earth-search address"]


def test_an_address_of_something_else(tmp_path: Path) -> None:
    with serve(lambda *_: (200, b"<html>welcome</html>")) as url:
        _, _, ill = examine(tmp_path, "--source", "earth-search", "--source-path", url)
    assert ill.keys() == {"earth-search catalogue"}
    assert f"{url} answers, but is not the root of a STAC API" in ill["earth-search catalogue"]


@pytest.mark.slow
def test_an_api_without_the_collection(tmp_path: Path) -> None:
    with stac_api(tmp_path / "api", "landsat-c2-l2") as root:
        _, _, ill = examine(tmp_path, "--source", "earth-search", "--source-path", root)
    assert ill.keys() == {"earth-search catalogue"}
    says = ill["earth-search catalogue"]
    assert f"{root} has no collection sentinel-2-l2a; set imagery.collection to landsat-c2-l2" in says


@pytest.mark.slow
def test_no_credentials_for_cdse(tmp_path: Path) -> None:
    with stac_api(tmp_path / "api", "sentinel-2-l2a") as root:
        _, well, ill = examine(tmp_path, "--source", "cdse", "--source-path", root)
    assert "a STAC API with sentinel-2-l2a" in well["cdse catalogue"]
    assert ill.keys() == {"cdse credentials"}
    says = ill["cdse credentials"]
    assert "set CDSE_USERNAME and CDSE_PASSWORD" in says
    assert "or CDSE_S3_ACCESS_KEY_ID and CDSE_S3_SECRET_ACCESS_KEY to S3 keys of https://" in says
    assert "https://eodata-s3keysmanager.dataspace.copernicus.eu" in says


@pytest.mark.slow
def test_keys_for_cdse_are_tried(tmp_path: Path) -> None:
    refusal = b"<Error><Code>InvalidAccessKeyId</Code><AWSAccessKeyId>AKIASTRANGER</AWSAccessKeyId></Error>"
    with stac_api(tmp_path / "api", "sentinel-2-l2a") as root, moto_server() as store:
        store.client().create_bucket(Bucket="eodata", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
        arguments = ("--doctor", "--source", "cdse", "--source-path", root, "--out", tmp_path / "out")
        # As processes: a signature is good for all further reads of one.
        usual = {**store.environment(), "CDSE_S3_ENDPOINT": store.url}
        well = run("sits-build", *arguments, **usual)
        with serve(lambda *_: (403, refusal)) as refusing:
            own = {"CDSE_S3_ACCESS_KEY_ID": "AKIASTRANGER", "CDSE_S3_SECRET_ACCESS_KEY": "HUSH-of-a-stranger"}
            ill = run("sits-build", *arguments, **{**usual, **own, "CDSE_S3_ENDPOINT": refusing})
            half = run("sits-build", *arguments, **usual, CDSE_S3_ACCESS_KEY_ID="AKIASTRANGER")
    assert (well.returncode, ill.returncode, half.returncode) == (0, 1, 1), well.stdout
    assert "cdse credentials: the S3 keys are accepted" in well.stdout
    assert "one is set: set both, or neither for the usual AWS ones" in half.stdout
    assert "are not accepted" not in half.stdout
    (wrong,) = [line for line in ill.stdout.splitlines() if line.startswith("WRONG")]
    assert "cdse credentials: " in wrong
    assert "the keys in CDSE_S3_ACCESS_KEY_ID and CDSE_S3_SECRET_ACCESS_KEY (without them" in wrong
    assert "are not accepted, make new ones at" in wrong
    assert "AKIASTRANGER" not in ill.stdout + ill.stderr
    assert "HUSH" not in ill.stdout + ill.stderr


# What the doctor is told


def test_a_source_that_there_is_none_of(tmp_path: Path) -> None:
    ended = run_here("sits-build", "--doctor", "--source", "landsat", "--out", tmp_path / "out")
    assert ended.code == 2
    assert "--source is one of simulated, stac, safe, earth-search" in ended.stderr


@pytest.mark.parametrize("source", ["stac", "safe", "stac-api"])
def test_a_source_without_its_path(tmp_path: Path, source: str) -> None:
    _, _, ill = examine(tmp_path, "--source", source)
    assert ill == {source: "nothing says where it is; set imagery.path, or --source-path"}


def test_the_source_of_a_region_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / "region.yaml").write_text(
        "id: here\nseason: {start: 2023-01-01, end: 2023-12-31}\nplace: {bbox: [4.2, 44.2, 4.3, 44.3]}\n"
        "imagery: {source: safe, path: products}\n"
    )
    _, _, ill = examine(tmp_path, "--region", tmp_path / "region.yaml")
    assert ill == {"safe": f"there is nothing at {tmp_path}/products; check imagery.path, or --source-path"}
    (tmp_path / "products").mkdir()
    _, _, ill = examine(tmp_path, "--region", tmp_path / "region.yaml")
    assert "holds no folder *.SAFE" in ill["safe"]
