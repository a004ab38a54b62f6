"""Cloud-optimized GeoTIFFs whose bytes depend on their pixels alone."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.shutil import copy

__all__ = ["write_cog"]

_BLOCK = 512
_SMALLEST_BLOCK = 128
"""What GDAL's COG driver accepts."""


def write_cog(path: Path, values: NDArray[np.uint16] | NDArray[np.uint8], geobox: GeoBox) -> None:
    """Write one band (y, x) with overviews by factors of 2, 4, 8, nodata 0, atomically."""
    height, width = values.shape
    overviews = 3 if max(height, width) > _BLOCK else 0
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    profile = {
        "driver": "MEM", "height": height, "width": width, "count": 1, "dtype": values.dtype.name, "nodata": 0,
        "crs": str(geobox.crs), "transform": geobox.affine,
    }  # fmt: skip
    with rasterio.open("", "w", **profile) as memory:
        memory.write(values, 1)
        memory.update_tags(TIFFTAG_IMAGEDESCRIPTION="Simulated, not observed", SIMULATED="yes")
        copy(
            memory,
            partial,
            driver="COG",
            BLOCKSIZE=min(_BLOCK, max(_SMALLEST_BLOCK, -(-max(height, width) // 16) * 16)),
            COMPRESS="ZSTD",
            LEVEL=1,
            PREDICTOR="YES",
            OVERVIEWS="IGNORE_EXISTING" if overviews else "NONE",
            OVERVIEW_COUNT=overviews or 1,
            OVERVIEW_RESAMPLING="NEAREST",
            NUM_THREADS=1,
        )
    partial.replace(path)
