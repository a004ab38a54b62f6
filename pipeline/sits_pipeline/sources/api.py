"""Scenes that a STAC API lists, their pixels in files or Zarr arrays on the web."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Self

import shapely
from odc.geo.geobox import GeoBox

from sits_catalog.addresses import without_secrets
from sits_catalog.reach import Reach
from sits_catalog.region import Season
from sits_catalog.sentinel2 import BANDS
from sits_pipeline.sources.access import Cost, Gate, Limit, Open, Signed, Signer
from sits_pipeline.sources.base import CredentialsError, SearchResult
from sits_pipeline.sources.cache import open_cached
from sits_pipeline.sources.catalogue import resolve_remote
from sits_pipeline.sources.items import href_of, scene_from_item
from sits_pipeline.sources.oidc import OidcSigner
from sits_pipeline.sources.pixels import read_scenes, sample_any
from sits_pipeline.sources.providers import Provider
from sits_pipeline.sources.remote import Opener
from sits_pipeline.sources.s3 import S3Signer, has_s3_keys
from sits_pipeline.sources.sas import SasSigner
from sits_pipeline.sources.sift import Candidate, season_span, sift
from sits_pipeline.sources.web import Web
from sits_pipeline.values import AuditSample, JsonObject, Raster, Scene, shape_of

__all__ = ["ApiSource"]

_SOURCE_BLOCK = 512
_SCL_RESOLUTION_M = 20


@dataclass(frozen=True, kw_only=True)
class ApiSource:
    """A collection of a STAC API."""

    provider: Provider
    url: str = field(repr=False)
    """Root of the API, the provider's own or a mirror's, or a table of items (.parquet) that stands for its answers."""
    collection: str
    cache: Path
    """Folder for the bytes of remote files, shared by all workers of a host and made there where it is missing; a
    relative one lies in each host's own folder for temporary files."""
    cache_bytes: int = 20_000_000_000
    requests_a_minute: int = 0
    """At most, where the provider allows more; 0: what it allows."""
    gate: Gate = field(default_factory=Open)
    is_second: bool = False
    """Whether the items of a table that a second provider listed are meant, rather than those of the first."""

    @property
    def query(self) -> JsonObject:
        """Address and collection; the rest of a search is the area and the season."""
        asked = {"provider": self.provider.name, "collection": self.collection}
        return {**asked, "table" if self._is_table else "url": without_secrets(self.url)}

    @property
    def _is_table(self) -> bool:
        return self.url.endswith(".parquet")

    def find(self, area: shapely.Geometry, season: Season) -> list[JsonObject]:
        """The items that the API lists in the box of `area` (lon/lat), as they are; raises SourceError."""
        if self._is_table:
            from sits_pipeline.sources.kept import read_item_table

            return [item for item in read_item_table(self.url) if _is_of_second(item) == self.is_second]
        from sits_pipeline.sources.search import search_items

        start, end = (f"{instant:%Y-%m-%dT%H:%M:%SZ}" for instant in season_span(season))
        west, south, east, north = shapely.bounds(area)
        return search_items(
            self.url,
            Web(gate=self.gate, reach=self._reach),
            collection=self.collection,
            bbox=(max(west, -180.0), south, min(east, 180.0), north),
            span=f"{start}/{end}",
            page_size=self.provider.page_size,
        )

    def scenes_from(self, items: Sequence[JsonObject], area: shapely.Geometry, season: Season) -> SearchResult:
        """Scenes out of items, now or found earlier; nothing is asked of the service."""
        return sift([Candidate(item, "", partial(self._scene, item)) for item in items], area, season)

    def search(self, area: shapely.Geometry, season: Season) -> SearchResult:
        """Scenes that meet `area` (lon/lat) in `season` or within a day of it; raises SourceError."""
        return self.scenes_from(self.find(area, season), area, season)

    def sample(self, scene: Scene) -> AuditSample:
        """Pixels for the audit, thinned over the whole scene; raises OSError."""
        return sample_any(scene, opener=self._opener())

    def read(self, scenes: Sequence[Scene], geobox: GeoBox, bands: Sequence[str], *, pad: int) -> Iterator[Raster]:
        """A window a band around `geobox` of each scene; a band that cannot be read is a ReadFailure in the result."""
        return read_scenes(scenes, geobox, bands, pad=pad, opener=self._opener())

    @property
    def limits(self) -> tuple[Limit, ...]:
        """What the provider allows, or less where less was asked for."""
        limit = self.provider.limit
        known = [number for number in (limit.a_minute, self.requests_a_minute) if number]
        return (replace(limit, a_minute=min(known, default=0)),)

    def through(self, gates: Mapping[str, Gate]) -> Self:
        """The same source whose requests pass through these gates, by the limits' names."""
        return replace(self, gate=gates.get(self.provider.limit.name, self.gate))

    def cost(self, scenes: Sequence[Scene], geobox: GeoBox, bands: Sequence[str]) -> Cost:
        """Source blocks of 512 px of each band and of the classification, each as one request."""
        height, width = shape_of(geobox)
        resolutions = [BANDS[band].resolution_m for band in bands] + [_SCL_RESOLUTION_M]
        blocks = sum(_blocks(height * 10, resolution) * _blocks(width * 10, resolution) for resolution in resolutions)
        return Cost(requests=blocks * len(scenes))

    def sample_cost(self, scene: Scene) -> Cost:  # noqa: ARG002  # as the protocol has it
        """Nothing: reading is free."""
        return Cost()

    def __getstate__(self) -> dict[str, object]:
        """For workers, which read and never search: without the user and password that the API's root may hold."""
        return {**self.__dict__, "url": without_secrets(self.url)}

    def _scene(self, item: JsonObject) -> Scene:
        choose = _https_first if self.provider.signing == "cdse" and not has_s3_keys() else href_of
        resolve = partial(resolve_remote, item, stores=self.provider.signing == "cdse", reach=self._reach)
        scene = scene_from_item(item, resolve, provider=self.provider, choose=choose)
        if not self._is_table and scene.collection not in ("", self.collection):
            raise ValueError(f"of the collection {scene.collection[:100]}; {self.collection} was asked for")
        return scene

    @property
    def _reach(self) -> Reach:
        """How far what it lists may lead: to its own host, wherever that is, and to public ones."""
        return Reach.of(self.url)

    def _signer(self) -> Signer | None:
        if self.provider.signing == "sas":
            return _NamedSigner(SasSigner())
        return _NamedSigner(_CdseSigner()) if self.provider.signing == "cdse" else None

    def _opener(self) -> Opener:
        web = Web(gate=self.gate, signer=self._signer(), reach=self._reach)
        whole = self.provider.whole_files
        return partial(open_cached, folder=self.cache, max_bytes=self.cache_bytes, web=web, whole=whole)


def _is_of_second(item: JsonObject) -> bool:
    """Whether `fallback.py` marked an item as one of a second provider."""
    properties = item.get("properties")
    return isinstance(properties, dict) and properties.get("sits:fallback") is True


def _blocks(side_m: int, resolution_m: int) -> int:
    return -(-side_m // (resolution_m * _SOURCE_BLOCK))


@dataclass(frozen=True)
class _NamedSigner:
    """A signer whose own refusals are told from those of a file, which is one of many."""

    signer: Signer

    def sign(self, url: str) -> Signed:
        """The address to ask instead of `url`; raises CredentialsError where they are missing or refused."""
        try:
            return self.signer.sign(url)
        except PermissionError as error:
            raise CredentialsError(str(error)) from error

    def renew(self, url: str) -> None:
        """Forget what was signed for `url`."""
        self.signer.renew(url)


@dataclass(frozen=True)
class _CdseSigner:
    """S3 keys for s3:// addresses, a user's token for the provider's https ones."""

    store: S3Signer = field(default_factory=S3Signer)
    web: OidcSigner = field(default_factory=OidcSigner)

    def sign(self, url: str) -> Signed:
        """The address to ask instead of `url`; raises OSError where credentials are missing."""
        return self._of(url).sign(url)

    def renew(self, url: str) -> None:
        """Forget what was signed for `url`."""
        self._of(url).renew(url)

    def _of(self, url: str) -> Signer:
        return self.store if url.startswith("s3://") else self.web


def _https_first(asset: JsonObject) -> object:
    """The https address of an asset that has one beside its own."""
    alternate = asset.get("alternate")
    other = alternate.get("https") if isinstance(alternate, dict) else None
    return (other.get("href") if isinstance(other, dict) else None) or href_of(asset)
