"""The cells of a cube: whole shards, computed and written one at a time."""

from __future__ import annotations

from collections.abc import Iterator

from sits_catalog.cube import shard_side
from sits_pipeline.values import Window

__all__ = ["cell_bytes", "cell_side", "cells_of"]

_MAX_CELL_BYTES = 512 * 2**20
_MAX_SIDE = 1024
_WORKING_FACTOR = 2.5
"""Memory to compute and write a cell over its raw bytes, measured."""


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


def cell_bytes(n_dates: int, n_bands: int, side: int) -> int:
    """Working memory of one cell, bytes."""
    raw = n_dates * (n_bands * 2 + 3) * side * side
    return int(raw * _WORKING_FACTOR) + 200_000_000


def cells_of(shape: tuple[int, int], side: int) -> Iterator[Window]:
    """Cells of a cube of `shape` (height, width), row by row from the upper left; those at the edge are cut."""
    height, width = shape
    for row in range(0, height, side):
        for column in range(0, width, side):
            yield Window(row=row, column=column, height=min(side, height - row), width=min(side, width - column))
