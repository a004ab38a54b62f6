"""Files and metadata that say of themselves what is not so: no crash, no pixel of another place, bounded memory."""

from __future__ import annotations

import json
import math
import shutil
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import rasterio
import shapely
import zarr
from affine import Affine
from odc.geo.geobox import GeoBox
from tests.pipeline.sources.range_server import RangeServer
from tests.pipeline.sources.tiny_archive import EPSG, LEFT, TOP, write_file
from tests.services.loopback import Loopback, QuietHandler

from sits_pipeline.sources import eopf_files
from sits_pipeline.sources.cache import open_cached
from sits_pipeline.sources.eopf import read_product
from sits_pipeline.sources.rasters import read_scene, sample_scene
from sits_pipeline.sources.web import Web
from sits_pipeline.values import Raster, Scene

GEOBOX = GeoBox((60, 60), Affine(10, 0, LEFT + 600, 0, -10, TOP - 600), f"EPSG:{EPSG}")
SIDE = 256
NOISE = np.random.default_rng(0).integers(1, 9999, (SIDE, SIDE), dtype=np.uint16)
Entries = dict[int, tuple[str, list[Any]]]
"""TIFF tag to the type of its values, as struct writes them, and the values."""
_TYPES = {"B": 1, "H": 3, "I": 4, "d": 12}


def scene(path: Path, *, provider: str = "stac") -> Scene:
    return Scene(
        id="x",
        provider=provider,
        collection="sentinel-2-l2a",
        sensed=datetime(2023, 5, 5, 10, 40, tzinfo=UTC),
        platform="sentinel-2a",
        orbit=8,
        mgrs_tile="31TFJ",
        epsg=EPSG,
        baseline="05.09",
        cloud_cover=1.0,
        footprint=shapely.box(0, 40, 10, 50),
        datatake=None,
        datastrip=None,
        generated=None,
        assets={"B02": str(path), "B04": str(path)},
        declared_offset=-1000,
        offset_is_firm=True,
        item={},
    )


def the_error(raster: Raster) -> str:
    """What went wrong with the one band, as one line."""
    (failure,) = raster.failures
    assert raster.bands == {}
    assert failure.error.isprintable()
    assert len(failure.error) <= 330
    return failure.error


# TIFF


def tiff(changes: Entries, data: bytes) -> bytes:
    """A tiled file of one directory, its tags changed as asked for, whatever they then say."""
    entries: Entries = {
        256: ("I", [SIDE]), 257: ("I", [SIDE]), 258: ("H", [16]), 259: ("H", [1]), 262: ("H", [1]), 277: ("H", [1]),
        322: ("I", [SIDE]), 323: ("I", [SIDE]), 324: ("I", [0]), 325: ("I", [SIDE * SIDE * 2]), 339: ("H", [1]),
        33550: ("d", [10.0, 10.0, 0.0]), 33922: ("d", [0.0, 0.0, 0.0, LEFT, TOP, 0.0]),
        34735: ("H", [1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, EPSG]), **changes,
    }  # fmt: skip
    end = 8 + 2 + 12 * len(entries) + 4
    if 324 not in changes:
        entries[324] = (
            "I",
            [end + sum(len(_packed(*entry)) for entry in entries.values() if len(_packed(*entry)) > 4)],
        )
    body, extra = b"", b""
    for tag in sorted(entries):
        kind, values = entries[tag]
        packed = _packed(kind, values)
        place = packed.ljust(4, b"\0") if len(packed) <= 4 else struct.pack("<I", end + len(extra))
        extra += packed if len(packed) > 4 else b""
        body += struct.pack("<HHI", tag, _TYPES[kind], len(values)) + place
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + bytes(4) + extra + data


def _packed(kind: str, values: list[Any]) -> bytes:
    return struct.pack(f"<{len(values)}{kind}", *values)


def test_the_file_that_tells_the_truth_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(tiff({}, NOISE.tobytes()))
    raster = read_scene(scene(tmp_path / "a.tif"), GEOBOX, ["B02"], pad=0, opener=None)
    np.testing.assert_array_equal(raster.bands["B02"].dn, NOISE[60:120, 60:120])


HUGE = 2**31 - 1


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({256: ("I", [HUGE]), 257: ("I", [HUGE])}, "number of tiles"),
        ({256: ("I", [0]), 257: ("I", [0])}, "number of tiles"),
        ({n: ("I", [HUGE - 15]) for n in (256, 257, 322, 323)}, "up to 65536 pixels a side and 134217728 in a block"),
        # 8 GB for one window, before this was looked at.
        ({**{n: ("I", [65536]) for n in (256, 257, 322, 323)}, 259: ("H", [8])}, "65536 x 65536 in a block"),
        ({256: ("I", [65537]), 322: ("I", [65552])}, "says that it has 65537 x 256"),
        ({322: ("I", [0]), 323: ("I", [0])}, "number of tiles"),
        ({324: ("I", [2**31])}, "IReadBlock failed"),
        ({277: ("H", [65535])}, "one layer of uint16 or uint8 was expected; the file has 65535"),
        ({339: ("H", [2])}, "the file has 1 of int16"),
        ({34735: ("H", [1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32632])}, "its CRS is EPSG:32632"),
        ({33922: ("d", [0.0, 0.0, 0.0, math.nan, math.inf, 0.0])}, "not made of finite numbers"),
        ({33550: ("d", [math.nan, math.nan, 0.0])}, "not made of finite numbers"),
        ({33550: ("d", [1e-300, 1e-300, 0.0])}, "does not nest"),
        ({33550: ("d", [1e15, 1e15, 0.0])}, "does not nest"),
        ({33922: ("d", [0.0, 0.0, 0.0, LEFT + 3.0, TOP, 0.0])}, "does not nest"),
    ],
)
def test_a_geotiff_that_lies_is_unread(tmp_path: Path, changes: Entries, says: str) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(tiff(changes, NOISE.tobytes()))
    assert says in the_error(read_scene(scene(path), GEOBOX, ["B02"], pad=0, opener=None))
    if says not in ("does not nest",):
        with pytest.raises(OSError, match=r"no sample for the audit: a\.tif"):
            sample_scene(scene(path), opener=None)


def with_overviews(path: Path, count: int, side: int, changes: dict[int, int]) -> None:
    """A file of noise with overviews, the directory of whose last one is changed."""
    write_file(path, np.tile(NOISE, (side // SIDE, side // SIDE)), 10, driver="GTiff", blocksize=256)
    with rasterio.open(path, "r+") as dataset:
        dataset.build_overviews([2**level for level in range(1, count + 1)])
    content = bytearray(path.read_bytes())
    at = struct.unpack_from("<I", content, 4)[0]
    for _ in range(count):
        at = struct.unpack_from("<I", content, at + 2 + 12 * struct.unpack_from("<H", content, at)[0])[0]
    for number in range(struct.unpack_from("<H", content, at)[0]):
        place = at + 2 + 12 * number
        tag, kind = struct.unpack_from("<HH", content, place)
        if tag in changes:
            struct.pack_into("<H" if kind == 3 else "<I", content, place + 8, changes[tag])
    path.write_bytes(content)


def test_the_tiles_of_an_overview_are_looked_at_as_well(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with_overviews(path, 2, 2048, {})
    sample = sample_scene(scene(path), opener=None)
    assert sample.dn["B02"].size == 400 * 400
    with_overviews(path, 2, 2048, {322: 16384, 323: 16384})  # half a gigabyte for one pixel
    with pytest.raises(OSError, match=r"it has 512 x 512, and 16384 x 16384 in a block"):
        sample_scene(scene(path), opener=None)
    # Windows do not touch it.
    raster = read_scene(scene(path), GEOBOX, ["B02"], pad=0, opener=None)
    np.testing.assert_array_equal(raster.bands["B02"].dn, NOISE[60:120, 60:120])


def test_overviews_without_end_are_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    write_file(path, np.tile(NOISE, (5, 5)), 10, driver="GTiff", blocksize=256)
    with rasterio.open(path, "r+") as dataset:
        dataset.build_overviews(list(range(2, 19)))
    with pytest.raises(OSError, match="it has 17 overviews; up to 16 are read"):
        sample_scene(scene(path), opener=None)


def test_a_tile_that_unpacks_to_more_than_it_may_gives_no_more(tmp_path: Path) -> None:
    bomb = zlib.compress(bytes(2**22), 9)
    (tmp_path / "a.tif").write_bytes(tiff({259: ("H", [8]), 325: ("I", [len(bomb)])}, bomb))
    raster = read_scene(scene(tmp_path / "a.tif"), GEOBOX, ["B02"], pad=0, opener=None)
    assert raster.bands["B02"].dn.shape == (60, 60)
    assert not raster.bands["B02"].dn.any()


def test_directories_in_a_ring_are_read_once(tmp_path: Path) -> None:
    content = bytearray(tiff({}, NOISE.tobytes()))
    (count,) = struct.unpack_from("<H", content, 8)
    struct.pack_into("<I", content, 8 + 2 + 12 * count, 8)
    (tmp_path / "a.tif").write_bytes(content)
    raster = read_scene(scene(tmp_path / "a.tif"), GEOBOX, ["B02"], pad=0, opener=None)
    np.testing.assert_array_equal(raster.bands["B02"].dn, NOISE[60:120, 60:120])


# JPEG 2000


@pytest.fixture(scope="module")
def jp2(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An image of 2 x 2 tiles."""
    path = tmp_path_factory.mktemp("jp2") / "a.jp2"
    options = {"QUALITY": "100", "REVERSIBLE": "YES", "BLOCKXSIZE": 128, "BLOCKYSIZE": 128}
    write_file(path, NOISE, 10, driver="JP2OpenJPEG", nodata=None, compress=None, blocksize=None, **options)
    return path.read_bytes()


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_window_over_several_tiles_one_of_which_is_broken_is_unread_and_never_zeros(
    tmp_path: Path, jp2: bytes, share: float
) -> None:
    path = tmp_path / "a.jp2"
    path.write_bytes(jp2)
    whole = GeoBox((SIDE, SIDE), Affine(10, 0, LEFT, 0, -10, TOP), f"EPSG:{EPSG}")
    raster = read_scene(scene(path), whole, ["B02"], pad=0, opener=None)
    np.testing.assert_array_equal(raster.bands["B02"].dn, NOISE)
    path.write_bytes(jp2[: int(len(jp2) * share)])
    assert the_error(read_scene(scene(path), whole, ["B02"], pad=0, opener=None)).startswith("a.jp2")
    with pytest.raises(OSError, match="no sample for the audit"):
        sample_scene(scene(path), opener=None)


@pytest.mark.parametrize(
    ("size", "tile"),
    [(HUGE, 128), (HUGE, HUGE), (65537, 65537), (30000, 30000), (10980, 1), (1024, 128), (0, 128), (256, 0)],
)
def test_a_jp2_that_lies_about_its_size_is_unread(tmp_path: Path, jp2: bytes, size: int, tile: int) -> None:
    content = bytearray(jp2)
    siz, header = content.index(b"\xff\x4f\xff\x51") + 2, content.index(b"ihdr")
    struct.pack_into(">II", content, siz + 6, size, size)
    struct.pack_into(">II", content, siz + 22, tile, tile)
    struct.pack_into(">II", content, header + 4, size, size)
    (tmp_path / "a.jp2").write_bytes(content)
    wide = GeoBox((600, 600), Affine(10, 0, LEFT, 0, -10, TOP), f"EPSG:{EPSG}")
    the_error(read_scene(scene(tmp_path / "a.jp2"), wide, ["B02"], pad=0, opener=None))


# Servers


@pytest.mark.parametrize("size", [2**40, 2**62])
def test_a_server_that_says_a_file_is_endless_is_not_believed(tmp_path: Path, size: int) -> None:
    class Lying(QuietHandler):
        def do_GET(self: BaseHTTPRequestHandler) -> None:
            self.send_response(206)
            self.send_header("Content-Range", f"bytes 0-65535/{size}")
            self.send_header("Content-Length", "65536")
            self.end_headers()
            self.wfile.write(bytes(65536))

    with Loopback(Lying) as server, pytest.raises(OSError, match=f"says that it has {size} bytes; 536870912 are read"):
        open_cached(f"{server.url}/a.tif", folder=tmp_path, max_bytes=10**9, web=Web())


def test_a_body_is_not_unpacked_whatever_its_headers_say(tmp_path: Path) -> None:
    bomb = zlib.compress(bytes(2**22), 9)

    class Bomb(QuietHandler):
        def do_GET(self: BaseHTTPRequestHandler) -> None:
            self.send_response(200)
            self.send_header("Content-Encoding", "deflate")
            self.send_header("Content-Length", str(len(bomb)))
            self.end_headers()
            self.wfile.write(bomb)

    with Loopback(Bomb) as server:
        assert Web().fetch(server.url, max_bytes=10**5).body == bomb


# Zarr


def array(folder: Path, **changes: Any) -> Path:
    """A product of one band, its metadata changed as asked for."""
    root = zarr.open_group(folder / "p.zarr", mode="w", zarr_format=2)
    group = root.create_group("r10m")
    group.create_array("b02", shape=(SIDE, SIDE), chunks=(128, 128), dtype="uint16", fill_value=0)[...] = NOISE
    centres = 10.0 * np.arange(SIDE) + 5
    for name, values in (("x", LEFT + centres), ("y", TOP - centres)):
        group.create_array(name, shape=(SIDE,), chunks=(SIDE,), dtype="float64")[...] = values
    path = folder / "p.zarr" / "r10m" / "b02"
    rewrite(path / ".zarray", **changes)
    return path


def rewrite(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


read_array: Callable[..., Raster] = partial(read_product, geobox=GEOBOX, bands=["B02"], pad=0, opener=None)


def of_product(path: Path) -> Scene:
    return replace(scene(path, provider="eopf"), declared_offset=-1000)


def test_the_product_that_tells_the_truth_is_read(tmp_path: Path) -> None:
    raster = read_array(of_product(array(tmp_path)))
    np.testing.assert_array_equal(raster.bands["B02"].dn, NOISE[60:120, 60:120])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"shape": [2**40, 2**40]}, "up to 65536 values a side"),
        ({"chunks": [2**31, 2**31]}, "268435456 in a chunk"),
        ({"shape": [10980, 10980], "chunks": [1, 1]}, "and 65536 chunks are read"),
        ({"shape": [-1, 5]}, "non-negative"),
        ({"chunks": "abc"}, "Got abc"),
        ({"dtype": "|O"}, "No Zarr data type"),
        ({"dtype": "<U99999999"}, "b02: "),
        ({"filters": [{"id": "pickle"}]}, "No Zarr data type"),
        ({"compressor": {"id": "zlib", "level": 1}}, "stored through Zlib; blosc or zstd alone are read"),
        ({"filters": [{"id": "zlib", "level": 1}]}, "stored through Zlib; blosc or zstd alone are read"),
        ({"filters": [{"id": "delta", "dtype": "<u2"}]}, "stored through Delta; blosc or zstd alone are read"),
        ({"shape": [65536, 65536], "chunks": [8192, 8192]}, "2147483648 bytes, 268435456 in a chunk"),
        ({"fill_value": 7}, "nodata of Sentinel-2 is 0, the array declares 7"),
    ],
)
def test_an_array_whose_metadata_lie_is_unread(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    assert says in the_error(read_array(of_product(array(tmp_path, **changes))))


@pytest.mark.parametrize(
    "codec", [numcodecs.Zstd(9), numcodecs.Blosc("zstd", 9), numcodecs.Blosc("lz4", 9)], ids=["zstd", "blosc", "lz4"]
)
def test_a_chunk_that_unpacks_to_more_than_it_holds_is_not_unpacked(tmp_path: Path, codec: Any) -> None:
    path = array(tmp_path, compressor=codec.get_config())
    bomb = codec.encode(bytes(2**24))
    assert len(bomb) < 2**17
    for chunk in path.glob("[0-9]*"):
        chunk.write_bytes(bomb)
    assert f"a chunk holds 32768 bytes; one of {len(bomb)} unpacks to 16777216" in the_error(
        read_array(of_product(path))
    )


ZSTD = numcodecs.Zstd(9)
HONEST = ZSTD.encode(np.ones((128, 128), np.uint16).tobytes())
"""A frame of what a chunk of the product holds."""


@pytest.mark.parametrize(
    "content",
    [
        b"\x50\x2a\x4d\x18\x00\x00\x00\x00" + ZSTD.encode(bytes(2**24)),  # a frame to be skipped comes first
        HONEST + ZSTD.encode(bytes(2**24)),
        HONEST + b"\x50\x2a\x4d\x18\x00\x00\x00\x00",
        HONEST + HONEST,
        HONEST[:-2],
        HONEST[:4],
        HONEST[:8] + bytes(3) * 10_000 + HONEST[8:],  # blocks of nothing
        b"",
    ],
    ids=["skipped", "bomb behind", "skipped behind", "twice", "cut", "magic", "blocks", "empty"],
)
def test_a_chunk_is_one_frame_and_nothing_beside_it(tmp_path: Path, content: bytes) -> None:
    path = array(tmp_path, compressor=ZSTD.get_config())
    for chunk in path.glob("[0-9]*"):
        chunk.write_bytes(HONEST)
    raster = read_array(of_product(path))
    assert (raster.bands["B02"].dn == 1).all()
    for chunk in path.glob("[0-9]*"):
        chunk.write_bytes(content)
    assert "does not say how much it unpacks to" in the_error(read_array(of_product(path)))


def test_frames_of_every_kind_of_head_are_told_apart(tmp_path: Path) -> None:
    for values in (np.zeros((128, 128)), np.arange(128 * 128).reshape(128, 128) % 7, NOISE[:128, :128]):
        for level, checksum in ((1, False), (3, True), (19, True), (-5, False)):
            path = array(tmp_path, compressor=numcodecs.Zstd(level, checksum).get_config())
            content = numcodecs.Zstd(level, checksum).encode(values.astype(np.uint16).tobytes())
            for chunk in path.glob("[0-9]*"):
                chunk.write_bytes(content)
            dn = read_array(of_product(path)).bands["B02"].dn
            np.testing.assert_array_equal(dn[:60, :60], values[60:120, 60:120])


def test_a_blosc_chunk_says_its_own_length(tmp_path: Path) -> None:
    blosc = numcodecs.Blosc("zstd", 5, 2)
    content = blosc.encode(np.ones((128, 128), np.uint16))
    path = array(tmp_path, compressor=blosc.get_config())
    for wrong, says in (
        (content + b"\0", "does not say how much it unpacks to"),
        (content[:-1], "does not say how much it unpacks to"),
        (content[:10], "does not say how much it unpacks to"),
        (blosc.encode(np.ones(5, np.uint16)), "unpacks to 10 bytes"),
    ):
        for chunk in path.glob("[0-9]*"):
            chunk.write_bytes(wrong)
        assert says in the_error(read_array(of_product(path)))


# Zarr 3, whose codecs are a list and whose chunks may lie in shards


def third(folder: Path, codecs: list[dict[str, Any]] | None = None, **options: Any) -> Path:
    """The same product in format 3; `codecs` are what its metadata say instead of what they are."""
    path = array(folder)
    centres = 10.0 * np.arange(SIDE) + 5
    for name, values in (("x", LEFT + centres), ("y", TOP - centres), ("b02", NOISE)):
        shutil.rmtree(path.parent / name)
        kept = {"chunks": values.shape} if name != "b02" else {"chunks": (64, 64), **options}
        zarr.create_array(path.parent / name, data=values, fill_value=0, zarr_format=3, **kept)
    if codecs is not None:
        rewrite(path / "zarr.json", codecs=codecs)
    return path


def named(name: str, **configuration: Any) -> dict[str, Any]:
    return {"name": name, "configuration": configuration}


BYTES, CRC = named("bytes", endian="little"), {"name": "crc32c"}
ZSTD3, BLOSC3 = named("zstd", level=1, checksum=False), zarr.codecs.BloscCodec().to_dict()


@pytest.mark.parametrize(
    ("codecs", "says"),
    [
        ([BYTES, ZSTD3, ZSTD3], "stored through zstd, zstd, one after another"),
        ([BYTES, BLOSC3, ZSTD3], "stored through blosc, zstd, one after another"),
        ([BYTES, ZSTD3, CRC, CRC], "stored through zstd, crc32c, crc32c, one after another"),
        ([BYTES, named("gzip", level=1)], "stored through GzipCodec; blosc or zstd alone are read"),
        ([named("transpose", order=[1, 0]), BYTES], "stored through TransposeCodec"),
        (
            [named("sharding_indexed", chunk_shape=[32, 32], codecs=[BYTES, ZSTD3, ZSTD3], index_codecs=[BYTES, CRC])],
            "stored through zstd, zstd, one after another",
        ),
        (
            [
                named(
                    "sharding_indexed",
                    chunk_shape=[32, 32],
                    codecs=[BYTES, ZSTD3],
                    index_codecs=[BYTES, CRC],
                    index_location="start",
                )
            ],
            "the index of its shards is not at their end",
        ),
        (
            [named("sharding_indexed", chunk_shape=[32, 32], codecs=[BYTES], index_codecs=[BYTES, CRC]), ZSTD3],
            "stored through ShardingCodec",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:Combining a `sharding_indexed` codec")
def test_codecs_that_unpack_twice_or_of_which_nothing_is_known_are_refused(
    tmp_path: Path, codecs: list[dict[str, Any]], says: str
) -> None:
    assert says in the_error(read_array(of_product(third(tmp_path, codecs))))


@pytest.mark.parametrize("packer", ["blosc", "zstd", "none"])
@pytest.mark.parametrize("sums", ["", "before", "behind"])
@pytest.mark.parametrize("shards", [None, (128, 128)])
def test_each_way_to_store_a_product_is_read(
    tmp_path: Path, packer: str, sums: str, shards: tuple[int, int] | None
) -> None:
    packers: dict[str, list[Any]] = {"blosc": [zarr.codecs.BloscCodec()], "zstd": [zarr.codecs.ZstdCodec()], "none": []}
    crc = [zarr.codecs.Crc32cCodec()]
    compressors = crc * (sums == "before") + packers[packer] + crc * (sums == "behind")
    whole = GeoBox((SIDE, SIDE), Affine(10, 0, LEFT, 0, -10, TOP), f"EPSG:{EPSG}")  # of whole shards, and of parts
    path = third(tmp_path, compressors=compressors or None, shards=shards)
    np.testing.assert_array_equal(read_array(of_product(path)).bands["B02"].dn, NOISE[60:120, 60:120])
    np.testing.assert_array_equal(read_array(of_product(path), geobox=whole).bands["B02"].dn, NOISE)


@pytest.mark.parametrize("is_whole", [False, True])
def test_a_chunk_in_a_shard_that_unpacks_to_more_than_it_holds_is_not_unpacked(tmp_path: Path, is_whole: bool) -> None:
    """Written as what it is not: chunks of 1024 values a side, which the metadata say have 32."""
    path = third(tmp_path)
    shutil.rmtree(path)
    large = np.zeros((2048, 2048), np.uint16)
    zarr.create_array(
        path, data=large, chunks=(512, 512), shards=(2048, 2048), compressors=zarr.codecs.ZstdCodec(),
        zarr_format=3, fill_value=1,
    )  # fmt: skip
    grid = {"name": "regular", "configuration": {"chunk_shape": [SIDE, SIDE]}}
    inner = json.loads((path / "zarr.json").read_text())["codecs"]
    inner[0]["configuration"]["chunk_shape"] = [64, 64]
    rewrite(path / "zarr.json", shape=[SIDE, SIDE], chunk_grid=grid, codecs=inner, fill_value=0)
    whole = GeoBox((SIDE, SIDE), Affine(10, 0, LEFT, 0, -10, TOP), f"EPSG:{EPSG}")
    error = the_error(read_array(of_product(path), geobox=whole if is_whole else GEOBOX))
    assert "a chunk holds 8192 bytes; one of" in error
    assert "unpacks to 524288 bytes" in error


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"shape": [SIDE, SIDE], "chunks": [SIDE, SIDE]}, "its axis x has 256 pixels, its coordinates are (256, 256)"),
        ({"shape": [2 * SIDE]}, "its axis x has 256 pixels, its coordinates are (512,) of float64"),
        ({"dtype": "|S8", "fill_value": ""}, "its coordinates are (256,) of |S8"),
    ],
)
def test_coordinates_are_looked_at_before_they_are_read(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    path = array(tmp_path)
    rewrite(path.parent / "x" / ".zarray", **changes)
    for chunk in (path.parent / "x").glob("[0-9]*"):
        chunk.write_bytes(b"not read")
    assert says in the_error(read_array(of_product(path)))


def test_coordinates_without_end_are_not_read(tmp_path: Path) -> None:
    path = array(tmp_path)
    rewrite(path.parent / "x" / ".zarray", shape=[2**33], chunks=[2**33])
    assert "up to 65536 values a side" in the_error(read_array(of_product(path)))


@pytest.mark.parametrize(
    ("attributes", "says"),
    [
        ('{"scale_factor": NaN, "add_offset": 1e999}', "a scale_factor of 0.0001 was expected, the array declares nan"),
        ('{"scale_factor": 0.0001, "add_offset": 1e999}', "its add_offset is inf"),
        ("[" * 100_000, "b02: "),
    ],
)
def test_attributes_of_no_sense_are_no_licence(tmp_path: Path, attributes: str, says: str) -> None:
    path = array(tmp_path)
    (path / ".zattrs").write_text(attributes)
    assert says in the_error(read_array(of_product(path)))


@pytest.mark.parametrize("name", ["b02/.zattrs", "b02/.zarray", "x/.zarray", "x/0"])
def test_metadata_and_coordinates_of_many_bytes_are_not_read(tmp_path: Path, name: str) -> None:
    group = array(tmp_path).parent
    with (group / name).open("r+b") as file:
        file.truncate(2**22 + 1)
    says = f"{name} has 4194305 bytes; up to 4194304 are read of metadata and of coordinates"
    assert says in the_error(read_array(of_product(group / "b02")))
    with RangeServer(tmp_path) as server:
        opener = partial(open_cached, folder=tmp_path / "cache", max_bytes=10**9, web=Web())
        far = replace(of_product(group / "b02"), assets={"B02": f"{server.url}/p.zarr/r10m/b02"})
        assert says in the_error(read_array(far, opener=opener))


def test_what_is_kept_of_groups_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eopf_files, "_MOST_KEPT", 10_000)
    kept = eopf_files._Kept()
    for number in range(100):
        for key in ("b02/.zattrs", "b04/.zattrs", "b04/.zattrs"):
            kept.keep(f"https://example.org/{number}", key, bytes(800))
        assert kept._bytes == sum(2000 for _ in kept._groups)
    assert list(kept._groups) == [f"https://example.org/{number}" for number in range(95, 100)]
    kept.of("https://example.org/95")  # asked for again: the last to go
    kept.keep("https://example.org/b", "x", None)
    assert list(kept._groups) == [f"https://example.org/{at}" for at in (97, 98, 99, 95, "b")]
    assert kept.of("https://example.org/b") == {"x": None}
    kept.keep("https://example.org/large", "x/0", bytes(10_000))
    assert not kept._groups
    assert kept._bytes == 0
    kept.keep("https://example.org/b", "x", b"1")
    kept.forget("https://example.org/b")
    assert kept._bytes == 0
