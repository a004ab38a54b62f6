"""What every build does alike, whichever profile it writes: what is there, its time, its gates, a worker's end."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Self

from sits_catalog.cube import VERSION
from sits_pipeline.cluster import Cluster
from sits_pipeline.folder import Folder
from sits_pipeline.journal import CellLines
from sits_pipeline.sources.base import SceneSource, ServiceDown, ServiceSource
from sits_pipeline.store import CUBE
from sits_pipeline.values import JsonObject, Scene

__all__ = ["BuiltCells", "check_version", "in_words", "is_simulated", "now", "through_gates", "with_earlier_units"]


@dataclass
class BuiltCells:
    """What the journal says of the cells that are built."""

    failures: dict[tuple[int, ...], Sequence[JsonObject]] = field(default_factory=dict)
    done: set[tuple[int, ...]] = field(default_factory=set)
    """Those that need no further work: nothing unread, and their shards are there at their size."""
    units: dict[tuple[int, ...], float] = field(default_factory=dict)
    """Processing units that each was charged, in all runs."""

    @property
    def processing_units(self) -> float:
        """What all of them were charged."""
        return sum(self.units.values())

    @classmethod
    def read(cls, folder: Folder) -> Self:
        """From the journal; a later line of a cell replaces an earlier one."""
        cells = cls()
        stored = folder.sizes(CUBE)
        for line in CellLines(folder):
            entry = json.loads(line)
            key = tuple(entry["cell"])
            cells.failures[key] = entry["failures"]
            cells.units[key] = entry.get("processing_units", 0.0)
            sizes = ((f"{CUBE}/{name}", size) for name, (size, _) in entry["shards"].items())
            if not entry["failures"] and all(stored.get(name) == size for name, size in sizes):
                cells.done.add(key)
        return cells


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

    `unit`: what a task builds, such as "a cell". Raises MemoryError as it is, and RuntimeError with one sentence.
    """
    try:
        yield from entries
    except (MemoryError, RuntimeError):
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


def check_version(folder: Folder, attributes: JsonObject) -> None:
    """Raises ValueError where another release wrote the dataset; `attributes` is its `sits_cube`."""
    if attributes.get("version") != VERSION:
        raise ValueError(
            f"{folder.location} was written as sits-cube {attributes.get('version')}, this program writes {VERSION}; "
            "choose another --out"
        )


def is_simulated(scene: Scene) -> bool:
    """Whether its item says so: an archive that was simulated may be read as any other catalogue."""
    properties = scene.item.get("properties", {})
    return any(properties.get(name) is True for name in ("simulated", "sits:simulated"))
