"""Scenes of a static STAC catalogue or an ItemCollection, their pixels in local or http(s) files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import shapely
from odc.geo.geobox import GeoBox

from sits_catalog.reach import Reach
from sits_catalog.region import Season
from sits_pipeline.sources.base import SearchResult
from sits_pipeline.sources.cache import open_cached, own_cache
from sits_pipeline.sources.catalogue import FoundItem, read_items
from sits_pipeline.sources.items import scene_from_item
from sits_pipeline.sources.pixels import read_scenes, sample_any
from sits_pipeline.sources.remote import Opener
from sits_pipeline.sources.sift import Candidate, in_season, sift
from sits_pipeline.sources.web import Web
from sits_pipeline.values import AuditSample, Raster, Scene

__all__ = ["StacSource", "in_season"]


@dataclass(frozen=True)
class StacSource:
    """A catalogue, a collection, an ItemCollection or an item, as a path or a URL."""

    location: str
    cache: Path | None = None
    """Folder for the bytes of remote files, shared by all workers of a host and made there where it is missing; a
    relative one lies in each host's own folder for temporary files. None: a temporary one of each process."""
    cache_bytes: int = 20_000_000_000
    web: Web = field(default_factory=Web)
    """How servers are asked."""

    def search(self, area: shapely.Geometry, season: Season) -> SearchResult:
        """Scenes that meet `area` (lon/lat) in `season` or within a day of it; raises SourceError."""
        return sift(_candidates(self.location), area, season)

    def sample(self, scene: Scene) -> AuditSample:
        """Pixels for the audit, thinned over the whole scene; raises OSError."""
        return sample_any(scene, opener=self._opener(scene))

    def read(self, scenes: Sequence[Scene], geobox: GeoBox, bands: Sequence[str], *, pad: int) -> Iterator[Raster]:
        """A window a band around `geobox` of each scene; a band that cannot be read is a ReadFailure in the result."""
        for scene in scenes:
            yield from read_scenes([scene], geobox, bands, pad=pad, opener=self._opener(scene))

    def _opener(self, scene: Scene) -> Opener:
        folder = own_cache() if self.cache is None else self.cache
        reach = Reach(hosts=frozenset({scene.web_host})) if scene.web_host else Reach.of(self.location)
        web = replace(self.web, reach=self.web.reach or reach)
        return partial(open_cached, folder=folder, max_bytes=self.cache_bytes, web=web)


def _candidates(location: str) -> Iterator[Candidate]:
    for found in read_items(location):
        yield Candidate(found.item, found.spot.location, partial(_scene, found))


def _scene(found: FoundItem) -> Scene:
    scene = scene_from_item(found.item, lambda href: found.spot.resolve(href).location)
    return replace(scene, web_host=found.spot.web_host)
