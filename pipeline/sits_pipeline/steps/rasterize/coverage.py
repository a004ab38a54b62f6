"""The exact share of each pixel that each parcel covers.

The method is the one of font rasterizers: every edge is cut at the pixel rows and columns it crosses; a piece covers
the part of its pixel to its right and, fully, all pixels further right in the row, so that a cumulative sum along the
row gives the shares. Heights are integers (2^-30 of a pixel), hence their sums are exact whatever the order, and the
window can be cut anywhere without changing a bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

from sits_pipeline.steps.rasterize.counting import counted
from sits_pipeline.steps.rasterize.lattice import Lattice
from sits_pipeline.steps.rasterize.outlines import outlines_of

__all__ = ["WHOLE", "Shares", "pixel_shares"]

WHOLE = 10**9
"""Share of a wholly covered pixel; shares are integers, so that noise of 1e-16 decides nothing."""
_NOISE = WHOLE // 10**6
"""Shares this close to none or to all are none or all."""
_BITS = 30
_UNIT = 1 << _BITS
_BATCH_PX = 1 << 22

_Ints = NDArray[np.int64]
_Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Shares:
    """Every pair of a pixel and a parcel that covers some of it."""

    pixel: NDArray[np.intp]
    """(pair,), row-major number in the window."""
    parcel: NDArray[np.intp]
    """(pair,), position among the geometries, ascending."""
    share: NDArray[np.int64]
    """(pair,), 1..WHOLE."""


@dataclass(frozen=True, kw_only=True)
class _Boxes:
    """Where each parcel lies in the window, in pixels; one entry a parcel."""

    row: _Ints
    """Row of the window that heights of the parcel are counted from; may be negative."""
    column: _Ints
    """Column of the window that the parcel's abscissas are counted from; may be negative."""
    top: _Ints
    bottom: _Ints
    """First row, and row after the last, of the parcel inside the window."""
    left: _Ints
    right: _Ints
    """First column, and column after the last, of the parcel inside the window."""

    @property
    def pitch(self) -> _Ints:
        """Buffer cells a row: one for all that lies left of the window (and right of it, one row higher)."""
        return self.right - self.left + 1

    @property
    def size(self) -> _Ints:
        """Buffer cells a parcel."""
        return (self.bottom - self.top) * self.pitch + 1

    def take(self, index: NDArray[np.intp]) -> _Boxes:
        return _Boxes(**{name: values[index] for name, values in vars(self).items()})


@dataclass(frozen=True, kw_only=True)
class _Edges:
    """Edges that rise or fall, in pixels from their parcel's corner; upper end first."""

    parcel: NDArray[np.intp]
    upper_x: _Floats
    lower_x: _Floats
    upper: _Ints
    lower: _Ints
    """Heights below the parcel's corner in 2^-30 pixels, `upper` < `lower`."""
    sign: _Ints
    """+1 where the parcel lies right of the edge, -1 where it lies left."""


@dataclass(frozen=True, kw_only=True)
class _Pieces:
    """Parts of edges inside one pixel row each."""

    left_x: _Floats
    right_x: _Floats
    """From the parcel's corner, in pixels."""
    height: _Ints
    """2^-30 pixels, > 0."""
    sign: _Ints
    column: _Ints
    """Column of the window the abscissas are counted from."""
    left: _Ints
    right: _Ints
    """First column, and column after the last, of the parcel inside the window."""
    cell: _Ints
    """Buffer cell of the window's column 0 in this piece's row."""


def pixel_shares(geometry: NDArray[np.object_], lattice: Lattice) -> Shares:
    """Which parcel covers how much of which pixel of the window.

    A pair's share depends on the parcel and on the lattice alone, never on the window or on other parcels.
    `geometry` holds valid polygons and multipolygons.
    """
    bounds = shapely.bounds(geometry).reshape(-1, 4)
    boxes = _boxes(bounds, lattice)
    near = np.flatnonzero((boxes.bottom > boxes.top) & (boxes.right > boxes.left))
    parts = [
        _shares_of_batch(geometry[batch], bounds[batch], boxes.take(batch), batch, lattice)
        for batch in _batches(near, boxes.size[near])
    ]
    return Shares(
        pixel=np.concatenate([np.empty(0, np.intp), *(part.pixel for part in parts)]),
        parcel=np.concatenate([np.empty(0, np.intp), *(part.parcel for part in parts)]),
        share=np.concatenate([np.empty(0, np.int64), *(part.share for part in parts)]),
    )


def _boxes(bounds: _Floats, lattice: Lattice) -> _Boxes:
    first_column = np.floor((bounds[:, 0] - lattice.anchor_x) / lattice.step_x).astype(np.int64)
    first_row = np.floor((lattice.anchor_y - bounds[:, 3]) / lattice.step_y).astype(np.int64)
    # One more than the last: an edge on a pixel edge belongs to the pixel on its right.
    end_column = np.floor((bounds[:, 2] - lattice.anchor_x) / lattice.step_x).astype(np.int64) + 1
    end_row = np.floor((lattice.anchor_y - bounds[:, 1]) / lattice.step_y).astype(np.int64) + 1
    return _Boxes(
        row=first_row - lattice.row,
        column=first_column - lattice.column,
        top=np.maximum(first_row - lattice.row, 0),
        bottom=np.minimum(end_row - lattice.row, lattice.height),
        left=np.maximum(first_column - lattice.column, 0),
        right=np.minimum(end_column - lattice.column, lattice.width),
    )


def _batches(index: NDArray[np.intp], sizes: _Ints) -> Iterator[NDArray[np.intp]]:
    """Runs of `index` whose sizes sum up to about one batch."""
    if index.size:
        turns = np.flatnonzero(np.diff(np.cumsum(sizes) // _BATCH_PX)) + 1
        yield from np.split(index, turns)


def _shares_of_batch(
    geometry: NDArray[np.object_], bounds: _Floats, boxes: _Boxes, position: NDArray[np.intp], lattice: Lattice
) -> Shares:
    starts = np.concatenate([[0], np.cumsum(boxes.size)])
    cover, area = _accumulate(_cut_at_rows(_edges(geometry, bounds, lattice), boxes, starts), int(starts[-1]))
    share = np.cumsum(cover, dtype=np.float64)  # bincount of nothing gives integers
    share -= cover
    share += area
    share *= WHOLE / _UNIT
    np.rint(share, out=share)
    rows = boxes.bottom - boxes.top
    box = np.repeat(np.arange(len(rows)), rows)
    nth_row = counted(rows)
    line_start = starts[box] + nth_row * boxes.pitch[box]
    share[line_start] = 0
    share[starts[1:] - 1] = 0
    cell = np.flatnonzero(share >= _NOISE)
    line = np.repeat(np.arange(len(box)), np.diff(np.append(line_start, starts[-1])))[cell]
    value = share[cell].astype(np.int64)
    value[value > WHOLE - _NOISE] = WHOLE
    first_pixel = (boxes.top[box] + nth_row) * lattice.width + boxes.left[box]
    return Shares(
        pixel=cell + (first_pixel - line_start - 1)[line],
        parcel=position[box][line],
        share=value,
    )


def _edges(geometry: NDArray[np.object_], bounds: _Floats, lattice: Lattice) -> _Edges:
    outlines = outlines_of(geometry)
    start = np.flatnonzero(outlines.ring[1:] == outlines.ring[:-1])
    parcel = outlines.owner[outlines.ring]
    # Differences of nearby floats are exact: nothing is lost to the size of UTM coordinates.
    corner_x = lattice.anchor_x + np.floor((bounds[:, 0] - lattice.anchor_x) / lattice.step_x) * lattice.step_x
    corner_y = lattice.anchor_y - np.floor((lattice.anchor_y - bounds[:, 3]) / lattice.step_y) * lattice.step_y
    x = (outlines.xy[:, 0] - corner_x[parcel]) / lattice.step_x
    depth = np.rint((corner_y[parcel] - outlines.xy[:, 1]) / lattice.step_y * _UNIT).astype(np.int64)
    start = start[depth[start] != depth[start + 1]]
    down = depth[start] < depth[start + 1]
    upper, lower = np.where(down, start, start + 1), np.where(down, start + 1, start)
    return _Edges(
        parcel=parcel[start],
        upper_x=x[upper],
        lower_x=x[lower],
        upper=depth[upper],
        lower=depth[lower],
        sign=np.where(down, 1, -1),
    )


def _cut_at_rows(edges: _Edges, boxes: _Boxes, starts: _Ints) -> _Pieces:
    """The edges cut at pixel rows; pieces above and below the window are left out."""
    first = np.maximum((edges.upper >> _BITS) + boxes.row[edges.parcel], boxes.top[edges.parcel])
    end = np.minimum(((edges.lower - 1) >> _BITS) + 1 + boxes.row[edges.parcel], boxes.bottom[edges.parcel])
    rows = np.maximum(end - first, 0)
    edge = np.repeat(np.arange(len(rows)), rows)
    row = first[edge] + counted(rows)
    parcel, start = edges.parcel[edge], edges.upper[edge]
    ceiling = (row - boxes.row[parcel]) << _BITS
    upper = np.maximum(start, ceiling)
    lower = np.minimum(edges.lower[edge], ceiling + _UNIT)
    slope = ((edges.lower_x - edges.upper_x) / (edges.lower - edges.upper))[edge]
    upper_x = edges.upper_x[edge] + (upper - start) * slope
    lower_x = edges.upper_x[edge] + (lower - start) * slope
    left = boxes.left[parcel]
    return _Pieces(
        left_x=np.minimum(upper_x, lower_x),
        right_x=np.maximum(upper_x, lower_x),
        height=lower - upper,
        sign=edges.sign[edge],
        column=boxes.column[parcel],
        left=left,
        right=boxes.right[parcel],
        cell=starts[parcel] + (row - boxes.top[parcel]) * boxes.pitch[parcel] + 1 - left,
    )


def _accumulate(pieces: _Pieces, size: int) -> tuple[_Floats, _Floats]:
    """Height covered, and area covered inside the pixel itself, a buffer cell, in 2^-30 pixels.

    Pieces are cut at pixel columns; what lies left or right of the window stays one piece, in a spare cell.
    """
    first = np.clip(np.floor(pieces.left_x).astype(np.int64) + pieces.column, pieces.left - 1, pieces.right)
    last = np.clip(np.ceil(pieces.right_x).astype(np.int64) - 1 + pieces.column, first, pieces.right)
    columns = last - first + 1
    piece = np.repeat(np.arange(len(columns)), columns)
    nth = counted(columns)
    column = first[piece] + nth
    edge_x = (column - pieces.column[piece]).astype(np.float64)
    left_x, right_x = pieces.left_x[piece], pieces.right_x[piece]
    is_first, is_last = nth == 0, column == last[piece]
    from_x, to_x = np.where(is_first, left_x, edge_x), np.where(is_last, right_x, edge_x + 1)
    height = pieces.height[piece]
    rate = height / np.where(right_x > left_x, right_x - left_x, 1.0)
    # Both pieces that meet at a column's edge round the height there alike, so heights sum up exactly.
    begin = np.where(is_first, 0, np.rint((from_x - left_x) * rate))
    end = np.where(is_last, height, np.rint((to_x - left_x) * rate))
    cover = (end - begin) * pieces.sign[piece]
    area = cover * (edge_x + 1 - (from_x + to_x) / 2)
    cell = pieces.cell[piece] + column
    return np.bincount(cell, cover, size), np.bincount(cell, area, size)
