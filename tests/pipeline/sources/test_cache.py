from __future__ import annotations

import itertools
import multiprocessing
import os
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from tests.pipeline.sources.range_server import RangeServer
from tests.pipeline.sources.scene_source_contract import assert_one_failure
from tests.pipeline.sources.test_reach import resolve_as
from tests.pipeline.sources.test_stac import AREA, SEASON
from tests.pipeline.sources.tiny_archive import EPSG, LEFT, TOP, pixels, write_archive, write_file
from tests.services.file_size import files_of_at_most

from sits_catalog.reach import ALLOW_HOSTS, Reach
from sits_catalog.region import Season
from sits_pipeline.folder import CannotWrite
from sits_pipeline.sources import cache as cache_module
from sits_pipeline.sources.access import Signed
from sits_pipeline.sources.base import ServiceDown
from sits_pipeline.sources.cache import BLOCK, CachedFile, RangeCache, open_cached
from sits_pipeline.sources.rasters import read_scene, sample_scene
from sits_pipeline.sources.remote import WatchedOpener
from sits_pipeline.sources.stac import StacSource
from sits_pipeline.sources.web import Answer, Web

GB = 10**9


def remote(folder: Path, size: int) -> bytes:
    folder.mkdir(exist_ok=True)
    content = np.random.default_rng(0).bytes(size)
    (folder / "file.bin").write_bytes(content)
    return content


@pytest.fixture
def web(tmp_path: Path) -> Path:
    return tmp_path / "web"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def test_bytes_are_those_of_the_file(web: Path, store: Path, serve: Callable[..., RangeServer]) -> None:
    content = remote(web, 5 * BLOCK + 17)
    file = open_cached(f"{serve(web).url}/file.bin", folder=store, max_bytes=GB, web=Web())
    assert file.read() == content
    assert file.seek(-20, os.SEEK_END) == len(content) - 20
    assert file.read(100) == content[-20:]
    assert file.read(1) == b""
    assert file.get_byte_ranges([3, 2 * BLOCK - 1], [5, BLOCK + 2]) == [
        content[3:8],
        content[2 * BLOCK - 1 : 3 * BLOCK + 1],
    ]


def test_nothing_is_fetched_twice(web: Path, store: Path, serve: Callable[..., RangeServer]) -> None:
    content = remote(web, 6 * BLOCK)
    server = serve(web)
    for _ in range(3):
        file = open_cached(f"{server.url}/file.bin", folder=store, max_bytes=GB, web=Web())
        file.seek(BLOCK)
        assert file.read(4 * BLOCK) == content[BLOCK : 5 * BLOCK]
    assert server.bytes_sent == 5 * BLOCK
    assert [wanted for _, wanted in server.requests] == [f"bytes=0-{BLOCK - 1}", f"bytes={BLOCK}-{5 * BLOCK - 1}"]


def _read_all(url: str, folder: Path, expected: bytes) -> bool:
    return open_cached(url, folder=folder, max_bytes=GB, web=Web()).read() == expected


def test_threads_and_processes_fetch_each_byte_once(web: Path, store: Path, serve: Callable[..., RangeServer]) -> None:
    content = remote(web, 8 * BLOCK)
    server = serve(web)
    arguments = (f"{server.url}/file.bin", store, content)
    processes = [multiprocessing.get_context("fork").Process(target=_read_all, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    with ThreadPoolExecutor(4) as pool:
        assert all(future.result() for future in [pool.submit(_read_all, *arguments) for _ in range(6)])
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert server.bytes_sent == len(content)


def test_a_file_that_changed_is_not_mixed_with_its_former_self(
    web: Path, store: Path, serve: Callable[..., RangeServer]
) -> None:
    remote(web, 4 * BLOCK)
    server = serve(web)
    file = open_cached(f"{server.url}/file.bin", folder=store, max_bytes=GB, web=Web())
    file.read(BLOCK)
    (web / "file.bin").write_bytes(bytes(4 * BLOCK))
    with pytest.raises(OSError, match="changed on the server while it was read"):
        file.read(BLOCK)
    again = open_cached(f"{server.url}/file.bin", folder=store, max_bytes=GB, web=Web())
    assert again.read() == bytes(4 * BLOCK)


def test_a_version_seen_long_ago_is_asked_for_again(web: Path, store: Path, serve: Callable[..., RangeServer]) -> None:
    remote(web, 2 * BLOCK)
    server = serve(web)
    url = f"{server.url}/file.bin"
    open_cached(url, folder=store, max_bytes=GB, web=Web()).read()
    (web / "file.bin").write_bytes(bytes(2 * BLOCK))
    seen = RangeCache(store, GB).place(url) / "version.json"
    os.utime(seen, (time.time() - 7200, time.time() - 7200))
    assert open_cached(url, folder=store, max_bytes=GB, web=Web()).read() == bytes(2 * BLOCK)


def test_a_server_without_ranges_sends_the_whole_file_once(
    web: Path, store: Path, serve: Callable[..., RangeServer]
) -> None:
    content = remote(web, 3 * BLOCK + 5)
    server = serve(web, ranges=False)
    for _ in range(2):
        assert open_cached(f"{server.url}/file.bin", folder=store, max_bytes=GB, web=Web()).read() == content
    assert len(server.requests) == 1


def test_a_range_other_than_the_one_asked_for_is_an_error(
    web: Path, store: Path, serve: Callable[..., RangeServer]
) -> None:
    remote(web, 4 * BLOCK)
    server = serve(web)
    file = open_cached(f"{server.url}/file.bin", folder=store, max_bytes=GB, web=Web())
    file.seek(BLOCK)
    server.shift_ranges = True
    with pytest.raises(OSError, match="were asked for, the server sent others"):
        file.read(BLOCK)
    server.shift_ranges = False
    assert len(file.read(BLOCK)) == BLOCK


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sits_pipeline.sources.web.BACKOFF_S", 0.01)


def test_a_whole_file_comes_with_one_request(web: Path, store: Path, serve: Callable[..., RangeServer]) -> None:
    content = remote(web, 5 * BLOCK + 17)
    server = serve(web)
    url = f"{server.url}/file.bin"
    for _ in range(2):
        with open_cached(url, folder=store, max_bytes=GB, web=Web(), whole=True) as file:
            file.seek(4 * BLOCK)
            assert file.read(100) == content[4 * BLOCK : 4 * BLOCK + 100]
    assert server.requests == [("file.bin", None)]
    # An hour later its version is asked for, not the file; of another version, what is read of it.
    version = next(store.glob("*/*/version.json"))
    os.utime(version, (0, 0))
    assert open_cached(url, folder=store, max_bytes=GB, web=Web(), whole=True).read() == content
    assert server.requests[1:] == [("file.bin", f"bytes=0-{BLOCK - 1}")]
    os.utime(version, (0, 0))
    (web / "file.bin").write_bytes(content[::-1])
    assert open_cached(url, folder=store, max_bytes=GB, web=Web(), whole=True).read() == content[::-1]


@dataclass(frozen=True)
class Signing:
    """A signer whose signature is another one each time."""

    numbers: Iterator[int] = field(default_factory=itertools.count)

    def sign(self, url: str) -> Signed:
        return Signed(url=f"{url}?sig=SECRET{next(self.numbers)}")

    def renew(self, url: str) -> None:
        raise NotImplementedError


def test_a_new_signature_finds_what_an_earlier_one_fetched(
    web: Path, store: Path, serve: Callable[..., RangeServer]
) -> None:
    content = remote(web, 3 * BLOCK)
    server = serve(web)
    for user in ("", "me:word@", "you:word@"):
        url = f"{server.url}/file.bin".replace("//", f"//{user}")
        file = open_cached(url, folder=store, max_bytes=GB, web=Web(signer=Signing()))
        assert file.read() == content
    assert server.bytes_sent == len(content)


def test_a_query_may_say_which_file_is_meant(web: Path, store: Path, serve: Callable[..., RangeServer]) -> None:
    remote(web, BLOCK)
    server = serve(web)
    for query in ("?part=1", "?part=2"):
        open_cached(f"{server.url}/file.bin{query}", folder=store, max_bytes=GB, web=Web())
    assert server.bytes_sent == 2 * BLOCK


def test_nothing_in_the_cache_names_a_signature(web: Path, store: Path, serve: Callable[..., RangeServer]) -> None:
    remote(web, BLOCK)
    server = serve(web)
    open_cached(f"{server.url}/file.bin?sig=SECRET", folder=store, max_bytes=GB, web=Web(signer=Signing()))
    kept = [path for path in store.rglob("*") if path.is_file()]
    assert len(kept) == 3  # version, block and lock
    assert not any("SECRET" in str(path) or b"SECRET" in path.read_bytes() for path in kept)


@pytest.mark.usefixtures("hasty")
def test_a_short_body_is_an_error_and_is_not_kept(web: Path, store: Path, serve: Callable[..., RangeServer]) -> None:
    content = remote(web, 4 * BLOCK)
    server = serve(web)
    file = open_cached(f"{server.url}/file.bin", folder=store, max_bytes=GB, web=Web())
    file.seek(BLOCK)
    server.truncate = True
    with pytest.raises(OSError, match="no answer after 8 tries: the answer broke off"):
        file.read(BLOCK)
    server.truncate = False
    assert file.read(BLOCK) == content[BLOCK : 2 * BLOCK]


@pytest.mark.usefixtures("hasty")
def test_an_overloaded_server_is_asked_again(web: Path, store: Path, serve: Callable[..., RangeServer]) -> None:
    content = remote(web, BLOCK)
    server = serve(web)
    server.fail_next = 2
    assert open_cached(f"{server.url}/file.bin", folder=store, max_bytes=GB, web=Web()).read() == content
    assert len(server.requests) == 3


def test_the_cache_stays_in_its_bound_and_drops_what_was_not_used_for_longest(
    web: Path, store: Path, serve: Callable[..., RangeServer]
) -> None:
    content = remote(web, 12 * BLOCK)
    url = f"{serve(web).url}/file.bin"
    cache = RangeCache(store, 6 * BLOCK)
    file = CachedFile(url, cache, Web())
    for block in range(12):
        file.seek(block * BLOCK)
        assert file.read(BLOCK) == content[block * BLOCK : (block + 1) * BLOCK]
        file.seek(0)
        file.read(1)
    cache.evict()
    left = sorted(int(path.stem.rpartition("-")[2]) for path in store.glob("*/*/*.block"))
    assert sum(path.stat().st_size for path in store.glob("*/*/*.block")) <= 6 * BLOCK
    assert 0 in left
    assert 11 in left
    assert 1 not in left
    assert file.read() == content[1:]


def test_a_file_without_a_block_leaves_nothing_in_the_cache(
    web: Path, store: Path, serve: Callable[..., RangeServer]
) -> None:
    """As chunks of Zarr arrays are: thousands of small files, of which three entries each would stay for ever."""
    remote(web, 100)
    server = serve(web)
    for number in range(20):
        (web / f"{number}").write_bytes(bytes([number]) * 1000)
    cache = RangeCache(store, 10_000)
    (store / "answers/of").mkdir(parents=True)
    (store / "answers/of/another").write_text("is not the cache's to remove")
    for number in range(20):
        assert CachedFile(f"{server.url}/{number}", cache, Web()).read() == bytes([number]) * 1000
    cache.evict()
    blocks = list(store.glob("*/*/*.block"))
    assert 0 < len(blocks) <= 10
    assert {path.parent for path in store.glob("??/*/*")} == {path.parent for path in blocks}
    assert len(list(store.glob("??/*"))) == len(blocks)
    assert (store / "answers/of/another").exists()


def test_a_file_that_is_being_fetched_is_left_alone(web: Path, store: Path, serve: Callable[..., RangeServer]) -> None:
    content = remote(web, 2 * BLOCK)
    url = f"{serve(web).url}/file.bin"
    cache = RangeCache(store, BLOCK // 2)
    file = CachedFile(url, cache, Web())
    place = cache.place(url)
    with cache_module._lock(place, wait=True):
        cache.evict()
        assert {path.name for path in place.iterdir()} >= {"lock", "version.json"}
    cache.evict()
    assert not place.exists()
    assert file.read() == content


def _read_in_turn(url: str, folder: Path, max_bytes: int, contents: list[bytes]) -> bool:
    cache = RangeCache(folder, max_bytes)
    turns = [
        CachedFile(f"{url}/{n}", cache, Web()).read() == contents[n] for _ in range(15) for n in range(len(contents))
    ]
    return all(turns)


@pytest.mark.slow
def test_readers_who_make_room_for_each_other_read_what_is_there(
    web: Path, store: Path, serve: Callable[..., RangeServer]
) -> None:
    """A cache in which hardly a file has room: its folders come and go under all who read."""
    web.mkdir()
    contents = [bytes([number]) * (BLOCK + 10) for number in range(4)]
    for number, content in enumerate(contents):
        (web / f"{number}").write_bytes(content)
    arguments = (serve(web).url, store, 2 * BLOCK, contents)
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as processes:
        others = [processes.submit(_read_in_turn, *arguments) for _ in range(2)]
        with ThreadPoolExecutor(4) as pool:
            assert all(future.result() for future in [pool.submit(_read_in_turn, *arguments) for _ in range(4)])
        assert all(future.result() for future in others)


@pytest.mark.parametrize("tags", [True, False])
def test_the_blocks_of_a_file_that_nothing_but_its_size_tells_apart_are_trusted_for_an_hour(
    tags: bool, web: Path, store: Path, serve: Callable[..., RangeServer]
) -> None:
    content = remote(web, 3 * BLOCK)
    server = serve(web, tags=tags)
    url = f"{server.url}/file.bin"
    assert open_cached(url, folder=store, max_bytes=GB, web=Web()).read() == content
    (web / "file.bin").write_bytes(bytes(3 * BLOCK))
    assert open_cached(url, folder=store, max_bytes=GB, web=Web()).read() == content
    seen = RangeCache(store, GB).place(url) / "version.json"
    os.utime(seen, (time.time() - 7200, time.time() - 7200))
    assert open_cached(url, folder=store, max_bytes=GB, web=Web()).read() == bytes(3 * BLOCK)
    assert server.bytes_sent == 6 * BLOCK


def test_a_damaged_block_is_fetched_again(web: Path, store: Path, serve: Callable[..., RangeServer]) -> None:
    content = remote(web, 2 * BLOCK)
    url = f"{serve(web).url}/file.bin"
    open_cached(url, folder=store, max_bytes=GB, web=Web()).read()
    next(store.glob("*/*/*-1.block")).write_bytes(b"short")
    assert open_cached(url, folder=store, max_bytes=GB, web=Web()).read() == content


def test_a_missing_file_is_an_error_that_hides_its_signature(
    store: Path, web: Path, serve: Callable[..., RangeServer]
) -> None:
    remote(web, 10)
    with pytest.raises(OSError, match="HTTP 404") as caught:
        open_cached(f"{serve(web).url}/gone.bin?sig=SECRET", folder=store, max_bytes=GB, web=Web())
    assert "SECRET" not in str(caught.value)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(ranges=st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 700)), min_size=1, max_size=4))
def test_any_ranges_hold_the_files_bytes(
    ranges: list[tuple[int, int]],
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path_factory.mktemp("ranges")
    content = np.random.default_rng(0).bytes(3700)
    (folder / "file.bin").write_bytes(content)
    server = RangeServer(folder)
    monkeypatch.setattr(cache_module, "BLOCK", 256)
    try:
        file = open_cached(f"{server.url}/file.bin", folder=folder / "cache", max_bytes=GB, web=Web())
        found = file.get_byte_ranges([start for start, _ in ranges], [size for _, size in ranges])
        assert found == [content[start : start + size] for start, size in ranges]
    finally:
        server.close()


def test_a_remote_archive_reads_alike_with_and_without_cache(
    web: Path, store: Path, serve: Callable[..., RangeServer]
) -> None:
    local = StacSource(str(write_archive(web)))
    server = serve(web)
    cached = StacSource(f"{server.url}/catalog.json", store)
    geobox = GeoBox((120, 180), Affine(10, 0, LEFT - 120, 0, -10, TOP + 60), f"EPSG:{EPSG}")
    here = next(local.read([local.search(AREA, SEASON).scenes[0]], geobox, ["B02", "B05", "B09"], pad=1))
    scene = cached.search(AREA, SEASON).scenes[0]
    before = server.bytes_sent
    there = next(cached.read([scene], geobox, ["B02", "B05", "B09"], pad=1))
    assert there.failures == ()
    for band, window in here.bands.items():
        np.testing.assert_array_equal(there.bands[band].dn, window.dn)
    once = server.bytes_sent - before
    assert next(cached.read([scene], geobox, ["B02", "B05", "B09"], pad=1)).failures == ()
    assert server.bytes_sent - before == once
    assert cached.sample(scene).dn["B02"].size == 180 * 180


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("trouble", ["truncate", "shift_ranges", "gone"])
def test_trouble_on_the_way_is_a_failure_and_never_pixels(
    web: Path, store: Path, serve: Callable[..., RangeServer], trouble: str
) -> None:
    write_archive(web)
    noise = np.random.default_rng(0).integers(1, 9999, (1000, 1000), dtype=np.uint16)
    write_file(web / "s2/one/B02.tif", noise, 10, driver="GTiff", blocksize=None, compress=None, tiled=True)
    server = serve(web)
    source = StacSource(f"{server.url}/catalog.json", store)
    scene = source.search(AREA, Season(start=SEASON.start, end=SEASON.end)).scenes[0]
    corner = GeoBox((60, 60), Affine(10, 0, LEFT, 0, -10, TOP), f"EPSG:{EPSG}")
    assert next(source.read([scene], corner, ["B02"], pad=0)).failures == ()
    if trouble == "gone":
        (web / "s2/one/B02.tif").unlink()
    else:
        setattr(server, trouble, True)
    far = GeoBox((300, 300), Affine(10, 0, LEFT + 6600, 0, -10, TOP - 6600), f"EPSG:{EPSG}")
    raster = next(source.read([scene], far, ["B02"], pad=0))
    assert_one_failure(raster, scene.id, "B02")
    assert raster.failures[0].error.startswith("B02.tif: ") or "B02.tif" in raster.failures[0].error
    server.truncate = server.shift_ranges = False
    if trouble != "gone":
        np.testing.assert_array_equal(
            next(source.read([scene], far, ["B02"], pad=0)).bands["B02"].dn, noise[660:960, 660:960]
        )


@pytest.mark.parametrize("dated", [True, False])
def test_a_file_that_was_repaired_on_the_server_is_read_at_once(
    web: Path, store: Path, serve: Callable[..., RangeServer], dated: bool
) -> None:
    write_archive(web)
    path = web / "s2/one/B02.tif"
    whole = path.read_bytes()
    # Cut off, or of the same size and no tag that tells one from the other.
    path.write_bytes(whole[: len(whole) // 2] + (b"" if dated else bytes(len(whole) - len(whole) // 2)))
    server = serve(web, tags=dated)
    source = StacSource(f"{server.url}/catalog.json", store)
    scene = source.search(AREA, SEASON).scenes[0]
    geobox = GeoBox((360, 360), Affine(10, 0, LEFT, 0, -10, TOP), f"EPSG:{EPSG}")
    assert_one_failure(next(source.read([scene], geobox, ["B02", "B05"], pad=0)), scene.id, "B02")
    kept = len(list(store.glob("*/*/version.json")))
    assert kept == 2  # B05 and SCL, which are whole
    path.write_bytes(whole)
    raster = next(source.read([scene], geobox, ["B02"], pad=0))
    assert raster.failures == ()
    np.testing.assert_array_equal(raster.bands["B02"].dn, pixels("B02", 10))


def test_a_sample_of_a_broken_file_names_it_and_forgets_no_other(
    web: Path, store: Path, serve: Callable[..., RangeServer]
) -> None:
    write_archive(web)
    path = web / "s2/one/B02.tif"
    path.write_bytes(path.read_bytes()[:3000])
    server = serve(web)
    source = StacSource(f"{server.url}/catalog.json", store)
    scene = source.search(AREA, SEASON).scenes[0]
    next(source.read([scene], GeoBox((60, 60), Affine(10, 0, LEFT, 0, -10, TOP), f"EPSG:{EPSG}"), ["B04"], pad=0))
    before = len(list(store.glob("*/*/version.json")))
    with pytest.raises(OSError, match=r"no sample for the audit: B02\.tif"):
        source.sample(scene)
    assert len(list(store.glob("*/*/version.json"))) == before


def test_a_range_beyond_the_end_of_a_file_is_an_error_of_that_file(
    web: Path, store: Path, serve: Callable[..., RangeServer]
) -> None:
    content = remote(web, 3000)
    url = f"{serve(web).url}/file.bin"
    watched = WatchedOpener(url, partial(open_cached, folder=store, max_bytes=6 * BLOCK, web=Web()))
    with watched.open(url) as file:
        assert file.get_byte_ranges([0, 2990], [10, 10]) == [content[:10], content[2990:]]
        assert watched.error is None
        file.get_byte_ranges([0, 2990], [10, 20])
    assert "20 bytes from 2990" in str(watched.error)


class Down:
    """A remote file of a service that went away."""

    def __init__(self, file: CachedFile, left: int) -> None:
        self.file, self.left = file, left

    def __getattr__(self, name: str) -> object:
        return getattr(self.file, name)

    def read(self, size: int = -1) -> bytes:
        self.left -= 1
        if self.left < 0:
            raise ServiceDown("example.org did not answer 3 requests in a row")
        return self.file.read(size)

    def get_byte_ranges(self, offsets: list[int], sizes: list[int]) -> list[bytes]:
        raise ServiceDown("example.org did not answer 3 requests in a row")


@pytest.mark.parametrize("left", [0, 1, 3])
def test_a_dead_service_is_no_failure_of_a_file_however_much_was_read(
    web: Path, store: Path, serve: Callable[..., RangeServer], left: int
) -> None:
    write_archive(web)
    source = StacSource(f"{serve(web).url}/catalog.json", store)
    scene = source.search(AREA, SEASON).scenes[0]

    def opener(url: str) -> Down:
        return Down(open_cached(url, folder=store, max_bytes=GB, web=Web()), left)

    geobox = GeoBox((360, 360), Affine(10, 0, LEFT, 0, -10, TOP), f"EPSG:{EPSG}")
    with pytest.raises(ServiceDown, match=r"example\.org did not answer"):
        read_scene(scene, geobox, ["B02"], pad=0, opener=opener)  # type: ignore[arg-type]  # by __getattr__
    with pytest.raises(ServiceDown, match=r"example\.org did not answer"):
        sample_scene(scene, opener=opener)  # type: ignore[arg-type]
    assert next(source.read([scene], geobox, ["B02"], pad=0)).failures == ()


def test_a_cache_that_takes_no_more_is_no_failure_of_a_file(
    web: Path, store: Path, serve: Callable[..., RangeServer]
) -> None:
    write_archive(web)
    source = StacSource(f"{serve(web).url}/catalog.json", store)
    scene = source.search(AREA, SEASON).scenes[0]
    geobox = GeoBox((360, 360), Affine(10, 0, LEFT, 0, -10, TOP), f"EPSG:{EPSG}")
    said = rf"^{re.escape(str(store))} cannot be written: a file would be larger than .* run the same command again"
    with files_of_at_most(100):
        with pytest.raises(CannotWrite, match=said):
            next(source.read([scene], geobox, ["B02"], pad=0))
        with pytest.raises(CannotWrite, match=said):
            source.sample(scene)
    assert list(store.rglob("*.partial")) == []
    assert next(source.read([scene], geobox, ["B02"], pad=0)).failures == ()


@pytest.mark.usefixtures("hasty")
def test_a_closed_server_is_named_and_no_scene_is_called_unread(
    web: Path, store: Path, serve: Callable[..., RangeServer]
) -> None:
    write_archive(web)
    server = serve(web)
    source = StacSource(f"{server.url}/catalog.json", store)
    scene = source.search(AREA, SEASON).scenes[0]
    server.close()
    geobox = GeoBox((60, 60), Affine(10, 0, LEFT, 0, -10, TOP), f"EPSG:{EPSG}")
    with pytest.raises(
        ServiceDown, match=r"127\.0\.0\.1:\d+ did not answer 3 requests in a row \(last: Connection ref"
    ):
        next(source.read([scene], geobox, ["B02", "B05", "B09"], pad=0))
    with pytest.raises(ServiceDown, match=r"127\.0\.0\.1:\d+ did not answer 3 requests in a row"):
        source.sample(scene)


def test_an_error_of_ours_is_not_the_files(web: Path, store: Path, serve: Callable[..., RangeServer]) -> None:
    write_archive(web)
    source = StacSource(f"{serve(web).url}/catalog.json", store, web=Web(gate=NoGate()))
    scene = StacSource(source.location, store).search(AREA, SEASON).scenes[0]
    geobox = GeoBox((60, 60), Affine(10, 0, LEFT, 0, -10, TOP), f"EPSG:{EPSG}")
    with pytest.raises(RuntimeError, match="the scheduler was lost"):
        next(source.read([scene], geobox, ["B02"], pad=0))


class NoGate:
    def request(self) -> AbstractContextManager[object]:
        raise RuntimeError("the scheduler was lost")


def test_an_address_of_an_object_store_is_read_by_whom_its_signer_sends(
    web: Path, store: Path, serve: Callable[..., RangeServer]
) -> None:
    write_archive(web)
    server = serve(web, token="SECRET")
    local = StacSource(str(web / "catalog.json"))
    scene = local.search(AREA, SEASON).scenes[0]
    geobox = GeoBox((60, 60), Affine(10, 0, LEFT, 0, -10, TOP), f"EPSG:{EPSG}")
    expected = next(local.read([scene], geobox, ["B02", "B05"], pad=0))
    addresses = {band: f"s3://eodata{path.removeprefix(str(web))}" for band, path in scene.assets.items()}
    opener = partial(open_cached, folder=store, max_bytes=GB, web=Web(signer=Store(server.url)), whole=True)
    raster = read_scene(replace(scene, assets=addresses), geobox, ["B02", "B05"], pad=0, opener=opener)
    assert raster.failures == ()
    for band, window in expected.bands.items():
        np.testing.assert_array_equal(raster.bands[band].dn, window.dn)
    assert [wanted for _, wanted in server.requests] == [None] * 3
    refused = read_scene(replace(scene, assets=addresses), geobox, ["B02"], pad=0, opener=None).failures
    assert [failure.error for failure in refused if failure.band == "B02"] == [
        "B02.tif: a remote file is read through an opener; this source has none"
    ]


@dataclass(frozen=True)
class Store:
    """Turns addresses of an object store into those of a server."""

    base: str

    def sign(self, url: str) -> Signed:
        return Signed(url=f"{self.base}{url.removeprefix('s3://eodata')}?sig=SECRET")

    def renew(self, url: str) -> None:
        raise NotImplementedError


def test_a_folder_without_a_place_lies_among_this_hosts_temporary_files(
    web: Path, tmp_path: Path, serve: Callable[..., RangeServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = remote(web, 12 * BLOCK)
    url = f"{serve(web).url}/file.bin"
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))  # nothing made it here yet
    with open_cached(url, folder=Path("sits-cache-x"), max_bytes=6 * BLOCK, web=Web()) as file:
        for block in range(12):
            file.seek(block * BLOCK)
            assert file.read(BLOCK) == content[block * BLOCK : (block + 1) * BLOCK]
    blocks = list((tmp_path / "tmp" / "sits-cache-x").glob("*/*/*.block"))
    assert 0 < sum(path.stat().st_size for path in blocks) <= 6 * BLOCK


def test_an_area_elsewhere_needs_no_pixels(web: Path, store: Path, serve: Callable[..., RangeServer]) -> None:
    write_archive(web)
    source = StacSource(f"{serve(web).url}/catalog.json", store)
    assert source.search(shapely.box(100, 0, 101, 1), SEASON).scenes == ()
    assert not list(store.glob("*/*/*.block"))


@pytest.mark.parametrize("said", ["bytes 0-9/" + "9" * 5000, "bytes ٠-٩/١٠"])
def test_a_content_range_that_is_no_range_is_the_servers_error(said: str) -> None:
    answer = Answer(206, {"Content-Range": said}, b"0123456789")
    with pytest.raises(OSError, match="no valid Content-Range"):
        cache_module._content_range(answer)


def test_what_one_reach_fetched_from_this_network_is_not_handed_to_another(
    web: Path, store: Path, serve: Callable[..., RangeServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = remote(web, 3 * BLOCK)
    server = serve(web)
    resolve_as(monkeypatch, {"files.intranet": ["127.0.0.1"] * 99})
    url = f"{server.url.replace('127.0.0.1', 'files.intranet')}/file.bin"
    ours = partial(open_cached, url, folder=store, max_bytes=GB)
    assert ours(web=Web(reach=Reach.of("catalog.json"))).read() == content
    asked = len(server.requests)
    with pytest.raises(OSError, match=r"files\.intranet has the loopback address"):
        ours(web=Web(reach=Reach.of("https://stac.example.org/v1")))
    # Those who may ask it find what is there.
    assert ours(web=Web(reach=Reach.of("http://files.intranet/catalog.json"))).read() == content
    assert ours(web=Web()).read() == content
    monkeypatch.setenv(ALLOW_HOSTS, "127.0.0.0/8")
    for _ in range(2):
        assert ours(web=Web(reach=Reach.of("https://stac.example.org/v1"))).read() == content
    assert len(server.requests) == asked + 1  # a network allows an address, which is known when it is asked
