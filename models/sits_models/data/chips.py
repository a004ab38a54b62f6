"""Chips cut from decoded chunks straight into the arrays of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from sits_catalog.cube import BOUNDARY_UNKNOWN, CHIP, Split
from sits_models.data.batch_arrays import BatchArrays
from sits_models.data.chunks import Chunks, ChunksRead, Rectangle, read_chunks
from sits_models.data.classes import ClassTable
from sits_models.data.cubes import Cube
from sits_models.data.decoded import cache_of
from sits_models.recipe import DateRule
from sits_models.sample import IGNORE_INDEX, Sample

__all__ = ["ChipReader", "pick_bands", "pick_dates"]


def pick_dates(rule: DateRule, available: int, *, seed: int | None) -> NDArray[np.intp]:
    """Positions of the dates of a chip in a series of so many dates, ascending; all where the rule asks for more.

    `random` without a seed is `even`: the first, the last and those between at equal steps; the middle one for n = 1.
    """
    if rule.n is None or rule.n >= available:
        return np.arange(available)
    if rule.pick == "first":
        return np.arange(rule.n)
    if rule.pick == "random" and seed is not None:
        return np.sort(np.random.default_rng(seed).choice(available, rule.n, replace=False))
    if rule.n == 1:
        return np.array([(available - 1) // 2])
    return np.floor(np.linspace(0, available - 1, rule.n) + 0.5).astype(np.intp)


def pick_bands(cube: Cube, bands: Sequence[str]) -> tuple[int, ...]:
    """Positions of the bands in the cube; ValueError names those it does not have."""
    missing = [band for band in bands if band not in cube.facts.bands]
    if missing:
        raise ValueError(f"{cube.facts.path} has no band {', '.join(missing)}; it has {', '.join(cube.facts.bands)}")
    return tuple(cube.facts.bands.index(band) for band in bands)


class _Arrays(BatchArrays):
    """Those of chips of cubes."""

    @classmethod
    def make(cls, batch: int, dates: int, bands: int, size: int, m: int) -> _Arrays:
        """Memory as it comes: most chips overwrite all of it, and zeros would cost as much as the chips."""
        return cls(
            image=np.empty((batch, dates, bands, size, size), np.uint16),
            valid=np.zeros((batch, dates), np.bool_),
            day=np.zeros((batch, dates), np.int32),
            clear=np.empty((batch, dates, size, size), np.bool_),
            crop=np.empty((batch, m * size, m * size), np.int64),
            counted=np.zeros((batch, m * size, m * size), np.bool_),
            parcel=np.empty((batch, m * size, m * size), np.int64),
            boundary=np.empty((batch, size, size), np.int16),
        )

    def clear_pixels(self, b: int, *, dates: int) -> None:
        """Nothing is observed from date number `dates` on."""
        self.image[b, dates:] = 0
        self.clear[b, dates:] = False

    def clear_labels(self, b: int) -> None:
        """No pixel has a label or a parcel."""
        self.crop[b] = IGNORE_INDEX
        self.parcel[b] = 0
        self.boundary[b] = BOUNDARY_UNKNOWN

    def hide(self, b: int, squares: NDArray[np.bool_], row: int, column: int) -> None:
        """Make these squares of 64 px as outside of the cube; the chip begins at this pixel of the first square."""
        size = self.boundary.shape[-1]
        m = self.crop.shape[-1] // size
        for y, x in np.argwhere(squares).tolist():
            here = _part(y, row, size), _part(x, column, size)
            self.image[b, :, :, *here] = 0
            self.clear[b, :, *here] = False
            self.boundary[b][here] = BOUNDARY_UNKNOWN
            finer = _times(here, m)
            self.crop[b][finer] = IGNORE_INDEX
            self.counted[b][finer] = False
            self.parcel[b][finer] = 0


class ChipReader:
    """Reads windows of cubes as samples, through a cache of decoded chunks; several threads may share it."""

    def __init__(
        self,
        cubes: Sequence[Cube],
        *,
        table: ClassTable | None,
        bands: Sequence[str],
        dates: DateRule,
        labels: int,
        cache_mb: float,
        known: Sequence[NDArray[np.bool_]] | None = None,
    ) -> None:
        """Without a `table`, and in cubes without labels, every pixel is IGNORE_INDEX and of no parcel.

        `labels` is 1, 2 or 4: at 10 m, from labels_x2 or from labels_x4. ValueError where a cube lacks a band, or a
        labelled cube the finer labels. `known` says of each cube, by parcel id, whose labels are known in the train
        split; None: all. Where chips are read of that split (`read`), the others are as those of another split: hidden.
        """
        self.bands = tuple(bands)
        self._cubes = tuple(cubes)
        self._known = None if known is None else tuple(known)
        self._rule = dates
        self._m = labels
        self._what = tuple(_what(cube, self.bands, dates, labels if table is not None else None) for cube in cubes)
        self.cache = cache_of([cube.facts for cube in cubes], self._what, limit=int(cache_mb * 1e6))
        self._lookups = tuple(None if table is None else table.lookup(cube.facts) for cube in cubes)
        self._days = tuple(np.array(cube.facts.days, np.int32) for cube in cubes)

    def read(
        self,
        places: NDArray[np.int64],
        *,
        size: int,
        seeds: NDArray[np.uint64] | None = None,
        pad_to: int | None = None,
        around: NDArray[np.int64] | None = None,
        last: NDArray[np.bool_] | None = None,
        split: Split | None = None,
        keep: NDArray[np.int64] | None = None,
        shown: NDArray[np.bool_] | None = None,
    ) -> Sample:
        """The chips of `size` px whose upper-left pixels are `places` (B, 3): number of the cube, row, column.

        Outside of the cube nothing is observed, labelled or of a parcel. `seeds` (B,) decide random dates; `pad_to` is
        the T of the batch, without it that of its longest series. `around` (B, 4) is the rectangle of chunks (top,
        bottom, left, right) to decode in one go where a chip's are missing, and `last` (B,) says that it may be
        forgotten after the chip. Labels of pixels that are not of `split`, or not in the part `keep` (B, 4) of their
        chip (top, bottom, left, right, pixels), are hidden. `shown` (B, n, n) are the squares of 64 px, from that of
        the chip's first pixel on, whose pixels may be seen; the others are as outside of the cube.
        """
        chosen = [self._dates_of(b, places, seeds) for b in range(len(places))]
        dates = max((len(one) for one in chosen), default=0) if pad_to is None else pad_to
        arrays = _Arrays.make(len(places), dates, len(self.bands), size, self._m)
        for b, (number, row, column) in enumerate(places.tolist()):
            if len(chosen[b]) > dates:
                raise ValueError(f"a chip of {len(chosen[b])} dates does not fit into {dates}")
            arrays.valid[b, : len(chosen[b])] = True
            arrays.day[b, : len(chosen[b])] = self._days[number][chosen[b]]
            hidden = None if shown is None else ~shown[b]
            rectangle = None if around is None else Rectangle(number, *around[b].tolist())
            self._fill(arrays, b, (number, row, column), chosen[b], rectangle, split, hidden)
            if rectangle is not None and last is not None and last[b]:
                self.cache.release(rectangle)
            if hidden is not None:
                arrays.hide(b, hidden, row % CHIP, column % CHIP)
            if keep is not None:
                arrays.keep(b, keep[b] * self._m)
        return arrays.sample(places, self.bands)

    def _dates_of(self, b: int, places: NDArray[np.int64], seeds: NDArray[np.uint64] | None) -> NDArray[np.intp]:
        available = len(self._days[int(places[b, 0])])
        return pick_dates(self._rule, available, seed=None if seeds is None else int(seeds[b]))

    def _fill(
        self,
        arrays: _Arrays,
        b: int,
        place: tuple[int, int, int],
        dates: NDArray[np.intp],
        around: Rectangle | None,
        split: Split | None,
        hidden: NDArray[np.bool_] | None,
    ) -> None:
        number, row, column = place
        size = arrays.image.shape[-1]
        height, width = self._cubes[number].facts.shape
        top, bottom = max(row, 0), min(row + size, height)
        left, right = max(column, 0), min(column + size, width)
        inside = bottom - top == size and right - left == size
        arrays.clear_pixels(b, dates=len(dates) if inside else 0)
        if not inside or self._what[number].labels is None:
            arrays.clear_labels(b)
        if top >= bottom or left >= right:
            return
        wanted = Rectangle(
            number, top // CHIP, (bottom - 1) // CHIP + 1, left // CHIP, (right - 1) // CHIP + 1
        ).chunks()
        if hidden is not None:
            # What may not be seen is not even read.
            y, x = row // CHIP, column // CHIP
            wanted = [chunk for chunk in wanted if not hidden[chunk[1] - y, chunk[2] - x]]
        read = partial(read_chunks, self._cubes[number], what=self._what[number])
        for chunks in self.cache.fetch(wanted, around, read):
            where = chunks.where
            rows = max(top, where.top * CHIP), min(bottom, where.bottom * CHIP)
            columns = max(left, where.left * CHIP), min(right, where.right * CHIP)
            self._copy(arrays, b, place, dates, chunks, rows, columns, split)

    def _copy(
        self,
        arrays: _Arrays,
        b: int,
        place: tuple[int, int, int],
        dates: NDArray[np.intp],
        chunks: Chunks,
        rows: tuple[int, int],
        columns: tuple[int, int],
        split: Split | None,
    ) -> None:
        """Copy the pixels of these rows and columns of the cube out of `chunks`."""
        number, row, column = place
        here = slice(rows[0] - row, rows[1] - row), slice(columns[0] - column, columns[1] - column)
        y, x = chunks.where.top * CHIP, chunks.where.left * CHIP
        there = slice(rows[0] - y, rows[1] - y), slice(columns[0] - x, columns[1] - x)
        image, clear = chunks.image[..., *there], chunks.clear[..., *there]
        if len(dates) == len(image):
            arrays.image[b, : len(dates), :, *here] = image
            arrays.clear[b, : len(dates), *here] = clear
        else:
            for t, date in enumerate(dates.tolist()):
                arrays.image[b, t, :, *here] = image[date]
                arrays.clear[b, t, *here] = clear[date]
        lookup = self._lookups[number]
        if lookup is None or chunks.crop is None or chunks.parcel is None or chunks.boundary is None:
            return
        m = self._m
        finer_here, finer_there = _times(here, m), _times(there, m)
        crop = lookup[chunks.crop[finer_there]]
        arrays.counted[b][finer_here] = True
        if split is not None and chunks.split is not None:
            other = chunks.split[there] != split
            finer_other = other if m == 1 else other.repeat(m, 0).repeat(m, 1)
            if split == Split.TRAIN and self._known is not None:
                finer_other = finer_other | ~self._known[number][chunks.parcel[finer_there]]
            crop[finer_other] = IGNORE_INDEX
            arrays.counted[b][finer_here] = ~finer_other
        arrays.crop[b][finer_here] = crop
        arrays.parcel[b][finer_here] = chunks.parcel[finer_there]
        arrays.boundary[b][here] = chunks.boundary[there]


def _what(cube: Cube, bands: Sequence[str], rule: DateRule, labels: int | None) -> ChunksRead:
    facts = cube.facts
    if not facts.has_labels:
        labels = None
    if labels is not None and labels != 1 and labels not in facts.finer:
        raise ValueError(f"{facts.path} has no labels_x{labels}; build it with finer labels, or use labels at 10 m")
    # All dates of a chunk are decoded anyway; those that no chip will hold are not kept.
    dates = pick_dates(rule, len(facts.days), seed=None)
    fixed = rule.pick != "random" and len(dates) < len(facts.days)
    return ChunksRead(bands=pick_bands(cube, bands), dates=tuple(dates.tolist()) if fixed else None, labels=labels)


def _part(square: int, first: int, size: int) -> slice:
    """Pixels of a chip in its square of this number, where it begins at pixel `first` of square 0."""
    return slice(max(square * CHIP - first, 0), max(min((square + 1) * CHIP - first, size), 0))


def _times(window: tuple[slice, slice], m: int) -> tuple[slice, slice]:
    rows, columns = window
    return slice(m * rows.start, m * rows.stop), slice(m * columns.start, m * columns.stop)
