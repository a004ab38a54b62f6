"""The journal: one line a finished cell, with all that the finish step needs, in numbered segments.

While a build runs, `journal/000001.jsonl`, ... grow beside the cube, a new one every 100 cells or 10 s. On a local disk
every line is written at once and synced, twenty times a second at most; on an object store a segment is one PUT.
`merge` turns them into `journal.jsonl`, whose last line holds size and SHA-256 of every other file of the dataset.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import IO, Any

from sits_pipeline.folder import PART_BYTES, Folder, sync_folder
from sits_pipeline.values import JsonObject

__all__ = [
    *("MERGED", "CellLines", "Journal", "cell_parts", "encode_line", "has_cells", "plan_lines", "read_journal"),
    *("SplitUnderWay", "is_being_built", "segments", "split_under_way"),
]

MERGED = "journal.jsonl"
_SEGMENTS = "journal"
_CELLS_A_SEGMENT = 100
_SECONDS_A_SEGMENT = 10.0
_SYNC_S = 0.05
"""Lines that come closer to each other are synced together: a sync takes milliseconds."""
_PARTS = 8
"""Parts of a store's files that are kept: neighbours may stand in as many segments, where a build was taken up."""
_BUFFER = 2**18
_SHORT = 2**12
"""Bytes of a line of which a value is looked for first."""
_DECODER = json.JSONDecoder()


def encode_line(entry: JsonObject) -> bytes:
    """One line of JSON, keys sorted, newline at the end."""
    return json.dumps(entry, sort_keys=True, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def read_journal(folder: Folder) -> Iterator[JsonObject]:
    """All entries, oldest first: the merged file's, then the segments'. A torn last line of a segment is left out."""
    for _, number, line in _lines(folder, _files(folder)):
        yield _decode(number, line)


def plan_lines(folder: Folder) -> list[JsonObject]:
    """The lines of kind `plan` of a region's build, oldest first: the first line of a file is one, and no other."""
    firsts = (next(_raw_lines(folder, name, size), b"") for name, size in _files(folder).items())
    lines = [_decode(1, line) for line in firsts if line.endswith(b"\n") and b'"plan"' in line]
    return [line for line in lines if line["kind"] == "plan"]


def has_cells(folder: Folder) -> bool:
    """Whether any cell is built."""
    return next(cell_parts(folder, ()), None) is not None


def cell_parts(folder: Folder, names: Sequence[str]) -> Iterator[JsonObject]:
    """Of the lines of cells, oldest first, the entries of these names and `cell`; a name may be missing.

    Only they are decoded: a line has 20 to 100 KB of counts and chips, and a country 100 000 lines.
    """
    for _, number, line in _lines(folder, _files(folder)):
        if _is_cell(line):
            yield _parts(number, line, ("cell", *names))


def segments(folder: Folder) -> list[str]:
    """Names of the segments that are there, in their order."""
    return list(_segments(folder))


def _segments(folder: Folder) -> dict[str, int]:
    """The same with their sizes."""
    return {name: size for name, size in folder.sizes(_SEGMENTS).items() if name.endswith(".jsonl")}


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
    for _, number, text in _lines(folder, _segments(folder)):
        is_cell = _is_cell(text)
        entry = _parts(number, text, ("cell", "split_for")) if is_cell else _decode(number, text)
        digest = entry.get("config_sha256" if entry.get("kind") == "split" else "split_for")
        if digest is None:
            # A build's, which may have a gigabyte: where one is under way nothing is split, nor the other way round.
            return None
        if digest != found or not is_cell:
            found, cells = digest, set()
        if is_cell:
            cells.add(tuple(entry["cell"]))
    return None if found is None else SplitUnderWay(found, frozenset(cells))


def is_being_built(folder: Folder) -> bool:
    """Whether a build has begun and not ended; a segment whose first line was cut short tells of nothing."""
    lines = _lines(folder, _segments(folder))
    return split_under_way(folder) is None and next(lines, None) is not None


def _files(folder: Folder) -> dict[str, int]:
    """All files of the journal with their sizes, oldest first."""
    merged = folder.size(MERGED)
    return {**({} if merged is None else {MERGED: merged}), **_segments(folder)}


def _lines(folder: Folder, files: Mapping[str, int]) -> Iterator[tuple[_Place, int, bytes]]:
    """Where a line stands, its number in its file, and the line; what follows the last newline was cut short."""
    for name, size in files.items():
        start = 0
        for number, line in enumerate(_raw_lines(folder, name, size), 1):
            if line.endswith(b"\n"):
                yield _Place(name, start, len(line)), number, line
            start += len(line)


def _raw_lines(folder: Folder, name: str, size: int) -> Iterator[bytes]:
    """The lines of a file with their ends; what it held when it was listed, where it is of an object store."""
    if folder.is_local:
        # A line is longer than the buffer that a file has otherwise, of which each would take several.
        with (folder.path / name).open("rb", buffering=_BUFFER) as file:
            yield from file
        return
    rest = b""
    for part in folder.read_parts(name, size=size):
        *whole, rest = (rest + part).split(b"\n")
        yield from (line + b"\n" for line in whole)
    if rest:
        yield rest


def _decode(number: int, line: bytes) -> JsonObject:
    try:
        return dict(json.loads(line))
    except (ValueError, TypeError):
        raise _damaged(number, line) from None


def _damaged(number: int, line: bytes) -> ValueError:
    return ValueError(
        f"line {number} of the journal is damaged: {line[:80].rstrip()!r}; the dataset cannot be taken up"
    )


def _is_cell(line: bytes) -> bool:
    # No text can hold this: its quotes would have backslashes.
    return b'"kind":"cell"' in line and line.startswith(b"{") and line.endswith(b"}\n")


def _parts(number: int, line: bytes, names: Iterable[str]) -> JsonObject:
    """Entries of a cell's line by name; what is inside of one never has the name of another."""
    found, place = JsonObject(), 0
    # As the keys of a line: what was passed once need not be looked at again.
    for name in sorted(names):
        key = f'"{name}":'.encode()
        start = line.find(key, place)
        if start >= 0:
            place = start + len(key)
            try:
                found[name] = _value_at(line, place)
            except ValueError:
                raise _damaged(number, line) from None
    if "cell" not in found:
        raise _damaged(number, line)
    return found


def _value_at(line: bytes, start: int) -> Any:
    """The JSON value that begins there. Raises ValueError where none does."""
    # Most are short, and to make a text of all that follows takes longer than to read them.
    try:
        return _DECODER.raw_decode(line[start : start + _SHORT].decode("ascii", "replace"))[0]
    except ValueError:
        return _DECODER.raw_decode(line[start:].decode("ascii", "replace"))[0]


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
        self._parts = lru_cache(_PARTS)(self._part)
        self.splits: list[JsonObject] = []
        """The lines of `sits-cube split`, oldest first."""
        places: dict[tuple[int, ...], _Place] = {}
        for place, number, line in _lines(folder, _files(folder)):
            if _is_cell(line):
                places[tuple(_parts(number, line, ("cell",))["cell"])] = place
                continue
            entry = _decode(number, line)
            if entry["kind"] == "split" and entry not in self.splits[-1:]:
                self.splits.append(entry)
        self._places = [places[key] for key in sorted(places)]

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[bytes]:
        return map(self._read, self._places)

    def _read(self, place: _Place) -> bytes:
        stop = place.start + place.length
        if self._folder.is_local:
            return self._folder.read_range(place.name, place.start, stop)
        first = place.start // PART_BYTES
        parts = [self._parts(place.name, part) for part in range(first, -(-stop // PART_BYTES))]
        return b"".join(parts)[place.start - first * PART_BYTES : stop - first * PART_BYTES]

    def _part(self, name: str, number: int) -> bytes:
        """Of an object store: a request a part, and not one a line."""
        return self._folder.read_range(name, number * PART_BYTES, (number + 1) * PART_BYTES)


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
    _synced: float = field(init=False, default=-math.inf)
    """When a line was synced last."""

    def __post_init__(self) -> None:
        names = segments(self.folder)
        self._number = int(names[-1].rpartition("/")[2].removesuffix(".jsonl")) if names else 0
        self._ended = self.clock()

    def append(self, entry: JsonObject) -> None:
        """Add an entry. When it returns, a local file holds it, whatever becomes of this process.

        The disk holds it as well, unless the last line that was synced is less than 50 ms old: then with the next one.
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
            with self.folder.writing():
                self._sync(self._file)
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

    def close(self) -> None:
        """Let go of the segment, whatever has happened: its lines stand; of a store, as far as it takes them now."""
        if self._entries and not self.folder.is_local:
            with suppress(OSError):  # what stopped the build may stop this, too: then these cells are built again
                self.flush()
        if self._file is not None:
            self._file.close()
        self._file, self._entries = None, []

    def _sync(self, file: IO[bytes]) -> None:
        os.fsync(file.fileno())
        self._synced = self.clock()

    def _append_local(self, line: bytes) -> None:
        try:
            with self.folder.writing():
                if self._file is None:
                    path = self.folder.path / self._name
                    path.parent.mkdir(parents=True, exist_ok=True)
                    # Without a buffer, so that nothing of a line that did not fit is tried again when it is closed.
                    self._file = path.open("xb", buffering=0)
                    sync_folder(path.parent)
                left = memoryview(line)
                while left:
                    # A full disk may take a first part; the rest then brings the error.
                    left = left[self._file.write(left) :]
                if self.clock() - self._synced >= _SYNC_S:
                    self._sync(self._file)
        except OSError:
            self.close()
            raise
