"""Bring a band's source pixels onto the cube's 10 m pixels; the source grid nests in the lattice, nothing is warped."""

from __future__ import annotations

from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from sits_catalog.sentinel2 import SATURATED
from sits_pipeline.values import BandWindow

__all__ = ["bilinear", "repeat"]


def repeat[T: np.generic](window: BandWindow, dn: NDArray[T], out: NDArray[T]) -> None:
    """Write `dn`, values on the grid of `window`, into `out` (y, x): each source pixel over all its cube pixels."""
    factor, (height, width) = window.factor, out.shape
    if factor == 1:
        out[...] = dn[window.row : window.row + height, window.column : window.column + width]
        return
    aligned = not (window.row % factor or window.column % factor or height % factor or width % factor)
    if aligned:
        top, left = window.row // factor, window.column // factor
        part = dn[top : top + height // factor, left : left + width // factor]
        out.reshape(height // factor, factor, width // factor, factor)[...] = part[:, None, :, None]
        return
    rows = (window.row + np.arange(height)) // factor
    columns = (window.column + np.arange(width)) // factor
    out[...] = dn[rows[:, None], columns[None, :]]


def bilinear(window: BandWindow, shape: tuple[int, int]) -> NDArray[np.uint16]:
    """DN at 10 m, (y, x) of `shape`, interpolated between source pixel centres without touching nodata.

    A source pixel of 0 (nodata) or 65535 (saturated) has no weight; where less than half of the weight is left, or
    the source pixel itself is 65535 or 0, the source pixel is repeated. `window` must hold one source pixel more
    on each side than the geobox covers, so that the result does not depend on the window.
    """
    dn = cast(NDArray[np.uint16], window.dn)
    nearest = np.empty(shape, np.uint16)
    repeat(window, dn, nearest)
    usable = ((dn != 0) & (dn != SATURATED)).astype(np.float32)
    value = _interpolate(_interpolate(dn * usable, window, shape, 0), window, shape, 1)
    weight = _interpolate(_interpolate(usable, window, shape, 0), window, shape, 1)
    keep = (weight <= 0.5) | (nearest == 0) | (nearest == SATURATED)
    smooth = np.rint(value / np.where(keep, np.float32(1), weight)).astype(np.uint16)
    return np.where(keep, nearest, smooth)


def _interpolate(
    values: NDArray[np.float32], window: BandWindow, shape: tuple[int, int], axis: Literal[0, 1]
) -> NDArray[np.float32]:
    """`values` interpolated along one axis at the centres of the cube's pixels."""
    start = window.row if axis == 0 else window.column
    # A pixel's centre in source pixels is (2 * pixel + 1 - factor) / (2 * factor) from the first source centre; in
    # integers, so that the share is one number a phase wherever the window starts.
    low, phase = np.divmod(2 * (start + np.arange(shape[axis])) + 1 - window.factor, 2 * window.factor)
    share = (phase / (2 * window.factor)).astype(np.float32)
    last = values.shape[axis] - 1
    share = share[:, None] if axis == 0 else share[None, :]
    lower: NDArray[np.float32] = np.take(values, np.clip(low, 0, last), axis)
    upper: NDArray[np.float32] = np.take(values, np.clip(low + 1, 0, last), axis)
    return np.asarray(lower * (1 - share) + upper * share, np.float32)
