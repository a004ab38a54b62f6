"""A cell whole, or shard by shard where memory is short: the shards and the journal's entry are the same."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import shapely

from sits_catalog.cube import shard_side
from sits_pipeline.cell.task import CellTask, build_whole
from sits_pipeline.imagery import Day
from sits_pipeline.plan import cells_of
from sits_pipeline.plan.lattice import project
from sits_pipeline.steps.chips import ChipCount, select_chips
from sits_pipeline.steps.statistics import merge
from sits_pipeline.values import JsonObject, Window, epsg_of

__all__ = ["build_cell", "merge_entries", "shards_of"]

_FOOTPRINT_MARGIN_M = 1000.0
"""As for the scenes of a cell."""


def build_cell(task: CellTask) -> JsonObject:
    """Compute a cell, write its shards and return its journal entry.

    Raises whatever `check_wanted` of the task raises, and writes nothing then.
    """
    if not task.shard_by_shard:
        return build_whole(task)
    started = time.monotonic()
    parts = [build_whole(part) for part in shards_of(task)]
    return {**merge_entries(task.window, task.days, parts), "seconds": round(time.monotonic() - started, 3)}


def shards_of(task: CellTask) -> Iterator[CellTask]:
    """The shards of a cell as cells of their own, each with the scenes and chips that meet it, read by one thread."""
    shape = (task.window.height, task.window.width)
    for part in cells_of(shape, shard_side(len(task.days), len(task.bands))):
        window = replace(part, row=task.window.row + part.row, column=task.window.column + part.column)
        geobox = task.geobox[part.rows, part.columns]
        yield replace(
            task,
            window=window,
            geobox=geobox,
            days=tuple(_near(task.days, geobox.boundingbox.bbox, epsg_of(geobox))),
            chips=select_chips(task.chips, window),
            threads=1,
            shard_by_shard=False,
        )


def _near(days: Iterable[Day], bounds: tuple[float, float, float, float], epsg: int) -> Iterator[Day]:
    """All days, each with the scenes that may cover `bounds`, as the plan chooses those of a cell."""
    ground = shapely.box(*bounds)
    for day in days:
        footprints = [project(visit.scene.footprint, epsg) for visit in day.visits]
        near = shapely.intersects(shapely.buffer(footprints, _FOOTPRINT_MARGIN_M), ground)
        yield replace(day, visits=tuple(visit for visit, is_near in zip(day.visits, near, strict=True) if is_near))


def merge_entries(window: Window, days: Sequence[Day], parts: Sequence[JsonObject]) -> JsonObject:
    """The journal entry of a cell from those of its shards: what the cell as a whole gives, but for its seconds.

    A source that could not be read, or of which a service says something, stands once, in the words of the first shard;
    a service's charges add up.
    """
    said = _in_order(days, (note for part in parts for note in part.get("notes", ())), ("note",))
    units = round(sum(part.get("processing_units", 0.0) for part in parts), 6)
    return {
        "kind": "cell",
        "cell": [window.row, window.column, window.height, window.width],
        "empty": all(part["empty"] for part in parts),
        "observed": [sum(date) for date in zip(*(part["observed"] for part in parts), strict=True)],
        "clear": [sum(date) for date in zip(*(part["clear"] for part in parts), strict=True)],
        "used": [sorted(set().union(*date)) for date in zip(*(part["used"] for part in parts), strict=True)],
        "failures": _in_order(days, (failure for part in parts for failure in part["failures"]), ("band",)),
        **{name: _added(part[name] for part in parts) for name in ("classes", "parcels", "splits")},
        "bands": [sums.to_json() for sums in merge(part["bands"] for part in parts)],
        **_merge_chips(window, parts),
        "shards": dict(sorted(item for part in parts for item in part["shards"].items())),
        **({"notes": said} if said else {}),
        **({"processing_units": units} if units else {}),
    }


def _added(histograms: Iterable[dict[str, int]]) -> dict[str, int]:
    """Pixels a value."""
    total = sum(map(Counter, histograms), Counter())
    return {value: total[value] for value in sorted(total, key=int)}


def _in_order(days: Sequence[Day], found: Iterable[JsonObject], also: tuple[str, ...]) -> list[JsonObject]:
    """Each {day, item, ...} once, in the order in which a cell's scenes are read."""
    once: dict[tuple[str, ...], JsonObject] = {}
    for one in found:
        once.setdefault((one["day"], one["item"], *(one[name] for name in also)), one)
    places = {
        (day.day.isoformat(), visit.scene.id): (number, position)
        for number, day in enumerate(days)
        for position, visit in enumerate(day.visits)
    }
    last = (len(days), 0)
    return sorted(once.values(), key=lambda one: places.get((one["day"], one["item"]), last))


def _merge_chips(window: Window, parts: Sequence[JsonObject]) -> JsonObject:
    """`chips` and `chip_pieces`: a piece of a chip becomes a row where the rest of it lies in the same cell."""
    rows = [row for part in parts for row in part["chips"]]
    pieces: dict[str, ChipCount] = {}
    for piece in (ChipCount.from_piece(piece) for part in parts for piece in part["chip_pieces"]):
        pieces[piece.chip_id] = pieces[piece.chip_id] + piece if piece.chip_id in pieces else piece
    whole = [piece for piece in pieces.values() if _holds(window, piece.window)]
    others = [piece for piece in pieces.values() if not _holds(window, piece.window)]
    rows += [piece.row() for piece in whole]
    return {
        "chips": sorted(rows, key=lambda row: (row[1], _place(row[0]))),
        "chip_pieces": sorted((piece.piece() for piece in others), key=lambda piece: _place(piece[0])),
    }


def _holds(cell: Window, chip: Window) -> bool:
    """Whether all of a chip lies in a cell."""
    return (
        cell.row <= chip.row
        and chip.row + chip.height <= cell.row + cell.height
        and cell.column <= chip.column
        and chip.column + chip.width <= cell.column + cell.width
    )


def _place(chip_id: str) -> tuple[int, ...]:
    """The numbers in a chip's id: grid-640-0, parcel-17."""
    return tuple(int(number) for number in chip_id.split("-")[1:])
