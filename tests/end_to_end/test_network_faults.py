"""Builds from a web server behind a proxy that spoils some of its answers: nothing is lost, or it is said what."""

from __future__ import annotations

import re
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
from tests.benchmarks.fetch import sent_and_unique
from tests.end_to_end.archives import (
    Ended,
    build_here,
    cells_in_journal,
    pixels,
    remote_archive,
    stamps,
)
from tests.end_to_end.test_faults import DAY, FIRST, Undisturbed, assert_incomplete_and_listed, assert_unread_exactly
from tests.end_to_end.test_faults import built as built_from
from tests.pipeline.sources.range_server import RangeServer
from tests.services.fault_proxy import FAULTS, FaultProxy

from sits_pipeline.sources.breaker import BREAKER

EACH = dict.fromkeys(FAULTS, 0.05)


@pytest.fixture(scope="module")
def firm(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """A build from the archive on disk."""
    return built_from(tmp_path_factory.mktemp("firm"), not_firm=False)


@pytest.fixture
def server(firm: Undisturbed) -> Iterator[RangeServer]:
    server = RangeServer(firm.archive.folder)
    BREAKER.reset()
    yield server
    server.close()
    BREAKER.reset()


def assert_same_arrays(dataset: Path, firm: Undisturbed) -> None:
    found = pixels(dataset)
    assert found.keys() == firm.arrays.keys()
    for name, array in firm.arrays.items():
        assert np.array_equal(found[name], array), name


def shards(dataset: Path) -> dict[str, bytes]:
    return {name: (dataset / name).read_bytes() for name in stamps(dataset)}


@pytest.mark.soak
def test_a_build_survives_all_faults_and_fetches_little_twice(
    firm: Undisturbed, server: RangeServer, tmp_path: Path
) -> None:
    injected: Counter[str] = Counter()
    asked = 0
    for seed in range(3):
        with FaultProxy(server.url, rates=EACH, seed=seed, retry_after_s=1) as proxy:
            folder = tmp_path / str(seed)
            ended = build_here(remote_archive(firm.archive, proxy.url, folder), folder / "out")
            injected += proxy.injected
            asked += len(proxy.requests)
        assert (ended.code, ended.stderr.count("Traceback")) == (0, 0), ended.stderr
        assert ended.outcome["complete"] is True
        assert_same_arrays(folder / "out" / "small", firm)
        assert shards(folder / "out" / "small") == shards(firm.dataset)
    assert set(injected) == set(FAULTS)
    print(f"{asked} requests in three builds, of which spoilt: {dict(sorted(injected.items()))}")


@pytest.mark.slow
def test_without_faults_each_byte_is_fetched_once(firm: Undisturbed, server: RangeServer, tmp_path: Path) -> None:
    ended = build_here(remote_archive(firm.archive, server.url, tmp_path / "remote"), tmp_path / "out")
    assert ended.code == 0, ended.stderr
    assert_same_arrays(tmp_path / "out" / "small", firm)
    asked = [(path, wanted) for path, wanted in server.requests if path.endswith(".tif")]
    sent, unique = sent_and_unique(firm.archive.folder, asked)
    cells = len(cells_in_journal(tmp_path / "out" / "small"))
    print(
        f"{sent / 1e6:.2f} MB sent for {unique / 1e6:.2f} MB that differ ({sent / unique:.3f}), "
        f"{len(asked) / cells:.1f} requests a cell in {cells} cells"
    )
    assert 0 < unique <= sent <= 1.15 * unique
    assert len(asked) / cells < 30


@pytest.mark.slow
def test_one_asset_that_always_fails_is_unread_there_and_nowhere_else(
    firm: Undisturbed, server: RangeServer, tmp_path: Path
) -> None:
    bad = f"/{firm.archive.item(FIRST, DAY)}/B05.tif"
    still_bad = True

    def always(path: str) -> str | None:
        return "503" if path == bad and still_bad else None

    dataset = tmp_path / "out" / "small"
    with FaultProxy(server.url, rates=EACH, seed=5, retry_after_s=1, always=always) as proxy:
        archive = remote_archive(firm.archive, proxy.url, tmp_path / "remote")
        ended = build_here(archive, dataset.parent)
        item = archive.item(FIRST, DAY)
        assert_incomplete_and_listed(ended, dataset, item=item, band="B05", says="no answer after")
        assert_unread_exactly(dataset, firm, firm.pixels_of(FIRST, DAY))
        failed = {cell for cell, line in cells_in_journal(dataset).items() if line["failures"]}
        before = stamps(dataset)
        theirs = {f"cube.zarr/{key}" for cell in failed for key in cells_in_journal(dataset)[cell]["shards"]}
        still_bad = False
        BREAKER.reset()
        again = build_here(archive, dataset.parent)
    assert (again.code, again.outcome["complete"], again.outcome["built"]) == (0, True, len(failed))
    assert {name for name, stamp in stamps(dataset).items() if stamp != before.get(name)} <= theirs
    assert_same_arrays(dataset, firm)
    assert shards(dataset) == shards(firm.dataset)


def lose_the_offset(path: Path) -> None:
    """The file's DN as if the provider had taken the offset out of them, against its rule."""
    with rasterio.open(path) as image:
        dn, profile = image.read(), image.profile
    kept = {name: profile[name] for name in ("width", "height", "count", "dtype", "crs", "transform")}
    with rasterio.open(path, "w", driver="COG", overview_resampling="nearest", **kept) as image:
        image.write(np.maximum(dn.astype(np.int32) - 1000, 1).astype(np.uint16))


@pytest.mark.soak
@pytest.mark.parametrize(
    "lies",
    [pytest.param(False, marks=pytest.mark.soak), True],
    ids=["as the metadata say", "against the metadata"],
)
def test_an_item_whose_audit_a_network_fails_for_a_while_is_unread_until_it_was_looked_at(
    firm: Undisturbed, tmp_path: Path, lies: bool
) -> None:
    """Promise 1: its pixels might hold another offset than its metadata say, as here they do or do not."""
    files = tmp_path / "files"
    shutil.copytree(firm.archive.folder, files)
    item, band = firm.archive.item(FIRST, DAY), firm.archive.asset(FIRST, DAY, "B04").relative_to(firm.archive.folder)
    if lies:
        for name in ("B02", "B04"):
            lose_the_offset(files / firm.archive.asset(FIRST, DAY, name).relative_to(firm.archive.folder))
    audited = False

    def while_audited(path: str) -> str | None:
        nonlocal audited
        audited |= path.endswith("B05.tif")  # a band that no audit looks at
        return "503" if path == f"/{band}" and not audited else None

    dataset = tmp_path / "out" / "small"
    BREAKER.reset()
    with closing(RangeServer(files)) as server, FaultProxy(server.url, rates={}, seed=0, always=while_audited) as proxy:
        archive = remote_archive(firm.archive, proxy.url, tmp_path / "remote")
        ended = build_here(archive, dataset.parent)
        assert (ended.code, ended.outcome["complete"]) == (3, False), ended.stderr
        assert {(failure["item"], failure["band"]) for failure in ended.outcome["failures"]} == {(item, "*")}
        assert audited
        sources = pq.read_table(dataset / "sources.parquet").to_pandas().set_index("id")
        assert sources.boa_offset_applied.isna().to_dict() == {name: name == item for name in sources.index}
        assert_unread_exactly(dataset, firm, firm.pixels_of(FIRST, DAY))
        BREAKER.reset()
        again = build_here(archive, dataset.parent)
    if lies:
        assert again.code == 2
        assert "holds another cube" in again.stderr
        assert item in again.stderr
        return
    assert (again.code, again.outcome["complete"]) == (0, True), again.stderr
    assert_same_arrays(dataset, firm)
    assert shards(dataset) == shards(firm.dataset)


@pytest.mark.slow
def test_files_that_nobody_may_read_are_an_error_before_anything_is_written(firm: Undisturbed, tmp_path: Path) -> None:
    with closing(Refusing(firm.archive.folder, [])) as server:
        ended = build_here(remote_archive(firm.archive, server.url, tmp_path / "remote"), tmp_path / "out")
        assert ended.code == 2, ended.stderr
        assert re.search(r"error: not one of the \d+ scenes may be read: S2A_.*HTTP 403 Forbidden", ended.stderr)
        assert "Traceback" not in ended.stderr
        assert not (tmp_path / "out" / "small").exists()
    BREAKER.reset()
    bad = firm.archive.asset(FIRST, DAY, "B05").relative_to(firm.archive.folder)
    with closing(Refusing(firm.archive.folder, [str(bad)])) as server:
        dataset = tmp_path / "out" / "small"
        ended = build_here(remote_archive(firm.archive, server.url, tmp_path / "remote"), dataset.parent)
        item = firm.archive.item(FIRST, DAY)
        assert_incomplete_and_listed(ended, dataset, item=item, band="B05", says="HTTP 403 Forbidden")
        assert_unread_exactly(dataset, firm, firm.pixels_of(FIRST, DAY))


class Refusing(RangeServer):
    """Answers 403 to whoever asks for one of these files; to all who ask for pixels, where none is named."""

    def __init__(self, folder: Path, files: list[str]) -> None:
        self.files = files
        super().__init__(folder)

    def answer(self, handler: BaseHTTPRequestHandler, *, body: bool) -> None:
        path = handler.path.lstrip("/")
        if path in self.files or (not self.files and path.endswith(".tif")):
            return self._plain(handler, 403, {})
        return super().answer(handler, body=body)


def assert_named(ended: Ended, host: str, code: int, seconds: float) -> None:
    assert ended.code == code, (ended.stdout, ended.stderr)
    last = ended.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert host in last
    assert "Traceback" not in ended.stderr
    assert seconds < 60
    print(f"after {seconds:.0f} s: {last}")


def unread(dataset: Path) -> list[object]:
    return [failure for line in cells_in_journal(dataset).values() for failure in line["failures"]]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [pytest.param("1", marks=pytest.mark.soak), "2"])
def test_a_service_that_dies_after_the_search_ends_the_build_within_a_minute(
    firm: Undisturbed, server: RangeServer, tmp_path: Path, workers: str
) -> None:
    proxy = ClosedAfter(server.url, [f"{firm.archive.item(tile, day)}/item.json" for tile, day in _items(firm)])
    archive = remote_archive(firm.archive, proxy.url, tmp_path / "remote")
    dataset = tmp_path / "out" / "small"
    started = time.monotonic()
    ended = build_here(archive, dataset.parent, "--workers", workers)
    seconds = time.monotonic() - started
    assert proxy.seen == proxy.files
    assert_named(ended, proxy.url.removeprefix("http://"), 1, seconds)
    assert re.search(r"did not answer \d+ requests in a row \(last: .+\); try again later", ended.stderr)
    assert unread(dataset) == []
    # The service is back: the same command goes on.
    BREAKER.reset()
    with FaultProxy(server.url, rates={}, seed=0) as back:
        assert build_here(remote_archive(firm.archive, back.url, tmp_path / "remote"), dataset.parent).code == 0
    assert_same_arrays(dataset, firm)


def _items(firm: Undisturbed) -> list[tuple[str, str]]:
    table = pq.read_table(firm.dataset / "sources.parquet").to_pandas()
    return [(name.split("_")[1], f"{name[-8:-4]}-{name[-4:-2]}-{name[-2:]}") for name in table.id]


class ClosedAfter(FaultProxy):
    """A proxy that is closed as soon as it has been asked for these files."""

    def __init__(self, target: str, files: list[str]) -> None:
        self.files, self.seen = set(files), set[str]()
        super().__init__(target, rates={}, seed=0, always=self.look)

    def look(self, path: str) -> str | None:
        if self.files == self.seen:
            threading.Thread(target=self.close).start()
            return "reset"
        self.seen |= {path.lstrip("/")} & self.files
        return None


@pytest.mark.slow
def test_a_service_that_is_dead_from_the_start_is_named(firm: Undisturbed, server: RangeServer, tmp_path: Path) -> None:
    proxy = FaultProxy(server.url, rates={}, seed=0)
    proxy.close()
    started = time.monotonic()
    ended = build_here(remote_archive(firm.archive, proxy.url, tmp_path / "remote"), tmp_path / "out")
    assert_named(ended, proxy.url.removeprefix("http://"), 1, time.monotonic() - started)
    assert not (tmp_path / "out" / "small").exists()
