"""What few labels leave of the train split of cubes: which parcels, or which blocks, are learnt from (`data.few`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import fsspec
import numpy as np
import yaml
from numpy.typing import NDArray

from sits_catalog.cube import CHIP, PIXEL_M, Split
from sits_models.data.classes import ClassTable
from sits_models.data.cubes import Cube
from sits_models.data.few_labels import few_blocks, few_parcels
from sits_models.data.grid import Grid
from sits_models.data.parcels import Middles, find_middles, known_parcels, largest_parcel, with_middles
from sits_models.data.sampling import holding_blocks, reached_parcels
from sits_models.data.statistics import count_by_cell
from sits_models.recipe import DataRecipe

__all__ = ["KeptLabels", "block_px", "check_few", "keep_blocks", "keep_parcels"]

_CUBE_SHIFT = 40


@dataclass(frozen=True, kw_only=True)
class KeptLabels:
    """Which labels of the train split are known, as if the others had never been collected; of other splits all are."""

    by: Literal["parcel", "block"]
    grids: tuple[Grid, ...]
    """Of each cube; blocks that are not kept are of no split, and parcels that are not kept are not among its
    parcels."""
    middles: tuple[Middles, ...] | None
    """Of each cube the kept parcels; None where blocks are kept."""
    known: tuple[NDArray[np.bool_], ...] | None
    """Of each cube, by parcel id, whether its label is known, False for 0; None: all labels of the grids are."""
    kept: NDArray[np.int64]
    """(K,): kept parcels of each class, or kept blocks that show it."""
    of: NDArray[np.int64]
    """(K,): those there are."""

    def described(self, table: ClassTable) -> dict[str, object]:
        """For data.json: of each class how many parcels, or blocks, are kept of how many."""
        rows = zip(table.classes, self.kept.tolist(), self.of.tolist(), strict=True)
        return {"by": self.by, "classes": [{"code": entry.code, "kept": kept, "of": of} for entry, kept, of in rows]}


def check_few(recipe: DataRecipe) -> None:
    """Raises ValueError where the rest of the recipe does not go with `data.few`.

    By parcel, chips are drawn at the parcels that are kept, since elsewhere most would show no label at all; and the
    background as a class could not be learnt, for ground without a parcel has no label then.
    """
    few = recipe.few
    if few is None or few.by == "block":
        return
    if recipe.sampling not in ("parcel", "middle"):
        raise ValueError(
            f"data.few by parcel draws chips at the parcels it keeps, and data.sampling is {recipe.sampling}: set "
            "data.sampling=parcel, or data.few.by=block"
        )
    if few.share < 1 and recipe.background:
        raise ValueError(
            "data.few by parcel leaves ground without a parcel without a label, so that the background as a class "
            "would never be seen: set data.background=false, or data.few.by=block"
        )


def keep_parcels(cubes: Sequence[Cube], grids: Sequence[Grid], table: ClassTable, recipe: DataRecipe) -> KeptLabels:
    """A share of the parcels of each class, less those around which no window can be drawn.

    A parcel is one with a labelled pixel in the train split, of a class of the table; chips are drawn at its middle
    (`Middles`). Which parcels the share takes depends on the number of the cube, on the parcel ids and on
    `data.few.seed`, and on no other part of the recipe. Of these, the ones that windows of `data.size`, drawn by
    `data.sampling`, cannot reach are not kept (`few_parcels`). So two recipes with the same `data.few`, cubes and
    classes keep the same parcels but for what one of them cannot reach: of a class of whose share it reaches nothing,
    it keeps the next parcel in the order that it does reach. With a share of 1 no label is hidden. ValueError where
    there is no parcel.
    """
    assert recipe.few is not None
    every = [find_middles(cube, grid, split=Split.TRAIN) for cube, grid in zip(cubes, grids, strict=True)]
    middles = known_parcels(every, cubes, table)
    if not sum(map(len, middles)):
        raise ValueError("no parcel of a known class has a label in the train split; learn from blocks, or all labels")
    marked = tuple(with_middles(grid, one, split=Split.TRAIN) for grid, one in zip(grids, middles, strict=True))
    crops = [table.lookup(cube.facts)[one.crop] for cube, one in zip(cubes, middles, strict=True)]
    of = np.bincount(np.concatenate(crops), minlength=table.n)
    if recipe.few.share == 1:
        return KeptLabels(by="parcel", grids=marked, middles=middles, known=None, kept=of, of=of)
    reached = reached_parcels(marked, recipe)
    crop, can_be = np.concatenate(crops), np.concatenate(reached)
    ids = np.concatenate([(number << _CUBE_SHIFT) | one.parcel for number, one in enumerate(middles)])
    kept = few_parcels(crop, share=recipe.few.share, seed=recipe.few.seed, ids=ids, reached=can_be)
    masks = np.split(kept, np.cumsum([len(one) for one in middles])[:-1])
    few = tuple(one.where(mask) for one, mask in zip(middles, masks, strict=True))
    return KeptLabels(
        by="parcel",
        grids=tuple(with_middles(grid, one, split=Split.TRAIN) for grid, one in zip(grids, few, strict=True)),
        middles=few,
        known=tuple(_known(cube, one) for cube, one in zip(cubes, few, strict=True)),
        kept=np.bincount(crop[kept], minlength=table.n),
        of=of,
    )


def _known(cube: Cube, middles: Middles) -> NDArray[np.bool_]:
    known = np.zeros(largest_parcel(cube) + 1 if cube.facts.has_labels else 1, np.bool_)
    known[middles.parcel] = True
    return known


def keep_blocks(cubes: Sequence[Cube], grids: Sequence[Grid], table: ClassTable, recipe: DataRecipe) -> KeptLabels:
    """A share of the split blocks with labels in the train split, of those that hold a window.

    ValueError where there is none.
    """
    assert recipe.few is not None
    present, ids = [], []
    for number, (cube, grid) in enumerate(zip(cubes, grids, strict=True)):
        counts = count_by_cell(cube, grid, table, split=Split.TRAIN, labels=recipe.labels)
        numbers = _block_numbers(grid, block_px(cube) // CHIP)
        shown = np.zeros((int(numbers.max()) + 1, table.n), np.bool_)
        np.logical_or.at(shown, numbers.reshape(-1), (counts > 0).reshape(table.n, -1).T)
        fits = holding_blocks(grid, numbers, size=recipe.size, split=Split.TRAIN)
        chosen = np.flatnonzero(fits & shown.any(axis=1))
        present.append(shown[chosen])
        ids.append((number << _CUBE_SHIFT) | chosen)
    shows, keys = np.concatenate(present), np.concatenate(ids)
    if not len(shows):
        raise ValueError(f"no block of the train split has labels and room for a window of {recipe.size} px")
    kept = few_blocks(shows, share=recipe.few.share, seed=recipe.few.seed, ids=keys)
    if recipe.few.share == 1:
        few = tuple(grids)
    else:
        few = tuple(
            _in_blocks(grid, keys[kept & (keys >> _CUBE_SHIFT == number)], block_px(cube) // CHIP)
            for number, (cube, grid) in enumerate(zip(cubes, grids, strict=True))
        )
    return KeptLabels(
        by="block", grids=few, middles=None, known=None, kept=shows[kept].sum(axis=0), of=shows.sum(axis=0)
    )


def block_px(cube: Cube) -> int:
    """Side of the split blocks of a cube, which count from its corner, in pixels; that of a grid chip where its
    configuration does not say."""
    try:
        with fsspec.open(f"{cube.facts.path}/config.yaml", "rt") as file:
            config = yaml.safe_load(file)
    except FileNotFoundError:
        config = None
    splits = config.get("splits") if isinstance(config, Mapping) else None
    block_m = splits.get("block_m") if isinstance(splits, Mapping) else None
    return block_m // PIXEL_M if isinstance(block_m, int) else CHIP


def _block_numbers(grid: Grid, cells: int) -> NDArray[np.int64]:
    """(rows, columns): number of the block of `cells` x `cells` grid chips in which each lies, row by row."""
    rows, columns = (np.arange(length) // cells for length in grid.split.shape)
    return np.asarray(rows[:, None] * (columns[-1] + 1) + columns[None, :], np.int64)


def _in_blocks(grid: Grid, keys: NDArray[np.int64], cells: int) -> Grid:
    """The grid whose train cells and parcels are those in these blocks."""
    kept = np.isin(_block_numbers(grid, cells), keys & ((1 << _CUBE_SHIFT) - 1))
    split = np.where((grid.split == Split.TRAIN) & ~kept, np.uint8(Split.NONE), grid.split)
    parcels = grid.parcels.copy()
    outside = ~kept[parcels[:, 0] // CHIP, parcels[:, 1] // CHIP]
    parcels[(parcels[:, 2] == Split.TRAIN) & outside, 2] = Split.NONE
    return replace(grid, split=split, parcels=parcels)
