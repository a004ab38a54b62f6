"""What the finish step takes from the journal, gathered one cell after another in a memory that grows little a cell."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from sits_pipeline.geoparquet import GeoTableWriter
from sits_pipeline.steps.chips import chips_table, merge_chips
from sits_pipeline.steps.statistics import BandSums, merge
from sits_pipeline.values import JsonObject

__all__ = ["Tally", "tally_cells"]


@dataclass(frozen=True, kw_only=True)
class Tally:
    """All cells of a dataset, added up."""

    cells: tuple[JsonObject, ...]
    """One a cell, in order: what a report needs of its entry, {cell, observed, clear, used, failures, classes, splits};
    `observed` and `clear` are arrays."""
    notes: Mapping[str, tuple[str, ...]]
    """What services said of how an item was read, each remark once, by item."""
    processing_units: float
    """Sentinel Hub's, of all cells."""
    bands: list[BandSums]
    """Empty for no cells."""
    chips: bytes
    """`chips.parquet`; a country has millions, which take a tenth as much this way."""
    parcel_pixels: NDArray[np.int64]
    """(parcel_id + 1,): pixels that each parcel has won."""


def tally_cells(lines: Iterable[bytes], geobox: GeoBox, *, last_parcel: int) -> Tally:
    """Add up the journal's lines, one a cell in the order of cells; parcels are numbered up to `last_parcel`.

    Raises ValueError for a line that is damaged.
    """
    cells: list[JsonObject] = []
    bands: list[BandSums] = []
    chips = io.BytesIO()
    writer = GeoTableWriter(chips)
    pixels = np.zeros(last_parcel + 1, np.int64)
    whole: list[Any] = []
    pieces: list[Any] = []
    sets: dict[tuple[int, ...], tuple[int, ...]] = {}
    notes: dict[str, set[str]] = {}
    units = 0.0
    # All chips of the grid that begin in a row of cells come before those of the next row: a table a row of cells.
    for _, row in groupby(_entries(lines), key=lambda entry: entry["cell"][0]):
        grid: list[JsonObject] = []
        for entry in row:
            cells.append(_slim(entry, sets))
            bands = _add(bands, entry["bands"])
            _count(pixels, entry["parcels"])
            units += entry.get("processing_units", 0.0)
            for remark in entry.get("notes", ()):
                notes.setdefault(remark["item"], set()).add(remark["note"])
            grid.append({"chips": [chip for chip in entry["chips"] if chip[1] == "grid"], "chip_pieces": []})
            whole += [chip for chip in entry["chips"] if chip[1] != "grid"]
            pieces += entry["chip_pieces"]
        writer.write(chips_table(merge_chips(grid), geobox))
    writer.write(chips_table(merge_chips([{"chips": whole, "chip_pieces": pieces}]), geobox))
    writer.close()
    return Tally(
        cells=tuple(cells),
        notes={item: tuple(sorted(said)) for item, said in sorted(notes.items())},
        processing_units=units,
        bands=bands,
        chips=chips.getvalue(),
        parcel_pixels=pixels,
    )


def _entries(lines: Iterable[bytes]) -> Iterator[JsonObject]:
    """Raises ValueError for a line that is damaged: of those that were there before, only a part was looked at."""
    for line in lines:
        try:
            yield json.loads(line)
        except ValueError:
            raise ValueError(
                f"a cell's line of the journal is damaged: {line[:80]!r}; remove that line and run the same command "
                "again, which builds the cell anew"
            ) from None


def _slim(entry: JsonObject, sets: dict[tuple[int, ...], tuple[int, ...]]) -> JsonObject:
    """The part of an entry that reports look at; of equal sets of items, of which there are few, one is kept."""
    used = tuple(sets.setdefault(tuple(items), tuple(items)) for items in entry["used"])
    return {
        **{name: entry[name] for name in ("cell", "failures", "classes", "splits")},
        **{name: np.array(entry[name], np.int32) for name in ("observed", "clear")},
        "used": used,
    }


def _add(bands: list[BandSums], cell: list[JsonObject]) -> list[BandSums]:
    more = merge([cell])
    return [a + b for a, b in zip(bands, more, strict=True)] if bands else more


def _count(pixels: NDArray[np.int64], parcels: dict[str, int]) -> None:
    if parcels:
        pixels[np.array(list(parcels), np.int64)] += np.array(list(parcels.values()), np.int64)
