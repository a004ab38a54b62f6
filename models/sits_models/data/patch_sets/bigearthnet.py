"""BigEarthNet 1.0, Sentinel-2: 590 326 patches of 1.2 km with the land cover classes they have.

Sumbul, Charfuelan, Demir and Markl: BigEarthNet, a large-scale benchmark archive for remote sensing image
understanding, IGARSS 2019. The 19 classes: Sumbul and others: BigEarthNet-MM, a large-scale, multimodal, multilabel
benchmark archive, IEEE Geoscience and Remote Sensing Magazine 9 (3), 2021.

    ROOT/S2A_MSIL2A_20170613T101031_0_45/S2A_MSIL2A_20170613T101031_0_45_B01.tif ... _B12.tif
                                         S2A_MSIL2A_20170613T101031_0_45_labels_metadata.json
    ROOT/train.csv, val.csv, test.csv    (or in ROOT/splits) a patch a line, further columns mean nothing here
    ROOT/patches_with_seasonal_snow.csv, patches_with_cloud_and_shadow.csv    (or in ROOT/splits)

The patches may lie in ROOT/BigEarthNet-v1.0, as the archive unpacks. Version 2.0 (reBEN) is refused.

**Values** are reflectance x 10000 of L2A, before the offset of baseline 04.00. A pixel without any band above 0 was not
observed; other zeros become 1. Bands of 20 m and 60 m are brought to 10 m by nearest neighbour.

**Classes.** The 43 CORINE names of a patch become those of 19 that they belong to; eleven names (airports, bare rock,
burnt areas, ...) have no place among them and are dropped. Patches that have no other, and those in the lists of snow
and clouds, are left out; the log says how many.

**Splits** are those of the lists, which may also be called bigearthnet-train.csv or end in .txt; patches in no list
have none. The date is in the patch's name.

Opening lists the root and reads the small JSON file of each patch, some 80 microseconds on a local disk, so a
minute for the whole archive; it opens no image: the layout fixes the sizes, which are checked when a file is read.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sits_catalog.cube import Split
from sits_catalog.taxonomy import distinct_colour
from sits_models.data.cubes import CropEntry
from sits_models.data.patch_sets.base import Patch, PatchSet, PatchSetFacts
from sits_models.data.patch_sets.names import day_of, find_lists, folders_of, identity_of, read_names, read_splits
from sits_models.data.patch_sets.rasters import BandFile, no_dates, observed, read_bands

__all__ = ["BIGEARTHNET_CLASSES", "BigEarthNetPatchSet", "open_bigearthnet"]

_SIDE = 120
_FACTORS = {
    **{"B01": 6, "B02": 1, "B03": 1, "B04": 1, "B05": 2, "B06": 2},
    **{"B07": 2, "B08": 1, "B8A": 2, "B09": 6, "B11": 2, "B12": 2},
}
"""Bands in this order, and how many pixels of 10 m theirs are wide."""
_PATCH = re.compile(r"S2[ABC]_MSIL2A_(\d{8})T\d{6}_\d+_\d+")
_UNWANTED = ("patches_with_seasonal_snow.csv", "patches_with_cloud_and_shadow.csv")
_LISTS = {
    split: tuple(f"{prefix}{name}.{suffix}" for suffix in ("csv", "txt") for prefix in ("", "bigearthnet-"))
    for split, name in ((Split.TRAIN, "train"), (Split.VALIDATION, "val"), (Split.TEST, "test"))
}

_FARMED = "Land principally occupied by agriculture, with significant areas of natural vegetation"
# Each class and the CORINE names, of level 3, that belong to it.
_MEMBERS: dict[str, tuple[str, ...]] = {
    "Urban fabric": ("Continuous urban fabric", "Discontinuous urban fabric"),
    "Industrial or commercial units": ("Industrial or commercial units",),
    "Arable land": ("Non-irrigated arable land", "Permanently irrigated land", "Rice fields"),
    "Permanent crops": (
        "Vineyards",
        "Fruit trees and berry plantations",
        "Olive groves",
        "Annual crops associated with permanent crops",
    ),
    "Pastures": ("Pastures",),
    "Complex cultivation patterns": ("Complex cultivation patterns",),
    _FARMED: (_FARMED,),
    "Agro-forestry areas": ("Agro-forestry areas",),
    "Broad-leaved forest": ("Broad-leaved forest",),
    "Coniferous forest": ("Coniferous forest",),
    "Mixed forest": ("Mixed forest",),
    "Natural grassland and sparsely vegetated areas": ("Natural grassland", "Sparsely vegetated areas"),
    "Moors, heathland and sclerophyllous vegetation": ("Moors and heathland", "Sclerophyllous vegetation"),
    "Transitional woodland, shrub": ("Transitional woodland/shrub",),
    "Beaches, dunes, sands": ("Beaches, dunes, sands",),
    "Inland wetlands": ("Inland marshes", "Peatbogs"),
    "Coastal wetlands": ("Salt marshes", "Salines"),
    "Inland waters": ("Water courses", "Water bodies"),
    "Marine waters": ("Coastal lagoons", "Estuaries", "Sea and ocean"),
}
_DROPPED = (
    *("Road and rail networks and associated land", "Port areas", "Airports", "Mineral extraction sites"),
    *("Dump sites", "Construction sites", "Green urban areas", "Sport and leisure facilities"),
    *("Bare rock", "Burnt areas", "Intertidal flats"),
)
BIGEARTHNET_CLASSES = tuple(
    CropEntry(index=index, code=name, name=name, hcat=None, colour=distinct_colour(index))
    for index, name in enumerate(_MEMBERS)
)
"""The 19 classes in their published order; the code is the name."""
_INDEX: dict[str, int | None] = {
    **{member: index for index, members in enumerate(_MEMBERS.values()) for member in members},
    **dict.fromkeys(_DROPPED),
}
_log = logging.getLogger(__name__)


class BigEarthNetPatchSet(PatchSet):
    """Patches by number, in the order of their names."""

    def __init__(
        self, facts: PatchSetFacts, folder: str, names: NDArray[np.bytes_], present: NDArray[np.bool_]
    ) -> None:
        self.facts = facts
        self._folder = folder
        self._names = names
        """(P,)."""
        self._present = present
        """(P, K)."""

    def read(
        self,
        number: int,
        rows: slice,
        columns: slice,
        dates: NDArray[np.intp],
        bands: NDArray[np.intp] | None = None,
    ) -> Patch:
        """A window; see `PatchSet.read`."""
        patch = os.fsdecode(self._names[number])
        files = [_file(f"{self._folder}/{patch}/{patch}", name) for name in _FACTORS]

        def stored(chosen: Sequence[BandFile]) -> NDArray[np.uint16]:
            return read_bands([chosen] * len(dates), rows, columns).astype(np.uint16, copy=False)

        if bands is None:
            image, clear = observed(stored(files), None)
        else:
            image, clear = observed(stored([files[band] for band in bands]), lambda: stored(files))
        return Patch(image=image, clear=clear, present=self._present[number].copy())

    def labels(self, number: int) -> Patch:
        """Its classes, for which no file is opened."""
        image, clear = no_dates(len(_FACTORS), _SIDE, _SIDE)
        return Patch(image=image, clear=clear, present=self._present[number].copy())


def open_bigearthnet(path: str) -> PatchSet:
    """The patches in a folder as the archive of BigEarthNet-S2 1.0 has them.

    FileNotFoundError where there is no such folder or a patch has no labels, ValueError where it holds no patches, is
    of version 2.0, or labels or lists name what is not known.
    """
    root = Path(path)
    folder = root / "BigEarthNet-v1.0" if (root / "BigEarthNet-v1.0").is_dir() else root
    names = _patches_of(root, folder)
    places = (root, root / "splits")
    splits = read_splits(names, find_lists(places, _LISTS), where=str(folder), first=True)
    unwanted = _unwanted(places)
    kept = [number for number, name in enumerate(names) if name not in unwanted]
    present = np.array([_present_of(folder / names[number]) for number in kept], np.bool_).reshape(len(kept), -1)
    some = present.any(axis=1) if kept else np.zeros(0, np.bool_)
    _tell(folder, snowy=len(names) - len(kept), without=int((~some).sum()))
    rows, present = np.array(kept, np.intp)[some], present[some]
    if not rows.size:
        raise ValueError(f"{folder} should hold a patch with one of the 19 classes; none of its {len(names)} has one")
    facts = _facts(path, [names[row] for row in rows], splits[rows], present)
    return BigEarthNetPatchSet(facts, str(folder), np.array([os.fsencode(names[row]) for row in rows]), present)


def _facts(path: str, names: list[str], splits: NDArray[np.uint8], present: NDArray[np.bool_]) -> PatchSetFacts:
    return PatchSetFacts(
        path=path,
        name=Path(path).resolve().name,
        bands=tuple(_FACTORS),
        sizes=np.full((len(names), 2), _SIDE, np.int64),
        days=np.array([[day_of(name.split("_")[2][:8])] for name in names], np.int32),
        splits=splits,
        classes=BIGEARTHNET_CLASSES,
        dense=False,
        radiometry={"level": "L2A", "scale": 0.0001, "offset_removed": True, "clamp": 1},
        identity=identity_of("bigearthnet", ("\n".join(names).encode(), splits.tobytes(), present.tobytes())),
    )


def _patches_of(root: Path, folder: Path) -> list[str]:
    found = folders_of(folder, "patches of BigEarthNet-S2 1.0")
    names = [name for name in found if _PATCH.fullmatch(name)]
    if names:
        return names
    if (root / "metadata.parquet").is_file() or "BigEarthNet-S2" in found:
        raise ValueError(
            f"{root} is BigEarthNet 2.0, whose patches lie in folders of their scenes and have their labels in "
            "metadata.parquet; this reads version 1.0: give its folder"
        )
    raise ValueError(
        f"{folder} should hold folders of patches such as S2A_MSIL2A_20170613T101031_0_45; "
        f"it has {', '.join(found[:3]) or 'no folders'}: give the folder of BigEarthNet-S2 1.0"
    )


def _unwanted(places: Sequence[Path]) -> set[str]:
    """Names of patches with snow or clouds."""
    paths = [place / name for place in places for name in _UNWANTED]
    return {name for path in paths if path.is_file() for name in read_names(path, first=True)}


def _present_of(patch: Path) -> list[bool]:
    """(K,): which classes a patch has."""
    path = patch / f"{patch.name}_labels_metadata.json"
    try:
        labels = json.loads(path.read_bytes())["labels"]
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing; unpack the dataset again") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} should be JSON with a list 'labels'; it is not: unpack the dataset again") from error
    unknown = [label for label in labels if label not in _INDEX]
    if unknown:
        raise ValueError(f"{path} has the label {unknown[0]!r}, which is none of the 43 of BigEarthNet 1.0; correct it")
    there = {_INDEX[label] for label in labels}
    return [entry.index in there for entry in BIGEARTHNET_CLASSES]


def _tell(folder: Path, *, snowy: int, without: int) -> None:
    if snowy:
        _log.warning("%s: %d patches are left out, since the lists of snow and clouds name them", folder, snowy)
    if without:
        _log.warning("%s: %d patches are left out, since they have none of the 19 classes", folder, without)


def _file(stem: str, band: str) -> BandFile:
    side = _SIDE // _FACTORS[band]
    return BandFile(path=f"{stem}_{band}.tif", shape=(side, side), dtype="uint16", factor=_FACTORS[band])
