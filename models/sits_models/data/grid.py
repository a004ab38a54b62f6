"""The cells of a cube's chip grid: to which split each belongs, and what grows in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from sits_catalog.cube import CHIP, Split
from sits_models.data.classes import ClassTable
from sits_models.data.cubes import Cube, CubeFacts

__all__ = ["Grid", "read_grid"]

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
    """(classes, rows, columns): pixels of each class of the model in a cell."""
    parcels: NDArray[np.int64]
    """(parcels, 3): row and column of the pixel at the centroid, and the split."""

    def area(self, split: Split) -> int:
        """Pixels in the cells of a split."""
        rows, columns = _sides(self.height), _sides(self.width)
        return int(np.where(self.split == split, rows[:, None] * columns[None, :], 0).sum())


def read_grid(cube: Cube, table: ClassTable | None, *, parcels: bool) -> Grid:
    """The grid of a cube, from `chips.parquet` and, where asked for, `parcels.parquet`.

    ValueError where the cube has no splits.
    """
    chips = cube.chips(["kind", "row", "col", "split", "crop_counts"])
    chips = chips[chips["kind"] == "grid"]
    if chips["split"].isna().all():
        raise ValueError(f"{cube.facts.path} has no splits; make them with sits-cube split")
    height, width = cube.facts.shape
    shape = (-(-height // CHIP), -(-width // CHIP))
    rows, columns = (chips[name].to_numpy(np.int64) // CHIP for name in ("row", "col"))
    split = np.zeros(shape, np.uint8)
    split[rows, columns] = [_WORDS.get(word, 0) for word in chips["split"]]
    crops = np.zeros((0 if table is None else table.n, *shape), np.int64)
    if table is not None:
        lookup = table.lookup(cube.facts).tolist()
        for row, column, counts in zip(rows.tolist(), columns.tolist(), chips["crop_counts"], strict=True):
            for crop, pixels in _pairs(counts):
                if lookup[crop] >= 0:
                    crops[lookup[crop], row, column] += pixels
    centres = _centres(cube) if parcels and cube.facts.has_labels else np.zeros((0, 3), np.int64)
    return Grid(height=height, width=width, split=split, crops=crops, parcels=centres)


def _sides(length: int) -> NDArray[np.int64]:
    """Length of each cell along one side of the cube, pixels."""
    return np.minimum(CHIP, length - np.arange(0, length, CHIP, dtype=np.int64))


def _pairs(counts: Any) -> list[tuple[int, int]]:
    """Entries of a map of Parquet, which comes as pairs or, from some readers, as a mapping; None is empty."""
    if counts is None:
        return []
    return [(int(crop), int(pixels)) for crop, pixels in (counts.items() if isinstance(counts, dict) else counts)]


def _centres(cube: Cube) -> NDArray[np.int64]:
    """(parcels, 3) of the parcels that won a pixel and whose centroid lies in the cube."""
    table = cube.parcels(["n_pixels", "split", "geometry"])
    table = table[table["n_pixels"] > 0]
    points = shapely.centroid(shapely.from_wkb(table["geometry"].to_numpy(object)))
    row, column = _pixels(cube.facts, shapely.get_x(points), shapely.get_y(points))
    split = np.array([_WORDS.get(word, 0) for word in table["split"]], np.int64)
    found = np.stack([row, column, split], axis=1).reshape(-1, 3)
    height, width = cube.facts.shape
    return found[(row >= 0) & (row < height) & (column >= 0) & (column < width)]


def _pixels(facts: CubeFacts, x: NDArray[Any], y: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row and column of the pixels that hold these points."""
    a, _, c, _, e, f = facts.transform
    return np.floor((y - f) / e).astype(np.int64), np.floor((x - c) / a).astype(np.int64)
