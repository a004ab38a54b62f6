"""Which pixels are mostly free of parcels, where parcels may overlap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

from sits_pipeline.steps.rasterize.coverage import WHOLE, Shares, pixel_shares
from sits_pipeline.steps.rasterize.lattice import Lattice
from sits_pipeline.steps.rasterize.union import union

__all__ = ["half_free"]

_HALF = WHOLE // 2
_POLYGON = 3


@dataclass(frozen=True, kw_only=True)
class _Meetings:
    """Every two parcels that share a pixel and overlap somewhere, once a pixel."""

    pixel: NDArray[np.intp]
    first: NDArray[np.intp]
    second: NDArray[np.intp]
    """Positions of the parcels, first < second."""


def half_free(
    shares: Shares, geometry: NDArray[np.object_], lattice: Lattice, wanted: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Whether at least half of a pixel is free of parcels, (pixel,); only where `wanted`, False elsewhere.

    Shares are summed up; where parcels overlap inside the pixel, their common ground counts once.
    """
    covered = np.bincount(shares.pixel, shares.share, lattice.n_pixels)
    free: NDArray[np.bool_] = wanted & (covered <= _HALF)
    doubtful = np.flatnonzero((wanted & ~free)[shares.pixel])
    meetings = _meetings(shares.pixel[doubtful], shares.parcel[doubtful], geometry)
    if not meetings.pixel.size:
        return free
    common = _common_ground(meetings, geometry, lattice)
    count = np.bincount(common.pixel, minlength=lattice.n_pixels)
    twice = np.bincount(common.pixel, common.share, lattice.n_pixels)
    most = np.zeros(lattice.n_pixels, np.int64)
    np.maximum.at(most, common.pixel, common.share)
    # The union covers at least the sum less all that two share (and exactly that where no three can overlap), and at
    # most the sum less what any two share.
    surely = (covered - most <= _HALF) | ((count < 3) & (covered - twice <= _HALF))
    pixels = np.unique(meetings.pixel)
    free[pixels] = surely[pixels]
    open_ = pixels[(~surely & (covered - twice <= _HALF))[pixels]]
    free[open_] = _unions(open_, shares, geometry, lattice) <= _HALF
    return free


def _meetings(pixel: NDArray[np.intp], parcel: NDArray[np.intp], geometry: NDArray[np.object_]) -> _Meetings:
    order = np.lexsort((parcel, pixel))
    pixel, parcel = pixel[order], parcel[order]
    found, step = [np.empty((3, 0), np.intp)], 1
    while (at := np.flatnonzero(pixel[step:] == pixel[:-step])).size:
        found.append(np.stack([pixel[at], parcel[at], parcel[at + step]]))
        step += 1
    pixels, first, second = np.concatenate(found, axis=1)
    once, inverse = np.unique(first * len(geometry) + second, return_inverse=True)
    a, b = np.divmod(once, len(geometry))
    overlap = shapely.relate_pattern(geometry[a], geometry[b], "T********")[inverse]
    return _Meetings(pixel=pixels[overlap], first=first[overlap], second=second[overlap])


def _common_ground(meetings: _Meetings, geometry: NDArray[np.object_], lattice: Lattice) -> Shares:
    """Share of each pixel of `meetings` that is common to a pair; `parcel` is the number of the pair."""
    once = np.unique(meetings.first * len(geometry) + meetings.second)
    a, b = np.divmod(once, len(geometry))
    parts, pair = shapely.get_parts(shapely.intersection(geometry[a], geometry[b]), return_index=True)
    polygonal = shapely.get_type_id(parts) == _POLYGON
    shares = pixel_shares(parts[polygonal], lattice)
    doubtful = np.zeros(lattice.n_pixels, np.bool_)
    doubtful[meetings.pixel] = True
    inside = doubtful[shares.pixel]
    key = shares.pixel[inside] * len(once) + pair[polygonal][shares.parcel[inside]]
    keys, entry = np.unique(key, return_inverse=True)
    pixel, number = np.divmod(keys, len(once))
    share = np.bincount(entry, shares.share[inside], len(keys)).astype(np.int64)
    return Shares(pixel=pixel, parcel=number, share=share)


def _unions(
    pixels: NDArray[np.intp], shares: Shares, geometry: NDArray[np.object_], lattice: Lattice
) -> NDArray[np.float64]:
    """Share of each of these pixels, ascending, that any parcel covers."""
    if not pixels.size:
        return np.empty(0)
    chosen = np.flatnonzero(np.isin(shares.pixel, pixels))
    chosen = chosen[np.lexsort((shares.parcel[chosen], shares.pixel[chosen]))]
    pixel = shares.pixel[chosen]
    row, column = np.divmod(pixel, lattice.width)
    west = lattice.anchor_x + (lattice.column + column) * lattice.step_x
    east = lattice.anchor_x + (lattice.column + column + 1) * lattice.step_x
    north = lattice.anchor_y - (lattice.row + row) * lattice.step_y
    south = lattice.anchor_y - (lattice.row + row + 1) * lattice.step_y
    parts = shapely.intersection(geometry[shares.parcel[chosen]], shapely.box(west, south, east, north))
    groups = np.split(parts, np.flatnonzero(np.diff(pixel)) + 1)
    area = shapely.area(np.array([union(group) for group in groups], dtype=object))
    return np.rint(area / (lattice.step_x * lattice.step_y) * WHOLE)
