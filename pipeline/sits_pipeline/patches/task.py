"""One shard of patches, from source pixels to stored bytes: the plain function that every worker runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from sits_catalog.cube import NO_SOURCE
from sits_pipeline.folder import Folder
from sits_pipeline.imagery import Day, DayNotes, Images, Reading, failures_of, of_services, read_images
from sits_pipeline.sources.base import SceneSource
from sits_pipeline.steps.mask import clear_of
from sits_pipeline.steps.statistics import accumulate
from sits_pipeline.store.patches import IMAGES, write_patches
from sits_pipeline.values import JsonObject, shape_of

__all__ = ["PatchTask", "build_patches"]


@dataclass(frozen=True, kw_only=True)
class PatchTask:
    """All that a worker needs to compute the patches of one shard; small enough to travel."""

    folder: Folder
    first: int
    """Position of the first patch in the dataset."""
    geoboxes: tuple[GeoBox, ...]
    days: tuple[tuple[Day, ...], ...]
    """Of each patch, ascending; fewer than `n_dates` leave the last dates empty."""
    n_dates: int
    source: SceneSource
    bands: tuple[str, ...]
    resampling: Literal["nearest", "bilinear"]
    threads: int
    check_wanted: Callable[[], None] | None = None
    """Called right before the shard is written; raises where nobody waits for it any more; None: not asked."""

    def __str__(self) -> str:
        return f"the shard of patches {self.first} to {self.first + len(self.geoboxes) - 1}"

    def smaller(self) -> PatchTask:
        """The same shard with less in memory at a time; a shard is written whole."""
        return replace(self, threads=1)

    @property
    def key(self) -> tuple[int, int]:
        """First patch and number of patches: what the journal calls this cell."""
        return self.first, len(self.geoboxes)


def build_patches(task: PatchTask) -> JsonObject:
    """Compute the patches of a shard, write it in every array and return its journal entry."""
    started = time.monotonic()
    blocks = _empty(task)
    with ThreadPoolExecutor(task.threads) as pool:
        notes = [_read(task, index, blocks, pool) for index in range(len(task.geoboxes))]
    if task.check_wanted is not None:
        task.check_wanted()
    written = write_patches(task.folder, task.first, blocks.items())
    return {
        **_entry(task, blocks, notes),
        "shards": {key: [shard.size, shard.sha256] for key, shard in written.items()},
        "seconds": round(time.monotonic() - started, 3),
    }


def _empty(task: PatchTask) -> dict[str, NDArray[Any]]:
    """Arrays of the shard without an observation, (patch, time, ..., y, x)."""
    height, width = shape_of(task.geoboxes[0])
    lead = (len(task.geoboxes), task.n_dates)
    return {
        "reflectance": np.zeros((*lead, len(task.bands), height, width), np.uint16),
        "scl": np.zeros((*lead, height, width), np.uint8),
        "quality": np.zeros((*lead, height, width), np.uint8),
        "source_index": np.full((*lead, height, width), NO_SOURCE, np.uint8),
    }


def _read(task: PatchTask, index: int, blocks: dict[str, NDArray[Any]], pool: ThreadPoolExecutor) -> list[DayNotes]:
    """Fill one patch of the blocks."""
    reading = Reading(
        source=task.source,
        geobox=task.geoboxes[index],
        bands=task.bands,
        resampling=task.resampling,
        inside=None,
    )
    images = Images(*(blocks[name][index] for name in IMAGES))
    return read_images(reading, task.days[index], images, pool)


def _entry(task: PatchTask, blocks: dict[str, NDArray[Any]], notes: Sequence[Sequence[DayNotes]]) -> JsonObject:
    """Everything that finish needs to know of this shard; the counts are lists of a list a patch."""
    reflectance, quality = blocks["reflectance"], blocks["quality"]
    every = reflectance.reshape(-1, *reflectance.shape[2:])  # (patch*time, band, y, x)
    services = [of_services(days, said) for days, said in zip(task.days, notes, strict=True)]
    remarks = [remark for said in services for remark in said.get("notes", ())]
    units = round(sum(said.get("processing_units", 0.0) for said in services), 6)
    return {
        "kind": "cell",
        "cell": list(task.key),
        "empty": not any(note.observed for said in notes for note in said),
        "observed": [[note.observed for note in said] for said in notes],
        "clear": [[note.clear for note in said] for said in notes],
        "used": [[note.used for note in said] for said in notes],
        "failures": [
            {"patch": task.first + index, **failure}
            for index, (days, said) in enumerate(zip(task.days, notes, strict=True))
            for failure in failures_of(days, said)
        ],
        "bands": accumulate(every, clear_of(quality).reshape(-1, *quality.shape[2:]), None),
        **({"notes": remarks} if remarks else {}),
        **({"processing_units": units} if units else {}),
    }
