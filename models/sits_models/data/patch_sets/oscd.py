"""OSCD, Onera Satellite Change Detection: 24 cities at two dates each, with maps of what was built in between.

Caye Daudt, Le Saux, Boulch and Gousseau: Urban change detection for multispectral Earth observation using convolutional
neural networks, IGARSS 2018. The folder is the one in which the three archives were unpacked:

    ROOT/Onera Satellite Change Detection dataset - Images/CITY/imgs_1_rect/B01.tif ... B12.tif, B8A.tif
                                                           CITY/imgs_2_rect/...
                                                           CITY/dates.txt       date_1: 20151211, date_2: 20180330
                                                           train.txt, test.txt  names of cities
    ROOT/Onera Satellite Change Detection dataset - Train Labels/CITY/cm/CITY-cm.tif
    ROOT/Onera Satellite Change Detection dataset - Test Labels/CITY/cm/CITY-cm.tif

The three folders may be called images, train_labels and test_labels as well.

**Values** are reflectance x 10000 of L1C, 13 bands that the authors have brought to 10 m and to one grid for both
dates. A pixel without any band above 0 was not observed; other zeros become 1. What clouds there are is not known.

**Classes**: 1 in the maps is no change, index 0, and 2 is change, index 1; another value is an error.

**Splits.** Published are 14 train and 10 test cities, by the lists train.txt and test.txt (in ROOT or among the
images), or, without both, by which folder has the city's map. Validation is ours: the train cities whose hash of the
name (`place_of`) is below 0.15, of the published ones beirut, paris and rennes.

Opening reads the header of each city's map, and checks against it the size of each file that is read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sits_catalog.cube import Split
from sits_models.data.cubes import CropEntry
from sits_models.data.patch_sets.base import Patch, PatchSet, PatchSetFacts
from sits_models.data.patch_sets.names import day_of, find_lists, folders_of, identity_of, place_of, read_splits
from sits_models.data.patch_sets.rasters import BandFile, describe_raster, no_dates, observed, read_bands, read_raster

__all__ = ["OSCD_CLASSES", "OscdPatchSet", "open_oscd"]

_BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
_PREFIX = "Onera Satellite Change Detection dataset - "
_IMAGES = (f"{_PREFIX}Images", "images")
_LABELS = {
    Split.TRAIN: (f"{_PREFIX}Train Labels", "train_labels"),
    Split.TEST: (f"{_PREFIX}Test Labels", "test_labels"),
}
_LISTS = {Split.TRAIN: ("train.txt",), Split.TEST: ("test.txt",)}
_VALIDATION = 0.15
_DATE = re.compile(r"date_([12])\s*:\s*(\d{8})")
OSCD_CLASSES = (
    CropEntry(index=0, code="1", name="no change", hcat=None, colour="#d9d9d9"),
    CropEntry(index=1, code="2", name="change", hcat=None, colour="#d7301f"),
)
"""No change and change; the code is the value in the maps."""


@dataclass(frozen=True, kw_only=True)
class _City:
    name: str
    labels: str
    """Path of its map."""
    split: Split
    """That of the folder in which the map is."""
    shape: tuple[int, int]
    dtype: str
    """Of the map."""
    days: tuple[int, int]


class OscdPatchSet(PatchSet):
    """Cities by number, in the order of their names."""

    def __init__(self, facts: PatchSetFacts, images: str, cities: Sequence[_City]) -> None:
        self.facts = facts
        self._images = images
        self._cities = tuple(cities)

    def read(
        self,
        number: int,
        rows: slice,
        columns: slice,
        dates: NDArray[np.intp],
        bands: NDArray[np.intp] | None = None,
    ) -> Patch:
        """A window; see `PatchSet.read`."""
        city = self._cities[number]

        def stored(names: Sequence[str]) -> NDArray[np.uint16]:
            folders = [f"{self._images}/{city.name}/imgs_{date + 1}_rect" for date in dates]
            files = [[_file(folder, name, city.shape) for name in names] for folder in folders]
            return read_bands(files, rows, columns).astype(np.uint16, copy=False)

        if bands is None:
            image, clear = observed(stored(_BANDS), None)
        else:
            image, clear = observed(stored([_BANDS[band] for band in bands]), lambda: stored(_BANDS))
        return Patch(image=image, clear=clear, crop=_changes(city, rows, columns))

    def labels(self, number: int) -> Patch:
        """The whole map of a city, for which no image is opened."""
        city = self._cities[number]
        image, clear = no_dates(len(_BANDS), *city.shape)
        height, width = city.shape
        return Patch(image=image, clear=clear, crop=_changes(city, slice(0, height), slice(0, width)))


def open_oscd(path: str) -> PatchSet:
    """The cities in a folder as the archives of OSCD have them.

    FileNotFoundError where there is no such folder, ValueError where it has no images, a city has no map or no dates,
    or a list names a city that is not there.
    """
    root = Path(path)
    folders_of(root, "the images and labels of OSCD")
    images = next((root / name for name in _IMAGES if (root / name).is_dir()), None)
    names = [] if images is None else [name for name in folders_of(images, "cities") if not name.startswith((".", "_"))]
    if images is None or not names:
        raise ValueError(
            f"{root} should hold {_IMAGES[0]!r} or {_IMAGES[1]!r} with a folder a city; "
            f"it has {', '.join(folders_of(root, '')[:3]) or 'no folders'}: give the folder with the unpacked archives"
        )
    cities = [_city(root, images, name) for name in names]
    splits = _splits(cities, find_lists((root, images), _LISTS), str(images))
    rows = [f"{city.name} {city.shape} {city.days}".encode() for city in cities]
    facts = PatchSetFacts(
        path=path,
        name=root.resolve().name,
        bands=_BANDS,
        sizes=np.array([city.shape for city in cities], np.int64),
        days=np.array([city.days for city in cities], np.int32),
        splits=splits,
        classes=OSCD_CLASSES,
        radiometry={"level": "L1C", "scale": 0.0001, "offset_removed": True, "clamp": 1},
        identity=identity_of("oscd", [*rows, splits.tobytes()]),
    )
    return OscdPatchSet(facts, str(images), cities)


def _city(root: Path, images: Path, name: str) -> _City:
    maps = {root / folder / name / "cm" / f"{name}-cm.tif": split for split, ways in _LABELS.items() for folder in ways}
    path = next((path for path in maps if path.is_file()), None)
    if path is None:
        raise ValueError(
            f"{name} should have a map of changes, {next(iter(maps))} or that of the test labels; "
            "there is none: unpack both archives of labels"
        )
    header = describe_raster(str(path))
    return _City(
        name=name,
        labels=str(path),
        split=maps[path],
        shape=header.shape,
        dtype=header.dtype,
        days=_days(images / name / "dates.txt"),
    )


def _days(path: Path) -> tuple[int, int]:
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    found = dict(_DATE.findall(text))
    if set(found) != {"1", "2"}:
        what = " ".join(text.split()) if path.is_file() else "no such file"
        raise ValueError(f"{path} should have the lines 'date_1: 20151211' and 'date_2: 20180330'; it has {what!r}")
    return day_of(found["1"]), day_of(found["2"])


def _splits(cities: Sequence[_City], lists: Mapping[Split, Path], where: str) -> NDArray[np.uint8]:
    """(P,): by both lists, else by the folders of the maps; validation is a part of train."""
    names = [city.name for city in cities]
    both = len(lists) == len(_LISTS)
    splits = read_splits(names, lists, where=where) if both else np.array([city.split for city in cities], np.uint8)
    ours = np.array([place_of(name) < _VALIDATION for name in names])
    return np.where((splits == Split.TRAIN) & ours, np.uint8(Split.VALIDATION), splits)


def _changes(city: _City, rows: slice, columns: slice) -> NDArray[np.uint16]:
    (stored,) = read_raster(city.labels, rows, columns, shape=city.shape, n=1, dtype=city.dtype)
    strange = stored[(stored != 1) & (stored != 2)]
    if strange.size:
        raise OSError(f"{city.labels} should have 1 (no change) and 2 (change); it has {strange[0]}: unpack it again")
    return np.asarray(stored == 2, np.uint16)


def _file(folder: str, band: str, shape: tuple[int, int]) -> BandFile:
    return BandFile(path=f"{folder}/{band}.tif", shape=shape, dtype="uint16")
