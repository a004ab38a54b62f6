"""Parcels at an address: read through our own requests, and nothing else is asked for whatever a path says."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

import geopandas
import pytest
from tests.pipeline.parcels.test_hostile_parcels import ENDLESS, EPSG, FIELD, geopackage, read
from tests.pipeline.sources.range_server import RangeServer

from sits_pipeline.parcels.areas import read_area
from sits_pipeline.parcels.split_areas import read_split_areas
from sits_pipeline.sources.breaker import BREAKER


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RangeServer]:
    """Serves `tmp_path / "web"`."""
    (tmp_path / "web").mkdir()
    serving = RangeServer(tmp_path / "web")
    yield serving
    serving.close()
    BREAKER.reset()


def fields() -> geopandas.GeoDataFrame:
    return geopandas.GeoDataFrame({"key": ["a"], "crop": ["b"]}, geometry=[FIELD], crs=EPSG)


@pytest.mark.parametrize("name", ["a.gpkg", "a.geojson", "a.fgb", "a.parquet", "a.zip"])
def test_parcels_at_an_address_are_those_of_the_file(tmp_path: Path, server: RangeServer, name: str) -> None:
    path = server.folder / name
    if name == "a.parquet":
        fields().to_parquet(path)
    elif name == "a.zip":
        fields().to_file(tmp_path / "a.shp", engine="pyogrio")
        with zipfile.ZipFile(path, "w") as archive:
            for part in tmp_path.glob("a.*"):
                archive.write(part, part.name)
    else:
        fields().to_file(path, engine="pyogrio")
    table = read(f"{server.url}/{name}?version=1")
    assert list(table.source_key) == ["a"]


def test_a_file_url_is_a_path(tmp_path: Path) -> None:
    path = geopackage(tmp_path / "a b.gpkg")
    assert list(read(path.as_uri()).source_key) == ["a"]


def test_what_the_server_of_a_files_address_redirects_to_is_not_asked_in_this_network(
    tmp_path: Path, server: RangeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.pipeline.sources.test_reach import resolve_as

    resolve_as(monkeypatch, {"files.intranet": ["127.0.0.1"] * 99})
    named = server.url.replace("127.0.0.1", "files.intranet")
    inner = RangeServer(tmp_path)
    server.redirect_to = f"{inner.url}/a.gpkg"
    for name in ("a.gpkg", "a.parquet"):
        with pytest.raises(ValueError, match=r"127\.0\.0\.1 is a loopback address"):
            read(f"{named}/{name}")
    assert inner.requests == []
    inner.close()


@pytest.mark.parametrize("name", ["a.gpkg", "a.parquet", "a.zip"])
def test_the_metadata_of_a_cloud_are_no_parcels(name: str) -> None:
    with pytest.raises(ValueError, match=r"169\.254\.169\.254 is a link-local address"):
        read(f"http://169.254.169.254/latest/{name}")


@pytest.mark.parametrize(
    "path",
    [
        "/vsicurl/http://127.0.0.1:{port}/a.gpkg", "/vsizip//vsicurl/http://127.0.0.1:{port}/a.zip/a.gpkg",
        "/vsicurl_streaming/http://127.0.0.1:{port}/a.gpkg", "/vsis3/bucket/a.gpkg", "/vsistdin/",
        "/vsizip/{folder}/a.zip/a.gpkg", "/vsisubfile/0,{folder}/a.gpkg", "simplecache::http://127.0.0.1:{port}/a.parquet",
        "WFS:http://127.0.0.1:{port}/", "OAPIF:http://127.0.0.1:{port}/", "ftp://127.0.0.1/a.gpkg",
        "zip+http://127.0.0.1:{port}/a.zip", "vsicurl://127.0.0.1:{port}/a.gpkg", "memory://a.parquet",
        "github://org:repo@/a.parquet", "<OGRVRTDataSource><SrcDataSource>http://127.0.0.1:{port}/a</SrcDataSource>",
    ],
)  # fmt: skip
def test_what_gdal_and_fsspec_would_ask_for_is_refused(tmp_path: Path, server: RangeServer, path: str) -> None:
    geopackage(tmp_path / "a.gpkg")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(tmp_path / "a.gpkg", "a.gpkg")
    named = path.format(port=server.url.rpartition(":")[2], folder=tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=r"not asked for|no address that is read|no such file"):
        read(named)
    with pytest.raises((ValueError, FileNotFoundError)):
        read_area(named, epsg=EPSG)
    with pytest.raises((ValueError, FileNotFoundError)):
        read_split_areas(named, [])
    assert server.requests == []


def test_a_folder_of_a_strangers_that_is_called_like_a_service_is_a_folder(
    tmp_path: Path, server: RangeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Path("WFS:http:") / server.url.removeprefix("http://")
    (tmp_path / place).parent.mkdir(parents=True)
    (tmp_path / place).write_text("{}")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="cannot be read as a vector file"):
        read(f"WFS:{server.url}")
    assert server.requests == []


def test_the_views_of_a_database_at_an_address_are_not_read(server: RangeServer) -> None:
    view = f"CREATE VIEW fields AS {ENDLESS} SELECT kept.* FROM kept, n"
    geopackage(server.folder / "a.gpkg", "ALTER TABLE fields RENAME TO kept", view)
    with pytest.raises(ValueError, match=r"127\.0\.0\.1.*a\.gpkg holds 'fields' as a view"):
        read(f"{server.url}/a.gpkg")


def test_a_file_without_its_suffix_at_an_address_is_known_by_its_first_bytes(server: RangeServer) -> None:
    fields().to_parquet(server.folder / "download")
    assert list(read(f"{server.url}/download?format=parquet").source_key) == ["a"]


def test_an_archive_at_an_address_is_checked_as_one_here_is(server: RangeServer) -> None:
    with zipfile.ZipFile(server.folder / "a.zip", "w") as archive:
        archive.writestr("../a.geojson", "{}")
    with pytest.raises(ValueError, match=r"http://127\.0\.0\.1:\d+/a\.zip holds a file named '\.\./a\.geojson'"):
        read(f"{server.url}/a.zip")
