"""Carry out the plan of a location set: an empty store, then its shards on a cluster, then the finish.

Wiring, as `sits_pipeline.build` is for regions: decisions are made in the plan, effects in `task` and `finish`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime
from importlib.metadata import version

from sits_catalog.cube import VERSION
from sits_catalog.locations import Location
from sits_pipeline.budget import Budget
from sits_pipeline.cluster import Cluster, open_cluster
from sits_pipeline.config import BuildConfig
from sits_pipeline.finish import Outcome, is_finished
from sits_pipeline.folder import Folder
from sits_pipeline.journal import MERGED, CellLines, Journal, has_cells, segments
from sits_pipeline.patches.earlier import Choices, Earlier, check_place, check_same
from sits_pipeline.patches.finish import KNOWN_FILES, PatchDataset, finish_patches, outcome_of
from sits_pipeline.patches.plan import PatchPlan, cost_of, days_to_read
from sits_pipeline.patches.prepare import Opened, PreparedPatches, open_locations, prepare_locations
from sits_pipeline.patches.rule import PatchSet
from sits_pipeline.patches.task import PatchTask, build_patches
from sits_pipeline.plan import CellMemory, cell_memory
from sits_pipeline.prepare import Listener
from sits_pipeline.run import BuiltCells, in_words, is_simulated, now, through_gates, with_earlier_units
from sits_pipeline.sources.base import SceneSource
from sits_pipeline.store import CUBE, ROOT, repair_metadata
from sits_pipeline.store.patches import PatchLayout, conclude_patches, create_patches, patch_metadata
from sits_pipeline.values import JsonObject

__all__ = ["build_locations", "plan_locations"]


def build_locations(
    locations: Sequence[Location], patch_set: PatchSet, config: BuildConfig, listener: Listener
) -> Outcome:
    """Write, or take up, the dataset of a location set; a shard with unread sources leaves it incomplete.

    Raises BlockingIOError where another process writes the same dataset, ValueError where another one is in its place
    or nothing can be built, MemoryError where a shard does not fit, and RuntimeError where one could not be computed,
    items could not be looked at or the processing units do not suffice.
    """
    created, folder = now(), Folder(config.out).sub(patch_set.id)
    with Folder(config.out).lock(patch_set.id):
        check_place(folder)
        opened = open_locations(locations, patch_set, config, listener)
        earlier = _earlier(folder, opened, config)
        choices = Choices(Journal(folder), opened.request_sha256, keep=not earlier.is_built)
        try:
            prepared = prepare_locations(opened, config, listener, earlier=earlier, choices=choices)
        finally:
            choices.journal.flush()
        store = check_same(folder, prepared.plan, earlier)
        dataset = _dataset(folder, opened, prepared, created, store)
        return _build(dataset, prepared, config, listener, choices.journal, earlier=store)


def plan_locations(
    locations: Sequence[Location], patch_set: PatchSet, config: BuildConfig, listener: Listener
) -> PreparedPatches:
    """What `build_locations` would build; nothing is written but the archive of a simulated source.

    Raises as `build_locations` does before it writes.
    """
    folder = Folder(config.out).sub(patch_set.id)
    check_place(folder)
    opened = open_locations(locations, patch_set, config, listener)
    return prepare_locations(opened, config, listener, earlier=_earlier(folder, opened, config), choices=None)


def _earlier(folder: Folder, opened: Opened, config: BuildConfig) -> Earlier:
    earlier = Earlier.read(folder, opened.request_sha256)
    return earlier.forgotten() if config.search_again else earlier


def _build(
    dataset: PatchDataset,
    prepared: PreparedPatches,
    config: BuildConfig,
    listener: Listener,
    journal: Journal,
    *,
    earlier: JsonObject | None,
) -> Outcome:
    plan, folder = dataset.plan, dataset.folder
    cells = BuiltCells() if earlier is None else BuiltCells.read(folder)
    missing = plan.n_cells - len(cells.done)
    if earlier is not None:
        _mend(dataset, earlier, listener)
        if not missing and is_finished(dataset):
            return outcome_of(dataset, CellLines(folder), built=0)
    budget, built = _budget(prepared, cells, config), 0
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
            source = through_gates(prepared.source, cluster)
            tasks = budget.hold(_costed(prepared, _tasks(plan, folder, source, cells, cluster)))
            entries = cluster.run(build_patches, tasks, retries=config.retries, smaller=PatchTask.smaller)
            for entry in in_words(entries, unit="a shard"):
                budget.settle(entry)
                journal.append(with_earlier_units(entry, cells.units))
                built += 1
                listener.progress(plan.n_cells - missing + built, plan.n_cells)
            journal.flush()
            budget.check_ended(missing - built)
    # A worker that died in mid-write, and whose shard another one has done, leaves its half behind.
    folder.remove_partials()
    listener.stage(f"finishing {plan.wanted.id}")
    return finish_patches(dataset, journal, built=built)


# Work


def _tasks(
    plan: PatchPlan, folder: Folder, source: SceneSource, cells: BuiltCells, cluster: Cluster
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
            check_wanted=cluster.check_wanted,
        )


def _memory(plan: PatchPlan) -> CellMemory:
    """What a shard needs; each thread reads one date of one patch."""
    rule, n_bands = plan.wanted.rule, len(plan.wanted.imagery.bands)
    patches = min(plan.shard, plan.n_patches)
    memory = cell_memory(rule.dates * patches, n_bands, rule.side_px**2, labels=False, finer=())
    return replace(memory, name=f"the shard of patches 0 to {patches - 1}")


def _budget(prepared: PreparedPatches, cells: BuiltCells, config: BuildConfig) -> Budget:
    """What the build may use; raises ValueError where that does not suffice for the shards that are still to be built.

    What was charged while choosing is used already.
    """
    plan = prepared.plan
    budget = Budget(config.max_pu, spent=cells.processing_units + prepared.audit_units)
    if config.max_pu is not None:
        left = [key for key in plan.cells() if key not in cells.done]
        budget.check(sum(_needed(prepared, *key) for key in left))
    return budget


def _needed(prepared: PreparedPatches, first: int, count: int) -> float:
    """Processing units of a shard."""
    plan = prepared.plan
    return cost_of(prepared.source, plan.wanted, plan.chosen[first : first + count]).processing_units


def _costed(
    prepared: PreparedPatches, tasks: Iterator[PatchTask]
) -> Iterator[tuple[tuple[int, ...], float, PatchTask]]:
    return ((task.key, _needed(prepared, *task.key), task) for task in tasks)


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
    folder: Folder, opened: Opened, prepared: PreparedPatches, created: datetime, earlier: JsonObject | None
) -> PatchDataset:
    """The dataset as this run would write it; a store that is there keeps its time and its program."""
    plan = prepared.plan
    kept = {name: earlier[name] for name in ("created", "software")} if earlier is not None else {}
    rule = plan.wanted.rule
    return PatchDataset(
        folder=folder,
        plan=plan,
        unusable=prepared.unusable,
        request_sha256=opened.request_sha256,
        is_service=opened.is_service,
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
        "simulated": wanted.imagery.source == "simulated" or any(map(is_simulated, plan.scenes())),
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
