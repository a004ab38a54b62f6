"""Scenes of a static STAC catalogue or of an ItemCollection, their pixels in local or http(s) files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from functools import partial
from pathlib import Path

import shapely
from odc.geo.geobox import GeoBox

from sits_catalog.addresses import published_text
from sits_catalog.region import Season
from sits_pipeline.sources.base import SearchResult, UnusableItem
from sits_pipeline.sources.cache import open_cached
from sits_pipeline.sources.catalogue import FoundItem, read_items
from sits_pipeline.sources.items import footprint_of, scene_from_item, sensed_of
from sits_pipeline.sources.rasters import read_scene, sample_scene
from sits_pipeline.sources.remote import Opener
from sits_pipeline.sources.web import Web
from sits_pipeline.values import AuditSample, JsonObject, Raster, Scene

__all__ = ["StacSource", "in_season"]


@dataclass(frozen=True)
class StacSource:
    """A catalogue, a collection, an ItemCollection or an item, as a local path or an http(s) URL."""

    location: str
    cache: Path | None = None
    """Folder for the bytes of remote files, shared by all workers of a host and made there where it is missing; a
    relative one lies in each host's own folder for temporary files. None: each read fetches anew."""
    cache_bytes: int = 20_000_000_000
    web: Web = field(default_factory=Web)
    """How servers are asked."""

    def search(self, area: shapely.Geometry, season: Season) -> SearchResult:
        """Scenes that meet `area` (lon/lat) in `season` or within a day of it; raises SourceError."""
        scenes: dict[str, Scene] = {}
        unusable: list[UnusableItem] = []
        shapely.prepare(area)
        for found in sorted(read_items(self.location), key=lambda found: (_id(found.item), found.spot.location)):
            try:
                scene = _scene(found)
            except ValueError as error:
                if _may_matter(found.item, area, season):
                    unusable.append(
                        UnusableItem(id=_id(found.item), reason=published_text(str(error)), item=found.item)
                    )
                continue
            if not (in_season(scene.sensed, season) and shapely.intersects(area, scene.footprint)):
                continue
            if scene.id in scenes:
                reason = "another item of the same id comes before it; ids must be unique"
                unusable.append(UnusableItem(id=scene.id, reason=reason, item=scene.item))
            else:
                scenes[scene.id] = scene
        return SearchResult(scenes=tuple(scenes.values()), unusable=tuple(unusable))

    def sample(self, scene: Scene) -> AuditSample:
        """Pixels for the audit, thinned over the whole scene; raises OSError."""
        return sample_scene(scene, opener=self._opener())

    def read(self, scenes: Sequence[Scene], geobox: GeoBox, bands: Sequence[str], *, pad: int) -> Iterator[Raster]:
        """A window a band around `geobox` of each scene; a band that cannot be read is a ReadFailure in the result."""
        opener = self._opener()
        return (read_scene(scene, geobox, bands, pad=pad, opener=opener) for scene in scenes)

    def _opener(self) -> Opener | None:
        if self.cache is None:
            return None
        return partial(open_cached, folder=self.cache, max_bytes=self.cache_bytes, web=self.web)


def in_season(sensed: datetime, season: Season) -> bool:
    """Whether a sensing time lies in a season or within a day of it."""
    day = timedelta(days=1)
    start = datetime.combine(season.start, time(0), UTC) - day
    return start <= sensed < datetime.combine(season.end, time(0), UTC) + 2 * day


def _scene(found: FoundItem) -> Scene:
    return scene_from_item(found.item, lambda href: found.spot.resolve(href).location)


def _id(item: JsonObject) -> str:
    """An id to list an item by, whatever the item holds."""
    text = str(item.get("id"))[:200]
    return text if text.isprintable() else ascii(text)


def _may_matter(item: JsonObject, area: shapely.Geometry, season: Season) -> bool:
    """Whether a broken item may lie in the area and the season: unless it says otherwise, it may."""
    try:
        return in_season(sensed_of(item), season) and bool(shapely.intersects(area, footprint_of(item)))
    except ValueError:
        return True
