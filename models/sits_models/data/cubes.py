"""Cubes as models read them: facts checked at opening, then windows of pixels and the tables."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import fsspec
import numpy as np
import pandas as pd
import pyarrow
import zarr
from numcodecs import blosc  # type: ignore[import-untyped]  # published without types
from numpy.typing import NDArray
from pyarrow import parquet
from zarr.storage import FsspecStore, LocalStore

from sits_catalog.cube import VERSION

__all__ = ["RADIOMETRY", "CropEntry", "Cube", "CubeFacts", "calm_worker", "check_radiometry", "open_cube"]

RADIOMETRY = ("level", "scale", "offset_removed", "clamp")
"""What of a cube's radiometry decides the meaning of its integers; the baselines do not, once the offset is gone."""

_CUBE = "cube.zarr"
_PARCELS_AT_ONCE = 16_384
_NO_ACCESS = ("NoCredentialsError", "PartialCredentialsError", "ClientError", "NoAuthHandlerFound")
_SETTING = "codec_pipeline.path"
_log = logging.getLogger(__name__)


class _FusedPipeline:
    """While any thread is inside: zarr's codec pipeline without a coroutine a chunk, which gives the same values.

    With it threads decode side by side, and small arrays take a third of the time. zarr's configuration is the
    process's, so that the last thread that leaves puts back what the first one found.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._inside = 0
        self._before: Any = None

    def leave_all(self) -> None:
        """Nobody is inside: in a forked process the threads that were are gone."""
        if self._inside:
            self._inside = 0
            zarr.config.set({_SETTING: self._before})

    def __enter__(self) -> None:
        with self.lock:
            if self._inside == 0:
                self._before = zarr.config.get(_SETTING)
                zarr.config.set({_SETTING: "zarr.core.codec_pipeline.FusedCodecPipeline"})
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        with self.lock:
            self._inside -= 1
            if self._inside == 0:
                zarr.config.set({_SETTING: self._before})


_FUSED = _FusedPipeline()


@dataclass(frozen=True, kw_only=True)
class CropEntry:
    """A row of a class table."""

    index: int
    """Value in the labels: of the cube in its own table, of the model in a `ClassTable`."""
    code: str
    name: str
    hcat: str | None
    colour: str
    """"#rrggbb"."""


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
        self._arrays: dict[str, zarr.Array[Any]] = {}
        self._process = os.getpid()

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
        array = self._array(name)
        with _told(f"{name} of {self.facts.path}/{_CUBE}"), _FUSED:
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
        path = f"{self.facts.path}/chips.parquet"
        filters = None if kind is None else [("kind", "==", kind)]
        with _told(path), fsspec.open(path, "rb") as file:
            return parquet.read_table(file, columns=None if columns is None else list(columns), filters=filters)

    def parcels(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """The rows of `parcels.parquet`, of these columns or all; geometries are WKB."""
        path = f"{self.facts.path}/parcels.parquet"
        with _told(path), fsspec.open(path, "rb") as file:
            return pd.read_parquet(file, columns=None if columns is None else list(columns))

    def parcel_batches(self, columns: Sequence[str]) -> Iterator[pyarrow.RecordBatch]:
        """The rows of `parcels.parquet`, so many at a time that memory does not grow with the region."""
        path = f"{self.facts.path}/parcels.parquet"
        with _told(path), fsspec.open(path, "rb") as file:
            yield from parquet.ParquetFile(file).iter_batches(_PARCELS_AT_ONCE, columns=list(columns))

    def _array(self, name: str) -> zarr.Array[Any]:
        if self._process != os.getpid():
            self._arrays, self._process = {}, os.getpid()
        if name not in self._arrays:
            # As it was in the process's configuration when it is opened, so is an array decoded ever after.
            with _FUSED:
                self._arrays[name] = _array_of(_open_group(self.facts.path), name, self.facts.path)
        return self._arrays[name]


def open_cube(path: str) -> Cube:
    """A handle on the dataset in the folder or under the URL `path`.

    FileNotFoundError where there is none, ValueError where it is of another profile or version, or not finished.
    A finished cube some of whose sources could not be read is opened, and the log says so: their pixels are not
    observed.
    """
    path = path.rstrip("/").removesuffix(f"/{_CUBE}")
    attributes = _root_attributes(path)
    about = attributes.get("sits_cube")
    if not isinstance(about, dict) or about.get("creating"):
        raise ValueError(f"{path}/{_CUBE} is no finished sits-cube; build it with sits-build, or give another folder")
    _check_kind(path, about)
    try:
        cube = _opened(path, attributes, about)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}/{_CUBE} lacks metadata of a cube: {_sentence(error)}; build it again") from error
    if not cube.facts.complete:
        _log.warning("%s is not complete: sources that could not be read are not observed there", path)
    return cube


def _opened(path: str, attributes: Mapping[str, Any], about: Mapping[str, Any]) -> Cube:
    group = _open_group(path)
    reflectance, time = (_array_of(group, name, path) for name in ("reflectance", "time"))
    with _told(f"time of {path}/{_CUBE}"):
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
            classes=() if labels is None else _entries(labels),
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


def check_radiometry(cubes: Sequence[Cube]) -> None:
    """Raises ValueError where the integers of two cubes do not mean the same."""
    for cube in cubes[1:]:
        first, other = cubes[0].facts, cube.facts
        for key in RADIOMETRY:
            ours, theirs = first.radiometry.get(key), other.radiometry.get(key)
            if ours != theirs:
                raise ValueError(
                    f"the cubes differ in radiometry: {key} is {ours!r} in {first.path} and {theirs!r} in "
                    f"{other.path}; train on cubes of one radiometry"
                )


def calm_worker() -> None:
    """Let zarr and its codec use one thread of this process: its brothers keep the other cores busy."""
    zarr.config.set({"async.concurrency": 2, "threading.max_workers": 1, "codec_pipeline.max_workers": 1})
    blosc.set_nthreads(1)


def _root_attributes(path: str) -> dict[str, Any]:
    if "://" in path and path.split("://", maxsplit=1)[0] not in fsspec.available_protocols():
        raise ValueError(f"{path} is neither a folder nor a URL of a kind that can be read; give another one")
    try:
        with _told(f"{path}/{_CUBE}/zarr.json"), fsspec.open(f"{path}/{_CUBE}/zarr.json", "rb") as file:
            text = file.read()
    except FileNotFoundError:
        raise FileNotFoundError(f"no dataset in {path}: it has no {_CUBE}; give the folder that holds it") from None
    try:
        return dict(json.loads(text)["attributes"])
    except (ValueError, KeyError, TypeError):
        raise ValueError(
            f"{path}/{_CUBE} is no sits-cube: its zarr.json does not say so; give another folder"
        ) from None


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Whatever storage, codecs and Parquet raise becomes an error of one sentence that says what could not be read."""
    try:
        yield
    except (FileNotFoundError, PermissionError, MemoryError):
        raise
    except ImportError as error:
        raise ValueError(f"cannot read {what}: {_sentence(error)}") from error
    except pyarrow.ArrowException as error:
        raise ValueError(f"{what} is torn or no Parquet; build the dataset again, or give another one") from error
    except Exception as error:
        if type(error).__name__ in _NO_ACCESS:
            raise PermissionError(f"no access to {what}: {_sentence(error)}; give credentials") from error
        raise OSError(f"cannot read {what}: {_sentence(error)}; check the dataset with sits-cube verify") from error


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _array_of(group: zarr.Group, name: str, path: str) -> zarr.Array[Any]:
    with _told(f"{name} of {path}/{_CUBE}"):
        found = group.get(name)
    if isinstance(found, zarr.Array):
        return found
    raise ValueError(f"the cube in {path} has no array {name!r}; build it again, or give another one")


def _check_kind(path: str, about: Mapping[str, Any]) -> None:
    if about.get("profile") != "region":
        raise ValueError(f"{path} is of the profile {about.get('profile')!r}; models read the profile 'region'")
    if str(about.get("version")).split(".")[0] != VERSION.split(".")[0]:
        raise ValueError(f"{path} is a cube of version {about.get('version')}; this reads version {VERSION}")
    # The merged journal is the last file of a build.
    with _told(path):
        filesystem, root = fsspec.core.url_to_fs(path)
        finished = filesystem.exists(f"{root}/journal.jsonl")
    if not finished:
        raise ValueError(f"{path} is not finished: it has no journal.jsonl; run its sits-build again, it goes on")


def _entries(attributes: Mapping[str, Any]) -> tuple[CropEntry, ...]:
    return tuple(
        CropEntry(
            index=int(row["index"]),
            code=str(row["code"]),
            name=str(row["name"]),
            hcat=row.get("hcat"),
            colour=str(row["colour"]),
        )
        for row in attributes.get("classes", ())
    )


def _open_group(path: str) -> zarr.Group:
    location = f"{path}/{_CUBE}"
    with _told(location):
        if "://" in location:
            return zarr.open_group(FsspecStore.from_url(location, read_only=True), mode="r", zarr_format=3)
        return zarr.open_group(LocalStore(location, read_only=True), mode="r", zarr_format=3)


def _after_fork() -> None:
    """In the child: zarr's pool of decoding threads is gone, so nobody may wait for it."""
    _FUSED.leave_all()
    zarr.config.set({"codec_pipeline.max_workers": 1})
    _FUSED.lock.release()


if hasattr(os, "register_at_fork"):
    # Held across the fork, so that no thread is in the middle of a change that the child would wait for.
    os.register_at_fork(before=_FUSED.lock.acquire, after_in_parent=_FUSED.lock.release, after_in_child=_after_fork)
