"""Prove from a dataset's files alone that no split leaks into another: nothing of what planned or drew them is asked.

Distances are shapely's, between pixel centres and the parcels as they are stored.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
import shapely
import yaml
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from sits_catalog.cube import IGNORE, PIXEL_M, Split
from sits_pipeline.folder import Folder
from sits_pipeline.journal import MERGED, is_being_built, split_under_way
from sits_pipeline.resplit.opened import read_parcels_file
from sits_pipeline.store import CubeLayout, read_layout, read_shards, read_window
from sits_pipeline.values import Window

__all__ = ["Leak", "Proof", "check_splits"]

_USED = (Split.TRAIN, Split.VALIDATION, Split.TEST)
_WORDS = {code.name.lower(): int(code) for code in Split}
_EXACT_M = 1e-6
"""Rounding of coordinates of a zone: a pixel this much nearer than the buffer is at its edge."""


@dataclass(frozen=True, kw_only=True)
class Leak:
    """Something of one split that is known to another."""

    kind: str
    """parcel, pixel, chip or patch."""
    what: str
    """A sentence with its place."""
    count: int = 1
    """How many there are of this sort; the sentence names the first."""


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What the check of a dataset has found."""

    location: str
    leaks: tuple[Leak, ...]
    notes: tuple[str, ...]
    """Classes that are not in every split: no leak, but to be known."""
    pixels: dict[str, int]
    """Pixels a split that were looked at."""
    parcels: int
    nearest_m: float | None
    """The least distance of a pixel from a parcel of another split that was met; None: none came within the buffer
    and 10 m more."""
    unit: str = "parcels"
    """What `parcels` counts."""


@dataclass
class _Found:
    """Leaks by sort: the first one's sentence, and how many there are."""

    first: dict[str, tuple[str, str]] = field(default_factory=dict)
    count: dict[str, int] = field(default_factory=dict)

    def add(self, sort: str, kind: str, number: int, sentence: Callable[[], str]) -> None:
        if number:
            if sort not in self.first:
                self.first[sort] = kind, sentence()
            self.count[sort] = self.count.get(sort, 0) + number

    def leaks(self) -> tuple[Leak, ...]:
        return tuple(Leak(kind=kind, what=what, count=self.count[sort]) for sort, (kind, what) in self.first.items())


@dataclass(frozen=True, kw_only=True)
class _Parcels:
    """`parcels.parquet`, as far as it says where each parcel is and in which split."""

    parcel_id: NDArray[np.int64]
    split: NDArray[np.uint8]
    geometry: NDArray[np.object_]
    tree: shapely.STRtree

    def split_of(self, parcel_id: NDArray[np.uint32]) -> NDArray[np.uint8]:
        """The split of each parcel by its id; NONE for an id that is not there."""
        last = max(int(self.parcel_id.max(initial=0)), int(parcel_id.max(initial=0)))
        table = np.zeros(last + 1, dtype=np.uint8)
        table[self.parcel_id] = self.split
        return table[parcel_id]


def check_splits(folder: Folder, *, progress: Callable[[int, int], None] | None = None) -> Proof:
    """Look for leaks in a finished dataset; reads `split`, `parcel_id` and `crop_type` once, a shard at a time.

    Raises FileNotFoundError where there is none, ValueError where it has no splits or is being written.
    """
    layout = read_layout(folder)
    if not layout.has_labels:
        raise ValueError(f"{folder.location} has no parcels, and so no splits to check")
    if not folder.exists(MERGED) or is_being_built(folder) or split_under_way(folder) is not None:
        raise ValueError(
            f"{folder.location} is being written or split; run the command that was interrupted again first"
        )
    rule = dict(yaml.safe_load(folder.read("config.yaml"))["splits"])
    found = _Found()
    parcels = _read_parcels(folder, found)
    chips = _Chips.read(folder)
    tally = _Tally()
    n_shards = -(-layout.geobox.shape[0] // layout.shard) * -(-layout.geobox.shape[1] // layout.shard)
    for number, (window, split) in enumerate(read_shards(folder, "split", dates=None), 1):
        tally.add(split, read_window(folder, "crop_type", window, dates=None))
        _check_labels(found, parcels, split, read_window(folder, "parcel_id", window, dates=None), window)
        _check_distances(found, tally, parcels, split, window, layout.geobox, float(rule["buffer_m"]))
        chips.count(split, window)
        if progress is not None:
            progress(number, n_shards)
    chips.check(found)
    return Proof(
        location=folder.location,
        leaks=found.leaks(),
        notes=tuple(_absent(tally, layout, int(rule.get("min_pixels", 1)))),
        pixels={code.name.lower(): tally.pixels[code] for code in Split if tally.pixels.get(code)},
        parcels=len(parcels.parcel_id),
        nearest_m=tally.nearest_m,
    )


# Parcels


def _read_parcels(folder: Folder, found: _Found) -> _Parcels:
    table = read_parcels_file(folder)
    ids = np.asarray(table["parcel_id"].to_numpy(), np.int64)
    keys = table["source_key"].to_pylist()
    words = table["split"].to_pylist()
    twice = [number for number, count in zip(*np.unique(ids, return_counts=True), strict=True) if count > 1]
    found.add("twice", "parcel", len(twice), lambda: f"parcel {twice[0]} stands more than once in parcels.parquet")
    repeated = sorted(set(_repeats(keys)))
    found.add("key", "parcel", len(repeated), lambda: f"the parcel of the key {repeated[0]!r} has two rows")
    odd = [index for index, word in enumerate(words) if word not in ("none", "train", "validation", "test")]
    found.add("word", "parcel", len(odd), lambda: f"parcel {ids[odd[0]]} is in {words[odd[0]]!r}, which is no split")
    geometry = np.asarray(shapely.from_wkb(table["geometry"].to_numpy(zero_copy_only=False)), dtype=object).reshape(-1)
    split = np.array([_WORDS.get(word, 0) for word in words], np.uint8)
    return _Parcels(parcel_id=ids, split=split, geometry=geometry, tree=shapely.STRtree(geometry))


def _repeats(keys: Iterable[str]) -> list[str]:
    seen: set[str] = set()
    return [key for key in keys if key in seen or seen.add(key)]  # type: ignore[func-returns-value]


# Pixels


@dataclass
class _Tally:
    """Pixels a split, and a class and split."""

    pixels: dict[Split, int] = field(default_factory=dict)
    classes: dict[int, dict[Split, int]] = field(default_factory=dict)
    nearest_m: float | None = None

    def add(self, split: NDArray[np.uint8], crop_type: NDArray[np.uint16]) -> None:
        for code in Split:
            own = split == code
            self.pixels[code] = self.pixels.get(code, 0) + int(np.count_nonzero(own))
            for crop, count in zip(*np.unique(crop_type[own], return_counts=True), strict=True):
                held = self.classes.setdefault(int(crop), {})
                held[code] = held.get(code, 0) + int(count)


def _place(window: Window, row: int, column: int) -> str:
    return f"row {window.row + row}, column {window.column + column}"


def _check_labels(
    found: _Found, parcels: _Parcels, split: NDArray[np.uint8], parcel_id: NDArray[np.uint32], window: Window
) -> None:
    """A pixel that a parcel has won lies in the parcel's split, or in none."""
    rows, columns = np.nonzero((parcel_id > 0) & (split >= Split.TRAIN) & (split <= Split.TEST))
    own = parcels.split_of(parcel_id[rows, columns])
    wrong = np.flatnonzero(own != split[rows, columns])

    def sentence() -> str:
        row, column = int(rows[wrong[0]]), int(columns[wrong[0]])
        return (
            f"the pixel at {_place(window, row, column)} is {_word(split[row, column])}, and parcel "
            f"{parcel_id[row, column]}, which it is labelled by, is {_word(own[wrong[0]])}"
        )

    found.add("labels", "pixel", len(wrong), sentence)


def _check_distances(
    found: _Found,
    tally: _Tally,
    parcels: _Parcels,
    split: NDArray[np.uint8],
    window: Window,
    geobox: GeoBox,
    buffer_m: float,
) -> None:
    """No pixel of a split is inside of a parcel of another, or nearer to it than the buffer."""
    west, _, _, north = geobox.boundingbox.bbox
    left, top = west + window.column * PIXEL_M, north - window.row * PIXEL_M
    reach = buffer_m + PIXEL_M
    box = shapely.box(
        left - reach, top - window.height * PIXEL_M - reach, left + window.width * PIXEL_M + reach, top + reach
    )
    near = parcels.tree.query(box)
    for code in _USED:
        others = near[(parcels.split[near] != code) & np.isin(parcels.split[near], _USED)]
        rows, columns = np.nonzero(
            (split == code) & _within_boxes(parcels.geometry[others], split.shape, left, top, reach)
        )
        if not len(rows):
            continue
        points = shapely.points(left + columns * PIXEL_M + PIXEL_M / 2, top - rows * PIXEL_M - PIXEL_M / 2)
        tree = shapely.STRtree(parcels.geometry[others])
        (pixel, parcel), distance = tree.query_nearest(
            points, max_distance=reach, return_distance=True, all_matches=False
        )
        if not len(pixel):
            continue
        tally.nearest_m = min(float(distance.min()), np.inf if tally.nearest_m is None else tally.nearest_m)
        close = np.flatnonzero((distance < buffer_m - _EXACT_M) | (distance == 0))
        _add_close(
            found,
            parcels,
            code,
            window,
            (rows[pixel[close]], columns[pixel[close]]),
            others[parcel[close]],
            distance[close],
            buffer_m,
        )


def _add_close(
    found: _Found,
    parcels: _Parcels,
    code: Split,
    window: Window,
    where: tuple[NDArray[np.intp], NDArray[np.intp]],
    parcel: NDArray[np.intp],
    distance: NDArray[np.float64],
    buffer_m: float,
) -> None:
    def sentence() -> str:
        worst = int(np.argmin(distance))
        at = _place(window, int(where[0][worst]), int(where[1][worst]))
        other = parcel[worst]
        return (
            f"the pixel at {at} is {code.name.lower()} and lies {distance[worst]:.1f} m from parcel "
            f"{parcels.parcel_id[other]}, which is {_word(parcels.split[other])}; the buffer is {buffer_m:g} m"
        )

    found.add("distance", "pixel", len(distance), sentence)


def _within_boxes(
    geometry: NDArray[np.object_], shape: tuple[int, ...], left: float, top: float, reach: float
) -> NDArray[np.bool_]:
    """Pixels that the bounds of some parcels, grown by `reach`, touch: the others need no look."""
    touched = np.zeros(shape, dtype=bool)
    west, south, east, north = shapely.bounds(geometry).reshape(-1, 4).T
    first_column, last_column = (np.floor((x - left) / PIXEL_M).astype(int) for x in (west - reach, east + reach))
    first_row, last_row = (np.floor((top - y) / PIXEL_M).astype(int) for y in (north + reach, south - reach))
    for row, column, last, right in zip(first_row, first_column, last_row, last_column, strict=True):
        touched[max(row, 0) : max(last + 1, 0), max(column, 0) : max(right + 1, 0)] = True
    return touched


def _word(code: Any) -> str:
    return "in no split" if int(code) == Split.NONE else Split(int(code)).name.lower()


# Chips


@dataclass
class _Chips:
    """`chips.parquet` and the pixels of each split in each chip."""

    chip_id: list[str]
    is_grid: NDArray[np.bool_]
    place: NDArray[np.int64]
    """(chip, 4): row, column, height, width."""
    split: list[str | None]
    counts: NDArray[np.int64]
    """(chip, code of split)"""

    @classmethod
    def read(cls, folder: Folder) -> _Chips:
        import pyarrow.parquet as pq

        names = ["chip_id", "kind", "row", "col", "height", "width", "split"]
        table = pq.read_table(io.BytesIO(folder.read("chips.parquet")), columns=names)
        place = np.column_stack([table[name].to_numpy().astype(np.int64) for name in names[2:6]])
        kind = np.array([kind == "grid" for kind in table["kind"].to_pylist()], bool)
        counts = np.zeros((len(place), len(Split)), np.int64)
        return cls(table["chip_id"].to_pylist(), kind, place, table["split"].to_pylist(), counts)

    def count(self, split: NDArray[np.uint8], window: Window) -> None:
        """Add the pixels of a part of the cube."""
        first = np.maximum(self.place[:, :2] - (window.row, window.column), 0)
        last = np.minimum(self.place[:, :2] + self.place[:, 2:] - (window.row, window.column), split.shape)
        met = np.flatnonzero((first < last).all(axis=1))
        for code in Split:
            sums = np.zeros((split.shape[0] + 1, split.shape[1] + 1), np.int64)
            sums[1:, 1:] = (split == code).cumsum(axis=0).cumsum(axis=1)
            (top, left), (bottom, right) = first[met].T, last[met].T
            self.counts[met, code] += sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]

    def check(self, found: _Found) -> None:
        """A chip of a split holds pixels of no other, and shares none with a chip of another.

        One of the grid says what its pixels are, or is buffer where it is not of one split alone.
        """
        for index, word in enumerate(self.split):
            held = [code for code in _USED if self.counts[index, code]]
            expected = held[0].name.lower() if len(held) == 1 else "buffer"
            if not held and not self.counts[index, Split.BUFFER]:
                expected = "none"
            # A parcel chip that meets two splits' ground is buffer, even where the buffer covers all of one.
            mixed = self.counts[index, [Split.NONE, Split.BUFFER]].any()
            may_be_buffer = word == "buffer" and (mixed or not self.is_grid[index])
            wrong = word != expected and not may_be_buffer and (self.is_grid[index] or bool(held))
            if wrong:
                row, column = self.place[index, :2]
                words = " and ".join(code.name.lower() for code in held) or "no split"
                text = f"chip {self.chip_id[index]} (row {row}, column {column}) is {word}, its pixels are in {words}"
                found.add("chip", "chip", 1, lambda text=text: text)  # type: ignore[misc]
        for one, other in combinations(_USED, 2):
            self._check_apart(found, one, other)

    def _check_apart(self, found: _Found, one: Split, other: Split) -> None:
        """No pixel, whatever its own split, lies in chips of two splits: a model would have seen test inputs."""
        words = one.name.lower(), other.name.lower()
        first, second = (np.array([at for at, own in enumerate(self.split) if own == word], np.intp) for word in words)
        top, left, height, width = self.place.T
        # Half a pixel narrower, so that chips side by side do not meet.
        boxes = shapely.box(left + 0.25, top + 0.25, left + width - 0.25, top + height - 0.25)
        pairs = shapely.STRtree(boxes[second]).query(boxes[first], predicate="intersects")

        def sentence() -> str:
            a, b = first[pairs[0, 0]], second[pairs[1, 0]]
            row, column = np.maximum(self.place[a, :2], self.place[b, :2]).tolist()
            bottom, right = np.minimum(*((self.place[:, :2] + self.place[:, 2:])[[a, b]])).tolist()
            return (
                f"chip {self.chip_id[a]} is {words[0]} and chip {self.chip_id[b]} is {words[1]}, and they share "
                f"{(bottom - row) * (right - column)} pixels, the first at row {row}, column {column}"
            )

        found.add(f"chips {words}", "chip", pairs.shape[1], sentence)


# Classes


def _absent(tally: _Tally, layout: CubeLayout, least: int) -> Iterable[str]:
    """A sentence for each class that has fewer pixels in a split that is there than were asked for."""
    names = {int(row["index"]): str(row["name"]) for row in layout.classes}
    there = [code for code in _USED if tally.pixels.get(code)]
    for crop, held in sorted(tally.classes.items()):
        short = [code for code in there if held.get(code, 0) < least]
        total = sum(held.get(code, 0) for code in (*_USED, Split.BUFFER))
        if crop not in (0, IGNORE) and short and total:
            said = " and ".join(f"{held.get(code, 0)} in {code.name.lower()}" for code in short)
            yield f"class {names.get(crop, crop)} has {total} pixels, {said}"
