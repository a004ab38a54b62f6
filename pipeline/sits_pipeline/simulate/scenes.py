"""From reflectance to the integers of a product: offset, clipping, missing halves, saturation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from shapely.geometry.base import BaseGeometry

from sits_catalog.sentinel2 import BANDS, BOA_OFFSET, SATURATED, Scl
from sits_pipeline.simulate.atmosphere import Ground, Sky, classify
from sits_pipeline.simulate.fields import generator
from sits_pipeline.simulate.schedule import Pass, Product
from sits_pipeline.simulate.tiles import bounds_of, point_at

__all__ = ["Pixels", "data_area", "make_pixels", "taken_out", "to_dn"]

_HUGE = 1e8


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """What ESA's product holds, on the tile's grids."""

    dn: Mapping[str, NDArray[np.uint16]]
    """(y, x) a band, with the offset where the baseline has one; 0 is no data."""
    scl: NDArray[np.uint8]
    """(y, x) at 20 m."""


def make_pixels(
    one: Pass, product: Product, rendered: Mapping[str, NDArray[np.float32]], ground: Ground, sky: Sky, canvas: GeoBox,
    *, elevation: float, seed: int,
) -> Pixels:  # fmt: skip
    """The integers of one product, cut from what the pass sees of the whole canvas."""
    rng = generator(seed, "product", one.index, product.tile.code, product.part)
    gain = np.float32(1e4 * (1 + 0.004 * rng.standard_normal()))
    observed = _observed(one, product, canvas)
    here = product.tile.slices(20)
    scl = classify(_crop_ground(ground, here), _crop_sky(sky, here), elevation=elevation, rng=rng)
    glints = _glints(one, canvas, seed)[here] & (observed if one.saturated else False)
    scl[glints] = Scl.SATURATED_OR_DEFECTIVE
    scl[~observed] = Scl.NO_DATA
    dn = {}
    for band, image in rendered.items():
        resolution = BANDS[band].resolution_m
        values = to_dn(image[product.tile.slices(resolution)] * gain, has_offset=product.has_offset)
        if band in ("B02", "B03", "B04", "B08", "B8A"):
            values[_at(glints, resolution)] = SATURATED
        values[~_at(observed, resolution)] = 0
        dn[band] = values
    return Pixels(dn=dn, scl=scl)


def to_dn(scaled: NDArray[np.float32], *, has_offset: bool) -> NDArray[np.uint16]:
    """DN of reflectance x 10000 as ESA stores it: from baseline 04.00 on 1000 more, which keeps negative values.

    >>> to_dn(np.array([-12.0, 0.4, 812.0], np.float32), has_offset=False).tolist()
    [0, 0, 812]
    >>> to_dn(np.array([-12.0, 0.4, 812.0], np.float32), has_offset=True).tolist()
    [988, 1000, 1812]
    """
    shifted = np.rint(scaled) - (BOA_OFFSET if has_offset else 0)
    dn: NDArray[np.uint16] = np.clip(shifted, 1 if has_offset else 0, SATURATED - 1).astype(np.uint16)
    return dn


def taken_out(dn: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """The DN once a provider has taken the offset out: clipped at 0, saturated values kept.

    >>> taken_out(np.array([0, 988, 1812, 65535], np.uint16)).tolist()
    [0, 0, 812, 65535]
    """
    lower: NDArray[np.uint16] = np.clip(dn.astype(np.int32) + BOA_OFFSET, 0, None).astype(np.uint16)
    lower[dn == SATURATED] = SATURATED
    return lower


def data_area(one: Pass, product: Product, canvas: GeoBox) -> BaseGeometry:
    """Where a product holds data, in the canvas' CRS; the whole tile's part for a product that holds none."""
    box: BaseGeometry = shapely.box(*bounds_of(product.tile.geobox(canvas, 10)))
    if product.empty:
        return box
    for a, b, x, y in _edges(one, product, canvas):
        foot = np.array([x, y])
        along, inwards = np.array([-b, a]) * _HUGE, np.array([a, b]) * _HUGE
        half = shapely.Polygon([foot - along, foot + along, foot + along + inwards, foot - along + inwards])
        box = box.intersection(half)
    return box


def _edges(one: Pass, product: Product, canvas: GeoBox) -> list[tuple[float, float, float, float]]:
    """Half-planes that bound the data: inwards direction (a, b) of length 1, and a point (x, y) of the edge."""
    height, width = canvas.shape
    edges: list[tuple[float, float, float, float]] = []
    if one.swath_ends:
        # The western edge of a descending orbit's swath: it runs from the upper right to the lower left.
        a, b = np.cos(np.radians(12.0)), -np.sin(np.radians(12.0))
        x, y = point_at(canvas, 0.38 * width, 0.5 * height)
        edges.append((a, b, x, y))
    if product.part != "whole":
        sign = 1.0 if product.part == "upper" else -1.0
        a, b = sign * np.sin(np.radians(8.0)), sign * np.cos(np.radians(8.0))
        tile = product.tile
        x, y = point_at(canvas, (tile.left + tile.right) / 2, (tile.top + tile.bottom) / 2)
        edges.append((a, b, x, y))
    return edges


def _observed(one: Pass, product: Product, canvas: GeoBox) -> NDArray[np.bool_]:
    """Where the product holds data, (y, x) at 20 m."""
    grid = product.tile.geobox(canvas, 20)
    if product.empty:
        return np.zeros(grid.shape, np.bool_)
    eastings = grid.affine.c + 20 * (np.arange(grid.shape[1]) + 0.5)
    northings = grid.affine.f - 20 * (np.arange(grid.shape[0]) + 0.5)
    inside = np.ones(grid.shape, np.bool_)
    for a, b, x, y in _edges(one, product, canvas):
        inside &= a * (eastings[None, :] - x) + b * (northings[:, None] - y) >= 0
    return inside


def _at(mask: NDArray[np.bool_], resolution: int) -> NDArray[np.bool_]:
    """A 20 m mask at another resolution; a 60 m pixel is set where any of its nine is."""
    if resolution == 10:
        return mask.repeat(2, axis=0).repeat(2, axis=1)
    if resolution == 60:
        return np.asarray(mask.reshape(mask.shape[0] // 3, 3, mask.shape[1] // 3, 3).any(axis=(1, 3)))
    return mask


def _glints(one: Pass, canvas: GeoBox, seed: int) -> NDArray[np.bool_]:
    """A few spots of sun glint, (y, x) at 20 m."""
    shape = (canvas.shape[0] // 2, canvas.shape[1] // 2)
    spots = np.zeros(shape, np.bool_)
    rng = generator(seed, "glint", one.index)
    for row, column in zip(rng.integers(2, shape[0] - 4, 6), rng.integers(2, shape[1] - 4, 6), strict=True):
        spots[row : row + 2, column : column + 2] = True
    return spots


def _crop_ground(ground: Ground, here: tuple[slice, slice]) -> Ground:
    return Ground(
        green=ground.green[here], water=ground.water[here], dark=ground.dark[here], bright=ground.bright[here]
    )


def _crop_sky(sky: Sky, here: tuple[slice, slice]) -> Sky:
    cut = {
        name: None if (field := getattr(sky, name)) is None else field[here]
        for name in ("cloud", "shadow", "cirrus", "snow")
    }
    return Sky(haze=sky.haze[here], **cut)
