"""Providers that want proof of who asks: tokens and signatures expire while a cube is built, and nobody reads them."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely
from tests.end_to_end.building import (
    IMAGES,
    LABELS,
    SMALL,
    Dataset,
    build_region,
    simulated_land,
    with_imagery,
)
from tests.services.moto import BUCKET, KEY, SECRET, moto_server
from tests.services.provider_items import cdse_items, planetary_items, scenes_in, write_cogs, write_table
from tests.services.token_service import BlobServer, OidcService, SasService

from sits_catalog.region import Region, Season
from sits_pipeline.sources import s3
from sits_pipeline.sources.api import ApiSource
from sits_pipeline.sources.providers import PROVIDERS
from sits_pipeline.sources.sas import SasSigner

pytestmark = pytest.mark.slow

BANDS = ("B02", "B04", "B8A", "B09")


@pytest.fixture(scope="module")
def land(tmp_path_factory: pytest.TempPathFactory) -> Region:
    """A year of simulated scenes, as ESA's products too, before and after baseline 04.00."""
    return simulated_land(tmp_path_factory.mktemp("signed"), SMALL, bands=BANDS, dates=6, seed=4, safe=True)


@pytest.fixture(scope="module")
def products(land: Region) -> Path:
    assert land.imagery.path is not None
    return Path(land.imagery.path).parent / "safe"


@pytest.fixture(scope="module")
def from_disk(land: Region, products: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The cube of the products on this disk."""
    return build_region(with_imagery(land, source="safe", path=str(products)), tmp_path_factory.mktemp("disk"))


@pytest.fixture(scope="module")
def cogs(products: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cogs")
    write_cogs(products, folder)
    return folder


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """None of the machine's credentials."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "CDSE_", "PC_SDK_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    s3.forget_all()
    yield
    s3.forget_all()


def assert_same_cube(one: Dataset, other: Dataset) -> None:
    assert one.complete
    assert other.complete
    assert one.days == other.days
    for name in (*IMAGES, *LABELS):
        np.testing.assert_array_equal(one.array(name), other.array(name), err_msg=name)
    assert one.findings() == []


def said(path: Path) -> str:
    """All that a file says, compressed or not."""
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        return f"{table.schema.metadata} {table.to_pylist()}"
    return path.read_bytes().decode("latin-1")


def assert_nothing_tells(secrets: Sequence[str], folders: Sequence[Path], streams: str) -> None:
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert {"sources.parquet", "item.json", "journal.jsonl", "report.html"} <= {path.name for path in files}
    assert secrets
    for secret in secrets:
        assert secret not in streams
    assert [str(path) for path in files if any(secret in said(path) for secret in secrets)] == []


Streams = Callable[[], str]


@pytest.fixture
def streams(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Streams:
    """Everything printed and logged, at the finest level."""
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.INFO, "stac_geoparquet")  # its records of a finer level cannot be formatted

    def so_far() -> str:
        printed = capfd.readouterr()
        return printed.out + printed.err + caplog.text

    return so_far


@pytest.mark.parametrize("how", ["expire", "are revoked early"])
def test_tokens_that_end_while_a_cube_is_built_are_replaced(
    how: str, land: Region, products: Path, cogs: Path, from_disk: Dataset, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, streams: Streams,
) -> None:  # fmt: skip
    with (
        closing(SasService(2.0 if how == "expire" else 60.0)) as service,
        closing(BlobServer(cogs, service.admits)) as blobs,
    ):
        # At these requests the server waits for the tokens to end, so that no machine is too quick for it.
        blobs.at([15, 35, 60], service.tokens.wait_for_the_end if how == "expire" else service.tokens.revoke_when_old)
        table = write_table(planetary_items(scenes_in(products), blobs.url), tmp_path / "items.parquet")
        monkeypatch.setenv("PC_SDK_SAS_URL", service.root)
        region = with_imagery(land, source="planetary-computer", path=str(table))
        dataset = build_region(region, tmp_path / "out", cache=tmp_path / "cache")
        assert_same_cube(dataset, from_disk)
        assert blobs.left == []
        assert len(service.tokens.texts) >= 4
        assert how == "expire" or blobs.refused >= 3
        assert set(dataset.table("sources").provider) == {"planetary-computer"}
        assert_nothing_tells(service.tokens.texts, [tmp_path / "out", tmp_path / "cache"], streams())
    assert "sig=" not in "".join(said(path) for path in (tmp_path / "out").rglob("*") if path.is_file())


def test_objects_of_an_s3_store_give_the_cube_of_the_disk(
    land: Region, products: Path, from_disk: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    streams: Streams,
) -> None:  # fmt: skip
    with moto_server() as store:
        scenes = scenes_in(products)
        for scene in scenes:
            for path in scene.assets.values():
                store.write(Path(path).relative_to(products).as_posix(), Path(path).read_bytes())
        items = cdse_items(
            scenes,
            lambda scene, band: f"{BUCKET}/{Path(scene.assets[band]).relative_to(products).as_posix()}",
            "https://download.dataspace.copernicus.eu",
        )
        table = write_table(items, tmp_path / "items.parquet")
        for name, value in store.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("CDSE_S3_ENDPOINT", store.url)
        region = with_imagery(land, source="cdse", path=str(table))
        dataset = build_region(region, tmp_path / "out", cache=tmp_path / "cache")
    assert_same_cube(dataset, from_disk)
    assert_nothing_tells([KEY, SECRET, "X-Amz-Signature"], [tmp_path / "out", tmp_path / "cache"], streams())


def test_downloads_with_a_bearer_token_give_the_cube_of_the_disk(
    land: Region, products: Path, from_disk: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    streams: Streams,
) -> None:  # fmt: skip
    with closing(OidcService(60.0)) as service, closing(BlobServer(products, service.admits)) as blobs:
        blobs.at([10, 25], service.tokens.revoke_when_old)
        items = cdse_items(
            scenes_in(products),
            lambda scene, band: Path(scene.assets[band]).relative_to(products).as_posix(),
            blobs.url,
        )
        table = write_table(items, tmp_path / "items.parquet")
        monkeypatch.setenv("CDSE_TOKEN_URL", service.token_url)
        monkeypatch.setenv("CDSE_USERNAME", service.user)
        monkeypatch.setenv("CDSE_PASSWORD", service.password)
        region = with_imagery(land, source="cdse", path=str(table))
        dataset = build_region(region, tmp_path / "out", cache=tmp_path / "cache")
        assert_same_cube(dataset, from_disk)
        assert blobs.left == []
        assert service.grants[:2] == ["password", "refresh_token"]
        secrets = [*service.tokens.texts, *service.sessions.texts, service.password]
        assert_nothing_tells(secrets, [tmp_path / "out", tmp_path / "cache"], streams())


def recorded(folder: Path) -> list[dict[str, Any]]:
    """Real Sentinel-2 items of Planetary Computer."""
    found = [json.loads(path.read_text()) for path in sorted(folder.glob("search_*.geojson"))]
    return [item for answer in found for item in answer["features"]]


def test_recorded_items_become_scenes_whose_addresses_are_signed_when_they_are_read(
    sits_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = recorded(sits_data / "stac/planetary_computer")
    with closing(SasService()) as service:
        monkeypatch.setenv("PC_SDK_SAS_URL", service.root)
        provider = PROVIDERS["planetary-computer"]
        source = ApiSource(provider=provider, url=provider.url, collection="sentinel-2-l2a", cache=tmp_path / "cache")
        season = Season(start=date(2020, 1, 1), end=date(2020, 12, 31))
        found = source.scenes_from(items, shapely.box(-180, -90, 180, 90), season)
        assert len(found.scenes) == len({item["id"] for item in items}) >= 20
        assert len(found.scenes) + len(found.unusable) == len(items)  # what both answers hold is there once
        addresses = [address for scene in found.scenes for address in scene.assets.values()]
        assert {address.partition(".blob.core.windows.net/")[0] for address in addresses} == {"https://sentinel2l2a01"}
        assert all(address.endswith(".tif") for address in addresses)
        assert service.tokens.texts == []
        signed = [SasSigner().sign(address).url for address in addresses]
        assert len(service.tokens.texts) == 1
        assert all(
            url.startswith(f"{address}?") and service.tokens.texts[0] in url
            for url, address in zip(signed, addresses, strict=True)
        )
        assert "SECRET" not in repr(found)
