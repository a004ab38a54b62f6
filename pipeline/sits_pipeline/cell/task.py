"""A cell as a worker gets it, computed and written at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import shapely
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from sits_catalog.cube import IGNORE, Split
from sits_catalog.region import LabelRule
from sits_pipeline.folder import Folder
from sits_pipeline.imagery import Day, DayNotes, Images, Reading, failures_of, of_services, read_images
from sits_pipeline.plan.lattice import inside_strip
from sits_pipeline.sources.base import SceneSource
from sits_pipeline.splits import SplitPlan, area_raster, keep_labels_apart, split_raster
from sits_pipeline.steps.chips import ChipFrame, count_chips
from sits_pipeline.steps.mask import clear_of
from sits_pipeline.steps.overview import overview_of
from sits_pipeline.steps.rasterize import rasterize, rasterize_finer
from sits_pipeline.steps.statistics import accumulate
from sits_pipeline.store import write_cell
from sits_pipeline.values import (
    JsonObject,
    Labels,
    Parcels,
    Window,
    epsg_of,
    shape_of,
)

__all__ = ["CellTask", "build_whole", "split_counts", "split_of_cell"]

_UNLABELLED = {"crop_type": IGNORE, "parcel_id": 0}
"""Label arrays, on every lattice, that say nothing outside of the zone's strip, and how they say it."""


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
    shard_by_shard: bool = False
    """Whether each shard is computed and written before the next one is read, for want of memory."""
    check_wanted: Callable[[], None] | None = None
    """Called right before shards are written; raises where nobody waits for them any more; None: not asked."""

    def __str__(self) -> str:
        return f"the cell at row {self.window.row}, column {self.window.column}"

    def smaller(self) -> CellTask:
        """The same cell with less in memory at a time."""
        return replace(self, threads=1, shard_by_shard=True)


LabelBlocks = dict[str, NDArray[Any]]


def build_whole(task: CellTask) -> JsonObject:
    """Compute a cell at once, write its shards and return its journal entry."""
    started = time.monotonic()
    inside = inside_strip(task.geobox, epsg_of(task.geobox)) if task.clip_to_strip else None
    with ThreadPoolExecutor(task.threads) as pool:
        labels = pool.submit(_labels_of, task, inside)
        images = Images.empty(len(task.days), len(task.bands), shape_of(task.geobox))
        notes = read_images(_reading_of(task, inside), task.days, images, pool)
        overview = pool.map(overview_of, images.reflectance, images.quality)
        counts = pool.submit(_counts_of, task, images, notes, labels)
        if task.check_wanted is not None:
            task.check_wanted()
        # The store compresses the first and largest block while overview and counts are still on their way.
        written = write_cell(task.folder, task.window, _blocks(images, overview, labels))
        entry = counts.result()
    entry["shards"] = {key: [shard.size, shard.sha256] for key, shard in written.items()}
    entry["seconds"] = round(time.monotonic() - started, 3)
    return entry


def _reading_of(task: CellTask, inside: NDArray[np.bool_] | None) -> Reading:
    return Reading(source=task.source, geobox=task.geobox, bands=task.bands, resampling=task.resampling, inside=inside)


def _blocks(
    images: Images, overview: Iterator[tuple[NDArray[np.uint16], NDArray[np.uint8]]], labels: Future[LabelBlocks]
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
    for factor in task.rule.finer:
        finer = rasterize_finer(task.parcels, task.geobox, factor=factor, rule=task.rule, known=task.known)
        for name in ("crop_type", "parcel_id", "coverage"):
            blocks[f"labels_x{factor}/{name}"] = getattr(finer, name)
    if task.splits is not None:
        winners = [values for path, values in blocks.items() if path.endswith("parcel_id")]
        blocks["split"] = split_of_cell(task.splits, task.parcels, task.geobox, inside, winners)
    if inside is not None:
        _clip(blocks, ~inside)
    return blocks


def split_of_cell(
    splits: SplitPlan,
    parcels: Parcels,
    geobox: GeoBox,
    inside: NDArray[np.bool_] | None,
    winners: Sequence[NDArray[np.uint32]],
) -> NDArray[np.uint8]:
    """The array `split` of a cell, (y, x): nothing outside of the zone's strip; `inside` as `inside_strip` gives it.

    `winners` are `parcel_id` of the cell on each of its lattices.
    """
    split = split_raster(splits, parcels, geobox)
    for parcel_id in winners:
        keep_labels_apart(split, splits, parcel_id)
    if inside is not None:
        split[~inside] = Split.NONE
    return split


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
    images: Images,
    notes: list[DayNotes],
    drawn: Future[LabelBlocks],
) -> JsonObject:
    """The journal entry: everything that finish needs to know of this cell."""
    labels = drawn.result()
    ground = None if task.splits is None else area_raster(task.splits, task.geobox)
    return {
        "kind": "cell",
        "cell": [task.window.row, task.window.column, task.window.height, task.window.width],
        "empty": not any(note.observed for note in notes),
        "observed": [note.observed for note in notes],
        "clear": [note.clear for note in notes],
        "used": [note.used for note in notes],
        "failures": failures_of(task.days, notes),
        "classes": _histogram(labels.get("crop_type")),
        "parcels": _histogram(labels.get("parcel_id"), skip_zero=True),
        **split_counts(task.window, task.chips, images.reflectance, images.quality, labels, ground=ground),
        **of_services(task.days, notes),
    }


def split_counts(
    window: Window,
    chips: Sequence[ChipFrame],
    reflectance: NDArray[np.uint16],
    quality: NDArray[np.uint8],
    labels: Mapping[str, NDArray[Any]],
    *,
    ground: NDArray[np.uint8] | None = None,
) -> JsonObject:
    """The part of a cell's entry that splits have a say in: pixels a split, sums over train pixels, and the chips.

    `reflectance` is (time, band, y, x), `quality` (time, y, x); `chips` are the parcel chips that meet the cell,
    `ground` is what `area_raster` gives for it.
    """
    clear, split = clear_of(quality), labels.get("split")
    return {
        "splits": _histogram(split),
        "bands": accumulate(reflectance, clear, None if split is None else split == Split.TRAIN),
        **count_chips(window, chips, clear, labels.get("crop_type"), labels.get("parcel_id"), split, ground=ground),
    }


def _histogram(values: NDArray[Any] | None, *, skip_zero: bool = False) -> dict[str, int]:
    """Pixels a value, keyed by the value as text."""
    if values is None:
        return {}
    found, counts = np.unique(values, return_counts=True)
    return {str(v): int(n) for v, n in zip(found, counts, strict=True) if v or not skip_zero}
