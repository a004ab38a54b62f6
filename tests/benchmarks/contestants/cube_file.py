"""The Zarr arrays that the floor and the peers write: a cube's chunks, shards, codec and codec pipeline."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from sits_catalog.cube import CHIP, shard_side
from sits_pipeline.store import COMPRESSOR, FUSED_PIPELINE

__all__ = ["write_arrays"]


def write_arrays(out: Path, reflectance: NDArray[np.uint16], scl: NDArray[np.uint8]) -> None:
    """Write reflectance (time, band, y, x) and scl (time, y, x) as one block each, whole shards at a time."""
    dates, bands = reflectance.shape[:2]
    side = shard_side(dates, bands)
    _write(out / "reflectance", reflectance, (dates, bands), side)
    _write(out / "scl", scl, (dates,), side)


def _write(path: Path, values: NDArray[Any], leading: tuple[int, ...], side: int) -> None:
    with warnings.catch_warnings(), FUSED_PIPELINE:
        warnings.simplefilter("ignore")
        array = zarr.create_array(
            str(path),
            shape=values.shape,
            chunks=(*leading, CHIP, CHIP),
            shards=(*leading, side, side),
            dtype=values.dtype,
            fill_value=0,
            compressors=COMPRESSOR,
        )
        array[...] = values
