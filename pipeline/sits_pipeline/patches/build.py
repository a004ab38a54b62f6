"""Carry out the plan of a location set: an empty store, then its shards on a cluster, then the finish.

Wiring, as `sits_pipeline.build` is for regions: decisions are made in the plan, effects in `task` and `finish`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Self

from sits_catalog.cube import VERSION
from sits_catalog.locations import Location
from sits_pipeline.budget import Budget
from sits_pipeline.cluster import Cluster, open_cluster
from sits_pipeline.config import BuildConfig
from sits_pipeline.finish import Outcome
from sits_pipeline.folder import Folder
from sits_pipeline.journal import MERGED, CellLines, Journal, has_cells, read_journal, segments
from sits_pipeline.patches.finish import KNOWN_FILES, PatchDataset, finish_patches, is_finished, outcome_of
from sits_pipeline.patches.place import KIND, Chosen, line_of
from sits_pipeline.patches.plan import PatchPlan, days_to_read, request_sha256
from sits_pipeline.patches.prepare import PreparedPatches, prepare_locations
from sits_pipeline.patches.rule import PatchSet
from sits_pipeline.patches.task import PatchTask, build_patches
from sits_pipeline.plan import CellMemory, cell_memory
from sits_pipeline.prepare import Listener
from sits_pipeline.sources.access import Cost
from sits_pipeline.sources.base import SceneSource, ServiceDown, ServiceSource
from sits_pipeline.store import CUBE, ROOT, read_attributes, repair_metadata
from sits_pipeline.store.patches import PatchLayout, conclude_patches, create_patches, patch_metadata
from sits_pipeline.values import JsonObject, Scene

__all__ = ["build_locations", "plan_locations"]


def build_locations(
    locations: Sequence[Location], patch_set: PatchSet, config: BuildConfig, listener: Listener
) -> Outcome:
    """Write, or take up, the dataset of a location set; a shard with unread sources leaves it incomplete.

    Raises BlockingIOError where another process writes the same dataset, ValueError where another one is in its place
    or nothing can be built, MemoryError where a shard does not fit, and RuntimeError where one could not be computed.
    """
    created, folder = _now(), Folder(config.out).sub(patch_set.id)
    with Folder(config.out).lock(patch_set.id):
        read_attributes(folder)
        request = request_sha256(patch_set, locations)
        kept = {} if config.search_again else _kept(folder, request)
        journal = Journal(folder)

        def keep(chosen: Chosen, is_service: bool) -> None:
            line = line_of(chosen, request, assets=is_service)
            if line is not None:
                journal.append(line)

        try:
            prepared = prepare_locations(locations, patch_set, config, listener, kept=kept, keep=keep)
        finally:
            journal.flush()
        return _build(prepared, folder, config, listener, request, journal, created)


def plan_locations(
    locations: Sequence[Location], patch_set: PatchSet, config: BuildConfig, listener: Listener
) -> PatchPlan:
    """What `build_locations` would build; nothing is written but the archive of a simulated source.

    Raises as `build_locations` does before it writes.
    """
    folder = Folder(config.out).sub(patch_set.id)
    read_attributes(folder)
    kept = {} if config.search_again else _kept(folder, request_sha256(patch_set, locations))
    return prepare_locations(locations, patch_set, config, listener, kept=kept, keep=lambda *_: None).plan


def _build(
    prepared: PreparedPatches,
    folder: Folder,
    config: BuildConfig,
    listener: Listener,
    request: str,
    journal: Journal,
    created: datetime,
) -> Outcome:
    plan, earlier = prepared.plan, _ours(folder, prepared.plan)
    dataset = _dataset(folder, prepared, request, created, earlier)
    cells = _Cells() if earlier is None else _Cells.read(folder)
    missing = plan.n_cells - len(cells.done)
    if earlier is not None:
        _mend(dataset, earlier, listener)
        if not missing and is_finished(dataset):
            return outcome_of(dataset, CellLines(folder), built=0)
    _check_budget(prepared, cells, config)
    built = 0
    with ExitStack() as stack:
        cluster = None
        if missing:
            # Before anything is written: a shard that does not fit into the memory leaves no dataset behind.
            cluster = stack.enter_context(open_cluster(config, _memory(plan), n_cells=missing))
        if earlier is None:
            journal = _create(dataset, journal)
        # From here on, and until it is merged, the build is under way.
        journal.append(dataset.plan_line)
        journal.flush()
        if cluster is not None:
            listener.stage(f"building {plan.n_patches} patches in {missing} of {plan.n_cells} shards")
            listener.progress(plan.n_cells - missing, plan.n_cells)
            source = _through_gates(prepared.source, cluster)
            for entry in _computed(cluster, _tasks(plan, folder, source, cells, cluster), config.retries):
                journal.append(entry)
                built += 1
                listener.progress(plan.n_cells - missing + built, plan.n_cells)
    # A worker that died in mid-write, and whose shard another one has done, leaves its half behind.
    folder.remove_partials()
    listener.stage(f"finishing {plan.wanted.id}")
    return finish_patches(dataset, journal, built=built)


# Work


def _tasks(
    plan: PatchPlan, folder: Folder, source: SceneSource, cells: _Cells, cluster: Cluster
) -> Iterator[PatchTask]:
    """The shards that are still to be computed, made one at a time."""
    for first, count in plan.cells():
        if (first, count) in cells.done:
            continue
        chosen = plan.chosen[first : first + count]
        yield PatchTask(
            folder=folder,
            first=first,
            geoboxes=tuple(one.spot.geobox for one in chosen),
            days=tuple(days_to_read(one.acquisitions) for one in chosen),
            n_dates=plan.wanted.rule.dates,
            source=source,
            bands=plan.wanted.imagery.bands,
            resampling=plan.wanted.imagery.resampling,
            threads=cluster.threads_a_cell,
        )


def _memory(plan: PatchPlan) -> CellMemory:
    """What a shard needs; each thread reads one date of one patch."""
    rule, n_bands = plan.wanted.rule, len(plan.wanted.imagery.bands)
    patches = min(plan.shard, plan.n_patches)
    return cell_memory(rule.dates * patches, n_bands, rule.side_px**2, labels=False, finer=())


def _through_gates(source: SceneSource, cluster: Cluster) -> SceneSource:
    """The source with requests of all workers counted together, where it is a service."""
    if not isinstance(source, ServiceSource):
        return source
    return source.through(cluster.gates(source.limits))


def _check_budget(prepared: PreparedPatches, cells: _Cells, config: BuildConfig) -> None:
    """Raises ValueError where the shards that are still to be built cost more than --max-pu allows."""
    source, plan = prepared.source, prepared.plan
    if config.max_pu is None or not isinstance(source, ServiceSource):
        return
    needed = Cost()
    for first, count in plan.cells():
        if (first, count) not in cells.done:
            for one in plan.chosen[first : first + count]:
                for day in one.acquisitions:
                    needed += source.cost(day.scenes, one.spot.geobox, plan.wanted.imagery.bands)
    Budget(config.max_pu, spent=cells.processing_units).check(needed.processing_units)


def _computed(cluster: Cluster, tasks: Iterator[PatchTask], retries: int) -> Iterator[JsonObject]:
    """Entries of the shards as they are done; what goes wrong in a worker is no wrong use, whatever its type."""
    try:
        yield from cluster.run(build_patches, tasks, retries=retries)
    except (MemoryError, RuntimeError):
        raise
    except ServiceDown as error:
        raise RuntimeError(f"{error}; run the same command again, which goes on where this one stopped") from error
    except OSError as error:
        raise RuntimeError(f"a shard could not be built: {error}; run the same command to go on") from error
    except Exception as error:
        raise RuntimeError(
            f"a shard could not be built: {type(error).__name__}: {error}; this is a fault of the program: "
            "run again with --debug and report it"
        ) from error


# What is there


def _kept(folder: Folder, request: str) -> dict[int, JsonObject]:
    """The journal's last line of each location that an earlier run has chosen for, by patch."""
    lines = (entry for entry in read_journal(folder) if entry["kind"] == KIND)
    return {int(line["patch"]): line for line in lines if line["request_sha256"] == request}


@dataclass
class _Cells:
    """What the journal says of the shards that are built."""

    done: set[tuple[int, ...]] = field(default_factory=set)
    """Those that need no further work: nothing unread, and their files are there at their size."""
    processing_units: float = 0.0
    """What all of them were charged."""

    @classmethod
    def read(cls, folder: Folder) -> Self:
        """From the journal; a later line of a shard replaces an earlier one."""
        cells = cls()
        for line in CellLines(folder):
            entry = json.loads(line)
            cells.processing_units += entry.get("processing_units", 0.0)
            sizes = ((f"{CUBE}/{name}", size) for name, (size, _) in entry["shards"].items())
            if not entry["failures"] and all(folder.size(name) == size for name, size in sizes):
                cells.done.add(tuple(entry["cell"]))
        return cells


def _ours(folder: Folder, plan: PatchPlan) -> JsonObject | None:
    """The attribute `sits_cube` of the store that is there; None where one is to be created.

    That is also so where another one was begun and has no shard yet. Raises ValueError for a dataset that is not this.
    """
    attributes = read_attributes(folder)
    if attributes is None:
        return None
    if attributes.get("version") != VERSION:
        raise ValueError(
            f"{folder.location} was written as sits-cube {attributes.get('version')}, this program writes {VERSION}; "
            "choose another --out"
        )
    if attributes.get("config_sha256") == plan.config_sha256:
        return attributes
    if attributes.get("profile") == "patches" and not has_cells(folder):
        return None
    raise ValueError(
        f"{folder.location} holds another dataset (config_sha256 {str(attributes.get('config_sha256'))[:12]}, this "
        f"build has {plan.config_sha256[:12]}): locations, season, bands, rule or the chosen items differ; choose "
        "another --out, or remove that folder"
    )


# What is to be there


def _mend(dataset: PatchDataset, earlier: JsonObject, listener: Listener) -> None:
    """Put right what is no pixel's: leftovers of killed writers go, damaged metadata and coordinates are restored.

    A root that is not what a run with the attributes `earlier` has written becomes that of an empty store, so that the
    dataset is concluded again.
    """
    folder = dataset.folder
    folder.remove_partials()
    mended = repair_metadata(folder, patch_metadata(dataset.layout))
    written = dataset.layout.with_attributes({name: earlier.get(name) for name in ("complete", "statistics")})
    if folder.read(f"{CUBE}/{ROOT}") != patch_metadata(written)[ROOT]:
        conclude_patches(folder, dataset.layout)
        mended.append(ROOT)
    if mended:
        listener.stage(f"restored metadata of {dataset.plan.wanted.id}: {', '.join(mended)}")


def _create(dataset: PatchDataset, journal: Journal) -> Journal:
    """An empty store, and nothing beside it of an earlier one that was removed; the journal keeps what was chosen."""
    folder = dataset.folder
    folder.remove_partials()
    if has_cells(folder) or folder.exists(MERGED):
        for name in segments(folder):
            folder.remove(name)
        journal = Journal(folder)
        for line in dataset.location_lines():
            journal.append(line)
    for name in KNOWN_FILES:
        folder.remove(name)
    create_patches(folder, dataset.layout)
    return journal


def _dataset(
    folder: Folder, prepared: PreparedPatches, request: str, created: datetime, earlier: JsonObject | None
) -> PatchDataset:
    """The dataset as this run would write it; a store that is there keeps its time and its program."""
    plan = prepared.plan
    kept = {name: earlier[name] for name in ("created", "software")} if earlier is not None else {}
    rule = plan.wanted.rule
    return PatchDataset(
        folder=folder,
        plan=plan,
        unusable=prepared.unusable,
        request_sha256=request,
        is_service=isinstance(prepared.source, ServiceSource),
        layout=PatchLayout(
            days=plan.days(),
            bands=plan.wanted.imagery.bands,
            height=rule.side_px,
            width=rule.side_px,
            attributes={**_attributes(plan, created), **kept},
        ),
    )


def _attributes(plan: PatchPlan, created: datetime) -> JsonObject:
    """The root attribute `sits_cube` of an empty store."""
    wanted = plan.wanted
    return {
        "version": VERSION,
        "profile": "patches",
        "region": wanted.id,
        "season": {"start": wanted.season.start.isoformat(), "end": wanted.season.end.isoformat()},
        "radiometry": {
            "level": "L2A",
            "scale": 0.0001,
            "offset_removed": True,
            "clamp": 1,
            "baselines": sorted({scene.baseline for scene in plan.scenes()}),
        },
        "simulated": wanted.imagery.source == "simulated" or any(map(_is_simulated, plan.scenes())),
        "created": created.isoformat().replace("+00:00", "Z"),
        "software": f"sits-cubes {version('sits-cubes')}",
        "complete": False,
        "config_sha256": plan.config_sha256,
        "cells": {"patches": plan.shard, "count": plan.n_cells},
        "patches": {
            "count": plan.n_patches,
            "built": sum(bool(chosen.acquisitions) for chosen in plan.chosen),
            "dates": wanted.rule.dates,
            "side": wanted.rule.side_px,
        },
        "statistics": None,
    }


def _is_simulated(scene: Scene) -> bool:
    """Whether its item says so: an archive that was simulated may be read as any other catalogue."""
    return any(value is True for value in scene.item.get("properties", {}).values())


def _now() -> datetime:
    """The time, or SOURCE_DATE_EPOCH where builds are to be reproducible."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    if not epoch:
        return datetime.now(UTC).replace(microsecond=0)
    try:
        return datetime.fromtimestamp(int(epoch), UTC)
    except (ValueError, OverflowError, OSError):
        raise ValueError(
            f"SOURCE_DATE_EPOCH must be seconds since 1970-01-01 as a whole number; got {epoch!r}"
        ) from None
