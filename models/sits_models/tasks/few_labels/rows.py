"""The finished runs: a file of JSON lines, one a run, that may be killed at any time."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sits_models.tasks.few_labels.plan import Run

__all__ = ["Row", "append_row", "done_of", "read_rows", "rows_by_key"]

Row = Mapping[str, Any]
"""`key`, the choices of a run, its scores in [0, 1], what it took and what it ran with."""


def read_rows(path: Path) -> list[Row]:
    """All rows; a last line without its end is one whose writer was killed, and is left out.

    Raises ValueError for any other line that is no row.
    """
    if not path.is_file():
        return []
    rows = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], 1):
        try:
            row = json.loads(line)
            row["key"]
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"line {number} of {path} is no row of a run; remove the line, or the file") from None
        rows.append(row)
    return rows


def append_row(path: Path, row: Row) -> None:
    """Put a row behind the others; when this returns, the disk holds it. A torn last line is cut off first."""
    line = json.dumps(row, allow_nan=False).encode() + b"\n"
    with path.open("r+b" if path.is_file() else "x+b") as file:
        whole = file.read().rfind(b"\n") + 1
        file.truncate(whole)
        file.seek(whole)
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def done_of(rows: Sequence[Row], runs: Sequence[Run]) -> dict[Run, Row]:
    """The rows of these runs, in the order of the runs."""
    by_key = rows_by_key(rows)
    return {run: by_key[run.key] for run in runs if run.key in by_key}


def rows_by_key(rows: Sequence[Row]) -> dict[str, Row]:
    """Of two rows of one run the first, for no run is done twice."""
    by_key: dict[str, Row] = {}
    for row in rows:
        by_key.setdefault(row["key"], row)
    return by_key
