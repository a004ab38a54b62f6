"""How a map of any size is cut into cells and tiles, and put together again from the logits of the tiles.

A cell is what is computed, written and taken up again alone. Its tiles depend on the shape of the cube and on the
model, never on other cells, so that cells in any order give the same map. There are two ways:

- A model with a known reach sees a cell in tiles with a halo of at least that reach, which is cut off again. Tiles
  begin at multiples of what the model's pooling needs, counted from the cube's corner: the result is that of the whole
  cube at once.
- A model with an operation over the whole chip gives other values in a tile that lies elsewhere. It sees tiles of the
  one size it is used to, every half of a side, and their logits are blended with smooth weights. The tiles lie on one
  lattice of the whole cube; those across the border of two cells are computed for both of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["CELL", "Cell", "Mosaic", "Tile", "Tiling", "blend_weights", "plan_tiling"]

CELL = 512
"""Side of a cell in pixels of 10 m, where its logits fit."""
_TILES_A_CELL = 8
"""Where tiles are blended, a cell has so many of their sides: (1 + 1/16)^2 - 1 = 13 % are computed twice."""
_LOGITS_BYTES = 2**29
"""What the logits of a cell may take; a cell is smaller where many classes or finer labels would need more."""
_STEP = 256
"""Sides of cells are multiples of this, so that they are whole chunks of the map's arrays."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A rectangle of the cube, pixels of 10 m."""

    number: int
    """Row by row from 0."""
    row: int
    column: int
    height: int
    width: int

    @property
    def rows(self) -> slice:
        """Rows as a slice of the cube."""
        return slice(self.row, self.row + self.height)

    @property
    def columns(self) -> slice:
        """Columns as a slice of the cube."""
        return slice(self.column, self.column + self.width)


@dataclass(frozen=True, kw_only=True)
class Tile:
    """The upper-left pixel of a square that the model sees; it may lie outside of the cube."""

    row: int
    column: int


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """How a cube is cut."""

    shape: tuple[int, int]
    """Height and width of the cube, pixels of 10 m."""
    cell: int
    """Side of a cell, pixels."""
    tile: int
    """Side of what the model sees, halo included, pixels."""
    stride: int
    """Pixels from a tile to the next."""
    halo: int | None
    """Pixels cut off on each side of a tile; None: tiles are blended."""

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of cells."""
        height, width = self.shape
        return -(-height // self.cell), -(-width // self.cell)

    def cells(self) -> tuple[Cell, ...]:
        """All cells, row by row."""
        rows, columns = self.grid
        return tuple(self._cell(row, column) for row in range(rows) for column in range(columns))

    def tiles(self, cell: Cell) -> tuple[Tile, ...]:
        """The tiles that a cell needs, row by row."""
        rows = self._starts(cell.row, cell.height, self.shape[0])
        columns = self._starts(cell.column, cell.width, self.shape[1])
        return tuple(Tile(row=row, column=column) for row in rows for column in columns)

    def _cell(self, row: int, column: int) -> Cell:
        top, left = row * self.cell, column * self.cell
        height, width = self.shape
        return Cell(
            number=row * self.grid[1] + column,
            row=top,
            column=left,
            height=min(self.cell, height - top),
            width=min(self.cell, width - left),
        )

    def _starts(self, first: int, length: int, size: int) -> list[int]:
        """Where tiles begin that the pixels `first` to `first + length` of an axis of `size` pixels need."""
        if self.halo is not None:
            return [start - self.halo for start in range(first, first + length, self.stride)]
        # The last one is moved to end with the cube: a tile that is half empty is none the model has seen.
        last = max(0, size - self.tile)
        starts = [*range(0, last, self.stride), last]
        return [start for start in starts if start < first + length and start + self.tile > first]


def plan_tiling(
    shape: tuple[int, int],
    *,
    reach: int | None,
    tile_size: int | None,
    multiple: int,
    min_size: int,
    max_pixels: int,
    tile: int | None,
    pixel_bytes: int,
) -> Tiling:
    """The tiling of a cube of (height, width) pixels.

    `reach`: pixels on each side that an output depends on, None for the whole chip; `tile_size`: the side at which
    such a model is applied; `multiple` and `min_size`: what sides the model takes; `max_pixels`: how many pixels of a
    tile fit into memory, as far as the model leaves a choice; `tile`: a side that was asked for; `pixel_bytes`: what
    the logits of a pixel of the cube take. Raises ValueError where the model cannot take that.
    """
    step = math.lcm(multiple, _STEP)
    if reach is None:
        side = tile if tile is not None else tile_size or 64
        _check_side(side, multiple, max(min_size, 2))
        cell = _cell_side(max(CELL, _TILES_A_CELL * side), step, pixel_bytes)
        return Tiling(shape=shape, cell=cell, tile=side, stride=side // 2, halo=None)
    halo = _rounded_up(reach, multiple)
    cell = _cell_side(CELL, step, pixel_bytes)
    if tile is None:
        inner = _inner_side(min(cell, _rounded_up(max(shape), multiple)), halo, multiple, max_pixels)
        inner = max(inner, _rounded_up(min_size - 2 * halo, multiple))
    else:
        _check_side(tile, multiple, max(min_size, 2 * halo + multiple))
        inner = tile - 2 * halo
    return Tiling(shape=shape, cell=cell, tile=inner + 2 * halo, stride=inner, halo=halo)


def _cell_side(wanted: int, step: int, pixel_bytes: int) -> int:
    """The side that was wanted, or the largest below it whose logits fit, a multiple of `step` and at least that."""
    largest = math.isqrt(_LOGITS_BYTES // pixel_bytes) // step * step
    return max(step, min(_rounded_up(wanted, step), largest))


def _check_side(side: int, multiple: int, least: int) -> None:
    if side % multiple or side < least:
        raise ValueError(
            f"this model takes tiles of at least {_rounded_up(least, multiple)} px whose sides are multiples of "
            f"{multiple}; got --tile {side}"
        )


def _inner_side(cell: int, halo: int, multiple: int, max_pixels: int) -> int:
    """The largest even share of a cell that fits with its halo; `multiple` where none does."""
    for parts in range(1, cell // multiple + 1):
        inner = _rounded_up(-(-cell // parts), multiple)
        if (inner + 2 * halo) ** 2 <= max_pixels:
            return inner
    return multiple


def _rounded_up(value: int, multiple: int) -> int:
    return max(0, -(-value // multiple) * multiple)


def blend_weights(size: int) -> Tensor:
    """Weight of each of the `size` pixels across a tile: sin^4, positive everywhere.

    It begins without a step, and trusts the middle of a tile, which has all its neighbours, more than sin^2 does.

    >>> [round(float(weight), 3) for weight in blend_weights(4)]
    [0.021, 0.729, 0.729, 0.021]
    """
    centres = (torch.arange(size, dtype=torch.float64) + 0.5) / size
    return torch.sin(torch.pi * centres) ** 4


class Mosaic:
    """The logits of a cell, put together from those of its tiles; the order of the tiles decides the last bit."""

    def __init__(
        self, tiling: Tiling, cell: Cell, *, classes: int, magnification: int, device: torch.device | str = "cpu"
    ) -> None:
        self._tiling, self._cell, self._m = tiling, cell, magnification
        m = magnification
        self._logits = torch.zeros((classes, m * cell.height, m * cell.width), device=device)
        self._weights = blend_weights(m * tiling.tile).to(device, torch.float32)

    def add(self, tile: Tile, logits: Tensor) -> None:
        """Put in the logits of a tile, (classes, m tile, m tile)."""
        rows = self._overlap(tile.row, self._cell.row, self._cell.height)
        columns = self._overlap(tile.column, self._cell.column, self._cell.width)
        place = (slice(None), rows[0], columns[0])
        part = logits[:, rows[1], columns[1]].to(self._logits.dtype)
        if self._tiling.halo is not None:
            self._logits[place] = part
        else:
            self._logits[place] += part * self._weights[rows[1], None] * self._weights[columns[1]]

    def logits(self) -> Tensor:
        """(classes, m height, m width), once all tiles of the cell are in."""
        if self._tiling.halo is None:
            tiles = self._tiling.tiles(self._cell)
            rows = self._sum({tile.row for tile in tiles}, self._cell.row, self._cell.height)
            columns = self._sum({tile.column for tile in tiles}, self._cell.column, self._cell.width)
            self._logits /= rows[:, None]
            self._logits /= columns
        return self._logits

    def _overlap(self, tile: int, cell: int, length: int) -> tuple[slice, slice]:
        """The pixels that a tile gives along an axis, counted in the cell and in the tile."""
        cut, m = self._tiling.halo or 0, self._m
        first = max(tile + cut, cell)
        last = min(tile + self._tiling.tile - cut, cell + length)
        return slice(m * (first - cell), m * (last - cell)), slice(m * (first - tile), m * (last - tile))

    def _sum(self, starts: Sequence[int] | set[int], cell: int, length: int) -> Tensor:
        """Sum of the weights of all tiles at each pixel along an axis; that of the plane is the product of two."""
        total = torch.zeros(self._m * length, dtype=self._weights.dtype, device=self._weights.device)
        for start in sorted(starts):
            here, there = self._overlap(start, cell, length)
            total[here] += self._weights[there]
        return total
