"""Bring the integers of all scenes to one meaning: reflectance x 10000, offset removed, 0 kept for nodata."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sits_catalog.sentinel2 import SATURATED

__all__ = ["harmonize"]


def harmonize(dn: NDArray[np.uint16], offset: int) -> NDArray[np.uint16]:
    """`dn` plus `offset`, clamped to 1..65534; 65535 (saturated) stays.

    Every value is taken as observed: a DN of 0 is a clipped dark value and becomes 1. Which pixels are observed
    is the mosaic's matter. Only the offsets 0 and below occur (BOA_ADD_OFFSET is -1000 or absent).

    >>> harmonize(np.array([0, 1, 1000, 1001, 3500, 65535], np.uint16), -1000)
    array([    1,     1,     1,     1,  2500, 65535], dtype=uint16)
    """
    if offset > 0:
        raise ValueError(f"a BOA offset is 0 or negative, got {offset}")
    lowered = np.maximum(dn, np.uint16(1 - offset))
    if offset:
        lowered -= np.uint16(-offset)
        lowered[dn == SATURATED] = SATURATED
    return lowered
