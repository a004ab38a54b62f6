"""The ground as the sensor's grids see it: reflectance of a canvas on a date, band by band."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from sits_catalog.sentinel2 import BANDS
from sits_pipeline.simulate.atmosphere import Ground, Sky
from sits_pipeline.simulate.climates import Climate
from sits_pipeline.simulate.crops import COVERS
from sits_pipeline.simulate.fields import block_mean, generator, smooth_field, white_noise
from sits_pipeline.simulate.landscape import Landscape
from sits_pipeline.simulate.mixing import Shares, share_pixels
from sits_pipeline.simulate.phenology import Growth, grow, reflectance_of
from sits_pipeline.simulate.spectra import GROUNDS, LEAVES, SKY, band_columns

__all__ = ["Scenery", "make_scenery", "render"]

Floats = NDArray[np.float32]
_SAMPLES = {10: 4, 20: 6, 60: 8}
"""Points a pixel and direction at which the landscape is sampled."""
_NOISE = 0.0011
"""Deviation of the sensor's noise, reflectance."""
_LOOKS_LIKE_ROOF = ("hall",)


@dataclass(frozen=True, kw_only=True)
class _View:
    """What stays the same through the season on one grid, each (y, x)."""

    shares: Shares
    vigour: Floats
    """Variation of green cover inside parcels, deviation 1."""
    delay: Floats
    """Days by which growth is late, inside parcels."""
    soil: Floats
    """Relative brightness of the soil inside parcels."""
    texture: Floats
    """Factor that stays with a pixel."""


@dataclass(frozen=True, kw_only=True)
class Scenery:
    """A landscape with its growth, ready to be rendered on the grids of 10, 20 and 60 m."""

    views: Mapping[int, _View]
    """By resolution in metres."""
    growth: Growth
    contrast: Floats
    """(12,) what a unit more of green cover changes."""
    seed: int

    def ground(self, date_index: int) -> Ground:
        """What a classifier sees at 20 m."""
        spread = self.views[20].shares.spread
        kind = self.growth.cover

        def share(*codes: str) -> Floats:
            return spread(np.array([cover.code in codes for cover in COVERS], np.float32)[kind])

        return Ground(
            green=spread(self.growth.green[:, date_index]),
            water=share("lake", "river"),
            dark=share("conifer", "broadleaf"),
            bright=share(*_LOOKS_LIKE_ROOF),
        )


def make_scenery(
    landscape: Landscape,
    canvas: GeoBox,
    dates: Sequence[date],
    climate: Climate,
    *,
    resolutions: Sequence[int],
    seed: int,
) -> Scenery:
    """Rasterize the pieces of land once for each resolution, and let them grow."""
    growth = grow(landscape.cover, dates, climate, seed)
    soil = sum((share * GROUNDS[name] for name, share in climate.soils.items()), np.zeros(len(BANDS), np.float32))
    shape = (canvas.shape[0], canvas.shape[1])
    within = {
        "vigour": smooth_field(generator(seed, "vigour"), shape, 40, octaves=4),
        "delay": smooth_field(generator(seed, "delay"), shape, 30, octaves=3)
        * np.float32(0.4 * climate.sowing_sd_days),
        "soil": smooth_field(generator(seed, "soil"), shape, 24, octaves=4) * np.float32(0.1),
    }
    grain = white_noise(generator(seed, "texture"), shape)
    rough = np.array([cover.texture for cover in COVERS], np.float32)[landscape.cover]
    views = {}
    for resolution in resolutions:
        factor = resolution // 10
        corner = canvas.affine
        affine = Affine(resolution, 0, corner.c, 0, -resolution, corner.f)
        geobox = GeoBox((shape[0] // factor, shape[1] // factor), affine, canvas.crs)
        shares = share_pixels(landscape.geometry, geobox, _SAMPLES[resolution])
        fields = {name: block_mean(field, factor) for name, field in within.items()}
        texture = 1 + shares.spread(rough) * block_mean(grain, factor)
        views[resolution] = _View(shares=shares, texture=texture, **fields)
    return Scenery(views=views, growth=growth, contrast=(LEAVES["cereal"] - soil).astype(np.float32), seed=seed)


def render(scenery: Scenery, date_index: int, bands: Sequence[str], sky: Sky, *, wetness: float) -> dict[str, Floats]:
    """Bottom-of-atmosphere reflectance of the canvas, band by band, (y, x) on the band's own grid."""
    columns = band_columns(tuple(bands))
    pure = reflectance_of(scenery.growth, date_index, columns, wetness)
    rendered: dict[str, Floats] = {}
    for resolution in sorted({BANDS[band].resolution_m for band in bands}):
        view = scenery.views[resolution]
        change, bare = _within_parcels(scenery.growth, view, date_index)
        veil = _regrid(sky, resolution)
        for position, band in enumerate(bands):
            if BANDS[band].resolution_m != resolution:
                continue
            image = view.shares.spread(np.ascontiguousarray(pure[:, position]))
            image += change * scenery.contrast[columns[position]]
            image *= 1 + bare
            image *= view.texture
            _cover_up(image, veil, int(columns[position]))
            noise = white_noise(generator(scenery.seed, "noise", date_index, band), image.shape)
            noise *= np.float32(_NOISE) + np.float32(0.004) * np.abs(image)
            image += noise
            rendered[band] = image
    return rendered


def _within_parcels(growth: Growth, view: _View, date_index: int) -> tuple[Floats, Floats]:
    """Change of green cover, and relative change of brightness by bare soil, (y, x)."""
    green, slope = growth.green[:, date_index], growth.slope[:, date_index]
    alive = np.array([cover.ground is None for cover in COVERS], np.float32)[growth.cover]
    change = view.shares.spread(np.float32(0.42) * green * (np.float32(1.12) - green) * alive) * view.vigour
    change -= view.shares.spread(slope * alive) * view.delay
    np.clip(change, -0.3, 0.3, out=change)
    bare = view.shares.spread(growth.bare[:, date_index] * alive) * view.soil
    return change, bare


def _regrid(sky: Sky, resolution: int) -> Sky:
    """The sky, given at 20 m, at another resolution."""
    if resolution == 20:
        return sky
    return Sky(
        cloud=_resample(sky.cloud, resolution),
        shadow=_resample(sky.shadow, resolution),
        cirrus=_resample(sky.cirrus, resolution),
        snow=_resample(sky.snow, resolution),
        haze=_zoom(sky.haze) if resolution == 10 else block_mean(sky.haze, 3),
    )


def _resample(field: Floats | None, resolution: int) -> Floats | None:
    if field is None:
        return None
    return _zoom(field) if resolution == 10 else block_mean(field, 3)


def _zoom(field: Floats) -> Floats:
    """Twice as many pixels a side, linear between them."""
    for axis in (0, 1):
        edge = np.pad(field, [(1, 1) if a == axis else (0, 0) for a in (0, 1)], mode="edge")
        before, after = np.delete(edge, (-2, -1), axis), np.delete(edge, (0, 1), axis)
        pair = np.stack([0.75 * field + 0.25 * before, 0.75 * field + 0.25 * after], axis=axis + 1)
        field = pair.reshape(tuple(side * (2 if a == axis else 1) for a, side in enumerate(field.shape)))
    return field.astype(np.float32, copy=False)


def _cover_up(image: Floats, sky: Sky, column: int) -> None:
    """Snow on the ground, then shadow, haze, cirrus and cloud over it, in place."""
    light = {name: spectrum[column] for name, spectrum in SKY.items()}
    if sky.snow is not None:
        image += sky.snow * (light["snow"] - image)
    if sky.shadow is not None:
        image *= 1 - light["shadow"] * sky.shadow
    image += light["haze"] * sky.haze
    if sky.cirrus is not None:
        image *= 1 - np.float32(0.2) * sky.cirrus
        image += light["cirrus"] * sky.cirrus
    if sky.cloud is not None:
        image += sky.cloud * (light["cloud"] - image)
