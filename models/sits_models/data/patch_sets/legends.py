"""Tables of classes beside labels in files: which value or colour is which class."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sits_catalog.cube import IGNORE
from sits_catalog.taxonomy import distinct_colour
from sits_models.data.cubes import CropEntry

__all__ = ["Legend", "read_legend"]

_NOT_LABELLED = ("not labelled", "not labeled", "unlabelled", "unlabeled")


@dataclass(frozen=True, kw_only=True)
class Legend:
    """What labels mean."""

    path: str
    """Of the table."""
    classes: tuple[CropEntry, ...]
    table: tuple[tuple[int, int], ...]
    """By key, ascending: a value, or a colour as 65536 r + 256 g + b, and the index of its class, or IGNORE."""
    coloured: bool

    def classes_of(self, stored: NDArray[np.generic], file: str) -> NDArray[np.uint16]:
        """(H, W): indices of classes, of labels (1 or 3, H, W) as `file` has them. OSError where one is in no row."""
        whole = stored.astype(np.int64)
        labels = whole[0] * 65536 + whole[1] * 256 + whole[2] if self.coloured else whole[0]
        keys, indices = np.array(self.table).T
        at = np.searchsorted(keys, labels).clip(max=len(keys) - 1)
        strange = labels[keys[at] != labels]
        if strange.size:
            raise OSError(f"{file} has {self._words(int(strange[0]))}, which is in no row of {self.path}; add a row")
        return np.asarray(indices[at], np.uint16)

    def _words(self, key: int) -> str:
        return f"the colour {key >> 16}, {key >> 8 & 255}, {key & 255}" if self.coloured else f"the value {key}"


def read_legend(path: Path, *, coloured: bool) -> Legend:
    """The legend in a CSV file with the columns name and value, or name, r, g and b for labels of colours.

    Rows called "not labelled" are no class. ValueError where the file is not there or not so.
    """
    rows = _rows(path, ("r", "g", "b") if coloured else ("value",))
    keys = [key for _, key in rows]
    named = [(name, key) for name, key in rows if name.lower() not in _NOT_LABELLED]
    names = [name for name, _ in named]
    twice = sorted({name for name in names if names.count(name) > 1} | {n for n, key in rows if keys.count(key) > 1})
    if twice or not names:
        what = f"{', '.join(twice)} share a name, value or colour" if twice else "none"
        raise ValueError(f"{path} should have a class at least, each of a name and value or colour of its own; {what}")
    classes = tuple(
        CropEntry(
            index=index,
            code=name,
            name=name,
            hcat=None,
            colour=f"#{key:06x}" if coloured else distinct_colour(index),
        )
        for index, (name, key) in enumerate(named)
    )
    index = {entry.name: entry.index for entry in classes}
    table = tuple(sorted((key, index.get(name, IGNORE)) for name, key in rows))
    return Legend(path=str(path), classes=classes, table=table, coloured=coloured)


def _rows(path: Path, columns: Sequence[str]) -> list[tuple[str, int]]:
    """Name and value, or colour as a number, of each row."""
    limit = 256 if len(columns) == 3 else 65536
    expected = f"{path} should have the columns name, {', '.join(columns)}, with numbers from 0 to {limit - 1}"
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = [[cell.strip() for cell in row] for row in csv.reader(file) if any(cell.strip() for cell in row)]
    except FileNotFoundError:
        raise ValueError(f"{expected}, for the labels that there are; there is no such file") from None
    header = [cell.lower() for cell in table[0]] if table else []
    if not {"name", *columns} <= set(header):
        raise ValueError(f"{expected}; it has {', '.join(header) or 'no header'}")
    return [(row["name"], _key(row, columns, expected)) for row in (_cells(header, cells) for cells in table[1:])]


def _cells(header: Sequence[str], row: Sequence[str]) -> dict[str, str]:
    """The cells by column; a short row has empty ones."""
    return {column: row[number] if number < len(row) else "" for number, column in enumerate(header)}


def _key(row: dict[str, str], columns: Sequence[str], expected: str) -> int:
    numbers = [row[column] for column in columns]
    limit = 256 if len(columns) == 3 else 65536
    if not row["name"] or not all(text.isdecimal() and int(text) < limit for text in numbers):
        raise ValueError(f"{expected}; it has the row {','.join(row.values())!r}")
    key = 0
    for text in numbers:
        key = key * 256 + int(text)
    return key
