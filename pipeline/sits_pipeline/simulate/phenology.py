"""Reflectance of every piece of land on every date, by double-logistic growth of its green cover."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
from numpy.typing import NDArray

from sits_pipeline.simulate.climates import Climate
from sits_pipeline.simulate.crops import COVERS, Cycle
from sits_pipeline.simulate.fields import generator
from sits_pipeline.simulate.spectra import GROUND_NAMES, GROUNDS, LEAVES, STRAW

__all__ = ["Growth", "double_logistic", "grow", "reflectance_of"]

Floats = NDArray[np.float32]
_YEAR = 365.25


@dataclass(frozen=True, kw_only=True)
class Growth:
    """Covers of every piece of land on every date, (piece, date) shares of the ground unless said otherwise."""

    green: Floats
    straw: Floats
    flower: Floats
    bare: Floats
    slope: Floats
    """Change of green cover a day."""
    cover: NDArray[np.intp]
    """(piece,) position in `crops.COVERS`."""
    soil: Floats
    """(piece, 12) reflectance of the dry ground."""


def double_logistic(day: NDArray[np.float64], rise: NDArray[np.float64], fall: NDArray[np.float64], *,
                    rise_rate: float, fall_rate: float) -> NDArray[np.float64]:  # fmt: skip
    """Share 0..1 that rises around the day `rise` and falls around the day `fall`; the arguments broadcast.

    >>> day = np.array([0.0, 100.0, 200.0, 300.0])
    >>> double_logistic(day, np.array(100.0), np.array(250.0), rise_rate=0.1, fall_rate=0.1).round(2).tolist()
    [0.0, 0.5, 0.99, 0.01]
    """
    return _logistic(rise_rate * (day - rise)) * _logistic(-fall_rate * (day - fall))


def _logistic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-np.clip(x, -40, 40)))


def grow(cover: NDArray[np.intp], dates: Sequence[date], climate: Climate, seed: int) -> Growth:
    """Covers of the pieces of land (piece,) on the dates; sowing, vigour and soil differ from piece to piece."""
    rng = generator(seed, "growth")
    n = len(cover)
    delay = climate.sowing_sd_days * rng.normal(size=n)
    vigour = np.clip(rng.normal(*climate.vigour, size=n), 0.3, 1.1)
    jitter = rng.normal(size=(n, 8))
    volunteers = np.where(rng.random(n) < 0.35, rng.uniform(0.15, 0.7, n), 0.0)
    soil = _soils(cover, climate, rng)
    day = np.array([float(d.timetuple().tm_yday) for d in dates])
    shape = (n, len(dates))
    green, straw, flower, later = (np.zeros(shape) for _ in range(4))
    for index in np.unique(cover):
        rows = np.flatnonzero(cover == index)
        parts = _grow_cover(int(index), day, climate, delay[rows], vigour[rows], jitter[rows], volunteers[rows])
        for target, part in zip((green, straw, flower, later), parts, strict=True):
            target[rows] = part
    green = np.clip(green, 0, 0.97)
    slope = np.clip(later, 0, 0.97) - green
    flower = np.minimum(flower, green)
    straw = np.clip(straw, 0, 1 - green)
    bare = 1 - green - straw
    arrays = [a.astype(np.float32) for a in (green, straw, flower, bare, slope)]
    green32, straw32, flower32, bare32, slope32 = arrays
    return Growth(green=green32, straw=straw32, flower=flower32, bare=bare32, slope=slope32, cover=cover, soil=soil)


def _grow_cover(
    index: int, day: NDArray[np.float64], climate: Climate, delay: NDArray[np.float64], vigour: NDArray[np.float64],
    jitter: NDArray[np.float64], volunteers: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:  # fmt: skip
    """Green, straw, flower and tomorrow's green cover (piece, date) of pieces with one cover."""
    cover = COVERS[index]
    shift = climate.shift_days[cover.season] + delay[:, None]
    withers = climate.dryness if cover.leaf == "grass" and cover.ground is None else 0.0
    summer = 200.0 + (182.0 if climate.southern else 0.0)
    green, straw, flower, later = (np.zeros((len(delay), len(day))) for _ in range(4))
    for number, cycle in enumerate(cover.cycles):
        move = shift + cycle.spread * 3.0 * jitter[:, number][:, None]
        green += _over_years(cycle, day - move) * vigour[:, None]
        later += _over_years(cycle, day + 1 - move) * vigour[:, None]
        straw += _straw_over_years(cycle, day - move) * vigour[:, None]
        if cycle.harvest is not None and cover.season != "perennial":
            regrown = Cycle(
                rise=cycle.harvest + 32, fall=cycle.harvest + 135, cover=1.0, rise_rate=0.12, fall_rate=0.06
            )
            green += _over_years(regrown, day - move) * volunteers[:, None]
            later += _over_years(regrown, day + 1 - move) * volunteers[:, None]
    green += cover.evergreen
    later += cover.evergreen
    dry = withers * np.exp(-0.5 * (_apart(day, summer) / 42.0) ** 2)
    straw += 0.8 * dry * green
    green *= 1 - 0.8 * dry
    later *= 1 - 0.8 * dry
    if cover.flower is not None:
        peak, width, share = cover.flower
        flower = share * np.exp(-0.5 * (_apart(day, peak + shift) / (width / 2)) ** 2) * green
    return green, straw, flower, later


def _over_years(cycle: Cycle, day: NDArray[np.float64]) -> NDArray[np.float64]:
    """Green cover of a cycle that comes back every year."""
    rise, fall = np.array(cycle.rise), np.array(cycle.fall)
    total = np.zeros_like(day)
    for year in (-2, -1, 0, 1):
        total += double_logistic(day - year * _YEAR, rise, fall, rise_rate=cycle.rise_rate, fall_rate=cycle.fall_rate)
    return cycle.cover * total


def _straw_over_years(cycle: Cycle, day: NDArray[np.float64]) -> NDArray[np.float64]:
    """What stands ripe until the harvest, and the residue that decays after it."""
    if cycle.harvest is None:
        return np.zeros_like(day)
    total = np.zeros_like(day)
    for year in (-2, -1, 0, 1):
        d = day - year * _YEAR
        cut = _logistic(1.5 * (d - cycle.harvest))
        ripe = _logistic(cycle.fall_rate * (d - cycle.fall)) * (1 - cut)
        residue = 0.75 * cut * np.exp(-np.clip(d - cycle.harvest, 0, None) / 28.0)
        total += ripe + residue
    return cycle.cover * total


def _apart(day: NDArray[np.float64], peak: float | NDArray[np.float64]) -> NDArray[np.float64]:
    """Days between two days of the year, -182..182."""
    return (day - peak + _YEAR / 2) % _YEAR - _YEAR / 2


def _soils(cover: NDArray[np.intp], climate: Climate, rng: np.random.Generator) -> Floats:
    """Ground reflectance (piece, 12): fixed for roads and water, a mix of the climate's soils elsewhere."""
    names = list(climate.soils)
    alpha = np.array([climate.soils[name] for name in names])
    mix = rng.dirichlet(3.0 * alpha / alpha.sum(), len(cover))
    brightness = rng.normal(1.0, 0.1, (len(cover), 1)).clip(0.7, 1.35)
    soil = (mix @ np.stack([GROUNDS[name] for name in names])) * brightness
    for index, land in enumerate(COVERS):
        rows = cover == index
        if land.ground in GROUND_NAMES and rows.any():
            tint = rng.normal(1.0, 0.0 if land.code in ("lake", "river") else 0.12, (int(rows.sum()), 1))
            soil[rows] = GROUNDS[land.ground] * tint.clip(0.6, 1.5)
    dry: Floats = soil.astype(np.float32)
    return dry


def reflectance_of(growth: Growth, date_index: int, columns: NDArray[np.intp], wetness: float) -> Floats:
    """Reflectance (piece, band) of pure pieces of land on one date; `wetness` 0..1 darkens the soil."""
    leaves = np.stack([LEAVES[cover.leaf] for cover in COVERS])[:, columns]
    flowers = np.stack([LEAVES.get(f"{cover.leaf} flower", LEAVES[cover.leaf]) for cover in COVERS])[:, columns]
    water = np.array([cover.ground in ("lake", "river") for cover in COVERS])[growth.cover]
    damp = np.where(water, 1.0, 1.0 - 0.4 * wetness).astype(np.float32)[:, None]
    flower = growth.flower[:, date_index, None]
    green = growth.green[:, date_index, None] - flower
    mixed = (
        growth.bare[:, date_index, None] * growth.soil[:, columns] * damp
        + growth.straw[:, date_index, None] * STRAW[columns]
        + green * leaves[growth.cover]
        + flower * flowers[growth.cover]
    )
    return np.asarray(mixed, np.float32)
