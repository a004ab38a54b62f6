"""What the names in a published folder say: splits, by lists or by a hash, dates, and which dataset it is."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sits_catalog.cube import Split

__all__ = ["day_of", "find_lists", "folders_of", "identity_of", "place_of", "read_names", "read_splits"]

_EPOCH = date(1970, 1, 1).toordinal()
_SUFFIXES = (".tif", ".tiff", ".jpg", ".png")


def find_lists(folders: Iterable[Path], names: Mapping[Split, Sequence[str]]) -> dict[Split, Path]:
    """For each split the first file of these names, in the first of the folders that has one; without those that have
    none."""
    places = list(folders)
    candidates = {split: [folder / name for folder in places for name in files] for split, files in names.items()}
    found = {split: next((path for path in paths if path.is_file()), None) for split, paths in candidates.items()}
    return {split: path for split, path in found.items() if path is not None}


def read_names(path: Path, *, first: bool = False) -> list[str]:
    """The names in a list, which stand one a line or between commas, without folders and the suffix of an image.

    `first` takes the first of each line alone, as of tables whose other columns say something else.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} should be a text file with a name a line; it cannot be read: {error}") from error
    fields = [line.split(",")[: 1 if first else None] for line in lines]
    return [_bare(name) for line in fields for name in line if name.strip()]


def read_splits(
    names: Sequence[str], lists: Mapping[Split, Path], *, where: str, first: bool = False
) -> NDArray[np.uint8]:
    """(P,): the split of each name by the lists, NONE for those in no list.

    ValueError where a list has a name that is none of them, two lists have one name, or two names are the same.
    `where` says in words where the names come from.
    """
    number = {name: index for index, name in enumerate(names)}
    if len(number) < len(names):
        twice = next(name for index, name in enumerate(names) if number[name] != index)
        raise ValueError(
            f"{where} has two files called {twice!r} but for their suffix, which lists leave out; rename one of them"
        )
    splits = np.full(len(names), Split.NONE, np.uint8)
    for split, path in lists.items():
        listed = read_names(path, first=first)
        unknown = [name for name in listed if name not in number]
        if unknown:
            raise ValueError(
                f"{path} should name what is in {where}; {len(unknown)} of its {len(listed)} names are not there, "
                f"the first is {unknown[0]!r}: complete the folder, or shorten the list"
            )
        rows = np.array([number[name] for name in listed], np.intp)
        twice = rows[(splits[rows] != Split.NONE) & (splits[rows] != split)]
        if twice.size:
            other = lists[Split(int(splits[twice[0]]))]
            raise ValueError(f"{names[twice[0]]!r} is in {other} and in {path}; leave it in one of them")
        splits[rows] = split
    return splits


def place_of(name: str) -> float:
    """A number in [0, 1) that depends on the name alone: the first 8 bytes of its SHA-256, as a fraction."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64


def identity_of(layout: str, parts: Iterable[bytes]) -> str:
    """The SHA-256, in hex digits, of a layout and the parts in their order."""
    digest = hashlib.sha256(layout.encode())
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


def day_of(text: str) -> int:
    """Days since 1970-01-01 of YYYYMMDD; ValueError where that is no date.

    >>> day_of("19700201")
    31
    """
    return date.fromisoformat(text).toordinal() - _EPOCH


def folders_of(path: Path, what: str) -> list[str]:
    """Names of the folders in a folder, sorted, at the cost of one listing.

    FileNotFoundError where there is no such folder; `what` says what should be in it.
    """
    if not path.is_dir():
        raise FileNotFoundError(f"{path} should be a folder with {what}; there is no such folder")
    with os.scandir(path) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir())


def _bare(name: str) -> str:
    last = name.strip().replace("\\", "/").rsplit("/", 1)[-1]
    return next((last[: -len(suffix)] for suffix in _SUFFIXES if last.lower().endswith(suffix)), last)
