"""One cell of a cube, from source pixels to stored shards: the plain function that every worker runs."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import date
from functools import partial
from typing import Any, Literal

import numpy as np
import shapely
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.features import geometry_mask

from sits_catalog.cube import IGNORE, MAX_ITEMS_A_DATE, NO_SOURCE, Quality, Split
from sits_catalog.region import LabelRule
from sits_catalog.sentinel2 import SATURATED
from sits_pipeline.folder import Folder
from sits_pipeline.plan.lattice import inside_strip, project
from sits_pipeline.sources.base import SceneSource
from sits_pipeline.splits import SplitPlan, split_raster
from sits_pipeline.steps.chips import ChipFrame, count_chips
from sits_pipeline.steps.harmonize import harmonize
from sits_pipeline.steps.mask import clear_of, quality_of
from sits_pipeline.steps.mosaic import Layer, mosaic
from sits_pipeline.steps.overview import overview_of
from sits_pipeline.steps.rasterize import rasterize, rasterize_finer
from sits_pipeline.steps.resample import bilinear, repeat
from sits_pipeline.steps.statistics import accumulate
from sits_pipeline.store import write_cell
from sits_pipeline.values import (
    Frame,
    JsonObject,
    Labels,
    Parcels,
    Raster,
    ReadFailure,
    Scene,
    Window,
    epsg_of,
    shape_of,
)

__all__ = ["CellTask", "Day", "Visit", "build_cell"]

_UNLABELLED = {"crop_type": IGNORE, "parcel_id": 0, "split": Split.NONE}
"""Label arrays, on every lattice, that say nothing outside of the zone's strip, and how they say it."""


@dataclass(frozen=True, kw_only=True)
class Visit:
    """A scene of one day that may cover the cell."""

    source_index: int
    scene: Scene
    offset: int | None
    """BOA offset to add, in DN; None: unknown, the scene counts as unread."""
    reason: str
    """What its audit found; why the offset is unknown."""


@dataclass(frozen=True, kw_only=True)
class Day:
    """The scenes of one solar day near a cell, in the order in which they fill pixels."""

    day: date
    visits: tuple[Visit, ...]


@dataclass(frozen=True, kw_only=True)
class CellTask:
    """All that a worker needs to compute a cell; small enough to travel."""

    folder: Folder
    window: Window
    geobox: GeoBox
    """The cell's grid."""
    clip_to_strip: bool
    """Whether pixels outside of the zone's strip stay unobserved and unlabelled: they are another zone's."""
    source: SceneSource
    days: tuple[Day, ...]
    """One entry a date of the cube."""
    bands: tuple[str, ...]
    resampling: Literal["nearest", "bilinear"]
    parcels: Parcels | None
    """Parcels within 110 m of the cell; None: a cube without labels."""
    known: shapely.Geometry | None
    rule: LabelRule
    splits: SplitPlan | None
    chips: tuple[ChipFrame, ...]
    """Parcel chips that meet the cell."""
    threads: int


@dataclass(frozen=True)
class _Images:
    """All dates of a cell."""

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


LabelBlocks = dict[str, NDArray[Any]]


@dataclass
class _DayNotes:
    """What one date of a cell gave."""

    failures: list[ReadFailure] = field(default_factory=list)
    used: list[int] = field(default_factory=list)
    observed: int = 0
    clear: int = 0


def build_cell(task: CellTask) -> JsonObject:
    """Compute a cell, write its shards and return its journal entry."""
    started = time.monotonic()
    inside = inside_strip(task.geobox, epsg_of(task.geobox)) if task.clip_to_strip else None
    with ThreadPoolExecutor(task.threads) as pool:
        labels = pool.submit(_labels_of, task, inside)
        images, notes = _read_images(task, inside, pool)
        overview = pool.map(overview_of, images.reflectance, images.quality)
        counts = pool.submit(_counts_of, task, images, notes, labels)
        # The store compresses the first and largest block while overview and counts are still on their way.
        written = write_cell(task.folder, task.window, _blocks(images, overview, labels))
        entry = counts.result()
    entry["shards"] = {key: [shard.size, shard.sha256] for key, shard in written.items()}
    entry["seconds"] = round(time.monotonic() - started, 3)
    return entry


def _blocks(
    images: _Images, overview: Iterator[tuple[NDArray[np.uint16], NDArray[np.uint8]]], labels: Future[LabelBlocks]
) -> Iterator[tuple[str, NDArray[Any]]]:
    """All blocks of a cell by array path, each when it is there."""
    yield "reflectance", images.reflectance
    yield "scl", images.scl
    yield "quality", images.quality
    yield "source_index", images.source_index
    yield from labels.result().items()
    means, bits = zip(*overview, strict=True)
    yield "overview/reflectance", np.stack(means)
    yield "overview/quality", np.stack(bits)


# Imagery


def _read_images(
    task: CellTask, inside: NDArray[np.bool_] | None, pool: ThreadPoolExecutor
) -> tuple[_Images, list[_DayNotes]]:
    """All dates; `inside` (y, x) is where pixels may be observed at all, None: everywhere."""
    shape, n_days = shape_of(task.geobox), len(task.days)
    images = _Images(
        reflectance=np.zeros((n_days, len(task.bands), *shape), np.uint16),
        scl=np.zeros((n_days, *shape), np.uint8),
        quality=np.zeros((n_days, *shape), np.uint8),
        source_index=np.full((n_days, *shape), NO_SOURCE, np.uint8),
    )
    read = partial(_read_day, task, images, inside)
    return images, list(pool.map(read, range(n_days)))


def _read_day(task: CellTask, images: _Images, inside: NDArray[np.bool_] | None, index: int) -> _DayNotes:
    notes, frame = _DayNotes(), images.frame(index)
    failures: dict[int, tuple[ReadFailure, ...]] = {}
    missed = mosaic(_layers(task, task.days[index], failures), frame, inside)
    notes.failures = [failure for source in missed for failure in failures[source]]
    indices = [visit.source_index for visit in task.days[index].visits]
    notes.used = [source for source in indices if (frame.source_index == source).any()]
    notes.observed = int(np.count_nonzero(frame.quality & 1))
    notes.clear = int(np.count_nonzero(clear_of(frame.quality)))
    return notes


def _layers(task: CellTask, day: Day, failures: dict[int, tuple[ReadFailure, ...]]) -> Iterator[Layer]:
    """The day's layers, each read when it is asked for; failures are noted."""
    pad = 1 if task.resampling == "bilinear" else 0
    rasters = task.source.read([visit.scene for visit in day.visits], task.geobox, task.bands, pad=pad)
    for visit, raster in zip(day.visits, rasters, strict=True):
        if visit.offset is None:
            # Read all the same: its SCL says which pixels are unread, and the band behind it may be named.
            failure = ReadFailure(item=visit.scene.id, band="*", error=visit.reason)
            raster = replace(raster, failures=(failure, *raster.failures))
        failures[visit.source_index] = raster.failures
        yield _layer_of(raster, visit, task)


def _layer_of(raster: Raster, visit: Visit, task: CellTask) -> Layer:
    shape = shape_of(task.geobox)
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
            unread=_covered(raster, visit.scene, task.geobox, scl),
        )
    return Layer(
        source_index=visit.source_index,
        render=partial(_render, raster, task, visit.offset),
        scl=scl,
        bits=bits | _saturated(raster, task.bands, shape),
        observed=_observed(raster, task.bands, scl, shape),
        unread=None,
    )


def _render(raster: Raster, task: CellTask, offset: int, out: NDArray[np.uint16]) -> None:
    """Write a scene's reflectance, resampled and harmonized, into `out` (band, y, x)."""
    for name, band in zip(task.bands, out, strict=True):
        window = raster.bands[name]
        if task.resampling == "bilinear" and window.factor > 1:
            band[...] = harmonize(bilinear(window, shape_of(task.geobox)), offset)
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


# Labels


def _labels_of(task: CellTask, inside: NDArray[np.bool_] | None) -> LabelBlocks:
    """Label blocks by array path, none for a cube without parcels; outside of the strip nothing is labelled.

    Coverage, conflict and the distance to boundaries stay as drawn there: they describe the ground, whichever zone
    it belongs to, so that a build with `place.crs` agrees with this one. The distance is negative, as for any pixel
    without a parcel.
    """
    if task.parcels is None:
        return {}
    labels: Labels = rasterize(task.parcels, task.geobox, rule=task.rule, known=task.known)
    blocks: dict[str, NDArray[Any]] = {name: getattr(labels, name) for name in Labels.__dataclass_fields__}
    if task.splits is not None:
        blocks["split"] = split_raster(task.splits, task.parcels, task.geobox)
    for factor in task.rule.finer:
        finer = rasterize_finer(task.parcels, task.geobox, factor=factor, rule=task.rule, known=task.known)
        for name in ("crop_type", "parcel_id", "coverage"):
            blocks[f"labels_x{factor}/{name}"] = getattr(finer, name)
    if inside is not None:
        _clip(blocks, ~inside)
    return blocks


def _clip(blocks: Mapping[str, NDArray[Any]], outside: NDArray[np.bool_]) -> None:
    """Take the labels off the pixels `outside` (y, x); finer pixels go with the 10 m pixel they lie in."""
    distance = blocks["boundary_distance"]
    distance[outside] = -np.abs(distance[outside])
    for path, values in blocks.items():
        name = path.rpartition("/")[2]
        if name in _UNLABELLED:
            factor = len(values) // len(outside)
            where = outside.repeat(factor, axis=0).repeat(factor, axis=1)
            values[where] = _UNLABELLED[name]


# Counts for the finish step


def _counts_of(
    task: CellTask,
    images: _Images,
    notes: list[_DayNotes],
    drawn: Future[LabelBlocks],
) -> JsonObject:
    """The journal entry: everything that finish needs to know of this cell."""
    labels = drawn.result()
    clear = clear_of(images.quality)
    train = labels["split"] == 1 if "split" in labels else None
    sums = accumulate(images.reflectance, clear, train)
    chips = count_chips(
        task.window, task.chips, clear, labels.get("crop_type"), labels.get("parcel_id"), labels.get("split")
    )
    return {
        "kind": "cell",
        "cell": [task.window.row, task.window.column, task.window.height, task.window.width],
        "empty": not any(note.observed for note in notes),
        "observed": [note.observed for note in notes],
        "clear": [note.clear for note in notes],
        "used": [note.used for note in notes],
        "failures": [
            {"day": day.day.isoformat(), "item": failure.item, "band": failure.band, "error": failure.error}
            for day, note in zip(task.days, notes, strict=True)
            for failure in note.failures
        ],
        "classes": _histogram(labels.get("crop_type")),
        "parcels": _histogram(labels.get("parcel_id"), skip_zero=True),
        "splits": _histogram(labels.get("split")),
        "bands": sums,
        **chips,
    }


def _histogram(values: NDArray[Any] | None, *, skip_zero: bool = False) -> dict[str, int]:
    """Pixels a value, keyed by the value as text."""
    if values is None:
        return {}
    found, counts = np.unique(values, return_counts=True)
    return {str(v): int(n) for v, n in zip(found, counts, strict=True) if v or not skip_zero}


assert MAX_ITEMS_A_DATE < NO_SOURCE
