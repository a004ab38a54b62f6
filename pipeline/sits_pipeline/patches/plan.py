"""All decisions for a location set: what was chosen, its shards, and the hash of what decides pixels."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from sits_catalog.addresses import published
from sits_catalog.cube import NO_DAY, VERSION, patches_a_shard
from sits_catalog.locations import Location
from sits_pipeline.imagery import Day, visit_of
from sits_pipeline.patches.place import Chosen, Spot
from sits_pipeline.patches.rule import PatchSet
from sits_pipeline.sources.access import Cost
from sits_pipeline.sources.base import SceneSource, ServiceSource
from sits_pipeline.values import Acquisition, JsonObject, Scene

__all__ = ["PatchPlan", "cost_of", "days_to_read", "request_sha256"]

_EPOCH = date(1970, 1, 1)


def request_sha256(wanted: PatchSet, locations: Sequence[Location], query: JsonObject | None) -> str:
    """SHA-256 over all that decides which acquisitions are chosen, but what the source answers.

    `query` is what a service is asked with; None for files. Paths of this machine do not count.
    """
    imagery = wanted.imagery
    return _digest(
        {
            "version": VERSION,
            "set": wanted.id,
            "season": [wanted.season.start.isoformat(), wanted.season.end.isoformat()],
            "rule": asdict(wanted.rule),
            "imagery": [imagery.source, imagery.collection, list(imagery.bands), imagery.max_cloud],
            "assets": None if imagery.assets is None else dict(imagery.assets),
            "service": [imagery.deployment, imagery.fallback],
            "query": None if query is None else published(_without_paths(query)),
            "min_baseline": imagery.min_baseline,
            "locations": [[at.id, at.lon, at.lat] for at in locations],
        }
    )


def _without_paths(query: JsonObject) -> JsonObject:
    """A query in which a table of items stands without its place."""
    known = {name: "" if name == "table" else value for name, value in query.items()}
    return {name: _without_paths(value) if isinstance(value, dict) else value for name, value in known.items()}


def _digest(deciding: JsonObject) -> str:
    return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class PatchPlan:
    """What is to be built."""

    wanted: PatchSet
    chosen: tuple[Chosen, ...]
    """One a location, in their order."""

    @property
    def n_patches(self) -> int:
        """Locations, those without acquisitions included."""
        return len(self.chosen)

    @property
    def shard(self) -> int:
        """Patches in a shard."""
        side = self.wanted.rule.side_px
        return patches_a_shard(self.wanted.rule.dates, len(self.wanted.imagery.bands), side, side)

    def cells(self) -> Iterator[tuple[int, int]]:
        """First patch and number of patches of each shard."""
        for first in range(0, self.n_patches, self.shard):
            yield first, min(self.shard, self.n_patches - first)

    @property
    def n_cells(self) -> int:
        """Number of shards."""
        return -(-self.n_patches // self.shard)

    def days(self) -> NDArray[np.int32]:
        """(patch, time): days since 1970-01-01, ascending, NO_DAY for padding."""
        days = np.full((self.n_patches, self.wanted.rule.dates), NO_DAY, np.int32)
        for row, chosen in zip(days, self.chosen, strict=True):
            row[: len(chosen.acquisitions)] = [(found.day - _EPOCH).days for found in chosen.acquisitions]
        return days

    def scenes(self) -> Iterator[Scene]:
        """All scenes, patch by patch, those of several patches again and again."""
        return (scene for chosen in self.chosen for day in chosen.acquisitions for scene in day.scenes)

    @cached_property
    def config_sha256(self) -> str:
        """SHA-256 over all that decides pixels, and nothing else: no path, address, credential or number of workers."""
        wanted, imagery = self.wanted, self.wanted.imagery
        merged_by_service = imagery.source == "sentinel-hub" and imagery.mosaicking == "orbit"
        return _digest(
            {
                "version": VERSION,
                "profile": "patches",
                "set": wanted.id,
                "season": [wanted.season.start.isoformat(), wanted.season.end.isoformat()],
                "rule": asdict(wanted.rule),
                "bands": list(imagery.bands),
                "resampling": imagery.resampling,
                "merged_by_service": merged_by_service,
                "patches": [_deciding(chosen.spot, chosen.acquisitions) for chosen in self.chosen],
            }
        )


def _deciding(spot: Spot, acquisitions: Sequence[Acquisition]) -> list[object]:
    items = [[[scene.id, scene.baseline] for scene in acquisition.scenes] for acquisition in acquisitions]
    return [spot.location.id, spot.epsg, spot.geobox.affine.c, spot.geobox.affine.f, items]


def days_to_read(acquisitions: Sequence[Acquisition]) -> tuple[Day, ...]:
    """The days of a patch as a worker reads them; items stay here."""
    return tuple(
        Day(
            day=acquisition.day,
            visits=tuple(map(visit_of, range(len(acquisition.scenes)), acquisition.scenes, acquisition.verdicts)),
        )
        for acquisition in acquisitions
    )


def cost_of(source: SceneSource, wanted: PatchSet, chosen: Iterable[Chosen]) -> Cost:
    """What reading these patches asks of a service; nothing where they are files."""
    total = Cost()
    if isinstance(source, ServiceSource):
        for one in chosen:
            for day in one.acquisitions:
                total += source.cost(day.scenes, one.spot.geobox, wanted.imagery.bands)
    return total
