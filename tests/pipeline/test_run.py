from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sits_catalog.console import FAILED, WRONG_USE, guarded
from sits_pipeline.folder import Folder
from sits_pipeline.journal import Journal
from sits_pipeline.run import _FOLDERS, BuiltCells, in_words, with_earlier_units
from sits_pipeline.sources.base import ServiceDown
from sits_pipeline.store import CUBE


def entries(error: Exception) -> Iterator[dict[str, Any]]:
    """What a cluster gives whose second cell raises."""
    yield {"kind": "cell"}
    raise error


def code_of(error: Exception, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code and sentence of a build whose worker raises."""

    def work() -> int:
        return len(list(in_words(entries(error), unit="a cell")))

    with pytest.raises(SystemExit) as left:
        guarded(work, debug=False)
    return int(left.value.code or 0), capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (ValueError("operands could not be broadcast"), "ValueError: operands could not be broadcast; this is a fault"),
        (FileNotFoundError("no such file: x"), "a cell could not be built: no such file: x; run the same command"),
        (PermissionError("read-only"), "a cell could not be built: read-only"),
        (
            ServiceDown("api.example.org did not answer; try again later"),
            "error: api.example.org did not answer; try again later; run the same command again, which goes on where",
        ),
        (MemoryError("choose smaller cells"), "error: choose smaller cells"),
        (KeyError("B04"), "KeyError: 'B04'; this is a fault of the program"),
    ],
)
def test_what_goes_wrong_in_a_worker_is_a_failure_and_no_wrong_use(
    error: Exception, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = code_of(error, capsys)
    assert (code, FAILED) == (1, 1)
    assert code != WRONG_USE
    assert says in text


def test_units_of_a_cell_that_is_read_again_add_up() -> None:
    earlier = {(0, 0, 512, 512): 1.5}
    again = {"cell": [0, 0, 512, 512], "processing_units": 2.0}
    assert with_earlier_units(again, earlier)["processing_units"] == 3.5
    assert with_earlier_units({"cell": [0, 0, 512, 512]}, earlier)["processing_units"] == 1.5
    assert with_earlier_units({"cell": [0, 512, 512, 512]}, earlier) == {"cell": [0, 512, 512, 512]}


@pytest.mark.parametrize("where", ["local", "store"])
def test_cells_are_done_whose_last_line_has_no_failure_and_whose_shards_are_there(where: str, tmp_path: Path) -> None:
    folder = Folder(str(tmp_path) if where == "local" else f"memory://{uuid.uuid4().hex}")
    journal = Journal(folder)
    failure = [{"day": "2018-01-03", "item": "a", "band": "B02", "error": "it was not there"}]

    def append(row: int, size: int, failures: list[dict[str, str]], units: float = 0.0) -> None:
        shards = {f"{array}/c/0/{row}/0": [size, "0" * 64] for array in ("scl", "quality")}
        entry = {"kind": "cell", "cell": [row, 0, 1, 1], "failures": failures, "shards": shards}
        journal.append({**entry, "processing_units": units} if units else entry)
        for name in shards:
            folder.write(f"{CUBE}/{name}", bytes(4))

    append(0, 4, [])
    append(1, 4, failure, 2.0)
    append(1, 4, [], 3.5)
    append(2, 4, [])
    append(2, 4, failure)
    append(3, 5, [])
    append(4, 4, [])
    journal.flush()
    folder.remove(f"{CUBE}/quality/c/0/4/0")
    cells = BuiltCells.read(folder)
    assert cells.done == {(0, 0, 1, 1), (1, 0, 1, 1)}
    assert {key[0]: len(found) for key, found in cells.failures.items()} == {0: 0, 1: 0, 2: 1, 3: 0, 4: 0}
    assert cells.processing_units == 3.5


def test_more_folders_of_shards_than_are_remembered_are_looked_at(tmp_path: Path) -> None:
    folder, journal = Folder(str(tmp_path)), Journal(Folder(str(tmp_path)))
    rows = _FOLDERS + 3
    for row in [*range(rows), 0]:
        path = tmp_path / CUBE / "scl" / "c" / "0" / str(row) / "0"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"1234")
        journal.append({"kind": "cell", "cell": [row, 0], "failures": [], "shards": {f"scl/c/0/{row}/0": [4, ""]}})
    journal.flush()
    path.unlink()
    assert BuiltCells.read(folder).done == {(row, 0) for row in range(1, rows)}
