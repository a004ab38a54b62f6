"""PASTIS in its original files: 2 433 patches of 128 px in France, 38 to 61 dates, 18 classes, parcel numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from sits_catalog.cube import IGNORE
from sits_pipeline.importers.exported import check_origin
from sits_pipeline.importers.folds import FoldRule
from sits_pipeline.importers.original import OriginalFacts, OriginalPatch, PatchPixels
from sits_pipeline.importers.pastis_metadata import (
    ATTRIBUTION,
    BANDS,
    LICENCE,
    VOID,
    PastisRecord,
    pastis_taxonomy,
    read_metadata,
)

__all__ = ["NODATA", "Pastis", "classes_of", "load_array", "marked_pixels", "open_pastis", "semantic_of"]

NODATA = -10000
"""What Theia's products have where a band was not observed."""

_METADATA = "metadata.geojson"
_BROKEN = (ValueError, EOFError, OSError, MemoryError, TypeError, RecursionError, TokenError)
"""What numpy raises for a header that is none; it reads it as Python."""
_SAID = 300


@dataclass(frozen=True, kw_only=True)
class Pastis:
    """The files of PASTIS."""

    root: Path
    facts: OriginalFacts
    folds: FoldRule
    parcels: str | None
    """Folder and prefix of the files with parcel numbers; None where there are none."""

    def index(self) -> Sequence[OriginalPatch]:
        """All patches of the metadata, by id."""
        records = read_metadata(self.root / _METADATA)
        _check_there(self.root, [name for record in records for name in self._files(record.id)])
        return [self._patch(record) for record in records]

    def read(self, patch: OriginalPatch) -> PatchPixels:
        """The pixels of a patch."""
        number = int(patch.original["ID_PATCH"])
        path = self.root / _series(number)
        dn = load_array(path)
        wanted = (len(patch.days), len(BANDS), self.facts.height, self.facts.width)
        if dn.shape != wanted or dn.dtype.kind not in "iu":
            raise ValueError(
                f"{path}: the series should be whole numbers (time, band, y, x) of {wanted}, a frame for each date of "
                f"{_METADATA}; got {dn.dtype} of {dn.shape}"
            )
        labels: dict[str, NDArray[np.uint16] | NDArray[np.uint32]] = {"crop_type": self._classes(number)}
        if self.parcels is not None:
            labels["parcel_id"] = self._parcels(f"{self.parcels}_{number}.npy")
        return marked_pixels(dn[patch.order], labels, path)

    def files(self, patch: OriginalPatch) -> Mapping[str, Path]:
        """Series, classes and, where there are some, parcel numbers."""
        return {name: self.root / name for name in self._files(int(patch.original["ID_PATCH"]))}

    def _files(self, number: int) -> list[str]:
        names = [_series(number), _target(number)]
        return names if self.parcels is None else [*names, f"{self.parcels}_{number}.npy"]

    def _patch(self, record: PastisRecord) -> OriginalPatch:
        order = np.argsort(record.days, kind="stable").astype(np.int32)
        return OriginalPatch(
            name=str(record.id),
            days=record.days[order],
            order=order,
            split=self.folds.split_of(record.fold),
            fold=record.fold,
            outline=record.outline,
            original=dict(record.properties),
        )

    def _classes(self, number: int) -> NDArray[np.uint16]:
        path = self.root / _target(number)
        return classes_of(semantic_of(load_array(path), (self.facts.height, self.facts.width), path), path)

    def _parcels(self, name: str) -> NDArray[np.uint32]:
        path = self.root / name
        found, size = load_array(path), (self.facts.height, self.facts.width)
        whole = found.dtype.kind in "iuf" and bool(np.all(found == np.floor(found)))
        if found.shape != size or not whole or found.min() < 0 or found.max() > np.iinfo(np.uint32).max:
            raise ValueError(
                f"{path}: parcel numbers should be whole, 0 to 4294967295, (y, x) of {size}; got {found.dtype} of "
                f"{found.shape}"
            )
        return np.asarray(found, np.uint32)


def open_pastis(path: Path, *, folds: FoldRule) -> Pastis:
    """PASTIS in the folder that holds metadata.geojson, DATA_S2 and ANNOTATIONS.

    Raises FileNotFoundError where that is not so, and ValueError for files that are not of the format.
    """
    for name in (_METADATA, "DATA_S2", "ANNOTATIONS"):
        if not (path / name).exists():
            raise FileNotFoundError(f"{path} has no {name}; give the folder of PASTIS that holds {_METADATA}")
    records = read_metadata(path / _METADATA)
    numbers = [record.id for record in records]
    if not numbers:
        raise ValueError(f"{path / _METADATA} lists no patches")
    height, width = _size(path, numbers[0])
    parcels = _parcels_of(path, numbers)
    facts = OriginalFacts(
        id="pastis",
        title="PASTIS",
        format="pastis",
        variant="" if parcels is None else parcels,
        level="L2A",
        bands=BANDS,
        height=height,
        width=width,
        taxonomy=pastis_taxonomy(),
        chronology="kept",
        licence=LICENCE,
        attribution=ATTRIBUTION,
        labels=("crop_type",) if parcels is None else ("crop_type", "parcel_id"),
        notes=(*_notes(path, folds, parcels), *folds.notes(record.fold for record in records)),
    )
    check_origin(path, facts)
    return Pastis(root=path, facts=facts, folds=folds, parcels=parcels)


def marked_pixels(dn: NDArray[Any], labels: Mapping[str, NDArray[Any]], path: Path) -> PatchPixels:
    """The pixels of a series (time, band, y, x) of Theia's integers, with its marks.

    Not observed: every band is -10000 or 0; a measurement of 0 in all ten bands does not occur, and an export writes
    0 where nothing was observed. Defective: some bands are -10000. Raises ValueError for numbers outside of
    -32768..65535.
    """
    # Before the cast, which would wrap integers of 64 bits around.
    low, high = (int(dn.min()), int(dn.max())) if dn.size else (0, 0)
    if low < -32768 or high > 65535:
        raise ValueError(f"{path}: a DN should be -32768 to 65535; they go from {low} to {high}")
    missing = dn == NODATA
    unobserved = (missing | (dn == 0)).all(axis=1)
    defective = missing.any(axis=1) & ~unobserved
    return PatchPixels(dn=dn.astype(np.int32), labels=labels, unobserved=unobserved, defective=defective)


def semantic_of(target: NDArray[Any], size: tuple[int, int], path: Path) -> NDArray[Any]:
    """The classes (y, x) of labels of either rank: (y, x), or (channel, y, x) with the classes in channel 0.

    Raises ValueError for any other shape or for numbers that are not whole.
    """
    found = target[0] if target.ndim == 3 and target.shape[1:] == size and len(target) else target
    if found.shape != size or found.dtype.kind not in "iu":
        raise ValueError(
            f"{path}: labels should be whole numbers (y, x) of {size}, or (channel, y, x) with the classes first; got "
            f"{target.dtype} of {target.shape}"
        )
    return found


def classes_of(values: NDArray[Any], path: Path) -> NDArray[np.uint16]:
    """`crop_type` of PASTIS's classes: 0 to 18 stay, void is 65535. Raises ValueError for any other value."""
    whole = values.astype(np.int64)
    wrong = whole[(whole < 0) | (whole > VOID)]
    if wrong.size:
        raise ValueError(f"{path}: a class of PASTIS is 0 to {VOID}; got {wrong[0]}")
    return np.where(whole == VOID, IGNORE, whole).astype(np.uint16)


def load_array(path: Path) -> NDArray[Any]:
    """An array of an .npy file, which never holds objects. Raises FileNotFoundError, or ValueError with its name."""
    try:
        with path.open("rb") as file:
            is_archive = file.read(2) == b"PK"
            if not is_archive:
                _check_size(file)
        found: NDArray[Any] | None = None if is_archive else np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing; download it, or take its patch out of {_METADATA}") from None
    except _BROKEN as error:
        said = " ".join(str(error).split())[:_SAID]
        raise ValueError(f"{path} cannot be read as an array of numbers: {said}") from None
    if found is None:
        raise ValueError(f"{path} should be one array (.npy); it is an archive of arrays")
    return found


def _check_size(file: BinaryIO) -> None:
    """Raises ValueError where the header of an .npy file names more than the file holds: no memory is asked for it."""
    file.seek(0)
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"version {version} of the format is for names of fields, not for numbers")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    here = file.tell()
    # Numbers of Python do not overflow.
    wanted, there = math.prod(shape) * dtype.itemsize, file.seek(0, 2) - here
    if not dtype.hasobject and (wanted > there or not dtype.itemsize or min(shape, default=0) < 0):
        raise ValueError(f"its header names {dtype} of {shape}, {wanted} bytes, and {there} bytes follow")


def _series(number: int) -> str:
    return f"DATA_S2/S2_{number}.npy"


def _target(number: int) -> str:
    return f"ANNOTATIONS/TARGET_{number}.npy"


def _size(root: Path, number: int) -> tuple[int, int]:
    """Height and width, from the labels of the first patch; the series of every patch are held against them."""
    shape = load_array(root / _target(number)).shape
    if len(shape) not in (2, 3):
        raise ValueError(f"{root / _target(number)}: labels should be (y, x) or (channel, y, x); got {shape}")
    return int(shape[-2]), int(shape[-1])


def _parcels_of(root: Path, numbers: Sequence[int]) -> str | None:
    """Folder and prefix of the files with parcel numbers, where any patch has one; then each patch should."""
    for prefix in ("ANNOTATIONS/ParcelIDs", "INSTANCE_ANNOTATIONS/INSTANCES"):
        folder, _, start = prefix.partition("/")
        there = {path.name for path in (root / folder).glob(f"{start}_*.npy")}
        if any(f"{start}_{number}.npy" in there for number in numbers):
            return prefix
    return None


def _check_there(root: Path, names: Sequence[str]) -> None:
    """Raises FileNotFoundError where files are missing; one listing a folder, not one question a file."""
    folders = {name.partition("/")[0] for name in names}
    there = {f"{folder}/{path.name}" for folder in folders for path in (root / folder).glob("*.npy")}
    missing = [name for name in names if name not in there]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(names)} files are missing in {root}, the first is {missing[0]}; download them, or "
            f"take their patches out of {_METADATA}"
        )


def _notes(root: Path, folds: FoldRule, parcels: str | None) -> list[str]:
    """What a reader should know of this import."""
    notes = [
        f"Folds {folds} are train/validation/test; patches.parquet has the fold of each patch.",
        "Outlines are those of the metadata; rows and columns of a patch follow the original, which has no transform.",
    ]
    if parcels is None:
        notes.append("The files have no parcel numbers, so that there is no parcel_id.")
    elif parcels.startswith("INSTANCE"):
        notes.append(
            "parcel_id is the number of the instance in its patch, since there are no files ParcelIDs: the same number "
            "in two patches is two parcels, and a parcel in two patches has two numbers."
        )
    left_out = sorted(
        path.name for path in root.iterdir() if path.is_dir() and path.name not in ("DATA_S2", "ANNOTATIONS")
    )
    if left_out:
        notes.append(f"Left out: {', '.join(left_out)} (other sensors and what is derived from the parcels).")
    if (root / "NORM_S2_patch.json").is_file():
        notes.append("NORM_S2_patch.json is not applied: nothing is normalized.")
    return notes
