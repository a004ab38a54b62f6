"""From a region to a plan: parcels read, scenes found and audited, everything decided, nothing written yet."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

import shapely

from sits_catalog.folding import Folding
from sits_catalog.loading import load_taxonomy
from sits_catalog.region import Region
from sits_catalog.sentinel2 import BANDS
from sits_catalog.taxonomy import Taxonomy
from sits_pipeline.area import region_area
from sits_pipeline.config import BuildConfig
from sits_pipeline.folder import CannotWrite, Folder
from sits_pipeline.journal import has_cells, plan_lines
from sits_pipeline.parcels import ParcelTable, content_sha256, known_area, read_parcels
from sits_pipeline.parcels.folding import fold_small_classes
from sits_pipeline.parcels.split_areas import read_split_areas
from sits_pipeline.plan import (
    Begun,
    Zone,
    ZonePlan,
    cell_side,
    deciding_sha256,
    sample_digest,
    what_decides,
    zones_of_region,
)
from sits_pipeline.sources import open_source
from sits_pipeline.sources.base import (
    CredentialsError,
    SceneSource,
    SearchResult,
    ServiceDown,
    ServiceSource,
    SourceError,
)
from sits_pipeline.sources.charges import check_audit
from sits_pipeline.sources.kept import kept_search
from sits_pipeline.splits import SplitAreas, SplitPlan, areas_sha256, plan_splits
from sits_pipeline.steps.audit import audit_offset
from sits_pipeline.steps.group import Grouping, group_scenes, why_too_old
from sits_pipeline.store import check_version, read_attributes
from sits_pipeline.values import JsonObject, Scene, Verdict

__all__ = ["Listener", "Prepared", "Zoned", "audit_of", "prepare", "read_begun"]

_AUDIT_THREADS = 8
_SEARCHES = "_searches"
"""Folder beside the datasets; no region's id begins with an underscore."""


class Listener(Protocol):
    """Hears how far a build is."""

    def stage(self, text: str) -> None:
        """A new stage begins."""

    def progress(self, done: int, total: int) -> None:
        """So many parts of the stage are done."""


@dataclass(frozen=True, kw_only=True)
class Zoned:
    """One dataset's plan with the inputs it was made from."""

    plan: ZonePlan
    table: ParcelTable | None
    known: shapely.Geometry | None
    found: SearchResult


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """All that a build needs: what `--plan` prints and `build` carries out."""

    region: Region
    out: Folder
    """Where the datasets are or are to be, each in a folder of its zone's name."""
    source: SceneSource
    taxonomy: Taxonomy | None
    """As the cubes have it: raised and folded."""
    zones: tuple[Zoned, ...]
    folding: Folding | None
    """Which classes became `other`; None: none did."""


def prepare(region: Region, config: BuildConfig, listener: Listener) -> Prepared:
    """Read parcels, search and audit scenes, and plan; nothing of the dataset is written but the answer of a service.

    Raises ValueError, OSError or SourceError with a sentence where the region cannot be built as it is.
    """
    area = region_area(region)
    zones = zones_of_region(region, area)
    for zone in zones:
        _check_place(Folder(config.out).sub(zone.name))
    _taxonomy(region)  # what is wrong with it is said before an archive is opened, or written
    listener.stage("opening the imagery")
    source, region = _open_source(region, zones, config, listener)
    listener.stage("reading parcels")
    taxonomy = _taxonomy(region)
    tables = _tables(region, taxonomy, area, zones)
    if taxonomy is None and tables[0] is not None:
        taxonomy = tables[0].taxonomy
    if config.chips == "parcel" and tables[0] is None:
        raise ValueError(f"--chips parcel needs parcels, and region {region.id} names none; add --parcels FILE")
    labelled = [(table.parcels, zone.geobox) for zone, table in zip(zones, tables, strict=True) if table is not None]
    names = {} if taxonomy is None else {item.index: item.name for item in taxonomy.classes}
    grids = [geobox for _, geobox in labelled]
    areas = _split_areas(region, zones)
    splits = None
    if labelled:
        splits = plan_splits([parcels for parcels, _ in labelled], grids, region.splits, names=names, areas=areas)
    tables, folding = _folded(region, zones, tables, splits, listener)
    taxonomy = taxonomy if folding is None else folding.taxonomy
    zoned = tuple(
        _zoned(region, zone, table, source, config, listener, splits=splits, taxonomy=taxonomy)
        for zone, table in zip(zones, tables, strict=True)
    )
    return Prepared(
        region=region, out=Folder(config.out), source=source, taxonomy=taxonomy, zones=zoned, folding=folding
    )


def read_begun(folder: Folder, attributes: JsonObject) -> Begun:
    """What the dataset in a folder was begun from; `attributes` is its `sits_cube`."""
    return Begun.of(str(attributes.get("config_sha256")), plan_lines(folder))


def _zoned(
    region: Region,
    zone: Zone,
    table: ParcelTable | None,
    source: SceneSource,
    config: BuildConfig,
    listener: Listener,
    *,
    splits: SplitPlan | None,
    taxonomy: Taxonomy | None,
) -> Zoned:
    """The plan of one zone."""
    found, grouping = _acquisitions(region, zone, source, config, listener)
    known = _known(region, zone, table)
    deciding = what_decides(
        region,
        zone,
        grouping.acquisitions,
        parcels_sha256=None if table is None else content_sha256([table]),
        taxonomy_sha256=None if taxonomy is None else _digest(taxonomy),
        known=known,
        areas_sha256=areas_sha256(splits.areas) if splits is not None and splits.areas else None,
    )
    plan = ZonePlan(
        zone=zone,
        bands=region.imagery.bands,
        acquisitions=grouping.acquisitions,
        refusals=grouping.refusals,
        splits=splits,
        cell_px=_cell_px(config, zone, len(grouping.acquisitions), len(region.imagery.bands)),
        config_sha256=deciding_sha256(deciding),
        deciding=deciding,
    )
    return Zoned(plan=plan, table=table, known=known, found=found)


def _split_areas(region: Region, zones: Sequence[Zone]) -> tuple[SplitAreas, ...]:
    """The polygons that decide splits, one entry a zone; empty where blocks do."""
    if region.splits.file is None:
        return ()
    return read_split_areas(region.resolve(region.splits.file), [zone.geobox for zone in zones])


def _check_place(folder: Folder) -> None:
    """Raises where something that is no dataset of ours stands where one is to be written, before any work is done."""
    if folder.is_local:
        for path in (folder.path, *folder.path.parents):
            if path.exists() and not path.is_dir():
                raise NotADirectoryError(
                    f"{path} is a file, and the dataset is to be a folder there; choose another --out"
                )
    attributes = read_attributes(folder)
    if attributes is not None:
        check_version(folder, attributes)


def _open_source(
    region: Region, zones: Sequence[Zone], config: BuildConfig, listener: Listener
) -> tuple[SceneSource, Region]:
    """The source; a simulated one is written first, by one process at a time."""
    archive = _archive_folder(region, config)
    writes = region.imagery.source == "simulated"
    with Folder(config.out).lock(region.id) if writes else nullcontext():
        return open_source(region, zones, archive, config, listener.progress)


def _archive_folder(region: Region, config: BuildConfig) -> Path:
    """Where a simulated archive is written: beside the datasets, or in the cache for a dataset that is not local."""
    out = Folder(config.out)
    if out.is_local:
        # No region's id begins with an underscore, so that no dataset has this name.
        return out.path / "_archives" / region.id
    return (config.cache or Path(tempfile.gettempdir())) / f"sits-archive-{region.id}"


def _tables(
    region: Region, taxonomy: Taxonomy | None, area: shapely.Geometry, zones: Sequence[Zone]
) -> tuple[ParcelTable | None, ...]:
    if region.parcels is None:
        return (None,) * len(zones)
    path = region.resolve(region.parcels.fetched_path())
    return read_parcels(region.parcels, path, taxonomy, area=area, extents=[zone.geobox for zone in zones])


def _taxonomy(region: Region) -> Taxonomy | None:
    """The region's taxonomy, raised as its label rule says."""
    if region.taxonomy is not None:
        return load_taxonomy(region.taxonomy, region.folder, classes_at=region.labels.classes_at)
    if region.labels.classes_at is not None:
        raise ValueError(
            f"labels.classes_at ({region.labels.classes_at}) raises the classes of a taxonomy, and region {region.id} "
            "names none; add one under `taxonomy`, such as hcat3"
        )
    return None


def _folded(
    region: Region,
    zones: Sequence[Zone],
    tables: Sequence[ParcelTable | None],
    splits: SplitPlan | None,
    listener: Listener,
) -> tuple[tuple[ParcelTable | None, ...], Folding | None]:
    """The tables with the classes folded that are too small for the label rule."""
    there = [table for table in tables if table is not None]
    if region.parcels is None or splits is None or len(there) < len(tables):
        return tuple(tables), None
    folded, folding = fold_small_classes(
        there,
        [zone.geobox for zone in zones],
        splits,
        {name: pixels for name, pixels in region.labels.min_pixels.items() if pixels},
        has_names=region.parcels.name is not None,
    )
    if folding is not None:
        listener.stage(f"folding {len(folding.classes)} classes with few pixels into {folding.into.code!r}")
    return folded, folding


def _digest(taxonomy: Taxonomy) -> str:
    """SHA-256 over the classes and codes of a taxonomy."""
    classes = [[c.index, c.code, c.name, c.hcat, c.colour] for c in taxonomy.classes]
    content = {"classes": classes, "codes": dict(taxonomy.codes), "ignore": sorted(taxonomy.ignore)}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _known(region: Region, zone: Zone, table: ParcelTable | None) -> shapely.Geometry | None:
    if region.parcels is None or table is None:
        return None
    labelled = region.parcels.labelled_area
    path = None if labelled in ("region", "parcels") else region.resolve(labelled)
    return known_area(labelled, path=path, region=zone.area, epsg=zone.epsg)


def _acquisitions(
    region: Region, zone: Zone, source: SceneSource, config: BuildConfig, listener: Listener
) -> tuple[SearchResult, Grouping]:
    """Search, audit and group the scenes of one zone."""
    listener.stage(f"searching scenes of {zone.name}")
    found = _search(region, zone, source, config, listener)
    oldest = region.imagery.min_baseline
    own = [scene for scene in found.scenes if scene.epsg == zone.epsg and not why_too_old(scene, oldest)]
    _check_bands(own, region.imagery.bands)
    verdicts = {scene.id: _without_bands(scene, lacking) for scene, lacking in _lacking(own, region.imagery.bands)}
    own = [scene for scene in own if scene.id not in verdicts]
    check_audit(source, own, config.max_pu)
    verdicts |= _audited(source, own, listener)
    grouping = group_scenes(
        found.scenes,
        verdicts,
        epsg=zone.epsg,
        season=region.season,
        max_cloud=region.imagery.max_cloud,
        area=zone.extent,
        min_baseline=oldest,
    )
    if not grouping.acquisitions:
        raise ValueError(_no_scenes(region, zone, found, grouping))
    return found, grouping


def _search(region: Region, zone: Zone, source: SceneSource, config: BuildConfig, listener: Listener) -> SearchResult:
    """What the source holds; the answer of a service is kept beside the datasets and asked for once."""
    if not isinstance(source, ServiceSource):
        return source.search(zone.extent, region.season)
    folder = Folder(config.out).sub(_SEARCHES)
    found, sentence = kept_search(
        source, zone.extent, region.season, folder=folder, name=zone.name, again=config.search_again
    )
    listener.stage(sentence)
    return found


def _check_bands(scenes: Sequence[Scene], bands: Sequence[str]) -> None:
    """Raises ValueError for a band that no scene has: there is nothing to wait for, as there is where one lacks it."""
    offered = [name for name in BANDS if any(_offers(scene, name) for scene in scenes)]
    if scenes and not set(bands) <= set(offered):
        raise ValueError(
            f"the source has bands {', '.join(offered) or 'none'}, the region asks for "
            f"{', '.join(name for name in bands if name not in offered)}: name imagery.bands"
        )


def _offers(scene: Scene, band: str) -> bool:
    """Whether a scene has an asset for a band and, where that is a local file, the file is there."""
    address = scene.assets.get(band)
    return address is not None and ("://" in address or Path(address).exists())


def _lacking(scenes: Sequence[Scene], bands: Sequence[str]) -> Iterator[tuple[Scene, list[str]]]:
    """Scenes without an asset for some of the bands, and those bands; a file that is missing is a failed read."""
    for scene in scenes:
        lacking = [name for name in bands if name not in scene.assets]
        if lacking:
            yield scene, lacking


def _without_bands(scene: Scene, lacking: Sequence[str]) -> Verdict:
    """The verdict on a scene whose pixels need not be looked at."""
    return Verdict(
        declared=scene.declared_offset,
        audited=None,
        applied=None,
        medians={},
        n_pixels=0,
        refused=True,
        reason=f"it has no asset for {', '.join(lacking)}, which other items have",
    )


def _audited(source: SceneSource, scenes: Sequence[Scene], listener: Listener) -> dict[str, Verdict]:
    """Verdicts by the scenes' ids; what a network did not bring is asked for once more when all others are known.

    Raises SourceError where nothing can be read for want of credentials, before a cube without a pixel is built: their
    signer says so, or the servers let not one of the scenes be read. One file that is refused is that file's failure.
    """
    listener.stage(f"auditing the BOA offset of {len(scenes)} scenes")
    verdicts: dict[str, Verdict] = {}
    refused: list[PermissionError] = []
    with ThreadPoolExecutor(_AUDIT_THREADS) as pool:
        try:
            for scene, (verdict, error) in zip(scenes, pool.map(partial(audit_of, source), scenes), strict=True):
                verdicts[scene.id] = verdict
                refused += [error] if isinstance(error, PermissionError) else []
                listener.progress(len(verdicts), len(scenes))
            unread = [scene for scene in scenes if verdicts[scene.id].applied is None]
            if len(refused) < len(scenes):
                again = pool.map(partial(audit_of, source), unread)
                verdicts |= {scene.id: verdict for scene, (verdict, _) in zip(unread, again, strict=True)}
        except CredentialsError as error:
            # Each further try would be one more with a wrong password.
            pool.shutdown(cancel_futures=True)
            raise SourceError(str(error)) from error
    if refused and len(refused) == len(scenes):
        raise SourceError(f"not one of the {len(scenes)} scenes may be read: {refused[0]}")
    return verdicts


def audit_of(source: SceneSource, scene: Scene) -> tuple[Verdict, OSError | None]:
    """The verdict on a scene, and why its sample could not be read where it could not."""
    try:
        sample = source.sample(scene)
        return replace(audit_offset(scene, sample), sample=sample_digest(sample)), None
    except (ServiceDown, CannotWrite, CredentialsError):
        raise
    except OSError as error:
        verdict = audit_offset(scene, None)
        return replace(verdict, reason=f"{verdict.reason} ({error})"), error


def _no_scenes(region: Region, zone: Zone, found: SearchResult, grouping: Grouping) -> str:
    west, south, east, north = shapely.bounds(zone.extent)
    where = f"{west:.3f},{south:.3f},{east:.3f},{north:.3f} between {region.season.start} and {region.season.end}"
    if not found.scenes and not found.unusable:
        return f"the source {region.imagery.source} has no scene over {where}; check the season, the place and the path"
    reasons = sorted({f"{refusal.status}: {refusal.reason}" for refusal in grouping.refusals})
    reasons += sorted({item.reason for item in found.unusable})
    return (
        f"none of the {len(found.scenes) + len(found.unusable)} scenes found over {where} can be used in "
        f"EPSG:{zone.epsg} ({'; '.join(reasons[:3])}); check place.crs, the season and max_cloud"
    )


def _cell_px(config: BuildConfig, zone: Zone, n_dates: int, n_bands: int) -> int:
    """Side of a cell: what an earlier run of this dataset chose, else what the configuration asks for."""
    side = cell_side(n_dates, n_bands, config.cell_px)
    folder = Folder(config.out).sub(zone.name)
    earlier = read_attributes(folder)
    begun = side if earlier is None else int(earlier.get("cells", {}).get("side", side))
    if config.cell_px and begun != side:
        if not has_cells(folder):
            return side
        raise ValueError(
            f"{config.out}/{zone.name} was begun with cells of {begun} px, now {side} px are asked for; "
            f"leave --cell out to go on, or choose another --out"
        )
    return begun
