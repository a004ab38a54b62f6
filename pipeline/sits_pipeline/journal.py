"""The journal: one line a finished cell, with all that the finish step needs, in numbered segments.

While a build runs, `journal/000001.jsonl`, ... grow beside the cube, a new one every 100 cells or 10 s. On a local disk
every line is synced as it is written; on an object store a segment is one PUT. `merge` turns them into `journal.jsonl`,
whose last line holds size and SHA-256 of every other file of the dataset.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import IO

from sits_pipeline.folder import Folder, sync_folder
from sits_pipeline.values import JsonObject

__all__ = ["MERGED", "Journal", "encode_line", "read_journal"]

MERGED = "journal.jsonl"
_SEGMENTS = "journal"
_CELLS_A_SEGMENT = 100
_SECONDS_A_SEGMENT = 10.0


def encode_line(entry: JsonObject) -> bytes:
    """One line of JSON, keys sorted, newline at the end."""
    return json.dumps(entry, sort_keys=True, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def read_journal(folder: Folder) -> Iterator[JsonObject]:
    """All entries, oldest first: the merged file's, then the segments'. A torn last line of a segment is left out."""
    if folder.exists(MERGED):
        yield from _decode(folder.read(MERGED))
    for name in segments(folder):
        yield from _decode(folder.read(name))


def segments(folder: Folder) -> list[str]:
    """Names of the segments that are there, in their order."""
    return [name for name in folder.files(_SEGMENTS) if name.endswith(".jsonl")]


def _decode(data: bytes) -> Iterator[JsonObject]:
    """Entries of one file; what follows the last newline is a write that was cut short."""
    for number, line in enumerate(data.split(b"\n")[:-1], 1):
        try:
            yield json.loads(line)
        except ValueError:
            raise ValueError(
                f"line {number} of the journal is damaged: {line[:80]!r}; the dataset cannot be taken up"
            ) from None


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
        """End the segment."""
        if self._file is not None:
            self._file.close()
            self._file = None
        elif self._entries:
            self.folder.write(self._name, b"".join(self._entries))
        self._entries = []
        self._ended = self.clock()

    def merge(self, entries: Iterable[JsonObject]) -> None:
        """Replace all segments by one merged file of `entries`."""
        self.flush()
        self.folder.write(MERGED, b"".join(encode_line(entry) for entry in entries))
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
