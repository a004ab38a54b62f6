"""The folder of a catalogue: where things lie in it, its lock, and files that are written whole or not at all."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

__all__ = ["CATALOGUE_VARIABLE", "DATASETS", "MARK", "Catalogue", "Entry", "check_name", "encode_json", "read_json"]

JsonObject = dict[str, Any]

CATALOGUE_VARIABLE = "SITS_CATALOGUE"
"""Environment variable that names the catalogue's folder."""
_DEFAULT = "catalogue"
MARK = "sits_cube:catalogue"
"""The field of `catalog.json` that says a folder is ours to write into."""
DATASETS = "datasets"
"""Path of the served page under which the files of datasets are; no family has this name."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")


def check_name(kind: str, name: str, hint: str) -> str:
    """The name, if a file may be named so. Raises ValueError otherwise."""
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{kind} {name[:60]!r} cannot name a folder; letters, digits, - and _ can, 100 of them at most: {hint}"
        )
    return name


def encode_json(value: JsonObject) -> bytes:
    """JSON as files of the catalogue hold it."""
    return (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


@dataclass(frozen=True)
class Entry:
    """A dataset in the catalogue."""

    folder: Path
    """Of the entry, not of the dataset."""

    @cached_property
    def item(self) -> JsonObject:
        """The STAC item."""
        return read_json(self.folder / f"{self.id}.json")

    @property
    def id(self) -> str:
        """The item's id."""
        return self.folder.name

    @property
    def family(self) -> str:
        """The id of the collection."""
        return self.folder.parent.name

    @cached_property
    def splits(self) -> tuple[JsonObject, ...]:
        """The ml-aoi items of its splits."""
        return tuple(
            read_json(path)
            for path in sorted((self.folder / "splits").glob("*.json"))
            if path.name != "collection.json"
        )

    @cached_property
    def outlines(self) -> JsonObject:
        """What the page draws of its parcels or patches."""
        return read_json(self.folder / "outlines.json")


@dataclass(frozen=True)
class Catalogue:
    """A catalogue by its folder."""

    folder: Path

    @classmethod
    def at(cls, folder: str | Path | None, environment: Mapping[str, str]) -> Catalogue:
        """The catalogue in `folder`; None: the one that SITS_CATALOGUE names, else `catalogue` in the working folder.

        Raises ValueError where the folder holds other things.
        """
        named = folder if folder is not None else environment.get(CATALOGUE_VARIABLE) or _DEFAULT
        if "://" in str(named):
            raise ValueError(f"a catalogue is a folder of this machine, got the address {str(named).partition('?')[0]}")
        found = cls(Path(os.path.realpath(named)))
        found._check()
        return found

    def _check(self) -> None:
        if not self.folder.exists():
            return
        if not self.folder.is_dir():
            raise ValueError(f"{self.folder} is a file; a catalogue is a folder")
        root = self.folder / "catalog.json"
        if root.is_file():
            if MARK not in read_json(root):
                raise ValueError(f"{root} is a STAC catalogue of something else; name another folder with --catalogue")
        elif any(not path.name.startswith(".") for path in self.folder.iterdir()):
            raise ValueError(f"{self.folder} holds other files; name an empty or a new folder with --catalogue")

    @property
    def exists(self) -> bool:
        """Whether anything was ever added."""
        return (self.folder / "catalog.json").is_file()

    def check_exists(self) -> None:
        """Raises FileNotFoundError where there is no catalogue."""
        if not self.exists:
            raise FileNotFoundError(
                f"no catalogue in {self.folder}; make one with `sits-catalog cubes add DATASET`, or name its folder "
                f"with --catalogue or {CATALOGUE_VARIABLE}"
            )

    def entries(self) -> tuple[Entry, ...]:
        """All entries by family and id."""
        found = (
            Entry(path.parent)
            for path in self.folder.glob("*/*/*.json")
            if path.stem == path.parent.name and not path.parent.name.startswith(".")
        )
        return tuple(sorted(found, key=lambda entry: (entry.family, entry.id)))

    def entry(self, name: str) -> Entry:
        """The entry with an id. Raises ValueError where there is none."""
        self.check_exists()
        entries = self.entries()
        for entry in entries:
            if entry.id == name:
                return entry
        known = ", ".join(entry.id for entry in entries) or "nothing"
        raise ValueError(f"no dataset named {name!r} in {self.folder}; it has: {known}")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Alone among all who write here, in this and other processes; waits until the others are done."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            self._mend()
            yield

    def _mend(self) -> None:
        """Put right what a process that was killed between two renames has left."""
        for path in self.folder.glob("*/.*.old"):
            whole = path.with_name(path.name[1 : -len(".old")])
            if whole.exists():
                shutil.rmtree(path)
            else:
                path.rename(whole)
        for pattern in (".*.partial", "*/.*.partial", "*/.*.gone"):
            for path in self.folder.glob(pattern):
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()
        newest: dict[str, Entry] = {}
        for entry in sorted(self.entries(), key=_written_ns):
            if entry.id in newest:
                self.drop_entry(newest[entry.id])
            newest[entry.id] = entry

    def write(self, name: str, data: bytes) -> None:
        """Write a file whole or not at all; `name` starts from the catalogue's folder."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        partial.write_bytes(data)
        partial.replace(path)

    def put_entry(self, family: str, name: str, files: Mapping[str, bytes]) -> None:
        """Write the folder of an entry, in the place of an earlier one."""
        whole = self.folder / family / name
        partial, old = whole.with_name(f".{name}.partial"), whole.with_name(f".{name}.old")
        for file, data in files.items():
            (partial / file).parent.mkdir(parents=True, exist_ok=True)
            (partial / file).write_bytes(data)
        if whole.exists():
            whole.rename(old)
        partial.rename(whole)
        if old.exists():
            shutil.rmtree(old)

    def drop_entry(self, entry: Entry) -> None:
        """Remove the folder of an entry, and nothing of its dataset."""
        gone = entry.folder.with_name(f".{entry.id}.gone")
        entry.folder.rename(gone)
        shutil.rmtree(gone)

    def drop_empty_families(self) -> None:
        """Remove the folders of families whose last entry is gone."""
        for path in self.folder.iterdir():
            if path.is_dir() and [inner.name for inner in path.iterdir()] == ["collection.json"]:
                shutil.rmtree(path)


def _written_ns(entry: Entry) -> int:
    return (entry.folder / f"{entry.id}.json").stat().st_mtime_ns


def read_json(path: Path) -> JsonObject:
    """A JSON object of the catalogue. Raises ValueError for anything else."""
    try:
        value = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} should hold a JSON object, got {type(value).__name__}")  # noqa: TRY004
    return value
