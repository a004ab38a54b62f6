"""What of a map is done: a folder beside it that takes up an interrupted run, and refuses another one."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sits_models.checkpoints import write_whole

__all__ = ["Work", "lock_folder", "open_work", "refuse_another"]

_WORK = "work"
_IDENTITY = "made_of.json"
_JOURNAL = "journal.jsonl"


@dataclass(frozen=True)
class Work:
    """The folder `work` of a map that is not finished."""

    path: Path

    def begin(self, identity: Mapping[str, Any]) -> None:
        """Mark the work as begun, once there is an empty map."""
        write_whole(self.path / _IDENTITY, json.dumps(identity, indent=1, sort_keys=True).encode())

    def done(self) -> dict[int, dict[str, Any]]:
        """The line of each finished block, by its number; a line that was cut short is none."""
        journal = self.path / _JOURNAL
        if not journal.exists():
            return {}
        lines = [line for line in journal.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
        # What was cut short goes, so that the next line begins on its own.
        write_whole(journal, b"".join(lines))
        return {entry["block"]: entry for entry in map(json.loads, lines)}

    def finish(self, entry: Mapping[str, Any]) -> None:
        """Enter a block whose files are written; when it returns, the disk holds the line."""
        with (self.path / _JOURNAL).open("ab") as file:
            file.write(json.dumps(entry, sort_keys=True).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def counts(self, block: int) -> Path:
        """The file of a block's parcel counts."""
        return self.path / f"parcels-{block:06d}.npz"

    def remove(self) -> None:
        """The map is finished."""
        shutil.rmtree(self.path)


def open_work(folder: Path, identity: Mapping[str, Any]) -> tuple[Work, dict[str, Any] | None]:
    """The work in `folder`, and what it was begun with before, None where it was not.

    `identity` names all that decides the pixels. Raises FileExistsError where the folder holds something else.
    """
    work, found = Work(folder / _WORK), folder / _WORK / _IDENTITY
    if found.exists():
        before = dict(json.loads(found.read_bytes()))
        refuse_another(folder, before, identity)
        return work, before
    if any(entry.name != _WORK for entry in folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty and holds no map that was begun; choose another --out")
    work.path.mkdir(exist_ok=True)
    return work, None


def refuse_another(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raises FileExistsError where a map was made of something else than what is asked for now."""
    other = [key for key in now if before.get(key) != now[key]]
    if other:
        changes = ", ".join(f"{key} {_short(before.get(key))}, now {_short(now[key])}" for key in other)
        raise FileExistsError(
            f"{folder} holds a map that was begun otherwise ({changes}); choose another --out, or remove the folder"
        )


def _short(value: object) -> str:
    text = str(value)
    return f"{text[:12]}..." if len(text) > 40 else text


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Keep a folder for this process. Raises BlockingIOError where another one works in it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BlockingIOError(f"another process works in {folder}; wait until it is done") from None
        yield
    finally:
        os.close(descriptor)
