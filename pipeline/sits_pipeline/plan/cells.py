"""The cells of a cube: whole shards, computed and written one at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sits_catalog.cube import shard_side
from sits_pipeline.values import Window

__all__ = ["CellMemory", "cell_memory", "cell_side", "cells_of"]

_MAX_CELL_BYTES = 512 * 2**20
_MAX_SIDE = 1024

_PROCESS_BYTES = 150_000_000
"""A worker with all it imports: 115 to 160 MB."""
_WRITING = 1.2
"""Bytes of compressed shards, all of a cell at once, a value of reflectance; noise of 12 bits takes 1.2."""
_LABEL_BYTES = 11
"""Bytes of the stored label arrays a pixel."""
_FINER_BYTES = 7
"""The same on a finer lattice."""
_DRAWING_BYTES = 150
"""Working memory of rasterization a pixel, with parcels of 0.6 ha everywhere."""
_DRAWN_AT_ONCE = 1 << 20
"""Pixels of a finer lattice that are drawn at once."""
_READING_BYTES, _LAYER_BYTES = 4, 24
"""A scene on its way into its frame: so much a pixel and band, and a pixel."""
_COUNTS_BYTES = 65536 * 8
"""Pixels a DN of one band."""


def cell_side(n_dates: int, n_bands: int, wanted: int) -> int:
    """Side of a cell in pixels: `wanted`, or by default a function of the arrays alone.

    The default is 1024 where that is at most 512 MiB of reflectance, since a source block on the border of two cells
    is decoded twice; else the side of a shard. Raises ValueError for a side that is no multiple of the shard.
    """
    shard = shard_side(n_dates, n_bands)
    if wanted:
        if wanted < 0 or wanted % shard:
            raise ValueError(f"a cell is made of whole shards of {shard} px; {wanted} px is no multiple of it")
        return wanted
    side = _MAX_SIDE
    while side > shard and n_dates * n_bands * side * side * 2 > _MAX_CELL_BYTES:
        side //= 2
    return side


@dataclass(frozen=True)
class CellMemory:
    """What computing and writing a cell takes, in bytes."""

    first: int
    """A process with one cell that is read by one thread."""
    further: int
    """Each further thread that reads dates of it."""
    shard: int | None = None
    """The same as `first` for one shard of it after another; None: it is not made smaller."""
    name: str = "a cell"
    """Of one that is as large as any."""

    @property
    def least(self) -> int:
        """What it needs in any case."""
        return self.first if self.shard is None else min(self.first, self.shard)


def cell_memory(n_dates: int, n_bands: int, n_pixels: int, *, labels: bool, finer: Sequence[int]) -> CellMemory:
    """Bound on the memory of a cell of `n_pixels`, with or without labels on the 10 m and on `finer` lattices.

    Resident memory of a process, measured with scenes of noise, which compress worst, two of them a date, and with
    parcels of 0.6 ha everywhere; the bound beside it:

    dates x bands, side, labels at   threads   measured, MB   bound, MB
    1 x 1, 1020, none                1         150            186
    2 x 2, 1020, 10 m                1         267            371
    2 x 2, 510, 10, 5 and 2.5 m      2         329            400
    2 x 2, 1020, 10, 5 and 2.5 m     1         557            635
    6 x 4, 2040, 10 m                2         1105           1552
    16 x 10, 1020, none              8         781            1307
    24 x 10, 1020, none              1         920            1096
    24 x 10, 1020, 10, 5 and 2.5 m   2         1219           1599
    73 x 10, 510, none               2         727            858
    120 x 10, 252, 10 m              2         428            446
    """
    thread = (_READING_BYTES * n_bands + _LAYER_BYTES) * n_pixels + n_bands * _COUNTS_BYTES
    images = n_dates * ((2 + _WRITING) * n_bands + 3) * n_pixels
    drawn = 0
    if labels:
        stored = _LABEL_BYTES + _FINER_BYTES * sum(factor**2 for factor in finer)
        drawn = stored * n_pixels + max(_drawing_bytes(n_pixels, factor) for factor in (1, *finer))
    return CellMemory(first=int(_PROCESS_BYTES + images + thread + drawn), further=thread)


def _drawing_bytes(n_pixels: int, factor: int) -> int:
    if factor == 1:
        return _DRAWING_BYTES * n_pixels
    # Drawn band by band; the bands are then joined, which takes them twice.
    return _DRAWING_BYTES * min(factor**2 * n_pixels, _DRAWN_AT_ONCE) + _FINER_BYTES * factor**2 * n_pixels


def cells_of(shape: tuple[int, int], side: int) -> Iterator[Window]:
    """Cells of a cube of `shape` (height, width), row by row from the upper left; those at the edge are cut."""
    height, width = shape
    for row in range(0, height, side):
        for column in range(0, width, side):
            yield Window(row=row, column=column, height=min(side, height - row), width=min(side, width - column))
