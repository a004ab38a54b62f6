"""Chips cut from patches straight into the arrays of a batch."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from sits_catalog.cube import BOUNDARY_UNKNOWN
from sits_models.data.batch_arrays import BatchArrays
from sits_models.data.chips import pick_dates
from sits_models.data.classes import ClassTable
from sits_models.data.patch_labels import classes_in, lookup_of, positions_of
from sits_models.data.patch_places import Patches
from sits_models.data.patch_sets import Patch, PatchSet
from sits_models.data.sampling import BatchPlan
from sits_models.recipe import DateRule
from sits_models.sample import IGNORE_INDEX, Sample

__all__ = ["PatchReader"]


class PatchReader:
    """Reads windows of patches as samples; several threads may share it."""

    def __init__(
        self,
        sets: Sequence[PatchSet],
        patches: Patches,
        *,
        table: ClassTable,
        bands: Sequence[str],
        dates: DateRule,
        pad_to: int,
        cache_mb: float,
    ) -> None:
        """A batch has `pad_to` dates; with a `table` of no class nothing has a label. ValueError for a missing band."""
        self.bands = tuple(bands)
        self._sets = tuple(sets)
        self._patches = patches
        self._classes = table.n
        self._lookups = tuple(lookup_of(table, one.facts) for one in sets)
        self._positions = tuple(positions_of(one.facts, bands) for one in sets)
        self._rule = dates
        self._pad_to = pad_to
        self._present = table.n > 0 and not any(one.facts.dense for one in sets)
        self._cache = _Cache(int(cache_mb * 1e6))

    def read(self, plan: BatchPlan, *, whole: bool) -> Sample:
        """The chips of a plan, whose places are numbers of patches among those of all sets, rows and columns.

        `whole`: patches are decoded as such and kept, as far as there is room, for other chips of them.
        """
        arrays = _Arrays.make(len(plan.places), self._pad_to, len(self.bands), plan.size, self._classes)
        for b, place in enumerate(plan.places.tolist()):
            seed = None if plan.seeds is None else int(plan.seeds[b])
            self._fill(arrays, b, place, seed, whole=whole)
            if plan.keep is not None:
                arrays.keep(b, plan.keep[b])
        if not self._present:
            arrays.present = None
        return arrays.sample(plan.places, self.bands)

    def _fill(self, arrays: _Arrays, b: int, place: list[int], seed: int | None, *, whole: bool) -> None:
        patch = place[0]
        dates = pick_dates(self._rule, int(self._patches.dates[patch]), seed=seed)
        if len(dates) > self._pad_to:
            raise ValueError(f"a chip of {len(dates)} dates does not fit into {self._pad_to}")
        window, here = _inside(place, side=arrays.boundary.shape[-1], size=self._patches.sizes[patch])
        owner, n = int(self._patches.owner[patch]), len(dates)
        arrays.valid[b, :n] = True
        arrays.day[b, :n] = self._sets[owner].facts.days[self._patches.number[patch]][dates]
        found = self._cut_whole(patch, window, dates) if whole else self._read(patch, window, dates)
        arrays.image[b, :n, :, *here] = found.image
        arrays.clear[b, :n, *here] = found.clear
        self._fill_labels(arrays, b, found, here, self._lookups[owner])

    def _fill_labels(
        self, arrays: _Arrays, b: int, found: Patch, here: tuple[slice, slice], lookup: NDArray[np.int64]
    ) -> None:
        if not self._classes:
            return
        if found.crop is not None:
            arrays.crop[b][here] = lookup[found.crop]
            arrays.counted[b][here] = True
        elif found.present is not None:
            shown = classes_in(found.present, lookup, classes=self._classes)
            assert arrays.present is not None
            arrays.present[b] = shown
            # A chip of one class has it in all of its pixels; of several no pixel is known to have any.
            arrays.counted[b] = True
            if found.present.sum() == 1 and shown.any():
                arrays.crop[b] = int(np.flatnonzero(shown)[0])
        if found.parcel is not None:
            arrays.parcel[b][here] = found.parcel

    def _cut_whole(self, patch: int, window: tuple[slice, slice], dates: NDArray[np.intp]) -> Patch:
        """A window of a patch that is kept, with all of its dates where each chip draws others."""
        every = np.arange(self._patches.dates[patch]) if self._rule.pick == "random" else dates
        height, width = self._patches.sizes[patch].tolist()
        found = self._cache.fetch(patch, lambda: self._read(patch, (slice(0, height), slice(0, width)), every))
        return _cut(found, window, np.searchsorted(every, dates))

    def _read(self, patch: int, window: tuple[slice, slice], dates: NDArray[np.intp]) -> Patch:
        owner = int(self._patches.owner[patch])
        return self._sets[owner].read(int(self._patches.number[patch]), *window, dates, self._positions[owner])


def _inside(
    place: Sequence[int], *, side: int, size: NDArray[np.int64]
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Rows and columns that a chip of a `side` sees of its patch of a `size`: in the patch, and in the chip."""
    corner = np.array(place[1:])
    first, last = np.maximum(corner, 0), np.minimum(corner + side, size)
    there = slice(int(first[0]), int(last[0])), slice(int(first[1]), int(last[1]))
    first, last = first - corner, last - corner
    return there, (slice(int(first[0]), int(last[0])), slice(int(first[1]), int(last[1])))


def _cut(patch: Patch, window: tuple[slice, slice], dates: NDArray[np.intp]) -> Patch:
    """A window of these dates of a whole patch."""
    image, clear = patch.image[..., *window], patch.clear[..., *window]
    if not np.array_equal(dates, np.arange(len(image))):
        image, clear = image[dates], clear[dates]
    crop = None if patch.crop is None else patch.crop[window]
    parcel = None if patch.parcel is None else patch.parcel[window]
    return replace(patch, image=image, clear=clear, crop=crop, parcel=parcel)


class _Arrays(BatchArrays):
    """Those of chips of patches, in which nothing is observed or labelled yet."""

    @classmethod
    def make(cls, batch: int, dates: int, bands: int, size: int, classes: int) -> Self:
        return cls(
            image=np.zeros((batch, dates, bands, size, size), np.uint16),
            valid=np.zeros((batch, dates), np.bool_),
            day=np.zeros((batch, dates), np.int32),
            clear=np.zeros((batch, dates, size, size), np.bool_),
            crop=np.full((batch, size, size), IGNORE_INDEX, np.int64),
            counted=np.zeros((batch, size, size), np.bool_),
            parcel=np.zeros((batch, size, size), np.int64),
            boundary=np.full((batch, size, size), BOUNDARY_UNKNOWN, np.int16),
            present=np.zeros((batch, classes), np.bool_),
        )


class _Cache:
    """The patches used last, as many as fit into `limit` bytes, and always the newest; for several threads.

    What one thread reads the others wait for.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._kept = OrderedDict[int, Patch]()
        self._on_the_way: dict[int, Future[Patch]] = {}
        self._bytes = 0

    def fetch(self, number: int, read: Callable[[], Patch]) -> Patch:
        """The patch of this number, read where it is not there."""
        with self._lock:
            if number in self._kept:
                self._kept.move_to_end(number)
                return self._kept[number]
            waited = self._on_the_way.get(number)
            mine = self._on_the_way.setdefault(number, Future())
        if waited is not None:
            return waited.result()
        # Not under the lock: other threads decode meanwhile.
        try:
            patch = read()
        except BaseException as error:
            with self._lock:
                del self._on_the_way[number]
            mine.set_exception(error)
            raise
        with self._lock:
            del self._on_the_way[number]
            self._keep(number, patch)
        mine.set_result(patch)
        return patch

    def _keep(self, number: int, patch: Patch) -> None:
        self._kept[number] = patch
        self._bytes += _nbytes(patch)
        while self._bytes > self._limit and len(self._kept) > 1:
            self._bytes -= _nbytes(self._kept.popitem(last=False)[1])


def _nbytes(patch: Patch) -> int:
    arrays = (patch.image, patch.clear, patch.crop, patch.parcel, patch.present)
    return sum(array.nbytes for array in arrays if array is not None)
