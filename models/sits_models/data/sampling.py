"""Which chips an epoch holds and in which order they are read: a pure function of the grids, the recipe and a seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from sits_catalog.cube import CHIP, Split
from sits_models.data.grid import Grid
from sits_models.recipe import DataRecipe

__all__ = [
    "MIXED",
    "BatchPlan",
    "EpochPlan",
    "chips_in_epoch",
    "drawn_parcels",
    "evaluation_px",
    "holding_blocks",
    "middle_of",
    "parcels_in_epoch",
    "plan_epoch",
    "plan_evaluation",
    "reached_parcels",
    "rectangle_px",
    "together",
]

MIXED = 16
"""Superblocks that a reader draws its chips from at a time: 64 chunks of 64 px for chips of at most 64 px."""
_TOGETHER = 8
_AT_ONCE = 16_384

Places = NDArray[np.int64]
"""(chips, 3): number of the cube, row and column."""


@dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """A batch to read; the arguments of `ChipReader.read`."""

    places: Places
    size: int
    split: Split
    seeds: NDArray[np.uint64] | None
    around: NDArray[np.int64] | None
    last: NDArray[np.bool_] | None
    keep: NDArray[np.int64] | None
    shown: NDArray[np.bool_] | None = None


@dataclass(frozen=True, kw_only=True)
class EpochPlan:
    """The chips of an epoch in the order in which batches take them."""

    batch: int
    size: int
    split: Split
    places: Places
    seeds: NDArray[np.uint64] | None
    around: NDArray[np.int64] | None
    last: NDArray[np.bool_] | None
    """(chips,): no later chip of the reader is of the same superblock."""
    keep: NDArray[np.int64] | None
    cells: tuple[NDArray[np.bool_], ...] | None = None
    """Of each cube the grid chips, (rows, columns), whose pixels may be seen; None: every window lies in such ones."""

    def __len__(self) -> int:
        return -(-len(self.places) // self.batch)

    def __getitem__(self, number: int) -> BatchPlan:
        chips = slice(number * self.batch, (number + 1) * self.batch)
        return BatchPlan(
            places=self.places[chips],
            size=self.size,
            split=self.split,
            seeds=None if self.seeds is None else self.seeds[chips],
            around=None if self.around is None else self.around[chips],
            last=None if self.last is None else self.last[chips],
            keep=None if self.keep is None else self.keep[chips],
            shown=None if self.cells is None else self._shown(self.places[chips], self.cells),
        )

    def _shown(self, places: Places, cells: Sequence[NDArray[np.bool_]]) -> NDArray[np.bool_]:
        """(chips, n, n): whether the grid chips from that of the upper-left pixel on may be seen."""
        touched = np.arange((self.size - 2) // CHIP + 2)
        shown = np.zeros((len(places), len(touched), len(touched)), np.bool_)
        for b, (number, row, column) in enumerate(places.tolist()):
            rows, columns = row // CHIP + touched, column // CHIP + touched
            height, width = cells[number].shape
            here = (rows >= 0) & (rows < height), (columns >= 0) & (columns < width)
            shown[b][np.ix_(*here)] = cells[number][np.ix_(rows[here[0]], columns[here[1]])]
        return shown


def rectangle_px(size: int, *, cut: bool) -> int:
    """Side of the ground that the chips of a superblock see at most.

    It is the superblock itself, in which they all lie; or, where its lattice may `cut` them, since each parcel has one
    window (`middle`), the chunks that one touches which begins in its last pixel.
    """
    side = CHIP * _superblock(size)
    return CHIP * ((side + size - 2) // CHIP + 1) if cut else side


def chips_in_epoch(grids: Sequence[Grid], recipe: DataRecipe) -> int:
    """Chips of an epoch, rounded up to batches: `recipe.chips`, or the area of the train cells over that of a chip.

    Of parcels in the middle of a chip there are as many as `parcels_in_epoch` says.
    """
    chips = recipe.chips
    if chips is None and recipe.sampling == "middle":
        chips = parcels_in_epoch(grids, recipe)[0]
    elif chips is None:
        chips = -(-sum(grid.area(Split.TRAIN) for grid in grids) // recipe.size**2)
    return max(1, -(-chips // recipe.batch)) * recipe.batch


def parcels_in_epoch(grids: Sequence[Grid], recipe: DataRecipe) -> tuple[int, int]:
    """Of the parcels of the train split those that `middle` draws, and those too near to another split to be drawn."""
    every = sum(int((grid.parcels[:, 2] == Split.TRAIN).sum()) for grid in grids)
    drawn = sum(int(mask.sum()) for mask in drawn_parcels(grids, recipe))
    return drawn, every - drawn


def drawn_parcels(grids: Sequence[Grid], recipe: DataRecipe) -> tuple[NDArray[np.bool_], ...]:
    """Of each grid, which of its parcels `middle` draws: (parcels,) each."""
    frames = (_frame(number, grid, Split.TRAIN, recipe.size) for number, grid in enumerate(grids))
    return tuple(_middle_windows(frame)[1] for frame in frames)


def reached_parcels(grids: Sequence[Grid], recipe: DataRecipe) -> tuple[NDArray[np.bool_], ...]:
    """Of each grid, around which of its parcels a window of the train split alone can lie: (parcels,) each.

    For `middle` those that it draws; otherwise those whose pixel lies anywhere in such a window.
    """
    if recipe.sampling == "middle":
        return drawn_parcels(grids, recipe)
    frames = (_frame(number, grid, Split.TRAIN, recipe.size) for number, grid in enumerate(grids))
    return tuple(frame.reaches(frame.grid.parcels) for frame in frames)


def holding_blocks(grid: Grid, numbers: NDArray[np.int64], *, size: int, split: Split) -> NDArray[np.bool_]:
    """Of blocks, whose `numbers` the grid chips have, (rows, columns), which hold a whole window of the split."""
    frame = _frame(0, grid, split, size)
    first = numbers[np.ix_(frame.rows.cell, frame.columns.cell)]
    last = numbers[np.ix_(frame.rows.cell + frame.rows.span - 1, frame.columns.cell + frame.columns.span - 1)]
    holds = np.zeros(int(numbers.max()) + 1, np.bool_)
    holds[first[frame.eligible & (first == last)]] = True
    return holds


def plan_epoch(grids: Sequence[Grid], recipe: DataRecipe, *, seed: int, epoch: int, mixed: int = MIXED) -> EpochPlan:
    """The batches of a training epoch.

    Chips are drawn from the windows that touch train cells alone, by `recipe.sampling`. They lie in superblocks of
    2 x 2 chunks (more for chips beyond 64 px) of a lattice that is shifted anew each epoch, and are weighted so that
    over the epochs no window is rarer for being cut by more shifts. Each of `recipe.readers` streams draws its chips
    in random order from the chips of `mixed` superblocks, and opens another one where one is used up; batch k is of
    stream k modulo readers. So a chunk is decoded once an epoch while its chips are spread over many batches.

    With the sampling `middle` each parcel has one window, which may be cut by the lattice and reach beyond the cube:
    all of them are drawn as often as each other, give or take one. Their labels are hidden but for the middle's. What
    the chips of neighbouring superblocks both see is decoded for each, where these are not open at the same time.

    ValueError where no window lies in the train split.
    """
    rng = np.random.default_rng([seed, epoch])
    side = _superblock(recipe.size)
    frames = [_frame(number, grid, Split.TRAIN, recipe.size) for number, grid in enumerate(grids)]
    if recipe.sampling != "middle" and not any(frame.eligible.any() for frame in frames):
        raise ValueError(f"no window of {recipe.size} px lies in train cells alone; use smaller chips or another split")
    shift = _draw_shift(frames, side, rng)
    places = _draw(frames, recipe, chips_in_epoch(grids, recipe), shift, rng)
    groups = _groups(places, side, shift)
    around = _around(places, groups, grids, recipe.size)
    order = _order(groups, batch=recipe.batch, streams=recipe.readers, mixed=mixed, rng=rng)
    seeds = rng.integers(0, 2**63, size=len(places), dtype=np.uint64)
    return EpochPlan(
        batch=recipe.batch,
        size=recipe.size,
        split=Split.TRAIN,
        places=places[order],
        seeds=seeds,
        around=around[order],
        last=_last(groups[order], batch=recipe.batch, streams=recipe.readers),
        keep=middle_of(recipe.size, len(places)) if recipe.sampling == "middle" else None,
    )


def plan_evaluation(
    grids: Sequence[Grid], *, split: Split, size: int, batch: int, halo: int = 0, own: int = CHIP
) -> EpochPlan:
    """Windows that own each pixel of a split once, and see no grid chip of another one.

    What windows own lies in one grid chip of the split: all of it, or for a `size` below 64 a part, where windows of
    `size` px lie evenly in the grid chip and share it at half overlaps. Around that they see `halo` px on each side,
    or more where `size` asks for it: a window is `evaluation_px(size, halo)` wide. Grid chips of another split, or of
    none, are not among the `cells` that may be seen. `own` is another side than that of a grid chip, a multiple of it,
    for squares of several; of one that lies in several splits the windows see the grid chips of this one.
    """
    if size < 1 or halo < 0:
        raise ValueError(
            f"windows of an evaluation have a size of at least 1 and a halo of at least 0; got {size}, {halo}"
        )
    if own < CHIP or own % CHIP:
        raise ValueError(f"what windows of an evaluation own has a side of a multiple of {CHIP} px; got {own}")
    side, inner = evaluation_px(size, halo, own=own), min(size, own)
    before = (side - inner) // 2
    windows = [_windows(number, grid, split, inner, own) for number, grid in enumerate(grids)]
    every = np.concatenate([np.zeros((0, 7), np.int64), *windows])
    if before:
        every = every[together(every)]
    return EpochPlan(
        batch=batch,
        size=side,
        split=split,
        places=every[:, :3] - np.array([0, before, before]),
        seeds=None,
        around=None,
        last=None,
        keep=every[:, 3:] + before,
        cells=tuple(grid.split == split for grid in grids) if side > inner or own > CHIP else None,
    )


def evaluation_px(size: int, halo: int, *, own: int = CHIP) -> int:
    """Side of the windows of an evaluation: `size`, or more where `own` px and a halo on both sides are more."""
    return max(size, min(size, own) + 2 * halo)


def middle_of(size: int, chips: int) -> NDArray[np.int64]:
    """(chips, 4): the pixel below and right of the middle as the part of each chip whose label is not hidden."""
    return np.tile(np.array([size // 2, size // 2 + 1] * 2, np.int64), (chips, 1))


def together(places: NDArray[np.int64]) -> NDArray[np.intp]:
    """The order in which places (n, 3 or more) are read where neighbours see the same pixels: cube, row, column.

    Squares of 8 x 8 grid chips, a shard or so, are passed over one by one.
    """
    row, column = places[:, 1] // CHIP, places[:, 2] // CHIP
    return np.lexsort((places[:, 2], places[:, 1], column // _TOGETHER, row // _TOGETHER, places[:, 0]))


def _windows(number: int, grid: Grid, split: Split, size: int, own: int) -> NDArray[np.int64]:
    """(windows, 7) in the squares with grid chips of a split: cube, row and column of the first pixel, and the part
    they own."""
    squares = np.unique(np.argwhere(grid.split == split) // (own // CHIP), axis=0)
    lengths = np.minimum(own, np.array([grid.height, grid.width]) - squares * own)
    found, order = [np.zeros((0, 7), np.int64)], [np.zeros(0, np.int64)]
    # Four kinds of squares at most: whole ones and those that the cube's edges cut.
    for height, width in np.unique(lengths, axis=0).tolist():
        mine = np.flatnonzero((lengths == (height, width)).all(axis=1))
        tiles = [
            (number, y, x, top, bottom, left, right)
            for y, top, bottom in _tiles(height, size)
            for x, left, right in _tiles(width, size)
        ]
        corners = np.pad(squares[mine] * own, ((0, 0), (1, 4)))
        found.append((corners[:, None] + np.array(tiles)[None]).reshape(-1, 7))
        order.append(np.repeat(mine, len(tiles)))
    return np.concatenate(found)[np.argsort(np.concatenate(order), kind="stable")]


def _tiles(length: int, size: int) -> list[tuple[int, int, int]]:
    """First pixel of each window along a cell, and the part of the window, first and last + 1, that it owns."""
    count = -(-length // size)
    starts = [0] if count == 1 else [(i * (length - size)) // (count - 1) for i in range(count)]
    middles = [(after + before + size) // 2 for before, after in pairwise(starts)]
    edges = [0, *middles, length]
    return [(start, edges[i] - start, edges[i + 1] - start) for i, start in enumerate(starts)]


# Windows of a cube


def _superblock(size: int) -> int:
    """Chunks along a superblock: at least 2, and as many as a chip can touch."""
    return max(2, (size + CHIP - 2) // CHIP + 1)


@dataclass(frozen=True)
class _Side:
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

    def near(self, points: NDArray[np.int64]) -> _Near:
        """The starts of windows that hold each of these pixels."""
        first, last = self.runs_around(points)
        run = first[:, None] + np.arange(int((last - first).max(initial=1)))[None, :]
        outside = run >= last[:, None]
        run = np.minimum(run, len(self.cell) - 1)
        low = np.maximum(self.first[run], np.clip(points - self.size + 1, 0, self.last)[:, None])
        high = np.minimum(self.first[run] + self.count[run], np.clip(points, 0, self.last)[:, None] + 1)
        return _Near(run, low, np.where(outside, 0, high - low))

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
class _Near:
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


def _side_of(length: int, size: int) -> _Side:
    starts = np.arange(max(0, length - size) + 1, dtype=np.int64)
    cell = starts // CHIP
    span = (np.minimum(starts + size, length) - 1) // CHIP - cell + 1
    _, first, count = np.unique(np.stack([cell, span]), axis=1, return_index=True, return_counts=True)
    return _Side(length, size, cell[first], span[first], first, count)


@dataclass(frozen=True)
class _Frame:
    """The windows of one size in one cube, and which of them touch cells of the split alone."""

    number: int
    grid: Grid
    split: Split
    rows: _Side
    columns: _Side
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


def _frame(number: int, grid: Grid, split: Split, size: int) -> _Frame:
    rows, columns = _side_of(grid.height, size), _side_of(grid.width, size)
    inside = np.pad((grid.split == split).astype(np.int64), ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    top, left = rows.cell[:, None], columns.cell[None, :]
    high, wide = rows.span[:, None], columns.span[None, :]
    eligible = _count(inside, top, top + high, left, left + wide) == high * wide
    return _Frame(number, grid, split, rows, columns, eligible, inside)


def _count(
    sums: NDArray[np.int64],
    top: NDArray[np.int64],
    bottom: NDArray[np.int64],
    left: NDArray[np.int64],
    right: NDArray[np.int64],
) -> NDArray[np.int64]:
    return np.asarray(sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left])


# Drawing


def _draw_shift(frames: Sequence[_Frame], side: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Chunks by which the lattice of superblocks is shifted down and right.

    A shift is as likely as the windows that it leaves whole weigh together: then, after the weights of that shift are
    divided by their sum, every window has the same chance over all shifts.
    """
    shifts = np.array([(down, right) for down in range(side) for right in range(side)], np.int64)
    totals = [
        sum(float(_run_weights(frame, frame.eligible.astype(np.float64), side, shift).sum()) for frame in frames)
        for shift in shifts
    ]
    sums = np.cumsum(totals)
    if not sums[-1]:
        return np.zeros(2, np.int64)
    return np.asarray(shifts[np.searchsorted(sums, rng.random() * sums[-1], side="right")])


def _draw(
    frames: Sequence[_Frame], recipe: DataRecipe, n: int, shift: NDArray[np.int64], rng: np.random.Generator
) -> Places:
    if recipe.sampling == "class":
        return _draw_classes(frames, n, shift, rng)
    if recipe.sampling == "parcel":
        return _draw_parcels(frames, n, shift, rng)
    if recipe.sampling == "middle":
        return _draw_middles(frames, n, rng)
    return _draw_windows(frames, [frame.eligible.astype(np.float64) for frame in frames], n, shift, rng)


def _draw_windows(
    frames: Sequence[_Frame],
    chances: Sequence[NDArray[np.float64]],
    n: int,
    shift: NDArray[np.int64],
    rng: np.random.Generator,
) -> Places:
    """Windows of all cubes, each as likely as `chances` says of its run of rows and of columns."""
    side = _superblock(frames[0].rows.size)
    weights = [_run_weights(frame, chance, side, shift) for frame, chance in zip(frames, chances, strict=True)]
    if not any(weight.any() for weight in weights):
        # The lattice cuts every window there is: this costs decoding, and nothing else.
        weights = [_run_weights(frame, chance, None, shift) for frame, chance in zip(frames, chances, strict=True)]
    sums = np.cumsum(np.concatenate([weight.reshape(-1) for weight in weights]))
    drawn = np.searchsorted(sums, rng.random(n) * sums[-1], side="right")
    drawn = np.minimum(drawn, np.searchsorted(sums, sums[-1]))  # should the product be rounded up to the sum
    offsets = np.cumsum([0, *(weight.size for weight in weights)])
    owner = np.searchsorted(offsets, drawn, side="right") - 1
    places = np.empty((n, 3), np.int64)
    for index, frame in enumerate(frames):
        mine = np.flatnonzero(owner == index)
        row_run, column_run = np.divmod(drawn[mine] - offsets[index], len(frame.columns.cell))
        rows, columns = _starts(frame.rows, row_run, rng), _starts(frame.columns, column_run, rng)
        places[mine] = np.stack([np.full(len(mine), frame.number), rows, columns], axis=1)
    return places


def _run_weights(
    frame: _Frame, chance: NDArray[np.float64], side: int | None, shift: NDArray[np.int64]
) -> NDArray[np.float64]:
    """(row runs, column runs): chance of any window of the two runs."""
    rows, columns = frame.rows.count.astype(np.float64), frame.columns.count.astype(np.float64)
    if side is not None:
        rows, columns = (
            rows * frame.rows.weights(side, int(shift[0])),
            columns * frame.columns.weights(side, int(shift[1])),
        )
    return chance * frame.eligible * rows[:, None] * columns[None, :]


def _starts(side: _Side, runs: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    return np.asarray(side.first[runs] + np.floor(rng.random(len(runs)) * side.count[runs]).astype(np.int64))


def _draw_classes(frames: Sequence[_Frame], n: int, shift: NDArray[np.int64], rng: np.random.Generator) -> Places:
    """Each class of the split alike often; then a window as likely as it is to hold a pixel of the class.

    A window is taken to hold of each cell's pixels of a class the share that it covers of the cell, and pixels in the
    buffer are counted among them: how often a class is drawn is exact, where it is drawn is not.
    """
    overlaps = [(frame.rows.overlap(), frame.columns.overlap()) for frame in frames]

    def chances(crop: int) -> list[NDArray[np.float64]]:
        # Of one class at a time: the runs of all classes together would be many times the grid.
        pairs = zip(frames, overlaps, strict=True)
        return [rows @ frame.grid.crops[crop] @ columns.T for frame, (rows, columns) in pairs]

    present = [
        crop
        for crop in range(len(frames[0].grid.crops))
        if any((chance * frame.eligible).any() for chance, frame in zip(chances(crop), frames, strict=True))
    ]
    if not present:
        raise ValueError("no class of the table grows in the train split; draw chips uniformly, or mend the table")
    wanted = rng.choice(present, n)
    places = np.empty((n, 3), np.int64)
    for crop in present:
        mine = np.flatnonzero(wanted == crop)
        places[mine] = _draw_windows(frames, chances(crop), len(mine), shift, rng)
    return places


def _draw_parcels(frames: Sequence[_Frame], n: int, shift: NDArray[np.int64], rng: np.random.Generator) -> Places:
    """Each parcel of the split that a window of it can hold alike often; then a window that holds its pixel.

    Parcels that lie too near to another split for the size are passed over; where all of them do, windows are drawn
    uniformly.
    """
    if not any((frame.grid.parcels[:, 2] == frame.split).any() for frame in frames):
        raise ValueError("no parcel lies in the train split; draw chips uniformly")
    parcels = [frame.grid.parcels[frame.reaches(frame.grid.parcels)] for frame in frames]
    every = np.concatenate([np.insert(p, 0, index, axis=1) for index, p in enumerate(parcels)])
    if not len(every):
        return _draw_windows(frames, [frame.eligible.astype(np.float64) for frame in frames], n, shift, rng)
    drawn = every[rng.integers(0, len(every), n)]
    places = np.empty((n, 3), np.int64)
    for first in range(0, n, _AT_ONCE):
        part = slice(first, first + _AT_ONCE)
        for index, frame in enumerate(frames):
            mine = np.flatnonzero(drawn[part, 0] == index)
            places[part][mine] = _around_points(frame, drawn[part][mine, 1:3], shift, rng)
    return places


def _draw_middles(frames: Sequence[_Frame], n: int, rng: np.random.Generator) -> Places:
    """Each parcel of the split alike often, the pixel that the grid has of it in the middle of the window."""
    found = [_middle_windows(frame) for frame in frames]
    every = np.concatenate([places[good] for places, good in found])
    if not len(every):
        left_out = sum(int((frame.grid.parcels[:, 2] == frame.split).sum()) for frame in frames)
        raise ValueError(
            f"no window of {frames[0].rows.size} px around a parcel of a known class lies in train cells alone "
            f"({left_out} are too near to another split); use smaller chips or another split"
        )
    rounds = [rng.permutation(len(every)) for _ in range(-(-n // len(every)))]
    return np.asarray(every[np.concatenate(rounds)[:n]])


def _middle_windows(frame: _Frame) -> tuple[Places, NDArray[np.bool_]]:
    """The window of each parcel of the grid, and whether it is of the split and touches no other cells."""
    parcels = frame.grid.parcels
    rows, columns = parcels[:, 0] - frame.rows.size // 2, parcels[:, 1] - frame.columns.size // 2
    places = np.stack([np.full(len(parcels), frame.number), rows, columns], axis=1)
    return places, frame.holds(rows, columns) & (parcels[:, 2] == frame.split)


def _around_points(
    frame: _Frame, points: NDArray[np.int64], shift: NDArray[np.int64], rng: np.random.Generator
) -> Places:
    """A window of the split that holds each point (row, column), of which there is one (`_Frame.reaches`).

    Windows are as likely as `_Side.weights` says; where the lattice cuts all that hold a point, they are alike likely.
    """
    side = _superblock(frame.rows.size)
    rows, columns = frame.rows.near(points[:, 0]), frame.columns.near(points[:, 1])
    # (points, row runs, column runs): windows of two runs that hold the point and lie in the split.
    windows = frame.eligible[rows.run[:, :, None], columns.run[:, None, :]] * (
        rows.count[:, :, None] * columns.count[:, None, :]
    ).astype(np.float64)
    high, wide = frame.rows.weights(side, int(shift[0])), frame.columns.weights(side, int(shift[1]))
    weights = windows * high[rows.run][:, :, None] * wide[columns.run][:, None, :]
    weights = np.where(weights.any(axis=(1, 2))[:, None, None], weights, windows).reshape(len(points), -1)
    sums = weights.cumsum(axis=1)
    chosen = (sums <= (rng.random(len(points)) * sums[:, -1])[:, None]).sum(axis=1)
    chosen = np.minimum(chosen, (sums < sums[:, -1:]).sum(axis=1))  # should the product be rounded up to the sum
    row, column = np.divmod(chosen, columns.run.shape[1])
    starts = rows.draw(row, rng), columns.draw(column, rng)
    return np.stack([np.full(len(points), frame.number), *starts], axis=1)


# Order


def _groups(places: Places, side: int, shift: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number of the superblock in which each chip starts."""
    keys = places.copy()
    keys[:, 1:] = (places[:, 1:] // CHIP + shift) // side
    return np.asarray(np.unique(keys, axis=0, return_inverse=True)[1].reshape(-1), np.int64)


def _around(places: Places, groups: NDArray[np.int64], grids: Sequence[Grid], size: int) -> NDArray[np.int64]:
    """(chips, 4): top, bottom, left and right of the chunks that the chips of a superblock touch."""
    limits = np.array([(grid.height, grid.width) for grid in grids], np.int64)[places[:, 0]]
    first = np.maximum(places[:, 1:], 0) // CHIP
    last = -(-np.minimum(places[:, 1:] + size, limits) // CHIP)
    n = int(groups.max()) + 1
    low, high = np.full((n, 2), np.iinfo(np.int64).max), np.zeros((n, 2), np.int64)
    np.minimum.at(low, groups, first)
    np.maximum.at(high, groups, last)
    return np.stack([low[:, 0], high[:, 0], low[:, 1], high[:, 1]], axis=1)[groups]


def _order(
    groups: NDArray[np.int64], *, batch: int, streams: int, mixed: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """The order of the chips: streams of superblocks, whose batches take turns."""
    if streams < 1:
        raise ValueError(f"data.readers is at least 1; got {streams}")
    n = int(groups.max()) + 1
    by_group = np.argsort(rng.permutation(n)[groups], kind="stable")
    batches = len(groups) // batch
    shares = [len(range(stream, batches, streams)) * batch for stream in range(streams)]
    order = np.empty((batches, batch), np.int64)
    for stream, chips in enumerate(np.split(by_group, np.cumsum(shares)[:-1])):
        mixing = _mix(groups[chips], mixed=mixed, rng=rng)
        order[stream::streams] = chips[mixing].reshape(-1, batch)
    return order.reshape(-1)


def _last(groups: NDArray[np.int64], *, batch: int, streams: int) -> NDArray[np.bool_]:
    """Whether a chip, in the order of batches, is the last of its superblock in its stream."""
    stream = np.arange(len(groups)) // batch % streams
    _, from_end = np.unique((groups * streams + stream)[::-1], return_index=True)
    last = np.zeros(len(groups), np.bool_)
    last[len(groups) - 1 - from_end] = True
    return last


def _mix(groups: NDArray[np.int64], *, mixed: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Positions in random order among those of `mixed` groups at a time; the positions of a group are neighbours."""
    cuts = np.flatnonzero(np.diff(groups)) + 1
    waiting = iter(np.split(np.arange(len(groups)), cuts))
    remaining: dict[int, int] = {}
    pool: list[int] = []
    order = np.empty(len(groups), np.int64)
    owner = groups.tolist()
    for position, chance in enumerate(rng.random(len(groups)).tolist()):
        while len(remaining) < mixed and (opened := next(waiting, None)) is not None:
            remaining[owner[opened[0]]] = len(opened)
            pool.extend(opened.tolist())
        index = int(chance * len(pool))
        chosen, pool[index] = pool[index], pool[-1]
        pool.pop()
        order[position] = chosen
        remaining[owner[chosen]] -= 1
        if not remaining[owner[chosen]]:
            del remaining[owner[chosen]]
    return order
