"""What every build does alike, whichever profile it writes: its time, its gates, and what a worker's end means."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime

from sits_catalog.cube import VERSION
from sits_pipeline.cluster import Cluster
from sits_pipeline.folder import Folder
from sits_pipeline.sources.base import SceneSource, ServiceDown, ServiceSource
from sits_pipeline.values import JsonObject, Scene

__all__ = ["check_version", "in_words", "is_simulated", "now", "through_gates", "with_earlier_units"]


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
