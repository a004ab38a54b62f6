"""Sky and ground cover of one pass: clouds with shadows, cirrus, haze, snow; and an SCL that errs at their edges."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import date

import numpy as np
from numpy.typing import NDArray

from sits_catalog.sentinel2 import Scl
from sits_pipeline.simulate.fields import generator, smooth_field, white_noise
from sits_pipeline.simulate.schedule import Pass

__all__ = ["Ground", "Sky", "classify", "make_sky", "sun_angles"]

Floats = NDArray[np.float32]
_CLOUD_HEIGHT_M = 750.0
_CELL_M = 20


@dataclass(frozen=True, kw_only=True)
class Sky:
    """Shares 0..1 a 20 m pixel (y, x); None where the pass has none at all."""

    cloud: Floats | None
    shadow: Floats | None
    cirrus: Floats | None
    snow: Floats | None
    haze: Floats
    """Haze that was left (positive) or taken out in excess (negative)."""


@dataclass(frozen=True, kw_only=True)
class Ground:
    """What the classifier sees of the ground, (y, x) at 20 m."""

    green: Floats
    water: Floats
    dark: Floats
    """Share of woods, which a low sun makes dark."""
    bright: Floats
    """Share of bright roofs, which look like cloud."""


def sun_angles(day: date, latitude: float) -> tuple[float, float]:
    """Azimuth and elevation of the sun in degrees at 10:36 local solar time."""
    declination = math.radians(-23.44 * math.cos(2 * math.pi * (day.timetuple().tm_yday + 10) / 365.25))
    hour, phi = math.radians(-21.0), math.radians(latitude)
    sine = math.sin(phi) * math.sin(declination) + math.cos(phi) * math.cos(declination) * math.cos(hour)
    east = -math.cos(declination) * math.sin(hour)
    north = math.cos(phi) * math.sin(declination) - math.sin(phi) * math.cos(declination) * math.cos(hour)
    return math.degrees(math.atan2(east, north)) % 360, math.degrees(math.asin(sine))


def make_sky(one: Pass, shape: tuple[int, int], *, latitude: float, seed: int) -> Sky:
    """The sky over the canvas, (y, x) at 20 m."""
    extent_px = max(shape)
    cloud = shadow = cirrus = snow = None
    if one.cloud_share > 0:
        cloud, shadow = _clouds(one, shape, latitude, seed)
    if one.cirrus > 0:
        veil = smooth_field(generator(seed, "cirrus", one.index), shape, 0.5 * extent_px, octaves=5)
        cirrus = np.float32(one.cirrus) * np.clip(0.5 * veil - 0.1, 0, 1)
    if one.snow > 0:
        drifts = smooth_field(generator(seed, "snow", one.index), shape, 0.3 * extent_px, octaves=6)
        snow = _ramp(drifts, one.snow, 0.3)
    haze = np.float32(one.haze) * (
        1 + 0.25 * smooth_field(generator(seed, "haze", one.index), shape, extent_px, octaves=2)
    )
    return Sky(cloud=cloud, shadow=shadow, cirrus=cirrus, snow=snow, haze=haze)


def _clouds(one: Pass, shape: tuple[int, int], latitude: float, seed: int) -> tuple[Floats, Floats]:
    """Clouds, and their shadows moved away from the sun."""
    azimuth, elevation = sun_angles(one.day, latitude)
    length = min(_CLOUD_HEIGHT_M / math.tan(math.radians(max(elevation, 12.0))) / _CELL_M, 0.3 * max(shape))
    rows = round(length * math.cos(math.radians(azimuth)))  # away from the sun: north is up, rows grow southwards
    columns = round(-length * math.sin(math.radians(azimuth)))
    pad = max(abs(rows), abs(columns))
    rng = generator(seed, "clouds", one.index)
    scale = min(float(rng.uniform(25, 110)), 0.5 * max(shape))
    field = smooth_field(rng, (shape[0] + 2 * pad, shape[1] + 2 * pad), scale, octaves=6)
    opacity = _ramp(field, one.cloud_share, float(rng.uniform(0.25, 0.9)))
    below = opacity[pad - rows : pad - rows + shape[0], pad - columns : pad - columns + shape[1]]
    above = opacity[pad : pad + shape[0], pad : pad + shape[1]]
    return np.ascontiguousarray(above), below * (1 - above)


def _ramp(field: Floats, share: float, width: float) -> Floats:
    """0..1, at least a half on `share` of the field, rising over `width` deviations."""
    level = np.float32(np.quantile(field, 1 - share))
    ramp: Floats = np.clip((field - level) / np.float32(width) + np.float32(0.5), 0, 1)
    return ramp


def classify(ground: Ground, sky: Sky, *, elevation: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """SCL (y, x) at 20 m of what `ground` and `sky` hold there, with the mistakes that Sen2Cor makes.

    Edges of clouds and shadows are drawn wrongly by some pixels, thin edges missed, bright roofs taken for cloud.
    """
    shape = ground.green.shape
    fine = white_noise(rng, shape)
    edge = np.clip(smooth_field(rng, shape, 5, octaves=2), -1.5, 1.5)
    scl = np.full(shape, Scl.NOT_VEGETATED, np.uint8)
    scl[ground.green + 0.04 * fine > 0.5] = Scl.VEGETATION
    scl[(np.abs(ground.green - 0.5) < 0.03) & (fine > 1.2)] = Scl.UNCLASSIFIED
    if elevation < 24:
        scl[(ground.dark > 0.6) & (fine > 0.2)] = Scl.DARK_AREA
    scl[ground.water + 0.06 * fine > 0.62] = Scl.WATER
    scl[(ground.bright > 0.8) & (fine > 0.8)] = Scl.CLOUD_MEDIUM
    if sky.snow is not None:
        scl[sky.snow + 0.03 * fine > 0.15] = Scl.SNOW_OR_ICE
    if sky.shadow is not None:
        wrong = 0.28 * edge * 4 * sky.shadow * (1 - sky.shadow)
        scl[sky.shadow + wrong > 0.55] = Scl.CLOUD_SHADOW
    if sky.cirrus is not None:
        scl[sky.cirrus + 0.05 * edge > 0.3] = Scl.THIN_CIRRUS
    if sky.cloud is not None:
        # The error is largest on the edge and nothing in clear sky or in the middle of a cloud.
        seen = sky.cloud + 0.18 * edge * 4 * sky.cloud * (1 - sky.cloud) + 0.02 * fine * (sky.cloud > 0)
        scl[(seen > 0.06) & (seen <= 0.35) & (fine > -1.5)] = Scl.UNCLASSIFIED
        scl[seen > 0.35] = Scl.CLOUD_MEDIUM
        scl[seen > 0.7] = Scl.CLOUD_HIGH
    return scl
