"""PASTIS24: the patches of PASTIS in windows of 24 px, a pickle each, their frames sorted by day of the year."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sits_pipeline.importers.exported import check_origin
from sits_pipeline.importers.folds import FoldRule
from sits_pipeline.importers.original import Chronology, OriginalFacts, OriginalPatch, PatchPixels
from sits_pipeline.importers.pastis import classes_of, marked_pixels, semantic_of
from sits_pipeline.importers.pastis_metadata import (
    ATTRIBUTION,
    BANDS,
    LICENCE,
    PastisRecord,
    pastis_taxonomy,
    read_metadata,
)
from sits_pipeline.importers.pickles import load_plain_pickle

__all__ = ["Pastis24", "open_pastis24"]

_PICKLES, _FOLDS = "pickle24x24", "fold-paths"
_NAME = re.compile(r"(\d+)_(\d+)\.pickle")
_SIDE = 24
_YEAR = 2019
"""The season of PASTIS is September 2018 to November 2019: where years are lost, days are those of its last year."""
_NEW_YEAR = (date(_YEAR, 1, 1) - date(1970, 1, 1)).days
_EPOCH = date(1970, 1, 1)
_NAMED = 10
"""Patches that a note names."""


@dataclass(frozen=True, kw_only=True)
class Pastis24:
    """The files of PASTIS24."""

    root: Path
    facts: OriginalFacts
    folds: FoldRule
    metadata: Path | None
    """`metadata.geojson` of PASTIS, by which the chronology is restored."""

    def index(self) -> Sequence[OriginalPatch]:
        """All windows, by patch and position. One pickle a patch is opened where there are no metadata."""
        windows = _windows(self.root)
        fold_of = _folds_of(self.root)
        records = {} if self.metadata is None else {record.id: record for record in read_metadata(self.metadata)}
        if self.metadata is not None:
            _check_known(windows, records, self.metadata)
        patches = []
        for number, positions in sorted(windows.items()):
            first = self.root / _file(number, positions[0])
            record = records.get(number)
            shared = _of_record(record) if record is not None else _of_year(_doy(load_plain_pickle(first), first))
            for position in positions:
                name = f"{number}_{position}"
                fold = fold_of.get(name, record.fold if record is not None and not fold_of else None)
                patches.append(replace(shared, name=name, fold=fold, split=self.folds.split_of(fold), original={
                    **shared.original, "ID_PATCH": number, "window": position, "file": _file(number, position)
                }))  # fmt: skip
        _check_listed(self.root, fold_of, {patch.name for patch in patches})
        return patches

    def read(self, patch: OriginalPatch) -> PatchPixels:
        """The pixels of a window. Raises ValueError where its days of the year are not those of the index."""
        path = self.root / str(patch.original["file"])
        found = load_plain_pickle(path)
        doy, wanted = _doy(found, path), self._days_of_year(patch)
        if not np.array_equal(doy, wanted):
            raise ValueError(
                f"{path}: doy should be {wanted.tolist()}, that of its patch"
                f"{'' if self.metadata is None else f' in {self.metadata.name}'}; got {doy.tolist()}"
            )
        dn = _array(found, "img", path)
        shape = (len(doy), len(BANDS), _SIDE, _SIDE)
        if dn.shape != shape or dn.dtype.kind not in "iu":
            raise ValueError(
                f"{path}: img should be whole numbers (time, band, y, x) of {shape}; got {dn.dtype} of {dn.shape}"
            )
        labels = classes_of(semantic_of(_array(found, "labels", path), (_SIDE, _SIDE), path), path)
        return marked_pixels(dn[patch.order], {"crop_type": labels}, path)

    def files(self, patch: OriginalPatch) -> Mapping[str, Path]:
        """The window's pickle."""
        name = str(patch.original["file"])
        return {name: self.root / name}

    def _days_of_year(self, patch: OriginalPatch) -> NDArray[np.int64]:
        """Days of the year of the frames as the pickle has them."""
        days = np.empty(len(patch.days), np.int64)
        days[patch.order] = patch.days - _NEW_YEAR + 1 if self.metadata is None else _calendar(patch.days)
        return days


def open_pastis24(path: Path, *, metadata: Path | None, folds: FoldRule) -> Pastis24:
    """PASTIS24 in the folder that holds pickle24x24 and fold-paths; `metadata`: metadata.geojson of PASTIS, or None.

    Raises FileNotFoundError where that is not so, and ValueError for files that are not of the format.
    """
    if not (path / _PICKLES).is_dir():
        raise FileNotFoundError(f"{path} has no {_PICKLES}; give the folder of PASTIS24 that holds it")
    if metadata is not None and not metadata.is_file():
        raise FileNotFoundError(f"{metadata} is missing; it is the file of PASTIS (not PASTIS24) that has the dates")
    chronology: Chronology = "day-of-year" if metadata is None else "restored"
    facts = OriginalFacts(
        id="pastis24",
        title="PASTIS24",
        format="pastis24",
        level="L2A",
        bands=BANDS,
        height=_SIDE,
        width=_SIDE,
        taxonomy=pastis_taxonomy(),
        chronology=chronology,
        licence=f"{LICENCE} (that of PASTIS)",
        attribution=f"{ATTRIBUTION}; cut into windows by Tarasiou, Chavez and Zafeiriou, CVPR 2023",
        notes=tuple(_notes(path, folds, metadata, chronology)),
    )
    check_origin(path, facts)
    return Pastis24(root=path, facts=facts, folds=folds, metadata=metadata)


# The index


def _file(number: int, position: int) -> str:
    return f"{_PICKLES}/{number}_{position}.pickle"


def _windows(root: Path) -> dict[int, list[int]]:
    """Positions of the windows of each patch, ascending. Raises ValueError where there is none, or a foreign name."""
    found: dict[int, list[int]] = {}
    for path in (root / _PICKLES).glob("*.pickle"):
        match = _NAME.fullmatch(path.name)
        if match is None:
            raise ValueError(f"{path} should be called PATCH_WINDOW.pickle, such as 10000_0.pickle")
        found.setdefault(int(match[1]), []).append(int(match[2]))
    if not found:
        raise ValueError(f"{root / _PICKLES} holds no pickles")
    return {number: sorted(positions) for number, positions in found.items()}


def _folds_of(root: Path) -> dict[str, int]:
    """Fold of each window that a file of fold-paths lists; empty where there are none."""
    found: dict[str, int] = {}
    for path in sorted((root / _FOLDS).glob("fold_*_paths.csv")):
        match = re.fullmatch(r"fold_(\d+)_paths\.csv", path.name)
        if match is None:
            continue
        with path.open(newline="") as file:
            for row in csv.reader(file):
                name = Path(row[0].strip()).name.removesuffix(".pickle") if row else ""
                if not name:
                    continue
                if found.setdefault(name, int(match[1])) != int(match[1]):
                    raise ValueError(f"{path}: {name} is in fold {found[name]} as well; a window has one fold")
    return found


def _check_listed(root: Path, fold_of: Mapping[str, int], names: set[str]) -> None:
    missing = sorted(fold_of.keys() - names)
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of the {len(fold_of)} pickles that {root / _FOLDS} lists are missing, the first is "
            f"{missing[0]}.pickle; download them, or take them out of the lists"
        )


def _check_known(windows: Mapping[int, Sequence[int]], records: Mapping[int, PastisRecord], metadata: Path) -> None:
    unknown = sorted(windows.keys() - records.keys())
    if unknown:
        raise ValueError(
            f"{metadata} knows nothing of {len(unknown)} of the {len(windows)} patches, the first is {unknown[0]}; "
            "give the file of PASTIS that these windows were cut from"
        )


def _of_record(record: PastisRecord) -> OriginalPatch:
    """The windows of a patch whose dates are known.

    A pickle has the frames by day of the year: frame k was frame `by_year[k]` of PASTIS. Two frames of one day of the
    year, a year apart, are taken to stand in the order of PASTIS, as a stable sort leaves them.
    """
    by_year = np.argsort(_calendar(record.days), kind="stable")
    shared = _shared(record.days[by_year], outline=record.outline)
    unsure = _ambiguous(shared.days)
    return replace(shared, original={"ambiguous_frames": unsure}) if unsure else shared


def _ambiguous(days: NDArray[np.int32]) -> list[int]:
    """Frames, in the order of the calendar, whose day of the year is that of another frame on another day."""
    calendar = _calendar(days)
    return [
        position
        for position, (day, found) in enumerate(zip(days, calendar, strict=True))
        if np.any((calendar == found) & (days != day))
    ]


def _of_year(doy: NDArray[np.int64]) -> OriginalPatch:
    """The windows of a patch of which the days of the year alone are known."""
    return _shared((doy + _NEW_YEAR - 1).astype(np.int32), outline=None)


def _shared(days: NDArray[np.int32], *, outline: Any) -> OriginalPatch:
    """A patch without a name, from the days of its frames in the order of the pickle."""
    order = np.argsort(days, kind="stable").astype(np.int32)
    return OriginalPatch(name="", days=days[order], order=order, outline=outline)


def _calendar(days: NDArray[np.int32]) -> NDArray[np.int64]:
    """Day of the year, from 1 on, of days since 1970-01-01."""
    return np.array([(_EPOCH + timedelta(days=int(day))).timetuple().tm_yday for day in days], np.int64)


# Pickles


def _array(found: Mapping[str, Any], key: str, path: Path) -> NDArray[Any]:
    if isinstance(found.get(key), np.ndarray):
        return np.asarray(found[key])
    raise ValueError(f"{path} should hold an array {key!r}; it holds {', '.join(map(repr, found)) or 'nothing'}")


def _doy(found: Mapping[str, Any], path: Path) -> NDArray[np.int64]:
    """Days of the year of the frames."""
    doy = _array(found, "doy", path)
    whole = doy.ndim == 1 and doy.dtype.kind in "iuf" and bool(np.all(doy == np.floor(doy)))
    if not whole or len(doy) == 0 or doy.min() < 1 or doy.max() > 366:
        raise ValueError(f"{path}: doy should be days of the year, 1 to 366, (time,); got {doy.tolist()}")
    return doy.astype(np.int64)


def _notes(root: Path, folds: FoldRule, metadata: Path | None, chronology: str) -> list[str]:
    """What a reader should know of this import."""
    notes = [
        "Windows of 24 px in rows of five, from the upper left of their patch; the last 8 rows and columns of PASTIS "
        "are in none. Their name is PATCH_WINDOW.",
        f"Folds {folds} are train/validation/test.",
        "Parcel numbers are not in the files.",
    ]
    if not any((root / _FOLDS).glob("fold_*_paths.csv")):
        source = "those of the metadata" if metadata is not None else "unknown, so that there is no split"
        notes.append(f"There are no lists in {_FOLDS}: folds are {source}.")
    windows, fold_of = _windows(root), _folds_of(root)
    records = [] if metadata is None else [one for one in read_metadata(metadata) if one.id in windows]
    notes += folds.notes(fold_of.values() if fold_of else [record.fold for record in records])
    if chronology == "day-of-year":
        notes.append("Give metadata.geojson of PASTIS (--metadata) to have the dates put right.")
        return notes
    assert metadata is not None
    twice = [record.id for record in records if _ambiguous(record.days)]
    notes.append("An outline is that of the whole patch which the window was cut from.")
    if twice:
        notes.append(
            f"In {len(twice)} patches of PASTIS ({', '.join(map(str, twice[:_NAMED]))}"
            f"{', ...' if len(twice) > _NAMED else ''}) two frames of different years share a day of the year; the "
            "files do not tell which of them is the earlier one, and they are taken in the order of PASTIS: the column "
            "original has them as ambiguous_frames."
        )
    return notes
