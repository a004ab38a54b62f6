"""GDAL's own rules for the pixels of a polygon: `center` and `all_touched`."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
import rasterio.features
import shapely
from affine import Affine
from numpy.typing import NDArray

from sits_pipeline.steps.rasterize.lattice import Lattice

__all__ = ["burn"]

_TILE = 256
"""Side of the squares, fixed on the lattice, that are drawn one by one: GDAL computes in numbers counted from the corner
of the raster, so only a raster that does not move with the window keeps ties (a centre on an edge) where they are."""


def burn(geometry: NDArray[np.object_], lattice: Lattice, *, all_touched: bool) -> NDArray[np.intp]:
    """Position of the last geometry drawn on each pixel by rasterio.features.rasterize, (pixel,); -1 where none is."""
    drawn = np.full((lattice.height, lattice.width), -1, np.intp)
    bounds = shapely.bounds(geometry).reshape(-1, 4)
    shapes: dict[int, object] = {}
    for row, column in _tiles(lattice):
        west, north = lattice.edge_x(column), lattice.edge_y(row)
        east, south = lattice.edge_x(column + _TILE), lattice.edge_y(row + _TILE)
        near = (bounds[:, 0] <= east) & (bounds[:, 2] >= west) & (bounds[:, 1] <= north) & (bounds[:, 3] >= south)
        index = np.flatnonzero(near).tolist()
        if not index:
            continue
        for position in index:
            shapes.setdefault(position, shapely.geometry.mapping(geometry[position]))
        tile = rasterio.features.rasterize(
            [(shapes[position], position + 1) for position in index],
            out_shape=(_TILE, _TILE),
            transform=Affine(lattice.step_x, 0, west, 0, -lattice.step_y, north),
            all_touched=all_touched,
            dtype=np.int32,
        )
        top, left = max(row - lattice.row, 0), max(column - lattice.column, 0)
        part = tile[lattice.row + top - row :, lattice.column + left - column :]
        part = part[: lattice.height - top, : lattice.width - left]
        drawn[top : top + part.shape[0], left : left + part.shape[1]] = part.astype(np.intp) - 1
    return drawn.ravel()


def _tiles(lattice: Lattice) -> Iterator[tuple[int, int]]:
    """First row and column of every tile that meets the window."""
    rows = range(lattice.row // _TILE * _TILE, lattice.row + lattice.height, _TILE)
    columns = range(lattice.column // _TILE * _TILE, lattice.column + lattice.width, _TILE)
    return product(rows, columns)
