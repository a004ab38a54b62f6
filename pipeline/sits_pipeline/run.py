"""What every build does alike, whichever profile it writes: what is there, its time, its gates, a worker's end."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from sits_pipeline.cluster import Cluster
from sits_pipeline.folder import CannotWrite, Folder
from sits_pipeline.journal import cell_parts
from sits_pipeline.sources.base import SceneSource, ServiceDown, ServiceSource
from sits_pipeline.store import CUBE
from sits_pipeline.values import JsonObject, Scene

__all__ = ["BuiltCells", "in_words", "is_simulated", "now", "through_gates", "with_earlier_units"]

_FOLDERS = 128
"""Folders of shards whose listing is remembered."""


@dataclass
class BuiltCells:
    """What the journal says of the cells that are built."""

    failures: dict[tuple[int, ...], Sequence[JsonObject]] = field(default_factory=dict)
    done: set[tuple[int, ...]] = field(default_factory=set)
    """Those that need no further work: nothing unread, and their shards are there at their size."""
    units: dict[tuple[int, ...], float] = field(default_factory=dict)
    """Processing units that each was charged, in all runs; those that were charged nothing are left out."""

    @property
    def processing_units(self) -> float:
        """What all of them were charged."""
        return sum(self.units.values())

    @classmethod
    def read(cls, folder: Folder) -> Self:
        """From the journal; a later line of a cell replaces an earlier one."""
        cells, stored = cls(), _Shards.of(folder)
        for entry in cell_parts(folder, ("failures", "processing_units", "shards")):
            key = tuple(entry["cell"])
            cells.failures[key] = entry["failures"] or ()
            cells.units.pop(key, None)
            if units := entry.get("processing_units"):
                cells.units[key] = units
            if not entry["failures"] and all(stored.has(name, size) for name, (size, _) in entry["shards"].items()):
                cells.done.add(key)
            else:
                cells.done.discard(key)
        return cells


@dataclass
class _Shards:
    """The sizes of a cube's shards; on a local disk those of a few folders at a time, since a country has millions."""

    folder: Folder
    listed: dict[str, dict[str, int]]
    """By folder the names and sizes; of an object store, all that there are are in one."""

    @classmethod
    def of(cls, folder: Folder) -> Self:
        """Nothing is looked at yet on a local disk."""
        return cls(folder, {} if folder.is_local else {"": folder.sizes(CUBE)})

    def has(self, name: str, size: int) -> bool:
        """Whether a shard is there at this size."""
        if not self.folder.is_local:
            return self.listed[""].get(f"{CUBE}/{name}") == size
        parent, _, last = name.rpartition("/")
        if parent not in self.listed:
            if len(self.listed) >= _FOLDERS:
                # The one that was listed first: cells come row by row, and a row of shards is a folder an array.
                del self.listed[next(iter(self.listed))]
            self.listed[parent] = _sizes_in(self.folder.path / CUBE / parent)
        return self.listed[parent].get(last) == size


def _sizes_in(path: Path) -> dict[str, int]:
    """Sizes of the files in a folder by name; none where there is no such folder."""
    try:
        # Of an open folder, a look need not find its way from the root again: a quarter of its time.
        opened = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    try:
        with os.scandir(opened) as found:
            return {entry.name: entry.stat().st_size for entry in found if entry.is_file()}
    finally:
        os.close(opened)


def now() -> datetime:
    """The time, or SOURCE_DATE_EPOCH where builds are to be reproducible. Raises ValueError where that is no number."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    if not epoch:
        return datetime.now(UTC).replace(microsecond=0)
    try:
        return datetime.fromtimestamp(int(epoch), UTC)
    except (ValueError, OverflowError, OSError):
        raise ValueError(
            f"SOURCE_DATE_EPOCH must be seconds since 1970-01-01 as a whole number; got {epoch!r}"
        ) from None


def through_gates(source: SceneSource, cluster: Cluster) -> SceneSource:
    """The source with requests of all workers counted together, where it is a service."""
    if not isinstance(source, ServiceSource):
        return source
    return source.through(cluster.gates(source.limits))


def in_words(entries: Iterable[JsonObject], *, unit: str) -> Iterator[JsonObject]:
    """A cluster's entries as they come; what goes wrong in a worker is no wrong use, whatever its type.

    `unit`: what a task builds, such as "a cell". Raises MemoryError and CannotWrite as they are, and RuntimeError with
    one sentence.
    """
    try:
        yield from entries
    except (MemoryError, RuntimeError, CannotWrite):
        raise
    except ServiceDown as error:
        raise RuntimeError(f"{error}; run the same command again, which goes on where this one stopped") from error
    except OSError as error:
        raise RuntimeError(f"{unit} could not be built: {error}; run the same command to go on") from error
    except Exception as error:
        raise RuntimeError(
            f"{unit} could not be built: {type(error).__name__}: {error}; this is a fault of the program: "
            "run again with --debug and report it"
        ) from error


def with_earlier_units(entry: JsonObject, earlier: Mapping[tuple[int, ...], float]) -> JsonObject:
    """A cell's entry whose processing units include those of its earlier lines, by cell: each replaces the one before.

    >>> with_earlier_units({"cell": [0, 0], "processing_units": 2.0}, {(0, 0): 1.5})
    {'cell': [0, 0], 'processing_units': 3.5}
    """
    units = entry.get("processing_units", 0.0) + earlier.get(tuple(entry["cell"]), 0.0)
    return {**entry, "processing_units": units} if units else entry


def is_simulated(scene: Scene) -> bool:
    """Whether its item says so: an archive that was simulated may be read as any other catalogue."""
    properties = scene.item.get("properties", {})
    return any(properties.get(name) is True for name in ("simulated", "sits:simulated"))
