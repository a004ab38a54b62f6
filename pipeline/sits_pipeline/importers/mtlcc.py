"""MTLCC: tiles of 240 m in Bavaria, Level-1C, 2016 and 2017, as TFRecords or as the pickles made of them.

Format: Russwurm and Koerner 2018, github.com/TUM-LMF/MTLCC, and github.com/michaeltrs/DeepSatModels for the pickles and
the order of the bands. The year is that of the folder: the one in the TFRecords is 2017 everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sits_catalog.loading import load_taxonomy
from sits_catalog.sentinel2 import L1C_BANDS
from sits_pipeline.exporters.formats import MTLCC_STACKS, STACKS
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
from sits_pipeline.importers.tfrecords import parse_example, read_records

__all__ = ["Mtlcc", "open_mtlcc"]

_FULL = "data_IJGI18/datasets/full"
_PLACES = ("", "240", "240pkl", f"{_FULL}/240", f"{_FULL}/240pkl")
"""Where the folders of years are, below what a user may name: a folder of tiles, `full`, or the clone of MTLCC."""

_SUFFIX = {"tfrecord": ".tfrecord.gz", "pickle": ".pickle"}
_LISTS: dict[str, Literal["train", "validation", "test"]] = {
    "train_fold0": "train",
    "eval": "validation",
    "test_fold0": "test",
}
_CSVS: dict[str, Literal["train", "validation", "test"]] = {"train_paths": "train", "eval_paths": "validation"}
_SHAPES = {"x10": 4, "x20": 4, "x60": 4, "labels": 3}

Split = Literal["none", "train", "validation", "test"]


@dataclass(frozen=True, kw_only=True)
class Mtlcc:
    """The tiles of some years in one of the two file formats."""

    folder: Path
    """Holds data16 and data17."""
    kind: Literal["tfrecord", "pickle"]
    years: tuple[int, ...]
    facts: OriginalFacts

    def index(self) -> Sequence[OriginalPatch]:
        """All tiles, by year and name; each file is read for its days."""
        splits = _splits(self.folder)

        def entry(path: Path) -> OriginalPatch:
            year, name = _year(path), _stem(path, self.kind)
            fields = _fields(path, self.kind)
            kept, doy = _frames(fields, path)
            days, order = in_time(_days(doy[kept], _years(fields, kept, year, path), path))
            return OriginalPatch(
                name=f"{path.parent.name}/{name}",
                days=days,
                order=order,
                split=splits.get(name, "none"),
                original={"folder": path.parent.name, "tile": name, "year": year},
            )

        return indexed(entry, _files(self.folder, self.kind, self.years))

    def files(self, patch: OriginalPatch) -> Mapping[str, Path]:
        """The tile's file."""
        name = f"{patch.original['folder']}/{patch.original['tile']}{_SUFFIX[self.kind]}"
        return {name: self.folder / name}

    def read(self, patch: OriginalPatch) -> PatchPixels:
        """The pixels of a tile, without the frames that are padding."""
        (path,) = self.files(patch).values()
        fields = _fields(path, self.kind)
        frames = _frames(fields, path)[0][patch.order]
        size = (self.facts.height, self.facts.width)
        shape = (len(frames), *size)
        bands: dict[str, NDArray[Any]] = {}
        for stack, factor in MTLCC_STACKS.items():
            image = _stack(fields, stack, path)[frames]
            for channel, band in enumerate(STACKS[stack]):
                bands[band] = repeated(image[..., channel], stack, path, shape=shape, factor=factor)
        dn = np.stack([bands[band] for band in self.facts.bands], axis=1)
        codes = _one_map(array_of(fields, "labels", path), frames, size, path)
        crop_type = classes_of(codes, self.facts.taxonomy, path, background=None)
        return PatchPixels(dn=dn.astype(np.int32), labels={"crop_type": crop_type})


def open_mtlcc(path: Path, *, years: Sequence[int] | None = None) -> Mtlcc:
    """The tiles of MTLCC below `path`: its clone, or the folder that holds data16 and data17; of these years, or all.

    Raises FileNotFoundError where there are none, ValueError where they are there in both formats.
    """
    folder, kind = _find(path)
    there = sorted({_year(child) for child in folder.glob("data??/*")})
    missing = sorted(set(years or ()) - set(there))
    if missing:
        raise FileNotFoundError(f"{folder} has no tiles of {missing[0]}; it has those of {', '.join(map(str, there))}")
    chosen = tuple(sorted(set(years or there)))
    files = _files(folder, kind, chosen)
    side = int(_stack(_fields(files[0], kind), "x10", files[0]).shape[1])
    if side % 6:
        raise ValueError(f"{files[0]}: x10 should be a multiple of 6 pixels wide; it is {side}")
    facts = OriginalFacts(
        id="mtlcc-" + "-".join(map(str, chosen)),
        title=f"MTLCC, {' and '.join(map(str, chosen))}",
        format="mtlcc",
        variant=kind,
        level="L1C",
        bands=tuple(L1C_BANDS),
        height=side,
        width=side,
        taxonomy=load_taxonomy("mtlcc"),
        chronology="kept",
        licence="not stated by its authors",
        attribution=(
            "Russwurm and Koerner 2018, doi:10.3390/ijgi7040129; contains modified Copernicus Sentinel data 2016-2017"
        ),
        notes=_notes(folder, kind, files),
    )
    for place in _above(path, folder):
        check_origin(place, facts)
    return Mtlcc(folder=folder, kind=kind, years=chosen, facts=facts)


def _notes(folder: Path, kind: Literal["tfrecord", "pickle"], files: Sequence[Path]) -> tuple[str, ...]:
    notes = [
        "Frames whose day of the year is 0 or less are padding and are left out.",
        "The year is that of the folder; the one inside of the TFRecords is 2017 everywhere.",
        "Pixels of no known class (0 in the original, and numbers its loader does not know) are ignored.",
        "The original does not say where its tiles lie.",
    ]
    splits = _splits(folder)
    if not splits:
        notes.append("No lists of tiles were found (tileids/*.tileids, train_paths.csv), so that there is no split.")
        return tuple(notes)
    # A tile of a year that is not asked for is not missing.
    every = {_stem(path, kind) for path in folder.glob(f"data??/*{_SUFFIX[kind]}")}
    missing, unlisted = sorted(splits.keys() - every), sorted({_stem(path, kind) for path in files} - splits.keys())
    if missing:
        notes.append(
            f"{len(missing)} of the {len(splits)} tiles of the lists are not there, the first is {missing[0]}."
        )
    if unlisted:
        notes.append(f"{len(unlisted)} tiles are in no list and so in no split, the first is {unlisted[0]}.")
    return tuple(notes)


# Files


def _above(path: Path, folder: Path) -> list[Path]:
    """Where an export of this layout may have left its mark: what the user named, the folder of years and above."""
    whole = folder.resolve()
    roots = [whole.parents[len(Path(place).parts) - 1] for place in _PLACES if place and whole.match(place)]
    return list(dict.fromkeys([path, folder, *roots]))


def _find(path: Path) -> tuple[Path, Literal["tfrecord", "pickle"]]:
    kinds: tuple[Literal["tfrecord", "pickle"], ...] = ("tfrecord", "pickle")
    found = [
        (path / place, kind)
        for place in _PLACES
        for kind in kinds
        if any((path / place).glob(f"data??/*{_SUFFIX[kind]}"))
    ]
    if not found:
        raise FileNotFoundError(
            f"no tiles of MTLCC below {path}: expected data16/*.tfrecord.gz or data16/*.pickle, or data17, in a folder "
            "240 or 240pkl; give the clone of MTLCC or that folder"
        )
    if len(found) > 1:
        listed = " and ".join(f"{folder} ({kind})" for folder, kind in found)
        raise ValueError(f"{path} holds tiles of MTLCC in several forms: {listed}; give one of these folders")
    return found[0]


def _files(folder: Path, kind: Literal["tfrecord", "pickle"], years: Sequence[int]) -> tuple[Path, ...]:
    return tuple(path for year in years for path in sorted(folder.glob(f"data{year % 100:02d}/*{_SUFFIX[kind]}")))


def _year(path: Path) -> int:
    """The year of a tile's folder, data16 or data17."""
    digits = path.parent.name.removeprefix("data")
    if not digits.isdecimal():
        raise ValueError(f"{path.parent} should be called data16 or data17, by its year")
    return 2000 + int(digits)


def _stem(path: Path, kind: str) -> str:
    return path.name.removesuffix(_SUFFIX[kind])


def _splits(folder: Path) -> dict[str, Split]:
    """Split of each tile that a list names: tileids beside the TFRecords, or the path lists of the pickles."""
    lists = next((place for place in (folder / "tileids", folder.parent / "240/tileids") if place.is_dir()), None)
    splits: dict[str, Split] = {}
    files = (
        {lists / f"{name}.tileids": split for name, split in _LISTS.items()}
        if lists is not None
        else {folder / f"{name}.csv": split for name, split in _CSVS.items()}
    )
    for file, split in files.items():
        lines = file.read_text().split() if file.exists() else []
        for tile in (Path(line).name.removesuffix(".pickle") for line in lines):
            if splits.setdefault(tile, split) != split:
                raise ValueError(
                    f"{file}: tile {tile} is listed for {split} and for {splits[tile]}; it should be in one"
                )
    return splits


# Arrays


def _fields(path: Path, kind: Literal["tfrecord", "pickle"]) -> Mapping[str, Any]:
    """The arrays of a tile by the names of the pickles."""
    if kind == "pickle":
        return load_plain_pickle(path)
    records = list(islice(read_records(path), 2))
    if len(records) != 1:
        raise ValueError(f"{path} should hold one record, the tile; it holds {'2 or more' if records else 'none'}")
    try:
        features = parse_example(records[0])
        fields = {name: _raw(features, f"{name}/data", f"{name}/shape") for name in _SHAPES}
        return {**fields, "day": _raw(features, "dates/doy", "dates/shape")}
    except (ValueError, KeyError) as error:
        raise ValueError(f"{path} should hold an example of MTLCC, but {error.args[0]} is missing or broken") from error


def _raw(features: Mapping[str, Any], data: str, shape: str) -> NDArray[np.int64]:
    """An array whose numbers are bytes of int64 and whose shape is a feature of its own."""
    numbers, size = np.frombuffer(features[data], "<i8"), [int(n) for n in features[shape]]
    if min(size, default=0) < 0 or numbers.size != np.prod(size):
        raise ValueError(f"{data} ({numbers.size} numbers, which should be {size})")
    return numbers.reshape(size)


def _frames(fields: Mapping[str, Any], path: Path) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """Positions of the frames that are no padding, and the day of the year of every frame."""
    doy = whole_numbers(array_of(fields, "day", path), "day", path, top=400)
    if doy.ndim != 1:
        raise ValueError(f"{path}: day should be one number a frame; it is {doy.shape}")
    return np.flatnonzero(doy > 0), doy


def _years(fields: Mapping[str, Any], kept: NDArray[np.intp], year: int, path: Path) -> NDArray[np.int64]:
    """The year of each frame: the folder's, but where the file has several, which the published set never has."""
    every = np.full(len(kept), year)
    if "year" not in fields:
        return every
    said = whole_numbers(array_of(fields, "year", path), "year", path, top=9999)
    if said.shape != array_of(fields, "day", path).shape:
        raise ValueError(f"{path}: year should be one number a frame, as day; it is {said.shape}")
    return said[kept] if len(np.unique(said[kept])) > 1 else every


def _days(doy: NDArray[np.int64], years: NDArray[np.int64], path: Path) -> NDArray[np.int32]:
    """Days since 1970-01-01 of days of their years."""
    days = np.zeros(len(doy), np.int32)
    for year in np.unique(years):
        days[years == year] = days_of_year(doy[years == year], int(year), path)
    return days


def _stack(fields: Mapping[str, Any], name: str, path: Path) -> NDArray[np.int64]:
    """(time, y, x, band) of a stack."""
    image = whole_numbers(array_of(fields, name, path), name, path, top=65535)
    frames = len(array_of(fields, "day", path))
    if image.ndim != 4 or image.shape[-1] != len(STACKS[name]) or len(image) != frames:
        raise ValueError(
            f"{path}: {name} should be ({frames}, y, x, {len(STACKS[name])}) by its days and bands; it is {image.shape}"
        )
    return image


def _one_map(labels: NDArray[Any], frames: NDArray[np.intp], size: tuple[int, int], path: Path) -> NDArray[np.int64]:
    """The label map of a tile, which the files repeat for every frame."""
    codes = whole_numbers(labels, "labels", path, top=255)
    if codes.ndim == 3:
        codes = codes[frames]
        if not len(codes) or (codes != codes[:1]).any():
            raise ValueError(f"{path}: the labels of all frames should be one map; they differ from frame to frame")
        codes = codes[0]
    if codes.shape != size:
        raise ValueError(f"{path}: labels should be {size[0]} x {size[1]}, as x10; they are {codes.shape}")
    return codes
