"""The patches of several sets as one row, and which chips an epoch or an evaluation takes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Self

import numpy as np
from numpy.typing import NDArray

from sits_catalog.cube import NO_DAY, Split
from sits_models.data.grid import Ground
from sits_models.data.patch_sets import PatchSet
from sits_models.data.sampling import EpochPlan, middle_of
from sits_models.recipe import DataRecipe

__all__ = ["CELL", "LabelCells", "Patches", "chips_in_epoch", "plan_epoch", "plan_evaluation", "plan_middles"]

CELL = 16
"""Side of the squares in which labels are counted for the sampling by class, pixels."""


@dataclass(frozen=True, kw_only=True)
class Patches:
    """The N patches of several sets, numbered one after the other."""

    owner: NDArray[np.int64]
    """(N,): number of the set."""
    number: NDArray[np.int64]
    """(N,): number of the patch in its set."""
    sizes: NDArray[np.int64]
    """(N, 2): height and width, pixels."""
    dates: NDArray[np.int64]
    """(N,): dates of the series."""
    split: NDArray[np.uint8]
    """(N,): `Split`; NONE for a patch without a date, too."""

    @classmethod
    def of(cls, sets: Sequence[PatchSet], *, ground: Ground = "split") -> Self:
        """All patches; those that are learnt from whatever their set says (`ground`) are of the train split.

        ValueError where a set has no splits, and these are asked for.
        """
        rows = [
            (np.full(len(one.facts.splits), number), np.arange(len(one.facts.splits)), *_row(one, ground))
            for number, one in enumerate(sets)
        ]
        owner, number, sizes, dates, split = (np.concatenate(column) for column in zip(*rows, strict=True))
        return cls(owner=owner, number=number, sizes=sizes, dates=dates, split=split)

    def of_split(self, split: Split) -> NDArray[np.int64]:
        """Numbers of the patches of a split."""
        return np.flatnonzero(self.split == split)

    def only(self, kept: NDArray[np.int64]) -> Self:
        """The same where of the train split these patches alone are left."""
        left_out = np.setdiff1d(self.of_split(Split.TRAIN), kept)
        split = self.split.copy()
        split[left_out] = Split.NONE
        return replace(self, split=split)


def _row(one: PatchSet, ground: Ground) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]:
    facts = one.facts
    unsplit = not (facts.splits != Split.NONE).any()
    if unsplit and ground == "split":
        raise ValueError(
            f"{facts.path} has no splits, without which labels are not learnt from; give a set with a train split, or "
            "pretrain on it without labels"
        )
    split = facts.splits
    if unsplit or ground == "all":
        split = np.full(len(facts.splits), Split.TRAIN, np.uint8)
    dates = (facts.days != NO_DAY).sum(axis=1)
    return facts.sizes, dates, np.where(dates > 0, split, np.uint8(Split.NONE))


@dataclass(frozen=True, kw_only=True)
class LabelCells:
    """Squares of `CELL` px of the train split in which a class grows, M in all: a row for each class of a square."""

    crop: NDArray[np.int64]
    """(M,): class of the model."""
    patch: NDArray[np.int64]
    """(M,): number among the patches of all sets."""
    corner: NDArray[np.int64]
    """(M, 2): row and column of the square's first pixel."""
    pixels: NDArray[np.int64]
    """(M,): pixels of the class in it."""

    def where(self, mask: NDArray[np.bool_]) -> Self:
        """Those that a mask (M,) chooses."""
        return replace(
            self, crop=self.crop[mask], patch=self.patch[mask], corner=self.corner[mask], pixels=self.pixels[mask]
        )


# Training


def chips_in_epoch(patches: Patches, recipe: DataRecipe) -> int:
    """Chips of an epoch, rounded up to batches: `recipe.chips`, or as many as lie side by side in the train patches."""
    chips = recipe.chips
    if chips is None:
        chips = int(_side_by_side(patches, patches.of_split(Split.TRAIN), recipe.size).sum())
    return max(1, -(-chips // recipe.batch)) * recipe.batch


def _side_by_side(patches: Patches, numbers: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """(n,): windows that lie side by side in each of these patches."""
    return np.asarray((patches.sizes[numbers] // size).prod(axis=1))


def plan_epoch(
    patches: Patches, recipe: DataRecipe, *, seed: int, epoch: int, mixed: int, cells: LabelCells | None
) -> EpochPlan:
    """The batches of a training epoch: windows of `recipe.size` px that lie in patches of the train split.

    Each such patch is drawn in proportion to the windows that lie side by side in it, give or take one, then a window
    in it, each as likely (`uniform`); or each class of `cells` alike often, then a pixel near which it grows and a
    window that holds it (`class`). The first `mixed` patches of a random order give the first batches, in random order,
    the next as many those after them: so a patch is decoded once while its chips are spread over many batches. Nothing
    depends on how many read.

    ValueError where there is no patch of the train split, or one is smaller than a chip.
    """
    train = patches.of_split(Split.TRAIN)
    _check_train(patches, train, recipe.size)
    rng = np.random.default_rng([seed, epoch])
    n = chips_in_epoch(patches, recipe)
    if cells is None:
        order = rng.permutation(train)
        sums = np.cumsum(_side_by_side(patches, order, recipe.size))
        # At even steps from a random start: each patch gets its share, rounded down or up.
        steps = (np.arange(n) + rng.random()) / n * sums[-1]
        drawn = order[np.searchsorted(sums, steps, side="right").clip(max=len(order) - 1)]
        corners = rng.integers(0, patches.sizes[drawn] - recipe.size + 1)
    else:
        drawn, corners = _draw_classes(patches, cells, recipe.size, n, rng)
    turn = np.empty(len(patches.split), np.int64)
    turn[train] = rng.permutation(len(train))
    order = np.lexsort((rng.random(n), turn[drawn] // mixed))
    return EpochPlan(
        batch=recipe.batch,
        size=recipe.size,
        split=Split.TRAIN,
        places=np.column_stack([drawn, corners])[order],
        seeds=rng.integers(0, 2**63, size=n, dtype=np.uint64),
        around=None,
        last=None,
        keep=None,
    )


def _check_train(patches: Patches, train: NDArray[np.int64], size: int) -> None:
    if not len(train):
        raise ValueError("no patch with a date is of the train split; give a set that has some, or other splits")
    small = train[(patches.sizes[train] < size).any(axis=1)]
    if len(small):
        height, width = patches.sizes[small[0]].tolist()
        raise ValueError(
            f"data.size is {size}, and {len(small)} of {len(train)} patches of the train split are smaller, one of "
            f"them {height} x {width} px: set data.size={int(patches.sizes[train].min())} or less"
        )


def _draw_classes(
    patches: Patches, cells: LabelCells, size: int, n: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Patch and corner of n windows, (n,) and (n, 2)."""
    present = np.unique(cells.crop)
    if not len(present):
        raise ValueError("no class of the table grows in the train split; draw chips uniformly, or mend the table")
    wanted, rows = rng.choice(present, n), np.empty(n, np.int64)
    for crop in present.tolist():
        mine, of_class = np.flatnonzero(wanted == crop), np.flatnonzero(cells.crop == crop)
        sums = np.cumsum(cells.pixels[of_class])
        rows[mine] = of_class[np.searchsorted(sums, rng.integers(0, sums[-1], len(mine)), side="right")]
    drawn, corner = cells.patch[rows], cells.corner[rows]
    sizes = patches.sizes[drawn]
    points = corner + rng.integers(0, np.minimum(CELL, sizes - corner))
    first, last = np.maximum(points - size + 1, 0), np.minimum(points, sizes - size)
    return drawn, rng.integers(first, last + 1)


# Evaluation


def plan_evaluation(patches: Patches, *, split: Split, size: int, batch: int, halo: int = 0) -> EpochPlan:
    """Windows that own each pixel of the patches of a split once, and see `halo` px around what they own.

    A patch is shared by windows of `size` px that lie evenly in it, at half overlaps; a window that is larger than the
    patch owns all of it. What a window sees outside of its patch is nothing.
    """
    if size < 1 or halo < 0:
        raise ValueError(
            f"windows of an evaluation have a size of at least 1 and a halo of at least 0; got {size}, {halo}"
        )
    numbers = patches.of_split(split)
    found, order = [np.zeros((0, 7), np.int64)], [np.zeros(0, np.int64)]
    for height, width in np.unique(patches.sizes[numbers], axis=0).tolist():
        mine = np.flatnonzero((patches.sizes[numbers] == (height, width)).all(axis=1))
        windows = [
            (0, y, x, top, bottom, left, right)
            for y, top, bottom in _tiles(height, size)
            for x, left, right in _tiles(width, size)
        ]
        numbered = np.pad(numbers[mine, None], ((0, 0), (0, 6)))
        found.append((numbered[:, None] + np.array(windows)[None]).reshape(-1, 7))  # (patches*windows, 7)
        order.append(np.repeat(mine, len(windows)))
    every = np.concatenate(found)[np.argsort(np.concatenate(order), kind="stable")]
    places = every[:, :3] - np.array([0, halo, halo])
    return _all_of(split, places, keep=every[:, 3:] + halo, size=size + 2 * halo, batch=batch)


def plan_middles(patches: Patches, *, split: Split, size: int, batch: int, dense: bool) -> EpochPlan:
    """One window of `size` px in the middle of each patch of a split; of `dense` labels that of its middle is shown."""
    numbers = patches.of_split(split)
    places = np.column_stack([numbers, (patches.sizes[numbers] - size) // 2])
    return _all_of(split, places, keep=middle_of(size, len(places)) if dense else None, size=size, batch=batch)


def _all_of(
    split: Split, places: NDArray[np.int64], *, keep: NDArray[np.int64] | None, size: int, batch: int
) -> EpochPlan:
    return EpochPlan(batch=batch, size=size, split=split, places=places, seeds=None, around=None, last=None, keep=keep)


def _tiles(length: int, size: int) -> list[tuple[int, int, int]]:
    """First pixel of each window along a patch, and the part of the window, first and last + 1, that it owns."""
    count = -(-length // size)
    starts = [0] if count == 1 else [(i * (length - size)) // (count - 1) for i in range(count)]
    middles = [(after + before + size) // 2 for before, after in pairwise(starts)]
    edges = [0, *middles, length]
    return [(start, edges[i] - start, edges[i + 1] - start) for i, start in enumerate(starts)]
