"""T31TFM_1618: chips of 480 m in eastern France, Level-1C, 2016 to 2018, a pickle each, of either naming of its labels.

Format: github.com/michaeltrs/DeepSatModels (data/France) for the set as published, github.com/michaeltrs/DeepSatData
for the names that newer files have.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
import shapely
from numpy.typing import NDArray

from sits_catalog.cube import IGNORE, PIXEL_M, Conflict
from sits_catalog.loading import load_taxonomy
from sits_catalog.sentinel2 import L1C_BANDS
from sits_pipeline.exporters.formats import BAND_FACTOR
from sits_pipeline.importers.chip_files import (
    array_of,
    classes_of,
    days_of_year,
    in_time,
    indexed,
    repeated,
    whole_numbers,
)
from sits_pipeline.importers.exported import check_origin
from sits_pipeline.importers.original import OriginalFacts, OriginalPatch, PatchPixels
from sits_pipeline.importers.pickles import load_plain_pickle
from sits_pipeline.transformers import transformer_between

__all__ = ["T31tfm", "open_t31tfm"]

Naming = Literal["assignments", "masks"]
"""assignments: full_ass and part_ass, as published; masks: 1 for partly and 2 for fully shared, as newer files."""

Split = Literal["none", "train", "validation", "test"]
_LISTS: dict[str, Literal["train", "validation", "test"]] = {
    "train_paths": "train",
    "eval_paths": "validation",
    "test_paths": "test",
}
_FOLDER = re.compile(r"W(-?\d+)_N(-?\d+)_E(-?\d+)_S(-?\d+)")
_FILE = re.compile(r"(-?\d+)_(-?\d+)_(\d{4})")
_OF_YEAR = re.compile(r"2\d{3}/.+")
_LAMBERT = 2154
_FRANCE = (100_000, 6_000_000, 1_300_000, 7_200_000)
"""West, south, east, north of France in EPSG:2154: numbers beyond are of another CRS."""
_PARTLY, _FULLY = Conflict.DIFFERENT_CLASSES, Conflict.DIFFERENT_CLASSES | Conflict.WHOLLY_INSIDE_TWO
_OPTIONAL = (("ids", "parcel_id"), ("ratios", "coverage"))
"""Arrays that a set may lack, and ours of them."""
_NOT_TAKEN = ("groups", "invalid", "distances")


@dataclass(frozen=True, kw_only=True)
class T31tfm:
    """The chips of some years."""

    root: Path
    years: tuple[int, ...]
    facts: OriginalFacts

    def index(self) -> Sequence[OriginalPatch]:
        """All chips, by path; each file is read for its days."""
        splits = _splits(self.root, self.years)
        files = _files(self.root, self.years)
        lost = sorted(splits.keys() - {_relative(self.root, path) for path in files})
        if lost:
            raise FileNotFoundError(
                f"{self.root / lost[0]} is listed in paths/, but is not there ({len(lost)} are lost)"
            )

        def entry(path: Path) -> OriginalPatch:
            fields, relative = load_plain_pickle(path), _relative(self.root, path)
            _check_arrays(fields, path, self.facts)
            days, order = in_time(days_of_year(_doy(fields, path), _year(fields, path), path))
            return OriginalPatch(
                name=relative.removesuffix(".pickle"),
                days=days,
                order=order,
                split=splits.get(relative, "none"),
                outline=_outline(path, self.facts.height),
                original={"file": relative, "year": _year(fields, path), "naming": _naming(fields, path)},
            )

        return indexed(entry, files)

    def files(self, patch: OriginalPatch) -> Mapping[str, Path]:
        """The chip's pickle."""
        name = str(patch.original["file"])
        return {name: self.root / name}

    def read(self, patch: OriginalPatch) -> PatchPixels:
        """The pixels of a chip."""
        path = self.root / str(patch.original["file"])
        fields = load_plain_pickle(path)
        size = (self.facts.height, self.facts.width)
        bands = []
        for band in self.facts.bands:
            image = whole_numbers(array_of(fields, band, path), band, path, top=65535)
            bands.append(repeated(image, band, path, shape=(len(patch.days), *size), factor=BAND_FACTOR[band]))
        labels = _labels(fields, path, self.facts)
        for name, array in labels.items():
            if array.shape != size:
                raise ValueError(f"{path}: {name} should be made of {size[0]} x {size[1]} px; it is {array.shape}")
        return PatchPixels(dn=np.stack(bands, axis=1)[patch.order].astype(np.int32), labels=labels)


def open_t31tfm(path: Path, *, years: Sequence[int] | None = None) -> T31tfm:
    """The chips of T31TFM_1618 in the folder that holds 2016, 2017, 2018 and `paths`; of these years, or all.

    Raises FileNotFoundError where there are none.
    """
    there = sorted({int(found.name) for found in path.glob("2???") if any(found.glob("pkl_timeseries/*/*.pickle"))})
    missing = sorted(set(years or ()) - set(there))
    if missing or not there:
        wanted = missing[0] if missing else "2016"
        raise FileNotFoundError(
            f"no chips of T31TFM_1618 in {path}/{wanted}/pkl_timeseries/W*_N*_E*_S*/*.pickle; "
            f"the years that are there: {', '.join(map(str, there)) or 'none'}"
        )
    chosen = tuple(sorted(set(years or there)))
    files = _files(path, chosen)
    first = load_plain_pickle(files[0])
    side = int(array_of(first, "B02", files[0]).shape[-1])
    if side % 6:
        raise ValueError(f"{files[0]}: B02 should be a multiple of 6 pixels wide; it is {side}")
    facts = OriginalFacts(
        id="t31tfm-1618" if years is None else "t31tfm-" + "-".join(map(str, chosen)),
        title=f"T31TFM_1618, {', '.join(map(str, chosen))}",
        format="t31tfm",
        level="L1C",
        bands=tuple(L1C_BANDS),
        height=side,
        width=side,
        taxonomy=load_taxonomy("t31tfm-1618"),
        chronology="kept",
        licence="not stated by its authors",
        attribution=(
            "Tarasiou, Guler and Zafeiriou, IEEE TGRS 60, 2022; contains modified Copernicus Sentinel data 2016-2018 "
            "and the French RPG (IGN, ASP)"
        ),
        labels=_label_names(first),
        notes=_notes(path, files, first, chosen),
    )
    check_origin(path, facts)
    return T31tfm(root=path, years=chosen, facts=facts)


def _label_names(fields: Mapping[str, Any]) -> tuple[str, ...]:
    names = ["crop_type", "conflict"]
    names += [ours for theirs, ours in _OPTIONAL if theirs in fields]
    return tuple(names)


def _check_arrays(fields: Mapping[str, Any], path: Path, facts: OriginalFacts) -> None:
    """Raises ValueError where a chip has other label arrays than the first one, by which the set is described."""
    for theirs, ours in _OPTIONAL:
        if (theirs in fields) != (ours in facts.labels):
            raise ValueError(
                f"{path} has {'an' if theirs in fields else 'no'} array {theirs!r}, unlike the first chip; either all "
                "chips of a set have it or none"
            )


def _notes(root: Path, files: Sequence[Path], first: Mapping[str, Any], years: Sequence[int]) -> tuple[str, ...]:
    notes = [
        "Pixels that parcels of two classes share (full_ass, part_ass or masks) and numbers that are none of the "
        "twenty classes are ignored, as the published loader does; which number they had is not kept.",
        "0 is background: no parcel. The published loader takes it for unknown.",
    ]
    left = [name for name in _NOT_TAKEN if name in first] + sorted(
        name for name in first if name.endswith(("_x2", "_x4"))
    )
    if left:
        notes.append(f"Left out: {', '.join(left)} (finer label rasters have no place in the profile `patches`).")
    if all(_corner(path) is not None for path in files):
        notes.append(
            "Outlines are an inference: the numbers in the names of folders and files read as metres of EPSG:2154, "
            "those of a file as the chip's north-west corner."
        )
    else:
        notes.append("Names of folders and files do not agree on where chips lie, so that some have no outline.")
    if not _splits(root, years):
        lists = any((root / "paths" / f"{name}.csv").exists() for name in _LISTS)
        what = "Lists of chips name none of these years" if lists else "No lists of chips were found"
        notes.append(f"{what} (paths/train_paths.csv), so that there is no split.")
    return tuple(notes)


# Files


def _files(root: Path, years: Sequence[int]) -> tuple[Path, ...]:
    return tuple(path for year in years for path in sorted(root.glob(f"{year}/pkl_timeseries/*/*.pickle")))


def _relative(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()


def _splits(root: Path, years: Sequence[int]) -> dict[str, Split]:
    """Split of each file that a list names, of these years; the first column holds paths relative to the root."""
    splits: dict[str, Split] = {}
    for name, split in _LISTS.items():
        file = root / "paths" / f"{name}.csv"
        if not file.exists():
            continue
        with file.open(newline="") as lines:
            rows = [PurePosixPath(row[0].strip()) for row in csv.reader(lines) if row and row[0].strip()]
        for path in rows:
            if not _OF_YEAR.fullmatch(str(path)):
                raise ValueError(
                    f"{file}: {path} should be the path of a chip below {root}, such as 2016/pkl_timeseries/.../"
                    "6541426_800224_2016.pickle"
                )
            if path.parts[0] not in map(str, years):
                continue
            if splits.setdefault(str(path), split) != split:
                raise ValueError(f"{file}: {path} is listed for {split} and for {splits[str(path)]}; give it one split")
    return splits


def _outline(path: Path, side_px: int) -> shapely.Geometry | None:
    """Outline in lon/lat by the names of folder and file; None where they do not agree."""
    corner = _corner(path)
    if corner is None:
        return None
    left, top = corner
    size = side_px * PIXEL_M
    corners = [(left, top), (left + size, top), (left + size, top - size), (left, top - size)]
    to_lonlat = transformer_between(_LAMBERT, 4326)
    return shapely.Polygon([to_lonlat.transform(*corner) for corner in corners])


def _corner(path: Path) -> tuple[int, int] | None:
    """Left and top of a chip by the names of folder and file, <top>_<left>_<year>; None where they do not agree."""
    folder, file = _FOLDER.fullmatch(path.parent.name), _FILE.fullmatch(path.stem)
    if folder is None or file is None:
        return None
    west, north, east, south = map(int, folder.groups())
    top, left = int(file[1]), int(file[2])
    inside = west <= left <= east and south <= top <= north
    in_france = _FRANCE[0] <= left <= _FRANCE[2] and _FRANCE[1] <= top <= _FRANCE[3]
    return (left, top) if inside and in_france else None


# Arrays


def _doy(fields: Mapping[str, Any], path: Path) -> NDArray[np.int64]:
    doy = whole_numbers(array_of(fields, "doy", path), "doy", path, top=400)
    if doy.ndim != 1:
        raise ValueError(f"{path}: doy should be one number a frame; it is {doy.shape}")
    return doy


def _year(fields: Mapping[str, Any], path: Path) -> int:
    """The year in the file, which has to be the folder's."""
    said = np.unique(whole_numbers(array_of(fields, "year", path), "year", path, top=9999))
    folder = path.parent.parent.parent.name
    if said.size != 1 or str(said[0]) != folder:
        raise ValueError(f"{path}: the year should be that of the folder, {folder}; it is {said.tolist()}")
    return int(said[0])


def _naming(fields: Mapping[str, Any], path: Path) -> Naming:
    if "masks" in fields:
        return "masks"
    if "full_ass" in fields and "part_ass" in fields:
        return "assignments"
    raise ValueError(
        f"{path} should hold full_ass and part_ass, or masks: where parcels share a pixel; it holds "
        f"{', '.join(sorted(fields))}"
    )


def _labels(fields: Mapping[str, Any], path: Path, facts: OriginalFacts) -> dict[str, NDArray[Any]]:
    conflict = _conflict(fields, path)
    codes = whole_numbers(array_of(fields, "labels", path), "labels", path, top=65535)
    crop_type = classes_of(codes, facts.taxonomy, path, background=0)
    if crop_type.shape != conflict.shape:
        raise ValueError(f"{path}: labels are {crop_type.shape}, but the masks of shared pixels {conflict.shape}")
    labels: dict[str, NDArray[Any]] = {
        "crop_type": np.where(conflict > 0, np.uint16(IGNORE), crop_type),
        "conflict": conflict,
    }
    if "parcel_id" in facts.labels:
        ids = whole_numbers(array_of(fields, "ids", path), "ids", path, top=2**32 - 1)
        if ids.min(initial=0) < 0:
            raise ValueError(f"{path}: ids should be 0 and more; they go down to {ids.min()}")
        labels["parcel_id"] = ids.astype(np.uint32)
    if "coverage" in facts.labels:
        labels["coverage"] = _coverage(array_of(fields, "ratios", path), path)
    return labels


def _conflict(fields: Mapping[str, Any], path: Path) -> NDArray[np.uint8]:
    """Bits of `conflict`: where parcels of two classes meet, and where a pixel is wholly inside of both."""
    if _naming(fields, path) == "masks":
        masks = whole_numbers(array_of(fields, "masks", path), "masks", path, top=255)
        if not np.isin(masks, (0, 1, 2)).all():
            raise ValueError(
                f"{path}: masks should hold 0, 1 (partly shared) and 2 (fully); they hold {np.unique(masks)}"
            )
        partly, fully = masks == 1, masks == 2
    else:
        partly, fully = (array_of(fields, name, path) != 0 for name in ("part_ass", "full_ass"))
    if partly.shape != fully.shape:
        raise ValueError(f"{path}: part_ass is {partly.shape} and full_ass {fully.shape}; they should be of one size")
    return np.where(fully, _FULLY, np.where(partly, _PARTLY, 0)).astype(np.uint8)


def _coverage(ratios: NDArray[Any], path: Path) -> NDArray[np.uint8]:
    """Shares as the contract has them, x 255 and rounded up; ratios of float32 may pass 1 by a rounding."""
    if not (np.isfinite(ratios).all() and ratios.min(initial=0) >= 0 and ratios.max(initial=0) <= 1 + 1e-3):
        raise ValueError(f"{path}: ratios should lie in 0..1; they go from {ratios.min()} to {ratios.max()}")
    # Less a rounding of float32, so that k / 255 is k again.
    return np.clip(np.ceil(ratios.astype(np.float64) * 255 - 1e-4), 0, 255).astype(np.uint8)
