"""The Zarr arrays that the floor and the peers write: chunks, shards and codec of a cube, and nothing else of it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec

from sits_catalog.cube import CHIP, shard_side

__all__ = ["write_arrays"]


def write_arrays(out: Path, reflectance: NDArray[np.uint16], scl: NDArray[np.uint8]) -> None:
    """Write reflectance (time, band, y, x) and scl (time, y, x) as one block each, whole shards at a time."""
    dates, bands = reflectance.shape[:2]
    side = shard_side(dates, bands)
    _write(out / "reflectance", reflectance, (dates, bands), side)
    _write(out / "scl", scl, (dates,), side)


def _write(path: Path, values: NDArray[Any], leading: tuple[int, ...], side: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        array = zarr.create_array(
            str(path),
            shape=values.shape,
            chunks=(*leading, CHIP, CHIP),
            shards=(*leading, side, side),
            dtype=values.dtype,
            fill_value=0,
            compressors=BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle"),
        )
        array[...] = values
