"""The best parcel of each pixel under the rule `area`, and what is left for the background."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

from sits_pipeline.steps.rasterize.coverage import WHOLE, Shares
from sits_pipeline.steps.rasterize.lattice import Lattice

__all__ = ["Best", "best_parcels", "half_free"]

_HALF = WHOLE // 2
_LOW = (1 << 32) - 1


@dataclass(frozen=True, kw_only=True)
class Best:
    """The parcel that covers most of each pixel."""

    share: NDArray[np.int64]
    """(pixel,), 0..WHOLE."""
    parcel: NDArray[np.intp]
    """(pixel,), position of the parcel; -1 where no parcel covers any of the pixel."""

    def coverage(self) -> NDArray[np.uint8]:
        """The share x 255, rounded up, (pixel,)."""
        return (-(-self.share * 255 // WHOLE)).astype(np.uint8)

    def winner(self, min_coverage: float) -> NDArray[np.intp]:
        """The parcel where it covers at least `min_coverage` of the pixel, else -1."""
        return np.where(self.share >= round(min_coverage * WHOLE), self.parcel, -1)


def best_parcels(shares: Shares, lattice: Lattice) -> Best:
    """The best parcel of every pixel; of two with one share the earlier, which has the smaller parcel_id."""
    best = np.zeros(lattice.n_pixels, np.int64)
    # One number to maximize: the share, then the smaller position.
    np.maximum.at(best, shares.pixel, (shares.share << 32) | (_LOW - shares.parcel))
    return Best(share=best >> 32, parcel=np.where(best > 0, _LOW - (best & _LOW), -1))


def half_free(
    shares: Shares,
    geometry: NDArray[np.object_],
    lattice: Lattice,
    wanted: NDArray[np.bool_],
) -> NDArray[np.bool_]:
    """Whether at least half of a pixel is free of parcels, (pixel,); only where `wanted`, False elsewhere.

    The shares of parcels that do not overlap in a pixel are summed up; where they do, the area of their union counts.
    """
    covered = np.bincount(shares.pixel, shares.share, lattice.n_pixels)
    doubtful = np.flatnonzero((wanted & (covered > _HALF))[shares.pixel])
    free: NDArray[np.bool_] = wanted & (covered <= _HALF)
    doubtful = doubtful[np.argsort(shares.pixel[doubtful], kind="stable")]
    pixel, parcel = shares.pixel[doubtful], shares.parcel[doubtful]
    overlapping = np.isin(pixel, _pixels_with_overlap(pixel, parcel, geometry))
    if overlapping.any():
        pixel, parcel = pixel[overlapping], parcel[overlapping]
        groups, starts = np.unique(pixel, return_index=True)
        parts = shapely.intersection(geometry[parcel], _squares(pixel, lattice))
        union = np.array([shapely.union_all(group).area for group in np.split(parts, starts[1:])])
        free[groups] = np.rint(union / (lattice.step_x * lattice.step_y) * WHOLE) <= _HALF
    return free


def _pixels_with_overlap(
    pixel: NDArray[np.intp], parcel: NDArray[np.intp], geometry: NDArray[np.object_]
) -> NDArray[np.intp]:
    """Pixels, out of pairs sorted by pixel, that hold two parcels whose insides meet anywhere."""
    found = []
    for step in range(1, int(np.bincount(np.unique(pixel, return_inverse=True)[1]).max(initial=1))):
        first = np.flatnonzero(pixel[step:] == pixel[:-step])
        pair = np.stack([parcel[first], parcel[first + step]])
        once, inverse = np.unique(pair[0] * len(geometry) + pair[1], return_inverse=True)
        a, b = np.divmod(once, len(geometry))
        overlaps = shapely.relate_pattern(geometry[a], geometry[b], "T********")
        found.append(pixel[first[overlaps[inverse]]])
    return np.concatenate([np.empty(0, np.intp), *found])


def _squares(pixel: NDArray[np.intp], lattice: Lattice) -> NDArray[np.object_]:
    row, column = np.divmod(pixel, lattice.width)
    west = lattice.anchor_x + (lattice.column + column) * lattice.step_x
    east = lattice.anchor_x + (lattice.column + column + 1) * lattice.step_x
    north = lattice.anchor_y - (lattice.row + row) * lattice.step_y
    south = lattice.anchor_y - (lattice.row + row + 1) * lattice.step_y
    boxes: NDArray[np.object_] = shapely.box(west, south, east, north)
    return boxes
