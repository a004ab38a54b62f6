"""A provider that dies while a cube is built, and a second one that holds the same products."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
import yaml
from tests.end_to_end.archives import run_here
from tests.end_to_end.building import IMAGES, LABELS, SMALL, Dataset, build_region, simulated_land, with_imagery
from tests.pipeline.sources.range_server import RangeServer
from tests.services.eopf_product import write_products
from tests.services.provider_items import planetary_items, scenes_in, write_cogs, write_table
from tests.services.stac_api import Answers, StacApi, page
from tests.services.token_service import BlobServer, SasService

from sits_catalog.loading import dump_region
from sits_catalog.region import Region
from sits_pipeline import prepare
from sits_pipeline.sources.api import ApiSource
from sits_pipeline.sources.base import ServiceDown, ServiceSource
from sits_pipeline.sources.breaker import BREAKER
from sits_pipeline.sources.fallback import FallbackSource
from sits_pipeline.sources.kept import read_item_table
from sits_pipeline.sources.providers import PROVIDERS

pytestmark = pytest.mark.slow

BANDS = ("B02", "B04", "B8A", "B11")


@pytest.fixture(scope="module")
def land(tmp_path_factory: pytest.TempPathFactory) -> Region:
    return simulated_land(tmp_path_factory.mktemp("fallback"), SMALL, bands=BANDS, dates=5, seed=6, safe=True)


@pytest.fixture(scope="module")
def products(land: Region) -> Path:
    assert land.imagery.path is not None
    return Path(land.imagery.path).parent / "safe"


@pytest.fixture(scope="module")
def from_disk(land: Region, products: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return build_region(with_imagery(land, source="safe", path=str(products)), tmp_path_factory.mktemp("disk"))


@pytest.fixture(scope="module")
def cogs(products: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cogs")
    write_cogs(products, folder)
    return folder


@pytest.fixture(scope="module")
def zarrs(products: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zarrs")
    write_products(products, folder)
    return folder


@pytest.fixture(autouse=True)
def nothing_is_known_of_any_host() -> Iterator[None]:
    BREAKER.reset()
    yield
    BREAKER.reset()


def source_of(name: str, table: Path, cache: Path) -> ApiSource:
    return ApiSource(provider=PROVIDERS[name], url=str(table), collection="sentinel-2-l2a", cache=cache)


def requests_of_audits(source: ServiceSource, land: Region, blobs: BlobServer, folder: Path) -> int:
    """How many the samples of all scenes take, with a cache of their own; always the same."""
    assert isinstance(source, ApiSource)
    fresh = replace(source, cache=folder / "audits")
    for scene in fresh.search(shapely.box(-180, -80, 180, 84), land.season).scenes:
        fresh.sample(scene)
    return len(blobs.served)


def eopf_table(folder: Path, root: str, path: Path) -> Path:
    """The products' items with addresses below `root`."""
    items = json.loads((folder / "items.json").read_text())["features"]
    for item in items:
        for asset in item["assets"].values():
            asset["href"] = f"{root}/{asset['href'].removeprefix('./')}"
    return write_table(items, path)


@pytest.mark.parametrize("when", [pytest.param("at once", marks=pytest.mark.soak), "after the audit"])
def test_a_cube_is_complete_though_its_provider_dies(
    when: str, land: Region, products: Path, cogs: Path, zarrs: Path, from_disk: Dataset, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    with (
        closing(SasService()) as tokens,
        closing(BlobServer(cogs, tokens.admits)) as blobs,
        closing(RangeServer(zarrs)) as arrays,
    ):
        monkeypatch.setenv("PC_SDK_SAS_URL", tokens.root)
        first = write_table(planetary_items(scenes_in(products), blobs.url), tmp_path / "first.parquet")
        second = eopf_table(zarrs, arrays.url, tmp_path / "second.parquet")
        source = FallbackSource(
            source_of("planetary-computer", first, tmp_path / "cache"), source_of("eopf", second, tmp_path / "cache")
        )
        dies_at = 0 if when == "at once" else 2 * requests_of_audits(source.first, land, blobs, tmp_path) + 2
        blobs.at([dies_at], lambda: setattr(blobs, "fail_next", 10**9))
        monkeypatch.setattr(prepare, "open_source", lambda region, *_arguments, **_options: (source, region))
        dataset = build_region(with_imagery(land, source="planetary-computer", path=str(first)), tmp_path / "out")
        assert blobs.left == []
    assert dataset.complete
    assert dataset.findings() == []
    for name in (*IMAGES, *LABELS):
        np.testing.assert_array_equal(dataset.array(name), from_disk.array(name), err_msg=name)
    sources = dataset.table("sources")
    assert set(sources.provider) == {"planetary-computer"}
    notes = [
        note
        for line in (dataset.path / "journal.jsonl").read_text().splitlines()
        for note in json.loads(line).get("notes", [])
    ]
    assert notes
    assert all(
        note["note"].startswith("read from eopf (S2") and "planetary-computer did not " in note["note"]
        for note in notes
    )
    own = len(dataset.table("sources").query("status == 'used'"))
    assert len(notes) == own if dies_at == 0 else 0 < len(notes) < own
    assert not any(text in line for text in tokens.tokens.texts for line in map(str, notes))


def search_of(items: list[dict[str, Any]]) -> Answers:
    """An API that answers any search with these items."""
    return lambda asked: page(items) if asked.path == "/search" else 404


@pytest.mark.soak
def test_a_region_file_names_a_second_api_for_when_the_first_dies(
    land: Region, products: Path, cogs: Path, zarrs: Path, from_disk: Dataset, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """As users do it: a file, the command, two APIs; and the same from what was kept once both APIs are gone."""
    with (
        closing(SasService()) as tokens,
        closing(BlobServer(cogs, tokens.admits)) as blobs,
        closing(RangeServer(zarrs)) as arrays,
    ):
        monkeypatch.setenv("PC_SDK_SAS_URL", tokens.root)
        table = eopf_table(zarrs, arrays.url, tmp_path / "second.parquet")
        theirs = read_item_table(str(table))
        with (
            StacApi(search_of(planetary_items(scenes_in(products), blobs.url))) as first,
            StacApi(search_of(theirs)) as second,
        ):
            # While cells are read.
            api = ApiSource(
                provider=PROVIDERS["planetary-computer"], url=first.url, collection="sentinel-2-l2a", cache=tmp_path
            )
            dies_at = 2 * requests_of_audits(api, land, blobs, tmp_path) + 2
            first.asked.clear()
            blobs.at([dies_at], lambda: setattr(blobs, "fail_next", 10**9))
            region = tmp_path / "land.yaml"
            imagery = {"source": "planetary-computer", "path": first.url, "bands": list(BANDS)}
            imagery |= {"fallback": "eopf", "fallback_path": second.url}
            region.write_text(yaml.safe_dump({**dump_region(land), "id": "land", "imagery": imagery}))
            ended = run_here("sits-build", "--region", region, "--out", tmp_path / "out", "--workers", "1")
            assert ended.code == 0, ended.stderr
            assert blobs.left == []
            assert len(first.searches) == len(second.searches) == 1
        dataset = Dataset(tmp_path / "out/land", complete=True)
        assert_read_from_eopf(dataset, from_disk)
        # Both APIs are gone; the first's files are as well.
        (kept,) = (tmp_path / "out/_searches").glob("land-*.parquet")
        imagery |= {"path": str(kept)}
        region.write_text(yaml.safe_dump({**dump_region(land), "id": "land", "imagery": imagery}))
        BREAKER.reset()
        again = run_here("sits-build", "--region", region, "--out", tmp_path / "again", "--workers", "1")
        assert again.code == 0, again.stderr
    replayed = Dataset(tmp_path / "again/land", complete=True)
    assert_read_from_eopf(replayed, from_disk)
    columns = ["id", "status", "boa_offset_applied", "date_index", "source_index"]
    assert replayed.table("sources")[columns].equals(dataset.table("sources")[columns])


def assert_read_from_eopf(dataset: Dataset, from_disk: Dataset) -> None:
    """Equal to the archive's, and lineage says which reads were of the second provider."""
    for name in (*IMAGES, *LABELS):
        np.testing.assert_array_equal(dataset.array(name), from_disk.array(name), err_msg=name)
    assert dataset.findings() == []
    lines = map(json.loads, (dataset.path / "journal.jsonl").read_text().splitlines())
    notes = [note["note"] for line in lines for note in line.get("notes", [])]
    assert notes
    assert all(note.startswith("read from eopf (S2") for note in notes)


def test_without_a_twin_a_dead_provider_ends_the_build_with_its_name(
    land: Region, products: Path, cogs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(SasService()) as tokens, closing(BlobServer(cogs, tokens.admits)) as blobs:
        monkeypatch.setenv("PC_SDK_SAS_URL", tokens.root)
        blobs.fail_next = 10**9
        first = write_table(planetary_items(scenes_in(products), blobs.url), tmp_path / "first.parquet")
        # Another processing of the same scenes: no other's pixels may stand for these.
        items = planetary_items(scenes_in(products), blobs.url)
        for item in items:
            item["properties"]["s2:processing_baseline"] = "05.11"
        other = write_table(items, tmp_path / "second.parquet")
        source = FallbackSource(
            source_of("planetary-computer", first, tmp_path / "cache"),
            source_of("planetary-computer", other, tmp_path / "cache"),
        )
        monkeypatch.setattr(prepare, "open_source", lambda region, *_arguments, **_options: (source, region))
        with pytest.raises((RuntimeError, ServiceDown), match=blobs.url.removeprefix("http://")):
            build_region(with_imagery(land, source="planetary-computer", path=str(first)), tmp_path / "out")
