"""From parcels and a rule to the split of every block and every parcel of a region."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import shapely
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from sits_catalog.cube import IGNORE, Split
from sits_catalog.region import SplitRule
from sits_pipeline.splits.blocks import BlockGrid, SplitPlan, empty_grid
from sits_pipeline.splits.solve import assign
from sits_pipeline.values import Parcels

__all__ = ["plan_splits"]

_FALSE_EASTING = 500_000.0
_MM2 = 1e4
"""Areas are compared at 1 cm2, so that ties are ties on every machine."""


def plan_splits(
    parcels: Sequence[Parcels],
    geoboxes: Sequence[GeoBox],
    rule: SplitRule,
    *,
    names: Mapping[int, str] | None = None,
) -> SplitPlan:
    """The split of each block and parcel of a region; `parcels` and `geoboxes` have one entry a zone.

    A parcel belongs to the block with most of its area (of a tie, the first block). Blocks with labelled parcels
    are shared out by the area of their parcels, class by class; the others by their ground, so that all unlabelled
    pixels are of use too. What cannot be had is said in the plan's notes, which call a class by its name in `names`
    where it has one there.
    """
    grids = [empty_grid(geobox, rule.block_m) for geobox in geoboxes]
    ground = np.concatenate([_ground(grid, geobox) for grid, geobox in zip(grids, geoboxes, strict=True)])
    homes = _homes(parcels, grids, geoboxes)
    area, classes = _areas(homes, len(ground))
    if not area.any():
        area, classes = ground[:, None], np.zeros(0, dtype=np.uint16)
    labelled = np.flatnonzero(area.any(axis=1))
    splits, shares, missing = _targets(rule, len(labelled))
    chosen = np.full(len(ground), -1, dtype=np.intp)
    chosen[labelled] = assign(area[labelled], shares, seed=rule.seed)
    _share_ground(chosen, ground, shares, seed=rule.seed)
    codes = splits[chosen]
    return SplitPlan(
        grids=_filled(grids, codes),
        parcel_id=homes.parcel_id,
        parcel_split=np.where(homes.block >= 0, codes[homes.block], Split.NONE).astype(np.uint8),
        buffer_m=rule.buffer_m,
        notes=missing + _lacking(area, classes, codes, splits, names or {}),
    )


@dataclass(frozen=True, kw_only=True)
class _Homes:
    """The block of each parcel of the region."""

    parcel_id: NDArray[np.uint32]
    block: NDArray[np.intp]
    """Number of the block, counted over all zones; -1 where the parcel lies outside of every cube."""
    area: NDArray[np.float64]
    """Area inside of the cubes, m2."""
    crop_type: NDArray[np.uint16]


def _ground(grid: BlockGrid, geobox: GeoBox) -> NDArray[np.float64]:
    """Area of each block inside of the cube, m2."""
    west, south, east, north = geobox.boundingbox.bbox
    rows, columns = grid.split.shape
    heights = np.diff(np.minimum(np.arange(rows + 1) * grid.block_m, north - south))
    widths = np.diff(np.minimum(np.arange(columns + 1) * grid.block_m, east - west))
    return np.outer(heights, widths).astype(np.float64).ravel()


def _homes(parcels: Sequence[Parcels], grids: Sequence[BlockGrid], geoboxes: Sequence[GeoBox]) -> _Homes:
    """Each parcel's block: in the zone whose meridian is nearest, the block with most of its area."""
    ids = np.concatenate([zone.parcel_id for zone in parcels])
    crops = np.concatenate([zone.crop_type for zone in parcels])
    parcel_id, first = np.unique(ids, return_index=True)
    block = np.full(len(parcel_id), -1, dtype=np.intp)
    area = np.zeros(len(parcel_id))
    nearest = np.full(len(parcel_id), np.inf)
    offset = 0
    for zone, grid, geobox in zip(parcels, grids, geoboxes, strict=True):
        home, inside = _in_blocks(zone.geometry, grid, geobox)
        index = np.searchsorted(parcel_id, zone.parcel_id)
        distance = np.abs(shapely.get_x(shapely.centroid(zone.geometry)) - _FALSE_EASTING)
        better = (home >= 0) & (distance < nearest[index])
        block[index[better]] = home[better] + offset
        area[index[better]] = inside[better]
        nearest[index[better]] = distance[better]
        offset += grid.split.size
    return _Homes(parcel_id=parcel_id.astype(np.uint32), block=block, area=area, crop_type=crops[first])


def _in_blocks(
    geometry: NDArray[np.object_], grid: BlockGrid, geobox: GeoBox
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """The block with most of each polygon (-1: none), and the polygon's area inside of the cube."""
    left, bottom, right, top = geobox.boundingbox.bbox
    west, south, east, north = shapely.bounds(geometry).reshape(-1, 4).T
    first_row, last_row = grid.range_of(south, north, rows=True)
    first_column, last_column = grid.range_of(west, east, rows=False)
    n_columns = grid.split.shape[1]
    home = first_row * n_columns + first_column
    area = np.asarray(shapely.area(geometry), dtype=np.float64)
    within = (west >= left) & (east <= right) & (south >= bottom) & (north <= top)
    spread = ~within | (first_row != last_row) | (first_column != last_column)
    for index in np.flatnonzero(spread):
        rows = np.arange(first_row[index], last_row[index] + 1)
        columns = np.arange(first_column[index], last_column[index] + 1)
        row, column = (axis.ravel() for axis in np.meshgrid(rows, columns, indexing="ij"))
        boxes = shapely.box(
            left + column * grid.block_m,
            np.maximum(top - (row + 1) * grid.block_m, bottom),
            np.minimum(left + (column + 1) * grid.block_m, right),
            top - row * grid.block_m,
        )
        shares = np.round(shapely.area(shapely.intersection(geometry[index], boxes)) * _MM2) / _MM2
        area[index] = shares.sum()
        best = int(np.argmax(shares))
        home[index] = row[best] * n_columns + column[best] if area[index] > 0 else -1
    return home, area


def _areas(homes: _Homes, n_blocks: int) -> tuple[NDArray[np.float64], NDArray[np.uint16]]:
    """Area (block, class) of the labelled parcels in m2, and the classes; of all parcels, if none has a class."""
    counted = (homes.block >= 0) & (homes.crop_type != IGNORE)
    if not counted.any():
        counted = homes.block >= 0
    classes, column = np.unique(homes.crop_type[counted], return_inverse=True)
    area = np.zeros((n_blocks, len(classes)))
    np.add.at(area, (homes.block[counted], column), np.maximum(np.round(homes.area[counted]), 1.0))
    return area, classes


def _targets(rule: SplitRule, n_blocks: int) -> tuple[NDArray[np.uint8], NDArray[np.float64], tuple[str, ...]]:
    """Codes and shares of the splits there are, and what must be said about them."""
    wanted = [(Split.TRAIN, "train"), (Split.VALIDATION, "validation"), (Split.TEST, "test")]
    given = {str(name): share for name, share in rule.shares.items()}
    asked = [(code, name) for code, name in wanted if given.get(name, 0) > 0]
    kept, lost = asked[:n_blocks], [name for _, name in asked[n_blocks:]]
    shares = np.array([given[name] for _, name in kept])
    notes: tuple[str, ...] = ()
    if lost:
        notes = (
            f"parcels lie in {n_blocks} blocks of {rule.block_m} m only: there is no {' and no '.join(lost)} split; "
            "a smaller splits: block_m gives more blocks",
        )
    return np.array([code for code, _ in kept], dtype=np.uint8), shares / shares.sum(), notes


def _share_ground(
    chosen: NDArray[np.intp], ground: NDArray[np.float64], shares: NDArray[np.float64], *, seed: int
) -> None:
    """Give each block that is still free (-1) to the split that lacks most ground."""
    held = np.array([ground[chosen == split].sum() for split in range(len(shares))])
    free = np.flatnonzero(chosen < 0)
    target = shares * ground.sum()
    for block in np.random.default_rng(seed).permutation(free):
        split = int(np.argmax(target - held))
        chosen[block] = split
        held[split] += ground[block]


def _filled(grids: Sequence[BlockGrid], codes: NDArray[np.uint8]) -> tuple[BlockGrid, ...]:
    filled, offset = [], 0
    for grid in grids:
        filled.append(replace(grid, split=codes[offset : offset + grid.split.size].reshape(grid.split.shape)))
        offset += grid.split.size
    return tuple(filled)


def _lacking(
    area: NDArray[np.float64],
    classes: NDArray[np.uint16],
    codes: NDArray[np.uint8],
    splits: NDArray[np.uint8],
    names: Mapping[int, str],
) -> tuple[str, ...]:
    """A sentence for each class that is not in every split."""
    notes = []
    for column, crop in enumerate(classes.tolist()):
        blocks = area[:, column] > 0
        lacking = [Split(int(code)).name.lower() for code in splits if not (blocks & (codes == code)).any()]
        if lacking and crop != IGNORE:
            held = np.count_nonzero(blocks)
            where = "1 block" if held == 1 else f"{held} blocks"
            notes.append(f"class {names.get(crop, crop)} lies in {where} and is not in {' and '.join(lacking)}")
    return tuple(notes)
