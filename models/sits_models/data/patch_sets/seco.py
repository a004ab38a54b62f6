"""SeCo: five dates each of some 200 000 locations around cities, without labels, for pretraining.

Mañas, Lacoste, Giró-i-Nieto, Vazquez and Rodríguez: Seasonal contrast, unsupervised pre-training from uncurated remote
sensing data, ICCV 2021. The folder is the unpacked archive (seco_100k or seco_1m):

    ROOT/000000/20200101T103421_20200101T103422_T32TPT/B1.tif ... B12.tif, metadata.json

**Values.** The files hold reflectance 0 to 1 in 8 bits, JPEG-compressed: v becomes v / 255 x 10000, rounded, in steps
of some 39; reflectance above 1 is lost. 0 becomes 1, observed, since it is a dark value, on which the compression
leaves its noise besides: the samples were taken without a value for masked pixels, and Earth Engine gives no sample
then, so that there are no unobserved ones. What clouds there are (scenes below 10 %) is not known; all is clear.

**Bands** of 20 m and 60 m are brought to 10 m by nearest neighbour: each value is repeated.

**Dates** are the first eight digits of the folders' names, days of UTC; metadata.json is not read. There are no labels
and no splits.

Opening lists each location's folder, some 80 microseconds on a local disk, and opens no file: the layout fixes the
sizes, which are checked when a file is read.
"""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sits_catalog.cube import NO_DAY, Split
from sits_models.data.patch_sets.base import Patch, PatchSet, PatchSetFacts
from sits_models.data.patch_sets.names import day_of, folders_of, identity_of
from sits_models.data.patch_sets.rasters import BandFile, no_dates, read_bands, scaled

__all__ = ["SecoPatchSet", "open_seco"]

_SIDE = 264
_FACTORS = {
    **{"B1": 6, "B2": 1, "B3": 1, "B4": 1, "B5": 2, "B6": 2},
    **{"B7": 2, "B8": 1, "B8A": 2, "B9": 6, "B11": 2, "B12": 2},
}
"""Files of a date, in this order, and how many pixels of 10 m theirs are wide."""
_BANDS = tuple(name if len(name) == 3 else f"B0{name[1:]}" for name in _FACTORS)
_IMAGE = re.compile(r"(\d{8})T\d{6}_\d{8}T\d{6}_T\d{2}[A-Z]{3}")
_OFFSET_DAY = day_of("20220125")
"""From then on ESA's values have an offset of 1000, baseline 04.00; the published locations are older."""


class SecoPatchSet(PatchSet):
    """Locations by number, in the order of their folders' names."""

    def __init__(self, facts: PatchSetFacts, locations: NDArray[np.bytes_], images: NDArray[np.bytes_]) -> None:
        self.facts = facts
        self._locations = locations
        """(P,): names of folders. As bytes of one length a million of them take some 40 MB."""
        self._images = images
        """(P, T): names of folders in them by date, empty for padding."""

    def read(
        self,
        number: int,
        rows: slice,
        columns: slice,
        dates: NDArray[np.intp],
        bands: NDArray[np.intp] | None = None,
    ) -> Patch:
        """A window; see `PatchSet.read`."""
        names = list(_FACTORS)
        chosen = names if bands is None else [names[band] for band in bands]
        location = f"{self.facts.path}/{os.fsdecode(self._locations[number])}"
        folders = [f"{location}/{os.fsdecode(self._images[number, date])}" for date in dates]
        files = [[_file(folder, name) for name in chosen] for folder in folders]
        image = scaled(read_bands(files, rows, columns), 8)
        return Patch(image=image, clear=np.ones((len(folders), *image.shape[2:]), np.bool_))

    def labels(self, number: int) -> Patch:
        """None, for which no file is opened."""
        height, width = self.facts.sizes[number].tolist()
        image, clear = no_dates(len(_BANDS), height, width)
        return Patch(image=image, clear=clear)


def open_seco(path: str) -> PatchSet:
    """The locations in a folder as SeCo's archives have them.

    FileNotFoundError where there is no such folder, ValueError where it holds no locations, or one of them holds no
    images or a folder that is named otherwise.
    """
    root = Path(path)
    locations = [name for name in folders_of(root, "locations of SeCo (000000, 000001, ...)") if name.isdigit()]
    if not locations:
        raise ValueError(f"{root} should hold the locations of SeCo, folders 000000, 000001, ...; it has {_some(root)}")
    images = [_images_of(root / name) for name in locations]
    dates = max(len(names) for names in images)
    days = np.full((len(images), dates), NO_DAY, np.int32)
    for row, names in zip(days, images, strict=True):
        row[: len(names)] = [_day(name[:8]) for name in names]
    facts = PatchSetFacts(
        path=path,
        name=root.resolve().name,
        bands=_BANDS,
        sizes=np.full((len(images), 2), _SIDE, np.int64),
        days=days,
        splits=np.full(len(images), Split.NONE, np.uint8),
        radiometry={"level": "L2A", "scale": 0.0001, "offset_removed": bool(days.max() < _OFFSET_DAY), "clamp": 1},
        identity=identity_of("seco", (os.fsencode("/".join([n, *i])) for n, i in zip(locations, images, strict=True))),
    )
    padded = [[*names, *[""] * (dates - len(names))] for names in images]
    return SecoPatchSet(facts, _as_bytes(locations), _as_bytes(padded))


def _images_of(location: Path) -> list[str]:
    """Folders of a location's dates, ascending."""
    with os.scandir(location) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir())
    strange = [name for name in names if not _IMAGE.fullmatch(name)]
    if strange or not names:
        raise ValueError(
            f"{location} should hold folders of dates such as 20200101T103421_20200101T103422_T32TPT; "
            f"it has {strange[0] if strange else 'none'}: unpack the dataset again"
        )
    return names


@cache
def _day(text: str) -> int:
    return day_of(text)


def _file(folder: str, name: str) -> BandFile:
    factor = _FACTORS[name]
    side = _SIDE // factor
    return BandFile(path=f"{folder}/{name}.tif", shape=(side, side), dtype="uint8", factor=factor)


def _as_bytes(names: list[str] | list[list[str]]) -> NDArray[np.bytes_]:
    return np.char.encode(np.array(names, np.str_), "utf-8")


def _some(root: Path) -> str:
    names = sorted(entry.name for entry in root.iterdir())
    return ", ".join([*names[:3], "..."] if len(names) > 3 else names) or "nothing"
