"""Tells nodata that an EOPF product leaves out from lost chunks: bands, classification and footprint agree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from sits_pipeline.plan.lattice import project
from sits_pipeline.steps.resample import repeat
from sits_pipeline.transformers import transformer_between
from sits_pipeline.values import BandWindow, Scene, epsg_of, shape_of

__all__ = ["Hole", "holds", "holes_amid_data", "meets_footprint"]

_MARGIN_M = 20.0
_DEPTH = 20
"""A footprint that lies over an empty chunk by less than a twentieth of its side is one that is drawn roughly."""


@dataclass(frozen=True)
class Hole:
    """A chunk that a product does not hold, as cube pixels from a geobox's upper left corner; negative before it."""

    rows: range
    columns: range

    def within(self, shape: tuple[int, int], margin: int) -> tuple[slice, slice]:
        """Its part of a geobox of `shape` with `margin` more cube pixels on each side, counted from there."""
        spans = zip((self.rows, self.columns), shape, strict=True)
        rows, columns = (
            slice(max(span.start + margin, 0), max(min(span.stop + margin, size + 2 * margin), 0))
            for span, size in spans
        )
        return rows, columns


def holds(window: BandWindow, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Where a window holds data, in the cube pixels of its geobox."""
    out = np.empty(shape, bool)
    repeat(window, window.dn > 0, out)
    return out


def holes_amid_data(
    windows: Mapping[str, BandWindow],
    holes: Mapping[str, Sequence[Hole]],
    shape: tuple[int, int],
    *,
    classified: NDArray[np.bool_] | None,
    margin: int,
) -> dict[str, str]:
    """Bands of which a chunk is missing where the rest of the product holds a single pixel of data, and why.

    `classified` is where the classification holds data, with `margin` cube pixels around the geobox of `shape`, since
    pixels beside it decide those in it where bands are interpolated; None where the product has none.
    """
    lost = {}
    for name in sorted(name for name in holes if holes[name]):
        if name == "SCL" or classified is None:
            others = [holds(window, shape) for band, window in windows.items() if band != name]
            data, around, where = np.logical_or.reduce([np.zeros(shape, bool), *others]), 0, "bands hold"
        else:
            data, around, where = classified, margin, "classification holds"
        if any(data[hole.within(shape, around)].any() for hole in holes[name]):
            lost[name] = f"chunks are missing where the product's {where} data; take another provider for this item"
    return lost


def meets_footprint(scene: Scene, geobox: GeoBox, holes: Sequence[Hole]) -> bool:
    """Whether the footprint says that the product holds data in one of these holes, in its part of a geobox.

    It has to lie over that part by two pixels, and over the whole chunk by more than the roughness with which it is
    drawn, be its edges straight in degrees or in metres: chunks beyond the edge of a swath are empty.
    """
    for ground in _grounds(scene.footprint, epsg_of(geobox)):
        inner = shapely.buffer(ground, -_MARGIN_M)
        if not any(_is_claimed(ground, inner, geobox, hole) for hole in holes):
            return False
    return bool(holes)


def _grounds(footprint: shapely.Geometry, epsg: int) -> Iterator[shapely.Geometry]:
    mover = transformer_between(4326, epsg)
    yield shapely.transform(footprint, lambda xy: np.column_stack(mover.transform(*xy.T)))
    yield project(footprint, epsg)


def _is_claimed(ground: shapely.Geometry, inner: shapely.Geometry, geobox: GeoBox, hole: Hole) -> bool:
    height, width = shape_of(geobox)
    rows = range(max(hole.rows.start, 0), min(hole.rows.stop, height))
    columns = range(max(hole.columns.start, 0), min(hole.columns.stop, width))
    if not rows or not columns or not shapely.intersects(inner, _box(geobox, rows, columns)):
        return False
    side_m = min(len(hole.rows), len(hole.columns)) * abs(geobox.affine.a)
    return bool(shapely.intersects(shapely.buffer(ground, -side_m / _DEPTH), _box(geobox, hole.rows, hole.columns)))


def _box(geobox: GeoBox, rows: range, columns: range) -> shapely.Geometry:
    a, _, west, _, e, north = geobox.affine[:6]
    box: shapely.Geometry = shapely.box(
        west + a * columns.start, north + e * rows.stop, west + a * columns.stop, north + e * rows.start
    )
    return box
