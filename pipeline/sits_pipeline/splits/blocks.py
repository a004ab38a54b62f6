"""Blocks of ground and the split each of them, and each parcel, belongs to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from sits_catalog.cube import PIXEL_M, Split
from sits_pipeline.splits.areas import SplitAreas
from sits_pipeline.values import Parcels, Window, epsg_of

__all__ = ["BlockGrid", "SplitPlan"]


@dataclass(frozen=True, kw_only=True)
class BlockGrid:
    """The square blocks of one cube, counted from its upper-left corner."""

    epsg: int
    left: int
    """Easting of the cube's upper-left corner, metres."""
    top: int
    """Northing of the cube's upper-left corner, metres."""
    block_m: int
    split: NDArray[np.uint8]
    """(row, column) of blocks: 1 train, 2 validation, 3 test; 0 where polygons decide instead."""

    def range_of(
        self, low: NDArray[np.float64], high: NDArray[np.float64], *, rows: bool
    ) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """First and last block that intervals of eastings (or, with `rows`, of northings) touch, cut to the grid."""
        if rows:
            low, high = self.top - high, self.top - low
        else:
            low, high = low - self.left, high - self.left
        last = self.split.shape[0 if rows else 1] - 1
        first_block = np.clip(np.floor(low / self.block_m), 0, last)
        last_block = np.clip(np.floor(high / self.block_m), 0, last)
        return first_block.astype(np.intp), last_block.astype(np.intp)

    def split_of(self, window: Window) -> Split:
        """The split of all blocks that a window of the cube touches; BUFFER where they are not of one split."""
        side = self.block_m // PIXEL_M
        touched = self.split[
            window.row // side : (window.row + window.height - 1) // side + 1,
            window.column // side : (window.column + window.width - 1) // side + 1,
        ]
        found = np.unique(touched)
        return Split(int(found[0])) if len(found) == 1 else Split.BUFFER

    def near(self, geobox: GeoBox) -> BlockGrid:
        """The blocks that a cell touches."""
        west, south, east, north = (np.array([edge]) for edge in geobox.boundingbox.bbox)
        (first_row,), (last_row,) = self.range_of(south, north, rows=True)
        (first_column,), (last_column,) = self.range_of(west, east, rows=False)
        return BlockGrid(
            epsg=self.epsg,
            left=self.left + int(first_column) * self.block_m,
            top=self.top - int(first_row) * self.block_m,
            block_m=self.block_m,
            split=self.split[first_row : last_row + 1, first_column : last_column + 1].copy(),
        )


@dataclass(frozen=True, kw_only=True)
class SplitPlan:
    """The split of every block and of every parcel of a region, decided once for all of its zones."""

    grids: tuple[BlockGrid, ...]
    """One a cube."""
    parcel_id: NDArray[np.uint32]
    """Ascending."""
    parcel_split: NDArray[np.uint8]
    """One a `parcel_id`; 0 for a parcel that lies outside of every cube."""
    buffer_m: float
    notes: tuple[str, ...] = ()
    """What could not be had, in sentences."""
    areas: tuple[SplitAreas, ...] = ()
    """Polygons that decide in place of the blocks, one entry a cube; empty: the blocks decide."""

    def grid(self, epsg: int) -> BlockGrid:
        """The blocks of the cube in EPSG:`epsg`."""
        return next(grid for grid in self.grids if grid.epsg == epsg)

    def areas_of(self, epsg: int) -> SplitAreas | None:
        """The polygons that decide in the cube in EPSG:`epsg`; None: its blocks do."""
        return next((areas for areas in self.areas if areas.epsg == epsg), None)

    def splits_of(self, parcel_id: NDArray[np.uint32]) -> NDArray[np.uint8]:
        """The split of each parcel."""
        index = np.searchsorted(self.parcel_id, parcel_id)
        assert np.array_equal(self.parcel_id[index], parcel_id)
        return self.parcel_split[index]

    def only(self, parcels: Parcels, geobox: GeoBox) -> SplitPlan:
        """The plan with these parcels and the ground of one cell: what it needs, whatever the size of the region."""
        return SplitPlan(
            grids=(self.grid(parcels.epsg).near(geobox),),
            parcel_id=parcels.parcel_id,
            parcel_split=self.splits_of(parcels.parcel_id),
            buffer_m=self.buffer_m,
            areas=tuple(areas.near(geobox) for areas in self.areas if areas.epsg == parcels.epsg),
        )


def empty_grid(geobox: GeoBox, block_m: int) -> BlockGrid:
    """The blocks of a cube, none of them in a split yet."""
    west, south, east, north = geobox.boundingbox.bbox
    shape = (-(-round(north - south) // block_m), -(-round(east - west) // block_m))
    return BlockGrid(
        epsg=epsg_of(geobox),
        left=round(west),
        top=round(north),
        block_m=block_m,
        split=np.zeros(shape, dtype=np.uint8),
    )
