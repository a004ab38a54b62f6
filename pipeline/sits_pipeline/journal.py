"""The journal: one line a finished cell, with all that the finish step needs, in numbered segments.

While a build runs, `journal/000001.jsonl`, ... grow beside the cube, a new one every 100 cells or 10 s. On a local disk
every line is synced as it is written; on an object store a segment is one PUT. `merge` turns them into `journal.jsonl`,
whose last line holds size and SHA-256 of every other file of the dataset.
"""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import IO

from sits_pipeline.folder import Folder, sync_folder
from sits_pipeline.values import JsonObject

__all__ = [
    *("MERGED", "CellLines", "Journal", "encode_line", "has_cells", "read_journal", "segments"),
    *("SplitUnderWay", "is_being_built", "split_under_way"),
]

MERGED = "journal.jsonl"
_SEGMENTS = "journal"
_CELLS_A_SEGMENT = 100
_SECONDS_A_SEGMENT = 10.0


def encode_line(entry: JsonObject) -> bytes:
    """One line of JSON, keys sorted, newline at the end."""
    return json.dumps(entry, sort_keys=True, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def read_journal(folder: Folder) -> Iterator[JsonObject]:
    """All entries, oldest first: the merged file's, then the segments'. A torn last line of a segment is left out."""
    for _, number, line in _lines(folder, _files(folder)):
        yield _decode(number, line)


def has_cells(folder: Folder) -> bool:
    """Whether any cell is built."""
    return any(entry["kind"] == "cell" for entry in read_journal(folder))


def segments(folder: Folder) -> list[str]:
    """Names of the segments that are there, in their order."""
    return [name for name in folder.files(_SEGMENTS) if name.endswith(".jsonl")]


@dataclass(frozen=True)
class SplitUnderWay:
    """Splits that are being replaced: some cells may have new ones, others the old."""

    config_sha256: str
    """What the cube's will be."""
    cells: frozenset[tuple[int, ...]]
    """Those that have their new splits."""


def split_under_way(folder: Folder) -> SplitUnderWay | None:
    """What `sits-cube split` has begun and not ended; None where no such work was interrupted.

    Its cells say what they were split for, since of several segments that are removed at the end the first one, with
    the line that began it, goes first.
    """
    found, cells = None, set[tuple[int, ...]]()
    for _, number, text in _lines(folder, segments(folder)):
        entry = _decode(number, text)
        digest = entry.get("config_sha256" if entry["kind"] == "split" else "split_for")
        if digest is not None and (digest != found or entry["kind"] == "split"):
            found, cells = digest, set()
        if digest is not None and entry["kind"] == "cell":
            cells.add(tuple(entry["cell"]))
    return None if found is None else SplitUnderWay(found, frozenset(cells))


def is_being_built(folder: Folder) -> bool:
    """Whether a build has begun and not ended; a segment whose first line was cut short tells of nothing."""
    lines = _lines(folder, segments(folder))
    return split_under_way(folder) is None and next(lines, None) is not None


def _files(folder: Folder) -> list[str]:
    """Names of all files of the journal, oldest first."""
    return [MERGED, *segments(folder)] if folder.exists(MERGED) else segments(folder)


def _lines(folder: Folder, names: Iterable[str]) -> Iterator[tuple[_Place, int, bytes]]:
    """Where a line stands, its number in its file, and the line; what follows the last newline was cut short."""
    for name in names:
        start = 0
        with _opened(folder, name) as file:
            for number, line in enumerate(file, 1):
                if line.endswith(b"\n"):
                    yield _Place(name, start, len(line)), number, line
                start += len(line)


def _opened(folder: Folder, name: str) -> IO[bytes]:
    """A file of the journal; of an object store, all of it in memory."""
    return (folder.path / name).open("rb") if folder.is_local else io.BytesIO(folder.read(name))


def _decode(number: int, line: bytes) -> JsonObject:
    try:
        return dict(json.loads(line))
    except (ValueError, TypeError):
        raise ValueError(
            f"line {number} of the journal is damaged: {line[:80].rstrip()!r}; the dataset cannot be taken up"
        ) from None


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a line stands: file, first byte, length."""

    name: str
    start: int
    length: int


class CellLines:
    """The last line of each cell in the order of the cells, read one at a time: only their places are remembered."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._buffers: dict[str, bytes] = {}
        self.splits: list[JsonObject] = []
        """The lines of `sits-cube split`, oldest first."""
        places: dict[tuple[int, ...], _Place] = {}
        for place, number, line in _lines(folder, _files(folder)):
            entry = _decode(number, line)
            if entry["kind"] == "cell":
                places[tuple(entry["cell"])] = place
            elif entry["kind"] == "split" and entry not in self.splits[-1:]:
                self.splits.append(entry)
        self._places = [places[key] for key in sorted(places)]

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[bytes]:
        return map(self._read, self._places)

    def _read(self, place: _Place) -> bytes:
        if self._folder.is_local:
            with (self._folder.path / place.name).open("rb") as file:
                file.seek(place.start)
                return file.read(place.length)
        if place.name not in self._buffers:
            self._buffers[place.name] = self._folder.read(place.name)
        return self._buffers[place.name][place.start : place.start + place.length]


@dataclass
class Journal:
    """Appends entries to a dataset's journal; one writer at a time."""

    folder: Folder
    clock: Callable[[], float] = time.monotonic
    """Seconds; decides when a segment is old."""
    _number: int = field(init=False)
    _entries: list[bytes] = field(init=False, default_factory=list)
    _ended: float = field(init=False)
    """When the segment before this one ended."""
    _file: IO[bytes] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        names = segments(self.folder)
        self._number = int(names[-1].rpartition("/")[2].removesuffix(".jsonl")) if names else 0
        self._ended = self.clock()

    def append(self, entry: JsonObject) -> None:
        """Add an entry. When it returns, a local disk holds it.

        An object store holds it at once where the last PUT is 10 s ago, else with the next entry after that.
        """
        if not self._entries:
            self._number += 1
        self._entries.append(encode_line(entry))
        if self.folder.is_local:
            self._append_local(self._entries[-1])
        if len(self._entries) >= _CELLS_A_SEGMENT or self.clock() - self._ended >= _SECONDS_A_SEGMENT:
            self.flush()

    def flush(self) -> None:
        """End the segment. Raises BlockingIOError, and writes nothing, where another build has taken over the lock."""
        self.folder.check_lock()
        if self._file is not None:
            self._file.close()
            self._file = None
        elif self._entries:
            # As the local "xb": should the lock be lost at this very moment, another one's lines still stand.
            self.folder.create(self._name, b"".join(self._entries))
        self._entries = []
        self._ended = self.clock()

    def merge(self, lines: Iterable[bytes]) -> None:
        """Replace all segments by one merged file of `lines`, which may come out of the files that it replaces."""
        self.flush()
        self.folder.write_parts(MERGED, lines)
        for name in segments(self.folder):
            self.folder.remove(name)
        if self.folder.is_local and (self.folder.path / _SEGMENTS).is_dir():
            (self.folder.path / _SEGMENTS).rmdir()

    @property
    def _name(self) -> str:
        return f"{_SEGMENTS}/{self._number:06d}.jsonl"

    def _append_local(self, line: bytes) -> None:
        if self._file is None:
            path = self.folder.path / self._name
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("xb")
            sync_folder(path.parent)
        self._file.write(line)
        self._file.flush()
        os.fsync(self._file.fileno())
