"""What every source of scenes can do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, Self, runtime_checkable

import shapely
from odc.geo.geobox import GeoBox

from sits_catalog.region import Season
from sits_pipeline.sources.access import Cost, Gate, Limit
from sits_pipeline.values import AuditSample, JsonObject, Raster, Scene

__all__ = [
    "CredentialsError",
    "SceneSource",
    "SearchResult",
    "ServiceDown",
    "ServiceSource",
    "SourceError",
    "UnusableItem",
]


class SourceError(ValueError):
    """A source that cannot be used at all: a missing folder, a broken catalogue, an address that does not answer."""


class ServiceDown(ConnectionError):  # noqa: N818  # a state of the service
    """A service that answers nothing at all: no reason to call scenes unread, but to stop and try again later."""


class CredentialsError(PermissionError):
    """Who asks cannot be proved, for want of credentials or because they were refused: no file of the service can be
    read, so that none is unread."""


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
        Raises SourceError, and ServiceDown where a service does not answer.
        """
        ...

    def sample(self, scene: Scene) -> AuditSample:
        """Pixels for the audit of the BOA offset, thinned over the whole scene; they never depend on a region.

        Raises OSError where a file cannot be read, CredentialsError where none can without other credentials.
        """
        ...

    def read(self, scenes: Sequence[Scene], geobox: GeoBox, bands: Sequence[str], *, pad: int) -> Iterator[Raster]:
        """One raster a scene of one solar day, in their order, each read when it is asked for.

        A raster holds a window a band around `geobox`, `pad` source pixels larger on each side, and SCL (never padded).
        A band that cannot be read is a ReadFailure in the result, never an exception and never zeros. Pixels outside
        of a file are 0, and so are, where a service merges the day's scenes itself, pixels that it took from another
        one. Raises ServiceDown where the service answers nothing at all.
        """
        ...


@runtime_checkable
class ServiceSource(SceneSource, Protocol):
    """A source behind an API: its answers are kept, its servers are asked within limits."""

    @property
    def query(self) -> JsonObject:
        """All that decides what `find` returns for an area and a season; holds no secret."""
        ...

    def find(self, area: shapely.Geometry, season: Season) -> list[JsonObject]:
        """The items that the API lists, as they are; raises SourceError. `search` is `scenes_from` of them."""
        ...

    def scenes_from(self, items: Sequence[JsonObject], area: shapely.Geometry, season: Season) -> SearchResult:
        """Scenes out of items, now or found earlier; nothing is asked of the service."""
        ...

    @property
    def limits(self) -> tuple[Limit, ...]:
        """What its services allow all workers together."""
        ...

    def through(self, gates: Mapping[str, Gate]) -> Self:
        """The same source whose requests pass through these gates, by the limits' names."""
        ...

    def cost(self, scenes: Sequence[Scene], geobox: GeoBox, bands: Sequence[str]) -> Cost:
        """What `read` of these scenes of one solar day asks of the service."""
        ...

    def sample_cost(self, scene: Scene) -> Cost:
        """What `sample` of a scene may be charged at most; nothing where samples are free."""
        ...
