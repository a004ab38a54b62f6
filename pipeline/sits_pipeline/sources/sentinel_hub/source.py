"""Sentinel Hub as a source: scenes from its Catalog, pixels from its Process API, one request an orbit pass and box.

The plan stays on the level of tiles, so that audit, order, lineage and `source_index` are those of any other source.
The service merges the tiles of a pass in our order and says which one each pixel came from. Level-1C, Batch Processing
and grids other than 10 m UTM are out of scope.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
import shapely
from odc.geo.geobox import GeoBox

from sits_catalog.region import Imagery, Season
from sits_catalog.sentinel2 import Scl
from sits_pipeline.config import BuildConfig
from sits_pipeline.plan.lattice import project
from sits_pipeline.sources.access import Cost, Gate, Limit, Open
from sits_pipeline.sources.base import SearchResult, ServiceDown, SourceError
from sits_pipeline.sources.sentinel_hub.catalog import COLLECTION, PROVIDER, find_items, planned_tile, scene_of
from sits_pipeline.sources.sentinel_hub.deployment import PATIENCE, Deployment, Patience, resolve_deployment
from sits_pipeline.sources.sentinel_hub.evalscript import orbit_evalscript, tile_evalscript
from sits_pipeline.sources.sentinel_hub.keep import Keep
from sits_pipeline.sources.sentinel_hub.passes import Pass, clearly_meets, max_cloud, meets, passes_of
from sits_pipeline.sources.sentinel_hub.process import (
    Box,
    Images,
    boxes_of,
    parse_answer,
    process_request,
    processing_units,
    units_charged,
)
from sits_pipeline.sources.sift import Candidate, sift
from sits_pipeline.steps.audit import MIN_PIXELS
from sits_pipeline.values import AuditSample, JsonObject, Raster, ReadFailure, Scene, epsg_of, shape_of

if TYPE_CHECKING:
    from sentinelhub.download.models import DownloadResponse

    from sits_pipeline.sources.sentinel_hub.client import ServiceClient

__all__ = ["MERGED", "SentinelHubSource", "open_sentinel_hub"]

MERGED = "merged by the service"
"""What lineage says of pixels whose tile only the service knows."""

_SAMPLE_SIDE = 75
_SAMPLES = (("B02", "B04"), ("B02", "B04", "B8A", "B11"))
"""Bands of the sample for the audit, and of the one where there is too little vegetation."""
_COARSEST_M = 1500
"""Pixels of Sentinel-2 that the service serves at most."""


@dataclass(frozen=True, kw_only=True)
class SentinelHubSource:
    """Scenes of one deployment. Picklable; credentials stay in the environment of whoever asks."""

    deployment: Deployment
    mosaicking: Literal["tile", "orbit"] = "tile"
    gate: Gate = field(default_factory=Open)
    cache: Path | None = None
    """Folder for answers, so that none is paid for twice; None: none is kept."""
    cache_bytes: int = 20_000_000_000
    patience: Patience = PATIENCE

    # Search

    @property
    def query(self) -> JsonObject:
        """All that decides what `find` returns for an area and a season."""
        return {"provider": PROVIDER, "api": self.deployment.service_url, "collection": COLLECTION}

    def find(self, area: shapely.Geometry, season: Season) -> list[JsonObject]:
        """The Catalog's items, as they are; raises SourceError."""
        try:
            return find_items(self._client(), area, season)
        except ConnectionError:
            raise
        except OSError as error:
            raise SourceError(str(error)) from None

    def scenes_from(self, items: Sequence[JsonObject], area: shapely.Geometry, season: Season) -> SearchResult:
        """Scenes out of items of the Catalog; nothing is asked of the service."""
        return sift((Candidate(item=item, place="", scene=partial(scene_of, item)) for item in items), area, season)

    def search(self, area: shapely.Geometry, season: Season) -> SearchResult:
        """Scenes that meet `area` (lon/lat) in `season` or within a day of it; raises SourceError."""
        return self.scenes_from(self.find(area, season), area, season)

    # Limits and cost

    @property
    def limits(self) -> tuple[Limit, ...]:
        """What the deployment allows all workers together."""
        return (self.deployment.limit,)

    def through(self, gates: Mapping[str, Gate]) -> Self:
        """The same source whose requests pass through the gate of its deployment."""
        return replace(self, gate=gates.get(self.deployment.limit.name, self.gate))

    def cost(self, scenes: Sequence[Scene], geobox: GeoBox, bands: Sequence[str]) -> Cost:
        """One request a pass and box. In mode `tile` each tile that meets a box is a sample of each of its pixels."""
        total = Cost()
        for group in passes_of(_of_zone(scenes, geobox)):
            for box in boxes_of(geobox):
                meeting = sum(meets(scene, box) for scene in group)
                n_samples = max(1, meeting) if self.mosaicking == "tile" else 1
                units = processing_units(box.size, n_bands=len(bands) + 1, n_samples=n_samples)
                total += Cost(requests=1, processing_units=units)
        return total

    def sample_cost(self, scene: Scene) -> Cost:
        """Two requests, of which the second is sent only where there is too little vegetation."""
        _, _, size = _thinned(scene)
        units = sum(processing_units(size, n_bands=len(bands) + 1, n_samples=1) for bands in _SAMPLES)
        return Cost(requests=len(_SAMPLES), processing_units=units)

    # Pixels

    def sample(self, scene: Scene) -> AuditSample:
        """DN and SCL of the whole tile, some 75 x 75 pixels, for about 0.02 processing units; raises OSError.

        B8A and B11 are asked for only where there is too little vegetation.
        """
        try:
            sample = self._sample(scene, _SAMPLES[0])
            assert sample.scl is not None
            if np.count_nonzero(sample.scl == Scl.VEGETATION) >= MIN_PIXELS:
                return sample
            return self._sample(scene, _SAMPLES[1])
        except OSError as error:
            raise type(error)(f"{scene.id}: no sample for the audit: {error}") from None

    def read(self, scenes: Sequence[Scene], geobox: GeoBox, bands: Sequence[str], *, pad: int) -> Iterator[Raster]:
        """One raster a scene, each pixel in that of the scene it was taken from; a pass is read with its first scene.

        Windows lie on the geobox itself. An observed pixel is never 0. Raises ServiceDown.
        """
        if pad:
            raise ValueError("Sentinel Hub resamples to 10 m itself: windows have no pixels around them (pad 0)")
        groups = passes_of(_of_zone(scenes, geobox))
        pass_of = {scene.id: number for number, group in enumerate(groups) for scene in group}
        read: dict[int, Pass] = {}
        for scene in scenes:
            number = pass_of.get(scene.id)
            if number is None:
                error = f"its CRS is EPSG:{scene.epsg}, the cube's is EPSG:{epsg_of(geobox)}"
                yield Raster(bands={}, failures=(ReadFailure(item=scene.id, band="*", error=error),))
                continue
            is_first = number not in read
            if is_first:
                read[number] = self._read_pass(groups[number], geobox, bands)
            yield read[number].raster(scene, bands, with_units=is_first)

    def _read_pass(self, group: Sequence[Scene], geobox: GeoBox, bands: Sequence[str]) -> Pass:
        """All boxes of a pass; where one fails its scenes are unread."""
        found = Pass(
            scenes=tuple(group),
            dn=np.zeros((len(bands), *shape_of(geobox)), np.uint16),
            scl=np.zeros(shape_of(geobox), np.uint8),
            tile=np.zeros(shape_of(geobox), np.uint8),
            note=MERGED if self.mosaicking == "orbit" else "",
        )
        for box in boxes_of(geobox):
            try:
                images = self._images(
                    group, box.epsg, box.bounds, box.size, bands, is_whole=partial(self._has_all, group, box)
                )
            except ServiceDown:
                raise
            except OSError as error:
                found.errors |= {scene.id: str(error) for scene in group}
                break
            found.take(images, box)
            found.errors |= self._missing(group, images, box)
        return found

    def _has_all(self, group: Sequence[Scene], box: Box, images: Images) -> bool:
        return not self._missing(group, images, box)

    def _missing(self, group: Sequence[Scene], images: Images, box: Box) -> dict[str, str]:
        """Scenes that clearly meet the box but that the service did not have: unread, and never nodata."""
        if self.mosaicking == "orbit":
            # The service need not list a tile that lies wholly below another one.
            missing = [] if images.n_offered else [scene for scene in group if clearly_meets(scene, box)]
        else:
            missing = [
                scene for rank, scene in enumerate(group) if rank not in images.offered and clearly_meets(scene, box)
            ]
        reason = (
            f"{self.deployment.host} did not offer it for a box that it covers "
            f"({images.n_offered} tiles were offered); search again or try later"
        )
        return {scene.id: reason for scene in missing}

    def _sample(self, scene: Scene, bands: Sequence[str]) -> AuditSample:
        (west, north), pixel, size = _thinned(scene)
        bounds = (float(west), float(north - size[1] * pixel), float(west + size[0] * pixel), float(north))
        single = replace(self, mosaicking="tile")
        images = single._images((scene,), scene.epsg, bounds, size, bands, is_whole=lambda images: 0 in images.offered)
        if 0 not in images.offered:
            raise OSError(f"{self.deployment.host} did not offer it; search again or try later")
        observed = images.tile != 0
        dn = np.where(observed, np.maximum(images.dn, 1), 0).astype(np.uint16)
        return AuditSample(
            dn={band: values.ravel() for band, values in zip(bands, dn, strict=True)},
            scl=np.where(observed, images.scl, 0).astype(np.uint8).ravel(),
        )

    def _images(
        self,
        group: Sequence[Scene],
        epsg: int,
        bounds: tuple[float, float, float, float],
        size: tuple[int, int],
        bands: Sequence[str],
        *,
        is_whole: Callable[[Images], bool],
    ) -> Images:
        """The answer to one request, kept or fresh; a fresh one is kept where it is whole. Raises OSError."""
        client = self._client()
        write = tile_evalscript if self.mosaicking == "tile" else orbit_evalscript
        request = process_request(
            client.config,
            bounds=bounds,
            epsg=epsg,
            size=size,
            sensed=[scene.sensed for scene in group],
            evalscript=write([planned_tile(scene) for scene in group], bands),
            max_cloud=max_cloud(group) if self.mosaicking == "orbit" else 100,
        ).download_list[0]
        parse = partial(parse_answer, size=size, n_bands=len(bands))
        keep = None if self.cache is None else Keep(self.cache, self.cache_bytes)
        name = f"{request.url} {request.get_hashed_name()}"
        if keep is not None and (kept := keep.get(name)) is not None:
            try:
                return parse(kept, charged=0.0)
            except ValueError:
                keep.drop(name)
        n_samples = len(group) if self.mosaicking == "tile" else 1
        estimate = processing_units(size, n_bands=len(bands) + 1, n_samples=n_samples)

        def read(answer: DownloadResponse) -> tuple[bytes, Images]:
            return answer.content, parse(answer.content, charged=units_charged(answer.headers, estimate))

        content, images = client.ask(request, read)
        if keep is not None and is_whole(images):
            keep.put(name, content)
        return images

    def _client(self) -> ServiceClient:
        from sits_pipeline.sources.sentinel_hub.client import ServiceClient

        return ServiceClient(self.deployment, self.gate, self.patience)


def open_sentinel_hub(imagery: Imagery, config: BuildConfig, *, cache: Path | None = None) -> SentinelHubSource:
    """The source that a region's imagery names; nothing is asked of the service. Raises SourceError.

    `cache`: folder for answers, a relative one among each host's temporary files; None: none is kept.
    """
    if imagery.resampling != "nearest":
        raise SourceError(
            "Sentinel Hub brings 20 m bands to 10 m itself, by repeating them: resampling "
            f"{imagery.resampling} is not offered with this source; set imagery.resampling to nearest"
        )
    if imagery.collection not in (None, COLLECTION):
        raise SourceError(f"of Sentinel Hub the collection {COLLECTION} is read; got {imagery.collection!r}")
    return SentinelHubSource(
        deployment=resolve_deployment(imagery.deployment, imagery.path, requests_a_minute=config.requests_a_minute),
        mosaicking=imagery.mosaicking,
        cache=cache,
        cache_bytes=int(config.cache_gb * 1e9),
    )


def _thinned(scene: Scene) -> tuple[tuple[int, int], int, tuple[int, int]]:
    """West and north of a scene's sample, the side of its pixels in metres, and how many there are."""
    west, south, east, north = shapely.bounds(project(scene.footprint, scene.epsg))
    pixel = min(_COARSEST_M, max(10, 10 * math.ceil(max(east - west, north - south) / _SAMPLE_SIDE / 10)))
    west, north = math.floor(west / 10) * 10, math.ceil(north / 10) * 10
    return (west, north), pixel, (math.ceil((east - west) / pixel), math.ceil((north - south) / pixel))


def _of_zone(scenes: Sequence[Scene], geobox: GeoBox) -> list[Scene]:
    return [scene for scene in scenes if scene.epsg == epsg_of(geobox)]
