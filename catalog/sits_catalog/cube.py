"""The contract of a cube, `sits-cube` 1.0: arrays, codes, chunks and what `check` proves without reading pixels."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag
from pathlib import Path

__all__ = [
    "ARRAYS",
    "BACKGROUND",
    "BOUNDARY_UNKNOWN",
    "CHIP",
    "IGNORE",
    "LABEL_ARRAYS",
    "LATTICE_M",
    "NO_DAY",
    "OVERVIEW_FACTOR",
    "PIXEL_M",
    "PROFILES",
    "VERSION",
    "ArraySpec",
    "Conflict",
    "Quality",
    "Split",
    "central_meridian",
    "check",
    "inner_chunk",
    "lattice_anchor_y",
    "patches_a_shard",
    "shard_side",
]

VERSION = "1.0"
PROFILES = ("region", "patches")
PIXEL_M = 10
LATTICE_M = 60
CHIP = 64
"""Side of a grid chip and of an inner chunk, in pixels."""
OVERVIEW_FACTOR = 8

BACKGROUND = 0
IGNORE = 65535
BOUNDARY_UNKNOWN = -32768
NO_SOURCE = 255
MAX_ITEMS_A_DATE = 250
NO_DAY = -2147483648
"""Padding of `day` in the profile `patches`: this patch has fewer dates."""

_MAX_SHARD_BYTES = 400_000_000
_MAX_CHUNK_BYTES = 64 * 2**20
_MAX_PATCH_SHARD_BYTES = 64_000_000


class Quality(IntFlag):
    """Bits of the array `quality`."""

    OBSERVED = 1
    CLOUD = 2
    CLOUD_SHADOW = 4
    SNOW_OR_ICE = 8
    SATURATED_OR_DEFECTIVE = 16
    CIRRUS = 32
    WATER = 64
    UNREAD = 128


NOT_CLEAR = (
    Quality.CLOUD
    | Quality.CLOUD_SHADOW
    | Quality.SNOW_OR_ICE
    | Quality.SATURATED_OR_DEFECTIVE
    | Quality.CIRRUS
    | Quality.UNREAD
)
"""A pixel is clear when it is OBSERVED and has none of these bits."""


class Conflict(IntFlag):
    """Bits of the array `conflict`."""

    SAME_CLASS = 1
    DIFFERENT_CLASSES = 2
    WHOLLY_INSIDE_TWO = 4


class Split(IntEnum):
    """Values of the array `split`."""

    NONE = 0
    TRAIN = 1
    VALIDATION = 2
    TEST = 3
    BUFFER = 4


@dataclass(frozen=True)
class ArraySpec:
    """One array of the root group: dims, stored type and fill value."""

    name: str
    dims: tuple[str, ...]
    dtype: str
    fill: int
    meaning: str


ARRAYS: dict[str, ArraySpec] = {
    spec.name: spec
    for spec in (
        ArraySpec("reflectance", ("time", "band", "y", "x"), "uint16", 0, "bottom-of-atmosphere reflectance x 10000"),
        ArraySpec("scl", ("time", "y", "x"), "uint8", 0, "scene classification"),
        ArraySpec("quality", ("time", "y", "x"), "uint8", 0, "quality bits"),
        ArraySpec("source_index", ("time", "y", "x"), "uint8", NO_SOURCE, "position among this date's items"),
        ArraySpec("crop_type", ("y", "x"), "uint16", IGNORE, "crop class"),
        ArraySpec("parcel_id", ("y", "x"), "uint32", 0, "row key of parcels.parquet"),
        ArraySpec("coverage", ("y", "x"), "uint8", 0, "share of the pixel covered by its best parcel x 255"),
        ArraySpec(
            "boundary_distance",
            ("y", "x"),
            "int16",
            BOUNDARY_UNKNOWN,
            "distance to the nearest parcel boundary",
        ),
        ArraySpec("conflict", ("y", "x"), "uint8", 0, "conflict bits"),
        ArraySpec("split", ("y", "x"), "uint8", 0, "train, validation, test, buffer"),
    )
}
"""Pixel arrays of the root group; the coordinates are time, sensing_time, band, x, y and spatial_ref."""

LABEL_ARRAYS = ("crop_type", "parcel_id", "coverage", "boundary_distance", "conflict", "split")
FINER_ARRAYS = ("crop_type", "parcel_id", "coverage")


def central_meridian(epsg: int) -> float:
    """Longitude of the middle of a UTM zone, degrees.

    >>> central_meridian(32631)
    3.0
    """
    return float((epsg % 100) * 6 - 183)


def lattice_anchor_y(epsg: int) -> int:
    """Remainder, modulo 60 m, of a lattice corner's northing: 0 in the north, 40 in the south.

    10 000 000 m, the false northing of the southern zones, is 40 modulo 60.
    """
    if 32601 <= epsg <= 32660:
        return 0
    if 32701 <= epsg <= 32760:
        return 40
    raise ValueError(f"a cube lies in a WGS 84 / UTM zone (EPSG:326zz or EPSG:327zz); got EPSG:{epsg}")


def shard_side(n_dates: int, n_bands: int) -> int:
    """Side S of a shard in pixels: the largest of 512, 256, 128 with T x B x S x S x 2 bytes <= 400 MB."""
    for side in (512, 256, 128):
        if n_dates * n_bands * side * side * 2 <= _MAX_SHARD_BYTES:
            return side
    raise ValueError(
        f"{n_dates} dates x {n_bands} bands pass 400 MB even in a shard of 128 x 128 pixels; "
        "build a shorter season or fewer bands"
    )


def inner_chunk(n_dates: int, n_bands: int) -> tuple[int, int, int, int]:
    """Inner chunk of `reflectance`: (time, band, y, x); split along time only past 64 MiB."""
    dates = n_dates
    while dates > 1 and dates * n_bands * CHIP * CHIP * 2 > _MAX_CHUNK_BYTES:
        dates = -(-dates // 2)
    return dates, n_bands, CHIP, CHIP


def patches_a_shard(n_dates: int, n_bands: int, height: int, width: int) -> int:
    """Patches in a shard of the profile `patches`: as many as give 64 MB of reflectance, at least one.

    >>> patches_a_shard(5, 10, 276, 276)
    8
    """
    return max(1, _MAX_PATCH_SHARD_BYTES // (n_dates * n_bands * height * width * 2))


def check(path: str | Path) -> list[str]:
    """What of the dataset in the local folder `path` breaks the contract, a sentence each; empty: nothing.

    Reads metadata, coordinates and Parquet footers, never pixels. Raises FileNotFoundError where there is no dataset.
    """
    from sits_catalog.checking import check as check_dataset

    return check_dataset(path)
