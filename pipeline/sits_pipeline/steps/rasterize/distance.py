"""The distance of every pixel centre to the nearest boundary line.

Scan conversion of closest points (S. Mauch, "A fast algorithm for computing the closest point and distance transform",
2000): the points that are nearest to the inside of a segment lie in the strip swept by its normals, those nearest to a
vertex in the wedge between the strips of its two segments. Strips and wedges are turned into runs of pixels a row, all
at once, and the distance is computed at these pixels alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import shapely
from numpy.typing import NDArray

from sits_pipeline.steps.rasterize.counting import counted
from sits_pipeline.steps.rasterize.lattice import Lattice
from sits_pipeline.steps.rasterize.outlines import outlines_of

__all__ = ["REACH_M", "boundary_distance"]

REACH_M = 100.0
"""Distances are known up to here."""
_SNAP = 2.0**20
"""Vertices are rounded to 2^-20 m, so that an edge densified from both its sides is one edge."""
_SLACK_M = 2.0**-13
"""Strips and wedges are this much wider than needed; a distance is wrong by less than that, 0.1 mm."""
_STRAIGHT = 1e-6
"""Sine of a turn under which the slack of the strips covers the wedge between them."""
_BATCH_RUNS = 1 << 17

_Ints = NDArray[np.int64]
_Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class _Strips:
    """Segments, one an entry, from their western (or southern) end along a unit direction."""

    x: _Floats
    y: _Floats
    along_x: _Floats
    """>= 0."""
    along_y: _Floats
    length: _Floats

    def __len__(self) -> int:
        return len(self.x)

    def spans(self) -> tuple[_Floats, _Floats]:
        """Lowest and highest northing within reach, sideways, of each segment."""
        end = self.y + self.along_y * self.length
        reach = (REACH_M + _SLACK_M) * self.along_x + _SLACK_M
        return np.minimum(self.y, end) - reach, np.maximum(self.y, end) + reach

    def interval(self, index: NDArray[np.intp], y: _Floats) -> tuple[_Floats, _Floats]:
        """Where strip `index` begins and ends at northing `y`: eastings."""
        along_x = np.maximum(self.along_x, 1e-12)[index]
        along_y = self.along_y[index]
        across = np.where(np.abs(along_y) < 1e-12, 1e-12, along_y)
        dy = y - self.y[index]
        done = along_y * dy
        middle = along_x * dy / across
        half = (REACH_M + _SLACK_M) / np.abs(across)
        low = np.maximum((-_SLACK_M - done) / along_x, middle - half)
        high = np.minimum((self.length[index] + _SLACK_M - done) / along_x, middle + half)
        return self.x[index] + low, self.x[index] + high

    def squares(self, index: NDArray[np.intp], y: _Floats, counts: _Ints, x: _Floats) -> _Floats:
        """Squared distances of the points of runs: run i holds `counts[i]` of `x`, on strip index[i] at y[i]."""
        dx = x - np.repeat(self.x[index], counts)
        dx *= np.repeat(self.along_y[index], counts)
        dx -= np.repeat(self.along_x[index] * (y - self.y[index]), counts)
        dx *= dx
        return dx


@dataclass(frozen=True, kw_only=True)
class _Wedges:
    """Vertices where a boundary turns, one an entry, with the unit directions of the segments before and after."""

    x: _Floats
    y: _Floats
    before_x: _Floats
    before_y: _Floats
    after_x: _Floats
    after_y: _Floats

    def __len__(self) -> int:
        return len(self.x)

    def spans(self) -> tuple[_Floats, _Floats]:
        """Lowest and highest northing of each wedge, cut off at the reach."""
        # The wedge lies right of a left turn and left of a right turn, between the two normals.
        side = np.where(self.before_x * self.after_y < self.before_y * self.after_x, 1.0, -1.0)
        first, last = side * self.before_x, side * self.after_x
        # It holds due north (south) where that is ahead of the first segment and behind the second.
        north = (self.before_y >= 0) & (self.after_y <= 0)
        south = (self.before_y <= 0) & (self.after_y >= 0)
        low = np.where(south, -1.0, np.minimum(np.minimum(first, last), 0))
        high = np.where(north, 1.0, np.maximum(np.maximum(first, last), 0))
        return self.y + REACH_M * low - _SLACK_M, self.y + REACH_M * high + _SLACK_M

    def interval(self, index: NDArray[np.intp], y: _Floats) -> tuple[_Floats, _Floats]:
        """Where wedge `index` begins and ends at northing `y`: eastings."""
        dy = y - self.y[index]
        half = np.sqrt(np.maximum((REACH_M + _SLACK_M) ** 2 - dy * dy, 0))
        low, high = -half, half
        # Ahead of the first segment, behind the second one.
        for toward_x, toward_y in ((self.before_x, self.before_y), (-self.after_x, -self.after_y)):
            slope = toward_x[index]
            slope = np.where(np.abs(slope) < 1e-12, 1e-12, slope)
            limit = (-_SLACK_M - toward_y[index] * dy) / slope
            low = np.where(slope > 0, np.maximum(low, limit), low)
            high = np.where(slope < 0, np.minimum(high, limit), high)
        return self.x[index] + low, self.x[index] + high

    def squares(self, index: NDArray[np.intp], y: _Floats, counts: _Ints, x: _Floats) -> _Floats:
        """Squared distances of the points of runs to the vertex: see `_Strips.squares`."""
        dx = x - np.repeat(self.x[index], counts)
        dx *= dx
        dx += np.repeat(np.square(y - self.y[index]), counts)
        return dx


def boundary_distance(geometry: NDArray[np.object_], lattice: Lattice) -> NDArray[np.float64]:
    """Metres from each pixel centre to the nearest exterior or hole of any polygon, (y, x); infinite past REACH_M.

    A distance depends on the boundaries within reach and on the lattice alone, never on the window.
    """
    squares = np.full(lattice.n_pixels, np.inf)
    west, south, east, north = lattice.bounds
    bounds = shapely.bounds(geometry).reshape(-1, 4)
    reach = REACH_M + 1
    near = (bounds[:, 0] < east + reach) & (bounds[:, 2] > west - reach)
    near &= (bounds[:, 1] < north + reach) & (bounds[:, 3] > south - reach)
    for shapes in _strips_and_wedges(geometry[near]):
        _lower(squares, shapes, lattice)
    squares[squares > REACH_M**2] = np.inf
    return np.sqrt(squares).reshape(lattice.height, lattice.width)


def _strips_and_wedges(geometry: NDArray[np.object_]) -> tuple[_Strips, _Wedges]:
    outlines = outlines_of(geometry)
    xy, ring = np.rint(outlines.xy * _SNAP), outlines.ring
    fresh = np.ones(len(xy), np.bool_)
    fresh[1:] = (xy[1:] != xy[:-1]).any(axis=1) | (ring[1:] != ring[:-1])
    xy, ring = xy[fresh], ring[fresh]
    start = np.flatnonzero(ring[1:] == ring[:-1])
    is_last = np.ones(len(start), np.bool_)
    is_last[:-1] = ring[start[1:]] != ring[start[:-1]]
    following = np.arange(1, len(start) + 1)
    following[is_last] = np.flatnonzero(np.roll(is_last, 1))
    return _strips(xy[start], xy[start + 1]), _wedges(xy[start], xy[start + 1], xy[start[following] + 1])


def _strips(begin: _Floats, end: _Floats) -> _Strips:
    backward = (begin[:, 0] > end[:, 0]) | ((begin[:, 0] == end[:, 0]) & (begin[:, 1] > end[:, 1]))
    first = np.where(backward[:, None], end, begin)
    last = np.where(backward[:, None], begin, end)
    once = _distinct(np.hstack([first, last]), _mixed(first) + 3 * _mixed(last))
    first, step = first[once] / _SNAP, (last[once] - first[once]) / _SNAP
    length = np.sqrt(np.square(step).sum(axis=1))
    return _Strips(
        x=first[:, 0], y=first[:, 1], along_x=step[:, 0] / length, along_y=step[:, 1] / length, length=length
    )


def _wedges(before: _Floats, vertex: _Floats, after: _Floats) -> _Wedges:
    backward = (before[:, 0] > after[:, 0]) | ((before[:, 0] == after[:, 0]) & (before[:, 1] > after[:, 1]))
    first = np.where(backward[:, None], after, before)
    last = np.where(backward[:, None], before, after)
    incoming, outgoing = _unit(vertex - first), _unit(last - vertex)
    turn = np.flatnonzero((np.abs(_cross(incoming, outgoing)) > _STRAIGHT) | ((incoming * outgoing).sum(axis=1) < 0))
    first, vertex, last = first[turn], vertex[turn], last[turn]
    once = _distinct(np.hstack([first, vertex, last]), _mixed(first) + 3 * _mixed(vertex) + 5 * _mixed(last))
    incoming, outgoing, vertex = incoming[turn[once]], outgoing[turn[once]], vertex[once] / _SNAP
    return _Wedges(
        x=vertex[:, 0],
        y=vertex[:, 1],
        before_x=incoming[:, 0],
        before_y=incoming[:, 1],
        after_x=outgoing[:, 0],
        after_y=outgoing[:, 1],
    )


def _unit(vectors: _Floats) -> _Floats:
    return vectors / np.sqrt(np.square(vectors).sum(axis=1, keepdims=True))


def _cross(a: _Floats, b: _Floats) -> _Floats:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]


def _mixed(xy: _Floats) -> NDArray[np.uint64]:
    """A number that equal points share and others hardly ever do."""
    x, y = xy.astype(np.int64).view(np.uint64).T
    mixed: NDArray[np.uint64] = x * np.uint64(0x9E3779B97F4A7C15) ^ y * np.uint64(0xC2B2AE3D27D4EB4F)
    mixed ^= mixed >> np.uint64(29)
    return mixed


def _distinct(rows: _Floats, mixed: NDArray[np.uint64]) -> NDArray[np.intp]:
    """Positions of distinct rows, ascending; where two hashes collide a repeat may stay, which does no harm."""
    order = np.argsort(mixed)
    fresh = np.ones(len(order), np.bool_)
    fresh[1:] = (rows[order[1:]] != rows[order[:-1]]).any(axis=1)
    return np.sort(order[fresh])


def _lower(squares: _Floats, shapes: _Strips | _Wedges, lattice: Lattice) -> None:
    """Lower `squares` (pixel,) to the squared distances to `shapes` wherever these are nearest."""
    centres_x, centres_y = lattice.centres_x(), lattice.centres_y()
    south, north = shapes.spans()
    top, bottom = lattice.rows_between(north, south)
    rows = np.maximum(bottom - top + 1, 0)
    for batch in _batches(rows):
        shape = np.repeat(np.arange(batch.start, batch.stop), rows[batch])
        row = top[shape] + counted(rows[batch])
        first, last = lattice.columns_between(*shapes.interval(shape, centres_y[row]))
        run = np.flatnonzero(last >= first)
        shape, row, first, counts = shape[run], row[run], first[run], (last - first + 1)[run]
        column = np.repeat(first, counts) + counted(counts)
        found = shapes.squares(shape, centres_y[row], counts, centres_x[column])
        np.minimum.at(squares, column + np.repeat(row * lattice.width, counts), found)


def _batches(rows: _Ints) -> Iterator[slice]:
    """Slices of shapes with about one batch of rows each."""
    turns = np.flatnonzero(np.diff(np.cumsum(rows) // _BATCH_RUNS)) + 1
    edges = [0, *turns.tolist(), len(rows)]
    yield from (slice(start, stop) for start, stop in pairwise(edges))
