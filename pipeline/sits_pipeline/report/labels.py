"""The rows of a report that speak of labels: classes, splits, parcels that need a look."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import shapely

from sits_catalog.cube import IGNORE, PIXEL_M, Split
from sits_pipeline.parcels import Flag
from sits_pipeline.report.facts import ReportFacts
from sits_pipeline.report.pictures import SPLIT_COLOURS

__all__ = [
    "ClassRow",
    "FlagRow",
    "FoldedRow",
    "LostParcel",
    "ParcelNotes",
    "SplitRow",
    "class_rows",
    "folded_rows",
    "parcel_notes",
    "split_rows",
]

_HA = PIXEL_M**2 / 1e4
_SHOWN = 20
_USED = (Split.TRAIN, Split.VALIDATION, Split.TEST)
_FLAG_MEANINGS = {
    Flag.INVALID_REPAIRED: "geometry was invalid and is repaired",
    Flag.MULTIPART: "has several parts",
    Flag.OVERLAPS: "shares more than 1 m² with another parcel",
    Flag.OUTSIDE: "does not touch the region itself, only its surroundings",
    Flag.DUPLICATE: "repeats another parcel's geometry and code",
}


@dataclass(frozen=True, kw_only=True)
class ClassRow:
    """A class and how much of it there is."""

    index: int
    name: str
    code: str
    colour: str
    parcels: int
    pixels: int
    hectares: float
    bar: float
    """Per cent of the largest class."""
    shares: tuple[float, ...]
    """Shares of its parcels' pixels in train, validation and test, per cent."""


def class_rows(facts: ReportFacts) -> list[ClassRow]:
    """Classes by pixels, largest first; classes that do not occur are left out."""
    if facts.taxonomy is None or facts.table is None:
        return []
    parcels = Counter(facts.table.parcels.crop_type.tolist())
    pixels, shares = facts.class_pixels, _class_splits(facts)
    found = [crop for crop in facts.taxonomy.classes if parcels[crop.index] or pixels[crop.index]]
    largest = max((pixels[crop.index] for crop in found), default=0) or 1
    rows = [
        ClassRow(
            index=crop.index,
            name=crop.name,
            code=crop.hcat or crop.code,
            colour=crop.colour,
            parcels=parcels[crop.index],
            pixels=pixels[crop.index],
            hectares=pixels[crop.index] * _HA,
            bar=round(100 * pixels[crop.index] / largest, 2),
            shares=shares.get(crop.index, (0.0, 0.0, 0.0)),
        )
        for crop in found
    ]
    return sorted(rows, key=lambda row: (-row.pixels, row.index))


@dataclass(frozen=True, kw_only=True)
class FoldedRow:
    """A class that had too few pixels in a split and became part of another."""

    name: str
    code: str
    pixels: tuple[int, ...]
    """In train, validation and test, by the area of its parcels."""
    lacking: str
    """The splits in which it has too few, with what was asked for."""


def folded_rows(facts: ReportFacts) -> list[FoldedRow]:
    """What was folded, as the cube's attributes say; empty where nothing was."""
    folded = facts.attributes.get("folded")
    if not folded:
        return []
    asked = folded["min_pixels"]
    return [
        FoldedRow(
            name=str(row["name"]),
            code=str(row["code"]),
            pixels=tuple(int(row["pixels"][split.name.lower()]) for split in _USED),
            lacking=", ".join(f"under {asked[split]} in {split}" for split in row["lacking"]),
        )
        for row in folded["classes"]
    ]


def _class_splits(facts: ReportFacts) -> dict[int, tuple[float, ...]]:
    """Shares of each class's parcel pixels in train, validation and test, per cent."""
    if facts.table is None or facts.n_pixels is None or facts.split is None:
        return {}
    crops = facts.table.parcels.crop_type.astype(np.int64)
    counts = np.zeros((int(crops.max(initial=0)) + 1, len(_USED)))
    for column, code in enumerate(_USED):
        where = facts.split == code
        np.add.at(counts[:, column], crops[where], facts.n_pixels[where])
    totals = counts.sum(axis=1)
    return {
        int(crop): tuple(float(round(100 * value / totals[crop], 2)) for value in counts[crop])
        for crop in np.flatnonzero(totals)
    }


# Splits


@dataclass(frozen=True, kw_only=True)
class SplitRow:
    """A split and how much of the cube it holds."""

    name: str
    colour: str
    blocks: int | None
    """None where polygons decide, and for what is in no split."""
    parcels: int
    pixels: int
    share: float
    """Per cent of the built pixels."""
    is_mute: bool
    """Whether these pixels are of no use to a model."""


def split_rows(facts: ReportFacts) -> list[SplitRow]:
    """Train, validation, test, buffer, none; empty for a cube without splits."""
    if facts.plan.splits is None or facts.split is None:
        return []
    epsg = facts.plan.zone.epsg
    has_blocks = facts.plan.splits.areas_of(epsg) is None
    blocks = Counter(facts.plan.splits.grid(epsg).split.ravel().tolist())
    parcels = Counter(facts.split.tolist())
    return [
        SplitRow(
            name="no split" if code == Split.NONE else code.name.lower(),
            colour=SPLIT_COLOURS[code],
            blocks=blocks[code] if has_blocks and code in _USED else None,
            parcels=parcels[code],
            pixels=facts.split_pixels[code],
            share=100 * facts.split_pixels[code] / max(1, facts.n_built_pixels),
            is_mute=code not in _USED,
        )
        for code in (*_USED, Split.BUFFER, Split.NONE)
        if facts.split_pixels[code] or parcels[code] or code in _USED
    ]


# Parcels that need a look


@dataclass(frozen=True, kw_only=True)
class LostParcel:
    """A parcel that won no pixel."""

    parcel_id: int
    source_key: str
    code: str
    crop: str
    flags: str
    square_metres: float


@dataclass(frozen=True, kw_only=True)
class FlagRow:
    """How many parcels carry a flag."""

    name: str
    meaning: str
    parcels: int


@dataclass(frozen=True, kw_only=True)
class ParcelNotes:
    """What somebody who knows the parcels should look at."""

    total: int
    n_lost: int
    lost: tuple[LostParcel, ...]
    """The first of them."""
    flags: tuple[FlagRow, ...]
    unknown: tuple[tuple[str, int], ...]
    """Crop codes that the taxonomy does not know, with their parcels, most parcels first."""
    n_dropped: int
    dropped: tuple[tuple[int, str], ...]
    """Row of the file and reason, the first of them."""
    notes: tuple[str, ...]


def parcel_notes(facts: ReportFacts) -> ParcelNotes | None:
    """Lost, flagged and dropped parcels and unknown codes; None for a cube without parcels."""
    table = facts.table
    if table is None or facts.n_pixels is None:
        return None
    # A parcel beside the cube, or in another zone's strip, cannot win a pixel of it.
    none = np.flatnonzero(facts.n_pixels == 0)
    lost = none[shapely.intersects(table.parcels.geometry[none], facts.plan.zone.ground)]
    area = table.area_ha
    return ParcelNotes(
        total=len(table),
        n_lost=len(lost),
        lost=tuple(
            LostParcel(
                parcel_id=int(table.parcels.parcel_id[row]),
                source_key=str(table.source_key[row]),
                code=_text(table.source_code[row]),
                crop="ignored" if table.parcels.crop_type[row] == IGNORE else _text(table.crop_name[row]),
                flags=", ".join(str(flag.name).lower() for flag in Flag if int(table.flags[row]) & flag),
                square_metres=float(area[row] * 1e4),
            )
            for row in lost[:_SHOWN].tolist()
        ),
        flags=tuple(
            FlagRow(name=str(flag.name).lower(), meaning=_FLAG_MEANINGS[flag], parcels=count)
            for flag in Flag
            if (count := int(np.count_nonzero(table.flags & flag)))
        ),
        unknown=tuple(sorted(table.unknown_codes.items(), key=lambda pair: (-pair[1], pair[0]))),
        n_dropped=len(table.dropped),
        dropped=tuple((row.row, row.reason) for row in table.dropped[:_SHOWN]),
        notes=(*table.taxonomy.notes, *table.notes),
    )


def _text(value: object) -> str:
    return "—" if value is None else str(value)
