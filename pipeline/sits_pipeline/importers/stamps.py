"""Of which files a shard was made: their sizes and hashes, so that a changed original is noticed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sits_pipeline.folder import Folder
from sits_pipeline.importers.original import Original, OriginalPatch
from sits_pipeline.journal import CellLines

__all__ = ["FileStamp", "changed_shards", "stamps_of"]

FileStamp = list[str | int]
"""Name in the original, bytes, SHA-256: an entry of `files` in a shard's line of the journal."""


def stamps_of(original: Original, patches: Sequence[OriginalPatch]) -> list[FileStamp]:
    """What the files of these patches are now, in their order. Raises FileNotFoundError where one is missing."""
    return [_stamp(name, path) for patch in patches for name, path in original.files(patch).items()]


def changed_shards(
    original: Original, patches: Sequence[OriginalPatch], folder: Folder, threads: int
) -> set[tuple[int, ...]]:
    """Shards that the journal lists and whose files are others now; every file of the original is read for it.

    Raises FileNotFoundError where a file is missing.
    """

    def differs(pair: tuple[tuple[int, ...], list[FileStamp]]) -> tuple[int, ...] | None:
        (first, count), files = pair
        return None if stamps_of(original, patches[first : first + count]) == files else (first, count)

    with ThreadPoolExecutor(threads) as pool:
        return {key for key in pool.map(differs, _listed(folder)) if key is not None}


def _listed(folder: Folder) -> Iterator[tuple[tuple[int, ...], list[FileStamp]]]:
    for line in CellLines(folder):
        entry = json.loads(line)
        yield tuple(entry["cell"]), entry["files"]


def _stamp(name: str, path: Path) -> FileStamp:
    try:
        with path.open("rb") as file:
            # Not the time of change: a copy of the same files is the same original.
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return [name, file.tell(), digest]
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing; it was there when the original was opened") from None
