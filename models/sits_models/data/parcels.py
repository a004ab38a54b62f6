"""A pixel in the middle of each parcel, and the chips around them: what a model of one class a parcel is shown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sits_catalog.cube import CHIP, IGNORE, Split
from sits_models.data.classes import ClassTable
from sits_models.data.cubes import Cube
from sits_models.data.grid import Grid
from sits_models.data.sampling import EpochPlan, middle_of, together

__all__ = [
    "RECORD",
    "SIDE",
    "Middles",
    "find_middles",
    "known_parcels",
    "largest_parcel",
    "measure_parcels",
    "plan_parcels",
    "with_middles",
]

SIDE = 8 * CHIP
"""Side of the squares of labels that are read at a time, pixels: a shard or so."""

RECORD = np.dtype(
    [
        ("pixels", "<i8"),
        ("row_sum", "<i8"),
        ("column_sum", "<i8"),
        ("distance", "<f8"),
        ("row", "<i4"),
        ("column", "<i4"),
        ("crop", "<u2"),
    ]
)
"""What `measure_parcels` fills in of each parcel id."""


@dataclass(frozen=True, kw_only=True)
class Middles:
    """Of N parcels of a cube, by ascending id, the pixel of the parcel that lies nearest to the mean of its pixels.

    The centroid of a parcel may lie outside of it, or in a pixel that another parcel won; this pixel is its own.
    """

    parcel: NDArray[np.int64]
    """(N,): row key of the cube's parcels."""
    row: NDArray[np.int64]
    column: NDArray[np.int64]
    crop: NDArray[np.int64]
    """(N,): its label there, as the cube has it."""

    def __len__(self) -> int:
        return len(self.parcel)

    def where(self, kept: NDArray[np.bool_]) -> Middles:
        """Some of them."""
        return Middles(parcel=self.parcel[kept], row=self.row[kept], column=self.column[kept], crop=self.crop[kept])


def find_middles(cube: Cube, grid: Grid, *, split: Split) -> Middles:
    """Those of all parcels with a labelled pixel in the split; of a parcel the pixels that are counted are those.

    The labels of the split's grid chips are passed over twice; memory grows with the parcels, 42 bytes each. None where
    the cube has no labels.
    """
    table = np.zeros(largest_parcel(cube) + 1 if cube.facts.has_labels else 0, RECORD)
    if len(table):
        measure_parcels(cube, table, cells=grid.split == split, split=split)
    found = np.flatnonzero(table["pixels"])
    return Middles(
        parcel=found,
        row=table["row"][found].astype(np.int64),
        column=table["column"][found].astype(np.int64),
        crop=table["crop"][found].astype(np.int64),
    )


def largest_parcel(cube: Cube) -> int:
    """The largest parcel id of the cube's table, 0 where it has no row; ValueError where there is no table."""
    try:
        batches = [batch.column("parcel_id").to_numpy() for batch in cube.parcel_batches(["parcel_id"])]
    except FileNotFoundError as error:
        raise ValueError(
            f"{cube.facts.path} has no parcels.parquet; give a cube that was built with parcels"
        ) from error
    return max((int(ids.max(initial=0)) for ids in batches), default=0)


def measure_parcels(cube: Cube, table: NDArray[Any], *, cells: NDArray[np.bool_] | None, split: Split | None) -> None:
    """Fill in a table of zeros with a `RECORD` for each parcel id, which may lie in a file.

    With a `split`, labelled pixels of it that lie in its grid chips, `cells`, are counted alone; without one, every
    pixel of a parcel. Of pixels as near to the mean the first one is taken, row by row. ValueError where a pixel is of
    a parcel that the table lacks.
    """
    for pixels in _squares(cube, cells, split):
        key, number = np.unique(pixels.parcel, return_inverse=True)
        if key[-1] >= len(table):
            raise ValueError(
                f"a pixel of {cube.facts.path} is of parcel {key[-1]}, and parcels.parquet ends with "
                f"{len(table) - 1}; build the cube again"
            )
        # Sums of float64 are exact below 2^53.
        table["pixels"][key] += np.bincount(number)
        table["row_sum"][key] += np.bincount(number, weights=pixels.row).astype(np.int64)
        table["column_sum"][key] += np.bincount(number, weights=pixels.column).astype(np.int64)
    table["distance"] = np.inf
    for pixels in _squares(cube, cells, split):
        here = table[pixels.parcel]
        away = [
            pixels.row - here["row_sum"] / here["pixels"],
            pixels.column - here["column_sum"] / here["pixels"],
        ]
        _keep_nearest(table, pixels, away[0] ** 2 + away[1] ** 2)


@dataclass(frozen=True)
class _Pixels:
    """The pixels of parcels in a square, (n,) each."""

    parcel: NDArray[np.int64]
    row: NDArray[np.int64]
    column: NDArray[np.int64]
    crop: NDArray[np.uint16]


def _squares(cube: Cube, cells: NDArray[np.bool_] | None, split: Split | None) -> Iterator[_Pixels]:
    """All squares with a pixel that counts, row by row."""
    height, width = cube.facts.shape
    step = SIDE // CHIP
    for top in range(0, height, SIDE):
        for left in range(0, width, SIDE):
            part = None if cells is None else cells[top // CHIP :, left // CHIP :][:step, :step]
            if part is not None and not part.any():
                continue
            rows, columns = slice(top, min(top + SIDE, height)), slice(left, min(left + SIDE, width))
            parcel, crop = cube.read("parcel_id", rows, columns), cube.read("crop_type", rows, columns)
            kept = parcel > 0
            if split is not None:
                kept &= (crop != IGNORE) & (cube.read("split", rows, columns) == split)
            if part is not None:
                kept &= part.repeat(CHIP, 0).repeat(CHIP, 1)[: kept.shape[0], : kept.shape[1]]
            row, column = np.nonzero(kept)
            if len(row):
                yield _Pixels(parcel[kept].astype(np.int64), row + top, column + left, crop[kept])


def _keep_nearest(table: NDArray[Any], pixels: _Pixels, distance: NDArray[np.float64]) -> None:
    order = np.lexsort((pixels.column, pixels.row, distance, pixels.parcel))
    parcel, first = np.unique(pixels.parcel[order], return_index=True)
    nearest = order[first]
    known = table[parcel]
    row, column, away = pixels.row[nearest], pixels.column[nearest], distance[nearest]
    earlier = (row < known["row"]) | ((row == known["row"]) & (column < known["column"]))
    better = (away < known["distance"]) | ((away == known["distance"]) & earlier)
    for name, values in (("distance", away), ("row", row), ("column", column), ("crop", pixels.crop[nearest])):
        table[name][parcel[better]] = values[better]


# Chips around them


def with_middles(grid: Grid, middles: Middles, *, split: Split) -> Grid:
    """The grid whose parcels are these ones of the split, at their middles and in their order."""
    return replace(grid, parcels=np.stack([middles.row, middles.column, np.full(len(middles), int(split))], axis=1))


def plan_parcels(
    middles: Sequence[Middles], *, size: int, batch: int, split: Split, cells: Sequence[NDArray[np.bool_]] | None
) -> EpochPlan:
    """A chip of `size` px for each of these parcels, a `Middles` a cube, with its pixel in the middle.

    Of the labels that pixel's alone is shown; of the ground that of the grid chips `cells`, all of it where they are
    None. Chips that lie together are read together.
    """
    places = [np.stack([np.full(len(one), number), one.row, one.column], axis=1) for number, one in enumerate(middles)]
    every = np.concatenate([np.zeros((0, 3), np.int64), *places])
    every = every[together(every)]
    return EpochPlan(
        batch=batch,
        size=size,
        split=split,
        places=every - np.array([0, size // 2, size // 2]),
        seeds=None,
        around=None,
        last=None,
        keep=middle_of(size, len(every)),
        cells=None if cells is None else tuple(cells),
    )


def known_parcels(middles: Sequence[Middles], cubes: Sequence[Cube], table: ClassTable) -> tuple[Middles, ...]:
    """Those whose class is in the table."""
    return tuple(one.where(table.lookup(cube.facts)[one.crop] >= 0) for one, cube in zip(middles, cubes, strict=True))
