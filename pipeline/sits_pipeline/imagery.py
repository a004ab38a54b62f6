"""The pixels of solar days on one grid: scenes read, harmonized, masked and merged; for cells and for patches alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from datetime import date
from functools import partial
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.features import geometry_mask

from sits_catalog.cube import MAX_ITEMS_A_DATE, NO_SOURCE, Quality
from sits_catalog.sentinel2 import SATURATED
from sits_pipeline.plan.lattice import project
from sits_pipeline.sources.base import SceneSource
from sits_pipeline.steps.harmonize import harmonize
from sits_pipeline.steps.mask import clear_of, quality_of
from sits_pipeline.steps.mosaic import Layer, mosaic
from sits_pipeline.steps.resample import bilinear, repeat
from sits_pipeline.values import Frame, JsonObject, Raster, ReadFailure, Scene, Verdict, epsg_of, shape_of

__all__ = ["Day", "DayNotes", "Images", "Reading", "Visit", "failures_of", "of_services", "read_images", "visit_of"]


@dataclass(frozen=True, kw_only=True)
class Visit:
    """A scene of one day that may cover the cell."""

    source_index: int
    scene: Scene
    offset: int | None
    """BOA offset to add, in DN; None: unknown, the scene counts as unread."""
    reason: str
    """What its audit found; why the offset is unknown."""


def visit_of(position: int, scene: Scene, verdict: Verdict) -> Visit:
    """What a worker needs to know of a scene of an acquisition; its item and its twin's stay behind."""
    twin = None if scene.twin is None else replace(scene.twin, item={})
    bare = replace(scene, item={}, twin=twin)
    return Visit(source_index=position, scene=bare, offset=verdict.applied, reason=verdict.reason)


@dataclass(frozen=True, kw_only=True)
class Day:
    """The scenes of one solar day near a grid, in the order in which they fill pixels."""

    day: date
    visits: tuple[Visit, ...]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How the dates of one grid are read."""

    source: SceneSource
    geobox: GeoBox
    bands: tuple[str, ...]
    resampling: Literal["nearest", "bilinear"]
    inside: NDArray[np.bool_] | None
    """(y, x): where pixels may be observed at all; None: everywhere."""


@dataclass(frozen=True)
class Images:
    """All dates of a grid."""

    reflectance: NDArray[np.uint16]
    """(time, band, y, x)"""
    scl: NDArray[np.uint8]
    quality: NDArray[np.uint8]
    source_index: NDArray[np.uint8]

    def frame(self, index: int) -> Frame:
        """One date, as a view."""
        return Frame(
            reflectance=self.reflectance[index],
            scl=self.scl[index],
            quality=self.quality[index],
            source_index=self.source_index[index],
        )

    @classmethod
    def empty(cls, n_days: int, n_bands: int, shape: tuple[int, int]) -> Self:
        """Dates without an observation; `shape` is (height, width)."""
        return cls(
            reflectance=np.zeros((n_days, n_bands, *shape), np.uint16),
            scl=np.zeros((n_days, *shape), np.uint8),
            quality=np.zeros((n_days, *shape), np.uint8),
            source_index=np.full((n_days, *shape), NO_SOURCE, np.uint8),
        )


@dataclass
class DayNotes:
    """What one date gave."""

    failures: list[ReadFailure] = field(default_factory=list)
    remarks: list[tuple[str, str]] = field(default_factory=list)
    """Item, and what its source says of how it was read."""
    processing_units: float = 0.0
    used: list[int] = field(default_factory=list)
    observed: int = 0
    clear: int = 0


def read_images(reading: Reading, days: Sequence[Day], images: Images, pool: Executor) -> list[DayNotes]:
    """Fill empty `images` with so many days, each by a thread of the pool; notes by day."""
    return list(pool.map(partial(_read_day, reading), days, map(images.frame, range(len(days)))))


def _read_day(reading: Reading, day: Day, frame: Frame) -> DayNotes:
    notes = DayNotes()
    failures: dict[int, tuple[ReadFailure, ...]] = {}
    missed = mosaic(_layers(reading, day, failures, notes), frame, reading.inside)
    notes.failures = [failure for source in missed for failure in failures[source]]
    indices = [visit.source_index for visit in day.visits]
    notes.used = [source for source in indices if (frame.source_index == source).any()]
    notes.observed = int(np.count_nonzero(frame.quality & 1))
    notes.clear = int(np.count_nonzero(clear_of(frame.quality)))
    return notes


def _layers(
    reading: Reading, day: Day, failures: dict[int, tuple[ReadFailure, ...]], notes: DayNotes
) -> Iterator[Layer]:
    """The day's layers, each read when it is asked for; failures, remarks and charges are noted."""
    pad = 1 if reading.resampling == "bilinear" else 0
    rasters = reading.source.read([visit.scene for visit in day.visits], reading.geobox, reading.bands, pad=pad)
    for visit, raster in zip(day.visits, rasters, strict=True):
        notes.processing_units += raster.processing_units
        if raster.note:
            notes.remarks.append((visit.scene.id, raster.note))
        if visit.offset is None:
            # Read all the same: its SCL says which pixels are unread, and the band behind it may be named.
            failure = ReadFailure(item=visit.scene.id, band="*", error=visit.reason)
            raster = replace(raster, failures=(failure, *raster.failures))
        failures[visit.source_index] = raster.failures
        yield _layer_of(raster, visit, reading)


def _layer_of(raster: Raster, visit: Visit, reading: Reading) -> Layer:
    shape = shape_of(reading.geobox)
    scl = np.zeros(shape, np.uint8)
    if "SCL" in raster.bands:
        repeat(raster.bands["SCL"], raster.bands["SCL"].dn.astype(np.uint8, copy=False), scl)
    bits = quality_of(scl)
    if raster.failures or visit.offset is None:
        return Layer(
            source_index=visit.source_index,
            render=None,
            scl=scl,
            bits=bits,
            observed=np.zeros(shape, bool),
            unread=_covered(raster, visit.scene, reading.geobox, scl),
        )
    return Layer(
        source_index=visit.source_index,
        render=partial(_render, raster, reading, visit.offset),
        scl=scl,
        bits=bits | _saturated(raster, reading.bands, shape),
        observed=_observed(raster, reading.bands, scl, shape),
        unread=None,
    )


def _render(raster: Raster, reading: Reading, offset: int, out: NDArray[np.uint16]) -> None:
    """Write a scene's reflectance, resampled and harmonized, into `out` (band, y, x)."""
    for name, band in zip(reading.bands, out, strict=True):
        window = raster.bands[name]
        if reading.resampling == "bilinear" and window.factor > 1:
            band[...] = harmonize(bilinear(window, shape_of(reading.geobox)), offset)
        else:
            repeat(window, harmonize(window.dn.astype(np.uint16, copy=False), offset), band)


def _saturated(raster: Raster, bands: tuple[str, ...], shape: tuple[int, int]) -> NDArray[np.uint8] | np.uint8:
    """The bit SATURATED_OR_DEFECTIVE where a band is saturated."""
    found: NDArray[np.uint8] | np.uint8 = np.uint8(0)
    for name in bands:
        window = raster.bands[name]
        if window.dn.size and window.dn.max() == SATURATED:
            where = np.empty(shape, bool)
            repeat(window, window.dn == SATURATED, where)
            found = found | (where * np.uint8(Quality.SATURATED_OR_DEFECTIVE))
    return found


def _observed(
    raster: Raster, bands: tuple[str, ...], scl: NDArray[np.uint8], shape: tuple[int, int]
) -> NDArray[np.bool_]:
    """Where the scene observes: SCL not 0 and one band > 0; without SCL, all bands > 0."""
    if "SCL" not in raster.bands:
        return np.asarray(np.logical_and.reduce([_positive(raster, name, shape) for name in bands]))
    observed: NDArray[np.bool_] = scl != 0
    missing = observed & ~_positive(raster, bands[0], shape)
    for name in bands[1:]:
        # Nearly always the first band has no 0 where SCL says there is data.
        if not missing.any():
            break
        missing &= ~_positive(raster, name, shape)
    return observed & ~missing


def _positive(raster: Raster, name: str, shape: tuple[int, int]) -> NDArray[np.bool_]:
    out = np.empty(shape, bool)
    window = raster.bands[name]
    repeat(window, window.dn > 0, out)
    return out


def _covered(raster: Raster, scene: Scene, geobox: GeoBox, scl: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where an unread scene holds data, by what could be read of it, else by its footprint."""
    if "SCL" in raster.bands:
        return np.asarray(scl != 0)
    shape = shape_of(geobox)
    if raster.bands:
        return np.asarray(np.logical_or.reduce([_positive(raster, name, shape) for name in raster.bands]))
    footprint = project(scene.footprint, epsg_of(geobox))
    return np.asarray(geometry_mask([footprint], shape, geobox.affine, invert=True))


# What the journal says


def failures_of(days: Sequence[Day], notes: Sequence[DayNotes]) -> list[JsonObject]:
    """What could not be read: {day, item, band, error}."""
    return [
        {"day": day.day.isoformat(), "item": failure.item, "band": failure.band, "error": failure.error}
        for day, note in zip(days, notes, strict=True)
        for failure in note.failures
    ]


def of_services(days: Sequence[Day], notes: Sequence[DayNotes]) -> JsonObject:
    """What services said and charged; nothing at all for files."""
    remarks = [
        {"day": day.day.isoformat(), "item": item, "note": note}
        for day, found in zip(days, notes, strict=True)
        for item, note in found.remarks
    ]
    units = round(sum(found.processing_units for found in notes), 6)
    return {**({"notes": remarks} if remarks else {}), **({"processing_units": units} if units else {})}


assert MAX_ITEMS_A_DATE < NO_SOURCE
