"""Decoded pixels of cubes: read in rectangles of 64 px chunks, kept as long as they fit into a number of bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sits_catalog.cube import CHIP, NOT_CLEAR, Quality
from sits_models.data.cubes import Cube

__all__ = ["Chunk", "ChunkCache", "Chunks", "ChunksRead", "Rectangle", "read_chunks"]

Chunk = tuple[int, int, int]
"""Number of the cube, and row and column in its grid of 64 px."""


@dataclass(frozen=True)
class Rectangle:
    """Chunks of a cube: rows and columns of the grid of 64 px, the last ones not included."""

    cube: int
    top: int
    bottom: int
    left: int
    right: int

    def holds(self, chunk: Chunk) -> bool:
        """Whether the chunk lies in it."""
        cube, row, column = chunk
        return self.cube == cube and self.top <= row < self.bottom and self.left <= column < self.right

    def chunks(self) -> list[Chunk]:
        """Its chunks, row by row."""
        return [
            (self.cube, row, column) for row in range(self.top, self.bottom) for column in range(self.left, self.right)
        ]


@dataclass(frozen=True, kw_only=True)
class Chunks:
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
class ChunksRead:
    """What of a cube `read_chunks` takes."""

    bands: tuple[int, ...]
    """Positions in the cube."""
    dates: tuple[int, ...] | None
    """Positions in the cube; None: all."""
    labels: int | None
    """1, 2 or 4; None: no labels."""


def read_chunks(cube: Cube, where: Rectangle, what: ChunksRead) -> Chunks:
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
    return Chunks(where=where, image=image, clear=clear, **labels)


def _clear_of(quality: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return np.asarray((quality & np.uint8(Quality.OBSERVED | NOT_CLEAR)) == Quality.OBSERVED)


class ChunkCache:
    """The chunks used last, as many as fit into `limit` bytes, and always the newest; for several threads.

    They are kept in the rectangles in which they were read. A chunk lies in one rectangle alone, since only what is
    missing is read, and what one thread reads the others wait for.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._kept: OrderedDict[Rectangle, Chunks] = OrderedDict()
        self._of_chunk: dict[Chunk, Chunks] = {}
        self._on_the_way: dict[Chunk, Future[Chunks]] = {}
        self.nbytes = 0
        """Bytes that are kept now."""
        self.decoded = 0
        """Chunks that were decoded so far."""

    def fetch(
        self, wanted: Sequence[Chunk], around: Rectangle | None, read: Callable[[Rectangle], Chunks]
    ) -> list[Chunks]:
        """Rectangles that together hold the wanted chunks, after reading those that are missing.

        Where one is missing, what else is missing of `around` is read along with it.
        """
        with self._lock:
            found, waiting, missing = self._look(wanted)
            if missing and around is not None:
                missing |= {chunk for chunk in around.chunks() if not self._is_known(chunk)}
            reads = {rectangle: Future[Chunks]() for rectangle in _cover(missing)}
            for rectangle, future in reads.items():
                self._on_the_way.update(dict.fromkeys(rectangle.chunks(), future))
        # Not under the lock: other threads decode meanwhile. Nobody waits before what it promised is there.
        self._read(reads, read)
        for future in (*reads.values(), *waiting):
            chunks = future.result()
            if any(chunks.where.holds(chunk) for chunk in wanted):  # and not only what came along with it
                found.setdefault(chunks.where, chunks)
        return list(found.values())

    def release(self, where: Rectangle) -> None:
        """Nobody will ask for these chunks soon: they go first when room is needed."""
        with self._lock:
            for held in {
                id(held): held for c in where.chunks() if (held := self._of_chunk.get(c)) is not None
            }.values():
                if all(where.holds(chunk) for chunk in held.where.chunks()):
                    self._kept.move_to_end(held.where, last=False)

    def _look(self, wanted: Sequence[Chunk]) -> tuple[dict[Rectangle, Chunks], set[Future[Chunks]], set[Chunk]]:
        found: dict[Rectangle, Chunks] = {}
        waiting: set[Future[Chunks]] = set()
        missing: set[Chunk] = set()
        for chunk in wanted:
            held = self._of_chunk.get(chunk)
            if held is not None:
                self._kept.move_to_end(held.where)
                found[held.where] = held
            elif chunk in self._on_the_way:
                waiting.add(self._on_the_way[chunk])
            else:
                missing.add(chunk)
        return found, waiting, missing

    def _is_known(self, chunk: Chunk) -> bool:
        return chunk in self._of_chunk or chunk in self._on_the_way

    def _read(self, reads: dict[Rectangle, Future[Chunks]], read: Callable[[Rectangle], Chunks]) -> None:
        for rectangle, future in reads.items():
            try:
                chunks = read(rectangle)
            except BaseException as error:  # noqa: BLE001  # raised by `fetch`, here and where others wait for it
                with self._lock:
                    self._arrived(rectangle)
                future.set_exception(error)
            else:
                with self._lock:
                    self._arrived(rectangle)
                    self._keep(chunks)
                future.set_result(chunks)

    def _arrived(self, rectangle: Rectangle) -> None:
        for chunk in rectangle.chunks():
            del self._on_the_way[chunk]

    def _keep(self, chunks: Chunks) -> None:
        self.decoded += len(chunks.where.chunks())
        self._kept[chunks.where] = chunks
        self.nbytes += chunks.nbytes
        self._of_chunk.update(dict.fromkeys(chunks.where.chunks(), chunks))
        while self.nbytes > self._limit and len(self._kept) > 1:
            _, oldest = self._kept.popitem(last=False)
            self.nbytes -= oldest.nbytes
            for chunk in oldest.where.chunks():
                del self._of_chunk[chunk]


def _cover(chunks: Iterable[Chunk]) -> list[Rectangle]:
    """Few rectangles that hold these chunks and no other: runs of a row, joined where the row below has the same."""
    rectangles: list[Rectangle] = []
    for cube, row, column in sorted(chunks):
        last = rectangles[-1] if rectangles else None
        if last is not None and (last.cube, last.top, last.right) == (cube, row, column):
            rectangles[-1] = Rectangle(cube, row, row + 1, last.left, column + 1)
        else:
            rectangles.append(Rectangle(cube, row, row + 1, column, column + 1))
    joined: dict[tuple[int, int, int, int], Rectangle] = {}
    for run in rectangles:
        above = joined.pop((run.cube, run.top, run.left, run.right), run)
        joined[run.cube, run.bottom, run.left, run.right] = Rectangle(
            run.cube, above.top, run.bottom, run.left, run.right
        )
    return list(joined.values())
