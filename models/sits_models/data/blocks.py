"""Decoded pixels of cubes: read in rectangles of 64 px blocks, kept as long as they fit into a number of bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sits_catalog.cube import CHIP, NOT_CLEAR, Quality
from sits_models.data.cubes import Cube

__all__ = ["BlockCache", "Blocks", "BlocksRead", "Rectangle", "read_blocks"]


@dataclass(frozen=True)
class Rectangle:
    """Blocks of a cube: rows and columns of the grid of 64 px, the last ones not included."""

    cube: int
    top: int
    bottom: int
    left: int
    right: int

    def holds(self, other: Rectangle) -> bool:
        """Whether the other lies in this one."""
        return (
            self.cube == other.cube
            and self.top <= other.top
            and self.bottom >= other.bottom
            and self.left <= other.left
            and self.right >= other.right
        )

    def blocks(self) -> list[Rectangle]:
        """Its blocks, one rectangle each."""
        return [
            Rectangle(self.cube, row, row + 1, column, column + 1)
            for row in range(self.top, self.bottom)
            for column in range(self.left, self.right)
        ]


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """Pixels of a rectangle, cut at the cube's edge; labels are m times finer."""

    where: Rectangle
    image: NDArray[np.uint16]
    """(time, band, y, x), the bands and, where the rule of dates is fixed, the dates that are asked for."""
    clear: NDArray[np.bool_]
    """(time, y, x)"""
    crop: NDArray[np.uint16] | None
    parcel: NDArray[np.uint32] | None
    boundary: NDArray[np.int16] | None
    """(y, x), not finer."""
    split: NDArray[np.uint8] | None
    """(y, x), not finer."""

    @property
    def nbytes(self) -> int:
        """Bytes it holds."""
        arrays = (self.image, self.clear, self.crop, self.parcel, self.boundary, self.split)
        return sum(array.nbytes for array in arrays if array is not None)


@dataclass(frozen=True, kw_only=True)
class BlocksRead:
    """What of a cube `read_blocks` takes."""

    bands: tuple[int, ...]
    """Positions in the cube."""
    dates: tuple[int, ...] | None
    """Positions in the cube; None: all."""
    labels: int | None
    """1, 2 or 4; None: no labels."""


def read_blocks(cube: Cube, where: Rectangle, what: BlocksRead) -> Blocks:
    """Decode a rectangle, one call an array."""
    height, width = cube.facts.shape
    rows = slice(where.top * CHIP, min(where.bottom * CHIP, height))
    columns = slice(where.left * CHIP, min(where.right * CHIP, width))
    image = cube.read("reflectance", rows, columns, dates=what.dates)
    if what.bands != tuple(range(image.shape[1])):
        image = np.ascontiguousarray(image[:, list(what.bands)])
    clear = _clear_of(cube.read("quality", rows, columns, dates=what.dates))
    labels: dict[str, NDArray[Any] | None] = dict.fromkeys(("crop", "parcel", "boundary", "split"))
    if what.labels is not None:
        m = what.labels
        finer = slice(m * rows.start, m * rows.stop), slice(m * columns.start, m * columns.stop)
        group = "" if m == 1 else f"labels_x{m}/"
        labels["crop"] = cube.read(f"{group}crop_type", *finer)
        labels["parcel"] = cube.read(f"{group}parcel_id", *finer)
        labels["boundary"] = cube.read("boundary_distance", rows, columns)
        labels["split"] = cube.read("split", rows, columns)
    return Blocks(where=where, image=image, clear=clear, **labels)


def _clear_of(quality: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return np.asarray((quality & np.uint8(Quality.OBSERVED | NOT_CLEAR)) == Quality.OBSERVED)


class BlockCache:
    """The rectangles used last, as many as fit into `limit` bytes, and always the newest; for several threads."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._kept: OrderedDict[Rectangle, Blocks] = OrderedDict()
        self._of_block: dict[Rectangle, Blocks] = {}
        self.nbytes = 0
        """Bytes that are kept now."""
        self.decoded = 0
        """Blocks that were decoded so far."""

    def find(self, wanted: Rectangle) -> list[Blocks] | None:
        """Kept rectangles that together hold the wanted one, in the order of its blocks; None where one is missing."""
        with self._lock:
            found: list[Blocks] = []
            for block in wanted.blocks():
                held = self._of_block.get(block)
                if held is None:
                    return None
                self._kept.move_to_end(held.where)
                if held.where.holds(wanted):
                    return [held]
                found.append(held)
            return found

    def fetch(self, wanted: Rectangle, around: Rectangle, read: Callable[[Rectangle], Blocks]) -> list[Blocks]:
        """`find`, after reading `around` where something is missing (or `wanted`, where `around` does not hold it)."""
        found = self.find(wanted)
        if found is not None:
            return found
        # Not under the lock: other threads decode meanwhile.
        blocks = read(around if around.holds(wanted) else wanted)
        self._keep(blocks)
        return [blocks]

    def release(self, where: Rectangle) -> None:
        """Nobody will ask for this rectangle soon: it goes first when room is needed."""
        with self._lock:
            if where in self._kept:
                self._kept.move_to_end(where, last=False)

    def _keep(self, blocks: Blocks) -> None:
        with self._lock:
            self.decoded += len(blocks.where.blocks())
            self._drop(self._kept.pop(blocks.where, None))
            self._kept[blocks.where] = blocks
            self.nbytes += blocks.nbytes
            for block in blocks.where.blocks():
                self._of_block[block] = blocks
            while self.nbytes > self._limit and len(self._kept) > 1:
                self._drop(self._kept.popitem(last=False)[1])

    def _drop(self, blocks: Blocks | None) -> None:
        if blocks is None:
            return
        self.nbytes -= blocks.nbytes
        for block in blocks.where.blocks():
            if self._of_block.get(block) is blocks:
                del self._of_block[block]
