"""How much an EOPF array may hold, and its chunks unpack to, by what its metadata and bytes say before that is done."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["ChunkCheck", "check_sizes", "chunk_check"]

_LONGEST_SIDE = 2**16
"""Values along an axis; a tile has 10 980 at 10 m."""
_LARGEST_CHUNK = 2**28
"""Bytes; a tile in one piece has 241 million at 10 m."""
_LARGEST_ARRAY = 2**31
_MOST_CHUNKS = 2**16
_CRC_BYTES = 4
_PACKERS = ("blosc", "zstd")
_INDEX_ENTRY = 16
"""Bytes of a chunk in the index of a shard: where it begins and how long it is (ZEP 2)."""
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_BYTES_A_BLOCK = 256
"""Of a Zstandard frame, on average: the library writes blocks of 128 KB, and of some KB where that is smaller."""


def check_sizes(array: Any) -> None:
    """Raise ValueError where an array is larger than any of a product, or its chunks are too large or too many.

    Nor are codecs taken that do not say beforehand what they unpack to: a megabyte may hold a gigabyte.
    """
    size = array.dtype.itemsize
    chunk = math.prod(array.shards or array.chunks) * size
    count = math.prod(-(-length // side) for length, side in zip(array.shape, array.chunks, strict=True))
    whole = math.prod(array.shape) * size
    longest = max(array.shape, default=0)
    if longest > _LONGEST_SIDE or chunk > _LARGEST_CHUNK or whole > _LARGEST_ARRAY or count > _MOST_CHUNKS:
        raise ValueError(
            f"up to {_LONGEST_SIDE} values a side, {_LARGEST_ARRAY} bytes, {_LARGEST_CHUNK} in a chunk and "
            f"{_MOST_CHUNKS} chunks are read; it says that its shape is {array.shape} and that of its chunks "
            f"{array.chunks}, of {size} bytes a value"
        )
    _check_codecs(array)


def _check_codecs(array: Any) -> None:
    strange = [
        _name(codec) for codec in (*array.filters, array.serializer) if _name(codec) not in ("bytes", "NoneType")
    ]
    kinds = [_name(codec) for codec in array.compressors]
    strange += [kind for kind in kinds if kind not in (*_PACKERS, "crc32c")]
    if strange:
        raise ValueError(
            f"stored through {', '.join(strange)}; blosc or zstd alone are read, which say what they unpack to"
        )
    if sum(kind in _PACKERS for kind in kinds) > 1 or kinds.count("crc32c") > 1:
        raise ValueError(f"stored through {', '.join(kinds)}, one after another; one of blosc and zstd is read")
    if array.shards is not None:
        (sharding,) = array.metadata.codecs
        index = [(_name(codec), getattr(codec, "endian", None)) for codec in sharding.index_codecs]
        if index != [("bytes", "little"), ("crc32c", None)] or sharding.index_location != "end":
            raise ValueError("the index of its shards is not at their end, little endian and with a CRC-32C")


def _name(codec: object) -> str:
    """What zarr calls a codec, or numcodecs does; as its class is called where that is none that is read."""
    name = type(codec).__name__
    short = name.removesuffix("Codec").lower()
    return short if short in (*_PACKERS, "crc32c", "bytes") else name


@dataclass(frozen=True, kw_only=True)
class ChunkCheck:
    """What the bytes of a chunk have to say before they are unpacked."""

    n_bytes: int
    """That come out of the compression: those of the values, and of a checksum where that is made first."""
    packer: str | None
    """blosc, zstd, or None for no compression."""
    trailing: int
    """Bytes of a checksum behind the compressed ones."""
    in_shard: int
    """Chunks in a shard; 0 where there are no shards."""

    def whole(self, content: bytes) -> None:
        """Raise ValueError where an object, a chunk or a shard, unpacks to anything but what it holds."""
        if not self.in_shard:
            self.chunk(content)
            return
        index = self.in_shard * _INDEX_ENTRY
        if len(content) < index + _CRC_BYTES:
            raise ValueError(f"a shard of {len(content)} bytes has no room for its index of {self.in_shard} chunks")
        view = memoryview(content)
        entries = np.frombuffer(view[-index - _CRC_BYTES : -_CRC_BYTES], "<u8").reshape(-1, 2).tolist()
        for start, length in entries:
            if start + length <= len(content):  # not so of chunks that are left out, whose entry is all ones
                self.chunk(view[start : start + length])

    def chunk(self, content: bytes | memoryview) -> None:
        """Raise ValueError where a chunk unpacks to anything but what it holds."""
        if self.packer is None:
            return
        packed = content[: len(content) - self.trailing]
        said = _blosc_bytes(packed) if self.packer == "blosc" else _zstd_bytes(packed, self.n_bytes)
        if said != self.n_bytes:
            what = "does not say how much it unpacks to" if said is None else f"unpacks to {said} bytes"
            raise ValueError(f"a chunk holds {self.n_bytes} bytes; one of {len(content)} {what}")


def chunk_check(array: Any) -> ChunkCheck:
    """What to hold the chunks of an array against whose sizes and codecs were checked."""
    kinds = [_name(codec) for codec in array.compressors]
    packer = next((kind for kind in kinds if kind in _PACKERS), None)
    sums = kinds.count("crc32c") * _CRC_BYTES
    is_behind = packer is not None and kinds[-1] == "crc32c"
    inner = math.prod(array.chunks)
    return ChunkCheck(
        n_bytes=inner * array.dtype.itemsize + (0 if is_behind else sums),
        packer=packer,
        trailing=sums if is_behind else 0,
        in_shard=0 if array.shards is None else math.prod(array.shards) // inner,
    )


def _blosc_bytes(content: bytes | memoryview) -> int | None:
    """`nbytes` of a Blosc 1 header, which the library allocates; None where `cbytes` is not the length of it all."""
    if len(content) < 16 or int.from_bytes(content[12:16], "little") != len(content):
        return None
    return int.from_bytes(content[4:8], "little")


def _zstd_bytes(content: bytes | memoryview, most: int) -> int | None:
    """Frame_Content_Size of the only frame (RFC 8878, 3.1.1); None where it is not stated, or more than a frame there.

    numcodecs unpacks all frames, one that states no size without bound, and skips those that hold no data.
    """
    if content[:4] != _ZSTD_MAGIC or len(content) < 5:
        return None
    descriptor = content[4]
    is_single = bool(descriptor & 0x20)
    at = 5 + (not is_single) + (0, 1, 2, 4)[descriptor & 3]
    length = (1 if is_single else 0, 2, 4, 8)[descriptor >> 6]
    if not length or _frame_end(content, at + length, most) + (4 if descriptor & 4 else 0) != len(content):
        return None
    return int.from_bytes(content[at : at + length], "little") + (256 if length == 2 else 0)


def _frame_end(content: bytes | memoryview, at: int, most: int) -> int:
    """Where the blocks of a frame end that begin `at`; -1 where they are cut, or too many for `most` bytes."""
    for _ in range(most // _BYTES_A_BLOCK + 16):
        if at + 3 > len(content):
            return -1
        header = int.from_bytes(content[at : at + 3], "little")
        at += 3 + (1 if header >> 1 & 3 == 1 else header >> 3)  # one byte that is repeated, or so many
        if header & 1:
            return at
    return -1
