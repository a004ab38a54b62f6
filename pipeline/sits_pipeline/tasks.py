"""From a plan to the tasks of its cells: each gets the scenes, parcels and chips near it and nothing else.

What a task asks of a service is known beforehand.
"""

from __future__ import annotations

import pickle
import zlib
from collections.abc import Callable, Iterator, Sequence, Set
from functools import cached_property, lru_cache

import numpy as np
import shapely
from odc.geo.geobox import GeoBox

from sits_pipeline.cell import CellTask, Day
from sits_pipeline.config import BuildConfig
from sits_pipeline.folder import Folder
from sits_pipeline.imagery import visit_of
from sits_pipeline.parcels import NEAR_M, select_near
from sits_pipeline.plan import Zone, ZonePlan
from sits_pipeline.prepare import Prepared, Zoned
from sits_pipeline.sources.access import Cost
from sits_pipeline.sources.api import ApiSource
from sits_pipeline.sources.base import SceneSource, ServiceSource
from sits_pipeline.sources.fallback import FallbackSource
from sits_pipeline.splits import SplitPlan, split_of_window
from sits_pipeline.steps.chips import ChipFrame, place_chips, select_chips
from sits_pipeline.values import Parcels, Window

__all__ = ["ChipsNear", "cell_costs", "cell_tasks", "parcel_chips", "task_cost"]

_FOOTPRINT_MARGIN_M = 1000.0
"""Footprints are drawn loosely; a scene is asked for its pixels this far outside of its own."""
_SETS_OF_SCENES = 64
"""Sets of scenes that are remembered where tasks are made: neighbours see the same ones, a row of cells some dozens."""
_SETS_ON_A_WORKER = 8


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
    visits, chips_near, known = _Visits(plan), ChipsNear(chips), _Known(zoned.known)
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
            known=known.near(geobox),
            rule=region.labels,
            splits=None if plan.splits is None or near is None else plan.splits.only(near, geobox),
            chips=chips_near.of(window),
            threads=threads,
        )


def task_cost(task: CellTask) -> Cost:
    """What a cell's images ask of a service; nothing where they are files."""
    return _cost(task.source, task.days, task.geobox, task.bands)


def cell_costs(source: SceneSource, plan: ZonePlan) -> Iterator[tuple[Window, Cost]]:
    """The same of each cell of a plan, row by row; nothing is asked of the service for that."""
    visits = _Visits(plan)
    known: dict[tuple[bytes, int, int], Cost] = {}
    for window in plan.cells():
        geobox = plan.zone.geobox[window.rows, window.columns]
        near = visits.near(geobox.boundingbox.bbox)
        if not isinstance(source, ApiSource | FallbackSource):
            yield window, _cost(source, visits.days(near), geobox, plan.bands)
            continue
        # Files are read by blocks, wherever they lie: cells of one shape that see the same scenes cost the same.
        key = near, window.height, window.width
        if key not in known:
            known[key] = _cost(source, visits.days(near), geobox, plan.bands)
        yield window, known[key]


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


class _Days(tuple[Day, ...]):
    """Days of a task. Neighbours share them, so they are pickled once for all, and a worker unpickles them once."""

    @cached_property
    def packed(self) -> bytes:
        """As they travel: addresses repeat themselves, so that a tenth is left."""
        return zlib.compress(pickle.dumps(tuple(self), protocol=pickle.HIGHEST_PROTOCOL), 1)

    def __reduce__(self) -> tuple[Callable[[bytes], tuple[Day, ...]], tuple[bytes]]:
        return _unpacked, (self.packed,)


@lru_cache(_SETS_ON_A_WORKER)
def _unpacked(packed: bytes) -> tuple[Day, ...]:
    """The days that `packed` holds; the same objects where the next cell sees the same scenes."""
    days: tuple[Day, ...] = pickle.loads(zlib.decompress(packed))  # noqa: S301  # within a pickled task, by whoever may send those
    return days


class _Visits:
    """Finds the scenes near a cell, day by day."""

    def __init__(self, plan: ZonePlan) -> None:
        self._all = [
            (index, visit_of(position, scene, verdict))
            for index, acquisition in enumerate(plan.acquisitions)
            for position, (scene, verdict) in enumerate(zip(acquisition.scenes, acquisition.verdicts, strict=True))
        ]
        # Each outline is looked at once, and prepared, since many cells ask.
        outlines, which = plan.outlines
        self._numbers = [np.flatnonzero(which == outline) for outline in range(len(outlines))]
        self._outlines = shapely.buffer(outlines, _FOOTPRINT_MARGIN_M)
        shapely.prepare(self._outlines)
        self._tree = shapely.STRtree(self._outlines)
        self._none = [Day(day=acquisition.day, visits=()) for acquisition in plan.acquisitions]
        self.days = lru_cache(_SETS_OF_SCENES)(self._days)
        """All days, each with the scenes of a set in their order; the same object for the same set."""

    def of(self, bounds: tuple[float, float, float, float]) -> tuple[Day, ...]:
        """All days, each with the scenes that may cover `bounds`, in their order."""
        return self.days(self.near(bounds))

    def near(self, bounds: tuple[float, float, float, float]) -> bytes:
        """The set of scenes that may cover `bounds`: their numbers, ascending, as int64."""
        cell = shapely.box(*bounds)
        near = self._tree.query(cell)
        near = near[shapely.intersects(self._outlines[near], cell)]
        found = [self._numbers[outline] for outline in near.tolist()]
        return bytes(np.sort(np.concatenate([np.zeros(0, np.int64), *found])))

    def _days(self, numbers: bytes) -> _Days:
        days = list(self._none)
        for number in np.frombuffer(numbers, np.int64).tolist():
            index, visit = self._all[number]
            days[index] = Day(day=days[index].day, visits=(*days[index].visits, visit))
        return _Days(days)


class ChipsNear:
    """Finds the parcel chips that meet a cell."""

    def __init__(self, chips: Sequence[ChipFrame]) -> None:
        self._chips = chips
        self._tree = shapely.STRtree([_box(chip.window) for chip in chips])

    def of(self, window: Window) -> tuple[ChipFrame, ...]:
        """Those of a cell, in their order."""
        near = self._tree.query(_box(window))
        return select_chips([self._chips[number] for number in np.sort(near).tolist()], window)


def _box(window: Window) -> shapely.Polygon:
    """A window as a polygon of columns and rows."""
    return shapely.box(window.column, window.row, window.column + window.width, window.row + window.height)


class _Known:
    """What of the known area a cell must be told: the outline of a country is no part of most of its cells."""

    def __init__(self, area: shapely.Geometry | None) -> None:
        self._area = area
        # A copy is prepared: the other may be used by threads, for which a prepared one is not made.
        self._prepared = None if area is None else shapely.force_2d(area)
        shapely.prepare(self._prepared)

    def near(self, geobox: GeoBox) -> shapely.Geometry | None:
        """The area; a rectangle where that is all there is around the cell, and nothing where there is none of it.

        Nothing of a pixel depends on which of them it is told, since no outline is ever cut.
        """
        if self._area is None:
            return None
        west, south, east, north = geobox.boundingbox.bbox
        around = shapely.box(west - NEAR_M, south - NEAR_M, east + NEAR_M, north + NEAR_M)
        if shapely.contains_properly(self._prepared, around):
            return around
        return self._area if shapely.intersects(self._prepared, around) else shapely.Polygon()
