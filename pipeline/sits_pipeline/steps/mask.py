"""Quality bits from the scene classification."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sits_catalog.cube import NOT_CLEAR, Quality
from sits_catalog.sentinel2 import Scl

__all__ = ["clear_of", "quality_of"]

_BITS = {
    Scl.SATURATED_OR_DEFECTIVE: Quality.SATURATED_OR_DEFECTIVE,
    Scl.CLOUD_SHADOW: Quality.CLOUD_SHADOW,
    Scl.CLOUD_MEDIUM: Quality.CLOUD,
    Scl.CLOUD_HIGH: Quality.CLOUD,
    Scl.THIN_CIRRUS: Quality.CIRRUS,
    Scl.SNOW_OR_ICE: Quality.SNOW_OR_ICE,
    Scl.WATER: Quality.WATER,
}
_TABLE = np.array([_BITS.get(Scl(code), 0) if code in Scl else 0 for code in range(256)], np.uint8)


def quality_of(scl: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Bits that a class stands for, without OBSERVED, which the mosaic decides; same shape as `scl`.

    Codes that ESA has not defined give no bit.
    """
    return _TABLE[scl]


def clear_of(quality: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where a pixel is observed and shows the ground: no cloud, shadow, snow, cirrus, defect or unread source."""
    return np.asarray((quality & np.uint8(Quality.OBSERVED | NOT_CLEAR)) == Quality.OBSERVED)
