"""The cells of a cube's chip grid: to which split each belongs, and what grows in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow
import shapely
from numpy.typing import NDArray

from sits_catalog.cube import CHIP, Split
from sits_models.data.classes import ClassTable
from sits_models.data.cubes import Cube, CubeFacts

__all__ = ["Grid", "Ground", "read_grid"]

Ground = Literal["split", "unsplit", "all"]
"""What is learnt from: the train split; that, or all of a cube without splits; or all, of whatever split it is."""

_WORDS = {code.name.lower(): int(code) for code in Split}


@dataclass(frozen=True, kw_only=True)
class Grid:
    """All that decides where windows of a cube may lie; cells are squares of 64 px, cut at the cube's edge."""

    height: int
    """Of the cube, pixels."""
    width: int
    split: NDArray[np.uint8]
    """(rows, columns): `Split` of each cell; NONE where the region has no chip."""
    crops: NDArray[np.int64]
    """(classes, rows, columns): pixels of each class of the model in a cell, those in the buffer too.

    For drawing by class, where few pixels more or less do no harm; `TrainingData.train_pixels` counts exactly.
    """
    parcels: NDArray[np.int64]
    """(parcels, 3): row and column of the pixel at the centroid, and the split."""

    def area(self, split: Split) -> int:
        """Pixels in the cells of a split."""
        rows, columns = _sides(self.height), _sides(self.width)
        return int(np.where(self.split == split, rows[:, None] * columns[None, :], 0).sum())


def read_grid(cube: Cube, table: ClassTable | None, *, parcels: bool, ground: Ground = "split") -> Grid:
    """The grid of a cube, from `chips.parquet` and, where asked for, `parcels.parquet`.

    Without a `table` no class is counted. Chips that are learnt from whatever the cube says (`ground`) are of the train
    split of the grid. ValueError where the cube has no splits, and these are asked for.
    """
    chips = cube.chip_table(["row", "col", "split", *([] if table is None else ["crop_counts"])], kind="grid")
    words = chips["split"].to_pandas()
    unsplit = bool(words.isna().all())
    if unsplit and ground == "split":
        raise ValueError(f"{cube.facts.path} has no splits; make them with sits-cube split")
    if unsplit or ground == "all":
        words[:] = Split.TRAIN.name.lower()
    height, width = cube.facts.shape
    rows, columns = (chips[name].to_numpy().astype(np.int64) // CHIP for name in ("row", "col"))
    split = np.zeros((-(-height // CHIP), -(-width // CHIP)), np.uint8)
    split[rows, columns] = words.map(_WORDS).fillna(0).to_numpy(np.uint8)
    crops = np.zeros((0 if table is None else table.n, *split.shape), np.int64)
    if table is not None and len(chips):
        number, crop, pixels = _counts(chips["crop_counts"].combine_chunks())
        index = table.lookup(cube.facts)[crop]
        known = index >= 0
        np.add.at(crops, (index[known], rows[number[known]], columns[number[known]]), pixels[known])
    centres = _centres(cube) if parcels and cube.facts.has_labels else np.zeros((0, 3), np.int64)
    return Grid(height=height, width=width, split=split, crops=crops, parcels=centres)


def _sides(length: int) -> NDArray[np.int64]:
    """Length of each cell along one side of the cube, pixels."""
    return np.minimum(CHIP, length - np.arange(0, length, CHIP, dtype=np.int64))


def _counts(maps: pyarrow.MapArray) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Of all entries of a column of maps: number of the row, key and value."""
    offsets = maps.offsets.to_numpy().astype(np.int64)
    number = np.repeat(np.arange(len(maps)), np.diff(offsets))
    entries = slice(offsets[0], offsets[-1])
    return number, *(part.to_numpy(zero_copy_only=False).astype(np.int64)[entries] for part in (maps.keys, maps.items))


def _centres(cube: Cube) -> NDArray[np.int64]:
    """(parcels, 3) of the parcels that won a pixel and whose centroid lies in the cube."""
    height, width = cube.facts.shape
    found = [np.zeros((0, 3), np.int64)]
    for batch in cube.parcel_batches(["n_pixels", "split", "geometry"]):
        table = batch.to_pandas()
        table = table[table["n_pixels"] > 0]
        points = shapely.centroid(shapely.from_wkb(table["geometry"].to_numpy(object)))
        row, column = _pixels(cube.facts, shapely.get_x(points), shapely.get_y(points))
        split = table["split"].map(_WORDS).fillna(0).to_numpy(np.int64)
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        found.append(np.stack([row, column, split], axis=1)[inside])
    return np.concatenate(found)


def _pixels(facts: CubeFacts, x: NDArray[Any], y: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row and column of the pixels that hold these points."""
    a, _, c, _, e, f = facts.transform
    return np.floor((y - f) / e).astype(np.int64), np.floor((x - c) / a).astype(np.int64)
