"""The windows of one size in a cube, in runs that touch the same grid chips, and which of them a split holds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sits_catalog.cube import CHIP, Split
from sits_models.data.grid import Grid

__all__ = ["Frame", "Near", "Places", "Side", "frame_of", "superblock_chunks"]

Places = NDArray[np.int64]
"""(chips, 3): number of the cube, row and column."""


def superblock_chunks(size: int) -> int:
    """Chunks along a superblock: at least 2, and as many as a chip can touch."""
    return max(2, (size + CHIP - 2) // CHIP + 1)


@dataclass(frozen=True)
class Side:
    """Windows along one side of a cube, in runs of neighbours that touch the same cells."""

    length: int
    size: int
    cell: NDArray[np.int64]
    """First cell of each run."""
    span: NDArray[np.int64]
    """Cells it touches."""
    first: NDArray[np.int64]
    """First start of the run, pixels."""
    count: NDArray[np.int64]
    """Starts in it."""

    @property
    def last(self) -> int:
        """The last start; a cube smaller than the window has one start, and is padded."""
        return max(0, self.length - self.size)

    def runs_around(self, points: NDArray[np.int64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """First run, and last run + 1, with a window that holds each of these pixels."""
        starts = np.clip(points - self.size + 1, 0, self.last), np.clip(points, 0, self.last)
        first, last = (np.searchsorted(self.first, start, side="right") for start in starts)
        return first - 1, last

    def near(self, points: NDArray[np.int64]) -> Near:
        """The starts of windows that hold each of these pixels."""
        first, last = self.runs_around(points)
        run = first[:, None] + np.arange(int((last - first).max(initial=1)))[None, :]
        outside = run >= last[:, None]
        run = np.minimum(run, len(self.cell) - 1)
        low = np.maximum(self.first[run], np.clip(points - self.size + 1, 0, self.last)[:, None])
        high = np.minimum(self.first[run] + self.count[run], np.clip(points, 0, self.last)[:, None] + 1)
        return Near(run, low, np.where(outside, 0, high - low))

    def weights(self, side: int, shift: int) -> NDArray[np.float64]:
        """Of a start of each run: 0 where the lattice of superblocks cuts it, else one over the shifts that do not."""
        whole = (self.cell + shift) // side == (self.cell + self.span - 1 + shift) // side
        return np.where(whole, 1.0 / (side - self.span + 1), 0.0)

    def overlap(self) -> NDArray[np.float64]:
        """(runs, cells): mean share of each cell that windows of a run cover along this side."""
        starts = np.arange(self.last + 1)
        ends = np.minimum(starts + self.size, self.length)
        shares = np.zeros((len(self.cell), -(-self.length // CHIP)))
        for offset in range(int(self.span.max())):
            edges = (starts // CHIP + offset) * CHIP
            covered = np.minimum(ends, edges + CHIP) - np.maximum(starts, edges)
            runs = np.flatnonzero(self.span > offset)
            sums = np.add.reduceat(np.maximum(covered, 0), self.first)
            shares[runs, self.cell[runs] + offset] = (sums / (self.count * CHIP))[runs]
        return shares


@dataclass(frozen=True)
class Near:
    """Of each of n points the starts along a side of windows that hold it, in runs: (n, runs) each."""

    run: NDArray[np.int64]
    first: NDArray[np.int64]
    """First start of the run with the point in its window, pixels."""
    count: NDArray[np.int64]
    """Such starts; 0 beyond the runs of a point that has fewer than others."""

    def draw(self, number: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        """(n,): any start of the run of this `number`, (n,), among those of each point."""
        here = np.arange(len(number)), number
        return np.asarray(self.first[here] + np.floor(rng.random(len(number)) * self.count[here]).astype(np.int64))


def _side_of(length: int, size: int) -> Side:
    starts = np.arange(max(0, length - size) + 1, dtype=np.int64)
    cell = starts // CHIP
    span = (np.minimum(starts + size, length) - 1) // CHIP - cell + 1
    _, first, count = np.unique(np.stack([cell, span]), axis=1, return_index=True, return_counts=True)
    return Side(length, size, cell[first], span[first], first, count)


@dataclass(frozen=True)
class Frame:
    """The windows of one size in one cube, and which of them touch cells of the split alone."""

    number: int
    grid: Grid
    split: Split
    rows: Side
    columns: Side
    eligible: NDArray[np.bool_]
    """(row runs, column runs)"""
    inside: NDArray[np.int64]
    """(rows + 1, columns + 1): cells of the split above and to the left."""

    def holds(self, row: NDArray[np.int64], column: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether windows that start there, in the cube or before it, touch cells of the split alone."""
        top, bottom = np.maximum(row, 0) // CHIP, -(-np.minimum(row + self.rows.size, self.grid.height) // CHIP)
        left, right = np.maximum(column, 0) // CHIP, -(-np.minimum(column + self.columns.size, self.grid.width) // CHIP)
        return np.asarray(_count(self.inside, top, bottom, left, right) == (bottom - top) * (right - left))

    def reaches(self, parcels: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether a window of the split alone holds the pixel of each parcel, (parcels, 3), and it is of the split."""
        eligible = np.pad(self.eligible.astype(np.int64), ((1, 0), (1, 0))).cumsum(0).cumsum(1)
        (top, bottom), (left, right) = self.rows.runs_around(parcels[:, 0]), self.columns.runs_around(parcels[:, 1])
        return np.asarray((_count(eligible, top, bottom, left, right) > 0) & (parcels[:, 2] == self.split))


def frame_of(number: int, grid: Grid, split: Split, size: int) -> Frame:
    """The windows of `size` px in the cube of this number, and which lie in the split."""
    rows, columns = _side_of(grid.height, size), _side_of(grid.width, size)
    inside = np.pad((grid.split == split).astype(np.int64), ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    top, left = rows.cell[:, None], columns.cell[None, :]
    high, wide = rows.span[:, None], columns.span[None, :]
    eligible = _count(inside, top, top + high, left, left + wide) == high * wide
    return Frame(number, grid, split, rows, columns, eligible, inside)


def _count(
    sums: NDArray[np.int64],
    top: NDArray[np.int64],
    bottom: NDArray[np.int64],
    left: NDArray[np.int64],
    right: NDArray[np.int64],
) -> NDArray[np.int64]:
    return np.asarray(sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left])
