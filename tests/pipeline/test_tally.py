from __future__ import annotations

import io
import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from tests.pipeline.small_cube import small_layout

from sits_pipeline.folder import Folder
from sits_pipeline.geoparquet import write_geo_table
from sits_pipeline.journal import CellLines, Journal, encode_line
from sits_pipeline.steps.chips import chips_table, merge_chips
from sits_pipeline.steps.statistics import accumulate, merge
from sits_pipeline.tally import tally_cells
from sits_pipeline.values import JsonObject

N_DATES = 40
_BANDS = accumulate(
    np.arange(64, dtype=np.uint16).reshape(1, 1, 8, 8) * 50 + 1, np.ones((1, 8, 8), dtype=np.bool_), None
)


def entry(row: int, column: int, side: int, *, parcel: int = 0, n_parcels: int = 400) -> JsonObject:
    """A cell's line of the size that it has in a real cube: chips, parcels, histograms."""
    rng = np.random.default_rng([row, column])
    chips = [
        [
            f"grid-{top}-{left}", "grid", top, left, 64, 64, 1, 4000, 3,
            {str(crop): 400 + crop for crop in range(12)}, 20, 90_000, N_DATES,
        ]
        for top in range(row, row + side, 64)
        for left in range(column, column + side, 64)
    ]  # fmt: skip
    chips.append([f"parcel-{parcel}", "parcel", row + 3, column + 5, 64, 80, 1, 10, 1, {"2": 10}, 1, 9, N_DATES])
    piece = [f"parcel-{parcel + 1}", [row, column, 64, 64], 1, 5, [parcel + 1], {"3": 5}, [1] * N_DATES]
    return {
        "kind": "cell",
        "cell": [row, column, side, side],
        "empty": False,
        "observed": rng.integers(0, side * side, N_DATES).tolist(),
        "clear": rng.integers(0, side * side, N_DATES).tolist(),
        "used": [[0, 1]] * N_DATES,
        "failures": [],
        "classes": {str(crop): 1000 + crop for crop in range(12)},
        "parcels": {str(parcel + number): 50 for number in range(n_parcels)},
        "splits": {"1": side * side},
        "bands": _BANDS,
        "chips": chips,
        "chip_pieces": [piece],
        "shards": {f"quality/c/0/{row // side}/{column // side}": [1000, "0" * 64]},
        "seconds": 1.0,
    }


def stored(table: Any) -> bytes:
    buffer = io.BytesIO()
    write_geo_table(buffer, table)
    return buffer.getvalue()


@pytest.fixture
def entries() -> list[JsonObject]:
    """Four cells of 128 px, in order."""
    corners = [(0, 0), (0, 128), (128, 0), (128, 128)]
    return [entry(row, column, 128, parcel=1 + 10 * n, n_parcels=4) for n, (row, column) in enumerate(corners)]


def test_chips_are_the_table_of_all_rows_at_once(entries: list[JsonObject]) -> None:
    geobox = small_layout((256, 256)).geobox
    tally = tally_cells(map(encode_line, entries), geobox, last_parcel=50)
    expected = chips_table(merge_chips(entries), geobox)
    assert tally.chips == stored(expected)
    table = pq.read_table(io.BytesIO(tally.chips))
    assert table.schema.metadata == expected.schema.metadata
    assert table.equals(expected)
    assert table.num_rows == 4 * (4 + 1 + 1)


def test_sums_are_those_of_all_cells(entries: list[JsonObject]) -> None:
    tally = tally_cells(map(encode_line, entries), small_layout((256, 256)).geobox, last_parcel=50)
    (band,), (expected,) = tally.bands, merge(one["bands"] for one in entries)
    assert (band.n, band.total, band.squares) == (expected.n, expected.total, expected.squares)
    assert tally.parcel_pixels.shape == (51,)
    assert tally.parcel_pixels[[1, 4, 5, 11, 31]].tolist() == [50, 50, 0, 50, 50]
    assert tally.parcel_pixels.sum() == 4 * 4 * 50
    for cell, one in zip(tally.cells, entries, strict=True):
        assert {name: cell[name] for name in ("cell", "failures", "classes", "splits")}.items() <= one.items()
        assert cell["observed"].tolist() == one["observed"]
        assert [list(items) for items in cell["used"]] == one["used"]


def test_a_journal_without_a_cell_adds_up_to_nothing() -> None:
    tally = tally_cells([], small_layout((256, 256)).geobox, last_parcel=0)
    assert (tally.cells, tally.bands, pq.read_table(io.BytesIO(tally.chips)).num_rows) == ((), [], 0)


def test_the_last_line_of_a_cell_counts_and_cells_come_in_order(tmp_path: Path) -> None:
    for folder in (Folder(str(tmp_path)), Folder("memory://tally-last-line")):
        journal = Journal(folder)
        for column, seconds in ((512, 1), (0, 2), (512, 3)):
            journal.append({"kind": "plan"})
            journal.append({"kind": "cell", "cell": [0, column, 512, 512], "seconds": seconds})
            journal.flush()
        lines = CellLines(folder)
        assert len(lines) == 2
        assert [json.loads(line)["seconds"] for line in lines] == [2, 3]
        assert list(lines) == list(lines)


@pytest.mark.soak
def test_memory_grows_by_few_kilobytes_a_cell(tmp_path: Path) -> None:
    """Lines of 40 KB or more, each of which would be a third of a megabyte of Python objects."""
    folder = Folder(str(tmp_path))
    columns, rows, side = 10, 40, 1024

    def lines() -> Iterator[bytes]:
        for row in range(rows):
            for column in range(columns):
                number = row * columns + column
                yield encode_line(entry(row * side, column * side, side, parcel=1 + number * 400))

    journal = Journal(folder)
    journal.merge(lines())
    size = folder.size("journal.jsonl")
    assert size is not None
    assert size > rows * columns * 40_000
    geobox = small_layout((rows * side, columns * side)).geobox
    tally_cells([], geobox, last_parcel=0)  # what is imported on the way does not count
    tracemalloc.start()
    try:
        found = CellLines(folder)
        tally = tally_cells(found, geobox, last_parcel=rows * columns * 400 + 2)
        journal.merge(found)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(tally.cells) == rows * columns
    # The counts of 400 parcels a cell among it; Arrow's own memory, 90 KB a cell, is not.
    assert kept < rows * columns * 12_000
    # A row of ten cells is held at a time.
    assert peak < kept + 12_000_000
    assert folder.size("journal.jsonl") == size


def test_a_damaged_line_is_named(entries: list[JsonObject]) -> None:
    lines = [encode_line(entries[0]), encode_line(entries[1]).replace(b'"chips":[', b'"chips":', 1)]
    with pytest.raises(ValueError, match=r"a cell's line of the journal is damaged: b'\{\"bands\".*remove that line"):
        tally_cells(lines, small_layout((256, 256)).geobox, last_parcel=50)


def test_what_services_said_and_charged_is_added_up(tmp_path: Path) -> None:
    plain, first, second = (entry(0, column, 64) for column in (0, 64, 128))
    merged = {"day": "2018-01-03", "item": "a", "note": "merged by the service"}
    other = {"day": "2018-01-03", "item": "a", "note": "another remark"}
    first |= {"notes": [merged, {**merged, "day": "2018-01-08"}], "processing_units": 1.5}
    second |= {"notes": [merged, other], "processing_units": 0.25}
    lines = [encode_line(line) for line in (plain, first, second)]
    tally = tally_cells(lines, small_layout((64, 192)).geobox, last_parcel=1000)
    assert tally.notes == {"a": ("another remark", "merged by the service")}
    assert tally.processing_units == 1.75
