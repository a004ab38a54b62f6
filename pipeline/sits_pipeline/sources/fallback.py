"""A second provider of the same products, read where the first does not answer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import shapely
from odc.geo.geobox import GeoBox

from sits_catalog.region import Season
from sits_pipeline.sources.access import Cost, Gate, Limit
from sits_pipeline.sources.base import SearchResult, ServiceDown, ServiceSource
from sits_pipeline.values import AuditSample, JsonObject, Raster, Scene

__all__ = ["FallbackSource", "with_twins"]

_MARK = "sits:fallback"
"""Property of the second provider's items, true; those of the first are as they are."""
_SAME_TIME = timedelta(seconds=1)
_STRIP_START = re.compile(r"_S(\d{8}T\d{6})_")
_TAKE_START = re.compile(r"_(\d{8}T\d{6})_")


@dataclass(frozen=True)
class FallbackSource:
    """The scenes of `first`; where it does not answer, their pixels come from the same products at `second`.

    Plans are made with the first alone: items that come and go with a service's health would make other cubes.
    """

    first: ServiceSource
    second: ServiceSource

    @property
    def query(self) -> JsonObject:
        """What decides the items of both."""
        return {**self.first.query, "fallback": self.second.query}

    @property
    def limits(self) -> tuple[Limit, ...]:
        """What both services allow; each name once."""
        return tuple({limit.name: limit for limit in (*self.second.limits, *self.first.limits)}.values())

    def through(self, gates: Mapping[str, Gate]) -> FallbackSource:
        """The same source whose requests pass through these gates, by the limits' names."""
        return FallbackSource(self.first.through(gates), self.second.through(gates))

    def cost(self, scenes: Sequence[Scene], geobox: GeoBox, bands: Sequence[str]) -> Cost:
        """What `read` asks of the first; what is asked of the second instead is about the same."""
        return self.first.cost(scenes, geobox, bands)

    def sample_cost(self, scene: Scene) -> Cost:
        """What `sample` of the first may be charged."""
        return self.first.sample_cost(scene)

    def search(self, area: shapely.Geometry, season: Season) -> SearchResult:
        """Scenes of the first that meet `area` in `season` or within a day of it; raises SourceError."""
        return self.scenes_from(self.find(area, season), area, season)

    def find(self, area: shapely.Geometry, season: Season) -> list[JsonObject]:
        """The items of both, those of the second marked; raises SourceError, also where the second cannot be asked."""
        return [*self.first.find(area, season), *(_marked(item) for item in self.second.find(area, season))]

    def scenes_from(self, items: Sequence[JsonObject], area: shapely.Geometry, season: Season) -> SearchResult:
        """Scenes of the first, each with its twin at the second where there is one."""
        own = [item for item in items if not _is_marked(item)]
        others = [_unmarked(item) for item in items if _is_marked(item)]
        found = self.first.scenes_from(own, area, season)
        twins = self.second.scenes_from(others, area, season).scenes
        return replace(found, scenes=with_twins(found.scenes, twins))

    def sample(self, scene: Scene) -> AuditSample:
        """Pixels for the audit; raises OSError, and ServiceDown where neither answers."""
        try:
            return self.first.sample(scene)
        except ServiceDown as down:
            if scene.twin is None:
                raise
            try:
                return self.second.sample(scene.twin)
            except ServiceDown as error:
                raise _both_down(down, error) from error

    def read(self, scenes: Sequence[Scene], geobox: GeoBox, bands: Sequence[str], *, pad: int) -> Iterator[Raster]:
        """One raster a scene, from the first until it does not answer, then from the second.

        A scene of which the first did not give all is the second's as well: before a service is known to be down, it is
        a few files that fail. Raises ServiceDown where neither does, and where a scene has no twin.
        """
        given = 0
        try:
            for raster in self.first.read(scenes, geobox, bands, pad=pad):
                given += 1
                yield self._mended(scenes[given - 1], raster, geobox, bands, pad=pad)
        except ServiceDown as error:
            down = error
        else:
            return
        # The rest of the day; the next one asks the first again, which costs nothing while its breaker is open.
        for scene in scenes[given:]:
            yield self._read_twin(scene, down, geobox, bands, pad=pad)

    def _mended(self, scene: Scene, raster: Raster, geobox: GeoBox, bands: Sequence[str], *, pad: int) -> Raster:
        """The raster, or its twin's where that alone is whole."""
        if not raster.failures or scene.twin is None:
            return raster
        try:
            (other,) = self.second.read([scene.twin], geobox, bands, pad=pad)
        except ServiceDown:
            return raster
        missing = ", ".join(failure.band for failure in raster.failures)
        note = f"read from {scene.twin.provider} ({scene.twin.id}): {scene.provider} did not give {missing}"
        return raster if other.failures else replace(other, note=note)

    def _read_twin(self, scene: Scene, down: ServiceDown, geobox: GeoBox, bands: Sequence[str], *, pad: int) -> Raster:
        twin = scene.twin
        if twin is None:
            raise down
        try:
            (raster,) = self.second.read([twin], geobox, bands, pad=pad)
        except ServiceDown as error:
            raise _both_down(down, error) from error
        return replace(
            raster,
            failures=tuple(replace(failure, item=scene.id) for failure in raster.failures),
            note=f"read from {twin.provider} ({twin.id}): {scene.provider} did not answer",
        )


def _both_down(first: ServiceDown, second: ServiceDown) -> ServiceDown:
    return ServiceDown(f"{first}; nor did the fallback: {second}")


def with_twins(scenes: Iterable[Scene], others: Iterable[Scene]) -> tuple[Scene, ...]:
    """The scenes, each with the one of `others` that is the same product of ESA's, where there is one.

    Of several the newest is taken, by the time at which it was made.
    """
    by_place: dict[tuple[object, ...], list[Scene]] = {}
    for other in others:
        by_place.setdefault(_place(other), []).append(other)
    paired = []
    for scene in scenes:
        twins = [other for other in by_place.get(_place(scene), []) if _is_twin(scene, other)]
        newest = max(twins, key=_age, default=None)
        paired.append(replace(scene, twin=newest))
    return tuple(paired)


def _place(scene: Scene) -> tuple[object, ...]:
    """What two copies of a product share at every provider."""
    return scene.mgrs_tile, scene.epsg, scene.platform, scene.baseline, scene.declared_offset


def _is_twin(scene: Scene, other: Scene) -> bool:
    """Whether two scenes of one place are one product whose integers certainly mean the same."""
    certain = scene.offset_is_firm and other.offset_is_firm
    return certain and scene.assets.keys() <= other.assets.keys() and _same_sensing(scene, other)


def _same_sensing(scene: Scene, other: Scene) -> bool:
    """By the start of the datastrip, which tells halves of a split granule apart, else of the datatake, else by time.

    Providers differ in what they call the time of an item: the start of the datatake, or that of the granule.
    """
    for pattern, name in ((_STRIP_START, "datastrip"), (_TAKE_START, "datatake")):
        starts = [pattern.search(getattr(one, name) or "") for one in (scene, other)]
        if starts[0] is not None and starts[1] is not None:
            return starts[0][1] == starts[1][1]
    return abs(scene.sensed - other.sensed) <= _SAME_TIME


def _age(scene: Scene) -> tuple[float, str]:
    return (0.0 if scene.generated is None else scene.generated.timestamp(), scene.id)


def _marked(item: JsonObject) -> JsonObject:
    return {**item, "properties": {**_properties(item), _MARK: True}}


def _unmarked(item: JsonObject) -> JsonObject:
    return {**item, "properties": {key: value for key, value in _properties(item).items() if key != _MARK}}


def _is_marked(item: JsonObject) -> bool:
    return _properties(item).get(_MARK) is True


def _properties(item: JsonObject) -> dict[str, Any]:
    properties = item.get("properties")
    return properties if isinstance(properties, dict) else {}
