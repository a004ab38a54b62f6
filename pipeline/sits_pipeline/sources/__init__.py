"""Sources of scenes: STAC APIs, Sentinel Hub, static STAC catalogues, folders of SAFE products, a simulated archive."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from odc.geo.geobox import GeoBox

from sits_catalog.addresses import without_secrets
from sits_catalog.region import Imagery, Region
from sits_pipeline.config import BuildConfig
from sits_pipeline.sources.base import SceneSource, SearchResult, ServiceSource, SourceError, UnusableItem
from sits_pipeline.sources.cache import temporary_cache
from sits_pipeline.sources.providers import PROVIDERS, any_api
from sits_pipeline.sources.safe import SafeSource
from sits_pipeline.sources.stac import StacSource

if TYPE_CHECKING:
    from sits_pipeline.sources.api import ApiSource

__all__ = [
    "SafeSource",
    "SceneSource",
    "SearchResult",
    "SourceError",
    "StacSource",
    "UnusableItem",
    "open_source",
]

_ANY_COLLECTION = "sentinel-2-l2a"
_TABLE = ".parquet"
_OWN_RULE = ("sentinel-hub", "earth-search/sentinel-2-l2a")
"""Whose pixels are not ESA's DN as they are: they stand in for no other's, and no other for them."""


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

    `archive` is the folder of a simulated archive, which is written where it is missing. A service is asked within its
    limits by this process; a cluster puts gates of its own in their place.
    Raises ValueError or SourceError with one sentence.
    """
    imagery = region.imagery
    if imagery.fallback is not None:
        return _within_limits(_open_pair(region, config)), region
    if imagery.source == "simulated":
        from sits_pipeline.sources.simulated import open_simulated

        if len(zones) != 1:
            raise ValueError(
                f"a simulated archive lies in one UTM zone and region {region.id} in {len(zones)}; "
                "take a smaller place, or name a zone as place.crs"
            )
        return open_simulated(region, zones[0].geobox, archive, progress)
    return _within_limits(_open_one(region, config)), region


def _within_limits(source: SceneSource) -> SceneSource:
    """The source with this process's gates, where it is a service."""
    if not isinstance(source, ServiceSource):
        return source
    from sits_pipeline.sources.gate import LocalGate

    return source.through({limit.name: LocalGate(limit) for limit in source.limits})


def _open_one(region: Region, config: BuildConfig) -> SceneSource:
    imagery = region.imagery
    path = None if imagery.path is None else region.resolve(imagery.path)
    if imagery.source == "sentinel-hub":
        from sits_pipeline.sources.sentinel_hub import open_sentinel_hub

        return open_sentinel_hub(imagery, config, cache=_cache(config))
    if imagery.source in PROVIDERS or imagery.source == "stac-api":
        return _open_api(imagery.source, path, imagery.collection, imagery.assets, config)
    if path is None:
        raise ValueError(f"imagery of source {imagery.source} needs a path (--source-path)")
    if imagery.source == "safe":
        return SafeSource(Path(path))
    return (
        _open_table(path, config) if path.endswith(_TABLE) else StacSource(path, _cache(config), _cache_bytes(config))
    )


def _open_table(path: str, config: BuildConfig) -> ApiSource:
    """A table of items, read within the limits of whose they are; one's whose pixels are not plain files as its own."""
    from sits_pipeline.sources.kept import provider_of_table

    provider = PROVIDERS.get(provider_of_table(path) or "")
    if provider is not None and (provider.signing != "none" or provider.pixels != "files"):
        return _open_api(provider.name, path, None, None, config)
    source = _open_api("stac-api", path, None, None, config)
    # Its items may be former ones, whose assets have other names.
    return source if provider is None else replace(source, provider=replace(source.provider, limit=provider.limit))


def _open_api(
    name: str, path: str | None, collection: str | None, assets: Mapping[str, str] | None, config: BuildConfig
) -> ApiSource:
    from sits_pipeline.sources.api import ApiSource

    url = path or (PROVIDERS[name].url if name in PROVIDERS else "")
    _check_address(name, url)
    provider = PROVIDERS[name] if name in PROVIDERS else any_api(url, assets)
    if collection is not None and provider.collections and collection not in provider.collections:
        raise ValueError(
            f"the assets of {name} are known for the collection {' and '.join(provider.collections)}; for {collection} "
            "take the source stac-api with the API's root as path and a table `assets`"
        )
    return ApiSource(
        provider=provider,
        url=url,
        collection=collection or (*provider.collections, _ANY_COLLECTION)[0],
        cache=_cache(config),
        cache_bytes=_cache_bytes(config),
        requests_a_minute=config.requests_a_minute,
    )


def _check_address(name: str, url: str) -> None:
    parts = urlsplit(url)
    if url.endswith(_TABLE):
        return
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.query or parts.fragment:
        raise ValueError(
            f"the path of the source {name} is the root of a STAC API, such as https://host/v1 without a query, or a "
            f"table of its items (.parquet); got {without_secrets(url) or 'none: set imagery.path, or --source-path'}"
        )


def _open_pair(region: Region, config: BuildConfig) -> SceneSource:
    """A source with a second one that is read where the first does not answer.

    A kept search of both is a table of both.
    """
    from sits_pipeline.sources.fallback import FallbackSource
    from sits_pipeline.sources.kept import fallback_of_table

    imagery = region.imagery
    second = str(imagery.fallback)
    _check_pair(imagery, second)
    path = None if imagery.path is None else region.resolve(imagery.path)
    first = _open_api(imagery.source, path, imagery.collection, imagery.assets, config)
    if path is not None and path.endswith(_TABLE) and fallback_of_table(path) == second:
        return FallbackSource(first, replace(_open_api(second, path, None, None, config), is_second=True))
    other = None if imagery.fallback_path is None else region.resolve(imagery.fallback_path)
    return FallbackSource(first, _open_api(second, other, None, None, config))


def _check_pair(imagery: Imagery, second: str) -> None:
    """Raises ValueError where a second provider could not stand in for the first."""
    if second == imagery.source:
        raise ValueError(f"imagery.fallback names {second}, which is the source itself; name another, or leave it out")
    if imagery.source not in (*PROVIDERS, "stac-api", "sentinel-hub") or second not in (*PROVIDERS, "sentinel-hub"):
        raise ValueError(
            f"imagery.fallback is one of {', '.join(PROVIDERS)} and stands in for another API; it cannot be {second} "
            f"for {imagery.source}"
        )
    rules = [_rule(imagery.source, imagery.collection), _rule(second, None)]
    if any(rule in _OWN_RULE for rule in rules):
        raise ValueError(
            f"imagery.fallback {second} does not hold the same DN as {imagery.source}: a fallback is for providers "
            "that both serve ESA's DN as they are, which earth-search's sentinel-2-l2a and sentinel-hub do not"
        )


def _rule(source: str, collection: str | None) -> str:
    if source != "earth-search":
        return source
    return f"{source}/{collection or PROVIDERS[source].collections[0]}"


def _cache_bytes(config: BuildConfig) -> int:
    return int(config.cache_gb * 1e9)


def _cache(config: BuildConfig) -> Path:
    return temporary_cache() if config.cache is None else config.cache.absolute()
