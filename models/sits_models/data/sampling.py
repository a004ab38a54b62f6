"""Which chips an epoch holds and in which order they are read: a pure function of the grids, the recipe and a seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from sits_catalog.cube import CHIP, Split
from sits_models.data.drawn_windows import draw_places, draw_shift, middle_windows
from sits_models.data.grid import Grid
from sits_models.data.mixing import around_superblocks, last_of_superblock, mixed_order, superblocks_of
from sits_models.data.windows import Places, frame_of, superblock_chunks
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
    side = CHIP * superblock_chunks(size)
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
    frames = (frame_of(number, grid, Split.TRAIN, recipe.size) for number, grid in enumerate(grids))
    return tuple(middle_windows(frame)[1] for frame in frames)


def reached_parcels(grids: Sequence[Grid], recipe: DataRecipe) -> tuple[NDArray[np.bool_], ...]:
    """Of each grid, around which of its parcels a window of the train split alone can lie: (parcels,) each.

    For `middle` those that it draws; otherwise those whose pixel lies anywhere in such a window.
    """
    if recipe.sampling == "middle":
        return drawn_parcels(grids, recipe)
    frames = (frame_of(number, grid, Split.TRAIN, recipe.size) for number, grid in enumerate(grids))
    return tuple(frame.reaches(frame.grid.parcels) for frame in frames)


def holding_blocks(grid: Grid, numbers: NDArray[np.int64], *, size: int, split: Split) -> NDArray[np.bool_]:
    """Of blocks, whose `numbers` the grid chips have, (rows, columns), which hold a whole window of the split."""
    frame = frame_of(0, grid, split, size)
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
    side = superblock_chunks(recipe.size)
    frames = [frame_of(number, grid, Split.TRAIN, recipe.size) for number, grid in enumerate(grids)]
    if recipe.sampling != "middle" and not any(frame.eligible.any() for frame in frames):
        raise ValueError(f"no window of {recipe.size} px lies in train cells alone; use smaller chips or another split")
    shift = draw_shift(frames, side, rng)
    places = draw_places(frames, recipe, chips_in_epoch(grids, recipe), shift, rng)
    groups = superblocks_of(places, side, shift)
    around = around_superblocks(places, groups, grids, recipe.size)
    order = mixed_order(groups, batch=recipe.batch, streams=recipe.readers, mixed=mixed, rng=rng)
    seeds = rng.integers(0, 2**63, size=len(places), dtype=np.uint64)
    return EpochPlan(
        batch=recipe.batch,
        size=recipe.size,
        split=Split.TRAIN,
        places=places[order],
        seeds=seeds,
        around=around[order],
        last=last_of_superblock(groups[order], batch=recipe.batch, streams=recipe.readers),
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
