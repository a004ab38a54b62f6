"""EuroSAT: 27 000 patches of 64 px of Sentinel-2, each of one of ten classes of land use.

Helber, Bischke, Dengel and Borth: EuroSAT, a novel dataset and deep learning benchmark for land use and land cover
classification, IEEE JSTARS 12 (7), 2019. The folder is the one that holds those of the classes:

    ROOT/AnnualCrop/AnnualCrop_1.jpg ... ROOT/SeaLake/SeaLake_3000.jpg     RGB, or
    ROOT/AnnualCrop/AnnualCrop_1.tif ...                                   13 bands of L1C
    ROOT/eurosat-train.txt, eurosat-val.txt, eurosat-test.txt              if there: a file name a line

**Values.** Of .tif reflectance x 10000 at the top of the atmosphere, all bands brought to 10 m by the authors; B8A is
the last of the file's bands. A pixel without any band above 0 was not observed; other zeros become 1. Of .jpg values
0 to 255, stretched for looking at, where 255 becomes 10000 and 0 becomes 1; they are no reflectance. The dataset does
not say when an image was taken: the day is 0.

**Splits.** The paper publishes none. Where there are lists (those of Neumann et al. 2019 and of torchgeo have these
names), they hold, and patches in no list have no split; train.txt, val.txt and test.txt are lists as well. Without any
the split is ours: train, validation and test, 60, 20 and 20 % of the patches, by the hash of the name without its
suffix (`place_of` below 0.6, below 0.8, and above), so that .jpg and .tif agree.

Opening lists ten folders and opens no image; sizes are checked when a file is read.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sits_catalog.cube import Split
from sits_catalog.taxonomy import distinct_colour
from sits_models.data.cubes import CropEntry
from sits_models.data.patch_sets.base import Patch, PatchSet, PatchSetFacts
from sits_models.data.patch_sets.names import find_lists, folders_of, identity_of, place_of, read_splits
from sits_models.data.patch_sets.rasters import no_dates, observed, read_raster, scaled

__all__ = ["EUROSAT_CLASSES", "EuroSatPatchSet", "open_eurosat"]

_SIDE = 64
_CODES = (
    *("AnnualCrop", "Forest", "HerbaceousVegetation", "Highway", "Industrial"),
    *("Pasture", "PermanentCrop", "Residential", "River", "SeaLake"),
)
_NAMES = (
    *("annual crop", "forest", "herbaceous vegetation", "highway", "industrial"),
    *("pasture", "permanent crop", "residential", "river", "sea and lake"),
)
EUROSAT_CLASSES = tuple(
    CropEntry(index=index, code=code, name=name, hcat=None, colour=distinct_colour(index))
    for index, (code, name) in enumerate(zip(_CODES, _NAMES, strict=True))
)
"""The ten classes by the names of their folders."""
_LISTS = {
    Split.TRAIN: ("eurosat-train.txt", "train.txt"),
    Split.VALIDATION: ("eurosat-val.txt", "val.txt"),
    Split.TEST: ("eurosat-test.txt", "test.txt"),
}
_IMAGE = re.compile(r"[A-Za-z]+_(\d+)")


@dataclass(frozen=True, kw_only=True)
class _Form:
    """How the images of a copy are stored."""

    suffix: str
    bands: tuple[str, ...]
    dtype: str
    level: str


_FORMS = {
    ".jpg": _Form(suffix=".jpg", bands=("B04", "B03", "B02"), dtype="uint8", level="8 bit"),
    ".tif": _Form(
        suffix=".tif",
        bands=(*("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B09", "B10", "B11", "B12"), "B8A"),
        dtype="uint16",
        level="L1C",
    ),
}


class EuroSatPatchSet(PatchSet):
    """Patches by number, by class and then by the number in their names."""

    def __init__(self, facts: PatchSetFacts, suffix: str, names: NDArray[np.bytes_], labels: NDArray[np.uint8]) -> None:
        self.facts = facts
        self._suffix = suffix
        self._names = names
        """(P,): without suffix."""
        self._labels = labels
        """(P,): index of the class."""

    def read(
        self,
        number: int,
        rows: slice,
        columns: slice,
        dates: NDArray[np.intp],
        bands: NDArray[np.intp] | None = None,
    ) -> Patch:
        """A window; see `PatchSet.read`."""
        form, label = _FORMS[self._suffix], int(self._labels[number])
        path = f"{self.facts.path}/{_CODES[label]}/{os.fsdecode(self._names[number])}{self._suffix}"

        def stored(chosen: NDArray[np.intp] | None) -> NDArray[np.generic]:
            numbers = None if chosen is None else [int(band) for band in chosen]
            shape, n = (_SIDE, _SIDE), len(form.bands)
            one = read_raster(path, rows, columns, shape=shape, n=n, dtype=form.dtype, bands=numbers)
            return np.repeat(one[None], len(dates), axis=0)

        if form.dtype == "uint8":
            image = scaled(stored(bands), 8)
            clear = np.ones((len(dates), *image.shape[2:]), np.bool_)
        else:
            everything = None if bands is None else lambda: stored(None).astype(np.uint16, copy=False)
            image, clear = observed(stored(bands).astype(np.uint16, copy=False), everything)
        return Patch(image=image, clear=clear, present=np.arange(len(EUROSAT_CLASSES)) == label)

    def labels(self, number: int) -> Patch:
        """Its class, for which no file is opened."""
        image, clear = no_dates(len(self.facts.bands), _SIDE, _SIDE)
        return Patch(image=image, clear=clear, present=np.arange(len(EUROSAT_CLASSES)) == self._labels[number])


def open_eurosat(path: str) -> PatchSet:
    """The patches in a folder as EuroSAT's archives have them, in RGB or in 13 bands.

    FileNotFoundError where there is no such folder, ValueError where it has a class that is none of the ten, a file
    that is no patch, patches of both forms or none, or a list names what is not there.
    """
    root = Path(path)
    found = [name for name in folders_of(root, "folders of the classes of EuroSAT") if not name.startswith((".", "_"))]
    unknown = [name for name in found if name not in _CODES]
    if unknown or not found:
        raise ValueError(
            f"{root} should hold folders of the classes of EuroSAT ({', '.join(_CODES)}); "
            f"it has {unknown[0] if unknown else 'no folder'}: give the folder that holds those of the classes"
        )
    files = [(label, name) for label, code in enumerate(_CODES) if code in found for name in _images_of(root / code)]
    suffixes = sorted({Path(name).suffix for _, name in files})
    if len(suffixes) != 1:
        raise ValueError(f"{root} should hold images of .jpg or of .tif; it has {' and '.join(suffixes) or 'none'}")
    names = [Path(name).stem for _, name in files]
    labels = np.array([label for label, _ in files], np.uint8)
    lists = find_lists((root,), _LISTS)
    splits = read_splits(names, lists, where=path) if lists else np.array([_split(name) for name in names], np.uint8)
    facts = _facts(path, _FORMS[suffixes[0]], names, splits)
    return EuroSatPatchSet(facts, suffixes[0], np.array([os.fsencode(name) for name in names]), labels)


def _facts(path: str, form: _Form, names: list[str], splits: NDArray[np.uint8]) -> PatchSetFacts:
    return PatchSetFacts(
        path=path,
        name=Path(path).resolve().name,
        bands=form.bands,
        sizes=np.full((len(names), 2), _SIDE, np.int64),
        days=np.zeros((len(names), 1), np.int32),
        splits=splits,
        classes=EUROSAT_CLASSES,
        dense=False,
        radiometry={"level": form.level, "scale": 0.0001, "offset_removed": True, "clamp": 1},
        identity=identity_of(f"eurosat{form.suffix}", ("\n".join(names).encode(), splits.tobytes())),
    )


def _images_of(folder: Path) -> list[str]:
    """File names in a class's folder, by their number."""
    with os.scandir(folder) as entries:
        # .aux.xml is what GDAL leaves beside an image whose statistics somebody asked for.
        names = [e.name for e in entries if not e.name.startswith(".") and not e.name.endswith(".aux.xml")]
    numbers: dict[str, int] = {}
    for name in names:
        stem, match = Path(name).stem, _IMAGE.fullmatch(Path(name).stem)
        if match is None or Path(name).suffix not in _FORMS or stem.split("_")[0] != folder.name:
            raise ValueError(f"{folder} should hold {folder.name}_1.jpg, or .tif, and so on; it has {name}: remove it")
        numbers[name] = int(match[1])
    return sorted(names, key=lambda name: (numbers[name], name))


def _split(name: str) -> Split:
    place = place_of(name)
    return Split.TRAIN if place < 0.6 else Split.VALIDATION if place < 0.8 else Split.TEST
