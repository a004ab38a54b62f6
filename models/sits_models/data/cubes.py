"""Cubes as models read them: facts checked at opening, then windows of pixels and the tables."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import fsspec
import numpy as np
import pandas as pd
import pyarrow
from numpy.typing import NDArray
from pyarrow import parquet

from sits_models.data.dataset import (
    CUBE,
    FUSED,
    Arrays,
    CropEntry,
    array_of,
    calm_worker,
    check_finished,
    classes_of,
    folder_of,
    in_one_sentence,
    open_group,
    read_attributes,
    read_table,
    told,
)

__all__ = [
    "RADIOMETRY",
    "CropEntry",
    "Cube",
    "CubeFacts",
    "Described",
    "Opened",
    "calm_worker",
    "check_radiometry",
    "open_cube",
]

RADIOMETRY = ("level", "scale", "offset_removed", "clamp")
"""What of a cube's radiometry decides the meaning of its integers; the baselines do not, once the offset is gone."""

_PARCELS_AT_ONCE = 16_384
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class CubeFacts:
    """What a cube says of itself."""

    path: str
    """The folder of the dataset, or its URL."""
    region: str
    version: str
    bands: tuple[str, ...]
    days: tuple[int, ...]
    """Days since 1970-01-01, ascending."""
    radiometry: Mapping[str, object]
    statistics: Mapping[str, Mapping[str, float | None]] | None
    """Band name to mean, std, p2, p50, p98 in reflectance and n, the clear train pixels they are of."""
    classes: tuple[CropEntry, ...]
    """Empty in a cube without labels; the background, index 0, has no row."""
    shape: tuple[int, int]
    """Height and width, pixels of 10 m."""
    transform: tuple[float, float, float, float, float, float]
    """Affine a, b, c, d, e, f from column and row to x and y, corner based."""
    crs: str
    """"EPSG:326zz" or "EPSG:327zz"."""
    has_labels: bool
    finer: tuple[int, ...]
    """Which of labels_x2 and labels_x4 there are."""
    chunk_px: int
    shard_px: int
    config_sha256: str
    complete: bool
    """False where a source could not be read: its pixels are not observed."""
    simulated: bool = False
    """Whether the imagery is made up."""


class Cube:
    """A handle on a dataset; it pickles and survives a fork, since every process opens the arrays for itself."""

    def __init__(self, facts: CubeFacts) -> None:
        self.facts = facts
        self._arrays = Arrays(facts.path)

    def __repr__(self) -> str:
        return f"Cube({self.facts.path!r})"

    def __getstate__(self) -> CubeFacts:
        return self.facts

    def __setstate__(self, facts: CubeFacts) -> None:
        self.__init__(facts)  # type: ignore[misc]  # a handle is its facts

    def read(self, name: str, rows: slice, columns: slice, *, dates: Sequence[int] | None = None) -> NDArray[Any]:
        """Values of an array such as "quality" or "labels_x2/crop_type" in a window of its own pixels.

        (time, band, y, x), (time, y, x) or (y, x) in the stored type; of the dates with these indices alone where
        the array has dates. ValueError where the cube has no such array, OSError where it cannot be read.
        """
        array = self._arrays.get(name)
        with told(f"{name} of {self.facts.path}/{CUBE}"), FUSED:
            if dates is None or array.ndim == 2:
                return np.asarray(array[..., rows, columns])
            first, last = min(dates), max(dates) + 1
            values = np.asarray(array[first:last, ..., rows, columns])
        return values if list(dates) == list(range(first, last)) else values[[date - first for date in dates]]

    def chips(self, columns: Sequence[str] | None = None, *, kind: str | None = None) -> pd.DataFrame:
        """The rows of `chips.parquet`, of this kind and these columns or all; geometries are WKB."""
        table: pd.DataFrame = self.chip_table(columns, kind=kind).to_pandas()
        return table

    def chip_table(self, columns: Sequence[str] | None = None, *, kind: str | None = None) -> pyarrow.Table:
        """The rows of `chips.parquet` as Arrow has them, without an object a value."""
        filters = None if kind is None else [("kind", "==", kind)]
        return read_table(f"{self.facts.path}/chips.parquet", columns, filters)

    def parcels(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """The rows of `parcels.parquet`, of these columns or all; geometries are WKB."""
        path = f"{self.facts.path}/parcels.parquet"
        with told(path), fsspec.open(path, "rb") as file:
            return pd.read_parquet(file, columns=None if columns is None else list(columns))

    def parcel_batches(self, columns: Sequence[str]) -> Iterator[pyarrow.RecordBatch]:
        """The rows of `parcels.parquet`, so many at a time that memory does not grow with the region."""
        path = f"{self.facts.path}/parcels.parquet"
        with told(path), fsspec.open(path, "rb") as file:
            yield from parquet.ParquetFile(file).iter_batches(_PARCELS_AT_ONCE, columns=list(columns))


def open_cube(path: str) -> Cube:
    """A handle on the dataset in the folder or under the URL `path`.

    FileNotFoundError where there is none, ValueError where it is of another profile or version, or not finished.
    A finished cube some of whose sources could not be read is opened, and the log says so: their pixels are not
    observed.
    """
    path = folder_of(path)
    attributes, about = read_attributes(path)
    if about.get("profile") != "region":
        raise ValueError(
            f"{path} is of the profile {about.get('profile')!r}, and this needs a cube of a region: many small places "
            "can be learnt from, but no map is made of them; give a dataset of the profile 'region'"
        )
    check_finished(path, about)
    try:
        cube = _opened(path, attributes, about)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}/{CUBE} lacks metadata of a cube: {in_one_sentence(error)}; build it again") from error
    if not cube.facts.complete:
        _log.warning("%s is not complete: sources that could not be read are not observed there", path)
    return cube


def _opened(path: str, attributes: Mapping[str, Any], about: Mapping[str, Any]) -> Cube:
    group = open_group(path)
    reflectance, time = (array_of(group, name, path) for name in ("reflectance", "time"))
    with told(f"time of {path}/{CUBE}"):
        days = np.asarray(time[...])
    labels = group["crop_type"].attrs.asdict() if "crop_type" in group else None
    height, width = reflectance.shape[-2:]
    return Cube(
        CubeFacts(
            path=path,
            region=str(about["region"]),
            version=str(about["version"]),
            bands=tuple(attributes["band_names"]),
            days=tuple(int(day) for day in days),
            radiometry=about["radiometry"],
            statistics=about.get("statistics"),
            classes=() if labels is None else classes_of(labels),
            shape=(height, width),
            transform=tuple(attributes["spatial:transform"]),
            crs=str(attributes["proj:code"]),
            has_labels=labels is not None,
            finer=tuple(factor for factor in (2, 4) if f"labels_x{factor}" in group),
            chunk_px=reflectance.chunks[-1],
            shard_px=(reflectance.shards or reflectance.chunks)[-1],
            config_sha256=str(about["config_sha256"]),
            complete=bool(about["complete"]),
            simulated=bool(about.get("simulated", False)),
        )
    )


class Described(Protocol):
    """What a cube, or a patch set, says of itself, as far as both do."""

    @property
    def path(self) -> str:
        """Its folder, or its URL."""
        ...

    @property
    def radiometry(self) -> Mapping[str, object]:
        """What its integers mean; see `RADIOMETRY`."""
        ...


class Opened(Protocol):
    """A cube, or a patch set."""

    @property
    def facts(self) -> Described:
        """Where it is and what its integers mean."""
        ...


def check_radiometry(cubes: Sequence[Opened]) -> None:
    """Raises ValueError where the integers of two cubes, or patch sets, do not mean the same."""
    for cube in cubes[1:]:
        first, other = cubes[0].facts, cube.facts
        for key in RADIOMETRY:
            ours, theirs = first.radiometry.get(key), other.radiometry.get(key)
            if ours != theirs:
                raise ValueError(
                    f"the cubes differ in radiometry: {key} is {ours!r} in {first.path} and {theirs!r} in "
                    f"{other.path}; train on cubes of one radiometry"
                )
