"""What the train pixels of cubes hold: mean and deviation of each band, labels of each class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from sits_catalog.cube import CHIP, Split
from sits_models.data.classes import ClassTable
from sits_models.data.cubes import Cube
from sits_models.data.grid import Grid

__all__ = ["count_by_cell", "count_labels", "pool_statistics"]


def pool_statistics(
    cubes: Sequence[Cube], grids: Sequence[Grid], bands: Sequence[str]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation a band, in stored units, as if the clear train pixels of all cubes were one set.

    A cube counts by the pixels its statistics are of (`n`), or by the area of its train cells where it does not say.
    ValueError names a band that no cube has statistics of.
    """
    pooled = [_pool(cubes, grids, band) for band in bands]
    return tuple(mean for mean, _ in pooled), tuple(std for _, std in pooled)


def _pool(cubes: Sequence[Cube], grids: Sequence[Grid], band: str) -> tuple[float, float]:
    total = first = second = 0.0
    for cube, grid in zip(cubes, grids, strict=True):
        row = (cube.facts.statistics or {}).get(band)
        if row is None or row.get("mean") is None or row.get("std") is None:
            continue
        weight = float(row.get("n") or grid.area(Split.TRAIN))
        mean, std = (float(row[key] or 0) / float(str(cube.facts.radiometry["scale"])) for key in ("mean", "std"))
        total += weight
        first += weight * mean
        second += weight * (std**2 + mean**2)
    if total == 0:
        paths = ", ".join(cube.facts.path for cube in cubes)
        raise ValueError(f"no clear train pixels of {band} in {paths}; use data.normalize=reflectance, or other cubes")
    mean = first / total
    # A band that is the same everywhere would divide by nothing.
    return mean, max(second / total - mean**2, 0.0) ** 0.5 or 1.0


def count_labels(
    cube: Cube, grid: Grid, table: ClassTable, *, split: Split, labels: int, known: NDArray[np.bool_] | None = None
) -> NDArray[np.int64]:
    """(K,): pixels of each class whose own `split` this is, in its grid chips; `labels` times finer, shard by shard.

    Of the parcels that are `known`, by id, alone; None: all, and of ground without a parcel.
    """
    total = np.zeros(table.n, np.int64)
    for _, index in _shards(cube, grid, table, split=split, labels=labels, known=known):
        total += np.bincount(index[index >= 0], minlength=table.n)
    return total


def count_by_cell(cube: Cube, grid: Grid, table: ClassTable, *, split: Split, labels: int) -> NDArray[np.int64]:
    """(K, rows, columns): as `count_labels`, in each grid chip."""
    total = np.zeros((table.n, *grid.split.shape), np.int64)
    side = CHIP * labels
    for (top, left), index in _shards(cube, grid, table, split=split, labels=labels, known=None):
        for row in range(-(-index.shape[0] // side)):
            for column in range(-(-index.shape[1] // side)):
                here = index[row * side : (row + 1) * side, column * side : (column + 1) * side]
                total[:, top + row, left + column] = np.bincount(here[here >= 0], minlength=table.n)
    return total


def _shards(
    cube: Cube, grid: Grid, table: ClassTable, *, split: Split, labels: int, known: NDArray[np.bool_] | None
) -> Iterator[tuple[tuple[int, int], NDArray[np.int64]]]:
    """Of each shard with grid chips of the split its first one, and the classes of its pixels, (y, x), below 0 where
    none counts."""
    if not cube.facts.has_labels:
        return
    lookup, side = table.lookup(cube.facts), -(-cube.facts.shard_px // CHIP)
    group = "" if labels == 1 else f"labels_x{labels}/"
    for top in range(0, grid.split.shape[0], side):
        for left in range(0, grid.split.shape[1], side):
            cells = grid.split[top : top + side, left : left + side] == split
            # No pixel of a split lies in the blocks of another one.
            if not cells.any():
                continue
            rows = slice(top * CHIP, min((top + side) * CHIP, grid.height))
            columns = slice(left * CHIP, min((left + side) * CHIP, grid.width))
            ours = cube.read("split", rows, columns) == split
            ours &= cells.repeat(CHIP, axis=0).repeat(CHIP, axis=1)[: ours.shape[0], : ours.shape[1]]
            if labels > 1:
                rows, columns = (slice(labels * part.start, labels * part.stop) for part in (rows, columns))
                ours = ours.repeat(labels, axis=0).repeat(labels, axis=1)
            if known is not None:
                ours &= known[cube.read(f"{group}parcel_id", rows, columns)]
            index = lookup[cube.read(f"{group}crop_type", rows, columns)]
            index[~ours] = -1
            yield (top, left), index
