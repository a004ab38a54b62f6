"""From parcels and a rule to the split of every block and every parcel of a region."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import shapely
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from sits_catalog.cube import IGNORE, PIXEL_M, Split
from sits_catalog.region import SplitRule
from sits_pipeline.splits.areas import SplitAreas
from sits_pipeline.splits.blocks import BlockGrid, SplitPlan, empty_grid
from sits_pipeline.splits.solve import assign
from sits_pipeline.values import Parcels

__all__ = ["CODES", "fold_codes", "lacking", "least_m2", "plan_splits"]

CODES: dict[Literal["train", "validation", "test"], Split] = {
    "train": Split.TRAIN,
    "validation": Split.VALIDATION,
    "test": Split.TEST,
}
"""Of the splits that models use."""
_FALSE_EASTING = 500_000.0
_MM2 = 1e4
"""Areas are compared at 1 cm2, so that ties are ties on every machine."""


def plan_splits(
    parcels: Sequence[Parcels],
    geoboxes: Sequence[GeoBox],
    rule: SplitRule,
    *,
    names: Mapping[int, str] | None = None,
    areas: Sequence[SplitAreas] = (),
) -> SplitPlan:
    """The split of each block and parcel of a region; `parcels` and `geoboxes` have one entry a zone.

    A parcel belongs to the block with most of its area (of a tie, the first block). Blocks with labelled parcels
    are shared out by the area of their parcels, class by class; the others by their ground, so that all unlabelled
    pixels are of use too. What cannot be had is said in the plan's notes, which call a class by its name in `names`
    where it has one there.

    `areas`, one entry a zone, are the polygons of a rule with a file, which decide in place of blocks: a parcel
    belongs to the split that holds most of its area. Raises ValueError where the rule has a file and they are missing.
    """
    if (rule.file is not None) != bool(areas):
        raise ValueError(f"splits: file {rule.file!r} decides by its polygons, and {len(areas)} sets of them are given")
    grids = [empty_grid(geobox, rule.block_m) for geobox in geoboxes]
    if areas:
        return _by_areas(parcels, grids, areas, rule, names or {})
    ground = np.concatenate([_ground(grid, geobox) for grid, geobox in zip(grids, geoboxes, strict=True)])
    homes = _homes(parcels, grids, geoboxes)
    area, classes = _areas(homes, len(ground))
    if not area.any():
        area, classes = ground[:, None], np.zeros(0, dtype=np.uint16)
    labelled = np.flatnonzero(area.any(axis=1))
    splits, shares, missing = _targets(rule, len(labelled))
    chosen = np.full(len(ground), -1, dtype=np.intp)
    chosen[labelled] = assign(area[labelled], shares, seed=rule.seed, least_m2=least_m2(rule))
    _share_ground(chosen, ground, shares, seed=rule.seed)
    codes = splits[chosen]
    return SplitPlan(
        grids=_filled(grids, codes),
        parcel_id=homes.parcel_id,
        parcel_split=np.where(homes.block >= 0, codes[homes.block], Split.NONE).astype(np.uint8),
        buffer_m=rule.buffer_m,
        notes=missing + lacking(area, classes, codes, splits, names or {}, rule.min_pixels),
    )


def least_m2(rule: SplitRule) -> float:
    """What each split must hold of a class; 0: any parcel of it will do."""
    return float(rule.min_pixels * PIXEL_M**2) if rule.min_pixels > 1 else 0.0


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
    """Codes and shares of the parts that blocks are shared out to, and what must be said about them."""
    if rule.whole is not None:
        return np.array([CODES[rule.whole]], dtype=np.uint8), np.ones(1), ()
    if rule.folds:
        return fold_codes(rule), np.full(rule.folds, 1 / rule.folds), _few_blocks(rule, n_blocks)
    asked = [(code, name) for name, code in CODES.items() if rule.shares.get(name, 0) > 0]
    kept, lost = asked[:n_blocks], [name for _, name in asked[n_blocks:]]
    shares = np.array([rule.shares[name] for _, name in kept])
    notes: tuple[str, ...] = ()
    if lost:
        notes = (
            f"parcels lie in {_blocks(n_blocks)} of {rule.block_m} m only: there is no {' and no '.join(lost)} split; "
            "a smaller splits: block_m gives more blocks",
        )
    return np.array([code for code, _ in kept], dtype=np.uint8), shares / shares.sum(), notes


def fold_codes(rule: SplitRule) -> NDArray[np.uint8]:
    """The split of each fold: `fold` is test, the next one validation (not of two), the others train."""
    codes = np.full(rule.folds, Split.TRAIN, dtype=np.uint8)
    if rule.folds > 2:
        codes[rule.fold % rule.folds] = Split.VALIDATION
    codes[rule.fold - 1] = Split.TEST
    return codes


def _few_blocks(rule: SplitRule, n_blocks: int) -> tuple[str, ...]:
    if n_blocks >= rule.folds:
        return ()
    return (
        f"parcels lie in {_blocks(n_blocks)} of {rule.block_m} m only: {rule.folds - n_blocks} of the {rule.folds} "
        "folds have none of them; a smaller splits: block_m gives more blocks",
    )


def _blocks(count: int) -> str:
    return "1 block" if count == 1 else f"{count} blocks"


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


def lacking(
    area: NDArray[np.float64],
    classes: NDArray[np.uint16],
    codes: NDArray[np.uint8],
    splits: NDArray[np.uint8],
    names: Mapping[int, str],
    least: int,
    *,
    unit: str = "block",
) -> tuple[str, ...]:
    """A sentence for each class of which a split has less than the pixels that were asked for, or nothing.

    `area` is m2 by (block, class); `unit` is what a block is called.
    """
    notes = []
    used = np.unique(splits)
    for column, crop in enumerate(classes.tolist()):
        held = {Split(int(code)).name.lower(): float(area[codes == code, column].sum()) for code in used}
        absent = [name for name, m2 in held.items() if m2 <= 0]
        short = [name for name, m2 in held.items() if m2 < least * PIXEL_M**2]
        if crop == IGNORE or not (absent if least == 1 else short):
            continue
        blocks = np.count_nonzero(area[:, column] > 0)
        where = f"1 {unit}" if blocks == 1 else f"{blocks} {unit}s"
        if least == 1:
            notes.append(f"class {names.get(crop, crop)} lies in {where} and is not in {' and '.join(absent)}")
        else:
            notes.append(_too_few(names.get(crop, crop), held, short, where, least))
    return tuple(notes)


def _too_few(crop: int | str, held: Mapping[str, float], short: Sequence[str], where: str, least: int) -> str:
    """A sentence on a class with fewer pixels in a split than were asked for."""
    pixels = {name: int(m2 // PIXEL_M**2) for name, m2 in held.items()}
    said = " and ".join(f"{pixels[name]} in {name}" for name in short)
    total = int(sum(held.values()) // PIXEL_M**2)
    return f"class {crop} has {said}, where {least} pixels were asked for: it covers {total} pixels in {where}"


# Polygons in place of blocks


def _by_areas(
    parcels: Sequence[Parcels],
    grids: Sequence[BlockGrid],
    areas: Sequence[SplitAreas],
    rule: SplitRule,
    names: Mapping[int, str],
) -> SplitPlan:
    """Each parcel to the split of the polygons with most of its area, in the zone whose meridian is nearest."""
    ids = np.concatenate([zone.parcel_id for zone in parcels])
    crops = np.concatenate([zone.crop_type for zone in parcels])
    parcel_id, first = np.unique(ids, return_index=True)
    held = np.zeros((len(parcel_id), len(CODES)))
    nearest = np.full(len(parcel_id), np.inf)
    for zone, drawn in zip(parcels, areas, strict=True):
        index = np.searchsorted(parcel_id, zone.parcel_id)
        distance = np.abs(shapely.get_x(shapely.centroid(zone.geometry)) - _FALSE_EASTING)
        better = distance < nearest[index]
        held[index[better]] = _shared_area(zone.geometry[better], drawn)
        nearest[index[better]] = distance[better]
    # Of a tie, the split that is named first.
    split = np.where(held.any(axis=1), np.argmax(held, axis=1) + 1, Split.NONE).astype(np.uint8)
    return SplitPlan(
        grids=tuple(grids),
        parcel_id=parcel_id.astype(np.uint32),
        parcel_split=split,
        buffer_m=rule.buffer_m,
        notes=_absent(held.max(axis=1, initial=0.0), crops[first], split, areas, rule, names),
        areas=tuple(areas),
    )


def _shared_area(geometry: NDArray[np.object_], drawn: SplitAreas) -> NDArray[np.float64]:
    """Area (polygon, split) that polygons share with the drawn ones, m2."""
    result = np.zeros((len(geometry), len(CODES)))
    one, other = shapely.STRtree(drawn.geometry).query(geometry, predicate="intersects")
    shapely.prepare(drawn.geometry)
    inside = shapely.covers(drawn.geometry[other], geometry[one])
    shared = np.where(inside, shapely.area(geometry[one]), 0.0)
    across = ~inside
    shared[across] = shapely.area(shapely.intersection(geometry[one[across]], drawn.geometry[other[across]]))
    np.add.at(result, (one, drawn.split[other].astype(np.intp) - 1), np.round(shared * _MM2) / _MM2)
    return result


def _absent(
    area: NDArray[np.float64],
    crops: NDArray[np.uint16],
    split: NDArray[np.uint8],
    areas: Sequence[SplitAreas],
    rule: SplitRule,
    names: Mapping[int, str],
) -> tuple[str, ...]:
    """A sentence for each split that no polygon names, and for each class that the others lack."""
    named = np.unique(np.concatenate([drawn.split for drawn in areas]))
    notes = [f"no polygon is {name}: there is no {name} split" for name, code in CODES.items() if code not in named]
    for crop in np.unique(crops[crops != IGNORE]).tolist():
        own = crops == crop
        held = {Split(int(code)).name.lower(): float(area[own & (split == code)].sum()) for code in named}
        lacking = [name for name, m2 in held.items() if m2 <= 0]
        short = [name for name, m2 in held.items() if m2 < rule.min_pixels * PIXEL_M**2]
        if rule.min_pixels == 1 and lacking:
            notes.append(f"class {names.get(crop, crop)} has no parcel in {' and '.join(lacking)}")
        elif rule.min_pixels > 1 and short:
            notes.append(_too_few(names.get(crop, crop), held, short, "the polygons", rule.min_pixels))
    return tuple(notes)
