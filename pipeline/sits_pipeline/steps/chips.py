"""Chips: small squares of a cube and what is in them, counted a cell at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import shapely
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from sits_catalog.cube import CHIP, IGNORE, PIXEL_M, Split
from sits_pipeline.geoparquet import geo_table
from sits_pipeline.values import JsonObject, Parcels, Window, epsg_of

__all__ = ["ChipCount", "ChipFrame", "chips_table", "count_chips", "merge_chips", "place_chips", "select_chips"]

_STEP = 16
_LARGEST = 512
_MARGIN_PX = 2
_USED = (Split.TRAIN, Split.VALIDATION, Split.TEST)


@dataclass(frozen=True, kw_only=True)
class ChipFrame:
    """Where a parcel chip lies."""

    chip_id: str
    window: Window
    split: Split
    """The split of all blocks it touches; BUFFER where they are not of one split."""


@dataclass(frozen=True, kw_only=True)
class ChipCount:
    """What is in a chip, or in a cell's piece of it; pieces add up."""

    chip_id: str
    kind: Literal["grid", "parcel"]
    window: Window
    split: int | None
    """Code of `Split`; None in a cube without splits."""
    labelled: int | None
    """Pixels whose class is not IGNORE; None in a cube without labels."""
    parcels: frozenset[int]
    crop_counts: Counter[int]
    """Pixels a class, background included and IGNORE not."""
    clear: tuple[int, ...]
    """Clear pixels a date."""

    def __add__(self, other: ChipCount) -> ChipCount:
        """Two pieces of one chip as one."""
        return ChipCount(
            chip_id=self.chip_id,
            kind=self.kind,
            window=self.window,
            split=self.split,
            labelled=None if self.labelled is None or other.labelled is None else self.labelled + other.labelled,
            parcels=self.parcels | other.parcels,
            crop_counts=self.crop_counts + other.crop_counts,
            clear=tuple(a + b for a, b in zip(self.clear, other.clear, strict=True)),
        )

    def row(self) -> list[Any]:
        """The chip as a row of the journal: everything that `chips.parquet` needs."""
        area = self.window.height * self.window.width
        return [
            self.chip_id,
            self.kind,
            *_numbers(self.window),
            self.split,
            self.labelled,
            len(self.parcels),
            {str(crop): pixels for crop, pixels in sorted(self.crop_counts.items())},
            sum(2 * pixels >= area for pixels in self.clear),
            sum(self.clear),
            len(self.clear),
        ]

    def piece(self) -> list[Any]:
        """The piece as a line of the journal, with all that is needed to add it to others."""
        counts = {str(crop): pixels for crop, pixels in sorted(self.crop_counts.items())}
        where = _numbers(self.window)
        return [self.chip_id, where, self.split, self.labelled, sorted(self.parcels), counts, list(self.clear)]

    @classmethod
    def from_piece(cls, piece: Sequence[Any]) -> ChipCount:
        """The piece that `piece` wrote."""
        chip_id, where, split, labelled, parcels, counts, clear = piece
        row, column, height, width = where
        return cls(
            chip_id=chip_id,
            kind="parcel",
            window=Window(row=row, column=column, height=height, width=width),
            split=split,
            labelled=labelled,
            parcels=frozenset(parcels),
            crop_counts=Counter({int(crop): pixels for crop, pixels in counts.items()}),
            clear=tuple(clear),
        )


def _numbers(window: Window) -> list[int]:
    return [window.row, window.column, window.height, window.width]


# Before the cells: parcel chips


def place_chips(
    parcels: Parcels, geobox: GeoBox, *, split_of: Callable[[Window], Split] | None
) -> tuple[ChipFrame, ...]:
    """A chip around each parcel that meets the cube, centred on the middle of its bounds, in the order of ids.

    Its side is 64 pixels or, where the parcel with 2 pixels around it does not fit, the next multiple of 16, up to
    512 (a larger parcel is cut). A chip that would leave the cube is moved inside; a cube smaller than the chip
    cuts it. `split_of` gives the split of the ground of a window.
    """
    west, south, east, north = geobox.boundingbox.bbox
    height, width = (int(size) for size in geobox.shape)
    frames = []
    for number, (left, bottom, right, top) in zip(parcels.parcel_id, shapely.bounds(parcels.geometry), strict=True):
        if left >= east or right <= west or bottom >= north or top <= south:
            continue
        longest = max(right - left, top - bottom) / PIXEL_M + 2 * _MARGIN_PX
        side = min(max(CHIP, -int(-longest // _STEP) * _STEP), _LARGEST)
        row, rows = _inside((north - (top + bottom) / 2) / PIXEL_M, side, height)
        column, columns = _inside(((left + right) / 2 - west) / PIXEL_M, side, width)
        window = Window(row=row, column=column, height=rows, width=columns)
        split = Split.NONE if split_of is None else split_of(window)
        frames.append(ChipFrame(chip_id=f"parcel-{number}", window=window, split=split))
    return tuple(frames)


def _inside(middle: float, side: int, size: int) -> tuple[int, int]:
    """First pixel and length of a chip of `side` pixels around `middle`, inside of 0..size."""
    first = int(np.floor(middle - side / 2 + 0.5))
    return max(0, min(first, size - side)), min(side, size)


def select_chips(chips: Sequence[ChipFrame], window: Window) -> tuple[ChipFrame, ...]:
    """The chips that meet a cell."""
    return tuple(chip for chip in chips if _shared(chip.window, window) is not None)


def _shared(chip: Window, cell: Window) -> tuple[slice, slice] | None:
    """The part of a cell's arrays that a chip covers, as slices of them; None: no part."""
    top, bottom = max(chip.row, cell.row), min(chip.row + chip.height, cell.row + cell.height)
    left, right = max(chip.column, cell.column), min(chip.column + chip.width, cell.column + cell.width)
    if top >= bottom or left >= right:
        return None
    return slice(top - cell.row, bottom - cell.row), slice(left - cell.column, right - cell.column)


# In a cell


def count_chips(
    window: Window,
    chips: Sequence[ChipFrame],
    clear: NDArray[np.bool_],
    crop_type: NDArray[np.uint16] | None,
    parcel_id: NDArray[np.uint32] | None,
    split: NDArray[np.uint8] | None,
    *,
    ground: NDArray[np.uint8] | None = None,
) -> JsonObject:
    """`chips` (rows of whole chips) and `chip_pieces` (of chips that other cells share), for the journal.

    `window` is the cell in the cube and starts at a multiple of 64; `chips` are the parcel chips that meet it, the
    grid's are found here. `clear` is (time, y, x), the others (y, x); `split` may hold the buffer: a chip's split
    is that of its block. `ground`, (y, x), is the split of the polygons that decide in place of blocks: a chip of the
    grid that touches more than one of them, or none beside one, is BUFFER.
    """
    rows = [count.row() for count in _grid_chips(window, clear, crop_type, parcel_id, split, ground)]
    pieces = []
    for chip in chips:
        shared = _shared(chip.window, window)
        if shared is None:
            continue
        count = _piece(chip, shared, clear, crop_type, parcel_id, has_split=split is not None)
        whole = shared[0].stop - shared[0].start, shared[1].stop - shared[1].start
        if whole == (chip.window.height, chip.window.width):
            rows.append(count.row())
        else:
            pieces.append(count.piece())
    return {"chips": rows, "chip_pieces": pieces}


def _piece(
    chip: ChipFrame,
    shared: tuple[slice, slice],
    clear: NDArray[np.bool_],
    crop_type: NDArray[np.uint16] | None,
    parcel_id: NDArray[np.uint32] | None,
    *,
    has_split: bool,
) -> ChipCount:
    counts: Counter[int] = Counter()
    if crop_type is not None:
        crops, pixels = np.unique(crop_type[shared], return_counts=True)
        counts.update(dict(zip(crops.tolist(), pixels.tolist(), strict=True)))
        counts.pop(IGNORE, None)
    found = () if parcel_id is None else np.unique(parcel_id[shared]).tolist()
    return ChipCount(
        chip_id=chip.chip_id,
        kind="parcel",
        window=chip.window,
        split=int(chip.split) if has_split else None,
        labelled=None if crop_type is None else counts.total(),
        parcels=frozenset(found) - {0},
        crop_counts=counts,
        clear=tuple(clear[:, shared[0], shared[1]].sum(axis=(1, 2)).tolist()),
    )


def _grid_chips(
    window: Window,
    clear: NDArray[np.bool_],
    crop_type: NDArray[np.uint16] | None,
    parcel_id: NDArray[np.uint32] | None,
    split: NDArray[np.uint8] | None,
    ground: NDArray[np.uint8] | None,
) -> list[ChipCount]:
    """The chips of the grid in a cell, row by row; the last ones are cut at the cube's edge."""
    assert window.row % CHIP == 0
    assert window.column % CHIP == 0
    tops, lefts = range(0, window.height, CHIP), range(0, window.width, CHIP)
    n_chips = len(tops) * len(lefts)
    number = np.add.outer(
        np.arange(window.height) // CHIP * len(lefts), np.arange(window.width) // CHIP
    )  # (y, x): which chip
    clears = _clear_sums(clear, tops, lefts).reshape(len(clear), n_chips)
    crops = _crops_of(crop_type, number, n_chips) if crop_type is not None else [Counter()] * n_chips
    parcels = _parcels_of(parcel_id, number, n_chips) if parcel_id is not None else [frozenset()] * n_chips
    splits = _splits_of(split, ground, number, n_chips) if split is not None else [None] * n_chips
    counts = []
    for chip, (top, left) in enumerate((top, left) for top in tops for left in lefts):
        place = Window(
            row=window.row + top,
            column=window.column + left,
            height=min(CHIP, window.height - top),
            width=min(CHIP, window.width - left),
        )
        counts.append(
            ChipCount(
                chip_id=f"grid-{place.row}-{place.column}",
                kind="grid",
                window=place,
                split=splits[chip],
                labelled=None if crop_type is None else crops[chip].total(),
                parcels=parcels[chip],
                crop_counts=crops[chip],
                clear=tuple(clears[:, chip].tolist()),
            )
        )
    return counts


def _clear_sums(clear: NDArray[np.bool_], tops: range, lefts: range) -> NDArray[np.int64]:
    """Clear pixels of each chip and date, (time, chip row, chip column)."""
    # Down the rows first: up to 64 fit in a byte, and the sums run along memory.
    down = np.stack([clear.view(np.uint8)[:, top : top + CHIP].sum(axis=1, dtype=np.uint8) for top in tops], axis=1)
    return np.asarray(np.add.reduceat(down, list(lefts), axis=2, dtype=np.int64))


def _crops_of(crop_type: NDArray[np.uint16], number: NDArray[np.intp], n_chips: int) -> list[Counter[int]]:
    present = np.flatnonzero(np.bincount(crop_type.reshape(-1), minlength=IGNORE + 1))
    dense = np.zeros(IGNORE + 1, dtype=np.intp)
    dense[present] = np.arange(len(present))
    table = np.bincount(
        (number * len(present) + dense[crop_type]).reshape(-1), minlength=n_chips * len(present)
    ).reshape(n_chips, len(present))
    names = present.tolist()
    return [
        Counter({crop: pixels for crop, pixels in zip(names, row, strict=True) if pixels and crop != IGNORE})
        for row in table.tolist()
    ]


def _parcels_of(parcel_id: NDArray[np.uint32], number: NDArray[np.intp], n_chips: int) -> list[frozenset[int]]:
    starts = np.ones(parcel_id.shape, dtype=bool)  # a pixel whose left neighbour says the same adds nothing
    starts[:, 1:] = (parcel_id[:, 1:] != parcel_id[:, :-1]) | (number[:, 1:] != number[:, :-1])
    starts &= parcel_id > 0
    pairs = np.unique(number[starts].astype(np.int64) << 32 | parcel_id[starts])
    chips, ids = pairs >> 32, pairs & 0xFFFFFFFF
    cuts = np.searchsorted(chips, np.arange(1, n_chips))
    return [frozenset(part.tolist()) for part in np.split(ids, cuts)]


def _splits_of(
    split: NDArray[np.uint8], ground: NDArray[np.uint8] | None, number: NDArray[np.intp], n_chips: int
) -> list[int | None]:
    """The split of each chip's block; BUFFER where the buffer covers all of it, or where it or its ground has two."""
    table = np.bincount((number * 8 + split).reshape(-1), minlength=n_chips * 8).reshape(n_chips, 8)
    found: list[int | None] = []
    for row in table:
        used = [code for code in _USED if row[code]]
        found.append(int(used[0]) if len(used) == 1 else int(Split.BUFFER if used or row[Split.BUFFER] else Split.NONE))
    if ground is None:
        return found
    touched = np.bincount((number * 8 + ground).reshape(-1), minlength=n_chips * 8).reshape(n_chips, 8) > 0
    mixed = (touched.sum(axis=1) > 1).tolist()
    return [int(Split.BUFFER) if code and several else code for code, several in zip(found, mixed, strict=True)]


# After the cells


def merge_chips(cells: Iterable[JsonObject]) -> list[list[Any]]:
    """The rows of all chips, from what `count_chips` put into the journal: grid by position, parcels by id."""
    rows: list[list[Any]] = []
    pieces: dict[str, ChipCount] = {}
    for cell in cells:
        rows.extend(cell["chips"])
        for piece in map(ChipCount.from_piece, cell["chip_pieces"]):
            pieces[piece.chip_id] = pieces[piece.chip_id] + piece if piece.chip_id in pieces else piece
    rows.extend(piece.row() for piece in pieces.values())
    return sorted(rows, key=lambda row: (row[1], tuple(int(part) for part in row[0].split("-")[1:])))


def chips_table(rows: Sequence[Sequence[Any]], geobox: GeoBox) -> Any:
    """`chips.parquet` as a pyarrow Table, from the rows of `merge_chips` and the cube's grid.

    `split` is a word, null without splits; without labels `labelled_share`, `n_parcels`, `dominant_crop` and
    `crop_counts` are null.
    """
    import pyarrow as pa

    words = {int(code): code.name.lower() for code in Split}
    area = np.array([row[4] * row[5] for row in rows])
    labelled = [row[7] for row in rows]
    # In the order of classes, whatever the order in which the journal gives them back.
    counts = [None if row[7] is None else dict(sorted((int(c), n) for c, n in row[9].items())) for row in rows]
    columns = {
        "chip_id": pa.array([row[0] for row in rows], pa.string()),
        "kind": pa.array([row[1] for row in rows], pa.string()),
        **{name: pa.array([row[2 + i] for row in rows], pa.uint32()) for i, name in enumerate(_PLACE)},
        "split": pa.array([None if row[6] is None else words[row[6]] for row in rows], pa.string()),
        "labelled_share": pa.array(
            [None if n is None else n / a for n, a in zip(labelled, area.tolist(), strict=True)], pa.float64()
        ),
        "n_parcels": pa.array([None if row[7] is None else row[8] for row in rows], pa.uint32()),
        "dominant_crop": pa.array([_dominant(crops) for crops in counts], pa.uint16()),
        "crop_counts": pa.array(
            [None if crops is None else list(crops.items()) for crops in counts], pa.map_(pa.uint16(), pa.uint32())
        ),
        "clear_dates": pa.array([row[10] for row in rows], pa.uint16()),
        "clear_share": pa.array([_clear_share(row) for row in rows], pa.float64()),
    }
    return geo_table(columns, geometry=_squares(rows, geobox), epsg=epsg_of(geobox))


_PLACE = ("row", "col", "height", "width")


def _dominant(crops: dict[int, int] | None) -> int | None:
    """The class, background aside, with most pixels; of a tie, the smaller index."""
    return min((crop for crop in crops or () if crop > 0), key=lambda crop: (-(crops or {})[crop], crop), default=None)


def _clear_share(row: Sequence[Any]) -> float | None:
    seen = row[12] * row[4] * row[5]
    return row[11] / seen if seen else None


def _squares(rows: Sequence[Sequence[Any]], geobox: GeoBox) -> NDArray[np.object_]:
    west, _, _, north = geobox.boundingbox.bbox
    place = np.array([row[2:6] for row in rows], dtype=np.float64).reshape(-1, 4) * PIXEL_M
    left, top = west + place[:, 1], north - place[:, 0]
    return np.asarray(shapely.box(left, top - place[:, 2], left + place[:, 3], top), dtype=object).reshape(-1)
