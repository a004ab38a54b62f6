"""Which points are on land: the raster of 30 arc seconds of `global-land-mask`, from NOAA's GLOBE elevation.

global-land-mask 1.0.0 (MIT, by its metadata) needs NumPy alone. Its raster of 21 600 x 43 200 points, one byte each,
takes 1 GB of memory while it is used; lakes are land.
"""

from __future__ import annotations

from collections.abc import Sequence

from sits_catalog.cities import NEEDS_EXTRA

__all__ = ["is_land"]


def is_land(lons: Sequence[float], lats: Sequence[float]) -> list[bool]:
    """Whether each point is on land. Raises ValueError where the extra `locations` is missing."""
    try:
        from global_land_mask import globe
    except ImportError as error:
        raise ValueError(NEEDS_EXTRA) from error
    return [bool(found) for found in globe.is_land(list(lats), list(lons))]
