"""The layouts that the loaders of DeepSatModels read: PASTIS24, MTLCC and T31TFM_1618, pickles with lists of paths.

Format: github.com/michaeltrs/DeepSatModels (data/PASTIS24, data/MTLCC, data/France).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sits_catalog.cube import Conflict
from sits_catalog.sentinel2 import L1C_BANDS
from sits_pipeline.exporters.encode import (
    BandPlan,
    ClassNumbers,
    as_in_file,
    dates_of,
    int16_of,
    plain_pickle,
    stack_of,
)
from sits_pipeline.exporters.formats import (
    BAND_FACTOR,
    MTLCC_CODES,
    MTLCC_STACKS,
    PASTIS_BANDS,
    SIDES,
    STACKS,
    T31TFM_CODES,
    T31TFM_UNKNOWN,
)
from sits_pipeline.exporters.pastis import FoldPlan, check_labels
from sits_pipeline.exporters.views import SplitName, View, ViewFacts, Views, open_views
from sits_pipeline.exporters.whole import (
    Exported,
    Progress,
    Tally,
    check_dates,
    kept_views,
    summary,
    whole_folder,
    write_manifest,
)
from sits_pipeline.folder import Folder

__all__ = ["DeepSatLayout", "export_deepsatmodels"]

DeepSatLayout = Literal["pastis24", "mtlcc", "t31tfm"]

_MTLCC_ROOT = "data_IJGI18/datasets/full"
_TRAINED_WITH = {1: "123", 2: "234", 3: "345", 4: "451", 5: "512"}
"""Folds that the published lists train with, by the first of them."""
_EPOCH = date(1970, 1, 1)


@dataclass(frozen=True)
class _Chip:
    """A chip's pickle."""

    path: str
    """Relative to the folder that is exported."""
    sample: Mapping[str, Any]


@dataclass
class _Writer:
    """How views become chips of a layout, and what is remembered of them for its lists."""

    facts: ViewFacts
    plan: BandPlan
    numbers: ClassNumbers
    tally: Tally
    folds: FoldPlan
    listed: list[tuple[str, SplitName, int]] = field(default_factory=list)
    """Path, split and fold of each chip; the fold of PASTIS24 alone."""


def export_deepsatmodels(
    folder: Folder, out: Path, *, layout: DeepSatLayout, overwrite: bool, incomplete: bool, progress: Progress
) -> Exported:
    """Write a dataset into `out` in one of the layouts, in windows of its chips' size.

    Raises FileExistsError where `out` may not be written, FileNotFoundError where there is no dataset, and ValueError
    where it is not complete, has no labels, lacks a band, has more classes than the published loader knows, or has lost
    the years of dates that the layout has.
    """
    views = open_views(folder, side=_side(folder, layout), training=True, incomplete=incomplete)
    check_labels(views.facts)
    if layout != "pastis24":  # which has days of the year alone
        check_dates(views.facts, layout)
    with whole_folder(out, dataset=folder, overwrite=overwrite) as partial:
        exported = _write(views, layout, partial, out, progress)
        write_manifest(partial, views.facts, exported)
    return exported


def _side(folder: Folder, layout: DeepSatLayout) -> int | None:
    """Side of the windows: the layout's; a set that was imported from this layout keeps its patches."""
    from sits_pipeline.store import read_attributes

    attributes = read_attributes(folder) or {}
    return None if (attributes.get("imported") or {}).get("format") == layout else SIDES[layout]


def _write(views: Views, layout: DeepSatLayout, partial: Path, out: Path, progress: Progress) -> Exported:
    writer = _writer(views.facts, layout)
    chip_of, write_lists, notes = _LAYOUTS[layout]
    unfit = writer.folds.unfit if layout == "pastis24" else None
    for view in kept_views(views, writer.tally, progress, unfit=unfit):
        chip = chip_of(view, writer)
        path = partial / chip.path
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            raise ValueError(f"two chips of {views.facts.name} would be {chip.path}")
        path.write_bytes(plain_pickle(chip.sample))
    write_lists(partial, writer)
    (partial / "label_names.json").write_text(json.dumps(writer.numbers.document(), indent=1) + "\n")
    said = (writer.folds.note,) if layout == "pastis24" else ()
    return summary(layout, out, writer.tally, *writer.plan.note, *said, *notes)


def _writer(facts: ViewFacts, layout: DeepSatLayout) -> _Writer:
    if layout == "pastis24":
        plan, numbers = BandPlan.of(facts, PASTIS_BANDS, layout), ClassNumbers.consecutive(facts)
    else:
        codes, void = (MTLCC_CODES, 0) if layout == "mtlcc" else (T31TFM_CODES, T31TFM_UNKNOWN)
        plan = BandPlan.of(facts, tuple(L1C_BANDS), layout)
        numbers = ClassNumbers.of_codes(facts, codes, layout, void=void)
    return _Writer(facts, plan, numbers, Tally(), FoldPlan(facts))


def _write_paths(path: Path, rows: list[str]) -> None:
    """A list of paths: no header, a row each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{row}\n" for row in rows))


def _days_of_year(days: NDArray[np.int32], *, year: int | None = None) -> NDArray[np.int64]:
    """Days of the year of `days`, or counted from the beginning of `year`."""
    return np.array([(day - date(year or day.year, 1, 1)).days + 1 for day in dates_of(days)], np.int64)


# PASTIS24


def _pastis24_chip(view: View, writer: _Writer) -> _Chip:
    facts = writer.facts
    image = np.stack(writer.plan.images(view), axis=1)
    if facts.imported == "pastis24":
        # Where the original had lost the years, its days are those of one, the last of which may be 366.
        lost = facts.attributes["imported"]["chronology"] == "day-of-year"
        frames = as_in_file(view, facts, "pastis24")
        doy = _days_of_year(view.days, year=dates_of(view.days)[0].year if lost else None)
        path = str(view.original["file"])
    else:
        doy = _days_of_year(view.days)
        # By day of the year, as the published set, whose loader expects no more.
        frames = np.argsort(doy[by_file := as_in_file(view, facts, "pastis")], kind="stable")
        frames = by_file[frames]
        number = int(view.original["ID_PATCH"]) if facts.imported == "pastis" else view.number
        path = f"pickle24x24/{number}_{view.part}.pickle"
    writer.listed.append((path, view.split, writer.folds.fold_of(view)))
    sample = {
        "img": int16_of(image, writer.tally)[frames],
        # The published transform takes labels[0].
        "labels": writer.numbers.encode(view.labels["crop_type"])[np.newaxis],
        "doy": doy[frames],
    }
    return _Chip(path, sample)


def _pastis24_lists(out: Path, writer: _Writer) -> None:
    paths = {fold: [path for path, _, own in writer.listed if own == fold] for fold in _TRAINED_WITH}
    for fold, folds in _TRAINED_WITH.items():
        _write_paths(out / f"fold-paths/fold_{fold}_paths.csv", paths[fold])
        together = [path for one in folds for path in paths[int(one)]]
        _write_paths(out / f"fold-paths/folds_{fold}_{folds}_paths.csv", together)


# MTLCC


def _mtlcc_chip(view: View, writer: _Writer) -> _Chip:
    facts = writer.facts
    frames = as_in_file(view, facts, "mtlcc")
    images = dict(zip(L1C_BANDS, writer.plan.images(view), strict=True))
    sample: dict[str, Any] = {}
    for stack, factor in MTLCC_STACKS.items():
        bands = [stack_of(images[band], view.observed, factor) for band in STACKS[stack]]
        sample[stack] = int16_of(np.stack(bands, axis=-1), writer.tally)[frames]  # (time, y, x, band)
    days = view.days[frames]
    labels = writer.numbers.encode(view.labels["crop_type"]).astype(np.int8)
    sample |= {
        "day": _days_of_year(days).astype(np.int16),
        "year": np.array([day.year for day in dates_of(days)], np.int16),
        "labels": np.repeat(labels[np.newaxis], len(days), axis=0),
    }
    if facts.imported == "mtlcc":
        name = f"{view.original['folder']}/{view.original['tile']}"
    else:
        name = f"data{dates_of(view.days)[-1].year % 100:02d}/{view.number}" + (f"_{view.part}" if view.part else "")
    path = f"{_MTLCC_ROOT}/240pkl/{name}.pickle"
    writer.listed.append((path, view.split, 0))
    return _Chip(path, sample)


def _mtlcc_lists(out: Path, writer: _Writer) -> None:
    root = out / _MTLCC_ROOT
    _write_paths(root / "240pkl/data_paths.csv", [path for path, _, _ in writer.listed])
    lists: dict[SplitName, tuple[str, str | None]] = {
        "train": ("train_fold0", "train_paths"),
        "validation": ("eval", "eval_paths"),
        "test": ("test_fold0", None),
    }
    for split, (tiles, csv) in lists.items():
        mine = [path for path, own, _ in writer.listed if own == split]
        if csv is not None:
            _write_paths(root / f"240pkl/{csv}.csv", mine)
        _write_paths(root / f"240/tileids/{tiles}.tileids", list(dict.fromkeys(Path(path).stem for path in mine)))


# T31TFM_1618


def _t31tfm_chip(view: View, writer: _Writer) -> _Chip:
    facts = writer.facts
    frames = as_in_file(view, facts, "t31tfm")
    images = dict(zip(L1C_BANDS, writer.plan.images(view), strict=True))
    days = view.days[frames]
    year = dates_of(view.days)[-1].year
    sample: dict[str, Any] = {
        band: stack_of(image, view.observed, BAND_FACTOR[band])[frames] for band, image in images.items()
    }
    sample |= {"doy": _days_of_year(days), "year": year, **_ground_truth(view, writer)}
    if facts.imported == "t31tfm":
        path = str(view.original["file"])
    else:
        path = f"{year}/pkl_timeseries/{_place(view, facts, year)}.pickle"
    writer.listed.append((path, view.split, 0))
    return _Chip(path, sample)


def _ground_truth(view: View, writer: _Writer) -> dict[str, NDArray[Any]]:
    """Label rasters by the published names, and by the newer one where the original had it."""
    labels = view.labels
    conflict = labels.get("conflict", np.zeros(labels["crop_type"].shape, np.uint8))
    meet, inside = ((conflict & bit) > 0 for bit in (Conflict.DIFFERENT_CLASSES, Conflict.WHOLLY_INSIDE_TWO))
    fully, partly = meet & inside, meet & ~inside
    truth = {
        "labels": writer.numbers.encode(labels["crop_type"]).astype(np.float32),
        "full_ass": fully.astype(np.float32),
        "part_ass": partly.astype(np.float32),
    }
    if view.original.get("naming") == "masks":
        truth["masks"] = np.where(fully, 2, np.where(partly, 1, 0)).astype(np.float32)
    # float64: a float32 holds no number above 16 777 216 exactly.
    truth["ids"] = labels.get("parcel_id", np.zeros(conflict.shape)).astype(np.float64)
    if "coverage" in labels:
        truth["ratios"] = (labels["coverage"] / 255).astype(np.float32)
    return truth


def _place(view: View, facts: ViewFacts, year: int) -> str:
    """Folder and stem of a chip: its corners in metres of the dataset's CRS, or its number where it has no place."""
    if view.transform is None:
        return f"patches/{view.number}_{view.part}_{year}"
    left, top = round(view.transform[2]), round(view.transform[5])
    size = facts.side[0] * 10
    column, row = left // 25_000 * 25_000, -(-top // 25_000) * 25_000
    folder = f"W{column}_N{row}_E{column + 25_000 + size}_S{row - 25_000 - size}"
    return f"{folder}/{top}_{left}_{year}"


def _t31tfm_lists(out: Path, writer: _Writer) -> None:
    names: dict[SplitName, str] = {"train": "train_paths", "validation": "eval_paths", "test": "test_paths"}
    for split, name in names.items():
        _write_paths(out / f"paths/{name}.csv", [path for path, own, _ in writer.listed if own == split])


_COARSE = (
    "Bands of 20 m and 60 m are the means of their observed pixels of 10 m: the values themselves where these were "
    "repeated, an approximation where they were interpolated."
)
_LAYOUTS: dict[
    DeepSatLayout, tuple[Callable[[View, _Writer], _Chip], Callable[[Path, _Writer], None], tuple[str, ...]]
] = {
    "pastis24": (
        _pastis24_chip,
        _pastis24_lists,
        ("Frames are sorted by day of the year, as in the published set; parcel numbers have no place in it.",),
    ),
    "mtlcc": (
        _mtlcc_chip,
        _mtlcc_lists,
        (_COARSE, "Background and ignored pixels are 0, which the published loader takes for unknown."),
    ),
    "t31tfm": (
        _t31tfm_chip,
        _t31tfm_lists,
        (
            _COARSE,
            f"Background is 0 and ignored pixels are {T31TFM_UNKNOWN}: the published loader takes both for unknown.",
            "Label rasters at 10 m alone; `year` is that of the last date.",
        ),
    ),
}
