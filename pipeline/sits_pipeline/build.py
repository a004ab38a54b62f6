"""Carry out a plan: an empty cube, then its cells on a cluster, then the finish; taken up where it was interrupted.

Wiring: decisions are made in the plan, effects in `cell` and `finish`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from importlib.metadata import version

from sits_catalog.cube import VERSION, shard_side
from sits_catalog.region import Region
from sits_pipeline.budget import Budget, plan_audit_cost
from sits_pipeline.cell import CellTask, build_cell
from sits_pipeline.cluster import open_cluster
from sits_pipeline.config import BuildConfig
from sits_pipeline.finish import KNOWN_FILES, Dataset, Outcome, finish, is_finished
from sits_pipeline.folder import Folder
from sits_pipeline.journal import Journal, has_cells, read_journal, segments, split_under_way
from sits_pipeline.plan import Begun, CellMemory, ZonePlan, cell_memory, item_states, with_earlier_states
from sits_pipeline.prepare import Listener, Prepared, Zoned, read_begun
from sits_pipeline.run import BuiltCells, in_words, is_simulated, now, through_gates, with_earlier_units
from sits_pipeline.store import (
    CUBE,
    ROOT,
    CubeLayout,
    check_version,
    create_cube,
    metadata_files,
    read_attributes,
    repair_metadata,
    update_attributes,
)
from sits_pipeline.tasks import cell_costs, cell_tasks
from sits_pipeline.values import JsonObject, Scene, shape_of

__all__ = ["build"]

_log = logging.getLogger(__name__)


def build(prepared: Prepared, config: BuildConfig, listener: Listener) -> tuple[Outcome, ...]:
    """Write, or take up, each dataset of a plan; a cell whose sources could not be read leaves it incomplete.

    Raises BlockingIOError where another process writes the same datasets, ValueError where others are in their place
    or the processing units do not suffice, MemoryError where a cell does not fit, and RuntimeError where one could not
    be computed.
    """
    created = now()
    with Folder(config.out).lock(prepared.region.id):
        budget = _budget(prepared, config)
        return tuple(_build_zone(prepared, zoned, config, listener, created, budget) for zoned in prepared.zones)


def _build_zone(
    prepared: Prepared, zoned: Zoned, config: BuildConfig, listener: Listener, created: datetime, budget: Budget
) -> Outcome:
    plan, folder = zoned.plan, _folder(zoned, config)
    earlier = _ours(folder, plan, config)
    dataset = _dataset(folder, prepared, zoned, config, created=created, earlier=earlier)
    cells = BuiltCells() if earlier is None else BuiltCells.read(folder)
    missing = plan.n_cells - len(cells.done)
    if earlier is not None:
        _mend(dataset, earlier.attributes, listener)
        if not missing and is_finished(dataset):
            return Outcome.of(dataset, cells.failures, built=0, processing_units=cells.processing_units)
    built = 0
    with ExitStack() as stack:
        cluster = None
        if missing:
            # Before anything is written: a cell that does not fit into the memory leaves no dataset behind.
            cluster = stack.enter_context(open_cluster(config, _cell_memory(dataset), n_cells=missing))
        _look_for_room(dataset, missing)
        if earlier is None:
            _create(dataset)
        journal = Journal(folder)
        stack.callback(journal.close)
        # From here on, and until it is merged, the build is under way.
        journal.append(dataset.plan_line)
        journal.flush()
        if cluster is not None:
            listener.stage(f"building {missing} of {plan.n_cells} cells of {plan.zone.name}")
            listener.progress(plan.n_cells - missing, plan.n_cells)
            asked = replace(prepared, source=through_gates(prepared.source, cluster))
            tasks = cell_tasks(asked, zoned, config, folder, frozenset(cells.done), cluster.threads_a_cell)
            tasks = (replace(task, check_wanted=cluster.check_wanted) for task in tasks)
            entries = cluster.run(build_cell, budget.admit(tasks), retries=config.retries, smaller=CellTask.smaller)
            for entry in in_words(entries, unit="a cell"):
                budget.settle(entry)
                journal.append(with_earlier_units(entry, cells.units))
                built += 1
                listener.progress(plan.n_cells - missing + built, plan.n_cells)
            journal.flush()
            budget.check_ended(missing - built)
    # A worker that died in mid-write, and whose cell another one has done, leaves its half behind.
    folder.remove_partials()
    listener.stage(f"finishing {plan.zone.name}")
    return finish(dataset, journal, built=built)


def _look_for_room(dataset: Dataset, missing: int) -> None:
    """Warn where the cells that are missing may not fit; how well pixels compress is known when they are written."""
    free, plan = dataset.folder.free_bytes(), dataset.plan
    needed = plan.estimate().write_gb * missing / plan.n_cells
    if free is not None and free < needed * 1e9:
        _log.warning(
            "%s has room for %.2f GB, and this build writes about %.2f GB more",
            dataset.folder.location,
            free / 1e9,
            needed,
        )


def _folder(zoned: Zoned, config: BuildConfig) -> Folder:
    return Folder(config.out).sub(zoned.plan.zone.name)


def _budget(prepared: Prepared, config: BuildConfig) -> Budget:
    """What the build may use; raises ValueError where that does not suffice for the cells of all datasets."""
    budget, needed = Budget(config.max_pu), 0.0
    if config.max_pu is not None:
        for zoned in prepared.zones:
            folder = _folder(zoned, config)
            cells = BuiltCells() if _ours(folder, zoned.plan, config) is None else BuiltCells.read(folder)
            budget.spent += cells.processing_units
            budget.audited += plan_audit_cost(prepared.source, zoned.plan).processing_units
            for window, cost in cell_costs(prepared.source, zoned.plan):
                if (window.row, window.column, window.height, window.width) not in cells.done:
                    needed += cost.processing_units
        budget.check(needed)
    return budget


def _cell_memory(dataset: Dataset) -> CellMemory:
    """What the largest cell needs, and its first shard."""
    plan, labels = dataset.plan, dataset.table is not None
    height, width = (min(size, plan.cell_px) for size in shape_of(plan.zone.geobox))
    finer = dataset.region.labels.finer if labels else ()
    n_dates, n_bands = len(plan.acquisitions), len(plan.bands)
    side = shard_side(n_dates, n_bands)
    whole = cell_memory(n_dates, n_bands, height * width, labels=labels, finer=finer)
    shard = cell_memory(n_dates, n_bands, min(height, side) * min(width, side), labels=labels, finer=finer)
    return replace(whole, shard=shard.first, name="the cell at row 0, column 0")


# What is there


@dataclass(frozen=True)
class _Earlier:
    """What an earlier run has left."""

    attributes: JsonObject
    """`sits_cube` of its cube."""
    begun: Begun


def _ours(folder: Folder, plan: ZonePlan, config: BuildConfig) -> _Earlier | None:
    """The cube that is there; None where one is to be created.

    That is also so where one was begun with other cells or chips and has no cell yet. Raises ValueError for a cube that
    is not this one.
    """
    attributes = read_attributes(folder)
    if attributes is None:
        return None
    if split_under_way(folder) is not None:
        raise ValueError(
            f"{folder.location} is being split anew, and sits-cube split has not ended; run that command again first"
        )
    check_version(folder, attributes)
    begun = read_begun(folder, attributes)
    difference = begun.difference(plan)
    if difference:
        raise ValueError(f"{folder.location} {difference}")
    chips = next((entry for entry in read_journal(folder) if entry["kind"] == "plan"), {}).get("chips", config.chips)
    # Chips are counted cell by cell, so that all cells must be built for the same ones.
    same_chips = chips == config.chips
    if same_chips and attributes["cells"]["side"] == plan.cell_px:
        return _Earlier(attributes, begun)
    if not has_cells(folder):
        return None
    if not same_chips:
        raise ValueError(f"{folder.location} was begun with --chips {chips}; go on with that, or choose another --out")
    raise ValueError(
        f"{folder.location} was begun with cells of {attributes['cells']['side']} px; choose another --out"
    )


# What is to be there


def _mend(dataset: Dataset, earlier: JsonObject, listener: Listener) -> None:
    """Put right what is no pixel's: leftovers of killed writers go, damaged metadata and coordinates are restored.

    A root that is not what a run with the attributes `earlier` has written becomes that of an empty cube, so that the
    dataset is concluded again.
    """
    folder = dataset.folder
    folder.remove_partials()
    mended = repair_metadata(folder, metadata_files(dataset.layout))
    changes = {name: earlier.get(name) for name in ("complete", "statistics")}
    layout = replace(dataset.layout, attributes={**dataset.layout.attributes, **changes})
    if folder.read(f"{CUBE}/{ROOT}") != metadata_files(layout)[ROOT]:
        update_attributes(folder, dataset.layout, {})
        mended.append(ROOT)
    if mended:
        more = f" and {len(mended) - 3} more" if len(mended) > 3 else ""
        listener.stage(f"restored metadata of {dataset.plan.zone.name}: {', '.join(mended[:3])}{more}")


def _create(dataset: Dataset) -> None:
    """An empty cube, and nothing beside it of an earlier one that was removed; other files are left alone."""
    folder = dataset.folder
    folder.remove_partials()
    for name in [*KNOWN_FILES, *segments(folder)]:
        folder.remove(name)
    create_cube(folder, dataset.layout)


def _dataset(
    folder: Folder,
    prepared: Prepared,
    zoned: Zoned,
    config: BuildConfig,
    *,
    created: datetime,
    earlier: _Earlier | None,
) -> Dataset:
    """The dataset as this run would write it; a cube that is there keeps its time and its program."""
    kept = {} if earlier is None else {name: earlier.attributes[name] for name in ("created", "software")}
    known = {} if earlier is None else earlier.begun.states
    folded = {} if prepared.folding is None else {"folded": prepared.folding.record()}
    attributes = {**_attributes(prepared.region, zoned.plan, created), **folded, **kept}
    return Dataset(
        folder=folder,
        layout=_layout(prepared, zoned, attributes),
        plan=zoned.plan,
        region=prepared.region,
        table=zoned.table,
        taxonomy=prepared.taxonomy,
        unusable=zoned.found.unusable,
        chips=config.chips,
        items=with_earlier_states(item_states(zoned.plan.acquisitions), known),
    )


def _layout(prepared: Prepared, zoned: Zoned, attributes: JsonObject) -> CubeLayout:
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
        attributes=attributes,
    )


def _attributes(region: Region, plan: ZonePlan, created: datetime) -> JsonObject:
    """The root attribute `sits_cube` of an empty cube."""
    baselines = {scene.baseline for scene in _scenes(plan)}
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
        "simulated": region.imagery.source == "simulated" or any(map(is_simulated, _scenes(plan))),
        "created": created.isoformat().replace("+00:00", "Z"),
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


def _scenes(plan: ZonePlan) -> Iterator[Scene]:
    return (scene for acquisition in plan.acquisitions for scene in acquisition.scenes)
