"""What patch sets hold together: their classes joined to a table, labels counted, mean and deviation of each band."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sits_catalog.cube import IGNORE
from sits_models.data.classes import BACKGROUND_CODE, ClassTable, CropEntry
from sits_models.data.patch_places import CELL, LabelCells, Patches
from sits_models.data.patch_sets import PatchSet, PatchSetFacts
from sits_models.sample import IGNORE_INDEX

__all__ = [
    "MEASURED",
    "LabelCounts",
    "classes_in",
    "count_labels",
    "join_set_classes",
    "lookup_of",
    "measure_bands",
    "positions_of",
]

MEASURED = 256
"""Patches whose pixels mean and deviation are of: so many are drawn, the same in each run, where there are more."""
_AT_ONCE = 64
_VALUES_AT_ONCE = 1 << 20


def positions_of(facts: PatchSetFacts, bands: Sequence[str]) -> NDArray[np.intp] | None:
    """Positions of the bands in a set, None where they are all of it; ValueError names those it does not have."""
    missing = [band for band in bands if band not in facts.bands]
    if missing:
        raise ValueError(f"{facts.path} has no band {', '.join(missing)}; it has {', '.join(facts.bands)}")
    return None if tuple(bands) == facts.bands else np.array([facts.bands.index(band) for band in bands], np.intp)


# Classes


def join_set_classes(sets: Sequence[PatchSetFacts], *, codes: tuple[str, ...] | None, background: bool) -> ClassTable:
    """The table of these codes in this order, or of every class in the order of the first set, then of the others.

    Classes of different sets are one class where their codes are equal; name and colour are those of the first. The
    background is the first class where a set knows it and `background` asks for it. ValueError where a set has no
    labels, or lacks one of `codes`, naming both.
    """
    known: dict[str, CropEntry] = {}
    for facts in sets:
        if not facts.classes:
            raise ValueError(f"{facts.path} has no labels, and classes are learnt from labelled sets; leave it out")
        there = [entry.code for entry in facts.classes]
        missing = [code for code in codes or () if code not in there]
        if missing:
            raise ValueError(f"{facts.path} has no class of code {', '.join(missing)}; it has {', '.join(there)}")
        for entry in facts.classes:
            known.setdefault(entry.code, entry)
    ground = known.pop(BACKGROUND_CODE, None)
    chosen = list(known.values()) if codes is None else [known[code] for code in codes if code != BACKGROUND_CODE]
    entries = [ground, *chosen] if background and ground is not None else chosen
    return ClassTable(tuple(replace(entry, index=index) for index, entry in enumerate(entries)))


def lookup_of(table: ClassTable, facts: PatchSetFacts) -> NDArray[np.int64]:
    """From the labels of a set to the model's index or IGNORE_INDEX, 65536 entries."""
    model = {entry.code: entry.index for entry in table.classes}
    found = np.full(IGNORE + 1, IGNORE_INDEX, np.int64)
    for entry in facts.classes:
        found[entry.index] = model.get(entry.code, IGNORE_INDEX)
    return found


def classes_in(present: NDArray[np.bool_], lookup: NDArray[np.int64], *, classes: int) -> NDArray[np.bool_]:
    """(K,): which classes of the model a patch has, of which a set says what of its own it has."""
    found = lookup[np.flatnonzero(present)]
    shown = np.zeros(classes, np.bool_)
    shown[found[found >= 0]] = True
    return shown


# Counting


@dataclass(frozen=True, kw_only=True)
class LabelCounts:
    """Labels of some patches."""

    patch: NDArray[np.int64]
    """(n,): their numbers among those of all sets."""
    pixels: NDArray[np.int64]
    """(n, K): pixels of each class of the model; of labels of patches 1 for each that a patch has."""
    own: NDArray[np.int64]
    """(n,): classes of its set that a patch has, known to the model or not; 0 where labels are of pixels."""
    cells: LabelCells | None
    """None where labels are of patches, or they were not asked for."""


def count_labels(
    sets: Sequence[PatchSet],
    patches: Patches,
    table: ClassTable,
    numbers: NDArray[np.int64],
    *,
    cells: bool,
    threads: int,
) -> LabelCounts:
    """The labels of these patches, passed over once by so many threads; with `cells`, those of pixels by square."""
    lookups = [lookup_of(table, one.facts) for one in sets]
    cells = cells and all(one.facts.dense for one in sets)

    def count(number: int) -> tuple[NDArray[np.int64], int, NDArray[np.int64] | None]:
        owner = int(patches.owner[number])
        found = sets[owner].labels(int(patches.number[number]))
        if found.crop is not None:
            crop = lookups[owner][found.crop]
            counts = np.bincount(crop[crop >= 0], minlength=table.n)
            return counts, 0, _in_cells(crop, classes=table.n) if cells else None
        if found.present is None:
            return np.zeros(table.n, np.int64), 0, None
        shown = classes_in(found.present, lookups[owner], classes=table.n)
        return shown.astype(np.int64), int(found.present.sum()), None

    pixels, own = np.zeros((len(numbers), table.n), np.int64), np.zeros(len(numbers), np.int64)
    rows = [np.zeros((0, 5), np.int64)]
    for index, (counts, classes, squares) in enumerate(_in_threads(count, numbers, threads)):
        pixels[index], own[index] = counts, classes
        if squares is not None:
            rows.append(np.insert(squares, 1, numbers[index], axis=1))
    every = np.concatenate(rows)
    joined = LabelCells(crop=every[:, 0], patch=every[:, 1], corner=every[:, 2:4], pixels=every[:, 4])
    return LabelCounts(patch=numbers, pixels=pixels, own=own, cells=joined if cells else None)


def _in_cells(crop: NDArray[np.int64], *, classes: int) -> NDArray[np.int64]:
    """(M, 4): class, row and column of the first pixel, and pixels, a row for each class of a square."""
    height, width = crop.shape
    across = -(-width // CELL)
    squares = np.arange(height)[:, None] // CELL * across + np.arange(width)[None, :] // CELL  # (H, W)
    known = crop >= 0
    keys, pixels = np.unique(squares[known] * classes + crop[known], return_counts=True)
    square, index = np.divmod(keys, max(classes, 1))
    return np.column_stack([index, square // across * CELL, square % across * CELL, pixels]).astype(np.int64)


# Values


def measure_bands(
    sets: Sequence[PatchSet], patches: Patches, bands: Sequence[str], numbers: NDArray[np.int64], *, threads: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation a band of what was observed in `MEASURED` of these patches, in stored units.

    Sums are of integers, so that they do not depend on their order. ValueError names a band that was not observed.
    """
    if len(numbers) > MEASURED:
        numbers = np.sort(np.random.default_rng(0).choice(numbers, MEASURED, replace=False))
    positions = [positions_of(one.facts, bands) for one in sets]

    def sums(number: int) -> list[tuple[int, int, int]]:
        owner, (height, width) = int(patches.owner[number]), patches.sizes[number].tolist()
        window, dates = (slice(0, height), slice(0, width)), np.arange(patches.dates[number])
        found = sets[owner].read(int(patches.number[number]), *window, dates, positions[owner])
        return [_sums(found.image[:, band]) for band in range(len(bands))]

    total = [[0, 0, 0] for _ in bands]
    for patch in _in_threads(sums, numbers, threads):
        for band, parts in enumerate(patch):
            total[band] = [a + b for a, b in zip(total[band], parts, strict=True)]
    missing = [band for band, (n, _, _) in zip(bands, total, strict=True) if n == 0]
    if missing:
        paths = ", ".join(one.facts.path for one in sets)
        raise ValueError(
            f"no observed train pixel of {', '.join(missing)} in {paths}; use data.normalize=reflectance, or other sets"
        )
    means = tuple(first / n for n, first, _ in total)
    # A band that is the same everywhere would divide by nothing.
    deviations = tuple((n * second - first**2) ** 0.5 / n or 1.0 for n, first, second in total)
    return means, deviations


def _sums(values: NDArray[np.uint16]) -> tuple[int, int, int]:
    """How many are not 0, their sum and that of their squares."""
    flat, first, second = values.reshape(-1), 0, 0
    for start in range(0, flat.size, _VALUES_AT_ONCE):
        part = flat[start : start + _VALUES_AT_ONCE].astype(np.uint64)
        first, second = first + int(part.sum()), second + int(np.dot(part, part))
    return int(np.count_nonzero(flat)), first, second


def _in_threads[Result](work: Callable[[int], Result], numbers: NDArray[np.int64], threads: int) -> Iterator[Result]:
    """What `work` makes of each number, in order; some of them at a time."""
    with ThreadPoolExecutor(threads) as pool:
        for first in range(0, len(numbers), _AT_ONCE):
            yield from pool.map(work, numbers[first : first + _AT_ONCE].tolist())
