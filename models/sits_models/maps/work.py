"""What of a map is done: a folder beside it that takes up an interrupted run, and refuses another one."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sits_models.folder import sync, write_whole

__all__ = ["WORK", "Begun", "Work", "open_work", "refuse_another"]

WORK = "work"
"""Name of the folder beside the map."""
_IDENTITY = "made_of.json"
_JOURNAL = "journal.jsonl"
_PARCELS = "parcels"


@dataclass(frozen=True, kw_only=True)
class Begun:
    """What a map was begun with."""

    identity: Mapping[str, Any]
    """All that decides the pixels."""
    threads: int
    """Of torch, which decide the last bit of a probability."""
    state: Literal["creating", "created"] = "creating"
    """Whether there is an empty map to write cells into."""


@dataclass(frozen=True)
class Work:
    """The folder `work` of a map that is not finished."""

    path: Path

    def begin(self, begun: Begun) -> None:
        """Say what the map is made of: before anything of it is written, and again once it is created."""
        plain = {**begun.identity, "threads": begun.threads, "state": begun.state}
        self.path.mkdir(exist_ok=True)
        sync(self.path.parent)
        write_whole(self.path / _IDENTITY, json.dumps(plain, indent=1, sort_keys=True).encode())

    def begun(self) -> Begun | None:
        """What the map was begun with, None where it was not."""
        try:
            plain = json.loads((self.path / _IDENTITY).read_bytes())
        except FileNotFoundError:
            return None
        return Begun(threads=int(plain.pop("threads")), state=plain.pop("state"), identity=plain)

    def done(self) -> dict[int, dict[str, Any]]:
        """The line of each finished cell, by its number; a line that was cut short is none."""
        journal = self.path / _JOURNAL
        if not journal.exists():
            return {}
        found = journal.read_bytes().splitlines(keepends=True)
        lines = [line for line in found if line.endswith(b"\n")]
        if len(lines) < len(found):
            # What was cut short goes, so that the next line begins on its own.
            write_whole(journal, b"".join(lines))
        return {entry["cell"]: entry for entry in map(json.loads, lines)}

    def finish(self, entry: Mapping[str, Any]) -> None:
        """Enter a cell whose files are on the disk; when it returns, the disk holds the line."""
        journal = self.path / _JOURNAL
        is_first = not journal.exists()
        with journal.open("ab") as file:
            file.write(json.dumps(entry, sort_keys=True).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        if is_first:
            sync(self.path)

    @property
    def parcels(self) -> Path:
        """The folder of the parcel counts."""
        return self.path / _PARCELS

    def remove(self) -> None:
        """The map is finished."""
        if self.path.exists():
            shutil.rmtree(self.path)


def open_work(folder: Path, identity: Mapping[str, Any]) -> tuple[Work, Begun | None]:
    """The work in `folder`, and what it was begun with before, None where it was not.

    `identity` names all that decides the pixels. Raises FileExistsError where the folder holds something else. What a
    killed process left half written is removed.
    """
    work = Work(folder / WORK)
    before = work.begun()
    if before is not None:
        refuse_another(folder, before.identity, identity)
    elif any(not _is_ours(entry) for entry in folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty and holds no map that was begun; choose another --out")
    for leftover in folder.rglob("*.partial*"):
        if leftover.is_file():
            leftover.unlink()
    return work, before


def _is_ours(entry: Path) -> bool:
    """Whether it is a work folder that holds nothing yet."""
    return entry.name == WORK and entry.is_dir() and all(".partial" in inner.name for inner in entry.iterdir())


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
