"""Rows and columns of a window, counted on a lattice that does not know the window."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

__all__ = ["Lattice", "lattice_of"]

_Ints = NDArray[np.int64]
_Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Lattice:
    """A window of `height` x `width` pixels on an endless lattice.

    Columns are counted eastwards and rows southwards from the lattice's own origin, never from the window's corner, so
    that arithmetic in these numbers gives a pixel the same value in whichever window it is computed. In a cube the
    pixel edges are integers in metres and all of them are exact.
    """

    step_x: float
    """Width of a pixel in metres."""
    step_y: float
    """Height of a pixel in metres."""
    anchor_x: float
    """Easting of the left edge of column 0."""
    anchor_y: float
    """Northing of the upper edge of row 0."""
    row: int
    """First row of the window."""
    column: int
    """First column of the window."""
    height: int
    width: int

    @property
    def n_pixels(self) -> int:
        """Pixels of the window."""
        return self.height * self.width

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """West, south, east and north edge of the window in metres."""
        return (
            self.edge_x(self.column),
            self.edge_y(self.row + self.height),
            self.edge_x(self.column + self.width),
            self.edge_y(self.row),
        )

    def edge_x(self, column: int) -> float:
        """Easting of the left edge of a column."""
        return self.anchor_x + column * self.step_x

    def edge_y(self, row: int) -> float:
        """Northing of the upper edge of a row."""
        return self.anchor_y - row * self.step_y

    def centres_x(self) -> NDArray[np.float64]:
        """Eastings of the pixel centres, (width,)."""
        return self.anchor_x + (np.arange(self.column, self.column + self.width, dtype=np.float64) + 0.5) * self.step_x

    def centres_y(self) -> NDArray[np.float64]:
        """Northings of the pixel centres, (height,), descending."""
        return self.anchor_y - (np.arange(self.row, self.row + self.height, dtype=np.float64) + 0.5) * self.step_y

    def columns_between(self, west: _Floats, east: _Floats) -> tuple[_Ints, _Ints]:
        """First and last column of the window with its centre in west..east; last < first where there is none."""
        first = np.ceil((west - self.anchor_x) / self.step_x - 0.5) - self.column
        last = np.floor((east - self.anchor_x) / self.step_x - 0.5) - self.column
        return _clip(first, 0, self.width), _clip(last, -1, self.width - 1)

    def rows_between(self, north: _Floats, south: _Floats) -> tuple[_Ints, _Ints]:
        """First and last row of the window with its centre in south..north; last < first where there is none."""
        first = np.ceil((self.anchor_y - north) / self.step_y - 0.5) - self.row
        last = np.floor((self.anchor_y - south) / self.step_y - 0.5) - self.row
        return _clip(first, 0, self.height), _clip(last, -1, self.height - 1)


def _clip(values: _Floats, low: int, high: int) -> _Ints:
    return np.clip(values, low, high).astype(np.int64)


def lattice_of(geobox: GeoBox) -> Lattice:
    """The lattice a north-up geobox lies on.

    Raises ValueError where the geobox is rotated, flipped or empty.
    """
    a, b, c, d, e, f = geobox.affine[:6]
    if b or d or a <= 0 or e >= 0:
        raise ValueError(
            "labels are drawn on a grid with north up and east to the right; "
            f"got the affine {tuple(geobox.affine[:6])}; give a geobox that is neither rotated nor flipped"
        )
    height, width = geobox.shape
    if not height or not width:
        raise ValueError(f"labels need a grid with pixels, got {height} rows and {width} columns")
    column, row = round(c / a), round(f / e)
    return Lattice(
        step_x=a,
        step_y=-e,
        anchor_x=c - column * a,
        anchor_y=f - row * e,
        row=row,
        column=column,
        height=height,
        width=width,
    )
