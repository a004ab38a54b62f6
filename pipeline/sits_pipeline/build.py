"""Carry out a plan: an empty cube, then its cells on a cluster, then the finish; taken up where it was interrupted.

Wiring: decisions are made in the plan, effects in `cell` and `finish`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version

import shapely

from sits_catalog.cube import VERSION
from sits_catalog.region import Region
from sits_pipeline.cell import CellTask, Day, Visit, build_cell
from sits_pipeline.cluster import open_cluster
from sits_pipeline.config import BuildConfig
from sits_pipeline.finish import Outcome, finish
from sits_pipeline.folder import Folder
from sits_pipeline.journal import MERGED, Journal, read_journal, segments
from sits_pipeline.parcels import select_near
from sits_pipeline.plan import ZonePlan, cell_bytes
from sits_pipeline.plan.lattice import project
from sits_pipeline.prepare import Listener, Prepared, Zoned
from sits_pipeline.steps.chips import ChipFrame, place_chips, select_chips
from sits_pipeline.store import CUBE, CubeLayout, create_cube, read_attributes
from sits_pipeline.values import JsonObject, Scene, Verdict

__all__ = ["build"]

_FOOTPRINT_MARGIN_M = 1000.0
"""Footprints are drawn loosely; a scene is asked for its pixels this far outside of its own."""


def build(prepared: Prepared, config: BuildConfig, listener: Listener) -> tuple[Outcome, ...]:
    """Write, or take up, each dataset of a plan; a cell whose sources could not be read leaves it incomplete.

    Raises BlockingIOError where another process writes the same datasets, ValueError where others are in their place.
    """
    with Folder(config.out).lock(prepared.region.id):
        return tuple(_build_zone(prepared, zoned, config, listener) for zoned in prepared.zones)


def _build_zone(prepared: Prepared, zoned: Zoned, config: BuildConfig, listener: Listener) -> Outcome:
    plan = zoned.plan
    folder = Folder(config.out).sub(plan.zone.name)
    _open_dataset(folder, prepared, zoned, config)
    entries = _entries(folder)
    done = {key for key, entry in entries.items() if _is_done(folder, entry)}
    if len(done) == plan.n_cells and _is_finished(folder):
        return Outcome.of(plan, folder, entries, zoned.table, built=0)
    listener.stage(f"building {plan.n_cells - len(done)} of {plan.n_cells} cells of {plan.zone.name}")
    listener.progress(len(done), plan.n_cells)
    journal, built = Journal(folder), 0
    _begin(journal, plan, config)
    n_bytes = cell_bytes(len(plan.acquisitions), len(plan.bands), plan.cell_px)
    missing = plan.n_cells - len(done)
    if missing:
        with open_cluster(config, cell_bytes=n_bytes, n_cells=missing) as cluster:
            tasks = _tasks(prepared, zoned, config, folder, done, cluster.threads_a_cell)
            for entry in cluster.run(build_cell, tasks, retries=config.retries):
                journal.append(entry)
                entries[tuple(entry["cell"])] = entry
                built += 1
                listener.progress(len(done) + built, plan.n_cells)
    # A worker that died in mid-write, and whose cell another one has done, leaves its half behind.
    folder.remove_partials()
    listener.stage(f"finishing {plan.zone.name}")
    return finish(
        folder,
        journal,
        entries,
        plan=plan,
        region=prepared.region,
        table=zoned.table,
        taxonomy=prepared.taxonomy,
        unusable=zoned.found.unusable,
        built=built,
    )


def _open_dataset(folder: Folder, prepared: Prepared, zoned: Zoned, config: BuildConfig) -> None:
    """Create an empty cube, or check that the one that is there is ours."""
    attributes = read_attributes(folder)
    if attributes is not None:
        _check_same(folder, attributes, zoned.plan)
        _check_chips(folder, config)
        folder.remove_partials()
        return
    folder.remove_partials()
    for name in [MERGED, *segments(folder), *folder.files(CUBE)]:
        # What is left of a cube that was removed, or of a creation that was cut short; it says so until the last.
        if name != f"{CUBE}/zarr.json":
            folder.remove(name)
    create_cube(folder, _layout(prepared, zoned))


def _begin(journal: Journal, plan: ZonePlan, config: BuildConfig) -> None:
    """The line that every run begins its segment with: from here on, and until it is merged, the build is under way."""
    journal.append(
        {
            "kind": "plan",
            "config_sha256": plan.config_sha256,
            "cell_px": plan.cell_px,
            "chips": config.chips,
            "cells": plan.n_cells,
        }
    )
    journal.flush()


def _check_chips(folder: Folder, config: BuildConfig) -> None:
    """Chips are counted cell by cell, so that all cells must be built for the same ones."""
    begun = next((entry["chips"] for entry in read_journal(folder) if entry["kind"] == "plan"), config.chips)
    if begun != config.chips:
        raise ValueError(f"{folder.location} was begun with --chips {begun}; go on with that, or choose another --out")


def _check_same(folder: Folder, attributes: JsonObject, plan: ZonePlan) -> None:
    if attributes.get("version") != VERSION:
        raise ValueError(
            f"{folder.location} was written as sits-cube {attributes.get('version')}, this program writes {VERSION}; "
            "choose another --out"
        )
    if attributes.get("config_sha256") != plan.config_sha256:
        there = str(attributes.get("config_sha256"))
        raise ValueError(
            f"{folder.location} holds another cube (config_sha256 {there[:12]}, this build has "
            f"{plan.config_sha256[:12]}): region, season, items, parcels or rules differ; choose another --out, "
            "or remove that folder"
        )


def _layout(prepared: Prepared, zoned: Zoned) -> CubeLayout:
    plan, region = zoned.plan, prepared.region
    classes = () if prepared.taxonomy is None else prepared.taxonomy.classes
    return CubeLayout(
        geobox=plan.zone.geobox,
        bands=plan.bands,
        days=tuple(acquisition.day for acquisition in plan.acquisitions),
        sensing_times=tuple(acquisition.sensing_time for acquisition in plan.acquisitions),
        has_labels=zoned.table is not None,
        finer=region.labels.finer,
        classes=tuple(
            {"index": c.index, "code": c.code, "name": c.name, "hcat": c.hcat, "colour": c.colour} for c in classes
        ),
        attributes=_attributes(region, plan),
    )


def _attributes(region: Region, plan: ZonePlan) -> JsonObject:
    """The root attribute `sits_cube` of an empty cube."""
    baselines = {scene.baseline for acquisition in plan.acquisitions for scene in acquisition.scenes}
    height, width = plan.zone.geobox.shape
    return {
        "version": VERSION,
        "profile": "region",
        "region": region.id,
        "season": {"start": region.season.start.isoformat(), "end": region.season.end.isoformat()},
        "radiometry": {
            "level": "L2A",
            "scale": 0.0001,
            "offset_removed": True,
            "clamp": 1,
            "baselines": sorted(baselines),
        },
        "simulated": region.imagery.source == "simulated",
        "created": _now().isoformat().replace("+00:00", "Z"),
        "software": f"sits-cubes {version('sits-cubes')}",
        "complete": False,
        "config_sha256": plan.config_sha256,
        "cells": {
            "side": plan.cell_px,
            "rows": -(-height // plan.cell_px),
            "columns": -(-width // plan.cell_px),
            "count": plan.n_cells,
        },
        "statistics": None,
    }


def _now() -> datetime:
    """The time, or SOURCE_DATE_EPOCH where builds are to be reproducible."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    return datetime.fromtimestamp(int(epoch), UTC) if epoch else datetime.now(UTC).replace(microsecond=0)


def _entries(folder: Folder) -> dict[tuple[int, ...], JsonObject]:
    """The journal's cells; a later line of a cell replaces an earlier one."""
    return {tuple(entry["cell"]): entry for entry in read_journal(folder) if entry["kind"] == "cell"}


def _is_done(folder: Folder, entry: JsonObject) -> bool:
    """Whether a cell needs no further work: nothing unread, and its shards are there at their size."""
    return not entry["failures"] and all(
        folder.size(f"{CUBE}/{key}") == size for key, (size, _) in entry["shards"].items()
    )


def _is_finished(folder: Folder) -> bool:
    """Whether an earlier run has ended, and its tables are still there at their size."""
    attributes = read_attributes(folder)
    if attributes is None or not attributes["complete"] or segments(folder):
        return False
    listed = next((entry["files"] for entry in read_journal(folder) if entry["kind"] == "files"), None)
    return listed is not None and all(
        folder.size(name) == size for name, (size, _) in listed.items() if not name.startswith(f"{CUBE}/")
    )


def _tasks(
    prepared: Prepared,
    zoned: Zoned,
    config: BuildConfig,
    folder: Folder,
    done: set[tuple[int, ...]],
    threads: int,
) -> Iterator[CellTask]:
    """The cells that are still to be computed, each with its own scenes, parcels and chips."""
    plan, region, table = zoned.plan, prepared.region, zoned.table
    tree = None if table is None else shapely.STRtree(table.parcels.geometry)
    chips = _parcel_chips(zoned) if config.chips == "parcel" else ()
    visits = _Visits(plan)
    for window in plan.cells():
        if (window.row, window.column, window.height, window.width) in done:
            continue
        geobox = plan.zone.geobox[window.rows, window.columns]
        near = None if table is None or tree is None else select_near(table.parcels, tree, geobox)
        yield CellTask(
            folder=folder,
            window=window,
            geobox=geobox,
            clip_to_strip=plan.zone.clip_to_strip,
            source=prepared.source,
            days=visits.of(geobox.boundingbox.bbox),
            bands=plan.bands,
            resampling=region.imagery.resampling,
            parcels=near,
            known=zoned.known,
            rule=region.labels,
            splits=None if plan.splits is None or near is None else plan.splits.only(near),
            chips=select_chips(chips, window),
            threads=threads,
        )


def _parcel_chips(zoned: Zoned) -> tuple[ChipFrame, ...]:
    assert zoned.table is not None
    zone, splits = zoned.plan.zone, zoned.plan.splits
    split_of = None if splits is None else splits.grid(zone.epsg).split_of
    return place_chips(zoned.table.parcels, zone.geobox, split_of=split_of)


def _visit(position: int, scene: Scene, verdict: Verdict) -> Visit:
    """What a cell needs to know of a scene; its item stays here."""
    return Visit(source_index=position, scene=replace(scene, item={}), offset=verdict.applied, reason=verdict.reason)


class _Visits:
    """Finds the scenes near a cell, day by day."""

    def __init__(self, plan: ZonePlan) -> None:
        self._all = [
            (index, _visit(position, scene, verdict))
            for index, acquisition in enumerate(plan.acquisitions)
            for position, (scene, verdict) in enumerate(zip(acquisition.scenes, acquisition.verdicts, strict=True))
        ]
        footprints = [project(visit.scene.footprint, plan.zone.epsg) for _, visit in self._all]
        self._tree = shapely.STRtree(shapely.buffer(footprints, _FOOTPRINT_MARGIN_M))
        self._days = [acquisition.day for acquisition in plan.acquisitions]

    def of(self, bounds: tuple[float, float, float, float]) -> tuple[Day, ...]:
        """All days, each with the scenes that may cover `bounds`, in their order."""
        visits: Mapping[int, list[Visit]] = {index: [] for index in range(len(self._days))}
        for number in sorted(self._tree.query(shapely.box(*bounds), predicate="intersects")):
            index, visit = self._all[number]
            visits[index].append(visit)
        return tuple(Day(day=day, visits=tuple(visits[index])) for index, day in enumerate(self._days))
