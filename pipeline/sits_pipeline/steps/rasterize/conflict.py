"""Where several parcels claim one pixel."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sits_catalog.cube import IGNORE, Conflict
from sits_pipeline.steps.rasterize.coverage import WHOLE, Shares

__all__ = ["conflicts"]


def conflicts(shares: Shares, crop_type: NDArray[np.uint16], n_pixels: int) -> NDArray[np.uint8]:
    """Bits of `sits_catalog.cube.Conflict`, (pixel,); `crop_type` holds the class of every parcel.

    Of two parcels without a class (IGNORE) nothing says that they are of one: they count as of different classes.
    """
    bits = np.zeros(n_pixels, np.uint8)
    several = (np.bincount(shares.pixel, minlength=n_pixels) > 1)[shares.pixel]
    claims = np.sort((shares.pixel[several] << 16) | crop_type[shares.parcel[several]])
    pixel, crop = claims >> 16, claims & 0xFFFF
    one_pixel = pixel[1:] == pixel[:-1]
    one_class = (crop[1:] == crop[:-1]) & (crop[1:] != IGNORE)
    bits[pixel[1:][one_pixel & one_class]] |= np.uint8(Conflict.SAME_CLASS)
    bits[pixel[1:][one_pixel & ~one_class]] |= np.uint8(Conflict.DIFFERENT_CLASSES)
    inside = np.bincount(shares.pixel[shares.share == WHOLE], minlength=n_pixels)
    bits[inside > 1] |= np.uint8(Conflict.WHOLLY_INSIDE_TWO)
    return bits
