"""From a plan to the tasks of its cells: each gets the scenes, parcels and chips near it and nothing else.

What a task asks of a service is known beforehand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set

import shapely
from odc.geo.geobox import GeoBox

from sits_pipeline.cell import CellTask, Day, Visit
from sits_pipeline.config import BuildConfig
from sits_pipeline.folder import Folder
from sits_pipeline.imagery import visit_of
from sits_pipeline.parcels import select_near
from sits_pipeline.plan import Zone, ZonePlan
from sits_pipeline.plan.lattice import project
from sits_pipeline.prepare import Prepared, Zoned
from sits_pipeline.sources.access import Cost
from sits_pipeline.sources.base import SceneSource, ServiceSource
from sits_pipeline.splits import SplitPlan, split_of_window
from sits_pipeline.steps.chips import ChipFrame, place_chips, select_chips
from sits_pipeline.values import Parcels, Window

__all__ = ["cell_costs", "cell_tasks", "parcel_chips", "task_cost"]

_FOOTPRINT_MARGIN_M = 1000.0
"""Footprints are drawn loosely; a scene is asked for its pixels this far outside of its own."""


def cell_tasks(
    prepared: Prepared,
    zoned: Zoned,
    config: BuildConfig,
    folder: Folder,
    done: Set[tuple[int, ...]],
    threads: int,
) -> Iterator[CellTask]:
    """The cells that are still to be computed, each with its own scenes, parcels and chips."""
    plan, region, table = zoned.plan, prepared.region, zoned.table
    tree = None if table is None else shapely.STRtree(table.parcels.geometry)
    chips = () if table is None or config.chips != "parcel" else parcel_chips(table.parcels, plan.zone, plan.splits)
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


def task_cost(task: CellTask) -> Cost:
    """What a cell's images ask of a service; nothing where they are files."""
    return _cost(task.source, task.days, task.geobox, task.bands)


def cell_costs(source: SceneSource, plan: ZonePlan) -> Iterator[tuple[Window, Cost]]:
    """The same of each cell of a plan, row by row; nothing is asked of the service for that."""
    visits = _Visits(plan)
    for window in plan.cells():
        geobox = plan.zone.geobox[window.rows, window.columns]
        yield window, _cost(source, visits.of(geobox.boundingbox.bbox), geobox, plan.bands)


def _cost(source: SceneSource, days: Sequence[Day], geobox: GeoBox, bands: Sequence[str]) -> Cost:
    total = Cost()
    if isinstance(source, ServiceSource):
        for day in days:
            if day.visits:
                total += source.cost([visit.scene for visit in day.visits], geobox, bands)
    return total


def parcel_chips(parcels: Parcels, zone: Zone, splits: SplitPlan | None) -> tuple[ChipFrame, ...]:
    """A chip around each parcel of a cube, with its split."""
    split_of = None if splits is None else split_of_window(splits, zone.geobox)
    # A parcel in another zone's strip has its chip there.
    own = parcels.take(shapely.intersects(zone.ground, parcels.geometry))
    return place_chips(own, zone.geobox, split_of=split_of)


class _Visits:
    """Finds the scenes near a cell, day by day."""

    def __init__(self, plan: ZonePlan) -> None:
        self._all = [
            (index, visit_of(position, scene, verdict))
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
