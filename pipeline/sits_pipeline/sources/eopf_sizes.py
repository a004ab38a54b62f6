"""How much an EOPF array may hold, and its chunks unpack to, by what its metadata and bytes say before that is done."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

__all__ = ["check_sizes", "unpacked_check"]

_LONGEST_SIDE = 2**16
"""Values along an axis; a tile has 10 980 at 10 m."""
_LARGEST_CHUNK = 2**27
"""Values; a tile in one piece has 120 million at 10 m."""
_MOST_CHUNKS = 2**16
_NOT_SAID = 2**64 - 1


def check_sizes(array: Any) -> None:
    """Raise ValueError where an array is larger than any of a product, or its chunks are too large or too many.

    Nor are codecs taken that do not say beforehand what they unpack to: a megabyte may hold a gigabyte.
    """
    chunk = math.prod(array.shards or array.chunks)
    count = math.prod(-(-size // side) for size, side in zip(array.shape, array.chunks, strict=True))
    if max(array.shape, default=0) > _LONGEST_SIDE or chunk > _LARGEST_CHUNK or count > _MOST_CHUNKS:
        raise ValueError(
            f"up to {_LONGEST_SIDE} values a side, {_LARGEST_CHUNK} in a chunk and {_MOST_CHUNKS} chunks are read; it "
            f"says that its shape is {array.shape} and that of its chunks {array.chunks}"
        )
    strange = [type(codec).__name__ for codec in array.compressors if _kind(codec) == "other"]
    if strange:
        raise ValueError(
            f"compressed with {', '.join(strange)}; blosc and zstd are read, which say what they unpack to"
        )


def unpacked_check(array: Any) -> Callable[[bytes], None] | None:
    """What raises ValueError for the bytes of a chunk that say they unpack to more than it holds.

    None for arrays without compression, and for those in shards, whose parts come in pieces.
    """
    kinds = {_kind(codec) for codec in array.compressors}
    if array.shards is not None or not kinds & {"blosc", "zstd"}:
        return None
    most = math.prod(array.chunks) * array.dtype.itemsize
    stated = _blosc_bytes if "blosc" in kinds else _zstd_bytes

    def check(content: bytes) -> None:
        size = stated(content)
        if size > most:
            said = "does not say how much it unpacks to" if size == _NOT_SAID else f"unpacks to {size} bytes"
            raise ValueError(f"a chunk holds {most} bytes; one of {len(content)} {said}")

    return check


def _kind(codec: object) -> str:
    name = type(codec).__name__.lower()
    return next((kind for kind in ("blosc", "zstd", "crc32c") if kind in name), "other")


def _blosc_bytes(content: bytes) -> int:
    """`nbytes` of a Blosc 1 header, which the library allocates."""
    return int.from_bytes(content[4:8], "little")


def _zstd_bytes(content: bytes) -> int:
    """Frame_Content_Size of the first frame (RFC 8878, 3.1.1.1); the library unpacks no more where it is there."""
    if content[:4] != b"\x28\xb5\x2f\xfd" or len(content) < 5:
        return 0  # no frame: it will not decode
    descriptor = content[4]
    is_single = bool(descriptor & 0x20)
    at = 5 + (not is_single) + (0, 1, 2, 4)[descriptor & 3]
    length = (1 if is_single else 0, 2, 4, 8)[descriptor >> 6]
    if not length:
        return _NOT_SAID
    return int.from_bytes(content[at : at + length], "little") + (256 if length == 2 else 0)
