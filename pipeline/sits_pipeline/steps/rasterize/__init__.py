"""Draw parcels onto a grid: class, parcel, exact coverage, conflicts and distance to the nearest boundary.

Every value of a pixel is a function of the lattice, of the parcels within 100 m and of the known area, and of nothing
else: it is the same, bit by bit, in whichever window it is drawn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from sits_catalog.cube import BACKGROUND, IGNORE
from sits_catalog.region import LabelRule
from sits_pipeline.steps.rasterize.burn import burn
from sits_pipeline.steps.rasterize.conflict import conflicts
from sits_pipeline.steps.rasterize.coverage import Shares, pixel_shares
from sits_pipeline.steps.rasterize.distance import boundary_distance
from sits_pipeline.steps.rasterize.free import half_free
from sits_pipeline.steps.rasterize.known import centres_inside
from sits_pipeline.steps.rasterize.lattice import Lattice, lattice_of
from sits_pipeline.steps.rasterize.winners import Best, best_parcels
from sits_pipeline.values import Labels, Parcels, epsg_of

__all__ = ["FinerLabels", "rasterize", "rasterize_finer"]

_FAR_DM = 1000
_BAND_PX = 1 << 20


@dataclass(frozen=True, kw_only=True)
class FinerLabels:
    """Label rasters on a lattice 2 or 4 times finer, each (y, x)."""

    crop_type: NDArray[np.uint16]
    parcel_id: NDArray[np.uint32]
    coverage: NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class _Drawn:
    """What every lattice gets, as flat arrays (pixel,)."""

    shares: Shares
    best: Best
    crop_type: NDArray[np.uint16]
    parcel_id: NDArray[np.uint32]


def rasterize(parcels: Parcels, geobox: GeoBox, *, rule: LabelRule, known: shapely.Geometry | None) -> Labels:
    """The labels of a north-up grid in the parcels' CRS.

    `parcels` must hold all that come within 110 m of the grid, unclipped; any others change nothing. `known` is the
    labelled area inside the region, in the same CRS: only there, and only where at least half of it is free of
    parcels, is a pixel that no parcel wins background (0). None: nothing is known between the parcels, so that
    nothing is background.

    Raises ValueError where the grid is rotated or in another CRS and where a parcel is no valid polygon.
    """
    lattice = lattice_of(geobox)
    _check(parcels, geobox)
    drawn = _draw(parcels, lattice, rule, known)
    shape = (lattice.height, lattice.width)
    decimetres = np.minimum(np.rint(boundary_distance(parcels.geometry, lattice) * 10), _FAR_DM).astype(np.int16)
    parcel_id = drawn.parcel_id.reshape(shape)
    return Labels(
        crop_type=drawn.crop_type.reshape(shape),
        parcel_id=parcel_id,
        coverage=drawn.best.coverage().reshape(shape),
        boundary_distance=np.where(parcel_id > 0, decimetres, -decimetres),
        conflict=conflicts(drawn.shares, parcels.crop_type, lattice.n_pixels).reshape(shape),
    )


def rasterize_finer(
    parcels: Parcels, geobox: GeoBox, *, factor: int, rule: LabelRule, known: shapely.Geometry | None
) -> FinerLabels:
    """The labels of `geobox`'s ground on pixels `factor` times smaller: (y * factor, x * factor), see `rasterize`."""
    if factor not in (2, 4):
        raise ValueError(f"a finer lattice has pixels 2 or 4 times smaller, got {factor}")
    _check(parcels, geobox)
    lattice_of(geobox)
    height, width = (side * factor for side in geobox.shape)
    step = max(_BAND_PX // width, 1)
    x, y = geobox.affine.c, geobox.affine.f
    step_x, step_y = geobox.affine.a / factor, geobox.affine.e / factor
    bands = []
    for row in range(0, height, step):
        shape = (min(step, height - row), width)
        lattice = lattice_of(GeoBox(shape, Affine(step_x, 0, x, 0, step_y, y + row * step_y), geobox.crs))
        drawn = _draw(parcels, lattice, rule, known)
        layers = (drawn.crop_type, drawn.parcel_id, drawn.best.coverage())
        bands.append([layer.reshape(shape) for layer in layers])
    crop_type, parcel_id, coverage = (np.concatenate(layers) for layers in zip(*bands, strict=True))
    return FinerLabels(crop_type=crop_type, parcel_id=parcel_id, coverage=coverage)


def _draw(parcels: Parcels, lattice: Lattice, rule: LabelRule, known: shapely.Geometry | None) -> _Drawn:
    shares = pixel_shares(parcels.geometry, lattice)
    best = best_parcels(shares, lattice)
    if rule.rule == "area":
        winner = best.winner(rule.min_coverage)
    else:
        order = np.argsort(parcels.source_row, kind="stable")
        last = burn(parcels.geometry[order], lattice, all_touched=rule.rule == "all_touched")
        winner = np.append(order, -1)[last]
    # Under every rule: a pixel whose centre no parcel holds may still be covered for the most part.
    free = half_free(shares, parcels.geometry, lattice, centres_inside(known, lattice) & (winner < 0))
    # Position -1, no winner, takes the last entry of each table.
    crop_type = np.append(parcels.crop_type, np.uint16(IGNORE))[winner]
    crop_type[free] = BACKGROUND
    parcel_id = np.append(parcels.parcel_id, np.uint32(0))[winner]
    return _Drawn(shares=shares, best=best, crop_type=crop_type, parcel_id=parcel_id)


def _check(parcels: Parcels, geobox: GeoBox) -> None:
    if epsg_of(geobox) != parcels.epsg:
        raise ValueError(
            f"the parcels are in EPSG:{parcels.epsg} and the grid is in {geobox.crs}; "
            "reproject the parcels' vertices first"
        )
    if (np.diff(parcels.parcel_id.astype(np.int64)) <= 0).any():
        raise ValueError("parcels must come in the order of their parcel_id, each once; sort them by parcel_id")
    polygonal = np.isin(shapely.get_type_id(parcels.geometry), (3, 6)) & ~shapely.is_empty(parcels.geometry)
    wrong = np.flatnonzero(~(polygonal & shapely.is_valid(parcels.geometry)))
    if wrong.size:
        first = parcels.geometry[wrong[0]]
        found = "no geometry" if first is None else f"a {first.geom_type}: {shapely.is_valid_reason(first)}"
        if first is not None and shapely.is_empty(first):
            found = f"an empty {first.geom_type}"
        raise ValueError(
            f"parcel {parcels.parcel_id[wrong[0]]} must be a valid polygon or multipolygon with an area, "
            f"it is {found}; repair it with make_valid and keep its polygons"
        )
