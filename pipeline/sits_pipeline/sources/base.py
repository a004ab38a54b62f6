"""What every source of scenes can do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import shapely
from odc.geo.geobox import GeoBox

from sits_catalog.region import Season
from sits_pipeline.values import AuditSample, JsonObject, Raster, Scene

__all__ = ["SceneSource", "SearchResult", "SourceError", "UnusableItem"]


class SourceError(ValueError):
    """A source that cannot be used at all: a missing folder, a broken catalogue, an address that does not answer."""


@dataclass(frozen=True, kw_only=True)
class UnusableItem:
    """Something found where scenes are kept that cannot be one: another product, or metadata with a hole."""

    id: str
    reason: str
    """One sentence."""
    item: JsonObject
    """As found; may be empty."""


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """What a source holds for an area and a season."""

    scenes: tuple[Scene, ...]
    """By id, which is unique."""
    unusable: tuple[UnusableItem, ...] = ()
    """By id. Nothing found is dropped without a word; what lies elsewhere or in another season is not listed."""


class SceneSource(Protocol):
    """Finds scenes and reads their pixels on their own grid; small and picklable, so that it travels to workers."""

    def search(self, area: shapely.Geometry, season: Season) -> SearchResult:
        """Scenes whose footprint meets `area` (lon/lat) and whose sensing time lies in `season` or within a day of it.

        The day more on both sides is for solar days that differ from UTC days.
        Raises SourceError.
        """
        ...

    def sample(self, scene: Scene) -> AuditSample:
        """Pixels for the audit of the BOA offset, thinned over the whole scene; they never depend on a region.

        Raises OSError where a file cannot be read.
        """
        ...

    def read(self, scene: Scene, geobox: GeoBox, bands: Sequence[str], *, pad: int) -> Raster:
        """A window a band around `geobox`, `pad` source pixels larger on each side, and SCL (never padded).

        A band that cannot be read is a ReadFailure in the result, never an exception and never zeros.
        Pixels outside of a file are 0.
        """
        ...
