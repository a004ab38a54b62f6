"""Our own datasets of the profile `patches`: imported sets and location sets, one chunk a patch."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sits_catalog.cube import BACKGROUND, NOT_CLEAR, Quality, Split
from sits_models.data.classes import BACKGROUND_CODE
from sits_models.data.dataset import (
    CUBE,
    FUSED,
    Arrays,
    CropEntry,
    check_finished,
    classes_of,
    folder_of,
    in_one_sentence,
    open_group,
    read_attributes,
    read_table,
    told,
)
from sits_models.data.patch_sets.base import Patch, PatchSet, PatchSetFacts

__all__ = ["DatasetPatches", "open_dataset"]

_BACKGROUND = CropEntry(index=BACKGROUND, code=BACKGROUND_CODE, name="background", hcat=None, colour="#e8e8e8")
_WORDS = {code.name.lower(): int(code) for code in Split}
_log = logging.getLogger(__name__)


class DatasetPatches(PatchSet):
    """A handle on a dataset; it pickles and survives a fork, since every process opens the arrays for itself."""

    def __init__(self, facts: PatchSetFacts, *, arrays: frozenset[str]) -> None:
        """`arrays` names the label arrays that there are."""
        self.facts = facts
        self._there = arrays
        self._arrays = Arrays(facts.path)

    def __repr__(self) -> str:
        return f"DatasetPatches({self.facts.path!r})"

    def __getstate__(self) -> tuple[PatchSetFacts, frozenset[str]]:
        return self.facts, self._there

    def __setstate__(self, state: tuple[PatchSetFacts, frozenset[str]]) -> None:
        self.__init__(state[0], arrays=state[1])  # type: ignore[misc]  # a handle is its facts

    def read(
        self,
        number: int,
        rows: slice,
        columns: slice,
        dates: NDArray[np.intp],
        bands: NDArray[np.intp] | None = None,
    ) -> Patch:
        """As `PatchSet.read`; all of a patch is decoded, whatever of it is asked for."""
        window = (number, rows, columns)
        image, quality = (self._of_dates(name, window, dates) for name in ("reflectance", "quality"))
        return Patch(
            image=image if bands is None else image[:, bands],
            clear=np.asarray((quality & np.uint8(Quality.OBSERVED | NOT_CLEAR)) == Quality.OBSERVED),
            crop=self._labels("crop_type", window),
            parcel=self._parcels(window),
        )

    def labels(self, number: int) -> Patch:
        """As `PatchSet.labels`, without a date."""
        height, width = self.facts.sizes[number].tolist()
        window = (number, slice(0, height), slice(0, width))
        return Patch(
            image=np.zeros((0, len(self.facts.bands), height, width), np.uint16),
            clear=np.zeros((0, height, width), np.bool_),
            crop=self._labels("crop_type", window),
            parcel=self._parcels(window),
        )

    def _of_dates(self, name: str, window: tuple[int, slice, slice], dates: NDArray[np.intp]) -> NDArray[Any]:
        number, rows, columns = window
        array = self._arrays.get(name)
        first, last = int(dates.min(initial=0)), int(dates.max(initial=-1)) + 1
        with told(f"{name} of {self.facts.path}/{CUBE}"), FUSED:
            values = np.asarray(array[number, first:last, ..., rows, columns])
        return values if np.array_equal(dates, np.arange(first, last)) else values[dates - first]

    def _labels(self, name: str, window: tuple[int, slice, slice]) -> NDArray[Any] | None:
        if name not in self._there:
            return None
        array = self._arrays.get(name)
        with told(f"{name} of {self.facts.path}/{CUBE}"), FUSED:
            return np.asarray(array[window])

    def _parcels(self, window: tuple[int, slice, slice]) -> NDArray[np.int64] | None:
        found = self._labels("parcel_id", window)
        return None if found is None else found.astype(np.int64)


def open_dataset(path: str) -> DatasetPatches:
    """A handle on the dataset of the profile `patches` in the folder or under the URL `path`.

    FileNotFoundError where there is none, ValueError where it is of another profile or version, or not finished. A
    finished one some of whose sources could not be read is opened, and the log says so.
    """
    path = folder_of(path)
    attributes, about = read_attributes(path)
    if about.get("profile") != "patches":
        raise ValueError(
            f"{path} is of the profile {about.get('profile')!r}, and this needs many small places; give a dataset of "
            "the profile 'patches'"
        )
    check_finished(path, about)
    try:
        opened = _opened(path, attributes, about)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}/{CUBE} lacks metadata of a cube: {in_one_sentence(error)}; build it again") from error
    if not opened.facts.complete:
        _log.warning("%s is not complete: sources that could not be read are not observed there", path)
    return opened


def _opened(path: str, attributes: Mapping[str, Any], about: Mapping[str, Any]) -> DatasetPatches:
    group, arrays = open_group(path), Arrays(path)
    with told(f"day of {path}/{CUBE}"), FUSED:
        days = np.asarray(arrays.get("day")[...], np.int32)
    patches, _, _, height, width = arrays.get("reflectance").shape
    splits = _splits(path, patches)
    there = frozenset(name for name in ("crop_type", "parcel_id") if name in group)
    facts = PatchSetFacts(
        path=path,
        name=str(about["region"]),
        bands=tuple(attributes["band_names"]),
        sizes=np.tile(np.array([height, width], np.int64), (patches, 1)),
        days=days,
        splits=splits,
        classes=(_BACKGROUND, *classes_of(arrays.get("crop_type").attrs.asdict())) if "crop_type" in there else (),
        radiometry=about["radiometry"],
        identity=hashlib.sha256(f"{about['config_sha256']} ".encode() + splits.tobytes()).hexdigest(),
        complete=bool(about["complete"]),
        simulated=bool(about.get("simulated", False)),
    )
    return DatasetPatches(facts, arrays=there)


def _splits(path: str, patches: int) -> NDArray[np.uint8]:
    """(P,): of each patch; NONE where the index says nothing. ValueError for a word that is no split."""
    index = f"{path}/patches.parquet"
    table = read_table(index, ["patch", "split"], None).to_pandas()
    if not np.array_equal(table["patch"].to_numpy(), np.arange(patches)):
        raise ValueError(
            f"{index} should list the {patches} patches of {CUBE} in their order; it has {len(table)} rows: check the "
            "dataset with sits-cube verify"
        )
    words = table["split"].dropna()
    unknown = words[~words.isin(list(_WORDS))]
    if len(unknown):
        raise ValueError(
            f"{index} should say {', '.join(_WORDS)} or nothing of each patch; it says {unknown.iloc[0]!r} of "
            f"{len(unknown)} of them: build the dataset again"
        )
    return np.asarray(table["split"].map(_WORDS).fillna(int(Split.NONE)), np.uint8)
