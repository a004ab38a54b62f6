"""Sources of scenes: static STAC catalogues, folders of SAFE products, a simulated archive."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from odc.geo.geobox import GeoBox

from sits_catalog.region import Region
from sits_pipeline.config import BuildConfig
from sits_pipeline.sources.base import SceneSource, SearchResult, SourceError, UnusableItem
from sits_pipeline.sources.safe import SafeSource
from sits_pipeline.sources.stac import StacSource

__all__ = [
    "SafeSource",
    "SceneSource",
    "SearchResult",
    "SourceError",
    "StacSource",
    "UnusableItem",
    "open_source",
]


class HasGeobox(Protocol):
    """A zone of a region, as far as a source cares."""

    @property
    def geobox(self) -> GeoBox:
        """The zone's 10 m grid."""
        ...


def open_source(
    region: Region,
    zones: Sequence[HasGeobox],
    archive: Path,
    config: BuildConfig,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[SceneSource, Region]:
    """The source that a region names, and the region, to which a simulated source adds its parcels.

    `archive` is the folder of a simulated archive, which is written where it is missing.
    Raises ValueError or SourceError with one sentence.
    """
    imagery = region.imagery
    if imagery.source == "simulated":
        from sits_pipeline.sources.simulated import open_simulated

        if len(zones) != 1:
            raise ValueError(
                f"a simulated archive lies in one UTM zone and region {region.id} in {len(zones)}; "
                "take a smaller place, or name a zone as place.crs"
            )
        return open_simulated(region, zones[0].geobox, archive, progress)
    if imagery.path is None:
        raise ValueError(f"imagery of source {imagery.source} needs a path (--source-path)")
    path = region.resolve(imagery.path)
    if imagery.source == "safe":
        return SafeSource(Path(path)), region
    if imagery.source == "stac":
        cache = _temporary_cache() if config.cache is None else config.cache.absolute()
        return StacSource(path, cache, int(config.cache_gb * 1e9)), region
    raise ValueError(f"imagery source {imagery.source!r} cannot be read yet; use simulated, stac or safe")


def _temporary_cache() -> Path:
    """Name of a folder for remote bytes in each host's folder for temporary files; here it goes with this process."""
    folder = Path(tempfile.mkdtemp(prefix="sits-cache-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder.name)
