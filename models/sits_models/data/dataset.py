"""The folder or URL of a dataset of this project: its metadata, arrays and tables, whatever its profile."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import fsspec
import pyarrow
import zarr
from numcodecs import blosc  # type: ignore[import-untyped]  # published without types
from pyarrow import parquet
from zarr.storage import FsspecStore, LocalStore

from sits_catalog.cube import PROFILES, VERSION

__all__ = [
    "CUBE",
    "FUSED",
    "Arrays",
    "CropEntry",
    "array_of",
    "calm_worker",
    "check_finished",
    "classes_of",
    "in_one_sentence",
    "open_group",
    "profile_of",
    "read_attributes",
    "read_table",
    "told",
]

CUBE = "cube.zarr"
_NO_ACCESS = ("NoCredentialsError", "PartialCredentialsError", "ClientError", "NoAuthHandlerFound")
_SETTING = "codec_pipeline.path"


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


FUSED = _FusedPipeline()
"""Inside of it arrays are opened and read."""


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


class Arrays:
    """The arrays of a dataset, opened when they are first asked for, by every process for itself."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._group: zarr.Group | None = None
        self._found: dict[str, zarr.Array[Any]] = {}
        self._process = os.getpid()

    def get(self, name: str) -> zarr.Array[Any]:
        """The array of this name; ValueError where there is none."""
        if self._process != os.getpid():
            self._group, self._found, self._process = None, {}, os.getpid()
        if name not in self._found:
            # As it was in the process's configuration when it is opened, so is an array decoded ever after.
            with FUSED:
                # The group once: it parses the metadata of all arrays, a tenth of a second or more.
                if self._group is None:
                    self._group = open_group(self._path)
                self._found[name] = array_of(self._group, name, self._path)
        return self._found[name]


def folder_of(path: str) -> str:
    """The folder of a dataset, given that or its group."""
    return path.rstrip("/").removesuffix(f"/{CUBE}")


def read_attributes(path: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The attributes of the root group of the dataset in the folder or under the URL `path`, and its `sits_cube`.

    FileNotFoundError where there is none, ValueError where it is no dataset, or one that is being created.
    """
    attributes = _root_attributes(path)
    about = attributes.get("sits_cube")
    if not isinstance(about, dict) or about.get("creating"):
        raise ValueError(f"{path}/{CUBE} is no finished sits-cube; build it with sits-build, or give another folder")
    return attributes, about


def _root_attributes(path: str) -> dict[str, Any]:
    if "://" in path and path.split("://", maxsplit=1)[0] not in fsspec.available_protocols():
        raise ValueError(f"{path} is neither a folder nor a URL of a kind that can be read; give another one")
    try:
        with told(f"{path}/{CUBE}/zarr.json"), fsspec.open(f"{path}/{CUBE}/zarr.json", "rb") as file:
            text = file.read()
    except FileNotFoundError:
        raise FileNotFoundError(f"no dataset in {path}: it has no {CUBE}; give the folder that holds it") from None
    try:
        return dict(json.loads(text)["attributes"])
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path}/{CUBE} is no sits-cube: its zarr.json does not say so; give another folder") from None


def profile_of(path: str) -> str:
    """`region` or `patches`: what the metadata of the dataset in a folder or under a URL say.

    Raises what `read_attributes` raises, and ValueError for another profile.
    """
    path = folder_of(path)
    about = read_attributes(path)[1]
    profile = str(about.get("profile"))
    if profile not in PROFILES:
        raise ValueError(
            f"{path} is of the profile {profile!r}; there are {' and '.join(PROFILES)}: update this software"
        )
    return profile


def check_finished(path: str, about: Mapping[str, Any]) -> None:
    """Raises ValueError for a dataset of another version, or one that a build has not finished."""
    if str(about.get("version")).split(".")[0] != VERSION.split(".")[0]:
        raise ValueError(f"{path} is a cube of version {about.get('version')}; this reads version {VERSION}")
    # The merged journal is the last file of a build.
    with told(path):
        filesystem, root = fsspec.core.url_to_fs(path)
        finished = filesystem.exists(f"{root}/journal.jsonl")
    if not finished:
        raise ValueError(f"{path} is not finished: it has no journal.jsonl; run its sits-build again, it goes on")


def read_table(path: str, columns: Sequence[str] | None, filters: list[tuple[str, str, str]] | None) -> pyarrow.Table:
    """The rows of a Parquet file as Arrow has them; ValueError where it lacks one of these columns."""
    with told(path), fsspec.open(path, "rb") as file:
        there = parquet.read_schema(file).names
        missing = [column for column in columns or () if column not in there]
        if not missing:
            return parquet.read_table(file, columns=None if columns is None else list(columns), filters=filters)
    raise ValueError(
        f"{path} should have the columns {', '.join(columns or ())}; it lacks {', '.join(missing)}: build the dataset "
        "again, or give another one"
    )


@contextmanager
def told(what: str) -> Iterator[None]:
    """Whatever storage, codecs and Parquet raise becomes an error of one sentence that says what could not be read."""
    try:
        yield
    except (FileNotFoundError, PermissionError, MemoryError):
        raise
    except ImportError as error:
        raise ValueError(f"cannot read {what}: {in_one_sentence(error)}") from error
    except pyarrow.ArrowException as error:
        raise ValueError(f"{what} is torn or no Parquet; build the dataset again, or give another one") from error
    except Exception as error:
        if type(error).__name__ in _NO_ACCESS:
            raise PermissionError(f"no access to {what}: {in_one_sentence(error)}; give credentials") from error
        raise OSError(
            f"cannot read {what}: {in_one_sentence(error)}; check the dataset with sits-cube verify"
        ) from error


def in_one_sentence(error: Exception) -> str:
    """What an error of a library says, on one line."""
    return " ".join(str(error).split()) or type(error).__name__


def array_of(group: zarr.Group, name: str, path: str) -> zarr.Array[Any]:
    """An array of the group of the dataset in `path`; ValueError where there is none."""
    with told(f"{name} of {path}/{CUBE}"):
        found = group.get(name)
    if isinstance(found, zarr.Array):
        return found
    raise ValueError(f"the cube in {path} has no array {name!r}; build it again, or give another one")


def classes_of(attributes: Mapping[str, Any]) -> tuple[CropEntry, ...]:
    """The class table in the attributes of `crop_type`; the background, index 0, has no row."""
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


def calm_worker() -> None:
    """Let zarr and its codec use one thread of this process: its brothers keep the other cores busy."""
    zarr.config.set({"async.concurrency": 2, "threading.max_workers": 1, "codec_pipeline.max_workers": 1})
    blosc.set_nthreads(1)


def open_group(path: str) -> zarr.Group:
    """The root group of the dataset in `path`, to read."""
    location = f"{path}/{CUBE}"
    with told(location):
        if "://" in location:
            return zarr.open_group(FsspecStore.from_url(location, read_only=True), mode="r", zarr_format=3)
        return zarr.open_group(LocalStore(location, read_only=True), mode="r", zarr_format=3)


def _after_fork() -> None:
    """In the child: zarr's pool of decoding threads is gone, so nobody may wait for it."""
    FUSED.leave_all()
    zarr.config.set({"codec_pipeline.max_workers": 1})
    FUSED.lock.release()


if hasattr(os, "register_at_fork"):
    # Held across the fork, so that no thread is in the middle of a change that the child would wait for.
    os.register_at_fork(before=FUSED.lock.acquire, after_in_parent=FUSED.lock.release, after_in_child=_after_fork)
