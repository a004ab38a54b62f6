"""GDAL's own rules for the pixels of a polygon: `center` and `all_touched`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray

from sits_pipeline.steps.rasterize.lattice import Lattice

__all__ = ["burn"]

_TILE = 256
"""Side of the squares, fixed on the lattice, that are drawn one by one. GDAL computes in numbers counted from the
corner of the raster; only one that does not move with the window keeps ties (a centre on an edge) where they are."""
_MARGIN = 2
"""Pixels drawn around a square and dropped: at the edge of a raster GDAL leaves out polygons that touch it from
outside, whose border it would burn anywhere else."""


def burn(geometry: NDArray[np.object_], lattice: Lattice, *, all_touched: bool) -> NDArray[np.intp]:
    """Position of the last geometry drawn on each pixel by rasterio.features.rasterize, (pixel,); -1 where none is."""
    drawn = np.zeros((lattice.height, lattice.width), np.int32)
    bounds = shapely.bounds(geometry).reshape(-1, 4)
    shapes = [shapely.geometry.mapping(polygon) for polygon in geometry]
    for tile in _tiles(lattice):
        west, south, east, north = tile.bounds
        near = (bounds[:, 0] <= east) & (bounds[:, 2] >= west) & (bounds[:, 1] <= north) & (bounds[:, 3] >= south)
        numbered = [(shapes[position], position + 1) for position in np.flatnonzero(near).tolist()]
        if numbered:
            _copy(_burn_tile(numbered, tile, all_touched=all_touched), tile, drawn, lattice)
    return drawn.ravel().astype(np.intp) - 1


def _tiles(lattice: Lattice) -> Iterator[Lattice]:
    """Every tile that meets the window, margin included."""
    side = _TILE + 2 * _MARGIN
    rows = range(lattice.row // _TILE * _TILE, lattice.row + lattice.height, _TILE)
    columns = range(lattice.column // _TILE * _TILE, lattice.column + lattice.width, _TILE)
    for row, column in product(rows, columns):
        yield dataclasses.replace(lattice, row=row - _MARGIN, column=column - _MARGIN, height=side, width=side)


def _burn_tile(numbered: Sequence[tuple[object, int]], tile: Lattice, *, all_touched: bool) -> NDArray[np.int32]:
    from rasterio.features import rasterize

    west, _, _, north = tile.bounds
    burnt: NDArray[np.int32] = rasterize(
        numbered,
        out_shape=(tile.height, tile.width),
        transform=Affine(tile.step_x, 0, west, 0, -tile.step_y, north),
        all_touched=all_touched,
        dtype=np.int32,
    )
    return burnt


def _copy(burnt: NDArray[np.int32], tile: Lattice, out: NDArray[np.int32], window: Lattice) -> None:
    """Copy a tile without its margin into the part of the window it meets."""
    top, left = max(tile.row + _MARGIN, window.row), max(tile.column + _MARGIN, window.column)
    bottom = min(tile.row + _MARGIN + _TILE, window.row + window.height)
    right = min(tile.column + _MARGIN + _TILE, window.column + window.width)
    part = burnt[top - tile.row : bottom - tile.row, left - tile.column : right - tile.column]
    out[top - window.row : bottom - window.row, left - window.column : right - window.column] = part
