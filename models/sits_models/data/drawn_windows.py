"""Draws the windows of an epoch: uniformly, by class, by parcel, or with a parcel in the middle."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sits_models.data.windows import Frame, Places, Side, superblock_chunks
from sits_models.recipe import DataRecipe

__all__ = ["draw_places", "draw_shift", "middle_windows"]

_AT_ONCE = 16_384


def draw_shift(frames: Sequence[Frame], side: int, rng: np.random.Generator) -> NDArray[np.int64]:
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


def draw_places(
    frames: Sequence[Frame], recipe: DataRecipe, n: int, shift: NDArray[np.int64], rng: np.random.Generator
) -> Places:
    """So many windows, drawn by `recipe.sampling`. Raises ValueError where none can be."""
    if recipe.sampling == "class":
        return _draw_classes(frames, n, shift, rng)
    if recipe.sampling == "parcel":
        return _draw_parcels(frames, n, shift, rng)
    if recipe.sampling == "middle":
        return _draw_middles(frames, n, rng)
    return _draw_windows(frames, [frame.eligible.astype(np.float64) for frame in frames], n, shift, rng)


def _draw_windows(
    frames: Sequence[Frame],
    chances: Sequence[NDArray[np.float64]],
    n: int,
    shift: NDArray[np.int64],
    rng: np.random.Generator,
) -> Places:
    """Windows of all cubes, each as likely as `chances` says of its run of rows and of columns."""
    side = superblock_chunks(frames[0].rows.size)
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
    frame: Frame, chance: NDArray[np.float64], side: int | None, shift: NDArray[np.int64]
) -> NDArray[np.float64]:
    """(row runs, column runs): chance of any window of the two runs."""
    rows, columns = frame.rows.count.astype(np.float64), frame.columns.count.astype(np.float64)
    if side is not None:
        rows, columns = (
            rows * frame.rows.weights(side, int(shift[0])),
            columns * frame.columns.weights(side, int(shift[1])),
        )
    return chance * frame.eligible * rows[:, None] * columns[None, :]


def _starts(side: Side, runs: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    return np.asarray(side.first[runs] + np.floor(rng.random(len(runs)) * side.count[runs]).astype(np.int64))


def _draw_classes(frames: Sequence[Frame], n: int, shift: NDArray[np.int64], rng: np.random.Generator) -> Places:
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


def _draw_parcels(frames: Sequence[Frame], n: int, shift: NDArray[np.int64], rng: np.random.Generator) -> Places:
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


def _draw_middles(frames: Sequence[Frame], n: int, rng: np.random.Generator) -> Places:
    """Each parcel of the split alike often, the pixel that the grid has of it in the middle of the window."""
    found = [middle_windows(frame) for frame in frames]
    every = np.concatenate([places[good] for places, good in found])
    if not len(every):
        left_out = sum(int((frame.grid.parcels[:, 2] == frame.split).sum()) for frame in frames)
        raise ValueError(
            f"no window of {frames[0].rows.size} px around a parcel of a known class lies in train cells alone "
            f"({left_out} are too near to another split); use smaller chips or another split"
        )
    rounds = [rng.permutation(len(every)) for _ in range(-(-n // len(every)))]
    return np.asarray(every[np.concatenate(rounds)[:n]])


def middle_windows(frame: Frame) -> tuple[Places, NDArray[np.bool_]]:
    """The window of each parcel of the grid, and whether it is of the split and touches no other cells."""
    parcels = frame.grid.parcels
    rows, columns = parcels[:, 0] - frame.rows.size // 2, parcels[:, 1] - frame.columns.size // 2
    places = np.stack([np.full(len(parcels), frame.number), rows, columns], axis=1)
    return places, frame.holds(rows, columns) & (parcels[:, 2] == frame.split)


def _around_points(
    frame: Frame, points: NDArray[np.int64], shift: NDArray[np.int64], rng: np.random.Generator
) -> Places:
    """A window of the split that holds each point (row, column), of which there is one (`Frame.reaches`).

    Windows are as likely as `Side.weights` says; where the lattice cuts all that hold a point, they are alike likely.
    """
    side = superblock_chunks(frame.rows.size)
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
