"""A cube built over a real STAC API and a real web server is the cube built from the same archive on disk."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
import yaml
from tests.benchmarks.fetch import _needed, sent_and_unique
from tests.end_to_end.archives import EPOCH, Ended, run, run_here
from tests.end_to_end.building import IMAGES, LABELS, Dataset, build_region, differing, extent, item_ids, simulated_land
from tests.pipeline.sources.range_server import RangeServer
from tests.services.fault_proxy import FAULTS, FaultProxy
from tests.services.rustac import Rustac, free_port

from sits_catalog.loading import dump_region
from sits_catalog.region import Region
from sits_pipeline.sources.breaker import BREAKER
from sits_pipeline.sources.kept import read_item_table

pytestmark = pytest.mark.slow

GRID = extent(width=1620, height=1020)
"""Files of real size in proportion to the 64 KiB that the cache reads at once: two to six megabytes at 10 m."""
TABLES = ("cube.zarr", "parcels.parquet", "chips.parquet")
"""What is equal byte by byte; other files tell times and addresses."""


def items_of(catalog: Path, url: str) -> list[dict[str, Any]]:
    """The items of a simulated archive with their files at the root `url`."""
    items = []
    for path in sorted(catalog.parent.glob("sentinel-2-l2a/*/*.json")):
        item = json.loads(path.read_text())
        for asset in item["assets"].values():
            asset["href"] = f"{url}/{path.parent.relative_to(catalog.parent).as_posix()}/{Path(asset['href']).name}"
        items.append(item)
    return items


only_one = pytest.mark.parametrize("over_api", ["stac-api"], indirect=True)


@dataclass(frozen=True)
class Built:
    """A dataset that was built over the API, and what that took."""

    dataset: Dataset
    region: Path
    out: Path
    arguments: tuple[str, ...]
    url: str
    requests: tuple[tuple[str, str | None], ...]
    archive: Path

    @property
    def kept(self) -> Path:
        (path,) = (self.out / "_searches").glob("land-*.parquet")
        return path


@pytest.fixture(scope="module")
def land(tmp_path_factory: pytest.TempPathFactory) -> Region:
    folder = tmp_path_factory.mktemp("land")
    return simulated_land(folder, GRID, bands=("B02", "B04", "B8A", "B09"), dates=6, seed=3)


@pytest.fixture(scope="module")
def on_disk(land: Region, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOURCE_DATE_EPOCH", EPOCH)
        return build_region(land, tmp_path_factory.mktemp("disk"), cell_px=512)


@pytest.fixture(scope="module", params=["stac-api", pytest.param("earth-search", marks=pytest.mark.soak)])
def over_api(request: pytest.FixtureRequest, land: Region, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    """Built while the API was up; when a test gets it only the files are still served."""
    folder = tmp_path_factory.mktemp(request.param)
    catalog = Path(str(land.imagery.path))
    region = folder / "land.yaml"
    region.write_text(yaml.safe_dump({**dump_region(land), "id": "land"}))
    files = RangeServer(catalog.parent)
    try:
        with Rustac(folder, items_of(catalog, files.url)) as api:
            arguments = ("--source", request.param, "--source-path", api.url)
            out = folder / "out"
            more = ("--cell", "512", "--cache", folder / "cache")  # six cells that share source blocks
            ended = run("sits-build", "--region", region, "--out", out, *arguments, *more)
            assert ended.returncode == 0, ended.stderr
            assert "searched now: " in ended.stderr
        requests = tuple(files.requests)
        dataset = Dataset(out / "land", complete=True)
        yield Built(dataset, region, out, arguments, api.url, requests, catalog.parent)
    finally:
        files.close()


def test_every_array_and_the_lineage_are_those_of_the_archive_on_disk(over_api: Built, on_disk: Dataset) -> None:
    assert over_api.dataset.days == on_disk.days
    for name in (*IMAGES, *LABELS):
        np.testing.assert_array_equal(over_api.dataset.array(name), on_disk.array(name), err_msg=name)
    assert over_api.dataset.array("quality").any()
    assert item_ids(over_api.dataset) == item_ids(on_disk)
    columns = ["id", "status", "reason", "processing_baseline", "boa_offset_applied", "date_index", "source_index"]
    one, other = (
        found.table("sources")[columns].sort_values(["id", "status"]).to_dict("records")
        for found in (over_api.dataset, on_disk)
    )
    assert json.dumps(one) == json.dumps(other)
    assert {row["status"] for row in one} >= {"used", "superseded"}
    assert over_api.dataset.findings() == []
    # Files, chunk by chunk, as well: nothing in a cube tells where its pixels came from.
    mine, theirs = over_api.dataset.files(), on_disk.files()
    assert differing([name for name in mine | theirs if name.startswith(TABLES)], mine, theirs) == []


def test_hardly_a_byte_is_fetched_twice(over_api: Built) -> None:
    # The audit looks at every item in B02, B04 and SCL; those whose other bands were asked for met a cell as well.
    read = {Path(path).parent.name for path, _ in over_api.requests if path.endswith("B8A.tif")}
    assert read <= set(item_ids(over_api.dataset).values())
    asked = [(path, wanted) for path, wanted in over_api.requests if Path(path).parent.name in read]
    files = {path for path, _ in asked}
    assert len(files) == 5 * len(read) > 30
    sent, unique = sent_and_unique(over_api.archive, asked)
    needed = sum(_needed(over_api.archive / path, SimpleNamespace(grid=GRID)) for path in files)
    lines = (over_api.dataset.path / "journal.jsonl").read_text().splitlines()
    cells = sum("cell" in json.loads(line) for line in lines)
    print(
        f"\n{over_api.arguments[1]}: {sent / 1e6:.2f} MB sent, {sent / unique:.3f} times what was asked for, "
        f"{sent / needed:.3f} times the {needed / 1e6:.2f} MB that are needed; "
        f"{len(asked)} requests for {len(files)} files, {len(asked) / cells:.0f} a cell of {cells}"
    )
    assert sent <= 1.15 * unique
    assert sent <= 1.15 * needed


@pytest.mark.soak
@only_one
def test_the_same_plan_is_built_again_from_what_was_kept(over_api: Built, tmp_path: Path) -> None:
    """The API is gone, its table of items is not."""
    out = tmp_path / "out"
    shutil.copytree(over_api.out / "_searches", out / "_searches")
    ended = run("sits-build", "--region", over_api.region, "--out", out, *over_api.arguments, "--cell", "512")
    assert ended.returncode == 0, ended.stderr
    assert "the search of 2023-11-14 is kept in" in ended.stderr
    assert_same(Dataset(out / "land", complete=True), over_api)
    again = run("sits-build", "--region", over_api.region, "--out", out, *over_api.arguments, "--search-again")
    assert again.returncode == 1
    assert over_api.url in again.stderr
    assert "cannot be searched" in again.stderr
    assert "Traceback" not in again.stderr


@pytest.mark.soak
@only_one
def test_a_kept_search_is_replayed_as_a_source_of_its_own(over_api: Built, tmp_path: Path) -> None:
    replayed = ("--source", "stac", "--source-path", str(over_api.kept))
    ended = run("sits-build", "--region", over_api.region, "--out", tmp_path / "out", *replayed, "--cell", "512")
    assert ended.returncode == 0, ended.stderr
    assert_same(Dataset(tmp_path / "out/land", complete=True), over_api)
    assert not (tmp_path / "out/_searches").exists()


def assert_same(dataset: Dataset, over_api: Built) -> None:
    mine, theirs = dataset.files(), over_api.dataset.files()
    names = [name for name in mine | theirs if name.startswith(TABLES)]
    assert len(names) > 10
    assert differing(names, mine, theirs) == []
    # The very same items, with all that is said of them.
    one, other = (pq.read_table(found.path / "sources.parquet") for found in (dataset, over_api.dataset))
    assert one.equals(other)


@dataclass(frozen=True)
class Spoilt:
    """The API and the files, each behind a proxy that spoils some of its answers."""

    api: FaultProxy
    files: FaultProxy
    region: Path

    def build(self, out: Path, *more: object) -> Ended:
        source = ("--source", "stac-api", "--source-path", self.api.url)
        return run_here("sits-build", "--region", self.region, "--out", out, *source, "--cell", "512", *more)


@pytest.fixture
def spoilt(land: Region, tmp_path: Path) -> Iterator[Spoilt]:
    catalog = Path(str(land.imagery.path))
    region = tmp_path / "land.yaml"
    region.write_text(yaml.safe_dump({**dump_region(land), "id": "land"}))
    few, many = dict.fromkeys(FAULTS, 0.12), dict.fromkeys(FAULTS, 0.05)
    port = free_port()
    BREAKER.reset()
    with (
        closing(RangeServer(catalog.parent)) as server,
        FaultProxy(server.url, rates=many, seed=1, retry_after_s=1) as files,
        FaultProxy(f"http://127.0.0.1:{port}", rates=few, seed=3, retry_after_s=1) as api,
        Rustac(tmp_path, items_of(catalog, files.url), port=port, root=api.url),
    ):
        yield Spoilt(api, files, region)
    BREAKER.reset()


@pytest.mark.soak
def test_a_build_survives_all_faults_of_the_api_and_of_the_files(
    spoilt: Spoilt, on_disk: Dataset, tmp_path: Path
) -> None:
    ended = spoilt.build(tmp_path / "out", "--cache", tmp_path / "cache")
    assert (ended.code, ended.stderr.count("Traceback")) == (0, 0), ended.stderr
    dataset = Dataset(tmp_path / "out/land", complete=True)
    for name in (*IMAGES, *LABELS):
        np.testing.assert_array_equal(dataset.array(name), on_disk.array(name), err_msg=name)
    mine, theirs = dataset.files(), on_disk.files()
    assert differing([name for name in mine | theirs if name.startswith(TABLES)], mine, theirs) == []
    assert dataset.findings() == []
    # A search is a few requests: it is repeated until each kind of fault came over it.
    (kept,) = (tmp_path / "out/_searches").glob("land-*.parquet")
    items = read_item_table(str(kept))
    for _ in range(20):
        if set(spoilt.api.injected) == set(FAULTS):
            break
        again = spoilt.build(tmp_path / "out", "--cache", tmp_path / "cache", "--search-again", "--plan")
        assert again.code == 0, again.stderr
        assert sorted(map(str, read_item_table(str(kept)))) == sorted(map(str, items))
    print(
        f"\nof {len(spoilt.api.requests)} requests to the API spoilt {dict(sorted(spoilt.api.injected.items()))}, "
        f"of {len(spoilt.files.requests)} for files {dict(sorted(spoilt.files.injected.items()))}"
    )
    assert set(spoilt.api.injected) == set(spoilt.files.injected) == set(FAULTS)
    assert any(path.startswith("/search") for _, path in spoilt.api.requests)


def test_an_api_that_is_dead_is_named_within_a_minute(spoilt: Spoilt, tmp_path: Path) -> None:
    spoilt.api.close()
    started = time.monotonic()
    ended = spoilt.build(tmp_path / "out")
    seconds = time.monotonic() - started
    last = ended.stderr.strip().splitlines()[-1]
    assert ended.code == 1
    assert last.startswith(f"error: the STAC API {spoilt.api.url} cannot be searched: ")
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "out/land").exists()
    assert seconds < 60
    print(f"after {seconds:.0f} s: {last}")


@only_one
def test_a_table_of_items_opens_in_other_readers(over_api: Built) -> None:
    import geopandas

    table = geopandas.read_parquet(over_api.kept)
    assert len(table) == len(list(over_api.archive.glob("sentinel-2-l2a/*/*.json")))
    assert table.crs.to_epsg() in (4326, None) or "CRS84" in str(table.crs)
    item = json.loads(table.item_json[0])
    with rasterio.open(over_api.archive / "sentinel-2-l2a" / item["id"] / "B02.tif") as file:
        assert file.crs.to_epsg() == item["properties"]["proj:epsg"]
