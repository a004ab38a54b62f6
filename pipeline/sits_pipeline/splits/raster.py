"""The array `split` of a cell: the split of the ground, and the buffer around other splits' parcels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from sits_catalog.cube import PIXEL_M, Split
from sits_pipeline.splits.areas import SplitAreas
from sits_pipeline.splits.blocks import BlockGrid, SplitPlan
from sits_pipeline.values import Parcels, Window, epsg_of

__all__ = ["area_raster", "block_raster", "keep_labels_apart", "split_of_window", "split_raster"]

_SPLITS = (Split.TRAIN, Split.VALIDATION, Split.TEST)
_FIELD = 21
"""Bits in which the parcels of one split that cover a pixel are counted; three fields make an int64."""
_EXACT_M = 1e-6
"""Added to the buffer, so that rounding never leaves a pixel that is nearer than the buffer."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def block_raster(plan: SplitPlan, geobox: GeoBox) -> NDArray[np.uint8]:
    """The split (1, 2, 3) of the block that each pixel of a cell lies in, (y, x).

    Where polygons decide, that of the one its centre lies in, and 0 outside of them.
    """
    cell = _Cell.of(geobox)
    areas = plan.areas_of(cell.epsg)
    if areas is not None:
        return _area_raster(areas, cell)
    grid = plan.grid(cell.epsg)
    side = grid.block_m // PIXEL_M
    rows = (np.arange(cell.rows) + cell.row - -grid.top // PIXEL_M) // side
    columns = (np.arange(cell.columns) + cell.column - grid.left // PIXEL_M) // side
    return grid.split[np.ix_(rows, columns)]


def split_raster(plan: SplitPlan, parcels: Parcels, geobox: GeoBox) -> NDArray[np.uint8]:
    """`split` of a cell, (y, x); `parcels` are those within 110 m of it, the more the same.

    A pixel is BUFFER when its centre lies inside of, or nearer than the buffer to, a parcel of another split than
    its block's or polygon's; one that is in no split stays so. All arithmetic is done on coordinates of the whole
    zone, so that cells of any size agree.
    """
    result = block_raster(plan, geobox)
    cell = _Cell.of(geobox)
    grid = plan.grid(cell.epsg) if plan.areas_of(cell.epsg) is None else _as_blocks(result, cell)
    count = _parcels_near(plan, parcels, cell, grid)
    if count is None:
        return result
    block = result.copy()
    for split in _SPLITS:
        others = sum(((1 << _FIELD) - 1) << _FIELD * (other - 1) for other in _SPLITS if other != split)
        result[(block == split) & ((count & others) != 0)] = Split.BUFFER
    return result


def keep_labels_apart(split: NDArray[np.uint8], plan: SplitPlan, parcel_id: NDArray[np.uint32]) -> None:
    """Make BUFFER of each pixel of `split` (y, x) that a parcel of another split, or of none, has won a part of.

    `parcel_id` is on the same or on a finer lattice. A parcel may win a pixel whose centre it does not reach, which a
    buffer of less than half a pixel's diagonal leaves to the other split.
    """
    home = np.zeros(int(max(plan.parcel_id.max(initial=0), parcel_id.max(initial=0))) + 1, dtype=np.uint8)
    home[plan.parcel_id] = plan.parcel_split
    factor = len(parcel_id) // len(split)
    used = (split >= Split.TRAIN) & (split <= Split.TEST)
    foreign = np.zeros(split.shape, dtype=bool)
    for row in range(factor):
        for column in range(factor):
            winner = parcel_id[row::factor, column::factor]
            foreign |= (winner > 0) & (home[winner] != split)
    split[used & foreign] = Split.BUFFER


def split_of_window(plan: SplitPlan, geobox: GeoBox) -> Callable[[Window], Split]:
    """A function that gives the split of all ground that a window of the cube with this grid touches.

    BUFFER where that is of more than one split, and where polygons decide also where it is partly in none: a chip of
    another split may look at the same ground. NONE where none is touched.
    """
    if plan.areas_of(epsg_of(geobox)) is None:
        return plan.grid(epsg_of(geobox)).split_of

    def of_areas(window: Window) -> Split:
        found = np.unique(block_raster(plan, geobox[window.rows, window.columns]))
        return Split(int(found[0])) if len(found) == 1 else Split.BUFFER

    return of_areas


def area_raster(plan: SplitPlan, geobox: GeoBox) -> NDArray[np.uint8] | None:
    """`block_raster` of a cell where polygons decide; None where blocks do, of which a grid chip never lies in two."""
    return None if plan.areas_of(epsg_of(geobox)) is None else block_raster(plan, geobox)


def _area_raster(areas: SplitAreas, cell: _Cell) -> NDArray[np.uint8]:
    """The split of the polygons that each pixel's centre lies in, (y, x); 0 where it lies in none, or in two splits."""
    west, south, east, north = cell.bounds
    result = np.zeros((cell.rows, cell.columns), dtype=np.uint8)
    low_x, low_y, high_x, high_y = shapely.bounds(areas.geometry).reshape(-1, 4).T
    near = (low_x <= east) & (high_x >= west) & (low_y <= north) & (high_y >= south)
    if near.any():
        count = _paint([_fill(_Edges.of(areas.geometry[near], areas.split[near]), cell)], cell)
        for split in _SPLITS:
            own = ((1 << _FIELD) - 1) << _FIELD * (split - 1)
            result[(count & own != 0) & (count & ~own == 0)] = split
    return result


def _as_blocks(ground: NDArray[np.uint8], cell: _Cell) -> BlockGrid:
    """The pixels of a cell as blocks of 10 m."""
    west, _, _, north = cell.bounds
    return BlockGrid(epsg=cell.epsg, left=round(west), top=round(north), block_m=PIXEL_M, split=ground)


@dataclass(frozen=True, kw_only=True)
class _Cell:
    """A cell in pixels of the zone: pixel (row, column) has its centre at (10 column + 5, -10 row - 5) metres."""

    epsg: int
    row: int
    column: int
    rows: int
    columns: int

    @classmethod
    def of(cls, geobox: GeoBox) -> _Cell:
        west, _, _, north = geobox.boundingbox.bbox
        rows, columns = geobox.shape
        return cls(
            epsg=epsg_of(geobox),
            row=round(-north) // PIXEL_M,
            column=round(west) // PIXEL_M,
            rows=int(rows),
            columns=int(columns),
        )

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """West, south, east, north."""
        west, north = self.column * PIXEL_M, -self.row * PIXEL_M
        return west, north - self.rows * PIXEL_M, west + self.columns * PIXEL_M, north


def _parcels_near(plan: SplitPlan, parcels: Parcels, cell: _Cell, grid: BlockGrid) -> Ints | None:
    """How many spans of the parcels of each split reach each pixel, three counts in an int64; None: none do.

    Only what reaches a block of another split is drawn: elsewhere the count stays short, and nobody asks.
    """
    foreign = _Foreign.of(grid, cell)
    split = plan.splits_of(parcels.parcel_id)
    reach = plan.buffer_m + _EXACT_M
    bounds = shapely.bounds(parcels.geometry).reshape(-1, 4)
    chosen = np.flatnonzero(foreign.meets(bounds, split, reach=reach))
    if not len(chosen):
        return None
    edges = _Edges.of(parcels.geometry[chosen], split[chosen])
    near = foreign.meets(edges.bounds(), edges.split, reach=reach)
    inside = foreign.meets(bounds[chosen], split[chosen], reach=0.0)[edges.owner]
    spans = [_fill(edges.take(inside), cell)]
    if plan.buffer_m > 0:
        spans.append(_stroke(edges.take(near), reach, cell))
    return _paint(spans, cell)


@dataclass(frozen=True)
class _Foreign:
    """Where, near a cell, a parcel would reach ground of another split than its own."""

    grid: BlockGrid
    cell: _Cell
    sums: NDArray[np.int64]
    """(split, row + 1, column + 1): summed-area table of the blocks that are not of that split."""

    @classmethod
    def of(cls, grid: BlockGrid, cell: _Cell) -> _Foreign:
        rows, columns = grid.split.shape
        sums = np.zeros((len(_SPLITS) + 1, rows + 1, columns + 1), dtype=np.int64)
        for split in _SPLITS:
            sums[split, 1:, 1:] = (grid.split != split).cumsum(axis=0).cumsum(axis=1)
        return cls(grid, cell, sums)

    def meets(self, bounds: Floats, split: NDArray[np.uint8], *, reach: float) -> NDArray[np.bool_]:
        """Whether bounds (west, south, east, north), grown by `reach`, touch such ground in the cell."""
        west, south, east, north = self.cell.bounds
        low_x, low_y = np.maximum(bounds[:, 0] - reach, west), np.maximum(bounds[:, 1] - reach, south)
        high_x, high_y = np.minimum(bounds[:, 2] + reach, east), np.minimum(bounds[:, 3] + reach, north)
        first_row, last_row = self.grid.range_of(low_y, high_y, rows=True)
        first_column, last_column = self.grid.range_of(low_x, high_x, rows=False)
        table = self.sums
        count = (
            table[split, last_row + 1, last_column + 1]
            - table[split, first_row, last_column + 1]
            - table[split, last_row + 1, first_column]
            + table[split, first_row, first_column]
        )
        return np.asarray((low_x <= high_x) & (low_y <= high_y) & (count > 0))


@dataclass(frozen=True)
class _Edges:
    """Edges of polygons: all arrays have one entry an edge."""

    x0: Floats
    y0: Floats
    x1: Floats
    y1: Floats
    owner: NDArray[np.intp]
    """Position of the polygon."""
    split: NDArray[np.uint8]

    @classmethod
    def of(cls, geometry: NDArray[np.object_], split: NDArray[np.uint8]) -> _Edges:
        parts, part_owner = shapely.get_parts(geometry, return_index=True)
        rings, ring_part = shapely.get_rings(parts, return_index=True)
        xy, ring = shapely.get_coordinates(rings, return_index=True)
        joined = np.flatnonzero(ring[1:] == ring[:-1])
        owner = part_owner[ring_part[ring[joined]]]
        start, end = xy[joined], xy[joined + 1]
        return cls(start[:, 0], start[:, 1], end[:, 0], end[:, 1], owner, split[owner])

    def take(self, index: NDArray[np.intp] | NDArray[np.bool_]) -> _Edges:
        """Some of the edges."""
        return _Edges(
            self.x0[index], self.y0[index], self.x1[index], self.y1[index], self.owner[index], self.split[index]
        )

    def bounds(self) -> Floats:
        """(edge, 4): west, south, east, north."""
        low_x, high_x = np.minimum(self.x0, self.x1), np.maximum(self.x0, self.x1)
        return np.column_stack([low_x, np.minimum(self.y0, self.y1), high_x, np.maximum(self.y0, self.y1)])


@dataclass(frozen=True)
class _Spans:
    """Pieces of pixel rows, from `first` to `last` (both included), in pixels of the zone."""

    row: Ints
    first: Ints
    last: Ints
    split: NDArray[np.uint8]


def _rows_of(low: Ints, high: Ints, cell: _Cell) -> tuple[NDArray[np.intp], Ints]:
    """For intervals of pixel rows, cut to the cell: the interval's position and the row, one entry a row."""
    low, high = np.maximum(low, cell.row), np.minimum(high, cell.row + cell.rows - 1)
    count = np.maximum(high - low + 1, 0)
    which = np.repeat(np.arange(len(low)), count)
    step = np.arange(len(which)) - np.repeat(np.cumsum(count) - count, count)
    return which, low[which] + step


def _fill(edges: _Edges, cell: _Cell) -> _Spans:
    """Pixels whose centre lies inside of a polygon, by the even-odd rule: exact spans between crossings."""
    half = PIXEL_M / 2
    top, bottom = np.maximum(edges.y0, edges.y1), np.minimum(edges.y0, edges.y1)
    # Half-open (bottom <= y < top), so that a vertex on a row of centres is crossed once.
    which, row = _rows_of(
        (np.floor((-top - half) / PIXEL_M) + 1).astype(np.int64),
        np.floor((-bottom - half) / PIXEL_M).astype(np.int64),
        cell,
    )
    hit = edges.take(which)
    y = -row * float(PIXEL_M) - half
    x = hit.x0 + (y - hit.y0) * ((hit.x1 - hit.x0) / (hit.y1 - hit.y0))
    order = np.lexsort((x, row, hit.owner))
    x, row, split = x[order], row[order], hit.split[order]
    first = np.ceil((x[0::2] - half) / PIXEL_M).astype(np.int64)
    last = np.ceil((x[1::2] - half) / PIXEL_M).astype(np.int64) - 1
    return _Spans(row[0::2], first, last, split[0::2])


def _stroke(edges: _Edges, reach: float, cell: _Cell) -> _Spans:
    """Pixels whose centre is at most `reach` from an edge: each row meets such a capsule in one span.

    The span's ends lie on the circle around an end of the edge, or on one of its two parallels.
    """
    half = PIXEL_M / 2
    top, bottom = np.maximum(edges.y0, edges.y1) + reach, np.minimum(edges.y0, edges.y1) - reach
    which, row = _rows_of(
        np.ceil((-top - half) / PIXEL_M).astype(np.int64), np.floor((-bottom - half) / PIXEL_M).astype(np.int64), cell
    )
    hit = edges.take(which)
    y = -row * float(PIXEL_M) - half
    low, high = np.full(len(y), np.inf), np.full(len(y), -np.inf)
    for x_end, y_end in ((hit.x0, hit.y0), (hit.x1, hit.y1)):
        squared = reach * reach - (y - y_end) ** 2
        reaches = squared >= 0
        width = np.sqrt(np.maximum(squared, 0))
        low = np.where(reaches, np.minimum(low, x_end - width), low)
        high = np.where(reaches, np.maximum(high, x_end + width), high)
    dx, dy = hit.x1 - hit.x0, hit.y1 - hit.y0
    slanted = dy != 0  # a row that meets a level capsule meets both circles
    length = np.where(slanted, np.hypot(dx, dy), 1.0)
    slope = dx / np.where(slanted, dy, 1.0)
    for side in (reach, -reach):
        along = y - (hit.y0 + side * dx / length)  # northing from the parallel's start
        crosses = slanted & (along * dy >= 0) & (np.abs(along) <= np.abs(dy))
        x = hit.x0 - side * dy / length + along * slope
        low = np.where(crosses, np.minimum(low, x), low)
        high = np.where(crosses, np.maximum(high, x), high)
    met = np.flatnonzero(low <= high)
    first = np.ceil((low[met] - half) / PIXEL_M).astype(np.int64)
    last = np.floor((high[met] - half) / PIXEL_M).astype(np.int64)
    return _Spans(row[met], first, last, hit.split[met])


def _paint(spans: list[_Spans], cell: _Cell) -> Ints:
    """How often spans of each split cover each pixel of the cell, three counts in an int64, (y, x)."""
    steps = np.zeros((cell.rows, cell.columns + 1), dtype=np.int64)
    flat = steps.reshape(-1)
    for span in spans:
        first = np.maximum(span.first - cell.column, 0)
        last = np.minimum(span.last - cell.column, cell.columns - 1)
        met = np.flatnonzero((first <= last) & (span.split > 0))
        one = np.int64(1) << (_FIELD * (span.split[met].astype(np.int64) - 1))
        start = (span.row[met] - cell.row) * (cell.columns + 1)
        np.add.at(flat, start + first[met], one)
        np.add.at(flat, start + last[met] + 1, -one)
    return np.cumsum(steps, axis=1, out=steps)[:, :-1]
